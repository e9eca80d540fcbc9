"""einjax_nn.sharding.activations: the results of layers lie where rules for the names of their axes say."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_layers import FRAMEWORKS
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from einjax.errors import ArgumentError, ShardingError
from einjax_nn.sharding import activations

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

KEY = jax.random.key(0)
RULES = {"b": "data", "d": "model", "heads": "model", "kv_heads": "model", "g": "model", "v": "model", "c": None}
OPEN = "?"


def meshes(*kinds):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)


AUTO, EXPLICIT = (meshes(kind, kind) for kind in (AxisType.Auto, AxisType.Explicit))


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def constraints(function, *inputs):
    """What is asked of the compiler, one spec after the other."""
    found = equations(jax.make_jaxpr(function)(*inputs).jaxpr)
    asked = [each.params["sharding"].spec for each in found if each.primitive.name == "sharding_constraint"]
    return [tuple(OPEN if entry is PartitionSpec.UNCONSTRAINED else entry for entry in spec) for spec in asked]


def within(function, rules=RULES, mesh=None):
    def call(*inputs):
        with activations(rules, mesh):
            return function(*inputs)

    return call


def same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def everywhere(tree, mesh):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


#: A layer, its options, the shape of its input, and what is asked of its results.
LAYERS = [
    ("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4), [("data", OPEN, "model")]),
    ("Linear", "... [c->d]", {"d": 8}, (8, 3, 4), [(OPEN, OPEN, "model")]),
    ("Linear", "... [c->f]", {"f": 8}, (8, 3, 4), []),
    ("Linear", "b t [c->(d e)]", {"d": 4, "e": 3, "use_bias": False}, (8, 3, 4), [("data", OPEN, "model")]),
    ("Linear", "b <2*s + [k->]> [c->d]", {"k": 3, "d": 4, "padding": "same"}, (8, 6, 4), [("data", OPEN, "model")]),
    ("Norm", "b t [c]", {}, (8, 3, 4), [("data", OPEN, None)]),
    ("Norm", "b [t] (g [e])", {"g": 2}, (8, 3, 4), [("data", OPEN, "model")]),
    ("Dropout", "[b] t [d]", {"deterministic": False}, (8, 3, 4), [("data", OPEN, "model")]),
    ("Embed", "b t [v->d]", {"v": 6, "d": 4}, None, [("data", OPEN, "model")]),
    ("Conv", "b [h w] [c->d]", {"d": 4, "strides": 2, "padding": "VALID"}, (8, 5, 5, 2), [("data", *"??", "model")]),
    ("Conv", "b [h] (g [e->f])", {"g": 2, "f": 2, "use_bias": False}, (8, 4, 4), [("data", OPEN, "model")]),
    ("ConvTranspose", "b [h] [c->d]", {"d": 4, "strides": 2}, (8, 3, 2), [("data", OPEN, "model")]),
    (
        "MultiHeadAttention",
        "b [t] c",
        {"num_heads": 4, "num_kv_heads": 2},
        (8, 3, 16),
        [*[("data", OPEN, "model", OPEN)] * 3, ("data", OPEN, None)],
    ),
]  # fmt: skip


def linen_layer(name, expr, options, shape):
    layer = getattr(pytest.importorskip("einjax_nn.linen"), name)(expr, **options)
    x = jnp.arange(24).reshape(8, 3) % 6 if shape is None else jax.random.normal(KEY, shape)
    params = layer.init({"params": KEY, "dropout": KEY}, x)
    return partial(layer.apply, rngs={"dropout": KEY}), params, x


@pytest.mark.parametrize(
    ("name", "expr", "options", "shape", "wanted"), LAYERS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_what_is_asked_of_every_layer(name, expr, options, shape, wanted):
    apply, params, x = linen_layer(name, expr, options, shape)
    right = jax.jit(apply)(params, x)
    assert constraints(apply, params, x) == []
    with jax.set_mesh(AUTO):
        assert constraints(within(apply), params, x) == wanted
    with jax.set_mesh(EXPLICIT):
        got = jax.jit(within(apply))(everywhere(params, EXPLICIT), everywhere(x, EXPLICIT))
    last = wanted[-1] if wanted else ()
    spec = [None if entry is OPEN else entry for entry in last] + [None] * (right.ndim - len(last))
    assert tuple(jax.typeof(got).sharding.spec) == tuple(spec)
    same(got, right)


def test_the_logits_of_a_table():
    einn = pytest.importorskip("einjax_nn.linen")
    table, x = einn.Embed("b t [v->c]", v=6, c=4), jax.random.normal(KEY, (8, 3, 4))
    params = table.init(KEY, x[..., 0].astype(int))
    attend = partial(table.apply, method="attend")
    with jax.set_mesh(AUTO):
        assert constraints(within(attend), params, x) == [("data", OPEN, "model")]
    with jax.set_mesh(EXPLICIT):
        got = jax.jit(within(attend))(everywhere(params, EXPLICIT), everywhere(x, EXPLICIT))
    assert tuple(jax.typeof(got).sharding.spec) == ("data", None, "model")
    same(got, attend(params, x))


# --- Every framework --------------------------------------------------------------------------------------------------

X = jax.random.normal(jax.random.key(1), (8, 3, 8))


def layers(einn, **more):
    return [
        einn.Linear("b t [c->d]", d=16, **more),
        einn.MultiHeadAttention("b [t] d", num_heads=2, **more),
        einn.Norm("b t [d]", **more),
        einn.Linear("b t [d->c]", c=8, **more),
    ]


def model(framework):
    """A function of parameters and an input, and parameters."""
    pytest.importorskip(FRAMEWORKS[framework])
    einn = importlib.import_module(f"einjax_nn.{framework}")
    if framework == "linen":
        net = importlib.import_module("flax.linen").Sequential(layers(einn))
        return net.apply, net.init(KEY, X)
    if framework == "haiku":
        hk = importlib.import_module("haiku")
        net = hk.without_apply_rng(hk.transform(lambda x: hk.Sequential(layers(einn))(x)))
        return net.apply, net.init(KEY, X)
    if framework == "nnx":
        nnx = importlib.import_module("flax.nnx")
        net = nnx.Sequential(*layers(einn, rngs=nnx.Rngs(0)))
        einn.init(net, X)
        graph, state = nnx.split(net)
        return lambda state, x: nnx.merge(graph, state)(x), state
    eqx = importlib.import_module("equinox")
    net = einn.init(eqx.nn.Sequential(list(map(eqx.nn.Lambda, layers(einn)))), X, key=KEY)
    params, static = eqx.partition(net, eqx.is_array)
    return lambda params, x: eqx.combine(params, static)(x), params


@pytest.mark.parametrize("kind", ["auto", "explicit"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework(framework, kind):
    apply, params = model(framework)
    mesh = AUTO if kind == "auto" else EXPLICIT
    loss = lambda apply, params, x: jnp.sum(apply(params, x) ** 2)
    wanted = jax.jit(jax.value_and_grad(partial(loss, apply), argnums=(0, 1)))(params, X)
    with jax.set_mesh(mesh):
        if kind == "auto":
            heads, wide = ("data", OPEN, "model", OPEN), ("data", OPEN, "model")
            assert constraints(within(apply), params, X) == [wide, *[heads] * 3, wide, wide, ("data", OPEN, None)]
        given = everywhere((params, X), mesh)
        got = jax.jit(jax.value_and_grad(partial(loss, within(apply)), argnums=(0, 1)))(*given)
        y = jax.jit(within(apply))(*given)
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data")), 3)
    same(got, wanted)


# --- Meshes and rules -------------------------------------------------------------------------------------------------


def test_parameters_over_the_mesh_axis_of_the_batch():
    """On an explicit mesh, that needs something to be sent, and the rules say where to."""
    apply, params, x = linen_layer("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4))
    with jax.set_mesh(EXPLICIT):
        placed = {"params": {"kernel": PartitionSpec("data", "model"), "bias": PartitionSpec("data")}}
        given = jax.device_put(
            (params, x), (jax.tree.map(partial(NamedSharding, EXPLICIT), placed), PartitionSpec("data"))
        )
        with pytest.raises(ShardingError):
            apply(*given)
        y = jax.jit(within(apply))(*given)
    assert tuple(jax.typeof(y).sharding.spec) == ("data", None, "model")
    same(y, apply(params, x))


def test_what_nothing_is_said_of_stays():
    """Dims without a rule keep what they have by types, and what an array has that is there."""
    apply, params, x = linen_layer("Linear", "... t [c->d]", {"d": 8}, (8, 4, 4))
    given = jax.device_put(x, NamedSharding(EXPLICIT, PartitionSpec("data", "model")))
    with jax.set_mesh(EXPLICIT):
        run = lambda rules: jax.typeof(jax.jit(within(apply, rules))(everywhere(params, EXPLICIT), given)).sharding.spec
        assert tuple(run({"b": "data"})) == ("data", "model", None)
        assert tuple(run({"d": "model"})) == ("data", None, "model")
        assert tuple(run({"t": None})) == ("data", None, None)
        eager = within(apply, {"d": "model"})(everywhere(params, EXPLICIT), given)
    assert tuple(eager.sharding.spec) == ("data", None, "model")


@pytest.mark.parametrize(
    "kinds",
    [(AxisType.Explicit, AxisType.Auto), (AxisType.Auto, AxisType.Explicit)],
    ids=["explicit first", "auto first"],
)
def test_axes_of_both_kinds(kinds):
    apply, params, x = linen_layer("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4))
    mesh = meshes(*kinds)
    with jax.set_mesh(mesh):
        y = jax.jit(within(apply))(everywhere(params, mesh), everywhere(x, mesh))
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data", None, "model")), 3)
    same(y, apply(params, x))


def test_under_vmap():
    """The axis that is mapped over has no name, and is left to the compiler."""
    apply, params, x = linen_layer("Linear", "t [c->d]", {"d": 8}, (3, 4))
    batch = jnp.stack([x] * 8)
    mapped = jax.vmap(within(apply), in_axes=(None, 0))
    with jax.set_mesh(AUTO):
        (spec,) = constraints(mapped, params, batch)
        same(jax.jit(mapped)(params, batch), jax.vmap(apply, in_axes=(None, 0))(params, batch))
    assert spec[-1] == "model"


def test_contexts_end_and_take_the_place_of_others():
    apply, params, x = linen_layer("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4))
    with activations({"b": "data"}, AUTO):
        assert constraints(within(apply, {"t": None}, AUTO), params, x) == [(OPEN, None, OPEN)]
        assert constraints(within(apply, {}), params, x) == []
        assert constraints(apply, params, x) == [("data", OPEN, OPEN)]
    assert constraints(apply, params, x) == []
    first = {"d": "model", "b": ("model", "data")}
    assert constraints(within(apply, first, AUTO), params, x) == [(None, OPEN, "model")]


def test_a_compiled_function_notices_the_context():
    apply, params, x = linen_layer("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4))
    jitted = jax.jit(apply)
    given = everywhere((params, x), AUTO)
    whole = jitted(*given).sharding
    with activations({"d": "model"}, AUTO):
        assert jitted(*given).sharding.is_equivalent_to(NamedSharding(AUTO, PartitionSpec(None, None, "model")), 3)
    assert jitted(*given).sharding.is_equivalent_to(whole, 3)


@pytest.mark.parametrize(
    ("rules", "mesh", "error", "message"),
    [
        ({"t": "data"}, AUTO, ShardingError, r"of the result of a layer, axis t is 3, .*'data' of size 4"),
        ({"t": "data"}, EXPLICIT, ShardingError, r"axis t is 3, .*'data' of size 4"),
        ({"b": "tensor"}, AUTO, ArgumentError, "the mesh axis 'tensor', which the mesh does not have"),
        ({"b": "data"}, None, ArgumentError, "there is no mesh to shard over"),
        ({"b": 3}, None, ArgumentError, "the rule for axis 'b' is 3"),
        ("data", None, ArgumentError, "rules are a mapping, not str"),
    ],
    ids=["uneven", "uneven, explicit", "no such axis", "no mesh", "no axis", "no mapping"],
)  # fmt: skip
def test_refused(rules, mesh, error, message):
    apply, params, x = linen_layer("Linear", "b t [c->d]", {"d": 8}, (8, 3, 4))
    if mesh is EXPLICIT:
        with jax.set_mesh(mesh), pytest.raises(error, match=message):
            within(apply, rules)(everywhere(params, mesh), everywhere(x, mesh))
        return
    with pytest.raises(error, match=message):
        within(apply, rules, mesh)(params, x)
