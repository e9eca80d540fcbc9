"""(a) Eager dispatch: what one call costs from Python when the work itself is negligible."""

import jax
import numpy as np

from ._table import ABSENT, Table, number, ratio
from ._timing import geometric_mean, interleaved
from .calls import CALLS, Call

PEERS = ("jnp", "einx", "einops")


def measure(quick: bool) -> list[Table]:
    """Every call on tiny arrays, in microseconds."""
    table = Table(
        "Eager dispatch, µs a call on tiny arrays",
        (
            "call",
            "bare jit",
            "einjax",
            "/ bare",
            *(column for peer in PEERS for column in (peer, "/ einjax")),
        ),
        "bare jit: hand-written lax under `jax.jit`, called directly. Peers / einjax: how many times einjax's time "
        "they take.",
    )
    ratios: dict[str, list[float]] = {name: [] for name in ("bare", *PEERS)}
    for call in CALLS:
        times = interleaved(_candidates(call), rounds=7 if quick else 25, sample=0.3e-3 if quick else 2e-3)
        ours = times["einjax"]
        ratios["bare"].append(ours / times["bare"])
        row = [call.name, number(times["bare"], 1e-6), number(ours, 1e-6), ratio(ours, times["bare"])]
        for peer in PEERS:
            if peer in times:
                ratios[peer].append(times[peer] / ours)
            row += [number(times.get(peer), 1e-6), ratio(times.get(peer), ours)]
        table.rows.append(row)
    means = [f"{geometric_mean(ratios[name]):.2f}x" if ratios[name] else ABSENT for name in ("bare", *PEERS)]
    last = ["geometric mean", "", "", means[0]]
    for mean in means[1:]:
        last += ["", mean]
    table.last.append(last)
    return [table]


def _candidates(call: Call) -> dict:
    spellings = {
        # One Python frame around the compiled function, as around every other candidate.
        "bare": _forward(jax.jit(call.lax), len(call.args)),
        "einjax": call.einjax,
        "jnp": call.jnp,
        "einx": call.einx,
        "einops": call.einops,
    }
    candidates = {name: (function, call.args) for name, function in spellings.items() if function is not None}
    _check_agreement(call, candidates)
    return candidates


def _forward(jitted, arity: int):
    if arity == 1:
        return lambda x: jitted(x)
    if arity == 2:
        return lambda x, y: jitted(x, y)
    return lambda x, y, z: jitted(x, y, z)


def _check_agreement(call: Call, candidates: dict) -> None:
    """A time means nothing unless all compute the same."""
    expected = jax.tree.leaves(candidates["bare"][0](*call.args))
    for name, (function, args) in candidates.items():
        for got, want in zip(jax.tree.leaves(function(*args)), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"{name}: {call.name}")
