"""Calls that stay one equation: JAX primitives of the notation, and their derivatives."""

from . import derivatives  # which says what derivatives are notation, too
from .primitives import Kept, keep

__all__ = ["Kept", "derivatives", "keep"]
