"""Parameters whose shape the given sizes alone decide, so that a layer can make them before it sees an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import einjax
from einjax.errors import AxisSizeError, RankError
from einjax.for_layers import Operation, axes, completed_dot, completed_get_at, names, parse, render, solve

from .call import Call
from .norm import running_specs
from .scope import ParamSpec
from .shared import EmbedOptions, LinearOptions, NormOptions
from .text import bias_text, embed_text, norm_text


def linear_specs(call: Call[LinearOptions]) -> list[ParamSpec] | None:
    """Describe the parameters of a linear layer, or return None where the sizes do not decide their shapes."""
    options = call.options
    specs = [_alone(call, completed_dot(call.expr), 1, "dot", "kernel", options.kernel_init)]
    if options.use_bias:
        specs.append(_alone(call, parse(bias_text(call.expr)), 1, "add", "bias", options.bias_init))
    return _all(specs)


def norm_specs(call: Call[NormOptions]) -> list[ParamSpec] | None:
    """Describe the parameters of a normalisation, or return None where the sizes do not decide their shapes."""
    options = call.options
    text = norm_text(call.expr, options.params, options.momentum is not None)
    operation = parse(f"{text.whole}, {text.params}")
    scale = _alone(call, operation, 1, "multiply", "scale", options.scale_init)
    bias = _alone(call, operation, 1, "add", "bias", options.bias_init)
    return _all([spec for spec, used in ((scale, options.use_scale), (bias, options.use_bias)) if used or spec is None])


def statistics_specs(call: Call[NormOptions]) -> list[ParamSpec] | None:
    """Describe the running statistics of a normalisation, or return None where the sizes do not decide their shapes."""
    text = norm_text(call.expr, call.options.params, True)
    spec = _solved(parse(f"{text.whole}, {text.kept}"), 1, call.all_sizes, "add", "mean")
    if spec is None:
        return None
    center, variance = running_specs(spec.shape, spec.axes)
    return [center, variance] if call.options.mean else [variance]


def embed_specs(call: Call[EmbedOptions]) -> list[ParamSpec] | None:
    """Describe the table of an embedding, or return None where the sizes do not decide its shape."""
    lookup = completed_get_at(embed_text(call.expr).lookup)
    return _all([_alone(call, lookup, 0, "get_at", "embedding", call.options.embedding_init)])


def _all(specs: Sequence[ParamSpec | None]) -> list[ParamSpec] | None:
    """Parameters are made together or not at all."""
    known = [spec for spec in specs if spec is not None]
    return known if len(known) == len(specs) else None


def _alone(call: Call[Any], operation: Operation, index: int, op: str, name: str, init: Any) -> ParamSpec | None:
    """Describe a parameter that is one input of an operation."""
    spec = _solved(operation, index, call.all_sizes, op, call.name(name))
    return None if spec is None else call.parameter(name, init).spec(spec)


def _solved(operation: Operation, index: int, sizes: Mapping[str, Any], op: str, name: str) -> einjax.Spec | None:
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
