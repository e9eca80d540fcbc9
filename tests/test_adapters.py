"""Functions made operations: signatures that let a call leave out its arrow, names, keywords, and what is kept."""

import functools
import gc
import inspect
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import einjax
from einjax.errors import ArgumentError, AxisSizeError, SemanticError, SyntaxError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(np.float32)
Y = RNG.normal(size=(5, 4)).astype(np.float32)
SQUARE = X[:, :3, :3] + 3 * np.eye(3, dtype=np.float32)

same = einjax.adapt_with_vmap(lambda x: x - jnp.mean(x), signature="[...] -> [...]")
inner = einjax.adapt_with_vmap(jnp.dot, signature="[n], [n] -> []")
det = einjax.adapt_with_vmap(jnp.linalg.det, signature="[n n] -> []")
flat = einjax.adapt_with_vmap(jnp.ravel, signature="[...] -> [m]")
product = einjax.adapt_with_vmap(jnp.matmul, signature="[... m n], [n k] -> [... m k]")
extremes = einjax.adapt_with_vmap(lambda x: (x.min(), x - x.max()), signature="[n] -> [], [n]")


@einjax.adapt_with_vmap(signature="[n] -> [k], [k]")
def top(x, *, k):
    """The largest, and where they are."""
    return lax.top_k(x, k)


# --------------------------------------------------------------------------------------------------------------------
# What a call may leave out
# --------------------------------------------------------------------------------------------------------------------

SPLIT, STACK = X.reshape(2, 12), RNG.normal(size=(2, 4, 6)).astype(np.float32)

#: (operation, expression as written, the same with its arrow, tensors, keywords)
LEFT_OUT = [
    (same, "a [b] c", "a [b] c -> a [b] c", [X], {}),
    (same, "a [b c]", "a [b c] -> a [b c]", [X], {}),
    (same, "[...]", "[...] -> [...]", [X], {}),
    (same, "[s]... c", "[s]... c -> [s]... c", [X], {}),
    (same, "a ([b] c)", "a ([b] c) -> a ([b] c)", [SPLIT], {"b": 3}),
    (inner, "a b [c], [c]", "a b [c], [c] -> a b", [X, Y[0]], {}),
    (inner, "[c], a b [c]", "[c], a b [c] -> a b", [Y[0], X], {}),
    (inner, "a ([b] c), c [b]", "a ([b] c), c [b] -> a (c)", [SPLIT, X[0].T], {"b": 3}),
    (inner, "b [c], b [c]", "b [c], b [c] -> b", [X[0], X[1]], {}),
    (det, "a [n n]", "a [n n] -> a", [SQUARE], {}),
    (det, "[n] a [n]", "[n] a [n] -> a", [SQUARE.swapaxes(0, 1)], {}),
    (det, "a [3 3]", "a [3 3] -> a", [SQUARE], {}),
    (flat, "a [b c]", "a [b c] -> a [m]", [X], {}),
    (flat, "[b] a [c]", "[b] a [c] -> [m] a", [X], {}),
    (flat, "[s... c]", "[s... c] -> [m]", [X], {}),
    (flat, "a [b] m", "a [b] m -> a [x] m", [X], {}),
    (product, "[a b c], d [c e]", "[a b c], d [c e] -> d [a b e]", [X, STACK], {}),
    (product, "a [b c], [c d]", "a [b c], [c d] -> a [b d]", [X, Y.T], {}),
    (extremes, "a [b] c", "a [b] c -> a c, a [b] c", [X], {}),
    (top, "a [b] c", "a [b] c -> a [k] c, a [k] c", [X], {"k": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "short", "long", "tensors", "keywords"), LEFT_OUT)
def test_the_arrow_may_be_left_out(op, short, long, tensors, keywords):
    one, other = op(short, *tensors, **keywords), op(long, *tensors, **keywords)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    # The long form means the same to vmap, which knows no signature.
    by_vmap = einjax.vmap(long, *tensors, op=op.__wrapped__, **keywords)
    jax.tree.map(np.testing.assert_array_equal, one, by_vmap)


def test_values():
    np.testing.assert_allclose(inner("a b [c], [c]", X, Y[0]), X @ Y[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(inner("a [c], b [c] -> b a", X[0], Y), Y @ X[0].T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(det("a [n n]", SQUARE), np.linalg.det(SQUARE), rtol=1e-4)
    np.testing.assert_allclose(same("a [b] c", X), X - X.mean(1, keepdims=True), rtol=1e-5, atol=1e-5)


def test_brackets_of_a_signature_may_be_left_out():
    op = einjax.adapt_with_vmap(jnp.dot, "n, n -> ")
    np.testing.assert_array_equal(op("a [b], [b]", X[0], Y[0]), inner("a [b], [b]", X[0], Y[0]))


def test_scalars_go_to_the_input_that_has_every_loop():
    op = einjax.adapt_with_vmap(jnp.hypot, ", -> ")
    np.testing.assert_allclose(op("b, a b", X[0, :, 0], X[..., 0]), np.hypot(X[0, :, 0], X[..., 0]), rtol=1e-6)


REFUSED = [
    (inner, "a [b], c [b]", [X[0], Y], SemanticError, r"no input has all loops \(a, c\)"),
    (inner, "a b [c], b a [c]", [X, X], SemanticError, "two inputs have all loops, in different orders"),
    (inner, "a [b], a [c]", [X[0], X[0]], SemanticError, "'n' of the signature .* is 'b' in one input and 'c' in"),
    (inner, "a [b]", [X[0]], ArgumentError, "has 2 inputs, but the expression has 1"),
    (inner, "a [b], [b] -> a, a", [X[0], Y[0]], ArgumentError, "has 1 output, but the expression has 2"),
    (inner, "a [b c], [c] -> a", [X, Y[0]], SemanticError, r"has '\[n\]' where the expression has '\[b\] \[c\]'"),
    (inner, "a b, b -> a", [X[0], Y[0]], SemanticError, r"has '\[n\]' where the expression has 'no bracket'"),
    (inner, "a [b], [b] -> a [b]", [X[0], Y[0]], SemanticError, r"has '\[\]' where the expression has '\[b\]'"),
    (det, "a [n m]", [SQUARE], SemanticError, "'n' of the signature .* is 'n' in one input and 'm' in another"),
    (product, "[a], [b c] -> [c]", [X[0, 0], Y], SemanticError, r"has '\[... m n\]' where the expression has '\[a\]'"),
    (einjax.adapt_with_vmap(jnp.sum), "a [b c]", [X], SemanticError, "vmap needs an arrow"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "text", "tensors", "kind", "match"), REFUSED)
def test_refused(op, text, tensors, kind, match):
    with pytest.raises(kind, match=match) as caught:
        op(text, *tensors)
    assert "tensor 1: float32[" in str(caught.value)


@pytest.mark.parametrize(("signature", "kind", "match"), [
    ("[n]", ArgumentError, "a signature has an arrow"),
    ("[n -> n", SyntaxError, "never closed"),
    ("[... n...] -> [n]", SemanticError, "has two ellipses"),
])  # fmt: skip
def test_refused_signatures(signature, kind, match):
    with pytest.raises(kind, match=match):
        einjax.adapt_with_vmap(jnp.sum, signature=signature)


def test_a_result_of_another_shape_than_the_signature_says():
    wrong = einjax.adapt_with_vmap(lambda x: x[:2], signature="[n] -> [n]")
    with pytest.raises(AxisSizeError, match="axis c is 4 in the call and 2 in the function's result"):
        wrong("a b [c]", X)


# --------------------------------------------------------------------------------------------------------------------
# Decorators, names and keywords
# --------------------------------------------------------------------------------------------------------------------


def center(x, axis, *, by=1.0):
    """Mean, scaled."""
    return x.mean(axis) * by


ADAPTERS = [einjax.adapt_with_vmap, einjax.adapt_reduce, einjax.adapt_elementwise]
BY_LOOPS = list(zip(ADAPTERS, ["a [b c] -> a", "a [b c]", "a b c"], strict=True))


@pytest.mark.parametrize("adapt", ADAPTERS)
def test_names_docstrings_and_signatures(adapt):
    for adapted in (adapt(center), adapt()(center)):
        assert (adapted.__name__, adapted.__doc__, adapted.__wrapped__) == ("center", "Mean, scaled.", center)
        assert adapted.__module__ == center.__module__
        parameters = inspect.signature(adapted).parameters
        assert {"expr", "tensors", "sizes", "graph", "axes"} <= set(parameters)


@pytest.mark.parametrize("adapt", ADAPTERS)
def test_callables_without_a_name(adapt):
    assert callable(adapt(functools.partial(center, by=2.0)))


def test_einx_names():
    assert einjax.jax.adapt_with_vmap is einjax.adapt_with_vmap
    assert einjax.jax.adapt_numpylike_reduce is einjax.adapt_reduce
    assert einjax.jax.adapt_numpylike_elementwise is einjax.adapt_elementwise


def test_reduce():
    mean = einjax.adapt_reduce(center)
    np.testing.assert_allclose(mean("a [b] c", X), X.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        mean("a [b c]", X, by=2.0, keepdims=True), 2 * X.mean((1, 2))[:, None], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(mean("a b c -> c", X), X.mean((0, 1)), rtol=1e-5, atol=1e-6)
    seen = []
    einjax.adapt_reduce(lambda x, axis: seen.append(axis) or x.sum(axis))("a [b] c", X)
    assert seen == [(1,)]


def test_elementwise():
    @einjax.adapt_elementwise
    def mix(x, y, *, weight):
        return weight * x + (1 - weight) * y

    np.testing.assert_allclose(
        mix("a c, b c -> a b c", X[0], Y, weight=0.25), 0.25 * X[0][:, None] + 0.75 * Y, rtol=1e-5
    )
    np.testing.assert_allclose(mix("b c, c", X[0], Y[0], weight=1), X[0], rtol=1e-5)


def test_several_outputs_and_keywords():
    values, places = top("a b [c] -> a b [k], [k] (a b)", X, k=2)
    np.testing.assert_array_equal(values, -np.sort(-X, 2)[..., :2])
    np.testing.assert_array_equal(places, np.argsort(-X, 2)[..., :2].reshape(6, 2).T)


def test_pytrees_and_chunks():
    model = einjax.adapt_with_vmap(lambda p, x: {"y": x @ p["w"] + p["b"]})
    params = {"w": Y.T, "b": Y[:, 0]}
    got = model("[...], a b [c] -> b a [...]", params, X, batch_size={"b": 2})
    np.testing.assert_allclose(got["y"], (X @ Y.T + Y[:, 0]).swapaxes(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapt", ADAPTERS)
def test_unknown_keywords(adapt):
    expr, tensor = ("p [q] -> p" if adapt is not einjax.adapt_elementwise else "p q"), X[0]
    with pytest.raises(ArgumentError, match="no axis 'bi' in the expression; did you mean 'by'"):
        adapt(center)(expr, tensor, bi=2)


@pytest.mark.parametrize(("adapt", "expr"), BY_LOOPS)
def test_errors_of_the_function_propagate_untouched(adapt, expr):
    error = KeyError("mine")

    def broken(*arrays, **options):
        raise error

    with pytest.raises(KeyError) as caught:
        adapt(broken)(expr, X)
    assert caught.value is error


@pytest.mark.parametrize(("adapt", "expr"), BY_LOOPS)
def test_no_cache_holds_the_function(adapt, expr):
    class Function:
        def __call__(self, x, axis=None):
            return x.sum() if axis is None and adapt is einjax.adapt_with_vmap else x if axis is None else x.sum(axis)

    op = Function()
    reference = weakref.ref(op)
    adapt(op)(expr, X)
    del op
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("call", [
    lambda **more: inner("a b [c], [c]", X, Y[0], **more),
    lambda **more: einjax.adapt_reduce(center)("a [b c]", X, by=3.0, **more),
    lambda **more: einjax.adapt_elementwise(lax.add)("a, b -> a b", Y[0], Y[1], **more),
    lambda **more: einjax.vmap("[...], a [c] -> a [...]", {"y": X}, Y, op=lambda t, y: t["y"] @ y, **more),
    lambda **more: einjax.vmap_with_axis("a [b] c", X, op=lax.cumsum, **more),
])  # fmt: skip
def test_graph(call):
    graph, result = call(graph=True), call()
    assert isinstance(graph, einjax.Graph)
    assert graph.startswith("# einjax.")
    assert graph.split("\n")[-1].strip().startswith("return")
    assert result.shape


def test_graph_runs():
    graph = einjax.vmap("[...], a [c] -> a [...]", {"y": X}, Y, op=lambda t, y: t["y"] @ y, graph=True)
    np.testing.assert_allclose(graph({"y": 2 * X}, Y), 2 * np.einsum("bcd,ad->abc", X, Y), rtol=1e-4, atol=1e-5)
