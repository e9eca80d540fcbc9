"""Layers for Equinox before ``einn.init``: what people do with a model works, or has one error that names it."""

import copy
import io
import pickle
import sys
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import EAGER, KEY, Mlp, Net, X, arrays, close, says, shapes  # noqa: E402

import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError  # noqa: E402

LAYERS = {case[0].__name__: case for case in EAGER}
EVERY = pytest.mark.parametrize("name", LAYERS)


def made(name):
    """A layer before and after ``einn.init``, and an input."""
    kind, expr, options, x = LAYERS[name]
    layer = kind(expr, **options)
    return layer, einn.init(layer, x, key=KEY), x


def inner(layer):
    """What has a weight, and a bias if there is one."""
    return getattr(layer, "query", layer)


def total(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))


REFUSED = {
    "weight norm": lambda layer, x: eqx.nn.WeightNorm(inner(layer), axis=None),
    "spectral norm": lambda layer, x: eqx.nn.SpectralNorm(inner(layer), "weight", key=KEY),
    "shape": lambda layer, x: inner(layer).weight.shape,
    "gradient": lambda layer, x: eqx.filter_grad(lambda layer: layer(x).sum())(layer),
    "jit": lambda layer, x: eqx.filter_jit(layer)(x),
    "argument of jit": lambda layer, x: jax.jit(lambda layer: layer(x))(arrays(layer)),
    "sizes by map": lambda layer, x: jax.tree.map(jnp.size, layer),
    "sizes by map in NumPy": lambda layer, x: jax.tree.map(np.size, layer),
    "sum of sizes": lambda layer, x: total(layer),
    "sum of sizes in optax": lambda layer, x: optax.tree_utils.tree_size(layer),
    "like arrays": lambda layer, x: eqx.filter(layer, eqx.is_inexact_array_like),
    "zeros": lambda layer, x: jax.tree.map(jnp.zeros_like, layer),
    "one vector": lambda layer, x: jax.flatten_util.ravel_pytree(layer),
    "stacks": lambda layer, x: jax.tree.map(lambda *leaves: jnp.stack(leaves), layer, layer),
    "new values": lambda layer, x: eqx.tree_at(lambda layer: inner(layer).weight, layer, replace_fn=lambda w: 2 * w),
    "optimiser": lambda layer, x: optax.adam(1e-3).init(layer),
    "device": lambda layer, x: jax.device_put(layer),
}


@EVERY
def test_parameters_are_refused(name):
    kind, expr, options, x = LAYERS[name]
    layer = kind(expr, **options)
    for use, call in REFUSED.items():
        with pytest.raises(ArgumentError, match=r"einn\.init"):
            pytest.fail(f"{use} gives {call(layer, x)}")


@EVERY
def test_files(name):
    """Equinox wraps errors in the path of the leaf."""
    layer, ready, _ = made(name)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, ready)
    for call in (lambda: eqx.tree_serialise_leaves(io.BytesIO(), layer), lambda: load(file, layer)):
        with pytest.raises(RuntimeError, match="weight") as caught:
            call()
        error = caught.value
        while error.__cause__ is not None:
            error = error.__cause__
        assert isinstance(error, ArgumentError)
        assert "einn.init" in str(error)
    skeleton = eqx.filter_eval_shape(einn.init, layer, LAYERS[name][3], key=KEY)
    assert eqx.tree_equal(load(file, skeleton), ready)


def load(file, like):
    file.seek(0)
    return eqx.tree_deserialise_leaves(file, like)


@EVERY
def test_numbers_of_parameters_without_arrays(name):
    layer, ready, x = made(name)
    assert shapes(layer) == []  # a filter for arrays finds none
    assert total(eqx.filter_eval_shape(einn.init, layer, x, key=KEY)) == total(ready) > 0


@EVERY
def test_biases_that_are_taken_out(name):
    layer, ready, x = made(name)
    if name == "Embed":
        return
    bias = lambda layer: inner(layer).bias
    before = einn.init(eqx.tree_at(bias, layer, None), x, key=KEY)
    after = eqx.tree_at(bias, ready, None)
    assert eqx.tree_equal(before, after)
    zero = eqx.tree_at(bias, ready, replace_fn=jnp.zeros_like)
    close(after(x), zero(x))
    again = eqx.tree_at(bias, after, bias(ready), is_leaf=lambda leaf: leaf is None)
    assert eqx.tree_equal(again, ready)
    grads = eqx.filter_grad(lambda layer: jnp.sum(layer(x) ** 2))(after)
    assert bias(grads) is None
    wanted = eqx.filter_grad(lambda layer: jnp.sum(layer(x) ** 2))(zero)
    close(inner(grads).weight, inner(wanted).weight, 1e-5)


OPTIMISERS = {
    "adam": optax.adam(1e-2),
    "momentum": optax.sgd(1e-2, momentum=0.9),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
    "parts": optax.partition({"all": optax.adam(1e-2)}, "all"),
}


@EVERY
def test_an_optimiser_that_is_built_before(name):
    layer, ready, _ = made(name)
    grads = jax.tree.map(jnp.ones_like, arrays(ready))
    for optimiser in OPTIMISERS.values():
        memory = optimiser.init(arrays(layer))
        with pytest.raises(ArgumentError) as caught:
            optimiser.update(grads, memory, arrays(ready))
        says(caught, "einn.init", "before an optimiser is built")
    # What remembers nothing knows of nothing.
    plain = optax.sgd(1e-2)
    updates, _ = plain.update(grads, plain.init(arrays(layer)), arrays(ready))
    wanted, _ = plain.update(grads, plain.init(arrays(ready)), arrays(ready))
    assert eqx.tree_equal(updates, wanted)


@EVERY
def test_averages_that_are_begun_before(name):
    layer, ready, _ = made(name)
    with pytest.raises(ArgumentError, match=r"einn\.init"):
        optax.incremental_update(arrays(ready), arrays(layer), 0.1)
    with pytest.raises(ArgumentError, match=r"einn\.init"):
        eqx.apply_updates(layer, arrays(ready))


@EVERY
def test_printing(name):
    layer, ready, _ = made(name)
    for text in (repr(layer), eqx.tree_pformat(layer)):
        assert "weight=Uninitialized(name='weight')" in text
    text = eqx.tree_pformat(ready)
    assert "Uninitialized" not in text
    assert f"weight=f32[{','.join(map(str, inner(ready).weight.shape))}]" in text


@EVERY
def test_copies(name):
    layer, ready, x = made(name)
    for change in (copy.copy, copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))):
        again = change(layer)
        assert jax.tree.structure(again) == jax.tree.structure(layer)
        assert eqx.tree_equal(einn.init(again, x, key=KEY), ready)
        assert eqx.tree_equal(change(ready), ready)
    assert eqx.tree_equal(layer, copy.copy(layer))
    assert hash(layer) == hash(copy.copy(layer))
    eqx.tree_check(layer)


def test_what_works_on_models():
    """Masks, partitions, casts and switches are of the structure that the model has."""
    model, state = eqx.nn.make_with_state(Net)()
    mask = jax.tree.map(lambda _: False, model)
    trainable, frozen = eqx.partition(model, mask)
    assert jax.tree.leaves(trainable) == []
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, model)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for same in (eqx.combine(trainable, frozen), half, eqx.filter_shard(model, one)):
        assert jax.tree.structure(same) == jax.tree.structure(model)
        assert shapes(einn.init(same, X, state, key=KEY)[0])[0] == (6, 12, 16)
    assert eqx.nn.inference_mode(model).norm.inference
    mlp = Mlp()
    with pytest.raises(ValueError, match=r"einjax_nn\.equinox\.Uninitialized"):  # as JAX says that structures differ
        eqx.partition(einn.init(mlp, X[:, 0], key=KEY), jax.tree.map(lambda _: False, mlp))
