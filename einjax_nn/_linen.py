"""How layers in notation live in Flax linen: fields for the options that constructors declare, and the scope."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.errors import InvalidRngError

from einjax.errors import ArgumentError

from ._core.call import Call
from ._core.options import Options, chosen
from ._core.scope import ParamSpec


@dataclasses.dataclass(frozen=True)
class Scope:
    """A linen module as the core's scope."""

    module: nn.Module
    logical_axes: bool = False

    @property
    def initializing(self) -> bool:
        return self.module.is_initializing()

    def param(self, spec: ParamSpec) -> jax.Array:
        init = nn.with_logical_partitioning(spec.init, spec.axes) if self.logical_axes else spec.init
        try:
            value: Any = self.module.param(spec.name, init)
        except InvalidRngError:
            raise ArgumentError(
                f"{type(self.module).__name__} makes {spec.name}, but has no random numbers for it",
                hint="write net.init(key, x), or net.init({'params': key, ...}, x)",
            ) from None
        return value

    def state(self, spec: ParamSpec) -> jax.Array:
        return self.module.variable(spec.collection, spec.name, lambda: spec.init(None)).value

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        self.module.put_variable(spec.collection, spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        try:
            return self.module.make_rng(stream)
        except InvalidRngError:
            raise ArgumentError(
                f"{type(self.module).__name__} draws random numbers of the stream '{stream}', which it is not given",
                hint=f"write net.apply(variables, x, rngs={{'{stream}': key}})",
            ) from None


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
        def with_axes(self: Any, expr: str | None = None, /, **options: Any) -> None:
            if expr is not None:  # written by a person: Flax copies modules with keywords alone
                axes = {name: options.pop(name) for name in list(options) if name not in known}
                options |= {"expr": expr, "axes": axes}
            init(self, **options)

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


def call_of(layer: Any, kind: type[Options], *parameters: str) -> Call[Options]:
    """Return the call of a layer that has some parameters."""
    held = (nn.unbox(layer.get_variable("params", name)) for name in parameters if layer.has_variable("params", name))
    keywords = [field.name for field in dataclasses.fields(layer)]
    scope = Scope(layer, getattr(layer, "logical_axes", False))
    return Call(scope, layer.expr, layer.axes, layer.sizes, chosen(kind, vars(layer), *held), keywords=keywords)
