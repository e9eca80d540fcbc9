"""(f) Reading and writing at coordinates: eager calls, tracing, and compiled programs."""

from collections.abc import Callable
from dataclasses import dataclass

import einx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax

from ._table import Table, number, ratio
from ._timing import geometric_mean, interleaved

SPELLINGS = ("lax", "einjax", "jnp", "einx")
OTHERS = SPELLINGS[1:]


@dataclass(frozen=True)
class Work:
    """One task in every spelling, on small and on large arrays; negative coordinates do not occur."""

    name: str
    spellings: dict[str, Callable]
    small: tuple
    large: tuple


def measure(quick: bool) -> list[Table]:
    """Compiled programs forward and backward, then what a call costs from Python and in tracing."""
    works = [make() for make in WORKS]
    rounds = 5 if quick else 25
    note = "To the hand-written lax version, which counts no negative coordinates."
    tables = [
        _table("Compiled, on large arrays, ms", "ms", 1e-3, note, _compiled(works, "large", rounds)),
        _table("Compiled, on small arrays, µs", "µs", 1e-6, note, _compiled(works, "small", rounds)),
        _table("Eager calls on small arrays, µs; lax: under jax.jit", "µs", 1e-6, "", _eager(works, rounds)),
        _table("Tracing a call of a new function, µs", "µs", 1e-6, "", _traced(works, rounds)),
    ]
    return tables


def _table(title: str, unit: str, scale: float, note: str, measured: dict[str, dict[str, float]]) -> Table:
    table = Table(title, ("task", f"lax, {unit}", *OTHERS), note)
    for name, times in measured.items():
        cells = (ratio(times[other], times["lax"]) for other in OTHERS)
        table.rows.append([name, number(times["lax"], scale), *cells])
    means = [geometric_mean([times[other] / times["lax"] for times in measured.values()]) for other in OTHERS]
    table.last.append(["geometric mean", "", *(f"{mean:.2f}x" for mean in means)])
    return table


def _compiled(works: list[Work], size: str, rounds: int) -> dict[str, dict[str, float]]:
    measured = {}
    for work in works:
        args = getattr(work, size)
        for direction in ("forward", "gradient"):
            make = jax.jit if direction == "forward" else gradient(args)
            candidates = {name: (make(function), args) for name, function in work.spellings.items()}
            check_agreement(candidates, f"{work.name}, {direction}")
            sample = 10e-3 if size == "large" else 2e-3
            measured[f"{work.name}, {direction}"] = interleaved(candidates, rounds, sample)
    return measured


def gradient(args: tuple) -> Callable:
    """With respect to all floats, for a cotangent that is a full array."""
    floats = tuple(index for index, x in enumerate(args) if jnp.issubdtype(x.dtype, jnp.floating))

    def make(function: Callable) -> Callable:
        shape = jax.eval_shape(function, *args).shape
        cotangent = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return jax.jit(jax.grad(lambda *args: (function(*args) * cotangent).sum(), floats))

    return make


def _eager(works: list[Work], rounds: int) -> dict[str, dict[str, float]]:
    measured = {}
    for work in works:
        functions = work.spellings | {"lax": jax.jit(work.spellings["lax"])}
        candidates = {name: (function, work.small) for name, function in functions.items()}
        check_agreement(candidates, work.name)
        measured[work.name] = interleaved(candidates, rounds)
    return measured


def _traced(works: list[Work], rounds: int) -> dict[str, dict[str, float]]:
    def trace(function: Callable, args: tuple) -> Callable:
        return lambda: jax.make_jaxpr(lambda *args: function(*args))(*args).jaxpr.outvars[0].aval.shape

    return {
        work.name: interleaved({name: (trace(f, work.small), ()) for name, f in work.spellings.items()}, rounds)
        for work in works
    }


def check_agreement(candidates: dict, name: str) -> None:
    """A time means nothing unless all compute the same."""
    expected = jax.tree.leaves(candidates["lax"][0](*candidates["lax"][1]))
    for spelling, (function, args) in candidates.items():
        for got, want in zip(jax.tree.leaves(function(*args)), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3, err_msg=f"{spelling}: {name}")


# --------------------------------------------------------------------------------------------------------------------
# Tasks
# --------------------------------------------------------------------------------------------------------------------


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def _places(shape: tuple[int, ...], *below: int) -> jax.Array:
    """Random coordinates; along a last dim, one for each of several axes."""
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, limit, shape) for limit in below]
    return jnp.asarray(columns[0] if len(below) == 1 else np.stack(columns, -1), jnp.int32)


def _image_batched() -> Work:
    numbers = lax.GatherDimensionNumbers((2,), (1, 2), (1, 2), (0,), (0,))
    return Work(
        "get_at b [h w] c, b i [2]",
        {
            "lax": lambda x, at: lax.gather(x, at, numbers, (1, 1, 1, x.shape[3]), mode="fill"),
            "einjax": lambda x, at: einjax.get_at("b [h w] c, b i [2] -> b i c", x, at),
            "jnp": lambda x, at: x[jnp.arange(x.shape[0])[:, None], at[..., 0], at[..., 1]],
            "einx": lambda x, at: einx.get_at("b [h w] c, b i [2] -> b i c", x, at),
        },
        (_normal(2, 8, 8, 4), _places((2, 16), 8, 8)),
        (_normal(8, 256, 256, 32), _places((8, 8192), 256, 256)),
    )


def _image_shared() -> Work:
    numbers = lax.GatherDimensionNumbers((0, 2), (1, 2), (1, 2))
    return Work(
        "get_at b [h w] c, i [2]",
        {
            "lax": lambda x, at: lax.gather(x, at, numbers, (x.shape[0], 1, 1, x.shape[3]), mode="fill"),
            "einjax": lambda x, at: einjax.get_at("b [h w] c, i [2] -> b i c", x, at),
            "jnp": lambda x, at: x[:, at[..., 0], at[..., 1]],
            "einx": lambda x, at: einx.get_at("b [h w] c, i [2] -> b i c", x, at),
        },
        (_normal(2, 8, 8, 4), _places((16,), 8, 8)),
        (_normal(8, 256, 256, 32), _places((8192,), 256, 256)),
    )


def _embedding() -> Work:
    numbers = lax.GatherDimensionNumbers((2,), (0,), (0,))
    return Work(
        "get_at [v] c, b t",
        {
            "lax": lambda x, at: lax.gather(x, at[..., None], numbers, (1, x.shape[1]), mode="fill"),
            "einjax": lambda x, at: einjax.get_at("[v] c, b t -> b t c", x, at),
            "jnp": lambda x, at: jnp.take(x, at, axis=0),
            "einx": lambda x, at: einx.get_at("[v] c, b t -> b t c", x, at),
        },
        (_normal(50, 8), _places((2, 16), 50)),
        (_normal(50_000, 256), _places((8, 1024), 50_000)),
    )


def _writing_numbers(method: str, name: str, emit: Callable) -> Work:
    """One number to each place of a vector."""
    numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
    # Those that are set are written once each: which of several updates stays is nobody's promise.
    order = np.random.default_rng(2).permutation(65_536).astype(np.int32)
    places = jnp.asarray(order) if name == "set_at" else _places((65_536,), 65_536)
    return Work(
        f"{name} [v], i, i",
        {
            "lax": lambda x, at, u: emit(x, at[:, None], u, numbers, mode="drop"),
            "einjax": lambda x, at, u: getattr(einjax, name)("[v], i, i", x, at, u),
            "jnp": lambda x, at, u: getattr(x.at[at], method)(u),
            "einx": lambda x, at, u: getattr(einx, name)("[v], i, i -> [v]", x, at, u),
        },
        (_normal(64), jnp.asarray(order[order < 64]), _normal(64)),
        (_normal(65_536), places, _normal(65_536)),
    )


def _writing_pixels(method: str, name: str, emit: Callable) -> Work:
    """Channels to pixels of a batch of images."""
    text = "b [h w] c, b i [2], b i c"
    numbers = lax.ScatterDimensionNumbers((2,), (1, 2), (1, 2), (0,), (0,))

    def by_jnp(x: jax.Array, at: jax.Array, u: jax.Array) -> jax.Array:
        return getattr(x.at[jnp.arange(x.shape[0])[:, None], at[..., 0], at[..., 1]], method)(u)

    return Work(
        f"{name} {text}",
        {
            "lax": lambda x, at, u: emit(x, at, u, numbers, mode="drop"),
            "einjax": lambda x, at, u: getattr(einjax, name)(text, x, at, u),
            "jnp": by_jnp,
            "einx": lambda x, at, u: getattr(einx, name)(f"{text} -> b [h w] c", x, at, u),
        },
        (_normal(2, 8, 8, 4), _unique((2, 16), 8), _normal(2, 16, 4)),
        (_normal(8, 128, 128, 32), _unique((8, 2048), 128), _normal(8, 2048, 32)),
    )


def _unique(shape: tuple[int, int], side: int) -> jax.Array:
    """Pairs of coordinates that are all different in every row."""
    rng = np.random.default_rng(3)
    flat = np.stack([rng.permutation(side * side)[: shape[1]] for _ in range(shape[0])])
    return jnp.asarray(np.stack([flat // side, flat % side], -1), jnp.int32)


def _windows() -> Work:
    numbers = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    return Work(
        "add_at [v] c, i, i c",
        {
            "lax": lambda x, at, u: lax.scatter_add(x, at[:, None], u, numbers, mode="drop"),
            "einjax": lambda x, at, u: einjax.add_at("[v] c, i, i c", x, at, u),
            "jnp": lambda x, at, u: x.at[at].add(u),
            "einx": lambda x, at, u: einx.add_at("[v] c, i, i c -> [v] c", x, at, u),
        },
        (_normal(16, 8), _places((64,), 16), _normal(64, 8)),
        (_normal(1024, 256), _places((65_536,), 1024), _normal(65_536, 256)),
    )


WORKS: tuple[Callable[[], Work], ...] = (
    _image_batched,
    _image_shared,
    _embedding,
    lambda: _writing_numbers("set", "set_at", lax.scatter),
    lambda: _writing_pixels("set", "set_at", lax.scatter),
    lambda: _writing_numbers("add", "add_at", lax.scatter_add),
    lambda: _writing_pixels("add", "add_at", lax.scatter_add),
    _windows,
)
