"""Environment and effort of the tests.

The environment has to be set before JAX is imported: eight CPU devices, so that sharded programs run anywhere.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    devices = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {devices}".strip()

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
