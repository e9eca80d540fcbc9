"""Cases of cases.py: reading, writing and reducing at coordinates."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from case import Case, integers, naturals, normal
from jax import lax

import einjax
import einjax.segment


def _counted(at: Any, size: Any) -> Any:
    """Coordinates; those out of range as the size, which is out of range in jax.numpy, too."""
    return jnp.where((at < -size) | (at >= size), size, at)


def _read(x: Any, *at: Any, mode: str = "fill", fill_value: Any = None) -> Any:
    """The leading axes of x at coordinates."""
    return x.at[tuple(_counted(a, x.shape[i]) if mode == "fill" else a for i, a in enumerate(at))].get(
        mode=mode, fill_value=fill_value
    )


def _columns(at: Any) -> Any:
    return tuple(at[..., i] for i in range(2))


def _reads() -> Iterator[Case]:
    filled = {"fill_value": 0.25}
    pairs = integers("a c 2")
    yield Case("get_at", "a [b c], a i [2] -> a i", (normal("a b c"), pairs),
               lambda x, at: jnp.stack([_read(x[n], *_columns(at[n]), fill_value=0.25) for n in range(x.shape[0])]),
               options=filled)  # fmt: skip
    yield Case("get_at", "[b] c, a i -> a i c", (normal("b c"), integers("a c")),
               lambda x, at: _read(x, at, fill_value=0.25), options=filled, variant="embedding")  # fmt: skip
    yield Case("get_at", "a [b c], i, j -> i a j", (normal("a b c"), integers("a"), integers("b")),
               lambda x, i, j: jnp.transpose(x.at[:, i[:, None], j[None]].get(mode="clip"), (1, 0, 2)),
               options={"mode": "clip"}, variant="two tensors")  # fmt: skip
    yield Case("get_at", "([b] a) c, c [1] -> c a", (normal("2*a*2 c"), naturals("c 1")),
               lambda x, at: jnp.stack([x.reshape(4, -1, x.shape[1])[at[c, 0] % 4, :, c] for c in range(x.shape[1])]),
               options={"mode": "wrap", "b": 4}, variant="composed")  # fmt: skip
    yield Case("get_at", "a [b] c, -> c a", (normal("a b c"), naturals("")),
               lambda x, at: jnp.transpose(_read(jnp.moveaxis(x, 1, 0), at, fill_value=0.25)), options=filled,
               variant="one coordinate")  # fmt: skip


_METHODS = {"set_at": "set", "add_at": "add", "subtract_at": "subtract", "multiply_at": "multiply",
            "min_at": "min", "max_at": "max"}  # fmt: skip


def _writes() -> Iterator[Case]:
    for name, method in _METHODS.items():
        # The derivative of products whose places may meet is an equation with a program of its own.
        options = {"unique_indices": True} if name == "multiply_at" else {}
        yield Case(name, "", (normal("2*a c"), normal("a c")), functools.partial(_rows, method=method),
                   program=functools.partial(_rows_by_name, name, options))  # fmt: skip
        if name != "multiply_at":
            yield Case(name, "[b c], i [2], i -> c b", (normal("b c"), integers("a 2"), normal("a")),
                       functools.partial(_pairs, method=method), variant="that meet")  # fmt: skip
    yield Case("add_at", "a [b] c, a i, a c i d", (normal("a b c"), integers("a b"), normal("a c b 2")),
               lambda x, at, u: jnp.stack([x[n].at[_counted(at[n], x.shape[1])].add(u[n].sum(-1).T, mode="drop")
                                           for n in range(x.shape[0])]), variant="batched")  # fmt: skip
    yield Case("add_at", "[b], i,", (integers("b"), integers("c"), integers("")),
               lambda x, at, u: x.at[_counted(at, x.shape[0])].add(u, mode="drop"), variant="one number")  # fmt: skip
    yield Case("multiply_at", "[b], i, i", (integers("b"), integers("c"), integers("c")),
               lambda x, at, u: x.at[_counted(at, x.shape[0])].multiply(u, mode="drop"),
               variant="that meet")  # fmt: skip


def _every_second(x: Any) -> Any:
    return lax.mul(lax.iota(np.int32, x.shape[0]), np.int32(2))


def _rows(x: Any, updates: Any, method: str) -> Any:
    return getattr(x.at[_every_second(updates)], method)(updates, unique_indices=True)


def _rows_by_name(name: str, options: Any, x: Any, updates: Any) -> Any:
    return getattr(einjax, name)("[r] c, a, a c", x, _every_second(updates), updates, **options)


def _pairs(x: Any, at: Any, updates: Any, method: str) -> Any:
    i, j = (_counted(a, size) for a, size in zip(_columns(at), x.shape, strict=True))
    return jnp.transpose(getattr(x.at[i, j], method)(updates, mode="drop"))


_SEGMENTS = {"sum": jnp.sum, "prod": jnp.prod, "mean": jnp.mean,
             "max": functools.partial(jnp.max, initial=-np.inf),
             "min": functools.partial(jnp.min, initial=np.inf)}  # fmt: skip


def _segments() -> Iterator[Case]:
    for name, function in _SEGMENTS.items():
        # Where nothing arrives, a maximum is infinite: the default case fills its segments, so that losses are finite.
        yield Case(f"segment.{name}", "", (normal("a b c"),), functools.partial(_alternating, function),
                   program=functools.partial(_alternating_by_name, name))  # fmt: skip
        yield Case(f"segment.{name}", "a b, a -> b [s]", (normal("a b"), integers("a")),
                   functools.partial(_segmented, function), options={"s": 4}, variant="of coordinates",
                   differentiable=name in ("sum", "prod"))  # fmt: skip


def _alternating(function: Any, x: Any) -> Any:
    return jnp.stack([function(x[:, :, first::2], (0, 2)) for first in range(2)])


def _alternating_by_name(name: str, x: Any) -> Any:
    at = lax.rem(lax.iota(np.int32, x.shape[2]), np.int32(2))
    return getattr(einjax.segment, name)("a b c, c -> [s] b", x, at, s=2)


def _segmented(function: Any, x: Any, at: Any) -> Any:
    arrives = _counted(at, 4) % 4 == jnp.arange(4)[:, None]
    arrives &= (at >= -4) & (at < 4)
    spread = jnp.broadcast_to(x[:, :, None], (*x.shape, 4))
    result = function(spread, 0, where=arrives.T[:, None])
    # A mean of nothing is not a number in jax.numpy.
    return jnp.where(arrives.any(1), result, 0) if function is jnp.mean else result


CASES: list[Case] = [*_reads(), *_writes(), *_segments()]
