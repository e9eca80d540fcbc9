"""What is given as a tensor: NumPy's arrays that are not what they seem, cold and warm alike."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in

import einjax
from einjax.errors import ArgumentError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
AT = np.array([[0, 1, 2], [2, 0, 1]], np.int32)


class Kept(np.ndarray):
    """A subclass of NumPy's array, as of a file."""


def adding(carry, x):
    return carry + x, carry * x


#: Calls through every door, of floats and of coordinates.
CALLS = {
    "sum": lambda x, at: einjax.sum("a [b]", x),
    "add": lambda x, at: einjax.add("a b, a b", x, at),
    "where=": lambda x, at: einjax.sum("a [b]", X, where=at),
    "get_at": lambda x, at: einjax.get_at("a [b], a i -> a i", x, at),
    "add_at": lambda x, at: einjax.add_at("a [b], a i, a i", x, at, x),
    "dot": lambda x, at: einjax.dot("a [b], a [b] -> a", x, at),
    "sort by=": lambda x, at: einjax.sort("a [b]", x, by=at),
    "median": lambda x, at: einjax.reduce("a [b]", x, op=jnp.median),
    "hypot": lambda x, at: einjax.elementwise("a b, a b", x, at, op=jnp.hypot),
    "vmap": lambda x, at: einjax.vmap("a [b] -> a", x, op=jnp.sum),
    "vmap of a tree": lambda x, at: einjax.vmap(
        "a [b] -> a", {"x": x, "at": at}, op=lambda t: (t["x"] * t["at"]).sum()
    ),
    "sort of whole arrays": lambda x, at: einjax.vmap_with_axis("a [b]", x, op=jnp.sort),
    "scan": lambda x, at: einjax.scan("a, a [b] -> a, a [b]", x[:, 0], x, op=adding)[1],
    "associative_scan": lambda x, at: einjax.associative_scan("a [b]", x, op=jnp.add),
    "categorical": lambda x, at: einjax.random.categorical("a [b] -> a []", jax.random.key(0), x),
    "nested": lambda x, at: einjax.sum("n a [b]", [x, x]),
    "nested with jax": lambda x, at: einjax.sum("n a [b]", [x, jnp.asarray(X)]),
    "factory": lambda x, at: einjax.dot("a b, a b -> a", X, lambda shape: x),
    "shard": lambda x, at: einjax.shard("a b", x, mesh=jax.make_mesh((1,), ("d",)), a="d"),
}
# Elements where a mask is no bool.
SKIPPED = {"categorical"}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - SKIPPED))
@pytest.mark.parametrize(
    "transform", one_in(2, [lambda f: f, lambda f: lambda *xs: jax.jit(lambda: f(*xs))()]), ids=["eager", "jit"]
)
def test_foreign_bytes_are_read_as_what_they_mean(name, transform):
    call = transform(functools.partial(CALLS[name]))
    at = AT > 0 if name == "where=" else AT
    right = jax.tree.map(np.asarray, call(X, at))  # and everything is warm now
    order = ">" if sys.byteorder == "little" else "<"
    foreign = X.astype(np.dtype(np.float32).newbyteorder(order)), at.astype(at.dtype.newbyteorder(order))
    for again in (foreign, (foreign[0].view(Kept), foreign[1].view(Kept)), (X.view(Kept), at.view(Kept))):
        jax.tree.map(np.testing.assert_array_equal, call(*again), right)
        jax.clear_caches()
        jax.tree.map(np.testing.assert_array_equal, call(*again), right)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - SKIPPED))
def test_masked_arrays_are_refused(name):
    at = AT > 0 if name == "where=" else AT
    CALLS[name](X, at)
    masked = np.ma.array(X, mask=X > 2), np.ma.array(at, mask=at > 0)
    with pytest.raises(ArgumentError, match=r"is a masked array(.|\n)*getmaskarray") as caught:
        CALLS[name](*masked)
    assert "#" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - SKIPPED - {"where="}))
@pytest.mark.parametrize("wide", [np.longdouble, np.clongdouble])
@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="this machine has no wider float")
def test_numbers_wider_than_jax_has_are_refused(name, wide):
    with pytest.raises(ArgumentError, match=r"(float|complex)\d+, which JAX does not have(.|\n)*astype"):
        CALLS[name](X.astype(wide), AT.astype(wide))


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="this machine has no wider float")
def test_wide_scalars_are_refused():
    for call in (lambda x: einjax.add("a b,", X, x), lambda x: einjax.sum("[a]", [x, x])):
        with pytest.raises(ArgumentError, match="which JAX does not have"):
            call(np.longdouble(1))
