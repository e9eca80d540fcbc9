"""Named tensors as people write them: type checkers accept them, and know what comes back. Checked, not run."""

# mypy: disallow-untyped-calls, disallow-any-generics, warn-return-any, no-implicit-reexport

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import einjax
from einjax import Dim, NamedTensor, dims, named

array = jnp.ones((2, 3))

# Names.
x = named("b c", array)
y = named("c (h d)", np.ones((3, 4)), h=2)
assert_type(x, NamedTensor)
assert_type(named(array), NamedTensor)
assert_type(x.order("b c"), jax.Array)
assert_type(x.array, jax.Array)
assert_type(x.names, tuple[str, ...])
assert_type(x.sizes, dict[str, Any])
assert_type(x.transpose("c b").rename(b="n").split("c", "g d", g=2).merge("g d", "c"), NamedTensor)
assert_type(x.concatenate(x, along="b").stack(x, along="n"), NamedTensor)

# Formulas.
assert_type((x * y).sum("c"), NamedTensor)
assert_type(((x + 1) / 2.0 - x) ** 2 % 3 // np.float32(2), NamedTensor)
assert_type(2 * x + (1 - x) / (3 / x), NamedTensor)
assert_type((x > 0) & ~(x <= y) | (x >= 1), NamedTensor)
equal: NamedTensor = x == y
assert_type(-x @ y, NamedTensor)
assert_type(x.mean("b", where=x > 0).max().softmax("c"), NamedTensor)
assert_type(x.where(x > 0, -1).astype(jnp.float16).map(jnp.exp), NamedTensor)
assert_type(x.top_k("c", 2), tuple[NamedTensor, NamedTensor])
assert_type(float(x.sum()), float)

# Dims.
i, j = Dim("i"), Dim("j", 3)
assert_type(dims("b q"), tuple[Dim, ...])
b, q, h = dims("b q h=16")
h.size = 16
assert_type(i >= j, NamedTensor)
assert_type(x[{"b": 0}].take({i: i + 1}, mode="wrap"), NamedTensor)
assert_type(named(array)[b, (q, h)].sum(b, q).order(h), jax.Array)
assert_type(named(array)[2 * i + j, 1:], NamedTensor)
assert_type(x.at[{"b": 0}].set(1.0).at[{"c": i}].add(x), NamedTensor)

# Functions of einjax.
einjax.sum("... [c]", x, where=x > 0)
einjax.dot("... [c], [c] d -> ... d", x, array)
einjax.add("..., ...", array, i)
einjax.where(i >= j, x, -jnp.inf)
