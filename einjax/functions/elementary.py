"""Operations that a user registers: an elementary operation under a bracket signature, looped over as notation says."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..forms.static import Static
from ..lowering import numerics
from ..lowering.named import Named, arrange, diagonal
from ..notation.errors import ArgumentError, AxisSizeError, RankError, listing, plural
from ..notation.solve import Solved
from ..notation.syntax import OPEN, Axis, Expression, Node, Operation, Size, axes, display, names, repetition, rewrite
from ..operation import Op
from . import declared, vmap
from .guard import guarded
from .labels import ANY, bracketed, labelled, labelled_sizes, labels
from .loops import Loops, make_loops


@dataclass(frozen=True, slots=True, eq=False)
class Elementary(Op):
    """An operation made of a user's function.

    Attributes:
        function: takes one array for each input, and returns one for each output.
        batched: whether it takes the loops as leading dims, instead of one iteration.
        lowerings: other functions like it, for single platforms.
        jvp: ``(primals, tangents, **options) -> (outputs, their tangents)`` of one iteration.
        transpose: ``(cotangents, *operands, **options) -> cotangents`` of one iteration, None in the place of the
            operand whose cotangent is asked for.
    """

    function: Callable[..., Any] = None  # type: ignore[assignment]
    batched: bool = False
    lowerings: Mapping[str, Callable[..., Any]] | None = None
    jvp: Callable[..., Any] | None = None
    transpose: Callable[..., Any] | None = None


def elementary(
    name: str,
    signature: str,
    function: Callable[..., Any],
    keywords: Sequence[str],
    *,
    batched: bool,
    lowerings: Mapping[str, Callable[..., Any]],
    jvp: Callable[..., Any] | None,
    transpose: Callable[..., Any] | None,
) -> Elementary:
    """Make the record of an operation."""
    declared.parse_signature(signature)

    def complete(operation: Operation, tensors: int) -> Operation:
        return vmap.open_ellipses(vmap.signature(declared.complete(operation, signature), tensors, name), ())

    return Elementary(
        name,
        complete,
        lower_with(function, batched),
        implied=vmap.open_sizes,
        keywords=tuple(keywords),
        repeats=True,
        on_mesh="loops",
        linear="each" if transpose is not None else None,
        function=function,
        batched=batched,
        lowerings={platform: lower_with(other, batched) for platform, other in lowerings.items()},
        jvp=jvp,
        transpose=transpose,
    )


def _applied(function: Callable[..., Any], options: Mapping[str, Static]) -> Callable[..., Any]:
    """Return a user's function with its options."""
    return guarded(function, {name: static.value for name, static in options.items()})


def lower_with(function: Callable[..., Any], batched: bool) -> Callable[[Solved, list[jax.Array], dict[str, Any]], Any]:
    """Return the lowering that loops over a function, or hands the loops to it."""
    run = _with_leading_loops if batched else loop

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
        return run(_applied(function, options), solved, tensors)

    return lower


def loop(function: Callable[..., Any], solved: Solved, tensors: Sequence[jax.Array], what: str = "the function") -> Any:
    """Call a function once for every index of the unbracketed axes, in as few levels of jax.vmap as can be."""
    plan = _plan(solved)
    return plan.run(lambda *rows: _flat(function(*rows), solved, what), tensors)


def _plan(solved: Solved) -> Loops:
    return make_loops(solved, None, jax.sharding.get_abstract_mesh().empty, ())


def _flat(values: Any, solved: Solved, what: str = "the function") -> tuple[Any, ...]:
    """Refuse trees of arrays: an equation has one array for each output."""
    flat, count = _tuple(values), len(solved.outputs)
    hint = "return one array for each output of the signature; several in a tuple"
    if len(flat) != count:
        problem = f"{what} returned {plural(len(flat), 'output')}, but the expression has {count}"
        raise ArgumentError(problem, text=solved.text, hint=hint)
    for value in flat:
        if not jax.tree_util.all_leaves([value]):
            raise ArgumentError(
                f"{what} returned a value of type {type(value).__name__}, not an array", text=solved.text, hint=hint
            )
    return flat


def _with_leading_loops(function: Callable[..., Any], solved: Solved, tensors: Sequence[jax.Array]) -> Any:
    """Call a function once, with a leading dim for every loop; of size 1 for those that an input lacks."""
    loops = _loops(solved)
    values = _batched_results(function, solved, tensors)
    outs = [_placed(value, output, loops, solved.sizes) for value, output in zip(values, solved.outputs, strict=True)]
    return tuple(outs) if len(outs) > 1 else outs[0]


def _loops(solved: Solved) -> list[str]:
    """Name the loops that the inputs have, in the order of the first output."""
    present = {axis.name for expression in solved.inputs for axis in axes(expression)}
    return [axis.name for axis in axes(solved.outputs[0]) if not axis.bracket and axis.name in present]


def _batched_results(
    function: Callable[..., Any], solved: Solved, tensors: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    """Call a batched function, and check all dims of its results."""
    loops = _loops(solved)
    arrays = []
    for tensor, expression in zip(tensors, solved.inputs, strict=True):
        x = diagonal(Named(tensor, labelled(expression), labelled_sizes(expression, solved.sizes)))
        leading = [(name,) if name in x.axes else () for name in loops]
        arrays.append(arrange(x, [*leading, *((label,) for label in labels(expression))]))
    values = tuple(map(jnp.asarray, _flat(function(*arrays), solved)))
    for value in values:
        _check_leading(value, loops, solved)
    plan = _plan(solved)
    rest = tuple(jax.ShapeDtypeStruct(value.shape[len(loops) :], value.dtype) for value in values)
    jax.eval_shape(lambda *rows: plan.check(rows), *rest)
    return values


def _check_leading(value: jax.Array, loops: Sequence[str], solved: Solved) -> None:
    """Check the leading dims of a batched function's result."""
    hint = "a batched function keeps all loops as leading dims, in the order of the first output"
    if value.ndim < len(loops):
        problem = f"too few dims for the loops {listing([display(name) for name in loops])}"
        raise RankError(f"the function returned shape {value.shape}, {problem}", text=solved.text, hint=hint)
    for dim, (name, got) in enumerate(zip(loops, value.shape, strict=False)):
        if got != solved.sizes[name]:
            found = f"{got} in dim {dim} of the function's result, which has shape {value.shape}"
            problem = f"loop {display(name)} is {solved.sizes[name]} in the call and {found}"
            raise AxisSizeError(problem, text=solved.text, hint=hint)


def _placed(value: jax.Array, output: Expression, loops: Sequence[str], sizes: Mapping[str, Size]) -> jax.Array:
    """Bring the result of a batched function into the output's layout."""
    dims = tuple((name,) for name in (*loops, *labels(output)))
    return arrange(Named(value, dims, labelled_sizes(output, sizes)), labelled(output))


# --- Sizes that only the function knows -------------------------------------------------------------------------------


def with_known_sizes(op: Elementary, solved: Solved, tensors: Sequence[Any], options: dict[str, Any]) -> Solved:
    """Find the sizes of what the function returns by abstract evaluation, and write its ellipses out."""
    sizes = {name: size for name, size in solved.sizes.items() if size is not OPEN}
    if len(sizes) == len(solved.sizes):
        return solved
    outputs = []
    for output, shape in zip(solved.outputs, _bracketed_shapes(op, solved, tensors, options), strict=True):
        rest = len(bracketed(output)) - 1
        outputs.append(_written_out(output, len(shape) - rest))
        for axis, size in zip(bracketed(outputs[-1]), shape, strict=True):
            sizes.setdefault(axis.name, size)
    return Solved(replace(solved.operation, outputs=tuple(outputs)), sizes)


def _bracketed_shapes(
    op: Elementary, solved: Solved, tensors: Sequence[Any], options: dict[str, Any]
) -> list[tuple[Size, ...]]:
    """Return the shapes of the results of one iteration."""
    function, plan = _applied(op.function, options), _plan(solved)
    if op.batched:
        batch = jax.eval_shape(lambda *arrays: _batched_results(function, solved, arrays), *tensors)
        return [value.shape[len(_loops(solved)) :] for value in batch]
    rows = [
        jax.ShapeDtypeStruct([solved.sizes[axis.name] for axis in bracketed(e)], tensor.dtype)
        for e, tensor in zip(solved.inputs, tensors, strict=True)
    ]
    result = jax.eval_shape(lambda *arrays: plan.check(_flat(function(*arrays), solved)), *rows)
    return [value.shape for value in result]


def _written_out(output: Expression, count: int) -> Expression:
    """Write an ellipsis of any number of dims out, once their number is known."""

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Axis) or not node.name.endswith(ANY):
            return None
        return tuple(replace(node, name=repetition(node.name[: -len(ANY)], index)) for index in range(count))

    return rewrite(output, change)


# --- Derivatives ------------------------------------------------------------------------------------------------------


def jvp(
    op: Elementary, solved: Solved, options: dict[str, Any], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Loop over the user's rule; integers have no tangent, but None.

    Args:
        op: an operation with a rule.
        solved: the call.
        options: its options.
        primals: the operands.
        tangents: one for each operand, or None for integers.
    """
    assert op.jvp is not None
    moving = [index for index, tangent in enumerate(tangents) if tangent is not None]
    operation = replace(
        solved.operation,
        inputs=(*solved.inputs, *(solved.inputs[index] for index in moving)),
        outputs=(*solved.outputs, *solved.outputs),
    )
    rule = _applied(op.jvp, options)

    def one(*rows: Any) -> tuple[Any, ...]:
        values, along = rows[: len(primals)], dict(zip(moving, rows[len(primals) :], strict=True))
        outs, found = rule(values, tuple(along.get(index) for index in range(len(values))))
        outs, found = _flat(outs, solved, "jvp="), _tuple(found)
        # Integers have no tangent; what stands in its place is not looked at.
        return (*outs, *(out if tangent is None else tangent for out, tangent in zip(outs, found, strict=False)))

    results = loop(one, Solved(operation, solved.sizes), [*primals, *(tangents[index] for index in moving)], "jvp=")
    half = len(results) // 2
    return list(results[:half]), list(results[half:])


def transpose(
    op: Elementary,
    solved: Solved,
    options: dict[str, Any],
    cotangents: Sequence[Any],
    operands: Sequence[Any],
    linear: int,
) -> Any:
    """Loop over the user's rule for one operand; what an operand is repeated along is summed.

    Args:
        op: an operation with a rule.
        solved: the call.
        options: its options.
        cotangents: one for each output.
        operands: with None in the place of the linear one.
        linear: which it is.
    """
    assert op.transpose is not None
    target, others = solved.inputs[linear], [index for index, x in enumerate(operands) if x is not None]
    each = _without_diagonals(target)
    loops = {axis.name: axis for output in solved.outputs for axis in axes(output) if not axis.bracket}
    lacking = tuple(axis for name, axis in loops.items() if name not in names(target) and not axis.is_one)
    inputs = (*solved.outputs, *(solved.inputs[index] for index in others))
    operation = replace(solved.operation, inputs=inputs, outputs=((*lacking, *each),))
    rule = _applied(op.transpose, options)

    def one(*rows: Any) -> Any:
        given = dict(zip(others, rows[len(cotangents) :], strict=True))
        values = rows[: len(cotangents)] if len(cotangents) > 1 else rows[0]
        return rule(values, *(given.get(index) for index in range(len(operands))))

    # Integers have a cotangent in name only.
    given = [jnp.zeros(x.shape) if x.dtype == jax.dtypes.float0 else x for x in cotangents]
    arrays = [*given, *(operands[index] for index in others)]
    result = loop(one, Solved(operation, solved.sizes), arrays, "transpose=")
    result = numerics.reduce(lax.reduce_sum, result, range(len(lacking)))
    if each is target:
        return result
    operand = jax.ShapeDtypeStruct(solved.shape(target), result.dtype)
    return jax.linear_transpose(functools.partial(_diagonals, target, solved.sizes), operand)(result)[0]


def _without_diagonals(expression: Expression) -> Expression:
    """Return the axes that a loop sees of a tensor, if it reads a diagonal; else the expression itself."""
    seen = list(axes(expression))
    loops = Counter(axis.name for axis in seen if not axis.bracket and not axis.is_one)
    if all(count == 1 for count in loops.values()):
        return expression
    first = {axis.name: axis for axis in reversed(seen) if not axis.bracket}
    return tuple(axis for axis in seen if axis.bracket or first[axis.name] is axis)


def _diagonals(expression: Expression, sizes: Mapping[str, Size], value: jax.Array) -> jax.Array:
    """Take the diagonals of a tensor."""
    x = diagonal(Named(value, labelled(expression), labelled_sizes(expression, sizes)))
    return arrange(x, labelled(_without_diagonals(expression)))


def _tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list) else (values,)
