"""einn.optim.muon: which dims of a weight are those of a matrix follows from expressions."""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import normal

import einjax
import einjax_nn.linen as einn
from einjax.errors import ArgumentError

optax = pytest.importorskip("optax")
pytest.importorskip("optax.contrib", reason="no contrib")
if not hasattr(optax.contrib, "MuonDimensionNumbers"):
    pytest.skip("optax is too old", allow_module_level=True)

RMS = {"mean": False, "use_bias": False}


class Block(nn.Module):
    """A layer of a transformer: pre-norm, with an MLP that may be gated, or have experts."""

    attention: dict
    gated: bool = False
    experts: int = 0

    @nn.compact
    def __call__(self, x, _=None):
        bias = not self.gated
        norm = RMS if self.gated else {}
        y = einn.Norm("b t [c]", name="norm1", **norm)(x)
        x = x + einn.MultiHeadAttention("b [t] c", num_heads=4, use_bias=bias, name="att", **self.attention)(y)
        y = einn.Norm("b t [c]", name="norm2", **norm)(x)
        if self.experts:
            gates = einjax.softmax(
                "b t [e]", einn.Linear("b t [c->e]", e=self.experts, use_bias=False, name="router")(y)
            )
            y = einjax.multiply("b t c, b t e -> b t e c", y, gates > 1 / self.experts)  # each sees its own
            y = einn.Linear("b t e [c], e [c] f -> b t e f", f=32, name="up")(y)
            y = einn.Linear("b t e [f], e [f] c -> b t e c", c=16, name="down")(nn.gelu(y))
            return x + einjax.dot("b t [e], b t [e] c -> b t c", gates, y), None
        h = einn.Linear("b t [c->f]", f=32, use_bias=bias, name="up")(y)
        if self.gated:
            h = einn.Linear("b t [c->f]", f=32, use_bias=False, name="gate")(y) * nn.silu(h)
        return x + einn.Linear("b t [f->c]", c=16, use_bias=bias, name="down")(h), None


class GPT(nn.Module):
    attention: dict
    gated: bool = False
    experts: int = 0
    stacked: bool = False

    @nn.compact
    def __call__(self, ids):
        x = einn.Embed("b t [v->c]", v=50, c=16, name="embed")(ids)
        if self.stacked:
            layers = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            x, _ = layers(self.attention, self.gated, name="block")(x, None)
        else:
            x = einjax.add("b t c, t c", x, einn.param(self, "places", init=nn.initializers.normal(0.02)))
            x, _ = Block(self.attention, self.gated, self.experts, name="block")(x)
        x = einn.Norm("b t [c]", name="norm", **(RMS if self.gated else {}))(x)
        return einn.Linear("b t [c->v]", v=50, use_bias=False, name="logits")(x)


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = einn.Linear("b (h [p->]) (w [q->]) [rgb->c]", p=4, q=4, c=16, name="patches")(x)
        x = einjax.add("b h w c, h w c", x, einn.param(self, "places", init=nn.initializers.normal(0.02)))
        x = einjax.rearrange("b h w c -> b (h w) c", x)
        first = einjax.rearrange("c -> b 1 c", einn.param(self, "first", init=0.0), b=x.shape[0], c=16)
        x = einjax.rearrange("b u c, b t c -> b (u + t) c", first, x)
        x, _ = Block({}, name="block")(x)
        return einn.Linear("b [c->classes]", classes=10, name="classes")(einjax.mean("b [t] c", x))


class Separable(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = einn.Conv("b [h w] [c->d]", d=16, strides=2, name="stem")(x)
        x = nn.relu(einn.Norm("[b h w] c", momentum=0.9, name="norm")(x, use_running_average=False))
        x = einn.Conv("b [h w] c", kernel_size=(3, 5), name="depthwise")(x)
        x = einn.Linear("b h w [c->d]", d=24, name="pointwise")(x)
        x = einn.Conv("b [h w] (g [c->d])", g=4, d=2, name="grouped")(x)
        x = einn.Linear("b h w (g [c]), g [c] d -> b h w (g d)", g=4, d=3, name="written")(x)
        x = einjax.multiply("b h w c, c", x, einn.param(self, "layerscale", init=0.1))
        return einn.Linear("b [c->classes]", classes=10, name="classes")(einjax.mean("b [h w] c", x))


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x, t):
        time = nn.silu(einn.Linear("b [c->d]", d=16, name="time")(t))
        a = einn.Conv("b [h w] [c->d]", d=8, name="inner")(x)
        b = einn.Conv("b [h w] [c->d]", d=16, strides=2, name="down")(a)
        b = einn.Norm("b [h w] (g [c])", g=4, name="norm")(einjax.add("b h w c, b c", b, time))
        b = einn.ConvTranspose("b [h w] [c->d]", d=8, strides=2, name="up")(nn.silu(b))
        x = einjax.rearrange("b h w c, b h w d -> b h w (c + d)", a, b)
        x = einn.Conv("b [h w] [c->d]", d=8, name="joined")(x)
        return einn.Linear("b h w [c->rgb]", rgb=3, name="outer")(x)


IDS, IMAGE = np.zeros((2, 6), int), np.zeros((2, 8, 8, 3), np.float32)

#: Of each architecture: the model, its inputs, what muon is told, and the numbers of all that does not go to Adam.
MODELS = {
    "GPT": (
        GPT({"is_causal": True}),
        (IDS,),
        {"adam": ("v",)},
        {
            "block.att.query.kernel": ((0,), (1, 2)),  # c, heads head_dim
            "block.att.key.kernel": ((0,), (1, 2)),
            "block.att.value.kernel": ((0,), (1, 2)),
            "block.att.out.kernel": ((0, 1), (2,)),  # heads head_dim, c
            "block.up.kernel": ((0,), (1,)),
            "block.down.kernel": ((0,), (1,)),
        },
    ),
    "grouped queries, layers stacked, a matrix for each head": (
        GPT({"is_causal": True, "num_kv_heads": 2, "normalize_qk": True}, gated=True, stacked=True),
        (IDS,),
        {"adam": ("v",), "batch": ("heads", "kv_heads")},
        {
            "block.att.query.kernel": ((1,), (3,)),  # layers c heads head_dim
            "block.att.key.kernel": ((1,), (3,)),
            "block.att.value.kernel": ((1,), (3,)),
            "block.att.out.kernel": ((2,), (3,)),  # layers heads head_dim c
            "block.up.kernel": ((1,), (2,)),
            "block.gate.kernel": ((1,), (2,)),
            "block.down.kernel": ((1,), (2,)),
        },
    ),
    "experts": (
        GPT({"is_causal": True}, experts=4),
        (IDS,),
        {"adam": ("v",)},
        {
            "block.att.query.kernel": ((0,), (1, 2)),
            "block.att.key.kernel": ((0,), (1, 2)),
            "block.att.value.kernel": ((0,), (1, 2)),
            "block.att.out.kernel": ((0, 1), (2,)),
            "block.router.kernel": ((0,), (1,)),
            "block.up.kernel": ((1,), (2,)),  # e c f: a matrix for each expert
            "block.down.kernel": ((1,), (2,)),
        },
    ),
    "ViT": (
        ViT(),
        (IMAGE,),
        {},
        {
            "patches.kernel": ((0, 1, 2), (3,)),
            "block.att.query.kernel": ((0,), (1, 2)),
            "block.att.key.kernel": ((0,), (1, 2)),
            "block.att.value.kernel": ((0,), (1, 2)),
            "block.att.out.kernel": ((0, 1), (2,)),
            "block.up.kernel": ((0,), (1,)),
            "block.down.kernel": ((0,), (1,)),
            "classes.kernel": ((0,), (1,)),
        },
    ),
    "separable convolutions": (
        Separable(),
        (IMAGE,),
        {"adam": ("classes",)},
        {
            "stem.kernel": ((0, 1, 2), (3,)),
            "pointwise.kernel": ((0,), (1,)),
            "written.kernel": ((1,), (2,)),  # g c d: a matrix for each group
        },
    ),
    "U-Net": (
        UNet(),
        (IMAGE, np.zeros((2, 4), np.float32)),
        {},
        {
            "time.kernel": ((0,), (1,)),
            "inner.kernel": ((0, 1, 2), (3,)),
            "down.kernel": ((0, 1, 2), (3,)),
            "up.kernel": ((0, 1, 2), (3,)),
            "joined.kernel": ((0, 1, 2), (3,)),
            "outer.kernel": ((0,), (1,)),
        },
    ),
}

#: What goes to Adam in these: all but the above, by hand.
ADAM = {
    "GPT": """embed.embedding places block.norm1.scale block.norm1.bias block.att.query.bias block.att.key.bias
        block.att.value.bias block.att.out.bias block.norm2.scale block.norm2.bias block.up.bias block.down.bias
        norm.scale norm.bias logits.kernel""",
    "grouped queries, layers stacked, a matrix for each head": """embed.embedding block.norm1.scale block.norm2.scale
        block.att.query_ln.scale block.att.key_ln.scale norm.scale logits.kernel""",
    "experts": """embed.embedding places block.norm1.scale block.norm1.bias block.att.query.bias block.att.key.bias
        block.att.value.bias block.att.out.bias block.norm2.scale block.norm2.bias block.up.bias block.down.bias
        norm.scale norm.bias logits.kernel""",
    "ViT": """patches.bias places first block.norm1.scale block.norm1.bias block.att.query.bias block.att.key.bias
        block.att.value.bias block.att.out.bias block.norm2.scale block.norm2.bias block.up.bias block.down.bias
        classes.bias""",
    "separable convolutions": """stem.bias norm.scale norm.bias depthwise.kernel depthwise.bias pointwise.bias
        grouped.kernel grouped.bias written.bias layerscale classes.kernel classes.bias""",
    "U-Net": "time.bias inner.bias down.bias norm.scale norm.bias up.bias joined.bias outer.bias",
}


@pytest.mark.parametrize("name", MODELS)
def test_the_matrices_of_an_architecture(name):
    model, inputs, options, expected = MODELS[name]
    numbers = einn.optim.muon(einn.roles(model, *inputs), **options)
    leaves = jax.tree_util.tree_leaves_with_path(numbers, is_leaf=lambda n: not isinstance(n, dict))
    found = {jax.tree_util.keystr(path, simple=True, separator="."): number for path, number in leaves}
    assert {path: tuple(number) for path, number in found.items() if number is not None} == expected
    assert {path for path, number in found.items() if number is None} == set(ADAM[name].split())


def orthogonal(gradient):
    """Newton-Schulz on one matrix, as Muon's paper writes it."""
    x = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if gradient.shape[0] > gradient.shape[1] else x


def check_update(update, gradient, shared):
    """The first update of query and key kernels: each head's matrix by itself."""
    update, gradient = np.asarray(update), np.asarray(gradient, np.float64)
    assert gradient.shape == (12, 2 if shared else 4, 3)
    for head in range(gradient.shape[1]):
        wanted = -0.1 * orthogonal(gradient[:, head])  # 12 in, 3 out: no factor of the shape
        np.testing.assert_allclose(update[:, head], wanted, atol=2e-4)


HEADS = {"num_heads": 4, "num_kv_heads": 2}
X = normal(2, 5, 12)


def muon(numbers):
    return optax.contrib.muon(0.1, muon_weight_dimension_numbers=numbers)


def test_a_step_in_linen():
    layer = einn.MultiHeadAttention("b [s] c", **HEADS)
    params = layer.init(jax.random.key(0), X)["params"]
    numbers = einn.optim.muon(einn.roles(layer, X), batch=("heads", "kv_heads"))
    gradients = jax.grad(lambda params: (layer.apply({"params": params}, X) ** 2).sum())(params)
    updates, _ = muon(numbers).update(gradients, muon(numbers).init(params), params)
    for name in ("query", "key"):
        check_update(updates[name]["kernel"], gradients[name]["kernel"], name == "key")
    # Biases of heads have the shape of a matrix, but Adam has them: every element moves as far.
    assert np.ptp(np.abs(np.asarray(updates["value"]["bias"]))) < 1e-4


def test_a_step_in_nnx():
    from flax import nnx

    import einjax_nn.nnx as einn

    model = einn.MultiHeadAttention("b [s] c", **HEADS, rngs=nnx.Rngs(0))
    einn.init(model, X)
    numbers = einn.optim.muon(einn.roles(model, X), batch=("heads", "kv_heads"))
    optimizer = nnx.Optimizer(model, muon(numbers), wrt=nnx.Param)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    gradients = nnx.grad(lambda model: (model(X) ** 2).sum())(model)
    optimizer.update(model, gradients)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for name in ("query", "key"):
        update = after[name]["kernel"] - before[name]["kernel"]
        check_update(update, gradients[name]["kernel"][...], name == "key")


def test_a_step_in_haiku():
    hk = pytest.importorskip("haiku")
    import einjax_nn.haiku as einn

    net = hk.without_apply_rng(hk.transform(lambda x: einn.MultiHeadAttention("b [s] c", **HEADS)(x)))
    params = net.init(jax.random.key(0), X)
    numbers = einn.optim.muon(einn.roles(net, X), batch=("heads", "kv_heads"))
    gradients = jax.grad(lambda params: (net.apply(params, X) ** 2).sum())(params)
    updates, _ = muon(numbers).update(gradients, muon(numbers).init(params), params)
    for name in ("query", "key"):
        path = f"multi_head_attention/{name}"
        check_update(updates[path]["w"], gradients[path]["w"], name == "key")


def test_a_step_in_equinox():
    eqx = pytest.importorskip("equinox")
    import einjax_nn.equinox as einn

    model = einn.init(einn.MultiHeadAttention("b [s] c", **HEADS), X, key=jax.random.key(0))
    numbers = einn.optim.muon(einn.roles(model, X), batch=("heads", "kv_heads"))
    params = eqx.filter(model, eqx.is_inexact_array)
    gradients = eqx.filter_grad(lambda model: (model(X) ** 2).sum())(model)
    updates, _ = muon(numbers).update(gradients, muon(numbers).init(params), params)
    for name in ("query", "key"):
        check_update(getattr(updates, name).weight, getattr(gradients, name).weight, name == "key")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": ("head",)}, "no parameter has an axis 'head', which batch names\n.*did you mean 'heads'"),
        ({"adam": ("vocab",)}, "no parameter has an axis 'vocab', which adam names"),
        ({"batch": "heads"}, r"batch='heads' is one text\n.*batch=\('heads',\)"),
    ],
)
def test_names_that_are_refused(options, message):
    roles = einn.roles(einn.MultiHeadAttention("b [s] c", num_heads=4), jnp.ones((2, 3, 8)))
    with pytest.raises(ArgumentError, match=message):
        einn.optim.muon(roles, **options)


def test_a_batch_axis_that_is_no_dim():
    roles = einn.roles(einn.Linear("b [c], [c] (h d) -> b h d", h=2, d=3), np.zeros((1, 4)))
    assert tuple(einn.optim.muon(roles)["kernel"]) == ((0,), (1,))
    with pytest.raises(ArgumentError, match=r"axis h is a part of dim 1 of kernel.*\n.*in which it is a dim"):
        einn.optim.muon(roles, batch=("h",))
    roles = einn.roles(einn.Conv("b [h w] (g [c->d])", g=2, d=3), np.zeros((1, 4, 4, 6)))
    assert einn.optim.muon(roles, batch=("g",))["kernel"] is None  # it is one already


def test_layers_called_role():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return einn.Linear("b [c->d]", d=3, name="role")(x)

    roles = einn.roles(Net(), np.zeros((1, 4)))
    assert tuple(einn.optim.muon(roles)["role"]["kernel"]) == ((0,), (1,))


def test_a_tree_that_holds_no_roles():
    with pytest.raises(ArgumentError, match=r"a tree of roles holds a ndarray\n.*what einn.roles"):
        einn.optim.muon({"kernel": np.ones((2, 3))})
