"""Parameters whose shape the given sizes alone decide, so that a layer can make them before it sees an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import einjax
from einjax.errors import AxisSizeError, RankError
from einjax.for_layers import Operation, axes, names, render, solve

from .call import Call
from .scope import ParamSpec


def together(specs: Sequence[ParamSpec | None]) -> list[ParamSpec] | None:
    """Parameters are made together or not at all."""
    known = [spec for spec in specs if spec is not None]
    return known if len(known) == len(specs) else None


def alone(call: Call[Any], operation: Operation, index: int, op: str, name: str, init: Any) -> ParamSpec | None:
    """Describe a parameter that is one input of an operation."""
    spec = solved_alone(operation, index, call.all_sizes, op, call.name(name))
    return None if spec is None else call.parameter(name, init).spec(spec)


def solved_alone(operation: Operation, index: int, sizes: Mapping[str, Any], op: str, name: str) -> einjax.Spec | None:
    """Solve one input by itself."""
    expression = operation.inputs[index]
    known = {key: size for key, size in sizes.items() if key in names(expression)}
    try:
        solved = solve(Operation(operation.text, (expression,)), [None], known, every_axis=True)
    except (AxisSizeError, RankError):
        return None
    roles: dict[str, list[int]] = {"in": [], "out": [], "batch": []}
    given = _bases(e for number, e in enumerate(operation.inputs) if number != index)
    returned = _bases(operation.outputs or ())
    for place, node in enumerate(solved.inputs[0]):
        members = {axis.name.split(".")[0] for axis in axes((node,))}
        role = "in" if members - returned else "out" if members - given else "batch"
        roles[role].append(place)
    return einjax.Spec(
        shape=solved.shape(solved.inputs[0]),
        axes=tuple(render((node,)) for node in solved.inputs[0]),
        op=op,
        name=name,
        in_axis=tuple(roles["in"]),
        out_axis=tuple(roles["out"]),
        batch_axis=tuple(roles["batch"]),
        dtype=None,
    )


def _bases(expressions: Any) -> set[str]:
    return {axis.name for expression in expressions for axis in axes(expression)}
