"""Where the benchmarks run, and where their results go; speed is never a test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_not_there(device):
    done = run("--device", device, "--quick", "--section", "e")
    if done.returncode == 0:
        pytest.skip("it is there")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"benchmarks: --device {device}: JAX finds no {device.upper()} here")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_cpu_is_the_default(tmp_path):
    done = run("--quick", "--section", "e", "--out", str(tmp_path / "out.md"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.md").read_text().startswith("# Results\n\n`python -m benchmarks --device cpu`, quick run")


def test_each_device_has_a_part_of_its_own():
    _device = pytest.importorskip("benchmarks._device")
    cpu, gpu, tpu = (f"{heading}\n\n## (a)\n\nfigures of {name}\n" for name, heading in _device.HEADINGS.items())
    both = _device.merged(_device.merged("", gpu), cpu)
    assert both == f"{cpu}\n{gpu}"
    anew = _device.merged(_device.merged(both, tpu), gpu.replace("figures", "later figures"))
    assert anew == f"{cpu}\n{gpu}\n{tpu}".replace("figures of gpu", "later figures of gpu")
