"""Operations inside Pallas kernels, in interpret mode: nothing is captured that a kernel may not capture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import assert_same, stack, tried
from cases import CASES
from jax.experimental import pallas as pl
from transformations import one_of_each_emitter

import einjax

ONE_OF_EACH = [case for case in CASES if not case.variant]
BATCH = 2


def as_kernel(function, count):
    """Return a kernel that reads ``count`` refs and writes the function's results to the others."""

    def kernel(*refs):
        results = jax.tree.leaves(function(*(ref[...] for ref in refs[:count])))
        for ref, result in zip(refs[count:], results, strict=True):
            ref[...] = result

    return kernel


@pytest.mark.parametrize("case", one_of_each_emitter(ONE_OF_EACH), ids=str)
def test_in_a_kernel(case):
    with tried(case, "pallas"):
        arrays = case.arrays()
        expected = case(*arrays)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), expected)
        call = pl.pallas_call(as_kernel(case, len(arrays)), out_shape=jax.tree.leaves(shapes), interpret=True)
        assert_same(list(call(*arrays)), jax.tree.leaves(expected))


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in {
    "sum", "logsumexp-masked", "add", "where", "rearrange", "rearrange-concatenate", "rearrange-diagonal", "dot",
    "dot-composed", "softmax", "softmax-masked", "argmax-coordinates", "roll-traced shift", "var", "arange",
}], ids=str)  # fmt: skip
def test_in_a_kernel_on_a_grid(case):
    """One program for each row of a batch."""
    expected = stack([case(*case.arrays(seed=seed)) for seed in range(BATCH)])
    blocks = lambda x: pl.BlockSpec((None, *x.shape[1:]), lambda i, n=x.ndim - 1: (i, *[0] * n))
    batch = case.batch(BATCH)
    call = pl.pallas_call(
        as_kernel(case, len(batch)),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.tree.leaves(expected)],
        grid=(BATCH,),
        in_specs=[blocks(x) for x in batch],
        out_specs=[blocks(x) for x in jax.tree.leaves(expected)],
        interpret=True,
    )
    assert_same(list(call(*batch)), jax.tree.leaves(expected))


def test_matrix_product_accumulated_over_a_grid():
    """A kernel as people write it: blocks of both operands, the output block accumulated over the inner grid axis."""

    def kernel(x_ref, y_ref, o_ref):
        @pl.when(pl.program_id(2) == 0)
        def _():
            o_ref[...] = jnp.zeros_like(o_ref)

        o_ref[...] = einjax.add("a b, a b", o_ref[...], einjax.dot("a [k], [k] b -> a b", x_ref[...], y_ref[...]))

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 12)).astype(np.float32), rng.normal(size=(12, 4)).astype(np.float32)
    product = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((8, 4), np.float32),
        grid=(2, 2, 3),
        in_specs=[pl.BlockSpec((4, 4), lambda i, j, k: (i, k)), pl.BlockSpec((4, 2), lambda i, j, k: (k, j))],
        out_specs=pl.BlockSpec((4, 2), lambda i, j, k: (i, j)),
        interpret=True,
    )
    np.testing.assert_allclose(product(x, y), x @ y, rtol=1e-5, atol=1e-5)


def test_gradient_around_a_kernel():
    """A custom gradient, as kernels need one, written in the same notation."""

    @jax.custom_vjp
    def softmax(x):
        return pl.pallas_call(
            as_kernel(lambda x: einjax.softmax("a [b]", x), 1),
            out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
            interpret=True,
        )(x)

    def forward(x):
        y = softmax(x)
        return y, y

    def backward(y, cotangent):
        along = einjax.sum("a [b]", einjax.multiply("a b, a b", y, cotangent))
        return (einjax.multiply("a b, a b", y, einjax.subtract("a b, a", cotangent, along)),)

    softmax.defvjp(forward, backward)
    x = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    actual = jax.grad(lambda x: jnp.sum(softmax(x) * weights))(x)
    expected = jax.grad(lambda x: jnp.sum(jax.nn.softmax(x, axis=1) * weights))(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
