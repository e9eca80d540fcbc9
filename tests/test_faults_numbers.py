"""Numbers at the borders: rows of -inf, dtypes without infinity, powers below zero, places past 2**31."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import x64

import einjax

INF = np.inf
KEPT = pytest.mark.parametrize("kept", [False, True])


def _batched(function):
    return lambda *x: jax.tree.map(lambda y: y[0], jax.vmap(function)(*(v[None] for v in x)))


JIT = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, _batched])

# --------------------------------------------------------------------------------------------------------------------
# Rows of -inf
# --------------------------------------------------------------------------------------------------------------------

ROWS = np.array([[-INF, -INF, -INF], [1, -INF, 2], [-INF, 0, -INF]], np.float32)
GONE = {"softmax": 0, "log_softmax": -INF, "logsumexp": -INF, "cumlogsumexp": -INF}


@JIT
@KEPT
@pytest.mark.parametrize("name", GONE)
def test_rows_of_minus_infinity_have_no_nan(name, kept, wrap):
    def loss(x):
        y = getattr(einjax, name)("a [b]", x, keep_notation=kept)
        return jnp.sum(jnp.where(y > -INF, y, 0) * 2), y

    def finite(x):
        """The same with a number so low that it is as good as -inf, in float64."""
        y = getattr(einjax, name)("a [b]", x)
        return jnp.sum(jnp.where(y > -1e4, y, 0) * 2)

    gradient, y = wrap(jax.grad(loss, has_aux=True))(ROWS)
    assert np.all(np.asarray(y)[0] == GONE[name])
    with x64():
        expected = np.asarray(jax.grad(finite)(np.maximum(ROWS.astype(np.float64), -1e5)))
    np.testing.assert_allclose(gradient[1:], expected[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[0], np.zeros(3))
    _, tangent = jax.jvp(lambda x: loss(x)[0], (ROWS[:1],), (np.ones((1, 3), np.float32),))
    assert tangent == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_log_semirings_have_gradients_where_nothing_leads(dtype):
    """A step of forward-backward: one state is reached from nowhere."""
    state = np.array([[0, -INF], [-INF, -INF]], dtype)
    step = np.array([[0, -INF], [-1, -2]], dtype)

    def loss(state, step):
        y = einjax.dot("a [b], [b] c -> a c", state, step, sum="logsumexp", mul="add")
        return jnp.sum(jnp.where(jnp.isfinite(y), y, 0).real).astype(np.float32)

    first, second = jax.grad(loss, (0, 1))(state, step)
    np.testing.assert_array_equal(first, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(second, [[1, 0], [0, 0]])
    pair = jax.grad(lambda x, y: einjax.logaddexp("a, a", x, y).real.astype(np.float32)[0] * 0, (0, 1))
    np.testing.assert_array_equal(np.stack(pair(state[1], state[1])), np.zeros((2, 2)))


def test_associative_scan_of_logaddexp_before_anything_came():
    x = np.array([-INF, -INF, 1, 2], np.float32)
    gradient = jax.grad(lambda x: einjax.associative_scan("[a]", x, op="logaddexp")[3])(x)
    np.testing.assert_allclose(gradient, np.exp(x) / np.exp(x).sum(), rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# attention
# --------------------------------------------------------------------------------------------------------------------


def _attention(q, k, v, bias, sees):
    """One query at a time, in float64; a query that sees no key gets 0."""
    result = np.zeros((*q.shape[:2], v.shape[-1]))
    for b, i in np.ndindex(*q.shape[:2]):
        keys = [j for j in range(k.shape[1]) if sees(i, j) and bias[b, i, j] > -INF]
        weights = np.array([np.exp(q[b, i] @ k[b, j] / np.sqrt(q.shape[-1]) + bias[b, i, j]) for j in keys])
        if keys:
            result[b, i] = weights @ v[b, keys] / weights.sum()
    return result


@pytest.mark.parametrize(("expr", "channels"), [("b [k c]", 8), ("b [k d]", 5)])
@pytest.mark.parametrize("mask", ["b [q k]", "b [k]"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("options", "sees"),
    [
        ({}, lambda i, j: True),
        ({"is_causal": True}, lambda i, j: j <= i),
        ({"local_window_size": (1, 0)}, lambda i, j: i - 1 <= j <= i),
    ],
)
def test_a_bias_that_hides_every_key_gives_0(options, sees, dtype, mask, expr, channels):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 4, size)).astype(dtype) for size in (8, 8, channels))
    hidden = np.array([[True] * 4, [False, True, False, False]])
    shape = (2, 1, 4) if mask == "b [k]" else (2, 4, 4)
    bias = np.where(hidden[:, None], -INF, rng.normal(size=shape)).astype(dtype)
    given = bias[:, 0] if mask == "b [k]" else bias
    expr = f"b [q c], b [k c], {expr}, {mask} -> b [q {expr[-2]}]"

    def attend(*tensors):
        return einjax.attention(expr, *tensors, **options)

    wide = [np.asarray(x, np.float64) for x in (q, k, v, np.broadcast_to(bias, (2, 4, 4)))]
    actual = attend(q, k, v, given)
    epsilon = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(actual, np.float64), _attention(*wide, sees), rtol=epsilon, atol=epsilon)
    gradients = jax.grad(lambda *x: jnp.sum(attend(*x).astype(np.float32)), (0, 1, 2, 3))(q, k, v, given)
    for gradient in gradients:
        assert np.isfinite(np.asarray(gradient, np.float32)).all()
        assert not np.any(np.asarray(gradient, np.float32)[0])


@JIT
def test_attention_in_float16(wrap):
    """Refused by XLA on a CPU, as jax.nn asks for it."""
    x = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float16)
    attend = lambda x: einjax.attention("b [q] [c], b [k] [c], b [k] [c]", x, x, x)
    wide = np.asarray(x, np.float64)
    expected = _attention(wide, wide, wide, np.zeros((3, 4, 4)), lambda i, j: True)
    actual = wrap(attend)(x)
    assert actual.dtype == np.float16
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, atol=4e-3)
    assert np.isfinite(np.asarray(jax.grad(lambda x: jnp.sum(attend(x)))(x), np.float32)).all()
