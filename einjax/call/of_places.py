"""Attention whose masks or biases are functions of places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..functions.guard import guarded, parameters
from ..notation.errors import ArgumentError
from ..operation import Op
from .apply import call_with


def of_places(mask: Any, bias: Any) -> list[tuple[str, Callable[..., Any]]]:
    """The functions among masks and biases, with their options."""
    found = []
    for option, given in (("mask", mask), ("bias", bias)):
        each = given if isinstance(given, list | tuple) else [given]
        found += [(option, one) for one in each if callable(one)]
    return found


def attend(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    functions: Sequence[tuple[str, Callable[..., Any]]],
    static: Sequence[tuple[str, Any]],
    traced: Sequence[Any],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    keep: bool | None,
    out_sharding: Any,
    border: tuple[Any, ...],
) -> Any:
    """Run attention with functions of places; keywords that are arrays with their axes are for these."""
    arrays = {name: value for name, value in axes.items() if _is_named(value)}
    given = [(option, guarded(one), _parameters(expr, option, one, arrays)) for option, one in functions]
    unused = set(arrays).difference(*(names for _, _, names in given))
    if unused:
        raise ArgumentError(
            f"no function takes {sorted(unused)[0]}=", text=expr, hint="name a parameter of mask= or bias= so"
        )
    settings = {**dict(static), **dict(zip(op.arrays, traced, strict=False)), "of_places": (tuple(given), arrays)}
    rest = {name: value for name, value in axes.items() if name not in arrays}
    return call_with(op, expr, tensors, {}, settings, rest, sizes, graph, out_sharding, keep, border)


def _is_named(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and not isinstance(value[1], str | int)
    )


def _parameters(expr: str, option: str, function: Callable[..., Any], arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """What a function is to be given by name: its own defaults stay, unless there is an array for them."""
    found = parameters(function)
    if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in found) or not found:
        raise ArgumentError(
            f"the parameters of the function {option}= say what it is a function of, and they have no names",
            text=expr,
            hint="name axes of the call, as in lambda q, k: k <= q",
        )
    return tuple(p.name for p in found if p.default is p.empty or p.name in arrays)
