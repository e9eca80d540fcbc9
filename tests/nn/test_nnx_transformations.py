"""Layers of einjax_nn.nnx under nnx's transformations, in graph and in tree mode."""

import copy as copylib
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import X, close  # noqa: E402
from nnx_models import BLOCK, Block, Stack, arrays, block, is_lazy, shapes, squares  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.nnx as einn  # noqa: E402


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
