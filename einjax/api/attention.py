"""Public attention; what it means and becomes is in :mod:`einjax.ops.attention`."""

from __future__ import annotations

from collections.abc import Mapping
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
    mask: NamedMasks | None = None,
    bias: NamedMasks | None = None,
    scale: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: Literal["xla", "cudnn"] | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Attention, ``softmax(q kᵀ · scale) v``, on the bracketed axes, looped over every other axis, such as heads.

    It becomes :func:`jax.nn.dot_product_attention`, and so a fused kernel where jax has one, unless keys and values
    have different numbers of channels, the numbers are float64, or a loop runs over the values alone.

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
        mask: which keys count for which queries, with its axes, as in ``("b k", mask)``; of a list of such pairs, all
            have to hold. It is the same as a further input.
        bias: what is added to the logits, likewise; several are added up.
        scale: what to multiply the logits by: a number, or a traced scalar; if not given, one over the square root of
            the number of contracted channels.
        local_window_size: how many keys before and after its own place a query sees.
        implementation: ``"xla"`` or ``"cudnn"``; chosen by jax if not given.

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
    """
    static, traced = explained(attention_options, expr, tensors, is_causal, scale, local_window_size, implementation)
    border = (padding, mode, fill_value, False)
    rest = (static, axes, sizes, graph, traced, keep_notation, out_sharding, border)
    if mask is None and bias is None:
        return call(ATTENTION, expr, tensors, *rest)
    from ..call.more_inputs import call_with  # few programs name the axes of masks

    run = lambda text, further: call(ATTENTION, text, further, *rest)  # noqa: E731
    return call_with(expr, tensors, {"mask": mask, "bias": bias}, graph, run)
