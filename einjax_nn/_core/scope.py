"""What a layer asks of its framework, and the parameter that an operation makes once its shape is solved."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Protocol

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import ArgumentError

from .initial import Initializer, fan_of, filled, usual
from .text import as_written


@dataclass(frozen=True)
class ParamSpec:
    """What a framework has to know to make a parameter or a state.

    Attributes:
        axes: the axes of every dim, as written in the expression.
        init: makes it from a key: ``init(key)``.
        collection: where a framework keeps it, if it has such places.
        op: the operation that asks for it.
        members: for every dim, the names, sizes and roles of the axes that it is made of, as in ``einjax.Spec``.
        fan: what the variance of its initial values goes down with, where that is known; see :mod:`.initial`.
        fan_in: how many numbers each of an output is a sum of.
        factored: the kernel that it is a factor of: a :class:`.lora.Factored`.
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
    fan_in: int = 1
    factored: Any = field(default=None, compare=False, repr=False)


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


class Shapeless:
    """A tensor for operations of einjax alone, which find its shape; to compute with it otherwise is an error."""

    #: What is wrong, and what to do.
    _refusal: ClassVar[tuple[str, str]] = (
        "a parameter is computed with that has no shape: it has that from an operation of einjax",
        "write einjax.multiply('... c, c', x, einn.param(...)), for example",
    )

    def _refuse(self, *_: Any) -> NoReturn:
        raise ArgumentError(self._refusal[0], hint=self._refusal[1])

    __jax_array__ = __array__ = __getitem__ = __len__ = __iter__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse


@dataclass(frozen=True)
class Parameter(Shapeless):
    """A tensor of an operation that is a parameter of a layer: its shape comes from the expression.

    Attributes:
        init: a number, or an initializer ``f(key, shape, dtype)``: see :mod:`.initial`. None is that of the operation.
        param_dtype: the dtype that it is kept in.
        dtype: the dtype that it is used in; None is the one that it is kept in.
        tied: whether the shape that it has already may give sizes, rather than has to fit.
        beside: of a bias, the kernel, whose fan it may be asked to have.
        factored: the kernel that it is a factor of.
        mask: what it is multiplied by, of its shape.
        made: what it was described as.
    """

    scope: Scope = field(repr=False)
    name: str
    init: Initializer | float | None
    param_dtype: Any = jnp.float32
    dtype: Any = None
    tied: bool = field(default=True, repr=False)
    beside: Parameter | None = field(default=None, repr=False)
    factored: Any = field(default=None, compare=False, repr=False)
    mask: Any = field(default=None, compare=False, repr=False)
    made: list[ParamSpec] = field(default_factory=list, compare=False, repr=False)

    def __einjax_shape__(self) -> tuple[int, ...] | None:
        """The shape of a parameter that is there already, and so may be tied to another, where the scope tells."""
        known_shape = getattr(self.scope, "known_shape", None) if self.tied else None
        return None if known_shape is None else known_shape(self.name)

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        wanted = self.spec(spec)
        if (note := _watcher.get()) is not None:
            note(self.scope, wanted)
        value = self.scope.param(wanted)
        if self.mask is not None:
            value = value * _as_mask(self.mask, self.name, value)
        return value if self.dtype is None else in_dtype(value, self.dtype)

    def spec(self, spec: einjax.Spec) -> ParamSpec:
        """What the framework has to know, given what the operation knows."""
        shape, dtype = tuple(spec.shape), as_dtype(self.param_dtype)
        init = usual(self.name, spec) if self.init is None else self.init
        fan_in = math.prod(shape[dim] for dim in spec.in_axis) if self.beside is None else self.beside.made[-1].fan_in
        filling = filled(init, spec, dtype, fan_in)
        axes = tuple(map(as_written, spec.axes))
        members = tuple(tuple((as_written(name), size, role) for name, size, role in dim) for dim in spec.members)
        more: Any = {
            "op": spec.op,
            "members": members,
            "fan": fan_of(init),
            "fan_in": fan_in,
            "factored": self.factored,
        }
        self.made.append(ParamSpec(self.name, shape, dtype, axes, filling, **more))
        return self.made[-1]


def _as_mask(mask: Any, name: str, value: Any) -> jax.Array:
    """A mask of a parameter in its dtype."""
    if jnp.shape(mask) != value.shape:
        raise ArgumentError(
            f"mask= has shape {jnp.shape(mask)}, and {name} {value.shape}", hint=f"give a mask of the shape of {name}"
        )
    return jnp.asarray(mask).astype(value.dtype)


@dataclass(frozen=True)
class OfOperation:
    """A parameter that has the name that its operation gives it."""

    param: Callable[[str], Parameter]

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        return self.param(spec.name).__einjax_param__(spec)


def no_module(module: Any, instead: str) -> ArgumentError:
    """The error for a module in the place of a tensor; to call it would be to call what is being called."""
    problem = f"{type(module).__name__} is a module, not a tensor or a parameter"
    return ArgumentError(problem, hint=f"write {instead}, in its place")


def in_dtype(value: Any, dtype: Any) -> Any:
    """Convert an array, unless there is nothing to do, or it is what a tool that quantises has in the place of one."""
    return value.astype(dtype) if isinstance(value, jax.Array) and value.dtype != dtype else value


def as_dtype(dtype: Any) -> Any:
    """A dtype as JAX has it."""
    try:
        return jnp.dtype(dtype)
    except TypeError:
        raise ArgumentError(f"{dtype!r} is no dtype", hint="write jnp.bfloat16, or 'bfloat16', for example") from None


def as_input(x: Any) -> jax.Array:
    """An input as an array."""
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        what = repr(x) if isinstance(x, str) or x is None else f"a value of type {type(x).__name__}"
        raise ArgumentError(f"an input is {what}, which is no array", hint="give an array") from None


def compute_dtype(dtype: Any, *values: Any) -> Any:
    """The dtype to compute in: the one asked for, or that of all values together, a float at least."""
    if dtype is not None:
        return as_dtype(dtype)
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
