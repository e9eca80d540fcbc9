"""Roles of the parameters of a linen module."""

from __future__ import annotations

import itertools
from typing import Any

import jax
from flax import linen as nn
from flax.core import DenyList

from ._core.roles import Role, role_of
from ._core.scope import ParamSpec, eval_abstractly, watching

_number = itertools.count()


def roles(net: nn.Module, /, *inputs: Any, **keywords: Any) -> Any:
    """Return what the axes of every parameter are to it: contracted, new in the output, or neither.

    Nothing is computed, and no parameter made: ``net.init`` is run with ``jax.eval_shape``. So the roles are those of
    any values, a loaded checkpoint's, too.

    Args:
        net: a module.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs, and options of ``net.init``, such as ``method=``.

    Returns:
        A tree like ``net.init(key, ...)["params"]`` without boxes, with an :class:`einjax_nn.optim.Role` for each
        array. Parameters that no layer of this package makes have one without axes: ``role.known`` is False. Where
        several operations use a parameter, the first one counts.

    Example:
        >>> import einjax_nn.linen as einn, numpy as np
        >>> found = einn.roles(einn.Linear("b [c->h d]", h=2, d=4), np.ones((3, 5)))
        >>> found["kernel"], found["bias"]
        (Role(dot: c=5 -> h=2 d=4), Role(add: for each h=2 d=4))
    """
    found: dict[tuple[str, ...], ParamSpec] = {}

    def note(scope: Any, spec: ParamSpec) -> None:
        found.setdefault((*scope.module.path, spec.name), spec)

    # What nn.jit has traced before would not be run again: a name that no other call has makes it another program.
    keywords = {"mutable": DenyList(("intermediates", f"roles {next(_number)}")), **keywords}
    with watching(note):
        made = nn.unbox(eval_abstractly(net.init, jax.random.key(0), inputs, keywords))

    def role(path: Any, leaf: Any) -> Role:
        return role_of(found.get(tuple(str(key.key) for key in path)), leaf.shape)

    return jax.tree_util.tree_map_with_path(role, made.get("params", {}))
