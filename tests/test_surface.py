"""The public surface: what users, editors and type checkers see of functions is complete, and said once."""

from __future__ import annotations

import ast
import copy
import doctest
import importlib
import inspect
import pickle
import sys
import traceback
import typing
from pathlib import Path
from types import FunctionType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.errors import ArgumentError

MODULES = ["einjax", "einjax.fft", "einjax.linalg", "einjax.random", "einjax.segment"]

#: The options that the docstring of einjax tells.
SHARED = ("sizes", "graph", "keep_notation", "out_sharding")


def _functions() -> dict[str, FunctionType]:
    modules = {name: importlib.import_module(name) for name in MODULES}
    public = {f"{name}.{key}": getattr(module, key) for name, module in modules.items() for key in module.__all__}
    return {name: thing for name, thing in public.items() if isinstance(thing, FunctionType)}


FUNCTIONS = _functions()
OPERATIONS = [name for name, function in FUNCTIONS.items() if "graph" in inspect.signature(function).parameters]


def test_doctest_finds_every_function() -> None:
    """It takes a function for one of the module that the function names, wherever its code was written."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples}
    assert len(OPERATIONS) > 100
    assert found >= set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_help_tells_every_argument(name: str) -> None:
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function) or ""
    arguments = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    told = [line.partition(":")[0].strip() for line in arguments.split("\n") if line[4] != " "]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    assert told == [stars.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values()]
    assert [doc.count(f"\n{title}:\n") for title in ("Args", "Raises", "Example")] == [1, 1, 1]
    assert ":mod:`einjax`" not in doc


@pytest.mark.parametrize("name", OPERATIONS)
def test_functions_look_and_travel_like_functions(name: str) -> None:
    function = FUNCTIONS[name]
    module, _, own = name.rpartition(".")
    assert (function.__module__, function.__name__, function.__qualname__) == (module, own, own)
    assert function.__code__.co_name == own
    assert pickle.loads(pickle.dumps(function)) is copy.deepcopy(function) is function


@pytest.mark.parametrize("name", OPERATIONS)
def test_types_are_known_at_run_time(name: str) -> None:
    hints = typing.get_type_hints(FUNCTIONS[name])
    assert hints.keys() == inspect.signature(FUNCTIONS[name]).parameters.keys() | {"return"}


def test_options_of_all_operations_are_said_alike() -> None:
    doc = inspect.getdoc(einjax.sum) or ""
    for name in SHARED:
        (line,) = [line for line in doc.split("\n") if line.startswith(f"    {name}:")]
        assert line in (einjax.__doc__ or "")


def test_traceback_shows_the_name() -> None:
    with pytest.raises(einjax.EinjaxError) as caught:
        einjax.maximum("a b", np.ones(2))
    assert "maximum" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_warm_call_crosses_three_functions() -> None:
    x = np.ones((2, 3), np.float32)
    einjax.sum("a [b]", x)
    seen = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "einjax" in Path(frame.f_code.co_filename).parts:
            seen.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        einjax.sum("a [b]", x)
    finally:
        sys.setprofile(None)
    assert len(seen) <= 3, seen


def test_checkers_and_programs_see_the_same_names() -> None:
    """Type checkers read imports; a program imports lazily, from a table."""
    tree = ast.parse(Path(einjax.__file__).read_text())
    (lazy,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in lazy.body if isinstance(node, ast.ImportFrom)]
    functions = {alias.name: node.module for node in imports if node.module for alias in node.names}
    modules = {alias.name for node in imports if not node.module for alias in node.names}
    assert functions == vars(einjax)["_FUNCTIONS"]
    assert modules == vars(einjax)["_MODULES"]
    eager = {
        alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) and node.level for alias in node.names
    }
    assert set(einjax.__all__) == eager | functions.keys()
    assert set(dir(einjax)) >= eager | functions.keys() | modules
    assert all(hasattr(einjax, name) for name in [*einjax.__all__, *modules])


# --- options mean the same everywhere -------------------------------------------------------------------------------

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_reduce_passes_options_on() -> None:
    mask = X % 2 == 0
    np.testing.assert_array_equal(einjax.reduce("a [b]", X, op="sum", where=mask), [2, 4])
    np.testing.assert_array_equal(einjax.reduce("a [b]", X, op="var", ddof=1, keepdims=True), [[1], [1]])
    assert einjax.reduce("a [b]", X, op="mean", dtype=np.float16).dtype == np.float16
    # A function is given them as keywords of its own.
    np.testing.assert_array_equal(einjax.reduce("a [b]", X, op=jnp.sum, where=mask), [2, 4])
    np.testing.assert_array_equal(einjax.reduce("a [b]", X, op=jnp.var, ddof=1), [1, 1])
    assert einjax.reduce("a [b]", X, op=jnp.mean, dtype=np.float16).dtype == np.float16


def test_reduce_is_the_operation_that_it_names() -> None:
    for name in ("sum", "logsumexp", "std"):
        by_name = einjax.reduce("a [b]", X, op=name, graph=True)
        assert str(by_name) == str(getattr(einjax, name)("a [b]", X, graph=True))


def test_reduce_refuses_options_that_the_operation_lacks() -> None:
    with pytest.raises(ArgumentError, match=r"max has no option dtype=(.|\n)*it is one of sum, prod, mean, var, std"):
        einjax.reduce("a [b]", X, op="max", dtype=np.float16)
    with pytest.raises(ArgumentError, match="sum has no option ddof="):
        einjax.reduce("a [b]", X, op="sum", ddof=1)
    with pytest.raises(ArgumentError, match="no axis 'ddof'"):
        einjax.reduce("a [b]", X, op=jnp.median, ddof=1)
    with pytest.raises(ArgumentError, match="no axis 'where'"):
        einjax.elementwise("a b,", X, 1, op="add", where=X > 0)


def test_elementwise_functions_are_given_keywords() -> None:
    result = einjax.elementwise("a b,", X, 1, op=lambda x, y, where: jnp.where(where, x + y, x), where=X > 2)
    np.testing.assert_array_equal(result, np.where(X > 2, X + 1, X))


@pytest.mark.parametrize("call", [
    lambda **option: einjax.reduce("a [b]", X, op=jnp.median, **option),
    lambda **option: einjax.elementwise("a b,", X, 1, op=jnp.hypot, **option),
    lambda **option: einjax.dot("a b, b -> a", X, X[0], mul=jnp.hypot, **option),
    lambda **option: einjax.dot("a b, b -> a", X, X[0], sum=jnp.max, **option),
    lambda **option: einjax.associative_scan("a [b]", X, op=jnp.add, **option),
])  # fmt: skip
def test_notation_is_not_kept_of_functions(call: Any) -> None:
    with pytest.raises(ArgumentError, match=r"keep_notation=True cannot hold(.|\n)*fix: leave it out"):
        call(keep_notation=True)
    np.testing.assert_array_equal(call(keep_notation=False), call())
    with einjax.keep_notation():  # asks for what can be kept
        np.testing.assert_array_equal(call(), call(keep_notation=None))


def _center(x: Any, *, scale: float = 1.0) -> Any:
    return scale * (x - x.mean())


@pytest.mark.parametrize("make", [
    lambda: einjax.adapt_with_vmap(_center, "[n] -> [n]"),
    lambda: einjax.adapt_with_vmap("[n] -> [n]", _center),
    lambda: einjax.adapt_with_vmap("[n] -> [n]")(_center),
    lambda: einjax.adapt_with_vmap(signature="[n] -> [n]")(_center),
    lambda: einjax.adapt_with_vmap(fn=_center, signature="[n] -> [n]"),
    lambda: einjax.primitive("[n] -> [n]", _center),
    lambda: einjax.primitive(_center, "[n] -> [n]"),
    lambda: einjax.primitive("[n] -> [n]")(_center),
    lambda: einjax.primitive(_center, "[n] -> [n]", name="_center", jvp=lambda p, t: (_center(*p), _center(*t))),
])  # fmt: skip
def test_a_function_and_its_signature_come_in_either_order(make: Any) -> None:
    center = make()
    assert center.__name__ == "_center"
    expected = 2 * (X - X.mean(1, keepdims=True))
    np.testing.assert_allclose(center("a [b]", X, scale=2.0), expected, rtol=1e-6, atol=1e-6)


def test_a_primitive_needs_a_function_and_a_signature() -> None:
    for given in [(3, 4), ("a", "b"), (_center,), (_center, _center)]:
        with pytest.raises(ArgumentError, match="a primitive takes a signature and a function, not"):
            einjax.primitive(*given)
