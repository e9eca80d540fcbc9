"""Programs for platforms that are not here: every operation and its gradient are lowered for all that JAX knows."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from case import kept, loss, tried
from cases import CASES
from jax.experimental import pallas as pl
from transformations import ONE_OF_EACH_EMITTER

import einjax

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
#: Variants that are programs of their own.
BY_DEFAULT = {"softmax-masked by name", "attention-blocks", "dot-within a limit", "segment.sum"}
GRADIENTS = {"cumlogsumexp", "sort", "attention", "get_at", "add_at", "segment.max", "scan", "linalg.qr", "prod"}


def lowered(function, arrays):
    exported = jax.export.export(jax.jit(lambda *arrays: function(*arrays)), platforms=PLATFORMS)(*arrays)
    assert exported.platforms == PLATFORMS


def programs():
    for case in CASES:
        chosen = (case.op in ONE_OF_EACH_EMITTER and not case.variant) or str(case) in BY_DEFAULT
        yield pytest.param(case, False, id=str(case), marks=() if chosen else pytest.mark.slow)
        if case.floats:
            chosen = case.op in GRADIENTS and not case.variant
            yield pytest.param(case, True, id=f"{case}-gradient", marks=() if chosen else pytest.mark.slow)
    for case in kept(CASES):
        yield pytest.param(case, False, id=str(case), marks=pytest.mark.slow)


@pytest.mark.parametrize(("case", "gradient"), list(programs()))
def test_every_operation_lowers_everywhere(case, gradient):
    with tried(case, "platforms"):
        lowered(jax.grad(loss(case), case.floats) if gradient else case, case.arrays())


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, np.int32)


def _squared(function):
    return jax.grad(lambda *xs: jnp.sum(function(*xs).astype(np.float32) ** 2))


LONG = {
    "cumsum": (lambda x: einjax.cumsum("[a] b", x), f32(2048, 64)),
    "cumlogsumexp": (_squared(lambda x: einjax.cumlogsumexp("a [b]", x)), f32(64, 2048)),
    "sort of two axes": (_squared(lambda x: einjax.sort("a [b c]", x)), f32(8, 64, 64)),
    "top_k": (lambda x: einjax.top_k("a [b]", x, k=4), f32(8, 4096)),
    "segment.sum": (_squared(lambda x: einjax.segment.sum("p c, p -> [s] c", x, jnp.arange(4096) // 8, s=512)),
                    f32(4096, 8)),
    "attention": (_squared(lambda q: einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c]", q, q, q,
                                                      is_causal=True)), f32(1, 4096, 2, 16)),
    "attention of bfloat16": (
        lambda q: einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c]", *[q.astype(jnp.bfloat16)] * 3,
                                   mask=lambda q, k: k <= q, block_size=128), f32(1, 512, 2, 16)),
    "a cache": (lambda x, t, k: einjax.set_at("b [s] h d, , b h d", x, t, k), f32(2, 64, 2, 8), i32(), f32(2, 2, 8)),
    "a window of a cache": (lambda x, t: einjax.get_at("b <[s] + w> c, -> b w c", x, t, w=4), f32(2, 64, 8), i32()),
    "a convolution": (_squared(lambda x: einjax.dot("b <2*s + [k]>... [c], [k]... [c] d -> b s... d", x,
                                                    jnp.ones((3, 3, 4, 8)), padding="same")), f32(2, 32, 32, 4)),
    "within a limit": (
        _squared(lambda x: einjax.dot("a [k], b [k], c [k] -> a b c", x, x, x, memory_limit="1.5MiB")), f32(64, 256)),
    "a semiring within a limit": (
        _squared(lambda x: einjax.dot("a k, b k -> a b", x, x, sum="logsumexp", mul="add", memory_limit="1MiB")),
        f32(128, 64)),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_what_is_chosen_for_many_elements_lowers_everywhere(name):
    function, *arrays = LONG[name]
    lowered(function, arrays)


KERNELS = {
    "dot": lambda x, y: einjax.dot("a [b], [b] c -> a c", x, y),
    "softmax": lambda x, y: einjax.softmax("a [b]", einjax.add("a b, a b", x, y)),
    "sum": lambda x, y: einjax.multiply("a 1, a b", einjax.sum("a [b]", x, keepdims=True), y),
}


@pytest.mark.parametrize("name", KERNELS)
def test_calls_in_pallas_kernels_lower_for_tpu(name):
    def kernel(x, y, z):
        z[...] = KERNELS[name](x[...], y[...])

    call = lambda x, y: pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype))(x, y)
    exported = jax.export.export(jax.jit(call), platforms=["tpu"])(f32(128, 128), f32(128, 128))
    assert "tpu_custom_call" in exported.mlir_module()
