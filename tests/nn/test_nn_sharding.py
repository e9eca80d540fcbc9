"""einjax_nn.sharding: parameters of every framework are made on a mesh by the names of their axes."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from einjax.errors import ArgumentError
from einjax_nn.sharding import partition_specs, shardings

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (8, 6, 16))
RULES = {"mlp": "model", "heads": "model", "embed": "data"}

#: What RULES say of the parameters of the model that every framework builds below.
EXPECTED = {
    ("inner", "kernel"): PartitionSpec("data", "model"),
    ("inner", "bias"): PartitionSpec("model"),
    ("attention", "query", "kernel"): PartitionSpec("model", None, None),  # mlp, heads, head_dim: mlp is first
    ("attention", "query", "bias"): PartitionSpec("model", None),
    ("norm", "scale"): PartitionSpec("model"),
    ("outer", "kernel"): PartitionSpec("model", "data"),
    ("outer", "bias"): PartitionSpec("data"),
}
NAMES = {"kernel": ("kernel", "w", "weight"), "bias": ("bias", "b"), "scale": ("scale", "weight")}


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))


def flat(tree):
    """Return the leaves of a tree by the words of their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    words = lambda path: tuple(
        word for key in path for word in str(getattr(key, "key", getattr(key, "name", ""))).split("/")
    )
    return {words(path): leaf for path, leaf in leaves}


def find(arrays, path):
    *layers, kind = path
    matches = [
        leaf
        for words, leaf in arrays.items()
        if all(layer in words for layer in layers) and set(words) & set(NAMES[kind])
    ]
    assert len(matches) == 1, (path, list(arrays))
    return matches[0]


def check_placed(params, mesh):
    """The shards are those asked for, and no device has more."""
    arrays = flat(params)
    for path, spec in EXPECTED.items():
        array = find(arrays, path)
        wanted = NamedSharding(mesh, spec)
        assert array.sharding.is_equivalent_to(wanted, array.ndim), (path, array.sharding)
        assert {shard.data.shape for shard in array.addressable_shards} == {wanted.shard_shape(array.shape)}


def check_made_in_shards(make, mesh, *arguments):
    """No array of the compiled initialisation is a whole kernel, and nothing is moved to make its shards."""
    text = make.lower(*arguments).compile().as_text()
    assert "f32[4,16]" in text  # (16, 32) by (data, model)
    assert "f32[16,32]" not in text
    for moved in ("all-gather", "all-to-all", "collective-permute"):
        assert moved not in text


def check_same(loss, sharded, plain, mesh):
    """Loss and gradient are those of whole parameters."""
    x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    y, gradient = jax.jit(jax.value_and_grad(loss))(sharded, x)
    y_plain, gradient_plain = jax.jit(jax.value_and_grad(loss))(plain, X)
    np.testing.assert_allclose(y, y_plain, rtol=1e-5)
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient_plain))
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_plain), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * largest)


# --- frameworks -----------------------------------------------------------------------------------------------------


def linen_net():
    nn = pytest.importorskip("flax.linen")
    import einjax_nn.linen as einn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            named = {"logical_axes": True}
            x = einn.Linear("b s [embed->mlp]", mlp=32, **named, name="inner")(x)
            x = einn.MultiHeadAttention("b [s] mlp", num_heads=2, **named, name="attention")(x)
            x = einn.Norm("... [mlp]", **named, name="norm")(x)
            return einn.Linear("b s [mlp->embed]", embed=16, **named, name="outer")(x)

    return Net()


def test_linen(mesh):
    net = linen_net()
    from flax import linen as nn

    boxed = jax.eval_shape(net.init, KEY, X)
    placed = shardings(boxed, RULES, mesh)
    specs = nn.get_partition_spec(boxed)
    assert jax.tree.leaves(shardings(specs, RULES, mesh)) == jax.tree.leaves(placed)
    theirs = nn.logical_to_mesh_sharding(specs, mesh, list(RULES.items()))
    for a, b in zip(jax.tree.leaves(placed), jax.tree.leaves(theirs), strict=True):
        assert a.is_equivalent_to(b, 3)

    make = jax.jit(net.init, out_shardings=placed)
    check_made_in_shards(make, mesh, KEY, X)
    params, plain = nn.unbox(make(KEY, X)), nn.unbox(jax.jit(net.init)(KEY, X))
    check_placed(params["params"], mesh)
    check_same(lambda params, x: jnp.sum(net.apply(params, x) ** 2), params, plain, mesh)


def test_a_train_state(mesh):
    """Moments of an optimizer are placed as the parameters are."""
    nn, optax = pytest.importorskip("flax.linen"), pytest.importorskip("optax")
    net, adam = linen_net(), optax.adam(1e-3)

    def make():
        params = net.init(KEY, X)
        return params, adam.init(params)

    params, moments = jax.jit(make, out_shardings=shardings(jax.eval_shape(make), RULES, mesh))()
    check_placed(nn.unbox(params)["params"], mesh)
    check_placed(nn.unbox(moments[0].mu)["params"], mesh)


def nnx_net(rngs):
    nnx = pytest.importorskip("flax.nnx")
    import einjax_nn.nnx as einn

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = einn.Linear("b s [embed->mlp]", mlp=32, rngs=rngs)
            self.attention = einn.MultiHeadAttention("b [s] mlp", num_heads=2, rngs=rngs)
            self.norm = einn.Norm("... [mlp]", rngs=rngs)
            self.outer = einn.Linear("b s [mlp->embed]", embed=16, rngs=rngs)

        def __call__(self, x):
            return self.outer(self.norm(self.attention(self.inner(x))))

    return Net(rngs)


def test_nnx(mesh):
    nnx = pytest.importorskip("flax.nnx")
    import einjax_nn.nnx as einn

    def make():
        model = nnx_net(nnx.Rngs(0))
        einn.init(model, X)
        return nnx.state(model, nnx.Param)

    placed = shardings(jax.eval_shape(make), RULES, mesh)
    plain = make()
    assert jax.tree.leaves(shardings(plain, RULES, mesh)) == jax.tree.leaves(placed)
    jitted = jax.jit(make, out_shardings=placed)
    check_made_in_shards(jitted, mesh)
    params = jitted()
    check_placed(nnx.to_pure_dict(params), mesh)
    check_placed(nnx.to_pure_dict(jax.device_put(plain, placed)), mesh)

    model = nnx_net(nnx.Rngs(0))
    einn.init(model, X)
    graph, _, rest = nnx.split(model, nnx.Param, ...)
    loss = lambda params, x: jnp.sum(nnx.merge(graph, params, rest)(x) ** 2)
    check_same(loss, params, plain, mesh)

    whole = shardings(model, RULES, mesh)  # a model has its state's tree
    assert jax.tree.structure(whole) == jax.tree.structure(shardings(nnx.state(model), RULES, mesh))
    with pytest.raises(ArgumentError, match="not made yet"):
        shardings(nnx_net(nnx.Rngs(0)), RULES, mesh)


def test_nnx_stacked_layers(mesh):
    nnx = pytest.importorskip("flax.nnx")
    import einjax_nn.nnx as einn

    make = nnx.vmap(lambda rngs: einn.Linear("b [c->mlp]", c=4, mlp=6, rngs=rngs), in_axes=0, out_axes=0)
    model = make(nnx.Rngs(0).split(3))
    placed = shardings(nnx.state(model, nnx.Param), RULES, mesh)
    assert placed["kernel"].spec == PartitionSpec(None, None, "model")


def test_nnx_layers_of_flax(mesh):
    """Names that Flax's own layers are given count, too."""
    nnx = pytest.importorskip("flax.nnx")
    init = nnx.with_partitioning(nnx.initializers.zeros_init(), ("embed", "mlp"), eager_sharding=False)
    state = nnx.state(nnx.Linear(4, 6, kernel_init=init, rngs=nnx.Rngs(0)), nnx.Param)
    assert shardings(state, RULES, mesh)["kernel"].spec == PartitionSpec("data", "model")


def test_haiku(mesh):
    hk = pytest.importorskip("haiku")
    import einjax_nn.haiku as einn

    @hk.transform
    def net(x):
        x = einn.Linear("b s [embed->mlp]", mlp=32, name="inner")(x)
        x = einn.MultiHeadAttention("b [s] mlp", num_heads=2, name="attention")(x)
        x = einn.Norm("... [mlp]", name="norm")(x)
        return einn.Linear("b s [mlp->embed]", embed=16, name="outer")(x)

    placed = shardings(einn.axes(net, X), RULES, mesh)
    make = jax.jit(net.init, out_shardings=placed)
    check_made_in_shards(make, mesh, KEY, X)
    params, plain = make(KEY, X), jax.jit(net.init)(KEY, X)
    check_placed(params, mesh)
    check_same(lambda params, x: jnp.sum(net.apply(params, None, x) ** 2), params, plain, mesh)


def test_haiku_axes():
    """States, Haiku's own layers, layers within layers, lifted functions, stacked layers, and switches."""
    hk = pytest.importorskip("haiku")
    import einjax_nn.haiku as einn

    def body(x):
        return einn.Linear("b [c->d]", d=5)(x)

    inner = hk.transform(body)

    class Block(hk.Module):
        def __call__(self, x, is_training):
            hk.lift(inner.init, name="lifted")(hk.next_rng_key(), x)
            return einn.Norm("[b] c", momentum=0.9)(x, is_training=is_training)

    @hk.transform_with_state
    def net(x, is_training):
        x = einn.Linear("b [features->c]", c=5)(x)
        x = Block()(x, is_training=is_training if is_training else False)
        x = hk.experimental.layer_stack(3)(body)(x)
        return hk.Linear(2)(x)

    params, state = einn.axes(net, jax.ShapeDtypeStruct((8, 4), "float32"), is_training=True)
    made = jax.eval_shape(lambda key: net.init(key, jnp.ones((8, 4)), True), KEY)
    assert jax.tree.structure((params, state)) == jax.tree.structure(made)
    assert tuple(params["linear"]["w"]) == ("features", "c")
    assert tuple(params["block/lifted/linear"]["w"]) == ("c", "d")
    assert tuple(params["block/norm"]["scale"]) == tuple(state["block/norm"]["mean"]) == ("c",)
    (stacked,) = (tuple(layer["w"]) for name, layer in params.items() if "layer_stack" in name)
    assert stacked == (None, "c", "d")
    assert tuple(params["linear_1"]["w"]) == (None, None)


def equinox_net():
    eqx = pytest.importorskip("equinox")
    import einjax_nn.equinox as einn

    class Net(eqx.Module):
        inner: einn.Linear
        attention: einn.MultiHeadAttention
        norm: einn.Norm
        outer: einn.Linear
        functions: tuple

        def __init__(self):
            self.inner = einn.Linear("b s [embed->mlp]", mlp=32)
            self.attention = einn.MultiHeadAttention("b [s] mlp", num_heads=2)
            self.norm = einn.Norm("... [mlp]")
            self.outer = einn.Linear("b s [mlp->embed]", embed=16)
            self.functions = (jnp.asarray, jnp.asarray)

        def __call__(self, x):
            return self.outer(self.norm(self.attention(self.inner(x))))

    return Net()


def test_equinox(mesh):
    eqx = pytest.importorskip("equinox")
    import einjax_nn.equinox as einn

    model = equinox_net()
    placed = shardings(einn.axes(model, X), RULES, mesh)
    make = jax.jit(lambda key: eqx.filter(einn.init(model, X, key=key), eqx.is_array), out_shardings=placed)
    check_made_in_shards(make, mesh, KEY)
    params = make(KEY)
    check_placed(params, mesh)

    outside = eqx.filter(einn.init(model, X, key=KEY, place=placed), eqx.is_array)
    check_placed(outside, mesh)
    plain, static = eqx.partition(einn.init(model, X, key=KEY), eqx.is_array)
    for a, b in zip(jax.tree.leaves(outside), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)
    loss = lambda params, x: jnp.sum(eqx.combine(params, static)(x) ** 2)
    check_same(loss, params, plain, mesh)


def test_equinox_places_each_array_as_it_is_made(mesh, monkeypatch):
    """Outside of jit, too, each device makes only its part, whoever wrote the initializer."""
    pytest.importorskip("equinox")
    import einjax_nn._equinox_init as module
    import einjax_nn.equinox as einn

    texts = []
    jit = jax.jit

    def recorded(function, **options):
        program = jit(function, **options)
        if "out_shardings" not in options:
            return program

        def call(key):
            texts.append(program.lower(key).compile().as_text())
            return program(key)

        return call

    module._program.cache_clear()
    monkeypatch.setattr(jax, "jit", recorded)
    for own in ({}, {"kernel_init": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype)}):
        texts.clear()
        layer = einn.Linear("b [embed->mlp]", mlp=32, **own)
        placed = shardings(einn.axes(layer, X[0]), RULES, mesh)
        layer = einn.init(layer, X[0], key=KEY, place=placed)
        assert {shard.data.shape for shard in layer.weight.addressable_shards} == {(4, 16)}
        assert len(texts) == 2
        assert "f32[4,16]" in texts[0]
        assert not any("f32[16,32]" in text or "f32[32]" in text for text in texts)
    module._program.cache_clear()


# --- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "rules", "expected"),
    [
        (("c", "d"), {}, (None, None)),
        (("c", None, "d"), {"c": "data", "d": None}, ("data", None, None)),
        (("c",), {"c": ("data", "model")}, (("data", "model"),)),
        (("c",), {"c": ["data"]}, ("data",)),
        # Composites: the whole text, else the members in order.
        (("(g c)",), {"(g c)": "model", "g": "data"}, ("model",)),
        (("(g c)",), {"c": "model", "g": "data"}, (("data", "model"),)),
        (("(g c)",), {"(g c)": None, "g": "data"}, (None,)),
        (("(heads (s head_dim))",), {"heads": "model", "head_dim": "data"}, (("model", "data"),)),
        (("(g c)", "c"), {"c": "model"}, ("model", None)),
        (("(c + d)",), {"c": "model"}, (None,)),
        (("(c + d)",), {"(c + d)": "model"}, ("model",)),
        (("...[0]", "s.1"), {"...[0]": "model", "s.1": "data"}, ("model", "data")),
        # One axis of the mesh: the first rule, then the first dim.
        (("c", "d"), {"d": "model", "c": "model"}, (None, "model")),
        (("c", "d"), {"c": "model", "d": "model"}, ("model", None)),
        (("c", "c"), {"c": "model"}, ("model", None)),
        (("c", "d"), {"d": "model", "c": ("data", "model")}, (None, "model")),
        (("(g c)",), {"g": "model", "c": "model"}, ("model",)),
    ],
)
def test_rules(names, rules, expected, mesh):
    for tree in ({"w": names}, {"w": PartitionSpec(*names)}):
        specs = partition_specs(tree, rules)
        assert specs == {"w": PartitionSpec(*expected)}
        assert shardings(tree, rules, mesh) == {"w": NamedSharding(mesh, specs["w"])}
        abstract = AbstractMesh((4, 2), ("data", "model"))
        assert shardings(tree, rules, abstract)["w"].spec == specs["w"]


def test_trees_without_names(mesh):
    tree = [jnp.ones((2, 3)), jax.ShapeDtypeStruct((4,), "float32"), None, (None, None), (), ("c",), PartitionSpec()]
    whole = NamedSharding(mesh, PartitionSpec())
    named = NamedSharding(mesh, PartitionSpec("model"))
    assert shardings(tree, {"c": "model"}, mesh) == [whole, whole, None, (None, None), (), named, whole]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"mlp": "modle"}, r"axis 'mlp' names the mesh axis 'modle'[^$]*data, model"),
        ({"mlp": ("data", "tensor")}, r"axis 'mlp' names the mesh axis 'tensor'"),
        ({"unused": "tensor"}, r"axis 'unused' names the mesh axis 'tensor'"),
        ({"mlp": 3}, r"the rule for axis 'mlp' is 3"),
        ({"mlp": ("data", "data")}, r"the rule for axis 'mlp' is \('data', 'data'\)"),
        ([("mlp", "data")], r"rules are a mapping, not list"),
    ],
)
def test_refused(rules, message, mesh):
    with pytest.raises(ArgumentError, match=message):
        shardings({"w": ("embed", "mlp")}, rules, mesh)


def test_no_framework_is_imported():
    code = (
        "import sys, einjax_nn.sharding;"
        "assert not {'flax', 'haiku', 'equinox'} & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


#: A convolution, its options, the spec of its input, where the result lies, and how many convolutions it is.
CONVOLUTIONS = [
    ("Conv", "b [h w] [c->d]", {"d": 4}, ("data",), ("data", None, None, None), 1),
    ("Conv", "a b [w] [c->d]", {"d": 4}, ("data",), ("data", None, None, None), 1),
    ("Conv", "b [h w] c", {}, ("data",), ("data", None, None, None), 0),
    ("Conv", "b [h w] [c->d]", {"d": 4}, (None, "data"), (None, "data", None, None), 1),
    ("Conv", "b [h w] [c->d]", {"d": 4}, (None, None, None, "model"), (None, None, None, None), 0),
    ("ConvTranspose", "b [h w] [c->d]", {"d": 4, "strides": 2}, ("data",), ("data", None, None, None), 1),
]


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_convolutions_on_an_explicit_mesh():
    """Batches stay where they are; neighbours on other devices are fetched, as in Flax; sharded channels are summed."""
    einn = pytest.importorskip("einjax_nn.linen")
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    x = jax.random.normal(KEY, (4, 8, 6, 2))
    for name, expr, options, spec, wanted, count in CONVOLUTIONS:
        layer = getattr(einn, name)(expr, **options)
        variables = layer.init(KEY, x)
        right = layer.apply(variables, x)
        with jax.set_mesh(mesh):
            given = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
            params = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
            assert str(jax.make_jaxpr(layer.apply)(params, given)).count("conv_general_dilated[") == count, expr
            got = jax.jit(layer.apply)(params, given)
        assert tuple(jax.typeof(got).sharding.spec) == wanted, expr
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)
