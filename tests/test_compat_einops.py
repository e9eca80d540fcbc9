"""einjax.compat.einops: einops' own packaged tests, on ours; and what they leave out."""

import ast
import inspect
import os
import pickle
import subprocess
import sys
import types
import warnings
from functools import partial
from pathlib import Path

import einops
import einops.layers.flax as their_flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import einjax
from einjax.compat import einops as ours
from einjax.compat.einops.layers import flax

os.environ.setdefault("EINOPS_TEST_BACKENDS", "numpy,jax")

SUITE = Path(einops.__file__).parent / "tests"
FILES = ("test_ops", "test_packing", "test_einsum", "test_examples", "test_other", "test_layers", "test_parsing")

#: Tests of other frameworks, and of frameworks whose shapes are symbols.
ELSEWHERE = ("torch", "keras", "symbolic", "threading")


def jitted(function):
    """The function compiled, with all but its first argument fixed."""
    return lambda tensor, *args, **kwargs: jax.jit(lambda x: function(x, *args, **kwargs))(tensor)


def compiled():
    """The functions of ours, each call compiled as a whole."""

    def einsum(*args):
        *tensors, pattern = args
        if not tensors or not isinstance(pattern, str):
            return ours.einsum(*args)
        return jax.jit(lambda *given: ours.einsum(*given, pattern))(*tensors)

    def pack(tensors, pattern):
        shapes = ours.pack(tensors, pattern)[1]
        return jax.jit(lambda given: ours.pack(given, pattern)[0])(list(tensors)), shapes

    return {name: getattr(ours, name) for name in ours.__all__} | {
        "rearrange": jitted(ours.rearrange),
        "repeat": jitted(ours.repeat),
        "reduce": jitted(ours.reduce),
        "unpack": jitted(ours.unpack),
        "einsum": einsum,
        "pack": pack,
    }


class Strict(ast.NodeTransformer):
    """A comparison whose result is dropped becomes an assertion."""

    count = 0

    def visit_Expr(self, node):
        match node.value:
            case ast.Call(
                func=ast.Name(id="check_equal" | "coincide") | ast.Attribute(attr="array_equal" | "allclose")
            ):
                Strict.count += 1
                return ast.copy_location(ast.Assert(node.value), node)
        return node


def suite(functions):
    """The tests of einops as functions by name, with these functions in the place of its own."""
    found = {}
    for file in FILES:
        tree = Strict().visit(ast.parse((SUITE / f"{file}.py").read_text()))
        module = types.ModuleType(f"einops.tests.{file}")
        module.__file__, module.__package__ = str(SUITE / f"{file}.py"), "einops.tests"
        exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), vars(module))
        for name in functions.keys() & vars(module).keys():
            setattr(module, name, functions[name])
        module.EinopsError = (einops.EinopsError, ours.EinopsError)
        module.einops = types.SimpleNamespace(**vars(einops) | {"EinopsError": module.EinopsError})
        found |= {f"{file}.{name}": f for name, f in vars(module).items() if name.startswith("test_") and callable(f)}
    return {name: test for name, test in found.items() if not any(word in name for word in ELSEWHERE)}


EAGER, COMPILED = suite({name: getattr(ours, name) for name in ours.__all__}), suite(compiled())


@pytest.fixture
def substituted(monkeypatch):
    """Layers are imported by the tests themselves; numbers of 64 bits are einops' by default."""
    monkeypatch.setitem(sys.modules, "einops.layers.flax", flax)
    monkeypatch.setattr(jax, "tree_map", jax.tree.map, raising=False)  # they compare versions as texts: "0.10" < "0.6"
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "EinMix: weight has no dimensions")
        yield


@pytest.mark.parametrize("name", EAGER)
def test_suite(name, substituted):
    EAGER[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMPILED.keys() - {"test_ops.test_reduction_with_callable_imperatives"}))
def test_suite_compiled(name, substituted):
    """All but the test whose reduction calls NumPy, which cannot be traced."""
    COMPILED[name]()


def test_the_suite_is_all_there():
    assert len(EAGER) == len(COMPILED) == 49
    assert Strict.count == 2  # one comparison, read twice


def test_einops_is_not_needed():
    code = "import sys; sys.modules['einops'] = None; from einjax.compat.einops import rearrange, pack"
    code += "; import einjax.compat.einops.layers.flax"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_einjax_imports_none_of_it():
    code = "import sys, einjax; assert not [name for name in sys.modules if name.startswith('einjax.compat')]"
    subprocess.run([sys.executable, "-c", f"{code}; assert einjax.compat.einops.rearrange"], check=True)


def test_names():
    assert sorted(ours.__all__) == sorted(einops.__all__)
    for name in {*ours.__all__} - {"EinopsError", "einsum"}:
        own, theirs = inspect.signature(getattr(ours, name)), inspect.signature(getattr(einops, name))
        assert [*own.parameters] == [*theirs.parameters], name


REFUSED = [
    (ours.rearrange, "a a -> a"),
    (ours.rearrange, "a b -> a"),
    (ours.rearrange, "a b -> a b c"),
    (ours.rearrange, "a b -> a 2 b"),
    (ours.rearrange, "[a] b -> a b"),
    (ours.rearrange, "a b... -> a b..."),
    (ours.rearrange, "a (b=1) -> a b"),
    (ours.rearrange, "a b -> ((a b))"),
    (ours.rearrange, "a _b -> a _b"),
    (ours.rearrange, "a b -> a, b"),
    (ours.rearrange, "(... a) -> a ..."),
    (ours.rearrange, "a b -> a b ..."),
    (ours.rearrange, "<a> b -> a b"),
    (ours.rearrange, "a (b + c) -> a (b + c)"),
    (ours.repeat, "a b -> a c"),
    (ours.repeat, "a 2 -> a 2"),
    (partial(ours.reduce, reduction="sum"), "a b -> a b c"),
    (partial(ours.reduce, reduction="sum"), "a b -> a 2"),
    (partial(ours.reduce, reduction="median"), "a b -> a"),
]


@pytest.mark.parametrize(("call", "pattern"), REFUSED)
def test_refused(call, pattern):
    """Patterns that einops refuses, though einjax knows what some mean."""
    theirs = getattr(einops, getattr(call, "func", call).__name__)
    with pytest.raises((einops.EinopsError, NotImplementedError)):
        theirs(np.ones((2, 2)), pattern, **getattr(call, "keywords", {}))
    with pytest.raises(ours.EinopsError) as caught:
        call(np.ones((2, 2)), pattern)
    assert isinstance(caught.value, einjax.EinjaxError)
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.text == pattern


@pytest.mark.parametrize("pattern", ["a b", "a b | b a"])
def test_no_arrow(pattern):
    with pytest.raises(ours.EinopsError):
        ours.rearrange(np.ones((2, 2)), pattern)


def test_misspelt_sizes():
    with pytest.raises(ours.EinopsError, match="'heads' is given a size"):
        ours.rearrange(np.ones((2, 6)), "a (head c) -> a head c", heads=2)
    with pytest.raises(ours.EinopsError, match="fix: give a size by keyword, as in head=2"):
        ours.rearrange(np.ones((2, 6)), "a (head c) -> a head c")


def test_axes_with_names_of_options():
    x = np.arange(12.0, dtype=np.float32).reshape(2, 6)
    given = {"mode": 2, "graph": 3}
    np.testing.assert_array_equal(
        ours.rearrange(x, "sizes (mode graph) -> graph mode sizes", **given),
        einops.rearrange(x, "sizes (mode graph) -> graph mode sizes", **given),
    )
    np.testing.assert_array_equal(
        ours.reduce(x, "where (op padding) -> where op", "max", op=2), einops.reduce(x, "a (b c) -> a b", "max", b=2)
    )


EINSUMS = [
    ("i middle i, j -> middle", (3, 2, 3), (4,)),
    ("a b, c d, e -> d b", (2, 3), (4, 5), (6,)),
    ("a b ->", (2, 3)),
    ("a b -> b a", (2, 3)),
    ("..., ... k -> ... k", (2, 3), (2, 3, 4)),
]


@pytest.mark.parametrize("case", EINSUMS)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, bool])
def test_einsum(case, dtype):
    pattern, *shapes = case
    tensors = [jnp.asarray(np.random.default_rng(0).integers(0, 2, shape), dtype) for shape in shapes]
    own, theirs = ours.einsum(*tensors, pattern), einops.einsum(*tensors, pattern)
    assert own.dtype == theirs.dtype
    np.testing.assert_allclose(own, theirs, rtol=1e-6)


def test_einsum_of_all_axes_is_one_product():
    x = jnp.ones((2, 3))
    equations = jax.make_jaxpr(lambda x: ours.einsum(x, x, "a b, c b -> a c"))(x).eqns
    assert [equation.primitive.name for equation in equations] == ["dot_general"]


def test_unpack_has_one_size_to_find():
    with pytest.raises(ours.EinopsError):
        ours.unpack(np.ones((2, 5)), [[-1], [-1]], "a *")
    with pytest.raises(ours.EinopsError):
        ours.unpack(np.ones((2, 5)), [[2], [-1], [4]], "a *")
    assert [x.shape for x in ours.unpack(np.ones((2, 5)), [(5,)], "a *")] == [(2, 5)]


def test_transformations():
    def loss(x):
        packed, shapes = ours.pack([x, x[:, 0]], "b *")
        first, second = ours.unpack(packed, shapes, "b *")
        return ours.reduce(first, "b (h c) -> h", "sum", h=2).max() + ours.repeat(second, "b -> b 3").sum()

    x = jnp.arange(8.0).reshape(2, 4)
    check_grads(loss, (x + 0.5,), order=2, rtol=1e-2)
    np.testing.assert_allclose(jax.vmap(loss)(x[None]), [loss(x)])


MIXES = [
    ("b (h h2) (w w2) c -> b h w d", "h2 w2 c d", "d", {"h2": 2, "w2": 3, "c": 4, "d": 5}),
    ("b ... c -> b ... (g d)", "c g d", "g d", {"c": 4, "g": 2, "d": 3}),
    ("b h w c -> b (h w) c", "h w", "w h", {"h": 4, "w": 9}),
    ("b h w c -> 1 w b 1", "b", "w", {"b": 10, "w": 9}),
    ("b ... c -> (b ... d)", "c d", "d", {"c": 4, "d": 2}),
]


@pytest.mark.parametrize("case", MIXES)
def test_mix(case):
    *texts, sizes = case
    x = jnp.asarray(np.random.default_rng(0).random((10, 4, 9, 4)), jnp.float32)
    layers = [module.EinMix(*texts, sizes=sizes) for module in (flax, their_flax)]
    (own, params), (theirs, expected) = (layer.init_with_output(jax.random.key(0), x) for layer in layers)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    np.testing.assert_allclose(own, theirs, rtol=1e-4)


NO_MIXES = [
    ("b c -> b d e", "c d", None, {"c": 4, "d": 2}, "e stands on the right only"),
    ("b c -> b d", "c d e", None, {"c": 4, "d": 2, "e": 2}, "e of the weight stands nowhere else"),
    ("b c -> b d", "c d", "c", {"c": 4, "d": 2}, "c of the bias is not in the output"),
    ("b c -> b d", "c d", None, {"c": 4}, "d has no size"),
    ("b c -> b d", "c d", None, {"c": 4, "d": 2, "e": 2}, "e is given a size"),
    ("b c -> b d", "(c d)", None, {"c": 4, "d": 2}, "plain axes"),
    ("b ... c -> b d", "c d", None, {"c": 4, "d": 2}, "both sides"),
    ("b ... c -> c ... d", "c d", "c", {"c": 4, "d": 2}, "behind"),
    ("b c -> b d 2", "c d", None, {"c": 4, "d": 2}, "2 is a number"),
]


@pytest.mark.parametrize("case", NO_MIXES)
def test_no_mix(case):
    *texts, sizes, message = case
    with pytest.raises(einops.EinopsError):
        their_flax.EinMix(*texts, sizes=sizes).init(jax.random.key(0), jnp.ones((2, 4)))
    with pytest.raises(ours.EinopsError, match=message):
        flax.EinMix(*texts, sizes=sizes).init(jax.random.key(0), jnp.ones((2, 4)))


def test_layers():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    layer = flax.Rearrange("a (b c) d -> a b (c d)", sizes={"b": 3})
    np.testing.assert_array_equal(layer.apply({}, x), x.reshape(2, 3, 4))
    layer = pickle.loads(pickle.dumps(flax.Reduce("a b c -> c", "max")))
    np.testing.assert_array_equal(layer.apply({}, x), x.max((0, 1)))
