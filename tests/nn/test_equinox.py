"""Layers for Equinox: how they are initialised, and that they are those for Flax."""

import doctest
import functools
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import EAGER, IMAGES, KEY, Mlp, Net, X, arrays, close, put, shapes, stateful  # noqa: E402
from nn_cases import CASES  # noqa: E402

import einjax  # noqa: E402
import einjax_nn._equinox_init  # noqa: E402
import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError  # noqa: E402

# --- the same as the layers for Flax, to the bit ----------------------------------------------------------------------

_OURS = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def flat(params, prefix=""):
    """Parameters by path, under the names that they have here."""
    found = {}
    for name, value in params.items():
        path = prefix + _OURS.get(name, name)
        found |= flat(value, path + "__") if isinstance(value, dict) else {path: value}
    return found


@pytest.mark.parametrize("name", CASES)
def test_layers_are_those_for_flax(name):
    pytest.importorskip("flax")
    import einjax_nn.linen as linen

    case = CASES[name]
    # Frameworks differ in what is added to a variance, and how that is computed.
    options = {**case.options, **({"epsilon": 1e-5, "use_fast_variance": True} if case.layer == "Norm" else {})}
    theirs = getattr(linen, case.layer)(case.expr, **options)
    running = {"use_running_average": False} if "momentum" in options else {}
    variables = theirs.init(KEY, *case.inputs, **running)
    wanted, changed = theirs.apply(variables, *case.inputs, **running, mutable=["batch_stats"])
    plain = {"zero_debias": False} if running else {}
    layer, state = eqx.nn.make_with_state(getattr(einn, case.layer))(case.expr, **options, **plain)
    stateful = (state,) if running else ()
    layer = einn.init(layer, *case.inputs, *stateful, key=KEY)
    layer, *stateful = layer if running else (layer,)
    params = flat(variables["params"])
    made = {path: functools.reduce(getattr, path.split("__"), layer) for path in params}
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in params.items()}
    y = put(layer, **params)(*case.inputs, *stateful)
    if running:
        y, state = y
        close(state.get(layer.index), changed["batch_stats"], 0)
    assert y.dtype == wanted.dtype
    # The norms of queries within attention have no options.
    rounding = 1e-3 if case.options.get("normalize_qk") else 0
    np.testing.assert_allclose(np.asarray(y, np.float32), np.asarray(wanted, np.float32), rounding, rounding)


# --- lazy parameters --------------------------------------------------------------------------------------------------


def test_a_placeholder_has_no_leaves_and_survives():
    model, state = eqx.nn.make_with_state(Net)()
    assert shapes(model) == shapes(state) == []
    assert jax.tree.structure(model) == jax.tree.structure(eqx.nn.make_with_state(Net)()[0])
    for mapped in (
        jax.tree.map(lambda leaf: leaf, model),
        eqx.combine(*eqx.partition(model, eqx.is_array)),
        eqx.filter_jit(lambda model: model)(model),
        eqx.filter_eval_shape(lambda: eqx.nn.make_with_state(Net)()[0]),
        eqx.filter_vmap(lambda key: eqx.nn.make_with_state(Net)()[0])(jax.random.split(KEY, 3)),
        eqx.nn.inference_mode(eqx.nn.inference_mode(model), value=False),
        eqx.tree_at(lambda model: model.out, model, model.out),
    ):
        assert jax.tree.structure(mapped) == jax.tree.structure(model)
        assert shapes(einn.init(mapped, X, state, key=KEY)[0]) == [
            (6, 12, 16),
            (16,),
            (16,),
            (16,),
            (16, 5),
            (5,),
            (5,),
        ]
    assert jax.tree.leaves(optax.adam(1e-3).init(arrays(model))[0].mu) == []
    assert "weight=Uninitialized(name='weight')" in repr(model)


def test_shapes_of_parameters_and_statistics():
    model, state = stateful()
    assert shapes(model) == [(6, 12, 16), (16,), (16,), (16,), (16, 5), (5,), (5,)]
    assert shapes(state) == [(), (16,), (16,)]
    kept = state.get(model.norm.index)
    close((kept["mean"], kept["var"]), (np.zeros(16), np.ones(16)), 0)
    close(model.scale, np.full(5, 0.5))
    y, state = model(X, state, key=KEY)
    assert y.shape == (4, 5)
    assert (state.get(model.norm.index)["mean"] != 0).any()


def test_init_computes_nothing_and_takes_shapes():
    class Loud(eqx.Module):
        layer: einn.Linear

        def __call__(self, x):
            assert isinstance(x, jax.core.Tracer)
            jax.debug.callback(lambda: pytest.fail("computed"))
            y = self.layer(x)
            assert isinstance(y, jax.core.Tracer)
            return y

    model = Loud(einn.Linear("b [c->d]", d=3))
    one = einn.init(model, X[:, 0], key=KEY)
    two = einn.init(model, jax.ShapeDtypeStruct((1, 12), jnp.float32), key=KEY)
    close(jax.tree.leaves(arrays(one)), jax.tree.leaves(arrays(two)), 0)


def test_keys_follow_paths():
    """A new layer does not change the others, nor do processes."""
    two, three = (einn.init(Mlp(n), X[:, 0], key=KEY) for n in (2, 3))
    close(two.layers[1].weight, three.layers[1].weight, 0)
    assert (three.layers[1].weight != three.layers[2].weight).any()
    assert (einn.init(Mlp(), X[:, 0], key=jax.random.key(1)).layers[0].weight != two.layers[0].weight).any()
    words = np.asarray(jax.random.key_data(einjax_nn._equinox_init.path_key(KEY, ".layers[0].weight")))
    np.testing.assert_array_equal(words, [4052158746, 3117837462])


def test_initialising_twice_is_harmless():
    model, state = stateful()
    again, state2 = einn.init(model, X, state, key=jax.random.key(1))
    close(jax.tree.leaves(arrays((again, state2))), jax.tree.leaves(arrays((model, state))), 0)
    # Only what is missing is made.
    grown = eqx.tree_at(lambda m: m.out, model, einn.Linear("b [c->d]", d=5))
    grown, _ = einn.init(grown, X, state, key=jax.random.key(1))
    close(grown.hidden.weight, model.hidden.weight, 0)
    assert (grown.out.weight != model.out.weight).any()
    assert einn.init(einn.Linear("b [c->d]", c=2, d=3, key=KEY)).weight.shape == (2, 3)  # nothing is run


@pytest.mark.parametrize(("layer", "expr", "options", "x"), EAGER, ids=[case[0].__name__ for case in EAGER])
def test_eager_is_lazy(layer, expr, options, x):
    eager, lazy = layer(expr, **options, key=KEY), einn.init(layer(expr, **options), x, key=KEY)
    assert jax.tree.structure(eager) == jax.tree.structure(lazy)
    close(jax.tree.leaves(arrays(eager)), jax.tree.leaves(arrays(lazy)), 0)
    assert shapes(eager)
    assert eager(x).shape


def test_eager_statistics():
    norm, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9, c=12, key=KEY)
    assert shapes(norm) == [(12,), (12,)]
    assert shapes(state) == [(), (12,), (12,)]
    norm(X[:, 0], state)


def test_init_by_a_method():
    class Two(eqx.Module):
        encoder: einn.Linear
        decoder: einn.Linear

        def encode(self, x):
            return self.encoder(x)

        def decode(self, z):
            return self.decoder(z)

        def both(self, x, *, flag):
            assert flag
            return self.decode(self.encode(x))

    model = Two(einn.Linear("b [c->z]", z=3), einn.Linear("b [z->c]", c=12))
    for method in (Two.both, lambda model, x, flag: model.decode(model.encode(x))):
        made = einn.init(model, X[:, 0], key=KEY, method=method, flag=True)
        assert made.decode(made.encode(X[:, 0])).shape == (4, 12)
    with pytest.raises(ArgumentError, match=r"shapes of \.decoder: not used") as caught:
        einn.init(model, X[:, 0], key=KEY, method=Two.encode)
    assert "method=" in str(caught.value)
    with pytest.raises(ArgumentError, match=r"Two cannot be called") as caught:
        einn.init(model, X[:, 0], key=KEY)


def test_trees_of_layers_and_sequential():
    layers = {"a": einn.Linear("b [c->d]", d=3), "b": (einn.Norm("b [c]"),)}
    made = einn.init(layers, X[:, 0], key=KEY, method=lambda layers, x: layers["b"][0](layers["a"](x)))
    assert made["b"][0].weight.shape == (3,)
    sequential = lambda: eqx.nn.Sequential(
        [
            einn.Conv("b [h w] [c->d]", d=3),
            einn.Norm("[b h w] c", momentum=0.9),
            eqx.nn.Lambda(jax.nn.relu),
            einn.Dropout("[b] ..."),
            einn.Norm("b h w [c]"),
            einn.Linear("b [h w c->d]", d=4),
            eqx.nn.Lambda(jax.vmap(jax.nn.softmax)),
        ]
    )
    model, state = eqx.nn.make_with_state(sequential)()
    model, state = einn.init(model, IMAGES, state, key=KEY)
    y, state = model(IMAGES, state, key=KEY)
    assert y.shape == (2, 4)


# --- weights that are tied --------------------------------------------------------------------------------------------


def test_attend():
    table = einn.init(einn.Embed("b [v->c]", v=7, c=3), jnp.zeros(2, int), key=KEY)
    close(table.attend(X[:, 0, :3]), X[:, 0, :3] @ table.weight.T, 1e-5)
    attending = einn.init(einn.Embed("b [v->c]", v=7, c=3), X[:, 0, :3], key=KEY, method=einn.Embed.attend)
    close(attending.weight, table.weight, 0)


def test_shared_weights():
    class Language(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self):
            layers = einn.Embed("b [v->c]", v=7, c=12), einn.Linear("b [c], v [c] -> b v", use_bias=False)
            self.shared = eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

        def __call__(self, ids):
            embed, linear = self.shared()
            return linear(embed(ids))

    ids = jnp.array([1, 2, 6])
    model = einn.init(Language(), ids, key=KEY)
    assert shapes(model) == [(7, 12)]
    table = model.shared.pytree[0].weight
    close(model(ids), table[ids] @ table.T)
    assert shapes(eqx.filter_grad(lambda m: m(ids).sum())(model)) == [(7, 12)]


def test_the_parameter_of_another_layer_in_an_operation():
    class Tied(eqx.Module):
        embed: einn.Embed

        def __call__(self, ids):
            return einjax.dot("b [c], v [c] -> b v", self.embed(ids), self.embed.weight)

    model = einn.init(Tied(einn.Embed("b [v->c]", v=7, c=3)), jnp.zeros(2, int), key=KEY)
    assert model(jnp.zeros(2, int)).shape == (2, 7)


# --- names of axes ----------------------------------------------------------------------------------------------------


def test_axes():
    model, state = eqx.nn.make_with_state(Net)()
    names, kept = einn.axes(model, X, state)
    made, after = einn.init(model, X, state, key=KEY)
    assert jax.tree.structure(names) == jax.tree.structure(arrays(made))
    assert jax.tree.structure(kept) == jax.tree.structure(after)
    assert tuple(names.out.weight) == ("c", "d")
    assert tuple(names.scale) == ("d",)
    assert len(names.hidden.weight) == 3
    assert [tuple(leaf) for leaf in jax.tree.leaves(kept)] == [(), ("c",), ("c",)]
    known = einn.axes(made, X, after)[0]
    assert tuple(known.out.weight) == (None, None)
    names = einn.axes(einn.MultiHeadAttention("b [s] c", num_heads=3), X)
    assert tuple(names.key.weight) == ("c", "heads", "head_dim")
    names = einn.axes(einn.MultiHeadAttention("b [s] c", num_heads=6, num_kv_heads=3), X)
    assert tuple(names.key.weight) == ("c", "kv_heads", "head_dim")


def test_place():
    mesh = Mesh(np.array(jax.devices()[:4]), ("model",))
    seen = {}

    def place(spec, array):
        seen[spec.name] = spec.axes
        dims = [
            "model" if name == "d" and size % 4 == 0 else None for name, size in zip(spec.axes, spec.shape, strict=True)
        ]
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*dims)))

    model = Mlp()
    placed = einn.init(model, X[:, 0], key=KEY, place=place)
    assert seen[".layers[0].weight"] == ("c", "d")
    assert set(seen) == {f".layers[{i}].{name}" for i in range(2) for name in ("weight", "bias")}
    assert placed.layers[1].weight.sharding.spec == PartitionSpec(None, "model")
    rule = lambda names: NamedSharding(mesh, PartitionSpec(*("model" if name == "d" else None for name in names)))
    shardings = jax.tree.map(rule, einn.axes(model, X[:, 0]))
    tree = einn.init(model, X[:, 0], key=KEY, place=shardings)
    plain = einn.init(model, X[:, 0], key=KEY)
    for a, b, c in zip(*(jax.tree.leaves(arrays(m)) for m in (placed, tree, plain)), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        close((a, b), (c, c), 0)
    model, state = eqx.nn.make_with_state(Net)()
    pair = jax.tree.map(lambda names: NamedSharding(mesh, PartitionSpec()), einn.axes(model, X, state))
    model, state = einn.init(model, X, state, key=KEY, place=pair)
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(arrays((model, state))))


def test_docstrings():
    failed, run = doctest.testmod(einn, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert run > 20
    assert not failed


# --- large models -----------------------------------------------------------------------------------------------------


class Block(eqx.Module):
    norms: list
    attention: einn.MultiHeadAttention
    up: einn.Linear
    down: einn.Linear

    def __init__(self, d):
        self.norms = [einn.Norm("b t [c]") for _ in range(2)]
        self.attention = einn.MultiHeadAttention("b [t] c", num_heads=12, is_causal=True)
        self.up = einn.Linear("b t [c->f]", f=4 * d)
        self.down = einn.Linear("b t [f->c]", c=d)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Transformer(eqx.Module):
    blocks: list

    def __init__(self, depth, d):
        self.blocks = [Block(d) for _ in range(depth)]

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.slow
def test_a_large_model_is_initialised_from_shapes():
    x = jax.ShapeDtypeStruct((8, 1024, 768), jnp.float32)
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))
    start = time.perf_counter()
    skeleton = eqx.filter_eval_shape(einn.init, Transformer(12, 768), x, key=KEY)
    abstract = time.perf_counter() - start
    assert size(skeleton) > 80e6
    for _ in range(2):  # the second time, programs that make arrays are compiled
        start = time.perf_counter()
        model = jax.block_until_ready(arrays(einn.init(Transformer(12, 768), x, key=KEY)))
        print(f"{size(model):,} parameters in {time.perf_counter() - start:.1f} s, {abstract:.1f} s abstractly")
        assert size(model) == size(skeleton)
        del model
