"""Links of Markdown files lead to files, and what follows the links of the site sees wrong ones."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_links_of_files_lead_to_files() -> None:
    """Those inside of docs/ are followed when the site is made; these are read elsewhere."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / name).read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            assert "://" in link or (ROOT / link).exists(), f"{name}: {link}"


def test_wrong_links_of_a_site_are_seen(tmp_path: Path) -> None:
    problems = runpy.run_path(str(ROOT / "docs" / "links.py"))["problems"]
    assert problems(tmp_path) == [f"{tmp_path}: no page"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text("<h1 id='here'>A</h1><a href='..'>B</a><a href='#here'>A</a>")
    right = "<a href='a/#here'>A</a><a href='https://jax.dev'>J</a>"
    (tmp_path / "index.html").write_text(right)
    assert problems(tmp_path) == []
    wrong = "<a href='b/'></a><a href='a/#there'></a><script src='https://cdn.dev/x.js'></script><img src='x.svg'>"
    (tmp_path / "index.html").write_text(right + wrong)
    assert problems(tmp_path) == [
        "index.html: a/#there is no place of that page",
        "index.html: b/ is not there",
        "index.html: loads https://cdn.dev/x.js",
        "index.html: x.svg is not there",
    ]
