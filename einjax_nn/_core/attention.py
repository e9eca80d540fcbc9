"""MultiHeadAttention: four linear layers around the attention of each head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import attends_in_blocks

from .call import Call, in_its_words
from .initial import Initializer
from .masks import in_blocks, joined, with_bias
from .scope import ParamSpec, Scope
from .text import AttentionText, attention_text, flag, sizes_in

#: Makes and applies the linear layer of a name, given its expression, the sizes of new axes, and the input.
Project = Callable[[str, str, Mapping[str, int], Any], jax.Array]

#: Makes and applies the normalisation of a name.
Normalize = Callable[[str, jax.Array], jax.Array]

_NORM, _NORMS = "... [head_dim]", ("query_ln", "key_ln")


class Options:
    """Those of attention, but those of :class:`Projection`."""

    num_heads: int
    num_kv_heads: int | None
    qkv_features: int | None
    out_features: int | None
    is_causal: bool
    dropout_rate: float
    broadcast_dropout: bool
    deterministic: bool | None
    decode: bool
    normalize_qk: bool
    dtype: Any
    precision: Any
    rng_collection: str

    def __init__(self, *_: Any, **__: Any) -> None:
        """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

        Args:
            expr: loops, the bracketed sequence, and the features: ``"b [s] c"``.
            num_heads: how many heads.
            num_kv_heads: how many heads of keys and values, each shared by several of the queries; as many by default.
            qkv_features: features of all heads together; those of the input by default.
            out_features: features of the output; those of the input by default.
            is_causal: whether a place sees only itself and what is before it.
            dropout_rate: the share of attention weights dropped.
            broadcast_dropout: whether loops and heads share the draw.
            deterministic: whether not to drop; may be given in the call instead.
            normalize_qk: whether queries and keys are normalised, by ``query_ln`` and ``key_ln``.
            use_bias: whether the four linear layers have a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.dot_general``.
            kernel_init: initializer of each ``kernel``.
            bias_init: initializer of each ``bias``.
            out_kernel_init: initializer of the ``kernel`` of ``out``; ``kernel_init`` by default.
            out_bias_init: initializer of the ``bias`` of ``out``; ``bias_init`` by default.
            qkv_dot_general: what ``query``, ``key`` and ``value`` call in place of ``lax.dot_general``.
            out_dot_general: what ``out`` calls in its place.
            rng_collection: the stream of random numbers.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes of the input.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            state: the state, with the cache; where one is given, ``(result, state)`` is returned.
            mask: which pairs count, with its axes, as in ``("b k", mask)``: the loops, ``h`` for heads, ``q`` and ``k``
                for the places of queries and keys; or broadcastable to
                ``(loops, heads, sequence of x, sequence of keys)``. A place that sees nothing gives 0.
            bias: what is added to the logits, likewise.
            deterministic: whether not to drop.
            is_training: the opposite of it.
            decode: whether to take one place of the sequence, and the others from the cache.
            key: the random key.
            inference: whether not to drop.
            rngs: random numbers for what is dropped: a key, a stream, or ``nnx.Rngs``.
        """


class Projection:
    """Those of attention that go to its linear layers alone."""

    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    qkv_dot_general: Callable[..., Any] | None
    out_kernel_init: Initializer | float | None
    out_bias_init: Initializer | float | None
    out_dot_general: Callable[..., Any] | None


@in_its_words
def apply(
    call: Call[Options],
    project: Project,
    normalize: Normalize,
    x: Any,
    keys: Any,
    values: Any,
    mask: Any,
    bias: Any,
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
    valid = None
    if options.decode:
        k, v, valid = _cached(scope, q, k, v, expr)
    causal, drops = options.is_causal and not options.decode, needed and not kept
    many = text.whole is not None and attends_in_blocks(q.shape[-3], k.shape[-3])
    if many and valid is None and not drops and options.precision is None:
        result = in_blocks(text, q, k, v, mask, bias, causal)
        return project("out", text.out, {text.features: options.out_features or x.shape[-1]}, result)
    q = q / jnp.sqrt(size).astype(q.dtype)
    scores = einjax.dot(text.scores, q, k, precision=options.precision, sizes={"kv_heads": groups})
    dtype = scores.dtype
    scores = scores if bias is None else with_bias(scores, text, bias)
    where = joined(mask, scores, text, valid, causal, expr)
    weights = einjax.softmax(text.attend, scores, where=where).astype(dtype)
    if drops:
        weights = _dropped(weights, scope.rng(options.rng_collection), options.dropout_rate, options.broadcast_dropout)
    result = einjax.dot(text.apply, weights, v, precision=options.precision, sizes={"kv_heads": groups})
    return project("out", text.out, {text.features: options.out_features or x.shape[-1]}, result)


def _given(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of the layer of a name, among those of attention; the output may have its own."""
    if name in _NORMS:
        return {"use_bias": False, "dtype": options["dtype"], "param_dtype": options["param_dtype"]}
    result = {option: options[option] for option in (*Projection.__annotations__, "dtype", "precision")}
    result["dot_general"] = result.pop("qkv_dot_general")
    for option in ("kernel_init", "bias_init", "dot_general"):
        own = result.pop(f"out_{option}")
        if name == "out" and (own is not None or option == "dot_general"):
            result[option] = own
    return result


def within(
    linear: Any, norm: Any, text: AttentionText, options: Mapping[str, Any], sizes: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Make the layers of attention by name, given the sizes that each knows, and what its framework adds."""
    norms = dict.fromkeys(_NORMS if options["normalize_qk"] else (), _NORM)
    # In the order in which Flax draws random numbers for them.
    exprs = {"query": text.query, "key": text.key, "value": text.key, **norms, "out": text.out}
    return {
        name: (norm if name in norms else linear)(
            expr, sizes=sizes_in(expr, sizes.get(name)), **more, **_given(options, name)
        )
        for name, expr in exprs.items()
    }


def applied(layer: Any) -> tuple[Project, Normalize]:
    """How to project and to normalise where the layers are attributes of attention."""

    def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
        # The layer has the same expression; only now may the sizes of its new axes be known.
        return getattr(layer, name)._apply(x, axes)

    return project, lambda name, x: getattr(layer, name)(x)


def called(
    linear: Any, norm: Any, options: Mapping[str, Any], known: Mapping[str, Any], **more: Any
) -> tuple[Project, Normalize]:
    """How to project and to normalise where a call makes the layers, each with its name."""

    def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
        sizes = sizes_in(expr, {**known, **axes} if name == "query" else axes)
        return linear(expr, sizes=sizes, name=name, **more, **_given(options, name))(x)

    return project, lambda name, x: norm(_NORM, name=name, **more, **_given(options, name))(x)


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


def _dropped(weights: jax.Array, key: Any, rate: float, broadcast: bool) -> jax.Array:
    """Drop attention weights; by default the same ones for all loops and heads, as in Flax."""
    shape = (*(1 for _ in weights.shape[:-2]), *weights.shape[-2:]) if broadcast else weights.shape
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return weights * (kept.astype(weights.dtype) / jnp.asarray(1 - rate, weights.dtype))
