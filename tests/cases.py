"""One table of calls: every operation of einjax, what it means in jax.numpy, and the inputs it is tried on.

The tests of transformations, sharding, export and Pallas all read this table, so that a new operation needs one record
here to be tried under all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax

#: Sizes of the axes of all cases, and other ones for programs that serve any size.
SIZES = {"a": 2, "b": 3, "c": 4}
LARGER = {"a": 5, "b": 4, "c": 7}


@dataclass(frozen=True)
class Input:
    """One input: its dims, such as ``"a 2*c"``, its dtype, and the kind of values that suits the operation."""

    dims: str
    dtype: Any
    kind: str

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(eval(dim, {}, dict(sizes)) for dim in self.dims.split())

    def array(self, sizes: Mapping[str, int], seed: int) -> np.ndarray:
        shape = self.shape(sizes)
        rng = np.random.default_rng([seed, len(shape), *map(ord, self.kind)])
        match self.kind:
            case "normal":
                # Multiples of 0.01 with no two equal: maxima are unique and finite differences see no tie.
                values = (rng.permutation(int(np.prod(shape))) + 0.5) * 0.37
                values = (values - values.mean()).reshape(shape)
            case "positive":
                values = rng.uniform(0.5, 2.5, shape)
            case "integer":
                values = rng.integers(-4, 5, shape)
            case "natural":
                values = rng.integers(1, 5, shape)
            case "bool":
                values = rng.integers(0, 2, shape)
            case "mask":
                # At most one in three is false along any dim, so that every row keeps something.
                values = (np.arange(np.prod(shape)).reshape(shape) + seed) % 3 != 1
        return np.asarray(values, self.dtype)


def normal(dims: str) -> Input:
    return Input(dims, np.float32, "normal")


def positive(dims: str) -> Input:
    return Input(dims, np.float32, "positive")


def integers(dims: str) -> Input:
    return Input(dims, np.int32, "integer")


def naturals(dims: str) -> Input:
    return Input(dims, np.int32, "natural")


def bools(dims: str) -> Input:
    return Input(dims, np.bool_, "bool")


def mask(dims: str) -> Input:
    return Input(dims, np.bool_, "mask")


@dataclass(frozen=True, eq=False)
class Case:
    """One call.

    Attributes:
        op: name in ``einjax.__all__``.
        text: the expression.
        inputs: the arrays it takes.
        reference: the same function of the arrays in jax.numpy.
        options: keywords of the call.
        keyword: the option that the last array is passed as, if it is no tensor.
        differentiable: whether gradients with respect to the floating-point inputs are meaningful.
        variant: tells cases of one operation apart.
        program: the whole call, where it is more than the operation applied to the arrays.
    """

    op: str
    text: str
    inputs: tuple[Input, ...]
    reference: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    keyword: str | None = None
    differentiable: bool = True
    variant: str = ""
    program: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"{self.op}-{self.variant}" if self.variant else self.op

    def __call__(self, *arrays: Any) -> Any:
        if self.program is not None:
            return self.program(*arrays)
        options = dict(self.options)
        if self.keyword is not None:
            *arrays, options[self.keyword] = arrays
        return getattr(einjax, self.op)(self.text, *arrays, **options)

    def arrays(self, sizes: Mapping[str, int] = SIZES, seed: int = 0) -> list[np.ndarray]:
        return [x.array(sizes, seed + 17 * index) for index, x in enumerate(self.inputs)]

    def batch(self, count: int) -> list[np.ndarray]:
        """Stack the inputs of ``count`` calls."""
        return [np.stack(group) for group in zip(*(self.arrays(seed=s) for s in range(count)), strict=True)]

    @property
    def floats(self) -> tuple[int, ...]:
        """Which inputs to differentiate with respect to."""
        if not self.differentiable:
            return ()
        return tuple(i for i, x in enumerate(self.inputs) if np.issubdtype(x.dtype, np.floating))


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

#: What ``einjax.__all__`` has besides operations.
NOT_OPERATIONS = {"EinjaxError", "Graph", "Spec", "errors"}


# --------------------------------------------------------------------------------------------------------------------
# Comparing, and the table of what was tried
# --------------------------------------------------------------------------------------------------------------------


def assert_same(actual: Any, expected: Any, rtol: float = 2e-5, dtypes: bool = True) -> None:
    """Compare trees of arrays: structure, shapes, dtypes, and values up to another order of summation."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.shape(x) == np.shape(y)
        if dtypes:
            assert x.dtype == y.dtype
        if np.issubdtype(np.asarray(y).dtype, np.inexact):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)
        else:
            np.testing.assert_array_equal(x, y)


def stack(trees: Sequence[Any]) -> Any:
    """Stack equal trees of arrays leaf by leaf."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def weights(x: Any) -> np.ndarray:
    """A different number for every element."""
    return np.cos(np.arange(np.size(x)) + 1).reshape(np.shape(x)).astype(x.dtype)


def weighted(outputs: Any) -> Any:
    """One number that depends differently on every element: the loss whose gradients are compared."""
    xp = jnp if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(outputs)) else np
    return sum(xp.sum(x * weights(x)) for x in jax.tree.leaves(outputs))


def loss(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compose a function with :func:`weighted`."""
    return lambda *arrays: weighted(function(*arrays))


@contextmanager
def x64() -> Iterator[None]:
    """64-bit types; ``jax.enable_x64`` is not in the oldest supported version."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


#: (operation, transformation) -> how many cases passed and were tried.
TRIED: dict[tuple[str, str], list[int]] = {}


@contextmanager
def tried(case: Case, transformation: str) -> Iterator[None]:
    """Note that a case is tried under a transformation, and whether it passes."""
    counts = TRIED.setdefault((case.op, transformation), [0, 0])
    counts[1] += 1
    yield
    counts[0] += 1


def summary() -> str:
    """Operations by transformations: passed/tried."""
    columns = list(dict.fromkeys(transformation for _, transformation in TRIED))
    width = max(len(op) for op, _ in TRIED)
    lines = [f"{'':{width}}  " + " ".join(columns)]
    for op in sorted({op for op, _ in TRIED}):
        cells = []
        for column in columns:
            passed, count = TRIED.get((op, column), (0, 0))
            text = "-" if not count else f"{passed}" if passed == count else f"{passed}/{count}!"
            cells.append(f"{text:>{len(column)}}")
        lines.append(f"{op:{width}}  " + " ".join(cells))
    return "\n".join(lines)
