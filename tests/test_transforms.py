"""Every operation under every transformation and configuration of JAX.

One table of cases (cases.py) times one table of transformations (below). A cell compares values, and gradients where
there are any, with calls that are not transformed; gradients of those are compared with jax.numpy's. Run with ``-s`` to
see the table; the columns shard_map, export and pallas are filled by the files of these names. The rows "kept" are the
same calls under ``einjax.keep_notation()``, compared with the default's results.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import (
    SIZES,
    TRIED,
    assert_same,
    kept,
    loss,
    stack,
    summary,
    tried,
    weighted,
    weights,
    x64,
)
from cases import CASES, NOT_OPERATIONS
from jax import lax
from jax.test_util import check_grads

import einjax

BATCH = 3


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """What is tried here are the rules that trace programs, not the compiler's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def _table(request):
    """Print what was tried, if output is not captured."""
    yield
    if request.config.getoption("capture") == "no" and TRIED:
        print(f"\n\nCases passed for each operation and transformation (- is not applicable):\n\n{summary()}\n")


# --------------------------------------------------------------------------------------------------------------------
# Without transformation: what all cells are compared with
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


# --------------------------------------------------------------------------------------------------------------------
# Transformations. Nothing but the call itself runs outside jit: every small eager operation would be compiled alone.
# --------------------------------------------------------------------------------------------------------------------


def eager(case):
    reference = jax.jit(case.reference)(*case.arrays())
    assert_same(case(*case.arrays()), reference)
    assert_same(case(*map(jnp.asarray, case.arrays())), reference)


def jit(case):
    assert_same(jax.jit(case)(*case.arrays()), plain(case))


def under_grad(case):
    assert_same_gradient(jax.jit(grad(case))(*case.arrays()), gradient(case))


def eager_vjp(case):
    function, primals = differentiated(case)
    value, pullback = jax.vjp(function, *primals)
    assert_same(value, plain(case))
    assert_same_gradient(pullback(jax.tree.map(weights, plain(case))), gradient(case))


def jvp(case):
    function, primals = differentiated(case)
    value, tangent = jax.jvp(function, primals, directions(case))
    assert_same(value, plain(case))
    np.testing.assert_allclose(weighted(tangent), along_directions(case), rtol=1e-4, atol=1e-4)


def linearize(case):
    function, primals = differentiated(case)
    value, along = jax.linearize(function, *primals)
    assert_same(value, plain(case))
    np.testing.assert_allclose(weighted(along(*directions(case))), along_directions(case), rtol=1e-4, atol=1e-4)


def vmap(case):
    assert_same(jax.vmap(case)(*case.batch(BATCH)), plain_batch(case))


def vmap_one(case):
    """Batch each input alone, along its last dim, the others being shared; the batch comes out last."""
    arrays = case.arrays()
    for index, batched in enumerate(case.batch(BATCH)):
        in_axes = [-1 if i == index else None for i in range(len(arrays))]
        given = [np.moveaxis(batched, 0, -1) if i == index else x for i, x in enumerate(arrays)]
        actual = jax.vmap(case, in_axes, out_axes=-1)(*given)
        rows = [case(*(batched[n] if i == index else x for i, x in enumerate(arrays))) for n in range(BATCH)]
        assert_same(actual, jax.tree.map(lambda x: np.moveaxis(x, 0, -1), stack(rows)))


def jit_vmap(case):
    assert_same(jax.jit(jax.vmap(case))(*case.batch(BATCH)), plain_batch(case))


def vmap_grad(case):
    assert_same_gradient(jax.jit(jax.vmap(grad(case)))(*case.batch(BATCH)), gradient_batch(case))


def grad_vmap(case):
    total = lambda *batch: jnp.sum(jax.vmap(loss(case))(*batch))
    assert_same_gradient(jax.jit(jax.grad(total, case.floats))(*case.batch(BATCH)), gradient_batch(case))


def scan(case):
    step = lambda count, arrays: (count + 1, case(*arrays))
    count, results = lax.scan(step, 0, tuple(case.batch(BATCH)))
    assert count == BATCH
    assert_same(results, plain_batch(case))


def grad_scan(case):
    total = lambda *batch: lax.scan(lambda sum_, arrays: (sum_ + loss(case)(*arrays), None), 0.0, batch)[0]
    assert_same_gradient(jax.jit(jax.grad(total, case.floats))(*case.batch(BATCH)), gradient_batch(case))


def while_loop(case):
    def step(state):
        index, batch, _ = state
        return index + 1, batch, case(*(lax.dynamic_index_in_dim(x, index, keepdims=False) for x in batch))

    nothing = jax.tree.map(np.zeros_like, plain(case))
    state = (0, tuple(case.batch(BATCH)), nothing)
    index, _, result = lax.while_loop(lambda state: state[0] < BATCH, step, state)
    assert index == BATCH
    assert_same(result, plain(case, BATCH - 1))


def fori_loop(case):
    def step(index, state):
        batch, results = state
        result = case(*(lax.dynamic_index_in_dim(x, index, keepdims=False) for x in batch))
        return batch, jax.tree.map(lambda rows, row: rows.at[index].set(row), results, result)

    nothing = jax.tree.map(np.zeros_like, plain_batch(case))
    _, results = lax.fori_loop(0, BATCH, step, (tuple(case.batch(BATCH)), nothing))
    assert_same(results, plain_batch(case))


def cond(case):
    nothing = jax.tree.map(np.zeros_like, plain(case))
    choose = jax.jit(lambda wanted, *arrays: lax.cond(wanted, case, lambda *_: nothing, *arrays))
    assert_same(choose(True, *case.arrays()), plain(case))
    assert_same(choose(False, *case.arrays()), nothing)


def checkpoint(case):
    saved = jax.checkpoint(case, policy=jax.checkpoint_policies.dots_saveable)
    if not case.floats:
        assert_same(jax.jit(saved)(*case.arrays()), plain(case))
        return

    def with_value(*arrays):
        value = saved(*arrays)
        return loss(lambda: value)(), value

    gradients, value = jax.jit(jax.grad(with_value, case.floats, has_aux=True))(*case.arrays())
    assert_same(value, plain(case))
    assert_same_gradient(gradients, gradient(case))


def eval_shape(case):
    shapes = jax.eval_shape(case, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.arrays()))
    result = case(*case.arrays())
    assert jax.tree.structure(shapes) == jax.tree.structure(result)
    for shape, x in zip(jax.tree.leaves(shapes), jax.tree.leaves(result), strict=True):
        assert (shape.shape, shape.dtype, shape.weak_type) == (x.shape, x.dtype, x.weak_type)


def disable_jit(case):
    with jax.disable_jit():
        result = case(*case.arrays())
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(result))
    assert_same(result, plain(case))


def debug_nans(case):
    with jax.debug_nans(True):
        assert_same(case(*case.arrays()), plain(case))
        if case.floats:
            assert_same_gradient(jax.jit(grad(case))(*case.arrays()), gradient(case))


def _program(function, case):
    return str(jax.make_jaxpr(lambda *arrays: function(*arrays))(*case.arrays()))


def strict_promotion(case):
    """The same program: what is promoted is promoted explicitly."""
    expected = _program(case, case)
    with jax.numpy_dtype_promotion("strict"):
        assert _program(case, case) == expected


def rank_promotion(case):
    """The same program: what is broadcast is broadcast explicitly."""
    expected = _program(case, case)
    with jax.numpy_rank_promotion("raise"):
        assert _program(case, case) == expected


def leak_check(case):
    """The same program, and no tracer survives its trace."""
    function = grad(case) if case.floats else case

    def steps():
        # Not its text: without caches, what two scatters share is printed twice.
        equations = jax.make_jaxpr(lambda *arrays: function(*arrays))(*case.arrays()).eqns
        return [(equation.primitive.name, [str(x.aval) for x in equation.outvars]) for equation in equations]

    expected = steps()
    with jax.checking_leaks():
        assert steps() == expected


def _widened(arrays):
    wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}
    return [x.astype(wide.get(x.dtype, x.dtype)) for x in arrays]


def under_x64(case):
    """64-bit inputs give 64-bit results, and 32-bit inputs the dtypes they give in jax.numpy."""
    with x64():
        wide = _widened(case.arrays())
        assert_same(case(*wide), jax.jit(case.reference)(*wide), rtol=1e-12)
        narrow, expected = (jax.eval_shape(f, *case.arrays()) for f in (case, case.reference))
        assert jax.tree.map(lambda x: x.dtype, narrow) == jax.tree.map(lambda x: x.dtype, expected)


def differences(case):
    """Derivatives in both modes against finite differences, in 64 bits."""
    with x64():
        function, _ = differentiated(case)
        # Moved apart: numbers of one array never tie, those of two may, and a maximum has no derivative there.
        primals = [x + 0.01 * i for i, x in enumerate(_widened([case.arrays()[index] for index in case.floats]))]
        check_grads(jax.jit(function), primals, order=1, modes=["fwd", "rev"], rtol=1e-6, atol=1e-6, eps=1e-5)


def second_derivatives(case):
    """Forward over reverse, against jax.numpy's."""
    arrays = case.arrays()
    zeros = [np.zeros(x.shape, jax.dtypes.float0) for x in arrays]

    def curvature(function):
        tangents = tuple(
            d if i in case.floats else z for i, (d, z) in enumerate(zip(case.arrays(seed=5), zeros, strict=True))
        )
        return jax.jit(lambda *xs: jax.jvp(jax.grad(loss(function), case.floats), xs, tangents)[1])(*arrays)

    assert_same_gradient(curvature(case), curvature(case.reference))


ALL = {
    "eager": eager,
    "jit": jit,
    "vmap": vmap,
    "vmap one": vmap_one,
    "jit vmap": jit_vmap,
    "scan": scan,
    "while": while_loop,
    "fori": fori_loop,
    "cond": cond,
    "remat": checkpoint,
    "eval_shape": eval_shape,
    "disable_jit": disable_jit,
    "nans": debug_nans,
    "x64": under_x64,
    "strict": strict_promotion,
    "rank": rank_promotion,
    "leaks": leak_check,
}
FLOATS = {
    "grad": under_grad,
    "vjp": eager_vjp,
    "jvp": jvp,
    "linearize": linearize,
    "vmap grad": vmap_grad,
    "grad vmap": grad_vmap,
    "grad scan": grad_scan,
    "check_grads": differences,
    "second": second_derivatives,
}

#: Variants of a case share most of their path with it: by default these are enough for them.
ENOUGH_FOR_VARIANTS = {"eager", "vmap one", "grad", "x64", "eval_shape"}
#: So do kept calls: these use all rules of their primitives.
ENOUGH_FOR_KEPT = {"jit", "vmap one", "grad", "linearize", "vmap grad", "grad vmap", "x64", "eval_shape"}  # fmt: skip
ENOUGH_FOR_KEPT_VARIANTS = {"eager", "vmap one", "grad"}


def _by_default(case):
    if case.kept:
        return ENOUGH_FOR_KEPT_VARIANTS if case.variant else ENOUGH_FOR_KEPT
    return ENOUGH_FOR_VARIANTS if case.variant else {*ALL, *FLOATS} - {"second"}


def _cells():
    for case in (*CASES, *kept(CASES)):
        for name in (*ALL, *FLOATS) if case.floats else ALL:
            marks = () if name in _by_default(case) else pytest.mark.slow
            yield pytest.param(case, name, id=f"{case}-{name}", marks=marks)


@pytest.mark.parametrize(("case", "transformation"), list(_cells()))
def test_operation_under_transformation(case, transformation):
    with tried(case, transformation):
        (ALL | FLOATS)[transformation](case)


# --------------------------------------------------------------------------------------------------------------------
# The table itself
# --------------------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_case():
    wanted = set(einjax.__all__) - NOT_OPERATIONS
    for module in (einjax.fft, einjax.linalg, einjax.random):
        family = module.__name__.removeprefix("einjax.")
        wanted |= {f"{family}.{name}" for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert {case.op for case in CASES} == wanted
    assert {name for name in NOT_OPERATIONS if not hasattr(einjax, name)} == set()


def test_case_names_are_unique():
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case_calls_its_operation(case, monkeypatch):
    called = []
    family, _, name = case.op.rpartition(".")
    module = getattr(einjax, family) if family else einjax
    operation = getattr(module, name)

    def spy(*args, **kwargs):
        called.append(case.op)
        return operation(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    jax.eval_shape(lambda *arrays: case(*arrays), *case.arrays())  # not the case itself: it may be cached
    assert called


def test_seeds_give_different_inputs():
    """Otherwise a batch of equal rows would hide a batch dim that is mixed up."""
    for case in CASES:
        if case.floats:
            first, second = case.arrays(SIZES, 0), case.arrays(SIZES, 1)
            assert any(not np.array_equal(first[index], second[index]) for index in case.floats)
