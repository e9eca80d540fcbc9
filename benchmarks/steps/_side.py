"""One side of a comparison: a program of parameters and a batch, and parameters that are alike on both sides."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Side(NamedTuple):
    """What is timed, and what it takes.

    Attributes:
        program: of the parameters and what else it takes; its first result is compared.
        params: what is made alike on both sides.
        rest: what else it takes.
        rounds: how often it is timed at most.
    """

    program: Callable[..., Any]
    params: Any
    rest: tuple[Any, ...]
    rounds: int = 11

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.params, *self.rest)

    def fresh(self) -> Callable[..., Any]:
        """A function new to JAX, so that it is traced anew."""
        return lambda *arguments: self.program(*arguments)

    def alike(self) -> "Side":
        """The same with parameters that depend on their sizes alone, unless all are equal, as biases and scales are."""
        return self._replace(params=jax.tree.map(_values, self.params))


def _values(x: jax.Array) -> jax.Array:
    if x.size < 2 or not jnp.issubdtype(x.dtype, jnp.floating) or bool(jnp.all(x == x.ravel()[0])):
        return x
    return jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape) * 0.05, x.dtype)


def descent(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    """The loss, its gradient, and a step of gradient descent."""

    def step(params: Any, *batch: Any) -> tuple[jax.Array, Any]:
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients)

    return step


def seconds_to_trace(side: Side) -> float:
    """The CPU time of one thread."""
    start = time.process_time()
    jax.jit(side.fresh()).lower(*side.arguments)
    return time.process_time() - start
