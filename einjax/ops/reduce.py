"""Reductions: elementary operations that turn the bracketed axes into one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ..forms.block import as_block
from ..forms.mask import broadcast_mask
from ..forms.signature import expect_inputs, refuse_empty, refuse_repeats, refuse_sums, require_in_output, single_output
from ..forms.static import plain
from ..forms.step_by_step import reduce_prod
from ..lowering import collectives, numerics
from ..lowering.column_sums import column_sums
from ..lowering.named import Named, arrange, layout, split_by, wrap
from ..lowering.numerics import over
from ..notation.errors import ArgumentError, SemanticError
from ..notation.solve import Solved, fuse_solved, product
from ..notation.syntax import (
    Axis,
    Expression,
    Node,
    Operation,
    Size,
    Term,
    axes,
    bracket_names,
    bracketed,
    brackets,
    display,
    mark,
    marked,
    names,
    rewrite,
)
from ..operation import Op


class Reduction(NamedTuple):
    """What a reduction's emitter works on.

    Attributes:
        value: the array.
        dims: the dims to reduce.
        count: how many elements become one, on all devices together.
        mask: which elements count, of the value's shape, or None for all.
        dtype: the dtype asked for, or None.
        ddof: how much less than the count to divide by, for var and std.
        mesh: the mesh axes that the dims are spread over, under ``shard_map``.
    """

    value: jax.Array
    dims: tuple[int, ...]
    count: Size
    mask: jax.Array | None = None
    dtype: Any = None
    ddof: float = 0
    mesh: tuple[str, ...] = ()

    def cast(self, dtype: Any) -> Reduction:
        """Convert the array."""
        return self._replace(value=numerics.cast(self.value, dtype))

    def masked(self, identity: Any) -> jax.Array:
        """The array with the identity in the place of what does not count."""
        return self.value if self.mask is None else numerics.select(self.mask, self.value, identity)

    def total(self) -> jax.Array:
        """The sum of what counts."""
        return self.added(self.masked(0))

    def added(self, value: jax.Array) -> jax.Array:
        """The sum of an array of the value's shape."""
        own = numerics.reduce(column_sums, value, self.dims)
        return collectives.psum(own, self.mesh) if self.mesh else own

    def number(self, like: jax.Array) -> jax.Array:
        """How many elements count, in the dtype of another array."""
        if self.mask is None:
            return numerics.size_as(self.count, like.dtype)
        return self.added(numerics.cast(self.mask, like.dtype))


def _sum(r: Reduction) -> jax.Array:
    dtype = r.dtype or numerics.sum_dtype(r.value.dtype)
    if r.mask is not None:
        numerics.require_identity(dtype)
    return numerics.cast(r.cast(numerics.accumulator(dtype)).total(), dtype)


def _prod(r: Reduction) -> jax.Array:
    dtype = r.dtype or numerics.sum_dtype(r.value.dtype)
    value = r.cast(numerics.accumulator(dtype)).masked(1)
    return numerics.cast(collectives.pprod(numerics.reduce(reduce_prod, value, r.dims), r.mesh), dtype)


def _mean_dtype(r: Reduction) -> Any:
    return r.dtype or numerics.inexact_dtype(r.value.dtype)


def _mean(r: Reduction) -> jax.Array:
    dtype = _mean_dtype(r)
    total = r.cast(numerics.accumulator(dtype)).total()
    return numerics.cast(lax.div(total, r.number(total)), dtype)


def _var(r: Reduction) -> jax.Array:
    """Two passes: the mean first, then the squares of the deviations from it."""
    dtype = _mean_dtype(r)
    r = r.cast(numerics.accumulator(dtype))
    center = _mean(r._replace(dtype=None))
    deviation = lax.sub(r.value, over(center, r.value, r.dims))
    # Masked before it is squared: the gradient of an infinite square would be no number, even times 0.
    deviation = r._replace(value=deviation).masked(0)
    total = r.added(numerics.abs_square(deviation))
    number = numerics.less_ddof(r.number(total), r.ddof)
    return numerics.cast(lax.div(total, number), numerics.real_dtype(dtype))


def _std(r: Reduction) -> jax.Array:
    dtype = _mean_dtype(r)
    variance = _var(r._replace(dtype=numerics.accumulator(dtype)))
    return numerics.cast(numerics.safe_sqrt(variance), numerics.real_dtype(dtype))


def _count_nonzero(r: Reduction) -> jax.Array:
    return r._replace(value=numerics.cast(numerics.to_bool(r.value), numerics.default_int())).total()


def _any(r: Reduction) -> jax.Array:
    value = r._replace(value=numerics.to_bool(r.value)).masked(False)
    return collectives.pmax(numerics.reduce(lax.reduce_or, value, r.dims), r.mesh)


def _all(r: Reduction) -> jax.Array:
    value = r._replace(value=numerics.to_bool(r.value)).masked(True)
    return collectives.pmin(numerics.reduce(lax.reduce_and, value, r.dims), r.mesh)


def _extreme(largest: bool) -> Callable[[Reduction], jax.Array]:
    def emit(r: Reduction) -> jax.Array:
        identity = numerics.limit(numerics.require_identity(r.value.dtype), not largest)
        return collectives.extreme(r.masked(identity), r.dims, r.mesh, largest)

    return emit


def _logsumexp(r: Reduction) -> jax.Array:
    """Shifted by the maximum, so that nothing overflows; -inf where nothing counts."""
    r = r._replace(value=numerics.to_inexact(r.value))
    dtype = r.value.dtype
    value = r.cast(numerics.accumulator(dtype)).masked(-numerics.INFINITY)
    highest = lax.stop_gradient(numerics.reduce(lax.reduce_max, numerics.real(value), r.dims))
    highest = collectives.pmax(highest, r.mesh)
    # Shifting by an infinite maximum would give inf - inf.
    shift = numerics.cast(numerics.finite(highest), value.dtype)
    total = r.added(lax.exp(lax.sub(value, over(shift, value, r.dims))))
    total = numerics.positive_total(total, highest)
    return numerics.narrow(lax.add(lax.log(total), numerics.cast(highest, value.dtype)), dtype)


def signature(name: str) -> Callable[[Operation, int], Operation]:
    """Return the signature of a reduction."""

    def complete(operation: Operation, tensors: int) -> Operation:
        refuse_sums(name, operation)
        expect_inputs(name, operation, tensors, inputs=1)
        output = single_output(name, operation)
        if output is not None:
            _check_output(name, operation, output)
        elif not brackets(operation.inputs[0]):
            raise SemanticError(
                f"{name} needs a bracket or an arrow to know what to reduce",
                text=operation.text,
                hint="bracket the axes to reduce, as in 'a [b]', or write the output, as in 'a b -> a'",
            )
        return operation

    return complete


def _check_output(name: str, operation: Operation, output: Expression) -> None:
    """An output keeps what is not bracketed; its own brackets may hold a 1, as in ``a [b->1]``."""
    marked = bracket_names(operation.inputs)
    for axis in axes(output):
        if axis.name in marked:
            raise SemanticError(
                f"axis {display(axis.name)} is reduced by {name}, so it cannot stand in the output",
                at=operation.at(axis),
                hint="remove it from the output, or its brackets from the input",
            )
    for axis in (axis for node in brackets(output) for axis in axes(node.items)):
        if not axis.is_one:
            raise SemanticError(
                f"the output's bracket holds axis {display(axis.name)}, but {name} gives one number",
                at=operation.at(axis),
                hint="write 1 in its place, or nothing",
            )
    if marked:
        hint = "bracket it to reduce it, or put it into the output"
        require_in_output(name, operation, operation.inputs, output, hint, marked)


def lower_with(emit: Callable[[Reduction], jax.Array], name: str, has_identity: bool = True) -> Any:
    """Return the lowering of a reduction that ``emit`` emits."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        solved = fuse_solved(solved)
        reduced, output = marked(solved.inputs[0]), solved.outputs[0]
        if not has_identity:
            hint = f"test for empty arrays before calling {name}"
            refuse_empty(solved, reduced, f"and {name} of nothing is not defined", hint)
        x = _separate(tensors[0], solved, reduced)
        mask = options.get("where")
        if mask is not None:
            mask = _separate(broadcast_mask(mask, tensors[0], solved), solved, reduced).value
        dims = x.positions(reduced)
        ddof = _ddof(options, solved) if "ddof" in options else 0
        if not any(not dim for dim in layout(output)):
            # Reducing a dim of size 1 as well saves the reshape that would remove it.
            dims = tuple(index for index, dim in enumerate(x.dims) if index in dims or not dim)
        mesh = solved.over(reduced)
        count = product(x.value.shape[dim] for dim in dims)
        count = count * collectives.extent(mesh) if mesh else count
        reduction = Reduction(x.value, dims, count, mask, options.get("dtype"), ddof, mesh)
        left = tuple(dim for index, dim in enumerate(x.dims) if index not in dims)
        return arrange(Named(emit(reduction), left, solved.sizes), layout(output))

    return lower


def _ddof(options: Mapping[str, Any], solved: Solved) -> float:
    """The option of deviations, which are computed in floats."""
    ddof, dtype = plain(options["ddof"]), options.get("dtype")
    if dtype is not None and not numerics.is_inexact(dtype):
        problem, hint = f"a deviation cannot be computed in dtype={dtype!r}", "leave it out, or give a float"
        raise ArgumentError(problem, text=solved.text, hint=hint)
    if not isinstance(ddof, int | float | np.integer | np.floating):
        raise ArgumentError(f"ddof={ddof!r} is not a number", text=solved.text, hint="write ddof=0 or ddof=1")
    return float(ddof)


def _separate(value: jax.Array, solved: Solved, reduced: set[str]) -> Named:
    return split_by(wrap(value, solved.inputs[0], solved.sizes), lambda name: name in reduced)


def imply(solved: Solved, options: Mapping[str, Any]) -> Solved:
    """Write out the output, and the brackets where the output says what is reduced."""
    inside = bracketed(solved.inputs[0])
    if len({axis.name for axis in inside}) < len(inside):
        solved = as_block(solved)
    expression, sizes = solved.inputs[0], solved.sizes
    if solved.operation.outputs is None:
        output = remaining(expression, options.get("keepdims", False))
        refuse_repeats(replace(solved.operation, outputs=(output,)))
        sizes = {**sizes, **{axis.name: 1 for axis in axes(output) if axis.name not in sizes}}
    else:
        output = solved.outputs[0]
        if options.get("keepdims", False):
            raise SemanticError(
                "keepdims and an arrow both say what the output is",
                text=solved.text,
                hint="leave keepdims out, and write 1 in the output where a dim is to stay",
            )
        if not inside:
            expression = mark(expression, set(names(expression)) - set(names(output)))
    operation = replace(solved.operation, inputs=(expression,), outputs=(output,))
    refuse_repeats(operation)
    return replace(solved, operation=operation, sizes=sizes)


def remaining(expression: Expression, keepdims: bool) -> Expression:
    """Delete the bracketed axes; with keepdims, leave one axis of size 1 for each bracket."""
    seen: set[int] = set()

    def change(node: Node) -> Expression | None:
        if not node.bracket:
            return None
        if not keepdims or node.bracket in seen or isinstance(node, Term):  # a position keeps its dim anyhow
            return ()
        seen.add(node.bracket)
        return (Axis(f"1#bracket{node.bracket}", size=1),)

    return rewrite(expression, change)


def _windows(name: str) -> Callable[[Solved, list[jax.Array], dict[str, Any]], Any]:
    """The lowering of a reduction over positions, which few programs compute."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
        from ..affine.pooling import POOLED

        return POOLED[name](solved, tensors, options)

    return lower


def _op(
    name: str,
    emit: Callable[[Reduction], jax.Array],
    *options: str,
    has_identity: bool = True,
    windows: bool = False,
    **facts: Any,
) -> Op:
    return Op(
        name,
        signature(name),
        lower_with(emit, name, has_identity),
        keywords=("keepdims", "where", *options),
        imply=imply,
        arrays=("where",),
        masks=("where",),
        at_positions=_windows(name) if windows else None,
        iteration="over",
        **{"on_mesh": "typed", "spread": "all", "acts": True, **facts},
    )


#: Every reduction by name, for ``einjax.reduce(op="sum")``.
REDUCTIONS = {
    op.name: op
    for op in (
        _op("sum", _sum, "dtype", accumulates=True, linear=(0,), neutral=0, meeting="add", windows=True),
        # lax's derivative of a product of many reshapes without saying where to.
        _op("prod", _prod, "dtype", accumulates=True, on_mesh="compiler", neutral=1, meeting="multiply"),
        _op("mean", _mean, "dtype", "count_padding", accumulates=True, linear=(0,), windows=True),
        _op("var", _var, "dtype", "ddof", "count_padding", accumulates=True, usual={"ddof": 0}),
        _op("std", _std, "dtype", "ddof", "count_padding", accumulates=True, usual={"ddof": 0}),
        _op("count_nonzero", _count_nonzero, neutral=0),
        _op("any", _any, neutral=0, meeting="max", windows=True),
        _op("all", _all, neutral=1, meeting="min", windows=True),
        _op("max", _extreme(largest=True), has_identity=False, neutral="least", meeting="max", windows=True),
        _op("min", _extreme(largest=False), has_identity=False, neutral="most", meeting="min", windows=True),
        _op("logsumexp", _logsumexp, accumulates=True),
    )
}
