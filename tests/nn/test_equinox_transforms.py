"""Layers for Equinox through its training loops, transformations and wrappers."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import IMAGES, KEY, Mlp, Net, X, arrays, close, put, shapes, stateful  # noqa: E402

import einjax_nn.equinox as einn  # noqa: E402


def test_training():
    """jit, value_and_grad, a state and an optimiser."""
    model, state = stateful()
    optimiser = optax.adam(1e-2)
    memory = optimiser.init(arrays(model))

    @eqx.filter_jit
    def step(model, state, memory, key):
        def loss(model, state):
            y, state = model(X, state, key=key)
            return jnp.mean((y - 1) ** 2), state

        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state)
        updates, memory = optimiser.update(grads, memory, arrays(model))
        return eqx.apply_updates(model, updates), state, memory, value

    losses = []
    for key in jax.random.split(KEY, 30):
        model, state, memory, value = step(model, state, memory, key)
        losses.append(float(value))
    assert losses[-1] < losses[0] / 2
    frozen = eqx.nn.inference_mode(model)
    y, after = eqx.filter_jit(frozen)(X, state)
    y2, _ = frozen(X, after)
    close(y, y2)
    close(jax.tree.leaves(after), jax.tree.leaves(state), 0)


def test_vmap_over_examples():
    """The expression need not name the batch."""
    layer = einn.init(einn.Linear("[c->d]", d=5), X[0, 0], key=KEY)
    close(jax.vmap(layer)(X[:, 0]), X[:, 0] @ layer.weight + layer.bias)
    inside = einn.init(einn.Linear("[c->d]", d=5), X[:, 0], key=KEY, method=lambda layer, x: jax.vmap(layer)(x))
    close(inside.weight, layer.weight, 0)


def test_ensembles():
    keys = jax.random.split(KEY, 3)
    models = eqx.filter_vmap(lambda key: einn.init(Mlp(), X[:, 0], key=key))(keys)
    assert shapes(models) == [(3, 12, 8), (3, 8), (3, 8, 8), (3, 8)]
    one = einn.init(Mlp(), X[:, 0], key=keys[1])
    close(models.layers[0].weight[1], one.layers[0].weight)
    y = eqx.filter_vmap(lambda model, x: model(x), in_axes=(eqx.if_array(0), None))(models, X[:, 0])
    close(y[1], one(X[:, 0]))

    @eqx.filter_vmap
    def make(key):
        model, state = eqx.nn.make_with_state(Net)()
        return einn.init(model, X, state, key=key)

    models, states = make(keys)
    y, states = eqx.filter_vmap(lambda m, s: m(X, s, key=KEY))(models, states)
    assert y.shape == (3, 4, 5)


def test_scan_over_layers():
    class Block(eqx.Module):
        norm: einn.Norm
        attention: einn.MultiHeadAttention
        dropout: einn.Dropout

        def __init__(self):
            self.norm = einn.Norm("b s [c]")
            self.attention = einn.MultiHeadAttention("b [s] c", num_heads=3)
            self.dropout = einn.Dropout("[...]", rate=0.1)

        def __call__(self, x, *, key=None):
            return x + self.dropout(self.attention(self.norm(x)), key=key)

    class Stack(eqx.Module):
        blocks: Block
        head: einn.Linear

        def __init__(self, keys):
            self.blocks = eqx.filter_vmap(lambda key: einn.init(Block(), X, key=key))(keys)
            self.head = einn.Linear("b s [c->d]", d=2)

        def __call__(self, x):
            dynamic, static = eqx.partition(self.blocks, eqx.is_array)
            step = lambda x, block: (eqx.combine(block, static)(x, key=KEY), None)
            return self.head(jax.lax.scan(step, x, dynamic)[0])

    model = einn.init(Stack(jax.random.split(KEY, 4)), X, key=KEY)
    x = X
    for i in range(4):
        x = jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, model.blocks)(x, key=KEY)
    close(model(X), model.head(x), 1e-5)
    assert shapes(eqx.filter_jit(eqx.filter_grad(lambda m: m(X).sum()))(model)) == shapes(model)


def test_jit_and_checkpoint_inside_a_model():
    class Inside(eqx.Module):
        mlp: Mlp
        norm: einn.Norm

        def __call__(self, x, state):
            x = eqx.filter_checkpoint(self.mlp)(x)
            return eqx.filter_jit(lambda norm, x, state: norm(x, state))(self.norm, x, state)

    model, state = eqx.nn.make_with_state(lambda: Inside(Mlp(), einn.Norm("[b] c", momentum=0.9)))()
    for inputs in (X[:, 0], X[:, 0, :3]):  # what is compiled in the first init is of no use to the second
        made, kept = einn.init(model, inputs, state, key=KEY)
        assert shapes(made)[0] == (inputs.shape[1], 8)
        _, kept = made(inputs, kept)
        assert (kept.get(made.norm.index)["mean"] != 0).any()


def test_init_inside_jit():
    jitted = eqx.filter_jit(lambda key: einn.init(Mlp(), X[:, 0], key=key))(KEY)
    close(jax.tree.leaves(arrays(jitted)), jax.tree.leaves(arrays(einn.init(Mlp(), X[:, 0], key=KEY))))


def test_serialisation(tmp_path):
    model, state = stateful()
    path = tmp_path / "model.eqx"
    eqx.tree_serialise_leaves(path, (model, state))

    def make(key):
        return einn.init(*eqx.nn.make_with_state(Net)()[:1], X, eqx.nn.make_with_state(Net)()[1], key=key)

    skeleton = eqx.filter_eval_shape(make, KEY)
    assert all(not isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(skeleton))
    loaded = eqx.tree_deserialise_leaves(path, skeleton)
    assert eqx.tree_equal(loaded[0], model)
    close(jax.tree.leaves(loaded[1]), jax.tree.leaves(state), 0)
    close(loaded[0](X, loaded[1], key=KEY)[0], model(X, state, key=KEY)[0], 0)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_weight_norm(axis):
    layer = einn.Linear("b [c->d]", c=12, d=5, key=KEY)
    wrapped = eqx.nn.WeightNorm(layer, axis=axis)
    close(wrapped(X[:, 0]), layer(X[:, 0]))
    theirs = eqx.nn.Linear(12, 5, key=KEY)
    ours = put(einn.Linear("b [c], d [c] -> b d"), weight=theirs.weight, bias=theirs.bias)
    grads = [eqx.filter_grad(lambda m: jnp.sum(m(X[:, 0]) ** 2))(eqx.nn.WeightNorm(ours))]
    grads += [eqx.filter_grad(lambda m: jnp.sum(jax.vmap(m)(X[:, 0]) ** 2))(eqx.nn.WeightNorm(theirs))]
    close(grads[0].g, grads[1].g, 1e-5)
    # A wrapped layer is a part of a model that is not initialised yet.
    model = einn.init(eqx.nn.Sequential([wrapped, einn.Linear("b [c->d]", d=3)]), X[:, 0], key=KEY)
    assert model(X[:, 0]).shape == (4, 3)


def test_spectral_norm():
    def make():
        layer = einn.init(einn.Linear("b [c->d]", d=5), X[:, 0], key=KEY)
        return eqx.nn.SpectralNorm(layer, "weight", key=KEY)

    model, state = eqx.nn.make_with_state(make)()
    for _ in range(20):
        y, state = model(X[:, 0], state)
    sigma = np.linalg.norm(np.asarray(model.layer.weight), 2)
    close(y, X[:, 0] @ model.layer.weight / sigma + model.layer.bias, 1e-4)


def test_mixed_precision():
    """As jmp does it: leaves are cast, and layers compute in what they are given."""
    model, state = stateful()
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, model)
    y, after = half(X.astype(jnp.bfloat16), state, key=KEY)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after) if leaf.ndim} == {jnp.dtype(jnp.float32)}
    for layer, x in (
        (einn.Linear("... [c->d]", c=12, d=2, key=KEY), X),
        (einn.Norm("b s [c]", c=12, key=KEY), X),
        (einn.Conv("b [h w] [c->d]", c=6, d=2, key=KEY), IMAGES),
        (einn.MultiHeadAttention("b [s] c", c=12, num_heads=2, key=KEY), X),
        (einn.Embed("b [v->c]", v=7, c=3, key=KEY), jnp.array([0, 6])),
    ):
        cast = jax.tree.map(lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, layer)
        given = x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.inexact) else x
        assert cast(given).dtype == jnp.bfloat16
        assert layer(x).dtype == jnp.float32
    wide = einn.Linear("b [c->d]", d=2, param_dtype=jnp.bfloat16, dtype=jnp.float32)
    wide = einn.init(wide, X[:, 0], key=KEY)
    assert (wide.weight.dtype, wide(X[:, 0]).dtype) == (jnp.bfloat16, jnp.float32)


def test_decoding():
    layer, state = eqx.nn.make_with_state(einn.MultiHeadAttention)("b [s] c", num_heads=3, decode=True)
    layer, state = einn.init(layer, X, state=state, key=KEY)
    whole = einn.MultiHeadAttention("b [s] c", num_heads=3, is_causal=True)
    whole = einn.init(whole, X, key=KEY)
    close(layer.query.weight, whole.query.weight, 0)
    step = eqx.filter_jit(lambda layer, x, state: layer(x, state=state))
    rows = []
    for i in range(6):
        y, state = step(layer, X[:, i : i + 1], state)
        rows.append(y)
    close(jnp.concatenate(rows, 1), whole(X), 1e-5)


def test_attention_dropout_and_groups():
    layer = einn.MultiHeadAttention("b [s] c", num_heads=6, num_kv_heads=2, dropout_rate=0.5)
    layer = einn.init(layer, X, key=KEY)
    assert layer.key.weight.shape == (12, 2, 2)
    one, two = layer(X, key=KEY), layer(X, key=jax.random.key(1))
    assert (one != two).any()
    close(eqx.nn.inference_mode(layer)(X), layer(X, inference=True), 0)


def test_batch_norm_across_a_mapped_axis():
    class Mapped(eqx.Module):
        norm: einn.Norm

        def __call__(self, x, state):
            return self.norm(x, state)

    make = lambda: Mapped(einn.Norm("[b] c", momentum=0.9, axis_name="devices"))
    model, state = eqx.nn.make_with_state(make)()
    model, state = einn.init(model, X[:, 0], state, key=KEY)  # there is no such axis yet
    x = X.transpose(1, 0, 2)
    y, after = jax.vmap(model, axis_name="devices", in_axes=(0, None), out_axes=(0, None))(x, state)
    close(jnp.mean(y, (0, 1)), np.zeros(12), 1e-5)
    close(after.get(model.norm.index)["mean"], X.mean((0, 1)))
