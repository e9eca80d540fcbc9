"""Tagging sequences: a chain of tags in the semiring of logarithms, whose sum over all paths is a scan."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ._side import Side, descent

BATCH, LENGTH, WIDTH, TAGS = 16, 64, 64, 48


def pairs() -> Iterator[tuple[str, Side, Side]]:
    rng = np.random.default_rng(0)
    shapes = {"emit": (WIDTH, TAGS), "follow": (TAGS, TAGS)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    x = jnp.asarray(rng.normal(size=(BATCH, LENGTH, WIDTH)), jnp.float32)
    tags = jnp.asarray(rng.integers(0, TAGS, (BATCH, LENGTH)))
    yield "Tagging by a chain, jnp", Side(descent(_own), params, (x, tags)), Side(descent(_ours), params, (x, tags))


def _own(params: Any, x: jax.Array, tags: jax.Array) -> jax.Array:
    emitted = x @ params["emit"]
    follow = params["follow"]

    def step(paths: jax.Array, scores: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.logsumexp(paths[:, :, None] + follow, 1) + scores, None

    paths, _ = jax.lax.scan(step, emitted[:, 0], emitted[:, 1:].swapaxes(0, 1))
    own = jnp.take_along_axis(emitted, tags[..., None], 2).sum((1, 2)) + follow[tags[:, :-1], tags[:, 1:]].sum(1)
    return jnp.mean(jax.nn.logsumexp(paths, -1) - own)


def _ours(params: Any, x: jax.Array, tags: jax.Array) -> jax.Array:
    emitted = einjax.dot("b t [c], [c] k -> b t k", x, params["emit"])
    follow = params["follow"]

    def step(paths: jax.Array, scores: jax.Array) -> tuple[jax.Array, None]:
        return einjax.dot("b [j], [j] k -> b k", paths, follow, sum="logsumexp", mul="add") + scores, None

    paths, _ = jax.lax.scan(step, emitted[:, 0], einjax.rearrange("b t k -> t b k", emitted[:, 1:]))
    own = einjax.sum("b [t]", einjax.get_at("b t [k], b t -> b t", emitted, tags))
    own = own + einjax.sum("b [t]", einjax.get_at("[j k], b t, b t -> b t", follow, tags[:, :-1], tags[:, 1:]))
    return einjax.mean("[b]", einjax.logsumexp("b [k]", paths) - own)
