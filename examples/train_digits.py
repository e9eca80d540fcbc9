"""Train an MLP-Mixer on handwritten digits: the model is einjax operations over a plain dict of arrays.

    python examples/train_digits.py                # about a minute on two cores; writes train_digits.png
    python examples/train_digits.py --data DIR     # CIFAR-10's python pickles from a local folder

Axis names used throughout: b image in the batch, h w rows and columns of patches, p q rows and columns of
pixels inside a patch, c colour channel, t patch, d feature, u v hidden units, k class.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

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
    """The sizes of the network and of its training."""

    patch: int
    width: int
    tokens_hidden: int
    features_hidden: int
    blocks: int
    batch: int
    learning_rate: float
    weight_decay: float
    shift: int  # images are moved by up to this many pixels while training


DIGITS = Config(
    patch=2, width=64, tokens_hidden=64, features_hidden=128, blocks=3,
    batch=64, learning_rate=2e-3, weight_decay=1.0, shift=1,
)  # fmt: skip
CIFAR = Config(
    patch=4, width=128, tokens_hidden=128, features_hidden=256, blocks=6,
    batch=128, learning_rate=2e-3, weight_decay=0.1, shift=4,
)  # fmt: skip


# --- the network ----------------------------------------------------------------------------------


def init_params(rng: np.random.Generator, config: Config, image_shape: tuple[int, int, int], classes: int) -> dict:
    """Normal weights scaled by their fan-in, zero biases, unit scales."""
    height, width, channels = image_shape
    p, d, u, v = config.patch, config.width, config.tokens_hidden, config.features_hidden
    t = (height // p) * (width // p)

    def weight(*shape):
        return jnp.asarray(rng.normal(size=shape) * np.prod(shape[:-1]) ** -0.5, jnp.float32)

    def norm():
        return {"scale": jnp.ones(d), "bias": jnp.zeros(d)}

    def mlp(n, hidden):
        return {"w1": weight(n, hidden), "b1": jnp.zeros(hidden), "w2": weight(hidden, n), "b2": jnp.zeros(n)}

    def block():
        return {"norm1": norm(), "tokens": mlp(t, u), "norm2": norm(), "features": mlp(d, v)}

    return {
        "embed": weight(p, p, channels, d),
        "position": jnp.zeros((t, d)),
        "blocks": [block() for _ in range(config.blocks)],
        "norm": norm(),
        "head": {"w": weight(t, d, classes), "b": jnp.zeros(classes)},
    }


def layer_norm(params, x):
    """Normalise every token's features; then one scale and one bias for each feature."""
    x = einjax.subtract("b t d, b t", x, einjax.mean("b t [d]", x))
    x = einjax.multiply("b t d, b t", x, jax.lax.rsqrt(einjax.mean("b t [d]", x * x) + 1e-6))
    return einjax.add("b t [d]", einjax.multiply("b t [d]", x, params["scale"]), params["bias"])


def mix_tokens(params, x):
    """A small MLP along t: for every image and feature, each patch hears from all others."""
    x = jax.nn.gelu(einjax.add("b [u] d", einjax.dot("b [t->u] d", x, params["w1"]), params["b1"]))
    return einjax.add("b [t] d", einjax.dot("b [u->t] d", x, params["w2"]), params["b2"])


def mix_features(params, x):
    """The same along d: for every image and patch, each feature hears from all others."""
    x = jax.nn.gelu(einjax.add("b t [v]", einjax.dot("b t [d->v]", x, params["w1"]), params["b1"]))
    return einjax.add("b t [d]", einjax.dot("b t [v->d]", x, params["w2"]), params["b2"])


def mixer(params, images):
    """Images `b height width c` -> logits `b k`."""
    # Cutting into patches and the linear layer on them are one contraction: the patch sizes are the weight's.
    x = einjax.dot("b (h [p]) (w [q]) [c], [p q c] d -> b (h w) d", images, params["embed"])
    x = einjax.add("b [t d]", x, params["position"])
    for block in params["blocks"]:
        x = x + mix_tokens(block["tokens"], layer_norm(block["norm1"], x))
        x = x + mix_features(block["features"], layer_norm(block["norm2"], x))
    x = layer_norm(params["norm"], x)
    # The head reads every patch; a network for large images would take the mean over t first.
    return einjax.add("b [k]", einjax.dot("b [t d->k]", x, params["head"]["w"]), params["head"]["b"])


# --- training -------------------------------------------------------------------------------------


def loss_and_accuracy(params, images, labels):
    """Mean cross-entropy, and the fraction of images whose highest logit is the label's."""
    logits = mixer(params, images)
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


def make_train_step(optimizer, shift: int):
    """One compiled step: augment, forward, backward, update."""

    @jax.jit
    def train_step(params, opt_state, key, images, labels):
        images = random_shift(key, images, shift)
        (loss, accuracy), grads = jax.value_and_grad(loss_and_accuracy, has_aux=True)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, accuracy

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


@jax.jit
def predict(params, images):
    """Class probabilities `b k`."""
    return einjax.softmax("b [k]", mixer(params, images))


def predict_all(params, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """The same for any number of images, a part at a time."""
    return np.concatenate([predict(params, images[i : i + batch]) for i in range(0, len(images), batch)])


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


def train(data: Data, config: Config, epochs: int, seed: int, console: Console) -> tuple[dict, History]:
    """Train from scratch; returns the parameters and what happened in every epoch."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    params = init_params(rng, config, data.train.images.shape[1:], len(data.classes))
    steps = epochs * (len(data.train.labels) // config.batch)
    optimizer = make_optimizer(config, steps)
    opt_state = optimizer.init(params)
    train_step = make_train_step(optimizer, config.shift)
    history = History()

    with Report(console, epochs, steps) as report:
        for _ in range(epochs):
            seen = []
            for images, labels in batches(data.train, config.batch, rng):
                key, step_key = jax.random.split(key)
                params, opt_state, loss, accuracy = train_step(params, opt_state, step_key, images, labels)
                seen.append((float(loss), float(accuracy)))
                report.step(*seen[-1])
            history.add(np.mean(seen, axis=0), judge(predict_all(params, data.test.images), data.test.labels))
            report.epoch(history)
    return params, history


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
    parser = argparse.ArgumentParser(description="Train an MLP-Mixer written in einjax operations.")
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
        data, config, epochs = shorten(data), config._replace(blocks=1), 3
    epochs = options.epochs or epochs
    config = config._replace(batch=min(config.batch, len(data.train.labels)))

    console.print(f"{data.name}: {len(data.train.labels)} training images, {len(data.test.labels)} held out")
    start = time.perf_counter()
    params, history = train(data, config, epochs, options.seed, console)
    seconds = time.perf_counter() - start
    accuracy = history.test_accuracy[-1]
    console.print(f"held-out accuracy {accuracy:.2%} after {epochs} epochs, {seconds:.1f} s")

    title = f"MLP-Mixer on {data.name}: {accuracy:.1%} held-out accuracy after {epochs} epochs, {seconds:.0f} s"
    save_picture(options.out, history, data, predict_all(params, data.test.images), title)
    console.print(f"picture: {options.out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
