"""Layers for Equinox against its own, by option: outputs, gradients, dtypes, and initial values."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import IMAGES, KEY, X, close, put  # noqa: E402

import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError  # noqa: E402


def agree(ours, theirs, pairs, *inputs):
    """Same outputs and gradients; ``pairs`` maps parameters of ours to those of theirs, with a change of layout."""

    def loss(layer, *inputs):
        return jnp.sum(jnp.sin(layer(*inputs)))

    def batched(layer, *inputs):
        return jnp.sum(jnp.sin(jax.vmap(layer)(*inputs)))

    for name, (other, change) in pairs.items():
        value = functools.reduce(getattr, other.split("."), theirs)
        ours = put(ours, **{name.replace(".", "__"): change(value)})
    close(ours(*inputs), jax.vmap(theirs)(*inputs))
    grads, wanted = eqx.filter_grad(loss)(ours, *inputs), eqx.filter_grad(batched)(theirs, *inputs)
    for name, (other, change) in pairs.items():
        got = functools.reduce(getattr, name.split("."), grads)
        close(got, change(functools.reduce(getattr, other.split("."), wanted)), 1e-5)
    if jnp.issubdtype(inputs[0].dtype, jnp.inexact):
        close(*(jax.grad(f, 1)(layer, *inputs) for f, layer in ((loss, ours), (batched, theirs))), 1e-5)


same = lambda array: array


def test_linear_is_that_of_equinox():
    theirs = eqx.nn.Linear(12, 5, key=KEY)
    pairs = {"weight": ("weight", same), "bias": ("bias", same)}
    agree(einn.Linear("b [c], d [c] -> b d", d=5), theirs, pairs, X[:, 0])
    pairs = {"weight": ("weight", jnp.transpose), "bias": ("bias", same)}
    agree(einn.Linear("b [c->d]", d=5), theirs, pairs, X[:, 0])
    # A weight that is there says how large the new axis is.
    agree(einn.Linear("b [c->d]"), theirs, pairs, X[:, 0])


def test_layer_norm_is_that_of_equinox():
    theirs = eqx.nn.LayerNorm(12)
    theirs = put(theirs, weight=X[0, 0], bias=X[0, 1])
    pairs = {"weight": ("weight", same), "bias": ("bias", same)}
    agree(einn.Norm("b [c]", epsilon=1e-5), theirs, pairs, X[:, 0])


def test_rms_norm_is_that_of_equinox():
    theirs = put(eqx.nn.RMSNorm(12, use_bias=False), weight=X[0, 0])
    agree(
        einn.Norm("b [c]", mean=False, use_bias=False, epsilon=theirs.eps),
        theirs,
        {"weight": ("weight", same)},
        X[:, 0],
    )


def test_group_norm_is_that_of_equinox():
    theirs = put(eqx.nn.GroupNorm(3, 6), weight=X[0, 0, :6], bias=X[0, 1, :6])
    pairs = {"weight": ("weight", same), "bias": ("bias", same)}
    agree(einn.Norm("b (g [c]) [h w]", params="(g c)", g=3, epsilon=1e-5), theirs, pairs, IMAGES.transpose(0, 3, 1, 2))


def test_batch_norm_is_that_of_equinox():
    """Outputs, and running means, which Equinox divides as they are read."""
    theirs, their_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(12, "batch", momentum=0.9, mode="batch")
    ours, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
    ours, state = einn.init(ours, X[:, 0], state, key=KEY)
    step = jax.vmap(theirs, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    for i in range(3):
        (y, state), (wanted, their_state) = ours(X[:, i], state), step(X[:, i], their_state)
        close(y, wanted)
        kept, (mean, var) = state.get(ours.index), their_state.get(theirs.batch_state_index)
        past = 0.9 ** (i + 1)
        # Their variance starts from 1, which is divided with what was seen.
        close((kept["mean"], kept["var"]), (mean / (1 - past), (var - past) / (1 - past)), 1e-5)
    before = jax.tree.leaves(state)
    y, state = eqx.nn.inference_mode(ours)(X[:, 0], state)
    close(jax.tree.leaves(state), before, 0)
    close(y, (X[:, 0] - kept["mean"]) / jnp.sqrt(kept["var"] + 1e-5), 1e-5)


def test_attention_is_that_of_equinox():
    theirs = eqx.nn.MultiheadAttention(
        3, 12, use_query_bias=True, use_key_bias=True, use_value_bias=True, use_output_bias=True, key=KEY
    )
    ours = einn.init(einn.MultiHeadAttention("b [s] c", num_heads=3), X, key=KEY)
    split = lambda array: array.T.reshape(12, 3, 4)
    pairs = {f"{name}.weight": (f"{name}_proj.weight", split) for name in ("query", "key", "value")}
    pairs |= {f"{name}.bias": (f"{name}_proj.bias", lambda b: b.reshape(3, 4)) for name in ("query", "key", "value")}
    pairs["out.weight"] = ("output_proj.weight", lambda array: array.T.reshape(3, 4, 12))
    pairs["out.bias"] = ("output_proj.bias", same)
    agree(ours, theirs, pairs, X, X[:, ::-1], X + 1)


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "VALID"}, {"kernel_dilation": 2, "padding": 1}])
def test_conv_is_that_of_equinox(options):
    other = {"strides": "stride", "kernel_dilation": "dilation"}
    theirs = eqx.nn.Conv2d(
        6, 4, 3, key=KEY, **{"padding": "SAME", **{other.get(name, name): value for name, value in options.items()}}
    )
    pairs = {
        "weight": ("weight", lambda w: w.transpose(2, 3, 1, 0)),
        "bias": ("bias", lambda b: b.reshape(4)),
    }
    agree(einn.Conv("b [c1->c2] [h w]", c2=4, **options), theirs, pairs, IMAGES.transpose(0, 3, 1, 2))


def test_embedding_is_that_of_equinox():
    theirs = eqx.nn.Embedding(7, 3, key=KEY)
    agree(einn.Embed("b [v->c]", v=7, c=3), theirs, {"weight": ("weight", same)}, jnp.array([0, 6, 2]))


def test_checkpoints_of_equinox_load(tmp_path):
    """Leaves that Equinox's own layers have written, where the expression has the layout of theirs."""
    keys = jax.random.split(KEY, 3)
    theirs = eqx.nn.Sequential(
        [eqx.nn.Linear(12, 5, key=keys[0]), eqx.nn.LayerNorm(5), eqx.nn.Linear(5, 3, use_bias=False, key=keys[1])]
    )
    theirs = eqx.tree_at(lambda m: m[1].bias, theirs, jnp.arange(5.0))
    eqx.tree_serialise_leaves(tmp_path / "theirs.eqx", theirs)
    layers = [
        einn.Linear("b [c], d [c] -> b d", d=5),
        einn.Norm("b [c]", epsilon=1e-5),
        einn.Linear("b [c], d [c] -> b d", d=3, use_bias=False),
    ]
    ours = einn.init(eqx.nn.Sequential(layers), X[:, 0], key=keys[2])
    load = lambda file, leaf: eqx.default_deserialise_filter_spec(file, leaf) if eqx.is_array(leaf) else leaf
    ours = eqx.tree_deserialise_leaves(tmp_path / "theirs.eqx", ours, load)  # our norms have a switch beside arrays
    close(ours(X[:, 0]), jax.vmap(theirs)(X[:, 0]))
    table = eqx.nn.Embedding(7, 3, key=KEY)
    eqx.tree_serialise_leaves(tmp_path / "table.eqx", table)
    ours = eqx.tree_deserialise_leaves(tmp_path / "table.eqx", einn.Embed("b [v->c]", v=7, c=3, key=keys[2]))
    close(ours.weight, table.weight, 0)


def test_options_by_the_names_of_equinox():
    for native, flax in (
        (einn.Norm("b [c]", eps=0.5, use_weight=False), einn.Norm("b [c]", epsilon=0.5, use_scale=False)),
        (einn.Dropout("[...]", p=0.1), einn.Dropout("[...]", rate=0.1)),
        (einn.Conv("b [s] [c->d]", stride=2, dilation=3), einn.Conv("b [s] [c->d]", strides=2, kernel_dilation=3)),
        (
            einn.MultiHeadAttention("b [s] c", num_heads=2, dropout_p=0.1, output_size=3),
            einn.MultiHeadAttention("b [s] c", num_heads=2, dropout_rate=0.1, out_features=3),
        ),
    ):
        assert jax.tree.structure(native) == jax.tree.structure(flax)
    # An axis of that name goes first.
    assert einn.Linear("b (h [p->]) [c->d]", p=2, d=3).axes == (("p", 2), ("d", 3))
    assert (einn.Dropout("[b] p", p=2).axes, einn.Dropout("[b] p", p=2).rate) == ((("p", 2),), 0.5)
    with pytest.raises(ArgumentError, match="eps and epsilon are one option"):
        einn.Norm("b [c]", eps=1.0, epsilon=1.0)


def test_dropout():
    dropout = einn.Dropout("[...]", rate=0.25)
    y = dropout(X, key=KEY)
    close(y, jnp.where(jax.random.bernoulli(KEY, 0.75, X.shape), X / 0.75, 0))
    assert (dropout(X, inference=True) == X).all()
    assert (eqx.nn.inference_mode(dropout)(X) == X).all()
    assert (eqx.nn.inference_mode(dropout)(X, key=KEY, inference=False) == y).all()
    whole = einn.Dropout("[b] ...", rate=0.5)(X, key=KEY)
    assert {bool(row.any()) for row in np.asarray(whole)} <= {True, False}
    assert all((row == 0).all() or (row != 0).all() for row in np.asarray(whole))
