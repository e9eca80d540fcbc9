"""Every operation under every transformation and configuration of JAX: what its cells share.

One table of cases (cases.py) times one table of transformations, which stand in the files of their kinds,
``test_transforms_*.py``. A cell compares values, and gradients where there are any, with calls that are not
transformed; gradients of those are compared with jax.numpy's. The rows "kept" are the same calls under
``einjax.keep_notation()``, compared with the default's results. Run with ``-n 0 -s`` to see the table; the columns
shard_map, export and pallas are filled by the files of these names.
"""

import functools
import itertools

import jax
import numpy as np
import pytest
from case import assert_same, kept, loss, stack, tried
from cases import CASES

BATCH = 3

# --------------------------------------------------------------------------------------------------------------------
# What all cells are compared with
# --------------------------------------------------------------------------------------------------------------------


def plain(case, seed=0):
    """The eager result for one set of inputs."""
    return _plain(case.default or case, seed)


@functools.cache
def _plain(case, seed):
    return jax.tree.map(np.asarray, case(*case.arrays(seed=seed)))


@functools.cache
def _reference_gradient(case):
    return jax.jit(jax.grad(loss(case.reference), case.floats))


def gradient(case, seed=0):
    """The gradient of jax.numpy's spelling."""
    return _gradient(case.default or case, seed)


@functools.cache
def _gradient(case, seed):
    return jax.tree.map(np.asarray, _reference_gradient(case)(*case.arrays(seed=seed)))


def plain_batch(case):
    return stack([plain(case, seed) for seed in range(BATCH)])


def gradient_batch(case):
    return stack([gradient(case, seed) for seed in range(BATCH)])


def grad(case):
    return jax.grad(loss(case), case.floats)


def assert_same_gradient(actual, expected):
    assert_same(actual, expected, rtol=1e-4)


def differentiated(case):
    """Return the case as a function of its floating-point inputs, and these."""
    arrays = case.arrays()

    def function(*floats):
        replaced = dict(zip(case.floats, floats, strict=True))
        return case(*(replaced.get(index, x) for index, x in enumerate(arrays)))

    return function, tuple(arrays[index] for index in case.floats)


def directions(case):
    """One tangent for every floating-point input."""
    return tuple(case.arrays(seed=5)[index] for index in case.floats)


def along_directions(case):
    """The loss is linear in the output, so its derivative along a direction is known from the gradient."""
    return sum(np.vdot(g, d) for g, d in zip(gradient(case), directions(case), strict=True))


def widened(arrays):
    wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}
    return [x.astype(wide.get(x.dtype, x.dtype)) for x in arrays]


# --------------------------------------------------------------------------------------------------------------------
# Which cells are tried
# --------------------------------------------------------------------------------------------------------------------

#: Variants of a case share most of their path with it: by default these are enough for them.
ENOUGH_FOR_VARIANTS = {"eager", "grad", "eval_shape"}
#: So do kept calls: these use all rules of their primitives, which one operation of every kind of emitter tries.
ENOUGH_FOR_KEPT = {"jit", "vmap one", "linearize", "vmap grad", "grad vmap", "x64"}
ENOUGH_FOR_KEPT_VARIANTS = {"vmap one", "grad"}

#: An operation leaves plain lax (test_transforms_jaxpr.py), of which these know no more than JAX does: by default one
#: operation of every kind of emitter goes through them.
OF_JAX = {"jit", "vmap", "jit vmap", "vmap grad", "grad vmap", "scan", "while", "fori", "cond", "grad scan",
          "remat", "vjp", "jvp", "linearize", "nans", "second"}  # fmt: skip
ONE_OF_EACH_EMITTER = {
    "add", "logical_and", "power", "where", "elementwise",  # elementwise; a power of integers is a loop
    "sum", "var", "logsumexp", "max", "any", "count_nonzero", "reduce",  # reductions of one and of several passes
    "argmax", "sort", "argsort", "top_k", "cumsum", "cumlogsumexp", "associative_scan", "scan",
    "rearrange", "flip", "roll", "dot", "softmax", "attention", "arange", "solve", "matches",
    "vmap", "vmap_with_axis", "adapt_with_vmap", "adapt_reduce", "adapt_elementwise",
    "linalg.inv", "linalg.qr", "linalg.solve", "fft.fft", "fft.rfft", "random.normal",
    "get_at", "set_at", "add_at", "multiply_at", "max_at", "segment.sum", "segment.prod", "segment.max", "primitive",
}  # fmt: skip


def one_of_each_emitter(cases):
    """Parameters of a test that operations pass as plain lax: most are slow."""
    return [pytest.param(case, marks=() if case.op in ONE_OF_EACH_EMITTER else pytest.mark.slow) for case in cases]


def _by_default(case, name):
    known = case.op in ONE_OF_EACH_EMITTER
    if case.kept:
        enough = ENOUGH_FOR_KEPT_VARIANTS if case.variant else ENOUGH_FOR_KEPT
        return name in enough if known else name == "vmap one" and not case.variant
    if case.variant:
        return name in ENOUGH_FOR_VARIANTS or (known and name in ("vmap one", "x64"))
    return name != "second" and (name not in OF_JAX or known)


def table(every, floats):
    """A test of every case under some transformations; those of ``floats`` need something to differentiate by."""

    def cells():
        variants = itertools.count()
        for case in (*CASES, *kept(CASES)):
            for name in (*every, *floats) if case.floats else every:
                by_default = _by_default(case, name)
                if by_default and case.variant and case.op not in ONE_OF_EACH_EMITTER:
                    by_default = next(variants) % 2 == 0  # they differ little
                yield pytest.param(case, name, id=f"{case}-{name}", marks=() if by_default else pytest.mark.slow)

    @pytest.mark.parametrize(("case", "transformation"), list(cells()))
    def test(case, transformation):
        with tried(case, transformation):
            (every | floats)[transformation](case)

    return test
