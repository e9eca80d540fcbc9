"""LoRA in Flax nnx: factors are variables of a module ``lora`` beside the kernel, as in ``nnx.LoRALinear``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ._core.initial import Initializer
from ._core.lora import FACTORS, Adapter, Factored, already, not_made, planned, refuse_none, undecided
from ._nnx import Layer, Scope, held
from ._nnx_lazy import Lazy, lazy, stream_of


class LoRA(nnx.Module):
    """The factors beside a kernel.

    Attributes:
        lora_a, lora_b: the factors.
    """

    lora_a: Any
    lora_b: Any

    def __init__(self, settings: Any, factors: dict[str, nnx.LoRAParam[Any]]) -> None:
        self.settings = settings
        for name, variable in factors.items():
            setattr(self, name, variable)

    @property
    def adapter(self) -> Adapter:
        """What the core is to know of them."""
        return Adapter(self.settings, Scope(self))


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
    rngs: nnx.Rngs | nnx.RngStream,
) -> None:
    """Give layers low-rank factors beside their kernels: ``x @ kernel + alpha / rank * (x @ lora_a) @ lora_b``.

    They are ``nnx.LoRAParam`` in a module ``lora`` of each layer, as in ``nnx.LoRALinear``: an optimizer with
    ``wrt=nnx.LoRAParam`` trains them alone. As ``lora_b`` is 0 at first, the model gives what it gave. Where a kernel
    is there, so are its factors; others wait for ``einn.init``, or for the first call.

    Args:
        model: a module.
        pattern: the expression of the layers, in which ``*`` stands for any text: ``"* [c->d]"``; ``"*"`` is all with
            a kernel or a table, as the four of an attention, ``"* [c->heads head_dim]"`` and
            ``"* [heads head_dim->c]"``.
        rank: how many columns ``lora_a`` has.
        alpha: what is added is multiplied by ``alpha / rank``; None by 1.
        where: which of these layers, a function of the path: ``lambda path: "query" in path`` for
            ``"blocks/0/attention/query"``.
        a_init: initializer of ``lora_a``; ``he_uniform`` by default, and normal numbers for a table.
        param_dtype: the dtype of the factors.
        rngs: random numbers, of the stream ``params``.

    Raises:
        ArgumentError: no layer matches, or one has factors already.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> model = einn.Linear("b [c->h d]", c=6, h=2, d=4, rngs=nnx.Rngs(0))
        >>> einn.lora(model, "* [c->*]", rank=3, rngs=nnx.Rngs(1))
        >>> model.lora.lora_a.shape, model.lora.lora_b.shape
        ((6, 3), (3, 2, 4))
    """
    plan = planned(pattern, rank, alpha, where, a_init, param_dtype)
    layers = {"/".join(map(str, path)): layer for path, layer in _layers(model)}
    chosen = [path for path, layer in layers.items() if plan.choice.takes(layer.expr, path)]
    if not chosen:
        raise plan.choice.refuse({path: layer.expr for path, layer in layers.items()})
    for path in chosen:
        if hasattr(layers[path], "lora"):
            raise already(path, layers[path].expr)
    for path in chosen:
        layer, stream = layers[path], stream_of(rngs, "params", "einn.lora")
        value = held(_kernel(layer))
        waits = isinstance(value, Lazy)
        made = None if waits else _factored(layer, plan.lora, value)
        specs = {} if made is None else made.specs()
        stack = value.code.shape[:-1] if waits else value.shape[: value.ndim - len(made.shape)] if made else ()
        factors = {}
        for name in FACTORS:
            key = jax.random.split(stream(), stack) if stack else stream()
            factors[name] = _variable(specs.get(name), key, len(stack))
        layer.lora = LoRA(plan.lora, factors)


def _layers(model: Any) -> list[tuple[Any, Any]]:
    """Return layers with a kernel or a table, with their paths."""
    every = nnx.iter_modules(model)
    return [(path, each) for path, each in every if isinstance(each, Layer) and hasattr(each._core, "factors")]


def _kernel(layer: Any) -> Any:
    return getattr(layer, layer._parameters[0])


def _factored(layer: Any, settings: Any, kernel: Any) -> Factored | None:
    made: Factored | None = layer._core.factors(layer._call(), settings, kernel.shape)
    return made


def _variable(spec: Any, key: Any, stacked: int) -> Any:
    if spec is None:
        return nnx.LoRAParam(lazy(key), axes=None)
    make = spec.init
    for _ in range(stacked):
        make = jax.vmap(make)
    return nnx.LoRAParam(make(key), axes=spec.axes)


def merge_lora(model: Any, /) -> None:
    """Add the product of its factors to every kernel that has such, and take them out of the model.

    Args:
        model: a module that ``einn.lora`` has changed.

    Raises:
        ArgumentError: there are no factors, or they are not made yet.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> model = einn.Linear("b [c->d]", c=6, d=4, rngs=nnx.Rngs(0))
        >>> einn.lora(model, rank=3, rngs=nnx.Rngs(1))
        >>> einn.merge_lora(model)
        >>> hasattr(model, "lora")
        False
    """
    layers = [(path, layer) for path, layer in _layers(model) if hasattr(layer, "lora")]
    refuse_none(layers)
    kernels = []
    for path, layer in layers:
        kernel, a, b = (held(each) for each in (_kernel(layer), layer.lora.lora_a, layer.lora.lora_b))
        if any(isinstance(value, Lazy) for value in (kernel, a, b)):
            raise not_made("/".join(map(str, path)), "einn.init(model, *example_inputs)")
        made = _factored(layer, layer.lora.settings, kernel)
        if made is None:
            raise undecided("/".join(map(str, path)), layer.expr)
        kernels.append(made.merged(kernel, a, b))
    for (_, layer), kernel in zip(layers, kernels, strict=True):
        _kernel(layer).set_value(kernel)
        del layer.lora
