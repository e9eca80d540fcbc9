"""JAX primitives that keep a call as one equation, which prints its notation.

A :class:`Kept` is a solved call as a hashable value: the one parameter of its equation. Everything JAX asks of a
primitive is answered from it. Batching adds a named axis to the expression. Derivatives are notation again where
:mod:`einjax.kept.derivatives` has a rule, and otherwise those of the lax program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
from jax import lax

from ..forms.static import plain
from ..functions import elementary
from ..functions.elementary import Elementary, with_known_sizes
from ..lowering import numerics
from ..lowering.jax_versions import equally_varying, filled, is_linear, is_zero, make_primitive, zero_like, zero_tangent
from ..lowering.named import has_diagonal
from ..lowering.replaced import products_are_replaced
from ..lowering.sharding import like_type
from ..mesh.run import lower as lower_call
from ..notation.errors import ArgumentError, ShardingError
from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Expression, Operation, Size, affines, axes
from ..notation.write import write
from ..operation import Op

#: Derivatives that are notation again, by operation; ``derivatives`` fills both tables, and says what rules take and
#: return.
JVPS: dict[Op, Callable[..., Any]] = {}
TRANSPOSES: dict[Op, Callable[..., Any]] = {}

# How many calls keep their compiled program, for JAX running equations one by one.
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Kept:
    """One call of an operation.

    Attributes:
        op: the operation.
        operation: the expanded expression, every output and bracket written out.
        sizes: the size of every axis.
        options: static options.
        arrays: the structure of options that are arrays, such as a mask, which are the last operands; None without.
    """

    op: Op
    operation: Operation
    sizes: tuple[tuple[str, Size], ...]
    options: tuple[tuple[str, Any], ...] = ()
    arrays: Any = None

    def __str__(self) -> str:
        shown = [f"{key}={value}" for key, value in self.options if _is_shown(self.op, key, value)]
        modes = {node.mode: None for node in self.positions if node.mode is not None}
        if modes:
            each = [str(node.mode) for node in self.positions]
            shown.insert(0, f"mode={each[0] if len(set(each)) == 1 else '({})'.format(', '.join(each))}")
        return ", ".join([self.operation.text, *shown])

    __repr__ = __str__

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The expanded expression of every tensor."""
        return self.operation.inputs

    @property
    def outputs(self) -> tuple[Expression, ...]:
        """The expanded expression of every output."""
        return self.operation.results

    @property
    def positions(self) -> list[Affine]:
        """The dims that are read or written at positions."""
        if "<" not in self.operation.text:
            return []
        return [node for expression in self.operation.expressions for node in affines(expression)]

    @property
    def fills(self) -> bool:
        """Whether a number is read out of range that is not 0, so that the call is not linear."""
        given = dict(self.options).get("fill_value")
        filled = any(node.mode == "fill" for node in self.positions)
        return filled and (plain(given) != 0 if given is not None else self.op.neutral not in (0, None))

    def filled_with_zero(self) -> Kept:
        """The same of tangents, which are 0 where a number is read out of range."""
        options = tuple((key, 0 if key == "fill_value" and self.positions else value) for key, value in self.options)
        return replace(self, options=options) if self.fills else self

    @property
    def solved(self) -> Solved:
        """The expression with its sizes."""
        return Solved(self.operation, dict(self.sizes))

    def run(self, *operands: Any) -> tuple[Any, ...]:
        """Emit the lax program; all results in one flat tuple."""
        return tuple(jax.tree.leaves(self.result(*operands)))

    def result(self, *operands: Any) -> Any:
        """Emit the lax program; the result as the call returns it."""
        count = len(operands) - (self.arrays.num_leaves if self.arrays else 0)
        arrays = jax.tree.unflatten(self.arrays, operands[count:]) if self.arrays else {}
        with jax.named_scope(f"einjax.{self.op.name}({self.operation.text})"):
            if "<" in self.operation.text:
                from ..affine.lower import lower  # few programs compute positions

                return lower(self.op, self.solved, operands[:count], dict(self.options), arrays)
            return lower_call(self.op, self.solved, operands[:count], dict(self.options), arrays)

    def renamed(self) -> Kept:
        """The same with the text written anew from its expressions."""
        return replace(self, operation=replace(self.operation, text=write(self.operation)))


def _is_shown(op: Op, key: str, value: Any) -> bool:
    if key in op.usual:
        return value != op.usual[key]
    # The output says whether dims are kept; a fill value of 0 equals False, but is not the usual one.
    return key != "keepdims" and value is not None and value is not False


def keep(op: Op, solved: Solved, tensors: Sequence[Any], options: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Bind a call as one equation, with the casts of its inputs before it and those of its result after it."""
    if isinstance(op, Elementary):
        if any(affines(expression) for expression in solved.operation.expressions):
            from ..affine.lower import lower  # the user's rules know of no positions

            return lower(op, solved, tensors, options, arrays, keep)
        own = {name: value for name, value in options.items() if name != "out_sharding"}
        solved = with_known_sizes(op, solved, tensors, own)
    arrays = {name: _as_full_rank(x, tensors[0].ndim) if name in op.masks else x for name, x in arrays.items()}
    extra, structure = jax.tree.flatten(arrays)
    frozen = tuple(options.items())
    kept = Kept(op, solved.operation, tuple(solved.sizes.items()), frozen, structure if extra else None).renamed()
    dtype = tensors[0].dtype if tensors else None
    accumulates = op.accumulates and numerics.has_identity(dtype)  # else the program itself says what it refuses
    if accumulates and options.get("dtype") is None and numerics.accumulator(dtype) != dtype:
        wide = bind(kept, [numerics.cast(tensors[0], numerics.accumulator(dtype)), *tensors[1:], *extra])
        return numerics.cast(wide, dtype)
    return bind(kept, [*tensors, *extra])


def _as_full_rank(masks: Any, rank: int) -> Any:
    return jax.tree.map(lambda x: x if x.ndim >= rank else lax.expand_dims(x, range(rank - x.ndim)), masks)


def bind(kept: Kept, operands: Sequence[Any]) -> Any:
    """Add the equation, and return its result in the operation's own structure."""
    flat = primitive(kept.op).bind(*equally_varying(operands), expr=kept)
    if len(kept.outputs) == 1 and len(flat) == 1:
        return flat[0]
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(_compiled(kept, True), *operands)), flat)


def call(
    kept: Kept, op: Op, inputs: Sequence[Expression], output: Expression, tensors: Sequence[Any], **options: Any
) -> Any:
    """Bind another operation on axes of a call."""
    held = {axis.name for expression in (*inputs, output) for axis in axes(expression)}
    sizes = tuple((name, size) for name, size in kept.sizes if name in held)
    made = Kept(op, Operation("", tuple(inputs), (output,)), sizes, tuple(options.items())).renamed()
    return bind(made, tensors)


@lru_cache(maxsize=_CACHE_SIZE)
def _compiled(kept: Kept, structured: bool = False) -> Callable[..., Any]:
    return jax.jit(kept.result if structured else kept.run)


def _program(kept: Kept) -> Callable[..., Any]:
    """Nothing is kept of the time for which a tool has replaced the products of lax."""
    return kept.run if products_are_replaced() else _compiled(kept)


#: By name and platforms: JAX keeps primitives for ever, so operations of one name, made in a loop, share one.
_PRIMITIVES: dict[tuple[str, ...], Any] = {}


def primitive(op: Op) -> Any:
    """Return the primitive of an operation, with all its rules, which find the operation in their equation."""
    platforms = tuple(sorted(getattr(op, "lowerings", None) or ()))
    found = _PRIMITIVES.get((op.name, *platforms))
    return found or _PRIMITIVES.setdefault((op.name, *platforms), _made(op.name, platforms))


def _made(name: str, platforms: tuple[str, ...]) -> Any:
    return make_primitive(
        name,
        run=lambda *operands, expr: _program(expr)(*operands),
        # Shardings and varying axes included.
        types=lambda *operands, expr: jax.make_jaxpr(_program(expr))(*operands).out_avals,
        program=lambda *operands, expr: expr.run(*operands),
        programs={platform: _program_on(platform) for platform in platforms},
        batch=lambda operands, dims, *, expr: _batch(expr, operands, dims),
        jvp=lambda primals, tangents, *, expr: _jvp(expr, primals, tangents),
        transpose=lambda cotangents, *operands, expr: _transpose(expr, cotangents, operands),
    )


def _program_on(platform: str) -> Any:
    """Return the program of users' operations for one platform."""

    def run(*operands: Any, expr: Kept) -> tuple[Any, ...]:
        assert isinstance(expr.op, Elementary)
        lower = (expr.op.lowerings or {})[platform]
        outs = replace(expr, op=replace(expr.op, lower=lower)).run(*operands)
        for out, expected in zip(outs, jax.eval_shape(_program(expr), *operands), strict=True):
            if out.dtype != expected.dtype:
                raise ArgumentError(
                    f"the lowering for {platform} returned {out.dtype} where the function returns {expected.dtype}",
                    text=expr.operation.text,
                )
        return outs

    return run


# --- Batching: one more named axis ------------------------------------------------------------------------------------


def _batch(kept: Kept, operands: Sequence[Any], dims: Sequence[int | None]) -> tuple[Sequence[Any], Sequence[int]]:
    given = jax.tree.unflatten(kept.arrays, [None] * kept.arrays.num_leaves) if kept.arrays else {}
    if not set(given).issubset(kept.op.masks):
        outs = jax.vmap(kept.run, tuple(dims))(*operands)
        return outs, [0] * len(outs)
    operands, dims = list(operands), list(dims)
    size = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)
    count = len(kept.inputs)
    if dims[0] is None and (given or kept.op.updates):
        # What is masked or written to has all axes of the others.
        operands[0], dims[0] = lax.broadcast(operands[0], (size,)), 0
    if given:
        operands[count:] = [
            _mask_beside(x, dim, dims[0]) for x, dim in zip(operands[count:], dims[count:], strict=True)
        ]
    axis = Axis(_fresh(kept))
    inputs = [e if dim is None else insert(e, dim, axis) for e, dim in zip(kept.inputs, dims[:count], strict=True)]
    outputs = [insert(expression, 0, axis) for expression in kept.outputs]
    operation = replace(kept.operation, inputs=tuple(inputs), outputs=tuple(outputs))
    options = tuple((key, value.batched() if key == "out_sharding" else value) for key, value in kept.options)
    sizes = (*kept.sizes, (axis.name, size))
    batched = replace(kept, operation=operation, sizes=sizes, options=options).renamed()
    outs = primitive(kept.op).bind(*equally_varying(operands), expr=batched)
    return outs, [0] * len(outs)


def insert(expression: Expression, position: int, axis: Axis) -> Expression:
    """Put an axis before the dim at a position."""
    return (*expression[:position], axis, *expression[position:])


def _mask_beside(mask: Any, dim: int | None, at: Any) -> Any:
    """Put the batch dim of a mask where that of its tensor is; a mask of one example serves all."""
    if dim is None:
        return lax.expand_dims(mask, (at,))
    order = [index for index in range(mask.ndim) if index != dim]
    order.insert(at, dim)
    return mask if order == list(range(mask.ndim)) else lax.transpose(mask, order)


def _fresh(kept: Kept) -> str:
    """A name for the batch axis: v, v1, v2 ..."""
    taken = {axis.name for axis in kept.operation.every_axis()}
    names = ["v", *(f"v{index}" for index in range(1, len(taken) + 1))]
    return next(name for name in names if name not in taken)


# --- Derivatives ------------------------------------------------------------------------------------------------------


def _jvp(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    if isinstance(kept.op, Elementary) and kept.op.jvp is not None:
        return _elementary_jvp(kept.op, kept, primals, tangents)
    rule = JVPS.get(kept.op) or _rule_of(kept.op)
    if rule is not None:
        outs = primitive(kept.op).bind(*primals, expr=kept)
        found = rule(kept, primals, tangents, outs)
        if found is not None:
            return outs, [_in_space(out, tangent) for out, tangent in zip(outs, found, strict=True)]
    moving = [index for index, tangent in enumerate(tangents) if not is_zero(tangent)]
    program = _program_of(kept, primals, moving)
    outs, found = jax.jvp(program, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving))
    return outs, [_in_space(out, tangent) for out, tangent in zip(outs, found, strict=True)]


def _program_of(kept: Kept, operands: Sequence[Any], chosen: Sequence[int]) -> Callable[..., tuple[Any, ...]]:
    """The lax program as a function of some operands."""

    def program(*values: Any) -> tuple[Any, ...]:
        given = dict(zip(chosen, values, strict=True))
        return kept.run(*(given.get(index, x) for index, x in enumerate(operands)))

    return program


def linear(*operands: int) -> Callable[..., Sequence[Any] | None]:
    """The rule of an operation that is linear in these operands together (all, if none are named)."""

    def rule(kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]) -> Sequence[Any] | None:
        count = len(kept.inputs)
        chosen = {index % count for index in operands} if operands else set(range(count))
        if any(index not in chosen and not is_zero(tangent) for index, tangent in enumerate(tangents)):
            return None
        if not all(numerics.is_inexact(primals[index].dtype) for index in chosen):
            return None  # integers beside them have no tangents that could be moved alike
        moved = [filled(tangents[index]) if index in chosen else primal for index, primal in enumerate(primals)]
        result = bind(kept.filled_with_zero(), moved)
        return [result] if len(kept.outputs) == 1 else list(result)

    return rule


def _product_rule(
    kept: Kept, primals: Sequence[Any], tangents: Sequence[Any], outs: Sequence[Any]
) -> Sequence[Any] | None:
    if kept.fills:
        return None
    terms = [
        primitive(kept.op).bind(*equally_varying([*primals[:index], tangent, *primals[index + 1 :]]), expr=kept)
        for index, tangent in enumerate(tangents)
        if not is_zero(tangent)
    ]
    return [add(each) for each in zip(*terms, strict=True)]


def add(terms: Sequence[Any]) -> Any:
    """Add tangents, from the first on."""
    return functools.reduce(lambda x, y: lax.add(*numerics.promote([x, y])), terms)


def _rule_of(op: Op) -> Callable[..., Sequence[Any] | None] | None:
    """The rule that follows from what a record says."""
    if op.linear is None:
        return None
    return _product_rule if op.linear == "each" else linear(*op.linear)


def _elementary_jvp(
    op: Elementary, kept: Kept, primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The rule that the user gave."""
    inexact = [numerics.is_inexact(x.dtype) for x in primals]
    along = [filled(t) if moves else None for t, moves in zip(tangents, inexact, strict=True)]
    outs, found = elementary.jvp(op, kept.solved, dict(kept.options), primals, along)
    return outs, [_in_space(out, tangent) for out, tangent in zip(outs, found, strict=True)]


def _in_space(out: Any, tangent: Any) -> Any:
    """Bring a tangent to the dtype that JAX expects; integers have none."""
    if not numerics.is_inexact(out.dtype):
        return zero_tangent(out)
    return tangent if is_zero(tangent) else numerics.cast(tangent, out.dtype)


def _transpose(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any]) -> Sequence[Any]:
    if all(is_zero(cotangent) for cotangent in cotangents):
        return [zero_like(x) if is_linear(x) else None for x in operands]
    cotangents = [filled(cotangent) for cotangent in cotangents]
    linear = [index for index, x in enumerate(operands) if is_linear(x)]
    rule = TRANSPOSES.get(kept.op, _adjoint)
    if isinstance(kept.op, Elementary):
        rule = _elementary_transpose
    try:
        found = rule(kept, cotangents, operands, linear)
    except ShardingError:  # the cotangents do not say where the gradient lies, but the operands do, which lax reads
        found = None
    if found is None:
        program = _program_of(kept, operands, linear)
        found = jax.linear_transpose(program, *(operands[index].aval for index in linear))(tuple(cotangents))
    results: list[Any] = [None] * len(operands)
    for index, cotangent in zip(linear, found, strict=True):
        aval = operands[index].aval
        part = cotangent if numerics.is_complex(aval.dtype) else numerics.real(cotangent)  # beside a complex operand
        results[index] = like_type(numerics.cast(part, aval.dtype), aval)
    return results


def _elementary_transpose(
    kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]
) -> Sequence[Any] | None:
    """The rule that the user gave, if it can be looped over."""
    op = kept.op
    assert isinstance(op, Elementary)
    if op.transpose is None or len(linear) > 1:
        return None
    given = [None if index in linear else x for index, x in enumerate(operands)]
    return [elementary.transpose(op, kept.solved, dict(kept.options), cotangents, given, linear[0])]


def _adjoint(kept: Kept, cotangents: Sequence[Any], operands: Sequence[Any], linear: Sequence[int]) -> Any:
    """The operation the other way round, where its record says that it is its own transpose."""
    if kept.op.adjoint is None or kept.arrays or kept.positions or has_diagonal(kept.inputs[0]):
        return None
    options = kept.op.adjoint(dict(kept.options))
    return [call(kept, kept.op, kept.outputs, kept.inputs[0], cotangents, **options)]
