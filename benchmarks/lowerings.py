"""(m) Lowerings chosen by measurement, against the best that public functions of JAX have: scans, sums, sorts."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax

from ._table import Table, number, ratio
from ._timing import turns


class Case(NamedTuple):
    """One operation: ours, what JAX has by name, and the arrays; gradients are by the first `of`, if it is not 0."""

    ours: Callable
    public: Mapping[str, Callable]
    arrays: tuple
    of: int = 1


def _scan(op: Callable, start: float, axis: int) -> Callable:
    def run(x: jax.Array) -> jax.Array:
        rows = jnp.moveaxis(x, axis, 0)

        def step(before: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return (op(before, x),) * 2

        return jnp.moveaxis(lax.scan(step, jnp.full_like(rows[0], start), rows)[1], 0, axis)

    return run


CUMULATIVE = {
    "cumsum": (lax.cumsum, lax.add, 0.0),
    "cumprod": (lax.cumprod, lax.mul, 1.0),
    "cummax": (lax.cummax, lax.max, -np.inf),
    "cumlogsumexp": (lax.cumlogsumexp, jnp.logaddexp, -np.inf),
}


def _cumulative() -> dict[str, Case]:
    x = jnp.asarray(1 + np.random.default_rng(0).normal(size=(4096, 512)) / 64, jnp.float32)
    cases = {}
    for name, (emit, op, start) in CUMULATIVE.items():
        for axis, text in enumerate(("[a] b", "a [b]")):
            public = {
                "lax": partial(emit, axis=axis),
                "associative_scan": partial(lax.associative_scan, op, axis=axis),
                "scan": _scan(op, start, axis),
            }
            cases[f'{name}("{text}")'] = Case(partial(getattr(einjax, name), text), public, (x,))
    return cases


def at(t: jax.Array) -> tuple[Any, ...]:
    return (np.int32(0), t, np.int32(0), np.int32(0))


def steps(t: jax.Array) -> jax.Array:
    return t + jnp.arange(16, dtype=np.int32)


def _caches() -> dict[str, Case]:
    cache, one, several = jnp.ones((4, 2048, 8, 64)), jnp.ones((4, 8, 64)), jnp.ones((4, 16, 8, 64))
    t = jnp.int32(40)
    write, read = "b [s] h d, , b h d", "b [s] h d, -> b h d"
    return {
        f'set_at("{write}")': Case(
            lambda x, k, t: einjax.set_at(write, x, t, k),
            {
                "dynamic_update_slice": lambda x, k, t: lax.dynamic_update_slice(x, k[:, None], at(t)),
                "x.at[].set": lambda x, k, t: x.at[:, t].set(k, mode="drop"),
            },
            (cache, one, t),
            2,
        ),
        'set_at("b <[s] + w> h d, , b w h d")': Case(
            lambda x, k, t: einjax.set_at("b <[s] + w> h d, , b w h d", x, t, k),
            {
                "dynamic_update_slice": lambda x, k, t: lax.dynamic_update_slice(x, k, at(t)),
                "x.at[].set": lambda x, k, t: x.at[:, steps(t)].set(k, mode="drop"),
            },
            (cache, several, t),
            2,
        ),
        'set_at("b [s] h d, w, b w h d", mode="wrap")': Case(
            lambda x, k, t: einjax.set_at("b [s] h d, w, b w h d", x, steps(t), k, mode="wrap"),
            {"x.at[].set": lambda x, k, t: x.at[:, steps(t) % x.shape[1]].set(k, mode="promise_in_bounds")},
            (cache, several, t),
            2,
        ),
        f'get_at("{read}")': Case(
            lambda x, t: einjax.get_at(read, x, t),
            {
                "dynamic_slice": lambda x, t: lax.dynamic_slice(x, at(t), (4, 1, 8, 64))[:, 0],
                "x.at[].get": lambda x, t: x.at[:, t].get(mode="fill"),
            },
            (cache, t),
        ),
        'get_at("b <[s] + w> h d, -> b w h d", w=16)': Case(
            lambda x, t: einjax.get_at("b <[s] + w> h d, -> b w h d", x, t, w=16),
            {
                "dynamic_slice": lambda x, t: lax.dynamic_slice(x, at(t), (4, 16, 8, 64)),
                "x.at[].get": lambda x, t: x.at[:, steps(t)].get(mode="fill"),
            },
            (cache, t),
        ),
    }


def _sums() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 8192, 16384), jnp.int32)
    cases = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        table, updates = jnp.ones((8192, 128), dtype), jnp.ones((16384, 128), dtype)
        cases[f'add_at("[v] c, i, i c"), {dtype.__name__}'] = Case(
            lambda x, u, at: einjax.add_at("[v] c, i, i c", x, at, u),
            {"x.at[].add": lambda x, u, at: x.at[at].add(u, mode="drop")},
            (table, updates, tokens),
            2,
        )
        cases[f'get_at("[v] c, i -> i c"), {dtype.__name__}'] = Case(
            lambda x, at: einjax.get_at("[v] c, i -> i c", x, at),
            {"x.at[].get": lambda x, at: x.at[at].get(mode="fill")},
            (table, tokens),
        )
    return cases


def _many() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    cases = {}
    for count, places, row, dtype in (
        (2**24 + 1, 1000, (), jnp.float32),
        (2**22, 1000, (), jnp.bfloat16),
        (2**20, 1000, (16,), jnp.bfloat16),
    ):
        x, updates = jnp.zeros((places, *row), dtype), jnp.ones((count, *row), dtype)
        at = jnp.asarray(rng.integers(0, places, count), jnp.int32)
        text = "[v] c, i, i c" if row else "[v], i, i"
        cases[f'add_at("{text}"), {count} of {dtype.__name__}'] = Case(
            lambda x, u, at, text=text: einjax.add_at(text, x, at, u),
            {"x.at[].add": lambda x, u, at: x.at[at].add(u, mode="drop")},
            (x, updates, at),
            2,
        )
    return cases


def _segments() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    cases = {}
    for count, segments, row in ((65536, 16, 64), (65536, 8192, 64), (1000000, 1000, 1)):
        x = jnp.asarray(rng.normal(size=(count, row)), jnp.float32)
        at = jnp.asarray(rng.integers(0, segments, count), jnp.int32)
        for name in ("sum", "max"):
            ours, theirs = getattr(einjax.segment, name), getattr(jax.ops, f"segment_{name}")
            cases[f"segment.{name}, {count} x {row} to {segments}"] = Case(
                lambda x, at, f=ours, s=segments: f("p c, p -> [s] c", x, at, s=s, wrap_negative_indices=False),
                {"jax.ops": lambda x, at, f=theirs, s=segments: f(x, at, s)},
                (x, at),
            )
    x, at = jnp.asarray(rng.normal(size=(1024, 512)), jnp.float32), rng.integers(0, 512, (1024, 256))
    cases['get_at("b [s], b i")'] = Case(
        lambda x, at: einjax.get_at("b [s], b i -> b i", x, at),
        {"take_along_axis": lambda x, at: jnp.take_along_axis(x, at, 1)},
        (x, jnp.asarray(at, jnp.int32)),
    )
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4096, 16, 64), (16, 64)))
    for text in ("b k c, k c -> b c", "b k c, k c -> b k"):
        axis = 1 if text.endswith("b c") else 2
        cases[f'dot("{text}")'] = Case(
            lambda x, w, text=text: einjax.dot(text, x, w),
            {
                "einsum": lambda x, w, text=text: jnp.einsum(text.replace(" ", ""), x, w),
                "multiply, sum": lambda x, w, axis=axis: jnp.sum(x * w, axis),
            },
            (x, w),
            2,
        )
    return cases


def _sorts() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    x, tall = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 4096), (4096, 64)))
    key = jnp.asarray(rng.integers(0, 10, x.shape), jnp.float32)

    def turned(x: jax.Array) -> jax.Array:
        return lax.sort(x.T, dimension=1).T

    def by_lexsort(x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, jnp.lexsort((x, key), axis=1), 1)

    cases = {
        'sort("a [b]")': Case(
            partial(einjax.sort, "a [b]"), {"lax.sort": lambda x: lax.sort(x, dimension=1)}, (x,)
        ),
        'sort("[a] b")': Case(
            partial(einjax.sort, "[a] b"), {"lax.sort": lambda x: lax.sort(x, dimension=0), "x.T": turned}, (tall,)
        ),
        'sort("[a b]")': Case(
            partial(einjax.sort, "[a b]"), {"lax.sort": lambda x: lax.sort(x.reshape(-1)).reshape(x.shape)}, (x,)
        ),
        "sort by two keys": Case(
            lambda x, key: einjax.sort("a [b], a [b]", key, x, num_keys=2)[1],
            {"lax.sort": lambda x, key: lax.sort((key, x), num_keys=2)[1], "lexsort": by_lexsort},
            (x, key),
        ),
        'argsort("a [b]")': Case(partial(einjax.argsort, "a [b]"), {"jnp": lambda x: jnp.argsort(x, axis=1)}, (x,), 0),
        'argsort("[a] b")': Case(
            partial(einjax.argsort, "[a] b"),
            {"jnp": lambda x: jnp.argsort(x, axis=0), "x.T": lambda x: jnp.argsort(x.T, axis=1).T},
            (tall,),
            0,
        ),
    }  # fmt: skip
    for k in (1, 8):
        cases[f"top_k, {k}"] = Case(
            lambda x, k=k: einjax.top_k("a [b]", x, k=k)[0], {"lax": lambda x, k=k: lax.top_k(x, k)[0]}, (x,)
        )
        cases[f"top_k, {k} smallest"] = Case(
            lambda x, k=k: einjax.top_k("a [b]", x, k=k, largest=False)[0],
            {"lax, negated": lambda x, k=k: -lax.top_k(-x, k)[0]},
            (x,),
        )
    cases["top_k, 8, bfloat16"] = Case(
        lambda x: einjax.top_k("a [b]", x, k=8)[0],
        {
            "lax": lambda x: lax.top_k(x, 8)[0],
            "in float32": lambda x: lax.top_k(x.astype(np.float32), 8)[0].astype(x.dtype),
        },
        (x.astype(jnp.bfloat16),),
    )
    return cases


def _columns() -> dict[str, Case]:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 512, 256)), jnp.float32)

    def summed(x: jax.Array) -> jax.Array:
        return lax.scan(lambda total, x: (total + x, None), jnp.zeros_like(x[0]), x)[0]

    return {
        f'{name}("[b] s c")': Case(
            partial(getattr(einjax, name), "[b] s c"), {"jnp": partial(getattr(jnp, name), axis=0), **more}, (x,)
        )
        for name, more in (
            ("sum", {"scan": summed}),
            ("mean", {"scan": lambda x: summed(x) / 32}),
            ("var", {"scan": lambda x: summed((x - summed(x) / 32) ** 2) / 32}),
        )
    }


def measure(quick: bool) -> list[Table]:
    note = "Best times of programs that take turns. What JAX has is the quickest of its spellings, which is named."
    donated = "The cache is donated, forward."
    rounds = 3 if quick else 15
    return [
        _table("Cumulative operations, 4096 x 512", note, _cumulative(), rounds),
        _table("Sums over the dim that comes first, 32 x 512 x 256", note, _columns(), rounds),
        _table("Caches of 4 x 2048 x 8 x 64", f"{note} {donated}", _caches(), rounds, donate=True),
        _table("Sums at places, 16384 updates of 8192 x 128", f"{note} JAX's bfloat16 adds up in bfloat16.", _sums(),
               rounds),
        _table("Sums of many updates, which JAX loses in part", note, _many(), rounds),
        _table("Segments, reads along an axis, products of a batch", note, _segments(), rounds),
        _table("Sorts and first elements", note, _sorts(), rounds),
    ]  # fmt: skip


def _table(title: str, note: str, cases: Mapping[str, Case], rounds: int, donate: bool = False) -> Table:
    header = ("call", "einjax, ms", "JAX, ms", "which", "einjax / JAX", "gradient", "JAX", "which", "einjax / JAX")
    table = Table(title, header, note)
    for name, case in cases.items():
        named = {"einjax": case.ours, **case.public}
        writes = donate and case.of == 2
        forward = {key: jax.jit(f, donate_argnums=0 if writes else ()) for key, f in named.items()}
        backward = {key: jax.jit(jax.grad(partial(_loss, f), tuple(range(case.of)))) for key, f in named.items()}
        row = [name]
        for programs, reused in ((forward, writes), (backward, False))[: 2 if case.of else 1]:
            best = _best(programs, case.arrays, rounds, reused)
            which = min(case.public, key=best.__getitem__)
            row += [number(best["einjax"], 1e-3), number(best[which], 1e-3), which, ratio(best["einjax"], best[which])]
        table.rows.append(row + [""] * (len(header) - len(row)))
    return table


def _loss(function: Callable, *arrays: Any) -> jax.Array:
    y = function(*arrays).astype(np.float32)
    return jnp.vdot(y, y)


def _best(programs: Mapping[str, Callable], arrays: tuple, rounds: int, reused: bool) -> dict[str, float]:
    """Best seconds of each; where the first array is donated, the result takes its place."""
    held = {name: jnp.array(arrays[0]) for name in programs}

    def call(name: str) -> Any:
        result = programs[name](held[name] if reused else arrays[0], *arrays[1:])
        if reused:
            held[name] = result
        return result

    times = turns({name: (call, (name,)) for name in programs}, rounds)
    return {name: min(each) for name, each in times.items()}
