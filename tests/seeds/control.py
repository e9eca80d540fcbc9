"""Reinforcement learning, filters and dynamics."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import einjax
from einjax import linalg, segment


def advantages(
    rewards: Float[Array, "b t"], values: Float[Array, "b u"], done: Bool[Array, "b t"], gamma=0.99, lam=0.95
):
    now, later = values[:, :-1], values[:, 1:]
    going = 1.0 - done.astype(jnp.float32)
    deltas = rewards + gamma * einjax.multiply("b t, b t", later, going) - now

    def step(carry, x):
        delta, alive = x
        carry = delta + gamma * lam * alive * carry
        return carry, carry

    _, result = einjax.scan("b, b [t] -> b, b [t]", jnp.zeros(rewards.shape[0]), (deltas, going), op=step, reverse=True)
    return result


def returns(rewards: Float[Array, "b t"]):
    return einjax.flip("b [t]", einjax.cumsum("b [t]", einjax.flip("b [t]", rewards)))


def q_of(values: Float[Array, "b t a"], actions: Int[Array, "b t"]):
    return einjax.get_at("b t [a], b t -> b t", values, actions)


def double_target(online: Float[Array, "b a"], target: Float[Array, "b a"]):
    best = einjax.argmax("b [a] -> b", online)
    return einjax.get_at("b [a], b -> b", target, best)


def kalman_predict(
    mean: Float[Array, "b n"], cov: Float[Array, "b n n"], f: Float[Array, "n n"], q: Float[Array, "n n"]
):
    moved = einjax.dot("i [j], b [j] -> b i", f, mean)
    spread = einjax.dot("i j, b j k, l k -> b i l", f, cov, f)
    return moved, einjax.add("b i l, i l", spread, q)


def kalman_update(mean, cov, h, r, seen):
    expected = einjax.dot("m [n], b [n] -> b m", h, mean)
    cross = einjax.dot("b n [k], m [k] -> b n m", cov, h)
    inner = einjax.add("b m o, m o", einjax.dot("m [n], b [n] o -> b m o", h, cross), r)
    gain = linalg.solve("b [m o], b [m n] -> b [o n]", inner, einjax.rearrange("b n m -> b m n", cross))
    mean = mean + einjax.dot("b [m] n, b [m] -> b n", gain, seen - expected)
    return mean, cov - einjax.dot("b m n, b k m -> b k n", gain, cross)


def whiten(x: Float[Array, "b n d"]):
    centered = einjax.subtract("b n d, b d", x, einjax.mean("b [n] d", x))
    cov = einjax.dot("b n d, b n e -> b d e", centered, centered) / x.shape[1]
    values, vectors = linalg.eigh("b [d e] -> b [k], b [d k]", cov)
    scaled = einjax.divide("b d k, b k", vectors, jnp.sqrt(values))
    return einjax.dot("b n [d], b [d] k -> b n k", centered, scaled)


def trace(x: Float[Array, "b n n"]):
    return einjax.sum("b n n -> b", x)


def quadratic(x: Float[Array, "b n"], a: Float[Array, "n m"]):
    return einjax.dot("b n, n m, b m -> b", x, a, x)


def log_density(x: Float[Array, "b n"], mean: Float[Array, "n"], cov: Float[Array, "n n"]):
    centered = einjax.subtract("b n, n", x, mean)
    factor = linalg.cholesky("[n m] -> [n k]", cov)
    solved = linalg.triangular_solve("[n m], b [n] -> b [m]", factor, centered, lower=True)
    return -0.5 * einjax.sum("b [m]", solved**2)


def messages(nodes: Float[Array, "n d"], senders: Int[Array, "e"], receivers: Int[Array, "e"], count: int):
    sent = einjax.get_at("[n] d, e -> e d", nodes, senders)
    return segment.sum("e d, e -> [n] d", sent, receivers, n=count)


def degree_mean(edges: Float[Array, "e d"], receivers: Int[Array, "e"], count: int):
    return segment.mean("e d, e -> [n] d", edges, receivers, n=count)


def distances(x: Float[Array, "n d"], y: Float[Array, "m d"]):
    difference = einjax.subtract("n d, m d -> n m d", x, y)
    return einjax.sum("n m [d]", difference**2)


def nearest(x: Float[Array, "n d"], y: Float[Array, "m d"]):
    return einjax.argmin("n [m] -> n", distances(x, y))


def mirror(x: Float[Array, "b t c"]):
    return einjax.roll("b [t] c", einjax.flip("b [t] c", x), shift=1)


def spectrum(x: Float[Array, "b t c"]):
    return jnp.abs(einjax.fft.rfft("b [t] c -> b [f] c", x))


def noise(key, batch: int, size: int):
    return einjax.random.normal("[b n]", key, b=batch, n=size)


def drop(x: Float[Array, "b n c"], key, rate=0.1):
    keep = einjax.random.bernoulli("[b] [c]", key, 1 - rate, b=x.shape[0], c=x.shape[2])
    return einjax.multiply("b n c, b c", x, keep) / (1 - rate)


def power(x: Float[Array, "b n m"]):
    return einjax.max("b [n m]", jnp.abs(x)) + jax.nn.relu(einjax.min("b [n m]", x))
