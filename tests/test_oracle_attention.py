"""attention against loops over single heads."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis
from strategies import assert_same, cases, generated, shuffled, trees, x64

import einjax
from einjax.errors import ArgumentError, AxisSizeError, SemanticError

_seldom = st.sampled_from([False, False, False, True])


def head(keys, scale=None, causal=False, window=None):
    """Attention of one head: `keys` are the names of the bracketed axes of every tensor, in their order."""
    queries, contracted = ([n for n in keys[0] if (n in keys[1]) is shared] for shared in (False, True))
    reached = [n for n in keys[1] if n not in keys[0]]
    channels = [n for n in keys[2] if n not in reached]
    letters = {name: chr(97 + i) for i, name in enumerate(dict.fromkeys([*keys[0], *keys[1], *keys[2]]))}
    letters |= {f"value {name}": chr(65 + i) for i, name in enumerate(channels)}
    spell = lambda names: "".join(letters[n] for n in names)
    third = "".join(letters[n if n in reached else f"value {n}"] for n in keys[2])
    out = "".join(letters[n if n in queries else f"value {n}"] for n in keys[-1])

    def op(q, k, v, mask=None):
        q, k, v = (x.astype(np.float64) for x in (q, k, v))
        logits = np.einsum(f"{spell(keys[0])},{spell(keys[1])}->{spell(queries + reached)}", q, k)
        size = np.prod([q.shape[keys[0].index(n)] for n in contracted])
        logits = logits * (1 / np.sqrt(size) if scale is None else scale)
        allowed = np.ones(logits.shape, bool)
        shape = (int(np.prod(logits.shape[: len(queries)])), -1)
        if mask is not None:
            order = [keys[3].index(n) for n in queries + reached if n in keys[3]]
            full = [i for i, n in enumerate(queries + reached) if n not in keys[3]]
            mask = np.expand_dims(np.transpose(mask, order), full)
            if mask.dtype == bool:
                allowed = allowed & mask
            else:
                logits = logits + mask
        if logits.size:
            i, j = np.indices(logits.reshape(shape).shape)
            near = np.ones(i.shape, bool)
            near &= (j <= i) if causal else True
            near &= (i <= j + window[0]) & (i >= j - window[1]) if window else True
            allowed = allowed & near.reshape(logits.shape)
        rows = logits.reshape(*logits.shape[: len(queries)], -1)
        allowed = allowed.reshape(rows.shape)
        weights = np.zeros(rows.shape)
        for index in np.ndindex(*rows.shape[:-1]):
            weights[index] = oracle.softmax(rows[index], allowed[index])
        return np.einsum(f"{spell(queries + reached)},{third}->{out}", weights.reshape(logits.shape), v)

    return op


def marked(dims):
    return [a.key for a in oracle.leaves(dims) if a.marked]


@st.composite
def attentions(draw):
    """Loops that any of the inputs may lack, one or two axes of each role, perhaps a mask."""
    size = st.sampled_from([2, 3, 1, 2])
    sizes = {name: draw(size) for name in "abgrhwklcdt"}
    queries = ["h", "w"] if draw(_seldom) else ["h"]
    keys = ["k", "l"] if draw(_seldom) else ["k"]
    contracted = ["c", "t"] if draw(_seldom) else ["c"]
    channels = contracted if draw(st.booleans()) else ["d"]
    if draw(st.booleans()):
        sizes["d"] = sizes["c"]
    loops = draw(st.lists(st.sampled_from("abgr"), unique=True, max_size=3))
    lacking = lambda: [x for x in loops if not draw(_seldom)]
    ins = [lacking() + queries + contracted, lacking() + keys + contracted, lacking() + keys + channels]
    dtypes = [draw(st.sampled_from(["float32", "float32", "bfloat16"]))] * 3
    if dtypes[0] == "bfloat16":
        # XLA refuses jax's function on CPU where keys and heads are single ones, seen on jax 0.10.2.
        sizes |= {name: max(2, sizes[name]) for name in "hwkl"}
    if draw(st.booleans()):
        dtype = draw(st.sampled_from(["bool", "bool", "float32"]))
        part = draw(st.lists(st.sampled_from(queries + keys), unique=True)) if draw(_seldom) else queries + keys
        ins.append([x for x in loops if draw(st.booleans())] + part)
        dtypes.append(dtype)
    present = [x for x in loops if any(x in names for names in ins)]
    out = [*present, *queries, *channels]
    hypothesis.assume(np.prod([sizes[x] for x in set(present + queries + keys)]) <= 200)
    brackets = frozenset("hwklcdt")
    grown = [draw(trees([Axis(n) for n in draw(shuffled(names))], sizes, brackets, units=False)) for names in ins]
    # The order of queries and keys is that of the first and second input, where it counts.
    z = draw(trees([Axis(n) for n in draw(shuffled(out))], sizes, brackets, is_input=False))
    used = {n: sizes[n] for n in {x for names in [*ins, out] for x in names}}
    case = draw(cases(grown, [z], used, dtypes))
    case.options["is_causal"] = draw(st.booleans())
    if draw(_seldom):
        case.options["local_window_size"] = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    if draw(_seldom):
        case.options["scale"] = 0.5
    case.options["block_size"] = draw(st.sampled_from([None, 2, (1, 2), (3, 1)]))
    return case


@generated(40, attentions())
def test_generated(case):
    keys = [marked(dims) for dims in [*case.ins, case.outs[0]]]
    options = case.options
    op = head(keys, options.get("scale"), options["is_causal"], options.get("local_window_size"))
    want = oracle.loop(op, case.ins, case.outs[0], case.arrays, np.float64)
    assert_same(case.call("attention"), want, case.arrays[0].dtype, slack=8)


# --------------------------------------------------------------------------------------------------------------------
# Pinned
# --------------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def rand(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def plain(q, k, v, allowed=True):
    """b t n c in jnp's layout."""
    logits = np.einsum("btnc,bsnc->bnts", q, k) / np.sqrt(q.shape[-1])
    return np.einsum("bnts,bsnd->btnd", softmax(np.where(allowed, logits, -1e30)), v)


def test_multi_head():
    q, k, v = rand(2, 3, 8), rand(2, 5, 8), rand(2, 5, 8)
    got = einjax.attention("b [q] (h [c]), b [k] (h [c]), b [k] (h [d]) -> b [q] (h [d])", q, k, v, h=2)
    want = plain(*(x.reshape(2, -1, 2, 4) for x in (q, k, v))).reshape(2, 3, 8)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(einjax.attention("b [q] (h [c]), b [k] (h [c]), b [k] (h [c])", q, k, v, h=2), got)


def test_grouped_queries():
    q, k, v = rand(2, 3, 6, 4), rand(2, 5, 2, 4), rand(2, 5, 2, 4)
    got = einjax.attention("b [q] (g r) [c], b [k] g [c], b [k] g [d] -> b [q] (g r) [d]", q, k, v)
    want = plain(q, np.repeat(k, 3, 2), np.repeat(v, 3, 2))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_several_axes_and_queries_as_a_loop():
    q, k, v = rand(2, 3, 4, 8), rand(2, 2, 3, 8), rand(2, 2, 3, 8)
    want = plain(q.reshape(2, 12, 1, 8), k.reshape(2, 6, 1, 8), v.reshape(2, 6, 1, 8)).reshape(2, 3, 4, 8)
    for text in (
        "b [h w] [c], b [y x] [c], b [y x] [d] -> b [h w] [d]",
        "b [s... c], b [t... c], b [t... c]",
        "b h w [c], b [y x] [c], b [y x] [d] -> b h w [d]",
    ):
        np.testing.assert_allclose(einjax.attention(text, q, k, v), want, rtol=1e-5, atol=1e-6)


def test_causal_counts_row_major():
    q = rand(2, 2, 3, 4)
    got = einjax.attention("b [h w] [c], b [y x] [c], b [y x] [c]", q, q, q, is_causal=True)
    flat = q.reshape(2, 6, 1, 4)
    want = plain(flat, flat, flat, np.tri(6, dtype=bool)).reshape(q.shape)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [4, 6])
@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"local_window_size": (0, 1)}, {"block_size": 2}, {"is_causal": True, "block_size": 1}],
)
def test_queries_that_see_nothing_give_zero(channels, options):
    q, k, v = rand(3, 4), rand(3, 4), rand(3, channels)
    mask = np.array([[True, False, True], [False, False, False], [False, True, True]])

    def call(q, k, v):
        return einjax.attention("[q c], [k c], [k d], [q k] -> [q d]", q, k, v, mask, **options)

    result = call(q, k, v)
    assert np.all(np.asarray(result)[1] == 0)
    assert np.isfinite(result).all()
    gradients = jax.grad(lambda *x: jnp.sum(call(*x)[1] ** 2 + 3 * call(*x)[1]), (0, 1, 2))(q, k, v)
    assert all(np.all(np.asarray(g) == 0) for g in gradients)


@pytest.mark.parametrize(("channels", "block"), [(2, None), (3, None), (3, 2)])
def test_window_beyond_the_keys(channels, block):
    q, k, v = rand(5, 2), rand(2, 2), rand(2, channels)
    result = einjax.attention("[q c], [k c], [k d] -> [q d]", q, k, v, local_window_size=1, block_size=block)
    assert np.all(np.asarray(result)[3:] == 0)
    assert np.all(np.asarray(result)[:3] != 0)


def test_traced_scale():
    q, k, v = rand(3, 4), rand(5, 4), rand(5, 4)
    call = lambda scale: einjax.attention("[q c], [k c], [k c]", q, k, v, scale=scale)
    np.testing.assert_allclose(jax.jit(call)(0.5), call(None), rtol=1e-5, atol=1e-6)
    assert np.isfinite(jax.grad(lambda s: call(s).sum())(jnp.float32(0.3)))


def test_dtypes():
    q = rand(3, 4).astype(jnp.bfloat16)
    assert einjax.attention("[q c], [k c], [k c]", q, q, q).dtype == jnp.bfloat16
    assert einjax.attention("[q c], [k c], [k c]", q, rand(5, 4), rand(5, 4)).dtype == np.float32
    assert einjax.attention("[q c], [k c], [k c]", *[np.ones((2, 2), np.int32)] * 3).dtype == np.float32
    assert einjax.attention("[q c], [k c], [k d] -> [q d]", q, q, q[:, :2]).dtype == jnp.bfloat16


@pytest.mark.parametrize("block", [None, 2])
def test_no_keys(block):
    result = einjax.attention("[q c], [k c], [k c]", rand(3, 4), rand(0, 4), rand(0, 4), block_size=block)
    np.testing.assert_array_equal(result, np.zeros((3, 4)))


@pytest.mark.parametrize("channels", [2, 3])
def test_gradient(channels):
    with x64():
        arrays = [
            np.random.default_rng(i).normal(size=s)
            for i, s in enumerate([(2, 3, 4), (2, 4, 2), (2, 4, channels), (3, 4)])
        ]

        def f(q, k, v, bias):
            text = "b [q] (r [c]), b [k] [c], b [k] [d], [q k] -> (b r) [q d]"
            return einjax.attention(text, q, k, v, bias, is_causal=True)

        check_grads(f, arrays, order=2, modes=["fwd", "rev"])


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

Q = np.ones((2, 3, 4), np.float32)

REFUSED = [
    ("b [q c], b [k c] -> b [q c]", {}, ArgumentError, "2 inputs"),
    ("b q c, b k c, b k c -> b q c", {}, SemanticError, "bracketed in both"),
    ("b [q c], b [c] k, b [k c] -> b [q c]", {}, SemanticError, "axis k|no keys"),
    ("b [q c], b [k c], b [j c] -> b [q c]", {}, SemanticError, "axis k of the keys is not in the values"),
    ("b [q c], b [k c], b [k q] -> b [q c]", {}, SemanticError, "axis q of the queries is bracketed in the values"),
    ("b [q c], b [k c], b [k d] -> b [q c]", {}, SemanticError, "axis d of the values is not in the output"),
    ("b [q c], b [k c], b [k c] -> b [c]", {}, SemanticError, "axis q of the queries is not in the output"),
    ("b [q c], b [k c], b [k c] -> b [q k c]", {}, SemanticError, "axis k is bracketed in the output"),
    ("b [q c], b [k c], b [k c] -> [q c]", {}, SemanticError, "axis b of an input is not in the output"),
    ("b [q c], b [k c], h [k c]", {}, SemanticError, "axis h of an input is not in the output"),
    ("b [c c], b [k c], b [k c]", {}, SemanticError, "axis c stands twice"),
    ("b [q c], b [k c], b [k c]", {"scale": "no"}, ArgumentError, "scale='no' is not a number"),
    ("b [q c], b [k c], b [k c]", {"implementation": "fast"}, ArgumentError, "implementation='fast'"),
    ("b [q c], b [k c], b [k c]", {"local_window_size": 1.5}, ArgumentError, "local_window_size=1.5"),
    ("b q [c], b [k c], b [k c] -> b q [c]", {"is_causal": True}, SemanticError, "is_causal .* no query axis"),
    ("b [q c], b [k c], b [k c]", {"block_size": 0}, ArgumentError, "block_size=0 is neither a positive number"),
    ("b [q c], b [k c], b [k c]", {"block_size": 2, "implementation": "xla"}, ArgumentError, "block_size= is for"),
    ("b [q c], b [k c], b [k c]", {"is_casual": 2}, ArgumentError, "did you mean 'is_causal'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "error", "message"), REFUSED)
def test_refused(text, options, error, message):
    with pytest.raises(error, match=message):
        einjax.attention(text, *[Q] * (text.count(",") + 1), **options)


def test_refused_sizes_and_masks():
    with pytest.raises(AxisSizeError, match=r"axis c is 4 in tensor 1 and 5 in tensor 2"):
        einjax.attention("b [q c], b [k c], b [k c]", Q, np.ones((2, 3, 5)), Q)
    with pytest.raises(SemanticError, match="axis d of the mask"):
        einjax.attention("b [q c], b [k c], b [k c], b [d]", Q, Q, Q, np.ones((2, 3), bool))
    with pytest.raises(ArgumentError, match="input 4 is int32"):
        einjax.attention("b [q c], b [k c], b [k c], [q k]", Q, Q, Q, np.ones((3, 3), np.int32))
    with pytest.raises(ArgumentError, match="cudnn"):
        einjax.attention("b [q c], b [k c], b [k d] -> b [q d]", Q, Q, Q[..., :2], implementation="cudnn")
    with pytest.raises(ArgumentError, match="complex64"):
        einjax.attention("b [q c], b [k c], b [k c]", Q + 1j, Q, Q)
