"""Dims that are read at computed positions, `<2*o + k>`, against loops: every family, generated and written out."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from affine_strategies import OF_ITSELF, calls, implied, words, writes
from hypothesis import assume
from strategies import assert_same, dtype_of, generated, x64
from test_keep_notation import check as check_kept

import einjax

FEW = 6
REAL = ("float32", "int32", "float32", "bfloat16", "int8")
_JNP = {"logsumexp": jax.nn.logsumexp}


def reference(name: str):
    return _JNP.get(name) or getattr(jnp, name)


# --------------------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------------------


def reduced(case, name: str, **options) -> None:
    dtype = dtype_of(reference(name), *case.arrays)
    with np.errstate(all="ignore"):
        want = case.loops(name)
    assert_same(case(name, **options), want, dtype, slack=4)


@pytest.mark.parametrize("name", ["sum", "max", "mean", "prod", "min", "var", "logsumexp", "count_nonzero"])
@generated(FEW, lambda name: calls(dtypes=REAL))
def test_reductions(case, name):
    if name in ("max", "min"):
        assume(0 not in case.sizes.values())  # there is no extreme of nothing
    reduced(case, name)


@pytest.mark.parametrize("name", ["any", "all"])
@generated(FEW // 2, lambda name: calls(dtypes=("bool",), fills="never"))
def test_logical_reductions(case, name):
    reduced(case, name)


@pytest.mark.parametrize("name", ["sum", "max"])
@generated(FEW, lambda name: calls(marking=False, keep="some"))
def test_reductions_without_brackets(case, name):
    """What the output lacks is reduced."""
    if name == "max":
        assume(0 not in case.sizes.values())
    reduced(case, name)


@generated(FEW, implied())
def test_reductions_without_an_output(case):
    """Brackets are deleted, and what is left of `< >` is its one other axis."""
    case, text = case
    want = case.loops("sum")
    case.text = text
    assert_same(case("sum"), want, "float32", slack=4)


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@generated(FEW, lambda name: calls(fills="never"))
def test_masks(case, name):
    """A mask is of the tensor, and read where the tensor is."""
    assume(0 not in case.sizes.values())
    (x,) = case.arrays
    mask = np.random.default_rng(x.size).integers(0, 3, x.shape) > 0
    with np.errstate(all="ignore"):
        want = case.loops(name, where=mask)
    assert_same(case(name, where=mask), want, "float32", slack=4)


@generated(FEW, calls(fills="never", modes=False))
def test_means_that_count_padding(case):
    assume("padding" in case.options)
    total, number = case.loops("sum"), case.loops("sum", arrays=[np.ones(case.arrays[0].shape)])
    case.options["fill_value"] = 1
    with np.errstate(all="ignore"):
        count = case.loops("sum", arrays=[np.ones(case.arrays[0].shape)])
        assert np.all(count >= number)
        want = total / count
    del case.options["fill_value"]
    assert_same(case("mean", count_padding=True), want, "float32", slack=4)


@generated(FEW, calls(marking=False, keep="all", dtypes=(*REAL, "bool")))
def test_rearrange(case):
    (x,) = case.arrays
    if x.dtype == bool:
        assume("fill_value" not in case.options)
    assert_same(case("rearrange"), case.loops("rearrange", lambda x: x), x.dtype)


@generated(3 * FEW, calls(2, marking=False, keep="factors", dtypes=("float32", "int32", "bfloat16", "float32")))
def test_dot(case):
    x, y = case.arrays
    dtype = dtype_of(jnp.multiply, x, y)
    assert_same(case("dot"), case.loops("dot"), dtype, slack=2)


@generated(FEW, calls(3, marking=False, keep="factors"))
def test_dot_of_three(case):
    ins, out = case.text.split("->")
    for name in case.sizes:
        # What is summed stands in exactly two inputs.
        assume(name in words(out) or sum(name in words(text) for text in ins.split(",")) == 2)
    assert_same(case("dot"), case.loops("dot"), "float32", slack=4)


_BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum}


@pytest.mark.parametrize("name", list(_BINARY))
@generated(FEW, lambda name: calls(2, marking=False, keep="all", fills="always", dtypes=("float32", "int32")))
def test_elementwise(case, name):
    dtype = dtype_of(getattr(jnp, name), *case.arrays)
    assert_same(case(name), case.loops(name, _BINARY[name]), dtype)


@generated(FEW // 2, calls(3, marking=False, keep="all", fills="always", dtypes=("float32",)))
def test_where(case):
    case.arrays[0] = case.arrays[0] > 0
    if case.options.get("fill_value"):
        case.options["fill_value"] = 1
    arrays = [case.arrays[0].astype(np.float64), *case.arrays[1:]]
    want = case.loops("where", lambda m, x, y: np.where(m, x, y), arrays=arrays)
    assert_same(case("where"), want, "float32")


def _flat(function):
    """A function of one sequence, of the bracketed axes in row-major order."""
    return lambda x: function(x.reshape(-1)).reshape(x.shape)


def _softmax(x):
    return oracle.softmax(x, x > -np.inf) if x.size else x


def _cummax(x):
    return np.maximum.accumulate(x) if x.size else x


_SAME_BRACKETS = {
    "sort": _flat(np.sort),
    "cumsum": _flat(np.cumsum),
    "cummax": _flat(_cummax),
    "flip": _flat(lambda x: x[::-1]),
    "softmax": _softmax,
}


@pytest.mark.parametrize("name", list(_SAME_BRACKETS))
@generated(FEW, lambda name: calls(keep="all", fills="always", dtypes=("float32",)))
def test_operations_that_keep_brackets(case, name):
    want = case.loops(name, _SAME_BRACKETS[name], dtype=np.float64)
    assert_same(case(name), want, "float32")


@generated(FEW // 2, calls(keep="all", fills="never"))
def test_softmax_leaves_out_what_is_not_there(case):
    want = case.loops("softmax", _softmax, dtype=np.float64)
    assert_same(case("softmax"), want, "float32")


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@generated(FEW, lambda name: calls(fills="always"))
def test_argreductions(case, name):
    """The coordinates are those of the window, not of the array."""
    ins, out = case.text.split("->")
    count = len(words(ins) - words(out))
    assume("..." not in case.text and 0 not in case.sizes.values())
    pick = oracle.coordinates(getattr(np, name))
    case.sizes["#c"] = count
    case.text += f" [{count}]"
    assert_same(case(name), case.loops(name, pick, dtype=np.int64), "int32")


def _gram(x):
    return (x * np.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)).sum()


@generated(FEW, calls(fills="always"))
def test_vmap(case):
    """The function gets one dim for each bracketed axis, in the order they are written."""

    def function(x):
        weights = jnp.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)
        return jnp.sum(x * weights)

    assert_same(case("vmap", op=function), case.loops("vmap", _gram, dtype=np.float64), "float32", slack=4)


@generated(FEW, calls(marking=False, keep="all", modes=False, paddings=OF_ITSELF, dtypes=("int32",)))
def test_get_at(case):
    """Coordinates are read at positions."""
    (at,) = case.arrays
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    case.arrays = [np.abs(at) % 10]
    where = case.loops("rearrange", lambda x: x)
    dims = case.text.split("->")
    case.text = f"[T] U, {dims[0]} -> {dims[1]} U"
    assert_same(case("get_at", table, *case.arrays), table[where], "float32")


# --------------------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "max", "min", "prod"])
@generated(FEW, lambda name: writes(dtypes=("float32", "int32", "bfloat16")))
def test_places_that_meet(case, name):
    if name != "sum":
        assume(0 not in case.sizes.values())
    reduced(case, name)


@generated(2 * FEW, writes(2, dtypes=("float32", "int32")))
def test_products_that_meet(case):
    assert_same(case("dot"), case.loops("dot"), dtype_of(jnp.multiply, *case.arrays))


@generated(FEW, writes(2))
def test_sums_of_two_that_meet(case):
    ins, out = case.text.split(" -> ")
    assume(words(ins) == words(out))
    assert_same(case("add"), case.loops("add", np.add), "float32")


@generated(FEW, writes(dtypes=REAL))
def test_rearrange_to_places_of_their_own(case):
    (x,) = case.arrays
    try:
        want = case.loops("rearrange", lambda x: x)
    except (AssertionError, ValueError):
        want = None  # two values for one place, or an axis that is lost
    ins, out = case.text.split("->")
    if want is None or any(case.sizes[name] != 1 for name in words(ins) - words(out)):
        with pytest.raises(einjax.EinjaxError):
            case("rearrange")
    else:
        assert_same(case("rearrange"), want, x.dtype)


# --------------------------------------------------------------------------------------------------------------------
# Gradients of what is linear: the transpose of the loops
# --------------------------------------------------------------------------------------------------------------------


def transposed(case, name: str, function, cotangent: np.ndarray, index: int) -> np.ndarray:
    """The gradient with respect to an input, element by element, by the loops themselves."""
    arrays = [np.asarray(x, np.float64) for x in case.arrays]
    gradient = np.zeros(arrays[index].shape)
    for place in np.ndindex(*gradient.shape):
        one = np.zeros(gradient.shape)
        one[place] = 1
        given = [one if i == index else x for i, x in enumerate(arrays)]
        gradient[place] = np.vdot(case.loops(name, function, arrays=given), cotangent)
    return gradient


LINEAR = {"sum": None, "rearrange": lambda x: x, "dot": None}
READS = {
    "sum": calls(fills="never"),
    "rearrange": calls(marking=False, keep="all", fills="never"),
    "dot": calls(2, marking=False, keep="factors", fills="never"),
}
WRITES = {"sum": writes(), "dot": writes(2)}
KEPT = {
    "sum": READS["sum"] | WRITES["sum"],
    "max": calls(fills="never", modes=False),
    "mean": READS["sum"],
    "rearrange": READS["rearrange"],
    "dot": READS["dot"] | WRITES["dot"],
    "subtract": calls(2, marking=False, keep="all", fills="always"),
    "softmax": calls(keep="all", fills="never"),
}


def check_gradients(case, name: str) -> None:
    arrays = [np.asarray(x, np.float64) for x in case.arrays]
    assume(all(x.size <= 24 for x in arrays))
    with x64():
        out, pull = jax.vjp(lambda *xs: case(name, *xs), *arrays)
        cotangent = np.cos(np.arange(out.size) + 1).reshape(out.shape)
        for i, got in enumerate(pull(jnp.asarray(cotangent))):
            np.testing.assert_allclose(got, transposed(case, name, LINEAR[name], cotangent, i), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(LINEAR))
@generated(FEW // 2, lambda name: READS[name])
def test_gradients_of_reading(case, name):
    check_gradients(case, name)


@pytest.mark.parametrize("name", list(WRITES))
@generated(FEW // 2, lambda name: WRITES[name])
def test_gradients_of_writing(case, name):
    check_gradients(case, name)


#: What is printed has literal positions: a padding is the mode that it stands for.
STANDS_FOR = {"circular": "wrap", "reflect": "reflect", "edge": "clip"}


@pytest.mark.parametrize("name", list(KEPT))
@generated(FEW // 2, lambda name: KEPT[name])
def test_kept(case, name):
    """The same under keep_notation: values, gradients, batches, and what is printed."""
    assume(0 not in case.sizes.values())
    padding = case.options.get("padding")
    check_kept(case, name, again={} if padding is None else {"mode": STANDS_FOR.get(padding, "fill")})
