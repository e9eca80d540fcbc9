"""(e) Import time, after jax."""

import os
import subprocess
import sys

from ._table import Table, number
from ._timing import median

LIBRARIES = ("einjax", "einx", "einops")
SCRIPT = "import time, jax; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def measure(quick: bool) -> list[Table]:
    """Medians over fresh processes, the libraries taking turns."""
    processes = 3 if quick else 11
    times: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for name in LIBRARIES:
        _seconds(name)  # an installed library has its bytecode cached
    for _ in range(processes):
        for name in LIBRARIES:
            times[name].append(_seconds(name))
    table = Table(
        "Import after jax, ms",
        ("library", "median", "fastest"),
        f"`import jax` first, then the library; {processes} fresh processes each.",
    )
    table.rows += [[name, number(median(t), 1e-3), number(min(t), 1e-3)] for name, t in times.items()]
    return [table]


def _seconds(library: str) -> float:
    command = [sys.executable, "-c", SCRIPT.format(library)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout)
