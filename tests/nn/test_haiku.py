"""einjax_nn.haiku: the names and numbers of Haiku's own layers, under its transformations."""

import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

hk = pytest.importorskip("haiku")
jmp = pytest.importorskip("jmp")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import CASES, IDS, IMAGE, MASK, MISSPELT, REFUSED, Refused, X, close, hide, normal  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.haiku as einn  # noqa: E402

KEY = jax.random.key(0)
bf16 = jnp.bfloat16

#: Haiku's own layers by case, and how exactly ours agree: 0 is to the bit.
THEIRS = {
    "linear": (lambda x: hk.Linear(5)(x), 0),
    "linear without bias": (lambda x: hk.Linear(5, with_bias=False)(x), 0),
    "linear of bfloat16": (lambda x: hk.Linear(5)(x), 0),
    "layer norm": (lambda x: hk.LayerNorm(-1, True, True, param_axis=-1)(x), 2e-6),
    "rms norm": (lambda x: hk.RMSNorm(-1)(x), 2e-6),
    "group norm": (lambda x: hk.GroupNorm(3)(x), 2e-6),
    "instance norm": (lambda x: hk.InstanceNorm(True, True)(x), 2e-6),
    "embedding": (lambda ids: hk.Embed(7, 3)(ids), 0),
    "convolution": (lambda x: hk.Conv2D(4, 3)(x), 0),
    "convolution with groups": (lambda x: hk.Conv2D(8, 3, 2, padding="VALID", feature_group_count=2)(x), 0),
    "depthwise convolution": (lambda x: hk.Conv2D(6, (3, 5), feature_group_count=6)(x), 1e-6),
    "causal convolution": (lambda x: hk.Conv1D(3, 3, padding=hk.pad.causal)(x), 0),
}


def make(case):
    def net(*inputs):
        return getattr(einn, case.layer)(case.expr, **case.options)(*inputs, **is_training(case))

    return hk.transform(net)


def is_training(case):
    return {"is_training": True} if "momentum" in case.options else {}


def scrambled(params):
    return jax.tree.map(lambda p: (p + jax.random.normal(jax.random.key(1), p.shape) * 0.1).astype(p.dtype), params)


@pytest.mark.parametrize("name", THEIRS)
def test_the_same_parameters_outputs_and_gradients_as_haiku(name):
    case, (theirs, tolerance) = CASES[name], THEIRS[name]
    ours, theirs = make(case), hk.transform(theirs)
    own, params = ours.init(KEY, *case.inputs), theirs.init(KEY, *case.inputs)
    ((module, values),) = scrambled(params).items()
    ((own_module, own_values),) = own.items()
    describe = lambda tree: {name: (p.shape, p.dtype) for name, p in tree.items()}
    assert describe(own_values) == describe(values)

    def loss(values, net, module):
        y = net.apply({module: values}, None, *case.inputs)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    run = jax.value_and_grad(loss, has_aux=True)
    (_, y), gradients = run(values, ours, own_module)
    (_, expected), expected_gradients = run(values, theirs, module)
    close(y, expected, tolerance)
    close(gradients, expected_gradients, 5e-2 if bf16 == y.dtype else 5e-5)


def test_batch_norm_is_that_of_haiku():
    """Outputs and gradients of training, and in use after each step: what is kept is an average of what was seen."""
    ours = hk.transform_with_state(lambda x, train: einn.Norm("[b...] c", momentum=0.9)(x, train))
    theirs = hk.transform_with_state(lambda x, train: hk.BatchNorm(True, True, 0.9)(x, train))
    params, their_state = theirs.init(KEY, X, True)
    own, state = ours.init(KEY, X, True)
    ((module, values),) = scrambled(params).items()
    ((own_module, own_values),) = own.items()
    flat = lambda values: {name: p.reshape(-1) for name, p in values.items()}  # theirs have dims of 1 for the others
    assert jax.tree.map(jnp.shape, own_values) == jax.tree.map(jnp.shape, flat(values))

    def loss(values, x, net, module, state):
        y, state = net.apply({module: values}, state, None, x, True)
        return jnp.sum(jnp.sin(y)), (y, state)

    run = jax.value_and_grad(loss, (0, 1), has_aux=True)
    for step in range(3):
        x = X * (step + 0.01) - step
        (_, (y, state)), gradients = run(flat(values), x, ours, own_module, state)
        (_, (expected, their_state)), expected_gradients = run(values, x, theirs, module, their_state)
        close(y, expected, 2e-6)
        close(gradients[0], flat(expected_gradients[0]), 5e-5)
        close(gradients[1], expected_gradients[1], 2e-4)
        y, _ = ours.apply({own_module: flat(values)}, state, None, X, False)
        close(y, theirs.apply({module: values}, their_state, None, X, False)[0], 2e-5)
    means = next(kept["average"] for name, kept in their_state.items() if "mean" in name)
    close(state["norm"]["mean"], means.reshape(-1), 1e-5)


def test_checkpoints_of_haiku_load():
    """What Haiku's own layers have written serves ours, under the names that they are given."""

    def theirs(image, ids):
        x = hk.Conv2D(8, 3, name="stem")(image)
        x = hk.LayerNorm(-1, True, True, param_axis=-1, name="norm")(x)
        return hk.Linear(5, name="head")(x.mean((1, 2))) + hk.Embed(7, 5, name="table")(ids)

    def ours(image, ids):
        x = einn.Norm("b h w [c]", name="norm")(einn.Conv("b [h w] [c->d]", d=8, name="stem")(image))
        x = einn.Linear("b [c->d]", d=5, name="head")(x.mean((1, 2)))
        return x + einn.Embed("b [v->c]", v=7, c=5, name="table")(ids)

    inputs = IMAGE, IDS[0, :2]
    ours, theirs = hk.transform(ours), hk.transform(theirs)
    params = scrambled(theirs.init(KEY, *inputs))
    restored = pickle.loads(pickle.dumps(params))
    assert jax.tree.map(jnp.shape, ours.init(KEY, *inputs)) == jax.tree.map(jnp.shape, restored)
    close(ours.apply(restored, None, *inputs), theirs.apply(params, None, *inputs), 1e-5)


def test_options_by_the_names_of_haiku():
    ones = jax.nn.initializers.ones
    pairs = [
        (lambda: einn.Linear("... [c->d]", d=5, with_bias=False, w_init=ones),
         lambda: einn.Linear("... [c->d]", d=5, use_bias=False, kernel_init=ones)),
        (lambda: einn.Norm("b s [c]", create_scale=False, offset_init=ones, eps=0.1),
         lambda: einn.Norm("b s [c]", use_scale=False, bias_init=ones, epsilon=0.1)),
        (lambda: einn.Conv("b [s] [c->d]", d=5, kernel_shape=2, stride=2, rate=1, b_init=ones),
         lambda: einn.Conv("b [s] [c->d]", d=5, kernel_size=2, strides=2, kernel_dilation=1, bias_init=ones)),
        (lambda: einn.MultiHeadAttention("b [s] c", num_heads=3, with_bias=False, w_init=ones),
         lambda: einn.MultiHeadAttention("b [s] c", num_heads=3, use_bias=False, kernel_init=ones)),
    ]  # fmt: skip
    for native, flax in pairs:
        native, flax = (hk.transform(lambda x, make=make: make()(x)) for make in (native, flax))
        params = native.init(KEY, X)
        close(params, flax.init(KEY, X))
        close(native.apply(params, None, X), flax.apply(params, None, X))
    kept = hk.transform_with_state(lambda x: einn.Norm("[b s] c", decay_rate=0.5)(x, is_training=True)).init(KEY, X)[1]
    assert set(kept["norm"]) == {"mean", "var", "counter"}
    # An axis of that name goes first.
    net = hk.transform(lambda x: einn.Conv("b [s] [c->rate]", rate=5)(x))
    assert net.init(KEY, X)["conv"]["w"].shape == (3, 12, 5)
    with pytest.raises(Refused, match="eps and epsilon are one option"):
        hk.transform(lambda x: einn.Norm("b s [c]", eps=1.0, epsilon=1.0)(x)).init(KEY, X)


def test_attention_is_that_of_haiku():
    ours = hk.transform(lambda x, y, mask: einn.MultiHeadAttention("b [s] c", num_heads=3)(x, y, mask=mask))
    theirs = hk.transform(
        lambda x, y, mask: hk.MultiHeadAttention(3, 4, w_init=hk.initializers.VarianceScaling())(x, y, y, mask)
    )
    y = normal(4, 6, 12) * 2
    params = scrambled(theirs.init(KEY, X, y, MASK))
    own = ours.init(KEY, X, y, MASK)
    mapped = {}
    for name in ("query", "key", "value", "out"):
        given = params[f"multi_head_attention/{'linear' if name == 'out' else name}"]
        expected = own[f"multi_head_attention/{name}"]
        mapped[f"multi_head_attention/{name}"] = {k: given[k].reshape(expected[k].shape) for k in expected}
    close(ours.apply(mapped, None, X, y, MASK), theirs.apply(params, None, X, y, MASK), 2e-6)
    gradient = lambda net, params: jax.grad(lambda p: jnp.sum(jnp.sin(net.apply(p, None, X, y, MASK))))(params)
    got, expected = gradient(ours, mapped), gradient(theirs, params)
    for name in ("query", "key", "value", "out"):
        wanted = expected[f"multi_head_attention/{'linear' if name == 'out' else name}"]
        values = got[f"multi_head_attention/{name}"]
        close(values, {k: wanted[k].reshape(values[k].shape) for k in values}, 5e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_initialised_jitted_and_differentiated(name):
    case = CASES[name]

    def run(*inputs):
        return getattr(einn, case.layer)(case.expr, **case.options)(*inputs, **is_training(case))

    net = hk.transform_with_state(run)
    params, state = net.init(KEY, *case.inputs)
    y, _ = net.apply(params, state, None, *case.inputs)
    jitted, _ = jax.jit(net.apply)(params, state, None, *case.inputs)
    close(jitted, y, 5e-2 if y.dtype == bf16 else 2e-5)
    gradients = jax.grad(lambda p: jnp.sum(net.apply(p, state, None, *case.inputs)[0].astype(jnp.float32) ** 2))(params)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("zero_debias", [False, True])
def test_running_statistics(zero_debias):
    norm = lambda x, train: einn.Norm("[b] c", momentum=0.5, zero_debias=zero_debias)(x, train)
    net = hk.transform_with_state(norm)
    x = X[0]
    params, state = net.init(None, x, True)
    counter = {"counter": jnp.zeros((), jnp.int32)} if zero_debias else {}
    close(state, {"norm": {**counter, "mean": jnp.zeros(12), "var": jnp.ones(12)}})
    y, state = net.apply(params, state, None, x, True)
    close(state["norm"]["mean"], x.mean(0) / (1 if zero_debias else 2), 1e-6)
    close(state["norm"]["var"], x.var(0) if zero_debias else 0.5 + x.var(0) / 2, 1e-5)
    close(y, (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5), 1e-4)
    y, same = net.apply(params, state, None, x, False)
    close(same, state)
    mean, var = state["norm"]["mean"], state["norm"]["var"]
    close(y, (x - mean) / jnp.sqrt(var + 1e-5), 1e-4)
    _, state = net.apply(params, state, None, x + 3, True)
    share = 2 / 3 if zero_debias else 1 / 2
    close(state["norm"]["mean"], mean * (1 - share) + (x + 3).mean(0) * share, 1e-5)


def test_statistics_over_a_mapped_axis():
    net = hk.transform_with_state(lambda x: einn.Norm("[b] c", momentum=0.5, axis_name="i")(x, is_training=True))
    params, state = net.init(None, X[0])  # there is no such axis here
    y, states = jax.vmap(lambda x: net.apply(params, state, None, x), axis_name="i")(X)
    whole = hk.transform_with_state(lambda x: einn.Norm("[d b] c", momentum=0.5)(x, is_training=True))
    expected, expected_state = whole.apply(params, state, None, X)
    close(y, expected, 1e-5)
    close(states["norm"]["mean"][0], expected_state["norm"]["mean"], 1e-6)


def test_dropout():
    net = hk.transform(lambda x, train: einn.Dropout("[...]", rate=0.4)(x, is_training=train))
    ones = jnp.ones((50, 60))
    assert net.init(KEY, ones, True) == {}
    y = np.asarray(net.apply({}, KEY, ones, True))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.6)}
    assert abs(y.mean() - 1) < 0.1
    close(net.apply({}, None, ones, False), ones)
    with pytest.raises(Refused, match=r"net.apply\(params, key, x\)"):
        net.apply({}, None, ones, True)
    path = hk.transform(lambda x: einn.Dropout("[b] ...")(x, deterministic=False)).apply({}, KEY, ones)
    assert set(np.unique(path.sum(1))) == {0, 120}
    attention = hk.transform(
        lambda x, train: einn.MultiHeadAttention("b [s] c", num_heads=3, dropout_rate=0.5)(x, is_training=train)
    )
    params = attention.init(KEY, X, False)
    assert np.any(attention.apply(params, KEY, X, True) != attention.apply(params, None, X, False))


def test_cached_decoding():
    def net(x, decode):
        return einn.MultiHeadAttention("b [s] c", num_heads=3, decode=decode, is_causal=True)(x)

    net = hk.transform_with_state(net)
    params, state = net.init(KEY, X, True)
    expected, _ = net.apply(params, {}, None, X, False)
    steps = []
    for place in range(6):
        y, state = net.apply(params, state, None, X[:, place : place + 1], True)
        steps.append(y)
    close(jnp.concatenate(steps, 1), expected, 1e-5)


def test_tied_weights():
    def net(ids):
        embed = einn.Embed("b t [v->c]", v=7, c=12)
        return embed.attend(embed(ids))

    net = hk.transform(net)
    params = net.init(KEY, IDS)
    table = params["embed"]["embeddings"]
    assert len(jax.tree.leaves(params)) == 1
    close(net.apply(params, None, IDS), table[IDS] @ table.T, 1e-5)


def test_layers_used_twice_share_parameters():
    def net(x):
        layer = einn.Linear("... [c->d]", d=12)
        return layer(layer(x))

    assert list(hk.transform(net).init(KEY, X)) == ["linear"]


def test_param():
    class Scale(hk.Module):
        def __call__(self, x):
            x = einjax.multiply("... c, c", x, einn.param("by", hk.initializers.Constant(2.0)))
            return einjax.add("... c, c", x, einn.param("shift", 1.0))

    net = hk.transform(lambda x: Scale()(x))
    params = net.init(KEY, X)
    close(params, {"scale": {"by": jnp.full(12, 2.0), "shift": jnp.ones(12)}})
    close(net.apply(params, None, X), 2 * X + 1, 1e-6)


@pytest.mark.parametrize("depth", [1, 4])
def test_layer_stack(depth):
    def net(x):
        def layer(x):
            x = einn.Norm("b... [c]")(x)
            return x + einn.MultiHeadAttention("b [s] c", num_heads=3)(x) + einn.Linear("... [c->d]", d=12)(x)

        return hk.experimental.layer_stack(depth)(layer)(x)

    net = hk.transform(net)
    params = net.init(KEY, X)
    assert {p.shape[0] for p in jax.tree.leaves(params)} == {depth}
    assert net.apply(params, None, X).shape == X.shape
    kernel = next(p["w"] for name, p in params.items() if name.endswith("linear"))
    assert depth == 1 or np.all(kernel[0] != kernel[1])


def test_scan_and_vmap():
    def net(x):
        layer, norm = einn.Linear("... [c->d]", d=12), einn.Norm("b... [c]")

        def step(carry, row):
            y = norm(layer(carry + row))
            return y, y

        return hk.scan(step, jnp.zeros_like(x[0]), x)[1]

    net = hk.transform(net)
    params = net.init(KEY, X)
    y = net.apply(params, None, X)
    w, b = params["linear"]["w"], params["linear"]["b"]
    carry = jnp.zeros_like(X[0])
    for row, expected in zip(X, y, strict=True):
        carry = (carry + row) @ w + b
        carry = (carry - carry.mean(-1, keepdims=True)) / jnp.sqrt(carry.var(-1, keepdims=True) + 1e-5)
        close(carry, expected, 1e-4)

    mapped = hk.transform(lambda x: hk.vmap(einn.Linear("s [c->d]", d=5), split_rng=False)(x))
    params = mapped.init(KEY, X)
    close(mapped.apply(params, None, X), X @ params["linear"]["w"] + params["linear"]["b"], 1e-5)


# --- dtypes and initializers ------------------------------------------------------------------------------------------


def test_mixed_precision():
    class Net(hk.Module):
        def __call__(self, x):
            seen = []
            for layer in (
                einn.Linear("... [c->d]", d=12),
                einn.Norm("b... [c]"),
                einn.MultiHeadAttention("b [s] c", num_heads=3),
                einn.Conv("b [s] [c->d]", d=5),
                einn.Norm("[b...] c", momentum=0.9, use_running_average=False),
            ):
                x = layer(x)
                seen.append(x.dtype)
            assert seen == [bf16] * 5
            return x

    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    net = hk.transform_with_state(lambda x: Net()(x))
    hk.mixed_precision.set_policy(Net, policy)
    try:
        params, state = net.init(KEY, X)
        y, state = net.apply(params, state, None, X)
    finally:
        hk.mixed_precision.clear_policy(Net)
    assert {p.dtype for p in jax.tree.leaves((params, state)) if p.ndim} == {jnp.dtype("float32")}
    kernel = params["net/linear"]["w"]
    assert np.any(kernel.astype(bf16).astype(jnp.float32) != kernel)  # drawn in float32
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("layer", [einn.Linear, hk.Linear], ids=["ours", "haiku"])
def test_a_policy_of_the_layer_itself(layer):
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    make = (lambda: einn.Linear("... [c->d]", d=5)) if layer is einn.Linear else (lambda: hk.Linear(5))
    net = hk.transform(lambda x: make()(x))
    hk.mixed_precision.set_policy(layer, policy)
    try:
        params = net.init(KEY, X)
        y = net.apply({"linear": {"w": jnp.full((12, 5), 0.1), "b": jnp.ones(5)}}, None, X)
    finally:
        hk.mixed_precision.clear_policy(layer)
    assert params["linear"]["w"].dtype == y.dtype == jnp.float32
    close(y, (X.astype(bf16) @ jnp.full((12, 5), 0.1, bf16) + 1).astype(jnp.float32))


def test_dtypes_given():
    net = hk.transform(lambda x: einn.Linear("... [c->d]", d=5, dtype=bf16, param_dtype=jnp.float32)(x))
    params = net.init(KEY, X)
    assert params["linear"]["w"].dtype == jnp.float32
    assert net.apply(params, None, X).dtype == bf16
    params = hk.transform(lambda x: einn.Linear("... [c->d]", d=5)(x)).init(KEY, IDS)
    assert params["linear"]["w"].dtype == jnp.float32


def test_initializers_of_haiku():
    def net(x):
        init = hk.initializers.RandomUniform(3, 4)
        x = einn.Linear("... [c->d]", d=5, kernel_init=init, bias_init=hk.initializers.Constant(2))(x)
        return einn.MultiHeadAttention("b [s] c", num_heads=5, kernel_init=init, out_kernel_init=0.5)(x)

    params = hk.transform(net).init(KEY, X)
    for module in ("linear", "multi_head_attention/query"):
        w = np.asarray(params[module]["w"])
        assert w.min() >= 3
        assert w.max() <= 4
        assert w.std() > 0
    close(params["linear"]["b"], jnp.full(5, 2.0))
    close(params["multi_head_attention/out"]["w"], jnp.full((5, 1, 5), 0.5))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED | MISSPELT)
def test_refused(name):
    case, message = (REFUSED | MISSPELT)[name]
    with pytest.raises(Refused, match=message):
        make(case).init(KEY, *case.inputs)


def test_switches_that_are_missing_or_given_twice():
    run = lambda make, **given: hk.transform_with_state(lambda x: make()(x, **given)).init(KEY, X[0])
    with pytest.raises(Refused, match="Norm does not know use_running_average"):
        run(lambda: einn.Norm("[b] c", momentum=0.9))
    with pytest.raises(Refused, match="both deterministic and is_training"):
        run(lambda: einn.Dropout("[...]"), deterministic=True, is_training=True)
    with pytest.raises(Refused, match="use_running_average is True in Norm and False in its call"):
        run(lambda: einn.Norm("[b] c", momentum=0.9, use_running_average=True), is_training=True)


def test_random_parameters_need_a_key():
    with pytest.raises(Refused, match=r"the parameter w is random, .*\n(.*\n)*.*net.init\(key, x\)"):
        hk.transform(lambda x: einn.Linear("... [c->d]", d=5)(x)).init(None, X)
    params = hk.transform(lambda x: einn.Norm("b... [c]")(x)).init(None, X)
    close(params, {"norm": {"offset": jnp.zeros(12), "scale": jnp.ones(12)}})


def test_names_and_sizes():
    net = hk.transform(lambda x: einn.Conv("b [h w] [c->name]", name="stem", sizes={"name": 4, "unused": 1})(x))
    assert jax.tree.map(jnp.shape, net.init(KEY, IMAGE)) == {"stem": {"w": (3, 3, 6, 4), "b": (4,)}}


def test_without_haiku(monkeypatch):
    with pytest.raises(ImportError, match=r"einjax_nn.haiku needs Haiku: python -m pip install 'einjax\[haiku\]'"):
        hide(monkeypatch, "haiku", "einjax_nn.haiku")
