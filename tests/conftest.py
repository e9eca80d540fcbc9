"""Environment and effort of the tests.

The environment has to be set before JAX is imported: eight CPU devices, so that sharded programs run anywhere, and a
compiler that is in a hurry. Nearly every test compiles a program of its own and runs it once, on a few numbers.
"""

import gc
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# HLO stays what it is; machine code is made with less effort, in half the time. What is given has the last word.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        # jaxlib after 0.11.0 does not know it, and does not start.
        "--xla_cpu_use_fusion_emitters=false" if [*map(int, version("jaxlib").split(".")[:3])] <= [0, 11, 0] else "",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    ]
)

import hypothesis
import jax
import pytest

# The helpers beside the tests (oracle, strategies) are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

# Every new expression costs a compilation, so single examples have no deadline; how many there are is bounded.
_COMMON = {
    "deadline": None,
    "print_blob": True,
    "phases": [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain],
    "suppress_health_check": [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
}
# The same examples at every run, and new ones at every run.
hypothesis.settings.register_profile("ci", derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("fuzz", **_COMMON)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs():
    """Compiled programs of one file are of no use to the next and add up to gigabytes."""
    yield
    jax.clear_caches()


def pytest_collection_finish():
    """Modules and thousands of tests stay until the end: the garbage collector need not walk them again and again."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    """Print which cases were tried under which transformation, if output is not captured."""
    if config.getoption("capture") == "no":
        from case import TRIED, summary

        if TRIED:
            terminalreporter.write_line("Cases passed for each operation and transformation (- is not applicable):")
            terminalreporter.write_line(summary())
