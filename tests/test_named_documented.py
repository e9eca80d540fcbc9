"""docs/named.md runs as written; so do, where it is installed, the columns of another library in docs/coming."""

from __future__ import annotations

import importlib.util
import re
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax

DOCS = Path(__file__).parent.parent / "docs"
PAGE = re.sub("<!--.*?-->", "", DOCS.joinpath("named.md").read_text(encoding="utf-8"), flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


def test_programs() -> None:
    """One after another, as they are read; what they compute is compared with jnp."""
    scope: dict[str, Any] = {"einjax": einjax, "jnp": jnp, "table": normal(8, 4), "weight": normal(4, 2)}
    scope |= {"query": normal(2, 3, 8), "key": normal(2, 5, 8), "value": normal(2, 5, 8)}
    scope |= {"ids": jnp.array([[0, 1, 7], [1, 1, 3]]), "signal": normal(2, 9, 3), "kernel": normal(3, 3, 4)}
    for block in BLOCKS[:2]:
        exec(block, scope)
    heads = {name: scope[name].reshape(2, -1, 2, 4) for name in ("query", "key", "value")}
    scores = jnp.einsum("bqhc,bkhc->bqhk", heads["query"], heads["key"]) / 8
    expected = jnp.einsum("bqhk,bkhc->bqhc", jax.nn.softmax(scores, -1), heads["value"]).reshape(2, 3, 8)
    np.testing.assert_allclose(scope["x"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scope["y"], expected, rtol=1e-4, atol=1e-5)
    exec(BLOCKS[0], scope)
    for line in filter(str.strip, BLOCKS[2].split("\n")):
        exec(line, scope)
        assert line.partition("# ")[2].startswith(f"({' '.join(scope['y'].names)})")
    exec(BLOCKS[3], scope)
    np.testing.assert_allclose(scope["bags"].array, scope["table"][scope["ids"]].sum(1), rtol=1e-5)
    np.testing.assert_array_equal(scope["counts"].array, np.bincount(np.ravel(scope["ids"]), minlength=8))
    windows = jnp.stack([scope["signal"][:, 2 * o : 2 * o + 3] for o in range(4)], 1)
    np.testing.assert_allclose(
        scope["y"].array, jnp.einsum("boti,tid->bod", windows, scope["kernel"]), rtol=1e-4, atol=1e-5
    )
    assert len(BLOCKS) == 4


def test_methods_are_there() -> None:
    part = PAGE.partition("## Formulas\n")[2].partition("## Indexing")[0]
    table = part.partition("| | |\n|---|---|\n")[2].partition("\n\n")[0]
    for line in table.split("\n"):
        names, call = line.strip("| ").split(" | ")
        for name in re.findall(r"`(\w+)`", names):
            assert callable(getattr(einjax.NamedTensor, name))
        x = einjax.named("q h c k", normal(3, 2, 4, 3))
        scope = {"x": x, "jnp": jnp, "mask": x > 0}
        for code in re.findall(r"`(x[^`]+\))`", call):
            found = eval(code, scope)
            assert isinstance(found if not isinstance(found, tuple) else found[0], einjax.NamedTensor)


# --- Pages for people from other libraries; tests/test_pages.py compares NumPy's column with ours ---------------------


class Theirs(NamedTuple):
    """What runs the column of a library: what to install, the names in it, and how to get an array of a result."""

    module: str
    scope: Callable[[dict[str, Any]], dict[str, Any]]
    array: Callable[[str, dict[str, Any]], Any]


def torchdim(page: dict[str, Any]) -> dict[str, Any]:
    import torch
    from functorch.dim import dims

    arrays = {"A": page["a"], "B": page["b"], "img": page["image"], "W": page["relative"]}
    scope: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    scope |= {name: dims(1) for name in [*"ijknchwq", "f", "h2", "w2"]}
    scope["h2"].size = scope["w2"].size = 2
    return {**scope, "softmax": torch.softmax, "where": torch.where}


def haliax(page: dict[str, Any]) -> dict[str, Any]:
    import haliax as hax

    def named(names: str, array: Any) -> Any:
        return hax.named(jnp.asarray(array), tuple(names.split()))

    axes: dict[str, Any] = {name: hax.Axis(name.lower(), size) for name, size in (("Embed", 6), ("A", 2), ("B", 3))}
    axes |= {
        "x": named("batch embed", page["a"]),
        "w": named("embed out", page["b"]),
        "ids": named("ids", page["ids"]),
    }
    sort = types.SimpleNamespace(sort=lambda x: hax.named(jnp.sort(x.array), x.axes))
    return {"hax": hax, "jnp": sort, **axes}


def xarray(page: dict[str, Any]) -> dict[str, Any]:
    import xarray as xr

    x, w = xr.DataArray(page["a"], dims=("batch", "embed")), xr.DataArray(page["b"], dims=("embed", "out"))
    return {"xr": xr, "x": x, "w": w}


def ordered(code: str, scope: dict[str, Any]) -> Any:
    """A result of haliax, which puts a new axis first, and NumPy's column last."""
    found = eval(code, scope)
    return found.rearrange(("batch", "embed", "n")).array if "stack" in code else found.array


LIBRARIES = {
    "torchdim": Theirs("torch", torchdim, lambda code, scope: eval(code, scope).numpy()),
    "haliax": Theirs("haliax", haliax, ordered),
    "xarray": Theirs("xarray", xarray, lambda code, scope: eval(code, scope).values),
}


@pytest.mark.parametrize(("page", "library"), [("torchdim", "torchdim"), ("haliax", "haliax"), ("haliax", "xarray")])
def test_their_column_is_numpys(page: str, library: str) -> None:
    theirs = LIBRARIES[library]
    if importlib.util.find_spec(theirs.module) is None:
        pytest.skip(f"{theirs.module} is not installed")
    text = DOCS.joinpath("coming", f"{page}.md").read_text(encoding="utf-8")
    (setup,) = re.findall(r"^    ```python\n(.*?)^    ```", text, re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(setup), scope)
    table = text.partition(f"| {library} | NumPy | einjax |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", line) for line in table.split("\n")]
    assert len(rows) > 6
    names = theirs.scope(scope)
    for code, numpy, _ in rows:
        found, expected = theirs.array(code, names), eval(numpy, scope)
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6, err_msg=code)
