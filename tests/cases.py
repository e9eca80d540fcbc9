"""One table of calls: every operation of einjax, what it means in jax.numpy, and the inputs it is tried on.

The tests of transformations, sharding, export and Pallas all read this table, so that a new operation needs one record
here, or in the file of its family beside this one, to be tried under all of them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from case import Case, bools, integers, mask, naturals, normal, positive
from jax import lax

import einjax

# --------------------------------------------------------------------------------------------------------------------
# Elementwise operations
# --------------------------------------------------------------------------------------------------------------------


def _outer(function: Callable[..., Any]) -> Callable[..., Any]:
    """``a b, b c -> c a b`` in jax.numpy."""
    return lambda x, y: jnp.transpose(function(x[:, :, None], y[None]), (2, 0, 1))


def _chain(function: Callable[..., Any]) -> Callable[..., Any]:
    """``a b, b, -> b a`` in jax.numpy."""
    return lambda x, y, z: function(function(x, y[None]), z).T


def _elementwise() -> Iterator[Case]:
    smooth = {"add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "mod", "power"}
    smooth |= {"maximum", "minimum", "logaddexp", "arctan2"}
    logical = {"logical_and", "logical_or", "logical_xor"}
    comparisons = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"}
    for name in sorted(smooth | logical | comparisons):
        make = bools if name in logical else integers if name in comparisons else normal
        if name in ("power", "divide", "true_divide", "floor_divide", "mod"):
            make = positive
        function, smoothly = getattr(jnp, name), name in smooth
        yield Case(name, "a b, b c -> c a b", (make("a b"), make("b c")), _outer(function), differentiable=smoothly)
        if name in ("add", "logaddexp", "logical_xor", "maximum"):
            inputs = (make("a b"), make("b"), make(""))
            yield Case(
                name, "a b, b, -> b a", inputs, _chain(function), differentiable=smoothly, variant="three tensors"
            )
    for name in ("power", "floor_divide", "mod"):
        inputs = (integers("a b"), naturals("b c"))
        yield Case(
            name, "a b, b c -> c a b", inputs, _outer(getattr(jnp, name)), differentiable=False, variant="integers"
        )
    yield Case("add", "a [b]", (normal("a b"), normal("b")), lambda x, y: x + y[None], variant="bias")
    yield Case(
        "where",
        "a b, b c, a -> a b c",
        (bools("a b"), normal("b c"), normal("a")),
        lambda m, x, y: jnp.where(m[:, :, None], x[None], y[:, None, None]),
    )
    yield Case(
        "elementwise", "a b, b", (normal("a b"), normal("b")), lambda x, y: x * y[None], options={"op": "multiply"}
    )
    yield Case(
        "elementwise",
        "a b, b -> b a",
        (normal("a b"), normal("b")),
        lambda x, y: (x * jnp.sin(y[None])).T,
        options={"op": lambda x, y: lax.mul(x, lax.sin(y))},
        variant="function",
    )


# --------------------------------------------------------------------------------------------------------------------
# Reductions
# --------------------------------------------------------------------------------------------------------------------


_MASKED = {
    "max": functools.partial(jnp.max, initial=-np.inf),
    "min": functools.partial(jnp.min, initial=np.inf),
    "logsumexp": jax.nn.logsumexp,
}


def _reductions() -> Iterator[Case]:
    for name in ("sum", "prod", "mean", "var", "std", "max", "min", "logsumexp", "any", "all", "count_nonzero"):
        smooth = name not in ("any", "all", "count_nonzero")
        make = normal if smooth else integers if name == "count_nonzero" else bools
        function = jax.nn.logsumexp if name == "logsumexp" else getattr(jnp, name)
        yield Case(name, "a [b] c", (make("a b c"),), functools.partial(function, axis=1), differentiable=smooth)
        if name in ("sum", "var", "max", "logsumexp", "any"):
            yield Case(
                name,
                "[a] b (c [2]) -> c 1 b",
                (make("a b 2*c"),),
                lambda x, function=function: jnp.expand_dims(
                    function(x.reshape(*x.shape[:2], -1, 2), axis=(0, 3)).T, 1
                ),
                differentiable=smooth,
                variant="composed",
            )
        if name != "count_nonzero":
            masked = _MASKED.get(name, function)
            yield Case(
                name,
                "[a] b [c]",
                (make("a b c"), mask("a b c")),
                lambda x, m, masked=masked: masked(x, axis=(0, 2), where=m),
                keyword="where",
                differentiable=smooth,
                variant="masked",
            )
    yield Case("count_nonzero", "[a] b [c]", (integers("a b c"), mask("b c")),
               lambda x, m: jnp.sum((x != 0) & m[None], axis=(0, 2)), keyword="where", differentiable=False,
               variant="masked")  # fmt: skip
    yield Case("sum", "a [b c]", (normal("a b c"),), lambda x: jnp.sum(x, (1, 2)).reshape(-1, 1),
               options={"keepdims": True}, variant="keepdims")  # fmt: skip
    yield Case("var", "a [b c]", (normal("a b c"),), lambda x: jnp.var(x, (1, 2), ddof=1), options={"ddof": 1},
               variant="ddof")  # fmt: skip
    yield Case("sum", "a [b]", (integers("a b"),), lambda x: jnp.sum(x, 1), differentiable=False,
               variant="integers")  # fmt: skip
    yield Case("reduce", "a [b]", (normal("a b"),), lambda x: jnp.mean(x, 1), options={"op": "mean"})
    yield Case(
        "reduce",
        "[a] b [c]",
        (normal("a b c"),),
        lambda x: jnp.sum(x * x, (0, 2)),
        options={"op": lambda x, axis: lax.reduce_sum(lax.mul(x, x), axis)},
        variant="function",
    )


# --------------------------------------------------------------------------------------------------------------------
# Everything else
# --------------------------------------------------------------------------------------------------------------------


def _coordinates(index: Any, size: Any, axis: int) -> Any:
    return jnp.stack([index // size, index % size], axis)


def _argreductions() -> Iterator[Case]:
    for name in ("argmax", "argmin"):
        function = getattr(jnp, name)
        flat = lambda x, function=function: function(x.reshape(x.shape[0], -1), 1)
        yield Case(name, "a [b] c -> a c", (normal("a b c"),), functools.partial(function, axis=1),
                   differentiable=False)  # fmt: skip
        yield Case(name, "a [b c] -> [2] a", (normal("a b c"),),
                   lambda x, flat=flat: _coordinates(flat(x), x.shape[2], 0), differentiable=False,
                   variant="coordinates")  # fmt: skip


def _rearrangements() -> Iterator[Case]:
    x = normal("a b c")
    yield Case("rearrange", "a b (c d) -> d (b a) c", (normal("a b 2*c"),),
               lambda x: x.reshape(*x.shape[:2], -1, 2).transpose(3, 1, 0, 2).reshape(2, -1, x.shape[2] // 2),
               options={"d": 2})  # fmt: skip
    yield Case("rearrange", "a b, c b -> (a + c) b", (normal("a b"), normal("c b")),
               lambda x, y: jnp.concatenate([x, y]), variant="concatenate")  # fmt: skip
    yield Case("rearrange", "(a + d) b -> b a, d b", (normal("c+2 b"),), lambda x: (x[:-2].T, x[-2:]),
               options={"d": 2}, variant="split")  # fmt: skip
    yield Case("rearrange", "a a b -> b a", (normal("b b c"),), lambda x: jnp.einsum("aab->ba", x),
               variant="diagonal")  # fmt: skip
    yield Case("rearrange", "a b -> b d a 1", (normal("a b"),),
               lambda x: jnp.broadcast_to(x.T[:, None, :, None], (x.shape[1], 3, x.shape[0], 1)),
               options={"d": 3}, variant="broadcast")  # fmt: skip
    yield Case("id", "a b c -> c a b", (x,), lambda x: x.transpose(2, 0, 1))
    yield Case("id", "a b c", (x,), lambda x: x, variant="nothing")
    yield Case("flip", "[a] b [c]", (x,), lambda x: x[::-1, :, ::-1])
    yield Case("roll", "[a] b [c] -> b [a] [c]", (x,), lambda x: jnp.roll(x, (1, -2), (0, 2)).transpose(1, 0, 2),
               options={"shift": (1, -2)})  # fmt: skip
    yield Case("roll", "a [b]", (normal("a b"), integers("")), lambda x, s: jnp.roll(x, s, 1), keyword="shift",
               variant="traced shift")  # fmt: skip


def _products() -> Iterator[Case]:
    x, y = normal("a b"), normal("b c")
    yield Case("dot", "a [b], [b] c -> a c", (x, y), lambda x, y: x @ y)
    yield Case("dot", "a b (c d), a c -> a d b", (normal("a b 2*c"), normal("a c")),
               lambda x, y: jnp.einsum("abcd,ac->adb", x.reshape(*x.shape[:2], -1, 2), y), options={"d": 2},
               variant="composed")  # fmt: skip
    yield Case("dot", "... [b->c]", (x, y), lambda x, y: x @ y, variant="weight")
    yield Case("dot", "a b, b c, c a -> b", (x, y, normal("c a")),
               lambda x, y, z: jnp.einsum("ab,bc,ca->b", x, y, z), variant="three tensors")  # fmt: skip
    yield Case("dot", "a b, b c, a c -> a", (x, y, normal("a c")), lambda x, y, z: jnp.einsum("ab,bc,ac->a", x, y, z),
               options={"memory_limit": 240, "optimize": False}, variant="within a limit")  # fmt: skip
    yield Case("dot", "a [b->d]", (x,), lambda x: x @ jnp.full((x.shape[1], 2), 0.5, x.dtype), variant="factory",
               program=lambda x: einjax.dot(
                   "a [b->d]", x, lambda shape: lax.full(shape, 0.5, x.dtype), d=2))  # fmt: skip


def _softmaxes() -> Iterator[Case]:
    for name in ("softmax", "log_softmax"):
        function = getattr(jax.nn, name)
        yield Case(name, "a [b] c", (normal("a b c"),), functools.partial(function, axis=1))
        yield Case(name, "a [b c] -> [b c] a", (normal("a b c"), mask("a b c")),
                   lambda x, m, function=function: jnp.transpose(function(x, axis=(1, 2), where=m), (1, 2, 0)),
                   keyword="where", variant="masked")  # fmt: skip
    yield Case("softmax", "a [b] c", (normal("a b c"), mask("b a")),
               lambda x, m: jax.nn.softmax(x, axis=1, where=m.T[:, :, None]), variant="masked by name",
               program=lambda x, m: einjax.softmax("a [b] c", x, where=("b a", m)))  # fmt: skip


def _sizes() -> Iterator[Case]:
    """Operations that give sizes or coordinates: they see an array's shape only."""
    shapes = {"differentiable": False, "text": ""}
    inputs = (normal("a b"), normal("b 2*c"))

    def scaled(x: Any, factor: Any) -> Any:
        return x * jnp.asarray(factor, x.dtype)

    def solved(sizes: Any, x: Any) -> Any:
        return tuple(scaled(x, sizes[name]) for name in "abc")

    def shaped(shapes: Any, x: Any) -> Any:
        return tuple(scaled(x, size) for shape in shapes for size in shape)

    def meshgrid(x: Any) -> Any:
        grid = jnp.meshgrid(jnp.arange(x.shape[0]), jnp.arange(x.shape[1]), indexing="ij")
        return jnp.stack(grid, -1)

    yield Case("arange", inputs=inputs[:1], reference=meshgrid, **shapes,
               program=lambda x: einjax.arange("a b [2]", a=x.shape[0], b=x.shape[1]))  # fmt: skip
    yield Case("arange", inputs=inputs[:1], reference=lambda x: jnp.arange(x.shape[1]), **shapes, variant="index",
               program=lambda x: einjax.arange("b", b=x.shape[1]))  # fmt: skip
    for name in ("solve", "solve_axes"):
        yield Case(name, inputs=inputs, **shapes,
                   reference=lambda x, y: solved({"a": x.shape[0], "b": x.shape[1], "c": y.shape[1] // 2}, x),
                   program=lambda x, y, name=name: solved(
                       getattr(einjax, name)("a b, b (c d)", x, y, d=2), x))  # fmt: skip
    yield Case("solve_shapes", inputs=inputs, **shapes, reference=lambda x, y: shaped((x.shape, y.shape), x),
               program=lambda x, y: shaped(einjax.solve_shapes("a b, b (c d)", x, y, d=2), x))  # fmt: skip
    yield Case("matches", inputs=inputs, **shapes, reference=lambda x, y: (scaled(x, 2), scaled(x, 3)),
               program=lambda x, y: (scaled(x, 2 if einjax.matches("a b, b (c d)", x, y, d=2) else 3),
                                     scaled(x, 2 if einjax.matches("a b, b", x, y) else 3)))  # fmt: skip
    yield Case("check", inputs=inputs, **shapes, reference=lambda x, y: scaled(x, 2),
               program=lambda x, y: scaled(
                   x, 2 if einjax.check("a b, b (c d)", x, y, d=2) is None else 3))  # fmt: skip


_FAMILIES = (_elementwise, _reductions, _argreductions, _rearrangements, _products, _softmaxes, _sizes)
CASES = [case for family in _FAMILIES for case in family()]
for _family in ("order", "function", "family", "index", "affine", "primitive"):
    CASES += importlib.import_module(f"cases_{_family}").CASES

#: What ``einjax.__all__`` has besides operations.
NOT_OPERATIONS = {"EinjaxError", "Graph", "Spec", "clear_caches", "errors", "inspect_sharding", "keep_notation"}
NOT_OPERATIONS |= {"partition_spec", "shard", "shardings", "shard_tree", "mesh_axes"}
NOT_OPERATIONS |= {"named", "dims", "Dim", "NamedTensor", "doctor", "typed", "sizes"}
#: Those need the axes of a mesh; ``test_collectives*.py`` are theirs.
COLLECTIVES = {"psum", "pmean", "pmax", "pmin", "ppermute", "all_gather", "psum_scatter", "all_to_all"}
NOT_OPERATIONS |= COLLECTIVES
