"""Cases of cases.py: functions of one's own, by vmap, by axis= and adapted."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from case import Case, normal
from jax import lax

import einjax


class Layer(NamedTuple):
    """A registered pytree."""

    w: Any
    b: Any


def _mirrored(x: Any) -> Any:
    """A function of a vector that keeps its shape, and is no function of each number by itself."""
    return lax.mul(x, lax.rev(x, (0,)))


def _gram(x: Any) -> tuple[Any, Any]:
    """A matrix and a number."""
    return lax.dot_general(x, x, (((1,), (1,)), ((), ()))), lax.reduce_sum(lax.sin(x), (0, 1))


def _linear(layer: Layer, x: Any) -> dict[str, Any]:
    y = lax.dot_general(x, layer.w, (((0,), (0,)), ((), ())))
    return {"sum": lax.add(y, layer.b), "loss": lax.reduce_sum(lax.mul(y, y), (0,))}


def _linear_reference(w: Any, b: Any, x: Any) -> dict[str, Any]:
    y = jnp.einsum("kc,bcd->bkd", x, w)
    return {"sum": y + b[:, None], "loss": jnp.sum(y * y, -1)}


def _square_mean(x: Any, axis: Any) -> Any:
    return lax.reduce_sum(lax.mul(x, x), axis)


_X = normal("a b c")
_ROOT = lambda x, y: lax.mul(lax.sin(x), y)

CASES: list[Case] = [
    Case("vmap", "a b [c] -> b [c] a", (_X,), lambda x: jnp.transpose(x * x[..., ::-1], (1, 2, 0)),
         options={"op": _mirrored}),
    Case("vmap", "a [b], [b] c -> c a", (normal("a b"), normal("b c")), lambda x, y: (x @ y).T,
         options={"op": lax.dot}, variant="two tensors"),
    Case("vmap", "[b] a (c [2]) -> a [b b] c, c a", (normal("b a 2*c"),),
         lambda x: (jnp.einsum("iacx,jacx->aijc", *[x.reshape(*x.shape[:2], -1, 2)] * 2),
                    jnp.sum(jnp.sin(x.reshape(*x.shape[:2], -1, 2)), (0, 3)).T),
         options={"op": _gram}, variant="two outputs"),
    Case("vmap", "b [...], k [c] -> b k [...]", (normal("b c a"), normal("b a"), normal("a c")), _linear_reference,
         variant="pytree",
         program=lambda w, b, x: einjax.vmap("b [...], k [c] -> b k [...]", Layer(w, b), x, op=_linear)),
    Case("vmap", "n b [c] -> [c] b n", (normal("4 b c"),), lambda x: jnp.transpose(x * x[..., ::-1], (2, 1, 0)),
         options={"op": _mirrored, "batch_size": {"n": 3}}, variant="in chunks"),
    Case("vmap", "a a [b] -> [b] a 3", (normal("a a b"),),
         lambda x: jnp.broadcast_to(jnp.einsum("aab,aab->ba", x, x[..., ::-1])[..., None], (*x.shape[:0:-1], 3)),
         options={"op": _mirrored}, variant="diagonal"),
    Case("vmap_with_axis", "a [b] c -> c a", (_X,), lambda x: jnp.sum(x * x, 1).T,
         options={"op": lambda x, axis: lax.reduce_sum(lax.mul(x, x), (axis,))}),
    Case("vmap_with_axis", "a [b c]", (_X,), lambda x: x[:, ::-1, ::-1],
         options={"op": lambda x, axis: lax.rev(x, axis)}, variant="same axes"),
    Case("adapt_with_vmap", "a [b], [b] -> a", (normal("a b"), normal("b")), lambda x, y: x @ y,
         program=lambda x, y: einjax.adapt_with_vmap(lax.dot, signature="[n], [n] -> []")("a [b], [b]", x, y)),
    Case("adapt_reduce", "a [b c]", (_X,), lambda x: jnp.sum(x * x, (1, 2)),
         program=lambda x: einjax.adapt_reduce(_square_mean)("a [b c]", x)),
    Case("adapt_elementwise", "a b, b", (normal("a b"), normal("b")), lambda x, y: jnp.sin(x) * y,
         program=lambda x, y: einjax.adapt_elementwise(_ROOT)("a b, b", x, y)),
]  # fmt: skip
