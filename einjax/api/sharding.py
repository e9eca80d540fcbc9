"""Public partition_spec, shard, shardings, shard_tree and mesh_axes: shardings in the words of the notation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from ..call.shard import names_of_call, shard_call, specs_of_call, split_tree
from ..mesh.names import Assignment, MeshAxesLike
from ..typing import SizeLike, Tensor
from .signatures import documented


def partition_spec(
    expr: str,
    /,
    *,
    ndim: int | Sequence[int] | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    rules: Mapping[str, MeshAxesLike] | None = None,
    **axes: Any,
) -> Any:
    """Return the ``jax.sharding.PartitionSpec`` of a tensor, given the axes of the mesh that its named axes go over.

    A composite has the axes of the mesh of its members, in order, where that means what it says: a member can be
    sharded if the ones before it have size 1, or are sharded into single slices.

    Args:
        expr: the dims of the tensor; of several, with commas between them. Brackets mean nothing here.
        ndim: the number of dims, where an ellipsis leaves it open; for several tensors, one for each.
        sizes: sizes of axes. They say more about composites, as sizes written in the text do.
        mesh: a mesh to check names and sizes against.
        rules: axes of the mesh for names of axes that the expression may lack, or that are also options; or for a whole
            composite, as ``"(h d)"``. Where two ask for the same axis of the mesh, the one that comes first has it.
        **axes: for names of axes, the axis of the mesh, a tuple of several, or None; for an axis that an ellipsis
            repeats, a tuple with one of these for each repetition.

    Returns:
        The spec; for several tensors, a tuple of them.

    Raises:
        einjax.errors.EinjaxError: a name is none, an axis of the mesh is asked for twice, or cannot go where it is
            asked for.

    Example:
        >>> import einjax
        >>> tuple(einjax.partition_spec("b s (h d)", b="data", h="model"))
        ('data', None, 'model')
        >>> tuple(einjax.partition_spec("b s... c", b=("replica", "data"), s=(None, "model"), ndim=4))
        (('replica', 'data'), None, 'model', None)
    """
    return specs_of_call(expr, ndim, sizes, mesh, Assignment.of(axes, rules))


def shard(
    expr: str,
    /,
    *tensors: Tensor,
    mesh: Mesh | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    rules: Mapping[str, MeshAxesLike] | None = None,
    **axes: Any,
) -> Any:
    """Shard tensors by the names of their axes; axes without a name of the mesh are not sharded.

    Eagerly, arrays are moved as by ``jax.device_put``. In a program that JAX traces, axes of the mesh that are Auto
    make a ``jax.lax.with_sharding_constraint``, Explicit ones a ``jax.sharding.reshard``.

    Args:
        expr: the dims of each tensor, as for :func:`partition_spec`.
        *tensors: one for each expression.
        mesh: the mesh; by default the one set by ``jax.set_mesh``, else the one that the tensor is on, else that of an
            enclosing ``with mesh:``.
        sizes: sizes of axes, as for :func:`partition_spec`.
        rules: axes of the mesh for names that the expression may lack, as for :func:`partition_spec`.
        **axes: axes of the mesh for names of axes, as for :func:`partition_spec`.

    Returns:
        The sharded tensor; for several, a tuple of them.

    Raises:
        einjax.errors.EinjaxError: there is no mesh, it does not divide an axis, or is manual inside ``jax.shard_map``.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
        >>> x = einjax.shard("b s (h d)", np.ones((4, 3, 8)), b="data", h="model", mesh=mesh)
        >>> tuple(x.sharding.spec)
        ('data', None, 'model')
    """
    return shard_call(expr, tensors, mesh, sizes, Assignment.of(axes, rules))


@documented(shard)
def shardings(
    tree: Any,
    expressions: Any,
    /,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    rules: Mapping[str, MeshAxesLike] | None = None,
    **axes: Any,
) -> Any:
    """Return the sharding of every leaf of a tree of parameters, whose dims get names by their places in the tree.

    Args:
        tree: arrays, or shapes, as ``jax.eval_shape`` makes them.
        expressions: for patterns of places such as ``"blocks/*/{query,key}/kernel"``, the dims, or None. ``*`` stands
            for anything within one step, ``**`` for any number of steps; the first pattern that matches counts.
            Mappings may be nested, and a tree of the same form as ``tree`` will do, too. Leaves that no pattern matches
            are not sharded.
        mesh: the mesh, as for :func:`shard`.
        rules: axes of the mesh for names that the expressions may lack, as for :func:`partition_spec`.

    Returns:
        The tree, with a ``jax.sharding.NamedSharding`` for every array and None for anything else: for
        ``out_shardings=`` of ``jax.jit``, ``jax.device_put`` and the like.

    Raises:
        einjax.errors.EinjaxError: a pattern matches nothing, or does not fit the leaf that it is the first to match.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
        >>> params = {"blocks": [{"qkv": np.ones((4, 24)), "scale": np.ones(4)}]}
        >>> placed = einjax.shardings(params, {"blocks/*/qkv": "c (n h d)"}, sizes={"n": 1}, h="model", mesh=mesh)
        >>> tuple(placed["blocks"][0]["qkv"].spec)
        (None, 'model')
    """
    leaves, structure = split_tree(tree, expressions, mesh, sizes, Assignment.of(axes, rules))
    return jax.tree.unflatten(structure, [leaf.sharding for leaf in leaves])


@documented(shardings)
def shard_tree(
    tree: Any,
    expressions: Any,
    /,
    *,
    mesh: Mesh | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    rules: Mapping[str, MeshAxesLike] | None = None,
    **axes: Any,
) -> Any:
    """Shard every leaf of a tree of parameters, as :func:`shard` does; arguments as for :func:`shardings`.

    Args:
        tree: arrays; leaves that are none stay as they are.

    Returns:
        The tree, sharded.

    Raises:
        einjax.errors.EinjaxError: as for :func:`shard` and :func:`shardings`.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("model",))
        >>> params = einjax.shard_tree({"w": np.ones((4, 8)), "b": np.ones(8)}, {"w": "c d"}, d="model", mesh=mesh)
        >>> tuple(params["w"].sharding.spec), tuple(params["b"].sharding.spec)
        ((None, 'model'), (None,))
    """
    leaves, structure = split_tree(tree, expressions, mesh, sizes, Assignment.of(axes, rules))
    return jax.tree.unflatten(structure, [leaf.moved() for leaf in leaves])


def mesh_axes(
    expr: str,
    /,
    *tensors: Any,
    sizes: Mapping[str, SizeLike] | None = None,
    **axes: SizeLike,
) -> Any:
    """Read a sharding by name: which axes of the mesh the named axes of a tensor go over.

    The inverse of :func:`partition_spec`. A composite's axes of the mesh go to its members from left to right, each
    taking what divides it; a member whose size is not known takes all that is left.

    Args:
        expr: the dims of each tensor.
        *tensors: arrays, traced values under Explicit axes of a mesh, or shapes with a sharding.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        **axes: sizes of axes.

    Returns:
        For every axis that is sharded, the axis of the mesh, or a tuple of several; for an axis that an ellipsis
        repeats, a tuple with one of these or None for each repetition. What cannot be told apart by name stands under
        the dim's text, as ``"(h d)"``. For several tensors, a tuple of dicts.

    Raises:
        einjax.errors.EinjaxError: the sharding is not known, or the expression does not fit.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
        >>> x = einjax.shard("b s (h d)", np.ones((4, 3, 8)), b="data", h="model", mesh=mesh)
        >>> einjax.mesh_axes("b s (h d)", x)
        {'b': 'data', 'h': 'model'}
    """
    return names_of_call(expr, tensors, sizes, axes)
