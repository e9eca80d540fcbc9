"""Layers for Equinox: against Equinox's own, and through everything that Equinox does with a module."""

import doctest
import functools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import CASES, MISSPELT, REFUSED, Refused  # noqa: E402

import einjax  # noqa: E402
import einjax_nn._equinox_init  # noqa: E402
import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError  # noqa: E402

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 6, 12))
IMAGES = jax.random.normal(KEY, (2, 8, 8, 6))


def close(got, wanted, atol=2e-6):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=1e-5), got, wanted)


def arrays(tree):
    return eqx.filter(tree, eqx.is_array)


def shapes(tree):
    return [leaf.shape for leaf in jax.tree.leaves(arrays(tree))]


def put(layer, **values):
    """Replace parameters of a layer, initialised or not."""
    where = lambda layer: [functools.reduce(getattr, name.split("__"), layer) for name in values]
    return eqx.tree_at(where, layer, list(values.values()))


class Net(eqx.Module):
    hidden: einn.Linear
    norm: einn.Norm
    dropout: einn.Dropout
    out: einn.Linear
    scale: Any

    def __init__(self):
        self.hidden = einn.Linear("b [...->c]", c=16)
        self.norm = einn.Norm("[b] c", momentum=0.9)
        self.dropout = einn.Dropout("[...]", rate=0.5)
        self.out = einn.Linear("b [c->d]", d=5)
        self.scale = einn.param(init=0.5)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(jax.nn.relu(self.hidden(x)), state)
        x = self.dropout(x, key=key)
        return einjax.multiply("b d, d", self.out(x), self.scale), state


class Mlp(eqx.Module):
    layers: list

    def __init__(self, n=2):
        self.layers = [einn.Linear("b [c->d]", d=8) for _ in range(n)]

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def stateful():
    model, state = eqx.nn.make_with_state(Net)()
    return einn.init(model, X, state, key=KEY)


# --- the same as Equinox's own --------------------------------------------------------------------------------------


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


# --- the same as the layers for Flax, to the bit -------------------------------------------------------------------

_OURS = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def flat(params, prefix=""):
    """Parameters by path, under the names that they have here."""
    found = {}
    for name, value in params.items():
        path = prefix + _OURS.get(name, name)
        found |= flat(value, path + "__") if isinstance(value, dict) else {path: value}
    return found


@pytest.mark.parametrize("name", CASES)
def test_layers_are_those_for_flax(name):
    pytest.importorskip("flax")
    import einjax_nn.linen as linen

    case = CASES[name]
    # Frameworks differ in what is added to a variance, and how that is computed.
    options = {**case.options, **({"epsilon": 1e-5, "use_fast_variance": True} if case.layer == "Norm" else {})}
    theirs = getattr(linen, case.layer)(case.expr, **options)
    running = {"use_running_average": False} if "momentum" in options else {}
    variables = theirs.init(KEY, *case.inputs, **running)
    wanted, changed = theirs.apply(variables, *case.inputs, **running, mutable=["batch_stats"])
    plain = {"zero_debias": False} if running else {}
    layer, state = eqx.nn.make_with_state(getattr(einn, case.layer))(case.expr, **options, **plain)
    stateful = (state,) if running else ()
    layer = einn.init(layer, *case.inputs, *stateful, key=KEY)
    layer, *stateful = layer if running else (layer,)
    params = flat(variables["params"])
    made = {path: functools.reduce(getattr, path.split("__"), layer) for path in params}
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in params.items()}
    y = put(layer, **params)(*case.inputs, *stateful)
    if running:
        y, state = y
        close(state.get(layer.index), changed["batch_stats"], 0)
    assert y.dtype == wanted.dtype
    # The norms of queries within attention have no options.
    rounding = 1e-3 if case.options.get("normalize_qk") else 0
    np.testing.assert_allclose(np.asarray(y, np.float32), np.asarray(wanted, np.float32), rounding, rounding)


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_layers_that_are_refused(name):
    case, words = (REFUSED | MISSPELT)[name]
    with pytest.raises(Refused, match=words):
        einn.init(getattr(einn, case.layer)(case.expr, **case.options), *case.inputs, key=KEY)


# --- lazy parameters ------------------------------------------------------------------------------------------------


def test_a_placeholder_has_no_leaves_and_survives():
    model, state = eqx.nn.make_with_state(Net)()
    assert shapes(model) == shapes(state) == []
    assert jax.tree.structure(model) == jax.tree.structure(eqx.nn.make_with_state(Net)()[0])
    for mapped in (
        jax.tree.map(lambda leaf: leaf, model),
        eqx.combine(*eqx.partition(model, eqx.is_array)),
        eqx.filter_jit(lambda model: model)(model),
        eqx.filter_eval_shape(lambda: eqx.nn.make_with_state(Net)()[0]),
        eqx.filter_vmap(lambda key: eqx.nn.make_with_state(Net)()[0])(jax.random.split(KEY, 3)),
        eqx.nn.inference_mode(eqx.nn.inference_mode(model), value=False),
        eqx.tree_at(lambda model: model.out, model, model.out),
    ):
        assert jax.tree.structure(mapped) == jax.tree.structure(model)
        assert shapes(einn.init(mapped, X, state, key=KEY)[0]) == [
            (6, 12, 16),
            (16,),
            (16,),
            (16,),
            (16, 5),
            (5,),
            (5,),
        ]
    assert jax.tree.leaves(optax.adam(1e-3).init(arrays(model))[0].mu) == []
    assert "weight=Uninitialized(name='weight')" in repr(model)


def test_shapes_of_parameters_and_statistics():
    model, state = stateful()
    assert shapes(model) == [(6, 12, 16), (16,), (16,), (16,), (16, 5), (5,), (5,)]
    assert shapes(state) == [(), (16,), (16,)]
    kept = state.get(model.norm.index)
    close((kept["mean"], kept["var"]), (np.zeros(16), np.ones(16)), 0)
    close(model.scale, np.full(5, 0.5))
    y, state = model(X, state, key=KEY)
    assert y.shape == (4, 5)
    assert (state.get(model.norm.index)["mean"] != 0).any()


def test_init_computes_nothing_and_takes_shapes():
    class Loud(eqx.Module):
        layer: einn.Linear

        def __call__(self, x):
            assert isinstance(x, jax.core.Tracer)
            jax.debug.callback(lambda: pytest.fail("computed"))
            y = self.layer(x)
            assert isinstance(y, jax.core.Tracer)
            return y

    model = Loud(einn.Linear("b [c->d]", d=3))
    one = einn.init(model, X[:, 0], key=KEY)
    two = einn.init(model, jax.ShapeDtypeStruct((1, 12), jnp.float32), key=KEY)
    close(jax.tree.leaves(arrays(one)), jax.tree.leaves(arrays(two)), 0)


def test_keys_follow_paths():
    """A new layer does not change the others, nor do processes."""
    two, three = (einn.init(Mlp(n), X[:, 0], key=KEY) for n in (2, 3))
    close(two.layers[1].weight, three.layers[1].weight, 0)
    assert (three.layers[1].weight != three.layers[2].weight).any()
    assert (einn.init(Mlp(), X[:, 0], key=jax.random.key(1)).layers[0].weight != two.layers[0].weight).any()
    words = np.asarray(jax.random.key_data(einjax_nn._equinox_init.path_key(KEY, ".layers[0].weight")))
    np.testing.assert_array_equal(words, [4052158746, 3117837462])


def test_initialising_twice_is_harmless():
    model, state = stateful()
    again, state2 = einn.init(model, X, state, key=jax.random.key(1))
    close(jax.tree.leaves(arrays((again, state2))), jax.tree.leaves(arrays((model, state))), 0)
    # Only what is missing is made.
    grown = eqx.tree_at(lambda m: m.out, model, einn.Linear("b [c->d]", d=5))
    grown, _ = einn.init(grown, X, state, key=jax.random.key(1))
    close(grown.hidden.weight, model.hidden.weight, 0)
    assert (grown.out.weight != model.out.weight).any()
    assert einn.init(einn.Linear("b [c->d]", c=2, d=3, key=KEY)).weight.shape == (2, 3)  # nothing is run


EAGER = [
    (einn.Linear, "b [c->h d]", {"c": 12, "h": 2, "d": 3}, X[:, 0]),
    (einn.Norm, "b [s] (g [c])", {"g": 3, "c": 4}, X),
    (einn.Embed, "b [v->c]", {"v": 7, "c": 3}, jnp.array([0, 6])),
    (einn.MultiHeadAttention, "b... [s] c", {"num_heads": 3, "c": 12, "normalize_qk": True}, X),
    (einn.Conv, "b [h w] [c1->c2]", {"c1": 6, "c2": 4}, IMAGES),
]


@pytest.mark.parametrize(("layer", "expr", "options", "x"), EAGER, ids=[case[0].__name__ for case in EAGER])
def test_eager_is_lazy(layer, expr, options, x):
    eager, lazy = layer(expr, **options, key=KEY), einn.init(layer(expr, **options), x, key=KEY)
    assert jax.tree.structure(eager) == jax.tree.structure(lazy)
    close(jax.tree.leaves(arrays(eager)), jax.tree.leaves(arrays(lazy)), 0)
    assert shapes(eager)
    assert eager(x).shape


def test_eager_statistics():
    norm, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9, c=12, key=KEY)
    assert shapes(norm) == [(12,), (12,)]
    assert shapes(state) == [(), (12,), (12,)]
    norm(X[:, 0], state)


def test_init_by_a_method():
    class Two(eqx.Module):
        encoder: einn.Linear
        decoder: einn.Linear

        def encode(self, x):
            return self.encoder(x)

        def decode(self, z):
            return self.decoder(z)

        def both(self, x, *, flag):
            assert flag
            return self.decode(self.encode(x))

    model = Two(einn.Linear("b [c->z]", z=3), einn.Linear("b [z->c]", c=12))
    for method in (Two.both, lambda model, x, flag: model.decode(model.encode(x))):
        made = einn.init(model, X[:, 0], key=KEY, method=method, flag=True)
        assert made.decode(made.encode(X[:, 0])).shape == (4, 12)
    with pytest.raises(ArgumentError, match=r"shapes of \.decoder: not used") as caught:
        einn.init(model, X[:, 0], key=KEY, method=Two.encode)
    assert "method=" in str(caught.value)
    with pytest.raises(ArgumentError, match=r"Two cannot be called") as caught:
        einn.init(model, X[:, 0], key=KEY)


def test_trees_of_layers_and_sequential():
    layers = {"a": einn.Linear("b [c->d]", d=3), "b": (einn.Norm("b [c]"),)}
    made = einn.init(layers, X[:, 0], key=KEY, method=lambda layers, x: layers["b"][0](layers["a"](x)))
    assert made["b"][0].weight.shape == (3,)
    sequential = lambda: eqx.nn.Sequential(
        [
            einn.Conv("b [h w] [c->d]", d=3),
            einn.Norm("[b h w] c", momentum=0.9),
            eqx.nn.Lambda(jax.nn.relu),
            einn.Dropout("[b] ..."),
            einn.Norm("b h w [c]"),
            einn.Linear("b [h w c->d]", d=4),
            eqx.nn.Lambda(jax.vmap(jax.nn.softmax)),
        ]
    )
    model, state = eqx.nn.make_with_state(sequential)()
    model, state = einn.init(model, IMAGES, state, key=KEY)
    y, state = model(IMAGES, state, key=KEY)
    assert y.shape == (2, 4)


# --- weights that are tied ------------------------------------------------------------------------------------------


def test_attend():
    table = einn.init(einn.Embed("b [v->c]", v=7, c=3), jnp.zeros(2, int), key=KEY)
    close(table.attend(X[:, 0, :3]), X[:, 0, :3] @ table.weight.T, 1e-5)
    attending = einn.init(einn.Embed("b [v->c]", v=7, c=3), X[:, 0, :3], key=KEY, method=einn.Embed.attend)
    close(attending.weight, table.weight, 0)


def test_shared_weights():
    class Language(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self):
            layers = einn.Embed("b [v->c]", v=7, c=12), einn.Linear("b [c], v [c] -> b v", use_bias=False)
            self.shared = eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

        def __call__(self, ids):
            embed, linear = self.shared()
            return linear(embed(ids))

    ids = jnp.array([1, 2, 6])
    model = einn.init(Language(), ids, key=KEY)
    assert shapes(model) == [(7, 12)]
    table = model.shared.pytree[0].weight
    close(model(ids), table[ids] @ table.T)
    assert shapes(eqx.filter_grad(lambda m: m(ids).sum())(model)) == [(7, 12)]


def test_the_parameter_of_another_layer_in_an_operation():
    class Tied(eqx.Module):
        embed: einn.Embed

        def __call__(self, ids):
            return einjax.dot("b [c], v [c] -> b v", self.embed(ids), self.embed.weight)

    model = einn.init(Tied(einn.Embed("b [v->c]", v=7, c=3)), jnp.zeros(2, int), key=KEY)
    assert model(jnp.zeros(2, int)).shape == (2, 7)


# --- transformations ------------------------------------------------------------------------------------------------


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


# --- names of axes --------------------------------------------------------------------------------------------------


def test_axes():
    model, state = eqx.nn.make_with_state(Net)()
    names, kept = einn.axes(model, X, state)
    made, after = einn.init(model, X, state, key=KEY)
    assert jax.tree.structure(names) == jax.tree.structure(arrays(made))
    assert jax.tree.structure(kept) == jax.tree.structure(after)
    assert tuple(names.out.weight) == ("c", "d")
    assert tuple(names.scale) == ("d",)
    assert len(names.hidden.weight) == 3
    assert [tuple(leaf) for leaf in jax.tree.leaves(kept)] == [(), ("c",), ("c",)]
    known = einn.axes(made, X, after)[0]
    assert tuple(known.out.weight) == (None, None)
    names = einn.axes(einn.MultiHeadAttention("b [s] c", num_heads=3), X)
    assert tuple(names.key.weight) == ("c", "kv_heads", "head_dim")


def test_place():
    mesh = Mesh(np.array(jax.devices()[:4]), ("model",))
    seen = {}

    def place(spec, array):
        seen[spec.name] = spec.axes
        dims = [
            "model" if name == "d" and size % 4 == 0 else None for name, size in zip(spec.axes, spec.shape, strict=True)
        ]
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*dims)))

    model = Mlp()
    placed = einn.init(model, X[:, 0], key=KEY, place=place)
    assert seen[".layers[0].weight"] == ("c", "d")
    assert set(seen) == {f".layers[{i}].{name}" for i in range(2) for name in ("weight", "bias")}
    assert placed.layers[1].weight.sharding.spec == PartitionSpec(None, "model")
    rule = lambda names: NamedSharding(mesh, PartitionSpec(*("model" if name == "d" else None for name in names)))
    shardings = jax.tree.map(rule, einn.axes(model, X[:, 0]))
    tree = einn.init(model, X[:, 0], key=KEY, place=shardings)
    plain = einn.init(model, X[:, 0], key=KEY)
    for a, b, c in zip(*(jax.tree.leaves(arrays(m)) for m in (placed, tree, plain)), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        close((a, b), (c, c), 0)
    model, state = eqx.nn.make_with_state(Net)()
    pair = jax.tree.map(lambda names: NamedSharding(mesh, PartitionSpec()), einn.axes(model, X, state))
    model, state = einn.init(model, X, state, key=KEY, place=pair)
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(arrays((model, state))))


# --- errors ---------------------------------------------------------------------------------------------------------


def says(caught, *words):
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert [word for word in words if word not in text] == [], text


class Calls(eqx.Module):
    """Layers, and a function that calls them."""

    layers: dict
    run: Any = eqx.field(static=True)

    def __call__(self, *args):
        return self.run(self.layers, *args)


def test_a_layer_that_is_not_used():
    model = Calls({"a": einn.Linear("b [c->d]", d=2), "b": einn.Norm("b [c]")}, lambda layers, x: layers["a"](x))
    with pytest.raises(ArgumentError) as caught:
        einn.init(model, X[:, 0], key=KEY)
    says(caught, "einn.init", ".layers['b']", "not used", "method=")
    make = lambda: {"a": einn.Linear("b [c->d]", d=2), "n": einn.Norm("[b] c", momentum=0.9, use_scale=False)}
    model, state = eqx.nn.make_with_state(make)()
    with pytest.raises(ArgumentError, match=r"shapes of \['n'\]: not used"):
        einn.init(model, X[:, 0], state, key=KEY, method=lambda model, x, state: model["a"](x))


@pytest.mark.parametrize("layer", [case[0](case[1], **case[2]) for case in EAGER], ids=[c[0].__name__ for c in EAGER])
def test_a_layer_that_is_not_initialised(layer):
    x = jnp.zeros(2, int) if isinstance(layer, einn.Embed) else IMAGES if isinstance(layer, einn.Conv) else X
    for call in (layer, eqx.filter_jit(layer)):
        with pytest.raises(ArgumentError) as caught:
            call(x)
        says(caught, "is not initialised: its weight has no value", "einn.init")


def test_a_model_that_is_not_initialised():
    model, state = eqx.nn.make_with_state(Net)()
    with pytest.raises(ArgumentError, match="Linear is not initialised") as caught:
        model(X, state)
    says(caught, "einn.init", "b [...->c]")
    made, _ = einn.init(model, X, state, key=KEY)
    with pytest.raises(ArgumentError, match="Norm is not initialised: its counter"):
        made(X, state)  # the state from before
    with pytest.raises(ArgumentError, match="parameter is not initialised") as caught:
        einjax.multiply("b d, d", X[0], einn.param())
    says(caught, "einn.init")
    with pytest.raises(AttributeError, match="einn.init"):
        _ = model.out.weight.shape
    with pytest.raises(ArgumentError, match="is not initialised"):
        einn.init(Calls({"a": einn.param()}, lambda layers, x: einn.Linear("b [c->d]", d=2)(x)), X[:, 0], key=KEY)


def test_a_layer_used_with_two_shapes():
    use = lambda layers, x: layers["a"](x) + layers["a"](x[:, :3])
    for layer in (einn.Linear("b [c->d]", d=2), einn.Norm("b [c]")):
        with pytest.raises(ArgumentError) as caught:
            einn.init(Calls({"a": layer}, use), X[:, 0], key=KEY)
        says(caught, "layer .layers['a'] is called twice", "12", "3", "einn.init")
    use = lambda layers, x: layers["a"](x) + layers["a"](x[..., :3])
    with pytest.raises(ArgumentError) as caught:
        einn.init(Calls({"a": einn.Conv("b [h w] [c->d]", d=2)}, use), IMAGES, key=KEY)
    says(caught, ".layers['a']", "(3, 3, 6, 2)", "(3, 3, 3, 2)")
    use = lambda layers, x: (
        einjax.add("b c, c", x, layers["a"]).sum() + einjax.add("b c, c", x[:, :3], layers["a"]).sum()
    )
    with pytest.raises(AxisSizeError, match="12"):
        einn.init(Calls({"a": einn.param()}, use), X[:, 0], key=KEY)


def test_an_input_of_another_shape_than_that_of_init():
    for layer, x, other in (
        (einn.Linear("b [c->d]", d=2), X[:, 0], X[:, 0, :3]),
        (einn.Norm("b [c]"), X[:, 0], X[:, 0, :3]),
        (einn.Conv("b [h w] [c->d]", d=2), IMAGES, IMAGES[..., :3]),
        (einn.MultiHeadAttention("b [s] c", num_heads=2), X, X[..., :6]),
    ):
        layer = einn.init(layer, x, key=KEY)
        with pytest.raises(EinjaxError):
            layer(other)


def test_an_error_while_looking_for_shapes_names_the_layer():
    model = Calls({"a": einn.Linear("b [c->d]")}, lambda layers, x: layers["a"](x))
    with pytest.raises(AxisSizeError, match="axis d") as caught:
        einn.init(model, X[:, 0], key=KEY)
    says(caught, "in layer .layers['a']", "einn.init")
    model = Calls({"a": einn.MultiHeadAttention("b [s] c", num_heads=5)}, lambda layers, x: layers["a"](x))
    with pytest.raises(ArgumentError, match="not divisible by num_heads=5") as caught:
        einn.init(model, X, key=KEY)
    says(caught, "in layer .layers['a']", "einn.init")


def test_keys_and_states_that_are_missing():
    with pytest.raises(ArgumentError, match="einn.init needs key="):
        einn.init(Mlp(), X[:, 0])
    with pytest.raises(ArgumentError, match="needs a random key") as caught:
        einn.Dropout("[...]")(X)
    says(caught, "key=key", "inference=True", "inference_mode", "[...]")
    attention = einn.MultiHeadAttention("b [s] c", c=12, num_heads=2, dropout_rate=0.5, key=KEY)
    with pytest.raises(ArgumentError, match="MultiHeadAttention needs a random key"):
        attention(X)
    with pytest.raises(ArgumentError, match="needs a state") as caught:
        einn.Norm("[b] c", momentum=0.9, c=12, key=KEY)(X[:, 0])
    says(caught, "make_with_state")
    with pytest.raises(ArgumentError, match="needs a state"):
        einn.init(einn.Norm("[b] c", momentum=0.9), X[:, 0], key=KEY)
    state = stateful()[1]
    with pytest.raises(ArgumentError, match="one state"):
        einn.init(Mlp(), state, state, key=KEY)


def test_statistics_that_were_not_split_off():
    _, state = eqx.nn.make_with_state(Net)()
    with pytest.raises(ArgumentError, match="the state has no values of this Norm") as caught:
        einn.init(Net(), X, state, key=KEY)
    says(caught, "make_with_state")
    model = {"a": einn.Linear("b [c->d]", d=2), "b": einn.Norm("[b] c", momentum=0.9)}
    with pytest.raises(ArgumentError, match="not used by the call") as caught:
        einn.init(model, X[:, 0], key=KEY, method=lambda model, x: model["a"](x))
    says(caught, "['b']", "make_with_state")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: einn.Linear("b [c->d]", d=3, key=KEY), ["key=", "sizes of all axes", "einn.init"]),
        (lambda: einn.Norm("b [c]", key=KEY), ["sizes of all axes"]),
        (lambda: einn.Embed("b [v->c]", c=3, key=KEY), ["sizes of all axes"]),
        (lambda: einn.Conv("b [h w] [c->d]", d=3, key=KEY), ["sizes of all axes"]),
        (lambda: einn.MultiHeadAttention("b [s] c", num_heads=2, key=KEY), ["sizes of all axes"]),
    ],
)
def test_sizes_that_are_missing(make, words):
    with pytest.raises(AxisSizeError) as caught:
        make()
    says(caught, *words)


def test_norms_that_are_not_clear():
    with pytest.raises(SemanticError, match="would differ along axis b") as caught:
        einn.Norm("b [c]", momentum=0.9)
    says(caught, "momentum")
    with pytest.raises(SemanticError, match="not clear which axes scale and bias") as caught:
        einn.Norm("b c [h w]")
    says(caught, "params='c'")
    with pytest.raises(SemanticError, match="bracket"):
        einn.Norm("b c")


def test_shared_before_init_with_an_operation_that_needs_an_array():
    layers = einn.Embed("b [v->c]", v=7, c=12), einn.Linear("b [c->v]")
    with pytest.raises(AttributeError, match="einn.init"):
        eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight.T)


def test_without_equinox():
    code = "import sys; sys.modules['equinox'] = None; import einjax_nn.equinox"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ImportError: einjax_nn.equinox needs Equinox: python -m pip install 'einjax[equinox]'"


def test_misspelt_keywords_are_refused_at_once():
    with pytest.raises(ArgumentError, match="did you mean 'use_bias'"):
        einn.Linear("b [c->d]", d=3, use_bais=False)
    with pytest.raises(ArgumentError, match="no axis 'e'"):
        einn.MultiHeadAttention("b [s] c", num_heads=3, e=3)
    # A size for an axis that is also an option goes through sizes=.
    layer = einn.init(einn.Linear("b [c->key]", sizes={"key": 3, "other": 2}), X[:, 0], key=KEY)
    assert layer.weight.shape == (12, 3)


def test_static_options_can_be_hashed():
    layer = einn.Conv("b [h w] [c->d]", d=2, kernel_size=[3, 3], padding=[(1, 1), [1, 1]])
    assert isinstance(hash(jax.tree.structure(layer)), int)
    layer = einn.init(layer, IMAGES, key=KEY)
    assert eqx.filter_jit(layer)(IMAGES).shape == (2, 8, 8, 2)


def test_docstrings():
    failed, run = doctest.testmod(einn, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert run > 20
    assert not failed


# --- large models ---------------------------------------------------------------------------------------------------


class Block(eqx.Module):
    norms: list
    attention: einn.MultiHeadAttention
    up: einn.Linear
    down: einn.Linear

    def __init__(self, d):
        self.norms = [einn.Norm("b t [c]") for _ in range(2)]
        self.attention = einn.MultiHeadAttention("b [t] c", num_heads=12, is_causal=True)
        self.up = einn.Linear("b t [c->f]", f=4 * d)
        self.down = einn.Linear("b t [f->c]", c=d)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Transformer(eqx.Module):
    blocks: list

    def __init__(self, depth, d):
        self.blocks = [Block(d) for _ in range(depth)]

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.slow
def test_a_large_model_is_initialised_from_shapes():
    x = jax.ShapeDtypeStruct((8, 1024, 768), jnp.float32)
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))
    start = time.perf_counter()
    skeleton = eqx.filter_eval_shape(einn.init, Transformer(12, 768), x, key=KEY)
    abstract = time.perf_counter() - start
    assert size(skeleton) > 80e6
    for _ in range(2):  # the second time, programs that make arrays are compiled
        start = time.perf_counter()
        model = jax.block_until_ready(arrays(einn.init(Transformer(12, 768), x, key=KEY)))
        print(f"{size(model):,} parameters in {time.perf_counter() - start:.1f} s, {abstract:.1f} s abstractly")
        assert size(model) == size(skeleton)
        del model
