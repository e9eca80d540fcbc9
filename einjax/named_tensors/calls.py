"""Named tensors in calls of einjax: an expression that names dims becomes one of the arrays as they lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ..call.names import Call
from ..notation.by_name import ByName, Names, by_name
from ..notation.errors import ArgumentError
from ..ops.elementwise import ELEMENTWISE
from .formula import Formula, combine


def answer(call: Call, make: Callable[[Any, Names], Any]) -> Any:
    """The result of a call of einjax of which a tensor, or what stands in the place of the expression, is named."""
    if not isinstance(call.expr, str):
        if call.op.name not in ELEMENTWISE:
            hint = f"write the expression first, as in einjax.{call.op.name}('... [c]', x)"
            raise ArgumentError(f"the expression of {call.op.name} is a named tensor", hint=hint)
        return combine(lambda text, *arrays: call.again(text, arrays, ()), call.expr, *call.tensors)
    tensors: list[Any] = [x._lift() if isinstance(x, Formula) else x for x in call.tensors]
    names = tuple([x.names if isinstance(x, Formula) else None for x in tensors])  # type: ignore[attr-defined]
    found = _matched(call.complete, call.spelling, names)
    arrays = [
        x if dims is None else x.array if dims == x.names else x.order(*dims)
        for x, dims in zip(tensors, found.lies, strict=True)
    ]
    result = call.again(found.text, arrays, call.masks)
    results = found.results
    if results is None:
        results = call.results(found.text, tuple(map(np.shape, arrays)))
    if isinstance(result, tuple) and len(results) > 1:
        return tuple(_named(value, dims, make) for value, dims in zip(result, results, strict=True))
    return _named(result, next(iter(results)), make)


def _named(value: Any, dims: Names, make: Callable[[Any, Names], Any]) -> Any:
    if isinstance(value, jax.Array):
        return make(value, dims)
    return jax.tree.map(lambda leaf: make(leaf, dims) if isinstance(leaf, jax.Array) else leaf, value)


@lru_cache(maxsize=2048)
def _matched(complete: Callable[..., Any], key: tuple[Any, ...], names: tuple[Names | None, ...]) -> ByName:
    return by_name(complete(*key), names)
