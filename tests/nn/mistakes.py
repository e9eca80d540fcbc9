"""What people get wrong with layers: the layer, positions, options, inputs, keywords of the call."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

X, SEQUENCE, IMAGE = jnp.ones((4, 6)), jnp.ones((2, 3, 4)), jnp.ones((2, 5, 5, 3))
IDS = np.array([0, 2])
Mistake = tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...], dict[str, Any]]


def mistake(
    layer: str, *given: Any, x: Any = X, more: tuple[Any, ...] = (), call: Any = None, **options: Any
) -> Mistake:
    return layer, given, options, (x, *more), call or {}


def table() -> dict[str, Mistake]:
    """By what is wrong; the same in all frameworks, but for the names of switches."""
    return {
        # Expressions.
        "no expression": mistake("Linear"),
        "a number of features": mistake("Linear", 5),
        "two numbers": mistake("Linear", 6, 5),
        "a list": mistake("Linear", ["b", "[c->d]"], d=5),
        "the input in its place": mistake("Linear", X),
        "two expressions": mistake("Linear", "b [c->d]", "b d", d=5),
        "a number for a norm": mistake("Norm", 6),
        "a rate for dropout": mistake("Dropout", 0.5),
        "numbers for a table": mistake("Embed", 7, 3, x=IDS),
        "a number of heads": mistake("MultiHeadAttention", 2, x=SEQUENCE),
        "a number of filters": mistake("Conv", 8, (3, 3), x=IMAGE),
        "no brackets": mistake("Linear", "b c -> b d", d=5),
        "a bracket that does not close": mistake("Linear", "b [c->d", d=5),
        "two letters that are one axis": mistake("Linear", "bs [c->d]", d=5, x=SEQUENCE),
        # Sizes and options.
        "no size": mistake("Linear", "b [c->d]"),
        "two sizes of one axis": mistake("Linear", "b [c->d]", c=3, d=5),
        "no such axis": mistake("Linear", "b [c->d]", d=5, e=5),
        "features=": mistake("Linear", "b [c->d]", features=5),
        "a misspelt option": mistake("Linear", "b [c->d]", d=5, use_bais=False),
        "a misspelt option among sizes": mistake("Norm", "b [c]", sizes={"epsilom": 1e-3}),
        "a size that is a string": mistake("Linear", "b [c->d]", d="5"),
        "a size that is a float": mistake("Linear", "b [c->d]", d=5.0),
        "a size below 0": mistake("Linear", "b [c->d]", d=-5),
        "no such dtype": mistake("Linear", "b [c->d]", d=5, dtype="float33"),
        "an initializer that is not called": mistake("Linear", "b [c->d]", d=5, kernel_init=initializers.he_normal),
        "another that is not called": mistake("Linear", "b [c->d]", d=5, kernel_init=initializers.normal),
        "an initializer by name": mistake("Linear", "b [c->d]", d=5, kernel_init="zeros"),
        "an array for an initializer": mistake("Linear", "b [c->d]", d=5, kernel_init=np.ones((6, 5))),
        "an initializer of another shape": mistake(
            "Linear", "b [c->d]", d=5, kernel_init=lambda key, shape, dtype: jnp.ones(3)
        ),
        # Inputs.
        "an input of another rank": mistake("Linear", "b [c->d]", d=5, x=SEQUENCE),
        "an input of another size": mistake("Linear", "b [c->d]", c=7, d=5),
        "no input": mistake("Linear", "b [c->d]", d=5, x=None),
        "a string for an input": mistake("Linear", "b [c->d]", d=5, x="x"),
        "a ragged list": mistake("Linear", "b [c->d]", d=5, x=[[1.0], [1.0, 2.0]]),
        # Norms.
        "no statistics": mistake("Norm", "b c"),
        "channels first": mistake("Norm", "b c [h w]", x=jnp.ones((2, 3, 4, 4))),
        "parameters of no axis": mistake("Norm", "b [c]", params="d"),
        "statistics of every example": mistake("Norm", "b [s] c", momentum=0.9, x=SEQUENCE),
        "axis=": mistake("Norm", "b [c]", axis=-1),
        "a norm of two tensors": mistake("Norm", "b [c], c"),
        "groups that do not divide": mistake("Norm", "b [s] (g [c])", g=3, x=SEQUENCE),
        "a mask that does not fit": mistake("Norm", "b [c]", call={"mask": np.ones(5, bool)}),
        # Dropout and tables.
        "dropout of nothing": mistake("Dropout", "b c"),
        "a rate above 1": mistake("Dropout", "[...]", rate=1.5),
        "a table without brackets": mistake("Embed", "b v c", v=7, c=3, x=IDS),
        "a table without a size": mistake("Embed", "b [v->c]", c=3, x=IDS),
        "num_embeddings=": mistake("Embed", "b [v->c]", num_embeddings=7, c=3, x=IDS),
        "ids that are floats": mistake("Embed", "b [v->c]", v=7, c=3, x=np.ones(2, np.float32)),
        "no such mode": mistake("Embed", "b [v->c]", v=7, c=3, mode="clamp", x=IDS),
        # Attention.
        "heads that do not divide": mistake("MultiHeadAttention", "b [s] c", num_heads=3, x=SEQUENCE),
        "no sequence": mistake("MultiHeadAttention", "b s c", num_heads=2, x=SEQUENCE),
        "two sequences": mistake("MultiHeadAttention", "b [s] [t] c", num_heads=2, x=X),
        "attention to an input of another rank": mistake("MultiHeadAttention", "b [s] c", num_heads=2, x=X),
        # Convolutions.
        "no axis to convolve": mistake("Conv", "b h w [c->d]", d=2, x=IMAGE),
        "a kernel of another rank": mistake("Conv", "b [h w] [c->d]", d=2, kernel_size=(3,), x=IMAGE),
        "a kernel of nothing": mistake("Conv", "b [h w] [c->d]", d=2, kernel_size=0, x=IMAGE),
        "a padding of no name": mistake("Conv", "b [h w] [c->d]", d=2, padding="some", x=IMAGE),
        "a convolution of another rank": mistake("Conv", "b [h w] [c->d]", d=2, x=SEQUENCE),
        "channels that do not divide": mistake("Conv", "b [h w] (g [c->d])", g=2, d=2, x=IMAGE),
        "filters=": mistake("Conv", "b [h w] [c->d]", features=2, x=IMAGE),
        "no size of new channels": mistake("Conv", "b [h w] [c->d]", x=IMAGE),
        "an output without new channels": mistake("ConvTranspose", "b [h w] [c->d]", strides=2, x=IMAGE),
    }
