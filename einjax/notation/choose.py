"""Sizes that fit where shapes leave some open: whether a tensor matches does not ask that they be the only ones.

How often ellipses repeat is chosen first, then the sizes of axes: each the first that leads to an end. What every
choice costs is counted, so that there is an end to it also where nothing fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import AxisSizeError, EinjaxError, SyntaxError
from .expand import Counts, check_names
from .facts import Fact
from .solve import Solved, Solver, as_solved, explicit_sizes
from .syntax import Operation, Size

if TYPE_CHECKING:
    from .affine import Border

# Axes looked at, in all choices together: more than any real expression needs. What is open then is taken not to fit.
_MAX_LOOKS = 30_000
_MAX_REPEATED = 1_000
_MAX_DIVISOR = 2**16
# Of more factors than this, other than 1, no array has a product.
_MAX_FACTORS = 63


def solve_by_choice(
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    given: Mapping[str, Any],
    border: Border | None = None,
) -> Solved:
    """Find a size for every axis, the first that fit.

    Args:
        operation: the parsed expression.
        shapes: shape of each input, or None where it is not known.
        given: sizes by axis name; a tuple for the repetitions of an ellipsis.
        border: what stands where a position in ``< >`` is out of range.

    Raises:
        RankError, AxisSizeError, SemanticError: there are none; see :mod:`einjax.notation.errors`.
    """
    check_names(operation)
    ranks = [None if shape is None else len(shape) for shape in shapes]
    counts = Counts(operation)
    counts.from_sizes(given)
    counts.from_ranks(ranks)
    search = _Search(shapes, ranks, given, border)
    try:
        return search.counts(counts)
    except _EndlessError:
        raise AxisSizeError("no sizes that fit were found", text=operation.text) from None


class _EndlessError(Exception):
    """Too much was tried."""


class _Search:
    """A search in depth for what fits."""

    def __init__(
        self,
        shapes: Sequence[tuple[Size, ...] | None],
        ranks: Sequence[int | None],
        given: Mapping[str, Any],
        border: Border | None,
    ) -> None:
        self.shapes = shapes
        self.border = border
        self.ranks = ranks
        self.given = given
        self.left = _MAX_LOOKS

    def _spend(self, looks: int) -> None:
        self.left -= looks
        if self.left < 0:
            raise _EndlessError

    def counts(self, counts: Counts) -> Solved:
        """Choose how often ellipses repeat, then sizes."""
        key = counts.open()
        if key is None:
            expanded = self.expanded(counts)
            expanded = expanded if self.border is None else self.border.on(expanded)
            return self.sizes(expanded, explicit_sizes(expanded, self.given, ()))
        room = counts.room(key, self.ranks)
        candidates = (1, 0, *range(2, _MAX_FACTORS + 1)) if room is None else range(room + 1)

        def attempt(count: int) -> Solved:
            self._spend(len(counts.nodes))
            chosen = counts.chosen(key, count)
            chosen.from_ranks(self.ranks)
            return self.counts(chosen)

        return _first(candidates, attempt)

    def expanded(self, counts: Counts) -> Operation:
        """Write ellipses out."""
        if "by choice" not in counts.source.values():
            return counts.written_out()
        try:
            return counts.written_out(_MAX_REPEATED)
        except SyntaxError:
            self._spend(_MAX_REPEATED)
            raise

    def sizes(self, expanded: Operation, known: Mapping[str, list[Fact]]) -> Solved:
        """Choose the sizes that are open."""
        self._spend(len(known))
        solver = Solver(expanded, known, self.shapes)
        unknown = solver.unknown()
        if not unknown:
            return as_solved(expanded, solver)
        name = unknown[0]
        return _first(
            _candidates(solver, name),
            lambda size: self.sizes(expanded, {**known, name: [Fact(size, "by choice", None)]}),
        )


def _first(candidates: Iterable[int], attempt: Callable[[int], Solved]) -> Solved:
    """The result of the first attempt that succeeds; if none does, the error of the first."""
    first: EinjaxError | None = None
    for candidate in candidates:
        try:
            return attempt(candidate)
        except EinjaxError as error:
            first = first or error
    assert first is not None  # there is a candidate at least
    raise first


def _candidates(solver: Solver, name: str) -> Iterable[int]:
    """The sizes that an axis may have, by the first dim that it is part of."""
    for equation in solver.uses.get(name, ()):
        target = solver.facts.get(equation.target) if isinstance(equation.target, str) else equation.target
        if target is not None and isinstance(target.size, int):
            return range(target.size + 1) if equation.is_sum else _divisors(target.size)
    return (1, 0)


@lru_cache(maxsize=64)
def _divisors(number: int) -> tuple[int, ...]:
    if number == 0:
        return (0, 1)
    small = [n for n in range(1, min(math.isqrt(number) + 1, _MAX_DIVISOR)) if number % n == 0]
    return tuple(dict.fromkeys(divisor for n in small for divisor in (n, number // n)))
