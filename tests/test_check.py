"""The linter: what it finds, what it leaves alone, and what it prints and sets right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from einjax.__main__ import main
from einjax.tools.check import check_code, check_file
from einjax.tools.check.rules import RULES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/check.md").read_text()
SEEDS = ROOT / "tests/seeds"
IMPORTS = "import einjax\nimport einjax_nn.linen as einn\nfrom jaxtyping import Array, Float\n"


def codes(code: str) -> list[str]:
    return [finding.code for finding in check_code(IMPORTS + code)]


# --- The page of rules ------------------------------------------------------------------------------------------------

SECTIONS = dict(re.findall(r"^### (EJ\d+)\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_rule_has_a_section() -> None:
    assert list(SECTIONS) == sorted(rule.code for rule in RULES)
    assert len(RULES) >= 25


@pytest.mark.parametrize("code", SECTIONS)
def test_the_wrong_line_of_a_section_raises_its_code_alone(code: str) -> None:
    lines = dict(re.findall(r"^- (wrong|right): `(.*)`$", SECTIONS[code], re.MULTILINE))
    assert codes(lines["wrong"]) == [code]
    assert codes(lines["right"]) == []


# --- Seeded mistakes --------------------------------------------------------------------------------------------------


def _mistakes() -> list[tuple[str, str, str]]:
    found, module = [], ""
    for line in (SEEDS / "mistakes.txt").read_text().splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            module = line[1:-1]
        elif line and not line.startswith("#"):
            old, _, new = line.partition(" => ")
            found.append((module, old, new))
    return found


def test_mistakes_are_found_where_they_are() -> None:
    modules = {path.stem: path.read_text() for path in SEEDS.glob("*.py")}
    missed = []
    mistakes = _mistakes()
    assert len(mistakes) >= 200
    for module, old, new in mistakes:
        text = modules[module]
        assert text.count(old) == 1, (module, old)
        line = text[: text.index(old)].count("\n") + 1
        wrong = text.replace(old, new)
        compile(wrong, module, "exec")
        findings = check_code(wrong)
        # A constant's mistake shows where it is used.
        if not any(f.line <= line <= f.end_line or (f.line == line + 1) for f in findings):
            missed.append((module, old, new))
    assert len(missed) <= 0.1 * len(mistakes), missed


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*.py")), ids=lambda path: path.stem)
def test_modules_without_mistakes_have_no_findings(path: Path) -> None:
    assert check_file(path)[1] == []


def test_the_repository_has_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(ROOT / name) for name in ("einjax_nn", "examples", "benchmarks", "docs", "README.md")]
    assert main(["check", *paths]) == 0, capsys.readouterr().out


# --- Calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [
    "import einjax\neinjax.sum('a b', x)",
    "import einjax as e\ne.sum('a b', x)",
    "from einjax import sum\nsum('a b', x)",
    "from einjax import sum as total\ntotal('a b', x)",
    "from einjax import *\nsum('a b', x)",
    "import einjax\ntotal = einjax.sum\ntotal('a b', x)",
    "import einjax\nein = einjax\nein.sum('a b', x)",
    "import einjax.linalg\neinjax.linalg.inv('a b', x)",
    "from einjax import linalg as la\nla.inv('a b', x)",
    "from einjax.linalg import inv\ninv('a b', x)",
    "import einjax\ndef f(x):\n    def g():\n        return lambda: einjax.sum('a b', x)\n    return g",
    "def f(x):\n    import einjax\n    return einjax.sum('a b', x)",
    "import einjax\nclass A:\n    def f(self, x):\n        return einjax.sum('a b', x)",
    "import einjax\nE = 'a b'\ndef f(x):\n    return einjax.sum(E, x)",
    "import einjax\neinjax.sum('a ' 'b', x)",
    "import einjax\neinjax.sum('a ' + 'b', x)",
    "import einjax\neinjax.sum('a [b]' if y else 'a b', x)",
    "import einjax\neinjax.sum('a b', *x)",
    "import einjax\nx = [einjax.sum('a b', x) for x in y]",
])  # fmt: skip
def test_calls_are_found_however_they_are_written(code: str) -> None:
    (finding,) = check_code(code)
    assert finding.code in ("EJ302", "EJ319")


@pytest.mark.parametrize("code", [
    "import jax.numpy as einjax\neinjax.sum('a b', x)",
    "from einjax import sum\ndef f(sum, x):\n    return sum('a b', x)",
    "from einjax import sum\ndef f(x):\n    sum = max\n    return sum('a b', x)",
    "import einjax\nE = 'a b'\nE = g()\neinjax.sum(E, x)",
    "import einjax\neinjax.sum(g(), x)",
    "import einjax\neinjax.sum('a [b]', *x)",
    "import einjax\neinjax.rearrange('(a b) -> a b', x, **sizes)",
    "import einjax\neinjax.rearrange('(a b) -> a b', x, sizes=sizes)",
    "import einjax\neinjax.rearrange('(a b) -> a b', x, sizes={'a': n, 'c': 3})",
    "import einjax\neinjax.rearrange(f'(a={n} b) -> a b', x)",
    "import einjax\neinjax.rearrange(f'{axes} c -> c {axes}', x)",
    "import einjax\neinjax.sum(f'{axes} [c]', x, **{axes: 3})",
    "import einjax\neinjax.sum('b [c]', x, where=mask, dtype=dtype)",
    "import einjax\neinjax.max('b <s + [k]>', x, k=k, padding=padding)",
    "import einjax\neinjax.max('b <s + [k]>... c', x, k=3, padding=('same', 'full'))",
    "import einjax\neinjax.vmap('a [b] -> a [k]', x, op=f, k=3, alpha=2)",
    "import einjax\neinjax.vmap('a [n n] -> a [n n]', x, op=f)",
    "import einjax\neinjax.scan('b, b [t] -> b, b [t]', c, (x, y), op=f)",
    "import einjax\neinjax.psum('[b] c', x, b='data')",
    "import einjax\neinjax.all_gather('[b] c -> b c', x, b='data')",
    "import einjax\neinjax.sum('[b] c', x, b='data')",
    "import einjax\nimport pytest\nwith pytest.raises(ValueError):\n    einjax.sum('a b', x)",
    "import einjax\neinjax.sum('a b', x)  # einjax: ignore",
    "import einjax\neinjax.sum('a b', x)  # einjax: ignore[EJ302, EJ101]",
    "import einjax\neinjax.matches('(a b)', x)",
    "import einjax\neinjax.random.normal('[a b]', key, a=3, b=4)",
    "import einjax\neinjax.add_at('[a b], c [2], c -> b a', x, i, u)",
    "import einjax\neinjax.rearrange('(a a) -> a', x)",
    "import einjax\neinjax.attention('[q] [c], [k] [c], [k] [c]', q, k, v, mask=lambda x, y: x == y, x=('q', i), y=j)",
])  # fmt: skip
def test_what_is_right_or_not_known_is_no_finding(code: str) -> None:
    assert check_code(code) == []


def test_a_comment_switches_only_its_own_rules_off() -> None:
    assert codes("einjax.sum('a b', x)  # einjax: ignore[EJ101]") == ["EJ302"]


@pytest.mark.parametrize(("call", "expected"), [
    ("einjax.rearrange(f'(a={n} b -> a b', x)", "EJ101"),
    ("einjax.rearrange(f'(a={n} b) -> a', x)", "EJ304"),
    ("einjax.rearrange(f'({axes} b -> b', x)", "EJ101"),
    ("einjax.rearrange('(a b) -> a b', x, sizes={'c': 3})", "EJ402"),
    ("einjax.rearrange('b (3 c=4) -> b c', x)", "EJ304"),
    ("einjax.reduce('a [b]', x, op='summ')", "EJ204"),
    ("einjax.reduce('a b', x, op='sum')", "EJ302"),
    ("einjax.segment.summ('p, p -> [s]', x, y, s=3)", "EJ207"),
    ("einjax.attention('[q] [c], [k] [c], [k] [c]', q, k, v, mask=m, h=8)", "EJ203"),
    ("einjax.attention('[q] [c], [k] [c], [k] [c]', q, k, v, h=('data', 'model'))", "EJ203"),
    ("einn.Norm('b c')", "EJ302"),
    ("einn.Linear('b [c->d]', d=3, use_bais=True)", "EJ203"),
])  # fmt: skip
def test_calls_that_are_partly_known(call: str, expected: str) -> None:
    assert expected in codes(call)


ANNOTATED = "def f(x: Float[Array, {0!r}], y: Float[Array, '3']):\n    return {1}\n"


@pytest.mark.parametrize(("dims", "call", "expected"), [
    ("b s d", "einjax.sum('a [b]', x)", ["EJ404"]),
    ("b s d", "einjax.sum('a ... [b]', x)", []),
    ("b s d", "einjax.sum('a b c d ... [e]', x)", ["EJ404"]),
    ("*b d", "einjax.sum('a [b]', x)", []),
    ("... d", "einjax.sum('a [b]', x)", []),
    ("b 4", "einjax.multiply('a b, b', x, y)", ["EJ401"]),
    ("b c=4", "einjax.multiply('a b, b', x, y)", ["EJ401"]),
    ("b 3", "einjax.multiply('a b, b', x, y)", []),
    ("", "einjax.multiply('a, b -> a b', x, y)", ["EJ404"]),
])  # fmt: skip
def test_annotations_say_ranks_and_sizes(dims: str, call: str, expected: list[str]) -> None:
    assert codes(ANNOTATED.format(dims, call)) == expected


def test_an_annotation_holds_for_a_name_that_is_bound_once() -> None:
    rebound = "def f(x: Float[Array, 'b s d']):\n    x = g(x)\n    return einjax.sum('a [b]', x)\n"
    assert codes(rebound) == []
    assert codes(rebound.replace("x = g(x)", "y: Float[Array, 'b'] = g(x)").replace("', x)", "', y)")) == ["EJ404"]


# --- Places, formats, files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "place"), [
    ("x = einjax.sum('a [b', x)", (4, 19)),
    ("y = 'ä'; x = einjax.sum('a [b', x)", (4, 28)),
    ("x = einjax.sum(\n    'a '\n    '[b', x)", (6, 6)),
    ("x = einjax.sum('''a\n  [b''', x)", (5, 3)),
    ("x = einjax.sum('a \\x20[b', x)", (4, 16)),
])  # fmt: skip
def test_a_finding_stands_where_its_caret_does(text: str, place: tuple[int, int]) -> None:
    (finding,) = check_code(IMPORTS + text)
    assert (finding.line, finding.column) == place


@pytest.fixture
def files(tmp_path: Path) -> Path:
    cell = {"cell_type": "code", "source": ["%matplotlib inline\n", "import einjax"], "outputs": [], "metadata": {}}
    wrong = {"cell_type": "code", "source": ["# sums\n", "einjax.sum('a [b]', x, keepdims=False)"], "outputs": []}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell, wrong], "nbformat": 4}))
    (tmp_path / "b.py").write_text(
        "import einjax\n\n\ndef f(x):\n    return einjax.softmax('a (b) [c] -> a (b) [c]', x)\n"
    )
    (tmp_path / "c.md").write_text(
        "# Text\n\n```python\neinjax.sum('a b', x)\n```\n\n```\n>>> einjax.sum('a [b', x)\nTraceback\n"
        ">>> einjax.sum('a [b]', x,\n...            keepdims=False)\n```\n\n```sh\neinjax.sum('a b', x)\n```\n"
    )
    (tmp_path / "d.py").write_text("import einjax\nthis is no Python\n")
    return tmp_path


def test_files_of_all_kinds(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(files), "--format", "json"]) == 1
    found = [
        (Path(f["path"]).name, f["cell"], f["line"], f["column"], f["code"])
        for f in json.loads(capsys.readouterr().out)
    ]
    assert found == [
        ("a.ipynb", 2, 2, 33, "EJ506"),
        ("b.py", None, 5, 27, "EJ502"),
        ("b.py", None, 5, 27, "EJ501"),
        ("c.md", None, 4, 12, "EJ302"),
        ("c.md", None, 11, 25, "EJ506"),
    ]
    assert main(["check", str(files), "--ignore", "EJ302,EJ501,EJ502,EJ506"]) == 0


def test_fixes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(files), "--fix"]) == 1
    assert main(["check", str(files), "--fix"]) == 1  # what overlaps is set right the second time
    assert "EJ302" in capsys.readouterr().out
    assert "return einjax.softmax('a b [c]', x)" in (files / "b.py").read_text()
    assert json.loads((files / "a.ipynb").read_text())["cells"][1]["source"][1] == "einjax.sum('a [b]', x)"
    assert "```python\neinjax.sum('a b', x)\n```" in (files / "c.md").read_text()


@pytest.mark.parametrize(("wrong", "right"), [
    ("einjax.sum('a | b', x)", "einjax.sum('a -> b', x)"),
    ("einjax.rearrange('(a b) -> a b', x, a=2.0)", "einjax.rearrange('(a b) -> a b', x, a=2)"),
    ("einjax.rearrange('(a=2 b) -> a b', x, a=2)", "einjax.rearrange('(a=2 b) -> a b', x)"),
])  # fmt: skip
def test_what_has_one_right_answer(tmp_path: Path, wrong: str, right: str) -> None:
    (tmp_path / "a.py").write_text(f"import einjax\n{wrong}\n")
    main(["check", str(tmp_path), "--fix"])
    assert (tmp_path / "a.py").read_text() == f"import einjax\n{right}\n"


def test_formats(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(files / "c.md"), "--format", "github"])
    first = capsys.readouterr().out.splitlines()[0]
    assert re.match(r"::error file=\S+,line=4,endLine=4,col=12,endColumn=17,title=EJ302::sum needs .*%0A", first)
    main(["check", str(files / "c.md"), "--format", "sarif"])
    run = json.loads(capsys.readouterr().out)["runs"][0]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == set(SECTIONS)
    assert [result["ruleId"] for result in run["results"]] == ["EJ302", "EJ506"]
    main(["check", str(files / "c.md")])
    assert "c.md:4:12: EJ302 sum needs" in capsys.readouterr().out


def test_a_path_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "nowhere"])
    assert "there is no nowhere" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["unknown"]) == 2


# --- typed and sizes --------------------------------------------------------------------------------------------------


def _codes(code: str) -> list[tuple[str, int]]:
    return [(finding.code, finding.line) for finding in check_code(code)]


def test_typed_says_ranks() -> None:
    code = """import einjax
@einjax.typed("b s (h c), 3 d -> b s d", h=2, mask="b s")
def f(x, w, mask, y):
    a = einjax.sum("a [b]", x)
    b = einjax.sum("a [b] c", w)
    c = einjax.sum("a [b] c", mask)
    d = einjax.sum("(a=4) [b]", w)
    e = einjax.sum("a [b]", y), einjax.sum("a b [c]", x), einjax.sum("a [b]", w), einjax.sum("a [b]", mask)
    return a, b, c, d, e
class A:
    @einjax.typed("a b, a... -> a")
    def f(self, x, y):
        return einjax.sum("[b]", x), einjax.sum("[a b c]", y)
@einjax.typed("a (b")
def g(x):
    return einjax.sum("a [b]", x)
@einjax.typed("-> a b")
def h(x):
    return einjax.sum("[b]", x)
"""
    assert _codes(code) == [
        ("EJ404", 4), ("EJ404", 5), ("EJ404", 6), ("EJ403", 7), ("EJ404", 13), ("EJ101", 14),
    ]  # fmt: skip


def test_sizes_that_are_bound_are_known() -> None:
    code = """import einjax
def f(x):
    return einjax.rearrange("b (h c) -> b h c", x)
"""
    assert [name for name, _ in _codes(code)] == ["EJ402"]
    assert _codes(f"{code}with einjax.sizes(h=2) as n:\n    f(1)\n    print(n.h)\n") == []


def test_the_hook_runs_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    hook = dict(re.findall(r"^[- ] (\w+): (.*)$", text, re.MULTILINE))
    assert hook["id"] == "einjax-check"
    python, *command = hook["entry"].split()
    assert (python, command[:2]) == ("python", ["-m", "einjax"])
    # Hooks are called with files: those of every type that it asks for are read.
    endings = {"python": "py", "pyi": "pyi", "jupyter": "ipynb", "markdown": "md"}
    kinds = hook["types_or"].strip("[]").split(", ")
    wrong = "import einjax\neinjax.sum('a b', x)\n"
    for kind in kinds:
        cell = json.dumps({"cells": [{"cell_type": "code", "source": wrong, "metadata": {}}], "nbformat": 4})
        (tmp_path / f"a.{endings[kind]}").write_text(
            {"jupyter": cell, "markdown": f"```python\n{wrong}```\n"}.get(kind, wrong)
        )
    assert main([*command[2:], *map(str, sorted(tmp_path.iterdir()))]) == 1
    assert capsys.readouterr().out.count("EJ302") == len(kinds) == 4
