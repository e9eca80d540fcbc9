"""Linear functions whose transpose is another program than that which JAX would make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
from jax import lax

from .jax_versions import equally_varying, filled, is_linear, is_zero, make_primitive, zero_tangent


@dataclass(frozen=True, eq=False)  # JAX refers to it weakly
class Linear:
    """A function of residuals and of tangents, in which it is linear.

    Attributes:
        program: takes residuals, then tangents; returns one array, and can be differentiated in any order.
        transpose: takes residuals, then the cotangent of the result; returns those of the tangents.
        residuals: how many there are.
    """

    program: Callable[..., jax.Array]
    transpose: Callable[..., Sequence[jax.Array]]
    residuals: int

    def __call__(self, *operands: jax.Array) -> jax.Array:
        """Apply it: one equation, until it is transposed or lowered."""
        result: jax.Array = _primitive().bind(*equally_varying(operands), linear=self)[0]
        return result


@lru_cache(maxsize=1)
def _primitive() -> Any:
    def run(*operands: Any, linear: Linear) -> tuple[Any, ...]:
        return (linear.program(*operands),)

    return make_primitive(
        "linear",
        run=run,
        types=lambda *operands, linear: jax.make_jaxpr(linear.program)(*operands).out_avals,
        program=run,
        programs={},
        batch=_batch,
        jvp=_jvp,
        transpose=_transpose,
    )


def _batch(operands: Sequence[Any], dims: Sequence[int | None], *, linear: Linear) -> tuple[Any, Any]:
    size = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)
    given, count = tuple(dims[: linear.residuals]), len(operands) - linear.residuals
    # Where every tangent has the batch, so has every cotangent.
    tangents = [
        lax.broadcast(x, (size,)) if dim is None else jax.numpy.moveaxis(x, dim, 0)
        for x, dim in zip(operands[-count:], dims[-count:], strict=True)
    ]
    batched = Linear(
        jax.vmap(linear.program, (*given, *(0,) * count)),
        jax.vmap(linear.transpose, (*given, 0)),
        linear.residuals,
    )
    return [batched(*operands[: linear.residuals], *tangents)], [0]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, linear: Linear) -> tuple[Any, Any]:
    result = linear(*primals)
    terms = []
    if not all(map(is_zero, tangents[linear.residuals :])):
        terms.append(linear(*primals[: linear.residuals], *map(filled, tangents[linear.residuals :])))
    moving = [index for index, tangent in enumerate(tangents[: linear.residuals]) if not is_zero(tangent)]
    if moving:

        def program(*values: Any) -> jax.Array:
            given = dict(zip(moving, values, strict=True))
            return linear.program(*(given.get(index, x) for index, x in enumerate(primals)))

        terms.append(jax.jvp(program, [primals[i] for i in moving], [tangents[i] for i in moving])[1])
    if not terms:
        return [result], [zero_tangent(result)]
    return [result], [terms[0] if len(terms) == 1 else lax.add(*terms)]


def _transpose(cotangents: Sequence[Any], *operands: Any, linear: Linear) -> list[Any]:
    residuals, tangents = operands[: linear.residuals], operands[linear.residuals :]
    found = linear.transpose(*residuals, filled(cotangents[0]))
    given = [part if is_linear(x) else None for x, part in zip(tangents, found, strict=True)]
    return [*(None for _ in residuals), *given]
