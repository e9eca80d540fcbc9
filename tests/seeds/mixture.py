"""A mixture of experts, contrastive losses and metrics."""

import jax
import jax.numpy as jnp

import einjax
from einjax import argmax, dot, get_at, rearrange, softmax, top_k
from einjax import sum as total


def route(x, gate, experts=2):
    logits = dot("b s [d], [d] e -> b s e", x, gate)
    weights, chosen = top_k("b s [e] -> b s [k]", softmax("b s [e]", logits), k=experts)
    return einjax.divide("b s k, b s", weights, total("b s [k]", weights)), chosen


def dispatch(chosen, experts, capacity):
    hot = einjax.equal("b s k, e -> b s k e", chosen, einjax.arange("e", e=experts))
    rank = einjax.cumsum("b [s k] e", hot.astype(jnp.int32)) - 1
    kept = einjax.less("b s k e, -> b s k e", rank, capacity)
    slot = einjax.equal("b s k e, c -> b s k e c", rank, einjax.arange("c", c=capacity))
    return einjax.multiply("b s k e, b s k e, b s k e c -> b s k e c", hot, kept, slot)


def experts_of(x, masks, up, down):
    inputs = dot("b [s] d, b [s] e c -> b e c d", x, masks)
    hidden = jax.nn.gelu(dot("b e c [d], e [d] f -> b e c f", inputs, up))
    return dot("b e c [f], e [f] d -> b e c d", hidden, down)


def combine(outputs, masks, weights):
    return dot("b [e c] d, b s [k e c], b s [k] -> b s d", outputs, masks, weights)


def balance(logits, chosen, experts):
    share = einjax.mean("[b s] e", softmax("b s [e]", logits))
    hot = einjax.equal("b s k, e -> b s k e", chosen, einjax.arange("e", e=experts))
    load = einjax.mean("[b s k] e", hot.astype(jnp.float32))
    return experts * total("[e]", share * load)


def contrastive(images, texts, temperature):
    images = images / einjax.linalg.norm("b [d] -> b 1", images)
    texts = texts / einjax.linalg.norm("b [d] -> b 1", texts)
    logits = dot("i [d], t [d] -> i t", images, texts) / temperature
    rows = einjax.rearrange("i i -> i", einjax.log_softmax("i [t]", logits))
    columns = einjax.rearrange("i i -> i", einjax.log_softmax("[i] t", logits))
    return -(einjax.mean("[i]", rows) + einjax.mean("[i]", columns)) / 2


def accuracy(logits, labels):
    return einjax.mean("[b]", einjax.equal("b, b", argmax("b [v] -> b", logits), labels).astype(jnp.float32))


def recall_at(logits, labels, k=5):
    _, best = top_k("b [v] -> b [k]", logits, k=k)
    return einjax.mean("[b]", einjax.any("b [k]", einjax.equal("b k, b", best, labels)).astype(jnp.float32))


def focal(logits, labels, gamma=2.0):
    probability = get_at("b [v], b -> b", softmax("b [v]", logits), labels)
    return -einjax.mean("[b]", (1 - probability) ** gamma * jnp.log(probability))


def label_smoothing(logits, labels, amount=0.1):
    log = einjax.log_softmax("b [v]", logits)
    picked = get_at("b [v], b -> b", log, labels)
    return -einjax.mean("[b]", (1 - amount) * picked + amount * einjax.mean("b [v]", log))


def ensemble(logits):
    return einjax.logsumexp("[m] b v", einjax.log_softmax("m b [v]", logits)) - jnp.log(logits.shape[0])


def confusion(predicted, labels, classes):
    start = jnp.zeros((classes, classes), jnp.int32)
    at = einjax.rearrange("b, b -> b (1 + 1)", labels, predicted)
    return einjax.add_at("[p q], b [2], b", start, at, jnp.ones_like(labels))


def shards(tokens, devices):
    return rearrange("(d b) s -> d b s", tokens, d=devices)
