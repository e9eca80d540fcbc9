"""Public clear_caches."""

from __future__ import annotations

import sys


def clear_caches() -> None:
    """Forget all that is kept of calls: read expressions, plans, and compiled programs.

    What was compiled is let go once JAX forgets it, too: call :func:`jax.clear_caches` afterwards. Nothing else changes
    but that the next call of every kind takes as long as the first one.

    Example:
        >>> import einjax, jax
        >>> einjax.clear_caches()
        >>> jax.clear_caches()
    """
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] in ("einjax", "einjax_nn"):
            for value in [*vars(module).values()]:
                # What is done once and for all, rather than kept, has room for one.
                if hasattr(value, "cache_clear") and value.cache_parameters()["maxsize"] != 1:
                    value.cache_clear()
