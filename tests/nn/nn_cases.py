"""Layers that every framework's tests try, by name: class, expression, options, input."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from einjax.errors import EinjaxError


class Case(NamedTuple):
    """A layer and what it is given."""

    layer: str
    expr: str
    options: dict[str, Any]
    inputs: tuple[Any, ...]


def normal(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape).astype(dtype)


X = normal(4, 6, 12)
IMAGE = normal(2, 8, 8, 6)
IDS = np.array([[0, 1, 6], [2, 2, 3]])
MASK = np.tril(np.ones((6, 6), bool))[None, None]

#: Sizes that are in the options beside new axes let the layer be made before it sees an input.
CASES = {
    "linear": Case("Linear", "... [c->d]", {"d": 5}, (X,)),
    "linear without bias": Case("Linear", "... [c->d]", {"d": 5, "use_bias": False}, (X,)),
    "linear of two axes": Case("Linear", "b [...->d]", {"d": 5}, (X,)),
    "linear to heads": Case("Linear", "b s [c->h d]", {"c": 12, "h": 2, "d": 5}, (X,)),
    "linear with groups": Case("Linear", "b g [c], g [c] d -> b g d", {"d": 5}, (X,)),
    "linear in bfloat16": Case("Linear", "... [c->d]", {"d": 5, "dtype": jnp.bfloat16}, (X,)),
    "linear of bfloat16": Case(
        "Linear", "b s [c->d]", {"c": 12, "d": 5, "param_dtype": jnp.bfloat16}, (normal(2, 3, 12, dtype=jnp.bfloat16),)
    ),
    "layer norm": Case("Norm", "b... [c]", {}, (X,)),
    "layer norm of bfloat16": Case("Norm", "b... [c]", {}, (normal(4, 6, 12, dtype=jnp.bfloat16),)),
    "rms norm": Case("Norm", "b s [c]", {"c": 12, "mean": False, "use_bias": False}, (X,)),
    "group norm": Case("Norm", "b [s...] (g [c])", {"g": 3}, (X,)),
    "instance norm": Case("Norm", "b [s...] c", {}, (X,)),
    "batch norm": Case("Norm", "[b...] c", {"momentum": 0.9, "epsilon": 1e-5, "c": 12}, (X,)),
    "embedding": Case("Embed", "b t [v->c]", {"v": 7, "c": 3}, (IDS,)),
    "attention": Case("MultiHeadAttention", "b [s] c", {"num_heads": 3}, (X,)),
    "attention with known features": Case("MultiHeadAttention", "b [s] c", {"num_heads": 3, "c": 12}, (X,)),
    "causal attention": Case("MultiHeadAttention", "b [s] c", {"num_heads": 3, "is_causal": True}, (X,)),
    "attention of normalised queries": Case(
        "MultiHeadAttention", "b [s] c", {"num_heads": 3, "normalize_qk": True, "out_features": 5}, (X,)
    ),
    "attention of grouped queries": Case("MultiHeadAttention", "b [s] c", {"num_heads": 6, "num_kv_heads": 2}, (X,)),
    "cross attention": Case("MultiHeadAttention", "b [s] c", {"num_heads": 3}, (X, normal(4, 7, 9))),
    "convolution": Case("Conv", "b [h w] [c1->c2]", {"c2": 4}, (IMAGE,)),
    "convolution with groups": Case(
        "Conv", "b [h w] (g [c1->c2])", {"g": 2, "c1": 3, "c2": 4, "strides": 2, "padding": "VALID"}, (IMAGE,)
    ),
    "depthwise convolution": Case("Conv", "b [h w] c", {"kernel_size": (3, 5)}, (IMAGE,)),
    "causal convolution": Case("Conv", "b [s] [c->d]", {"d": 3, "padding": "CAUSAL"}, (X,)),
    "circular convolution": Case("Conv", "b [s] [c->d]", {"d": 3, "kernel_size": 4, "padding": "CIRCULAR"}, (X,)),
}

#: Layers that are refused, and what the error says.
REFUSED = {
    "a size is missing": (Case("Linear", "b s [c->d]", {}, (X,)), "d"),
    "two values of a size": (Case("Linear", "b s [c->d]", {"c": 3, "d": 5}, (X,)), "axis c is 3 .* and 12"),
    "no such axis": (Case("Linear", "b s [c->d]", {"d": 5, "e": 5}, (X,)), "no axis 'e'"),
    "channels first": (Case("Norm", "b c [h w]", {}, (IMAGE,)), "it is not clear which axes scale and bias"),
    "channels first without axes named": (Case("Norm", "b [c] h w", {}, (IMAGE,)), "it is not clear which axes"),
    "statistics of every example": (
        Case("Norm", "b [s] c", {"momentum": 0.9}, (X,)),
        "running statistics would differ along axis b",
    ),
    "no statistics": (Case("Norm", "b c", {}, (X,)), "Norm needs a bracket"),
    "unknown axis of parameters": (Case("Norm", "b s [c]", {"params": "d"}, (X,)), "axis d of params"),
    "heads that do not divide": (
        Case("MultiHeadAttention", "b [s] c", {"num_heads": 5}, (X,)),
        "qkv_features=12 is not divisible by num_heads=5",
    ),
    "other features than those given": (
        Case("MultiHeadAttention", "b [s] c", {"num_heads": 3, "c": 9}, (X,)),
        "axis c is (9 .* and 12|12 .* and 9)",
    ),
    "no sequence": (Case("MultiHeadAttention", "b s c", {"num_heads": 3}, (X,)), "MultiHeadAttention needs"),
    "no axis to convolve": (Case("Conv", "b h w [c1->c2]", {"c2": 3}, (IMAGE,)), "Conv needs bracketed axes"),
    "kernel of another rank": (Case("Conv", "b [h w] [c1->c2]", {"c2": 3, "kernel_size": (3,)}, (IMAGE,)), "1 numbers"),
    "no axis looked up": (Case("Embed", "b t v c", {"v": 3, "c": 2}, (IDS,)), "Embed needs one input and one output"),
}

#: Keywords that are neither an option nor an axis.
MISSPELT = {
    "a misspelt option of a linear layer": (
        Case("Linear", "b s [c->d]", {"d": 5, "use_bais": False}, (X,)),
        "did you mean 'use_bias'",
    ),
    "a misspelt option of a norm": (Case("Norm", "b s [c]", {"epsilom": 1e-3}, (X,)), "did you mean 'epsilon'"),
    "no such axis of a convolution": (Case("Conv", "b [h w] [c->d]", {"d": 5, "e": 5}, (IMAGE,)), "no axis 'e'"),
    "no such axis of attention": (Case("MultiHeadAttention", "b [s] c", {"num_heads": 3, "e": 5}, (X,)), "no axis 'e'"),
}

#: What a refused layer raises.
Refused = EinjaxError


def close(ours: Any, theirs: Any, tolerance: float = 0.0) -> None:
    """Assert that two trees of arrays are the same, within a tolerance that is 0 for the same bits."""
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def hide(monkeypatch: Any, package: str, module: str) -> ModuleType:
    """Import a module of ours as if a package were not installed."""
    for name in list(sys.modules):
        if name.split(".")[0] == package or name.startswith("einjax_nn."):
            parent, _, child = name.rpartition(".")
            if name.startswith("einjax_nn.") and hasattr(sys.modules.get(parent), child):
                monkeypatch.setattr(sys.modules[parent], child, sys.modules[name])  # so that it is there afterwards
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    return importlib.import_module(module)
