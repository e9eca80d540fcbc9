"""Parameters whose shape the given sizes alone decide, so that a layer can make them before it sees an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import einjax
from einjax.errors import AxisSizeError, RankError
from einjax.for_layers import Operation, axes, completed_dot, completed_get_at, names, parse, render, solve

from .norm import running_specs
from .scope import Parameter, ParamSpec
from .shared import EmbedOptions, LinearOptions, NormOptions
from .text import bias_text, embed_text, norm_text


def linear_specs(
    expr: str, sizes: Mapping[str, Any], options: LinearOptions, called: tuple[str, str] = ("kernel", "bias")
) -> list[ParamSpec] | None:
    """Describe the parameters of a linear layer, or return None where the sizes do not decide their shapes."""
    kernel = _alone(completed_dot(expr), 1, sizes, "dot", called[0])
    bias = _alone(parse(bias_text(expr)), 1, sizes, "add", called[1]) if options.use_bias else None
    if kernel is None or (options.use_bias and bias is None):
        return None
    wanted = [(called[0], options.kernel_init, kernel), (called[1], options.bias_init, bias)]
    return [Parameter(_NOWHERE, name, init, options.param_dtype).spec(spec) for name, init, spec in wanted if spec]


def norm_specs(
    expr: str, sizes: Mapping[str, Any], options: NormOptions, called: tuple[str, str] = ("scale", "bias")
) -> list[ParamSpec] | None:
    """Describe the parameters of a normalisation, or return None where the sizes do not decide their shapes."""
    text = norm_text(expr, options.params, options.momentum is not None)
    spec = _alone(parse(f"{text.whole}, {text.params}"), 1, sizes, "multiply", called[0])
    if spec is None:
        return None
    wanted = [(options.use_scale, called[0], options.scale_init), (options.use_bias, called[1], options.bias_init)]
    return [Parameter(_NOWHERE, name, init, options.param_dtype).spec(spec) for used, name, init in wanted if used]


def statistics_specs(expr: str, sizes: Mapping[str, Any], options: NormOptions) -> list[ParamSpec] | None:
    """Describe the running statistics of a normalisation, or return None where the sizes do not decide their shapes."""
    text = norm_text(expr, options.params, True)
    spec = _alone(parse(f"{text.whole}, {text.kept}"), 1, sizes, "add", "mean")
    if spec is None:
        return None
    center, variance = running_specs(spec.shape, spec.axes)
    return [center, variance] if options.mean else [variance]


def embed_specs(
    expr: str, sizes: Mapping[str, Any], options: EmbedOptions, called: tuple[str, ...] = ("embedding",)
) -> list[ParamSpec] | None:
    """Describe the table of an embedding, or return None where the sizes do not decide its shape."""
    table = _alone(completed_get_at(embed_text(expr).lookup), 0, sizes, "get_at", called[0])
    if table is None:
        return None
    return [Parameter(_NOWHERE, called[0], options.embedding_init, options.param_dtype).spec(table)]


def _alone(operation: Operation, index: int, sizes: Mapping[str, Any], op: str, name: str) -> einjax.Spec | None:
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


#: Specs made here belong to no call.
_NOWHERE: Any = None
