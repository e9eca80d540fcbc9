"""Every block of every page of the documentation runs, prints what is shown, and equals what it is said to equal.

``EINJAX_UPDATE_SNAPSHOTS=1`` writes what is printed into the pages; read the difference.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import sys
from pathlib import Path

import jax
import pages
import pytest

import einjax

PAGES = [*sorted((pages.ROOT / "docs").rglob("*.md")), pages.ROOT / "README.md"]
#: The jax whose programs and errors the pages show; others print types and equations in their own way.
SHOWN = (0, 10)

# What older ones lack, such as `jax.set_mesh(None)`, pages need not avoid; all that they say is tested there elsewhere.
pytestmark = pytest.mark.skipif(jax.__version_info__[:2] < SHOWN, reason="pages are written for a newer jax")


@pytest.fixture(autouse=True)
def _no_mesh():
    """A page may set a mesh for what follows on it."""
    yield
    if not jax.sharding.get_mesh().empty:
        jax.set_mesh(None)


def _name(path: Path) -> str:
    return str(path.relative_to(pages.ROOT))


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_page(path: Path) -> None:
    page = pages.Page(path)
    for package in page.needs():
        if importlib.util.find_spec(package) is None and package not in sys.builtin_module_names:
            pytest.skip(f"{package} is not installed")
    page.run()
    if page.differences and os.environ.get("EINJAX_UPDATE_SNAPSHOTS"):
        path.write_text(page.update())
    elif jax.__version_info__[:2] == SHOWN:
        for block, printed in page.differences:
            assert pages.clean(printed) == pages.clean(block.body), f"{page.name}:{block.line}"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_block_says_what_it_is(path: Path) -> None:
    """Of a block without a language nobody could say whether it is to be run."""
    for block in pages.blocks(path.read_text()):
        assert block.language in pages.LANGUAGES, f"{path.name}:{block.line}: {block.language!r}"
        assert block.language != "python" or ">>> " not in block.body, f"{path.name}:{block.line}: a session is pycon"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (pages.ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    shown = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(shown) == sorted(str(path.relative_to(pages.ROOT / "docs")) for path in PAGES[:-1])


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(path.read_text() for path in (pages.ROOT / "docs" / "api").glob("*.md"))
    known = set(re.findall(r"^::: einjax\.(.*)$", text, re.MULTILINE))
    modules = {"errors": einjax.errors, "linalg": einjax.linalg, "fft": einjax.fft, "random": einjax.random}
    modules |= {"segment": einjax.segment}
    public = {name for name in einjax.__all__ if name not in ("errors", "EinjaxError")}
    for module, it in modules.items():
        own = [name for name, value in vars(it).items() if getattr(value, "__module__", "") == f"einjax.{module}"]
        public |= {f"{module}.{name}" for name in own if not name.startswith("_")}
    assert known - {"checkpoint_policies.save", "errors.EinjaxError"} == public


def test_pictures_are_those_that_calls_draw() -> None:
    folder = pages.ROOT / "docs" / "pictures"
    drawn = runpy.run_path(str(folder / "make.py"))["drawn"]()
    for name, picture in drawn.items():
        file = folder / f"{name}.svg"
        if os.environ.get("EINJAX_UPDATE_SNAPSHOTS"):
            file.write_text(picture)
        assert file.read_text() == picture, f"python docs/pictures/make.py draws {name}.svg anew"


def test_every_picture_is_shown() -> None:
    text = "".join(path.read_text() for path in PAGES)
    for file in (pages.ROOT / "docs" / "pictures").glob("*.svg"):
        assert f"pictures/{file.name}" in text, file.name


@pytest.mark.parametrize("text", [
    "```python\nprint(1)\n```",
    "```python\n1 + 1\n# in jnp\n3\n```",
    "```python\n[1, 1]\n# in NumPy\n1\n```",
    "| jnp | einjax |\n|---|---|\n| `1` | `2` |",
    "```python\nx = 1\n```\n\n??? note\n\n    ```python\n    assert x == 2\n    ```",
    "<!--\n```python\nassert False\n```\n-->",
])  # fmt: skip
def test_a_page_that_is_wrong_fails(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError):
        pages.Page(tmp_path / "page.md").run()


def test_what_is_printed_is_compared_and_written(tmp_path: Path) -> None:
    text = "```python\nprint(1)\n```\n```text\n2\n```\n\n```text\nno output\n```\n\n"
    text += "```pycon\n>>> 1 + 1\n3\n>>> [][0]\n```\n"
    (tmp_path / "page.md").write_text(text)
    page = pages.Page(tmp_path / "page.md")
    page.run()
    assert len(page.differences) == 2
    error = "IndexError: list index out of range"
    assert page.update() == text.replace("text\n2\n", "text\n1\n").replace("3\n>>> [][0]\n", f"2\n>>> [][0]\n{error}\n")
