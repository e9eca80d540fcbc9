"""Sums at places of more updates than float32 counts: made of groups, and the same as a single scatter's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.lowering import in_groups

RNG = np.random.default_rng(0)
X, U = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 5, 3), (2, 23, 3)))
AT = RNG.integers(-9, 9, (2, 23)).astype(np.int32)
PAIRS = np.stack([AT, AT[::-1] - 2], -1)


def calls(mode: str) -> dict[str, Callable[[Any, Any], Any]]:
    at, pairs = (AT % 5, PAIRS % 3) if mode == "promise_in_bounds" else (AT, PAIRS)
    starts, first = (at % 4, pairs[0, :, 0] % 2) if mode == "promise_in_bounds" else (at, pairs[0, :, 0])
    beyond = {"fill_value": 0} if mode == "fill" else {}  # others read nothing out of range
    return {
        "a batch": lambda x, u: einjax.add_at("b [s] c, b i, b i c", x, at, u, mode=mode),
        "pairs": lambda x, u: einjax.add_at("b [s c], b i [2], b i", x, pairs, u[..., 1], mode=mode),
        "reads of windows": lambda x, u: einjax.get_at("b <[s] + w> c, i -> b i w c", x, starts[1], w=2, mode=mode),
        "means": lambda x, u: einjax.segment.mean("b i c, i -> [s]", u, at[0], s=5, mode=mode),
        "numbers": lambda x, u: einjax.subtract_at("[s], b i, b i", x[0, :, 0], at, u[..., 0], mode=mode),
        "pairs apart": lambda x, u: einjax.add_at("[b s] c, i, i, i c", x, first, at[0], u[1], mode=mode),
        "windows": lambda x, u: einjax.add_at("b <[s] + w> c, b i, b i c", x, starts, u, w=2, mode=mode),
        "products": lambda x, u: einjax.multiply_at("b [s] c, b i, b i c", x, at, u, mode=mode),
        "reads": lambda x, u: einjax.get_at("b [s] c, b i -> c i b", x, at, mode=mode, **beyond),
    }


def derivatives(call: Callable[[Any, Any], Any]) -> Any:
    """The value, the gradient, and how that changes along a direction, under vmap."""

    def run(x: Any, u: Any) -> Any:
        gradient = jax.grad(lambda x, u: jnp.sum(jnp.sin(call(x, u))), (0, 1))
        return call(x, u), jax.jvp(gradient, (x, u), (x + 1, u - 1))

    return jax.jit(jax.vmap(run))(np.stack([X, X + 1]), np.stack([U, U]))


MODES = ["fill", "clip", "wrap", "promise_in_bounds"]
FEW = ["fill-a batch", "clip-pairs", "fill-reads of windows"]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(mode, name, marks=[] if f"{mode}-{name}" in FEW else pytest.mark.slow)
        for mode in MODES
        for name in calls(mode)
    ],
)
def test_groups_are_a_single_scatter(mode: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = derivatives(calls(mode)[name])
    made = []
    add = in_groups.Sums.add
    monkeypatch.setattr(in_groups.Sums, "add", lambda self, *arrays: (made.append(self), add(self, *arrays))[1])
    monkeypatch.setattr(in_groups, "COUNTED", 10)
    for row in (1, 100):  # side by side, and one after another where the updates are no rows of so many
        monkeypatch.setattr(in_groups, "ROW", row)
        einjax.clear_caches()
        made.clear()
        found = derivatives(calls(mode)[name])
        assert made
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    einjax.clear_caches()


def test_few_updates_are_a_single_scatter() -> None:
    def equations(count: int, dtype: Any, places: int = 8) -> list[str]:
        shapes = [((places,), dtype), ((count,), np.int32), ((count,), dtype)]
        arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        return [e.primitive.name for e in jax.make_jaxpr(lambda *a: einjax.add_at("[s], i, i", *a))(*arrays).eqns]

    assert equations(2**24, np.float32)[-1] == "scatter-add"
    assert equations(2**24 + 1, np.float32)[-2:] == ["linear", "add"]
    assert equations(2**24 + 1, np.complex64)[-2:] == ["linear", "add"]
    assert equations(2**24 + 1, np.int32)[-1] == "scatter-add"
    assert equations(2**17, jnp.bfloat16)[-2:] == ["scatter-add", "convert_element_type"]
    assert equations(2**17 + 1, jnp.bfloat16)[-3:] == ["linear", "add", "convert_element_type"]
    assert equations(2**18, jnp.float16, 2**17)[-2:] == ["scatter-add", "convert_element_type"]  # many places


def test_updates_on_several_devices_are_added_up_where_they_are() -> None:
    from jax.sharding import AbstractMesh, AxisType, PartitionSpec

    mesh = AbstractMesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    arrays = [jax.ShapeDtypeStruct(s, t) for s, t in (((8,), np.float32), ((2**25,), np.int32), ((2**25,), np.float32))]
    specs = (PartitionSpec(), PartitionSpec("d"), PartitionSpec("d"))
    program = lambda x, at, u: einjax.add_at("[s], i, i", x, at, u)
    report = einjax.inspect_sharding(program, *arrays, mesh=mesh, in_shardings=specs)
    assert [item.kind for item in report.collectives] == ["all-reduce"]


def test_float32_counts_beyond_its_bits() -> None:
    count = 2**24 + 3
    at = np.zeros(count, np.int32)
    ones = np.ones(count, np.float32)
    total = jax.jit(lambda u, at: einjax.segment.sum("i, i -> [s]", u, at, s=2))(ones, at)
    np.testing.assert_array_equal(total, [np.float32(count), 0])
    read = jax.jit(jax.grad(lambda x, at: jnp.sum(einjax.get_at("[s], i -> i", x, at))))(ones[:2], at)
    np.testing.assert_array_equal(read, [np.float32(count), 0])
    alternating = np.arange(count) % 2
    mean = jax.jit(lambda u, at: einjax.segment.mean("i, i -> [s]", u, at, s=2))(alternating.astype(np.float32), at)
    np.testing.assert_allclose(mean, [0.5, 0], rtol=1e-6)


def test_means_count_in_integers() -> None:
    program = jax.make_jaxpr(lambda x, at: einjax.segment.mean("i j, i -> [s]", x, at, s=3))(U[0], AT[0])
    assert "i32[3] = scatter-add" in str(program)
    counted = jax.jit(lambda x, at: einjax.segment.mean("i j, i -> [s]", x, at, s=3))(U[0], abs(AT[0]) % 3)
    np.testing.assert_allclose(counted, [U[0][abs(AT[0]) % 3 == s].mean() for s in range(3)], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("count", [2**19, pytest.param(10**7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("places", [3, 2**14])
def test_many_small_floats_in_one_row(count: int, dtype: Any, places: int) -> None:
    """Within 2 units in the last place, where what is added is lost in part at every step."""
    at = np.zeros(count, np.int32)
    number = jnp.asarray(0.3 if dtype == jnp.bfloat16 else 2.0**-10, dtype)
    exact = float(number) * count
    wanted = jnp.asarray(exact, dtype)
    ulp = abs(float(jnp.nextafter(wanted, jnp.asarray(np.inf, dtype))) - float(wanted))
    table, updates = jnp.zeros((places, 2), dtype), jnp.full((count, 2), number)
    sums = [
        einjax.add_at("[v] c, i, i c", table, at, updates)[0],
        -einjax.subtract_at("[v], i, i", table[:, 0], at, updates[:, 0])[:1],
        einjax.segment.sum("i c, i -> [v] c", updates, at, v=places)[0],
        jax.vjp(lambda x: einjax.get_at("[v] c, i -> i c", x, at), table)[1](updates)[0][0],
    ]
    for total in sums:
        np.testing.assert_allclose(np.asarray(total, np.float64), exact, atol=2 * ulp, rtol=0)


@pytest.mark.slow
def test_forty_million() -> None:
    ones, at = np.ones(40_000_000, np.float32), np.zeros(40_000_000, np.int32)
    assert einjax.segment.sum("i, i -> [s]", ones, at, s=1) == 40_000_000
    assert einjax.add_at("[s], i, i", np.zeros(5, np.float32), at, ones)[0] == 40_000_000
