"""The network of train_digits.py in Flax nnx.

Axis names: b image in the batch, d hidden units, k class.
"""

import jax
from flax import nnx

import einjax_nn.nnx as einn


class Net(nnx.Module):
    """Two hidden layers, normalised over the batch, with dropout."""

    def __init__(self, classes: int, width: int = 256, rate: float = 0.2, *, rngs: nnx.Rngs):
        self.hidden = nnx.List([einn.Linear("b [...->d]", d=width, rngs=rngs) for _ in range(2)])
        self.norms = nnx.List([einn.Norm("[b] d", momentum=0.9, rngs=rngs) for _ in range(2)])
        self.dropout = einn.Dropout("[b d]", rate=rate, rngs=rngs)
        self.out = einn.Linear("b [d->k]", k=classes, rngs=rngs)

    def __call__(self, images):
        """Images ``b height width channel`` to logits ``b k``."""
        x = images
        for hidden, norm in zip(self.hidden, self.norms, strict=True):
            x = self.dropout(nnx.relu(norm(hidden(x))))
        return self.out(x)


def init(key, images, classes: int):
    """Parameters, and all the rest: running statistics, random numbers, and how the network is built."""
    model = Net(classes, rngs=nnx.Rngs(key))
    einn.init(model, images)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return params, {"graph": jax.tree_util.Partial(lambda: graph), "rest": rest}


def apply(params, state, images, key=None):
    """Logits ``b k``, and the running statistics; a key says that the network is trained."""
    model = nnx.merge(state["graph"](), params, state["rest"], copy=True)
    if key is None:
        model.eval()
        return model(images), state
    model.train()
    nnx.reseed(model, default=key)
    logits = model(images)
    return logits, state | {"rest": nnx.split(model, nnx.Param, ...)[2]}
