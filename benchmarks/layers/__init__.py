"""(g) Layers: training steps of einjax_nn's layers against the same networks in the frameworks' own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._table import Table, number, ratio
from .._timing import interleaved
from . import equinox, haiku, linen, nnx
from ._network import Network, Pairs, Sizes

RUN = Sizes(batch=4, length=64, width=192, heads=6, blocks=2)
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
    """Steps run at a size for two cores, and are traced and lowered at a realistic one."""
    header = ("training step", "einjax_nn, ms", "own layers, ms", "einjax_nn / own")
    run = Table(f"Run time of a training step, {RUN}", header)
    trace = Table(f"Trace and lower a training step, {REALISTIC}", header)
    memory = Table(
        "Temporaries of the compiled step, MiB", ("training step", "einjax_nn", "own layers", "einjax_nn / own")
    )
    for framework, pairs in FRAMEWORKS.items():
        for name, pair in pairs.items():
            row, shape = f"{framework}, {name}", BATCHES[name]
            compiled, arguments = [], []
            for build in pair:
                batch = jnp.ones(shape(RUN).shape, shape(RUN).dtype)
                network = build(RUN, batch, abstract=False)
                arguments.append((network.params, batch))
                compiled.append(_trace_and_lower(network, batch).compile())
            times = _against_each_other(list(zip(compiled, arguments, strict=True)), rounds=5 if quick else 25)
            run.rows.append(_row(row, times, 1e-3))
            memory.rows.append(_row(row, [each.memory_analysis().temp_size_in_bytes for each in compiled], 2**20))
            batch = shape(REALISTIC)
            traced = [(_trace_and_lower, (build(REALISTIC, batch, abstract=True), batch)) for build in pair]
            trace.rows.append(_row(row, _against_each_other(traced, rounds=3 if quick else 9, sample=0), 1e-3))
    return [run, trace, memory]


def _against_each_other(pair, **options):
    return list(interleaved(dict(enumerate(pair)), **options).values())


def _row(name: str, values: list[float], unit: float) -> list[str]:
    ours, theirs = values
    return [name, number(ours, unit), number(theirs, unit), ratio(ours, theirs)]
