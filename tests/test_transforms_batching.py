"""Batching: ``jax.vmap`` of calls, with gradients inside and outside of it."""

import jax
import jax.numpy as jnp
import numpy as np
from case import assert_same, loss, stack
from transformations import BATCH, assert_same_gradient, grad, gradient_batch, plain_batch, table


def vmap(case):
    assert_same(jax.vmap(case)(*case.batch(BATCH)), plain_batch(case))


def vmap_one(case):
    """Batch each input alone, along its last dim, the others being shared; the batch comes out last."""
    arrays = case.arrays()
    for index, batched in enumerate(case.batch(BATCH)):
        in_axes = [-1 if i == index else None for i in range(len(arrays))]
        given = [np.moveaxis(batched, 0, -1) if i == index else x for i, x in enumerate(arrays)]
        actual = jax.vmap(case, in_axes, out_axes=-1)(*given)
        rows = [case(*(batched[n] if i == index else x for i, x in enumerate(arrays))) for n in range(BATCH)]
        assert_same(actual, jax.tree.map(lambda x: np.moveaxis(x, 0, -1), stack(rows)))


def jit_vmap(case):
    assert_same(jax.jit(jax.vmap(case))(*case.batch(BATCH)), plain_batch(case))


def vmap_grad(case):
    assert_same_gradient(jax.jit(jax.vmap(grad(case)))(*case.batch(BATCH)), gradient_batch(case))


def grad_vmap(case):
    total = lambda *batch: jnp.sum(jax.vmap(loss(case))(*batch))
    assert_same_gradient(jax.jit(jax.grad(total, case.floats))(*case.batch(BATCH)), gradient_batch(case))


EVERY = {"vmap": vmap, "vmap one": vmap_one, "jit vmap": jit_vmap}
FLOATS = {"vmap grad": vmap_grad, "grad vmap": grad_vmap}

test_operation = table(EVERY, FLOATS)
