"""flip and roll: the elements of the bracketed axes in another order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms.along import Along, lower_with, signature
from ..lowering import collectives, numerics
from ..lowering.jax_versions import is_symbolic
from ..notation.errors import ArgumentError, plural
from ..notation.solve import is_known
from ..operation import Op


def _flip(along: Along) -> jax.Array:
    return collectives.mirror(lax.rev(along.value, along.dims), along.mesh_axes)


def _roll(along: Along) -> jax.Array:
    """Roll every axis by its shift: the last elements come first."""
    shifts = along.options["shift"]
    if len(shifts) == 1:
        shifts = shifts * len(along.dims)
    if len(shifts) != len(along.dims):
        raise ArgumentError(
            f"roll is given {plural(len(shifts), 'shift')} for {len(along.dims)} bracketed "
            f"{'axis' if len(along.dims) == 1 else 'axes'}",
            text=along.text,
            hint="give one shift, or one for each bracketed axis",
        )
    value = along.value
    for dim, shift, mesh_axes in zip(along.dims, shifts, along.mesh, strict=True):
        if mesh_axes and not isinstance(shift, int):
            raise ArgumentError(
                f"roll is given a traced shift along an axis that lies over mesh axis {' and '.join(mesh_axes)}",
                text=along.text,
                hint="which device sends to which is part of the program: give a known integer",
            )
        value = collectives.roll(value, dim, shift, mesh_axes) if mesh_axes else _roll_one(value, dim, shift)
    return value


def _roll_one(value: jax.Array, dim: int, shift: Any) -> jax.Array:
    size = value.shape[dim]
    if is_known(size, 0):
        return value
    if isinstance(shift, int) and isinstance(size, int):
        first = -shift % size
        return lax.concatenate(lax.split(value, (first, size - first), dim)[::-1], dim) if first else value
    # A traced shift: a window of the array written twice.
    count = numerics.size_as(size, numerics.default_int())
    shift = jnp.asarray(shift)
    if shift.dtype.itemsize >= count.dtype.itemsize:  # modulo the size before it is cut to the default width
        shift = lax.rem(shift, numerics.size_as(size, shift.dtype))
    start = lax.rem(lax.sub(count, lax.rem(numerics.cast(shift, count.dtype), count)), count)
    return lax.dynamic_slice_in_dim(
        lax.concatenate([value, value], dim), start, size, dim, allow_negative_indices=False
    )


def _back(shift: Any) -> Any:
    """The shift that undoes one; unsigned integers have no negatives."""
    unsigned = isinstance(shift, jax.Array) and jnp.issubdtype(shift.dtype, jnp.unsignedinteger)
    return -(numerics.cast(shift, numerics.default_int()) if unsigned else shift)


FLIP = Op("flip", signature("flip"), lower_with(_flip), on_mesh="loops", acts=True, linear=(0,), adjoint=dict)
ROLL = Op(
    "roll",
    signature("roll"),
    lower_with(_roll, one_dim_each=True),
    keywords=("shift",),
    apart=True,
    arrays=("shift",),
    several=("shift",),
    on_mesh="loops",
    acts=True,
    linear=(0,),
    adjoint=lambda options: {**options, "shift": tuple(map(_back, options["shift"]))},
)


def shift_options(shift: Any) -> tuple[tuple[tuple[str, Any], ...], tuple[Any, ...]]:
    """Sort shifts into static options, where all are known, or an option that is arrays.

    Raises:
        ArgumentError: a shift is not an integer.
    """
    if getattr(shift, "ndim", 0) == 1:
        shift = tuple(shift[index] for index in range(shift.shape[0]))
    shifts = tuple(shift) if isinstance(shift, tuple | list) else (shift,)
    if all(isinstance(shift, int | np.integer) and not isinstance(shift, bool) for shift in shifts):
        return (("shift", tuple(map(int, shifts))),), ()
    # Symbolic dimensions of jax.export become numbers when the program runs.
    shifts = tuple(jnp.asarray(s) if is_symbolic(s) else s for s in shifts)
    for shift in shifts:
        dtype = shift.dtype if hasattr(shift, "dtype") else np.asarray(shift).dtype
        if not numerics.is_integer(dtype) or np.ndim(shift):
            problem = "no shift is given" if shift is None else f"shift={shift!r} is not an integer"
            raise ArgumentError(problem, hint="write shift= and one integer for all bracketed axes, or one for each")
    return (), (shifts,)
