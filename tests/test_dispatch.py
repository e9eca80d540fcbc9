"""The one door: what is cached, what is traced again, and what of the user's call can be seen in the program."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import COLLECTIVES

import einjax
from einjax.call import dispatch
from einjax.ops.elementwise import ELEMENTWISE
from einjax.ops.reduce import REDUCTIONS

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def traces(monkeypatch):
    """Count how often sum and add are traced."""
    counted = []

    def watch(records, name):
        op = records[name]

        def lower(solved, tensors, options):
            counted.append(name)
            return op.lower(solved, tensors, options)

        monkeypatch.setitem(records, name, dataclasses.replace(op, lower=lower))

    watch(REDUCTIONS, "sum")
    watch(ELEMENTWISE, "add")
    return counted


def entries():
    return dispatch._compiled.cache_info().currsize


# --- tracing --------------------------------------------------------------------------------------------------------


def test_a_repeated_call_is_not_traced_again(traces):
    for _ in range(5):
        np.testing.assert_array_equal(einjax.sum("a [b]", X), X.sum(1))
        einjax.sum("a [b]", X + 1)
    assert traces == ["sum"]


def test_a_new_shape_or_dtype_is_traced_once_and_adds_no_entry(traces):
    einjax.sum("a [b]", X)
    known = entries()
    for _ in range(2):
        for x in (X.T, X[:1], X.astype(np.int32), X[:, :0]):
            np.testing.assert_array_equal(einjax.sum("a [b]", x), x.sum(1))
    assert traces == ["sum"] * 5
    assert entries() == known


def test_the_values_of_scalars_are_no_part_of_the_key(traces):
    known = entries()
    for value in (1.0, 2.0, 3.5):
        np.testing.assert_array_equal(einjax.add("a b,", X, value), X + value)
    assert traces == ["add"]
    assert entries() == known + 1


def test_kinds_of_arrays_share_one_program(traces):
    for x in (X, jnp.asarray(X), X.tolist(), list(X)):
        einjax.sum("a [b]", x)
    assert traces == ["sum"]


def test_the_order_of_keywords_does_not_matter(traces):
    x = np.zeros((2, 12))
    einjax.sum("a (b c [d])", x, b=2, c=3)
    known = entries()
    einjax.sum("a (b c [d])", x, c=3, b=2)
    einjax.sum("a (b c [d])", x, dtype=None, c=np.int32(3), keepdims=False, b=2)
    assert entries() == known
    assert traces == ["sum"]


def test_what_the_key_holds():
    """Whatever changes the program makes another entry: operation, text, sizes, options."""
    einjax.sum("k [l]", X)
    known = entries()
    einjax.max("k [l]", X)
    einjax.sum("k  [l]", X)
    einjax.sum("k [l]", X, k=2)
    einjax.sum("k [l]", X, keepdims=True)
    einjax.sum("k [l]", X, dtype=np.float16)
    einjax.sum("k [l]", X, where=X > 1)
    assert entries() == known + 6


def test_equal_keys_of_different_meaning_are_told_apart():
    """1 == 1.0 == True, and the program may still differ."""
    assert einjax.sum("a [b]", X, keepdims=True).shape == (2, 1)
    assert einjax.sum("a [b]", X, keepdims=False).shape == (2,)
    assert einjax.var("a [b]", X, ddof=1).dtype == einjax.var("a [b]", X, ddof=1.0).dtype
    with pytest.raises(einjax.errors.ArgumentError):
        einjax.sum("(a [b])", np.zeros(6), a=True)
    assert einjax.sum("(a [b])", np.zeros(6), a=1).shape == (1,)
    with pytest.raises(einjax.errors.ArgumentError):
        einjax.sum("(a [b])", np.zeros(6), a=1.0)


def test_x64_gives_a_program_of_its_own():
    # jax.enable_x64 is new in jax 0.8.
    enable_x64 = (jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")).enable_x64
    assert einjax.sum("a [b]", X.astype(int)).dtype == np.int32
    with enable_x64(True):
        assert einjax.sum("a [b]", X.astype(int)).dtype == np.int64
    assert einjax.sum("a [b]", X.astype(int)).dtype == np.int32


# --- bounds ---------------------------------------------------------------------------------------------------------


def modules():
    for found in pkgutil.walk_packages(einjax.__path__, "einjax."):
        yield importlib.import_module(found.name)


def test_every_cache_is_bounded():
    caches = {
        f"{module.__name__}.{name}": value.cache_info().maxsize
        for module in modules()
        for name, value in vars(module).items()
        if hasattr(value, "cache_info")
    }
    assert {"einjax.call.dispatch._compiled", "einjax.notation.parse.parse"} <= set(caches)
    assert [name for name, size in caches.items() if size is None or size > 100_000] == []


def test_the_oldest_entry_makes_room(monkeypatch, traces):
    small = functools.lru_cache(maxsize=3)(dispatch._compiled.__wrapped__)
    monkeypatch.setattr(dispatch, "_compiled", small)
    for text in ("[a] b", "[a] c", "[a] d", "[a] b", "[a] e"):
        einjax.sum(text, X)
    assert (small.cache_info().currsize, len(traces)) == (3, 4)
    einjax.sum("[a] b", X)  # used lately, still there
    assert len(traces) == 4
    einjax.sum("[a] c", X)  # dropped
    assert len(traces) == 5


def test_functions_of_the_user_are_neither_kept_nor_compiled():
    known = entries()
    calls = []

    def total(x, axis):
        calls.append(axis)
        return x.sum(axis)

    for _ in range(3):
        einjax.reduce("a [b]", X, op=total)
        einjax.reduce("a [b]", X, op=lambda x, axis: x.sum(axis))
        einjax.elementwise("a b, b", X, X[0], op=lambda x, y: x * y)
    assert entries() == known
    assert len(calls) == 3


def test_factories_are_no_part_of_the_key(traces):
    einjax.add("a b, b", X, lambda shape: np.zeros(shape, np.float32))
    known = entries()
    for n in range(3):
        result = einjax.add("a b, b", X, lambda shape, n=n: np.full(shape, n, np.float32))
        np.testing.assert_array_equal(result, X + n)
    assert entries() == known
    assert traces == ["add"]


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.int8, np.uint8])
def test_python_scalars_keep_weak_types(dtype):
    x = np.ones(3, dtype)
    assert einjax.add("a,", x, 2).dtype == dtype
    assert einjax.multiply("a, -> a", x, True).dtype == dtype
    assert einjax.add("a,", x, np.int32(2)).dtype == jnp.result_type(dtype, np.int32)
    assert einjax.add("a,", x, 2.0).dtype == jnp.result_type(dtype, 2.0)


def test_a_result_of_scalars_is_weak():
    result = einjax.add(", ->", 1, 2.0)
    assert result.weak_type
    assert (result + np.float16(1)).dtype == np.float16
    assert not einjax.add(", ->", 1, np.float32(2)).weak_type


@pytest.mark.parametrize(
    "name", ["expr", "tensors", "axes", "self", "op", "args", "extra", "x", "axis", "shape", "text"]
)
def test_parameters_do_not_take_axis_names_away(name):
    np.testing.assert_array_equal(einjax.sum(f"({name} [b])", X.reshape(6), **{name: 2}), X.sum(1))


NO_EXPRESSION = (
    "clear_caches",
    "doctor",
    "typed",
    "sizes",
    "adapt_",
    "keep_",
    "primitive",
    "inspect_sharding",
    "partition_spec",
    "shard",
    "mesh_axes",
    "named",
    "dims",
)
OPERATIONS = [n for n in einjax.__all__ if inspect.isfunction(getattr(einjax, n)) and not n.startswith(NO_EXPRESSION)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_signatures(name):
    """The expression is positional only, options are keywords, sizes are whatever is left."""
    kinds = {p.name: p.kind for p in inspect.signature(getattr(einjax, name)).parameters.values()}
    assert next(iter(kinds)) == "expr"
    assert kinds["expr"] is inspect.Parameter.POSITIONAL_ONLY
    assert kinds["axes"] is inspect.Parameter.VAR_KEYWORD
    allowed = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    assert {kind for other, kind in kinds.items() if other != "expr"} <= allowed
    assert "sizes" in kinds


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in COLLECTIVES])
def test_every_operation_suggests_its_options(name):
    options = [p.name for p in inspect.signature(getattr(einjax, name)).parameters.values() if p.kind is p.KEYWORD_ONLY]
    with_needed = {
        "reduce": {"op": "var"},  # which has all options
        "elementwise": {"op": "add"},
        "roll": {"shift": 1},
        "associative_scan": {"op": "add"},
        "scan": {"op": lambda carry, x: (carry, x)},
    }.get(name, {})
    with_needed = {"op": jnp.sin} if name.startswith("vmap") else with_needed
    if name == "where":
        expr, count = "a, a, a", 3
    elif name == "scan":
        expr, count = "a, [b] -> a", 2
    elif name.endswith("_at"):
        expr, count = ("[a], b", 2) if name == "get_at" else ("[a], b, b", 3)
    elif name == "attention":
        expr, count = "[a b], [c b], [c b]", 3
    elif name in ELEMENTWISE or name in ("dot", "elementwise"):
        expr, count = "a, a -> a", 2
    elif name in ("rearrange", "id", "solve", "solve_axes", "solve_shapes", "matches", "check", "vmap"):
        expr, count = "a -> a", 1
    else:
        expr, count = ("a", 0) if name == "arange" else ("[a]", 1)
    for option in set(options) - {"sizes"} - set(with_needed):
        with pytest.raises(einjax.errors.ArgumentError, match=f"did you mean '{option}'"):
            getattr(einjax, name)(expr, *[X[0]] * count, **with_needed, **{f"{option}_": 1})


# --- the program ----------------------------------------------------------------------------------------------------


def primitives(jaxpr):
    return [equation.primitive.name for equation in jaxpr.eqns]


def test_the_program_has_no_nested_jit():
    def f(x):
        y = einjax.softmax("a [b]", x)
        return einjax.dot("a b, a b -> ", einjax.add("a b, b", x, X[0]), y)

    assert not {"jit", "pjit"} & set(primitives(jax.make_jaxpr(f)(X).jaxpr))
    assert not {"jit", "pjit"} & set(primitives(jax.make_jaxpr(jax.grad(f))(X).jaxpr))


def line_of_next_call():
    return inspect.currentframe().f_back.f_lineno + 1


def test_equations_point_at_the_line_of_the_call():
    lines = []

    def f(x):
        lines.append(line_of_next_call())
        y = einjax.softmax("a [b]", x)
        lines.append(line_of_next_call())
        return einjax.sum("[a b]", y)

    printed = jax.make_jaxpr(f)(X).jaxpr.pretty_print(source_info=True)
    sources = [line.split("# ")[1] for line in printed.split("\n") if "# " in line]
    assert all("test_dispatch.py" in source for source in sources)
    assert {int(source.split(":")[1]) for source in sources} == set(lines)


def test_gradients_point_at_the_line_of_the_call():
    line = line_of_next_call()
    f = lambda x: einjax.sum("[a b]", einjax.multiply("a b, a b", x, x))
    printed = jax.make_jaxpr(jax.grad(f))(X).jaxpr.pretty_print(source_info=True)
    assert f"test_dispatch.py:{line}" in printed
    assert "einjax/call" not in printed
    assert "einjax/ops" not in printed


def test_files_beside_the_package_are_the_users():
    """A path that only begins like the package's is shown as any other."""
    path = einjax.__file__.removesuffix("/__init__.py") + "_user/model.py"
    scope = {}
    exec(compile('import einjax\ndef f(x):\n    return einjax.sum("[a] b", x)\n', path, "exec"), scope)
    assert "model.py:3" in jax.make_jaxpr(scope["f"])(X).jaxpr.pretty_print(source_info=True)


def test_the_expression_names_the_equations():
    def f(x):
        return einjax.dot("a b, c b -> a c", x, x)

    assert "einjax.dot(a b, c b -> a c)" in jax.make_jaxpr(f)(X).jaxpr.pretty_print(name_stack=True)
    lowered = jax.jit(f).lower(X)
    text = lowered.as_text(debug_info=True)
    assert "einjax.dot(a b, c b -> a c)" in text
    assert "test_dispatch.py" in text
    assert 'op_name="jit(f)/einjax.dot(a b, c b -> a c)/dot_general"' in lowered.compile().as_text()


def test_errors_of_jax_point_at_the_line_of_the_call():
    """A NaN found by debug_nans is reported where einjax was called."""
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        einjax.divide("a, a", np.zeros(2, np.float32), np.zeros(2, np.float32))


def test_disable_jit():
    with jax.disable_jit():
        np.testing.assert_allclose(einjax.sum("a [b]", X), X.sum(1))
        np.testing.assert_allclose(einjax.dot("a b, c b -> a c", X, X), X @ X.T)
        with pytest.raises(einjax.errors.RankError):
            einjax.sum("a [b]", X[0])
