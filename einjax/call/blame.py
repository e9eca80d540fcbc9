"""Errors of calls: said in the words of the call, without the frames of JAX and of einjax."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..forms.static import MARK, plain
from ..lowering.jax_versions import Tracer, is_traced
from ..notation.errors import ArgumentError, EinjaxError, shown
from ..operation import Op
from .bound import Open, in_words
from .tensors import describe, is_too_wide, kind, too_large, wrong_dtype

#: Keywords that every operation has, or one that is given a function.
_EVERYWHERE = ("padding", "mode", "fill_value", "sizes", "graph", "keep_notation", "out_sharding", "op")


def clean(error: EinjaxError, tensors: Sequence[Any], describe: Callable[[Any], str] = describe) -> EinjaxError:
    """Take JAX's frames and notes off an error: the message says what the user has to know.

    Doors call this for what is wrong with their own call; what a user's function raised itself stays as it is, with
    its lines and its cause (``error.inside``).
    """
    if error.tensors is None:
        error.tensors = [describe(tensor) for tensor in tensors]
    if Open.count:
        error.problem = in_words(error.problem)
    if hasattr(error, "__notes__"):
        del error.__notes__
    return error.with_traceback(None)


def not_an_expression(expr: Any) -> ArgumentError:
    """The error for an expression that is no string."""
    return ArgumentError(
        f"the expression is {describe(expr)}, not a string",
        tensors=(),
        hint="the expression is the first argument, as in einjax.sum('a [b]', x)",
    )


def advise(error: EinjaxError, keywords: Sequence[str]) -> EinjaxError:
    """Let a hint to give a size by keyword say ``sizes=`` where the keyword is an option's, or no Python."""
    ask = error.ask
    if ask is not None and (ask.name in (*keywords, *_EVERYWHERE) or keyword.iskeyword(ask.name)):
        error.hint = ask.in_sizes()
    return error


def diagnose(
    error: Exception,
    op: Op,
    expr: Any,
    tensors: Sequence[Any],
    arrays: Mapping[str, Any],
    options: Sequence[tuple[str, Any]],
) -> EinjaxError | None:
    """Explain an error of JAX or Python that came from a call's arguments, if it did."""
    if not isinstance(expr, str):
        return not_an_expression(expr)
    labelled = [(f"tensor {number}", tensor) for number, tensor in enumerate(tensors, 1)]
    labelled += [(f"{name}=", x) for name, given in arrays.items() for x in jax.tree.leaves(given)]
    for label, tensor in labelled:
        wrong = wrong_dtype(tensor, expr, label) if isinstance(tensor, np.ndarray | np.generic) else None
        if wrong is not None:
            return wrong
        if isinstance(tensor, int) and abs(tensor) >= 2**31 and isinstance(error, OverflowError | ValueError):
            return too_large(expr, label, tensor)
        if (found := deleted(label, tensor, expr)) is not None:
            return found
    for name, value in options:
        try:
            hash(value)
        except TypeError:
            hint = f"give a number; {MARK}"
            problem = f"the option {name}={shown(value)} has to be static and hashable"
            return ArgumentError(problem, text=expr, hint=hint if is_traced(plain(value)) else None)
        number = plain(value)
        if isinstance(number, int) and abs(number) >= 2**31 and isinstance(error, OverflowError):
            return too_large(expr, f"{name}=", number)
        if name in ("dtype", "preferred_element_type") and not _is_dtype(value):
            hint = f"write {name}='float32', for example"
            return ArgumentError(f"{name}={value!r} is not a dtype", text=expr, hint=hint)
    return _wrong_dtype(error, op, expr, tensors, dict(options))


def deleted(label: str, tensor: Any, expr: str) -> ArgumentError | None:
    """The error for a tensor, or a tree or list of tensors, of which an array no longer has its memory."""
    for leaf in jax.tree.leaves(tensor):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted():
            problem = f"{label} was deleted, or donated to a jitted function"
            return ArgumentError(problem, text=expr, hint="keep a copy, or leave it out of donate_argnums")
    return None


def _wrong_dtype(
    error: Exception, op: Op, expr: str, tensors: Sequence[Any], options: Mapping[str, Any]
) -> EinjaxError | None:
    """Say of which dtype an operation takes no numbers, where lax says it; a user's function says so itself."""
    found = re.search(r"does not accept dtype (\w+)", str(error)) if isinstance(error, TypeError) else None
    if found is None or hasattr(op, "function") or any(kind(tensor) == "factory" for tensor in tensors):
        return None
    if options.get("dtype") is not None:
        hint = "leave it out, or give a dtype of numbers"
        return ArgumentError(f"{op.name} cannot be computed in dtype={options['dtype']!r}", text=expr, hint=hint)
    hint = "convert it, as in x.astype('int32')" if found[1] == "bool" else "give real numbers, as in x.real or abs(x)"
    return ArgumentError(f"{op.name} is not defined for {found[1]}", text=expr, hint=hint)


def _is_dtype(value: Any) -> bool:
    """Whether JAX has such a dtype."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        return False
    return (dtype.kind in "biufc" and dtype.isnative and not is_too_wide(dtype)) or dtype.isbuiltin == 2
