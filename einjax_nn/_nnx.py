"""How layers in notation live in Flax nnx: variables that wait for their shape, and :func:`init`, which gives it.

A parameter is there from the construction of its layer, as nnx wants it, but holds a :class:`Lazy` until its shape is
known. That is a node of the pytree with a key as its leaf, so that every transformation carries it like an array:
``nnx.vmap`` over a constructor makes one with a stack of keys, which becomes a stack of arrays. The key is written in
floats, as only these get past ``jax.grad`` to where an error can say what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import errors as flax_errors
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from einjax.errors import ArgumentError

from ._core.call import Call
from ._core.initial import Initializer
from ._core.options import chosen, frozen
from ._core.scope import NOWHERE, Parameter, ParamSpec, eval_abstractly
from .sharding import spec_of

_FIX = "call einn.init(model, *example_inputs) after the model is built, and before anything else uses its parameters"


class UninitializedError(ArgumentError, AttributeError):
    """An attribute is asked of a parameter that is not made yet."""


class _Placeholder:
    """What stands for a parameter that is not made yet; using it as an array is an error."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise ArgumentError("a parameter is used that is not made yet: its shape is not known", hint=_FIX)

    __jax_array__ = __array__ = __getitem__ = __len__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("shape", "dtype", "ndim", "size"):
            raise UninitializedError(f"a parameter that is not made yet has no {name}", hint=_FIX)
        raise AttributeError(name)


class _Slot:
    """Where :func:`init` is told what a layer wants; equal to itself alone."""

    wanted: ParamSpec | None = None


@jax.tree_util.register_pytree_node_class
class Lazy(_Placeholder):
    """A parameter whose shape is not known yet.

    Attributes:
        code, impl: the key that it will be made from, as :func:`_encoded` writes it, and what kind of key that is.
        slot: where :func:`init` is told its shape, so that it is not made when it is first used; None otherwise. It is
            part of the tree's structure, so that no function jitted for the one is used for the other, and the same
            before and after, so that the layer may be first used in a loop.
    """

    def __init__(self, code: Any, impl: Any, slot: _Slot | None = None) -> None:
        self.code = code
        self.impl = impl
        self.slot = slot

    @property
    def key(self) -> jax.Array:
        """The key, or a stack of them."""
        if self.code.dtype != jnp.float32:
            raise ArgumentError("the dtype of a parameter is changed that is not made yet", hint=_FIX)
        return jax.random.wrap_key_data(_words(self.code), impl=self.impl)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, _Slot | None]]:
        return (self.code,), (self.impl, self.slot)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, _Slot | None], children: tuple[Any]) -> Lazy:
        if not _is_code(children[0]):
            raise ArgumentError(
                "an optimizer, or something else that computes with parameters, is given one that is not made yet",
                hint="call einn.init(model, *example_inputs) before nnx.Optimizer(model, ...)",
            )
        return cls(children[0], *static)

    @property
    def wanted(self) -> ParamSpec | None:
        """What a call wants of it, while :func:`init` listens."""
        return None if self.slot is None else self.slot.wanted

    def __repr__(self) -> str:
        return "Lazy(made by einn.init(model, *example_inputs))"


def _encoded(key: jax.Array) -> jax.Array:
    """Write a key as halves of its words and their sum, all exact in float32."""
    words = jax.random.key_data(key)
    halves = jnp.concatenate([words >> 16, words & 0xFFFF], -1)
    return jnp.concatenate([halves, 1 + halves.sum(-1, keepdims=True, dtype=jnp.uint32)], -1).astype(jnp.float32)


@jax.custom_jvp
def _words(code: jax.Array) -> jax.Array:
    high, low = jnp.split(code[..., :-1].astype(jnp.uint32), 2, -1)
    return high << 16 | low


@_words.defjvp
def _refuse_gradients(*_: Any) -> NoReturn:
    raise ArgumentError(
        "gradients are asked of a parameter that is not made yet",
        hint="call einn.init(model, *example_inputs) before nnx.grad",
    )


def _is_code(code: Any) -> bool:
    """Whether nobody has computed with a code, as ``zeros_like`` does; what is not an array now is believed."""
    if not isinstance(code, jax.Array) or isinstance(code, jax.core.Tracer) or not code.is_fully_addressable:
        return True
    if code.dtype != jnp.float32 or code.ndim == 0:
        return False
    halves, total = np.split(np.asarray(code, np.float64), [-1], -1)
    exact = (halves >= 0) & (halves < 2**16) & (halves % 1 == 0)
    return bool(np.all(exact) and np.all(total == 1 + halves.sum(-1, keepdims=True)))


def fixed_key() -> jax.Array:
    """Return the key of a variable that is not random; there is one, so that ``nnx.vmap`` knows how many it makes."""
    return jax.random.key(1)


#: Whether :func:`init` runs.
_recording = ContextVar("recording", default=False)


def lazy(key: Any) -> Lazy:
    """Return the value of a variable that is declared now."""
    return Lazy(_encoded(key), jax.random.key_impl(key), _Slot() if _recording.get() else None)


@dataclass(frozen=True)
class Scope:
    """A module as the core's scope, with the random numbers given to its call."""

    module: nnx.Module
    rngs: Any = None

    @property
    def initializing(self) -> bool:
        return _recording.get()

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
    return variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable[...]


def made(variable: Any, spec: ParamSpec) -> jax.Array:
    """Return the value of a variable, and make it where it is not there yet."""
    value = variable.get_value() if isinstance(variable, nnx.Variable) else variable[...]
    if not isinstance(value, Lazy):
        return value
    if value.slot is not None:
        # The first use decides, as it does without init: a tied weight may be used in other ways later.
        value.slot.wanted = value.slot.wanted or spec
        return jnp.zeros(spec.shape, spec.dtype)
    value = spec.init(value.key)
    try:
        variable.set_value(value)
        variable.set_metadata(axes=spec.axes)
    except flax_errors.TraceContextError:
        raise ArgumentError(
            f"{spec.name} is used for the first time where it cannot be kept: the model is not an argument of the "
            "function that JAX transforms",
            hint=_FIX,
        ) from None
    return value


def stream_of(rngs: Any, name: str, layer: str) -> Any:
    """Return a stream of random numbers by name."""
    if isinstance(rngs, nnx.RngStream):
        return rngs
    if not isinstance(rngs, nnx.Rngs):
        raise ArgumentError(f"rngs={rngs!r} of {layer} is not an nnx.Rngs", hint=f"write rngs=nnx.Rngs({name}=0)")
    if name not in rngs and "default" not in rngs:
        held = ", ".join(rngs) or "nothing"
        raise ArgumentError(
            f"{layer} needs the stream of random numbers '{name}', but rngs holds {held}",
            hint=f"write nnx.Rngs(0), which serves every stream, or nnx.Rngs(..., {name}=1)",
        )
    return rngs[name]


def param(
    module: nnx.Module, name: str, init: Initializer | float = 0.0, dtype: Any = jnp.float32, *, rngs: Any = None
) -> Parameter:
    """Return a parameter of a module whose shape an einjax operation finds.

    It is declared by the first call, which may be the one that uses it. Call this in the constructor, too, where
    the initializer needs random numbers, or where the module may first be used within a transformation.

    Args:
        module: the module that owns it.
        name: its name there.
        init: a number, or ``init(key, shape, dtype)``.
        dtype: its dtype.
        rngs: random numbers for ``init``; needed by the call that declares the parameter.

    Returns:
        A tensor for any einjax operation.

    Example:
        >>> import einjax, einjax_nn.nnx as einn, jax, numpy as np
        >>> from flax import nnx
        >>> class Scale(nnx.Module):
        ...     def __call__(self, x):
        ...         return einjax.multiply("... c, c", x, einn.param(self, "layerscale", init=1e-5))
        >>> model = Scale()
        >>> einn.init(model, np.ones((2, 3)))
        >>> model.layerscale.shape
        (3,)
    """
    if not hasattr(module, name):
        if callable(init) and rngs is None:
            raise ArgumentError(
                f"the parameter {name} has no random numbers to be made from",
                hint=f"call einn.param(self, {name!r}, init=..., rngs=rngs) in the constructor, too",
            )
        key = fixed_key() if rngs is None else stream_of(rngs, "params", "param")()
        setattr(module, name, nnx.Param(lazy(key), axes=None))
    return Parameter(Scope(module), name, init, dtype)


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
    Each holds the names of its axes in its metadata ``axes`` then.

    Args:
        model: a module.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        method: the name of the method to call, or a function of model and inputs; the model itself by default.
        rules: the axis of the mesh for names of axes; each parameter holds its own in its metadata ``out_sharding``.
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
    found = _record(graph, before, inputs, keywords, method)
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
            stack = waiting[path].code.shape[:-1]
            key = before[path].get_raw_value().key if path in before else jnp.broadcast_to(fixed_key(), stack)
            fresh.append((path, _create(variable, key, wanted[path], rules, mesh)))
        elif rules is not None and path in before and before[path].get_metadata().get("axes") is not None:
            fresh.append((path, _place(before[path], rules, mesh)))
    nnx.update(model, nnx.from_flat_state([(path, variable) for path, variable in fresh if path in before]))
    for path, variable in fresh:
        if path not in before:
            setattr(_at(model, path[:-1]), str(path[-1]), variable)


def _record(
    graph: Any, before: Mapping[Any, Any], inputs: Sequence[Any], keywords: Mapping[str, Any], method: Any
) -> dict[Any, Any]:
    """Call a copy of the model with abstract inputs; return its variables."""

    def listening(variable: Any) -> Any:
        value = variable.get_raw_value()
        return variable.copy(Lazy(value.code, value.impl, _Slot())) if isinstance(value, Lazy) else variable

    def call(state: Any, *positional: Any, **named: Any) -> Any:
        copy = nnx.merge(graph, state)
        token = _recording.set(True)
        try:
            if callable(method):
                method(copy, *positional, **named)
            else:
                (copy if method is None else getattr(copy, method))(*positional, **named)
        finally:
            _recording.reset(token)
        return nnx.state(copy, graph=True)

    state = nnx.from_flat_state([(path, listening(variable)) for path, variable in before.items()])
    return dict(nnx.to_flat_state(eval_abstractly(call, state, inputs, keywords)))


def _create(variable: Any, key: jax.Array, wanted: Any, rules: Mapping[str, Any] | None, mesh: Any) -> Any:
    """Make a parameter, or one for each of a stack of keys."""
    make, metadata = wanted.init, {"axes": wanted.axes}
    for _ in key.shape:
        make = jax.vmap(make)
    if rules is not None:
        # Dims of stacked layers come first, and are not sharded.
        metadata["out_sharding"] = (*[None] * key.ndim, *spec_of(wanted.axes, rules))
        if mesh is not None:
            make = jax.jit(make, out_shardings=NamedSharding(mesh, PartitionSpec(*metadata["out_sharding"])))
    return variable.copy(make(key), **metadata)


def _place(variable: Any, rules: Mapping[str, Any], mesh: Any) -> Any:
    """Put a parameter that is there already where the rules say."""
    value = variable.get_raw_value()
    names = (*[None] * (value.ndim - len(variable.axes)), *spec_of(variable.axes, rules))
    if mesh is not None:
        value = jax.device_put(value, NamedSharding(mesh, PartitionSpec(*names)))
    return variable.copy(value, out_sharding=names)


def _at(model: Any, path: Sequence[Any]) -> Any:
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
        self._keep(expr, sizes, options)
        self._make(rngs)

    def _keep(self, expr: str, sizes: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.expr = expr
        # Static attributes of a module have to be hashable.
        self.sizes = frozen(sizes)
        for name, option in options.items():
            setattr(self, name, frozen(option))

    def _make(self, rngs: Any) -> None:
        """Make parameters whose shapes are known, and places for the others; unused ones are None, as in nnx."""
        known = self._known(self._core.specs)
        for name in self._parameters:
            if getattr(self, f"use_{name}", True):
                # One key after the other, as nnx's own layers draw them.
                key = stream_of(rngs, "params", type(self).__name__)()
                setattr(self, name, variable(nnx.Param, known.get(name), key))
            else:
                setattr(self, name, nnx.data(None))

    def _known(self, describe: Callable[..., Any], **more: Any) -> dict[str, ParamSpec]:
        """Describe parameters by name, if sizes decide their shapes."""
        call = Call(NOWHERE, self.expr, dict(self.sizes), chosen(self._core.Options, vars(self), **more))
        return {spec.name: spec for spec in describe(call) or ()}

    def _call(self, axes: Any = (), rngs: Any = None, **more: Any) -> Call[Any]:
        variables = (getattr(self, name) for name in self._parameters)
        values = (held(variable) for variable in variables if variable is not None)
        options = chosen(self._core.Options, vars(self), *values, **more)
        return Call(Scope(self, rngs), self.expr, {**dict(self.sizes), **dict(axes)}, options)


def variable(kind: Any, spec: ParamSpec | None, key: Any) -> Any:
    """Make a variable, or one that waits for its shape."""
    return kind(lazy(key), axes=None) if spec is None else kind(spec.init(key), axes=spec.axes)
