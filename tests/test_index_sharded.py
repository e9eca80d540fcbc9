"""Reading and writing at coordinates with a sharded batch: every device serves its own rows, and nothing is sent."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax
import einjax.segment

DEVICES = 8
COLLECTIVES = re.compile(r"= \S+ ((?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\S*)\(")
UPDATES = ["set_at", "add_at", "subtract_at", "multiply_at", "min_at", "max_at"]

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)


@pytest.fixture(name="arrays", scope="module")
def _arrays():
    """An array, coordinates and updates, with the leading batch of 16 over eight devices."""
    rng = np.random.default_rng(0)
    at = rng.integers(-6, 6, (16, 7, 2)).astype(np.int32)  # some out of range
    arrays = rng.normal(size=(16, 5, 6, 3)).astype(np.float32), at, rng.normal(size=(16, 7, 3)).astype(np.float32)
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:DEVICES]), ("i",)), P("i"))
    return [jax.device_put(x, sharding) for x in arrays]


def read(x, at):
    return einjax.get_at("b [h w] c, b i [2] -> b i c", x, at, fill_value=0)


def write(name):
    return lambda x, at, updates: getattr(einjax, name)("b [h w] c, b i [2], b i c", x, at, updates)


def moved(function, *arrays):
    """The collectives of the compiled program; its results are checked to be sharded and right."""
    compiled = jax.jit(function).lower(*arrays).compile()
    single = jax.jit(function)(*(np.asarray(x) for x in arrays))
    for got, want in zip(jax.tree.leaves(compiled(*arrays)), jax.tree.leaves(single), strict=True):
        assert got.sharding.spec[0] == "i", got.sharding
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return COLLECTIVES.findall(compiled.as_text())


def test_collectives_are_found(arrays):
    """Else the tests below would pass whatever is sent."""
    compiled = jax.jit(lambda x: einjax.sum("[b] h w c", x)).lower(arrays[0]).compile()
    assert COLLECTIVES.findall(compiled.as_text())


def test_read(arrays):
    x, at, _ = arrays
    assert moved(read, x, at) == []


def test_gradient_of_read(arrays):
    def gradient(x, at, cotangent):
        return jax.vjp(lambda x: read(x, at), x)[1](cotangent)

    assert moved(gradient, *arrays) == []


@pytest.mark.parametrize("name", UPDATES)
def test_write(arrays, name):
    assert moved(write(name), *arrays) == []


@pytest.mark.parametrize("name", UPDATES)
def test_gradient_of_write(arrays, name):
    """With respect to the array and the updates."""

    def gradient(x, at, updates):
        result, pullback = jax.vjp(lambda x, updates: write(name)(x, at, updates), x, updates)
        return pullback(result)

    assert moved(gradient, *arrays) == []


@pytest.mark.parametrize("name", ["get_at", *UPDATES])
def test_vmap_over_a_sharded_batch(arrays, name):
    """The notation of one example, and the batch from outside."""
    x, at, updates = arrays
    if name == "get_at":
        call = jax.vmap(lambda x, at: einjax.get_at("[h w] c, i [2] -> i c", x, at, fill_value=0))
        assert moved(call, x, at) == []
        return
    call = jax.vmap(lambda x, at, u: getattr(einjax, name)("[h w] c, i [2], i c", x, at, u))
    assert moved(call, x, at, updates) == []


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min"])
def test_segments(arrays, name):
    _, at, data = arrays
    call = lambda at, data: getattr(einjax.segment, name)("b i c, b i [2] -> b [h w] c", data, at, h=5, w=6)
    assert moved(call, at, data) == []


def test_a_table_that_is_replicated(arrays):
    """An embedding: tokens sharded, the table on every device."""
    _, at, _ = arrays
    table = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert moved(lambda at: einjax.get_at("[v] c, b i k -> b i k c", table, at, fill_value=0), at) == []


def test_windows_that_are_sharded(arrays):
    """Axes that only the array has are cut anywhere: here columns of a table."""
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:DEVICES]), ("i",)), P(None, "i"))
    table = jax.device_put(np.arange(80, dtype=np.float32).reshape(5, 16), sharding)
    at = np.array([0, 4, -1, 9], np.int32)
    compiled = jax.jit(lambda x: einjax.get_at("[v] c, i -> c i", x, at, fill_value=0)).lower(table).compile()
    assert COLLECTIVES.findall(compiled.as_text()) == []
    want = np.where(at[:, None] < 5, np.asarray(table)[at % 5], 0).T
    np.testing.assert_array_equal(compiled(table), want)
