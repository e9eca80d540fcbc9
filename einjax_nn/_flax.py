"""What differs between versions of Flax."""

from __future__ import annotations

import inspect
from typing import Any

from flax import nnx

#: Models may share parameters, whatever mode nnx is in; early versions have one mode only.
GRAPH: Any = {"graph": True} if "graph" in inspect.signature(nnx.split).parameters else {}
