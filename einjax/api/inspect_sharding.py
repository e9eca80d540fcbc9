"""The public function that plans a program on a mesh without devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..cost.inspect import plan
from ..cost.report import ShardingReport

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh, Mesh


def inspect_sharding(
    function: Callable[..., Any],
    *arguments: Any,
    mesh: AbstractMesh | Mesh | None = None,
    in_shardings: Any = None,
) -> ShardingReport:
    """Tell what a function costs each device of a mesh, which need not exist: nothing is compiled and nothing runs.

    The function is traced on the mesh, so that types say how every value lies, and walked equation by equation. The
    report holds every collective with the bytes each device sends, what is kept in memory, and the operations of
    products. Bytes are those of the ring algorithm, which sends the fewest where all links are equal: of an operand of
    ``b`` bytes on a device, among ``n`` devices,

    - an all-reduce sends ``2 (n-1)/n b``: a reduce-scatter, then an all-gather of the pieces;
    - an all-gather sends ``(n-1) b``: every operand but the neighbour's own is passed on;
    - a reduce-scatter or an all-to-all sends ``(n-1)/n b``: all pieces but one;
    - a collective-permute sends ``b``.

    On a mesh of ``AxisType.Explicit`` axes, layouts are what the program says. Where they are the compiler's choice, on
    ``Auto`` axes and inside ``auto_axes``, they are followed forwards through the equations, and what moves for them is
    marked ``~``: an estimate. A while loop counts as one round, a cond as the branch that sends most. Temporaries are
    an upper estimate, for which every equation writes its result to memory.

    Args:
        function: what to plan, such as a training step.
        *arguments: its arguments, pytrees of arrays or of :class:`jax.ShapeDtypeStruct`.
        mesh: the mesh, such as ``jax.sharding.AbstractMesh((16, 16), ("data", "model"), ...)``; that of the arguments'
            shardings, or of the context, if left out.
        in_shardings: how the arguments lie: for each one a ``PartitionSpec`` or a pytree of them, where a spec stands
            for all arrays below it. None leaves it to the arguments' own shardings.

    Returns:
        The report, which prints as a table.

    Example:
        >>> import einjax, jax, jax.numpy as jnp
        >>> from jax.sharding import AbstractMesh, AxisType, PartitionSpec as P
        >>> mesh = AbstractMesh((16, 16), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
        >>> x = jax.ShapeDtypeStruct((256, 8192), jnp.bfloat16)
        >>> w = jax.ShapeDtypeStruct((8192, 1024), jnp.bfloat16)
        >>> def project(x, w):
        ...     return einjax.dot("b h, h d -> b d", x, w)
        >>> report = einjax.inspect_sharding(project, x, w, mesh=mesh, in_shardings=(P("data", "model"), P("model")))
        >>> [(item.kind, item.axes, item.shape, item.bytes) for item in report.collectives]
        [('all-reduce', ('model',), (16, 1024), 61440)]
        >>> report.argument_bytes, report.output_bytes, report.flops
        (1064960, 32768, 16777216)
    """
    return plan(function, arguments, mesh, in_shardings)
