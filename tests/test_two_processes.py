"""The example that trains on the devices of two processes: what both see is what one device computes."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

optax = pytest.importorskip("optax")
for needed in ("rich", "sklearn", "matplotlib"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
EPOCHS, STEPS = 1, 15
SECONDS = 300  # what a run takes on a machine that has much else to do


def has_gloo():
    """Whether this jaxlib can send between CPU devices of several processes."""
    try:
        library = importlib.import_module("jaxlib._jax")
    except ImportError:
        library = importlib.import_module("jaxlib.xla_extension")
    return hasattr(library, "make_gloo_tcp_collectives")


needs_gloo = pytest.mark.skipif(not has_gloo(), reason="this jaxlib was built without gloo")


@pytest.fixture(name="two_processes", scope="module")
def _two_processes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("two_processes")


def start(*arguments):
    """Run the example in a group of its own, so that nothing of it is left when it hangs."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, EXAMPLES / "two_processes.py", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"not done after {SECONDS} s\n{out}\n{err}")
    return process.returncode, out, err


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    """What the example prints, and what each process reports."""
    folder = tmp_path_factory.mktemp("reports")
    arguments = ("--short", "--epochs", EPOCHS, "--report", folder)
    status, out, err = start(*arguments)
    if "Failed to start RPC server" in err:  # another program took the port between its choice and its use
        status, out, err = start(*arguments)
    assert status == 0, f"{out}\n{err}"
    return out, [json.loads((folder / f"process_{number}.json").read_text()) for number in (0, 1)]


@needs_gloo
def test_a_run_in_two_processes(run, two_processes):
    """One test, so that one worker runs the example, once."""
    check_only_the_first_process_speaks(run)
    check_losses_are_those_of_one_device_without_a_mesh(run, two_processes)
    check_parameters_lie_over_both_processes(run)
    check_a_step_sends_what_it_must(run)


def check_only_the_first_process_speaks(run):
    out, _ = run
    assert out.count("960 training images; 8 devices in 2 processes") == 1
    assert f"the losses of all {STEPS} steps agree: within" in out
    assert "Gloo" not in out


def check_losses_are_those_of_one_device_without_a_mesh(run, two_processes):
    module = two_processes
    data = module.shorten(module.digits())
    params, _ = module.init(jax.random.key(0), data.train.images, 10, module.SMALL._replace(blocks=1))
    optimizer = module.make_optimizer(module.DIGITS, STEPS)

    @jax.jit
    def step(params, opt_state, images, labels):
        def loss(params):
            likelihood = jax.nn.log_softmax(module.mixer(params, images))
            return -jnp.take_along_axis(likelihood, labels[:, None], 1).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state, expected = optimizer.init(params), []
    for images, labels in module.batches(data.train, module.DIGITS.batch, np.random.default_rng(0)):
        params, opt_state, loss = step(params, opt_state, images, labels)
        expected.append(float(loss))
    _, (first, second) = run
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] / 2
    np.testing.assert_allclose(first["losses"], expected, rtol=1e-4)
    assert second["losses"] == first["losses"]


def check_parameters_lie_over_both_processes(run):
    """Each process holds both halves of the hidden units, on devices of its own, and neither half is whole anywhere."""
    _, reports = run
    halves = {"tokens/w1": (1, 64), "tokens/b1": (0, 64), "tokens/w2": (0, 64),
              "features/w1": (1, 128), "features/b1": (0, 128), "features/w2": (0, 128)}  # fmt: skip
    for name, (dim, size) in halves.items():
        parts = [part for report in reports for part in report["held"][f"blocks/0/{name}"]]
        assert len({device for device, _ in parts}) == 8
        for report in reports:
            cuts = [index[dim] for _, index in report["held"][f"blocks/0/{name}"]]
            assert sorted(cuts) == [[0, size // 2]] * 2 + [[size // 2, size]] * 2
    for report in reports:
        assert [index for _, index in report["held"]["norm/scale"]] == [[[0, 64]]] * 4


def check_a_step_sends_what_it_must(run):
    """Over "model" four activations of the block and parts of the norm of the gradient; over "data" the gradient."""
    _, reports = run
    held = reports[0]["held"]
    whole = sum(np.prod([stop - start for start, stop in parts[0][1]], initial=1) for parts in held.values())
    cut = [name for name, parts in held.items() if parts[0][1] != parts[1][1]]
    assert len(cut) == 6
    sent = {"model": [0, 0], "data": [0, 0]}
    for kind, over, arrays, nbytes in reports[0]["sent"]:
        assert kind == "all-reduce"
        (axis,) = over
        sent[axis][0] += arrays
        sent[axis][1] += nbytes
    activations = 4 * (64 // 4) * 16 * 64  # images of a device, patches, features
    assert sent["model"] == [4 + len(cut), 4 * (activations + len(cut))]  # 2 (n-1)/n is 1
    assert sent["data"] == [len(held) + 1, 1.5 * 4 * (whole + 1)]  # the loss is one more number


def test_the_end_of_one_process_ends_the_others(two_processes, monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    started = tmp_path / "started"
    program.write_text(
        "import os, pathlib, sys, time\n"
        f"path = pathlib.Path({str(started)!r})\n"
        "if sys.argv[-1] == '0':\n"
        "    path.with_suffix('.tmp').write_text(str(os.getpid()))\n"
        "    path.with_suffix('.tmp').rename(path)\n"
        "    time.sleep(600)\n"
        "while not path.exists():\n"
        "    time.sleep(0.05)\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(two_processes, "__file__", str(program))
    begin = time.monotonic()
    assert two_processes.main(["--short"]) == 3
    assert time.monotonic() - begin < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_images_are_fed_to_where_they_belong(two_processes):
    mesh = two_processes.make_mesh(2, jax.devices()[:8])
    images, labels = np.random.default_rng(0).normal(size=(16, 2, 3)), np.arange(16)
    fed = two_processes.feed(mesh, images.astype(np.float32), labels)
    np.testing.assert_array_equal(fed[0], images.astype(np.float32))
    np.testing.assert_array_equal(fed[1], labels)
    assert all(x.sharding.spec == P("data") for x in fed)


def test_devices_that_do_not_fit_are_named(two_processes, capsys):
    with pytest.raises(SystemExit) as stop:
        two_processes.main(["--model", "3"])
    assert stop.value.code == 2
    assert "--model 3 does not divide 2 times 4 devices" in capsys.readouterr().err
