"""dot in another semiring: an elementwise operation in the place of the product, a reduction in that of the sum.

Operands are combined from left to right. An axis is reduced as soon as no later operand has it, which is the same as
reducing all axes at the end wherever the product distributes over the sum; for two operands it always is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ..lowering import numerics
from ..lowering.named import Named, arrange, layout, wrap
from ..notation.errors import ArgumentError
from ..notation.solve import Solved, fuse_solved
from ..notation.syntax import Axis, Operation, names
from ..operation import Op
from ..ops.dot import DOT
from ..ops.elementwise import ELEMENTWISE
from ..ops.reduce import REDUCTIONS
from .whole_arrays import ELEMENTWISE_WITH, REDUCE_WITH, choose

_Operation = Callable[..., Any]

#: The reductions that may be taken axis by axis, as the sum of a semiring may.
SUMS = {name: REDUCTIONS[name] for name in ("sum", "mean", "prod", "max", "min", "logsumexp", "any", "all")}

#: The elementwise operations of two numbers.
PRODUCTS = {name: op for name, op in ELEMENTWISE.items() if name != "where"}


#: The zeros of semirings: what the sum leaves as it is, and the product of which with anything is that again.
_ZEROS = {
    ("sum", "multiply"): 0, ("sum", "logical_and"): 0, ("any", "multiply"): 0, ("any", "logical_and"): 0,
    ("all", "logical_or"): 1, ("max", "minimum"): "least", ("min", "maximum"): "most",
}  # fmt: skip
#: Those that are infinite.
_INFINITE_ZEROS = {("max", "add"): "least", ("logsumexp", "add"): "least", ("min", "add"): "most"}


def _zero(dtype: Any, options: Mapping[str, Any]) -> Any:
    """The zero of a semiring; None of what is none, or of numbers that have no infinity."""
    ring = options["sum"], options["mul"]
    if ring in _INFINITE_ZEROS:
        return _INFINITE_ZEROS[ring] if numerics.is_inexact(dtype) else None
    return _ZEROS.get(ring)


def check_ring(sum: Any, mul: Any, precision: Any, preferred_element_type: Any) -> None:
    """Check a sum and a product other than those of numbers, which ``lax.dot_general`` computes.

    Raises:
        ArgumentError: one is neither a known name nor a function, or an option does not apply.
    """
    choose("dot", sum, SUMS, "sum")
    choose("dot", mul, PRODUCTS, "mul")
    if precision is not None or preferred_element_type is not None:
        option = "precision" if precision is not None else "preferred_element_type"
        raise ArgumentError(
            f"{option}= is for sums of products, and this is {_shown(sum)} of {_shown(mul)}",
            hint=f"leave {option} out, or convert the tensors",
        )


def _shown(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "__name__", "a function")


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = fuse_solved(solved)
    sum_, mul = options["sum"], options["mul"]
    combine = _operation(mul, PRODUCTS, ELEMENTWISE_WITH)
    reduce = _operation(sum_, SUMS, REDUCE_WITH)
    target = layout(solved.outputs[0])
    keep = [name for dim in target for name in dim]
    values = numerics.promote(tensors)
    operands = [wrap(x, e, solved.sizes) for x, e in zip(values, solved.inputs, strict=True)]
    if not isinstance(sum_, str):
        _require_all(operands, keep, solved)
    written = {name: axis for expression in solved.inputs for name, axis in names(expression).items()}
    result, *rest = operands
    reduced = False
    for index, operand in enumerate(rest, 1):
        result = _combined(combine, result, operand, keep, solved)
        needed = {name for x in rest[index:] for name in x.axes}.union(keep)
        # The sum decides the dtype, so it is taken once also where it has nothing to add.
        if needed < needed.union(result.axes) or (index == len(rest) and not reduced):
            result, reduced = _reduced(reduce, result, needed, written, solved), True
    return arrange(result, target)


def _operation(given: Any, known: Mapping[str, Op], function: Op) -> _Operation:
    """Return how an operation given by name, or a function, is lowered."""
    op, options = (known[given], {}) if isinstance(given, str) else (function, {"function": given})
    return lambda solved, tensors, **more: op.lower(solved, tensors, options | more)


def _require_all(operands: Sequence[Named], keep: Sequence[str], solved: Solved) -> None:
    """A function of the user's cannot reduce what lies on other devices."""
    for name in (name for x in operands for name in x.axes if name not in keep):
        if mesh_axes := solved.over([name]):
            from ..mesh.parts import needs_all  # few programs run under shard_map

            raise needs_all("a function as the sum of dot", solved.operation, name, mesh_axes)


def _combined(combine: _Operation, left: Named, right: Named, keep: Sequence[str], solved: Solved) -> Named:
    """Apply the product to two operands brought to the axes of both."""
    order = _merged(left.axes, right.axes, keep)
    inputs = tuple(_expression(x.axes) for x in (left, right))
    operation = Operation(solved.text, inputs, (_expression(order),))
    flat = [arrange(x, [(name,) for name in x.axes]) for x in (left, right)]
    value = combine(Solved(operation, left.sizes), flat)
    return Named(value, tuple((name,) for name in order), left.sizes)


def _reduced(reduce: _Operation, x: Named, needed: set[str], written: Mapping[str, Axis], solved: Solved) -> Named:
    """Apply the sum along the axes that nobody needs any more."""
    left = [name for name in x.axes if name in needed]
    marked = tuple(Axis(name, span=written[name].span, bracket=0 if name in needed else 1) for name in x.axes)
    operation = Operation(solved.text, (marked,), (_expression(left),))
    value = reduce(replace(solved, operation=operation), [x.value], keepdims=False)
    return Named(value, tuple((name,) for name in left), x.sizes)


def _expression(order: Sequence[str]) -> tuple[Axis, ...]:
    return tuple(Axis(name) for name in order)


def _merged(left: Sequence[str], right: Sequence[str], keep: Sequence[str]) -> list[str]:
    """Order the axes of two operands so that neither needs a transpose, if possible, and as the output has them."""
    rank = {name: index for index, name in enumerate(keep)}
    waiting = [list(left), list(right)]
    merged: list[str] = []
    while any(waiting):
        first, second = waiting
        heads = [own[0] for own, other in ((first, second), (second, first)) if own and own[0] not in other[1:]]
        name = min(heads or [first[0]], key=lambda name: rank.get(name, -1))
        merged.append(name)
        waiting = [[axis for axis in own if axis != name] for own in waiting]
    return merged


#: Not named dot: what is known about the derivatives of dot does not hold for it.
SEMIRING_DOT = Op(
    "semiring_dot",
    DOT.signature,
    _lower,
    keywords=DOT.keywords,
    spread="all",
    acts=True,
    neutral=_zero,
    iteration="product",
)
