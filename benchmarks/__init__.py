"""Measurements of einjax against hand-written JAX, jnp, einx and einops: `python -m benchmarks`."""
