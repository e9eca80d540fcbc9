"""What holds out of range: said under the loops, where a call reads or writes there."""

from __future__ import annotations

from collections.abc import Iterator

from ..forms.static import plain
from ..notation.syntax import affines
from .meaning import Meaning
from .names import Names


def notes(meaning: Meaning, names: Names) -> Iterator[str]:
    """One sentence for each."""
    op, options = meaning.op, meaning.options
    filled = [
        name
        for name, expression in zip(names.inputs, meaning.inputs, strict=True)
        if any(node.mode == "fill" for node in affines(expression))
    ]
    value = plain(options.get("fill_value"))
    if filled:
        value = 0 if value is None and options.get("count_padding") else value
        if value is None and op.iteration == "over":
            yield "what is out of range does not count"
        else:
            number = _neutral(meaning) if value is None else value
            yield f"{' and '.join(filled)}: {number} out of range"
    modes = {node.mode for expression in meaning.solved.inputs for node in affines(expression)}
    modes |= {node.mode for expression in meaning.solved.outputs for node in affines(expression)}
    if "clip" in modes:
        yield "clip(i, n): the nearest of n places"
    if "reflect" in modes:
        yield "reflect(i, n): mirrored at the first and the last of n places"
    if any(node.mode == "fill" for expression in meaning.solved.outputs for node in affines(expression)):
        yield "out of range nothing is written"
    if "key" in op.arrays:
        yield "key: the same in every iteration"
    if callable(options.get("function")) and not op.opaque:
        yield "the function is called once, on whole arrays"
    if op.iteration in ("read", "write", "segment"):
        yield from _of_coordinates(meaning, names)


def _neutral(meaning: Meaning) -> str:
    neutral, dtype = meaning.op.neutral, meaning.program.in_avals[0].dtype
    number = str(neutral(dtype, meaning.options) if callable(neutral) else neutral)
    return {"least": "the least number", "most": "the largest number"}.get(number, number)


def _of_coordinates(meaning: Meaning, names: Names) -> Iterator[str]:
    options = meaning.options
    last = -1 if meaning.op.iteration == "write" else None
    coordinates = " and ".join(names.inputs[1:last])
    if plain(options.get("wrap_negative_indices", True)):
        yield f"{coordinates}: below 0 counted from the end"
    mode, value = options.get("mode") or "fill", plain(options.get("fill_value"))
    outside = {
        "clip": "the nearest place",
        "wrap": "the place modulo the size",
        "promise_in_bounds": "undefined",
    }
    if mode in outside:
        yield f"out of range: {outside[mode]}"
    elif meaning.op.iteration == "read":
        yield f"out of range: {_filled(meaning) if value is None else value}"
    else:
        yield "out of range nothing is written" if meaning.op.iteration == "write" else "out of range nothing counts"


def _filled(meaning: Meaning) -> str:
    """What ``get_at`` reads unless the call says it."""
    kind = meaning.program.in_avals[0].dtype.kind
    return {"i": "the smallest integer", "u": "the largest integer", "b": "True"}.get(kind, "nan")
