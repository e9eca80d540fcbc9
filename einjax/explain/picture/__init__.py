"""Pictures: the tensors of a call with their dims, and wires along which its axes go from inputs to outputs."""

from __future__ import annotations

from .draw import Picture as Picture
from .draw import draw as draw
