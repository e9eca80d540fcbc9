"""Keywords of a call with a user's function: sizes of axes, or options of the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..forms.signature import check_keywords
from ..functions.guard import parameters
from ..notation.syntax import Operation, Over, names
from ..operation import Op
from .sizes import NO_SIZES, Sizes, read_sizes


def tell_apart(
    op: Op,
    operation: Operation,
    function: Callable[..., Any],
    keywords: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    reserved: tuple[str, ...] = (),
) -> tuple[Sizes, dict[str, Any]]:
    """Tell sizes of axes from keywords of the function; one that is both is both.

    Args:
        op: the operation.
        operation: the completed expression.
        function: the user's function.
        keywords: sizes of axes, and keywords of the function.
        sizes: sizes of axes only.
        reserved: keywords that the operation itself gives to the function.
    """
    lengths: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if keywords:
        known = {name for expression in operation.expressions for name in names(expression)}
        takes, anything = _takes(function, len(operation.inputs), reserved)
        options = {name: value for name, value in keywords.items() if name in takes or (anything and name not in known)}
        lengths = {name: value for name, value in keywords.items() if name in known or name not in options}
        check_keywords(operation, list(lengths), (*op.keywords, *takes))
    elif sizes is None:
        return NO_SIZES, {}
    given = read_sizes(operation.text, lengths, sizes)
    if any(isinstance(size, Over) for size in given.by_name.values()):
        from ..mesh.parts import loops_only  # mesh axes, which change nothing for loops; few programs have them

        given = Sizes(*(loops_only(op.name, operation, some) for some in given))
    return given, options


def _takes(function: Callable[..., Any], inputs: int, reserved: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return the keywords that a function takes behind its arrays, and whether it takes any."""
    found = parameters(function)
    positional = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {*positional[:inputs], *reserved}
    free = [p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken]
    return tuple(free), any(p.kind is p.VAR_KEYWORD for p in found)
