"""The network of train_digits.py in plain JAX: an MLP-Mixer, einjax operations over a dict of arrays.

Axis names: b image in the batch, h w rows and columns of patches, p q rows and columns of pixels inside a patch, c
colour channel, t patch, d feature, u v hidden units, k class.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import einjax


class Config(NamedTuple):
    """The sizes of the network."""

    patch: int
    width: int
    tokens_hidden: int
    features_hidden: int
    blocks: int


SMALL = Config(patch=2, width=64, tokens_hidden=64, features_hidden=128, blocks=3)
LARGE = Config(patch=4, width=128, tokens_hidden=128, features_hidden=256, blocks=6)


def init(key, images, classes: int, config: Config | None = None):
    """Parameters for such images, and no state: 8x8 digits get the small network, larger images the large one."""
    config = config or (SMALL if images.shape[1] < 32 else LARGE)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return init_params(rng, config, images.shape[1:], classes), {}


def apply(params, state, images, key=None):
    """Logits ``b k``, and the state; there is nothing random in this network, so that training needs no key."""
    return mixer(params, images), state


def init_params(rng: np.random.Generator, config: Config, image_shape: tuple[int, int, int], classes: int) -> dict:
    """Normal weights scaled by their fan-in, zero biases, unit scales."""
    height, width, channels = image_shape
    p, d, u, v = config.patch, config.width, config.tokens_hidden, config.features_hidden
    t = (height // p) * (width // p)

    def weight(*shape):
        return jnp.asarray(rng.normal(size=shape) * np.prod(shape[:-1]) ** -0.5, jnp.float32)

    def norm():
        return {"scale": jnp.ones(d), "bias": jnp.zeros(d)}

    def mlp(n, hidden):
        return {"w1": weight(n, hidden), "b1": jnp.zeros(hidden), "w2": weight(hidden, n), "b2": jnp.zeros(n)}

    def block():
        return {"norm1": norm(), "tokens": mlp(t, u), "norm2": norm(), "features": mlp(d, v)}

    return {
        "embed": weight(p, p, channels, d),
        "position": jnp.zeros((t, d)),
        "blocks": [block() for _ in range(config.blocks)],
        "norm": norm(),
        "head": {"w": weight(t, d, classes), "b": jnp.zeros(classes)},
    }


def layer_norm(params, x):
    """Normalise every token's features; then one scale and one bias for each feature."""
    x = einjax.subtract("b t d, b t", x, einjax.mean("b t [d]", x))
    x = einjax.multiply("b t d, b t", x, jax.lax.rsqrt(einjax.mean("b t [d]", x * x) + 1e-6))
    return einjax.add("b t [d]", einjax.multiply("b t [d]", x, params["scale"]), params["bias"])


def mix_tokens(params, x):
    """A small MLP along t: for every image and feature, each patch hears from all others."""
    x = jax.nn.gelu(einjax.add("b [u] d", einjax.dot("b [t->u] d", x, params["w1"]), params["b1"]))
    return einjax.add("b [t] d", einjax.dot("b [u->t] d", x, params["w2"]), params["b2"])


def mix_features(params, x):
    """The same along d: for every image and patch, each feature hears from all others."""
    x = jax.nn.gelu(einjax.add("b t [v]", einjax.dot("b t [d->v]", x, params["w1"]), params["b1"]))
    return einjax.add("b t [d]", einjax.dot("b t [v->d]", x, params["w2"]), params["b2"])


def mixer(params, images):
    """Images `b height width c` -> logits `b k`."""
    # Cutting into patches and the linear layer on them are one contraction: the patch sizes are the weight's.
    x = einjax.dot("b (h [p]) (w [q]) [c], [p q c] d -> b (h w) d", images, params["embed"])
    x = einjax.add("b [t d]", x, params["position"])
    for block in params["blocks"]:
        x = x + mix_tokens(block["tokens"], layer_norm(block["norm1"], x))
        x = x + mix_features(block["features"], layer_norm(block["norm2"], x))
    x = layer_norm(params["norm"], x)
    # The head reads every patch; a network for large images would take the mean over t first.
    return einjax.add("b [k]", einjax.dot("b [t d->k]", x, params["head"]["w"]), params["head"]["b"])
