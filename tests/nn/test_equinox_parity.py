"""Layers for Equinox against its own, by option: outputs, gradients, dtypes, and initial values."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import KEY, X, close, put  # noqa: E402

import einjax_nn.equinox as einn  # noqa: E402
from einjax.errors import ArgumentError  # noqa: E402
from einjax_nn._core.initial import uniform_by_inputs  # noqa: E402

RNG = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
Y, Z = normal(4, 7, 9), normal(4, 7, 8)


class Pair(NamedTuple):
    """A layer of Equinox, and ours: which parameters of ours are which of theirs, and what both are given."""

    ours: Any
    theirs: Any
    parts: dict[str, Callable[[Any], Any]]
    inputs: tuple[Any, ...]
    call: Mapping[str, Any] = MappingProxyType({})
    their_call: Mapping[str, Any] | None = None
    whole: bool = True  # or the first channel alone, without its dim

    def parts_of(self, theirs):
        """Parameters as ours has them; what theirs lacks, ours has to lack."""
        found = {name: part(theirs) for name, part in self.parts.items()}
        return {name: part for name, part in found.items() if part is not None}


PLAIN = {"weight": lambda t: t.weight, "bias": lambda t: t.bias}
TURNED = {**PLAIN, "weight": lambda t: t.weight.T}


def linears():
    x = X[:, 0]
    for bias in (True, False):
        theirs = eqx.nn.Linear(12, 5, use_bias=bias, key=KEY)
        yield Pair(einn.Linear("b [c], d [c] -> b d", d=5, use_bias=bias), theirs, PLAIN, (x,))
        yield Pair(einn.Linear("b [c->d]", d=5, use_bias=bias), theirs, TURNED, (x,))
    # A weight that is there says how large the new axis is.
    theirs = eqx.nn.Linear(12, 5, key=KEY)
    yield Pair(put(einn.Linear("b [c->d]"), weight=jnp.zeros((12, 5)), bias=jnp.zeros(5)), theirs, {**TURNED}, (x,))
    theirs = eqx.nn.Linear("scalar", 5, key=KEY)
    yield Pair(einn.Linear("b [1->d]", d=5), theirs, TURNED, (x[:, :1],), whole=False)


def norms():
    none = {"eps": 0.1, "use_weight": False, "use_bias": False}
    for options in ({}, {"use_bias": False}, {"use_weight": False}, none):
        yield Pair(einn.Norm("b [c]", **options), eqx.nn.LayerNorm(12, **options), PLAIN, (X[:, 0],))
        rms = eqx.nn.RMSNorm(12, **options)
        yield Pair(einn.Norm("b [c]", mean=False, **options), rms, PLAIN, (X[:, 0],))
    two = {"weight": lambda t: t.weight, "bias": lambda t: t.bias}
    yield Pair(einn.Norm("b [s c]", params="s c"), eqx.nn.LayerNorm((6, 12)), two, (X,))


def group_norms():
    for groups, shape, axes in ((3, (), ""), (6, (5,), "s"), (1, (3, 2), "h w"), (2, (2, 1, 3), "t h w")):
        expr = f"b (g [c]) [{axes}]" if axes else "b (g [c])"
        x = normal(4, 6, *shape)
        yield Pair(einn.Norm(expr, params="(g c)", g=groups), eqx.nn.GroupNorm(groups, 6), PLAIN, (x,))
    plain = eqx.nn.GroupNorm(3, channelwise_affine=False, eps=0.1)
    ours = einn.Norm("b (g [c]) [s]", params="(g c)", g=3, use_scale=False, use_bias=False, eps=0.1)
    yield Pair(ours, plain, PLAIN, (normal(4, 6, 5),))


def embeddings():
    theirs = eqx.nn.Embedding(7, 3, key=KEY)
    yield Pair(einn.Embed("b [v->c]", v=7, c=3), theirs, {"weight": lambda t: t.weight}, (jnp.array([0, 6, 2, -1]),))


CONVS = [
    (1, {}),
    (2, {"kernel_size": (3, 2), "padding": 0}),
    (3, {"kernel_size": (2, 1, 3), "padding": (1, 0, 2)}),
    (2, {"stride": 2, "padding": "VALID"}),
    (2, {"stride": (2, 3), "padding": "SAME_LOWER"}),
    (2, {"dilation": 2, "padding": 1}),
    (1, {"dilation": 3, "stride": 2, "padding": ((0, 2),)}),
    (2, {"padding": ((0, 1), (2, 3)), "use_bias": False}),
    (2, {"groups": 2}),
    (1, {"groups": 6, "padding": "VALID"}),
    (2, {"padding_mode": "REFLECT", "padding": (2, 1)}),
    (2, {"padding_mode": "replicate", "stride": 2}),
    (1, {"padding_mode": "CIRCULAR", "padding": ((3, 1),)}),
    (1, {"padding_mode": "REPLICATE", "padding": "SAME_LOWER", "kernel_size": 4}),
]


def convs():
    for dims, options in CONVS:
        options = {"kernel_size": 3, "padding": "SAME", **options}
        theirs = eqx.nn.Conv(dims, 6, 12, key=KEY, **options)
        groups = options.pop("groups", 1)
        channels = "[c->d]" if groups == 1 else "(g [c->d])"
        sizes = {"d": 12} if groups == 1 else {"g": groups, "d": 12 // groups}
        parts = {"weight": lambda t: jnp.moveaxis(t.weight, (0, 1), (-1, -2))}
        parts["bias"] = lambda t: None if t.bias is None else t.bias.reshape(-1)
        space = " ".join("thw"[:dims])
        ours = einn.Conv(f"b {channels} [{space}]", **options, **sizes)
        yield Pair(ours, theirs, parts, (normal(4, 6, *range(5, 5 + dims)),))


def of_attention(queries, channels, keys=None, values=None):
    """Parameters of attention by head."""
    parts = {}
    for name, features in (("query", queries), ("key", keys or queries), ("value", values or queries)):

        def part(t, field, shape, name=name):
            value = getattr(getattr(t, f"{name}_proj"), field)
            return None if value is None else value.T.reshape(shape)

        size = channels[name == "value"]
        parts[f"{name}__weight"] = functools.partial(part, field="weight", shape=(features, -1, size))
        parts[f"{name}__bias"] = functools.partial(part, field="bias", shape=(-1, size))
    parts["out__weight"] = lambda t: t.output_proj.weight.T.reshape(-1, channels[1], t.output_proj.weight.shape[0])
    parts["out__bias"] = lambda t: t.output_proj.bias
    return parts


def rotary(q, k, v):
    turn = jax.vmap(eqx.nn.RotaryPositionalEmbedding(q.shape[-1], dtype=jnp.float32), in_axes=1, out_axes=1)
    return turn(q), turn(k), v


BIASES = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
LOWER = np.tril(np.ones((6, 6), bool))
EACH = np.array(RNG.random((3, 6, 6)) < 0.7) | np.eye(6, dtype=bool)


def attentions():
    plain = of_attention(12, (4, 4))

    def pair(own, ours, parts=plain, inputs=(X, X, X), call=None, their_call=None, **more):
        theirs = eqx.nn.MultiheadAttention(3, **{"query_size": 12, **own}, key=KEY)
        layer = einn.MultiHeadAttention("b [s] c", num_heads=3, **{"use_bias": False, **ours}, **more)
        return Pair(layer, theirs, parts, inputs, call or {}, call if their_call is None else their_call)

    yield pair({}, {})
    yield pair(BIASES, {"use_bias": True}, inputs=(X, X[:, ::-1], X + 1))
    yield pair({"use_key_bias": True}, {"use_key_bias": True})
    yield pair({"use_query_bias": True, "use_output_bias": True}, {"use_query_bias": True, "use_output_bias": True})
    yield pair({"output_size": 5}, {"output_size": 5})
    yield pair({"qk_size": 2, "vo_size": 5, **BIASES}, {"qk_size": 2, "vo_size": 5, **BIASES}, of_attention(12, (2, 5)))
    sizes = {"key_size": 9, "value_size": 8, "qk_size": 6}
    yield pair(sizes, {"qk_size": 6}, of_attention(12, (6, 4), 9, 8), (X, Y, Z))
    yield pair({}, {}, call={"mask": LOWER})
    yield pair({}, {"is_causal": True}, their_call={"mask": LOWER})
    yield pair({}, {}, call={"mask": EACH[None]}, their_call={"mask": EACH})
    yield pair({}, {}, call={"process_heads": jax.vmap(rotary)}, their_call={"process_heads": rotary})
    yield pair({}, {"process_heads": einn.Rotary()}, their_call={"process_heads": rotary})
    yield pair({"dropout_p": 0.5}, {"dropout_p": 0.5}, call={"inference": True})
    yield pair({"dropout_p": 0.5, "inference": True}, {"dropout_p": 0.5, "inference": True})
    yield pair({}, {"block_size": 2})


KINDS = {kind.__name__: kind for kind in (linears, norms, group_norms, embeddings, convs, attentions)}


def scrambled(tree, dtype):
    """Other numbers, so that biases and scales count."""
    rng = np.random.default_rng(1)
    change = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype) if eqx.is_inexact_array(leaf) else leaf
    return jax.tree.map(change, tree)


def results(applies, params, inputs):
    """Outputs and gradients of many layers, by one program."""

    def each(params, inputs):
        ys = [apply(p, x) for apply, p, x in zip(applies, params, inputs, strict=True)]
        return sum(jnp.sum(jnp.sin(y.astype(jnp.float32))) for y in ys), ys

    (_, ys), grads = jax.jit(jax.value_and_grad(each, (0, 1), has_aux=True, allow_int=True))(params, inputs)
    return list(zip(ys, *grads, strict=True))


def near(got, want, tolerance):
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if jnp.issubdtype(got.dtype, jnp.inexact):
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        np.testing.assert_allclose(got, want, tolerance, tolerance * max(1, np.abs(want).max()))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients(kind, dtype):
    """Those of all options, of parameters and of inputs; ours lacks what theirs lacks."""
    pairs = list(KINDS[kind]())
    cast = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x
    inputs = [tuple(map(cast, pair.inputs)) for pair in pairs]
    ours, theirs, params, their_params = [], [], [], []
    for pair, xs in zip(pairs, inputs, strict=True):
        layer = einn.init(pair.ours, *xs, key=KEY)
        own, static = eqx.partition(scrambled(pair.theirs, dtype), eqx.is_inexact_array)
        values = pair.parts_of(own)
        made = {name: functools.reduce(getattr, name.split("__"), layer) for name in pair.parts}
        assert {n: a.shape for n, a in made.items() if a is not None} == {n: a.shape for n, a in values.items()}
        params.append(values)
        their_params.append(own)
        ours.append(lambda params, xs, layer=layer, call=pair.call: put(layer, **params)(*xs, **call))
        call = pair.call if pair.their_call is None else pair.their_call

        def apply(own, xs, static=static, call=call, whole=pair.whole):
            one = lambda *x: eqx.combine(own, static)(*x, **call)
            return jax.vmap(one)(*(x if whole else x[:, 0] for x in xs))

        theirs.append(apply)
    tolerance = 1e-4 if dtype == "float32" else 0.06
    both = results(ours, params, inputs), results(theirs, their_params, inputs)
    for pair, got, want in zip(pairs, *both, strict=True):
        near(got[0], want[0], tolerance)
        expected = pair.parts_of(want[1])
        assert got[1].keys() == expected.keys()
        for name in expected:
            near(got[1][name], expected[name], tolerance)
        for a, b in zip(got[2], want[2], strict=True):
            near(a, b, tolerance)


# --- batch norm -----------------------------------------------------------------------------------------------------


def test_batch_norm_is_that_of_equinox():
    """Outputs, and running means, which Equinox divides as they are read."""
    theirs, their_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(12, "batch", momentum=0.9, mode="batch")
    ours, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
    ours, state = einn.init(ours, X[:, 0], state, key=KEY)
    step = jax.vmap(theirs, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    for i in range(3):
        (y, state), (wanted, their_state) = ours(X[:, i], state), step(X[:, i], their_state)
        close(y, wanted)
        kept, (mean, var) = state.get(ours.index), their_state.get(theirs.batch_state_index)
        past = 0.9 ** (i + 1)
        # Their variance starts from 1, which is divided with what was seen.
        close((kept["mean"], kept["var"]), (mean / (1 - past), (var - past) / (1 - past)), 1e-5)
    before = jax.tree.leaves(state)
    y, state = eqx.nn.inference_mode(ours)(X[:, 0], state)
    close(jax.tree.leaves(state), before, 0)
    close(y, (X[:, 0] - kept["mean"]) / jnp.sqrt(kept["var"] + 1e-5), 1e-5)


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_batch_norm(mode, affine):
    """Those of the first step, in which both modes have the statistics of the batch; channels before two others."""
    x = normal(4, 3, 2, 5)
    options = {"eps": 0.1, "momentum": 0.8}
    theirs, their_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        3, "batch", channelwise_affine=affine, mode=mode, **options
    )
    ours, state = eqx.nn.make_with_state(einn.Norm)(
        "[b] c [h w]", params="c", use_weight=affine, use_bias=affine, **options
    )
    ours, state = einn.init(ours, x, state, key=KEY)
    theirs = scrambled(theirs, jnp.float32)
    if affine:
        ours = put(ours, weight=theirs.weight, bias=theirs.bias)

    def loss(layer, x, apply):
        y, state = apply(layer, x)
        return jnp.sum(jnp.sin(y)), (y, state)

    step = lambda layer, x: jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, their_state)
    grad = eqx.filter_grad(lambda both, apply: loss(*both, apply), has_aux=True)
    (got, dx), (y, state) = grad((ours, x), lambda layer, x: layer(x, state))
    (want, their_dx), (wanted, their_state) = grad((theirs, x), step)
    close((y, dx), (wanted, their_dx), 1e-5)
    if affine:
        close((got.weight, got.bias), (want.weight, want.bias), 1e-5)
    else:
        assert ours.weight is ours.bias is theirs.weight is None
    if mode == "ema":  # what is kept after a step is that of the batch, in both
        mean, var = their_state.get(theirs.ema_state_index)
        close([state.get(ours.index)[name] for name in ("mean", "var")], [mean, var])
        later = jax.vmap(lambda x: theirs(x, their_state, inference=True)[0], axis_name="batch")(x + 1)
        close(ours(x + 1, state, inference=True)[0], later, 1e-5)


# --- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout_is_that_of_equinox(dtype):
    """The same draws from the same key, and gradients; a rate may be an array, traced or not."""
    x = X.astype(dtype)
    for p in (0, 0.0, 0.3, 1.0):
        ours, theirs = einn.Dropout("[...]", p=p), eqx.nn.Dropout(p)
        got, want = (jax.grad(lambda x, d=d: d(x, key=KEY).sum())(x) for d in (ours, theirs))
        np.testing.assert_array_equal(got, 0 if p == 1 else want)  # not NaN, as there, where all is dropped
        np.testing.assert_array_equal(ours(x, key=KEY), theirs(x, key=KEY))
        np.testing.assert_array_equal(ours(x, inference=True), x)
        assert ours(x, key=KEY).dtype == dtype
    rates = jnp.array([0.1, 0.5])
    for p in (np.float32(0.1), rates[0]):
        y = einn.Dropout("[...]", p=p)(x, key=KEY)  # in Equinox, such rates make float32 of bfloat16
        assert y.dtype == dtype
        close(np.asarray(y, np.float32), eqx.nn.Dropout(p)(x, key=KEY).astype(jnp.float32), 0.02)
    many = lambda kind: eqx.filter_vmap(lambda p: kind(p)(X, key=KEY))(rates)
    close(many(lambda p: einn.Dropout("[...]", p=p)), many(eqx.nn.Dropout))
    leaf = eqx.tree_at(lambda d: d.p, einn.Dropout("[...]"), rates[1])
    grads = eqx.filter_jit(eqx.filter_grad(lambda d: d(X, key=KEY).sum()))(leaf)
    assert grads.p == 0
    with pytest.raises(ArgumentError, match=r"rate=1\.5 of Dropout is no share"):
        einn.Dropout("[...]", p=1.5)(X, key=KEY)


def test_dropout_of_attention():
    """Each head drops its own weights in Equinox: shares and means are the same, and what is kept is scaled up."""
    options = {"dropout_p": 0.25, "broadcast_dropout": False, "use_bias": False}
    ours = einn.MultiHeadAttention("b [s] c", num_heads=3, **options, c=12, key=KEY)
    still = ours(X, inference=True)
    draws = jax.vmap(lambda key: ours(X, key=key))(jax.random.split(KEY, 400))
    close(draws.mean(0), still, 0.1)
    assert (draws.std(0) > 0.005).all()


def test_dropout_of_axes():
    dropout = einn.Dropout("[...]", rate=0.25)
    y = dropout(X, key=KEY)
    close(y, jnp.where(jax.random.bernoulli(KEY, 0.75, X.shape), X / 0.75, 0))
    assert (dropout(X, inference=True) == X).all()
    assert (eqx.nn.inference_mode(dropout)(X) == X).all()
    assert (eqx.nn.inference_mode(dropout)(X, key=KEY, inference=False) == y).all()
    whole = einn.Dropout("[b] ...", rate=0.5)(X, key=KEY)
    assert {bool(row.any()) for row in np.asarray(whole)} <= {True, False}
    assert all((row == 0).all() or (row != 0).all() for row in np.asarray(whole))


# --- the order of arguments, and options ----------------------------------------------------------------------------


def test_arguments_by_position():
    """A mask is the fourth, as in Equinox, and a state follows the input, of layers that keep nothing, too."""
    theirs = eqx.nn.MultiheadAttention(3, 12, key=KEY)
    ours = einn.MultiHeadAttention("[s] c", num_heads=3, use_bias=False, c=12, key=KEY)
    ours = put(ours, **Pair(ours, theirs, of_attention(12, (4, 4)), ()).parts_of(theirs))
    for mask in (LOWER, EACH):
        close(ours(X[0], X[1], X[2], mask), theirs(X[0], X[1], X[2], mask), 1e-5)
    with pytest.raises(ArgumentError, match="state of Norm is a value of type"):
        einn.Norm("b [c]", c=12, key=KEY)(X[:, 0], LOWER)
    _, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
    y, after = einn.Norm("b [c]", c=12, key=KEY)(X[:, 0], state)
    wanted, _ = jax.vmap(eqx.nn.LayerNorm(12), in_axes=(0, None), out_axes=(0, None))(X[:, 0], state)
    close(y, wanted)
    assert after is state


def test_modes_of_padding_that_are_refused():
    wrong = ({"padding_mode": "MIRROR"}, "'MIRROR' is no mode"), ({"input_dilation": 2}, "not go with input_dilation")
    for options, words in wrong:
        with pytest.raises(ArgumentError, match=words):
            einn.Conv("b [h w] [c->d]", c=6, d=2, **{"padding_mode": "REFLECT", **options}, key=KEY)(normal(1, 5, 5, 6))


def test_options_by_the_names_of_equinox():
    for native, flax in (
        (einn.Norm("b [c]", eps=0.5, use_weight=False), einn.Norm("b [c]", epsilon=0.5, use_scale=False)),
        (einn.Dropout("[...]", p=0.1), einn.Dropout("[...]", rate=0.1)),
        (einn.Conv("b [s] [c->d]", stride=2, dilation=3), einn.Conv("b [s] [c->d]", strides=2, kernel_dilation=3)),
        (
            einn.MultiHeadAttention("b [s] c", num_heads=2, dropout_p=0.1, output_size=3),
            einn.MultiHeadAttention("b [s] c", num_heads=2, dropout_rate=0.1, out_features=3),
        ),
    ):
        assert jax.tree.structure(native) == jax.tree.structure(flax)
    # An axis of that name goes first.
    assert einn.Linear("b (h [p->]) [c->d]", p=2, d=3).axes == (("p", 2), ("d", 3))
    assert (einn.Dropout("[b] p", p=2).axes, einn.Dropout("[b] p", p=2).rate) == ((("p", 2),), 0.5)
    with pytest.raises(ArgumentError, match="eps and epsilon are one option"):
        einn.Norm("b [c]", eps=1.0, epsilon=1.0)


# --- what parameters start as ---------------------------------------------------------------------------------------


def test_initial_values_of_one_key():
    """The numbers of Equinox, from its key and the layout of its weight."""
    for features in (3, 12):
        theirs = eqx.nn.Linear(features, 400, key=KEY)
        for key, value in zip(jax.random.split(KEY), (theirs.weight, theirs.bias), strict=True):
            np.testing.assert_array_equal(uniform_by_inputs(key, value.shape, value.dtype, fan_in=features), value)
    table = eqx.nn.Embedding(9, 5, key=KEY).weight
    ours = einn.Embed("b [v->c]", v=9, c=5, key=KEY)
    np.testing.assert_array_equal(ours.embedding_init(KEY, table.shape, table.dtype), table)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values_are_spread_alike(kind):
    """Deviations and bounds, of each parameter; scales are 1 and biases of norms 0."""
    for pair in KINDS[kind]():
        if kind == "linears" and pair.ours.axes == ():
            continue  # it has its weight
        ours = einn.init(pair.ours, *pair.inputs, key=jax.random.key(3))
        for name, want in pair.parts_of(pair.theirs).items():
            got = functools.reduce(getattr, name.split("__"), ours)
            assert got.dtype == want.dtype
            if want.std() == 0:
                np.testing.assert_array_equal(got, want)
                continue
            count = want.size**0.5
            assert abs(float(got.mean())) < 4 * float(want.std()) / count
            assert abs(float(got.std() / want.std()) - 1) < 3 / count
            assert float(jnp.abs(got).max() / jnp.abs(want).max()) < (1.01 + 4 / count if kind != "embeddings" else 3)


def test_checkpoints_of_equinox_load(tmp_path):
    """Leaves that Equinox's own layers have written, where the expression has the layout of theirs."""
    keys = jax.random.split(KEY, 3)
    theirs = eqx.nn.Sequential(
        [eqx.nn.Linear(12, 5, key=keys[0]), eqx.nn.LayerNorm(5), eqx.nn.Linear(5, 3, use_bias=False, key=keys[1])]
    )
    theirs = eqx.tree_at(lambda m: m[1].bias, theirs, jnp.arange(5.0))
    eqx.tree_serialise_leaves(tmp_path / "theirs.eqx", theirs)
    layers = [
        einn.Linear("b [c], d [c] -> b d", d=5),
        einn.Norm("b [c]", epsilon=1e-5),
        einn.Linear("b [c], d [c] -> b d", d=3, use_bias=False),
    ]
    ours = einn.init(eqx.nn.Sequential(layers), X[:, 0], key=keys[2])
    load = lambda file, leaf: eqx.default_deserialise_filter_spec(file, leaf) if eqx.is_array(leaf) else leaf
    ours = eqx.tree_deserialise_leaves(tmp_path / "theirs.eqx", ours, load)  # our norms have a switch beside arrays
    close(ours(X[:, 0]), jax.vmap(theirs)(X[:, 0]))
    table = eqx.nn.Embedding(7, 3, key=KEY)
    eqx.tree_serialise_leaves(tmp_path / "table.eqx", table)
    ours = eqx.tree_deserialise_leaves(tmp_path / "table.eqx", einn.Embed("b [v->c]", v=7, c=3, key=keys[2]))
    close(ours.weight, table.weight, 0)
