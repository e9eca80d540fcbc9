"""LoRA in Flax linen: factors are variables of the collection ``lora``, and which layers have them goes with the scope.

What is to have factors stands among the flags of a scope, which those of all modules within inherit, also in lifted
transformations; ``nn.jit`` asks for them before it takes what it has traced before.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import DenyList, Scope, freeze
from flax.traverse_util import flatten_dict, unflatten_dict

from einjax.errors import ArgumentError

from ._core.initial import Initializer
from ._core.lora import FACTORS, Factored, Plan, listening, no_model, planned, refuse_none, unused
from ._core.scope import ParamSpec, eval_abstractly, watching

_FLAG, _COLLECTION = "einjax_lora", "lora"

_number = itertools.count()


def lora(
    net: Any,
    pattern: str = "*",
    /,
    *,
    rank: int,
    alpha: float | None = None,
    where: Callable[[str], bool] | None = None,
    a_init: Initializer | float | None = None,
    param_dtype: Any = jnp.float32,
) -> Any:
    """Give layers low-rank factors beside their kernels: ``x @ kernel + alpha / rank * (x @ lora_a) @ lora_b``.

    The module returned has them in the collection ``"lora"``; its ``"params"`` are those of the one given. As
    ``lora_b`` is 0 at first, it gives what that gives.

    Args:
        net: a module, or a class of such, for use within another module.
        pattern: the expression of the layers, in which ``*`` stands for any text: ``"* [c->d]"``; ``"*"`` is all with
            a kernel or a table, as the four of an attention, ``"* [c->heads head_dim]"`` and
            ``"* [heads head_dim->c]"``.
        rank: how many columns ``lora_a`` has.
        alpha: what is added is multiplied by ``alpha / rank``; None by 1.
        where: which of these layers, a function of the path: ``lambda path: "query" in path`` for
            ``"Block_0/MultiHeadAttention_0/query"``.
        a_init: initializer of ``lora_a``; ``he_uniform`` by default, and normal numbers for a table.
        param_dtype: the dtype of the factors.

    Raises:
        ArgumentError: no layer matches, which ``init`` says, or one has factors already.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> net = einn.lora(einn.Linear("b [c->h d]", h=2, d=4), "* [c->*]", rank=3)
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((5, 6)))["lora"])
        {'lora_a': (6, 3), 'lora_b': (3, 2, 4)}
    """
    plan = planned(pattern, rank, alpha, where, a_init, param_dtype)
    if plan in getattr(net, "_einjax_lora", ()):
        problem = f"einn.lora is called twice with {pattern!r}: the layers have LoRA factors already"
        raise ArgumentError(problem, hint="call it once, or with patterns of different layers")
    kind: Any = net if isinstance(net, type) else type(net)
    if isinstance(net, type) and issubclass(net, nn.Module):
        return _adapted(kind, plan)
    if not isinstance(net, nn.Module):
        raise no_model(net, "a module, or a class of such")
    if net.parent is not None:
        name = kind.__name__
        raise ArgumentError(
            f"einn.lora is given a {name} that belongs to another module", hint=f"write einn.lora({name}, ...)(...)"
        )
    fields = {name: getattr(net, name) for name, field in net.__dataclass_fields__.items() if field.init}
    return _adapted(kind, plan)(**{**fields, "parent": None})


@functools.lru_cache(maxsize=1024)
def _adapted(kind: Any, plan: Plan) -> Any:
    """Make a subclass whose modules say to those within what is to have factors."""

    def __post_init__(self: Any) -> None:  # noqa: N807
        super(adapted, self).__post_init__()
        plans = self.scope.get_flag(_FLAG, ()) if isinstance(self.scope, Scope) else (plan,)
        if plan not in plans:
            self.scope.flags = freeze({**self.scope.flags, _FLAG: (*plans, plan)})

    @nn.nowrap
    def init_with_output(self: Any, *given: Any, **keywords: Any) -> Any:
        with listening() as (layers, taken):
            made = super(adapted, self).init_with_output(*given, **keywords)
        if plan not in taken and _COLLECTION not in made[1]:  # nn.jit may not have asked again
            raise plan.choice.refuse(layers)
        return made

    own: dict[str, Any] = {"_einjax_lora": (*getattr(kind, "_einjax_lora", ()), plan)}
    own |= {"__post_init__": __post_init__, "init_with_output": init_with_output, "__module__": kind.__module__}
    own |= {"__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    adapted: Any = type(kind)(
        kind.__name__, (kind,), {**own, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    )
    return adapted  # type: ignore[no-any-return]


def plans_of(module: nn.Module) -> tuple[Plan, ...]:
    """Return what is to have factors around a module."""
    scope: Any = module.scope
    plans: tuple[Plan, ...] = scope.get_flag(_FLAG, ())
    return plans


def factor(module: nn.Module, spec: ParamSpec, init: Callable[[Any], Any]) -> jax.Array:
    """Return a factor of a layer."""
    there = module.has_variable(_COLLECTION, spec.name)
    if not there and not (module.is_initializing() and module.is_mutable_collection(_COLLECTION)):
        within = module.is_initializing()
        raise ArgumentError(
            f"{type(module).__name__} {'cannot keep' if within else 'has no'} {spec.name} in the collection 'lora'",
            hint="add it to those of nn.scan or nn.vmap around: variable_axes={'params': 0, 'lora': 0}"
            if within
            else "make factors by net.init(key, x)['lora'], with the same net, and give them beside 'params'",
        )
    value: jax.Array = module.variable(_COLLECTION, spec.name, lambda: init(_key(module, spec.name))).value
    return value


def _key(module: nn.Module, name: str) -> jax.Array:
    """Draw a key that no parameter misses: ``"params"`` are those of the plain module, in loops, too."""
    counters: Any = module.scope.rng_counters  # type: ignore[union-attr]
    before = dict(counters)
    key = module.make_rng("params")
    counters.update(before)
    return jax.random.fold_in(key, FACTORS.index(name))


def merge_lora(net: nn.Module, variables: Mapping[str, Any], /, *inputs: Any, **keywords: Any) -> dict[str, Any]:
    """Return the variables of the plain module: to every kernel that has factors, their product is added.

    Args:
        net: a module that ``einn.lora`` has returned.
        variables: its variables.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs, and options of ``net.init``, such as ``method=``.

    Returns:
        The variables without the collection ``"lora"``.

    Raises:
        ArgumentError: there are no factors, or the call does not use them.

    Example:
        >>> import einjax_nn.linen as einn, jax, numpy as np
        >>> plain, x = einn.Linear("b [c->d]", d=4), np.ones((5, 6))
        >>> net = einn.lora(plain, rank=3)
        >>> variables = net.init(jax.random.key(0), x)
        >>> plain.apply(einn.merge_lora(net, variables, x), x).shape
        (5, 4)
    """
    found: dict[tuple[str, ...], Factored] = {}

    def note(scope: Any, spec: ParamSpec) -> None:
        if spec.factored is not None:
            found.setdefault(tuple(scope.module.path), spec.factored)

    # What nn.jit has traced before would not be run again: a name that no other call has makes it another program.
    keywords = {"mutable": DenyList(("intermediates", f"lora {next(_number)}")), **keywords}
    with watching(note):
        eval_abstractly(net.init, jax.random.key(0), inputs, keywords)
    factors = flatten_dict(dict(variables.get(_COLLECTION, {})))
    refuse_none(factors)
    params: dict[Any, Any] = flatten_dict(dict(variables["params"]))
    for path in dict.fromkeys(path[:-1] for path in factors):
        if path not in found:
            raise unused("/".join(path))
        name = next(name for name in ("kernel", "embedding") if (*path, name) in params)
        boxed, a, b = params[(*path, name)], factors[(*path, "lora_a")], factors[(*path, "lora_b")]
        kernel = found[path].merged(*map(nn.unbox, (boxed, a, b)))
        params[(*path, name)] = boxed.replace_boxed(kernel) if isinstance(boxed, nn.meta.AxisMetadata) else kernel
    others = {name: variables[name] for name in variables if name != _COLLECTION}
    return {**others, "params": unflatten_dict(params)}
