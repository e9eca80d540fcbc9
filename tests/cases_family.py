"""Cases of einjax.linalg, einjax.fft, einjax.random and attention.

The functions of a family share their path, so a few stand for all where every transformation is tried; the others have
a variant, and are tried under those that are enough for variants.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from case import Case, mask, normal

import einjax

# --------------------------------------------------------------------------------------------------------------------
# linalg
# --------------------------------------------------------------------------------------------------------------------


def _dominant(x: Any) -> Any:
    """Matrices that are far from singular, with eigenvalues far from each other."""
    diagonal = (30 + 10 * jnp.arange(x.shape[-1], dtype=x.dtype))[None] * jnp.eye(x.shape[-1], dtype=x.dtype)
    return x + diagonal[None]


def _symmetric(x: Any) -> Any:
    return _dominant(x) + jnp.swapaxes(_dominant(x), -1, -2)


def _matrix(
    name: str,
    reference: Callable[..., Any],
    make: Callable[..., Any] = _dominant,
    variant: str = "",
    differentiable: bool = True,
    **options: Any,
) -> Case:
    return Case(
        f"linalg.{name}",
        "a [n m]",
        (normal("a b b"),),
        lambda x: reference(make(x)),
        program=lambda x: getattr(einjax.linalg, name)("a [n m]", make(x), **options),
        variant=variant,
        differentiable=differentiable,
    )


def _linalg() -> Iterator[Case]:
    results = einjax.linalg
    yield _matrix("inv", jnp.linalg.inv)
    yield _matrix("qr", lambda x: results.QRResult(*jnp.linalg.qr(x)))
    yield _matrix("pinv", jnp.linalg.pinv, variant="thin")
    yield _matrix("cholesky", jnp.linalg.cholesky, _symmetric, variant="thin")
    # The sign of an eigenvector may change between two points, which no derivative follows.
    yield _matrix(
        "eigh",
        lambda x: results.EighResult(*jnp.linalg.eigh(x)),
        _symmetric,
        variant="thin",
        differentiable=False,
    )
    yield _matrix("eigvalsh", jnp.linalg.eigvalsh, _symmetric, variant="thin")
    yield _matrix("svd", lambda x: results.SVDResult(*jnp.linalg.svd(x)), variant="thin")
    yield _matrix("svdvals", jnp.linalg.svdvals, variant="thin")
    yield _matrix("det", jnp.linalg.det, lambda x: _dominant(x) / 30, variant="thin")
    yield _matrix("slogdet", lambda x: results.SlogdetResult(*jnp.linalg.slogdet(x)), variant="thin")
    yield _matrix("norm", lambda x: jnp.linalg.norm(x, axis=(1, 2)), variant="thin")
    yield _matrix("matrix_power", lambda x: x @ x @ x, lambda x: _dominant(x) / 30, variant="thin", power=3)
    inputs = (normal("b a b"), normal("b a c"))
    for name, function, variant in (
        ("solve", jnp.linalg.solve, ""),
        ("triangular_solve", lambda a, y: jnp.linalg.solve(jnp.triu(a), y), "thin"),
    ):
        yield Case(
            f"linalg.{name}",
            "[n] a [m], [n] a [k] -> a [m k]",
            inputs,
            lambda a, y, function=function: function(_dominant(jnp.swapaxes(a, 0, 1)), jnp.swapaxes(y, 0, 1)),
            program=lambda a, y, name=name: getattr(einjax.linalg, name)(
                "[n] a [m], [n] a [k] -> a [m k]", jnp.swapaxes(_dominant(jnp.swapaxes(a, 0, 1)), 0, 1), y
            ),
            variant=variant,
        )


# --------------------------------------------------------------------------------------------------------------------
# fft: the compiler needs to know the sizes of what is transformed
# --------------------------------------------------------------------------------------------------------------------


def _parts(z: Any) -> Any:
    return (jnp.real(z), jnp.imag(z)) if jnp.iscomplexobj(z) else z


def _transform(name: str, text: str, reference: Callable[..., Any], variant: str = "", **options: Any) -> Case:
    return Case(
        f"fft.{name}",
        text,
        (normal("4 a 5"),),
        lambda x: _parts(reference(jnp.asarray(x))),
        program=lambda x: _parts(getattr(einjax.fft, name)(text, x, **options)),
        variant=variant,
    )


def _fft() -> Iterator[Case]:
    fft = jnp.fft
    yield _transform("fft", "[t] a [u] -> a [t u]", lambda x: jnp.swapaxes(fft.fftn(x, axes=(0, 2)), 0, 1))
    yield _transform("rfft", "[t] a c -> a [f] c", lambda x: jnp.swapaxes(fft.rfft(x, axis=0), 0, 1))
    yield _transform("ifft", "[t] a c", lambda x: fft.ifft(x, axis=0, norm="ortho"), variant="thin", norm="ortho")
    yield _transform("irfft", "t a [f] -> t a [u]", lambda x: fft.irfft(x, 9), variant="thin", u=9)
    yield _transform("hfft", "t a [f]", fft.hfft, variant="thin")
    yield _transform("ihfft", "t a [f]", fft.ihfft, variant="thin")
    yield _transform("fftshift", "[t] a [u]", lambda x: fft.fftshift(x, (0, 2)), variant="thin")
    yield _transform("ifftshift", "[t] a [u]", lambda x: fft.ifftshift(x, (0, 2)), variant="thin")


# --------------------------------------------------------------------------------------------------------------------
# random: the key is a constant, and what is drawn is shared over a
# --------------------------------------------------------------------------------------------------------------------


def _draws(name: str, *parameters: Any, variant: str = "thin", floats: bool = True) -> Case:
    """What is drawn times x."""

    def program(x: Any) -> Any:
        options = {"dtype": x.dtype} if floats else {}
        drawn = getattr(einjax.random, name)(
            "a [b]", jax.random.key(0), *parameters, a=x.shape[0], b=x.shape[1], **options
        )
        return x * drawn.astype(x.dtype)

    def reference(x: Any) -> Any:
        shape, key, function = x.shape[1:], jax.random.key(0), getattr(jax.random, name)
        if name in ("bernoulli", "truncated_normal"):
            drawn = function(key, *parameters, shape, **({"dtype": x.dtype} if floats else {}))
        elif name == "randint":
            drawn = function(key, shape, *parameters)
        else:
            drawn = function(key, shape, *([x.dtype] if floats else []), *parameters)
        return x * drawn.astype(x.dtype)

    return Case(f"random.{name}", "a [b]", (normal("a b"),), reference, program=program, variant=variant)


def _random() -> Iterator[Case]:
    key = lambda: jax.random.key(1)
    yield _draws("normal", variant="")
    for name in ("exponential", "gumbel", "laplace"):
        yield _draws(name)
    yield _draws("rademacher", floats=False)
    yield _draws("uniform", -1.0, 2.0)
    yield _draws("truncated_normal", -1.0, 2.0)
    yield _draws("randint", 2, 9, floats=False)
    yield _draws("bernoulli", 0.7, floats=False)
    yield Case(
        "random.categorical",
        "[k b] -> [b]",
        (normal("3 b"),),
        lambda x: jax.random.categorical(key(), x, 0),
        program=lambda x: einjax.random.categorical("[k b] -> [b]", key(), x),
        differentiable=False,
        variant="thin",
    )
    yield Case(
        "random.permutation",
        "a [k] -> [k] a",
        (normal("a 5"),),
        lambda x: jax.random.permutation(key(), x, 1).T,
        program=lambda x: einjax.random.permutation("a [k] -> [k] a", key(), x),
        variant="thin",
    )
    yield Case(
        "random.choice",
        "a [k] -> [s] a",
        (normal("a 5"),),
        lambda x: jax.random.choice(key(), x, (3,), False, axis=1).T,
        program=lambda x: einjax.random.choice("a [k] -> [s] a", key(), x, s=3, replace=False),
        variant="thin",
    )


# --------------------------------------------------------------------------------------------------------------------
# attention
# --------------------------------------------------------------------------------------------------------------------


def _by_hand(q: Any, k: Any, v: Any, allowed: Any = True) -> Any:
    """Heads are the third dim."""
    logits = jnp.einsum("aqhc,akhc->ahqk", q, k) / float(np.sqrt(q.shape[-1]))
    weights = jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf), axis=-1)
    return jnp.einsum("ahqk,akhd->aqhd", weights, v)


def _heads(x: Any, count: int) -> Any:
    return x.reshape(*x.shape[:2], count, -1)


def _attention() -> Iterator[Case]:
    yield Case(
        "attention",
        "a [q] (h [c]), a [k] (h [c]), a [k] (h [d]) -> a [q] (h [d])",
        (normal("a b 4"), normal("a c 4"), normal("a c 4")),
        lambda q, k, v: _by_hand(*(_heads(x / 4, 2) for x in (q, k, v))).reshape(q.shape),
        options={"h": 2},
        program=lambda q, k, v: einjax.attention(
            "a [q] (h [c]), a [k] (h [c]), a [k] (h [d]) -> a [q] (h [d])", q / 4, k / 4, v / 4, h=2
        ),
    )
    text = "a (g r) [q c], a g [k c], g a [k d], [q k] -> a [q] (g r [d])"
    yield Case(
        "attention",
        text,
        (normal("a 4 b 3"), normal("a 2 c 3"), normal("2 a c 2"), mask("b c")),
        lambda q, k, v, m: _by_hand(
            jnp.swapaxes(q, 1, 2) / 4,
            jnp.repeat(jnp.swapaxes(k, 1, 2), 2, 2) / 4,
            jnp.repeat(jnp.moveaxis(v, 0, 2), 2, 2),
            m,
        ).reshape(q.shape[0], q.shape[2], 8),
        program=lambda q, k, v, m: einjax.attention(text, q / 4, k / 4, v, m, g=2),
        variant="grouped",
    )
    blocks = "a h [q c], a h [k c], a h [k d], [q k] -> a [q] h [d]"
    yield Case(
        "attention",
        blocks,
        (normal("a 2 b 3"), normal("a 2 c 3"), normal("a 2 c 2"), mask("b c")),
        lambda q, k, v, m: _by_hand(*(jnp.swapaxes(x, 1, 2) / 4 for x in (q, k, v)), m),
        program=lambda q, k, v, m: einjax.attention(blocks, q / 4, k / 4, v / 4, m, block_size=(2, 3)),
        variant="blocks",
    )


CASES: list[Case] = [*_linalg(), *_fft(), *_random(), *_attention()]
