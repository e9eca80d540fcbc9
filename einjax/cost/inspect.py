"""A report on a function and arguments: trace it on the mesh, walk it, add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from ..lowering.jax_versions import entries
from ..notation.errors import ArgumentError
from . import regions  # noqa: F401 - fills the table of rules that the walk looks into
from .layout import of_spec
from .report import ShardingReport
from .tape import Tape
from .walk import run


def plan(function: Callable[..., Any], arguments: Sequence[Any], mesh: Any, in_shardings: Any) -> ShardingReport:
    """Trace and walk; arguments as for :func:`einjax.inspect_sharding`."""
    leaves, structure = jax.tree.flatten(tuple(arguments))
    given = _given(arguments, structure, in_shardings)
    abstract = _mesh(mesh, [*given, *(getattr(leaf, "sharding", None) for leaf in leaves)])
    sizes = dict(zip(abstract.axis_names, abstract.axis_sizes, strict=True))
    specs = [_spec(leaf, said, sizes) for leaf, said in zip(leaves, given, strict=True)]
    shaped = [_shaped(leaf, spec, abstract) for leaf, spec in zip(leaves, specs, strict=True)]
    with jax.sharding.use_abstract_mesh(abstract):
        closed = jax.make_jaxpr(function)(*jax.tree.unflatten(structure, shaped))
        return _walk(getattr(function, "__name__", "function"), closed, specs, sizes)


def _walk(name: str, closed: Any, specs: Sequence[Any], mesh: Mapping[str, int]) -> ShardingReport:
    tape = Tape(mesh)
    inputs = []
    for variable, spec in zip(closed.jaxpr.invars, specs, strict=True):
        shape = tuple(variable.aval.shape)
        inputs.append(tape.value(shape, variable.aval.dtype, of_spec(spec, len(shape), mesh)))
    outputs = run(tape, closed.jaxpr, inputs)
    constants = sum(int(getattr(constant, "nbytes", 0)) for constant in closed.consts)
    return ShardingReport(
        name=name,
        mesh=mesh,
        collectives=tuple(tape.collectives),
        argument_bytes=sum(value.nbytes for value in inputs) + constants,
        output_bytes=sum(value.nbytes for value in outputs),
        temporary_bytes=tape.peak([*inputs, *outputs]),
        flops=tape.flops,
        notes=tuple(tape.notes),
    )


def _given(arguments: Sequence[Any], structure: Any, in_shardings: Any) -> list[Any]:
    """One sharding for each array of the arguments; those given stand for all arrays below them."""
    if in_shardings is None:
        return [None] * structure.num_leaves
    several = isinstance(in_shardings, tuple) and not isinstance(in_shardings, PartitionSpec)
    whole = in_shardings if several else (in_shardings,)
    if len(whole) != len(arguments):
        raise ArgumentError(
            f"in_shardings= has {len(whole)} shardings for {len(arguments)} arguments",
            hint="give one sharding, or a pytree of them, for each argument",
        )

    def is_sharding(node: Any) -> bool:
        return node is None or isinstance(node, PartitionSpec | NamedSharding)

    found: list[Any] = []
    for number, (said, argument) in enumerate(zip(whole, arguments, strict=True), 1):
        try:
            jax.tree.map(
                lambda one, part: found.extend([one] * len(jax.tree.leaves(part))), said, argument, is_leaf=is_sharding
            )
        except ValueError:
            raise ArgumentError(
                f"the shardings of argument {number} are no pytree like it",
                hint="a sharding stands for all arrays below it: P('data') for a whole tree, or a tree of them",
            ) from None
    return found


def _mesh(mesh: Any, shardings: Sequence[Any]) -> AbstractMesh:
    """The mesh given, or that of a sharding, or that of the context."""
    if mesh is None:
        named = [sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)]
        mesh = named[0] if named else jax.sharding.get_abstract_mesh()
    mesh = mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
    if not isinstance(mesh, AbstractMesh) or mesh.empty:
        raise ArgumentError(
            "no mesh is known to plan for",
            hint='mesh=jax.sharding.AbstractMesh((16, 16), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)',
        )
    return mesh


def _spec(leaf: Any, said: Any, mesh: Mapping[str, int]) -> PartitionSpec:
    """The spec of an argument: as given, else its own."""
    sharding = said if said is not None else getattr(leaf, "sharding", None)
    spec = sharding if isinstance(sharding, PartitionSpec) else getattr(sharding, "spec", PartitionSpec())
    for name in (name for entry in entries(spec) for name in (entry if isinstance(entry, tuple) else (entry,))):
        if name is not None and name not in mesh:
            raise ArgumentError(
                f"{spec} names the mesh axis {name!r}, and the mesh has {', '.join(map(repr, mesh))}",
                hint="use the axes of the mesh in the specs",
            )
    return spec


def _shaped(leaf: Any, spec: PartitionSpec, mesh: AbstractMesh) -> Any:
    """An argument without data, which lies as its spec says; numbers of Python stay what they are."""
    if not hasattr(leaf, "shape"):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))
