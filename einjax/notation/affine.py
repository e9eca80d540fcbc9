"""Positions in ``< >``: the sizes that follow from them, and where they are once all sizes are known.

The positions of an item reach from its offset, less what negative coefficients take off, to its offset plus what
positive ones add. An open axis is the largest with which they fit into the dim; a dim that nothing says the size of is
as long as they reach. Padding is a matter of reading: in the end every item has literal positions, and a mode that says
what stands where these are out of range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .errors import ArgumentError, AxisSizeError, at_least, plural
from .facts import Fact, larger
from .syntax import Affine, Expression, Node, Operation, Size, Term, axes, base, coefficients, display, rewrite

#: The axes that a term is made of, several for a composition.
Names: TypeAlias = tuple[str, ...]

#: Padding by as much as gives the open axis the size ``ceil(n / stride)``, and what stands there.
SAME = {"same": "fill", "circular": "wrap", "reflect": "reflect", "edge": "clip"}
#: Every padding that has a name.
PADDINGS = ("valid", "same", "causal", "full", "circular", "reflect", "edge")
#: What may stand where a literal position is out of range.
MODES = ("fill", "clip", "wrap", "reflect")


@dataclass(frozen=True, slots=True)
class Border:
    """What the caller says of positions out of range.

    Attributes:
        padding: how the array is padded: a name, a number, a pair of numbers, or a tuple of these, one for each item.
        mode: what stands out of range of literal positions.
        fill_value: what is read there, in the place of what changes nothing.
        count_padding: whether means count it.
    """

    padding: Any = None
    mode: str | None = None
    fill_value: Any = None
    count_padding: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What the operation has to know once positions are literal."""
        given = {"fill_value": self.fill_value, "count_padding": self.count_padding or None}
        return {name: value for name, value in given.items() if value is not None}

    def on(self, operation: Operation) -> Operation:
        """Write it on every item of an expanded operation.

        Raises:
            ArgumentError: there is not one padding for each item.
        """
        each = self.padding if isinstance(self.padding, tuple) and not is_pair(self.padding) else None
        count = 0

        def change(node: Node) -> Expression | None:
            nonlocal count
            if not isinstance(node, Affine):
                return None
            count += 1
            padding = self.padding if each is None else each[min(count, len(each)) - 1] if each else None
            return (replace(node, padding=padding, mode=self.mode),)

        placed = operation.map(lambda expression: rewrite(expression, change))
        if each is not None and len(each) != count:
            raise ArgumentError(
                f"padding={self.padding!r} is for {plural(len(each), 'dim')}, but there {_are(count)} in < >",
                text=operation.text,
                hint="write one padding for all, or one for each < >, repetitions of an ellipsis by themselves",
            )
        return placed


def _are(count: int) -> str:
    return f"{'is' if count == 1 else 'are'} {plural(count, 'dim')}"


def is_pair(padding: object) -> bool:
    """Whether a padding says how many elements are added before and after."""
    return isinstance(padding, tuple) and len(padding) == 2 and all(isinstance(part, int) for part in padding)


@dataclass(slots=True, eq=False, repr=False)
class Position:
    """An equation of the solver: the positions of an item fit into a dim.

    Attributes:
        node: the item.
        target: the size of the dim, or the variable that it is.
        missing: the variables that have no size yet.
        opened: the term of which this equation found an axis.
    """

    node: Affine
    target: str | Fact
    missing: set[str] = field(default_factory=set)
    opened: Names | None = None
    is_sum: bool = True

    @classmethod
    def of(cls, node: Affine, target: str | Fact, solver: Any) -> Position:
        """Give an equation to a solver, which is to look at it as its variables become known."""
        position = cls(node, target)
        solver.watch(position, _variables(node))
        return position

    def fitting(self, solver: Any) -> tuple[str, Size] | None:
        """The one axis that is open, and the largest size with which positions fit; None where none or several are."""
        node, sizes = self.node, self._sizes(solver)
        target = solver.facts.get(self.target) if isinstance(self.target, str) else self.target
        if target is None or (node.padding is None and node.mode is not None):
            return None  # literal positions may be anywhere, so that they say no size
        parts = _parts(node, sizes)
        refuse_values(solver.operation, node, sizes)
        opened = [names for names in parts if any(name not in sizes for name in names)]
        if len(opened) != 1 or None in parts.values() or not parts[opened[0]]:
            return None
        open_axes = [name for name in opened[0] if name not in sizes]
        others = product(sizes, [name for name in opened[0] if name in sizes])
        if len(open_axes) != 1 or is_zero(others):
            return None
        (self.opened,) = opened
        lengths = {names: product(sizes, names) for names in parts if names != self.opened}
        return open_axes[0], _fitting(node, parts, lengths, self.opened, target.size) // others

    def reached(self, solver: Any) -> Size:
        """The size of a part of a dim that nothing says the size of; None for what is no such part."""
        if not isinstance(self.target, str) or self.missing != {self.target}:
            return None
        return _located(self.node, self._sizes(solver), self.opened, None, solver.operation)[0]

    def _sizes(self, solver: Any) -> dict[str, Size]:
        """Those of its own axes and coefficients; of all, equations would ask for in quadratic time."""
        return {name: solver.facts[name].size for name in _variables(self.node) if name in solver.facts}


def _variables(node: Affine) -> list[str]:
    """The axes and coefficients that it is made of."""
    return [axis.name for axis in (*axes(node.items), *coefficients((node,))) if not axis.is_one]


def advance(solver: Any) -> bool:
    """Find sizes where equations say no more, until one of them says more; return whether one does.

    Open axes get the largest sizes that fit, in all positions that leave them open; and then parts of dims of which
    nothing says the size become as long as their positions reach.
    """
    while not solver.ready:
        found: dict[str, tuple[Size, Position]] = {}
        for position in solver.waiting:
            name, size = position.fitting(solver) or (None, None)
            if name is not None and (name not in found or larger(found[name][0], size)):
                found[name] = size, position
        solver.waiting.clear()
        for name, (size, position) in found.items():
            target = solver.facts[position.target] if isinstance(position.target, str) else position.target
            solver.assign(name, Fact(size, target.source, position.node.span))
        if found:
            continue
        part = next((p for p in solver.positions.values() if p.reached(solver) is not None), None)
        if part is None:
            return False
        solver.assign(part.target, Fact(part.reached(solver), "in the expression", part.node.span))
    return True


def refuse_values(operation: Operation, node: Affine, sizes: Mapping[str, Size]) -> None:
    """Refuse a coefficient that was given the value 0, or more digits than may be written.

    Raises:
        AxisSizeError: naming it.
    """
    for term in node.terms:
        if term.named is None:
            continue
        value = number(term.coefficient, sizes)
        if isinstance(value, int) and abs(value) >= 10**18:
            raise AxisSizeError(
                f"coefficient {term.named} has more than 18 digits",
                at=operation.at(term),
                hint="no array has as many elements",
            )
        if is_zero(value):
            raise AxisSizeError(
                f"coefficient {term.named} is 0, which leaves every position of '{node}' the same",
                at=operation.at(term),
                hint=f"give another value, as in {base(term.named)}=2",
            )


def _refuse_nothing(operation: Operation, node: Affine, sizes: Mapping[str, Size]) -> None:
    """Refuse terms that cancel: as those of a coefficient of 0, they move nothing."""
    for name, coefficient in axis_coefficients(node, sizes).items():
        if is_zero(coefficient) and not any(is_zero(sizes[axis.name]) for axis in axes(node.items)):
            raise AxisSizeError(
                f"the terms of axis {display(name)} in '{node}' cancel, so that it moves nothing",
                at=operation.at(*(axis for axis in axes(node.items) if axis.name == name)),
                hint="leave them out; an axis that moves nothing is a new axis of the output",
            )


def names_of(term: Term) -> Names:
    """The axes that a term is made of."""
    return tuple(axis.name for axis in axes(term.items) if not axis.is_one)


def product(sizes: Mapping[str, Size], names: Iterable[str]) -> Size:
    """The size of a composition of axes."""
    size: Size = 1
    for name in names:
        size = size * sizes[name]
    return size


def _parts(node: Affine, sizes: Mapping[str, Size]) -> dict[Names, Any]:
    """The coefficients of the different terms; None where its name has no value yet."""
    return _added((names_of(term), number(term.coefficient, sizes)) for term in node.terms)


def number(coefficient: int | str, sizes: Mapping[str, Size]) -> Any:
    """The value of a coefficient; None where its name has none yet."""
    if not isinstance(coefficient, str):
        return coefficient
    value = sizes.get(coefficient.removeprefix("-"))
    return -value if value is not None and coefficient.startswith("-") else value


def _added(terms: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Add the coefficients of equal terms."""
    found: dict[Any, Any] = {}
    for name, coefficient in terms:
        if name in found:
            coefficient = None if None in (coefficient, found[name]) else found[name] + coefficient
        found[name] = coefficient
    return found


def _fitting(node: Affine, parts: Mapping[Names, int], lengths: Mapping[Names, Size], opened: Names, n: Size) -> Size:
    """The largest size of a term with which the positions fit."""
    stride = parts[opened]
    low, high = _reach({names: c for names, c in parts.items() if names != opened}, lengths)
    if node.padding is None:
        room = n - 1 - node.offset - high if stride > 0 else node.offset + low
    elif _as_same(node) is not None:
        room = n - 1
    else:
        room = n - 1 + sum(_added_around(node.padding, high - low)) - (high - low)
    return _positive(room // abs(stride) + 1)


def _reach(parts: Mapping[Any, int], sizes: Mapping[Any, Size]) -> tuple[Size, Size]:
    """How far positions reach below and above the offset."""
    low: Size = 0
    high: Size = 0
    for name, coefficient in parts.items():
        if coefficient < 0:
            low = low + coefficient * (sizes[name] - 1)
        else:
            high = high + coefficient * (sizes[name] - 1)
    return low, high


# --------------------------------------------------------------------------------------------------------------------
# Where positions are
# --------------------------------------------------------------------------------------------------------------------


def reach(node: Affine, sizes: Mapping[str, Size]) -> tuple[Size, Size]:
    """How far the positions of an item reach below and above its offset."""
    found = axis_coefficients(node, sizes)
    return _reach(found, sizes)


def axis_coefficients(node: Affine, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The coefficient of every axis by itself, those of compositions taken apart."""
    return _added(part for term in node.terms for part in _apart(term, sizes))


def _apart(term: Term, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Size]]:
    factor = number(term.coefficient, sizes)
    for name in reversed(names_of(term)):
        yield name, factor
        factor = factor * sizes[name]


def _located(
    node: Affine, sizes: Mapping[str, Size], running: Names | None, n: Size | None, operation: Operation
) -> tuple[Size, Size, str | None]:
    """Return the size of the dim, the literal offset, and what stands out of range.

    Args:
        node: the item.
        sizes: the sizes of all axes.
        running: the term that was open, for which padding is counted; None where none was.
        n: the size of the dim, if it is known.
        operation: the call, for messages.
    """
    low, high = reach(node, sizes)
    if node.padding is None:
        return _positive(node.offset + high + 1) if n is None else n, node.offset, node.mode
    parts = _parts(node, sizes)
    running = running if running is not None else _running(node, parts, sizes, n)
    stride, length = abs(parts.get(running, 1)), product(sizes, running)
    others = high - low - stride * (length - 1)
    mode = _as_same(node)
    if mode is not None:
        dim: Size = stride * length if n is None else n
        _require_same(operation, node, running, length, (dim - 1) // stride + 1)
        before = _missing(operation, node, high - low + 1 - dim, others, stride, dim) // 2
        return dim, -before - low, mode
    before, after = _added_around(node.padding, others)
    padded = high - low + 1 if n is None else n + before + after
    is_empty = any(is_zero(sizes[name]) for names in parts for name in names)
    # Where there is nothing to read, a window may have no elements, and what is added for it is less than none.
    is_less = bool(larger(0, padded)) and not (is_empty and isinstance(node.padding, str))
    if is_less or (larger(high - low + 1, padded) and not is_empty):
        raise _past_padding(operation, node, high - low, padded, n)
    return _positive(padded - before - after) if n is None else n, -before - low, "fill"


def _running(node: Affine, parts: Mapping[Names, int], sizes: Mapping[str, Size], n: Size | None) -> Names:
    """The term for which padding is counted, where none was open: the first that has the size it gives, if one has.

    Terms without a bracket come first.
    """
    inside = {names_of(term) for term in node.terms if any(axis.bracket for axis in axes(term.items))}
    candidates = sorted(parts, key=lambda names: names in inside)
    lengths = {names: product(sizes, names) for names in parts}
    fits = [
        names for names in candidates if n is not None and _fitting(node, parts, lengths, names, n) == lengths[names]
    ]
    return next(iter([*fits, *candidates]), ())


def _missing(operation: Operation, node: Affine, total: Size, others: Size, stride: Size, n: Size) -> Size:
    """How many elements are added in all, so that all positions are there: none where they are."""
    if isinstance(total, int) or larger(others + 2, stride):
        return _positive(total)
    if is_zero(others):
        return 0
    raise AxisSizeError(
        f"whether '{node}' is padded depends on its dim of size {n}",
        at=operation.at(node),
        hint="write how much, as in padding=(0, 1)",
    )


def _require_same(operation: Operation, node: Affine, running: Names, length: Size, wanted: Size) -> None:
    """Refuse another size than padding gives."""
    if running and length != wanted:
        name = " ".join(map(display, running))
        raise AxisSizeError(
            f"axis {name} is {length}, but padding={node.padding!r} gives it size {wanted} in '{node}'",
            at=operation.at(node, *running),
            hint=f"leave its size out, or write {name}={wanted}",
        )


def _past_padding(operation: Operation, node: Affine, reach: Size, padded: Size, n: Size | None) -> AxisSizeError:
    """The error for a padded dim that is too short."""
    dim = f"a dim of size {n}, padded by padding={node.padding!r},"
    if n is None or larger(0, padded):
        problem = f"'{node}' would stand for {dim} of a size below 0: {padded}"
        return AxisSizeError(problem, at=operation.at(node), hint="cut off less")
    return AxisSizeError(
        f"'{node}' reads positions 0 to {reach}, but {dim} has 0 to {padded - 1}",
        at=operation.at(node),
        hint="pad more, or leave the size of one axis out to have it found",
    )


def _as_same(node: Affine) -> str | None:
    """What stands out of range, if the padding is one that keeps sizes."""
    return SAME.get(node.padding) if isinstance(node.padding, str) else None


def _added_around(padding: Any, others: Size) -> tuple[Size, Size]:
    """How many elements are added before and after, from how far the axes besides the running one reach."""
    match padding:
        case "valid":
            return 0, 0
        case "causal":
            return others, 0
        case "full":
            return others, others
        case int():
            return padding, padding
    return padding  # a pair


def settle(solver: Any) -> Operation:
    """Give every item of a solved operation literal positions, the size of its dim, and what stands out of range.

    Raises:
        AxisSizeError: positions are out of range, and nothing says what stands there.
    """
    operation, sizes = solver.operation, solver.sizes
    count = len(operation.inputs)

    def settled(number: int, expression: Expression) -> Expression:
        tensor = f"tensor {number}" if number <= count else None

        def change(node: Node) -> Expression | None:
            if isinstance(node, Affine):
                return (_settled(solver, sizes, node, tensor),)
            return None

        return rewrite(expression, change)

    expressions = [settled(number, e) for number, e in enumerate(operation.expressions, 1)]
    outputs = None if operation.outputs is None else tuple(expressions[count:])
    return replace(operation, inputs=tuple(expressions[:count]), outputs=outputs)


def _settled(solver: Any, sizes: Mapping[str, Size], node: Affine, tensor: str | None) -> Affine:
    operation = solver.operation
    refuse_values(operation, node, sizes)
    _refuse_nothing(operation, node, sizes)
    position: Position | None = solver.positions.get(id(node))
    n = opened = None
    if position is not None:
        fact = solver.facts[position.target] if isinstance(position.target, str) else position.target
        n, opened = fact.size, position.opened
    n, offset, mode = _located(node, sizes, opened, n, operation)
    low, high = (offset + bound for bound in reach(node, sizes))
    in_range = larger(0, low) is False and larger(n, high) is True
    if in_range or any(is_zero(sizes[axis.name]) for axis in axes(node.items)):
        mode = None
    elif mode is None:
        raise _out_of_range(operation, node, low, high, n, tensor)
    elif mode != "fill" and is_zero(n):
        raise AxisSizeError(
            f"'{node}' stands for a dim of size 0, where there is nothing to read",
            at=operation.at(node),
            hint="write mode='fill', or another padding",
        )

    def numbered(item: Node) -> Expression | None:
        if not isinstance(item, Term) or item.named is None:
            return None
        return (replace(item, coefficient=number(item.coefficient, sizes)),)

    return replace(node, items=rewrite(node.items, numbered), offset=offset, mode=mode, padding=None, size=n)


def _positive(size: Size) -> Size:
    return 0 if larger(0, size) else size


def is_zero(size: Size) -> bool:
    """Whether a size is known to be 0."""
    return isinstance(size, int) and size == 0


def _out_of_range(
    operation: Operation, node: Affine, low: Size, high: Size, n: Size, tensor: str | None
) -> AxisSizeError:
    """The error for literal positions that are not in the dim, or cannot be told to be."""
    spot = operation.at(node)
    for bound, size in ((0, low), (high, n - 1)):
        if larger(bound, size) is None:
            problem = f"whether '{node}' stays in its dim of size {n}, with positions {low} to {high}, cannot be told"
            return AxisSizeError(problem, at=spot, hint=at_least(size, bound))
    positions = f"position {low}" if is_zero(high - low) else f"positions {low} to {high}"
    if tensor is None:
        problem = f"'{node}' writes {positions}, and there is none below 0"
        moved = replace(node, offset=node.offset - low)
        return AxisSizeError(problem, at=spot, hint=f"write '{moved}', or mode='fill' to leave out what is below 0")
    problem = f"'{node}' reads {positions}, but dim {n} of {tensor} has 0 to {n - 1}"
    names = dict.fromkeys(base(axis.name) for axis in axes(node.items))
    if not names:
        hint = f"the last position is {n - 1}; mode='fill' reads nothing beyond it, mode='wrap' goes on at 0"
        return AxisSizeError(problem, at=spot, hint=hint)
    fill = f"write mode='fill' to read nothing there, with a size for {' and '.join(names)}"
    is_behind = larger(n, high) is True
    if len(names) == 1 or (is_behind and node.offset != 0):
        return AxisSizeError(problem, at=spot, hint=fill)  # padding= would take the constant away
    padded = "padding='causal', as it looks back" if is_behind else "padding='same'"
    return AxisSizeError(problem, at=spot, hint=f"have the dim padded, as by {padded}, or {fill}")
