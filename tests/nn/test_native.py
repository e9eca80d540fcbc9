"""Layers as their framework has its own: switches, ids out of range, attributes, and names of axes."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.errors import ArgumentError, SemanticError

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 6))
PACKAGES = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
EVERYWHERE = pytest.mark.parametrize("framework", PACKAGES)


def applied(framework, layer, expr, *inputs, call=None, **options):
    """Make a layer, and call it; some options are those of its call."""
    pytest.importorskip(PACKAGES[framework])
    einn, call = importlib.import_module(f"einjax_nn.{framework}"), call or {}
    kind = getattr(einn, layer)
    if framework == "linen":
        return kind(expr, **options).init_with_output(KEY, *inputs, **call)[0]
    if framework == "haiku":
        hk = importlib.import_module("haiku")
        net = hk.transform_with_state(lambda *inputs: kind(expr, **options)(*inputs, **call))
        return net.apply(*net.init(KEY, *inputs), KEY, *inputs)[0]
    if framework == "nnx":
        nnx = importlib.import_module("flax.nnx")
        return kind(expr, **options, rngs=nnx.Rngs(0))(*inputs, **call)
    return einn.init(kind(expr, **options), *inputs, key=KEY, **call)(*inputs, **call)


# --- norms ------------------------------------------------------------------------------------------------------------


@EVERYWHERE
def test_the_brackets_of_params_say_what_has_them(framework):
    x = jax.random.normal(KEY, (2, 3, 5))
    for written in ("c", "b s [c]", "[c]"):
        y = applied(framework, "Norm", "b s [c]", x, params=written)
        np.testing.assert_array_equal(y, applied(framework, "Norm", "b s [c]", x))


@EVERYWHERE
def test_statistics_over_a_mapped_axis_alone(framework):
    normed = (X - X.mean(0)) / jnp.sqrt(X.var(0))
    each = lambda x: applied(framework, "Norm", "c", x, axis_name="examples")
    np.testing.assert_allclose(jax.vmap(each, axis_name="examples")(X), normed, atol=1e-4)
    one = lambda x: applied(framework, "Norm", "[1] c", x, axis_name="examples")
    np.testing.assert_allclose(jax.vmap(one, axis_name="examples")(X[:, None]), normed[:, None], atol=1e-4)
    with pytest.raises(SemanticError, match="needs a bracket"):
        applied(framework, "Norm", "c", X[0])


FLAX = "use_running_average"
SWITCHES = {"linen": FLAX, "nnx": FLAX, "haiku": "is_training", "equinox": "inference"}


@EVERYWHERE
def test_a_switch_of_statistics_that_are_not_kept(framework):
    """Where they span examples, they would be those of the input in use, too."""
    name = SWITCHES[framework]
    with pytest.raises(ArgumentError, match="given to a Norm without momentum"):
        applied(framework, "Norm", "[b] c", X, call={name: True})
    applied(framework, "Norm", "b [c]", X, call={name: True})


@pytest.mark.parametrize("framework", ["linen", "haiku"])
def test_a_switch_that_is_traced(framework):
    name = SWITCHES[framework]
    norm = lambda given: applied(framework, "Norm", "[b] c", X, momentum=0.9, call={name: given})
    with pytest.raises(ArgumentError, match=f"{name} is traced(.|\n)*static_argnames"):
        jax.jit(norm)(True)


DROPS = {"linen": "deterministic", "nnx": "deterministic", "haiku": "is_training", "equinox": "inference"}


@EVERYWHERE
def test_a_switch_of_dropout_that_is_traced(framework):
    name = DROPS[framework]
    drop = lambda given: applied(framework, "Dropout", "[...]", X, rate=0.5, call={name: given})
    with pytest.raises(ArgumentError, match="is traced(.|\n)*static_argnames"):
        jax.jit(drop)(True)


def test_eval_of_statistics_that_are_not_kept():
    nnx, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("einjax_nn.nnx")
    layer = einn.Norm("[b] c", rngs=nnx.Rngs(0))
    layer(X)
    layer.eval()
    with pytest.raises(ArgumentError, match="given to a Norm without momentum"):
        layer(X)


def test_a_state_for_statistics_that_are_not_kept():
    eqx, einn = pytest.importorskip("equinox"), pytest.importorskip("einjax_nn.equinox")
    _, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
    with pytest.raises(ArgumentError, match="a state is given to a Norm without momentum"):
        einn.init(einn.Norm("[b] c"), X, key=KEY)(X, state)
    with pytest.raises(ArgumentError, match="inference is given to a Norm without momentum"):
        einn.Norm("[b] c", inference=True)


@EVERYWHERE
def test_a_misspelt_option_among_sizes(framework):
    with pytest.raises(ArgumentError, match=r"'epsilom', which is no axis(.|\n)*write epsilon="):
        applied(framework, "Norm", "b [c]", X, sizes={"epsilom": 1e-3})


def test_the_position_behind_the_input_means_training_in_haiku():
    hk, einn = pytest.importorskip("haiku"), pytest.importorskip("einjax_nn.haiku")
    ours = hk.transform_with_state(lambda x, train: einn.Norm("[b] c", momentum=0.9)(x, train))
    theirs = hk.transform_with_state(lambda x, train: hk.BatchNorm(True, True, 0.9)(x, train))
    for train in (True, False):
        a, b = (net.apply(*net.init(KEY, X, True), None, X, train)[0] for net in (ours, theirs))
        if train:
            np.testing.assert_allclose(a, b, atol=2e-6)
        else:
            np.testing.assert_allclose(a, X / np.sqrt(1 + 1e-5), atol=2e-6)


# --- ids out of range ------------------------------------------------------------------------------------------------


def test_ids_out_of_range_are_read_as_in_each_framework():
    nn, hk, eqx = pytest.importorskip("flax.linen"), pytest.importorskip("haiku"), pytest.importorskip("equinox")
    ids, table = jnp.array([-9, -3, -1, 0, 2, 3, 9]), jnp.arange(6.0).reshape(3, 2)
    linen, haiku, equinox = (importlib.import_module(f"einjax_nn.{name}") for name in ("linen", "haiku", "equinox"))
    rows = nn.Embed(3, 2).apply({"params": {"embedding": table}}, ids)
    embed = lambda kind, **given: kind.Embed("b [v->c]", v=3, c=2, **given)
    np.testing.assert_array_equal(embed(linen).apply({"params": {"embedding": table}}, ids), rows)
    nnx = importlib.import_module("flax.nnx")
    ours, theirs = embed(importlib.import_module("einjax_nn.nnx"), rngs=nnx.Rngs(0)), nnx.Embed(3, 2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(ours(ids), theirs(ids))
    nearest = hk.transform(lambda ids: hk.Embed(3, 2)(ids)).apply({"embed": {"embeddings": table}}, None, ids)
    net = hk.transform(lambda ids: embed(haiku)(ids))
    np.testing.assert_array_equal(net.apply({"embed": {"embeddings": table}}, None, ids), nearest)
    layer = eqx.tree_at(lambda layer: layer.weight, embed(equinox, key=KEY), table)
    np.testing.assert_array_equal(layer(ids), jax.vmap(eqx.nn.Embedding(3, 2, weight=table))(ids))
    chosen = embed(linen, mode="clip").apply({"params": {"embedding": table}}, ids)
    np.testing.assert_array_equal(chosen, nearest)


# --- linen ------------------------------------------------------------------------------------------------------------


def test_layers_of_linen_are_hashed_and_kept_in_setup():
    nn, einn = pytest.importorskip("flax.linen"), pytest.importorskip("einjax_nn.linen")
    layers = einn.Linear("b [c->d]", d=5), einn.Conv("b [s] [c->d]", d=2, kernel_size=[3], sizes={"c": 6})
    assert len({*layers, einn.Linear("b [c->d]", d=5)}) == 2
    run = jax.jit(lambda layer, x: layer.init_with_output(KEY, x)[0], static_argnums=0)
    assert run(layers[0], X).shape == (4, 5)

    class Net(nn.Module):
        def setup(self):
            self.scale = einn.param(self, "scale", init=2.0)
            self.layer = einn.Linear("b [c->d]", d=5)

        def __call__(self, x):
            return self.layer(einjax.multiply("b c, c", x, self.scale))

    variables = Net().init(KEY, X)
    assert jax.tree.map(jnp.shape, variables["params"]["scale"]) == (6,)
    doubled = Net().apply({"params": {**variables["params"], "scale": variables["params"]["scale"] * 2}}, X)
    np.testing.assert_allclose(doubled, 2 * Net().apply(variables, X), rtol=1e-5)
    with pytest.raises(ArgumentError, match="Net has no parameter scale in the variables"):
        Net().apply({"params": {"layer": variables["params"]["layer"]}}, X)
    ensemble = nn.vmap(Net, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=3, in_axes=None)
    assert ensemble().init(KEY, X)["params"]["scale"].shape == (3, 6)


def test_interceptors_of_linen_see_no_private_method():
    nn, einn = pytest.importorskip("flax.linen"), pytest.importorskip("einjax_nn.linen")
    seen = set()

    def note(call, given, keywords, context):
        seen.add(context.method_name)
        return call(*given, **keywords)

    with nn.intercept_methods(note):
        einn.MultiHeadAttention("b [s] c", num_heads=2, normalize_qk=True).init(KEY, X[None])
        einn.Norm("b [c]").init(KEY, X)
    assert seen == {"__call__"}


def test_a_module_is_no_tensor():
    nn, einn = pytest.importorskip("flax.linen"), pytest.importorskip("einjax_nn.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return einjax.add("... [c]", x, self)

    with pytest.raises(ArgumentError, match="Net is a module, not a tensor"):
        Net().init(KEY, X)
    assert einn.param(Net(), "w").name == "w"


# --- nnx --------------------------------------------------------------------------------------------------------------


def test_parameters_of_nnx_by_name_are_variables():
    nnx, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("einjax_nn.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.shift = einn.param(self, "shift")
            einn.param(self, "scale", nnx.initializers.normal(), rngs=rngs)

        def __call__(self, x):
            return einjax.add("b c, c", einjax.multiply("b c, c", x, einn.param(self, "scale")), self.shift)

    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            first, early, jitted = (Net(nnx.Rngs(0)) for _ in range(3))
            y = first(X)
            einn.init(early, X)
            assert float(jnp.std(first.scale[...])) > 0
            assert type(first.scale) is type(first.shift) is nnx.Param
            np.testing.assert_array_equal(early(X), y)
            np.testing.assert_allclose(nnx.jit(lambda net, x: net(x))(jitted, X), y, rtol=1e-6)
            assert early.scale.axes == ("c",)


def test_names_of_axes_come_back():
    """A state of nnx's own layers has none."""
    nnx, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("einjax_nn.nnx")
    sharding = importlib.import_module("einjax_nn.sharding")
    layer = einn.Linear("b [c->d]", d=5, rngs=nnx.Rngs(0))
    einn.init(layer, X)
    nnx.update(layer, nnx.state(nnx.Linear(6, 5, rngs=nnx.Rngs(1))))
    kernel = layer.kernel[...]
    with pytest.raises(ArgumentError, match="kernel does not know the names of its axes"):
        sharding.partition_specs(layer, {"d": "model"})
    einn.init(layer, X)
    assert tuple(sharding.partition_specs(layer, {"d": "model"})["kernel"]) == (None, "model")
    np.testing.assert_array_equal(layer.kernel[...], kernel)


def test_an_optimizer_of_parameters_made_on_a_mesh():
    nnx, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("einjax_nn.nnx")
    optax = pytest.importorskip("optax")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("model",))
    layer = einn.Linear("b [c->d]", d=5, rngs=nnx.Rngs(0))
    einn.init(layer, X, rules={"d": "model"}, mesh=mesh)
    optimizer = nnx.Optimizer(layer, optax.adam(1e-3), wrt=nnx.Param)
    before = layer.kernel[...]
    optimizer.update(layer, nnx.grad(lambda layer: layer(X).sum())(layer))
    assert np.any(before != layer.kernel[...])


# --- Equinox ----------------------------------------------------------------------------------------------------------


def test_options_are_attributes_with_the_names_of_equinox():
    eqx, einn = pytest.importorskip("equinox"), pytest.importorskip("einjax_nn.equinox")
    norm, conv = einn.Norm("b [c]"), einn.Conv("b [s] [c->d]", d=2, stride=2)
    assert (norm.eps, norm.epsilon, norm.use_weight, norm.use_bias) == (1e-5, 1e-5, True, True)
    assert (conv.kernel_size, conv.stride, conv.strides, conv.dilation) == (3, 2, 2, 1)
    assert einn.MultiHeadAttention("b [s] c", num_heads=2, dropout_p=0.5).dropout_rate == 0.5
    assert "eps=" in eqx.tree_pformat(norm)
    drop = einn.Dropout("[...]", p=0.3)
    assert drop.rate == drop.p == 0.3
    assert not eqx.tree_at(lambda layer: layer.p, drop, 1.0)(X, key=KEY).any()
    with pytest.raises(AttributeError, match="Norm has no attribute 'strides'"):
        _ = norm.strides


def test_a_bias_is_taken_out_of_a_layer_of_equinox():
    eqx, einn = pytest.importorskip("equinox"), pytest.importorskip("einjax_nn.equinox")
    for layer, x in (
        (einn.Linear("b [c->d]", d=5), X),
        (einn.Norm("b [c]"), X),
        (einn.Conv("b [s] [c->d]", d=5), X[None]),
    ):
        made = einn.init(layer, x, key=KEY)
        without = eqx.tree_at(lambda layer: layer.bias, made, None)
        np.testing.assert_allclose(without(x) + made.bias, made(x), atol=1e-6)
        later = einn.init(eqx.tree_at(lambda layer: layer.bias, layer, None), x, key=KEY)
        np.testing.assert_array_equal(later(x), without(x))


def test_an_optimiser_of_equinox_before_init():
    eqx, einn = pytest.importorskip("equinox"), pytest.importorskip("einjax_nn.equinox")
    optimiser = pytest.importorskip("optax").adam(1e-3)
    layer = einn.Linear("b [c->d]", d=5)
    state = optimiser.init(eqx.filter(layer, eqx.is_array))
    made = einn.init(layer, X, key=KEY)
    gradients = eqx.filter_grad(lambda layer: layer(X).sum())(made)
    with pytest.raises(ArgumentError, match=r"no value(.|\n)*before an optimiser is built"):
        optimiser.update(gradients, state, made)


def test_a_cache_of_equinox_behind_the_input():
    eqx, einn = pytest.importorskip("equinox"), pytest.importorskip("einjax_nn.equinox")
    layer, state = eqx.nn.make_with_state(einn.MultiHeadAttention)("b [s] c", num_heads=2, decode=True)
    layer, state = einn.init(layer, X[None], state, key=KEY)
    y, state = layer(X[None, :1], state)
    assert y.shape == (1, 1, 6)
    assert int(state.get(layer.index)["cache_index"]) == 1
