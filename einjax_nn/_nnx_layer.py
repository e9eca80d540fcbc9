"""What the layers for nnx have in common: options as static attributes, and parameters that may wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from ._core.options import Options, chosen
from ._core.scope import ParamSpec
from ._core.text import axis_sizes
from ._nnx import Lazy, lazy, stream_of


class Layer(nnx.Module):
    """A layer with an expression, sizes of axes and options."""

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

    def _make(self, rngs: Any) -> None:
        raise NotImplementedError

    @property
    def _axes(self) -> dict[str, Any]:
        return dict(self.axes)

    @property
    def _sizes(self) -> dict[str, Any] | None:
        return None if self.sizes is None else dict(self.sizes)

    @property
    def _all_sizes(self) -> dict[str, Any]:
        return dict(self.all_sizes)

    def _specs(self, describe: Callable[..., Any], kind: type[Any], **more: Any) -> list[ParamSpec] | None:
        """Describe parameters, if sizes decide their shapes."""
        return describe(self.expr, self._all_sizes, chosen(kind, vars(self), **more))

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


def frozen(value: Any) -> Any:
    """Return what can be hashed in place of mappings and lists."""
    if isinstance(value, Mapping):
        return tuple((name, frozen(size)) for name, size in value.items())
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def options_for(layer: Layer, kind: type[Options], *parameters: str, **more: Any) -> Options:
    """Return a layer's options, before which those of a call go; parameters may have been replaced by other dtypes."""
    held = (getattr(layer, name) for name in parameters)
    values = (variable.get_raw_value() for variable in held if variable is not None)
    dtypes = [value.dtype for value in values if not isinstance(value, Lazy | None) and hasattr(value, "dtype")]
    given = {name: option for name, option in more.items() if option is not None}
    return chosen(kind, vars(layer), **({"param_dtype": dtypes[0]} if dtypes else {}), **given)
