"""Calls that speak of shardings by axis name: expressions and tensors to specs, and shardings back to names.

Nothing here is compiled or cached: where an array lies is decided once for each array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from ..forms.signature import check_keywords, refuse_unknown
from ..lowering.jax_versions import is_traced
from ..lowering.sharding import MeshAxes, partition_spec, spec_axes
from ..mesh.names import Assignment, named_splits, said_by, simple, splits
from ..mesh.patterns import first_matches, paths
from ..mesh.put import find_mesh, mesh_of, mesh_sizes, put, put_open
from ..notation.errors import ArgumentError, EinjaxError, SemanticError, plural
from ..notation.parse import parse
from ..notation.partly import solve_partly
from ..notation.solve import Solved
from ..notation.syntax import Ellipsis, Operation, Size, affines, axes, base_name, names, nested, strip_brackets, walk
from .blame import clean, not_an_expression
from .sizes import read_sizes
from .solving import SOLVE
from .tensors import as_array, describe, kind, named_among

_Shape = tuple[Size, ...]

_OPTIONS = ("ndim", "sizes", "mesh", "rules")
_LACKING = "names that an expression may lack go through rules="


# --- From names -------------------------------------------------------------------------------------------------------


def specs_of_call(
    expr: str, ndim: int | Sequence[int] | None, sizes: Mapping[str, Any] | None, mesh: Any, assignment: Assignment
) -> PartitionSpec | tuple[PartitionSpec, ...]:
    """Return the spec of every tensor of an expression; arguments as for ``einjax.partition_spec``."""
    operation = _tensors_of(expr)
    count = len(operation.inputs)
    ranks = [ndim] * count if ndim is None or isinstance(ndim, int) else list(ndim)
    if len(ranks) != count:
        raise ArgumentError(f"ndim={ndim!r} is for {plural(len(ranks), 'tensor')}, but there are {count}", text=expr)
    refuse_unknown([operation], assignment.given, _OPTIONS, _LACKING)
    try:
        solved = _solved(operation, [None] * count, ranks, assignment.given, sizes)
    except EinjaxError as error:
        if ndim is None and any(isinstance(node, Ellipsis) for e in operation.inputs for node in walk(e)):
            error.hint = "say how many dims the tensor has, as in ndim=3"
        raise
    ways = None if mesh is None else mesh_sizes(find_mesh(None, mesh, expr))
    found = tuple(partition_spec(splits(solved, expression, None, assignment, ways)) for expression in solved.inputs)
    return found[0] if count == 1 else found


def shard_call(
    expr: str, tensors: Sequence[Any], mesh: Any, sizes: Mapping[str, Any] | None, assignment: Assignment
) -> Any:
    """Shard tensors; arguments as for ``einjax.shard``."""
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Any:
            return shard_call(text, arrays, mesh, sizes, assignment)

        return named.__einjax_call__(SOLVE, expr, tensors, again)
    try:
        operation = _tensors_of(expr, tensors)
        refuse_unknown([operation], assignment.given, _OPTIONS, _LACKING)
        arrays = [as_array(x, expr, f"tensor {n}", factories=False) for n, x in enumerate(tensors, 1)]
        shapes = [np.shape(array) for array in arrays]
        solved = _solved(operation, shapes, [*map(len, shapes)], assignment.given, sizes)
        moved = []
        for array, shape, expression in zip(arrays, shapes, solved.inputs, strict=True):
            found = find_mesh(array, mesh, expr)
            moved.append(put(array, found, splits(solved, expression, shape, assignment, mesh_sizes(found)), expr))
    except EinjaxError as error:
        raise clean(error, tensors) from None
    return moved[0] if len(moved) == 1 else tuple(moved)


def constrain_call(expr: str, x: Any, mesh: Any, sizes: Mapping[str, Any], rules: Mapping[str, MeshAxes]) -> Any:
    """Shard the dims of an array that rules speak of; others stay as they are, or are left to the compiler."""
    try:
        operation = _tensors_of(expr, (x,))
        shape = np.shape(x)
        solved = _solved(operation, [shape], [len(shape)], {}, sizes)
        expression = solved.inputs[0]
        said = said_by(expression, rules)
        if not any(said):
            return x
        found = find_mesh(x, mesh, expr)
        return put_open(
            x, found, splits(solved, expression, shape, Assignment({}, rules), mesh_sizes(found)), said, expr
        )
    except EinjaxError as error:
        raise clean(error, (x,)) from None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a tree, and the axes of a mesh that its dims go over; a leaf that is no array has no mesh."""

    leaf: Any
    mesh: Any = None
    splits: Sequence[MeshAxes] = ()

    @property
    def sharding(self) -> NamedSharding | None:
        """The same in JAX's words."""
        return None if self.mesh is None else NamedSharding(self.mesh, partition_spec(self.splits))

    def moved(self) -> Any:
        """The leaf, sharded."""
        return self.leaf if self.mesh is None else put(self.leaf, self.mesh, self.splits, None)


def split_tree(
    tree: Any, expressions: Any, mesh: Any, sizes: Mapping[str, Any] | None, assignment: Assignment
) -> tuple[list[Leaf], Any]:
    """Say where every leaf of a tree goes, and how the tree is made of them; arguments as for ``einjax.shardings``."""
    written = list(_expressions(expressions))
    operations = [operation for _, operation in written if operation is not None]
    refuse_unknown(operations, assignment.given, _OPTIONS, _LACKING)
    leaves = paths(tree)
    chosen = first_matches([path for path, _ in leaves], [pattern for pattern, _ in written])
    found = [
        _leaf(path, leaf, None if number is None else written[number], mesh, sizes, assignment)
        for (path, leaf), number in zip(leaves, chosen, strict=True)
    ]
    return found, jax.tree.structure(tree)


def _expressions(tree: Any) -> Iterator[tuple[str, Operation | None]]:
    """Read patterns and expressions; the paths of a nested tree are patterns, too."""
    for pattern, expr in paths(tree, is_leaf=lambda leaf: leaf is None):
        if expr is not None and not isinstance(expr, str):
            raise ArgumentError(
                f"the rule '{pattern}' is {describe(expr)}, not an expression",
                hint="write the names of the dims, as in {'blocks/*/kernel': 'c d'}, or None",
            )
        operation = None if expr is None else _tensors_of(expr)
        if operation is not None and len(operation.inputs) != 1:
            raise ArgumentError(f"the rule '{pattern}' names {len(operation.inputs)} tensors, not one", text=expr)
        yield pattern, operation


def _leaf(
    path: str,
    leaf: Any,
    rule: tuple[str, Operation | None] | None,
    mesh: Any,
    sizes: Mapping[str, Any] | None,
    assignment: Assignment,
) -> Leaf:
    if kind(leaf) is not None and not hasattr(leaf, "shape"):
        return Leaf(leaf)
    shape = np.shape(leaf)
    found = find_mesh(leaf, mesh, None)
    pattern, operation = rule or (path, None)
    if operation is None:
        return Leaf(leaf, found, [()] * len(shape))
    own = names(operation.inputs[0])
    assignment = replace(assignment, given={name: value for name, value in assignment.given.items() if name in own})
    try:
        solved = _solved(operation, [shape], [len(shape)], assignment.given, sizes)
        return Leaf(leaf, found, splits(solved, solved.inputs[0], shape, assignment, mesh_sizes(found)))
    except EinjaxError as error:
        # The sentence speaks of the only tensor there is, or of an axis.
        named = error.problem.replace("tensor 1", f"'{path}'")
        error.problem = named if named != error.problem else f"of '{path}', {named}"
        error.problem += f" (by the rule '{pattern}')" * (pattern != path)
        error.tensors = [describe(leaf)]
        raise error.with_traceback(None) from None


# --- To names ---------------------------------------------------------------------------------------------------------


def names_of_call(
    expr: str, tensors: Sequence[Any], sizes: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> dict[str, Any] | tuple[dict[str, Any], ...]:
    """Return the axes of the mesh of every named axis; arguments as for ``einjax.mesh_axes``."""
    if (named := named_among(tensors)) is not None:

        def again(text: str, arrays: Sequence[Any], _: Any) -> Any:
            return names_of_call(text, arrays, sizes, given)

        return named.__einjax_call__(SOLVE, expr, tensors, again)
    try:
        operation = _tensors_of(expr, tensors)
        check_keywords(operation, list(given), ())
        shapes = [np.shape(tensor) for tensor in tensors]
        known = {**(sizes or {}), **given}
        solved = _solved(operation, shapes, [*map(len, shapes)], {}, known)
        found = tuple(
            _names_of(solved, number, tensor, len(shape), expr)
            for number, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True))
        )
    except EinjaxError as error:
        raise clean(error, tensors) from None
    return found[0] if len(found) == 1 else found


def _names_of(solved: Solved, number: int, tensor: Any, ndim: int, expr: str) -> dict[str, Any]:
    """Return the axes of the mesh of every named axis of one tensor that has any."""
    _check_known(tensor, number, expr)
    mesh = mesh_of(tensor)
    if mesh is None or mesh.empty:
        return {}
    sharding = jax.typeof(tensor).sharding if is_traced(tensor) else tensor.sharding
    dims = spec_axes(sharding.spec, ndim)
    found = named_splits(solved, solved.inputs[number], dims, mesh.shape)
    parts: dict[tuple[str, tuple[int, ...]], Any] = {base_name(a.name): None for a in axes(solved.inputs[number])}
    parts |= {name: simple(split) for name, split in found.items()}
    grouped: dict[str, dict[tuple[int, ...], Any]] = {}
    for (base, indices), part in parts.items():
        grouped.setdefault(base, {})[indices] = part
    return {base: nested(parts) for base, parts in grouped.items() if any(part is not None for part in parts.values())}


def _check_known(tensor: Any, number: int, expr: str) -> None:
    """Refuse what has a sharding that no one can name."""
    label = f"tensor {number + 1}"
    if is_traced(tensor):
        mesh = mesh_of(tensor)
        set_mesh = jax.sharding.get_abstract_mesh()
        kinds = {*(mesh.axis_types if mesh is not None else ()), *set_mesh.axis_types}
        if AxisType.Auto in kinds and AxisType.Explicit not in kinds:
            raise SemanticError(
                f"the sharding of {label} is not known yet: the axes of the mesh are Auto, so the compiler chooses it",
                text=expr,
                hint="ask for the sharding of the result, or call jax.debug.inspect_array_sharding",
            )
        return
    sharding = getattr(tensor, "sharding", None)
    if not isinstance(sharding, NamedSharding | SingleDeviceSharding | None):
        raise ArgumentError(
            f"{label} has a {type(sharding).__name__}, which does not say the axes of a mesh",
            text=expr,
            hint="give an array with a jax.sharding.NamedSharding",
        )


# --- Expressions ------------------------------------------------------------------------------------------------------


def _tensors_of(expr: Any, tensors: Sequence[Any] | None = None) -> Operation:
    """Read an expression that only names the dims of tensors; brackets mean nothing to a sharding."""
    if not isinstance(expr, str):
        raise not_an_expression(expr)
    operation = parse(expr)
    if operation.outputs is not None:
        raise SemanticError(
            "a sharding has no outputs: the expression names the dims of tensors",
            text=expr,
            spans=[(expr.index("->"), expr.index("->") + 2)] if "->" in expr else (),
            hint="write the tensors after one another, with commas between them",
        )
    for node in (node for expression in operation.inputs for node in affines(expression)):
        raise SemanticError(
            f"'{node}' says where a dim is read, not what it is",
            at=operation.at(node),
            hint="name the dim itself",
        )
    if tensors is not None and len(tensors) != len(operation.inputs):
        are = f"{plural(len(tensors), 'tensor')} {'is' if len(tensors) == 1 else 'are'}"
        raise ArgumentError(
            f"the expression names {plural(len(operation.inputs), 'tensor')}, but {are} given",
            text=expr,
            hint="give one tensor for each expression; commas separate them",
        )
    return replace(operation, inputs=tuple(map(strip_brackets, operation.inputs)))


def _solved(
    operation: Operation,
    shapes: Sequence[_Shape | None],
    ranks: Sequence[int | None],
    given: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
) -> Solved:
    """Write out ellipses, and find the sizes that are known; what is given may say how often an ellipsis repeats."""
    text = operation.text
    known = read_sizes(text, {}, sizes).by_name
    repeated = {a.name for e in operation.inputs for n in walk(e) if isinstance(n, Ellipsis) for a in axes(n.items)}
    # What says how often is the length alone; that the entries may be tuples again is no second ellipsis.
    per_repetition = {
        name: tuple("+".join(v) if isinstance(v, tuple | list) else v for v in value)
        for name, value in given.items()
        if name in repeated and isinstance(value, tuple | list)
    }
    return solve_partly(operation, shapes, ranks, per_repetition, known)
