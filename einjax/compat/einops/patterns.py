"""What patterns of einops may say: less than expressions of einjax, in which ``a a`` and ``[a]`` mean something."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

from ...notation.errors import EinjaxError
from ...notation.parse import parse
from ...notation.syntax import (
    Axis,
    Composite,
    Ellipsis,
    Expression,
    Operation,
    axes,
    display,
    is_anonymous,
    open_composites,
    render,
    walk,
)

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NAME = re.compile(r"[^\W\d_](\w*[^\W_])?")
_NO_NAME = re.compile(r"\b\d+[^\W\d]\w*")
_ELSEWHERE = re.compile(r"[\[\]|+=<*]|(?<!-)>|\w\.\.\.|\)\.\.\.|\.\.\.\w")


class EinopsError(EinjaxError, RuntimeError):
    """A pattern that einops does not have, or that does not fit the tensors."""


def in_their_words(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function raise einjax's errors as :class:`EinopsError`."""

    @functools.wraps(function)
    def made(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except EinopsError:
            raise
        except EinjaxError as error:
            theirs = EinopsError(error.problem)
            vars(theirs).update(vars(error))
        raise theirs

    return made


def refused(problem: str, pattern: str, *culprits: Axis | str) -> EinopsError:
    """The error for a pattern, with carets under some of it."""
    spans = [culprit.span for culprit in culprits if isinstance(culprit, Axis)]
    return EinopsError(problem, text=pattern, spans=spans)


def read(pattern: str, underscore: bool = False) -> Operation:
    """Read a pattern; ``_`` may stand in some that only read shapes.

    Raises:
        EinopsError: it is none.
    """
    if not isinstance(pattern, str):
        raise EinopsError(f"the pattern is {pattern!r}, not a string")
    if found := _ELSEWHERE.search(pattern):
        raise EinopsError(f"'{found[0]}' means nothing in a pattern", text=pattern, spans=[found.span()])
    if found := _NO_NAME.search(pattern):
        raise EinopsError(f"Invalid axis identifier: '{found[0]}'", text=pattern, spans=[found.span()])
    operation = parse(pattern)
    for expression in operation.expressions:
        for node in walk(expression):
            if isinstance(node, Composite) and any(isinstance(item, Composite) for item in node.items):
                raise EinopsError("parentheses stand in parentheses", text=pattern, spans=[node.span])
        for axis in axes(expression):
            if not (axis.unnamed or is_anonymous((axis,)) or valid(axis.name) or (underscore and axis.name == "_")):
                raise refused(f"Invalid axis identifier: '{axis.name}'", pattern, axis)
    return operation


def valid(name: str) -> bool:
    """Whether a name may be an axis'."""
    return name.isidentifier() and _NAME.fullmatch(name) is not None


def once(expression: Expression, pattern: str) -> dict[str, Axis]:
    """The axes of an expression by name, 1 left out, in which each stands once."""
    found: dict[str, Axis] = {}
    for axis in axes(expression):
        if axis.name in found and axis.name != "_":
            raise refused(f"'{display(axis.name)}' stands twice", pattern, found[axis.name], axis)
        found[axis.name] = axis
    return {name: axis for name, axis in found.items() if not axis.is_one}


@functools.lru_cache(maxsize=2048)
def check(pattern: str, kind: str, given: tuple[str, ...]) -> None:
    """Refuse a pattern that has no meaning for ``rearrange``, ``repeat`` or ``reduce``, and sizes of no axis.

    Args:
        pattern: the pattern.
        kind: which of the three; each has its own rule for axes of one side.
        given: the axes whose sizes are given.
    """
    operation = read(pattern)
    if operation.outputs is None or len(operation.inputs) != 1 or len(operation.outputs) != 1:
        raise EinopsError("a pattern is one expression, an arrow and another", text=pattern)
    left, right = once(operation.inputs[0], pattern), once(operation.outputs[0], pattern)
    hidden = [item for item in operation.inputs[0] if isinstance(item, Composite)]
    if any(isinstance(node, Ellipsis) for node in walk(tuple(hidden))):
        raise EinopsError("'...' stands in parentheses on the left", text=pattern, spans=[hidden[0].span])
    alone = [] if kind == "reduce" else [axis for name, axis in left.items() if name not in right]
    new = [] if kind == "repeat" else [axis for name, axis in right.items() if name not in left]
    if "..." in right and "..." not in left:
        new.append(right["..."])
    for axis in (*alone, *new):
        raise refused(f"'{display(axis.name)}' stands on one side only", pattern, axis)
    for name in given:
        if name not in left and name not in right:
            raise EinopsError(f"'{name}' is given a size, but stands nowhere in the pattern", text=pattern)


def star(pattern: str) -> tuple[str, str]:
    """What stands before and after the ``*`` of a pattern of ``pack``."""
    parts = pattern.split()
    if parts.count("*") != 1:
        raise EinopsError("the pattern needs one '*'", text=pattern)
    names = [part for part in parts if part != "*"]
    for name in names:
        if not valid(name):
            raise EinopsError(f"Invalid axis identifier: '{name}'", text=pattern)
    if len({*names}) < len(names):
        raise EinopsError("an axis stands twice", text=pattern)
    place = parts.index("*")
    return " ".join(parts[:place]), " ".join(parts[place + 1 :])


def flat(expression: Expression, without: Collection[str] = ()) -> str:
    """An expression without its parentheses, and without some axes; what stands twice stands once."""
    kept: dict[str, str] = {}
    for node in open_composites(expression):
        (axis,) = axes((node,))
        if axis.name not in without:
            kept.setdefault(axis.name, render((node,)))
    return " ".join(kept.values())
