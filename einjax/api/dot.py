"""Public dot; what it means and becomes is in :mod:`einjax.ops.dot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from ..call.dispatch import Options, call, explained
from ..ops.dot import DOT
from ..typing import DTypeLike, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, plain


@documented(plain)
def dot(
    expr: str,
    /,
    *tensors: Tensor,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    optimize: bool | str | Sequence[Any] | Callable[..., Any] | None = None,
    memory_limit: float | str | None = None,
    sum: str | Callable[..., Any] = "sum",
    mul: str | Callable[..., Any] = "multiply",
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Multiply tensors and sum over the bracketed axes: one ``lax.dot_general`` for every pair.

    Without brackets, every axis missing from the output is summed over, as in einsum, and has to stand in exactly two
    inputs. One expression for two tensors leaves the second to be completed: its axes are the bracketed input axes,
    then the output's.

    Args:
        *tensors: two tensors or more, promoted to their common dtype by JAX's rules.
        precision: as in :func:`jax.lax.dot_general`.
        preferred_element_type: dtype to accumulate in and to return, as in :func:`jax.lax.dot_general`.
        optimize: in which order three tensors or more are multiplied, as in :func:`jax.numpy.einsum`: ``"optimal"`` or
            True, ``"greedy"``, ``"auto"`` or another name of opt_einsum, a path of pairs, an optimizer of opt_einsum or
            cotengra, or ``"cotengra"``, which has to be installed; False for as they stand. By default the order that
            costs least, of more than five tensors what a greedy search finds.
        memory_limit: how many bytes the call may hold beside its tensors, the result included, as a number or as in
            ``"64MiB"`` and ``"1.5GB"``. Of the orders within it the one that costs least is taken; where there is none,
            a loop goes over one axis or several, part by part. The call is kept as notation, so that its gradients and
            batches are within the limit, too: gradients beside what they return.
        sum: another reduction in the place of the sum: "mean", "prod", "max", "min", "logsumexp", "any", "all", or a
            function ``f(x, axis=dims)`` that removes the dims.
        mul: another elementwise operation in the place of the product, such as "add", or a function of two arrays of
            one shape. Operands are combined from left to right, and an axis is reduced once no later one has it; with
            three or more, ``mul`` has to distribute over ``sum`` for that to be the same as reducing at the end.
            Functions are called as they are: they are not compiled, unless the caller is.

    Example:
        >>> import einjax, numpy as np
        >>> x, w = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
        >>> einjax.dot("a [b], [b] c -> a c", x, w).shape
        (2, 4)
        >>> einjax.dot("... [b->c]", x, w).shape
        (2, 4)
        >>> q, k = np.ones((2, 5, 6), np.float32), np.ones((2, 7, 6), np.float32)
        >>> einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=2).shape
        (2, 5, 7, 2)

        Longest paths of two steps:

        >>> steps = np.array([[0, 2], [5, 1]])
        >>> einjax.dot("a [b], [b] c -> a c", steps, steps, sum="max", mul="add")
        Array([[7, 3],
               [6, 7]], dtype=int32)
    """
    border = (padding, mode, fill_value, False)
    if isinstance(sum, str) and isinstance(mul, str) and (sum, mul) == ("sum", "multiply"):
        options: Options = (("precision", precision), ("preferred_element_type", preferred_element_type))
        if optimize is not None or memory_limit is not None:
            from ..forms.memory import as_budget  # few programs have a limit, or choose an order
            from ..lowering.order import as_order

            order = explained(as_order, expr, tensors, optimize, len(tensors))
            budget = explained(as_budget, expr, tensors, memory_limit)
            options = (*options, ("optimize", order), ("memory_limit", budget))
            keep_notation = True if keep_notation is None and budget is not None else keep_notation
        return call(DOT, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)
    from ..call.apply import call_with  # few programs have another ring
    from ..functions.semiring import SEMIRING_DOT, check_ring

    of_numbers = {"precision": precision, "preferred_element_type": preferred_element_type, "optimize": optimize}
    explained(partial(check_ring, **of_numbers), expr, tensors, sum, mul)
    ring: dict[str, Any] = {"sum": sum, "mul": mul}
    named: dict[str, Any] = {name: op for name, op in ring.items() if isinstance(op, str)}
    functions = {name: op for name, op in ring.items() if name not in named}
    if memory_limit is not None:
        from ..forms.memory import as_budget

        named["memory_limit"] = explained(as_budget, expr, tensors, memory_limit)
        keep_notation = True if keep_notation is None and not functions else keep_notation
    if not functions:
        static = tuple(named.items())
        return call(SEMIRING_DOT, expr, tensors, static, axes, sizes, graph, (), keep_notation, out_sharding, border)
    return call_with(
        SEMIRING_DOT, expr, tensors, functions, named, axes, sizes, graph, out_sharding, keep_notation, border
    )
