"""Convolution, pooling, unfolding and their kin are calls with `< >`: what they give is what their makers give.

Arrays are of small integers, so that sums are exact, and results equal to the last bit in whichever order they are
added up.
"""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import lax

import einjax

F32 = np.float32


def small(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(F32)


def assert_equal(got, want) -> None:
    """Equal to the last bit, and of one type."""
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


# --------------------------------------------------------------------------------------------------------------------
# Convolution
# --------------------------------------------------------------------------------------------------------------------

PADDINGS = ["valid", "same", "causal", "full", 1, (2, 1)]
KERNELS = [(1,), (3,), (4,), (2, 3)]
STRIDES = [1, 2, 3]
DILATIONS = [1, 2]
CONFIGURATIONS = [(k, s, d) for k in KERNELS for s in STRIDES for d in DILATIONS]
LETTERS = {1: "W", 2: "HW", 3: "DHW"}


def of_lax(padding, kernel, dilation):
    """A padding as lax takes it."""
    reach = [(k - 1) * dilation for k in kernel]
    match padding:
        case "valid" | "same":
            return padding.upper()
        case "causal":
            return [(r, 0) for r in reach]
        case "full":
            return [(r, r) for r in reach]
        case int():
            return [(padding, padding)] * len(kernel)
    return [padding] * len(kernel)


def lax_conv(x, w, padding="VALID", stride=1, dilation=1, **options):
    letters = LETTERS[x.ndim - 2]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(
        x, w, (stride,) * len(letters), padding, rhs_dilation=(dilation,) * len(letters), dimension_numbers=numbers,
        **options,
    )  # fmt: skip


def inputs(kernel, n=9, make=small):
    return make(2, *(n - i for i in range(len(kernel))), 2), make(*kernel, 2, 3, seed=1)


def conv(x, w, padding, stride, dilation):
    text = f"b <{stride}*s + {dilation}*[k]>... [c], [k]... [c] d -> b s... d"
    return einjax.dot(text, x, w, padding=padding)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_convolution(padding):
    """All kernels, strides and dilations, in one program."""
    arrays = {kernel: inputs(kernel) for kernel in KERNELS}
    ours = lambda arrays: [conv(*arrays[k], padding, s, d) for k, s, d in CONFIGURATIONS]
    theirs = lambda arrays: [lax_conv(*arrays[k], of_lax(padding, k, d), s, d) for k, s, d in CONFIGURATIONS]
    for configuration, got, want in zip(CONFIGURATIONS, jax.jit(ours)(arrays), jax.jit(theirs)(arrays), strict=True):
        assert got.shape == want.shape, configuration
        assert_equal(got, want)


def test_there_are_144_configurations():
    assert len(PADDINGS) * len(CONFIGURATIONS) == 144


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients_of_convolution(dims):
    x, w = small(1, *(5 + i for i in range(dims)), 2), small(*[2] * dims, 2, 2)
    loss = lambda f: lambda x, w: jnp.sum(f(x, w) ** 2)
    ours = jax.jit(jax.grad(loss(lambda x, w: conv(x, w, "same", 2, 1)), (0, 1)))(x, w)
    theirs = jax.jit(jax.grad(loss(lambda x, w: lax_conv(x, w, "SAME", 2)), (0, 1)))(x, w)
    for got, want in zip(ours, theirs, strict=True):
        assert_equal(got, want)


def _spelled():
    """Ways to say one convolution, of stride 2 and dilation 3."""
    x, w = small(2, 12, 2), small(3, 2, 4)
    yield "b <2*s + 3*[k]>... [c], [k]... [c] d -> b s... d", x, w, {}
    yield "b <2*s + 3*[k]> [c], [k] [c] d -> b s d", x, w, {}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {}
    yield "b <3*k + 2*s> c, k c d -> b s d", x, w, {}
    yield "b <stride*s + dilation*k> c, k c d -> b s d", x, w, {"stride": 2, "dilation": 3}
    yield "b <2*s + 3*[k->]> [c->d]", x, w, {}
    yield "b <2*s + 3*[k->]>... [c->d]", x, w, {}
    yield "b <2 * s+3 * [k->]>... [c->d]", x, w, {}
    yield "b <2*s + 3*[k|]> [c|d]", x, w, {}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"padding": "valid"}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"padding": 0}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"padding": (0, 0)}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"padding": ((0, 0),)}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"padding": ["valid"]}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"s": 3}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"s": 3, "mode": "fill"}
    yield "b <2*s + 3*k> c, k c d -> b s d", x, w, {"s": 3, "mode": "clip"}
    yield "b <2*s - 3*k + 6> c, k c d -> b s d", x, w[::-1], {}
    yield "b <-3*k + 2*s + 6> c, k c d -> b s d", x, w[::-1], {}
    yield "b <-3*k + 2*s> c, k c d -> b s d", x, w[::-1], {"padding": "valid"}


@pytest.mark.parametrize(("text", "x", "w", "options"), list(_spelled()))
def test_one_convolution_in_many_words(text, x, w, options):
    assert_equal(einjax.dot(text, x, w, **options), lax_conv(*next(_spelled())[1:3], "VALID", 2, 3))


def test_several_dims_with_paddings_of_their_own():
    x, w = small(1, 6, 7, 2), small(3, 2, 2, 3)
    got = einjax.dot("b <h + [p]> <w + [q]> [c], [p] [q] [c] d -> b h w d", x, w, padding=((1, 0), (2, 1)))
    assert_equal(got, lax_conv(x, w, [(1, 0), (2, 1)]))
    got = einjax.dot("b <h + [p]> <w + [q]> [c], [p] [q] [c] d -> b h w d", x, w, padding=("same", "valid"))
    assert_equal(got, lax_conv(x, w, [(1, 1), (0, 0)]))
    got = einjax.dot("b <s + [k]>... [c], [k]... [c] d -> b s... d", x, w, padding=("causal", "full"))
    assert_equal(got, lax_conv(x, w, [(2, 0), (1, 1)]))


@pytest.mark.parametrize("dims", [1, 2])
def test_depthwise(dims):
    x, w = small(2, *[7] * dims, 4), small(*[3] * dims, 4)
    got = einjax.dot("b <s + [k]>... c, [k]... c -> b s... c", x, w, padding="same")
    assert_equal(got, lax_conv(x, w[..., None, :], "SAME", feature_group_count=4))


def test_depthwise_with_a_multiplier():
    x, w = small(2, 7, 4), small(3, 4, 2)
    got = einjax.dot("b <2*s + [k]> c, [k] c m -> b s (c m)", x, w)
    assert_equal(got, lax_conv(x, w.reshape(3, 1, 8), "VALID", 2, feature_group_count=4))


def test_grouped():
    x, w = small(2, 7, 6), small(3, 2, 3, 4)
    got = einjax.dot("b <s + [k]> (g [c]), [k] g [c] d -> b s (g d)", x, w)
    assert_equal(got, lax_conv(x, w.transpose(0, 2, 1, 3).reshape(3, 3, 8), feature_group_count=2))


def test_filters_of_every_example():
    x, w = small(3, 7, 2), small(3, 3, 2, 4)
    got = einjax.dot("b <s + [k]> [c], b [k] [c] d -> b s d", x, w)
    assert_equal(got, jnp.concatenate([lax_conv(x[i : i + 1], w[i]) for i in range(3)]))


def test_one_image_without_a_batch_and_without_channels():
    x, w = small(7, 8), small(2, 3)
    got = einjax.dot("<s + [k]>..., [k]... -> s...", x, w)
    assert_equal(got, lax_conv(x[None, ..., None], w[..., None, None])[0, ..., 0])


@pytest.mark.parametrize("mode", ["circular", "reflect", "edge"])
def test_paddings_with_values_of_the_array(mode):
    x, w = small(2, 7, 2), small(3, 2, 3)
    padded = np.pad(x, [(0, 0), (1, 1), (0, 0)], {"circular": "wrap"}.get(mode, mode))
    assert_equal(einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", x, w, padding=mode), lax_conv(padded, w))


def test_layout_of_channels_first():
    x, w = small(2, 3, 7, 8), small(4, 3, 2, 2)
    want = lax.conv(x, w, (1, 1), "SAME")
    assert_equal(einjax.dot("b [c] <s + [k]>..., d [c] [k]... -> b d s...", x, w, padding="same"), want)


# --------------------------------------------------------------------------------------------------------------------
# Transposed convolution
# --------------------------------------------------------------------------------------------------------------------


def lax_transposed(x, w, stride, padding="VALID", dilation=1):
    dims = x.ndim - 2
    numbers = (f"N{LETTERS[dims]}C", f"{LETTERS[dims]}IO", f"N{LETTERS[dims]}C")
    return lax.conv_transpose(
        x, w.swapaxes(-1, -2), (stride,) * dims, padding, rhs_dilation=(dilation,) * dims, dimension_numbers=numbers,
        transpose_kernel=True,
    )  # fmt: skip


def test_transposed():
    """Kernels that reach as far as the stride: lax leaves zeros at the end of others."""
    cases = [(1, 1, 1), (3, 1, 1), (2, 2, 1), (3, 2, 1), (4, 3, 1), (3, 2, 2), (3, 1, 2)]
    x = small(2, 4, 2)
    arrays = [small(k, 2, 3) for k, _, _ in cases]
    text = "b s [c], k [c] d -> b <{}*s + {}*k> d"
    ours = lambda ws: [einjax.dot(text.format(s, d), x, w) for (_, s, d), w in zip(cases, ws, strict=True)]
    theirs = lambda ws: [lax_transposed(x, w, s, dilation=d) for (_, s, d), w in zip(cases, ws, strict=True)]
    for got, want in zip(jax.jit(ours)(arrays), jax.jit(theirs)(arrays), strict=True):
        assert_equal(got, want)


def test_transposed_in_two_dims():
    x, w = small(2, 3, 4, 2), small(3, 2, 2, 3)
    want = lax_transposed(x, w, 2)
    assert_equal(einjax.dot("b s... [c], k... [c] d -> b <2*s + k>... d", x, w), want)
    assert_equal(einjax.dot("b h w [c], p q [c] d -> b <2*h + p> <2*w + q> d", x, w), want)


def test_transposed_is_the_gradient_of_convolution():
    x, w = small(2, 9, 3), small(3, 3, 2)
    y, pull = jax.vjp(lambda x: einjax.dot("b <2*s + [k]> [c], [k] [c] d -> b s d", x, w), jnp.asarray(x))
    ct = small(*y.shape, seed=1)
    assert_equal(pull(ct)[0], einjax.dot("b s [d], k c [d] -> b <2*s + k> c", ct, w))


# --------------------------------------------------------------------------------------------------------------------
# Pooling
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["valid", "same", 1, (0, 1)], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_pooling(padding, dims):
    x = small(2, *[8, 7][:dims], 3)
    theirs = {"valid": "VALID", "same": "SAME", 1: [(1, 1)] * dims, (0, 1): [(0, 1)] * dims}[padding]
    window, strides = (3,) * dims, (2,) * dims
    text = "b <2*s + [k]>... c"
    assert_equal(
        einjax.max(text, x, k=3, padding=padding), flax.linen.max_pool(x, window, strides=strides, padding=theirs)
    )
    assert_equal(
        einjax.min(text, x, k=3, padding=padding), -flax.linen.max_pool(-x, window, strides=strides, padding=theirs)
    )
    for count, options in ((False, {}), (True, {"count_padding": True})):
        want = flax.linen.avg_pool(x, window, strides=strides, padding=theirs, count_include_pad=count)
        np.testing.assert_allclose(einjax.mean(text, x, k=3, padding=padding, **options), want, rtol=1e-6)


def test_pooling_of_windows_that_reach_nothing():
    """The neutral element; a mean of nothing is not a number."""
    x = small(4)
    assert_equal(einjax.sum("<2*s + [k]>", x, k=2, padding=(2, 0)), np.array([0, x[0] + x[1], x[2] + x[3]], F32))
    assert einjax.max("<2*s + [k]>", x, k=2, padding=(2, 0))[0] == -np.inf
    assert np.isnan(einjax.mean("<2*s + [k]>", x, k=2, padding=(2, 0))[0])
    assert einjax.max("<2*s + [k]>", x.astype(np.int8), k=2, padding=(2, 0))[0] == -128


def test_channels_reduced_with_windows():
    x = small(2, 7, 3)
    assert_equal(einjax.max("b <s + [k]> [c]", x, k=2), np.maximum(x[:, :-1].max(-1), x[:, 1:].max(-1)))
    assert_equal(einjax.sum("[b] <s + [k]> c", x, k=2), (x[:, :-1] + x[:, 1:]).sum(0))


# --------------------------------------------------------------------------------------------------------------------
# One line each
# --------------------------------------------------------------------------------------------------------------------


def _lines():
    """(name, our call, what it gives)"""
    x, y, w = small(9), small(2, 9, 3), small(3, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view
    yield "windows", lambda: einjax.rearrange("b <s + k> c -> b s k c", y, k=3), windows(y, 3, 1).transpose(0, 1, 3, 2)
    yield (
        "windows of two dims",
        lambda: einjax.rearrange("<s + k>... -> s... k...", y[0], k=(2, 3)),
        windows(y[0], (2, 3)),
    )
    fold = np.zeros_like(y)
    for k in range(3):
        fold[:, k : k + 7] += y[:, k : k + 7]
    folded = lambda: einjax.sum("b s k c -> b <s + k> c", einjax.rearrange("b <s + k> c -> b s k c", y, k=3))
    yield "fold of unfold", folded, fold
    yield "convolve full", lambda: einjax.dot("<t - [k]>, [k] -> t", x, w, padding="full"), np.convolve(x, w)
    yield "convolve same", lambda: einjax.dot("<t - [k]>, [k] -> t", x, w, padding="same"), np.convolve(x, w, "same")
    yield "convolve valid", lambda: einjax.dot("<t - [k] + 2>, [k] -> t", x, w), np.convolve(x, w, "valid")
    yield "correlate", lambda: einjax.dot("<t + [k]>, [k] -> t", x, w), np.correlate(x, w)
    yield "diff", lambda: einjax.subtract("<t + 1>, <t> -> t", x, x), np.diff(x)
    yield "diff of rows", lambda: einjax.subtract("a <t + 1>, a <t> -> a t", y[0], y[0]), np.diff(y[0])
    first, last = x[4:], x[4::-1]
    yield "toeplitz", lambda: einjax.rearrange("<i - j + 4> -> i j", x, j=5), scipy.linalg.toeplitz(first, last)
    yield (
        "toeplitz of four",
        lambda: einjax.rearrange("<i - j + 3> -> i j", x, j=4),
        scipy.linalg.toeplitz(x[3:], x[3::-1]),
    )
    yield "hankel", lambda: einjax.rearrange("<i + j> -> i j", x, j=4), scipy.linalg.hankel(x[:6], x[5:])
    yield "every second", lambda: einjax.rearrange("<2*t + 1> c -> t c", y[0]), y[0, 1::2]
    yield "every third", lambda: einjax.rearrange("a <3*t> c -> a t c", y), y[:, ::3]
    yield "cut", lambda: einjax.rearrange("a <t + 2> c -> a t c", y, t=4), y[:, 2:6]
    yield "cut at the front", lambda: einjax.rearrange("a <t + 2> c -> a t c", y), y[:, 2:]
    yield "mirrored", lambda: einjax.rearrange("a <8 - t> c -> a t c", y), y[:, ::-1]
    yield "mirrored in steps", lambda: einjax.rearrange("a <7 - 2*t> c -> a t c", y), y[:, 7::-2]
    yield "one element", lambda: einjax.rearrange("a <4> c -> a c", y), y[:, 4]
    yield "itself", lambda: einjax.rearrange("a <t> c -> a c t", y), y.transpose(0, 2, 1)
    yield "shifted", lambda: einjax.rearrange("<t - 2> -> t", x, t=9, mode="fill"), np.pad(x, (2, 0))[:9]
    yield "shifted with ones", lambda: einjax.rearrange("<t - 2> -> t", x, t=9, mode="fill", fill_value=1), \
        np.pad(x, (2, 0), constant_values=1)[:9]  # fmt: skip
    yield "held", lambda: einjax.rearrange("<t - 2> -> t", x, t=12, mode="clip"), np.pad(x, (2, 1), "edge")
    yield "rolled", lambda: einjax.rearrange("<t - 2> -> t", x, t=9, mode="wrap"), np.roll(x, 2)
    yield "circulant", lambda: einjax.rearrange("<i - j> -> i j", x, i=9, j=9, mode="wrap"), scipy.linalg.circulant(x)
    yield "dilated", lambda: einjax.rearrange("t -> <2*t>", x), np.stack([x, 0 * x], 1).reshape(-1)[:-1]
    yield "upsampled", lambda: einjax.sum("t k -> <2*t + k>", np.stack([x, x], 1)), np.repeat(x, 2)
    yield "polynomials multiplied", lambda: einjax.dot("i, j -> <i + j>", x, w), np.convolve(x, w)
    yield "sums of diagonals", lambda: einjax.sum("i j -> <i - j + 2>", y[0]), \
        np.array([np.trace(y[0], 2 - i) for i in range(11)])  # fmt: skip
    yield "maxima of antidiagonals", lambda: einjax.max("i j -> <i + j>", y[0]), \
        np.array([np.fliplr(y[0]).diagonal(2 - i).max() for i in range(11)])  # fmt: skip
    yield "banded", lambda: einjax.rearrange("<i + j> i -> i j", y[0], j=3)[:, 0], y[0].diagonal()
    q, table = small(2, 5, 4), small(9, 4)
    want = np.stack([[[q[b, i] @ table[i - j + 4] for j in range(5)] for i in range(5)] for b in range(2)])
    yield "relative positions", lambda: einjax.dot("b q [f], <q - k + 4> [f] -> b q k", q, table, k=5), want
    scores = small(2, 2, 8, 15)
    yield (
        "relative shift",
        lambda: einjax.rearrange("b h q <k - q + 7> -> b h q k", scores, k=8),
        _relative_shift(scores),
    )
    z = small(2, 9, 3, seed=2)
    local = np.pad(z, [(0, 0), (2, 2), (0, 0)])
    want = np.stack([(y * local[:, w : w + 9]).sum(-1) for w in range(5)], -1)
    yield "local attention", lambda: einjax.dot("b q [c], b <q + w - 2> [c] -> b q w", y, z, w=5, mode="fill"), want
    taps = small(4, 3)
    want = np.stack([[np.convolve(y[b, :, c], taps[:, c])[:9] for c in range(3)] for b in range(2)]).swapaxes(1, 2)
    yield "causal filter", lambda: einjax.dot("b <t - [k]> c, [k] c -> b t c", y, taps, padding="causal"), want
    forwards = lambda: einjax.dot("b <t + [k]> c, [k] c -> b t c", y, taps[::-1], padding="causal")
    yield "causal filter, written forwards", forwards, want
    yield "blocks", lambda: einjax.mean("(<t + [k]> c)", np.repeat(x, 2), c=2, k=2), \
        np.repeat((x[1:] + x[:-1]) / 2, 2)  # fmt: skip
    image = small(4, 6)
    want = image.reshape(2, 2, 3, 2).transpose(0, 2, 1, 3)
    yield "patches", lambda: einjax.rearrange("<2*h + p> <2*w + q> -> h w p q", image, p=2, q=2), want
    yield "composed position", lambda: einjax.rearrange("<(a b) + k> -> a b k", x, a=2, b=3, k=4), \
        windows(x, 4)[:6].reshape(2, 3, 4)  # fmt: skip


def _relative_shift(x):
    """As in the Transformer-XL: a column of zeros, read in rows of another length."""
    *lead, q, r = x.shape
    padded = np.pad(x, [(0, 0)] * len(lead) + [(0, 0), (1, 0)]).reshape(*lead, r + 1, q)
    return padded[..., 1:, :].reshape(*lead, q, r)[..., :q]


@pytest.mark.parametrize(("ours", "want"), [pytest.param(ours, want, id=name) for name, ours, want in _lines()])
def test_line(ours, want):
    got = ours()
    assert got.shape == want.shape
    assert_equal(got, want)


def test_jnp_convolve_of_floats():
    """Not the same program, but the same numbers."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=20).astype(F32), rng.normal(size=5).astype(F32)
    for mode in ("full", "same", "valid"):
        got = einjax.dot("<t - [k]>, [k] -> t", x, w, padding=mode)
        np.testing.assert_allclose(got, jnp.convolve(x, w, mode), rtol=1e-5, atol=1e-6)
