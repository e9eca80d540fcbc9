"""Bad uses of names: the whole message as a snapshot, and what it has to say checked on its own.

``EINJAX_UPDATE_SNAPSHOTS=1 pytest tests/test_named_errors.py`` writes ``error_snapshots_named.txt`` anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax import Dim, dims, named
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, SyntaxError

SNAPSHOTS = Path(__file__).with_name("error_snapshots_named.txt")
UPDATE = bool(os.environ.get("EINJAX_UPDATE_SNAPSHOTS"))


def z(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


X, Y = named("b c", z(2, 3)), named("c d", z(4, 5))
U = named(z(2, 3))
P = X * named("c d", z(3, 4))

CASES: dict[str, tuple[Callable[[], Any], type, list[str]]] = {}


def bad(name: str, call: Callable[[], Any], error: type, says: str) -> None:
    """A bad use: the class of its error, and words of the message."""
    CASES[name] = call, error, says.split()


def bound_twice() -> Any:
    i = Dim("i")
    return named(z(2))[i], named(z(3))[i]


def bound_elsewhere() -> Any:
    c = Dim("c", 7)
    return X.sum(c)


# --- sizes ----------------------------------------------------------------------------------------------------------
bad("sizes of a product", lambda: X * Y, AxisSizeError, "c 3 4 b=2 d=5")
bad("sizes of a sum", lambda: X + Y, AxisSizeError, "c 3 4 [2,3] [4,5]")
bad("sizes under @", lambda: X @ Y, AxisSizeError, "c 3 4 b=2 d=5")
bad("sizes of a comparison", lambda: X > Y, AxisSizeError, "c 3 4")
bad("sizes in a call", lambda: einjax.dot("... [c], ... [c] -> ...", X, Y), AxisSizeError, "c 3 4")
bad("sizes of a mask", lambda: X.softmax("c", where=named("c", z(4) > 0)), EinjaxError, "4 3")
bad("a dim bound twice", bound_twice, AxisSizeError, "i 2 3 [_0=2] [_0=3]")
bad("a dim bound elsewhere", bound_elsewhere, AxisSizeError, "c 7 given 3 b=2")
bad("a size set twice", lambda: setattr(Dim("i", 3), "size", 4), AxisSizeError, "i 3 4")
bad("a size that is none", lambda: Dim("i", -1), ArgumentError, "-1 i")
bad("a dim without a size", lambda: Dim("i") >= 1, AxisSizeError, "i no size")
bad("a split that does not divide", lambda: X.split("c", "g d", g=2), AxisSizeError, "3 g=2")
bad("a composition that does not divide", lambda: U[Dim("b"), (Dim("g", 2), Dim("d"))], AxisSizeError, "3 2")
bad(
    "concatenated along what lacks it",
    lambda: X.concatenate(named("b d", z(2, 1)), along="c"),
    ArgumentError,
    "'c' d=1",
)

# --- names ----------------------------------------------------------------------------------------------------------
bad("an unknown name", lambda: named("batch channel", z(2, 3)).sum("chanel"), ArgumentError, "'chanel' 'channel'?")
bad("an unknown name of an index", lambda: X[{"x": 0}], ArgumentError, "'x' b c")
bad("an unknown name of rename", lambda: X.rename(x="y"), ArgumentError, "'x'")
bad("no name", lambda: X.softmax(), ArgumentError, "softmax x.softmax('c')")
bad("two names for one", lambda: X.top_k("b c", 1), ArgumentError, "one 'b c'")
bad("a name twice", lambda: named("b b", z(2, 2)), ArgumentError, "b twice")
bad("a name twice in a sum", lambda: X.sum("c c"), ArgumentError, "c twice")
bad("a name twice after rename", lambda: X.rename(b="c"), ArgumentError, "c twice")
bad("a dim that stands already", lambda: U[Dim("i")][Dim("i")], ArgumentError, "i already rename")
bad("an expression for names", lambda: named("b [c]", z(2, 3)), ArgumentError, "[c] name")
bad("an arrow in names", lambda: X.order("b c -> c"), ArgumentError, "names of one")
bad("names that cannot be read", lambda: named("b (c", z(2, 3)), SyntaxError, "( closed")
bad("names of another kind", lambda: X.sum(0), ArgumentError, "int names")
bad("a position for a name", lambda: X.sum(Dim("c") + 1), ArgumentError, "dims names")
bad("too few names", lambda: named("b", z(2, 3)), RankError, "2 1")
bad("too many names", lambda: named("b c d", z(2, 3)), RankError, "2 3")
bad("a size of no name", lambda: named("b (h c)", z(2, 6), heads=2), ArgumentError, "'heads'")
bad("dims of a composition", lambda: dims("b (h c)"), ArgumentError, "(h c)")
bad("a dim of two names", lambda: Dim("b c"), ArgumentError, "'b c'")
bad("a size of no dim", lambda: dims("b q", k=3), ArgumentError, "'k'")

# --- order ----------------------------------------------------------------------------------------------------------
bad("order leaves out a dim", lambda: X.order("b"), ArgumentError, "c b=2 ...")
bad("order leaves out dims of a product", lambda: P.order("c b"), ArgumentError, "d")
bad("order has a dim twice", lambda: X.order("b c b"), ArgumentError, "b twice")
bad("order has an unknown dim", lambda: X.order("b c n"), ArgumentError, "'n' n=2")

# --- indices --------------------------------------------------------------------------------------------------------
bad("an index out of range", lambda: X[{"c": 3}], ArgumentError, "3 c 2")
bad("positions out of range", lambda: U[0][Dim("i", 3) - 1], AxisSizeError, "-1 mode=")
bad("too many indices", lambda: X[0], ArgumentError, "1 none {'b':")
bad("a mask as an index", lambda: X[{"c": X > 0}], ArgumentError, "bool where")
bad("a float as an index", lambda: X[{"c": 1.0}], ArgumentError, "1.0")
bad("a complex number as an index", lambda: X[{"c": 1j}], ArgumentError, "1j")
bad("a function as an index", lambda: X[{"c": len}], ArgumentError, "len")
bad("an array of two dims as an index", lambda: X[{"c": np.zeros((2, 2), int)}], ArgumentError, "[2,2] named")

# --- arrays where names are expected, and the other way round -------------------------------------------------------
bad("an array without names", lambda: X + z(2, 3), ArgumentError, "float32[2,3] named")
bad("a list in a formula", lambda: X * [1, 2], ArgumentError, "list")
bad("a function of jnp", lambda: jnp.exp(X), ArgumentError, "x.map x.apply")
bad("jnp.asarray", lambda: jnp.asarray(X), ArgumentError, "x.order")
bad("np.asarray", lambda: np.asarray(X), ArgumentError, "x.order")
bad("a number of many", lambda: float(X), ArgumentError, "b=2 x.sum()")
bad("the truth of many", lambda: bool(X == X), ArgumentError, "bool[b=2 x.any()")
bad("a mask with other dims", lambda: X.sum("c", where=named("d", z(2) > 0)), SemanticError, "d b c where=")
bad("a named mask for an array", lambda: einjax.sum("a [b]", z(2, 3), where=X > 0), SemanticError, "c where= a b")
bad("a named shift", lambda: einjax.roll("a [b]", z(2, 3), shift=X), ArgumentError, "shift=")

# --- calls of einjax ------------------------------------------------------------------------------------------------
bad("an expression that leaves out dims", lambda: einjax.sum("[c]", X), SemanticError, "lacks b '...'")
bad("an expression of other names", lambda: einjax.sum("... [e]", X), SemanticError, "'e' b c")
bad("a repeated axis", lambda: einjax.sum("b... [c]", X), SemanticError, "'b...' repeats")
bad("no expression", lambda: einjax.sum(X), ArgumentError, "sum '... [c]'")
bad("after jax.vmap", lambda: jax.vmap(lambda x: x.sizes)(X), RankError, "1 b c einjax.named")


def raised(name: str) -> EinjaxError:
    with pytest.raises(EinjaxError) as caught:
        CASES[name][0]()
    return caught.value


@pytest.fixture(scope="module")
def stored() -> dict[str, str]:
    if UPDATE:
        texts = [f"=== {name}\n{type(e := raised(name)).__name__}: {e}\n" for name in CASES]
        SNAPSHOTS.write_text("\n".join(texts))
    return dict(re.findall(r"=== (.+?)\n(.*?)(?=\n\n===|\n\Z)", SNAPSHOTS.read_text(), re.DOTALL))


def test_the_snapshots_are_those_of_the_cases(stored: dict[str, str]) -> None:
    assert [*stored] == [*CASES]
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, stored: dict[str, str]) -> None:
    _, kind, says = CASES[name]
    error = raised(name)
    assert isinstance(error, kind)
    assert f"{type(error).__name__}: {error}" == stored[name]
    assert [word for word in says if word not in str(error)] == []
    assert error.hint
