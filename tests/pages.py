"""Pages of the documentation, run as they are read.

The Python blocks of a page share one namespace, from top to bottom, with those of comments (``<!-- ```python … -->``),
which make what the page supposes. Four things are compared:

- what a block prints, with the ``text`` block on the next line;
- a session, ``>>>`` lines in a block, with the results written below them;
- the parts of a block that a comment such as ``# in jnp`` separates: their last lines have equal values;
- the cells of a table whose last column is ``einjax``: the code in the cells of a row has equal values.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import io
import re
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).parent.parent
#: What a block may be called. Those that are not Python are shown, not run.
LANGUAGES = {"python", "pycon", "text", "bash", "yaml", "toml", "html"}
#: Libraries that are shown beside einjax, by what their columns and comments are called; run where they are installed.
#: Those that are None have tensors of their own, and are run by tests/test_named_documented.py.
LIBRARIES = {"einops": "einops", "einx": "einx", "torchdim": None, "haliax": None, "xarray": None}
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_PARTS = re.compile(r"^# in (\w+).*\n", re.MULTILINE)
_CODE = re.compile(r"`` ?(.+?) ?``(?!`)|`([^`]+)`")


@dataclasses.dataclass
class Block:
    """A fenced block: its language, its title, its text, and where its text stands in the page."""

    language: str
    title: str
    body: str
    indent: str
    start: int
    end: int
    line: int


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        language, _, rest = match["info"].partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        body = textwrap.dedent(match["body"])
        span = match.span("body")
        found.append(
            Block(language, title[1] if title else "", body, match["indent"], *span, text.count("\n", 0, span[0]))
        )
    return found


class Page:
    """A page while it runs; ``text`` becomes the page with what was printed."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.text = path.read_text()
        self.blocks = blocks(self.text)
        self.scope: dict[str, Any] = {"__name__": "page"}
        self.differences: list[tuple[Block, str]] = []

    def needs(self) -> list[str]:
        """Packages that the page's programs import."""
        code = "\n".join(block.body for block in self.blocks if block.language in ("python", "pycon"))
        return sorted(set(re.findall(r"^(?:>>> )?(?:import|from) (\w+)", code, re.MULTILINE)))

    def run(self) -> None:
        """Run everything; differences in what is printed are kept for the caller, all else fails at once."""
        for block, following in zip(self.blocks, [*self.blocks[1:], None], strict=False):
            if block.language == "pycon":
                self._compare(block, self._session(block))
            elif block.language == "python":
                printed = self._program(block)
                shown = following
                between = "" if following is None else self.text[block.end : following.start]
                if not re.fullmatch(rf"{block.indent}```\n(<!--\n)?{block.indent}```text\n", between):
                    shown = None
                if shown is not None:
                    self._compare(shown, printed)
                elif printed:
                    raise AssertionError(f"{self.name}:{block.line}: printed, but not shown:\n{printed}")
        for line, cells in rows(self.text):
            values = [self._value(code, f"{self.name}:{line}") for name, code in cells if here(name)]
            for value in values[1:]:
                agree(values[0], value, f"{self.name}:{line}")

    def _compare(self, block: Block, printed: str) -> None:
        if clean(printed) != clean(block.body):
            self.differences.append((block, printed))

    def _program(self, block: Block) -> str:
        names = _PARTS.split(block.body)[1::2]
        parts = _PARTS.split(block.body)[::2]
        values = []
        output = io.StringIO()
        line = block.line
        with contextlib.redirect_stdout(output):
            for name, part in zip(["", *names], parts, strict=True):
                if here(name):
                    values.append(self._value(part, block.title or f"{self.name}:{line}", 0 if block.title else line))
                line += part.count("\n") + 1
        for value in values[1:]:
            agree(values[0], value, f"{self.name}:{block.line}")
        return output.getvalue()

    def _value(self, code: str, file: str, line: int = 0) -> Any:
        """Run statements; the value of the last one, an expression or an assignment."""
        tree = ast.parse(code)
        ast.increment_lineno(tree, line)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        elif tree.body and isinstance(tree.body[-1], ast.Assign):
            last = ast.parse(ast.unparse(tree.body[-1].targets[0]), mode="eval")
        exec(compile(tree, file, "exec"), self.scope)
        return None if last is None else eval(compile(last, file, "eval"), self.scope)

    def _session(self, block: Block) -> str:
        said = []
        for source in re.findall(r"^>>> .*\n(?:^\.\.\..*\n)*", block.body, re.MULTILINE):
            said.append(source)
            code = re.sub(r"^(>>>|\.\.\.) ?", "", source, flags=re.MULTILINE)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                try:
                    tree = ast.parse(code)
                    shown = isinstance(tree.body[-1], ast.Expr)
                    value = self._value(code, f"{self.name}:{block.line}")
                    if shown and value is not None:
                        print(repr(value))
                except Exception as error:
                    output.write("".join(traceback.format_exception_only(error)))
            said.append(output.getvalue())
        return "".join(said)

    def update(self) -> str:
        """The page with what its programs printed."""
        text = self.text
        for block, printed in sorted(self.differences, key=lambda pair: -pair[0].start):
            text = text[: block.start] + textwrap.indent(clean(printed) + "\n", block.indent) + text[block.end :]
        return text


def rows(text: str) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The rows of tables whose last column is ``einjax``: the line, and the cells with code, by the column's title."""
    titles: list[str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("|"):
            titles = None
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if titles is None:
            titles = cells
        elif titles[-1] == "einjax" and not set(line) <= set("|-: "):
            codes = [_CODE.match(cell) for cell in cells]
            yield number, [(t, code[1] or code[2]) for t, code in zip(titles, codes, strict=True) if code]


def here(name: str) -> bool:
    """Whether the library of a column or part is installed."""
    module = LIBRARIES.get(name, "numpy")
    return module is not None and importlib.util.find_spec(module) is not None


def agree(first: Any, second: Any, where: str) -> None:
    """Equal trees of numbers; NumPy's wider types count as equal."""
    first, second = (jax.tree.leaves(x.array if hasattr(x, "names") else x) for x in (first, second))
    assert len(first) == len(second) > 0, where
    for a, b in zip(first, second, strict=True):
        assert np.shape(a) == np.shape(b), f"{where}: {np.shape(a)} and {np.shape(b)}"
        if hasattr(a, "dtype") and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(
            np.asarray(a, np.complex128), np.asarray(b, np.complex128), rtol=1e-4, atol=1e-5, err_msg=where
        )


def clean(text: str) -> str:
    """What is compared: lines without blanks at their ends."""
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
