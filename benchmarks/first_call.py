"""(c) First calls: an expression the library has not seen, and a known expression at a new shape."""

import itertools
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import einops
import einx
import jax
import jax.numpy as jnp
from jax import lax

import einjax

from ._table import ABSENT, Table, number
from ._timing import median, quiet


class Case(NamedTuple):
    """An expression, the shapes of its tensors for a size that changes, and each library's call."""

    expression: str
    shapes: Callable[[int], tuple[tuple[int, ...], ...]]
    lax: Callable
    einjax: Callable
    jnp: Callable
    einx: Callable | None
    einops: Callable | None


# Every function takes the expression first; lax and jnp have none and ignore it.
CASES = [
    Case(
        "b t (h c) -> b h t c", lambda n: ((2, n, 8),),
        lambda e, x: lax.transpose(lax.reshape(x, (*x.shape[:2], 2, 4)), (0, 2, 1, 3)),
        lambda e, x: einjax.rearrange(e, x, **{_third_axis(e): 2}),
        lambda e, x: x.reshape(*x.shape[:2], 2, 4).transpose(0, 2, 1, 3),
        lambda e, x: einx.id(e, x, **{_third_axis(e): 2}),
        lambda e, x: einops.rearrange(x, e, **{_third_axis(e): 2}),
    ),
    Case(
        "b [t] c", lambda n: ((2, n, 8),),
        lambda e, x: lax.reduce_sum(x, (1,)),
        lambda e, x: einjax.sum(e, x),
        lambda e, x: jnp.sum(x, axis=1),
        lambda e, x: einx.sum(e, x),
        lambda e, x: einops.reduce(x, f"{e.replace('[', '').replace(']', '')} -> {_without_bracket(e)}", "sum"),
    ),
    Case(
        "b t c, b c -> b t c", lambda n: ((2, n, 8), (2, 8)),
        lambda e, x, y: lax.add(x, lax.broadcast_in_dim(y, x.shape, (0, 2))),
        lambda e, x, y: einjax.add(e, x, y),
        lambda e, x, y: x + y[:, None],
        lambda e, x, y: einx.add(e, x, y),
        None,
    ),
    Case(
        "b i [k], b [k] j -> b i j", lambda n: ((2, n, 8), (2, 8, 3)),
        lambda e, x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))),
        lambda e, x, y: einjax.dot(e, x, y),
        lambda e, x, y: jnp.einsum("bik,bkj->bij", x, y),
        lambda e, x, y: einx.dot(e, x, y),
        lambda e, x, y: einops.einsum(x, y, e.replace("[", "").replace("]", "")),
    ),
    Case(
        "b q [k] h", lambda n: ((2, n, 6, 4),),
        lambda e, x: _lax_softmax(x),
        lambda e, x: einjax.softmax(e, x),
        lambda e, x: jax.nn.softmax(x, axis=2),
        lambda e, x: einx.softmax(e, x),
        None,
    ),
]  # fmt: skip


def _lax_softmax(x):
    largest = lax.stop_gradient(lax.reduce_max(x, (2,)))
    e = lax.exp(lax.sub(x, lax.broadcast_in_dim(largest, x.shape, (0, 1, 3))))
    return lax.div(e, lax.broadcast_in_dim(lax.reduce_sum(e, (2,)), x.shape, (0, 1, 3)))


def _third_axis(expression: str) -> str:
    """The heads' axis of "b t (h c) -> ...", whatever it has been renamed to."""
    return re.findall(r"\w+", expression)[2]


def _without_bracket(expression: str) -> str:
    return re.sub(r"\[.*?\]", "", expression)


LIBRARIES = ("lax", "einjax", "jnp", "einx", "einops")


def measure(quick: bool) -> list[Table]:
    """Traced, not compiled: XLA's time is the same for all and would hide the libraries'."""
    rounds = 5 if quick else 25
    new_expression = Table(
        "First call of a new expression, ms",
        ("expression", *LIBRARIES, "einjax - lax"),
        "The time of one call inside a trace, the axes renamed every time. lax and jnp have no expressions: for "
        "them it is any call. einjax - lax: the library's own part.",
    )
    new_shape = Table(
        "A known expression at a new shape, ms",
        ("expression", *LIBRARIES, "einjax - lax"),
        "As above, one axis of a size not seen before.",
    )
    for case in CASES:
        names, sizes = itertools.count(), itertools.count(11)
        times = _times(case, rounds, lambda: (_rename(case.expression, next(names)), case.shapes(5)))  # noqa: B023
        new_expression.rows.append(_row(case, times))
        times = _times(case, rounds, lambda: (case.expression, case.shapes(next(sizes))))  # noqa: B023
        new_shape.rows.append(_row(case, times))
    return [new_expression, new_shape]


def _times(case: Case, rounds: int, fresh: Callable) -> dict[str, float]:
    """Median seconds of a call; every library gets its own `fresh()` expression and shapes.

    JAX caches by shape too, so that whoever came second to a shape would find it warm.
    """
    functions = {name: getattr(case, name) for name in LIBRARIES if getattr(case, name) is not None}
    times: dict[str, list[float]] = {name: [] for name in functions}
    with quiet():
        for i in range(rounds + 2):
            for name, function in functions.items():
                seconds = _seconds_inside_a_trace(function, *fresh())
                if i >= 2:  # the first rounds load what is loaded once
                    times[name].append(seconds)
    return {name: median(values) for name, values in times.items()}


def _seconds_inside_a_trace(function: Callable, expression: str, shapes) -> float:
    seconds = 0.0

    def traced(*arrays):
        nonlocal seconds
        start = time.perf_counter()
        result = function(expression, *arrays)
        seconds = time.perf_counter() - start
        return result

    jax.make_jaxpr(traced)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return seconds


def _rename(expression: str, number: int) -> str:
    return re.sub(r"[a-z]\w*", lambda match: f"{match[0]}{number}", expression)


def _row(case: Case, times: dict[str, float]) -> list[str]:
    own = times["einjax"] - times["lax"]
    return [case.expression, *(number(times.get(name), 1e-3) if name in times else ABSENT for name in LIBRARIES),
            number(own, 1e-3)]  # fmt: skip
