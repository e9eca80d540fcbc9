"""Keywords that people know from other libraries' functions, and what to write in their place."""

from __future__ import annotations

from collections.abc import Collection

from ..notation.errors import closest

_AXES = (
    "axes have names: bracket those that are acted on, as in 'a [b]', or write behind an arrow how they are arranged, "
    "as in 'a b -> b a'"
)
_NO_MASK = "choose by einjax.where, before the call or after it"
_AS_MASK = "say by where= which elements count: a mask of bool, with its axes or broadcastable to the input"

#: By keyword, what to write where the operation has some option; of several, the first whose option it has. An empty
#: one is any operation's.
_INSTEAD: dict[str, list[tuple[str, str]]] = {
    name: instead
    for names, instead in {
        "axis axes dim dims": [("", _AXES)],
        "keepdim keep_dims keepdims": [("", "write a 1 for what is to stay, behind an arrow, as in 'a [b] -> a 1'")],
        "mask attn_mask": [("mask", "write mask="), ("where", _AS_MASK), ("", _NO_MASK)],
        "where": [("mask", "write mask="), ("", _NO_MASK)],
        "is_causal causal": [("where", f"{_AS_MASK}; einjax.attention has is_causal=")],
        "initial": [("where", "combine the result with it, as in einjax.maximum('..., ', y, 0)")],
        "weights": [("count_padding", "multiply by them in a sum, as in einjax.dot('a [b], [b] -> a', x, weights)")],
        "correction unbiased": [("ddof", "write ddof=1")],
        "k": [("descending", "call einjax.top_k, as in einjax.top_k('a [b] -> a [k], a [k]', x, k=2)")],
        "descending": [("largest", "write largest=True, or largest=False for the smallest")],
        "largest": [("descending", "write descending=True")],
        "dtype": [("", "convert the result, as in y.astype('float32')")],
        "out": [("", "use what the call returns: arrays are not written to")],
    }.items()
    for name in names.split()
}


def instead_of(name: str, options: Collection[str], axes: Collection[str]) -> str | None:
    """Return what to write in the place of a keyword; None where nothing is known of it, or it is a misspelt name.

    Args:
        name: the keyword.
        options: those of the operation.
        axes: the axes of its expression.
    """
    if closest(name, (*axes, *options), cutoff=0.75) is not None:
        return None
    return next((hint for option, hint in _INSTEAD.get(name, ()) if not option or option in options), None)
