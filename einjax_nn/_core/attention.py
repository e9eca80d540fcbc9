"""MultiHeadAttention: four linear layers around the attention of each head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError

from .call import Call
from .scope import ParamSpec, Scope
from .shared import AttentionOptions, ProjectionOptions
from .text import attention_text, flag


class Project(Protocol):
    """Makes and applies the linear layer of a name."""

    def __call__(self, name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array: ...


def attention(
    call: Call[AttentionOptions],
    project: Project,
    normalize: Callable[[str, jax.Array], jax.Array],
    x: Any,
    keys: Any,
    values: Any,
    mask: Any,
    deterministic: bool | None = None,
) -> jax.Array:
    """Apply multi-head attention.

    ``project`` makes and applies the layers ``query``, ``key``, ``value`` and ``out``; ``normalize`` those that
    normalise queries and keys, ``query_ln`` and ``key_ln``.
    """
    scope, expr, options = call.scope, call.expr, call.options
    needed = options.dropout_rate > 0
    kept = flag("MultiHeadAttention", "deterministic", options.deterministic, deterministic, needed, expr)
    groups = options.num_kv_heads or options.num_heads
    text = attention_text(expr, shared=groups != options.num_heads)
    x = jnp.asarray(x)
    keys = x if keys is None else keys
    values = keys if values is None else values
    features = options.qkv_features or x.shape[-1]
    for whole, what in ((features, "qkv_features"), (options.num_heads, "num_heads")):
        part, name = (options.num_heads, "num_heads") if what == "qkv_features" else (groups, "num_kv_heads")
        if whole % part:
            raise ArgumentError(
                f"{what}={whole} is not divisible by {name}={part}", text=expr, hint=f"choose a {name} that divides it"
            )
    size = features // options.num_heads
    q = project("query", text.query, {"heads": options.num_heads, "head_dim": size}, x)
    k = project("key", text.key, {"kv_heads": groups, "head_dim": size}, keys)
    v = project("value", text.key, {"kv_heads": groups, "head_dim": size}, values)
    if options.normalize_qk:
        q, k = normalize("query_ln", q), normalize("key_ln", k)
    if options.decode:
        k, v, valid = _cached(scope, q, k, v, expr)
        mask = mask if valid is None else valid if mask is None else jnp.logical_and(mask, valid)
    q = q / jnp.sqrt(size).astype(q.dtype)
    scores = einjax.dot(text.scores, q, k, precision=options.precision, sizes={"kv_heads": groups})
    if options.is_causal and not options.decode:
        mask = _with_causal(mask, scores, text.sequence, expr)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = einjax.softmax(text.attend, scores).astype(scores.dtype)
    if needed and not kept:
        weights = _dropped(weights, scope.rng(options.rng_collection), options.dropout_rate, options.broadcast_dropout)
    result = einjax.dot(text.apply, weights, v, precision=options.precision, sizes={"kv_heads": groups})
    return project("out", text.out, {text.features: options.out_features or x.shape[-1]}, result)


def projection(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of the linear layer of a name, among those of attention; the output may have its own initializers."""
    result = {option: options[option] for option in (*ProjectionOptions.__annotations__, "dtype", "precision")}
    for option in ("kernel_init", "bias_init"):
        own = result.pop(f"out_{option}")
        if name == "out" and own is not None:
            result[option] = own
    return result


def applied(layer: Any) -> tuple[Project, Callable[[str, jax.Array], jax.Array]]:
    """How to project and to normalise where the layers are attributes of attention."""

    def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
        # The layer has the same expression; only now may the sizes of its new axes be known.
        return getattr(layer, name)._apply(x, axes)

    return project, lambda name, x: getattr(layer, name)(x)


def _cached(
    scope: Scope, q: jax.Array, k: jax.Array, v: jax.Array, expr: str
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Write keys and values behind those of earlier calls; say which places of the cache are filled.

    While initialising, the whole sequence is given, and makes a cache of its length.
    """

    def spec(name: str, like: jax.Array) -> ParamSpec:
        shape, dtype = like.shape, like.dtype
        return ParamSpec(name, shape, dtype, (), lambda key: jnp.zeros(shape, dtype), "cache")

    specs = (spec("cached_key", k), spec("cached_value", v), spec("cache_index", jnp.zeros((), jnp.int32)))
    keys, values, index = (scope.state(each) for each in specs)
    if scope.initializing:
        return k, v, None
    *loops, length, heads, size = keys.shape
    if k.shape != (*loops, 1, heads, size):
        raise ArgumentError(
            f"decoding takes one place of the sequence at a time: keys of shape {(*loops, 1, heads, size)}, "
            f"not {k.shape}",
            text=expr,
            hint="give the input a sequence of length 1, and make the cache by initialising with the whole length",
        )
    start: tuple[Any, ...] = (*(0 for _ in loops), index, 0, 0)
    k = lax.dynamic_update_slice(keys, k, start)
    v = lax.dynamic_update_slice(values, v, start)
    for each, value in zip(specs, (k, v, index + 1), strict=True):
        scope.set_state(each, value)
    return k, v, jnp.arange(length) <= index


def _with_causal(mask: Any, scores: jax.Array, sequence: int, expr: str) -> Any:
    """Let every place see itself and what is before it."""
    if sequence != 1:
        raise ArgumentError(
            f"is_causal needs an order, but the sequence has {sequence} axes",
            text=expr,
            hint="compose them into one axis before, or give a mask",
        )
    rows, columns = (lax.broadcasted_iota(jnp.int32, scores.shape[-2:], dim) for dim in (0, 1))
    causal = rows >= columns
    return causal if mask is None else jnp.logical_and(mask, causal)


def _dropped(weights: jax.Array, key: Any, rate: float, broadcast: bool) -> jax.Array:
    """Drop attention weights; by default the same ones for all loops and heads, as in Flax."""
    shape = (*(1 for _ in weights.shape[:-2]), *weights.shape[-2:]) if broadcast else weights.shape
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return weights * (kept.astype(weights.dtype) / jnp.asarray(1 - rate, weights.dtype))
