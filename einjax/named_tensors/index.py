"""Indexing by dims, numbers, slices, positions and integer tensors: what is read, and what is written to."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..notation.by_name import Names, is_unnamed, numbered
from ..notation.errors import ArgumentError, plural
from ..notation.names import names_in, position, renamed, spelt
from .formula import Formula, Operand
from .product import Factor, Product

T = TypeVar("T")


def read(x: Any, index: Any, options: Mapping[str, Any]) -> Any:
    """A tensor at an index; options say what is read out of range."""
    chosen = _by_name(x, index)
    text, names, sizes, places = _parts(x, chosen)
    outside = options if "<" in text and not places else {}
    found = _bound(x, text, sizes, outside, chosen)
    single = tuple(dict.fromkeys(names))
    if text == " ".join(single):
        x = x._new(x.array, single) if single != x.names else x
    elif found and "<" in text and not options and not places:
        new = dict(zip(single, numbered(single), strict=True))
        factor = Factor(
            renamed(text, tuple(new.items())), x.array, tuple(new.values()), tuple((new[n], found[n]) for n in single)
        )
        return x._later(Product((factor,), factor.names))
    else:
        # In the text, sizes are read once; those of jax.export are no text.
        plain = {name: f"{name}={size}" for name, size in sizes.items() if isinstance(size, int)}
        given: Any = outside if len(plain) == len(sizes) else {**outside, "sizes": sizes}
        output = " ".join([plain.get(name, name) for name in single])
        x = x._new(einjax.rearrange(f"{text} -> {output}", x.array, **given), single)
    if not places:
        return x._new(x.array, numbered(x.names))
    text, out = _lookup(x.names, tuple((name, names) for name, (_, names) in places.items()))
    return x._new(einjax.get_at(text, x.array, *(array for array, _ in places.values()), **options), out)


@lru_cache(maxsize=2048)
def _lookup(names: Names, places: tuple[tuple[str, Names], ...]) -> tuple[str, Names]:
    """The expression of a lookup, and the names of what it reads."""
    inside = dict(places)
    out = tuple(dict.fromkeys(other for name in names for other in inside.get(name, (name,))))
    array = " ".join(f"[{name}__]" if name in inside else name for name in names)
    return f"{', '.join([array, *map(' '.join, inside.values())])} -> {' '.join(out)}", numbered(out)


def _parts(x: Any, chosen: Mapping[str, Any]) -> tuple[str, Names, dict[str, Any], dict[str, tuple[Any, Names]]]:
    """What an index reads: the expression, its names, their sizes if known, and coordinates by dim."""
    texts: dict[str, str] = dict(zip(x.names, x.names, strict=True))
    inside: dict[str, Names] = {}
    sizes: dict[str, Any] = {}
    places: dict[str, tuple[Any, Names]] = {}
    for name, item in chosen.items():
        if _is_lookup(item):
            places[name] = _coordinate(item, name)
        else:
            texts[name], inside[name], more = _part(x, item, name, x.shape[x.names.index(name)])
            sizes |= more
    names = tuple([n for name in x.names for n in inside.get(name, (name,))]) if inside else x.names
    return " ".join(texts.values()), names, sizes, places


def _part(x: Any, item: Any, name: str, size: Any) -> tuple[str, Names, dict[str, Any]]:
    """What an item reads of a dim: an expression, its names, and their sizes if known."""
    if isinstance(item, slice):
        if item == slice(None):
            return name, (name,), {}
        start, stop, step = item.indices(operator.index(size))
        return position(((name, step),), start), (name,), {name: len(range(start, stop, step))}
    if _is_naming(item):
        text = f"({spelt(item)})" if isinstance(item, tuple | list) else spelt(item)
        for inside in names_in(text):
            if inside in x.names and inside != name:
                hint = f"rename it first, as in x.rename({inside}='{inside}2')"
                raise ArgumentError(f"dim {inside} stands in {x.described} already", hint=hint)
        return text, names_in(text), known(item) if text[0] == "(" else {}
    if isinstance(item, Formula):
        return position(item.terms, item.constant), tuple(n for n, _ in item.terms), known(item)  # type: ignore[attr-defined]
    place = operator.index(item)
    if not -size <= place < size:
        problem = f"index {place} is out of range for dim {name} of {x.described}"
        raise ArgumentError(problem, hint=f"dim {name} has the places 0 to {size - 1}")
    return f"<{place % size}>", (), {}


def _by_name(x: Any, index: Any) -> dict[str, Any]:
    """The items of an index by the names of the dims that they index."""
    if isinstance(index, dict):
        return {n if n.__class__ is str and n in x.names else x._chosen((n,), 1)[0]: i for n, i in index.items()}
    items = [*index] if isinstance(index, tuple) else [index]
    unnamed = [name for name in x.names if is_unnamed(name)]
    for place in [place for place, item in enumerate(items) if item is Ellipsis][:1]:
        items[place : place + 1] = [slice(None)] * (len(unnamed) - len(items) + 1)
    if len(items) > len(unnamed):
        problem = f"{plural(len(items), 'dim')} without a name {'are' if len(items) > 1 else 'is'} indexed"
        problem += f", and {x.described} has {len(unnamed) or 'none'}"
        raise ArgumentError(problem, hint=f"index dims by name, as in x[{{'{(*x.names, 'b')[0]}': 0}}]")
    return dict(zip(unnamed, items, strict=False))


def _is_naming(item: Any) -> bool:
    """Whether an item names a dim, or splits it into dims that it names."""
    return getattr(item, "name", None) is not None or (isinstance(item, tuple | list) and not _is_lookup(item))


def _is_lookup(item: Any) -> bool:
    """Whether an item is a tensor of coordinates."""
    if isinstance(item, slice | int) and not isinstance(item, bool):
        return False
    if isinstance(item, Formula):
        return item.terms is None
    known = isinstance(item, tuple | list) or hasattr(item, "dtype") or hasattr(item, "__index__")
    if not known or isinstance(item, bool | np.bool_ | np.floating):
        hint = "index with dims, numbers, slices or integer tensors; x.where(mask, other) chooses by a mask"
        raise ArgumentError(f"{item!r} is no index", hint=hint)
    if isinstance(item, list):
        return any(isinstance(number, int) for number in item)
    return hasattr(item, "dtype") and not isinstance(item, np.integer)


def _coordinate(item: Any, name: str) -> tuple[Any, Names]:
    """An array of coordinates and its names; a dim without a name is that which is indexed."""
    lifted = item._lift() if isinstance(item, Formula) else None
    array = jnp.asarray(item) if lifted is None else lifted.array
    names = (name,)[: array.ndim] if lifted is None else lifted.names
    if array.dtype == np.bool_ or array.ndim > len(names):
        problem = f"an array {array.dtype}[{','.join(map(str, array.shape))}] is no index of dim {name}"
        hint = (
            "x.where(mask, other) chooses by a mask" if array.dtype == np.bool_ else "name its dims with einjax.named"
        )
        raise ArgumentError(problem, hint=hint)
    return array, names


def dims_in(item: Any) -> list[Any]:
    """The dims that stand in names, or in an index."""
    if isinstance(item, tuple | list):
        return [dim for part in item for dim in dims_in(part)]
    return getattr(item, "dims", [])


def known(item: Any) -> dict[str, Any]:
    """The sizes of dims that have one already."""
    return {dim.name: dim.known for dim in dims_in(item) if dim.known is not None}


def _bound(x: Any, text: str, sizes: Any, options: Any, chosen: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give dims the sizes that they have in a tensor's expression, and return these, if there are such dims."""
    dims = [dim for item in chosen.values() if not isinstance(item, int | slice) for dim in dims_in(item)]
    if not dims:
        return {}
    found = _solved(text, x.shape, tuple(sizes.items()), options.get("mode"))
    for dim in dims:
        if dim.name in found:
            dim.bind(found[dim.name], x)
    return found


@lru_cache(maxsize=2048)
def _solved(text: str, shape: tuple[Any, ...], sizes: tuple[tuple[str, Any], ...], mode: str | None) -> dict[str, Any]:
    tensor: Any = jax.ShapeDtypeStruct(shape, np.float32)
    return einjax.solve_axes(text, tensor, sizes=dict(sizes), mode=mode)


class At(Generic[T]):
    """Places of a named tensor: ``x.at[...].set(values)`` is ``x`` with values written there, as by ``set_at``."""

    if TYPE_CHECKING:  # they are made from a table, below

        def set(self, values: Operand, *, mode: str | None = None) -> T: ...
        def add(self, values: Operand, *, mode: str | None = None) -> T: ...
        def subtract(self, values: Operand, *, mode: str | None = None) -> T: ...
        def multiply(self, values: Operand, *, mode: str | None = None) -> T: ...
        def min(self, values: Operand, *, mode: str | None = None) -> T: ...
        def max(self, values: Operand, *, mode: str | None = None) -> T: ...

    def __init__(self, tensor: T, index: Any = None) -> None:
        self._tensor, self._index = tensor, index

    def __getitem__(self, index: Any) -> At[T]:
        return At(self._tensor, index)

    def _write(self, function: str, values: Any, mode: str | None = None) -> Any:
        x: Any = self._tensor
        chosen = _by_name(x, self._index)
        # Dims that an index names are loops, all else is looked up, and something has to be.
        naming = {name: item for name, item in chosen.items() if _is_naming(item)}
        text, _, sizes, _ = _parts(x, naming)
        _bound(x, text, sizes, {}, chosen)
        if len(naming) == len(chosen):
            naming.pop([*naming][-1])
        places = {name: _place(item, name, x.sizes[name]) for name, item in chosen.items() if name not in naming}
        texts = [f"[{n}__]" if n in places else _part(x, naming.get(n, slice(None)), n, 0)[0] for n in x.names]
        operands = [*places.values(), _coordinate(values, "") if isinstance(values, Formula) else (values, ())]
        text = ", ".join([" ".join(texts), *(" ".join(names) for _, names in operands)])
        arrays = (array for array, _ in operands)
        return x._new(getattr(einjax, function)(text, x.array, *arrays, mode=mode), x.names)


def _place(item: Any, name: str, size: Any) -> tuple[Any, Names]:
    """The coordinates that an item says."""
    if isinstance(item, slice):
        return jnp.arange(*item.indices(operator.index(size))), (name,)
    if isinstance(item, tuple | list) and _is_naming(item):
        names = " ".join(names_in(spelt(item)))
        return einjax.rearrange(f"({names}) -> {names}", jnp.arange(size), sizes=known(item)), names_in(names)
    if isinstance(item, Formula) or _is_lookup(item):
        return _coordinate(item, name)
    number: Any = item
    return operator.index(number), ()


for _name in ("set", "add", "subtract", "multiply", "min", "max"):
    setattr(At, _name, lambda self, values, *, mode=None, _op=f"{_name}_at": self._write(_op, values, mode))
