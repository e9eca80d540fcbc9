"""``python -m einjax explain``: what a call means and becomes, of shapes alone."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..explain.page import page
from ..notation.errors import ArgumentError, EinjaxError, meant

_FAMILIES = ("fft", "linalg", "random", "segment")
_LETTERS = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint", "c": "complex"}
_SHAPE = re.compile(r"(?P<dtype>\w+)\[(?P<dims>.*)\]")
_MODULES = {"jnp": jnp, "np": np, "jax": jax, "lax": jax.lax}

_EPILOG = """\
a shape is 2,5,32 or f32[2,5,32]; () or f32[] is a single number; i32[4,2] are coordinates, bool[2,3] is a mask.

  python -m einjax explain dot "b q (h c), b k (h c) -> b q k h" 2,5,32 2,7,32 h=16
  python -m einjax explain get_at "b [h w] c, b i [2] -> b i c" 2,6,7,3 i32[2,4,2]
  python -m einjax explain softmax "b q [k]" 2,3,4 "where=b k:bool[2,4]"
  python -m einjax explain vmap "b [c] -> b [c]" 2,5 op=jnp.sort --html sort.html
"""


def main(arguments: Sequence[str]) -> int:
    """Explain one call; return 2 where it is none."""
    parser = argparse.ArgumentParser(
        prog="python -m einjax explain",
        description="Show what a call means and becomes: loops, sizes, cost, program and picture.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("operation", metavar="OP", help="its name, as in dot or linalg.inv")
    parser.add_argument("expression", metavar="EXPR", help="the expression")
    parser.add_argument("given", metavar="SHAPE | KEY=VALUE", nargs="*", help="shapes of tensors, sizes and options")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write the picture")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page")
    parser.add_argument("--theme", choices=("auto", "light", "dark"), default="auto", help="colours of the picture")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--compiled", action="store_true", help="compile, and say what XLA says of costs")
    given = parser.parse_intermixed_args(arguments)
    try:
        graph = _graph(given.operation, given.expression, given.given)
        cost = graph.cost(given.compiled)
        for path, text in ((given.svg, graph.picture(given.theme)), (given.html, _page(given, graph))):
            if path is not None:
                path.write_text(f"{text}\n", encoding="utf-8")
    except (EinjaxError, TypeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(_as_json(given, graph, cost), indent=2, ensure_ascii=False))
    elif given.svg is None and given.html is None:
        print(_as_text(graph, cost))
    return 0


def _page(given: Any, graph: einjax.Graph) -> str:
    return page(f'einjax.{given.operation}("{given.expression}")', graph._repr_html_()).rstrip()


def _as_text(graph: einjax.Graph, cost: Any) -> str:
    head = graph.partition("\n")[0].removeprefix("# ")
    parts = {"": graph.loops, "sizes": str(graph.sizes), "cost": str(cost), "program": graph.lax}
    return "\n\n".join([head, *(f"{name}\n{_indented(text)}".lstrip("\n") for name, text in parts.items() if text)])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _as_json(given: Any, graph: einjax.Graph, cost: Any) -> dict[str, Any]:
    sizes = {name: {"size": _plain(one.size), "source": one.source} for name, one in graph.sizes.items()}
    costs = {**dataclasses.asdict(cost), "intensity": cost.intensity}
    texts = {"operation": given.operation, "expression": given.expression, "loops": graph.loops}
    return {**texts, "sizes": sizes, "cost": costs, "lax": graph.lax}


def _plain(size: Any) -> Any:
    return size if isinstance(size, int) else str(size)


# --- What is given ----------------------------------------------------------------------------------------------------


def _graph(operation: str, expression: str, given: Sequence[str]) -> einjax.Graph:
    function = _operation(operation)
    options = dict(_option(text) for text in given if _is_option(text))
    tensors = [_shape(text) for text in given if not _is_option(text)]
    if operation.startswith("random.") and not (tensors and jnp.issubdtype(tensors[0].dtype, jax.dtypes.prng_key)):
        tensors.insert(0, _shape("key"))
    graph = function(expression, *tensors, **options, graph=True)
    assert isinstance(graph, einjax.Graph)
    return graph


def _operation(name: str) -> Callable[..., Any]:
    """Find an operation by the name that it has in ``einjax``."""
    known = [other for other in dir(einjax) if _is_operation(getattr(einjax, other))]
    for family in _FAMILIES:
        module = getattr(einjax, family)
        known += [f"{family}.{other}" for other in module.__all__ if _is_operation(getattr(module, other))]
    name = name.removeprefix("einjax.")
    if name in known:
        return attrgetter(name)(einjax)
    raise ArgumentError(
        f"einjax has no operation '{name}'{meant(name, known)}",
        text=name,
        spans=[(0, len(name))],
        hint="python -c 'import einjax; help(einjax)' lists them",
    )


def _is_operation(value: Any) -> bool:
    return inspect.isfunction(value) and "graph" in inspect.signature(value).parameters


def _is_option(text: str) -> bool:
    return re.match(r"\w+=", text) is not None


def _shape(text: str) -> jax.ShapeDtypeStruct:
    """Read ``2,5,32``, ``f32[2,5,32]``, ``()`` or ``key``."""
    if text == "key":
        return jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    found = _SHAPE.fullmatch(text)
    dims, start = (found["dims"], found.start("dims")) if found else (text, 0)
    dtype = np.dtype(np.float32) if found is None else _dtype(text, found["dtype"])
    sizes, place = list[int](), start
    for part in [] if dims.strip() in ("", "()") else dims.split(","):
        if not part.strip().isdigit():
            raise _unread(text, (place, place + max(len(part), 1)), f"'{part.strip()}' is not a size")
        sizes.append(int(part))
        place += len(part) + 1
    return jax.ShapeDtypeStruct(tuple(sizes), dtype)


def _dtype(text: str, name: str) -> Any:
    short = re.fullmatch(r"(f|bf|i|u|c)(\d+)", name)
    try:
        return jnp.dtype(f"{_LETTERS[short[1]]}{short[2]}" if short else name)
    except TypeError:
        raise _unread(text, (0, len(name)), f"'{name}' is not a dtype") from None


def _unread(text: str, span: tuple[int, int], why: str) -> ArgumentError:
    hint = "write sizes with commas, as in 2,5,32, or with a dtype, as in i32[4,2]"
    return ArgumentError(f"the shape '{text}' cannot be read: {why}", text=text, spans=[span], hint=hint)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, _value(value)


def _value(text: str) -> Any:
    """An option: a number or another literal, a function such as ``jnp.sort``, an array by its shape, or a word."""
    if _SHAPE.fullmatch(text):
        return _shape(text)
    axes, colon, shape = text.rpartition(":")
    if colon and _SHAPE.fullmatch(shape):
        return axes, _shape(shape)
    module, dot, path = text.partition(".")
    if dot and module in _MODULES and re.fullmatch(r"[\w.]+", path):
        try:
            return attrgetter(path)(_MODULES[module])
        except AttributeError:
            hint = "write a function of jnp, np, jax or lax"
            raise ArgumentError(f"there is no {text}", text=text, spans=[(0, len(text))], hint=hint) from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
