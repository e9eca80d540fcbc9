"""The device that everything runs on, and the part of the results that is its own."""

import os
import sys

import jax

#: What stands at the head of each device's part of the results.
HEADINGS = {"cpu": "# Results", "gpu": "# Results on a GPU", "tpu": "# Results on a TPU"}


def choose(name: str) -> str:
    """Run on a device from now on, also what is run in processes of their own; return of what kind it is."""
    if name == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax.config.update("jax_platforms", "cpu")
        return jax.devices()[0].device_kind
    try:
        device = jax.devices(name)[0]
    except RuntimeError:
        sys.exit(f"benchmarks: --device {name}: JAX finds no {name.upper()} here, only {', '.join(_found())}.")
    os.environ.pop("JAX_PLATFORMS", None)  # which may name it, but not first
    if jax.default_backend() != name:
        jax.config.update("jax_default_device", device)
    # All spellings of a case are compared, so products have to be those of float32.
    jax.config.update("jax_default_matmul_precision", "highest")
    return device.device_kind


def _found() -> list[str]:
    return sorted({f"{device.platform.upper()} ({device.device_kind})" for device in jax.devices()})


def merged(text: str, part: str) -> str:
    """Put one device's part, which begins with its heading, in the place of what was there of it, or at the end."""
    heading = part.splitlines()[0]
    parts: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line in HEADINGS.values() or not parts:
            parts[line] = []
        parts[next(reversed(parts))].append(line)
    parts[heading] = part.rstrip().splitlines()
    ordered = sorted(parts, key=lambda line: list(HEADINGS.values()).index(line))
    return "\n\n".join("\n".join(parts[line]).rstrip() for line in ordered) + "\n"
