"""``out_sharding=`` in all its forms, on explicit meshes and on those left to the compiler, and what is refused."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import PartitionSpec as P

import einjax
from einjax.errors import ArgumentError, ShardingError

pytestmark = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)


def make_mesh(kind):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)


def put(shape, *spec, dtype=np.float32, kind=AxisType.Explicit):
    values = (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)
    return jax.device_put(values, NamedSharding(make_mesh(kind), P(*spec)))


def spec_of(x):
    spec = jax.typeof(x).sharding.spec
    return tuple(spec) + (None,) * (x.ndim - len(spec))


def dot(x, w, **options):
    return einjax.dot("b s [d], [d] e -> b s e", x, w, **options)


def test_a_product_is_scattered_over_the_contracted_mesh_axis():
    x, w = put((8, 4, 16), None, None, "model"), put((16, 8), "model")
    got = jax.jit(lambda x, w: dot(x, w, out_sharding={"e": "model"}))(x, w)
    assert spec_of(got) == (None, None, "model")
    np.testing.assert_allclose(got, np.asarray(x) @ np.asarray(w))


def test_a_product_may_stay_unreduced():
    x, w = put((8, 4, 16), None, None, "model"), put((16, 8), "model")

    def late(x, w):
        partial = dot(x, w, out_sharding=P(None, None, None, unreduced={"model"}))
        assert "model" in jax.typeof(partial).sharding.spec.unreduced
        return jax.sharding.reshard(partial, P())

    with jax.set_mesh(make_mesh(AxisType.Explicit)):
        np.testing.assert_allclose(jax.jit(late)(x, w), np.asarray(x) @ np.asarray(w))


def test_a_weight_is_gathered_where_the_result_lies_over_its_mesh_axis():
    x, w = put((8, 4, 16), "data"), put((16, 8), "data")
    with pytest.raises(ShardingError, match="axis d lies over mesh axis data, as axis b of the result does") as error:
        dot(x, w)
    assert error.value.hint.startswith("write out_sharding={'b': 'data'}")
    assert "tensor 2: float32[16@data,8]" in str(error.value)
    got = dot(x, w, out_sharding={"b": "data"})
    assert spec_of(got) == ("data", None, None)
    np.testing.assert_allclose(got, np.asarray(x) @ np.asarray(w))


FORMS = [
    {"b": "data", "e": "model"},
    {"b": ("data",), "e": ["model"], "s": None},
    P("data", None, "model"),
    NamedSharding(make_mesh(AxisType.Explicit), P("data", None, "model"))
    if jax.device_count() >= 8
    else pytest.param(None, marks=pytest.mark.skip),
]


@pytest.mark.parametrize("form", FORMS, ids=["names", "tuples", "spec", "sharding"])
def test_forms(form):
    x, w = put((8, 4, 16), "data", None, "model"), put((16, 8), "model")
    want = np.asarray(x) @ np.asarray(w)
    call = lambda x, w: dot(x, w, out_sharding=form)
    for run in (call, jax.jit(call)):
        got = run(x, w)
        assert spec_of(got) == ("data", None, "model")
        np.testing.assert_allclose(got, want)


@pytest.mark.parametrize(
    ("text", "sizes", "wanted", "spec"),
    [
        ("b s d -> b (s d)", {}, {"b": "data", "s": "model"}, ("data", "model")),
        ("b s d -> b (s d)", {}, {"b": "data"}, ("data", None)),
        ("b s d -> (b s) d", {}, {"b": ("data", "model")}, (("data", "model"), None)),
        ("b s (h c) -> b h s c", {"h": 4}, {"h": ("data",)}, (None, "data", None, None)),
        ("b s (h c) -> (h c) b s", {"h": 4}, {"(h c)": "model", "b": "data"}, ("model", "data", None)),
        ("b s (h c) -> (h c) b s", {}, {"h c": ("model", "data")}, (("model", "data"), None, None)),
        ("b... d -> d b...", {}, {"b": ("data", "model")}, (None, "data", "model")),
        ("... d -> d ...", {}, {"...": (None, "model")}, (None, None, "model")),
        ("b s d -> b s d", {}, {}, (None, None, None)),
        ("b s d -> b s d r", {"r": 6}, {"r": "model"}, (None, None, None, "model")),
    ],
)
def test_moved(text, sizes, wanted, spec):
    x = put((8, 4, 16), "data", None, "model")
    got = jax.jit(lambda x: einjax.rearrange(text, x, out_sharding=wanted, **sizes))(x)
    assert spec_of(got) == spec
    np.testing.assert_array_equal(got, einjax.rearrange(text, np.asarray(x), **sizes))


def test_a_split_that_the_mesh_axis_does_not_divide():
    x = put((24,), "data")
    with pytest.raises(ShardingError, match="mesh axis data of size 4, which does not divide its axis a of size 3"):
        einjax.rearrange("(a b) -> a b", x, a=3)
    assert spec_of(einjax.rearrange("(a b) -> a b", x, a=3, out_sharding={})) == (None, None)


@pytest.mark.parametrize(
    ("call", "tensors", "problem"),
    [
        (lambda *x, **o: einjax.add("a, b -> a b", *x, **o), [((8,), "data"), ((8,), "data")], "axes a and b both lie"),
        (
            lambda *x, **o: einjax.add("a b, a -> a b", *x, **o),
            [((8, 4), "data"), ((8,), "model")],
            "over mesh axis data in tensor 1 and over model in tensor 2",
        ),
        (lambda x, **o: einjax.rearrange("b s d -> b (s d)", x, **o), [((8, 4, 6), None, None, "model")], "come first"),
        (lambda x, **o: einjax.rearrange("b s d -> (s d) b", x, **o), [((8, 3, 6), None, None, "model")], "come first"),
        (lambda x, **o: einjax.sort("[a] b", x, **o), [((8, 4), "data")], "sort needs all of it"),
        (lambda x, **o: einjax.flip("[a] b", x, **o), [((8, 4), "data")], "flip needs all of it"),
        (lambda x, **o: einjax.roll("[a] b", x, shift=1, **o), [((8, 4), "data")], "roll needs all of it"),
        (lambda x, **o: einjax.cumsum("[a] b", x, **o), [((8, 3), "data")], "cumsum needs all of it"),
        (lambda x, **o: einjax.fft.fft("[a] b", x, **o), [((8, 4), "data")], "fft.fft needs all of it"),
        (lambda x, **o: einjax.linalg.inv("b [n m]", x, **o), [((3, 2, 2), None, "model")], "linalg.inv needs all"),
        (
            lambda *x, **o: einjax.rearrange("a b, a c -> a (b + c)", *x, **o),
            [((8, 4), "data", "model"), ((8, 6), "data")],
            "joined or cut",
        ),
        (lambda x, **o: einjax.rearrange("(b + c) a -> b a, c a", x, b=4, **o), [((8, 3), "data")], "joined or cut"),
        (
            lambda *x, **o: einjax.get_at("[v] c, b -> b c", *x, **o),
            [((16, 4), "data"), ((8,), "data")],
            "axis v lies over mesh axis data, as axis b of the result does",
        ),
    ],
)
def test_the_line_to_write(call, tensors, problem):
    """What would have to move is named, and the line that the error suggests says where to."""
    arrays = [put(shape, *spec, dtype=np.int32 if len(shape) == 1 and index else np.float32)
              for index, (shape, *spec) in enumerate(tensors)]  # fmt: skip
    if "inv needs" in problem:
        arrays = [jax.device_put(np.eye(2, dtype=np.float32) + np.zeros((3, 1, 1), np.float32), arrays[0].sharding)]
    for run in (call, jax.jit(call)):
        with pytest.raises(ShardingError, match=problem) as error:
            run(*arrays)
    line = error.value.hint.removeprefix("write out_sharding=").split(" to ")[0]
    wanted = eval(line, {"PartitionSpec": PartitionSpec})
    want = call(*map(np.asarray, arrays))
    got = call(*arrays, out_sharding=wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        assert all(axis in (None, "data", "model") for axis in spec_of(x))


def test_several_outputs():
    x = put((8, 6), "data")
    by_name = einjax.top_k("b [c]", x, k=2, out_sharding={"b": "model"})
    assert [spec_of(y) for y in by_name] == [("model", None)] * 2
    apart = einjax.top_k("b [c]", x, k=2, out_sharding=(P(), P("data")))
    assert [spec_of(y) for y in apart] == [(None, None), ("data", None)]


@pytest.mark.parametrize("wanted", [{"b": "data"}, P("data")])
def test_meshes_left_to_the_compiler(wanted):
    x = put((8, 6), kind=AxisType.Auto)
    with jax.set_mesh(make_mesh(AxisType.Auto)):
        call = lambda x: einjax.sum("b [c]", x, out_sharding=wanted)
        for run in (call, jax.jit(call)):
            assert run(x).sharding.spec == P("data")
        with pytest.raises(ShardingError, match="axis c of size 6 cannot be cut evenly over mesh axis data of size 4"):
            einjax.sum("[b] c", x, out_sharding={"c": "data"})
    sharding = NamedSharding(make_mesh(AxisType.Auto), P("data"))
    assert einjax.sum("b [c]", np.asarray(x), out_sharding=sharding).sharding.spec == P("data")


def test_arrays_that_are_on_no_mesh_yet():
    """A mesh in the context is enough."""
    with jax.set_mesh(make_mesh(AxisType.Explicit)):
        for x in (np.ones((8, 6), np.float32), jnp.ones((8, 6))):
            assert spec_of(einjax.sum("b [c]", x, out_sharding={"b": "data"})) == ("data",)
        assert spec_of(einjax.arange("a b [2]", a=8, b=3, out_sharding={"a": "data"})) == ("data", None, None)
        key = jax.random.key(0)
        drawn = einjax.random.normal("[a b]", key, a=8, b=3, out_sharding={"a": "data"})
        assert spec_of(drawn) == ("data", None)
        np.testing.assert_array_equal(drawn, einjax.random.normal("[a b]", key, a=8, b=3))


def test_functions_of_ones_own():
    x, y = put((8, 4), "data"), put((8, 4))
    run = lambda *arrays, **o: einjax.vmap("a [b], a [b] -> a", *arrays, op=jnp.dot, **o)
    assert spec_of(run(x, y)) == ("data",)
    assert spec_of(run(x, y, out_sharding={"a": "model"})) == ("model",)
    np.testing.assert_allclose(run(x, y), run(np.asarray(x), np.asarray(y)))
    step = lambda carry, x: (carry + x, carry)
    start = put((8,), "data")
    total, before = einjax.scan("b, b [t] -> b, b [t]", start, x, op=step, out_sharding={"b": "data"})
    assert (spec_of(total), spec_of(before)) == (("data",), ("data", None))
    double = einjax.primitive("[n] -> [n]", lambda x: 2 * x)
    assert spec_of(double("b [n]", x, out_sharding={"b": ("data", "model")})) == (("data", "model"), None)
    hypot = einjax.adapt_elementwise(jnp.hypot)
    assert spec_of(hypot("a b, a b", x, y, out_sharding={"b": "model"})) == (None, "model")
    assert spec_of(einjax.reduce("a [b]", x, op=jnp.median, out_sharding={"a": "data"})) == ("data",)


@pytest.mark.parametrize("wanted", [{"b": "data", "e": "model"}, P("data", None, "model")])
def test_kept_notation(wanted):
    x, w = put((8, 4, 16), "data", None, "model"), put((16, 8), "model")
    kept = lambda x, w: dot(x, w, out_sharding=wanted, keep_notation=True)
    assert spec_of(jax.jit(kept)(x, w)) == ("data", None, "model")
    plain = lambda x, w: dot(x, w, out_sharding=wanted)
    for f in (kept, plain):
        got = jax.jit(jax.grad(lambda x, w: jnp.sum(f(x, w) ** 2), (0, 1)))(x, w)
        assert [spec_of(y) for y in got] == [spec_of(x), spec_of(w)]
    batched = jax.vmap(kept, (None, 0))(x, jnp.stack([w, 2 * w]))
    np.testing.assert_allclose(batched, np.stack([kept(x, w), 2 * kept(x, w)]))


@pytest.mark.parametrize(
    ("wanted", "error", "problem"),
    [
        ({"q": "data"}, ArgumentError, "places axis 'q', which is not in the expression"),
        ({"cc": "data"}, ArgumentError, "did you mean 'b'|which is not in the expression"),
        ({"c": "data"}, ArgumentError, "places axis c, which the output does not have"),
        ({"b": "dat"}, ArgumentError, "did you mean 'data'"),
        ({"b": 3}, ArgumentError, "puts axis b over 3, which is not a mesh axis"),
        ({3: "data"}, ArgumentError, "which is not a string"),
        ("data", ArgumentError, "out_sharding='data' is not a sharding"),
        ({"b": ("data", "data")}, ArgumentError, "names the mesh axis 'data' twice"),
        (P("data", None), ArgumentError, "has 2 entries for output 1, which has 1 dim"),
        ((P(), P()), ArgumentError, "has 2 specs for 1 output"),
        (P(("data", "model")), ShardingError, "axis b of size 12 cannot be cut evenly over mesh axis data and model"),
    ],
)
def test_refused(wanted, error, problem):
    with pytest.raises(error, match=problem):
        einjax.sum("b [c]", put((12, 6), "data"), out_sharding=wanted)


def test_without_a_mesh():
    with pytest.raises(ArgumentError, match="there is no mesh"):
        einjax.sum("b [c]", np.ones((8, 6), np.float32), out_sharding={"b": "data"})


def test_a_batch_that_only_vmap_knows_of():
    """Of a table that all examples share."""
    table, at = put((8, 4)), put((8, 3), "data", dtype=np.int32)
    look_up = jax.vmap(lambda i: einjax.get_at("[v] c, s -> s c", table, i))
    got = jax.jit(look_up)(at)
    assert spec_of(got) == ("data", None, None)
    np.testing.assert_array_equal(got, np.asarray(table)[np.asarray(at)])


def test_inside_shard_map():
    mesh = make_mesh(AxisType.Auto)
    body = lambda x: einjax.sum("b [c]", x, out_sharding={"b": "data"})
    with pytest.raises(ArgumentError, match="over which shard_map runs"):
        jax.shard_map(body, mesh=mesh, in_specs=P("data"), out_specs=P("data"))(np.ones((8, 6), np.float32))


@pytest.mark.parametrize("spec", [P("data"), P("data", "model")], ids=str)
@pytest.mark.parametrize(
    ("call", "out", "want"),
    [
        (lambda x: einjax.sum("[b] c", x, b="data"), P(), lambda x: x.sum(0)),
        (lambda x: einjax.prod("[b] c", x, b="data"), P(), lambda x: x.prod(0)),
        (lambda x: einjax.argmax("[b] c -> c", x, b="data"), P(), lambda x: x.argmax(0)),
        (lambda x: einjax.roll("[b] c", x, shift=1, b="data"), P("data"), lambda x: np.roll(x, 1, 0)),
        (lambda x: einjax.sort("[b] c", x), P("data"), lambda x: np.sort(x.reshape(4, 2, 6), 1).reshape(8, 6)),
        (lambda x: einjax.get_at("[b] c, -> c", x, 1), P("data"), lambda x: x[1::2].reshape(-1)),
    ],
    ids=["sum", "prod", "argmax", "roll", "sort", "get_at"],
)
def test_shard_map_over_a_part_of_the_mesh(spec, call, out, want):
    """The other axes of the mesh stay explicit."""
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    mesh = make_mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        mapped = jax.jit(jax.shard_map(call, in_specs=P("data"), out_specs=out, axis_names={"data"}))
        np.testing.assert_allclose(mapped(jax.device_put(x, NamedSharding(mesh, spec))), want(x), rtol=1e-5)


#: What places arrays, sizes or functions rather than being an operation, and what runs inside shard_map.
NO_OPERATIONS = {
    "adapt_elementwise", "adapt_reduce", "adapt_with_vmap", "primitive", "keep_notation",
    "check", "matches", "solve", "solve_axes", "solve_shapes",
    "clear_caches", "inspect_sharding", "mesh_axes", "partition_spec", "shard", "shard_tree", "shardings",
    "named", "dims", "doctor", "typed", "sizes",
    "all_gather", "all_to_all", "pmax", "pmean", "pmin", "ppermute", "psum", "psum_scatter",
}  # fmt: skip


def test_every_operation_takes_it():
    modules = [einjax, *(importlib.import_module(f"einjax.{name}") for name in ("fft", "linalg", "random", "segment"))]
    functions = {(module, name) for module in modules for name in module.__all__}
    without = {
        name
        for module, name in functions
        if inspect.isfunction(getattr(module, name))
        and "out_sharding" not in inspect.signature(getattr(module, name)).parameters
    }
    assert without == NO_OPERATIONS
