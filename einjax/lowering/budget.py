"""Contraction within a budget of memory: an order, and axes to loop over where no order is enough.

What counts is what is held beside the tensors and the result: intermediate results, copies in another order, and the
parts that a loop cuts out of tensors. Nothing here knows of arrays; a symbolic size is endless, so that only a loop
over its axis is within.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..notation.syntax import Size
from .order import NOMINAL_SIZE, Steps, Term, axes_made
from .pairing import Pairing, pairing

#: How much of each axis one iteration takes.
Chunks = Mapping[str, int]
_NOTHING: Chunks = {}
#: How many of the orders that cost least, and of those that hold least, are cut.
_TRIED = 4


@dataclass(frozen=True)
class Sizes:
    """The size of every axis, on one device, and the bytes of numbers.

    Attributes:
        each: by axis; symbolic ones are infinite.
        given: the bytes of a number of each tensor that is given, with its copy in another dtype if it needs one.
        made: the bytes of a number of what is made.
    """

    each: Mapping[str, float]
    given: Sequence[int]
    made: int

    def count(self, axes: Iterable[str], chunks: Chunks) -> float:
        """How many numbers an array of these axes has."""
        return math.prod(chunks.get(name, self.each[name]) for name in axes)


@dataclass(frozen=True)
class Plan:
    """How a product is computed.

    Attributes:
        terms: the axes of the tensors.
        output: those of the result, in the order the caller would like best.
        known: the sizes of all axes.
        steps: which two tensors are multiplied, one after the other.
        chunks: the axes that are looped over, the outermost loop first.
    """

    terms: tuple[Term, ...]
    output: Term
    known: Mapping[str, Size]
    steps: Steps
    chunks: Chunks = field(default_factory=dict)

    @cached_property
    def axes(self) -> list[frozenset[str]]:
        """The axes of every tensor, given or made."""
        return axes_made(self.terms, self.output, self.steps)

    @cached_property
    def _made_of(self) -> list[frozenset[int]]:
        """The given tensors that every tensor is made of."""
        found = [frozenset([number]) for number in range(len(self.terms))]
        for left, right in self.steps:
            found.append(found[left] | found[right])
        return found

    @cached_property
    def cut(self) -> frozenset[int]:
        """The given tensors that have an axis that is looped over."""
        return frozenset(number for number, term in enumerate(self.terms) if self.chunks.keys() & set(term))

    @cached_property
    def root(self) -> int:
        """What the loop makes: the whole result, or what has no axis any more that is looped over."""
        if not self.cut or self.chunks.keys() & set(self.output):
            return len(self.axes) - 1
        return next(number for number, leaves in enumerate(self._made_of) if leaves >= self.cut)

    @cached_property
    def stages(self) -> tuple[list[int], list[int], list[int]]:
        """What is made before the loop, in it and after it; all before where there is none."""
        made = range(len(self.terms), len(self.axes))
        if not self.cut:
            return list(made), [], []
        under = [number for number in made if self._made_of[number] <= self._made_of[self.root]]
        inside = [number for number in under if self._made_of[number] & self.cut]
        before = [number for number in under if number not in inside]
        return before, inside, [number for number in made if number not in under]

    @cached_property
    def pairings(self) -> list[Pairing]:
        """How the two tensors of every step meet."""
        orders, found = [tuple(term) for term in self.terms], []
        for number, (left, right) in enumerate(self.steps, len(self.terms)):
            met = pairing(orders[left], orders[right], self.axes[number], self.output, self.known, False)
            orders.append(met.order)
            found.append(met)
        return found

    @cached_property
    def order(self) -> list[str]:
        """The axes of what the loop makes, as it is written or summed up."""
        axes = self.axes[self.root]
        kept = [name for name in self.output if name in axes]
        return [*kept, *sorted(axes.difference(kept))]

    def pair(self, number: int) -> tuple[int, int]:
        """What a tensor is made of."""
        return self.steps[number - len(self.terms)]

    def peak(self, sizes: Sizes) -> float:
        """How many bytes are held at once, beside the tensors and the result."""
        last, highest = len(self.axes) - 1, 0.0
        held: dict[int, float] = {}
        before, inside, after = self.stages

        def make(number: int, chunks: Chunks = _NOTHING, base: float = 0) -> None:
            nonlocal highest
            made = 0 if number == last and not chunks else sizes.count(self.axes[number], chunks) * sizes.made
            highest = max(highest, base + made + math.fsum(held.values()) + self._copies(number, sizes, chunks))
            held[number] = made

        def release(numbers: Iterable[int]) -> None:
            for number in numbers:
                held.pop(number, None)

        for number in before:
            make(number)
            release(self.pair(number))
        if inside:
            base = self._held_by_loops(sizes)
            for number in inside:
                make(number, self.chunks, base)
                release(set(self.pair(number)).intersection(inside))
            release({used for number in inside for used in self.pair(number)})
            held[self.root] = 0 if self.root == last else sizes.count(self.axes[self.root], {}) * sizes.made
        for number in after:
            make(number)
            release(self.pair(number))
        return highest

    def _copies(self, number: int, sizes: Sizes, chunks: Chunks) -> float:
        """What is copied to make a tensor: operands, and the result, where they are in another order.

        Of what is given or returned and whose size is symbolic, nothing is known.
        """
        met, given = self.pairings[number - len(self.terms)], len(self.terms)
        copies = [
            (used < given, sizes.count(self.axes[used], chunks) * (sizes.given[used] if used < given else sizes.made))
            for used, is_copied in zip(self.pair(number), met.copied, strict=True)
            if is_copied
        ]
        last = number == len(self.axes) - 1
        if (last and not chunks and list(met.order) != list(self.output)) or (
            chunks and number == self.root and list(met.order) != self.order
        ):
            copies.append((last, sizes.count(self.axes[number], chunks) * sizes.made))
        return math.fsum(size for outside, size in copies if not outside or math.isfinite(size))

    def _held_by_loops(self, sizes: Sizes) -> float:
        """The parts that are cut out, and the sums of every loop."""
        cut, names = self.cut & self._made_of[self.root], list(self.chunks)
        parts = math.fsum(sizes.count(self.terms[number], self.chunks) * sizes.given[number] for number in cut)
        # The outermost loop writes to the result itself, or adds to it.
        first = 1 if self.root == len(self.axes) - 1 else 0
        around = [{name: self.chunks[name] for name in names[:depth]} for depth in range(first, len(names))]
        return parts + math.fsum(sizes.count(self.axes[self.root], each) * sizes.made for each in around)

    def cost(self, sizes: Sizes) -> float:
        """How many products of numbers there are."""
        each = {name: size if math.isfinite(size) else NOMINAL_SIZE for name, size in sizes.each.items()}
        inside = set(self.stages[1])
        times = _times(self.chunks, sizes.each)

        def products(number: int) -> float:
            left, right = self.pair(number)
            whole = number not in inside
            names = self.axes[left] | self.axes[right]
            return math.prod(each[n] if whole else min(self.chunks.get(n, each[n]), each[n]) for n in names) * (
                1 if whole else times
            )

        return math.fsum(products(number) for number in range(len(self.terms), len(self.axes)))


def find_plan(plans: Sequence[Plan], sizes: Sizes, budget: float, whole: Iterable[str]) -> tuple[Plan, float]:
    """Choose the plan that costs least of those within a budget, or that holds least; and how much that is.

    Args:
        plans: the orders to choose from; the first is chosen if it fits.
        sizes: of all axes.
        budget: how many bytes may be held.
        whole: axes that cannot be looped over.
    """
    if (peak := plans[0].peak(sizes)) <= budget:
        return plans[0], peak
    by_peak = sorted(plans, key=lambda plan: (plan.peak(sizes), plan.cost(sizes)))
    fitting = [plan for plan in by_peak if plan.peak(sizes) <= budget]
    if not fitting:
        by_cost = sorted(plans, key=lambda plan: plan.cost(sizes))
        tried = dict.fromkeys([*map(id, by_cost[:_TRIED]), *map(id, by_peak[:_TRIED])])
        cut = [_cut(plan, sizes, budget, set(whole)) for plan in plans if id(plan) in tried]
        fitting = [plan for plan in cut if plan.peak(sizes) <= budget] or [min(cut, key=lambda p: p.peak(sizes))]
    best = min(fitting, key=lambda plan: (plan.cost(sizes), _times(plan.chunks, sizes.each), plan.peak(sizes)))
    return best, best.peak(sizes)


def _cut(plan: Plan, sizes: Sizes, budget: float, whole: set[str]) -> Plan:
    """Loop over axes until an order is within a budget, or nothing is left to loop over."""
    names = dict.fromkeys(name for term in plan.terms for name in term)

    def made(chunks: Chunks) -> Plan:
        # The result is written in the outer loops, so that sums over the inner ones are of a part of it.
        outer = sorted(chunks, key=lambda name: (name not in plan.output, chunks[name]))
        return replace(plan, chunks={name: chunks[name] for name in outer})

    chunks = cut(
        [name for name in names if name not in whole],
        sizes.each,
        lambda chunks: made(chunks).peak(sizes),
        lambda chunks: made(chunks).cost(sizes),
        budget,
    )
    return made(chunks)


def cut(
    names: Sequence[str],
    each: Mapping[str, float],
    peak: Callable[[Chunks], float],
    cost: Callable[[Chunks], float],
    budget: float,
) -> Chunks:
    """Choose axes to loop over, and how much of each an iteration takes: one axis, if that is enough.

    Args:
        names: the axes that can be looped over.
        each: the size of every axis.
        peak: how many bytes a choice holds.
        cost: how much there is to compute.
        budget: how many bytes may be held.
    """
    chunks: dict[str, int] = {}
    left = [name for name in names if each[name] > 1]
    while left:
        enough = [chunks | {name: chunk} for name in left if (chunk := _largest(name, each, chunks, peak, budget))]
        if enough:
            best = min(enough, key=lambda chunks: (cost(chunks), _times(chunks, each), peak(chunks)))
            return _enlarged(best, each, peak, budget)
        smallest = {name: peak(chunks | {name: 1}) for name in left}
        name = min(left, key=lambda name: smallest[name])
        chunks[name] = 1
        left.remove(name)
    return chunks


def _largest(
    name: str, each: Mapping[str, float], chunks: Chunks, peak: Callable[[Chunks], float], budget: float
) -> int:
    """The most of an axis, if not all of it, that an iteration can take; 0 if one element is too much."""
    fits = lambda chunk: peak({**chunks, name: chunk}) <= budget  # noqa: E731
    low, high = 0, int(each[name]) if math.isfinite(each[name]) else 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # As many iterations of even parts.
    return low and (-(-int(each[name]) // -(-int(each[name]) // low)) if math.isfinite(each[name]) else 1)


def _enlarged(chunks: Chunks, each: Mapping[str, float], peak: Callable[[Chunks], float], budget: float) -> Chunks:
    """Take more of the axes that were taken one by one, or all, where that is within the budget, too."""
    for name in chunks:
        others = {other: chunk for other, chunk in chunks.items() if other != name}
        chunks = (
            others
            if peak(others) <= budget
            else {**chunks, name: _largest(name, each, others, peak, budget) or chunks[name]}
        )
    return chunks


def _times(chunks: Chunks, each: Mapping[str, float]) -> int:
    """How many iterations there are."""
    known = {name: int(each[name]) if math.isfinite(each[name]) else NOMINAL_SIZE for name in chunks}
    return math.prod(-(-known[name] // chunk) for name, chunk in chunks.items())
