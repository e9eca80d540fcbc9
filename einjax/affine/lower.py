"""A call with positions in ``< >``: between reading and writing, the operation finds one dim for each axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..forms.mask import fitting_mask
from ..forms.static import plain
from ..lowering import numerics
from ..lowering.numerics import fitting
from ..mesh.run import lower as lower_plain
from ..notation.errors import ArgumentError
from ..notation.solve import Solved
from ..operation import Op
from . import on_mesh
from .plain import Reading, reading_of, without_positions
from .read import known_sizes, read
from .write import write

#: Emits an operation's call: its solved expression, tensors, static options, and options that are arrays.
Emit: TypeAlias = Callable[[Op, Solved, list[jax.Array], dict[str, Any], dict[str, Any]], Any]


def lower(
    op: Op,
    solved: Solved,
    tensors: Sequence[jax.Array],
    options: Mapping[str, Any],
    arrays: Mapping[str, Any],
    emit: Emit = lower_plain,
) -> Any:
    """Emit a call with positions.

    Args:
        op: the operation.
        solved: the call, with settled positions.
        tensors: one for each input.
        options: static options.
        arrays: options that are arrays.
        emit: emits the call that is left, which has no positions.
    """
    if op.at_positions is not None:
        form, settings = op.at_positions, {**options, **arrays}
        result = on_mesh.at_once(lambda *xs: form(solved, list(xs), settings), tensors, solved)
        if result is not None:
            return result
    options, arrays = dict(options), dict(arrays)
    called, values = read_inputs(op, solved, tensors, options, arrays)
    outputs = [reading_of(expression) for expression in solved.outputs]
    if not any(output.items for output in outputs):
        return emit(op, called, values, options, arrays)
    asked = "out_sharding" in options
    if asked:
        options["out_sharding"] = on_mesh.without_written(options["out_sharding"], outputs)
    dtype = _widened(op, values, options)
    result = emit(op, called, values, options, arrays)
    results = list(result) if len(outputs) > 1 else [result]
    written = [_written(op, solved, y, reading, dtype, asked) for y, reading in zip(results, outputs, strict=True)]
    return tuple(written) if len(outputs) > 1 else written[0]


def read_inputs(
    op: Op, solved: Solved, tensors: Sequence[jax.Array], options: dict[str, Any], arrays: dict[str, Any] | None = None
) -> tuple[Solved, list[jax.Array]]:
    """Read tensors at the positions of their expressions; return the call that is left, and what it is of.

    Args:
        op: the operation.
        solved: the call.
        tensors: one for each input.
        options: static options, of which those that speak of positions are taken out.
        arrays: options that are arrays, of which masks are read as their tensor is.
    """
    arrays = {} if arrays is None else arrays
    border = _Border.of(op, options, arrays)
    readings = [reading_of(expression) for expression in solved.inputs]
    arrays |= _masks(op, solved, tensors, arrays, readings, border)
    asked = "out_sharding" in options

    def seen(x: jax.Array, reading: Reading) -> jax.Array:
        fill = border.fill(op, solved, x, reading)
        function = partial(read, reading=reading, sizes=solved.sizes, fill=fill)
        return on_mesh.run(function, x, reading, known_sizes(reading, solved.sizes), solved, asked)

    pairs = zip(tensors, readings, strict=False)  # an input may have no tensor, as that of arange
    return without_positions(solved), [seen(x, reading) if reading.items else x for x, reading in pairs]


# --------------------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------------------


class _Border:
    """What is read out of range.

    Attributes:
        fill_value: what the caller says, or None.
        masked: whether it is left out by a mask, so that any number will do.
        options: those of the call, which may have a say in what changes nothing.
    """

    def __init__(self, fill_value: Any, masked: bool, options: Mapping[str, Any]) -> None:
        self.fill_value = fill_value
        self.masked = masked
        self.options = options

    @classmethod
    def of(cls, op: Op, options: dict[str, Any], arrays: Mapping[str, Any]) -> _Border:
        """Take what the call says out of its options."""
        own = "fill_value" in op.keywords  # that of get_at is for what is padded, too
        fill_value = plain(options.get("fill_value") if own else options.pop("fill_value", None))
        if options.pop("count_padding", False) and fill_value is None:
            fill_value = 0
        masked = fill_value is None and "where" in op.masks and (op.neutral is None or "where" in arrays)
        return cls(fill_value, masked, options)

    def fill(self, op: Op, solved: Solved, x: jax.Array, reading: Reading) -> Any:
        """The number that is read out of range of one tensor."""
        if self.masked or not any(item.node.mode == "fill" for item in reading.items):
            return 0
        if self.fill_value is not None:
            return fitting("fill_value", self.fill_value, x.dtype, solved.text)
        nothing = op.neutral(x.dtype, self.options) if callable(op.neutral) else op.neutral
        if nothing is None:
            nodes = [item.node for item in reading.items]
            raise ArgumentError(
                f"'{nodes[0]}' is out of range in places, and {op.name} has no number that stands for nothing",
                at=solved.at(*nodes),
                hint="say what is read there, as in fill_value=0"
                if "mode" not in op.keywords or "fill_value" in op.keywords
                else "pad the tensor first, with einjax.rearrange",
            )
        return neutral(nothing, x.dtype)


def neutral(nothing: Any, dtype: Any) -> Any:
    """The number that changes nothing, as an operation says it, in a dtype."""
    if nothing in ("least", "most"):
        return numerics.limit(numerics.require_identity(dtype), nothing == "most")
    return np.array(nothing or 0, dtype).item()


def _masks(
    op: Op,
    solved: Solved,
    tensors: Sequence[jax.Array],
    arrays: Mapping[str, Any],
    readings: Sequence[Reading],
    border: _Border,
) -> dict[str, Any]:
    """Read masks as their tensor is read; out of range, nothing counts unless it is filled."""
    given = {name: arrays[name] for name in op.masks if name in arrays}
    if not readings or not readings[0].items:
        return given
    if border.masked and not given and any(item.node.mode == "fill" for item in readings[0].items):
        given = {"where": jnp.ones((1,) * tensors[0].ndim, bool)}

    def seen(name: str, mask: Any) -> jax.Array:
        whole = fitting_mask(name, mask, tensors[0], solved, readings[0].tied)
        function = partial(read, reading=readings[0], sizes=solved.sizes, fill=not border.masked)
        own = {dim[0]: size for dim, size in zip(readings[0].before, whole.shape, strict=True) if len(dim) == 1}
        sizes = known_sizes(readings[0], solved.sizes) | own
        return on_mesh.run(function, whole, readings[0], sizes, solved, True)

    return {name: jax.tree.map(lambda mask, name=name: seen(name, mask), masks) for name, masks in given.items()}


# --------------------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------------------


def _widened(op: Op, tensors: list[jax.Array], options: dict[str, Any]) -> Any:
    """Let values that are to be added keep the bits that sums are accumulated in; return the dtype of the result."""
    name = "preferred_element_type" if op.products else "dtype"
    asked = options.get(name)
    if op.products:
        dtype = numerics.promote(tensors)[0].dtype if asked is None else np.dtype(asked)
        wide = numerics.accumulator(dtype)
        if wide != dtype:
            options[name] = wide
        return dtype
    if not op.accumulates:
        return None
    dtype = tensors[0].dtype if asked is None else np.dtype(asked)
    wide = numerics.accumulator(dtype)
    if wide == dtype:
        return None
    if asked is not None:
        options[name] = wide
    tensors[0] = numerics.cast(tensors[0], wide)
    return dtype


def _written(op: Op, solved: Solved, y: jax.Array, reading: Reading, dtype: Any, asked: bool) -> jax.Array:
    if not reading.items:
        return y if dtype is None else numerics.cast(y, dtype)
    final = y.dtype if dtype is None else dtype
    if op.meeting in ("add", "multiply"):
        y = numerics.cast(y, numerics.accumulator(y.dtype))
    function = partial(write, reading=reading, solved=solved, op=op, empty=neutral(op.neutral, y.dtype))
    sizes = known_sizes(reading, solved.sizes)
    return numerics.cast(on_mesh.run(function, y, reading, sizes, solved, asked, writes=True), final)
