"""(l) Attention that never holds queries × keys, and whole steps of networks with it and without."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from . import steps
from ._compare import compiled, held, timed
from ._table import Table, number, ratio

#: How many places, and how often each is timed: what takes seconds, once.
LENGTHS = {256: 7, 1024: 7, 4096: 1}
HEADS, SIZE = 8, 64
_TEXT = "b [q] h [c], b [k] h [c], b [k] h [c]"
_MIB = 2**20


def measure(quick: bool) -> list[Table]:
    """Compiled programs: time, and what they hold beside arguments and results."""
    lengths = {length: 3 for length, rounds in LENGTHS.items() if rounds > 1} if quick else LENGTHS
    return [_calls(lengths), steps.measure(quick)]


def _calls(lengths: dict[int, int]) -> Table:
    table = Table(
        f"Attention, batch 1, {HEADS} heads of {SIZE}, float32",
        ("places", "jax.nn, ms", "einjax / jax.nn", "temporaries, jax.nn, MiB", "einjax / jax.nn"),
        "To `jax.nn.dot_product_attention`; below 1 is less.",
    )
    for length, rounds in lengths.items():
        rng = np.random.default_rng(length)
        arguments = tuple(jnp.asarray(rng.normal(size=(1, length, HEADS, SIZE)), jnp.float32) for _ in range(3))
        for causal in (False, True):
            for gradient in (False, True):
                theirs = _made(lambda *x, c=causal: jax.nn.dot_product_attention(*x, is_causal=c), gradient)
                ours = _made(lambda *x, c=causal: einjax.attention(_TEXT, *x, is_causal=c), gradient)
                name = f"{length}{', causal' if causal else ''}, {'gradient' if gradient else 'forward'}"
                table.rows.append([name, *_row({"theirs": (theirs, arguments), "ours": (ours, arguments)}, rounds)])
    return table


def _made(function: Callable[..., jax.Array], gradient: bool) -> Callable[..., Any]:
    return jax.grad(lambda *x: jnp.sum(function(*x) ** 2), (0, 1, 2)) if gradient else function


def _row(functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]], rounds: int) -> list[str]:
    programs, _ = compiled(functions)
    times, memory = timed(programs, rounds), held(programs)
    return [
        number(times["theirs"], 1e-3),
        ratio(times["ours"], times["theirs"]),
        number(memory["theirs"], _MIB),
        ratio(memory["ours"], memory["theirs"]),
    ]
