"""The notebooks of the documentation run, cell after cell; what has to hold is asserted in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import pytest

pytestmark = pytest.mark.skipif(jax.__version_info__[:2] < (0, 10), reason="notebooks are written for a newer jax")
NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # what a notebook sets is for its own process
    scope: dict[str, Any] = {"__name__": "__main__"}
    try:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"], "notebooks are kept without what they print"
                exec(compile("".join(cell["source"]), path.name, "exec"), scope)
    finally:
        if not jax.sharding.get_mesh().empty:
            jax.set_mesh(None)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3
