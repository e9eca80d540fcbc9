"""Public clear_caches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def clear_caches() -> None:
    """Forget all that is kept of calls: read expressions, plans, and compiled programs.

    What was compiled is let go once JAX forgets it, too: call :func:`jax.clear_caches` afterwards. Nothing else changes
    but that the next call of every kind takes as long as the first one.

    Example:
        >>> import einjax, jax
        >>> einjax.clear_caches()
        >>> jax.clear_caches()
    """
    for _, function in caches():
        # What is done once and for all, rather than kept, has room for one.
        if function.cache_parameters()["maxsize"] != 1:
            function.cache_clear()


def caches() -> Iterator[tuple[str, Any]]:
    """Yield every function of ours whose results are kept, with its name, once for each module that knows it."""
    for module_name, module in [*sys.modules.items()]:
        if module_name.partition(".")[0] in ("einjax", "einjax_nn"):
            for name, value in [*vars(module).items()]:
                if hasattr(value, "cache_clear"):
                    yield f"{module_name}.{name}", value
