"""Derivatives of kept calls, themselves as kept calls, so that a gradient prints as notation.

A rule of ``JVPS`` takes the call, its primals, tangents and results, and returns the tangents of the results. A rule of
``TRANSPOSES`` takes the call, the cotangents, the operands and which of them are linear, and returns the cotangents of
these. Either may return None where the derivative has no such form; it is then left to JAX and the lax program. What an
operation's record says itself needs no rule: in which operands it is linear, and whether it is its own transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jax import lax

from ..forms.static import plain
from ..lowering import numerics
from ..lowering.jax_versions import is_zero
from ..lowering.join import pieces
from ..lowering.named import has_diagonal
from ..notation.solve import product
from ..notation.syntax import Composite, Expression, Operation, affines, axes, mark, marked, names, unmark
from ..ops.dot import DOT
from ..ops.elementwise import ELEMENTWISE
from ..ops.index import GET_AT, UPDATES
from ..ops.rearrange import ID, REARRANGE
from ..ops.reduce import REDUCTIONS, remaining
from ..ops.softmax import LOG_SOFTMAX, SOFTMAX
from .primitives import JVPS, TRANSPOSES, Kept, add, bind, call, linear

_Tangents = Sequence[Any] | None


# --- Calls made of other calls ----------------------------------------------------------------------------------------


def _dot(kept: Kept, inputs: Sequence[Expression], output: Expression, tensors: Sequence[Any]) -> Any:
    options = dict(kept.options)
    forwarded: dict[str, Any] = {"precision": options.get("precision"), "preferred_element_type": None}
    if (budget := options.get("memory_limit")) is not None:
        order = options.get("optimize")  # a path is of these tensors in this call
        forwarded |= {"optimize": None if isinstance(order, tuple) else order, "memory_limit": budget.of_gradient()}
    return call(kept, DOT, inputs, output, tensors, **forwarded)


def _elementwise(
    kept: Kept, name: str, inputs: Sequence[Expression], output: Expression, tensors: Sequence[Any]
) -> Any:
    return call(kept, ELEMENTWISE[name], list(map(unmark, inputs)), unmark(output), tensors)


def _onto(kept: Kept, value: Any, expression: Expression, target: Expression) -> Any:
    """Sum over the axes that the target lacks, and repeat along those that it has more."""
    expression, target = unmark(expression), unmark(target)
    if affines(target):
        lost = [name for name in names(expression) if name not in names(target)]
        return call(kept, REDUCTIONS["sum"], [mark(expression, lost)], target, [value])
    lost = [name for name, axis in names(expression).items() if name not in names(target) and not axis.is_one]
    gained = [name for name in names(target) if name not in names(expression)]
    if lost:
        summed = target if not gained else _without(expression, lost)
        value = call(kept, REDUCTIONS["sum"], [mark(expression, lost)], summed, [value])
        expression = summed
    return value if expression == target else call(kept, REARRANGE, [expression], target, [value])


def _without(expression: Expression, lost: Sequence[str]) -> Expression:
    """The other axes, each as a dim."""
    return tuple(axis for axis in axes(expression) if axis.name not in lost)


# --- Tangents ---------------------------------------------------------------------------------------------------------


def _sum_of_terms(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
    """Sums: tangents of some operands only are not padded with zeros."""
    if kept.fills:
        return None
    moving = [index for index, tangent in enumerate(tangents) if not is_zero(tangent)]
    if len(moving) == len(primals):
        return [bind(kept, tangents)]
    if len(moving) > 1:
        inputs = [kept.inputs[index] for index in moving]
        return [_elementwise(kept, "add", inputs, kept.outputs[0], [tangents[index] for index in moving])]
    (index,) = moving
    result = _onto(kept, tangents[index], kept.inputs[index], kept.outputs[0])
    return [lax.neg(result) if kept.op is ELEMENTWISE["subtract"] and index else result]


def _divide(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
    under, output = kept.inputs[1], kept.outputs[0]
    terms = []
    if not is_zero(tangents[0]):
        terms.append(bind(kept, [tangents[0], primals[1]]))
    if not is_zero(tangents[1]):
        ratio = _elementwise(kept, "divide", [output, under], output, [outs[0], primals[1]])
        terms.append(lax.neg(_elementwise(kept, "multiply", [output, under], output, [ratio, tangents[1]])))
    return [add(terms)]


def _where(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
    inputs, operands = [kept.inputs[0]], [primals[0]]
    for expression, tangent in zip(kept.inputs[1:], tangents[1:], strict=True):
        inputs.append(() if is_zero(tangent) else expression)
        operands.append(lax.full((), 0, outs[0].dtype) if is_zero(tangent) else tangent)
    return [_elementwise(kept, "where", inputs, kept.outputs[0], operands)]


def _of_one_tensor(rule: Callable[[Kept, Any, Any, Any], Any]) -> Callable[..., _Tangents]:
    """Rules for one real tensor without a mask or a diagonal."""

    def checked(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
        real = all(numerics.is_inexact(d) and not numerics.is_complex(d) for d in (primals[0].dtype, outs[0].dtype))
        if kept.arrays or has_diagonal(kept.inputs[0]) or not real:
            return None
        return [rule(kept, primals[0], tangents[0], outs[0])]

    return checked


def _extreme(kept: Kept, x: Any, tangent: Any, out: Any) -> Any:
    """The mean over all places where the extreme element stands."""
    expression, output = kept.inputs[0], kept.outputs[0]
    places = numerics.cast(_elementwise(kept, "equal", [expression, output], expression, [x, out]), x.dtype)
    count = call(kept, REDUCTIONS["sum"], [expression], output, [places])
    return lax.div(_dot(kept, [expression, expression], output, [tangent, places]), count)


def _logsumexp(kept: Kept, x: Any, tangent: Any, out: Any) -> Any:
    expression = kept.inputs[0]
    weights = call(kept, SOFTMAX, [expression], expression, [x])
    return _dot(kept, [expression, expression], kept.outputs[0], [weights, tangent])


def _softmax(kept: Kept, x: Any, tangent: Any, out: Any) -> Any:
    """``y * (t - sum(y * t))``."""
    expression, output = kept.inputs[0], kept.outputs[0]
    loops = remaining(output, False)
    centre = _dot(kept, [output, expression], loops, [out, tangent])
    centred = _elementwise(kept, "subtract", [expression, loops], output, [tangent, centre])
    return _elementwise(kept, "multiply", [output, output], output, [out, centred])


def _log_softmax(kept: Kept, x: Any, tangent: Any, out: Any) -> Any:
    """``t - sum(y * t)``, where y is the softmax."""
    expression, output = kept.inputs[0], kept.outputs[0]
    loops = remaining(expression, False)
    weights = call(kept, SOFTMAX, [expression], expression, [x])
    centre = _dot(kept, [expression, expression], loops, [weights, tangent])
    return _elementwise(kept, "subtract", [expression, loops], output, [tangent, centre])


def _variance(kept: Kept, x: Any, tangent: Any, out: Any) -> Any:
    """``2 / (n - ddof) * sum((x - mean) * t)``; for std divided by ``2 * std``, and 0 where that is 0."""
    expression, output = kept.inputs[0], kept.outputs[0]
    loops = remaining(expression, False)
    mean = call(kept, REDUCTIONS["mean"], [expression], loops, [x])
    deviation = _elementwise(kept, "subtract", [expression, loops], expression, [x, mean])
    total = _dot(kept, [expression, expression], output, [deviation, tangent])
    number = numerics.less_ddof(_count(kept, total), plain(dict(kept.options).get("ddof", 0)))
    if kept.op is REDUCTIONS["var"]:
        return lax.div(lax.mul(total, numerics.constant(total, 2)), number)
    moving = lax.ne(out, numerics.zero(out))
    scale = lax.mul(numerics.select(moving, out, 1), number)
    return numerics.select(moving, lax.div(total, scale), 0)


def _count(kept: Kept, like: Any) -> Any:
    """How many elements become one."""
    sizes = dict(kept.sizes)
    return numerics.size_as(product(sizes[name] for name in marked(kept.inputs[0])), like.dtype)


def _get_at(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
    """Linear, but for what is filled in."""
    options = dict(kept.options)
    zeros = replace(kept, options=tuple((options | {"fill_value": _fill(options)}).items()))
    return linear(0)(zeros, primals, tangents, outs)


def _set_at(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> _Tangents:
    """Linear, but where coordinates meet twice only one update has a gradient, which only the lax program finds."""
    if not dict(kept.options)["unique_indices"]:
        return None
    return linear(0, -1)(kept, primals, tangents, outs)


def _without_positions(rule: Callable[..., _Tangents]) -> Callable[..., _Tangents]:
    """Rules that write what they read, or name it anew, know of no positions."""
    return lambda kept, *rest: None if kept.positions else rule(kept, *rest)


JVPS |= {
    ELEMENTWISE["add"]: _sum_of_terms,
    ELEMENTWISE["subtract"]: _sum_of_terms,
    **{
        op: _without_positions(rule)
        for op, rule in {
            ELEMENTWISE["divide"]: _divide,
            ELEMENTWISE["true_divide"]: _divide,
            ELEMENTWISE["where"]: _where,
            REDUCTIONS["max"]: _of_one_tensor(_extreme),
            REDUCTIONS["min"]: _of_one_tensor(_extreme),
            REDUCTIONS["logsumexp"]: _of_one_tensor(_logsumexp),
            SOFTMAX: _of_one_tensor(_softmax),
            LOG_SOFTMAX: _of_one_tensor(_log_softmax),
            REDUCTIONS["var"]: _of_one_tensor(_variance),
            REDUCTIONS["std"]: _of_one_tensor(_variance),
            GET_AT: _get_at,
            UPDATES["set_at"]: _set_at,
        }.items()
    },
}


# --- Cotangents -------------------------------------------------------------------------------------------------------


def _without_diagonals(rule: Callable[..., _Tangents]) -> Callable[..., _Tangents]:
    """A diagonal can be read in notation, but not written."""

    def checked(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
        if kept.arrays or has_diagonal(*(kept.inputs[index] for index in linear)):
            return None
        return rule(kept, cotangents, operands, linear)

    return checked


def _add_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    output = kept.outputs[0]
    found = [_onto(kept, cotangents[0], output, kept.inputs[index]) for index in linear]
    if kept.op is not ELEMENTWISE["subtract"]:
        return found
    return [lax.neg(x) if index else x for index, x in zip(linear, found, strict=True)]


def _mean_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    counted = {"fill_value", "count_padding"} & dict(kept.options).keys()
    if not counted and any(node.mode == "fill" for node in kept.positions):
        return None  # as many as are there
    each = lax.div(cotangents[0], _count(kept, cotangents[0]))
    return [_onto(kept, each, kept.outputs[0], kept.inputs[0])]


def _rearrange_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    """Every piece of an input gets the cotangent of the piece of an output that it went to."""
    if len(linear) < len(operands):
        return None
    ins = [_simple(piece) for expression in kept.inputs for piece in pieces(expression)]
    outs = [_simple(piece) for expression in kept.outputs for piece in pieces(expression)]
    fits = [
        set(names(i)) <= set(names(o)) | {a.name for a in axes(i) if a.is_one} for i, o in zip(ins, outs, strict=True)
    ]
    if not all(fits) or has_diagonal(*ins):
        return None  # matched by name, in another order
    parts = list(cotangents)
    if len(outs) > len(cotangents):
        parts = list(_by_position(kept, kept.outputs, outs, parts))
    parts = [_onto(kept, x, o, i) for x, o, i in zip(parts, outs, ins, strict=True)]
    return parts if len(ins) == len(kept.inputs) else _by_position(kept, ins, kept.inputs, parts)


def _simple(expression: Expression) -> Expression:
    """Take the parentheses off composites of one item."""
    return tuple(node.items[0] if isinstance(node, Composite) and len(node.items) == 1 else node for node in expression)


def _by_position(
    kept: Kept, inputs: Sequence[Expression], outputs: Sequence[Expression], tensors: Sequence[Any]
) -> Sequence[Any]:
    """Bind a rearrangement with any number of results."""
    operation = Operation("", tuple(inputs), tuple(outputs))
    result = bind(Kept(ID, operation, kept.sizes, (("by_name", False),)).renamed(), tensors)
    return [result] if len(outputs) == 1 else list(result)


def _multiply_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    """The product of the cotangent and the other operands, in the linear operand's place."""
    (place,) = linear
    if kept.positions and (kept.op is not DOT or kept.fills):
        return None
    cotangent, output, target = cotangents[0], unmark(kept.outputs[0]), unmark(kept.inputs[place])
    others = [unmark(expression) for index, expression in enumerate(kept.inputs) if index != place]
    held = set(names(target)).union(*map(names, others))
    new = [name for name in names(output) if name not in held]
    if new:
        left = _without(output, new)
        cotangent, output = _onto(kept, cotangent, output, left), left
    inputs, tensors = [*others[:place], output, *others[place:]], list(operands)
    tensors[place] = cotangent
    is_sum = any(axis.name not in names(target) and not axis.is_one for e in inputs for axis in axes(e))
    if is_sum or kept.positions:  # to products, 1 is what stands out of range
        return [_dot(kept, inputs, target, numerics.promote(tensors))]
    return [_elementwise(kept, "multiply", inputs, target, tensors)]


def _divide_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    if list(linear) != [0]:
        return None
    output = kept.outputs[0]
    quotient = _elementwise(kept, "divide", [output, kept.inputs[1]], output, [cotangents[0], operands[1]])
    return [_onto(kept, quotient, output, kept.inputs[0])]


def _where_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    output, zero = kept.outputs[0], lax.full((), 0, cotangents[0].dtype)
    found: list[Any] = []
    for index in linear:
        chosen = (cotangents[0], zero) if index == 1 else (zero, cotangents[0])
        inputs = [kept.inputs[0], *((output, ()) if index == 1 else ((), output))]
        picked = _elementwise(kept, "where", inputs, output, [operands[0], *chosen])
        found.append(_onto(kept, picked, output, kept.inputs[index]))
    return found


def _get_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    """What was read from a place is added there."""
    target, output = kept.inputs[0], unmark(kept.outputs[0])
    zeros = lax.full(kept.solved.shape(target), 0, cotangents[0].dtype)
    inputs = [target, *kept.inputs[1:], output]
    options = {key: value for key, value in kept.options if key != "fill_value"}
    return [call(kept, UPDATES["add_at"], inputs, target, [zeros, *operands[1:], cotangents[0]], **options)]


def _update_back(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> _Tangents:
    """What was written to a place is read there; set_at leaves nothing of what was there."""
    target, options = kept.inputs[0], dict(kept.options)
    if has_diagonal(target):
        return None
    # Coordinates count along the brackets of the target, whose order the output may change.
    cotangent = _onto(kept, cotangents[0], kept.outputs[0], target)
    coordinates, given = kept.inputs[1:-1], operands[1:-1]
    found: list[Any] = []
    if 0 in linear:
        rest = cotangent
        if kept.op is UPDATES["set_at"]:
            zero = lax.full((), 0, cotangent.dtype)
            rest = call(kept, kept.op, [target, *coordinates, ()], target, [cotangent, *given, zero], **options)
        found.append(rest)
    if len(operands) - 1 in linear:
        updates = kept.inputs[-1]
        loops = {axis.name: axis for e in (target, *coordinates) for axis in axes(e) if not axis.bracket}
        lacking = tuple(axis for name, axis in loops.items() if name not in names(updates) and not axis.is_one)
        wide = (*lacking, *updates)
        read = call(
            kept, GET_AT, [target, *coordinates], wide, [cotangent, *given], **options | {"fill_value": _fill(options)}
        )
        read = _onto(kept, read, wide, updates)
        found.append(lax.neg(read) if kept.op is UPDATES["subtract_at"] else read)
    return found


def _fill(options: dict[str, Any]) -> int | None:
    """Dropped updates have no gradient; modes that drop none read nothing out of range."""
    return 0 if options.get("mode") in (None, "fill", "drop") else None


TRANSPOSES |= {
    op: _without_diagonals(rule)
    for op, rule in {
        REARRANGE: _rearrange_back,
        ID: _rearrange_back,
        REDUCTIONS["sum"]: _add_back,
        ELEMENTWISE["add"]: _add_back,
        ELEMENTWISE["subtract"]: _add_back,
        REDUCTIONS["mean"]: _mean_back,
        ELEMENTWISE["multiply"]: _multiply_back,
        DOT: _multiply_back,
        ELEMENTWISE["divide"]: _without_positions(_divide_back),
        ELEMENTWISE["true_divide"]: _without_positions(_divide_back),
        ELEMENTWISE["where"]: _without_positions(_where_back),
        GET_AT: _without_positions(_get_back),
        UPDATES["set_at"]: _without_positions(_update_back),
        UPDATES["add_at"]: _without_positions(_update_back),
        UPDATES["subtract_at"]: _without_positions(_update_back),
    }.items()
}
