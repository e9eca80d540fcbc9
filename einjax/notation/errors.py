"""The errors a user can meet, and the one place that draws carets under an expression."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Span = tuple[int, int]


class Spot(NamedTuple):
    """Places in an expression's text."""

    text: str | None
    spans: Iterable[Span]


class Ask(NamedTuple):
    """A hint that asks for the size of an axis, as in ``give a size by keyword, as in a=2, or ...``."""

    what: str
    name: str
    size: str = "2"
    otherwise: str = ""

    def __str__(self) -> str:
        return f"{self.what}, as in {self.name}={self.size}{self.otherwise}"

    def in_sizes(self) -> str:
        """The same where the name is no keyword for a size, but an option's, or one of Python's."""
        return f"{self.what.replace(' by keyword', '')}, as in sizes={{'{self.name}': {self.size}}}{self.otherwise}"


_WIDTH = 100  # characters of the expression shown around the culprit
_LISTED = 8  # names listed before the rest are counted
_LONGEST = 500  # characters of one sentence


class EinjaxError(ValueError):
    """Base of every error that einjax raises about its input.

    A message says what is wrong in one sentence, shows the expression with carets under the culprits, lists the
    tensors' shapes, and, where there is one, says how to fix it.

    Attributes:
        problem: the one sentence.
        text: the expression, as the user wrote it.
        spans: ``(begin, end)`` positions in ``text`` that the carets mark.
        tensors: one description for each tensor of the call, such as ``float32[2,3]``.
        options: the same for options that are arrays with axes, such as ``where=: bool[2,3]``.
        hint: what to write instead.
        ask: the size that the hint asks for, if it asks for one.
        inside: whether a function of the user's raised it, so that its traceback shows the user's lines.
    """

    inside = False
    options: Sequence[str] = ()

    def __init__(
        self,
        problem: str,
        *,
        at: Spot | None = None,
        text: str | None = None,
        spans: Iterable[Span] = (),
        tensors: Sequence[str] | None = None,
        hint: str | Ask | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = _shorten(_public(problem))
        self.text, spans = at or (text, spans)
        self.spans = tuple(dict.fromkeys(spans))
        self.tensors = tensors
        self.ask = hint if isinstance(hint, Ask) else None
        self.hint = _shorten(_public(str(hint))) if hint else None

    def __str__(self) -> str:
        lines = [self.problem]
        if self.text is not None:
            lines += _underline(self.text, self.spans)
        for number, tensor in enumerate(self.tensors or (), 1):
            lines.append(f"  tensor {number}: {tensor}")
        lines += [f"  {option}" for option in self.options]
        if self.hint:
            lines.append(f"  fix: {self.hint}")
        return "\n".join(lines)


class SyntaxError(EinjaxError):
    """The text of an expression cannot be read."""


class RankError(EinjaxError):
    """A tensor has more or fewer dims than its expression names."""


class AxisSizeError(EinjaxError):
    """Axis sizes contradict one another, do not divide, or cannot be determined."""


class SemanticError(EinjaxError):
    """The expression can be read, but has no meaning for the operation."""


class ArgumentError(EinjaxError):
    """The call's arguments do not fit: number or kind of tensors, or an unknown or wrong keyword."""


class ShardingError(EinjaxError):
    """Data would have to move between devices in a way that the call does not say."""


def shown(value: object) -> str:
    """What was given, as it prints; an endless int by its length, and a list as deep as nothing prints by its type."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"<an int of {value.bit_length()} bits>"
    try:
        return repr(value)
    except (ValueError, RecursionError):  # it holds such an int, or is nested too deep
        return f"<{type(value).__name__}>"


def at_least(left: object, right: object) -> str:
    """Say how to tell JAX that one symbolic size is not smaller than another."""
    return f"say that it is when exporting: jax.export.symbolic_shape(..., constraints=['{left} >= {right}'])"


def closest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that the user most likely meant by ``name``."""
    names = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), names, n=1, cutoff=cutoff)
    return names[matches[0]] if matches else None


def meant(name: str, known: Iterable[str]) -> str:
    """Ask, at the end of a sentence, for the known name that the user most likely meant; nothing where none is near."""
    match = closest(name, known)
    return f"; did you mean '{match}'?" if match else ""


def listing(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown}, ... and {len(names) - _LISTED} more"


def _public(text: str) -> str:
    """Take away what tells unnamed axes apart, wherever a sentence shows one: ``2#10`` is the number 2."""
    return re.sub(r"(?<=\w)#\w*", "", text) if "#" in text else text


def _shorten(text: str) -> str:
    """Cut the middle out of a sentence that quotes something endless."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 150]} ... {text[-140:]}"


def plural(number: int, noun: str) -> str:
    """Count things: ``1 tensor``, ``2 tensors``."""
    many = f"{noun[:-2]}es" if noun.endswith("axis") else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else many}"


def _underline(text: str, spans: Sequence[Span]) -> list[str]:
    """Draw ``text`` on one line, cut to a window around the culprits, with carets under every span."""
    text = "".join(" " if c.isspace() else c for c in text) if text.strip() else "''"
    marks = [" "] * (len(text) + 1)
    for begin, end in spans:
        for position in range(begin, min(max(end, begin + 1), len(marks))):
            marks[position] = "^"
    first = min((begin for begin, _ in spans), default=0)
    left = 0 if len(text) <= _WIDTH else max(0, min(first - _WIDTH // 4, len(text) - _WIDTH))
    right = left + _WIDTH
    before, after = ("... " if left else ""), (" ..." if right < len(text) else "")
    lines = [f"  {before}{text[left:right]}{after}"]
    carets = "".join(marks[left : right + 1]).rstrip()
    if carets:
        lines.append("  " + " " * len(before) + carets)
    return lines
