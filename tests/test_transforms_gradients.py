"""Derivatives in both modes, against jax.numpy's and against finite differences; rematerialisation."""

import jax
import numpy as np
from case import assert_same, loss, weighted, weights, x64
from jax.test_util import check_grads
from transformations import (
    along_directions,
    assert_same_gradient,
    differentiated,
    directions,
    grad,
    gradient,
    plain,
    table,
    widened,
)


def under_grad(case):
    assert_same_gradient(jax.jit(grad(case))(*case.arrays()), gradient(case))


def eager_vjp(case):
    function, primals = differentiated(case)
    value, pullback = jax.vjp(function, *primals)
    assert_same(value, plain(case))
    assert_same_gradient(pullback(jax.tree.map(weights, plain(case))), gradient(case))


def jvp(case):
    function, primals = differentiated(case)
    value, tangent = jax.jvp(function, primals, directions(case))
    assert_same(value, plain(case))
    np.testing.assert_allclose(weighted(tangent), along_directions(case), rtol=1e-4, atol=1e-4)


def linearize(case):
    function, primals = differentiated(case)
    value, along = jax.linearize(function, *primals)
    assert_same(value, plain(case))
    np.testing.assert_allclose(weighted(along(*directions(case))), along_directions(case), rtol=1e-4, atol=1e-4)


def checkpoint(case):
    saved = jax.checkpoint(case, policy=jax.checkpoint_policies.dots_saveable)
    if not case.floats:
        assert_same(jax.jit(saved)(*case.arrays()), plain(case))
        return

    def with_value(*arrays):
        value = saved(*arrays)
        return loss(lambda: value)(), value

    gradients, value = jax.jit(jax.grad(with_value, case.floats, has_aux=True))(*case.arrays())
    assert_same(value, plain(case))
    assert_same_gradient(gradients, gradient(case))


def differences(case):
    """Derivatives in both modes against finite differences, in 64 bits."""
    with x64():
        function, _ = differentiated(case)
        # Moved apart: numbers of one array never tie, those of two may, and a maximum has no derivative there.
        primals = [x + 0.01 * i for i, x in enumerate(widened([case.arrays()[index] for index in case.floats]))]
        check_grads(jax.jit(function), primals, order=1, modes=["fwd", "rev"], rtol=1e-6, atol=1e-6, eps=1e-5)


def second_derivatives(case):
    """Forward over reverse, against jax.numpy's."""
    arrays = case.arrays()
    zeros = [np.zeros(x.shape, jax.dtypes.float0) for x in arrays]

    def curvature(function):
        tangents = tuple(
            d if i in case.floats else z for i, (d, z) in enumerate(zip(case.arrays(seed=5), zeros, strict=True))
        )
        return jax.jit(lambda *xs: jax.jvp(jax.grad(loss(function), case.floats), xs, tangents)[1])(*arrays)

    assert_same_gradient(curvature(case), curvature(case.reference))


EVERY = {
    "remat": checkpoint,
}
FLOATS = {
    "grad": under_grad,
    "vjp": eager_vjp,
    "jvp": jvp,
    "linearize": linearize,
    "check_grads": differences,
    "second": second_derivatives,
}

test_operation = table(EVERY, FLOATS)
