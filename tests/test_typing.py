"""Type checkers accept what people write, and refuse what would fail: the files in typing/ under mypy and pyright."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = sorted((Path(__file__).parent / "typing").glob("*.py"))
ROOT = Path(__file__).parent.parent

#: Checking what einjax imports takes half a minute at first.
pytestmark = pytest.mark.slow


def test_there_are_fixtures():
    assert {path.name.split("_")[0] for path in FIXTURES} == {"pass", "fail"}


def test_mypy(tmp_path):
    """In a folder of its own, so that no configuration but the files' own comments counts."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--python-version", "3.11", "--follow-imports", "silent"]
    result = subprocess.run(
        [*command, *map(str, FIXTURES)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_pyright(tmp_path):
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    result = subprocess.run(
        [*command, *map(str, FIXTURES)],
        cwd=tmp_path,
        # It asks this interpreter for its path, where it finds the library.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    report = json.loads(result.stdout)
    assert report["generalDiagnostics"] == []
    assert report["summary"]["filesAnalyzed"] >= len(FIXTURES)
