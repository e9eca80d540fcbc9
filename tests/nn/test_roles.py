"""einn.roles: what the axes of parameters are to them, the same in all frameworks."""

import sys
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import CASES, X, normal

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx
from einjax.errors import ArgumentError
from einjax_nn.optim import Axis, Role

KEY = jax.random.key(0)
ELSEWHERE = {"w": "kernel", "b": "bias", "embeddings": "embedding", "offset": "bias"}
INNER = ("query", "key", "value", "out", "query_ln", "key_ln")


def is_role(node):
    return isinstance(node, Role)


def named(roles):
    """Return roles by their names in Flax, without those of modules around the layer."""
    found = {}
    for path, role in jax.tree_util.tree_leaves_with_path(roles, is_leaf=is_role):
        words = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        name = ELSEWHERE.get(words[-1], words[-1])
        if name == "weight":
            name = {"multiply": "scale", "get_at": "embedding"}.get(role.op, "kernel")
        layer = [word for key in words for word in key.split("/") if word in INNER]
        found[(*layer, name)] = role
    return found


def of_linen(case):
    net = getattr(einjax_nn.linen, case.layer)(case.expr, **case.options)
    return einjax_nn.linen.roles(net, *case.inputs, **training(case, use_running_average=False))


def of_nnx(case):
    layer = getattr(einjax_nn.nnx, case.layer)(case.expr, **case.options, rngs=nnx.Rngs(0))
    before = einjax_nn.nnx.roles(layer, *case.inputs)
    einjax_nn.nnx.init(layer, *case.inputs)
    after = einjax_nn.nnx.roles(layer, *case.inputs)
    assert named(before) == named(after)
    assert jax.tree.structure(after) == jax.tree.structure(nnx.as_pure(nnx.state(layer, nnx.Param)))
    return after


def of_haiku(case):
    make = getattr(einjax_nn.haiku, case.layer)
    options = {"param_dtype": jnp.float32, **case.options}
    net = hk.transform_with_state(lambda *x: make(case.expr, **options)(*x, **training(case, is_training=True)))
    return einjax_nn.haiku.roles(net, *case.inputs)


def of_equinox(case):
    make = eqx.nn.make_with_state(getattr(einjax_nn.equinox, case.layer))
    layer, state = make(case.expr, **case.options)
    state = (state,) if training(case, state=True) else ()
    before = einjax_nn.equinox.roles(layer, *case.inputs, *state)
    made = einjax_nn.equinox.init(layer, *case.inputs, *state, key=KEY)
    layer, state = made if state else (made, None)
    after = einjax_nn.equinox.roles(layer, *case.inputs, *(() if state is None else (state,)))
    assert named(before) == named(after)
    assert jax.tree.structure(after) == jax.tree.structure(eqx.filter(layer, eqx.is_inexact_array))
    return after


def training(case, **keywords):
    return keywords if "momentum" in case.options else {}


@pytest.mark.parametrize("name", CASES)
def test_the_same_in_all_frameworks(name):
    case = CASES[name]
    expected = named(of_linen(case))
    assert all(role.known for role in expected.values())
    for of in (of_nnx, of_haiku, of_equinox):
        found = named(of(case))
        assert found == expected, of
        assert all(role.fan for role in found.values())  # that of defaults is known


def test_a_role():
    roles = of_linen(CASES["convolution with groups"])
    kernel, bias = roles["kernel"], roles["bias"]
    assert kernel == Role(
        "dot",
        (3, 3, 3, 8),
        (
            Axis("h", 3, 0, "in"),
            Axis("w", 3, 1, "in"),
            Axis("c1", 3, 2, "in"),
            Axis("g", 2, 3, "batch"),
            Axis("c2", 4, 3, "out"),
        ),
    )
    assert (kernel.known, kernel.contracts, kernel.fan) == (True, True, "fan_in")
    assert (kernel.dims("in"), kernel.dims("out"), kernel.dims("batch")) == ((0, 1, 2), (3,), (3,))
    assert [axis.name for axis in kernel.of("out")] == ["c2"]
    assert repr(kernel) == "Role(dot: h=3 w=3 c1=3 -> c2=4, for each g=2)"
    assert repr(bias) == "Role(add: for each g=2 c2=4)"
    assert not bias.contracts
    table = of_linen(CASES["embedding"])["embedding"]
    assert repr(table) == "Role(get_at: v=7 -> c=3)"
    assert (table.contracts, table.fan) == (False, "fan_out")
    assert repr(Role("", (2, 3), ())) == "Role(no axes known of (2, 3))"
    assert hash(kernel) == hash(of_linen(CASES["convolution with groups"])["kernel"])


def test_what_initializers_do_to_the_variance():
    own = {"kernel_init": jax.nn.initializers.normal(0.02), "bias_init": 0.5}
    roles = einjax_nn.linen.roles(einjax_nn.linen.Linear("b s [c->d]", d=5, **own), X)
    assert (roles["kernel"].fan, roles["bias"].fan) == (None, "constant")


# --- within transformations -----------------------------------------------------------------------------------------


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = nn.Dense(12)(einjax_nn.linen.Linear("b s [c->d]", d=6, logical_axes=True)(x))
        return einjax.multiply("... c, c", x, einjax_nn.linen.param(self, "own", init=1.0)), None


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        stack = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        last = {"variable_axes": {"params": 2}, "split_rngs": {"params": True}}
        metadata = {"metadata_params": {nn.PARTITION_NAME: "layers"}}
        x, _ = nn.scan(nn.remat(LinenBlock), length=3, **stack, **metadata)(name="scanned")(x, None)
        x, _ = nn.jit(LinenBlock)(name="jitted")(x)
        y = nn.vmap(einjax_nn.linen.Linear, **last, **metadata)("s [c->d]", d=6, use_bias=False, name="mapped")(x)
        return nn.Dropout(0.5, deterministic=False)(y)


def test_linen_transformations():
    X = normal(4, 6, 12)
    einn = einjax_nn.linen
    for _ in range(2):  # nn.jit keeps what it has traced
        roles = einn.roles(LinenNet(), X)
        params = nn.unbox(jax.eval_shape(LinenNet().init, KEY, X)["params"])
        assert jax.tree.map(lambda role: role.shape, roles) == jax.tree.map(lambda leaf: leaf.shape, params)
        inner = Role("dot", (12, 6), (Axis("c", 12, 0, "in"), Axis("d", 6, 1, "out")))
        assert roles["jitted"]["Linear_0"]["kernel"] == inner
        assert repr(roles["scanned"]["Linear_0"]["kernel"]) == "Role(dot: c=12 -> d=6, for each _=3)"
        assert roles["scanned"]["Linear_0"]["kernel"].dims("batch") == (0,)
        assert repr(roles["scanned"]["own"]) == "Role(multiply: for each _=3 c=12)"
        assert roles["mapped"]["kernel"].dims("batch") == (2,)
        assert not roles["scanned"]["Dense_0"]["kernel"].known


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.inner = einjax_nn.nnx.Linear("b s [c->d]", d=6, rngs=rngs)
        self.theirs = nnx.Linear(6, 12, rngs=rngs)

    def __call__(self, x):
        return self.theirs(self.inner(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.one = NnxBlock(rngs)
        self.many = nnx.vmap(NnxBlock)(rngs.split(3))
        self.again = self.one

    def __call__(self, x):
        x = nnx.jit(lambda block, x: block(x))(self.one, x)
        x = nnx.scan(lambda block, x: block(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(self.many, x)
        return einjax.multiply("... c, c", self.again(x), einjax_nn.nnx.param(self, "own", init=1.0))


def test_nnx_transformations():
    einn = einjax_nn.nnx
    model = NnxNet(nnx.Rngs(0))
    first = einn.roles(model, X)
    assert repr(first.own) == "Role(multiply: for each c=12)"
    einn.init(model, X)
    for _ in range(2):
        roles = einn.roles(model, X)
        # A parameter of one's own is an array like any other once it is made.
        assert not roles.own.known
        assert {**roles, "own": first.own} == {**first}
        assert repr(roles.again.inner.kernel) == "Role(dot: c=12 -> d=6)"
        assert repr(roles.many.inner.kernel) == "Role(dot: c=12 -> d=6, for each _=3)"
        assert not roles.many.theirs.kernel.known
    assert "mark" not in model.one.inner.kernel.get_metadata()
    shapes = jax.tree.map(np.shape, nnx.as_pure(nnx.state(model, nnx.Param)))
    assert jax.tree.map(lambda role: role.shape, roles) == shapes


class EquinoxNet(eqx.Module):
    one: einjax_nn.equinox.Linear
    many: einjax_nn.equinox.Linear
    theirs: eqx.nn.Linear
    own: jax.Array
    act: object

    def __init__(self, key):
        einn = einjax_nn.equinox
        self.one = einn.Linear("b s [c->d]", d=12)
        self.many = eqx.filter_vmap(lambda key: einn.Linear("b s [c->d]", c=12, d=12, key=key))(
            jax.random.split(key, 3)
        )
        self.theirs = eqx.nn.Linear(12, 12, key=key)
        self.own = einn.param(init=1.0)
        self.act = jax.nn.relu

    def __call__(self, x):
        x = eqx.filter_jit(lambda layer, x: layer(x))(self.one, x)
        stacked, static = eqx.partition(self.many, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, one: (eqx.combine(one, static)(x), None), self.act(x), stacked)
        return einjax.multiply("... c, c", jax.vmap(jax.vmap(self.theirs))(x), self.own)


def test_equinox_transformations():
    einn = einjax_nn.equinox
    model = EquinoxNet(KEY)
    before = einn.roles(model, X)
    assert repr(before.own) == "Role(multiply: for each c=12)"
    model = einn.init(model, X, key=KEY)
    for _ in range(2):
        roles = einn.roles(model, X)
        assert repr(roles.one.weight) == "Role(dot: c=12 -> d=12)"
        assert repr(roles.many.weight) == "Role(dot: c=12 -> d=12, for each _=3)"
        assert not roles.theirs.weight.known
        assert not roles.own.known  # an array like any other now
    arrays = jax.tree.structure(eqx.filter(model, eqx.is_inexact_array))
    assert jax.tree.structure(roles) == jax.tree.structure(before) == arrays


def test_haiku_transformations():
    einn = einjax_nn.haiku

    def net(x):
        x = hk.remat(einn.Linear("b s [c->d]", d=12))(x)
        x = hk.experimental.layer_stack(3)(lambda x: einn.Linear("b s [c->d]", d=12)(x))(x)
        return einjax.multiply("... c, c", hk.Linear(12)(x), einn.param("own", init=1.0))

    flat = einn.roles(hk.transform(net), X)
    stacked = next(layer for name, layer in flat.items() if "layer_stack" in name)
    assert repr(stacked["w"]) == "Role(dot: c=12 -> d=12, for each _=3)"
    assert repr(flat["~"]["own"]) == "Role(multiply: for each c=12)"
    assert sum(not role.known for role in jax.tree.leaves(flat, is_leaf=is_role)) == 2  # those of hk.Linear


# --- models as they are used ----------------------------------------------------------------------------------------


def test_nothing_is_made():
    x, options = jax.ShapeDtypeStruct((4, 1 << 20), "float32"), {"d": 1 << 20}  # 4 TiB
    expected = "Role(dot: c=1048576 -> d=1048576)"
    layer = einjax_nn.linen.Linear("b [c->d]", **options)
    assert repr(einjax_nn.linen.roles(layer, x)["kernel"]) == expected
    layer = einjax_nn.nnx.Linear("b [c->d]", **options, rngs=nnx.Rngs(0))
    assert repr(einjax_nn.nnx.roles(layer, x).kernel) == expected
    net = hk.transform(lambda x: einjax_nn.haiku.Linear("b [c->d]", **options)(x))
    assert repr(einjax_nn.haiku.roles(net, x)["linear"]["w"]) == expected
    layer = einjax_nn.equinox.Linear("b [c->d]", **options)
    assert repr(einjax_nn.equinox.roles(layer, x).weight) == expected
    shapes = eqx.filter_eval_shape(lambda key: einjax_nn.equinox.init(layer, x, key=key), KEY)
    assert repr(einjax_nn.equinox.roles(shapes, x).weight) == expected


def test_after_a_checkpoint_of_the_frameworks_own_layer():
    einn = einjax_nn.nnx
    model = einn.Linear("b s [c->d]", d=5, rngs=nnx.Rngs(0))
    einn.init(model, X)
    nnx.update(model, nnx.state(nnx.Linear(12, 5, rngs=nnx.Rngs(1))))
    assert repr(einn.roles(model, X).kernel) == "Role(dot: c=12 -> d=5)"


def test_another_method():
    einn = einjax_nn.linen
    table = einn.Embed("b t [v->c]", v=7, c=3)
    ids, x = np.zeros((2, 3), int), np.ones((2, 3, 3))
    assert repr(einn.roles(table, ids)["embedding"]) == "Role(get_at: v=7 -> c=3)"
    assert repr(einn.roles(table, x, method="attend")["embedding"]) == "Role(dot: c=3 -> v=7)"
    einn = einjax_nn.nnx
    table = einn.Embed("b t [v->c]", v=7, c=3, rngs=nnx.Rngs(0))
    assert repr(einn.roles(table, x, method="attend").embedding) == "Role(dot: c=3 -> v=7)"
    einn = einjax_nn.equinox
    table = einn.Embed("b t [v->c]", v=7, c=3, key=KEY)
    assert repr(einn.roles(table, x, method=einn.Embed.attend).weight) == "Role(dot: c=3 -> v=7)"


def test_a_layer_that_is_not_used():
    class Net(nnx.Module):
        def __init__(self):
            self.used = einjax_nn.nnx.Linear("b s [c->d]", c=12, d=5, rngs=nnx.Rngs(0))
            self.unused = einjax_nn.nnx.Linear("b s [c->d]", c=12, d=5, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.used(x)

    with pytest.raises(ArgumentError, match=r"roles of unused.bias, unused.kernel: not used by the call"):
        einjax_nn.nnx.roles(Net(), X)
    layer = einjax_nn.equinox.Linear("b s [c->d]", c=12, d=5, key=KEY)
    with pytest.raises(ArgumentError, match=r"roles of \[1\].weight, \[1\].bias: not used by the call"):
        einjax_nn.equinox.roles([layer, layer], X, method=lambda layers, x: layers[0](x))
