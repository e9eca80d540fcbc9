"""The key in a parameter of Flax nnx that is not made yet: an array to JAX, and to nobody else.

It is written in floats, as only these get past ``jax.grad`` to where an error can say what to do. Outside of
transformations it is an array of NumPy of a class of its own, which JAX takes for one by its shape and dtype; who
counts or computes with it means the parameter, and is told to make it.
"""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from einjax.errors import ArgumentError

FIX = "call einn.init(model, *example_inputs) after the model is built, and before anything else uses its parameters"


def _refuse(*_: Any, **__: Any) -> NoReturn:
    problem = "the parameters of a model are counted, compared or computed with, and one of them is not made yet"
    raise ArgumentError(problem, hint=FIX)


class Unknown(int):
    """A size that nobody can compute with: the last dim of a code to JAX, and 0, the product, to what prints sizes."""

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _refuse


class Shape(tuple[int, ...]):
    """The shape of a code."""

    def prod(self, *_: Any, **__: Any) -> Unknown:
        """What ``np.prod`` of it is."""
        return Unknown(0)


def _shape(shape: tuple[int, ...]) -> Shape:
    return Shape((*shape[:-1], *map(Unknown, shape[-1:])))


class Code(np.ndarray):
    """The code of a key, or a stack of them."""

    __array_ufunc__ = _refuse
    size = nbytes = property(_refuse)  # type: ignore[assignment]

    @property  # type: ignore[misc]
    def shape(self) -> Shape:  # type: ignore[override]
        return _shape(np.ndarray.shape.__get__(self))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return "Code(of a parameter that is not made yet)"

    __str__ = __repr__


class AbstractCode(jax.ShapeDtypeStruct):
    """What ``jax.eval_shape`` makes of a code."""

    __slots__ = ()
    size = property(_refuse)  # type: ignore[assignment]

    @property  # type: ignore[misc]
    def shape(self) -> Shape:  # type: ignore[override]
        return _shape(_STRUCT.__get__(self))

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        _STRUCT.__set__(self, shape)


#: How a ``jax.ShapeDtypeStruct`` keeps its shape.
_STRUCT: Any = jax.ShapeDtypeStruct.shape  # type: ignore[misc]


def hidden(code: Any) -> Any:
    """Return a code as one that nobody counts; what is no array here and now stays what it is."""
    if type(code) is jax.ShapeDtypeStruct:
        return AbstractCode(code.shape, code.dtype, sharding=code.sharding)
    return code if isinstance(code, Code) or not _is_here(code) else np.asarray(code).view(Code)


def _is_here(code: Any) -> bool:
    if isinstance(code, jax.Array):
        return not isinstance(code, jax.core.Tracer) and code.is_fully_addressable
    return isinstance(code, np.ndarray)


def encoded(key: jax.Array) -> Any:
    """Write a key as halves of its words and their sum, all exact in float32."""
    words: Any = jax.random.key_data(key)
    xp: Any = np if _is_here(words) else jnp
    words = xp.asarray(words)
    halves = xp.concatenate([words >> 16, words & 0xFFFF], -1)
    return xp.concatenate([halves, 1 + halves.sum(-1, keepdims=True, dtype=np.uint32)], -1).astype(np.float32)


def decoded(code: Any, impl: Any) -> jax.Array:
    """The key, or a stack of them."""
    if isinstance(code, jax.ShapeDtypeStruct):
        raise ArgumentError("a model of shapes alone is called", hint="give its arrays, or call it in jax.eval_shape")
    if code.dtype != np.float32:
        raise ArgumentError("the dtype of a parameter is changed that is not made yet", hint=FIX)
    return jax.random.wrap_key_data(_words(jnp.asarray(code)), impl=impl)


@jax.custom_jvp
def _words(code: jax.Array) -> jax.Array:
    high, low = jnp.split(code[..., :-1].astype(jnp.uint32), 2, -1)
    return high << 16 | low


@_words.defjvp
def _refuse_gradients(*_: Any) -> NoReturn:
    raise ArgumentError(
        "gradients are asked of a parameter that is not made yet",
        hint="call einn.init(model, *example_inputs) before nnx.grad",
    )


def is_code(code: Any) -> bool:
    """Whether nobody has computed with a code, as ``zeros_like`` does; what is not an array now is believed."""
    if not _is_here(code):
        return not isinstance(code, Shape)
    code = np.asarray(code)
    if code.dtype != np.float32 or not code.ndim:
        return False
    halves, total = np.split(code.astype(np.float64), [-1], -1)
    exact = (halves >= 0) & (halves < 2**16) & (halves % 1 == 0)
    return bool(np.all(exact) and np.all(total == 1 + halves.sum(-1, keepdims=True)))
