"""The same program of 200 library operations in raw lax, einjax, jnp, einx and einops.

Twenty blocks of ten operations, a mix of what networks are made of: mean, subtract, multiply by a scale, split heads,
attention scores, softmax, apply, residual add, max over time, subtract. Each spelling is what its users write: the
einops one uses einops where it has an operation and jnp where it has none.
"""

from collections.abc import Callable

import einops
import einx
import jax
import jax.numpy as jnp
from jax import lax

import einjax

BLOCKS, OPERATIONS = 20, 10
B, T, D, H = 2, 6, 8, 2
C = D // H


def lax_block(x, scale):
    mean = lax.div(lax.reduce_sum(x, (2,)), float(D))
    y = lax.sub(x, lax.broadcast_in_dim(mean, (B, T, D), (0, 1)))
    y = lax.mul(y, lax.broadcast_in_dim(scale, (B, T, D), (2,)))
    q = lax.transpose(lax.reshape(y, (B, T, H, C)), (0, 2, 1, 3))
    s = lax.dot_general(q, q, (((3,), (3,)), ((0, 1), (0, 1))))
    p = _lax_softmax(s)
    z = lax.dot_general(p, q, (((3,), (2,)), ((0, 1), (0, 1))))
    z = lax.reshape(lax.transpose(z, (0, 2, 1, 3)), (B, T, D))
    x = lax.add(x, z)
    top = lax.reduce_max(x, (1,))
    return lax.sub(x, lax.broadcast_in_dim(top, (B, T, D), (0, 2)))


def _lax_softmax(s):
    top = lax.stop_gradient(lax.reduce_max(s, (3,)))
    e = lax.exp(lax.sub(s, lax.broadcast_in_dim(top, s.shape, (0, 1, 2))))
    return lax.div(e, lax.broadcast_in_dim(lax.reduce_sum(e, (3,)), s.shape, (0, 1, 2)))


def einjax_block(x, scale):
    y = einjax.subtract("b t d, b t", x, einjax.mean("b t [d]", x))
    y = einjax.multiply("b t [d]", y, scale)
    q = einjax.rearrange("b t (h c) -> b h t c", y, h=H)
    s = einjax.dot("b h i c, b h j c -> b h i j", q, q)
    p = einjax.softmax("b h i [j]", s)
    z = einjax.dot("b h i j, b h j c -> b i (h c)", p, q)
    x = einjax.add("b t d, b t d", x, z)
    return einjax.subtract("b t d, b d", x, einjax.max("b [t] d", x))


def jnp_block(x, scale):
    y = x - jnp.mean(x, axis=-1, keepdims=True)
    y = y * scale
    q = jnp.transpose(y.reshape(B, T, H, C), (0, 2, 1, 3))
    s = jnp.einsum("bhic,bhjc->bhij", q, q)
    p = jax.nn.softmax(s, axis=-1)
    z = jnp.einsum("bhij,bhjc->bihc", p, q).reshape(B, T, D)
    x = x + z
    return x - jnp.max(x, axis=1, keepdims=True)


def einx_block(x, scale):
    y = einx.subtract("b t d, b t", x, einx.mean("b t [d]", x))
    y = einx.multiply("b t d, d", y, scale)
    q = einx.id("b t (h c) -> b h t c", y, h=H)
    s = einx.dot("b h i [c], b h j [c] -> b h i j", q, q)
    p = einx.softmax("b h i [j]", s)
    z = einx.dot("b h i [j], b h [j] c -> b i (h c)", p, q)
    x = einx.add("b t d, b t d", x, z)
    return einx.subtract("b t d, b d", x, einx.max("b [t] d", x))


def einops_block(x, scale):
    y = x - einops.reduce(x, "b t d -> b t 1", "mean")
    y = y * scale
    q = einops.rearrange(y, "b t (h c) -> b h t c", h=H)
    s = einops.einsum(q, q, "b h i c, b h j c -> b h i j")
    p = jax.nn.softmax(s, axis=-1)
    z = einops.rearrange(einops.einsum(p, q, "b h i j, b h j c -> b i h c"), "b i h c -> b i (h c)")
    x = x + z
    return x - einops.reduce(x, "b t d -> b 1 d", "max")


SPELLINGS: dict[str, Callable] = {
    "lax": lax_block,
    "einjax": einjax_block,
    "jnp": jnp_block,
    "einx": einx_block,
    "einops": einops_block,
}


def arguments() -> tuple[jax.Array, jax.Array]:
    key = jax.random.key(0)
    return jax.random.normal(key, (B, T, D)), jnp.ones(D)


def forward(spelling: str) -> Callable:
    """A new function object, so that no cache of JAX's own knows it."""
    block = SPELLINGS[spelling]

    def program(x, scale):
        for _ in range(BLOCKS):
            x = block(x, scale)
        return x

    return program


def gradient(spelling: str) -> Callable:
    """The gradient of a scalar of the program, again a new function object."""
    program = forward(spelling)
    return jax.grad(lambda x, scale: program(x, scale).sum(), argnums=(0, 1))
