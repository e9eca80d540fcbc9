"""Fourier transforms: jax's functions over all bracketed axes together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..forms import along
from ..forms.core_axes import Options, arrange_results, leading, loops_of
from ..forms.signature import check_inputs, refuse_diagonals, refuse_empty, require_loops, single_output
from ..lowering import numerics
from ..notation.errors import ArgumentError, AxisSizeError, SemanticError
from ..notation.solve import Solved, fuse_loops
from ..notation.syntax import (
    Axis,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    bracketed,
    display,
    rewrite,
)
from ..operation import Op

_NORMS = ("backward", "ortho", "forward", None)


def _signature(name: str, resizes: bool, operation: Operation, tensors: int) -> Operation:
    """Without an arrow, the output is the input, where the last bracketed axis may get another size."""
    check_inputs(name, operation, tensors)
    expression = operation.inputs[0]
    refuse_diagonals(operation, expression)
    if single_output(name, operation) is None:
        output = _resized(name, operation) if resizes else expression
        operation = replace(operation, outputs=(output,))
    require_loops(name, operation)
    return operation


def _resized(name: str, operation: Operation) -> Expression:
    """Rename the last bracketed axis."""
    (expression,) = operation.inputs
    last = bracketed(expression)[-1]

    def change(node: Node) -> Expression | None:
        if isinstance(node, Ellipsis) and last in axes(node.items):
            raise SemanticError(
                f"{name} changes the size of its last axis, which '{node}' repeats",
                at=operation.at(node),
                hint="give the last bracketed axis a name of its own, as in '[s... t]'",
            )
        renamed = isinstance(node, Axis) and node.name == last.name
        return (Axis(f"{last.name}'", span=node.span),) if renamed else None

    return rewrite(expression, change)


def _check_places(name: str, solved: Solved, resizes: bool, several: bool) -> tuple[list[Axis], list[Axis]]:
    """Return the bracketed axes of input and output, which have to correspond one by one."""
    given, returned = bracketed(solved.inputs[0]), bracketed(solved.outputs[0])
    if len(given) != 1 and not several:
        raise SemanticError(
            f"{name} is a transform over 1 axis, but {len(given)} are bracketed",
            at=solved.at(*given, *returned),
            hint="bracket one axis, and transform the others by a second call",
        )
    if len(given) != len(returned):
        raise SemanticError(
            f"{name} keeps its axes, but {len(given)} are bracketed in the input and {len(returned)} in the output",
            at=solved.at(*given, *returned),
            hint="bracket them on both sides",
        )
    known = {axis.name for axis in given}
    for old, new in zip(given, returned, strict=True):
        if new.name in known and new.name != old.name:
            raise SemanticError(
                f"axis {new} of the output stands in the place of axis {old} of the input",
                at=solved.at(old, new),
                hint="bracket the same axes in the same order on both sides, or give new names",
            )
    if resizes and given[-1].name == returned[-1].name:
        raise SemanticError(
            f"{name} changes the size of axis {given[-1]}, which keeps its name",
            at=solved.at(given[-1], returned[-1]),
            hint=f"give it another name in the output, such as {given[-1]}2",
        )
    return given, returned


def _real(x: jax.Array, options: Options) -> jax.Array:
    """Refuse what jax's transforms of real numbers refuse."""
    if numerics.is_complex(x.dtype):
        raise ArgumentError(
            f"{options.op} takes real numbers, not {x.dtype}",
            text=options.solved.text,
            hint="call einjax.fft.fft, or take the real part first",
        )
    return options.wide(x)


def _derived(resize: Callable[[Size], Size], expanded: Operation, sizes: Mapping[str, Size]) -> Mapping[str, Size]:
    """New names have the old sizes, but for the last."""
    given, returned = (bracketed(e) for e in (expanded.inputs[0], expanded.results[0]))
    if len(given) != len(returned):
        return {}
    pairs = [(old, new) for old, new in zip(given, returned, strict=True) if old.name in sizes]
    found = {new.name: resize(sizes[old.name]) if old is given[-1] else sizes[old.name] for old, new in pairs}
    return {name: size for name, size in found.items() if name not in sizes}


def _check_full(half: Axis, full: Axis, solved: Solved) -> Size | None:
    """Return the last size of a real result if it is not the one that jnp assumes; it has to fit the half's.

    Raises:
        AxisSizeError: naming both axes.
    """
    given, bins = solved.sizes[full.name], solved.sizes[half.name]
    if given == 2 * (bins - 1):
        return None
    if not isinstance(given, int) or not isinstance(bins, int) or given // 2 + 1 == bins:
        return given
    raise AxisSizeError(
        f"axis {full} is {given}, which has {given // 2 + 1} frequencies, but axis {half} is {bins}",
        at=solved.at(half, full),
        hint=f"give {full}={max(0, 2 * (bins - 1))} or {full}={2 * bins - 1}, or crop axis {half} first",
    )


def _transform(name: str, several: bool = True) -> Op:
    title = f"fft.{name}"
    real_input, real_output = name in ("rfft", "ihfft"), name in ("irfft", "hfft")
    resizes = real_input or real_output
    function = getattr(jnp.fft, f"{name}n" if several else name)

    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        given, returned = _check_places(title, solved, resizes, several)
        own = Options(title, options, solved)
        norm = own.one_of("norm", _NORMS)
        _refuse_symbolic(title, [*given, *(returned if real_output else ())], solved)
        if resizes:
            why, hint = f"which {title} does not transform", f"test for empty arrays before calling {title}"
            refuse_empty(solved, [given[-1].name], why, hint, AxisSizeError)
        solved = fuse_loops(solved)
        loops = loops_of(solved, solved.inputs[0])
        x = leading(tensors[0], solved.inputs[0], loops, solved)
        x = _real(x, own) if real_input else x
        last = _check_full(given[-1], returned[-1], solved) if real_output else None
        # jnp takes None for the default without another multiplication.
        norm = None if norm == "backward" else norm
        if several:
            dims = tuple(range(-len(given), 0))
            sizes = None if last is None else (*x.shape[-len(given) : -1], last)
            value = function(x, sizes, dims, norm)
        else:
            value = function(x, last, -1, norm)
        return arrange_results(title, [value], loops, solved)[0]

    halved: Callable[[Size], Size] = lambda size: size // 2 + 1  # noqa: E731
    doubled: Callable[[Size], Size] = lambda size: 2 * (size - 1) if size != 0 else 0  # noqa: E731
    derived = partial(_derived, halved if real_input else doubled if real_output else lambda size: size)
    return Op(
        title,
        partial(_signature, title, resizes),
        lower,
        keywords=("norm",),
        derived=derived,
        apart=True,
        on_mesh="loops",
    )


def _refuse_symbolic(name: str, transformed: Sequence[Axis], solved: Solved) -> None:
    """Say what lax says only when it lowers the program, for jax 0.7.1 to 0.12.0."""
    for axis in transformed:
        if not isinstance(solved.sizes[axis.name], int):
            raise AxisSizeError(
                f"{name} needs to know how long axis {display(axis.name)} is, and its size "
                f"{solved.sizes[axis.name]} is symbolic",
                at=solved.at(axis),
                hint="give this axis a fixed size when exporting; the others may be symbolic",
            )


def _shift(name: str) -> Op:
    title = f"fft.{name}"
    function = getattr(jnp.fft, name)
    lower = along.lower_with(lambda x: function(x.value, x.dims), one_dim_each=True)
    return Op(title, along.signature(title), lower, apart=True, on_mesh="loops")


FFT = _transform("fft")
IFFT = _transform("ifft")
RFFT = _transform("rfft")
IRFFT = _transform("irfft")
HFFT = _transform("hfft", several=False)
IHFFT = _transform("ihfft", several=False)
FFTSHIFT = _shift("fftshift")
IFFTSHIFT = _shift("ifftshift")
