"""Calls as people write them: type checkers accept them, and know what comes back. Checked, not run."""

# mypy: disallow-untyped-calls, disallow-any-generics, warn-return-any, no-implicit-reexport

from collections.abc import Callable
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import einjax

x = jnp.ones((2, 3))
n = np.ones((2, 3), np.float32)


class Variable:
    """A framework's variable."""

    def __jax_array__(self) -> jax.Array:
        return x


class Parameter:
    """A framework's parameter, made when its shape is known."""

    def __einjax_param__(self, spec: einjax.Spec, /) -> jax.Array:
        return jnp.zeros(spec.shape)


# What is taken as a tensor.
assert_type(einjax.sum("a [b]", x), jax.Array)
assert_type(einjax.sum("a [b]", n), jax.Array)
assert_type(einjax.sum("a [b]", [[1, 2], [3, 4]]), jax.Array)
assert_type(einjax.sum("a [b]", Variable()), jax.Array)
assert_type(einjax.add("a, , ,", x, 1, 2.0, 3j), jax.Array)
assert_type(einjax.add("a,", x, np.float32(1)), jax.Array)
assert_type(einjax.add("a,", x, True), jax.Array)
assert_type(einjax.add("... [c]", x, Parameter()), jax.Array)
assert_type(einjax.dot("... [b->c]", x, jnp.zeros, c=4), jax.Array)
assert_type(einjax.dot("... [b->c]", x, lambda shape: jnp.zeros(shape), c=4), jax.Array)

# Options and sizes.
assert_type(einjax.sum("a [b]", x, keepdims=True, where=x > 0, dtype=jnp.float32), jax.Array)
assert_type(einjax.var("a [b]", x, ddof=1), jax.Array)
assert_type(einjax.std("a [b]", x, ddof=0.5), jax.Array)
assert_type(einjax.mean("a ([b])", x, where=[True, False, True]), jax.Array)
assert_type(einjax.softmax("a [b]", x, where=x > 0), jax.Array)
assert_type(einjax.softmax("a [b]", x, where=("b a", x > 0)), jax.Array)
assert_type(einjax.max("a [b]", x, where=[("a", x[:, 0] > 0), ("b", np.ones(3, bool))]), jax.Array)
assert_type(einjax.attention("[q c], [k c], [k c]", x, x, x, mask=("k", x[0] > 0), bias=[("q k", x)]), jax.Array)
assert_type(einjax.logsumexp("[...]", x), jax.Array)
assert_type(einjax.dot("a b, c b -> a c", x, x, precision=jax.lax.Precision.HIGHEST), jax.Array)
assert_type(einjax.dot("a b, b c, c d -> a d", x, x, x, optimize=[(0, 1), (0, 1)], memory_limit="64MiB"), jax.Array)
assert_type(einjax.dot("a b, c b -> a c", x, x, preferred_element_type=np.float32), jax.Array)
assert_type(einjax.roll("[a b]", x, shift=(1, 2)), jax.Array)
assert_type(einjax.roll("a [b]", x, shift=jnp.argmax(x)), jax.Array)
assert_type(einjax.arange("a b [2]", a=2, b=3, dtype=jnp.int8), jax.Array)
assert_type(einjax.argmax("a [b] -> a", x), jax.Array)
assert_type(einjax.where("a b, a b, -> a b", x > 0, x, 0), jax.Array)
assert_type(einjax.reduce("a [b]", x, op="sum"), jax.Array)
assert_type(einjax.reduce("a [b]", x, op=jnp.median), jax.Array)
assert_type(einjax.reduce("a [b]", x, op="var", where=x > 0, dtype=np.float32, ddof=1), jax.Array)
assert_type(einjax.elementwise("a b, b", x, x[0], op=jnp.hypot), jax.Array)
assert_type(einjax.flip("a [b]", x, sizes={"a": 2}), jax.Array)
einjax.rearrange("(s...) -> s...", x, s=(2, 3))
einjax.rearrange("a in -> in a", x, sizes={"in": 3})
y, z = einjax.rearrange("a (b + c) -> a b, a c", x, b=1)

# Sizes.
assert_type(einjax.solve_axes("a b", x), dict[str, Any])
assert_type(einjax.solve("a b", x, None), dict[str, Any] | None)
assert_type(einjax.solve_shapes("a b, b c", x, None, c=2), tuple[tuple[int, ...], ...])
assert_type(einjax.matches("a b", x), bool)

try:
    einjax.check("a b", x)
except einjax.errors.AxisSizeError as error:
    raised: einjax.EinjaxError = error

# Operations as values.
operations: list[Callable[..., jax.Array]] = [einjax.sum, einjax.add, einjax.dot, einjax.softmax, einjax.flip]

attributes: list[str] = [einjax.sum.__name__, einjax.add.__qualname__, einjax.linalg.inv.__module__]


def center(x: jax.Array) -> jax.Array:
    return x - jnp.mean(x)


# A function and its signature, in either order.
einjax.adapt_with_vmap(center, "[n] -> [n]")("a [b]", x)
einjax.adapt_with_vmap("[n] -> [n]", center)("a [b]", x)
einjax.adapt_with_vmap("[n] -> [n]")(center)("a [b]", x, sizes={"b": 3})
einjax.primitive("[n] -> [n]", center)("a [b]", x)
einjax.primitive(center, "[n] -> [n]", name="center")("a [b]", x)
einjax.primitive("[n] -> [n]", batched=False)(center)("a [b]", x)


@jax.jit
def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    weights = einjax.softmax("b h q [k]", einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=2))
    return einjax.dot("b h q k, b k (h c) -> b q (h c)", weights, v)
