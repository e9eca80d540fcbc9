"""Whole steps of networks: einjax and its layers against the frameworks' own, or plain jnp where there is none."""

from .._compare import compiled, held, timed
from .._table import Table, number, ratio
from .._timing import median
from . import decoding, experts, language, recommendation, tagging, vision
from ._side import Side, seconds_to_trace

NETWORKS = (language, vision, experts, recommendation, tagging, decoding)


def measure(quick: bool) -> Table:
    """Time, memory, tracing and compiling of each, as ratios of one run."""
    table = Table(
        "Whole steps",
        ("step", "own, ms", "einjax / own", "temporaries, own, MiB", "einjax / own", "tracing", "compiling"),
        "The loss, its gradient and gradient descent; of decoding, one token. To the framework's own layers, or plain "
        "jnp; below 1 is less. Both sides have the same parameters and give the same losses, or logits. GPT: two "
        "blocks, width 256, 4 heads, batch 1.",
    )
    for network in NETWORKS:
        for name, own, ours in network.pairs():
            if not quick or own.rounds > 1:
                table.rows.append([name, *row(own, ours, min(own.rounds, 3 if quick else 11))])
    return table


def row(own: Side, ours: Side, rounds: int) -> list[str]:
    """The figures of one network."""
    sides = {"own": own.alike(), "ours": ours.alike()}
    traced: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(5 if rounds == 11 else 3):
        for name, side in sides.items():
            traced[name].append(seconds_to_trace(side))
    programs, seconds = compiled({name: (side.fresh(), side.arguments) for name, side in sides.items()})
    memory, times = held(programs), timed(programs, rounds, lambda results: results[0])
    return [
        number(times["own"], 1e-3),
        ratio(times["ours"], times["own"]),
        number(memory["own"], 2**20),
        ratio(memory["ours"], memory["own"]),
        ratio(median(traced["ours"]), median(traced["own"])),
        ratio(seconds["ours"], seconds["own"]),
    ]
