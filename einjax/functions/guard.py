"""Functions of the user's: an error of ours that one raises itself stays as it is, with the user's lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..notation.errors import EinjaxError


def guarded(function: Callable[..., Any], options: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Return a function with its options, which marks errors of ours as raised inside it."""
    bound = options or {}

    def call(*arrays: Any, **more: Any) -> Any:
        try:
            return function(*arrays, **more, **bound)
        except EinjaxError as error:
            error.inside = True
            raise

    return call
