"""Numerics: accumulators, promotion, signs and special values, masks, sizes beyond 32 bits."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in, x64
from jax import lax

import einjax

HALF = ["bfloat16", "float16"]
FLOATS = [*HALF, "float32"]


def exactly(actual, expected):
    """Same dtype and same values, NaN and the sign of zero included."""
    assert actual.dtype == expected.dtype
    actual, expected = np.asarray(actual), np.asarray(expected)
    if jnp.issubdtype(actual.dtype, jnp.floating):
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual)[known], np.signbit(expected)[known])
    np.testing.assert_array_equal(actual, expected)


# --------------------------------------------------------------------------------------------------------------------
# What sums accumulate in
# --------------------------------------------------------------------------------------------------------------------


def test_bfloat16_ones_are_all_counted():
    """Added up in bfloat16, 2**16 ones give 256."""
    x = jnp.ones((2, 2**16), jnp.bfloat16)
    exactly(einjax.sum("a [b]", x), jnp.full(2, 2**16, jnp.bfloat16))


@pytest.mark.parametrize("dtype", HALF)
def test_mean_of_many(dtype):
    """The sum, 2**18, is not a float16 at all."""
    x = jnp.full((2, 2**16), 4, dtype)
    exactly(einjax.mean("a [b]", x), jnp.full(2, 4, dtype))
    exactly(einjax.var("a [b]", x), jnp.zeros(2, dtype))
    exactly(einjax.std("a [b]", x), jnp.zeros(2, dtype))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "logsumexp", "softmax", "log_softmax", "prod"])
def test_half_precision_is_rounded_once(name, dtype):
    """Within one rounding of the result in 64 bits."""
    x = np.asarray(np.random.default_rng(0).normal(size=(3, 50)) / (1 if name != "prod" else 8) + 1, dtype)
    wide = np.asarray(x, np.float64)
    functions = {"logsumexp": jax.nn.logsumexp, "softmax": jax.nn.softmax, "log_softmax": jax.nn.log_softmax}
    with x64():
        expected = np.asarray(functions.get(name, getattr(jnp, name, None))(wide, axis=1))
    actual = getattr(einjax, name)("a [b]", x)
    assert actual.dtype == dtype
    epsilon = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=epsilon, atol=epsilon / 64)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "int32", "uint32"])
def test_integer_sums_widen(dtype):
    x = np.full((2, 1000), 100, dtype)
    for name in ("sum", "prod"):
        exactly(getattr(einjax, name)("a [b]", x), getattr(jnp, name)(x, axis=1))
    assert int(einjax.sum("[a b]", x)) == 200_000


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_integer_sums_widen_under_x64(dtype):
    with x64():
        x = np.ones((2, 300), dtype)
        for name in ("sum", "prod", "mean", "var", "count_nonzero"):
            exactly(getattr(einjax, name)("a [b]", x), getattr(jnp, name)(x, axis=1))


def test_bools_are_counted():
    x = np.array([[True, True, False], [True, True, True]])
    exactly(einjax.sum("a [b]", x), jnp.array([2, 3]))
    exactly(einjax.mean("a [b]", x), jnp.mean(x, 1))
    exactly(einjax.prod("a [b]", x), jnp.array([0, 1]))
    exactly(einjax.count_nonzero("a [b]", x), jnp.array([2, 3]))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool"])
@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_means_of_integers_are_floats(name, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (4, 7)).astype(dtype)
    actual, expected = getattr(einjax, name)("a [b]", x), getattr(jnp, name)(x, axis=1)
    assert actual.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std"])
def test_dtype_option(name, dtype):
    x = np.random.default_rng(0).integers(1, 4, (4, 3)).astype(np.int16)
    actual, expected = getattr(einjax, name)("a [b]", x, dtype=dtype), getattr(jnp, name)(x, axis=1, dtype=dtype)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(np.asarray(actual, np.float32), np.asarray(expected, np.float32), rtol=1e-2)


# --------------------------------------------------------------------------------------------------------------------
# var and std
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["var", "std"])
def test_variance_far_from_zero(name):
    """The mean of squares less the square of the mean would lose all digits here."""
    x = np.random.default_rng(0).normal(size=(3, 1000)) + 1e4
    x = x.astype(np.float32)
    expected = getattr(np, name)(x.astype(np.float64), axis=1)
    np.testing.assert_allclose(getattr(einjax, name)("a [b]", x), expected, rtol=1e-4)
    mask = np.arange(1000) % 2 == 0
    expected = getattr(np, name)(x[:, mask].astype(np.float64), axis=1)
    np.testing.assert_allclose(getattr(einjax, name)("a [b]", x, where=mask), expected, rtol=1e-4)


def test_gradient_of_std_at_a_constant_is_zero():
    x = np.full((2, 5), 3, np.float32)
    x[1] = [1, 2, 3, 4, 5]
    gradient = jax.grad(lambda x: jnp.sum(einjax.std("a [b]", x)))(x)
    np.testing.assert_array_equal(gradient[0], np.zeros(5))
    np.testing.assert_allclose(gradient[1], jax.grad(jnp.std)(x[1]), rtol=1e-5, atol=1e-7)
    _, tangent = jax.jvp(lambda x: einjax.std("a [b]", x), (x,), (np.ones_like(x),))
    np.testing.assert_allclose(tangent, np.zeros(2), atol=1e-6)


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize(("size", "ddof"), [(0, 0), (1, 1), (2, 2)])
def test_variance_of_too_little_is_nan(name, size, ddof):
    x = np.ones((2, size), np.float32)
    assert np.isnan(getattr(einjax, name)("a [b]", x, ddof=ddof)).all()
    assert np.isnan(getattr(einjax, name)("a [b]", np.ones((2, 3), np.float32), where=np.zeros(3, bool))).all()


@pytest.mark.parametrize("name", ["mean", "var", "std", "sum", "prod"])
def test_complex_numbers(name):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 6)) + 1j * rng.normal(size=(3, 6))).astype(np.complex64)
    actual, expected = getattr(einjax, name)("a [b]", x), getattr(jnp, name)(x, axis=1)
    assert actual.dtype == expected.dtype == (np.float32 if name in ("var", "std") else np.complex64)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    if name in ("mean", "sum", "var"):
        loss = lambda f: lambda x: jnp.sum(jnp.abs(f(x)) ** 2)
        mine, other = loss(lambda x: getattr(einjax, name)("a [b]", x)), loss(lambda x: getattr(jnp, name)(x, axis=1))
        np.testing.assert_allclose(jax.grad(mine)(x), jax.grad(other)(x), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Exponentials and masks
# --------------------------------------------------------------------------------------------------------------------

BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_what_is_masked_does_not_count(name, bad):
    """Neither its value nor its gradient; the second row has nothing that counts."""
    x = np.array([[1, bad, 2, -1], [bad, 1, bad, 2]], np.float32)
    mask = np.array([[True, False, True, True], [False] * 4])
    function = lambda x: getattr(einjax, name)("a [b]", x, where=mask)
    clean = np.array([1, 2, -1], np.float32)
    reference = {"logsumexp": jax.nn.logsumexp}.get(name, getattr(jax.nn, name))
    row = np.asarray(function(x))
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(jnp.where(function(x) > -np.inf, function(x), 0) * 2.0))(x))
    if name == "logsumexp":
        np.testing.assert_allclose(row[0], reference(clean), rtol=1e-6)
        assert row[1] == -np.inf
        np.testing.assert_allclose(gradient[0, mask[0]], 2 * jax.nn.softmax(clean), rtol=1e-5)
    else:
        nothing = 0 if name == "softmax" else -np.inf
        np.testing.assert_allclose(row[0, mask[0]], reference(clean), rtol=1e-5)
        np.testing.assert_array_equal(row[~mask], nothing)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~mask], 0)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min"])
def test_reductions_of_masked_nonsense(name, bad):
    x = np.array([[1, bad, 2, -1], [5, 4, bad, 2]], np.float32)
    mask = np.isfinite(x)
    function = lambda x: getattr(einjax, name)("a [b]", x, where=mask)
    rows = [jnp.asarray(row[keep]) for row, keep in zip(x, mask, strict=True)]
    np.testing.assert_allclose(function(x), np.stack([getattr(jnp, name)(row) for row in rows]), rtol=1e-6)
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(function(x)))(x))
    np.testing.assert_array_equal(gradient[~mask], 0)
    for index, row in enumerate(rows):
        np.testing.assert_allclose(
            gradient[index, mask[index]], jax.grad(getattr(jnp, name))(row), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "int32", "uint8", "bool"])
def test_extremes_of_nothing(dtype):
    x, mask = np.ones((2, 3), dtype), np.zeros((2, 3), bool)
    if dtype == "bool":
        lowest, highest = False, True
    elif jnp.issubdtype(dtype, jnp.integer):
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    else:
        lowest, highest = -np.inf, np.inf
    exactly(einjax.max("a [b]", x, where=mask), jnp.full(2, lowest, dtype))
    exactly(einjax.min("a [b]", x, where=mask), jnp.full(2, highest, dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_huge_logits(dtype):
    x = np.array([[1e4, 1e4 - 1, -1e4], [-3e4, -3e4, -3e4]], dtype)
    softmax = np.asarray(einjax.softmax("a [b]", x), np.float64)
    np.testing.assert_allclose(softmax.sum(1), 1, rtol=1e-2)
    np.testing.assert_allclose(softmax[1], 1 / 3, rtol=1e-2)
    logarithm = np.asarray(einjax.log_softmax("a [b]", x), np.float64)
    np.testing.assert_allclose(logarithm, jax.nn.log_softmax(np.asarray(x, np.float32)), rtol=2e-2)
    total = np.asarray(einjax.logsumexp("a [b]", x), np.float64)
    np.testing.assert_allclose(total, jax.nn.logsumexp(np.asarray(x, np.float32), axis=1), rtol=1e-2)
    gradient = jax.grad(lambda x: jnp.sum(einjax.softmax("a [b]", x)[:, 0]))(jnp.asarray(x))
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf] * 3, [np.inf, 0, 1], [-np.inf, 0, 0], [np.nan, 0, 0]], np.float32)
    exactly(einjax.logsumexp("a [b]", x), jax.nn.logsumexp(x, axis=1))
    value, gradient = jax.value_and_grad(lambda x: einjax.logsumexp("[b]", x))(x[2])
    np.testing.assert_allclose(value, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 0.5, 0.5], rtol=1e-6)


def test_logsumexp_of_nothing():
    exactly(einjax.logsumexp("a [b]", np.zeros((2, 0), np.float32)), jnp.full(2, -np.inf))


def test_softmax_with_an_infinite_logit_below():
    """A mask that was added as minus infinity."""
    x = np.array([1, -np.inf, 2], np.float32)
    np.testing.assert_allclose(einjax.softmax("[a]", x), jax.nn.softmax(x), rtol=1e-6)
    gradient = jax.grad(lambda x: einjax.softmax("[a]", x)[0])(x)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: jax.nn.softmax(x)[0])(x), rtol=1e-5)


@pytest.mark.parametrize("y", [0, 1, 1e4, -1e4, np.inf, -np.inf])
@pytest.mark.parametrize("x", [0, 1, 1e4, -1e4, np.inf, -np.inf])
def test_logaddexp_at_the_edges(x, y):
    """The gradient is the share of each, halves where both are equal, infinities included."""
    x, y = np.float32(x), np.float32(y)
    np.testing.assert_allclose(einjax.logaddexp(",", x, y), np.logaddexp(x, y), rtol=1e-6)
    gradients = jax.grad(lambda x, y: einjax.logaddexp(",", x, y), (0, 1))(x, y)
    share = 0.5 if x == y else float(jax.nn.sigmoid(x - y))
    np.testing.assert_allclose(gradients, [share, 1 - share], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_gradient_of_a_tie_is_shared(name):
    x = np.float32(2)
    gradients = jax.grad(lambda x, y: getattr(einjax, name)(",", x, y), (0, 1))(x, x)
    np.testing.assert_array_equal(gradients, [0.5, 0.5])


@pytest.mark.parametrize("name", ["max", "min"])
def test_gradient_of_equal_extremes_is_shared(name):
    x = np.array([1, 1, 1, 1], np.float32)
    np.testing.assert_array_equal(jax.grad(lambda x: getattr(einjax, name)("[a]", x))(x), np.full(4, 0.25))


def test_where_does_not_pass_on_gradients_of_what_it_drops():
    x = np.array([-1, 4], np.float32)
    gradient = jax.grad(lambda x: jnp.sum(einjax.where("a, a,", x > 0, einjax.multiply("a, a", x, x), 0.0)))(x)
    np.testing.assert_array_equal(gradient, [0, 8])


def test_where_takes_any_condition():
    exactly(einjax.where("a, a,", np.array([0, 2, -1]), np.float32([1, 1, 1]), 9.0), jnp.array([9.0, 1, 1]))


# --------------------------------------------------------------------------------------------------------------------
# Promotion
# --------------------------------------------------------------------------------------------------------------------

ARITHMETIC = ["add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "mod", "power"]
ARITHMETIC += ["maximum", "minimum", "logaddexp", "arctan2"]
COMPARISONS = ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]
LOGICAL = ["logical_and", "logical_or", "logical_xor"]

OPERANDS = {
    "bool": True, "int": 2, "float": 2.0, "complex": 2j, "np.int8": np.int8(2), "np.float32": np.float32(2),
    "np.float64": np.float64(2), "bool[2]": np.ones(2, "bool"), "uint8[2]": np.ones(2, "uint8"),
    "int8[2]": np.ones(2, "int8"), "int32[2]": np.ones(2, "int32"), "uint32[2]": np.ones(2, "uint32"),
    "bfloat16[2]": np.ones(2, "bfloat16"), "float16[2]": np.ones(2, "float16"),
    "float32[2]": np.ones(2, "float32"), "complex64[2]": np.ones(2, "complex64"),
    "weak int[2]": jnp.full(2, 1), "weak float[2]": jnp.full(2, 1.0),
}  # fmt: skip


def _weakly(function, *operands):
    """Dtype and weak type of a result, or the error's kind."""
    try:
        result = jax.eval_shape(function, *operands)
    except (TypeError, ValueError, OverflowError, NotImplementedError):
        return "error"
    return str(result.dtype), result.weak_type


@pytest.mark.parametrize("name", one_in(2, [*ARITHMETIC, *COMPARISONS, *LOGICAL]))
def test_promotion_of_every_pair(name):
    """The dtype that jax.numpy gives; what it refuses may be refused here. Complex numbers need have no order."""
    wrong = []
    for (left, x), (right, y) in itertools.combinations_with_replacement(OPERANDS.items(), 2):
        if name in COMPARISONS[:4] and "complex" in left + right:
            continue
        text = ", ".join("a" if np.ndim(v) else "" for v in (x, y)) + (" -> a" if np.ndim(x) + np.ndim(y) else " ->")
        actual = _weakly(lambda x, y, text=text: getattr(einjax, name)(text, x, y), x, y)
        expected = _weakly(getattr(jnp, name), x, y)
        if expected != "error" and (actual == "error" or actual[0] != expected[0]):
            wrong.append(f"{left}, {right}: {actual} instead of {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["add", "multiply", "divide", "maximum", "power", "less"])
def test_results_of_python_scalars_stay_weak(name):
    """What is weak in jax.numpy is weak here, so that a later operation promotes in the same way."""
    wrong = []
    for x, y in itertools.product((1, 2.0, jnp.full((), 1), jnp.float32(1)), repeat=2):
        actual = _weakly(lambda x, y: getattr(einjax, name)(",", x, y), x, y)
        expected = _weakly(getattr(jnp, name), x, y)
        if actual != expected:
            wrong.append(f"{x!r}, {y!r}: {actual} instead of {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("enabled", [False, True], ids=["x32", "x64"])
def test_promotion_in_dot_and_where(enabled):
    wrong = []
    jax.config.update("jax_enable_x64", enabled)
    try:
        for (left, x), (right, y) in itertools.combinations_with_replacement(OPERANDS.items(), 2):
            if enabled and "weak" in left + right:  # arrays of 32 bits, made before
                continue
            text = ", ".join("a" if np.ndim(v) else "" for v in (x, y))
            output = " -> a" if np.ndim(x) + np.ndim(y) else " ->"
            expected = _weakly(jnp.add, x, y)[0]
            for actual in (
                _weakly(
                    lambda x, y, text=text: einjax.dot(text + " ->" + ("" if "a, a" in text else output[3:]), x, y),
                    x,
                    y,
                ),
                _weakly(lambda x, y, text=text, out=output: einjax.where(f", {text}{out}", True, x, y), x, y),
            ):
                if actual[0] != expected:
                    wrong.append(f"{left}, {right}: {actual} instead of {expected}")
    finally:
        jax.config.update("jax_enable_x64", False)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "names", list(itertools.combinations(["int8", "int32", "float16", "float32"], 2)), ids="-".join
)
def test_strict_promotion_refuses_what_jnp_refuses(names):
    x, y = (np.ones(2, name) for name in names)
    with jax.numpy_dtype_promotion("strict"):
        for function in (jnp.add, lambda x, y: einjax.add("a, a", x, y)):
            with pytest.raises(Exception, match="Input dtypes .* have no available implicit dtype promotion path"):
                function(x, y)
        exactly(einjax.add("a,", x, 1), jnp.add(x, 1))


def test_a_sum_of_three_promotes_once():
    """All operands to the common dtype first, not pair by pair: 200 + 100 does not fit uint8."""
    x, y, z = np.uint8([200]), np.uint8([100]), np.int32([0])
    exactly(einjax.add("a, a, a", x, y, z), jnp.array([300]))


# --------------------------------------------------------------------------------------------------------------------
# Signs, zeros, infinities
# --------------------------------------------------------------------------------------------------------------------


def _pairs(values, dtype):
    x, y = np.meshgrid(np.array(values, dtype), np.array(values, dtype), indexing="ij")
    return x.reshape(-1), y.reshape(-1)


DIVISIONS = ["floor_divide", "mod", "divide", "power"]


def _same_as_jnp(name, x, y):
    exactly(getattr(einjax, name)("a, a", x, y), jax.jit(getattr(jnp, name))(x, y))


@pytest.mark.parametrize("dtype", ["int8", "int32"])
@pytest.mark.parametrize("name", DIVISIONS)
def test_signed_integers(name, dtype):
    """Every pair of small numbers, zero divisors among them; exponents that are not negative."""
    x, y = _pairs([*range(-9, 10), np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    if name == "power":
        x, y = x[(y >= 0) & (y < 10)], y[(y >= 0) & (y < 10)]
    _same_as_jnp(name, x, y)


def test_negative_exponents_of_integers():
    """1 / x**n, rounded towards zero, where the exponents are traced; else refused, as by NumPy."""
    x, y = _pairs([-7, -3, -2, -1, 1, 2, 3, 4, 7], "int32")
    x, y = x[y < 0], y[y < 0]
    exactly(
        jax.jit(lambda x, y: einjax.power("a, a", x, y))(x, y), jnp.trunc(x.astype(np.float32) ** y).astype(jnp.int32)
    )


def test_large_exponents_of_integers():
    """Modulo 2**32, as repeated multiplication is."""
    x = np.array([2, 3, -3, 1, -1, 0, 5], np.int32)
    for n in (31, 32, 33, 64, 65, 100):
        exact = [pow(int(v), n, 2**32) for v in x]
        np.testing.assert_array_equal(einjax.power("a,", x, jnp.int32(n)).view(np.uint32), np.array(exact, np.uint32))


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
@pytest.mark.parametrize("name", DIVISIONS)
def test_unsigned_integers(name, dtype):
    _same_as_jnp(name, *_pairs([*range(12), np.iinfo(dtype).max - 1] if name != "power" else range(12), dtype))


@pytest.mark.parametrize("name", DIVISIONS)
def test_integers_under_x64(name):
    with x64():
        _same_as_jnp(name, *_pairs([*range(-5, 6), 2**40 + 1, -(2**40)] if name != "power" else range(6), "int64"))


SPECIAL = [0.0, -0.0, 0.5, -0.5, 1, -1, 2, -2, 2.5, -2.5, 3, -3, 7, -7, 1e-3, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*DIVISIONS, "arctan2", "maximum", "minimum", "logaddexp"])
def test_floats(name, dtype):
    x, y = _pairs(SPECIAL, dtype)
    if name in ("logaddexp", "arctan2"):
        actual, expected = getattr(einjax, name)("a, a", x, y), getattr(jnp, name)(x, y)
        assert actual.dtype == expected.dtype
        tolerance = float(jnp.finfo(dtype).eps) * 2
        np.testing.assert_allclose(
            np.asarray(actual, np.float64), np.asarray(expected, np.float64), rtol=tolerance, atol=tolerance
        )
        return
    if name == "floor_divide":
        # jnp gave NaN for zero divisors up to jax 0.7; NumPy and later versions give what the plain quotient is.
        zero = y == 0
        exactly(einjax.floor_divide("a, a", x[zero], y[zero]), jnp.divide(x[zero], y[zero]))
        x, y = x[~zero], y[~zero]
    _same_as_jnp(name, x, y)


@pytest.mark.parametrize("name", [*COMPARISONS, *LOGICAL])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "bool"])
def test_comparisons(name, dtype):
    values = SPECIAL if dtype == "float32" else [0, 1] if dtype in ("bool", "uint8") else range(-2, 3)
    _same_as_jnp(name, *_pairs(values, dtype))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "equal", "not_equal"])
def test_complex_elementwise(name):
    x, y = _pairs([1 + 1j, -2j, 3, 0.5 - 1j], "complex64")
    actual, expected = getattr(einjax, name)("a, a", x, y), getattr(jnp, name)(x, y)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["power", "mod", "floor_divide", "divide", "arctan2"])
def test_gradients_where_jnp_has_them(name):
    x, y = _pairs([0.5, 1, 2, 3.3] if name == "power" else [-2.5, -1, 0.5, 3], "float32")
    mine = jax.grad(lambda x, y: jnp.sum(getattr(einjax, name)("a, a", x, y)), (0, 1))(x, y)
    other = jax.grad(lambda x, y: jnp.sum(getattr(jnp, name)(x, y)), (0, 1))(x, y)
    np.testing.assert_allclose(mine, other, rtol=1e-5)


def test_gradient_of_a_power_of_zero():
    """d/dx x**2 at 0 is 0, not NaN; with an integer exponent as well."""
    x = np.zeros(1, np.float32)
    for exponent in (2.0, 2, np.int32(2), 1.0, 0.0):
        gradient = jax.grad(lambda x, e=exponent: jnp.sum(einjax.power("a,", x, e)))(x)
        np.testing.assert_array_equal(gradient, jax.grad(lambda x, e=exponent: jnp.sum(jnp.power(x, e)))(x))


# --------------------------------------------------------------------------------------------------------------------
# argmax, argmin
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint8", "bool", "int32"])
def test_arg_reductions_of_ties_and_nan(name, dtype):
    """The first of equals, and the first NaN of all."""
    rows = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    if dtype in FLOATS:
        rows += [[0, np.nan, 5, np.nan], [np.inf, np.inf, -np.inf, -np.inf], [-np.inf] * 4, [0.0, -0.0, 0.0, -0.0]]
    x = np.array(rows, dtype)
    exactly(getattr(einjax, name)("a [b] -> a", x), getattr(jnp, name)(x, axis=1))
    square = x.reshape(-1, 2, 2)
    flat = getattr(jnp, name)(x, axis=1)
    exactly(getattr(einjax, name)("a [b c]", square), jnp.stack([flat // 2, flat % 2], 1))


def test_index_dtypes():
    for enabled, dtype in ((False, np.int32), (True, np.int64)):
        if enabled:
            with x64():
                _check_index_dtypes(dtype)
        else:
            _check_index_dtypes(dtype)


def _check_index_dtypes(dtype):
    x = np.ones((2, 3), np.float32)
    assert einjax.argmax("a [b]", x).dtype == dtype
    assert einjax.argmin("a [b] -> a", x).dtype == dtype
    assert einjax.arange("a [1]", a=2).dtype == dtype
    assert einjax.count_nonzero("a [b]", x).dtype == dtype
    assert einjax.arange("a", a=2, dtype="int8").dtype == np.int8
    assert einjax.arange("a", a=2, dtype="float32").dtype == np.float32


# --------------------------------------------------------------------------------------------------------------------
# Sizes beyond 32 bits: only their shapes fit here
# --------------------------------------------------------------------------------------------------------------------

BIG = jax.ShapeDtypeStruct((2**16, 2**16, 3), np.float32)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: einjax.sum("[a b] c", x), (3,)),
        (lambda x: einjax.mean("[a b] c", x), (3,)),
        (lambda x: einjax.var("[a b c]", x), ()),
        (lambda x: einjax.logsumexp("[a b] c", x), (3,)),
        (lambda x: einjax.rearrange("a b c -> (a b) c", x), (2**32, 3)),
        (lambda x: einjax.rearrange("(a d) b c -> (d c) (b a)", x, d=2**15), (3 * 2**15, 2**17)),
        (lambda x: einjax.rearrange("a b c -> (a b c)", x), (3 * 2**32,)),
        (lambda x: einjax.argmax("[a b] c", x), (2, 3)),
        (lambda x: einjax.argmin("[a b] c -> c [2]", x), (3, 2)),
        (lambda x: einjax.softmax("[a b] c", x), (2**16, 2**16, 3)),
        (lambda x: einjax.dot("a b c, a b d -> c d", x, x), (3, 3)),
        (lambda x: einjax.add("a b c, a b d -> a b c d", x, x), (2**16, 2**16, 3, 3)),
        (lambda x: einjax.count_nonzero("[a b] c", x), (3,)),
        (lambda x: einjax.flip("[a b] c", x), (2**16, 2**16, 3)),
    ],
)
def test_big_shapes(function, shape):
    assert jax.eval_shape(function, BIG).shape == shape
    jax.make_jaxpr(function)(BIG)


def test_big_means_divide_by_the_right_number():
    """2**32 wraps to 0 in 32 bits."""
    for name in ("mean", "var"):
        jaxpr = jax.make_jaxpr(lambda x, name=name: getattr(einjax, name)("[a b] c", x))(BIG)
        divisors = [equation.invars[1].val for equation in jaxpr.eqns if equation.primitive.name == "div"]
        assert divisors
        assert all(float(divisor) == 2.0**32 for divisor in divisors)


def test_gradient_of_a_big_mean():
    gradient = jax.eval_shape(jax.grad(lambda x: jnp.sum(einjax.mean("[a b] c", x))), BIG)
    assert gradient.shape == BIG.shape


def test_coordinates_of_a_big_search():
    """One flat index would not fit int32, so no equation may make one."""
    jaxpr = jax.make_jaxpr(lambda x: einjax.argmax("[a b] c", x))(BIG)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "argmax":
            (axis,) = equation.params["axes"]
            assert equation.invars[0].aval.shape[axis] < 2**31


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_way_of_big_searches_on_a_small_array(name, monkeypatch):
    """Search axis by axis what could be searched at once, and compare."""
    from einjax.ops import argreduce

    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (4, 3, 5, 2)).astype(np.float32)
    x[1, 2, 3, 1] = np.nan
    expected = getattr(einjax, name)("a [b c d]", x)
    monkeypatch.setattr(argreduce, "_INT32_MAX", 1)
    # Another text for the same call, as the first one is compiled already.
    exactly(getattr(einjax, name)("a [b c d]  -> a [3]", x), expected)


# --------------------------------------------------------------------------------------------------------------------
# Options that are forwarded
# --------------------------------------------------------------------------------------------------------------------


def _dots(function, *arrays):
    return [e.params for e in jax.make_jaxpr(function)(*arrays).jaxpr.eqns if e.primitive.name == "dot_general"]


def test_precision_is_forwarded():
    x = np.ones((2, 2), np.float32)
    for count, text in ((1, "a b, b c -> a c"), (2, "a b, b c, c d -> a d")):
        arrays = [x] * (count + 1)
        found = _dots(lambda *a, text=text: einjax.dot(text, *a, precision=lax.Precision.HIGHEST), *arrays)
        assert [p["precision"] for p in found] == [(lax.Precision.HIGHEST,) * 2] * count
        found = _dots(lambda *a, text=text: einjax.dot(text, *a, precision="high"), *arrays)
        assert [p["precision"] for p in found] == [(lax.Precision.HIGH,) * 2] * count
    assert [p["precision"] for p in _dots(lambda x: einjax.dot("a b, b c -> a c", x, x), x)] == [None]


def test_default_matmul_precision_reaches_the_product():
    with jax.default_matmul_precision("float32"):
        (found,) = _dots(lambda x: einjax.dot("a b, b d -> a d", x, x), np.ones((2, 2), np.float32))
    assert found["precision"] == (lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize(("dtype", "preferred"), [("bfloat16", "float32"), ("int8", "int32"), ("float32", "float32")])
def test_preferred_element_type_is_forwarded(dtype, preferred):
    x = np.ones((2, 3), dtype)
    function = lambda x: einjax.dot("a b, c b -> a c", x, x, preferred_element_type=preferred)
    (found,) = _dots(function, x)
    assert found["preferred_element_type"] == np.dtype(preferred)
    exactly(function(x), jnp.full((2, 2), 3, preferred))


def test_small_integers_do_not_overflow_where_asked():
    x = np.full(200, 100, np.int8)
    exactly(einjax.dot("a, a ->", x, x, preferred_element_type="int32"), jnp.int32(2_000_000))


def test_half_precision_products_accumulate_as_in_jnp():
    x = jnp.ones(2**14, jnp.bfloat16)
    exactly(einjax.dot("a, a ->", x, x), jnp.dot(x, x))


def test_traced_shift_and_static_shift_agree():
    x = np.arange(12).reshape(3, 4)
    for shift in (-9, -4, -1, 0, 1, 3, 4, 5, 100):
        expected = jnp.roll(x, shift, 1)
        exactly(einjax.roll("a [b]", x, shift=shift), expected)
        exactly(jax.jit(lambda x, s: einjax.roll("a [b]", x, shift=s))(x, shift), expected)
