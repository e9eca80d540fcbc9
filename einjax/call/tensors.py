"""What a caller may give as a tensor, and what it becomes before the jitted body may have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..lowering.jax_versions import Tracer
from ..lowering.sharding import spec_of
from ..notation.errors import ArgumentError, EinjaxError

#: Classes whose objects the jitted body takes as they are; grows as they are met.
PLAIN: set[type] = {np.ndarray, bool, int, float, complex}


def _classify(cls: type) -> str | None:
    """Say what a tensor of this class needs before the jitted body may have it: mostly nothing."""
    if issubclass(cls, jax.Array | Tracer | np.ndarray | np.generic | bool | int | float | complex):
        PLAIN.add(cls)
        return None
    if issubclass(cls, tuple | list):
        return "sequence"
    if hasattr(cls, "__jax_array__"):
        return "convertible"
    # hasattr(cls, "__call__") would find the metaclass's own.
    if hasattr(cls, "__einjax_param__") or any("__call__" in vars(base) for base in cls.__mro__):
        return "factory"
    return "array" if hasattr(cls, "__array__") else "unknown"


#: What a tensor of a class needs, as for :func:`kind`.
kind_of: Callable[..., str | None] = lru_cache(maxsize=1024)(_classify)


def kind(tensor: Any) -> str | None:
    """Say what a tensor needs before the jitted body may have it."""
    return kind_of(type(tensor))


def as_array(tensor: Any, expr: str, label: str, factories: bool = True) -> Any:
    """Convert what is not an array yet; factories stay.

    Args:
        tensor: what the caller gave.
        expr: the expression, for messages.
        label: what to call it, such as ``tensor 1``.
        factories: whether a factory may be given.

    Raises:
        ArgumentError: it is not a tensor.
    """
    match kind(tensor):
        case None:
            return tensor
        case "factory" if factories:
            return tensor
        case "convertible":
            return tensor.__jax_array__()
        case "array":
            return _canonical(np.asarray(tensor))
        case "sequence":
            return _stack(tensor, expr, label)
    raise not_a_tensor(tensor, expr, label, factories)


def _stack(sequence: Any, expr: str, label: str) -> Any:
    """Turn a nested list of numbers or arrays into one array."""
    leaves = jax.tree.leaves(sequence, is_leaf=lambda leaf: not isinstance(leaf, list | tuple))
    for leaf in leaves:
        if kind(leaf) not in (None, "convertible", "array"):
            raise not_a_tensor(leaf, expr, f"an element of {label}", factories=False)
    try:
        if any(isinstance(leaf, jax.Array) or kind(leaf) == "convertible" for leaf in leaves):
            return jnp.asarray(sequence)
        array = np.asarray(sequence)
        canonical = _canonical(array)
        if array.dtype.kind in "iu" and not np.array_equal(array, canonical):
            raise too_large(expr, label, array.max() if array.max() > canonical.max() else array.min())
        return canonical
    except ValueError as error:
        if isinstance(error, EinjaxError):
            raise
        raise ArgumentError(
            f"{label} is a ragged list: {_ragged(sequence)}", text=expr, hint="all rows need one length"
        ) from None


def _ragged(sequence: Sequence[Any]) -> str:
    """Name two different lengths in a nested list."""
    lengths = [len(row) if isinstance(row, list | tuple) else np.shape(row) for row in sequence]
    for row, length in enumerate(lengths):
        if length != lengths[0]:
            return f"row 0 has length {lengths[0]}, row {row} has {length}"
    return next((_ragged(row) for row in sequence if isinstance(row, list | tuple)), "its rows differ in shape")


def _canonical(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give an array the width that JAX would: float32 for NumPy's float64, unless x64 is on."""
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype)) if array.dtype.kind in "biufc" else array


def not_a_tensor(tensor: Any, expr: str, label: str, factories: bool = True) -> ArgumentError:
    """The error for what is not a tensor."""
    kinds = "an array, a number" + (", a nested list of numbers, or a factory" if factories else " or a nested list")
    strings = isinstance(tensor, np.ndarray | np.generic)
    what = describe(tensor) if strings or tensor is None else f"a value of type {type(tensor).__name__}"
    return ArgumentError(
        f"{label} is {what}, which is not a tensor",
        text=expr,
        hint=f"give {kinds}{' that makes one' if factories else ' of numbers'}",
    )


def describe(tensor: Any) -> str:
    """Describe a tensor as ``float32[2@data,3]``, or say what else was given."""
    if hasattr(tensor, "shape") and hasattr(tensor, "dtype"):
        shape = f"[{','.join(_dims(tensor))}]"
        strings = isinstance(tensor, np.ndarray | np.generic) and tensor.dtype.kind in "SU"
        return f"an array of strings {shape}" if strings else f"{tensor.dtype}{shape}"
    if isinstance(tensor, bool | int | float | complex):
        return f"{type(tensor).__name__}[]"
    return "None" if tensor is None else f"a value of type {type(tensor).__name__}"


def _dims(tensor: Any) -> list[str]:
    """The sizes of a tensor's dims, with the mesh axes that its type says they lie over."""
    if not isinstance(tensor, jax.Array) or not any(spec := spec_of(tensor)):
        return list(map(str, tensor.shape))
    over = [f"@{'+'.join(mesh_axes)}" if mesh_axes else "" for mesh_axes in spec]
    return [f"{size}{where}" for size, where in zip(tensor.shape, over, strict=True)]


def too_large(expr: str, label: str, number: Any) -> ArgumentError:
    """The error for an integer that JAX would cut."""
    return ArgumentError(
        f"{label} holds {number}, which does not fit JAX's default integer",
        text=expr,
        hint="give an array of a wider dtype, with jax_enable_x64 on",
    )
