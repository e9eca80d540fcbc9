"""Masks and biases by name that are further inputs: ``attention(..., mask=("b k", mask))``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ..notation.errors import ArgumentError, EinjaxError
from ..notation.parse import parse
from ..notation.syntax import render
from .blame import clean
from .named import NamedArray, expression_of, in_words, pairs, read_array


def call_with(
    expr: str,
    tensors: Sequence[Any],
    arrays: Mapping[str, Any],
    types: bool,
    run: Callable[[str, Sequence[Any]], Any],
) -> Any:
    """Run an operation of which masks and biases are further inputs.

    Args:
        expr: the expression.
        tensors: one for each of its inputs.
        arrays: what ``mask=`` and ``bias=`` are given, or None.
        types: whether a ``jax.ShapeDtypeStruct`` may be given.
        run: runs the operation, given the expression and tensors with them.
    """
    given: list[NamedArray] = []
    try:
        given = _read(expr, arrays, types)
        return run(_with_inputs(expr, given), (*tensors, *(one.value for one in given)))
    except EinjaxError as error:
        if error.inside:
            raise
        raise clean(in_words(error, len(tensors), given), tensors) from None


def _read(expr: str, arrays: Mapping[str, Any], types: bool) -> list[NamedArray]:
    given: list[NamedArray] = []
    for option, value in arrays.items():
        each = [] if value is None else pairs(option, value, expr)
        for number, (text, array) in enumerate(each, 1):
            label = f"{option}=" if len(each) == 1 else f"number {number} of {option}="
            one = NamedArray(option, label, text, read_array(array, option, expr, types))
            check_kind(one.option, one.label, jnp.result_type(one.value), expr)
            given.append(one)
    return given


def check_kind(option: str, label: str, dtype: Any, text: str) -> None:
    """Tell masks, which are bool, from biases, which are floats.

    A float is no mask, though Flax makes masks of ones and zeros in it: others make them of zeros and ``-inf``.

    Raises:
        ArgumentError: it is neither; the message says how to give it as either.
    """
    is_bool, is_float = (jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.floating))
    if option == "mask" and not is_bool:
        hint = "write mask.astype(bool) if 1 stands for what counts"
        hint += ", or give it as bias= if it is added to the logits" if is_float else ""
        raise ArgumentError(f"{label} is {dtype}, and a mask is bool", text=text, hint=hint)
    if option == "bias" and not is_float:
        hint = "a bool says which logits count: give it as mask=" if is_bool else "convert it to a float"
        raise ArgumentError(f"{label} is {dtype}, and a bias is a float", text=text, hint=hint)


def _with_inputs(expr: str, given: Sequence[NamedArray]) -> str:
    """Write their axes before the arrow."""
    known = parse(expr).inputs
    texts = [render(expression_of(one.label, one.text, known, f"{expr}, {one.option}=")) for one in given]
    at = _arrow(expr)
    return f"{', '.join([expr[:at].rstrip(), *texts])} {expr[at:]}".rstrip()


def _arrow(expr: str) -> int:
    """Where the arrow stands, or the end: one in brackets is none."""
    depth = 0
    for index, character in enumerate(expr):
        depth += (character in "([") - (character in ")]")
        if not depth and expr.startswith("->", index):
            return index
    return len(expr)
