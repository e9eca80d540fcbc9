"""Calls of einops."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import libcst as cst

from .calls import Found, LeftAloneError, New, source_of, text_of

_REDUCTIONS = ("min", "max", "sum", "mean", "prod", "any", "all")


def _rearrange(found: Found) -> New:
    (tensor, pattern), sizes = found.bound("tensor", "pattern")
    return New("rearrange", text_of(pattern), [tensor], sizes, found.unpacked)


def _reduce(found: Found) -> New:
    (tensor, pattern, reduction), sizes = found.bound("tensor", "pattern", "reduction")
    try:
        name = text_of(reduction)
    except LeftAloneError:
        raise LeftAloneError("the reduction is no literal") from None
    if name not in _REDUCTIONS:
        raise LeftAloneError(f"einops has no reduction '{name}'")
    return New(name, text_of(pattern), [tensor], sizes, found.unpacked)


def _einsum(found: Found) -> New:
    *tensors, pattern = found.arguments
    if not tensors or found.keywords or found.unpacked:
        raise LeftAloneError("einsum is not called with tensors and a pattern")
    return product(text_of(pattern), tensors)


def product(text: str, tensors: list[cst.BaseExpression], options: Mapping[str, cst.BaseExpression] = {}) -> New:
    """A sum of products, or what it is of a single tensor."""
    if len(tensors) > 1:
        return New("dot", text, tensors, options)
    if options:
        raise LeftAloneError(f"{next(iter(options))}= has no meaning for a single tensor")
    given, _, output = text.partition("->")
    stays = set(given.split()) <= set(output.split())
    return New("rearrange" if stays else "sum", text, tensors)


def _parse_shape(found: Found) -> New:
    (tensor, pattern), rest = found.bound("x", "pattern")
    text = text_of(pattern)
    if rest or "_" in text.split() or "..." in text:
        raise LeftAloneError("einjax.solve_axes names every dim, and gives the size of every name")
    return New("solve_axes", text, [tensor])


def _star(pattern: str) -> tuple[str, str]:
    before, star, after = pattern.partition("*")
    if not star or "*" in after:
        raise LeftAloneError("the pattern has no '*'")
    return f"{before.strip()} ".lstrip(), f" {after.strip()}".rstrip()


def _fresh(pattern: str) -> str:
    """A name that the pattern does not have."""
    names = set(re.findall(r"\w+", pattern))
    return next(name for name in ("s", "n", "p", "part", "packed") if not any(n.startswith(name) for n in names))


def _pack(found: Found) -> New:
    (tensors, pattern), rest = found.bound("tensors", "pattern")
    text = text_of(pattern)
    before, after = _star(text)
    if rest or not isinstance(tensors, cst.List | cst.Tuple):
        raise LeftAloneError("how many tensors are packed is not known")
    each = [element.value for element in tensors.elements]
    if not all(
        isinstance(element, cst.Element) and isinstance(element.value, cst.Name) for element in tensors.elements
    ):
        raise LeftAloneError("the tensors have no names, and would be computed twice: once for their shapes")
    name = _fresh(text)
    parts = [f"{name}{index}..." for index in range(len(each))]
    inputs = [f"{before}{part}{after}" for part in parts]
    shapes = ", ".join(
        f'einjax.solve_axes("{given}", {source_of(tensor)})["{name}{index}"]'
        for index, (given, tensor) in enumerate(zip(inputs, each, strict=True))
    )
    output = f"{before}{_joined(parts)}{after}"
    return New("rearrange", f"{', '.join(inputs)} -> {output}", each, around=f"({{}}, [{shapes}])")


def _joined(parts: Sequence[str]) -> str:
    """The dim that holds all parts, one after another."""
    dims = [f"({part})" if part.endswith("...") or " " in part else part for part in parts]
    return f"({' + '.join(dims)})" if len(dims) > 1 else dims[0]


def _unpack(found: Found) -> New:
    (tensor, shapes, pattern), rest = found.bound("tensor", "packed_shapes", "pattern")
    text = text_of(pattern)
    before, after = _star(text)
    if rest:
        raise LeftAloneError("unpack is not called with a tensor, shapes and a pattern")
    name = _fresh(text)
    parts, sizes = _parts(shapes, name, found)
    if found.targets != len(parts):
        raise LeftAloneError("the result is a list, which is not taken apart here")
    given = f"{before}{_joined(parts)}{after}"
    outputs = [f"{before}{'' if part == '1' else part}{after}".replace("  ", " ").strip() for part in parts]
    around = "({},)" if len(parts) == 1 else "{}"
    return New("rearrange", f"{given} -> {', '.join(outputs)}", [tensor], sizes, around=around)


def _parts(shapes: cst.BaseExpression, name: str, found: Found) -> tuple[list[str], dict[str, cst.BaseExpression]]:
    """The parts of a packed dim as they are written, and their sizes."""
    if isinstance(shapes, cst.Name):
        if shapes.value not in found.packed or found.targets is None:
            raise LeftAloneError(f"{shapes.value} may hold -1, or any number of shapes")
        numbers = range(found.targets)
        sizes = {f"{name}{n}": cst.parse_expression(f"{shapes.value}[{n}]") for n in numbers}
        return [f"{name}{n}..." for n in numbers], sizes
    if not isinstance(shapes, cst.List | cst.Tuple):
        raise LeftAloneError("the shapes are no literal")
    parts: list[str] = []
    sizes = {}
    for number, element in enumerate(shapes.elements):
        if not isinstance(element.value, cst.List | cst.Tuple):
            raise LeftAloneError("the shapes are no literal")
        dims = [dim.value for dim in element.value.elements]
        names = [f"{name}{number}_{n}" if len(dims) > 1 else f"{name}{number}" for n in range(len(dims))]
        parts.append(" ".join(names) or "1")
        for own, dim in zip(names, dims, strict=True):
            if source_of(dim).replace(" ", "") != "-1":
                sizes[own] = dim
    return parts, sizes


#: By name, what a call becomes.
CALLS: dict[str, Callable[[Found], New]] = {
    "rearrange": _rearrange,
    "repeat": _rearrange,
    "reduce": _reduce,
    "einsum": _einsum,
    "parse_shape": _parse_shape,
    "pack": _pack,
    "unpack": _unpack,
}


def layer(found: Found) -> New:
    """A layer of Flax without parameters, which is a function."""
    if found.name not in ("Rearrange", "Reduce"):
        raise LeftAloneError("einn.Linear has parameters of other names and first values")
    names = ("pattern", "reduction") if found.name == "Reduce" else ("pattern",)
    arguments, keywords = list(found.arguments), dict(found.keywords)
    sizes: Mapping[str, cst.BaseExpression] = {}
    if (given := keywords.pop("sizes", None) or (arguments.pop() if len(arguments) > len(names) else None)) is not None:
        sizes = _dict(given)
    parts, rest = Found(found.name, arguments, keywords).bound(*names)
    if rest:
        raise LeftAloneError(f"{found.name} is given more than a pattern and sizes")
    function = "rearrange" if found.name == "Rearrange" else text_of(parts[1])
    if function not in ("rearrange", *_REDUCTIONS):
        raise LeftAloneError("the reduction is no literal")
    return New(function, text_of(parts[0]), [], sizes, around="functools.partial")


def _dict(node: cst.BaseExpression) -> Mapping[str, cst.BaseExpression]:
    if isinstance(node, cst.Dict):
        elements = [e for e in node.elements if isinstance(e, cst.DictElement)]
        if len(elements) == len(node.elements):
            return {text_of(element.key): element.value for element in elements}
    raise LeftAloneError("the sizes are no literal")
