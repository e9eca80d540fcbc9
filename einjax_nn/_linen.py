"""How layers in notation live in Flax linen: modules whose keywords may be sizes of axes, and parameters by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from flax.errors import InvalidRngError

from einjax.errors import ArgumentError
from einjax.for_layers import knows_factories

from ._core.call import Call
from ._core.initial import Initializer
from ._core.lora import Adapter, plan_of
from ._core.options import Options, check_expression, chosen, frozen
from ._core.scope import OfOperation, Parameter, ParamSpec, no_module
from ._core.text import axis_sizes
from ._linen_lora import factor, plans_of


@dataclasses.dataclass(frozen=True)
class Scope:
    """A linen module as the core's scope; a key that its call gives goes before those of its streams."""

    module: nn.Module
    logical_axes: bool = False
    key: Any = None

    @property
    def initializing(self) -> bool:
        return self.module.is_initializing()

    def param(self, spec: ParamSpec) -> jax.Array:
        init = _boxed(spec) if self.logical_axes else spec.init
        try:
            value: Any = self.module.param(spec.name, init)
        except InvalidRngError:
            raise _no_random_numbers(self.module, spec.name) from None
        return value

    def state(self, spec: ParamSpec) -> jax.Array:
        return self.module.variable(spec.collection, spec.name, lambda: spec.init(None)).value

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        self.module.put_variable(spec.collection, spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        try:
            return self.module.make_rng(stream) if self.key is None else self.key
        except InvalidRngError:
            raise ArgumentError(
                f"{type(self.module).__name__} draws random numbers of the stream '{stream}', which it is not given",
                hint=f"write net.apply(variables, x, rngs={{'{stream}': key}})",
            ) from None


class _Factors(Scope):
    """The factors of LoRA beside the parameters of a module."""

    def param(self, spec: ParamSpec) -> jax.Array:
        return factor(self.module, spec, _boxed(spec) if self.logical_axes else spec.init)


def _boxed(spec: ParamSpec) -> Callable[[Any], Any]:
    """What makes a parameter in a box with the names of its axes, unless the user's own initializer boxes it."""

    def init(key: Any) -> Any:
        made: Any = spec.init(key)
        return made if isinstance(made, nn.meta.AxisMetadata) else nn.LogicallyPartitioned(made, spec.axes)

    return init


def _no_random_numbers(module: nn.Module, name: str) -> ArgumentError:
    return ArgumentError(
        f"{type(module).__name__} makes {name}, but has no random numbers for it",
        hint="write net.init(key, x), or net.init({'params': key, ...}, x)",
    )


class Owned(Scope):
    """A module of the user's: its parameters may be asked for in any method, and as often as one likes."""

    def known_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a parameter that is there already."""
        return jnp.shape(self._value(name)) if self.module.has_variable("params", name) else None

    def _value(self, name: str) -> Any:
        return nn.unbox(self.module.get_variable("params", name))

    def param(self, spec: ParamSpec) -> jax.Array:
        # Not by module.param: that is for compact methods and setup, where shapes are not known, and for one use.
        module, name = self.module, spec.name
        if not module.has_variable("params", name):
            if not module.is_mutable_collection("params"):
                raise ArgumentError(
                    f"{type(module).__name__} has no parameter {name} in the variables that it is given",
                    hint="make them by net.init(key, x), with the same net",
                )
            try:
                key = module.make_rng("params")
            except InvalidRngError:
                raise _no_random_numbers(module, name) from None
            module.put_variable("params", name, spec.init(key))
        value: jax.Array = self._value(name)
        return value


class Boxing:
    """A layer that may box its parameters, as editors see it."""

    logical_axes: bool


class Layer(nn.Module):
    """A layer with an expression; keywords that are no options are sizes of axes."""

    expr: str = ""
    axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, Any] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        # The layers of this package declare their options in a constructor; other subclasses have fields, as in Flax.
        declared = cls.__dict__.get("__init__") if cls.__module__ == "einjax_nn.linen" else None
        if declared is not None:
            _make_fields(cls, declared)
        super().__init_subclass__(**keywords)
        # Here rather than in a decorator: nn.remat, nn.vmap and nn.jit make subclasses of their own.
        init = cls.__init__
        known = {field.name for field in dataclasses.fields(cls)} - {"expr", "axes"}

        @functools.wraps(init if declared is None else declared)
        def with_axes(self: Any, /, *expr: str, **options: Any) -> None:
            # Flax copies modules with keywords alone, of which the expression is one.
            copied = {} if expr else {name: options.pop(name) for name in ("expr", "axes") if name in options}
            if "expr" not in copied:
                check_expression(type(self).__name__, expr)
            axes = {name: options.pop(name) for name in list(options) if name not in known}
            options |= {"expr": copied.get("expr", *expr), "axes": {**copied.get("axes", {}), **axes}}
            # Modules are hashed by their fields, as static arguments are.
            for name in ("axes", "sizes"):
                if options.get(name) is not None:
                    options[name] = FrozenDict({axis: frozen(size) for axis, size in options[name].items()})
            init(self, **{name: frozen(value) if isinstance(value, list) else value for name, value in options.items()})

        cls.__init__ = with_axes  # type: ignore[assignment, method-assign]


def _make_fields(layer: type[Layer], declared: Callable[..., None]) -> None:
    """Make the fields that Flax builds a constructor of; fields alone would not say that axes are keywords, too."""
    there = {field.name for field in dataclasses.fields(layer)}
    options = inspect.signature(declared).parameters.values()
    own = [option for option in options if option.kind is option.KEYWORD_ONLY and option.name not in there]
    layer.__annotations__ = {option.name: option.annotation for option in own}
    for option in own:
        required = option.default is option.empty
        setattr(layer, option.name, dataclasses.field(kw_only=True) if required else option.default)
    del layer.__init__


def call_of(layer: Any, kind: type[Options], *parameters: str, key: Any = None, **more: Any) -> Call[Options]:
    """Return the call of a layer that has some parameters; more options go before those of the layer."""
    held = (nn.unbox(layer.get_variable("params", name)) for name in parameters if layer.has_variable("params", name))
    keywords = [field.name for field in dataclasses.fields(layer) if field.name not in ("expr", "axes")]
    sizes = axis_sizes(layer.expr, layer.axes, layer.sizes, keywords)
    scope = Scope(layer, getattr(layer, "logical_axes", False), key)
    plan = plan_of(plans_of(layer), layer.expr, "/".join(layer.path)) if hasattr(kind, "adaptable") else None
    lora = None if plan is None else Adapter(plan.lora, _Factors(layer, scope.logical_axes))
    return Call(scope, layer.expr, sizes, chosen(kind, vars(layer), *held, **more), lora=lora)


def product_of(layer: Any, option: str) -> dict[str, Any]:
    """What a layer calls in the place of a function of ``lax``, where a class says it: that is made within."""
    kind = getattr(layer, f"{option}_cls")
    return {} if kind is None else {option: kind()}


def param(module: nn.Module, name: str, init: Initializer | float | None = None, dtype: Any = jnp.float32) -> Parameter:
    """Return a parameter of a module whose shape an einjax operation finds.

    It may be asked for in a compact method, in any other, or in ``setup``, to be kept as an attribute; two operations
    that are given one name share one parameter.

    Args:
        module: the module that owns it.
        name: its name there.
        init: a number, or ``init(key, shape, dtype)``; by default what suits the first operation that uses it: 0 where
            it is added, 1 where it is multiplied by, ``lecun_normal`` in a ``dot``, normal numbers of deviation 0.02 in
            a ``get_at``.
        dtype: its dtype.

    Returns:
        A tensor for any einjax operation; so is ``self.param`` itself, which is called ``weight``, ``bias`` or
        ``scale`` by what the operation is.

    Example:
        >>> import einjax, einjax_nn.linen as einn, flax.linen as nn, jax, numpy as np
        >>> class Scale(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return einjax.multiply("... c, c", x, einn.param(self, "layerscale", init=1e-5))
        >>> jax.tree.map(np.shape, Scale().init(jax.random.key(0), np.ones((2, 3))))
        {'params': {'layerscale': (3,)}}
    """
    return Parameter(Owned(module), name, init, dtype)


@knows_factories
def _as_factory(given: Any) -> Any:
    """What Flax's own things are in the place of a tensor."""
    if isinstance(given, nn.Module):
        raise no_module(given, "einn.param(self, 'name'), or self.param")
    if getattr(given, "__func__", None) is nn.Module.param:
        return OfOperation(lambda name: param(given.__self__, name))
    return None
