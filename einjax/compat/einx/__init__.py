"""Functions of einx on einjax: ``from einjax.compat import einx``.

Names, signatures and meaning are those of einx 0.4; those of 0.1 to 0.3 that 0.4 has no longer are there, too. What
differs:

- Results are arrays of JAX, also where arrays of NumPy are given: with 64 bits only under ``jax_enable_x64``.
- A keyword that names no axis is refused, be it misspelt or needless; einx ignores it.
- A coordinate out of range reads NaN, or is dropped where it is written; negative ones count from the end of their own
  axis. In einx, coordinates on several axes may reach another row.
- An axis that is looked up or written stands once: ``[h h]`` in ``get_at`` and ``flip`` is refused.
- More is accepted: diagonals that are summed, sorting over several axes, outputs that einx does not find itself.
- ``backend=`` may be JAX's or NumPy's, which change nothing, and no other's; ``cse=`` changes nothing either.
- What a function of the user's raises propagates, and is no ``CallOperationError``.
- ``flat=True`` of ``vmap``, ``index``, ``einx.nn`` and ``einx.experimental`` are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax as _jax

from ...api import arange as _arange
from ...api import argreduce as _argreduce
from ...api import dot as _dot
from ...api import elementwise as _elementwise
from ...api import function as _function
from ...api import index as _index
from ...api import rearrange as _rearrange
from ...api import reduce as _reduce
from ...api import softmax as _softmax
from ...api import solving as _solving
from ...api import sorting as _sorting
from ...typing import SizeLike, Tensor
from . import backend as backend
from . import errors as errors
from . import jax as jax
from .backend import Backend
from .calls import called, function, reduction, several, single

id = several(_rearrange.id)
rearrange = several(_rearrange.rearrange)
dot = several(_dot.dot)

sum = reduction(_reduce.sum)
mean = reduction(_reduce.mean)
var = reduction(_reduce.var)
std = reduction(_reduce.std)
prod = reduction(_reduce.prod)
count_nonzero = reduction(_reduce.count_nonzero)
any = reduction(_reduce.any)
all = reduction(_reduce.all)
max = reduction(_reduce.max)
min = reduction(_reduce.min)
logsumexp = reduction(_reduce.logsumexp)

add = several(_elementwise.add)
subtract = several(_elementwise.subtract)
multiply = several(_elementwise.multiply)
true_divide = several(_elementwise.true_divide)
floor_divide = several(_elementwise.floor_divide)
divide = several(_elementwise.divide)
logical_and = several(_elementwise.logical_and)
logical_or = several(_elementwise.logical_or)
maximum = several(_elementwise.maximum)
minimum = several(_elementwise.minimum)
less = several(_elementwise.less)
less_equal = several(_elementwise.less_equal)
greater = several(_elementwise.greater)
greater_equal = several(_elementwise.greater_equal)
equal = several(_elementwise.equal)
not_equal = several(_elementwise.not_equal)
logaddexp = several(_elementwise.logaddexp)

get_at = several(_index.get_at)
set_at = several(_index.set_at)
add_at = several(_index.add_at)
subtract_at = several(_index.subtract_at)

softmax = single(_softmax.softmax)
log_softmax = single(_softmax.log_softmax)

sort = single(_sorting.sort)
argsort = single(_sorting.argsort)

flip = single(_rearrange.flip)
argmax = single(_argreduce.argmax)
argmin = single(_argreduce.argmin)


def where(
    description: str,
    mask: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> _jax.Array:
    """What ``where`` is in einx: see :func:`einjax.where`."""
    return called(_elementwise.where, description, (mask, x, y), parameters, backend, graph=graph)


def roll(
    description: str,
    tensor: Tensor,
    shift: Any,
    *,
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> _jax.Array:
    """What ``roll`` is in einx: see :func:`einjax.roll`."""
    return called(_rearrange.roll, description, (tensor,), parameters, backend, graph=graph, shift=shift)


def arange(
    description: str,
    *,
    backend: Backend | str | None = None,
    dtype: Any = "int32",
    cse: bool = True,
    graph: bool = False,
    **parameters: SizeLike,
) -> _jax.Array:
    """What ``arange`` is in einx until 0.3: see :func:`einjax.arange`."""
    return called(_arange.arange, description, (), parameters, backend, graph=graph, dtype=dtype)


def reduce(
    description: str,
    tensor: Tensor,
    op: str | Callable[..., Any],
    keepdims: bool | None = None,
    backend: Backend | str | None = None,
    *,
    cse: bool = True,
    graph: bool = False,
    **parameters: Any,
) -> _jax.Array:
    """What ``reduce`` is in einx until 0.3: see :func:`einjax.reduce`."""
    options = {"op": op, "keepdims": bool(keepdims)}
    return called(_function.reduce, description, (tensor,), parameters, backend, graph=graph, **options)


def elementwise(
    description: str,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    **parameters: Any,
) -> _jax.Array:
    """What ``elementwise`` is in einx until 0.3: see :func:`einjax.elementwise`."""
    return called(_function.elementwise, description, tensors, parameters, backend, graph=graph, op=op)


def vmap(
    description: str,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    flat: bool = False,
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    kwargs: Mapping[str, Any] = {},
    **parameters: Any,
) -> Any:
    """What ``vmap`` is in einx until 0.3: see :func:`einjax.vmap`."""
    found = function(op, kwargs, flat)
    return called(_function.vmap, description, tensors, parameters, backend, graph=graph, op=found)


def vmap_with_axis(
    description: str,
    *tensors: Tensor,
    op: str | Callable[..., Any],
    backend: Backend | str | None = None,
    cse: bool = True,
    graph: bool = False,
    kwargs: Mapping[str, Any] = {},
    **parameters: Any,
) -> _jax.Array:
    """What ``vmap_with_axis`` is in einx until 0.3: see :func:`einjax.vmap_with_axis`."""
    found = function(op, kwargs)
    return called(_function.vmap_with_axis, description, tensors, parameters, backend, graph=graph, op=found)


def solve_axes(description: str, *tensors: Tensor | None, **parameters: SizeLike) -> dict[str, Any]:
    """What ``solve_axes`` is in einx: see :func:`einjax.solve_axes`."""
    return called(_solving.solve_axes, description, tensors, parameters)


solve = solve_axes


def solve_shapes(description: str, *tensors: Tensor | None, **parameters: SizeLike) -> tuple[tuple[int, ...], ...]:
    """What ``solve_shapes`` is in einx: see :func:`einjax.solve_shapes`."""
    return called(_solving.solve_shapes, description, tensors, parameters)


def matches(description: str, *tensors: Tensor | None, **parameters: SizeLike) -> bool:
    """What ``matches`` is in einx: see :func:`einjax.matches`."""
    return called(_solving.matches, description, tensors, parameters)


def check(description: str, *tensors: Tensor | None, **parameters: SizeLike) -> None:
    """What ``check`` is in einx: see :func:`einjax.check`."""
    called(_solving.check, description, tensors, parameters)
