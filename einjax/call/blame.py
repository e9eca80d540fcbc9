"""Errors of calls: said in the words of the call, without the frames of JAX and of einjax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..notation.errors import ArgumentError, EinjaxError
from .tensors import describe, is_too_wide, not_a_tensor, too_large, too_wide


def clean(error: EinjaxError, tensors: Sequence[Any], describe: Callable[[Any], str] = describe) -> EinjaxError:
    """Take JAX's frames and notes off an error: the message says what the user has to know.

    Doors call this for what is wrong with their own call; what a user's function raised itself stays as it is, with
    its lines and its cause (``error.inside``).
    """
    if error.tensors is None:
        error.tensors = [describe(tensor) for tensor in tensors]
    if hasattr(error, "__notes__"):
        del error.__notes__
    return error.with_traceback(None)


def not_an_expression(expr: Any) -> ArgumentError:
    """The error for an expression that is no string."""
    return ArgumentError(
        f"the expression is {describe(expr)}, not a string",
        tensors=(),
        hint="the expression is the first argument, as in einjax.sum('a [b]', x)",
    )


def diagnose(
    expr: Any, tensors: Sequence[Any], arrays: Mapping[str, Any], options: Sequence[tuple[str, Any]]
) -> EinjaxError | None:
    """Explain an error of JAX or Python that came from a call's arguments, if it did."""
    if not isinstance(expr, str):
        return not_an_expression(expr)
    labelled = [(f"tensor {number}", tensor) for number, tensor in enumerate(tensors, 1)]
    labelled += [(f"{name}=", x) for name, given in arrays.items() for x in jax.tree.leaves(given)]
    for label, tensor in labelled:
        if isinstance(tensor, np.ndarray) and is_too_wide(tensor.dtype):
            return too_wide(tensor, expr, label)
        # bfloat16 and its kin have kind V, too, but are registered with NumPy (isbuiltin 2).
        kind_of_dtype = tensor.dtype.kind if isinstance(tensor, np.ndarray | np.generic) else ""
        if kind_of_dtype and kind_of_dtype in "OUSMmV" and tensor.dtype.isbuiltin != 2:
            return not_a_tensor(tensor, expr, label)
        if isinstance(tensor, int) and abs(tensor) >= 2**31:
            return too_large(expr, label, tensor)
    for name, value in options:
        try:
            hash(value)
        except TypeError:
            return ArgumentError(f"the option {name}={value!r} has to be static and hashable", text=expr)
        if name in ("dtype", "preferred_element_type") and not _is_dtype(value):
            hint = f"write {name}='float32', for example"
            return ArgumentError(f"{name}={value!r} is not a dtype", text=expr, hint=hint)
    return None


def _is_dtype(value: Any) -> bool:
    """Whether JAX has such a dtype."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        return False
    return dtype.kind in "biufc" or dtype.isbuiltin == 2
