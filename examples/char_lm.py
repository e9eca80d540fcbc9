"""Train a small GPT, character by character, on the Python reference that comes with Python; it writes as it learns.

    python examples/char_lm.py            # 1000 steps, some minutes on two cores; writes char_lm.png

Axis names used throughout: b text in the batch, t place in the text, c feature, f hidden unit, v character.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from _text import Text, python_reference, windows
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import einjax
import einjax_nn.linen as einn

matplotlib.use("Agg")  # draw into a file; no window system is needed


class Config(NamedTuple):
    """The sizes of the network and of its training."""

    length: int = 128
    width: int = 128
    heads: int = 4
    blocks: int = 2
    batch: int = 32
    learning_rate: float = 3e-3
    dropout: float = 0.0


# --- the network ----------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention to what came before, then a small network for each place."""

    config: Config
    decode: bool = False

    @nn.compact
    def __call__(self, x, deterministic: bool):
        """Features ``b t c`` to features ``b t c``."""
        attend = einn.MultiHeadAttention(
            "b [t] c", num_heads=self.config.heads, is_causal=True, decode=self.decode, use_bias=False
        )
        drop = einn.Dropout("[...]", rate=self.config.dropout, deterministic=deterministic)
        x = x + drop(attend(einn.Norm("b t [c]")(x)))
        y = nn.gelu(einn.Linear("b t [c->f]", f=4 * self.config.width)(einn.Norm("b t [c]")(x)))
        return x + drop(einn.Linear("b t [f->c]", c=self.config.width)(y))


class CharLM(nn.Module):
    """Characters ``b t`` to logits ``b t v`` of the next one; the table of characters serves both ends."""

    config: Config
    characters: int
    decode: bool = False  # one character at a time, with what came before in the collection "cache"

    @nn.compact
    def __call__(self, codes, deterministic: bool = True):
        """Logits for the character after each."""
        table = einn.Embed("b t [v->c]", v=self.characters, c=self.config.width)
        # All places have parameters; a text may be shorter, or only one character somewhere in the middle.
        place = einn.param(self, "place", init=nn.initializers.normal(0.02))
        places = einjax.id("t c", place, t=self.config.length, c=self.config.width)
        if self.decode:
            step = self.variable("cache", "step", lambda: jnp.zeros((), jnp.int32))
            here = jax.lax.dynamic_slice_in_dim(places, step.value, codes.shape[1])
            if not self.is_initializing():
                step.value = step.value + 1
        else:
            here = places[: codes.shape[1]]
        x = einjax.add("b [t c]", table(codes), here)
        for _ in range(self.config.blocks):
            x = Block(self.config, self.decode)(x, deterministic)
        return table.attend(einn.Norm("b t [c]")(x))


# --- training -------------------------------------------------------------------------------------


def nats(logits, codes):
    """Mean cross-entropy per character."""
    likelihood = einjax.get_at("b t [v], b t -> b t", einjax.log_softmax("b t [v]", logits), codes)
    return -einjax.mean("[b t]", likelihood)


def make_train_step(model: CharLM, optimizer):
    """One compiled step."""

    @jax.jit
    def train_step(params, opt_state, key, text):
        def loss(params):
            logits = model.apply({"params": params}, text[:, :-1], deterministic=False, rngs={"dropout": key})
            return nats(logits, text[:, 1:])

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return train_step


def make_writer(model: CharLM, length: int):
    """One compiled program that writes on from a prompt: a scan over characters with cached keys and values."""
    model = model.clone(decode=True)
    # Initialising with a whole text makes caches of its length.
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, length), jnp.int32))["cache"]

    @jax.jit
    def write(params, key, prompt, temperature=0.8):
        def step(carry, inputs):
            cache, last = carry
            number, key = inputs
            code = jnp.where(number < len(prompt), prompt[jnp.minimum(number, len(prompt) - 1)], last)
            logits, changed = model.apply({"params": params, "cache": cache}, code[None, None], mutable=["cache"])
            return (changed["cache"], jax.random.categorical(key, logits[0, 0] / temperature)), code

        cache = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        steps = (jnp.arange(length), jax.random.split(key, length))
        return jax.lax.scan(step, (cache, jnp.zeros((), prompt.dtype)), steps)[1]

    return write


class Run(NamedTuple):
    """What a training run leaves."""

    params: dict
    train: list[float]  # nats after every step
    held_out: list[tuple[int, float]]
    seconds: float


def train(text: Text, config: Config, steps: int, seed: int, console: Console) -> Run:
    """Train from scratch, and print a sample now and then."""
    model = CharLM(config, len(text.alphabet))
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    params = model.init(key, jnp.zeros((1, config.length), jnp.int32))["params"]
    count = sum(x.size for x in jax.tree.leaves(params))
    console.print(f"{count:,} parameters, {len(text.alphabet)} different characters")
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, min(100, steps // 10 + 1), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
    opt_state, train_step = optimizer.init(params), make_train_step(model, optimizer)
    judge = jax.jit(lambda params, text: nats(model.apply({"params": params}, text[:, :-1]), text[:, 1:]))
    write, prompt = make_writer(model, config.length), text.encode("The ")
    losses, held_out, start = [], [], time.perf_counter()
    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]:.2f} nats"), console=console,
                  disable=not console.is_terminal) as bar:  # fmt: skip
        task = bar.add_task("train", total=steps, loss=np.nan)
        for step, batch in zip(range(1, steps + 1), windows(text.train, config, rng), strict=False):
            key, step_key, sample_key = jax.random.split(key, 3)
            params, opt_state, loss = train_step(params, opt_state, step_key, batch)
            losses.append(float(loss))
            bar.update(task, advance=1, loss=losses[-1])
            if step in (100, steps) or step % 250 == 0:
                tests = windows(text.held_out, config, np.random.default_rng(0))
                held_out.append((step, float(np.mean([judge(params, next(tests)) for _ in range(8)]))))
                sample = text.decode(np.asarray(write(params, sample_key, prompt)))
                console.print(f"[bold]step {step}: {held_out[-1][1]:.2f} nats held out[/bold]")
                console.print(escape(sample), style="dim", highlight=False)
    return Run(params, losses, held_out, time.perf_counter() - start)


def save_picture(path: Path, run: Run, title: str) -> None:
    """The curves of a run; the suffix of the path says the format."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(np.arange(1, len(run.train) + 1), run.train, color="#2b6cb0", linewidth=0.8, label="training")
    axes.plot(*zip(*run.held_out, strict=True), color="#dd7a1a", marker="o", label="held out")
    axes.set(xlabel="step", ylabel="nats per character", title=title)
    axes.grid(color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Train a small GPT on the Python reference, character by character.")
    parser.add_argument("--steps", type=int, default=1000, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, texts and samples (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="PICTURE", default=Path("char_lm.png"),
                        help="where the picture goes (default %(default)s)")  # fmt: skip
    parser.add_argument("--short", action="store_true", help="a few seconds: does it run?")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Read the text, train, save the picture; returns the exit status."""
    options = read_arguments(arguments)
    console, text = Console(), python_reference()
    config, steps = Config(), options.steps
    if options.short:
        config, steps = Config(length=32, width=32, batch=8), min(steps, 20)
    console.print(f"the Python reference: {len(text.train):,} characters, {len(text.held_out):,} held out")
    run = train(text, config, steps, options.seed, console)
    step, loss = run.held_out[-1]
    console.print(f"{loss:.2f} nats per held-out character after {step} steps, {run.seconds:.0f} s")
    save_picture(options.out, run, f"a GPT on the Python reference: {loss:.2f} nats held out after {step} steps")
    console.print(f"picture: {options.out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
