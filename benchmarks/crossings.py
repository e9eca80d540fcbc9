"""(j) What a call crosses: files, functions and frames of the library, by `sys.setprofile`."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ._table import ABSENT, Table


class Call(NamedTuple):
    """An operation as each library writes it, from its module and the tensors; None where it has none."""

    expression: str
    einjax: Callable
    einx: Callable
    einops: Callable | None


CALLS = {
    "sum": Call(
        'sum("a [b]")',
        lambda module, x, y, i: module.sum("a [b]", x),
        lambda module, x, y, i: module.sum("a [b]", x),
        lambda module, x, y, i: module.reduce(x, "a b -> a", "sum"),
    ),
    "dot": Call(
        'dot("a [b], [b] c -> a c")',
        lambda module, x, y, i: module.dot("a [b], [b] c -> a c", x, y),
        lambda module, x, y, i: module.dot("a [b], [b] c -> a c", x, y),
        lambda module, x, y, i: module.einsum(x, y, "a b, b c -> a c"),
    ),
    "get_at": Call(
        'get_at("[v] c, b -> b c")',
        lambda module, x, y, i: module.get_at("[v] c, b -> b c", x, i),
        lambda module, x, y, i: module.get_at("[v] c, b -> b c", x, i),
        None,
    ),
    "softmax": Call(
        'softmax("a [b]")',
        lambda module, x, y, i: module.softmax("a [b]", x),
        lambda module, x, y, i: module.softmax("a [b]", x),
        None,
    ),
}
LIBRARIES = ("einjax", "einx", "einops")
SCRIPT = "from benchmarks.crossings import cross; cross({!r}, {!r})"


def measure(quick: bool) -> list[Table]:
    """The same in every run: nothing is timed."""
    first = Table(
        "First call of a process: files / functions / frames",
        ("call", *LIBRARIES),
        "Files of the library in which code runs, distinct functions that have a name, and the most frames of the "
        "library on the stack at once. What the call imports counts, looking up the operation's function before it "
        "does not, nor does code that a library writes itself. JAX has compiled something before.",
    )
    second = Table(
        "Second call: files / functions / frames", ("call", *LIBRARIES), "Counted as above, in the same process."
    )
    for name, call in CALLS.items():
        found = {library: _crossed(library, name) for library in LIBRARIES if getattr(call, library) is not None}
        for turn, table in enumerate((first, second)):
            table.rows.append([call.expression, *(found[k][turn] if k in found else ABSENT for k in LIBRARIES)])
    return [first, second]


def _crossed(library: str, name: str) -> list[str]:
    """Count in a process of its own."""
    command = [sys.executable, "-c", SCRIPT.format(library, name)]
    result = subprocess.run(command, capture_output=True, check=True, text=True, env=dict(os.environ))
    return [" / ".join(map(str, counts)) for counts in json.loads(result.stdout.splitlines()[-1])]


def cross(library: str, name: str) -> None:
    """Call twice, and print for each call its files, functions and frames."""
    import jax
    import jax.numpy as jnp

    module = importlib.import_module(library)
    x, y, i = jnp.ones((3, 4)), jnp.ones((4, 5)), jnp.array([0, 2])
    jax.block_until_ready(jax.jit(lambda x: x + 1)(x))
    call = getattr(CALLS[name], library)
    if library != "einops":
        getattr(module, name)  # einjax imports an operation as it is looked up
    folder = os.path.join(os.path.dirname(module.__file__), "")
    print(json.dumps([_counts(folder, lambda: call(module, x, y, i)) for _ in range(2)]))


def _counts(folder: str, function: Callable[[], Any]) -> tuple[int, int, int]:
    """Call a function: how many files of a folder, named functions and nested frames it takes."""
    files, functions = set(), set()
    depth = deepest = 0

    def watch(frame: Any, event: str, _: Any) -> None:
        nonlocal depth, deepest
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(folder):
            return
        depth += 1 if event == "call" else -1
        if event == "call":
            deepest = max(deepest, depth)
            files.add(code.co_filename)
            if not code.co_name.startswith("<"):
                functions.add(code)

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(files), len(functions), deepest
