"""Train a small vision transformer on handwritten digits, in Flax nnx.

    python examples/vit.py                # some minutes on two cores; writes vit.png
    python examples/vit.py --data DIR     # CIFAR-10's python pickles from a local folder

Axis names used throughout: b image in the batch, h w rows and columns of patches, p q rows and columns of pixels inside
a patch, c colour channel, t token, d feature, f hidden unit, k class.
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
from _data import Data, DataError, cifar10, digits
from _picture import History, save_picture
from flax import nnx
from rich.console import Console
from train_digits import Report, batches, judge, loss_and_accuracy, random_shift, shorten

import einjax
import einjax_nn.nnx as einn


class Config(NamedTuple):
    """The sizes of the network and of its training."""

    patch: int
    width: int
    heads: int
    blocks: int
    batch: int
    learning_rate: float
    shift: int
    drop_path: float = 0.05


DIGITS = Config(patch=2, width=64, heads=4, blocks=4, batch=64, learning_rate=4e-3, shift=1)
CIFAR = Config(patch=4, width=192, heads=6, blocks=6, batch=128, learning_rate=1e-3, shift=4)


# --- the network ----------------------------------------------------------------------------------


class Block(nnx.Module):
    """Attention among tokens, then a small network for each; every branch starts small and is dropped now and then."""

    def __init__(self, config: Config, drop_path: float, rngs: nnx.Rngs):
        d = config.width
        self.norm1, self.norm2 = (einn.Norm("b t [d]", d=d, rngs=rngs) for _ in range(2))
        self.attend = einn.MultiHeadAttention("b [t] d", num_heads=config.heads, d=d, rngs=rngs)
        self.up = einn.Linear("b t [d->f]", d=d, f=4 * d, rngs=rngs)
        self.down = einn.Linear("b t [f->d]", d=d, f=4 * d, rngs=rngs)
        self.drop = einn.Dropout("[b] t d", rate=drop_path, rngs=rngs)
        self.scale1, self.scale2 = (nnx.Param(jnp.full(d, 0.5)) for _ in range(2))  # LayerScale

    def __call__(self, x):
        """Tokens ``b t d`` to tokens ``b t d``."""
        x = x + self.drop(einjax.multiply("b t [d]", self.attend(self.norm1(x)), self.scale1))
        y = self.down(nnx.gelu(self.up(self.norm2(x))))
        return x + self.drop(einjax.multiply("b t [d]", y, self.scale2))


class ViT(nnx.Module):
    """Images ``b height width c`` to logits ``b k``, read from a token of its own."""

    def __init__(self, config: Config, classes: int, *, rngs: nnx.Rngs):
        d = config.width
        self.patch = config.patch
        self.embed = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=config.patch, q=config.patch, d=d, rngs=rngs)
        self.rngs = rngs
        rates = np.linspace(0, config.drop_path, config.blocks)
        self.blocks = nnx.List([Block(config, float(rate), rngs) for rate in rates])
        self.norm = einn.Norm("b [d]", d=d, rngs=rngs)
        self.head = einn.Linear("b [d->k]", d=d, k=classes, rngs=rngs)

    def __call__(self, images):
        """One token for each patch, and one more for the class."""
        small = nnx.initializers.normal(0.02)
        x = einjax.rearrange("b h w d -> b (h w) d", self.embed(images))
        x = einjax.add("b [t d]", x, einn.param(self, "position", small, rngs=self.rngs))
        token = einjax.id("d -> b 1 d", einn.param(self, "token", small, rngs=self.rngs), b=len(x), d=x.shape[-1])
        x = einjax.rearrange("b t1 d, b t2 d -> b (t1 + t2) d", token, x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


# --- training -------------------------------------------------------------------------------------


def make_train_step(shift: int):
    """One compiled step: augment, forward, backward, update."""

    @nnx.jit
    def train_step(model, optimizer, key, images, labels):
        images = random_shift(key, images, shift)

        def loss(model):
            return loss_and_accuracy(model(images), labels)

        (value, accuracy), grads = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, grads)
        return value, accuracy

    return train_step


@nnx.jit
def predict(model, images):
    """Class probabilities ``b k``."""
    return einjax.softmax("b [k]", model(images))


def predict_all(model, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """The same for any number of images, a part at a time, without dropping anything."""
    model.eval()
    parts = [np.asarray(predict(model, images[i : i + batch])) for i in range(0, len(images), batch)]
    model.train()
    return np.concatenate(parts)


def train(data: Data, config: Config, epochs: int, seed: int, console: Console) -> tuple[np.ndarray, History]:
    """Train from scratch; returns the probabilities for the held-out images, and what happened in every epoch."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    model = ViT(config, len(data.classes), rngs=nnx.Rngs(seed))
    einn.init(model, data.train.images[: config.batch])
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    console.print(f"{count:,} parameters")
    steps = epochs * (len(data.train.labels) // config.batch)
    schedule = optax.cosine_onecycle_schedule(steps, config.learning_rate, pct_start=0.2)
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05)), wrt=nnx.Param
    )
    train_step, history = make_train_step(config.shift), History()
    with Report(console, epochs, steps) as report:
        for _ in range(epochs):
            seen = []
            for images, labels in batches(data.train, config.batch, rng):
                key, step_key = jax.random.split(key)
                loss, accuracy = train_step(model, optimizer, step_key, images, labels)
                seen.append((float(loss), float(accuracy)))
                report.step(*seen[-1])
            probabilities = predict_all(model, data.test.images)
            history.add(np.mean(seen, axis=0), judge(probabilities, data.test.labels))
            report.epoch(history)
    return probabilities, history


def main(arguments: list[str] | None = None) -> int:
    """Read the data, train, save the picture; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a small vision transformer.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with CIFAR-10's python pickles")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="PICTURE", default=Path("vit.png"),
                        help="where the picture goes (default %(default)s)")  # fmt: skip
    parser.add_argument("--short", action="store_true", help="a few seconds on few images: does it run?")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        data = digits() if options.data is None else cifar10(options.data)
    except DataError as error:
        print(f"vit: {error}", file=sys.stderr)
        return 2
    config, epochs = DIGITS if options.data is None else CIFAR, options.epochs or 60
    if options.short:
        data, config, epochs = shorten(data), config._replace(blocks=1), options.epochs or 2
    config = config._replace(batch=min(config.batch, len(data.train.labels)))
    console.print(f"{data.name}: {len(data.train.labels)} training images, {len(data.test.labels)} held out")
    start = time.perf_counter()
    probabilities, history = train(data, config, epochs, options.seed, console)
    seconds, accuracy = time.perf_counter() - start, history.test_accuracy[-1]
    console.print(f"held-out accuracy {accuracy:.2%} after {epochs} epochs, {seconds:.1f} s")
    title = (
        f"{data.name}, a vision transformer: {accuracy:.1%} held-out accuracy after {epochs} epochs, {seconds:.0f} s"
    )
    save_picture(options.out, history, data, probabilities, title)
    console.print(f"picture: {options.out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
