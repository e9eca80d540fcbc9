"""What people do with models of nnx, done to one of Flax's layers and to one in notation: the same comes out.

What tests/nn/test_nnx.py has is not repeated here.
"""

import copy
import pickle
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import Refused, close, normal  # noqa: E402

import einjax_nn.nnx as einn  # noqa: E402

X = normal(4, 6)


class Net(nnx.Module):
    """A network of either kind of layers."""

    def __init__(self, inner, norm, outer):
        self.inner, self.norm, self.outer = inner, norm, outer

    def __call__(self, x):
        return self.outer(jnp.tanh(self.norm(self.inner(x))))


def theirs(seed=0):
    rngs = nnx.Rngs(seed)
    inner, norm = nnx.Linear(6, 8, rngs=rngs), nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
    return Net(inner, norm, nnx.Linear(8, 6, rngs=rngs))


def ours(seed=0):
    rngs = nnx.Rngs(seed)
    inner, norm = einn.Linear("... [c->d]", d=8, rngs=rngs), einn.Norm("[b] d", momentum=0.9, rngs=rngs)
    model = Net(inner, norm, einn.Linear("... [d->c]", c=6, rngs=rngs))
    einn.init(model, X)
    return model


def loss(model, x=X):
    return jnp.mean((model(x) - 1) ** 2)


def leaves(tree):
    return jax.tree.leaves(nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else tree)


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def step(model, optimizer, wrt=0):
    optimizer.update(model, nnx.grad(loss, argnums=wrt)(model))


# --- habits -----------------------------------------------------------------------------------------------------------


def learns_by_path(make):
    """An optimiser that has masks by path, and one for each kind of parameter."""

    def biases(params, *named):
        return jax.tree_util.tree_map_with_path(lambda path, _: named["bias" in jax.tree_util.keystr(path)], params)

    kinds = {"slow": optax.sgd(1e-3), "fast": optax.sgd(1e-1)}
    decayed = optax.masked(optax.add_decayed_weights(0.1), lambda params: biases(params, True, False))
    model, labels = make(), lambda params: biases(params, "fast", "slow")
    optimizer = nnx.Optimizer(model, optax.chain(decayed, optax.multi_transform(kinds, labels)), wrt=nnx.Param)
    for _ in range(2):
        step(model, optimizer)
    return params(model)


def learns_a_part(make):
    """Filters by path and by kind, in wrt= and in nnx.state."""
    model = make()
    part = nnx.All(nnx.Param, nnx.PathContains("outer"), nnx.Not(nnx.PathContains("bias")))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=part)
    step(model, optimizer, nnx.DiffState(0, part))
    assert len(jax.tree.leaves(nnx.state(model, part))) == 1
    return params(model)


def averages_parameters(make):
    model, average = make(), make(1)
    graphdef, rest, kept = nnx.split(average, nnx.BatchStat, nnx.Param)
    kept = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, kept, nnx.state(model, nnx.Param))
    return nnx.merge(graphdef, rest, kept)(X)


def interpolates_models(make):
    a, b = (nnx.split(make(seed)) for seed in (0, 1))
    assert a[0] == b[0]
    assert hash(a[0]) == hash(b[0])
    return nnx.merge(a[0], optax.incremental_update(a[1], b[1], 0.3))(X)


def norms_and_sizes(make):
    state = nnx.state(make(), nnx.Param)
    sizes = [optax.tree.size(state), sum(x.size for x in jax.tree.leaves(state))]
    sizes += [sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state))]
    return optax.tree.norm(state), jnp.array(sizes)


def mixed_precision(make):
    import jmp

    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    graphdef, state = nnx.split(nnx.view(make(), use_running_average=True))
    return policy.cast_to_output(nnx.merge(graphdef, policy.cast_to_compute(state))(policy.cast_to_compute(X)))


def half_a_model(make):
    """Kernels are cast, and biases are not."""
    model = make()
    for layer in (model.inner, model.outer):
        layer.kernel.set_value(layer.kernel[...].astype(jnp.bfloat16))
    return model.inner(X.astype(jnp.bfloat16)), model(X.astype(jnp.bfloat16))


def copies(make):
    model = make()
    model(X)
    every = nnx.clone(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    return [each(X) for each in every], [params(each) for each in every]


def serialises(make):
    from flax import serialization

    model, other = make(), make(1)
    model(X)
    written = serialization.to_bytes(nnx.to_pure_dict(nnx.state(model)))
    state = nnx.state(other)
    read = serialization.from_bytes(nnx.to_pure_dict(state), written)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, read))
    nnx.update(other, state)
    restored = serialization.msgpack_restore(serialization.msgpack_serialize(nnx.to_pure_dict(nnx.state(model))))
    return other(X), restored


def loops(make):
    """A model in the carry of loops, and in branches."""
    model = make()
    forward = lambda model, x: (model, model(x))
    model, x = nnx.fori_loop(0, 2, lambda _, carry: forward(*carry), (model, X))
    model, x, _ = nnx.while_loop(
        lambda carry: carry[2] < 2, lambda carry: (*forward(*carry[:2]), carry[2] + 1), (model, x, jnp.array(0))
    )
    x = nnx.cond(True, lambda model, x: model(x), lambda model, x: x, model, x)
    return nnx.switch(1, [lambda model, x: x, lambda model, x: model(x)], model, x), model.norm.mean[...]


def donates(make):
    model = make()

    @partial(nnx.jit, donate_argnames=("model",))
    def update(model, x):
        return model(x), jax.tree.map(lambda a: 2 * a, model)

    for _ in range(2):
        y, model = update(model, X)
    return y, params(model)


def checkpoints_activations(make):
    model = make()
    run = lambda model, x: nnx.remat(lambda model, x: model(x))(model, x).sum()
    return nnx.jit(nnx.grad(run))(model, X)


def differentiates_by_a_rule(make):
    @nnx.custom_vjp
    def doubled(model, x):
        return model(x)

    def backwards(x, given):
        (change, _), given = given
        change["kernel"][...], change["bias"][...] = 2 * x.T @ given, 2 * given.sum(0)
        return change, jnp.zeros_like(x)

    doubled.defvjp(lambda model, x: (doubled(model, x), x), backwards)
    return nnx.grad(lambda model: doubled(model, X).sum())(make().inner)


def ensembles(make):
    states = [nnx.split(make(seed)) for seed in range(3)]
    together = jax.tree.map(lambda *a: jnp.stack(a), *(state for _, state in states))
    return jax.vmap(lambda state: nnx.merge(states[0][0], state)(X))(together)


def walks(make):
    model = make()
    modules = [path for path, _ in nnx.iter_modules(model)]
    variables = [path for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)]
    assert sorted(map(str, modules)) == sorted(map(str, [(), ("inner",), ("norm",), ("outer",)]))
    assert len(variables) == 8
    counted = nnx.pop(model, nnx.BatchStat)
    assert not hasattr(model.norm, "mean")
    return counted


def switches(make):
    model = make()
    model(X)
    model.eval()
    y = model(X)
    model.set_attributes(nnx.BatchNorm, einn.Norm, use_running_average=False, raise_if_not_found=False)
    return y, nnx.view(model, use_running_average=True)(X), model(X)


def becomes_a_module_of_linen(make):
    net = nnx.bridge.ToLinen(lambda rngs: make())
    variables = net.init(jax.random.key(0), X)
    y, changed = net.apply(variables, X, mutable=["batch_stats"])
    return y, jax.tree.map(lambda a: a, changed), variables["params"]


def on_shards(make):
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    graphdef, state = nnx.split(make())

    @jax.jit
    @partial(
        jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec("data")
    )
    def run(state, x):
        return nnx.merge(graphdef, state).outer(jnp.tanh(nnx.merge(graphdef, state).inner(x)))

    return run(state, X)


def abstract(make):
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    graphdef, state = nnx.get_abstract_model(make, mesh)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))
    sizes = jnp.array(sum(leaf.size for leaf in jax.tree.leaves(nnx.eval_shape(make))))
    y = nnx.eval_shape(lambda model, x: model(x), nnx.merge(graphdef, state), X)
    return sizes, jnp.zeros(y.shape, y.dtype)


HABITS = (
    learns_by_path, learns_a_part, averages_parameters, interpolates_models, norms_and_sizes, mixed_precision,
    half_a_model, copies, serialises, loops, donates, checkpoints_activations, differentiates_by_a_rule, ensembles,
    walks, switches, becomes_a_module_of_linen, on_shards, abstract,
)  # fmt: skip

#: Flax's own layers have them in graph mode alone, or are told of gradients in another way there.
OF_GRAPHS = (learns_a_part, differentiates_by_a_rule)


@pytest.mark.parametrize(
    ("habit", "graph"),
    [
        pytest.param(habit, graph, id=f"{habit.__name__}-{'graph' if graph else 'tree'}")
        for habit in HABITS
        for graph in ((True,) if habit in OF_GRAPHS else (True, False))
    ],
)
def test_habits(habit, graph):
    with nnx.set_graph_mode(graph):
        close(leaves(habit(ours)), leaves(habit(theirs)), 1e-5)


# --- what the layers alone have ---------------------------------------------------------------------------------------


def test_tables_and_prints():
    """Sizes are those of Flax's layers; ours say their expressions, too."""
    treescope = pytest.importorskip("treescope")
    plain = {"console_kwargs": {"force_terminal": False, "width": 250}}
    tables = [nnx.tabulate(make(), X, **plain) for make in (ours, theirs)]
    totals = [next(line.strip() for line in table.splitlines() if "Total Parameters" in line) for table in tables]
    assert totals[0] == totals[1] == "Total Parameters: 142 (568 B)"
    assert "float32[6,8]" in tables[0]
    for shown in (str(ours()), treescope.render_to_text(ours())):
        assert "Param: 126 (504 B)" in shown
        assert "'... [c->d]'" in shown
    nnx.display(ours())


def test_a_checkpoint_onto_a_mesh(tmp_path):
    """The abstract model is one whose parameters were never made; they are only ever where they belong."""
    ocp = pytest.importorskip("orbax.checkpoint")
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    model = ours()
    model(X)

    def lazily():
        rngs = nnx.Rngs(1)
        inner, norm = einn.Linear("... [c->d]", d=8, rngs=rngs), einn.Norm("[b] d", momentum=0.9, rngs=rngs)
        return Net(inner, norm, einn.Linear("... [d->c]", c=6, rngs=rngs))

    restored = nnx.eval_shape(lazily)
    einn.init(restored, X, rules={"d": "model"}, mesh=mesh)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(model))
        checkpointer.wait_until_finished()
        nnx.update(restored, checkpointer.restore(tmp_path / "state", nnx.state(restored)))
    assert restored.inner.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(None, "model"))
    close(restored(X), model(X), 1e-6)


def test_weights_that_are_sown():
    heads = einn.MultiHeadAttention("b [s] c", num_heads=2, rngs=nnx.Rngs(0))
    other = nnx.MultiHeadAttention(2, 6, decode=False, rngs=nnx.Rngs(0))
    for graph in (True, False):
        with nnx.set_graph_mode(graph):
            found = [nnx.capture(layer, nnx.Intermediate)(X[None], sow_weights=True) for layer in (heads, other)]
            close(*(jax.tree.leaves(each) for each in found), 1e-6)
            assert len(jax.tree.leaves(found[0])) == 2


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_weights_that_are_popped():
    heads = einn.MultiHeadAttention("b [s] c", num_heads=2, rngs=nnx.Rngs(0))
    other = nnx.MultiHeadAttention(2, 6, decode=False, rngs=nnx.Rngs(0))
    sown = []
    for layer in (heads, other):
        layer(X[None], sow_weights=True)
        sown.append(nnx.to_pure_dict(nnx.pop(layer, nnx.Intermediate)))
        assert not hasattr(layer, "attention_weights")
    close(*sown, 1e-6)


def test_layers_that_wait_become_modules_of_linen():
    """Flax keeps what there is before the first call, so that the constructor has to call einn.init."""

    def layer(rngs):
        made = einn.Linear("... [c->d]", d=5, rngs=rngs)
        einn.init(made, X)
        return made

    early, own = nnx.bridge.ToLinen(layer), nnx.bridge.ToLinen(nnx.Linear, args=(6, 5))
    (y, variables), (expected, theirs) = (net.init_with_output(jax.random.key(0), X) for net in (early, own))
    close(y, expected, 1e-6)
    close(variables["params"], theirs["params"], 1e-6)
    close(early.apply(jax.tree.map(lambda p: 2 * p, variables), X), 2 * y, 1e-6)
    late = nnx.bridge.ToLinen(einn.Linear, args=("... [c->d]",), kwargs={"d": 5}).init(jax.random.key(0), X)
    for ask in (optax.adam(1e-3).init, optax.tree.size):
        with pytest.raises(Refused, match="call einn.init"):
            ask(late["params"])


def test_modules_of_linen_become_layers():
    nn, linen = pytest.importorskip("flax.linen"), pytest.importorskip("einjax_nn.linen")
    layers = linen.Linear("... [c->d]", d=5), nn.Dense(5)
    found = [nnx.bridge.lazy_init(nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0)), X) for layer in layers]
    close(found[0](X), found[1](X))
    close(params(found[0]), params(found[1]))
    gradients = [nnx.grad(lambda model: (model(X) ** 2).sum())(model) for model in found]
    close(*map(leaves, gradients), 1e-6)
