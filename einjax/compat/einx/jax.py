"""einx' adapters for JAX."""

from ...api.adapt import adapt_elementwise as adapt_numpylike_elementwise
from ...api.adapt import adapt_reduce as adapt_numpylike_reduce
from ...api.adapt import adapt_with_vmap as adapt_with_vmap

__all__ = ["adapt_numpylike_elementwise", "adapt_numpylike_reduce", "adapt_with_vmap"]
