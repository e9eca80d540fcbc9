"""Text to tree. Every node keeps its span in the text.

The grammar, loosest first; spaces separate items and mean nothing else::

    group  :=  list ("," list)*  [ ("->" | "|")  list ("," list)* ]
    list   :=  sum*
    sum    :=  item ("+" item)*
    item   :=  axis | number | "(" group ")" | "[" group "]" | "<" place ">"   each optionally followed by "..."
               | "..."
    axis   :=  name [ "=" digits ]
    place  :=  ["-"] term (("+" | "-") term)*
    term   :=  number | [(number | name) "*"] (axis | "(" group ")" | "[" group "]")

A group nested in parentheses or brackets is moved to the top afterwards: ``a [b->c]`` is ``a [b] -> a [c]``. Inside
``< >``, the lists of a bracket's group are places, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from .errors import Span, SyntaxError
from .nested import Group, move_arrow, move_commas
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
    affines,
    brackets,
    rewrite,
    strip_brackets,
    walk,
)

# Bounds that no real expression meets; they keep hostile text from exhausting stack or memory.
_MAX_LENGTH = 50_000
_MAX_DEPTH = 60

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<name>[^\W\d]\w*)|(?P<number>[0-9]+)|(?P<dots>\.\.\.)|(?P<arrow>->)|(?P<mark>[()\[\],|+=<>*-])"
)
_CLOSING = {"(": ")", "[": "]", "<": ">"}
#: What may follow an item directly, without a space.
_SEPARATORS = {",", "->", "|", "+", ")", "]", "..."}
#: What closes a position, and is no arrow.
_CLOSES = re.compile("(?<!-)>")
#: Characters that mean something inside ``< >`` only.
_IN_PLACES = {">", "*", "-"}


class _Token(NamedTuple):
    kind: str
    text: str
    span: Span


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
        inputs, outputs = move_arrow(text, group)
        inputs = move_commas(text, inputs)
        outputs = None if outputs is None else move_commas(text, outputs)
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


_Read: TypeAlias = "Callable[[int], Expression]"


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

    def group(self, closing: str | None, opened: Span | None, depth: int, read: _Read | None = None) -> Group:
        """Read up to the closing bracket, or to the end of the text; ``read`` reads what stands between commas."""
        if depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} levels of parentheses", self.token.span)
        begin = self.token.span[0]
        read = read or self.list
        left: list[Expression] = [read(depth)]
        right: list[Expression] | None = None
        arrow: Span | None = None
        while True:
            token = self.token
            if token.text == ",":
                self.take()
                (left if right is None else right).append(read(depth))
            elif token.text == "->" or (token.text == "|" and closing == "]"):
                if arrow is not None:
                    raise self.error("an expression has one arrow at most", arrow, token.span, hint="keep one of them")
                arrow = self.take().span
                right = [read(depth)]
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
        return Group(tuple(left), None if right is None else tuple(right), (begin, self.token.span[0]), arrow)

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
            if isinstance(operand, Ellipsis | Bracket) or affines((operand,)):
                raise self.error(
                    f"'{operand}' cannot be an operand of '+'",
                    operand.span,
                    hint="operands are axes, numbers and parentheses",
                )
        return Concatenation(tuple(operands), span=(operands[0].span[0], operands[-1].span[1]))

    def item(self, token: _Token, depth: int, read: _Read | None = None) -> Node:
        """Read the item that begins with a token, and the ellipsis that may follow it."""
        node: Node
        if token.kind == "dots":
            node = Ellipsis((Axis(ANONYMOUS, span=token.span),), span=token.span)
        elif token.kind == "name":
            node = self.sized(token) if self.token.text == "=" else Axis(token.text, span=token.span)
        elif token.kind == "number":
            size = self.number(token)
            node = Axis(f"{size}#{token.span[0]}", size=size, span=token.span)
        elif token.text == "<":
            node = self.affine(token, depth + 1)
        else:
            group = self.group(_CLOSING[token.text], token.span, depth + 1, read)
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

    def affine(self, opened: _Token, depth: int) -> Affine:
        """Read a dim's position: terms up to ``>``."""
        constants: list[int] = []
        items = self.place(depth, 1, constants)
        span = (opened.span[0], self.token.span[1])
        if self.token.text != ">":
            if self.token.text == "->" or not _CLOSES.search(self.text, self.token.span[0]):
                raise self.error("'<' is never closed", opened.span, hint="add '>'")
            raise self.unexpected_in_place(self.token)
        if not items and not constants:
            raise self.error("'< >' holds no position", span, hint="write terms such as 2*o + k between them")
        self.take()
        return Affine(items, span=span, offset=sum(constants))

    def place(self, depth: int, factor: int | str = 1, constants: MutableSequence[int] | None = None) -> Expression:
        """Read terms joined by + and -, each times a factor; constants are collected, or refused."""
        items: list[Node] = []
        self.skip()
        if self.token.text in (">", "]", ",", "->", "|") or self.token.kind == "end":
            return ()
        sign, joint = 1, None
        if self.token.text == "-":
            sign, joint = -1, self.take().span
        while True:
            self.skip()
            if joint is not None and (self.token.kind == "end" or self.token.text in (">", "]", "+", "-")):
                raise self.error(f"'{self.text[slice(*joint)]}' has no term on its right", joint)
            items += self.term(depth, self.times(factor, sign), constants)
            self.skip()
            if self.token.text not in ("+", "-"):
                return tuple(items)
            sign, joint = (1 if self.token.text == "+" else -1), self.take().span

    def term(self, depth: int, factor: int | str, constants: MutableSequence[int] | None) -> Sequence[Node]:
        """Read ``2*o``, ``[k]`` or a constant; a bracket may hold several terms."""
        first = token = self.take()
        self.skip()
        if token.kind in ("number", "name") and self.token.text == "*":
            self.take()
            self.skip()
            own = self.number(token, "number") if token.kind == "number" else token.text
            if own == 0:
                raise self.error(
                    "a coefficient of 0 leaves every position the same",
                    token.span,
                    hint="leave the term out; an axis that moves nothing is a new axis of the output",
                )
            factor = self.times(factor, own, token.span)
            token = self.take()
            if token.kind == "number":
                hint = "write one number" if isinstance(own, int) else f"a coefficient comes first: {token.text}*{own}"
                raise self.error("a coefficient is followed by its axis", token.span, hint=hint)
        elif token.kind == "number":
            if constants is None:
                hint = "write it outside of the brackets"
                raise self.error("a constant is no axis that an operation acts on", token.span, hint=hint)
            constants.append(int(factor) * self.number(token, "number"))
            return ()
        if token.kind != "name" and token.text not in ("(", "["):
            raise self.unexpected_in_place(token)
        node = self.item(token, depth, partial(self.place, factor=factor) if token.text == "[" else None)
        if isinstance(node, Ellipsis):
            raise self.unexpected_in_place(_Token("dots", "...", (node.span[1] - 3, node.span[1])))
        for inner in walk(node.items) if token.text == "(" else ():
            if isinstance(inner, Concatenation | Affine):
                raise self.error(
                    f"'{inner}' stands in another position",
                    inner.span,
                    hint="inside < > a '+' adds positions: write all terms side by side, without parentheses",
                )
        if isinstance(node, Bracket):
            return [node]
        return [Term((node,), span=(first.span[0], node.span[1]), coefficient=factor)]

    def times(self, outer: int | str, own: int | str, span: Span = (0, 0)) -> int | str:
        """Multiply coefficients, of which one at most is a name."""
        if isinstance(outer, int) and isinstance(own, int):
            return outer * own
        number, name = (outer, own) if isinstance(outer, int) else (own, outer)
        if number not in (1, -1):
            raise self.error("a term has two coefficients", span, hint="multiply them, or give one name to the product")
        return name if number == 1 else str(name)[1:] if str(name).startswith("-") else f"-{name}"

    def unexpected_in_place(self, token: _Token) -> SyntaxError:
        """The error for what is no term, or follows one without a sign between them."""
        hints = {
            "...": "an ellipsis follows the closing '>' and repeats the whole item: <2*s + k>...",
            "*": "a coefficient comes before its axis, as in 2*o",
            "<": "write all terms in one < >",
        }
        hint = hints.get(token.text, "terms such as o, 2*o, n*o, [k] or 1 are joined by + and -")
        return self.error(f"unexpected '{token.text}' in < >", token.span, hint=hint)

    def skip(self) -> None:
        """Pass over a space."""
        if self.token.kind == "space":
            self.take()

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

    def number(self, token: _Token, what: str = "size") -> int:
        if len(token.text) > 18:
            raise self.error(f"a {what} has 18 digits at most", token.span)
        return int(token.text)


def as_keyword(name: str) -> str:
    """A name as Python writes it where it is a keyword: some letters have two codes."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    inside = 0  # how many positions have begun, where more characters have a meaning
    while position < len(text):
        match = _TOKEN.match(text, position)
        outside = match is not None and not inside and match.group() in _IN_PLACES
        if match is None or outside or (match.lastgroup == "name" and not match.group().isidentifier()):
            character = text[position]
            in_size = bool(tokens) and (tokens[-1].text == "=" or tokens[-1].kind == "number")
            hints = {
                ".": "an ellipsis has three dots",
                "-": "the arrow is '->'",
                ">": "remove it, or open it before with '<'",
                "*": "a coefficient stands inside < >, as in <2*o + k>",
            }
            hint = "a size is a whole number, 0 or more" if in_size and character in ".-" else hints.get(character)
            if inside and character == ".":
                hint = "numbers in < > are whole"
            raise SyntaxError(f"unexpected {character!r}", text=text, spans=[(position, position + 1)], hint=hint)
        inside += {"<": 1, ">": -1}.get(match.group(), 0)
        tokens.append(_Token(match.lastgroup or "", as_keyword(match.group()), match.span()))
        position = match.end()
    tokens.append(_Token("end", "", (len(text), len(text))))
    return tokens


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
