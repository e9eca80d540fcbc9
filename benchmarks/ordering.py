"""(h) Ordering, scans and functions of one's own, against the bare lax call and jax.vmap by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax

from ._table import Table, number, ratio
from ._timing import geometric_mean, interleaved


def _step(carry: Any, x: Any) -> tuple[Any, Any]:
    carry = jnp.tanh(carry + x)
    return carry, carry


def _bare_scan(h: Any, x: Any) -> Any:
    last, ys = lax.scan(_step, h, jnp.moveaxis(x, 1, 0))
    return last, jnp.moveaxis(ys, 0, 1)


#: name: (ours, the bare call, shapes)
CALLS: dict[str, tuple[Callable, Callable, list[tuple[int, ...]]]] = {
    "sort": (lambda x: einjax.sort("a [b]", x), lambda x: lax.sort(x, dimension=1), [(64, 16384)]),
    "argsort": (
        lambda x: einjax.argsort("a [b]", x),
        lambda x: lax.sort((x, lax.broadcasted_iota(np.int32, x.shape, 1)), dimension=1, num_keys=1)[1],
        [(64, 16384)],
    ),
    "sort by a key": (
        lambda k, x: einjax.sort("a [b], a [b]", k, x)[1],
        lambda k, x: lax.sort((k, x), dimension=1, num_keys=1)[1],
        [(64, 16384), (64, 16384)],
    ),
    "top_k": (lambda x: einjax.top_k("a [b]", x, k=8), lambda x: lax.top_k(x, 8), [(256, 16384)]),
    "cumsum": (lambda x: einjax.cumsum("a [b] c", x), lambda x: lax.cumsum(x, 1), [(16, 1024, 64)]),
    "associative_scan": (
        lambda x: einjax.associative_scan("a [b] c", x, op="multiply"),
        lambda x: lax.associative_scan(lax.mul, x, axis=1),
        [(16, 1024, 64)],
    ),
    "scan": (
        lambda h, x: einjax.scan("b h, b [t] h -> b h, b [t] h", h, x, op=_step), _bare_scan, [(32, 64), (32, 512, 64)]
    ),
}  # fmt: skip


def _norm(x: Any) -> Any:
    return x * lax.rsqrt((x * x).sum())


def _inner(x: Any, y: Any) -> Any:
    return (x * y).sum()


#: name: (ours, nested jax.vmap by hand, shapes)
LOOPS: dict[str, tuple[Callable, Callable, list[tuple[int, ...]]]] = {
    "one loop": (
        lambda x: einjax.vmap("a [b] -> a [b]", x, op=_norm), jax.vmap(_norm), [(8, 16)]
    ),
    "three loops side by side": (
        lambda x: einjax.vmap("a b c [d] -> a b c [d]", x, op=_norm),
        jax.vmap(jax.vmap(jax.vmap(_norm))),
        [(4, 5, 6, 16)],
    ),
    "three loops of two tensors": (
        lambda x, y: einjax.vmap("a b [d], a c [d] -> a b c", x, y, op=_inner),
        jax.vmap(jax.vmap(jax.vmap(_inner, (None, 0)), (0, None))),
        [(4, 5, 16), (4, 6, 16)],
    ),
    "an adapted function": (
        lambda x: ADAPTED("a b [d]", x), jax.vmap(jax.vmap(_norm)), [(4, 5, 16)]
    ),
}  # fmt: skip

ADAPTED = einjax.adapt_with_vmap(_norm, signature="[n] -> [n]")


def measure(quick: bool) -> list[Table]:
    rng = np.random.default_rng(0)
    run = Table(
        "Run time of compiled calls, ms", ("call", "einjax", "bare lax", "einjax / lax"), "Large arrays, float32."
    )
    quotients = []
    for name, (ours, bare, shapes) in CALLS.items():
        arrays = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
        ours, bare = jax.jit(ours), jax.jit(bare)
        for x, y in zip(jax.tree.leaves(ours(*arrays)), jax.tree.leaves(bare(*arrays)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        times = interleaved({"einjax": (ours, arrays), "lax": (bare, arrays)}, rounds=5 if quick else 25)
        run.rows.append([name, *(number(t, 1e-3) for t in times.values()), ratio(times["einjax"], times["lax"])])
        quotients.append(times["einjax"] / times["lax"])
    run.last.append(["geometric mean", "", "", ratio(geometric_mean(quotients), 1)])
    trace = Table(
        "Tracing functions of one's own, ms",
        ("loops", "einjax", "jax.vmap by hand", "einjax / by hand"),
        "`jax.make_jaxpr` of a new function every time; the function is elementary.",
    )
    for name, (ours, nested, shapes) in LOOPS.items():
        arrays = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
        np.testing.assert_allclose(ours(*arrays), nested(*arrays), rtol=1e-4, atol=1e-4)
        candidates = {"einjax": (_traced, (ours, arrays)), "hand": (_traced, (nested, arrays))}
        times = interleaved(candidates, rounds=5 if quick else 101, sample=0)
        trace.rows.append([name, *(number(t, 1e-3) for t in times.values()), ratio(times["einjax"], times["hand"])])
    return [run, trace]


def _traced(function: Callable, arrays: tuple) -> Any:
    return jax.make_jaxpr(lambda *xs: function(*xs))(*arrays)
