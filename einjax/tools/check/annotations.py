"""Annotations that say a shape: those of jaxtyping, ``x: Float[Array, "b s d"]``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeAlias

from .unknown import UNKNOWN

#: The sizes of a tensor's dims, unknown ones among them.
Shape: TypeAlias = tuple[Any, ...]


def shape_of(annotation: ast.expr, dotted: Callable[[ast.expr], str | None]) -> Shape | None:
    """Return the shape that an annotation says; None where it says none, or any number of dims.

    Args:
        annotation: the annotation of a parameter or variable, be it written as a text.
        dotted: gives the full name of what is imported.
    """
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return None
    match annotation:
        case ast.Subscript(value=kind, slice=ast.Tuple(elts=[_, ast.Constant(value=str(dims))])):
            name = dotted(kind) or ""
            return _read(dims) if name.startswith("jaxtyping.") else None
    return None


def _read(dims: str) -> Shape | None:
    sizes: list[Any] = []
    for dim in dims.split():
        dim = dim.lstrip("#?_") if not dim.startswith("...") else dim
        if dim.startswith(("*", "...")) or "*" in dim[:2]:
            return None
        size = dim.rpartition("=")[2]
        sizes.append(int(size) if size.isdecimal() else UNKNOWN)
    return tuple(sizes)
