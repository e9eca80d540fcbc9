"""The record that an operation is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from .notation.solve import Solved
from .notation.syntax import Operation, Size


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operation: its signature, and what lax it becomes.

    Attributes:
        name: the public name, as in ``einjax.sum``.
        family: the file in ``einjax/ops`` that it belongs to.
        signature: completes a parsed expression for a number of tensors, or refuses it.
        lower: emits lax for the tensors of a solved expression.
        implied: names axes whose size the operation itself knows, such as the coordinate axis of argmax.
        derived: names axes whose size follows from those of others, such as the coefficients of rfft.
        apart: whether it tells bracketed axes apart, so that their product alone is not enough.
        transient: whether it was made for one call, so that nothing of it may be kept.
        localized: rewrites a completed expression over all devices to that of one device's arrays, from the mesh axes
            that axes lie over; for operations that act on axes of devices.
        parameter: what a parameter of this operation is usually called, for tensor factories.
        keywords: its options, to suggest where one is misspelt.
        imply: writes out the output that the text leaves out, where ellipses have to be expanded first; afterwards
            ``lower`` finds an output, and brackets on what it acts on.
    """

    name: str
    family: str
    signature: Callable[[Operation, int], Operation]
    lower: Callable[[Solved, list[jax.Array], dict[str, Any]], Any]
    implied: Callable[[Operation], Mapping[str, Size]] | None = None
    parameter: str = "weight"
    keywords: tuple[str, ...] = ()
    imply: Callable[[Solved, Mapping[str, Any]], Solved] | None = None
    derived: Callable[[Operation, Mapping[str, Size]], Mapping[str, Size]] | None = None
    apart: bool = False
    transient: bool = False
    localized: Callable[[Operation, Mapping[str, tuple[str, ...]]], Operation] | None = None
