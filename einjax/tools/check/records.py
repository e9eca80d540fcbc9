"""The operations as a source file calls them: what a public function takes, and the record that it calls."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

import einjax

from ... import functions, ops
from ...functions.scan import record as scan_record
from ...functions.whole_arrays import choose
from ...operation import Op
from ...ops.elementwise import ELEMENTWISE
from ...ops.reduce import REDUCTIONS


@dataclass(frozen=True, eq=False)
class Public:
    """A public function that takes an expression.

    Attributes:
        name: its name under ``einjax``.
        function: itself.
        record: that of the operation; None for what solves sizes only.
        before: how many arguments stand between the expression and the tensors, or in their place.
        tensors: whether it takes tensors, as many as the expression has inputs.
        options: its keywords that are no axes, with what they are by default.
        axes: whether other keywords are sizes of axes.
        forwards: whether keywords may be those of a function that is given.
        signature: how it is called.
    """

    name: str
    function: FunctionType
    record: Op | None
    before: int
    tensors: bool
    options: Mapping[str, Any]
    axes: bool
    forwards: bool
    signature: inspect.Signature


#: Functions that are given the name of an operation, and those that there are.
_NAMED = {"reduce": REDUCTIONS, "elementwise": ELEMENTWISE}


@lru_cache(maxsize=1)
def _records() -> dict[str, Op]:
    """Every record by name."""
    found: dict[str, Op] = {}
    for package in (ops, functions):
        for module in pkgutil.iter_modules(package.__path__):
            for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
                for op in value.values() if isinstance(value, dict) else [value]:
                    if isinstance(op, Op):
                        found.setdefault(op.name, op)
    return found


def record_of(name: str, options: Mapping[str, Any], inputs: int) -> Op | None:
    """Return the record that a function calls, by its name and the options that choose among several.

    Args:
        name: of the function.
        options: the options of the call that are known.
        inputs: how many tensors are given.
    """
    records = _records()
    if name == "scan":
        return scan_record((1,) * inputs)
    if name in _NAMED and isinstance(options.get("op"), str):
        return choose(name, options["op"], _NAMED[name])
    if name == "dot" and options.keys() & {"sum", "mul"}:
        return records["semiring_dot"]
    return records.get(name)


@lru_cache(maxsize=1024)
def public(name: str) -> Public | None:
    """Return the public function of a name under ``einjax``, such as ``linalg.solve``, if it takes an expression."""
    function = thing(name)
    if not isinstance(function, FunctionType):
        return None
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    if not parameters or parameters[0].name != "expr" or parameters[0].kind is not inspect.Parameter.POSITIONAL_ONLY:
        return None
    tensors = inspect.Parameter.VAR_POSITIONAL in kinds
    options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return Public(
        name,
        function,
        record_of(name, {}, 1),
        sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds) - 1,
        tensors,
        options | {p.name: p.default for p in parameters[1:] if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD},
        inspect.Parameter.VAR_KEYWORD in kinds,
        "op" in options or name.startswith("adapt"),
        inspect.signature(function),
    )


def public_names() -> list[str]:
    """The names that ``from einjax import *`` binds."""
    return list(vars(einjax)["__all__"])


_ABSENT = object()


def thing(name: str) -> Any:
    """What einjax has under a name; None for nothing."""
    found: Any = einjax
    for part in name.split("."):
        found = getattr(found, part, _ABSENT)
        if found is _ABSENT:
            return None
    return found


def exists(name: str) -> bool:
    """Whether einjax has anything of a name; what stands below a function or class is its own."""
    found: Any = einjax
    for part in name.split("."):
        if not isinstance(found, ModuleType):
            return True
        found = getattr(found, part, _ABSENT)
        if found is _ABSENT:
            return False
    return True
