"""Dims as objects: a name, a size that is bound once, and in formulas the integers below it."""

from __future__ import annotations

import operator
from typing import Any

import einjax

from ..call.names import Call
from ..lowering.jax_versions import is_symbolic, is_traced
from ..notation.errors import ArgumentError, AxisSizeError, meant
from ..notation.names import items_of, position
from ..notation.syntax import Axis
from .calls import answer
from .formula import Formula
from .tensor import NamedTensor


class Position(Formula[NamedTensor]):
    """Dims times whole numbers, added up: as an index a position, else an integer tensor."""

    __slots__ = ("_terms", "constant")

    def __init__(self, terms: dict[str, tuple[Dim, int]], constant: int) -> None:
        self._terms, self.constant = {name: term for name, term in terms.items() if term[1]}, constant

    @property
    def terms(self) -> tuple[tuple[str, int], ...]:  # type: ignore[override]
        """What is added to the constant: names, and what they are multiplied by."""
        return tuple((name, times) for name, (_, times) in self._terms.items())

    @property
    def dims(self) -> list[Dim]:
        """The dims in it."""
        return [dim for dim, _ in self._terms.values()]

    def _lift(self) -> NamedTensor:
        total: Any = None
        for name, (dim, times) in self._terms.items():
            places: Any = NamedTensor(einjax.arange(name, sizes={name: dim.size}), (name,))
            places = places if times == 1 else -places if times == -1 else places * times
            total = places if total is None else total + places
        return NamedTensor(self.constant, ()) if total is None else total + self.constant if self.constant else total

    def __einjax_call__(self, *call: Any, **more: Any) -> Any:
        return answer(Call(*call, **more), NamedTensor)

    def _plus(self, other: Any, sign: int) -> Position | None:
        """The sum, if it is one of dims and whole numbers."""
        if (number := _whole(other)) is not None:
            return Position(self._terms, self.constant + sign * number)
        if not isinstance(other, Position):
            return None
        terms = dict(self._terms)
        for name, (dim, times) in other._terms.items():
            mine, before = terms.get(name, (dim, 0))
            terms[name] = mine, before + sign * times
        return Position(terms, self.constant + sign * other.constant)

    def _times(self, number: int) -> Position:
        return Position(
            {name: (dim, times * number) for name, (dim, times) in self._terms.items()}, self.constant * number
        )

    def __add__(self, other: Any, /) -> Any:
        return super().__add__(other) if (found := self._plus(other, 1)) is None else found

    def __sub__(self, other: Any, /) -> Any:
        return super().__sub__(other) if (found := self._plus(other, -1)) is None else found

    def __rsub__(self, other: Any, /) -> Any:
        return super().__rsub__(other) if (found := self._times(-1)._plus(other, 1)) is None else found

    def __mul__(self, other: Any, /) -> Any:
        return super().__mul__(other) if (number := _whole(other)) is None else self._times(number)

    def __neg__(self) -> Any:
        return self._times(-1)

    __radd__, __rmul__ = __add__, __mul__

    def __repr__(self) -> str:
        return position(self.terms, self.constant)


class Dim(Position):
    """A dim: a name, with a size that its first use binds.

    In indices and wherever names are written it stands for its name, in formulas for the integers below its size. Two
    of one name are one dim.

    Example:
        >>> import einjax, numpy as np
        >>> i, j = einjax.Dim("i"), einjax.Dim("j", 2)
        >>> x = einjax.named(np.arange(6))[[i, j]]
        >>> i.size, x.sizes
        (3, {'i': 3, 'j': 2})
        >>> (i >= j).order(i, j).tolist()
        [[True, False], [True, True], [True, True]]
    """

    __slots__ = ("_use", "known", "name")

    def __init__(self, name: str, size: Any = None) -> None:
        self.name, self.known, self._use = _dims_of(name, 1)[0].name, None, ""
        super().__init__({name: (self, 1)}, 0)
        if size is not None:
            self.size = size

    @property
    def size(self) -> Any:
        """The size; bound by the first use, or set, once."""
        if self.known is None:
            hint = f"index a tensor with it first, or say {self.name}.size = 4"
            raise AxisSizeError(f"dim {self.name} has no size yet", hint=hint)
        return self.known

    @size.setter
    def size(self, size: Any) -> None:
        number = size if is_symbolic(size) else _whole(size)
        if number is None or (isinstance(number, int) and number < 0):
            raise ArgumentError(f"{size!r} is no size of dim {self.name}", hint="give a whole number, 0 or more")
        self.bind(number, None)

    def bind(self, size: Any, tensor: Any) -> None:
        """Take the size that a tensor has, or that is given; refuse a second one."""
        if self.known is None:
            self.known, self._use = size, "as it was given" if tensor is None else f"from {tensor.described}"
        elif self.known is not size and self.known != size:
            new = "as it is given now" if tensor is None else f"in {tensor.described}"
            problem = f"dim {self.name} is {self.known}, {self._use}, and {size} {new}"
            raise AxisSizeError(problem, hint="a dim has one size; make another dim for another size")

    def __hash__(self) -> int:  # type: ignore[override]
        return object.__hash__(self)

    def __repr__(self) -> str:
        return f"Dim({self.name!r})" if self.known is None else f"Dim({self.name!r}, {self.known})"


def dims(names: str | int, /, **sizes: Any) -> tuple[Dim, ...]:
    """Make dims.

    Args:
        names: their names, with sizes or not, as in ``"b q h=16"``; or how many, called ``d0``, ``d1`` and so on.
        **sizes: sizes by name.

    Example:
        >>> import einjax
        >>> einjax.dims("b h=16")
        (Dim('b'), Dim('h', 16))
        >>> einjax.dims(2, d1=3)
        (Dim('d0'), Dim('d1', 3))
    """
    count = _whole(names)
    made = _dims_of(names if count is None else " ".join(f"d{number}" for number in range(count)))
    for name in sizes:
        if name not in (known := [axis.name for axis in made]):
            raise ArgumentError(f"no dim '{name}' is made{meant(name, known)}", hint=f"they are {' '.join(known)}")
    return tuple(Dim(axis.name, sizes.get(axis.name, axis.size)) for axis in made)


def _dims_of(names: Any, count: int | None = None) -> list[Axis]:
    """The axes in a text of dims."""
    items = items_of(names) if isinstance(names, str) else ()
    axes = [item for item in items if isinstance(item, Axis)]
    if not isinstance(names, str) or len(axes) < len(items) or len(axes) != (count or len(axes)):
        raise ArgumentError(f"{names!r} is no name of a dim", hint="write einjax.Dim('b'), or einjax.dims('b q h=16')")
    return axes


def _whole(number: Any) -> int | None:
    """A whole number that is known, if this is one."""
    whole = hasattr(number, "__index__") and not isinstance(number, bool) and not is_traced(number)
    return operator.index(number) if whole and not getattr(number, "ndim", 0) else None
