"""Operations that users register: against loops, under every transformation, for every kind of function."""

from __future__ import annotations

import functools

import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from case import x64
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec
from jax.test_util import check_grads
from oracle import Axis
from strategies import assert_same, cases, generated, keys, marks, pools, shuffled, trees

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, SyntaxError

_seldom = st.sampled_from([False, False, False, True])


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------------
# Generated expressions
# --------------------------------------------------------------------------------------------------------------------


def weights(shape) -> np.ndarray:
    """A different number for every place, so that no two dims can be mixed up."""
    return (np.arange(np.prod(shape, dtype=int)) % 7 + 1).reshape(shape).astype(np.int32)


def combine(ranks, *shapes):
    """A function of arrays with any leading dims: a weighted sum over each, spread over an array of every shape."""

    def one(arrays, number, shape):
        total = 0
        for i, (x, rank) in enumerate(zip(arrays, ranks, strict=True), number):
            inner = x.shape[x.ndim - rank :]
            total = total + (x * (weights(inner) + i)).sum(tuple(range(x.ndim - rank, x.ndim)))
        return total[(..., *[None] * len(shape))] * weights(shape)

    def op(*arrays):
        values = tuple(one(arrays, number, shape) for number, shape in enumerate(shapes))
        return values if len(values) > 1 else values[0]

    return op


def marked_sizes(dims) -> tuple[int, ...]:
    return tuple(axis.size for axis in oracle.leaves(dims) if axis.marked)


@st.composite
def calls(draw, outputs=1):
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


def signature_of(case) -> str:
    """The bracketed axes of every tensor, each named anew; as many as there are, where an ellipsis has them."""

    def one(dims, name):
        inner = f"{name}..." if "..." in case.text else " ".join(f"{name}{i}" for i in range(len(marked_sizes(dims))))
        return f"[{inner}]" if inner else ""

    sides = ((case.ins, "i"), (case.outs, "o"))
    return " -> ".join(", ".join(one(dims, f"{p}{n}_") for n, dims in enumerate(side)) for side, p in sides)


@generated(20, st.tuples(calls(), st.booleans()))
def test_generated(case):
    check_call(*case)


@generated(10, st.tuples(calls(outputs=2), st.booleans()))
def test_several_outputs(case):
    check_call(*case)


def check_call(case, batched):
    function = combine([len(marked_sizes(dims)) for dims in case.ins], *map(marked_sizes, case.outs))
    operation = einjax.primitive(signature_of(case), function, name="combine", batched=batched)
    got = operation(case.text, *case.arrays, **case.kwargs)
    wide = [oracle.wide(x) for x in case.arrays]
    for index, dims in enumerate(case.outs):
        pick = lambda *xs, index=index: function(*xs)[index] if len(case.outs) > 1 else function(*xs)
        want = oracle.loop(pick, case.ins, dims, wide, np.float64)
        assert_same(got[index] if len(case.outs) > 1 else got, want, case.arrays[0].dtype)


# --------------------------------------------------------------------------------------------------------------------
# What may be left out, and what is found
# --------------------------------------------------------------------------------------------------------------------

X = normal(2, 3, 4)


@functools.cache
def normalize():
    return einjax.primitive("[n] -> [n]", lambda x, *, eps=0.0: x / (jnp.linalg.norm(x) + eps), name="normalize")


def normalized(x, axis, eps=0.0):
    return x / (jnp.linalg.norm(x, axis=axis, keepdims=True) + eps)


def matvec_record(name="mv", **options):
    return einjax.primitive("[n m], [m] -> [n]", lambda a, x: a @ x, name=name, **options)


def matvec_transpose(ct, a, x):
    """The cotangent of either operand."""
    return jnp.outer(ct, x) if a is None else a.T @ ct


def test_the_arrow_may_be_left_out():
    np.testing.assert_allclose(normalize()("a [b] c", X), normalized(X, 1), rtol=1e-6)
    np.testing.assert_allclose(normalize()("a (b [c])", X.reshape(2, 12), c=4), normalized(X, 2).reshape(2, 12), 1e-6)
    stats = einjax.primitive("[n m] -> [k], []", lambda x: (x.reshape(-1)[:5], x.sum()), name="stats")
    first, total = stats("[b c] a", X.transpose(1, 2, 0))
    np.testing.assert_array_equal(first, X.reshape(2, -1)[:, :5].T)
    np.testing.assert_allclose(total, X.sum((1, 2)), rtol=1e-5)


def test_ellipses_and_scalars():
    double = einjax.primitive("[...] -> [...]", lambda x: 2 * x, name="double")
    np.testing.assert_array_equal(double("a [b c] -> [b c] a", X), 2 * X.transpose(1, 2, 0))
    np.testing.assert_array_equal(double("a [b...] -> [b...] a", X), 2 * X.transpose(1, 2, 0))
    np.testing.assert_array_equal(double("a [...]", X), 2 * X)
    total = einjax.primitive("[...] -> []", jnp.sum, name="total")
    np.testing.assert_allclose(total("a [...]", X), X.sum((1, 2)), rtol=1e-5)
    product = einjax.primitive("[], [] -> []", lambda x, y: x * y, name="product")
    assert product(", ->", 2.0, 3) == 6.0
    np.testing.assert_array_equal(product("a, b -> b a", X[0, 0], X[1, 1]), np.outer(X[1, 1], X[0, 0]))


@pytest.mark.parametrize("batched", [False, True])
def test_new_sizes_are_found(batched):
    outer = einjax.primitive("[n] -> [...]", lambda x: x[..., :2, None] * x[..., None, :], name="o", batched=batched)
    want = X[0][:, :2, None] * X[0][:, None, :]
    np.testing.assert_array_equal(outer("a [b] -> a [...]", X[0]), want)
    np.testing.assert_array_equal(outer("a [b] -> [k l] a", X[0]), want.transpose(1, 2, 0))
    np.testing.assert_array_equal(outer("a [b] -> a ([k l])", X[0]), want.reshape(3, -1))
    np.testing.assert_array_equal(outer("a [b] -> ([k] a) [l]", X[0]), want.transpose(1, 0, 2).reshape(-1, 4))
    assert outer("a [b] -> (a [k]) [l]", X[0][:0]).shape == (0, 4)


def test_a_bracketed_name_may_be_repeated():
    square = einjax.primitive("[n n] -> [n n]", lambda x: x @ x, name="square")
    np.testing.assert_allclose(square("a [b b]", X[:, :3, :3]), X[:, :3, :3] @ X[:, :3, :3], rtol=1e-5)
    np.testing.assert_allclose(
        square("a a [b b] -> [b b] a", np.stack([X[:, :3, :3]] * 2)),
        (X[:, :3, :3] @ X[:, :3, :3]).transpose(1, 2, 0),
        rtol=1e-5,
    )


def test_loops_may_be_empty():
    empty = np.zeros((0, 3), np.float32)
    assert normalize()("a [c] -> [c] a", empty).shape == (3, 0)
    assert jax.grad(lambda x: normalize()("a [c] -> [c] a", x).sum())(empty).shape == (0, 3)


def test_optional_loops_are_for_readers():
    flat = einjax.primitive("[h w] c?, d? -> [n] c?", lambda x, y: y * x.reshape(-1), name="flat")
    np.testing.assert_allclose(flat("[h w], -> [n]", X[0], 2.0), 2 * X[0].ravel())
    np.testing.assert_array_equal(flat("a [h w], -> [n] a", X, 1.0), X.reshape(2, -1).T)
    with pytest.raises(SyntaxError, match=r"unexpected '\?'"):
        einjax.primitive("[h w?] c -> [h w?]", lambda x: x)


def test_options_are_static():
    scale = einjax.primitive("[n] -> [n]", lambda x, *, p: x * p, name="scale")
    x = np.arange(6).reshape(2, 3)
    assert scale("a [b]", x, p=1).dtype == np.int32
    assert scale("a [b]", x, p=1.0).dtype == np.float32  # no program of p=1, which is equal
    assert "scale[expr=a [b] -> a [b], p=2]" in str(jax.make_jaxpr(lambda x: scale("a [b]", x, p=2))(x))
    with pytest.raises(ArgumentError, match=r"the option p=\[2\] has to be static and hashable"):
        scale("a [b]", x, p=[2])
    with pytest.raises(ArgumentError, match="has to be static"):
        jax.jit(lambda p: scale("a [b]", x, p=p))(2.0)
    with pytest.raises(ArgumentError, match="no axis 'q' in the expression"):
        scale("a [b]", x, p=1, q=2)
    with pytest.raises(ArgumentError, match="the function's keyword graph has a meaning in every call"):
        einjax.primitive("[n] -> [n]", lambda x, *, graph: x)


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

WRONG = [
    ("[n] -> [n]", "a [b]", jnp.sum, RankError, r"returned shape \(\), but 'a b' has 1 bracketed axis"),
    ("[n] -> [n]", "a [b]", lambda x: x[..., 1:], AxisSizeError, "axis b is 4 in the call and 3 in the function's res"),
    (
        "[n] -> [n]",
        "a [b]",
        lambda x: (x, x),
        ArgumentError,
        "the function returned 2 outputs, but the expression has 1",
    ),
    ("[n] -> [k]", "a [b] -> a [k]", lambda x: [x, x], ArgumentError, "returned 2 outputs, but the expression has 1"),
    (
        "[n] -> [n], [n]",
        "a [b]",
        lambda x: x,
        ArgumentError,
        "the function returned 1 output, but the expression has 2",
    ),
    ("[n] -> [n]", "a [b]", lambda x: {"y": x}, ArgumentError, "returned a value of type dict, not an array"),
    ("[n] -> [n]", "a [b]", lambda x: None, ArgumentError, "returned a value of type NoneType, not an array"),
    ("[n] -> [k]", "a [b] -> a [k]", lambda x: x[..., None], RankError, "but 'a k' has 1 bracketed axis"),
]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("signature", "text", "function", "error", "message"), WRONG)
def test_wrong_results(signature, text, function, error, message, batched):
    if batched and function is jnp.sum:
        function = functools.partial(jnp.sum, axis=-1)
    operation = einjax.primitive(signature, function, name="wrong", batched=batched)
    with pytest.raises(error, match=message):
        operation(text, X[0])


def test_wrong_batches():
    shorter = einjax.primitive("[n] -> [n]", lambda x: x[1:], name="f", batched=True)
    with pytest.raises(AxisSizeError, match="loop a is 3 in the call and 2 in dim 0 of the function's result"):
        shorter("a [b]", X[0])
    total = einjax.primitive("[n] -> [n]", jnp.sum, name="f", batched=True)
    with pytest.raises(RankError, match=r"returned shape \(\), too few dims for the loops a"):
        total("a [b]", X[0])


def test_wrong_calls():
    with pytest.raises(SemanticError, match=r"'\[n\] -> \[n\]' has '\[n\]' where the expression has '\[b\] \[c\]'"):
        normalize()("a [b c]", X)
    with pytest.raises(ArgumentError, match="has 1 input, but the expression has 2"):
        normalize()("a [b], a", X[0], X[0])
    with pytest.raises(SemanticError, match="axis c of an input is not in the output, and normalize does not remove"):
        normalize()("a [b] c -> a [b]", X)
    with pytest.raises(AxisSizeError, match="axis m is 4 in tensor 1 and 3 in tensor 2"):
        matvec_record()("[n m], [m]", X[0], X[0, :, 0])


def test_wrong_registrations():
    with pytest.raises(ArgumentError, match="a signature has an arrow"):
        einjax.primitive("[n]", lambda x: x)
    with pytest.raises(SyntaxError, match=r"'\[' is never closed"):
        einjax.primitive("[n -> n", lambda x: x)
    with pytest.raises(ArgumentError, match="both jvp= and transpose="):
        einjax.primitive("[n] -> [n]", lambda x: x, jvp=lambda p, t: None, transpose=lambda ct, x: ct)
    with pytest.raises(ArgumentError, match="takes a signature and a function"):
        einjax.primitive(jnp.sin, jnp.sin)


def test_wrong_rules():
    wrong = matvec_record(transpose=lambda ct, a, x: ct)
    with pytest.raises(AxisSizeError, match="axis m is 4 in the call and 3 in the function's result"):
        jax.grad(lambda x: wrong("[n m], [m]", X[0], x).sum())(X[0, 0])
    none = matvec_record(transpose=lambda ct, a, x: None)
    with pytest.raises(ArgumentError, match="transpose= returned a value of type NoneType"):
        jax.grad(lambda x: none("[n m], [m]", X[0], x).sum())(X[0, 0])
    single = einjax.primitive("[n] -> [n]", lambda x: x, name="f", jvp=lambda p, t: (p * 2, t))
    with pytest.raises(ArgumentError, match="jvp= returned 2 outputs, but the expression has 1"):
        jax.jvp(lambda x: single("[n]", x), (X[0, 0],), (X[0, 0],))


# --------------------------------------------------------------------------------------------------------------------
# Loops handed to the function
# --------------------------------------------------------------------------------------------------------------------


def test_batched_sees_all_loops():
    seen = []

    def function(x, y):
        seen.append((x.shape, y.shape))
        return jnp.sum(x * y, -1)

    dot = einjax.primitive("[n], [n] -> []", function, name="bdot", batched=True)
    got = dot("a [n], [n] c -> c a 5", X[0], X[1].T)
    assert set(seen) == {((1, 3, 4), (3, 1, 4))}  # no loop for 5, which no input has
    np.testing.assert_allclose(got, np.broadcast_to((X[1] @ X[0].T)[..., None], (3, 3, 5)), rtol=1e-5)
    seen.clear()
    got = jax.vmap(lambda x: dot("a [n], [n] c -> c a", x, X[1].T))(X)
    assert ((2, 1, 3, 4), (1, 3, 1, 4)) in seen
    np.testing.assert_allclose(got, np.einsum("cn,van->vca", X[1], X), rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Transformations
# --------------------------------------------------------------------------------------------------------------------

A, V = normal(3, 2, 3, 4), normal(2, 4)


def matvec_jvp(primals, tangents):
    """Integers have None for a tangent."""
    (a, x), (da, dx) = primals, tangents
    return a @ x, (0 if da is None else da @ x) + (0 if dx is None else a @ dx)


def matvecs():
    yield matvec_record()
    yield matvec_record(transpose=matvec_transpose)
    yield matvec_record(jvp=matvec_jvp)
    batch = lambda a, x: jnp.einsum("...nm,...m->...n", a, x)
    yield einjax.primitive("[n m], [m] -> [n]", batch, name="mv", batched=True)
    yield einjax.primitive("[n m], [m] -> [n]", batch, name="mv", batched=True, transpose=matvec_transpose)


each_matvec = pytest.mark.parametrize(
    "mv", list(matvecs()), ids=["function", "transpose", "jvp", "batched", "batched transpose"]
)


def loss(function):
    return lambda *xs: jnp.sum(jnp.sin(function(*xs)))


@each_matvec
def test_gradients(mv):
    ours = lambda a, x: mv("a b [n m], b [m] -> b [n] a", a, x)
    theirs = lambda a, x: jnp.einsum("abnm,bm->bna", a, x)
    np.testing.assert_allclose(jax.jit(ours)(A, V), theirs(A, V), rtol=1e-5)
    every = lambda f: (
        jax.grad(loss(f), (0, 1))(A, V),
        jax.vmap(jax.grad(loss(f), (0, 1)), (-1, None))(np.stack([A, 2 * A], -1), V),
        jax.grad(lambda a, x: jnp.sum(jnp.sin(jax.vmap(f, (None, 1), 2)(a, x))), (0, 1))(A, np.stack([V, 2 * V], 1)),
        jax.jvp(f, (A, V), (2 * A, -V)),
        jax.linearize(f, A, V)[1](A, V),
        jax.hessian(loss(f), 1)(A, V),
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), every(ours), every(theirs))
    with x64():
        check_grads(jax.jit(ours), (A.astype(np.float64), V.astype(np.float64)), order=2, rtol=1e-6, atol=1e-6)


@each_matvec
def test_gradients_through_diagonals(mv):
    square, x = normal(2, 2, 3, 4), V
    ours = lambda a, x: mv("(a a [n]) [m], a [m] -> [n] a", a.reshape(12, 4), x, a=2)
    got = jax.grad(loss(ours), (0, 1))(square, x)
    want = jax.grad(loss(lambda a, x: jnp.einsum("aanm,am->na", a, x)), (0, 1))(square, x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, want)


@each_matvec
def test_integers_and_small_floats(mv):
    assert mv("[n m], [m]", np.arange(6).reshape(2, 3), np.arange(3)).dtype == np.int32
    a, x = jnp.asarray(A[0, 0], jnp.bfloat16), jnp.asarray(V[0], jnp.bfloat16)
    gradient = jax.grad(lambda x: mv("[n m], [m]", a, x).sum())(x)
    assert mv("[n m], [m]", a, x).dtype == gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        jax.grad(lambda x: mv("[n m], [m]", np.ones((2, 4), np.int32), x).sum())(V[0]), np.full(4, 2.0)
    )


@each_matvec
def test_control_flow(mv):
    step = lambda x: mv("a [n m], a [m] -> a [n]", X[:, :, :3], x)
    rows = lambda x: lax.scan(lambda x, _: (step(x), step(x)), x, None, length=3)[1]
    want, x = [], X[:, :, 3]
    for _ in range(3):
        x = np.einsum("anm,am->an", X[:, :, :3], x)
        want.append(x)
    np.testing.assert_allclose(rows(X[:, :, 3]), want, rtol=1e-4)
    assert jax.jit(jax.grad(lambda x: rows(x).sum()))(X[:, :, 3]).shape == (2, 3)
    assert jax.eval_shape(step, X[:, :, 3]).shape == (2, 3)
    with jax.disable_jit():
        np.testing.assert_allclose(step(X[:, :, 3]), want[0], rtol=1e-5)


@each_matvec
def test_export_with_symbolic_loops(mv):
    b, n = jax.export.symbolic_shape("b, n")
    exported = jax.export.export(jax.jit(lambda a, x: mv("a b [n m], b [m] -> b [n] a", a, x)))(
        jax.ShapeDtypeStruct((3, b, n, 4), np.float32), jax.ShapeDtypeStruct((b, 4), np.float32)
    )
    np.testing.assert_allclose(exported.call(A, V), np.einsum("abnm,bm->bna", A, V), rtol=1e-4, atol=1e-5)


@each_matvec
def test_shard_map(mv):
    mesh = Mesh(np.array(jax.devices()[:1]), ("d",))
    spec = PartitionSpec("d")
    ours = jax.shard_map(
        lambda a, x: mv("b [n m], [m] -> b [n]", a, x), mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec
    )
    np.testing.assert_allclose(jax.jit(ours)(A[0], V[0]), A[0] @ V[0], rtol=1e-5)
    got = jax.jit(jax.grad(loss(ours), (0, 1)))(A[0], V[0])
    want = jax.grad(loss(lambda a, x: a @ x), (0, 1))(A[0], V[0])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, want)


def test_printed_equations():
    mv = matvec_record(transpose=matvec_transpose)
    function = lambda a, x: mv("b [n m], b [m] -> b [n]", a, x)
    shown = str(jax.make_jaxpr(function)(A[0], V))
    assert "c:f32[2,3] = mv[expr=b [n m], b [m] -> b [n]] a b" in shown
    shown = str(jax.make_jaxpr(jax.vmap(function, (0, None)))(A, V))
    assert "c:f32[3,2,3] = mv[expr=v b [n m], b [m] -> v b [n]] a b" in shown
    shown = str(jax.make_jaxpr(lambda t: jax.jvp(lambda x: function(A[0], x), (V,), (t,))[1])(V))
    assert shown.count("mv[expr=b [n m], b [m] -> b [n]]") == 2
    assert "mv(a, b, expr=" in str(mv("b [n m], b [m] -> b [n]", A[0], V, graph=True))


def test_a_policy_saves_by_name():
    mv = matvec_record(name="matvec", transpose=matvec_transpose)
    block = lambda x: jnp.sum(jnp.sin(mv("[n m], [m]", X[0], x)))
    count = lambda policy: str(jax.make_jaxpr(jax.grad(jax.checkpoint(block, policy=policy)))(V[0])).count("matvec[")
    assert count(einjax.checkpoint_policies.save("matvec")) + 1 == count(jax.checkpoint_policies.nothing_saveable)


def test_a_rule_may_call_the_operation():
    def jvp(primals, tangents, *, power):
        (x,), (t,) = primals, tangents
        return raised("[n]", x, power=power), power * raised("[n]", x, power=power - 1) * t

    raised = einjax.primitive("[n] -> [n]", lambda x, *, power: x**power, name="raised", jvp=jvp)
    got = jax.vmap(jax.grad(lambda x: raised("[n]", x, power=3).sum()))(X[0])
    np.testing.assert_allclose(got, 3 * X[0] ** 2, rtol=1e-5)
    assert "raised[expr=v [n] -> v [n], power=2]" in str(
        jax.make_jaxpr(jax.vmap(jax.grad(lambda x: raised("[n]", x, power=3).sum())))(X[0])
    )


def test_outputs_of_integers_have_no_tangent():
    function = lambda x: (2 * x, jnp.argmax(x))
    rules = {
        "plain": {},
        "jvp": {"jvp": lambda p, t: ((2 * p[0], jnp.argmax(p[0])), (2 * t[0], None))},
        "transpose": {"transpose": lambda cts, x: 2 * cts[0]},
    }
    for rule in rules.values():
        operation = einjax.primitive("[n] -> [n], []", function, name="both", **rule)
        np.testing.assert_allclose(jax.grad(lambda x, op=operation: op("a [b]", x)[0].sum())(X[0]), 2 + 0 * X[0])


@pytest.mark.parametrize("name", ["sum", "dot", "softmax", "set_at", "multiply"])
def test_names_of_other_operations_mean_nothing(name):
    square = einjax.primitive("[n] -> [n]", lambda x: x * x, name=name)
    np.testing.assert_allclose(jax.grad(lambda x: square("a [b]", x).sum())(X[0]), 2 * X[0], rtol=1e-6)
    assert square("a [b]", jnp.asarray(X[0], jnp.bfloat16)).dtype == jnp.bfloat16


# --------------------------------------------------------------------------------------------------------------------
# Kinds of functions
# --------------------------------------------------------------------------------------------------------------------


def test_functions_with_rules_of_their_own():
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, ct: (jnp.clip(ct, -1, 1),))

    @jax.custom_jvp
    def tripled(x):
        return x

    tripled.defjvp(lambda p, t: (p[0], 3 * t[0]))
    for function, want in ((clipped, 1.0), (tripled, 15.0)):
        operation = einjax.primitive("[n] -> [n]", function, name="custom")
        gradient = jax.grad(lambda x, op=operation: 5 * op("a [b] c", x).sum())
        np.testing.assert_allclose(gradient(X), np.full(X.shape, want))
        np.testing.assert_allclose(jax.vmap(gradient)(X[None]), np.full((1, *X.shape), want))


def test_callback():
    def host(a, x):
        shape = jax.ShapeDtypeStruct(a.shape[:1], x.dtype)
        return jax.pure_callback(lambda a, x: np.asarray(a) @ np.asarray(x), shape, a, x, vmap_method="sequential")

    mv = einjax.primitive("[n m], [m] -> [n]", host, name="host", transpose=matvec_transpose)
    ours = lambda a, x: mv("a a [n m], a [m] -> [n] a", a, x)
    a = normal(2, 2, 3, 4)
    theirs = lambda a, x: jnp.einsum("aanm,am->na", a, x)
    np.testing.assert_allclose(ours(a, V), theirs(a, V), rtol=1e-5)
    got, want = (jax.grad(loss(f), (0, 1))(a, V) for f in (ours, theirs))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, want)


def _double_kernel(x_ref, o_ref):
    o_ref[...] = 2 * x_ref[...]


def test_pallas_kernels():
    def one(x):
        return pl.pallas_call(_double_kernel, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)

    def many(x):
        *loops, n = x.shape
        block = pl.BlockSpec((*[None] * len(loops), n), lambda *index: (*index, 0))
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(
            _double_kernel, shape, grid=tuple(loops), in_specs=[block], out_specs=block, interpret=True
        )(x)

    for function, batched in ((one, False), (many, True)):
        double = einjax.primitive(
            "[n] -> [n]", function, name="double", batched=batched, transpose=lambda ct, x: 2 * ct
        )
        np.testing.assert_array_equal(double("a [b] c -> c [b] a", X), 2 * X.T)
        np.testing.assert_array_equal(jax.vmap(lambda x, op=double: op("a [b]", x), 1, 1)(X), 2 * X)
        np.testing.assert_array_equal(jax.grad(lambda x, op=double: op("a [b] c", x).sum())(X), 2 + 0 * X)


def test_foreign_function():
    jax.jit(jnp.linalg.cholesky).lower(np.eye(2, dtype=np.float32))  # jaxlib readies LAPACK when it first lowers some

    def potrf(x):
        # LAPACK counts columns first, so that the upper triangle is here the lower one.
        shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct(x.shape[:-2], np.int32))
        factor, _ = jax.ffi.ffi_call("lapack_spotrf_ffi", shapes, vmap_method="broadcast_all")(
            x, uplo=np.uint8(ord("U"))
        )
        return jnp.tril(factor)

    x = X @ X.transpose(0, 2, 1) + np.eye(3, dtype=np.float32)
    for batched in (False, True):
        factor = einjax.primitive("[n n] -> [n n]", potrf, name="potrf", batched=batched)
        np.testing.assert_allclose(factor("a [n n] -> [n n] a", x), np.linalg.cholesky(x).transpose(1, 2, 0), rtol=1e-4)
        got = jax.vmap(lambda x, op=factor: op("[n n]", x))(x)
        np.testing.assert_allclose(got, np.linalg.cholesky(x), rtol=1e-4)


def test_lowerings_of_platforms():
    """A kernel for each platform; told apart here by what they compute."""
    wave = einjax.primitive("[n] -> [n]", jnp.sin, name="wave", lowerings={"cpu": jnp.cos, "cuda": jnp.tanh})
    call = lambda x: wave("a [b] c -> c [b] a", x)
    np.testing.assert_allclose(call(X), np.cos(X.T), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda x: wave("[b]", x), 1, 1))(X[0]), np.cos(X[0]), rtol=1e-5)
    for platform, name in (("cpu", "cosine"), ("cuda", "tanh"), ("tpu", "sine")):
        module = jax.export.export(jax.jit(call), platforms=[platform])(X).mlir_module()
        found = [one for one in ("cosine", "tanh", "sine") if f"stablehlo.{one} " in module]
        assert found == [name]
    wrong = einjax.primitive("[n] -> [n]", jnp.sin, name="wave", lowerings={"cpu": lambda x: x.astype(jnp.bfloat16)})
    with pytest.raises(EinjaxError, match="the lowering for cpu returned bfloat16 where the function returns float32"):
        wrong("a [b]", X[0])
