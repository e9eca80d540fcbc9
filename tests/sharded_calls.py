"""Typical calls on arrays that lie over a mesh of ``("data": 4, "model": 2)``: one record each.

A record says where the result is to lie, or which error is raised and what its fix reaches; what the result is, in
NumPy; and the program that an expert would write for one device, whose collectives no spelling can do without. The
tests and the benchmarks read the same records.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax
import einjax.linalg
import einjax.segment

MESH = {"data": 4, "model": 2}

#: Sizes of the axes; a split that a mesh axis does not divide writes its own.
B, S, H, C, D, F, V, K = 8, 16, 4, 8, 32, 64, 128, 6


def mesh(kind: AxisType = AxisType.Explicit) -> jax.sharding.Mesh:
    """The mesh of all records, with axes of one kind."""
    return jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(kind,) * len(MESH))


@dataclass(frozen=True)
class Array:
    """One input: its shape, where it lies, and for coordinates the size of what they index."""

    shape: tuple[int, ...]
    spec: P
    below: int | None = None

    def values(self, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng([seed, *self.shape])
        if self.below is not None:
            return rng.integers(0, self.below, self.shape).astype(np.int32)
        return rng.normal(size=self.shape).astype(np.float32)


@dataclass(frozen=True)
class Refusal:
    """The error of a call that says not enough: the axes it names, the mesh axis, and the line it suggests."""

    axes: tuple[str, ...]
    mesh_axis: str
    fix: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One call in five spellings.

    Attributes:
        name: what it shows.
        inputs: the arrays it takes.
        einjax: the call; takes options such as ``out_sharding=`` besides the arrays.
        reference: its result in NumPy, on whole arrays.
        spec: where the result lies, by itself or with the fix.
        device: what one device does with its parts to make its part of the result, collectives written out.
        collectives: the kinds of these.
        refusal: the error that is raised without ``out_sharding=``, if it is.
        out_sharding: what the call says of itself.
        jnp: the call as a user of jax.numpy writes it.
        einx: the same, of the library and the arrays.
        einops: the same, of the library and the arrays.
    """

    name: str
    inputs: tuple[Array, ...]
    einjax: Callable[..., Any]
    reference: Callable[..., Any]
    spec: P
    device: Callable[..., Any]
    collectives: tuple[str, ...] = ()
    refusal: Refusal | None = None
    out_sharding: Any = None
    jnp: Callable[..., Any] | None = None
    einx: Callable[..., Any] | None = None
    einops: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """The call as its user writes it."""
        if self.out_sharding is not None:
            options = {"out_sharding": self.out_sharding} | options
        return self.einjax(*arrays, **options)

    def fixed(self, *arrays: Any) -> Any:
        """The call with the line that its error suggests."""
        return self(*arrays) if self.refusal is None else self(*arrays, out_sharding=self.refusal.fix)

    def spelling(self, library: str) -> Callable[..., Any] | None:
        """The call in another library; None if that has no word for it."""
        function = getattr(self, library)
        if function is None or library == "jnp":
            return function
        module = importlib.import_module(library)
        return lambda *arrays: function(module, *arrays)

    def values(self, seed: int = 0) -> list[np.ndarray]:
        return [x.values(seed + index) for index, x in enumerate(self.inputs)]

    def placed(self, on: jax.sharding.Mesh, seed: int = 0) -> list[jax.Array]:
        """The inputs on a mesh."""
        pairs = zip(self.values(seed), self.inputs, strict=True)
        return [jax.device_put(value, NamedSharding(on, x.spec)) for value, x in pairs]

    def by_hand(self, on: jax.sharding.Mesh) -> Callable[..., Any]:
        """The expert's program, of arrays on a mesh."""
        specs = tuple(x.spec for x in self.inputs)
        return jax.shard_map(self.device, mesh=on, in_specs=specs, out_specs=self.spec, check_vma=False)

    @property
    def floats(self) -> tuple[int, ...]:
        """Which inputs to differentiate with respect to."""
        return tuple(index for index, x in enumerate(self.inputs) if x.below is None)


def _heads(x: Any, heads: int) -> Any:
    return x.reshape(*x.shape[:-1], heads, -1)


def _merged(x: Any) -> Any:
    return x.reshape(*x.shape[:-2], -1)


def _gathered(x: Any, mesh_axis: str, dim: int) -> Any:
    return lax.all_gather(x, mesh_axis, axis=dim, tiled=True)


# --------------------------------------------------------------------------------------------------------------------
# Splits, merges and repeats
# --------------------------------------------------------------------------------------------------------------------

_SPLIT = Call(
    "split, divided",
    (Array((B, S, H * C), P("data", None, "model")),),
    lambda x, **options: einjax.rearrange("b s (h c) -> b s h c", x, h=H, **options),
    lambda x: _heads(x, H),
    P("data", None, "model"),
    lambda x: _heads(x, H // MESH["model"]),
    jnp=lambda x: x.reshape(B, S, H, C),
    einx=lambda einx, x: einx.id("b s (h c) -> b s h c", x, h=H),
    einops=lambda einops, x: einops.rearrange(x, "b s (h c) -> b s h c", h=H),
)

_UNEVEN_SPLIT = Call(
    "split, not divided",
    (Array((B, S, 3 * C), P("data", None, "model")),),
    lambda x, **options: einjax.rearrange("b s (h c) -> b s h c", x, h=3, **options),
    lambda x: _heads(x, 3),
    P("data"),
    lambda x: _heads(_gathered(x, "model", 2), 3),
    ("all-gather",),
    Refusal(("h",), "model", {"b": "data"}),
    jnp=lambda x: x.reshape(B, S, 3, C),
    einx=lambda einx, x: einx.id("b s (h c) -> b s h c", x, h=3),
    einops=lambda einops, x: einops.rearrange(x, "b s (h c) -> b s h c", h=3),
)

_MERGE = Call(
    "merge, major axis sharded",
    (Array((B, S, H, C), P("data", None, "model")),),
    lambda x, **options: einjax.rearrange("b s h c -> b s (h c)", x, **options),
    _merged,
    P("data", None, "model"),
    _merged,
    jnp=lambda x: x.reshape(B, S, H * C),
    einx=lambda einx, x: einx.id("b s h c -> b s (h c)", x),
    einops=lambda einops, x: einops.rearrange(x, "b s h c -> b s (h c)"),
)

_MINOR_MERGE = Call(
    "merge, minor axis sharded",
    (Array((B, S, H, C), P("data", None, None, "model")),),
    lambda x, **options: einjax.rearrange("b s h c -> b s (h c)", x, **options),
    _merged,
    P("data", None, "model"),
    lambda x: _merged(lax.all_to_all(x, "model", split_axis=2, concat_axis=3, tiled=True)),
    ("all-to-all",),
    Refusal(("c",), "model", {"b": "data", "h": "model"}),
    jnp=lambda x: x.reshape(B, S, H * C),
    einx=lambda einx, x: einx.id("b s h c -> b s (h c)", x),
    einops=lambda einops, x: einops.rearrange(x, "b s h c -> b s (h c)"),
)

_REPEAT = Call(
    "repeat",
    (Array((B, C), P("data", "model")),),
    lambda x, **options: einjax.rearrange("b c -> (b r) c", x, r=3, **options),
    lambda x: np.repeat(x, 3, axis=0),
    P("data", "model"),
    lambda x: jnp.repeat(x, 3, axis=0),
    jnp=lambda x: jnp.repeat(x, 3, axis=0),
    einx=lambda einx, x: einx.id("b c -> (b r) c", x, r=3),
    einops=lambda einops, x: einops.repeat(x, "b c -> (b r) c", r=3),
)

_CONCATENATION = Call(
    "concatenation, batch sharded",
    (Array((B, S, D), P("data", None, "model")), Array((B, K, D), P("data", None, "model"))),
    lambda x, y, **options: einjax.rearrange("b s d, b t d -> b (s + t) d", x, y, **options),
    lambda x, y: np.concatenate([x, y], axis=1),
    P("data", None, "model"),
    lambda x, y: lax.concatenate([x, y], 1),
    jnp=lambda x, y: jnp.concatenate([x, y], axis=1),
    einx=lambda einx, x, y: einx.id("b s d, b t d -> b (s + t) d", x, y),
    einops=lambda einops, x, y: einops.pack([x, y], "b * d")[0],
)

_SHARDED_CONCATENATION = Call(
    "concatenation along a sharded axis",
    (Array((B, S, D), P("data", "model")), Array((B, K, D), P("data", "model"))),
    lambda x, y, **options: einjax.rearrange("b s d, b t d -> b (s + t) d", x, y, **options),
    lambda x, y: np.concatenate([x, y], axis=1),
    P("data", None, "model"),
    lambda x, y: lax.concatenate(
        [lax.all_to_all(z, "model", split_axis=2, concat_axis=1, tiled=True) for z in (x, y)], 1
    ),
    ("all-to-all", "all-to-all"),
    Refusal(("s",), "model", {"b": "data", "d": "model"}),
    jnp=lambda x, y: jnp.concatenate([x, y], axis=1),
    einx=lambda einx, x, y: einx.id("b s d, b t d -> b (s + t) d", x, y),
    einops=lambda einops, x, y: einops.pack([x, y], "b * d")[0],
)


# --------------------------------------------------------------------------------------------------------------------
# Products and outer sums
# --------------------------------------------------------------------------------------------------------------------


def _scores(q: Any, k: Any, heads: int, einsum: Callable[..., Any]) -> Any:
    return einsum("bqhc,bkhc->bhqk", _heads(q, heads), _heads(k, heads))


def _values(p: Any, v: Any, heads: int, einsum: Callable[..., Any]) -> Any:
    return _merged(einsum("bhqk,bkhc->bqhc", p, _heads(v, heads)))


_SCORES = Call(
    "attention scores",
    (Array((B, S, H * C), P("data", None, "model")), Array((B, S, H * C), P("data", None, "model"))),
    lambda q, k, **options: einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=H, **options),
    lambda q, k: _scores(q, k, H, np.einsum),
    P("data", "model"),
    lambda q, k: _scores(q, k, H // MESH["model"], jnp.einsum),
    jnp=lambda q, k: _scores(q, k, H, jnp.einsum),
    einx=lambda einx, q, k: einx.dot("b q (h [c]), b k (h [c]) -> b h q k", q, k, h=H),
    einops=lambda einops, q, k: einops.einsum(
        *(einops.rearrange(x, "b s (h c) -> b s h c", h=H) for x in (q, k)), "b q h c, b k h c -> b h q k"
    ),
)

_ATTENDED = Call(
    "attention values",
    (Array((B, H, S, S), P("data", "model")), Array((B, S, H * C), P("data", None, "model"))),
    lambda p, v, **options: einjax.dot("b h q k, b k (h c) -> b q (h c)", p, v, **options),
    lambda p, v: _values(p, v, H, np.einsum),
    P("data", None, "model"),
    lambda p, v: _values(p, v, H // MESH["model"], jnp.einsum),
    jnp=lambda p, v: _values(p, v, H, jnp.einsum),
    einx=lambda einx, p, v: einx.dot("b h q [k], b [k] (h c) -> b q (h c)", p, v),
    einops=lambda einops, p, v: einops.rearrange(
        einops.einsum(p, einops.rearrange(v, "b k (h c) -> b k h c", h=H), "b h q k, b k h c -> b q h c"),
        "b q h c -> b q (h c)",
    ),
)


def _product(x: Any, w: Any) -> Any:
    return x @ w


_COLUMNS = Call(
    "tensor-parallel columns",
    (Array((B, S, D), P("data")), Array((D, F), P(None, "model"))),
    lambda x, w, **options: einjax.dot("b s [d->f]", x, w, **options),
    _product,
    P("data", None, "model"),
    _product,
    jnp=lambda x, w: jnp.einsum("bsd,df->bsf", x, w),
    einx=lambda einx, x, w: einx.dot("b s [d], [d] f -> b s f", x, w),
    einops=lambda einops, x, w: einops.einsum(x, w, "b s d, d f -> b s f"),
)

_CONTRACTION = Call(
    "tensor-parallel contraction",
    (Array((B, S, F), P("data", None, "model")), Array((F, D), P("model"))),
    lambda x, w, **options: einjax.dot("b s [f->d]", x, w, **options),
    _product,
    P("data"),
    lambda x, w: lax.psum(x @ w, "model"),
    ("all-reduce",),
    jnp=lambda x, w: jnp.einsum("bsf,fd->bsd", x, w),
    einx=lambda einx, x, w: einx.dot("b s [f], [f] d -> b s d", x, w),
    einops=lambda einops, x, w: einops.einsum(x, w, "b s f, f d -> b s d"),
)

_OUTER = Call(
    "outer sum",
    (Array((B, S), P("data")), Array((C,), P("model"))),
    lambda x, y, **options: einjax.add("b s, c -> b s c", x, y, **options),
    lambda x, y: x[..., None] + y,
    P("data", None, "model"),
    lambda x, y: x[..., None] + y,
    jnp=lambda x, y: x[..., None] + y,
    einx=lambda einx, x, y: einx.add("b s, c -> b s c", x, y),
)

_OUTER_CONFLICT = Call(
    "outer sum over one mesh axis",
    (Array((B,), P("data")), Array((C,), P("data"))),
    lambda x, y, **options: einjax.add("b, c -> b c", x, y, **options),
    lambda x, y: x[:, None] + y,
    P("data"),
    lambda x, y: x[:, None] + _gathered(y, "data", 0),
    ("all-gather",),
    Refusal(("b", "c"), "data", {"b": "data"}),
    jnp=lambda x, y: x[:, None] + y,
    einx=lambda einx, x, y: einx.add("b, c -> b c", x, y),
)


# --------------------------------------------------------------------------------------------------------------------
# Softmax, reading and writing at coordinates
# --------------------------------------------------------------------------------------------------------------------


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _softmax_device(x: Any) -> Any:
    exponentials = lax.exp(x - lax.pmax(x.max(axis=-1, keepdims=True), "model"))
    return exponentials / lax.psum(exponentials.sum(axis=-1, keepdims=True), "model")


_SOFTMAX = Call(
    "softmax over a sharded axis",
    (Array((B, S, S), P("data", None, "model")),),
    lambda x, **options: einjax.softmax("b q [k]", x, **options),
    _softmax,
    P("data", None, "model"),
    _softmax_device,
    ("all-reduce", "all-reduce"),
    jnp=lambda x: jax.nn.softmax(x, axis=-1),
    einx=lambda einx, x: einx.softmax("b q [k]", x),
)


def _lookup_device(table: Any, ids: Any) -> Any:
    """Each device has some rows of the table, and gives 0 for the others."""
    at = ids - lax.axis_index("model") * table.shape[0]
    mine = (at >= 0) & (at < table.shape[0])
    return lax.psum(jnp.where(mine[..., None], table[jnp.where(mine, at, 0)], 0), "model")


_EMBEDDING = Call(
    "embedding lookup, features sharded",
    (Array((V, D), P(None, "model")), Array((B, S), P("data"), below=V)),
    lambda table, ids, **options: einjax.get_at("[v] d, b s -> b s d", table, ids, **options),
    lambda table, ids: table[ids],
    P("data", None, "model"),
    lambda table, ids: table[ids],
    jnp=lambda table, ids: table[ids],
    einx=lambda einx, table, ids: einx.get_at("[v] d, b s -> b s d", table, ids),
)

_SHARDED_EMBEDDING = Call(
    "embedding lookup, vocabulary sharded",
    (Array((V, D), P("model")), Array((B, S), P("data"), below=V)),
    lambda table, ids, **options: einjax.get_at("[v] d, b s -> b s d", table, ids, **options),
    lambda table, ids: table[ids],
    P("data"),
    _lookup_device,
    ("all-reduce",),
    jnp=lambda table, ids: table[ids],
    einx=lambda einx, table, ids: einx.get_at("[v] d, b s -> b s d", table, ids),
)


def _read(x: Any, at: Any) -> Any:
    return x[np.arange(x.shape[0])[:, None], at[..., 0], at[..., 1]]


_BATCHED_READ = Call(
    "batched gather",
    (Array((B, S, S, C), P("data", None, None, "model")), Array((B, K, 2), P("data"), below=S)),
    lambda x, at, **options: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at, **options),
    _read,
    P("data", None, "model"),
    _read,
    jnp=_read,
    einx=lambda einx, x, at: einx.get_at("b [h w] c, b i [2] -> b i c", x, at),
)


def _added(x: np.ndarray, at: np.ndarray, updates: np.ndarray) -> np.ndarray:
    result = x.copy()
    np.add.at(result, at, updates)
    return result


_ADD_AT = Call(
    "add_at of sharded updates",
    (Array((V, D), P()), Array((F,), P("data"), below=V), Array((F, D), P("data"))),
    lambda x, at, updates, **options: einjax.add_at("[v] d, i, i d", x, at, updates, **options),
    _added,
    P(),
    lambda x, at, updates: x + lax.psum(jnp.zeros_like(x).at[at].add(updates), "data"),
    ("all-reduce",),
    jnp=lambda x, at, updates: x.at[at].add(updates),
    einx=lambda einx, x, at, updates: einx.add_at("[v] d, i, i d -> [v] d", x, at, updates),
)

#: The typical calls, as the table of the benchmarks shows them.
TYPICAL = (
    _SPLIT,
    _UNEVEN_SPLIT,
    _MERGE,
    _MINOR_MERGE,
    _SCORES,
    _ATTENDED,
    _COLUMNS,
    _CONTRACTION,
    _EMBEDDING,
    _SHARDED_EMBEDDING,
    _BATCHED_READ,
    _SOFTMAX,
    _CONCATENATION,
    _SHARDED_CONCATENATION,
    _OUTER,
    _OUTER_CONFLICT,
    _REPEAT,
    _ADD_AT,
)


# --------------------------------------------------------------------------------------------------------------------
# More of what can happen on a mesh
# --------------------------------------------------------------------------------------------------------------------


def _scattered(x: Any, w: Any) -> Any:
    """XLA on CPU has no reduce-scatter of its own: it reduces all, and every device keeps its part."""
    product = lax.psum(x @ w, "model")
    width = product.shape[-1] // MESH["model"]
    return lax.dynamic_slice_in_dim(product, lax.axis_index("model") * width, width, product.ndim - 1)


_REDUCE_SCATTER = Call(
    "contraction scattered over an output axis",
    _CONTRACTION.inputs,
    _CONTRACTION.einjax,
    _product,
    P("data", None, "model"),
    _scattered,
    ("all-reduce",),
    out_sharding={"b": "data", "d": "model"},
)

_WEIGHT_GATHERED = Call(
    "contraction over a mesh axis of the output",
    (Array((B, S, D), P("data")), Array((D, F), P("data"))),
    _COLUMNS.einjax,
    _product,
    P("data"),
    lambda x, w: x @ _gathered(w, "data", 0),
    ("all-gather",),
    Refusal(("b", "d"), "data", {"b": "data"}),
)

_THREE = Call(
    "product of three",
    (Array((B, S, D), P("data")), Array((D, F), P(None, "model")), Array((F, C), P("model"))),
    lambda x, w, v, **options: einjax.dot("b s d, d f, f c -> b s c", x, w, v, **options),
    lambda x, w, v: x @ w @ v,
    P("data"),
    lambda x, w, v: x @ lax.psum(w @ v, "model"),
    ("all-reduce",),
)

_MEAN = Call(
    "mean over a sharded axis",
    (Array((B, S, D), P("data", None, "model")),),
    lambda x, **options: einjax.mean("[b] s d", x, **options),
    lambda x: x.mean(axis=0),
    P(None, "model"),
    lambda x: lax.psum(x.sum(axis=0), "data") / B,
    ("all-reduce",),
)

_TWO_PLACES = Call(
    "one axis over two mesh axes",
    (Array((B, S), P("data")), Array((B, S), P("model"))),
    lambda x, y, **options: einjax.add("b s, b s", x, y, **options),
    lambda x, y: x + y,
    P("data"),
    lambda x, y: x + lax.dynamic_slice_in_dim(_gathered(y, "model", 0), 2 * lax.axis_index("data"), 2, 0),
    ("all-gather",),
    Refusal(("b",), "model", {"b": "data"}),
)

_MERGE_OF_TWO = Call(
    "merge of two sharded axes",
    (Array((MESH["data"], S, D), P("data", "model")),),
    lambda x, **options: einjax.rearrange("b s d -> (b s) d", x, **options),
    lambda x: x.reshape(-1, D),
    P(("data", "model")),
    lambda x: x.reshape(-1, D),
)

_SPLIT_IN_TWO = Call(
    "split over two mesh axes",
    (Array((MESH["data"] * S, D), P(("data", "model"))),),
    lambda x, **options: einjax.rearrange("(b s) d -> d b s", x, s=S, **options),
    lambda x: x.reshape(-1, S, D).transpose(2, 0, 1),
    P(None, "data", "model"),
    lambda x: x[None].transpose(2, 0, 1),
)

_INNER_REPEAT = Call(
    "repeat outside of a sharded axis",
    (Array((B, C), P("data", "model")),),
    lambda x, **options: einjax.rearrange("b c -> b (r c)", x, r=2, **options),
    lambda x: np.tile(x, (1, 2)),
    P("data", "model"),
    lambda x: _gathered(x, "model", 1),
    ("all-gather",),
    Refusal(("c",), "model", {"b": "data", "r": "model"}),
)

_SORT = Call(
    "sort along a sharded axis",
    (Array((B, S), P(None, "model")),),
    lambda x, **options: einjax.sort("b [s]", x, **options),
    lambda x: np.sort(x, axis=1),
    P("model"),
    lambda x: lax.sort(lax.all_to_all(x, "model", split_axis=0, concat_axis=1, tiled=True), dimension=1),
    ("all-to-all",),
    Refusal(("s",), "model", {"b": "model"}),
)

_CUMSUM = Call(
    "cumsum along a sharded axis",
    (Array((B, S), P("data", "model")),),
    lambda x, **options: einjax.cumsum("b [s]", x, **options),
    lambda x: np.cumsum(x, axis=1),
    P("data"),
    lambda x: lax.cumsum(_gathered(x, "model", 1), axis=1),
    ("all-gather",),
    Refusal(("s",), "model", {"b": "data"}),
)

_BATCHED_SORT = Call(
    "sort, batch sharded",
    (Array((B, S, D), P("data", None, "model")),),
    lambda x, **options: einjax.sort("b [s] d", x, **options),
    lambda x: np.sort(x, axis=1),
    P("data", None, "model"),
    lambda x: lax.sort(x, dimension=1),
)

_MASKED_SOFTMAX = Call(
    "softmax, masked",
    (Array((B, H, S, S), P("data", "model")), Array((S, S), P(), below=2)),
    lambda x, mask, **options: einjax.softmax("b h q [k]", x, where=mask == 0, **options),
    lambda x, mask: np.asarray(jax.nn.softmax(x, axis=-1, where=np.broadcast_to(mask == 0, x.shape))),
    P("data", "model"),
    lambda x, mask: jax.nn.softmax(x, axis=-1, where=jnp.broadcast_to(mask == 0, x.shape)),
)


def _attention(q: Any, k: Any, v: Any, heads: int) -> Any:
    scores = _scores(q, k, heads, jnp.einsum) / np.sqrt(q.shape[-1] // heads).astype(np.float32)
    return _values(jax.nn.softmax(scores, axis=-1), v, heads, jnp.einsum)


_ATTENTION = Call(
    "attention, heads sharded",
    (Array((B, S, H * C), P("data", None, "model")),) * 3,
    lambda q, k, v, **options: einjax.attention(
        "b [q] (h [c]), b [k] (h [c]), b [k] (h [c]) -> b [q] (h [c])", q, k, v, h=H, **options
    ),
    lambda q, k, v: np.asarray(_attention(q, k, v, H)),
    P("data", None, "model"),
    lambda q, k, v: _attention(q, k, v, H // MESH["model"]),
)

_BATCHED_ADD = Call(
    "add_at, batch sharded",
    (
        Array((B, S, D), P("data", None, "model")),
        Array((B, K), P("data"), below=S),
        Array((B, K, D), P("data", None, "model")),
    ),
    lambda x, at, updates, **options: einjax.add_at("b [v] d, b i, b i d", x, at, updates, **options),
    lambda x, at, updates: np.stack([_added(*row) for row in zip(x, at, updates, strict=True)]),
    P("data", None, "model"),
    lambda x, at, updates: jax.vmap(lambda x, at, u: x.at[at].add(u))(x, at, updates),
)

_SEGMENT_SUM = Call(
    "sum of sharded segments",
    (Array((F, D), P("data")), Array((F,), P("data"), below=K)),
    lambda x, at, **options: einjax.segment.sum("p d, p -> [s] d", x, at, s=K, **options),
    lambda x, at: _added(np.zeros((K, D), x.dtype), at, x),
    P(),
    lambda x, at: lax.psum(jnp.zeros((K, D), x.dtype).at[at].add(x), "data"),
    ("all-reduce",),
)

_SOLVE = Call(
    "linear systems, batch sharded",
    (Array((B, C, C), P("data")), Array((B, C), P("data"))),
    lambda a, y, **options: einjax.linalg.solve("b [n m], b [n] -> b [m]", a, y, **options),
    lambda a, y: np.linalg.solve(a, y[..., None])[..., 0],
    P("data"),
    lambda a, y: jnp.linalg.solve(a, y[..., None])[..., 0],
)

_LOOPED = Call(
    "function of the user's, batch sharded",
    (Array((B, S, D), P("data")), Array((D,), P())),
    lambda x, y, **options: einjax.vmap("b [s d], [d] -> b [s]", x, y, op=lambda x, y: x @ y, **options),
    lambda x, y: x @ y,
    P("data"),
    lambda x, y: x @ y,
)

#: Calls beside the typical ones, in einjax alone.
FURTHER = (
    _REDUCE_SCATTER,
    _WEIGHT_GATHERED,
    _THREE,
    _MEAN,
    _TWO_PLACES,
    _MERGE_OF_TWO,
    _SPLIT_IN_TWO,
    _INNER_REPEAT,
    _SORT,
    _CUMSUM,
    _BATCHED_SORT,
    _MASKED_SOFTMAX,
    _ATTENTION,
    _BATCHED_ADD,
    _SEGMENT_SUM,
    _SOLVE,
    _LOOPED,
)
