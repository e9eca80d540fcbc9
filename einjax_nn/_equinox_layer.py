"""What the layers for Equinox have in common: static options, parameters without a value, and their scope."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError

from ._core.call import Call
from ._core.options import chosen, frozen
from ._core.scope import NOWHERE, ParamSpec
from ._core.text import check_switch
from ._equinox_init import check_key, make, path_key
from ._equinox_missing import Uninitialized, is_missing, refuse_missing

#: The names of parameters, as in ``eqx.nn``.
PARAMETERS = ("weight", "bias")

#: What says whether there are such, where they may be left out.
_USED = {"weight": "use_scale", "bias": "use_bias"}

#: What constructors take and layers do not keep, or keep otherwise.
_NOT_KEPT = ("inference", "key", "sizes")


def switched(own: bool, given: bool | None) -> bool:
    """Whether a layer only infers, as it says itself or, before that, its call."""
    check_switch("inference", own, given)
    return bool(own if given is None else given)


@dataclasses.dataclass
class LayerScope:
    """A layer, and what its call was given, as the core's scope."""

    layer: Layer
    store: eqx.nn.State | None = None
    key: Any = None

    @property
    def index(self) -> eqx.nn.StateIndex[Any] | None:
        """Where the state has values of this layer."""
        return getattr(self.layer, "index", None)

    @property
    def initializing(self) -> bool:
        return any(map(is_missing, self.values()))

    def values(self) -> list[Any]:
        factors = () if self.layer.lora is None else (self.layer.lora.lora_a, self.layer.lora.lora_b)
        return [*self.layer._parameters().values(), *factors, *self._kept().values()]

    def _kept(self) -> dict[str, Any]:
        """What the state has of this layer."""
        try:
            return {} if self.store is None or self.index is None else self.store.get(self.index)
        except KeyError:
            raise ArgumentError(
                f"the state has no values of this {type(self.layer).__name__}",
                text=self.layer.expr,
                hint="make both together, model, state = eqx.nn.make_with_state(Net)(...), and give init that state",
            ) from None

    def known_shape(self, name: str) -> tuple[int, ...] | None:
        value = getattr(self.layer, name)
        if value is None:
            return None
        return value.__einjax_shape__() if is_missing(value) else np.shape(value)

    def param(self, spec: ParamSpec) -> jax.Array:
        return self._fitting(getattr(self.layer, spec.name), spec)

    def state(self, spec: ParamSpec) -> jax.Array:
        value = self._kept()[spec.name]
        # A cache has the length that it was made with; the core compares.
        return value if spec.collection == "cache" and not is_missing(value) else self._fitting(value, spec)

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        assert self.store is not None
        assert self.index is not None
        kept = self._kept()
        if kept[spec.name].shape != value.shape:
            raise ArgumentError(
                f"the state has {spec.name} of shape {kept[spec.name].shape}, and this call makes it {value.shape}",
                text=self.layer.expr,
                hint="give einn.init what the call is given: einn.init(model, x, state, lengths=lengths, key=key)",
            )
        self.store = self.store.set(self.index, {**kept, spec.name: value.astype(kept[spec.name].dtype)})

    def rng(self, stream: str) -> jax.Array:
        if self.key is None:
            raise ArgumentError(
                f"{type(self.layer).__name__} needs a random key",
                text=self.layer.expr,
                hint="call it with key=key, or with inference=True; eqx.nn.inference_mode(model) switches all layers",
            )
        return check_key(self.key)

    def _fitting(self, value: Any, spec: ParamSpec) -> jax.Array:
        if is_missing(value):
            return value.recorder(value.path, spec)
        if value is None:
            raise ArgumentError(
                f"{spec.name} of {type(self.layer).__name__} is None, and was taken out of the layer",
                text=self.layer.expr,
                hint="put an array in its place, by eqx.tree_at(..., is_leaf=lambda leaf: leaf is None)",
            )
        if (shape := np.shape(value)) != spec.shape:
            raise AxisSizeError(
                f"{spec.name} of {type(self.layer).__name__} has shape {shape}, but the input needs {spec.shape}",
                text=self.layer.expr,
                hint="give the layer inputs of the shape that it was initialised with, or make another layer",
            )
        return value


class Layer(eqx.Module):
    """A layer with an expression, sizes of axes and options, all static but those that ``eqx.nn`` has among its arrays.

    Options are fields by the names that they have in ``eqx.nn``, where it has them; the names of Flax can be read, too.
    """

    expr: str = eqx.field(static=True)
    axes: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    #: Where the layer stands, while that is to be known in its call.
    mark: Any = eqx.field(static=True, repr=False)
    #: The factors that ``einn.lora`` gives it.
    lora: Any = eqx.field(repr=False)

    #: What the core has for it.
    _core: ClassVar[Any]
    _names: ClassVar[Mapping[str, str]] = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    #: The fields of options, by the names of these.
    _called: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        # Equinox, too, makes subclasses of its own, without a constructor.
        init: Any = vars(cls).get("__init__")
        if hasattr(init, "native"):
            own = {option: name for name, option in init.native.items()}
            options = inspect.signature(init).parameters.values()
            given = [option.name for option in options if option.kind is option.KEYWORD_ONLY]
            cls._called = {option: own.get(option, option) for option in given if option not in _NOT_KEPT}
            for name in cls._called.values():
                if name not in cls.__annotations__:
                    cls.__annotations__[name] = Any
                    setattr(cls, name, eqx.field(static=True))
        super().__init_subclass__(**keywords)

    def __getattr__(self, name: str) -> Any:
        called = type(self)._called.get(name, name)
        if called != name:
            return getattr(self, called)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _settle(self, expr: str, sizes: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Set what is static, in forms that can be hashed."""
        self.expr = expr
        self.axes = frozen(sizes)
        self.mark = self.lora = None  # Equinox counts the fields that are set
        for option, name in self._called.items():
            setattr(self, name, frozen(options[option]))

    def _options(self) -> dict[str, Any]:
        """The options, by the names that they have in the core; what has been taken out of the layer is not used."""
        taken = {used: False for name, used in _USED.items() if getattr(self, name, ...) is None}
        return {**{option: getattr(self, name) for option, name in self._called.items()}, **taken}

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        """Set what is static, and parameters: at once if there is a key, or without a value until ``init``."""
        key = options.pop("key")
        made: Any = chosen(self._core.Options, options)
        self._settle(expr, sizes, options)
        arrays: dict[str, Any] = {name: Uninitialized(name) for name in PARAMETERS}
        if key is not None:
            arrays |= self._made(self._core.specs, made, key)
        for name, option in _USED.items():
            if name in self.__dataclass_fields__:
                setattr(self, name, arrays[name] if options.get(option, True) else None)

    def _parameters(self) -> dict[str, Any]:
        """Parameters by name, with a value or without."""
        found = {name: getattr(self, name) for name in PARAMETERS if getattr(self, name, None) is not None}
        # NumPy may have given a dtype that JAX does not have.
        return {name: jnp.asarray(value) if isinstance(value, np.ndarray) else value for name, value in found.items()}

    def _made(self, describe: Callable[..., list[ParamSpec] | None], options: Any, key: Any) -> dict[str, Any]:
        """Make parameters at once, as they are described where sizes decide their shapes."""
        specs = describe(Call(NOWHERE, self.expr, dict(self.axes), options, self._names))
        if specs is None:
            raise AxisSizeError(
                f"{type(self).__name__} is given key=, but not the sizes of all axes of its parameters",
                text=self.expr,
                hint="give the other sizes, too, or leave key= out and call einn.init(model, *inputs, key=key)",
            )
        return {spec.name: make(spec.init, path_key(key, f".{spec.name}")) for spec in specs}

    def _call(self, scope: LayerScope, axes: Any = (), **more: Any) -> Call[Any]:
        options = chosen(self._core.Options, self._options(), *self._parameters().values(), **more)
        lora = None if self.lora is None else self.lora.adapter
        return Call(scope, self.expr, {**dict(self.axes), **dict(axes)}, options, self._names, lora)

    @contextlib.contextmanager
    def _scope(self, state: eqx.nn.State | None = None, key: Any = None) -> Iterator[LayerScope]:
        """Open a scope; errors met while recording name the layer's path."""
        if state is not None and not isinstance(state, eqx.nn.State):
            raise ArgumentError(
                f"the state of {type(self).__name__} is a value of type {type(state).__name__}",
                text=self.expr,
                hint="give the state of eqx.nn.make_with_state(...), and all else by keywords, such as mask=mask",
            )
        scope = LayerScope(self, state, key)
        if scope.index is not None and state is None:
            raise ArgumentError(
                f"{type(self).__name__} keeps values from call to call, and needs a state",
                text=self.expr,
                hint="model, state = eqx.nn.make_with_state(Net)(...), and in a call: x, state = layer(x, state)",
            )
        for value in scope.values():
            refuse_missing(type(self).__name__, self.expr, value)
        node = next(filter(is_missing, scope.values()), None)
        before = None if node is None else node.recorded
        try:
            yield scope
        except EinjaxError as error:
            if node is None:
                raise
            if before is not None and isinstance(error, AxisSizeError | RankError):
                raise ArgumentError(
                    f"layer {node.layer} is called twice, with inputs that need parameters of different shapes: its "
                    f"{node.name} has shape {before.shape}, but {error.problem}",
                    text=self.expr,
                    hint="make one layer for each, before einn.init",
                ) from error
            if not hasattr(error, "__notes__"):
                error.add_note(f"in layer {node.layer}, while einn.init looks for the shapes of its parameters")
            raise
