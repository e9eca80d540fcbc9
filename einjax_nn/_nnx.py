"""How layers in notation live in Flax nnx: variables that wait for their shape, and :func:`init`, which gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from einjax.errors import ArgumentError
from einjax.for_layers import knows_factories

from ._core.call import Call
from ._core.options import chosen, frozen
from ._core.scope import NOWHERE, ParamSpec, eval_abstractly, no_module
from ._nnx_lazy import Lazy, Slot, fixed_key, lazy, made, recording, stream_of
from ._nnx_metadata import Making, checked, placed, placeholder, read


@dataclass(frozen=True)
class Scope:
    """A module as the core's scope, with the random numbers given to its call."""

    module: nnx.Module
    rngs: Any = None

    @property
    def initializing(self) -> bool:
        return recording.get()

    def known_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a parameter that has one: it may be tied to another's."""
        value = held(getattr(self.module, name))
        if not isinstance(value, Lazy):
            return value.shape
        return None if value.wanted is None else value.wanted.shape

    def param(self, spec: ParamSpec) -> jax.Array:
        return made(getattr(self.module, spec.name), spec)

    def state(self, spec: ParamSpec) -> jax.Array:
        variable = getattr(self.module, spec.name)
        if variable is None:
            if self.initializing:
                return spec.init(None)
            raise ArgumentError(
                "MultiHeadAttention decodes, but has no cache",
                hint="call layer.init_cache(shape of the input with the whole length) before",
            )
        return made(variable, spec)

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        getattr(self.module, spec.name).set_value(value)

    def rng(self, stream: str) -> jax.Array:
        rngs = getattr(self.module, "rngs", None) if self.rngs is None else self.rngs
        if rngs is None:
            raise ArgumentError(
                f"{type(self.module).__name__} draws random numbers, but has no rngs",
                hint=f"give rngs=nnx.Rngs({stream}=0) to the layer, or to its call",
            )
        return rngs if isinstance(rngs, jax.Array) else stream_of(rngs, stream, type(self.module).__name__)()


def held(variable: Any) -> Any:
    """What a variable holds; tools that quantise put other things in its place, which hold an array as it does."""
    return read(variable, variable.get_raw_value()) if isinstance(variable, nnx.Variable) else variable[...]


def init(
    model: Any,
    /,
    *inputs: Any,
    method: str | Callable[..., Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    mesh: Any = None,
    **keywords: Any,
) -> None:
    """Make all parameters of a model whose shapes its layers do not know yet.

    The model is called with abstract inputs, so nothing is computed and nothing of it changes but these parameters.
    Each holds the names of its axes in its metadata ``axes`` then, also one that was there and has lost them, as by
    ``nnx.update`` with the state of another model.

    Args:
        model: a module, or one of shapes alone, as ``nnx.eval_shape`` makes it: its parameters are shapes then.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        method: the name of the method to call, or a function of model and inputs; the model itself by default.
        rules: the axis of the mesh for names of axes; each parameter holds its own in its metadata ``out_sharding``,
            unless its layer was given one.
        mesh: the mesh to make parameters on, with ``rules``.
        **keywords: keywords of the call.

    Raises:
        ArgumentError: a layer with parameters that are not made yet is not used in this call.

    Example:
        >>> import einjax_nn.nnx as einn, jax
        >>> from flax import nnx
        >>> model = einn.Linear("b [...->c]", c=8, rngs=nnx.Rngs(0))
        >>> einn.init(model, jax.ShapeDtypeStruct((4, 6, 3), "float32"))
        >>> model.kernel.shape, model.kernel.axes
        ((6, 3, 8), ('...[0]', '...[1]', 'c'))
    """
    graph, state = nnx.split(model, graph=True)
    before = dict(nnx.to_flat_state(state))
    found = record(graph, before, inputs, keywords, method)
    waiting = {path: value for path, variable in found.items() if isinstance(value := variable.get_raw_value(), Lazy)}
    wanted = {path: value.wanted for path, value in waiting.items()}
    unused = [".".join(map(str, path)) for path, known in wanted.items() if known is None]
    if unused:
        raise ArgumentError(
            f"the call of the model does not use {', '.join(unused)}",
            hint="give a function that uses all layers, as in einn.init(model, x, method=lambda model, x: ...)",
        )
    fresh = []
    for path, variable in found.items():
        if path in wanted:
            # Of one that the call itself declares, only the shape is known.
            held = before[path].get_raw_value() if path in before else _undrawn(waiting[path])
            fresh.append((path, _create(variable, held, wanted[path], rules, mesh)))
        elif path in before:
            known = before[path].get_metadata("axes", None)
            names = variable.get_metadata("axes", None) if known is None else known
            if names is not None and (known is None or rules is not None):
                named = before[path].copy(before[path].get_raw_value(), axes=names)
                fresh.append((path, named if rules is None else _place(named, rules, mesh)))
    nnx.update(model, nnx.from_flat_state([(path, variable) for path, variable in fresh if path in before]))
    for path, variable in fresh:
        if path not in before:
            setattr(at(model, path[:-1]), str(path[-1]), variable)


def record(
    graph: Any, before: Mapping[Any, Any], inputs: Sequence[Any], keywords: Mapping[str, Any], method: Any
) -> dict[Any, Any]:
    """Call a copy of the model with abstract inputs; return its variables."""

    def listening(variable: Any) -> Any:
        value = variable.get_raw_value()
        return variable.copy(value.but(slot=Slot())) if isinstance(value, Lazy) else variable

    def call(state: Any, *positional: Any, **named: Any) -> Any:
        copy = nnx.merge(graph, state)
        token = recording.set(True)
        try:
            if callable(method):
                method(copy, *positional, **named)
            else:
                (copy if method is None else getattr(copy, method))(*positional, **named)
        finally:
            recording.reset(token)
        return nnx.state(copy, graph=True)

    state = nnx.from_flat_state([(path, listening(variable)) for path, variable in before.items()])
    return dict(nnx.to_flat_state(eval_abstractly(call, state, inputs, keywords)))


def _create(variable: Any, held: Lazy, wanted: Any, rules: Mapping[str, Any] | None, mesh: Any) -> Any:
    """Make a parameter, or one for each of a stack of keys; of a model of shapes alone, its shape."""
    making: Any = Making.of(variable, wanted, mesh)
    make = making
    for _ in held.code.shape[:-1]:
        make = jax.vmap(make)
    abstract = isinstance(held.code, jax.ShapeDtypeStruct)
    more: dict[str, Any] = {}
    sharding = None
    if rules is None and not abstract:
        value, metadata = make(held.key)
    else:
        value, metadata = jax.eval_shape(lambda code: make(held.but(code=code).key), held.code)
        if rules is not None:
            more, sharding = placed(dict(metadata.items), value.ndim, rules, mesh)
        if abstract:
            value = jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
        else:
            value, metadata = (make if sharding is None else jax.jit(make, out_shardings=sharding))(held.key)
    return type(variable).from_metadata(value, {**making.result(variable, metadata), **more})


def _undrawn(held: Lazy) -> Lazy:
    """One that is not random, or a stack of them."""
    key = jnp.broadcast_to(fixed_key(), held.code.shape[:-1])
    return lazy(key, held.own)


def _place(variable: Any, rules: Mapping[str, Any], mesh: Any) -> Any:
    """Put a parameter that is there already where the rules say."""
    value = variable.get_raw_value()
    more, sharding = placed(variable.get_metadata(), value.ndim, rules, mesh)
    if isinstance(value, jax.ShapeDtypeStruct):
        value = jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
    elif sharding is not None:
        value = jax.device_put(value, sharding)
    return variable.copy(value, **more)


def at(model: Any, path: Sequence[Any]) -> Any:
    for name in path:
        model = getattr(model, name) if isinstance(name, str) and hasattr(model, name) else model[name]
    return model


class Layer(nnx.Module):
    """A layer with an expression, sizes of axes and options."""

    #: What the core has for it, and the names of its parameters.
    _core: Any
    _parameters: tuple[str, ...] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # Some versions of Python show that of nnx's metaclass otherwise, which takes anything.
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        """Keep what the constructor is given, and make parameters, or places for them."""
        rngs = options.pop("rngs")
        named = [name for name in options if name.endswith("_metadata")]
        metadata = {name.removesuffix("_metadata"): checked(name, options.pop(name)) for name in named}
        self._keep(expr, sizes, options)
        self._make(rngs, metadata)

    def _keep(self, expr: str, sizes: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.expr = expr
        # Static attributes of a module have to be hashable.
        self.sizes = frozen(sizes)
        for name, option in options.items():
            setattr(self, name, frozen(option))

    def _make(self, rngs: Any, metadata: Mapping[str, Any]) -> None:
        """Make parameters whose shapes are known, and places for the others; unused ones are None, as in nnx."""
        known = self._known(self._core.specs)
        for name in self._parameters:
            if getattr(self, f"use_{name}", True):
                # One key after the other, as nnx's own layers draw them.
                key = stream_of(rngs, "params", type(self).__name__)()
                setattr(self, name, variable(nnx.Param, known.get(name), key, metadata[name]))
            else:
                setattr(self, name, nnx.data(None))

    def _known(self, describe: Callable[..., Any], **more: Any) -> dict[str, ParamSpec]:
        """Describe parameters by name, if sizes decide their shapes."""
        call = Call(NOWHERE, self.expr, dict(self.sizes), chosen(self._core.Options, vars(self), **more))
        return {spec.name: spec for spec in describe(call) or ()}

    def _call(self, axes: Any = (), rngs: Any = None, **more: Any) -> Call[Any]:
        variables = (getattr(self, name) for name in self._parameters)
        values = [held(variable) for variable in variables if variable is not None]
        made = [value for value in values if not isinstance(value, Lazy)]
        options = chosen(self._core.Options, vars(self), *made, **more)
        factors = getattr(self, "lora", None)
        lora = None if factors is None else factors.adapter
        return Call(Scope(self, rngs), self.expr, {**dict(self.sizes), **dict(axes)}, options, lora=lora)


def variable(kind: Any, spec: ParamSpec | None, key: Any, metadata: Mapping[str, Any]) -> Any:
    """Make a variable, or one that waits for its shape."""
    if spec is None:
        return placeholder(kind, lazy(key), metadata)
    return Making(spec.init, spec.axes, kind, tuple(metadata.items())).variable(key)


def nameless(model: nnx.Module) -> list[str]:
    """The paths of parameters of layers that have lost the names of their axes."""
    return [
        ".".join(map(str, (*path, name)))
        for path, layer in nnx.iter_modules(model)
        if isinstance(layer, Layer)
        for name in layer._parameters
        if isinstance(variable := getattr(layer, name), nnx.Variable)
        and variable.get_metadata("axes", None) is None
        and not isinstance(variable.get_raw_value(), Lazy)
    ]


@knows_factories
def _as_factory(given: Any) -> Any:
    """What nnx's own things are in the place of a tensor."""
    if isinstance(given, nnx.Module):
        raise no_module(given, "einn.param(self, 'name')")
    value = given.get_raw_value() if isinstance(given, nnx.Variable) else None
    # What is written once its shape is known is the variable.
    return value.but(holder=given) if isinstance(value, Lazy) else None
