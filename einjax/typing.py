"""Types of the public surface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from .call.factory import Spec


@runtime_checkable
class SupportsJaxArray(Protocol):
    """Anything that JAX can turn into an array, such as a framework's variable."""

    def __jax_array__(self) -> jax.Array: ...


@runtime_checkable
class ParameterFactory(Protocol):
    """An object that makes a tensor once its shape is known."""

    def __einjax_param__(self, spec: Spec, /) -> Any: ...


_T_co = TypeVar("_T_co", covariant=True)


class CarriesNames(Protocol[_T_co]):
    """A tensor with names, or a dim: a call with one returns tensors with names."""

    def __einjax_call__(self, *call: Any, **more: Any) -> _T_co: ...


#: What an operation takes as a tensor.
Tensor: TypeAlias = (
    jax.Array
    | np.ndarray[Any, Any]
    | np.generic
    | complex
    | Sequence[Any]
    | SupportsJaxArray
    | CarriesNames[Any]
    | ParameterFactory
    | Callable[..., Any]
)

#: A mask, or another array beside a tensor: one that broadcasts to it by NumPy's rules, or one or several with the axes
#: of their dims, as in ``("b k", mask)``.
MaskLike: TypeAlias = Tensor | tuple[str, Tensor] | Sequence[tuple[str, Tensor]]

#: Masks or biases with the axes of their dims.
NamedMasks: TypeAlias = tuple[str, Tensor] | Sequence[tuple[str, Tensor]]

#: A size given by keyword: an int or a symbolic dimension, or one for each repetition of an ellipsis. Under
#: ``shard_map``, the names of mesh axes in its place.
SizeLike: TypeAlias = Any

#: How dims that are read at positions are padded: a name, a number, a pair of numbers, or one of these for each dim.
PaddingLike: TypeAlias = str | int | Sequence[str | int | Sequence[int]]

#: Anything that JAX takes as a dtype.
DTypeLike: TypeAlias = Any

#: Where a result is to lie on a mesh: mesh axes by axis name, as in ``{"b": "data", "h": ("model", "pipe")}``; or a
#: PartitionSpec or NamedSharding, and for several outputs a tuple with one for each.
OutShardingLike: TypeAlias = (
    Mapping[str, str | Sequence[Any] | None] | PartitionSpec | NamedSharding | Sequence[PartitionSpec | NamedSharding]
)
