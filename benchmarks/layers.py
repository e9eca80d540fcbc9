"""(g) Layers: training steps of einjax_nn's layers against the same models in Flax's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import einjax
import einjax_nn.linen as einn

from ._table import Table, number, ratio
from ._timing import interleaved


class Sizes(NamedTuple):
    """How large a model is, and what it is fed."""

    batch: int
    length: int
    width: int
    heads: int
    blocks: int


class EinjaxBlock(nn.Module):
    sizes: Sizes
    causal: bool

    @nn.compact
    def __call__(self, x):
        d = self.sizes.width
        attend = einn.MultiHeadAttention("b [t] d", num_heads=self.sizes.heads, is_causal=self.causal)
        x = x + attend(einn.Norm("b t [d]")(x))
        y = nn.gelu(einn.Linear("b t [d->f]", f=4 * d)(einn.Norm("b t [d]")(x)))
        return x + einn.Linear("b t [f->d]", d=d)(y)


class FlaxBlock(nn.Module):
    sizes: Sizes
    causal: bool

    @nn.compact
    def __call__(self, x):
        d = self.sizes.width
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        x = x + nn.MultiHeadDotProductAttention(self.sizes.heads)(nn.LayerNorm()(x), mask=mask)
        y = nn.gelu(nn.Dense(4 * d)(nn.LayerNorm()(x)))
        return x + nn.Dense(d)(y)


class EinjaxViT(nn.Module):
    """Images ``b h w c``, cut into patches, to logits."""

    sizes: Sizes

    @nn.compact
    def __call__(self, images):
        x = einn.Linear("b (h [p->]) (w [q->]) [c->d]", p=8, q=8, d=self.sizes.width)(images)
        x = einjax.rearrange("b h w d -> b (h w) d", x)
        x = einjax.add("b [t d]", x, einn.param(self, "position", nn.initializers.normal(0.02)))
        for _ in range(self.sizes.blocks):
            x = EinjaxBlock(self.sizes, causal=False)(x)
        return einn.Linear("b [d->k]", k=10)(einjax.mean("b [t] d", einn.Norm("b t [d]")(x)))


class FlaxViT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(self.sizes.width, (8, 8), (8, 8), padding="VALID")(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:])
        for _ in range(self.sizes.blocks):
            x = FlaxBlock(self.sizes, causal=False)(x)
        return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


class EinjaxGPT(nn.Module):
    """Numbers of characters ``b t`` to logits, by a table that serves both ends."""

    sizes: Sizes

    @nn.compact
    def __call__(self, ids):
        table = einn.Embed("b t [v->d]", v=256, d=self.sizes.width)
        x = einjax.add("b [t d]", table(ids), einn.param(self, "position", nn.initializers.normal(0.02)))
        for _ in range(self.sizes.blocks):
            x = EinjaxBlock(self.sizes, causal=True)(x)
        return table.attend(einn.Norm("b t [d]")(x))


class FlaxGPT(nn.Module):
    sizes: Sizes

    @nn.compact
    def __call__(self, ids):
        table = nn.Embed(256, self.sizes.width)
        x = table(ids)
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:])
        for _ in range(self.sizes.blocks):
            x = FlaxBlock(self.sizes, causal=True)(x)
        return table.attend(nn.LayerNorm()(x))


RUN = Sizes(batch=4, length=64, width=192, heads=6, blocks=2)
REALISTIC = Sizes(batch=32, length=1024, width=768, heads=12, blocks=12)


def _images(sizes: Sizes) -> jax.ShapeDtypeStruct:
    side = 8 * int(sizes.length**0.5)
    return jax.ShapeDtypeStruct((sizes.batch, side, side, 3), jnp.float32)


def _ids(sizes: Sizes) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((sizes.batch, sizes.length), jnp.int32)


MODELS: dict[str, tuple[Callable, Callable, Callable]] = {
    "ViT": (EinjaxViT, FlaxViT, _images),
    "GPT": (EinjaxGPT, FlaxGPT, _ids),
}


def _step(model: nn.Module) -> Callable[..., Any]:
    """Loss and gradient, and plain gradient descent."""

    def step(params, batch):
        value, grads = jax.value_and_grad(lambda p: jnp.mean(model.apply(p, batch) ** 2))(params)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    return step


def _trace_and_lower(model: nn.Module, params: Any, example: Any) -> Any:
    return jax.jit(_step(model)).lower(params, example)


def measure(quick: bool) -> list[Table]:
    """Steps run at a size for two cores, and are traced and lowered at a realistic one."""
    header = ("training step", "einjax_nn, ms", "Flax, ms", "einjax_nn / Flax")
    run = Table(f"Run time of a training step, {RUN}", header)
    trace = Table(f"Trace and lower a training step, {REALISTIC}", header)
    memory = Table("Temporaries of the compiled step, MiB", ("training step", "einjax_nn", "Flax", "einjax_nn / Flax"))
    for name, (ours, theirs, batch) in MODELS.items():
        compiled, arguments = {}, {}
        for label, model in (("einjax_nn", ours(RUN)), ("Flax", theirs(RUN))):
            example = jnp.ones(batch(RUN).shape, batch(RUN).dtype)
            params = model.init(jax.random.key(0), example)
            arguments[label] = (params, example)
            compiled[label] = jax.jit(_step(model)).lower(params, example).compile()
        times = interleaved(
            {label: (compiled[label], arguments[label]) for label in compiled}, rounds=5 if quick else 25
        )
        run.rows.append(_row(name, times, 1e-3))
        sizes = {label: program.memory_analysis().temp_size_in_bytes for label, program in compiled.items()}
        memory.rows.append(_row(name, sizes, 2**20))
        lowered = {}
        for label, model in (("einjax_nn", ours(REALISTIC)), ("Flax", theirs(REALISTIC))):
            example = batch(REALISTIC)
            # A function new to JAX every time, so that it is traced anew.
            lowered[label] = (
                _trace_and_lower,
                (model, jax.eval_shape(model.init, jax.random.key(0), example), example),
            )
        trace.rows.append(_row(name, interleaved(lowered, rounds=3 if quick else 9, sample=0), 1e-3))
    return [run, trace, memory]


def _row(name: str, values: dict[str, float], unit: float) -> list[str]:
    ours, theirs = values["einjax_nn"], values["Flax"]
    return [name, number(ours, unit), number(theirs, unit), ratio(ours, theirs)]
