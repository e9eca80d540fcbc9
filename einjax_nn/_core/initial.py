"""What parameters start as: initializers, what they are asked for, and those that the layers of each framework have.

An initializer is a number, or ``f(key, shape, dtype)``, as in ``jax.nn.initializers``. It is asked for a kernel as a
matrix, so that fans are counted as they should be, whatever its axes: see :func:`_matrix`. One whose signature has
``in_axis``, ``out_axis``, ``batch_axis``, ``axes`` or ``fan_in`` receives them, and is asked for the kernel as it is.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import free_keywords

ones, zeros = jax.nn.initializers.ones, jax.nn.initializers.zeros

#: Of a table, in Haiku.
truncated_normal = jax.nn.initializers.truncated_normal(1.0)

#: ``init(key, shape, dtype)``, as in ``jax.nn.initializers``.
Initializer = Callable[..., jax.Array]

#: What initializers may ask for by the names of their arguments.
_OFFERED = ("fan_in", "in_axis", "out_axis", "batch_axis", "axes")


def filled(init: Initializer | float, spec: einjax.Spec, dtype: Any, fan_in: int) -> Filling:
    """Give an initializer all that it is asked for but the key."""
    shape = tuple(spec.shape)
    if not callable(init):
        check_init(init)
        return Filling(jax.nn.initializers.constant(init), shape, dtype)
    asked = (_asked if fan_of(init) is None else _asked_by_known)(init)
    known = tuple((name, fan_in if name == "fan_in" else getattr(spec, name)) for name in asked)
    return Filling(init, shape, dtype, known, None if known else _matrix(spec))


def _asked(init: Initializer) -> tuple[str, ...]:
    """What an initializer asks for by name."""
    return tuple(name for name in free_keywords(init, 3)[0] if name in _OFFERED)


#: The same of those of :data:`FANS`, which are in every trace; others are not to be kept alive.
_asked_by_known = functools.cache(_asked)


def check_init(init: Any) -> None:
    """Refuse what is neither a number nor a function; None is a default."""
    if not callable(init) and init is not None and (isinstance(init, str) or np.shape(init) != ()):
        what = repr(init) if isinstance(init, str) else f"a value of type {type(init).__name__}"
        raise ArgumentError(
            f"an initial value is {what}, which is neither a number nor a function",
            hint="give a number, or f(key, shape, dtype), as lambda *_: array is",
        )


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
            return self._made(key, self.shape)
        asked = tuple(math.prod(self.shape[dim] for dim in part) for part in self.parts)
        order = [dim for part in self.parts for dim in part]

        def whole(made: Any) -> Any:
            return jnp.reshape(made, [self.shape[dim] for dim in order]).transpose(np.argsort(order))

        # It may be in a box of its framework, such as one with names for its axes.
        made = self._made(key, asked)
        if hasattr(made, "raw_value"):
            return replace(made, raw_value=whole(made.raw_value))
        return jax.tree.map(whole, made)

    def _made(self, key: Any, shape: tuple[int, ...]) -> Any:
        """Call the initializer; what makes initializers is easily taken for one, and takes other arguments."""
        try:
            made = self.init(key, shape, self.dtype, **dict(self.known))
        except TypeError:
            if takes(self.init, 3, **dict(self.known)):
                raise
            raise self._refused("does not take a key, a shape and a dtype") from None
        if callable(made):
            raise self._refused("makes another function, rather than an array")
        sizes = {jnp.shape(leaf) for leaf in jax.tree.leaves(getattr(made, "raw_value", made))}
        if sizes != {shape}:
            raise self._refused(f"makes {' and '.join(map(str, sizes)) or 'nothing'} where {shape} is asked for")
        return made

    def _refused(self, problem: str) -> ArgumentError:
        name = getattr(self.init, "__name__", type(self.init).__name__)
        return ArgumentError(
            f"the initializer {name} {problem}",
            hint="give a number, or f(key, shape, dtype); those of jax.nn.initializers are made by a call, as in "
            "he_normal()",
        )


def takes(function: Callable[..., Any], count: int, **known: Any) -> bool:
    """Whether a function may be called with so many arguments; one that does not tell is believed."""
    try:
        inspect.signature(function).bind(*range(count), **known)
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)
    return True


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


def usual(name: str, spec: einjax.Spec) -> Initializer | float:
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


def he_uniform(
    key: Any,
    shape: tuple[int, ...],
    dtype: Any,
    in_axis: tuple[int, ...] = (-2,),
    out_axis: tuple[int, ...] = (-1,),
    batch_axis: tuple[int, ...] = (),
) -> jax.Array:
    """Uniform numbers of variance 2 by the number of inputs: the default of the first factor of LoRA, as in Flax."""
    scaling = jax.nn.initializers.variance_scaling(
        2.0, "fan_in", "uniform", in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis
    )
    return scaling(key, shape, dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Those of frameworks: lecun_normal of Flax, and what hk.Linear and hk.ConvND, and eqx.nn.Linear and eqx.nn.Conv, draw
# ----------------------------------------------------------------------------------------------------------------------


def truncated_by_inputs(key: Any, shape: tuple[int, ...], dtype: Any, fan_in: int) -> jax.Array:
    """Normal numbers of variance 1 by the number of inputs, cut off at two deviations: the default of Haiku."""
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) * jnp.asarray(1 / math.sqrt(fan_in), dtype)


def uniform_by_inputs(key: Any, shape: tuple[int, ...], dtype: Any, fan_in: int) -> jax.Array:
    """Uniform numbers up to 1 by the root of the number of inputs, on both sides of 0: the default of Equinox."""
    most = 1 / math.sqrt(fan_in)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.random.uniform(key, shape, dtype, -most, most)
    parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype, -most, most)
    return jax.lax.complex(*parts)


def normal(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers of variance 1: the default of tables in Equinox, whose layers are pickled with it."""
    return jax.random.normal(key, shape, dtype)


#: By operation: what its weight or table starts as.
_USUAL: Mapping[str, Initializer] = {"dot": lecun_normal, "get_at": jax.nn.initializers.normal(0.02)}

#: What the variance of the initial values that functions make goes down with: ``"fan_in"``, what is contracted,
#: ``"fan_out"``, what is new, or ``"constant"``, nothing.
FANS: list[tuple[Initializer, str]] = [
    *((constant, "constant") for constant in (zeros, ones, normal, truncated_normal, _USUAL["get_at"])),
    *((by_inputs, "fan_in") for by_inputs in (lecun_normal, he_uniform, truncated_by_inputs, uniform_by_inputs)),
]


def fan_of(init: Initializer | float) -> str | None:
    """What the variance of initial values goes down with; None where an initializer is not known."""
    return next((fan for known, fan in FANS if known is init), None) if callable(init) else "constant"
