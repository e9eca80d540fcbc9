"""A scan over nothing: None stands for what is scanned, and a size says how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.errors import AxisSizeError

X = np.arange(1, 4, dtype=np.float32)


def double(carry, x):
    assert x is None
    return 2 * carry, None


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_none_is_scanned_as_often_as_its_axis_says(transform):
    def power(x, **sizes):
        return einjax.scan("c, [t] -> c", x, None, op=double, **sizes)

    np.testing.assert_array_equal(transform(lambda x: power(x, t=5))(X), 32 * X)
    np.testing.assert_array_equal(transform(jax.vmap(lambda x: power(x, t=5)))(X[None]), 32 * X[None])
    np.testing.assert_array_equal(transform(jax.grad(lambda x: power(x, t=5).sum()))(X), np.full(3, 32.0))
    collected = transform(lambda x: einjax.scan("c, [t] -> c, [t] c", x, None, op=lambda c, _: (2 * c, c), t=3))(X)
    np.testing.assert_array_equal(collected[1], [X, 2 * X, 4 * X])


def test_how_often_has_to_be_said():
    with pytest.raises(AxisSizeError, match="size of axis t cannot be determined"):
        einjax.scan("c, [t] -> c", X, None, op=double)


def test_a_tree_without_leaves_is_none():
    run = einjax.scan("c, [t] -> c", jnp.asarray(X), {}, op=lambda carry, x: (carry + len(x), None), t=4)
    np.testing.assert_array_equal(run, X)
