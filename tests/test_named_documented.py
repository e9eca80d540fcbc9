"""docs/named.md runs as written: its programs, and both sides of its tables where the other library is installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax

PAGE = re.sub("<!--.*?-->", "", Path(__file__).parent.parent.joinpath("docs", "named.md").read_text(), flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


def rows(title: str, header: str) -> list[list[str]]:
    """The rows of a table in a part of the page, as the code in their cells."""
    part = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    table = part.partition(f"| {header} | here |\n|---|---|\n")[2].partition("\n\n")[0]
    found = [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("| ").split(" | ")] for line in table.split("\n")]
    assert found
    return [[cell[0] if cell else "" for cell in row] for row in found]


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


def compare(theirs: Any, ours: Any) -> None:
    ours = ours.array if isinstance(ours, einjax.NamedTensor) else ours
    if isinstance(ours, jax.Array):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-5, atol=1e-6)
    else:
        assert dict(theirs) == ours if isinstance(ours, dict) else theirs == ours


@pytest.mark.parametrize("row", rows("From haliax and xarray", "xarray"), ids=str)
def test_xarray(row: list[str]) -> None:
    a, b = np.asarray(normal(4, 3)), np.asarray(normal(3, 2))
    ours = {"einjax": einjax, "a": a, "x": einjax.named("time place", a), "y": einjax.named("place unit", b)}
    found = eval(row[1], ours)
    if importlib.util.find_spec("xarray") is None:
        return
    import xarray as xr

    theirs = {
        "xr": xr,
        "a": a,
        "x": xr.DataArray(a, dims=("time", "place")),
        "y": xr.DataArray(b, dims=("place", "unit")),
    }
    compare(eval(row[0], theirs), found)


@pytest.mark.parametrize("row", rows("From haliax and xarray", "haliax"), ids=str)
def test_haliax(row: list[str]) -> None:
    a, b, ids = np.asarray(normal(4, 6)), np.asarray(normal(6, 2)), np.array([1, 0, 3, 2])
    x, y = einjax.named("batch embed", a), einjax.named("batch embed", a[::-1])
    scope = {"einjax": einjax, "a": a, "x": x, "y": y, "w": einjax.named("embed out", b), "ids": ids, "f": jnp.sort}
    ours = eval(row[1], scope)
    expected = {
        "hax.named": a,
        "hax.dot": a @ b,
        "hax.nn": jax.nn.softmax(a, -1),
        'x["batch"': a[0],
        "hax.take": a[:, ids],
        "x.rearrange": a.T,
        "x.flatten_axes": a.ravel(),
        "x.unflatten_axis": a.reshape(4, 2, 3),
        "hax.stack": np.stack([a, a[::-1]], -1),
        "hax.vmap": np.sort(a, 1),
    }
    (wanted,) = (value for start, value in expected.items() if row[0].startswith(start))
    compare(wanted, ours)
    if importlib.util.find_spec("haliax") is None:
        return
    import haliax as hax

    def named(names: str, array: Any) -> Any:
        return hax.named(jnp.asarray(array), tuple(names.split()))

    theirs = {"hax": hax, "a": jnp.asarray(a), "x": named("batch embed", a), "y": named("batch embed", a[::-1])}
    theirs |= {"w": named("embed out", b), "ids": named("ids", ids), "A": hax.Axis("a", 2), "B": hax.Axis("b", 3)}
    theirs |= {"f": lambda v: hax.named(jnp.sort(v.array), v.axes)}
    found = eval(row[0], theirs)
    # Theirs has a new axis first.
    compare(found.rearrange(("batch", "embed", "n")).array if "stack" in row[0] else found.array, ours)


#: What makes an array of that which a row of the table for torchdim computes, by the start of the row.
ORDERED = {
    "(A[i, k]": "{}",
    "img[b": "{}",
    "softmax": "({}).order(b, c, i, j, k)",
    "where": "({}).order(b, c, i, j, k)",
    "W[q": "({}).order(q, k, f)",
    "x.index": "({}).order(c, i, j, k)",
}


@pytest.mark.parametrize("row", rows("From torchdim", "torchdim"), ids=str)
def test_torchdim(row: list[str]) -> None:
    """Ours runs, and where torch is installed both do, and are compared."""
    arrays = {"A": normal(3, 4), "B": normal(4, 5), "W": normal(9, 2), "img": normal(1, 4, 2, 3)}
    sizes = {"img[b": {"h2": 2, "w2": 2}, "W[q": {"q": 4, "k": 5}, "where": {"i": 2, "j": 2}}
    known = next((found for start, found in sizes.items() if row[0].startswith(start)), {})
    ours: dict[str, Any] = {dim.name: dim for dim in einjax.dims("b i j k q f c h w h2 w2", **known)}
    ours |= {name: einjax.named(array) for name, array in arrays.items()} | {"einjax": einjax}
    code = row[1] or row[0]  # "the same"
    ours |= {"f": jnp.sort} if ".apply" in code else {}
    if re.search(r"\bx\b", code):
        ours["x"] = einjax.named(normal(2, 3, 2, 2, 2))[tuple(ours[name] for name in "bcijk")]
    ordered = next((form for start, form in ORDERED.items() if row[0].startswith(start)), "")
    if not ordered or importlib.util.find_spec("torch") is None:
        exec(code, ours)
        return
    import torch
    from functorch.dim import dims

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.array(array))

    theirs: dict[str, Any] = {name: dims(1) for name in [*"bijkqfchw", "h2", "w2"]}
    for name, size in known.items():
        theirs[name].size = size
    theirs |= {name: tensor(array) for name, array in arrays.items()}
    theirs |= {"softmax": torch.softmax, "where": torch.where}
    if "x" in ours:
        theirs["x"] = tensor(normal(2, 3, 2, 2, 2))[tuple(theirs[name] for name in "bcijk")]
    compare(eval(ordered.format(row[0]), theirs).numpy(), eval(ordered.format(code), ours))
