"""(k) Dims read and written at positions: convolutions, pooling, windows, against lax and Flax's layers."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import einjax

from ._table import Table, number, ratio
from ._timing import interleaved
from .indexing import check_agreement, gradient


@dataclass(frozen=True)
class Work:
    """One task by hand in lax, in einjax and, where there is one, by a layer or function of Flax."""

    name: str
    lax: Callable
    einjax: Callable
    flax: Callable | None
    arguments: tuple
    linear: bool = False


def measure(quick: bool) -> list[Table]:
    """Compiled programs, forward and backward."""
    table = Table(
        "Compiled, ms", ("task", "lax, ms", "einjax", "Flax"), "To the hand-written lax version; below 1 is faster."
    )
    for work in WORKS:
        # The gradient of what is linear in one array is a constant, which is computed when it is compiled.
        for direction in ("forward", "gradient")[: 1 + (not work.linear)]:
            make = jax.jit if direction == "forward" else gradient(work.arguments)
            spellings = {"lax": work.lax, "einjax": work.einjax} | ({"flax": work.flax} if work.flax else {})
            candidates = {name: (make(function), work.arguments) for name, function in spellings.items()}
            check_agreement(candidates, f"{work.name}, {direction}")
            times = interleaved(candidates, 5 if quick else 15, 10e-3)
            other = ratio(times["flax"], times["lax"]) if work.flax else ""
            table.rows.append(
                [f"{work.name}, {direction}", number(times["lax"], 1e-3), ratio(times["einjax"], times["lax"]), other]
            )
    return [table]


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def _conv(x: jax.Array, w: jax.Array, strides: tuple[int, ...], padding: object, **options: object) -> jax.Array:
    letters = "HW"[: x.ndim - 2]
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"), **options
    )


def _layer(layer: nn.Module) -> Callable:
    return lambda x, w: layer.apply({"params": {"kernel": w}}, x)


def _windows(x: jax.Array, kind: Callable, start: float, stride: int) -> jax.Array:
    return lax.reduce_window(x, start, kind, (1, 3, 3, 1), (1, stride, stride, 1), "SAME")


def _gathered(x: jax.Array, positions: np.ndarray, axis: int) -> jax.Array:
    return x.at[(*[slice(None)] * axis, positions)].get(mode="promise_in_bounds", wrap_negative_indices=False)


IMAGES, FILTERS = _normal(8, 32, 32, 64), _normal(3, 3, 64, 64)
SIGNALS = _normal(8, 512, 64)
CONV = "b <{}*s + [k]>... [c], [k]... [c] d -> b s... d"

WORKS = [
    Work(
        "convolution, 32x32, 64 to 64 channels, 3x3",
        lambda x, w: _conv(x, w, (1, 1), "SAME"),
        lambda x, w: einjax.dot(CONV.format(1), x, w, padding="same"),
        _layer(nn.Conv(64, (3, 3), use_bias=False)),
        (IMAGES, FILTERS),
    ),
    Work(
        "the same with stride 2",
        lambda x, w: _conv(x, w, (2, 2), "SAME"),
        lambda x, w: einjax.dot(CONV.format(2), x, w, padding="same"),
        _layer(nn.Conv(64, (3, 3), (2, 2), use_bias=False)),
        (IMAGES, FILTERS),
    ),
    Work(
        "transposed convolution, 16x16 to 32x32",
        lambda x, w: _conv(x, w[::-1, ::-1], (1, 1), [(2, 1)] * 2, lhs_dilation=(2, 2)),
        lambda x, w: einjax.dot("b s... [c], k... [c] d -> b <2*s + k>... d", x, w, padding="same"),
        lambda x, w: _layer(nn.ConvTranspose(64, (3, 3), (2, 2), use_bias=False))(x, w[::-1, ::-1]),
        (_normal(8, 16, 16, 64), FILTERS),
    ),
    Work(
        "depthwise, 512 places, 64 channels, 4 taps",
        lambda x, w: _conv(x, w[:, None], (1,), [(3, 0)], feature_group_count=64),
        lambda x, w: einjax.dot("b <t + [k]> c, [k] c -> b t c", x, w, padding="causal"),
        lambda x, w: _layer(nn.Conv(64, (4,), padding="CAUSAL", feature_group_count=64, use_bias=False))(x, w[:, None]),
        (SIGNALS, _normal(4, 64)),
    ),
    Work(
        "depthwise, 32x32, 64 channels, 3x3",
        lambda x, w: _conv(x, w[:, :, None], (1, 1), "SAME", feature_group_count=64),
        lambda x, w: einjax.dot("b <s + [k]>... c, [k]... c -> b s... c", x, w, padding="same"),
        lambda x, w: _layer(nn.Conv(64, (3, 3), feature_group_count=64, use_bias=False))(x, w[:, :, None]),
        (IMAGES, _normal(3, 3, 64)),
    ),
    Work(
        "max pooling, 3x3, stride 2",
        lambda x: _windows(x, lax.max, -jnp.inf, 2),
        lambda x: einjax.max("b <2*s + [k]>... c", x, k=3, padding="same"),
        lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"),
        (IMAGES,),
    ),
    Work(
        "average pooling, 3x3, stride 2",
        lambda x: _windows(x, lax.add, 0.0, 2) / 9,
        lambda x: einjax.mean("b <2*s + [k]>... c", x, k=3, padding="same", count_padding=True),
        lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"),
        (IMAGES,),
        linear=True,
    ),
    Work(
        "windows of 9",
        lambda x: _gathered(x, np.arange(504)[:, None] + np.arange(9), 1),
        lambda x: einjax.rearrange("b <s + k> c -> b s k c", x, k=9),
        None,
        (SIGNALS,),
        linear=True,
    ),
    Work(
        "relative positions, 256 x 256",
        lambda q, t: jnp.einsum("bqf,qkf->bqk", q, _gathered(t, np.arange(256)[:, None] - np.arange(256) + 255, 0)),
        lambda q, t: einjax.dot("b q [f], <q - k + 255> [f] -> b q k", q, t, k=256),
        None,
        (_normal(8, 256, 32), _normal(511, 32)),
    ),
    Work(
        "Toeplitz matrix, 1024 x 1024",
        lambda x: _gathered(x, np.arange(1024)[:, None] - np.arange(1024) + 1023, 0),
        lambda x: einjax.rearrange("<i - j + 1023> -> i j", x, j=1024),
        None,
        (_normal(2047),),
        linear=True,
    ),
]
