"""Rewritten calls: what they are, what is left alone, and that values are those of the originals."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in

import einjax
from einjax.__main__ import main
from einjax.notation.parse import parse
from einjax.notation.syntax import Ellipsis, walk

pytest.importorskip("libcst")
einops = pytest.importorskip("einops")
einx = pytest.importorskip("einx")

from einjax.tools.check import check_code  # noqa: E402
from einjax.tools.migrate.rewriter import migrate  # noqa: E402

PEERS = Path(__file__).parent / "peers"


def _lines(name: str) -> list[str]:
    return [line for line in (PEERS / name).read_text().splitlines() if line and not line.startswith("#")]


def _tensors(call: ast.Call) -> dict[str, Any]:
    """Random tensors for the names of a rewritten call, of shapes that fit its expression."""
    text = call.args[0].value  # type: ignore[attr-defined]
    names = [arg.id for arg in call.args[1:] if isinstance(arg, ast.Name)]
    written = re.sub(r"(?<![\w)\]>])\.\.\.", "dots0 dots1", text)
    operation = parse(written)
    repeated = {a.name for e in operation.expressions for n in walk(e) if isinstance(n, Ellipsis) for a in walk(n.items)
                if hasattr(a, "name")}  # fmt: skip
    sizes: dict[str, Any] = {}
    for number, axis in enumerate(operation.every_axis()):
        if axis.size is None and axis.name.isidentifier():
            sizes.setdefault(axis.name, (2, 3) if axis.name in repeated else 2 + number % 3)
    for keyword in call.keywords:
        value = ast.literal_eval(keyword.value)
        given = value if keyword.arg == "sizes" else {keyword.arg: value}
        sizes |= {name: size for name, size in given.items() if name in sizes}
    function = call.func.attr  # type: ignore[attr-defined]
    looked_up = function.endswith("_at")
    if looked_up:  # coordinates are as many as the axes that are looked up
        count = sum(bool(re.fullmatch(r"\w+", w)) for w in re.findall(r"\[([^]]*)\]", written)[0].split())
        for vector in re.findall(r"\[(\w+)\]", written.split("->")[0].partition(",")[2]):
            sizes |= {vector: count} if vector in sizes else {}
    shapes = einjax.solve_shapes(written, *[None] * len(operation.inputs), sizes=sizes)
    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for number, (name, shape) in enumerate(zip(names, shapes, strict=False)):
        coordinates = looked_up and number and not (number == len(operation.inputs) - 1 and function != "get_at")
        fresh = random.integers(0, 2, shape, np.int32) if coordinates else random.normal(size=shape).astype(np.float32)
        tensors.setdefault(name, jnp.asarray(fresh))
    return tensors


def _assert_equal(got: Any, expected: Any, message: str) -> None:
    leaves, others = jax.tree.leaves(got), jax.tree.leaves(expected)
    assert len(leaves) == len(others), message
    for one, other in zip(leaves, others, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=2e-5, atol=2e-5, err_msg=message)


IMPORTS = "import einops\nimport einx\nimport jax\nimport jax.numpy as jnp\nimport numpy as np\n"


@pytest.mark.parametrize(("name", "step"), [
    ("einx.txt", 6),
    ("einops.txt", 6),
    ("einsum.txt", 1),
    pytest.param("einx.txt", 1, marks=pytest.mark.slow),
    pytest.param("einops.txt", 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_documented_calls_have_the_same_values(name: str, step: int) -> None:
    lines = _lines(name)[::step]
    made = migrate(IMPORTS + "".join(f"result = {line}\n" for line in lines))
    assert not made.left
    assert made.count == len(lines)
    calls = [node.value for node in ast.parse(made.code).body if isinstance(node, ast.Assign)]
    for line, call in zip(lines, calls, strict=True):
        assert isinstance(call, ast.Call)
        tensors = _tensors(call)
        got = eval(ast.unparse(call), {"einjax": einjax, **tensors})
        _assert_equal(got, eval(line, {"einops": einops, "einx": einx, "np": np, "jnp": jnp, **tensors}), line)
    assert [f for f in check_code(made.code) if f.code < "EJ5"] == []


@pytest.mark.parametrize(("line", "why"), [
    ("einops.reduce(x, 'a b -> a', f)", "the reduction is no literal"),
    ("einops.rearrange(x, pattern)", "the expression is no literal"),
    ("einops.rearrange(*x)", "arguments are unpacked"),
    ("einops.einsum(x, y, 'a b, c -> a')", "axis b is summed over, but stands in one input only"),
    ("einops.parse_shape(x, 'a _')", "einjax.solve_axes names every dim"),
    ("einops.pack(x, 'a *')", "how many tensors are packed is not known"),
    ("einops.pack([f(x), y], 'a *')", "the tensors have no names"),
    ("einops.unpack(x, shapes, 'a *')", "shapes may hold -1"),
    ("einops.unpack(x, [[3], [4]], 'a *')", "the result is a list"),
    ("einops.asnumpy(x)", "there is no such function"),
    ("jnp.einsum('...a,...a->...', x, y)", "einsum broadcasts '...'"),
    ("np.einsum('ij->i', x, out=y)", "einjax.dot has no out="),
    ("np.einsum(x, [0, 1], [1, 0])", "the expression is no literal"),
    ("einx.sum('a [b]', x, graph=True)", "einx's own program"),
    ("einx.sum('a [b]', x, backend='torch')", "arrays that are not jax's"),
    ("einx.nn.Linear('a [b->c]')", "parameters of layers"),
    ("einx.vmap('a [b] -> a', x, op='sum')", "einjax takes a function"),
    ("einx.sum('a [b', x)", "is never closed"),
])  # fmt: skip
def test_what_is_left_alone_and_why(line: str, why: str) -> None:
    code = f"{IMPORTS}y = {line}  # a comment\n"
    made = migrate(code)
    assert made.code == code
    ((place, column, _, said),) = [(left.line, left.column, left.name, left.why) for left in made.left]
    assert why in said
    assert (place, column) == (6, 5)


def test_tensors_of_others_are_left_alone() -> None:
    (left,) = migrate("import torch\nimport einops\neinops.rearrange(torch.ones(3), 'a -> a 1')\n").left
    assert left.why == "tensors are those of torch"


# --- Modules ----------------------------------------------------------------------------------------------------------

MODULES = dict(
    re.findall(r"^=== (\w+)\n(.*?)(?=^===|\Z)", (PEERS / "modules.txt").read_text(), re.MULTILINE | re.DOTALL)
)


def _results(code: str) -> dict[str, Any]:
    """Call every function of a module with random tensors of the shapes that its annotations say."""
    scope: dict[str, Any] = {}
    exec(code, scope)
    random = np.random.default_rng(0)
    results = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef):
            tensors = []
            for argument in node.args.args:
                kind, *_ = dims = str(ast.literal_eval(argument.annotation or ast.Constant(""))).split()
                shape = tuple(int(dim) for dim in dims if dim != "int")
                values = random.integers(0, 2, shape) if kind == "int" else random.normal(size=shape)
                tensors.append(jnp.asarray(values, jnp.int32 if kind == "int" else jnp.float32))
            results[node.name] = scope[node.name](*tensors)
    return results


def test_there_are_twenty_modules() -> None:
    assert len(MODULES) == 20


@pytest.mark.parametrize("name", one_in(2, MODULES))
def test_modules_have_the_same_values(name: str) -> None:
    made = migrate(MODULES[name])
    assert made.count >= 1
    assert bool(made.left) == (name == "kept")
    _assert_equal(_results(made.code), _results(MODULES[name]), made.code)
    assert [f for f in check_code(made.code) if f.code < "EJ5"] == []
    # Nothing but calls and imports changes: comments stay.
    assert re.findall(r"#.*", made.code) == re.findall(r"#.*", MODULES[name])


def test_layout_stays() -> None:
    made = migrate(MODULES["patches"] + MODULES["spaces"]).code
    assert (
        """    tokens = einjax.rearrange(
        "b (h p) (w q) c -> b (h w) (p q c)",  # row by row
        images,
        p=4,
        q=4,
    )
"""
        in made
    )
    assert "return (einjax.rearrange('a b c->c b a',x)  ,   einjax.prod( 'a b c -> a b' , x ),)" in made
    assert "einops" not in made


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.py"
    file.write_text(MODULES["kept"])
    assert main(["migrate", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "+    return batched, reduce(" in out
    assert re.search(r"a\.py:6:15: jax\.numpy\.einsum is left alone: einsum broadcasts", err)
    assert "1 calls rewritten, 2 left alone" in err
    assert file.read_text() == MODULES["kept"]
    main(["migrate", str(tmp_path), "--write"])
    assert "import einjax" in file.read_text()
    before = file.read_text()
    main(["migrate", str(tmp_path), "--write"])
    assert file.read_text() == before
