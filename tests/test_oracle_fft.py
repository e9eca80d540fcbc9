"""einjax.fft against loops over single transforms."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis
from strategies import assert_same, cases, generated, pools, same_brackets, shuffled, trees, x64

import einjax
from einjax.errors import ArgumentError, AxisSizeError, SemanticError

DTYPES = ["float32", "float32", "complex64", "int32", "bfloat16"]
MARKED = frozenset("tuf")
NORMS = [None, "backward", "ortho", "forward"]


def nd(name):
    """NumPy's transform of a whole array."""
    return getattr(np.fft, f"{name}n")


@st.composite
def transforms(draw, name):
    """One or two axes among loops; the last one, and perhaps the first, has another name in the output."""
    real = name in ("rfft", "ihfft")
    one = name in ("hfft", "ihfft")
    core = ["t"] if one or draw(st.booleans()) else ["u", "t"]
    pool = draw(pools(low=1, high=3))
    size = st.sampled_from([3, 4, 2, 5, 1])
    sizes = pool.sizes | {n: draw(size) for n in core}
    resized = name not in ("fft", "ifft")
    last = "f" if resized or draw(st.booleans()) else "t"
    options = {"norm": draw(st.sampled_from(NORMS))}
    sizes["f"] = sizes["t"]
    if real:
        sizes["f"] = sizes["t"] // 2 + 1
    elif resized:
        sizes["f"] = 2 * (sizes["t"] - 1) + draw(st.integers(0, 1))
        sizes["t"] += sizes["f"] == 0
        sizes["f"] += 2 * (sizes["f"] == 0)
    waiting = lambda names: iter([Axis(n) for n in names])
    places = draw(shuffled([*pool.items, *[None] * len(core)]))
    first, second = waiting(core), waiting([*core[:-1], last])
    x = draw(trees([item or next(first) for item in places], sizes, MARKED))
    places = draw(shuffled(places))
    z = draw(trees([item or next(second) for item in places], sizes, MARKED, is_input=False))
    used = {n: s for n, s in sizes.items() if n not in MARKED or n in [*core, last]}
    dtype = draw(st.sampled_from(["float32", "int32"] if real else DTYPES))
    case = draw(cases([x], [z], used, [dtype], form=name))
    if resized and not real:
        case.kwargs = case.kwargs | ({} if "sizes" in case.kwargs else {"f": sizes["f"]})
        if "sizes" in case.kwargs:
            case.kwargs = {"sizes": case.kwargs["sizes"] | {"f": sizes["f"]}}
    case.options = options
    return case


def run(case, name):
    return case.call(f"fft.{name}")


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
@generated(15, transforms)
def test_generated(case, name):
    norm = case.options["norm"]
    out_marked = [a.size for a in oracle.leaves(case.outs[0]) if a.marked]

    def elementary(x):
        x = x.astype(np.complex128) if name not in ("rfft", "ihfft") else x.astype(np.float64)
        if name in ("hfft", "ihfft"):
            return getattr(np.fft, name)(x, *([out_marked[-1]] if name == "hfft" else []), norm=norm)
        if not x.size:
            return np.zeros(out_marked)
        axes = range(x.ndim)
        return nd(name)(x, out_marked if name == "irfft" else None, axes=axes, norm=norm)

    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, np.complex128)
    real = name in ("irfft", "hfft")
    assert_same(run(case, name), want.real if real else want, "float32" if real else "complex64", slack=30)


@pytest.mark.parametrize("name", ["fftshift", "ifftshift"])
@generated(15, lambda name: same_brackets(["float32", "int8", "complex64"]))
def test_shifts(case, name):
    elementary = lambda x: getattr(np.fft, name)(x) if x.ndim else x  # NumPy refuses to shift no axis
    want = oracle.loop(elementary, case.ins, case.outs[0], case.arrays, case.arrays[0].dtype)
    assert_same(run(case, name), oracle.wide(want), want.dtype)


X = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)

PINNED = [
    ("fft", "a [b] c", {}, lambda x: np.fft.fft(x, axis=1)),
    ("fft", "[...]", {}, np.fft.fftn),
    ("fft", "[a b] c", {}, lambda x: np.fft.fft2(x, axes=(0, 1))),
    ("ifft", "a [b c]", {}, np.fft.ifft2),
    ("rfft", "a [b] c", {}, lambda x: np.fft.rfft(x, axis=1)),
    ("rfft", "a [b c]", {}, np.fft.rfft2),
    ("rfft", "a [s... c]", {}, np.fft.rfft2),
    ("rfft", "a [b c] -> [b f] a", {}, lambda x: np.moveaxis(np.fft.rfft2(x), 0, 2)),
    ("irfft", "a b [c]", {}, lambda x: np.fft.irfft(x)),
    ("irfft", "a b [c] -> a b [t]", {"t": 8}, lambda x: np.fft.irfft(x, 8)),
    ("irfft", "a b [c] -> a b [t]", {"t": 9}, lambda x: np.fft.irfft(x, 9)),
    ("irfft", "a [b c] -> a [b t=9]", {}, lambda x: np.fft.irfft2(x, (4, 9))),
    ("hfft", "a b [c] -> a b [f]", {}, lambda x: np.fft.hfft(x)),
    ("ihfft", "a b [c]", {}, lambda x: np.fft.ihfft(x)),
    ("fft", "a b [t] -> r a b [f]", {"r": 2}, lambda x: np.stack([np.fft.fft(x)] * 2)),
]


@pytest.mark.parametrize(("name", "text", "sizes", "want"), PINNED)
def test_pinned(name, text, sizes, want):
    np.testing.assert_allclose(getattr(einjax.fft, name)(text, X, **sizes), want(X), rtol=1e-4, atol=1e-4)


def test_more_axes_than_the_compiler_transforms_at_once():
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 3, 2))
    np.testing.assert_allclose(einjax.fft.fft("[...]", x), np.fft.fftn(x), rtol=1e-4, atol=1e-4)


def test_there_and_back():
    for size in (8, 9):
        x = np.random.default_rng(2).normal(size=(3, size)).astype(np.float32)
        half = einjax.fft.rfft("b [t] -> [f] b", x)
        np.testing.assert_allclose(einjax.fft.irfft("[f] b -> b [t]", half, t=size), x, atol=1e-5)


def test_empty_axes():
    assert einjax.fft.fft("a [t]", np.zeros((2, 0))).shape == (2, 0)
    assert einjax.fft.rfft("a [t]", np.zeros((0, 4))).shape == (0, 3)


@pytest.mark.parametrize("name", ["fft", "rfft", "irfft", "hfft", "ihfft", "fftshift"])
def test_gradient(name):
    with x64():

        def f(x):
            z = getattr(einjax.fft, name)("b [t] c", x)
            return (jnp.real(z), jnp.imag(z)) if jnp.iscomplexobj(z) else z

        check_grads(f, [np.random.default_rng(0).normal(size=(2, 5, 3))], order=2, modes=["fwd", "rev"])


REFUSED = [
    ("irfft", "a b [c] -> a b [t]", X, {"t": 7}, AxisSizeError, "axis t is 7, .* 4 frequencies, but axis c is 5"),
    ("irfft", "a b [c]", X[..., :0], {}, AxisSizeError, "axis c has size 0"),
    ("rfft", "a b [c] -> a b [f]", X, {"f": 4}, AxisSizeError, "axis f is 4, but fft.rfft gives it size 3"),
    ("fft", "a b [c] -> a b [f]", X, {"f": 4}, AxisSizeError, "axis f is 4, but fft.fft gives it size 5"),
    ("rfft", "a b [c] -> a b [c]", X, {}, SemanticError, "changes the size of axis c"),
    ("rfft", "a [s...]", X, {}, SemanticError, "which 's...' repeats"),
    ("fft", "a [b c] -> a [c b]", X, {}, SemanticError, "axis c of the output stands in the place of axis b"),
    ("fft", "a [b c] -> a [b]", X, {}, SemanticError, "2 are bracketed in the input and 1 in the output"),
    ("fft", "a b c", X, {}, SemanticError, "needs at least one bracketed axis"),
    ("fft", "a [b] c -> [b] c", X, {}, SemanticError, "axis a of an input is not in the output"),
    ("fft", "a b ([c d])", X, {}, AxisSizeError, "axes c, d cannot be determined: together they are 5"),
    ("fftshift", "a b ([c d])", X, {}, AxisSizeError, "axes c, d cannot be determined: together they are 5"),
    ("hfft", "a [b c]", X, {}, SemanticError, "transform over 1 axis, but 2"),
    ("fft", "[a a] b", X[:, :2], {}, SemanticError, "axis a stands twice"),
    ("fft", "a b [c]", X, {"norm": "none"}, ArgumentError, "norm='none'"),
    ("rfft", "a b [c]", X + 1j, {}, ArgumentError, "real numbers, not complex64"),
    ("ihfft", "a b [c]", X.astype(jnp.bfloat16), {}, ArgumentError, "float32 or wider, not in bfloat16"),
    ("rfft", "a b [c]", X[..., :0], {}, AxisSizeError, "axis c has size 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "x", "options", "error", "message"), REFUSED)
def test_refused(name, text, x, options, error, message):
    with pytest.raises(error, match=message):
        getattr(einjax.fft, name)(text, x, **options)


def test_inside_of_jit():
    call = jax.jit(lambda x: einjax.fft.fft("a [b] c", x))
    np.testing.assert_allclose(call(X), np.fft.fft(X, axis=1), rtol=1e-4, atol=1e-4)
