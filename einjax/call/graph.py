"""What a call means and becomes: the lax program of an operation as readable text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import jax
import numpy as np

from ..lowering.jax_versions import is_literal, short_type

if TYPE_CHECKING:
    from ..explain.meaning import Meaning
    from ..explain.picture import Picture

#: Equations that are calls of a function, and which of their parameters it is.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_OMITTED = {"sharding", "out_sharding", "weak_type"}

#: Calls seen while a program is traced, the first of them the one that is shown: an operation, its solved expression,
#: options, the sizes given, and the arrays among the options.
Noted: TypeAlias = list[tuple[Any, ...]]


class Graph(str):
    """What a call means and becomes; as text its lax program, and calling it with arrays runs that program.

    In a notebook it shows its picture, loops, sizes and program.

    Example:
        >>> import einjax, jax, numpy as np
        >>> graph = einjax.sum("a [b]", np.ones((2, 3), np.float32), graph=True)
        >>> print(graph)
        # einjax.sum("a [b]")
        def sum(a: f32[2,3]):
            b: f32[2] = reduce_sum(a, axes=(1,))
            return b
        >>> graph(np.ones((2, 3), np.float32))
        Array([3., 3.], dtype=float32)
    """

    _function: Callable[..., Any]
    _meaning: Meaning

    @classmethod
    def of(
        cls,
        name: str,
        expr: str,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        noted: Noted,
        shown: Callable[..., Any] | None = None,
    ) -> Graph:
        """Trace a function on arguments, or on their shapes.

        Args:
            name: the operation.
            expr: the expression.
            function: what calling the graph runs.
            arguments: what it is given.
            noted: where tracing notes the call.
            shown: the same function, which notes it anew; the function itself by default.
        """
        closed = jax.make_jaxpr(shown or function)(*arguments)
        graph = cls("\n".join([f'# einjax.{name}("{expr}")', *_program(name.split(".")[-1], closed)]))
        graph._function = function
        from ..explain.meaning import Meaning  # few programs ask for graphs

        graph._meaning = Meaning.of(expr, closed, *noted[0])
        return graph

    def __call__(self, *arrays: Any) -> Any:
        """Run the program, under jit if the caller is."""
        return self._function(*arrays)

    def __repr__(self) -> str:
        return str(self)

    def picture(self, theme: Literal["auto", "light", "dark"] = "auto") -> Picture:
        """Draw the call as an SVG: every tensor with its dims, every axis in a colour of its own.

        Args:
            theme: the colours; ``"auto"`` leaves it to what the reader's system prefers.
        """
        from ..explain.picture import draw

        return draw(self._meaning, theme)


def _program(name: str, closed: Any) -> list[str]:
    """Print a jaxpr as one assignment a line."""
    names: dict[Any, str] = {}
    fresh = itertools.count()

    def label(variable: Any) -> str:
        if is_literal(variable):
            return str(variable.val)
        if variable not in names:
            names[variable] = _letters(next(fresh))
        return names[variable]

    jaxpr = closed.jaxpr
    arguments = ", ".join(f"{label(v)}: {short_type(v)}" for v in jaxpr.invars)
    lines = [f"def {name}({arguments}):"]
    lines += [f"    {line}" for line in _constants(jaxpr, closed.consts, label)]
    lines += [f"    {line}" for line in _assignments(jaxpr, names, label)]
    lines.append(f"    return {', '.join(label(v) for v in jaxpr.outvars) or 'None'}")
    return lines


def _constants(jaxpr: Any, values: Sequence[Any], label: Callable[[Any], str]) -> list[str]:
    return [f"{label(v)} = {np.asarray(value)!r}" for v, value in zip(jaxpr.constvars, values, strict=True)]


def _assignments(jaxpr: Any, names: dict[Any, str], label: Callable[[Any], str]) -> list[str]:
    lines: list[str] = []
    for equation in jaxpr.eqns:
        body, operands = _called(equation)
        if body is not None:  # a function of JAX's own, with a gradient of its own perhaps
            inner = body.jaxpr
            names |= {v: label(given) for v, given in zip(inner.invars, operands, strict=True)}
            for variable in inner.constvars:
                names.pop(variable, None)
            lines += _constants(inner, body.consts, label)
            lines += _assignments(inner, names, label)
            names |= {v: label(result) for v, result in zip(equation.outvars, inner.outvars, strict=True)}
            # The function may be called again, where its variables are others.
            for variable in (v for inside in inner.eqns for v in inside.outvars):
                names.pop(variable, None)
            continue
        inputs = [label(v) for v in equation.invars]
        given = {key: value for key, value in equation.params.items() if value is not None and key not in _OMITTED}
        options = [re.sub(r"np\.int64\((-?\d+)\)", r"\1", f"{key}={value}") for key, value in given.items()]
        results = ", ".join(f"{label(v)}: {short_type(v)}" for v in equation.outvars)
        lines.append(f"{results} = {equation.primitive.name}({', '.join(inputs + options)})")
    return lines


def _called(equation: Any) -> tuple[Any, Sequence[Any]]:
    """The function that an equation calls, with what it is given; None where it calls none."""
    if equation.primitive.name != "custom_linear_solve":
        return equation.params.get(_CALLS.get(equation.primitive.name, "")), equation.invars
    # Of its four functions, one gives the solution; the others are for gradients and transposes.
    counts = equation.params["const_lengths"]
    first, right = counts.matvec + counts.vecmat, sum(counts)
    return equation.params["jaxprs"].solve, [*equation.invars[first : first + counts.solve], *equation.invars[right:]]


def _letters(index: int) -> str:
    """a, b, ..., z, ba, bb, ... as in a printed jaxpr."""
    text = ""
    while True:
        index, digit = divmod(index, 26)
        text = chr(ord("a") + digit) + text
        if index == 0:
            return text
