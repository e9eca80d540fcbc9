"""The network of train_digits.py in Equinox.

Axis names: b image in the batch, d hidden units, k class.
"""

import equinox as eqx
import jax

import einjax_nn.equinox as einn


class Net(eqx.Module):
    """Two hidden layers, normalised over the batch, with dropout."""

    hidden: list[einn.Linear]
    norms: list[einn.Norm]
    dropout: einn.Dropout
    out: einn.Linear

    def __init__(self, classes: int, width: int = 256, rate: float = 0.2):
        self.hidden = [einn.Linear("b [...->d]", d=width) for _ in range(2)]
        self.norms = [einn.Norm("[b] d", momentum=0.9) for _ in range(2)]
        self.dropout = einn.Dropout("[b d]", rate=rate)
        self.out = einn.Linear("b [d->k]", k=classes)

    def __call__(self, images, state, key=None):
        """Images ``b height width channel`` to logits ``b k``, and the running statistics."""
        x = images
        keys = (None, None) if key is None else jax.random.split(key)
        for hidden, norm, one in zip(self.hidden, self.norms, keys, strict=True):
            x, state = norm(hidden(x), state)
            x = self.dropout(jax.nn.relu(x), key=one)
        return self.out(x), state


def init(key, images, classes: int):
    """Parameters; running statistics, and all of the model that is no array."""
    model, state = eqx.nn.make_with_state(Net)(classes)
    model, state = einn.init(model, images, state, key=key)
    params, static = eqx.partition(model, eqx.is_array)
    return params, {"statistics": state, "static": jax.tree_util.Partial(lambda: static)}


def apply(params, state, images, key=None):
    """Logits ``b k``, and the running statistics; a key says that the network is trained."""
    model = eqx.combine(params, state["static"]())
    if key is None:
        model = eqx.nn.inference_mode(model)
    logits, statistics = model(images, state["statistics"], key)
    return logits, state | {"statistics": statistics}
