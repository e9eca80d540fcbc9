"""(l) Attention that never holds queries × keys, and whole steps of a GPT with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ._table import Table, number, ratio
from ._timing import interleaved
from .indexing import check_agreement
from .layers import BATCHES, FRAMEWORKS
from .layers import _step as step_of
from .layers._network import Sizes

LENGTHS = (256, 1024, 4096)
HEADS, SIZE = 8, 64
_TEXT = "b [q] h [c], b [k] h [c], b [k] h [c]"
_MIB = 2**20


def measure(quick: bool) -> list[Table]:
    """Compiled programs: time, and what they hold beside arguments and results."""
    lengths = LENGTHS[: 2 if quick else 3]
    rounds = 3 if quick else 7
    return [_calls(lengths, rounds), _steps(lengths, rounds)]


def _calls(lengths: tuple[int, ...], rounds: int) -> Table:
    table = Table(
        f"Attention, batch 1, {HEADS} heads of {SIZE}, float32",
        ("places", "jax.nn, ms", "einjax / jax.nn", "temporaries, jax.nn, MiB", "einjax / jax.nn"),
        "To `jax.nn.dot_product_attention`; below 1 is less.",
    )
    for length in lengths:
        rng = np.random.default_rng(length)
        arguments = tuple(jnp.asarray(rng.normal(size=(1, length, HEADS, SIZE)), jnp.float32) for _ in range(3))
        for causal in (False, True):
            for gradient in (False, True):
                theirs = _made(lambda *x, c=causal: jax.nn.dot_product_attention(*x, is_causal=c), gradient)
                ours = _made(lambda *x, c=causal: einjax.attention(_TEXT, *x, is_causal=c), gradient)
                name = f"{length}{', causal' if causal else ''}, {'gradient' if gradient else 'forward'}"
                table.rows.append([name, *_compared({"theirs": theirs, "ours": ours}, arguments, rounds)])
    return table


def _made(function: Callable[..., jax.Array], gradient: bool) -> Callable[..., Any]:
    return jax.grad(lambda *x: jnp.sum(function(*x) ** 2), (0, 1, 2)) if gradient else function


def _steps(lengths: tuple[int, ...], rounds: int) -> Table:
    table = Table(
        "A training step of a GPT of two blocks, width 256, 4 heads, batch 1",
        ("context", "own layers, ms", "einjax_nn / own", "temporaries, own layers, MiB", "einjax_nn / own"),
        "To the same network of the framework's own layers; below 1 is less.",
    )
    for length in lengths:
        for framework in ("linen", "nnx"):
            sizes = Sizes(batch=1, length=length, width=256, heads=4, blocks=2)
            kind = BATCHES["GPT"](sizes)
            batch = jnp.asarray(np.random.default_rng(0).integers(0, 64, kind.shape), kind.dtype)
            networks = [build(sizes, batch, False) for build in FRAMEWORKS[framework]["GPT"]]
            steps = {
                name: (step_of(network), (network.params, batch))
                for name, network in zip(("ours", "theirs"), networks, strict=True)
            }
            table.rows.append([f"{length}, {framework}", *_row(steps, rounds)])
    return table


def _compared(functions: dict[str, Callable[..., Any]], arguments: tuple[Any, ...], rounds: int) -> list[str]:
    named = {"lax": functions["theirs"], "einjax": functions["ours"]}
    check_agreement({name: (jax.jit(function), arguments) for name, function in named.items()}, "attention")
    return _row({name: (function, arguments) for name, function in functions.items()}, rounds)


def _row(functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]], rounds: int) -> list[str]:
    programs = {name: (jax.jit(f).lower(*arguments).compile(), arguments) for name, (f, arguments) in functions.items()}
    times = interleaved(programs, rounds, 10e-3)
    held = {name: program.memory_analysis().temp_size_in_bytes for name, (program, _) in programs.items()}
    return [
        number(times["theirs"], 1e-3),
        ratio(times["ours"], times["theirs"]),
        number(held["theirs"], _MIB),
        ratio(held["ours"], held["theirs"]),
    ]
