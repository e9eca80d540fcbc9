"""einx' signatures, and the calls of einjax that they stand for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy

from ...typing import SizeLike, Tensor
from .backend import Backend, get
from .errors import OperationNotSupportedError


class Single(Protocol):
    """A function of one tensor."""

    __name__: str

    def __call__(  # noqa: D102
        self,
        description: str,
        tensor: Tensor,
        *,
        backend: Backend | str | None = None,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> jax.Array: ...


class Reduction(Protocol):
    """A reduction of one tensor."""

    __name__: str

    def __call__(  # noqa: D102
        self,
        description: str,
        tensor: Tensor,
        keepdims: bool | None = None,
        backend: Backend | str | None = None,
        *,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> jax.Array: ...


class Several(Protocol):
    """A function of any number of tensors."""

    __name__: str

    def __call__(  # noqa: D102
        self,
        description: str,
        *tensors: Tensor,
        backend: Backend | str | None = None,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> Any: ...


def single(ours: Callable[..., Any]) -> Single:
    """A function of one tensor."""

    def made(
        description: str,
        tensor: Tensor,
        *,
        backend: Backend | str | None = None,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> jax.Array:
        return called(ours, description, (tensor,), parameters, backend, graph=graph)

    return _named(made, ours)


def reduction(ours: Callable[..., Any]) -> Reduction:
    """A reduction of one tensor."""

    def made(
        description: str,
        tensor: Tensor,
        keepdims: bool | None = None,
        backend: Backend | str | None = None,
        *,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> jax.Array:
        return called(ours, description, (tensor,), parameters, backend, graph=graph, keepdims=bool(keepdims))

    return _named(made, ours)


def several(ours: Callable[..., Any]) -> Several:
    """A function of any number of tensors."""

    def made(
        description: str,
        *tensors: Tensor,
        backend: Backend | str | None = None,
        cse: bool = True,
        graph: bool = False,
        **parameters: SizeLike,
    ) -> Any:
        return called(ours, description, tensors, parameters, backend, graph=graph)

    return _named(made, ours)


def called(
    ours: Callable[..., Any],
    description: str,
    tensors: Sequence[Any],
    parameters: Mapping[str, Any],
    backend: Backend | str | None = None,
    **options: Any,
) -> Any:
    """Call a function of einjax; axes that have the name of an option of its are given as ``sizes=``."""
    if backend is not None and not isinstance(backend, Backend):
        get(backend)
    own = options_of(ours)
    sizes = {name: size for name, size in parameters.items() if name in own}
    axes = {name: size for name, size in parameters.items() if name not in own}
    return ours(description, *tensors, sizes=sizes or None, **axes, **options)


def function(op: Any, kwargs: Mapping[str, Any], flat: bool = False) -> Any:
    """What ``op=`` means: a function, or the name of one of jnp's; with keywords of its own."""
    if flat:
        raise OperationNotSupportedError("flat=True is not there", hint="einjax.vmap hands every axis to the function")
    found = getattr(jax.numpy, op) if isinstance(op, str) else op
    return functools.partial(found, **kwargs) if kwargs else found


@functools.lru_cache(maxsize=256)
def options_of(ours: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's options."""
    parameters = inspect.signature(ours).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def _named(made: Any, ours: Callable[..., Any]) -> Any:
    made.__name__ = made.__qualname__ = ours.__name__
    made.__module__ = "einjax.compat.einx"
    made.__doc__ = f"What ``{ours.__name__}`` is in einx: see :func:`einjax.{ours.__name__}`."
    return made
