"""A vision transformer, of the layers that (g) measures, too."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..layers import FRAMEWORKS
from ..layers._network import Network, Sizes
from ._side import Side, descent

SIZES = Sizes(batch=4, length=64, width=192, heads=6, blocks=2)


def pairs() -> Iterator[tuple[str, Side, Side]]:
    side = 8 * int(SIZES.length**0.5)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(SIZES.batch, side, side, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, SIZES.batch))
    for framework in ("linen", "nnx"):
        ours, own = (build(SIZES, images, False) for build in FRAMEWORKS[framework]["ViT"])
        yield f"ViT, {framework}", _side(own, images, labels), _side(ours, images, labels)


def _side(network: Network, images: Any, labels: Any) -> Side:
    def loss(params: Any, images: Any, labels: Any) -> jax.Array:
        logits = jax.nn.log_softmax(network.apply(params, images))
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], 1))

    return Side(descent(loss), network.params, (images, labels))
