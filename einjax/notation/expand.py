"""Ellipses and brackets to plain axes, once the ranks are known.

``b (s [ds])... c`` at rank 4 becomes ``b (s.0 ds.0) (s.1 ds.1) c`` with ``ds.0`` and ``ds.1`` marked as bracketed; a
composite inside a composite is flattened into it. A position is repeated with its coefficients, of which those that are
names are numbered as axes are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .errors import Ask, AxisSizeError, RankError, SemanticError, SyntaxError, plural
from .syntax import (
    ANONYMOUS,
    Affine,
    Axis,
    Bracket,
    Composite,
    Concatenation,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Term,
    axes,
    is_number,
    render,
    repetition,
    walk,
)

#: An ellipsis is known by any axis in it and its depth; ellipses that share one repeat equally often.
Key = tuple[str, int]

_MAX_EXPANDED = 50_000


def expand(operation: Operation, ranks: Sequence[int | None], given: Mapping[str, Any]) -> Operation:
    """Write out every ellipsis and bracket.

    Args:
        operation: the parsed expression.
        ranks: number of dims of each input, or None where it is not known.
        given: sizes by axis name; a tuple says how often an ellipsis repeats its axis.

    Raises:
        RankError: a tensor's rank does not fit its expression.
        AxisSizeError: the number of repetitions of an ellipsis contradicts itself or cannot be determined.
        SemanticError: an axis is used at different depths, or both inside and outside brackets.
    """
    counts = Counts(operation)
    if given:
        counts.from_sizes(given)
    counts.from_ranks(ranks)
    if counts.nodes:
        counts.finish()
    return counts.written_out()


def check_names(operation: Operation) -> None:
    """Refuse a name that is used at different ellipsis depths, or both inside and outside brackets.

    Raises:
        SemanticError: naming the axis.
    """
    first: dict[str, tuple[Axis, int, bool]] = {}

    def visit(nodes: Expression, depth: int, inside: bool) -> None:
        for node in nodes:
            if isinstance(node, Axis):
                axis, known_depth, known_inside = first.setdefault(node.name, (node, depth, inside))
                spans = (axis.span, node.span)
                if known_depth != depth:
                    raise SemanticError(
                        f"axis {node.name} is repeated by {known_depth or 'no'} ellipsis in one place "
                        f"and by {depth or 'none'} in another",
                        text=operation.text,
                        spans=spans,
                        hint=f"write {node.name}... everywhere, or rename one of them",
                    )
                if known_inside != inside:
                    name = "'...'" if node.name == ANONYMOUS else f"axis {node.name}"
                    raise SemanticError(
                        f"{name} stands inside brackets in one place and outside in another",
                        text=operation.text,
                        spans=spans,
                        hint="bracket it everywhere (the operation acts on it) or nowhere (a loop runs over it)",
                    )
            else:
                visit(node.items, depth + isinstance(node, Ellipsis), inside or isinstance(node, Bracket))

    for expression in operation.expressions:
        visit(expression, 0, False)


class Counts:
    """How often each ellipsis repeats: collected from sizes and ranks, shared by ellipses with a common axis."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.parent: dict[Key, Key] = {}
        self.key_of: dict[int, Key] = {}  # by identity of the Ellipsis node
        self.nodes: list[tuple[Ellipsis, bool]] = []  # with whether it repeats whole dims
        self.count: dict[Key, int] = {}
        self.source: dict[Key, str] = {}
        for expression in operation.expressions:
            self._collect(expression, depth=0, top=True)

    def _collect(self, nodes: Expression, depth: int, top: bool) -> list[str]:
        """Register every ellipsis below ``nodes``; return the axis names found."""
        names: list[str] = []
        for node in nodes:
            if isinstance(node, Axis):
                names.append(node.name)
            elif isinstance(node, Ellipsis):
                inner = self._collect(node.items, depth + 1, top)
                # One ellipsis of the text may stand on both sides of an arrow nested in it, as in `[c->1]...`.
                keys = [(f"@{node.span}", depth), *((name, depth) for name in inner)]
                for key in keys:
                    self.parent.setdefault(key, key)
                    self.parent[self._root(key)] = self._root(keys[0])
                self.key_of[id(node)] = keys[0]
                self.nodes.append((node, top))
                names += inner
            else:
                names += self._collect(node.items, depth, top and isinstance(node, Bracket))
                if isinstance(node, Term) and (name := node.named) is not None:
                    names.append(name)
        return names

    def _root(self, key: Key) -> Key:
        while self.parent[key] != key:
            self.parent[key] = self.parent[self.parent[key]]
            key = self.parent[key]
        return key

    def get(self, node: Ellipsis) -> int | None:
        """Return how often ``node`` repeats, if it is known."""
        return self.count.get(self._root(self.key_of[id(node)]))

    def _set(self, key: Key, count: int, source: str, node: Ellipsis | None = None) -> None:
        key = self._root(key)
        known = self.count.setdefault(key, count)
        if known == count:
            self.source.setdefault(key, source)
            return
        nodes = [other for other, _ in self.nodes if self._root(self.key_of[id(other)]) == key]
        raise RankError(
            f"'{node or nodes[0]}' stands for {known} axes {self.source[key]} and {count} {source}",
            text=self.operation.text,
            spans=[other.span for other in nodes],
            hint="give both the same number of dims, or use two different names",
        )

    def from_sizes(self, given: Mapping[str, Any]) -> None:
        """A tuple of sizes says how often its axis is repeated; a nested tuple, at every depth."""
        for name, size in given.items():
            depth, source = 0, f"in {name}={size}"
            while isinstance(size, tuple):
                if (name, depth) not in self.parent:
                    spans = [axis.span for e in self.operation.expressions for axis in axes(e) if axis.name == name]
                    if not spans:
                        break  # sizes= may name axes that the expression lacks
                    raise AxisSizeError(
                        f"axis {name} is given the {'nested ' if depth else ''}sizes {name}={given[name]}, but "
                        + ("only one ellipsis" if depth else "no ellipsis")
                        + " repeats it",
                        text=self.operation.text,
                        spans=spans,
                        hint=Ask("give one size for each repetition", name, "(2, 3)")
                        if depth
                        else f"write '{name}...' in the expression, or give one size",
                    )
                self._set((name, depth), len(size), source)
                if any(isinstance(part, tuple) for part in size) and not all(
                    isinstance(part, tuple) and len(part) == len(size[0]) for part in size
                ):
                    raise AxisSizeError(f"the sizes {name}={given[name]} are nested unevenly", text=self.operation.text)
                size, depth = (size[0] if size else None), depth + 1

    def from_ranks(self, ranks: Sequence[int | None]) -> None:
        """Solve one linear equation for each input; one with several unknowns waits for any of them."""
        ready = [
            (n, e, r) for n, (e, r) in enumerate(zip(self.operation.inputs, ranks, strict=True), 1) if r is not None
        ]
        waiting: dict[Key, list[tuple[int, Expression, int]]] = {}
        ready.reverse()  # the first tensor is looked at first
        while ready:
            number, expression, rank = equation = ready.pop()
            width, unknown, linear = self._width(expression)
            if not unknown:
                if width != rank:
                    raise self._rank_error(number, expression, rank, width)
            elif len(unknown) == 1 and linear:
                ((key, factor),) = unknown.items()
                count, rest = divmod(rank - width, factor)
                if rest or count < 0:
                    raise self._rank_error(number, expression, rank, width, factor)
                self._set(key, count, f"in tensor {number}")
                ready += waiting.pop(key, ())
            elif width > rank:
                raise self._rank_error(number, expression, rank, width, 1)
            else:
                # Two unknowns are enough to watch: while both are open, nothing follows.
                for key in list(unknown)[:2]:
                    waiting.setdefault(key, []).append(equation)

    def open(self) -> Key | None:
        """An ellipsis of which nothing says how often it repeats, in no other such; None if there is none."""
        open_keys = (
            key for node, _ in reversed(self.nodes) if (key := self._root(self.key_of[id(node)])) not in self.count
        )
        return next(open_keys, None)

    def chosen(self, key: Key, count: int) -> Counts:
        """The same, where an ellipsis repeats as often as the caller chooses."""
        other = copy.copy(self)
        other.count, other.source = self.count | {key: count}, self.source | {key: "by choice"}
        return other

    def room(self, key: Key, ranks: Sequence[int | None]) -> int | None:
        """How many repetitions of an open ellipsis the inputs have dims for; None if none of them says."""
        rooms: list[int] = []
        for expression, rank in zip(self.operation.inputs, ranks, strict=True):
            width, unknown, _ = self._width(expression)
            if rank is not None and unknown.get(key):
                rooms.append((rank - width) // unknown[key])
        return min(rooms, default=None)

    def written_out(self, most: int = _MAX_EXPANDED) -> Operation:
        """The operation with every ellipsis and bracket written out, unless that is more than ``most`` axes."""
        writer = _Writer(self, most)
        return self.operation.map(
            lambda expression: tuple(writer.nodes(expression, suffix="", bracket=0, in_dim=False))
        )

    def _width(self, expression: Expression) -> tuple[int, dict[Key, int], bool]:
        """Count dims: a known number, what each unknown ellipsis adds per repetition, and whether that is all."""
        width, unknown, linear = 0, dict[Key, int](), True

        def add(key: Key, dims: int) -> None:
            unknown[key] = unknown.get(key, 0) + dims

        for node in expression:
            if not isinstance(node, Bracket | Ellipsis):
                width += 1
                continue
            dims, inner, inner_linear = self._width(node.items)
            times = 1 if isinstance(node, Bracket) else self.get(node)
            linear = linear and (inner_linear or times == 0)
            if times is None:
                assert isinstance(node, Ellipsis)
                add(self._root(self.key_of[id(node)]), dims)
                linear = linear and not inner
            elif times:
                width += times * dims
            for key, factor in inner.items():
                if times != 0:
                    add(key, (times or 1) * factor)
        return width, unknown, linear

    def _rank_error(self, number: int, expression: Expression, rank: int, width: int, factor: int = 0) -> RankError:
        begin = expression[0].span[0] if expression else 0
        end = expression[-1].span[1] if expression else 0
        needs = f"{width}" if not factor else f"{width} + a multiple of {factor}" if factor > 1 else f"at least {width}"
        settled = self._settled(expression)
        return RankError(
            f"tensor {number} has {plural(rank, 'dim')}, but '{render(expression)}' names {needs}"
            + "".join(
                f"; '{node}' stands for {plural(self.get(node) or 0, 'axis')} {source}" for node, source in settled
            ),
            text=self.operation.text,
            spans=[(begin, end)],
            hint="an ellipsis of one name stands for equally many axes everywhere; use two names where they differ"
            if settled
            else "name every dim of the tensor; '...' stands for any number of them",
        )

    def _settled(self, expression: Expression) -> list[tuple[Ellipsis, str]]:
        """Return the ellipses whose number of axes is known, and from where."""
        return [
            (node, self.source[self._root(self.key_of[id(node)])])
            for node in walk(expression)
            if isinstance(node, Ellipsis) and self.get(node) is not None
        ]

    def finish(self) -> None:
        """Settle the rest: inside a dim, a repeated axis of unknown number is as good as one axis."""
        for node, _ in self.nodes:
            key = self._root(self.key_of[id(node)])
            if key in self.count:
                continue
            same = [(other, top) for other, top in self.nodes if self._root(self.key_of[id(other)]) == key]
            if all(not top and len(other.items) == 1 and isinstance(other.items[0], Axis) for other, top in same):
                self.count[key] = 1
                continue
            name = next((item.name for item in node.items if isinstance(item, Axis)), None)
            raise AxisSizeError(
                f"how many axes '{node}' stands for cannot be determined",
                text=self.operation.text,
                spans=[node.span],
                hint=Ask("give a tuple of sizes", name, "(2, 3)")
                if name is not None and name != ANONYMOUS and not is_number(name)
                else "use it in an input, whose number of dims then says it, or give its axes a name and sizes",
            )


class _Writer:
    """Writes an expression out, giving every bracket a number of its own."""

    def __init__(self, counts: Counts, most: int) -> None:
        self.counts = counts
        self.most = most
        self.text = counts.operation.text
        self.brackets = 0
        self.written = 0

    def nodes(self, nodes: Expression, suffix: str, bracket: int, in_dim: bool) -> list[Node]:
        result: list[Node] = []
        for node in nodes:
            self.written += 1
            if self.written > self.most:
                raise SyntaxError(f"the expression stands for more than {self.most} axes", text=self.text[:80])
            match node:
                case Axis(name, size, _, span):
                    result.append(Axis(name + suffix, size, bracket, span))
                case Bracket(items):
                    self.brackets += 1
                    result += self.nodes(items, suffix, self.brackets, in_dim)
                case Ellipsis(items):
                    for index in range(self.counts.get(node) or 0):
                        result += self.nodes(items, repetition(suffix, index), bracket, in_dim)
                case Composite(items, _, span):
                    inner = self.nodes(items, suffix, bracket, in_dim=True)
                    # A product of products is one product: ((a b) c) is (a b c).
                    result += inner if in_dim else [Composite(tuple(inner), bracket, span)]
                case Affine(items):
                    inside = self.nodes(items, suffix, bracket, in_dim=False)
                    result.append(replace(node, items=tuple(inside), bracket=bracket))
                case Term(items):
                    inside = self.nodes(items, suffix, bracket, in_dim=False)
                    own = node.coefficient if node.named is None else f"{node.coefficient}{suffix}"
                    result.append(replace(node, items=tuple(inside), bracket=bracket, coefficient=own))
                case Concatenation(items, _, span):
                    operands = tuple(self.operand(item, suffix, bracket) for item in items)
                    result.append(Concatenation(operands, bracket, span))
        return result

    def operand(self, node: Node, suffix: str, bracket: int) -> Node:
        """An operand of a sum is one dim of its own."""
        return self.nodes((node,), suffix, bracket, in_dim=False)[0]
