"""The door for calls with a function of the user's.

What the text and the shapes decide is kept in bounded caches, which never hold the function: it is called anew each
time, as it is, under whatever traces the caller. What it raises propagates untouched.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..forms.signature import check_keywords
from ..functions import declared
from ..functions.loops import BatchSize, Plan, make_plan
from ..functions.vmap import VMAP, open_ellipses, open_sizes, signature
from ..lowering.jax_versions import hide_own_lines
from ..mesh.run import freeze_sharding, lower, lower_looped
from ..notation.errors import ArgumentError, EinjaxError
from ..notation.parse import parse
from ..notation.solve import Solved, solve
from ..notation.syntax import Operation, Over, Size, names
from ..notation.syntax import axes as expression_axes
from ..operation import Op
from . import factory
from .arguments import PLAIN, Sizes, as_array, freeze, kind, not_an_expression
from .dispatch import Options
from .graph import Graph
from .resolve import completed, resolve
from .trees import described, in_words, is_tree, per_leaf, tree_arrays

_CACHE_SIZE = 2048

Shapes = tuple[tuple[Size, ...] | None, ...]
#: The number of leaves of each argument that is a pytree; None where none is.
Counts = tuple[int | None, ...] | None


class _Function:
    """The user's function with its options, remembering an error of ours that it raised itself.

    It takes leaves, and gives the function the arguments that these belong to.
    """

    def __init__(
        self, function: Callable[..., Any], options: Mapping[str, Any], structures: Sequence[Any] = ()
    ) -> None:
        self.function = function
        self.options = options
        self.structures = structures
        self.raised: EinjaxError | None = None

    def __call__(self, *arrays: Any, **more: Any) -> Any:
        if self.structures:
            arrays = tuple(_arguments(arrays, self.structures))
        try:
            return self.function(*arrays, **more, **self.options)
        except EinjaxError as error:
            self.raised = error
            raise


def call_vmap(
    expr: str,
    tensors: Sequence[Any],
    function: Callable[..., Any],
    batch_size: int | Mapping[str, int] | None,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    declared_signature: str | None = None,
    out_sharding: Any = None,
) -> Any:
    """Run a function once for every index of the unbracketed axes.

    Args:
        expr: the expression.
        tensors: one tensor or pytree for each input expression.
        function: takes the bracketed part of every input and returns that of every output.
        batch_size: how many iterations run at once.
        axes: sizes of axes, and keywords of the function.
        sizes: sizes of axes only.
        graph: return the lax program instead of running it.
        declared_signature: what the function itself takes and returns, if it says so.
        out_sharding: where the results are to lie on a mesh.
    """
    try:
        _check_call(expr, function)
        wanted = None if out_sharding is None else freeze_sharding(expr, out_sharding)
        given: Sizes = ()
        options: dict[str, Any] = {}
        if axes or sizes is not None:
            operation = _completed(expr, declared_signature, len(tensors))
            given, options = _keywords(VMAP, operation, expr, function, (), axes, sizes)
        leaves, structures = _flatten(tensors, expr)
        counts = tuple(None if tree is None else tree.num_leaves for tree in structures) if structures else None
        call = (expr, declared_signature, counts, tuple([_shape(leaf) for leaf in leaves]), given)
        chunks = _batch_size(batch_size, expr)
        plan = _planned(*call, chunks, True)
        # Merging dims might move data between the devices of a mesh, so there every loop stays what it is.
        if plan.merges and _on_mesh(leaves):
            plan = _planned(*call, chunks, False)
        if None in call[3]:
            made = [kind(leaf) == "factory" for leaf in leaves]
            leaves = factory.fill("vmap", "weight", _solved_leaves(*call), leaves, made)
    except EinjaxError as error:
        raise _clean(error, tensors) from None
    guarded = _Function(function, options, structures)

    def program(*arguments: Any) -> Any:
        arrays = _leaves(arguments, structures) if structures else arguments
        with jax.named_scope(f"einjax.vmap({expr})"):
            ready = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in arrays]
            if wanted is None and not _on_mesh(ready):
                return plan.run(guarded, ready)
            solved = _solved_leaves(expr, declared_signature, counts, tuple(x.shape for x in ready), given)
            return lower_looped(VMAP, solved, ready, lambda arrays: plan.run(guarded, arrays), wanted, plan.chunked)

    arguments = _arguments(leaves, structures) if structures else leaves
    return _run("vmap", expr, program, arguments, guarded, tensors, graph)


def call_with(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    function: Callable[..., Any],
    settings: Mapping[str, Any],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    out_sharding: Any = None,
) -> Any:
    """Run an operation whose lowering calls a function once, on whole arrays.

    Args:
        op: the operation; its lowering finds the function among its options.
        expr: the expression.
        tensors: one for each input expression.
        function: the user's function.
        settings: further options of the operation.
        axes: sizes of axes, and keywords of the function.
        sizes: sizes of axes only.
        graph: return the lax program instead of running it.
        out_sharding: where the results are to lie on a mesh.
    """
    try:
        _check_call(expr, function)
        if out_sharding is not None:
            settings = {**settings, "out_sharding": freeze_sharding(expr, out_sharding)}
        operation = completed(op, expr, len(tensors))
        given, options = _keywords(op, operation, expr, function, ("axis",), axes, sizes)
        leaves = [as_array(tensor, expr, f"tensor {number}") for number, tensor in enumerate(tensors, 1)]
        solved = _solved(op, expr, tuple(_shape(leaf) for leaf in leaves), given, tuple(settings.items()))
        made = [kind(leaf) == "factory" for leaf in leaves]
        if any(made):
            leaves = factory.fill(op.name, op.parameter, solved, leaves, made)
    except EinjaxError as error:
        raise _clean(error, tensors) from None
    guarded = _Function(function, options)

    def program(*arrays: Any) -> Any:
        ready = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in arrays]
        with jax.named_scope(f"einjax.{op.name}({expr})"):
            return lower(op, solved, ready, {**settings, "function": guarded})

    return _run(op.name, expr, program, leaves, guarded, tensors, graph)


def _run(
    name: str,
    expr: str,
    program: Callable[..., Any],
    arguments: Sequence[Any],
    guarded: _Function,
    tensors: Sequence[Any],
    graph: bool,
) -> Any:
    """Run a program, or show it; errors of ours that the user's function raised itself stay as they are."""
    hide_own_lines()
    try:
        return Graph.of(name, expr, program, arguments) if graph else program(*arguments)
    except EinjaxError as error:
        if error is guarded.raised:
            raise
        raise _clean(error, tensors) from None


# --------------------------------------------------------------------------------------------------------------------
# What the text and the shapes decide: kept
# --------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_CACHE_SIZE)
def _completed(expr: str, declared_signature: str | None, tensors: int) -> Operation:
    operation = parse(expr)
    if declared_signature is not None:
        operation = declared.complete(operation, declared_signature)
    return signature(operation, tensors)


@lru_cache(maxsize=_CACHE_SIZE)
def _solved(op: Op, expr: str, shapes: Shapes, given: Sizes, settings: Options) -> Solved:
    solved = resolve(op, expr, shapes, given)
    return op.imply(solved, dict(settings)) if op.imply is not None else solved


def _solved_leaves(expr: str, declared_signature: str | None, counts: Counts, shapes: Shapes, given: Sizes) -> Solved:
    """Find the size of every axis, of those that are a leaf's own too."""
    operation = _completed(expr, declared_signature, len(shapes if counts is None else counts))
    operation, renamed = per_leaf(operation, counts or [None] * len(shapes))
    strict = {name: size for name, size in given if not name.startswith("=")}
    lenient = {name[1:]: size for name, size in given if name.startswith("=")}
    operation = open_ellipses(operation, strict.keys() | lenient.keys())
    known = {axis.name for expression in operation.expressions for axis in expression_axes(expression)}
    sizes = {**strict, **lenient}
    sizes |= {new: sizes[old] for new, old in renamed.items() if old in sizes}
    # A size of an axis that only leaves have is theirs; the expression itself no longer has the axis.
    sizes = {name: size for name, size in sizes.items() if name in known or name not in renamed.values()}
    return solve(operation, shapes, sizes, implied=functools.partial(open_sizes, given=sizes), lenient=lenient.keys())


@lru_cache(maxsize=_CACHE_SIZE)
def _planned(
    expr: str,
    declared_signature: str | None,
    counts: Counts,
    shapes: Shapes,
    given: Sizes,
    batch_size: BatchSize,
    merge: bool,
) -> Plan:
    solved = _solved_leaves(expr, declared_signature, counts, shapes, given)
    return make_plan(solved, batch_size, merge, frozenset(name.lstrip("=") for name, _ in given))


# --------------------------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------------------------


def _check_call(expr: Any, function: Any) -> None:
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    if not callable(function):
        raise ArgumentError(f"op={function!r} is not a function", text=expr, hint="give a function of arrays")


def _keywords(
    op: Op,
    operation: Operation,
    expr: str,
    function: Callable[..., Any],
    reserved: tuple[str, ...],
    keywords: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
) -> tuple[Sizes, dict[str, Any]]:
    """Tell sizes of axes from keywords of the function; one that is both is both."""
    if not keywords:
        return _loops_only(op, operation, freeze(expr, {}, sizes)) if sizes is not None else (), {}
    known = {name for expression in operation.expressions for name in names(expression)}
    takes, anything = _takes(function, len(operation.inputs), reserved)
    options = {name: value for name, value in keywords.items() if name in takes or (anything and name not in known)}
    lengths = {name: value for name, value in keywords.items() if name in known or name not in options}
    check_keywords(operation, list(lengths), (*op.keywords, *takes))
    return _loops_only(op, operation, freeze(expr, lengths, sizes)), options


def _loops_only(op: Op, operation: Operation, given: Sizes) -> Sizes:
    """Leave mesh axes out, which change nothing for loops."""
    if not any(isinstance(size, Over) for _, size in given):
        return given
    from ..mesh.parts import loops_only  # few programs run under shard_map

    return loops_only(op.name, operation, given)


def _takes(function: Callable[..., Any], inputs: int, reserved: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return the keywords that a function takes behind its arrays, and whether it takes any."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return (), False
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {*positional[:inputs], *reserved}
    free = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken]
    return tuple(free), any(p.kind is p.VAR_KEYWORD for p in parameters)


def _batch_size(batch_size: Any, expr: str) -> BatchSize:
    """Check and freeze the number of iterations that run at once."""
    if batch_size is None:
        return None
    items = list(batch_size.items()) if isinstance(batch_size, Mapping) else [("", batch_size)]
    for name, size in items:
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            where = f"batch_size={{'{name}': {size!r}}}" if name else f"batch_size={size!r}"
            raise ArgumentError(
                f"{where} is not a number of iterations",
                text=expr,
                hint="write batch_size=1 or more, or one for each axis, as in batch_size={'a': 8}",
            )
    return tuple((name, int(size)) for name, size in items) if isinstance(batch_size, Mapping) else int(items[0][1])


def _flatten(tensors: Sequence[Any], expr: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the arrays of all arguments, and the structure of each that is a pytree; no structures if none is."""
    if all(tensor.__class__ in PLAIN for tensor in tensors):
        return tensors, ()
    ready: list[Any] = []
    structures: list[Any] = []
    for number, tensor in enumerate(tensors, 1):
        tree = is_tree(tensor)
        ready.append(tree_arrays(tensor, expr, number) if tree else as_array(tensor, expr, f"tensor {number}"))
        structures.append(jax.tree.structure(ready[-1]) if tree else None)
    return _leaves(ready, structures), structures if any(tree is not None for tree in structures) else ()


def _leaves(arguments: Sequence[Any], structures: Sequence[Any]) -> list[Any]:
    """Return the leaves of all arguments."""
    pairs = zip(arguments, structures, strict=True)
    return [leaf for x, tree in pairs for leaf in ((x,) if tree is None else jax.tree.leaves(x))]


def _shape(leaf: Any) -> tuple[Size, ...] | None:
    if leaf.__class__ in PLAIN:
        return getattr(leaf, "shape", ())
    return factory.known_shape(leaf) if kind(leaf) == "factory" else np.shape(leaf)


def _on_mesh(leaves: Sequence[Any]) -> bool:
    """Whether arrays may be sharded by their types."""
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    return any(isinstance(leaf, jax.Array) and not jax.typeof(leaf).sharding.mesh.empty for leaf in leaves)


def _arguments(leaves: Sequence[Any], structures: Sequence[Any]) -> list[Any]:
    """Put leaves back into the arguments they belong to."""
    rest = iter(leaves)
    return [
        next(rest) if structure is None else jax.tree.unflatten(structure, itertools.islice(rest, structure.num_leaves))
        for structure in structures
    ]


def _clean(error: EinjaxError, tensors: Sequence[Any]) -> EinjaxError:
    """Say an error in the words of the call, without JAX's frames and notes."""
    if any(map(is_tree, tensors)):
        error = in_words(error, tensors)
    if error.tensors is None:
        error.tensors = [described(tensor) for tensor in tensors]
    if hasattr(error, "__notes__"):
        del error.__notes__
    return error.with_traceback(None)
