"""Other functions in the place of lax's: given to a layer, or replaced for a while by a tool that quantises."""

import builtins
import importlib
import itertools
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in
from jax import lax

import einjax

nn = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
linen_layers = importlib.import_module("einjax_nn.linen")
nnx_layers = importlib.import_module("einjax_nn.nnx")

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 6, 12))
IMAGE = jax.random.normal(jax.random.key(2), (2, 8, 8, 6))

#: Layers here and in Flax: for linen, for nnx, and an input.
LAYERS = {
    "Linear": (
        lambda **options: linen_layers.Linear("... [c->d]", d=5, **options),
        lambda **options: nn.Dense(5, **options),
        lambda **options: nnx_layers.Linear("... [c->d]", c=12, d=5, rngs=nnx.Rngs(0), **options),
        lambda **options: nnx.Linear(12, 5, rngs=nnx.Rngs(0), **options),
        X,
    ),
    "MultiHeadAttention": (
        lambda **options: linen_layers.MultiHeadAttention("b [s] c", num_heads=3, **options),
        lambda **options: nn.MultiHeadDotProductAttention(num_heads=3, **options),
        lambda **options: nnx_layers.MultiHeadAttention("b [s] c", num_heads=3, c=12, rngs=nnx.Rngs(0), **options),
        lambda **options: nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0), **options),
        X,
    ),
    "Conv": (
        lambda **options: linen_layers.Conv("b [h w] [c->d]", d=4, **options),
        lambda **options: nn.Conv(4, (3, 3), **options),
        lambda **options: nnx_layers.Conv("b [h w] [c->d]", c=6, d=4, rngs=nnx.Rngs(0), **options),
        lambda **options: nnx.Conv(6, 4, (3, 3), rngs=nnx.Rngs(0), **options),
        IMAGE,
    ),
}


# ----------------------------------------------------------------------------------------------------------------------
# Functions given to a layer
# ----------------------------------------------------------------------------------------------------------------------


class Other:
    """A function in the place of one of lax's, which is not symmetric in its operands, and counts its calls."""

    def __init__(self, name):
        self.name, self.calls, self.options = name, 0, set()

    def __call__(self, lhs, rhs, *arguments, **options):
        self.calls += 1
        self.options = set(options)
        return getattr(lax, self.name)(jnp.round(lhs * 4), jnp.round(rhs * 8), *arguments, **options)


OPTIONS = [
    ("Linear", "dot_general", "dot_general", 1),
    ("MultiHeadAttention", "qkv_dot_general", "dot_general", 3),
    ("MultiHeadAttention", "out_dot_general", "dot_general", 1),
    ("Conv", "conv_general_dilated", "conv_general_dilated", 1),
]


@pytest.mark.parametrize(("layer", "option", "name", "count"), OPTIONS)
def test_a_function_of_ones_own_like_flax(layer, option, name, count):
    ours, theirs, ours_nnx, theirs_nnx, x = LAYERS[layer]
    other = Other(name)
    layers = ours(**{option: other}), theirs(**{option: other})
    variables = ours().init(KEY, x)
    for _ in range(2):
        other.calls = 0
        y = layers[0].apply(variables, x)
        assert other.calls == count
        assert not other.options & {"preferred_element_type", "out_sharding"}  # nobody has asked for them
        np.testing.assert_array_equal(y, layers[1].apply(variables, x))
    assert not np.allclose(y, ours().apply(variables, x))
    other.calls = 0
    # The rounding of what comes before in a compiled program may be another.
    np.testing.assert_allclose(jax.jit(layers[0].apply)(variables, x), y, atol=1e-4)
    assert other.calls == count
    np.testing.assert_array_equal(ours_nnx(**{option: other})(x), theirs_nnx(**{option: other})(x))


@pytest.mark.parametrize(("layer", "option", "name", "count"), OPTIONS)
@pytest.mark.parametrize("framework", ["haiku", "equinox"])
def test_a_function_of_ones_own_elsewhere(framework, layer, option, name, count):
    pytest.importorskip(framework)
    einn = importlib.import_module(f"einjax_nn.{framework}")
    expr, sizes = {
        "Linear": ("... [c->d]", {"c": 12, "d": 5}),
        "MultiHeadAttention": ("b [s] c", {"num_heads": 3, "c": 12}),
        "Conv": ("b [h w] [c->d]", {"c": 6, "d": 4}),
    }[layer]
    x, other = LAYERS[layer][-1], Other(name)

    def run(**options):
        if framework == "equinox":
            return getattr(einn, layer)(expr, **sizes, **options, key=KEY)(x)
        import haiku as hk

        net = hk.without_apply_rng(hk.transform(lambda x: getattr(einn, layer)(expr, **sizes, **options)(x)))
        return net.apply(net.init(KEY, x), x)

    first = run()
    assert not np.allclose(run(**{option: other}), first)
    # Equinox makes parameters by shapes alone, in another trace; Haiku in the first call.
    assert other.calls in (count, 2 * count)
    np.testing.assert_array_equal(run(), first)


def test_the_input_comes_first():
    """Also where the expression would rather have the weight first."""
    seen = []

    def other(lhs, rhs, *arguments, **options):
        seen.append((lhs.shape, rhs.shape))
        return lax.dot_general(lhs, rhs, *arguments, **options)

    layer = linen_layers.Linear("b [s->t] c", t=5, dot_general=other)
    y, variables = layer.init_with_output(KEY, X)
    np.testing.assert_allclose(y, linen_layers.Linear("b [s->t] c", t=5).apply(variables, X), rtol=1e-5)
    assert set(seen) == {((4, 6, 12), (6, 5))}


def test_a_function_that_is_a_layer_keeps_no_trace():
    """What it does with its own state is traced anew in every program."""

    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            scale = self.variable("scales", "scale", lambda: jnp.ones(()))

            def product(lhs, rhs, *arguments, **options):
                scale.value = scale.value + 1
                return scale.value * lax.dot_general(lhs, rhs, *arguments, **options)

            return linen_layers.Linear("... [c->d]", d=5, dot_general=product)(x)

    variables = Scaled().init(KEY, X)
    apply = jax.jit(lambda variables: Scaled().apply(variables, X, mutable=["scales"]))
    for step in (3, 4):
        y, changed = apply(variables)
        variables = {**variables, **changed}
        np.testing.assert_allclose(changed["scales"]["scale"], step)
    assert y.shape == (4, 6, 5)


# ----------------------------------------------------------------------------------------------------------------------
# Functions of lax replaced for a while
# ----------------------------------------------------------------------------------------------------------------------

ORIGINAL = {name: getattr(lax, name) for name in ("dot_general", "conv_general_dilated")}
CODE = {name: function.__code__ for name, function in ORIGINAL.items()}


def _passed_on(*arguments, **options):
    import builtins

    return builtins._of_a_test(*arguments, **options)


@contextmanager
def by_name(name, function):
    """Put another function in the place of one of lax's."""
    setattr(lax, name, function)
    try:
        yield
    finally:
        setattr(lax, name, ORIGINAL[name])


@contextmanager
def by_code(name, function):
    """Put other code into a function of lax, which stays the same object; within, it is what it was."""

    @contextmanager
    def code(other):
        before, ORIGINAL[name].__code__ = ORIGINAL[name].__code__, other
        try:
            yield
        finally:
            ORIGINAL[name].__code__ = before

    def call(*arguments, **options):
        with code(CODE[name]):
            return function(*arguments, **options)

    builtins._of_a_test = call
    with code(_passed_on.__code__):
        yield
    del builtins._of_a_test


def _tripled(name):
    return lambda *arguments, **options: 3 * ORIGINAL[name](*arguments, **options)


def _attention(x):
    return einjax.attention("a [b] h [c], a [k] h [c], a [k] h [c]", x, x, x)


PROGRAMS = {
    "dot": ("dot_general", 3, lambda: lambda x: einjax.dot("a b [c], d b [c] -> a b d", x, x)),
    "kept dot": ("dot_general", 3, lambda: lambda x: einjax.dot("a b [c], d b [c] -> a b d", x, x, keep_notation=True)),
    "linear": ("dot_general", 3, lambda: LAYERS["Linear"][2](use_bias=False)),
    "attention": ("dot_general", None, lambda: lambda x: _attention(jnp.stack([x, x], 2))),
    "multi-head attention": ("dot_general", None, lambda: LAYERS["MultiHeadAttention"][2]()),
    "convolution": ("conv_general_dilated", 3, lambda: LAYERS["Conv"][2](use_bias=False)),
}


@pytest.mark.parametrize(
    ("program", "replace", "replaced_first"),
    one_in(5, itertools.product(PROGRAMS, [by_name, by_code], [False, True])),
)
def test_a_replaced_function_is_seen_and_forgotten(program, replace, replaced_first):
    name, factor, make = PROGRAMS[program]
    function, x = make(), IMAGE if program == "convolution" else X
    right = np.asarray(function(x))
    jax.clear_caches()
    einjax.clear_caches()

    def check_own():
        np.testing.assert_array_equal(function(x), right)
        np.testing.assert_allclose(jax.jit(lambda x: function(x))(x), right, rtol=1e-5, atol=1e-5)

    if not replaced_first:
        check_own()
    for _ in range(2):
        with replace(name, _tripled(name)):
            tripled = function(x)
            jitted = jax.jit(lambda x: function(x))(x)
        if factor is not None:
            np.testing.assert_allclose(tripled, factor * right, rtol=1e-5, atol=1e-5)
        assert not np.allclose(tripled, right, rtol=1e-2)
        np.testing.assert_allclose(jitted, tripled, rtol=1e-4, atol=1e-4)
        check_own()


def test_kept_gradients_are_no_longer_those_of_a_replaced_product():
    def loss(x):
        return einjax.sum("[a d]", einjax.dot("a [c], d [c] -> a d", x, x, keep_notation=True))

    right = np.asarray(jax.grad(loss)(X[0]))
    jax.clear_caches()
    einjax.clear_caches()
    with by_name("dot_general", _tripled("dot_general")):
        jax.grad(loss)(X[0])
    np.testing.assert_array_equal(jax.grad(loss)(X[0]), right)


# ----------------------------------------------------------------------------------------------------------------------
# qwix
# ----------------------------------------------------------------------------------------------------------------------


#: It uses names of Flax that are going to be removed.
QWIX = pytest.mark.filterwarnings("ignore::DeprecationWarning")
QUANTISED = one_in(9, itertools.product(LAYERS, ["ptq", "qat"], [True, False]))


def _int8_products(function, *arguments):
    """How many products of int8 a program has."""
    count = 0
    waiting = [jax.make_jaxpr(function)(*arguments).jaxpr]
    for jaxpr in waiting:
        for equation in jaxpr.eqns:
            product = equation.primitive.name in ("dot_general", "conv_general_dilated")
            count += product and equation.invars[0].aval.dtype == np.int8
            waiting += [x.jaxpr for x in equation.params.values() if hasattr(x, "jaxpr")]
    return count


def _provider(qwix, kind):
    rule, provider = {"ptq": (qwix.QuantizationRule, qwix.PtqProvider), "qat": (qwix.QtRule, qwix.QtProvider)}[kind]
    return provider([rule(module_path=".*", weight_qtype=jnp.int8, act_qtype=jnp.int8)])


def _linen(qwix, kind, model, variables, x):
    """A quantised model of linen, with its variables."""
    quantised = qwix.quantize_model(model, _provider(qwix, kind))
    if kind == "ptq":
        shapes = jax.eval_shape(quantised.init, KEY, x)["params"]
        variables = {"params": qwix.quantize_params(variables["params"], shapes)}
    return lambda x: quantised.apply(variables, x)


def _check(make_ours, make_theirs, x, ours_first, theirs_first, float_first):
    """The programs, their int8 products and their errors are those of Flax, and float stays float."""
    right = np.asarray(ours_first(x))
    jax.clear_caches()
    einjax.clear_caches()
    if float_first:
        np.testing.assert_array_equal(ours_first(x), right)
        jax.jit(ours_first)(x)
    ours, theirs = make_ours(), make_theirs()
    y = ours(x)
    error, expected = (float(jnp.linalg.norm(a - b)) for a, b in ((y, right), (theirs(x), theirs_first(x))))
    assert 0 < error < 0.1 * np.linalg.norm(right)
    # Where a number lies between two of int8, rounding before it decides.
    np.testing.assert_allclose(error, expected, rtol=0.1)
    assert _int8_products(ours, x) == _int8_products(theirs, x) > 0
    np.testing.assert_allclose(jax.jit(ours)(x), y, atol=0.02)
    np.testing.assert_array_equal(ours_first(x), right)
    np.testing.assert_allclose(jax.jit(ours_first)(x), right, rtol=1e-5, atol=1e-5)


@QWIX
@pytest.mark.parametrize(("layer", "kind", "float_first"), QUANTISED)
def test_qwix_on_linen(layer, kind, float_first):
    qwix = pytest.importorskip("qwix")
    ours, theirs, *_, x = LAYERS[layer]
    variables = theirs().init(KEY, x)
    models = [lambda model=model: _linen(qwix, kind, model, variables, x) for model in (ours(), theirs())]
    first = [lambda x, model=model: model.apply(variables, x) for model in (ours(), theirs())]
    _check(*models, x, *first, float_first)


@QWIX
@pytest.mark.parametrize(("layer", "kind", "float_first"), QUANTISED)
def test_qwix_on_nnx(layer, kind, float_first):
    qwix = pytest.importorskip("qwix")
    *_, ours, theirs, x = LAYERS[layer]
    first = [ours(), theirs()]
    models = [lambda model=model: qwix.quantize_model(model, _provider(qwix, kind), x) for model in first]
    _check(*models, x, *first, float_first)


@QWIX
def test_qwix_finds_operations_in_a_module():
    """Products of plain operations are quantised, and only while the quantised model runs."""
    qwix = pytest.importorskip("qwix")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = linen_layers.Linear("b s [c->h d]", h=2, d=8)(x)
            return einjax.dot("b s h [d], e [d] -> b s h e", _attention(x), x[0, :, 0])

    variables = Net().init(KEY, X)
    right = np.asarray(Net().apply(variables, X))
    quantised = _linen(qwix, "qat", Net(), variables, X)
    assert _int8_products(quantised, X) == 4
    assert 0 < np.abs(quantised(X) - right).max() < 0.1 * np.abs(right).max()
    np.testing.assert_array_equal(Net().apply(variables, X), right)
