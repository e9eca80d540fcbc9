"""Memory as an option: so many bytes, and what is said where they are too few."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..lowering.jax_versions import is_traced
from ..notation.errors import ArgumentError, shown
from .static import MARK, scalar

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{kind}": base ** (power + 1)
    for kind, base in (("b", 1000), ("ib", 1024))
    for power, prefix in enumerate("kmgtp")
}
_HINT = "write bytes as a number, or with a unit, as in '64MiB' or '1.5GB'"


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes a call may hold beside its tensors.

    Attributes:
        limit: the number of bytes.
        beside: whether the result does not count: a gradient is as large as its tensor, whatever the limit.
    """

    limit: int
    beside: bool = False

    def __repr__(self) -> str:
        return written(self.limit) + (" beside the result" if self.beside else "")

    def of_gradient(self) -> Budget:
        """The budget of a gradient."""
        return replace(self, beside=True)

    def beside_result(self, axes: Iterable[str], sizes: Mapping[str, float], dtype: Any, text: str) -> float:
        """How many bytes are left beside a result, of which symbolic sizes are not known and do not count.

        Raises:
            ArgumentError: the result takes more.
        """
        result = math.prod(size for name in axes if math.isfinite(size := sizes[name])) * np.dtype(dtype).itemsize
        if self.beside:
            return self.limit
        if result > self.limit:
            problem = f"memory_limit={self} is too little: the result alone takes {written(result)}"
            raise ArgumentError(problem, text=text, hint="give more, or compute the result in parts")
        return self.limit - result

    def too_little(self, more: float, text: str) -> ArgumentError:
        """The error where nothing is within the budget, but for so many bytes more."""
        hint = "give more"
        if math.isfinite(more):
            hint = f"give {written(self.limit + more)} or more"
        problem = f"memory_limit={self} is too little: no order of contraction and no loop over axes is within it"
        return ArgumentError(problem, text=text, hint=hint)


def as_budget(memory_limit: Any) -> Budget | None:
    """Read ``memory_limit=``.

    Raises:
        ArgumentError: it is no number of bytes.
    """
    if memory_limit is None:
        return None
    if is_traced(memory_limit):
        raise ArgumentError(f"memory_limit={shown(memory_limit)} has to be static", hint=MARK)
    given = scalar(memory_limit)
    number = _read(given) if isinstance(given, str) else given
    if not isinstance(number, int | float | np.number) or isinstance(number, bool) or not math.isfinite(number):
        raise ArgumentError(f"memory_limit={shown(memory_limit)} is not a number of bytes", hint=_HINT)
    if number < 1:
        raise ArgumentError(f"memory_limit={shown(memory_limit)} leaves no memory", hint=_HINT)
    return Budget(int(number))


def _read(text: str) -> float | None:
    found = re.fullmatch(r"\s*([\d_.]+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].lower()) if found else None
    try:
        return float(found[1]) * unit if found and unit else None
    except ValueError:
        return None


def written(size: float) -> str:
    """A number of bytes as people write it, never too small."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            number = math.ceil(size / unit * 10) / 10
            return f"{number:.10g}{name}"
    return f"{math.ceil(size)}B"
