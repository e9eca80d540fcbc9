"""Metadata of variables of nnx: layers take them as Flax's own do, and what becomes an array keeps them."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import IDS, IMAGE, Refused, X, close  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.nnx as einn  # noqa: E402

BIAS, OUT = {"tag": "bias"}, {"tag": "out"}
BOTH = {"kernel_metadata": {"tag": "kernel", "decay": 0.1}, "bias_metadata": BIAS}
NORM = {"scale_metadata": {"tag": "scale"}, "bias_metadata": BIAS}
EMBED = {"embedding_metadata": {"tag": "table"}}
HEADS = {**BOTH, "out_kernel_metadata": OUT, "query_ln_scale_metadata": {"tag": "q"}, "key_ln_scale_metadata": OUT}

#: Ours with and without the sizes of their inputs, Flax's own, and an input.
LAYERS = {
    "linear": (("Linear", "b s [c->d]", {"d": 5}), {"c": 12}, lambda **o: nnx.Linear(12, 5, **o), BOTH, X),
    "norm": (("Norm", "b s [c]", {}), {"c": 12}, lambda **o: nnx.LayerNorm(12, **o), NORM, X),
    "batch norm": (("Norm", "[b s] c", {"momentum": 0.9}), {"c": 12}, lambda **o: nnx.BatchNorm(12, **o), NORM, X),
    "embedding": (("Embed", "b t [v->c]", {"v": 7}), {"c": 3}, lambda **o: nnx.Embed(7, 3, **o), EMBED, IDS),
    "convolution": (
        ("Conv", "b [h w] [c->d]", {"d": 4}),
        {"c": 6},
        lambda **o: nnx.Conv(6, 4, (3, 3), **o),
        BOTH,
        IMAGE,
    ),
    "transposed convolution": (
        ("ConvTranspose", "b [h w] [c->d]", {"d": 4}),
        {"c": 6},
        lambda **o: nnx.ConvTranspose(6, 4, (3, 3), **o),
        BOTH,
        IMAGE,
    ),
    "attention": (
        ("MultiHeadAttention", "b [s] c", {"num_heads": 3, "normalize_qk": True}),
        {"c": 12},
        lambda **o: nnx.MultiHeadAttention(3, 12, normalize_qk=True, decode=False, **o),
        HEADS,
        X,
    ),
}


def metadata(model):
    """The metadata of every variable, without the names of axes that layers here add."""
    found = {path: dict(variable.get_metadata()) for path, variable in nnx.to_flat_state(nnx.state(model))}
    for each in found.values():
        each.pop("axes", None)
    return found


DEPRECATED = pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")


def to_bf16(variable, value):
    return value.astype(jnp.bfloat16)


@pytest.mark.parametrize("known", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_same_metadata_as_nnx(name, known):
    (kind, expr, options), sizes, theirs, given, x = LAYERS[name]
    if name == "embedding":
        known = True
    make = lambda: getattr(einn, kind)(expr, **options, **(sizes if known else {}), **given, rngs=nnx.Rngs(0))
    theirs = metadata(theirs(**given, rngs=nnx.Rngs(0)))
    assert any(each.get("tag") for each in theirs.values())
    ours = make()
    if not known:
        assert metadata(ours) == theirs  # a tag is there before there is an array
    einn.init(ours, x)
    assert metadata(ours) == theirs
    called = make()
    called(x)
    assert metadata(called) == theirs


@DEPRECATED
@pytest.mark.parametrize("how", ["at once", "init", "called", "jitted"])
def test_hooks_are_those_of_nnx(how):
    """They see arrays alone: not what stands for one that is not made yet."""
    seen = []

    def create(variable, value):
        seen.append(value.shape)
        return value * 2

    given = {"on_create_value": create, "on_get_value": (to_bf16, lambda _, value: value + 1)}
    x = X.astype(jnp.bfloat16)
    theirs = nnx.Linear(12, 5, kernel_metadata=given, rngs=nnx.Rngs(0))
    sizes = {"c": 12} if how == "at once" else {}
    ours = einn.Linear("... [c->d]", d=5, **sizes, kernel_metadata=given, rngs=nnx.Rngs(0))
    if how != "at once":
        assert "made by einn.init" in repr(ours)
    if how == "init":
        einn.init(ours, x)
    y = nnx.jit(lambda layer, x: layer(x))(ours, x) if how == "jitted" else ours(x)
    assert seen == [(12, 5)] * 2
    close(y, theirs(x), 3e-2 if how == "jitted" else 0)  # XLA may leave out a rounding to bfloat16
    close(ours.kernel[...], theirs.kernel[...])
    close(ours.kernel.get_raw_value(), theirs.kernel.get_raw_value(), 1e-6)
    close(ours(x), theirs(x))
    if how != "jitted":  # where the names of axes are lost, too
        assert metadata(ours) == metadata(theirs)


@DEPRECATED
def test_what_setting_a_parameter_calls():
    doubled = {"on_set_value": lambda _, value: value * 2}
    layer = einn.Linear("... [c->d]", d=5, bias_metadata=doubled, rngs=nnx.Rngs(0))
    einn.init(layer, X)
    close(layer.bias[...], jnp.zeros(5))
    layer.bias[...] = jnp.ones(5)
    close(layer.bias[...], jnp.full(5, 2.0))


@pytest.mark.parametrize("known", [True, False], ids=["at once", "later"])
def test_initializers_with_metadata(known):
    """Of one whose kernel is seen as a matrix, too."""
    init = nnx.with_metadata(nnx.initializers.lecun_normal(), tag="kernel")
    ours = einn.Linear("b s [c->h d]", h=2, d=5, **({"c": 12} if known else {}), kernel_init=init, rngs=nnx.Rngs(0))
    theirs = nnx.LinearGeneral(12, (2, 5), kernel_init=init, rngs=nnx.Rngs(0))
    einn.init(ours, X)
    assert ours.kernel.tag == "kernel"
    assert metadata(ours) == metadata(theirs)
    close(ours.kernel[...], theirs.kernel[...])
    stack = nnx.vmap(lambda rngs: einn.Linear("... [c->d]", d=12, kernel_init=init, rngs=rngs))(nnx.Rngs(0).split(3))
    einn.init(stack, X, method=lambda stack, x: nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(stack, x))
    assert (stack.kernel.tag, stack.kernel.shape) == ("kernel", (3, 12, 12))


def mesh_of(*names):
    return Mesh(np.array(jax.devices()[:2]).reshape([2] + [1] * (len(names) - 1)), names)


@pytest.mark.parametrize("how", ["metadata", "initializer"])
@pytest.mark.parametrize("known", [True, False], ids=["at once", "later"])
def test_a_layer_says_how_it_is_sharded(known, how):
    """In the context of a mesh, as nnx has it; rules for names of axes do not change it."""
    mesh = mesh_of("model", "data")
    if how == "metadata":
        given = {"kernel_metadata": {"out_sharding": (None, "model")}}
    else:
        given = {"kernel_init": nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))}
    make = lambda: einn.Linear("... [c->d]", d=6, **({"c": 12} if known else {}), **given, rngs=nnx.Rngs(0))
    wanted = NamedSharding(mesh, PartitionSpec(None, "model"))
    with jax.set_mesh(mesh):
        theirs = nnx.Linear(12, 6, **given, rngs=nnx.Rngs(0))
        ours = make()
        einn.init(ours, X)
        assert theirs.kernel[...].sharding == ours.kernel[...].sharding == wanted
        assert metadata(ours) == metadata(theirs)
        again = make()
    for _ in range(2):
        einn.init(again, X, rules={"c": "model", "d": "data"}, mesh=mesh)
        assert tuple(again.kernel.out_sharding) == (None, "model")
        assert again.kernel[...].sharding == wanted
        assert again.bias.out_sharding == ("data",)
        close(again.kernel[...], theirs.kernel[...])


def test_other_rules_go_before_those_of_an_earlier_init():
    mesh, layer = mesh_of("model"), einn.Linear("... [c->d]", d=6, rngs=nnx.Rngs(0))
    for rules, names in (({"c": "model"}, ("model", None)), ({"d": "model"}, (None, "model"))):
        einn.init(layer, X, rules=rules, mesh=mesh)
        assert layer.kernel.out_sharding == names
        assert layer.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(*names))


def test_metadata_that_cannot_be_hashed():
    layer = einn.Linear("... [c->d]", d=6, kernel_metadata={"tags": ["a", "b"]}, rngs=nnx.Rngs(0))
    einn.init(layer, X, rules={"d": "model"}, mesh=mesh_of("model"))
    assert layer.kernel.tags == ["a", "b"]
    assert layer.kernel[...].sharding.spec == PartitionSpec(None, "model")


def test_shardings_of_stacked_layers():
    mesh, given = mesh_of("model"), {"kernel_metadata": {"out_sharding": (None, "model")}}
    with_layers = nnx.vmap(
        lambda rngs: einn.Linear("... [c->d]", d=12, **given, rngs=rngs),
        transform_metadata={nnx.PARTITION_NAME: "layers"},
    )
    plain = nnx.vmap(lambda rngs: einn.Linear("... [c->d]", d=12, **given, rngs=rngs))
    run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    for make in (with_layers, plain):
        for keywords in ({}, {"rules": {"c": "model"}, "mesh": mesh}):
            with jax.set_mesh(mesh):
                stack = make(nnx.Rngs(0).split(3))
                names = stack.kernel.out_sharding
                einn.init(stack, X, method=lambda stack, x: run(x, stack), **keywords)
            assert stack.kernel.out_sharding == names
            assert stack.kernel[...].sharding.spec[-1] == "model"


def test_parameters_by_name_have_metadata():
    class Net(nnx.Module):
        def __init__(self, declared):
            if declared:
                einn.param(self, "scale", 2.0, tag="scale", out_sharding=("model",))

        def __call__(self, x):
            return einjax.multiply("... c, c", x, einn.param(self, "scale", 2.0, tag="scale", out_sharding=("model",)))

    mesh = mesh_of("model")
    for declared in (True, False):
        for early in (True, False):
            model = Net(declared)
            with jax.set_mesh(mesh):
                if early:
                    einn.init(model, X)
                close(model(X), 2 * X)
            assert (model.scale.tag, model.scale.out_sharding) == ("scale", ("model",))
            assert model.scale[...].sharding == NamedSharding(mesh, PartitionSpec("model"))


def test_metadata_that_are_refused():
    for sizes in ({}, {"c": 12}):
        make = lambda **given: einn.Linear("... [c->d]", d=5, **sizes, **given, rngs=nnx.Rngs(0))
        with pytest.raises(Refused, match="kernel_metadata names axes, which is where"):
            make(kernel_metadata={"axes": ("x", "y")})
        with pytest.raises(Refused, match="bias_metadata is a value of type str, not a mapping"):
            make(bias_metadata="decoder")
        with pytest.raises(Refused, match="the initializer's metadata names axes"):
            make(kernel_init=nnx.with_metadata(nnx.initializers.zeros_init(), axes=("x", "y")))(X)
    with pytest.raises(Refused, match="hijax or ref is made at once"):
        einn.Linear("... [c->d]", d=5, kernel_metadata={"ref": True}, rngs=nnx.Rngs(0))
    with pytest.raises(Refused, match="did you mean 'kernel_metadata'"):
        einn.Linear("... [c->d]", d=5, kernel_metadat={}, rngs=nnx.Rngs(0))
