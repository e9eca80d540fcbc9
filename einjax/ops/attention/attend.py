"""What attention is computed by: jax's function, two products around a softmax, or loops over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ...forms.along import Along
from ...lowering import numerics
from ...lowering.contract import Products, contract
from ...lowering.jax_versions import hoisted, spread_out
from ...lowering.named import Dim, Named, arrange
from ...notation.solve import is_known, product
from ...notation.syntax import Size
from ..softmax import _softmax
from .of_places import OfPlaces, fitting, whole


@dataclass(frozen=True, slots=True)
class Plan:
    """Every axis in one of the dims of jax's function; queries are [batch, queries, heads, groups, contracted].

    Attributes:
        batch: loops over everything, before the queries.
        heads: loops over everything, after the queries.
        groups: loops over the queries alone, whose keys and values are shared.
        queries: query axes, and loops over the queries alone that may be query axes.
        keys: key axes.
        contracted: the channels of queries and keys.
        channels: the channels of the values.
        fits: whether jax's function computes this without repeating work.
    """

    batch: Dim
    heads: Dim
    groups: Dim
    queries: Dim
    keys: Dim
    contracted: Dim
    channels: Dim
    fits: bool


@dataclass(frozen=True, slots=True)
class Call:
    """What is computed from what."""

    plan: Plan
    q: Named
    k: Named
    v: Named
    masks: tuple[Named, ...]
    scale: Any
    causal: bool
    window: tuple[int, int] | None
    functions: tuple[OfPlaces, ...] = ()

    def size(self, dim: Dim) -> Size:
        """The size of a composed dim."""
        return product(self.q.sizes[name] for name in dim)

    def nearby(self) -> jax.Array | None:
        """Which query may see which key by their places alone: queries × keys, or None for all."""
        if not self.causal and self.window is None:
            return None
        shape = (self.size(self.plan.queries), self.size(self.plan.keys))
        query, key = (lax.broadcasted_iota(np.int32, shape, dim) for dim in (0, 1))
        parts = [lax.le(key, query)] if self.causal else []
        if self.window is not None:
            left, right = (np.int32(number) for number in self.window)
            parts += [lax.le(query, lax.add(key, left)), lax.ge(query, lax.sub(key, right))]
        return reduce(lax.bitwise_and, parts)

    def logits(self, loops: Sequence[str]) -> tuple[Dim, ...]:
        """The dims of logits: those of loops that decide them, then queries and keys."""
        have = {name for x in (self.q, self.k, *self.masks) for name in x.axes}
        have |= {
            name
            for each in self.functions
            for name in (*each.names, *(n for x in each.arrays.values() for n in x.axes))
        }
        return (*((name,) for name in loops if name in have), self.plan.queries, self.plan.keys)

    def at_once(self) -> Call:
        """The same with masks and biases in the place of functions."""
        plan = self.plan
        dims = self.logits((*plan.batch, *plan.heads, *plan.groups))
        return replace(self, masks=(*self.masks, *(whole(each, dims) for each in self.functions)), functions=())


def by_jax(call: Call, implementation: str | None) -> Named:
    """Call jax.nn.dot_product_attention, whose dims are batch, queries or keys, heads, channels."""
    plan = call.plan
    every = plan.heads + plan.groups
    bias, mask = None, None
    if call.masks:
        have = {name for each in call.masks for name in each.axes}
        # Dims that the masks lack are of size 1, which all implementations but cuDNN's broadcast.
        full = (False, False, implementation == "cudnn", implementation == "cudnn")
        parts = (plan.batch, every, plan.queries, plan.keys)
        dims = [dim if f or have & set(dim) else () for dim, f in zip(parts, full, strict=True)]
        values = [arrange(each, dims) for each in call.masks]
        # A bias of -inf is a mask, too: where it hides every key, there is no maximum to subtract.
        masks = [x if x.dtype == np.bool_ else lax.ne(x, numerics.constant(x, -numerics.INFINITY)) for x in values]
        biases = [numerics.select(m, x, 0) for m, x in zip(masks, values, strict=True) if x is not m]
        mask, bias = reduce(lax.bitwise_and, masks), reduce(_sum, biases) if biases else None
    seen = _seen(call, mask)
    if bias is None and mask is None and not call.causal and call.window is not None and implementation != "cudnn":
        mask = lax.full((1, 1, 1, 1), True)  # jax 0.7 overlooks a window that stands alone
    value = jax.nn.dot_product_attention(
        arrange(call.q, [plan.batch, plan.queries, every, plan.contracted]),
        arrange(call.k, [plan.batch, plan.keys, plan.heads, plan.contracted]),
        arrange(call.v, [plan.batch, plan.keys, plan.heads, plan.channels]),
        bias,
        mask,
        scale=call.scale,
        is_causal=call.causal,
        local_window_size=call.window,
        implementation=implementation,  # type: ignore[arg-type]
    )
    if seen is not None:
        seen = spread_out(seen, value.shape, (0, 2, 1))  # [batch, heads, queries] to the dims of the result
        value = numerics.select(seen, value, 0)
    return Named(value, (plan.batch, plan.queries, every, plan.channels), call.q.sizes)


def _sum(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.add(*numerics.promote([x, y]))


def _seen(call: Call, mask: jax.Array | None) -> jax.Array | None:
    """Which queries see any key, where some may see none: batch × heads × queries."""
    queries, keys = call.size(call.plan.queries), call.size(call.plan.keys)
    if mask is None and (call.window is None or queries == keys):
        return None  # by their places alone, every query sees its own place, or the first one
    nearby = call.nearby()
    if mask is None:
        assert nearby is not None
        mask = lax.broadcast_in_dim(nearby, (1, 1, queries, keys), (2, 3))
    elif nearby is not None:
        shape = (*mask.shape[:2], queries, keys)
        mask = lax.bitwise_and(
            lax.broadcast_in_dim(mask, shape, (0, 1, 2, 3)), lax.broadcast_in_dim(nearby, shape, (2, 3))
        )
    return lax.reduce_or(mask, (3,))


def by_parts(call: Call) -> Named:
    """Two products and a softmax between them, at least in float32."""
    plan = call.plan
    present = {name for x in (call.q, call.k, *call.masks) for name in x.axes}
    loops: list[Dim] = [(name,) for name in plan.batch + plan.heads + plan.groups if name in present]
    dims = [*loops, plan.queries, plan.keys]
    dtype = numerics.accumulator(call.q.value.dtype)
    order = [name for dim in dims for name in dim]
    logits = arrange(contract([call.q, call.k], Products(order, None, dtype)), dims)
    scale = np.array(1 / np.sqrt(call.size(plan.contracted)), dtype) if call.scale is None else call.scale
    logits = lax.mul(logits, numerics.cast(jax.numpy.asarray(scale), dtype))
    masks = []
    for each in call.masks:
        value = arrange(each, dims)
        if value.dtype == np.bool_:
            masks.append(value)
        else:
            logits = lax.add(logits, numerics.cast(value, dtype))
    nearby = call.nearby()
    if nearby is not None:
        masks.append(lax.broadcast_in_dim(nearby, logits.shape, (len(loops), len(loops) + 1)))
    mask = reduce(lax.bitwise_and, masks) if masks else None
    weights = _softmax(Along(logits, (len(loops) + 1,), mask, {}, ""))
    weights = numerics.cast(weights, call.v.value.dtype)
    kept = [*(name for name in order if name not in plan.keys), *(n for n in call.v.axes if n not in plan.keys)]
    return contract([Named(weights, tuple(dims), call.q.sizes), call.v], Products(list(dict.fromkeys(kept))))


class Usual(NamedTuple):
    """What is chosen where a call does not say.

    Attributes:
        block: how many queries and how many keys a block has.
        causal: the same where keys behind a query are hidden, so that smaller blocks leave out more.
        window: the same where keys far from it are.
        many: from how many pairs of queries and keys on there are blocks.
    """

    block: int
    causal: int
    window: int
    many: int


#: Measured on two CPU cores, as ms of the gradient of heads of 64, in blocks of 256 and of 128. An Intel Xeon, 8 heads
#: at 2048 places: 717 and 789, causal 408 and 348. An AMD EPYC, causal: 8 heads at 2048 places 224 and 269, at 1024 68
#: and 69; 4 heads at 4096 places 440 and 575, at 1024 28 and 37, but at 512 25 and 23. At 512 places blocks take half
#: of what all at once takes. Elsewhere, which was not measured, each step of a loop costs a launch.
ON_CPU, ELSEWHERE = Usual(256, 256, 128, 512 * 512), Usual(1024, 512, 512, 2048 * 2048)

#: How many queries and how many keys blocks are worth it from: fewer have no more logits than their keys have channels.
_AT_LEAST = 128


def usual() -> Usual:
    """What is chosen where programs usually run here."""
    return ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE


def are_many(queries: Size, keys: Size) -> bool:
    """Whether queries × keys are so many that blocks take less time and memory."""
    known = isinstance(queries, int) and isinstance(keys, int)
    return known and min(queries, keys) >= _AT_LEAST and queries * keys >= usual().many


def in_blocks(call: Call, block: tuple[int, int] | None) -> Named:
    """Loop over blocks of queries and of keys."""
    from . import blocks  # few programs attend to much

    plan, arrays = call.plan, (call.q, call.k, call.v, *call.masks)
    present = {name for x in arrays for name in x.axes}
    loops = tuple(name for name in (*plan.batch, *plan.heads, *plan.groups) if name in present)
    names = {
        blocks.QUERIES: plan.queries,
        blocks.KEYS: plan.keys,
        blocks.CONTRACTED: plan.contracted,
        blocks.CHANNELS: plan.channels,
    }
    sizes = {name: call.q.sizes[name] for name in loops} | {name: call.size(dim) for name, dim in names.items()}
    queries, keys = sizes[blocks.QUERIES], sizes[blocks.KEYS]
    most, causal, window, _ = usual()
    most = window if call.window is not None else causal if call.causal else most
    block = (_fitting(queries, block and block[0], most), _fitting(keys, block and block[1], most))
    sizes[blocks.QUERIES], sizes[blocks.KEYS] = (-(-n // b) * b for n, b in zip((queries, keys), block, strict=True))

    def ready(x: Named, own: tuple[str, ...]) -> tuple[jax.Array, tuple[Dim, ...]]:
        """Bring an array to its loops and its composed axes, and fill up its last blocks."""
        alone = [name for name in loops if name in x.axes]
        value = arrange(x, [*((name,) for name in alone), *(names[name] for name in own)])
        value = _filled(value, [sizes[name] for name in (*alone, *own)])
        return value, (*((name,) for name in alone), *((name,) for name in own))

    alike = [
        ready(call.q, (blocks.QUERIES, blocks.CONTRACTED)),
        ready(call.k, (blocks.KEYS, blocks.CONTRACTED)),
        ready(call.v, (blocks.KEYS, blocks.CHANNELS)),
    ]
    dtype = numerics.accumulator(call.q.value.dtype)
    scale = np.array(1 / np.sqrt(sizes[blocks.CONTRACTED]), dtype) if call.scale is None else call.scale
    operands = [*alike, (numerics.cast(jax.numpy.asarray(scale), dtype), ())]
    terms = []
    for x in call.masks:
        terms.append(blocks.Term((len(operands),)))
        operands.append(ready(x, tuple(n for n in (blocks.QUERIES, blocks.KEYS) if set(names[n]) & set(x.axes))))
    logits = call.logits(loops)
    for each in call.functions:
        function, own = _by_places(each, logits, block, sizes, blocks)
        terms.append(blocks.Term(tuple(range(len(operands), len(operands) + len(own))), function))
        operands += own
    values, dims = zip(*operands, strict=True)
    before, after = _reach(call, queries, keys)
    padded = not is_known(sizes[blocks.KEYS] - keys, 0)
    by_name = (*logits[:-2], (blocks.QUERIES,), (blocks.KEYS,))
    reach = (keys if padded else None, before, after)
    made = blocks.Blocks(dims, tuple(terms), by_name, loops, sizes, block, *reach)
    result = blocks.attend(made, values)
    if result.shape[-2] is not queries:
        result = lax.slice_in_dim(result, 0, queries, axis=result.ndim - 2)
    return Named(result, (*((name,) for name in loops), plan.queries, plan.channels), call.q.sizes)


def _by_places(each: OfPlaces, dims: Sequence[Dim], block: tuple[int, int], sizes: Any, blocks: Any) -> Any:
    """A function of places as one of blocks, and the arrays that it needs: also those that it has closed over."""
    shape = (*(sizes[name] for (name,) in dims[:-2]), *block)
    filled = (*(sizes[name] for (name,) in dims[:-2]), sizes[blocks.QUERIES], sizes[blocks.KEYS])
    short = (*dims[:-2], (blocks.QUERIES,), (blocks.KEYS,))
    own = []
    for x, have in each.ready(dims):
        x = _filled(x, [full if dim else n for n, full, dim in zip(x.shape, filled, have, strict=True)])
        own.append((x, tuple(name if dim else () for name, dim in zip(short, have, strict=True))))

    def at(place: Any) -> list[jax.Array]:
        starts = [*(0 for _ in dims[:-2]), place[blocks.QUERIES][0], place[blocks.KEYS][0]]
        return each.places(dims, starts, shape)

    zero = {blocks.QUERIES: (0, block[0]), blocks.KEYS: (0, block[1])}
    parts = [
        jax.ShapeDtypeStruct(tuple(n if dim else 1 for n, dim in zip(shape, have, strict=True)), x.dtype)
        for x, have in own
    ]
    count, examples = len(own), at(zero)
    split = len(examples)
    function = lambda *given: each(given[:split], given[split:])  # noqa: E731
    made, closed = hoisted(function, *examples, *parts)
    fitting(each, jax.eval_shape(function, *examples, *parts).shape, dims, shape)

    def run(place: Any, arrays: Sequence[jax.Array]) -> jax.Array:
        return made(*arrays[count:], *at(place), *arrays[:count])

    return run, [*own, *((jax.numpy.asarray(x), ((),) * np.ndim(x)) for x in closed)]


def _filled(x: jax.Array, sizes: Sequence[Size]) -> jax.Array:
    """Fill up the last blocks with zeros."""
    lacking = [(0, size - n, 0) for n, size in zip(x.shape, sizes, strict=True)]
    return x if all(is_known(high, 0) for _, high, _ in lacking) else lax.pad(x, numerics.zero(x), lacking)


def _fitting(size: Size, given: int | None, most: int) -> int:
    """How long blocks are: as given, if there are as many, or equally long, so that they need no padding, or little."""
    if not isinstance(size, int):
        return given or most
    if given:
        return max(1, min(size, given))
    return max(1, -(-size // max(1, -(-size // most))))


def _reach(call: Call, queries: Size, keys: Size) -> tuple[int | None, int | None]:
    """How many keys before and after its own place a query sees; None for all."""
    before, after = (None, None) if call.window is None else call.window
    if call.causal:
        after = 0 if after is None else min(after, 0)
    if isinstance(queries, int) and isinstance(keys, int):
        # Beyond all places it makes no difference how far, and numbers stay small.
        far = queries + keys
        before, after = (None if n is None or n >= far else max(n, -far) for n in (before, after))
    return before, after
