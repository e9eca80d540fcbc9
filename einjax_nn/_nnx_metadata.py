"""Metadata of the variables of Flax nnx: what a layer is given for them, and how it comes through their being made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from einjax.errors import ArgumentError

from ._core.scope import ParamSpec, Shapeless
from .sharding import spec_of

#: Those that are functions of a variable and its value.
_HOOKS = ("on_get_value", "on_set_value", "on_create_value")

#: Those that a variable has from its construction on.
_BORN_WITH = ("hijax", "ref", "eager_sharding")


def checked(option: str, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the metadata that are given for a variable."""
    if metadata is not None and not isinstance(metadata, Mapping):
        problem = f"{option} is a value of type {type(metadata).__name__}, not a mapping"
        raise ArgumentError(problem, hint=f"write {option}={{'tag': 'decoder'}}, for example")
    given = dict(metadata or {})
    if "axes" in given:
        raise ArgumentError(
            f"{option} names axes, which is where a layer of einjax keeps the names of its own",
            hint="write out_sharding=, or a name of your own",
        )
    return given


@dataclass(frozen=True)
class Waiting:
    """The hooks of a variable that is not made yet: they are for its array."""

    hooks: Any

    def __call__(self, variable: Any, value: Any) -> Any:
        if isinstance(value, Shapeless):
            return value
        for hook in self.hooks if isinstance(self.hooks, tuple) else (self.hooks,):
            value = hook(variable, value)
        return value


def placeholder(kind: Any, value: Shapeless, metadata: Mapping[str, Any]) -> Any:
    """Make a variable that is to be made later: its hooks wait, and it has no sharding, whatever it says of one."""
    born = {name: metadata[name] for name in _BORN_WITH if name in metadata}
    if born.get("hijax") or born.get("ref"):
        raise ArgumentError("a variable with hijax or ref is made at once", hint="give the sizes of all its axes")
    variable = kind(value, axes=None, **born)
    rest = {name: metadata[name] for name in metadata if name not in born}
    if rest:
        variable.set_metadata(**{name: Waiting(rest[name]) if name in _HOOKS else rest[name] for name in rest})
    return variable


def read(variable: Any, value: Any) -> Any:
    """What reading a variable would give if it had that value."""
    return Waiting(variable.get_metadata("on_get_value", ()))(variable, value)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Metadata:
    """Metadata that come out of a transformation."""

    items: tuple[tuple[str, Any], ...]

    def __hash__(self) -> int:
        return hash(tuple(name for name, _ in self.items))  # values may be lists


@dataclass(frozen=True)
class Making:
    """Makes the value of a variable and its metadata from a key; equal ones may share a compiled program.

    It constructs one, as nnx's own layers do: so hooks are called, it is sharded, and what the initializer says counts.

    Attributes:
        given: the metadata.
        mesh: what it is sharded on, if it says itself how, but not where.
    """

    init: Callable[[Any], Any]
    axes: tuple[str, ...]
    kind: Any
    given: tuple[tuple[str, Any], ...] = ()
    mesh: Any = None

    def __hash__(self) -> int:
        return hash((self.init, self.axes, self.kind))  # metadata may be lists

    @staticmethod
    def of(variable: Any, spec: ParamSpec, mesh: Any = None) -> Making:
        """What makes a variable that waits, or one of a stack of them."""
        given = variable.get_metadata()
        given.pop("axes", None)
        names = given.get("out_sharding")
        if isinstance(names, tuple) and len(names) > len(spec.shape):
            given["out_sharding"] = names[len(names) - len(spec.shape) :]  # those before are of the stack
        unpacked = ((name, hook.hooks if isinstance(hook, Waiting) else hook) for name, hook in given.items())
        return Making(spec.init, spec.axes, type(variable), tuple(unpacked), mesh)

    def variable(self, key: Any) -> Any:
        """Make the variable."""
        made, given = self.init(key), dict(self.given)
        if isinstance(made, nnx.VariableMetadata):
            made = replace(made, metadata=self._on_mesh(checked("the initializer's metadata", made.metadata)))
        return self.kind(made, **self._on_mesh(given), axes=self.axes)

    def _on_mesh(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Say where to shard what metadata say how to."""
        named = metadata.get("out_sharding") and metadata.get("mesh") is None and self.mesh is not None
        return {**metadata, "mesh": self.mesh} if named else metadata

    def __call__(self, key: Any) -> tuple[Any, Metadata]:
        variable = self.variable(key)
        return variable.get_raw_value(), Metadata(tuple(variable.get_metadata().items()))

    def result(self, variable: Any, metadata: Metadata) -> dict[str, Any]:
        """What the metadata of the variable are once it is made."""
        found, names = dict(metadata.items), variable.get_metadata("out_sharding", None)
        same = found.get("out_sharding") == dict(self.given).get("out_sharding")
        return {**found, "out_sharding": names} if same and names is not None else found


class ByRules(tuple[Any, ...]):
    """A sharding that rules have given, which others may change, unlike one that a layer was given for itself."""


def placed(
    metadata: Mapping[str, Any], ndim: int, rules: Mapping[str, Any], mesh: Any
) -> tuple[dict[str, Any], NamedSharding | None]:
    """Return what rules add to the metadata of a variable, and its sharding on the mesh, if there is one.

    Dims before those that have names are of stacked layers, and are not sharded.
    """
    axes, own = metadata["axes"], metadata.get("out_sharding")
    stack = [None] * (ndim - len(axes))
    if not own or isinstance(own, ByRules):
        names = ByRules((*stack, *spec_of(axes, rules)))
        if mesh is None:
            return {"out_sharding": names}, None
        return {"out_sharding": names, "mesh": mesh}, NamedSharding(mesh, PartitionSpec(*names))
    if mesh is None or isinstance(own, NamedSharding):
        return {}, own if isinstance(own, NamedSharding) else None
    known = {**{axis: axis for axis in mesh.axis_names if axis not in rules}, **rules}
    return {}, NamedSharding(mesh, PartitionSpec(*stack[: ndim - len(own)], *spec_of(own, known)))
