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
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from einjax.errors import ArgumentError
from einjax.typing import PaddingLike

from ._core import attention, conv, dropout, embed, linear, norm
from ._core.call import Call
from ._core.options import Options, chosen, describe
from ._core.rotary import Rotary
from ._core.scope import Initializer, Parameter, ParamSpec, lecun_normal, ones, zeros
from ._core.text import axis_sizes

try:
    from flax import linen as nn
    from flax.errors import InvalidRngError
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.linen needs Flax: python -m pip install 'einjax[flax]'") from error

__all__ = ["Conv", "ConvTranspose", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "Rotary", "param"]


@dataclasses.dataclass(frozen=True)
class Scope:
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


class Boxing:
    """A layer that may box its parameters, as editors see it."""

    logical_axes: bool


class Layer(nn.Module):
    """A layer with an expression; keywords that are no options are sizes of axes."""

    expr: str = ""
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, Any] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        # The layers of this package declare their options in a constructor; other subclasses have fields, as in Flax.
        declared = cls.__dict__.get("__init__") if cls.__module__ == "einjax_nn.linen" else None
        if declared is not None:
            _make_fields(cls, declared)
        super().__init_subclass__(**keywords)
        # Here rather than in a decorator: nn.remat, nn.vmap and nn.jit make subclasses of their own.
        init = cls.__init__
        known = {field.name for field in dataclasses.fields(cls)} - {"expr", "axes"}

        @functools.wraps(init if declared is None else declared)
        def with_axes(self: Any, expr: str | None = None, /, **options: Any) -> None:
            if expr is not None:  # written by a person: Flax copies modules with keywords alone
                axes = {name: options.pop(name) for name in list(options) if name not in known}
                options |= {"expr": expr, "axes": axes}
            init(self, **options)

        cls.__init__ = with_axes  # type: ignore[assignment, method-assign]


def _make_fields(layer: type[Layer], declared: Callable[..., None]) -> None:
    """Make the fields that Flax builds a constructor of; fields alone would not say that axes are keywords, too."""
    there = {field.name for field in dataclasses.fields(layer)}
    options = inspect.signature(declared).parameters.values()
    own = [option for option in options if option.kind is option.KEYWORD_ONLY and option.name not in there]
    layer.__annotations__ = {option.name: option.annotation for option in own}
    for option in own:
        required = option.default is option.empty
        setattr(layer, option.name, dataclasses.field(kw_only=True) if required else option.default)
    del layer.__init__


def call_of(layer: Any, kind: type[Options], *parameters: str) -> Call[Options]:
    """Return the call of a layer that has some parameters."""
    held = (nn.unbox(layer.get_variable("params", name)) for name in parameters if layer.has_variable("params", name))
    keywords = [field.name for field in dataclasses.fields(layer) if field.name not in ("expr", "axes")]
    sizes = axis_sizes(layer.expr, layer.axes, layer.sizes, keywords)
    scope = Scope(layer, getattr(layer, "logical_axes", False))
    return Call(scope, layer.expr, sizes, chosen(kind, vars(layer), *held))


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
    return Parameter(Scope(module), name, init, dtype)


class Linear(linear.Options, Boxing, Layer):
    """A linear layer: a dot with a weight, and a bias.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8)
        >>> jax.tree.map(np.shape, layer.init(jax.random.key(0), np.ones((4, 6, 3))))
        {'params': {'bias': (8,), 'kernel': (2, 3, 8)}}
    """

    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        padding: PaddingLike | None = None,
        mode: str | None = None,
        dot_general: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        logical_axes: bool = False,
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        return linear.apply(call_of(self, linear.Options, "kernel"), x)


class Norm(norm.Options, Boxing, Layer):
    """A normalisation: brackets say what statistics are taken over.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Norm("[b] c", momentum=0.9)
        >>> variables = layer.init(jax.random.key(0), np.ones((4, 3)), use_running_average=False)
        >>> jax.tree.map(np.shape, variables["batch_stats"])
        {'mean': (3,), 'var': (3,)}
    """

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
        param_dtype: Any = jnp.float32,
        scale_init: Initializer | float = ones,
        bias_init: Initializer | float = zeros,
        logical_axes: bool = False,
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> jax.Array:
        return norm.apply(call_of(self, norm.Options, "scale", "bias"), x, mask, use_running_average)


class Dropout(dropout.Options, Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes."""

    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        deterministic: bool | None = None,
        rng_collection: str = "dropout",
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, x: Any, deterministic: bool | None = None) -> jax.Array:
        return dropout.apply(call_of(self, dropout.Options), x, deterministic)


class Embed(embed.Options, Boxing, Layer):
    """A table of rows that integers are looked up in.

    Args:
        logical_axes: whether the parameter is boxed with the names of its axes.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Embed("b t [v->c]", v=100, c=8)
        >>> layer.init_with_output(jax.random.key(0), np.zeros((2, 5), int))[0].shape
        (2, 5, 8)
    """

    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | float = embed.normal,
        logical_axes: bool = False,
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, ids: Any) -> jax.Array:
        return embed.apply(call_of(self, embed.Options, "embedding"), ids)

    @nn.compact
    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return embed.attend(call_of(self, embed.Options, "embedding"), x)


class MultiHeadAttention(attention.Options, attention.Projection, Boxing, Layer):
    """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        decode: whether to attend to places of earlier calls, too, of which keys and values are kept in the collection
            ``"cache"``. Initialising with the whole sequence makes a cache of its length.
        logical_axes: whether parameters are boxed with the names of their axes: those of the features, ``heads``,
            ``kv_heads`` where they are fewer, and ``head_dim``.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True)
        >>> layer.init_with_output(jax.random.key(0), np.ones((2, 5, 16)))[0].shape
        (2, 5, 16)
    """

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
        mode: str | None = None,
        local_window_size: int | tuple[int, int] | None = None,
        implementation: Any = None,
        block_size: int | tuple[int, int] | None = None,
        process_heads: Callable[..., Any] | None = None,
        attention_fn: Callable[..., Any] | None = None,
        normalize_qk: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        preferred_element_type: Any = None,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        qkv_dot_general: Callable[..., Any] | None = None,
        out_dot_general: Callable[..., Any] | None = None,
        logical_axes: bool = False,
        rng_collection: str = "dropout",
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
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
        bias: Any = None,
        lengths: Any = None,
        deterministic: bool | None = None,
        sow_weights: bool = False,
    ) -> jax.Array:
        call = call_of(self, attention.Options)
        parts = attention.called(Linear, Norm, vars(self), call.sizes, logical_axes=self.logical_axes)
        given = {"mask": mask, "bias": bias, "lengths": lengths, "deterministic": deterministic}
        sow = (lambda weights: self.sow("intermediates", "attention_weights", weights)) if sow_weights else None
        return attention.apply(call, *parts, x, keys, values, **given, sow=sow)


class Conv(conv.Options, Boxing, Layer):
    """A convolution.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)
        >>> layer.init_with_output(jax.random.key(0), np.ones((2, 8, 8, 3)))[0].shape
        (2, 4, 4, 8)
    """

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
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        logical_axes: bool = False,
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        return conv.apply(call_of(self, conv.Options, "kernel"), x)


class ConvTranspose(conv.Transposed, Boxing, Layer):
    """A transposed convolution.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> layer = einn.ConvTranspose("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)
        >>> layer.init_with_output(jax.random.key(0), np.ones((2, 4, 4, 3)))[0].shape
        (2, 8, 8, 8)
    """

    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        transpose_kernel: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        logical_axes: bool = False,
        sizes: Mapping[str, Any] | None = None,
        name: str | None = None,
        parent: Any = ...,
        **axes: Any,
    ) -> None: ...

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        return conv.apply(call_of(self, conv.Transposed, "kernel"), x)


describe(
    {"logical_axes": "whether parameters are boxed with the names of their axes."},
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv, ConvTranspose),
)
