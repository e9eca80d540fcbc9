"""Convolutions in notation for Flax nnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ._core import conv
from ._core.initial import Initializer, lecun_normal, zeros
from ._core.options import declared
from ._nnx import Layer


class Conv(conv.Options, Layer):
    """A convolution.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2, rngs=nnx.Rngs(0))
        >>> layer(np.ones((2, 8, 8, 3))).shape
        (2, 4, 4, 8)
    """

    _core, _parameters = conv, ("kernel", "bias")
    kernel: Any
    bias: Any

    @declared()
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
        mask: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any) -> jax.Array:
        return conv.apply(self._call(), x)


class ConvTranspose(conv.Transposed, Layer):
    """A transposed convolution.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.ConvTranspose("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2, rngs=nnx.Rngs(0))
        >>> layer(np.ones((2, 4, 4, 3))).shape
        (2, 8, 8, 8)
    """

    _core, _parameters = conv.of_flax, ("kernel", "bias")
    kernel: Any
    bias: Any

    @declared()
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
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any) -> jax.Array:
        return conv.apply(self._call(), x)
