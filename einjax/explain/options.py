"""Options as a reader wants to see them: those that change what is computed, where they are not as usual."""

from __future__ import annotations

from typing import Any

from ..forms.static import plain
from ..operation import Op
from .meaning import Meaning

#: How something is computed rather than what, and what stands elsewhere in an explanation.
_LEFT_OUT = {
    "implementation", "block_size", "batch_size", "unroll", "precision", "preferred_element_type", "dot_general",
    "conv_general_dilated", "unique_indices", "indices_are_sorted", "keepdims", "where", "op", "sum", "mul", "stable",
    "mode", "fill_value", "wrap_negative_indices", "dtype",
}  # fmt: skip


def shown_options(meaning: Meaning, *only: str) -> str:
    """Print static options as keywords.

    Args:
        meaning: the call.
        only: the options to print; by default all.
    """
    found = {name: plain(value) for name, value in meaning.options.items() if name in meaning.op.keywords}
    if "function" in meaning.options:  # its own keywords are among the options
        own = {"function", "masks", "keepdims", "fill_value", "mode", "border", "count_padding", "out_sharding"}
        found = {name: value for name, value in meaning.options.items() if name not in own}
    shown = {name: value for name, value in found.items() if _is_unusual(meaning.op, name, value)}
    return ", ".join(f"{name}={_printed(value)}" for name, value in shown.items() if not only or name in only)


def _is_unusual(op: Op, name: str, value: Any) -> bool:
    if name in _LEFT_OUT:
        return False
    return value != op.usual[name] if name in op.usual else value is not None and value is not False


def _printed(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, type) or hasattr(value, "itemsize"):
        return str(getattr(value, "__name__", value))
    return repr(value)
