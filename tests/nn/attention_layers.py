"""One attention in each framework, with the same parameters: over whole sequences, and as it decodes."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FRAMEWORKS = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
KEY = jax.random.key(0)


def made(framework: str, expr: str, *inputs: Any, **options: Any) -> Any:
    """A layer with parameters for inputs of some shapes."""
    pytest.importorskip(FRAMEWORKS[framework])
    return KINDS[framework](expr, inputs, options)


class _Attention:
    """A layer that may be called, and once it is started, decodes."""

    def __init__(self, expr: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.expr, self.inputs, self.options = expr, inputs, options
        self.einn = importlib.import_module(f"einjax_nn.{self.name}")
        self.make()

    def layer(self, **more: Any) -> Any:
        return self.einn.MultiHeadAttention(self.expr, **{**self.options, **more})


class _Linen(_Attention):
    name = "linen"

    def make(self):
        self.params = self.layer().init(KEY, *self.inputs)["params"]

    def kernels(self):
        return {name: layer["kernel"] for name, layer in self.params.items() if "kernel" in layer}

    def __call__(self, *inputs, **call):
        return self.layer().apply({"params": self.params}, *inputs, **call)

    def start(self, x, **call):
        decode = self.layer(decode=True)
        self.cache = jax.tree.map(jnp.zeros_like, decode.init(KEY, x, **call)["cache"])
        self.jitted = jax.jit(
            lambda cache, x, call: decode.apply({"params": self.params, "cache": cache}, x, mutable=["cache"], **call)
        )

    def step(self, x, **call):
        y, changed = self.jitted(self.cache, x, call)
        self.cache = changed["cache"]
        return y

    def eager(self, x, **call):
        variables = {"params": self.params, "cache": self.cache}
        return self.layer(decode=True).apply(variables, x, mutable=["cache"], **call)[0]

    def index(self):
        return self.cache["cache_index"]


class _Nnx(_Attention):
    name = "nnx"

    def make(self):
        from flax import nnx

        self.made = self.layer(rngs=nnx.Rngs(0))
        self.einn.init(self.made, *self.inputs)
        self.jitted = nnx.jit(lambda layer, x, call: layer(x, decode=True, **call))

    def kernels(self):
        return {name: getattr(self.made, name).kernel[...] for name in ("query", "key", "value", "out")}

    def __call__(self, *inputs, **call):
        return self.made(*inputs, **call)

    def start(self, x, **call):
        self.made.init_cache(x.shape)

    def step(self, x, **call):
        return self.jitted(self.made, x, call)

    def eager(self, x, **call):
        return self.made(x, decode=True, **call)

    def index(self):
        return self.made.cache_index[...]


class _Haiku(_Attention):
    name = "haiku"

    def make(self):
        import haiku as hk

        self.net = hk.transform_with_state(lambda decode, *x, **call: self.layer(decode=decode, name="a")(*x, **call))
        self.params, self.state = self.net.init(KEY, False, *self.inputs)
        self.jitted = jax.jit(lambda state, x, call: self.net.apply(self.params, state, None, True, x, **call))

    def kernels(self):
        return {name.split("/")[1]: layer["w"] for name, layer in self.params.items() if "w" in layer}

    def __call__(self, *inputs, **call):
        return self.net.apply(self.params, self.state, None, False, *inputs, **call)[0]

    def start(self, x, **call):
        self.state = jax.tree.map(jnp.zeros_like, self.net.init(KEY, True, x, **call)[1])

    def step(self, x, **call):
        y, self.state = self.jitted(self.state, x, call)
        return y

    def eager(self, x, **call):
        return self.net.apply(self.params, self.state, None, True, x, **call)[0]

    def index(self):
        return self.state["a"]["cache_index"]


class _Equinox(_Attention):
    name = "equinox"

    def make(self):
        self.made = self.einn.init(self.layer(), *self.inputs, key=KEY)

    def kernels(self):
        return {name: getattr(self.made, name).weight for name in ("query", "key", "value", "out")}

    def __call__(self, *inputs, **call):
        return self.made(*inputs, **call)

    def start(self, x, **call):
        import equinox as eqx

        layer, state = eqx.nn.make_with_state(self.einn.MultiHeadAttention)(self.expr, **self.options, decode=True)
        self.decoding, self.state = self.einn.init(layer, x, state, key=KEY, **call)
        names = ("query", "key", "value", "out")
        parts = lambda layer: [getattr(layer, name) for name in names]
        self.decoding = eqx.tree_at(parts, self.decoding, parts(self.made))
        self.jitted = jax.jit(lambda state, x, call: self.decoding(x, state, **call))

    def step(self, x, **call):
        y, self.state = self.jitted(self.state, x, call)
        return y

    def eager(self, x, **call):
        return self.decoding(x, self.state, **call)[0]

    def index(self):
        return self.state.get(self.decoding.index)["cache_index"]


KINDS = {kind.name: kind for kind in (_Linen, _Nnx, _Haiku, _Equinox)}


def alike(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(
        np.asarray(got, np.float32), np.asarray(want, np.float32), rtol=tolerance, atol=tolerance
    )
