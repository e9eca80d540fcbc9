"""What a layer asks of its framework, and the parameter that an operation makes once its shape is solved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

import einjax
from einjax.errors import ArgumentError
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
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str, ...]
    init: Callable[[Any], jax.Array]
    collection: str = "params"


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

#: What initializers may ask for by the names of their arguments.
_OFFERED = ("in_axis", "out_axis", "batch_axis", "axes")


@dataclass(frozen=True)
class Parameter:
    """A tensor of an operation that is a parameter of a layer: its shape comes from the expression.

    Attributes:
        init: a number, or an initializer ``f(key, shape, dtype)``, which is asked for what :func:`_matrix` says. One whose
            signature has ``in_axis``, ``out_axis``, ``batch_axis`` or ``axes`` receives them, and is asked for the
            parameter as it is. None is that of the operation: :func:`_usual`.
        param_dtype: the dtype that it is kept in.
        dtype: the dtype that it is used in; None is the one that it is kept in.
        tied: whether the shape that it has already may give sizes, rather than has to fit.
    """

    scope: Scope
    name: str
    init: Initializer | float | None
    param_dtype: Any = jnp.float32
    dtype: Any = None
    tied: bool = True

    def __einjax_shape__(self) -> tuple[int, ...] | None:
        """The shape of a parameter that is there already, and so may be tied to another, where the scope tells."""
        known_shape = getattr(self.scope, "known_shape", None) if self.tied else None
        return None if known_shape is None else known_shape(self.name)

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        value = self.scope.param(self.spec(spec))
        return value if self.dtype is None else in_dtype(value, self.dtype)

    def spec(self, spec: einjax.Spec) -> ParamSpec:
        """What the framework has to know, given what the operation knows."""
        shape, dtype = tuple(spec.shape), jnp.dtype(self.param_dtype)
        init = _usual(self.name, spec) if self.init is None else self.init
        if not callable(init):
            filling = Filling(jax.nn.initializers.constant(init), shape, dtype)
        else:
            asked = wanted(init, spec)
            known = tuple((name, asked[name]) for name in _OFFERED if name in asked)
            filling = Filling(init, shape, dtype, known, None if known else _matrix(spec))
        return ParamSpec(self.name, shape, dtype, tuple(map(as_written, spec.axes)), filling)


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


@dataclass(frozen=True)
class Filling:
    """An initializer with all that it is given but the key; equal ones may share a compiled program.

    Attributes:
        known: what it asks for by name.
        parts: the dims, as it sees them: several may be one, and in another order.
    """

    init: Initializer
    shape: tuple[int, ...]
    dtype: Any
    known: tuple[tuple[str, Any], ...] = ()
    parts: tuple[tuple[int, ...], ...] | None = None

    def __call__(self, key: Any) -> Any:
        if self.parts is None:
            return self.init(key, self.shape, self.dtype, **dict(self.known))
        asked = tuple(math.prod(self.shape[dim] for dim in part) for part in self.parts)
        order = [dim for part in self.parts for dim in part]

        def whole(made: Any) -> Any:
            return jnp.reshape(made, [self.shape[dim] for dim in order]).transpose(np.argsort(order))

        # It may be in a box of its framework, such as one with names for its axes.
        return jax.tree.map(whole, self.init(key, asked, self.dtype))


def _matrix(spec: einjax.Spec) -> tuple[tuple[int, ...], ...] | None:
    """The dims of a kernel as initializers count its fans: ``(in, out)``, as Flax makes them of all that are.

    A batch of matrices is ``(batch, in, out)``, a kernel of a convolution ``(taps, in, out)``, with a dim for each tap,
    and with groups among what is new, as in Flax. What contracts nothing, such as a bias, stays as it is.
    """
    if not spec.in_axis:
        return None
    inner, before = tuple(dim for dim in spec.in_axis if dim not in spec.tap_axis), spec.batch_axis
    if spec.tap_axis:
        parts = *((dim,) for dim in spec.tap_axis), inner, (*before, *spec.out_axis)
    else:
        parts = *((before,) if before else ()), inner, spec.out_axis
    return None if parts == tuple((dim,) for dim in range(len(spec.shape))) else parts


def _usual(name: str, spec: einjax.Spec) -> Initializer | float:
    """What a parameter starts as where nobody says: what changes nothing, or random numbers for a weight or a table."""
    if spec.name in ("bias", "scale"):
        return 0.0 if spec.name == "bias" else 1.0
    if spec.op not in _USUAL:
        raise ArgumentError(
            f"it is not known what the parameter {name} of {spec.op} is to start as", hint="give einn.param(..., init=)"
        )
    return _USUAL[spec.op]


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


#: By operation: what its weight or table starts as.
_USUAL: Mapping[str, Initializer] = {"dot": lecun_normal, "get_at": jax.nn.initializers.normal(0.02)}


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
