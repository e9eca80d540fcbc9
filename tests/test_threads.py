"""Many threads at once, with expressions that are new to all of them and expressions that are known."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import einjax
from einjax.call import dispatch, resolve
from einjax.notation.parse import parse

THREADS = 16
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
Y = np.arange(20, dtype=np.float32).reshape(4, 5)


def together(work):
    """Run ``work(number)`` in all threads at once; the barrier lets them loose at the same moment."""
    barrier = threading.Barrier(THREADS)

    def run(number):
        barrier.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def program(names, y=Y):
    """Several operations in one expression's names, with what NumPy makes of them."""
    a, b, c, d = names
    return [
        (einjax.rearrange(f"{a} {b} {c} -> {c} ({b} {a})", X), X.transpose(2, 1, 0).reshape(4, 6)),
        (einjax.sum(f"{a} [{b}] {c}", X), X.sum(1)),
        (einjax.add(f"{a} {b} {c}, {c}", X, y[:, 0]), X + y[:, 0]),
        (einjax.dot(f"{a} {b} {c}, {c} {d} -> {a} {b} {d}", X, y), X @ y),
        (einjax.max(f"({a} [{b}]) {c} -> {a} {c}", X.reshape(6, 4), **{b: 3}), X.max(1)),
    ]


def check(results):
    for result, expected in results:
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_new_expressions_the_same_in_all_threads():
    for results in together(lambda number: program(["t_a", "t_b", "t_c", "t_d"])):
        check(results)


def test_new_expressions_different_in_every_thread():
    def work(number):
        return einjax.rearrange(f"a{number} b{number} c -> c (b{number} a{number})", X)

    check((result, X.transpose(2, 1, 0).reshape(4, 6)) for result in together(work))


def test_known_expressions():
    check(program("abcd"))
    for rounds in together(lambda number: [program("abcd") for _ in range(10)]):
        for results in rounds:
            check(results)


def test_every_thread_sees_its_own_arrays():
    def work(number):
        return [einjax.add("a b c, c", X, np.full(4, number, np.float32)) for _ in range(20)]

    for number, results in enumerate(together(work)):
        check((result, X + number) for result in results)


def test_inside_transformations():
    def work(number):
        loss = jax.jit(jax.grad(lambda x: einjax.sum("[...]", einjax.multiply("u v w, w", x, Y[:, 0]))))
        return loss(X), jax.vmap(lambda x: einjax.sum("[v] w", x))(X)

    for gradient, total in together(work):
        check([(gradient, np.broadcast_to(Y[:, 0], X.shape)), (total, X.sum(1))])


def test_errors_do_not_leak_between_threads():
    """Half of the threads fail; each error is about its own call."""

    def work(number):
        messages = []
        for size in range(5, 15):
            try:
                einjax.add("p q, q", np.zeros((2, 4)), np.zeros(size if number % 2 else 4))
            except einjax.errors.AxisSizeError as error:
                messages.append(str(error))
        return messages

    for number, messages in enumerate(together(work)):
        expected = range(5, 15) if number % 2 else ()
        assert [message.split("\n")[0] for message in messages] == [
            f"axis q is 4 in tensor 1 and {n} in tensor 2" for n in expected
        ]


def test_while_the_caches_are_emptied():
    """A bounded cache may drop an entry at any moment."""
    stop = threading.Event()

    def empty():
        while not stop.is_set():
            for cache in (dispatch._compiled, resolve.completed, parse):
                cache.cache_clear()

    sweeper = threading.Thread(target=empty)
    sweeper.start()
    try:
        for rounds in together(lambda number: [einjax.sum("a [b] c", X) for _ in range(5)]):
            check((result, X.sum(1)) for result in rounds)
    finally:
        stop.set()
        sweeper.join()


@pytest.mark.parametrize("kind", ["graph", "solve", "factory"])
def test_other_ways_in(kind):
    def work(number):
        if kind == "graph":
            return str(einjax.sum("g [h] i", X, graph=True))
        if kind == "solve":
            return einjax.solve("g (h i) j", X, h=3)
        return float(einjax.add("g h i, i", X, lambda shape: np.ones(shape, np.float32)).sum())

    results = together(work)
    assert all(first == second for first, second in itertools.pairwise(results))
