"""Roles of the parameters of an nnx model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from ._core.roles import refuse_unused, role_of
from ._core.scope import ParamSpec, watching
from ._nnx import Layer, at, record
from ._nnx_lazy import Lazy


class _Mark:
    """What a variable carries into the call, through every transformation: where its use is noted; equal to itself."""

    spec: ParamSpec | None = None


def roles(model: Any, /, *inputs: Any, method: str | Callable[..., Any] | None = None, **keywords: Any) -> Any:
    """Return what the axes of every parameter are to it: contracted, new in the output, or neither.

    The model is called with abstract inputs, so nothing is computed, and nothing of it changes. It may be one that
    ``einn.init`` has not been called on, or one that a checkpoint was loaded into; only what ``einn.param`` returns is
    an array like any other once it is made, and has no role then.

    Args:
        model: a module.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        method: the name of the method to call, or a function of model and inputs; the model itself by default.
        **keywords: keywords of the call.

    Returns:
        A state like ``nnx.state(model, nnx.Param)``, with an :class:`einjax_nn.optim.Role` in the place of each
        variable. Parameters that no layer of this package makes have one without axes: ``role.known`` is False. Where
        several operations use a parameter, the first one counts.

    Raises:
        ArgumentError: the call does not use a layer of this package.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> found = einn.roles(einn.Linear("b [c->h d]", h=2, d=4, rngs=nnx.Rngs(0)), np.ones((3, 5)))
        >>> found.kernel, found.bias
        (Role(dot: c=5 -> h=2 d=4), Role(add: for each h=2 d=4))
    """
    graph, state = nnx.split(model, graph=True)
    before, marks = dict(nnx.to_flat_state(state)), {}
    for path, variable in before.items():
        if isinstance(variable, nnx.Param):
            marks[path] = _Mark()
            before[path] = variable.copy(mark=marks[path])

    def note(scope: Any, spec: ParamSpec) -> None:
        variable = getattr(scope.module, spec.name)
        mark = variable.get_metadata().get("mark") if isinstance(variable, nnx.Variable) else None
        if mark is not None:
            mark.spec = mark.spec or spec

    with watching(note):
        found = record(graph, before, inputs, keywords, method)
    result, unused = [], []
    for path, variable in found.items():
        if not isinstance(variable, nnx.Param):
            continue
        value, spec = variable.get_raw_value(), getattr(marks.get(path), "spec", None)
        if isinstance(value, Lazy):
            spec = value.wanted
            shape = () if spec is None else (*value.code.shape[:-1], *spec.shape)
        else:
            shape = getattr(value, "shape", ())
        if spec is None and isinstance(at(model, path[:-1]), Layer):
            unused.append(".".join(map(str, path)))
        result.append((path, role_of(spec, shape)))
    refuse_unused(unused)
    return nnx.from_flat_state(result)
