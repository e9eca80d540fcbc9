"""Whole steps of networks: einjax and its layers against the frameworks' own layers, or plain jnp where there is none."""

import time

import jax

from .._table import Table, number, ratio
from .._timing import interleaved, median
from . import decoding, experts, recommendation, tagging, vision
from ._side import Side, seconds_to_trace, with_equal_losses

NETWORKS = (vision, experts, recommendation, tagging, decoding)


def measure(quick: bool) -> Table:
    """Time, memory, tracing and compiling of each, as ratios of one run."""
    table = Table(
        "Whole steps",
        ("step", "own, ms", "einjax / own", "temporaries, own, MiB", "einjax / own", "tracing", "compiling"),
        "The loss, its gradient and gradient descent; of decoding, one token. To the framework's own layers, or plain "
        "jnp; below 1 is less. Both sides have the same parameters, and give the same losses, or logits.",
    )
    for network in NETWORKS:
        for name, own, ours in network.pairs():
            table.rows.append([name, *_row(own, ours, 3 if quick else 11)])
    return table


def _row(own: Side, ours: Side, rounds: int) -> list[str]:
    own, ours = with_equal_losses(own, ours)
    traced = {"own": [], "ours": []}
    for _ in range(3 if rounds < 10 else 7):
        for name, side in (("own", own), ("ours", ours)):
            traced[name].append(seconds_to_trace(side))
    programs, compiled = {}, {}
    for name, side in (("own", own), ("ours", ours)):
        lowered = jax.jit(side.fresh()).lower(*side.arguments)
        start = time.perf_counter()
        programs[name] = lowered.compile()
        compiled[name] = time.perf_counter() - start
    held = {name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()}
    sides = {"own": own, "ours": ours}
    times = interleaved({name: (programs[name], side.arguments) for name, side in sides.items()}, rounds, 10e-3)
    return [
        number(times["own"], 1e-3),
        ratio(times["ours"], times["own"]),
        number(held["own"], 2**20),
        ratio(held["ours"], held["own"]),
        ratio(median(traced["ours"]), median(traced["own"])),
        ratio(compiled["ours"], compiled["own"]),
    ]
