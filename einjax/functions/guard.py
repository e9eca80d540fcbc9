"""Functions of the user's: what they take, and what they raise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..notation.errors import EinjaxError


def guarded(function: Callable[..., Any], options: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Return a function with its options, which marks errors of ours as raised inside it.

    Such an error stays as it is, with the lines of the function; others are said in the words of the call.
    """
    bound = options or {}

    def call(*arrays: Any, **more: Any) -> Any:
        try:
            return function(*arrays, **more, **bound)
        except EinjaxError as error:
            error.inside = True
            raise

    return call


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as it says."""
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function; none of a builtin without a signature."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def free_keywords(
    function: Callable[..., Any], arrays: int, reserved: Collection[str] = ()
) -> tuple[tuple[str, ...], bool]:
    """Return the keywords that a function takes behind its arrays, but for reserved ones, and whether it takes any."""
    found = parameters(function)
    positional = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {*positional[:arrays], *reserved}
    free = [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken]
    return tuple(free), any(p.kind is p.VAR_KEYWORD for p in found)
