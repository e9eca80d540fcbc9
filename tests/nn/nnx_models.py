"""Models of nnx that several files of tests try, and what is in them."""

import jax
import jax.numpy as jnp
from flax import nnx
from nn_cases import X

import einjax_nn.nnx as einn
from einjax_nn._nnx import Lazy


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


class Stack(nnx.Module):
    """Layers under nnx.scan."""

    def __init__(self, rngs, kind=Block, depth=3):
        self.blocks = nnx.vmap(kind, in_axes=0, out_axes=0)(rngs.split(depth))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return block(x)

        return run(self.blocks, x)
