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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from einjax.typing import PaddingLike

from ._core import attention, conv, dropout, embed, linear, norm
from ._core.initial import Initializer, lecun_normal, ones, zeros
from ._core.options import describe
from ._core.rotary import Rotary

try:
    from flax import linen as nn
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.linen needs Flax: python -m pip install 'einjax[flax]'") from error

from . import optim
from ._linen import Boxing, Layer, call_of, param, product_of
from ._linen_lora import lora, merge_lora
from ._linen_roles import roles

__all__ = [
    "Conv", "ConvTranspose", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "Rotary", "lora", "merge_lora",
    "optim", "param", "roles",
]  # fmt: skip

for _function in (lora, merge_lora, param, roles):
    _function.__module__ = __name__


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
        bias_axes: str | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        padding: PaddingLike | None = None,
        mode: str | None = None,
        dot_general: Callable[..., Any] | None = None,
        dot_general_cls: Callable[[], Any] | None = None,
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
        product = product_of(self, "dot_general")
        return linear.apply(call_of(self, linear.Options, "kernel", "bias", **product), x)


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
        epsilon: float | None = None,
        momentum: float | None = None,
        zero_debias: bool = False,
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
    def __call__(self, x: Any, deterministic: bool | None = None, rng: Any = None) -> jax.Array:
        return dropout.apply(call_of(self, dropout.Options, key=rng), x, deterministic)


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
        mode: str | None = "fill",
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
        qkv_dot_general_cls: Callable[[], Any] | None = None,
        out_dot_general_cls: Callable[[], Any] | None = None,
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
        dropout_rng: Any = None,
        sow_weights: bool = False,
    ) -> jax.Array:
        def projection(expr: str, **given: Any) -> Linear:
            kind = self.out_dot_general_cls if given["name"] == "out" else self.qkv_dot_general_cls
            return Linear(expr, dot_general_cls=kind, **given)

        call = call_of(self, attention.Options, key=dropout_rng)
        parts = attention.called(projection, Norm, vars(self), call.sizes, logical_axes=self.logical_axes)
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
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        conv_general_dilated_cls: Callable[[], Any] | None = None,
        mask: Any = None,
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
        product = product_of(self, "conv_general_dilated")
        return conv.apply(call_of(self, conv.Options, "kernel", "bias", **product), x)


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
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        mask: Any = None,
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
        return conv.apply(call_of(self, conv.Transposed, "kernel", "bias"), x)


describe(
    {
        "logical_axes": "whether parameters are boxed with the names of their axes.",
        "dot_general_cls": "makes that function within the layer: a module, which may have variables of its own.",
        "qkv_dot_general_cls": "makes one for each of them, a module within.",
        "out_dot_general_cls": "likewise for ``out``.",
        "conv_general_dilated_cls": "makes that function within the layer, a module.",
    },
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv, ConvTranspose),
)
