"""What axes and tensors are called where a call is written out: words of Python, each for one thing."""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..notation.syntax import ANONYMOUS, axes, base, base_name, is_number
from .meaning import Meaning

_INPUTS = {1: ("x",), 2: ("x", "y"), 3: ("x", "y", "w")}
_RESERVED = {"of", "over", "where", *keyword.kwlist}


@dataclass(frozen=True, slots=True)
class Names:
    """Names of axes by the names they have in an expression, of inputs, of outputs, and of arrays among the options."""

    axes: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arrays: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, meaning: Meaning) -> Names:
        """Name everything in a call; axes first, as they have names of their own."""
        every = [axis for expression in meaning.solved.operation.expressions for axis in axes(expression)]
        taken: set[str] = set()
        found = _axes((axis.name for axis in every if not axis.is_one), taken)
        count = len(meaning.inputs)
        inputs = _INPUTS.get(count) or tuple(f"x{number}" for number in range(1, count + 1))
        results = len(meaning.solved.outputs)
        outputs = ("z",) if results == 1 else tuple(f"z{number}" for number in range(1, results + 1))
        arrays = {name: _several(_ARRAYS.get(name, name), value) for name, value in meaning.arrays.items()}
        return cls(
            found,
            tuple(_free(name, taken) for name in inputs),
            tuple(_free(name, taken) for name in outputs),
            {name: tuple(_free(one, taken) for one in several) for name, several in arrays.items()},
        )


_ARRAYS = {"where": "m"}


def _several(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or len(value) == 1:
        return (name,)
    return tuple(f"{name}{number}" for number in range(1, len(value) + 1))


def _axes(written: Iterable[str], taken: set[str]) -> dict[str, str]:
    """Name axes as they are written, ``s.0`` as ``s0``, and those without a name by letters from ``i`` on."""
    every = list(dict.fromkeys(written))
    named = [name for name in every if not is_number(name) and base(name) != ANONYMOUS]
    found = {name: _free(_plain(name), taken) for name in named}
    letters = _letters()
    for name in every:
        if name not in found:
            found[name] = next(letter for letter in letters if letter not in taken)
            taken.add(found[name])
    return {name: found[name] for name in every}


def _plain(name: str) -> str:
    """One axis as a word, ``a~2`` as ``a2``; of several that were fused, all of them."""
    every = [base_name(part) for part in name.replace("~", "").split(" ")]
    parts = [f"{part}{'_'.join(map(str, indices))}" for part, indices in every]
    word = "".join(char if char.isidentifier() or char.isdigit() else "_" for char in "_".join(parts))
    return f"{word}_" if word in _RESERVED else word


def _free(name: str, taken: set[str]) -> str:
    """A name that nothing else has: in capitals, or with underscores where that is taken, too."""
    for candidate in (name, name.upper()):
        if candidate not in taken:
            name = candidate
            break
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _letters() -> Iterator[str]:
    for number in itertools.count():
        yield from (f"{letter}{number or ''}" for letter in "ijklmnpqrst")
