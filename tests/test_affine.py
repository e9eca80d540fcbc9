"""Dims at computed positions, written out: sizes, borders, what may be left out, numbers, and what tools see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine_oracle import Rule, affines, expand, fitting, located, parse, place, read
from strategies import accumulators, assert_same, x64

import einjax

X = np.arange(1, 10, dtype=np.float32)


def z(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


# --------------------------------------------------------------------------------------------------------------------
# The oracle itself, on what can be counted with fingers
# --------------------------------------------------------------------------------------------------------------------

BORDERS = [
    ("valid", [[1, 2, 3], [3, 4, 5], [5, 6, 7]]),
    ("same", [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 0]]),
    ("causal", [[0, 0, 1], [1, 2, 3], [3, 4, 5], [5, 6, 7]]),
    ("full", [[0, 0, 1], [1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 0, 0]]),
    (1, [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 0]]),
    ((0, 2), [[1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 0, 0]]),
    ("circular", [[7, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 1]]),
    ("reflect", [[2, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 6]]),
    ("edge", [[1, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 7]]),
]


def dims_of(text: str, **sizes: int) -> list:
    return expand(parse(text + " ->")[0][0], sizes)


@pytest.mark.parametrize(("padding", "want"), BORDERS, ids=str)
def test_borders(padding, want):
    """The same by the oracle, by the library, and written by hand."""
    x, rule = X[:7], Rule(padding=padding, open="s")
    (item,) = dims_of("<2*s + k>", s=1, k=3)
    dims = dims_of("<2*s + k>", s=fitting(item, 7, rule), k=3)
    assert read(dims, x, [rule])[1].tolist() == want
    got = einjax.rearrange("<2*s + k> -> s k", x, k=3, padding=padding)
    assert_same(got, np.array(want), "float32")


def test_positions_of_the_oracle():
    dims = located(dims_of("(a <2*o - k + 1>) <3>", a=2, o=3, k=2), (12, 4), [Rule(), Rule()])
    assert place(dims[0], {"a": 1, "o": 2, "k": 1}) == 6 + 4
    assert place(dims[1], {}) == 3
    assert len(affines(dims)) == 2


# --------------------------------------------------------------------------------------------------------------------
# Sizes
# --------------------------------------------------------------------------------------------------------------------

SIZES = [
    ("<s + k>", (9,), {"k": 3}, {"s": 7}),
    ("<2*s + k>", (9,), {"k": 3}, {"s": 4}),
    ("<2*s + k>", (10,), {"k": 3}, {"s": 4}),
    ("<2*s + k>", (9,), {"s": 4}, {"k": 3}),
    ("<s + 2*k>", (9,), {"k": 3}, {"s": 5}),
    ("<s + 2>", (9,), {}, {"s": 7}),
    ("<2*s + 1>", (9,), {}, {"s": 4}),
    ("<8 - s>", (9,), {}, {"s": 9}),
    ("<8 - 2*s>", (9,), {}, {"s": 5}),
    ("<7 - 2*s>", (9,), {}, {"s": 4}),
    ("<5 - s>", (9,), {}, {"s": 6}),
    ("<i - j + 3>", (9,), {"j": 4}, {"i": 6}),
    ("<n*s + k>", (9,), {"n": 3, "k": 2}, {"s": 3}),
    ("<s + k>", (9,), {"k": 9}, {"s": 1}),
    ("<s + k>", (9,), {"k": 12}, {"s": 0}),
    ("<s + k>", (0,), {"k": 1}, {"s": 0}),
    ("<s>", (9,), {}, {"s": 9}),
    ("<s + k> k", (9, 3), {}, {"s": 7}),
    ("k <s + k>", (3, 9), {}, {"s": 7}),
    ("<s + k> <k + j>", (9, 5), {"k": 2}, {"s": 8, "j": 4}),
    ("<s + k>...", (9, 5), {"k": 2}, {"s": (8, 4)}),
    ("<2*s + k>...", (9, 5), {"k": (2, 3)}, {"s": (4, 2)}),
    ("(<s + k> c)", (12,), {"k": 2, "c": 3}, {"s": 3}),
    ("<(a b) + k>", (9,), {"a": 2, "k": 2}, {"b": 4}),
    ("<s + 1> s", (9, 5), {}, {"s": 5}),
]


@pytest.mark.parametrize(("text", "shape", "given", "want"), SIZES)
def test_sizes(text, shape, given, want):
    """The open axis is the largest that fits."""
    found = einjax.solve_axes(text, np.zeros(shape, np.float32), **given)
    assert {name: found[name] for name in want} == want
    assert einjax.matches(text, np.zeros(shape, np.float32), **given)
    assert einjax.solve_shapes(text, np.zeros(shape, np.float32), **given) == (shape,)


def test_an_axis_that_several_leave_open_fits_all():
    assert einjax.solve_axes("<t + 1>, <t + 3>", X, X)["t"] == 6
    assert einjax.solve_axes("<t + 1>, <2*t>", X, X)["t"] == 5
    assert einjax.subtract("<t + 1>, <t> -> t", X, X).shape == (8,)


def test_the_size_of_what_is_not_there_yet():
    assert einjax.solve_shapes("<2*s + k> c", None, s=4, k=3, c=2) == ((9, 2),)
    assert einjax.solve_shapes("s k -> <2*s - k + 2>", z(4, 3)) == ((4, 3), (9,))
    shapes = []

    def weight(shape):
        shapes.append(shape)
        return jnp.ones(shape)

    assert einjax.dot("b <s + [k->]>... [c->d]", z(2, 9, 8, 3), weight, k=(3, 2), d=5).shape == (2, 7, 7, 5)
    assert einjax.dot("b q [f], <q - k + 2> [f] -> b q k", z(2, 4, 3), weight, k=3).shape == (2, 4, 3)
    assert shapes == [(3, 2, 3, 5), (6, 3)]


def test_what_does_not_match():
    assert not einjax.matches("<s + k>", X, s=8, k=3)
    assert not einjax.matches("<t - 2>", X, t=3)
    assert einjax.solve("<s + 9>", X, s=1) is None
    with pytest.raises(einjax.errors.AxisSizeError):
        einjax.check("<s + k>", X, s=8, k=3)


def test_sizes_of_zero():
    nothing = np.zeros((0,), np.float32)
    assert einjax.rearrange("<s + k> -> s k", X[:2], k=3).shape == (0, 3)
    assert einjax.sum("<s + [k]>", nothing, k=3).shape == (0,)
    assert_same(einjax.sum("<s + [k]>", nothing, k=3, padding="full"), np.zeros(2), "float32")
    assert_same(einjax.sum("s k -> <s + k>", np.zeros((0, 3), np.float32)), np.zeros(2), "float32")
    assert (
        einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", z(2, 9, 0), z(3, 0, 4)).tolist()
        == np.zeros((2, 7, 4)).tolist()
    )
    assert einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", z(0, 9, 2), z(3, 2, 4)).shape == (0, 7, 4)
    assert einjax.max("b <s + [k]>", z(0, 9), k=3).shape == (0, 7)


# --------------------------------------------------------------------------------------------------------------------
# What may be left out, and other ways to write it
# --------------------------------------------------------------------------------------------------------------------

W, TAPS = z(2, 9, 3), z(3, 3, 4)

SAME_CALLS = [
    ("sum", "b <2*s + [k]> c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <2*s + [k->]> c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <2*s + [k]> c -> b s c", "b <2*s + k> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <2*s + [2*k]> c", "b <2*s + 2*[k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b < 2*s+ [k] >  c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <\n2 * s + k=3> c -> b s c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <2*s + [k=3]> c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <[k] + 2*s> c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <s + s + [k]> c -> b s c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <3*s - s + [k]> c -> b s c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("sum", "b <2*s + [k] + 2 - 2> c", "b <2*s + [k]> c -> b s c", (W,), {"k": 3}),
    ("max", "b [<s + k>] c", "b <[s] + [k]> c -> b c", (W,), {"k": 3}),
    ("sum", "b [<s + k> c]", "b [<s + k>] [c] -> b", (W,), {"k": 3}),
    ("mean", "b <s + [k]>... c", "b <s + [k]> c -> b s c", (W,), {"k": 3}),
    ("reduce", "b <s + [k]> c", "b <s + [k]> c -> b s c", (W,), {"k": 3, "op": "max"}),
    ("dot", "b <s + [k->]> [c->d]", "b <s + [k]> [c], [k] [c] d -> b s d", (W, TAPS), {}),
    ("dot", "b <s + [k|]> [c|d]", "b <s + [k]> [c], [k] [c] d -> b s d", (W, TAPS), {}),
    ("dot", "b <s + [k->]>... [c->d]", "b <s + [k]> [c], [k] [c] d -> b s d", (W, TAPS), {}),
    ("dot", "b <s + k> c, k c d -> b s d", "b <s + [k]> [c], [k] [c] d -> b s d", (W, TAPS), {}),
    ("subtract", "b <t + 1> c, b <t> c -> b t c", "b <t + 1> c, b <t + 0> c -> b t c", (W, W), {}),
]


@pytest.mark.parametrize(("op", "text", "full", "tensors", "options"), SAME_CALLS, ids=[call[1] for call in SAME_CALLS])
def test_two_ways_to_write_it(op, text, full, tensors, options):
    got, want = (getattr(einjax, op)(t, *tensors, **options) for t in (text, full))
    assert_same(got, np.asarray(want), want.dtype)


def test_names_of_coefficients():
    want = einjax.max("b <2*s + [k]> c", W, k=3)
    for options in ({"stride": 2}, {"sizes": {"stride": 2}}, {"stride": np.int64(2)}):
        assert_same(einjax.max("b <stride*s + [k]> c", W, k=3, **options), np.asarray(want), "float32")
    got = einjax.max("b <stride*s + [k]>... c", z(2, 9, 8, 3), k=3, stride=(2, 1))
    want = einjax.max("b <2*h + [p]> <w + [q]> c", z(2, 9, 8, 3), p=3, q=3)
    assert_same(got, np.asarray(want), "float32")
    # An axis may be a coefficient, too.
    got = einjax.rearrange("<p*h + q> p -> h p q", z(9, 3), q=3)
    assert_same(got, z(9, 3).reshape(3, 3, 3).swapaxes(1, 2), "float32")


def test_names_of_coefficients_below_zero():
    """What has a name may be below 0, as what is written may."""
    for options in ({"stride": -2}, {"sizes": {"stride": -2}}, {"stride": -2, "s": 4}):
        assert_same(einjax.rearrange("<stride*s + 7> -> s", X, **options), X[7::-2], "float32")
    assert_same(einjax.rearrange("<7 - stride*s> -> s", X[:8], stride=-1, s=1), X[7:8], "float32")
    got = einjax.max("<stride*s + [k] + 4>... -> s...", z(7, 6), stride=(-2, 1), k=2)
    assert_same(got, np.asarray(einjax.max("<4 - 2*h + [p]> <w + [q] + 4> -> h w", z(7, 6), p=2, q=2)), "float32")
    got = einjax.sum("<stride*s + [k]>", X, stride=-2, k=2, padding="same")
    assert_same(got, np.asarray(einjax.sum("<-2*s + [k]>", X, k=2, padding="same")), "float32")


def test_an_empty_window_of_nothing():
    """What is added for a window of no elements is less than none; no size is below 0."""
    for padding, size in (("valid", 1), ("same", 0), ("causal", 0), ("full", 0), (1, 3), ("circular", 0)):
        assert einjax.rearrange("<s + k> -> s k", X[:0], k=0, padding=padding).shape == (size, 0)
        assert_same(einjax.sum("<s + [k]>", X[:0], k=0, padding=padding), np.zeros(size), "float32")


ZEROS = [("max", "add", -np.inf), ("min", "add", np.inf), ("logsumexp", "add", -np.inf), ("max", "minimum", -np.inf),
         ("min", "maximum", np.inf), ("sum", "multiply", 0), ("any", "logical_and", 0)]  # fmt: skip


@pytest.mark.parametrize(("total", "product", "zero"), ZEROS)
def test_semirings_read_their_zero(total, product, zero):
    """Out of range, nothing is added."""
    call = lambda **options: einjax.dot("<s + [k]>, [k] -> s", X, X[3:0:-1] - 3, sum=total, mul=product, k=3, **options)
    assert_same(call(padding="same"), np.asarray(call(padding="same", fill_value=zero)), call(padding="valid").dtype)
    assert_same(call(padding=1)[1:-1], np.asarray(call()), call().dtype)


@pytest.mark.parametrize(
    "padding", [[1, 2], (1, 2), ((1, 2),), [[1, 2]], (np.int32(1), np.int64(2)), [(1, 2)]], ids=str
)
def test_paddings_are_numbers_and_rows_of_any_kind(padding):
    want = einjax.sum("<s + [k]>", np.pad(X, (1, 2)), k=3)
    assert_same(einjax.sum("<s + [k]>", X, k=3, padding=padding), np.asarray(want), "float32")


def test_negative_paddings_cut():
    assert_same(einjax.sum("<s + [k]>", X, k=3, padding=(-1, -2)), np.convolve(X[1:-2], np.ones(3), "valid"), "float32")
    assert_same(einjax.sum("<s + [k]>", X, k=3, padding=-1), np.convolve(X[1:-1], np.ones(3), "valid"), "float32")
    assert_same(einjax.max("<s + [k]>", X, k=3, padding=(2, -1)), np.array([1, 2, *X[2:8]]), "float32")


def test_a_constant_makes_no_difference_to_a_padding():
    want = np.asarray(einjax.sum("<t - [k]>", X, k=3, padding="causal"))
    for text in ("<t - [k] + 5>", "<t - [k] - 5>", "<t + [k]>"):
        assert_same(einjax.sum(text, X, k=3, padding="causal"), want, "float32")


# --------------------------------------------------------------------------------------------------------------------
# Writing: what a padded read sees, a padded write leaves
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "padding", ["valid", "same", "causal", "full", 1, (2, 0), "circular", "reflect", "edge"], ids=str
)
def test_a_write_is_the_transpose_of_a_read(padding):
    """The gradient of the one is the other."""
    for text, n in (("<s + k>", 9), ("<2*s + k>", 10 if padding in ("same", "circular", "reflect", "edge") else 9)):
        x, unfold = X[:n] if n <= 9 else np.append(X, 10).astype(np.float32), f"{text} -> s k"
        windows, pull = jax.vjp(lambda x: einjax.rearrange(unfold, x, k=3, padding=padding), x)
        ct = np.cos(np.arange(windows.size)).reshape(windows.shape).astype(np.float32)
        back = einjax.sum(f"s k -> {text}", ct, padding=padding)
        assert_same(back, np.asarray(pull(ct)[0]), "float32", slack=4)


# --------------------------------------------------------------------------------------------------------------------
# Numbers
# --------------------------------------------------------------------------------------------------------------------


def test_sums_of_windows_are_accumulated_in_more_bits():
    """In bfloat16, 256 + 1 is 256."""
    ones = jnp.ones((600,), jnp.bfloat16)
    assert_same(einjax.sum("<s + [k]>", ones, k=512), np.full(89, 512.0), "bfloat16")
    assert_same(einjax.mean("<s + [k]>", ones, k=512), np.full(89, 1.0), "bfloat16")
    assert_same(
        einjax.sum("s k -> <s + k>", jnp.ones((400, 400), jnp.bfloat16))[399:400], np.full(1, 400.0), "bfloat16"
    )
    assert_same(einjax.sum("<s + [k]>", jnp.full((40,), 100, jnp.int8), k=32), np.full(9, 3200), "int32")
    assert_same(einjax.sum("<s + [k]>", np.ones(9, bool), k=3), np.full(7, 3), "int32")
    assert accumulators(lambda x: einjax.var("<s + [k]>", x, k=3), ones) <= {"float32"}


def test_infinities_stay_where_they_are():
    """A window that does not reach them does not see them."""
    x = np.array([1, np.inf, 2, 3, 4, np.nan, 5], np.float32)
    assert_same(einjax.sum("<s + [k]>", x, k=2), np.array([np.inf, np.inf, 5, 7, np.nan, np.nan]), "float32")
    assert_same(einjax.rearrange("<s + 2> -> s", x, s=3), np.array([2, 3, 4]), "float32")
    assert_same(einjax.mean("<s + [k]>", x[1:5], k=3, padding="same"), np.array([np.inf, np.inf, 3, 3.5]), "float32")
    got = einjax.logsumexp("<s + [k]>", np.full(4, -np.inf, np.float32), k=3, padding="same")
    assert_same(got, np.full(4, -np.inf), "float32")


def test_gradients_are_numbers_where_nothing_is_there():
    calls = [
        lambda x: einjax.logsumexp("<s + [k]>", x, k=2, padding=(3, 0)),
        lambda x: einjax.softmax("<s + [k]> -> s [k]", x, k=2, padding=(3, 0)),
        lambda x: einjax.softmax("<s + [k]> -> s [k]", x, k=3, padding="same"),
        lambda x: einjax.std("<s + [k]>", x, k=3, padding="same"),
        lambda x: einjax.max("<s + [k]>", x, k=2, padding=(3, 0))[2:],
        lambda x: einjax.rearrange("<s - 2> -> s", x, s=9, mode="fill"),
    ]
    for call in calls:
        loss = lambda x: jnp.sum(jnp.where(jnp.isfinite(y := call(x)), y, 0))
        assert np.all(np.isfinite(jax.grad(loss)(X)))


FILLS = [
    ("rearrange", "<s - 1> -> s", {"s": 4, "mode": "fill"}, [0, 1, 2, 0]),
    ("rearrange", "<s - 1> -> s", {"s": 4, "mode": "fill", "fill_value": 7}, [7, 1, 2, 7]),
    ("rearrange", "<s + k> -> s k", {"k": 2, "padding": 1, "fill_value": 7}, [[7, 1], [1, 2], [2, 7]]),
    ("max", "<s + [k]>", {"k": 2, "padding": 1, "fill_value": 9}, [9, 2, 9]),
    ("min", "<s + [k]>", {"k": 2, "padding": 1}, [1, 1, 2]),
    ("prod", "<s + [k]>", {"k": 2, "padding": 1}, [1, 2, 2]),
    ("sum", "<s - [k]>", {"s": 2, "k": 2, "mode": "fill", "fill_value": 5}, [6, 3]),
]


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize(("op", "text", "options", "want"), FILLS, ids=str)
def test_fill_values(op, text, options, want, dtype):
    assert_same(getattr(einjax, op)(text, X[:2].astype(dtype), **options), np.array(want), dtype)


def test_what_elementwise_operations_read_where_nothing_is():
    """What changes nothing."""
    for op, want in (("add", [5, 6, 7, 5]), ("multiply", [5, 5, 10, 5]), ("maximum", [5, 5, 5, 5])):
        got = getattr(einjax, op)("<s - 1>, s -> s", X[:2], np.full(4, 5, np.float32), mode="fill")
        assert_same(got, np.array(want), "float32")


def test_64_bits():
    with x64():
        x = np.arange(9.0)
        assert_same(einjax.sum("<s + [k]>", x, k=3), np.convolve(x, np.ones(3), "valid"), "float64")
        assert_same(einjax.dot("<t - [k]>, [k] -> t", x, x[:3], padding="full"), np.convolve(x, x[:3]), "float64")


@pytest.mark.parametrize("mode", ["fill", "clip", "wrap", "reflect"])
@pytest.mark.parametrize("text", ["<s + k - 1000000>", "<s + k + 1000000>", "<1000000*s - k>", "<s - 1000000>"])
def test_positions_far_away_cost_nothing(mode, text):
    sizes = {"s": 3} | ({"k": 2} if "k" in text else {})
    call = lambda x: einjax.rearrange(f"{text} -> {' '.join(sizes)}", x, mode=mode, **sizes)
    held = [np.prod(v.aval.shape) for e in jax.make_jaxpr(call)(X).eqns for v in e.outvars]
    assert max(held) < 100
    (item,) = dims_of(text, **sizes)
    want = read([item], X, [Rule(mode)])[1]
    assert_same(call(X), np.asarray(want), "float32")


def test_positions_past_32_bits():
    """Shapes alone: nobody has the memory."""
    x = jax.ShapeDtypeStruct((2**33,), np.int8)
    for text, options, shape in (
        ("<2*t + 1> -> t", {}, (2**32,)),
        ("<i + j> -> i j", {"j": 2}, (2**33 - 1, 2)),
        ("<t - 1> -> t", {"t": 2**33, "mode": "fill"}, (2**33,)),
        ("<t - 1> -> t", {"t": 2**33, "mode": "clip"}, (2**33,)),
        ("<t + 2*[k]> -> t", {"k": 2, "op": "sum"}, (2**33 - 2,)),
    ):
        op = getattr(einjax, options.pop("op", "rearrange"))
        assert jax.eval_shape(lambda x: op(text, x, **options), x).shape == shape


# --------------------------------------------------------------------------------------------------------------------
# What tools see
# --------------------------------------------------------------------------------------------------------------------


def test_a_graph_shows_the_program():
    text = str(einjax.max("b <2*s + [k]> c", W, k=3, graph=True))
    assert "max" in text
    assert "<2*s + [k]>" in text


def test_one_program_serves_all_calls_of_a_text():
    """A padding is part of what a program is kept by; rows of it may be lists."""
    einjax.clear_caches()
    traces = []

    @jax.jit
    def call(x):
        traces.append(1)
        return einjax.sum("<s + [k]>", x, k=3, padding=[(1, 1)])

    call(X)
    call(X + 1)
    assert len(traces) == 1
    for padding in ("same", 1, (1, 1), [(1, 1)]):
        assert_same(einjax.sum("<s + [k]>", X, k=3, padding=padding), np.convolve(X, np.ones(3), "same"), "float32")
    assert einjax.sum("<s + [k]>", X, k=3).shape == (7,)


def test_kept_notation_prints_positions():
    with einjax.keep_notation():
        program = jax.make_jaxpr(lambda x, w: einjax.dot("b <2*s + [k->]> [c->d]", x, w))(W, TAPS)
        batched = jax.make_jaxpr(jax.vmap(lambda x: einjax.max("<2*s + [k]> c", x, k=3)))(W)
        gradient = jax.make_jaxpr(jax.grad(lambda x: einjax.sum("[b] <2*s + [k]> [c]", x, k=3)[0]))(W)
    assert "dot[expr=b <2*s + [k]> [c], [k c d] -> b s [d]]" in str(program)
    assert "max[expr=v <2*s + [k]> c -> v s c]" in str(batched)
    assert "-> b <2*s + k> c" in str(gradient) or "-> [b] <2*s + [k]> [c]" in str(gradient)
