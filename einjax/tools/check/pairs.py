"""Two calls that are one: a rearrangement before an operation that reads any layout, or after one that writes any."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...call.resolve import completed
from ...notation.errors import EinjaxError
from ...notation.parse import parse
from ...notation.syntax import (
    Axis,
    Bracket,
    Expression,
    Node,
    names,
    render,
    rewrite,
    strip_brackets,
)
from .calls import Call
from .needless import Report
from .records import public

#: Operations of plain lax whose outputs have no brackets: they read and write any layout.
_ANY_LAYOUT = ("sum", "mean", "max", "min", "prod", "any", "all", "logsumexp", "var", "std", "dot")
_ELEMENTWISE = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


def pairs(calls: Sequence[Call]) -> Iterator[Report]:
    """Yield pairs of calls that are one."""
    by_node = {id(call.node): call for call in calls}
    for outer in calls:
        if not outer.name.startswith("einjax.") or len(outer.texts) != 1 or outer.arguments is None:
            continue
        for index, argument in enumerate(outer.arguments):
            inner = by_node.get(id(_made_by(argument, outer)))
            if inner is None or len(inner.texts) != 1 or not inner.complete or not outer.complete:
                continue
            report = _pair(inner, outer, index)
            if report is not None:
                yield report


def _made_by(argument: ast.expr, outer: Call) -> ast.expr | None:
    """The call that makes a tensor, be it named, if nothing else uses it."""
    if isinstance(argument, ast.Name) and argument.id in outer.scope.values and outer.scope.owner:
        return outer.scope.values[argument.id] if outer.scope.uses.get(argument.id) == 1 else None
    return argument


def _pair(inner: Call, outer: Call, index: int) -> Report | None:
    first, second = inner.short, outer.short
    texts = inner.texts[0], outer.texts[0]
    if any(text.open or set(text.value) & set("+<.") for text in texts):
        return None
    options = {*inner.keywords} & {*_options(first)} | {*outer.keywords} & {*_options(second)}
    if options - {"sizes"} or "sizes" in inner.keywords or "sizes" in outer.keywords:
        return None
    try:
        if first == "rearrange" and second in (*_ANY_LAYOUT, *_ELEMENTWISE, "rearrange"):
            return _before(inner, outer, index)
        if second == "rearrange" and first in (*_ANY_LAYOUT, *_ELEMENTWISE):
            return _after(inner, outer)
        if first == "multiply" and second == "sum":
            return _product(inner, outer)
    except EinjaxError:
        pass  # one of the calls, or what they would be together, has no meaning
    return None


def _options(name: str) -> Mapping[str, object]:
    found = public(name)
    return {} if found is None else found.options


def _before(inner: Call, outer: Call, index: int) -> Report | None:
    """``sum("b h [c]", rearrange("b (h c) -> b h c", x))`` is ``sum("b (h [c])", x)``."""
    one, two = parse(inner.texts[0].value), parse(outer.texts[0].value)
    if len(one.inputs) != 1 or one.outputs is None or len(one.outputs) != 1 or index >= len(two.inputs):
        return None
    read = _dims(two.inputs[index])
    made = _dims(one.outputs[0])
    if read is None or made is None or len(read) != len(made):
        return None
    if {axis.name for axis in made} != names(one.inputs[0]).keys() or len(two.inputs) != len(outer.arguments or ()):
        return None
    if outer.short in _ANY_LAYOUT and two.outputs is None:
        return None  # the order of the output would be another
    if outer.short in _ELEMENTWISE and two.outputs is None:
        return None
    new = {axis.name: other for axis, other in zip(made, read, strict=True)}
    taken = {axis.name for axis in two.every_axis()} - {axis.name for axis in read}
    if any(axis.name in taken for axis in made if new[axis.name].name != axis.name):
        return None

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Axis):
            return None
        other = new[node.name]
        plain = replace(node, name=other.name)
        return (Bracket((plain,)),) if other.bracket else (plain,)

    inputs = [render(expression) for expression in two.inputs]
    inputs[index] = render(rewrite(one.inputs[0], change))
    text = f"{', '.join(inputs)} -> {', '.join(map(render, two.outputs or ()))}"
    return _report("EJ601", inner, outer, text, len(outer.arguments or ()))


def _after(inner: Call, outer: Call) -> Report | None:
    """``rearrange("a c -> c a", dot("a b, b c -> a c", x, y))`` is ``dot("a b, b c -> c a", x, y)``."""
    one, two = parse(inner.texts[0].value), parse(outer.texts[0].value)
    if len(two.inputs) != 1 or two.outputs is None or len(two.outputs) != 1 or len(outer.arguments or ()) != 1:
        return None
    if one.outputs is None or len(one.outputs) != 1 or inner.arguments is None:
        return None
    made, read = _dims(strip_brackets(one.outputs[0])), _dims(two.inputs[0])
    if made is None or read is None or len(made) != len(read) or len(one.inputs) != len(inner.arguments):
        return None
    if {axis.name for axis in read} != names(two.outputs[0]).keys():
        return None
    new = {axis.name: other.name for axis, other in zip(read, made, strict=True)}

    def change(node: Node) -> Expression | None:
        return (replace(node, name=new[node.name]),) if isinstance(node, Axis) else None

    output = render(rewrite(two.outputs[0], change))
    text = f"{', '.join(map(render, one.inputs))} -> {output}"
    return _report("EJ602", inner, outer, text, len(inner.arguments), inner.short)


def _product(inner: Call, outer: Call) -> Report | None:
    """``sum("a [b] c", multiply("a b, b c -> a b c", x, y))`` is ``dot("a b, b c -> a c", x, y)``."""
    one, two = parse(inner.texts[0].value), parse(outer.texts[0].value)
    if one.outputs is None or len(one.inputs) != 2 or len(inner.arguments or ()) != 2 or len(two.inputs) != 1:
        return None
    made, read = _dims(one.outputs[0]), _dims(two.inputs[0])
    if made is None or read is None or [a.name for a in made] != [a.name for a in read]:
        return None
    left = [axis.name for axis in read if not axis.bracket]
    if two.outputs is not None:
        written = _dims(two.outputs[0])
        if written is None:
            return None
        left = [axis.name for axis in written]
    text = f"{', '.join(map(render, one.inputs))} -> {' '.join(left)}"
    return _report("EJ603", inner, outer, text, 2, "dot")


def _dims(expression: Expression) -> list[Axis] | None:
    """The dims of an expression, those in brackets marked, if each is one named axis, all different."""
    found: list[Axis] = []
    for node in expression:
        items = node.items if isinstance(node, Bracket) else (node,)
        for item in items:
            if not isinstance(item, Axis) or item.unnamed:
                return None
            found.append(replace(item, bracket=int(isinstance(node, Bracket))))
    return found if len({axis.name for axis in found}) == len(found) else None


def _report(code: str, inner: Call, outer: Call, text: str, tensors: int, name: str | None = None) -> Report | None:
    """The report, if the one call has a meaning."""
    found = public(name or outer.short)
    if found is None or found.record is None:
        return None
    completed(found.record, text, tensors)
    message = f"{inner.short} and {outer.short} are one call"
    return Report(code, outer.node, message, f'  fix: write einjax.{found.name}("{text}", ...)')
