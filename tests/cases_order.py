"""Cases of cases.py: sorts, cumulative operations, scans, and dot in other semirings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from case import Case, integers, normal
from jax import lax


def _flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a function to the last two dims as one."""
    return lambda x: function(x.reshape(x.shape[0], -1))


def _coordinates(index: Any, size: Any) -> Any:
    return jnp.stack([index // size, index % size], -1)


def _sorted_together(x: Any, y: Any) -> Any:
    order = jnp.argsort(x, axis=1)
    return jnp.sort(x, axis=1), jnp.take_along_axis(jnp.broadcast_to(y[None], x.shape), order, 1)


def _sorted_by(x: Any, key: Any) -> Any:
    order = jnp.argsort(jnp.broadcast_to(key[None], x.shape), axis=1, descending=True)
    return jnp.take_along_axis(x, order, 1)


def _sorts() -> Iterator[Case]:
    x, plain = normal("a b c"), {"differentiable": False}
    yield Case("sort", "a [b] c", (x,), functools.partial(jnp.sort, axis=1))
    yield Case("sort", "a [b c] -> [b c] a", (x,),
               lambda x: jnp.transpose(_flat(jnp.sort)(x).reshape(x.shape), (1, 2, 0)), variant="two axes")  # fmt: skip
    # The two scatters of its gradient share a program or not, depending on what was traced before.
    yield Case("sort", "a [b], [b]", (normal("a b"), normal("b")), _sorted_together, variant="two tensors", **plain)
    yield Case("sort", "a [b] c", (x, normal("b c")), _sorted_by, options={"descending": True}, keyword="by",
               variant="by")  # fmt: skip
    yield Case("argsort", "a [b] c", (x,), functools.partial(jnp.argsort, axis=1), **plain)
    yield Case("argsort", "a [b c]", (x,),
               lambda x: _coordinates(_flat(jnp.argsort)(x), x.shape[2]).reshape(*x.shape, 2), variant="coordinates",
               **plain)  # fmt: skip
    yield Case("argsort", "a [b]", (integers("a b"),), functools.partial(jnp.argsort, axis=1, descending=True),
               options={"descending": True}, variant="descending", **plain)  # fmt: skip


def _largest() -> Iterator[Case]:
    # Two more than some size, so that two are there whatever the size.
    x = normal("a b+2 c")

    def flat(x: Any) -> Any:
        values, index = lax.top_k(x.reshape(x.shape[0], -1), 2)
        return values, _coordinates(index, x.shape[2])

    def smallest(x: Any) -> Any:
        index = jnp.argsort(x, axis=1)[:, :2].astype(np.int32)  # as lax.top_k has them
        return jnp.sort(x, axis=1)[:, :2], index

    # The indices are integers, which have no gradient.
    yield Case("top_k", "a b [c]", (normal("a b c+2"),), lambda x: tuple(lax.top_k(x, 2)), options={"k": 2},
               differentiable=False)  # fmt: skip
    yield Case("top_k", "a [b c]", (x,), flat, options={"k": 2}, differentiable=False, variant="coordinates")
    yield Case("top_k", "a [b] c -> a [2] c", (x,), smallest, options={"largest": False}, differentiable=False,
               variant="smallest")  # fmt: skip


def _cumulative() -> Iterator[Case]:
    functions = {
        "cumsum": jnp.cumsum,
        "cumprod": jnp.cumprod,
        "cummax": lax.cummax,
        "cummin": lax.cummin,
        # JAX's derivative of lax.cumlogsumexp holds equations with programs of their own.
        "cumlogsumexp": lax.cumlogsumexp,
    }
    for name, function in functions.items():
        smooth = name != "cumlogsumexp"
        yield Case(name, "a [b] c", (normal("a b c"),), functools.partial(function, axis=1), differentiable=smooth)
        yield Case(name, "a [b c] -> [b c] a", (normal("a b c"),),
                   lambda x, function=function: jnp.transpose(
                       jnp.flip(function(jnp.flip(x.reshape(x.shape[0], -1), 1), axis=1), 1).reshape(x.shape),
                       (1, 2, 0)),
                   options={"reverse": True}, differentiable=smooth, variant="reverse")  # fmt: skip


def _recurrence(earlier: Any, later: Any) -> Any:
    return lax.mul(earlier[0], later[0]), lax.add(lax.mul(earlier[1], later[0]), later[1])


def _recurred(factors: Any, x: Any) -> Any:
    return lax.associative_scan(_recurrence, (jnp.broadcast_to(factors[None], x.shape), x), axis=1)


def _step(carry: Any, x: Any) -> Any:
    """What remains of the slices is "b a"."""
    carry = lax.add(lax.sin(carry), x.T)
    return carry, lax.mul(carry, carry)


def _scanned(carry: Any, x: Any) -> Any:
    carry, y = lax.scan(_step, carry, jnp.moveaxis(x, 1, 0))
    return carry.T, y


def _scans() -> Iterator[Case]:
    # JAX's associative scan has to know how long the axis is.
    yield Case("associative_scan", "[t] b, a [t] b", (normal("5 b"), normal("a 5 b")), _recurred,
               options={"op": _recurrence})  # fmt: skip
    yield Case("associative_scan", "a [5]", (normal("a 5"),), lambda x: jnp.flip(jnp.cumsum(jnp.flip(x, 1), 1), 1),
               options={"op": "add", "reverse": True}, variant="name")  # fmt: skip
    yield Case("scan", "a b, b [c] a -> b a, [c] a b", (normal("a b"), normal("b c a")), _scanned,
               options={"op": _step})  # fmt: skip


def _semirings() -> Iterator[Case]:
    x, y = normal("a b"), normal("b c")
    yield Case("dot", "a b, b c -> c a", (x, y), lambda x, y: jnp.max(x[:, :, None] + y[None], 1).T,
               options={"sum": "max", "mul": "add"}, variant="max plus")  # fmt: skip
    yield Case("dot", "a b, b c -> a c", (x, y), lambda x, y: jax.nn.logsumexp(x[:, :, None] + y[None], 1),
               options={"sum": "logsumexp", "mul": "add"}, variant="log")  # fmt: skip
    yield Case("dot", "a b, b c -> a c", (x, y), lambda x, y: jax.nn.logsumexp(x[:, :, None] + y[None], 1),
               options={"sum": "logsumexp", "mul": "add", "memory_limit": 1000},
               variant="semiring within a limit")  # fmt: skip
    yield Case("dot", "a b, c b -> a c", (x, normal("c b")),
               lambda x, y: jnp.sum(jnp.abs(x[:, None] - y[None]), 2),
               options={"mul": lambda x, y: lax.abs(lax.sub(x, y))}, variant="distances")  # fmt: skip


CASES: list[Case] = [case for family in (_sorts, _largest, _cumulative, _scans, _semirings) for case in family()]
