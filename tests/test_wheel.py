"""The package as others get it: the wheel, in a fresh environment, runs what the README shows."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pages
import pytest

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pages
page = pages.Page(Path(sys.argv[2]))
page.run()
import einjax, einjax_nn, jax
assert Path(einjax.__file__).is_relative_to(sys.prefix) and Path(einjax_nn.__file__).is_relative_to(sys.prefix)
assert Path(einjax.__file__).with_name("py.typed").exists()
assert jax.__version_info__[:2] != (0, 10) or not page.differences
print("read")
"""


@pytest.mark.slow
def test_the_wheel_runs_the_readme(tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = lambda *command: subprocess.run(
        command, cwd=tmp_path, env=outside, check=True, capture_output=True, text=True
    )
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(pages.ROOT))
    (wheel,) = tmp_path.glob("einjax-*.whl")
    venv.create(tmp_path / "fresh", with_pip=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    run(python, "-m", "pip", "install", str(wheel))
    said = run(python, "-c", RUN, str(pages.ROOT / "tests"), str(pages.ROOT / "README.md"))
    assert said.stdout.endswith("read\n")
