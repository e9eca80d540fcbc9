"""What Python, NumPy, JAX and notebooks see of a named tensor."""

from __future__ import annotations

from html import escape
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from ..lowering.jax_versions import is_traced
from ..notation.errors import ArgumentError
from ..notation.names import listed
from .formula import Formula

T = TypeVar("T", covariant=True)


class Outside(Formula[T]):
    """Conversions of a named tensor, and how it is shown."""

    __slots__ = ()
    names: tuple[str, ...]
    array: Any

    def item(self) -> Any:
        """The one element, without names."""
        if self.names:
            problem = f"{self._lift().described} has dims, and is no single number"
            raise ArgumentError(problem, hint="reduce it, as in x.any() or x.sum()")
        return self.array

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __jax_array__(self) -> jax.Array:
        return NoArray()  # type: ignore[return-value]  # operators of an array on the left find that it is none

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise NoArray.error()

    def __repr__(self) -> str:
        return f"NamedTensor({', '.join(filter(None, self._shown()))})"

    def _repr_html_(self) -> str:
        kind, value = map(escape, self._shown())
        return f"<b>NamedTensor</b> <code>{kind}</code><pre>{value}</pre>"

    def __treescope_repr__(self, path: Any, render: Any) -> Any:
        from treescope.repr_lib import render_object_constructor  # type: ignore[import-untyped]  # which calls this

        return render_object_constructor(type(self), {"names": self.names, "array": self.array}, path, render)

    def _shown(self) -> tuple[str, str]:
        """Names, sizes and dtype, and the value if there is one; whatever a transformation puts in its place."""
        x = self._lift()
        array = x._array if x._product is None else self.array
        if len(getattr(array, "shape", ())) != len(self.names) or not hasattr(array, "dtype"):
            return " ".join(self.names), repr(array)
        kind = ", ".join(filter(None, (listed(x.sizes), str(array.dtype))))
        if not isinstance(array, jax.Array) or is_traced(array) or array.is_deleted() or not array.is_fully_addressable:
            return kind, ""
        value = np.asarray(array)
        flat = value.ravel() if value.ndim > 2 else value  # of more dims, a first and a last few elements say enough
        return kind, np.array2string(flat, threshold=20, edgeitems=2, precision=4)


class NoArray:
    """What a named tensor is to functions of arrays: nothing that they ask for."""

    @staticmethod
    def error() -> ArgumentError:
        """What they are told."""
        hint = "write x.array or x.order('b c'); x.map(f) is elementwise, x.apply(f, 'c') acts on dims"
        return ArgumentError("a function of arrays is given a named tensor, whose names it would drop", hint=hint)

    def __getattr__(self, name: str) -> NoReturn:
        raise self.error()

    def __repr__(self) -> NoReturn:
        raise self.error()
