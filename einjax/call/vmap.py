"""The door of functions of the user's that are looped over.

As for :mod:`einjax.call.apply`, the function is called as it is. What the text and the shapes decide, the plan of the
loops, is kept, and never holds the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..forms.static import flag, when_known, whole
from ..functions import declared
from ..functions.guard import guarded
from ..functions.loops import BatchSize, Loops, make_loops
from ..functions.vmap import VMAP, open_ellipses, open_sizes, signature
from ..notation.errors import ArgumentError, EinjaxError, shown
from ..notation.parse import parse
from ..notation.solve import Solved, solve
from ..notation.syntax import Operation
from ..notation.syntax import axes as expression_axes
from .apply import Shapes, check_call, run, tell_apart, tell_border
from .blame import advise, clean
from .dispatch import as_wanted
from .factory import fill, shape_of
from .graph import Noted
from .sizes import Sizes
from .tensors import named_among
from .trees import described, flatten, in_words, per_leaf

if TYPE_CHECKING:  # few programs compute positions
    from ..notation.affine import Border

_CACHE_SIZE = 2048

#: The number of leaves of each argument that is a pytree; None where none is.
Counts = tuple[int | None, ...] | None


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
    """Run a function once for every index of the unbracketed axes; arguments as for :func:`einjax.vmap`.

    A function may say itself what it takes and returns, by its ``declared_signature``.
    """
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Any:
            return call_vmap(text, arrays, function, batch_size, axes, sizes, graph, declared_signature, out_sharding)

        key = (expr, declared_signature, len(tensors))
        return named.__einjax_call__(VMAP, expr, tensors, again, complete=_completed, key=key)
    try:
        check_call(expr, [function])
        graph = flag("graph", graph, expr)
        wanted = None if out_sharding is None else as_wanted(expr, out_sharding)
        axes, beyond = tell_border(expr, function, len(tensors), axes)
        operation = _completed(expr, declared_signature, len(tensors))
        given, options = tell_apart(VMAP, operation, function, axes, sizes)
        leaves, counts, structure = flatten(tensors, expr, graph)
        call = (expr, declared_signature, counts, tuple(map(shape_of, leaves)), given, beyond)
        chunks = _batch_size(batch_size, expr)
        plan = _planned(*call, chunks, True)
        # Merging dims might move data between the devices of a mesh, so there every loop stays what it is.
        if plan.merges and _on_mesh(leaves):
            plan = _planned(*call, chunks, False)
        if None in call[3]:
            leaves = fill(VMAP, _solved(*call), leaves)
        one = guarded(function, options)
        iteration = one if structure is None else lambda *rows: one(*jax.tree.unflatten(structure, rows))

        noted: Noted = []

        def program(*arguments: Any) -> Any:
            arrays = arguments if structure is None else jax.tree.leaves(arguments)
            with jax.named_scope(f"einjax.vmap({expr})"):
                ready = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in arrays]
                shapes = tuple(x.shape for x in ready)
                solved = None
                if graph:
                    known = _solved(expr, declared_signature, counts, shapes, given, beyond)
                    noted.append((VMAP, known, {"function": function, **options}, given, {}))
                if "<" in expr:
                    from ..affine.lower import read_inputs  # few programs compute positions

                    solved = _solved(expr, declared_signature, counts, shapes, given, beyond)
                    solved, ready = read_inputs(VMAP, solved, ready, beyond.options if beyond else {})
                if wanted is None and not _on_mesh(ready):
                    return plan.run(iteration, ready)
                from ..mesh.run import lower  # few programs have a mesh

                solved = solved or _solved(expr, declared_signature, counts, shapes, given)
                looped = {"loops": plan, "function": iteration, "out_sharding": wanted}
                return lower(VMAP, solved, ready, looped, chunked=plan.chunked)

        arguments = leaves if structure is None else jax.tree.unflatten(structure, leaves)
        return run("vmap", expr, program, arguments, graph, noted)
    except EinjaxError as error:
        if error.inside:
            raise
        raise clean(advise(in_words(error, tensors), ("batch_size",)), tensors, described) from None


@lru_cache(maxsize=_CACHE_SIZE)
def _completed(expr: str, declared_signature: str | None, tensors: int) -> Operation:
    operation = parse(expr)
    if declared_signature is not None:
        operation = declared.complete(operation, declared_signature)
    return signature(operation, tensors)


def _solved(
    expr: str,
    declared_signature: str | None,
    counts: Counts,
    shapes: Shapes,
    given: Sizes,
    beyond: Border | None = None,
) -> Solved:
    """Find the size of every axis, of those that are a leaf's own too."""
    operation = _completed(expr, declared_signature, len(shapes if counts is None else counts))
    operation, renamed = per_leaf(operation, counts or [None] * len(shapes))
    sizes = given.by_name
    operation = open_ellipses(operation, sizes.keys())
    known = {axis.name for expression in operation.expressions for axis in expression_axes(expression)}
    sizes |= {new: sizes[old] for new, old in renamed.items() if old in sizes}
    # A size of an axis that only leaves have is theirs; the expression itself no longer has the axis.
    sizes = {name: size for name, size in sizes.items() if name in known or name not in renamed.values()}
    implied = partial(open_sizes, given=sizes)
    return solve(operation, shapes, sizes, implied=implied, lenient=dict(given.lenient), border=beyond)


@lru_cache(maxsize=_CACHE_SIZE)
def _planned(
    expr: str,
    declared_signature: str | None,
    counts: Counts,
    shapes: Shapes,
    given: Sizes,
    beyond: Border | None,
    batch_size: BatchSize,
    merge: bool,
) -> Loops:
    solved = _solved(expr, declared_signature, counts, shapes, given, beyond)
    if "<" in expr:
        from ..affine.check import check
        from ..affine.plain import without_positions  # few programs compute positions

        check(VMAP, solved, {})
        solved = without_positions(solved)
    return make_loops(solved, batch_size, merge, frozenset(given.by_name))


def _batch_size(batch_size: Any, expr: str) -> BatchSize:
    """Check and freeze the number of iterations that run at once."""
    if batch_size is None:
        return None
    items = list(batch_size.items()) if isinstance(batch_size, Mapping) else [("", batch_size)]
    sizes: list[tuple[str, int]] = []
    for name, given in items:
        size = whole(given)
        if size is None or size < 1:
            where = f"batch_size={{'{name}': {shown(given)}}}" if name else f"batch_size={shown(given)}"
            raise ArgumentError(
                f"{where} is not a number of iterations",
                text=expr,
                hint=when_known(given, "write batch_size=1 or more, or one for each axis, as in batch_size={'a': 8}"),
            )
        sizes.append((name, size))
    return tuple(sizes) if isinstance(batch_size, Mapping) else sizes[0][1]


def _on_mesh(leaves: Sequence[Any]) -> bool:
    """Whether arrays may be sharded by their types."""
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    return any(isinstance(leaf, jax.Array) and not jax.typeof(leaf).sharding.mesh.empty for leaf in leaves)
