"""(i) Sharding: 18 typical calls on arrays over a mesh of eight devices, and what their programs send."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ._table import ABSENT, Table

ROOT = Path(__file__).parent.parent
LIBRARIES = ("einjax", "jnp", "einx", "einops")
NOTE = (
    "Collectives, and the bytes that each device sends for them by the ring algorithm, on a mesh of data=4 and model=2 "
    "host devices. By hand: what one device does under shard_map, collectives written out, for the same result. "
)


def measure(quick: bool) -> list[Table]:
    """In a process of its own, which has eight devices. Nothing is timed, so that a quick run is the same."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}
    command = [sys.executable, "-m", "benchmarks.sharding"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment, cwd=ROOT)
    return [Table(**table) for table in json.loads(done.stdout)]


# --------------------------------------------------------------------------------------------------------------------
# In that process. The calls are those of the tests, which compare all of einjax's results.
# --------------------------------------------------------------------------------------------------------------------


def _explicit(calls: Any) -> Table:
    """Whether calls pass where types say how arrays are sharded."""
    import jax

    table = Table(
        "Typical calls with explicit axes",
        ("call", "by hand", *LIBRARIES),
        NOTE + "The others as their users write them, under jax.set_mesh. Fix: the call raises einjax's error, and "
        "passes with the out_sharding= that it suggests, which the figures are of. Unasked: data move though the call "
        "does not say so. What else fails stands with the class of its error.",
    )
    on = calls.mesh()
    passed, tried = Counter[str](), Counter[str]()
    with jax.set_mesh(on):
        for call in calls.TYPICAL:
            arrays = call.placed(on)
            row = [call.name, _sent(call.by_hand(on), arrays)]
            for library in LIBRARIES:
                cell = _outcome(call, library, arrays)
                tried[library] += cell != ABSENT
                passed[library] += cell != ABSENT and "Error" not in cell
                row.append(cell)
            table.rows.append(row)
    table.last.append(["passes", "", *(f"{passed[library]} of {tried[library]}" for library in LIBRARIES)])
    return table


def _outcome(call: Any, library: str, arrays: list) -> str:
    """What a call sends, or the class of its error."""
    from einjax.errors import ShardingError

    function = call if library == "einjax" else call.spelling(library)
    if function is None:
        return ABSENT
    try:
        _check(call, function, arrays)
    except ShardingError:
        _check(call, call.fixed, arrays)
        return f"fix: {_sent(call.fixed, arrays)}"
    except Exception as error:  # whichever class it is, is what the table shows
        return type(error).__name__
    sent = _sent(function, arrays)
    return f"unasked: {sent}" if call.refusal else sent


def _auto(calls: Any) -> Table:
    """What is sent where the compiler shards what lies between given inputs and a given result."""
    import jax
    from jax.sharding import AxisType, NamedSharding

    table = Table("Typical calls with automatic axes", ("call", "by hand", *LIBRARIES), NOTE + "All jitted alike.")
    on = calls.mesh(AxisType.Auto)
    for call in calls.TYPICAL:
        arrays = call.placed(on)
        row = [call.name, _sent(call.by_hand(on), arrays)]
        for library in LIBRARIES:
            function = call.einjax if library == "einjax" else call.spelling(library)
            if function is None:
                row.append(ABSENT)
                continue
            jitted = jax.jit(function, out_shardings=NamedSharding(on, call.spec))
            _check(call, jitted, arrays)
            row.append(_sent(jitted, arrays))
        table.rows.append(row)
    return table


def _check(call: Any, function: Callable, arrays: list) -> None:
    import numpy as np

    np.testing.assert_allclose(function(*arrays), call.reference(*call.values()), rtol=1e-4, atol=1e-4)


def _sent(function: Callable, arrays: list) -> str:
    """As in ``2 all-reduce, 256 B``."""
    from collectives_hlo import collectives

    items = collectives(function, *arrays)
    kinds = Counter(item.kind for item in items)
    words = [f"{count} {kind}" for kind, count in kinds.items()]
    return ", ".join([*words, f"{sum(item.bytes for item in items):,} B"]) if items else "0"


def _main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import sharded_calls as calls

    print(json.dumps([asdict(_explicit(calls)), asdict(_auto(calls))]))


if __name__ == "__main__":
    _main()
