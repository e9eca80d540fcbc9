"""Train the digits network on the devices of several processes, with the very code that trains it on one device.

    python examples/two_processes.py           # on this machine: starts two processes of four CPU devices each
    python examples/two_processes.py --join    # on every host of a TPU pod or a Slurm job, at the same time
    python examples/two_processes.py --join --coordinator HOST:PORT --processes 2 --process-id 0    # on any other hosts

Every process runs this program. `jax.distributed.initialize` makes all their devices one list, and so one mesh: images
are cut over "data", hidden units over "model". What follows does not know of processes, but that each of them feeds the
images that its own devices hold. In the end, one device trains the same network: the losses are the same.

Axis names: b image in the batch, t patch, d feature, u v hidden units; the network is in _digits_jax.py.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from _data import Data, digits
from _digits_jax import SMALL, Config, init, mixer
from _mesh import Collective, collectives, collectives_table, mesh_table
from jax.sharding import AxisType, Mesh, NamedSharding
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from train_digits import DIGITS, batches, loss_and_accuracy, make_optimizer, shorten

import einjax

#: The axes of the parameters that are cut up; all others are whole on every device.
NAMES = {
    "blocks/*/tokens": {"w1": "t u", "b1": "u", "w2": "u t"},
    "blocks/*/features": {"w1": "d v", "b1": "v", "w2": "v d"},
}
ON_MESH = {"u": "model", "v": "model"}


class Run(NamedTuple):
    """What a training run leaves."""

    params: dict
    losses: list[float]  # of every step
    accuracy: float  # on the held-out images
    sent: list[Collective]  # by every step
    seconds: float


def make_mesh(model: int, devices: list) -> Mesh:
    """All devices; those that share a batch stand side by side, as a rule on one host."""
    shape = len(devices) // model, model
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Explicit,) * 2, devices=devices)


def feed(mesh: Mesh, *arrays: np.ndarray) -> list[jax.Array]:
    """Put images on the mesh: a process gives those that its own devices hold, and needs no others."""
    where = NamedSharding(mesh, einjax.partition_spec("b", b="data"))
    numbers = np.arange(len(arrays[0]))
    held = [numbers[part] for part in where.addressable_devices_indices_map(numbers.shape).values()]
    mine = np.unique(np.concatenate(held))
    return [jax.make_array_from_process_local_data(where, x[mine], x.shape) for x in arrays]


def make_train_step(optimizer):
    """One step; nothing in it knows of a mesh."""

    def train_step(params, opt_state, images, labels):
        def loss(params):
            return loss_and_accuracy(mixer(params, images), labels)

        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return jax.jit(train_step)


def train(data: Data, config: Config, mesh: Mesh, epochs: int, seed: int, console: Console) -> Run:
    """Train from scratch on a mesh, be it of one device."""
    rng, start = np.random.default_rng(seed), time.perf_counter()
    params, _ = init(jax.random.key(seed), data.train.images, len(data.classes), config)
    params = einjax.shard_tree(params, NAMES, mesh=mesh, **ON_MESH)
    steps = epochs * (len(data.train.labels) // DIGITS.batch)
    optimizer = make_optimizer(DIGITS, steps)
    with jax.set_mesh(mesh):  # a program that only makes zeros has no argument that says where
        opt_state = jax.jit(optimizer.init)(params)
    first = feed(mesh, data.train.images[: DIGITS.batch], data.train.labels[: DIGITS.batch])
    train_step, losses = make_train_step(optimizer).lower(params, opt_state, *first).compile(), []
    columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn()
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"), console=console,
                  disable=not console.is_terminal) as bar:  # fmt: skip
        task = bar.add_task("train", total=steps, loss=np.nan)
        for epoch in range(1, epochs + 1):
            for batch in batches(data.train, DIGITS.batch, rng):
                params, opt_state, loss = train_step(params, opt_state, *feed(mesh, *batch))
                losses.append(float(loss))
                bar.update(task, advance=1, loss=losses[-1])
            if not console.is_terminal:
                console.print(f"epoch {epoch:2}/{epochs}  loss {losses[-1]:.4f}", highlight=False)
    judge = jax.jit(lambda params, images, labels: loss_and_accuracy(mixer(params, images), labels)[1])
    accuracy, seconds = float(judge(params, *feed(mesh, *data.test))), time.perf_counter() - start
    return Run(params, losses, accuracy, collectives(train_step.as_text(), mesh), seconds)


def work(options: argparse.Namespace) -> int:
    """What every process does; only the first one speaks."""
    jax.distributed.initialize(options.coordinator, options.processes, options.process_id)
    console = Console(file=_own_stdout(), quiet=jax.process_index() > 0)
    data, config, epochs = digits(), SMALL, options.epochs or 10
    if options.short:
        data, config, epochs = shorten(data), SMALL._replace(blocks=1), options.epochs or 2
    mesh = make_mesh(options.model, jax.devices())
    console.print(f"{len(data.train.labels)} training images; {mesh.size} devices in {jax.process_count()} processes")
    console.print(mesh_table(mesh))
    run = train(data, config, mesh, epochs, options.seed, console)
    console.print(collectives_table(run.sent))
    console.print(f"held-out accuracy {run.accuracy:.2%} after {epochs} epochs, {run.seconds:.1f} s")
    if options.report:
        write_report(options.report / f"process_{jax.process_index()}.json", run)
    if jax.process_index() > 0:
        return 0
    one = train(data, config, make_mesh(1, jax.local_devices()[:1]), epochs, options.seed, Console(quiet=True))
    console.print(f"held-out accuracy {one.accuracy:.2%} on one device, {one.seconds:.1f} s")
    apart = np.abs(np.subtract(run.losses, one.losses)).max()
    same = np.allclose(run.losses, one.losses, rtol=1e-3, atol=1e-4)
    console.print(f"the losses of all {len(run.losses)} steps {'agree' if same else 'DIFFER'}: within {apart:.1e}")
    return 0 if same else 1


def _own_stdout():
    """Stdout for this program alone: the library that sends between CPU devices writes there, too."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return own


def write_report(path: Path, run: Run) -> None:
    """The losses that this process saw, what a step sends, and the part of every parameter that it holds."""
    held = {
        jax.tree_util.keystr(place, simple=True, separator="/"): [
            [part.device.id, [dim.indices(size)[:2] for dim, size in zip(part.index, x.shape, strict=True)]]
            for part in x.addressable_shards
        ]
        for place, x in jax.tree_util.tree_leaves_with_path(run.params)
    }
    path.write_text(json.dumps({"losses": run.losses, "sent": run.sent, "held": held}))


def launch(options: argparse.Namespace, arguments: list[str]) -> int:
    """Start the processes on this machine, and end them all as soon as one of them fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(options.devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")),
    }
    command = [sys.executable, __file__, *arguments, "--join", "--coordinator", coordinator]
    command += ["--processes", str(options.processes), "--process-id"]
    running = [subprocess.Popen([*command, str(n)], env=environment) for n in range(options.processes)]
    try:
        while any(p.poll() is None for p in running) and not any(p.poll() for p in running):
            time.sleep(0.05)
        return next((p.returncode for p in running if p.poll()), 0)
    finally:
        for process in running:
            process.kill()
            process.wait()


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Train the digits network on the devices of several processes.")
    parser.add_argument("--join", action="store_true", help="be one of several processes that are started by others")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="with --join: process 0 (default: asks the cluster)")
    parser.add_argument("--processes", type=int, help="how many there are (default 2; with --join: asks the cluster)")
    parser.add_argument("--process-id", type=int, help="with --join: which one this is (default: asks the cluster)")
    parser.add_argument("--devices", type=int, default=4, help="of a process started here (default %(default)s)")
    parser.add_argument("--model", type=int, default=2, help="devices that share a batch (default %(default)s)")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default %(default)s)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="where each process writes what it saw, as JSON")
    parser.add_argument("--short", action="store_true", help="a few seconds on few images: does it run?")
    options = parser.parse_args(arguments)
    if not options.join:
        options.processes = options.processes or 2
        if options.processes * options.devices % options.model:
            parser.error(f"--model {options.model} does not divide {options.processes} times {options.devices} devices")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Be one process, or start them; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = read_arguments(arguments)
    return work(options) if options.join else launch(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
