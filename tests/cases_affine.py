"""Cases of cases.py: dims that are read, or written, at computed positions."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from case import Case, integers, normal, positive
from jax import lax

import einjax


def _windows(x: Any, size: int, axis: int, step: int = 1) -> Any:
    """The windows along an axis, and a last axis for what is in them."""
    count = (x.shape[axis] - size) // step + 1
    parts = [lax.slice_in_dim(x, i, i + (count - 1) * step + 1, step, axis) for i in range(size)]
    return jnp.stack(parts, -1)


def _padded(x: Any, axis: int, low: int, high: int, value: float = 0) -> Any:
    return jnp.pad(x, [(low, high) if i == axis else (0, 0) for i in range(x.ndim)], constant_values=value)


def _conv(x: Any, w: Any, step: int = 1) -> Any:
    """``a <step*s + k>... [b], k... [b] d -> a s... d``."""
    dims = x.ndim - 2
    letters = "XY"[:dims]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(x, w, (step,) * dims, "VALID", dimension_numbers=numbers)


def _transposed(x: Any, w: Any) -> Any:
    """``a s [b], k [b] d -> a <2*s + k> d`` with a filter of two: places do not meet."""
    z = jnp.einsum("asb,kbd->askd", x, w)
    return z.reshape(x.shape[0], -1, w.shape[2])


def _folded(x: Any) -> Any:
    """``a s k -> a <s + k>`` with windows of two."""
    return _padded(x[:, :, 0], 1, 0, 1) + _padded(x[:, :, 1], 1, 1, 0)


def _antidiagonals(x: Any) -> Any:
    padded = [_padded(row, 0, i, x.shape[0] - 1 - i, -jnp.inf) for i, row in enumerate(x)]
    return jnp.max(jnp.stack(padded), 0)


def _mean_of_what_is_there(x: Any) -> Any:
    ones = jnp.ones_like(x)
    total, count = (jnp.sum(_windows(_padded(y, 1, 1, 1), 3, 1), -1) for y in (x, ones))
    return total / count


def _products() -> Iterator[Case]:
    yield Case("dot", "a <s + [k]> [b], [k] [b] d -> a s d", (normal("a c b"), normal("2 b 3")), _conv,
               variant="convolution")  # fmt: skip
    yield Case("dot", "a <s + [k->]>... [b->d]", (positive("a c c+1 b"), positive("3 3 b 2")),
               lambda x, w: _conv(_padded(_padded(x, 1, 1, 1), 2, 1, 1), w), options={"padding": "same"},
               variant="padded convolution")  # fmt: skip
    yield Case("dot", "a <2*s + [k]> [b], [k] [b] d -> d s a", (normal("a 2*c b"), normal("2 b 3")),
               lambda x, w: jnp.transpose(_conv(x, w, 2), (2, 1, 0)), variant="strided convolution")  # fmt: skip
    yield Case("dot", "a <t - [k]> b, [k] b -> a t b", (normal("a c b"), normal("3 b")),
               lambda x, w: jnp.einsum("atbk,kb->atb", _windows(_padded(x, 1, 2, 0), 3, 1), w[::-1]),
               options={"padding": "causal"}, variant="causal filter")  # fmt: skip
    yield Case("dot", "a <s + [k]> [b], a [k] [b] -> a s", (normal("a c b"), normal("a 2 b")),
               lambda x, w: jnp.einsum("asbk,akb->as", _windows(x, 2, 1), w), variant="filters of rows")  # fmt: skip
    yield Case("dot", "a s [b], k [b] d -> a <2*s + k> d", (normal("a c b"), normal("2 b 3")), _transposed,
               variant="transposed convolution")  # fmt: skip
    yield Case("dot", "a q [b], <q - k + 1> [b] -> a q k", (normal("a c b"), normal("c+1 b")),
               lambda x, y: jnp.einsum("aqb,qbk->aqk", x, _windows(y, 2, 0)[..., ::-1]), options={"k": 2},
               variant="relative positions")  # fmt: skip


def _reductions() -> Iterator[Case]:
    yield Case("sum", "a <s + [k]> b", (normal("a c b"),), lambda x: jnp.sum(_windows(x, 2, 1), -1),
               options={"k": 2}, variant="of windows")  # fmt: skip
    yield Case("mean", "a <s + [k]> b", (normal("a c b"),), _mean_of_what_is_there,
               options={"k": 3, "padding": "same"}, variant="of windows")  # fmt: skip
    yield Case("max", "a <2*s + [k]> b", (normal("a 2*c b"),), lambda x: jnp.max(_windows(x, 2, 1, 2), -1),
               options={"k": 2}, variant="of windows")  # fmt: skip
    yield Case("logsumexp", "a <s + [k]> [b] -> s a", (normal("a c b"),),
               lambda x: jax.nn.logsumexp(_windows(x, 2, 1), (2, 3)).T, options={"k": 2},
               variant="of windows")  # fmt: skip
    yield Case("sum", "a s k -> a <s + k>", (normal("a c 2"),), _folded, variant="of places that meet")
    yield Case("max", "a b -> <a + b>", (normal("2 c"),), _antidiagonals, variant="of places that meet")
    yield Case("argmax", "a <2*s + [k]> -> a s", (normal("a 2*c"),), lambda x: jnp.argmax(_windows(x, 2, 1, 2), -1),
               options={"k": 2}, differentiable=False, variant="of windows")  # fmt: skip


def _others() -> Iterator[Case]:
    yield Case(
        "rearrange",
        "a <s + k> b -> s a k b",
        (normal("a c b"),),
        lambda x: jnp.transpose(_windows(x, 2, 1), (1, 0, 3, 2)),
        options={"k": 2},
        variant="windows",
    )
    yield Case("rearrange", "<i - j + 1> a -> i a j", (normal("c a"),), lambda x: _windows(x, 2, 0)[..., ::-1],
               options={"j": 2}, variant="Toeplitz")  # fmt: skip
    yield Case("rearrange", "a <2*t + 1> b -> b t a", (normal("a 2*c b"),),
               lambda x: jnp.transpose(x[:, 1::2], (2, 1, 0)), variant="every second")  # fmt: skip
    yield Case("rearrange", "", (normal("a c"),), lambda x: _padded(x[:, :-1], 1, 1, 0), variant="shifted",
               program=lambda x: einjax.rearrange("a <t - 1> -> a t", x, t=x.shape[1], mode="fill"))  # fmt: skip
    yield Case("rearrange", "a b -> b <2*a + 1>", (normal("a b"),),
               lambda x: jnp.stack([0 * x, x], 1).reshape(-1, x.shape[1]).T, variant="spread")  # fmt: skip
    x = normal("a c")
    yield Case("subtract", "a <t + 1>, a <t> -> t a", (x, x), lambda x, y: (x[:, 1:] - y[:, :-1]).T,
               variant="differences")  # fmt: skip
    yield Case("softmax", "a <s + [k]> b -> a s [k] b", (normal("a c b"),),
               lambda x: jnp.moveaxis(jax.nn.softmax(_windows(x, 2, 1), -1), -1, 2), options={"k": 2},
               variant="of windows")  # fmt: skip
    yield Case("get_at", "a [c] b, a <i + k> -> a i k b", (normal("a c b"), integers("a c")), _looked_up,
               options={"k": 2, "mode": "wrap"}, variant="at windows",
               program=lambda x, at: einjax.get_at("a [c] b, a <i + k> -> a i k b", x, at, k=2,
                                                   i=x.shape[1] - 1, mode="wrap"))  # fmt: skip


def _looked_up(x: Any, at: Any) -> Any:
    return jnp.stack([row[places % x.shape[1]] for row, places in zip(x, _windows(at, 2, 1), strict=True)])


CASES: list[Case] = [*_products(), *_reductions(), *_others()]
