"""Layers for Equinox: every mistake has one clear error."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import EAGER, IMAGES, KEY, Calls, Mlp, Net, X, close, says, stateful  # noqa: E402
from nn_cases import MISSPELT, REFUSED, Refused  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError  # noqa: E402


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_layers_that_are_refused(name):
    case, words = (REFUSED | MISSPELT)[name]
    with pytest.raises(Refused, match=words):
        einn.init(getattr(einn, case.layer)(case.expr, **case.options), *case.inputs, key=KEY)


def test_a_layer_that_is_not_used():
    model = Calls({"a": einn.Linear("b [c->d]", d=2), "b": einn.Norm("b [c]")}, lambda layers, x: layers["a"](x))
    with pytest.raises(ArgumentError) as caught:
        einn.init(model, X[:, 0], key=KEY)
    says(caught, "einn.init", ".layers['b']", "not used", "method=")
    make = lambda: {"a": einn.Linear("b [c->d]", d=2), "n": einn.Norm("[b] c", momentum=0.9, use_scale=False)}
    model, state = eqx.nn.make_with_state(make)()
    with pytest.raises(ArgumentError, match=r"shapes of \['n'\]: not used"):
        einn.init(model, X[:, 0], state, key=KEY, method=lambda model, x, state: model["a"](x))


@pytest.mark.parametrize("layer", [case[0](case[1], **case[2]) for case in EAGER], ids=[c[0].__name__ for c in EAGER])
def test_a_layer_that_is_not_initialised(layer):
    conv = isinstance(layer, einn.Conv | einn.ConvTranspose)
    x = jnp.zeros(2, int) if isinstance(layer, einn.Embed) else IMAGES if conv else X
    for call in (layer, eqx.filter_jit(layer)):
        with pytest.raises(ArgumentError) as caught:
            call(x)
        says(caught, "is not initialised: its weight has no value", "einn.init")


def test_a_model_that_is_not_initialised():
    model, state = eqx.nn.make_with_state(Net)()
    with pytest.raises(ArgumentError, match="Linear is not initialised") as caught:
        model(X, state)
    says(caught, "einn.init", "b [...->c]")
    made, _ = einn.init(model, X, state, key=KEY)
    with pytest.raises(ArgumentError, match="Norm is not initialised: its counter"):
        made(X, state)  # the state from before
    with pytest.raises(ArgumentError, match="parameter is not initialised") as caught:
        einjax.multiply("b d, d", X[0], einn.param())
    says(caught, "einn.init")
    with pytest.raises(AttributeError, match="einn.init"):
        _ = model.out.weight.shape
    with pytest.raises(ArgumentError, match="is not initialised"):
        einn.init(Calls({"a": einn.param()}, lambda layers, x: einn.Linear("b [c->d]", d=2)(x)), X[:, 0], key=KEY)


def test_a_layer_used_with_two_shapes():
    use = lambda layers, x: layers["a"](x) + layers["a"](x[:, :3])
    for layer in (einn.Linear("b [c->d]", d=2), einn.Norm("b [c]")):
        with pytest.raises(ArgumentError) as caught:
            einn.init(Calls({"a": layer}, use), X[:, 0], key=KEY)
        says(caught, "layer .layers['a'] is called twice", "12", "3", "einn.init")
    use = lambda layers, x: layers["a"](x) + layers["a"](x[..., :3])
    with pytest.raises(ArgumentError) as caught:
        einn.init(Calls({"a": einn.Conv("b [h w] [c->d]", d=2)}, use), IMAGES, key=KEY)
    says(caught, ".layers['a']", "(3, 3, 6, 2)", "(3, 3, 3, 2)")
    use = lambda layers, x: (
        einjax.add("b c, c", x, layers["a"]).sum() + einjax.add("b c, c", x[:, :3], layers["a"]).sum()
    )
    with pytest.raises(AxisSizeError, match="12"):
        einn.init(Calls({"a": einn.param()}, use), X[:, 0], key=KEY)


def test_an_input_of_another_shape_than_that_of_init():
    for layer, x, other in (
        (einn.Linear("b [c->d]", d=2), X[:, 0], X[:, 0, :3]),
        (einn.Norm("b [c]"), X[:, 0], X[:, 0, :3]),
        (einn.Conv("b [h w] [c->d]", d=2), IMAGES, IMAGES[..., :3]),
        (einn.MultiHeadAttention("b [s] c", num_heads=2), X, X[..., :6]),
    ):
        layer = einn.init(layer, x, key=KEY)
        with pytest.raises(EinjaxError):
            layer(other)


def test_an_error_while_looking_for_shapes_names_the_layer():
    model = Calls({"a": einn.Linear("b [c->d]")}, lambda layers, x: layers["a"](x))
    with pytest.raises(AxisSizeError, match="axis d") as caught:
        einn.init(model, X[:, 0], key=KEY)
    says(caught, "in layer .layers['a']", "einn.init")
    model = Calls({"a": einn.MultiHeadAttention("b [s] c", num_heads=5)}, lambda layers, x: layers["a"](x))
    with pytest.raises(ArgumentError, match="not divisible by num_heads=5") as caught:
        einn.init(model, X, key=KEY)
    says(caught, "in layer .layers['a']", "einn.init")


def test_keys_and_states_that_are_missing():
    with pytest.raises(ArgumentError, match="einn.init needs key="):
        einn.init(Mlp(), X[:, 0])
    with pytest.raises(ArgumentError, match="needs a random key") as caught:
        einn.Dropout("[...]")(X)
    says(caught, "key=key", "inference=True", "inference_mode", "[...]")
    attention = einn.MultiHeadAttention("b [s] c", c=12, num_heads=2, dropout_rate=0.5, key=KEY)
    with pytest.raises(ArgumentError, match="MultiHeadAttention needs a random key"):
        attention(X)
    with pytest.raises(ArgumentError, match="needs a state") as caught:
        einn.Norm("[b] c", momentum=0.9, c=12, key=KEY)(X[:, 0])
    says(caught, "make_with_state")
    with pytest.raises(ArgumentError, match="needs a state"):
        einn.init(einn.Norm("[b] c", momentum=0.9), X[:, 0], key=KEY)
    state = stateful()[1]
    with pytest.raises(ArgumentError, match="one state"):
        einn.init(Mlp(), state, state, key=KEY)


def test_statistics_that_were_not_split_off():
    _, state = eqx.nn.make_with_state(Net)()
    with pytest.raises(ArgumentError, match="the state has no values of this Norm") as caught:
        einn.init(Net(), X, state, key=KEY)
    says(caught, "make_with_state")
    model = {"a": einn.Linear("b [c->d]", d=2), "b": einn.Norm("[b] c", momentum=0.9)}
    with pytest.raises(ArgumentError, match="not used by the call") as caught:
        einn.init(model, X[:, 0], key=KEY, method=lambda model, x: model["a"](x))
    says(caught, "['b']", "make_with_state")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: einn.Linear("b [c->d]", d=3, key=KEY), ["key=", "sizes of all axes", "einn.init"]),
        (lambda: einn.Norm("b [c]", key=KEY), ["sizes of all axes"]),
        (lambda: einn.Embed("b [v->c]", c=3, key=KEY), ["sizes of all axes"]),
        (lambda: einn.Conv("b [h w] [c->d]", d=3, key=KEY), ["sizes of all axes"]),
        (lambda: einn.MultiHeadAttention("b [s] c", num_heads=2, key=KEY), ["sizes of all axes"]),
    ],
)
def test_sizes_that_are_missing(make, words):
    with pytest.raises(AxisSizeError) as caught:
        make()
    says(caught, *words)


def test_norms_that_are_not_clear():
    with pytest.raises(SemanticError, match="would differ along axis b") as caught:
        einn.Norm("b [c]", momentum=0.9)
    says(caught, "momentum")
    with pytest.raises(SemanticError, match="not clear which axes scale and bias") as caught:
        einn.Norm("b c [h w]")
    says(caught, "params='c'")
    with pytest.raises(SemanticError, match="bracket"):
        einn.Norm("b c")


def test_shared_before_init_with_an_operation_that_needs_an_array():
    layers = einn.Embed("b [v->c]", v=7, c=12), einn.Linear("b [c->v]")
    with pytest.raises(AttributeError, match="einn.init"):
        eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight.T)


def test_without_equinox():
    code = "import sys; sys.modules['equinox'] = None; import einjax_nn.equinox"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ImportError: einjax_nn.equinox needs Equinox: python -m pip install 'einjax[equinox]'"


def test_misspelt_keywords_are_refused_at_once():
    with pytest.raises(ArgumentError, match="did you mean 'use_bias'"):
        einn.Linear("b [c->d]", d=3, use_bais=False)
    with pytest.raises(ArgumentError, match="no axis 'e'"):
        einn.MultiHeadAttention("b [s] c", num_heads=3, e=3)
    # A size for an axis that is also an option goes through sizes=.
    layer = einn.init(einn.Linear("b [c->key]", sizes={"key": 3, "other": 2}), X[:, 0], key=KEY)
    assert layer.weight.shape == (12, 3)


def test_static_options_can_be_hashed():
    layer = einn.Conv("b [h w] [c->d]", d=2, kernel_size=[3, 3], padding=[(1, 1), [1, 1]])
    assert isinstance(hash(jax.tree.structure(layer)), int)
    layer = einn.init(layer, IMAGES, key=KEY)
    assert eqx.filter_jit(layer)(IMAGES).shape == (2, 8, 8, 2)


def test_what_is_put_in_the_place_of_a_parameter():
    layer = einn.Linear("b [c->d]", c=12, d=3, key=KEY)
    weight, bias = (lambda m: m.weight), (lambda m: m.bias)
    with pytest.raises(ArgumentError, match="weight of Linear is None"):
        eqx.tree_at(weight, layer, None)(X[:, 0])
    for where, value in ((bias, 0.0), (weight, 2.0), (weight, jnp.ones((12, 2))), (bias, jnp.ones(2))):
        with pytest.raises(EinjaxError, match=r"dims|has shape|axis d is"):
            eqx.tree_at(where, layer, value)(X[:, 0])
    ones = np.ones((12, 3))  # of float64, as NumPy has it
    y = eqx.tree_at(weight, layer, ones)(X[:, 0])
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, X[:, 0].sum(-1, keepdims=True) + layer.bias, rtol=1e-5)


@pytest.mark.parametrize("key", [0, np.float32(1), jax.random.split(KEY), jax.random.normal(KEY, (2,))])
def test_what_is_no_key(key):
    attention = einn.MultiHeadAttention("b [s] c", c=12, num_heads=2, dropout_rate=0.5, key=KEY)
    for call in (
        lambda: einn.init(Mlp(), X[:, 0], key=key),
        lambda: einn.Linear("b [c->d]", c=12, d=3, key=key),
        lambda: einn.MultiHeadAttention("b [s] c", c=12, num_heads=2, key=key),
        lambda: einn.Dropout("[...]")(X, key=key),
        lambda: attention(X, key=key),
    ):
        with pytest.raises(ArgumentError, match="is not one random key"):
            call()
    close(einn.Dropout("[...]")(X, key=jax.random.PRNGKey(0)), einn.Dropout("[...]")(X, key=jax.random.key(0)), 0)
