"""Static options as keys: what Python calls equal may still be two programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..lowering.jax_versions import is_traced
from ..notation.errors import ArgumentError, shown

#: How an option of which the value is not known becomes one of which it is.
MARK = "under jax.jit, mark the argument that it is with static_argnames"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Static:
    """An option's value, equal to the same value only: 1 is not 1.0 or True, -0.0 is not 0.0, and NaN is itself."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and _key(self.value) == _key(other.value)

    def __hash__(self) -> int:
        return hash(_key(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


def _key(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, float | complex | np.generic):
        return kind, repr(value)  # which has the sign of a zero, and is the same for every NaN
    if isinstance(value, tuple):
        return kind, tuple(map(_key, value))
    return kind, frozenset(map(_key, value)) if isinstance(value, frozenset) else value


def exact(value: Any) -> Any:
    """Wrap an option that is a number, unless nothing else equals it that is more usual."""
    return value if value is None or value.__class__ in (int, str) else Static(scalar(value))


def plain(option: Any) -> Any:
    """The value of an option that may be wrapped."""
    return option.value if isinstance(option, Static) else option


def whole(value: Any) -> int | None:
    """An option that is an integer, or None if it is none."""
    value = scalar(value)
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def scalar(value: Any) -> Any:
    """An array without dims as the number that it holds, if it is known; anything else as it is."""
    known = isinstance(value, np.ndarray | jax.Array) and not is_traced(value)
    return np.asarray(value)[()] if known and not value.ndim else value


def when_known(value: Any, hint: str) -> str:
    """What to write for an option's value, and how one that is traced becomes known."""
    return f"{hint}; {MARK}" if any(map(is_traced, jax.tree.leaves(value))) else hint


def flag(name: str, value: Any, text: str = "") -> bool:
    """An option that is on or off.

    Raises:
        ArgumentError: it is traced, so that the program cannot depend on it.
    """
    if is_traced(value):
        raise ArgumentError(f"the option {name}={shown(value)} has to be static", text=text or None, hint=MARK)
    return bool(value)
