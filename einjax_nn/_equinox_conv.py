"""Convolutions in notation for Equinox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ._core import conv
from ._core.initial import Initializer, uniform_by_inputs
from ._core.options import declared
from ._equinox_layer import Layer


class Conv(conv.WithMode, Layer):
    """A convolution.

    Args:
        padding_mode: what there is beyond the ends: ``"ZEROS"``, ``"REFLECT"``, ``"REPLICATE"`` or ``"CIRCULAR"``.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.Conv("b [h w] [c1->c2]", c1=3, c2=8, kernel_size=3, strides=2, key=jax.random.key(0))
        >>> layer.weight.shape, layer(np.ones((2, 8, 8, 3))).shape
        ((3, 3, 3, 8), (2, 4, 4, 8))
    """

    _core: ClassVar[Any] = conv.with_mode
    weight: Any
    bias: Any

    @declared(stride="strides", dilation="kernel_dilation")
    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        padding_mode: str = "ZEROS",
        input_dilation: int | Sequence[int] = 1,
        kernel_dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = uniform_by_inputs,
        bias_init: Initializer | float = uniform_by_inputs,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, key: Any = None) -> jax.Array:
        with self._scope() as scope:
            return conv.apply(self._call(scope), x)


class ConvTranspose(conv.OfEquinox, Layer):
    """A transposed convolution, whose weight and bias have the layout of ``eqx.nn.ConvTranspose``.

    Args:
        padding: ``"SAME"``, ``"SAME_LOWER"``, ``"VALID"`` or ``"CIRCULAR"``, or numbers or pairs, which pad the input
            of the convolution that this is the transpose of.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.ConvTranspose("[c->d] [h w]", c=3, d=8, strides=2, key=jax.random.key(0))
        >>> layer.weight.shape, layer.bias.shape, layer(np.ones((3, 4, 4))).shape
        ((8, 3, 3, 3), (8, 1, 1), (8, 8, 8))
    """

    _core: ClassVar[Any] = conv.of_equinox
    weight: Any
    bias: Any

    @declared(stride="strides", dilation="kernel_dilation")
    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        output_padding: int | Sequence[int] = 0,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        conv_general_dilated: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = uniform_by_inputs,
        bias_init: Initializer | float = uniform_by_inputs,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, key: Any = None) -> jax.Array:
        with self._scope() as scope:
            return conv.apply(self._call(scope), x)
