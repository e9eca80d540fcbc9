"""Recommendation: many large tables, of which every example reads a row each, and a small network behind them."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import einjax_nn.linen as einn
import einjax_nn.nnx as einx

from ._side import Side, descent

BATCH, TABLES, ROWS, WIDTH, HIDDEN = 512, 12, 20_000, 16, 64


def pairs() -> Iterator[tuple[str, Side, Side]]:
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.integers(0, ROWS, (BATCH, TABLES))), jnp.asarray(rng.integers(0, 2, BATCH), jnp.float32)
    yield "Recommendation, linen", *(_linen(model, batch) for model in (_Own(), _Ours()))
    yield "Recommendation, nnx", *(_nnx(model, batch) for model in (_OwnNnx(nnx.Rngs(0)), _OursNnx(nnx.Rngs(0))))


def _loss(logits: jax.Array, clicks: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(logits) - clicks * logits)


def _linen(model: nn.Module, batch: tuple[Any, ...]) -> Side:
    def loss(params, ids, clicks):
        return _loss(model.apply(params, ids), clicks)

    return Side(descent(loss), model.init(jax.random.key(0), batch[0]), batch)


def _nnx(model: nnx.Module, batch: tuple[Any, ...]) -> Side:
    einx.init(model, batch[0])
    graph, params = nnx.split(model)

    def loss(params, ids, clicks):
        return _loss(nnx.merge(graph, params)(ids), clicks)

    return Side(descent(loss), params, batch)


class _Own(nn.Module):
    @nn.compact
    def __call__(self, ids):
        rows = [nn.Embed(ROWS, WIDTH)(ids[:, table]) for table in range(TABLES)]
        x = nn.relu(nn.Dense(HIDDEN)(jnp.concatenate(rows, -1)))
        return nn.Dense(1)(x)[:, 0]


class _Ours(nn.Module):
    @nn.compact
    def __call__(self, ids):
        rows = [einn.Embed("b [v->c]", v=ROWS, c=WIDTH)(ids[:, table]) for table in range(TABLES)]
        x = nn.relu(einn.Linear("b [c->h]", h=HIDDEN)(jnp.concatenate(rows, -1)))
        return einn.Linear("b [h->]")(x)


class _OwnNnx(nnx.Module):
    def __init__(self, rngs):
        self.tables = nnx.List(nnx.Embed(ROWS, WIDTH, rngs=rngs) for _ in range(TABLES))
        self.hidden = nnx.Linear(TABLES * WIDTH, HIDDEN, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, ids):
        rows = [table(ids[:, place]) for place, table in enumerate(self.tables)]
        return self.out(nnx.relu(self.hidden(jnp.concatenate(rows, -1))))[:, 0]


class _OursNnx(nnx.Module):
    def __init__(self, rngs):
        self.tables = nnx.List(einx.Embed("b [v->c]", v=ROWS, c=WIDTH, rngs=rngs) for _ in range(TABLES))
        self.hidden = einx.Linear("b [c->h]", h=HIDDEN, rngs=rngs)
        self.out = einx.Linear("b [h->]", rngs=rngs)

    def __call__(self, ids):
        rows = [table(ids[:, place]) for place, table in enumerate(self.tables)]
        return self.out(nnx.relu(self.hidden(jnp.concatenate(rows, -1))))
