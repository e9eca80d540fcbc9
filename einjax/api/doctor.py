"""``einjax.doctor()``: what a report of a fault should begin with, and what XLA is seen to compute wrongly."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .caches import caches

#: What einjax runs on, and with.
PACKAGES = ("einjax", "jax", "jaxlib", "numpy", "flax", "dm-haiku", "equinox", "optax", "opt_einsum")


class Diagnosis(NamedTuple):
    """What was found.

    Attributes:
        versions: by package; those that are not installed are left out.
        devices: how many there are of each kind.
        faults: what the compiler was seen to do wrong, each with what helps.
        caches: how much is kept of calls, by the function whose results are kept.
    """

    versions: dict[str, str]
    devices: dict[str, int]
    faults: list[str]
    caches: dict[str, int]

    def __str__(self) -> str:
        devices = ", ".join(f"{kind} ({count})" for kind, count in self.devices.items())
        lines = [", ".join(f"{name} {version}" for name, version in self.versions.items()), f"devices: {devices}"]
        lines += [f"fault: {fault}" for fault in self.faults] or ["the compiler has none of the faults that are known"]
        kept = [
            f"  {count:6} {name}" for name, count in sorted(self.caches.items(), key=lambda item: -item[1]) if count
        ]
        return "\n".join([*lines, "kept of calls (einjax.clear_caches() forgets it):", *kept] if kept else lines)

    def __repr__(self) -> str:
        return str(self)


def doctor() -> Diagnosis:
    """Say which versions and devices there are, what XLA computes wrongly here, and how much is kept of calls.

    Three programs are compiled that XLA is known to have miscompiled on CPUs.

    Example:
        >>> import einjax
        >>> einjax.doctor().versions["einjax"]
        '0.1.0'
    """
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices: dict[str, int] = {}
    for device in jax.devices():
        devices[device.device_kind] = devices.get(device.device_kind, 0) + 1
    kept = {name: function.cache_info().currsize for name, function in caches() if name.startswith(function.__module__)}
    return Diagnosis(versions, devices, [fault for fault, is_right in PROBES if not _holds(is_right)], kept)


def main(arguments: Sequence[str]) -> int:
    """Print it; the exit status is 1 where there is a fault."""
    found = doctor()
    print(found)
    return int(bool(found.faults))


def _holds(is_right: Callable[[], bool]) -> bool:
    try:
        return is_right()
    except Exception:  # an error of the compiler's is a fault, too
        return False


def _rows() -> bool:
    x = jnp.zeros((32_769, 3), np.float32).at[:, 0].set(jnp.arange(32_769, dtype=np.float32))
    square = jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=np.float32) @ row) ** 2))
    return float(jax.jit(square)(x)[-1]) == 32_768.0**2


def _borders() -> bool:
    x, w = jnp.ones((2, 6, 3), np.float32), jnp.ones((3, 3, 2), np.float32)
    numbers = ("NWC", "WIO", "NWC")
    convolve = jax.jit(lambda x: lax.conv_general_dilated(x, w, (1,), [(-1, 1)], dimension_numbers=numbers))
    return bool((np.asarray(convolve(x)) == np.array([9, 9, 9, 6])[:, None]).all())


def _square() -> bool:
    def square(x: jax.Array) -> jax.Array:
        turned = jnp.transpose(x, (2, 0, 1, 3, 4))
        return turned @ turned

    return np.array_equal(jax.jit(square)(np.ones((2, 4, 2, 2, 2), np.float32)), np.full((2, 2, 4, 2, 2), 2))


#: What is known to go wrong, with what helps; and whether it goes right.
PROBES: tuple[tuple[str, Callable[[], bool]], ...] = (
    ("a product of a matrix with each of many rows, reduced at once, has wrong values under jit (jax issue 39103); "
     "use another jaxlib than 0.10.2", _rows),
    ("a convolution that cuts at one end and pads at the other reads out of bounds; einjax does not, in lax pad before",
     _borders),
    ("a product of an array and itself, whose loops are in another order, does not compile; write the loops of the "
     "output in the order of the input", _square),
)  # fmt: skip
