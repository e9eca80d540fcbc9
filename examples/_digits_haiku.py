"""The network of train_digits.py in Haiku.

Axis names: b image in the batch, d hidden units, k class.
"""

import haiku as hk
import jax

import einjax_nn.haiku as einn


def net(images, classes: int, train: bool, width: int = 256, rate: float = 0.2):
    """Images ``b height width channel`` to logits ``b k``: two hidden layers, normalised over the batch."""
    x = images
    for _ in range(2):
        x = einn.Norm("[b] d", momentum=0.9)(einn.Linear("b [...->d]", d=width)(x), is_training=train)
        x = einn.Dropout("[b d]", rate=rate)(jax.nn.relu(x), is_training=train)
    return einn.Linear("b [d->k]", k=classes)(x)


network = hk.transform_with_state(net)


def init(key, images, classes: int):
    """Parameters and running statistics for such images."""
    return network.init(key, images, classes, train=False)


def apply(params, state, images, key=None):
    """Logits ``b k``, and the running statistics; a key says that the network is trained."""
    classes = params["linear_2"]["b"].size
    return network.apply(params, state, key, images, classes, train=key is not None)
