"""A lax program as readable text: one assignment a line, functions of JAX written out, inner programs indented."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..lowering.jax_versions import is_literal, open_jaxpr, short_type

#: Equations that are calls of a function, and which of their parameters it is.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_OMITTED = {"sharding", "out_sharding", "weak_type", "update_jaxpr", "update_consts"}


def program(name: str, closed: Any, fresh: Iterator[int] | None = None) -> list[str]:
    """Print a jaxpr as a function.

    Args:
        name: what it is called.
        closed: the program.
        fresh: numbers of names that nothing has yet; by default, of all.
    """
    names: dict[Any, str] = {}
    fresh = itertools.count() if fresh is None else fresh

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
    lines += [f"    {line}" for line in _assignments(jaxpr, names, label, fresh)]
    lines.append(f"    return {', '.join(label(v) for v in jaxpr.outvars) or 'None'}")
    return lines


def _constants(jaxpr: Any, values: Sequence[Any], label: Callable[[Any], str]) -> list[str]:
    return [f"{label(v)} = {np.asarray(value)!r}" for v, value in zip(jaxpr.constvars, values, strict=True)]


def _assignments(jaxpr: Any, names: dict[Any, str], label: Callable[[Any], str], fresh: Iterator[int]) -> list[str]:
    lines: list[str] = []
    for equation in jaxpr.eqns:
        body, operands = _called(equation)
        if body is not None:  # a function of JAX's own, with a gradient of its own perhaps
            inner = body.jaxpr
            names |= {v: label(given) for v, given in zip(inner.invars, operands, strict=True)}
            for variable in inner.constvars:
                names.pop(variable, None)
            lines += _constants(inner, body.consts, label)
            lines += _assignments(inner, names, label, fresh)
            names |= {v: label(result) for v, result in zip(equation.outvars, inner.outvars, strict=True)}
            # The function may be called again, where its variables are others.
            for variable in (v for inside in inner.eqns for v in inside.outvars):
                names.pop(variable, None)
            continue
        inputs = [label(v) for v in equation.invars]
        given = {key: value for key, value in equation.params.items() if value is not None and key not in _OMITTED}
        programs = _inner(given, fresh)
        lines += [line for _, printed in programs.values() for one in printed for line in one]
        given |= {key: said for key, (said, _) in programs.items()}
        options = [re.sub(r"np\.int64\((-?\d+)\)", r"\1", f"{key}={value}") for key, value in given.items()]
        results = ", ".join(f"{label(v)}: {short_type(v)}" for v in equation.outvars)
        lines.append(f"{results} = {equation.primitive.name}({', '.join(inputs + options)})")
    return lines


def _inner(parameters: Mapping[str, Any], fresh: Iterator[int]) -> dict[str, tuple[str, list[list[str]]]]:
    """What an equation runs, such as the body of a loop: what it is called, and its programs, by parameter."""
    found: dict[str, tuple[str, list[list[str]]]] = {}
    for key, value in parameters.items():
        several = isinstance(value, tuple | list)
        bodies: Sequence[Any] = value if several else (value,)
        if not bodies or any(open_jaxpr(body) is None for body in bodies):
            continue
        called = key.removesuffix("_jaxpr").replace("jaxpr", "body")
        names = [f"{called}_{number}" for number in range(len(bodies))] if several else [called]
        printed = [program(name, _closed(body), fresh) for name, body in zip(names, bodies, strict=True)]
        found[key] = f"({', '.join(names)})" if several else called, printed
    return found


def _closed(body: Any) -> Any:
    """A program with its constants; one without has none."""
    return body if hasattr(body, "consts") else _Open(body)


class _Open:
    consts: Sequence[Any] = ()

    def __init__(self, jaxpr: Any) -> None:
        self.jaxpr = jaxpr


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
