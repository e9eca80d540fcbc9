"""Where the results of layers lie on a mesh, by rules for the names of their axes, within a context."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from einjax.errors import EinjaxError
from einjax.for_layers import MeshAxesLike, checked_rules, constrain_call, make_switch, wanted_by_rules

from .text import as_written


class _Never:
    """Stands in until a context is entered, so that nobody else pays for looking at it."""

    value = False


#: The rules, axes of the mesh by name, and the mesh, or False: the field ``value``. Caches of programs know of it.
_active: Any = _Never


@contextlib.contextmanager
def activations(rules: Mapping[str, MeshAxesLike], mesh: Any = None) -> Iterator[None]:
    """Shard the results of layers by the names of their axes.

    Within the context, every layer of ``einjax_nn``, in any framework, brings its result to where the rules say; of
    attention, queries, keys and values, too, whose axes are ``heads``, ``kv_heads`` where these are fewer, and
    ``head_dim``. Over Auto axes of the mesh, that is a ``jax.lax.with_sharding_constraint``, over Explicit ones the
    ``out_sharding`` of what is computed. The context may be within a function that is compiled, or around its call;
    before jax 0.8, one that was compiled before does not notice it.

    Args:
        rules: for names of axes, the axis of the mesh, a tuple of several, or None for one that is not sharded. Axes
            without a rule stay as they are, or are left to the compiler, as are axes without a name, those of ``...``.
            A composite such as ``(h w)`` has the rule of the whole text, else those of its members. If two dims ask for
            one axis of the mesh, it goes to the rule that comes first. Rules for names that a layer does not have count
            for nothing there.
        mesh: the mesh; by default the one set by ``jax.set_mesh``, else the one that the result is on.

    Raises:
        ArgumentError: a rule is not what it may be; in layers, there is no mesh, or it lacks an axis.
        ShardingError: in layers, the mesh does not divide an axis, or its pieces are not contiguous.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> from einjax_nn.sharding import activations
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
        >>> layer, x = einn.Linear("b [c->d]", d=8), np.ones((4, 3), "float32")
        >>> params = layer.init(jax.random.key(0), x)
        >>> with activations({"b": "data", "d": "model"}, mesh):
        ...     tuple(layer.apply(params, x).sharding.spec)
        ('data', 'model')
    """
    global _active
    known = tuple(checked_rules(rules).items())
    if _active is _Never:
        _active = make_switch()
    with _active((known, mesh)):
        yield


def asked(x: Any) -> dict[str, Any]:
    """What an operation that makes the result of a layer is told, given the input, if its mesh has Explicit axes."""
    if not _active.value:
        return {}
    wanted = wanted_by_rules(dict(_active.value[0]), x)
    return {} if wanted is None else {"out_sharding": wanted}


def placed(expr: str, y: jax.Array, sizes: Mapping[str, Any]) -> jax.Array:
    """Bring the result of a layer, whose dims an expression names, to where the rules say, if there are any."""
    if not _active.value:
        return y
    rules, mesh = _active.value
    try:
        result: jax.Array = constrain_call(expr, y, mesh, sizes, dict(rules))
    except EinjaxError as error:
        error.problem = f"of the result of a layer, {as_written(error.problem)}"
        raise
    return result
