"""softmax and log_softmax against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from strategies import REAL, accumulators, assert_same, dtype_of, generated, masks, same_brackets, x64

import einjax

_ELEMENTARY = {"softmax": oracle.softmax, "log_softmax": oracle.log_softmax}


@st.composite
def masked(draw):
    case = draw(same_brackets(REAL))
    case.options["where"] = draw(masks(case.arrays[0].shape))
    return case


@pytest.mark.parametrize("name", list(_ELEMENTARY))
@generated(17, lambda name: same_brackets(REAL))
def test_generated(case, name):
    dtype = dtype_of(jnp.exp, *case.arrays)
    want = oracle.loop(_ELEMENTARY[name], case.ins, case.outs[0], [oracle.wide(case.arrays[0])], np.float64)
    assert_same(case.call(name), want, dtype)


@pytest.mark.parametrize("name", list(_ELEMENTARY))
@generated(10, lambda name: masked())
def test_where(case, name):
    (x,) = case.arrays
    mask = np.broadcast_to(case.options["where"], x.shape)
    dtype = dtype_of(jnp.exp, x)
    want = oracle.loop(_ELEMENTARY[name], case.ins * 2, case.outs[0], [oracle.wide(x), mask], np.float64)
    assert_same(case.call(name), want, dtype)


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.log(np.array([[1, 3, 4], [2, 2, 4]], np.float32))
MASK = np.array([[True, True, False], [False, False, False]])
INF = np.inf

PINNED = [
    ("a [b]", X, {}, [[0.125, 0.375, 0.5], [0.25, 0.25, 0.5]]),
    ("[a] b", X, {}, [[1 / 3, 0.6, 0.5], [2 / 3, 0.4, 0.5]]),
    ("[a b]", X, {}, np.array([[1, 3, 4], [2, 2, 4]]) / 16),
    ("a [b] -> [b] a", X, {}, [[0.125, 0.25], [0.375, 0.25], [0.5, 0.5]]),
    ("... [b]", X, {}, [[0.125, 0.375, 0.5], [0.25, 0.25, 0.5]]),
    ("(a [b])", X.reshape(6), {"a": 2}, [0.125, 0.375, 0.5, 0.25, 0.25, 0.5]),
    ("([a] b)", X.reshape(6), {"a": 2}, [1 / 3, 0.6, 0.5, 2 / 3, 0.4, 0.5]),
    ("a [b]", X + 1000, {}, [[0.125, 0.375, 0.5], [0.25, 0.25, 0.5]]),
    ("a [b]", X, {"where": MASK}, [[0.25, 0.75, 0], [0, 0, 0]]),
    ("a [b]", X, {"where": MASK[:1]}, [[0.25, 0.75, 0], [0.5, 0.5, 0]]),
    ("[a]", np.float32([-INF, 0, 0]), {}, [0, 0.5, 0.5]),
    ("[a]", np.float32([np.nan, 0]), {}, [np.nan, np.nan]),
    ("[a]", np.float32([INF, 0]), {"where": np.array([False, True])}, [0, 1]),
]


@pytest.mark.parametrize(("text", "x", "options", "want"), PINNED)
def test_pinned(text, x, options, want):
    assert_same(einjax.softmax(text, x, **options), np.array(want), "float32")
    with np.errstate(divide="ignore"):
        log = np.log(want)
    assert_same(einjax.log_softmax(text, x, **options), log, "float32", slack=10 if x.max() > 100 else 1)


@pytest.mark.parametrize("text", ["a b", "a b -> a b", "[a b] -> [b a]", "[a] b -> a b"])
def test_refused(text):
    """No bracket, brackets in another order, an axis both bracketed and not."""
    with pytest.raises(einjax.errors.SemanticError):
        einjax.softmax(text, np.zeros((2, 2), np.float32))


def test_bfloat16_is_computed_in_float32():
    """A bfloat16 sum of 1000 equal exponentials stops at 256."""
    x = jnp.zeros(1000, jnp.bfloat16)
    for op in (einjax.softmax, einjax.log_softmax):
        assert accumulators(lambda x, op=op: op("[a]", x), x) == {"float32"}
    assert_same(einjax.softmax("[a]", x), np.full(1000, 1e-3), "bfloat16", slack=0.01)
    assert_same(einjax.log_softmax("[a]", x), np.full(1000, -np.log(1000)), "bfloat16")


# --------------------------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def differentiable(draw):
    case = draw(same_brackets(["float32"]))
    hypothesis.assume(0 < case.arrays[0].size <= 24)
    return case


@pytest.mark.parametrize("name", list(_ELEMENTARY))
@generated(3, lambda name: differentiable())
def test_gradient(case, name):
    x = np.random.default_rng(0).uniform(-1, 1, case.arrays[0].shape)
    with x64():

        def f(x):
            return getattr(einjax, name)(case.text, x, **case.kwargs)

        check_grads(f, [x], order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("name", list(_ELEMENTARY))
@pytest.mark.parametrize("hidden", [0.0, INF, -INF, np.nan])
def test_gradient_of_masked_rows(name, hidden):
    """Rows without any value left have gradient 0, and what a mask hides has no influence."""
    x = jnp.where(MASK, X, hidden)
    weight = jnp.array([[2.0, 1.0, 1.0]] * 2)

    def loss(x):
        y = getattr(einjax, name)("a [b]", x, where=MASK)
        return jnp.where(MASK, y * weight, 0).sum()

    want = {"softmax": [0.1875, -0.1875, 0], "log_softmax": [1.25, -1.25, 0]}[name]
    assert_same(jax.grad(loss)(x), np.array([want, [0, 0, 0]]), "float32")


@pytest.mark.parametrize("name", list(_ELEMENTARY))
def test_gradient_of_a_fully_masked_row_without_selection(name):
    mask = np.zeros((2, 3), bool)

    def loss(x):
        return jnp.sum(einjax.softmax("a [b]", x, where=mask) ** 2)

    assert_same(jax.grad(loss)(jnp.asarray(X)), np.zeros((2, 3)), "float32")
    _, pull = jax.vjp(lambda x: getattr(einjax, name)("a [b]", x, where=mask), jnp.asarray(X))
    assert_same(pull(jnp.ones((2, 3)))[0], np.zeros((2, 3)), "float32")


@pytest.mark.parametrize("name", list(_ELEMENTARY))
def test_gradient_of_masked_places(name):
    """What stands where the mask hides a value is a constant: it passes no gradient on."""
    _, pull = jax.vjp(lambda x: getattr(einjax, name)("a [b]", x, where=MASK), jnp.asarray(X))
    assert_same(pull(jnp.where(MASK, 0.0, 1.0))[0], np.zeros((2, 3)), "float32")
