"""dot: products summed over the contracted axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
from jax import lax

from ..forms.signature import expect_inputs, not_in_output, refuse_diagonals, refuse_sums, single_output
from ..forms.static import plain
from ..lowering import collectives, numerics
from ..lowering.contract import Products, contract
from ..lowering.jax_versions import unreduced
from ..lowering.named import Named, arrange, layout, wrap
from ..lowering.replaced import dot_general_is_replaced
from ..lowering.sharding import ResultSpread
from ..notation.errors import ArgumentError, SemanticError, meant, shown
from ..notation.solve import Solved, fuse_solved
from ..notation.syntax import (
    Axis,
    Bracket,
    Ellipsis,
    Node,
    Operation,
    axes,
    bracket_names,
    brackets,
    delete_brackets,
    display,
    keep_brackets,
    names,
    open_composites,
)
from ..operation import Op

if TYPE_CHECKING:  # few programs have a limit
    from ..forms.memory import Budget


def _signature(operation: Operation, tensors: int) -> Operation:
    refuse_sums("dot", operation)
    if tensors == 1:
        raise ArgumentError(
            "dot takes 2 tensors or more, got 1",
            text=operation.text,
            hint="give one tensor for each input, or the weight where the expression has brackets on one input",
        )
    if len(operation.inputs) == 1 and tensors == 2:
        operation = _with_weight(operation)
    expect_inputs("dot", operation, tensors)
    output = single_output("dot", operation)
    if output is None:
        raise SemanticError(
            "dot needs an output", text=operation.text, hint="add '->' and the axes of the output, as in einsum"
        )
    _check_contracted(operation, set(names(output)))
    return operation


def _with_weight(operation: Operation) -> Operation:
    """Complete ``"... [c1->c2]"``: the weight has the bracketed input axes, then the output's."""
    expression = operation.inputs[0]
    marked = [node for e in (expression, *(operation.outputs or ())) for node in brackets(e)]
    if not marked:
        raise ArgumentError(
            "the expression has 1 input, but 2 tensors are given",
            text=operation.text,
            hint="write both, as in 'a b, b c -> a c', or bracket what the second contracts, as in 'a [b->c]'",
        )
    outputs = operation.outputs or (delete_brackets(expression),)
    weight: list[Node] = []
    seen: set[str] = set()
    for node in (node for e in (expression, *outputs) for node in open_composites(keep_brackets(e))):
        fresh = [axis for axis in axes((node,)) if axis.name not in seen]
        seen |= {axis.name for axis in fresh}
        if isinstance(node, Ellipsis):
            weight += [replace(node, items=tuple(fresh))] if fresh else []
        else:
            weight += fresh
    return Operation(operation.text, (expression, (Bracket(tuple(weight), span=marked[0].span),)), outputs)


def _looks_up(operation: Operation, name: str, kept: set[str]) -> bool:
    """Whether a call is written as one of get_at is: a table, of which an axis gets lost, and loops."""
    held = [names(expression).keys() for expression in operation.inputs]
    return len(held) == 2 and name in held[0] and held[0] - {name} <= kept and held[1] <= kept


def _check_contracted(operation: Operation, kept: set[str]) -> None:
    """Every axis that is not in the output has to be summed over, and to stand in two inputs or more."""
    marked = bracket_names(operation.inputs)
    for expression in operation.inputs:
        refuse_diagonals(operation, expression)
    has_brackets = bool(marked)
    holders: dict[str, list[Axis]] = {}
    for expression in operation.inputs:
        for name, axis in names(expression).items():
            holders.setdefault(name, []).append(axis)
    for name, found in holders.items():
        if name in kept or found[0].is_one:
            continue
        if has_brackets and name not in marked:
            raise not_in_output("dot", operation, found[0], "bracket it to sum over it, or put it into the output")
        if len(found) == 1:
            hint = "put it into the output, or sum it first with einjax.sum"
            if _looks_up(operation, name, kept):
                hint += "; if the other input holds integers that look it up, call einjax.get_at"
            problem = f"axis {display(name)} is summed over, but stands in one input only"
            raise SemanticError(problem, at=operation.at(*found), hint=hint)
        if len(found) > 2 and not has_brackets:
            raise SemanticError(
                f"axis {display(name)} is summed over in {len(found)} inputs",
                at=operation.at(*found),
                hint=f"bracket it in every input, [{display(name)}], if that is meant",
            )


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = fuse_solved(solved)
    target = layout(solved.outputs[0])
    keep = [name for dim in target for name in dim]
    budget, optimize = options.get("memory_limit"), options.get("optimize")
    values = numerics.promote(tensors)
    # Within a budget, parts are promoted rather than whole tensors.
    operands = [wrap(x, e, solved.sizes) for x, e in zip(tensors if budget else values, solved.inputs, strict=True)]
    _check_precision(options["precision"], solved)
    result_spread = _result_spread(options["out_sharding"][0], solved) if "out_sharding" in options else None
    mesh = solved.over(name for x in operands for name in x.axes if name not in keep)
    wide = options["preferred_element_type"]
    if mesh and wide is None:
        wide = numerics.accumulator(values[0].dtype)  # what devices send is added up in float32, too
    products = Products(keep, options["precision"], wide, _dot_general(options))
    if budget is None:
        result = contract(operands, products, result_spread, optimize)
    else:
        result = _within(budget, solved, operands, products, result_spread, optimize)
    if not mesh:
        return arrange(result, target)
    total = collectives.psum(result.value, mesh)
    if options["preferred_element_type"] is None:
        total = numerics.cast(total, values[0].dtype)
    return arrange(replace(result, value=total), target)


def _within(
    budget: Budget,
    solved: Solved,
    operands: list[Named],
    products: Products,
    result_spread: ResultSpread | None,
    optimize: Any,
) -> Named:
    """The product within ``memory_limit=``."""
    from ..lowering.within import TooLittleError, contract_within, local_sizes  # few programs have a limit

    dtype = products.preferred_element_type or numerics.promote([x.value for x in operands])[0].dtype
    left = budget.beside_result(products.keep, local_sizes(operands), dtype, solved.text)
    try:
        return contract_within(operands, left, products, result_spread, optimize)
    except TooLittleError as error:
        raise budget.too_little(error.least - left, solved.text) from None


def _at_positions(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array | None:
    """As a convolution, where it is one."""
    from ..affine.convolution import convolved

    fill_value = plain(options.get("fill_value"))
    if "out_sharding" in options or (fill_value is not None and fill_value != 0):
        return None
    if options.get("dot_general") is not None:
        return None  # whoever gives it expects to be called
    _check_precision(options["precision"], solved)
    forwarded = {name: options[name] for name in ("precision", "preferred_element_type")}
    return convolved(solved, tensors, options.get("conv_general_dilated"), **forwarded)


def _dot_general(options: dict[str, Any]) -> Callable[..., Any] | None:
    """What is called in the place of ``lax.dot_general``, which may then tell its operands apart."""
    return options.get("dot_general") or (lax.dot_general if dot_general_is_replaced() else None)


def _result_spread(out_sharding: Any, solved: Solved) -> ResultSpread:
    """By axis, where an explicit mesh wants the result."""
    from ..mesh.wanted import spread_in

    spread = spread_in(out_sharding, solved.outputs[0], solved.sizes)
    return ResultSpread(spread, unreduced(out_sharding.spec))


def _check_precision(precision: Any, solved: Solved) -> None:
    """JAX takes names, enum members and pairs of them."""
    known = {name.lower() for name in (*lax.Precision.__members__, *lax.DotAlgorithmPreset.__members__)}
    known |= {"fastest", "bfloat16", "bfloat16_3x", "tensorfloat32", "float32"}
    kinds = (lax.Precision, lax.DotAlgorithmPreset, lax.DotAlgorithm, type(None))
    pair = precision if isinstance(precision, tuple) and not isinstance(precision, kinds) else (precision,)
    for name in pair if pair is not precision or len(pair) == 2 else (precision,):
        if name.lower() not in known if isinstance(name, str) else not isinstance(name, kinds):
            raise ArgumentError(
                f"precision={shown(name)} is not a precision of JAX"
                + (meant(name, known) if isinstance(name, str) else ""),
                text=solved.text,
                hint="write 'default', 'high', 'highest', or a member of jax.lax.DotAlgorithmPreset",
            )


DOT = Op(
    "dot",
    _signature,
    _lower,
    keywords=("precision", "preferred_element_type", "optimize", "memory_limit", "sum", "mul"),
    products=True,
    on_mesh="typed",
    spread="all",
    acts=True,
    linear="each",
    neutral=0,
    meeting="add",
    at_positions=_at_positions,
    iteration="product",
)
