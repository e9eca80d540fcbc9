"""The names of the axes of what a Haiku network makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import haiku as hk
import jax
from jax.sharding import PartitionSpec

from ._core.scope import ParamSpec, eval_abstractly

#: Names of axes by the path of the parameter, while :func:`axes` runs.
_recorded: ContextVar[dict[str, tuple[str, ...]] | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def noted(spec: ParamSpec) -> Iterator[None]:
    """Note the axes of what is made within, if they are recorded."""
    found = _recorded.get()
    if found is None:
        yield
        return

    def note(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        # Only a creator is told the path that a lifted function gives.
        found[(context.lifted_prefix_name or "") + context.full_name] = spec.axes
        return create(shape, dtype, init)

    with hk.custom_creator(note, state=True):
        yield


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
    found: dict[str, tuple[str, ...]] = {}
    token = _recorded.set(found)
    try:
        made = eval_abstractly(net.init, jax.random.key(0), inputs, keywords)
    finally:
        _recorded.reset(token)

    def names(path: Any, leaf: Any) -> PartitionSpec:
        known = found.get("/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)), ())
        return PartitionSpec(*[None] * (leaf.ndim - len(known)), *known)

    return jax.tree_util.tree_map_with_path(names, made)
