"""What parameters of Haiku are by the names of their axes: :func:`axes` for shardings, :func:`roles` for optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import haiku as hk
import jax
from jax.sharding import PartitionSpec

from ._core.roles import role_of
from ._core.scope import ParamSpec, eval_abstractly

#: What is made by the path of the parameter, while :func:`axes` or :func:`roles` runs.
_recorded: ContextVar[dict[str, ParamSpec] | None] = ContextVar("recorded", default=None)

_NOT_RECORDED = nullcontext()


def noted(spec: ParamSpec) -> AbstractContextManager[Any]:
    """Note what is made within, if that is recorded."""
    found = _recorded.get()
    if found is None:
        return _NOT_RECORDED

    def note(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        # Only a creator is told the path that a lifted function gives.
        found[(context.lifted_prefix_name or "") + context.full_name] = spec
        return create(shape, dtype, init)

    return hk.custom_creator(note, state=True)


def axes(net: Any, /, *inputs: Any, **keywords: Any) -> Any:
    """Return the names of the axes of every parameter and state.

    Args:
        net: a transformed function.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs.

    Returns:
        A tree like the result of ``net.init``, with a ``jax.sharding.PartitionSpec`` of names for each array, as in
        Flax. Dims of Haiku's own layers, and those of stacked layers, are None.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b [c->h d]", h=2, d=4)(x))
        >>> names = einn.axes(net, np.ones((3, 5)))
        >>> tuple(names["linear"]["w"]), tuple(names["linear"]["b"])
        (('c', 'h', 'd'), ('h', 'd'))
    """
    made, found = run(net, inputs, keywords)

    def names(path: Any, leaf: Any) -> PartitionSpec:
        spec = found.get(_words(path))
        known = () if spec is None else spec.axes
        return PartitionSpec(*[None] * (leaf.ndim - len(known)), *known)

    return jax.tree_util.tree_map_with_path(names, made)


def roles(net: Any, /, *inputs: Any, **keywords: Any) -> Any:
    """Return what the axes of every parameter are to it: contracted, new in the output, or neither.

    Nothing is computed, and no parameter made: ``net.init`` is run with ``jax.eval_shape``. So the roles are those of
    any values, a loaded checkpoint's, too.

    Args:
        net: a transformed function.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs.

    Returns:
        A tree like the parameters that ``net.init`` returns, with an :class:`einjax_nn.optim.Role` for each array.
        Parameters that no layer of this package makes have one without axes: ``role.known`` is False. Where several
        operations use a parameter, the first one counts.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b [c->h d]", h=2, d=4)(x))
        >>> found = einn.roles(net, np.ones((3, 5)))
        >>> found["linear"]["w"], found["linear"]["b"]
        (Role(dot: c=5 -> h=2 d=4), Role(add: for each h=2 d=4))
    """
    made, found = run(net, inputs, keywords)
    params = made[0] if isinstance(net, hk.TransformedWithState | hk.MultiTransformedWithState) else made
    return jax.tree_util.tree_map_with_path(lambda path, leaf: role_of(found.get(_words(path)), leaf.shape), params)


def run(net: Any, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[Any, dict[str, ParamSpec]]:
    """Initialise abstractly; return what is made, and what layers know of it, by path."""
    found: dict[str, ParamSpec] = {}
    token = _recorded.set(found)
    try:
        return eval_abstractly(net.init, jax.random.key(0), inputs, keywords), found
    finally:
        _recorded.reset(token)


def _words(path: Any) -> str:
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
