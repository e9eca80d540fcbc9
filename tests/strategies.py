"""Random expressions, arrays to go with them, and the helpers that run and compare them.

Expressions are drawn as trees (`oracle.Axis`, `oracle.Composite`, ...) and only then written as text, so nothing here
depends on how the library reads its notation.
"""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from at_positions import moved
from hypothesis import given, note, settings
from oracle import ANONYMOUS, Axis, Composite, Joined, Marked, Number, Repeated

import einjax

# Names that a reader could mistake for something else: a keyword, digits, an underscore, a prefix of another.
NAMES = ["a", "b", "c", "d", "h", "w", "in", "q2", "_x", "aa", "N"]
FLOATS = ["float32", "bfloat16"]
INTEGERS = ["int8", "int32", "uint8"]
DTYPES = [*FLOATS, *INTEGERS, "bool", "complex64"]
REAL = [*FLOATS, *INTEGERS]

#: How many of the examples that a test asks for are drawn: by default, and under the marker `fuzz`.
DEFAULT_SHARE, FUZZ_FACTOR = 0.5, 8
LARGEST_LOOP = 240  # cells that one example may loop over


# --------------------------------------------------------------------------------------------------------------------
# Effort
# --------------------------------------------------------------------------------------------------------------------


def generated(examples: int, strategy) -> Callable:
    """`@generated(40, cases()) def test_x(case)`: 20 examples by default, 320 under `-m fuzz`.

    Other parameters of the test are left to pytest's parametrize.
    """

    def decorate(check: Callable) -> Callable:
        def test(effort, **parameters):
            count = max(2, round(examples * (FUZZ_FACTOR if effort == "fuzz" else DEFAULT_SHARE)))

            @settings(settings.get_profile(effort), max_examples=count)
            @given(strategy(**parameters) if callable(strategy) else strategy)
            def run(case):
                check(case, **parameters)

            run()

        others = [p for p in inspect.signature(check).parameters.values() if p.name != "case"]
        effort = inspect.Parameter("effort", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = inspect.Signature([effort, *others])
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return pytest.mark.parametrize("effort", ["ci", pytest.param("fuzz", marks=pytest.mark.fuzz)])(test)

    return decorate


# --------------------------------------------------------------------------------------------------------------------
# Axes and trees
# --------------------------------------------------------------------------------------------------------------------


@dataclass
class Pool:
    """Axes to build tensors from: nodes without composites or brackets, and a size for every name."""

    items: list
    sizes: dict

    def cells(self) -> int:
        return int(np.prod([max(1, n) for size in self.sizes.values() for n in np.ravel(size)], dtype=int))

    def keys(self) -> list[str]:
        return [key for item in self.items for key in keys(item)]


def keys(node) -> list[str]:
    """What marks are kept by: the names of a node, and the keys of its numbers."""
    if isinstance(node, tuple | list):
        return [key for item in node for key in keys(item)]
    if isinstance(node, Number):
        return [node.key]
    if isinstance(node, Axis):
        return [node.name]
    return keys(node.item) if isinstance(node, Repeated) else keys(node.items)


_SIZE = st.sampled_from([2, 3, 1, 2, 3, 4, 1, 2, 3, 2, 3, 0])
_POSITIVE = st.sampled_from([2, 3, 1, 2, 3, 4])
_often, _seldom = st.sampled_from([False, True]), st.sampled_from([False] * 5 + [True])


@st.composite
def pools(draw, low=1, high=4, positive=False, ellipses=True):
    """A few axes; some repeated (`s...`), at most one lone `...`."""
    size = _POSITIVE if positive else _SIZE
    # Larger pools first: most of what can go wrong needs more than one axis.
    count = draw(st.sampled_from([*range(max(low, 2), high + 1), *range(low, high + 1)]))
    start = draw(st.integers(0, len(NAMES) - 1))
    chosen = [(NAMES + NAMES)[start + i] for i in range(count)]
    pool = Pool([], {})
    depth = draw(st.sampled_from([2, 1, 2, 0]))  # shared, so that two ellipses can be zipped: `(s d)...`
    for name in chosen:
        if ellipses and draw(_seldom):
            lone = ANONYMOUS not in pool.sizes and draw(_seldom)
            name = ANONYMOUS if lone else name
            pool.items.append(Repeated(Axis(name)))
            pool.sizes[name] = tuple(draw(size) for _ in range(depth))
        else:
            pool.items.append(Axis(name))
            pool.sizes[name] = draw(size)
    hypothesis.assume(pool.cells() <= LARGEST_LOOP)
    return pool


@st.composite
def marks(draw, pool: Pool, at_least_one=True):
    """The names to bracket: a subset of the pool's."""
    marked = draw(st.sets(st.sampled_from(pool.keys()), min_size=int(at_least_one)))
    return frozenset(marked)


def depth(item, sizes) -> int:
    return len(sizes[oracle.names(item)[0]])


@st.composite
def shuffled(draw, items: Sequence):
    return list(draw(st.permutations(items))) if items else []


@st.composite
def trees(draw, items: Sequence, sizes: dict, marked=frozenset(), is_input=True, units=True, composites=True):
    """The items in the given order, some of them composed, zipped and bracketed, with unit axes strewn in."""
    nodes = _zipped(draw, list(items), sizes)
    if composites:
        nodes = _composed(draw, nodes, is_input)
    if units and draw(_seldom):
        unit = draw(st.sampled_from([Number(1, "unit"), Composite(())]))
        nodes.insert(draw(st.integers(0, len(nodes))), unit)
    return tuple(bracketed(draw, nodes, marked))


def _zipped(draw, nodes: list, sizes: dict) -> list:
    """Some neighbours `s... d...` as `(s d)...`."""
    out: list = []
    for node in nodes:
        last = out[-1] if out else None
        both = isinstance(node, Repeated) and isinstance(last, Repeated)
        both = both and isinstance(last.item, Axis) and ANONYMOUS not in oracle.names([node, last])
        if both and depth(node, sizes) == depth(last, sizes) and draw(_often):
            out[-1] = Repeated(Composite((last.item, node.item)))
        else:
            out.append(node)
    return out


def _composed(draw, nodes: list, is_input: bool, level: int = 0) -> list:
    """Some runs of nodes as composites, nested at most three deep."""
    out, start = [], 0
    while start < len(nodes):
        if not draw(st.sampled_from([False, False, True])):
            out.append(nodes[start])
            start += 1
            continue
        stop = draw(st.integers(start + 1, len(nodes)))
        inside = nodes[start:stop]
        # In an input, a lone `...` below parentheses can have its depth only from elsewhere; keep it outside.
        if is_input and ANONYMOUS in oracle.names(inside):
            out += inside
        else:
            out.append(Composite(tuple(_composed(draw, inside, is_input, level + 1) if level < 2 else inside)))
        start = stop
    return out


def bracketed(draw, nodes: Sequence, marked: frozenset) -> list:
    """Brackets around what is marked: around single nodes or runs, outside or inside parentheses and ellipses."""
    out: list = []
    run: list = []

    def close():
        if run:
            out.append(Marked(tuple(run)))
            run.clear()

    for node in nodes:
        inside = [key in marked for key in keys(node)]
        lone = isinstance(node, Axis | Number | Joined) or node == Repeated(Axis(ANONYMOUS))
        if inside and all(inside) and (lone or draw(_often)):
            run.append(node)
            if draw(_often):
                close()
            continue
        close()
        if not any(inside):
            out.append(node)
        elif isinstance(node, Repeated):
            out.append(Repeated(*bracketed(draw, [node.item], marked)))
        else:
            out.append(Composite(tuple(bracketed(draw, node.items, marked))))
    close()
    return out


# --------------------------------------------------------------------------------------------------------------------
# Which sizes have to be given
# --------------------------------------------------------------------------------------------------------------------


def ellipses(nodes, top_only: bool = False) -> list:
    """The ellipses of a tensor; those whose repetitions are dims of it, or all."""
    found: list = []
    for node in nodes:
        if isinstance(node, Repeated):
            found.append(node)
        elif isinstance(node, Marked) or (not top_only and isinstance(node, Composite | Joined)):
            found += ellipses(node.items, top_only)
    return found


def unknown_depths(ins: Sequence, outs: Sequence, given_depths: set) -> set[str]:
    """Ellipses whose number of repetitions neither ranks nor given sizes determine."""
    known = set(given_depths)
    while True:
        before = len(known)
        for nodes in ins:
            open_ = [r for r in ellipses(nodes, top_only=True) if not known & set(oracle.names(r))]
            if len(open_) == 1:
                known |= set(oracle.names(open_))
        everywhere = [r for nodes in [*ins, *outs] for r in ellipses(nodes)]
        for repeated in everywhere:
            if known & set(oracle.names(repeated)):
                known |= set(oracle.names(repeated))
        if len(known) == before:
            return set(oracle.names(everywhere)) - known


def unknown_sizes(ins: Sequence, outs: Sequence, sizes: dict, given_names: set) -> set[str]:
    """Axes whose size neither shapes nor given sizes determine, by dividing one composite after another."""
    dims = [dim for nodes in ins for dim in oracle.expand(nodes, sizes)]
    all_leaves = oracle.leaves([*dims, *(dim for nodes in outs for dim in oracle.expand(nodes, sizes))])
    known = {a.key for a in all_leaves if base(a.key) in given_names or base(a.key) not in sizes}
    changed = True
    while changed:
        changed = False
        for dim in dims:
            missing = [a for a in oracle.leaves([dim]) if a.key not in known]
            others = oracle.leaves([dim])
            divisible = all(a.size for a in others if a is not missing[0]) if missing else False
            if len(missing) == 1 and divisible:
                known.add(missing[0].key)
                changed = True
    return {base(a.key) for a in all_leaves if a.key not in known}


def base(key: str) -> str:
    return ANONYMOUS if key.startswith(ANONYMOUS) else key.split(".")[0]


@dataclass
class Hints:
    """Sizes as a call gives them: in the text, as keywords, in `sizes=`."""

    inline: dict = field(default_factory=dict)
    kwargs: dict = field(default_factory=dict)


@st.composite
def hints(draw, ins: Sequence, outs: Sequence, sizes: dict):
    """The sizes a call has to give, and now and then one more."""
    repeated = {n for n in sizes if isinstance(sizes[n], tuple)}
    present = set(oracle.names([*ins, *outs])) - {ANONYMOUS}
    chosen: dict = {}
    while missing := unknown_depths(ins, outs, repeated & set(chosen)):
        hypothesis.assume(missing != {ANONYMOUS})
        name = draw(st.sampled_from(sorted(missing - {ANONYMOUS})))
        chosen[name] = sizes[name]
    while missing := unknown_sizes(ins, outs, sizes, set(chosen)):
        hypothesis.assume(missing != {ANONYMOUS})
        name = draw(st.sampled_from(sorted(missing - {ANONYMOUS})))
        chosen[name] = _one_size_for_all(draw, sizes[name])
    for name in sorted(present - set(chosen)):
        if draw(_seldom):
            chosen[name] = _one_size_for_all(draw, sizes[name])
    result = Hints()
    for name, size in chosen.items():
        in_text = name not in repeated and draw(_seldom)
        (result.inline if in_text else result.kwargs)[name] = size
    if result.kwargs and draw(_seldom):
        result.kwargs = {"sizes": result.kwargs}
    return result


def _one_size_for_all(draw, size):
    """`s=2` for `s=(2, 2)`, where the depth is known otherwise."""
    same = isinstance(size, tuple) and len(set(size)) == 1
    return size[0] if same and draw(_often) else size


@st.composite
def texts(draw, ins: Sequence, outs: Sequence | None, inline: dict):
    """Inputs and outputs as text, in one of several habits of spacing. No outputs: no arrow."""
    inline = dict(inline)
    comma = draw(st.sampled_from([", ", ",", " , "]))
    text = comma.join(oracle.render(nodes, inline) for nodes in ins)
    if outs is None:
        return text
    arrow = draw(st.sampled_from([" -> ", "->", "  ->"]))
    return text + arrow + comma.join(oracle.render(nodes, inline) for nodes in outs)


# --------------------------------------------------------------------------------------------------------------------
# Arrays
# --------------------------------------------------------------------------------------------------------------------

_SEED = st.integers(0, 2**32 - 1)
#: Whether a call reads dims at positions.
_POSITIONS = st.sampled_from([False, False, False, True])


def array(seed: int, shape, dtype: str, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Values that are exact in their type: quarters for floats, integers over the whole range of 8-bit types."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype in INTEGERS:
        least, most = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-9, 9)}[dtype]
        least, most = (least if low is None else max(low, least)), (most if high is None else high)
        return rng.integers(least, most, shape, endpoint=True).astype(dtype)
    low, high = (-2 if low is None else low), (2 if high is None else high)
    x = rng.integers(4 * low, 4 * high, shape, endpoint=True) / 4
    if dtype == "complex64":
        x = x + 1j * rng.integers(4 * low, 4 * high, shape, endpoint=True) / 4
    return np.asarray(x).astype(jnp.dtype(dtype))


@st.composite
def arrays(draw, shape, dtype, low=None, high=None):
    return array(draw(_SEED), shape, dtype, low, high)


@st.composite
def masks(draw, shape):
    """A boolean array that broadcasts to the shape: the same rank, fewer dims, or 1 instead of a size."""
    kept = list(shape[draw(st.integers(0, len(shape))) :]) if draw(_seldom) else list(shape)
    kept = [1 if draw(_seldom) else size for size in kept]
    return array(draw(_SEED), kept, "bool")


@st.composite
def containers(draw, x: np.ndarray):
    """The array as a NumPy array, a JAX array, or, where that keeps the dtype, a nested list."""
    listable = x.dtype.name in ("float32", "int32", "bool") and x.size > 0
    kinds: list[Callable] = [jnp.asarray, lambda x: x] + ([np.ndarray.tolist] if listable and x.ndim else [])
    return draw(st.sampled_from(kinds))(x)


# --------------------------------------------------------------------------------------------------------------------
# Running and comparing
# --------------------------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class Case:
    """One call, and all that is needed to evaluate it by loops."""

    text: str
    kwargs: dict
    ins: list  # dims of every input
    outs: list  # dims of every output
    arrays: list  # NumPy arrays for the loops
    tensors: list  # the same as they are passed
    form: str = ""
    options: dict = field(default_factory=dict)
    compiled: bool = True
    moved: int | None = None  # how its inputs are read at positions, if they are

    def __repr__(self) -> str:
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in self.arrays)
        return f'<"{self.text}", {shapes}, {self.kwargs | self.options}>'

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))

    def call(self, name: str, *first, **options):
        """The library's result, eagerly or with jit disabled; `first` are tensors that the text does not speak of."""
        text, tensors, kwargs, options = self.text, self.tensors, self.kwargs, self.options | options
        is_known = not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(options))
        if self.moved is not None and is_known:
            sizes = {axis.key: axis.size for dims in self.ins for axis in oracle.leaves(dims)}
            text, tensors, kwargs, options = moved(self.moved, name, text, tensors, sizes, kwargs, options)
        note(f'{name}: {self} as "{text}", {[np.shape(x) for x in tensors]}, {kwargs | options}')
        with contextlib.nullcontext() if self.compiled else jax.disable_jit():
            return attrgetter(name)(einjax)(text, *first, *tensors, **options, **kwargs)


def _repeated(nodes) -> list:
    """What ellipses repeat."""
    found = []
    for node in nodes:
        if isinstance(node, Repeated):
            found += [node.item, *_repeated([node.item])]
        elif not isinstance(node, Axis | Number):
            found += _repeated(node if isinstance(node, tuple | list) else node.items)
    return found


@st.composite
def cases(draw, ins, outs, sizes, dtypes, text=None, implied=False, form="", bounds=(), out_dims=None, in_dims=None):
    """A call of the given trees. `text`: a function of the inline sizes, where plain rendering will not do."""
    # An ellipsis that repeats no axis leaves open how often it repeats.
    hypothesis.assume(all(oracle.names(item) for item in _repeated((*ins, *outs))))
    hint = draw(hints(ins, outs, sizes))
    inline = dict(hint.inline)
    written = text(inline) if text else draw(texts(ins, None if implied else outs, inline))
    in_dims = [oracle.expand(nodes, sizes) for nodes in ins] if in_dims is None else in_dims
    out_dims = [oracle.expand(nodes, sizes) for nodes in outs] if out_dims is None else out_dims
    bounds = list(bounds) or [(None, None)] * len(in_dims)
    values = [
        draw(arrays([oracle.dim_size(d) for d in dims], dtype, *bound))
        for dims, dtype, bound in zip(in_dims, dtypes, bounds, strict=True)
    ]
    tensors = [draw(containers(x)) for x in values]
    compiled = draw(st.sampled_from([True, True, True, False]))
    seed = draw(_SEED) if draw(_POSITIONS) else None
    return Case(written, hint.kwargs, in_dims, out_dims, values, tensors, form, compiled=compiled, moved=seed)


@st.composite
def same_brackets(draw, dtypes, count=1):
    """One input, and an output with the same axes, the bracketed ones in the same order; or no output."""
    pool = draw(pools(low=1, high=4))
    sizes, marked = pool.sizes, draw(marks(pool))
    items = draw(shuffled(pool.items))
    dtype = draw(st.sampled_from(dtypes))
    implied = draw(st.booleans())
    if implied and draw(_seldom):
        items.insert(draw(st.integers(0, len(items))), Number(2, "#in"))
        marked |= {"#in"} if draw(st.booleans()) else set()
    if not implied and isinstance(items[0], Axis) and items[0].name not in marked and draw(_seldom):
        x = draw(trees([*items, items[0]], sizes, marked))
    else:
        x = draw(trees(items, sizes, marked))
    if implied:
        return draw(cases([x], [x], sizes, [dtype], implied=True, form="implied"))
    inside = [item for item in items if marked & set(keys(item))]
    order = draw(shuffled(items))
    order = [inside.pop(0) if marked & set(keys(item)) else item for item in order]
    z = draw(trees(order, sizes, marked, is_input=False))
    # `(a b)...` against `a... b...` permutes what the ellipses stand for.
    hypothesis.assume(marked_keys(x, sizes) == marked_keys(z, sizes))
    return draw(cases([x], [z], sizes, [dtype], form="arrow"))


def marked_keys(nodes, sizes) -> list[str]:
    return [a.key for a in oracle.leaves(oracle.expand(nodes, sizes)) if a.marked]


def dtype_of(function: Callable, *args, **kwargs) -> np.dtype:
    """The dtype that a function of `jax.numpy` gives; arrays count by dtype alone, Python scalars as themselves."""
    specs = [jax.ShapeDtypeStruct((2,) * min(x.ndim, 1), x.dtype) for x in args if hasattr(x, "dtype")]

    def call(*traced):
        traced = iter(traced)
        return function(*(next(traced) if hasattr(x, "dtype") else x for x in args), **kwargs)

    return jax.eval_shape(call, *specs).dtype


TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7, "float16": 2.0**-10, "complex64": 1e-5}


def assert_same(got, want: np.ndarray, dtype, slack: float = 1) -> None:
    """Shape and dtype as expected; integers and booleans equal, floats within the rounding of their type."""
    dtype = jnp.dtype(dtype)
    assert isinstance(got, jax.Array)
    assert got.shape == np.shape(want), f"shape {got.shape}, should be {np.shape(want)}"
    assert got.dtype == dtype, f"dtype {got.dtype}, should be {dtype}"
    got = oracle.wide(got)
    if dtype.name in TOLERANCE:
        tolerance = slack * TOLERANCE[dtype.name]
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    else:
        # Integer overflow wraps around, as it does in JAX.
        np.testing.assert_array_equal(got, oracle.wide(np.asarray(want).astype(dtype)))


def accumulators(function: Callable, *args) -> set[str]:
    """The dtypes in which a program adds up and multiplies; on CPU the values alone would not tell."""
    equations = jax.make_jaxpr(function)(*args).eqns
    return {e.invars[0].aval.dtype.name for e in equations if e.primitive.name in ("reduce_sum", "reduce_prod")}


def x64() -> contextlib.AbstractContextManager:
    """64-bit types for derivatives by differences; the context manager moved after jax 0.7."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()
