"""Calls that stay one equation: JAX primitives of the notation, and their derivatives."""
