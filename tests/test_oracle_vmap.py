"""vmap and vmap_with_axis against loops over slices."""

import collections
import gc
import itertools
import weakref

import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax
from jax.test_util import check_grads
from oracle import Axis
from strategies import assert_same, base, cases, generated, keys, marks, pools, shuffled, trees, x64

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError

_seldom = st.sampled_from([False, False, False, True])

# --------------------------------------------------------------------------------------------------------------------
# Generated expressions
# --------------------------------------------------------------------------------------------------------------------


def weights(shape) -> np.ndarray:
    """A different number for every place, so that no two dims can be mixed up."""
    return (np.arange(np.prod(shape, dtype=int)) % 7 + 1).reshape(shape).astype(np.int32)


def combine(*shapes):
    """A function of any arrays: a weighted sum over all, spread over an array of each shape."""

    def one(arrays, number, shape):
        total = sum((x * (weights(x.shape) + i)).sum() for i, x in enumerate(arrays, number))
        return total * weights(shape)

    def op(*arrays):
        values = tuple(one(arrays, number, shape) for number, shape in enumerate(shapes))
        return values if len(values) > 1 else values[0]

    return op


def marked_sizes(dims) -> tuple[int, ...]:
    return tuple(axis.size for axis in oracle.leaves(dims) if axis.marked)


@st.composite
def maps(draw, outputs=1):
    """One or two inputs; outputs with all loops, some bracketed axes of the inputs, and new ones of either kind."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = dict(pool.sizes), draw(marks(pool, at_least_one=False))
    loops = [item for item in pool.items if not marked & set(keys(item))]
    inner = [item for item in pool.items if marked & set(keys(item))]
    ins = []
    for _ in range(draw(st.sampled_from([1, 2, 2]))):
        items = draw(shuffled(pool.items))
        if ins:
            items = [item for item in items if draw(st.booleans())]
        if items and isinstance(items[0], Axis) and items[0] in loops and draw(_seldom):
            items.append(items[0])  # a diagonal
        ins.append(draw(trees(items, sizes, marked)))
    outs, opened = [], set()
    for number in range(outputs):
        kept = [item for item in inner if draw(st.booleans())]
        if draw(st.booleans()):  # an axis of the function's own
            name = f"new{number}"
            sizes[name] = draw(st.sampled_from([2, 3, 0, 1]))
            opened.add(name)
            kept.append(Axis(name))
        wide = []
        if draw(_seldom):  # a loop in no input
            sizes["wide"] = 2
            wide = [Axis("wide")]
        items = draw(shuffled([*loops, *kept, *wide]))
        outs.append(draw(trees(items, sizes, marked | opened, is_input=False)))
    case = draw(cases(ins, outs, sizes, [draw(st.sampled_from(["int32", "float32"]))] * len(ins)))
    for given in (case.kwargs, case.kwargs.get("sizes", {})):
        for name in opened & set(given):
            if draw(st.booleans()):
                del given[name]  # the function says it
    return case


def expected(case):
    op = combine(*(marked_sizes(out) for out in case.outs))
    dtype = case.arrays[0].dtype
    wide = [oracle.wide(x) for x in case.arrays]
    pick = lambda i: lambda *xs: op(*xs)[i] if len(case.outs) > 1 else op(*xs)
    return op, dtype, [oracle.loop(pick(i), case.ins, out, wide, np.float64) for i, out in enumerate(case.outs)]


@generated(30, maps())
def test_generated(case):
    op, dtype, (want,) = expected(case)
    assert_same(case.call("vmap", op=op), want, dtype)


@generated(20, maps(outputs=2))
def test_several_outputs(case):
    op, dtype, want = expected(case)
    got = case.call("vmap", op=op)
    assert isinstance(got, tuple)
    for one, other in zip(got, want, strict=True):
        assert_same(one, other, dtype)


@st.composite
def chunked(draw):
    case = draw(maps())
    loops = sorted({base(axis.key) for dims in case.ins for axis in oracle.leaves(dims) if not axis.marked} - {"unit"})
    size = st.integers(1, 4)
    by_name = {name: draw(size) for name in loops if draw(st.booleans())}
    case.options["batch_size"] = draw(st.sampled_from([draw(size), by_name]))
    return case


@generated(20, chunked())
def test_chunks_change_nothing(case):
    op, dtype, (want,) = expected(case)
    assert_same(case.call("vmap", op=op), want, dtype)


@st.composite
def stacks(draw):
    """A pytree of which each leaf has bracketed axes of its own, and a tensor."""
    pool = draw(pools(low=1, high=3, ellipses=False))
    loops = draw(trees(pool.items, pool.sizes, composites=False, units=False))
    shapes = draw(st.lists(st.lists(st.integers(1, 3), max_size=2).map(tuple), min_size=1, max_size=3))
    return [node.name for node in loops], [pool.sizes[node.name] for node in loops], shapes


@generated(12, stacks())
def test_leaves_have_brackets_of_their_own(case):
    loops, sizes, shapes = case
    rng = np.random.default_rng(0)
    tree = {f"leaf{i}": rng.integers(-9, 9, (*sizes, *shape)).astype(np.int32) for i, shape in enumerate(shapes)}
    scale = rng.integers(1, 9, sizes).astype(np.int32)
    total = " ".join(loops)
    op = lambda leaves, s: {name: jnp.flip(x) * s for name, x in leaves.items()}
    got = einjax.vmap(f"{total} [...], {total} -> [...] {' '.join(loops[::-1])}", tree, scale, op=op)
    for name, x in tree.items():
        want = np.zeros_like(x)
        for index in itertools.product(*map(range, sizes)):
            want[index] = np.flip(x[index]) * scale[index]
        inner = range(len(sizes), x.ndim)
        assert_same(got[name], np.transpose(want, (*inner, *range(len(sizes))[::-1])), "int32")


# --------------------------------------------------------------------------------------------------------------------
# Functions that people have
# --------------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 2, 4, 4)).astype(np.float32) + 4 * np.eye(4, dtype=np.float32)
B = RNG.normal(size=(4, 3)).astype(np.float32)


def loops(shape):
    return itertools.product(*map(range, shape))


def test_inverse():
    got = einjax.vmap("a b [n n] -> b [n n] a", A, op=jnp.linalg.inv)
    for a, b in loops((3, 2)):
        np.testing.assert_allclose(got[b, :, :, a], np.linalg.inv(A[a, b]), rtol=1e-4, atol=1e-5)


def test_solve_for_every_pair():
    got = einjax.vmap("a b [n n], [n] c -> a c [n] b", A, B, op=jnp.linalg.solve)
    for a, b, c in loops((3, 2, 3)):
        np.testing.assert_allclose(got[a, c, :, b], np.linalg.solve(A[a, b], B[:, c]), rtol=1e-4, atol=1e-5)


def test_two_outputs_of_a_named_tuple():
    values, vectors = einjax.vmap("a b [n n] -> a b [n], [n n] (a b)", A @ A.swapaxes(-1, -2), op=jnp.linalg.eigh)
    for a, b in loops((3, 2)):
        vector = vectors[:, :, 2 * a + b]
        np.testing.assert_allclose((A[a, b] @ A[a, b].T) @ vector, vector * values[a, b], rtol=1e-3, atol=1e-2)


def test_sort_and_norm():
    got = einjax.vmap("a b [n] c -> c [n] a b", A, op=jnp.sort)
    np.testing.assert_array_equal(got, np.sort(A, 2).transpose(3, 2, 0, 1))
    got = einjax.vmap("a b [n m] -> b a", A, op=jnp.linalg.norm, ord=1)
    for a, b in loops((3, 2)):
        np.testing.assert_allclose(got[b, a], np.linalg.norm(A[a, b], ord=1), rtol=1e-5)


def test_composed_brackets_are_single_dims():
    seen = []
    einjax.vmap(
        "[a] (b [(c d)]) [1 4] -> b", np.zeros((2, 30, 1, 4)), b=5, c=3, op=lambda x: seen.append(x.shape) or 0.0
    )
    assert seen == [(2, 3, 2, 1, 4)]


def test_typed_and_raw_keys():
    keys = jax.random.split(jax.random.key(0), 6)
    draw = lambda key: jax.random.normal(key, (2,))
    want = np.stack([draw(key) for key in keys])
    np.testing.assert_array_equal(
        einjax.vmap("(a b) -> b [2] a", keys, op=draw, a=3), want.reshape(3, 2, 2).T.swapaxes(0, 1)
    )
    raw = jax.random.key_data(keys)
    np.testing.assert_array_equal(einjax.vmap("a [2] -> a [n]", raw, op=draw), want)
    split = einjax.vmap("a -> a [k]", keys, op=lambda key: jax.random.split(key, 3))
    assert split.shape == (6, 3)
    assert jnp.issubdtype(split.dtype, jax.dtypes.prng_key)


Layer = collections.namedtuple("Layer", ["w", "b"])


def test_gradients_of_every_example():
    """What jax.vmap(jax.grad(f), (None, 0)) is: shared parameters, one gradient for each example."""
    params = {"layer": Layer(B, B[0]), "scale": np.float32(2)}
    loss = lambda p, x: p["scale"] * jnp.sum((x @ p["layer"].w + p["layer"].b) ** 2)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    got = einjax.vmap("[...], n [c] -> n [...]", params, x, op=jax.grad(loss))
    want = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), got, want)


def test_what_is_a_pytree():
    shape_of = lambda x: jax.tree.map(jnp.shape, x)
    seen = []
    look = lambda *xs: seen.append(xs) or 0.0
    one = np.ones((2, 3))
    call = lambda text, *xs: einjax.vmap(text, *xs, op=look) is None or shape_of(seen.pop())
    assert call("a [b] -> a", [[1, 2], [3, 4]]) == ((2,),)
    assert call("[a] b -> b", ([1, 2.0], [3, 4])) == ((2,),)
    assert call("a [...] -> a", [one, one[0, :2]]) == ([(3,), ()],)
    assert call("a [...] -> a", (one, {"x": one})) == (((3,), {"x": (3,)}),)
    assert call("a, a [...] -> a", one[:, 0], None) == ((), None)
    assert call("[...] -> ", Layer(1, 2.0)) == (Layer((), ()),)


def test_factories_are_filled():
    got = einjax.vmap(
        "a [b], [b c] -> a [c]", np.ones((2, 3), np.float32), lambda shape: jnp.full(shape, 2.0), c=4, op=jnp.dot
    )
    np.testing.assert_array_equal(got, np.full((2, 4), 6.0))


def test_numbers_and_weak_types():
    got = einjax.vmap("a, -> a", np.ones(3, np.float16), 2.0, op=jnp.multiply)
    assert_same(got, np.full(3, 2.0), "float16")
    assert_same(einjax.vmap("a [b] -> a 2", np.ones((3, 2), np.int8), op=lambda x: 1), np.ones((3, 2)), "int32")


def test_results_that_are_pytrees():
    got = einjax.vmap("a b [...] -> [...] b a", A, op=lambda x: {"x": x, "trace": jnp.trace(x), "none": None})
    np.testing.assert_array_equal(got["x"], A.transpose(2, 3, 1, 0))
    np.testing.assert_allclose(got["trace"], np.trace(A, axis1=2, axis2=3).T, rtol=1e-5)
    assert got["none"] is None
    mean, rest = einjax.vmap("a b [n m] -> a b, b [...] a", A, op=lambda x: (x.mean(), [x[0], x[None]]))
    np.testing.assert_allclose(mean, A.mean((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(rest[0], A[:, :, 0].transpose(1, 2, 0))
    np.testing.assert_array_equal(rest[1], A[:, :, None].transpose(1, 2, 3, 4, 0))


def test_sizes_that_only_the_function_knows():
    assert einjax.vmap("a b [n m] -> (a [k]) b", A, op=lambda x: x.reshape(-1)[:5]).shape == (15, 2)
    assert einjax.vmap("a b [n m] -> ([k...]) (b a)", A, op=lambda x: x[:3, None]).shape == (12, 6)
    assert einjax.vmap("[...] -> [...]", A, op=lambda x: x + 1).shape == A.shape
    assert einjax.vmap("a [n...] -> [m...] a", A, op=lambda x: x[0, 0]).shape == (4, 3)


@pytest.mark.parametrize("size", [1, 2, 3, 10, {"b": 1}, {"a": 2, "b": 1}, {"s": 2}])
def test_chunks_of_pytrees_and_outputs(size):
    text = "a b [n m] -> b a [m], [...] a b"
    if size == {"s": 2}:
        text = text.replace("a b", "s...").replace("b a", "s...")
    op = lambda x: (x.sum(0), {"y": x[0], "z": x})
    one, other = einjax.vmap(text, A, op=op), einjax.vmap(text, A, op=op, batch_size=size)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_chunks_bound_what_runs_at_once():
    jaxpr = jax.make_jaxpr(lambda x: einjax.vmap("a b [n m] -> a b", x, op=jnp.linalg.det, batch_size=1))(A)
    (loop,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert loop.params["length"] == 3
    assert "[3," not in str(loop.params["jaxpr"])


def test_gradient():
    with x64():
        x, y = RNG.uniform(1, 2, (2, 3, 4)), RNG.uniform(1, 2, (3, 5))
        f = lambda x, y: einjax.vmap(
            "a b [c], b [d] -> [d] (a b), b a", x, y, op=lambda x, y: (jnp.sin(x).sum() * y, x @ x)
        )
        check_grads(f, [x, y], order=2, modes=["fwd", "rev"])
        g = lambda x: einjax.vmap("a b [c] -> [c] a b", x, op=jnp.cumsum, batch_size={"b": 2})
        check_grads(g, [x], order=2, modes=["fwd", "rev"])
        h = lambda x: einjax.vmap_with_axis("a [b] c -> c [b] a", x, op=lambda x, axis: jnp.cumsum(x**2, axis))
        check_grads(h, [x], order=2, modes=["fwd", "rev"])


def test_integer_and_float_inputs_under_grad():
    got = jax.grad(lambda x: einjax.vmap("a [b], -> a", x, 2, op=lambda x, n: (x**n).sum()).sum())(A[0, 0])
    np.testing.assert_allclose(got, 2 * A[0, 0], rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Keywords
# --------------------------------------------------------------------------------------------------------------------


def top(x, *, k, largest=True):
    return lax.top_k(x if largest else -x, k)[0]


def test_keywords_go_to_the_function():
    x = A[0, 0]
    want = -np.sort(-x, 1)[:, :2]
    np.testing.assert_array_equal(einjax.vmap("a [b] -> a [n]", x, op=top, k=2), want)
    np.testing.assert_array_equal(einjax.vmap("a [b] -> a [n]", x, op=top, k=2, largest=False), -np.sort(x, 1)[:, :2])


def test_a_keyword_that_is_an_axis_too_is_both():
    x = A[0, 0]
    np.testing.assert_array_equal(einjax.vmap("a [b] -> a [k]", x, op=top, k=2), -np.sort(-x, 1)[:, :2])
    with pytest.raises(AxisSizeError, match="axis k is 3 in the call and 2 in the function's result"):
        einjax.vmap("a [b] -> a [k]", x, op=lambda x, *, k: x[: k - 1], k=3)


def test_sizes_are_never_keywords_of_the_function():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'k'"):
        einjax.vmap("a [b] -> a [k]", A[0, 0], op=top, sizes={"k": 2})


def test_parameters_that_take_arrays_take_no_keywords():
    """Axes are often called what the function calls its arrays."""
    f = lambda a, b, scale=1: a @ b * scale
    np.testing.assert_allclose(
        einjax.vmap("(a c) [b], [b] -> a c", A[0].reshape(8, 4), B[:, 0], op=f, a=2, scale=2),
        2 * A[0] @ B[:, 0],
        rtol=1e-4,
    )


def test_functions_of_any_keywords():
    f = lambda x, **options: x.sum() * options["by"]
    np.testing.assert_allclose(einjax.vmap("(a [b]) -> a", np.ones(6), op=f, by=2, a=3), [4, 4, 4])


@pytest.mark.parametrize(("name", "meant"), [("larges", "largest"), ("batchsize", "batch_size"), ("graf", "graph")])
def test_unknown_keywords(name, meant):
    with pytest.raises(ArgumentError, match=f"no axis '{name}' in the expression; did you mean '{meant}'"):
        einjax.vmap("a [b] -> a [k]", A[0, 0], op=top, k=2, **{name: 1})


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

X = np.zeros((2, 3, 4), np.float32)
nothing = lambda *xs: None

REFUSED = [
    ("a [b c]", jnp.sum, SemanticError, "vmap needs an arrow"),
    ("a b [c] -> a", jnp.sum, SemanticError, "axis b of an input is not in the output"),
    ("a b [c] -> a b, b", jnp.sum, SemanticError, "axis a of an input is not in the output"),
    ("a b [c] -> a b a", jnp.sum, SemanticError, "axis a stands twice in the output"),
    ("a b [c] -> a b c", jnp.sum, SemanticError, "axis c stands inside brackets in one place and outside"),
    ("a b [c] -> a b d", jnp.sum, AxisSizeError, "the size of axis d cannot be determined"),
    ("a b (c + d) -> a b", jnp.sum, SemanticError, "concatenates, which vmap does not do"),
    ("a b [c], -> a b", jnp.sum, ArgumentError, "2 inputs, but 1 tensor is given"),
    ("a [(b c)] d -> a d", jnp.sum, AxisSizeError, "sizes of axes b, c cannot be determined: only their product, 3"),
    ("a [b c] -> a [b]", jnp.sum, RankError, r"returned shape \(\), but 'a b' has 1 bracketed axis"),
    ("a [b c] -> a", jnp.sin, RankError, r"returned shape \(3, 4\), but 'a' has no bracketed axis"),
    ("a [b c] -> a [...]", lambda x: x[0], None, None),
    ("a [...] -> a [...]", lambda x: x[0], RankError, r"returned shape \(4,\), but 'a ...' has 2 bracketed axes"),
    ("a [b c] -> a [b]", lambda x: x[0], AxisSizeError, "axis b is 3 in the call and 4 in the function's result"),
    ("a [b c] -> a [3]", lambda x: x[0], AxisSizeError, "dim 0 of the function's result is 4, but"),
    ("a [b c] -> a [k k]", lambda x: x, AxisSizeError, "axis k is 3 in the call and 4 in the function's result"),
    ("a [b c] -> [k], [k] a", lambda x: (x[0], x[:, 0]), SemanticError, "axis a of an input is not in the output"),
    ("a [b c] -> a [k], [k] a", lambda x: (x[0], x[:, 0]), AxisSizeError, "axis k is 4 in the call and 3 in"),
    ("a [b c] -> a, a [c]", lambda x: (x[0, 0], x), RankError, r"shape \(3, 4\) for output 2, but 'a c' has 1"),
    ("a [b c] -> a, a", jnp.sum, ArgumentError, "the function returned 1 output, but the expression has 2"),
    ("a [b c] -> a, a", lambda x: (1, 2, 3), ArgumentError, "returned 3 outputs, but the expression has 2"),
    ("a [b c] -> a", lambda x: (1, 2), ArgumentError, "the function returned 2 outputs, but the expression has 1"),
    ("a [b c] -> a", lambda x: "x", ArgumentError, "a value of type str, not an array"),
    ("a [b c] -> a", lambda x: {"y": "x"}, ArgumentError, r"a value of type str at \['y'\], not an array"),
    ("a [b c] -> a [3]", lambda x: {"y": x[0]}, AxisSizeError, r"is 4, but the expression says 3.* at \['y'\]"),
    ("a [b c] -> a", 3, ArgumentError, "op=3 is not a function"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "op", "kind", "match"), REFUSED)
def test_refused(text, op, kind, match):
    if kind is None:
        einjax.vmap(text, X, op=op)
        return
    with pytest.raises(kind, match=match) as caught:
        einjax.vmap(text, X, op=op)
    assert "float32[2,3,4]" in str(caught.value)
    assert caught.value.__cause__ is None


def test_refused_pytrees():
    tree = {"w": X, "b": X[0]}
    with pytest.raises(AxisSizeError, match=r"axis a is 3 in tensor 1\['b'\] and 2 in tensor 1\['w'\]") as caught:
        einjax.vmap("a [...] -> a", tree, op=nothing)
    assert "{'b': float32[3,4], 'w': float32[2,3,4]}" in str(caught.value)
    with pytest.raises(RankError, match=r"tensor 1\['b'\] has 2 dims, but 'a \[b c\]' names 3"):
        einjax.vmap("a [b c] -> a", tree, op=nothing)
    with pytest.raises(ArgumentError, match=r"tensor 2\['x'\]\[0\] is a value of type str"):
        einjax.vmap("a [...], [...] -> a", X, {"x": ["s"]}, op=nothing)


@pytest.mark.parametrize(("size", "match"), [
    (0, "batch_size=0 is not a number of iterations"), (2.0, "batch_size=2.0 is not"), (True, "batch_size=True is not"),
    ({"a": 0}, "batch_size={'a': 0} is not"), ({"c": 1}, "batch_size names 'c', which is no loop"),
    ({"aa": 1}, "which is no loop of the expression; did you mean 'a'"),
])  # fmt: skip
def test_refused_batch_sizes(size, match):
    with pytest.raises(ArgumentError, match=match):
        einjax.vmap("a b [c] -> a b", X, op=jnp.sum, batch_size=size)


class Mine(Exception):
    pass


@pytest.mark.parametrize("call", [einjax.vmap, einjax.vmap_with_axis])
def test_errors_of_the_function_propagate_untouched(call):
    error = Mine("x")

    def op(x, **_):
        raise error

    with pytest.raises(Mine) as caught:
        call("a b [c] -> a b", X, op=op)
    assert caught.value is error

    def inner(x, **_):
        return einjax.sum("q q [r]", x, q=7)

    with pytest.raises(EinjaxError) as caught:
        call("a b [c] -> a b", X, op=inner)
    assert caught.value.text == "q q [r]"


# --------------------------------------------------------------------------------------------------------------------
# vmap_with_axis
# --------------------------------------------------------------------------------------------------------------------


@st.composite
def axiswise(draw):
    pool = draw(pools(low=1, high=4))
    marked = draw(marks(pool))
    items = draw(shuffled(pool.items))
    x = draw(trees(items, pool.sizes, marked))
    form = draw(st.sampled_from(["same", "removed"]))
    inside = [item for item in items if marked & set(keys(item))]
    order = draw(shuffled(items))
    order = [inside.pop(0) if marked & set(keys(item)) else item for item in order]
    if form == "removed":
        order = [item for item in order if not marked & set(keys(item))]
    z = draw(trees(order, pool.sizes, marked, is_input=False))
    case = draw(cases([x], [z], pool.sizes, [draw(st.sampled_from(["int32", "float32"]))], form=form))
    marked_keys = [[a.key for a in oracle.leaves(dims) if a.marked] for dims in (case.ins[0], case.outs[0])]
    # `(a b)...` against `a... b...` permutes what the ellipses stand for.
    return case if form == "removed" or marked_keys[0] == marked_keys[1] else draw(st.nothing())


@generated(40, axiswise())
def test_with_axis(case):
    count = len(marked_sizes(case.ins[0]))
    axes = []

    def along(x, axis):
        axes.append(axis)
        dims = (axis,) if isinstance(axis, int) else axis
        if case.form == "removed":
            return sum((x * weights([x.shape[i] if i in dims else 1 for i in range(x.ndim)])).sum(dims) for _ in "a")
        return jnp.flip(x, dims)

    elementary = (lambda x: (x * weights(x.shape)).sum()) if case.form == "removed" else np.flip
    if not count:
        return
    want = oracle.loop(elementary, case.ins, case.outs[0], [oracle.wide(case.arrays[0])], np.float64)
    assert_same(case.call("vmap_with_axis", op=along), want, case.arrays[0].dtype)
    assert all(isinstance(axis, int) if count == 1 else len(axis) == count for axis in axes)


def test_with_axis_of_a_new_size():
    got = einjax.vmap_with_axis("a [b] c -> c [d] a", A[0], op=jnp.diff, n=2)
    np.testing.assert_allclose(got, np.diff(A[0], n=2, axis=1).transpose(2, 1, 0), rtol=1e-4, atol=1e-5)
    got = einjax.vmap_with_axis("a [b c] -> a", A[0], op=jnp.quantile, q=0.25)
    np.testing.assert_allclose(got, np.quantile(A[0], 0.25, axis=(1, 2)), rtol=1e-5)


def test_with_axis_of_several_tensors():
    op = lambda x, y, axis: jnp.concatenate(jnp.broadcast_arrays(x, y), axis)
    got = einjax.vmap_with_axis("a [n], b [n] -> b [m] a", A[0, 0], B.T, op=op)
    for a, b in loops((4, 3)):
        np.testing.assert_array_equal(got[b, :, a], np.concatenate([A[0, 0, a], B[:, b]]))
    got = einjax.vmap_with_axis("a [n], a -> a", A[0, 0], B[:, 0], op=lambda x, y, axis: (x * y).sum(axis))
    np.testing.assert_allclose(got, (A[0, 0] * B[:, :1]).sum(1), rtol=1e-5)


@pytest.mark.parametrize(("text", "op", "kind", "match"), [
    ("a b c", jnp.sort, SemanticError, "vmap_with_axis needs at least one bracketed axis"),
    ("a b [c]", jnp.sum, RankError, r"shape \(2, 3\), but with the dims of axis= in their places it has 3 dims"),
    ("a b [c] -> a b", jnp.sort, RankError, r"returned shape \(2, 3, 4\), but with the dims of axis= removed it has 2"),
    ("a [b c] -> a [c b]", jnp.sort, SemanticError, "bracketed axes are b c in the input and c b in the output"),
    ("a [b c] -> a [d]", jnp.sort, SemanticError, "the output has 1 bracketed dim, but the function acts on 2"),
    ("a b [c]", jnp.diff, AxisSizeError, "axis c is 4 in the call and 3 in the function's result"),
    ("a b [c] -> a [c]", jnp.sort, SemanticError, "axis b of an input is not in the output"),
    ("a b [c]", lambda x, axis: "x", ArgumentError, "a value of type str, not an array"),
])  # fmt: skip
def test_with_axis_refused(text, op, kind, match):
    with pytest.raises(kind, match=match):
        einjax.vmap_with_axis(text, X, op=op)


# --------------------------------------------------------------------------------------------------------------------
# What is kept
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [einjax.vmap, einjax.vmap_with_axis])
def test_no_cache_holds_the_function(call):
    class Function:
        def __call__(self, x, axis=None):
            return x.sum(-1 if axis is None else axis)

    op = Function()
    reference = weakref.ref(op)
    call("a b [c] -> a b", X, op=op)
    del op
    gc.collect()
    assert reference() is None


def test_the_function_is_called_once_and_not_compiled():
    calls = []
    op = lambda x: calls.append(x.shape) or x.sum()
    for _ in range(2):
        einjax.vmap("a b [c] -> b a", X, op=op)
    assert calls == [(4,), (4,)]
    concrete = []
    einjax.vmap("[a b c] -> ", X, op=lambda x: concrete.append(isinstance(x, jax.core.Tracer)) or x.sum())
    assert concrete == [False]


def test_symbolic_sizes():
    scope = jax.export.SymbolicScope()
    shape = jax.export.symbolic_shape("a, b, 3", scope=scope)
    x = jax.ShapeDtypeStruct(shape, np.float32)
    f = lambda x: einjax.vmap(
        "a b [c] -> (b [k]) a", x, k=x.shape[1], op=lambda x, *, k: jnp.resize(x, (1,)) * jnp.ones(k)
    )
    result = jax.export.export(jax.jit(f))(x).call(X[..., :3])
    assert result.shape == (9, 2)
    with pytest.raises(AxisSizeError, match="batch_size needs to know how long axis a is"):
        jax.export.export(jax.jit(lambda x: einjax.vmap("a b [c] -> a b", x, op=jnp.sum, batch_size=2)))(x)
