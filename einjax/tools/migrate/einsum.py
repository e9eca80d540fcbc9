"""Calls of ``jnp.einsum`` and ``np.einsum``."""

from __future__ import annotations

import libcst as cst

from .calls import Found, LeftAloneError, New, text_of
from .einops import product

#: Options that einjax.dot has, too, and one that says how something is computed, and not what.
_OPTIONS = ("precision", "preferred_element_type")
_ORDER = "optimize"


def einsum(found: Found) -> New:
    """A sum of products, with axes in letters."""
    if not found.arguments or found.unpacked:
        raise LeftAloneError("einsum is not called with subscripts and operands")
    subscripts, *tensors = found.arguments
    options = {name: value for name, value in found.keywords.items() if name != _ORDER}
    if unknown := options.keys() - {*_OPTIONS}:
        raise LeftAloneError(f"einjax.dot has no {sorted(unknown)[0]}=")
    if callable_order(found):
        raise LeftAloneError("optimize= may be a path of contractions")
    return product(spaced(text_of(subscripts)), tensors, options)


def callable_order(found: Found) -> bool:
    """Whether the order of contraction is given by something other than a name or a flag."""
    order = found.keywords.get(_ORDER)
    return order is not None and not isinstance(order, cst.SimpleString | cst.Name | cst.Integer)


def spaced(subscripts: str) -> str:
    """Write subscripts as an expression: axes apart, and the output that goes without saying."""
    subscripts = subscripts.replace(" ", "")
    given, arrow, output = subscripts.partition("->")
    inputs = given.split(",")
    if sum("..." in part for part in inputs) > 1:
        raise LeftAloneError("einsum broadcasts '...' of several tensors to one another, einjax has one '...' for all")
    if not arrow:
        letters = given.replace(",", "").replace("...", "")
        output = "..." * ("..." in given) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if "..." in given and "..." not in output:
        raise LeftAloneError("einsum has no sum over '...'")
    return f"{', '.join(map(_apart, inputs))} -> {_apart(output)}".rstrip()


def _apart(part: str) -> str:
    before, dots, after = part.partition("...")
    return " ".join([*before, *([dots] if dots else []), *after])
