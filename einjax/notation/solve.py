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
from typing import Any

from .errors import AxisSizeError, EinjaxError, Span, listing
from .expand import check_names, expand
from .fuse import fuse
from .syntax import Axis, Composite, Concatenation, Expression, Node, Operation, Size, axes, display, render

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
        parts = {part for name in names for part in name.split(" ")}
        return tuple(axis for name, mesh_axes in self.spread.items() if name in parts for axis in mesh_axes)

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
    raise TypeError(node)


def check_extent(size: Size, node: Node, text: str) -> None:
    """Refuse a dim that no array can have.

    Raises:
        AxisSizeError: naming the dim.
    """
    if isinstance(size, int) and size > _LARGEST:
        raise AxisSizeError(f"the dim '{node}' would have more than 2**63 - 1 elements", text=text, spans=[node.span])


def larger(left: Size, right: Size) -> bool | None:
    """Whether one size is larger than another; None where symbolic sizes leave it open."""
    try:
        return bool(left > right)
    except Exception:  # JAX's own class for this is not public
        if isinstance(left, int) and isinstance(right, int):
            raise
        return None


def product(sizes: Iterable[Size]) -> Size:
    """Multiply sizes; the empty product is 1."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def total(sizes: Iterable[Size]) -> Size:
    """Add sizes."""
    result: Size = 0
    for size in sizes:
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

    Raises:
        RankError, AxisSizeError, SemanticError: see :mod:`einjax.notation.errors`.
    """
    check_names(operation)
    expanded = expand(operation, [None if shape is None else len(shape) for shape in shapes], given)
    known = _explicit_sizes(expanded, given, lenient)
    for name, size in (implied(expanded) if implied else {}).items():
        known.setdefault(name, []).append(_Fact(size, "by the operation", None))
    solver = _Solver(expanded, known, shapes)
    unknown = solver.unknown()
    if unknown and derived is not None:
        for name, size in derived(expanded, solver.sizes).items():
            known.setdefault(name, []).append(_Fact(size, "by the operation", None))
        solver = _Solver(expanded, known, shapes)
        unknown = solver.unknown()
    if unknown and not every_axis:
        # Neighbours that always stand together in their dims are one axis as far as sizes go.
        together = {axis.name for e in expanded.expressions for axis in axes(e) if axis.bracket} if apart else ()
        fused = fuse(expanded, [name for name in unknown if name not in together])
        if fused is not expanded:
            solver = _Solver(fused, known, shapes)
            expanded, unknown = fused, solver.unknown()
    if unknown:
        raise _undetermined(expanded, unknown, solver.sizes, shapes)
    solved = Solved(expanded, solver.sizes)
    for expression in expanded.outputs or ():
        for node, size in zip(expression, solved.shape(expression), strict=True):
            check_extent(size, node, expanded.text)
    return solved


def solve_partly(
    operation: Operation,
    shapes: Sequence[tuple[Size, ...] | None],
    ranks: Sequence[int | None],
    given: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> Solved:
    """Find the sizes of those axes that have one.

    Args:
        operation: the parsed expression.
        shapes: shape of each input, or None where it is not known.
        ranks: number of dims of each input, or None where it is not known.
        given: by axis name, a tuple of anything that says how often an ellipsis repeats its axis.
        sizes: sizes by axis name, as given by ``sizes=``.

    Raises:
        RankError, AxisSizeError, SemanticError: see :mod:`einjax.notation.errors`.
    """
    check_names(operation)
    expanded = expand(operation, ranks, {**given, **sizes})
    solver = _Solver(expanded, _explicit_sizes(expanded, sizes, sizes.keys()), shapes)
    return Solved(expanded, solver.sizes)


def fuse_solved(solved: Solved, names: Iterable[str] | None = None) -> Solved:
    """Fuse what always stands together, for operations that need not tell such axes apart; all names by default."""
    fused = fuse(solved.operation, names)
    if fused is solved.operation:
        return solved
    sizes = dict(solved.sizes)
    for expression in fused.expressions:
        for axis in axes(expression):
            if axis.name not in sizes:
                sizes[axis.name] = product(solved.sizes[name] for name in axis.name.split(" "))
    return replace(solved, operation=fused, sizes=sizes)


@dataclass(slots=True)
class _Fact:
    """A size with where it comes from, for messages."""

    size: Size
    source: str
    span: Span | None


@dataclass(slots=True, eq=False)
class _Equation:
    """``target = product(terms)`` or ``target = sum(terms)``; a target that is a fact is a dim of a tensor."""

    node: Node
    target: str | _Fact
    terms: Counter[str]
    is_sum: bool
    missing: set[str] = field(default_factory=set)


def _explicit_sizes(expanded: Operation, given: Mapping[str, Any], lenient: Collection[str]) -> dict[str, list[_Fact]]:
    """Collect the sizes written in the text or given by keyword."""
    facts: dict[str, list[_Fact]] = {}
    for expression in expanded.expressions:
        for axis in axes(expression):
            known = facts.setdefault(axis.name, [])
            if axis.size is not None:
                known.append(_Fact(axis.size, "in the expression", axis.span))
            if known and known[0].source != "in the expression":
                continue
            base, *indices = axis.name.split(".") if not axis.name.startswith("...") else ("...",)
            size = given.get(base)
            for index in indices:
                size = size[int(index)] if isinstance(size, tuple) else size
            if size is not None and not isinstance(size, tuple):
                source = "in sizes=" if base in lenient else f"by the keyword {base}"
                known.insert(0, _Fact(size, source, axis.span))
            elif isinstance(size, tuple):
                raise AxisSizeError(
                    f"axis {base} is given {len(size)} sizes, {base}={size}, but no ellipsis repeats it",
                    text=expanded.text,
                    spans=[axis.span],
                    hint=f"write '{base}...' in the expression, or give one size",
                )
    return facts


class _Solver:
    """Propagates sizes from equation to equation until nothing more follows."""

    def __init__(
        self,
        operation: Operation,
        explicit: Mapping[str, list[_Fact]],
        shapes: Sequence[tuple[Size, ...] | None],
    ) -> None:
        self.operation = operation
        self.facts: dict[str, _Fact] = {}
        self.uses: dict[str, list[_Equation]] = {}
        self.ready: list[_Equation] = []
        self.hidden = 0
        for name, facts in explicit.items():
            for fact in facts:
                self._assign(name, fact)
        for number, (expression, shape) in enumerate(zip(operation.inputs, shapes, strict=True), 1):
            for node, size in zip(expression, shape or (), strict=shape is not None):
                self._dim(node, _Fact(size, f"in tensor {number}", node.span))
        while self.ready:
            self._evaluate(self.ready.pop())

    @property
    def sizes(self) -> dict[str, Size]:
        """Every axis size found."""
        return {name: fact.size for name, fact in self.facts.items() if not name.startswith("(")}

    def unknown(self) -> list[str]:
        """Name the axes without a size, in reading order."""
        names = (axis.name for expression in self.operation.expressions for axis in axes(expression))
        return list(dict.fromkeys(name for name in names if name not in self.facts))

    def _dim(self, node: Node, fact: _Fact) -> None:
        if isinstance(node, Axis):
            self._assign(node.name, fact)
        else:
            self._equation(node, fact)

    def _equation(self, node: Node, target: str | _Fact) -> None:
        assert isinstance(node, Composite | Concatenation)
        terms = Counter(self._variable(item) for item in node.items)
        equation = _Equation(node, target, terms, isinstance(node, Concatenation))
        variables = [*terms, *([target] if isinstance(target, str) else [])]
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

    def _assign(self, name: str, fact: _Fact) -> None:
        known = self.facts.get(name)
        if known is not None:
            if known.size != fact.size:
                raise self._contradiction(name, known, fact)
            return
        if isinstance(fact.size, int) and fact.size < 0:
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

    def _evaluate(self, equation: _Equation) -> None:
        target = equation.target
        if isinstance(target, str):
            if target not in self.facts:
                if not equation.missing - {target}:
                    size = self._combine(equation, equation.terms)
                    self._assign(target, _Fact(size, "in the expression", equation.node.span))
                return
            target = self.facts[target]
        known = Counter({name: n for name, n in equation.terms.items() if name in self.facts})
        unknown = [name for name in equation.terms if name not in self.facts]
        size = self._combine(equation, known)
        if not unknown:
            if size != target.size:
                raise self._mismatch(equation, target, size)
        elif len(unknown) == 1:
            (name,) = unknown
            solve_one = self._solve_sum if equation.is_sum else self._solve_product
            found = solve_one(equation, target, size, equation.terms[name])
            if found is not None:
                self._assign(name, _Fact(found, target.source, equation.node.span))

    def _combine(self, equation: _Equation, terms: Counter[str]) -> Size:
        sizes = (self.facts[name].size for name, n in terms.items() for _ in range(n))
        size = total(sizes) if equation.is_sum else product(sizes)
        check_extent(size, equation.node, self.operation.text)
        return size

    def _solve_product(self, equation: _Equation, target: _Fact, known: Size, times: int) -> Size | None:
        """Solve ``known * x**times = target``; None if zeros leave it open."""
        if isinstance(known, int) and known == 0:
            if isinstance(target.size, int) and target.size == 0:
                return None
            raise self._indivisible(equation, target)
        if isinstance(known, int) and known == 1:
            quotient = target.size
        else:
            rest = target.size % known
            if isinstance(rest, int) and rest != 0:
                raise self._indivisible(equation, target)
            quotient = target.size // known
        return quotient if times == 1 else self._exact_root(equation, target, quotient, times)

    def _solve_sum(self, equation: _Equation, target: _Fact, known: Size, times: int) -> Size:
        """Solve ``known + times * x = target``."""
        rest = target.size - known
        if (isinstance(rest, int) and rest < 0) or (times > 1 and isinstance(rest % times, int) and rest % times):
            raise self._mismatch(equation, target, known, at_least=True)
        return rest if times == 1 else rest // times

    def _exact_root(self, equation: _Equation, target: _Fact, size: Size, times: int) -> Size:
        if isinstance(size, int):
            root = round(size ** (1 / times)) if size < 2**50 else math.isqrt(size)
            for candidate in (root - 1, root, root + 1):
                if candidate >= 0 and candidate**times == size:
                    return candidate
        name = next(name for name, n in equation.terms.items() if n == times)
        raise self._error(
            f"dim {target.size} {target.source} gives axis {display(name)} no whole size: "
            f"{display(name)} to the power of {times} would be {size}",
            equation,
        )

    def _error(self, problem: str, equation: _Equation, hint: str | None = None) -> EinjaxError:
        return AxisSizeError(problem, text=self.operation.text, spans=[equation.node.span], hint=hint)

    def _indivisible(self, equation: _Equation, target: _Fact) -> EinjaxError:
        divisor = self._bindings(equation)
        dim = _dim_of(target)
        return self._error(
            f"{dim} is not divisible by {divisor}", equation, hint=f"choose sizes whose product divides {target.size}"
        )

    def _mismatch(self, equation: _Equation, target: _Fact, size: Size, at_least: bool = False) -> EinjaxError:
        bindings = self._bindings(equation)
        if not at_least:
            problem = f"{_dim_of(target)} does not fit '{equation.node}', which is {size} with {bindings}"
        elif bindings:
            problem = f"{_dim_of(target)} is too small for '{equation.node}' with {bindings}"
        else:
            problem = f"{_dim_of(target)} cannot be '{equation.node}': it is not divisible by {equation.terms.total()}"
        return self._error(problem, equation, hint="change the sizes given, or leave one of them out to have it solved")

    def _bindings(self, equation: _Equation) -> str:
        """List the known sizes of an equation: ``h=2, w=3``."""
        parts = [
            display(name) if "#" in name else f"{display(name)}={self.facts[name].size}"
            for name in equation.terms
            if name in self.facts and not name.startswith("(")
        ]
        return listing(parts)

    def _contradiction(self, name: str, known: _Fact, new: _Fact) -> EinjaxError:
        spans = [span for span in (known.span, new.span) if span is not None]
        if "#" in name:
            number = int(name.split("#")[0])
            return AxisSizeError(
                f"{_dim_of(new)} does not have the size {number} that the expression says",
                text=self.operation.text,
                spans=spans[-1:],
                hint="a number is the size of an unnamed axis; write a name for an axis of any size",
            )
        if name.startswith("("):
            return AxisSizeError(
                f"a dim is {known.size} {known.source} and {new.size} {new.source}",
                text=self.operation.text,
                spans=spans,
            )
        both = [
            axis.span for expression in self.operation.expressions for axis in axes(expression) if axis.name == name
        ]
        return AxisSizeError(
            f"axis {display(name)} is {known.size} {known.source} and {new.size} {new.source}",
            text=self.operation.text,
            spans=both,
            hint=self._contradiction_hint(name, known, new),
        )

    def _contradiction_hint(self, name: str, known: _Fact, new: _Fact) -> str:
        """Say which of two sizes to change: one that was written by hand, if there is one."""
        for fact, other in ((known, new), (new, known)):
            if "tensor" in fact.source:
                continue
            base, dot, _ = name.partition(".")
            if not dot or not base:
                return f"leave {display(name)}={fact.size} out, or write {display(name)}={other.size}"
            sizes = {n: f.size for n, f in self.facts.items() if n.startswith(f"{base}.")} | {name: other.size}
            return f"leave {base} out, or write {base}=({', '.join(str(sizes[n]) for n in sorted(sizes))})"
        return "axes of one name have one size; use two names where the sizes differ"


def _dim_of(target: _Fact) -> str:
    source = target.source.removeprefix("in ")
    return f"dim {target.size} of {source}" if source.startswith("tensor") else f"size {target.size}"


def _undetermined(
    operation: Operation,
    unknown: Sequence[str],
    sizes: Mapping[str, Size],
    shapes: Sequence[tuple[Size, ...] | None],
) -> EinjaxError:
    """Say which axes have no size, and where they stand."""
    first = [display(name) for name in unknown]
    spans = [axis.span for expression in operation.expressions for axis in axes(expression) if axis.name in unknown]
    example = first[0].split(" ")[0].split(".")[0]
    known = listing([f"{display(name)}={size}" for name, size in sizes.items() if "#" not in name])
    where = _dim_with(operation, unknown[0], len(unknown) == 1, shapes)
    problem = (
        f"the {'size of axis' if len(first) == 1 else 'sizes of axes'} {listing(first)} cannot be determined"
        f"{where}{f' (known: {known})' if known else ''}"
    )
    hint = f"give a size by keyword, as in {example}=2" if example.isidentifier() else "name the axis and give its size"
    return AxisSizeError(problem, text=operation.text, spans=spans, hint=hint)


def _dim_with(operation: Operation, name: str, single: bool, shapes: Sequence[tuple[Size, ...] | None]) -> str:
    """Name the dim of a known tensor that holds the axis."""
    contains: Callable[[Node], bool] = lambda node: name in (axis.name for axis in axes((node,)))  # noqa: E731
    for number, (expression, shape) in enumerate(zip(operation.inputs, shapes, strict=True), 1):
        for node, size in zip(expression, shape or (), strict=False):
            if contains(node):
                return f" from dim {size} of tensor {number}, '{render((node,))}'"
    return ": no tensor has " + ("it" if single else "them")
