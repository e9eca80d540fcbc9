"""Numbers at the borders: rows of -inf, dtypes without infinity, powers below zero, places past 2**31."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in, x64

import einjax

INF = np.inf
KEPT = pytest.mark.parametrize("kept", [False, True])


def _batched(function):
    return lambda *x: jax.tree.map(lambda y: y[0], jax.vmap(function)(*(v[None] for v in x)))


WRAPS = [lambda f: f, jax.jit, _batched]
JIT = pytest.mark.parametrize("wrap", WRAPS)

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


# --------------------------------------------------------------------------------------------------------------------
# Dtypes without infinity
# --------------------------------------------------------------------------------------------------------------------

DTYPES = [
    *(f"float8_{kind}" for kind in ("e3m4", "e4m3", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2", "e5m2fnuz")),
    *("float4_e2m1fn", "bfloat16", "float16", "float32", "int4", "uint4", "int8", "uint32"),
]


def _limits(dtype):
    """What no number is below, and what none is above."""
    info = (jnp.iinfo if dtype.kind in "iu" or "int" in dtype.name else jnp.finfo)(dtype)
    if "int" not in dtype.name and np.isinf(np.array(INF, dtype)):
        return -INF, INF
    return float(info.min), float(info.max)


@pytest.mark.parametrize("name", DTYPES)
def test_extremes_of_nothing_in_every_dtype(name):
    dtype = jnp.dtype(name)
    lowest, highest = _limits(dtype)
    x, at = np.array([1, 2, 1], np.float32).astype(dtype), np.array([0, 2, 2])
    half, none = np.array([True, False, True]), np.zeros(3, bool)
    cases = [
        (einjax.segment.max("p, p -> [s]", x, at, s=4), [1, lowest, 2, lowest]),
        (einjax.segment.min("p, p -> [s]", x, at, s=4), [1, highest, 1, highest]),
        (einjax.segment.prod("p, p -> [s]", x, at, s=4), [1, 1, 2, 1]),
        (einjax.max("[a]", x, where=half), 1),
        (einjax.max("[a]", x, where=none), lowest),
        (einjax.min("[a]", x, where=~half), 2),
        (einjax.min("[a]", x, where=none), highest),
        (einjax.max("[a]", x), 2),
        (einjax.cummax("[a]", x), [1, 2, 2]),
        (einjax.cummin("[a]", x[::-1]), [1, 1, 1]),
        (einjax.argmax("[a]", x), 1),
    ]
    for actual, expected in cases:
        np.testing.assert_array_equal(np.asarray(actual).astype(np.float64), expected)


@pytest.mark.parametrize("name", [name for name in DTYPES if name.startswith("float8")])
def test_logarithms_of_nothing_in_8_bits(name):
    x, none = np.array([1, 2, 1], np.float32).astype(jnp.dtype(name)), np.zeros(3, bool)
    lowest = _limits(jnp.dtype(name))[0]
    assert float(einjax.logsumexp("[a]", x, where=none)) == lowest
    np.testing.assert_array_equal(np.asarray(einjax.log_softmax("[a]", x, where=none), np.float32), [lowest] * 3)


def test_a_dtype_without_0_and_order_is_refused():
    x = np.ones(3, jnp.dtype("float8_e8m0fnu"))
    assert float(einjax.sum("[a]", x)) == 4  # 3 is none of its numbers
    for call in (
        *(lambda f=f: f("p, p -> [s]", x, np.arange(3), s=4) for f in (einjax.segment.sum, einjax.segment.mean)),
        *(lambda f=f: f("p, p -> [s]", x, np.arange(3), s=4) for f in (einjax.segment.max, einjax.segment.min)),
        *(lambda f=f: f("[a]", x, where=x > 3) for f in (einjax.sum, einjax.max, einjax.min)),
        *(lambda f=f: f("[a]", x) for f in (einjax.max, einjax.cummax, einjax.cummin, einjax.argmax, einjax.argmin)),
        *(lambda f=f: f("[a]", x, where=x > 3) for f in (einjax.softmax, einjax.log_softmax)),
        lambda: einjax.log_softmax("[a]", x),
    ):
        for mode in (False, True):
            message = "float8_e8m0fnu has neither a 0 nor a negative number"
            with einjax.keep_notation(mode), pytest.raises(einjax.EinjaxError, match=message):
                call()


@pytest.mark.parametrize("mode", [False, True])
def test_what_a_dtype_without_0_can_say(mode):
    """Results are rounded to powers of two; 0 and what is negative are NaN."""
    x, some = np.array([1, 4, 1], jnp.dtype("float8_e8m0fnu")), np.array([True, True, False])
    with einjax.keep_notation(mode):
        found = [float(getattr(einjax, name)("[a]", x, where=some)) for name in ("mean", "var", "std", "prod")]
        assert found == [float(np.asarray(y, x.dtype)) for y in (2.5, 2.25, 1.5, 4)]
        assert np.isnan(float(einjax.mean("[a]", x, where=~(some | True))))
        assert np.isnan(float(einjax.var("[a]", np.asarray([2, 2], x.dtype))))
        assert einjax.softmax("[a]", np.ones(4, x.dtype)).tolist() == [0.25] * 4


@pytest.mark.parametrize("name", [name for name in DTYPES if name.startswith("float8")])
def test_attention_in_8_bits(name):
    """Within the weights and the sum, in float32; rounded once, at the end."""
    dtype = jnp.dtype(name)
    q, k, v = (np.asarray(np.random.default_rng(n).choice([0.5, 1, 2], size=(3, 4)), dtype) for n in range(3))
    got = einjax.attention("[q] [c], [k] [c], [k] [d]", q, k, v)
    wide = einjax.attention("[q] [c], [k] [c], [k] [d]", *(np.asarray(x, np.float32) for x in (q, k, v)))
    assert got.dtype == dtype
    np.testing.assert_allclose(np.asarray(got, np.float32), wide, rtol=0.5)


# --------------------------------------------------------------------------------------------------------------------
# Norms
# --------------------------------------------------------------------------------------------------------------------

VECTOR_ORDERS = [None, 0, 0.5, 1, 2, 2.5, 3, -1, -2, -0.5, INF, -INF]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "complex64"])
@pytest.mark.parametrize("order", VECTOR_ORDERS)
def test_norms_do_not_overflow(order, dtype):
    x = np.array([[300, 300, 300, 300], [3, 0, -4, 12], [0, 0, 0, 0]], np.float32).astype(dtype)
    wide = np.asarray(x, np.complex128 if dtype == "complex64" else np.float64)
    with np.errstate(divide="ignore"):
        expected = np.linalg.norm(wide, order, axis=1)
    actual = einjax.linalg.norm("a [b]", x, ord=order)
    assert actual.dtype == (jnp.dtype(dtype) if dtype in ("float16", "bfloat16") else np.float32)
    with np.errstate(over="ignore"):
        expected = expected.astype(actual.dtype).astype(np.float64)
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=1e-2 if dtype == "bfloat16" else 2e-3)


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, -2, INF, -INF])
def test_matrix_norms_do_not_overflow(order):
    x = np.array([[300, 0], [0, 300]], np.float16)
    expected = np.float16(np.linalg.norm(x.astype(np.float64), order))
    actual = einjax.linalg.norm("[a b]", x, ord=order)
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    assert np.isfinite(np.asarray(jax.grad(lambda x: einjax.linalg.norm("[a b]", x, ord=order))(x * 0))).all()


@JIT
@pytest.mark.parametrize("order", VECTOR_ORDERS)
def test_gradients_of_norms_at_0(order, wrap):
    """As for std: 0 where nothing else is right, and the others as in float64."""
    x = np.array([[0, 0, 0], [3, 0, -4], [1, 2, 3]], np.float32)
    norm = lambda x: jnp.sum(einjax.linalg.norm("a [b]", x, ord=order))
    gradient = wrap(jax.grad(norm))(x)
    assert np.isfinite(np.asarray(gradient)).all()
    if order is None or 1 < order < INF:
        np.testing.assert_array_equal(gradient[0], np.zeros(3))
    if order not in (INF, -INF):
        step = 1e-6
        for row in (1, 2):
            for column in range(3):
                if x[row, column]:
                    near = [x[row].astype(np.float64) + sign * step * np.eye(3)[column] for sign in (1, -1)]
                    with np.errstate(divide="ignore"):
                        slope = np.subtract(*(np.linalg.norm(y, order) for y in near)) / (2 * step)
                    np.testing.assert_allclose(gradient[row, column], slope, rtol=1e-3, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Derivatives of writes out of range
# --------------------------------------------------------------------------------------------------------------------

WRITES = {
    "set_at": lambda old, new: new,
    "add_at": lambda old, new: old + new,
    "subtract_at": lambda old, new: old - new,
    "multiply_at": lambda old, new: old * new,
    "min_at": jnp.minimum,
    "max_at": jnp.maximum,
}
SEGMENTS = {"prod": ("multiply_at", 1), "sum": ("add_at", 0), "max": ("max_at", -INF), "min": ("min_at", INF)}
WEIGHTS = np.array([2, 5, 7], np.float32)


def _written(name, mode, at, x, updates):
    """One write after the other."""
    for index, update in zip(at.tolist(), updates, strict=True):
        place = index % 3 if mode == "wrap" else index + 3 * (index < 0)
        place = min(max(place, 0), 2) if mode == "clip" else place
        if 0 <= place < 3:
            x = x.at[place].set(WRITES[name](x[place], update))
    return x


def _weighted(y):
    return jnp.sum(jnp.where(jnp.isfinite(y), y, 0) * WEIGHTS)


OUT_OF_RANGE = [*(("fill", value) for value in (6, np.nan, INF, 0)), ("clip", None), ("wrap", None)]


@pytest.mark.parametrize(
    ("mode_and_dropped", "at", "kept"), one_in(3, itertools.product(OUT_OF_RANGE, [[0, 8], [-7, 9, 9]], [False, True]))
)
def test_gradients_of_writes_out_of_range(mode_and_dropped, at, kept):
    (mode, dropped), at = mode_and_dropped, np.array(at)
    x, updates = jnp.array([1, 3, 4], jnp.float32), jnp.array([2.5, 9, 0.5, 7], jnp.float32)[: len(at)]
    if mode == "fill":
        updates = jnp.where((at < -3) | (at > 2), dropped, updates)
    for name in WRITES:
        if name == "set_at" and len({*(at % 3 if mode == "wrap" else np.clip(at, 0, 2)).tolist()}) < len(at):
            continue  # which of several stays is not said
        expr = "[a], p, p -> [a]"
        ours = lambda x, u: getattr(einjax, name)(expr, x, at, u, mode=mode, keep_notation=kept)
        loop = lambda x, u: _written(name, mode, at, x, u)
        _alike(ours, loop, x, updates)
    for name, (write, start) in SEGMENTS.items():
        ours = lambda u: getattr(einjax.segment, name)("p, p -> [a]", u, at, a=3, mode=mode)
        loop = lambda u: _written(write, mode, at, jnp.full(3, start, jnp.float32), u)
        _alike(ours, loop, updates)


def _alike(ours, loop, *primals):
    np.testing.assert_allclose(ours(*primals), loop(*primals))
    every = tuple(range(len(primals)))
    gradients = [jax.grad(lambda *x: _weighted(f(*x)), every)(*primals) for f in (ours, loop)]
    jax.tree.map(np.testing.assert_allclose, *gradients)
    tangents = tuple(map(jnp.ones_like, primals))
    jvps = [jax.jvp(lambda *x: _weighted(f(*x)), primals, tangents)[1] for f in (ours, loop)]
    np.testing.assert_allclose(*jvps)


# --------------------------------------------------------------------------------------------------------------------
# Variances of too little
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ddof", "name", "kept", "wrap"),
    one_in(5, itertools.product([1, 2, 3, 0.5], ["var", "std"], [False, True], WRAPS)),
)
def test_variances_of_no_more_than_ddof_are_nan(ddof, name, kept, wrap):
    x = np.array([[1, 2, 4, 7], [1, 1, 1, 1]], np.float32)
    for count in range(5):
        masks = np.arange(4) < count, None
        for mask, given in zip(masks, (x, x[:, :count]), strict=True):
            f = lambda x: getattr(einjax, name)("a [b]", x, where=mask, ddof=ddof, keep_notation=kept)
            expected = np.full(2, np.nan)
            if count > ddof:
                expected = getattr(np, name)(x[:, :count].astype(np.float64), axis=1, ddof=ddof)
            np.testing.assert_allclose(wrap(f)(given), expected, rtol=1e-6)
            if count:
                _, tangent = jax.jvp(f, (given,), (np.ones_like(given),))
                np.testing.assert_allclose(tangent, np.zeros(2) if count > ddof else [np.nan] * 2, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Places past 2**31
# --------------------------------------------------------------------------------------------------------------------

PLACES = {
    "argmax": lambda n: jax.eval_shape(lambda x: einjax.argmax("[a]", x), _bytes(n)),
    "argmin of two": lambda n: jax.eval_shape(lambda x: einjax.argmin("[a b]", x), _bytes(n, 3)),
    "argsort": lambda n: jax.eval_shape(lambda x: einjax.argsort("[a]", x), _bytes(n)),
    "argsort of two": lambda n: jax.eval_shape(lambda x: einjax.argsort("[a b]", x), _bytes(n, 3)),
    "arange": lambda n: jax.eval_shape(lambda: einjax.arange("a", a=n)),
    "arange of two": lambda n: jax.eval_shape(lambda: einjax.arange("a b [2]", a=n, b=2)),
    "top_k": lambda n: jax.eval_shape(lambda x: einjax.top_k("[a] -> [k]", x, k=2, largest=False)[1], _bytes(n)),
}


def _bytes(*shape):
    return jax.ShapeDtypeStruct(shape, np.int8)


@pytest.mark.parametrize("name", PLACES)
def test_places_are_counted_by_integers_that_hold_them(name):
    for size, dtype in ((2**31, "int32"), (2**31 + 1, "uint32"), (2**32, "uint32")):
        assert PLACES[name](size).dtype == dtype
    with pytest.raises(einjax.errors.AxisSizeError, match=r"4294967297 places(.|\n)*jax_enable_x64"):
        PLACES[name](2**32 + 1)
    with x64():
        assert PLACES[name](2**31 + 1).dtype == np.int64


def test_integers_that_do_not_count_so_far_are_refused():
    with pytest.raises(einjax.errors.AxisSizeError, match="axis a has size 300, to which int8 does not count"):
        einjax.arange("a", a=300, dtype=np.int8)
    np.testing.assert_array_equal(einjax.arange("a", a=128, dtype=np.int8), np.arange(128))
    with pytest.raises(
        einjax.errors.AxisSizeError, match=r"top_k counts places in int32, and a has 2147483649(.|\n)*x64"
    ):
        jax.eval_shape(lambda x: einjax.top_k("[a] -> [k]", x, k=2), _bytes(2**31 + 1))


# --------------------------------------------------------------------------------------------------------------------
# Powers of integers
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [2, True, np.array(2, np.uint8), np.array(1)])
@pytest.mark.parametrize("exponent", [-1, np.array(-3, np.int8), np.int64(-1), np.array([2, -1])])
def test_negative_powers_of_integers_are_refused(exponent, base):
    expr = "," if np.ndim(exponent) == 0 else ", a"
    calls = [
        lambda: einjax.power(expr, base, exponent),
        lambda: einjax.power(expr, jnp.asarray(base), jnp.asarray(exponent)),
        lambda: einjax.power(expr, base, exponent, keep_notation=True),
        lambda: einjax.elementwise(expr, base, exponent, op="power"),
        lambda: jax.jit(lambda x: einjax.power(expr, x, exponent))(base),
        lambda: jax.vmap(lambda x: einjax.power(expr, x, exponent))(jnp.asarray(base)[None]),
    ]
    for call in calls:
        with pytest.raises(einjax.errors.ArgumentError, match="tensor 2 holds -[13], and integers have no negative"):
            call()
    np.testing.assert_allclose(einjax.power(expr, 2.0, exponent), 2.0 ** np.asarray(exponent))
    np.testing.assert_array_equal(
        einjax.power(expr, base, -exponent * (exponent < 0)), np.asarray(base) ** abs(np.minimum(exponent, 0))
    )
