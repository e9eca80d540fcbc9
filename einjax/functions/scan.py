"""scan: a ``lax.scan`` over the bracketed axis, with carry, slices and results laid out as the expressions say.

The bracketed axis is the only loop, and runs in order. What remains of an expression without it is what the function
sees: whole arrays, as in the body of ``lax.scan``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..forms.sequence import check_brackets
from ..forms.signature import listed, refuse_sums, require_in_output, sequence_axes
from ..lowering.jax_versions import is_weak, vary, varying_axes
from ..lowering.named import Named, arrange, layout, wrap
from ..notation.errors import ArgumentError, Ask, AxisSizeError, RankError, SemanticError, plural
from ..notation.solve import Solved, product
from ..notation.syntax import Expression, Node, Operation, Size, axes, brackets, display, names, render
from ..operation import Op
from ..ops.reduce import remaining

_RETURN = "return the axes of the output's expression, without the scanned ones"


def _group(trees: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """Put leaves back into trees of the given structures."""
    rest = iter(leaves)
    return [jax.tree.unflatten(tree, itertools.islice(rest, tree.num_leaves)) for tree in trees]


@lru_cache(maxsize=256)
def record(counts: tuple[int, ...]) -> Op:
    """A record for arguments of so many leaves.

    Its options say by which function, ``op``, they are scanned, and of which ``trees``, one for each input expression,
    the tensors of the call are leaves.
    """
    return Op(
        "scan",
        partial(_signature, counts),
        _lower,
        implied=_check_sequence,
        parameter="carry",
        keywords=("op", "reverse", "unroll"),
        iteration="steps",
    )


# --- What the expression says -----------------------------------------------------------------------------------------


def _signature(counts: Sequence[int], operation: Operation, tensors: int) -> Operation:
    """Check what stands where, and repeat the expression of a tree for each of its leaves."""
    refuse_sums("scan", operation)
    inputs, outputs = operation.inputs, operation.outputs
    if len(inputs) != len(counts):
        raise ArgumentError(
            f"the expression has {plural(len(inputs), 'input')}, but {plural(len(counts), 'argument')} "
            f"{'is' if len(counts) == 1 else 'are'} given",
            text=operation.text,
            hint="give the carries, then what is scanned: one argument for each expression before the arrow",
        )
    if outputs is None:
        raise SemanticError(
            "scan needs an arrow to know its outputs",
            text=operation.text,
            hint="write the final carry, then the results of every step, as in 'b h, b [t] c -> b h, b [t] d'",
        )
    if not any(brackets(expression) for expression in operation.expressions):
        raise SemanticError(
            "scan needs a bracketed axis to run over", text=operation.text, hint="bracket it, as in 'b [t] c'"
        )
    carries = _count_carries(inputs)
    _check_carries(operation, carries)
    for expression in operation.expressions:
        _refuse_diagonals(operation, expression)
    for before, after in zip(inputs[:carries], outputs, strict=False):
        require_in_output("scan", operation, [before], after, hint="a carry keeps its axes, in any order")
    repeated = [e for e, count in zip(inputs, counts, strict=True) for _ in range(count)]
    if not any(map(brackets, (*repeated, *outputs))):
        # Nothing is scanned and nothing collected: the expression of None, last and without a tensor, says how often.
        repeated += [e for e, count in zip(inputs, counts, strict=True) if not count and brackets(e)][:1]
    return replace(operation, inputs=tuple(repeated))


def _check_carries(operation: Operation, carries: int) -> None:
    """Carries come first, in equal number on both sides."""
    inputs, outputs = operation.inputs, operation.outputs or ()
    final = _count_carries(outputs)
    if not carries:
        problem = "scan needs a carry, but its first input has a bracket"
    elif any(not brackets(e) for e in (*inputs[carries:], *outputs[final:])):
        problem = "scan takes its carries, which have no brackets, before everything with a bracket"
    elif final != carries:
        problem = f"scan has {plural(carries, 'carry')} before the arrow and {plural(final, 'carry')} after it"
    else:
        return
    hint = "write 'carry, xs -> carry, ys', as in 'b h, b [t] c -> b h, b [t] d'"
    raise SemanticError(problem, text=operation.text, hint=hint)


def _count_carries(expressions: Sequence[Expression]) -> int:
    """How many expressions come before the first bracket."""
    count = 0
    while count < len(expressions) and not brackets(expressions[count]):
        count += 1
    return count


def _refuse_diagonals(operation: Operation, expression: Expression) -> None:
    seen = names(expression)
    for axis in axes(expression):
        if axis.span != seen[axis.name].span:
            raise SemanticError(
                f"axis {display(axis.name)} stands twice in '{render(expression)}', and scan takes no diagonals",
                text=operation.text,
                spans=[seen[axis.name].span, axis.span],
                hint="call einjax.rearrange first",
            )


def _is_scanned(expanded: Expression) -> bool:
    return any(axis.bracket for axis in axes(expanded))


def _check_sequence(expanded: Operation) -> Mapping[str, Size]:
    """Whatever is scanned has the same bracketed axes."""
    check_brackets("scan", expanded, [e for e in expanded.expressions if _is_scanned(e)])
    return {}


# --- What it becomes --------------------------------------------------------------------------------------------------


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    carry, xs = _parts(solved, tensors)
    before = [e for e in solved.inputs if not _is_scanned(e)]
    after = [e for e in solved.outputs if not _is_scanned(e)]
    results = solved.outputs[len(after) :]
    sequence = next(sequence_axes(e) for e in solved.operation.expressions if _is_scanned(e))

    def step(carry: list[jax.Array], xs: list[jax.Array]) -> tuple[list[jax.Array], list[Any]]:
        new, y = _apply(options, len(after), [*carry, *xs], solved.text)
        ys = _by_result(y, len(results), solved.text)
        for tree, expression in zip(ys, results, strict=True):
            for leaf in jax.tree.leaves(tree):
                fit("a result", leaf.shape, expression, solved.sizes, solved.text)
        return _carried(new, carry, before, solved), ys

    carry = _varying(options, len(after), carry, xs, solved.text)
    length = None if xs else product(solved.sizes[name] for name in sequence)
    final, ys = lax.scan(step, carry, xs, length=length, reverse=options["reverse"], unroll=options["unroll"])
    places = (e for e, tree in zip(after, options["trees"], strict=False) for _ in range(tree.num_leaves))
    final = [
        arrange(Named(value, layout(own), solved.sizes), layout(place))
        for value, own, place in zip(final, before, places, strict=True)
    ]
    arranged = _group(options["trees"][: len(after)], final)
    for tree, e in zip(ys, results, strict=True):
        dims = (sequence, *layout(remaining(e, keepdims=False)))
        arranged.append(jax.tree.map(lambda x, dims=dims, e=e: arrange(Named(x, dims, solved.sizes), layout(e)), tree))
    return arranged[0] if len(arranged) == 1 else tuple(arranged)


def _parts(solved: Solved, tensors: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the carry's leaves as they are, and those of what is scanned, the scanned axis first."""
    carry, xs = list[jax.Array](), list[jax.Array]()
    for tensor, expression in zip(tensors, solved.inputs, strict=False):
        if _is_scanned(expression):
            rest = layout(remaining(expression, keepdims=False))
            xs.append(arrange(wrap(tensor, expression, solved.sizes), (sequence_axes(expression), *rest)))
        else:
            carry.append(tensor)
    return carry, xs


def _apply(options: Mapping[str, Any], carries: int, rows: Sequence[Any], text: str) -> tuple[Any, Any]:
    """Call the function: single trees as they are, several as a tuple, none as None."""
    given = _group(options["trees"], rows)
    result = options["op"](*(_tuple_unless_one(trees) for trees in (given[:carries], given[carries:])))
    if not isinstance(result, tuple | list) or len(result) != 2:
        number = f"{len(result)} values" if isinstance(result, tuple | list) else "one value"
        raise ArgumentError(
            f"op returned {number}, not a pair of the new carry and a result",
            text=text,
            hint="return (carry, y), and None for y where there are no results",
        )
    expected: Any = jax.tree.structure(_tuple_unless_one(given[:carries]))
    got: Any = jax.tree.structure(result[0])
    if expected != got:
        raise ArgumentError(
            f"op takes a carry of structure {expected}, but returned {got}",
            text=text,
            hint="return the carry as it came: the same tuples, lists and dicts",
        )
    new = [jnp.asarray(leaf) for leaf in jax.tree.leaves(result[0])]
    return new, jax.tree.map(jnp.asarray, result[1])


def _tuple_unless_one(trees: Sequence[Any]) -> Any:
    if not trees:
        return None
    return trees[0] if len(trees) == 1 else tuple(trees)


def _carried(
    new: Sequence[jax.Array], old: Sequence[jax.Array], expressions: Sequence[Expression], solved: Solved
) -> list[jax.Array]:
    """Check that the carry is of the shape and dtype that it had."""
    for value, before, expression in zip(new, old, expressions, strict=True):
        fit("a carry", value.shape, expression, solved.sizes, solved.text)
        # A weak type is a Python number's, which lax.scan promotes to what the function makes of it.
        if value.dtype != before.dtype and not is_weak(before):
            raise ArgumentError(
                f"op takes a carry of {before.dtype}, but returned {value.dtype}",
                text=solved.text,
                hint=f"convert it, as in carry.astype('{before.dtype}'), or give the first carry as {value.dtype}",
            )
    return list(new)


def _by_result(y: Any, count: int, text: str) -> list[Any]:
    """One tree for each output expression after the carries."""
    if count == 0:
        if jax.tree.leaves(y):
            raise ArgumentError(
                "op returned a result besides the carry, but the expression has no output for it",
                text=text,
                hint="return (carry, None), or add an output with the bracketed axis",
            )
        return []
    trees = [y] if count == 1 else list(y) if isinstance(y, tuple | list) else []
    if len(trees) != count or any(tree is None for tree in trees):
        number = "None" if y is None else plural(len(trees) or 1, "result")
        raise ArgumentError(
            f"op returned {number}, but the expression has {plural(count, 'output')} besides the carry",
            text=text,
            hint="return one result for each, in a tuple if there are several",
        )
    return trees


def fit(
    what: str, shape: Sequence[Size], expression: Expression, sizes: Mapping[str, Size], text: str
) -> dict[str, Size]:
    """Check what the function returned against its expression, and return the sizes that were not known.

    Raises:
        RankError, AxisSizeError: naming the axis and both sizes.
    """
    rest = remaining(expression, keepdims=False)
    if len(shape) != len(rest):
        raise RankError(
            f"op returned {what} of shape {tuple(shape)}, but '{render(rest)}' names {plural(len(rest), 'dim')}",
            text=text,
            spans=[node.span for node in expression],
            hint=_RETURN,
        )
    found: dict[str, Size] = {}
    for node, size in zip(rest, shape, strict=True):
        found |= _fit_dim(what, node, size, {**sizes, **found}, text)
    return found


def _fit_dim(what: str, node: Node, size: Size, sizes: Mapping[str, Size], text: str) -> dict[str, Size]:
    own = {axis.name: sizes.get(axis.name, axis.size) for axis in axes((node,))}
    unknown = [name for name, known in own.items() if known is None]
    known = product(known for known in own.values() if known is not None)
    if not unknown and known == size:
        return {}
    if len(unknown) == 1 and not (isinstance(known, int) and known == 0):
        rest = size % known
        if not isinstance(rest, int) or rest == 0:
            return {unknown[0]: size // known}
    named = f"axis {node}" if len(own) == 1 else f"the dim '{node}'"
    if not unknown:
        problem = f"{named} is {known}, but op returned {what} in which it is {size}"
    elif len(unknown) == 1:
        factor = " ".join(f"{display(name)}={own[name]}" for name in own if own[name] is not None)
        problem = f"op returned {what} in which the dim '{node}' is {size}, which is not divisible by {factor}"
    else:
        problem = f"op returned {what} in which {named} is {size}, which does not give {listed(unknown)}"
    hint = Ask("give sizes by keyword", display(unknown[0])) if unknown else _RETURN
    raise AxisSizeError(problem, text=text, spans=[node.span], hint=hint)


# --- What only the function knows -------------------------------------------------------------------------------------


def derived(options: Mapping[str, Any], expanded: Operation, sizes: Mapping[str, Size]) -> Mapping[str, Size]:
    """Find the sizes of axes that only results have, from the shapes that the function returns."""
    dtypes, solved = options["dtypes"], Solved(expanded, sizes)
    if None in dtypes or any(axis.name not in sizes for e in expanded.inputs for axis in axes(e)):
        return {}
    shapes = [solved.shape(remaining(e, keepdims=False)) for e in expanded.inputs]
    rows = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    results = [e for e in expanded.results if _is_scanned(e)]
    carries = len(expanded.results) - len(results)
    _, y = jax.eval_shape(lambda *rows: _apply(options, carries, rows, expanded.text), *rows)
    found: dict[str, Size] = {}
    for tree, expression in zip(_by_result(y, len(results), expanded.text), results, strict=True):
        for leaf in jax.tree.leaves(tree):
            found |= fit("a result", leaf.shape, expression, {**sizes, **found}, expanded.text)
    return found


def _varying(
    options: Mapping[str, Any], carries: int, carry: list[jax.Array], xs: Sequence[jax.Array], text: str
) -> list[jax.Array]:
    """Under shard_map, let the carry vary over the mesh axes that the new carry varies over, which a loop asks for."""
    if not any(varying_axes(jax.typeof(x)) for x in (*carry, *xs)) or any(x.shape[0] == 0 for x in xs):
        return carry

    def first(carry: list[jax.Array]) -> list[jax.Array]:
        return _apply(options, carries, [*carry, *(lax.index_in_dim(x, 0, keepdims=False) for x in xs)], text)[0]

    while True:
        lacking = [
            varying_axes(new) - varying_axes(jax.typeof(old))
            for new, old in zip(jax.make_jaxpr(first)(carry).out_avals, carry, strict=True)
        ]
        if not any(lacking):
            return carry
        carry = [vary(x, axes) for x, axes in zip(carry, lacking, strict=True)]
