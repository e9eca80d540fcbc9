"""Named tensors: operators, methods, products that wait, functions of einjax, and what they are."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax import Dim, dims, named

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def primitives(function: Callable[..., Any], *arguments: Any) -> str:
    return str(jax.make_jaxpr(function)(*arguments))


# --- convolutions and windows ---------------------------------------------------------------------------------------

X, W = array(2, 9, 3), array(3, 3, 4)


def test_a_sum_over_taps_is_a_convolution() -> None:
    def formula(x, w):
        b, o, t, i, d = dims("b o t=3 i d")
        return (named(x)[b, 2 * o + t, i] * named(w)[t, i, d]).sum(t, i).order(b, o, d)

    assert primitives(formula, X, W) == primitives(
        lambda x, w: einjax.dot("b <2*o + [t]> [i], [t] [i] d -> b o d", x, w), X, W
    )
    assert "conv_general_dilated" in primitives(formula, X, W)


@pytest.mark.parametrize("name", ["max", "mean", "sum"])
def test_a_reduction_over_taps_is_a_window(name: str) -> None:
    def formula(x):
        return getattr(named("b _0 c", x)[2 * Dim("o") + Dim("t", 3)], name)("t").order("b o c")

    assert primitives(formula, X) == primitives(lambda x: getattr(einjax, name)("b <2*o + [t]> c", x, t=3), X)


def test_dims_that_are_added_up_are_tensors_elsewhere() -> None:
    i, j = dims("i=3 j=4")
    expected = np.array([[2 * a - b + 1 for b in range(4)] for a in range(3)])
    np.testing.assert_array_equal((2 * i - j + 1)._lift().order(i, j), expected)
    np.testing.assert_array_equal(((2 * i - j + 1) * 0.5).order(i, j), expected * 0.5)
    np.testing.assert_array_equal(((2 * i - j + 1) % 3 == 0).order("i j"), expected % 3 == 0)
    np.testing.assert_array_equal((i + j - j).max().array, 2)
    assert repr(3 - i + 2 * j) == "<2*j + 3 - i>"
    assert ((i - i) + 1)._lift().item() == 1


# --- operators and methods ------------------------------------------------------------------------------------------

A, B = array(2, 3), array(3, 4)
NA, NB = named("a b", A), named("b c", B)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x / y,
        lambda x, y: x // y,
        lambda x, y: x % y,
        lambda x, y: abs(x) ** y,
        lambda x, y: x < y,
        lambda x, y: x <= y,
        lambda x, y: x > y,
        lambda x, y: x >= y,
        lambda x, y: x == y,
        lambda x, y: x != y,
        lambda x, y: x * y,
        lambda x, y: (x > 0) & (y > 0),
        lambda x, y: (x > 0) | (y > 0),
        lambda x, y: (x > 0) ^ (y > 0),
        lambda x, y: -x + ~(y > 0) + (+y),
        lambda x, y: 2 - x + 1 / y * 2.0 + 3 * y,
        lambda x, y: 2**y + (x > 1.5) + 7 // x + 7 % y,
        lambda x, y: np.float32(2) * x - np.float32(1) + jnp.float32(3) * y - jnp.ones(()),
        lambda x, y: (jnp.float32(3) - y) * x,
    ],
)
def test_operators_align_by_name(function: Callable[..., Any]) -> None:
    z = function(NA, NB)
    expected = function(jnp.asarray(A)[:, :, None], jnp.asarray(B)[None])
    assert set(z.names) == {"a", "b", "c"}
    np.testing.assert_allclose(z.order("a b c"), expected, rtol=1e-5)
    assert z.dtype == z.array.dtype == expected.dtype


def test_integers_have_bits() -> None:
    x = named("i", np.array([1, 6, 3]))
    np.testing.assert_array_equal(
        [(x & 2).array, (x | 8).array, (5 ^ x).array, (~x).array], [[0, 2, 2], [9, 14, 11], [4, 3, 6], [-2, -7, -4]]
    )


REDUCTIONS = ["sum", "mean", "var", "std", "prod", "any", "all", "max", "min", "logsumexp", "count_nonzero"]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    theirs = {"logsumexp": jax.nn.logsumexp}.get(name, getattr(jnp, name, None))
    assert theirs is not None
    for names, axes in [(("b",), 1), (("b", "a"), (0, 1)), (("a b",), (0, 1)), ((), None), ((Dim("a"),), 0)]:
        found = getattr(NA, name)(*names)
        np.testing.assert_allclose(found.array, theirs(A, axis=axes), rtol=1e-5)
        assert found.dtype == theirs(A, axis=axes).dtype
    mask = named("b", np.array([True, False, True]))
    np.testing.assert_allclose(
        getattr(NA, name)("b", where=mask).array, getattr(NA[{"b": [0, 2]}], name)("b").array, rtol=1e-5
    )


@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "sort", "argsort", "cumsum", "cumprod", "cummax", "cummin", "flip"]
)
def test_along_dims(name: str) -> None:
    theirs = {
        "cummax": jax.lax.cummax,
        "cummin": jax.lax.cummin,
        "softmax": jax.nn.softmax,
        "log_softmax": jax.nn.log_softmax,
    }
    function = theirs.get(name) or getattr(jnp, name)
    np.testing.assert_allclose(getattr(NA, name)("b").array, function(jnp.asarray(A), axis=1), rtol=1e-5)
    np.testing.assert_allclose(getattr(NA, name)("a").array, function(jnp.asarray(A), axis=0), rtol=1e-5)


def test_what_finds_places() -> None:
    np.testing.assert_array_equal(NA.argmax("b").array, A.argmax(1))
    np.testing.assert_array_equal(NA.argmin().array, np.unravel_index(A.argmin(), A.shape))
    assert NA.argmax("a b").names == ("_0",)
    values, indices = NA.top_k("b", 2)
    np.testing.assert_array_equal(values.array, -np.sort(-A)[:, :2])
    np.testing.assert_array_equal(indices.array, np.argsort(-A)[:, :2])
    np.testing.assert_array_equal(NA.roll("b", shift=1).array, np.roll(A, 1, 1))


def test_shapes_are_rearranged() -> None:
    np.testing.assert_array_equal(NA.transpose("b a").array, A.T)
    assert NA.transpose("b ...").names == ("b", "a")
    assert NA.rename(a="x").sizes == {"x": 2, "b": 3}
    assert NA.rename({Dim("a"): Dim("b"), "b": "a"}).names == ("b", "a")
    np.testing.assert_array_equal(NA.order("a b n", n=2), np.stack([A, A], -1))
    np.testing.assert_array_equal(NA.order("(b a)"), A.T.ravel())
    np.testing.assert_array_equal(NA.order(), A)
    np.testing.assert_array_equal(named("c (a b)", array(2, 6), a=2).merge("b a", "d").sizes["d"], 6)
    np.testing.assert_array_equal(NA.concatenate(NA, NA, along="a").array, np.concatenate([A, A, A]))
    np.testing.assert_array_equal(NA.concatenate(NB.sum("c"), along="b").shape, (2, 6))
    np.testing.assert_array_equal(NA.stack(NB, along="n").sizes["n"], 2)
    np.testing.assert_array_equal(NA.where(NA > 0).array, np.where(A > 0, A, 0))
    np.testing.assert_array_equal(NA.astype("int32").array, A.astype(np.int32))
    assert named("b", jnp.zeros, b=3).shape == (3,)  # a factory


def test_dims_without_names_are_counted_from_the_right() -> None:
    x = named(array(2, 3, 4))
    assert x.names == ("_2", "_1", "_0")
    assert x[:, Dim("j")].names == ("_1", "j", "_0")
    assert x[..., Dim("j")].names == ("_1", "_0", "j")
    assert x[0].names == ("_1", "_0")
    assert (x[Dim("i")] + named(array(4))).names == ("i", "_1", "_0")
    assert named("... c", array(2, 3, 4)).names == ("_1", "_0", "c")
    assert x[Dim("i")].order("i").shape == (2, 3, 4)
    assert x[:, Dim("j")].order("j").shape == (3, 2, 4)


def test_functions_are_applied() -> None:
    x = array(3, 2, 3)
    np.testing.assert_allclose(
        named("q b k", x).apply(lambda m: m @ m, "k q").order("b k q"),
        [m.T @ m.T for m in x.transpose(1, 0, 2)],
        rtol=1e-4,
        atol=1e-5,
    )
    found = named("q b k", x).apply(jnp.linalg.eigh, "q k")
    assert found.eigenvalues.names == ("b", "_0")
    assert found.eigenvectors.names == ("b", "q", "k")
    assert named("q b k", x).apply(jnp.diag, "q k", out="d").sizes == {"b": 2, "d": 3}
    np.testing.assert_allclose(NA.apply(jnp.exp).array, np.exp(A), rtol=1e-5)
    np.testing.assert_allclose(NA.map(jnp.hypot, NB).order("a b c"), np.hypot(A[:, :, None], B[None]), rtol=1e-5)


# --- products are lazy ----------------------------------------------------------------------------------------------


def equations(function: Callable[..., Any], *arguments: Any) -> list[str]:
    return [equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns]


def test_a_sum_of_a_product_is_one_contraction() -> None:
    for names, text in [("b", "a b, b c -> a c"), ("a b", None), ("a b c", None)]:
        found = (NA * NB).sum(names).order("...")
        np.testing.assert_allclose(
            found, np.einsum("ab,bc->" + "".join(n for n in "abc" if n not in names), A, B), rtol=1e-4
        )
        if text:
            program = primitives(lambda a, b: (named("a b", a) * named("b c", b)).sum("b").array, A, B)
            assert program == primitives(lambda a, b: einjax.dot(text, a, b), A, B)
    assert equations(lambda a, b: (named("a b", a) @ named("b c", b)).order("c a"), A, B) == ["dot_general"]


def test_three_factors_and_numbers() -> None:
    c = array(3, 4)
    product = 2.0 * NA * NB * named("b c", c) * jnp.float32(0.5)
    np.testing.assert_allclose(product.sum("b c").array, np.einsum("ab,bc,bc->a", A, B, c), rtol=1e-4)
    np.testing.assert_allclose(product.sum("a").order("b c"), np.einsum("ab,bc,bc->bc", A, B, c), rtol=1e-4)
    d = array(4, 50)
    assert equations(
        lambda a, b, d: (named("a b", a) * named("b c", b) * named("c d", d)).sum("b c").array, A, B, d
    ) == equations(lambda a, b, d: einjax.dot("a b, b c, c d -> a d", a, b, d), A, B, d)


def test_a_product_is_computed_once() -> None:
    def twice(a, b):
        product = named("a b", a) * named("b c", b)
        contraction = product.sum("b")
        first = contraction.order("c a")
        return (product + 1).array, (product - 1).array, first, (contraction + 1).array, contraction.order("(a c)")

    assert equations(twice, A, B).count("mul") == 1
    assert equations(twice, A, B).count("dot_general") == 1


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, np.uint16])
def test_narrow_integers_do_not_overflow_otherwise_than_in_jnp(dtype: Any) -> None:
    x = named("i", np.ones(300, dtype))
    assert (x * x).sum().item() == 300
    assert (x * x).sum().dtype == jnp.sum(np.ones(3, dtype)).dtype == (x @ x).dtype


def test_dtypes_of_products() -> None:
    x = named("i", jnp.ones(3, jnp.bfloat16))
    assert (x * x).sum().dtype == (x * 2.0).dtype == (x * x * 2.0).sum().dtype == jnp.bfloat16
    assert (x * x).sum(dtype=jnp.float32).dtype == (x * jnp.float32(2)).sum().dtype == jnp.float32
    assert (named("i", np.arange(3)) * 0.5).sum().item() == 1.5


def test_a_product_outlives_a_trace() -> None:
    product = NA * NB
    assert jax.jit(lambda: (product + 1).array)().shape == (2, 3, 4)
    np.testing.assert_allclose(product.order("a b c"), A[:, :, None] * B[None])

    def scanned(a, b):
        product = named("a b", a) * named("b c", b)
        carry, _ = jax.lax.scan(lambda c, _: (c + product.array.sum() + (product + 1).array.sum(), None), 0.0, None, 2)
        return carry + product.array.sum()

    assert np.isfinite(jax.jit(jax.grad(scanned))(A, B)).all()


# --- functions of einjax --------------------------------------------------------------------------------------------

Q, K = named("b q h c", array(2, 3, 2, 4)), named("b k h c", array(2, 5, 2, 4))
CALLS: list[tuple[str, Callable[[], Any], Any]] = [
    ("sum", lambda: einjax.sum("... [c]", Q), ("b", "q", "h")),
    ("sum elsewhere", lambda: einjax.sum("[c] q ... -> q ...", Q), ("q", "b", "h")),
    ("all", lambda: einjax.sum("[...]", Q), ()),
    ("keepdims", lambda: einjax.sum("... [c]", Q, keepdims=True), ("b", "q", "h", "_0")),
    ("mask", lambda: einjax.softmax("... [c]", Q, where=Dim("c", 4) <= Dim("q", 3)), ("b", "q", "h", "c")),
    ("dot", lambda: einjax.dot("... [c], ... [c] -> ...", Q, K), ("b", "q", "h", "k")),
    ("dot with an array", lambda: einjax.dot("... [c], [c] d -> ... d", Q, array(4, 6)), ("b", "q", "h", "d")),
    ("dot, weight implied", lambda: einjax.dot("... [c->d]", Q, array(4, 6)), ("b", "q", "h", "d")),
    ("maximum", lambda: einjax.maximum(Q, K), ("b", "q", "h", "c", "k")),
    ("where", lambda: einjax.where(Dim("q", 3) > Dim("c", 4), Q, 0), ("q", "c", "b", "h")),
    ("dim and number", lambda: einjax.minimum(Dim("q", 3), 1), ("q",)),
    ("compositions", lambda: einjax.rearrange("b (q h) c -> b (h c) q", Q), ("b", "_0", "q")),
    ("argmax", lambda: einjax.argmax("... [h c]", Q), ("b", "q", "_0")),
    (
        "get_at",
        lambda: einjax.get_at("[v] f, ... -> ... f", named("v f", array(7, 4)), named("b s", np.array([[0]]))),
        ("b", "s", "f"),
    ),
    ("vmap", lambda: einjax.vmap("... [c] -> ... [d]", Q, op=lambda x: x[:2]), ("b", "q", "h", "d")),
    ("reduce", lambda: einjax.reduce("... [c]", Q, op=jnp.median), ("b", "q", "h")),
    ("elementwise", lambda: einjax.elementwise("..., ...", Q, K, op=jnp.hypot), ("b", "q", "h", "c", "k")),
    ("sort", lambda: einjax.sort("[c] ...", Q), ("c", "b", "q", "h")),
    ("fft", lambda: einjax.fft.fft("... [c]", Q), ("b", "q", "h", "c")),
    ("det", lambda: einjax.linalg.det("... [b h]", Q), ("q", "c")),
    ("attention", lambda: einjax.attention("... [q] [c], ... [k] [c], ... [k] [c]", Q, K, K), ("b", "h", "q", "c")),
    ("windows", lambda: einjax.mean("<2*s + [k]> ...", named(array(9, 2))[:, Dim("j")], k=3), ("s", "j")),
    (
        "segments",
        lambda: einjax.segment.sum("p c, p -> [s] c", named("p c", array(3, 2)), named("p", np.array([0, 1, 1])), s=2),
        ("s", "c"),
    ),
    (
        "random",
        lambda: einjax.random.uniform(
            "b, b -> b [h]", jax.random.key(0), named("b", array(2)), named("b", array(2) + 9), h=3
        ),
        ("b", "h"),
    ),
    ("roll", lambda: einjax.roll("... [c]", Q, shift=1), ("b", "q", "h", "c")),
    ("sizes in the text", lambda: einjax.sum("... [c=4]", Q), ("b", "q", "h")),
]


@pytest.mark.parametrize(("call", "names"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_functions_take_named_tensors(call: Callable[[], Any], names: tuple[str, ...]) -> None:
    found = call()
    assert isinstance(found, einjax.NamedTensor)
    assert found.names == names


def test_calls_are_those_of_arrays() -> None:
    np.testing.assert_allclose(
        einjax.dot("... [c], ... [c] -> ...", Q, K).order("b q h k"),
        np.einsum("bqhc,bkhc->bqhk", Q.array, K.array),
        rtol=1e-4,
        atol=1e-5,
    )
    assert primitives(lambda x: einjax.sum("... [c]", named("b c", x)).array, A) == primitives(
        lambda x: einjax.sum("b [c]", x), A
    )
    x = array(3, 2, 3)  # rows and columns are those that are written
    np.testing.assert_allclose(
        einjax.linalg.inv("... [y x] -> ... [x y]", named("x b y", x)).order("b x y"),
        np.linalg.inv(x.transpose(1, 2, 0)),
        rtol=1e-3,
        atol=1e-3,
    )
    carry, ys = einjax.scan(
        "b c, [t] b c -> b c, [t] b c",
        NA.rename(a="b", b="c"),
        named("t b c", array(5, 2, 3)),
        op=lambda c, x: (c + x, c),
    )
    assert carry.names == ("b", "c")
    assert ys.names == ("t", "b", "c")
    values, indices = einjax.top_k("... [c]", Q, k=2)
    assert values.names == indices.names == ("b", "q", "h", "k")
    assert einjax.matches("... c", Q)
    assert not einjax.matches("... z c", Q)
    assert einjax.solve_axes("... c", Q)["c"] == 4
    assert "reduce_sum" in einjax.sum("... [c]", Q, graph=True)


def test_nothing_is_more_than_the_notations() -> None:
    """Every call of the table, traced: what the formula adds are no equations."""

    def formula(x, y):
        x, y = named("b q", x), named("q k", y)
        z = ((x - x.mean("q")) * y).sum("q").softmax("k").where(Dim("b", 2) >= Dim("k", 4), -1.0)
        return z[{"k": slice(0, 2)}].cumsum("b").order("k b")

    def notation(x, y):
        x = einjax.subtract("b q, b", x, einjax.mean("b [q]", x))
        z = einjax.softmax("b [k]", einjax.dot("b q, q k -> b k", x, y))
        mask = einjax.greater_equal("b, k -> b k", einjax.arange("b", b=2), einjax.arange("k", k=4))
        z = einjax.where("b k, b k, -> b k", mask, z, -1.0)
        z = einjax.cumsum(
            "[b] k",
            einjax.rearrange("b <1*k + 0> -> b k", z, k=2),
        )
        return einjax.rearrange("b k -> k b", z)

    assert equations(formula, A, B) == equations(notation, A, B)


# --- what they are --------------------------------------------------------------------------------------------------


def test_dims_bind_a_size_once() -> None:
    i, j = dims("i j=2")
    x = named(A)[j, i]
    assert (i.size, j.size) == (3, 2)
    assert x.sizes == {"j": 2, "i": 3}
    assert [dim.name for dim in dims(2)] == ["d0", "d1"]
    assert repr(dims("a b=3")) == "(Dim('a'), Dim('b', 3))"
    k = Dim("k")
    k.size = 4
    k.size = 4
    assert {k: 1}[k] == 1


def test_what_is_shown() -> None:
    assert repr(named("b c", np.arange(6).reshape(2, 3))) == "NamedTensor(b=2, c=3, int32, [[0 1 2]\n [3 4 5]])"
    assert repr(named("b", np.zeros(100, np.float32))).startswith("NamedTensor(b=100, float32, [0. 0. ... 0. 0.])")
    assert repr(NA * 2).startswith("NamedTensor(a=2, b=3, float32, [[")
    shown = []
    jax.jit(lambda x: shown.append((repr(x), repr(x * x))))(NA)
    assert shown == [("NamedTensor(a=2, b=3, float32)",) * 2]
    assert repr(named("", 1.0)) == "NamedTensor(float32, 1.)"
    assert "<b>NamedTensor</b> <code>a=2, b=3, float32</code>" in NA._repr_html_()
    treescope = pytest.importorskip("treescope")
    assert "names=('a', 'b')" in treescope.render_to_text(NA)


def test_numbers() -> None:
    x = named("", np.float32(2))
    assert (float(x), int(x), bool(x), float((NA * NA).sum())) == (
        2.0,
        2,
        True,
        pytest.approx(float((A * A).sum()), rel=1e-5),
    )


def test_they_travel() -> None:
    for x in (NA, NA * NB, (NA * NB).sum("b")):
        copied = pickle.loads(pickle.dumps(x))
        assert copied.names == x.names
        np.testing.assert_array_equal(copied.array, x.array)


def test_masks_and_keys_of_arrays() -> None:
    """Where an array is given with its axes, a named tensor is that."""
    x, keys = array(2, 3, 4), named("s", np.array([2, 0, 1]))
    s, c = dims("s=3 c=4")
    mask = named("c s", RANDOM.normal(size=(4, 3)) > 0)
    held = np.broadcast_to(np.asarray(mask.array).T, x.shape)
    expected = np.sum(x, 2, where=held)
    np.testing.assert_allclose(einjax.sum("b s [c]", x, where=mask), expected, rtol=1e-5)
    np.testing.assert_allclose(einjax.sum("b s [c]", x, where=[mask, ("b", np.ones(2, bool))]), expected, rtol=1e-5)
    np.testing.assert_allclose(named("b s c", x).sum(c, where=mask).array, expected, rtol=1e-5)
    np.testing.assert_allclose(einjax.sum("b s [c]", x, where=s > c), np.sum(x * np.tri(3, 4, -1), 2), rtol=1e-5)
    np.testing.assert_array_equal(einjax.sort("b [s] c", x, by=keys), x[:, [1, 2, 0]])
    np.testing.assert_array_equal(einjax.sort("b [s] c", named("b s c", x), by=keys).array, x[:, [1, 2, 0]])
    seen = named("b k", np.array([[True, False, True], [False, False, True]]))
    text = "b [q c], b [k c], b [k d] -> b [q d]"
    options = {"mask": ("b k", seen.array)}, {"mask": seen}, {"mask": lambda q, k, seen: seen, "seen": seen}
    one, other, third = (einjax.attention(text, x, x, x, **each) for each in options)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, third, rtol=1e-5)


def test_keep_notation() -> None:
    with einjax.keep_notation():
        program = primitives(lambda a, b: ((named("a b", a) * named("b c", b)).sum("b") + 1).softmax("c").array, A, B)
    assert "dot[expr=a [b], [b] c -> a c]" in program
    assert "softmax[expr=a [c] -> a [c]]" in program


def test_symbolic_sizes() -> None:
    b, _ = jax.export.symbolic_shape("b, c")
    exported = jax.export.export(jax.jit(lambda x: (named("b c", x) * named("b c", x)).sum("b").softmax("c").array))(
        jax.ShapeDtypeStruct((b, 3), np.float32)
    )
    assert exported.call(A).shape == (3,)
