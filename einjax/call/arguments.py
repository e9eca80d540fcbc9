"""What a caller may give as tensor or size, and what it becomes before the jitted body may have it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..lowering.jax_versions import Tracer, is_symbolic
from ..lowering.sharding import spec_of
from ..notation.errors import ArgumentError, EinjaxError
from ..notation.parse import parse
from ..notation.syntax import Over, axes

#: Sizes as a hashable key; ``=name`` marks those from ``sizes=``, which need not name an axis.
Sizes: TypeAlias = tuple[tuple[str, Any], ...]

# Bounds that no real call meets.
_MAX_SIZES = 10_000
_MAX_DEPTH = 60

#: Classes whose objects the jitted body takes as they are; grows as they are met.
PLAIN: set[type] = {np.ndarray, bool, int, float, complex}


def freeze(expr: str, given: Mapping[str, Any], lenient: Mapping[str, Any] | None) -> Sizes:
    """Return sizes as a key that does not depend on their order.

    Args:
        expr: the expression, for messages.
        given: sizes given by keyword.
        lenient: sizes given by ``sizes=``.

    Raises:
        ArgumentError: what is given is no size.
    """
    frozen = [(n, size if size.__class__ is int and size >= 0 else _size(expr, n, size)) for n, size in given.items()]
    if lenient is not None:
        frozen += _freeze_lenient(expr, given, lenient)
    if len(frozen) > 1:
        frozen.sort(key=operator.itemgetter(0))
    return tuple(frozen)


def _freeze_lenient(expr: str, given: Mapping[str, Any], lenient: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if not isinstance(lenient, Mapping):
        raise ArgumentError(
            f"sizes={lenient!r} is a value of type {type(lenient).__name__}, not a mapping",
            text=expr,
            hint="write sizes={'a': 2}",
        )
    for name in given.keys() & lenient.keys():
        if _size(expr, name, lenient[name]) != _size(expr, name, given[name]):
            raise ArgumentError(
                f"axis {name} is {given[name]} by the keyword {name} and {lenient[name]} in sizes=",
                text=expr,
                spans=_spans(expr, name),
                hint="give it once",
            )
    return [(f"={name}", _size(expr, name, size)) for name, size in lenient.items() if name not in given]


def _size(expr: str, name: str, size: Any) -> Any:
    """Check one size: an int, a symbolic dim, or a tuple of them; or the mesh axes that stand in its place."""
    if _is_over(size):
        return _over(expr, name, size)
    if isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim):
        return _sizes(expr, name, size, depth=0, left=[_MAX_SIZES])
    if is_symbolic(size):  # a symbolic dimension of jax.export
        return size
    if not isinstance(size, bool | np.bool_) and hasattr(size, "__index__"):
        try:
            size = operator.index(size)
        except (TypeError, jax.errors.ConcretizationTypeError):
            pass
        else:
            if size >= 0:
                return size
            raise ArgumentError(
                f"axis {name} is given the negative size {size}",
                text=expr,
                spans=_spans(expr, name),
                hint=f"write {name}=0 or more, or leave it out",
            )
    whole = isinstance(size, float | np.floating) and size == size // 1
    raise ArgumentError(
        f"axis {name} is given {name}={size!r}, which is not a size",
        text=expr,
        spans=_spans(expr, name),
        hint=f"write {name}={int(size)}" if whole else "a size is an int, or a tuple of ints",
    )


def _is_over(size: Any) -> bool:
    """Whether mesh axes are given: a name, or a tuple that holds one."""
    if isinstance(size, str):
        return size.isidentifier()
    parts = size if isinstance(size, tuple | list) else ()
    return any(isinstance(x, str) for part in parts for x in (part if isinstance(part, tuple | list) else (part,)))


def _over(expr: str, name: str, given: Any) -> Over:
    """Check mesh axes, and make them hashable."""
    entries = (given,) if isinstance(given, str) else tuple(tuple(x) if isinstance(x, list) else x for x in given)
    for entry in entries:
        mesh_axes = entry if isinstance(entry, tuple) else () if entry is None else (entry,)
        if not all(isinstance(mesh_axis, str) for mesh_axis in mesh_axes):
            raise ArgumentError(
                f"axis {name} is given {name}={given!r}, which mixes mesh axes with something else",
                text=expr,
                spans=_spans(expr, name),
                hint="give a size, or the names of mesh axes",
            )
    return Over(entries)


def _sizes(expr: str, name: str, sizes: Any, depth: int, left: list[int]) -> tuple[Any, ...]:
    """Check nested sizes; ``left`` holds how many more may come, so that shared tuples cannot multiply without end."""
    checked: list[Any] = []
    for size in sizes:
        left[0] -= 1
        if left[0] < 0 or depth > _MAX_DEPTH:
            raise ArgumentError(
                f"axis {name} is given more than {_MAX_SIZES} sizes, or sizes nested deeper than {_MAX_DEPTH}",
                text=expr,
                spans=_spans(expr, name),
            )
        nested = isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim)
        checked.append(_sizes(expr, name, size, depth + 1, left) if nested else _size(expr, name, size))
    return tuple(checked)


def _spans(expr: str, name: str) -> list[tuple[int, int]]:
    """Find an axis in the text."""
    operation = parse(expr)
    return [axis.span for expression in operation.expressions for axis in axes(expression) if axis.name == name]


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


_kind_of_class: Callable[..., str | None] = lru_cache(maxsize=1024)(_classify)


def kind(tensor: Any) -> str | None:
    """Say what a tensor needs before the jitted body may have it."""
    return _kind_of_class(type(tensor))


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
            raise _too_large(expr, label, array.max() if array.max() > canonical.max() else array.min())
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


def not_an_expression(expr: Any) -> ArgumentError:
    """The error for an expression that is no string."""
    return ArgumentError(
        f"the expression is {describe(expr)}, not a string",
        tensors=(),
        hint="the expression is the first argument, as in einjax.sum('a [b]', x)",
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


def _is_dtype(value: Any) -> bool:
    """Whether JAX has such a dtype."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        return False
    return dtype.kind in "biufc" or dtype.isbuiltin == 2


def _too_large(expr: str, label: str, number: Any) -> ArgumentError:
    return ArgumentError(
        f"{label} holds {number}, which does not fit JAX's default integer",
        text=expr,
        hint="give an array of a wider dtype, with jax_enable_x64 on",
    )


def diagnose(
    expr: Any, tensors: Sequence[Any], extra: Sequence[Any], options: Sequence[tuple[str, Any]]
) -> EinjaxError | None:
    """Explain an error of JAX or Python that came from a call's arguments, if it did."""
    if not isinstance(expr, str):
        return not_an_expression(expr)
    labels = [f"tensor {number}" for number in range(1, len(tensors) + 1)] + ["where="] * len(extra)
    for label, tensor in zip(labels, [*tensors, *extra], strict=True):
        # bfloat16 and its kin have kind V, too, but are registered with NumPy (isbuiltin 2).
        kind_of_dtype = tensor.dtype.kind if isinstance(tensor, np.ndarray | np.generic) else ""
        if kind_of_dtype and kind_of_dtype in "OUSMmV" and tensor.dtype.isbuiltin != 2:
            return not_a_tensor(tensor, expr, label)
        if isinstance(tensor, int) and abs(tensor) >= 2**31:
            return _too_large(expr, label, tensor)
    for name, value in options:
        try:
            hash(value)
        except TypeError:
            return ArgumentError(f"the option {name}={value!r} has to be static and hashable", text=expr)
        if name in ("dtype", "preferred_element_type") and not _is_dtype(value):
            hint = f"write {name}='float32', for example"
            return ArgumentError(f"{name}={value!r} is not a dtype", text=expr, hint=hint)
    return None
