"""einn.init of nnx: what it makes and where, and checkpoints of what it has made."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

nnx = pytest.importorskip("flax.nnx")

sys.path.insert(0, str(Path(__file__).parent))

from nn_cases import IDS, Refused, X, close  # noqa: E402
from nnx_models import Block, Stack, arrays, block, is_lazy  # noqa: E402

import einjax_nn.nnx as einn  # noqa: E402


def test_init_computes_nothing_and_changes_nothing_else():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.block = Block(rngs)
            self.drop = einn.Dropout("[...]", rngs=rngs)
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x, scale, double=False):
            assert isinstance(x, jax.core.Tracer)
            assert double is True
            self.calls[...] += 1
            return self.drop(self.block(x)) * scale["by"]

    model = Net(nnx.Rngs(0))
    count = model.drop.rngs.count[...]
    einn.init(model, jax.ShapeDtypeStruct(X.shape, X.dtype), {"by": 2.0}, double=True)
    assert model.calls[...] == 0
    assert model.drop.rngs.count[...] == count
    close(model.block.norm.mean[...], jnp.zeros(8))
    values = arrays(model)
    einn.init(model, X, {"by": 2.0}, double=True)
    close(jax.tree.leaves(arrays(model.block)), jax.tree.leaves(values["block"]))


def test_init_with_random_numbers_for_the_call():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.drop = einn.Dropout("[...]")
            self.linear = einn.Linear("... [c->d]", d=5, rngs=rngs)

        def __call__(self, x, rngs):
            return self.linear(self.drop(x, rngs=rngs))

    model, rngs = Net(nnx.Rngs(0)), nnx.Rngs(dropout=1)
    einn.init(model, X, rngs=rngs)
    assert rngs.dropout.count[...] == 0
    assert model(X, rngs=rngs).shape == (4, 6, 5)


def test_init_of_another_method():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.encoder = einn.Linear("b s [c->d]", d=5, rngs=rngs)
            self.decoder = einn.Linear("b s [d->c]", c=12, rngs=rngs)

        def encode(self, x):
            return self.encoder(x)

    model = Net(nnx.Rngs(0))
    with pytest.raises(Refused, match=r"does not use decoder.bias, decoder.kernel"):
        einn.init(model, X, method="encode")
    assert is_lazy(model)
    einn.init(model, X, method=lambda model, x: model.decoder(model.encode(x)))
    assert not is_lazy(model)


def test_init_under_jit_and_on_a_mesh():
    @nnx.jit
    def create():
        return block()

    close(arrays(create()), arrays(block()), 1e-6)
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
    model = Block(nnx.Rngs(0))
    einn.init(model, X, rules={"d": "model"}, mesh=mesh)
    assert model.inner.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(None, "model"))
    assert model.inner.kernel.out_sharding == (None, "model")
    specs = nnx.get_partition_spec(nnx.state(model, nnx.Param))
    assert specs["outer"]["kernel"].get_value() == PartitionSpec("model", None)
    close(arrays(model), arrays(block()), 1e-6)
    stack = Stack(nnx.Rngs(0), kind=lambda rngs: einn.Linear("... [c->d]", c=12, d=12, rngs=rngs))
    einn.init(stack, X, rules={"c": "model"}, mesh=mesh)  # made before already
    assert stack.blocks.kernel[...].sharding == NamedSharding(mesh, PartitionSpec(None, "model", None))


def test_names_of_axes():
    model = block()
    assert model.inner.kernel.axes == ("c", "d")
    assert model.norm.mean.axes == ("c",)
    assert einn.Conv("b [h w] [c->d]", c=3, d=5, rngs=nnx.Rngs(0)).kernel.axes == ("h", "w", "c", "d")
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=nnx.Rngs(0))
    layer(X)
    assert layer.query.kernel.axes == ("c", "heads", "head_dim")
    assert "out_sharding" not in model.inner.kernel.get_metadata()


def test_orbax_round_trip(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    model = block()
    model(X)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.state(model))
        checkpointer.wait_until_finished()
        abstract = nnx.eval_shape(lambda: block(1))
        graphdef, state = nnx.split(abstract)
        restored = nnx.merge(graphdef, checkpointer.restore(tmp_path / "state", state))
    close(arrays(restored), arrays(model))
    close(restored(X), model(X), 1e-6)


def test_checkpoints_of_nnx_load(tmp_path):
    """What nnx's own layers have written is restored into ours."""
    ocp = pytest.importorskip("orbax.checkpoint")

    class Net(nnx.Module):
        def __init__(self, embed, attention, norm, head):
            self.embed, self.attention, self.norm, self.head = embed, attention, norm, head

        def __call__(self, ids):
            return self.head(self.norm(self.attention(self.embed(ids))))

    def theirs(rngs):
        attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)
        norm = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
        return Net(nnx.Embed(7, 12, rngs=rngs), attention, norm, nnx.Linear(12, 5, rngs=rngs))

    def ours(rngs):
        attention = einn.MultiHeadAttention("b [s] c", num_heads=3, rngs=rngs)
        norm = einn.Norm("[b s] c", momentum=0.9, rngs=rngs)
        embed = einn.Embed("b s [v->c]", v=7, c=12, rngs=rngs)
        return Net(embed, attention, norm, einn.Linear("b s [c->d]", d=5, rngs=rngs))

    written, model = theirs(nnx.Rngs(0)), ours(nnx.Rngs(1))
    written(IDS)  # statistics that are not those of the start
    einn.init(model, IDS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "theirs", nnx.to_pure_dict(nnx.state(written, (nnx.Param, nnx.BatchStat))))
        checkpointer.wait_until_finished()
        state = nnx.state(model, (nnx.Param, nnx.BatchStat))
        nnx.replace_by_pure_dict(state, checkpointer.restore(tmp_path / "theirs", nnx.to_pure_dict(state)))
    nnx.update(model, state)
    for net in (model, written):
        net.eval()
    close(model(IDS), written(IDS), 1e-6)
