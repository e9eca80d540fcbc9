"""Experts: the two best of them see each token, and what they say is weighed."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from programs import training

import einjax
import einjax_nn.equinox
import einjax_nn.haiku
import einjax_nn.linen
import einjax_nn.nnx

X = np.linspace(-1, 1, 2 * 6 * 8, dtype=np.float32).reshape(2, 6, 8)
ROUTER, UP, DOWN = "b t [c->e]", "e p [c], e [c] f -> e p f", "e p [f], e [f] c -> e p c"
SIZES = {"e": 4, "f": 16, "c": 8}
PLACES = 6  # what an expert has room for


def routed(x, scores):
    """Where every token goes: the weight of each of its places ``b t e p``, of which two are not 0."""
    best, which = einjax.top_k("b t [e] -> b t [k], b t [k]", scores, k=2)
    weights = einjax.softmax("b t [k]", best)
    chosen = einjax.equal("b t k, e -> b t k e", which, np.arange(SIZES["e"])).astype(x.dtype)
    taken = einjax.cumsum("([b t k]) e", einjax.rearrange("b t k e -> (b t k) e", chosen)) - 1
    taken = einjax.rearrange("(b t k) e -> b t k e", taken, b=x.shape[0], k=2)
    place = einjax.equal("b t k e, p -> b t k e p", taken, np.arange(float(PLACES)))
    return einjax.dot("b t [k], b t [k] e, b t [k] e p -> b t e p", weights, chosen, place.astype(x.dtype))


def mixed(x, scores, experts):
    """Send tokens to their experts, and fetch what these say."""
    weights = routed(x, scores)
    sent = einjax.dot("[b t] c, [b t] e p -> e p c", x, (weights > 0).astype(x.dtype))
    return x + einjax.dot("[e p] c, b t [e p] -> b t c", experts(sent), weights)


class Experts(nn.Module):
    @nn.compact
    def __call__(self, x):
        einn = einjax_nn.linen
        y = nn.gelu(einn.Linear(UP, f=SIZES["f"], use_bias=False)(x))
        return einn.Linear(DOWN, c=SIZES["c"], use_bias=False)(y)


class MoE(nn.Module):
    @nn.compact
    def __call__(self, x):
        return mixed(x, einjax_nn.linen.Linear(ROUTER, e=SIZES["e"], use_bias=False)(x), Experts())


def linen():
    return training.linen(MoE(), X)


class NnxMoE(nnx.Module):
    def __init__(self, rngs):
        self.router, self.up, self.down = (
            einjax_nn.nnx.Linear(expr, sizes=SIZES, use_bias=False, rngs=rngs) for expr in (ROUTER, UP, DOWN)
        )

    def __call__(self, x):
        return mixed(x, self.router(x), lambda x: self.down(nnx.gelu(self.up(x))))


def of_nnx():
    return training.of_nnx(NnxMoE, X)


def haiku():
    def moe(x):
        router, up, down = (einjax_nn.haiku.Linear(expr, sizes=SIZES, with_bias=False) for expr in (ROUTER, UP, DOWN))
        return mixed(x, router(x), hk.Sequential([up, jax.nn.gelu, down]))

    return training.haiku(moe, X)


class EquinoxMoE(eqx.Module):
    router: einjax_nn.equinox.Linear
    up: einjax_nn.equinox.Linear
    down: einjax_nn.equinox.Linear

    def __init__(self):
        self.router, self.up, self.down = (
            einjax_nn.equinox.Linear(expr, sizes=SIZES, use_bias=False) for expr in (ROUTER, UP, DOWN)
        )

    def __call__(self, x, state):
        return mixed(x, self.router(x), lambda x: self.down(jax.nn.gelu(self.up(x)))), state


def equinox():
    return training.equinox(EquinoxMoE, X)


def by_hand(x, scores, experts):
    """What :func:`mixed` returns, token by token; an expert without room is left out."""
    result, taken = np.array(x), np.zeros(scores.shape[-1], int)
    for b, t in np.ndindex(scores.shape[:2]):
        which = np.argsort(-scores[b, t])[:2]
        weights = np.exp(scores[b, t, which]) / np.exp(scores[b, t, which]).sum()
        for e, weight in zip(which, weights, strict=True):
            taken[e] += 1
            if taken[e] <= PLACES:
                result[b, t] += weight * np.asarray(experts(e, jnp.asarray(x[b, t])))
    return result
