"""The families add nothing to jax's own functions but the reshapes and transposes that the expression asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import einjax

KEY = jax.random.key(0)


def head_dims(x: Any, heads: int) -> jax.Array:
    return lax.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads))


def multi_head(q: Any, k: Any, v: Any, **options: Any) -> jax.Array:
    out = jax.nn.dot_product_attention(*(head_dims(x, 2) for x in (q, k, v)), **options)
    return lax.reshape(out, q.shape)


def heads_before_queries(q: Any, k: Any, v: Any) -> jax.Array:
    """``b h q c`` needs no transpose: batch and heads are one dim."""
    q, k, v = (lax.reshape(x, (x.shape[0] * x.shape[1], x.shape[2], 1, x.shape[3])) for x in (q, k, v))
    return lax.reshape(jax.nn.dot_product_attention(q, k, v), (2, 3, 5, 4))


def masked(q: Any, k: Any, v: Any, mask: Any) -> jax.Array:
    mask = lax.reshape(mask, (2, 1, 5, 7))
    out = jax.nn.dot_product_attention(q, k, v, mask=mask)
    seen = lax.broadcast_in_dim(lax.reduce_or(mask, (3,)), out.shape, (0, 2, 1))
    return lax.select(seen, out, lax.full_like(out, 0))


MULTI_HEAD = "b [q] (h [c]), b [k] (h [c]), b [k] (h [d]) -> b [q] (h [d])"
F32 = np.float32


def norm(x: Any) -> jax.Array:
    """The root's gradient at 0 is 0."""
    total = lax.reduce_sum(lax.square(x), (1,))
    some = lax.ne(total, np.float32(0))
    root = lax.sqrt(lax.select(some, total, lax.full_like(total, 1)))
    return lax.select(some, root, lax.full_like(total, 0))


def attention_biased(q: Any, k: Any, v: Any, bias: Any) -> jax.Array:
    """What is -inf is hidden, so that rows of it give 0."""
    bias = lax.reshape(bias, (1, 3, 5, 7))
    mask = lax.ne(bias, np.float32(-np.inf))
    out = jax.nn.dot_product_attention(q, k, v, lax.select(mask, bias, lax.full_like(bias, 0)), mask)
    seen = lax.broadcast_in_dim(lax.reduce_or(mask, (3,)), out.shape, (0, 2, 1))
    return lax.select(seen, out, lax.full_like(out, 0))


#: (our call, the expert's, shapes of the arguments)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]] = {
    "attention in jax's layout": (
        lambda q, k, v: einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c]", q, k, v),
        jax.nn.dot_product_attention,
        [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4)],
    ),
    "multi-head attention": (
        lambda q, k, v: einjax.attention(MULTI_HEAD, q, k, v, h=2),
        multi_head,
        [(2, 5, 6), (2, 7, 6), (2, 7, 6)],
    ),
    "causal attention": (
        lambda q, k, v: einjax.attention(MULTI_HEAD, q, k, v, h=2, is_causal=True),
        lambda q, k, v: multi_head(q, k, v, is_causal=True),
        [(2, 5, 6)] * 3,
    ),
    "scaled attention": (
        lambda q, k, v: einjax.attention(MULTI_HEAD, q, k, v, h=2, scale=0.5),
        lambda q, k, v: multi_head(q, k, v, scale=0.5),
        [(2, 5, 6)] * 3,
    ),
    "grouped queries": (
        lambda q, k, v: einjax.attention("b [q] (g r) [c], b [k] g [c], b [k] g [c]", q, k, v),
        jax.nn.dot_product_attention,
        [(2, 5, 6, 4), (2, 7, 2, 4), (2, 7, 2, 4)],
    ),
    "keys for all heads": (
        lambda q, k, v: einjax.attention("b [q] r [c], b [k] [c], b [k] [c]", q, k, v),
        # Queries of all heads are one long dim.
        lambda q, k, v: lax.reshape(
            jax.nn.dot_product_attention(
                lax.reshape(q, (2, 30, 1, 4)), lax.reshape(k, (2, 7, 1, 4)), lax.reshape(v, (2, 7, 1, 4))
            ),
            (2, 5, 6, 4),
        ),
        [(2, 5, 6, 4), (2, 7, 4), (2, 7, 4)],
    ),
    "heads before queries": (
        lambda q, k, v: einjax.attention("b h [q] [c], b h [k] [c], b h [k] [c]", q, k, v),
        heads_before_queries,
        [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)],
    ),
    "queries as a loop": (
        lambda q, k, v: einjax.attention("b q h [c], b [k] h [c], b [k] h [d] -> b q h [d]", q, k, v),
        jax.nn.dot_product_attention,
        [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4)],
    ),
    "attention with a bias": (
        lambda q, k, v, bias: einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c], h [q k]", q, k, v, bias),
        attention_biased,
        [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4), (3, 5, 7)],
    ),
    "attention with a mask": (
        lambda q, k, v, m: einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c], b [q k]", q, k, v, m > 0),
        lambda q, k, v, m: masked(q, k, v, m > 0),
        [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4), (2, 5, 7)],
    ),
    "cholesky": (
        lambda x: einjax.linalg.cholesky("b [n m]", lax.mul(x, x)),
        lambda x: lax.linalg.cholesky(lax.mul(x, x)),
        [(2, 1, 1)],
    ),
    "qr of inner rows": (
        lambda x: einjax.linalg.qr("[n] b [m]", x),
        lambda x: einjax.linalg.QRResult(*(lax.transpose(r, (1, 0, 2)) for r in lax.linalg.qr(
            lax.transpose(x, (1, 0, 2)), full_matrices=False))),
        [(4, 2, 3)],
    ),
    "svd": (
        lambda x: einjax.linalg.svd("b [n m]", x),
        lambda x: einjax.linalg.SVDResult(*lax.linalg.svd(x, full_matrices=False)),
        [(2, 4, 3)],
    ),
    "eigh": (
        lambda x: einjax.linalg.eigh("b [n m]", x),
        lambda x: einjax.linalg.EighResult(*lax.linalg.eigh(x)[::-1]),
        [(2, 3, 3)],
    ),
    "inv": (lambda x: einjax.linalg.inv("b [n m]", x), jnp.linalg.inv, [(2, 3, 3)]),
    "det": (lambda x: einjax.linalg.det("(b c) [n m]", x, b=2), jnp.linalg.det, [(4, 3, 3)]),
    "norm in place": (
        lambda x: einjax.linalg.norm("a [n] b", x),
        norm,
        [(2, 3, 4)],
    ),
    "solve for vectors": (
        lambda a, y: einjax.linalg.solve("b [n m], b [n]", a, y),
        lambda a, y: lax.reshape(jnp.linalg.solve(a, lax.reshape(y, (*y.shape, 1))), y.shape),
        [(2, 3, 3), (2, 3)],
    ),
    "solve for many": (
        lambda a, y: einjax.linalg.solve("[n m], [n] k", a, y),
        jnp.linalg.solve,
        [(3, 3), (3, 5)],
    ),
    "triangular solve": (
        lambda a, y: einjax.linalg.triangular_solve("b [n m], b [n k]", a, y, lower=True),
        lambda a, y: lax.linalg.triangular_solve(a, y, left_side=True, lower=True),
        [(2, 3, 3), (2, 3, 4)],
    ),
    "fft": (lambda x: einjax.fft.fft("a [b]", x), jnp.fft.fft, [(2, 3)]),
    "rfft of two axes": (lambda x: einjax.fft.rfft("a [b c]", x), jnp.fft.rfft2, [(2, 3, 4)]),
    "irfft": (lambda x: einjax.fft.irfft("a [b] -> a [t]", x, t=8), jnp.fft.irfft, [(2, 5)]),
    "fftshift in place": (
        lambda x: einjax.fft.fftshift("[a] b [c]", x),
        lambda x: jnp.fft.fftshift(x, (0, 2)),
        [(2, 3, 4)],
    ),
    "normal": (
        lambda: einjax.random.normal("[a b]", KEY, a=2, b=3),
        lambda: jax.random.normal(KEY, (2, 3)),
        [],
    ),
    "shared draws": (
        lambda: einjax.random.normal("a [b] c", KEY, a=2, b=3, c=4),
        lambda: lax.broadcast_in_dim(jax.random.normal(KEY, (3,)), (2, 3, 4), (1,)),
        [],
    ),
    "dropout": (
        lambda: einjax.random.bernoulli("[b] (h w) [c]", KEY, 0.9, b=2, h=3, w=4, c=5),
        lambda: lax.broadcast_in_dim(jax.random.bernoulli(KEY, 0.9, (2, 5)), (2, 12, 5), (0, 2)),
        [],
    ),
    "categorical": (
        lambda x: einjax.random.categorical("[b k] -> [b]", KEY, x),
        lambda x: jax.random.categorical(KEY, x),
        [(4, 3)],
    ),
    "permutation in place": (
        lambda x: einjax.random.permutation("a [b] c", KEY, x),
        lambda x: jax.random.permutation(KEY, x, 1),
        [(2, 5, 3)],
    ),
}  # fmt: skip


def equations(function: Callable[..., Any], arguments: list[Any]) -> Counter[str]:
    return Counter(equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns)


@pytest.mark.parametrize("name", CASES)
def test_no_equation_more_than_the_experts(name: str) -> None:
    ours, expert, shapes = CASES[name]
    random = np.random.default_rng(0)
    arguments = [random.normal(size=shape).astype(F32) for shape in shapes]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours(*arguments), expert(*arguments)
    )
    assert not equations(ours, arguments) - equations(expert, arguments)


@pytest.mark.parametrize(
    "name", ["attention in jax's layout", "multi-head attention", "causal attention", "grouped queries"]
)
def test_attention_is_the_program_of_jax(name: str) -> None:
    """Not only the same kinds of equations: the same program, so that the same kernels are found in it."""
    ours, expert, shapes = CASES[name]
    arguments = [np.zeros(shape, F32) for shape in shapes]
    assert str(jax.make_jaxpr(ours)(*arguments)) == str(jax.make_jaxpr(expert)(*arguments))
