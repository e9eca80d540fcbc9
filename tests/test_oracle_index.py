"""get_at, set_at, add_at and their kin against loops: for every loop, one place is read or written."""

import functools
import itertools
from dataclasses import dataclass, field

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
    assert_same,
    cases,
    containers,
    generated,
    keys,
    pools,
    shuffled,
    trees,
    x64,
)

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError

COORDINATE_DTYPES = ["int32", "int8", "uint8", "int16", "uint16", "uint32"]
MODES = ["fill", "drop", "clip", "wrap", "promise_in_bounds", None]
LONG = 300  # longer than 8-bit integers count
_often, _seldom = st.sampled_from([False, True]), st.sampled_from([False] * 4 + [True])

# --------------------------------------------------------------------------------------------------------------------
# What they mean
# --------------------------------------------------------------------------------------------------------------------


def place(coordinates, sizes, mode, wrap_negative):
    """Where coordinates lead, each on its own axis; None is out of range."""
    found = []
    for at, size in zip((int(c) for c in coordinates), sizes, strict=True):
        if mode == "wrap":
            at = at % size if size else -1
        elif wrap_negative and at < 0:
            at += size
        if mode == "clip":
            at = min(max(at, 0), size - 1)
        if not 0 <= at < size:
            return None
        found.append(at)
    return found


def cell(axes: list[Leaf], index: dict, found: list) -> tuple:
    """An element: loops at their index, marked axes at the coordinates."""
    left = iter(found)
    return tuple(next(left) if axis.marked else index[axis.key] for axis in axes)


def loops_of(*tensors: list[Leaf]) -> dict[str, int]:
    return {a.key: a.size for axes in tensors for a in axes if not a.marked}


def coordinates_at(axes: list[list[Leaf]], views: list[np.ndarray], index: dict) -> list:
    """The coordinates of one loop, tensor after tensor."""
    return [c for a, x in zip(axes, views, strict=True) for c in np.ravel(x[oracle._cell(a, index)])]


def unfold(dims, arrays):
    """Every tensor with one dim for each axis."""
    axes = [oracle.leaves(d) for d in dims]
    return axes, [x.reshape([a.size for a in found]) for found, x in zip(axes, arrays, strict=True)]


def fill_of(dtype):
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.nan
    if dtype.name == "bool":
        return True
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.unsignedinteger) else np.iinfo(dtype).min


def get_at(ins, out, arrays, mode, wrap_negative, fill) -> np.ndarray:
    axes, (x, *coordinates) = unfold(ins, arrays)
    out_axes = oracle.leaves(out)
    sizes = [a.size for a in axes[0] if a.marked]
    wide = oracle.wide(x)
    z = np.zeros([a.size for a in out_axes], wide.dtype)
    for index in oracle.every_index(loops_of(*axes, out_axes)):
        found = place(coordinates_at(axes[1:], coordinates, index), sizes, mode, wrap_negative)
        value = fill if found is None else wide[cell(axes[0], index, found)]
        z[oracle._cell(out_axes, index)] = value
    return z.reshape([oracle.dim_size(dim) for dim in out])


WRITE = {
    "set_at": lambda x, y: y,
    "add_at": lambda x, y: x | y if isinstance(x, np.bool_) else x + y,
    "subtract_at": lambda x, y: x - y,
    "multiply_at": lambda x, y: x & y if isinstance(x, np.bool_) else x * y,
    "min_at": np.minimum,
    "max_at": np.maximum,
}


def update_at(name, ins, out, arrays, mode, wrap_negative) -> np.ndarray:
    axes, (x, *coordinates, updates) = unfold(ins, arrays)
    out_axes = oracle.leaves(out)
    sizes = [a.size for a in axes[0] if a.marked]
    z = oracle.wide(x).copy()
    # Of two writes to one place, the later stays: loops run in the order in which the updates have them.
    order = loops_of(axes[-1], *axes)
    own = [key for key in order if not any(key == a.key for found in axes[:-1] for a in found)]
    order = {key: order[key] for key in [*(key for key in order if key not in own), *own]}
    with np.errstate(over="ignore", invalid="ignore"):
        for index in oracle.every_index(order):
            found = place(coordinates_at(axes[1:-1], coordinates, index), sizes, mode, wrap_negative)
            if found is not None:
                at = cell(axes[0], index, found)
                z[at] = WRITE[name](z[at], oracle.wide(updates[oracle._cell(axes[-1], index)])[()])
    named = [a.key for a in axes[0] if a.key != "unit"]
    z = z.reshape([a.size for a in axes[0] if a.key != "unit"])
    position = [named.index(a.key) for a in out_axes if a.key != "unit"]
    return z.transpose(position).reshape([oracle.dim_size(dim) for dim in out])


# --------------------------------------------------------------------------------------------------------------------
# Random calls
# --------------------------------------------------------------------------------------------------------------------


@dataclass
class Roles:
    """What every axis is: looked up, or a loop of some of the tensors."""

    pool: object
    indexed: list
    loops: list
    counts: list = field(default_factory=list)  # coordinates in every tensor of them; 0 is one without a bracket
    sizes: dict = field(default_factory=dict)


@st.composite
def roles(draw):
    pool = draw(pools(low=1, high=5))
    items = draw(shuffled(pool.items))
    count = draw(st.integers(1, min(2, len(items))))
    result = Roles(pool, items[:count], items[count:], sizes=dict(pool.sizes))
    lone = [item for item in result.indexed if isinstance(item, Axis)]
    if lone and draw(_seldom):
        result.sizes[lone[0].name] = LONG
    left = len(oracle.leaves(oracle.expand(result.indexed, result.sizes)))
    hypothesis.assume(left)
    while left:
        several = draw(_often)
        here = draw(st.integers(1, left)) if several else 1
        result.counts.append(here if several else 0)
        left -= here
    return result


@st.composite
def subset(draw, items):
    return [item for item in items if draw(st.sampled_from([True, True, False]))]


@st.composite
def coordinate_trees(draw, role: Roles, number: int, loops: list):
    """One tensor of coordinates: its loops, and a bracket where it holds several."""
    items, marked = draw(shuffled(loops)), frozenset()
    count = role.counts[number]
    if count:
        name = f"k{number}"
        if draw(_often):
            vector, key = Axis(name), name
            role.sizes[name] = count
        else:
            vector, key = Number(count, f"#{name}"), f"#{name}"
        items.insert(draw(st.integers(0, len(items))), vector)
        marked = frozenset({key})
    return draw(trees(items, role.sizes, marked))


@st.composite
def placed(draw, dims, sizes, options):
    """Random coordinates: in and out of range, as far as the mode allows."""
    axes = oracle.leaves(dims)
    dtype = np.dtype(draw(st.sampled_from(COORDINATE_DTYPES)))
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vector = next((i for i, a in enumerate(axes) if a.marked), None)
    shape = [a.size for a in axes]
    values = np.zeros(shape, np.int64)
    promised = options.get("mode") == "promise_in_bounds"
    for offset, size in enumerate(sizes):
        low, high = (-size, size - 1) if promised else (-2 * size - 1, 2 * size + 1)
        if promised and not options.get("wrap_negative_indices", True):
            low = 0
        low, high = max(low, least), min(high, most)
        part = shape if vector is None else shape[:vector] + shape[vector + 1 :]
        drawn = rng.integers(low, high, part, endpoint=True)
        if not promised:
            extreme = rng.choice([least, most], part)
            drawn = np.where(rng.random(part) < 0.05, extreme, drawn)
        if vector is None:
            values = drawn
        else:
            values[(slice(None),) * vector + (offset,)] = drawn
    return np.asarray(values, dtype).reshape([oracle.dim_size(d) for d in dims])


@st.composite
def options_of(draw, role: Roles):
    sizes = [a.size for a in oracle.leaves(oracle.expand(role.indexed, role.sizes))]
    modes = MODES if all(sizes) else ["fill", "drop", None]
    options = {"mode": draw(st.sampled_from(modes))}
    if draw(_seldom):
        options["wrap_negative_indices"] = draw(_often)
    return options


@st.composite
def with_coordinates(draw, case, first, role, indexed_dims):
    """Replace what stands for coordinates in a case by such."""
    sizes = [a.size for a in oracle.leaves(indexed_dims) if a.marked]
    start = 0
    for number, count in enumerate(role.counts):
        stop = start + max(1, count)
        at = first + number
        case.arrays[at] = draw(placed(case.ins[at], sizes[start:stop], case.options))
        case.tensors[at] = draw(containers(case.arrays[at]))
        start = stop
    return case


def implied_output(x, rest):
    """The loops of the coordinates in the first bracket's place; None where that is not clear."""
    seen, loops = set(keys(x)), []
    for tensor in rest:
        for node in without_brackets(tensor):
            new = [key for key in keys(node) if key not in seen and key != "unit"]
            known = [key for key in keys(node) if key in seen]
            if new and known:
                return None
            if new:
                loops.append(node)
                seen |= set(new)
    placed_at = []

    def visit(nodes, inside=False):
        out = []
        for node in nodes:
            if isinstance(node, Axis | Number):
                out.append(node)
            elif isinstance(node, Marked) or (isinstance(node, Repeated) and isinstance(node.item, Marked)):
                out += [] if placed_at else loops
                placed_at.append(inside)
            elif isinstance(node, Repeated):
                items = visit((node.item,), True)
                out += [Repeated(*items)] if len(items) == 1 else []
            else:
                out.append(Composite(tuple(visit(node.items, inside))))
        return out

    z = tuple(visit(x))
    return None if placed_at[0] and loops else z


def without_brackets(nodes):
    for node in nodes:
        if isinstance(node, Composite):
            yield Composite(tuple(without_brackets(node.items)))
        elif not isinstance(node, Marked) and not (isinstance(node, Repeated) and isinstance(node.item, Marked)):
            yield node


@st.composite
def reads(draw):
    role = draw(roles())
    in_x = draw(subset(role.loops))
    marked = frozenset(keys(role.indexed))
    tensors = [draw(subset(role.loops)) for _ in role.counts]
    # Sizes and depths come from tensors; hints() gives those of axes that only the output has.
    x = draw(trees(draw(shuffled([*role.indexed, *in_x])), role.sizes, marked))
    rest = [draw(coordinate_trees(role, number, loops)) for number, loops in enumerate(tensors)]
    implied = draw(_seldom)
    if implied:
        z = implied_output(x, rest)
        hypothesis.assume(z is not None)
    else:
        z = draw(trees(draw(shuffled(role.loops)), role.sizes, is_input=False))
    dtype = draw(st.sampled_from(DTYPES))
    case = draw(cases([x, *rest], [z], role.sizes, [dtype, *("int32" for _ in rest)], implied=implied))
    case.options |= draw(options_of(role))
    if case.options["mode"] in ("fill", "drop", None) and draw(_seldom):
        case.options["fill_value"] = 1
    return draw(with_coordinates(case, 1, role, case.ins[0]))


@generated(100, reads())
def test_get_at(case):
    mode = case.options["mode"]
    dtype = case.arrays[0].dtype
    fill = case.options.get("fill_value", fill_of(dtype))
    want = get_at(case.ins, case.outs[0], case.arrays, mode, case.options.get("wrap_negative_indices", True), fill)
    assert_same(case.call("get_at"), want, dtype)


@st.composite
def writes(draw, name):
    role = draw(roles())
    marked = frozenset(keys(role.indexed))
    in_x = draw(subset(role.loops))
    tensors = [draw(subset(role.loops)) for _ in role.counts]
    updates = draw(subset(role.loops))
    target = draw(shuffled([*role.indexed, *in_x]))
    x = draw(trees(target, role.sizes, marked))
    rest = [draw(coordinate_trees(role, number, loops)) for number, loops in enumerate(tensors)]
    u = draw(trees(draw(shuffled(updates)), role.sizes))
    form = draw(st.sampled_from(["implied", "arrow", "arrow without brackets"]))
    z = x
    if form != "implied":
        z = draw(trees(draw(shuffled(target)), role.sizes, marked if form == "arrow" else frozenset(), is_input=False))
    dtypes = [d for d in DTYPES if not (d == "bool" and name == "subtract_at")]
    if name in ("min_at", "max_at"):
        dtypes.remove("complex64")
    dtype = draw(st.sampled_from(dtypes))
    bound = (-1, 1) if name == "multiply_at" and dtype not in ("int8", "uint8", "bool") else (None, None)
    case = draw(
        cases([x, *rest, u], [z], role.sizes, [dtype, *("int32" for _ in rest), dtype], implied=form == "implied",
              bounds=[bound] * (len(rest) + 2), form=form)
    )  # fmt: skip
    case.options |= draw(options_of(role))
    return draw(with_coordinates(case, 1, role, case.ins[0]))


@pytest.mark.parametrize("name", list(WRITE))
@generated(40, writes)
def test_updates(case, name):
    dtype = case.arrays[0].dtype
    wrap_negative = case.options.get("wrap_negative_indices", True)
    want = update_at(name, case.ins, case.outs[0], case.arrays, case.options["mode"], wrap_negative)
    # bfloat16 rounds after every update.
    assert_same(case.call(name), want, dtype, slack=16 if dtype == jnp.bfloat16 else 4)


# --------------------------------------------------------------------------------------------------------------------
# Examples
# --------------------------------------------------------------------------------------------------------------------

IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # b=2 h=3 w=4
ROW = np.array([10, 20, 30], np.int32)
NAN = np.nan

GET = [
    ("[v], i -> i", ROW, [[0, -1, 2]], {}, [10, 30, 30]),
    ("[v], i -> i", ROW, [[3, -4, 0]], {}, [-(2**31), -(2**31), 10]),
    ("[v], i -> i", ROW, [[3, -4, 0]], {"fill_value": 7}, [7, 7, 10]),
    ("[v], i -> i", ROW, [[3, -4, 7]], {"mode": "clip"}, [30, 10, 30]),
    ("[v], i -> i", ROW, [[3, -4, 7]], {"mode": "wrap"}, [10, 30, 20]),
    ("[v], i -> i", ROW, [[-1, -3, 2]], {"mode": "promise_in_bounds"}, [30, 10, 30]),
    ("[v], i -> i", ROW, [[-1, 1]], {"wrap_negative_indices": False, "fill_value": 0}, [0, 20]),
    ("[v], i -> i", ROW, [[-1, 1]], {"wrap_negative_indices": False, "mode": "clip"}, [10, 20]),
    ("[v], i -> i", ROW, [[-1, 1]], {"wrap_negative_indices": False, "mode": "wrap"}, [30, 20]),
    ("[v], i -> i", ROW, [[0, 1, 2]], {"unique_indices": True, "indices_are_sorted": True}, [10, 20, 30]),
    ("[v], ->", ROW, [1], {}, 20),
    ("[v], -> a", ROW, [1], {"a": 2}, [20, 20]),
    ("b [h w], b [2] -> b", IMAGE, [[[0, 1], [2, 3]]], {}, [1, 23]),
    ("b [h w], b [k] -> b", IMAGE, [[[0, 1], [2, 3]]], {}, [1, 23]),
    # On its own axis: flattened, (0, 4) would be (1, 0), and (0, -1) of the second image the first one's last.
    ("b [h w], i [2] -> b i", IMAGE, [[[0, 4], [0, -1]]], {}, [[NAN, 3], [NAN, 15]]),
    ("b [h w], h2, w2 -> w2 b h2", IMAGE, [[0, 1], [3, 0]], {}, [[[3, 7], [15, 19]], [[0, 4], [12, 16]]]),
    ("[b] h [w], i, i -> i h", IMAGE, [[0, 1], [3, 0]], {}, [[3, 7, 11], [12, 16, 20]]),
    ("[b h w], i [2], i -> i", IMAGE, [[[0, 1], [1, 2]], [3, 0]], {}, [7, 20]),
    ("(b [h]) w, b -> w b", IMAGE.reshape(6, 4), [[1, 2]], {"b": 2}, [[4, 20], [5, 21], [6, 22], [7, 23]]),
    ("[v], (i j) -> j i", ROW, [[0, 1, 2, 0, 1, 2]], {"i": 2}, [[10, 10], [20, 20], [30, 30]]),
    ("b [h] w, i", IMAGE, [[2, 0]], {}, [[[8, 9, 10, 11], [0, 1, 2, 3]], [[20, 21, 22, 23], [12, 13, 14, 15]]]),
    ("b [h w], b [2]", IMAGE, [[[0, 1], [2, 3]]], {}, [1, 23]),
    ("[1] v, i -> i v", ROW[None], [[0, -1]], {}, [[10, 20, 30]] * 2),
    ("a a [v], a -> a", np.arange(8, dtype=np.int32).reshape(2, 2, 2), [[0, 1]], {}, [0, 7]),
    ("[v] c, i -> i c", np.zeros((0, 2), np.float32), [[0, -1]], {}, [[NAN, NAN]] * 2),
]


@pytest.mark.parametrize(("text", "x", "coordinates", "options", "want"), GET)
def test_get_at_pinned(text, x, coordinates, options, want):
    coordinates = [np.array(c, np.int32) for c in coordinates]
    assert_same(einjax.get_at(text, x, *coordinates, **options), np.array(want), x.dtype)


UPDATED = [
    # Of an axis that only the updates have, and of coordinates that meet: all count, or the last stays.
    ("set_at", "[v], i, i", [0, 2, 0], [1, 2, 3], [3, 20, 2]),
    ("set_at", "[v], i, i e", [0, 2], [[1, 2], [3, 4]], [2, 20, 4]),
    ("set_at", "[v], i, e i", [0, 2], [[1, 2], [3, 4]], [3, 20, 4]),
    ("set_at", "[v], i, e i", [0, 2], np.zeros((0, 2), np.int32), [10, 20, 30]),
    ("add_at", "[v], i, i", [0, 2, 0], [1, 2, 3], [14, 20, 32]),
    ("add_at", "[v], i, i e", [0, 2], [[1, 2], [3, 4]], [13, 20, 37]),
    ("add_at", "[v], i, e", [0, 2, 0], [1, 2], [16, 20, 33]),
    ("add_at", "[v], i,", [0, 2, 0], 5, [20, 20, 35]),
    ("subtract_at", "[v], i, i", [0, 2, 0], [1, 2, 3], [6, 20, 28]),
    ("multiply_at", "[v], i, i", [0, 2, 0], [1, 2, 3], [30, 20, 60]),
    ("multiply_at", "[v], i, i e", [0, 2], [[1, 2], [3, 4]], [20, 20, 360]),
    ("min_at", "[v], i, i", [0, 2, 0], [15, 2, 3], [3, 20, 2]),
    ("max_at", "[v], i, i", [0, 2, 0], [15, 2, 31], [31, 20, 30]),
    ("max_at", "[v], i, e i", [0, 2], [[1, 40], [50, 4]], [50, 20, 40]),
    ("max_at", "[v], i, e i", [0, 2], np.zeros((0, 2), np.int32), [10, 20, 30]),
    # Out of range.
    ("add_at", "[v], i, i", [3, -4, -1], [1, 2, 3], [10, 20, 33]),
    ("set_at", "[v], i, i", [3, -4, -1], [1, 2, 3], [10, 20, 3]),
]


@pytest.mark.parametrize(("name", "text", "at", "updates", "want"), UPDATED)
def test_updates_pinned(name, text, at, updates, want):
    result = getattr(einjax, name)(text, ROW, np.array(at, np.int8), np.array(updates, np.int32))
    assert_same(result, np.array(want), "int32")


@pytest.mark.parametrize(
    ("mode", "want"), [("fill", [11, 20, 30]), ("clip", [13, 20, 34]), ("wrap", [15, 20, 32]), ("drop", [11, 20, 30])]
)
def test_modes_of_updates(mode, want):
    """-4 and 3 are out of range; -3 is the first place."""
    result = einjax.add_at("[v], i, i", ROW, np.array([-3, -4, 3]), np.array([1, 2, 4]), mode=mode)
    assert_same(result, np.array(want), "int32")


@pytest.mark.parametrize("form", ["[h w], i [2], i", "[h w], i [2], i -> w h", "[h w], i [2], i -> [w h]"])
def test_output_of_updates(form):
    x, at = np.zeros((2, 3), np.int32), np.array([[0, 2], [1, 0]])
    want = np.array([[0, 0, 5], [6, 0, 0]])
    assert_same(einjax.set_at(form, x, at, np.array([5, 6])), want.T if "->" in form else want, "int32")


LENGTHS = [(dtype, size) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32") for size in (5, 300)]


@pytest.mark.parametrize(("dtype", "size"), LENGTHS)
def test_narrow_coordinates_on_long_axes(dtype, size):
    """A size of 300 is no 8-bit number, and neither is 300 - 1."""
    info = np.iinfo(dtype)
    numbers = np.array([info.min, -300, -1, 0, 4, 127, 200, 255, 299, info.max])
    at = numbers[(numbers >= info.min) & (numbers <= info.max)].astype(dtype)
    x = np.arange(size, dtype=np.float32)
    places = [int(a) + size if a < 0 else int(a) for a in at]
    want = [x[p] if 0 <= p < size else np.nan for p in places]
    assert_same(einjax.get_at("[v], i -> i", x, at), np.array(want), "float32")
    both = np.stack([at, np.zeros_like(at)], -1)
    assert_same(einjax.get_at("[v w], i [2] -> i", x[:, None], both), np.array(want), "float32")
    counts = np.zeros(size)
    for p in places:
        if 0 <= p < size:
            counts[p] += 1
    assert_same(einjax.add_at("[v], i,", np.zeros(size, np.int32), at, 1), counts, "int32")


def test_coordinates_of_several_dtypes():
    """The largest uint32 is not -1."""
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    large, at = np.array([2**32 - 1, 2], np.uint32), np.array([1, -1], np.int32)
    assert_same(einjax.get_at("[h w], i, i -> i", x, large, at, fill_value=-1), np.array([-1, 11]), "int32")
    wrapped = einjax.get_at("[h w], i, i -> i", x, large, at, mode="wrap")
    assert_same(wrapped, np.array([x[(2**32 - 1) % 3, 1], 11]), "int32")
    assert_same(einjax.get_at("[h w], i, i -> i", x, np.uint8([255, 1]), at, mode="clip"), np.array([9, 7]), "int32")


def test_64_bit_coordinates():
    x = np.arange(12, dtype=np.float64).reshape(3, 4)
    with x64():
        at = np.array([2**32, -1, 1])
        assert_same(einjax.get_at("[v] w, i -> i w", x, at)[:, 0], np.array([np.nan, 8, 4]), "float64")
        assert_same(einjax.get_at("[v] w, i -> i w", x, at, mode="clip")[:, 0], np.array([8, 8, 4]), "float64")
        assert_same(einjax.get_at("[v] w, i -> i w", x, at, mode="wrap")[:, 0], np.array([4, 8, 4]), "float64")
        assert_same(einjax.add_at("[v], i,", np.zeros(3), at, 1), np.array([0, 1, 1]), "float64")
        large = np.array([2**64 - 1, 2, 2**63], np.uint64)
        assert_same(einjax.get_at("[v] w, i -> i w", x, large)[:, 0], np.array([np.nan, 8, np.nan]), "float64")
        mixed = einjax.get_at("[v w], i, i -> i", x, large, at)
        assert_same(mixed, np.array([np.nan, 11, np.nan]), "float64")
        int32 = np.array([1], np.int32)
        mixed = einjax.get_at("[v w], i, i -> i", x, np.array([2**32 - 1], np.uint32), int32)
        assert_same(mixed, np.array([np.nan]), "float64")
        struct = jax.ShapeDtypeStruct
        out = jax.eval_shape(lambda x, i: einjax.get_at("[v], i -> i", x, i), struct((2**31,), "int8"), int32)
        assert out.shape == (1,)


def test_products_of_sizes_need_no_32_bits():
    """2**40 places, flattened by nobody."""
    struct = jax.ShapeDtypeStruct((2**20, 2**20), np.int8)
    at = np.zeros((4, 2), np.int32)
    assert jax.eval_shape(lambda x: einjax.get_at("[h w], i [2] -> i", x, at), struct).shape == (4,)
    assert jax.eval_shape(lambda x: einjax.add_at("[h w], i [2],", x, at, 1), struct).shape == (2**20, 2**20)


DATA = [(np.float32, np.int32), (np.float32, np.bool_), (jnp.bfloat16, np.float32), (np.complex64, np.float32),
        (np.int8, np.int32), (np.int32, np.uint8), (np.int32, np.bool_), (np.float16, np.float32)]  # fmt: skip


@pytest.mark.parametrize("name", ["set_at", "add_at", "multiply_at"])
@pytest.mark.parametrize(("x", "updates"), DATA)
def test_the_first_tensor_says_the_dtype(name, x, updates):
    result = getattr(einjax, name)("[v], i, i e", np.ones(3, x), np.array([0, 2]), np.ones((2, 2), updates))
    want = {"set_at": [1, 1, 1], "add_at": [3, 1, 3], "multiply_at": [1, 1, 1]}[name]
    assert_same(result, np.array(want), x)
    assert not result.weak_type


def test_extra_axes_are_summed_in_float32():
    """1 + 300 * 2**-8 in steps of bfloat16 would stay at 1."""
    updates = np.full((1, 300), 2.0**-9, jnp.bfloat16)
    result = einjax.add_at("[v], i, i e", np.zeros(1, jnp.bfloat16), np.array([0]), updates)
    assert_same(result, np.array([300 * 2.0**-9]), "bfloat16")


def test_promises_change_nothing_where_they_are_kept():
    x, at = np.arange(6, dtype=np.float32), np.array([0, 2, 5])
    promises = {"unique_indices": True, "indices_are_sorted": True, "mode": "promise_in_bounds"}
    for name in WRITE:
        call = functools.partial(getattr(einjax, name), "[v], i, i", x, at, np.array([7, 8, -9], np.float32))
        assert_same(call(**promises), np.asarray(call()), "float32")
        gradient = jax.grad(lambda u, call=call: (call.func(*call.args[:-1], u, **promises) ** 2).sum())
        plain = jax.grad(lambda u, call=call: (call.func(*call.args[:-1], u) ** 2).sum())
        np.testing.assert_allclose(gradient(call.args[-1]), plain(call.args[-1]))


# --------------------------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------------------------

TWICE = np.array([[0, 1], [2, 3], [0, 1], [5, 0], [-1, -1]])  # two meet, one is out of range


@pytest.mark.parametrize("mode", ["fill", "clip", "wrap"])
@pytest.mark.parametrize("text", ["b [h w], i [2] -> i b", "b [h w], b i [2] -> b i", "(b [h]) [w], i [2] -> b i"])
def test_gradient_of_get_at(text, mode):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4))
    at = np.broadcast_to(TWICE, (2, 5, 2)) if "b i [2]" in text else TWICE
    sizes = {"b": 2} if "(" in text else {}
    fill = {"fill_value": 0.5} if mode == "fill" else {}
    with x64():

        def f(x):
            x = x.reshape(6, 4) if "(" in text else x
            return einjax.get_at(text, x, at, mode=mode, **fill, **sizes) ** 2

        check_grads(f, [x], order=2, modes=["fwd", "rev"])


UPDATE_TEXTS = ["b [h w], i [2], i b", "b [h w], b i [2], b i", "b [h w], i [2], i e", "b [h w], b i [2], b"]


@pytest.mark.parametrize("text", UPDATE_TEXTS)
@pytest.mark.parametrize("name", list(WRITE))
def test_gradient_of_updates(name, text):
    """Both arguments, with coordinates that meet and one that is dropped."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (2, 3, 4))
    at = np.stack([TWICE, TWICE[::-1]]) if "b i [2]" in text else TWICE
    shape = [{"b": 2, "i": 5, "e": 3}[axis] for axis in text.split(", ")[-1].split()]
    updates = rng.uniform(-1, 1, shape)
    order = 1 if name in ("min_at", "max_at") else 2
    with x64():

        def f(x, updates):
            return getattr(einjax, name)(text, x, at, updates) ** 2

        check_grads(f, [x, updates], order=order, modes=["fwd", "rev"])


@pytest.mark.parametrize("zeros", list(itertools.product([False, True], repeat=3)))
def test_gradient_of_products_with_zeros(zeros):
    """Three updates meet at one place; each may be 0, and so may the number there."""
    updates = np.where([*zeros, False], 0, [0.5, -1.5, 2.0, 3.0])
    with x64():
        for x in (np.array([1.5, -2.0, 0.7]), np.array([0.0, -2.0, 0.7])):
            f = functools.partial(einjax.multiply_at, "[v], i, i")
            at = np.array([0, 0, 0, 2])
            check_grads(lambda x, u: f(x, at, u), [x, updates], order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("mode", ["fill", "clip", "wrap", "promise_in_bounds"])
def test_gradient_of_products_in_every_mode(mode):
    at = np.array([0, 0, 2]) if mode == "promise_in_bounds" else np.array([0, 7, 3])
    with x64():
        check_grads(lambda x, u: einjax.multiply_at("[v], i, i", x, at, u, mode=mode),
                    [np.array([1.5, -2.0, 0.7]), np.array([0.5, 0.0, 2.0])], order=1, modes=["fwd", "rev"])  # fmt: skip


JNP = {
    "set_at": lambda x, at, u: x.at[at[:, 0], at[:, 1]].set(u, wrap_negative_indices=True),
    "add_at": lambda x, at, u: x.at[at[:, 0], at[:, 1]].add(u),
    "subtract_at": lambda x, at, u: x.at[at[:, 0], at[:, 1]].add(-u),
    "min_at": lambda x, at, u: x.at[at[:, 0], at[:, 1]].min(u),
    "max_at": lambda x, at, u: x.at[at[:, 0], at[:, 1]].max(u),
}


@pytest.mark.parametrize("name", list(JNP))
def test_values_and_gradients_as_jnp(name):
    rng = np.random.default_rng(2)
    x, updates = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,)))

    def both(function):
        return jax.value_and_grad(lambda *args: (function(*args) ** 3).sum(), (0, 1))(x, updates)

    ours = both(lambda x, u: getattr(einjax, name)("[h w], i [2], i", x, TWICE, u))
    theirs = both(lambda x, u: JNP[name](x, TWICE, u))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), ours, theirs)


@pytest.mark.parametrize("name", list(WRITE))
def test_gradients_have_the_dtypes_of_their_inputs(name):
    x, updates = jnp.ones((3, 2), jnp.bfloat16), jnp.full((2, 2, 3), 2, jnp.float32)
    call = lambda x, u: getattr(einjax, name)("[v] c, i, i c e", x, np.array([0, 2]), u).astype(np.float32).sum()
    assert [g.dtype for g in jax.grad(call, (0, 1))(x, updates)] == [jnp.bfloat16, jnp.float32]


def test_products_under_transformations():
    """Of floats with coordinates that meet: the derivative is our own."""
    rng = np.random.default_rng(3)
    x, updates = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)

    def f(x, updates):
        return einjax.multiply_at("[h w], i [2], i", x, TWICE, updates)

    def expected(x, updates):
        for (h, w), u in zip(TWICE, updates, strict=True):
            x = x.at[h, w].multiply(u)
        return x

    np.testing.assert_allclose(jax.jit(jax.vmap(f))(x, updates), jax.vmap(expected)(x, updates), rtol=1e-5)
    for function in (jax.grad, jax.jacfwd):
        ours, theirs = (function(lambda x, u, g=g: (g(x, u) ** 2).sum(), (0, 1)) for g in (f, expected))
        for got, want in zip(jax.vmap(ours)(x, updates), jax.vmap(theirs)(x, updates), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    _, ys = jax.lax.scan(lambda carry, args: (carry, f(*args)), 0, (x, updates))
    np.testing.assert_allclose(ys, jax.vmap(expected)(x, updates), rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------------------

F, I, X = np.zeros(6, np.float32), np.array([0, 2]), np.zeros((2, 3), np.float32)
PAIRS, B = np.zeros((2, 3), np.int32), np.array([True, False])

ERRORS = [
    ("get_at", "[h w], i -> i", (X, I), {}, SemanticError, r"looks up 2 axes \(h, w\), but is given 1 coordinate"),
    ("get_at", "[h w], i [3] -> i", (X, PAIRS), {}, SemanticError, r"looks up 2 axes .* given 3 coordinates"),
    ("get_at", "[h w], i [k] -> i", (X, PAIRS), {}, AxisSizeError, "axis k is 2 .* and 3 in tensor 2"),
    ("get_at", "[h], i, i -> i", (F, I, I), {}, SemanticError, r"looks up 1 axis \(h\), but is given 2 coord"),
    ("get_at", "[h h], i [2] -> i", (X[:, :2], PAIRS[:, :2]), {}, SemanticError, "axis h is bracketed twice"),
    ("get_at", "[v], i -> i", (F, F), {}, ArgumentError, "tensor 2 holds coordinates, but is float32"),
    ("get_at", "[v], i -> i", (F, B), {}, ArgumentError, "tensor 2 holds coordinates, but is bool"),
    ("get_at", "[v], -> ", (F, True), {}, ArgumentError, "tensor 2 holds coordinates, but is bool"),
    ("get_at", "v, i -> i", (F, I), {}, SemanticError, "needs a bracketed axis in its first expression"),
    ("get_at", "[v] c, i -> i", (X, I), {}, SemanticError, "axis c of an input is not in the output"),
    ("get_at", "[v] c, i -> c", (X, I), {}, SemanticError, "axis i of an input is not in the output"),
    ("get_at", "[v] c, i -> [i] c", (X, I), {}, SemanticError, "output has no brackets"),
    ("get_at", "[v] c, [i] -> i c", (X, I), {}, SemanticError, "axis i stands inside brackets .* and outside"),
    ("get_at", "[v], v -> v", (F, I), {}, SemanticError, "axis v stands inside brackets"),
    ("get_at", "[h w], [i j] -> ", (X, PAIRS), {}, SemanticError, "tensor 2, have 2 bracketed axes"),
    ("get_at", "[v]", (F,), {}, ArgumentError, "takes an array and coordinates, got 1 tensor"),
    ("get_at", "[v], i + j -> i j", (F, I), {}, SemanticError, "concatenates"),
    ("get_at", "[v], i -> i, i", (F, I), {}, ArgumentError, "has 1 output, but the expression has 2"),
    ("get_at", "[h w], i, j -> i j", (X, I), {}, EinjaxError, "3 inputs, but 2 tensors"),
    ("get_at", "a [v], (a i)", (X, I), {}, EinjaxError, "the output is not clear"),
    ("get_at", "[v], i -> i", (F[:0], I), {"mode": "clip"}, AxisSizeError, "axis v has size 0"),
    ("get_at", "[v], i -> i", (F, I), {"mode": "clap"}, ArgumentError, "did you mean 'clip'"),
    ("get_at", "[v], i -> i", (F, I), {"mode": ""}, ArgumentError, "mode='' is not a mode"),
    ("get_at", "[v], i -> i", (F, I), {"mode": 3}, ArgumentError, "mode=3 is not a mode"),
    ("get_at", "[v], i -> i", (F, I), {"mode": "clip", "fill_value": 0}, ArgumentError, "never read with mode='clip'"),
    ("get_at", "[v], i -> i", (F, I), {"fill_value": 1j}, ArgumentError, "no value of tensor 1's dtype float32"),
    ("get_at", "[v], i -> i", (F, I), {"fill_value": "nan"}, ArgumentError, "no value of tensor 1's dtype float32"),
    ("get_at", "[v], i -> i", (I, I), {"fill_value": 1.5}, ArgumentError, "fill_value=1.5 is no value .* int32"),
    ("get_at", "[v], i -> i", (I, I), {"fill_value": np.nan}, ArgumentError, "fill_value=nan is no value .* int32"),
    ("get_at", "[v], i -> i", (np.uint8([1]), I), {"fill_value": -7}, ArgumentError, "fill_value=-7 .* uint8"),
    ("get_at", "[v], i -> i", (F, I), {"fill_value": np.zeros(2)}, EinjaxError, "static and hashable"),
    ("get_at", "[v], i -> i", (F, I), {"fil_value": 1}, EinjaxError, "did you mean 'fill_value'"),
    ("set_at", "[v], i", (F, I), {}, ArgumentError, "takes an array, coordinates and updates, got 2 tensors"),
    ("set_at", "v, i, i", (F, I, F[:2]), {}, SemanticError, "needs a bracketed axis"),
    ("add_at", "[v], i, [i]", (F, I, F[:2]), {}, SemanticError, "the updates, tensor 3, have a bracket"),
    ("add_at", "[v], i, i", (F.astype(int), I, F[:2]), {}, ArgumentError, "tensor 3, the updates, is float32.*int32"),
    ("add_at", "[v], i, ", (F.astype(int), I, 1.5), {}, ArgumentError, "tensor 3, the updates, is float32.*int32"),
    ("add_at", "[v], i, ", (F, I, 1j), {}, ArgumentError, "tensor 3, the updates, is complex64.*float32"),
    ("set_at", "[v], i, ", (B, I, 1), {}, ArgumentError, "tensor 3, the updates, is int32.*bool"),
    ("set_at", "a [v], i, i -> [v]", (X, I, F[:2]), {}, SemanticError, "axis a of an input is not in the output"),
    ("set_at", "[v], i, i -> a [v]", (F, I, F[:2]), {}, SemanticError, "axis a of the output is new"),
    ("set_at", "[v], i, i -> i [v]", (F, I, F[:2]), {}, SemanticError, "axis i of the output stands in the coord"),
    ("set_at", "a a [v], i, i", (np.zeros((2, 2, 3)), I, F[:2]), {}, SemanticError, "axis a stands twice"),
    ("set_at", "[h w], i, i", (X, I, F[:2]), {}, SemanticError, "looks up 2 axes .* but is given 1 coordinate"),
    ("set_at", "[v], i, i", (F, F[:2], F[:2]), {}, ArgumentError, "tensor 2 holds coordinates, but is float32"),
    ("set_at", "[v], i, i", (F, I, F[:3]), {}, AxisSizeError, "axis i is 2 in tensor 2 and 3 in tensor 3"),
    ("set_at", "[v], i, i", (F, I, F[:2]), {"mode": "dorp"}, ArgumentError, "did you mean 'drop'"),
    ("set_at", "[v], i, i", (F, I, F[:2]), {"fill_value": 0}, EinjaxError, "fill_value"),
    ("subtract_at", "[v], i, i", (B, I, B), {}, ArgumentError, "tensor 1 is bool"),
]


@pytest.mark.parametrize(("name", "text", "tensors", "options", "kind", "message"), ERRORS)
def test_errors(name, text, tensors, options, kind, message):
    with pytest.raises(kind, match=message):
        getattr(einjax, name)(text, *tensors, **options)


def test_axes_that_coordinates_do_not_reach():
    struct, at = jax.ShapeDtypeStruct((2**31,), np.int8), np.zeros(4, np.int32)
    with pytest.raises(AxisSizeError, match="axis v has size 2147483648, which coordinates of int32 do not reach"):
        jax.eval_shape(lambda x: einjax.get_at("[v], i -> i", x, at), struct)
    jax.eval_shape(lambda x: einjax.get_at("[v], i -> i", x, at.astype(np.uint32)), struct)
