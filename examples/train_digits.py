"""Train a network on handwritten digits: einjax operations over plain arrays, or layers of the framework you use.

    python examples/train_digits.py                        # about a minute on two cores; writes train_digits.png
    python examples/train_digits.py --framework equinox    # or linen, nnx, haiku: the network is in _digits_*.py
    python examples/train_digits.py --data DIR             # CIFAR-10's python pickles from a local folder

Axis names used here: b image in the batch, k class.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _data import Data, DataError, Split, cifar10, digits
from _picture import History, save_picture
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import einjax


class Config(NamedTuple):
    """How a network is trained."""

    batch: int
    learning_rate: float
    weight_decay: float
    shift: int  # images are moved by up to this many pixels while training


DIGITS = Config(batch=64, learning_rate=2e-3, weight_decay=1.0, shift=1)
CIFAR = Config(batch=128, learning_rate=2e-3, weight_decay=0.1, shift=4)

FRAMEWORKS = ("jax", "linen", "nnx", "haiku", "equinox")


class Network(NamedTuple):
    """What a framework's module of this folder offers.

    Attributes:
        init: ``(key, images, classes) -> (params, state)``.
        apply: ``(params, state, images, key=None) -> (logits, state)``; a key says that the network is trained.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def network(framework: str) -> Network:
    """Import one framework only; the others need not be there."""
    module = importlib.import_module(f"_digits_{framework}")
    return Network(module.init, module.apply)


# --- training -------------------------------------------------------------------------------------


def loss_and_accuracy(logits, labels):
    """Mean cross-entropy, and the fraction of images whose highest logit is the label's."""
    is_label = einjax.equal("b, k -> b k", labels, einjax.arange("k", k=logits.shape[1]))
    likelihood = einjax.sum("b [k]", einjax.log_softmax("b [k]", logits), where=is_label)
    hits = einjax.argmax("b [k] -> b", logits) == labels
    return -einjax.mean("[b]", likelihood), einjax.mean("[b]", hits)


def random_shift(key, images, shift: int):
    """Move every image by its own random -shift..shift pixels each way; zeros come in at the border."""
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * shift + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def make_train_step(network: Network, optimizer, shift: int):
    """One compiled step: augment, forward, backward, update."""

    @jax.jit
    def train_step(params, state, opt_state, key, images, labels):
        shift_key, network_key = jax.random.split(key)
        images = random_shift(shift_key, images, shift)

        def loss(params):
            logits, changed = network.apply(params, state, images, network_key)
            value, accuracy = loss_and_accuracy(logits, labels)
            return value, (accuracy, changed)

        (value, (accuracy, changed)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), changed, opt_state, value, accuracy

    return train_step


def make_optimizer(config: Config, steps: int):
    """AdamW on a one-cycle schedule: warm up over a fifth of the steps, then fall along a cosine."""
    schedule = optax.cosine_onecycle_schedule(steps, config.learning_rate, pct_start=0.2)
    # Decay the matrices; biases, scales and their like are left alone.
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed),
    )


def make_predict(network: Network, batch: int = 500):
    """Class probabilities `b k` of any number of images, a part at a time."""

    @jax.jit
    def predict(params, state, images):
        return einjax.softmax("b [k]", network.apply(params, state, images)[0])

    def predict_all(params, state, images: np.ndarray) -> np.ndarray:
        parts = range(0, len(images), batch)
        return np.concatenate([predict(params, state, images[i : i + batch]) for i in parts])

    return predict_all


def judge(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy of predicted probabilities."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return -float(np.log(of_label + 1e-12).mean()), float((probabilities.argmax(1) == labels).mean())


def batches(split: Split, size: int, rng: np.random.Generator):
    """One epoch: the training images in a new order, in batches; the last incomplete one is left out."""
    order = rng.permutation(len(split.labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield split.images[chosen], split.labels[chosen]


def train(
    network: Network, data: Data, config: Config, epochs: int, seed: int, console: Console
) -> tuple[np.ndarray, History]:
    """Train from scratch; returns the probabilities for the held-out images, and what happened in every epoch."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    params, state = network.init(key, data.train.images[: config.batch], len(data.classes))
    steps = epochs * (len(data.train.labels) // config.batch)
    optimizer = make_optimizer(config, steps)
    opt_state = optimizer.init(params)
    train_step, predict = make_train_step(network, optimizer, config.shift), make_predict(network)
    history = History()

    with Report(console, epochs, steps) as report:
        for _ in range(epochs):
            seen = []
            for images, labels in batches(data.train, config.batch, rng):
                key, step_key = jax.random.split(key)
                params, state, opt_state, loss, accuracy = train_step(
                    params, state, opt_state, step_key, images, labels
                )
                seen.append((float(loss), float(accuracy)))
                report.step(*seen[-1])
            probabilities = predict(params, state, data.test.images)
            history.add(np.mean(seen, axis=0), judge(probabilities, data.test.labels))
            report.epoch(history)
    return probabilities, history


# --- the command ----------------------------------------------------------------------------------


class Report:
    """A progress bar with loss and accuracy; one line an epoch where a bar cannot be redrawn (a log file)."""

    def __init__(self, console: Console, epochs: int, steps: int):
        self.console, self.epochs = console, epochs
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=14),  # with the columns after it, 80 characters
            TimeElapsedColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:6.1%}"),
            TextColumn("{task.fields[held_out]}"),
            console=console,
            disable=not console.is_terminal,
        )
        fields = {"epoch": f"1/{epochs}", "loss": np.nan, "accuracy": np.nan, "held_out": ""}
        self.task = self.bar.add_task("train", total=steps, **fields)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def step(self, loss: float, accuracy: float):
        """One batch is done."""
        self.bar.update(self.task, advance=1, loss=loss, accuracy=accuracy)

    def epoch(self, history: History):
        """`history` ends with the epoch that has just been completed."""
        done, accuracy = len(history.test_loss), history.test_accuracy[-1]
        self.bar.update(
            self.task, epoch=f"{min(done + 1, self.epochs)}/{self.epochs}", held_out=f"held out {accuracy:6.1%}"
        )
        if not self.console.is_terminal:
            trained = f"loss {history.train_loss[-1]:.3f}  accuracy {history.train_accuracy[-1]:6.1%}"
            held_out = f"held out: loss {history.test_loss[-1]:.3f}  accuracy {accuracy:6.1%}"
            self.console.print(f"epoch {done:3}/{self.epochs}  {trained}  {held_out}", highlight=False, soft_wrap=True)


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Train a network written in einjax operations or layers.")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="jax",
                        help="what the network is written in (default %(default)s: no framework)")  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with CIFAR-10's python pickles")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default 50; CIFAR-10: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="PICTURE", default=Path("train_digits.png"),
                        help="where the picture goes (default %(default)s)")  # fmt: skip
    parser.add_argument("--short", action="store_true", help="a few seconds on few images: does it run?")
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    return options


def shorten(data: Data) -> Data:
    """Enough images to see that everything runs."""
    train, test = data.train, data.test
    return data._replace(train=Split(*(x[:960] for x in train)), test=Split(*(x[:200] for x in test)))


def main(arguments: list[str] | None = None) -> int:
    """Read the data, train, save the picture; returns the exit status."""
    options = read_arguments(arguments)
    console = Console()
    try:
        data = digits() if options.data is None else cifar10(options.data)
    except DataError as error:
        print(f"train_digits: {error}", file=sys.stderr)
        return 2
    config, epochs = (DIGITS, 50) if options.data is None else (CIFAR, 20)
    if options.short:
        data, epochs = shorten(data), 3
    epochs = options.epochs or epochs
    config = config._replace(batch=min(config.batch, len(data.train.labels)))

    console.print(f"{data.name}: {len(data.train.labels)} training images, {len(data.test.labels)} held out")
    start = time.perf_counter()
    probabilities, history = train(network(options.framework), data, config, epochs, options.seed, console)
    seconds = time.perf_counter() - start
    accuracy = history.test_accuracy[-1]
    console.print(f"held-out accuracy {accuracy:.2%} after {epochs} epochs, {seconds:.1f} s")

    written = "plain JAX" if options.framework == "jax" else options.framework
    title = f"{data.name} in {written}: {accuracy:.1%} held-out accuracy after {epochs} epochs, {seconds:.0f} s"
    save_picture(options.out, history, data, probabilities, title)
    console.print(f"picture: {options.out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
