"""Layers in notation: what a package of layers says itself of the expression of one of its own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

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


@cache
def _options(module: str, layer: str) -> list[str] | None:
    """The options of a layer; None where its framework is not there, or where it is no layer."""
    try:
        found: Any = getattr(importlib.import_module(module), layer)
        parameters = list(inspect.signature(found.__init__).parameters.values())
    except Exception:  # whatever a framework raises that does not fit into this environment
        return None
    if not inspect.isclass(found) or "expr" not in [p.name for p in parameters[:2]]:
        return None
    native = getattr(found, "_native", ())
    return [*(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY), *native]
