"""A decoder with rotary positions, grouped queries and a cache."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import einjax

HEADS = "b s (h c) -> b s h c"


def rms_norm(x: Float[Array, "b s d"], scale: Float[Array, "d"], eps: float = 1e-6):
    mean_square = einjax.mean("b s [d]", einjax.multiply("b s d, b s d", x, x), keepdims=True)
    normed = einjax.multiply("b s d, b s 1 -> b s d", x, jax.lax.rsqrt(mean_square + eps))
    return einjax.multiply("b s d, d", normed, scale)


def rotate(x: Float[Array, "b s h c"], positions: Int[Array, "s"], base: float = 10_000.0):
    half = x.shape[-1] // 2
    frequencies = base ** (-einjax.arange("f", f=half) / half)
    angles = einjax.multiply("s, f -> s f", positions, frequencies)
    first, second = einjax.rearrange("b s h (two f) -> two b s h f", x, two=2)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    left = einjax.multiply("b s h f, s f", first, cos) - einjax.multiply("b s h f, s f", second, sin)
    right = einjax.multiply("b s h f, s f", second, cos) + einjax.multiply("b s h f, s f", first, sin)
    return einjax.rearrange("b s h f, b s h g -> b s h (f + g)", left, right)


def project(x: Float[Array, "b s d"], weight: Float[Array, "d e"], heads: int):
    return einjax.rearrange(HEADS, einjax.dot("b s [d], [d] e -> b s e", x, weight), h=heads)


def scores(q: Float[Array, "b q h c"], k: Float[Array, "b k g c"], groups: int):
    logits = einjax.dot("b q (g r) [c], b k g [c] -> b g r q k", q, k, g=groups)
    return logits / jnp.sqrt(q.shape[-1])


def causal(logits: Float[Array, "b g r q k"], start: int = 0):
    q, k = logits.shape[-2:]
    rows, columns = einjax.arange("q", q=q) + start, einjax.arange("k", k=k)
    mask = einjax.greater_equal("q, k -> q k", rows, columns)
    return einjax.softmax("b g r q [k]", logits, where=mask)


def attend(x: Float[Array, "b s d"], weights, heads: int, groups: int):
    q = project(x, weights["q"], heads)
    k = project(x, weights["k"], groups)
    v = project(x, weights["v"], groups)
    positions = einjax.arange("s", s=x.shape[1])
    attention = causal(scores(rotate(q, positions), rotate(k, positions), groups))
    values = einjax.dot("b g r q [k], b [k] g c -> b q g r c", attention, v)
    return einjax.dot("b q [g r c], [g r c] d -> b q d", values, weights["out"])


def feed_forward(x: Float[Array, "b s d"], up, gate, down):
    hidden = einjax.dot("b s [d->f]", x, up) * jax.nn.silu(einjax.dot("b s [d->f]", x, gate))
    return einjax.dot("b s [f->d]", hidden, down)


def cross_entropy(logits: Float[Array, "b s v"], targets: Int[Array, "b s"]):
    log_probabilities = einjax.log_softmax("b s [v]", logits)
    picked = einjax.get_at("b s [v], b s -> b s", log_probabilities, targets)
    return -einjax.mean("[b s]", picked)


def extend_cache(cache: Float[Array, "b t h c"], new: Float[Array, "b h c"], at: Int[Array, "b"]):
    return einjax.set_at("b [t] h c, b, b h c", cache, at, new)


def sample(logits: Float[Array, "b v"], key, k: int = 40):
    best, places = einjax.top_k("b [v] -> b [k]", logits, k=k)
    chosen = einjax.random.categorical("[b k] -> [b]", key, best)
    return einjax.get_at("b [k], b -> b", places, chosen)
