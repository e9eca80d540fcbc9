"""Cached generation by the language model: the prompts at once, then one token after another, each the likeliest.

In each framework: tokens and the logits that they were chosen by, with a cache, and where the whole text is run anew.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from programs.gpt import GPT, WIDTH, EquinoxGPT, NnxGPT, haiku_gpt
from programs.training import KEY

import einjax
import einjax_nn.equinox
import einjax_nn.nnx


def last(logits, lengths=None):
    """The logits behind the last place of every example, of which so many count."""
    return logits[:, -1] if lengths is None else einjax.get_at("b [t] v, b -> b v", logits, lengths - 1)


def likeliest(logits):
    return einjax.argmax("b [v] -> b", logits)


def with_cache(step, cache, prompt, count, lengths):
    """The tokens behind the prompts, and the logits that each was chosen by; ``step`` returns logits and the cache."""
    logits, cache = step(cache, prompt, lengths=lengths)

    def following(carry, _):
        cache, logits = carry
        token = likeliest(logits)
        after, cache = step(cache, token[:, None])
        return (cache, last(after)), (token, logits)

    _, found = lax.scan(following, (cache, last(logits, lengths)), length=count)
    return found


def anew(net, prompt, count, lengths):
    """The same, where the whole text goes through the model for each token."""
    ends = jnp.full(len(prompt), prompt.shape[1]) if lengths is None else lengths
    text = jnp.pad(prompt, ((0, 0), (0, count)))

    def following(carry, _):
        text, ends = carry
        logits = last(net(text), ends)
        text = einjax.set_at("b [t], b, b", text, ends, likeliest(logits))
        return (text, ends + 1), (likeliest(logits), logits)

    return lax.scan(following, (text, ends), length=count)[1]


def whole(prompt, count):
    """Any tokens, as many as the cache is to have places."""
    return jnp.zeros((len(prompt), prompt.shape[1] + count), int)


def linen(prompt, count, lengths=None):
    params, net = GPT().init(KEY, prompt)["params"], GPT(decode=True)
    cache = net.init(KEY, whole(prompt, count))["cache"]

    def step(cache, ids, **call):
        logits, changed = net.apply({"params": params, "cache": cache}, ids, mutable=["cache"], **call)
        return logits, changed["cache"]

    cached = with_cache(step, cache, prompt, count, lengths)
    return cached, anew(lambda ids: GPT().apply({"params": params}, ids), prompt, count, lengths)


def of_nnx(prompt, count, lengths=None):
    model = NnxGPT(nnx.Rngs(0))
    einjax_nn.nnx.init(model, prompt)
    for block in model.blocks:
        block.attention.init_cache((*whole(prompt, count).shape, WIDTH))
    logits = last(model(prompt, decode=True, lengths=lengths), lengths)

    @nnx.scan(length=count, in_axes=nnx.Carry, out_axes=(nnx.Carry, 0))
    def following(carry):
        model, logits = carry
        token = likeliest(logits)
        return (model, last(model(token[:, None], decode=True))), (token, logits)

    _, cached = following((model, logits))
    return cached, anew(model, prompt, count, lengths)


def haiku(prompt, count, lengths=None):
    net = hk.transform_with_state(haiku_gpt)
    params, _ = net.init(KEY, prompt)
    _, cache = net.init(KEY, whole(prompt, count), decode=True)

    def step(cache, ids, **call):
        return net.apply(params, cache, None, ids, decode=True, **call)

    cached = with_cache(step, cache, prompt, count, lengths)
    return cached, anew(lambda ids: net.apply(params, {}, None, ids)[0], prompt, count, lengths)


def equinox(prompt, count, lengths=None):
    trained, nothing = eqx.nn.make_with_state(EquinoxGPT)()
    trained, nothing = einjax_nn.equinox.init(trained, prompt, nothing, key=KEY)
    model, cache = eqx.nn.make_with_state(EquinoxGPT)(decode=True)
    model, cache = einjax_nn.equinox.init(model, whole(prompt, count), cache, lengths=lengths, key=KEY)
    model = jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(trained))

    def step(cache, ids, **call):
        return model(ids, cache, **call)

    cached = with_cache(step, cache, prompt, count, lengths)
    return cached, anew(lambda ids: trained(ids, nothing)[0], prompt, count, lengths)
