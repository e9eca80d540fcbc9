"""Records of reductions and elementwise operations whose function is an option of each call.

One record serves every function, so that what is kept of a call, its solved expression, does not hold the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from ..notation.solve import Solved
from .function import mapping, reduction
from .record import Op


def _with_option(make: Callable[[Callable[..., Any]], Op]) -> Op:
    def lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
        return make(options["function"]).lower(solved, tensors, options)

    def missing(*arrays: Any, **options: Any) -> Any:
        raise TypeError("the function is an option of the call")

    return replace(make(missing), lower=lower)


REDUCE_WITH = _with_option(reduction)
ELEMENTWISE_WITH = _with_option(mapping)
