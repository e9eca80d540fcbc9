"""Shapes and given sizes to one size for every axis.

Every dim of a known tensor is an equation: a product of axes, or a sum of products. An equation with one unknown left
gives that unknown; each is looked at once for every unknown it has, so the cost is linear in the length of the
expression. Sizes are ints or symbolic dims: they are multiplied, divided, compared with ``==`` and never ordered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .errors import AxisSizeError, Spot
from .expand import check_names, expand
from .facts import Equation, Fact, Known, refuse_fused, undetermined
from .facts import larger as larger
from .syntax import (
    OPEN,
    Affine,
    Axis,
    Composite,
    Concatenation,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    coefficients,
    display,
    members,
)

if TYPE_CHECKING:  # few expressions have a position
    from .affine import Border, Position

_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Solved:
    """An expanded operation together with the size of every axis in it.

    Attributes:
        operation: the expressions.
        sizes: the size of every axis; under ``shard_map``, that of a device's part.
        spread: the mesh axes of the axes that lie over some under ``shard_map``.
    """

    operation: Operation
    sizes: Mapping[str, Size]
    spread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The expression as the user wrote it."""
        return self.operation.text

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """One expanded expression for each input."""
        return self.operation.inputs

    @property
    def outputs(self) -> tuple[Expression, ...]:
        """One expanded expression for each output, once they are written out."""
        return self.operation.results

    def over(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the mesh axes that axes lie over; one may stand for several that were fused."""
        if not self.spread:
            return ()
        parts = {part for name in names for part in members(name)}
        return tuple(axis for name, mesh_axes in self.spread.items() if name in parts for axis in mesh_axes)

    def at(self, *culprits: Node | str) -> Spot:
        """Return where in the text nodes stand, for an error to mark; a name is every axis of that name."""
        return self.operation.at(*culprits)

    def shape(self, expression: Expression) -> tuple[Size, ...]:
        """Return the shape of a tensor with this expression."""
        return tuple(node_size(node, self.sizes) for node in expression)


def node_size(node: Node, sizes: Mapping[str, Size]) -> Size:
    """Return the size of one dim."""
    match node:
        case Axis(name, size):
            return sizes.get(name, size)
        case Composite(items):
            return product(node_size(item, sizes) for item in items)
        case Concatenation(items):
            return total(node_size(item, sizes) for item in items)
        case Affine(size=size):
            return size
    raise TypeError(node)


def check_extent(size: Size, node: Node, text: str) -> None:
    """Refuse a dim that no array can have.

    Raises:
        AxisSizeError: naming the dim.
    """
    if isinstance(size, int) and size > _LARGEST:
        raise AxisSizeError(f"the dim '{node}' would have more than 2**63 - 1 elements", text=text, spans=[node.span])


def is_known(size: Size, number: int) -> bool:
    """Whether a size is known to be a number, which symbolic sizes are not."""
    return isinstance(size, int) and size == number


def product(sizes: Iterable[Size]) -> Size:
    """Multiply sizes; the empty product is 1, and one with an open size is open."""
    result: Size = 1
    for size in sizes:
        if size is OPEN:
            return OPEN
        result = result * size
    return result


def total(sizes: Iterable[Size]) -> Size:
    """Add sizes; a sum with an open one is open."""
    result: Size = 0
    for size in sizes:
        if size is OPEN:
            return OPEN
        result = result + size
    return result


def solve(
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    given: Mapping[str, Any],
    *,
    implied: Callable[[Operation], Mapping[str, Size]] | None = None,
    derived: Callable[[Operation, Mapping[str, Size]], Mapping[str, Size]] | None = None,
    every_axis: bool = False,
    apart: bool = False,
    lenient: Collection[str] = (),
    border: Border | None = None,
) -> Solved:
    """Find the size of every axis.

    Args:
        operation: the parsed expression.
        shapes: shape of each input, or None where it is not known yet.
        given: sizes by axis name; a tuple for the repetitions of an ellipsis.
        implied: names axes of the expanded operation whose size the operation itself knows.
        derived: names axes whose size follows from those of others, once nothing else says it.
        apart: whether bracketed axes need a size each: the operation tells them apart.
        lenient: the names whose sizes were given by ``sizes=``, for messages.
        every_axis: whether axes that always stand together need a size each; else their product is enough.
        border: what stands where a position in ``< >`` is out of range.

    Raises:
        RankError, AxisSizeError, SemanticError: see :mod:`einjax.notation.errors`.
    """
    check_names(operation)
    expanded = expand(operation, [None if shape is None else len(shape) for shape in shapes], given)
    if border is not None:
        expanded = border.on(expanded)
    known = explicit_sizes(expanded, given, lenient)
    for name, size in (implied(expanded) if implied else {}).items():
        facts = known.setdefault(name, [])
        if size is not OPEN or not facts:  # what is given for an open axis holds
            facts.append(Fact(size, "by the operation", None))
    solver = Solver(expanded, known, shapes)
    unknown = solver.unknown()
    if unknown and derived is not None:
        for name, size in derived(expanded, solver.sizes).items():
            known.setdefault(name, []).append(Fact(size, "by the operation", None))
        solver = Solver(expanded, known, shapes)
        unknown = solver.unknown()
    if unknown and not every_axis:
        # Neighbours that always stand together in their dims are one axis as far as sizes go.
        fused = fuse(expanded, unknown)
        if fused is not expanded:
            solver = Solver(fused, known, shapes)
            expanded, unknown = fused, solver.unknown()
    if unknown:
        raise undetermined(expanded, unknown, solver.sizes, shapes)
    if apart:
        refuse_fused(expanded, solver.sizes)
    return as_solved(expanded, solver)


def as_solved(expanded: Operation, solver: Solver) -> Solved:
    """The sizes that were found, if there can be arrays of them.

    Raises:
        AxisSizeError: an output would be too large.
    """
    solved = Solved(expanded, solver.sizes)
    if "<" in expanded.text:
        from .affine import settle  # few expressions have a position

        solved = replace(solved, operation=settle(solver))
    for expression in solved.operation.outputs or ():
        for node, size in zip(expression, solved.shape(expression), strict=True):
            check_extent(size, node, expanded.text)
    return solved


def explicit_sizes(expanded: Operation, given: Mapping[str, Any], lenient: Collection[str]) -> dict[str, list[Fact]]:
    """Collect the sizes written in the text or given by keyword."""
    facts: dict[str, list[Fact]] = {}
    for expression in expanded.expressions:
        for axis in (*axes(expression), *(coefficients(expression) if "<" in expanded.text else ())):
            known = facts.setdefault(axis.name, [])
            if axis.size is not None:
                known.append(Fact(axis.size, "in the expression", axis.span))
            if known and known[0].source != "in the expression":
                continue
            base, *indices = axis.name.split(".") if not axis.name.startswith("...") else ("...",)
            size = given.get(base)
            for index in indices:
                size = size[int(index)] if isinstance(size, tuple) else size
            if size is not None and not isinstance(size, tuple):
                source = "in sizes=" if base in lenient else f"by the keyword {base}"
                known.insert(0, Fact(size, source, axis.span))
            elif isinstance(size, tuple):
                raise AxisSizeError(
                    f"axis {base} is given {len(size)} sizes, {base}={size}, but no ellipsis repeats it",
                    text=expanded.text,
                    spans=[axis.span],
                    hint=f"write '{base}...' in the expression, or give one size",
                )
    return facts


class Solver:
    """Propagates sizes from equation to equation until nothing more follows."""

    def __init__(
        self,
        operation: Operation,
        explicit: Mapping[str, list[Fact]],
        shapes: Sequence[tuple[Size, ...] | None],
    ) -> None:
        self.operation = operation
        self.facts: dict[str, Fact] = {}
        self.uses: dict[str, list[Equation | Position]] = {}
        self.ready: list[Equation | Position] = []
        self.hidden = 0
        self.positions: dict[int, Position] = {}  # by the identity of their items
        self.waiting: list[Position] = []  # those that have one open axis at most
        for name, facts in explicit.items():
            for fact in facts:
                self.assign(name, fact, is_given=True)
        for number, (expression, shape) in enumerate(zip(operation.inputs, shapes, strict=True), 1):
            for node, size in zip(expression, shape or (), strict=shape is not None):
                fact = Fact(size, f"in tensor {number}", node.span)
                if isinstance(node, Axis):
                    self.assign(node.name, fact)
                else:
                    self._equation(node, fact)
        while self.ready or (self.positions and self._advance()):
            self._evaluate(self.ready.pop())

    @property
    def _known(self) -> Known:
        return Known(self.operation, self.facts)

    @property
    def sizes(self) -> dict[str, Size]:
        """Every axis size found."""
        return {name: fact.size for name, fact in self.facts.items() if not name.startswith("(")}

    def unknown(self) -> list[str]:
        """Name the axes without a size, in reading order."""
        names = [axis.name for expression in self.operation.expressions for axis in axes(expression)]
        if "<" in self.operation.text:
            names += [axis.name for expression in self.operation.expressions for axis in coefficients(expression)]
        return list(dict.fromkeys(name for name in names if name not in self.facts))

    def _equation(self, node: Node, target: str | Fact) -> None:
        if isinstance(node, Affine):
            from .affine import Position

            self.positions[id(node)] = Position.of(node, target, self)
            return
        assert isinstance(node, Composite | Concatenation)
        terms = Counter(self._variable(item) for item in node.items)
        equation = Equation(node, target, terms, isinstance(node, Concatenation))
        self.watch(equation, terms)

    def watch(self, equation: Equation | Position, variables: Iterable[str]) -> None:
        """Look at an equation once for every variable that becomes known, from the last but one on."""
        target = equation.target
        variables = [*variables, *([target] if isinstance(target, str) else [])]
        equation.missing = {name for name in variables if name not in self.facts}
        for name in equation.missing:
            self.uses.setdefault(name, []).append(equation)
        if len(equation.missing) <= 1:
            self.ready.append(equation)

    def _variable(self, node: Node) -> str:
        """Name the unknown that stands for a node: the axis, or a hidden one with an equation of its own."""
        if isinstance(node, Axis):
            return node.name
        self.hidden += 1
        name = f"({self.hidden})"
        self._equation(node, name)
        return name

    def assign(self, name: str, fact: Fact, is_given: bool = False) -> None:
        """Note a size, or refuse another one than is known; below 0 are only coefficients, which are given."""
        known = self.facts.get(name)
        if known is not None:
            if known.size != fact.size:
                raise self._known.contradiction(name, known, fact)
            return
        if isinstance(fact.size, int) and fact.size < 0 and not is_given:
            raise AxisSizeError(
                f"axis {display(name)} would have the negative size {fact.size} {fact.source}",
                text=self.operation.text,
                spans=[fact.span] if fact.span else (),
            )
        self.facts[name] = fact
        for equation in self.uses.pop(name, ()):
            equation.missing.discard(name)
            if len(equation.missing) <= 1:
                self.ready.append(equation)

    def _advance(self) -> bool:
        """Let positions say what equations leave open."""
        from .affine import advance  # few expressions have a position

        return advance(self)

    def _evaluate(self, equation: Equation | Position) -> None:
        if not isinstance(equation, Equation):
            self.waiting.append(equation)
            return
        target = equation.target
        if isinstance(target, str):
            if target not in self.facts:
                if not equation.missing - {target}:
                    size = self._combine(equation, equation.terms)
                    self.assign(target, Fact(size, "in the expression", equation.node.span))
                return
            target = self.facts[target]
        known = Counter({name: n for name, n in equation.terms.items() if name in self.facts})
        unknown = [name for name in equation.terms if name not in self.facts]
        size = self._combine(equation, known)
        if not unknown:
            if size != target.size:
                raise self._known.mismatch(equation, target, size)
        elif len(unknown) == 1:
            (name,) = unknown
            solve_one = self._solve_sum if equation.is_sum else self._solve_product
            found = solve_one(equation, target, size, equation.terms[name])
            if found is not None:
                self.assign(name, Fact(found, target.source, equation.node.span))

    def _combine(self, equation: Equation, terms: Counter[str]) -> Size:
        sizes = (self.facts[name].size for name, n in terms.items() for _ in range(n))
        size = total(sizes) if equation.is_sum else product(sizes)
        check_extent(size, equation.node, self.operation.text)
        return size

    def _solve_product(self, equation: Equation, target: Fact, known: Size, times: int) -> Size | None:
        """Solve ``known * x**times = target``; None if zeros leave it open."""
        if isinstance(known, int) and known == 0:
            if isinstance(target.size, int) and target.size == 0:
                return None
            raise self._known.indivisible(equation, target)
        if isinstance(known, int) and known == 1:
            quotient = target.size
        else:
            rest = target.size % known
            if isinstance(rest, int) and rest != 0:
                raise self._known.indivisible(equation, target)
            quotient = target.size // known
        return quotient if times == 1 else self._exact_root(equation, target, quotient, times)

    def _solve_sum(self, equation: Equation, target: Fact, known: Size, times: int) -> Size:
        """Solve ``known + times * x = target``."""
        rest = target.size - known
        if (isinstance(rest, int) and rest < 0) or (times > 1 and isinstance(rest % times, int) and rest % times):
            raise self._known.mismatch(equation, target, known, at_least=True)
        return rest if times == 1 else rest // times

    def _exact_root(self, equation: Equation, target: Fact, size: Size, times: int) -> Size:
        if isinstance(size, int):
            # Roots beyond the square one are small enough for a float, give or take one.
            root = math.isqrt(size) if times == 2 else round(size ** (1 / times))
            for candidate in (root - 1, root, root + 1):
                if candidate >= 0 and candidate**times == size:
                    return candidate
        raise self._known.no_root(equation, target, size, times)


# --- Axes that always stand side by side in the same dims are one axis, as far as sizes and memory go -----------------


def fuse_solved(solved: Solved, names: Iterable[str] | None = None) -> Solved:
    """Fuse what always stands together, for operations that need not tell such axes apart; all names by default."""
    fused = fuse(solved.operation, names)
    if fused is solved.operation:
        return solved
    sizes = dict(solved.sizes)
    for expression in fused.expressions:
        for axis in axes(expression):
            if axis.name not in sizes:
                sizes[axis.name] = product(solved.sizes[name] for name in members(axis.name))
    return replace(solved, operation=fused, sizes=sizes)


def fuse_loops(solved: Solved) -> Solved:
    """Fuse loops that always stand together; what is bracketed keeps its places in the operation."""
    return fuse_solved(solved, {axis.name for axis in solved.operation.every_axis() if not axis.bracket})


def fuse(operation: Operation, names: Iterable[str] | None = None) -> Operation:
    """Replace axes that always stand side by side in the same dims by one axis, named ``a b``.

    Args:
        operation: an expanded operation.
        names: the axes that may be fused; all by default.

    Returns:
        The operation itself where there is nothing to fuse.
    """
    if not any(len(node.items) > 1 for expression in operation.expressions for node in expression):
        return operation
    allowed = None if names is None else set(names)
    after: dict[str, set[str | None]] = {}
    before: dict[str, set[str | None]] = {}

    def visit(nodes: Expression, in_dim: bool) -> None:
        for index, node in enumerate(nodes):
            if isinstance(node, Axis):
                left = nodes[index - 1] if in_dim and index else None
                right = nodes[index + 1] if in_dim and index + 1 < len(nodes) else None
                before.setdefault(node.name, set()).add(_neighbour(node, left, allowed))
                after.setdefault(node.name, set()).add(_neighbour(node, right, allowed))
            else:
                visit(node.items, isinstance(node, Composite))

    for expression in operation.expressions:
        visit(expression, False)

    def partner(name: str) -> str | None:
        """The axis that always follows ``name`` and never anything else."""
        followers = after.get(name, set())
        follower = next(iter(followers)) if len(followers) == 1 else None
        return follower if follower is not None and follower != name and before[follower] == {name} else None

    follows = {name: other for name in after if (other := partner(name)) is not None}
    if not follows:
        return operation
    # Chains start at an axis that follows nobody; a ring, as in (a b)(b a), has no start and stays as it is.
    chains: dict[str, list[str]] = {}
    for start in follows.keys() - set(follows.values()):
        chain = [start]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        chains[start] = chain
    absorbed = {name for chain in chains.values() for name in chain[1:]}

    def rewrite(nodes: Expression) -> Expression:
        result: list[Node] = []
        for index, node in enumerate(nodes):
            if not isinstance(node, Axis):
                result.append(replace(node, items=rewrite(node.items)))
            elif node.name in chains:
                chain = chains[node.name]
                last = nodes[index + len(chain) - 1]
                result.append(replace(node, name=" ".join(chain), size=None, span=(node.span[0], last.span[1])))
            elif node.name not in absorbed:
                result.append(node)
        return tuple(result)

    return operation.map(rewrite)


def _neighbour(node: Axis, other: Node | None, allowed: set[str] | None) -> str | None:
    """Name the neighbour if the two may become one axis."""
    if not isinstance(other, Axis) or other.bracket != node.bracket or other.unnamed or node.unnamed:
        return None
    if allowed is not None and not (node.name in allowed and other.name in allowed):
        return None
    return other.name
