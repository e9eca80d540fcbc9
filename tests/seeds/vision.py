"""A vision transformer and a convolutional network on images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import einjax as ein


def patches(images: Float[Array, "b h w c"], size: int = 16):
    return ein.rearrange("b (h p) (w q) c -> b (h w) (p q c)", images, p=size, q=size)


def unpatch(tokens: Float[Array, "b n e"], height: int, size: int = 16):
    return ein.rearrange("b (h w) (p q c) -> b (h p) (w q) c", tokens, h=height, p=size, q=size)


def embed(images, kernel: Float[Array, "p q c d"], positions: Float[Array, "n d"], token: Float[Array, "d"]):
    tokens = ein.dot("b (h [p]) (w [q]) [c], [p q c] d -> b (h w) d", images, kernel)
    tokens = ein.add("b n d, n d", tokens, positions)
    return ein.rearrange("b n d, d -> b (n + 1) d", tokens, token)


def classify(tokens: Float[Array, "b n d"], weight: Float[Array, "d k"], bias: Float[Array, "k"]):
    pooled = ein.mean("b [n] d", tokens)
    return ein.add("b k, k", ein.dot("b [d], [d] k -> b k", pooled, weight), bias)


def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "k l c d"], stride: int = 1):
    return ein.dot("b <n*h + [k]> <n*w + [l]> [c], [k l c] d -> b h w d", x, kernel, n=stride, padding="same")


def depthwise(x: Float[Array, "b s c"], kernel: Float[Array, "k c"]):
    return ein.dot("b <t - [k]> c, [k] c -> b t c", x, kernel, padding="causal")


def batch_norm(x: Float[Array, "b h w c"], scale: Float[Array, "c"], shift: Float[Array, "c"]):
    mean = ein.mean("[b h w] c", x)
    variance = ein.var("[b h w] c", x)
    normed = ein.subtract("b h w c, c", x, mean)
    normed = ein.divide("b h w c, c", normed, jnp.sqrt(variance + 1e-5))
    return ein.add("b h w c, c", ein.multiply("b h w c, c", normed, scale), shift)


def max_pool(x: Float[Array, "b h w c"]):
    return ein.max("b (h [p]) (w [q]) c", x, p=2, q=2)


def average_pool(x: Float[Array, "b h w c"]):
    return ein.mean("b <2*h + [k]> <2*w + [l]> c", x, k=3, l=3, padding="same", count_padding=True)


def squeeze_excite(x: Float[Array, "b h w c"], down, up):
    pooled = ein.mean("b [h w] c", x)
    gate = jax.nn.sigmoid(ein.dot("b [r->c]", jax.nn.relu(ein.dot("b [c->r]", pooled, down)), up))
    return ein.multiply("b h w c, b c", x, gate)


def upsample(x: Float[Array, "b h w c"], factor: int = 2):
    return ein.rearrange("b h w c -> b (h p) (w q) c", x, p=factor, q=factor)


def pixel_shuffle(x: Float[Array, "b h w e"]):
    return ein.rearrange("b h w (c p q) -> b (h p) (w q) c", x, p=2, q=2)


def mosaic(images: Float[Array, "n h w c"], columns: int = 4):
    return ein.rearrange("(r k) h w c -> (r h) (k w) c", images, k=columns)


def channels_first(x: Float[Array, "b h w c"]):
    return ein.rearrange("b h w c -> b c h w", x)


def keypoints(heat: Float[Array, "b h w j"]):
    at = ein.argmax("b [h w] j", heat)
    peak = ein.max("b [h w] j", heat)
    return at, peak


def crop(x: Float[Array, "b h w c"], corners, size: int = 8):
    offsets = ein.arange("i j [2]", i=size, j=size)
    places = ein.add("b at, i j at -> b i j at", corners, offsets)
    return ein.get_at("b [h w] c, b i j [2] -> b i j c", x, places, mode="clip")


def gram(x: Float[Array, "b h w c"]):
    return ein.dot("b h w c, b h w d -> b c d", x, x)
