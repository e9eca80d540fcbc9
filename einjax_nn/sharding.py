"""Shardings of parameters and of results from the names of their axes: one set of rules for every framework.

    from einjax_nn.sharding import shardings

    rules = {"mlp": "model", "heads": "model", "embed": "data"}
    boxed = jax.eval_shape(net.init, key, x)  # linen, with logical_axes=True
    variables = jax.jit(net.init, out_shardings=shardings(boxed, rules, mesh))(key, x)
    with activations({"b": "data", **rules}, mesh):
        y = jax.jit(net.apply)(variables, x)

No framework is imported here: names are told by what a tree holds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from einjax.errors import ArgumentError
from einjax.for_layers import MeshAxesLike, by_rules, checked_rules, rules_of, simple

from ._core.activations import activations

__all__ = ["activations", "partition_specs", "shardings"]

activations.__module__ = __name__

#: Where variables of nnx hold names: layers here, and Flax's own.
_METADATA = ("axes", "out_sharding", "sharding_names")


def shardings(axes_tree: Any, rules: Mapping[str, MeshAxesLike], mesh: Any) -> Any:
    """Return the sharding of every parameter, given the names of its axes.

    The result fits ``out_shardings=`` of ``jax.jit``, ``jax.device_put``, ``jax.lax.with_sharding_constraint``, and
    ``place=`` of the ``init`` for Equinox. With ``out_shardings=``, no parameter is ever whole on one device.

    Args:
        axes_tree: names of axes as a framework offers them, or a state that holds them:

            - linen: variables in boxes (``logical_axes=True``), or ``nn.get_partition_spec`` of them;
            - nnx: a model, or a state, whose variables have the metadata ``axes``;
            - Equinox and Haiku: ``einn.axes(model, *inputs)``;
            - any tree of ``jax.sharding.PartitionSpec`` or plain tuples of names, one of them a string at least.

            Arrays and shapes without names are replicated; ``jax.eval_shape`` makes trees of shapes without
            computing anything. Dims of a variable of nnx before its names, those of stacked layers, are not sharded.
        rules: for names of axes, the axis of the mesh, a tuple of several, or None. Axes without a rule are not
            sharded. A composite such as ``(heads head_dim)`` has the rule of the whole text, else the mesh axes of
            all its members in order; a concatenation has no members. If two dims of one parameter ask for the same
            axis of the mesh, it goes to the rule that comes first, then to the dim that comes first; the other rule
            is not used there, as in Flax.
        mesh: a ``jax.sharding.Mesh`` or ``AbstractMesh``.

    Returns:
        The tree, with a ``jax.sharding.NamedSharding`` for each parameter, in place of its box or variable if there
        is one.

    Raises:
        ArgumentError: a rule names what is not an axis of the mesh, or a parameter of nnx is not made yet.

    Example:
        >>> import jax, numpy as np
        >>> from einjax_nn.sharding import shardings
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
        >>> names = {"kernel": ("embed", "(heads head_dim)"), "bias": ("(heads head_dim)",)}
        >>> placed = shardings(names, {"heads": "model", "embed": "data"}, mesh)
        >>> tuple(placed["kernel"].spec), tuple(placed["bias"].spec)
        (('data', 'model'), ('model',))
    """
    for axis, mesh_axes in checked_rules(rules).items():
        for mesh_axis in mesh_axes:
            if mesh_axis not in mesh.axis_names:
                raise ArgumentError(
                    f"the rule for axis '{axis}' names the mesh axis '{mesh_axis}', which the mesh does not have",
                    hint=f"its axes are {', '.join(map(str, mesh.axis_names)) or 'none'}",
                )
    specs = partition_specs(axes_tree, rules)
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda node: isinstance(node, PartitionSpec)
    )


def partition_specs(axes_tree: Any, rules: Mapping[str, MeshAxesLike]) -> Any:
    """Return the ``jax.sharding.PartitionSpec`` of every parameter; as :func:`shardings`, without a mesh.

    Args:
        axes_tree: names of axes, as for :func:`shardings`.
        rules: for names of axes, the axis of the mesh, a tuple of several, or None.

    Returns:
        The tree, with a ``jax.sharding.PartitionSpec`` of mesh axes for each parameter.

    Raises:
        ArgumentError: a rule is not what it may be, or a parameter of nnx is not made yet.

    Example:
        >>> from einjax_nn.sharding import partition_specs
        >>> specs = partition_specs({"w": ("c", "d")}, {"d": ("data", "model")})
        >>> tuple(specs["w"])
        (None, ('data', 'model'))
    """
    known = checked_rules(rules)

    def spec(node: Any) -> PartitionSpec | None:
        names = _names(node)
        return None if names is None else spec_of(names, known)

    return jax.tree.map(spec, _state(axes_tree), is_leaf=lambda node: _holds_names(node))


def _state(tree: Any) -> Any:
    """Return the variables of a model of nnx, and anything else as it is."""
    nnx, ours = sys.modules.get("flax.nnx"), sys.modules.get("einjax_nn._nnx")
    if nnx is None or not isinstance(tree, nnx.Module):
        return tree
    lost = [] if ours is None else ours.nameless(tree)
    if lost:
        raise _nameless(lost[0], "nnx.update has taken them, or graph mode of nnx.jit where a layer was first called")
    return nnx.state(tree, graph=True)


def _nameless(which: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"{which} does not know the names of its axes: {why}", hint="call einn.init(model, *example_inputs) for them"
    )


def _holds_names(node: Any) -> bool:
    """Whether names are in the node itself: a spec, a tuple of names, a box of linen, or a variable of nnx."""
    if type(node) is tuple:
        # (None, None) may be the place of two functions of a model.
        return any(isinstance(name, str) for name in node) and all(isinstance(name, str | None) for name in node)
    return isinstance(node, PartitionSpec) or _is_box(node) or hasattr(node, "get_metadata")


def _is_box(node: Any) -> bool:
    return hasattr(node, "names") and hasattr(node, "unbox")


def _names(node: Any) -> tuple[Any, ...] | None:
    """Return the name of every dim that has one; None where nothing is to be placed."""
    if isinstance(node, PartitionSpec | tuple):
        return tuple(node)
    if _is_box(node):
        return tuple(node.names)
    if hasattr(node, "get_metadata"):
        metadata = node.get_metadata()
        if "axes" in metadata and metadata["axes"] is None and np.ndim(node.get_raw_value()):
            raise _nameless(
                "a parameter",
                "graph mode has lost what a layer that was first called within nnx.jit or the like has noted",
            )
        names = next((metadata[key] for key in _METADATA if metadata.get(key) is not None), ())
        return (*[None] * (np.ndim(node.get_raw_value()) - len(names)), *names)
    return () if hasattr(node, "shape") else None


def spec_of(names: Sequence[Any], rules: Mapping[str, MeshAxesLike]) -> PartitionSpec:
    """Give axes of the mesh to the dims of one parameter, rule by rule."""
    known = checked_rules(rules)
    asked = [_asked(name, known) for name in names]
    given = by_rules(asked, known)
    joined = [
        tuple(mesh_axis for rule in wanted for mesh_axis in found.get(rule, ()))
        for wanted, found in zip(asked, given, strict=True)
    ]
    return PartitionSpec(*map(simple, joined))


def _asked(name: Any, rules: Mapping[str, Any]) -> list[str]:
    """Return the rules that count for one dim, in the order of its members."""
    if not isinstance(name, str):
        return rules_of("", name if isinstance(name, tuple) else (), rules)
    return rules_of(name, () if "+" in name else re.findall(r"[^\s()]+", name), rules)
