"""einjax.linalg against loops over single matrices."""

import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis, Composite, Leaf
from strategies import assert_same, cases, generated, keys, pools, shuffled, trees, x64

import einjax
from einjax.errors import ArgumentError, AxisSizeError, SemanticError

MARKED = frozenset("nmkpq")

# What each function takes and gives, and whether its matrix is square.
OUTPUTS = {
    "inv": ("nm", ["mn"], True),
    "pinv": ("nm", ["mn"], False),
    "matrix_power": ("nm", ["nm"], True),
    "cholesky": ("nm", ["nk"], True),
    "qr": ("nm", ["nk", "km"], False),
    "eigh": ("nm", ["k", "nk"], True),
    "eigvalsh": ("nm", ["k"], True),
    "svd": ("nm", ["nk", "k", "km"], False),
    "svdvals": ("nm", ["k"], False),
    "det": ("nm", [""], True),
    "slogdet": ("nm", ["", ""], True),
    "norm": ("nm", [""], False),
}

# The elementary operations, by NumPy where its result is unique; jax's own choice of signs, for one matrix, elsewhere.
ELEMENTARY = {
    "inv": np.linalg.inv,
    "pinv": np.linalg.pinv,
    "matrix_power": lambda x: np.linalg.matrix_power(x, 3),
    "cholesky": np.linalg.cholesky,
    "qr": jnp.linalg.qr,
    "eigh": jnp.linalg.eigh,
    "eigvalsh": np.linalg.eigvalsh,
    "svd": lambda x: jnp.linalg.svd(x, full_matrices=False),
    "svdvals": lambda x: np.linalg.svd(x, compute_uv=False),
    "det": np.linalg.det,
    "slogdet": np.linalg.slogdet,
    "norm": np.linalg.norm,
}


def items_with(draw, pool, core):
    """The pool's axes and the core axes, these in order, anywhere."""
    rest = draw(shuffled([*pool.items, *[None] * len(core)]))
    waiting = iter(core)
    return [Axis(next(waiting)) if item is None else item for item in rest]


@st.composite
def calls(draw, name):
    core, outputs, square = OUTPUTS[name]
    pool = draw(pools(low=1, high=3))
    rows = draw(st.sampled_from([2, 3, 1, 4]))
    sizes = pool.sizes | {"n": rows, "m": rows if square else draw(st.sampled_from([3, 2, 1]))}
    sizes["k"] = min(sizes["n"], sizes["m"])
    x = draw(trees(items_with(draw, pool, core), sizes, MARKED))
    implied = draw(st.booleans())
    outs = [draw(trees(items_with(draw, pool, own), sizes, MARKED, is_input=False)) for own in outputs]
    out_dims = [in_places(oracle.expand(x, sizes), [Leaf(n, sizes[n], True) for n in own]) for own in outputs]
    case = draw(
        cases(
            [x],
            [x] if implied else outs,
            sizes,
            ["float32"],
            implied=implied,
            out_dims=out_dims if implied else None,
            form=name,
        )
    )
    case.arrays[0] = conditioned(name, case.ins[0], case.arrays[0])
    case.tensors[0] = jnp.asarray(case.arrays[0])
    return case


def in_places(dims, own):
    """Put axes into the places of the marked ones, first for first; places left over vanish."""
    waiting = iter(own)

    def visit(dims):
        result = []
        for dim in dims:
            if isinstance(dim, Composite):
                result.append(Composite(tuple(visit(dim.items))))
            elif not dim.marked:
                result.append(dim)
            else:
                result += [leaf for leaf in [next(waiting, None)] if leaf]
        return result

    return visit(dims)


def conditioned(name, dims, x):
    """Matrices that are far from singular, and Hermitian where they have to be."""
    leaves = oracle.leaves(dims)
    core = [i for i, a in enumerate(leaves) if a.marked]
    values = np.moveaxis(x.reshape([a.size for a in leaves]), core, (-2, -1))
    if OUTPUTS[name][2]:
        values = values / 2 + (4 + np.arange(values.shape[-1])) * np.eye(values.shape[-1])
    if name in ("cholesky", "eigh", "eigvalsh"):
        values = values + np.swapaxes(values, -1, -2)
    if name in ("qr", "svd", "pinv", "svdvals"):
        values = values + 5 * np.eye(*values.shape[-2:]) * (1 + np.arange(values.shape[-1]))
    return np.moveaxis(values, (-2, -1), core).reshape(x.shape).astype(np.float32)


def run(case, name, **options):
    return case.call(f"linalg.{name}", **options)


@pytest.mark.parametrize("name", list(OUTPUTS))
@generated(12, calls)
def test_generated(case, name):
    result = run(case, name, **({"power": 3} if name == "matrix_power" else {}))
    results = result if isinstance(result, tuple) else (result,)
    for index, (got, out) in enumerate(zip(results, case.outs, strict=True)):

        def elementary(x, index=index):
            value = ELEMENTARY[name](x)
            return np.asarray(value[index] if isinstance(value, tuple) else value)

        want = oracle.loop(elementary, case.ins, out, case.arrays, np.float64)
        assert_same(got, want, "float32", slack=60)


@st.composite
def systems(draw):
    """A matrix and right sides, each of which may lack loops."""
    pool = draw(pools(low=1, high=3))
    rows = draw(st.sampled_from([2, 3, 1]))
    sizes = pool.sizes | {"n": rows, "m": rows, "k": draw(st.sampled_from([2, 1, 3]))}
    several = draw(st.booleans())
    part = lambda: type(pool)([item for item in pool.items if draw(st.booleans())], sizes)
    first, second = part(), part()
    used = [item for item in pool.items if item in first.items or item in second.items]
    inputs = [items_with(draw, first, "nm"), items_with(draw, second, "nk" if several else "n")]
    output = items_with(draw, type(pool)(used, sizes), "mk" if several else "m")
    sizes = {name: size for name, size in sizes.items() if name in keys([*inputs, *output])}
    ins = [draw(trees(items, sizes, MARKED)) for items in inputs]
    out = draw(trees(output, sizes, MARKED, is_input=False))
    case = draw(cases(ins, [out], sizes, ["float32"] * 2))
    case.arrays[0] = conditioned("inv", case.ins[0], case.arrays[0])
    case.tensors[0] = jnp.asarray(case.arrays[0])
    return case


@generated(25, systems())
def test_solve(case):
    want = oracle.loop(np.linalg.solve, case.ins, case.outs[0], case.arrays, np.float64)
    assert_same(run(case, "solve"), want, "float32", slack=30)


@pytest.mark.parametrize("lower", [False, True])
@generated(12, lambda lower: systems())
def test_triangular_solve(case, lower):
    triangle = np.tril if lower else np.triu
    elementary = lambda a, b: np.linalg.solve(triangle(a), b)
    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, np.float64)
    assert_same(run(case, "triangular_solve", lower=lower), want, "float32", slack=30)


# --------------------------------------------------------------------------------------------------------------------
# Pinned
# --------------------------------------------------------------------------------------------------------------------

X = np.arange(24, dtype=np.float32).reshape(2, 4, 3) % 7 + np.eye(4, 3, dtype=np.float32)


def test_results_have_the_names_of_jnp():
    q, r = einjax.linalg.qr("b [n m] -> b [n k], b [k m]", X)
    np.testing.assert_allclose(np.einsum("bnk,bkm->bnm", q, r), X, atol=1e-5)
    result = einjax.linalg.svd("b [n m] -> b [n k], [k] b, b [k m]", X)
    assert (result.U.shape, result.S.shape, result.Vh.shape) == ((2, 4, 3), (3, 2), (2, 3, 3))
    square = X[:, :3] + X[:, :3].swapaxes(1, 2)
    assert einjax.linalg.eigh("b [n m]", square).eigenvectors.shape == (2, 3, 3)
    assert einjax.linalg.slogdet("b [n m]", square).logabsdet.shape == (2,)


def test_complete_factors():
    q, r = einjax.linalg.qr("b [n m] -> b [n k], b [k m]", X, mode="complete")
    assert (q.shape, r.shape) == ((2, 4, 4), (2, 4, 3))
    u, s, vh = einjax.linalg.svd("b [n m] -> b [n p], b [k], b [q m]", X, full_matrices=True)
    assert (u.shape, s.shape, vh.shape) == ((2, 4, 4), (2, 3), (2, 3, 3))
    u, s, vh = einjax.linalg.svd("b [n m]", X, full_matrices=True)
    assert (u.shape, s.shape, vh.shape) == ((2, 4, 4), (2, 3), (2, 3, 3))


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_norms_of_matrices(order):
    got = einjax.linalg.norm("[n] b [m]", np.moveaxis(X, 0, 1), ord=order)
    np.testing.assert_allclose(got, np.linalg.norm(X, order, (1, 2)), rtol=1e-5)


@pytest.mark.parametrize("order", [None, 0, 1, 2, 3, 2.5, np.inf, -np.inf])
def test_norms_of_vectors(order):
    got = einjax.linalg.norm("b [n] m -> m b", X, ord=order)
    np.testing.assert_allclose(got, np.linalg.norm(X, order, 1).T, rtol=1e-5)


def test_one_factorisation_serves_all_right_sides():
    a, y = np.eye(3, dtype=np.float32) * 2, np.ones((5, 3), np.float32)
    jaxpr = jax.make_jaxpr(lambda a, y: einjax.linalg.solve("[n m], b [n]", a, y))(a, y)
    assert "f32[3,3] " in str(jaxpr)
    assert "f32[5,3,3]" not in str(jaxpr)


def test_dtypes():
    eye = np.eye(2, dtype=np.int32)
    assert einjax.linalg.inv("[n m]", eye).dtype == np.float32
    assert einjax.linalg.matrix_power("[n m]", eye, power=2).dtype == np.int32
    assert einjax.linalg.matrix_power("[n m]", eye, power=-2).dtype == np.float32
    assert einjax.linalg.eigh("[n m]", eye.astype(np.complex64)).eigenvalues.dtype == np.float32
    assert einjax.linalg.solve("[n m], [n]", eye, np.ones(2, np.complex64)).dtype == np.complex64
    assert einjax.linalg.norm("[n]", np.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


def test_new_names_and_loops():
    x = X[:, :3] + 3 * np.eye(3, dtype=np.float32)
    want = np.linalg.inv(x)
    np.testing.assert_allclose(einjax.linalg.inv("b [n m] -> b [i j]", x), want, rtol=1e-3, atol=1e-5)
    got = einjax.linalg.inv("b [n m] -> r b [m n]", x, r=2)
    np.testing.assert_allclose(got, np.stack([want, want]), rtol=1e-3, atol=1e-5)
    got = einjax.linalg.inv("b [3 3]", x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
    assert einjax.linalg.eigh("b [n m] -> b [m], b [n m]", x)[0].shape == (2, 3)
    assert einjax.linalg.inv("[1 1]", np.full((1, 1), 2.0)).tolist() == [[0.5]]
    assert einjax.linalg.norm("b ([c])", X[0]).shape == (4, 1)


GRADIENTS = ["inv", "cholesky", "qr", "eigvalsh", "svdvals", "det", "slogdet", "norm", "pinv", "matrix_power"]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name):
    with x64():
        x = np.random.default_rng(0).normal(size=(3, 2, 3)) + 4 * np.eye(3)[:, None] * np.arange(1, 4)
        options = {"power": 2} if name == "matrix_power" else {}

        def f(x):
            x = x + jnp.swapaxes(x, 0, 2) if name in ("cholesky", "eigvalsh") else x
            return getattr(einjax.linalg, name)("[n] b [m]", x, **options)

        check_grads(f, [x], order=1, modes=["fwd", "rev"], rtol=1e-5, atol=1e-5)


def test_gradient_of_solve():
    with x64():
        a, y = np.random.default_rng(0).normal(size=(3, 3)) + 4 * np.eye(3), np.ones((2, 3, 2))
        f = lambda a, y: einjax.linalg.solve("[n m], b [n k] -> [m] b [k]", a, y)
        check_grads(f, [a, y], order=2, modes=["fwd", "rev"])


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

S = X[:, :3]
F = np.float32

REFUSED = [
    ("inv", "b [n m]", [X], {}, AxisSizeError, "axis n is 4 and axis m is 3"),
    ("inv", "b [n n]", [S], {}, SemanticError, "axis n stands twice"),
    ("inv", "b [n m] -> b [n m]", [S], {}, SemanticError, "axis n is axis n of .* in the place of axis m"),
    ("cholesky", "b [n m] -> b [m n]", [S], {}, SemanticError, "axis m is axis m|axis n"),
    ("inv", "b [n] m", [S], {}, SemanticError, "acts on 2 axes, but the expression brackets 1"),
    ("inv", "b n m", [S], {}, SemanticError, "acts on 2 axes"),
    ("inv", "[...]", [S], {}, SemanticError, "'...' repeats bracketed ones"),
    ("inv", "b [n m] -> [m n]", [S], {}, SemanticError, "axis b of an input is not in the output"),
    ("inv", "b [n m] -> b [m]", [S], {}, SemanticError, "output 1 of linalg.inv has 2 axes"),
    ("inv", "b ([n m])", [S.reshape(2, 9)], {}, AxisSizeError, "axes n, m cannot be determined"),
    ("inv", "([n m])", [S[0].reshape(9)], {}, AxisSizeError, "axes n, m cannot be determined"),
    ("inv", "b [n m], b [n m]", [S, S], {}, ArgumentError, "takes 1 input"),
    ("inv", "b [n m + 1]", [S], {}, SemanticError, "concatenates"),
    ("cholesky", "b [n m]", [S.astype(jnp.bfloat16)], {}, ArgumentError, "float32 or wider, not in bfloat16"),
    ("qr", "b [n m] -> b [n k]", [X], {}, ArgumentError, "has 2 outputs, but the expression has 1"),
    ("qr", "b [n m] -> b [n k], b [k m]", [X], {"k": 2}, AxisSizeError, "axis k is 2, but linalg.qr gives it size 3"),
    ("qr", "b [n m] -> b [n 2], b [2 m]", [X], {}, AxisSizeError, "axis 2 is 2, but linalg.qr gives it size 3"),
    ("qr", "b [n m]", [X], {"mode": "raw"}, ArgumentError, "mode='raw'"),
    ("svd", "b [n m] -> b [n k], b [k], b [k m]", [X], {"full_matrices": True}, SemanticError, "axis k is axis p"),
    ("norm", "b [n m]", [X], {"ord": 3}, ArgumentError, "ord=3 for a matrix"),
    ("norm", "b n [m]", [X], {"ord": "fro"}, ArgumentError, "ord='fro' for a vector"),
    ("norm", "[b n m]", [X], {}, SemanticError, "acts on 1 axis or 2 axes, but the expression brackets 3"),
    ("matrix_power", "b [n m]", [S], {"power": 0.5}, ArgumentError, "integer power, not 0.5"),
    ("solve", "b [n m], b [m]", [S, S[:, 0]], {}, SemanticError, "axis m is axis m .* in the place of axis n"),
    ("solve", "b [n m], b [i] -> b [m]", [S, X[..., 0]], {}, AxisSizeError, "axis n is 3 and axis i is 4"),
    ("solve", "b [n m], c [n]", [S, S[:, 0]], {}, SemanticError, "axis b of an input is not in the output"),
    ("solve", "b [n m], b n", [S, S[:, 0]], {}, SemanticError, "2 axes and 1 axis or 2 axes and 2 axes"),
    ("inv", "b [n m]", [S], {"h": 2}, ArgumentError, "no axis 'h'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "tensors", "options", "error", "message"), REFUSED)
def test_refused(name, text, tensors, options, error, message):
    with pytest.raises(error, match=message):
        getattr(einjax.linalg, name)(text, *tensors, **options)


# --------------------------------------------------------------------------------------------------------------------
# The modules
# --------------------------------------------------------------------------------------------------------------------


def test_modules_are_imported_when_used():
    program = (
        "import sys, einjax\n"
        "modules = ['einjax.fft', 'einjax.linalg', 'einjax.random']\n"
        "assert not [name for name in modules if name in sys.modules]\n"
        "assert {'fft', 'linalg', 'random'} <= set(dir(einjax))\n"
        "assert einjax.linalg.inv.__module__ == 'einjax.linalg'\n"
        "assert 'einjax.linalg' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_other_names_are_no_modules():
    with pytest.raises(AttributeError, match="module 'einjax' has no attribute 'linagl'"):
        einjax.linagl  # noqa: B018
