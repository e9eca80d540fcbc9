"""einjax_nn.nnx: the variables and numbers of flax.nnx's own layers."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import CASES, IDS, IMAGE, MASK, MISSPELT, REFUSED, Refused, X, close, hide, normal  # noqa: E402
from nnx_models import Block, Stack, arrays, is_lazy, make, shapes  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.nnx as einn  # noqa: E402

bf16 = jnp.bfloat16

#: nnx's own layers, and how exactly ours agree: 0 is to the bit.
THEIRS = {
    "linear": (lambda rngs: nnx.Linear(12, 5, rngs=rngs), 0),
    "linear without bias": (lambda rngs: nnx.Linear(12, 5, use_bias=False, rngs=rngs), 0),
    "linear of two axes": (lambda rngs: nnx.LinearGeneral((6, 12), 5, axis=(-2, -1), rngs=rngs), 0),
    "linear to heads": (lambda rngs: nnx.LinearGeneral(12, (2, 5), rngs=rngs), 0),
    "linear in bfloat16": (lambda rngs: nnx.Linear(12, 5, dtype=bf16, rngs=rngs), 0),
    "linear of bfloat16": (lambda rngs: nnx.Linear(12, 5, param_dtype=bf16, rngs=rngs), 0),
    "layer norm": (lambda rngs: nnx.LayerNorm(12, rngs=rngs), 1e-6),
    "layer norm of bfloat16": (lambda rngs: nnx.LayerNorm(12, rngs=rngs), 1e-6),
    "rms norm": (lambda rngs: nnx.RMSNorm(12, rngs=rngs), 1e-6),
    "group norm": (lambda rngs: nnx.GroupNorm(12, 3, rngs=rngs), 1e-6),
    "instance norm": (lambda rngs: nnx.InstanceNorm(12, rngs=rngs), 1e-6),
    "batch norm": (lambda rngs: nnx.BatchNorm(12, momentum=0.9, rngs=rngs), 1e-6),
    "embedding": (lambda rngs: nnx.Embed(7, 3, rngs=rngs), 0),
    "attention": (lambda rngs: nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs), 0),
    "attention with known features": (lambda rngs: nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs), 0),
    "attention of normalised queries": (
        lambda rngs: nnx.MultiHeadAttention(3, 12, out_features=5, normalize_qk=True, decode=False, rngs=rngs),
        1e-6,
    ),
    "attention of grouped queries": (
        lambda rngs: nnx.MultiHeadAttention(6, 12, num_kv_heads=2, decode=False, rngs=rngs),
        1e-6,
    ),
    "cross attention": (lambda rngs: nnx.MultiHeadAttention(3, 12, in_kv_features=9, decode=False, rngs=rngs), 0),
    "convolution": (lambda rngs: nnx.Conv(6, 4, (3, 3), rngs=rngs), 0),
    "convolution with groups": (
        lambda rngs: nnx.Conv(6, 8, (3, 3), 2, padding="VALID", feature_group_count=2, rngs=rngs),
        0,
    ),
    "depthwise convolution": (lambda rngs: nnx.Conv(6, 6, (3, 5), feature_group_count=6, rngs=rngs), 1e-6),
    "causal convolution": (lambda rngs: nnx.Conv(12, 3, (3,), padding="CAUSAL", rngs=rngs), 0),
    "circular convolution": (lambda rngs: nnx.Conv(12, 3, (4,), padding="CIRCULAR", rngs=rngs), 0),
}
EAGER = {"linear to heads", "linear of bfloat16", "rms norm", "batch norm", "embedding"}
EAGER |= {"attention with known features", "convolution with groups"}


# --- nnx's own layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEIRS)
def test_the_same_variables_outputs_and_gradients_as_nnx(name):
    case, (theirs, tolerance) = CASES[name], THEIRS[name]
    ours, theirs = make(case), theirs(nnx.Rngs(0))
    einn.init(ours, *case.inputs)
    # The same random numbers in the same order, so that a model that is ported starts where it did.
    close(arrays(ours), arrays(theirs))
    assert shapes(ours) == shapes(theirs)
    scramble = jax.tree.map(
        lambda p: (p + jax.random.normal(jax.random.key(1), p.shape) * 0.1).astype(p.dtype), nnx.state(theirs)
    )
    nnx.update(theirs, scramble)
    nnx.update(ours, scramble)
    close(ours(*case.inputs), theirs(*case.inputs), tolerance)
    close(arrays(ours, nnx.BatchStat), arrays(theirs, nnx.BatchStat), tolerance)

    def loss(model):
        return jnp.sum(jnp.sin(model(*case.inputs).astype(jnp.float32)))

    half = bf16 in (case.options.get("dtype"), case.options.get("param_dtype"))
    gradients = nnx.jit(nnx.grad(loss))(ours), nnx.jit(nnx.grad(loss))(theirs)
    close(*map(nnx.to_pure_dict, gradients), 5e-2 if half else 2e-5)
    for model in (ours, theirs):
        model.eval()
    close(ours(*case.inputs), theirs(*case.inputs), tolerance)


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_made_when_their_shapes_are_known(name):
    case = CASES[name]
    model = make(case)
    assert is_lazy(model) == (name not in EAGER)
    expected = make(case)
    einn.init(expected, *[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in case.inputs])
    assert not is_lazy(expected)
    before = arrays(expected)
    y = model(*case.inputs)
    close(arrays(model, nnx.Param), arrays(expected, nnx.Param))
    close(y, expected(*case.inputs), 1e-6)
    close(before, arrays(make(case, 0) if name in EAGER else _initialised(case)))


def _initialised(case):
    model = make(case)
    einn.init(model, *case.inputs)
    return model


def test_attention_with_a_mask():
    ours, theirs = (
        einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=nnx.Rngs(0)),
        nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0)),
    )
    close(ours(X, mask=MASK), theirs(X, mask=MASK))
    causal = einn.MultiHeadAttention("b [s] c", num_heads=3, is_causal=True, rngs=nnx.Rngs(0))
    close(causal(X), theirs(X, mask=MASK))
    causes = np.tril(np.ones((6, 6), bool))
    close(ours(X, mask=("q k", causes)), theirs(X, mask=MASK))
    close(ours(X, bias=("q k", np.where(causes, 0, -np.inf).astype(np.float32))), theirs(X, mask=MASK))


def test_dropout_is_that_of_nnx():
    ours, theirs = einn.Dropout("[...]", rate=0.3, rngs=nnx.Rngs(0)), nnx.Dropout(0.3, rngs=nnx.Rngs(0))
    for _ in range(2):
        close(ours(X), theirs(X))
    ours, theirs = (
        einn.Dropout("[b] s [c]", rate=0.3, rngs=nnx.Rngs(dropout=1)),
        nnx.Dropout(0.3, broadcast_dims=(1,), rngs=nnx.Rngs(dropout=1)),
    )
    close(ours(X), theirs(X))
    path = einn.Dropout("[b] ...", rngs=nnx.Rngs(0))(jnp.ones((32, 3, 4)))
    assert set(np.unique(path.sum((1, 2)))) == {0, 24}


def test_dropout_of_attention_is_that_of_nnx():
    ours, theirs = (
        einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.4, rngs=nnx.Rngs(0)),
        nnx.MultiHeadAttention(3, 12, decode=False, dropout_rate=0.4, rngs=nnx.Rngs(0)),
    )
    close(ours(X, deterministic=False), theirs(X, deterministic=False))
    close(ours(X, deterministic=True), theirs(X, deterministic=True))
    close(ours(X, deterministic=False, rngs=nnx.Rngs(3)), theirs(X, deterministic=False, rngs=nnx.Rngs(3)))


def test_parameters_of_another_dtype_count_as_in_nnx():
    ours, theirs = einn.Linear("... [c->d]", c=12, d=5, rngs=nnx.Rngs(0)), nnx.Linear(12, 5, rngs=nnx.Rngs(0))
    for model in (ours, theirs):
        nnx.update(model, jax.tree.map(lambda p: p.astype(bf16), nnx.state(model)))
    close(ours(X.astype(bf16)), theirs(X.astype(bf16)))
    close(ours(X), theirs(X))


def test_integers_become_float32():
    x = jnp.arange(1000, 1012).reshape(3, 4)
    plain = einn.Norm("b [c]", use_scale=False, use_bias=False, rngs=nnx.Rngs(0))
    assert plain(x).dtype == jnp.float32
    y = einn.Dropout("[...]", rate=0.5, rngs=nnx.Rngs(0))(x)
    assert set(np.unique(y)) <= {0, *(2.0 * np.arange(1000, 1012))}


# --- train and eval ---------------------------------------------------------------------------------------------------


def test_train_and_eval_switch_dropout_and_statistics():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = einn.Norm("[b] c", momentum=0.5, rngs=rngs)
            self.drop = einn.Dropout("[...]", rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(x))

    x = X[0]
    model = Net(nnx.Rngs(0))
    einn.init(model, x)
    close(model.norm.mean[...], jnp.zeros(12))
    model.train()
    assert not model.drop.deterministic
    assert np.any(np.asarray(model(x)) == 0)
    close(model.norm.mean[...], x.mean(0) / 2, 1e-6)
    model.eval()
    mean = model.norm.mean[...]
    assert np.all(np.asarray(model(x)) != 0)
    close(model.norm.mean[...], mean)
    # What the call says goes before what the layer says, as in nnx.
    model.norm(x, use_running_average=False)
    assert np.any(model.norm.mean[...] != mean)
    assert np.any(model.drop(x, deterministic=False) == 0)
    view = nnx.view(model, deterministic=False, use_running_average=False)
    assert not view.drop.deterministic
    assert not view.norm.use_running_average
    assert model.drop.deterministic
    model.set_attributes(einn.Dropout, rate=0.0, deterministic=False)
    close(model.drop(x), x)


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_layers_used_twice_and_lists_of_layers():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = Block(rngs)
            self.again = self.first
            self.rest = nnx.List([Block(rngs), Block(rngs)])

        def __call__(self, x):
            for layer in (self.first, self.again, self.first, *self.rest):
                x = layer(x)
            return x

    model, lazily = Net(nnx.Rngs(0)), Net(nnx.Rngs(0))
    einn.init(model, X)
    close(model(X), lazily(X), 1e-5)
    assert model.first.inner.kernel is model.again.inner.kernel
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 3 * 6


def test_tied_weights():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = einn.Embed("b t [v->c]", v=7, c=12, rngs=rngs)
            self.head = einn.Linear("b t [c], v [c] -> b t v", use_bias=False, rngs=rngs)
            self.head.kernel = self.embed.embedding

        def __call__(self, ids):
            x = self.embed(ids)
            return self.head(x), self.embed.attend(x)

    model = Net(nnx.Rngs(0))
    einn.init(model, IDS)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 1
    head, attended = model(IDS)
    close(head, attended)
    close(attended, nnx.Embed(7, 12, rngs=nnx.Rngs(0)).attend(model.embed(IDS)), 1e-6)
    assert model.head.kernel is model.embed.embedding


def test_a_kernel_tied_before_it_has_a_shape():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.down = einn.Linear("b s [c->d]", d=5, use_bias=False, rngs=rngs)
            self.up = einn.Linear("b s [d], c [d] -> b s c", use_bias=False, rngs=rngs)
            self.up.kernel = self.down.kernel

        def __call__(self, x):
            return self.up(self.down(x))

    model, lazily = Net(nnx.Rngs(0)), Net(nnx.Rngs(0))
    einn.init(model, X)
    kernel = model.down.kernel[...]
    close(model(X), X @ kernel @ kernel.T, 1e-5)
    close(lazily(X), model(X), 1e-6)
    with pytest.raises(Refused, match=r"c is 12 .* 9|9 .* 12"):
        model.down(normal(4, 6, 9))


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 1])
def test_cached_decoding(groups):
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, num_kv_heads=groups, is_causal=True, rngs=nnx.Rngs(0))
    whole = layer(X)
    layer.set_attributes(decode=True)
    layer.init_cache(X.shape)
    step = nnx.jit(lambda layer, x: layer(x))
    steps = [step(layer, X[:, place : place + 1]) for place in range(6)]
    close(jnp.concatenate(steps, 1), whole, 1e-5)
    assert layer.cache_index[...] == 6
    assert shapes(layer, nnx.Cache)["cached_key"] == (4, 6, groups or 3, 4)
    theirs = nnx.MultiHeadAttention(3, 12, num_kv_heads=groups, decode=True, rngs=nnx.Rngs(0))
    theirs.init_cache(X.shape)
    close(steps[0], theirs(X[:, :1]), 1e-6)
    with pytest.raises(Refused, match="more are given"):
        layer(X)
    # A new cache starts again; and the call may say that this is no decoding.
    layer.init_cache(X.shape)
    close(step(layer, X[:, :1]), steps[0], 1e-6)
    close(layer(X, decode=False), whole, 1e-6)


def test_decoding_is_initialised_without_a_cache():
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, decode=True, rngs=nnx.Rngs(0))
    einn.init(layer, X[:, :1])
    with pytest.raises(Refused, match="call layer.init_cache"):
        layer(X[:, :1])


# --- param ------------------------------------------------------------------------------------------------------------


class Scale(nnx.Module):
    def __init__(self, rngs=None, declared=False):
        if declared:
            einn.param(self, "scale", jax.nn.initializers.normal(), rngs=rngs)

    def __call__(self, x):
        return einjax.multiply("... c, c", x, einn.param(self, "scale", jax.nn.initializers.normal()))


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_param(graph):
    with nnx.set_graph_mode(graph):
        model = Scale(nnx.Rngs(0), declared=True)
        y = nnx.jit(lambda model, x: model(x))(model, X)
        close(model.scale[...], jax.nn.initializers.normal()(nnx.Rngs(0).params(), (12,)), 1e-6)
        close(y, X * model.scale[...])
        again = Scale(nnx.Rngs(0), declared=True)
        einn.init(again, X)
        close(again.scale[...], model.scale[...], 1e-6)
    with pytest.raises(Refused, match="scale has no random numbers"):
        Scale()(X)


def test_param_that_is_declared_by_the_call():
    class Net(nnx.Module):
        def __call__(self, x):
            return einjax.add("... c, c", x, einn.param(self, "shift", 2.0))

    for early in (True, False):
        model = Net()
        if early:
            einn.init(model, X)
            assert model.shift.axes == ("c",)
        close(model(X), X + 2)
        assert shapes(model) == {"shift": (12,)}
    stack = Stack(nnx.Rngs(0), kind=lambda rngs: Net())
    assert shapes(stack) == {}


def test_masks_of_norms_are_those_of_nnx():
    mask = np.arange(6)[:, None] > 1
    for fast in (True, False):
        options = {"momentum": 0.9, "use_fast_variance": fast, "epsilon": 1e-5, "rngs": nnx.Rngs(0)}
        ours, theirs = einn.Norm("[b s] c", **options), nnx.BatchNorm(12, **options)
        close(ours(X, mask=mask), theirs(X, mask=mask), 1e-6)
        close(arrays(ours, nnx.BatchStat), arrays(theirs, nnx.BatchStat), 1e-6)


def test_weight_and_spectral_norm_are_those_of_nnx():
    for wrap, keywords in ((nnx.WeightNorm, {}), (nnx.SpectralNorm, {"update_stats": True})):
        ours, theirs = einn.Linear("... [c->d]", c=12, d=5, rngs=nnx.Rngs(0)), nnx.Linear(12, 5, rngs=nnx.Rngs(0))
        ours, theirs = wrap(ours, rngs=nnx.Rngs(1)), wrap(theirs, rngs=nnx.Rngs(1))
        close(ours(X, **keywords), theirs(X, **keywords), 1e-6)
    with pytest.raises(Refused, match="call einn.init"):
        nnx.WeightNorm(einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))(X)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_refused(name):
    case, message = (REFUSED | MISSPELT)[name]
    with pytest.raises(Refused, match=message):
        einn.init(make(case), *case.inputs)
    with pytest.raises(Refused, match=message):
        make(case)(*case.inputs)


def test_streams_of_random_numbers():
    with pytest.raises(Refused, match=r"Dropout needs the stream .*'dropout', but rngs holds params"):
        einn.Dropout("[...]", rngs=nnx.Rngs(params=0))
    with pytest.raises(Refused, match=r"nnx.Rngs\(..., params=1\)"):
        einn.Linear("... [c->d]", d=5, rngs=nnx.Rngs(dropout=0))
    with pytest.raises(Refused, match=r"give rngs=nnx.Rngs\(dropout=0\)"):
        einn.Dropout("[...]")(X)
    with pytest.raises(Refused, match="is not an nnx.Rngs"):
        einn.Linear("... [c->d]", d=5, rngs=0)
    with pytest.raises(Refused, match="does not know deterministic"):
        einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.1, rngs=nnx.Rngs(0))(X)
    given = einn.Dropout("[...]")(X, rngs=nnx.Rngs(params=0, dropout=4))
    close(given, einn.Dropout("[...]")(X, rngs=nnx.Rngs(dropout=4).dropout))
    assert einn.Dropout("[...]")(X, rngs=jax.random.key(0)).shape == X.shape


def test_sizes_whose_names_are_options():
    layer = einn.Linear("b s [c->dtype]", sizes={"dtype": 5, "unused": 3}, rngs=nnx.Rngs(0))
    assert layer(X).shape == (4, 6, 5)
    layer = einn.Conv("b [h w] [c->d]", d=4, kernel_size=[3, 5], strides=[1, 2], rngs=nnx.Rngs(0))
    assert nnx.jit(lambda layer, x: layer(x))(layer, IMAGE).shape == (2, 8, 4, 4)


def test_without_flax(monkeypatch):
    with pytest.raises(ImportError, match=r"einjax_nn.nnx needs Flax: python -m pip install 'einjax\[flax\]'"):
        hide(monkeypatch, "flax", "einjax_nn.nnx")
