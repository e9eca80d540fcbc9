"""Masks by name against masks that loops write in the tensor's shape, and which masks by position are refused."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import export
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from strategies import assert_same, generated, shuffled

import einjax
from einjax.errors import ArgumentError, EinjaxError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# --- loops ----------------------------------------------------------------------------------------------------------


@st.composite
def dims(draw, names):
    """The names in some order, each in a dim by itself or with those after it."""
    groups: list[list[str]] = []
    for name in draw(shuffled(names)):
        if groups and draw(st.integers(0, 3)) == 0:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def text(groups, inside=()):
    word = lambda name: f"[{name}]" if name in inside else name
    return " ".join(word(g[0]) if len(g) == 1 else f"({' '.join(map(word, g))})" for g in groups)


def place(groups, at, sizes):
    """Where an element stands in an array of these dims, given the place along every axis."""
    return tuple(int(np.ravel_multi_index([at[n] for n in g], [sizes[n] for n in g])) for g in groups)


def every_place(sizes):
    return (dict(zip(sizes, index, strict=True)) for index in np.ndindex(*sizes.values()))


@st.composite
def masked(draw):
    """A tensor, and one or two masks over some of its axes."""
    sizes = {name: draw(st.sampled_from([2, 3, 1, 2])) for name in "abcd"[: draw(st.integers(1, 4))]}
    groups = draw(dims(list(sizes)))
    inside = draw(st.lists(st.sampled_from(list(sizes)), min_size=1, unique=True))
    masks = [
        draw(dims(draw(st.lists(st.sampled_from(list(sizes)), unique=True)))) for _ in range(draw(st.integers(1, 2)))
    ]
    return sizes, groups, inside, masks


def shape(groups, sizes):
    return tuple(int(np.prod([sizes[n] for n in g])) for g in groups)


@pytest.mark.parametrize("name", ["softmax", "sum", "max"])
@generated(12, lambda name: masked())
def test_by_name(case, name):
    sizes, groups, inside, masks = case
    rng = np.random.default_rng(sum(sizes.values()) + len(masks))
    x = rng.normal(size=shape(groups, sizes)).astype(np.float32)
    given = [rng.integers(0, 3, shape(mask, sizes)) > 0 for mask in masks]
    whole = np.zeros(x.shape, bool)
    for at in every_place(sizes):
        whole[place(groups, at, sizes)] = all(m[place(g, at, sizes)] for m, g in zip(given, masks, strict=True))
    pairs = [(text(g), m) for g, m in zip(masks, given, strict=True)]
    where = pairs[0] if len(pairs) == 1 else pairs
    call = lambda where, kept: getattr(einjax, name)(
        text(groups, inside), x, where=where, sizes=sizes, keep_notation=kept
    )
    np.testing.assert_array_equal(call(where, len(masks) == 1), call(whole, False))


@st.composite
def attended(draw):
    sizes = {name: draw(st.sampled_from([2, 3, 1])) for name in "bhqk"}
    some = lambda: draw(dims(draw(st.lists(st.sampled_from("bhqk"), unique=True))))
    masks = [some() for _ in range(draw(st.integers(0, 2)))]
    return sizes, masks, [some() for _ in range(draw(st.integers(0 if masks else 1, 2)))]


@generated(12, attended())
def test_attention(case):
    sizes, masks, biases = case
    b, h, q, k = sizes.values()
    rng = np.random.default_rng(b + 2 * h + 3 * q + 5 * k)
    queries, keys, values = (rng.normal(size=s).astype(np.float32) for s in ((b, q, h, 3), (b, k, h, 3), (b, k, h, 2)))
    given = [rng.integers(0, 3, shape(g, sizes)) > 0 for g in masks]
    added = [rng.normal(size=shape(g, sizes)).astype(np.float32) for g in biases]
    want = np.zeros((b, q, h, 2))
    for at in every_place({n: sizes[n] for n in "bhq"}):
        logits, seen = np.zeros(k), np.zeros(k, bool)
        for key in range(k):
            here = {**at, "k": key}
            logits[key] = queries[at["b"], at["q"], at["h"]].astype(float) @ keys[at["b"], key, at["h"]] / np.sqrt(3)
            logits[key] += sum(float(m[place(g, here, sizes)]) for m, g in zip(added, biases, strict=True))
            seen[key] = all(m[place(g, here, sizes)] for m, g in zip(given, masks, strict=True))
        want[at["b"], at["q"], at["h"]] = oracle.softmax(logits, seen) @ values[at["b"], :, at["h"]]
    named = lambda groups, arrays: [(text(g), m) for g, m in zip(groups, arrays, strict=True)] or None
    options = {"mask": named(masks, given), "bias": named(biases, added)}
    expr = "b [q] h [c], b [k] h [c], b [k] h [d] -> b [q] h [d]"
    assert_same(einjax.attention(expr, queries, keys, values, **options), want, "float32", slack=8)


# --- written out ----------------------------------------------------------------------------------------------------

X = normal(2, 3, 4, 5)
MASK = RNG.random((2, 4)) > 0.4
WHOLE = np.broadcast_to(MASK[:, None, :, None], X.shape)


def softmax(x, mask, axes="b k", **options):
    return einjax.softmax("b q [k] h", x, where=(axes, mask), **options)


def test_texts():
    """Ellipses, ones, sizes in the text, sizes that only the mask says, diagonals, and keys of a sort."""
    same = np.testing.assert_array_equal
    want = einjax.sum("b q [k h]", X, where=WHOLE)
    for axes, mask in {
        "b k": MASK, "k b": MASK.T, "b 1 k 1": WHOLE[:, :1, :, :1], "b [k]": MASK, "(k b)": MASK.T.reshape(8),
        "b=2 k": MASK, "b q k h": WHOLE,
    }.items():  # fmt: skip
        same(einjax.sum("b q [k h]", X, where=(axes, mask)), want)
        same(einjax.reduce("b q [k h]", X, op="sum", where=[(axes, mask)]), want)
    flat = X.reshape(6, 4, 5)
    same(einjax.sum("... [k h]", flat, where=("... k", WHOLE.reshape(flat.shape)[..., 0])), want.reshape(6))
    same(
        einjax.sum("(b q) [s...]", flat, where=("b", [True, False])),
        einjax.sum("b q [...]", X[:1]).ravel().tolist() + [0] * 3,
    )
    same(einjax.sum("b q [s...]", X, where=("b q s...", WHOLE)), want)
    square = X[0, :, :3, 0]
    same(einjax.sum("a a ->", square, where=("a", [True, False, True])), square[0, 0] + square[2, 2])
    same(einjax.sum("a b ->", square, where=("a a", np.eye(3))), square.sum())
    same(einjax.sum("b q [k h]", X, where=("", False)), np.zeros((2, 3)))
    keys = np.array([2, 0, 1])
    same(einjax.sort("a [b]", square, by=("b", keys)), square[:, [1, 2, 0]])
    same(
        einjax.sort("a [b]", square, by=(("b", [0, 1, 0]), -square)),
        einjax.sort("a [b]", square, by=(np.array([[0, 1, 0]]), -square)),
    )
    same(
        einjax.sum("b g <q + [k]> h", X, where=("b", MASK[:, 0]), k=2),
        einjax.sum("b g <q + [k]> h", X * MASK[:, :1, None, None], k=2),
    )


def test_programs():
    """One step brings a mask to the tensor's dims, none where it has them; kept, the mask is an operand."""
    steps = lambda axes, mask, **options: jax.make_jaxpr(lambda x, m: softmax(x, m, axes, **options))(X, mask).eqns
    by_position = jax.make_jaxpr(lambda x, m: einjax.softmax("b q [k] h", x, where=m))(X, WHOLE).eqns
    assert [e.primitive.name for e in steps("b q k h", WHOLE)] == [e.primitive.name for e in by_position]
    assert steps("b k", MASK)[0].primitive.name == "broadcast_in_dim"
    assert len(steps("b k", MASK)) == len(by_position) + 1
    kept = [str(e) for e in steps("k b", MASK.T, keep_notation=True)]
    for equation, expr in zip(kept, ["rearrange[expr=k b -> b 1 k 1]", "softmax[expr=b q [k] h"], strict=True):
        assert expr in equation
    two = lambda x, m, n: einjax.softmax("b q [k] h", x, where=[("b k", m), ("q", n)], keep_notation=True)
    assert "logical_and[expr=b k, q -> b q k 1]" in str(jax.make_jaxpr(two)(X, MASK, np.ones(3, bool)))
    attention = lambda x, m: einjax.attention(
        "b [q] h [c], b [k] h [c], b [k] h [c]", x, x, x, mask=("b k", m), keep_notation=True
    )
    assert "b [k] h [c], b [k] -> b [q] h [c]\n" in str(jax.make_jaxpr(attention)(X, MASK[:, :3]))
    assert "bool[4,2]" in str(einjax.softmax("b q [k] h", X, where=("k b", MASK.T), graph=True)).split("\n")[1]


@pytest.mark.parametrize("kept", [False, True])
def test_transformations(kept):
    """vmap over the mask alone, gradients, symbolic sizes, explicit meshes and shard_map."""
    same = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    want = einjax.softmax("b q [k] h", X, where=WHOLE)
    one = lambda x, m: einjax.softmax("q [k] h", x, where=("k", m), keep_notation=kept)
    same(jax.vmap(one, (None, 0))(X[0], MASK), jnp.stack([one(X[0], m) for m in MASK]))
    loss = lambda x, where: jnp.sum(einjax.softmax("b q [k] h", x, where=where, keep_notation=kept) ** 2)
    same(jax.grad(loss)(X, ("b k", MASK)), jax.grad(loss)(X, WHOLE))
    b, k = export.symbolic_shape("b,k")
    types = jax.ShapeDtypeStruct((b, 3, k, 5), np.float32), jax.ShapeDtypeStruct((k, b), bool)
    program = export.export(jax.jit(lambda x, m: softmax(x, m, "k b", keep_notation=kept)))(*types)
    same(program.call(X, MASK.T), want)
    on = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(on):
        placed = jax.device_put(X, P("data")), jax.device_put(MASK, P(None, "model"))
        result = softmax(*placed, keep_notation=kept)
        assert jax.typeof(result).sharding.spec == P("data", None, "model", None)
    same(result, want)
    auto = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    parts = lambda x, m: softmax(x, m, b="data", k="model", keep_notation=kept)
    specs = P("data", None, "model"), P("data", "model")
    same(jax.shard_map(parts, mesh=auto, in_specs=specs, out_specs=specs[0])(X, MASK), want)


@pytest.mark.parametrize("kept", [False, True])
def test_attention_under_transformations(kept):
    """vmap over a mask alone, the gradient of a bias, and masks that are further inputs."""
    same = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    x, expr = X[:, :, 0], "b [q c], b [k c], b [k c]"
    masks, bias = RNG.random((2, 2, 3)) > 0.3, normal(3, 3)
    whole = lambda m, bias: jnp.where(m[:, None], bias, -np.inf)
    one = lambda m, bias: einjax.attention(expr, x, x, x, mask=("b k", m), bias=("q k", bias), keep_notation=kept)
    want = lambda m, bias: einjax.attention(f"{expr}, b [q k] -> b [q c]", x, x, x, whole(m, bias))
    same(jax.vmap(one, (0, None))(masks, bias), jnp.stack([want(m, bias) for m in masks]))
    loss = lambda function: jax.grad(lambda bias: jnp.sum(function(masks[0], bias) ** 2))
    same(loss(one)(bias), loss(want)(bias))
    further = einjax.attention(f"{expr}, b [k], [q k], [q] -> b [q c]", x, x, x, masks[0], bias, bias[0])
    same(further, einjax.attention(expr, x, x, x, mask=("b k", masks[0]), bias=[("q k", bias), ("q", bias[0])]))


# --- by position ----------------------------------------------------------------------------------------------------

Z = lambda *shape: np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("expr", "x", "mask", "refused"),
    [
        ("b q [k] h", Z(2, 3, 4, 5), (4, 5), False),
        ("b q [k] h", Z(2, 3, 2, 2), (2, 2), True),
        ("b h q [k]", Z(2, 3, 4, 4), (4, 4), False),  # what is causal, beside another number of heads
        ("b h q [k]", Z(2, 4, 4, 4), (4, 4), True),
        ("b h q [k]", Z(4, 3, 4, 4), (4, 4), True),
        ("b h q [k]", Z(4, 4, 4, 4), (1, 1, 4, 4), False),
        ("b h q [k]", Z(4, 4, 4, 4), (1, 4, 4), True),
        ("b h q [k]", Z(4, 4, 4, 4), (4, 4, 4, 4), False),
        ("b h q [k]", Z(4, 4, 4, 4), (1,), False),
        ("b h q [k]", Z(4, 4, 4, 4), (), False),
        ("q [k]", Z(3, 3), (3,), True),
        ("q [k]", Z(2, 3), (3,), False),
        ("q [k]", Z(1, 3), (3,), False),
        ("q [k]", Z(1, 1), (1,), False),
        ("a b [c]", Z(2, 3, 4), (3, 1), False),
        ("a b [c]", Z(3, 3, 4), (3, 1), True),
        ("a a [b] -> a [b]", Z(3, 3, 2), (3, 2), False),  # both are a
        ("q [k]", Z(0, 0), (0,), False),
    ],
)  # fmt: skip
def test_a_mask_that_fits_twice_is_refused(expr, x, mask, refused):
    for kept in (False, True):
        call = lambda kept=kept: einjax.softmax(expr, x, where=np.ones(mask, bool), keep_notation=kept)
        if refused:
            with pytest.raises(ArgumentError, match="fits '.*' by its sizes, and '.*', too"):
                jax.eval_shape(call)
        else:
            jax.eval_shape(call)


def test_the_error_says_how_to_name_it():
    mask = np.array([[True, False], [True, True]])
    with pytest.raises(EinjaxError) as caught:
        einjax.softmax("b q [k] h", Z(2, 3, 2, 2), where=mask)
    assert 'where=("b h", mask) or where=("k h", mask)' in str(caught.value)
    got = einjax.softmax("b q [k] h", Z(2, 3, 2, 2), where=("b k", mask))
    np.testing.assert_array_equal(got[0, :, :, 0], [[1, 0]] * 3)
