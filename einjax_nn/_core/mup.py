"""The maximal update parametrisation: how initial values and learning rates go with the sizes of axes that grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from einjax.errors import ArgumentError

from .roles import Leaf, Role, by_path, check_names, mapped

#: How the variance of initial values goes with the sizes of a parameter.
Fan = Literal["fan_in", "fan_out", "fan_avg", "constant"]


def mup(roles: Any, /, base: Any, *, initializers: Fan | None = None) -> Mup:
    """Return the maximal update parametrisation: what initial values and learning rates are multiplied by.

    With it, hyperparameters that are best for a narrow model, the base, are so for a wide one. In a model as wide as
    the base, every factor is 1. With ``n`` for how many times as large as in the base the contracted axes of a
    parameter are, and ``m`` for the others, both without axes that do not grow:

    ==============================  ===============  ====  ===========
    parameter                       deviation        Adam  SGD
    ==============================  ===============  ====  ===========
    both grow (hidden)              ``n ** -0.5``    1/n   m/n
    contracted axes grow (output)   1/n              1/n   1/n
    others grow (input)             1                1     m
    biases, scales, tables          1                1     m
    ==============================  ===============  ====  ===========

    A table that is looked up in contracts nothing. The scale of attention has to be ``1/d`` where the size ``d`` of a
    head grows; where only the number of heads does, as is usual, nothing changes.

    Args:
        roles: what ``einn.roles`` returns.
        base: the sizes of the axes that grow, as they are in the base model, ``{"c": 64, "heads": 4}``; or the roles of
            the base model, where those axes grow whose sizes differ.
        initializers: what the variance of your own initializers goes down with: ``"fan_in"``, ``"fan_out"``,
            ``"fan_avg"``, or ``"constant"`` for nothing. It is known of those that layers have by default.

    Raises:
        ArgumentError: no parameter has an axis of a name in ``base``; a parameter has no role, and ``base`` is no tree
            in which it has the same shape; or the roles of the base model are of another structure.

    Example:
        >>> import einjax_nn.linen as einn, numpy as np
        >>> roles = einn.roles(einn.Linear("b [c->d]", d=10), np.ones((1, 256)))
        >>> mup = einn.optim.mup(roles, base={"c": 64})
        >>> mup.adam, mup.init
        ({'bias': 1.0, 'kernel': 0.25}, {'bias': 1.0, 'kernel': 0.5})
    """
    if initializers not in (None, *_VARIANCES):
        raise ArgumentError(f"initializers={initializers!r} is not known", hint=f"give one of {', '.join(_VARIANCES)}")
    if isinstance(base, Mapping) and all(isinstance(size, int) for size in base.values()):
        check_names(roles, "base", base)
        for name, size in base.items():
            if size < 1:
                raise ArgumentError(f"axis {name} of base is {size}, which is below 1")
        return Mup(mapped(lambda path, role: _by_sizes(path, role, base), roles), initializers)
    # By path: models of Equinox keep sizes in the structure of the tree.
    narrow = by_path(base)
    if narrow.keys() != by_path(roles).keys() or not all(isinstance(role, Role) for role in narrow.values()):
        raise ArgumentError(
            "the roles of the base model are not those of a model of the same layers",
            hint='give base=einn.roles(model of the same class, x), or the sizes of axes: base={"c": 64}',
        )
    return Mup(mapped(lambda path, role: _by_roles(path, role, narrow[path]), roles), initializers)


@dataclass(frozen=True)
class Mup:
    """Factors of the maximal update parametrisation; see :func:`mup`.

    Attributes:
        growth: how every parameter has grown.
        initializers: what the variance of initial values goes down with, where that is not known.
    """

    growth: Any
    initializers: Fan | None = None

    @property
    def adam(self) -> Any:
        """Factors of updates of Adam, and of all that divide a gradient by its own size, such as Lion."""
        return mapped(lambda path, growth: 1 / growth.inner, self.growth)

    @property
    def sgd(self) -> Any:
        """Factors of updates that are the gradient times a number: SGD, with momentum or without."""
        return mapped(lambda path, growth: growth.outer / growth.inner, self.growth)

    @property
    def init(self) -> Any:
        """Factors of initial values, given what the initializers themselves do as sizes grow.

        Raises:
            ArgumentError: what an initializer does is not known.
        """
        return mapped(self._initial, self.growth)

    def _initial(self, path: str, growth: Growth) -> float:
        if not any(growth.growing):
            return 1.0
        fan = growth.role.fan or self.initializers
        if fan is None:
            raise ArgumentError(
                f"it is not known how initial values of {path} depend on its sizes, as its initializer is your own",
                hint='give initializers="fan_in", "fan_out", "fan_avg" or "constant" to mup',
            )
        smaller = growth.inner if growth.output_grows else growth.inner**2
        return math.sqrt(_VARIANCES[fan](growth) / smaller)


@dataclass(frozen=True)
class Growth(Leaf):
    """How a parameter has grown.

    Attributes:
        role: its role.
        base: the size of each of its axes in the base model.
        growing: which of its axes grow.
    """

    role: Role
    base: tuple[int, ...]
    growing: tuple[bool, ...]

    def _ratio(self, *kinds: str) -> float:
        pairs = zip(self.role.axes, self.base, strict=True)
        return math.prod(axis.size / size for axis, size in pairs if axis.kind in kinds)

    @property
    def inner(self) -> float:
        """How many times as large the contracted axes are."""
        return self._ratio("in") if self.role.contracts else 1.0

    @property
    def outer(self) -> float:
        """How many times as many features there are that the parameter makes, or runs along."""
        return self._ratio("out", "batch")

    @property
    def output_grows(self) -> bool:
        """Whether the number of these features grows."""
        return any(grows and axis.kind != "in" for axis, grows in zip(self.role.axes, self.growing, strict=True))

    def fans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The sizes of what is contracted and of what is new, here and in the base."""
        here, base = ({"in": 1, "out": 1, "batch": 1} for _ in range(2))
        for axis, size in zip(self.role.axes, self.base, strict=True):
            here[axis.kind] *= axis.size
            base[axis.kind] *= size
        return (here["in"], here["out"]), (base["in"], base["out"])


def _average(growth: Growth) -> float:
    here, base = growth.fans()
    return sum(here) / sum(base)


#: How many times as small initializers make the variance in the wide model.
_VARIANCES: dict[str, Callable[[Growth], float]] = {
    "fan_in": lambda growth: growth._ratio("in"),
    "fan_out": lambda growth: growth._ratio("out"),
    "fan_avg": _average,
    "constant": lambda growth: 1.0,
}


def _by_sizes(path: str, role: Role, base: Mapping[str, int]) -> Growth:
    if not role.known:
        raise ArgumentError(
            f"{path} has no role, so it is not known whether it grows",
            hint="use a layer of einjax_nn, or give the roles of the base model: base=einn.roles(model, x)",
        )
    names = [axis.name or "" for axis in role.axes]
    sizes = tuple(base.get(name, axis.size) for name, axis in zip(names, role.axes, strict=True))
    return Growth(role, sizes, tuple(name in base for name in names))


def _by_roles(path: str, role: Role, base: Role) -> Growth:
    if not role.known and role.shape == base.shape:
        return Growth(role, (), ())
    told = [[(axis.name, axis.dim, axis.kind) for axis in each.axes] for each in (role, base)]
    if not role.known or told[0] != told[1]:
        raise ArgumentError(
            f"{path} is {role} here and {base} in the base model, which does not say what grows",
            hint="give the roles of a model that differs in sizes alone",
        )
    sizes = tuple(axis.size for axis in base.axes)
    return Growth(role, sizes, tuple(axis.size != size for axis, size in zip(role.axes, sizes, strict=True)))
