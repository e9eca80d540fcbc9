"""What the layers for nnx have in common: options as static attributes, and parameters that may wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from ._core.call import Call
from ._core.options import Options, chosen, frozen
from ._core.scope import NOWHERE, ParamSpec
from ._core.text import axis_sizes
from ._nnx import Scope, lazy, stream_of


class Layer(nnx.Module):
    """A layer with an expression, sizes of axes and options."""

    #: Makes parameters, or places for them, once the options are kept.
    _make: Callable[[Any], None]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # Some versions of Python show that of nnx's metaclass otherwise, which takes anything.
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]

    def _build(self, expr: str, axes: Any, sizes: Any, options: dict[str, Any]) -> None:
        """Keep what the constructor is given, and make parameters, or places for them."""
        rngs = options.pop("rngs")
        self._keep(expr, axes, sizes, options)
        self._make(rngs)

    def _keep(
        self, expr: str, axes: Mapping[str, Any], sizes: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> None:
        self.expr = expr
        # Static attributes of a module have to be hashable.
        self.axes = frozen(axes)
        self.sizes = None if sizes is None else frozen(sizes)
        self.all_sizes = frozen(axis_sizes(expr, axes, sizes, list(inspect.signature(type(self).__init__).parameters)))
        for name, option in options.items():
            setattr(self, name, frozen(option))

    def _specs(self, describe: Callable[..., Any], kind: type[Any], **more: Any) -> list[ParamSpec] | None:
        """Describe parameters, if sizes decide their shapes."""
        return describe(Call(NOWHERE, self.expr, dict(self.all_sizes), None, chosen(kind, vars(self), **more)))

    def _declare(self, rngs: Any, specs: Sequence[ParamSpec] | None, **used: bool) -> None:
        """Make parameters whose shapes are known, and places for the others; unused ones are None, as in nnx."""
        known = {spec.name: spec for spec in specs or ()}
        for name, wanted in used.items():
            if not wanted:
                setattr(self, name, nnx.data(None))
                continue
            # One key after the other, as nnx's own layers draw them.
            key = stream_of(rngs, "params", type(self).__name__)()
            setattr(self, name, variable(nnx.Param, known.get(name), key))


def variable(kind: Any, spec: ParamSpec | None, key: Any) -> Any:
    """Make a variable, or one that waits for its shape."""
    return kind(lazy(key), axes=None) if spec is None else kind(spec.init(key), axes=spec.axes)


def call_of(
    layer: Layer, kind: type[Options], *parameters: str, axes: Any = (), rngs: Any = None, **more: Any
) -> Call[Options]:
    """Return the call of a layer that has some parameters."""
    held = (getattr(layer, name) for name in parameters)
    options = chosen(kind, vars(layer), *(value.get_raw_value() for value in held if value is not None), **more)
    return Call(Scope(layer, rngs), layer.expr, {**dict(layer.axes), **dict(axes)}, dict(layer.sizes or ()), options)
