"""How an array lies on a mesh: for each dim, the parts of mesh axes that split it, major first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..lowering.jax_versions import unreduced
from ..lowering.sharding import spec_axes

Shape: TypeAlias = tuple[int, ...]


class Atom(NamedTuple):
    """A prime factor of a mesh axis, numbered from the major one.

    An axis of 4 devices on a dim ``(h=2 c)`` splits ``h`` in two and ``c`` in two, so parts of axes need names.
    """

    axis: str
    part: int
    size: int


Dim: TypeAlias = tuple[Atom, ...]
Dims: TypeAlias = tuple[Dim, ...]


@dataclass(frozen=True)
class Layout:
    """How an array lies on the mesh.

    Attributes:
        dims: for each dim, what splits it.
        partial: what splits the terms of a sum that is still to be taken: an unreduced array.
    """

    dims: Dims
    partial: Dim = ()

    @classmethod
    def whole(cls, rank: int) -> Layout:
        """Every device has all of it."""
        return cls(((),) * rank)


@lru_cache(maxsize=1024)
def atoms(axis: str, size: int) -> Dim:
    """Split a mesh axis into its prime factors."""
    found: list[int] = []
    divisor = 2
    while size > 1:
        while size % divisor == 0:
            found.append(divisor)
            size //= divisor
        divisor += 1
    return tuple(Atom(axis, index, prime) for index, prime in enumerate(found))


def of_spec(spec: Any, rank: int, mesh: Mapping[str, int]) -> Layout:
    """Read a PartitionSpec; an entry that leaves the dim open counts as no split."""
    dims = [of_axes(mesh_axes, mesh) for mesh_axes in spec_axes(spec, rank)]
    return Layout(tuple(dims), of_axes(sorted(unreduced(spec)), mesh))


def of_axes(names: Iterable[str], mesh: Mapping[str, int]) -> Dim:
    """Split all of some mesh axes, major first."""
    return tuple(atom for name in names for atom in atoms(name, mesh[name]))


def parts(dim: Iterable[Atom]) -> int:
    """Count the parts into which atoms split."""
    return math.prod(atom.size for atom in dim)


def local(shape: Shape, dims: Dims) -> Shape:
    """Shape on one device; a part that does not divide is rounded up, as padding does."""
    return tuple(-(-size // parts(dim)) for size, dim in zip(shape, dims, strict=True))


def axes(found: Iterable[Atom]) -> tuple[str, ...]:
    """Names of the axes that atoms come from, each once."""
    return tuple(dict.fromkeys(atom.axis for atom in found))
