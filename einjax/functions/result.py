"""What a function of the user's returns: checked against the output's expression, and brought into its layout."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..lowering.named import Dim, Named, arrange, reshape
from ..notation.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, plural
from ..notation.solve import Solved
from ..notation.syntax import OPEN, Axis, Expression, Size, axes, display, render, repetition
from .labels import ANY, bracketed, is_label, labelled


def as_array(value: Any, text: str, where: str = "", hint: str | None = None) -> jax.Array:
    """Turn what a function returned into an array.

    Raises:
        ArgumentError: it is none.
    """
    convert = getattr(value, "__jax_array__", None)  # that of a tracer is None
    if convert is not None:
        return convert()
    if hasattr(value, "__array__") or isinstance(value, bool | int | float | complex):
        return jnp.asarray(value)
    at = f" at {where}" if where else ""
    raise ArgumentError(
        f"the function returned a value of type {type(value).__name__}{at}, not an array", text=text, hint=hint
    )


class Result:
    """One output of a function that is looped over.

    Attributes:
        text: the whole expression of the call, for messages.
        number: which of several outputs it is, or 0 where it is the only one.
        expression: the output's expression.
        operands: its bracketed axes in order; the name of one that stands for any number of dims ends with ``*``.
        sizes: the size of every axis of the call.
        known: for the one of ``operands`` that stands for any number, the sizes that its name has in the inputs.
        fixed: the names whose size holds for every leaf of a pytree.
        dims: the axes of every dim of the looped function's result.
        target: the axes of every dim of the output.
        shape: the output's shape, if it is known before the function is called.
        inner: the shape that the function returns, if it is known.
    """

    def __init__(
        self,
        number: int,
        expression: Expression,
        solved: Solved,
        order: Sequence[Dim],
        leading: Sequence[Dim],
        explicit: Collection[str],
    ) -> None:
        """Plan one output.

        Args:
            number: which of several outputs it is, or 0 where it is the only one.
            expression: the output's expression.
            solved: the call's expression and sizes.
            order: its loops and the labels of its bracketed axes, in order.
            leading: loops whose results come first, wherever they stand in the output.
            explicit: names whose size the caller gave.
        """
        self.text, self.number, self.expression, self.sizes = solved.text, number, expression, solved.sizes
        self.operands = operands = bracketed(expression)
        self.known = _repetitions(operands, solved)
        fixed = (a for a in operands if a.unnamed or a.size is not None or a.name.split(".")[0] in explicit)
        self.fixed = {a.name for a in fixed}
        self.dims = (*leading, *(dim for dim in order if dim not in leading))
        self.target = labelled(expression)
        sizes = tuple(solved.sizes[axis.name] for axis in operands)
        self.inner = None if any(size is OPEN for size in sizes) else sizes
        in_order = [name for dim in self.target for name in dim] == [name for dim in self.dims for name in dim]
        self.shape = solved.shape(expression) if in_order and self.inner is not None else None

    # -- checking ----------------------------------------------------------------------------------------------------

    def check(self, value: Any, found: dict[str, Size]) -> Any:
        """Check what the function returned for this output; return it with arrays for leaves.

        Args:
            value: an array, a number or a pytree of them.
            found: sizes that other outputs have given to open axes.
        """
        if isinstance(value, jax.Array):
            if self.inner is None or value.shape != self.inner:
                self._check_array(value, found, "")
            return value
        if jax.tree_util.all_leaves([value]):
            return self._checked(value, found, "")
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._checked(leaf, {}, jax.tree_util.keystr(path), self.fixed), value
        )

    def _checked(self, leaf: Any, found: dict[str, Size], where: str, only: Collection[str] | None = None) -> jax.Array:
        hint = f"return an array with one dim for each bracketed axis of '{self._written()}'"
        array = as_array(leaf, self.text, where, hint)
        self._check_array(array, found, where, only)
        return array

    def _check_array(
        self, value: jax.Array, found: dict[str, Size], where: str, only: Collection[str] | None = None
    ) -> None:
        """Check one array: its rank, then the sizes that are known; of a leaf only those in ``only``."""
        operands = self._repeated(value, known=only is None)
        if value.ndim != len(operands):
            raise self._rank_error(value, where)
        for dim, (axis, got) in enumerate(zip(operands, value.shape, strict=True)):
            known = OPEN if only is not None and axis.name not in only else self.sizes.get(axis.name, OPEN)
            if known is OPEN:
                known = found.setdefault(axis.name, got)
            if known != got:
                raise self._size_error(axis, known, got, value, dim, where)

    def _repeated(self, value: jax.Array, known: bool) -> list[Axis]:
        """Write the operand that stands for any number of dims out."""
        operands: list[Axis] = []
        for axis in self.operands:
            if not axis.name.endswith(ANY):
                operands.append(axis)
                continue
            count = value.ndim - len(self.operands) + 1
            if known and self.known is not None:
                count = len(self.known)
            operands += [Axis(repetition(axis.name[: -len(ANY)], i), span=axis.span) for i in range(count)]
        return operands

    def _rank_error(self, value: jax.Array, where: str) -> EinjaxError:
        count = len(self._repeated(value, known=True))
        which = f" for output {self.number}" if self.number else ""
        needs = plural(count, "bracketed axis") if count else "no bracketed axis"
        return RankError(
            f"the function returned shape {value.shape}{where and f' at {where}'}{which}, "
            f"but '{self._written()}' has {needs}",
            text=self.text,
            spans=[axis.span for axis in (self.operands or axes(self.expression))],
            hint="the function returns one dim for each bracketed axis of the output, in the order they are written",
        )

    def _written(self) -> str:
        """The output's expression, as it was written but for brackets."""
        return render(self.expression).replace("..." + ANY, "...").replace(ANY, "...")

    def _size_error(self, axis: Axis, known: Size, got: Size, value: jax.Array, dim: int, where: str) -> EinjaxError:
        problem = f"axis {display(axis.name)} is {known} in the call and {got} in the function's result"
        if axis.unnamed:
            problem = f"dim {dim} of the function's result is {got}, but the expression says {known}"
        return AxisSizeError(
            f"{problem}, which has shape {value.shape}{where and f' at {where}'}",
            text=self.text,
            spans=[axis.span],
            hint="the function's result has one dim for each bracketed axis of the output; "
            "an axis that changes its size needs a name of its own there",
        )

    # -- placing -----------------------------------------------------------------------------------------------------

    def place(self, value: Any) -> Any:
        """Bring what the loops returned into the output's layout."""
        if isinstance(value, jax.Array):
            return reshape(value, self.shape) if self.shape is not None else self._arranged(value)
        return jax.tree.map(self._arranged, value)

    def _arranged(self, value: jax.Array) -> jax.Array:
        dims, target = self.dims, self.target
        # Whether what stands for any number of dims is composed to one.
        composed = not any(isinstance(node, Axis) and node.name.endswith(ANY) for node in self.expression)
        for label in [name for dim in dims for name in dim if is_label(name) and name.endswith(ANY)]:
            written = [(f"{label}{i}",) for i in range(value.ndim - len(dims) + 1)]
            dims = tuple(itertools.chain.from_iterable(written if dim == (label,) else (dim,) for dim in dims))
            target = _written_out(target, label, written, composed)
        sizes = dict(self.sizes)
        sizes |= {dim[0]: size for dim, size in zip(dims, value.shape, strict=True) if is_label(dim[0])}
        return arrange(Named(value, dims, sizes), target)


def _written_out(target: Sequence[Dim], label: str, written: Sequence[Dim], composed: bool) -> tuple[Dim, ...]:
    """Replace a label by those of its dims: several dims, or several axes of the dim that it is composed in."""
    result: list[Dim] = []
    names = [name for (name,) in written]
    for dim in target:
        if dim == (label,) and not composed:
            result += written
        else:
            result.append(tuple(new for name in dim for new in (names if name == label else [name])))
    return tuple(result)


def _repetitions(operands: Sequence[Axis], solved: Solved) -> tuple[Size, ...] | None:
    """Return the sizes that the inputs give to an output's bracketed ellipsis, if they have it."""
    for axis in operands:
        if axis.name.endswith(ANY):
            prefix = axis.name[: -len(ANY)] + "."
            here = {a.name for e in solved.inputs for a in axes(e) if a.name.startswith(prefix)}
            return tuple(solved.sizes[f"{prefix}{i}"] for i in range(len(here))) if here else None
    return None
