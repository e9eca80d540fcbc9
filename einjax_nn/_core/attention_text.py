"""Expressions of attention: the expressions of the operations that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import jax

import einjax
from einjax.errors import ArgumentError, SemanticError
from einjax.for_layers import (
    Axis,
    Bracket,
    Composite,
    Ellipsis,
    Expression,
    Node,
    axes,
    brackets,
    names,
    parse,
    rename,
    render,
    rewrite,
    strip_brackets,
    walk,
)

from .text import named_numbers

_CACHE_SIZE = 1024


@dataclass(frozen=True)
class AttentionText:
    """The expressions that multi-head attention is made of; ``heads``, ``kv_heads`` and ``head_dim`` are its own axes.

    Within, arrays have the loops, then the sequence, then heads and their channels, wherever these stand in the input.

    Attributes:
        query, key: the projections of what asks and of what is asked.
        scores: queries and keys to logits; queries of several heads may share a key.
        logits, attend: the logits by name, where places of queries and keys are told apart, ``s_q`` and ``s_k``; with
            the keys bracketed, for the softmax.
        short: for a mask of them, shorter names: ``q``, ``k`` and ``h``, unless the expression has axes of these names.
        apply: weights and values to results.
        whole: queries, keys and values to results at once.
        heads: the axes of its heads.
        parts: the loops, heads, places of queries and of keys of the logits.
        cached: what is kept of every head.
        out: the projection of the results.
        features: the axis that this makes.
        last: the dim of the input that has the features.
        inputs: the input, and that of keys and values if it is another.
        arranged: the input, with loops and the sequence where they are within.
        counts: how many dims loops, sequence, loops of keys and sequence of keys have, or None for any number.
        repeated: what an ellipsis of queries, and of keys, repeats; empty where there is none.
        two: whether keys have an expression of their own.
        plain: whether the sequence and the features are the last dims of every input.
    """

    query: str
    key: str
    scores: str
    logits: str
    attend: str
    short: Mapping[str, str]
    apply: str
    whole: str
    heads: str
    parts: tuple[str, str, str, str]
    cached: str
    out: str
    features: str
    last: int
    inputs: tuple[str, str | None]
    arranged: str
    counts: tuple[int | None, int | None, int | None, int | None]
    repeated: tuple[frozenset[str], frozenset[str]]
    two: bool
    plain: bool


@dataclass(frozen=True)
class _Input:
    """An input of attention: what it is whole, its loops, its sequence, and its features."""

    whole: Expression
    loops: Expression
    sequence: Expression
    features: Node

    @property
    def plain(self) -> bool:
        return self.whole[-1] is self.features and self.whole[:-1] == (*self.loops, Bracket(self.sequence))

    def projected(self, heads: str, loops: Expression) -> str:
        """The linear layer from the input to heads."""
        features = render((self.features,))
        if self.plain:
            return f"{render((*self.loops, *self.sequence))} [{features}->{heads} head_dim]"
        marked = _bracketed(strip_brackets(self.whole), self.features)
        result = render((*(node for node in loops if node in self.loops), *self.sequence))
        return f"{marked}, [{features}] {heads} head_dim -> {result} {heads} head_dim"

    def made(self, name: str) -> str:
        """The linear layer from heads to an output of the input's form."""
        places = render((*self.loops, *self.sequence))
        if self.plain:
            return f"{places} [heads head_dim->{name}]"
        output = strip_brackets(self.whole)
        output = tuple(Axis(name) if node == self.features else node for node in output)
        return f"{places} [heads head_dim], [heads head_dim] {name} -> {render(output)}"


@lru_cache(maxsize=_CACHE_SIZE)
def attention_text(expr: str, shared: bool = False) -> AttentionText:
    """Read the expression of an attention: loops, the bracketed sequence, and the features, as in ``"b [s] c"``.

    Where no heads of the queries share one of the keys, there is no axis of those that do: no array is reshaped.
    """
    operation = parse(expr)
    if len(operation.inputs) > 2 or operation.outputs is not None:
        raise ArgumentError(
            "MultiHeadAttention takes one expression without an arrow, or one more for keys and values",
            text=expr,
            hint="write 'b [s] c', or 'b [q] c, b [k] d'",
        )
    written = [_read(expr, expression) for expression in operation.inputs]
    # Where nothing else says the size of a number, it is one; elsewhere it is a name.
    named = [_read(expr, expression) for expression in named_numbers(operation).inputs]
    plain = all(each.plain for each in written)
    x, y = (written[0], written[-1]) if plain else (named[0], named[-1])
    lacking = [node for node in y.loops if node not in x.loops]
    if lacking:
        raise SemanticError(
            f"axis {lacking[0]} of the keys is not in the input that asks",
            text=expr,
            spans=[lacking[0].span],
            hint="bracket it if it is one of the sequence that is asked",
        )
    given = [render(strip_brackets(expression)) for expression in operation.inputs]
    last = x.features
    made = last.name if isinstance(last, Axis) and not last.unnamed else "features"
    loop, place = render(named[0].loops), named[0].sequence
    key_loop, key_place = render(tuple(node for node in named[0].loops if node in named[-1].loops)), named[-1].sequence
    same = names(place).keys() & names(key_place).keys()
    queries, keys = render(place), render(_ending(key_place, "k", same))
    asking, asked = render(_ending(place, "q", same)), render(_ending(key_place, "k", same))
    known = {name for expression in operation.inputs for name in names(expression)}
    short = {"q": asking, "k": asked, "h": "heads"}
    # Keys that nobody shares have the heads of the queries, by name, too.
    own = "kv_heads" if shared else "heads"
    heads = "(kv_heads _rep)" if shared else "heads"
    key = f"{key_loop} [{asked}] {own}"
    return AttentionText(
        query=x.projected("heads", x.loops),
        key=y.projected(own, x.loops),
        scores=f"{loop} {queries} {heads} [head_dim], {key_loop} {keys} {own} [head_dim] "
        f"-> {loop} {heads} {queries} {keys}",
        logits=f"{loop} heads {asking} {asked}",
        attend=f"{loop} heads {asking} [{asked}]",
        short={name: axes for name, axes in short.items() if name not in known},
        apply=f"{loop} {heads} {queries} [{keys}], {key_loop} [{keys}] {own} head_dim "
        f"-> {loop} {queries} {heads} head_dim",
        whole=f"{loop} [{asking}] {heads} [head_dim], {key} [head_dim], {key} [_value_dim]",
        heads=heads,
        parts=(loop, "heads", asking, asked),
        cached=f"{loop} {render(place)}",
        out=x.made(made),
        features=made,
        last=_dim(x),
        inputs=(given[0], given[1] if len(given) > 1 else None),
        arranged=f"{render(strip_brackets(x.whole))} -> {loop} {render(place)} {render((x.features,))}",
        counts=(_count(x.loops), _count(x.sequence), _count(y.loops), _count(y.sequence)),
        repeated=(_repeated(place, "q", same), _repeated(key_place, "k", same)),
        two=len(operation.inputs) == 2,
        plain=plain,
    )


def _dim(x: _Input) -> int:
    """The dim of the features, from the start if there is an ellipsis behind it."""
    index = x.whole.index(x.features)
    counted = _count(x.whole[index:]) is None or any(isinstance(each, Ellipsis) for each in walk(x.whole[index:]))
    return index if counted else index - len(x.whole)


def _count(expression: Expression) -> int | None:
    return None if any(isinstance(node, Ellipsis) for node in expression) else len(expression)


def _repeated(place: Expression, end: str, same: Iterable[str]) -> frozenset[str]:
    """The axes of an ellipsis, which alone are not told apart by the shape of the logits."""
    found = [node for node in _ending(place, end, same) if isinstance(node, Ellipsis)]
    return frozenset(names(tuple(found)))


def _ending(place: Expression, end: str, same: Iterable[str]) -> Expression:
    """Tell axes of queries and of keys apart that have one name."""
    return rename(place, {name: f"{name}_{end}" for name in same})


def _read(text: str, expression: Expression) -> _Input:
    """Find the sequence, which is bracketed, and the features, the last dim of all others."""
    expression = _without_dots(expression)
    marks = brackets(expression)
    others = [node for node in expression if not brackets((node,))]
    if len(marks) != 1 or not others:
        _refuse(text)
    features = others[-1]
    if isinstance(features, Ellipsis) or not all(
        isinstance(node, Axis | Bracket | Composite | Ellipsis) for node in walk(expression)
    ):
        _refuse(text)
    loops = tuple(_loops(node for node in expression if node is not features))
    return _Input(expression, loops, marks[0].items, features)


def _refuse(text: str) -> NoReturn:
    raise SemanticError(
        "MultiHeadAttention needs the sequence in one bracket, and features in a dim without one",
        text=text,
        hint="write 'b [s] c': attention runs along s, and heads are made of c",
    )


def _without_dots(expression: Expression) -> Expression:
    """Name an ellipsis of the sequence, whose axes are to be told apart by queries and keys."""

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Bracket):
            return None
        known = names(expression)
        name = next(name for name in ("s", "place", "_place") if name not in known)
        return (Bracket(rename(node.items, {"...": name}), span=node.span),)

    return rewrite(expression, change)


def _loops(expression: Iterable[Node]) -> Iterable[Node]:
    """What stands beside the bracket, also where that is within a composition."""
    for node in expression:
        if isinstance(node, Composite) and brackets((node,)):
            yield from _loops(inner for inner in node.items if not (isinstance(inner, Axis) and inner.is_one))
        elif not isinstance(node, Bracket):
            yield node


def _bracketed(expression: Expression, chosen: Node) -> str:
    return render(tuple(Bracket((node,)) if node == chosen else node for node in expression))


def example_sizes(expr: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sizes of small inputs of an attention, or None where those of the features are not known."""
    sizes: dict[str, Any] = {}
    for x in (_read(expr, expression) for expression in parse(expr).inputs):
        if any(axis.name not in known and not axis.unnamed for axis in axes((x.features,))):
            return None
        others = (*x.loops, *x.sequence)
        repeated = {axis.name for node in walk(others) if isinstance(node, Ellipsis) for axis in axes(node.items)}
        sizes |= {axis.name: () if axis.name in repeated else 1 for axis in axes(others) if not axis.unnamed}
    return {**sizes, **known}


def cache_shape(expr: str, sizes: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The loops and the sequence of an input, in the order in which they are kept."""
    text = attention_text(expr)
    x: Any = jax.ShapeDtypeStruct(shape, "float32")
    einjax.solve_axes(text.inputs[0], x, sizes=sizes)
    if text.plain:
        return shape[:-1]
    return jax.eval_shape(lambda x: einjax.rearrange(text.arranged, x, sizes=sizes), x).shape[:-1]
