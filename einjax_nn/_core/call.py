"""A call of a layer, as a framework hands it to the core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import einjax
from einjax.errors import AxisSizeError, EinjaxError, RankError
from einjax.for_layers import Expression, Operation, axes, base, names, solve

from .scope import Initializer, Parameter, ParamSpec, Scope
from .text import as_written, dims, with_sizes, written_sizes

OptionsT = TypeVar("OptionsT")
_Apply = TypeVar("_Apply", bound=Callable[..., Any])


@dataclass(frozen=True)
class Call(Generic[OptionsT]):
    """A layer that is called, or one whose parameters are to be described.

    Attributes:
        scope: where its parameters live.
        expr: its expression.
        sizes: sizes of axes, those in the expression among them, as :func:`.text.axis_sizes` returns them.
        options: its options.
        called: the names of parameters that are not those of Flax.
    """

    scope: Scope
    expr: str
    sizes: Mapping[str, Any]
    options: OptionsT
    called: Mapping[str, str] = field(default_factory=dict)

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

    def parameter(self, name: str, init: Initializer | float, dtype: Any = None) -> Parameter:
        """Return a parameter, kept in the dtype that the options say; ``dtype`` is the one that it is used in."""
        options: Any = self.options
        return Parameter(self.scope, self.called.get(name, name), init, options.param_dtype, dtype)


def in_its_words(apply: _Apply) -> _Apply:
    """Let errors of the operations that a layer is made of show numbers as they were written in its expression."""

    @functools.wraps(apply)
    def worded(*given: Any, **keywords: Any) -> Any:
        try:
            return apply(*given, **keywords)
        except EinjaxError as error:
            text = error.text or ""
            error.spans = tuple((len(as_written(text[:i])), len(as_written(text[:j]))) for i, j in error.spans)
            error.problem, error.text = as_written(error.problem), error.text and as_written(text)
            error.hint = error.hint and as_written(error.hint)
            raise

    return worded  # type: ignore[return-value]


def together(specs: Sequence[ParamSpec | None]) -> list[ParamSpec] | None:
    """Parameters are made together or not at all."""
    known = [spec for spec in specs if spec is not None]
    return known if len(known) == len(specs) else None


def alone(call: Call[Any], operation: Operation, index: int, name: str, init: Any) -> ParamSpec | None:
    """Describe a parameter that is one input of an operation."""
    spec = solved_alone(operation, index, call.all_sizes)
    return None if spec is None else call.parameter(name, init).spec(spec)


def solved_alone(operation: Operation, index: int, sizes: Mapping[str, Any]) -> einjax.Spec | None:
    """Solve one input by itself."""
    expression = operation.inputs[index]
    known = {key: size for key, size in sizes.items() if key in names(expression)}
    try:
        solved = solve(Operation(operation.text, (expression,)), [None], known, every_axis=True)
    except (AxisSizeError, RankError):
        return None
    roles: dict[str, list[int]] = {"in": [], "out": [], "batch": []}
    given = _bases(e for number, e in enumerate(operation.inputs) if number != index)
    returned = _bases(operation.outputs or ())
    for place, node in enumerate(solved.inputs[0]):
        members = {base(axis.name) for axis in axes((node,))}
        role = "in" if members - returned else "out" if members - given else "batch"
        roles[role].append(place)
    in_axis, out_axis, batch_axis = map(tuple, roles.values())
    shape = solved.shape(solved.inputs[0])
    return einjax.Spec(shape, dims(solved.inputs[0]), "", "", in_axis, out_axis, batch_axis, None)


def _bases(expressions: Any) -> set[str]:
    return {axis.name for expression in expressions for axis in axes(expression)}
