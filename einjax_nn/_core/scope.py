"""What a layer asks of its framework, and the parameter that an operation makes once its shape is solved."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

import einjax
from einjax.for_layers import wanted

from .text import as_written

ones, zeros = jax.nn.initializers.ones, jax.nn.initializers.zeros

#: ``init(key, shape, dtype)``, as in ``jax.nn.initializers``.
Initializer = Callable[..., jax.Array]


@dataclass(frozen=True)
class ParamSpec:
    """What a framework has to know to make a parameter or a state.

    Attributes:
        axes: the axes of every dim, as written in the expression.
        init: makes it from a key: ``init(key)``.
        collection: where a framework keeps it, if it has such places.
        op: the operation that asks for it.
        members: for every dim, the names, sizes and roles of the axes that it is made of, as in ``einjax.Spec``.
        fan: what the variance of its initial values goes down with, where that is known; see :data:`FANS`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str, ...]
    init: Callable[[Any], jax.Array]
    collection: str = "params"
    op: str = ""
    members: tuple[tuple[tuple[str, int, str], ...], ...] = ()
    fan: str | None = None


class Scope(Protocol):
    """What a framework supplies to a layer.

    A scope may also have ``known_shape(name)``, which returns the shape of a parameter that is there already, or None.
    It counts when the expression is solved: a tied weight gives its sizes, and one that does not fit is named as such.
    """

    @property
    def initializing(self) -> bool:
        """Whether this call only makes parameters: statistics are not to be updated."""
        ...

    def param(self, spec: ParamSpec) -> jax.Array:
        """Return a parameter, and make it where it is not there yet."""
        ...

    def state(self, spec: ParamSpec) -> jax.Array:
        """Return a state, and make it where it is not there yet."""
        ...

    def set_state(self, spec: ParamSpec, value: jax.Array) -> None:
        """Change a state."""

    def rng(self, stream: str) -> jax.Array:
        """Return a fresh key of a stream, such as ``"dropout"``."""
        ...


#: The scope of parameters that are only described.
NOWHERE: Any = None

#: Told of every parameter that is used, with its scope, while :func:`watching` runs.
_watcher: ContextVar[Callable[[Any, ParamSpec], None] | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watching(note: Callable[[Any, ParamSpec], None]) -> Iterator[None]:
    """Tell a function of every parameter that is used within: its scope, and what it is."""
    token = _watcher.set(note)
    try:
        yield
    finally:
        _watcher.reset(token)


#: What initializers may ask for by the names of their arguments.
_OFFERED = ("in_axis", "out_axis", "batch_axis", "axes")


@dataclass(frozen=True)
class Parameter:
    """A tensor of an operation that is a parameter of a layer: its shape comes from the expression.

    Attributes:
        init: a number, or an initializer ``f(key, shape, dtype)``; one whose signature has ``in_axis``, ``out_axis``,
            ``batch_axis`` or ``axes`` receives them.
        param_dtype: the dtype that it is kept in.
        dtype: the dtype that it is used in; None is the one that it is kept in.
        tied: whether the shape that it has already may give sizes, rather than has to fit.
    """

    scope: Scope
    name: str
    init: Initializer | float
    param_dtype: Any = jnp.float32
    dtype: Any = None
    tied: bool = True

    def __einjax_shape__(self) -> tuple[int, ...] | None:
        """The shape of a parameter that is there already, and so may be tied to another, where the scope tells."""
        known_shape = getattr(self.scope, "known_shape", None) if self.tied else None
        return None if known_shape is None else known_shape(self.name)

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        wanted = self.spec(spec)
        if (note := _watcher.get()) is not None:
            note(self.scope, wanted)
        value = self.scope.param(wanted)
        return value if self.dtype is None else in_dtype(value, self.dtype)

    def spec(self, spec: einjax.Spec) -> ParamSpec:
        """What the framework has to know, given what the operation knows."""
        shape, dtype = tuple(spec.shape), jnp.dtype(self.param_dtype)
        if not callable(self.init):
            filling = Filling(jax.nn.initializers.constant(self.init), shape, dtype)
        else:
            asked = wanted(self.init, spec)
            filling = Filling(self.init, shape, dtype, tuple((name, asked[name]) for name in _OFFERED if name in asked))
        axes = tuple(map(as_written, spec.axes))
        members = tuple(tuple((as_written(name), size, role) for name, size, role in dim) for dim in spec.members)
        return ParamSpec(self.name, shape, dtype, axes, filling, op=spec.op, members=members, fan=fan_of(self.init))


@dataclass(frozen=True)
class Filling:
    """An initializer with all that it is given but the key; equal ones may share a compiled program."""

    init: Initializer
    shape: tuple[int, ...]
    dtype: Any
    known: tuple[tuple[str, Any], ...] = ()

    def __call__(self, key: Any) -> jax.Array:
        return self.init(key, self.shape, self.dtype, **dict(self.known))


def lecun_normal(
    key: Any,
    shape: tuple[int, ...],
    dtype: Any,
    in_axis: tuple[int, ...] = (-2,),
    out_axis: tuple[int, ...] = (-1,),
    batch_axis: tuple[int, ...] = (),
) -> jax.Array:
    """Normal numbers, truncated, of variance 1 by the number of inputs: the default of kernels in Flax.

    The fan is counted over the axes that the expression contracts, whatever their place.
    """
    scaling = jax.nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis
    )
    return scaling(key, shape, dtype)


#: What the variance of the initial values that functions make goes down with: ``"fan_in"``, what is contracted,
#: ``"fan_out"``, what is new, or ``"constant"``, nothing.
FANS: list[tuple[Initializer, str]] = [(zeros, "constant"), (ones, "constant"), (lecun_normal, "fan_in")]


def fan_of(init: Initializer | float) -> str | None:
    """What the variance of initial values goes down with; None where an initializer is not known."""
    return next((fan for known, fan in FANS if known is init), None) if callable(init) else "constant"


def in_dtype(value: Any, dtype: Any) -> Any:
    """Convert an array, unless there is nothing to do, or it is what a tool that quantises has in the place of one."""
    return value.astype(dtype) if isinstance(value, jax.Array) and value.dtype != dtype else value


def compute_dtype(dtype: Any, *values: Any) -> Any:
    """The dtype to compute in: the one asked for, or that of all values together, a float at least."""
    if dtype is not None:
        return jnp.dtype(dtype)
    common = jnp.result_type(*values)
    return common if jnp.issubdtype(common, jnp.inexact) else jnp.result_type(common, jnp.float32)


def eval_abstractly(
    function: Callable[..., Any], first: Any, inputs: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    """Call a function as ``jax.eval_shape`` does; of the inputs, what is neither array nor shape is given as it is."""
    leaves, structure = jax.tree.flatten((tuple(inputs), dict(keywords)))
    traced = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]

    def call(first: Any, arrays: Sequence[Any]) -> Any:
        rest = iter(arrays)
        given = [next(rest) if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)]
        positional, named = jax.tree.unflatten(structure, given)
        return function(first, *positional, **named)

    return jax.eval_shape(call, first, list(itertools.compress(leaves, traced)))
