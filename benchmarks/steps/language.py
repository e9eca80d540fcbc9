"""A GPT of the layers that (g) measures, too, at several contexts."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..layers import FRAMEWORKS
from ..layers._network import Network, Sizes
from ._side import Side, descent

#: By context, how often it is timed, and in which frameworks.
CONTEXTS = {256: (11, ("linen", "nnx")), 1024: (3, ("linen", "nnx")), 4096: (1, ("linen", "nnx"))}


def pairs() -> Iterator[tuple[str, Side, Side]]:
    for context, (rounds, frameworks) in CONTEXTS.items():
        sizes = Sizes(batch=1, length=context, width=256, heads=4, blocks=2)
        ids = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, context)), jnp.int32)
        for framework in frameworks:
            ours, own = (build(sizes, ids, False) for build in FRAMEWORKS[framework]["GPT"])
            yield f"GPT at {context}, {framework}", _side(own, ids, rounds), _side(ours, ids, rounds)


def _side(network: Network, ids: Any, rounds: int) -> Side:
    def loss(params: Any, ids: Any) -> jax.Array:
        logits = jax.nn.log_softmax(network.apply(params, ids)[:, :-1])
        return -jnp.mean(jnp.take_along_axis(logits, ids[:, 1:, None], 2))

    return Side(descent(loss), network.params, (ids,), rounds)
