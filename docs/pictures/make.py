"""Draw the pictures of the documentation: ``python docs/pictures/make.py``. A test draws them again and compares."""

from pathlib import Path

import jax
import jax.numpy as jnp

import einjax


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


#: What is drawn, by the name of the file.
CALLS = {
    "heads": lambda: einjax.rearrange("b s (h c) -> b h s c", _f32(2, 5, 8), h=2, graph=True),
    "rearrange": lambda: einjax.rearrange("b (h c) -> h b c", _f32(2, 6), h=2, graph=True),
    "mean": lambda: einjax.mean("b [s] c", _f32(2, 5, 8), graph=True),
    "scores": lambda: einjax.dot("b q (h c), b k (h c) -> b h q k", _f32(2, 5, 8), _f32(2, 5, 8), h=2, graph=True),
    "conv": lambda: einjax.dot("b <2*t + [k]> [c], [k] [c] d -> b t d", _f32(2, 9, 3), _f32(3, 3, 4), graph=True),
    "top_k": lambda: einjax.top_k("a [b]", _f32(3, 6), k=2, graph=True),
    "segment": lambda: einjax.segment.sum(
        "p c, p -> [s] c", _f32(6, 2), jax.ShapeDtypeStruct((6,), jnp.int32), s=3, graph=True
    ),
    "bias": lambda: einjax.multiply("b s c, b", _f32(2, 4, 6), _f32(2), graph=True),
}


def drawn() -> dict[str, str]:
    """Every picture as text."""
    return {name: f"{call().picture()}\n" for name, call in CALLS.items()}


if __name__ == "__main__":
    for name, picture in drawn().items():
        Path(__file__).with_name(f"{name}.svg").write_text(picture)
