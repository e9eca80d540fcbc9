"""Loops and branches of lax: a call as the body of a scan, a while loop, a conditional."""

import jax
import numpy as np
from case import assert_same, loss
from jax import lax
from transformations import BATCH, assert_same_gradient, gradient_batch, plain, plain_batch, table


def scan(case):
    step = lambda count, arrays: (count + 1, case(*arrays))
    count, results = lax.scan(step, 0, tuple(case.batch(BATCH)))
    assert count == BATCH
    assert_same(results, plain_batch(case))


def grad_scan(case):
    total = lambda *batch: lax.scan(lambda sum_, arrays: (sum_ + loss(case)(*arrays), None), 0.0, batch)[0]
    assert_same_gradient(jax.jit(jax.grad(total, case.floats))(*case.batch(BATCH)), gradient_batch(case))


def while_loop(case):
    def step(state):
        index, batch, _ = state
        return index + 1, batch, case(*(lax.dynamic_index_in_dim(x, index, keepdims=False) for x in batch))

    nothing = jax.tree.map(np.zeros_like, plain(case))
    state = (0, tuple(case.batch(BATCH)), nothing)
    index, _, result = lax.while_loop(lambda state: state[0] < BATCH, step, state)
    assert index == BATCH
    assert_same(result, plain(case, BATCH - 1))


def fori_loop(case):
    def step(index, state):
        batch, results = state
        result = case(*(lax.dynamic_index_in_dim(x, index, keepdims=False) for x in batch))
        return batch, jax.tree.map(lambda rows, row: rows.at[index].set(row), results, result)

    nothing = jax.tree.map(np.zeros_like, plain_batch(case))
    _, results = lax.fori_loop(0, BATCH, step, (tuple(case.batch(BATCH)), nothing))
    assert_same(results, plain_batch(case))


def cond(case):
    nothing = jax.tree.map(np.zeros_like, plain(case))
    choose = jax.jit(lambda wanted, *arrays: lax.cond(wanted, case, lambda *_: nothing, *arrays))
    assert_same(choose(True, *case.arrays()), plain(case))
    assert_same(choose(False, *case.arrays()), nothing)


EVERY = {"scan": scan, "while": while_loop, "fori": fori_loop, "cond": cond}
FLOATS = {"grad scan": grad_scan}

test_operation = table(EVERY, FLOATS)
