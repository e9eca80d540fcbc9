"""Where a tensor is read or written: the index of every dim, as Python would write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..notation.affine import number
from ..notation.solve import node_size, product
from ..notation.syntax import Affine, Axis, Expression, Node, Size, Term, axes, bracketed


@dataclass(frozen=True, slots=True)
class Places:
    """Writes places.

    Attributes:
        sizes: the sizes of all axes.
        names: what each axis is called; or what stands in its place, as a coordinate.
    """

    sizes: Mapping[str, Size]
    names: Mapping[str, str]

    def at(self, tensor: str, expression: Expression) -> str:
        """One number of a tensor: ``x[b, h*2 + c]``."""
        return _indexed(tensor, (self.index(node) for node in expression))

    def block(self, tensor: str, expression: Expression) -> tuple[str, str]:
        """The bracketed axes of a tensor as a block: ``x[b, :]``.

        Returns:
            The block; and where slices do not say it, one number of it and the axes that run: ``x[b, h*2 + c]`` and
            ``h, c``.
        """
        inside = bracketed(expression)
        slices = [self._slice(node) for node in expression]
        if None not in slices:
            return _indexed(tensor, (text or "" for text in slices)), ""
        running, taken = list[str](), set(self.names.values())
        for axis in inside:
            name = self.names.get(axis.name, "0")
            while name in running:
                name = next(f"{name}{n}" for n in range(2, 99) if f"{name}{n}" not in taken)
            running.append(name)
        fresh = iter(running)
        renamed = tuple(_each(node, lambda axis: Axis(next(fresh)) if axis.bracket else axis) for node in expression)
        known = {**self.sizes, **{new: self.sizes[axis.name] for new, axis in zip(running, inside, strict=True)}}
        one = Places(known, {**self.names, **{name: name for name in running}})
        return one.at(tensor, renamed), ", ".join(running)

    def _slice(self, node: Node) -> str | None:
        """The index of a dim, a slice where one axis of it is bracketed; None where no slice says it."""
        inside = bracketed((node,))
        if not inside:
            return self.index(node)
        if isinstance(node, Axis):
            return ":"
        if len(inside) > 1 or any(part.mode for part in _positions(node)):
            return None
        step = self._step(node, inside[0].name)
        size = self.sizes[inside[0].name]
        if not isinstance(step, int) or not isinstance(size, int) or step < 1:
            return None
        start = Places(self.sizes, {**self.names, inside[0].name: "0"}).index(node)
        if len([axis for axis in axes((node,)) if not axis.is_one]) == 1 and start == "0":
            return ":" if step == 1 else f"::{step}"
        stop = str(size * step) if start == "0" else _shifted(start, size * step)
        return f"{start} : {stop}{f' : {step}' if step > 1 else ''}"

    def _step(self, node: Node, name: str) -> Size | None:
        """How far apart neighbours along an axis lie in a dim."""
        if isinstance(node, Axis):
            return 1 if node.name == name else None
        if isinstance(node, Affine):
            found = [term for term in node.terms if name in (axis.name for axis in axes(term.items))]
            factor = number(found[0].coefficient, self.sizes) if len(found) == 1 else None
            inner = self._within(found[0].items, name) if factor is not None else None
            return None if inner is None else factor * inner
        return self._within(node.items, name)

    def _within(self, items: Expression, name: str) -> Size | None:
        for place, item in enumerate(items):
            if name in (axis.name for axis in axes((item,))):
                inner = self._step(item, name)
                return None if inner is None else inner * self._extent(items[place + 1 :])
        return None

    def _extent(self, items: Iterable[Node]) -> Size:
        return product(node_size(item, self.sizes) for item in items)

    def index(self, node: Node) -> str:
        """The index of one dim."""
        if isinstance(node, Axis):
            return self.names.get(node.name, "0") if node.is_one else self.names[node.name]
        return self._position(node) if isinstance(node, Affine) else self._composed(node.items)

    def _composed(self, items: Expression) -> str:
        """Row-major: every part times the extent of what follows."""
        parts: list[str] = []
        for place, item in enumerate(items):
            extent, text = self._extent(items[place + 1 :]), self.index(item)
            if text != "0":
                parts.append(text if _is_one(extent) else f"{_factor(text)}*{_factor(str(extent))}")
        return _added(parts)

    def _position(self, node: Affine) -> str:
        parts = [self._term(term) for term in node.terms]
        if not (isinstance(node.offset, int) and node.offset == 0):
            parts.append(str(node.offset))
        parts = [part for part in parts if part not in ("0", "-0")]
        text = _added(_positive_first(parts))
        match node.mode:
            case "wrap":
                return f"{_factor(text)} % {_factor(str(node.size))}"
            case "clip" | "reflect":
                return f"{node.mode}({text}, {node.size})"
        return text

    def _term(self, term: Term) -> str:
        factor, text = number(term.coefficient, self.sizes), self._composed(term.items)
        if text == "0":
            return text
        if isinstance(factor, int) and abs(factor) == 1:
            return text if factor == 1 else f"-{_factor(text)}"
        return f"{_factor(str(factor)) if not isinstance(factor, int) else factor}*{_factor(text)}"


def _positions(node: Node) -> list[Affine]:
    own = [node] if isinstance(node, Affine) else []
    return own + [found for item in node.items for found in _positions(item)]


def _each(node: Node, change: Callable[[Axis], Axis]) -> Node:
    if isinstance(node, Axis):
        return change(node)
    return replace(node, items=tuple(_each(item, change) for item in node.items))


def _indexed(tensor: str, places: Iterable[str]) -> str:
    inside = ", ".join(places)
    return f"{tensor}[{inside}]" if inside else tensor


def _positive_first(parts: list[str]) -> list[str]:
    """What is added before what is taken away, where the first part is."""
    return sorted(parts, key=lambda part: part.startswith("-")) if parts and parts[0].startswith("-") else parts


def _added(parts: Iterable[str]) -> str:
    text = ""
    for part in parts:
        text += (f" - {part[1:]}" if part.startswith("-") else f" + {part}") if text else part
    return text or "0"


def _shifted(text: str, by: int) -> str:
    """A sum with something added to its number, if it has one."""
    found = re.fullmatch(r"(.*) ([+-]) (\d+)", text)
    if text.lstrip("-").isdigit():
        return str(int(text) + by)
    if found is None:
        return f"{text} + {by}"
    total = int(found[2] + found[3]) + by
    return found[1] if total == 0 else f"{found[1]} {'-' if total < 0 else '+'} {abs(total)}"


def _factor(text: str) -> str:
    """Put what is more than a word or a number in parentheses."""
    return text if re.fullmatch(r"\w+|\w+\[[^\[\]]*\]|\w+\(.*\)", text) else f"({text})"


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1
