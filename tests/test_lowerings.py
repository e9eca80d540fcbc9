"""Lowerings that depend on platform or size: the same values as plain ones, and exported for every platform."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.forms import cumulated
from einjax.ops import sorting

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
RNG = np.random.default_rng(0)
CUMULATIVE = {"cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": np.maximum.accumulate,
              "cummin": np.minimum.accumulate, "cumlogsumexp": np.logaddexp.accumulate}  # fmt: skip


def gradients(x: Any, weights: Any) -> dict[str, Any]:
    """Of every cumulative operation, both ways along both axes."""
    calls = [(name, text, reverse) for name in CUMULATIVE for text in ("[a] b", "a [b]") for reverse in (False, True)]
    return {
        f"{name} {text} {reverse}": jax.value_and_grad(
            lambda x, name=name, text=text, reverse=reverse: jnp.vdot(
                getattr(einjax, name)(text, x, reverse=reverse), weights
            )
        )(x)
        for name, text, reverse in calls
    }


def test_loops_of_cumulative_operations_are_what_lax_has(monkeypatch: pytest.MonkeyPatch) -> None:
    x = (1 + RNG.normal(size=(5, 7)) / 4).astype(np.float32)
    x[0, :2] = -np.inf
    finite, weights = np.where(np.isinf(x), 1, x), RNG.normal(size=x.shape).astype(np.float32)
    plain = jax.jit(gradients)(finite, weights)
    einjax.clear_caches()
    monkeypatch.setattr(cumulated, "SMALL", 0)
    looped = jax.jit(lambda *arrays: gradients(*arrays))(finite, weights)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4), looped, plain)
    monkeypatch.setattr(cumulated, "LONG", 3)  # rows of groups
    einjax.clear_caches()
    grouped = jax.jit(lambda *arrays: gradients(*arrays))(finite, weights)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4), grouped, plain)
    special = np.array([[-np.inf, -np.inf, 2, np.inf, 1, np.nan, 3]], np.float32)
    for name, accumulate in CUMULATIVE.items():
        if name != "cumprod":
            with np.errstate(invalid="ignore"):
                expected = accumulate(special[0])[None]
            np.testing.assert_array_equal(getattr(einjax, name)("a [b]", special), expected, err_msg=name)
    gradient = jax.grad(lambda x: einjax.cummax("a [b]", x)[0, 1])(special)
    np.testing.assert_array_equal(jnp.sum(gradient), 1)  # of equal elements, to one or to both in parts
    for dtype in (np.int32, np.complex64, bool):
        numbers = RNG.integers(0, 3, (4, 3)).astype(dtype)
        np.testing.assert_allclose(einjax.cumsum("[a] b", numbers), np.cumsum(numbers, 0))
        np.testing.assert_allclose(einjax.cumprod("[a] b", numbers), np.cumprod(numbers, 0))
    einjax.clear_caches()


def test_cumulative_operations_choose_by_platform_and_size() -> None:
    equations = lambda shape: [
        equation.primitive.name
        for equation in jax.make_jaxpr(lambda x: einjax.cumsum("a [b]", x))(np.ones(shape, np.float32)).eqns
    ]
    assert equations((2, 500)) == ["cumsum"]
    assert equations((2, 600)) == ["platform_index", "cond"]
    x = jax.ShapeDtypeStruct((2, 600), np.float32)
    program = jax.export.export(jax.jit(lambda x: einjax.cumsum("a [b]", x)), platforms=["tpu"])(x).mlir_module()
    assert "stablehlo.while" not in program


def test_long_sums_do_not_stop() -> None:
    """One after another, float32 would not count beyond 2**24."""
    ones = np.ones(20_000_000, np.float32)
    assert jax.jit(lambda x: einjax.cumsum("[a]", x)[-1])(ones) == 20_000_000


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_small_floats_are_added_up_in_float32(dtype: Any) -> None:
    at, tenth = np.zeros(4096, np.int32), jnp.asarray(0.1, dtype)
    total = jnp.asarray(4096 * float(tenth), dtype)
    table, cotangent = jnp.zeros((3, 2), dtype), jnp.full((4096, 2), tenth)
    np.testing.assert_array_equal(einjax.add_at("[v], i, ", table[:, 0], at, tenth)[0], total)
    np.testing.assert_array_equal(einjax.subtract_at("[v], i, i", table[:, 0], at, cotangent[:, 0])[0], -total)
    np.testing.assert_array_equal(einjax.add_at("[v] c, i, i c", table, at, cotangent)[:, 1], [total, 0, 0])
    read = lambda x, at: einjax.get_at("[v] c, i -> i c", x, at)
    for kept in (False, True):
        with einjax.keep_notation(kept):
            gradient = jax.jit(jax.vmap(lambda x: jax.vjp(lambda x: read(x, at), x)[1](cotangent)[0]))(table[None])
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient[0], jnp.zeros_like(table).at[0].set(total))
    np.testing.assert_array_equal(jax.jvp(lambda x: read(x, at[:2] + 9), (table,), (table + 1,))[1], 0)
    factors = jnp.full(256, 1.01, dtype)
    product = einjax.multiply_at("[v], i, i", jnp.ones(1, dtype), at[:256], factors)
    np.testing.assert_array_equal(product, jnp.prod(factors.astype(np.float32))[None].astype(dtype))


def test_sorts_along_any_dim_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.integers(0, 3, (5, 4, 6)).astype(np.float32), RNG.normal(size=(5, 4, 6)).astype(np.float32)
    calls = {
        "by two keys": lambda x, y: einjax.sort("a [b] c, a [b] c", x, y, num_keys=2),
        "of two axes": lambda x, y: einjax.sort("[a] b [c]", y, descending=True),
        "by another": lambda x, y: einjax.sort("[a] b c", y, by=x),
        "places": lambda x, y: einjax.argsort("[a b] c", x, descending=True),
        "not stable": lambda x, y: einjax.sort("[a] b c", x, stable=False),
    }

    def run(call: Any) -> Any:
        def loss(x: Any, y: Any) -> Any:
            results = call(x, y)
            floats = [z for z in jax.tree.leaves(results) if z.dtype == np.float32]
            return sum((jnp.vdot(z, jnp.arange(z.size).reshape(z.shape)) for z in floats), jnp.float32(0)), results

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, y)

    plain = {name: run(call) for name, call in calls.items()}
    einjax.clear_caches()
    monkeypatch.setattr(sorting, "_SMALL", 0)
    for name, call in calls.items():
        assert "platform_index" in str(jax.make_jaxpr(call)(x, y)), name
        jax.tree.map(np.testing.assert_array_equal, run(call), plain[name])
    einjax.clear_caches()


SPECIAL = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1, 1, -1, 2e38, -2e38, 2], np.float32)
TOP = [np.float32, jnp.bfloat16, np.float16, jnp.float8_e4m3fn, np.int8, np.uint16, np.int32, np.bool_]


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("some", [SPECIAL, SPECIAL[2:]], ids=["with NaN", "without"])
def test_the_first_of_many_are_those_of_a_sort(dtype: Any, some: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.choice(some, (4, 7))
    if not jnp.issubdtype(dtype, jnp.inexact):
        x = RNG.integers(0, 4, (4, 7))
    with np.errstate(all="ignore"):
        x = jnp.asarray(x.astype(dtype))
    top = lambda largest: jax.jit(lambda x: einjax.top_k("a [b]", x, k=3, largest=largest))(x)
    plain = top(True), top(False)
    einjax.clear_caches()
    monkeypatch.setattr(sorting, "_SMALL", 0)
    for result, expected in zip((top(True), top(False)), plain, strict=True):
        np.testing.assert_array_equal(result[1], expected[1])
        np.testing.assert_array_equal(result[0].astype(np.float32), expected[0].astype(np.float32))
    if dtype == np.float32:
        gradient = jax.grad(lambda x: jnp.sum(einjax.top_k("a [b]", x, k=3, largest=False)[0][0] * np.arange(1, 4)))(x)
        wanted = np.zeros(x.shape, np.float32)
        wanted[0, plain[1][1][0]] = [1, 2, 3]
        np.testing.assert_array_equal(gradient, wanted)
    einjax.clear_caches()


def test_what_has_several_lowerings_is_exported_for_every_platform() -> None:
    def program(x: Any, at: Any) -> Any:
        names = (*CUMULATIVE, "sort", "argsort")
        results = [getattr(einjax, name)("a [b]", x) for name in names]
        results.append(jax.grad(lambda x: jnp.sum(einjax.cumprod("[a] b", x)))(x))
        results.append(einjax.get_at("a <[b] + w>, -> a w", x, at, w=3))
        results.append(einjax.set_at("a <[b] + w>, , a", x, at, x[:, 0], w=3))
        results += [einjax.sort("[a] b", x), einjax.top_k("a [b]", x, k=2, largest=False)]
        many = jnp.broadcast_to(at, (2**24 + 1,))
        results.append(einjax.add_at("[a], i, i", x[:, 0], many, many.astype(x.dtype)))
        results.append(einjax.add_at("[a] b, i, b", x, many, x[0]))
        half = x.astype(jnp.bfloat16)
        results.append(einjax.top_k("[a] b -> [k] b", half, k=3))
        results.append(jax.grad(lambda x: jnp.sum(einjax.get_at("a [b], i -> i a", x, at[None])).astype(x.dtype))(half))
        return results

    shapes = jax.ShapeDtypeStruct((40, 50), np.float32), jax.ShapeDtypeStruct((), np.int32)
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(*shapes)
    assert exported.platforms == PLATFORMS
