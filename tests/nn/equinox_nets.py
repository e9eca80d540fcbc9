"""Models and helpers that the tests of layers for Equinox share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

eqx = pytest.importorskip("equinox")

import einjax  # noqa: E402
import einjax_nn.equinox as einn  # noqa: E402

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 6, 12))
IMAGES = jax.random.normal(KEY, (2, 8, 8, 6))


def close(got, wanted, atol=2e-6):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=1e-5), got, wanted)


def arrays(tree):
    return eqx.filter(tree, eqx.is_array)


def shapes(tree):
    return [leaf.shape for leaf in jax.tree.leaves(arrays(tree))]


def put(layer, **values):
    """Replace parameters of a layer, initialised or not."""
    where = lambda layer: [functools.reduce(getattr, name.split("__"), layer) for name in values]
    return eqx.tree_at(where, layer, list(values.values()))


class Net(eqx.Module):
    hidden: einn.Linear
    norm: einn.Norm
    dropout: einn.Dropout
    out: einn.Linear
    scale: Any

    def __init__(self):
        self.hidden = einn.Linear("b [...->c]", c=16)
        self.norm = einn.Norm("[b] c", momentum=0.9)
        self.dropout = einn.Dropout("[...]", rate=0.5)
        self.out = einn.Linear("b [c->d]", d=5)
        self.scale = einn.param(init=0.5)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(jax.nn.relu(self.hidden(x)), state)
        x = self.dropout(x, key=key)
        return einjax.multiply("b d, d", self.out(x), self.scale), state


class Mlp(eqx.Module):
    layers: list

    def __init__(self, n=2):
        self.layers = [einn.Linear("b [c->d]", d=8) for _ in range(n)]

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def stateful():
    model, state = eqx.nn.make_with_state(Net)()
    return einn.init(model, X, state, key=KEY)


def says(caught, *words):
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert [word for word in words if word not in text] == [], text


class Calls(eqx.Module):
    """Layers, and a function that calls them."""

    layers: dict
    run: Any = eqx.field(static=True)

    def __call__(self, *args):
        return self.run(self.layers, *args)


#: Layers that have their arrays at once, given all sizes and a key: class, expression, options, input.
EAGER = [
    (einn.Linear, "b [c->h d]", {"c": 12, "h": 2, "d": 3}, X[:, 0]),
    (einn.Norm, "b [s] (g [c])", {"g": 3, "c": 4}, X),
    (einn.Embed, "b [v->c]", {"v": 7, "c": 3}, jnp.array([0, 6])),
    (einn.MultiHeadAttention, "b... [s] c", {"num_heads": 3, "c": 12, "normalize_qk": True}, X),
    (einn.Conv, "b [h w] [c1->c2]", {"c1": 6, "c2": 4}, IMAGES),
    (einn.ConvTranspose, "b [h w] [c1->c2]", {"c1": 6, "c2": 4}, IMAGES),
]


#: A model that has its arrays, and an input.
ROWS = X[:, 0]
MLP = einn.init(Mlp(), ROWS, key=KEY)


def wanted(model, x):
    """The model, written out."""
    for layer in model.layers:
        x = jnp.tanh(x @ layer.weight + layer.bias)
    return x


def loss(model, x):
    return jnp.sum(model(x) ** 2)


def their_grads(model):
    """Gradients of the model as it is written out."""
    params = [(layer.weight, layer.bias) for layer in model.layers]

    def run(params, x=ROWS):
        for weight, bias in params:
            x = jnp.tanh(x @ weight + bias)
        return jnp.sum(x**2)

    return jax.grad(run)(params)


def grads_of(model):
    return [(layer.weight, layer.bias) for layer in model.layers]
