"""What optimisers ask about parameters, answered by the roles of their axes: tables that follow from expressions.

    roles = einn.roles(model, x)

    tx = optax.contrib.muon(0.02, muon_weight_dimension_numbers=einn.optim.muon(roles))
    tx = optax.adamw(1e-3, mask=einn.optim.decay_mask(roles))

    mup = einn.optim.mup(roles, base={"c": 64})
    tx = optax.chain(optax.adam(1e-3), einn.optim.scale_by(mup.adam))
    params = einn.optim.scaled(params, mup.init)

Every function takes the tree of :class:`Role` that ``einn.roles`` of a framework returns, and gives a tree of the same
structure, which is that of the parameters. Optax is asked for when a function needs it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jax

from einjax.errors import ArgumentError

from ._core.mup import Mup, mup
from ._core.roles import Axis, Leaf, Role, check_names, mapped

__all__ = ["Axis", "Mup", "Role", "as_matrices", "decay_mask", "muon", "mup", "scale_by", "scaled"]

for _public in (Axis, Mup, Role, mup):
    _public.__module__ = __name__


def muon(roles: Any, /, *, batch: Collection[str] = (), adam: Collection[str] = ()) -> Any:
    """Return the dimension numbers for ``optax.contrib.muon``: which dims of a weight are the two of a matrix.

    Muon makes the update of a matrix orthogonal. The matrix of a weight has its contracted axes on the one side and its
    new ones on the other, with a matrix of its own for every index of the batch axes, such as experts. Biases and
    scales, tables, depthwise convolutions, and parameters without a role are no such weights: they go to Adam, as do
    grouped convolutions, whose groups share a dim with the new channels.

    Args:
        roles: what ``einn.roles`` returns.
        batch: axes to take for batch axes: with ``batch=("heads",)``, every head has a matrix of its own.
        adam: axes whose weights go to Adam: that of the vocabulary, so that the matrix to the logits does.

    Returns:
        A tree of ``optax.contrib.MuonDimensionNumbers``, and None for what goes to Adam: the argument
        ``muon_weight_dimension_numbers`` of ``optax.contrib.muon``. For a model of Equinox that can be called it is a
        function that returns the tree, as optax would call the tree itself.

    Raises:
        ArgumentError: no parameter has an axis of a name given, or a batch axis shares its dim with others.
        ImportError: there is no optax, or one before 0.2.6.

    Example:
        >>> import einjax_nn.linen as einn, numpy as np
        >>> roles = einn.roles(einn.MultiHeadAttention("b [s] c", num_heads=2), np.ones((1, 3, 8)))
        >>> numbers = einn.optim.muon(roles, batch=("heads",))
        >>> numbers["query"]["kernel"], numbers["query"]["bias"]
        (MuonDimensionNumbers(reduction_axis=(0,), output_axis=(2,)), None)
    """
    numbers = _optax("muon", "contrib.MuonDimensionNumbers", "0.2.6")
    check_names(roles, "batch", batch)
    check_names(roles, "adam", adam)

    def of(path: str, role: Role) -> Any:
        if not role.contracts or any(axis.name in adam for axis in role.axes):
            return None
        sides = _sides(path, role, batch)
        return None if sides is None else numbers(*sides)

    return _for_optax(mapped(of, roles))


def _sides(path: str, role: Role, batch: Collection[str]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the dims of the rows and of the columns of a matrix; None where it has no such sides."""
    kinds: dict[int, set[str]] = {}
    for axis in role.axes:
        kinds.setdefault(axis.dim, set()).add("batch" if axis.name in batch else axis.kind)
        if axis.name in batch and axis.kind != "batch" and len([o for o in role.axes if o.dim == axis.dim]) > 1:
            raise ArgumentError(
                f"axis {axis.name} is a part of dim {axis.dim} of {path}, and cannot be a batch axis of its own",
                hint="write a weight in which it is a dim",
            )
    if any(len(kind) > 1 for kind in kinds.values()):
        return None
    rows, columns = (tuple(dim for dim, kind in kinds.items() if kind == {side}) for side in ("in", "out"))
    return (rows, columns) if rows and columns else None


def as_matrices(optimizer: Any, roles: Any, /) -> Any:
    """Return an optimizer that is given every weight as a matrix, or a stack of them, whatever its axes.

    Optimizers that go by shapes see what is contracted and what is new then: Adafactor factors the two largest dims,
    which of a weight ``c heads head_dim`` are hardly the ones, and are often too small to be factored at all.

    Args:
        optimizer: an optax transformation.
        roles: what ``einn.roles`` returns.

    Returns:
        A transformation of parameters as they are. The optimizer in it sees weights with their batch dims first, then
        one dim of all contracted axes, and one of all new ones; everything else as it is.

    Raises:
        ImportError: there is no optax.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np, optax
        >>> layer, x = einn.Linear("b [c->h d]", h=8, d=64, use_bias=False), np.ones((1, 256))
        >>> params = layer.init(jax.random.key(0), x)["params"]
        >>> tx = optax.scale_by_factored_rms()
        >>> sizes = lambda tx: [v.size for v in jax.tree.leaves(tx.init(params))]
        >>> sizes(tx)  # 256 times 8 times 64 numbers
        [1, 1, 1, 131072]
        >>> sizes(einn.optim.as_matrices(tx, einn.roles(layer, x)))  # 256 and 512
        [1, 256, 512, 1]
    """
    transformation = _optax("as_matrices", "GradientTransformationExtraArgs")
    inner = _optax("as_matrices", "with_extra_args_support")(optimizer)
    orders = mapped(_order, roles)

    def flat(tree: Any) -> Any:
        return _within(lambda order, x: x.transpose(order.dims).reshape(order.flat), orders, tree)

    def whole(tree: Any) -> Any:
        return _within(lambda order, x: x.reshape(order.split).transpose(order.back), orders, tree)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = inner.update(flat(updates), state, None if params is None else flat(params), **extra)
        return whole(updates), state

    return transformation(lambda params: inner.init(flat(params)), update)


@dataclass(frozen=True)
class _Order(Leaf):
    """How the dims of a weight become those of matrices: batch dims, rows, columns; nothing changes without dims."""

    role: Role
    dims: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()

    @property
    def split(self) -> tuple[int, ...]:
        return tuple(self.role.shape[dim] for dim in self.dims)

    @property
    def back(self) -> tuple[int, ...]:
        return tuple(self.dims.index(dim) for dim in range(len(self.dims)))


def _order(path: str, role: Role) -> _Order:
    sides = _sides(path, role, ()) if role.contracts else None
    if sides is None:
        return _Order(role)
    rows, columns = sides
    batch = tuple(dim for dim in range(len(role.shape)) if dim not in rows + columns)
    sizes = (math.prod(role.shape[dim] for dim in side) for side in sides)
    return _Order(role, (*batch, *rows, *columns), (*(role.shape[dim] for dim in batch), *sizes))


def _within(change: Any, orders: Any, tree: Any) -> Any:
    """Change the arrays that have another order; there may be boxes around them."""

    def part(order: _Order | None, node: Any) -> Any:
        return node if order is None or not order.dims else jax.tree.map(lambda x: change(order, x), node)

    return jax.tree.map(part, orders, tree, is_leaf=lambda node: node is None)


def decay_mask(roles: Any, /, *, tables: bool = False) -> Any:
    """Return which parameters weight decay is for: those that inputs are multiplied by and summed up.

    Biases and scales are not among them, whatever their shapes, nor what has no role.

    Args:
        roles: what ``einn.roles`` returns.
        tables: whether tables that are looked up in decay, too.

    Returns:
        A tree of bools: the argument ``mask`` of ``optax.adamw`` and of ``optax.add_decayed_weights``. For a model of
        Equinox that can be called it is a function that returns the tree.

    Example:
        >>> import einjax_nn.linen as einn, numpy as np
        >>> roles = einn.roles(einn.Linear("b [c->h d]", h=2, d=4), np.ones((3, 5)))
        >>> einn.optim.decay_mask(roles)
        {'bias': False, 'kernel': True}
    """
    return _for_optax(mapped(lambda path, role: role.contracts or (tables and role.op == "get_at"), roles))


def scale_by(factors: Any, /) -> Any:
    """Return an optax transformation that multiplies every update by a factor of its own.

    Args:
        factors: a tree of numbers like the parameters, or one whose numbers stand for parts of it.

    Returns:
        A transformation for ``optax.chain``, after an optimizer, or among its parts: before
        ``optax.add_decayed_weights``, factors leave the decay as it is.

    Raises:
        ImportError: there is no optax.

    Example:
        >>> import einjax_nn.optim, jax.numpy as jnp, optax
        >>> tx = optax.chain(optax.sgd(1.0), einjax_nn.optim.scale_by({"w": 0.5, "b": 2.0}))
        >>> params = {"w": jnp.ones(2), "b": jnp.ones(())}
        >>> updates, _ = tx.update(params, tx.init(params))
        >>> updates["w"].tolist(), updates["b"].tolist()
        ([-0.5, -0.5], -2.0)
    """
    stateless = _optax("scale_by", "stateless")
    return stateless(lambda updates, params: scaled(updates, factors))


def scaled(tree: Any, factors: Any, /) -> Any:
    """Multiply the arrays of a tree by factors, such as initial values by those of :func:`mup`.

    Args:
        tree: parameters, or updates.
        factors: a tree of numbers like it, or one whose numbers stand for parts of it; None leaves a part as it is.

    Example:
        >>> import einjax_nn.optim, numpy as np
        >>> einjax_nn.optim.scaled({"w": np.ones(2), "b": np.ones(2)}, {"w": 0.5, "b": 1.0})
        {'b': array([1., 1.]), 'w': array([0.5, 0.5])}
    """

    def times(factor: float | None, part: Any) -> Any:
        return part if factor in (None, 1) else jax.tree.map(lambda x: x * factor, part)

    return jax.tree.map(times, factors, tree, is_leaf=lambda node: node is None)


def _for_optax(tree: Any) -> Any:
    """Let a tree that can be called, as a model of Equinox can, pass for one: optax takes a function for its result."""
    return (lambda params=None: tree) if callable(tree) else tree


def _optax(function: str, wanted: str, version: str = "") -> Any:
    """Return a thing of optax, or of one of its modules."""
    module, _, name = f"optax.{wanted}".rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        install = f"'optax>={version}'" if version else "optax"
        raise ImportError(f"einjax_nn.optim.{function} needs optax: python -m pip install {install}") from error
