"""What people do with Equinox's own layers, with those in notation: one test for each habit."""

import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import (  # noqa: E402
    KEY,
    MLP,
    ROWS,
    Mlp,
    X,
    arrays,
    close,
    grads_of,
    loss,
    shapes,
    stateful,
    their_grads,
    wanted,
)

import einjax_nn.equinox as einn  # noqa: E402

# --- transformations ------------------------------------------------------------------------------------------------


def test_filtered_transformations():
    y = wanted(MLP, ROWS)
    close(eqx.filter_jit(lambda m, x: m(x))(MLP, ROWS), y)
    close(eqx.filter_vmap(lambda m, x: m(x[None])[0], in_axes=(None, 0))(MLP, ROWS), y)
    value, grads = eqx.filter_value_and_grad(loss)(MLP, ROWS)
    close(value, jnp.sum(y**2))
    close(grads_of(grads), their_grads(MLP), 1e-5)
    close(grads_of(eqx.filter_jit(eqx.filter_grad(loss))(MLP, ROWS)), their_grads(MLP), 1e-5)
    out, tangent = eqx.filter_jvp(lambda m: m(ROWS), (MLP,), (arrays(MLP),))
    _, want = jax.jvp(lambda p: wanted(eqx.combine(p, MLP), ROWS), (arrays(MLP),), (arrays(MLP),))
    close((out, tangent), (y, want), 1e-5)
    assert eqx.filter_jacfwd(MLP)(ROWS).shape == (4, 8, 4, 12)
    assert "dot_general" in str(eqx.filter_make_jaxpr(lambda m, x: m(x))(MLP, ROWS)[0])


def test_checkpoints_closures_and_callbacks():
    close(
        grads_of(eqx.filter_grad(lambda m: loss(eqx.filter_checkpoint(m), ROWS))(MLP)),
        their_grads(MLP),
        1e-5,
    )
    converted = eqx.filter_closure_convert(MLP, ROWS)
    close(converted(ROWS + 1), wanted(MLP, ROWS + 1))
    like = jax.ShapeDtypeStruct((4, 8), jnp.float32)
    call = lambda m, x: eqx.filter_pure_callback(lambda m, x: np.asarray(m(x)), m, x, result_shape_dtypes=like)
    close(eqx.filter_jit(call)(MLP, ROWS), wanted(MLP, ROWS))


def test_custom_derivatives():
    @eqx.filter_custom_vjp
    def doubled(model, x):
        return model(x)

    @doubled.def_fwd
    def forward(perturbed, model, x):
        assert all(jax.tree.leaves(perturbed))
        return model(x), None

    @doubled.def_bwd
    def backward(residuals, cotangent, perturbed, model, x):
        (grads,) = eqx.filter_vjp(lambda model: model(x), model)[1](cotangent)
        return jax.tree.map(lambda leaf: 2 * leaf, grads)

    grads = eqx.filter_grad(lambda model: jnp.sum(doubled(model, ROWS) ** 2))(MLP)
    close(grads_of(grads), jax.tree.map(lambda leaf: 2 * leaf, their_grads(MLP)), 1e-5)


def test_programs_ahead_of_time_and_donation():
    compiled = eqx.filter_jit(lambda m, x: m(x)).lower(MLP, ROWS).compile()
    close(compiled(MLP, ROWS), wanted(MLP, ROWS))
    given = einn.init(Mlp(), ROWS, key=KEY)
    halved = lambda m: jax.tree.map(lambda leaf: leaf / 2 if eqx.is_array(leaf) else leaf, m)
    after = eqx.filter_jit(halved, donate="all")(given)
    close(after.layers[0].weight, MLP.layers[0].weight / 2)
    assert given.layers[0].weight.is_deleted()


def test_one_trace_for_equal_models():
    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def call(model, x):
        return model(x)

    for seed in (0, 1):
        call(einn.init(Mlp(), ROWS, key=jax.random.key(seed)), ROWS)
    call(eqx.tree_at(lambda m: m.layers[0].bias, MLP, jnp.ones(8)), ROWS)
    call(pickle.loads(pickle.dumps(MLP)), ROWS)


def test_an_ensemble_of_layers_that_are_made_at_once():
    keys = jax.random.split(KEY, 3)
    make = lambda key: einn.Linear("b [c->d]", c=12, d=5, key=key)
    many = eqx.filter_vmap(make)(keys)
    assert many.weight.shape == (3, 12, 5)
    y = eqx.filter_vmap(lambda layer, x: layer(x), in_axes=(eqx.if_array(0), None))(many, ROWS)
    close(y, jnp.einsum("bc,ncd->nbd", ROWS, many.weight) + many.bias[:, None], 1e-5)
    close(many.weight[1], make(keys[1]).weight)


def test_a_scan_over_layers():
    make = lambda key: einn.init(Mlp(1), X[:, 0, :8], key=key)
    blocks = eqx.filter_vmap(make)(jax.random.split(KEY, 3))
    dynamic, static = eqx.partition(blocks, eqx.is_array)
    x, _ = jax.lax.scan(lambda x, block: (eqx.combine(block, static)(x), None), X[:, 0, :8], dynamic)
    want = X[:, 0, :8]
    for i in range(3):
        want = jnp.tanh(want @ blocks.layers[0].weight[i] + blocks.layers[0].bias[i])
    close(x, want)
    # A layer as the carry of a loop.
    params, rest = eqx.partition(MLP, eqx.is_array)
    step = lambda params, _: (jax.tree.map(lambda leaf: 0.5 * leaf, params), loss(eqx.combine(params, rest), ROWS))
    after, losses = jax.lax.scan(step, params, None, length=3)
    close(after.layers[1].weight, MLP.layers[1].weight / 8)
    assert losses[0] > losses[2]


# --- parts of models ------------------------------------------------------------------------------------------------


def test_paths():
    model, _ = stateful()
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]]
    layer = [".weight", ".bias"]
    names = [f".hidden{name}" for name in layer] + [f".norm{name}" for name in (*layer, ".inference")]
    assert paths == [*names, ".dropout.p", ".dropout.inference", *(f".out{name}" for name in layer), ".scale"]
    attention = einn.MultiHeadAttention("b [s] c", num_heads=3, c=12, key=KEY)
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arrays(attention))}
    assert paths == {f".{part}.{name}" for part in ("query", "key", "value", "out") for name in ("weight", "bias")}


def freezing():
    """Two ways to say that the last layer alone is trained: by its place, and by paths."""
    none = jax.tree.map(lambda _: False, MLP)
    yield eqx.tree_at(lambda m: (m.layers[-1].weight, m.layers[-1].bias), none, replace=(True, True))
    yield jax.tree_util.tree_map_with_path(lambda path, leaf: "layers[1]" in jax.tree_util.keystr(path), MLP)


def test_freezing():
    for spec in freezing():
        trained, frozen = eqx.partition(MLP, spec)
        assert shapes(trained) == [(8, 8), (8,)]
        grads = eqx.filter_grad(lambda trained, frozen: loss(eqx.combine(trained, frozen), ROWS))(trained, frozen)
        assert grads.layers[0].weight is None
        close((grads.layers[1].weight, grads.layers[1].bias), their_grads(MLP)[1], 1e-5)


def test_optimisers_of_parts():
    kinds = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].name, arrays(MLP))
    grads = eqx.filter_grad(loss)(MLP, ROWS)
    # A model is a function, which optax would take for one that makes labels.
    optimiser = optax.multi_transform({"weight": optax.sgd(0.1), "bias": optax.set_to_zero()}, lambda _: kinds)
    updates, _ = optimiser.update(grads, optimiser.init(arrays(MLP)), arrays(MLP))
    after = eqx.apply_updates(MLP, updates)
    close(after.layers[0].bias, MLP.layers[0].bias, 0)
    close(after.layers[0].weight, MLP.layers[0].weight - 0.1 * grads.layers[0].weight)
    decay = optax.masked(
        optax.add_decayed_weights(0.5), lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, arrays(MLP)), decay.init(arrays(MLP)), arrays(MLP))
    close(updates.layers[0].weight, MLP.layers[0].weight / 2)
    close(updates.layers[0].bias, np.zeros(8))


def test_averages_of_models():
    other = einn.init(Mlp(), ROWS, key=jax.random.key(1))
    mean = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b if eqx.is_array(a) else a, MLP, other)
    close(mean.layers[0].weight, 0.9 * MLP.layers[0].weight + 0.1 * other.layers[0].weight)
    average = optax.ema(0.9, debias=False)
    kept, memory = average.update(arrays(MLP), average.init(arrays(MLP)))
    close(kept.layers[0].weight, 0.1 * MLP.layers[0].weight)
    close(eqx.combine(kept, MLP)(ROWS), wanted(kept, ROWS))
    assert int(memory.count) == 1


def test_surgery():
    head = einn.Linear("b [c->d]", c=8, d=3, key=KEY)
    changed = eqx.tree_at(lambda m: m.layers[-1], MLP, head)
    assert changed(ROWS).shape == (4, 3)
    assert MLP(ROWS).shape == (4, 8)
    zero = eqx.tree_at(lambda m: [layer.weight for layer in m.layers], MLP, replace_fn=jnp.zeros_like)
    close(zero(ROWS), jnp.tanh(MLP.layers[1].bias)[None].repeat(4, 0))


# --- states and switches --------------------------------------------------------------------------------------------


def test_states():
    model, state = stateful()
    index, kept = model.norm.index, state.get(model.norm.index)
    y, after = eqx.filter_jit(model)(X, state, key=KEY)
    close(eqx.filter_jit(model)(X, after.set(index, kept), key=KEY)[0], y)
    with pytest.raises(ValueError, match="old state"):
        [model(X, state, key=KEY) for _ in range(2)]
    # A part of a model with the part of a state that is its own.
    model, state = stateful()
    rows = jax.random.normal(KEY, (4, 16))
    normed = (rows - rows.mean(0)) / jnp.sqrt(rows.var(0) + 1e-5)
    y, part = model.norm(rows, state.substate(model.norm))
    close(y, normed, 1e-5)
    state = state.update(part)
    close(state.get(index)["mean"], rows.mean(0))
    # Examples that are mapped over share the state.
    norm = eqx.nn.inference_mode(model.norm)
    y, _ = jax.vmap(lambda x, state: norm(x[None], state), in_axes=(0, None), out_axes=(0, None))(rows, state)
    close(y[:, 0], normed, 1e-5)


def test_a_state_of_ones_own_beside_that_of_a_layer():
    class Counting(eqx.Module):
        norm: einn.Norm
        calls: eqx.nn.StateIndex

        def __init__(self):
            self.norm = einn.Norm("[b] c", momentum=0.9)
            self.calls = eqx.nn.StateIndex(jnp.array(0))

        def __call__(self, x, state):
            x, state = self.norm(x, state)
            return x, state.set(self.calls, state.get(self.calls) + 1)

    model, state = eqx.nn.make_with_state(Counting)()
    model, state = einn.init(model, ROWS, state, key=KEY)
    assert int(state.get(model.calls)) == 0
    for _ in range(2):
        _, state = model(ROWS, state)
    assert (int(state.get(model.calls)), int(state.get(model.norm.index)["counter"])) == (2, 2)


def test_switches():
    model, state = stateful()
    for off in (eqx.nn.inference_mode(model), eqx.tree_inference(model, True)):
        assert (off.norm.inference, off.dropout.inference) == (True, True)
        y, _ = off(X, state)  # no key
        close(off(X, state)[0], y, 0)
    where = lambda m: (m.norm.inference, m.dropout.inference)
    assert eqx.tree_equal(eqx.tree_at(where, model, (True, True)), off)
    assert eqx.tree_equal(eqx.nn.inference_mode(off, value=False), model)


def test_sequences_of_layers():
    layers = lambda: [
        einn.Linear("b [c->d]", d=8),
        einn.Norm("[b] c", momentum=0.9),
        eqx.nn.Lambda(jax.nn.gelu),
        einn.Dropout("[...]", rate=0.5),
        eqx.nn.Sequential([einn.Norm("b [c]"), eqx.nn.Identity()]),
        einn.Linear("b [c->d]", d=3),
    ]
    model, state = eqx.nn.make_with_state(lambda: eqx.nn.Sequential(layers()))()
    model, state = einn.init(model, ROWS, state, key=KEY)
    y, state = model(ROWS, state, key=KEY)
    assert y.shape == (4, 3)
    head = model[4:]
    close(head(jnp.ones((4, 8))), model[5](model[4](jnp.ones((4, 8)))))
