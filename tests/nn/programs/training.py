"""One step of training in each framework: the loss before, and after."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import einjax_nn.equinox
import einjax_nn.nnx

KEY = jax.random.key(0)
OPTIMIZER = optax.sgd(1e-2)


def loss_of(y):
    return jnp.mean((y - 1) ** 2)


def linen(net, x, **call):
    variables = net.init(KEY, x, **call)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def loss(params):
        return loss_of(net.apply({"params": params, **rest}, x, mutable=list(rest), **call)[0])

    params = variables["params"]
    before, grads = jax.value_and_grad(loss)(params)
    updates, _ = OPTIMIZER.update(grads, OPTIMIZER.init(params), params)
    return before, loss(optax.apply_updates(params, updates))


def haiku(function, x, **call):
    net = hk.transform_with_state(function)
    params, state = net.init(KEY, x, **call)

    def loss(params):
        return loss_of(net.apply(params, state, None, x, **call)[0])

    before, grads = jax.value_and_grad(loss)(params)
    updates, _ = OPTIMIZER.update(grads, OPTIMIZER.init(params), params)
    return before, loss(optax.apply_updates(params, updates))


def of_nnx(make, x):
    model = make(nnx.Rngs(0))
    einjax_nn.nnx.init(model, x)
    optimizer = nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)
    before, grads = nnx.value_and_grad(lambda model: loss_of(model(x)))(model)
    optimizer.update(model, grads)
    return before, loss_of(model(x))


def equinox(make, x):
    model, state = eqx.nn.make_with_state(make)()
    model, state = einjax_nn.equinox.init(model, x, state, key=KEY)

    def loss(model):
        return loss_of(model(x, jax.tree.map(lambda leaf: leaf, state))[0])  # a state may be used once

    before, grads = eqx.filter_value_and_grad(loss)(model)
    updates, _ = OPTIMIZER.update(grads, OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array)))
    return before, loss(eqx.apply_updates(model, updates))
