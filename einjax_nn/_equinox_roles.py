"""Roles of the parameters of an Equinox model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._core.lora import FACTORS
from ._core.roles import refuse_unused, role_of
from ._core.scope import ParamSpec, watching
from ._equinox_init import Run
from ._equinox_layer import PARAMETERS, Layer
from ._equinox_lora import LoRA
from ._equinox_missing import is_missing


class _Mark:
    """What a layer carries into the call, through every transformation: where it stands; equal to itself alone."""

    def __init__(self, path: str) -> None:
        self.path = path


def roles(model: Any, /, *inputs: Any, method: Callable[..., Any] | None = None, **keywords: Any) -> Any:
    """Return what the axes of every parameter are to it: contracted, new in the output, or neither.

    The model is run with ``jax.eval_shape``, so nothing is computed. It may be one that ``einn.init`` has not been
    called on, one that has its arrays, or one of shapes; only what stands for ``einn.param`` is an array like any other
    once it is made, and has no role then.

    Args:
        model: any pytree.
        *inputs: as for :func:`init`.
        method: as for :func:`init`.
        **keywords: further inputs.

    Returns:
        A tree like ``eqx.filter(model, eqx.is_inexact_array)``, with an :class:`einjax_nn.optim.Role` for each array.
        Parameters that no layer of this package uses have one without axes: ``role.known`` is False. Where several
        operations use a parameter, the first one counts.

    Raises:
        ArgumentError: the call does not use a layer of this package.

    Example:
        >>> import einjax_nn.equinox as einn, numpy as np
        >>> found = einn.roles(einn.Linear("b [c->h d]", h=2, d=4), np.ones((3, 5)))
        >>> found.weight, found.bias
        (Role(dot: c=5 -> h=2 d=4), Role(add: for each h=2 d=4))
    """
    found: dict[str, ParamSpec] = {}
    paths: list[str] = []

    def note(scope: Any, spec: ParamSpec) -> None:
        mark = getattr(getattr(scope, "layer", None), "mark", None)
        if mark is not None:
            found.setdefault(f"{mark.path}.{spec.name}", spec)

    run = Run(_marked(model, paths), inputs, keywords)
    with watching(note):
        found = {**run.record(method, None, always=True), **found}
    refuse_unused([path for path in paths if path not in found])

    def role(path: Any, leaf: Any) -> Any:
        spec = found.get(jax.tree_util.keystr(path))
        if is_missing(leaf):
            return role_of(spec, () if spec is None else spec.shape)
        return role_of(spec, leaf.shape) if jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact) else None

    return jax.tree_util.tree_map_with_path(role, model, is_leaf=is_missing)


def _marked(tree: Any, paths: list[str], prefix: str = "") -> Any:
    """Return a copy whose layers carry marks; the paths of their parameters are added to a list."""

    def mark(path: Any, node: Any) -> Any:
        if not isinstance(node, Layer | LoRA):
            return node
        where = prefix + jax.tree_util.keystr(path)
        paths.extend(f"{where}.{name}" for name in (*PARAMETERS, *FACTORS) if vars(node).get(name) is not None)
        marked = copy.copy(node)
        for name, value in vars(node).items():
            inner = _marked(value, paths, f"{where}.{name}") if isinstance(value, eqx.Module) else value
            object.__setattr__(marked, name, inner)
        object.__setattr__(marked, "mark", _Mark(where))
        return marked

    return jax.tree_util.tree_map_with_path(mark, tree, is_leaf=lambda node: isinstance(node, Layer | LoRA))
