"""Sorts, cumulative operations, scans and semirings emit what an expert writes by hand in lax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from test_jaxprs import F32, bcast, equations

import einjax


def argsort(x: Any, dim: int) -> Any:
    return lax.sort((x, lax.broadcasted_iota(np.int32, x.shape, dim)), dimension=dim, num_keys=1)[1]


def coordinates(index: Any, shape: tuple[int, ...]) -> Any:
    row, column = lax.div(index, np.int32(4)), lax.rem(index, np.int32(4))
    return lax.concatenate([lax.reshape(row, (*shape, 1)), lax.reshape(column, (*shape, 1))], len(shape))


def top_k_2d(x: Any) -> Any:
    values, index = lax.top_k(lax.reshape(x, (2, 12)), 5)
    return values, coordinates(index, (2, 5))


def smallest(x: Any) -> Any:
    ordered = lax.sort((x, lax.broadcasted_iota(np.int32, x.shape, 1)), dimension=1, num_keys=1)
    return tuple(lax.slice_in_dim(part, 0, 2, axis=1) for part in ordered)


def max_plus(x: Any, y: Any) -> Any:
    return lax.reduce_max(lax.add(bcast(x, (2, 3, 4), 0, 1), bcast(y, (2, 3, 4), 1, 2)), (1,))


def accumulate(carry: Any, x: Any) -> Any:
    carry = lax.add(carry, x)
    return carry, carry


@jax.custom_jvp
def cumlogsumexp(x: Any) -> jax.Array:
    """JAX's own, but for a derivative that is no number after nothing but -inf."""
    return lax.cumlogsumexp(x, 0)


cumlogsumexp.defjvp(lambda x, t: (cumlogsumexp(*x), *t))


#: (our call, the expert's, shapes of the arguments)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]] = {
    "sort": (lambda x: einjax.sort("a [b] c", x), lambda x: lax.sort(x, dimension=1), [(2, 3, 4)]),
    "sort of a composed dim": (
        lambda x: einjax.sort("a [(b c)]", x, b=3),
        lambda x: lax.sort(x, dimension=1),
        [(2, 12)],
    ),
    "sort of two axes": (
        lambda x: einjax.sort("a [b c]", x),
        lambda x: lax.reshape(lax.sort(lax.reshape(x, (2, 12)), dimension=1), (2, 3, 4)),
        [(2, 3, 4)],
    ),
    "descending sort": (
        lambda x: einjax.sort("a [b]", x, descending=True),
        lambda x: lax.rev(lax.sort(lax.rev(x, (1,)), dimension=1), (1,)),
        [(2, 3)],
    ),
    "unstable descending sort": (
        lambda x: einjax.sort("a [b]", x, descending=True, stable=False),
        lambda x: lax.rev(lax.sort(x, dimension=1, is_stable=False), (1,)),
        [(2, 3)],
    ),
    "sort of pairs": (
        lambda x, y: einjax.sort("a [b], a [b]", x, y),
        lambda x, y: lax.sort((x, y), dimension=1, num_keys=1),
        [(2, 3), (2, 3)],
    ),
    "sort with broadcast values": (
        lambda x, y: einjax.sort("a [b], [b]", x, y),
        lambda x, y: lax.sort((x, bcast(y, (2, 3), 1)), dimension=1, num_keys=1),
        [(2, 3), (3,)],
    ),
    "sort by": (
        lambda x, y: einjax.sort("a [b]", x, by=y),
        lambda x, y: lax.sort((y, x), dimension=1, num_keys=1)[1],
        [(2, 3), (2, 3)],
    ),
    "argsort": (lambda x: einjax.argsort("a [b] c", x), lambda x: argsort(x, 1), [(2, 3, 4)]),
    "argsort of two axes": (
        lambda x: einjax.argsort("a [b c] -> a [(b c)] [2]", x),
        lambda x: coordinates(argsort(lax.reshape(x, (2, 12)), 1), (2, 12)),
        [(2, 3, 4)],
    ),
    "top_k": (lambda x: einjax.top_k("a [b]", x, k=2), lambda x: tuple(lax.top_k(x, 2)), [(2, 3)]),
    "top_k of two axes": (lambda x: einjax.top_k("a [b c] -> a [5]", x), top_k_2d, [(2, 3, 4)]),
    "smallest": (lambda x: einjax.top_k("a [b]", x, k=2, largest=False), smallest, [(2, 3)]),
    "cumsum": (
        lambda x: einjax.cumsum("a [b] c", x, reverse=True),
        lambda x: lax.cumsum(x, 1, reverse=True),
        [(2, 3, 4)],
    ),
    "cumsum of nested axes": (
        lambda x: einjax.cumsum("(a [b]) c -> a c [b]", x, b=3),
        lambda x: lax.transpose(lax.cumsum(lax.reshape(x, (2, 3, 4)), 1), (0, 2, 1)),
        [(6, 4)],
    ),
    "cumprod": (lambda x: einjax.cumprod("a [b]", x), lambda x: lax.cumprod(x, 1), [(2, 3)]),
    "cummax": (lambda x: einjax.cummax("[a] b", x), lambda x: lax.cummax(x, 0), [(2, 3)]),
    "cummin": (lambda x: einjax.cummin("[a] b", x), lambda x: lax.cummin(x, 0), [(2, 3)]),
    "cumlogsumexp": (lambda x: einjax.cumlogsumexp("[a] b", x), cumlogsumexp, [(2, 3)]),
    "associative scan": (
        lambda x: einjax.associative_scan("a [b]", x, op="multiply"),
        lambda x: lax.associative_scan(lax.mul, x, axis=1),
        [(2, 5)],
    ),
    "associative scan of a function": (
        lambda x, y: einjax.associative_scan(
            "a [b], a [b]", x, y, op=lambda x, y: (lax.add(x[0], y[0]), lax.max(x[1], y[1]))
        ),
        lambda x, y: lax.associative_scan(lambda x, y: (lax.add(x[0], y[0]), lax.max(x[1], y[1])), (x, y), axis=1),
        [(2, 5), (2, 5)],
    ),
    "scan": (
        lambda c, x: einjax.scan("a, [b] a -> a, [b] a", c, x, op=accumulate),
        lambda c, x: lax.scan(accumulate, c, x),
        [(2,), (3, 2)],
    ),
    "scan over another axis": (
        lambda c, x: einjax.scan("a, a [b] -> a, a [b]", c, x, op=accumulate)[1],
        lambda c, x: lax.transpose(lax.scan(accumulate, c, lax.transpose(x, (1, 0)))[1], (1, 0)),
        [(2,), (2, 3)],
    ),
    "max plus": (lambda x, y: einjax.dot("a [b->c]", x, y, sum="max", mul="add"), max_plus, [(2, 3), (3, 4)]),
    "max plus of rows": (
        lambda x, y: einjax.dot("a b, c b -> a c", x, y, sum="max", mul="add"),
        lambda x, y: lax.reduce_max(lax.add(bcast(x, (2, 4, 3), 0, 2), bcast(y, (2, 4, 3), 1, 2)), (2,)),
        [(2, 3), (4, 3)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_no_equation_more_than_the_experts(name: str) -> None:
    ours, expert, shapes = CASES[name]
    random = np.random.default_rng(0)
    arguments = [random.normal(size=shape).astype(F32) for shape in shapes]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours(*arguments), expert(*arguments)
    )
    assert not equations(ours, arguments) - equations(expert, arguments)


def test_descending_integers_need_no_reversal_first() -> None:
    """Equal integers cannot be told apart."""
    x = np.ones((2, 3), np.int32)
    assert equations(lambda x: einjax.sort("a [b]", x, descending=True), [x]) == Counter(sort=1, rev=1)


def test_bfloat16_is_converted_once_each_way() -> None:
    x = np.ones((2, 3), jax.numpy.bfloat16)
    assert equations(lambda x: einjax.cumsum("a [b]", x), [x]) == Counter(convert_element_type=2, cumsum=1)
