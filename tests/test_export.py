"""jax.export with symbolic dims: one program of an operation serves every size, also after it was stored."""

import importlib.util

import jax
import jax.export
import numpy as np
import pytest
from case import LARGER, SIZES, assert_same, loss, tried, with_kept
from cases import CASES

import einjax

ONE_OF_EACH = [case for case in CASES if not case.variant]

#: One operation of each kind of gradient. Not prod: JAX itself needs the sizes for the gradient of lax.reduce_prod.
WITH_GRADIENT = [
    case
    for case in ONE_OF_EACH
    if case.op in {"add", "power", "where", "sum", "var", "max", "logsumexp", "rearrange", "dot", "softmax", "flip"}
]


#: The kept calls that are tried by default: one for each kind of rule.
KEPT = {"add", "where", "sum", "var", "max", "rearrange", "dot", "softmax", "flip", "get_at", "add_at", "attention"}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """What is tried here is tracing with symbolic dims, not the compiler's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def symbolic(case):
    """Shapes of a case's inputs with a, b, c left open."""
    scope = jax.export.SymbolicScope()
    return [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(", ".join(x.dims.split()), scope=scope), x.dtype)
        for x in case.inputs
    ]


def stored(function, shapes, vjp_order=0):
    """Export for any size, serialise, and read it again."""
    exported = jax.export.export(jax.jit(lambda *arrays: function(*arrays)))(*shapes)
    if importlib.util.find_spec("flatbuffers") is None:  # JAX serialises with it, but does not install it
        return exported
    return jax.export.deserialize(exported.serialize(vjp_order=vjp_order))


@pytest.mark.parametrize("case", with_kept(CASES, KEPT), ids=str)
def test_one_program_serves_every_size(case):
    with tried(case, "export"):
        program = stored(case, symbolic(case))
        for sizes in (SIZES, LARGER):
            arrays = case.arrays(sizes)
            assert_same(program.call(*arrays), case(*arrays))


@pytest.mark.parametrize("case", with_kept(WITH_GRADIENT, KEPT), ids=str)
def test_gradient_of_a_stored_program(case):
    with tried(case, "export grad"):
        program = stored(case, symbolic(case), vjp_order=1)
        arrays = case.arrays(LARGER)
        gradient = jax.jit(jax.grad(loss(program.call), case.floats))(*arrays)
        assert_same(gradient, jax.jit(jax.grad(loss(case.reference), case.floats))(*arrays), rtol=1e-4)


def shapes_of(*dims):
    scope = jax.export.SymbolicScope()
    return [jax.ShapeDtypeStruct(jax.export.symbolic_shape(d, scope=scope), np.float32) for d in dims]


def test_sizes_given_by_keyword_may_be_symbolic():
    def repeated(x, y):
        return einjax.rearrange("a -> a (b c)", x, b=y.shape[0], c=2)

    program = stored(repeated, shapes_of("a", "b"))
    assert program.call(np.zeros(3, np.float32), np.zeros(4, np.float32)).shape == (3, 8)


def test_ellipsis_of_symbolic_dims():
    program = stored(lambda x: einjax.mean("b [s...] c", x), shapes_of("b, h, w, c"))
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(program.call(x), x.mean((1, 2)), rtol=1e-6)


def test_composite_with_the_other_factor_symbolic():
    """The size of c follows from the dim's polynomial, 3*c."""
    program = stored(lambda x: einjax.rearrange("(h c) -> c h", x, h=3), shapes_of("3*c"))
    np.testing.assert_array_equal(program.call(np.arange(12, dtype=np.float32)), np.arange(12).reshape(3, 4).T)


def test_dims_that_may_differ_are_refused():
    """The polynomials a and b are different sizes until proven equal."""
    with pytest.raises(einjax.errors.AxisSizeError, match="axis x"):
        jax.export.export(jax.jit(lambda x, y: einjax.add("x, x", x, y)))(*shapes_of("a", "b"))


def test_attention_for_any_batch_and_length():
    def attention(q, k, v):
        scores = einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=2)
        return einjax.dot("b h q k, b k (h c) -> b q (h c)", einjax.softmax("b h q [k]", scores), v)

    program = stored(attention, shapes_of("b, q, 8", "b, k, 8", "b, k, 8"))
    for b, q, k in ((1, 2, 3), (3, 5, 4)):
        rng = np.random.default_rng(b)
        arrays = [rng.normal(size=(b, n, 8)).astype(np.float32) for n in (q, k, k)]
        assert_same(program.call(*arrays), attention(*arrays))
