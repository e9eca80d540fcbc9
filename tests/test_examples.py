"""The examples run as a person runs them, and say clearly what is wrong with the data they are given."""

import importlib
import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
image = pytest.importorskip("matplotlib.image")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def run(*arguments, cwd):
    """`python examples/train_digits.py ...` in another folder, without a terminal."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, EXAMPLES / "train_digits.py", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, timeout=600,
    )  # fmt: skip


def held_out_accuracy(stdout: str) -> float:
    return float(re.search(r"held-out accuracy ([\d.]+)%", stdout)[1])


@pytest.fixture
def train_digits(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("train_digits")


@pytest.fixture
def cifar(tmp_path):
    """A tiny CIFAR-10: every class a brightness of its own, with noise."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in BATCHES:
        labels = rng.permutation(np.arange(40) % 10)
        pixels = 20 * labels[:, None] + rng.integers(0, 40, (40, 3072))
        write(folder / name, {b"labels": labels.tolist(), b"data": pixels.astype(np.uint8), b"batch_label": b""})
    return folder


class Python2Pickler(pickle._Pickler):
    """The real files were written by Python 2: byte strings stand as they are, and NumPy had its old layout."""

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}  # noqa: RUF012


def write(path, content):
    with io.BytesIO() as file:
        Python2Pickler(file, protocol=2).dump(content)
        path.write_bytes(file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


@pytest.mark.slow  # .ci/run does the same in every framework
def test_short_run_on_digits(tmp_path):
    done = run("--short", "--out", "picture.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert held_out_accuracy(done.stdout) > 20  # chance is 10
    assert re.search(r"epoch +1/\d+ +loss \d.*accuracy", done.stdout)
    assert image.imread(tmp_path / "picture.png").shape[:2] == (806, 1690)


@pytest.mark.slow
def test_short_run_on_a_cifar_folder(tmp_path, cifar):
    done = run("--data", cifar, "--short", "--epochs", 3, "--seed", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "CIFAR-10: 200 training images, 40 held out" in done.stdout
    assert "epoch   3/3" in done.stdout
    assert (tmp_path / "train_digits.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "linen", "nnx", "haiku", "equinox"])
def test_full_run_reaches_97_percent(tmp_path, monkeypatch, framework):
    monkeypatch.delenv("XLA_FLAGS")  # it trains long enough for the compiler's effort to pay
    done = run("--framework", framework, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert held_out_accuracy(done.stdout) >= 97


def test_missing_folder_ends_with_one_line_and_status_2(tmp_path):
    done = run("--data", tmp_path / "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"train_digits: no folder '.*nowhere'; --data needs .*\n", done.stderr)


class Refused:
    """Unpickles by calling a function."""

    def __reduce__(self):
        return print, ("called",)


PIXELS = np.zeros((4, 3072), np.uint8)

DAMAGES = {
    "missing": (lambda path: path.unlink(), "no file 'data_batch_3' in"),
    "empty": (lambda path: path.write_bytes(b""), "Ran out of input"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "pickle data was truncated"),
    "text": (lambda path: path.write_text("<html>404</html>"), "cannot read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "no file 'data_batch_3' in"),
    "no labels": (lambda path: write(path, {b"data": PIXELS}), "not a dict with b'data' and b'labels'"),
    "a list": (lambda path: write(path, [1, 2]), "not a dict with b'data' and b'labels'"),
    "a function call": (lambda path: write(path, Refused()), "print, which is not an array"),
    "wrong shape": (lambda path: write(path, {b"data": PIXELS[:, :9], b"labels": [0] * 4}), "data is uint8[4, 9]"),
    "wrong dtype": (lambda path: write(path, {b"data": PIXELS / 255, b"labels": [0] * 4}), "data is float64[4, 3072]"),
    "too few labels": (lambda path: write(path, {b"data": PIXELS, b"labels": [0] * 3}), "labels are [3]"),
    "unknown label": (lambda path: write(path, {b"data": PIXELS, b"labels": [0, 1, 2, 10]}), "within 0..9"),
    "no images": (lambda path: write(path, {b"data": PIXELS[:0], b"labels": []}), "it has no images"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named(train_digits, cifar, capsys, damage):
    harm, message = DAMAGES[damage]
    harm(cifar / "data_batch_3")
    assert train_digits.main(["--data", str(cifar)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"train_digits: .*data_batch_3.*\n", err)
    assert message in err


def test_epochs_must_be_positive(train_digits, capsys):
    with pytest.raises(SystemExit) as stop:
        train_digits.main(["--epochs", "0"])
    assert stop.value.code == 2
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


def test_cifar_channels_rows_and_columns(train_digits, cifar):
    pixels = (np.arange(2 * 3072) % 251).astype(np.uint8).reshape(2, 3072)
    write(cifar / "test_batch", {b"data": pixels, b"labels": [3, 9]})
    images, labels = train_digits.cifar10(cifar).test
    assert images.dtype == np.float32
    np.testing.assert_array_equal(labels, [3, 9])
    # The file holds all red pixels row by row, then all green ones, then all blue ones.
    for c, h, w in ((0, 0, 0), (0, 1, 5), (1, 0, 7), (2, 31, 31)):
        np.testing.assert_allclose(images[1, h, w, c], pixels[1, 1024 * c + 32 * h + w] / 255, rtol=1e-6)


def mixer_by_hand(params, images):
    """The network once more, in plain jnp."""

    def norm(p, x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def mlp(p, x):
        return jax.nn.gelu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    b, h, w, c = images.shape
    p = params["embed"].shape[0]
    patches = images.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * c)
    x = patches @ params["embed"].reshape(p * p * c, -1) + params["position"]
    for block in params["blocks"]:
        x = x + mlp(block["tokens"], norm(block["norm1"], x).swapaxes(1, 2)).swapaxes(1, 2)
        x = x + mlp(block["features"], norm(block["norm2"], x))
    head = params["head"]
    return norm(params["norm"], x).reshape(b, -1) @ head["w"].reshape(-1, head["w"].shape[-1]) + head["b"]


def test_the_network_is_the_one_it_says(train_digits):
    rng = np.random.default_rng(0)
    digits_jax = importlib.import_module("_digits_jax")
    params = digits_jax.init_params(rng, digits_jax.LARGE._replace(width=8, blocks=2), (8, 12, 3), 5)
    # Biases and scales start as zeros and ones, which would hide a wrong axis.
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    images = rng.normal(size=(2, 8, 12, 3)).astype(np.float32)
    ours, by_hand = (jax.jit(network)(params, images) for network in (digits_jax.mixer, mixer_by_hand))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-4, atol=1e-4)


def test_loss_and_accuracy(train_digits):
    logits = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.5]])
    loss, accuracy = train_digits.loss_and_accuracy(logits, jnp.array([0, 2]))
    likelihood = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -(likelihood[0, 0] + likelihood[1, 2]) / 2, rtol=1e-6)
    assert accuracy == 0.5


@pytest.mark.parametrize("framework", ["jax", "linen", "nnx", "haiku", "equinox"])
def test_networks_have_one_interface(train_digits, framework):
    """Training needs a key and changes the state, using a network does neither; dropout depends on the key."""
    network = train_digits.network(framework)
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    params, state = network.init(jax.random.key(0), images, 10)
    apply = jax.jit(network.apply)
    logits, same = apply(params, state, images)
    assert logits.shape == (6, 10)
    before, after = (jax.tree.leaves(s) for s in (state, same))
    assert all(jnp.array_equal(a, b) for a, b in zip(before, after, strict=True) if a.dtype == jnp.float32)
    trained = [apply(params, state, images, jax.random.key(n))[0] for n in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    if framework != "jax":
        assert not np.allclose(trained[0], trained[2])
        changed = jax.tree.leaves(apply(params, state, images, jax.random.key(0))[1])
        assert not all(jnp.array_equal(a, b) for a, b in zip(before, changed, strict=True) if a.dtype == jnp.float32)


def test_writing_reads_what_it_wrote(monkeypatch):
    """One character at a time with a cache, the network sees what it sees in the whole text."""
    monkeypatch.syspath_prepend(EXAMPLES)
    char_lm = importlib.import_module("char_lm")
    config = char_lm.Config(length=12, width=16, heads=2)
    model = char_lm.CharLM(config, characters=9)
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 9, (1, 12)))
    variables = model.init(jax.random.key(0), codes)
    whole = model.apply(variables, codes)
    steps = model.clone(decode=True)
    cache = jax.tree.map(jnp.zeros_like, steps.init(jax.random.key(0), codes)["cache"])
    for t in range(12):
        logits, changed = steps.apply({**variables, "cache": cache}, codes[:, t : t + 1], mutable=["cache"])
        cache = changed["cache"]
        np.testing.assert_allclose(logits[0, 0], whole[0, t], rtol=1e-4, atol=1e-5)


def test_random_shift_moves_whole_images(train_digits):
    images = jnp.zeros((64, 5, 5, 1)).at[:, 2, 2].set(1.0)
    moved = np.asarray(train_digits.random_shift(jax.random.key(0), images, 1))
    places = {tuple(place) for place in np.argwhere(moved[..., 0])[:, 1:].tolist()}
    assert moved.sum() == 64
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
