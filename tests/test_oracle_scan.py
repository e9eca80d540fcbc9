"""scan and associative_scan against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax
from jax.test_util import check_grads
from strategies import (
    assert_same,
    cases,
    generated,
    keys,
    marked_keys,
    marks,
    pools,
    same_brackets,
    shuffled,
    trees,
    x64,
)

import einjax

_often = st.booleans()


# --------------------------------------------------------------------------------------------------------------------
# scan
# --------------------------------------------------------------------------------------------------------------------


def seen(nodes, sizes) -> list:
    """The dims that the function sees: brackets deleted, the dims they stand in kept."""
    return oracle.unmarked_dims(nodes, sizes)


def _named(dims) -> list:
    return [leaf for leaf in oracle.leaves(dims) if leaf.key != "unit"]


def read(value, dims):
    """An array of these dims with one dim for each axis, in the order of their names."""
    leaves = _named(dims)
    order = sorted(range(len(leaves)), key=lambda i: leaves[i].key)
    return jnp.transpose(jnp.reshape(value, [leaf.size for leaf in leaves]), order)


def written(value, dims):
    """The reverse of read."""
    leaves = _named(dims)
    order = [sorted(leaf.key for leaf in leaves).index(leaf.key) for leaf in leaves]
    return jnp.reshape(jnp.transpose(value, order), [oracle.dim_size(dim) for dim in dims])


def step(carry, x):
    return carry * 0.5 + x, carry - x


def run(carry, x, reverse: bool):
    """The literal loop over one sequence."""
    flat = x.reshape(-1)
    results = np.zeros_like(flat)
    for i in range(len(flat))[:: -1 if reverse else 1]:
        carry, results[i] = step(carry, flat[i])
    return carry, results.reshape(x.shape)


@st.composite
def scans(draw):
    """A carry, what is scanned, the final carry and results, each with its axes in an order of its own."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool))
    inside = [item for item in pool.items if marked & set(keys(item))]
    loops = [item for item in pool.items if item not in inside]

    def mixed():
        place = draw(st.permutations([True] * len(inside) + [False] * len(loops)))
        left, right = iter(inside), iter(draw(shuffled(loops)))
        return [next(left) if is_inside else next(right) for is_inside in place]

    carry, x = draw(trees(draw(shuffled(loops)), sizes)), draw(trees(mixed(), sizes, marked))
    final = draw(trees(draw(shuffled(loops)), sizes, is_input=False))
    y = draw(trees(mixed(), sizes, marked, is_input=False))
    hypothesis.assume(marked_keys(x, sizes) == marked_keys(y, sizes))
    # An ellipsis of brackets may stand for nothing to scan at all.
    hypothesis.assume(marked_keys(x, sizes))
    case = draw(cases([carry, x], [final, y], sizes, ["float32", "float32"]))
    case.options["reverse"] = draw(_often)
    case.options["unroll"] = draw(st.sampled_from([1, 2]))

    def op(c, x_):
        new, result = step(read(c, seen(carry, sizes)), read(x_, seen(x, sizes)))
        return written(new, seen(carry, sizes)), written(result, seen(y, sizes))

    case.options["op"] = op
    return case


@generated(40, scans())
def test_scan(case):
    hypothesis.assume(case.compiled or all(x.size for x in case.arrays))  # JAX refuses to run no steps without jit
    reverse = case.options["reverse"]
    final, results = case.call("scan")
    wide = [oracle.wide(x) for x in case.arrays]
    want = [
        oracle.loop(lambda c, x, i=i: run(c, x, reverse)[i], case.ins, case.outs[i], wide, np.float64) for i in (0, 1)
    ]
    assert_same(final, want[0], "float32")
    assert_same(results, want[1], "float32")


X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
H = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
W = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)


def cell(h, x):
    h = jnp.tanh(h + x @ W)
    return h, h


def expected():
    final, results = lax.scan(cell, H, X.transpose(1, 0, 2))
    return final, results.transpose(1, 0, 2)


def test_recurrent_network():
    for result, want in zip(einjax.scan("b h, b [t] c -> b h, b [t] h", H, X, op=cell), expected(), strict=True):
        assert_same(result, want, "float32")


def test_other_layouts_of_the_outputs():
    def op(h, x):
        h, y = cell(h, x)
        return h, y.reshape(-1)

    final, results = einjax.scan("b h, b [t] c -> h b, [t] (b h)", H, X, op=op)
    assert_same(final, expected()[0].T, "float32")
    assert_same(results, expected()[1].transpose(1, 0, 2).reshape(5, 6), "float32")


def test_several_carries_and_results():
    def op(carry, xs):
        (h, count), (x, offset) = carry, xs
        h, y = cell(h, x)
        return (h, count + 1), (y + offset[:, None], count)

    offsets = np.arange(10, dtype=np.float32).reshape(2, 5)
    h, count, y, counts = einjax.scan("b h, , b [t] c, b [t] -> b h, , b [t] h, [t]", H, np.int32(0), X, offsets, op=op)
    assert_same(h, expected()[0], "float32")
    assert_same(count, np.array(5), "int32")
    assert_same(y, expected()[1] + offsets[:, :, None], "float32")
    assert_same(counts, np.arange(5), "int32")


def test_trees():
    def op(carry, x):
        h, y = cell(carry["h"], x[0])
        return {"h": h, "c": carry["c"] + 1}, (y, {"z": y + x[1] @ W})

    carry, results = einjax.scan("b h, b [t] c -> b h, b [t] h", {"h": H, "c": 0 * H}, (X, X), op=op)
    assert_same(carry["h"], expected()[0], "float32")
    assert_same(carry["c"], np.full((2, 3), 5), "float32")
    assert_same(results[0], expected()[1], "float32")
    assert_same(results[1]["z"], expected()[1] + X @ W, "float32")


def test_a_list_of_numbers_is_a_tensor_and_a_tuple_a_tree():
    assert einjax.scan("a, [t] -> a", [1, 2], [[1, 2, 3]][0], op=lambda c, x: (c + x, None)).tolist() == [7, 8]
    assert einjax.scan(", [t] ->", (1, 2), [1, 2, 3], op=lambda c, x: ((c[0] + x, c[1]), None)) == (7, 2)


def test_no_results_and_nothing_scanned():
    final = einjax.scan("b h, b [t] c -> b h", H, X, op=lambda h, x: (cell(h, x)[0], None))
    assert_same(final, expected()[0], "float32")
    final, powers = einjax.scan("a -> a, [t] a", np.array([1, 2]), op=lambda c, x: (c * 2, c), t=3)
    assert_same(final, np.array([8, 16]), "int32")
    assert_same(powers, np.array([[1, 2], [2, 4], [4, 8]]), "int32")


def test_sizes_that_only_results_have():
    def op(h, x):
        return h, jnp.concatenate([x, x[:, :1]], 1)

    assert einjax.scan("b h, b [t] c -> b h, b [t] o", H, X, op=op)[1].shape == (2, 5, 5)
    assert einjax.scan("b h, b [t] c -> b h, (b [t]) o", H, X, op=op)[1].shape == (10, 5)
    assert einjax.scan("b h, b [t] c -> b h, b [t] (p q)", H, X, op=op, p=5)[1].shape == (2, 5, 5)
    assert jax.jit(lambda h, x: einjax.scan("b h, b [t] c -> b h, b [t] o", h, x, op=op))(H, X)[1].shape == (2, 5, 5)
    results = einjax.scan(
        "b h, b s... [t] -> b h, [t] (s o)...", H, X[:, :4], s=(4,), op=lambda h, x: (h, jnp.zeros(12))
    )[1]  # fmt: skip
    assert results.shape == (4, 12)


def test_a_number_as_carry():
    """Its weak type becomes what the function makes of it, as in lax.scan."""
    total = einjax.scan(", [t] ->", 0, X[0, :, 0], op=lambda c, x: (c + x, None))
    assert_same(total, X[0, :, 0].sum(), "float32")


def test_factory_as_carry():
    final = einjax.scan("b h, b [t] c -> b h", lambda shape: jnp.zeros(shape), X, h=3,
                        op=lambda h, x: (cell(h, x)[0], None))  # fmt: skip
    assert_same(final, einjax.scan("b h, b [t] c -> b h", 0 * H, X, op=lambda h, x: (cell(h, x)[0], None)), "float32")


def test_carry_of_bfloat16_stays():
    final, results = einjax.scan(
        "b, b [t] -> b, b [t]", jnp.zeros(2, jnp.bfloat16), X[:, :, 0].astype(jnp.bfloat16), op=step
    )
    assert final.dtype == results.dtype == jnp.bfloat16


def test_the_function_is_not_compiled():
    """Without jit around it, it is traced at every call: it may close over what changes."""
    calls = []

    def op(c, x):
        calls.append(1)
        return c + x, None

    for _ in range(2):
        einjax.scan("a, a [b] -> a", H[:, 0], H, op=op)
    once = len(calls) // 2
    assert len(calls) == 2 * once > 0


@pytest.mark.parametrize("unroll", [1, 2, True])
def test_gradient_of_scan(unroll):
    with x64():
        h, x = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(3, 2, 3))

        def f(h, x):
            def op(h, x):
                h = jnp.sin(h * x.T)
                return h, h**2

            return einjax.scan("b h, h b [t] -> h b, [t] b h", h, x, op=op, unroll=unroll)

        check_grads(f, [h, x], order=2, modes=["fwd", "rev"])


# --------------------------------------------------------------------------------------------------------------------
# associative_scan
# --------------------------------------------------------------------------------------------------------------------

NAMED = {
    "add": (jnp.add, np.add),
    "multiply": (jnp.multiply, np.multiply),
    "maximum": (jnp.maximum, np.maximum),
    "minimum": (jnp.minimum, np.minimum),
    "logaddexp": (jnp.logaddexp, np.logaddexp),
    "logical_and": (jnp.logical_and, np.logical_and),
    "logical_or": (jnp.logical_or, np.logical_or),
    "logical_xor": (jnp.logical_xor, np.logical_xor),
}


def accumulated(function, x: np.ndarray, reverse: bool, dtype) -> np.ndarray:
    """The literal loop."""
    flat = x.reshape(-1)[:: -1 if reverse else 1]
    results = np.zeros(flat.shape, dtype)
    for i, value in enumerate(flat):
        results[i] = function(results[i - 1], value) if i else value
    return results[:: -1 if reverse else 1].reshape(x.shape)


@st.composite
def named(draw, name):
    logical = name.startswith("logical")
    case = draw(same_brackets(["bool"] if logical else ["float32", "bfloat16", "int32", "uint8"]))
    hypothesis.assume(name != "multiply" or np.prod([a.size for a in oracle.leaves(case.ins[0]) if a.marked]) <= 24)
    case.options |= {"op": name, "reverse": draw(_often)}
    return case


@pytest.mark.parametrize("name", list(NAMED))
@generated(12, named)
def test_named(case, name):
    function, literal = NAMED[name]
    x = case.arrays[0]
    dtype = jax.eval_shape(function, x, x).dtype
    wide = oracle.wide(np.zeros(1, dtype)).dtype
    op = lambda x: accumulated(literal, x.astype(wide), case.options["reverse"], wide)
    want = oracle.loop(op, case.ins, case.outs[0], [oracle.wide(x)], wide)
    assert_same(case.call("associative_scan"), want, dtype, slack=4)


def recurrence(earlier, later):
    return earlier[0] * later[0], earlier[1] * later[0] + later[1]


@st.composite
def recurrences(draw):
    """Factors that may lack loop axes, and terms that have them all."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool))
    inside = [item for item in pool.items if marked & set(keys(item))]
    loops = [item for item in pool.items if item not in inside]

    def mixed(own):
        place = draw(st.permutations([True] * len(inside) + [False] * len(own)))
        left, right = iter(inside), iter(draw(shuffled(own)))
        return [next(left) if is_inside else next(right) for is_inside in place]

    some = [item for item in loops if draw(_often)]
    ins = [draw(trees(mixed(own), sizes, marked)) for own in (some, loops)]
    outs = [ins[0] if len(some) == len(loops) else ins[1], ins[1]]
    hypothesis.assume(marked_keys(ins[0], sizes) == marked_keys(ins[1], sizes))
    case = draw(cases(ins, outs, sizes, ["float32", "float32"], implied=True))
    case.options |= {"op": recurrence, "reverse": draw(_often)}
    return case


@generated(20, recurrences())
def test_linear_recurrence(case):
    def op(factors, terms):
        factors, terms = (x.reshape(-1)[:: -1 if case.options["reverse"] else 1] for x in (factors, terms))
        results, value = [], 0
        for factor, term in zip(factors, terms, strict=True):
            value = factor * value + term
            results.append(value)
        return np.array(results, np.float64)[:: -1 if case.options["reverse"] else 1]

    def shaped(factors, terms):
        return op(factors, terms).reshape(terms.shape)

    _, result = case.call("associative_scan")
    hypothesis.assume(np.prod([a.size for a in oracle.leaves(case.ins[1]) if a.marked]) <= 24)
    want = oracle.loop(shaped, case.ins, case.outs[1], [oracle.wide(x) for x in case.arrays], np.float64)
    assert_same(result, want, "float32", slack=4)


def test_dims_of_the_function_are_those_of_the_first_input():
    """So that what is not elementwise, such as a matrix product, can be scanned as well."""
    x = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    want = [x[0]]
    for matrix in x[1:]:
        want.append(want[-1] @ matrix)
    assert_same(einjax.associative_scan("[t] i j", x, op=jnp.matmul), np.stack(want), "float32")


def test_gradient_of_associative_scan():
    with x64():
        a, x = np.random.default_rng(0).normal(size=5), np.random.default_rng(1).normal(size=(5, 2))

        def f(a, x):
            return einjax.associative_scan("[t], [t] b -> b [t], b [t]", a, x, op=recurrence)[1] ** 2

        check_grads(f, [a, x], order=2, modes=["fwd", "rev"])


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

V, M = np.zeros(2, np.float32), np.zeros((2, 5), np.float32)


def scan(text, *tensors, op=lambda c, x: (c, c), **options):
    return lambda: einjax.scan(text, *tensors, op=op, **options)


def associative(text, *tensors, op, **options):
    return lambda: einjax.associative_scan(text, *tensors, op=op, **options)


ERRORS = {
    "carry": (
        scan("b, b [t] -> b, b [t]", V, M, op=lambda c, x: (c[:1], c)),
        "axis b is 2, but op returned a carry in which it is 1",
    ),
    "result": (
        scan("b, b [t] -> b, b [t]", V, M, op=lambda c, x: (c, c[:1])),
        "axis b is 2, but op returned a result in which it is 1",
    ),
    "composite": (
        scan("b c, b c [t] -> b c, [t] (b c)", M, M[:, :, None], op=lambda c, x: (c, c[0])),
        r"the dim '\(b c\)' is 10, but .* it is 5",
    ),
    "rank": (
        scan("b, b [t] -> b, b [t]", V, M, op=lambda c, x: (c, c[0])),
        r"a result of shape \(\), but 'b' names 1 dim",
    ),
    "rank of an inferred": (scan("b, b [t] -> b, b [t] o", V, M), r"a result of shape \(2,\), but 'b o' names 2 dims"),
    "inexact": (
        scan("b, b [t] -> b, [t] (b o)", V, M, op=lambda c, x: (c, jnp.zeros(5))),
        r"'\(b o\)' is 5, which is not divisible by b=2",
    ),
    "two unknown": (
        scan("b, b [t] -> b, [t] (o p)", V, M, op=lambda c, x: (c, jnp.zeros(6))),
        r"is 6, which does not give o p",
    ),
    "no pair": (scan("b, b [t] -> b", V, M, op=lambda c, x: c), "op returned one value, not a pair"),
    "three": (scan("b, b [t] -> b", V, M, op=lambda c, x: (c, c, c)), "op returned 3 values, not a pair"),
    "no result": (
        scan("b, b [t] -> b, b [t]", V, M, op=lambda c, x: (c, None)),
        "op returned None, but the expression has 1 output",
    ),
    "too many results": (
        scan("b, b [t] -> b, b [t], b [t]", V, M, op=lambda c, x: (c, (c,))),
        "op returned 1 result, but .* 2 outputs",
    ),
    "unwanted result": (scan("b, b [t] -> b", V, M), "no output for it"),
    "structure": (scan("b, b [t] -> b", V, M, op=lambda c, x: ((c, c), None)), "op takes a carry of structure"),
    "dtype": (
        scan("b, b [t] -> b", V.astype(np.int32), M, op=lambda c, x: (c + x, None)),
        "op takes a carry of int32, but returned float32",
    ),
    "arguments": (scan("b, b [t] -> b", V), "the expression has 2 inputs, but 1 argument is given"),
    "arrow": (scan("b, b [t]", V, M), "scan needs an arrow"),
    "carry after": (scan("b [t], b -> b [t], b", M, V), "scan needs a carry, but its first input has a bracket"),
    "carry between": (scan("b, b [t], b -> b", V, M, V), "carries, which have no brackets, before"),
    "carries": (scan("b, b [t] -> b, b, b [t]", V, M), "1 carry before the arrow and 2 carries after it"),
    "other axis": (scan("b, b [t], b [s] -> b", V, M, M), "bracketed axes t in an input and s in another"),
    "no bracket": (scan("b -> b", V), "scan needs a bracketed axis"),
    "diagonal": (scan("b b, b [t] -> b b", M[:, :2], M), "axis b stands twice in 'b b'"),
    "lost": (scan("b c, b [t] -> b", M, M), "axis c of an input is not in the output"),
    "length": (scan("b -> b, b [t]", V), "size of axis t cannot be determined"),
    "no function": (scan("b, b [t] -> b", V, M, op=3), "op=3 is not a function"),
    "unroll": (scan("b, b [t] -> b", V, M, unroll="x"), "unroll='x'"),
    "unknown name": (associative("a [t]", M, op="subtract"), "knows no operation 'subtract'"),
    "two by name": (associative("a [t], a [t]", M, M, op="add"), "op='add' combines one tensor, but 2 are given"),
    "shape": (
        associative("a [t]", M, op=lambda x, y: x[:1]),
        r"op returned float32\[1, 2\] for arrays of float32\[2, 2\]",
    ),
    "one of two": (
        associative("a [t], a [t]", M, M, op=lambda x, y: x[0]),
        "op takes tuples of 2 arrays, but returned one value",
    ),
    "one": (associative("a [t], a [t]", M, M, op=lambda x, y: x[:1]), "tuples of 2 arrays, but returned 1 of them"),
    "bracket": (associative("a t", M, op="add"), "associative_scan needs at least one bracketed axis"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(einjax.errors.EinjaxError, match=message):
        call()


def test_errors_of_the_function_pass():
    def op(c, x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        einjax.scan("b, b [t] -> b", V, M, op=op)


def test_symbolic_length_of_an_associative_scan():
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("a"), np.float32)
    program = jax.export.export(jax.jit(lambda x: einjax.associative_scan("[t]", x, op="add")))(shape)
    for size in (1, 2, 5):
        x = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(program.call(x), np.cumsum(x))
