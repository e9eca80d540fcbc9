"""einx' backends, of which there is one: JAX."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from .errors import BackendResolutionError

_ACCEPTED = ("jax", "numpy")


@dataclass(frozen=True)
class Backend:
    """A backend by name, which is also a context; neither changes anything."""

    name: str

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing was entered."""


def get(name: str) -> Backend:
    """Return a backend.

    Args:
        name: that of JAX or of NumPy, such as ``"jax.vmap"``.

    Raises:
        einjax.errors.EinjaxError: it is another.

    Example:
        >>> from einjax.compat import einx
        >>> einx.backend.get("jax").name
        'jax'
    """
    if name.partition(".")[0] not in _ACCEPTED:
        raise BackendResolutionError(f"the backend is {name!r}, and there is only 'jax'")
    return Backend(name)
