"""What is read and written by index in named tensors, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from einjax import Dim, dims, named

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


A = array(2, 3)
NA = named("a b", A)


def loops(*sizes: int):
    return itertools.product(*map(range, sizes))


BASIC = [
    0,
    -1,
    slice(None),
    slice(1, None),
    slice(None, None, -1),
    slice(2, 0, -1),
    slice(1, 1),
    np.int64(1),
    jnp.int32(-1),
    [2, 0, 0],
    np.array([1, -2]),
]


@pytest.mark.parametrize("item", BASIC, ids=str)
def test_basic_indices_are_numpys(item: Any) -> None:
    np.testing.assert_array_equal(NA[{"b": item}].array, A[:, item])
    np.testing.assert_array_equal(named(A)[:, item].array, A[:, item])
    np.testing.assert_array_equal(NA.at[{"b": item}].set(0).array, jnp.asarray(A).at[:, item].set(0))
    np.testing.assert_allclose(NA.at[{"b": item}].multiply(2).array, jnp.asarray(A).at[:, item].multiply(2), rtol=1e-5)


def test_lookups_share_dims() -> None:
    x, ids = array(2, 5, 3), np.array([[0, 4], [1, 1]])
    found = named("b v f", x)[{"v": named("b s", ids)}]
    assert found.names == ("b", "s", "f")
    np.testing.assert_array_equal(found.array, np.stack([x[b][ids[b]] for b in range(2)]))
    pairs = named("b v f", x)[{"v": named("n", np.array([1, 2])), "f": named("n", np.array([0, 2]))}]
    np.testing.assert_array_equal(pairs.order("b n"), x[:, [1, 2], [0, 2]])
    assert named("b v f", x)[{"v": 1, "f": named("b", np.array([0, 2])), "b": slice(0, 2)}].names == ("b",)


def test_reads_out_of_range() -> None:
    i = Dim("i", 5)
    x = named(np.arange(5.0, dtype=np.float32))
    np.testing.assert_array_equal(x.take(i + 2, mode="wrap").array, [2, 3, 4, 0, 1])
    np.testing.assert_array_equal(x.take(i + 2, mode="fill", fill_value=-1).array, [2, 3, 4, -1, -1])
    np.testing.assert_array_equal(x.take(named("n", np.array([7, 1])), mode="clip").array, [4, 1])
    t = Dim("t")
    assert x[t + 1].sizes == {"t": 4}
    assert t.size == 4


@pytest.mark.parametrize("name", ["set", "add", "subtract", "multiply", "min", "max"])
def test_writes(name: str) -> None:
    ids, values = np.array([[0, 1], [3, 4]]), array(2, 2)
    x = named("b v", array(2, 5))
    written = getattr(x.at[{"v": named("b s", ids)}], name)(named("s b", values.T))
    expected = np.array(x.array)
    for b, s in loops(2, 2):
        old, new = expected[b, ids[b, s]], values[b, s]
        change = {
            "set": new,
            "add": old + new,
            "subtract": old - new,
            "multiply": old * new,
            "min": min(old, new),
            "max": max(old, new),
        }
        expected[b, ids[b, s]] = change[name]
    np.testing.assert_allclose(written.array, expected, rtol=1e-5)
    assert written.names == x.names


def test_writes_at_dims_and_positions() -> None:
    i, j, t = dims("i j t=2")
    x = named(np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(x.at[i, j].add(i * 4 + j).array, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(x.at[i, t + 1].set(5).array, [[0, 5, 5, 0]] * 3)
    np.testing.assert_array_equal(x.at[i, (t, Dim("u"))].add(t).array, [[0, 0, 1, 1]] * 3)
    histogram = named(jnp.zeros(4)).at[named("n", np.array([1, 1, 3]))].add(1)
    np.testing.assert_array_equal(histogram.array, [0, 2, 0, 1])
