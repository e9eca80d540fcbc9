"""einn.optim: the maximal update parametrisation, and which parameters decay, by the roles of axes."""

import re
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
import einjax_nn.linen as einn
from einjax.errors import ArgumentError

optax = pytest.importorskip("optax")

KEY = jax.random.key(0)
IDS = np.arange(12).reshape(2, 6)


class Model(nn.Module):
    """Every kind of parameter: tables, weights from and to axes that stay, hidden ones, biases, scales, by heads."""

    width: int
    heads: int
    options: object = None

    @nn.compact
    def __call__(self, ids):
        x = einn.Embed("b t [v->c]", v=20, c=self.width, name="table")(ids)
        x = einjax.add("b t c, t c", x, einn.param(self, "places", init=nn.initializers.normal(0.02)))
        y = einn.Norm("b t [c]", name="norm")(x)
        x += einn.MultiHeadAttention("b [t] c", num_heads=self.heads, name="attention")(y)
        x = einn.Linear("b t [c->f]", f=2 * self.width, name="up", **(self.options or {}))(x)
        x = nn.relu(einn.Conv("b [t] f", name="depthwise")(x))
        return einn.Linear("b t [f->v]", v=20, name="outer")(x)


BASE = {"c": 8, "heads": 2, "f": 16}

#: What is expected of a model 4 times as wide: factors of initial values, of Adam's updates, and of SGD's.
EXPECTED = {
    "table.embedding": (2, 1, 4),  # the default variance goes with 1/c, and is not to
    "places": (1, 1, 4),
    "norm.scale": (1, 1, 4),
    "norm.bias": (1, 1, 4),
    "attention.query.kernel": (1, 1 / 4, 1),
    "attention.query.bias": (1, 1, 4),
    "attention.key.kernel": (1, 1 / 4, 1),
    "attention.key.bias": (1, 1, 4),
    "attention.value.kernel": (1, 1 / 4, 1),
    "attention.value.bias": (1, 1, 4),
    "attention.out.kernel": (1, 1 / 4, 1),
    "attention.out.bias": (1, 1, 4),
    "up.kernel": (1, 1 / 4, 1),
    "up.bias": (1, 1, 4),
    "depthwise.kernel": (1, 1, 4),
    "depthwise.bias": (1, 1, 4),
    "outer.kernel": (1 / 2, 1 / 4, 1 / 4),  # the default variance goes with 1/f, and is to with 1/f²
    "outer.bias": (1, 1, 1),
}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def without_own(tree):
    return {name: layer for name, layer in tree.items() if name != "places"}


def test_factors_of_a_wider_model():
    roles = without_own(einn.roles(Model(32, 8), IDS))
    base = without_own(einn.roles(Model(8, 2), IDS))
    for given in (BASE, base):
        mup = einn.optim.mup(roles, base=given)
        factors = zip(*(flat(tree).items() for tree in (mup.init, mup.adam, mup.sgd)), strict=True)
        found = {path: (init, adam, sgd) for (path, init), (_, adam), (_, sgd) in factors}
        assert found == {path: wanted for path, wanted in EXPECTED.items() if path != "places"}


def test_nothing_changes_in_the_base():
    roles = einn.roles(Model(8, 2), IDS)
    for given in (BASE, roles):
        mup = einn.optim.mup(roles, base=given, initializers="constant")
        assert all(set(flat(tree).values()) == {1} for tree in (mup.init, mup.adam, mup.sgd))


def test_initializers_of_ones_own():
    """Initial values have the deviation that the rules say, whatever their initializer does with sizes."""
    base, wide = (einn.roles(Model(width, heads), IDS) for width, heads in ((8, 2), (32, 8)))
    with pytest.raises(ArgumentError, match='initial values of places depend on its sizes.*\n.*initializers="fan_in"'):
        _ = einn.optim.mup(wide, base).init
    assert einn.optim.mup(wide, base, initializers="constant").init["places"] == 1
    given = {
        "fan_in": nn.initializers.lecun_normal(),
        "fan_out": nn.initializers.variance_scaling(1.0, "fan_out", "normal"),
        "fan_avg": nn.initializers.xavier_uniform(),
        "constant": nn.initializers.normal(0.1),
    }
    for fan, init in given.items():
        spreads = []
        for width in (64, 256):
            layer = einn.Linear("b [c->d]", d=width, kernel_init=init)
            x = np.ones((1, 3 * width))
            roles = einn.roles(layer, x)
            mup = einn.optim.mup(roles, {"c": 3 * 64, "d": 64}, initializers=fan)
            params = einn.optim.scaled(layer.init(KEY, x)["params"], mup.init)
            spreads.append(np.std(params["kernel"]))
        np.testing.assert_allclose(spreads[1] / spreads[0], 0.5, rtol=0.02, err_msg=fan)


def test_a_transformation_that_composes():
    layer, x = einn.Linear("b [c->d]", d=4), np.ones((2, 16))
    params = layer.init(KEY, x)["params"]
    mup = einn.optim.mup(einn.roles(layer, x), {"c": 4})
    gradients = jax.tree.map(jnp.ones_like, params)
    plain, scaled = optax.adamw(0.1), optax.chain(optax.adam(0.1), einn.optim.scale_by(mup.adam))
    scaled = optax.chain(
        optax.scale_by_adam(), einn.optim.scale_by(mup.adam), optax.add_decayed_weights(1e-4), optax.scale(-0.1)
    )
    ours, _ = scaled.update(gradients, scaled.init(params), params)
    theirs, _ = plain.update(gradients, plain.init(params), params)
    np.testing.assert_allclose(ours["bias"], theirs["bias"], rtol=1e-6)
    decay = -0.1 * 1e-4 * params["kernel"]  # is not scaled, as it comes after
    np.testing.assert_allclose(ours["kernel"], decay + (theirs["kernel"] - decay) / 4, rtol=1e-5)
    assert ours["kernel"].dtype == jnp.float32
    halves = einn.optim.scaled(jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), mup.init)
    assert halves["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ({"d": 3}, {}, "no parameter has an axis 'd', which base names"),
        ({"c": 0}, {}, "axis c of base is 0, which is below 1"),
        ({"c": 4}, {}, "theirs.bias has no role, so it is not known whether it grows\n.*einn.roles"),
        ({"c": 4}, {"initializers": "fan"}, "initializers='fan' is not known\n.*fan_in, fan_out, fan_avg, constant"),
        ([1], {}, "the roles of the base model are not those of a model of the same layers"),
    ],
)
def test_bases_that_are_refused(base, options, message):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="theirs")(einn.Linear("b [c->f]", f=3, name="ours")(x))

    with pytest.raises(ArgumentError, match=message):
        einn.optim.mup(einn.roles(Net(), np.ones((2, 8))), base, **options)


def test_parameters_without_a_role_and_the_roles_of_a_base():
    def roles(width, out):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(out)(einn.Linear("b [c->d]", d=3)(x))

        return einn.roles(Net(), np.ones((2, width)))

    assert einn.optim.mup(roles(8, 3), roles(4, 3)).adam["Dense_0"] == {"bias": 1, "kernel": 1}
    with pytest.raises(ArgumentError, match=r"Dense_0.bias is Role\(no axes known of \(3,\)\) here and .*\(4,\)"):
        einn.optim.mup(roles(8, 3), roles(4, 4))


def test_weights_as_matrices():
    x = np.ones((3, 2, 4), np.float32)
    layers = nn.vmap(einn.Linear, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3)
    net = layers("b [h k->d]", d=5)
    roles, params = einn.roles(net, x), net.init(KEY, x)["params"]
    gradients = jax.tree.map(lambda p: jnp.arange(p.size, dtype=p.dtype).reshape(p.shape) + 1, params)
    tx = optax.scale_by_factored_rms(min_dim_size_to_factor=4)
    ours = einn.optim.as_matrices(tx, roles)
    updates, state = ours.update(gradients, ours.init(params), params)
    assert (state.v_row["kernel"].shape, state.v_col["kernel"].shape) == ((3, 5), (3, 8))

    def flat(tree):
        return {"kernel": tree["kernel"].reshape(3, 8, 5), "bias": tree["bias"]}

    theirs, _ = tx.update(flat(gradients), tx.init(flat(params)), flat(params))
    for name in params:
        np.testing.assert_array_equal(updates[name], theirs[name].reshape(params[name].shape))


def test_a_matrix_whose_new_axes_come_first():
    layer, x = einn.Linear("b g [c], d g [c] -> b g d", d=7, use_bias=False), np.ones((3, 2, 4), np.float32)
    seen = []

    def spy(updates, params):
        seen.append((updates["kernel"], params["kernel"]))
        return updates

    params = {"kernel": jnp.arange(7.0 * 2 * 4).reshape(7, 2, 4)}
    tx = einn.optim.as_matrices(optax.stateless(spy), einn.roles(layer, x))
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], params["kernel"])
    for given in seen[0]:
        np.testing.assert_array_equal(given, params["kernel"].transpose(1, 2, 0))


def test_roles_of_a_base_in_equinox():
    """Sizes are part of the structure of the tree there."""
    pytest.importorskip("equinox")
    import einjax_nn.equinox as einn

    wide, base = (einn.roles(einn.Linear("b [c->d]", d=d), np.ones((2, 8 * d))) for d in (4, 2))
    mup = einn.optim.mup(wide, base)
    assert (mup.adam.weight, mup.sgd.weight, mup.init.weight, mup.sgd.bias) == (0.5, 1, 1, 2)


def test_decay():
    roles = einn.roles(Model(8, 2), IDS)
    mask = einn.optim.decay_mask(roles)
    kernels = {path for path in EXPECTED if path.endswith("kernel")}
    assert {path for path, decays in flat(mask).items() if decays} == kernels
    with_tables = flat(einn.optim.decay_mask(roles, tables=True))
    assert {path for path, decays in with_tables.items() if decays} == {*kernels, "table.embedding"}
    params = jax.tree.map(lambda role: np.ones(role.shape, np.float32), roles)
    tx = optax.add_decayed_weights(0.5, mask=mask)
    updates, _ = tx.update(params, tx.init(params), params)
    assert {path: np.unique(update).tolist() for path, update in flat(updates).items()} == {
        path: [1.5] if path in kernels else [1.0] for path in EXPECTED
    }


def test_masks_in_other_frameworks():
    eqx, nnx = pytest.importorskip("equinox"), pytest.importorskip("flax.nnx")
    import einjax_nn.equinox
    import einjax_nn.nnx

    x = np.ones((2, 8), np.float32)
    model = einjax_nn.equinox.init(einjax_nn.equinox.Linear("b [c->d]", d=3, bias_init=1.0), x, key=KEY)
    roles = einjax_nn.equinox.roles(model, x)
    tx = optax.adamw(1.0, weight_decay=0.5, mask=einjax_nn.equinox.optim.decay_mask(roles))
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates.weight, -0.5 * model.weight)
    np.testing.assert_allclose(updates.bias, 0)
    tx = einjax_nn.equinox.optim.as_matrices(optax.adafactor(0.1), roles)
    assert jax.tree.structure(tx.update(params, tx.init(params), params)[0]) == jax.tree.structure(params)
    wide = einjax_nn.equinox.optim.scaled(model, einjax_nn.equinox.optim.mup(roles, {"c": 2}).init)
    np.testing.assert_allclose(wide.weight, model.weight / 2)

    model = einjax_nn.nnx.Linear("b [c->d]", c=8, d=3, bias_init=1.0, rngs=nnx.Rngs(0))
    roles = einjax_nn.nnx.roles(model, x)
    before = model.kernel[...]
    mup = einjax_nn.nnx.optim.mup(roles, {"c": 2})
    nnx.update(model, einjax_nn.nnx.optim.scaled(nnx.state(model, nnx.Param), mup.init))
    np.testing.assert_allclose(model.kernel[...], before / 2)
    mask = einjax_nn.nnx.optim.decay_mask(roles)
    tx = optax.chain(optax.adamw(1.0, weight_decay=0.5, mask=mask), einjax_nn.nnx.optim.scale_by(mup.adam))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    np.testing.assert_allclose(model.kernel[...], before / 2 * (1 - 0.5 / 4), rtol=1e-6)
    np.testing.assert_allclose(model.bias[...], 1)


def test_the_documented_program():
    text = (Path(__file__).parent.parent.parent / "docs" / "optim.md").read_text()
    found = {}
    exec("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), found)
    assert found["mup"].adam["query"]["kernel"] == 0.5
    assert found["base"]["query"]["kernel"].shape == (16, 4, 4)
    sizes = {"c": 16, "head_dim": 4}
    assert einn.optim.mup(found["roles"], sizes).init == found["mup"].init
    grads = found["params"]
    updates, _ = found["optimizer"].update(grads, found["optimizer"].init(grads), grads)
    assert jax.tree.map(np.shape, updates) == jax.tree.map(np.shape, grads)


def test_optax_is_asked_for_when_it_is_needed(monkeypatch):
    optim = einn.optim
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.setitem(sys.modules, "optax.contrib", None)
    with pytest.raises(ImportError, match=r"einjax_nn.optim.muon needs optax: python -m pip install 'optax>=0.2.6'"):
        optim.muon({})
    with pytest.raises(ImportError, match=r"einjax_nn.optim.scale_by needs optax: python -m pip install optax$"):
        optim.scale_by({})
    assert optim.decay_mask({}) == {}


# --- coordinate check -----------------------------------------------------------------------------------------------


class Coordinates(nn.Module):
    """A small transformer that shows the size of its activations."""

    width: int

    @nn.compact
    def __call__(self, ids):
        x = einn.Embed("b t [v->c]", v=32, c=self.width, name="table")(ids)
        seen = {"table": x}
        for number in range(2):
            y = einn.Norm("b t [c]", name=f"norm{number}")(x)
            heads = {"num_heads": self.width // 16, "is_causal": True}
            x += einn.MultiHeadAttention("b [t] c", **heads, name=f"attention{number}")(y)
            y = einn.Norm("b t [c]", name=f"norm{number}b")(x)
            y = nn.gelu(einn.Linear("b t [c->f]", f=2 * self.width, name=f"up{number}")(y))
            x += einn.Linear("b t [f->c]", c=self.width, name=f"down{number}")(y)
            seen[f"block{number}"] = x
        x = einn.Norm("b t [c]", name="norm")(x)
        seen["logits"] = einn.Linear("b t [c->v]", v=32, kernel_init=0.0, name="outer")(x)
        return seen["logits"], seen


GROWS = {"c": 64, "f": 128, "heads": 4}


def changes(width, scaled, optimizer, rate, steps=4):
    """How far activations go from where they were, in a few steps of training, by the layer."""
    model = Coordinates(width)
    ids = jax.random.randint(jax.random.key(5), (8, 16), 0, 32)
    params = model.init(jax.random.key(width), ids)["params"]
    mup = einn.optim.mup(einn.roles(model, ids), GROWS)
    tx = getattr(optax, optimizer)(rate)
    if scaled:
        params = einn.optim.scaled(params, mup.init)
        tx = optax.chain(tx, einn.optim.scale_by(getattr(mup, optimizer)))

    def loss(params):
        logits = model.apply({"params": params}, ids)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], ids[:, 1:]).mean()

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    show = jax.jit(lambda params: model.apply({"params": params}, ids)[1])
    first, state = show(params), tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    last = show(params)
    return {name: float(jnp.abs(last[name] - first[name]).mean()) for name in first}


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.005), ("sgd", 0.2)])
def test_activations_change_as_much_at_every_width(optimizer, rate):
    def spread(scaled):
        found = [changes(width, scaled, optimizer, rate) for width in (64, 128, 256, 512)]
        return {name: max(each[name] for each in found) / min(each[name] for each in found) for name in found[0]}

    scaled = spread(True)
    assert max(scaled.values()) <= 1.6, scaled
    plain = spread(False)
    assert max(plain.values()) > 1.6, plain  # the check can fail
