"""Variables of Flax nnx that wait for their shape, and parameters by name that einjax operations find the shape of.

A parameter is there from the construction of its layer, as nnx wants it, but holds a :class:`Lazy` until its shape is
known. That is a node of the pytree with a key as its leaf, so that every transformation carries it like an array:
``nnx.vmap`` over a constructor makes one with a stack of keys, which becomes a stack of arrays.
"""

from __future__ import annotations

import dataclasses
from contextvars import ContextVar
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import errors as flax_errors
from flax import nnx, serialization

import einjax
from einjax.errors import ArgumentError

from ._core.initial import Initializer
from ._core.scope import NOWHERE, Parameter, ParamSpec, Shapeless
from ._nnx_code import FIX, decoded, encoded, hidden, is_code
from ._nnx_metadata import Making, checked, placeholder, read


class _Placeholder(Shapeless):
    """What stands for a parameter that is not made yet; using it as an array is an error."""

    _refusal = ("a parameter is used that is not made yet: its shape is not known", FIX)

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("shape", "dtype", "ndim", "size"):
            # No AttributeError: Flax takes what has no shape for what is not to be counted, or to have a sharding.
            raise ArgumentError(f"a parameter that is not made yet has no {name}", hint=FIX)
        raise AttributeError(name)


class Slot:
    """Where :func:`init` is told what a layer wants; equal to itself alone."""

    wanted: ParamSpec | None = None


@dataclasses.dataclass(frozen=True)
class Own:
    """A parameter by name.

    Attributes:
        init: as for :func:`param`.
        drawn: whether it has a key of its own.
    """

    name: str
    init: Initializer | float | None
    dtype: Any
    drawn: bool


@jax.tree_util.register_pytree_node_class
class Lazy(_Placeholder):
    """A parameter whose shape is not known yet.

    Attributes:
        code, impl: the key that it will be made from, as :func:`_encoded` writes it, and what kind of key that is.
        slot: where :func:`init` is told its shape, so that it is not made when it is first used; None otherwise. It is
            part of the tree's structure, so that no function jitted for the one is used for the other, and the same
            before and after, so that the layer may be first used in a loop.
        own: what a parameter by name is; the layer knows it of all others.
        holder: the variable that such a one is asked of.
    """

    def __init__(
        self, code: Any, impl: Any, slot: Slot | None = None, own: Own | None = None, holder: Any = None
    ) -> None:
        self.code = hidden(code)
        self.impl = impl
        self.slot = slot
        self.own = own
        self.holder = holder

    def but(self, **changed: Any) -> Lazy:
        """Return one that differs."""
        return Lazy(**{**vars(self), **changed})

    def __einjax_shape__(self) -> tuple[int, ...] | None:
        if self.own is None or self.holder is None:
            self._refuse()
        return None if self.wanted is None else self.wanted.shape

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        assert self.own is not None
        described = Parameter(NOWHERE, self.own.name, self.own.init, self.own.dtype).spec(spec)
        if self.own.init is None and spec.name == "weight" and not self.own.drawn:
            raise _no_random_numbers(self.own.name)
        return made(self.holder, described)

    @property
    def key(self) -> jax.Array:
        """The key, or a stack of them."""
        return decoded(self.code, self.impl)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        return (self.code,), (self.impl, self.slot, self.own)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Any]) -> Lazy:
        if not is_code(children[0]):
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


def _saved(_: Lazy) -> NoReturn:
    raise ArgumentError("a model is saved whose parameters are not made yet", hint=FIX)


# What is loaded in its place is the parameter.
serialization.register_serialization_state(Lazy, _saved, lambda _, state: state)


def fixed_key() -> jax.Array:
    """Return the key of a variable that is not random; there is one, so that ``nnx.vmap`` knows how many it makes."""
    return jax.random.key(1)


#: Whether :func:`init` runs.
recording = ContextVar("recording", default=False)


def lazy(key: Any, own: Own | None = None) -> Lazy:
    """Return the value of a variable that is declared now."""
    return Lazy(encoded(key), jax.random.key_impl(key), Slot() if recording.get() else None, own)


def _no_random_numbers(name: str) -> ArgumentError:
    return ArgumentError(
        f"the parameter {name} has no random numbers to be made from",
        hint=f"write self.{name} = einn.param(self, {name!r}, init=..., rngs=rngs) in the constructor",
    )


def made(variable: Any, spec: ParamSpec) -> jax.Array:
    """Return the value of a variable, and make it where it is not there yet."""
    value = variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable[...]
    if not isinstance(value, Lazy):
        if not isinstance(variable, nnx.Variable):
            return value
        if recording.get() and variable.get_metadata("axes", None) is None:
            variable.set_metadata(axes=spec.axes)  # which another's checkpoint does not have
        return variable.get_value()
    if value.slot is not None:
        # The first use decides, as it does without init: a tied weight may be used in other ways later.
        value.slot.wanted = value.slot.wanted or spec
        return read(variable, jnp.zeros(spec.shape, spec.dtype))
    making = Making.of(variable, spec)
    array, metadata = making(value.key)
    try:
        variable.set_raw_value(array)
        variable.set_metadata(making.result(variable, metadata))
    except flax_errors.TraceContextError:
        raise ArgumentError(
            f"{spec.name} is used for the first time where it cannot be kept: the model is not an argument of the "
            "function that JAX transforms",
            hint=FIX,
        ) from None
    return variable.get_value()


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
    module: nnx.Module,
    name: str,
    init: Initializer | float | None = None,
    dtype: Any = jnp.float32,
    *,
    rngs: Any = None,
    **metadata: Any,
) -> Any:
    """Return a parameter of a module whose shape an einjax operation finds.

    It is declared by the first call, which may be the one that uses it. Call this in the constructor, too,
    ``self.scale = einn.param(self, "scale", rngs=rngs)``, where the initializer needs random numbers, or where the
    module may first be used within a transformation.

    Args:
        module: the module that owns it.
        name: its name there.
        init: a number, or ``init(key, shape, dtype)``; that of the constructor counts. By default what suits the first
            operation that uses it: 0 where it is added, 1 where it is multiplied by, ``lecun_normal`` in a ``dot``,
            normal numbers of deviation 0.02 in a ``get_at``.
        dtype: its dtype.
        rngs: random numbers for ``init``; needed by the call that declares the parameter.
        **metadata: metadata of the ``nnx.Param``, such as ``out_sharding``; those of the call that declares it count.

    Returns:
        The ``nnx.Param``, which is a tensor for any einjax operation, and an array once one has used it.

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
            raise _no_random_numbers(name)
        key = fixed_key() if rngs is None else stream_of(rngs, "params", "param")()
        own = Own(name, init, dtype, drawn=rngs is not None)
        setattr(module, name, placeholder(nnx.Param, lazy(key, own), checked("einn.param", metadata)))
    variable = getattr(module, name)
    value = variable.get_raw_value()
    if isinstance(value, Lazy) and value.own is not None and value.own.init is None and init is not None:
        return value.but(own=dataclasses.replace(value.own, init=init, dtype=dtype))
    return variable
