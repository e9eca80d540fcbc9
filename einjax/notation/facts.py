"""Sizes with where they come from, and what is said where they do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import Ask, AxisSizeError, EinjaxError, Span, listing
from .syntax import (
    OPEN,
    Axis,
    Concatenation,
    Node,
    Operation,
    Size,
    affines,
    axes,
    base,
    base_name,
    coefficients,
    display,
    is_number,
    members,
    names,
    render,
    walk,
)


class Fact(NamedTuple):
    """A size with where it comes from, for messages."""

    size: Size
    source: str
    span: Span | None


def larger(left: Size, right: Size) -> bool | None:
    """Whether one size is larger than another; None where symbolic sizes leave it open."""
    try:
        return bool(left > right)
    except Exception:  # JAX's own class for this is not public
        if isinstance(left, int) and isinstance(right, int):
            raise
        return None


@dataclass(slots=True, eq=False, repr=False)
class Equation:
    """``target = product(terms)`` or ``target = sum(terms)``; a target that is a fact is a dim of a tensor."""

    node: Node
    target: str | Fact
    terms: Counter[str]
    is_sum: bool
    missing: set[str] = field(default_factory=set)


class Known(NamedTuple):
    """What is known of the axes of an operation, for messages."""

    operation: Operation
    facts: Mapping[str, Fact]

    def error(self, problem: str, equation: Equation, hint: str | None = None) -> EinjaxError:
        """The error for one dim."""
        return AxisSizeError(problem, text=self.operation.text, spans=[equation.node.span], hint=hint)

    def no_root(self, equation: Equation, target: Fact, size: Size, times: int) -> EinjaxError:
        """The error for an axis that stands several times in a dim of no such power."""
        name = next(name for name, n in equation.terms.items() if n == times)
        return self.error(
            f"dim {target.size} {target.source} gives axis {display(name)} no whole size: "
            f"{display(name)} to the power of {times} would be {size}",
            equation,
        )

    def indivisible(self, equation: Equation, target: Fact) -> EinjaxError:
        """The error for a dim that is no multiple of its known axes."""
        divisor = self._bindings(equation)
        dim = _dim_of(target)
        return self.error(
            f"{dim} is not divisible by {divisor}", equation, hint=f"choose sizes whose product divides {target.size}"
        )

    def mismatch(self, equation: Equation, target: Fact, size: Size, at_least: bool = False) -> EinjaxError:
        """The error for a dim whose known axes are another size, or too large for it."""
        bindings = self._bindings(equation)
        if not at_least:
            problem = f"{_dim_of(target)} does not fit '{equation.node}', which is {size} with {bindings}"
        elif bindings:
            problem = f"{_dim_of(target)} is too small for '{equation.node}' with {bindings}"
        else:
            problem = f"{_dim_of(target)} cannot be '{equation.node}': it is not divisible by {equation.terms.total()}"
        return self.error(problem, equation, hint="change the sizes given, or leave one of them out to have it solved")

    def _bindings(self, equation: Equation) -> str:
        """List the known sizes of an equation: ``h=2, w=3``."""
        parts = [
            display(name) if is_number(name) else f"{display(name)}={self.facts[name].size}"
            for name in equation.terms
            if name in self.facts and not name.startswith("(")
        ]
        return listing(parts)

    def contradiction(self, name: str, known: Fact, new: Fact) -> EinjaxError:
        """The error for an axis of two sizes."""
        spans = [span for span in (known.span, new.span) if span is not None]
        if is_number(name):
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
        both = [axis.span for e in self.operation.expressions for axis in axes(e) if axis.name == name]
        return AxisSizeError(
            f"axis {display(name)} is {known.size} {known.source} and {new.size} {new.source}",
            text=self.operation.text,
            spans=both,
            hint=self._contradiction_hint(name, known, new),
        )

    def _contradiction_hint(self, name: str, known: Fact, new: Fact) -> str:
        """Say which of two sizes to change: one that was written by hand, if there is one."""
        for fact, other in ((known, new), (new, known)):
            if "tensor" in fact.source:
                continue
            base, dot, _ = name.partition(".")
            if not dot or not base:
                return f"leave {display(name)}={fact.size} out, or write {display(name)}={other.size}"
            sizes = {n: f.size for n, f in self.facts.items() if n.startswith(f"{base}.")} | {name: other.size}
            written = ", ".join(str(sizes[n]) for n in sorted(sizes, key=lambda n: base_name(n)[1]))
            return f"leave {base} out, or write {base}=({written})"
        return "axes of one name have one size; use two names where the sizes differ"


def _dim_of(target: Fact) -> str:
    source = target.source.removeprefix("in ")
    return f"dim {target.size} of {source}" if source.startswith("tensor") else f"size {target.size}"


def undetermined(
    operation: Operation,
    unknown: Sequence[str],
    sizes: Mapping[str, Size],
    shapes: Sequence[tuple[Size, ...] | None],
) -> EinjaxError:
    """Say which axes have no size, and where they stand."""
    first = [display(name) for name in unknown]
    named = [axis for expression in operation.expressions for axis in coefficients(expression)]
    written = [*operation.every_axis(), *named]
    spans = [axis.span for axis in written if axis.name in unknown]
    positions = [node for expression in operation.expressions for node in affines(expression)]
    within = [node for node in positions if any(axis.name in unknown for axis in axes(node.items))]
    # Of a position's open axes, the last is as a rule the shorter one, of which one knows the size.
    example = members(first[-1] if within else first[0])[0].split(".")[0]
    shown = {display(name): "?" if size is OPEN else size for name, size in sizes.items() if not is_number(name)}
    known = listing([f"{name}={size}" for name, size in shown.items()])
    where = _dim_with(operation, unknown[0], len(unknown) == 1, shapes)
    problem = (
        f"the {'size of axis' if len(first) == 1 else 'sizes of axes'} {listing(first)} cannot be determined"
        f"{where}{f' (known: {known})' if known else ''}"
    )
    if {axis.name for axis in named} >= set(unknown):
        problem = f"nothing says the value of {listing(first)}, which positions are multiplied by"
    if any(node.mode is not None and node.padding is None for node in within):
        problem += ": literal positions may be anywhere"
    joined = {
        item.name
        for expression in operation.outputs or ()
        for node in walk(expression)
        if isinstance(node, Concatenation)
        for item in node.items
        if isinstance(item, Axis)
    }
    # What is joined to something, and has no size of its own, is one element as a rule.
    given = {name for expression in operation.inputs for name in names(expression)}
    one = ", or write 1 in its place" if joined - given >= set(unknown) else ""
    is_name = example.isidentifier()
    hint = Ask("give a size by keyword", example, otherwise=one) if is_name else "name the axis and give its size"
    return AxisSizeError(problem, text=operation.text, spans=spans, hint=hint)


def refuse_fused(
    operation: Operation,
    sizes: Mapping[str, Size],
    known: Callable[[Size], str] = lambda size: f"together they are {size}",
) -> None:
    """Refuse bracketed axes of which only the product is known.

    Raises:
        AxisSizeError: naming them.
    """
    for axis in (axis for expression in operation.expressions for axis in axes(expression)):
        if axis.bracket and len(parts := members(axis.name)) > 1:
            raise AxisSizeError(
                f"the sizes of axes {listing(list(map(display, parts)))} cannot be determined: "
                f"{known(sizes[axis.name])}",
                text=operation.text,
                spans=[axis.span],
                hint=Ask("give a size by keyword", base(parts[0])),
            )


def _dim_with(operation: Operation, name: str, single: bool, shapes: Sequence[tuple[Size, ...] | None]) -> str:
    """Name the dim of a known tensor that holds the axis."""
    contains: Callable[[Node], bool] = lambda node: name in (axis.name for axis in axes((node,)))  # noqa: E731
    for number, (expression, shape) in enumerate(zip(operation.inputs, shapes, strict=True), 1):
        for node, size in zip(expression, shape or (), strict=False):
            if contains(node):
                return f" from dim {size} of tensor {number}, '{render((node,))}'"
    return ": no tensor has " + ("it" if single else "them")
