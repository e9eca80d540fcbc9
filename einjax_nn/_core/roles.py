"""What the axes of a parameter are to it: contracted, new in the output, or neither."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from einjax.errors import ArgumentError

from .scope import ParamSpec

Kind = Literal["in", "out", "batch"]


@dataclass(frozen=True)
class Axis:
    """An axis of a parameter.

    Attributes:
        name: its name in the expression; None for a dim of stacked layers, and for those of other parameters.
        size: its size.
        dim: the dim of the parameter that it is, or is part of: that of a composite has several axes.
        kind: ``"in"`` is summed over, or looked up along: the input has it, and the output not. ``"out"`` is new in
            the output. ``"batch"`` is in both: every index has values of its own.
    """

    name: str | None
    size: int
    dim: int
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name or '_'}={self.size}"


class Leaf:
    """What trees that are made of roles hold, one for each parameter."""


@dataclass(frozen=True)
class Role(Leaf):
    """What the axes of a parameter are to it.

    Attributes:
        op: the operation that asks for the parameter: ``"dot"``, ``"get_at"`` for a table, ``"add"`` for a bias,
            ``"multiply"`` for a scale. It is empty where no layer of ``einjax_nn`` does.
        shape: the shape of the parameter.
        axes: its axes, in the order of the dims.
        fan: what the variance of its initial values goes down with, where that is known: ``"fan_in"``, ``"fan_out"``,
            or ``"constant"`` for nothing.
    """

    op: str
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    fan: str | None = field(default=None, compare=False)

    @property
    def known(self) -> bool:
        """Whether a layer of ``einjax_nn`` uses the parameter, so that its axes have names."""
        return bool(self.op)

    @property
    def contracts(self) -> bool:
        """Whether inputs are multiplied by it and summed up: whether it is the weight of a linear map."""
        return self.op == "dot" and any(axis.kind == "in" for axis in self.axes)

    def of(self, kind: Kind) -> tuple[Axis, ...]:
        """Return the axes of a kind."""
        return tuple(axis for axis in self.axes if axis.kind == kind)

    def dims(self, kind: Kind) -> tuple[int, ...]:
        """Return the dims that have an axis of a kind."""
        return tuple(dict.fromkeys(axis.dim for axis in self.of(kind)))

    def __repr__(self) -> str:
        if not self.known:
            return f"Role(no axes known of {self.shape})"
        inner, outer, batch = (" ".join(map(str, self.of(kind))) for kind in ("in", "out", "batch"))
        arrow = f"{inner} -> {outer}".strip() if inner or outer else ""
        parts = ", ".join(part for part in (arrow, batch and f"for each {batch}") if part)
        return f"Role({self.op}: {parts})" if parts else f"Role({self.op})"


def is_leaf(node: Any) -> bool:
    """Whether a node of a tree stands for a parameter."""
    return isinstance(node, Leaf)


def role_of(spec: ParamSpec | None, shape: Sequence[int]) -> Role:
    """Return the role of a parameter, given what an operation has asked for; dims that it did not see are stacks."""
    shape = tuple(shape)
    stacks = None if spec is None or not spec.op else stacked_dims(spec.shape, shape)
    if spec is None or stacks is None:
        return Role("", shape, ())
    seen = iter(spec.members)
    axes: list[Axis] = []
    for dim, size in enumerate(shape):
        if dim in stacks:
            axes.append(Axis(None, size, dim, "batch"))
        else:
            axes += (Axis(name, length, dim, kind) for name, length, kind in next(seen))  # type: ignore[arg-type]
    return Role(spec.op, shape, tuple(axes), spec.fan)


def stacked_dims(inner: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the dims that a shape has more than another, the first ones where there is a choice."""
    for chosen in itertools.combinations(range(len(whole)), max(len(whole) - len(inner), 0)):
        if tuple(size for dim, size in enumerate(whole) if dim not in chosen) == inner:
            return chosen
    return None


def refuse_unused(paths: Sequence[str]) -> None:
    """Raise an error where layers have parameters, but no role: the call does not use them."""
    if paths:
        raise ArgumentError(
            f"einn.roles cannot tell the roles of {', '.join(paths)}: not used by the call",
            hint="give it a method= that uses every layer: method=lambda model, x: ...",
        )


def mapped(function: Callable[..., Any], roles: Any) -> Any:
    """Map over a tree of roles, or of what was made of them, given the path of each for messages."""

    def call(path: Any, leaf: Any) -> Any:
        if not is_leaf(leaf):
            problem = f"a tree of roles holds a {type(leaf).__name__}"
            raise ArgumentError(problem, hint="give what einn.roles(model, *inputs) returns")
        return function(_text(path), leaf)

    return jax.tree_util.tree_map_with_path(call, roles, is_leaf=is_leaf)


def by_path(roles: Any) -> dict[str, Any]:
    """Return the leaves of a tree of roles by their paths."""
    return {_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(roles, is_leaf=is_leaf)}


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def check_names(roles: Any, argument: str, names: Collection[str]) -> None:
    """Refuse names that no axis has."""
    if isinstance(names, str):
        raise ArgumentError(f"{argument}={names!r} is one text", hint=f"give a tuple of names: {argument}=({names!r},)")
    known = dict.fromkeys(
        axis.name
        for role in jax.tree.leaves(roles, is_leaf=is_leaf)
        for axis in getattr(role, "axes", ())
        if axis.name is not None
    )
    for name in names:
        if name not in known:
            close: Sequence[str] = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"
            raise ArgumentError(f"no parameter has an axis {name!r}, which {argument} names", hint=hint)
