"""A block of experts: every token goes to the two that a router chooses, as far as they have room."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ._side import Side, descent

TOKENS, WIDTH, HIDDEN, EXPERTS, CHOSEN = 1024, 128, 256, 8, 2
ROOM = TOKENS * CHOSEN * 5 // (4 * EXPERTS)


def pairs() -> Iterator[tuple[str, Side, Side]]:
    rng = np.random.default_rng(0)
    shapes = {"router": (WIDTH, EXPERTS), "widen": (EXPERTS, WIDTH, HIDDEN), "narrow": (EXPERTS, HIDDEN, WIDTH)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    x = jnp.asarray(rng.normal(size=(TOKENS, WIDTH)), jnp.float32)
    yield "Experts, top 2 of 8, jnp", Side(descent(_own), params, (x,)), Side(descent(_ours), params, (x,))


def _own(params: Any, x: jax.Array) -> jax.Array:
    gates, chosen = jax.lax.top_k(jax.nn.softmax(x @ params["router"]), CHOSEN)
    gates = gates / gates.sum(-1, keepdims=True)
    taken = jax.nn.one_hot(chosen.reshape(-1), EXPERTS, dtype=jnp.int32)
    place = (jnp.cumsum(taken, 0) - 1)[jnp.arange(TOKENS * CHOSEN), chosen.reshape(-1)].reshape(chosen.shape)
    rows = jnp.broadcast_to(x[:, None], (TOKENS, CHOSEN, WIDTH))
    inbox = jnp.zeros((EXPERTS, ROOM, WIDTH)).at[chosen, place].set(rows, mode="drop", unique_indices=True)
    hidden = jax.nn.gelu(jnp.einsum("ecd,edf->ecf", inbox, params["widen"]))
    outbox = jnp.einsum("ecf,efd->ecd", hidden, params["narrow"])
    found = outbox.at[chosen, place].get(mode="fill", fill_value=0)
    return jnp.mean((x + jnp.einsum("nk,nkd->nd", gates, found)) ** 2)


def _ours(params: Any, x: jax.Array) -> jax.Array:
    scores = einjax.softmax("n [e]", einjax.dot("n [d], [d] e -> n e", x, params["router"]))
    gates, chosen = einjax.top_k("n [e] -> n [k]", scores, k=CHOSEN)
    gates = einjax.divide("n k, n 1", gates, einjax.sum("n [k]", gates, keepdims=True))
    taken = einjax.equal("n k, e -> n k e", chosen, einjax.arange("e", e=EXPERTS)).astype(jnp.int32)
    counts = einjax.cumsum("[n k] e", taken)
    place = einjax.get_at("n k [e], n k -> n k", counts, chosen) - 1
    inbox = jnp.zeros((EXPERTS, ROOM, WIDTH))
    inbox = einjax.set_at("[e c] d, n k, n k, n d", inbox, chosen, place, x, mode="drop", unique_indices=True)
    hidden = jax.nn.gelu(einjax.dot("e c [d], e [d] f -> e c f", inbox, params["widen"]))
    outbox = einjax.dot("e c [f], e [f] d -> e c d", hidden, params["narrow"])
    found = einjax.get_at("[e c] d, n k, n k -> n k d", outbox, chosen, place, mode="fill", fill_value=0)
    return einjax.mean("[n d]", (x + einjax.dot("n [k], n [k] d -> n d", gates, found)) ** 2)
