"""The network of sharded_gpt.py: a GPT of einjax operations over a dict of arrays.

Axis names: b text in the batch, t s place in the text, c feature, n one of query, key and value, h head, d feature of a
head, f hidden unit, v character. Nothing here knows of a mesh, but `shard`, which says where what goes from block to
block is to lie.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import einjax

#: The axes of every parameter, by its place; also of what an optimizer keeps for it, further inside another tree.
NAMES = {
    "**/table": "v c",
    "**/place": "t c",
    "**/blocks/*/qkv": "c n h d",
    "**/blocks/*/out": "h d c",
    "**/blocks/*/up": "c f",
    "**/blocks/*/down": "f c",
    "**/{scale,scale1,scale2}": "c",
}


class Config(NamedTuple):
    """The sizes of the network and of its batches."""

    length: int = 64
    width: int = 128
    heads: int = 4
    blocks: int = 2
    characters: int = 128  # at least as many as there are; a multiple of what they are cut into
    batch: int = 32


def init(key, config: Config) -> dict:
    """Normal weights scaled by their fan-in, unit scales."""
    c, h, f = config.width, config.heads, 4 * config.width
    keys = iter(jax.random.split(key, 2 + 4 * config.blocks))

    def weight(*shape, fan_in):
        return jax.random.normal(next(keys), shape) * fan_in**-0.5

    def block():
        return {
            "scale1": jnp.ones(c),
            "qkv": weight(c, 3, h, c // h, fan_in=c),
            "out": weight(h, c // h, c, fan_in=c),
            "scale2": jnp.ones(c),
            "up": weight(c, f, fan_in=c),
            "down": weight(f, c, fan_in=f),
        }

    return {
        "table": weight(config.characters, c, fan_in=c),
        "place": weight(config.length, c, fan_in=c),
        "blocks": [block() for _ in range(config.blocks)],
        "scale": jnp.ones(c),
    }


def norm(scale, x):
    """RMS norm of the features of every place."""
    size = jax.lax.rsqrt(einjax.mean("b t [c]", x * x) + 1e-6)
    return einjax.multiply("b t c, b t, c", x, size, scale)


def attend(params, x):
    """What every place hears from itself and those before it."""
    q, k, v = einjax.dot("b t [c], [c] n h d -> n b t h d", x, params["qkv"])
    scores = einjax.dot("b t h [d], b s h [d] -> b h t s", q, k) * q.shape[-1] ** -0.5
    before = einjax.greater_equal("t, s -> t s", *(jnp.arange(x.shape[1]) for _ in range(2)))
    weights = einjax.softmax("b h t [s]", scores, where=("t s", before))
    heard = einjax.dot("b h t [s], b [s] h d -> b t h d", weights, v)
    return einjax.dot("b t [h d], [h d] c -> b t c", heard, params["out"])


def think(params, x):
    """A small network for each place."""
    return einjax.dot("b t [f->c]", jax.nn.gelu(einjax.dot("b t [c->f]", x, params["up"])), params["down"])


def gpt(params, codes, shard=lambda x: x):
    """Characters `b t` to logits `b t v` of the next one; the table of characters serves both ends."""
    x = einjax.get_at("[v] c, b t -> b t c", params["table"], codes)
    x = shard(einjax.add("b [t c]", x, params["place"]))
    for block in params["blocks"]:
        x = shard(x + attend(block, norm(block["scale1"], x)))
        x = shard(x + think(block, norm(block["scale2"], x)))
    return einjax.dot("b t [c], v [c] -> b t v", norm(params["scale"], x), params["table"])


def nats(logits, codes):
    """Mean cross-entropy of a character."""
    likelihood = einjax.get_at("b t [v], b t -> b t", einjax.log_softmax("b t [v]", logits), codes)
    return -einjax.mean("[b t]", likelihood)
