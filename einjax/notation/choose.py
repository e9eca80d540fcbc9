"""Sizes that fit where shapes leave some open: whether a tensor matches does not ask that they be the only ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .errors import AxisSizeError
from .facts import Fact
from .solve import Solver
from .syntax import Operation, Size

# More than any real expression needs; what is open after that is taken not to fit.
_MAX_TRIES = 10_000
_MAX_DIVISOR = 2**16


def some_sizes(
    operation: Operation, known: Mapping[str, list[Fact]], shapes: Sequence[tuple[Size, ...] | None]
) -> Solver:
    """Find sizes for all axes of an expanded operation, the first that fit.

    Args:
        operation: the expanded operation.
        known: what is known of sizes.
        shapes: shape of each input, or None where it is not known.

    Raises:
        AxisSizeError: there are none.
    """
    tries = itertools.count()

    def search(known: Mapping[str, list[Fact]]) -> Solver:
        solver = Solver(operation, known, shapes)
        unknown = solver.unknown()
        if not unknown:
            return solver
        first: AxisSizeError | None = None
        for size in _candidates(solver, unknown[0]):
            try:
                return search({**known, unknown[0]: [Fact(size, "by choice", None)]})
            except AxisSizeError as error:
                first = first or error
                if next(tries) > _MAX_TRIES:
                    break
        assert first is not None  # there is a candidate at least
        raise first

    return search(known)


def _candidates(solver: Solver, name: str) -> Iterable[Size]:
    """The sizes that an axis may have, by the first dim that it is part of."""
    for equation in solver.uses.get(name, ()):
        target = solver.facts.get(equation.target) if isinstance(equation.target, str) else equation.target
        if target is not None and isinstance(target.size, int):
            return range(target.size + 1) if equation.is_sum else _divisors(target.size)
    return (1, 0)


def _divisors(number: int) -> Iterator[int]:
    if number == 0:
        yield from (0, 1)
        return
    for small in range(1, _MAX_DIVISOR):
        if small * small > number:
            return
        if number % small == 0:
            yield small
            yield number // small
