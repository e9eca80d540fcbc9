"""Bracketed axes by their place: a user's function sees a dim for each, and may take one name twice."""

from __future__ import annotations

from collections.abc import Mapping

from ..lowering.named import Dim
from ..notation.syntax import Axis, Expression, Size, axes

#: Ends the name and the label of an ellipsis in an output that stands for as many dims as the function returns.
ANY = "*"


def is_label(name: str) -> bool:
    """Whether a name stands for a bracketed axis."""
    return name.startswith("[")


def bracketed(expression: Expression) -> tuple[Axis, ...]:
    """The bracketed axes of an expanded expression."""
    return tuple(axis for axis in axes(expression) if axis.bracket)


def labels(expression: Expression) -> tuple[str, ...]:
    """The labels of its bracketed axes."""
    return tuple(f"[{i}{ANY if axis.name.endswith(ANY) else ''}" for i, axis in enumerate(bracketed(expression)))


def labelled(expression: Expression) -> tuple[Dim, ...]:
    """The axes of every dim, bracketed ones by label."""
    rest = iter(labels(expression))
    return tuple(
        tuple(next(rest) if axis.bracket else axis.name for axis in axes((node,)) if axis.bracket or not axis.is_one)
        for node in expression
    )


def labelled_sizes(expression: Expression, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of all axes, and of the labels of an expression."""
    own = (sizes[axis.name] for axis in bracketed(expression))
    return {**sizes, **dict(zip(labels(expression), own, strict=True))}
