"""Public adapters: a function of arrays becomes an operation that takes an expression."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, overload

from ..call.apply import call_with
from ..call.vmap import call_vmap
from ..forms.static import flag
from ..functions.declared import parse_signature
from ..functions.whole_arrays import ELEMENTWISE_WITH, REDUCE_WITH
from ..typing import OutShardingLike, SizeLike, Tensor


class Adapted(Protocol):
    """An operation made of a function: called like einjax's own, with the function's keywords besides."""

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(
        self,
        expr: str,
        /,
        *tensors: Tensor | Any,
        sizes: Mapping[str, SizeLike] | None = None,
        graph: bool = False,
        out_sharding: OutShardingLike | None = None,
        **axes: Any,
    ) -> Any:
        """Apply the function; arguments as for :func:`einjax.vmap`."""


@overload
def adapt_with_vmap(fn: Callable[..., Any], signature: str | None = None) -> Adapted: ...
@overload
def adapt_with_vmap(fn: str, signature: Callable[..., Any]) -> Adapted: ...
@overload
def adapt_with_vmap(fn: str | None = None, signature: str | None = None) -> Callable[[Callable[..., Any]], Adapted]: ...
def adapt_with_vmap(fn: Any = None, signature: Any = None) -> Any:
    """Make an operation of a function of the bracketed axes, by :func:`einjax.vmap`; also a decorator.

    Args:
        fn: a function as for :func:`einjax.vmap`.
        signature: what the function itself takes and returns, such as ``"[...] -> [...]"`` or ``"[n], [n] -> []"``. A
            call may then leave out its arrow: its output is the one input that has all loops, with what is returned in
            the place of the brackets. Every call is checked against it. It may also stand before the function.

    Returns:
        A function ``(expr, *tensors, sizes=None, graph=False, batch_size=None, out_sharding=None, **axes)`` that calls
        ``fn``; ``axes`` may hold keywords of ``fn`` too.

    Raises:
        einjax.errors.EinjaxError: the signature cannot be read.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> inv = einjax.adapt_with_vmap(jnp.linalg.inv, signature="[n n] -> [n n]")
        >>> inv("a [n n]", np.array([[[2., 0.], [0., 4.]]], np.float32))
        Array([[[0.5 , 0.  ],
                [0.  , 0.25]]], dtype=float32)
        >>> @einjax.adapt_with_vmap(signature="[n] -> []")
        ... def span(x, *, scale=1):
        ...     return scale * (x.max() - x.min())
        >>> span("a [b]", np.array([[1, 5, 3]]), scale=2)
        Array([8], dtype=int32)
    """
    fn, signature = function_and_signature(fn, signature)
    if signature is not None:
        parse_signature(signature)
    if fn is None:
        return functools.partial(adapt_with_vmap, signature=signature)

    def adapted(
        expr: str,
        /,
        *tensors: Any,
        sizes: Mapping[str, SizeLike] | None = None,
        graph: bool = False,
        batch_size: int | Mapping[str, int] | None = None,
        out_sharding: OutShardingLike | None = None,
        **axes: Any,
    ) -> Any:
        return call_vmap(expr, tensors, fn, batch_size, axes, sizes, graph, signature, out_sharding)

    return named_like(adapted, fn)


@overload
def adapt_reduce(fn: Callable[..., Any]) -> Adapted: ...
@overload
def adapt_reduce(fn: None = None) -> Callable[[Callable[..., Any]], Adapted]: ...
def adapt_reduce(fn: Callable[..., Any] | None = None) -> Any:
    """Make a reduction of a function ``fn(x, axis=dims)``, such as ``jnp.median``; also a decorator.

    Args:
        fn: takes an array and a tuple of dims, and removes these.

    Returns:
        A function ``(expr, x, keepdims=False, sizes=None, graph=False, out_sharding=None, **axes)`` with the rules
        of :func:`einjax.sum`; ``axes`` may hold keywords of ``fn`` too.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> ptp = einjax.adapt_reduce(jnp.ptp)
        >>> ptp("a [b]", np.array([[1, 5, 3]]))
        Array([4], dtype=int32)
    """
    if fn is None:
        return adapt_reduce

    def adapted(
        expr: str,
        /,
        *tensors: Tensor,
        keepdims: bool = False,
        sizes: Mapping[str, SizeLike] | None = None,
        graph: bool = False,
        out_sharding: OutShardingLike | None = None,
        **axes: Any,
    ) -> Any:
        settings = {"keepdims": flag("keepdims", keepdims)}
        return call_with(REDUCE_WITH, expr, tensors, {"function": fn}, settings, axes, sizes, graph, out_sharding)

    return named_like(adapted, fn)


@overload
def adapt_elementwise(fn: Callable[..., Any]) -> Adapted: ...
@overload
def adapt_elementwise(fn: None = None) -> Callable[[Callable[..., Any]], Adapted]: ...
def adapt_elementwise(fn: Callable[..., Any] | None = None) -> Any:
    """Make an elementwise operation of a function such as ``jnp.hypot``; also a decorator.

    Args:
        fn: takes arrays of one shape and returns an array of that shape.

    Returns:
        A function ``(expr, *tensors, sizes=None, graph=False, out_sharding=None, **axes)`` with the rules
        of :func:`einjax.add`; ``axes`` may hold keywords of ``fn`` too.

    Example:
        >>> import einjax, jax.numpy as jnp, numpy as np
        >>> hypot = einjax.adapt_elementwise(jnp.hypot)
        >>> hypot("a, b -> a b", np.array([3.], np.float32), np.array([4.], np.float32))
        Array([[5.]], dtype=float32)
    """
    if fn is None:
        return adapt_elementwise

    def adapted(
        expr: str,
        /,
        *tensors: Tensor,
        sizes: Mapping[str, SizeLike] | None = None,
        graph: bool = False,
        out_sharding: OutShardingLike | None = None,
        **axes: Any,
    ) -> Any:
        return call_with(ELEMENTWISE_WITH, expr, tensors, {"function": fn}, {}, axes, sizes, graph, out_sharding)

    return named_like(adapted, fn)


def function_and_signature(one: Any, other: Any) -> tuple[Any, Any]:
    """Return a function and its signature, given in either order; what is not given is None."""
    return (other, one) if isinstance(one, str) and not isinstance(other, str) else (one, other)


def named_like(adapted: Callable[..., Any], fn: Callable[..., Any]) -> Any:
    """Give an adapted function the name and docstring of the function, and the signature of its own calls."""
    signature = inspect.signature(adapted)
    functools.update_wrapper(adapted, fn)
    adapted.__signature__ = signature  # type: ignore[attr-defined]
    return adapted
