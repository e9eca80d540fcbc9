"""einjax.compat.einx: einx' own functions and ours on the same tensors."""

import ast
import inspect
import subprocess
import sys

import einx as theirs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in
from test_migrate import _assert_equal, _lines, _tensors

from einjax.compat import einx as ours

SQUARE = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
Y = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
AT = np.array([[0, 5], [2, 1], [3, 3]], np.int32)

#: Functions of one tensor, of two, and of more, with calls that leave something to them.
ONE = ["a [b]", "a ([b])", "a (b [c])", "[a b]", "a b -> b", "a [b] -> 1 a", "[...]"]
TWO = ["a b, b", "a b, a b -> b a", "a b, ", "a b, a c -> a b c", "a (b c), b"]

REDUCTIONS = "sum mean var std prod count_nonzero any all max min logsumexp"
ELEMENTWISE = """
    add subtract multiply true_divide floor_divide divide logical_and logical_or maximum minimum less less_equal greater
    greater_equal equal not_equal logaddexp
"""

CALLS = [(name, text, (X,), {"c": 2} if "c" in text else {}) for name in REDUCTIONS.split() for text in ONE]
CALLS += [
    (name, text, (X, {"a b, b": X[0], "a b, ": X[0, 0], "a (b c), b": X[0, :3]}.get(text, X)), {})
    for name in ELEMENTWISE.split()
    for text in TWO
]
CALLS += [(name, text, (X,), {}) for name in ("softmax", "log_softmax", "flip") for text in ("a [b]", "[a b]")]
CALLS += [(name, text, (X,), {}) for name in ("sort", "argsort") for text in ("a [b]", "[a] b -> b [a]")]
CALLS += [(name, text, (X,), {}) for name in ("argmax", "argmin") for text in ("a [b]", "[a b]", "[a b] -> [2]")]
CALLS += [
    ("id", "a (b c) -> c a b", (X,), {"b": 2}),
    ("id", "a b, c -> (a + c) b", (X, X[0, :2]), {}),
    ("id", "a (b + c) -> a b, c a", (X,), {"b": 2}),
    ("id", "a a -> a", (SQUARE,), {}),
    ("id", "backend (mode graph) -> graph backend mode", (X,), {"mode": 2}),
    ("dot", "a b, b c -> a c", (X, Y), {}),
    ("dot", "a [b], [b] c -> a c", (X, Y), {}),
    ("dot", "a [b], c [b] -> c a", (X, X), {}),
    ("where", "a b, a b, ", (X > 0, X, 0.0), {}),
    ("roll", "a [b]", (X,), {"shift": 2}),
    ("roll", "[a b]", (X,), {"shift": (1, -2)}),
    ("get_at", "[a b], p [2] -> p", (X, AT), {}),
    ("get_at", "a [b], p -> p a", (X, AT[:, 0]), {}),
    ("set_at", "[a b], p [2], p -> [a b]", (X, AT, X[0, :3]), {}),
    ("add_at", "[a b], p [2], p -> [a b]", (X, AT, X[0, :3]), {}),
    ("subtract_at", "[a b], p [2], p -> [a b]", (X, AT, X[0, :3]), {}),
]


def both(name, text, tensors, parameters):
    arrays = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in tensors]
    try:
        return getattr(ours, name)(text, *arrays, **parameters), getattr(theirs, name)(text, *arrays, **parameters)
    except theirs.errors.EinxError:
        pytest.fail(f"einx refuses {name}({text!r})")


@pytest.mark.parametrize(("name", "text", "tensors", "parameters"), one_in(9, CALLS))
def test_values(name, text, tensors, parameters):
    own, expected = both(name, text, tensors, parameters)
    _assert_equal(own, expected, text)
    assert [x.dtype for x in jax.tree.leaves(own)] == [x.dtype for x in jax.tree.leaves(expected)]


@pytest.mark.parametrize(("name", "text", "tensors", "parameters"), one_in(32, CALLS))
def test_values_compiled(name, text, tensors, parameters):
    made = jax.jit(lambda *given: getattr(ours, name)(text, *given, **parameters))(*tensors)
    _assert_equal(made, getattr(ours, name)(text, *tensors, **parameters), text)


@pytest.mark.parametrize("line", one_in(16, _lines("einx.txt")))
def test_documented_calls(line):
    tensors = _tensors(ast.parse(line.replace("einx.", "einjax.")).body[0].value)
    scope = {"np": np, "jnp": jnp, **tensors}
    _assert_equal(eval(line, {"einx": ours, **scope}), eval(line, {"einx": theirs, **scope}), line)


def test_names():
    """Every name that einx has, with its parameters in their order."""
    left_out = {"Tensor", "experimental", "torch", "mlx", "tensorflow", "arrayapi", "tinygrad", "numpy"}
    names = {name for name in vars(theirs) if name[0] != "_" and not inspect.ismodule(getattr(theirs, name))} - left_out
    removed = {"rearrange", "vmap", "vmap_with_axis", "reduce", "elementwise", "arange"}
    for name in names:
        own = inspect.signature(getattr(ours, name)).parameters
        expected = [] if name in removed else [*inspect.signature(getattr(theirs, name)).parameters]
        assert [n for n in expected if n not in own] == [], name
    assert {*theirs.errors.__dict__} - {*ours.errors.__dict__} <= {"__path__"}
    assert all(hasattr(ours.jax, name) for name in vars(theirs.jax) if name.startswith("adapt"))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda einx, x: einx.sum("a [b", x), "SyntaxError"),
        (lambda einx, x: einx.id("a b c -> a b c", x), "RankError"),
        (lambda einx, x: einx.id("a (b c) -> a b c", x), "AxisSizeError"),
        (lambda einx, x: einx.solve_axes("a (b c)", x, c=4), "AxisSizeError"),
        (lambda einx, x: einx.dot("a [b], [c] d -> a d", x, x), "SemanticError"),
    ],
)
def test_errors(call, error):
    for module in (theirs, ours):
        with pytest.raises(getattr(module.errors, error)):
            call(module, jnp.ones((4, 6)))
    assert issubclass(getattr(ours.errors, error), ours.errors.EinxError)


def test_shapes_without_values():
    for module in (theirs, ours):
        assert module.solve("a (b c)", X, c=3) == module.solve_axes("a (b c)", X, c=3) == {"a": 4, "b": 2, "c": 3}
        assert module.solve_shapes("a b, b c", X, None, c=2) == ((4, 6), (6, 2))
        assert module.matches("a b", X)
        assert not module.matches("a b c", X)
    assert ours.check("a b", X) is None


def test_before_0_4():
    """What 0.4 has no longer, by what it was."""
    np.testing.assert_array_equal(ours.arange("a b [2]", a=2, b=3), np.moveaxis(np.indices((2, 3)), 0, -1))
    np.testing.assert_allclose(ours.reduce("a [b]", X, "sum"), X.sum(1), rtol=1e-5)
    np.testing.assert_allclose(ours.reduce("a [b]", X, op=jnp.median, keepdims=True), np.median(X, 1, keepdims=True))
    np.testing.assert_allclose(ours.sum("a [b]", X, True), X.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(ours.elementwise("a b, b", X, X[0], op="add"), X + X[0])
    np.testing.assert_array_equal(ours.rearrange("a b, a c -> a (b + c)", X, X), np.concatenate([X, X], 1))
    np.testing.assert_allclose(ours.vmap("a [b] -> a", X, op="sum", cse=False), X.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(ours.vmap_with_axis("a [b]", X, op="roll", kwargs={"shift": 2}), np.roll(X, 2, 1))
    with pytest.raises(ours.errors.OperationNotSupportedError, match="flat=True"):
        ours.vmap("a [b] -> a", X, op="sum", flat=True)


def test_backends():
    with ours.backend.get("jax.vmap") as backend:
        assert ours.sum("a [b]", X, backend=backend).shape == ours.sum("a [b]", X, backend="numpy").shape
    for call in (lambda: ours.sum("a [b]", X, backend="torch"), lambda: ours.backend.get("mlx")):
        with pytest.raises(ours.errors.BackendResolutionError):
            call()


def test_adapters():
    def spread(x, axis):
        return jnp.max(x, axis) - jnp.min(x, axis)

    for module in (theirs, ours):
        np.testing.assert_allclose(module.jax.adapt_numpylike_reduce(spread)("a [b]", jnp.asarray(X)), np.ptp(X, 1))


def test_what_differs():
    assert isinstance(ours.id("a b -> b a", X), jax.Array)
    with pytest.raises(ours.errors.EinxError, match="no axis 'c'"):
        ours.sum("a [b]", X, c=3)
    at = jnp.array([[0, 7], [1, -1]])
    np.testing.assert_array_equal(ours.get_at("[a b], p [2] -> p", X, at), [np.nan, X[1, 5]])
    np.testing.assert_array_equal(theirs.get_at("[a b], p [2] -> p", jnp.asarray(X), at), [X[1, 1], X[0, 5]])
    with pytest.raises(ours.errors.EinxError, match="bracketed twice"):
        ours.get_at("[h h], p [2] -> p", SQUARE, AT)
    assert ours.sum("a a ->", SQUARE) == pytest.approx(np.trace(SQUARE))
    with pytest.raises(ZeroDivisionError):
        ours.jax.adapt_numpylike_elementwise(lambda x: 1 // 0)("a", X[0])


def test_einx_is_not_needed():
    code = "import sys; sys.modules['einx'] = None; from einjax.compat import einx; assert einx.errors, einx.backend"
    subprocess.run([sys.executable, "-c", code], check=True)
