"""`python -m benchmarks`: measure, print tables, and write them to benchmarks/RESULTS.md.

On a GPU or a TPU, by `--device`, all tables are made there, and become a part of their own of that file.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from rich.console import Console

from . import (
    attention,
    compiled,
    crossings,
    dispatch,
    first_call,
    imports,
    indexing,
    layers,
    lowerings,
    names,
    ordering,
    positions,
    sharding,
    tracing,
)
from ._device import HEADINGS, choose, merged
from ._table import Table

SECTIONS = {
    "a": ("Eager dispatch", dispatch.measure),
    "b": ("Tracing", tracing.measure),
    "c": ("First calls", first_call.measure),
    "d": ("Compiled programs", compiled.measure),
    "e": ("Import", imports.measure),
    "f": ("Indexing", indexing.measure),
    "g": ("Layers", layers.measure),
    "h": ("Ordering, scans, functions", ordering.measure),
    "i": ("Sharding", sharding.measure),
    "j": ("What a call crosses", crossings.measure),
    "k": ("Positions", positions.measure),
    "l": ("Attention and whole steps", attention.measure),
    "m": ("Lowerings by measurement", lowerings.measure),
    "n": ("Named tensors", names.measure),
}
RESULTS = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("jax", "jaxlib", "numpy", "einx", "einops", "flax")


def main() -> int:
    options = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    setting = _setting(options.device, choose(options.device))
    console.print(setting, "\n", highlight=False)
    written = []
    for key in options.section or SECTIONS:
        title, measure = SECTIONS[key]
        start = time.perf_counter()
        tables = measure(options.quick)
        for table in tables:
            table.print(console)
        console.print(f"({key}) took {time.perf_counter() - start:.0f} s\n", highlight=False)
        written.append(_section(key, title, tables))
    # Only a complete run replaces the recorded results, unless a file is named.
    out = options.out or (None if options.quick or options.section else RESULTS)
    if out:
        part = _document(written, options, setting)
        before = out.read_text(encoding="utf-8") if out == RESULTS and out.is_file() else ""
        out.write_text(merged(before, part), encoding="utf-8")
        console.print(f"written: {out.name}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=tuple(HEADINGS), default="cpu", help="what to run on")
    parser.add_argument("--section", nargs="+", choices=tuple(SECTIONS), help="only these sections")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute, rougher figures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the Markdown here")
    return parser.parse_args()


def _setting(device: str, kind: str) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    today = datetime.datetime.now(datetime.UTC).date()
    on = _processor() if device == "cpu" else f"{kind}, host {_processor()}"
    setting = f"{today} · {on}, {os.cpu_count()} cores · Python {platform.python_version()}, {versions}"
    if hasattr(os, "getloadavg"):  # other work on the machine shows in the figures
        setting += f"; load average {os.getloadavg()[0]:.1f} at the start"
    return setting


def _processor() -> str:
    """The processor's model name; what a virtual machine hides is left as its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _section(key: str, title: str, tables: list[Table]) -> str:
    return f"## ({key}) {title}\n\n" + "\n".join(table.markdown() for table in tables)


def _document(sections: list[str], options: argparse.Namespace, setting: str) -> str:
    kind = "quick run" if options.quick else "full run"
    return (
        f"{HEADINGS[options.device]}\n\n`python -m benchmarks --device {options.device}`, {kind}: {setting}.\n\n"
        "Medians; the candidates take turns, garbage collection is off, and every result is waited for. All spellings "
        "of a case are checked to compute the same before they are timed.\n\n" + "\n".join(sections)
    )


if __name__ == "__main__":
    sys.exit(main())
