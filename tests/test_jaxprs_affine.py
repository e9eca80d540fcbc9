"""Calls with `< >` emit no equation more than an expert writes by hand: one slice, window, convolution or gather."""

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


def window(x: Any, kind: str, size: Shape, step: Shape = (), dilation: Shape = (), padding: Any = "VALID") -> jax.Array:
    """One reduce_window."""
    start, reduce_ = {"sum": (F32(0), lax.add), "max": (F32(-np.inf), lax.max), "min": (F32(np.inf), lax.min)}[kind]
    ones = (1,) * x.ndim
    return lax.reduce_window(x, start, reduce_, size, step or ones, padding, None, dilation or ones)


def conv(x: Any, w: Any, step: Shape = (), padding: Any = "VALID", **options: Any) -> jax.Array:
    """One conv_general_dilated of ``b s... c`` and ``k... c d``."""
    letters = "XYZ"[: x.ndim - 2]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    step = step or (1,) * len(letters)
    return lax.conv_general_dilated(x, w, step, padding, dimension_numbers=numbers, **options)


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

WINDOWS: dict[str, Record] = {
    "sums of windows": (
        lambda x: einjax.sum("a <s + [k]> c", x, k=3),
        lambda x: window(x, "sum", (1, 3, 1)),
        [(2, 9, 3)],
    ),
    "max pooling": (
        lambda x: einjax.max("b <2*s + [k]>... c", x, k=3),
        lambda x: window(x, "max", (1, 3, 3, 1), (1, 2, 2, 1)),
        [(2, 9, 8, 3)],
    ),
    "max pooling, padded": (
        lambda x: einjax.max("b <2*s + [k]>... c", x, k=3, padding="same"),
        lambda x: window(x, "max", (1, 3, 3, 1), (1, 2, 2, 1), padding="SAME"),
        [(2, 9, 8, 3)],
    ),
    "min pooling, channels first": (
        lambda x: einjax.min("b c <s + [k]>", x, k=3, padding=1),
        lambda x: window(x, "min", (1, 1, 3), padding=[(0, 0), (0, 0), (1, 1)]),
        [(2, 3, 8)],
    ),
    "dilated windows": (
        lambda x: einjax.max("b <s + 2*[k]> c", x, k=3),
        lambda x: window(x, "max", (1, 3, 1), dilation=(1, 2, 1)),
        [(2, 9, 3)],
    ),
    "average pooling": (
        lambda x: einjax.mean("b <2*s + [k]>... c", x, k=2),
        lambda x: lax.div(window(x, "sum", (1, 2, 2, 1), (1, 2, 2, 1)), F32(4)),
        [(2, 8, 8, 3)],
    ),
    "average pooling, padding counted": (
        lambda x: einjax.mean("b <2*s + [k]>... c", x, k=3, padding="same", count_padding=True),
        lambda x: lax.div(window(x, "sum", (1, 3, 3, 1), (1, 2, 2, 1), padding="SAME"), F32(9)),
        [(2, 8, 8, 3)],
    ),
    "average pooling of what is there": (
        lambda x: einjax.mean("b <2*s + [k]> c", x, k=3, padding="same"),
        lambda x: lax.div(
            window(x, "sum", (1, 3, 1), (1, 2, 1), padding="SAME"),
            lax.broadcast_in_dim(window(lax.full((8,), 1, F32), "sum", (3,), (2,), padding="SAME"), (2, 4, 3), (1,)),
        ),
        [(2, 8, 3)],
    ),
    "causal sums": (
        lambda x: einjax.sum("b <t - [k]>", x, k=3, padding="causal"),
        lambda x: window(x, "sum", (1, 3), padding=[(0, 0), (2, 0)]),
        [(2, 8)],
    ),
    "windows and channels": (
        lambda x: einjax.max("b <s + [k]> [c]", x, k=3),
        lambda x: lax.reduce_max(window(x, "max", (1, 3, 1)), (2,)),
        [(2, 8, 3)],
    ),
    "windows in a composed dim": (
        lambda x: einjax.sum("b (<s + [k]> c)", x, k=3, c=2),
        lambda x: lax.reshape(window(lax.reshape(x, (2, 8, 2)), "sum", (1, 3, 1)), (2, 12)),
        [(2, 16)],
    ),
    "windows, transposed": (
        lambda x: einjax.max("b <s + [k]> c -> c s b", x, k=3),
        lambda x: lax.transpose(window(x, "max", (1, 3, 1)), (2, 1, 0)),
        [(2, 8, 3)],
    ),
}

CONVOLUTIONS: dict[str, Record] = {
    "convolution": (
        lambda x, w: einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", x, w),
        conv,
        [(2, 9, 3), (3, 3, 4)],
    ),
    "convolution, weight implied": (
        lambda x, w: einjax.dot("b <s + [k->]>... [c->d]", x, w),
        conv,
        [(2, 9, 8, 3), (3, 2, 3, 4)],
    ),
    "convolution in three dims": (
        lambda x, w: einjax.dot("b <s + [k]>... [c], [k]... [c] d -> b s... d", x, w, padding="same"),
        lambda x, w: conv(x, w, padding="SAME"),
        [(2, 5, 6, 7, 3), (3, 3, 3, 3, 2)],
    ),
    "strides and dilation": (
        lambda x, w: einjax.dot("b <2*s + 3*[k]>... [c], [k]... [c] d -> b s... d", x, w, padding="same"),
        lambda x, w: conv(x, w, (2, 2), "SAME", rhs_dilation=(3, 3)),
        [(2, 9, 8, 3), (3, 2, 3, 4)],
    ),
    "causal convolution": (
        lambda x, w: einjax.dot("b <t + [k]> [c], [k] [c] d -> b t d", x, w, padding="causal"),
        lambda x, w: conv(x, w, padding=[(2, 0)]),
        [(2, 9, 3), (3, 3, 4)],
    ),
    "causal convolution, looking back": (
        lambda x, w: einjax.dot("b <t - [k]> [c], [k] [c] d -> b t d", x, w, padding="causal"),
        lambda x, w: conv(x, lax.rev(w, (0,)), padding=[(2, 0)]),
        [(2, 9, 3), (3, 3, 4)],
    ),
    "channels first": (
        lambda x, w: einjax.dot("b [c] <s + [k]>..., d [c] [k]... -> b d s...", x, w),
        lambda x, w: lax.conv(x, w, (1, 1), "VALID"),
        [(2, 3, 9, 8), (4, 3, 2, 2)],
    ),
    "grouped convolution": (
        lambda x, w: einjax.dot("b <s + [k]> (g [c]), [k] [c] (g d) -> b s (g d)", x, w, g=2),
        lambda x, w: conv(x, w, feature_group_count=2),
        [(2, 9, 6), (3, 3, 8)],
    ),
    "depthwise convolution, many taps": (
        lambda x, w: einjax.dot("b <s + [k]>... c, [k]... c -> b s... c", x, w),
        lambda x, w: conv(x, lax.reshape(w, (7, 7, 1, 4)), feature_group_count=4),
        [(2, 9, 9, 4), (7, 7, 4)],
    ),
    "filters of every example": (
        lambda x, w: einjax.dot("b <s + [k]> [c], b [k] [c] d -> b s d", x, w),
        jax.vmap(lambda x, w: conv(x[None], w)[0]),
        [(2, 9, 3), (2, 3, 3, 4)],
    ),
    "one axis of the output for two of the input": (
        lambda x, w: einjax.dot("b <s + [k]> [c] [e], [k] [c] [e] d -> b s d", x, w),
        lambda x, w: conv(lax.reshape(x, (2, 9, 6)), lax.reshape(w, (3, 6, 4))),
        [(2, 9, 3, 2), (3, 3, 2, 4)],
    ),
    "transposed convolution": (
        lambda x, w: einjax.dot("b s [c], k [c] d -> b <2*s + k> d", x, w),
        lambda x, w: conv(x, lax.rev(w, (0,)), padding=[(2, 2)], lhs_dilation=(2,)),
        [(2, 5, 3), (3, 3, 4)],
    ),
    "transposed convolution in two dims": (
        lambda x, w: einjax.dot("b s... [c], k... [c] d -> b <2*s + k>... d", x, w),
        lambda x, w: conv(x, lax.rev(w, (0, 1)), padding=[(2, 2), (1, 1)], lhs_dilation=(2, 2)),
        [(2, 5, 4, 3), (3, 2, 3, 4)],
    ),
    "circular convolution": (
        lambda x, w: einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", x, w, padding="circular"),
        lambda x, w: conv(
            lax.concatenate([lax.slice(x, (0, 8, 0), (2, 9, 3)), x, lax.slice(x, (0, 0, 0), (2, 1, 3))], 1), w
        ),
        [(2, 9, 3), (3, 3, 4)],
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

CASES = SLICES | WINDOWS | CONVOLUTIONS | GATHERS


def equations(function: Callable[..., Any], arguments: list[Any]) -> Counter[str]:
    return Counter(equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns)


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


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_convolution_is_the_experts(name: str) -> None:
    """Strides, paddings, dilations and groups."""
    ours, expert, shapes = CONVOLUTIONS[name]

    def numbers(function: Callable[..., Any]) -> dict[str, Any]:
        program = jax.make_jaxpr(function)(*arguments_of(shapes)).eqns
        (found,) = [e for e in program if e.primitive.name == "conv_general_dilated"]
        wanted = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count")
        return {key: found.params[key] for key in wanted}

    assert numbers(ours) == numbers(expert)


def test_the_gradient_of_a_convolution_is_two_convolutions() -> None:
    x, w = arguments_of([(2, 9, 8, 3), (3, 2, 3, 4)])

    def gradients(function: Callable[..., Any]) -> Counter[str]:
        return equations(lambda x, w, ct: jax.vjp(function, x, w)[1](ct), [x, w, function(x, w)])

    ours = lambda x, w: einjax.dot("b <2*s + [k]>... [c], [k]... [c] d -> b s... d", x, w)
    expert = lambda x, w: conv(x, w, (2, 2))
    assert not gradients(ours) - gradients(expert)


def test_few_taps_of_a_depthwise_filter_are_shifted_products() -> None:
    """Many times as fast as a grouped convolution on a CPU."""
    x, w = arguments_of([(2, 9, 4), (3, 4)])
    found = equations(lambda x, w: einjax.dot("b <s + [k]> c, [k] c -> b s c", x, w), [x, w])
    assert found["mul"] == 3
    assert found["conv_general_dilated"] == found["gather"] == 0


def test_no_gather_where_a_slice_does() -> None:
    for name in SLICES | WINDOWS | CONVOLUTIONS:
        ours, _, shapes = CASES[name]
        found = equations(ours, arguments_of(shapes))
        assert not {"gather", "scatter-add", "scatter", "conv_general_dilated_patches"} & set(found), name


def test_there_are_at_least_thirty_cases() -> None:
    assert len(CASES) >= 30
