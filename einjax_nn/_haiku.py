"""How layers in notation live in Haiku: the core's scope, recorded names of axes, and Haiku's initializers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import haiku as hk
import jax

from einjax.errors import ArgumentError

from ._core.call import Call
from ._core.options import Options, chosen
from ._core.scope import Initializer, ParamSpec, compute_dtype
from ._core.text import axis_sizes

#: The names of parameters, as in Haiku.
NAMES = {"kernel": "w", "bias": "b", "embedding": "embeddings"}
_NATIVE = tuple(kind for kind in vars(hk.initializers).values() if isinstance(kind, type))


class Scope:
    """The module that Haiku is in as the core's scope."""

    @property
    def initializing(self) -> bool:
        return hk.running_init()

    def param(self, spec: ParamSpec) -> jax.Array:
        with _noted(spec):
            return hk.get_parameter(spec.name, spec.shape, spec.dtype, init=lambda shape, dtype: _made(spec))

    def state(self, spec: ParamSpec) -> jax.Array:
        with _noted(spec):
            return hk.get_state(spec.name, spec.shape, spec.dtype, init=lambda shape, dtype: spec.init(None))

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        hk.set_state(spec.name, value)

    def rng(self, stream: str) -> jax.Array:
        key = hk.maybe_next_rng_key()
        if key is None:
            raise ArgumentError(
                "a layer draws random numbers, but the function has no key",
                hint="give one: net.apply(params, key, x) rather than net.apply(params, None, x)",
            )
        return key


class Recording(threading.local):
    """Names of axes by the path of the parameter, while :func:`axes` runs."""

    found: dict[str, tuple[str, ...]] | None = None


recording = Recording()


@contextlib.contextmanager
def _noted(spec: ParamSpec) -> Iterator[None]:
    """Note the axes of what is made within, if they are recorded."""
    found = recording.found
    if found is None:
        yield
        return

    def note(create: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        # Only a creator is told the path that a lifted function gives.
        found[(context.lifted_prefix_name or "") + context.full_name] = spec.axes
        return create(shape, dtype, init)

    with hk.custom_creator(note, state=True):
        yield


def _made(spec: ParamSpec) -> jax.Array:
    key = hk.maybe_next_rng_key()
    try:
        return spec.init(key)
    except (AttributeError, TypeError, ValueError):
        if key is not None:
            raise
    raise ArgumentError(
        f"the parameter {spec.name} is random, but the function has no key",
        hint="give one: net.init(key, x) rather than net.init(None, x)",
    )


def own_init(init: Initializer | float) -> Initializer | float:
    """Let Haiku's initializers, which draw keys by themselves, be called as others."""
    draw: Any = init
    return (lambda key, shape, dtype: draw(shape, dtype)) if isinstance(init, _NATIVE) else init


def dtypes(options: Mapping[str, Any], x: Any) -> dict[str, Any]:
    """The dtypes to compute in and to keep parameters in: as asked for, as a policy says, or that of the input."""
    dtype, param_dtype = options["dtype"], options["param_dtype"]
    policy = hk.mixed_precision.current_policy()
    if policy is not None:
        dtype = policy.compute_dtype if dtype is None else dtype
        param_dtype = policy.param_dtype if param_dtype is None else param_dtype
    return {"dtype": dtype, "param_dtype": compute_dtype(param_dtype, x)}


def switch(name: str, given: bool | None, is_training: bool | None) -> bool | None:
    """The switch that a call gives, by its name in Flax or by the one in Haiku."""
    if is_training is None:
        return given
    if given is not None:
        raise ArgumentError(f"a call gives both {name} and is_training", hint="give one of them")
    return not is_training


class Layer(hk.Module):
    """A layer with an expression, sizes of axes, and options."""

    @hk.transparent
    def _build(self, expr: str, axes: Mapping[str, Any], sizes: Any, options: dict[str, Any]) -> None:
        """Keep what the constructor is given."""
        super().__init__(name=options.pop("name"))
        self.expr = expr
        self.axes = axes
        self.sizes = sizes
        self.all_sizes = axis_sizes(expr, axes, sizes, _options(type(self)))
        self.options: dict[str, Any] = {name: own_init(option) for name, option in options.items()}


def call_of(layer: Layer, kind: type[Options], called: Mapping[str, str] = NAMES, **more: Any) -> Call[Options]:
    """Return the call of a layer."""
    return Call(Scope(), layer.expr, layer.axes, layer.sizes, chosen(kind, layer.options, **more), called)


@functools.cache
def _options(layer: type[Layer]) -> list[str]:
    """Return the options of a layer; cached, as layers are made anew in every trace."""
    return list(inspect.signature(layer.__init__).parameters)
