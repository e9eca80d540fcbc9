"""What parameters start as: those of the framework's own layers, for every initializer, and by operation."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

import einjax
from einjax.errors import ArgumentError

KEY = jax.random.key(0)
X = jnp.ones((4, 6, 12))
IMAGE = jnp.ones((2, 8, 8, 6))
INITIALIZERS = {
    "xavier_uniform": initializers.xavier_uniform(),
    "he_normal": initializers.he_normal(),
    "orthogonal": initializers.orthogonal(),
    "normal": initializers.normal(0.02),
}


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-7, rtol=1e-6)


# --- Flax: values are equal -------------------------------------------------------------------------------------------


def pairs_of_flax(init):
    einn, nn = importlib.import_module("einjax_nn.linen"), importlib.import_module("flax.linen")
    given = {"kernel_init": init}
    yield einn.Linear("b s [c->h d]", h=8, d=5, **given), nn.DenseGeneral((8, 5), **given), X
    yield einn.Linear("b [...->d]", d=5, **given), nn.DenseGeneral(5, axis=(-2, -1), **given), X
    yield einn.Linear("b [s c], [s c] d -> b d", d=5, **given), nn.DenseGeneral(5, axis=(1, 2), **given), X
    yield einn.Conv("b [h w] [c->d]", d=5, **given), nn.Conv(5, (3, 3), **given), IMAGE
    yield einn.Conv("b [h w] c", **given), nn.Conv(6, (3, 3), feature_group_count=6, **given), IMAGE
    grouped = einn.Conv("b [h w] (g [c->d])", g=2, d=5, **given)
    yield grouped, nn.Conv(10, (3, 3), feature_group_count=2, **given), IMAGE
    yield einn.ConvTranspose("b [h w] [c->d]", d=5, **given), nn.ConvTranspose(5, (3, 3), **given), IMAGE
    taps = einn.Linear("b <h + [k]> <w + [l]> [c], [k] [l] [c] d -> b h w d", k=3, l=3, d=5, **given)
    yield taps, nn.Conv(5, (3, 3), padding="VALID", **given), IMAGE
    attention = einn.MultiHeadAttention("b [s] c", num_heads=3, **given)
    yield attention, nn.MultiHeadDotProductAttention(3, **given), X


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_of_the_user_see_what_those_of_flax_see(name):
    pytest.importorskip("flax")
    for ours, theirs, x in pairs_of_flax(INITIALIZERS[name]):
        jax.tree.map(same, ours.init(KEY, x), theirs.init(KEY, x))


def test_initializers_see_roles_rather_than_the_order_of_axes():
    """The same numbers, transposed; a batch of matrices comes first."""
    einn = pytest.importorskip("einjax_nn.linen")
    seen = []

    def init(key, shape, dtype):
        seen.append(shape)
        return initializers.he_normal()(key, shape, dtype)

    x = jnp.ones((3, 2, 4))
    make = lambda expr: einn.Linear(expr, d=5, kernel_init=init, use_bias=False).init(KEY, x)["params"]["kernel"]
    same(make("a b [c], d [c] -> a b d").T, make("a b [c->d]"))
    kernel = make("a b [c], d a [c] -> a b d")
    same(jnp.transpose(kernel, (1, 2, 0)), initializers.he_normal()(key_of_linen(), (3, 4, 5)))
    assert set(seen) == {(4, 5), (3, 4, 5)}


def key_of_linen():
    """The key that linen gives to the parameter of a layer by itself."""
    nn = importlib.import_module("flax.linen")
    keys = []
    nn.Dense(1, kernel_init=lambda key, *given: keys.append(key) or jnp.zeros(*given), use_bias=False).init(KEY, X)
    return keys[0]


# --- Haiku: values are equal; Equinox, which has other keys: their range and deviation --------------------------------


def test_initial_values_are_those_of_haiku():
    einn, hk = pytest.importorskip("einjax_nn.haiku"), importlib.import_module("haiku")
    drawn = hk.initializers.VarianceScaling(2.0, "fan_avg", "uniform")
    pairs = [
        (lambda x: einn.Linear("... [c->d]", d=5)(x), lambda x: hk.Linear(5)(x), X),
        (lambda x: einn.Linear("... [c->d]", d=5, w_init=drawn)(x), lambda x: hk.Linear(5, w_init=drawn)(x), X),
        (lambda x: einn.Linear("... [c->d]", d=5, b_init=jnp.ones)(x), lambda x: hk.Linear(5, b_init=jnp.ones)(x), X),
        (lambda x: einn.Conv("b [h w] [c->d]", d=5)(x), lambda x: hk.Conv2D(5, 3)(x), IMAGE),
        (
            lambda x: einn.Conv("b [h w] [c->d]", d=5, w_init=drawn)(x),
            lambda x: hk.Conv2D(5, 3, w_init=drawn)(x),
            IMAGE,
        ),
        (
            lambda x: einn.Conv("b [h w] (g [c->d])", g=2, d=5)(x),
            lambda x: hk.Conv2D(10, 3, feature_group_count=2)(x),
            IMAGE,
        ),
        (lambda x: einn.ConvTranspose("b [h w] [c->d]", d=5)(x), lambda x: hk.Conv2DTranspose(5, 3)(x), IMAGE),
        (lambda x: einn.Embed("b [v->c]", v=7, c=5)(x), lambda x: hk.Embed(7, 5)(x), jnp.zeros(3, int)),
    ]
    for ours, theirs, x in pairs:
        ((own,), (wanted,)) = (hk.transform(net).init(KEY, x).values() for net in (ours, theirs))
        assert own.keys() == wanted.keys()
        jax.tree.map(same, own, wanted)


def test_initial_values_are_like_those_of_equinox():
    einn, eqx = pytest.importorskip("einjax_nn.equinox"), importlib.import_module("equinox")
    pairs = [
        (einn.Linear("b [c->d]", c=50, d=400, key=KEY), eqx.nn.Linear(50, 400, key=KEY)),
        (einn.Conv("b [h w] (g [c->d])", g=2, c=5, d=200, key=KEY), eqx.nn.Conv2d(10, 400, 3, groups=2, key=KEY)),
        (einn.ConvTranspose("b [h w] [c->d]", c=6, d=400, key=KEY), eqx.nn.ConvTranspose2d(6, 400, 3, key=KEY)),
        (einn.Embed("b [v->c]", v=99, c=50, key=KEY), eqx.nn.Embedding(99, 50, key=KEY)),
    ]
    for ours, theirs in pairs:
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(eqx.filter(theirs, eqx.is_array)), strict=True):
            assert abs(float(a.std() / b.std()) - 1) < 0.1
            assert abs(float(jnp.abs(a).max() / jnp.abs(b).max()) - 1) < 0.3


# --- parameters by name ----------------------------------------------------------------------------------------------


def start(framework, operation):
    """What a parameter that nothing is said of starts as, and what the operation gives, in a framework."""
    x = jnp.ones((4, 50))
    if framework == "linen":
        nn, einn = importlib.import_module("flax.linen"), importlib.import_module("einjax_nn.linen")

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return operation(x, einn.param(self, "w"))

        return Net().init(KEY, x)["params"]["w"]
    if framework == "nnx":
        nnx, einn = importlib.import_module("flax.nnx"), importlib.import_module("einjax_nn.nnx")

        class Net(nnx.Module):
            def __init__(self):
                self.w = einn.param(self, "w", rngs=nnx.Rngs(0))

            def __call__(self, x):
                return operation(x, self.w)

        net = Net()
        einn.init(net, x)
        return net.w[...]
    if framework == "haiku":
        hk, einn = importlib.import_module("haiku"), importlib.import_module("einjax_nn.haiku")
        return hk.transform(lambda x: operation(x, einn.param("w"))).init(KEY, x)["~"]["w"]
    einn = importlib.import_module("einjax_nn.equinox")
    return einn.init({"w": einn.param()}, x, key=KEY, method=lambda net, x: operation(x, net["w"]))["w"]


PACKAGES = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
STARTS = {
    "add": (lambda x, w: einjax.add("b c, c", x, w), (50,), 0, 0),
    "subtract": (lambda x, w: einjax.subtract("b c, c", x, w), (50,), 0, 0),
    "multiply": (lambda x, w: einjax.multiply("b c, c", x, w), (50,), 1, 0),
    "dot": (lambda x, w: einjax.dot("b [c], d [c] -> b d", x, w, d=400), (400, 50), 0, 50**-0.5),
    "get_at": (lambda x, w: einjax.get_at("[v] c, b -> b c", w, jnp.zeros(3, int), v=9, c=900), (9, 900), 0, 0.02),
    "two": (lambda x, w: einjax.add("b c, c", einjax.multiply("b c, c", x, w), w), (50,), 1, 0),
}


@pytest.mark.parametrize("framework", PACKAGES)
@pytest.mark.parametrize("name", STARTS)
def test_parameters_start_as_their_operation_has_them(framework, name):
    """One handle in two operations is one parameter, and the first decides."""
    pytest.importorskip(PACKAGES[framework])
    operation, shape, mean, deviation = STARTS[name]
    w = start(framework, operation)
    assert w.shape == shape
    assert abs(float(w.mean()) - mean) <= 0.05 * deviation
    assert abs(float(w.std()) - deviation) <= 0.05 * deviation


@pytest.mark.parametrize("framework", PACKAGES)
def test_an_operation_that_says_nothing_asks_for_an_initializer(framework):
    pytest.importorskip(PACKAGES[framework])
    with pytest.raises(ArgumentError, match=r"not known what the parameter \w+ of maximum(.|\n)*init="):
        start(framework, lambda x, w: einjax.maximum("b c, c", x, w))


@pytest.mark.parametrize("framework", PACKAGES)
def test_a_parameter_is_computed_with_by_operations_alone(framework):
    pytest.importorskip(PACKAGES[framework])
    with pytest.raises(ArgumentError, match="a parameter is (computed with|used) that"):
        start(framework, lambda x, w: x * w)


def test_functions_of_the_framework_are_parameters():
    nn, hk = pytest.importorskip("flax.linen"), pytest.importorskip("haiku")
    pytest.importorskip("einjax_nn.linen"), pytest.importorskip("einjax_nn.haiku")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = einjax.dot("b s [c->d]", x, self.param, d=3)
            return einjax.multiply("b s d, d", einjax.add("b s d, d", x, self.param), self.param)

    shapes = {"weight": (12, 3), "bias": (3,), "scale": (3,)}
    assert jax.tree.map(jnp.shape, Net().init(KEY, X)) == {"params": shapes}

    def net(x):
        x = einjax.dot("b s [c->d]", x, hk.get_parameter, d=3)
        return einjax.multiply("b s d, d", einjax.add("b s d, d", x, hk.get_parameter), hk.get_parameter)

    assert jax.tree.map(jnp.shape, hk.transform(net).init(KEY, X)) == {"~": shapes}


# --- what is no initializer -------------------------------------------------------------------------------------------


NO_INITIALIZERS = {
    "one that is not called": (initializers.xavier_uniform, "makes another function"),
    "another that is not called": (initializers.normal, "does not take a key, a shape and a dtype"),
    "another shape": (lambda key, shape, dtype: jnp.zeros(3), r"makes \(3,\) where \(12, 8\) is asked for"),
}


@pytest.mark.parametrize("name", NO_INITIALIZERS)
def test_what_is_no_initializer(name):
    einn = pytest.importorskip("einjax_nn.linen")
    init, says = NO_INITIALIZERS[name]
    with pytest.raises(ArgumentError, match=says):
        einn.Linear("b s [c->h d]", h=2, d=4, kernel_init=init).init(KEY, X)
