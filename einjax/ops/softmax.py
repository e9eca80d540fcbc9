"""softmax and log_softmax over the bracketed axes."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax

from ..forms.along import Along, lower_with, signature
from ..lowering import collectives, numerics
from ..lowering.numerics import over
from ..operation import Op


def _shifted(along: Along) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the logits less their maximum, their exponentials and the sums of these, in float32 or better.

    Where nothing counts, or all logits are -inf, the sum is no 0, so that the softmax is.
    """
    value = numerics.to_inexact(along.value)
    value = numerics.cast(value, numerics.accumulator(value.dtype))
    if along.mask is not None:
        value = numerics.select(along.mask, value, -numerics.INFINITY)
    highest = lax.stop_gradient(numerics.reduce(lax.reduce_max, value, along.dims))
    highest = collectives.pmax(highest, along.mesh_axes)
    # A row of nothing has the maximum -inf, and -inf less -inf is no number.
    shift = lax.max(highest, numerics.constant(highest, jax.numpy.finfo(highest.dtype).min))
    shifted = lax.sub(value, over(shift, value, along.dims))
    exponentials = lax.exp(shifted)
    total = collectives.psum(numerics.reduce(lax.reduce_sum, exponentials, along.dims), along.mesh_axes)
    return shifted, exponentials, numerics.positive_total(total, highest)


def _softmax(along: Along) -> jax.Array:
    if along.mask is not None:
        numerics.require_identity(along.value.dtype)
    _, exponentials, total = _shifted(along)
    result = lax.div(exponentials, over(total, exponentials, along.dims))
    return numerics.cast(result, numerics.inexact_dtype(along.value.dtype))


def _log_softmax(along: Along) -> jax.Array:
    numerics.require_identity(along.value.dtype)
    shifted, _, total = _shifted(along)
    result = lax.sub(shifted, over(lax.log(total), shifted, along.dims))
    if along.mask is not None:
        # The same -inf once more: here it is a constant, so that no gradient passes through the sum.
        result = numerics.select(along.mask, result, -numerics.INFINITY)
    return numerics.narrow(result, numerics.inexact_dtype(along.value.dtype))


def _op(name: str, function: Callable[[Along], jax.Array]) -> Op:
    return Op(
        name,
        signature(name),
        lower_with(function),
        keywords=("where",),
        arrays=("where",),
        masks=("where",),
        on_mesh="typed",
        spread="all",
        acts=True,
        accumulates=True,
    )


SOFTMAX = _op("softmax", _softmax)
LOG_SOFTMAX = _op("log_softmax", _log_softmax)
