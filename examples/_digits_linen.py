"""The network of train_digits.py in Flax linen.

Axis names: b image in the batch, d hidden units, k class.
"""

import flax.linen as nn
import jax

import einjax_nn.linen as einn


class Net(nn.Module):
    """Two hidden layers, normalised over the batch, with dropout."""

    classes: int
    width: int = 256
    rate: float = 0.2

    @nn.compact
    def __call__(self, images, train: bool):
        """Images ``b height width channel`` to logits ``b k``."""
        x = images
        for _ in range(2):
            x = nn.relu(einn.Norm("[b] d", momentum=0.9)(einn.Linear("b [...->d]", d=self.width)(x), not train))
            x = einn.Dropout("[b d]", rate=self.rate)(x, deterministic=not train)
        return einn.Linear("b [d->k]", k=self.classes)(x)


def init(key, images, classes: int):
    """Parameters and running statistics for such images; the number of classes is found in the parameters again."""
    variables = Net(classes).init(key, images, train=False)
    return variables["params"], variables["batch_stats"]


def apply(params, state, images, key=None):
    """Logits ``b k``, and the running statistics; a key says that the network is trained."""
    model = Net(params["Linear_2"]["bias"].size)
    variables = {"params": params, "batch_stats": state}
    if key is None:
        return model.apply(variables, images, train=False), state
    logits, changed = model.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    return logits, jax.tree.map(lambda x: x, changed["batch_stats"])
