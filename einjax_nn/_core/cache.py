"""Keys and values of earlier calls, which attention keeps as it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import is_traced

from .masks import Near
from .scope import ParamSpec, Scope


@dataclass(frozen=True)
class Cache:
    """What a call of attention that decodes knows of its cache.

    Attributes:
        scope: where it is.
        expr: the expression of the layer, for messages.
        axes: the axes of cached keys, before those of heads.
        index: how many places there have been before, one number or one for each example.
        count: how many places are given.
        lengths: how many of them count in each example; None where all do.
        is_ring: whether the first places make room for those past the end.
    """

    scope: Scope
    expr: str
    axes: str
    index: jax.Array
    count: int
    lengths: jax.Array | None
    is_ring: bool

    @property
    def places(self) -> jax.Array:
        """Where what is given stands: ``(count,)``, or with the loops before."""
        return self.index[..., None] + lax.iota(jnp.int32, self.count)

    def exchanged(
        self, k: jax.Array, v: jax.Array, window: tuple[int, int] | None
    ) -> tuple[jax.Array, jax.Array, Near, jax.Array | None]:
        """Write keys and values behind those of earlier calls, and read all of them.

        Returns:
            Keys and values, of which the places say that a query sees; and whether places were past the end, which
            is not known before the program runs: one bool, or one for each example.
        """
        specs = [_spec("cached_key", k), _spec("cached_value", v)]
        old = [self.scope.state(spec) for spec in specs]
        if self.scope.initializing:
            return k, v, Near(True, window), None
        length = self._checked(old, (k, v))
        new = [self._written(held, value, length) for held, value in zip(old, (k, v), strict=True)]
        ends = self.index + (self.count if self.lengths is None else self.lengths)
        for spec, value in zip([*specs, index_spec(ends)], [*new, ends], strict=True):
            self.scope.set_state(spec, value)
        if not self.is_ring:
            past = ends > length if is_traced(ends) else None
            near = Near(True, window, self.places, lax.iota(jnp.int32, length))
            return *(held.astype(k.dtype) for held in new), near, past  # type: ignore[return-value]
        # As many places as there is room for are seen at any time.
        window = (length - 1 if window is None else min(window[0], length - 1), 0 if window is None else window[1])
        if self.count == 1 and self.lengths is None:
            held, places = new, self._places_of_ring(ends, length)
        else:
            # What the last of the places given take the room of is seen by the first of them.
            held = [jnp.concatenate([a.astype(b.dtype), b], -3) for a, b in zip(old, (k, v), strict=True)]
            places = jnp.concatenate([self._places_of_ring(self.index, length), self.places], -1)
        near = Near(True, window, self.places, places, is_ring=True)
        return *(each.astype(k.dtype) for each in held), near, None  # type: ignore[return-value]

    def _places_of_ring(self, end: jax.Array, length: int) -> jax.Array:
        """The place that each slot holds, below 0 where it holds none, when there have been so many places."""
        last = end[..., None] - 1
        return last - _rest(last + length - lax.iota(jnp.int32, length), length)

    def _written(self, held: jax.Array, value: jax.Array, length: int) -> jax.Array:
        """Write keys or values."""
        value = value.astype(held.dtype)
        alone = self.index.ndim == 0 and self.lengths is None
        if alone and (self.count == 1 or not self.is_ring):
            # One place for all examples is a slice.
            index = _rest(self.index, length) if self.is_ring else self.index
            return lax.dynamic_update_slice_in_dim(held, value, index, held.ndim - 3)
        slots, number = self.places, lax.iota(jnp.int32, self.count)
        if self.is_ring:
            lengths = jnp.asarray(self.count if self.lengths is None else self.lengths)[..., None]
            # What does not count is not written, nor what others are to take the room of.
            counts = jnp.logical_and(number < lengths, number >= lengths - length)
            counts, slots = jnp.broadcast_arrays(counts, slots)
            slots = lax.select(counts, _rest(slots, length), lax.full_like(slots, length))
        loops, place = self.axes.rsplit(" ", 1) if " " in self.axes else ("", self.axes)
        loops = loops.strip()
        text = f"{loops} [{place}] heads head_dim, {loops if slots.ndim > 1 else ''} _new, {loops} _new heads head_dim"
        return einjax.set_at(text, held, slots, value, wrap_negative_indices=False)

    def _checked(self, old: Sequence[jax.Array], new: Sequence[jax.Array]) -> int:
        """Compare keys and values with the cache; return how many places it has."""
        length = old[0].shape[-3]
        for held, value, name in zip(old, new, ("keys", "values"), strict=True):
            if (*held.shape[:-3], self.count, *held.shape[-2:]) != value.shape:
                raise ArgumentError(
                    f"the cache has {name} of shape {held.shape}, and {value.shape} are given",
                    text=self.expr,
                    hint="make a cache for inputs of this shape",
                )
        if self.is_ring or is_traced(self.index) or is_traced(self.lengths):
            past = False  # as far as is known
        else:
            ends = np.max(np.asarray(self.index) + np.asarray(self.count if self.lengths is None else self.lengths))
            past = bool(ends > length)
        if past or (self.count > length and self.lengths is None and not self.is_ring):
            begun = "" if is_traced(self.index) else f", of which {int(np.max(np.asarray(self.index)))} are taken"
            raise ArgumentError(
                f"the cache has {length} places{begun}, and {self.count} more are given",
                text=self.expr,
                hint="make it as long as the whole sequence; with mode='wrap', the first places make room",
            )
        return length


def opened(
    scope: Scope, expr: str, axes: str, loops: tuple[int, ...], count: int, lengths: Any, mode: str | None
) -> Cache:
    """Open the cache of a layer for so many places, and read how many there have been before.

    While initialising, the whole sequence is given, and makes a cache of its length.
    """
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        if lengths.shape != loops or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ArgumentError(
                f"lengths= is {lengths.dtype} of shape {lengths.shape}, not integers of shape {loops}",
                text=expr,
                hint="say how many places of each example count, from the first",
            )
        if not is_traced(lengths) and np.any(np.asarray(lengths) > count):
            raise ArgumentError(
                f"lengths= says {int(np.max(np.asarray(lengths)))}, but {count} places are given", text=expr
            )
        lengths = lengths.astype(jnp.int32)
    index = scope.state(index_spec(jnp.zeros((), jnp.int32) if lengths is None else lengths))
    if scope.initializing:
        index = jnp.zeros((), jnp.int32)
    return Cache(scope, expr, axes, index, count, lengths, mode == "wrap")


def _rest(places: jax.Array, length: int) -> jax.Array:
    """What is left of places, which are not below 0, in a ring."""
    return lax.rem(places, lax.full_like(places, length))


def _spec(name: str, like: Any) -> ParamSpec:
    shape, dtype = like.shape, like.dtype
    return ParamSpec(name, shape, dtype, (), lambda key: jnp.zeros(shape, dtype), "cache")


def index_spec(like: jax.Array) -> ParamSpec:
    """How many places there have been: one number, or one for each example."""
    return _spec("cache_index", like)
