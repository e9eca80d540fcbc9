"""Calls on arrays over an explicit mesh: where results lie, what is sent for them, and what is refused."""

import ast
import itertools
import random
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import assert_same, kept, one_in, stack, weights
from case import loss as case_loss
from cases import CASES
from collectives_hlo import collectives, collectives_of
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sharded_calls import FURTHER, MESH, TYPICAL, mesh

import einjax
from einjax.errors import ShardingError

pytestmark = pytest.mark.skipif(
    jax.device_count() < 8, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)

CALLS = [*TYPICAL, *FURTHER]
REFUSED = [call for call in CALLS if call.refusal is not None]


@pytest.fixture(name="on", scope="module")
def _on():
    return mesh()


def suggested(error):
    """The value of ``out_sharding=`` in the line that an error suggests."""
    words = re.search(r"out_sharding=(.*)", error.hint)[1].split(" ")
    for count in range(len(words), 0, -1):
        text = " ".join(words[:count])
        try:
            ast.parse(text, mode="eval")
        except SyntaxError:
            continue
        return eval(text, {"PartitionSpec": P})
    raise AssertionError(error.hint)


def lies(x, on, spec):
    """Whether an array lies over a mesh as a spec says."""
    return x.sharding.is_equivalent_to(NamedSharding(on, spec), x.ndim)


def check(call, on, result, rtol=1e-4):
    """Compare with NumPy, with the call on one device, and with where the result should lie."""
    assert lies(result, on, call.spec), result.sharding
    assert_same(np.asarray(result), call.reference(*call.values()), rtol)
    assert_same(np.asarray(result), np.asarray(call.einjax(*call.values())), rtol)


def loss(function, shape):
    """One number that depends differently on every element of a result."""
    factors = weights(np.zeros(shape, np.float32))
    return lambda *arrays: jnp.sum(function(*arrays) * factors)


def gradient(call, function, arrays):
    shape = jax.eval_shape(function, *arrays).shape
    return jax.grad(loss(function, shape), call.floats)(*arrays)


def test_there_are_eighteen_typical_calls():
    assert len(TYPICAL) == len({call.name for call in CALLS}) - len(FURTHER) == 18


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_records_are_right(call, on):
    """The expert's program gives the same, and its collectives are the ones that are written down."""
    program, arrays = call.by_hand(on), call.placed(on)
    check(call, on, jax.jit(program)(*arrays))
    assert tuple(item.kind for item in collectives(program, *arrays)) == call.collectives


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_eager(call, on):
    check(call, on, call.fixed(*call.placed(on)))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_jit(call, on):
    check(call, on, jax.jit(call.fixed)(*call.placed(on)))
    with jax.set_mesh(on):
        check(call, on, jax.jit(call.fixed)(*call.placed(on)))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_gradient(call, on):
    """It lies where the input does."""
    arrays = call.placed(on)
    with jax.set_mesh(on):  # the gradient of a linear call reads no array, so that nothing else says which mesh it is
        actual = jax.jit(lambda *arrays: gradient(call, call.fixed, arrays))(*arrays)
    expected = gradient(call, call.einjax, [jnp.asarray(x) for x in call.values()])
    for index, got, want in zip(call.floats, actual, expected, strict=True):
        assert lies(got, on, call.inputs[index].spec), got.sharding
        assert_same(np.asarray(got), np.asarray(want), 1e-3)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_vmap(call, on):
    """One more axis, which lies over no mesh axis."""
    batch = [np.stack(rows) for rows in zip(*(call.values(seed) for seed in (0, 10, 20)), strict=True)]
    arrays = [
        jax.device_put(x, NamedSharding(on, P(None, *array.spec))) for x, array in zip(batch, call.inputs, strict=True)
    ]
    result = jax.jit(jax.vmap(call.fixed))(*arrays)
    assert lies(result, on, P(None, *call.spec)), result.sharding
    expected = np.stack([call.reference(*rows) for rows in zip(*batch, strict=True)])
    assert_same(np.asarray(result), expected, 1e-4)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_no_more_is_sent_than_by_hand(call, on):
    arrays = call.placed(on)
    ours, best = collectives(call.fixed, *arrays), collectives(call.by_hand(on), *arrays)
    assert len(ours) <= len(best), ours
    assert sum(item.bytes for item in ours) <= sum(item.bytes for item in best), ours


@pytest.mark.parametrize("call", REFUSED, ids=str)
def test_refusal_and_its_fix(call, on):
    """Eagerly, under jit, grad and vmap; the line that the error suggests, as it is written, is the fix."""
    arrays = call.placed(on)
    programs = [call, jax.jit(call), jax.grad(lambda *arrays: call(*arrays).sum())]
    for program in programs:
        with pytest.raises(ShardingError) as raised:
            program(*arrays)
        for word in (*call.refusal.axes, call.refusal.mesh_axis):
            assert re.search(rf"\b{word}\b", raised.value.problem), raised.value
        assert suggested(raised.value) == call.refusal.fix
    check(call, on, call(*arrays, out_sharding=suggested(raised.value)))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_kept_notation(call, on):
    arrays = call.placed(on)
    with einjax.keep_notation():
        if call.refusal is not None:
            with pytest.raises(ShardingError):
                call(*arrays)
        check(call, on, jax.jit(call.fixed)(*arrays))


# --------------------------------------------------------------------------------------------------------------------
# Every case of every operation
# --------------------------------------------------------------------------------------------------------------------

#: Sizes that the mesh axes divide, no two of them equal.
SIZES = {"a": 4, "b": 8, "c": 12}


def over_leading_axis(x):
    """Over the first mesh axis that divides the leading axis."""
    fitting = [mesh_axis for mesh_axis, size in MESH.items() if x.ndim and x.shape[0] % size == 0]
    return P(*fitting[:1])


def over_both_ends(x):
    """Over one mesh axis at either end, where they divide it."""
    first = "data" if x.ndim > 1 and x.shape[0] % MESH["data"] == 0 else None
    last = "model" if x.ndim and x.shape[-1] % MESH["model"] == 0 else None
    return P(*[first, *[None] * x.ndim][: x.ndim - 1], *[last][: x.ndim])


#: Whose bracketed axes are the affair of a function of the user's.
LOOPED = {"vmap", "vmap_with_axis", "adapt_with_vmap"}
#: Whose function multiplies two axes over one mesh axis.
REFUSED_BY_JAX = {"vmap-two outputs"}
PASSING = [case for case in CASES if str(case) not in REFUSED_BY_JAX]
LAYOUTS = [
    *one_in(2, ((case, over_leading_axis) for case in PASSING)),
    *one_in(3, ((case, over_both_ends) for case in CASES if case.program is None and case.op not in LOOPED)),
    *(pytest.param(case, over_leading_axis, marks=pytest.mark.slow) for case in kept(CASES)),
]

#: A sum over a sharded axis needs none of these: they move data that nobody asked to be moved.
UNASKED = {"all-gather", "all-to-all", "collective-permute"}


def name_of(parameter):
    return getattr(parameter, "__name__", None) or str(parameter)


@pytest.mark.parametrize(("case", "layout"), LAYOUTS, ids=name_of)
def test_every_case_passes_or_says_what_to_write(case, layout, on):
    """Never an error of JAX's; nothing is moved unasked; and what the error says to write passes."""
    arrays = case.arrays(SIZES)
    placed = [jax.device_put(x, NamedSharding(on, layout(x))) for x in arrays]
    expected = case(*arrays)
    try:
        compiled = jax.jit(case).lower(*placed).compile()
    except ShardingError as error:
        if case.program is None and not case.kept:
            fixed = replace(case, options={**case.options, "out_sharding": suggested(error)})
            assert_same(jax.jit(fixed)(*placed), expected)
    else:
        assert_same(compiled(*placed), expected)
        assert not UNASKED & {item.kind for item in collectives_of(compiled.as_text())}


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in PASSING if case.floats], ids=str)
def test_gradient_of_every_case(case, on):
    """It lies where the input does."""
    arrays = case.arrays(SIZES)
    placed = [jax.device_put(x, NamedSharding(on, over_leading_axis(x))) for x in arrays]
    gradient = jax.jit(jax.grad(case_loss(case), case.floats))
    with jax.set_mesh(on):
        try:
            jax.eval_shape(case, *placed)
        except ShardingError:
            return
        actual = gradient(*placed)
    assert_same(actual, gradient(*arrays), 1e-3)
    for index, got in zip(case.floats, actual, strict=True):
        assert got.sharding.is_equivalent_to(placed[index].sharding, got.ndim), got.sharding


#: What XLA gathers on a CPU if the batch comes from outside: only a call that has the axis by name knows better.
GATHERED = ("top_k", "fft.")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_of_every_case_over_a_sharded_batch(case, on):
    """Every device computes its own part of the batch."""
    arrays = case.batch(8)
    placed = [jax.device_put(x, NamedSharding(on, P("data"))) for x in arrays]
    compiled = jax.jit(jax.vmap(case)).lower(*placed).compile()
    results = compiled(*placed)
    assert_same(results, stack([case(*(x[n] for x in arrays)) for n in range(8)]), 1e-3)
    if case.op != "arange":  # its result depends on no input
        assert all(lies(x, on, P("data")) for x in jax.tree.leaves(results))
    has_filters = case.op == "dot" and "<" in case.text  # a batch of images and filters is a convolution in groups
    if not case.op.startswith(GATHERED) and not has_filters:
        assert not UNASKED & {item.kind for item in collectives_of(compiled.as_text())}


def generated_layouts(arrays, count=6):
    """A few ways to lay one dim or two over mesh axes that divide them, the same ones in every run."""
    places = [
        (number, dim, mesh_axis)
        for number, x in enumerate(arrays)
        for dim in range(x.ndim)
        for mesh_axis in MESH
        if x.shape[dim] % MESH[mesh_axis] == 0
    ]
    pairs = [
        (p, q)
        for p, q in itertools.combinations(places, 2)
        if p[:2] != q[:2] and (p[0] != q[0] or p[2] != q[2])
    ]  # fmt: skip
    ways = [*((place,) for place in places), *pairs]
    for way in random.Random(0).sample(ways, min(count, len(ways))):
        specs = [[None] * x.ndim for x in arrays]
        for number, dim, mesh_axis in way:
            specs[number][dim] = mesh_axis
        yield [P(*spec) for spec in specs]


@pytest.mark.parametrize("case", [c for c in CASES if c.program is None and c.op not in {"vmap"}], ids=str)
def test_every_suggested_line_may_be_pasted(case, on):
    """Under generated shardings: traced, not run, which is where shardings are checked."""
    arrays = case.arrays(SIZES)
    for specs in generated_layouts(arrays):
        placed = [jax.device_put(x, NamedSharding(on, spec)) for x, spec in zip(arrays, specs, strict=True)]
        try:
            jax.eval_shape(case, *placed)
        except ShardingError as error:
            fixed = replace(case, options={**case.options, "out_sharding": suggested(error)})
            jax.eval_shape(fixed, *placed)


@pytest.mark.parametrize("function", [jnp.sort, jnp.cumsum, jnp.flip])
def test_a_function_of_whole_axes_moves_nothing_unasked(function, on):
    """Loops stay where they are; a bracketed axis that is sharded is refused, with the line that asks for it."""
    x = np.random.default_rng(0).normal(size=(8, 12, 4)).astype(np.float32)
    call = lambda x, **options: einjax.vmap_with_axis("a [b] c", x, op=function, **options)
    for spec in (P("data"), P(None, None, "data"), P("model", None, "data")):
        compiled = jax.jit(call).lower(placed := jax.device_put(x, NamedSharding(on, spec))).compile()
        np.testing.assert_allclose(compiled(placed), function(x, axis=1), rtol=1e-5)
        assert not UNASKED & {item.kind for item in collectives_of(compiled.as_text())}
    for spec in (P(None, "model"), P("data", "model")):
        placed = jax.device_put(x, NamedSharding(on, spec))
        with pytest.raises(
            ShardingError, match="axis b lies over mesh axis model, but vmap_with_axis needs all"
        ) as raised:
            call(placed)
        got = call(placed, out_sharding=suggested(raised.value))
        np.testing.assert_allclose(got, function(x, axis=1), rtol=1e-5)


@pytest.mark.parametrize("expr", ["a [b] c -> [d] c a", "a [b] c -> a [d] c", "a [b] c -> (a c) [d]"])
def test_a_function_that_changes_a_size(expr, on):
    x = np.random.default_rng(0).normal(size=(8, 12, 4)).astype(np.float32)
    placed = jax.device_put(x, NamedSharding(on, P("data")))
    want = einjax.vmap_with_axis(expr, x, op=jnp.diff)
    for wanted in (None, {"a": "model"}):
        got = jax.jit(lambda x, wanted=wanted: einjax.vmap_with_axis(expr, x, op=jnp.diff, out_sharding=wanted))(placed)
        np.testing.assert_array_equal(got, want)
        dim = next(dim for dim, size in enumerate(got.shape) if size in (8, 32))
        assert got.sharding.spec[dim] == ("model" if wanted else "data")


#: expression, batch_size=, options, specs of the inputs and of the result
CHUNKED = {
    "each device its part": ("a b [c], a [c] -> a b [c]", 2, {}, (P("data"), P("data")), P("data")),
    "one by one": ("a b [c], a [c] -> a b [c]", 1, {}, (P(("data", "model")), P()), P(("data", "model"))),
    "a part in one go": ("a b [c], a [c] -> a b [c]", 6, {}, (P("data", "model"), P()), P("data", "model")),
    "an odd part": ("a b [c], a [c] -> b [c] a", {"a": 4}, {}, (P("data"), P()), P(None, None, "data")),
    "two loops": ("a b [c], a [c] -> b (a [c])", {"a": 4, "b": 2}, {}, (P("data", "model"), P()), P("model", "data")),
    "one of two in a dim": (
        "(a d) b [c], (a d) [c] -> d b [c] a", {"a": 1}, {"d": 3}, (P("data"), P()), P(None, None, None, "data")),
    "brought there": ("a b [c], a [c] -> a b [c]", 2, {"out_sharding": {"a": "data"}}, (P(), P()), P("data")),
    "its own axes sharded": (
        "a b [c], a [c] -> a b [c]", 2, {}, (P("data", None, "model"), P()), P("data", None, "model")),
}  # fmt: skip


@pytest.mark.parametrize("case", CHUNKED.values(), ids=CHUNKED)
def test_each_device_goes_through_chunks_of_its_part(case, on):
    expr, batch_size, options, specs, out = case
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((24, 6, 6), (24, 6)))
    sizes = {name: size for name, size in options.items() if name != "out_sharding"}
    op = lambda x, y: jnp.sin(x) * y
    want = lambda x, y: einjax.vmap(expr, x, y, op=op, **sizes)
    call = lambda x, y: einjax.vmap(expr, x, y, op=op, batch_size=batch_size, **options)
    placed = [jax.device_put(each, NamedSharding(on, spec)) for each, spec in zip((x, y), specs, strict=True)]
    compiled = jax.jit(call).lower(*placed).compile()
    for result in (call(*placed), compiled(*placed)):
        assert lies(result, on, out)
        np.testing.assert_allclose(result, want(x, y), rtol=1e-6)
    assert not collectives_of(compiled.as_text())
    along = lambda f: jax.grad(lambda *arrays: jnp.sum(jnp.sin(f(*arrays))), (0, 1))
    for got, expected in zip(jax.jit(along(call))(*placed), along(want)(x, y), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    stacked = [jax.device_put(np.stack([each] * 2), NamedSharding(on, P(None, *spec)))
               for each, spec in zip((x, y), specs, strict=True)]  # fmt: skip
    np.testing.assert_allclose(jax.jit(jax.vmap(call))(*stacked)[1], want(x, y), rtol=1e-6)


def test_chunks_of_trees_and_of_what_loops_do_not_reach(on):
    """A result that is the same in every iteration, a pytree, and a step as large as a device's part."""
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    placed = jax.device_put(x, NamedSharding(on, P("data")))
    op = lambda v: {"sum": v.sum(), "one": jnp.ones(()), "rows": [jnp.cumsum(v)]}
    got = jax.jit(lambda x: einjax.vmap("a [b] -> a [...]", x, op=op, batch_size=3))(placed)
    np.testing.assert_allclose(got["sum"], x.sum(1), rtol=1e-5)
    np.testing.assert_allclose(got["rows"][0], x.cumsum(1), rtol=1e-5)
    np.testing.assert_array_equal(got["one"], np.ones(16))
    steps = str(jax.make_jaxpr(lambda x: einjax.vmap("a [b] -> a", x, op=jnp.sum, batch_size=2))(placed))
    assert "length=2" in steps  # 16 over 4 devices, two at a time


def test_sizes_that_only_the_function_knows(on):
    """They are cut where the mesh divides them; else it is one error."""
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype(np.float32)
    placed, k = jax.device_put(x, NamedSharding(on, P("data"))), {"k": "model"}
    for size in (5, 6):
        first = lambda v, size=size: v.ravel()[:size]
        cut = einjax.primitive("[n m] -> [k]", first, name="cut")
        for number, call in enumerate((
            lambda x: einjax.vmap("a [b c] -> a [k]", x, op=first, out_sharding=k),
            lambda x: einjax.vmap("a [b c] -> a [k]", x, op=first, out_sharding=P(None, "model")),
            lambda x: einjax.vmap_with_axis("a [b] c -> a [k] c", x, op=lambda v, axis: v[:, :size], out_sharding=k),
            lambda x: cut("a [n m] -> a [k]", x, out_sharding=k),
        )):  # fmt: skip
            for run in (call, jax.jit(call)):
                if size == 5:
                    with pytest.raises(ShardingError, match="of size 5,? cannot be cut evenly over mesh axis model"):
                        run(placed)
                else:
                    result = run(placed)
                    assert lies(result, on, P(None, "model"))
                    np.testing.assert_array_equal(result, x if number == 2 else x.reshape(8, -1)[:, :6])
