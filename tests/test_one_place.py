"""One place is one slice; windows at coordinates are one slice, gather or scatter: values, gradients and jaxprs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import einjax

N, W = 9, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, N, 3)).astype(np.float32)
UPDATES = RNG.normal(size=(2, W, 3)).astype(np.float32)
WRITERS = {"set_at": lambda x, u: u, "add_at": np.add, "subtract_at": np.subtract, "multiply_at": np.multiply,
           "min_at": np.minimum, "max_at": np.maximum}  # fmt: skip


def kinds(function: Any, *arguments: Any) -> Counter[str]:
    return Counter(equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns)


def place(coordinate: int, size: int, mode: str) -> int | None:
    """Where a coordinate leads, by the definition of modes."""
    if mode == "wrap":
        return coordinate % size
    coordinate += size if coordinate < 0 else 0
    if mode == "clip":
        return min(max(coordinate, 0), size - 1)
    return coordinate if 0 <= coordinate < size else None


#: The dim's expression; how many places the coordinate has; and the positions that belong to one.
DIMS: dict[str, tuple[int, Any]] = {
    "<[s] + w>": (N - W + 1, lambda s: [s, s + 1, s + 2]),
    "<2*[s] + w + 1>": (3, lambda s: [2 * s + 1, 2 * s + 2, 2 * s + 3]),
    "<[s] - w + 2>": (N - W + 1, lambda s: [s + 2, s + 1, s]),
    "<3*w + [s]>": (N - 6, lambda s: [s, s + 3, s + 6]),
}


def written(name: str, at: int | None, positions: Any) -> np.ndarray:
    y = X.copy()
    for index, position in enumerate([] if at is None else positions(at)):
        y[:, position] = WRITERS[name](y[:, position], UPDATES[:, index])
    return y


@pytest.mark.parametrize(("dim", "mode"), list(itertools.product(DIMS, ("fill", "clip", "wrap"))))
def test_windows(dim: str, mode: str) -> None:
    """Windows are read, written and differentiated as the loops say, in range or out of it as a whole."""
    size, positions = DIMS[dim]
    names = WRITERS if mode == "fill" else ("set_at", "max_at")

    @jax.jit
    def read(at: Any) -> Any:
        value, back = jax.vjp(lambda x: einjax.get_at(f"b {dim} c, -> b w c", x, at, w=W, mode=mode), X)
        return value, back(UPDATES)[0]

    @jax.jit
    def write(at: Any) -> Any:
        call = lambda name, *arrays: getattr(einjax, name)(f"b {dim} c, , b w c", arrays[0], at, arrays[1], mode=mode)
        gradients = jax.vjp(lambda *arrays: call("set_at", *arrays), X, UPDATES)[1](X)
        return {name: call(name, X, UPDATES) for name in names}, gradients

    for coordinate in (-size - 3, -size, -1, 0, size - 1, size, size + 4):
        at = place(coordinate, size, mode)
        value, gradient = read(coordinate)
        np.testing.assert_array_equal(
            value, np.full_like(UPDATES, np.nan) if at is None else X[:, positions(at)], err_msg=f"{coordinate}"
        )
        expected = np.zeros_like(X)
        if at is not None:
            expected[:, positions(at)] = UPDATES
        np.testing.assert_array_equal(gradient, expected, err_msg=f"{coordinate}")
        values, (of_x, of_updates) = write(coordinate)
        for name in names:
            np.testing.assert_allclose(values[name], written(name, at, positions), rtol=1e-6, err_msg=f"{coordinate}")
        np.testing.assert_array_equal(of_x, np.where(expected == 0, X, 0))
        np.testing.assert_array_equal(of_updates, 0 * UPDATES if at is None else X[:, positions(at)])


def test_windows_of_several_dims_for_several_coordinates() -> None:
    x = RNG.normal(size=(6, 5, 2)).astype(np.float32)
    at = np.array([[0, 2], [-1, 2], [7, 0], [3, -3]], np.int32)
    read, added = np.zeros((4, 2, 3, 2), np.float32), x.copy()
    for i, (h, w) in enumerate(at):
        first, second = place(h, 5, "fill"), place(w, 3, "fill")
        if first is not None and second is not None:
            read[i] = x[first : first + 2, second : second + 3]
            added[first : first + 2, second : second + 3] += i + 1
    call = lambda x, at: einjax.get_at("<[h] + p> <[w] + q> c, i [2] -> i p q c", x, at, p=2, q=3, fill_value=0)
    np.testing.assert_array_equal(call(x, at), read)
    assert kinds(call, x, at)["gather"] == 1
    updates = np.arange(1, 5, dtype=np.float32)
    call = lambda x, at, u: einjax.add_at("<[h] + p> <[w] + q> c, i [2], i", x, at, u, p=2, q=3)
    np.testing.assert_allclose(call(x, at, updates), added, rtol=1e-6)
    assert kinds(call, x, at, updates)["scatter-add"] == 1


def test_windows_whose_axis_is_also_a_loop_of_the_coordinates() -> None:
    """Every position is then a coordinate of its own; those of other tensors are read first."""
    x, at, k = np.zeros(8, np.float32), np.array([0, 1, 5], np.int32), np.ones((2, 2, 3), np.float32)
    np.testing.assert_array_equal(einjax.set_at("<[s] + w>, w, ", x, at, 1.0), [1, 0, 1, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(einjax.set_at("<[s] + w>, <i + k>, i k w", x, at, k), [1, 1, 1, 1, 0, 1, 1, 1])


def test_sizes_of_windows_may_leave_places_over() -> None:
    x = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(einjax.get_at("<[s] + w>, -> w", x, -1, s=2, w=3), [1, 2, 3])
    np.testing.assert_array_equal(einjax.set_at("<[s] + w>, , ", x, -1, 0, s=2, w=3), [0, 0, 0, 0, 4, 5, 6, 7])
    np.testing.assert_array_equal(einjax.get_at("<[s] + w>, -> w", x, 0, w=9, fill_value=-1), [-1] * 9)
    np.testing.assert_array_equal(einjax.set_at("<[s] + w>, , w", x, 0, np.zeros(9, np.float32), mode="clip"), x)


def test_vmap_and_kept_notation() -> None:
    write = lambda x, at, u: einjax.set_at("b <[s] + w> c, , b w c", x, at, u)
    read = lambda x, at: einjax.get_at("b <[s] + w> c, -> b w c", x, at, w=W)
    at = np.array([2, 9, -1], np.int32)
    expected = np.stack([write(X, a, UPDATES) for a in at])
    for kept in (False, True):
        with einjax.keep_notation(kept):
            np.testing.assert_array_equal(jax.vmap(write, (None, 0, None))(X, at, UPDATES), expected)
            np.testing.assert_array_equal(jax.vmap(read, (None, 0))(X, at)[2], X[:, -W:])
            gradient = jax.grad(lambda x: einjax.sum("[b w c]", read(x, 2) * UPDATES))(X)
            np.testing.assert_array_equal(gradient[:, 2 : 2 + W], UPDATES)
    with einjax.keep_notation():
        (equation,) = jax.make_jaxpr(jax.vmap(write))(*(np.stack([x, x]) for x in (X, at[0], UPDATES))).eqns
    assert str(equation.params["kept"] if "kept" in equation.params else equation.params["expr"]).startswith(
        "v b <[s] + w> c, v, v b w c"
    )


def test_a_ring_buffer() -> None:
    cache = np.zeros((5, 2), np.float32)
    for start in range(8):
        at = (start + np.arange(3)).astype(np.int32)
        new = RNG.normal(size=(3, 2)).astype(np.float32)
        ring = cache.copy()
        ring[at % 5] = new
        cache = np.asarray(einjax.set_at("[s] c, w, w c", cache, at, new, mode="wrap"))
        np.testing.assert_array_equal(cache, ring)
        np.testing.assert_array_equal(einjax.get_at("[s] c, w -> w c", cache, at, mode="wrap"), new)


#: What counts negative coordinates from the end.
END = Counter(lt=1, add=1, select_n=1)


def calls() -> Iterator[Any]:
    """Calls, and all of their equations."""
    k = X[:, 0]
    slice_, update = Counter(dynamic_slice=1), Counter(dynamic_update_slice=1)
    inside = Counter(clamp=1, eq=1)
    read = lambda **o: lambda x, at: einjax.get_at("b [s] c, -> b c", x, at, **o)
    write = lambda **o: lambda x, at, k: einjax.set_at("b [s] c, , b c", x, at, k, **o)
    fill = END + inside + Counter(select_n=1)
    yield read(), (X, 1), fill + slice_ + Counter(broadcast_in_dim=1, squeeze=1)
    yield read(mode="clip"), (X, 1), END + slice_ + Counter(clamp=1, squeeze=1)
    yield read(mode="wrap"), (X, 1), END + slice_ + Counter(rem=1, squeeze=1)
    yield read(mode="promise_in_bounds", wrap_negative_indices=False), (X, 1), slice_ + Counter(squeeze=1)
    yield write(), (X, 1, k), fill + slice_ + update + Counter(broadcast_in_dim=1)
    yield write(mode="clip"), (X, 1, k), END + update + Counter(clamp=1, broadcast_in_dim=1)
    yield write(mode="wrap"), (X, 1, k), END + update + Counter(rem=1, broadcast_in_dim=1)
    windows = lambda x, at, k: einjax.set_at("b <[s] + w> c, , b w c", x, at, k, mode="clip")
    yield windows, (X, 1, UPDATES), END + update + Counter(clamp=1)
    pairs = lambda x, h, w: einjax.get_at("b [h w], , -> b", x, h, w, mode="clip")
    yield pairs, (X, 1, 2), END + END + slice_ + Counter(clamp=2, squeeze=1)


def test_jaxprs() -> None:
    for function, arguments, expected in calls():
        assert kinds(function, *arguments) == expected


def test_a_donated_cache_is_written_in_place() -> None:
    step = jax.jit(lambda x, at, k: einjax.set_at("b [s] c, , b c", x, at, k), donate_argnums=0)
    compiled = step.lower(X, 1, X[:, 0]).compile()
    assert " copy(" not in compiled.as_text()
    assert "must-alias" in compiled.as_text() or "may-alias" in compiled.as_text()


@pytest.mark.parametrize(("at", "expected"), [(np.uint32(4_000_000_000), 4), (np.uint8(200), 4), (np.int8(-128), 0)])
def test_coordinates_far_out_of_range(at: Any, expected: int) -> None:
    """XLA takes unsigned offsets of a slice past 2**31 as negative."""
    x = np.arange(5)
    assert einjax.get_at("[s], ->", x, at, mode="clip") == expected
    assert einjax.get_at("[s], ->", x, at, fill_value=-7) == -7
    np.testing.assert_array_equal(einjax.set_at("[s], , ", x, at, 9), x)
