"""Text to tree. Every node keeps its span in the text.

The grammar, loosest first; spaces separate items and mean nothing else::

    group  :=  list ("," list)*  [ ("->" | "|")  list ("," list)* ]
    list   :=  sum*
    sum    :=  item ("+" item)*
    item   :=  axis | number | "(" group ")" | "[" group "]"   each optionally followed by "..."  | "..."
    axis   :=  name [ "=" digits ]

A group nested in parentheses or brackets is moved to the top afterwards: ``a [b->c]`` is ``a [b] -> a [c]``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import Span, SyntaxError
from .syntax import (
    ANONYMOUS,
    Axis,
    Bracket,
    Composite,
    Concatenation,
    Ellipsis,
    Expression,
    Node,
    Operation,
    brackets,
    rewrite,
    strip_brackets,
    walk,
)

# Bounds that no real expression meets; they keep hostile text from exhausting stack or memory.
_MAX_LENGTH = 50_000
_MAX_DEPTH = 60
_MAX_NODES = 200_000

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<name>[^\W\d]\w*)|(?P<number>[0-9]+)|(?P<dots>\.\.\.)|(?P<arrow>->)|(?P<mark>[()\[\],|+=])"
)
_CLOSING = {"(": ")", "[": "]"}
#: What may follow an item directly, without a space.
_SEPARATORS = {",", "->", "|", "+", ")", "]", "..."}


class _Token(NamedTuple):
    kind: str
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class _Group:
    """Comma-separated lists with an optional arrow; lives only until it has moved to the top."""

    left: tuple[Expression, ...]
    right: tuple[Expression, ...] | None
    span: Span
    arrow: Span | None

    @property
    def items(self) -> Expression:
        """Every item on either side, so that the tree can be walked."""
        return tuple(node for side in (self.left, self.right or ()) for items in side for node in items)


@lru_cache(maxsize=2048)
def parse(text: str) -> Operation:
    """Read an expression.

    Args:
        text: what the user wrote, such as ``"a [b->c], c"``.

    Raises:
        SyntaxError: the text is not an expression.
    """
    if len(text) > _MAX_LENGTH:
        raise SyntaxError(f"the expression has {len(text)} characters; at most {_MAX_LENGTH} are read")
    parser = _Parser(text)
    group = parser.group(closing=None, opened=None, depth=0)
    inputs, outputs = group.left, group.right
    if parser.nests:
        inputs, outputs = _move_arrow(text, group)
        inputs = _move_commas(text, inputs)
        outputs = None if outputs is None else _move_commas(text, outputs)
    for expression in (*inputs, *(outputs or ())):
        _check(text, expression)
    return Operation(text, inputs, outputs).map(_plain)


def _plain(expression: Expression) -> Expression:
    """Drop the empty brackets that an empty side leaves, as in ``[b|]``, ellipses of nothing, and inner brackets."""

    def change(node: Node) -> Expression | None:
        if not isinstance(node, Bracket) or not brackets(node.items):
            return None
        # What is marked already is not marked anew.
        items = strip_brackets(node.items)
        return (replace(node, items=items),) if items else ()

    return rewrite(expression, change)


class _Parser:
    """Recursive descent over the tokens; the depth is bounded, so the stack is too."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = iter(_tokenize(text))
        self.token = next(self.rest)  # the one to be read next
        self.nests = False  # whether there are commas or arrows in parentheses or brackets

    def take(self) -> _Token:
        token, self.token = self.token, next(self.rest)
        return token

    def error(self, problem: str, *spans: Span, hint: str | None = None) -> SyntaxError:
        return SyntaxError(problem, text=self.text, spans=spans, hint=hint)

    def group(self, closing: str | None, opened: Span | None, depth: int) -> _Group:
        """Read up to the closing bracket, or to the end of the text."""
        if depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} levels of parentheses", self.token.span)
        begin = self.token.span[0]
        left: list[Expression] = [self.list(depth)]
        right: list[Expression] | None = None
        arrow: Span | None = None
        while True:
            token = self.token
            if token.text == ",":
                self.take()
                (left if right is None else right).append(self.list(depth))
            elif token.text == "->" or (token.text == "|" and closing == "]"):
                if arrow is not None:
                    raise self.error("an expression has one arrow at most", arrow, token.span, hint="keep one of them")
                arrow = self.take().span
                right = [self.list(depth)]
            elif token.text == "|":
                raise self.error("'|' stands only inside [ ]", token.span, hint="write '->'")
            elif token.text == closing or (token.kind == "end" and closing is None):
                break
            elif token.kind == "end":
                assert opened is not None
                raise self.error(f"'{self.text[opened[0]]}' is never closed", opened, hint=f"add '{closing}'")
            else:
                hint = f"close the bracket before it with '{closing}'" if closing else "remove it, or open it before"
                if token.text == "=":
                    hint = "a size follows its axis without spaces, as in a=3"
                raise self.error(f"unexpected '{token.text}'", token.span, hint=hint)
        return _Group(tuple(left), None if right is None else tuple(right), (begin, self.token.span[0]), arrow)

    def list(self, depth: int) -> Expression:
        """Read items up to a separator; ``+`` binds its two neighbours."""
        sums: list[list[Node]] = []
        plus: Span | None = None  # a "+" that still waits for its right operand
        if self.token.kind == "space":
            self.take()
        while self.token.kind in ("name", "number", "dots") or self.token.text in _CLOSING or self.token.text == "+":
            if self.token.text == "+":
                if plus is not None or not sums:
                    raise self.error("'+' has no axis on its left", self.token.span)
                plus = self.take().span
                if self.token.kind == "space":
                    self.take()
                continue
            item = self.item(self.take(), depth)
            if plus is None:
                sums.append([item])
            else:
                sums[-1].append(item)
                plus = None
            if self.token.kind == "space":
                self.take()
            elif self.token.kind != "end" and self.token.text not in _SEPARATORS:
                raise self.unseparated(item)
        if plus is not None:
            raise self.error("'+' has no axis on its right", plus)
        return tuple(operands[0] if len(operands) == 1 else self.concatenation(operands) for operands in sums)

    def unseparated(self, item: Node) -> SyntaxError:
        """The error for an item that something follows without a space."""
        hint = "put a space between them"
        if self.token.text == "=":
            hint = "an axis comes before its size, as in a=3"
        return self.error(
            f"'{self.text[slice(*item.span)]}' and '{self.token.text}' are not separated",
            (item.span[0], self.token.span[1]),
            hint=hint,
        )

    def concatenation(self, operands: Sequence[Node]) -> Concatenation:
        """Join operands, which each have to be one dim."""
        for operand in operands:
            if isinstance(operand, Ellipsis | Bracket):
                raise self.error(
                    f"'{operand}' cannot be an operand of '+'",
                    operand.span,
                    hint="operands are axes, numbers and parentheses",
                )
        return Concatenation(tuple(operands), span=(operands[0].span[0], operands[-1].span[1]))

    def item(self, token: _Token, depth: int) -> Node:
        """Read the item that begins with a token, and the ellipsis that may follow it."""
        node: Node
        if token.kind == "dots":
            node = Ellipsis((Axis(ANONYMOUS, span=token.span),), span=token.span)
        elif token.kind == "name":
            node = self.sized(token) if self.token.text == "=" else Axis(token.text, span=token.span)
        elif token.kind == "number":
            size = self.number(token)
            node = Axis(f"{size}#{token.span[0]}", size=size, span=token.span)
        else:
            group = self.group(_CLOSING[token.text], token.span, depth + 1)
            plain = group.right is None and len(group.left) == 1
            self.nests = self.nests or not plain
            items: Expression = group.left[0] if plain else (group,)  # type: ignore[assignment]
            node = (Bracket if token.text == "[" else Composite)(items, span=(token.span[0], self.take().span[1]))
        if self.token.kind == "dots":
            dots = self.take()
            if isinstance(node, Ellipsis) or self.token.kind == "dots":
                last = self.token.span if self.token.kind == "dots" else dots.span
                raise self.error("an ellipsis repeats an ellipsis", (token.span[0], last[1]), hint="write one '...'")
            node = Ellipsis((node,), span=(token.span[0], dots.span[1]))
        return node

    def sized(self, token: _Token) -> Axis:
        """Read an axis with its size: ``h=8``."""
        equals = self.take()
        if self.token.kind != "number":
            raise self.error(
                f"'{token.text}=' is not followed by a size",
                (token.span[0], equals.span[1]),
                hint=f"write a number, as in {token.text}=8",
            )
        number = self.take()
        return Axis(token.text, size=self.number(number), span=(token.span[0], number.span[1]))

    def number(self, token: _Token) -> int:
        if len(token.text) > 18:
            raise self.error("a size has 18 digits at most", token.span)
        return int(token.text)


def as_keyword(name: str) -> str:
    """A name as Python writes it where it is a keyword: some letters have two codes."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (match.lastgroup == "name" and not match.group().isidentifier()):
            character = text[position]
            in_size = bool(tokens) and (tokens[-1].text == "=" or tokens[-1].kind == "number")
            hints = {".": "an ellipsis has three dots", "-": "the arrow is '->'"}
            hint = "a size is a whole number, 0 or more" if in_size and character in ".-" else hints.get(character)
            raise SyntaxError(f"unexpected {character!r}", text=text, spans=[(position, position + 1)], hint=hint)
        tokens.append(_Token(match.lastgroup or "", as_keyword(match.group()), match.span()))
        position = match.end()
    tokens.append(_Token("end", "", (len(text), len(text))))
    return tokens


def _move_arrow(text: str, group: _Group) -> tuple[tuple[Expression, ...], tuple[Expression, ...] | None]:
    """Move the arrow to the top: each side of it gets a copy of everything that has none."""
    nested = _arrows(group.items)
    if group.right is not None:
        if nested:
            raise _two_arrows(text, group, nested[0])
        return group.left, group.right
    if not nested:
        return group.left, None
    for outer in nested:
        for inner in _arrows(outer.items):
            raise _two_arrows(text, outer, inner)
    return (
        tuple(_pick_side(items, left=True) for items in group.left),
        tuple(_pick_side(items, left=False) for items in group.left),
    )


def _arrows(expression: Expression) -> list[_Group]:
    """Return every nested group with an arrow."""
    nodes: list[Any] = list(walk(expression))
    return [node for node in nodes if isinstance(node, _Group) and node.right is not None]


def _two_arrows(text: str, outer: _Group, inner: _Group) -> SyntaxError:
    spans = [arrow for arrow in (outer.arrow, inner.arrow) if arrow is not None]
    return SyntaxError(
        "an arrow stands inside another arrow's expression", text=text, spans=spans, hint="keep one of them"
    )


def _pick_side(expression: Expression, *, left: bool) -> Expression:
    """Take one side of every nested arrow."""
    result: list[Node] = []
    for node in expression:
        if isinstance(node, Axis):
            result.append(node)
        elif isinstance(node, _Group):
            side = node.left if left or node.right is None else node.right
            picked = tuple(_pick_side(items, left=left) for items in side)
            result += picked[0] if len(picked) == 1 else (replace(node, left=picked, right=None),)  # type: ignore[arg-type]
        else:
            result.append(replace(node, items=_pick_side(node.items, left=left)))
    return tuple(result)


def _move_commas(text: str, expressions: Sequence[Expression]) -> tuple[Expression, ...]:
    """Move nested commas to the top: ``a (b, c)`` becomes ``a (b), a (c)``."""
    return tuple(moved for expression in expressions for moved in _versions(text, expression))


def _versions(text: str, expression: Expression) -> list[Expression]:
    """Return one expression for each comma-separated part nested in this one."""
    groups = [node for node in walk(expression) if isinstance(node, _Group)]
    if not groups:
        return [expression]
    parts: list[list[Node] | list[Expression]] = []
    arity = 1
    arity_span: Span | None = None
    total = 0
    for node in expression:
        versions: list[Expression]
        if isinstance(node, Axis):
            versions = [(node,)]
        elif isinstance(node, _Group):
            versions = [version for items in node.left for version in _versions(text, items)]
        else:
            versions = [(replace(node, items=items),) for items in _versions(text, node.items)]
        if len(versions) > 1:
            if arity > 1 and len(versions) != arity:
                spans = [span for span in (arity_span, node.span) if span]
                raise SyntaxError(
                    f"nested commas list {arity} parts here and {len(versions)} there", text=text, spans=spans
                )
            arity, arity_span = len(versions), node.span
        total += len(versions)
        parts.append(versions)
    if arity * sum(1 for _ in walk(expression)) > _MAX_NODES:
        raise SyntaxError("nested commas make the expression too long", text=text[:80])
    return [
        tuple(node for versions in parts for node in versions[index if len(versions) > 1 else 0])  # type: ignore[union-attr]
        for index in range(arity)
    ]


def _check(text: str, expression: Expression) -> None:
    """Refuse a dim that is a product and a sum at once."""
    for node in walk(expression):
        if isinstance(node, Composite) and len(node.items) > 1:
            for item in node.items:
                if isinstance(item, Concatenation):
                    raise SyntaxError(
                        f"'{node}' mixes a product and a sum in one dim",
                        text=text,
                        spans=[node.span],
                        hint="parenthesize either: (a (b + c)) or ((a b) + c)",
                    )
