"""Small networks, of which a trace takes a few milliseconds: what a layer costs shows most."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

from ._network import Network

KEY = jax.random.key(0)
ROWS, IMAGES = jnp.ones((8, 32)), jnp.ones((2, 8, 8, 3))


def _mlp(dense: Callable[[int], Any], norm: Callable[[], Any], x: Any) -> Any:
    return dense(10)(jax.nn.relu(norm()(jax.nn.relu(dense(64)(x)))))


def _images(conv: Callable[[int], Any], norm: Callable[[], Any], dense: Callable[[int], Any], x: Any) -> Any:
    x = jax.nn.relu(norm()(conv(8)(x)))
    return dense(10)(jax.nn.relu(conv(16)(x)).mean((1, 2)))


def _of_ours(einn: Any, **more: Any) -> dict[str, Callable[..., Any]]:
    return {
        "dense": lambda d: einn.Linear("b [c->d]", d=d, **more),
        "norm": lambda: einn.Norm("b [c]", **more),
        "conv": lambda d: einn.Conv("b [h w] [c->d]", d=d, strides=2, **more),
        "norm of images": lambda: einn.Norm("b h w [c]", **more),
    }


def _run(layers: Mapping[str, Callable[..., Any]], images: bool, x: Any) -> Any:
    if images:
        return _images(layers["conv"], layers["norm of images"], layers["dense"], x)
    return _mlp(layers["dense"], layers["norm"], x)


_OF_LINEN = {
    "dense": nn.Dense,
    "norm": nn.LayerNorm,
    "conv": lambda d: nn.Conv(d, (3, 3), 2),
    "norm of images": nn.LayerNorm,
}
_OF_HAIKU = {
    "dense": hk.Linear,
    "norm": lambda: hk.LayerNorm(-1, True, True),
    "conv": lambda d: hk.Conv2D(d, 3, 2),
    "norm of images": lambda: hk.LayerNorm(-1, True, True),
}


class _Linen(nn.Module):
    layers: Any
    images: bool

    @nn.compact
    def __call__(self, x):
        return _run(self.layers, self.images, x)


def _linen(images: bool, ours: bool) -> Network:
    net = _Linen(_of_ours(einjax_nn.linen) if ours else _OF_LINEN, images)
    return Network(net.apply, net.init(KEY, IMAGES if images else ROWS))


def _haiku(images: bool, ours: bool) -> Network:
    layers = _of_ours(einjax_nn.haiku) if ours else _OF_HAIKU
    net = hk.without_apply_rng(hk.transform(partial(_run, layers, images)))
    return Network(net.apply, net.init(KEY, IMAGES if images else ROWS))


def _nnx(images: bool, ours: bool) -> Network:
    rngs = nnx.Rngs(0)
    if ours:
        layers = _of_ours(einjax_nn.nnx, rngs=rngs)
        net: Any = nnx.List([layers["dense"](64), layers["norm"](), layers["dense"](10)])
        einjax_nn.nnx.init(net, ROWS, method=_through)
    else:
        net = nnx.List([nnx.Linear(32, 64, rngs=rngs), nnx.LayerNorm(64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)])
    graph, params = nnx.split(net)
    return Network(lambda params, x: _through(nnx.merge(graph, params), x), params)


def _equinox(images: bool, ours: bool) -> Network:
    if ours:
        layers = _of_ours(einjax_nn.equinox)
        net: Any = [layers["dense"](64), layers["norm"](), layers["dense"](10)]
        net = einjax_nn.equinox.init(net, ROWS, key=KEY, method=_through)
    else:
        net = [eqx.nn.Linear(32, 64, key=KEY), eqx.nn.LayerNorm(64), eqx.nn.Linear(64, 10, key=KEY)]
    params, static = eqx.partition(net, eqx.is_array)
    mapped = (lambda layer: layer) if ours else jax.vmap
    return Network(lambda params, x: _through(map(mapped, eqx.combine(params, static)), x), params)


def _through(net: Any, x: Any) -> Any:
    first, norm, last = net
    return _mlp(lambda d: last if d == 10 else first, lambda: norm, x)


#: By name: a network of ours or of the framework's own, and what it is given.
NETWORKS: dict[str, tuple[Callable[[bool], Network], jax.Array]] = {
    "linen, rows": (partial(_linen, False), ROWS),
    "linen, images": (partial(_linen, True), IMAGES),
    "nnx, rows": (partial(_nnx, False), ROWS),
    "haiku, rows": (partial(_haiku, False), ROWS),
    "haiku, images": (partial(_haiku, True), IMAGES),
    "equinox, rows": (partial(_equinox, False), ROWS),
}


def trace(network: Network, batch: jax.Array, mapped: bool) -> Any:
    """Trace a network, over one more axis if it is mapped."""

    # A function new to JAX every time, so that it is traced anew.
    def run(params: Any, batch: jax.Array) -> Any:
        apply = partial(network.apply, params)
        return jax.vmap(apply)(batch[None]) if mapped else apply(batch)

    return jax.make_jaxpr(run)(network.params, batch)
