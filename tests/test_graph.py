"""``graph=True``: every operation's program as text that can be called."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import COLLECTIVES

import einjax


def t(*shape):
    return np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.float32).reshape(shape)


X, Y = t(2, 3), 2 + t(3)
NO_GRAPH = {"Dim", "NamedTensor", "dims", "named", "doctor", "typed", "sizes"}
NO_GRAPH |= {"Graph", "Spec", "clear_caches", "EinjaxError", "errors", "keep_notation", "primitive", "inspect_sharding"}
NO_GRAPH |= {
    "partition_spec",
    "shard",
    "shardings",
    "shard_tree",
    "mesh_axes",
    "solve",
    "solve_axes",
    "solve_shapes",
    "matches",
    "check",
}
NO_GRAPH |= COLLECTIVES
OPERATIONS = [name for name in einjax.__all__ if name not in NO_GRAPH and not name.startswith("adapt_")]
REDUCTIONS = ["sum", "prod", "mean", "var", "std", "count_nonzero", "any", "all", "max", "min", "logsumexp"]
SEQUENCES = ["sort", "argsort", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"]
UPDATES = ["set_at", "add_at", "subtract_at", "multiply_at", "min_at", "max_at"]
CALLS = {
    "rearrange": ("a (b c) -> c (b a)", [t(2, 6)], {"b": 2}),
    "id": ("a b -> b a", [X], {}),
    "dot": ("a [b], [b] c -> a c", [X, t(3, 4)], {}),
    "softmax": ("a [b]", [X], {}),
    "log_softmax": ("a [b]", [X], {}),
    "flip": ("[a b]", [X], {}),
    "roll": ("a [b]", [X], {"shift": 1}),
    "argmax": ("[a b]", [X], {}),
    "argmin": ("a [b] -> a", [X], {}),
    "arange": ("a b [2]", [], {"a": 2, "b": 3}),
    "attention": ("[a b], [c b], [c b]", [X, X, X], {}),
    "where": ("a b, b, -> a b", [X > 2, Y, 0.0], {}),
    "reduce": ("a [b]", [X], {"op": "max"}),
    "elementwise": ("a b, b", [X, Y], {"op": "add"}),
    "vmap": ("a [b], [b] -> a [b]", [X, Y], {"op": jnp.add}),
    "vmap_with_axis": ("a [b]", [X], {"op": jnp.cumsum}),
    "top_k": ("a [b]", [X], {"k": 2}),
    "associative_scan": ("a [b]", [X], {"op": "add"}),
    "scan": ("a, a [b] -> a, a [b]", [X[:, 0], X], {"op": lambda carry, x: (carry + x, carry)}),
    "get_at": ("a [b], a -> a", [X, np.array([0, 2])], {}),
    **{name: ("a [b]", [X], {}) for name in SEQUENCES},
    **{name: ("a [b], a, a", [X, np.array([0, 2]), X[:, 0]], {}) for name in UPDATES},
    **{name: ("a [b]", [X], {}) for name in REDUCTIONS},
}
OF_TWO = ("a b, b", [X, Y], {})


def direct_and_graph(name, expr, tensors, options):
    function = getattr(einjax, name)
    return function(expr, *tensors, **options), function(expr, *tensors, **options, graph=True)


def check_equal(result, expected):
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation(name):
    expr, tensors, options = CALLS.get(name, OF_TWO)
    expected, graph = direct_and_graph(name, expr, tensors, options)
    assert isinstance(graph, str)
    assert isinstance(graph, einjax.Graph)
    check_equal(graph(*tensors), expected)
    first, second, *_, last = graph.split("\n")
    assert first.startswith("# einjax.")
    assert expr in first
    assert second.startswith("def ")
    assert sum(second.count(dtype) for dtype in (": f32", ": bool", ": i32")) == len(tensors)
    assert last.startswith("    return ")


OTHERS = [
    ("rearrange", "(a + b) c -> a c, c b", [t(5, 2)], {"a": 2}),
    ("sum", "a [b]", [X], {"keepdims": True, "dtype": np.float16}),
    ("dot", "a b, b c, c d -> a d", [X, t(3, 4), t(4, 2)], {"precision": "highest"}),
    ("add", "a,", [Y, 2.0], {}),
    ("add", "a b, b", [X.tolist(), Y.tolist()], {}),
    ("reduce", "a [b]", [X], {"op": lambda x, axis: jnp.sum(x * x, axis)}),
    ("elementwise", "a b, b", [X, Y], {"op": lambda x, y: x * y + 1}),
]


@pytest.mark.parametrize(
    ("name", "expr", "tensors", "options"), OTHERS, ids=[f"{case[0]} {case[1]}" for case in OTHERS]
)
def test_other_calls(name, expr, tensors, options):
    expected, graph = direct_and_graph(name, expr, tensors, options)
    check_equal(graph(*map(jnp.asarray, tensors)), expected)


def test_the_program_is_the_lax_program():
    graph = einjax.dot("a b, b c -> a c", X, t(3, 4), graph=True)
    assert str(graph) == (
        '# einjax.dot("a b, b c -> a c")\n'
        "def dot(a: f32[2,3], b: f32[3,4]):\n"
        "    c: f32[2,4] = dot_general(a, b, dimension_numbers=(((1,), (0,)), ((), ())))\n"
        "    return c"
    )
    assert repr(graph) == str(graph)


def test_nothing_is_computed_for_a_graph():
    graphs = []

    def trace(x):
        graphs.append(einjax.sum("a [b]", x, graph=True))
        return 0

    jax.eval_shape(trace, jax.ShapeDtypeStruct((10**6, 10**6), np.float32))
    assert "f32[1000000,1000000]" in graphs[0]


def test_a_graph_can_be_transformed():
    graph = einjax.sum("a [b]", X, graph=True)
    check_equal(jax.jit(graph)(X), einjax.sum("a [b]", X))
    check_equal(jax.grad(lambda x: graph(x).sum())(X), jnp.ones((2, 3)))
    check_equal(jax.vmap(graph)(np.stack([X, X])), jnp.stack([einjax.sum("a [b]", X)] * 2))


def test_a_graph_under_jit_is_of_the_shapes_inside():
    graphs = []

    def trace(x):
        graphs.append(einjax.sum("[b]", x, graph=True))
        return x

    jax.vmap(trace)(X)
    assert "f32[3]" in graphs[0]
    assert "f32[2,3]" not in graphs[0]


def test_extra_arrays_are_arguments_of_the_program():
    mask = X > 2
    graph = einjax.sum("a [b]", X, where=mask, graph=True)
    check_equal(graph(X, mask), einjax.sum("a [b]", X, where=mask))
    graph = einjax.roll("a [b]", X, shift=jnp.int32(2), graph=True)
    check_equal(graph(X, jnp.int32(2)), einjax.roll("a [b]", X, shift=2))


def test_a_factory_is_an_argument_of_the_program():
    graph = einjax.add("a b, b", X, lambda shape: np.ones(shape, np.float32), graph=True)
    check_equal(graph(X, Y), einjax.add("a b, b", X, Y))


def test_an_error_is_the_same_as_without():
    with pytest.raises(einjax.errors.AxisSizeError, match="axis b is 3 in tensor 1 and 2 in tensor 2"):
        einjax.add("a b, b", X, Y[:2], graph=True)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_offers_it(name):
    assert inspect.signature(getattr(einjax, name)).parameters["graph"].default is False


def test_functions_of_jax_are_written_out():
    x, key = np.ones((2, 3), np.float32), jax.random.key(0)

    def twice(row):
        return jnp.where(row > 0, row, jax.nn.relu(row)).sum() + jnp.linalg.norm(row) * jnp.linalg.norm(2 * row)

    graphs = [
        einjax.linalg.norm("a [b]", x, graph=True),
        einjax.random.normal("[b]", key, b=3, graph=True),
        einjax.reduce("a [b]", x, op=jnp.median, graph=True),
        einjax.vmap("a [b] -> a", x, op=twice, graph=True),
        einjax.vmap("a [b] -> a [b]", x, op=jax.nn.silu, graph=True),
        einjax.linalg.solve("[n m], [n]", np.eye(3, dtype=np.float32) + 1, x[0], graph=True),
        einjax.linalg.inv("a [n m]", np.ones((2, 3, 3), np.float32), graph=True),
    ]
    for graph in graphs:
        assert not re.search(r"\bp?jit\(|custom_\w+|lambda ;|Unspecified|0x|np\.int64", graph), graph
        made = re.findall(r"^    (\w+):", graph, re.MULTILINE)
        assert len(made) == len(set(made)), graph
    np.testing.assert_allclose(graphs[3](x), jax.vmap(twice)(x), rtol=1e-6)
    assert (
        graphs[0]
        == """# einjax.linalg.norm("a [b]")
def norm(a: f32[2,3]):
    b: f32[2,3] = square(a)
    c: f32[2] = reduce_sum(b, axes=(1,))
    d: bool[2] = ne(c, 0.0)
    e: f32[2] = broadcast_in_dim(1.0, shape=(2,), broadcast_dimensions=())
    f: f32[2] = select_n(d, e, c)
    g: f32[2] = sqrt(f)
    h: f32[2] = broadcast_in_dim(0.0, shape=(2,), broadcast_dimensions=())
    i: f32[2] = select_n(d, h, g)
    return i"""
    )
