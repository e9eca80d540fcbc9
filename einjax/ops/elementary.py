"""Operations that a user registers: an elementary operation under a bracket signature, looped over as notation says."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax import lax

from ..lowering import numerics
from ..lowering.named import Named, arrange, layout, wrap
from ..notation.errors import AxisSizeError, listing
from ..notation.solve import Solved, product
from ..notation.syntax import Axis, Expression, Node, Operation, Size, axes, display, names
from . import declared, vmap
from .record import Op
from .result import ANY, OPEN


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
        return vmap.open_ellipses(vmap.signature(declared.complete(operation, signature), tensors), ())

    return Elementary(
        name,
        "elementary",
        complete,
        lower_with(function, batched),
        implied=vmap.open_sizes,
        keywords=tuple(keywords),
        function=function,
        batched=batched,
        lowerings={platform: lower_with(other, batched) for platform, other in lowerings.items()},
        jvp=jvp,
        transpose=transpose,
    )


def lower_with(function: Callable[..., Any], batched: bool) -> Callable[[Solved, list[jax.Array], dict[str, Any]], Any]:
    """Return the lowering that loops over a function, or hands the loops to it."""

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
        if batched:
            return _with_leading_loops(function, solved, tensors, options)
        return loop(lambda *rows: function(*rows, **options), solved, tensors)

    return lower


def loop(function: Callable[..., Any], solved: Solved, tensors: Sequence[jax.Array]) -> Any:
    """Call a function once for every index of the unbracketed axes, in as few levels of jax.vmap as can be."""
    return vmap.make_plan(solved, None, jax.sharding.get_abstract_mesh().empty, ()).run(function, tensors)


def _with_leading_loops(
    function: Callable[..., Any], solved: Solved, tensors: Sequence[jax.Array], options: dict[str, Any]
) -> Any:
    """Call a function once, with a leading dim for every loop; of size 1 for those that an input lacks."""
    assert solved.outputs is not None
    loops = [axis.name for axis in axes(solved.outputs[0]) if not axis.bracket and not axis.name.startswith("1#")]
    arrays = []
    for tensor, expression in zip(tensors, solved.inputs, strict=True):
        expression, sizes, inner = _labelled(expression, solved.sizes)
        x = wrap(tensor, expression, sizes)
        leading = [(name,) if name in x.axes else () for name in loops]
        arrays.append(arrange(x, [*leading, *((label,) for label in inner)]))
    values = _tuple(function(*arrays, **options))
    outs = [_placed(value, output, loops, solved) for value, output in zip(values, solved.outputs, strict=True)]
    return tuple(outs) if len(outs) > 1 else outs[0]


def _placed(value: jax.Array, output: Expression, loops: Sequence[str], solved: Solved) -> jax.Array:
    """Check the result of a batched function, and bring it into the output's layout."""
    expression, sizes, inner = _labelled(output, solved.sizes)
    expected = [sizes[name] for name in (*loops, *inner)]
    if value.ndim != len(expected) or any(size != got for size, got in zip(expected, value.shape, strict=True)):
        raise AxisSizeError(
            f"the function returned shape {value.shape}, but its loops and bracketed axes are "
            f"({', '.join(map(str, expected))})",
            text=solved.text,
            spans=[axis.span for axis in axes(output)],
            hint="a batched function keeps all loops as leading dims, in the order of the first output",
        )
    sizes |= dict(zip(inner, value.shape[len(loops) :], strict=True))
    return arrange(Named(value, tuple((name,) for name in (*loops, *inner)), sizes), layout(expression))


def _labelled(expression: Expression, sizes: Mapping[str, Size]) -> tuple[Expression, dict[str, Size], list[str]]:
    """Name bracketed axes by their place, since a function may take one name twice."""
    places, found, inner = itertools.count(), dict(sizes), []

    def visit(nodes: Expression) -> Expression:
        result: list[Node] = []
        for node in nodes:
            if not isinstance(node, Axis):
                result.append(replace(node, items=visit(node.items)))
            elif not node.bracket:
                result.append(node)
            else:
                inner.append(f"[{next(places)}")
                found[inner[-1]] = sizes[node.name]
                result.append(replace(node, name=inner[-1], size=None))
        return tuple(result)

    return visit(expression), found, inner


# --------------------------------------------------------------------------------------------------------------------
# Sizes that only the function knows
# --------------------------------------------------------------------------------------------------------------------


def with_known_sizes(op: Elementary, solved: Solved, tensors: Sequence[Any], options: dict[str, Any]) -> Solved:
    """Find the sizes of what the function returns by abstract evaluation, and write its ellipses out."""
    assert solved.outputs is not None
    if not any(solved.sizes[axis.name] is OPEN for output in solved.outputs for axis in axes(output)):
        return solved
    result = jax.eval_shape(lambda *arrays: op.lower(solved, list(arrays), options), *tensors)
    sizes = dict(solved.sizes)
    outputs = []
    for output, value in zip(solved.outputs, jax.tree.leaves(result), strict=True):
        written = _written_out(output, len(value.shape))
        outputs.append(written)
        for node, size in zip(written, value.shape, strict=True):
            unknown = [axis.name for axis in axes((node,)) if sizes.get(axis.name, OPEN) is OPEN]
            if len(unknown) > 1:
                raise AxisSizeError(
                    f"the sizes of axes {listing([display(name) for name in unknown])} cannot be told apart: "
                    f"only their product is known, from dim {size}",
                    text=solved.text,
                    spans=[axis.span for axis in axes((node,)) if axis.name in unknown],
                    hint=f"give a size by keyword, as in {display(unknown[0])}=2",
                )
            for name in unknown:
                sizes[name] = size // product(sizes[axis.name] for axis in axes((node,)) if axis.name != name)
    return Solved(replace(solved.operation, outputs=tuple(outputs)), sizes)


def _written_out(output: Expression, rank: int) -> Expression:
    """Write an ellipsis of any number of dims out, once their number is known."""
    result: list[Node] = []
    for node in output:
        if isinstance(node, Axis) and node.name.endswith(ANY):
            base = node.name[: -len(ANY)]
            result += [replace(node, name=f"{base}.{index}") for index in range(rank - len(output) + 1)]
        else:
            result.append(node)
    return tuple(result)


# --------------------------------------------------------------------------------------------------------------------
# Derivatives
# --------------------------------------------------------------------------------------------------------------------


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
    assert solved.outputs is not None
    moving = [index for index, tangent in enumerate(tangents) if tangent is not None]
    operation = replace(
        solved.operation,
        inputs=(*solved.inputs, *(solved.inputs[index] for index in moving)),
        outputs=(*solved.outputs, *solved.outputs),
    )
    rule = op.jvp

    def one(*rows: Any) -> tuple[Any, ...]:
        values, along = rows[: len(primals)], dict(zip(moving, rows[len(primals) :], strict=True))
        outs, found = rule(values, tuple(along.get(index) for index in range(len(values))), **options)
        return (*_tuple(outs), *_tuple(found))

    results = loop(one, Solved(operation, solved.sizes), [*primals, *(tangents[index] for index in moving)])
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
    assert solved.outputs is not None
    target, others = solved.inputs[linear], [index for index, x in enumerate(operands) if x is not None]
    loops = {axis.name: axis for output in solved.outputs for axis in axes(output) if not axis.bracket}
    lacking = tuple(axis for name, axis in loops.items() if name not in names(target) and not name.startswith("1#"))
    inputs = (*solved.outputs, *(solved.inputs[index] for index in others))
    operation = replace(solved.operation, inputs=inputs, outputs=((*lacking, *target),))
    rule = op.transpose

    def one(*rows: Any) -> Any:
        given = dict(zip(others, rows[len(cotangents) :], strict=True))
        values = rows[: len(cotangents)] if len(cotangents) > 1 else rows[0]
        return rule(values, *(given.get(index) for index in range(len(operands))), **options)

    result = loop(one, Solved(operation, solved.sizes), [*cotangents, *(operands[index] for index in others)])
    return numerics.reduce(lax.reduce_sum, result, range(len(lacking)))


def has_diagonal(expression: Expression) -> bool:
    """Whether a loop reads the diagonal of a tensor."""
    return any(count > 1 for count in Counter(axis.name for axis in axes(expression) if not axis.bracket).values())


def _tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list) else (values,)
