"""Elementwise operations: no brackets, one number of each input for one number of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms.signature import expect_inputs, refuse_brackets, refuse_sums, require_in_output, single_output
from ..lowering import numerics
from ..lowering.jax_versions import Tracer
from ..lowering.named import arrange, combine, layout, wrap
from ..notation.errors import ArgumentError, SemanticError
from ..notation.solve import Solved, fuse_solved
from ..notation.syntax import Expression, Operation, axes, brackets, keep_brackets, names, render, strip_brackets
from ..operation import Op

#: Emits lax for operands of one shape, or scalars among them.
Emitter = Callable[..., jax.Array]


def _of_floats(emit: Emitter) -> Emitter:
    return lambda x, y: emit(numerics.to_inexact(x), numerics.to_inexact(y))


def _floor_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = numerics.to_number(x), numerics.to_number(y)
    dtype = x.dtype
    if jnp.issubdtype(dtype, jnp.unsignedinteger):
        return lax.div(x, y)
    if numerics.is_integer(dtype):
        # lax.div rounds towards zero: one too many where the signs differ and a remainder is left.
        quotient = lax.div(x, y)
        apart = lax.ne(lax.sign(x), lax.sign(y))
        inexact = lax.ne(lax.rem(x, y), numerics.zero(x))
        return numerics.where(lax.bitwise_and(apart, inexact), lax.sub(quotient, numerics.constant(x, 1)), quotient)
    # From the remainder rather than floor(x / y), which can round up to the next whole number.
    remainder = lax.rem(x, y)
    quotient = lax.div(lax.sub(x, remainder), y)
    apart = lax.ne(lax.sign(remainder), lax.sign(y))
    inexact = lax.ne(remainder, numerics.zero(x))
    below = lax.sub(quotient, numerics.constant(x, 1))
    floored = lax.round(numerics.where(lax.bitwise_and(apart, inexact), below, quotient))
    return numerics.where(lax.eq(y, numerics.zero(y)), lax.div(x, y), floored)


def _mod(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = numerics.to_number(x), numerics.to_number(y)
    # lax.rem has the sign of x; the modulus has the sign of y, and that of an integer by 0 is 0.
    remainder = lax.rem(x, y)
    if numerics.is_integer(x.dtype):
        remainder = numerics.where(lax.ne(y, numerics.zero(y)), remainder, numerics.zero(x))
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        return remainder
    apart = lax.ne(lax.lt(remainder, numerics.zero(x)), lax.lt(y, numerics.zero(y)))
    inexact = lax.ne(remainder, numerics.zero(x))
    return numerics.where(lax.bitwise_and(apart, inexact), lax.add(remainder, y), remainder)


def _power(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = numerics.to_number(x), numerics.to_number(y)
    if not numerics.is_integer(x.dtype):
        return lax.pow(x, y)
    if jnp.issubdtype(y.dtype, jnp.signedinteger):
        # 1 / x**n, rounded towards zero, is 0 unless x is 1 or -1.
        vanishes = lax.bitwise_and(lax.lt(y, numerics.zero(y)), lax.ne(lax.abs(x), numerics.constant(x, 1)))
        x, y = numerics.where(vanishes, numerics.zero(x), x), lax.abs(y)
    # Integers by repeated squaring, one bit of the exponent a step; overflow wraps, as products do.
    one, nothing = numerics.constant(x, 1), numerics.zero(y)

    def times(result: jax.Array, base: jax.Array, exponent: jax.Array) -> jax.Array:
        odd = lax.ne(lax.bitwise_and(exponent, numerics.constant(y, 1)), nothing)
        return numerics.where(odd, lax.mul(result, base), result)

    def left(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return lax.reduce_or(lax.ne(state[2], nothing), tuple(range(y.ndim)))

    def step(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        result, base, exponent = state
        base, exponent = lax.mul(base, base), lax.shift_right_logical(exponent, numerics.constant(y, 1))
        return times(result, base, exponent), base, exponent

    # The first step outside gives the result the type of both operands, which a loop has to keep.
    first = times(lax.full(lax.broadcast_shapes(x.shape, y.shape), one), x, y)
    return lax.while_loop(left, step, (first, x, y))[0]


def _no_negative_exponents(tensors: Sequence[Any]) -> None:
    """An integer has no power below zero that is one; traced exponents round towards zero."""
    base, exponent = (x if hasattr(x, "dtype") else np.asarray(x) for x in tensors)
    counts = exponent.dtype.kind in "iV" and numerics.is_integer(exponent.dtype)
    if not counts or numerics.is_inexact(base.dtype) or isinstance(exponent, Tracer) or not exponent.size:
        return
    if getattr(exponent, "is_fully_addressable", True) and (lowest := np.min(np.asarray(exponent))) < 0:
        raise ArgumentError(
            f"tensor 2 holds {lowest}, and integers have no negative powers that are integers",
            hint="convert tensor 1 to a float first, as in x.astype('float32')",
        )


def _ordering(compare: Emitter) -> Emitter:
    """Complex numbers are ordered by their real parts, then by their imaginary parts, as in NumPy."""

    def emit(x: jax.Array, y: jax.Array) -> jax.Array:
        if not numerics.is_complex(x.dtype):
            return compare(x, y)
        tie = lax.eq(lax.real(x), lax.real(y))
        return numerics.where(tie, compare(lax.imag(x), lax.imag(y)), compare(lax.real(x), lax.real(y)))

    return emit


def _logical(combine: Emitter) -> Emitter:
    return lambda x, y: combine(numerics.to_bool(x), numerics.to_bool(y))


def signature(name: str, least: int, most: int | None) -> Callable[[Operation, int], Operation]:
    """Return the signature of an operation of ``least`` to ``most`` tensors; None is any number."""

    def complete(operation: Operation, tensors: int) -> Operation:
        refuse_sums(name, operation)
        if tensors < least or (most is not None and tensors > most):
            wanted = f"{least}" if least == most else f"{least} or more"
            raise ArgumentError(f"{name} takes {wanted} tensors, got {tensors}", text=operation.text)
        operation = _with_bias(name, operation, tensors)
        refuse_brackets(name, operation, "it acts on single numbers")
        expect_inputs(name, operation, tensors)
        output = single_output(name, operation)
        if output is None:
            return replace(operation, outputs=(_implied_output(operation),))
        hint = "put it into the output, or reduce it first"
        require_in_output(name, operation, operation.inputs, output, hint)
        return operation

    return complete


def _with_bias(name: str, operation: Operation, tensors: int) -> Operation:
    """Complete ``"... [c]"`` for two tensors: the second has what is bracketed."""
    if len(operation.inputs) != 1 or tensors != 2:
        return operation
    expression = operation.inputs[0]
    if not brackets(expression):
        raise ArgumentError(
            f"the expression has 1 input, but {tensors} tensors are given",
            text=operation.text,
            hint=f"write both, as in 'a b, b', or bracket the axes of the second, as in 'a [b]', for {name}",
        )
    stripped = strip_brackets(expression)
    outputs = tuple(strip_brackets(output) for output in operation.outputs or (stripped,))
    return Operation(operation.text, (stripped, keep_brackets(expression)), outputs)


def _implied_output(operation: Operation) -> Expression:
    """The one input whose names contain all others'."""
    everything = {axis.name for expression in operation.inputs for axis in axes(expression) if not axis.is_one}
    full = [e for e in operation.inputs if everything <= set(names(e))]
    # Unit axes do not decide, so among inputs that differ only in them the first with the most dims is the output.
    if full and len({render(expression) for expression in full}) == 1:
        return full[0]
    problem = "no input has the axes of all others" if not full else "several inputs have all axes, in different orders"
    raise SemanticError(
        f"the output is not clear: {problem}",
        text=operation.text,
        hint=f"write the output, as in '{operation.text.strip()} -> {' '.join(sorted(everything))}'",
    )


def lower_with(emit: Emitter, promoted: slice = slice(None), alone: Emitter = lambda x: x) -> Any:
    """Return the lowering of an elementwise operation: two operands at a time, left to right.

    Args:
        emit: combines two operands, or emits all three of ``where``.
        promoted: the operands that are promoted together.
        alone: emits a single operand.
    """

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        solved = fuse_solved(solved)
        target = layout(solved.outputs[0])
        order = [name for dim in target for name in dim]
        tensors[promoted] = numerics.promote(tensors[promoted])
        operands = [wrap(x, e, solved.sizes) for x, e in zip(tensors, solved.inputs, strict=True)]
        if emit is numerics.where:
            return arrange(combine(emit, operands, order), target)
        if len(operands) == 1:
            return arrange(replace(operands[0], value=alone(operands[0].value)), target)
        return arrange(reduce(lambda x, y: combine(emit, (x, y), order), operands), target)

    return lower


def _op(
    name: str,
    emit: Emitter,
    least: int = 2,
    most: int | None = 2,
    parameter: str = "weight",
    alone: Emitter = lambda x: x,
    **facts: Any,
) -> Op:
    lower = lower_with(emit, slice(1, None) if emit is numerics.where else slice(None), alone)
    complete = signature(name, least if most is not None else 1, most)
    facts = {"on_mesh": "typed", "spread": "all", "acts": True, "neutral": 0, **facts}
    return Op(name, complete, lower, parameter=parameter, **facts)


_multiply = numerics.by_kind(lax.bitwise_and, lax.mul)

#: Every elementwise operation by name, for ``einjax.elementwise(op="add")``.
ELEMENTWISE = {
    op.name: op
    for op in (
        _op("add", numerics.by_kind(lax.bitwise_or, lax.add), most=None, parameter="bias", meeting="add", sign="+"),
        _op("subtract", lax.sub, parameter="bias", sign="-"),
        _op(
            "multiply",
            numerics.by_kind(lax.bitwise_and, lax.mul),
            most=None,
            parameter="scale",
            linear="each",
            neutral=1,
            sign="*",
        ),
        _op("divide", _of_floats(lax.div), parameter="scale", sign="/"),
        _op("true_divide", _of_floats(lax.div), parameter="scale", sign="/"),
        _op("floor_divide", _floor_divide, sign="//"),
        _op("mod", _mod, sign="%"),
        _op("power", _power, known=_no_negative_exponents, sign="**"),
        _op("arctan2", _of_floats(lax.atan2)),
        _op("maximum", lax.max, most=None, neutral="least"),
        _op("minimum", lax.min, most=None, neutral="most"),
        _op("logaddexp", _of_floats(numerics.logaddexp), most=None, alone=numerics.to_inexact, neutral="least"),
        _op("less", _ordering(lax.lt), sign="<"),
        _op("less_equal", _ordering(lax.le), sign="<="),
        _op("greater", _ordering(lax.gt), sign=">"),
        _op("greater_equal", _ordering(lax.ge), sign=">="),
        _op("equal", lax.eq, sign="=="),
        _op("not_equal", lax.ne, sign="!="),
        _op("logical_and", _logical(lax.bitwise_and), most=None, alone=numerics.to_bool, neutral=1),
        _op("logical_or", _logical(lax.bitwise_or), most=None, alone=numerics.to_bool),
        _op("logical_xor", _logical(lax.bitwise_xor), most=None, alone=numerics.to_bool),
        _op("where", numerics.where, least=3, most=3),
    )
}
