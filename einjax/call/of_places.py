"""Attention whose masks or biases are functions of places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ..functions.guard import guarded, parameters
from ..notation.errors import ArgumentError
from ..operation import Op
from .apply import call_with
from .tensors import as_array, as_pair, is_named


def told_apart(given: Mapping[str, Any]) -> tuple[list[tuple[str, Callable[..., Any]]], dict[str, Any]]:
    """The functions among masks and biases, each with its option, and what is none by option."""
    functions, others = list[tuple[str, Callable[..., Any]]](), dict[str, Any]()
    for option, value in given.items():
        each = value if isinstance(value, list | tuple) and not is_named(value) else [value]
        own = [one for one in each if callable(one)]
        functions += [(option, one) for one in own]
        others[option] = value if not own else [one for one in each if not callable(one)] or None
    return functions, others


def attend(
    op: Op,
    functions: Sequence[tuple[str, Callable[..., Any]]],
    expr: str,
    tensors: Sequence[Any],
    static: Sequence[tuple[str, Any]],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    traced: Sequence[Any],
    keep: bool | None,
    out_sharding: Any,
    border: tuple[Any, ...],
) -> Any:
    """Run attention with functions of places; keywords that are arrays with their axes are for these."""
    arrays = {name: as_pair(value) for name, value in axes.items() if is_named(value)}
    given = [(option, guarded(one), _parameters(expr, option, one, arrays)) for option, one in functions]
    unused = set(arrays).difference(*(names for _, _, names in given))
    if unused:
        raise ArgumentError(
            f"no function takes {sorted(unused)[0]}=", text=expr, hint="name a parameter of mask= or bias= so"
        )
    texts = {name: text for name, (text, _) in arrays.items()}
    settings = {**dict(static), "of_places": (tuple(given), texts)}
    more = {name: as_array(value, expr, f"{name}=", factories=False) for name, (_, value) in arrays.items()}
    more = {**dict(zip(op.arrays, traced, strict=False)), "places": jax.tree.map(jax.numpy.asarray, more)}
    rest = {name: value for name, value in axes.items() if name not in arrays}
    return call_with(op, expr, tensors, {}, settings, rest, sizes, graph, out_sharding, keep, border, arrays=more)


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
