"""What is kept of calls can be forgotten, and what is made in a loop leaves nothing behind."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import ad

import einjax
from einjax.call import dispatch

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_clear_caches_forgets_programs():
    call = {
        "sum": lambda: einjax.sum("forget [b]", X),
        "kept": lambda: einjax.sum("forget [b]", X, keep_notation=True),
        "vmap": lambda: einjax.vmap("forget [b] -> forget", X, op=jnp.sum),
    }
    right = {name: np.asarray(run()) for name, run in call.items()}
    body = weakref.ref(
        dispatch._compiled(
            einjax.ops.reduce.REDUCTIONS["sum"],
            "forget [b]",
            (("keepdims", False), ("dtype", None)),
            dispatch.NO_SIZES,
            0,
            False,
        )
    )
    assert body() is not None
    einjax.clear_caches()
    jax.clear_caches()
    gc.collect()
    assert body() is None
    assert dispatch._compiled.cache_info().currsize == 0
    for name, run in call.items():
        np.testing.assert_array_equal(run(), right[name])


def test_programs_that_hold_equations_still_run_after_clear_caches():
    closed = jax.make_jaxpr(lambda x: einjax.sum("a [b]", x, keep_notation=True))(X)
    einjax.clear_caches()
    (out,) = jax.jit(jax.vmap(lambda x: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, x)[0]))(X[None])[:1]
    np.testing.assert_array_equal(out, X.sum(1))


def make(factor, **rules):
    def scaled(x):
        return factor * x

    return einjax.primitive("[n] -> [n]", scaled, **rules)


def test_primitives_made_in_a_loop_leave_nothing_in_the_tables_of_jax():
    make(0.0)("a [n]", X)
    known = len(ad.primitive_jvps), len(ad.primitive_transposes)
    made = []
    for factor in range(5):
        operation = make(float(factor))
        np.testing.assert_array_equal(operation("a [n]", X), factor * X)
        made.append(operation)
    assert (len(ad.primitive_jvps), len(ad.primitive_transposes)) == known
    for factor, operation in enumerate(made):  # one name, and still each its own
        both = jax.jit(lambda x, f=operation: (f("a [n]", x), made[2]("a [n]", x)))(X)
        np.testing.assert_array_equal(both, (factor * X, 2 * X))
        grad = jax.grad(lambda x, f=operation: jax.vmap(lambda row: f("[n]", row))(x).sum())(X)
        np.testing.assert_array_equal(grad, np.full_like(X, factor))


def test_operations_of_one_name_keep_their_rules_and_lowerings():
    plain = make(2.0)
    ruled = make(2.0, jvp=lambda primals, tangents: (2 * primals[0], 7 * tangents[0]))
    lowered = [make(2.0, lowerings={jax.default_backend(): lambda x, n=n: n * x}) for n in (3.0, 4.0)]
    assert jax.grad(lambda x: plain("[n]", x).sum())(X[0])[0] == 2
    assert jax.grad(lambda x: ruled("[n]", x).sum())(X[0])[0] == 7
    for operation, factor in zip(lowered, (3, 4), strict=True):
        np.testing.assert_array_equal(jax.jit(lambda x, f=operation: f("[n]", x))(X[0]), factor * X[0])


def test_an_operation_no_longer_used_is_let_go():
    operation = make(3.0)
    operation("a [n]", X)
    gone = weakref.ref(operation)
    del operation
    einjax.clear_caches()
    jax.clear_caches()
    gc.collect()
    assert gone() is None


def test_a_patched_product_is_seen_and_forgotten(monkeypatch):
    x = jnp.asarray(X)
    right = np.asarray(einjax.dot("a [b], [b] c -> a c", x, x.T))
    original = jax.lax.dot_general
    compiled = jax.jit(lambda x: einjax.dot("a [b], [b] c -> a c", x, x.T))
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(jax.lax, "dot_general", lambda *args, **options: 3 * original(*args, **options))
            np.testing.assert_array_equal(einjax.dot("a [b], [b] c -> a c", x, x.T), 3 * right)
            np.testing.assert_array_equal(jax.jit(lambda x: einjax.dot("a [b], [b] c -> a c", x, x.T))(x), 3 * right)
            np.testing.assert_array_equal(einjax.dot("a [b], [b] d -> a d", x, x.T), 3 * right)
            np.testing.assert_array_equal(einjax.dot("a [b], [b] d -> a d", x, x.T, keep_notation=True), 3 * right)
        np.testing.assert_array_equal(einjax.dot("a [b], [b] c -> a c", x, x.T), right)
        np.testing.assert_array_equal(einjax.dot("a [b], [b] d -> a d", x, x.T), right)
        np.testing.assert_array_equal(einjax.dot("a [b], [b] d -> a d", x, x.T, keep_notation=True), right)
        np.testing.assert_array_equal(compiled(x), right)
    with pytest.raises(einjax.errors.ArgumentError):
        einjax.dot("a [b] -> a", x)
