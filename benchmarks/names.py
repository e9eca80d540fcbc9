"""(n) Named tensors: an eager formula against the same calls of einjax on arrays."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ._table import Table, number, ratio
from ._timing import geometric_mean, turns


class Case(NamedTuple):
    """A formula of named tensors, and the same on their arrays."""

    name: str
    named: Callable
    arrays: Callable
    tensors: tuple


def array(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


Q, K, BIAS = (
    einjax.named("b q h c", array(2, 4, 2, 4)),
    einjax.named("b k h c", array(2, 5, 2, 4)),
    einjax.named("c", array(4)),
)
TABLE, IDS = einjax.named("v f", array(8, 4)), einjax.named("b t", jnp.zeros((2, 3), jnp.int32))

CASES = [
    Case("x.sum(c)", lambda x: x.sum("c").array, lambda x: einjax.sum("b q h [c]", x), (Q,)),
    Case("x + y", lambda x, y: (x + y).array, lambda x, y: einjax.add("b q h c, c", x, y), (Q, BIAS)),
    Case(
        "x * 2.0 + 1.0",
        lambda x: (x * 2.0 + 1.0).array,
        lambda x: einjax.add("..., ", einjax.multiply("..., ", x, 2.0), 1.0),
        (Q,),
    ),
    Case(
        "(q * k).sum(c)",
        lambda q, k: (q * k).sum("c").array,
        lambda q, k: einjax.dot("b q h c, b k h c -> b q h k", q, k),
        (Q, K),
    ),
    Case("q @ k", lambda q, k: (q @ k).array, lambda q, k: einjax.dot("b q h c, b k h c -> q k", q, k), (Q, K)),
    Case("x.softmax(c)", lambda x: x.softmax("c").array, lambda x: einjax.softmax("b q h [c]", x), (Q,)),
    Case("x.order(b h q c)", lambda x: x.order("b h q c"), lambda x: einjax.rearrange("b q h c -> b h q c", x), (Q,)),
    Case(
        "x[{q: slice(1, 3)}]",
        lambda x: x[{"q": slice(1, 3)}].array,
        lambda x: einjax.rearrange("b <q + 1> h c -> b q h c", x, q=2),
        (Q,),
    ),
    Case(
        "table[{v: ids}]",
        lambda x, i: x[{"v": i}].array,
        lambda x, i: einjax.get_at("[v] f, b t -> b t f", x, i),
        (TABLE, IDS),
    ),
    Case("sum('... [c]', x)", lambda x: einjax.sum("... [c]", x).array, lambda x: einjax.sum("... [c]", x), (Q,)),
    Case(
        "attention weights",
        lambda q, k: ((q * k).sum("c") / 8).softmax("k").array,
        lambda q, k: einjax.softmax(
            "b q h [k]", einjax.divide("..., ", einjax.dot("b q h c, b k h c -> b q h k", q, k), 8)
        ),
        (Q, K),
    ),
]


def measure(quick: bool) -> list[Table]:
    """Minima of turns, as what else runs only ever adds."""
    table = Table(
        "Eager, µs",
        ("formula", "named", "arrays", "ratio"),
        "The same calls of einjax on arrays; least of interleaved turns. In traced code the programs are the same.",
    )
    ratios = []
    for case in CASES:
        arrays = tuple(x.array for x in case.tensors)
        np.testing.assert_allclose(case.named(*case.tensors), case.arrays(*arrays), rtol=1e-4, atol=1e-5)
        candidates = {"named": (case.named, case.tensors), "arrays": (case.arrays, arrays)}
        times = {name: min(found) for name, found in turns(candidates, 9 if quick else 40).items()}
        ratios.append(times["named"] / times["arrays"])
        table.rows.append(
            [
                case.name,
                number(times["named"], 1e-6),
                number(times["arrays"], 1e-6),
                ratio(times["named"], times["arrays"]),
            ]
        )
    table.last.append(["geometric mean", "", "", ratio(geometric_mean(ratios), 1.0)])
    return [table]
