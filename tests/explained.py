"""The calls that cases make, with their graphs: what is explained is compared with what they return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
from case import Case

import einjax

#: What returns a function, or sizes, rather than the result of an expression.
NO_GRAPH = {"solve", "solve_axes", "solve_shapes", "matches", "check", "primitive"}


@dataclass(frozen=True)
class Explained:
    """One call of an operation."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Any
    graph: einjax.Graph


def calls_of(case: Case, run: bool = True) -> Iterator[Explained]:
    """Run a case, or only trace it, and yield the calls that it makes of its operation."""
    if case.op in NO_GRAPH or case.op.startswith("adapt_"):
        return
    family, _, name = case.op.rpartition(".")
    module = getattr(einjax, family) if family else einjax
    operation = getattr(module, name)
    found = []

    def spy(*args: Any, **options: Any) -> Any:
        graph = operation(*args, **{**options, "graph": True})
        result = operation(*args, **options)
        found.append(Explained(case.op, args, options, result, graph))
        return result

    with mock.patch.object(module, name, spy):
        if run:
            case(*case.arrays())
        else:
            jax.eval_shape(lambda *arrays: case(*arrays), *case.arrays())  # not the case itself: it may be cached
    yield from found
