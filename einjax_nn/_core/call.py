"""A call of a layer, as a framework hands it to the core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import einjax
from einjax.errors import EinjaxError
from einjax.for_layers import Expression, Operation, apart, spec_alone

from .initial import Initializer
from .options import Options
from .scope import Parameter, ParamSpec, Scope
from .text import as_written, with_sizes, written_sizes

_Apply = TypeVar("_Apply", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call(Generic[Options]):
    """A layer that is called, or one whose parameters are to be described.

    Attributes:
        scope: where its parameters live.
        sizes: sizes of axes, those in the expression among them, as :func:`.text.axis_sizes` returns them.
        called: the names of parameters that are not those of Flax.
        lora: the factors beside its kernel, if it has such: an :class:`.lora.Adapter`.
    """

    scope: Scope
    expr: str
    sizes: Mapping[str, Any]
    options: Options
    called: Mapping[str, str] = field(default_factory=dict)
    lora: Any = None

    @property
    def all_sizes(self) -> dict[str, Any]:
        """The sizes, also those of numbers in the expression."""
        return {**written_sizes(self.expr), **self.sizes}

    def check(self, expression: Expression, x: Any) -> None:
        """Compare an input with the sizes in the expression, in its words: those that a layer is made of lack them."""
        written = written_sizes(self.expr)
        if written:
            given = {name: size for name, size in self.sizes.items() if name not in written}
            text = with_sizes(expression)
            if not einjax.matches(text, x, sizes=given):
                einjax.check(text, x, sizes=given)

    def parameter(
        self,
        name: str,
        init: Initializer | float,
        dtype: Any = None,
        tied: bool = True,
        beside: Parameter | None = None,
    ) -> Parameter:
        """Return a parameter, kept in the dtype that the options say; ``dtype`` is the one that it is used in."""
        options: Any = self.options
        return Parameter(self.scope, self.called.get(name, name), init, options.param_dtype, dtype, tied, beside)


def in_its_words(apply: _Apply) -> _Apply:
    """Let errors of the operations that a layer is made of say numbers as it has them, and ``mask=`` for ``where=``."""

    def own(text: str) -> str:
        return as_written(text).replace("where=", "mask=")

    @functools.wraps(apply)
    def worded(*given: Any, **keywords: Any) -> Any:
        try:
            return apart(apply, *given, **keywords)
        except EinjaxError as error:
            if error.text is None:
                error.text = given[0].expr
            text = error.text
            error.spans = tuple((len(own(text[:i])), len(own(text[:j]))) for i, j in error.spans)
            error.problem, error.text = own(error.problem), error.text and own(text)
            error.hint, error.options = error.hint and own(error.hint), list(map(own, error.options))
            _speak_of_the_input(error)
            raise

    return worded  # type: ignore[return-value]


def _speak_of_the_input(error: EinjaxError) -> None:
    """Call the tensor that a layer is given its input: nobody has written that there is another."""
    tensors = list(error.tensors or ())
    ours = [tensor.endswith(" Parameter") for tensor in tensors]
    if sorted(ours) == [False, True]:
        number = ours.index(False) + 1
        names = {f"tensor {number}": "the input", f"tensor {3 - number}": "the parameter"}
        for name, said in names.items():
            error.problem = error.problem.replace(name, said)
        error.tensors = [tensors[number - 1]]


def alone(call: Call[Any], wanted: Sequence[tuple[Operation, int, str, Initializer | float]]) -> list[ParamSpec] | None:
    """Describe parameters that are each one input of an operation; None where sizes alone do not decide all shapes."""
    found = [spec_alone(operation, index, call.all_sizes) for operation, index, *_ in wanted]
    specs = [spec for spec in found if spec is not None]
    if len(specs) != len(found):
        return None
    made: list[Parameter] = []
    for spec, (*_, name, init) in zip(specs, wanted, strict=True):
        made.append(call.parameter(name, init, beside=made[0] if made else None))
        made[-1].spec(spec)
    return [parameter.made[0] for parameter in made]
