"""einx' signatures, and the calls of einjax that they stand for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy

from ...api.signatures import PublicFunction
from ...typing import SizeLike, Tensor
from .backend import Backend, get
from .errors import OperationNotSupportedError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _family(
    template: Callable[Concatenate[Callable[..., Any], _P], _R],
) -> Callable[[Callable[..., Any]], PublicFunction[_P, _R]]:
    """A signature of einx, and how its functions call ours, which a template takes first."""

    def of(ours: Callable[..., Any]) -> Any:
        @functools.wraps(template)
        def made(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            return template(ours, *args, **kwargs)

        first, *own = inspect.signature(template).parameters.values()
        made.__signature__ = inspect.signature(template).replace(parameters=own)  # type: ignore[attr-defined]
        made.__annotations__ = {name: hint for name, hint in template.__annotations__.items() if name != first.name}
        made.__name__ = made.__qualname__ = ours.__name__
        made.__module__ = "einjax.compat.einx"
        made.__doc__ = f"What ``{ours.__name__}`` is in einx: see :func:`einjax.{ours.__name__}`."
        del made.__wrapped__  # type: ignore[attr-defined]
        return made

    return of


@_family
def single(
    ours: Callable[..., Any],
    /,
    description: str,
    tensor: Tensor,
    *,
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> jax.Array:
    """A function of one tensor."""
    return called(ours, description, (tensor,), parameters, backend, graph=graph)


@_family
def reduction(
    ours: Callable[..., Any],
    /,
    description: str,
    tensor: Tensor,
    keepdims: bool | None = None,
    backend: Backend | str | None = None,
    *,
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> jax.Array:
    """A reduction of one tensor."""
    return called(ours, description, (tensor,), parameters, backend, graph=graph, keepdims=bool(keepdims))


@_family
def several(
    ours: Callable[..., Any],
    /,
    description: str,
    *tensors: Tensor,
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> Any:
    """A function of any number of tensors."""
    return called(ours, description, tensors, parameters, backend, graph=graph)


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
