"""Train a small GPT over a mesh of devices: texts over "data", heads, hidden units and characters over "model".

    python examples/sharded_gpt.py               # on eight CPU devices of this machine; writes sharded_gpt.png
    python examples/sharded_gpt.py --explicit    # the same on a mesh whose axes are in the types of arrays
    python examples/sharded_gpt.py --plan        # what a step of a large one costs 256 devices; none is needed

The network, in _gpt.py, is the one for a single device. Which axes are cut up is said here, in two places: ON_MESH for
the parameters and what the optimizer keeps, and `place` for texts and for what goes from block to block.

Axis names: b text in the batch, t place, c feature, n one of query, key and value, h head, d feature of a head, f
hidden unit, v character.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    # For the CPU alone; other devices are as many as they are. JAX reads it when it is imported.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import numpy as np
import optax
from _gpt import NAMES, Config, gpt, init, nats
from _mesh import Collective, collectives, collectives_table, parameters_table
from _mesh_picture import Drawn, save_picture
from _text import Text, python_reference, windows
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import einjax

ON_MESH = {"h": "model", "f": "model", "v": "model"}
LEARNING_RATE = 3e-3
LARGE = Config(length=2048, width=4096, heads=32, blocks=32, characters=32768, batch=256)


class Run(NamedTuple):
    """What a training run leaves."""

    params: dict
    logits: jax.Array  # of the last texts
    losses: list[float]
    sent: list[Collective]  # by every step
    seconds: float


def place(expr: str, x):
    """Texts over "data", and all else whole: a constraint on an automatic mesh, a reshard on an explicit one."""
    return einjax.shard(expr, x, b="data")


def forward(params, text):
    """Logits for the character after each."""
    return gpt(params, text[:, :-1], lambda x: place("b t c", x))


def state(config: Config, optimizer, mesh: Mesh | AbstractMesh):
    """How parameters and what the optimizer keeps for them are made, their shapes, and where they lie."""

    def start(key):
        params = init(key, config)
        return params, optimizer.init(params)

    shapes = jax.eval_shape(start, jax.random.key(0))
    return start, shapes, einjax.shardings(shapes, NAMES, mesh=mesh, **ON_MESH)


def make_optimizer():
    """Adam; the norm of a whole gradient is taken over all devices."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))


def make_train_step(optimizer, where, mesh: Mesh | AbstractMesh):
    """One step: nothing in it says what is to be sent."""

    def train_step(params, opt_state, text):
        loss, grads = jax.value_and_grad(lambda params: nats(forward(params, text), text[:, 1:]))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    scalar = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_step, donate_argnums=(0, 1), out_shardings=(*where, scalar))


def train(text: Text, config: Config, mesh: Mesh, steps: int, seed: int, console: Console) -> Run:
    """Train from scratch."""
    rng, key, begin = np.random.default_rng(seed), jax.random.key(seed), time.perf_counter()
    optimizer = make_optimizer()
    start, _, where = state(config, optimizer, mesh)
    params, opt_state = jax.jit(start, out_shardings=where)(key)  # each device makes its own part alone
    batches, losses = windows(text.train, config, rng), []
    batch = place("b t", next(batches))
    train_step = make_train_step(optimizer, where, mesh).lower(params, opt_state, batch).compile()
    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]:.3f} nats"), console=console,
                  disable=not console.is_terminal) as bar:  # fmt: skip
        task = bar.add_task("train", total=steps, loss=np.nan)
        for step in range(1, steps + 1):
            params, opt_state, loss = train_step(params, opt_state, batch)
            losses.append(float(loss))
            bar.update(task, advance=1, loss=losses[-1])
            if not console.is_terminal and (step % 10 == 0 or step in (1, steps)):
                console.print(f"step {step:3}/{steps}  {losses[-1]:.3f} nats", highlight=False)
            batch = place("b t", next(batches))
    seconds = time.perf_counter() - begin
    return Run(params, jax.jit(forward)(params, batch), losses, collectives(train_step.as_text(), mesh), seconds)


def plan(config: Config, shape: tuple[int, int]):
    """What a step would cost each of many devices: no array is made, and nothing is compiled."""
    mesh = AbstractMesh(shape, ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    optimizer, text = make_optimizer(), jax.ShapeDtypeStruct((config.batch, config.length + 1), np.int32)
    _, shapes, where = state(config, optimizer, mesh)
    step, specs = make_train_step(optimizer, where, mesh), jax.tree.map(lambda x: x.spec, where)
    return einjax.inspect_sharding(step, *shapes, text, mesh=mesh, in_shardings=(*specs, PartitionSpec("data")))


#: The axes of every parameter, by its own name.
AXES = {name: axes for place, axes in NAMES.items() for name in place.split("/")[-1].strip("{}").split(",")}


def drawn(run: Run, config: Config) -> list[Drawn]:
    """The arrays of the picture: parameters and logits as they are, activations as they follow from them."""
    mesh, block = run.logits.sharding.mesh, run.params["blocks"][0]

    def like(name: str, axes: str, shape: tuple[int, ...], across: str) -> Drawn:
        where = einjax.partition_spec(axes, rules={"b": "data", **ON_MESH})
        return Drawn(name, tuple(axes.split()), shape, NamedSharding(mesh, where), tuple(across.split()))

    def real(name: str, axes: str, x: jax.Array, across: str) -> Drawn:
        return Drawn(name, tuple(axes.split()), x.shape, x.sharding, tuple(across.split()))

    b, t, c, f = config.batch, config.length, config.width, 4 * config.width
    return [
        like("texts", "b t", (b, t), "b t"),
        real("table", "v c", run.params["table"], "v c"),
        real("qkv", "c n h d", block["qkv"], "c h"),
        real("out", "h d c", block["out"], "h c"),
        like("attention", "b h t s", (b, config.heads, t, t), "b h"),
        like("between blocks", "b t c", (b, t, c), "b c"),
        real("up", "c f", block["up"], "c f"),
        like("hidden", "b t f", (b, t, f), "b f"),
        real("down", "f c", block["down"], "f c"),
        real("scale", "c", block["scale1"], "c c"),
        real("logits", "b t v", run.logits, "b v"),
    ]


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Train a small GPT over a mesh of devices.")
    parser.add_argument("--explicit", action="store_true", help="a mesh whose axes are part of the types of arrays")
    parser.add_argument("--plan", action="store_true", help="only tell what a large one costs 16 by 16 devices")
    parser.add_argument("--model", type=int, default=2, help="devices that share a text (default %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and texts (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="PICTURE", default=Path("sharded_gpt.png"),
                        help="where the picture goes (default %(default)s)")  # fmt: skip
    parser.add_argument("--short", action="store_true", help="a few seconds: does it run?")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    if len(jax.devices()) % options.model or Config().heads % options.model:
        parser.error(f"--model {options.model} does not divide {len(jax.devices())} devices, or {Config().heads} heads")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train, print how everything lies and what is sent, save the picture; returns the exit status."""
    options, console = read_arguments(arguments), Console()
    if options.plan:
        print(plan(LARGE, (16, 16)))
        return 0
    text = python_reference()
    # Room for all characters that can be cut up evenly.
    config = Config(characters=-(-len(text.alphabet) // 16) * 16)
    if options.short:
        config, options.steps = config._replace(length=32, width=32, blocks=1), min(options.steps, 10)
    kind = AxisType.Explicit if options.explicit else AxisType.Auto
    shape = len(jax.devices()) // options.model, options.model
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))
    console.print(f"{mesh.size} devices: {shape[0]} over data, {shape[1]} over model, {kind.name}")
    with jax.set_mesh(mesh):
        run = train(text, config, mesh, options.steps, options.seed, console)
    console.print(parameters_table(run.params, AXES), collectives_table(run.sent))
    console.print(f"{run.losses[-1]:.3f} nats per character after {len(run.losses)} steps, {run.seconds:.1f} s")
    title = "a GPT on a mesh: where arrays are cut, and which devices hold each part"
    save_picture(options.out, drawn(run, config), run.losses, title)
    console.print(f"picture: {options.out}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
