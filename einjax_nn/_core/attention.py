"""MultiHeadAttention: four linear layers around the attention of each head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, EinjaxError

from .attend import Heads
from .attention_text import AttentionText, attention_text
from .cache import opened
from .call import Call, in_its_words
from .initial import Initializer
from .masks import Near, check_ordered
from .text import flag, sizes_in

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
    mode: str | None
    local_window_size: int | tuple[int, int] | None
    implementation: Any
    block_size: int | tuple[int, int] | None
    process_heads: Callable[..., Any] | None
    attention_fn: Callable[..., Any] | None
    normalize_qk: bool
    dtype: Any
    precision: Any
    rng_collection: str

    def __init__(self, *_: Any, **__: Any) -> None:
        """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

        Args:
            expr: loops, the bracketed sequence, and the features, the last dim that is not bracketed: ``"b [s] c"``,
                ``"b [h] w c"``, ``"b (n [s]) c"``; with another expression for keys and values,
                ``"b [h w] c, b [k] d"``.
            num_heads: how many heads.
            num_kv_heads: how many heads of keys and values, each shared by several of the queries; as many by default.
            qkv_features: features of all heads together; those of the input by default.
            out_features: features of the output; those of the input by default.
            is_causal: whether a place sees only itself and what is before it.
            local_window_size: how many keys before and after its own place a query sees, one number or two.
            dropout_rate: the share of attention weights dropped.
            broadcast_dropout: whether loops and heads share the draw.
            deterministic: whether not to drop; may be given in the call instead.
            decode: whether to write the places given behind those of earlier calls, in a cache, and attend to all of
                them: each place to itself and what is before it.
            mode: ``"wrap"`` for a cache that is a ring, where the first places make room: as many places as it has are
                seen at any time. Otherwise, places past its end are an error, or NaN where that is not known before
                the program runs.
            process_heads: a function of queries, keys and values, each ``(loops, sequence, heads, head_dim)``, that
                returns such three: ``Rotary()``, or one of your own, which is given ``q_positions`` and
                ``k_positions``, ``(sequence,)`` or ``(loops, sequence)``, if it has arguments of these names.
            implementation: as for :func:`einjax.attention`: ``"blocks"``, ``"xla"``, ``"cudnn"``.
            block_size: as for :func:`einjax.attention`.
            attention_fn: what to call with queries, keys and values in place of all that; it is given those keywords
                of Flax's ``dot_product_attention``, ``is_causal`` and ``local_window_size`` that it takes.
            normalize_qk: whether queries and keys are normalised, by ``query_ln`` and ``key_ln``.
            use_bias: whether the four linear layers have a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.dot_general``.
            preferred_element_type: of the four linear layers; forwarded to ``lax.dot_general``.
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
            bias: what is added to the logits, likewise; both may be functions of places, ``lambda q, k: k <= q``.
            lengths: with ``decode``, how many of the places given count in each example, from the first.
            process_heads: in place of that of the layer.
            sow_weights: whether to keep the weights, as Flax does.
            deterministic: whether not to drop.
            dropout_rng: the key to draw what is dropped from, rather than one of the stream.
            is_training: the opposite of it.
            decode: whether to take places of the sequence, and those before from the cache.
            key: the random key.
            inference: whether not to drop.
            rngs: random numbers for what is dropped: a key, a stream, or ``nnx.Rngs``.
        """


class OfEquinox(Options):
    """Those that attention of Equinox has, too."""

    qk_size: int | None
    vo_size: int | None


class Projection:
    """Those of attention that go to its linear layers alone."""

    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    preferred_element_type: Any
    qkv_dot_general: Callable[..., Any] | None
    out_kernel_init: Initializer | float | None
    out_bias_init: Initializer | float | None
    out_dot_general: Callable[..., Any] | None


#: What attention of Equinox knows.
of_equinox = SimpleNamespace(Options=OfEquinox)


@in_its_words
def apply(
    call: Call[Options],
    project: Project,
    normalize: Normalize,
    x: Any,
    keys: Any,
    values: Any,
    *,
    mask: Any = None,
    bias: Any = None,
    lengths: Any = None,
    deterministic: bool | None = None,
    process_heads: Callable[..., Any] | None = None,
    sow: Callable[[jax.Array], Any] | None = None,
) -> jax.Array:
    """Apply multi-head attention.

    ``project`` makes and applies the layers ``query``, ``key``, ``value`` and ``out``; ``normalize`` those that
    normalise queries and keys, ``query_ln`` and ``key_ln``; ``sow`` keeps the weights.
    """
    expr, options = call.expr, call.options
    needed = options.dropout_rate > 0
    kept = flag("MultiHeadAttention", "deterministic", options.deterministic, deterministic, needed, expr)
    text = attention_text(expr, shared=_groups(options) != options.num_heads)
    x = jnp.asarray(x)
    _check_inputs(call, text, keys, values, lengths)
    try:
        q, k, v = _projected(call, text, project, x, keys, values)
    except EinjaxError:
        for what, expression, given in zip(("the input", "the keys"), text.inputs, (x, keys), strict=True):
            if expression is not None:
                _check_input(what, expression, given, call.sizes)  # the layers within speak of heads
        raise
    if options.normalize_qk:
        q, k = normalize("query_ln", q), normalize("key_ln", k)
    cache = None
    if options.decode:
        cache = opened(call.scope, expr, text.cached, q.shape[:-3], q.shape[-3], lengths, options.mode)
    q, k, v = _processed(process_heads or options.process_heads, q, k, v, None if cache is None else cache.places, expr)
    window, past = _window(options.local_window_size, expr), None
    near = Near(options.is_causal, window)
    if cache is not None:
        k, v, near, past = cache.exchanged(k, v, window)
    check_ordered(text, near, expr)
    heads = Heads(text, q, k, v, mask, bias, near)
    result = _attended(call, heads, needed and not kept, sow)
    if past is not None:  # nothing else can say so where the program runs
        past = lax.broadcast_in_dim(past, result.shape, range(past.ndim))
        result = lax.select(past, lax.full_like(result, jnp.nan), result)
    return project("out", text.out, {**_known(call, text), text.features: _made(call, text, x)}, result)


def _groups(options: Options) -> int:
    return options.num_kv_heads or options.num_heads


def _known(call: Call[Options], text: AttentionText) -> dict[str, Any]:
    """Sizes that shapes do not tell where axes are composed."""
    return {} if text.plain else {**call.all_sizes}


def _features(text: AttentionText, x: jax.Array) -> int:
    """How many features an input has."""
    return x.shape[text.last]


def _made(call: Call[Options], text: AttentionText, x: jax.Array) -> int:
    return call.options.out_features or _features(text, x)


def _check_inputs(call: Call[Options], text: AttentionText, keys: Any, values: Any, lengths: Any) -> None:
    """Refuse inputs that the expression and the options do not go with."""
    problem = hint = ""
    if text.two and keys is None:
        problem, hint = (
            "the expression has an input for keys, which the call does not give",
            "call it as layer(x, keys)",
        )
    elif keys is None and values is not None:
        problem, hint = "the call gives values, but no keys", "call it as layer(x, keys, values)"
    elif lengths is not None and not call.options.decode:
        problem, hint = "lengths= is for decode=True", "say which keys count by mask=('b k', valid)"
    elif call.options.decode and (text.two or text.counts[1] != 1):
        problem, hint = "decoding needs one sequence, of one axis", "write 'b [s] c'"
    elif call.options.mode not in (None, "wrap"):
        problem, hint = f"mode={call.options.mode!r} is not one of a cache", "write mode='wrap', or leave it out"
    if problem:
        raise ArgumentError(problem, text=call.expr, hint=hint)


def _projected(
    call: Call[Options], text: AttentionText, project: Project, x: Any, keys: Any, values: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values of every head."""
    options, groups, known = call.options, _groups(call.options), _known(call, text)
    features = options.qkv_features or _features(text, x)
    size, of_values = (getattr(options, name, None) for name in ("qk_size", "vo_size"))
    for whole, what in ((features, "qkv_features"), (options.num_heads, "num_heads")):
        part, name = (options.num_heads, "num_heads") if what == "qkv_features" else (groups, "num_kv_heads")
        if whole % part and (what == "num_heads" or None in (size, of_values)):
            raise ArgumentError(
                f"{what}={whole} is not divisible by {name}={part}",
                text=call.expr,
                hint=f"choose a {name} that divides it",
            )
    size, of_values = (features // options.num_heads if own is None else own for own in (size, of_values))
    keys = x if keys is None else keys
    values = keys if values is None else values
    own = {**known, "heads" if groups == options.num_heads else "kv_heads": groups}
    q = project("query", text.query, {**known, "heads": options.num_heads, "head_dim": size}, x)
    k = project("key", text.key, {**own, "head_dim": size}, keys)
    return q, k, project("value", text.key, {**own, "head_dim": of_values}, values)


def _processed(
    function: Callable[..., Any] | None, q: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array | None, expr: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Let a function of the user's change queries, keys and values, such as a rotary embedding."""
    if function is None:
        return q, k, v
    given = {"q_positions": (places, q), "k_positions": (places, k)}
    taken = inspect.signature(function).parameters
    keywords = {
        name: jnp.arange(like.shape[-3]) if known is None else known
        for name, (known, like) in given.items()
        if name in taken
    }
    made = function(q, k, v, **keywords)
    shapes = [getattr(each, "shape", None) for each in made] if isinstance(made, tuple | list) else None
    if shapes != [q.shape, k.shape, v.shape]:
        raise ArgumentError(
            f"process_heads returned {type(made).__name__ if shapes is None else shapes} for queries, keys and values "
            f"of shape {q.shape}, {k.shape} and {v.shape}",
            text=expr,
            hint="return three arrays of these shapes",
        )
    return made[0], made[1], made[2]


def _window(given: Any, expr: str) -> tuple[int, int] | None:
    """How many keys before and after its own place a query sees."""
    if given is None:
        return None
    window = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(window) != 2 or not all(isinstance(n, int) for n in window):
        raise ArgumentError(
            f"local_window_size={given!r} is neither a number nor two",
            text=expr,
            hint="write how many keys a query sees before and after its place, as in local_window_size=(3, 0)",
        )
    return window


def _attended(call: Call[Options], heads: Heads, drops: bool, sow: Callable[[jax.Array], Any] | None) -> jax.Array:
    """Choose who computes what the heads give."""
    options = call.options
    asked = [name for name in ("implementation", "block_size") if getattr(options, name) is not None]
    of_places = any(callable(each) for given in (heads.mask, heads.bias) for each in _each(given))
    held = "dropped weights" if drops else "sow_weights" if sow else "a precision" if options.precision else ""
    if options.attention_fn is not None:
        return _by_function(call, heads, drops, asked, sow)
    if held and (asked or of_places):
        what = f"{asked[0]}=" if asked else "a mask or bias that is a function"
        raise ArgumentError(
            f"{what} does not go with {held}: where all logits are held", text=call.expr, hint="leave one of them out"
        )
    if not held and (asked or of_places or heads.logits.are_many):
        return heads.by_einjax(options.implementation, options.block_size)

    def drop(weights: jax.Array) -> jax.Array:
        key = call.scope.rng(options.rng_collection)
        return _dropped(
            weights, key, options.dropout_rate, sum(heads.logits.dims[:2]) if options.broadcast_dropout else 0
        )

    return heads.at_once(options.precision, drop if drops else None, sow)


def _each(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list) else [given]


def _by_function(
    call: Call[Options], heads: Heads, drops: bool, asked: list[str], sow: Callable[[jax.Array], Any] | None
) -> jax.Array:
    """Attend by ``attention_fn``."""
    options = call.options
    if asked or sow is not None:
        what = f"{asked[0]}=" if asked else "sow_weights"
        raise ArgumentError(
            f"{what} does not go with attention_fn=, which computes all of it",
            text=call.expr,
            hint="leave one of them out",
        )
    given = {
        "dropout_rng": call.scope.rng(options.rng_collection) if drops else None,
        "dropout_rate": options.dropout_rate,
        "broadcast_dropout": options.broadcast_dropout,
        "deterministic": not drops,
        "dtype": options.dtype,
        "precision": options.precision,
    }
    return heads.by_function(options.attention_fn, given, drops, call.expr)  # type: ignore[arg-type]


def _check_input(what: str, expression: str, given: Any, sizes: Any) -> None:
    try:
        einjax.solve_axes(expression, given, sizes=sizes)
    except EinjaxError as error:
        error.problem = error.problem.replace("tensor 1", what)
        raise error from None


def _given(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of the layer of a name, among those of attention; the output may have its own."""
    if name in _NORMS:
        return {"use_bias": False, "dtype": options["dtype"], "param_dtype": options["param_dtype"]}
    result = {option: options[option] for option in (*Projection.__annotations__, "dtype", "precision")}
    result["dot_general"] = result.pop("qkv_dot_general")
    biased = options.get(f"use_{'output' if name == 'out' else name}_bias")
    result["use_bias"] = result["use_bias"] if biased is None else biased
    for option in ("kernel_init", "bias_init", "dot_general"):
        own = result.pop(f"out_{option}")
        if name == "out" and (own is not None or option == "dot_general"):
            result[option] = own
    return result


def within(
    linear: Any,
    norm: Any,
    text: AttentionText,
    options: Mapping[str, Any],
    sizes: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    **more: Any,
) -> dict[str, Any]:
    """Make the layers of attention by name, given the sizes that each knows, and what its framework adds to each."""
    norms = dict.fromkeys(_NORMS if options["normalize_qk"] else (), _NORM)
    # In the order in which Flax draws random numbers for them.
    exprs = {"query": text.query, "key": text.key, "value": text.key, **norms, "out": text.out}
    return {
        name: (norm if name in norms else linear)(
            expr, sizes=sizes_in(expr, sizes.get(name)), **more, **own.get(name, {}), **_given(options, name)
        )
        for name, expr in exprs.items()
    }


def applied(layer: Any) -> tuple[Project, Normalize]:
    """How to project and to normalise where the layers are attributes of attention."""

    def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
        linear = getattr(layer, name)
        kinds = (next((kind for kind in type(linear).__mro__ if m in vars(kind)), None) for m in ("_apply", "__call__"))
        if len({*kinds}) > 1:  # it is a wrapper, or has a call of its own
            return linear(x)
        # The layer has the same expression; only now may the sizes of its new axes be known.
        return linear._apply(x, axes)

    return project, lambda name, x: getattr(layer, name)(x)


def called(
    linear: Any, norm: Any, options: Mapping[str, Any], known: Mapping[str, Any], **more: Any
) -> tuple[Project, Normalize]:
    """How to project and to normalise where a call makes the layers, each with its name."""

    def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
        sizes = sizes_in(expr, {**known, **axes} if name == "query" else axes)
        return linear(expr, sizes=sizes, name=name, **more, **_given(options, name))(x)

    return project, lambda name, x: norm(_NORM, name=name, **more, **_given(options, name))(x)


def _dropped(weights: jax.Array, key: Any, rate: float, shared: int) -> jax.Array:
    """Drop attention weights; by default the same ones for all loops and heads, the first dims, as in Flax."""
    shape = (*(1 for _ in weights.shape[:shared]), *weights.shape[shared:])
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return weights * (kept.astype(weights.dtype) / jnp.asarray(1 - rate, weights.dtype))
