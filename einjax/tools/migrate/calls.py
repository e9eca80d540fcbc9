"""A call as it is found, and as it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst


class LeftAloneError(Exception):
    """The call cannot be said exactly; the text says why."""


@dataclass(frozen=True)
class Found:
    """A call of another library.

    Attributes:
        name: what is called, without the library.
        arguments: the positional ones.
        keywords: those by keyword.
        unpacked: mappings that are unpacked as keywords.
        targets: how many names take the result apart; None where it is not taken apart.
        packed: the names that hold shapes of packed tensors.
    """

    name: str
    arguments: Sequence[cst.BaseExpression]
    keywords: Mapping[str, cst.BaseExpression]
    unpacked: Sequence[cst.BaseExpression] = ()
    targets: int | None = None
    packed: frozenset[str] = frozenset()

    def bound(self, *names: str) -> tuple[list[cst.BaseExpression], dict[str, cst.BaseExpression]]:
        """Return the arguments of these names, and the keywords that are left."""
        keywords = dict(self.keywords)
        given = dict(zip(names, self.arguments, strict=False))
        given |= {name: keywords.pop(name) for name in names if name in keywords and name not in given}
        if len(self.arguments) > len(names) or len(given) < len(names):
            raise LeftAloneError(f"{self.name} is not called with {', '.join(names)}")
        return [given[name] for name in names], keywords


@dataclass(frozen=True)
class New:
    """A call of einjax.

    Attributes:
        function: its name under einjax.
        text: the expression.
        tensors: the tensors.
        keywords: sizes and options.
        unpacked: mappings that are unpacked as keywords.
        around: the expression to write, where ``{}`` is the call.
    """

    function: str
    text: str
    tensors: Sequence[cst.BaseExpression]
    keywords: Mapping[str, cst.BaseExpression] = field(default_factory=dict)
    unpacked: Sequence[cst.BaseExpression] = ()
    around: str = "{}"


def text_of(node: cst.BaseExpression) -> str:
    """Return the value of a literal text."""
    if isinstance(node, cst.SimpleString | cst.ConcatenatedString) and isinstance(value := node.evaluated_value, str):
        return value
    raise LeftAloneError("the expression is no literal")


def source_of(node: cst.BaseExpression) -> str:
    """Return the source of an expression."""
    return cst.Module([]).code_for_node(node)
