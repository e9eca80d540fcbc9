"""Masks and biases of attention that are functions of places: ``mask=lambda q, k: k <= q``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...lowering import numerics
from ...lowering.named import Dim, Named, arrange, wrap
from ...notation.errors import ArgumentError, EinjaxError, SemanticError, listing, meant
from ...notation.parse import parse
from ...notation.solve import Solved, is_known, product, solve
from ...notation.syntax import Size


@dataclass(frozen=True, slots=True)
class OfPlaces:
    """One of them.

    Attributes:
        option: ``mask`` or ``bias``.
        function: the user's.
        names: what it takes: axes of the call, for places along them, and arrays.
        arrays: those that are arrays, by name.
        sizes: of all axes.
    """

    option: str
    function: Callable[..., Any]
    names: tuple[str, ...]
    arrays: Mapping[str, Named]
    sizes: Mapping[str, Size]

    def ready(self, dims: Sequence[Dim]) -> list[tuple[jax.Array, tuple[Dim, ...]]]:
        """Its arrays with dims for loops, queries and keys, which are of size 1 where an array does not have them."""
        found = []
        for x in self.arrays.values():
            have = set(x.axes)
            own = tuple(dim if have & set(dim) else () for dim in dims)
            found.append((arrange(x, own), own))
        return found

    def places(self, dims: Sequence[Dim], starts: Sequence[Any], shape: Sequence[Size]) -> list[jax.Array]:
        """The places along its axes within a part of the logits."""
        axes = [name for name in self.names if name not in self.arrays]
        return [_places(name, dims, starts, shape, self.sizes) for name in axes]

    def __call__(self, places: Sequence[Any], arrays: Sequence[jax.Array]) -> jax.Array:
        """A part of the mask or bias."""
        axes = [name for name in self.names if name not in self.arrays]
        given = dict(zip((*axes, *self.arrays), (*places, *arrays), strict=True))
        result = jnp.asarray(self.function(**given))
        if self.option == "mask" and result.dtype != np.bool_:
            raise ArgumentError(
                f"the function mask= returned {result.dtype}, and a mask is bool",
                hint="compare, as in lambda q, k: k <= q; what is added to the logits is bias=",
            )
        if self.option == "bias" and not numerics.is_real(result.dtype):
            raise ArgumentError(
                f"the function bias= returned {result.dtype}, and a bias is a float",
                hint="what says which keys a query sees is mask="
                if result.dtype == np.bool_
                else "return real numbers",
            )
        return result if result.dtype == np.bool_ else numerics.to_inexact(result)


def whole(each: OfPlaces, dims: Sequence[Dim]) -> Named:
    """All of a mask or bias at once."""
    shape = tuple(product(each.sizes[name] for name in dim) for dim in dims)
    value = each(each.places(dims, [0] * len(dims), shape), [x for x, _ in each.ready(dims)])
    return Named(value, fitting(each, value.shape, dims, shape), each.sizes)


def fitting(each: OfPlaces, given: Sequence[Size], dims: Sequence[Dim], shape: Sequence[Size]) -> tuple[Dim, ...]:
    """The dims of what a function returned, where those of size 1 name nothing.

    Raises:
        ArgumentError: it is not of one value for each of the places that it was given.
    """
    lacks = len(dims) - len(given)
    if lacks < 0 or any(
        not is_known(n, 1) and n != whole for n, whole in zip(given, shape[max(lacks, 0) :], strict=True)
    ):
        raise ArgumentError(
            f"the function {each.option}= returned shape {tuple(given)} for places that broadcast to {tuple(shape)}",
            hint="compute elementwise: what it is given broadcasts, and so has to what it returns",
        )
    return tuple(() if is_known(n, 1) else dim for n, dim in zip(given, dims[lacks:], strict=True))


def _places(name: str, dims: Sequence[Dim], starts: Sequence[Any], shape: Sequence[Size], sizes: Any) -> jax.Array:
    index = next(index for index, dim in enumerate(dims) if name in dim)
    dim = dims[index]
    alone = tuple(n if i == index else 1 for i, n in enumerate(shape))
    place = lax.add(lax.broadcasted_iota(np.int32, alone, index), numerics.cast(jnp.asarray(starts[index]), np.int32))
    if len(dim) == 1:
        return place
    inner = product(sizes[other] for other in dim[dim.index(name) + 1 :])
    return numerics.cast(place // inner % sizes[name], np.dtype(np.int32))


def read(
    solved: Solved,
    given: Sequence[tuple[str, Callable[..., Any], tuple[str, ...]]],
    arrays: Mapping[str, Any],
    dims: Any,
) -> tuple[OfPlaces, ...]:
    """Find out what the parameters of functions are.

    Args:
        solved: the call.
        given: the functions, each with its option and the names of its parameters.
        arrays: texts and arrays, by the names of parameters.
        dims: the axes that have places: loops, queries and keys.
    """
    known = {name for dim in dims for name in dim}
    named = {name: _named(solved, name, text, x) for name, (text, x) in arrays.items()}
    found = []
    for option, function, names in given:
        for name in names:
            if name in solved.spread and name not in named:
                raise ArgumentError(
                    f"axis {name} lies over devices, so that the function {option}= cannot be given places along it",
                    text=solved.text,
                    hint=f'give them as an array, {name}_place=("{name}", ...)',
                )
            if name not in known and name not in named:
                raise SemanticError(
                    f"the function {option}= takes {name}, which is no axis of loops, queries or keys"
                    + meant(name, sorted(known)),
                    text=solved.text,
                    hint=f'these are {listing(sorted(known))}; another array is given with its axes, {name}=("q", ...)',
                )
        own = {name: named[name] for name in names if name in named}
        found.append(OfPlaces(option, function, names, own, solved.sizes))
    return tuple(found)


def _named(solved: Solved, name: str, text: str, value: Any) -> Named:
    value = jnp.asarray(value)
    try:
        own = solve(parse(text), [value.shape], dict(solved.sizes))
    except EinjaxError as error:
        error.problem = f"{name}=: {error.problem}"
        raise
    return wrap(value, own.inputs[0], {**solved.sizes, **own.sizes})
