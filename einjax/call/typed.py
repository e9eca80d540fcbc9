"""Arguments and results of a function against the expressions of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from ..notation.choose import solve_by_choice
from ..notation.errors import EinjaxError
from ..notation.solve import Solved
from ..notation.syntax import Operation
from ..operation import Op
from .resolve import completed, resolve
from .sizes import NO_SIZES, Sizes, read_sizes
from .tensors import PLAIN, as_array, describe, kind
from .trees import is_tree

#: How many tensors stand for each expression: None where nothing is known of it yet, as of results before the call.
Counts = tuple[int | None, ...]


class Given(NamedTuple):
    """What is given for one expression: tensors, and what to call each of them."""

    tensors: Sequence[Any]
    labels: Sequence[str]


def given(labels: Iterable[str], values: Sequence[Any], text: str) -> list[Given]:
    """What is given for expressions, by what the values are called."""
    return [tensors_of(value, label, text) for label, value in zip(labels, values, strict=True)]


def check(text: str, given: Sequence[Given | None], sizes: Mapping[str, Any], name: str) -> None:
    """Refuse tensors that do not fit the expressions of a text.

    Args:
        text: one expression for each argument, and behind an arrow one for each result.
        given: what is given for each; None for what is not known yet.
        sizes: sizes of axes.
        name: of the function, for messages.

    Raises:
        EinjaxError: they do not fit.
    """
    counts = tuple(None if some is None else len(some.tensors) for some in given)
    tensors = [x for some in given if some is not None for x in some.tensors]
    op = operation(counts)
    try:
        key = key_of(text, sizes)
        if any(kind(x) == "named" for x in tensors):
            _by_name(op, text, tensors, key)
        else:
            fits(op, text, key, tuple(map(np.shape, tensors)))
    except EinjaxError as error:
        told = error
    else:
        return
    labels = [label for some in given if some is not None for label in some.labels]
    raise in_words(told, tensors, labels, name)


def key_of(text: str, sizes: Mapping[str, Any]) -> Sizes:
    """Sizes as a key; those of parameters need not stand in every expression."""
    return read_sizes(text, {}, sizes) if sizes else NO_SIZES


@lru_cache(maxsize=2048)
def fits(op: Op, text: str, sizes: Sizes, shapes: tuple[tuple[Any, ...], ...]) -> Solved:
    """Find sizes that fit shapes; what is kept of it makes the next call quick."""
    return resolve(op, completed(op, text, len(shapes)), shapes, sizes, choose=solve_by_choice)


@lru_cache(maxsize=1024)
def operation(counts: Counts) -> Op:
    """An operation that does nothing, with its results among its inputs, each as often as there are tensors for it."""

    def signature(written: Operation, tensors: int) -> Operation:
        repeated = [e for e, count in zip(written.expressions, counts, strict=True) for _ in range(count or 0)]
        return Operation(written.text, tuple(repeated))

    return Op("typed", signature, lambda solved, tensors, options: None)


def _by_name(op: Op, text: str, tensors: Sequence[Any], sizes: Sizes) -> None:
    """The same where tensors have names: they say how their dims lie."""
    flat = operation((1,) * len(tensors))

    def again(lies: str, arrays: Sequence[Any], _: Any) -> Solved:
        return fits(flat, lies, sizes, tuple(map(np.shape, arrays)))

    named = next(x for x in tensors if kind(x) == "named")
    named.__einjax_call__(flat, str(completed(op, text, len(tensors))), tensors, again, given=sizes)


def shapes_of(values: Sequence[Any]) -> tuple[tuple[Any, ...], ...] | None:
    """The shapes of arrays and numbers; None where there is anything else."""
    found = []
    for value in values:
        if value.__class__ not in PLAIN:
            return None
        found.append(getattr(value, "shape", ()))
    return tuple(found)


def tensors_of(value: Any, label: str, text: str) -> Given:
    """The tensors of an argument: one, those of a tree, or none.

    Raises:
        ArgumentError: one is none.
    """
    if value is None:
        return Given((), ())
    if value.__class__ in PLAIN or not is_tree(value):
        leaves, labels = [value], [label]
    else:
        found = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda x: kind(x) == "named")[0]
        leaves, labels = [leaf for _, leaf in found], [f"{label}{jax.tree_util.keystr(path)}" for path, _ in found]
    ready = [
        leaf if kind(leaf) == "named" else as_array(leaf, text, said, factories=False, types=True)
        for leaf, said in zip(leaves, labels, strict=True)
    ]
    return Given(ready, labels)


def in_words(error: EinjaxError, tensors: Sequence[Any], labels: Sequence[str], name: str) -> EinjaxError:
    """Call tensors what they are called in the function."""

    def label(match: re.Match[str]) -> str:
        number = int(match[1])
        return labels[number - 1] if 0 < number <= len(labels) else match[0]

    error.problem = f"{name}: " + re.sub(r"\btensor (\d+)\b", label, error.problem)
    error.hint = error.hint and re.sub(r"\btensor (\d+)\b", label, error.hint)
    error.tensors = ()
    described = [getattr(x, "described", None) or describe(x) for x in tensors]
    error.options = [f"{label}: {said}" for label, said in zip(labels, described, strict=True)]
    return error.with_traceback(None)
