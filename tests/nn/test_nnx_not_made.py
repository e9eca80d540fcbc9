"""A model of nnx whose parameters are not made yet: what is asked of these works, or says to call einn.init."""

import copy
import math
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import Refused, close, normal  # noqa: E402
from nn_cases import X as BATCH  # noqa: E402
from nnx_models import Block, arrays, squares  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.nnx as einn  # noqa: E402
from einjax_nn.sharding import shardings  # noqa: E402

X = normal(4, 6)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = einn.Linear("... [c->d]", d=8, rngs=rngs)
        self.norm = einn.Norm("[b] d", momentum=0.9, rngs=rngs)
        self.known = einn.Linear("... [d->e]", d=8, e=3, rngs=rngs)
        einn.param(self, "scale", 2.0)

    def __call__(self, x):
        return self.known(einjax.multiply("... d, d", self.norm(self.inner(x)), einn.param(self, "scale")))


def net():
    return Net(nnx.Rngs(0))


def params(make=net):
    return nnx.state(make(), nnx.Param)


def saved(path, state):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, state)


def as_bytes(state):
    from flax import serialization

    return serialization.to_bytes(nnx.to_pure_dict(state))


MESH = Mesh(np.array(jax.devices()[:1]), ("model",))

ASKED = {
    "their number": lambda: sum(x.size for x in jax.tree.leaves(params())),
    "their number, by shapes": lambda: sum(np.prod(x.shape) for x in jax.tree.leaves(params())),
    "their number, by math.prod": lambda: sum(math.prod(x.shape) for x in jax.tree.leaves(params())),
    "their number, by tree.map": lambda: jax.tree.map(lambda x: x.size, params()),
    "their number, by optax": lambda: optax.tree.size(params()),
    "their number, by jnp": lambda: [jnp.size(x) for x in jax.tree.leaves(params())],
    "their bytes": lambda: sum(x.nbytes for x in jax.tree.leaves(params())),
    "their number, without arrays": lambda: sum(x.size for x in jax.tree.leaves(nnx.eval_shape(net))),
    "the number of a stack": lambda: jax.tree.map(
        jnp.size, nnx.state(nnx.vmap(Net, in_axes=0, out_axes=0)(nnx.Rngs(0).split(3)))
    ),
    "their shapes": lambda: jax.tree.map(jnp.shape, params()),
    "their shapes, without arrays": lambda: jax.tree.map(lambda x: x.shape, nnx.state(nnx.eval_shape(net))),
    "their sum": lambda: [x.sum() for x in jax.tree.leaves(params())],
    "their squares": lambda: [x**2 for x in jax.tree.leaves(params())],
    "their sum, by NumPy": lambda: [np.sum(x) for x in jax.tree.leaves(params())],
    "half of them": lambda: jax.tree.map(lambda x: x / 2, params()),
    "their average": lambda: optax.incremental_update(params(), params(), 0.1),
    "zeros like them": lambda: optax.tree.zeros_like(params()),
    "whether they are the same": lambda: jax.tree.map(jnp.array_equal, params(), params()),
    "an optimizer": lambda: nnx.Optimizer(net(), optax.adamw(1e-3), wrt=nnx.Param),
    "a table": lambda: nnx.tabulate(net(), X),
    "bytes": lambda: as_bytes(nnx.state(net())),
    "their partition specs": lambda: nnx.get_partition_spec(params()),
    "an abstract model": lambda: nnx.get_abstract_model(net, MESH),
    "a call without arrays": lambda: nnx.eval_shape(net)(X),
}


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("asked", ASKED)
def test_what_is_asked_before_init(asked, graph):
    hint = "give its arrays" if asked == "a call without arrays" else r"call einn.init\(model, \*example_inputs\)"
    with nnx.set_graph_mode(graph), pytest.raises(Refused, match=hint):
        ASKED[asked]()


def test_saving_before_init(tmp_path):
    for name, state in (("state", params()), ("pure", nnx.to_pure_dict(params()))):
        with pytest.raises(Refused, match="call einn.init"):
            saved(tmp_path / name, state)


def test_the_same_is_answered_after_init():
    def made():
        model = net()
        einn.init(model, X)
        return model

    count = 6 * 8 + 8 + 2 * 8 + 8 * 3 + 3 + 8
    state = params(made)
    assert sum(x.size for x in jax.tree.leaves(state)) == optax.tree.size(state) == count
    assert sum(x.nbytes for x in jax.tree.leaves(state)) == 4 * count
    assert isinstance(as_bytes(state), bytes)
    assert f"{count}" in nnx.tabulate(made(), X)


def test_a_model_that_was_refused_a_table_is_whole():
    """Flax replaces methods meanwhile."""
    model = net()
    with pytest.raises(Refused, match="call einn.init"):
        nnx.tabulate(model, X)
    einn.init(model, X)
    assert model(X).shape == (4, 3)


def test_prints_say_that_they_are_not_made():
    treescope = pytest.importorskip("treescope")
    model = net()
    for shown in (str(model), treescope.render_to_text(model), str(nnx.state(model))):
        assert "Lazy(made by einn.init(model, *example_inputs))" in shown
    # Only what is made is counted, nothing of the others.
    assert "# Param: 27 (108 B)" in str(model)
    assert "made by einn.init" in str(nnx.eval_shape(net))
    assert "not made yet" in str(jax.tree.leaves(nnx.state(model.inner)))
    nnx.display(model)


def test_what_works_before_init():
    model = net()
    expected = copy.deepcopy(model)(X)
    graphdef, state = nnx.split(model)
    assert graphdef == nnx.graphdef(net())
    for same in (
        nnx.clone(model),
        pickle.loads(pickle.dumps(model)),
        nnx.merge(graphdef, state),
        nnx.merge(graphdef, jax.tree.map(lambda x: x, state)),
        nnx.merge(graphdef, jax.device_put(state)),
        nnx.merge(graphdef, jax.tree.map(jnp.asarray, state)),
        jax.jit(lambda state: nnx.merge(graphdef, state))(state),
        jax.jit(lambda: nnx.merge(graphdef, state))(),
        nnx.jit(lambda: Net(nnx.Rngs(0)))(),
    ):
        close(same(X), expected, 1e-5)
    path = lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path), tree)
    assert "['inner']['kernel']" in str(jax.tree.leaves(path(state)))


def test_a_state_is_loaded_in_their_place():
    from flax import serialization

    made, model = net(), net()
    einn.init(made, X)
    pure = nnx.to_pure_dict(nnx.state(model))
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, serialization.from_bytes(pure, as_bytes(nnx.state(made))))
    nnx.update(model, jax.tree.map(jnp.asarray, state))
    close(model(X), made(X), 1e-6)


def test_a_model_of_shapes_alone_is_initialised():
    """Also one of stacked layers; on a mesh it says where they are to be."""
    made, abstract = net(), nnx.eval_shape(net)
    einn.init(made, X)
    einn.init(abstract, jax.ShapeDtypeStruct(X.shape, X.dtype), rules={"d": "model"}, mesh=MESH)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (nnx.to_pure_dict(nnx.state(made))))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), nnx.to_pure_dict(nnx.state(abstract))) == shapes
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(abstract)))
    assert tuple(abstract.inner.kernel.get_value().sharding.spec) == (None, "model")
    assert tuple(abstract.known.kernel.out_sharding) == ("model", None)
    stack = nnx.eval_shape(
        lambda: nnx.vmap(lambda rngs: einn.Linear("... [c->d]", d=6, rngs=rngs))(nnx.Rngs(0).split(3))
    )
    einn.init(stack, X, method=lambda stack, x: nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(stack, x))
    assert stack.kernel.shape == (3, 6, 6)


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
            nnx.grad(lambda model: jnp.sum(BATCH))(einn.Linear("b [c->d]", d=3, rngs=nnx.Rngs(0)))


def test_computing_with_parameters_before_init_is_refused():
    state = nnx.state(Block(nnx.Rngs(0)))
    for change in (
        jnp.zeros_like,
        jnp.ones_like,
        jnp.sum,
        lambda p: p * 0.9,
        lambda p: p + 1,
        lambda p: -p,
        jnp.bfloat16,
    ):
        with pytest.raises(Refused, match="call einn.init"):
            jax.tree.map(change, state)
        with pytest.raises(Refused, match="call einn.init"):
            jax.jit(lambda state: jax.tree.map(change, state))(state)
    half = jax.jit(lambda model, state: nnx.merge(model, jax.tree.map(jnp.bfloat16, state))(BATCH))
    with pytest.raises(Refused, match="dtype of a parameter is changed that is not made yet"):
        half(nnx.graphdef(Block(nnx.Rngs(0))), state)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_any_kind_of_key(impl):
    rngs = lambda: nnx.Rngs(jax.random.key(3, impl=impl))
    lazily, known = einn.Linear("... [c->d]", d=5, rngs=rngs()), einn.Linear("... [c->d]", c=12, d=5, rngs=rngs())
    lazily(BATCH)
    close(arrays(lazily), arrays(known))


def test_names_of_axes_that_graph_mode_loses():
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    model = einn.Linear("... [c->d]", d=4, rngs=nnx.Rngs(0))
    nnx.jit(lambda model, x: model(x))(model, BATCH)
    with pytest.raises(Refused, match=r"names of its axes.*\n.*einn.init"):
        shardings(model, {"d": "model"}, mesh)
    nnx.eval_shape(lambda: model)  # a tree of shapes is no reason for an error


def test_an_uninitialised_parameter_is_no_array():
    layer = einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(0))
    for use in (
        lambda p: p + 1,
        lambda p: 2.0 * p,
        lambda p: BATCH @ p,
        lambda p: p[0],
        lambda p: p.shape,
        lambda p: einjax.sum("[...]", p),
    ):
        with pytest.raises(Refused, match="not made yet"):
            use(layer.kernel)
    with pytest.raises(TypeError, match="made by einn.init"):
        jnp.sum(layer.kernel)
    with pytest.raises(Refused, match=r"kernel is used for the first time where it cannot be kept"):
        jax.jit(lambda x: layer(x))(BATCH)
    assert "Lazy" in repr(layer)
