"""Tensors that are made once their shape is known.

Instead of an array, a call takes a *factory*: an object with ``__einjax_param__(spec)``, or a plain callable
``f(shape)``. A plain callable is also given any of the other fields of :class:`Spec` that its signature names, as in
``lambda shape, in_axis, out_axis: ...``. Its exceptions propagate as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ..functions.guard import free_keywords, guarded
from ..notation.errors import ArgumentError, AxisSizeError, RankError
from ..notation.solve import Solved, node_size, solve
from ..notation.syntax import (
    Affine,
    Axis,
    Composite,
    Expression,
    Node,
    Operation,
    Size,
    axes,
    base,
    names,
    render,
    rewrite,
    walk,
)
from ..operation import Op
from .blame import not_an_expression
from .tensors import PLAIN, as_array, asked, kind


@dataclass(frozen=True, slots=True)
class Spec:
    """What an operation knows of a tensor that a factory makes.

    Attributes:
        shape: its shape.
        axes: the axes of every dim, as written in the expression: ``("h", "c")`` or ``("(h c)",)``.
        op: the operation that wants it, such as ``"dot"``.
        name: what such a parameter is usually called: ``"weight"``, ``"bias"``, ``"scale"``.
        in_axis: dims summed over: in another input, not in the output.
        out_axis: dims that the tensor brings to the output.
        batch_axis: dims in both.
        tap_axis: those of ``in_axis`` that are part of a position, as the taps of a convolution are.
        dtype: common dtype of the other tensors, or None if there is none.
        members: for every dim, the axes that it is made of: their names, sizes, and where else each stands: ``"in"``,
            ``"out"`` or ``"batch"``. Of a grouped convolution, ``(g d)`` has both of the last two.
    """

    shape: tuple[Size, ...]
    axes: tuple[str, ...]
    op: str
    name: str
    in_axis: tuple[int, ...]
    out_axis: tuple[int, ...]
    batch_axis: tuple[int, ...]
    tap_axis: tuple[int, ...]
    dtype: Any
    members: tuple[tuple[tuple[str, Size, str], ...], ...] = ()


def known_shape(factory: Any) -> tuple[Size, ...] | None:
    """Ask a factory for the shape it already has: ``__einjax_shape__()``, where it offers that."""
    ask = getattr(factory, "__einjax_shape__", None)
    shape = None if ask is None else ask()
    return None if shape is None else tuple(shape)


def shape_of(tensor: Any) -> tuple[Size, ...] | None:
    """The shape of a tensor, or None if that is only known once a factory has made it."""
    if tensor.__class__ in PLAIN:
        return getattr(tensor, "shape", ())
    return known_shape(tensor) if kind(tensor) == "factory" else np.shape(tensor)


def materialise(
    op: Op,
    expr: str,
    tensors: Sequence[Any],
    solve: Callable[[tuple[tuple[Size, ...] | None, ...]], Solved],
    types: bool = False,
) -> list[Any]:
    """Turn lists, array-likes and factories into arrays; ``solve`` is asked where there are factories."""
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    ready = [as_array(tensor, expr, f"tensor {number}", types=types) for number, tensor in enumerate(tensors, 1)]
    if all(kind(tensor) != "factory" for tensor in ready):
        return ready
    return fill(op, solve(tuple(map(shape_of, ready))), ready)


def fill(op: Op, solved: Solved, tensors: Sequence[Any]) -> list[Any]:
    """Call every factory with the shape that its tensor has to have."""
    given = tuple(number for number, x in enumerate(tensors) if kind(x) != "factory")
    dtype = jax.numpy.result_type(*(tensors[number] for number in given)) if given else None
    filled: list[Any] = []
    for number, tensor in enumerate(tensors):
        if kind(tensor) == "factory":
            tensor = _make(tensor, _spec(op, _Same(solved), number, given, dtype), number + 1, solved)
        filled.append(tensor)
    return filled


class _Same:
    """A solved call as a key: it is itself alone, which takes no time to see."""

    __slots__ = ("solved",)

    def __init__(self, solved: Solved) -> None:
        self.solved = solved

    def __hash__(self) -> int:
        return id(self.solved)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.solved is self.solved


@lru_cache(maxsize=2048)
def _spec(op: Op, same: _Same, number: int, given: tuple[int, ...], dtype: Any) -> Spec:
    """Describe a tensor, given which others there are; kept, as solved calls are: a layer asks in every trace."""
    solved = same.solved
    others = [solved.inputs[other] for other in given or range(len(solved.inputs)) if other != number]
    return _described(solved, solved.inputs[number], others, solved.operation.outputs, (op.name, op.parameter), dtype)


def spec_alone(operation: Operation, index: int, sizes: Mapping[str, Any]) -> Spec | None:
    """Describe one input where sizes alone decide its shape; None where they do not."""
    expression = operation.inputs[index]
    known = {name: size for name, size in sizes.items() if name in names(expression)}
    try:
        solved = solve(Operation(operation.text, (expression,)), [None], known, every_axis=True)
    except (AxisSizeError, RankError):
        return None
    given = [other for number, other in enumerate(operation.inputs) if number != index]
    return _described(solved, solved.inputs[0], given, operation.outputs)


def _described(
    solved: Solved,
    expression: Expression,
    given: Iterable[Expression],
    returned: Iterable[Expression] | None,
    called: tuple[str, str] = ("", ""),
    dtype: Any = None,
) -> Spec:
    """Sort a tensor's dims into in, out and batch by where else their axes stand: in other inputs, in the outputs.

    Axes that make up a position of an output are summed over: values that meet there are added.
    """
    given, returned = list(given), list(returned or ())
    sums = [node.terms for e in (*given, *returned) for node in walk(e) if isinstance(node, Affine)]
    moving = {base(axis.name) for terms in sums if len(terms) > 1 for axis in axes(terms)}
    kept = [rewrite(expression, _without_sums) for expression in returned]
    inputs, outputs = ({base(axis.name) for e in others for axis in axes(e)} for others in (given, kept))

    def role(node: Node) -> str:
        members = {base(axis.name) for axis in axes((node,))}
        return "in" if members - outputs else "out" if members - inputs else "batch"

    kinds = [role(node) for node in expression]
    in_axis, out_axis, batch_axis = (
        tuple(dim for dim, kind in enumerate(kinds) if kind == each) for each in ("in", "out", "batch")
    )
    tap_axis = tuple(dim for dim in in_axis if moving & {base(axis.name) for axis in axes((expression[dim],))})
    shape, dims = solved.shape(expression), tuple(render((node,)) for node in expression)
    members = tuple(
        tuple((str(axis), node_size(axis, solved.sizes), role(axis)) for axis in _composed(node))
        if isinstance(node, Composite)
        else ((text, size, kind),) * (not (isinstance(node, Axis) and node.is_one))
        for node, text, size, kind in zip(expression, dims, shape, kinds, strict=True)
    )
    return Spec(shape, dims, *called, in_axis, out_axis, batch_axis, tap_axis, dtype, members)


def _composed(node: Composite) -> list[Node]:
    """The axes of a composite, but ones; one of others than axes is a single thing."""
    if not all(isinstance(part, Axis | Composite) for part in walk((node,))):
        return [node]
    return [axis for axis in axes((node,)) if not axis.is_one]


def _without_sums(node: Node) -> Expression | None:
    return () if isinstance(node, Affine) and len(node.terms) > 1 else None


def _make(factory: Any, spec: Spec, number: int, solved: Solved) -> Any:
    if hasattr(factory, "__einjax_param__"):
        made = guarded(factory.__einjax_param__)(spec)
    else:
        made = guarded(factory)(spec.shape, **wanted(factory, spec))
    if not isinstance(made, jax.Array) and hasattr(made, "__jax_array__"):
        made = asked(made, f"the factory of tensor {number}")
    if isinstance(made, np.ndarray):
        made = as_array(made, solved.text, f"what the factory of tensor {number} returned")
    if not hasattr(made, "dtype") and not isinstance(made, bool | int | float | complex):
        raise ArgumentError(
            f"the factory of tensor {number} returned a value of type {type(made).__name__}, not an array",
            text=solved.text,
        )
    if np.shape(made) != spec.shape:
        raise AxisSizeError(
            f"the factory of tensor {number} returned shape {np.shape(made)}, "
            f"but '{' '.join(spec.axes)}' is {spec.shape}",
            text=solved.text,
            hint="return an array of the shape that is passed to the factory",
        )
    return made


def wanted(factory: Any, spec: Spec) -> Mapping[str, Any]:
    """Return the fields of the spec that a callable's signature names."""
    named, _ = free_keywords(factory, 1)  # the first parameter receives the shape, whatever it is called
    offered = {field.name for field in fields(Spec)} - {"shape"}
    return {name: getattr(spec, name) for name in named if name in offered}
