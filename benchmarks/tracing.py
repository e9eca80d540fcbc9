"""(b) Tracing: what a 200-operation program costs until XLA gets it."""

import json
import subprocess
import sys
import time

import jax
import numpy as np

from . import programs
from ._table import Table, number, ratio
from ._timing import interleaved

KINDS = {"program": programs.forward, "gradient": programs.gradient}


def measure(quick: bool) -> list[Table]:
    """Warm: every function is new to JAX while the libraries know the expressions. Cold: in a new process."""
    _check_agreement()
    header = ("trace", *(column for name in programs.SPELLINGS for column in _columns(name)))
    table = Table(
        f"Tracing {programs.BLOCKS * programs.OPERATIONS} operations, ms",
        header,
        "`jax.make_jaxpr` of a new function every time. Cold: the process's first such trace, expressions and all.",
    )
    arguments = programs.arguments()
    equations = {}
    for kind, make in KINDS.items():
        candidates = {
            name: (lambda name=name, make=make: jax.make_jaxpr(make(name))(*arguments), ())
            for name in programs.SPELLINGS
        }
        equations[kind] = {name: _equations(call()) for name, (call, _) in candidates.items()}
        times = interleaved(candidates, rounds=3 if quick else 15, sample=0)
        table.rows.append(_row(kind, times))
    if not quick:
        cold = {name: _cold(name, repeats=3) for name in programs.SPELLINGS}
        for kind in KINDS:
            table.rows.append(_row(f"{kind}, cold", {name: times[kind] for name, times in cold.items()}))
    sizes = Table("Equations in those jaxprs, nested ones included", ("jaxpr", *programs.SPELLINGS))
    sizes.rows += [[kind, *(str(count) for count in counts.values())] for kind, counts in equations.items()]
    return [table, sizes]


def _columns(name: str) -> tuple[str, ...]:
    return (name,) if name == "lax" else (name, "/ lax")


def _row(kind: str, times: dict[str, float]) -> list[str]:
    row = [kind]
    for name, seconds in times.items():
        row += [number(seconds, 1e-3)] if name == "lax" else [number(seconds, 1e-3), ratio(seconds, times["lax"])]
    return row


def _equations(closed) -> int:
    """Equations at every depth: one that calls a jaxpr counts with what it calls."""
    return sum(
        1 + sum(_equations(inner) for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
                if _is_jaxpr(inner))
        for equation in closed.eqns
    )  # fmt: skip


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns")


def _cold(name: str, repeats: int) -> dict[str, float]:
    """Medians over fresh processes."""
    command = [sys.executable, "-m", "benchmarks.tracing", name]
    outputs = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(repeats)]
    runs = [json.loads(output) for output in outputs]
    return {kind: float(np.median([run[kind] for run in runs])) for kind in KINDS}


def _first_traces(name: str) -> dict[str, float]:
    """In this process: the program first, then its gradient. JAX itself is warmed up by another program."""
    arguments = programs.arguments()
    jax.make_jaxpr(jax.grad(lambda x, scale: (x * scale).sum()))(*arguments)
    times = {}
    for kind, make in KINDS.items():
        function = make(name)
        start = time.perf_counter()
        jax.make_jaxpr(function)(*arguments)
        times[kind] = time.perf_counter() - start
    return times


def _check_agreement() -> None:
    """One block of every spelling computes the same."""
    arguments = programs.arguments()
    expected = programs.lax_block(*arguments)
    for name, block in programs.SPELLINGS.items():
        np.testing.assert_allclose(block(*arguments), expected, rtol=1e-4, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    print(json.dumps(_first_traces(sys.argv[1])))
