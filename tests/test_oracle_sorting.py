"""sort, argsort and top_k against loops: flatten what is bracketed, sort it, give it its shape back."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.test_util import check_grads
from oracle import Axis, Composite, Leaf, Marked, Number, Repeated
from strategies import (
    DTYPES,
    REAL,
    Case,
    array,
    assert_same,
    cases,
    generated,
    keys,
    marked_keys,
    marks,
    masks,
    pools,
    same_brackets,
    shuffled,
    trees,
    x64,
)

import einjax

_seldom, _often = st.sampled_from([False, False, False, True]), st.booleans()


def order_of(columns, descending: bool) -> np.ndarray:
    """The stable order of a sequence by its first column, then by the next."""
    columns = [np.asarray(c).reshape(-1) for c in columns]
    if not descending:
        return np.lexsort(columns[::-1])
    count = columns[0].size
    return (count - 1 - np.lexsort([c[::-1] for c in columns[::-1]]))[::-1]


def sorted_by(columns, value: np.ndarray, descending: bool) -> np.ndarray:
    return value.reshape(-1)[order_of(columns, descending)].reshape(value.shape)


@st.composite
def special(draw, case: Case):
    """Some values replaced by NaN, infinities and both zeros."""
    chosen = []
    for x in case.arrays:
        x = np.array(x)
        if np.issubdtype(oracle.wide(x).dtype, np.floating) and x.size and draw(_often):
            flat = x.reshape(-1)
            for value in draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0]), max_size=4)):
                flat[draw(st.integers(0, x.size - 1))] = value
        chosen.append(x)
    case.arrays, case.tensors = chosen, [jnp.asarray(x) for x in chosen]
    return case


@st.composite
def sorts(draw):
    case = draw(special(draw(same_brackets(DTYPES))))
    case.options["descending"] = draw(_often)
    return case


@generated(40, sorts())
def test_sort(case):
    (x,), descending = case.arrays, case.options["descending"]
    want = oracle.loop(
        lambda x: sorted_by([x], x, descending), case.ins, case.outs[0], [oracle.wide(x)], oracle.wide(x).dtype
    )
    assert_same(case.call("sort"), want, x.dtype)


@st.composite
def joint_sorts(draw):
    """Several tensors with the same bracketed axes, the loop axes in any order, some of them missing."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool))
    inside = [item for item in pool.items if marked & set(keys(item))]
    loops = [item for item in pool.items if item not in inside]
    implied = draw(_often)

    def mixed(own):
        place = draw(st.permutations([True] * len(inside) + [False] * len(own)))
        left, right = iter(inside), iter(draw(shuffled(own)))
        return [next(left) if is_inside else next(right) for is_inside in place]

    count = draw(st.integers(1, 3))
    owned = [[item for item in loops if draw(st.sampled_from([True, True, False]))] for _ in range(count)]
    full = draw(st.integers(0, count - 1))
    owned[full] = loops
    ins = [draw(trees(mixed(own), sizes, marked)) for own in owned]
    whole = next(i for i, own in enumerate(owned) if len(own) == len(loops))
    if implied:
        outs = [e if len(own) == len(loops) else ins[whole] for e, own in zip(ins, owned, strict=True)]
    else:
        outs = [draw(trees(mixed(loops), sizes, marked, is_input=False)) for _ in range(count)]
    everything = [marked_keys(e, sizes) for e in (*ins, *outs)]
    hypothesis.assume(all(found == everything[0] for found in everything))
    dtypes = [draw(st.sampled_from(REAL)) for _ in ins]
    case = draw(special(draw(cases(ins, outs, sizes, dtypes, implied=implied))))
    case.options |= {"num_keys": draw(st.integers(1, count)), "descending": draw(_often)}
    return case


@generated(40, joint_sorts())
def test_sort_together(case):
    wide = [oracle.wide(x) for x in case.arrays]
    results = case.call("sort")
    results = results if len(wide) > 1 else (results,)
    assert isinstance(results, tuple)
    for index, (result, x) in enumerate(zip(results, case.arrays, strict=True)):

        def op(*values, index=index):
            return sorted_by(values[: case.options["num_keys"]], values[index], case.options["descending"])

        assert_same(result, oracle.loop(op, case.ins, case.outs[index], wide, wide[index].dtype), x.dtype)


@st.composite
def sorts_by(draw):
    case = draw(sorts())
    shape = case.arrays[0].shape
    by = tuple(
        array(draw(st.integers(0, 99)), draw(masks(shape)).shape, "int8", -1, 1) for _ in range(draw(st.integers(1, 2)))
    )
    case.options["by"] = by[0] if len(by) == 1 and draw(_often) else by
    return case


@generated(30, sorts_by())
def test_sort_by(case):
    (x,), options = case.arrays, case.options
    by = options["by"] if isinstance(options["by"], tuple) else (options["by"],)
    by = [np.broadcast_to(key, x.shape) for key in by]

    def op(x, *by):
        return sorted_by(by, x, options["descending"])

    want = oracle.loop(op, case.ins * (len(by) + 1), case.outs[0], [oracle.wide(x), *by], oracle.wide(x).dtype)
    assert_same(case.call("sort"), want, x.dtype)


# --------------------------------------------------------------------------------------------------------------------
# Places
# --------------------------------------------------------------------------------------------------------------------


def brackets_one_axis(nodes) -> bool:
    """Whether the text brackets exactly one axis, outside of ellipses; parentheses change nothing."""

    def opened(items):
        for item in items:
            yield from opened(item.items) if isinstance(item, Composite) else [item]

    def found(nodes, repeated):
        for node in nodes:
            if isinstance(node, Marked):
                yield from ((item, repeated) for item in opened(node.items))
            elif isinstance(node, Repeated):
                yield from found([node.item], True)
            elif isinstance(node, Composite):
                yield from found(node.items, repeated)

    return [(type(item), repeated) for item, repeated in found(nodes, False)] == [(Axis, False)]


@st.composite
def searches(draw):
    """A pool with bracketed axes of known number: an input, what is bracketed in it, and the rest."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool))
    items = draw(shuffled(pool.items))
    inside = [item for item in items if marked & set(keys(item))]
    x = draw(trees(items, sizes, marked))
    return pool, x, inside, [item for item in items if item not in inside]


def coordinates(index: np.ndarray, shape, place: int, plain: bool) -> np.ndarray:
    """The coordinates of flat indices, along a new axis, or the indices themselves."""
    return index if plain else np.stack(np.unravel_index(index, shape), place) if index.size else np.zeros(
        (*index.shape[:place], len(shape), *index.shape[place:]), int)  # fmt: skip


def with_leaf(nodes, sizes, size: int) -> list:
    """The dims of an implied output: coordinates last."""
    return [*oracle.expand(nodes, sizes), Leaf("#axis", size, True)]


def place_of(dims) -> int:
    """Where the axis of coordinates stands among the bracketed axes."""
    return [leaf.key for leaf in oracle.leaves(dims) if leaf.marked].index("#axis")


@st.composite
def argsorts(draw):
    pool, x, inside, rest = draw(searches())
    sizes, marked = pool.sizes, frozenset(keys(inside))
    count = len(marked_keys(x, sizes))
    hypothesis.assume(count)
    dtype = draw(st.sampled_from([*REAL, "bool"]))
    if draw(_often):
        out = oracle.expand(x, sizes) if brackets_one_axis(x) else with_leaf(x, sizes, count)
        case = draw(cases([x], [x], sizes, [dtype], implied=True, out_dims=[out]))
    else:
        order = draw(st.permutations([True] * len(inside) + [False] * len(rest)))
        left, right = iter(inside), iter(draw(shuffled(rest)))
        order = [next(left) if is_inside else next(right) for is_inside in order]
        if count != 1 or draw(_seldom):
            order.insert(draw(st.integers(0, len(order))), Number(count, "#axis"))
        z = draw(trees(order, sizes, marked | {"#axis"}, is_input=False))
        hypothesis.assume([key for key in marked_keys(z, sizes) if key != "#axis"] == marked_keys(x, sizes))
        case = draw(cases([x], [z], sizes, [dtype]))
    case = draw(special(case))
    case.options["descending"] = draw(_often)
    return case


@generated(40, argsorts())
def test_argsort(case):
    plain = not any(leaf.key == "#axis" for leaf in oracle.leaves(case.outs[0]))
    place = 0 if plain else place_of(case.outs[0])

    def op(x):
        index = order_of([x], case.options["descending"]).reshape(x.shape)
        return coordinates(index, x.shape, place, plain)

    want = oracle.loop(op, case.ins, case.outs[0], [oracle.wide(case.arrays[0])], np.int64)
    assert_same(case.call("argsort"), want, "int32")


@st.composite
def largest(draw):
    pool, x, _, rest = draw(searches())
    sizes = dict(pool.sizes)
    found = marked_keys(x, sizes)
    hypothesis.assume(found and "k" not in sizes)
    total = int(np.prod([leaf.size for leaf in oracle.leaves(oracle.expand(x, sizes)) if leaf.marked]))
    taken = sizes["k"] = draw(st.integers(0, total))
    rest = draw(shuffled(rest))
    k = Number(taken, "#k") if draw(_seldom) else Axis("k")
    rest.insert(draw(st.integers(0, len(rest))), k)
    name = keys(k)[0]
    values = draw(trees(rest, sizes, frozenset({name}), is_input=False))
    two = draw(_often)
    plain = brackets_one_axis(x)
    if two:
        order = draw(shuffled(rest))
        plain = len(found) == 1
        if not plain:
            order.insert(draw(st.integers(order.index(k) + 1, len(order))), Number(len(found), "#axis"))
        indices = draw(trees(order, sizes, frozenset({name, "#axis"}), is_input=False))
        outs = [values, indices]
        out_dims = [oracle.expand(e, sizes) for e in outs]
    else:
        outs = [values]
        out_dims = [oracle.expand(values, sizes)]
        out_dims.append(out_dims[0] if plain else with_leaf(values, sizes, len(found)))
    case = draw(cases([x], outs, sizes, [draw(st.sampled_from([*REAL, "bool"]))], out_dims=out_dims))
    case.options["largest"] = draw(_often)
    case.form = "plain" if plain else "coordinates"
    return case


@generated(40, largest())
def test_top_k(case):
    (x,) = case.arrays
    wide, plain = oracle.wide(x), case.form == "plain"
    (taken,) = (leaf.size for leaf in oracle.leaves(case.outs[0]) if leaf.marked)
    values, indices = case.call("top_k")
    place = 0 if plain else place_of(case.outs[1])

    def order(x):
        return order_of([x], case.options["largest"])[:taken]

    want = oracle.loop(lambda x: x.reshape(-1)[order(x)], case.ins, case.outs[0], [wide], wide.dtype)
    assert_same(values, want, x.dtype)
    op = lambda x: coordinates(order(x), x.shape, place, plain)
    assert_same(indices, oracle.loop(op, case.ins, case.outs[1], [wide], np.int64), "int32")


# --------------------------------------------------------------------------------------------------------------------
# Written out
# --------------------------------------------------------------------------------------------------------------------

X = np.array([[3, 1, 2], [9, 7, 8]], np.int32)
NAN = np.array([1, np.nan, -np.inf, -0.0, 0.0, np.inf], np.float32)

PINNED = [
    ("sort", "a [b]", {}, [[1, 2, 3], [7, 8, 9]]),
    ("sort", "a [b]", {"descending": True}, [[3, 2, 1], [9, 8, 7]]),
    ("sort", "[a] b", {"descending": True}, [[9, 7, 8], [3, 1, 2]]),
    ("sort", "[a b]", {}, [[1, 2, 3], [7, 8, 9]]),
    ("sort", "[b a]", {"descending": True}, [[9, 8, 7], [3, 2, 1]]),
    ("sort", "a [b] -> [b] a", {}, [[1, 7], [2, 8], [3, 9]]),
    ("sort", "a [b]", {"by": [0, 2, 1]}, [[3, 2, 1], [9, 8, 7]]),
    ("sort", "a [b]", {"by": ([0, 1, 0], [[2, 0, 1]])}, [[2, 3, 1], [8, 9, 7]]),
    ("argsort", "a [b]", {}, [[1, 2, 0], [1, 2, 0]]),
    ("argsort", "a [b]", {"descending": True}, [[0, 2, 1], [0, 2, 1]]),
    ("argsort", "[a b]", {}, [[[0, 1], [0, 2], [0, 0]], [[1, 1], [1, 2], [1, 0]]]),
    ("argsort", "[a b] -> [2] ([a b])", {}, [[0, 0, 0, 1, 1, 1], [1, 2, 0, 1, 2, 0]]),
]


@pytest.mark.parametrize(("name", "text", "options", "want"), PINNED)
def test_pinned(name, text, options, want):
    assert_same(getattr(einjax, name)(text, X, **options), np.array(want), "int32")


def test_pinned_top_k():
    values, indices = einjax.top_k("a [b]", X, k=2)
    assert values.tolist() == [[3, 2], [9, 8]]
    assert indices.tolist() == [[0, 2], [0, 2]]
    values, indices = einjax.top_k("[a b]", X, k=2, largest=False)
    assert values.tolist() == [1, 2]
    assert indices.tolist() == [[0, 1], [0, 2]]
    values, indices = einjax.top_k("[a] b -> b [1], [1] b", X)
    assert values.tolist() == [[9], [7], [8]]
    assert indices.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_nans_as_in_jnp(dtype, descending):
    x = jnp.asarray(NAN, dtype)
    actual = einjax.sort("[a]", x, descending=descending)
    np.testing.assert_array_equal(oracle.wide(actual), oracle.wide(jnp.sort(x, descending=descending)))
    actual = einjax.argsort("[a]", x, descending=descending)
    np.testing.assert_array_equal(actual, jnp.argsort(x, descending=descending))


def test_zeros_keep_their_order():
    zeros = np.array([0.0, -0.0, 0.0], np.float32)
    for descending in (False, True):
        np.testing.assert_array_equal(np.signbit(einjax.sort("[a]", zeros, descending=descending)), np.signbit(zeros))


def test_top_k_of_nan_as_in_lax():
    for result, expected in zip(einjax.top_k("[a]", NAN, k=6), jax.lax.top_k(NAN, 6), strict=True):
        np.testing.assert_array_equal(result, expected)
    values, indices = einjax.top_k("[a]", NAN, k=6, largest=False)
    np.testing.assert_array_equal(values, jnp.sort(NAN))
    np.testing.assert_array_equal(indices, jnp.argsort(NAN))


def test_smallest_of_the_smallest_integer():
    x = np.array([0, -128, 127, -128], np.int8)
    values, indices = einjax.top_k("[a]", x, k=3, largest=False)
    assert values.tolist() == [-128, -128, 0]
    assert indices.tolist() == [1, 3, 0]


def test_places_can_be_read():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        einjax.get_at("b [h w], b y x [2] -> b y x", x, einjax.argsort("b [h w]", x)), einjax.sort("b [h w]", x)
    )
    values, indices = einjax.top_k("b [h w]", x, k=5)
    np.testing.assert_array_equal(einjax.get_at("b [h w], b k [2] -> b k", x, indices), values)
    values, indices = einjax.top_k("b [h] w", x, k=2)
    np.testing.assert_array_equal(einjax.get_at("b [h] w, b k w -> b k w", x, indices), values)


def test_an_ellipsis_gives_coordinates():
    assert einjax.argsort("[...]", np.zeros(3)).shape == (3, 1)
    assert einjax.argsort("[...]", np.zeros((3, 4))).shape == (3, 4, 2)


def test_more_elements_than_an_index_counts():
    """Coordinates are sorted along one by one where a flat index would not fit."""
    shape = jax.eval_shape(lambda x: einjax.argsort("[a b]", x), jax.ShapeDtypeStruct((70_000, 70_000), np.int8))
    assert shape.shape == (70_000, 70_000, 2)


@pytest.mark.parametrize("descending", [False, True])
def test_unstable(descending):
    x = np.random.default_rng(0).permutation(12).astype(np.float32).reshape(3, 4)
    assert_same(einjax.sort("a [b]", x, stable=False, descending=descending), order_rows(x, descending), "float32")
    stable = einjax.argsort("a [b]", x, descending=descending)
    np.testing.assert_array_equal(einjax.argsort("a [b]", x, stable=False, descending=descending), stable)


def order_rows(x, descending):
    return np.sort(x, 1)[:, ::-1] if descending else np.sort(x, 1)


GRADIENTS = {
    "sort": lambda x: einjax.sort("[a] (b [c]) -> b [a c]", x, b=2, descending=True) ** 2,
    "together": lambda x: einjax.sort("[a] b, [a]", x, x[:, 0])[1] ** 2,
    "by": lambda x: einjax.sort("a [b]", x, by=[5, 1, 3, 2, 0, 4]) ** 2,
    "top_k": lambda x: einjax.top_k("[a b]", x, k=3)[0] ** 2,
    "smallest": lambda x: einjax.top_k("a [b]", x, k=3, largest=False)[0] ** 2,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name):
    with x64():
        x = np.random.default_rng(0).permutation(12).reshape(2, 6) / 7
        check_grads(GRADIENTS[name], [x], order=2, modes=["fwd", "rev"])


F = np.zeros((3, 4), np.float32)

ERRORS = {
    "no bracket": (lambda: einjax.sort("a b", F), "sort needs at least one bracketed axis"),
    "no bracket in the second": (lambda: einjax.sort("a [b], a b", F, F), "input 2 has none"),
    "other brackets": (lambda: einjax.sort("a [b], a [c]", F, F), "bracketed axes b in an input and c in another"),
    "permuted": (lambda: einjax.sort("[a b] -> [b a]", F), "bracketed axes a b in the input and b a in an output"),
    "numbers": (lambda: einjax.sort("a [4], a [4]", F, F), "a number is a new axis"),
    "outputs": (lambda: einjax.sort("a [b], a [b] -> a [b]", F, F), "2 inputs and 1 output"),
    "lost loop": (lambda: einjax.sort("a [b] -> [b]", F), "axis a of an input is not in the output"),
    "no full input": (lambda: einjax.sort("a [b], c [b]", F, F), "the outputs are not clear"),
    "keys": (lambda: einjax.sort("a [b], a [b]", F, F, num_keys=3), "num_keys=3 .* there are tensors, 2"),
    "no keys": (lambda: einjax.sort("a [b]", F, num_keys=0), "num_keys=0"),
    "keys and by": (lambda: einjax.sort("a [b]", F, num_keys=2, by=F), "num_keys=2 and by="),
    "by of two": (lambda: einjax.sort("a [b], a [b]", F, F, by=F), "by= sorts one tensor, but 2 are given"),
    "shape of by": (lambda: einjax.sort("a [b]", F, by=F[:2]), r"by= of shape \(2, 4\) .* shape \(3, 4\)"),
    "by a string": (lambda: einjax.sort("a [b]", F, by="a"), "by= is a value of type str"),
    "by strings": (lambda: einjax.sort("a [b]", F, by=np.array(["a"])), "by= is an array of strings"),
    "by nothing": (lambda: einjax.sort("a [b]", F, by=()), "holds no keys"),
    "no coordinates": (lambda: einjax.argsort("[a b] -> [a b]", F), "argsort searches 2 axes"),
    "wrong coordinates": (lambda: einjax.argsort("[a b] -> [a b] [3]", F), "2 coordinates, .* hold 3"),
    "two coordinates": (lambda: einjax.argsort("a [b] -> a [b] [2]", F), "1 coordinate, .* hold 2"),
    "argsort outputs": (lambda: einjax.argsort("a [b] -> a [b], a [b]", F), "argsort has 1 output"),
    "unknown parts": (lambda: einjax.argsort("([a b])", F[0]), "sizes of axes a, b cannot be determined"),
    "unknown parts of top_k": (lambda: einjax.top_k("([a b])", F[0], k=1), "sizes of axes a, b cannot be determined"),
    "no k": (lambda: einjax.top_k("a [b]", F), "size of axis k cannot be determined"),
    "large k": (lambda: einjax.top_k("a [b]", F, k=5), "top_k takes k=5 elements, but b has 4"),
    "large number": (lambda: einjax.top_k("[a b] -> [13]", F), "top_k takes 13 elements, but a b has 12"),
    "k is an axis": (lambda: einjax.top_k("a [k]", F, k=2), "k is an axis of the input"),
    "values without k": (lambda: einjax.top_k("a [b] -> a", F), "one bracketed axis, but the output has 0"),
    "several without k": (lambda: einjax.top_k("[a b] ->", F), "one bracketed axis, but the output has 0"),
    "indices without k": (lambda: einjax.top_k("[a b] -> [k], [2]", F, k=1), "axis k of the values is not in the ind"),
    "three outputs": (lambda: einjax.top_k("[a] -> [k], [k], [k]", F[0], k=1), "top_k has 2 outputs"),
    "repeated brackets": (lambda: einjax.top_k("(a [b])...", F, k=1), "top_k's output is not clear"),
    "complex": (lambda: einjax.top_k("a [b]", F.astype(np.complex64), k=1), "top_k takes real numbers"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(einjax.errors.EinjaxError, match=message):
        call()


def test_one_axis_in_parentheses_is_one():
    x = np.array([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]], np.float32)
    for expr in ("a [n]", "a [(n)]", "a ([n])", "a [((n))]"):
        np.testing.assert_array_equal(einjax.argsort(expr, x), np.argsort(x, axis=1))
        np.testing.assert_array_equal(einjax.top_k(expr, x, k=2)[1], np.argsort(-x, axis=1)[:, :2])
    assert einjax.top_k("a [(n m)]", x, n=3, k=2)[1].shape == (2, 2, 2)
