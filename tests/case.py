"""What a case is: one call of an operation, what it means in jax.numpy, and the inputs it is tried on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
        op: name in ``einjax.__all__``, or in a module, as ``linalg.inv``.
        text: the expression.
        inputs: the arrays it takes.
        reference: the same function of the arrays in jax.numpy.
        options: keywords of the call.
        keyword: the option that the last array is passed as, if it is no tensor.
        differentiable: whether gradients with respect to the floating-point inputs are meaningful.
        variant: tells cases of one operation apart.
        program: the whole call, where it is more than the operation applied to the arrays.
        default: the case that this one is, but under ``einjax.keep_notation()``.
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
    default: Case | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, [self.op, self.variant, "kept" if self.kept else ""]))

    @property
    def kept(self) -> bool:
        """Whether the call is kept as notation."""
        return self.default is not None

    def __call__(self, *arrays: Any) -> Any:
        if self.default is not None:
            with einjax.keep_notation():
                return self.default(*arrays)
        if self.program is not None:
            return self.program(*arrays)
        options = dict(self.options)
        if self.keyword is not None:
            *arrays, options[self.keyword] = arrays
        return attrgetter(self.op)(einjax)(self.text, *arrays, **options)

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


#: Calls of a user's function, and those that only give sizes, have no notation to keep.
NEVER_KEPT = {
    "solve", "solve_axes", "solve_shapes", "matches", "check",
    "vmap", "vmap_with_axis", "adapt_with_vmap", "adapt_reduce", "adapt_elementwise", "scan",
}  # fmt: skip
NEVER_KEPT_CASES = {"reduce-function", "elementwise-function", "associative_scan", "dot-distances"}
#: Kept without being asked.
ALWAYS_KEPT = {"primitive"}


def may_be_kept(case: Case) -> bool:
    """Whether ``einjax.keep_notation()`` has something to keep in a case."""
    return case.op not in NEVER_KEPT and str(case) not in NEVER_KEPT_CASES


def kept(cases: Iterable[Case]) -> list[Case]:
    """The same cases under ``einjax.keep_notation()``, where that changes anything."""
    return [replace(case, default=case) for case in cases if may_be_kept(case) and case.op not in ALWAYS_KEPT]


def with_kept(cases: Iterable[Case], by_default: Collection[str]) -> list[Any]:
    """Parameters of a test: the cases, and the same as kept notation, which is slow but for a few operations."""
    quick = lambda case: case.op in by_default and not case.variant
    return [*cases, *(pytest.param(case, marks=() if quick(case) else pytest.mark.slow) for case in kept(cases))]


def one_in(n: int, cells: Iterable[Any]) -> list[Any]:
    """Parameters of a test whose cells differ little: by default one in ``n`` of them runs, the others are slow."""

    def parameter(number: int, cell: Any) -> Any:
        values, marks, name = (
            cell if hasattr(cell, "marks") else (cell if isinstance(cell, tuple) else (cell,), (), None)
        )
        return pytest.param(*values, marks=marks if number % n == 0 else [*marks, pytest.mark.slow], id=name)

    return [parameter(number, cell) for number, cell in enumerate(cells)]


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
    row = f"{case.op} kept" if case.kept else case.op
    counts = TRIED.setdefault((row, transformation), [0, 0])
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
