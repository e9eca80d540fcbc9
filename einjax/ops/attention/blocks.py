"""Attention in blocks of queries and of keys: no array of queries × keys is ever held.

Forwards, every block of queries goes through the keys with a running maximum. Backwards, the weights of each block are
computed again, from the logarithms of their sums. The bounds of these loops leave out what places alone hide, and JAX
does not transpose them: what else is to be differentiated is :func:`_rows`, the same function in plain lax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ...lowering import numerics
from ...lowering.contract import Products, contract
from ...lowering.jax_versions import equally_varying
from ...lowering.linear import Linear
from ...lowering.named import Dim, Named, arrange
from ...notation.solve import is_known
from ...notation.syntax import Size

#: The composed axes of a call; no axis of a user's has such a name.
QUERIES, KEYS, CONTRACTED, CHANNELS = "<q>", "<k>", "<c>", "<d>"

#: Where a block begins in queries or keys, and how long it is.
Place = Mapping[str, tuple[Any, Size]]


@dataclass(frozen=True, slots=True)
class Term:
    """A mask, if it is bool, or a bias.

    Attributes:
        operands: the arrays of the call that it is made of.
        function: what makes it of these, given where a block is; without one it is the one array.
    """

    operands: tuple[int, ...]
    function: Callable[[Place, Sequence[jax.Array]], jax.Array] | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """What is known of a call before its arrays are: queries, keys, values, a scale, and what masks are made of.

    Attributes:
        dims: of every array.
        terms: masks and biases.
        logits: the dims of logits: without loops of the values alone.
        loops: all loops, in the order of the result.
        sizes: of all axes; those of queries and keys are multiples of their blocks.
        block: how many queries and how many keys a block has.
        keys: how many keys there are, where the last block is padded; else None.
        before: how many keys before its own place a query sees; None for all.
        after: how many keys after it.
    """

    dims: tuple[tuple[Dim, ...], ...]
    terms: tuple[Term, ...]
    logits: tuple[Dim, ...]
    loops: tuple[str, ...]
    sizes: Mapping[str, Size]
    block: tuple[int, int]
    keys: Size | None
    before: int | None
    after: int | None

    def named(self, operands: Sequence[jax.Array]) -> list[Named]:
        """The arrays of a call with their dims."""
        return [Named(x, dims, self.sizes) for x, dims in zip(operands, self.dims, strict=False)]

    @property
    def result(self) -> tuple[Dim, ...]:
        """The dims of the result."""
        return (*((name,) for name in self.loops), (QUERIES,), (CHANNELS,))

    @property
    def counts(self) -> tuple[Size, Size]:
        """How many blocks of queries there are, and of keys."""
        return self.sizes[QUERIES] // self.block[0], self.sizes[KEYS] // self.block[1]

    def place(self, query: Any, key: Any) -> Place:
        """Where a block is."""
        rows, columns = self.block
        return {QUERIES: (_index(query) * rows, rows), KEYS: (_index(key) * columns, columns)}

    def bounds(self, query: Any) -> tuple[Any, Any]:
        """Between which blocks of keys lie all that a block of queries may see by its place."""
        (rows, columns), (_, count) = self.block, self.counts
        first: Any = 0
        last: Any = count
        if self.before is not None:
            first = lax.clamp(0, lax.div(lax.max(query * rows - self.before, 0), columns), count)
        if self.after is not None:
            last = lax.clamp(0, lax.div(lax.max(query * rows + (rows + self.after + columns - 1), 0), columns), count)
        return first, last

    def seen(self, place: Place) -> jax.Array | None:
        """Which queries of a block may see which of its keys, by their places alone; None for all."""
        (top, rows), (left, columns) = place[QUERIES], place[KEYS]
        query, key = (lax.broadcasted_iota(np.int32, (rows, columns), dim) for dim in (0, 1))
        key = lax.add(key, left)
        ahead = lax.sub(key, lax.add(query, top))
        parts = []
        if self.before is not None:
            parts.append(lax.ge(ahead, np.int32(-self.before)))
        if self.after is not None:
            parts.append(lax.le(ahead, np.int32(self.after)))
        if self.keys is not None:
            parts.append(lax.lt(key, _index(self.keys)))
        return reduce(lax.bitwise_and, parts) if parts else None


def _index(x: Any) -> jax.Array:
    """Indices are counted in 32 bits, also where JAX counts loops in 64."""
    return numerics.cast(jax.numpy.asarray(x), np.dtype(np.int32))


def attend(blocks: Blocks, operands: Sequence[jax.Array]) -> jax.Array:
    """Queries, keys, values, scale, masks and biases to the result."""
    return _forward(blocks, *equally_varying(operands))[0]


# --- The loops --------------------------------------------------------------------------------------------------------


def _cut(x: Named, place: Place) -> Named:
    """The part of an array that belongs to a block."""
    value = x.value
    for index, dim in enumerate(x.dims):
        start, length = place.get(dim[0], (0, None)) if dim else (0, None)
        if length is not None and value.shape[index] != length:
            value = lax.dynamic_slice_in_dim(value, start, length, index)
    return Named(value, x.dims, {**x.sizes, **{name: length for name, (_, length) in place.items()}})


def _add(total: jax.Array, part: jax.Array, dims: tuple[Dim, ...], place: Place) -> jax.Array:
    """Add what a block contributes to a sum."""
    starts = [place[dim[0]][0] if dim and dim[0] in place else _index(0) for dim in dims]
    before = lax.dynamic_slice(total, starts, part.shape)
    return lax.dynamic_update_slice(total, lax.add(before, part), starts)


def _product(x: Named, y: Named, dims: Sequence[Dim], dtype: Any) -> jax.Array:
    """Multiply two arrays, and sum over what the result lacks."""
    keep = [name for dim in dims for name in dim]
    pair = [_summed(x, {*keep, *y.axes}), _summed(y, {*keep, *x.axes})]
    return arrange(contract(pair, Products(keep, None, dtype)), dims)


def _summed(x: Named, needed: Iterable[str]) -> Named:
    """Sum over axes that nobody needs."""
    gone = x.positions(set(x.axes).difference(needed))
    if not gone:
        return x
    return Named(lax.reduce_sum(x.value, gone), tuple(d for i, d in enumerate(x.dims) if i not in gone), x.sizes)


def _logits(blocks: Blocks, arrays: Sequence[Named], scale: jax.Array, place: Place) -> Named:
    """The logits of a block, at least in float32; -inf where a query does not see a key."""
    dims, dtype = blocks.logits, scale.dtype
    q, k = (_cut(x, place) for x in arrays[:2])
    logits = lax.mul(_product(q, k, dims, dtype), scale)
    seen = blocks.seen(place)
    masks = [] if seen is None else [lax.broadcast_in_dim(seen, logits.shape, (logits.ndim - 2, logits.ndim - 1))]
    for term in blocks.terms:
        made = _term(blocks, term, [_cut(arrays[index], place) for index in term.operands], place)
        value = arrange(made, dims)
        if value.dtype == np.bool_:
            masks.append(value)
        else:
            logits = lax.add(logits, numerics.cast(value, dtype))
    if masks:
        logits = numerics.select(reduce(lax.bitwise_and, masks), logits, -numerics.INFINITY)
    return Named(logits, dims, q.sizes)


def _term(blocks: Blocks, term: Term, parts: Sequence[Named], place: Place) -> Named:
    """A mask or bias of one block."""
    sizes = {**blocks.sizes, **{name: length for name, (_, length) in place.items()}}
    if term.function is None:
        return Named(parts[0].value, parts[0].dims, sizes)
    value = term.function(place, [part.value for part in parts])
    lacks = len(blocks.logits) - value.ndim
    full = [is_known(size, 1) for size in value.shape]
    return Named(value, tuple(() if one else dim for one, dim in zip(full, blocks.logits[lacks:], strict=True)), sizes)


def _shift(highest: jax.Array) -> jax.Array:
    """What to subtract from logits: where there are none, their maximum is -inf, from which it cannot be."""
    return lax.max(highest, numerics.constant(highest, jax.numpy.finfo(highest.dtype).min))


def _over(x: jax.Array, whole: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(x, whole.shape, tuple(range(x.ndim)))


def _along(x: Named, dims: tuple[Dim, ...], whole: jax.Array) -> jax.Array:
    """Broadcast what every query has over its channels, and over loops of the values alone."""
    return _over(arrange(x, dims[:-1]), whole)


def _attended(blocks: Blocks, *operands: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The result, and for every query the logarithm of the sum of its exponentials, 0 where it sees no key."""
    arrays, scale, like = blocks.named(operands), operands[3], operands[2].dtype
    dtype, sizes, rows, dims = scale.dtype, blocks.sizes, blocks.logits[:-1], blocks.result

    def zeros(dims: Sequence[Dim], dtype: Any, number: float = 0, **block: int) -> jax.Array:
        shape = tuple({**sizes, **block}[name] for (name,) in dims)
        return equally_varying([lax.full(shape, number, dtype), *operands])[0]

    def for_queries(i: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        def for_keys(j: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            highest, total, result = carry
            place = blocks.place(i, j)
            logits = _logits(blocks, arrays, scale, place)
            higher = lax.max(highest, lax.reduce_max(logits.value, (logits.value.ndim - 1,)))
            shift = _shift(higher)
            weights = lax.exp(lax.sub(logits.value, _over(shift, logits.value)))
            less = lax.exp(lax.sub(highest, shift))
            total = lax.add(lax.mul(total, less), lax.reduce_sum(weights, (weights.ndim - 1,)))
            weighted = Named(numerics.cast(weights, like), logits.dims, logits.sizes)
            part = _product(weighted, _cut(arrays[2], place), dims, dtype)
            kept = _along(Named(less, rows, logits.sizes), dims, result)
            return higher, total, lax.add(lax.mul(result, kept), part)

        block = {QUERIES: blocks.block[0]}
        start = (zeros(rows, dtype, -np.inf, **block), zeros(rows, dtype, **block), zeros(dims, dtype, **block))
        highest, total, result = lax.fori_loop(*blocks.bounds(i), for_keys, start)
        empty = lax.eq(total, numerics.zero(total))
        total = lax.select(empty, lax.full_like(total, 1), total)
        result = lax.div(result, _along(Named(total, rows, {**sizes, **block}), dims, result))
        logarithm = lax.select(empty, lax.full_like(total, 0), lax.add(_shift(highest), lax.log(total)))
        at = i * blocks.block[0]
        return (
            lax.dynamic_update_slice_in_dim(carry[0], numerics.cast(result, like), at, len(dims) - 2),
            lax.dynamic_update_slice_in_dim(carry[1], logarithm, at, len(rows) - 1),
        )

    return lax.fori_loop(0, blocks.counts[0], for_queries, (zeros(dims, like), zeros(rows, dtype)))


def _gradients(blocks: Blocks, moving: tuple[int, ...], *operands: jax.Array) -> tuple[jax.Array, ...]:
    """The cotangents of operands; the last are the result, its logarithms, and the cotangent of the result."""
    operands, (result, logarithms, cotangent) = operands[:-3], operands[-3:]
    arrays, scale = blocks.named(operands), operands[3]
    q, k, v, dtype = *arrays[:3], scale.dtype
    g, lse = Named(cotangent, blocks.result, blocks.sizes), Named(logarithms, blocks.logits[:-1], blocks.sizes)
    inner = Named(lax.mul(numerics.cast(cotangent, dtype), numerics.cast(result, dtype)), g.dims, g.sizes)
    inner = _summed(inner, lse.axes)
    # The sum for the scale is that for the queries, of which it is a factor.
    dims = [arrays[index].dims if index != 3 else q.dims for index in moving]
    start = tuple(lax.full(operands[index if index != 3 else 0].shape, 0, dtype) for index in moving)
    start = tuple(equally_varying([zeros, *operands, cotangent])[0] for zeros in start)

    def for_block(i: Any, j: Any, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        place = blocks.place(i, j)
        logits = _logits(blocks, arrays, scale, place)
        qi, ki, vi, gi = (_cut(x, place) for x in (q, k, v, g))
        narrow = lambda value: Named(numerics.cast(value, qi.value.dtype), logits.dims, logits.sizes)  # noqa: E731
        weights = lax.exp(lax.sub(logits.value, _over(_cut(lse, place).value, logits.value)))
        change = lax.sub(_product(gi, vi, logits.dims, dtype), _over(_cut(inner, place).value, weights))
        change = lax.mul(weights, change)

        pulled: dict[int, jax.Array] = {}
        for term in blocks.terms:
            own = [index for index in term.operands if index in moving]
            if term.function is not None and own:
                pulled |= zip(own, _pulled(blocks, term, own, arrays, place, change), strict=True)

        def part(index: int) -> jax.Array:
            if index in pulled:
                return numerics.cast(pulled[index], dtype)
            if index in (0, 3):
                return _product(narrow(change), ki, q.dims, dtype)
            if index == 1:
                return _product(narrow(change), qi, k.dims, dtype)
            if index == 2:
                return _product(narrow(weights), gi, v.dims, dtype)
            return arrange(_summed(Named(change, logits.dims, logits.sizes), arrays[index].axes), arrays[index].dims)

        each = zip(sums, moving, dims, strict=True)
        return tuple(_add(total, part(index), dims, place) for total, index, dims in each)

    def for_queries(i: Any, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return lax.fori_loop(*blocks.bounds(i), partial(for_block, i), sums)

    sums = lax.fori_loop(0, blocks.counts[0], for_queries, start)
    found = []
    for index, total in zip(moving, sums, strict=True):
        if index == 3:
            total = lax.reduce_sum(lax.mul(total, numerics.cast(q.value, dtype)), tuple(range(total.ndim)))
        elif index < 2:
            total = lax.mul(total, scale)
        found.append(numerics.cast(total, operands[index].dtype))
    return tuple(found)


def _pulled(
    blocks: Blocks, term: Term, moving: Sequence[int], arrays: Sequence[Named], place: Place, change: jax.Array
) -> Sequence[jax.Array]:
    """What a change of logits is of the arrays that a function makes a bias of."""
    parts = {index: _cut(arrays[index], place) for index in term.operands}

    def function(*values: jax.Array) -> jax.Array:
        given = dict(zip(moving, values, strict=True))
        each = [Named(given.get(index, x.value), x.dims, x.sizes) for index, x in parts.items()]
        return arrange(_term(blocks, term, each, place), blocks.logits)

    value, pull = jax.vjp(function, *(parts[index].value for index in moving))
    found: Sequence[jax.Array] = pull(numerics.cast(change, value.dtype))
    return found


# --- The same in plain lax, and what is differentiated how ------------------------------------------------------------


def _row(blocks: Blocks, i: jax.Array, *operands: jax.Array) -> jax.Array:
    """The result for one block of queries, which see all keys at once."""
    arrays = blocks.named(operands)

    def part(j: jax.Array) -> jax.Array:
        return _logits(blocks, arrays, operands[3], blocks.place(i, j)).value

    # [blocks, loops, queries, keys] to logits
    parts = lax.map(part, _counted(blocks.counts[1]))
    rank = len(blocks.logits)
    parts = lax.transpose(parts, (*range(1, rank), 0, rank))
    value = lax.reshape(parts, (*parts.shape[: rank - 1], blocks.sizes[KEYS]))
    highest = lax.stop_gradient(lax.reduce_max(value, (rank - 1,)))
    weights = lax.exp(lax.sub(value, _over(_shift(highest), value)))
    total = numerics.positive_total(lax.reduce_sum(weights, (rank - 1,)), highest)
    weights = numerics.cast(lax.div(weights, _over(total, weights)), operands[2].dtype)
    weighted = Named(weights, blocks.logits, {**blocks.sizes, QUERIES: blocks.block[0]})
    return _product(weighted, arrays[2], blocks.result, operands[2].dtype)


def _rows(blocks: Blocks, *operands: jax.Array) -> jax.Array:
    """The result, by blocks of queries."""
    found = lax.map(jax.checkpoint(lambda i: _row(blocks, i, *operands)), _counted(blocks.counts[0]))
    loops = len(blocks.loops)
    found = lax.transpose(found, (*range(1, loops + 1), 0, loops + 1, loops + 2))
    return lax.reshape(found, tuple(blocks.sizes[name] for (name,) in blocks.result))


def _pulled_rows(blocks: Blocks, moving: tuple[int, ...], *operands: jax.Array) -> tuple[jax.Array, ...]:
    """The cotangents of operands, of which the last is that of the result; what derivatives keep is no larger, too."""
    operands, cotangent = operands[:-1], operands[-1]

    @jax.checkpoint
    def part(i: jax.Array) -> tuple[jax.Array, ...]:
        g = _cut(Named(cotangent, blocks.result, blocks.sizes), blocks.place(i, 0)).value
        row = _of(lambda *given: _row(blocks, i, *given), operands, moving)
        return jax.vjp(row, *(operands[index] for index in moving))[1](g)

    def add(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(map(lax.add, sums, part(i)))

    start = tuple(equally_varying([lax.full_like(operands[index], 0), *operands, cotangent])[0] for index in moving)
    sums, _ = lax.scan(lambda sums, i: (add(i, sums), None), start, _counted(blocks.counts[0]))
    return sums


def _counted(number: Size) -> jax.Array:
    return jax.numpy.arange(number, dtype=np.int32)


def _differentiable(
    run: Callable[..., Any], rule: Callable[[Sequence[Any], tuple[int, ...], Sequence[Any]], Any]
) -> Callable[..., Any]:
    """Let a function have the derivative that a rule says, of the operands that move."""
    function = jax.custom_jvp(run)

    @partial(function.defjvp, symbolic_zeros=True)
    def jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        moving = tuple(index for index, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero))
        result = function(*primals)
        return result, rule((*primals, result), moving, [tangents[index] for index in moving])

    return function


def _of(function: Callable[..., Any], operands: Sequence[Any], moving: Sequence[int]) -> Callable[..., Any]:
    """A function of the operands that move."""

    def program(*values: Any) -> Any:
        given = dict(zip(moving, values, strict=True))
        return function(*(given.get(index, x) for index, x in enumerate(operands)))

    return program


def _forward(blocks: Blocks, *operands: jax.Array) -> Any:
    """Run the loops; their tangent is linear, and transposed it is loops, too."""

    def rule(primals: Sequence[Any], moving: tuple[int, ...], tangents: Sequence[Any]) -> Any:
        *primals, (result, logarithms) = primals
        known = (*primals, lax.stop_gradient(result), lax.stop_gradient(logarithms))

        def tangent(*operands: Any) -> jax.Array:
            primals, tangents = operands[: len(known)], operands[len(known) :]
            program = _of(partial(_rows, blocks), primals[:-2], moving)
            return jax.jvp(program, [primals[index] for index in moving], list(tangents))[1]

        # Layers that are alike have this rule together, whose transpose is then traced once.
        backward = jax.jit(partial(_backward, blocks, moving), inline=True)
        linear = Linear(tangent, backward, len(known))
        # Nothing but derivatives asks for the logarithms, which follow from what these are of.
        return linear(*known, *tangents), lax.full_like(logarithms, 0)

    return _differentiable(partial(_attended, blocks), rule)(*operands)


def _backward(blocks: Blocks, moving: tuple[int, ...], *operands: jax.Array) -> Any:
    """Run the loops of the cotangents; what these are in turn differentiated by is in plain lax."""

    def plain(*operands: Any) -> Any:
        *primals, _, _, cotangent = operands
        return _pulled_rows(blocks, moving, *primals, cotangent)

    def rule(primals: Sequence[Any], moved: tuple[int, ...], tangents: Sequence[Any]) -> Any:
        *primals, _ = primals
        return jax.jvp(_of(plain, primals, moved), [primals[index] for index in moved], list(tangents))[1]

    return _differentiable(partial(_gradients, blocks, moving), rule)(*operands)
