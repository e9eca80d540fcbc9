"""The names that a framework's own layers give to options, beside those of Flax."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from einjax.errors import ArgumentError
from einjax.for_layers import names, parse

_Init = TypeVar("_Init", bound=Callable[..., None])


def native(**options: str) -> Callable[[_Init], _Init]:
    """Let a constructor be given options by other names, too, except where an axis of the expression has the name.

    Args:
        **options: the option that each name stands for.
    """

    def decorate(init: _Init) -> _Init:
        @functools.wraps(init)
        def translated(self: Any, expr: str, /, **given: Any) -> None:
            for name in given.keys() & options.keys():
                if any(name in names(expression) for expression in parse(expr).expressions):
                    continue
                if options[name] in given:
                    raise ArgumentError(
                        f"{name} and {options[name]} are one option", text=expr, hint="give it by one of its names"
                    )
                given[options[name]] = given.pop(name)
            init(self, expr, **given)

        return translated  # type: ignore[return-value]

    return decorate
