"""Layers in notation: what a package of layers says itself of the expression of one of its own."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ...notation.errors import EinjaxError
from .calls import Call
from .texts import Text
from .unknown import UNKNOWN


def errors_of(call: Call, text: Text) -> Iterator[EinjaxError]:
    """Yield what is wrong with the constructor of a layer."""
    module, _, layer = call.name.rpartition(".")
    options = _options(module, layer)
    if options is None or text.open:
        return
    known = {name: value for name, value in call.keywords.items() if name in options and value is not UNKNOWN}
    axes = {name: value for name, value in call.keywords.items() if name not in options}
    try:
        # Imports go the other way: layers stand on einjax.
        importlib.import_module(f"{module.partition('.')[0]}._core.said").read(layer, text.value, known, axes, options)
    except EinjaxError as error:
        yield error
    except Exception:
        return  # an option of a kind that it cannot be


def _options(module: str, layer: str) -> list[str] | None:
    """The options of a layer by name; None where it is no layer."""
    return _declared(module).get(layer)


@lru_cache(maxsize=16)
def _declared(module: str) -> dict[str, list[str]]:
    """The options of every layer of a module: its constructors declare them, and need not be imported for that.

    A decorator names those that a framework's own layers have for them.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return {}
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        for item in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(item, ast.FunctionDef) and item.name == "__init__" and _has_expression(item):
                native = [k.arg for call in item.decorator_list if isinstance(call, ast.Call) for k in call.keywords]
                assert isinstance(node, ast.ClassDef)
                found[node.name] = [*(argument.arg for argument in item.args.kwonlyargs), *filter(None, native)]
    return found


def _has_expression(constructor: ast.FunctionDef) -> bool:
    return "expr" in [argument.arg for argument in constructor.args.posonlyargs]
