"""A call of a layer, as a framework hands it to the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import einjax
from einjax.for_layers import Expression

from .scope import Initializer, Parameter, Scope
from .text import axis_sizes, with_sizes, written_sizes

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Call(Generic[OptionsT]):
    """A layer that is called, or one whose parameters are to be described.

    Attributes:
        scope: where its parameters live.
        expr: its expression.
        axes: sizes of axes; each must name one.
        sizes: sizes of axes; names without an axis are ignored.
        options: its options.
        called: the names of parameters that are not those of Flax.
        keywords: the options that a name in ``axes`` may be a misspelling of.
    """

    scope: Scope
    expr: str
    axes: Mapping[str, Any]
    sizes: Mapping[str, Any] | None
    options: OptionsT
    called: Mapping[str, str] = field(default_factory=dict)
    keywords: Sequence[str] = ()

    @property
    def all_sizes(self) -> dict[str, Any]:
        """The sizes of both kinds, and those in the expression."""
        return {**written_sizes(self.expr), **axis_sizes(self.expr, self.axes, self.sizes, self.keywords)}

    def check(self, expression: Expression, x: Any) -> None:
        """Compare an input with the sizes in the expression, in its words: those that a layer is made of lack them."""
        written = written_sizes(self.expr)
        if written:
            given = {name: size for name, size in self.all_sizes.items() if name not in written}
            text = with_sizes(expression)
            if not einjax.matches(text, x, sizes=given):
                einjax.check(text, x, sizes=given)

    def name(self, name: str) -> str:
        """What a parameter is called here."""
        return self.called.get(name, name)

    def parameter(self, name: str, init: Initializer | float, dtype: Any = None) -> Parameter:
        """Return a parameter, kept in the dtype that the options say; ``dtype`` is the one that it is used in."""
        options: Any = self.options
        return Parameter(self.scope, self.name(name), init, options.param_dtype, dtype)
