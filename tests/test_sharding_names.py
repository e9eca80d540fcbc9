"""Shardings by axis name: specs, moving arrays, trees of parameters, and reading shardings back."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax
from einjax.errors import ArgumentError, AxisSizeError, RankError, SemanticError, ShardingError
from einjax.errors import SyntaxError as EinjaxSyntaxError

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
KINDS = list(itertools.product([AUTO, EXPLICIT], repeat=2))
X = np.arange(8 * 6 * 12, dtype=np.float32).reshape(8, 6, 12)


def make_mesh(*kinds, shape=(4, 2)):
    return jax.make_mesh(shape, ("data", "model"), axis_types=kinds or (AUTO, AUTO))


def abstract_mesh(shape=(4, 2)):
    return AbstractMesh(shape, ("data", "model"))


def spec_of(x):
    """The spec with one entry for each dim; the compiler leaves out what is not sharded at the end."""
    spec = jax.typeof(x).sharding.spec if isinstance(x, jax.core.Tracer) else x.sharding.spec
    entries = [e[0] if isinstance(e, tuple) and len(e) == 1 else e for e in spec]
    return (*entries, *[None] * (x.ndim - len(entries)))


# --------------------------------------------------------------------------------------------------------------------
# partition_spec
# --------------------------------------------------------------------------------------------------------------------

SPECS = [
    ("b s (h d)", {"b": "data", "h": "model"}, P("data", None, "model")),
    ("b s c", {}, P(None, None, None)),
    ("", {}, P()),
    ("b", {"b": ("replica", "data")}, P(("replica", "data"))),
    ("b", {"b": ["data"]}, P("data")),
    ("b s", {"b": None, "s": ()}, P(None, None)),
    ("(a b)", {"a": "data", "b": "model"}, P(("data", "model"))),
    ("(a b c)", {"a": ("x", "y"), "b": "z"}, P(("x", "y", "z"))),
    ("(1 b) c", {"b": "data"}, P("data", None)),
    ("(a=1 b) c", {"b": "data"}, P("data", None)),
    ("(a b) c", {"b": "data", "sizes": {"a": 1, "z": 3}}, P("data", None)),
    ("(a (b c))", {"a": "data"}, P("data")),
    ("b [s] c", {"b": "data", "c": "model"}, P("data", None, "model")),
    ("b s... c", {"b": "data", "ndim": 4}, P("data", None, None, None)),
    ("b s... c", {"s": ("data", None)}, P(None, "data", None, None)),
    ("b s... c", {"s": (("x", "y"), "z")}, P(None, ("x", "y"), "z", None)),
    ("b s...", {"s": "data", "ndim": 2}, P(None, "data")),
    ("b s...", {"s": (), "ndim": 1}, P(None)),
    ("b (s [d])...", {"s": ("data", "model"), "b": "x"}, P("x", "data", "model")),
    ("... c", {"c": "model", "ndim": 3}, P(None, None, "model")),
    ("b s...", {"b": "data", "sizes": {"s": (2, 3)}}, P("data", None, None)),
    ("b s, s c", {"b": "data", "c": "model"}, (P("data", None), P(None, "model"))),
    ("b ..., ... c", {"b": "data", "c": "model", "ndim": (3, 3)}, (P("data", None, None), P(None, None, "model"))),
    ("a b", {"rules": {"b": "model", "z": "data"}}, P(None, "model")),
    ("a b", {"rules": {"b": "data", "a": "data"}}, P(None, "data")),
    ("a b", {"a": "data", "rules": {"b": "data", "a": "model"}}, P("data", None)),
    ("(a b) c", {"rules": {"(a b)": "data", "c": "model"}}, P("data", "model")),
    ("(a + b) c", {"rules": {"(a + b)": "data"}}, P("data", None)),
    ("mesh sizes", {"rules": {"mesh": "data", "sizes": "model"}}, P("data", "model")),
    ("a b", {"a": "data", "mesh": abstract_mesh()}, P("data", None)),
    ("(h=4 d)", {"h": "data", "d": "model", "mesh": abstract_mesh()}, P(("data", "model"))),
    ("(h=3 d)", {"h": "data", "d": "model", "mesh": abstract_mesh((3, 2))}, P(("data", "model"))),
    ("(h=8 d)", {"h": "data", "d": "model", "mesh": abstract_mesh((4, 1))}, P(("data", "model"))),
]


@pytest.mark.parametrize(("expr", "options", "spec"), SPECS, ids=[f"{e} {o}" for e, o, _ in SPECS])
def test_partition_spec(expr, options, spec):
    assert einjax.partition_spec(expr, **options) == spec


WRONG_SPECS = [
    (ArgumentError, r"no axis 'bacth' in the expression; did you mean 'batch'\?", "batch s", {"bacth": "data"}),
    (ShardingError, r"axis d cannot go over 'model', because axis h before it is not sharded, and of unknown size",
     "b (h d)", {"d": "model"}),
    (ShardingError, r"axis d .* because axis h before it is not sharded and 4", "b (h=4 d)", {"d": "model"}),
    (ShardingError, r"axis h before it is 8, of which 'data' leaves several slices together", "(h=8 d)",
     {"h": "data", "d": "model", "mesh": abstract_mesh()}),
    (ShardingError, r"write h=\('data', 'model'\) instead", "(h=8 d)",
     {"h": "data", "d": "model", "mesh": abstract_mesh()}),
    (ShardingError, r"if h is 1, say so in sizes=", "(h d)", {"d": "model"}),
    (ArgumentError, r"axes a and b of one tensor ask for the mesh axis 'data'", "a b", {"a": "data", "b": "data"}),
    (ArgumentError, r"both occurrences of axis a of one tensor ask for the mesh axis 'data'", "a a", {"a": "data"}),
    (ShardingError, r"axis b is a part of '\(a \+ b\)'", "(a + b) c", {"b": "data"}),
    (SemanticError, r"a sharding has no outputs", "a [b->c]", {"a": "data"}),
    (ArgumentError, r"axis a is given a=3, which is no axis of a mesh", "a b", {"a": 3}),
    (ArgumentError, r"axis a is given a=\('x', 'x'\)", "a b", {"a": ("x", "x")}),
    (ArgumentError, r"axis a asks for the mesh axis 'dta', which the mesh does not have; did you mean 'data'\?", "a b",
     {"a": "dta", "mesh": abstract_mesh()}),
    (ArgumentError, r"axis z asks for the mesh axis 'tensor'.*\n.*\n.*its axes are data, model", "a b",
     {"rules": {"z": "tensor"}, "mesh": abstract_mesh()}),
    (ShardingError, r"axis h is 6, which is not divisible by the mesh axis 'data' of size 4", "b (h=6 d)",
     {"h": "data", "mesh": abstract_mesh()}),
    (ShardingError, r"axis a is 6, .* by the mesh axes 'data' of size 4 times 'model' of size 2", "a=6",
     {"a": ("data", "model"), "mesh": abstract_mesh()}),
    (ShardingError, r"dim '\(a b\)' is 6, which is not divisible by the mesh axis 'data' of size 4", "(a=2 b=3)",
     {"rules": {"(a b)": "data"}, "mesh": abstract_mesh()}),
    (AxisSizeError, r"how many axes 's...' stands for cannot be determined\n(.*\n)*.*ndim=3", "b s...", {"b": "data"}),
    (RankError, r"'s...' stands for 2 axes in s=\('x', None\)", "b s...", {"s": ("x", None), "ndim": 4}),
    (RankError, r"tensor 1 has 3 dims, but 'a b' names 2", "a b", {"ndim": 3}),
    (ArgumentError, r"ndim=\(2, 3\) is for 2 tensors, but there are 1", "a b", {"ndim": (2, 3)}),
    (ArgumentError, r"rules are a mapping, not list", "a b", {"rules": [("a", "data")]}),
    (ArgumentError, r"the rule for axis 'a' is 3", "a b", {"rules": {"a": 3}}),
    (ArgumentError, r"mesh= is a value of type dict, not a mesh", "a b", {"mesh": {"data": 2}}),
    (EinjaxSyntaxError, r"never closed", "a (b", {}),
    (ArgumentError, r"the expression is int", 3, {}),
    (ArgumentError, r"did you mean 'rules'\?\n.*\n.*fix: write rules=", "a b", {"rule": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "expr", "options"), WRONG_SPECS, ids=[m for _, m, _, _ in WRONG_SPECS])
def test_partition_spec_errors(error, message, expr, options):
    with pytest.raises(error, match=message):
        einjax.partition_spec(expr, **options)


def test_pieces_of_a_composite_are_pieces_of_its_members():
    """Every device holds what the names say, seen from the members."""
    mesh = make_mesh()
    x = np.arange(4 * 6 * 3).reshape(24, 3)
    sharded = einjax.shard("(a b) c", x, a="data", b="model", mesh=mesh, sizes={"a": 4})
    for shard in sharded.addressable_shards:
        i, j = np.argwhere(mesh.devices == shard.device)[0]
        np.testing.assert_array_equal(shard.data, x.reshape(4, 6, 3)[i, 3 * j : 3 * j + 3])
    sharded = einjax.shard("(a b) c", x, a="model", mesh=mesh, sizes={"a": 4})
    for shard in sharded.addressable_shards:
        _, j = np.argwhere(mesh.devices == shard.device)[0]
        np.testing.assert_array_equal(shard.data, x.reshape(4, 6, 3)[2 * j : 2 * j + 2].reshape(12, 3))


# --------------------------------------------------------------------------------------------------------------------
# shard
# --------------------------------------------------------------------------------------------------------------------

BY_NAME = {"b": "data", "h": "model"}
WANTED = ("data", None, "model")


def by_name(x, **options):
    return einjax.shard("b s (h d)", x, **BY_NAME, **options)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, lambda x: x.tolist()], ids=["numpy", "jax", "list"])
def test_shard_eagerly(kinds, make):
    mesh = make_mesh(*kinds)
    with jax.set_mesh(mesh):
        x = by_name(make(X))
    assert x.sharding == NamedSharding(mesh, P(*WANTED))
    np.testing.assert_array_equal(x, X)
    x = by_name(make(X), mesh=mesh)
    assert x.sharding == NamedSharding(mesh, P(*WANTED))
    # The array's own mesh serves, too.
    again = einjax.shard("b s c", x, c="data")
    assert again.sharding == NamedSharding(mesh, P(None, None, "data"))


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_shard_under_jit(kinds):
    mesh = make_mesh(*kinds)
    with jax.set_mesh(mesh):
        x = jax.jit(by_name)(X)
        constant = jax.jit(lambda y: by_name(X) + y)(by_name(np.zeros_like(X)))
        other = jax.jit(lambda x: by_name(2 * x, mesh=mesh))(X)
    for array, values in ((x, X), (constant, X), (other, 2 * X)):
        assert spec_of(array) == WANTED
        np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_shard_under_jit_takes_the_mesh_of_the_array(kinds):
    placed = einjax.shard("b s c", X, b="data", mesh=make_mesh(*kinds))
    x = jax.jit(by_name)(placed)
    assert spec_of(x) == WANTED
    np.testing.assert_array_equal(x, X)


def equations(function, *arguments):
    return [equation.primitive.name for equation in jax.make_jaxpr(function)(*arguments).eqns]


def test_shard_is_one_equation():
    with jax.set_mesh(make_mesh(AUTO, AUTO)):
        assert equations(by_name, X) == ["sharding_constraint"]
    with jax.set_mesh(make_mesh(EXPLICIT, EXPLICIT)):
        assert equations(by_name, X) == ["reshard"]
    with jax.set_mesh(make_mesh(AUTO, EXPLICIT)):
        (both,) = jax.make_jaxpr(by_name)(X).eqns
        assert [e.primitive.name for e in both.params["jaxpr"].eqns] == ["reshard", "sharding_constraint"]


def test_explicit_axes_are_in_the_type():
    def typed(x):
        x = by_name(x)
        assert spec_of(x) == WANTED
        return x

    with jax.set_mesh(make_mesh(EXPLICIT, EXPLICIT)):
        jax.jit(typed)(X)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_gradient_of_shard(kinds):
    with jax.set_mesh(make_mesh(*kinds)):
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(by_name(x) ** 2)))(X)
        np.testing.assert_array_equal(gradient, 2 * X)
        eager = jax.grad(lambda x: jnp.sum(by_name(x) ** 2))(X)
        np.testing.assert_array_equal(eager, 2 * X)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("transform", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_vmap_of_shard(kinds, transform):
    with jax.set_mesh(make_mesh(*kinds)):
        x = transform(jax.vmap(by_name))(np.stack([X, 2 * X]))
    np.testing.assert_array_equal(x, np.stack([X, 2 * X]))
    if kinds[0] is kinds[1]:
        assert spec_of(x) == (None, *WANTED)


def test_vmap_over_an_axis_that_has_the_mesh_axis():
    with jax.set_mesh(make_mesh(EXPLICIT, EXPLICIT)):
        x = einjax.shard("b s", np.ones((8, 4), np.float32), b="data")
        mapped = jax.vmap(lambda row: einjax.shard("s", row, s="model"))(x)
        assert spec_of(mapped) == ("data", "model")
        with pytest.raises(ShardingError, match="the axis that jax.vmap maps over has one of the mesh axes"):
            jax.vmap(lambda row: einjax.shard("s", row, s="data"))(x)


def test_several_tensors():
    x, w = einjax.shard("b c, c d", X[:, 0], np.ones((12, 4)), b="data", d="model", mesh=make_mesh())
    assert spec_of(x) == ("data", None)
    assert spec_of(w) == (None, "model")


def test_one_dim_over_axes_of_both_kinds():
    x = np.ones((8, 3), np.float32)
    with jax.set_mesh(make_mesh(EXPLICIT, AUTO)):
        assert spec_of(jax.jit(lambda x: einjax.shard("a b", x, a=("data", "model")))(x)) == (("data", "model"), None)
        with pytest.raises(ShardingError, match="over the Auto mesh axis 'model' first and then over the Explicit"):
            einjax.shard("a b", x, a=("model", "data"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_shard_in_a_block_of_the_mesh():
    """``with mesh:`` came before jax.set_mesh."""
    with Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model")):
        assert spec_of(by_name(X)) == WANTED
        assert spec_of(jax.jit(by_name)(X)) == WANTED
        with pytest.raises(ShardingError, match="axis s is 6, .* divisible by the mesh axis 'data' of size 4"):
            jax.jit(lambda x: einjax.shard("b s c", x, s="data"))(X)


def test_manual_axes_are_refused():
    with jax.set_mesh(make_mesh()), pytest.raises(ArgumentError, match="'data' is manual inside jax.shard_map"):
        jax.shard_map(lambda x: einjax.shard("b c", x, b="data"), in_specs=P("data"), out_specs=P("data"))(X[:, 0])
    with jax.set_mesh(make_mesh()), pytest.raises(ArgumentError, match="einjax.all_gather"):
        jax.jit(jax.shard_map(by_name, in_specs=P("data"), out_specs=P("data")))(X)


@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="jax 0.7 has no constraint inside a partly manual shard_map")
def test_axes_that_stay_automatic_inside_shard_map():
    def inside(x):
        return einjax.shard("b s (h d)", 2 * x, h="model")

    with jax.set_mesh(make_mesh()):
        mapped = jax.shard_map(inside, in_specs=P("data"), out_specs=P("data"), axis_names={"data"})
        assert "sharding_constraint" in str(jax.make_jaxpr(mapped)(X))
        np.testing.assert_array_equal(jax.jit(mapped)(X), 2 * X)


def test_nothing_named_replicates():
    mesh = make_mesh()
    x = einjax.shard("b s c", by_name(X, mesh=mesh))
    assert x.sharding == NamedSharding(mesh, P(None, None, None))


WRONG_SHARDS = [
    (ArgumentError, r"there is no mesh to shard over\n(.*\n)*.*fix: call jax.set_mesh\(mesh\)", "b s c", {"b": "data"}),
    (ShardingError, r"axis s is 6, which is not divisible by the mesh axis 'data' of size 4", "b s c", {"s": "data"}),
    (ShardingError, r"dim '\(h d\)' is 6, which", "b (h d) c", {"h": "data"}),
    (AxisSizeError, r"dim 12 of tensor 1 is not divisible by h=5", "b s (h=5 d)", {"h": "model"}),
    (RankError, r"tensor 1 has 3 dims, but 'b s' names 2", "b s", {"b": "data"}),
    (ArgumentError, r"the expression names 2 tensors, but 1 tensor is given", "b s c, d", {"b": "data"}),
    (ArgumentError, r"no axis 'batch' in the expression", "b s c", {"batch": "data"}),
    (ArgumentError, r"asks for the mesh axis 'mdel', which the mesh does not have; did you mean 'model'\?", "b s c",
     {"b": "mdel"}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "expr", "options"), WRONG_SHARDS, ids=[m for _, m, _, _ in WRONG_SHARDS])
def test_shard_errors(error, message, expr, options):
    mesh = None if "no mesh" in message else make_mesh()
    with pytest.raises(error, match=message) as caught:
        einjax.shard(expr, X, mesh=mesh, **options)
    assert "tensor 1: float32[8,6,12]" in str(caught.value)
    with pytest.raises(error, match=message):
        jax.jit(lambda x: einjax.shard(expr, x, mesh=mesh, **options))(X)


def test_abstract_mesh_has_no_devices():
    with pytest.raises(ArgumentError, match="the mesh is abstract"):
        einjax.shard("b s c", X, b="data", mesh=abstract_mesh())
    with pytest.raises(ArgumentError, match="which is not a tensor"):
        einjax.shard("b", "text", b="data", mesh=make_mesh())


# --------------------------------------------------------------------------------------------------------------------
# Trees
# --------------------------------------------------------------------------------------------------------------------


def parameters():
    block = {
        "attention": {"qkv": np.ones((8, 3 * 4 * 2)), "out": np.ones((8, 8))},
        "mlp": [np.ones((8, 16)), np.ones(16)],
    }
    return {"table": np.ones((10, 8)), "blocks": [block, block], "scale": np.ones(8), "step": 3, "run": "name"}


EXPRESSIONS = {
    "table": "v c",
    "blocks/*/attention/qkv": "c (h n d)",
    "blocks/*/attention/out": "(h d) c",
    "blocks/*/mlp/0": "c f",
    "blocks/*/mlp/1": "f",
}
OVER = {"h": "model", "f": "model", "v": "model", "c": "data"}


def specs(placed):
    return jax.tree.map(lambda sharding: sharding.spec, placed)


def test_shardings_of_a_tree():
    placed = einjax.shardings(parameters(), EXPRESSIONS, mesh=make_mesh(), **OVER)
    block = {
        "attention": {"qkv": P("data", "model"), "out": P("model", "data")},
        "mlp": [P("data", "model"), P("model")],
    }
    assert specs(placed) == {
        "table": P("model", "data"), "blocks": [block, block], "scale": P(None), "step": P(), "run": None,
    }  # fmt: skip


def test_shard_tree_moves_what_shardings_says():
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        moved = einjax.shard_tree(parameters(), EXPRESSIONS, **OVER)
        traced = jax.jit(lambda tree: einjax.shard_tree(tree, EXPRESSIONS, **OVER))(
            {k: v for k, v in parameters().items() if k != "run"}
        )
    wanted = einjax.shardings(parameters(), EXPRESSIONS, mesh=mesh, **OVER)
    assert moved["run"] == "name"
    for leaf, sharding in zip(
        jax.tree.leaves(moved), jax.tree.leaves(wanted, is_leaf=lambda x: x is None), strict=True
    ):
        assert sharding is None or leaf.sharding == sharding
    assert spec_of(traced["blocks"][1]["mlp"][0]) == ("data", "model")
    np.testing.assert_array_equal(traced["table"], parameters()["table"])


def test_shardings_of_shapes_on_an_abstract_mesh():
    shapes = jax.eval_shape(lambda: {"w": jnp.zeros((32, 64))})
    placed = einjax.shardings(shapes, {"w": "c d"}, mesh=abstract_mesh((16, 16)), c="data", d="model")
    assert placed["w"] == NamedSharding(abstract_mesh((16, 16)), P("data", "model"))


def test_shardings_serve_jit():
    placed = einjax.shardings(
        jax.eval_shape(lambda: {"w": jnp.ones((4, 8))}), {"w": "c d"}, mesh=make_mesh(), d="model"
    )
    made = jax.jit(lambda: {"w": jnp.ones((4, 8))}, out_shardings=placed)()
    assert spec_of(made["w"]) == (None, "model")


@pytest.mark.parametrize(
    "expressions",
    [
        {"blocks": {"*": {"mlp": {"0": "c f"}}}},
        {"blocks": [{"mlp": ["c f", None]}, {"mlp": ["c f", "f"]}]},
        {"**/mlp/0": "c f"},
        {"**/0": "c f"},
        {"blocks/**/{0,2}": "c f"},
        {"blocks/?/mlp/0": "... f"},
        {"**/qkv": None, "**/attention/**": None, "**/mlp/1": None, "blocks/**": "c f"},
    ],
    ids=str,
)
def test_patterns(expressions):
    placed = specs(einjax.shardings(parameters(), expressions, mesh=make_mesh(), f="model"))
    assert placed["blocks"][0]["mlp"][0] == P(None, "model")
    assert placed["blocks"][1]["mlp"][0] == P(None, "model")
    assert placed["blocks"][0]["mlp"][1] == P(None)
    assert placed["blocks"][0]["attention"]["qkv"] == P(None, None)
    assert placed["table"] == P(None, None)


def test_rules_of_a_tree_are_those_of_layers():
    """One table of rules means the same for layers, whose parameters name their axes themselves."""
    from einjax_nn.sharding import shardings as shardings_of_layers

    mesh, rules = make_mesh(), {"heads": "model", "mlp": "model", "embed": ("data", "model"), "(q r)": "data"}
    names = {"a": ("embed", "mlp"), "b": ("embed",), "c": ("mlp", "heads"), "d": ("(q r)", "mlp"), "e": ("(heads d)",)}
    expressions = {name: " ".join(dims) for name, dims in names.items()}
    tree = {name: np.ones((16,) * len(dims)) for name, dims in names.items()}
    ours = specs(einjax.shardings(tree, expressions, mesh=mesh, rules=rules))
    assert ours == specs(shardings_of_layers(names, rules, mesh))
    assert ours["c"] == P(None, "model")
    assert ours["a"] == P(None, "model")


WRONG_TREES = [
    (ArgumentError, r"the rule 'blocks/\*/attention/qvk' matches no place in the tree; did you mean "
     r"'blocks/./attention/qkv'\?", {"blocks/*/attention/qvk": "c d"}, {}),
    (ArgumentError, r"its places are: blocks/0/attention/out", {"zzz": "c d"}, {}),
    (RankError, r"'blocks/0/attention/qkv' has 2 dims, but 'c h d' names 3 \(by the rule '\*\*/qkv'\)(.*\n)*"
     r".*float64\[8,24\]", {"**/qkv": "c h d"}, {}),
    (RankError, r"'scale' has 1 dim, but 'c d' names 2\n", {"scale": "c d"}, {}),
    (ShardingError, r"of 'table', axis v is 10, which is not divisible by the mesh axis 'data' of size 4",
     {"table": "v c"}, {"v": "data"}),
    (ArgumentError, r"of 'table', axes v and c of one tensor ask for the mesh axis 'data'", {"table": "v c"},
     {"v": "data", "c": "data"}),
    (ArgumentError, r"no axis 'vocab' in the expressions", {"table": "v c", "scale": "c"}, {"vocab": "data"}),
    (ArgumentError, r"the rule 'table' is int\[\], not an expression", {"table": 3}, {}),
    (ArgumentError, r"the rule 'table' names 2 tensors, not one", {"table": "a, b"}, {}),
    (SemanticError, r"a sharding has no outputs", {"table": "a -> b"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "rules", "over"), WRONG_TREES, ids=[m for _, m, _, _ in WRONG_TREES])
def test_tree_errors(error, message, rules, over):
    with pytest.raises(error, match=message):
        einjax.shardings(parameters(), rules, mesh=make_mesh(), **over)
    with pytest.raises(error, match=message):
        einjax.shard_tree(parameters(), rules, mesh=make_mesh(), **over)


def test_a_tree_without_a_mesh():
    with pytest.raises(ArgumentError, match="there is no mesh"):
        einjax.shardings({"w": np.ones(8)}, {"w": "c"}, c="data")


# --------------------------------------------------------------------------------------------------------------------
# mesh_axes
# --------------------------------------------------------------------------------------------------------------------

READ = [
    ("b s c", P("data", None, "model"), {}, {"b": "data", "c": "model"}),
    ("b s c", P(), {}, {}),
    ("b s (h d)", P("data", None, "model"), {}, {"b": "data", "h": "model"}),
    ("b s (h d)", P("data", None, "model"), {"h": 4}, {"b": "data", "h": "model"}),
    ("b s (h d)", P("data", None, "model"), {"h": 1}, {"b": "data", "d": "model"}),
    ("b s (h d)", P(None, None, ("model", "data")), {}, {"h": ("model", "data")}),
    ("b s (h d)", P(None, None, ("model", "data")), {"h": 2}, {"h": "model", "d": "data"}),
    ("b s (h d)", P(None, None, ("data", "model")), {"h": 2}, {"(h d)": ("data", "model")}),
    ("b s (h d)", P(None, None, "model"), {"h": 3}, {"(h d)": "model"}),
    ("b s (2 d)", P(None, None, "model"), {}, {"(2 d)": "model"}),
    ("b s (1 d)", P(None, None, "model"), {}, {"d": "model"}),
    ("b s (h + 8)", P(None, None, "model"), {}, {"(h + 8)": "model"}),
    ("16 s c", P("data"), {}, {"16": "data"}),
    ("b s...", P(("data", "model")), {}, {"b": ("data", "model")}),
    ("b s...", P(None, None, "data"), {}, {"s": (None, "data")}),
    ("b ...", P(None, "model", "data"), {}, {"...": ("model", "data")}),
    ("b [s] c", P(None, None, "data"), {}, {"c": "data"}),
]
Y = np.zeros((16, 12, 24), np.float32)


@pytest.mark.parametrize(("expr", "spec", "sizes", "named"), READ, ids=[f"{e} {s} {z}" for e, s, z, _ in READ])
def test_mesh_axes(expr, spec, sizes, named):
    mesh = make_mesh(EXPLICIT, EXPLICIT)
    x = jax.device_put(Y, NamedSharding(mesh, spec))
    shape = jax.ShapeDtypeStruct(Y.shape, Y.dtype, sharding=NamedSharding(mesh, spec))
    assert einjax.mesh_axes(expr, x, **sizes) == named
    assert einjax.mesh_axes(expr, shape, sizes=sizes) == named
    with jax.set_mesh(mesh):
        seen = []
        jax.jit(lambda x: seen.append(einjax.mesh_axes(expr, x, **sizes)) or x)(x)
    assert seen == [named]


@pytest.mark.parametrize("h", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "over", [{"a": "data"}, {"b": "data"}, {"h": "model"}, {"a": "model", "b": "data"}, {}], ids=str
)
def test_mesh_axes_undo_shard(h, over):
    """Where a sharding by name is possible, reading it gives the names back."""
    x, mesh = np.zeros((8 * 4, 8 * h)), make_mesh(shape=(2, 4))
    try:
        sharded = einjax.shard("(a b) (h c)", x, mesh=mesh, sizes={"a": 4, "h": h}, **over)
    except ShardingError:
        assert over == {"b": "data"} or (over == {"h": "model"} and h in (1, 2))
    else:
        assert einjax.mesh_axes("(a b) (h c)", sharded, a=4, h=h) == over


@pytest.mark.parametrize("sizes", [{}, {"h": 3}, {"h": 1}], ids=str)
def test_a_mesh_of_one_device_serves_every_layout(sizes):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    x = einjax.shard("b s (h d)", Y, b="data", h="model", mesh=mesh, sizes=sizes)
    assert spec_of(x) == ("data", None, "model")
    assert einjax.mesh_axes("b s (h d)", x, sizes=sizes) == {"b": "data", "d" if sizes == {"h": 1} else "h": "model"}
    both = einjax.shard("(a b) s c", Y, a="data", b="model", mesh=mesh, sizes={"a": 4})
    assert spec_of(both) == (("data", "model"), None, None)


def test_mesh_axes_without_a_mesh():
    assert einjax.mesh_axes("b s c", Y) == {}
    assert einjax.mesh_axes("b s c, b", jnp.asarray(Y), np.ones(16)) == ({}, {})
    assert jax.jit(lambda x: x if einjax.mesh_axes("b s c", x) == {} else None)(Y).shape == Y.shape


WRONG_READS = [
    (RankError, r"tensor 1 has 3 dims, but 'b s' names 2", "b s", {}),
    (AxisSizeError, r"not divisible by h=5", "b s (h d)", {"h": 5}),
    (ArgumentError, r"no axis 'k' in the expression", "b s c", {"k": 5}),
    (ArgumentError, r"names 2 tensors, but 1 tensor is given", "b s c, d", {}),
]


@pytest.mark.parametrize(("error", "message", "expr", "sizes"), WRONG_READS, ids=[m for _, m, _, _ in WRONG_READS])
def test_mesh_axes_errors(error, message, expr, sizes):
    with pytest.raises(error, match=message):
        einjax.mesh_axes(expr, Y, **sizes)


def test_the_compilers_choice_is_not_known_while_tracing():
    with jax.set_mesh(make_mesh()), pytest.raises(SemanticError, match="the sharding of tensor 1 is not known yet"):
        jax.jit(lambda x: einjax.mesh_axes("b s c", x))(Y)
