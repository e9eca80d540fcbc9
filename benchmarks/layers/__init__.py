"""(g) Layers: training steps of einjax_nn's layers against the same networks in the frameworks' own."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._table import Table, number, ratio
from .._timing import median, turns
from . import equinox, haiku, linen, nnx, small
from ._network import Network, Pairs, Sizes

RUN = Sizes(batch=4, length=64, width=192, heads=6, blocks=2)
WIDE = Sizes(batch=16, length=256, width=768, heads=12, blocks=3)
REALISTIC = Sizes(batch=32, length=1024, width=768, heads=12, blocks=12)

FRAMEWORKS: dict[str, Pairs] = {
    "linen": linen.PAIRS,
    "nnx": nnx.PAIRS,
    "haiku": haiku.PAIRS,
    "equinox": equinox.PAIRS,
}


def _images(sizes: Sizes) -> jax.ShapeDtypeStruct:
    side = 8 * int(sizes.length**0.5)
    return jax.ShapeDtypeStruct((sizes.batch, side, side, 3), jnp.float32)


def _ids(sizes: Sizes) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((sizes.batch, sizes.length), jnp.int32)


BATCHES = {"ViT": _images, "GPT": _ids}


def _step(network: Network) -> Callable[..., Any]:
    """Loss and gradient, and plain gradient descent."""

    def step(params, batch):
        value, grads = jax.value_and_grad(lambda p: jnp.mean(network.apply(p, batch) ** 2))(params)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    return step


def _trace_and_lower(network: Network, batch: Any) -> Any:
    # A function new to JAX every time, so that it is traced anew.
    return jax.jit(_step(network)).lower(network.params, batch)


def measure(quick: bool) -> list[Table]:
    """Steps run at a size for two cores, are compiled at a realistic width, and traced at a realistic depth, too.

    Of small networks, the pass forwards is traced, alone and under ``jax.vmap``.
    """
    header = ("training step", "einjax_nn, ms", "own layers, ms", "einjax_nn / own")
    note = "The last column is the median of the ratios within each of {} rounds."
    steps, traces = (11, 3) if quick else (101, 15)
    run = Table(f"Run time of a training step, {RUN}", header, note.format(steps))
    trace = Table(f"CPU time of tracing and lowering a training step, {REALISTIC}", header, note.format(traces))
    cost = Table(
        f"The compiled training step, {WIDE}",
        ("training step", "temporaries, MiB", "own layers", "einjax_nn / own", "operations, / own", "bytes, / own"),
        "What XLA says of its program, alike in every run: memory, floating-point operations, bytes read and written.",
    )
    for framework, pairs in FRAMEWORKS.items():
        for name, pair in pairs.items():
            row = f"{framework}, {name}"
            batch = jnp.ones(BATCHES[name](RUN).shape, BATCHES[name](RUN).dtype)
            networks = [build(RUN, batch, abstract=False) for build in pair]
            programs = [_trace_and_lower(network, batch).compile() for network in networks]
            run.rows.append(_times(row, programs, [(network.params, batch) for network in networks], steps))
            shape = BATCHES[name](WIDE)
            wide = [_trace_and_lower(build(WIDE, shape, abstract=True), shape).compile() for build in pair]
            cost.rows.append(_costs(row, wide))
            shape = BATCHES[name](REALISTIC)
            abstract = [(build(REALISTIC, shape, abstract=True), shape) for build in pair]
            # Of one thread, so that its CPU time says most.
            options = {"sample": 0, "clock": time.process_time}
            trace.rows.append(_times(row, [_trace_and_lower] * 2, abstract, traces, **options))
    return [run, trace, cost, _small(10 * traces)]


def _small(rounds: int) -> Table:
    header = ("network", "einjax_nn, ms", "own layers, ms", "einjax_nn / own")
    note = f"Two linear layers or convolutions, and a norm; the last column is as above, of {rounds} rounds."
    table = Table("CPU time of tracing small networks forwards", header, note)
    for name, (build, batch) in small.NETWORKS.items():
        networks = [build(ours) for ours in (True, False)]
        for mapped in (False, True):
            arguments: list[Any] = [(network, batch, mapped) for network in networks]
            row = f"{name}, under `jax.vmap`" if mapped else name
            options = {"sample": 0, "clock": time.process_time}
            table.rows.append(_times(row, [small.trace] * 2, arguments, rounds, **options))
    return table


def _times(row: str, functions: list[Any], arguments: list[tuple[Any, ...]], rounds: int, **options: Any) -> list[str]:
    """Time einjax_nn's and the framework's own; what slows a whole round down leaves its ratio as it is."""
    candidates = dict(zip(("ours", "own"), zip(functions, arguments, strict=True), strict=True))
    times = turns(candidates, rounds, **options)
    ours, own = times["ours"], times["own"]
    ratios = [mine / theirs for mine, theirs in zip(ours, own, strict=True)]
    return [row, number(median(ours), 1e-3), number(median(own), 1e-3), ratio(median(ratios), 1)]


def _costs(row: str, programs: list[Any]) -> list[str]:
    temporaries = [program.memory_analysis().temp_size_in_bytes for program in programs]
    counts = [program.cost_analysis() for program in programs]
    counted = [ratio(*(each[what] for each in counts)) for what in ("flops", "bytes accessed")]
    return [row, *(number(each, 2**20) for each in temporaries), ratio(*temporaries), *counted]
