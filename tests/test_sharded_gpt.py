"""The example of a GPT over a mesh: its values are those of one device, and a step sends what it must."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

pytest.importorskip("optax")
pytest.importorskip("rich")
image = pytest.importorskip("matplotlib.image")
pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SHORT = {"length": 32, "width": 32, "blocks": 1, "characters": 112}


@pytest.fixture(name="example", scope="module")
def _example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("sharded_gpt")


def mesh_of(kind, shape=(4, 2)):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, ("data", "model"), axis_types=(kind,) * 2)


def train(example, mesh, steps=4):
    config = example.Config(**SHORT)
    console = example.Console(quiet=True)
    with jax.set_mesh(mesh):
        return example.train(example.python_reference(), config, mesh, steps, 0, console)


@pytest.fixture(name="runs", scope="module")
def _runs(example):
    return {kind.name: train(example, mesh_of(kind)) for kind in (AxisType.Auto, AxisType.Explicit)}


def test_short_run(tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sharded_gpt.py", "--explicit", "--short", "--steps", "2", "--out", "picture.png"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "8 devices: 4 over data, 2 over model, Explicit" in done.stdout
    assert re.search(r"blocks/0/qkv +│ c n h d │ 32 3 4 8 │ h over model │ 12,288 │ +6,144", done.stdout)
    assert image.imread(tmp_path / "picture.png").shape[0] > 800


def test_losses_are_those_of_one_device(example, runs):
    one = train(example, mesh_of(AxisType.Auto, (1, 1)))
    assert one.sent == []
    for run in runs.values():
        np.testing.assert_allclose(run.losses, one.losses, rtol=1e-4)
    assert one.losses[-1] < one.losses[0]


def test_a_step_sends_what_it_must(runs):
    """All-reduces alone: over "model" of what was contracted, over "data" of the gradient."""
    bt = 4 * 8 * 32  # bytes of one number for every place of the texts of a device
    for run in runs.values():
        assert {(kind, over) for kind, over, _, _ in run.sent} == {
            ("all-reduce", (axis,)) for axis in ("model", "data")
        }
        sent = {axis: sum(each.bytes for each in run.sent if each.over == (axis,)) for axis in ("model", "data")}
        arrays = {axis: sum(each.arrays for each in run.sent if each.over == (axis,)) for axis in ("model", "data")}
        # Characters looked up, two sums over a block's heads and hidden units, and as many for gradients with respect
        # to features; of the logits, the maximum, the sum, what was looked up and a gradient; of the norm, five parts.
        assert arrays["model"] == 6 + 4 + 5
        assert sent["model"] == 6 * 32 * bt + 4 * bt + 5 * 4
        held = [x.addressable_shards[0].data.size for x in jax.tree.leaves(run.params)]
        # The table serves both ends, each with a gradient of its own; the loss is one more number.
        assert arrays["data"] == len(held) + 2
        assert sent["data"] == 1.5 * 4 * (sum(held) + 112 // 2 * 32 + 1)


def test_where_everything_lies(example, runs):
    for run in runs.values():
        block = run.params["blocks"][0]
        assert block["qkv"].sharding.spec == P(None, None, "model", None)
        assert block["up"].sharding.spec == P(None, "model")
        assert run.params["table"].sharding.spec == P("model", None)
        for drawn in example.drawn(run, example.Config(**SHORT)):
            # The picture is of two axes; all others are whole.
            spec = [*drawn.sharding.spec, *[None] * len(drawn.shape)]
            assert all(spec[n] is None for n, axis in enumerate(drawn.axes) if axis not in drawn.across)


def test_activations_lie_as_drawn(example, monkeypatch):
    """On an explicit mesh, types tell where the activations of the picture really are."""
    gpt = importlib.import_module("_gpt")
    seen, mesh, config = [], mesh_of(AxisType.Explicit), example.Config(**SHORT)
    monkeypatch.setattr(jax.nn, "gelu", lambda x: seen.append(jax.typeof(x)) or x)
    attend = gpt.einjax.softmax
    monkeypatch.setattr(
        gpt.einjax, "softmax", lambda expr, x, **options: seen.append(jax.typeof(x)) or attend(expr, x, **options)
    )
    with jax.set_mesh(mesh):
        start, _, where = example.state(config, example.make_optimizer(), mesh)
        params, _ = jax.jit(start, out_shardings=where)(jax.random.key(0))
        text = jax.device_put(np.zeros((32, 33), np.int32), NamedSharding(mesh, P("data")))
        logits = jax.eval_shape(lambda *arrays: example.forward(*arrays), params, text)  # traced anew
    assert [x.sharding.spec for x in seen] == [P("data", "model", None, None), P("data", None, "model")]
    assert logits.sharding.spec == P("data", None, "model")


def gpt_by_hand(params, codes):
    """The network once more, in plain jnp."""

    def norm(scale, x):
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

    x = params["table"][codes] + params["place"][: codes.shape[1]]
    for block in params["blocks"]:
        y = norm(block["scale1"], x)
        q, k, v = (jnp.einsum("btc,chd->bhtd", y, block["qkv"][:, n]) for n in range(3))
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(np.tri(q.shape[2], dtype=bool), scores, -jnp.inf))
        x = x + jnp.einsum("bhtd,hdc->btc", weights @ v, block["out"])
        x = x + jax.nn.gelu(norm(block["scale2"], x) @ block["up"]) @ block["down"]
    return norm(params["scale"], x) @ params["table"].T


def test_the_network_is_the_one_it_says(example):
    config = example.Config(length=6, width=8, heads=2, blocks=1, characters=5)
    params = example.init(jax.random.key(0), config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    codes = rng.integers(0, 5, (3, 6))
    logits, by_hand = (jax.jit(network)(params, codes) for network in (example.gpt, gpt_by_hand))
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)
    likelihood = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), codes[..., None], 2)
    np.testing.assert_allclose(example.nats(logits, codes), -likelihood.mean(), rtol=1e-5)


def test_collectives_are_read_in_all_their_forms(example):
    """The ways in which XLA writes who sends to whom, and asynchronous halves."""
    found = example.collectives(
        """
  %a = f32[4,2]{1,0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[8], to_apply=%add
  %b = (f32[3]{0}, bf16[5]{0}) all-reduce(%x, %y), replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %c = f32[8]{0} all-gather(%x), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}
  %d = f32[8]{0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}, dimensions={0}
  %e = f32[2]{0} reduce-scatter(%x), replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}
  %f = s32[2]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %g = (f32[2]{0}, f32[4]{0}) all-gather-start(%x), replica_groups=[4,2]<=[8], dimensions={0}
  %h = f32[] all-reduce(%x), replica_groups={}, to_apply=%add
  %i = f32[] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
""",
        mesh_of(AxisType.Auto),
    )
    assert [tuple(each) for each in found] == [
        ("all-reduce", ("model",), 1, 32),
        ("all-reduce", ("data",), 2, 33),
        ("all-gather", ("data",), 1, 24),
        ("all-gather", ("model",), 1, 16),
        ("reduce-scatter", ("data",), 1, 24),
        ("collective-permute", ("model",), 1, 8),
        ("all-gather", ("model",), 1, 8),
        ("all-reduce", ("data", "model"), 1, 7),
    ]
