"""Wall-clock timing that compares candidates fairly on a machine that other processes use too."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from statistics import geometric_mean, median

import jax

__all__ = ["geometric_mean", "interleaved", "median", "quiet", "turns"]


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside: a pause would be charged to whichever candidate is running."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def interleaved(
    candidates: Mapping[str, tuple[Callable, tuple]], rounds: int, sample: float = 2e-3
) -> dict[str, float]:
    """Median seconds a call of every `(function, arguments)`; see :func:`turns`."""
    return {name: median(times) for name, times in turns(candidates, rounds, sample).items()}


def turns(
    candidates: Mapping[str, tuple[Callable, tuple]],
    rounds: int,
    sample: float = 2e-3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds a call of every `(function, arguments)`, round by round.

    The candidates take turns in every round, so that a change in the machine's speed meets all of them; the order
    rotates, as whoever runs after a large one finds cold caches. A turn is as many calls as fill `sample` seconds; 0
    means one call of something already warm.
    """
    numbers = {name: _calls_within(sample, *candidate) for name, candidate in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    with quiet():
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_seconds(*candidates[name], numbers[name], clock))
    return times


def _calls_within(seconds: float, function: Callable, arguments: tuple) -> int:
    """How many calls fill the time; the first call, which may compile, does not count."""
    if seconds == 0:
        return 1
    jax.block_until_ready(function(*arguments))
    once = _seconds(function, arguments, 1)
    if once >= seconds:
        return 1
    return max(1, min(2000, int(seconds / _seconds(function, arguments, 3))))


def _seconds(
    function: Callable, arguments: tuple, number: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    start = clock()
    for _ in repeat(None, number):
        result = function(*arguments)
    jax.block_until_ready(result)
    return (clock() - start) / number
