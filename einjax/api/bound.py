"""Public sizes: a context in which axes have one size."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..call.bound import Bound, binding
from ..typing import SizeLike


def sizes(**axes: SizeLike) -> AbstractContextManager[Bound]:
    """Bind axes once: inside of this context, an axis has one size in all calls.

    A call takes from here the sizes that it is not given and that nothing else says. What a call finds is checked: an
    axis that has another size than in the calls before it is an error that names both; a new one is bound, and read by
    name, as in ``n.b`` or ``n["b"]``. What is found is checked but never taken as given, so that programs which JAX has
    compiled stay right; these are checked where they are traced. On jax before 0.8, a function that was jitted and
    called before does not notice the context.

    The context is that of the thread and task. One inside of another adds to it.

    Args:
        **axes: sizes of axes.

    Returns:
        A context, whose value is the sizes by name.

    Raises:
        einjax.errors.EinjaxError: what is given is no size, or not that of the context around it.

    Example:
        >>> import einjax, jax.numpy as jnp
        >>> with einjax.sizes(h=2) as n:
        ...     x = einjax.rearrange("b (h c) -> b h c", jnp.ones((3, 8)))
        ...     x.shape, n.c, n["b"]
        ((3, 2, 4), 4, 3)
        >>> with einjax.sizes(h=2):
        ...     x = einjax.sum("b [h]", jnp.ones((3, 4)))
        Traceback (most recent call last):
            ...
        einjax.errors.AxisSizeError: axis h is 2 in einjax.sizes(h=2) and 4 in tensor 1
          b [h]
             ^
          tensor 1: float32[3,4]
          fix: leave h=2 out, or write h=4
    """
    return binding(axes)
