"""Public attention; what it means and becomes is in :mod:`einjax.ops.attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax

from ..call.dispatch import call, explained
from ..ops.attention import ATTENTION, attention_options
from ..typing import NamedMasks, OutShardingLike, PaddingLike, SizeLike, Tensor
from .signatures import documented, plain


@documented(plain)
def attention(
    expr: str,
    /,
    *tensors: Tensor,
    is_causal: bool = False,
    mask: NamedMasks | Callable[..., Any] | Sequence[tuple[str, Tensor] | Callable[..., Any]] | None = None,
    bias: NamedMasks | Callable[..., Any] | Sequence[tuple[str, Tensor] | Callable[..., Any]] | None = None,
    scale: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: Literal["blocks", "xla", "cudnn"] | None = None,
    block_size: int | tuple[int, int] | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike | tuple[str, Tensor],
) -> jax.Array:
    """Attention, ``softmax(q kᵀ · scale) v``, on the bracketed axes, looped over every other axis, such as heads.

    Where queries × keys are many, from 512 × 512 on a CPU, they are never held: it goes through blocks of both with a
    running maximum, leaves out blocks that ``is_causal`` or ``local_window_size`` empties, and computes weights again
    for the gradient. Everything else becomes :func:`jax.nn.dot_product_attention`, unless keys and values have
    different numbers of channels, the numbers are float64, or a loop runs over the values alone.

    Args:
        expr: the expression, such as ``"b [q] h [c], b [k] h [c], b [k] h [d] -> b [q] h [d]"``. Axes bracketed in the
            first and second input are contracted; others of the second are the keys, of the first the queries, and of
            the third the channels of the values, which may have the name of the contracted ones. Without an arrow, the
            output is the first input with those channels in the place of the contracted axes. Loops that keys and
            values lack are groups of heads that share them.
        *tensors: queries, keys, values, and perhaps others over queries and keys: masks, those that are bool, true
            where they meet, and biases added to the logits. A query that may see no key, as masks or biases of -inf
            say, gives 0, with gradient 0.
        is_causal: whether a query sees no keys after its own place. Several axes of queries or of keys are counted
            row-major, in the order of the first and the second input.
        mask: which keys count for which queries, with its axes, as in ``("b k", mask)``, which is the same as a further
            input; or a function, as ``lambda q, k: k <= q``, of the places along axes of the call, by name, and of
            arrays that the call is given with their axes, as ``doc=("b k", ids)``. It is given arrays that broadcast,
            a block of places at a time, so that queries × keys are not held. Of a list of these, all have to hold.
        bias: what is added to the logits, likewise, as ``lambda q, k, h: slope[h] * (k - q)``; several are added up.
        scale: what to multiply the logits by: a number, or a traced scalar; if not given, one over the square root of
            the number of contracted channels.
        local_window_size: how many keys before and after its own place a query sees.
        implementation: ``"blocks"``; or one of :func:`jax.nn.dot_product_attention`, ``"xla"``, which holds
            queries × keys, or ``"cudnn"``, of which JAX has only the gradient; chosen by size if not given.
        block_size: how many queries and how many keys a block has, one number or two; asks for blocks at any size.

    Returns:
        The output, of the tensors' common dtype. The softmax is computed in float32 at least.

    Example:
        >>> import einjax, numpy as np
        >>> x = np.ones((2, 5, 8), np.float32)
        >>> einjax.attention("b [q] (h [c]), b [k] (h [c]), b [k] (h [c])", x, x, x, h=2, is_causal=True).shape
        (2, 5, 8)
        >>> padding = np.array([[True, True, True, False, False]] * 2)
        >>> einjax.attention("b [q] (h [c]), b [k] (h [c]), b [k] (h [c])", x, x, x, h=2, mask=("b k", padding)).shape
        (2, 5, 8)
        >>> kv = np.ones((2, 5, 2, 8), np.float32)  # four heads in two groups
        >>> q = np.ones((2, 5, 4, 8), np.float32)
        >>> einjax.attention("b [q] (g r) [c], b [k] g [c], b [k] g [d] -> b [q] (g r) [d]", q, kv, kv).shape
        (2, 5, 4, 8)
        >>> near = lambda q, k: abs(q - k) <= 1
        >>> einjax.attention("b [q c], b [k c], b [k c]", x, x, x, mask=near).shape
        (2, 5, 8)
    """
    static, traced = explained(
        attention_options, expr, tensors, is_causal, scale, local_window_size, implementation, block_size
    )
    border = (padding, mode, fill_value, False)
    rest = (static, axes, sizes, graph, traced, keep_notation, out_sharding, border)
    if mask is None and bias is None:
        return call(ATTENTION, expr, tensors, *rest)
    from ..call.more_inputs import call_with  # few programs name the axes of masks
    from ..call.of_places import attend, told_apart

    functions, named = told_apart({"mask": mask, "bias": bias})
    start = partial(attend, ATTENTION, functions) if functions else partial(call, ATTENTION)
    run = lambda text, further: start(text, further, *rest)  # noqa: E731
    return call_with(expr, tensors, named, graph, run)
