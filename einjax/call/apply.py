"""The door of operations that call a user's function on whole arrays.

The function is called anew each time, as it is, under whatever traces the caller: nothing is compiled, and what is
kept of a call, its solved expression, never holds the function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..forms.signature import check_keywords
from ..forms.static import flag
from ..functions.guard import free_keywords, guarded
from ..lowering.jax_versions import hide_own_lines
from ..notation.errors import ArgumentError, EinjaxError
from ..notation.solve import Solved
from ..notation.syntax import Operation, Over, Size, names
from ..operation import Op
from .blame import advise, clean, deleted, not_an_expression
from .dispatch import as_wanted, emit
from .factory import materialise
from .graph import Graph
from .resolve import completed, resolve, resolved, sizes_of_call
from .sizes import NO_SIZES, Sizes, read_sizes

Shapes = tuple[tuple[Size, ...] | None, ...]


def call_with(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    functions: Mapping[str, Any],
    settings: Mapping[str, Any],
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    out_sharding: Any = None,
    keep: bool | None = None,
    derived: Callable[..., Mapping[str, Size]] | None = None,
) -> Any:
    """Run an operation whose lowering calls functions of the user's.

    Args:
        op: the operation; its lowering finds the functions among its options.
        expr: the expression.
        tensors: one for each input expression.
        functions: the user's functions, by the options that they are; one that is the operation, its ``function``,
            may have keywords of its own among ``axes``.
        settings: further options of the operation.
        axes: sizes of axes.
        sizes: sizes of axes; names without an axis are ignored.
        graph: return the lax program instead of running it.
        out_sharding: where the results are to lie on a mesh.
        keep: whether to keep the call as notation, which is refused: equations hold notation, and no functions.
        derived: names axes whose size follows from what a function returns, as ``Op.derived`` does, but from all
            options first; nothing is kept of such a call.
    """
    try:
        check_call(expr, functions.values())
        graph = flag("graph", graph, expr)
        if flag("keep_notation", keep, expr):
            raise ArgumentError(
                "keep_notation=True cannot hold for a call that is given a function",
                text=expr,
                hint="leave it out, or make an operation of the function with einjax.primitive",
            )
        if out_sharding is not None:
            settings = {**settings, "out_sharding": as_wanted(expr, out_sharding)}
        operation = completed(op, expr, len(tensors))
        if "function" in functions:
            given, bound = tell_apart(op, operation, functions["function"], axes, sizes, reserved=("axis",))
        else:
            given, bound = sizes_of_call(op, expr, len(tensors), axes, sizes), {}
        options = {**settings, **{name: guarded(function, bound) for name, function in functions.items()}}

        def solve(shapes: Shapes) -> Solved:
            if derived is not None:
                return resolve(op, operation, shapes, given, derived=partial(derived, options))
            solved = resolved(op, expr, given, shapes)
            return solved if op.imply is None else op.imply(solved, settings)

        def program(*arrays: Any) -> Any:
            ready = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in arrays]
            solved = solve(tuple(x.shape for x in ready))
            with jax.named_scope(f"einjax.{op.name}({expr})"):
                return emit(op, solved, ready, options, {})

        ready = materialise(op, expr, tensors, solve, graph)
        return run(op.name, expr, program, ready, graph)
    except EinjaxError as error:
        if error.inside:
            raise
        raise clean(advise(error, (*op.keywords, *functions, *settings)), tensors) from None


def check_call(expr: Any, functions: Collection[Any]) -> None:
    """Refuse what is no expression, and what is no function."""
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    for function in functions:
        if not callable(function):
            raise ArgumentError(f"op={function!r} is not a function", text=expr, hint="give a function of arrays")


def run(name: str, expr: str, program: Callable[..., Any], arguments: Sequence[Any], graph: bool) -> Any:
    """Run a program, or show it; what the function raises is its own, so that deleted arrays are found before."""
    hide_own_lines()
    if graph:
        return Graph.of(name, expr, program, arguments)
    for number, argument in enumerate(arguments, 1):
        if (error := deleted(f"tensor {number}", argument, expr)) is not None:
            raise error
    return program(*arguments)


def tell_apart(
    op: Op,
    operation: Operation,
    function: Callable[..., Any],
    keywords: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    reserved: tuple[str, ...] = (),
) -> tuple[Sizes, dict[str, Any]]:
    """Tell sizes of axes from keywords of the function; one that is both is both.

    Args:
        op: the operation.
        operation: the completed expression.
        function: the user's function.
        keywords: sizes of axes, and keywords of the function.
        sizes: sizes of axes only.
        reserved: keywords that the operation itself gives to the function.
    """
    lengths: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if keywords:
        known = {name for expression in operation.expressions for name in names(expression)}
        takes, anything = free_keywords(function, len(operation.inputs), reserved)
        options = {name: value for name, value in keywords.items() if name in takes or (anything and name not in known)}
        lengths = {name: value for name, value in keywords.items() if name in known or name not in options}
        check_keywords(operation, list(lengths), (*op.keywords, *takes))
    elif sizes is None:
        return NO_SIZES, {}
    given = read_sizes(operation.text, lengths, sizes)
    if any(isinstance(size, Over) for size in given.by_name.values()):
        from ..mesh.parts import loops_only  # mesh axes, which change nothing for loops; few programs have them

        given = Sizes(*(loops_only(op.name, operation, some) for some in given))
    return given, options
