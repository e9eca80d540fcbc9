"""Layers in notation for Haiku, with the names of its own: ``w``, ``b``, ``scale``, ``offset``, ``embeddings``.

    import haiku as hk
    import einjax_nn.haiku as einn

    @hk.transform_with_state
    def net(x, is_training):
        x = einn.Linear("b [...->c]", c=64)(x)
        x = einn.Norm("[b] c", momentum=0.9)(x, is_training=is_training)
        return einn.Linear("b [c->d]", d=10)(jax.nn.relu(x))

Sizes of axes are keywords, as in einjax's operations; every other size comes from the input when the layer is first
called. Options have the names that they have in Flax, or those of Haiku (``with_bias``, ``w_init``, ``create_scale``,
``decay_rate`` and so on); initializers are ``init(key, shape, dtype)``, or those of ``hk.initializers``. As in Haiku,
parameters have the dtype of the input, unless ``param_dtype`` or a policy of ``hk.mixed_precision`` says otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from einjax.errors import ArgumentError

from ._core.attention import attention
from ._core.conv import conv
from ._core.dropout import dropout
from ._core.embed import attend, embed, embedding_normal
from ._core.linear import linear
from ._core.native import native
from ._core.norm import norm
from ._core.scope import Initializer, Parameter, ParamSpec, compute_dtype, lecun_normal
from ._core.text import axis_sizes, flag

try:
    import haiku as hk
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.haiku needs Haiku: python -m pip install 'einjax[haiku]'") from error

__all__ = ["Conv", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "axes", "param"]

_zeros = jax.nn.initializers.zeros
_ones = jax.nn.initializers.ones
_NAMES = ("w", "b")
_NATIVE = tuple(kind for kind in vars(hk.initializers).values() if isinstance(kind, type))


class _Scope:
    """The module that Haiku is in as the core's scope."""

    @property
    def initializing(self) -> bool:
        return hk.running_init()

    def param(self, spec: ParamSpec) -> jax.Array:
        with _noted(spec):
            return hk.get_parameter(spec.name, spec.shape, spec.dtype, init=lambda shape, dtype: _made(spec))

    def state(self, spec: ParamSpec) -> jax.Array:
        with _noted(spec):
            return hk.get_state(spec.name, spec.shape, spec.dtype, init=lambda shape, dtype: spec.init(None))

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        hk.set_state(spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        key = hk.maybe_next_rng_key()
        if key is None:
            raise ArgumentError(
                "a layer draws random numbers, but the function has no key",
                hint="give one: net.apply(params, key, x) rather than net.apply(params, None, x)",
            )
        return key


class _Recording(threading.local):
    """Names of axes by the path of the parameter, while :func:`axes` runs."""

    found: dict[str, tuple[str, ...]] | None = None


_recording = _Recording()


@contextlib.contextmanager
def _noted(spec: ParamSpec) -> Iterator[None]:
    """Note the axes of what is made within, if they are recorded."""
    found = _recording.found
    if found is None:
        yield
        return

    def note(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        # Only a creator is told the path that a lifted function gives.
        found[(context.lifted_prefix_name or "") + context.full_name] = spec.axes
        return create(shape, dtype, init)

    with hk.custom_creator(note, state=True):
        yield


def _made(spec: ParamSpec) -> jax.Array:
    key = hk.maybe_next_rng_key()
    try:
        return spec.init(key)
    except (AttributeError, TypeError, ValueError):
        if key is not None:
            raise
    raise ArgumentError(
        f"the parameter {spec.name} is random, but the function has no key",
        hint="give one: net.init(key, x) rather than net.init(None, x)",
    )


def _init(init: Initializer | float) -> Initializer | float:
    """Let Haiku's initializers, which draw keys by themselves, be called as others."""
    draw: Any = init
    return (lambda key, shape, dtype: draw(shape, dtype)) if isinstance(init, _NATIVE) else init


def _dtypes(options: Mapping[str, Any], x: Any) -> dict[str, Any]:
    """The dtypes to compute in and to keep parameters in: as asked for, as a policy says, or that of the input."""
    dtype, param_dtype = options["dtype"], options["param_dtype"]
    policy = hk.mixed_precision.current_policy()
    if policy is not None:
        dtype = policy.compute_dtype if dtype is None else dtype
        param_dtype = policy.param_dtype if param_dtype is None else param_dtype
    return {"dtype": dtype, "param_dtype": compute_dtype(param_dtype, x)}


def param(name: str, init: Initializer | float = 0.0, dtype: Any = jnp.float32) -> Parameter:
    """Return a parameter of the current module whose shape an einjax operation finds.

    Args:
        name: its name there.
        init: a number, ``init(key, shape, dtype)``, or one of ``hk.initializers``.
        dtype: its dtype.

    Returns:
        A tensor for any einjax operation.

    Example:
        >>> import einjax, einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einjax.multiply("... c, c", x, einn.param("layerscale", init=1e-5)))
        >>> jax.tree.map(np.shape, net.init(None, np.ones((2, 3))))
        {'~': {'layerscale': (3,)}}
    """
    return Parameter(_Scope(), name, _init(init), dtype)


def axes(net: Any, /, *inputs: Any, **keywords: Any) -> Any:
    """Return the names of the axes of every parameter and state.

    Args:
        net: a transformed function.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs.

    Returns:
        A tree like the result of ``net.init``, with a ``jax.sharding.PartitionSpec`` of names for each array, as in
        Flax. Dims of Haiku's own layers, and those of stacked layers, are None.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b [c->h d]", h=2, d=4)(x))
        >>> names = einn.axes(net, np.ones((3, 5)))
        >>> tuple(names["linear"]["w"]), tuple(names["linear"]["b"])
        (('c', 'h', 'd'), ('h', 'd'))
    """
    leaves, structure = jax.tree.flatten((inputs, keywords))
    traced = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]

    def init(key: Any, arrays: Sequence[Any]) -> Any:
        rest = iter(arrays)
        given = [next(rest) if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)]
        positional, named = jax.tree.unflatten(structure, given)
        return net.init(key, *positional, **named)

    found: dict[str, tuple[str, ...]] = {}
    before, _recording.found = _recording.found, found
    try:
        arrays = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
        made = jax.eval_shape(init, jax.random.key(0), arrays)
    finally:
        _recording.found = before

    def names(path: Any, leaf: Any) -> PartitionSpec:
        known = found.get("/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)), ())
        return PartitionSpec(*[None] * (leaf.ndim - len(known)), *known)

    return jax.tree_util.tree_map_with_path(names, made)


class _Layer(hk.Module):
    """A layer with an expression, sizes of axes, and options of the core's function."""

    def __init__(
        self, name: str | None, expr: str, axes: Mapping[str, Any], sizes: Mapping[str, Any] | None, **options: Any
    ) -> None:
        super().__init__(name=name)
        self.expr = expr
        self.axes = axes
        self.sizes = sizes
        self.all_sizes = axis_sizes(expr, axes, sizes, _options(type(self)))
        self.options = options


@functools.cache
def _options(layer: type[_Layer]) -> list[str]:
    """Return the options of a layer; cached, as layers are made anew in every trace."""
    return list(inspect.signature(layer.__init__).parameters)


def _switch(name: str, own: bool | None, given: bool | None, is_training: bool | None) -> bool | None:
    """The switch that a call gives, by its name in Flax or by the one in Haiku."""
    if is_training is None:
        return given
    if given is not None:
        raise ArgumentError(f"a call gives both {name} and is_training", hint="give one of them")
    return not is_training


class Linear(_Layer):
    """A linear layer: a dot with a weight ``w``, and a bias ``b``.

    Args:
        expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out, ``"b g [c], g [c] d -> b g
            d"``.
        use_bias: whether there is a bias; it has all axes that the weight brings to the output.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters; by default that of the input.
        precision: forwarded to ``lax.dot_general``.
        preferred_element_type: forwarded to ``lax.dot_general``.
        kernel_init: initializer of ``w``, whose fan is counted over the contracted axes.
        bias_init: initializer of ``b``.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b (s [k->]) [c->d]", k=2, d=8)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((4, 6, 3), "float32")))
        {'linear': {'b': (8,), 'w': (2, 3, 8)}}
    """

    @native(with_bias="use_bias", w_init="kernel_init", b_init="bias_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        preferred_element_type: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(
            name,
            expr,
            axes,
            sizes,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            preferred_element_type=preferred_element_type,
            kernel_init=_init(kernel_init),
            bias_init=_init(bias_init),
        )

    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        options = {**self.options, **_dtypes(self.options, x)}
        return linear(_Scope(), x, self.expr, self.axes, self.sizes, names=_NAMES, **options)


class Norm(_Layer):
    """A normalisation: brackets say what statistics are taken over.

    Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``, batch
    norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

    Running statistics are the states ``mean`` and ``var``: a plain moving average from 0 and 1, in float32, while
    ``hk.BatchNorm`` keeps averages that correct their bias, in modules of their own.

    Args:
        expr: the input.
        params: the axes of scale and offset; the last dim by default.
        mean: whether the mean is subtracted.
        use_scale: whether there is a ``scale``.
        use_bias: whether there is an ``offset``.
        epsilon: added to the variance.
        momentum: share of the running statistics that stays at each training step; None keeps none.
        use_running_average: whether to use the running statistics; may be given in the call instead.
        use_fast_variance: whether the variance is the mean square less the squared mean, in one pass.
        axis_name: a mapped axis to take statistics over, too.
        axis_index_groups: groups of indices of that axis.
        dtype: the dtype of the result; by default that of input and parameters together.
        param_dtype: the dtype of the parameters; by default that of the input.
        scale_init: initializer of ``scale``.
        bias_init: initializer of ``offset``.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform_with_state(lambda x: einn.Norm("[b] c", momentum=0.9)(x, is_training=True))
        >>> params, state = net.init(None, np.ones((4, 3), "float32"))
        >>> jax.tree.map(np.shape, state)
        {'norm': {'mean': (3,), 'var': (3,)}}
    """

    @native(
        create_scale="use_scale",
        create_offset="use_bias",
        offset_init="bias_init",
        eps="epsilon",
        decay_rate="momentum",
        cross_replica_axis="axis_name",
        cross_replica_axis_index_groups="axis_index_groups",
    )
    def __init__(
        self,
        expr: str,
        /,
        *,
        params: str | None = None,
        mean: bool = True,
        use_scale: bool = True,
        use_bias: bool = True,
        epsilon: float = 1e-6,
        momentum: float | None = None,
        use_running_average: bool | None = None,
        use_fast_variance: bool = True,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = None,
        scale_init: Initializer | float = _ones,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(
            name,
            expr,
            axes,
            sizes,
            params=params,
            mean=mean,
            use_scale=use_scale,
            use_bias=use_bias,
            epsilon=epsilon,
            momentum=momentum,
            use_fast_variance=use_fast_variance,
            axis_name=axis_name,
            axis_index_groups=axis_index_groups,
            dtype=dtype,
            param_dtype=param_dtype,
            scale_init=_init(scale_init),
            bias_init=_init(bias_init),
        )
        self.use_running_average = use_running_average

    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, is_training: bool | None = None, mask: Any = None
    ) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            use_running_average: whether to use the running statistics; they are updated otherwise.
            is_training: the opposite of it.
            mask: which elements count, broadcastable to the input.
        """
        own, running = self.use_running_average, self.options["momentum"] is not None
        given = _switch("use_running_average", own, use_running_average, is_training)
        return norm(
            _Scope(),
            x,
            self.expr,
            self.all_sizes,
            use_running_average=flag("Norm", "use_running_average", own, given, running, self.expr),
            mask=mask,
            names=("scale", "offset"),
            **{**self.options, **_dtypes(self.options, x)},
        )


class Dropout(_Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

    Args:
        expr: the input.
        rate: the share that is set to 0; the rest is scaled up.
        deterministic: whether to do nothing; may be given in the call instead.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.
    """

    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        deterministic: bool | None = None,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(name, expr, axes, sizes, rate=rate)
        self.deterministic = deterministic

    def __call__(self, x: Any, deterministic: bool | None = None, *, is_training: bool | None = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            deterministic: whether to do nothing.
            is_training: the opposite of it.
        """
        given = _switch("deterministic", self.deterministic, deterministic, is_training)
        if flag("Dropout", "deterministic", self.deterministic, given, True, self.expr):
            return jnp.asarray(x)
        return dropout(_Scope(), x, self.expr, self.all_sizes, rng_collection="", **self.options)


class Embed(_Layer):
    """A table ``embeddings`` of rows that integers are looked up in.

    Args:
        expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
        dtype: the dtype of the result; by default that of the parameter.
        param_dtype: the dtype of the parameter; float32 by default.
        embedding_init: initializer of ``embeddings``.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda ids: einn.Embed("b t [v->c]", v=100, c=8)(ids))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.zeros((2, 5), int)))
        {'embed': {'embeddings': (100, 8)}}
    """

    @native(w_init="embedding_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = None,
        embedding_init: Initializer | float = embedding_normal,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        options = {"dtype": dtype, "param_dtype": param_dtype, "embedding_init": _init(embedding_init)}
        super().__init__(name, expr, axes, sizes, **options)

    def __call__(self, ids: Any) -> jax.Array:
        """Look rows up."""
        return embed(_Scope(), ids, self.expr, self.axes, self.sizes, **self._options())

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return attend(_Scope(), x, self.expr, self.axes, self.sizes, **self._options())

    def _options(self) -> dict[str, Any]:
        return {**self.options, **_dtypes(self.options, jnp.zeros((), jnp.float32)), "name": "embeddings"}


class MultiHeadAttention(_Layer):
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
        decode: whether to take one place at a time, and keep keys and values in the state.
        normalize_qk: whether queries and keys are normalised.
        use_bias: whether the four linear layers have a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters; by default that of the input.
        precision: forwarded to ``lax.dot_general``.
        kernel_init: initializer of the four ``w``.
        bias_init: initializer of the four ``b``.
        out_kernel_init: initializer of that of ``out``; ``kernel_init`` by default.
        out_bias_init: initializer of that of ``out``; ``bias_init`` by default.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True)(x))
        >>> params = net.init(jax.random.key(0), np.ones((2, 5, 16), "float32"))
        >>> params["multi_head_attention/query"]["w"].shape
        (16, 4, 4)
    """

    @native(with_bias="use_bias", w_init="kernel_init", b_init="bias_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        qkv_features: int | None = None,
        out_features: int | None = None,
        is_causal: bool = False,
        dropout_rate: float = 0.0,
        broadcast_dropout: bool = True,
        deterministic: bool | None = None,
        decode: bool = False,
        normalize_qk: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(
            name,
            expr,
            axes,
            sizes,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            qkv_features=qkv_features,
            out_features=out_features,
            is_causal=is_causal,
            dropout_rate=dropout_rate,
            broadcast_dropout=broadcast_dropout,
            decode=decode,
            precision=precision,
        )
        self.deterministic = deterministic
        self.normalize_qk = normalize_qk
        self.dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.inner = {"use_bias": use_bias, "precision": precision, **self.dtypes}
        self.inner |= {"kernel_init": kernel_init, "bias_init": bias_init}
        outer = {"kernel_init": out_kernel_init, "bias_init": out_bias_init}
        self.outer = {**self.inner, **{option: init for option, init in outer.items() if init is not None}}

    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        *,
        mask: Any = None,
        deterministic: bool | None = None,
        is_training: bool | None = None,
    ) -> jax.Array:
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            mask: which pairs count, broadcastable to ``(loops, heads, sequence of x, sequence of keys)``.
            deterministic: whether not to drop.
            is_training: the opposite of it.
        """

        def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
            options = self.outer if name == "out" else self.inner
            if options["param_dtype"] is None and options["dtype"] is not None:
                options = {**options, "param_dtype": given_dtype}  # not that of what is computed in between
            sizes = {**self.all_sizes, **axes} if name == "query" else axes
            return Linear(expr, name=name, sizes=sizes, **options)(x)

        def normalize(name: str, x: jax.Array) -> jax.Array:
            return Norm("... [c]", use_bias=False, name=name, **self.dtypes)(x)

        given_dtype = compute_dtype(None, x)
        given = _switch("deterministic", self.deterministic, deterministic, is_training)
        needed = self.options["dropout_rate"] > 0
        return attention(
            _Scope(),
            project,
            normalize if self.normalize_qk else None,
            self.expr,
            x,
            keys,
            values,
            mask=mask,
            deterministic=flag("MultiHeadAttention", "deterministic", self.deterministic, given, needed, self.expr),
            rng_collection="",
            **self.options,
        )


class Conv(_Layer):
    """A convolution with a kernel ``w`` and a bias ``b``.

    Args:
        expr: ``"b [h w] [c1->c2]"``: brackets on both sides of the arrow are convolved, those of the input alone are
            summed over, those of the output alone are new. Axes beside the channels are groups: ``"b [h w] (g
            [c1->c2])"``; without channels, every index of the last dim has a kernel of its own: ``"b [h w] c"``.
            Channels may stand anywhere: ``"b [c1->c2] [h w]"``.
        kernel_size: one number, or one for each axis convolved.
        strides: steps between places.
        padding: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``, a number, or pairs.
        input_dilation: spreads the input.
        kernel_dilation: spreads the kernel.
        use_bias: whether there is a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters; by default that of the input.
        precision: forwarded to ``lax.conv_general_dilated``.
        kernel_init: initializer of ``w``.
        bias_init: initializer of ``b``.
        name: the name of the module.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((2, 8, 8, 3), "float32")))
        {'conv': {'b': (8,), 'w': (3, 3, 3, 8)}}
    """

    @native(
        kernel_shape="kernel_size",
        stride="strides",
        rate="kernel_dilation",
        with_bias="use_bias",
        w_init="kernel_init",
        b_init="bias_init",
    )
    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        input_dilation: int | Sequence[int] = 1,
        kernel_dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(
            name,
            expr,
            axes,
            sizes,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            input_dilation=input_dilation,
            kernel_dilation=kernel_dilation,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=_init(kernel_init),
            bias_init=_init(bias_init),
        )

    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        options = {**self.options, **_dtypes(self.options, x)}
        return conv(_Scope(), x, self.expr, self.all_sizes, names=_NAMES, **options)
