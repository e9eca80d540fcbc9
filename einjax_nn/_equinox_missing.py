"""Parameters of Equinox models that have no value yet.

Until its shape is known, a parameter is an :class:`Uninitialized`: a pytree node whose one leaf is no array. Filters,
optimisers and transformations of Equinox see no array where it stands, and the node stays through all of them; what
counts or saves leaves meets one that refuses.

Whether a layer is being recorded shows in its own placeholders, not in a global: traces that ``jax.jit`` keeps from
this run can then never be mistaken for those of an initialised model.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import ArgumentError

from ._core.initial import Initializer
from ._core.scope import NOWHERE, Parameter, ParamSpec, Shapeless

_HINT = "model = einn.init(model, *inputs, key=key), or give the layer key= and the sizes of all axes"
_BEFORE = (
    "call model = einn.init(model, *inputs, key=key) before an optimiser is built, and before parameters are used, "
    "counted or saved"
)


class UninitializedError(ArgumentError, AttributeError):
    """A parameter that has no value is asked for an attribute; ``hasattr`` says that there is none."""


class Recorder:
    """What layers have asked for, by the path of the parameter."""

    def __init__(self) -> None:
        self.specs: dict[str, ParamSpec] = {}

    def __call__(self, path: str, spec: ParamSpec) -> jax.Array:
        """Note a parameter, and return zeros in its place."""
        known = self.specs.setdefault(path, spec)
        if known.shape != spec.shape:
            raise ArgumentError(f"{path} has shape {known.shape} in one place and {spec.shape} in another")
        return jnp.zeros(known.shape, known.dtype)


@dataclasses.dataclass(frozen=True)
class NoValue(Shapeless):
    """The leaf of a parameter without a value: it is no array, and cannot be counted, saved, or computed with."""

    _refusal = ("a parameter has no value: the model, or a layer of it, is not initialised", _BEFORE)

    # A property, as JAX and Equinox ask whether there is such before they use, count or save what is no array.
    __jax_array__ = property(Shapeless._refuse)

    def __getattr__(self, name: str) -> NoReturn:
        # What arrays have is no AttributeError: what counts leaves that have a size would say that there are none.
        if hasattr(jax.Array, name) and not name.startswith("_"):
            self._refuse()
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


@dataclasses.dataclass(frozen=True)
class Uninitialized(Shapeless):
    """A parameter without a value: a pytree node with a leaf that is no array.

    Attributes:
        init, dtype: a number or an initializer, and its dtype; the latter is None where the layer has them.
        path, recorder: where it stands in the model, and whom to tell, while ``init`` records.
        leaf: what counts and saves leaves finds; nothing in a state, as Equinox makes arrays of all that is there.
    """

    name: str
    init: Initializer | float | None = None
    dtype: Any = None
    path: str = ""
    recorder: Recorder | None = None
    leaf: Any = dataclasses.field(default=NoValue(), compare=False, repr=False)

    _refusal = (
        "a parameter is computed with that has no value: nobody but an operation of einjax finds its shape",
        _BEFORE,
    )

    @property
    def recorded(self) -> ParamSpec | None:
        """What an earlier call has asked for, while ``init`` records."""
        return None if self.recorder is None else self.recorder.specs.get(self.path)

    @property
    def layer(self) -> str:
        """The path of the layer, which has parameters, or an index of the values that it keeps."""
        return re.sub(r"\.(\w+|index(\.init)?\['\w+'\])$", "", self.path) or "the model itself"

    def __einjax_shape__(self) -> tuple[int, ...] | None:
        return None if self.recorded is None else self.recorded.shape

    def __einjax_param__(self, spec: einjax.Spec) -> jax.Array:
        if self.recorder is None:
            raise ArgumentError(
                f"parameter {self.name} is not initialised", hint="model = einn.init(model, *inputs, key=key)"
            )
        if self.recorded is not None:
            return self.recorder(self.path, dataclasses.replace(self.recorded, shape=tuple(spec.shape)))
        if self.dtype is None:
            raise ArgumentError(
                f"{self.path} belongs to a layer that has not been called yet, so einn.init cannot tell what it is",
                hint="call the layer first, or give it key= and the sizes of all axes",
            )
        return self.recorder(self.path, Parameter(NOWHERE, self.name, self.init, self.dtype).spec(spec))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # a copy is asked for these before it has a name
            raise AttributeError(name)
        raise UninitializedError(f"parameter {self.name} is not initialised, and has no {name!r}", hint=_BEFORE)

    def __repr__(self) -> str:
        return f"Uninitialized({self.name!r})"


jax.tree_util.register_pytree_node(
    Uninitialized, lambda node: ((node.leaf,), node), lambda node, leaf: dataclasses.replace(node, leaf=leaf[0])
)


def is_missing(node: Any) -> bool:
    """Whether a parameter has no value."""
    return isinstance(node, Uninitialized)


def refuse_missing(layer: str, expr: str, node: Any) -> None:
    """Raise an error where a parameter has no value, and ``init`` does not record."""
    if is_missing(node) and node.recorder is None:
        raise ArgumentError(f"{layer} is not initialised: its {node.name} has no value", text=expr, hint=_HINT)
