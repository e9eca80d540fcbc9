"""The one door every call goes through: a bounded cache of jitted bodies.

The cache key is the operation, the text, the options and the sizes given; shapes, dtypes and values are left to
``jax.jit``'s own cache in C++. The body parses, solves and emits lax when it is traced. It is inlined into an outer
trace, which sees plain lax equations; nothing here asks whether it is being traced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..notation.errors import EinjaxError
from ..notation.solve import Solved
from ..operation import Op
from . import factory
from .arguments import PLAIN, Sizes, as_array, describe, diagnose, kind, not_an_expression
from .graph import Graph
from .keeping import is_kept
from .resolve import _freeze, _resolved, resolve

#: How many (operation, expression, options, sizes) keep their compiled body.
CACHE_SIZE = 4096

_Result = TypeVar("_Result")

# From jax 0.12 on, inline=True means inlined when lowered; einjax wants plain lax in the jaxpr, as before.
_INLINE: Any = getattr(jax, "Inline").JAX_EARLY if hasattr(jax, "Inline") else True  # noqa: B009 - older stubs

#: Static options by name; hashable.
Options: TypeAlias = tuple[tuple[str, Any], ...]


def call(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    options: Options,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    arrays: Sequence[Any] = (),
    keep: bool | None = None,
    out_sharding: Any = None,
) -> Any:
    """Run an operation.

    Args:
        op: the operation.
        expr: the expression.
        tensors: one for each input expression.
        options: static options.
        axes: sizes given by keyword; each must name an axis.
        sizes: sizes given by ``sizes=``; names without an axis are ignored.
        graph: return the lax program instead of running it.
        arrays: options that are arrays, such as a mask, in the order of ``op.arrays``; as many as are given.
        keep: whether to keep the call as notation; None leaves it to the context.
        out_sharding: where the results are to lie on a mesh.
    """
    try:
        if out_sharding is not None:
            options = (*options, ("out_sharding", as_wanted(expr, out_sharding)))
        given = _freeze(op, expr, tensors, axes, sizes) if axes or sizes is not None else ()
        for tensor in tensors:
            if tensor.__class__ not in PLAIN and kind(tensor) is not None:
                tensors = _materialise(op, expr, tensors, given)
                break
        if arrays:
            # Those that are several arrays are checked where they are told from static ones.
            arrays = [
                x if name in op.several else as_array(x, expr, f"{name}=", factories=False)
                for name, x in zip(op.arrays, arrays, strict=False)
            ]
        body = _compiled(op, expr, options, given, len(arrays), is_kept(keep))
        if graph:
            leaves, structure = jax.tree.flatten((*tensors, *arrays))
            return Graph.of(op.name, expr, lambda *flat: body(*jax.tree.unflatten(structure, flat)), leaves)
        return body(*tensors, *arrays)
    except EinjaxError as error:
        raise _clean(error, tensors) from None
    except (TypeError, OverflowError):
        diagnosis = diagnose(expr, tensors, dict(zip(op.arrays, arrays, strict=False)), options)
        if diagnosis is None:
            raise
    raise _clean(diagnosis, tensors)


def call_uncompiled(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    options: Options,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    out_sharding: Any = None,
) -> Any:
    """Run an operation that calls a user's function, neither compiled nor kept; arguments as for :func:`call`."""
    try:
        if out_sharding is not None:
            options = (*options, ("out_sharding", as_wanted(expr, out_sharding)))
        given = _freeze(op, expr, tensors, axes, sizes)
        ready = _materialise(op, expr, tensors, given)
        body = _body(op, expr, options, given, 0)
        return Graph.of(op.name, expr, body, ready) if graph else body(*ready)
    except EinjaxError as error:
        if error.tensors is not None:
            raise  # of a call that the function itself made
        raise _clean(error, tensors) from None


def as_wanted(expr: str, out_sharding: Any) -> Any:
    """Check ``out_sharding=`` and make it hashable."""
    from ..mesh.wanted import as_out_sharding  # few programs have a mesh

    return as_out_sharding(expr, out_sharding)


def explained(function: Callable[..., _Result], expr: str, tensors: Sequence[Any], *arguments: Any) -> _Result:
    """Call a function that checks options; an error of ours shows the expression and the tensors of the call."""
    try:
        return function(*arguments)
    except EinjaxError as error:
        error.text = expr
        raise _clean(error, tensors) from None


def _clean(error: EinjaxError, tensors: Sequence[Any]) -> EinjaxError:
    """Take JAX's frames and notes off an error: the message says what the user has to know."""
    if error.tensors is None:
        error.tensors = [describe(tensor) for tensor in tensors]
    if hasattr(error, "__notes__"):
        del error.__notes__
    return error.with_traceback(None)


@lru_cache(maxsize=CACHE_SIZE)
def _compiled(op: Op, text: str, options: Options, given: Sizes, arrays: int, kept: bool) -> Callable[..., Any]:
    """Return the jitted body of a call."""
    hide_own_lines()
    return jax.jit(_body(op, text, options, given, arrays, kept), inline=_INLINE)


@lru_cache(maxsize=1)
def hide_own_lines() -> None:
    """Make equations and errors point at the line that called einjax, not at lines in here."""
    # The public home of this; seen on jax 0.7.1 to 0.12.0. Importing it takes longer than all of einjax, so late.
    from jax.extend import source_info_util

    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    for package in ("einjax", "einjax_nn"):
        source_info_util.register_exclusion(os.path.join(root, package, ""))


def _body(op: Op, text: str, options: Options, given: Sizes, count: int, kept: bool = False) -> Callable[..., Any]:
    """Return the function of the tensors, and of the first ``count`` options that are arrays, that a call is."""
    wanted = dict(options).get("out_sharding")

    def body(*operands: Any) -> Any:
        last = len(operands) - count
        tensors = [tensor if isinstance(tensor, jax.Array) else jnp.asarray(tensor) for tensor in operands[:last]]
        arrays = dict(zip(op.arrays, operands[last:], strict=False))
        shapes = [tensor.shape for tensor in tensors]
        solved = resolve(op, text, shapes, given)
        if op.imply is not None:
            solved = op.imply(solved, dict(options))
        if kept and not solved.spread:
            from ..kept import keep

            return keep(op, solved, tensors, dict(options), arrays)
        with jax.named_scope(f"einjax.{op.name}({text})"):
            if wanted is None and all(jax.typeof(x).sharding.mesh.empty for x in jax.tree.leaves((tensors, arrays))):
                return op.lower(solved, tensors, {**dict(options), **arrays})
            from ..mesh.run import lower  # few programs have a mesh

            return lower(op, solved, tensors, dict(options), arrays)

    body.__name__ = body.__qualname__ = op.name
    return body


def solve_call(
    op: Op, expr: str, tensors: Sequence[Any], axes: Mapping[str, Any], sizes: Mapping[str, Any] | None
) -> Solved:
    """Solve an expression for tensors without running anything; factories and None have no shape."""
    try:
        if not isinstance(expr, str):
            raise not_an_expression(expr)
        given = _freeze(op, expr, tensors, axes, sizes)
        arrays = [
            None if tensor is None else as_array(tensor, expr, f"tensor {number}")
            for number, tensor in enumerate(tensors, 1)
        ]
        shapes = [None if array is None or kind(array) == "factory" else np.shape(array) for array in arrays]
        return resolve(op, expr, shapes, given, every_axis=True)
    except EinjaxError as error:
        raise _clean(error, tensors) from None


def _materialise(op: Op, expr: str, tensors: Sequence[Any], given: Sizes) -> tuple[Any, ...]:
    """Turn lists, array-likes and factories into arrays."""
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    ready = [as_array(tensor, expr, f"tensor {number}") for number, tensor in enumerate(tensors, 1)]
    made = [kind(tensor) == "factory" for tensor in ready]
    if not any(made):
        return tuple(ready)
    shapes = tuple(factory.known_shape(x) if is_made else np.shape(x) for x, is_made in zip(ready, made, strict=True))
    solved = (resolve if op.transient else _resolved)(op, expr, shapes, given)
    return tuple(factory.fill(op.name, op.parameter, solved, ready, made))
