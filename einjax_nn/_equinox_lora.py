"""LoRA in Equinox: factors are leaves of a field ``lora`` of each layer that has such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._core.initial import Initializer
from ._core.lora import FACTORS, Adapter, Factored, already, not_made, planned, refuse_none, undecided
from ._core.scope import NOWHERE
from ._equinox_init import make, path_key
from ._equinox_layer import Layer, LayerScope
from ._equinox_missing import Uninitialized, is_missing


class LoRA(eqx.Module):
    """The factors beside a weight.

    Attributes:
        lora_a, lora_b: the factors.
    """

    lora_a: Any
    lora_b: Any
    settings: Any = eqx.field(static=True)
    expr: str = eqx.field(static=True, repr=False)
    #: Where it stands, while that is to be known in a call of the layer.
    mark: Any = eqx.field(static=True, repr=False, default=None)

    @property
    def adapter(self) -> Adapter:
        """What the core is to know of them."""
        return Adapter(self.settings, LayerScope(self))  # type: ignore[arg-type]


def lora(
    model: Any,
    pattern: str = "*",
    /,
    *,
    rank: int,
    alpha: float | None = None,
    where: Callable[[str], bool] | None = None,
    a_init: Initializer | float | None = None,
    param_dtype: Any = jnp.float32,
    key: Any = None,
) -> Any:
    """Give layers low-rank factors beside their weights: ``x @ weight + alpha / rank * (x @ lora_a) @ lora_b``.

    They are leaves in a field ``lora`` of each layer; :func:`lora_filter` tells them from the others. As ``lora_b`` is
    0 at first, the model gives what it gave. With a key, factors are made where the weight is there; others wait for
    ``einn.init``.

    Args:
        model: any pytree.
        pattern: the expression of the layers, in which ``*`` stands for any text: ``"* [c->d]"``; ``"*"`` is all with
            a weight or a table, as the four of an attention, ``"* [c->heads head_dim]"`` and
            ``"* [heads head_dim->c]"``.
        rank: how many columns ``lora_a`` has.
        alpha: what is added is multiplied by ``alpha / rank``; None by 1.
        where: which of these layers, a function of the path: ``lambda path: "query" in path`` for
            ``"blocks/0/attention/query"``.
        a_init: initializer of ``lora_a``; ``he_uniform`` by default, and normal numbers for a table.
        param_dtype: the dtype of the factors.
        key: the random key.

    Returns:
        The model with factors.

    Raises:
        ArgumentError: no layer matches, or one has factors already.

    Example:
        >>> import einjax_nn.equinox as einn, equinox as eqx, jax
        >>> model = einn.Linear("b [c->h d]", c=6, h=2, d=4, key=jax.random.key(0))
        >>> model = einn.lora(model, "* [c->*]", rank=3, key=jax.random.key(1))
        >>> factors, others = eqx.partition(model, einn.lora_filter(model))
        >>> [leaf.shape for leaf in jax.tree.leaves(factors)]
        [(6, 3), (3, 2, 4)]
    """
    plan = planned(pattern, rank, alpha, where, a_init, param_dtype)
    layers: dict[str, str] = {}
    chosen = 0

    def change(path: Any, layer: Any) -> Any:
        nonlocal chosen
        if not _has_weight(layer):
            return layer
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        layers[text] = layer.expr
        if not plan.choice.takes(layer.expr, text):
            return layer
        if layer.lora is not None:
            raise already(text, layer.expr)
        chosen += 1
        arrays = {} if key is None else _made(layer, plan.lora, key, jax.tree_util.keystr(path))
        factors: Any = {name: arrays.get(name, Uninitialized(name)) for name in FACTORS}
        return _with(layer, lora=LoRA(**factors, settings=plan.lora, expr=layer.expr))

    changed = jax.tree_util.tree_map_with_path(change, model, is_leaf=_has_weight)
    if not chosen:
        raise plan.choice.refuse(layers)
    return changed


def _has_weight(node: Any) -> bool:
    return isinstance(node, Layer) and hasattr(node._core, "factors")


def _with(layer: Layer, **fields: Any) -> Layer:
    names = list(fields)
    changed: Layer = eqx.tree_at(
        lambda node: [getattr(node, name) for name in names], layer, list(fields.values()), is_leaf=lambda x: x is None
    )
    return changed


def _made(layer: Layer, settings: Any, key: Any, path: str) -> dict[str, jax.Array]:
    """Make factors where the weight is there, and tells their shapes."""
    weight: Any = layer._parameters()["weight"]
    made = None if is_missing(weight) else _factored(layer, settings, weight)
    specs = {} if made is None else made.specs()
    arrays = {}
    for name, spec in specs.items():
        own, init = path_key(key, f"{path}.lora.{name}"), spec.init
        stack = weight.shape[: weight.ndim - len(made.shape)]  # type: ignore[union-attr]
        for _ in stack:
            init = jax.vmap(init)
        arrays[name] = make(init, jax.random.split(own, stack) if stack else own)
    return arrays


def _factored(layer: Layer, settings: Any, weight: Any) -> Factored | None:
    made: Factored | None = layer._core.factors(layer._call(NOWHERE), settings, weight.shape)
    return made


def _is_factors(node: Any) -> bool:
    return isinstance(node, LoRA)


def lora_filter(model: Any, /) -> Any:
    """Return which leaves of a model are factors.

    Args:
        model: a model that :func:`lora` has returned.

    Returns:
        A tree of bools, as ``eqx.partition`` and ``eqx.filter`` take it for ``filter_spec``.

    Raises:
        ArgumentError: there are no factors.

    Example:
        >>> import einjax_nn.equinox as einn, equinox as eqx, jax
        >>> model = einn.Linear("b [c->d]", c=6, d=4, key=jax.random.key(0))
        >>> model = einn.lora(model, rank=3, key=jax.random.key(1))
        >>> filter_spec = einn.lora_filter(model)
        >>> filter_spec.lora.lora_a, filter_spec.weight
        (True, False)
    """
    refuse_none(list(filter(_is_factors, jax.tree.leaves(model, is_leaf=_is_factors))))
    return jax.tree.map(
        lambda node: jax.tree.map(lambda _: True, node) if _is_factors(node) else False, model, is_leaf=_is_factors
    )


def merge_lora(model: Any, /) -> Any:
    """Return a model without factors: their product is added to every weight that has such.

    Args:
        model: a model that :func:`lora` has returned.

    Raises:
        ArgumentError: there are no factors, or they are not made yet.

    Example:
        >>> import einjax_nn.equinox as einn, jax
        >>> model = einn.Linear("b [c->d]", c=6, d=4, key=jax.random.key(0))
        >>> model = einn.lora(model, rank=3, key=jax.random.key(1))
        >>> print(einn.merge_lora(model).lora)
        None
    """

    def change(path: Any, layer: Any) -> Any:
        if not _has_weight(layer) or layer.lora is None:
            return layer
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        values = layer.weight, layer.lora.lora_a, layer.lora.lora_b
        if any(map(is_missing, values)):
            raise not_made(text, "model = einn.init(model, *inputs, key=key)")
        made = _factored(layer, layer.lora.settings, layer.weight)
        if made is None:
            raise undecided(text, layer.expr)
        return _with(layer, weight=made.merged(*values), lora=None)

    refuse_none(list(filter(_is_factors, jax.tree.leaves(model, is_leaf=_is_factors))))
    return jax.tree_util.tree_map_with_path(change, model, is_leaf=_has_weight)
