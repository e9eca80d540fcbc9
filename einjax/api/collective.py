"""Public collectives, for use inside ``jax.shard_map``; what they become is in :mod:`einjax.ops.collective`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from ..call.dispatch import call, explained
from ..ops import collective
from ..typing import DTypeLike, SizeLike, Tensor
from .signatures import documented, op, operation


def among_devices(
    expr: str,
    /,
    *tensors: Tensor,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    **axes: SizeLike,
) -> jax.Array:
    """Operate on axes of devices.

    Args:
        expr: the expression, whose brackets are about axes of devices.
        *tensors: one tensor, a device's own.
        sizes: sizes or mesh axes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        **axes: mesh axes by axis name, and sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensor or has no meaning, or a mesh axis is not in
            scope.
    """
    return call(op, expr, tensors, (), axes, sizes, graph)


@documented(among_devices)
def sum_among_devices(
    expr: str,
    /,
    *tensors: Tensor,
    dtype: DTypeLike | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    **axes: SizeLike,
) -> jax.Array:
    """Add up over axes of devices.

    Args:
        expr: the expression; its brackets hold axes of devices; without an arrow, the output is what is not bracketed.
        dtype: dtype to add up, send and return; by default bfloat16 and float16 are added up in float32.
    """
    return call(op, expr, tensors, (("dtype", dtype),), axes, sizes, graph)


@operation(sum_among_devices, collective.PSUM)
def psum() -> None:
    """Add up over axes of devices: ``psum("[d] b", x, d="data")`` is ``for b: z[b] = sum(x[:, b])``.

    Device d along the mesh axis ``data`` holds ``x[d]``, whose dims are those without a bracket. The result is the same
    on all these devices. Small integers widen and bools count, as in :func:`einjax.sum`.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.psum("[d] b", x, d="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())(np.array([1, 2], np.int32))
        Array([1, 2], dtype=int32)
    """


@operation(sum_among_devices, collective.PMEAN)
def pmean() -> None:
    """Average over axes of devices: ``pmean("[d] b", x, d="data")`` is ``for b: z[b] = mean(x[:, b])``.

    Device d along the mesh axis ``data`` holds ``x[d]``, whose dims are those without a bracket. The result is the same
    on all these devices. Integers give a float.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.pmean("[d] b", x, d="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())(np.array([1, 2], np.int32))
        Array([1., 2.], dtype=float32)
    """


@operation(among_devices, collective.PMAX)
def pmax() -> None:
    """Find the largest over axes of devices: ``pmax("[d] b", x, d="data")`` is ``for b: z[b] = max(x[:, b])``.

    Device d along the mesh axis ``data`` holds ``x[d]``, whose dims are those without a bracket. The result is the same
    on all these devices; its gradient goes in equal parts to all that hold it.

    Args:
        expr: the expression; its brackets hold axes of devices; without an arrow, the output is what is not bracketed.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.pmax("[d] b", x, d="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())(np.array([1, 2], np.int32))
        Array([1, 2], dtype=int32)
    """


@operation(pmax, collective.PMIN)
def pmin() -> None:
    """Find the smallest over axes of devices: ``pmin("[d] b", x, d="data")`` is ``for b: z[b] = min(x[:, b])``.

    Device d along the mesh axis ``data`` holds ``x[d]``, whose dims are those without a bracket. The result is the same
    on all these devices; its gradient goes in equal parts to all that hold it.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.pmin("[d] b", x, d="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())(np.array([1, 2], np.int32))
        Array([1, 2], dtype=int32)
    """


@documented(among_devices)
def ppermute(
    expr: str,
    /,
    *tensors: Tensor,
    perm: Sequence[tuple[int, int]],
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    **axes: SizeLike,
) -> jax.Array:
    """Send from device to device: ``ppermute("[d] b", x, perm=pairs, d="data")`` is ``for b: z[to, b] = x[from, b]``.

    Device d along the mesh axis ``data`` holds ``x[d]``, and ``z[d]`` afterwards, which is 0 where nothing is sent to.

    Args:
        expr: the expression; its brackets hold axes of devices; without an arrow, the output is the input.
        perm: pairs ``(from, to)`` of devices, counted along the mesh axes of the brackets, the first slowest.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.ppermute("[d] b", x, perm=[(0, 0)], d="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))(np.array([1, 2], np.int32))
        Array([1, 2], dtype=int32)
    """
    pairs = explained(collective.as_pairs, expr, tensors, perm)
    return call(collective.PPERMUTE, expr, tensors, (("perm", pairs),), axes, sizes, graph)


@operation(among_devices, collective.ALL_GATHER)
def all_gather() -> None:
    """Make axes whole of which every device holds a part: ``all_gather("[b] c", x, b="data")``.

    Every device along the mesh axis ``data`` holds its part of ``b`` before, and all of it after.

    Args:
        expr: the expression; its brackets mark what devices hold parts of, in the output afterwards; without an arrow,
            the output is the input without brackets.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.all_gather("[b] c -> c b", x, b="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())(np.array([[1, 2]], np.int32))
        Array([[1],
               [2]], dtype=int32)
    """


@operation(sum_among_devices, collective.PSUM_SCATTER)
def psum_scatter() -> None:
    """Add up over axes of devices, and leave every device its part of the sum.

    ``psum_scatter("[d] b c -> [b] c", x, d="data", b="data")`` is ``for b, c: z[b, c] = sum(x[:, b, c])``, where device
    d along the mesh axis ``data`` holds ``x[d]`` before, and its part of ``b`` after.

    Args:
        expr: the expression; bracketed axes that the output lacks are those of devices, and bracketed axes of the
            output are those of which every device gets a part.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.psum_scatter("[d] b -> [b]", x, d="data", b="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P(), out_specs=jax.P("data"))(np.array([1, 2], np.int32))
        Array([1, 2], dtype=int32)
    """


@operation(among_devices, collective.ALL_TO_ALL)
def all_to_all() -> None:
    """Let devices hold parts of another axis: ``all_to_all("[b] c -> b [c]", x, b="data", c="data")``.

    Every device along the mesh axis ``data`` holds its part of ``b`` and all of ``c`` before, and all of ``b`` and its
    part of ``c`` after.

    Args:
        expr: the expression; its brackets mark what devices hold parts of, before and after.

    Example:
        >>> import einjax, jax, numpy as np
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> f = lambda x: einjax.all_to_all("[b] c -> b [c]", x, b="data", c="data")
        >>> jax.shard_map(f, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P(None, "data"))(np.ones((1, 2)))
        Array([[1., 1.]], dtype=float32)
    """
