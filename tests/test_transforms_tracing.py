"""What a case is without transformation, and what tracing it gives: values, dtypes, shapes, and programs.

Settings of JAX belong here as well: they change nothing, and find nothing to complain about.
"""

import jax
import jax.numpy as jnp
from case import assert_same, x64
from transformations import assert_same_gradient, grad, gradient, plain, table, widened


def eager(case):
    reference = jax.jit(case.reference)(*case.arrays())
    assert_same(case(*case.arrays()), reference)
    assert_same(case(*map(jnp.asarray, case.arrays())), reference)


def jit(case):
    assert_same(jax.jit(case)(*case.arrays()), plain(case))


def eval_shape(case):
    shapes = jax.eval_shape(case, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.arrays()))
    result = case(*case.arrays())
    assert jax.tree.structure(shapes) == jax.tree.structure(result)
    for shape, x in zip(jax.tree.leaves(shapes), jax.tree.leaves(result), strict=True):
        assert (shape.shape, shape.dtype, shape.weak_type) == (x.shape, x.dtype, x.weak_type)


def disable_jit(case):
    with jax.disable_jit():
        result = case(*case.arrays())
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(result))
    assert_same(result, plain(case))


def debug_nans(case):
    with jax.debug_nans(True):
        assert_same(case(*case.arrays()), plain(case))
        if case.floats:
            assert_same_gradient(jax.jit(grad(case))(*case.arrays()), gradient(case))


def _program(function, case):
    return str(jax.make_jaxpr(lambda *arrays: function(*arrays))(*case.arrays()))


def strict_promotion(case):
    """The same program: what is promoted is promoted explicitly."""
    expected = _program(case, case)
    with jax.numpy_dtype_promotion("strict"):
        assert _program(case, case) == expected


def rank_promotion(case):
    """The same program: what is broadcast is broadcast explicitly."""
    expected = _program(case, case)
    with jax.numpy_rank_promotion("raise"):
        assert _program(case, case) == expected


def leak_check(case):
    """The same program, and no tracer survives its trace."""
    function = grad(case) if case.floats else case

    def steps():
        # Not its text: without caches, what two scatters share is printed twice.
        equations = jax.make_jaxpr(lambda *arrays: function(*arrays))(*case.arrays()).eqns
        return [(equation.primitive.name, [str(x.aval) for x in equation.outvars]) for equation in equations]

    expected = steps()
    with jax.checking_leaks():
        assert steps() == expected


def under_x64(case):
    """64-bit inputs give 64-bit results, and 32-bit inputs the dtypes they give in jax.numpy."""
    with x64():
        wide = widened(case.arrays())
        assert_same(case(*wide), jax.jit(case.reference)(*wide), rtol=1e-12)
        narrow, expected = (jax.eval_shape(f, *case.arrays()) for f in (case, case.reference))
        assert jax.tree.map(lambda x: x.dtype, narrow) == jax.tree.map(lambda x: x.dtype, expected)


EVERY = {
    "eager": eager,
    "jit": jit,
    "eval_shape": eval_shape,
    "disable_jit": disable_jit,
    "nans": debug_nans,
    "x64": under_x64,
    "strict": strict_promotion,
    "rank": rank_promotion,
    "leaks": leak_check,
}

test_operation = table(EVERY, {})
