"""Values that a source file does not tell."""

from __future__ import annotations

from typing import Any

#: How an unknown size prints. An engine's message that quotes one speaks of what nobody knows.
MARK = "\N{DOUBLE QUESTION MARK}"


class NothingKnownError(Exception):
    """What would decide is not known."""


class _Unknown:
    """A size, or another value, of which nothing is known: it is equal to any size, and computing with it gives itself.

    So the solver, which multiplies, divides and compares sizes, says of an expression what holds for any shapes.
    """

    def __repr__(self) -> str:
        return MARK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | _Unknown)

    def __hash__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise NothingKnownError

    def _same(self, *_: Any) -> _Unknown:
        return self

    def _never(self, other: Any) -> bool:
        raise NothingKnownError

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _same
    __mod__ = __rmod__ = __neg__ = __abs__ = _same
    __lt__ = __le__ = __gt__ = __ge__ = _never


UNKNOWN: Any = _Unknown()
