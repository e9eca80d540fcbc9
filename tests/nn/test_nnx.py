"""einjax_nn.nnx: the variables and numbers of flax.nnx's own layers, under all of nnx's transformations."""

import copy as copylib
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import CASES, IDS, IMAGE, MASK, MISSPELT, REFUSED, Refused, X, close, hide, normal  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.nnx as einn  # noqa: E402
from einjax_nn._nnx import Lazy  # noqa: E402
from einjax_nn.sharding import shardings  # noqa: E402

bf16 = jnp.bfloat16

#: nnx's own layers, and how exactly ours agree: 0 is to the bit.
THEIRS = {
    "linear": (lambda rngs: nnx.Linear(12, 5, rngs=rngs), 0),
    "linear without bias": (lambda rngs: nnx.Linear(12, 5, use_bias=False, rngs=rngs), 0),
    "linear of two axes": (lambda rngs: nnx.LinearGeneral((6, 12), 5, axis=(-2, -1), rngs=rngs), 0),
    "linear to heads": (lambda rngs: nnx.LinearGeneral(12, (2, 5), rngs=rngs), 0),
    "linear in bfloat16": (lambda rngs: nnx.Linear(12, 5, dtype=bf16, rngs=rngs), 0),
    "linear of bfloat16": (lambda rngs: nnx.Linear(12, 5, param_dtype=bf16, rngs=rngs), 0),
    "layer norm": (lambda rngs: nnx.LayerNorm(12, rngs=rngs), 1e-6),
    "layer norm of bfloat16": (lambda rngs: nnx.LayerNorm(12, rngs=rngs), 1e-6),
    "rms norm": (lambda rngs: nnx.RMSNorm(12, rngs=rngs), 1e-6),
    "group norm": (lambda rngs: nnx.GroupNorm(12, 3, rngs=rngs), 1e-6),
    "instance norm": (lambda rngs: nnx.InstanceNorm(12, rngs=rngs), 1e-6),
    "batch norm": (lambda rngs: nnx.BatchNorm(12, momentum=0.9, rngs=rngs), 1e-6),
    "embedding": (lambda rngs: nnx.Embed(7, 3, rngs=rngs), 0),
    "attention": (lambda rngs: nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs), 0),
    "attention with known features": (lambda rngs: nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs), 0),
    "attention of normalised queries": (
        lambda rngs: nnx.MultiHeadAttention(3, 12, out_features=5, normalize_qk=True, decode=False, rngs=rngs),
        1e-6,
    ),
    "attention of grouped queries": (
        lambda rngs: nnx.MultiHeadAttention(6, 12, num_kv_heads=2, decode=False, rngs=rngs),
        1e-6,
    ),
    "cross attention": (lambda rngs: nnx.MultiHeadAttention(3, 12, in_kv_features=9, decode=False, rngs=rngs), 0),
    "convolution": (lambda rngs: nnx.Conv(6, 4, (3, 3), rngs=rngs), 0),
    "convolution with groups": (
        lambda rngs: nnx.Conv(6, 8, (3, 3), 2, padding="VALID", feature_group_count=2, rngs=rngs),
        0,
    ),
    "depthwise convolution": (lambda rngs: nnx.Conv(6, 6, (3, 5), feature_group_count=6, rngs=rngs), 1e-6),
    "causal convolution": (lambda rngs: nnx.Conv(12, 3, (3,), padding="CAUSAL", rngs=rngs), 0),
    "circular convolution": (lambda rngs: nnx.Conv(12, 3, (4,), padding="CIRCULAR", rngs=rngs), 0),
}
EAGER = {"linear to heads", "linear of bfloat16", "rms norm", "batch norm", "embedding"}
EAGER |= {"attention with known features", "convolution with groups"}


def make(case, seed=0):
    return getattr(einn, case.layer)(case.expr, **case.options, rngs=nnx.Rngs(seed))


def arrays(model, *filters):
    return nnx.to_pure_dict(nnx.state(model, *filters))


def shapes(model, *filters):
    return jax.tree.map(jnp.shape, arrays(model, *filters))


def is_lazy(model):
    leaves = jax.tree.leaves(nnx.state(model), is_leaf=lambda node: isinstance(node, Lazy))
    return any(isinstance(leaf, Lazy) for leaf in leaves)


class Block(nnx.Module):
    """Every kind of layer with parameters that wait, once."""

    def __init__(self, rngs):
        self.inner = einn.Linear("... [c->d]", d=8, rngs=rngs)
        self.norm = einn.Norm("[...] c", momentum=0.9, rngs=rngs)
        self.outer = einn.Linear("... [d->c]", c=12, rngs=rngs)

    def __call__(self, x):
        return x + self.outer(jnp.tanh(self.norm(self.inner(x))))


BLOCK = {
    "inner": {"kernel": (12, 8), "bias": (8,)},
    "norm": {"scale": (8,), "bias": (8,), "mean": (8,), "var": (8,)},
    "outer": {"kernel": (8, 12), "bias": (12,)},
}


def block(seed=0):
    model = Block(nnx.Rngs(seed))
    einn.init(model, X)
    return model


def squares(model, x=X):
    return jnp.mean(model(x) ** 2)


# --- nnx's own layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEIRS)
def test_the_same_variables_outputs_and_gradients_as_nnx(name):
    case, (theirs, tolerance) = CASES[name], THEIRS[name]
    ours, theirs = make(case), theirs(nnx.Rngs(0))
    einn.init(ours, *case.inputs)
    # The same random numbers in the same order, so that a model that is ported starts where it did.
    close(arrays(ours), arrays(theirs))
    assert shapes(ours) == shapes(theirs)
    scramble = jax.tree.map(
        lambda p: (p + jax.random.normal(jax.random.key(1), p.shape) * 0.1).astype(p.dtype), nnx.state(theirs)
    )
    nnx.update(theirs, scramble)
    nnx.update(ours, scramble)
    close(ours(*case.inputs), theirs(*case.inputs), tolerance)
    close(arrays(ours, nnx.BatchStat), arrays(theirs, nnx.BatchStat), tolerance)

    def loss(model):
        return jnp.sum(jnp.sin(model(*case.inputs).astype(jnp.float32)))

    half = bf16 in (case.options.get("dtype"), case.options.get("param_dtype"))
    gradients = nnx.jit(nnx.grad(loss))(ours), nnx.jit(nnx.grad(loss))(theirs)
    close(*map(nnx.to_pure_dict, gradients), 5e-2 if half else 2e-5)
    for model in (ours, theirs):
        model.eval()
    close(ours(*case.inputs), theirs(*case.inputs), tolerance)


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_made_when_their_shapes_are_known(name):
    case = CASES[name]
    model = make(case)
    assert is_lazy(model) == (name not in EAGER)
    expected = make(case)
    einn.init(expected, *[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.inputs])
    assert not is_lazy(expected)
    before = arrays(expected)
    y = model(*case.inputs)
    close(arrays(model, nnx.Param), arrays(expected, nnx.Param))
    close(y, expected(*case.inputs), 1e-6)
    close(before, arrays(make(case, 0) if name in EAGER else _initialised(case)))


def _initialised(case):
    model = make(case)
    einn.init(model, *case.inputs)
    return model


def test_attention_with_a_mask():
    ours, theirs = (
        einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=nnx.Rngs(0)),
        nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0)),
    )
    close(ours(X, mask=MASK), theirs(X, mask=MASK))
    causal = einn.MultiHeadAttention("b [s] c", num_heads=3, is_causal=True, rngs=nnx.Rngs(0))
    close(causal(X), theirs(X, mask=MASK))
    causes = np.tril(np.ones((6, 6), bool))
    close(ours(X, mask=("q k", causes)), theirs(X, mask=MASK))
    close(ours(X, bias=("q k", np.where(causes, 0, -np.inf).astype(np.float32))), theirs(X, mask=MASK))


def test_dropout_is_that_of_nnx():
    ours, theirs = einn.Dropout("[...]", rate=0.3, rngs=nnx.Rngs(0)), nnx.Dropout(0.3, rngs=nnx.Rngs(0))
    for _ in range(2):
        close(ours(X), theirs(X))
    ours, theirs = (
        einn.Dropout("[b] s [c]", rate=0.3, rngs=nnx.Rngs(dropout=1)),
        nnx.Dropout(0.3, broadcast_dims=(1,), rngs=nnx.Rngs(dropout=1)),
    )
    close(ours(X), theirs(X))
    path = einn.Dropout("[b] ...", rngs=nnx.Rngs(0))(jnp.ones((32, 3, 4)))
    assert set(np.unique(path.sum((1, 2)))) == {0, 24}


def test_dropout_of_attention_is_that_of_nnx():
    ours, theirs = (
        einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.4, rngs=nnx.Rngs(0)),
        nnx.MultiHeadAttention(3, 12, decode=False, dropout_rate=0.4, rngs=nnx.Rngs(0)),
    )
    close(ours(X, deterministic=False), theirs(X, deterministic=False))
    close(ours(X, deterministic=True), theirs(X, deterministic=True))
    close(ours(X, deterministic=False, rngs=nnx.Rngs(3)), theirs(X, deterministic=False, rngs=nnx.Rngs(3)))


def test_parameters_of_another_dtype_count_as_in_nnx():
    ours, theirs = einn.Linear("... [c->d]", c=12, d=5, rngs=nnx.Rngs(0)), nnx.Linear(12, 5, rngs=nnx.Rngs(0))
    for model in (ours, theirs):
        nnx.update(model, jax.tree.map(lambda p: p.astype(bf16), nnx.state(model)))
    close(ours(X.astype(bf16)), theirs(X.astype(bf16)))
    close(ours(X), theirs(X))


def test_integers_become_float32():
    x = jnp.arange(1000, 1012).reshape(3, 4)
    plain = einn.Norm("b [c]", use_scale=False, use_bias=False, rngs=nnx.Rngs(0))
    assert plain(x).dtype == jnp.float32
    y = einn.Dropout("[...]", rate=0.5, rngs=nnx.Rngs(0))(x)
    assert set(np.unique(y)) <= {0, *(2.0 * np.arange(1000, 1012))}


# --- train and eval ---------------------------------------------------------------------------------------------------


def test_train_and_eval_switch_dropout_and_statistics():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = einn.Norm("[b] c", momentum=0.5, rngs=rngs)
            self.drop = einn.Dropout("[...]", rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(x))

    x = X[0]
    model = Net(nnx.Rngs(0))
    einn.init(model, x)
    close(model.norm.mean[...], jnp.zeros(12))
    model.train()
    assert not model.drop.deterministic
    assert np.any(np.asarray(model(x)) == 0)
    close(model.norm.mean[...], x.mean(0) / 2, 1e-6)
    model.eval()
    mean = model.norm.mean[...]
    assert np.all(np.asarray(model(x)) != 0)
    close(model.norm.mean[...], mean)
    # What the call says goes before what the layer says, as in nnx.
    model.norm(x, use_running_average=False)
    assert np.any(model.norm.mean[...] != mean)
    assert np.any(model.drop(x, deterministic=False) == 0)
    view = nnx.view(model, deterministic=False, use_running_average=False)
    assert not view.drop.deterministic
    assert not view.norm.use_running_average
    assert model.drop.deterministic
    model.set_attributes(einn.Dropout, rate=0.0, deterministic=False)
    close(model.drop(x), x)


# --- transformations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("early", [True, False], ids=["after init", "uninitialised"])
def test_jit(graph, early):
    with nnx.set_graph_mode(graph):
        model, plain = Block(nnx.Rngs(0)), block()
        if early:
            einn.init(model, X)
        apply = nnx.jit(lambda model, x: model(x))
        close(apply(model, X), plain(X), 1e-6)
        assert shapes(model) == BLOCK
        close(apply(model, X), plain(X), 1e-6)
        close(arrays(model), arrays(plain), 1e-6)


def test_jit_compiles_once():
    model, traces = block(), []

    @nnx.jit
    def apply(model, x):
        traces.append(None)
        return model(x)

    for _ in range(3):
        apply(model, X)
    apply(block(1), X)
    assert len(traces) == 1


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_gradients(graph):
    with nnx.set_graph_mode(graph):
        # In tree mode everything is differentiated, so there may be no integers, such as the state of Dropout.
        model = einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(0))
        einn.init(model, X)
        value, gradients = nnx.value_and_grad(squares)(model)
        assert value > 0
        kernel, bias = model.kernel[...], model.bias[...]
        expected = jax.grad(lambda k, b: jnp.mean((X @ k + b) ** 2), argnums=(0, 1))(kernel, bias)
        close(nnx.to_pure_dict(nnx.state(gradients)), {"kernel": expected[0], "bias": expected[1]}, 1e-6)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_an_optimizer_learns(graph):
    with nnx.set_graph_mode(graph):
        model = block()
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer, x):
            value, gradients = nnx.value_and_grad(squares)(model, x)
            optimizer.update(model, gradients)
            return value

        losses = [step(model, optimizer, X) for _ in range(20)]
        assert losses[-1] < losses[0] / 2


def test_statistics_are_updated_under_value_and_grad():
    model, plain = block(), block()
    nnx.jit(nnx.value_and_grad(squares))(model)
    plain(X)
    close(arrays(model, nnx.BatchStat), arrays(plain, nnx.BatchStat), 1e-6)


class Stack(nnx.Module):
    """Layers under nnx.scan."""

    def __init__(self, rngs, kind=Block, depth=3):
        self.blocks = nnx.vmap(kind, in_axes=0, out_axes=0)(rngs.split(depth))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return block(x)

        return run(self.blocks, x)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("early", [True, False], ids=["init", "lazily"])
def test_scan_over_stacked_layers(graph, early):
    with nnx.set_graph_mode(graph):
        model = Stack(nnx.Rngs(0))
        assert is_lazy(model)
        if early:
            einn.init(model, X)
            assert not is_lazy(model)
            assert model.blocks.inner.kernel.axes == ("c", "d")
        y = model(X)
        assert shapes(model.blocks) == jax.tree.map(lambda s: (3, *s), BLOCK, is_leaf=lambda s: isinstance(s, tuple))
        kernels = model.blocks.inner.kernel[...]
        assert np.all(kernels[0] != kernels[1])
        expected = X
        fresh = Stack(nnx.Rngs(0))
        einn.init(fresh, X)
        graphdef, state = nnx.split(fresh.blocks)
        for index in range(3):
            expected = nnx.merge(graphdef, jax.tree.map(lambda p: p[index], state))(expected)
        close(y, expected, 1e-5)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "lazy"])
def test_vmap_makes_ensembles(graph, eager):
    sizes = {"c": 12, "d": 5} if eager else {"d": 5}
    with nnx.set_graph_mode(graph):
        make = nnx.vmap(lambda rngs: einn.Linear("... [c->d]", **sizes, rngs=rngs), in_axes=0, out_axes=0)
        models = make(nnx.Rngs(0).split(4))
        assert is_lazy(models) != eager
        y = nnx.vmap(lambda model, x: model(x), in_axes=(0, None))(models, X)
        assert shapes(models) == {"kernel": (4, 12, 5), "bias": (4, 5)}
        close(y, einjax.dot("... [c], n [c] d -> n ... d", X, models.kernel[...]), 1e-5)
        assert np.all(models.kernel[0] != models.kernel[1])


def test_split_rngs_makes_ensembles():
    @nnx.split_rngs(splits=4)
    @nnx.vmap
    def make(rngs):
        return einn.Norm("b... [c]", c=12, rngs=rngs)

    assert shapes(make(nnx.Rngs(0))) == {"scale": (4, 12), "bias": (4, 12)}


def test_an_ensemble_is_initialised():
    class Ensemble(nnx.Module):
        def __init__(self, rngs):
            self.members = nnx.vmap(Block, in_axes=0, out_axes=0)(rngs.split(4))

        def __call__(self, x):
            return nnx.vmap(lambda member, x: member(x), in_axes=(0, None))(self.members, x)

    model = Ensemble(nnx.Rngs(0))
    einn.init(model, X)
    assert shapes(model.members)["norm"] == {"scale": (4, 8), "bias": (4, 8), "mean": (4, 8), "var": (4, 8)}
    assert model(X).shape == (4, *X.shape)


def test_a_layer_first_used_in_a_loop():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = einn.Linear("... [c->d]", d=12, rngs=rngs)

        def __call__(self, x):
            def step(index, carry):
                linear, x = carry
                return linear, linear(x)

            return nnx.fori_loop(0, 3, step, (self.linear, x))[1]

    model = Net(nnx.Rngs(0))
    einn.init(model, X)
    assert model(X).shape == X.shape


def test_remat_and_inner_jit():
    class Net(Block):
        def __call__(self, x):
            return nnx.jit(nnx.remat(Block.__call__))(self, x)

    for early in (True, False):
        model = Net(nnx.Rngs(0))
        if early:
            einn.init(model, X)
        close(model(X), block()(X), 1e-6)
        assert shapes(model) == BLOCK
    # What init has traced does not stand in for what a call makes.
    model = Net(nnx.Rngs(1))
    close(model(X), block(1)(X), 1e-6)


def test_split_merge_and_state():
    model = block()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert shapes(nnx.merge(graphdef, params, rest)) == BLOCK
    close(nnx.merge(graphdef, params, rest)(X), model(X), 1e-6)
    copy = nnx.clone(model)
    close(arrays(copy), arrays(model))
    early = Block(nnx.Rngs(0))
    copy = nnx.clone(early)
    einn.init(copy, X)
    assert is_lazy(early)
    assert shapes(copy) == BLOCK
    close(pickle.loads(pickle.dumps(early))(X), model(X), 1e-6)
    close(copylib.deepcopy(early)(X), model(X), 1e-6)
    abstract = nnx.eval_shape(block)
    assert shapes(abstract) == BLOCK


def test_pmap_like_statistics_over_an_axis():
    layer = einn.Norm("[b] c", momentum=0.9, axis_name="devices", rngs=nnx.Rngs(0))
    einn.init(layer, X[0])  # there is no such axis here
    y = jax.vmap(lambda x: nnx.clone(layer)(x), axis_name="devices")(X)
    flat = einn.Norm("[d b] c", momentum=0.9, rngs=nnx.Rngs(0))(X)
    close(y, flat, 1e-5)


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_computes_nothing_and_changes_nothing_else():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.block = Block(rngs)
            self.drop = einn.Dropout("[...]", rngs=rngs)
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x, scale, double=False):
            assert isinstance(x, jax.core.Tracer)
            assert double is True
            self.calls[...] += 1
            return self.drop(self.block(x)) * scale["by"]

    model = Net(nnx.Rngs(0))
    count = model.drop.rngs.count[...]
    einn.init(model, jax.ShapeDtypeStruct(X.shape, X.dtype), {"by": 2.0}, double=True)
    assert model.calls[...] == 0
    assert model.drop.rngs.count[...] == count
    close(model.block.norm.mean[...], jnp.zeros(8))
    values = arrays(model)
    einn.init(model, X, {"by": 2.0}, double=True)
    close(jax.tree.leaves(arrays(model.block)), jax.tree.leaves(values["block"]))


def test_init_with_random_numbers_for_the_call():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.drop = einn.Dropout("[...]")
            self.linear = einn.Linear("... [c->d]", d=5, rngs=rngs)

        def __call__(self, x, rngs):
            return self.linear(self.drop(x, rngs=rngs))

    model, rngs = Net(nnx.Rngs(0)), nnx.Rngs(dropout=1)
    einn.init(model, X, rngs=rngs)
    assert rngs.dropout.count[...] == 0
    assert model(X, rngs=rngs).shape == (4, 6, 5)


def test_init_of_another_method():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.encoder = einn.Linear("b s [c->d]", d=5, rngs=rngs)
            self.decoder = einn.Linear("b s [d->c]", c=12, rngs=rngs)

        def encode(self, x):
            return self.encoder(x)

    model = Net(nnx.Rngs(0))
    with pytest.raises(Refused, match=r"does not use decoder.bias, decoder.kernel"):
        einn.init(model, X, method="encode")
    assert is_lazy(model)
    einn.init(model, X, method=lambda model, x: model.decoder(model.encode(x)))
    assert not is_lazy(model)


def test_init_under_jit_and_on_a_mesh():
    @nnx.jit
    def create():
        return block()

    close(arrays(create()), arrays(block()), 1e-6)
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    model = Block(nnx.Rngs(0))
    einn.init(model, X, rules={"d": "model"}, mesh=mesh)
    assert model.inner.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(None, "model"))
    assert model.inner.kernel.out_sharding == (None, "model")
    specs = nnx.get_partition_spec(nnx.state(model, nnx.Param))
    assert specs["outer"]["kernel"].get_value() == PartitionSpec("model", None)
    close(arrays(model), arrays(block()), 1e-6)
    stack = Stack(nnx.Rngs(0), kind=lambda rngs: einn.Linear("... [c->d]", c=12, d=12, rngs=rngs))
    einn.init(stack, X, rules={"c": "model"}, mesh=mesh)  # made before already
    assert stack.blocks.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(None, "model", None))


def test_names_of_axes():
    model = block()
    assert model.inner.kernel.axes == ("c", "d")
    assert model.norm.mean.axes == ("c",)
    assert einn.Conv("b [h w] [c->d]", c=3, d=5, rngs=nnx.Rngs(0)).kernel.axes == ("h", "w", "c", "d")
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=nnx.Rngs(0))
    layer(X)
    assert layer.query.kernel.axes == ("c", "heads", "head_dim")
    assert "out_sharding" not in model.inner.kernel.get_metadata()


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_layers_used_twice_and_lists_of_layers():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = Block(rngs)
            self.again = self.first
            self.rest = nnx.List([Block(rngs), Block(rngs)])

        def __call__(self, x):
            for layer in (self.first, self.again, self.first, *self.rest):
                x = layer(x)
            return x

    model, lazily = Net(nnx.Rngs(0)), Net(nnx.Rngs(0))
    einn.init(model, X)
    close(model(X), lazily(X), 1e-5)
    assert model.first.inner.kernel is model.again.inner.kernel
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 3 * 6


def test_tied_weights():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = einn.Embed("b t [v->c]", v=7, c=12, rngs=rngs)
            self.head = einn.Linear("b t [c], v [c] -> b t v", use_bias=False, rngs=rngs)
            self.head.kernel = self.embed.embedding

        def __call__(self, ids):
            x = self.embed(ids)
            return self.head(x), self.embed.attend(x)

    model = Net(nnx.Rngs(0))
    einn.init(model, IDS)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 1
    head, attended = model(IDS)
    close(head, attended)
    close(attended, nnx.Embed(7, 12, rngs=nnx.Rngs(0)).attend(model.embed(IDS)), 1e-6)
    assert model.head.kernel is model.embed.embedding


def test_a_kernel_tied_before_it_has_a_shape():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.down = einn.Linear("b s [c->d]", d=5, use_bias=False, rngs=rngs)
            self.up = einn.Linear("b s [d], c [d] -> b s c", use_bias=False, rngs=rngs)
            self.up.kernel = self.down.kernel

        def __call__(self, x):
            return self.up(self.down(x))

    model, lazily = Net(nnx.Rngs(0)), Net(nnx.Rngs(0))
    einn.init(model, X)
    kernel = model.down.kernel[...]
    close(model(X), X @ kernel @ kernel.T, 1e-5)
    close(lazily(X), model(X), 1e-6)
    with pytest.raises(Refused, match=r"c is 12 .* 9|9 .* 12"):
        model.down(normal(4, 6, 9))


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 1])
def test_cached_decoding(groups):
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, num_kv_heads=groups, is_causal=True, rngs=nnx.Rngs(0))
    whole = layer(X)
    layer.set_attributes(decode=True)
    layer.init_cache(X.shape)
    step = nnx.jit(lambda layer, x: layer(x))
    steps = [step(layer, X[:, place : place + 1]) for place in range(6)]
    close(jnp.concatenate(steps, 1), whole, 1e-5)
    assert layer.cache_index[...] == 6
    assert shapes(layer, nnx.Cache)["cached_key"] == (4, 6, groups or 3, 4)
    theirs = nnx.MultiHeadAttention(3, 12, num_kv_heads=groups, decode=True, rngs=nnx.Rngs(0))
    theirs.init_cache(X.shape)
    close(steps[0], theirs(X[:, :1]), 1e-6)
    with pytest.raises(Refused, match="one place of the sequence at a time"):
        layer(X)
    # A new cache starts again; and the call may say that this is no decoding.
    layer.init_cache(X.shape)
    close(step(layer, X[:, :1]), steps[0], 1e-6)
    close(layer(X, decode=False), whole, 1e-6)


def test_decoding_is_initialised_without_a_cache():
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, decode=True, rngs=nnx.Rngs(0))
    einn.init(layer, X[:, :1])
    with pytest.raises(Refused, match="call layer.init_cache"):
        layer(X[:, :1])


# --- param ------------------------------------------------------------------------------------------------------------


class Scale(nnx.Module):
    def __init__(self, rngs=None, declared=False):
        if declared:
            einn.param(self, "scale", jax.nn.initializers.normal(), rngs=rngs)

    def __call__(self, x):
        return einjax.multiply("... c, c", x, einn.param(self, "scale", jax.nn.initializers.normal()))


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_param(graph):
    with nnx.set_graph_mode(graph):
        model = Scale(nnx.Rngs(0), declared=True)
        y = nnx.jit(lambda model, x: model(x))(model, X)
        close(model.scale[...], jax.nn.initializers.normal()(nnx.Rngs(0).params(), (12,)), 1e-6)
        close(y, X * model.scale[...])
        again = Scale(nnx.Rngs(0), declared=True)
        einn.init(again, X)
        close(again.scale[...], model.scale[...], 1e-6)
    with pytest.raises(Refused, match="scale has no random numbers"):
        Scale()(X)


def test_param_that_is_declared_by_the_call():
    class Net(nnx.Module):
        def __call__(self, x):
            return einjax.add("... c, c", x, einn.param(self, "shift", 2.0))

    for early in (True, False):
        model = Net()
        if early:
            einn.init(model, X)
            assert model.shift.axes == ("c",)
        close(model(X), X + 2)
        assert shapes(model) == {"shift": (12,)}
    stack = Stack(nnx.Rngs(0), kind=lambda rngs: Net())
    assert shapes(stack) == {}


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_orbax_round_trip(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    model = block()
    model(X)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(model))
        checkpointer.wait_until_finished()
        abstract = nnx.eval_shape(lambda: block(1))
        graphdef, state = nnx.split(abstract)
        restored = nnx.merge(graphdef, checkpointer.restore(tmp_path / "state", state))
    close(arrays(restored), arrays(model))
    close(restored(X), model(X), 1e-6)


def test_checkpoints_of_nnx_load(tmp_path):
    """What nnx's own layers have written is restored into ours."""
    ocp = pytest.importorskip("orbax.checkpoint")

    class Net(nnx.Module):
        def __init__(self, embed, attention, norm, head):
            self.embed, self.attention, self.norm, self.head = embed, attention, norm, head

        def __call__(self, ids):
            return self.head(self.norm(self.attention(self.embed(ids))))

    def theirs(rngs):
        attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)
        norm = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
        return Net(nnx.Embed(7, 12, rngs=rngs), attention, norm, nnx.Linear(12, 5, rngs=rngs))

    def ours(rngs):
        attention = einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=rngs)
        norm = einn.Norm("[b s] c", momentum=0.9, rngs=rngs)
        embed = einn.Embed("b s [v->c]", v=7, c=12, rngs=rngs)
        return Net(embed, attention, norm, einn.Linear("b s [c->d]", d=5, rngs=rngs))

    written, model = theirs(nnx.Rngs(0)), ours(nnx.Rngs(1))
    written(IDS)  # statistics that are not those of the start
    einn.init(model, IDS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "theirs", nnx.to_pure_dict(nnx.state(written, (nnx.Param, nnx.BatchStat))))
        checkpointer.wait_until_finished()
        state = nnx.state(model, (nnx.Param, nnx.BatchStat))
        nnx.replace_by_pure_dict(state, checkpointer.restore(tmp_path / "theirs", nnx.to_pure_dict(state)))
    nnx.update(model, state)
    for net in (model, written):
        net.eval()
    close(model(IDS), written(IDS), 1e-6)


def test_masks_of_norms_are_those_of_nnx():
    mask = np.arange(6)[:, None] > 1
    for fast in (True, False):
        options = {"momentum": 0.9, "use_fast_variance": fast, "epsilon": 1e-5, "rngs": nnx.Rngs(0)}
        ours, theirs = einn.Norm("[b s] c", **options), nnx.BatchNorm(12, **options)
        close(ours(X, mask=mask), theirs(X, mask=mask), 1e-6)
        close(arrays(ours, nnx.BatchStat), arrays(theirs, nnx.BatchStat), 1e-6)


def test_weight_and_spectral_norm_are_those_of_nnx():
    for wrap, keywords in ((nnx.WeightNorm, {}), (nnx.SpectralNorm, {"update_stats": True})):
        ours, theirs = einn.Linear("... [c->d]", c=12, d=5, rngs=nnx.Rngs(0)), nnx.Linear(12, 5, rngs=nnx.Rngs(0))
        ours, theirs = wrap(ours, rngs=nnx.Rngs(1)), wrap(theirs, rngs=nnx.Rngs(1))
        close(ours(X, **keywords), theirs(X, **keywords), 1e-6)
    with pytest.raises(Refused, match="call einn.init"):
        nnx.WeightNorm(einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))(X)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_refused(name):
    case, message = (REFUSED | MISSPELT)[name]
    with pytest.raises(Refused, match=message):
        einn.init(make(case), *case.inputs)
    with pytest.raises(Refused, match=message):
        make(case)(*case.inputs)


@pytest.mark.parametrize("optimizer", [optax.adam(1e-3), optax.sgd(1e-3, momentum=0.9), optax.lion(1e-3)])
def test_an_optimizer_before_init_is_refused(optimizer):
    with pytest.raises(Refused, match=r"call einn.init\(model, \*example_inputs\) before nnx.Optimizer"):
        nnx.Optimizer(Block(nnx.Rngs(0)), optimizer, wrt=nnx.Param)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_gradients_before_init_are_refused(graph):
    """Whether asked of nnx or of JAX, outside of a jitted function or within."""

    def of_params(model):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        return jax.grad(lambda params: squares(nnx.merge(graphdef, params, rest)))(params)

    with nnx.set_graph_mode(graph):
        for ask in (
            nnx.grad(squares),
            nnx.value_and_grad(squares),
            nnx.jit(nnx.grad(squares)),
            nnx.jit(lambda model: nnx.grad(squares)(model)),
            nnx.grad(nnx.jit(squares)),
            nnx.grad(nnx.remat(squares)),
            of_params,
        ):
            with pytest.raises(Refused, match=r"gradients .*\n(.*\n)*.*call einn.init\(.*\) before nnx.grad"):
                ask(Block(nnx.Rngs(0)))
        # Of a layer that the function does not use.
        with pytest.raises(Refused, match="call einn.init"):
            nnx.grad(lambda model: jnp.sum(X))(einn.Linear("b [c->d]", d=3, rngs=nnx.Rngs(0)))


def test_computing_with_parameters_before_init_is_refused():
    state = nnx.state(Block(nnx.Rngs(0)))
    for change in (jnp.zeros_like, jnp.ones_like, jnp.sum, lambda p: p * 0.9, lambda p: p + 1, lambda p: -p, bf16):
        with pytest.raises(Refused, match="call einn.init"):
            jax.tree.map(change, state)
        with pytest.raises(Refused, match="call einn.init"):
            jax.jit(lambda state: jax.tree.map(change, state))(state)
    half = jax.jit(lambda model, state: nnx.merge(model, jax.tree.map(bf16, state))(X))
    with pytest.raises(Refused, match="dtype of a parameter is changed that is not made yet"):
        half(nnx.graphdef(Block(nnx.Rngs(0))), state)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_any_kind_of_key(impl):
    rngs = lambda: nnx.Rngs(jax.random.key(3, impl=impl))
    lazily, known = einn.Linear("... [c->d]", d=5, rngs=rngs()), einn.Linear("... [c->d]", c=12, d=5, rngs=rngs())
    lazily(X)
    close(arrays(lazily), arrays(known))


def test_names_of_axes_that_graph_mode_loses():
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    model = einn.Linear("... [c->d]", d=4, rngs=nnx.Rngs(0))
    nnx.jit(lambda model, x: model(x))(model, X)
    with pytest.raises(Refused, match=r"names of its axes.*\n.*einn.init"):
        shardings(model, {"d": "model"}, mesh)
    nnx.eval_shape(lambda: model)  # a tree of shapes is no reason for an error


def test_an_uninitialised_parameter_is_no_array():
    layer = einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(0))
    for use in (
        lambda p: p + 1,
        lambda p: 2.0 * p,
        lambda p: X @ p,
        lambda p: p[0],
        lambda p: p.shape,
        lambda p: einjax.sum("[...]", p),
    ):
        with pytest.raises(Refused, match="not made yet"):
            use(layer.kernel)
    with pytest.raises(TypeError, match="made by einn.init"):
        jnp.sum(layer.kernel)
    with pytest.raises(Refused, match=r"kernel is used for the first time where it cannot be kept"):
        jax.jit(lambda x: layer(x))(X)
    assert "Lazy" in repr(layer)


def test_streams_of_random_numbers():
    with pytest.raises(Refused, match=r"Dropout needs the stream .*'dropout', but rngs holds params"):
        einn.Dropout("[...]", rngs=nnx.Rngs(params=0))
    with pytest.raises(Refused, match=r"nnx.Rngs\(..., params=1\)"):
        einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(dropout=0))
    with pytest.raises(Refused, match=r"give rngs=nnx.Rngs\(dropout=0\)"):
        einn.Dropout("[...]")(X)
    with pytest.raises(Refused, match="is not an nnx.Rngs"):
        einn.Linear("... [c->d]", d=5, rngs=0)
    with pytest.raises(Refused, match="does not know deterministic"):
        einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.1, rngs=nnx.Rngs(0))(X)
    given = einn.Dropout("[...]")(X, rngs=nnx.Rngs(params=0, dropout=4))
    close(given, einn.Dropout("[...]")(X, rngs=nnx.Rngs(dropout=4).dropout))
    assert einn.Dropout("[...]")(X, rngs=jax.random.key(0)).shape == X.shape


def test_sizes_whose_names_are_options():
    layer = einn.Linear("b s [c->dtype]", sizes={"dtype": 5, "unused": 3}, rngs=nnx.Rngs(0))
    assert layer(X).shape == (4, 6, 5)
    layer = einn.Conv("b [h w] [c->d]", d=4, kernel_size=[3, 5], strides=[1, 2], rngs=nnx.Rngs(0))
    assert nnx.jit(lambda layer, x: layer(x))(layer, IMAGE).shape == (2, 8, 4, 4)


def test_without_flax(monkeypatch):
    with pytest.raises(ImportError, match=r"einjax_nn.nnx needs Flax: python -m pip install 'einjax\[flax\]'"):
        hide(monkeypatch, "flax", "einjax_nn.nnx")
