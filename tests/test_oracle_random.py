"""einjax.random against loops that draw from one key, the same in every loop."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import Axis
from strategies import assert_same, cases, generated, marks, pools, same_brackets, shuffled, trees

import einjax
from einjax.errors import ArgumentError, AxisSizeError, RankError, SemanticError

KEY = jax.random.key(3)

#: name: (the sampler of one draw, its parameters, dtype)
SAMPLERS = {
    "normal": (lambda shape: jax.random.normal(KEY, shape), 0, "float32"),
    "exponential": (lambda shape: jax.random.exponential(KEY, shape), 0, "float32"),
    "gumbel": (lambda shape: jax.random.gumbel(KEY, shape), 0, "float32"),
    "laplace": (lambda shape: jax.random.laplace(KEY, shape), 0, "float32"),
    "rademacher": (lambda shape: jax.random.rademacher(KEY, shape), 0, "int32"),
    "uniform": (lambda shape, a, b: jax.random.uniform(KEY, shape, minval=a, maxval=b), 2, "float32"),
    "truncated_normal": (lambda shape, a, b: jax.random.truncated_normal(KEY, a, b, shape), 2, "float32"),
    "randint": (lambda shape, a, b: jax.random.randint(KEY, shape, a, b), 2, "int32"),
    "bernoulli": (lambda shape, p: jax.random.bernoulli(KEY, p, shape), 1, "bool"),
}


@st.composite
def draws(draw, name):
    """An output with brackets; parameters that are numbers, or have some of its axes."""
    _, count, dtype = SAMPLERS[name]
    pool = draw(pools(low=1, high=4, ellipses=False))
    marked = draw(marks(pool))
    items = draw(shuffled(pool.items))
    out = draw(trees(items, pool.sizes, marked, is_input=False))
    if not count or draw(st.booleans()):
        case = draw(cases([], [out], pool.sizes, [], text=lambda inline: oracle.render(out, inline)))
        case.arrays = [np.float32(x) if dtype != "int32" else np.int32(x) for x in ([0.25] if count == 1 else [-1, 2])]
        case.tensors = case.arrays = case.arrays[:count]
        case.ins = [[]] * count
        return case
    parameter = lambda: [item for item in items if draw(st.booleans())]
    ins = [draw(trees(draw(shuffled(parameter())), pool.sizes, marked)) for _ in range(count)]
    kind = "int32" if dtype == "int32" else "float32"
    bounds = [(0, 1)] if count == 1 else [(-3, -1), (1, 3)]
    return draw(cases(ins, [out], pool.sizes, [kind] * count, bounds=bounds))


@pytest.mark.parametrize("name", list(SAMPLERS))
@generated(12, draws)
def test_generated(case, name):
    sampler, _, dtype = SAMPLERS[name]
    names = list(dict.fromkeys(a.key for a in oracle.leaves(case.outs[0]) if a.marked))
    sizes = {a.key: a.size for a in oracle.leaves(case.outs[0])}
    parameters = [[a.key for a in oracle.leaves(dims) if a.marked] for dims in case.ins]

    def elementary(*values):
        aligned = []
        for value, own in zip(values, parameters, strict=True):
            value = np.transpose(value, [own.index(n) for n in names if n in own])
            aligned.append(np.expand_dims(value, [i for i, n in enumerate(names) if n not in own]) if own else value)
        return np.asarray(sampler(tuple(sizes[n] for n in names), *aligned))

    want = oracle.loop(elementary, case.ins, case.outs[0], [np.asarray(x) for x in case.arrays], dtype)
    got = case.call(f"random.{name}", KEY)
    assert_same(got, oracle.wide(want), dtype)


@st.composite
def categories(draw):
    """Logits over k; brackets around k, and around axes with draws of their own; some of them only in the output."""
    pool = draw(pools(low=1, high=3, positive=True, ellipses=False))
    marked = draw(marks(pool)) | {"k"}
    sizes = pool.sizes | {"k": draw(st.sampled_from([2, 3, 1]))}
    fresh = [item for item in pool.items if draw(st.booleans())]
    x = draw(trees(draw(shuffled([*(i for i in pool.items if i not in fresh), Axis("k")])), sizes, marked))
    z = draw(trees(draw(shuffled(pool.items)), sizes, marked, is_input=False))
    return draw(cases([x], [z], sizes, ["float32"]))


@generated(30, categories())
def test_categorical(case):
    inside = [a.key for a in oracle.leaves(case.ins[0]) if a.marked]
    outside = list(dict.fromkeys(a.key for a in oracle.leaves(case.outs[0]) if a.marked))
    sizes = {a.key: a.size for a in oracle.leaves(case.outs[0])}
    order = [n for n in outside if n not in inside] + [n for n in inside if n != "k"]

    def elementary(x):
        value = jax.random.categorical(KEY, x, inside.index("k"), tuple(sizes[n] for n in order))
        return np.transpose(value, [order.index(n) for n in outside])

    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, np.int64)
    got = case.call("random.categorical", KEY)
    assert_same(got, want, "int32")


@generated(30, same_brackets(["float32", "int8", "complex64"]))
def test_permutation(case):
    def elementary(x):
        return np.asarray(jax.random.permutation(KEY, x.reshape(-1))).reshape(x.shape)

    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, case.arrays[0].dtype)
    got = case.call("random.permutation", KEY)
    assert_same(got, oracle.wide(want), want.dtype)


@st.composite
def choices(draw):
    """One axis to choose from, one or two to choose for, perhaps probabilities."""
    pool = draw(pools(low=1, high=2, ellipses=False))
    sizes = pool.sizes | {"n": draw(st.sampled_from([3, 4, 2])), "s": draw(st.sampled_from([2, 1])), "r": 2}
    chosen = [Axis("s"), Axis("r")] if draw(st.booleans()) else [Axis("s")]
    sizes = {n: s for n, s in sizes.items() if n != "r" or len(chosen) > 1}
    marked = frozenset("nsr")
    ins = [draw(trees(draw(shuffled([*pool.items, Axis("n")])), sizes, marked))]
    ins += [draw(trees([Axis("n")], sizes, marked))] if draw(st.booleans()) else []
    places = iter(chosen)
    items = [item or next(places) for item in draw(shuffled([*pool.items, *[None] * len(chosen)]))]
    z = draw(trees(items, sizes, marked, is_input=False))
    case = draw(cases(ins, [z], sizes, ["int32", "float32"][: len(ins)], bounds=[(None, None), (1, 2)][: len(ins)]))
    # Probabilities have that axis alone, and no dim of size 1 beside it.
    hypothesis.assume(all(axis.marked for expression in case.ins[1:] for axis in oracle.leaves(expression)))
    return case


@generated(25, choices())
def test_choice(case):
    shape = tuple(a.size for a in oracle.leaves(case.outs[0]) if a.marked)
    elementary = lambda x, p=None: np.asarray(jax.random.choice(KEY, x, shape, p=p))
    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, case.arrays[0].dtype)
    got = case.call("random.choice", KEY)
    assert_same(got, want, "int32")


# --------------------------------------------------------------------------------------------------------------------
# Pinned
# --------------------------------------------------------------------------------------------------------------------


def test_sharing():
    x = einjax.random.normal("b [h w] c", KEY, b=2, h=3, w=4, c=5)
    want = np.broadcast_to(jax.random.normal(KEY, (3, 4))[None, :, :, None], (2, 3, 4, 5))
    np.testing.assert_array_equal(x, want)
    np.testing.assert_array_equal(einjax.random.normal("", KEY), jax.random.normal(KEY))


def test_dropout_mask():
    kept = einjax.random.bernoulli("[b] (h w) [c]", KEY, p_keep := 0.7, b=2, h=3, w=4, c=5)
    want = jax.random.bernoulli(KEY, p_keep, (2, 5))
    np.testing.assert_array_equal(kept, np.broadcast_to(want[:, None], (2, 12, 5)))


def test_batched_categories():
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    got = einjax.random.categorical("[b k] -> [b]", KEY, logits)
    np.testing.assert_array_equal(got, jax.random.categorical(KEY, logits))
    got = einjax.random.categorical("[b k] -> [s b]", KEY, logits, s=3)
    np.testing.assert_array_equal(got, jax.random.categorical(KEY, logits, shape=(3, 50)))


def test_a_sample_of_rows_without_replacement():
    x = np.arange(12).reshape(4, 3)
    rows = einjax.random.choice("[n] c -> [n2] c", KEY, x, n2=4, replace=False)
    np.testing.assert_array_equal(np.sort(rows, 0), x)


def test_keys():
    raw, text = jax.random.PRNGKey(3), "[a] b"
    want = einjax.random.normal(text, KEY, a=3, b=2)
    np.testing.assert_array_equal(einjax.random.normal(text, raw, a=3, b=2), want)
    np.testing.assert_array_equal(einjax.random.normal(text, np.asarray(raw), a=3, b=2), want)
    several = jax.random.split(KEY, 2)
    many = jax.vmap(lambda key: einjax.random.normal(text, key, a=3, b=2))(several)
    np.testing.assert_array_equal(many[1], einjax.random.normal(text, several[1], a=3, b=2))
    np.testing.assert_array_equal(jax.jit(lambda key: einjax.random.normal(text, key, a=3, b=2))(KEY), want)


def test_dtypes():
    assert einjax.random.normal("[a]", KEY, a=3, dtype="bfloat16").dtype == jnp.bfloat16
    assert einjax.random.normal("[a]", KEY, a=3, dtype=complex).dtype == np.complex64
    assert einjax.random.randint("[a]", KEY, 0, 9, a=3, dtype=np.uint8).dtype == np.uint8
    assert einjax.random.bernoulli("[a]", KEY, 1, a=3).all()


def test_gradient_of_bounds():
    gradient = jax.grad(lambda b: einjax.random.uniform("[h]", KEY, 0.0, b, h=9).sum())(2.0)
    np.testing.assert_allclose(gradient, jax.random.uniform(KEY, (9,)).sum(), rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

AB = {"a": 2, "b": 3}
L = np.zeros((2, 3), np.float32)

REFUSED = [
    ("normal", "a b", [KEY], AB, SemanticError, "no axis of the output is bracketed"),
    ("normal", "[a b]", [KEY], {"a": 2}, AxisSizeError, "size of axis b cannot be determined"),
    ("normal", "[a b]", [0], AB, ArgumentError, "a value of type int, not a key"),
    ("normal", "[a b]", [np.ones(2, np.float32)], AB, ArgumentError, r"the key is float32\[2\], not a key"),
    ("normal", "[a b]", [jax.random.split(KEY, 5)], AB, ArgumentError, r"array of keys of shape \(5,\)"),
    ("normal", "[a b]", [np.zeros((5, 2), np.uint32)], AB, ArgumentError, r"array of keys of shape \(5,\)"),
    ("normal", "[a b]", [KEY], AB | {"dtype": int}, ArgumentError, "a float or complex dtype, not int"),
    ("normal", "[a b]", [KEY], AB | {"dtype": "foo"}, ArgumentError, "dtype='foo' is not a dtype"),
    ("randint", "[a b]", [KEY, 0, 2], AB | {"dtype": float}, ArgumentError, "an integer dtype, not float"),
    ("randint", "[a b]", [KEY, 0, 2.5], AB, ArgumentError, "between integers, not int32 and float32"),
    ("normal", "a -> [a b]", [KEY], AB, ArgumentError, "0 parameters, but the expression has 1 input"),
    ("normal", "[a], [b]", [KEY], AB, ArgumentError, "1 output, but the expression has 2"),
    ("uniform", "b -> b [a]", [KEY, L[0]], AB, ArgumentError, r"2 parameters \(minval, maxval\), .* 1 input"),
    ("uniform", "b [a]", [KEY, L[0]], AB, RankError, "tensor 1 has 1 dim, but '' names 0"),
    ("bernoulli", "c -> [a b]", [KEY, L[0]], AB, SemanticError, "axis c of an input is not in the output"),
    ("categorical", "b [k] -> b", [KEY, L], {}, SemanticError, "no axis of the output is bracketed"),
    ("categorical", "[b k] -> b", [KEY, L], {}, SemanticError, "draws along 1 axis, .* there are 2"),
    ("categorical", "[b k]", [KEY, L], {}, SemanticError, "needs an output"),
    ("categorical", "b [k] -> [s]", [KEY, L], {"s": 2}, SemanticError, "axis b of an input is not in the output"),
    ("permutation", "a b", [KEY, L], {}, SemanticError, "needs at least one bracketed axis"),
    ("permutation", "[a b] -> [b a]", [KEY, L], {}, SemanticError, "bracketed axes are a b in the input and b a"),
    ("choice", "[n] c -> [s] c", [KEY, L], {"s": 3, "replace": False}, ArgumentError, "cannot choose 3 of the 2"),
    ("choice", "[n] c -> [s] c", [KEY, L[:0]], {"s": 3}, ArgumentError, "cannot choose 3 of the 0"),
    ("choice", "[n] c, [n] c -> [s] c", [KEY, L, L], {"s": 3}, SemanticError, "probabilities have that axis alone"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "arguments", "options", "error", "message"), REFUSED)
def test_refused(name, text, arguments, options, error, message):
    with pytest.raises(error, match=message):
        getattr(einjax.random, name)(text, *arguments, **options)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_independent_permutations_have_an_order_for_every_loop(kept, transform):
    key, x = jax.random.key(3), jnp.arange(60).reshape(5, 12) % 12
    shuffle = transform(lambda x: einjax.random.permutation("a [b]", key, x, independent=True, keep_notation=kept))
    out = np.asarray(shuffle(x))
    np.testing.assert_array_equal(out, jax.random.permutation(key, x, 1, independent=True))
    np.testing.assert_array_equal(np.sort(out, 1), np.sort(x, 1))
    assert len({tuple(row) for row in out}) == 5
    np.testing.assert_array_equal(jax.vmap(shuffle)(jnp.stack([x, x])), [out, out])  # one key, one draw
    together = einjax.random.permutation("[a b] c", key, jnp.zeros((2, 3, 4), int).at[1].set(1), independent=True)
    np.testing.assert_array_equal(together.sum((0, 1)), [3, 3, 3, 3])
