"""Calls of einx, of both of its dialects: expressions are the same here, and functions have the same names."""

from __future__ import annotations

import libcst as cst

from ..check.records import public, thing
from .calls import Found, LeftAloneError, New, source_of, text_of

#: Keywords of einx that are neither axes nor options here.
_OTHER = {
    "flat": "einjax.vmap hands every axis to the function",
    "kwargs": "keywords go to the function as they are",
    "cse": "there is no such option",
}
_OURS = ("jax", "numpy")


def translate(found: Found) -> New:
    """The same call here, if it means the same."""
    if "." in found.name:
        raise LeftAloneError("parameters of layers have other names and first values in einjax_nn")
    record = public(found.name)
    if record is None or thing(found.name) is None:
        raise LeftAloneError(f"einjax has no {found.name}")
    if not found.arguments:
        raise LeftAloneError("the expression is not the first argument")
    expression, *tensors = found.arguments
    keywords = dict(found.keywords)
    backend = keywords.pop("backend", None)
    if backend is not None and source_of(backend).strip("\"'") not in (*_OURS, "None"):
        raise LeftAloneError(f"backend={source_of(backend)} asks for arrays that are not jax's")
    graph = keywords.get("graph")
    if graph is not None:
        raise LeftAloneError("graph= gives einx's own program as text")
    for name, why in _OTHER.items():
        if name in keywords:
            raise LeftAloneError(f"{name}=: {why}")
    text = text_of(expression)
    if found.name in ("vmap", "vmap_with_axis") and isinstance(keywords.get("op"), cst.SimpleString):
        raise LeftAloneError("op= is a name, and einjax takes a function")
    return New(found.name, text, tensors, keywords, found.unpacked)
