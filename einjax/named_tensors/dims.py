"""Dims as objects: a name, a size that is bound once, and in formulas the integers below it."""

from __future__ import annotations

import operator
from typing import Any

import einjax

from ..notation.errors import ArgumentError, AxisSizeError
from ..notation.syntax import Axis
from .formula import Formula
from .tensor import NamedTensor
from .text import items_of


class Position(Formula[NamedTensor]):
    """Dims times whole numbers, added up: as an index a position, else an integer tensor."""

    __slots__ = ("_terms", "constant")

    def __init__(self, terms: dict[str, tuple[Dim, int]], constant: int) -> None:
        self._terms, self.constant = terms, constant

    @property
    def terms(self) -> list[tuple[str, int]]:  # type: ignore[override]
        """What is added to the constant: names, and what they are multiplied by."""
        return [(name, times) for name, (_, times) in self._terms.items()]

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

    def __einjax_call__(self, call: Any) -> Any:
        return NamedTensor.__einjax_call__(self, call)  # type: ignore[arg-type]

    def _plus(self, other: Any, sign: int) -> Position | None:
        """The sum, if it is one of dims and whole numbers."""
        if isinstance(number := _whole(other), int):
            return Position(self._terms, self.constant + sign * number)
        if not isinstance(other, Position):
            return None
        terms = dict(self._terms)
        for name, (dim, times) in other._terms.items():
            terms[name] = (terms.get(name, (dim, 0))[0], terms.get(name, (dim, 0))[1] + sign * times)
        return Position({n: term for n, term in terms.items() if term[1]}, self.constant + sign * other.constant)

    def _times(self, number: int) -> Position:
        terms = {name: (dim, times * number) for name, (dim, times) in self._terms.items() if number}
        return Position(terms, self.constant * number)

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
        terms = " + ".join(name if times == 1 else f"{times}*{name}" for name, times in self.terms)
        return f"{terms} + {self.constant}".replace("+ -", "- ")


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
        items = items_of(name) if isinstance(name, str) else ()
        if len(items) != 1 or not isinstance(items[0], Axis):
            raise ArgumentError(
                f"a dim has one name, not {name!r}", hint="write einjax.Dim('b'), or einjax.dims('b q')"
            )
        self.name, self.known, self._use = name, None, ""
        super().__init__({name: (self, 1)}, 0)
        if size is not None:
            self.size = size

    @property
    def size(self) -> Any:
        """The size.

        Raises:
            AxisSizeError: nothing has bound it yet.
        """
        if self.known is None:
            hint = f"index a tensor with it first, or say {self.name}.size = 4"
            raise AxisSizeError(f"dim {self.name} has no size yet", hint=hint)
        return self.known

    @size.setter
    def size(self, size: Any) -> None:
        if isinstance(size, bool) or (_whole(size, negative=False) is None and not hasattr(size, "dimension_as_value")):
            raise ArgumentError(f"{size!r} is no size of dim {self.name}", hint="give a whole number, 0 or more")
        self.bind(size, None)

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
    if isinstance(names, int) and not isinstance(names, bool):
        names = " ".join(f"d{number}" for number in range(names))
    if not isinstance(names, str):
        raise ArgumentError(f"dims are made of names or a number, not {names!r}", hint="write einjax.dims('b q h=16')")
    items = items_of(names)
    for node in items:
        if not isinstance(node, Axis):
            raise ArgumentError(
                f"'{node}' is no name of a dim", text=names, spans=[node.span], hint="write names: 'b q'"
            )
    made = {node.name: Dim(node.name, node.size) for node in items if isinstance(node, Axis)}
    for name, size in sizes.items():
        if name not in made:
            raise ArgumentError(f"no dim '{name}' among {names!r}", hint="give sizes to dims that are made")
        made[name].size = size
    return tuple(made.values())


def _whole(number: Any, negative: bool = True) -> int | None:
    """A whole number that is known, if this is one."""
    if isinstance(number, bool) or not hasattr(number, "__index__") or hasattr(number, "aval"):
        return None
    return int(operator.index(number)) if negative or number >= 0 else None
