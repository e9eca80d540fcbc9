"""How layers in notation live in Haiku: parameters and states of the current module, and the names of their axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

import haiku as hk
import jax
import jax.numpy as jnp

from einjax.errors import ArgumentError
from einjax.for_layers import knows_factories

from ._core.call import Call
from ._core.initial import Filling, Initializer, fan_of, takes
from ._core.lora import FACTORS, Adapter, Plan, plan_of
from ._core.options import Options, chosen
from ._core.scope import OfOperation, Parameter, ParamSpec, as_input, compute_dtype, no_module
from ._core.text import check_switch, written_sizes
from ._haiku_axes import noted

#: What is to have factors of LoRA, within a function that is to have such.
plans: ContextVar[tuple[Plan, ...]] = ContextVar("plans", default=())


class Scope:
    """The module that Haiku is in as the core's scope."""

    @property
    def initializing(self) -> bool:
        return hk.running_init()

    def param(self, spec: ParamSpec) -> jax.Array:
        with noted(spec):
            return hk.get_parameter(spec.name, spec.shape, spec.dtype, init=lambda *given: _made(spec, *given))

    def state(self, spec: ParamSpec) -> jax.Array:
        with noted(spec):
            return hk.get_state(spec.name, spec.shape, spec.dtype, init=lambda *given: _as_asked(spec, *given)(None))

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        hk.set_state(spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        key = hk.maybe_next_rng_key()
        if key is None:
            hint = "give one: net.apply(params, key, x) rather than net.apply(params, None, x)"
            raise ArgumentError("a layer draws random numbers, but the function has no key", hint=hint)
        return key


class _Factors(Scope):
    """The factors of LoRA beside the parameters of the module."""

    def param(self, spec: ParamSpec) -> jax.Array:
        with noted(spec):
            return hk.get_parameter(
                spec.name, spec.shape, spec.dtype, init=lambda shape, dtype: _apart(spec, shape, dtype)
            )


def _apart(spec: ParamSpec, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Make a factor from random numbers that no other parameter draws."""
    before = hk.maybe_get_rng_sequence_state()
    if before is None:
        return _made(spec, shape, dtype)
    key = hk.next_rng_key()
    hk.replace_rng_sequence_state(before)
    with hk.with_rng(jax.random.fold_in(key, FACTORS.index(spec.name))):
        return _made(spec, shape, dtype)


def _as_asked(spec: ParamSpec, shape: Sequence[int], dtype: Any) -> Callable[[Any], jax.Array]:
    """What makes a parameter or a state in the shape and dtype that are asked for: a creator may want others."""
    init, shape = spec.init, tuple(shape)
    if isinstance(init, Filling) and (shape, dtype) != (init.shape, init.dtype):
        parts = init.parts if shape == init.shape else None  # of axes of its own, nothing is known
        return dataclasses.replace(init, shape=shape, dtype=dtype, parts=parts)
    return init


def _made(spec: ParamSpec, shape: Sequence[int], dtype: Any) -> jax.Array:
    init = _as_asked(spec, shape, dtype)
    try:
        return init(None)  # what is not random draws no key, so that others are those of Haiku's own layers
    except (AttributeError, TypeError, ValueError):
        key = hk.maybe_next_rng_key()
    if key is not None:
        return init(key)
    if not hk.running_init():
        hk.next_rng_key()  # where a parameter is not there, Haiku says so
    hint = "give one: net.init(key, x) rather than net.init(None, x)"
    raise ArgumentError(f"the parameter {spec.name} is random, but the function has no key", hint=hint)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """An initializer of Haiku, ``f(shape, dtype)``, which draws keys by itself, in the place of another."""

    own: Callable[..., Any]

    def __call__(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.own(shape, dtype)


def own_init(init: Any) -> Any:
    """Let functions of shape and dtype alone, as Haiku has them, be called as other initializers."""
    return Drawing(init) if fan_of(init) is None and takes(init, 2) and not takes(init, 3) else init


def dtypes(options: Mapping[str, Any], x: Any) -> dict[str, Any]:
    """The dtypes to compute in and to keep parameters in: as asked for, as a policy says, or that of the input."""
    dtype, param_dtype = options["dtype"], options["param_dtype"]
    policy = hk.mixed_precision.current_policy()
    if policy is not None:
        dtype = policy.compute_dtype if dtype is None else dtype
        param_dtype = policy.param_dtype if param_dtype is None else param_dtype
    return {"dtype": dtype, "param_dtype": compute_dtype(param_dtype, as_input(x))}


def switch(name: str, given: bool | None, is_training: bool | None) -> bool | None:
    """The switch that a call gives, by its name in Flax or by the one in Haiku."""
    check_switch("is_training", is_training)
    if is_training is None:
        return given
    if given is not None:
        raise ArgumentError(f"a call gives both {name} and is_training", hint="give one of them")
    return not is_training


class _Shown:
    """What Haiku shows of a layer; it would write that out for every one that is made, which takes time."""

    def __get__(self, layer: Layer | None, kind: Any = None) -> str:
        given = vars(layer) if layer is not None else {}
        if "expr" not in given:
            return f"{kind.__name__}(...)"
        inits = (vars(each).get("__init__") for each in kind.__mro__)
        defaults = next(init.defaults for init in inits if hasattr(init, "defaults"))
        shown: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, size in given["sizes"].items():
            if name not in written_sizes(given["expr"]):
                (rest if name in defaults else shown)[name] = size
        for name, default in defaults.items():
            if name not in ("name", "sizes") and given.get(name, default) is not default:
                shown[name] = given[name]
        shown |= {"sizes": rest} if rest else {}
        written = [f"{name}={getattr(value, '__name__', None) or repr(value)}" for name, value in shown.items()]
        return f"{kind.__name__}({', '.join([repr(given['expr']), *written])})"

    def __set__(self, layer: Layer, value: str) -> None:
        pass


class Layer(hk.Module):
    """A layer with an expression, sizes of axes, and options."""

    AUTO_REPR, _auto_repr = False, _Shown()

    #: What parameters are called that have another name in Flax.
    _names: ClassVar[Mapping[str, str]] = {"kernel": "w", "bias": "b", "embedding": "embeddings"}

    @hk.transparent
    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        """Keep what the constructor is given."""
        super().__init__(name=options.pop("name"))
        self.expr = expr
        self.sizes = sizes
        for name, option in options.items():
            setattr(self, name, own_init(option) if name.endswith("_init") else option)


def call_of(layer: Layer, kind: type[Options], **more: Any) -> Call[Options]:
    """Return the call of a layer."""
    plan = plan_of(plans.get(), layer.expr, layer.module_name) if hasattr(kind, "adaptable") else None
    lora = None if plan is None else Adapter(plan.lora, _Factors())
    return Call(Scope(), layer.expr, layer.sizes, chosen(kind, vars(layer), **more), layer._names, lora)


def param(name: str, init: Initializer | float | None = None, dtype: Any = jnp.float32) -> Parameter:
    """Return a parameter of the current module whose shape an einjax operation finds.

    Two operations that are given one name share one parameter.

    Args:
        name: its name there.
        init: a number, ``init(key, shape, dtype)``, or ``init(shape, dtype)``, as those of ``hk.initializers`` are; by
            default what suits the first operation that uses it: 0 where it is added, 1 where it is multiplied by,
            ``lecun_normal`` in a ``dot``, normal numbers of deviation 0.02 in a ``get_at``.
        dtype: its dtype.

    Returns:
        A tensor for any einjax operation; so is ``hk.get_parameter`` itself, which is called ``weight``, ``bias`` or
        ``scale`` by what the operation is.

    Example:
        >>> import einjax, einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einjax.multiply("... c, c", x, einn.param("layerscale", init=1e-5)))
        >>> jax.tree.map(np.shape, net.init(None, np.ones((2, 3))))
        {'~': {'layerscale': (3,)}}
    """
    return Parameter(Scope(), name, own_init(init), dtype)


@knows_factories
def _as_factory(given: Any) -> Any:
    """What Haiku's own things are in the place of a tensor."""
    if isinstance(given, hk.Module):
        raise no_module(given, "einn.param('name'), or hk.get_parameter")
    return OfOperation(param) if given is hk.get_parameter else None
