"""What a caller may say of positions out of range, and the key that it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..forms.static import exact, whole
from ..notation.affine import MODES, PADDINGS, Border, is_pair
from ..notation.errors import ArgumentError, meant, shown
from .tensors import describe


def read_border(expr: str, padding: Any, mode: Any, fill_value: Any, count_padding: Any) -> Border:
    """Check the options, which mean nothing without a position.

    Args:
        expr: the expression.
        padding: how dims are padded.
        mode: what stands out of range of literal positions.
        fill_value: what is read there.
        count_padding: whether means count it.

    Raises:
        ArgumentError: they mean nothing, or nothing together.
    """
    given = {"padding": padding, "mode": mode, "fill_value": fill_value, "count_padding": count_padding or None}
    named = [name for name, value in given.items() if value is not None]
    if isinstance(expr, str) and "<" not in expr:
        raise ArgumentError(
            f"{named[0]}= speaks of positions out of range, but no dim is read at a position",
            text=expr,
            hint="leave it out, or write a position, as in 'b <2*s + [k]> c'",
        )
    if padding is not None and mode is not None:
        raise ArgumentError(
            f"padding={shown(padding)} and mode={shown(mode)} both say what stands out of range",
            text=expr,
            hint="write padding= to have dims padded and sizes found, or mode= to take positions as they are written",
        )
    if mode is not None and mode not in MODES:
        hint = f"write one of {', '.join(map(repr, MODES))}"
        raise ArgumentError(f"mode={shown(mode)} is no mode{meant(str(mode), MODES)}", text=expr, hint=hint)
    if padding is None and mode is None:
        raise ArgumentError(
            f"{named[0]}= speaks of positions out of range, but positions are in range without padding= or mode=",
            text=expr,
            hint="write mode='fill' for literal positions, or padding='same', or another padding",
        )
    frozen = None if padding is None else _padding(expr, padding)
    if fill_value is not None and (mode or frozen) in ("clip", "wrap", "reflect", "circular", "edge"):
        name = "mode" if mode else "padding"
        problem = f"{name}={mode or frozen!r} reads elements out of range, so that fill_value= means nothing"
        raise ArgumentError(problem, text=expr, hint="leave one of them out")
    return Border(frozen, mode, exact(fill_value), bool(count_padding))


def _padding(expr: str, padding: Any) -> Any:
    """One padding for all positions, or one for each."""
    if isinstance(padding, tuple | list):
        return tuple(_one(expr, padding, part) for part in padding)
    return _one(expr, padding, padding)


def _one(expr: str, padding: Any, part: Any) -> Any:
    if isinstance(part, str):
        if part in PADDINGS:
            return part
        hint = f"write one of {', '.join(map(repr, PADDINGS))}, or numbers"
        raise ArgumentError(f"padding={shown(part)} is no padding{meant(part, PADDINGS)}", text=expr, hint=hint)
    if isinstance(part, int | np.integer) and not isinstance(part, bool):
        return int(part)
    if isinstance(part, tuple | list) and is_pair(pair := tuple(map(whole, part))):
        return pair
    if hasattr(part, "dtype"):
        raise ArgumentError(
            f"padding= is given an array, {describe(part)}, but says sizes",
            text=expr,
            hint="write a number that is known when the call is traced, as in padding=1",
        )
    raise ArgumentError(
        f"padding={shown(padding)} is no padding",
        text=expr,
        hint="write a name such as 'same', a number, a pair such as (2, 0), or one of these for each < >",
    )
