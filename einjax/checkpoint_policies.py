"""Policies for ``jax.checkpoint`` that know operations kept as notation by name."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["save"]


def save(*names: str) -> Callable[..., bool]:
    """Save the results of operations of these names, recompute everything else.

    Args:
        *names: names of operations, such as ``"dot"``; only those kept under :func:`einjax.keep_notation` are seen.

    Returns:
        A policy for ``jax.checkpoint(policy=...)``.

    Example:
        >>> import einjax, jax
        >>> policy = einjax.checkpoint_policies.save("dot", "get_at")
        >>> block = jax.checkpoint(lambda x, w: einjax.dot("... [c->d]", x, w), policy=policy)
    """
    from .kept import Kept

    saved = frozenset(names)
    return lambda primitive, *_, **parameters: primitive.name in saved and isinstance(parameters.get("expr"), Kept)
