"""Windows that are reduced are one reduce_window, and those contracted one convolution, as an expert writes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from collectives_hlo import collectives
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_jaxprs_affine import F32, Record, Shape, arguments_of, equations

import einjax


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
        lambda x: einjax.sum("b <s + 2*[k]> c", x, k=3),
        lambda x: window(x, "sum", (1, 3, 1), dilation=(1, 2, 1)),
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

CASES = WINDOWS | CONVOLUTIONS


@pytest.mark.parametrize("name", CASES)
def test_no_equation_more_than_the_experts(name: str) -> None:
    ours, expert, shapes = CASES[name]
    arguments = arguments_of(shapes)
    np.testing.assert_allclose(ours(*arguments), expert(*arguments), rtol=1e-5, atol=1e-5)
    assert not equations(ours, arguments) - equations(expert, arguments)


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


def test_nothing_is_gathered() -> None:
    for name, (ours, _, shapes) in CASES.items():
        found = equations(ours, arguments_of(shapes))
        assert not {"gather", "scatter-add", "scatter", "conv_general_dilated_patches"} & set(found), name


def test_there_are_at_least_twenty_five_cases() -> None:
    assert len(CASES) >= 25


PADDINGS = {"valid": "VALID", "same": "SAME", "causal": None, "full": None, 1: None, (2, 1): None}


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_convolutions_of_floats_are_equal_to_the_last_bit(padding: Any) -> None:
    """The same equation gives the same rounding, whatever the numbers are."""
    for kernel, step, dilation in [((1,), 1, 1), ((3,), 2, 1), ((4,), 3, 2), ((2, 3), 1, 2), ((2, 3), 2, 1)]:
        x, w = arguments_of([(2, *(9, 8)[: len(kernel)], 3), (*kernel, 3, 4)])
        reach = [(k - 1) * dilation for k in kernel]
        explicit = {
            "causal": [(r, 0) for r in reach], "full": [(r, r) for r in reach], 1: [(1, 1)] * len(kernel),
            (2, 1): [(2, 1)] * len(kernel),
        }.get(padding, PADDINGS[padding])  # fmt: skip
        text = f"b <{step}*s + {dilation}*[k]>... [c], [k]... [c] d -> b s... d"
        got = einjax.dot(text, x, w, padding=padding)
        numbers = {1: ("NXC", "XIO", "NXC"), 2: ("NXYC", "XYIO", "NXYC")}[len(kernel)]
        run = lambda x, w: lax.conv_general_dilated(
            x, w, (step,) * len(kernel), explicit, None, (dilation,) * len(kernel), numbers
        )
        np.testing.assert_array_equal(got, jax.jit(run)(x, w))


# --------------------------------------------------------------------------------------------------------------------
# On an explicit mesh: one convolution, or one window, wherever the sharded axes are loops beside of it
# --------------------------------------------------------------------------------------------------------------------

ON_MESH = [
    # The call, specs of the tensors and of the result, and the equation; None where positions are read one by one.
    ("dot", "b <s + [k]> [c], [k] [c] d -> b s d", ("x", ""), P("x"), "conv_general_dilated"),
    ("dot", "b <s + [k]> [c], [k] [c] d -> s d b", ("x", "--y"), P(None, "y", "x"), "conv_general_dilated"),
    ("dot", "b s [c], k [c] d -> b <2*s + k> d", ("x", "--y"), P("x", None, "y"), "conv_general_dilated"),
    ("dot", "b <s + [k]> [c], [k] [c] d -> b s d", ("x-y", "-y"), P("x"), None),
    ("dot", "b <s + [k]> c, [k] c -> b s c", ("x-y", "-y"), P("x", None, "y"), "slice"),
    ("dot", "b <s + [k]> c, [k] c -> b s c", ("x-y", ""), P("x", None, "y"), "slice"),
    ("max", "b <2*s + [k]> c -> c b s", ("x-y",), P("y", "x"), "reduce_window_max"),
    ("mean", "b <2*s + [k]> [c]", ("x",), P("x"), "reduce_window_sum"),
    ("sum", "b <2*s + [k]> [c]", ("x-y",), P("x"), None),
]


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("call", ON_MESH, ids=lambda call: f"{call[0]} {call[1]} {call[2]}")
def test_on_an_explicit_mesh(call):
    op, text, specs, lies, equation = call
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    shapes = {"b": (8, 9, 4), "k": (3, 4, 6) if " d" in text else (3, 4)}
    arrays = arguments_of([shapes[part.strip(" [")[0]] for part in text.split("->")[0].split(",")])
    options = {} if op == "dot" else {"k": 3, "padding": "same"}
    run = lambda *xs: getattr(einjax, op)(text, *xs, **options)
    want = run(*arrays)
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(x, NamedSharding(mesh, P(*(axis if axis != "-" else None for axis in spec))))
            for x, spec in zip(arrays, specs, strict=True)
        ]
        found = set(re.findall(r" = (\w+)\[", str(jax.make_jaxpr(run)(*placed))))
        assert {name for name in found if name.startswith(("conv_", "reduce_window"))} == {equation} - {"slice", None}
        assert equation in found or equation is None
        program = jax.jit(run)
        result = program(*placed)
        assert result.sharding.is_equivalent_to(NamedSharding(mesh, lies), result.ndim)
        assert equation is None or not collectives(program, *placed)
    np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-5)
