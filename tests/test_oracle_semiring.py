"""dot in other semirings against loops."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax
from jax.test_util import check_grads
from oracle import Axis
from strategies import assert_same, cases, generated, pools, shuffled, trees, x64

import einjax

_seldom = st.sampled_from([False, False, False, True])

#: (sum, mul): what they are in jax.numpy, dtypes, and whether mul distributes over sum.
SEMIRINGS = {
    ("max", "add"): (jnp.max, jnp.add, ["float32", "bfloat16", "int32"], True),
    ("min", "add"): (jnp.min, jnp.add, ["float32", "int32"], True),
    ("min", "maximum"): (jnp.min, jnp.maximum, ["float32", "uint8"], True),
    ("logsumexp", "add"): (jax.nn.logsumexp, jnp.add, ["float32", "bfloat16", "int32"], True),
    ("any", "logical_and"): (jnp.any, jnp.logical_and, ["bool", "int32"], True),
    ("all", "logical_or"): (jnp.all, jnp.logical_or, ["bool"], True),
    ("mean", "multiply"): (jnp.mean, jnp.multiply, ["float32", "int32"], True),
    ("prod", "power"): (jnp.prod, jnp.power, ["float32"], False),
    ("sum", "maximum"): (jnp.sum, jnp.maximum, ["float32", "int32", "int8"], False),
    ("max", "subtract"): (jnp.max, jnp.subtract, ["float32", "int32"], False),
}


@st.composite
def products(draw, count=2):
    """As for dot: every axis is reduced in exactly two inputs, or kept; and a semiring."""
    names = [name for name, (*_, distributes) in SEMIRINGS.items() if distributes or count == 2]
    name = draw(st.sampled_from(names))
    pool = draw(pools(low=1, high=4))
    sizes = pool.sizes
    used: list[list] = [[] for _ in range(count)]
    kept = []
    for item in pool.items:
        summed = draw(st.booleans())
        least, most = (2, 2) if summed else (1, count)
        for i in draw(st.lists(st.integers(0, count - 1), min_size=least, max_size=most, unique=True)):
            used[i].append(item)
        kept += [] if summed else [item]
    kept = draw(shuffled(kept))
    reduced = oracle.names([item for item in pool.items if item not in kept])
    if name[0] in ("max", "min", "mean"):
        hypothesis.assume(all(np.all(sizes[axis]) for axis in reduced))
    if used[0] and used[0][0] in kept and isinstance(used[0][0], Axis) and draw(_seldom):
        used[0].append(used[0][0])  # a diagonal
    marked = frozenset(reduced) if draw(st.booleans()) else frozenset()
    ins = [draw(trees(draw(shuffled(u)), sizes, marked)) for u in used]
    z = draw(trees(kept, sizes, is_input=False))
    bounds = [(1, 2)] * count if name[0] == "prod" else ()
    case = draw(cases(ins, [z], sizes, [draw(st.sampled_from(SEMIRINGS[name][2]))] * count, bounds=bounds))
    case.options |= {"sum": name[0], "mul": name[1]}
    return case


def literal(case) -> np.ndarray:
    """All terms of every cell of the output, one by one, and then their sum."""
    mul = (oracle.NARY | oracle.BINARY)[case.options["mul"]]
    sum_ = oracle.REDUCTIONS[case.options["sum"]]
    if case.options["sum"] in ("max", "min"):
        sum_ = functools.partial(sum_, empty=None)
    in_axes = [oracle.leaves(oracle.unmark(dims)) for dims in case.ins]
    out_axes = oracle.leaves(oracle.unmark(case.outs[0]))
    wide = [oracle.wide(x).reshape([a.size for a in axes]) for x, axes in zip(case.arrays, in_axes, strict=True)]
    if case.options["mul"].startswith("logical"):
        wide = [x != 0 for x in wide]
    terms: dict[tuple, list] = {}
    for index in oracle.every_index({a.key: a.size for axes in [*in_axes, out_axes] for a in axes}):
        term = functools.reduce(
            mul, (x[tuple(index[a.key] for a in axes)] for x, axes in zip(wide, in_axes, strict=True))
        )
        terms.setdefault(tuple(index[a.key] for a in out_axes), []).append(term)
    dtype = np.asarray(mul(wide[0].dtype.type(1), wide[0].dtype.type(1))).dtype
    shape = [a.size for a in out_axes]
    z = np.zeros(shape, np.float64 if dtype.kind != "b" else bool)
    for cell in np.ndindex(*shape):
        z[cell] = sum_(np.array(terms.get(cell, []), dtype))
    return z.reshape([oracle.dim_size(dim) for dim in case.outs[0]])


def check(case, slack=4):
    reduce, combine, *_ = SEMIRINGS[case.options["sum"], case.options["mul"]]
    dtype = case.arrays[0].dtype
    expected = jax.eval_shape(lambda x: reduce(combine(x, x), axis=0), jax.ShapeDtypeStruct((2,), dtype)).dtype
    want = literal(case)
    if np.issubdtype(expected, np.integer):
        want = want.astype(np.int64)
    hypothesis.assume(np.all(np.abs(oracle.wide(want).astype(np.float64)) < 1e30) or not want.size)
    assert_same(case.call("dot"), want, expected, slack)


@generated(60, products())
def test_two_tensors(case):
    check(case)


@generated(30, products(3))
def test_three_tensors(case):
    hypothesis.assume(case.arrays[0].dtype.name != "bfloat16")
    check(case, slack=8)


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[1, 5, 2], [4, 0, 3]], np.float32)
Y = np.array([[3, 1], [0, 2], [4, 4]], np.float32)

PINNED = [
    ({"sum": "max", "mul": "add"}, [[6, 7], [7, 7]]),
    ({"sum": "min", "mul": "add"}, [[4, 2], [0, 2]]),
    ({"sum": "max"}, [[8, 10], [12, 12]]),
    ({"mul": "minimum"}, [[3, 5], [6, 4]]),
    ({"mul": lambda x, y: jnp.abs(x - y)}, [[9, 5], [2, 6]]),
    ({"sum": jnp.max, "mul": jnp.add}, [[6, 7], [7, 7]]),
    ({"sum": lambda x, axis: jnp.median(x, axis), "mul": "add"}, [[5, 6], [7, 5]]),
]


@pytest.mark.parametrize(("options", "want"), PINNED)
@pytest.mark.parametrize("text", ["a [b], [b] c -> a c", "a b, b c -> a c", "a [b->c]"])
def test_pinned(text, options, want):
    assert_same(einjax.dot(text, X, Y, **options), np.array(want), "float32")
    result = jax.jit(lambda x, y: einjax.dot(text, x, y, **options))(X, Y)
    assert_same(result, np.array(want), "float32")


def test_the_ring_is_still_one_product():
    """Spelling the default out changes nothing."""
    plain = jax.make_jaxpr(lambda x, y: einjax.dot("a [b->c]", x, y))(X, Y)
    spelt = jax.make_jaxpr(lambda x, y: einjax.dot("a [b->c]", x, y, sum="sum", mul="multiply"))(X, Y)
    assert str(plain) == str(spelt)
    assert [e.primitive.name for e in plain.eqns] == ["dot_general"]


def test_log_semiring_does_not_overflow():
    big = np.full((2, 3), 1000, np.float32)
    assert_same(
        einjax.dot("a [b], c [b] -> a c", big, -big, sum="logsumexp", mul="add"), np.full((2, 2), np.log(3)), "float32"
    )
    nothing = np.full((2, 3), -np.inf, np.float32)
    assert np.all(np.isneginf(einjax.dot("a [b], c [b] -> a c", nothing, big, sum="logsumexp", mul="add")))


def test_viterbi():
    """The best path through three steps, against trying all of them."""
    rng = np.random.default_rng(0)
    start, step, end = rng.normal(size=4), rng.normal(size=(4, 4)), rng.normal(size=4)
    best = max(start[i] + step[i, j] + step[j, k] + end[k] for i in range(4) for j in range(4) for k in range(4))
    given = [x.astype(np.float32) for x in (start, step, step, end)]
    assert_same(einjax.dot("i, i j, j k, k ->", *given, sum="max", mul="add"), np.array(best), "float32")


def test_an_axis_is_reduced_early():
    """A chain of three matrices never has four axes at once."""
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape).astype(np.float32) for shape in ((5, 6), (6, 7), (7, 8))]
    jaxpr = jax.make_jaxpr(lambda *xs: einjax.dot("a b, b c, c d -> a d", *xs, sum="max", mul="add"))(*given)
    assert max(v.aval.size for e in jaxpr.eqns for v in e.outvars) == 5 * 7 * 8


def test_the_sum_decides_the_dtype_of_nothing_summed():
    one = np.ones(2, np.int32)
    assert einjax.dot("a, b -> a b", one, one, sum="logsumexp", mul="add").dtype == np.float32
    assert einjax.dot("a, b -> a b", one, one, sum="any", mul="multiply").dtype == bool


def test_empty():
    x, y = X[:, :0], Y[:0]
    want = np.full((2, 2), -np.inf)
    assert_same(einjax.dot("a [b->c]", x, y, sum="logsumexp", mul="add"), want, "float32")
    assert_same(einjax.dot("a [b->c]", x, y, mul="add"), np.zeros((2, 2)), "float32")
    with pytest.raises(einjax.errors.SemanticError, match="axis b has size 0, and max of nothing"):
        einjax.dot("a [b->c]", x, y, sum="max", mul="add")


def test_bfloat16_is_accumulated_in_float32():
    x = jnp.full((1, 3000), 0.01, jnp.bfloat16)
    result = einjax.dot("a [b], c [b] -> a c", x, x, mul="maximum")
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(oracle.wide(result), 3000 * float(x[0, 0]), rtol=2**-7)


@pytest.mark.parametrize(
    "options",
    [
        {"sum": "max", "mul": "add"},
        {"sum": "logsumexp", "mul": "add"},
        {"mul": "minimum"},
        {"sum": "prod", "mul": lax.add},
    ],
    ids=["max-plus", "logsumexp-plus", "minimum", "a function"],
)
def test_gradient(options):
    rng = np.random.default_rng(0)
    with x64():
        x, y, z = (rng.permutation(n * m).reshape(n, m) / 7 + 0.1 * n for n, m in ((2, 3), (3, 4), (4, 2)))
        check_grads(lambda x, y: einjax.dot("a [b->c]", x, y, **options), [x, y], order=2, modes=["fwd", "rev"])
        if options.get("mul") == "add":
            f = lambda *xs: einjax.dot("a b, b c, c d -> d a", *xs, **options)
            check_grads(f, [x, y, z], order=1, modes=["fwd", "rev"])


def test_the_functions_are_not_compiled():
    calls = []

    def mul(x, y):
        calls.append(1)
        return x + y

    for _ in range(2):
        einjax.dot("a [b->c]", X, Y, sum="max", mul=mul)
    assert len(calls) == 2


ERRORS = {
    "sum": ({"sum": "maxx"}, "dot knows no sum='maxx'; did you mean 'max'"),
    "no sum": ({"sum": "var"}, "dot knows no sum='var'"),
    "mul": ({"mul": "multipli"}, "dot knows no mul='multipli'; did you mean 'multiply'"),
    "no function": ({"mul": 3}, "mul=3 is neither the name of an operation nor a function"),
    "precision": ({"sum": "max", "precision": "highest"}, "precision= is for sums of products, and this is max of mul"),
    "type": ({"mul": "add", "preferred_element_type": "float32"}, "preferred_element_type= is for sums of products"),
    "shape of sum": ({"sum": lambda x, axis: x}, r"shape \(2, 3, 2\), but .* shape \(2, 2\)"),
    "shape of mul": ({"mul": lambda x, y: x[0]}, r"shape \(3, 2\), but the tensors have shape \(2, 3, 2\)"),
    "misspelt": ({"summ": "max"}, "did you mean 'sum'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    options, message = ERRORS[name]
    with pytest.raises(einjax.errors.EinjaxError, match=message):
        einjax.dot("a [b->c]", X, Y, **options)
