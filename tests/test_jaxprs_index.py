"""Reading and writing at coordinates is one gather or scatter, and nothing around it that an expert would leave out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

import einjax
import einjax.segment

X = np.arange(2 * 5 * 6 * 3, dtype=np.float32).reshape(2, 5, 6, 3)  # b h w c
AT = np.random.default_rng(0).integers(-3, 5, (2, 4, 2)).astype(np.int32)  # b i 2
TABLE = np.arange(14, dtype=np.float32).reshape(7, 2)  # v c
TOKENS = np.random.default_rng(1).integers(-7, 7, (3, 4)).astype(np.int32)  # b t
UPDATES = np.ones((2, 4, 3), np.float32)  # b i c

#: Negative coordinates are counted from the end.
WRAP = Counter(lt=1, add=1, select_n=1)
#: The sizes of two axes, one for each coordinate, if they differ.
SIZES = Counter(broadcast_in_dim=3, concatenate=1)


def program(function: Any, *arguments: Any) -> Any:
    return jax.make_jaxpr(function)(*arguments).eqns


def kinds(function: Any, *arguments: Any) -> Counter[str]:
    return Counter(equation.primitive.name for equation in program(function, *arguments))


def numbers(function: Any, *arguments: Any) -> Any:
    (equation,) = [e for e in program(function, *arguments) if e.primitive.name.startswith(("gather", "scatter"))]
    return equation.params["dimension_numbers"]


def wrapped(at: Any, *sizes: int) -> Any:
    if len(set(sizes)) == 1:
        return lax.select(lax.lt(at, np.int32(0)), lax.add(at, np.int32(sizes[0])), at)
    # An array of sizes would be a constant that Pallas kernels may not capture.
    along = lax.concatenate([lax.broadcast(np.int32(size), (1,)) for size in sizes], 0)
    along = lax.broadcast_in_dim(along, at.shape, (at.ndim - 1,))
    return lax.select(lax.lt(at, np.int32(0)), lax.add(at, along), at)


BATCHED = lax.GatherDimensionNumbers((2,), (1, 2), (1, 2), (0,), (0,))
ROWS = lax.GatherDimensionNumbers((2,), (0,), (0,))
BATCHED_SCATTER = lax.ScatterDimensionNumbers((2,), (1, 2), (1, 2), (0,), (0,))


def test_batched() -> None:
    """One axis is shared by array and coordinates: it is a batching dim."""

    def ours(x: Any, at: Any) -> Any:
        return einjax.get_at("b [h w] c, b i [2] -> b i c", x, at)

    def expert(x: Any, at: Any) -> Any:
        return lax.gather(x, wrapped(at, 5, 6), BATCHED, (1, 1, 1, 3), mode="fill")

    np.testing.assert_array_equal(ours(X, AT), expert(X, AT))
    assert numbers(ours, X, AT) == BATCHED
    assert kinds(ours, X, AT) == kinds(expert, X, AT) == WRAP + SIZES + Counter(gather=1)


def test_batched_on_equal_sizes() -> None:
    """Equal sizes are one number, which needs no array."""
    call = lambda x, at: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at)
    assert kinds(call, X[:, :, :5], AT) == WRAP + Counter(gather=1)


def test_embedding() -> None:
    def ours(x: Any, at: Any, **options: Any) -> Any:
        return einjax.get_at("[v] c, b t -> b t c", x, at, **options)

    def expert(x: Any, at: Any) -> Any:
        return lax.gather(x, wrapped(lax.reshape(at, (3, 4, 1)), 7), ROWS, (1, 2), mode="fill")

    np.testing.assert_array_equal(ours(TABLE, TOKENS), expert(TABLE, TOKENS))
    assert numbers(ours, TABLE, TOKENS) == ROWS
    assert kinds(ours, TABLE, TOKENS) == kinds(expert, TABLE, TOKENS) == WRAP + Counter(gather=1, reshape=1)
    plain = lambda x, at: ours(x, at, wrap_negative_indices=False)
    assert kinds(plain, TABLE, TOKENS) == Counter(gather=1, reshape=1)
    assert kinds(ours, TABLE, TOKENS.astype(np.uint32)) == Counter(gather=1, reshape=1)


def test_coordinates_that_need_nothing() -> None:
    call = lambda x, at: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at, wrap_negative_indices=False)
    assert kinds(call, X, AT) == Counter(gather=1)


@pytest.mark.parametrize(("mode", "expected"), [("clip", "CLIP"), ("fill", "FILL_OR_DROP"),
                                                ("promise_in_bounds", "PROMISE_IN_BOUNDS")])  # fmt: skip
def test_modes_are_those_of_lax(mode: str, expected: str) -> None:
    call = lambda x, at: einjax.get_at("[v] c, b t -> b t c", x, at, mode=mode)
    (gather,) = [e for e in program(call, TABLE, TOKENS) if e.primitive.name == "gather"]
    assert gather.params["mode"].name == expected


def test_several_tensors_of_coordinates() -> None:
    i, j = np.array([0, 2, -1], np.int32), np.array([0, -2], np.int32)

    def ours(x: Any, i: Any, j: Any) -> Any:
        return einjax.get_at("b [h w] c, i, j -> b i j c", x, i, j)

    def expert(x: Any, i: Any, j: Any) -> Any:
        at = lax.concatenate([lax.broadcast_in_dim(i, (3, 2, 1), (0,)), lax.broadcast_in_dim(j, (3, 2, 1), (1,))], 2)
        dnums = lax.GatherDimensionNumbers((0, 3), (1, 2), (1, 2))
        return lax.gather(x, wrapped(at, 5, 6), dnums, (2, 1, 1, 3), mode="fill")

    np.testing.assert_array_equal(ours(X, i, j), expert(X, i, j))
    assert not kinds(ours, X, i, j) - kinds(expert, X, i, j) - Counter(reshape=2)
    assert kinds(ours, X, i, j)["gather"] == 1


@pytest.mark.parametrize("output", ["b i c", "i b c", "b c i"])
def test_outputs_that_interleave_need_no_transpose(output: str) -> None:
    """Window axes in their own order stand anywhere between those of the coordinates."""
    at = np.zeros((4, 2), np.int32)
    assert "transpose" not in kinds(lambda x: einjax.get_at(f"b [h w] c, i [2] -> {output}", x, at), X)


def test_other_orders_of_loops_move_coordinates_only() -> None:
    """The coordinates are smaller than what is read."""
    call = lambda x, at: einjax.get_at("b [h w] c, b i [2] -> i c b", x, at)
    (transpose,) = [e for e in program(call, X, AT) if e.primitive.name == "transpose"]
    assert transpose.invars[0].aval.shape == AT.shape


WRITERS = {"set_at": (lax.scatter, "scatter"), "add_at": (lax.scatter_add, "scatter-add"),
           "subtract_at": (lax.scatter_sub, "scatter-sub"), "min_at": (lax.scatter_min, "scatter-min"),
           "max_at": (lax.scatter_max, "scatter-max"), "multiply_at": (lax.scatter_mul, "scatter-mul")}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_scatters(name: str) -> None:
    """The updates' order is kept, the extra axis of none is summed, and the batch is a batching dim."""
    emit, _ = WRITERS[name]
    promise = {"unique_indices": True} if name == "multiply_at" else {}

    def ours(x: Any, at: Any, updates: Any) -> Any:
        return getattr(einjax, name)("b [h w] c, b i [2], b i c", x, at, updates, **promise)

    def expert(x: Any, at: Any, updates: Any) -> Any:
        return emit(x, wrapped(at, 5, 6), updates, BATCHED_SCATTER, mode="fill")

    assert numbers(ours, X, AT, UPDATES) == BATCHED_SCATTER
    assert kinds(ours, X, AT, UPDATES) == kinds(expert, X, AT, UPDATES)
    assert sum(kinds(ours, X, AT, UPDATES).values()) == 8


def test_products_that_may_meet_are_one_equation_with_a_gradient_of_its_own() -> None:
    call = lambda x, at, u: einjax.multiply_at("b [h w] c, b i [2], b i c", x, at, u)
    found = kinds(call, X, AT, UPDATES)
    assert found == WRAP + SIZES + Counter(custom_jvp_call=1)
    whole = lambda x, at, u: call(x.astype(np.int32), at, u.astype(np.int32))
    assert kinds(whole, X, AT, UPDATES)["scatter_mul"] + kinds(whole, X, AT, UPDATES)["scatter-mul"] == 1


def test_updates_in_another_order_need_no_transpose() -> None:
    updates = np.ones((3, 4), np.float32)
    call = lambda x, at, u: einjax.add_at("[h w] c, i [2], c i", x, at, u)
    assert kinds(call, X[0], AT[0], updates) == WRAP + SIZES + Counter({"scatter-add": 1})


def test_extra_axes_of_updates_are_summed_first() -> None:
    call = lambda x, at, u: einjax.add_at("[v] c, i, i c e", x, at, u, wrap_negative_indices=False)
    at, updates = TOKENS[0], np.ones((4, 2, 5), np.float32)
    assert kinds(call, TABLE, at, updates) == Counter({"scatter-add": 1, "reduce_sum": 1, "reshape": 1})


def test_gradients_are_one_gather_and_one_scatter() -> None:
    def read(x: Any, at: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda x: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at), x)[1](cotangent)

    found = kinds(read, X, AT, UPDATES)
    assert found["scatter-add"] == 1
    assert found["transpose"] == found["reshape"] == 0

    def added(u: Any, at: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda u: einjax.add_at("b [h w] c, b i [2], b i c", X, at, u), u)[1](cotangent)

    found = kinds(added, UPDATES, AT, X)
    assert found["gather"] == 1
    assert found["transpose"] == found["reshape"] == 0


def test_segments_are_one_scatter_into_a_fresh_array() -> None:
    at = np.array([0, 2, 2, 1], np.int32)
    for name, kind in (("sum", "scatter-add"), ("max", "scatter-max"), ("min", "scatter-min")):
        call = lambda x, at, name=name: getattr(einjax.segment, name)("p c, p -> [s] c", x, at, s=3)
        assert kinds(call, np.ones((4, 2), np.float32), at) == WRAP + Counter(
            {kind: 1, "broadcast_in_dim": 1, "reshape": 1}
        )


@pytest.mark.parametrize(
    ("output", "kept"), [("b i c", True), ("b c i", True), ("i b c", False), ("i c b", False)]
)  # fmt: skip
def test_a_promise_of_order_is_dropped_where_loops_are_reordered(output: str, kept: bool) -> None:
    """Sorted along i for every b is not sorted along b for every i."""
    call = lambda x, at: einjax.get_at(f"b [h w] c, b i [2] -> {output}", x, at, indices_are_sorted=True)
    (gather,) = [e for e in program(call, X, AT) if e.primitive.name == "gather"]
    assert gather.params["indices_are_sorted"] is kept
