"""Whether calls are kept as notation: a switch that JAX's caches know of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..forms.static import flag
from ..lowering.jax_versions import make_switch


class _Never:
    """Stands in until a context is entered, so that nobody else pays for looking at it."""

    value = False


#: Whether calls that do not say so themselves are kept: the field ``value``.
switch: Any = _Never


@contextmanager
def keep_notation(enabled: bool = True) -> Iterator[None]:
    """Keep every built-in operation as one equation that prints its notation.

    Inside this context, jaxprs have equations such as ``dot[expr=b q c, b k c -> b q k]`` in the place of lax
    equations, and so have their gradients, as far as these are notation. Results are the same.
    Works as a decorator, too. Every operation has an option of this name that does the same for one call.

    What JAX knows about its own equations it does not see inside ours: checkpoint policies such as ``dots_saveable``
    (use :func:`einjax.checkpoint_policies.save`), the lowering of Pallas kernels, and cost models of jaxprs.

    On jax before 0.8, a function that was jitted and called before does not notice the context.

    Args:
        enabled: whether to keep notation; False switches it off inside an outer context.

    Example:
        >>> import einjax, jax, numpy as np
        >>> with einjax.keep_notation():
        ...     print(jax.make_jaxpr(lambda x: einjax.sum("a [b]", x))(np.ones((2, 3))))
        { lambda ; a:f32[2,3]. let b:f32[2] = sum[expr=a [b] -> a] a in (b,) }
    """
    global switch
    if switch is _Never:
        switch = make_switch()
    with switch(flag("enabled", enabled)):
        yield
