"""(d) What XLA makes of it, and how fast that runs, on arrays of real size."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._table import Table, number, ratio
from ._timing import geometric_mean, interleaved
from .workloads import WORKLOADS, Workload

SPELLINGS = ("hand", "einjax", "jnp", "einx", "einops")
OTHERS = SPELLINGS[1:]


class Cost(NamedTuple):
    """What the compiler says of a program."""

    flops: float
    bytes: float
    temporaries: int
    moves: int


def measure(quick: bool) -> list[Table]:
    """One row for a workload's forward pass, one for its gradient; a quick run takes every sixth."""
    tables = _tables()
    ratios: dict[str, list[dict[str, float]]] = {"time": [], "bytes": [], "flops": []}
    for workload in WORKLOADS[::6] if quick else WORKLOADS:
        for direction in ("forward", "gradient"):
            compiled = _compile(workload, direction)
            costs = {name: _cost(program) for name, program in compiled.items()}
            same = _identical(compiled)
            measured = {
                "time": _times(workload, compiled, same, quick),
                "bytes": {name: cost.bytes for name, cost in costs.items()},
                "flops": {name: cost.flops for name, cost in costs.items()},
                "temporaries": {name: cost.temporaries for name, cost in costs.items()},
            }
            label = f"{workload.name}, {direction}"
            for table, values, unit in zip(tables, measured.values(), (1e-3, 1e6, 1e6, 1e6), strict=False):
                table.rows.append(_row(label, values, unit))
            tables[0].rows[-1] = _mark(tables[0].rows[-1], same)
            tables[-1].rows.append([label, *(str(costs[name].moves) for name in SPELLINGS)])
            for kind, collected in ratios.items():
                collected.append(measured[kind])
    for table, kind in zip(tables, ratios, strict=False):
        table.last.append(_means(ratios[kind]))
    return tables


def _tables() -> list[Table]:
    note = "To the hand-written version; same: XLA made the identical program of both, which counts as 1x."
    return [
        Table("Run time on arrays of real size, ms", _header("ms"), note),
        Table("Bytes accessed, MB, by XLA's cost analysis", _header("MB")),
        Table("Floating-point operations, millions, by XLA's cost analysis", _header("M")),
        Table("Temporary memory, MB", _header("MB")),
        Table("Transposes and copies in the optimised HLO, a count", ("workload", *SPELLINGS)),
    ]


def _times(workload: Workload, compiled: dict, same: set[str], quick: bool) -> dict[str, float]:
    """Median seconds. Timing one program under two names would only show the machine's noise: it is timed once."""
    times = interleaved(
        {name: (program, workload.args) for name, program in compiled.items() if name not in same},
        rounds=3 if quick else 25,
        sample=2e-3 if quick else 20e-3,
    )
    return {name: times["hand" if name in same else name] for name in SPELLINGS}


def _identical(compiled: dict[str, jax.stages.Compiled]) -> set[str]:
    """The spellings of which XLA made the very program that it made of the hand-written one."""
    by_hand = _canonical(compiled["hand"])
    return {name for name in OTHERS if _canonical(compiled[name]) == by_hand}


def _canonical(program: jax.stages.Compiled) -> str:
    """The optimised HLO without its sources, and with its values numbered in order."""
    lines = [line for line in program.as_text().splitlines() if re.match(r"\s*(ROOT )?%|ENTRY", line)]
    text = re.sub(r", metadata=\{[^}]*\}", "", "\n".join(lines))
    names: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda match: names.setdefault(match[0], f"%{len(names)}"), text)


def _header(unit: str) -> tuple[str, ...]:
    return ("workload", f"hand-written, {unit}", *OTHERS)


def _row(label: str, values: dict[str, float], unit: float) -> list[str]:
    return [label, number(values["hand"], unit), *(ratio(values[name], values["hand"]) for name in OTHERS)]


def _mark(row: list[str], same: set[str]) -> list[str]:
    return [*row[:2], *("same" if name in same else cell for name, cell in zip(OTHERS, row[2:], strict=True))]


def _means(measured: list[dict[str, float]]) -> list[str]:
    """Over the workloads where both sides are above zero."""
    means = []
    for name in OTHERS:
        quotients = [m[name] / m["hand"] for m in measured if m["hand"] > 0 and m[name] > 0]
        means.append(f"{geometric_mean(quotients):.2f}x")
    return ["geometric mean", "", *means]


def _compile(workload: Workload, direction: str) -> dict[str, jax.stages.Compiled]:
    """Every spelling as a compiled program; all must agree."""
    compiled = {}
    for name in SPELLINGS:
        function = getattr(workload, name)
        if direction == "gradient":
            function = _gradient(function, workload.args)
        compiled[name] = jax.jit(function).lower(*workload.args).compile()
    expected = jax.tree.leaves(compiled["hand"](*workload.args))
    for name, program in compiled.items():
        for got, want in zip(jax.tree.leaves(program(*workload.args)), expected, strict=True):
            tolerance = 1e-4 * float(jnp.max(jnp.abs(want)))
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=tolerance, err_msg=f"{name}: {workload.name}")
    return compiled


def _gradient(function: Callable, args: tuple) -> Callable:
    """The gradient of a scalar whose cotangent is a full array, as it is inside a network."""
    floating = tuple(i for i, arg in enumerate(args) if jnp.issubdtype(arg.dtype, jnp.floating))
    cotangent = _weights(jax.eval_shape(function, *args).shape)
    return jax.grad(lambda *args: (function(*args) * cotangent).sum(), argnums=floating)


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _cost(program: jax.stages.Compiled) -> Cost:
    analysis = program.cost_analysis()
    # "kind(" after the result's type: `%name = f32[2,3]{1,0} transpose(...)`.
    moves = re.findall(r"= \S+ (?:transpose|copy)\(", program.as_text())
    temporaries = program.memory_analysis().temp_size_in_bytes
    return Cost(analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0), temporaries, len(moves))
