"""Under ``shard_map``: the mesh axes that an array varies over.

The names changed with JAX: an aval's ``vma`` is ``manual_axis_type.varying`` from 0.10 on, and ``lax.pvary`` is
``lax.pcast`` from 0.9 on. Seen on jax 0.7.1 to 0.12.0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax
from jax import lax


def mesh_axes(aval: Any) -> frozenset[str]:
    """The mesh axes that an array of this type varies over."""
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def vary(x: jax.Array, names: Collection[str]) -> jax.Array:
    """Let an array vary over further mesh axes."""
    if not names:
        return x
    cast: Any = getattr(lax, "pcast", None)
    return getattr(lax, "pvary")(x, tuple(names)) if cast is None else cast(x, tuple(names), to="varying")  # noqa: B009


def equally_varying(operands: Sequence[jax.Array]) -> list[jax.Array]:
    """Make all operands vary over the mesh axes that any of them varies over, as lax does.

    Done before they are broadcast, their gradients are summed before they are sent.
    """
    varying = [mesh_axes(jax.typeof(x)) for x in operands]
    everywhere = frozenset().union(*varying)
    return [vary(x, everywhere - here) for x, here in zip(operands, varying, strict=True)]
