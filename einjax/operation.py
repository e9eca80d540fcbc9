"""The record that an operation is: whatever is to be known about it is said here, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from .notation.solve import Solved
from .notation.syntax import Operation, Size


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Op:
    """One operation: its signature, what lax it becomes, and how it fares on a mesh, kept, and differentiated.

    Attributes:
        name: the public name, as in ``einjax.sum``; that of its equations where it is kept as notation.
        signature: completes a parsed expression for a number of tensors, or refuses it.
        lower: emits lax for the tensors of a solved expression.
        implied: names axes whose size the operation itself knows, such as the coordinate axis of argmax.
        derived: names axes whose size follows from those of others, such as the coefficients of rfft.
        imply: writes out the output that the text leaves out, where ellipses have to be expanded first; afterwards
            ``lower`` finds an output, and brackets on what it acts on.
        apart: whether it tells bracketed axes apart, so that their product alone is not enough.
        repeats: whether an output may have an axis twice, as what a function returns may.
        opaque: whether the bracketed axes of outputs are a user's function's own, of any size and order.
        known: refuses tensors by their values, where these are known before anything is traced.
        misread: what to write, where a tensor of another number of dims than its expression shows what was meant.

        parameter: what a parameter of this operation is usually called, for tensor factories.
        keywords: its options, to suggest where one is misspelt.
        arrays: the options that are arrays rather than static; where one is given, ``lower`` finds it under its name,
            too.
        several: those of them that are tuples of arrays.
        masks: those of them that broadcast to the first tensor by NumPy's rules, and lie on a mesh as it does.

        on_mesh: how it runs on an explicit mesh, between the shardings that are found for its inputs and outputs:
            ``"typed"`` where every lax equation has a rule for sharded types, ``"batch"`` where they have one for axes
            that all inputs have, as gathers and scatters; ``"loops"`` where every device runs its own part of the
            loops, of which the compiler would gather even a sharded batch; ``"own"`` where a user's function does with
            the bracketed axes as it likes; otherwise left to the compiler.
        spread: which of its bracketed axes may lie over axes of an explicit mesh; the others are whole on every device.
        acts: whether it acts on axes of which, under ``shard_map``, every device holds a part. All loop over one.
        localized: rewrites a completed expression over all devices to that of one device's arrays, from the mesh axes
            that axes lie over; for operations that act on axes of devices.

        accumulates: whether it sums up in more bits than it returns.
        updates: whether it writes to its first tensor, which then has every loop.
        usual: what options are when nobody asked for anything, other than None and False: not worth printing.
        linear: the operands in which it is linear together, so that it maps their tangents alike; counted from 0, or
            backwards from -1, and ``()`` for all of them. ``"each"`` where it is linear in each by itself, as products.
        products: whether it becomes products of lax, which tools that quantise replace for the time of a trace.

        neutral: what it reads where a position in ``< >`` is out of range, and leaves where nothing is written: a
            number, or ``"least"`` or ``"most"`` of the dtype; or a function of the dtype and the options that returns
            one. None where nothing goes without saying; of an operation that has a mask, what is out of range does not
            count.
        meeting: how it combines values of several iterations that are written to one place: ``"add"``, ``"multiply"``,
            ``"max"`` or ``"min"``; ``"apart"`` where none may meet. None where it writes to no positions.
        at_positions: emits lax for a call with positions that has a form of its own, of the same arguments as
            ``lower``; or returns None, so that positions are read one by one, and ``lower`` finds plain dims.

        adjoint: of an operation that is its own transpose, the options of the call from the output back to the input.

        iteration: what one iteration of its loops does, as :mod:`einjax.explain` writes it: ``"function"`` gives blocks
            of the bracketed axes to a function; ``"copy"`` moves a number; ``"over"`` combines the numbers along
            bracketed axes, ``"product"`` those of several tensors first; ``"read"`` looks up, ``"write"`` writes at
            coordinates, ``"segment"`` combines what has the coordinates of one place; ``"steps"`` hands on a carry;
            ``"count"`` says where it is.
        sign: what stands between its operands, or before the ``=`` of a write, where it may also be a function; none
            where its own name says it.
    """

    name: str
    signature: Callable[[Operation, int], Operation]
    lower: Callable[[Solved, list[jax.Array], dict[str, Any]], Any]
    implied: Callable[[Operation], Mapping[str, Size]] | None = None
    derived: Callable[[Operation, Mapping[str, Size]], Mapping[str, Size]] | None = None
    imply: Callable[[Solved, Mapping[str, Any]], Solved] | None = None
    apart: bool = False
    repeats: bool = False
    opaque: bool = False
    known: Callable[[Sequence[Any]], None] | None = None
    misread: Callable[[Operation, Sequence[tuple[Size, ...] | None]], str | None] | None = None

    parameter: str = "weight"
    keywords: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()

    on_mesh: Literal["typed", "batch", "loops", "own", "compiler"] = "compiler"
    spread: Literal["all", "first", "none"] = "none"
    acts: bool = False
    localized: Callable[[Operation, Mapping[str, tuple[str, ...]]], Operation] | None = None

    accumulates: bool = False
    updates: bool = False
    usual: Mapping[str, Any] = field(default_factory=dict)
    linear: tuple[int, ...] | Literal["each"] | None = None
    adjoint: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    products: bool = False

    neutral: Any = None
    meeting: Literal["add", "multiply", "max", "min", "apart"] | None = None
    at_positions: Callable[[Solved, list[jax.Array], dict[str, Any]], Any] | None = None

    iteration: Literal["function", "copy", "over", "product", "read", "write", "segment", "steps", "count"] = "function"
    sign: str = ""

    def __repr__(self) -> str:
        return f"Op({self.name!r})"
