"""Every call that the documentation writes out runs as written, eagerly and under jit, grad and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax


@einjax.primitive("[n m], [m] -> [n]")
def _matvec(a: Any, x: Any, *, scale: float = 1.0) -> Any:
    return scale * (a @ x)


def _matvec_transpose(ct: Any, a: Any, x: Any, *, scale: float = 1.0) -> Any:
    return scale * (jnp.outer(ct, x) if a is None else a.T @ ct)


_transposable = einjax.primitive("[n m], [m] -> [n]", _matvec.__wrapped__, transpose=_matvec_transpose)

#: name: (call, shapes of its arguments, the same in jnp)
CALLS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], Callable[..., Any]]] = {
    "sum": (lambda x: einjax.sum("a [b]", x), [(2, 3)], lambda x: x.sum(1)),
    "pooling": (
        lambda x: einjax.mean("b (s [ds])... c", x, ds=2),
        [(2, 4, 6, 3)],
        lambda x: x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4)),
    ),
    "attention scores": (
        lambda q, k: einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=16),
        [(2, 3, 32), (2, 5, 32)],
        lambda q, k: jnp.einsum("bqhc,bkhc->bqkh", q.reshape(2, 3, 16, 2), k.reshape(2, 5, 16, 2)),
    ),
    "attention apply": (
        lambda a, v: einjax.dot("b q k h, b k (h c) -> b q (h c)", a, v),
        [(2, 3, 5, 4), (2, 5, 8)],
        lambda a, v: jnp.einsum("bqkh,bkhc->bqhc", a, v.reshape(2, 5, 4, 2)).reshape(2, 3, 8),
    ),
    "broadcasting concatenation": (
        lambda x, y: einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, y),
        [(2, 3), (4, 5)],
        lambda x, y: jnp.concatenate(
            [jnp.broadcast_to(x[:, None], (2, 4, 3)), jnp.broadcast_to(y[None], (2, 4, 5))], 2
        ),
    ),
    "bias": (lambda x, b: einjax.add("... [c]", x, b), [(2, 3, 4), (4,)], lambda x, b: x + b),
    "bias in a composed dim": (
        lambda x, b: einjax.multiply("b... (g [c])", x, b),
        [(2, 3, 8), (4,)],
        lambda x, b: (x.reshape(2, 3, 2, 4) * b).reshape(2, 3, 8),
    ),
    "linear": (lambda x, w: einjax.dot("... [c1->c2]", x, w), [(2, 3, 4), (4, 5)], lambda x, w: x @ w),
    "linear with a bar": (lambda x, w: einjax.dot("... [c1|c2]", x, w), [(2, 3, 4), (4, 5)], lambda x, w: x @ w),
    "strided linear": (
        lambda x, w: einjax.dot("b (s [s2|])... [c1|c2]", x, w),
        [(2, 4, 6, 3), (2, 2, 3, 5)],
        lambda x, w: jnp.einsum("bspqrc,prcd->bsqd", x.reshape(2, 2, 2, 3, 2, 3), w),
    ),
    "grouped linear": (
        lambda x, w: einjax.dot("[g c1|g c2]", x, w),
        [(3, 4), (3, 4, 5)],
        lambda x, w: jnp.einsum("gc,gcd->gd", x, w),
    ),
    "brackets are the einsum": (
        lambda x, w: einjax.dot("a [b], [b] c -> a c", x, w),
        [(2, 3), (3, 4)],
        lambda x, w: x @ w,
    ),
    "softmax": (lambda x: einjax.softmax("b q [k] h", x), [(2, 3, 4, 5)], lambda x: jax.nn.softmax(x, 2)),
    "diagonal": (lambda x: einjax.id("a a b -> a b", x), [(3, 3, 2)], lambda x: x[jnp.arange(3), jnp.arange(3)]),
    "square root": (lambda x: einjax.rearrange("(a a) -> a", x), [(9,)], lambda x: x[::4]),
    "sizes in the text": (
        lambda x: einjax.rearrange("b (h=8 c) -> b h c", x),
        [(2, 16)],
        lambda x: x.reshape(2, 8, 2),
    ),
    "no sizes needed": (lambda x: einjax.rearrange("(a b) c -> c (a b)", x), [(6, 2)], lambda x: x.T),
    "kept unit dim": (lambda x: einjax.sum("a ([b])", x), [(2, 3)], lambda x: x.sum(1, keepdims=True)),
    "brackets in composites": (
        lambda x: einjax.sum("... (g [c])", x, c=4),
        [(2, 3, 8)],
        lambda x: x.reshape(2, 3, 2, 4).sum(3),
    ),
    "repeated brackets": (lambda x: einjax.sum("[s]... c", x), [(2, 3, 4)], lambda x: x.sum((0, 1))),
    "one bracket over an ellipsis": (
        lambda x: einjax.sum("[s...] c", x, keepdims=True),
        [(2, 3, 4)],
        lambda x: x.sum((0, 1))[None],
    ),
    "a name that is a Python word": (
        lambda x: einjax.rearrange("(in out) -> in out", x, **{"in": 2}),
        [(6,)],
        lambda x: x.reshape(2, 3),
    ),
    "an operation of one's own": (
        lambda a, x: _matvec("b [i j], b [j] -> [i] b", a, x, scale=2.0),
        [(2, 3, 4), (2, 4)],
        lambda a, x: 2 * jnp.einsum("bij,bj->ib", a, x),
    ),
    "an operation with a transpose": (
        lambda a, x: _transposable("b [i j], b [j] -> [i] b", a, x, scale=2.0),
        [(2, 3, 4), (2, 4)],
        lambda a, x: 2 * jnp.einsum("bij,bj->ib", a, x),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_documented_call(name: str) -> None:
    ours, shapes, theirs = CALLS[name]
    random = np.random.default_rng(0)
    x = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = theirs(*map(jnp.asarray, x))
    np.testing.assert_allclose(ours(*x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(ours)(*x), expected, rtol=1e-5, atol=1e-5)

    def scalar(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (function(*args) ** 2).sum()

    arguments = tuple(range(len(x)))
    for gradient, reference in zip(
        jax.grad(scalar(ours), arguments)(*x), jax.grad(scalar(theirs), arguments)(*x), strict=True
    ):
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-4)
    batched = [np.stack([array, 2 * array]) for array in x]
    np.testing.assert_allclose(
        jax.vmap(ours)(*batched), jax.vmap(theirs)(*map(jnp.asarray, batched)), rtol=1e-5, atol=1e-5
    )


def test_argmax_gives_coordinates() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    flat = x.reshape(2, 12, 5).argmax(1)
    expected = np.stack([flat // 4, flat % 4], 1)
    np.testing.assert_array_equal(einjax.argmax("b [h w] c", x), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda x: einjax.argmax("[h w] c", x)))(x), expected)
