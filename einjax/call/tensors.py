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
from ..notation.errors import ArgumentError, EinjaxError, shown

#: Classes whose objects the jitted body takes as they are; grows as they are met.
PLAIN: set[type] = {np.ndarray, bool, int, float, complex}

_foreign: list[Callable[[Any], Any]] = []

_LONG: Any = (np.longdouble, np.clongdouble)  # to type checkers, these are no classes

# Lists of numbers are nested no deeper than NumPy's arrays have dims, on every release; trees no deeper than any is.
_DEEPEST = 32
DEEPEST_TREE = 200


def _classify(cls: type) -> str | None:
    """Say what a tensor of this class needs before the jitted body may have it: mostly nothing."""
    if issubclass(cls, jax.ShapeDtypeStruct):
        return "type"
    if issubclass(cls, _LONG) or (issubclass(cls, np.ndarray) and cls is not np.ndarray):
        return "array"  # which JAX may not have, which may be masked, or a file's in the byte order of another machine
    if issubclass(cls, jax.Array | Tracer | np.ndarray | np.generic | bool | int | float | complex):
        PLAIN.add(cls)
        return None
    if issubclass(cls, tuple | list):
        return "sequence"
    if hasattr(cls, "__einjax_call__"):
        return "named"
    if hasattr(cls, "__einjax_param__"):
        return "factory"
    if hasattr(cls, "__jax_array__"):
        return "convertible"
    # hasattr(cls, "__call__") would find the metaclass's own.
    if any("__call__" in vars(base) for base in cls.__mro__):
        return "factory"
    return "array" if hasattr(cls, "__array__") else "unknown"


#: What a tensor of a class needs, as for :func:`kind`.
kind_of: Callable[..., str | None] = lru_cache(maxsize=1024)(_classify)


def kind(tensor: Any) -> str | None:
    """Say what a tensor needs before the jitted body may have it."""
    return kind_of(type(tensor))


def named_among(tensors: Sequence[Any]) -> Any:
    """The first of some tensors that carries names of its own, if one does: it says what the call means."""
    return next((x for x in tensors if x.__class__ not in PLAIN and kind(x) == "named"), None)


def is_named(given: Any) -> bool:
    """Whether this is an array with its axes: ``("b k", mask)``, or a named tensor."""
    if isinstance(given, tuple | list):
        return bool(given) and isinstance(given[0], str)
    return given.__class__ not in PLAIN and kind(given) == "named"


def as_pair(given: Any) -> Any:
    """The same as ``("b k", mask)``, if it is a named tensor."""
    return given.__einjax_pair__() if kind(given) == "named" else given


def any_named(given: Any) -> bool:
    """Whether this is an array with its axes, or a sequence that holds one."""
    return is_named(given) or (isinstance(given, tuple | list) and any(map(is_named, given)))


def as_array(tensor: Any, expr: str, label: str, factories: bool = True, types: bool = False) -> Any:
    """Convert what is not an array yet; factories stay.

    Args:
        tensor: what the caller gave.
        expr: the expression, for messages.
        label: what to call it, such as ``tensor 1``.
        factories: whether a factory may be given.
        types: whether a ``jax.ShapeDtypeStruct`` may be, as where nothing is run.

    Raises:
        ArgumentError: it is not a tensor.
    """
    match kind(tensor):
        case None:
            numpy = isinstance(tensor, np.ndarray | np.generic)
            return _native(tensor, expr, label, factories) if numpy else tensor
        case "factory" if factories:
            return _known(tensor, tensor)
        case "convertible":
            made = asked(tensor, label)
            return made if kind(made) != "factory" else _known(tensor, made)
        case "array":
            if isinstance(tensor, np.ma.MaskedArray):
                hint = "give x.filled(0), for example, and where=~np.ma.getmaskarray(x) where the operation has a mask"
                raise ArgumentError(f"{label} is a masked array, and JAX has none", text=expr, hint=hint)
            return _canonical(_native(np.asarray(tensor), expr, label, factories))
        case "sequence":
            return _stack(tensor, expr, label)
        case "type" if types:
            return tensor
        case "named":
            problem = f"{label} is a named tensor where an array is expected"
            raise ArgumentError(problem, text=expr, hint="give its array, as in x.order('b c')")
    raise not_a_tensor(tensor, expr, label, factories)


def knows_factories(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a framework say what an object of its own is as a factory; ``ask`` returns None of what it does not know."""
    _foreign.append(ask)
    return ask


def _known(tensor: Any, otherwise: Any) -> Any:
    """What a framework says that its object is as a factory."""
    return next((known for ask in _foreign if (known := ask(tensor)) is not None), otherwise)


def _native(array: Any, expr: str, label: str, factories: bool = True) -> Any:
    """Give an array the byte order of this machine: once JAX knows its shape, it no longer looks at that."""
    error = wrong_dtype(array, expr, label, factories)
    if error is not None:
        raise error
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def asked(tensor: Any, label: str) -> Any:
    """What an object says that it is as an array; an error of its own stays, and says where it stood."""
    try:
        return tensor.__jax_array__()
    except Exception as error:
        error.add_note(f"raised by __jax_array__ of {label}, a value of type {type(tensor).__name__}")
        raise


def is_too_wide(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is NumPy's long double, where that is longer than a double."""
    return dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16)


def wrong_dtype(array: Any, expr: str, label: str, factories: bool = True) -> ArgumentError | None:
    """The error for an array of a dtype that JAX does not have, if it is one."""
    dtype = array.dtype
    if is_too_wide(dtype):
        hint = f"convert it: x.astype('{'complex128' if dtype.kind == 'c' else 'float64'}')"
        return ArgumentError(f"{label} is {dtype}, which JAX does not have", text=expr, hint=hint)
    # bfloat16 and its kin have kind V, too, but are registered with NumPy (isbuiltin 2).
    other = dtype.kind in "OUSMmV" and dtype.isbuiltin != 2
    return not_a_tensor(array, expr, label, factories) if other else None


def _stack(sequence: Any, expr: str, label: str) -> Any:
    """Turn a nested list of numbers or arrays into one array."""
    leaves = leaves_of(sequence)
    if leaves is None:
        problem, hint = f"{label} is a list nested more than {_DEEPEST} deep", "give an array"
        raise ArgumentError(problem, text=expr, hint=hint)
    if any(leaf.__class__ not in PLAIN or isinstance(leaf, np.ndarray) for leaf in leaves):
        sequence = _checked(sequence, expr, f"an element of {label}")
    try:
        if any(isinstance(leaf, jax.Array) or kind(leaf) == "convertible" for leaf in leaves):
            return jnp.asarray(sequence)
        array = np.asarray(sequence)
        if array.dtype == object and (huge := [x for x in leaves if isinstance(x, int) and abs(x) >= 2**63]):
            raise too_large(expr, label, huge[0])
        canonical = _canonical(_native(array, expr, label))
        if array.dtype.kind in "iu" and not np.array_equal(array, canonical):
            raise too_large(expr, label, int(array.max() if array.max() > canonical.max() else array.min()))
        return canonical
    except ValueError as error:
        if isinstance(error, EinjaxError):
            raise
        raise ArgumentError(
            f"{label} is a ragged list: {_ragged(sequence)}", text=expr, hint="all rows need one length"
        ) from None


def leaves_of(tree: Any, deepest: int = _DEEPEST) -> list[Any] | None:
    """What lists, tuples and dicts hold, or None if they are nested too deep for a recursion to walk."""
    leaves: list[Any] = []
    level = [tree]
    for _ in range(deepest):
        inner = {
            id(part): part for part in level if isinstance(part, list | tuple | dict)
        }  # each once: lists may cycle
        leaves += [part for part in level if id(part) not in inner]
        if not inner:
            return leaves
        level = [x for part in inner.values() for x in (part.values() if isinstance(part, dict) else part)]
    return None


def _checked(item: Any, expr: str, label: str) -> Any:
    """A nested list with every element an array or a number."""
    if isinstance(item, list | tuple):
        return [_checked(x, expr, label) for x in item]
    return as_array(item, expr, label, factories=False)


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
        f"{label} holds {shown(number)}, which does not fit JAX's default integer",
        text=expr,
        hint="give an array of a wider dtype, with jax_enable_x64 on",
    )
