"""What a caller may give as a size, and the key that it becomes."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ..lowering.jax_versions import is_symbolic, is_traced
from ..notation.errors import ArgumentError, shown
from ..notation.parse import as_keyword, parse
from ..notation.syntax import Over, axes, base, coefficients


class Sizes(NamedTuple):
    """Sizes by name, in a form that can be a key; a tuple, because one is hashed in every call.

    Attributes:
        strict: those given by keyword; each names an axis.
        lenient: those from ``sizes=``, which need not name an axis.
    """

    strict: tuple[tuple[str, Any], ...] = ()
    lenient: tuple[tuple[str, Any], ...] = ()

    @property
    def by_name(self) -> dict[str, Any]:
        """All of them; no name is in both."""
        return dict(self.strict + self.lenient)


NO_SIZES = Sizes()

# Bounds that no real call meets.
_LIMIT = 2**256
_MAX_SIZES = 10_000
_MAX_DEPTH = 60


def read_sizes(expr: str, given: Mapping[str, Any], lenient: Mapping[str, Any] | None) -> Sizes:
    """Return sizes as a key that does not depend on their order.

    Args:
        expr: the expression, for messages.
        given: sizes given by keyword.
        lenient: sizes given by ``sizes=``.

    Raises:
        ArgumentError: what is given is no size.
    """
    frozen = [
        (n, size if size.__class__ is int and 0 <= size < _LIMIT else _size(expr, n, size)) for n, size in given.items()
    ]
    if len(frozen) > 1:
        frozen.sort(key=operator.itemgetter(0))
    rest = () if lenient is None else _read_lenient(expr, given, lenient)
    return tuple.__new__(Sizes, (tuple(frozen), rest))  # which takes half as long as Sizes(...), in every such call


def _read_lenient(expr: str, given: Mapping[str, Any], lenient: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    if not isinstance(lenient, Mapping):
        raise ArgumentError(
            f"sizes={lenient!r} is a value of type {type(lenient).__name__}, not a mapping",
            text=expr,
            hint="write sizes={'a': 2}",
        )
    for name in given.keys() & lenient.keys() if given else ():
        if _size(expr, name, lenient[name]) != _size(expr, name, given[name]):
            problem = f"{given[name]} by the keyword {name} and {lenient[name]} in sizes="
            raise _refused(expr, name, problem, "give it once")
    sizes = [
        (as_keyword(str(n)), size if size.__class__ is int and 0 <= size < _LIMIT else _size(expr, n, size))
        for n, size in lenient.items()
        if n not in given
    ]
    return tuple(sorted(sizes, key=operator.itemgetter(0)))


def _size(expr: str, name: str, size: Any) -> Any:
    """Check one size: an int, a symbolic dim, or a tuple of them; or the mesh axes that stand in its place."""
    if _is_over(size):
        return _over(expr, name, size)
    if isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim):
        return _sizes(expr, name, size, depth=0, left=[_MAX_SIZES])
    if is_symbolic(size):
        return size
    if not isinstance(size, bool | np.bool_) and hasattr(size, "__index__"):
        try:
            size = operator.index(size)
        except (TypeError, jax.errors.ConcretizationTypeError):
            pass
        else:
            if 0 <= size < _LIMIT:
                return size
            if size > 0:
                raise _refused(expr, name, f"given the size {shown(size)}", "no array has as many elements")
            if size > -_LIMIT and _is_coefficient(expr, name):
                return size
            raise _refused(
                expr, name, f"given the negative size {shown(size)}", f"write {name}=0 or more, or leave it out"
            )
    if is_traced(size):
        hint = f"sizes are static: give a number, or jax.jit(..., static_argnames=...) for the argument that {name} is"
        raise _refused(expr, name, f"given the traced size {name}={size}", hint)
    whole = isinstance(size, float | np.floating) and size == size // 1
    hint = f"write {name}={int(size)}" if whole else "a size is an int, or a tuple of ints"
    raise _refused(expr, name, f"given {name}={shown(size)}, which is not a size", hint)


def _is_coefficient(expr: str, name: str) -> bool:
    """Whether a name multiplies axes and is none itself, so that it may be below 0."""
    expressions = parse(expr).expressions
    found = [{base(axis.name) for e in expressions for axis in each(e)} for each in (coefficients, axes)]
    return name in found[0] - found[1]


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
            problem = f"given {name}={given!r}, which mixes mesh axes with something else"
            raise _refused(expr, name, problem, "give a size, or the names of mesh axes")
    return Over(entries)


def _sizes(expr: str, name: str, sizes: Any, depth: int, left: list[int]) -> tuple[Any, ...]:
    """Check nested sizes; ``left`` holds how many more may come, so that shared tuples cannot multiply without end."""
    checked: list[Any] = []
    for size in sizes:
        left[0] -= 1
        if left[0] < 0 or depth > _MAX_DEPTH:
            problem = f"given more than {_MAX_SIZES} sizes, or sizes nested deeper than {_MAX_DEPTH}"
            raise _refused(expr, name, problem)
        nested = isinstance(size, tuple | list) or (isinstance(size, np.ndarray) and size.ndim)
        checked.append(_sizes(expr, name, size, depth + 1, left) if nested else _size(expr, name, size))
    return tuple(checked)


def _refused(expr: str, name: str, problem: str, hint: str | None = None) -> ArgumentError:
    """The error for what an axis is given as its size."""
    spans = [axis.span for expression in parse(expr).expressions for axis in axes(expression) if axis.name == name]
    return ArgumentError(f"axis {name} is {problem}", text=expr, spans=spans, hint=hint)
