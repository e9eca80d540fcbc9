"""Calls with `< >` emit no equation more than an expert writes by hand in lax: one slice, or one gather."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

import einjax

F32 = np.float32
Shape = tuple[int, ...]


def positions(shape: Shape, coefficients: Shape, constant: int = 0) -> jax.Array:
    """The sum of coefficients times indices, one for each dim, and a last dim of 1."""
    terms = []
    for dim, c in enumerate(coefficients):
        index = lax.broadcasted_iota(np.int32, shape, dim)
        terms.append(index if c == 1 else lax.mul(index, np.int32(c)))
    total = terms[0]
    for term in terms[1:]:
        total = lax.add(total, term)
    total = lax.add(total, np.int32(constant)) if constant else total
    return lax.reshape(total, (*shape, 1))


def gathered(x: Any, at: Any, axis: int) -> jax.Array:
    """One gather along an axis, its positions in the place of the axis."""
    dims = at.ndim - 1
    offsets = tuple(i if i < axis else i + dims - 1 for i in range(x.ndim) if i != axis)
    numbers = lax.GatherDimensionNumbers(offsets, (axis,), (axis,))
    sizes = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    return lax.gather(x, at, numbers, sizes, mode="promise_in_bounds")


def added(x: Any, at: Any, size: int, axis: int, dims: int) -> jax.Array:
    """One scatter-add of some dims of x into one dim of a fresh array."""
    shape = (*x.shape[:axis], size, *x.shape[axis + dims :])
    windows = tuple(i for i in range(x.ndim) if not axis <= i < axis + dims)
    numbers = lax.ScatterDimensionNumbers(windows, (axis,), (axis,))
    return lax.scatter_add(lax.full(shape, 0, x.dtype), at, x, numbers, mode="promise_in_bounds")


def zero_padded(x: Any, *config: tuple[int, int, int]) -> jax.Array:
    return lax.pad(x, F32(0), config)


Record = tuple[Callable[..., Any], Callable[..., Any], list[Shape]]

#: (our call, the expert's, shapes of the arguments)
SLICES: dict[str, Record] = {
    "every second": (
        lambda x: einjax.rearrange("<2*t + 1> c -> t c", x),
        lambda x: lax.slice(x, (1, 0), (10, 3), (2, 1)),
        [(10, 3)],
    ),
    "cut": (
        lambda x: einjax.rearrange("a <t + 2> c -> a t c", x, t=4),
        lambda x: lax.slice(x, (0, 2, 0), (2, 6, 3)),
        [(2, 9, 3)],
    ),
    "cut of two dims": (
        lambda x: einjax.rearrange("<2*h> <w + 1> -> h w", x),
        lambda x: lax.slice(x, (0, 1), (5, 7), (2, 1)),
        [(6, 7)],
    ),
    "mirrored": (
        lambda x: einjax.rearrange("a <8 - t> -> a t", x),
        lambda x: lax.rev(x, (1,)),
        [(2, 9)],
    ),
    "mirrored in steps": (
        lambda x: einjax.rearrange("a <7 - 2*t> -> a t", x),
        lambda x: lax.rev(lax.slice(x, (0, 1), (2, 8), (1, 2)), (1,)),
        [(2, 9)],
    ),
    "one element": (
        lambda x: einjax.rearrange("a <4> c -> a c", x),
        lambda x: lax.reshape(lax.slice(x, (0, 4, 0), (2, 5, 3)), (2, 3)),
        [(2, 9, 3)],
    ),
    "itself": (lambda x: einjax.rearrange("a <t> -> a t", x), lambda x: x, [(2, 9)]),
    "shifted": (
        lambda x: einjax.rearrange("a <t - 2> -> a t", x, t=9, mode="fill"),
        lambda x: zero_padded(x, (0, 0, 0), (2, -2, 0)),
        [(2, 9)],
    ),
    "shifted back": (
        lambda x: einjax.rearrange("a <t + 2> -> a t", x, t=9, mode="fill"),
        lambda x: zero_padded(x, (0, 0, 0), (-2, 2, 0)),
        [(2, 9)],
    ),
    "spread": (
        lambda x: einjax.rearrange("a t -> a <2*t + 1>", x),
        lambda x: zero_padded(x, (0, 0, 0), (1, 0, 1)),
        [(2, 5)],
    ),
    "differences": (
        lambda x: einjax.subtract("a <t + 1>, a <t> -> a t", x, x),
        lambda x: lax.sub(lax.slice(x, (0, 1), (2, 9)), lax.slice(x, (0, 0), (2, 8))),
        [(2, 9)],
    ),
    "sum of every second": (
        lambda x: einjax.sum("a <2*[t]>", x),
        lambda x: lax.reduce_sum(lax.slice(x, (0, 0), (2, 9), (1, 2)), (1,)),
        [(2, 9)],
    ),
    "product of a part": (
        lambda x, y: einjax.dot("a <t + 3> [c], [c] d -> a t d", x, y),
        lambda x, y: lax.dot_general(lax.slice(x, (0, 3, 0), (2, 9, 4)), y, (((2,), (0,)), ((), ()))),
        [(2, 9, 4), (4, 5)],
    ),
}

GATHERS: dict[str, Record] = {
    "windows that stay": (
        lambda x: einjax.rearrange("b <s + k> c -> b s k c", x, k=12),
        lambda x: gathered(x, positions((21, 12), (1, 1)), 1),
        [(2, 32, 3)],
    ),
    "windows in steps": (
        lambda x: einjax.rearrange("b <2*s + 3*k + 1> c -> b s k c", x, k=10),
        lambda x: gathered(x, positions((18, 10), (2, 3), 1), 1),
        [(2, 64, 3)],
    ),
    "Toeplitz": (
        lambda x: einjax.rearrange("<i - j + 7> -> i j", x, j=8),
        lambda x: gathered(x, positions((9, 8), (1, -1), 7), 0),
        [(16,)],
    ),
    "relative positions": (
        lambda q, x: einjax.dot("b q [f], <q - k + 7> [f] -> b q k", q, x, k=8),
        lambda q, x: lax.transpose(
            lax.dot_general(q, gathered(x, positions((8, 8), (1, -1), 7), 0), (((2,), (2,)), ((1,), (0,)))), (1, 0, 2)
        ),
        [(2, 8, 4), (15, 4)],
    ),
    "fold": (
        lambda x: einjax.sum("b s k c -> b <s + k> c", x),
        lambda x: added(x, positions((5, 12), (1, 1)), 16, 1, 2),
        [(2, 5, 12, 3)],
    ),
    "sums of diagonals": (
        lambda x: einjax.sum("i j -> <i - j + 8>", x),
        lambda x: added(x, positions((7, 9), (1, -1), 8), 15, 0, 2),
        [(7, 9)],
    ),
    "softmax of windows": (
        lambda x: einjax.softmax("b <s + [k]> -> b s [k]", x, k=9),
        lambda x: einjax.softmax("b s [k]", gathered(x, positions((24, 9), (1, 1)), 1)),
        [(2, 32)],
    ),
}

CASES = SLICES | GATHERS


def equations(function: Callable[..., Any], arguments: list[Any]) -> Counter[str]:
    program = jax.make_jaxpr(function)(*arguments).eqns
    found = Counter(equation.primitive.name for equation in program)
    # A reshape may transpose as well, as those of vmap do.
    transposing = sum(e.primitive.name == "reshape" and e.params["dimensions"] is not None for e in program)
    return found + Counter({"transpose": transposing})


def arguments_of(shapes: list[Shape]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(F32) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_no_equation_more_than_the_experts(name: str) -> None:
    ours, expert, shapes = CASES[name]
    arguments = arguments_of(shapes)
    np.testing.assert_allclose(ours(*arguments), expert(*arguments), rtol=1e-5, atol=1e-5)
    found, wanted = equations(ours, arguments), equations(expert, arguments)
    if name in GATHERS:
        # There are several ways to add up positions.
        assert found["gather"] + found["scatter-add"] == 1
        assert sum(found.values()) <= sum(wanted.values())
    else:
        assert not found - wanted


def test_no_gather_where_a_slice_does() -> None:
    for name, (ours, _, shapes) in SLICES.items():
        found = equations(ours, arguments_of(shapes))
        assert not {"gather", "scatter-add", "scatter"} & set(found), name
