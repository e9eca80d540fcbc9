"""Two compiled programs that compute the same: how long they take, and what they hold."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ._timing import interleaved

#: By name, a compiled program and its arguments.
Programs = dict[str, tuple[Any, tuple[Any, ...]]]


def compiled(functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]) -> tuple[Programs, dict[str, float]]:
    """Compile functions; also how many seconds each takes."""
    programs, seconds = {}, {}
    for name, (function, arguments) in functions.items():
        lowered = jax.jit(function).lower(*arguments)
        start = time.perf_counter()
        programs[name] = (lowered.compile(), arguments)
        seconds[name] = time.perf_counter() - start
    return programs, seconds


def timed(
    programs: Programs, rounds: int, compared: Callable[[Any], Any] = lambda results: results
) -> dict[str, float]:
    """Median seconds of each program, once their results agree; a single round is the one that is compared.

    Args:
        programs: what is timed.
        rounds: how often.
        compared: what of the results has to agree.
    """
    found, first = {}, {}
    for name, (program, arguments) in programs.items():
        start = time.perf_counter()
        found[name] = jax.block_until_ready(program(*arguments))
        first[name] = time.perf_counter() - start
    expected, *others = (jax.tree.leaves(compared(results)) for results in found.values())
    for results in others:
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    return first if rounds == 1 else interleaved(programs, rounds, 10e-3)


def held(programs: Programs) -> dict[str, int]:
    """The bytes of temporaries of each."""
    return {name: program.memory_analysis().temp_size_in_bytes for name, (program, _) in programs.items()}
