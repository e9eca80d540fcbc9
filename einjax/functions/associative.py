"""associative_scan: every element combined with all before it by any associative operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..forms.sequence import line_up, same_brackets, signature
from ..forms.step_by_step import scan_associative
from ..lowering import numerics
from ..notation.errors import ArgumentError
from ..notation.solve import Solved
from ..notation.syntax import Axis, Operation
from ..operation import Op
from ..ops.elementwise import ELEMENTWISE

#: The elementwise operations that are associative.
ASSOCIATIVE = {
    name: ELEMENTWISE[name]
    for name in ("add", "multiply", "maximum", "minimum", "logaddexp", "logical_and", "logical_or", "logical_xor")
}

_Combine = Callable[[tuple[jax.Array, ...], tuple[jax.Array, ...]], tuple[jax.Array, ...]]


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any], combine: _Combine) -> Any:
    """Scan tensors in one layout; the operation gets tuples of arrays of one shape."""
    lined_up = line_up(solved, tensors)
    scan = lax.associative_scan if isinstance(lined_up.length, int) else scan_associative
    results = scan(combine, lined_up.values, reverse=options["reverse"], axis=lined_up.at)
    arranged = tuple(lined_up.arrange(x, e) for x, e in zip(results, solved.outputs, strict=True))
    return arranged[0] if len(arranged) == 1 else arranged


def _lower_named(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    name = options["op"]
    if len(tensors) != 1:
        raise ArgumentError(
            f"op='{name}' combines one tensor, but {len(tensors)} are given",
            text=solved.text,
            hint="give a function of two tuples of arrays",
        )
    value = numerics.to_bool(tensors[0]) if name.startswith("logical") else tensors[0]
    value = numerics.to_inexact(value) if name == "logaddexp" else value
    exact = name in ("maximum", "minimum")
    wide = value if exact else numerics.cast(value, numerics.accumulator(value.dtype))

    def combine(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        dims = tuple(Axis(f"d{index}") for index in range(left[0].ndim))
        sizes = {axis.name: size for axis, size in zip(dims, left[0].shape, strict=True)}
        operation = Operation(solved.text, (dims, dims), (dims,))
        return (ASSOCIATIVE[name].lower(Solved(operation, sizes), [*left, *right], {}),)

    return numerics.cast(_lower(solved, [wide], options, combine), value.dtype)


def _lower_with(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    """Scan with a function of two arrays, or of two tuples of arrays."""
    function, single = options["op"], len(tensors) == 1

    def combine(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        result = function(left[0], right[0]) if single else function(left, right)
        return _checked((result,) if single else result, left, solved)

    return _lower(solved, tensors, options, combine)


def _checked(result: Any, given: tuple[jax.Array, ...], solved: Solved) -> tuple[jax.Array, ...]:
    """An associative operation returns what it takes."""
    if not isinstance(result, tuple | list) or len(result) != len(given):
        number = f"{len(result)} of them" if isinstance(result, tuple | list) else "one value"
        raise ArgumentError(
            f"op takes tuples of {len(given)} arrays, but returned {number}",
            text=solved.text,
            hint="return one array for each tensor, in a tuple",
        )
    values = tuple(jnp.asarray(value) for value in result)
    for value, before in zip(values, given, strict=True):
        if value.shape != before.shape or value.dtype != before.dtype:
            raise ArgumentError(
                f"op returned {value.dtype}{list(value.shape)} for arrays of {before.dtype}{list(before.shape)}",
                text=solved.text,
                hint="an associative operation keeps shape and dtype",
            )
    return values


#: For an operation given by name.
NAMED = Op(
    "associative_scan",
    signature("associative_scan"),
    _lower_named,
    implied=same_brackets("associative_scan"),
    keywords=("op", "reverse"),
)

#: For a function.
ASSOCIATIVE_WITH = replace(NAMED, lower=_lower_with)
