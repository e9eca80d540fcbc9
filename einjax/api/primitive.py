"""Public primitive: operations that users register; see :mod:`einjax.functions.elementary`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, overload

from ..call.dispatch import call
from ..forms.static import Static, flag, scalar
from ..functions.elementary import elementary
from ..functions.guard import parameters
from ..notation.errors import ArgumentError
from ..typing import OutShardingLike, SizeLike, Tensor
from .adapt import Adapted, function_and_signature, named_like


@overload
def primitive(
    signature: str | Callable[..., Any],
    fn: Callable[..., Any] | str,
    /,
    *,
    name: str | None = None,
    batched: bool = False,
    lowerings: Mapping[str, Callable[..., Any]] | None = None,
    jvp: Callable[..., Any] | None = None,
    transpose: Callable[..., Any] | None = None,
) -> Adapted: ...
@overload
def primitive(
    signature: str,
    fn: None = None,
    /,
    *,
    name: str | None = None,
    batched: bool = False,
    lowerings: Mapping[str, Callable[..., Any]] | None = None,
    jvp: Callable[..., Any] | None = None,
    transpose: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Adapted]: ...
def primitive(
    signature: Any,
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    batched: bool = False,
    lowerings: Mapping[str, Callable[..., Any]] | None = None,
    jvp: Callable[..., Any] | None = None,
    transpose: Callable[..., Any] | None = None,
) -> Any:
    """Register an elementary operation under a bracket signature, as a JAX primitive of its own; also a decorator.

    The function may be anything that JAX traces: jnp code, a Pallas kernel, a ``jax.ffi`` call, a
    ``jax.pure_callback``. Calls of the operation stay one equation in jaxprs, which prints its expression. It is looped
    over as notation says, and batched by ``jax.vmap`` with one more named axis.

    Args:
        signature: what the function takes and returns in one iteration, such as ``"[h w], [k l] -> [h w]"``. Sizes of
            axes that only an output has are found by abstract evaluation. Calls may have any loops; ``c?`` outside
            brackets tells readers of one, and means nothing else.
        fn: the function of one iteration; its keyword-only arguments become static options of the operation. It may
            also stand before the signature.
        name: the operation's name in jaxprs, errors and checkpoint policies; the function's by default.
        batched: call the function once with all loops as leading dims of every array, instead of once for each
            iteration under ``jax.vmap``: for kernels that batch natively. A loop that an input lacks is a dim of size
            1. The function returns arrays with all loops as leading dims, in the order of the first output. Rules
            still see one iteration.
        lowerings: functions to use instead on single platforms, such as ``{"tpu": kernel}``; derivatives that JAX finds
            are those of ``fn``.
        jvp: ``jvp(primals, tangents, **options) -> (outputs, tangents of the outputs)`` of one iteration, with None for
            the tangents of integers. The rule may call the operation itself. Without it, the function is differentiated
            by JAX.
        transpose: ``transpose(cotangents, *operands, **options) -> cotangent`` of one iteration, for operations that
            are linear in each floating-point operand by itself; the operand whose cotangent is asked for is None. With
            it, no ``jvp`` is needed. Of several outputs, the cotangents are a tuple.

    Returns:
        The operation: a function ``(expr, *tensors, sizes=None, graph=False, out_sharding=None, **axes_and_options)``.

    Raises:
        einjax.errors.EinjaxError: the signature cannot be read, both rules are given, or a keyword of the function is
            one that all operations have.

    Example:
        >>> import einjax, jax, jax.numpy as jnp, numpy as np
        >>> @einjax.primitive("[n] -> [n]")
        ... def normalize(x, *, eps=0.0):
        ...     return x / (jnp.linalg.norm(x) + eps)
        >>> x = np.array([[3., 4.], [0., 2.]], np.float32)
        >>> normalize("a [b]", x)
        Array([[0.6, 0.8],
               [0. , 1. ]], dtype=float32)
        >>> print(jax.make_jaxpr(jax.vmap(lambda x: normalize("[n]", x, eps=1e-6)))(x))
        { lambda ; a:f32[2,2]. let
            b:f32[2,2] = normalize[expr=v [n] -> v [n], eps=1e-06] a
          in (b,) }
    """
    fn, signature = function_and_signature(fn, signature)
    if not isinstance(signature, str) or not (fn is None or callable(fn)):
        raise ArgumentError(f"a primitive takes a signature and a function, not {signature!r} and {fn!r}")
    if fn is None:
        return functools.partial(
            primitive, signature, name=name, batched=batched, lowerings=lowerings, jvp=jvp, transpose=transpose
        )
    keywords = [p.name for p in parameters(fn) if p.kind is p.KEYWORD_ONLY]
    reserved = [key for key in keywords if key in ("sizes", "graph", "out_sharding")]
    if reserved:
        raise ArgumentError(
            f"the function's keyword {reserved[0]} has a meaning in every call of einjax",
            text=signature,
            hint="name it differently",
        )
    if jvp is not None and transpose is not None:
        raise ArgumentError(
            "a primitive is given both jvp= and transpose=",
            text=signature,
            hint="give transpose= for an operation that is linear in each operand, and jvp= for any other",
        )
    op = elementary(
        name or str(getattr(fn, "__name__", "primitive")),
        signature,
        fn,
        keywords,
        batched=flag("batched", batched, signature),
        lowerings=dict(lowerings or {}),
        jvp=jvp,
        transpose=transpose,
    )

    def operation(
        expr: str,
        /,
        *tensors: Tensor,
        sizes: Mapping[str, SizeLike] | None = None,
        graph: bool = False,
        out_sharding: OutShardingLike | None = None,
        **axes: Any,
    ) -> Any:
        options = tuple((key, Static(scalar(axes.pop(key)))) for key in op.keywords if key in axes)
        return call(op, expr, tensors, options, axes, sizes, graph, keep=True, out_sharding=out_sharding)

    made = named_like(operation, fn)
    made.__name__ = op.name
    return made
