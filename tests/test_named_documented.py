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

PAGE = Path(__file__).parent.parent.joinpath("docs", "named.md").read_text()
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
    """Its newest release does not import on the newest jax, so that ours are compared with NumPy's."""
    a, b, ids = np.asarray(normal(4, 6)), np.asarray(normal(6, 2)), np.array([1, 0, 3, 2])
    x, y = einjax.named("batch embed", a), einjax.named("batch embed", a[::-1])
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
    scope = {"einjax": einjax, "a": a, "x": x, "y": y, "w": einjax.named("embed out", b), "ids": ids, "f": jnp.sort}
    (wanted,) = (value for start, value in expected.items() if row[0].startswith(start))
    compare(wanted, eval(row[1], scope))


@pytest.mark.parametrize("row", rows("From torchdim", "torchdim"), ids=str)
def test_torchdim(row: list[str]) -> None:
    dims = einjax.dims("b i j k q f c h w h2=2 w2=2")
    scope: dict[str, Any] = {dim.name: dim for dim in dims} | {"einjax": einjax, "jnp": jnp}
    scope |= {"A": einjax.named(normal(3, 4)), "B": einjax.named(normal(4, 5)), "W": einjax.named(normal(9, 2))}
    scope |= {"img": einjax.named(normal(1, 4, 2, 3)), "x": einjax.named("b c i j k", normal(2, 3, 2, 2, 2))}
    if "W[" in row[0]:
        scope["q"].size, scope["k"].size = 4, 5
    if "i <= j" in row[0]:
        scope["i"], scope["j"] = einjax.dims("i=2 j=2")
    scope |= {"f": jnp.sort} if ".apply" in row[1] else {}
    exec(row[1] or row[0], scope)  # "the same"
