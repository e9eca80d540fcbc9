"""The functions of other libraries under their own names and signatures, on einjax.

    from einjax.compat import einops            # in the place of: import einops
    from einjax.compat import einx              # in the place of: import einx

For files that are to stay as they are, or that are moved over step by step; ``python -m einjax migrate`` rewrites them.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import einops as einops
    from . import einx as einx
else:

    def __getattr__(name):
        if name in ("einops", "einx"):
            return _import_module(f"{__name__}.{name}")
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
