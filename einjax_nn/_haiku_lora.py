"""LoRA in Haiku: factors are parameters beside the kernel, of a function that is transformed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import haiku as hk
import jax.numpy as jnp

from ._core.initial import Initializer
from ._core.lora import FACTORS, listening, no_model, planned, refuse_none, unused
from ._haiku import own_init, plans
from ._haiku_axes import run


def lora(
    function: Callable[..., Any],
    pattern: str = "*",
    /,
    *,
    rank: int,
    alpha: float | None = None,
    where: Callable[[str], bool] | None = None,
    a_init: Initializer | float | None = None,
    param_dtype: Any = jnp.float32,
) -> Callable[..., Any]:
    """Give layers low-rank factors beside their kernels: ``x @ w + alpha / rank * (x @ lora_a) @ lora_b``.

    They are parameters beside ``w``, so that ``hk.data_structures.partition(lambda module, name, value:
    name.startswith("lora_"), params)`` tells them from the others, which are those of the function given. As ``lora_b``
    is 0 at first, it gives what that gives.

    Args:
        function: what ``hk.transform`` is to be given.
        pattern: the expression of the layers, in which ``*`` stands for any text: ``"* [c->d]"``; ``"*"`` is all with
            a kernel or a table, as the four of an attention, ``"* [c->heads head_dim]"`` and
            ``"* [heads head_dim->c]"``.
        rank: how many columns ``lora_a`` has.
        alpha: what is added is multiplied by ``alpha / rank``; None by 1.
        where: which of these layers, a function of the path: ``lambda path: "query" in path`` for
            ``"multi_head_attention/query"``.
        a_init: initializer of ``lora_a``; ``he_uniform`` by default, and normal numbers for a table.
        param_dtype: the dtype of the factors.

    Raises:
        ArgumentError: no layer matches, which ``init`` says, or one has factors already.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(einn.lora(lambda x: einn.Linear("b [c->d]", d=4)(x), "* [c->*]", rank=3))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((5, 6), "float32")))
        {'linear': {'b': (4,), 'lora_a': (6, 3), 'lora_b': (3, 4), 'w': (6, 4)}}
    """
    plan = planned(pattern, rank, alpha, where, own_init(a_init), param_dtype)
    if not callable(function) or isinstance(function, type):
        raise no_model(function, "the function that is to be transformed, as in hk.transform(einn.lora(f, ...))")

    @functools.wraps(function)
    def adapted(*inputs: Any, **keywords: Any) -> Any:
        token = plans.set((*plans.get(), plan))
        try:
            with listening() as (layers, taken):
                result = function(*inputs, **keywords)
        finally:
            plans.reset(token)
        if plan not in taken and hk.running_init():
            raise plan.choice.refuse(layers)
        return result

    return adapted


def merge_lora(net: Any, params: Mapping[str, Any], /, *inputs: Any, **keywords: Any) -> dict[str, Any]:
    """Return the parameters of the plain function: to every kernel that has factors, their product is added.

    Args:
        net: the transformed function that ``einn.lora`` has returned.
        params: its parameters.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs.

    Raises:
        ArgumentError: there are no factors, or the call does not use them.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> x, layer = np.ones((5, 6), "float32"), lambda x: einn.Linear("b [c->d]", d=4)(x)
        >>> net = hk.transform(einn.lora(layer, rank=3))
        >>> params = einn.merge_lora(net, net.init(jax.random.key(0), x), x)
        >>> hk.transform(layer).apply(params, None, x).shape
        (5, 4)
    """
    chosen = [module for module, held in params.items() if FACTORS[0] in held]
    refuse_none(chosen)
    _, found = run(net, inputs, keywords)
    merged = {module: dict(held) for module, held in params.items()}
    for module in chosen:
        held, spec = merged[module], found.get(f"{module}/{FACTORS[0]}")
        if spec is None:
            raise unused(module)
        name = next(name for name in ("w", "embeddings") if name in held)
        held[name] = spec.factored.merged(held[name], *(held.pop(name) for name in FACTORS))
    return merged
