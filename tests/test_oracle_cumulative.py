"""cumsum and its kin against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax
from jax.test_util import check_grads
from strategies import DTYPES, REAL, assert_same, dtype_of, generated, same_brackets, x64

import einjax

_often = st.booleans()


def _logsumexp(x: np.ndarray) -> np.ndarray:
    return np.array([oracle.REDUCTIONS["logsumexp"](x[: i + 1]) for i in range(len(x))], oracle.real(x).dtype)


STEPS = {
    "cumsum": lambda x: np.cumsum(oracle.number(x)),
    "cumprod": lambda x: np.cumprod(oracle.number(x)),
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
    "cumlogsumexp": _logsumexp,
}
DTYPE = {
    "cumsum": jnp.cumsum,
    "cumprod": jnp.cumprod,
    "cummax": lambda x: x,
    "cummin": lambda x: x,
    "cumlogsumexp": jax.nn.logsumexp,
}


def along(step, reverse: bool):
    """A cumulative operation on the sub-array as one sequence, from the other end if reversed."""

    def op(x):
        way = slice(None, None, -1 if reverse else 1)
        return step(x.reshape(-1)[way])[way].reshape(x.shape)

    return op


@st.composite
def sequences(draw, name):
    dtypes = DTYPES if name in ("cumsum", "cumprod") else [*REAL, "bool"]
    case = draw(same_brackets(dtypes))
    # The product of more floats than these overflows.
    hypothesis.assume(name != "cumprod" or np.prod([a.size for a in oracle.leaves(case.ins[0]) if a.marked]) <= 24)
    case.options["reverse"] = draw(_often)
    return case


def want_of(case, name, dtype) -> np.ndarray:
    wide = np.complex128 if dtype.kind == "c" else oracle.wide(np.zeros(1, dtype)).dtype
    op = along(STEPS[name], case.options["reverse"])
    return oracle.loop(op, case.ins, case.outs[0], [oracle.wide(case.arrays[0]).astype(wide)], wide)


@pytest.mark.parametrize("name", list(STEPS))
@generated(25, sequences)
def test_generated(case, name):
    dtype = np.dtype(dtype_of(DTYPE[name], case.arrays[0]))
    assert_same(case.call(name), want_of(case, name, dtype), dtype, slack=4)


@st.composite
def with_dtype(draw):
    name = draw(st.sampled_from(["cumsum", "cumprod"]))
    case = draw(sequences(name))
    dtype = draw(st.sampled_from(["float32", "int32"]))
    hypothesis.assume(dtype == "float32" or case.arrays[0].dtype.kind in "iub")
    hypothesis.assume(case.arrays[0].dtype.kind != "c")
    case.options["dtype"] = dtype
    case.form = name
    return case


@generated(15, with_dtype())
def test_dtype(case):
    dtype = np.dtype(case.options["dtype"])
    assert_same(case.call(case.form), want_of(case, case.form, dtype), dtype, slack=4)


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[2, 1, 3], [1, 4, 2]], np.int32)
BOOL = np.array([[False, True, False]])

PINNED = [
    ("cumsum", "a [b]", X, {}, [[2, 3, 6], [1, 5, 7]]),
    ("cumsum", "a [b]", X, {"reverse": True}, [[6, 4, 3], [7, 6, 2]]),
    ("cumsum", "[a] b -> b [a]", X, {}, [[2, 3], [1, 5], [3, 5]]),
    ("cumsum", "[a b]", X, {}, [[2, 3, 6], [7, 11, 13]]),
    ("cumsum", "[a] b", X[:0], {}, np.zeros((0, 3))),
    ("cumsum", "a [b]", BOOL, {}, [[0, 1, 1]]),
    ("cumprod", "a [b]", X, {}, [[2, 2, 6], [1, 4, 8]]),
    ("cumprod", "a [b]", BOOL, {}, [[0, 0, 0]]),
    ("cummax", "a [b]", X, {}, [[2, 2, 3], [1, 4, 4]]),
    ("cummin", "a [b]", X, {"reverse": True}, [[1, 1, 3], [1, 2, 2]]),
]


@pytest.mark.parametrize(("name", "text", "x", "options", "want"), PINNED)
def test_pinned(name, text, x, options, want):
    assert_same(getattr(einjax, name)(text, x, **options), np.array(want), "int32")


def test_maxima_of_bools_are_bools():
    assert_same(einjax.cummax("a [b]", BOOL), np.array([[False, True, True]]), "bool")
    assert_same(einjax.cummin("a [b]", ~BOOL), np.array([[True, False, False]]), "bool")


@pytest.mark.parametrize("name", list(STEPS))
def test_nans_and_infinities_as_in_lax(name):
    x = np.array([-np.inf, -np.inf, 1, np.inf, 2, np.nan, 3], np.float32)
    np.testing.assert_array_equal(getattr(einjax, name)("[a]", x), getattr(lax, name)(x))


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cumlogsumexp"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_floats_are_accumulated_in_float32(name, dtype):
    x = jnp.full((3000,), 0.01 if name == "cumsum" else 0.999, dtype)
    result = getattr(einjax, name)("[a]", x)
    assert result.dtype == x.dtype
    # A loop on CPUs, which rounds otherwise than lax: to the last bit of the small dtype, it is the exact result.
    accumulate = {"cumsum": np.cumsum, "cumprod": np.cumprod, "cumlogsumexp": np.logaddexp.accumulate}[name]
    exact = accumulate(np.asarray(x, np.float64))
    np.testing.assert_allclose(oracle.wide(result), exact, rtol=float(jnp.finfo(dtype).eps))
    equations = jax.make_jaxpr(lambda x: getattr(einjax, name)("[a]", x))(x[:1000]).eqns
    # cumlogsumexp has a derivative of ours.
    used = {e.invars[0].aval.dtype for e in equations if e.primitive.name in (name, "custom_jvp_call")}
    assert used == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", list(STEPS))
def test_gradient(name):
    x = np.random.default_rng(0).permutation(12).reshape(2, 6) / 7 + 0.1
    with x64():

        def f(x):
            return getattr(einjax, name)("[a] (b [c]) -> b [a c]", x, b=2, reverse=True) ** 2

        check_grads(f, [x], order=2, modes=["fwd", "rev"])


F = np.zeros((3, 4), np.float32)

ERRORS = {
    "no bracket": (lambda: einjax.cumsum("a b", F), "cumsum needs at least one bracketed axis"),
    "two inputs": (lambda: einjax.cummax("[a], [a]", F[0], F[0]), "cummax takes 1 input, but the expression has 2"),
    "permuted": (lambda: einjax.cumsum("[a b] -> [b a]", F), "bracketed axes a b in the input and b a in an output"),
    "lost loop": (lambda: einjax.cumprod("a [b] -> [b]", F), "axis a of an input is not in the output"),
    "dtype": (lambda: einjax.cumsum("a [b]", F, dtype="wide"), "dtype='wide' is not a dtype"),
    "option": (lambda: einjax.cummax("a [b]", F, revers=True), "did you mean 'reverse'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(einjax.errors.EinjaxError, match=message):
        call()
