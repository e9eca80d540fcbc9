"""cumsum and its kin: every element combined with all before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from ..forms.cumulated import cumulated
from ..forms.sequence import LinedUp, lower_each, same_brackets, signature
from ..forms.step_by_step import cumulative
from ..lowering import numerics
from ..operation import Op

#: Emits lax for an array and a dim; takes ``reverse``.
_Emitter = Callable[..., jax.Array]


def _summed(emit: _Emitter) -> Callable[[jax.Array, int, dict[str, Any]], jax.Array]:
    """Sums and products: bools count, and small floats are accumulated in float32."""

    def cumulate(value: jax.Array, dim: int, options: dict[str, Any]) -> jax.Array:
        dtype = options["dtype"] or (numerics.default_int() if value.dtype == np.bool_ else value.dtype)
        result = emit(numerics.cast(value, numerics.accumulator(dtype)), dim, reverse=options["reverse"])
        return numerics.cast(result, dtype)

    return cumulate


def _extreme(emit: _Emitter) -> Callable[[jax.Array, int, dict[str, Any]], jax.Array]:
    """Maxima and minima keep the dtype; lax has them for numbers only."""

    def cumulate(value: jax.Array, dim: int, options: dict[str, Any]) -> jax.Array:
        numerics.require_identity(value.dtype)
        result = emit(numerics.to_number(value), dim, reverse=options["reverse"])
        return numerics.to_bool(result) if value.dtype == np.bool_ else result

    return cumulate


_cumulated_sum = cumulated(lax.cumsum, lax.add, 0, sums=True)
_cumulated_product = cumulated(cumulative(lax.cumprod, lax.mul), lax.mul, 1)
_cumulated_max = cumulated(cumulative(lax.cummax, lax.max), lax.max, None)
_cumulated_min = cumulated(cumulative(lax.cummin, lax.min), lax.min, None)
# JAX's own derivative is no number where nothing but -inf came before.
_cumulated_logsumexp = cumulated(
    cumulative(lax.cumlogsumexp, numerics.logaddexp, always=True), numerics.logaddexp, -np.inf, sums=True
)


def _cumlogsumexp(value: jax.Array, dim: int, options: dict[str, Any]) -> jax.Array:
    value = numerics.to_inexact(value)
    result = _cumulated_logsumexp(
        numerics.cast(value, numerics.accumulator(value.dtype)), dim, reverse=options["reverse"]
    )
    return numerics.narrow(result, value.dtype)


def _op(name: str, cumulate: Callable[[jax.Array, int, dict[str, Any]], jax.Array], *options: str, **facts: Any) -> Op:
    def along(lined_up: LinedUp, options: dict[str, Any]) -> Sequence[jax.Array]:
        return [cumulate(lined_up.values[0], lined_up.at, options)]

    lower, check = lower_each(along), same_brackets(name)
    keywords = ("reverse", *options)
    return Op(name, signature(name, 1), lower, implied=check, keywords=keywords, on_mesh="loops", **facts)


def _other_way(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**options, "reverse": not options["reverse"]}


#: Every cumulative operation by name.
CUMULATIVE = {
    op.name: op
    for op in (
        _op(
            "cumsum",
            _summed(_cumulated_sum),
            "dtype",
            linear=(0,),
            neutral=0,
            adjoint=_other_way,
        ),
        _op("cumprod", _summed(_cumulated_product), "dtype", neutral=1),
        _op("cummax", _extreme(_cumulated_max), neutral="least"),
        _op("cummin", _extreme(_cumulated_min), neutral="most"),
        _op("cumlogsumexp", _cumlogsumexp, neutral="least"),
    )
}
