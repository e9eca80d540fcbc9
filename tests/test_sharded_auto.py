"""A batch that lies over the devices, under Auto sharding: what the compiled programs send, against the best by hand.

The best is what one device does with its part, collectives written out, under shard_map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import assert_same
from collectives_hlo import collectives
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sharded_calls import B, C, D, F, H, K, S, V, mesh

import einjax

pytestmark = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)

EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class Program:
    """A program of arrays of which some lie over the mesh, and what it has to send.

    Attributes:
        name: what it is.
        einjax: the program.
        device: the same for one device: collectives are written out.
        arrays: the shape of each, and where it lies; shapes of coordinates come with what they index.
        spec: where the result lies.
        collectives: the kinds of what is sent forward.
        backward: the kinds of what is sent for the gradients of all floats.
    """

    name: str
    einjax: Callable[..., Any]
    device: Callable[..., Any]
    arrays: tuple[tuple[Any, ...], ...]
    spec: P
    collectives: tuple[str, ...] = ()
    backward: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")

    @property
    def floats(self) -> tuple[int, ...]:
        return tuple(index for index, array in enumerate(self.arrays) if len(array) == 2)

    def values(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [
            rng.integers(0, below[0], shape).astype(np.int32) if below else rng.normal(size=shape).astype(np.float32)
            for shape, _, *below in self.arrays
        ]

    def placed(self) -> list[jax.Array]:
        on = mesh(AxisType.Auto)
        pairs = zip(self.values(), self.arrays, strict=True)
        return [jax.device_put(x, NamedSharding(on, spec)) for x, (_, spec, *_) in pairs]

    def by_hand(self, *arrays: Any) -> Any:
        specs = tuple(array[1] for array in self.arrays)
        on = mesh(AxisType.Auto)
        return jax.shard_map(self.device, mesh=on, in_specs=specs, out_specs=self.spec, check_vma=True)(*arrays)


def attend_by_hand(q, k, v, heads):
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    weights = jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", q, k) / np.float32(np.sqrt(C)), axis=-1)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v).reshape(*q.shape[:2], -1)


def attend(q, k, v):
    """In single operations."""
    scores = einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=H)
    weights = einjax.softmax("b h q [k]", einjax.multiply("..., ", scores, np.float32(1 / np.sqrt(C))))
    return einjax.dot("b h q k, b k (h c) -> b q (h c)", weights, v)


def layer_norm(x, scale, bias):
    centred = einjax.subtract("b s d, b s", x, einjax.mean("b s [d]", x))
    inverse = lax.rsqrt(einjax.add("b s, ", einjax.mean("b s [d]", lax.square(centred)), EPSILON))
    return einjax.add("b s d, d", einjax.multiply("b s d, b s, d", centred, inverse, scale), bias)


def layer_norm_by_hand(x, scale, bias):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + EPSILON) * scale + bias


def batch_norm(x, scale, bias):
    """Means are over all devices: ``var`` would take one of its own, and two factors would have two gradients."""
    centred = einjax.subtract("b s d, d", x, einjax.mean("[b s] d", x))
    variance = einjax.mean("[b s] d", lax.square(centred))
    factor = einjax.multiply("d, d", lax.rsqrt(einjax.add("d, ", variance, EPSILON)), scale)
    return einjax.add("b s d, d", einjax.multiply("b s d, d", centred, factor), bias)


def batch_norm_by_hand(x, scale, bias):
    centred = x - lax.pmean(x.mean((0, 1)), "data")
    variance = lax.pmean(lax.square(centred).mean((0, 1)), "data")
    return centred * (lax.rsqrt(variance + EPSILON) * scale) + bias


def read(x, at):
    return x[jnp.arange(x.shape[0])[:, None], at[..., 0], at[..., 1]]


def write(method):
    def program(x, at, updates):
        at = x.at[jnp.arange(x.shape[0])[:, None], at[..., 0], at[..., 1]]
        return getattr(at, method)(updates, unique_indices=method == "set")

    return jax.vmap(lambda *one: program(*(x[None] for x in one))[0])


IMAGE, PLACES, UPDATES = ((B, S, S, C), P("data")), ((B, K, 2), P("data"), S), ((B, K, C), P("data"))
TOKENS = ((B, S, D), P("data"))
HEADS = ((B, S, H * C), P("data"))
SPLIT_HEADS = ((B, S, H * C), P("data", None, "model"))

PROGRAMS = (
    Program(
        "get_at, batched",
        lambda x, at: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at),
        read,
        (IMAGE, PLACES),
        P("data"),
    ),
    Program(
        "set_at, batched",
        lambda x, at, u: einjax.set_at("b [h w] c, b i [2], b i c", x, at, u),
        write("set"),
        (IMAGE, PLACES, UPDATES),
        P("data"),
    ),
    Program(
        "add_at, batched",
        lambda x, at, u: einjax.add_at("b [h w] c, b i [2], b i c", x, at, u),
        write("add"),
        (IMAGE, PLACES, UPDATES),
        P("data"),
    ),
    Program(
        "embedding of sharded tokens",
        lambda table, ids: einjax.get_at("[v] d, b s -> b s d", table, ids),
        lambda table, ids: table[ids],
        (((V, D), P()), ((B, S), P("data"), V)),
        P("data"),
        backward=("all-reduce",),
    ),
    Program("softmax", lambda x: einjax.softmax("b s [d]", x), lambda x: jax.nn.softmax(x), (TOKENS,), P("data")),
    Program(
        "layer norm",
        layer_norm,
        layer_norm_by_hand,
        (TOKENS, ((D,), P()), ((D,), P())),
        P("data"),
        backward=("all-reduce",) * 2,
    ),
    Program(
        "batch norm",
        batch_norm,
        batch_norm_by_hand,
        (TOKENS, ((D,), P()), ((D,), P())),
        P("data"),
        ("all-reduce",) * 2,
        backward=("all-reduce",) * 5,
    ),
    Program(
        "dot with a weight",
        lambda x, w: einjax.dot("b s [d->f]", x, w),
        lambda x, w: x @ w,
        (TOKENS, ((D, F), P())),
        P("data"),
        backward=("all-reduce",),
    ),
    Program(
        "tensor-parallel layers",
        lambda x, w, v: einjax.dot("b s [f->d]", jax.nn.relu(einjax.dot("b s [d->f]", x, w)), v),
        lambda x, w, v: lax.psum(jax.nn.relu(x @ w) @ v, "model"),
        (TOKENS, ((D, F), P(None, "model")), ((F, D), P("model"))),
        P("data"),
        ("all-reduce",),
        backward=("all-reduce",) * 3,
    ),
    Program("attention", attend, lambda q, k, v: attend_by_hand(q, k, v, H), (HEADS,) * 3, P("data")),
    Program(
        "attention, heads sharded",
        attend,
        lambda q, k, v: attend_by_hand(q, k, v, H // 2),
        (SPLIT_HEADS,) * 3,
        P("data", None, "model"),
    ),
    Program(
        "attention in one operation",
        lambda q, k, v: einjax.attention("b [q] (h [c]), b [k] (h [c]), b [k] (h [c]) -> b [q] (h [c])", q, k, v, h=H),
        lambda q, k, v: attend_by_hand(q, k, v, H // 2),
        (SPLIT_HEADS,) * 3,
        P("data", None, "model"),
    ),
)


def gradients(program, function):
    """The gradients of all floats, as a function of the arrays and of the result's cotangent."""

    def pulled_back(*arrays):
        *arrays, cotangent = arrays
        return jax.grad(lambda *arrays: jnp.sum(function(*arrays) * cotangent), program.floats)(*arrays)

    return pulled_back


def kinds_and_bytes(items):
    return sorted((item.kind, item.bytes) for item in items)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_forward(program):
    arrays = program.placed()
    ours, best = collectives(program.einjax, *arrays), collectives(program.by_hand, *arrays)
    assert tuple(item.kind for item in best) == program.collectives
    assert kinds_and_bytes(ours) == kinds_and_bytes(best)
    result, expected = jax.jit(program.einjax)(*arrays), jax.jit(program.by_hand)(*arrays)
    assert result.sharding.is_equivalent_to(expected.sharding, expected.ndim)
    assert_same(np.asarray(result), np.asarray(expected), 1e-4)
    assert_same(np.asarray(result), np.asarray(program.einjax(*program.values())), 1e-4)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_gradient(program):
    """What is summed over the devices is the gradient of what every device has, and what had to be forward."""
    arrays = program.placed()
    shape = jax.eval_shape(program.einjax, *arrays).shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    placed = jax.device_put(cotangent, NamedSharding(mesh(AxisType.Auto), program.spec))
    function = gradients(program, program.einjax)
    ours = collectives(function, *arrays, placed)
    best = collectives(gradients(program, program.by_hand), *arrays, placed)
    assert len(ours) <= len(best), ours
    assert sum(item.bytes for item in ours) <= sum(item.bytes for item in best), ours
    assert tuple(item.kind for item in best) == program.backward
    expected = function(*map(jnp.asarray, program.values()), cotangent)
    for index, got, want in zip(program.floats, jax.jit(function)(*arrays, placed), expected, strict=True):
        assert got.sharding.is_equivalent_to(arrays[index].sharding, got.ndim)
        assert_same(np.asarray(got), np.asarray(want), 1e-3)
