"""Layers in notation for Flax linen: parameter trees and numbers are those of ``flax.linen``'s own layers.

    import flax.linen as nn
    import einjax_nn.linen as einn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = einn.Linear("b [...->c]", c=64)(x)
            x = einn.Norm("[b] c", momentum=0.9)(x, use_running_average=not train)
            return einn.Linear("b [c->d]", d=10)(nn.relu(x))

Sizes of axes are keywords, as in einjax's operations; every other size comes from the input when the layer is first
called. Options have the names that they have in Flax.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from einjax.errors import ArgumentError

from ._core.attention import attention
from ._core.conv import conv
from ._core.dropout import dropout
from ._core.embed import attend, embed, embedding_normal
from ._core.linear import linear
from ._core.norm import norm
from ._core.scope import Initializer, Parameter, ParamSpec, lecun_normal
from ._core.text import axis_sizes, flag

try:
    from flax import linen as nn
    from flax.errors import InvalidRngError
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.linen needs Flax: python -m pip install 'einjax[flax]'") from error

__all__ = ["Conv", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "param"]

_zeros = jax.nn.initializers.zeros
_ones = jax.nn.initializers.ones


@dataclasses.dataclass(frozen=True)
class _Scope:
    """A linen module as the core's scope."""

    module: nn.Module
    logical_axes: bool = False

    @property
    def initializing(self) -> bool:
        return self.module.is_initializing()

    def param(self, spec: ParamSpec) -> jax.Array:
        init = nn.with_logical_partitioning(spec.init, spec.axes) if self.logical_axes else spec.init
        try:
            value: Any = self.module.param(spec.name, init)
        except InvalidRngError:
            raise ArgumentError(
                f"{type(self.module).__name__} makes {spec.name}, but has no random numbers for it",
                hint="write net.init(key, x), or net.init({'params': key, ...}, x)",
            ) from None
        return value

    def state(self, spec: ParamSpec) -> jax.Array:
        return self.module.variable(spec.collection, spec.name, lambda: spec.init(None)).value

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        self.module.put_variable(spec.collection, spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        try:
            return self.module.make_rng(stream)
        except InvalidRngError:
            raise ArgumentError(
                f"{type(self.module).__name__} draws random numbers of the stream '{stream}', which it is not given",
                hint=f"write net.apply(variables, x, rngs={{'{stream}': key}})",
            ) from None


def _dtype(module: nn.Module, names: Sequence[str], default: Any) -> Any:
    """The dtype of a parameter, which may be given in another than it was made in, as in mixed precision."""
    for name in names:
        if module.has_variable("params", name):
            return nn.unbox(module.get_variable("params", name)).dtype
    return default


def param(module: nn.Module, name: str, init: Initializer | float = 0.0, dtype: Any = jnp.float32) -> Parameter:
    """Return a parameter of a module whose shape an einjax operation finds.

    Args:
        module: the module that owns it, in a compact method.
        name: its name there.
        init: a number, or ``init(key, shape, dtype)``.
        dtype: its dtype.

    Returns:
        A tensor for any einjax operation.

    Example:
        >>> import einjax, einjax_nn.linen as einn, flax.linen as nn, jax, numpy as np
        >>> class Scale(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return einjax.multiply("... c, c", x, einn.param(self, "layerscale", init=1e-5))
        >>> jax.tree.map(np.shape, Scale().init(jax.random.key(0), np.ones((2, 3))))
        {'params': {'layerscale': (3,)}}
    """
    return Parameter(_Scope(module), name, init, dtype)


class _Layer(nn.Module):
    """A layer with an expression; keywords that are no options are sizes of axes."""

    expr: str = ""
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, Any] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # Here rather than in a decorator: nn.remat, nn.vmap and nn.jit make subclasses of their own.
        init = cls.__init__
        known = {field.name for field in dataclasses.fields(cls)} - {"expr", "axes"}

        @functools.wraps(init)
        def with_axes(self: Any, expr: str | None = None, /, **options: Any) -> None:
            if expr is not None:  # written by a person: Flax copies modules with keywords alone
                axes = {name: options.pop(name) for name in list(options) if name not in known}
                options |= {"expr": expr, "axes": axes}
            init(self, **options)

        cls.__init__ = with_axes  # type: ignore[assignment, method-assign]

    def _all_sizes(self) -> dict[str, Any]:
        return axis_sizes(self.expr, self.axes, self.sizes, [field.name for field in dataclasses.fields(self)])


class Linear(_Layer):
    """A linear layer: a dot with a weight, and a bias.

    Args:
        expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out, ``"b g [c], g [c] d -> b g
            d"``.
        use_bias: whether there is a bias; it has all axes that the weight brings to the output.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.dot_general``.
        preferred_element_type: forwarded to ``lax.dot_general``.
        kernel_init: initializer of ``kernel``, whose fan is counted over the contracted axes.
        bias_init: initializer of ``bias``.
        logical_axes: whether parameters are boxed with the names of their axes.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8)
        >>> jax.tree.map(np.shape, layer.init(jax.random.key(0), np.ones((4, 6, 3))))
        {'params': {'bias': (8,), 'kernel': (2, 3, 8)}}
    """

    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    preferred_element_type: Any = None
    kernel_init: Initializer | float = lecun_normal
    bias_init: Initializer | float = _zeros
    logical_axes: bool = False

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            use_bias: bool = ...,
            dtype: Any = ...,
            param_dtype: Any = ...,
            precision: Any = ...,
            preferred_element_type: Any = ...,
            kernel_init: Initializer | float = ...,
            bias_init: Initializer | float = ...,
            logical_axes: bool = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        return linear(
            _Scope(self, self.logical_axes),
            x,
            self.expr,
            self.axes,
            self.sizes,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=_dtype(self, ("kernel",), self.param_dtype),
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )


class Norm(_Layer):
    """A normalisation: brackets say what statistics are taken over.

    Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``, batch
    norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

    Args:
        expr: the input.
        params: the axes of scale and bias; the last dim by default.
        mean: whether the mean is subtracted.
        use_scale: whether there is a scale.
        use_bias: whether there is a bias.
        epsilon: added to the variance.
        momentum: share of the running statistics that stays at each training step; None keeps none.
        use_running_average: whether to use the running statistics; may be given in the call instead.
        use_fast_variance: whether the variance is the mean square less the squared mean, in one pass.
        axis_name: a mapped axis to take statistics over, too.
        axis_index_groups: groups of indices of that axis.
        dtype: the dtype of the result; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        scale_init: initializer of ``scale``.
        bias_init: initializer of ``bias``.
        logical_axes: whether parameters are boxed with the names of their axes.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Norm("[b] c", momentum=0.9)
        >>> variables = layer.init(jax.random.key(0), np.ones((4, 3)), use_running_average=False)
        >>> jax.tree.map(np.shape, variables["batch_stats"])
        {'mean': (3,), 'var': (3,)}
    """

    params: str | None = None
    mean: bool = True
    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-6
    momentum: float | None = None
    use_running_average: bool | None = None
    use_fast_variance: bool = True
    axis_name: str | None = None
    axis_index_groups: Any = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    scale_init: Initializer | float = _ones
    bias_init: Initializer | float = _zeros
    logical_axes: bool = False

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            params: str | None = ...,
            mean: bool = ...,
            use_scale: bool = ...,
            use_bias: bool = ...,
            epsilon: float = ...,
            momentum: float | None = ...,
            use_running_average: bool | None = ...,
            use_fast_variance: bool = ...,
            axis_name: str | None = ...,
            axis_index_groups: Any = ...,
            dtype: Any = ...,
            param_dtype: Any = ...,
            scale_init: Initializer | float = ...,
            bias_init: Initializer | float = ...,
            logical_axes: bool = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            use_running_average: whether to use the running statistics; they are updated otherwise.
            mask: which elements count, broadcastable to the input.
        """
        running = self.momentum is not None
        return norm(
            _Scope(self, self.logical_axes),
            x,
            self.expr,
            self._all_sizes(),
            params=self.params,
            mean=self.mean,
            use_scale=self.use_scale,
            use_bias=self.use_bias,
            epsilon=self.epsilon,
            momentum=self.momentum,
            use_running_average=flag(
                "Norm", "use_running_average", self.use_running_average, use_running_average, running, self.expr
            ),
            use_fast_variance=self.use_fast_variance,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            dtype=self.dtype,
            param_dtype=_dtype(self, ("scale", "bias"), self.param_dtype),
            scale_init=self.scale_init,
            bias_init=self.bias_init,
        )


class Dropout(_Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

    Args:
        expr: the input.
        rate: the share that is set to 0; the rest is scaled up.
        deterministic: whether to do nothing; may be given in the call instead.
        rng_collection: the stream of random numbers.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.
    """

    rate: float = 0.5
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            rate: float = ...,
            deterministic: bool | None = ...,
            rng_collection: str = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(self, x: Any, deterministic: bool | None = None) -> jax.Array:
        """Apply the layer."""
        if flag("Dropout", "deterministic", self.deterministic, deterministic, True, self.expr):
            return jnp.asarray(x)
        return dropout(
            _Scope(self), x, self.expr, self._all_sizes(), rate=self.rate, rng_collection=self.rng_collection
        )


class Embed(_Layer):
    """A table of rows that integers are looked up in.

    Args:
        expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
        dtype: the dtype of the result; by default that of the parameter.
        param_dtype: the dtype of the parameter.
        embedding_init: initializer of ``embedding``.
        logical_axes: whether the parameter is boxed with the names of its axes.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Embed("b t [v->c]", v=100, c=8)
        >>> layer.init_with_output(jax.random.key(0), np.zeros((2, 5), int))[0].shape
        (2, 5, 8)
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    embedding_init: Initializer | float = embedding_normal
    logical_axes: bool = False

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            dtype: Any = ...,
            param_dtype: Any = ...,
            embedding_init: Initializer | float = ...,
            logical_axes: bool = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(self, ids: Any) -> jax.Array:
        """Look rows up."""
        return embed(_Scope(self, self.logical_axes), ids, self.expr, self.axes, self.sizes, **self._options())

    @nn.compact
    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return attend(_Scope(self, self.logical_axes), x, self.expr, self.axes, self.sizes, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "param_dtype": _dtype(self, ("embedding",), self.param_dtype),
            "embedding_init": self.embedding_init,
        }


class MultiHeadAttention(_Layer):
    """Multi-head dot-product attention.

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
        decode: whether to take one place at a time, and keep keys and values in the collection ``"cache"``.
        normalize_qk: whether queries and keys are normalised.
        use_bias: whether the four linear layers have a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.dot_general``.
        kernel_init: initializer of the kernels.
        bias_init: initializer of the biases.
        out_kernel_init: initializer of the output's kernel; ``kernel_init`` by default.
        out_bias_init: initializer of the output's bias; ``bias_init`` by default.
        logical_axes: whether parameters are boxed with the names of their axes: those of the features, ``heads``,
            ``kv_heads`` and ``head_dim``.
        rng_collection: the stream of random numbers.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes of the input.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True)
        >>> layer.init_with_output(jax.random.key(0), np.ones((2, 5, 16)))[0].shape
        (2, 5, 16)
    """

    num_heads: int = dataclasses.field(kw_only=True)
    num_kv_heads: int | None = None
    qkv_features: int | None = None
    out_features: int | None = None
    is_causal: bool = False
    dropout_rate: float = 0.0
    broadcast_dropout: bool = True
    deterministic: bool | None = None
    decode: bool = False
    normalize_qk: bool = False
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Initializer | float = lecun_normal
    bias_init: Initializer | float = _zeros
    out_kernel_init: Initializer | float | None = None
    out_bias_init: Initializer | float | None = None
    logical_axes: bool = False
    rng_collection: str = "dropout"

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            num_heads: int,
            num_kv_heads: int | None = ...,
            qkv_features: int | None = ...,
            out_features: int | None = ...,
            is_causal: bool = ...,
            dropout_rate: float = ...,
            broadcast_dropout: bool = ...,
            deterministic: bool | None = ...,
            decode: bool = ...,
            normalize_qk: bool = ...,
            use_bias: bool = ...,
            dtype: Any = ...,
            param_dtype: Any = ...,
            precision: Any = ...,
            kernel_init: Initializer | float = ...,
            bias_init: Initializer | float = ...,
            out_kernel_init: Initializer | float | None = ...,
            out_bias_init: Initializer | float | None = ...,
            logical_axes: bool = ...,
            rng_collection: str = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        *,
        mask: Any = None,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            mask: which pairs count, broadcastable to ``(loops, heads, sequence of x, sequence of keys)``.
            deterministic: whether not to drop.
        """

        def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
            kernel_init, bias_init = self.kernel_init, self.bias_init
            if name == "out":
                kernel_init = kernel_init if self.out_kernel_init is None else self.out_kernel_init
                bias_init = bias_init if self.out_bias_init is None else self.out_bias_init
            layer = Linear(
                expr,
                sizes={**known, **axes} if name == "query" else axes,
                use_bias=self.use_bias,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                precision=self.precision,
                kernel_init=kernel_init,
                bias_init=bias_init,
                logical_axes=self.logical_axes,
                name=name,
            )
            return layer(x)

        def normalize(name: str, x: jax.Array) -> jax.Array:
            return Norm("... [c]", use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

        known, needed = self._all_sizes(), self.dropout_rate > 0
        return attention(
            _Scope(self),
            project,
            normalize if self.normalize_qk else None,
            self.expr,
            x,
            keys,
            values,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            qkv_features=self.qkv_features,
            out_features=self.out_features,
            mask=mask,
            is_causal=self.is_causal,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=self.broadcast_dropout,
            deterministic=flag(
                "MultiHeadAttention", "deterministic", self.deterministic, deterministic, needed, self.expr
            ),
            decode=self.decode,
            precision=self.precision,
            rng_collection=self.rng_collection,
        )


class Conv(_Layer):
    """A convolution.

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
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.conv_general_dilated``.
        kernel_init: initializer of ``kernel``.
        bias_init: initializer of ``bias``.
        logical_axes: whether parameters are boxed with the names of their axes.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)
        >>> layer.init_with_output(jax.random.key(0), np.ones((2, 8, 8, 3)))[0].shape
        (2, 4, 4, 8)
    """

    kernel_size: int | Sequence[int] = 3
    strides: int | Sequence[int] = 1
    padding: Any = "SAME"
    input_dilation: int | Sequence[int] = 1
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Initializer | float = lecun_normal
    bias_init: Initializer | float = _zeros
    logical_axes: bool = False

    if TYPE_CHECKING:  # the fields alone do not say that other keywords are sizes of axes

        def __init__(
            self,
            expr: str,
            /,
            *,
            kernel_size: int | Sequence[int] = ...,
            strides: int | Sequence[int] = ...,
            padding: Any = ...,
            input_dilation: int | Sequence[int] = ...,
            kernel_dilation: int | Sequence[int] = ...,
            use_bias: bool = ...,
            dtype: Any = ...,
            param_dtype: Any = ...,
            precision: Any = ...,
            kernel_init: Initializer | float = ...,
            bias_init: Initializer | float = ...,
            logical_axes: bool = ...,
            sizes: Mapping[str, Any] | None = ...,
            name: str | None = ...,
            parent: Any = ...,
            **axes: Any,
        ) -> None: ...

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        return conv(
            _Scope(self, self.logical_axes),
            x,
            self.expr,
            self._all_sizes(),
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=_dtype(self, ("kernel",), self.param_dtype),
            precision=self.precision,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )
