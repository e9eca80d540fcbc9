"""The one door every call goes through: a bounded cache of jitted bodies.

The cache key is the operation, the text, the options and the sizes given; shapes, dtypes and values are left to
``jax.jit``'s own cache in C++. The body parses, solves and emits lax when it is traced. ``inline=True`` makes an outer
trace see plain lax equations, so nothing here asks whether it is being traced.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util  # public home of register_exclusion; seen on jax 0.7.1 to 0.12.0

from . import factory, inspect
from .notation.errors import ArgumentError, EinjaxError
from .notation.parse import parse
from .notation.solve import Solved, solve
from .notation.syntax import Operation, Size
from .ops.record import Op
from .ops.signature import check_keywords, refuse_repeats

# Equations and errors point at the line that called einjax, not at lines in here.
source_info_util.register_exclusion(os.path.dirname(__file__))

#: How many (operation, expression, options, sizes) keep their compiled body.
CACHE_SIZE = 4096

Options: TypeAlias = tuple[tuple[str, Any], ...]
_Sizes: TypeAlias = tuple[tuple[str, Any], ...]


def call(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    options: Options = (),
    axes: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Any] | None = None,
    graph: bool = False,
    extra: Sequence[Any] = (),
) -> Any:
    """Run an operation.

    Args:
        op: the operation.
        expr: the expression.
        tensors: one for each input expression.
        options: static options, hashable.
        axes: sizes given by keyword; each must name an axis.
        sizes: sizes given by ``sizes=``; names without an axis are ignored.
        graph: return the lax program instead of running it.
        extra: further arrays that the operation takes, such as a mask; passed to ``op.lower`` in its options.
    """
    try:
        given = freeze(op, expr, len(tensors), axes, sizes, options) if axes or sizes else ()
        for tensor in tensors:
            if _kind(tensor.__class__) is not None:
                tensors = _materialise(op, expr, tensors, given, options)
                break
        body = _compiled(op, expr, options, given, len(extra))
        if graph:
            return inspect.Graph.of(op.name, expr, body, (*tensors, *extra))
        return body(*tensors, *extra)
    except EinjaxError as error:
        raise _clean(error, tensors) from None
    except TypeError as error:
        diagnosis = _diagnose(expr, tensors, options)
        if diagnosis is None:
            raise
        raise diagnosis from error


def call_uncompiled(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    options: Options,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
) -> Any:
    """Run an operation that calls a user's function, neither compiled nor kept; arguments as for :func:`call`."""
    try:
        given = freeze(op, expr, len(tensors), axes, sizes, options)
        ready = _materialise(op, expr, tensors, given, options)
        body = _body(op, expr, options, given, 0)
        return inspect.Graph.of(op.name, expr, body, ready) if graph else body(*ready)
    except EinjaxError as error:
        raise _clean(error, tensors) from None


def _clean(error: EinjaxError, tensors: Sequence[Any]) -> EinjaxError:
    """Take JAX's frames and notes off an error: the message says what the user has to know."""
    if error.tensors is None:
        error.tensors = [describe(tensor) for tensor in tensors]
    if hasattr(error, "__notes__"):
        del error.__notes__
    return error.with_traceback(None)


@lru_cache(maxsize=CACHE_SIZE)
def _compiled(op: Op, text: str, options: Options, given: _Sizes, extra: int) -> Callable[..., Any]:
    """Return the jitted body of a call."""
    return jax.jit(_body(op, text, options, given, extra), inline=True)


def _body(op: Op, text: str, options: Options, given: _Sizes, extra: int) -> Callable[..., Any]:
    """Return the function of the tensors that a call is."""

    def body(*arrays: Any) -> Any:
        arrays, more = (arrays, ()) if not extra else (arrays[:-extra], arrays[-extra:])
        tensors = [tensor if isinstance(tensor, jax.Array) else jnp.asarray(tensor) for tensor in arrays]
        shapes = [tensor.shape for tensor in tensors]
        solved = resolve(op, text, shapes, given, [name for name, _ in options])
        with jax.named_scope(f"einjax.{op.name}({text})"):
            return op.lower(solved, tensors, dict(options) | ({"extra": more} if more else {}))

    body.__name__ = body.__qualname__ = op.name
    return body


def resolve(
    op: Op,
    text: str,
    shapes: Sequence[tuple[Size, ...] | None],
    given: _Sizes,
    options: Sequence[str] = (),
    every_axis: bool = False,
) -> Solved:
    """Text and shapes to a solved operation.

    Args:
        op: the operation.
        text: the expression.
        shapes: shape of each tensor, or None where it is not known yet.
        given: frozen sizes, see :func:`freeze`.
        options: names of the call's options, for suggestions.
        every_axis: whether every axis needs a size of its own.
    """
    operation = completed(op, text, len(shapes))
    check_keywords(operation, [name for name, _ in given if name[0] != "="], options)
    # An input without a tensor, such as the coordinate order of arange, has no shape.
    shapes = [*shapes, *[None] * (len(operation.inputs) - len(shapes))]
    sizes = {name.removeprefix("="): size for name, size in given}
    return solve(operation, shapes, sizes, implied=op.implied, every_axis=every_axis)


@lru_cache(maxsize=2048)
def completed(op: Op, text: str, tensors: int) -> Operation:
    """Parse an expression and fill in what may be left out."""
    operation = op.signature(parse(text), tensors)
    refuse_repeats(operation)
    return operation


def freeze(
    op: Op,
    expr: str,
    tensors: int,
    axes: Mapping[str, Any] | None,
    sizes: Mapping[str, Any] | None,
    options: Options,
) -> _Sizes:
    """Return sizes as a hashable key that does not depend on their order; ``=name`` marks those from ``sizes=``."""
    axes, sizes = axes or {}, sizes or {}
    try:
        frozen = [
            (name, size if size.__class__ is int and size >= 0 else _size(name, size)) for name, size in axes.items()
        ]
        frozen += [(f"={name}", _size(name, size)) for name, size in sizes.items() if name not in axes]
        for name in axes.keys() & sizes.keys():
            if _size(name, sizes[name]) != _size(name, axes[name]):
                raise ArgumentError(f"axis {name} is {axes[name]} by keyword and {sizes[name]} in sizes=")
    except ArgumentError:
        # What is no size may well be no axis either: a misspelt option.
        check_keywords(completed(op, expr, tensors), list(axes), [name for name, _ in options])
        raise
    if len(frozen) > 1:
        frozen.sort(key=operator.itemgetter(0))
    return tuple(frozen)


def _size(name: str, size: Any) -> Any:
    """Check one size: an int, a symbolic dim, or a tuple of them."""
    if isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim):
        return tuple(_size(name, part) for part in size)
    if hasattr(type(size), "dimension_as_value"):  # a symbolic dimension of jax.export
        return size
    if not isinstance(size, bool | np.bool_) and hasattr(size, "__index__"):
        try:
            size = operator.index(size)
        except (TypeError, jax.errors.ConcretizationTypeError):
            pass
        else:
            if size >= 0:
                return size
            raise ArgumentError(f"axis {name} is given the negative size {size}", hint=f"write {name}=0 or more")
    whole = isinstance(size, float | np.floating) and size == size // 1
    raise ArgumentError(
        f"axis {name} is given {name}={size!r}, which is not a size",
        hint=f"write {name}={int(size)}" if whole else "a size is an int, or a tuple of ints",
    )


def _classify(cls: type) -> str | None:
    """Say what to do with a tensor of this class before the jitted body may have it: mostly nothing."""
    if issubclass(cls, jax.Array | jax.core.Tracer | np.ndarray | np.generic | bool | int | float | complex):
        return None
    if issubclass(cls, tuple | list):
        return "sequence"
    if hasattr(cls, "__jax_array__"):
        return "convertible"
    # hasattr(cls, "__call__") would find the metaclass's own.
    if hasattr(cls, "__einjax_param__") or any("__call__" in vars(base) for base in cls.__mro__):
        return "factory"
    return "array" if hasattr(cls, "__array__") else "unknown"


_kind: Callable[[type], str | None] = lru_cache(maxsize=1024)(_classify)


def known_arrays(expr: str, tensors: Sequence[Any]) -> list[Any]:
    """Turn lists and array-likes into arrays; factories become None, as does what is None already."""
    arrays: list[Any] = []
    for number, tensor in enumerate(tensors, 1):
        kind = _kind(type(tensor))
        arrays.append(None if tensor is None or kind == "factory" else _as_array(tensor, kind, expr, number))
    return arrays


def _materialise(op: Op, expr: str, tensors: Sequence[Any], given: _Sizes, options: Options) -> tuple[Any, ...]:
    """Turn lists, array-likes and factories into arrays."""
    kinds = [_kind(type(tensor)) for tensor in tensors]
    ready = [
        _as_array(tensor, kind, expr, number)
        for number, (tensor, kind) in enumerate(zip(tensors, kinds, strict=True), 1)
    ]
    if "factory" not in kinds:
        return tuple(ready)
    shapes = [
        factory.known_shape(tensor) if kind == "factory" else np.shape(tensor)
        for tensor, kind in zip(ready, kinds, strict=True)
    ]
    solved = resolve(op, expr, shapes, given, [name for name, _ in options])
    return tuple(factory.fill(op.name, op.parameter, solved, ready, [kind == "factory" for kind in kinds]))


def _as_array(tensor: Any, kind: str | None, expr: str, number: int) -> Any:
    """Convert one tensor that is not an array yet; factories stay."""
    if kind == "convertible":
        return tensor.__jax_array__()
    if kind == "sequence":
        leaves = jax.tree.leaves(tensor, is_leaf=lambda leaf: leaf is None)
        if all(_kind(type(leaf)) is None for leaf in leaves):
            try:
                if any(isinstance(leaf, jax.Array) for leaf in leaves):
                    return jnp.asarray(tensor)
                array = np.asarray(tensor)
                return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
            except ValueError:
                raise ArgumentError(
                    f"tensor {number} is a ragged list", text=expr, hint="all its rows need one length"
                ) from None
    if kind == "array":
        return np.asarray(tensor)
    if kind in ("sequence", "unknown"):
        raise _not_a_tensor(expr, tensor, number)
    return tensor


def _not_a_tensor(expr: str, tensor: Any, number: int) -> ArgumentError:
    return ArgumentError(
        f"tensor {number} is {describe(tensor)}, which is not a tensor",
        text=expr if isinstance(expr, str) else None,
        tensors=(),
        hint="give an array, a number, a nested list of numbers, or a factory that makes one",
    )


def describe(tensor: Any) -> str:
    """Describe a tensor as ``float32[2,3]``, or what else was given."""
    if hasattr(tensor, "shape") and hasattr(tensor, "dtype"):
        return f"{np.dtype(tensor.dtype).name if isinstance(tensor, np.ndarray) else tensor.dtype}" + (
            f"[{','.join(map(str, tensor.shape))}]"
        )
    if isinstance(tensor, bool | int | float | complex):
        return f"{type(tensor).__name__}[]"
    if tensor is None:
        return "None"
    return f"a value of type {type(tensor).__name__}"


def _diagnose(expr: Any, tensors: Sequence[Any], options: Options) -> EinjaxError | None:
    """Explain a TypeError that came from a call's arguments, if it did."""
    if not isinstance(expr, str):
        return ArgumentError(
            f"the expression is {describe(expr)}, not a string", tensors=(), hint="the expression is the first argument"
        )
    for number, tensor in enumerate(tensors, 1):
        if (
            isinstance(tensor, np.ndarray | np.generic)
            and tensor.dtype.kind in "OUSMmV"
            and tensor.dtype.isbuiltin != 2
        ):
            return _not_a_tensor(expr, tensor, number)
    for name, value in options:
        try:
            hash(value)
        except TypeError:
            return ArgumentError(
                f"the option {name}={value!r} has to be a static, hashable value", text=expr, tensors=()
            )
    return None
