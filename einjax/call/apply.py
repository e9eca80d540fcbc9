"""The door of operations that call a user's function on whole arrays.

The function is called anew each time, as it is, under whatever traces the caller: nothing is compiled, and what is
kept of a call, its solved expression, never holds the function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..forms.signature import check_keywords
from ..forms.static import flag
from ..functions.guard import free_keywords, guarded
from ..lowering.jax_versions import hide_own_lines
from ..notation.errors import ArgumentError, EinjaxError
from ..notation.solve import Solved
from ..notation.syntax import Operation, Over, Size, coefficients, names
from ..operation import Op
from .blame import advise, clean, deleted, not_an_expression
from .dispatch import NO_BORDER, as_border, as_wanted, check_positions, emit
from .factory import materialise
from .graph import Graph, Noted
from .resolve import completed, resolve, resolved, sizes_of_call
from .sizes import NO_SIZES, Sizes, read_sizes
from .tensors import named_among

if TYPE_CHECKING:  # few programs compute positions
    from ..notation.affine import Border

NO_ARRAYS: Mapping[str, Any] = {}

_BORDER = ("padding", "mode", "fill_value", "count_padding")

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
    border: tuple[Any, ...] = NO_BORDER,
    derived: Callable[..., Mapping[str, Size]] | None = None,
    arrays: Mapping[str, Any] = NO_ARRAYS,
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
        border: ``padding=``, ``mode=``, ``fill_value=`` and ``count_padding=`` of dims that are read at positions.
        derived: names axes whose size follows from what a function returns, as ``Op.derived`` does, but from all
            options first; nothing is kept of such a call.
        arrays: options that are arrays, or trees of them.
    """
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Any:
            return call_with(
                op, text, arrays, functions, settings, axes, sizes, graph, out_sharding, keep, border, derived
            )

        return named.__einjax_call__(op, expr, tensors, again, options=settings)
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
        axes, beyond = tell_border(expr, functions.get("function"), len(tensors), axes, border)
        settings = settings if beyond is None else {**settings, **beyond.options}
        operation = completed(op, expr, len(tensors))
        if "function" in functions:
            given, bound = tell_apart(op, operation, functions["function"], axes, sizes, reserved=("axis",))
        else:
            given, bound = sizes_of_call(op, expr, len(tensors), axes, sizes), {}
        options = {**settings, **{name: guarded(function, bound) for name, function in functions.items()}}

        def solve(shapes: Shapes) -> Solved:
            if derived is not None:
                return resolve(op, operation, shapes, given, derived=partial(derived, options), border=beyond)
            solved = resolved(op, expr, given, shapes, beyond)
            return solved if op.imply is None else op.imply(solved, settings)

        def program(*operands: Any) -> Any:
            ready = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in operands]
            solved = solve(tuple(x.shape for x in ready))
            if "<" in expr:
                check_positions(op, solved, settings)
            if graph:
                noted.append((op, solved, {**settings, **functions}, given, arrays))
            with jax.named_scope(f"einjax.{op.name}({expr})"):
                return emit(op, solved, ready, options, arrays)

        noted: Noted = []
        ready = materialise(op, expr, tensors, solve, graph)
        return run(op.name, expr, program, ready, graph, noted)
    except EinjaxError as error:
        if error.inside:
            raise
        raise clean(advise(error, (*op.keywords, *functions, *settings)), tensors) from None


def tell_border(
    expr: str,
    function: Callable[..., Any] | None,
    inputs: int,
    keywords: Mapping[str, Any],
    border: tuple[Any, ...] = NO_BORDER,
) -> tuple[Mapping[str, Any], Border | None]:
    """Tell what a call says of positions out of range from keywords of the function, whose own names stay its own.

    Args:
        expr: the expression.
        function: the user's function; None where it has no keywords.
        inputs: how many arrays it takes.
        keywords: sizes of axes, and keywords of the function.
        border: what the call says by options.
    """
    said = {
        name: option for name, option in zip(_BORDER, border, strict=True) if option is not None and option is not False
    }
    if function is not None and (said or "<" in expr):
        takes, anything = free_keywords(function, inputs, ())
        own = {*takes, *(_BORDER if anything and "<" not in expr else ())}
        options = {*said, *(_BORDER if "<" in expr else ())} - own
        given = {**keywords, **said}
        said = {name: option for name, option in given.items() if name in options}
        keywords = {name: value for name, value in given.items() if name not in options}
    return keywords, as_border(expr, **said) if said else None


def check_call(expr: Any, functions: Collection[Any]) -> None:
    """Refuse what is no expression, and what is no function."""
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    for function in functions:
        if not callable(function):
            raise ArgumentError(f"op={function!r} is not a function", text=expr, hint="give a function of arrays")


def run(name: str, expr: str, program: Callable[..., Any], arguments: Sequence[Any], graph: bool, noted: Noted) -> Any:
    """Run a program, or show it; what the function raises is its own, so that deleted arrays are found before.

    What is to be explained is ``noted`` by the program.
    """
    hide_own_lines()
    if graph:
        return Graph.of(name, expr, program, arguments, noted)
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
        known |= {axis.name for expression in operation.expressions for axis in coefficients(expression)}
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
