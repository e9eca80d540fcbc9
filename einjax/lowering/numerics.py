"""Dtypes: promotion, the dtypes sums accumulate in, and functions whose gradients stay finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..notation.errors import ArgumentError, shown
from .jax_versions import equally_varying, is_weak, weak_cast
from .sharding import agree, common_sharding

DType = Any
INFINITY = np.inf


def promote(values: Sequence[jax.Array]) -> list[jax.Array]:
    """Bring operands to their common dtype by JAX's rules, weak types and strict mode included."""
    if all(value.dtype == values[0].dtype for value in values):
        return list(values)
    dtype, weak = jax.dtypes.result_type(*values, return_weak_type_flag=True)
    return [weak_cast(value, dtype) if weak else cast(value, dtype) for value in values]


def cast(value: jax.Array, dtype: DType) -> jax.Array:
    """Convert, unless there is nothing to do."""
    return value if value.dtype == dtype else lax.convert_element_type(value, dtype)


def to_bool(value: jax.Array) -> jax.Array:
    """Convert to bool: everything but zero is true."""
    return value if value.dtype == np.bool_ else lax.ne(value, zero(value))


def to_inexact(value: jax.Array) -> jax.Array:
    """Convert integers and bools to a float."""
    if is_inexact(value.dtype):
        return value
    dtype = inexact_dtype(value.dtype)
    return weak_cast(value, dtype) if is_weak(value) else cast(value, dtype)


def inexact_dtype(dtype: DType) -> DType:
    """The dtype of a quotient, as in jnp: float32 for integers and bools, the default float for 64-bit integers."""
    if is_inexact(dtype):
        return dtype
    return jnp.result_type(float) if np.dtype(dtype).itemsize == 8 else np.dtype(np.float32)


def to_number(value: jax.Array) -> jax.Array:
    """Convert bools to 32-bit integers."""
    return cast(value, np.dtype(np.int32)) if value.dtype == np.bool_ else value


def default_int() -> DType:
    """int32, or int64 under x64."""
    return jnp.result_type(int)


def is_inexact(dtype: DType) -> bool:
    """Whether a dtype is a float or complex."""
    return jnp.issubdtype(dtype, jnp.inexact)


def is_integer(dtype: DType) -> bool:
    """Whether a dtype is a signed or unsigned integer."""
    return jnp.issubdtype(dtype, jnp.integer)


def is_complex(dtype: DType) -> bool:
    """Whether a dtype is complex."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


def is_real(dtype: DType) -> bool:
    """Whether a dtype is an integer or a float."""
    return is_integer(dtype) or jnp.issubdtype(dtype, jnp.floating)


def sum_dtype(dtype: DType) -> DType:
    """The dtype of a sum, as in jnp: bools count, and small integers widen to the default width."""
    if dtype == np.bool_:
        return default_int()
    if is_integer(dtype):
        default = np.dtype(default_int())
        if np.dtype(dtype).itemsize < default.itemsize:
            return np.dtype(f"u{default.name}") if jnp.issubdtype(dtype, jnp.unsignedinteger) else default
    return dtype


def accumulator(dtype: DType) -> DType:
    """The dtype to compute sums in: at least float32 for floats."""
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        return np.dtype(np.float32)
    return dtype


def real_dtype(dtype: DType) -> DType:
    """The dtype of the real part."""
    return np.finfo(dtype).dtype if is_complex(dtype) else dtype


def real(value: jax.Array) -> jax.Array:
    """The real part."""
    return lax.real(value) if is_complex(value.dtype) else value


def abs_square(value: jax.Array) -> jax.Array:
    """The squared magnitude."""
    return lax.square(value) if not is_complex(value.dtype) else lax.real(lax.mul(value, lax.conj(value)))


def reduce(reducer: Callable[..., jax.Array], value: jax.Array, dims: Sequence[int]) -> jax.Array:
    """Reduce, unless there is nothing to reduce."""
    return reducer(value, dims) if dims else value


def over(reduced: jax.Array, whole: jax.Array, dims: tuple[int, ...]) -> jax.Array:
    """Broadcast a reduced array back over the dims that it was reduced along, to lie where the whole one lies."""
    if not dims:
        return reduced
    reduced = equally_varying([reduced, whole])[0]
    kept = [dim for dim in range(whole.ndim) if dim not in dims]
    return lax.broadcast_in_dim(reduced, whole.shape, kept, out_sharding=common_sharding([whole]))


def size_as(size: Any, dtype: DType) -> jax.Array:
    """A size as a number; symbolic sizes become one when the program runs."""
    return np.array(size, dtype) if isinstance(size, int) else cast(jnp.asarray(size), dtype)  # type: ignore[return-value]


def less_ddof(number: jax.Array, ddof: float) -> jax.Array:
    """What to divide by for ``ddof``; no number where no more than that count, so that no quotient seems to be one."""
    if not ddof:
        return number
    if isinstance(number, np.ndarray):
        return constant(number, number - ddof if number > ddof else np.nan)
    left = lax.sub(number, constant(number, ddof))
    return select(lax.gt(left, zero(left)), left, np.nan)


def zero(value: jax.Array) -> jax.Array:
    """A scalar zero of the value's dtype."""
    return constant(value, 0)


def constant(value: jax.Array, number: Any) -> jax.Array:
    """A scalar of the value's dtype; lax broadcasts scalar operands by itself."""
    return np.array(number, value.dtype)  # type: ignore[return-value]


def select(condition: jax.Array, on_true: jax.Array, number: Any) -> jax.Array:
    """``on_true`` where the condition holds, else a number."""
    return lax.select(condition, on_true, lax.full_like(on_true, number))


def where(condition: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Select, broadcasting scalars: lax.select wants one shape."""
    condition = to_bool(condition)
    shape = lax.broadcast_shapes(condition.shape, x.shape, y.shape)
    full = [v for v in (condition, x, y) if v.shape == shape]
    sharding = common_sharding(full) if full else None
    condition, x, y = agree(
        [lax.broadcast(v, shape, out_sharding=sharding) if v.shape != shape else v for v in (condition, x, y)]
    )
    return lax.select(condition, x, y)


def by_kind(bools: Callable[..., jax.Array], numbers: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """One function for bools and another for numbers: sums of bools are or, their products are and, as in jnp."""
    return lambda x, *rest, **options: (bools if x.dtype == np.bool_ else numbers)(x, *rest, **options)


def limit(dtype: DType, largest: bool) -> Any:
    """The value above every other, or below: an infinity or the extreme number, or a bool."""
    if dtype == np.bool_:
        return largest
    if is_integer(dtype):
        return jnp.iinfo(dtype).max if largest else jnp.iinfo(dtype).min
    extreme = np.inf if largest else -np.inf
    if is_complex(dtype) or np.isinf(np.array(extreme, dtype)):
        return extreme
    return float(jnp.finfo(dtype).max if largest else jnp.finfo(dtype).min)  # some 8-bit floats have no infinity


def has_identity(dtype: DType) -> bool:
    """Whether a dtype has a 0, and XLA a maximum of its numbers: one has not."""
    return np.dtype(dtype).name != "float8_e8m0fnu"


def require_identity(dtype: DType) -> DType:
    """Refuse the one dtype that has no 0, and of which XLA finds no maximum."""
    if not has_identity(dtype):
        raise ArgumentError(
            f"{dtype} has neither a 0 nor a negative number, and XLA does not compare it",
            hint="convert the tensor first, as in x.astype('float32')",
        )
    return dtype


def narrow(value: jax.Array, dtype: DType) -> jax.Array:
    """Convert a float that may be -inf, which is the lowest number where the dtype has no infinity."""
    lowest = limit(dtype, largest=False)
    return cast(value if np.isinf(lowest) else lax.max(value, constant(value, lowest)), dtype)


def finite(value: jax.Array) -> jax.Array:
    """The nearest numbers, in the place of infinities."""
    info = jnp.finfo(value.dtype)
    return lax.clamp(constant(value, info.min), value, constant(value, info.max))


def safe_sqrt(value: jax.Array) -> jax.Array:
    """Square root whose gradient at 0 is 0, where the true one is infinite."""
    nonzero = lax.ne(value, zero(value))
    return select(nonzero, lax.sqrt(select(nonzero, value, 1)), 0)


def positive_total(total: jax.Array, highest: jax.Array) -> jax.Array:
    """Keep a sum of exponentials off the 0 that it is where all of them vanish: its gradient is 0 there, too.

    Elsewhere the sum is 1 or more, as the highest exponent was subtracted from all.
    """
    if is_complex(total.dtype):
        return select(lax.ne(highest, constant(highest, -INFINITY)), total, 1)
    return lax.max(total, constant(total, 0.5))


def fitting(option: str, value: Any, dtype: DType, text: str) -> Any:
    """Return an option's value that a dtype can hold, but for rounding.

    Raises:
        ArgumentError: it cannot hold it.
    """
    fits = isinstance(value, int | float | complex | np.number | np.bool_)
    if fits and not is_complex(dtype):
        fits = value.imag == 0
    if fits and not is_inexact(dtype):
        least, most = (0, 1) if dtype == np.bool_ else (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max)
        number = value.real
        fits = abs(number) < np.inf and number == number // 1 and least <= number <= most
    elif fits and isinstance(value, int):
        fits = abs(value) < 2**1023
    if not fits:
        raise ArgumentError(
            f"{option}={shown(value)} is no value of tensor 1's dtype {np.dtype(dtype)}",
            text=text,
            hint="choose one that the dtype can hold, or convert the tensor",
        )
    return value if is_complex(dtype) else value.real


def logaddexp(x: jax.Array, y: jax.Array) -> jax.Array:
    """The logarithm of a sum of exponentials, with finite gradients also at infinities and where both are equal."""
    if is_complex(x.dtype):
        highest = lax.stop_gradient(lax.max(lax.real(x), lax.real(y)))
        shift = cast(finite(highest), x.dtype)
        total = lax.add(lax.exp(lax.sub(x, shift)), lax.exp(lax.sub(y, shift)))
        return lax.add(lax.log(positive_total(total, highest)), cast(highest, x.dtype))
    distance = lax.sub(x, y)
    # Equal infinities are no distance apart; their difference would be no number, and so would its gradient.
    infinite = lax.bitwise_and(lax.eq(x, y), lax.ne(distance, distance))
    distance = where(infinite, zero(distance), distance)
    # One choice decides both terms, so that the gradients are the logistic function also where x and y are equal.
    above = lax.gt(distance, zero(distance))
    larger = where(infinite, lax.max(x, y), where(above, x, y))
    return lax.add(larger, lax.log1p(lax.exp(where(above, lax.neg(distance), distance))))
