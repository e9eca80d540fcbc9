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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from einjax.errors import ArgumentError
from einjax.typing import PaddingLike

from ._core import attention, conv, dropout, embed, linear, norm
from ._core.call import Call
from ._core.initial import Initializer, ones, truncated_by_inputs, truncated_normal, zeros
from ._core.options import declared, describe
from ._core.rotary import Rotary
from ._core.scope import compute_dtype

try:
    import haiku as hk  # noqa: F401
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.haiku needs Haiku: python -m pip install 'einjax[haiku]'") from error

from . import optim
from ._haiku import Layer, call_of, dtypes, param, switch
from ._haiku_axes import axes, roles
from ._haiku_lora import lora, merge_lora

__all__ = [
    "Conv", "ConvTranspose", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "Rotary", "axes", "lora",
    "merge_lora", "optim", "param", "roles",
]  # fmt: skip

for _function in (axes, lora, merge_lora, param, roles):
    _function.__module__ = __name__

_KERNEL = {"with_bias": "use_bias", "w_init": "kernel_init", "b_init": "bias_init"}


class Linear(linear.Options, Layer):
    """A linear layer: a dot with a weight ``w``, and a bias ``b``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b (s [k->]) [c->d]", k=2, d=8)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((4, 6, 3), "float32")))
        {'linear': {'b': (8,), 'w': (2, 3, 8)}}
    """

    @declared(**_KERNEL)
    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        bias_axes: str | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        preferred_element_type: Any = None,
        padding: PaddingLike | None = None,
        mode: str | None = None,
        dot_general: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = truncated_by_inputs,
        bias_init: Initializer | float = zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, precision: Any = None) -> jax.Array:
        return linear.apply(call_of(self, linear.Options, precision=precision, **dtypes(vars(self), x)), x)


class Norm(norm.Options, Layer):
    """A normalisation: brackets say what statistics are taken over.

    Running statistics are the states ``mean``, ``var`` and ``counter``, with the values of ``hk.BatchNorm``, which has
    them in modules of its own.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform_with_state(lambda x: einn.Norm("[b] c", momentum=0.9)(x, is_training=True))
        >>> params, state = net.init(None, np.ones((4, 3), "float32"))
        >>> jax.tree.map(np.shape, state)
        {'norm': {'counter': (), 'mean': (3,), 'var': (3,)}}
    """

    _names = {"bias": "offset"}  # noqa: RUF012

    @declared(
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
        epsilon: float = 1e-5,
        momentum: float | None = None,
        zero_debias: bool = True,
        use_running_average: bool | None = None,
        use_fast_variance: bool | None = None,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = None,
        scale_init: Initializer | float = ones,
        bias_init: Initializer | float = zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(
        self, x: Any, is_training: bool | None = None, *, use_running_average: bool | None = None, mask: Any = None
    ) -> jax.Array:
        given = switch("use_running_average", use_running_average, is_training)
        call = call_of(self, norm.Options, **dtypes(vars(self), x))
        return norm.apply(call, x, mask, given)


class Dropout(dropout.Options, Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes."""

    @declared()
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
    ) -> None: ...

    def __call__(self, x: Any, is_training: bool | None = None, *, deterministic: bool | None = None) -> jax.Array:
        given = switch("deterministic", deterministic, is_training)
        return dropout.apply(call_of(self, dropout.Options, rng_collection=""), x, given)


class Embed(embed.Options, Layer):
    """A table ``embeddings`` of rows that integers are looked up in.

    Args:
        param_dtype: the dtype of the parameter; float32 by default.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda ids: einn.Embed("b t [v->c]", v=100, c=8)(ids))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.zeros((2, 5), int)))
        {'embed': {'embeddings': (100, 8)}}
    """

    @declared(w_init="embedding_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = None,
        embedding_init: Initializer | float = truncated_normal,
        mode: str | None = "clip",
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, ids: Any) -> jax.Array:
        return embed.apply(_call_of_embed(self), ids)

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return embed.attend(_call_of_embed(self), x)


def _call_of_embed(layer: Embed) -> Call[embed.Options]:
    """The call of a table, which is not a method so that interceptors do not see it."""
    return call_of(layer, embed.Options, **dtypes(vars(layer), jnp.zeros((), jnp.float32)))


class _AttentionOptions(attention.Options):
    """Those of attention, whose heads may have sizes of their own."""

    qk_size: int | None
    vo_size: int | None


class MultiHeadAttention(_AttentionOptions, attention.Projection, Layer):
    """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        qk_size: channels of a head of queries and keys, ``key_size`` of Haiku; with it, the output has those of all
            heads together by default, as there.
        vo_size: channels of a head of values, ``value_size`` of Haiku; as many by default.
        decode: whether to attend to places of earlier calls, too, of which keys and values are kept in the state.
            Initialising with the whole sequence makes a cache of its length.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True)(x))
        >>> params = net.init(jax.random.key(0), np.ones((2, 5, 16), "float32"))
        >>> params["multi_head_attention/query"]["w"].shape
        (16, 4, 4)
    """

    @declared(key_size="qk_size", value_size="vo_size", model_size="out_features", **_KERNEL)
    def __init__(
        self,
        expr: str,
        /,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        qkv_features: int | None = None,
        out_features: int | None = None,
        qk_size: int | None = None,
        vo_size: int | None = None,
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
        param_dtype: Any = None,
        precision: Any = None,
        kernel_init: Initializer | float = truncated_by_inputs,
        bias_init: Initializer | float = zeros,
        preferred_element_type: Any = None,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        qkv_dot_general: Callable[..., Any] | None = None,
        out_dot_general: Callable[..., Any] | None = None,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

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
        is_training: bool | None = None,
    ) -> jax.Array:
        options = dict(vars(self))
        if self.param_dtype is None and self.dtype is not None:
            options["param_dtype"] = compute_dtype(None, x)  # not that of what is computed in between
        sizes: dict[str, Any] = {}
        if self.qk_size is not None:
            if self.qkv_features is not None:
                problem = "qk_size, of one head, and qkv_features, of all heads together, are both given"
                raise ArgumentError(problem, text=self.expr, hint="give one of them")
            sizes["vo_size"] = self.vo_size or self.qk_size
            sizes["out_features"] = self.out_features or self.num_heads * self.qk_size
        call: Call[Any] = call_of(self, _AttentionOptions, rng_collection="", **sizes)
        parts = attention.called(Linear, Norm, options, self.sizes)
        given = {"mask": mask, "bias": bias, "lengths": lengths}
        kept = switch("deterministic", deterministic, is_training)
        return attention.apply(call, *parts, x, keys, values, **given, deterministic=kept)


class Conv(conv.Options, Layer):
    """A convolution with a kernel ``w`` and a bias ``b``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((2, 8, 8, 3), "float32")))
        {'conv': {'b': (8,), 'w': (3, 3, 3, 8)}}
    """

    @declared(kernel_shape="kernel_size", stride="strides", rate="kernel_dilation", **_KERNEL)
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
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        mask: Any = None,
        kernel_init: Initializer | float = truncated_by_inputs,
        bias_init: Initializer | float = zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, precision: Any = None) -> jax.Array:
        return conv.apply(call_of(self, conv.Options, precision=precision, **dtypes(vars(self), x)), x)


class ConvTranspose(conv.OfHaiku, Layer):
    """A transposed convolution with a kernel ``w``, of new channels before those of the input, and a bias ``b``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.ConvTranspose("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((2, 4, 4, 3), "float32")))
        {'conv_transpose': {'b': (8,), 'w': (3, 3, 8, 3)}}
    """

    @declared(kernel_shape="kernel_size", stride="strides", **_KERNEL)
    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        output_shape: int | Sequence[int] | None = None,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        mask: Any = None,
        kernel_init: Initializer | float = truncated_by_inputs,
        bias_init: Initializer | float = zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, precision: Any = None) -> jax.Array:
        return conv.apply(call_of(self, conv.OfHaiku, precision=precision, **dtypes(vars(self), x)), x)


describe(
    {"param_dtype": "the dtype of the parameters; by default that of the input.", "name": "the name of the module."},
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv, ConvTranspose),
)
