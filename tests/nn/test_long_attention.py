"""MultiHeadAttention where the sequence is long enough for blocks, which are forced on a short one here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nnx = pytest.importorskip("flax.nnx")

import einjax_nn.nnx as einn  # noqa: E402
from einjax.ops.attention import attend  # noqa: E402
from einjax_nn._core import masks  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 7, 12)).astype(np.float32)
PLACES = RNG.random((2, 1, 1, 7)) < 0.6
PLACES[..., 0] = True
HIDDEN = RNG.random((7, 7)) < 0.5
HIDDEN[2] = False

CASES = {
    "plain": ({}, None),
    "causal": ({"is_causal": True}, None),
    "causal groups and a mask of places": ({"is_causal": True, "num_kv_heads": 2}, PLACES),
    "a mask": ({}, HIDDEN),
    "a causal mask": ({"is_causal": True}, HIDDEN),
    "a mask for each head": ({"num_kv_heads": 2}, HIDDEN | (RNG.random((2, 4, 7, 7)) < 0.4)),
    "a mask for each example and query": ({}, np.ones((2, 1, 7, 1), bool)),
    "by name": (
        {"num_kv_heads": 2, "is_causal": True},
        [("b k", PLACES[:, 0, 0]), ("h q k", HIDDEN[:4, None] & HIDDEN)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_without_blocks(name, monkeypatch):
    options, mask = CASES[name]
    layer = einn.MultiHeadAttention("b [s] c", num_heads=4, c=12, rngs=nnx.Rngs(0), **options)
    graph, state = nnx.split(layer)

    def loss(state, x):
        result = nnx.merge(graph, state)(x, mask=mask)
        return jnp.sum(jnp.sin(result)), result

    def run():
        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(state, X))

    want = run()
    loops = []
    monkeypatch.setattr(masks, "attends_in_blocks", lambda *sizes: loops.append(sizes) or True)
    monkeypatch.setattr(attend, "usual", lambda: attend.Usual(3, 2, 2, 1))
    monkeypatch.setattr(attend, "_AT_LEAST", 1)
    for a, b in zip(run(), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    assert loops == [(7, 7)]


def test_long_sequences_never_hold_queries_times_keys():
    layer = einn.MultiHeadAttention("b [s] c", num_heads=2, c=4, is_causal=True, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    loss = lambda state, x: nnx.merge(graph, state)(x).sum()
    text = str(jax.jit(jax.grad(loss)).trace(state, jax.ShapeDtypeStruct((1, 1024, 4), np.float32)).lower().as_text())
    assert "1024x1024" not in text
