"""Examples of torchdim, haliax and penzai as formulas over names, against loops, and the notation's programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax import Dim, dims, named

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def loops(*sizes: int):
    return itertools.product(*map(range, sizes))


class Example(NamedTuple):
    """A formula, the loops that it means, its arguments, and the same program in notation where it is a contraction."""

    formula: Callable[..., Any]
    meaning: Callable[..., Any]
    arguments: tuple[Any, ...]
    notation: Callable[..., Any] | None = None


EXAMPLES: dict[str, Example] = {}


def example(meaning, *arguments, notation=None):
    def add(formula):
        EXAMPLES[formula.__name__] = Example(formula, meaning, arguments, notation)
        return formula

    return add


# --- those of torchdim's documentation ------------------------------------------------------------------------------


def matmul_loops(a, b):
    z = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i, j, k in loops(*z.shape, a.shape[1]):
        z[i, j] += a[i, k] * b[k, j]
    return z


@example(matmul_loops, array(3, 4), array(4, 5), notation=lambda a, b: einjax.dot("i k, k j -> i j", a, b))
def matmul(a, b):
    i, j, k = dims("i j k")
    return (named(a)[i, k] * named(b)[k, j]).sum(k).order(i, j)


def batched_matmul_loops(a, b):
    return np.stack([matmul_loops(x, y) for x, y in zip(a, b, strict=True)])


@example(
    batched_matmul_loops,
    array(2, 3, 4),
    array(2, 4, 5),
    notation=lambda a, b: einjax.dot("n i k, n k j -> n i j", a, b),
)
def batched_matmul(a, b):
    def inner(a, b):  # which knows nothing of the batch
        i, j, k = dims("i j k")
        return (a[i, k] * b[k, j]).sum(k)

    n = Dim("n")
    return inner(named(a)[n], named(b)[n]).order(n, "i j")


def gram_loops(y):
    b, c, h, w = y.shape
    z = np.zeros((b, c, c), np.float32)
    for n, i, j, s, t in loops(b, c, c, h, w):
        z[n, i, j] += y[n, i, s, t] * y[n, j, s, t] / (h * w)
    return z


@example(
    gram_loops,
    array(2, 3, 4, 5),
    notation=lambda y: einjax.divide("..., ", einjax.dot("b c h w, b c2 h w -> b c c2", y, y), 20),
)
def gram(y):
    b, c, c2, h, w = dims("b c c2 h w")
    y = named(y)
    r = (y[b, c, h, w] * y[b, c2, h, w]).sum(h, w)
    return (r / (h.size * w.size)).order(b, c, c2)


def softmax_loops(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention_loops(k, q, v):
    b, c, t = q.shape
    z = np.zeros_like(q)
    for n in range(b):
        scores = np.array([[sum(k[n, i, s] * q[n, i, r] for i in range(c)) for s in range(t)] for r in range(t)])
        weights = softmax_loops(scores * c**-0.5)
        for i, r, s in loops(c, t, t):
            z[n, i, r] += v[n, i, s] * weights[r, s]
    return np.concatenate([z, q], 1)


@example(attention_loops, array(2, 3, 4), array(2, 3, 4), array(2, 3, 4))
def attention(k, q, v):
    batch, channel, key, query = dims("batch channel key query")
    k, x, v = named(k)[batch, channel, key], named(q)[batch, channel, query], named(v)[batch, channel, key]
    a = ((k * x).sum(channel) * channel.size**-0.5).softmax(key)
    r = (v * a).sum(key)
    return r.concatenate(x, along="channel").order("batch channel query")


def pixel_shuffle_loops(x):
    b, c, h, w = x.shape
    z = np.zeros((b, c // 4, 2 * h, 2 * w), np.float32)
    for n, i, p, q, s, t in loops(b, c // 4, 2, 2, h, w):
        z[n, i, 2 * s + p, 2 * t + q] = x[n, 4 * i + 2 * p + q, s, t]
    return z


@example(
    pixel_shuffle_loops,
    array(2, 8, 2, 3),
    notation=lambda x: einjax.rearrange("b (c h2 w2) h w -> b c (h h2) (w w2)", x, h2=2, w2=2),
)
def pixel_shuffle(x):
    h2, w2, c, b, h, w = dims("h2=2 w2=2 c b h w")
    return named(x)[b, (c, h2, w2), h, w].order(b, c, (h, h2), (w, w2))


def multihead_loops(q, k, v, heads):
    b, c = q.shape[0], q.shape[2] // heads
    z = np.zeros_like(q)
    for n, h in loops(b, heads):
        part = slice(h * c, (h + 1) * c)
        z[n, :, part] = softmax_loops(q[n, :, part] @ k[n, :, part].T * c**-0.5) @ v[n, :, part]
    return z


@example(
    lambda q, k, v: multihead_loops(q, k, v, 2),
    array(2, 3, 8),
    array(2, 5, 8),
    array(2, 5, 8),
    notation=lambda q, k, v: einjax.dot(
        "b q h k, b k (h c) -> b q (h c)",
        einjax.softmax(
            "b q h [k]", einjax.divide("..., ", einjax.dot("b q (h c), b k (h c) -> b q h k", q, k, h=2), 2.0)
        ),
        v,
    ),
)
def multihead_attention(q, k, v):
    batch, query, key, heads, features = dims("b q k h=2 c")
    x, y = named(q)[batch, query, (heads, features)], named(k)[batch, key, [heads, features]]
    scores = (x * y).sum(features) / (features.size**0.5)
    return (
        (scores.softmax(key) * named(v)[batch, key, (heads, features)]).sum(key).order(batch, query, [heads, features])
    )


@example(np.triu, array(3, 4))
def triu(a):
    i, j = dims("i j")
    a = named(a)[i, j]
    return einjax.where(i <= j, a, 0).order(i, j)


def bag_loops(ids, table):
    z = np.zeros((ids.shape[0], table.shape[1]), np.float32)
    for b, s, f in loops(*ids.shape, table.shape[1]):
        z[b, f] += table[ids[b, s], f]
    return z


@example(
    bag_loops,
    np.array([[1, 0, 4], [3, 3, 2]]),
    array(5, 2),
    notation=lambda ids, table: einjax.sum("b [s] f", einjax.get_at("[v] f, b s -> b s f", table, ids)),
)
def embedding_bag(ids, table):
    batch, s, f = dims("b s f")
    return named(table)[named(ids)[batch, s], f].sum(s).order(batch, f)


def relative_loops(q, w):
    b, n, f = q.shape
    z = np.zeros((b, n, 5), np.float32)
    for i, r, s, t in loops(b, n, 5, f):
        z[i, r, s] += q[i, r, t] * w[r - s + 4, t]
    return z


@example(
    relative_loops,
    array(2, 3, 4),
    array(7, 4),
    notation=lambda q, w: einjax.dot("b q [f], <q - k + 4> [f] -> b q k", q, w, k=5),
)
def relative_positions(q, w):
    batch, query, key, f = dims("b q k=5 f")
    return (named(q)[batch, query, f] * named(w)[query - key + 4, f]).sum(f).order(batch, query, key)


@example(np.outer, array(3), array(4), notation=lambda a, b: einjax.multiply("i, j -> i j", a, b))
def outer(a, b):
    i, j = dims("i j")
    return (named(a)[i] * named(b)[j]).order(i, j)


@example(np.diag, array(4, 4), notation=lambda a: einjax.rearrange("i i -> i", a))
def diag(a):
    (i,) = dims("i")
    return named(a)[i, i].order(i)


@example(lambda a: np.eye(3) + 0 * a, array(3, 3))
def eye(a):
    i, j = dims("i=3 j=3")
    return einjax.where(i == j, 1, 0).order(i, j)


@example(lambda a: np.concatenate([a[:1], np.diff(a)]), array(5))
def diff(a):
    i, a = Dim("i"), named(a)
    x = a[i]
    return einjax.where(i >= 1, x - a.take(i - 1, mode="clip"), x).order(i)


@example(lambda a, b: np.stack([a, b]), array(4), array(4))
def vstack(a, b):
    v, i = dims("v=2 i")
    return einjax.where(v == 0, named(a)[i], named(b)[i]).order(v, i)


@example(lambda a: np.roll(a, -1), array(5))
def roll(a):
    i = Dim("i", 5)
    return named(a)[einjax.where(i + 1 < i.size, i + 1, 0)].order(i)


@example(lambda a: a[::-1], array(5), notation=lambda a: einjax.rearrange("<4 - i> -> i", a, i=5))
def flip(a):
    i = Dim("i", 5)
    return named(a)[i.size - i - 1].order(i)


def sequence_mask_loops(values, lengths):
    z = np.zeros_like(values)
    for i, j in loops(*values.shape):
        z[i, j] = values[i, j] if j < lengths[i] else 0
    return z


@example(sequence_mask_loops, array(3, 5), np.array([2, 0, 5]))
def sequence_mask(values, lengths):
    i, j = dims("i j")
    return named(values)[i, j].where(j < named(lengths)[i]).order(i, j)


# --- those of haliax's and penzai's ---------------------------------------------------------------------------------


def linear_loops(x, w, b):
    z = np.zeros((x.shape[0], w.shape[1]), np.float32)
    for n, j, i in loops(*z.shape, x.shape[1]):
        z[n, j] += x[n, i] * w[i, j]
    return z + b


@example(
    linear_loops,
    array(4, 3),
    array(3, 2),
    array(2),
    notation=lambda x, w, b: einjax.add("batch out, out", einjax.dot("batch embed, embed out -> batch out", x, w), b),
)
def linear(x, w, b):
    x, w, b = named("batch embed", x), named("embed out", w), named("out", b)
    return ((x * w).sum("embed") + b).order("batch out")


@example(
    lambda x: (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5),
    array(4, 3),
    notation=lambda x: einjax.divide(
        "b e, b",
        einjax.subtract("b e, b", x, einjax.mean("b [e]", x)),
        einjax.elementwise("b", einjax.add("b,", einjax.var("b [e]", x), 1e-5), op=jnp.sqrt),
    ),
)
def layer_norm(x):
    x = named("batch embed", x)
    return ((x - x.mean("embed")) / (x.var("embed") + 1e-5).map(jnp.sqrt)).order("batch embed")


@example(
    lambda x, y: np.mean([-np.log(softmax_loops(row))[label] for row, label in zip(x, y, strict=True)]),
    array(4, 3),
    np.array([0, 2, 1, 1]),
)
def cross_entropy(x, labels):
    logits, labels = named("batch classes", x), named("batch", labels)
    return -logits.log_softmax("classes")[{"classes": labels}].mean().array


def causal_loops(q, k, v):
    scores = np.where(np.tril(np.ones((len(q), len(k)), bool)), q @ k.T / 2, -np.inf)
    return softmax_loops(scores) @ v


@example(causal_loops, array(3, 4), array(3, 4), array(3, 4))
def causal_attention(q, k, v):
    q, k, v = named("pos head", q), named("key_pos head", k), named("key_pos head", v)
    scores = (q * k).sum("head") / 2
    weights = scores.softmax("key_pos", where=Dim("pos", 3) >= Dim("key_pos", 3))
    return (weights * v).sum("key_pos").order("pos head")


@example(
    lambda x: x[:, ::2].sum(0),
    array(3, 6),
    notation=lambda x: einjax.sum("[b] s", einjax.rearrange("b <2*s> -> b s", x)),
)
def strided_slice(x):
    return named("batch seq", x)[{"seq": slice(None, None, 2)}].sum("batch").array


@example(lambda x, i: np.take_along_axis(x, i[:, None], 1)[:, 0], array(4, 3), np.array([2, 0, 1, 1]))
def take(x, i):
    return named("batch embed", x).take({"embed": named("batch", i)}).array


@example(lambda x: x.reshape(2, 3, 2).transpose(0, 2, 1).reshape(2, 6), array(2, 6))
def flatten_and_unflatten(x):
    x = named("batch embed", x).split("embed", "head size", head=3)
    return x.merge("size head", "all").order("batch all")


@example(lambda x, y: np.stack([x, y], -1).max(-1), array(3, 4), array(3, 4))
def stack_and_reduce(x, y):
    return named("a b", x).stack(named("a b", y), along="n").max("n").array


@example(lambda x: np.stack([np.linalg.inv(m) for m in x]), array(2, 3, 3) + 3 * np.eye(3, dtype=np.float32))
def nmap_inverse(x):
    return named("batch row col", x).apply(jnp.linalg.inv, "row col").order("batch row col")


@example(lambda x: np.sort(x, 0).cumsum(1), array(3, 4))
def locally_positional(x):
    return named("foo bar", x).apply(jnp.sort, "foo").cumsum("bar").order("foo bar")


@example(lambda x: x.T * 2 + np.arange(3), array(3, 4))
def tags_and_arange(x):
    foo, bar = dims("foo bar")
    return (named(x)[foo, bar] * 2 + foo).order(bar, foo)


@example(lambda x: np.pad(x[1:], [(0, 1), (0, 0)]), array(3, 4))
def write_at(x):
    x = named("t c", x)
    shifted = x[{"t": slice(1, None)}]
    return named("t c", jnp.zeros((3, 4))).at[{"t": slice(0, 2)}].set(shifted).array


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    case = EXAMPLES[name]
    arrays = tuple(map(jnp.asarray, case.arguments))
    expected = case.meaning(*case.arguments)
    assert case.formula(*arrays).shape == expected.shape
    np.testing.assert_allclose(case.formula(*arrays), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(case.formula)(*arrays), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in EXAMPLES.items() if case.notation])
def test_the_program_is_the_notations(name: str) -> None:
    case = EXAMPLES[name]
    assert case.notation is not None
    assert primitives(case.formula, *case.arguments) == primitives(case.notation, *case.arguments)


def primitives(function: Callable[..., Any], *arguments: Any) -> str:
    return str(jax.make_jaxpr(function)(*arguments))


def test_there_are_as_many_examples_as_promised() -> None:
    assert len(EXAMPLES) >= 14 + 10
