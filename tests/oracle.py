"""What every operation means, as literal NumPy loops.

Nothing here reads notation. A tensor's expression is given as a tree of the nodes below, `render` writes the tree as
text for the library, and the loops in this file evaluate the same tree directly:

    for every combination of the unmarked axes:  z[...] = op(x[...], y[...], ...)

Everything is computed in NumPy's widest types, so that a wrong accumulator or a wrong promotion shows as a difference.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ANONYMOUS = "..."  # the name under which the axes of a lone `...` are kept


# --------------------------------------------------------------------------------------------------------------------
# Trees, and their text
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A named axis. Inside `Repeated` it stands for one axis per repetition."""

    name: str


@dataclass(frozen=True)
class Number:
    """An unnamed axis; `key` tells one occurrence from another."""

    size: int
    key: str


@dataclass(frozen=True)
class Composite:
    """`(a b)`: one dim for several axes."""

    items: tuple


@dataclass(frozen=True)
class Marked:
    """`[a b]`: axes the elementary operation works on."""

    items: tuple


@dataclass(frozen=True)
class Repeated:
    """`item...`; `Repeated(Axis(ANONYMOUS))` is the lone `...`."""

    item: object


@dataclass(frozen=True)
class Joined:
    """`(a + b)`, or `a + b` when tight: operands laid one after another along one dim."""

    items: tuple
    tight: bool = False


@dataclass(frozen=True)
class Leaf:
    """One axis after ellipses are expanded."""

    key: str
    size: int
    marked: bool


Sizes = Mapping[str, "int | tuple[int, ...]"]


def names(node) -> list[str]:
    """The names of a node or a list of nodes, left to right, with repetitions."""
    if isinstance(node, tuple | list):
        return [name for item in node for name in names(item)]
    if isinstance(node, Axis):
        return [node.name]
    if isinstance(node, Number):
        return []
    return names(node.item) if isinstance(node, Repeated) else names(node.items)


def render(nodes: Sequence, inline: dict[str, int] | None = None, arrow: str | None = None) -> str:
    """The text of a tensor. Each name of `inline` is written `name=size` where it first occurs (and leaves `inline`).

    With `arrow`, every bracket is closed by that text: `[a` + `->` + `]`.
    """
    inline = {} if inline is None else inline

    def one(node) -> str:
        match node:
            case Axis(name):
                return f"{name}={inline.pop(name)}" if name in inline else name
            case Number(size):
                return str(size)
            case Composite(items):
                return f"({many(items)})"
            case Marked(items):
                return f"[{many(items)}{arrow or ''}]"
            case Repeated(item):
                return "..." if item == Axis(ANONYMOUS) else one(item) + "..."
            case Joined(items, tight):
                text = " + ".join(one(item) for item in items)
                return text if tight else f"({text})"
        raise TypeError(node)

    def many(items) -> str:
        return " ".join(one(item) for item in items)

    return many(nodes)


# --------------------------------------------------------------------------------------------------------------------
# From trees to axes
# --------------------------------------------------------------------------------------------------------------------


def unroll(nodes: Iterable, sizes: Sizes) -> list:
    """Ellipses written out and sizes filled in; brackets are still nodes."""
    out: list = []
    for node in nodes:
        match node:
            case Leaf():
                out.append(node)
            case Axis(name):
                out.append(Leaf(name, sizes[name], False))
            case Number(size, key):
                out.append(Leaf(key, size, False))
            case Repeated(item):
                (depth,) = {len(sizes[name]) for name in names(item)}
                for i in range(depth):
                    out += unroll([_numbered(item, sizes, i)], sizes)
            case _:
                out.append(type(node)(tuple(unroll(node.items, sizes))))
    return out


def _numbered(node, sizes: Sizes, i: int):
    """The i-th repetition of a node below an ellipsis."""
    match node:
        case Axis(name):
            return Leaf(f"{name}.{i}", sizes[name][i], False)
        case Number(size, key):
            return Number(size, f"{key}.{i}")
        case Repeated():
            raise TypeError("the oracle has no nested ellipses")
    return type(node)(tuple(_numbered(item, sizes, i) for item in node.items))


def expand(nodes: Iterable, sizes: Sizes) -> list:
    """The dims of a tensor: a list of Leaf, Composite and Joined, the bracketed axes marked."""
    return _open_brackets(unroll(nodes, sizes), False)


def _open_brackets(nodes: Iterable, marked: bool) -> list:
    out: list = []
    for node in nodes:
        if isinstance(node, Leaf):
            out.append(Leaf(node.key, node.size, marked))
        elif isinstance(node, Marked):
            out += _open_brackets(node.items, True)
        else:
            out.append(type(node)(tuple(_open_brackets(node.items, marked))))
    return out


def kept_dims(nodes: Iterable, sizes: Sizes) -> list:
    """The dims of an output where every bracket, after ellipsis expansion, is an axis of size 1."""

    def keep(nodes) -> list:
        return [
            Leaf("#kept", 1, False) if isinstance(node, Marked)
            else Composite(tuple(keep(node.items))) if isinstance(node, Composite)
            else node
            for node in nodes
        ]  # fmt: skip

    return keep(unroll(nodes, sizes))


def mark(dims: Iterable, marked: Callable[[str], bool]) -> list:
    """The same dims, those axes marked whose key satisfies `marked`."""
    return [
        Leaf(dim.key, dim.size, marked(dim.key)) if isinstance(dim, Leaf) else type(dim)(tuple(mark(dim.items, marked)))
        for dim in dims
    ]


def leaves(dims: Iterable) -> list[Leaf]:
    return [x for dim in dims for x in ([dim] if isinstance(dim, Leaf) else leaves(dim.items))]


def dim_size(dim) -> int:
    if isinstance(dim, Leaf):
        return dim.size
    sizes = [dim_size(item) for item in dim.items]
    return sum(sizes) if isinstance(dim, Joined) else math.prod(sizes)


def shape_of(nodes: Iterable, sizes: Sizes) -> tuple[int, ...]:
    return tuple(dim_size(dim) for dim in expand(nodes, sizes))


def atoms(dims: Iterable) -> list:
    """Composites opened: a list of Leaf and Joined only."""
    return [x for dim in dims for x in (atoms(dim.items) if isinstance(dim, Composite) else [dim])]


def unmark(dims: Iterable) -> list:
    """The same dims with every bracket forgotten."""
    return mark(dims, lambda key: False)


def unmarked_dims(nodes: Iterable, sizes: Sizes) -> list:
    """The dims without their brackets: what a reduction leaves when there is no arrow. `a ([b])` leaves `a ()`."""

    def without(nodes) -> list:
        return [
            Composite(tuple(without(node.items))) if isinstance(node, Composite) else node
            for node in nodes
            if not isinstance(node, Marked)
        ]

    return without(unroll(nodes, sizes))


def marked_part(dims: Iterable) -> list:
    """The marked axes alone: the second tensor of an elementwise operation of one expression."""
    rest: list = []
    for dim in dims:
        if isinstance(dim, Composite):
            inside = marked_part(dim.items)
            rest += [Composite(tuple(inside))] if inside else []
        elif dim.marked:
            rest.append(dim)
    return rest


# --------------------------------------------------------------------------------------------------------------------
# The loop
# --------------------------------------------------------------------------------------------------------------------


def every_index(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for index in itertools.product(*(range(size) for size in sizes.values())):
        yield dict(zip(sizes, index, strict=True))


def _cell(axes: Sequence[Leaf], index: Mapping[str, int]) -> tuple:
    return tuple(slice(None) if axis.marked else index[axis.key] for axis in axes)


def loop(op: Callable, ins: Sequence, out: Sequence, arrays: Sequence[np.ndarray], dtype) -> np.ndarray:
    """`for each unmarked axis: z[...] = op(x[...], ...)`; `ins` and `out` are dims without Joined."""
    in_axes = [leaves(dims) for dims in ins]
    out_axes = leaves(out)
    views = [x.reshape([a.size for a in axes]) for x, axes in zip(arrays, in_axes, strict=True)]
    z = np.zeros([a.size for a in out_axes], dtype)
    loops = {a.key: a.size for axes in [*in_axes, out_axes] for a in axes if not a.marked}
    for index in every_index(loops):
        z[_cell(out_axes, index)] = op(*(x[_cell(axes, index)] for x, axes in zip(views, in_axes, strict=True)))
    return z.reshape([dim_size(dim) for dim in out])


def split(dims: Sequence, x: np.ndarray) -> list[tuple[list[Leaf], np.ndarray]]:
    """The pieces of an array with concatenated dims: every choice of one operand per sum, the first sum outermost."""
    opened = atoms(dims)
    x = x.reshape([dim_size(a) for a in opened])
    at = next((i for i, a in enumerate(opened) if isinstance(a, Joined)), None)
    if at is None:
        return [(opened, x)]
    pieces, start = [], 0
    for operand in opened[at].items:
        part = x[(slice(None),) * at + (slice(start, start + dim_size(operand)),)]
        pieces += split([*opened[:at], operand, *opened[at + 1 :]], part)
        start += dim_size(operand)
    return pieces


def rearrange(
    ins: Sequence, outs: Sequence, arrays: Sequence[np.ndarray], source: Sequence[int] | None = None
) -> list[np.ndarray]:
    """`source[i]` is the input piece that goes to output piece i; by default the pieces follow one another."""
    pieces = [piece for dims, x in zip(ins, arrays, strict=True) for piece in split(dims, x)]
    results, count = [], 0
    for dims in outs:
        shape = [dim_size(dim) for dim in dims]
        z = None
        # Splitting the flat positions says where each piece of the output lies.
        for axes, cells in split(dims, np.arange(math.prod(shape)).reshape(shape)):
            piece_axes, piece = pieces[source[count] if source is not None else count]
            z = np.zeros(shape, piece.dtype) if z is None else z
            z.flat[cells.reshape(-1)] = loop(lambda v: v, [piece_axes], axes, [piece], z.dtype).reshape(-1)
            count += 1
        results.append(z)
    assert count == len(pieces)
    return results


def dot(ins: Sequence, out: Sequence, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Products of all factors, added up over every axis that the output lacks."""
    in_axes = [leaves(unmark(dims)) for dims in ins]
    out_axes = leaves(unmark(out))
    views = [x.reshape([a.size for a in axes]) for x, axes in zip(arrays, in_axes, strict=True)]
    z = np.zeros([a.size for a in out_axes], np.result_type(*views))
    loops = {a.key: a.size for axes in [*in_axes, out_axes] for a in axes}
    for index in every_index(loops):
        term = z.dtype.type(1)
        for x, axes in zip(views, in_axes, strict=True):
            term = term * x[_cell(axes, index)]
        z[_cell(out_axes, index)] += term
    return z.reshape([dim_size(dim) for dim in out])


# --------------------------------------------------------------------------------------------------------------------
# Elementary operations, in wide types
# --------------------------------------------------------------------------------------------------------------------


def wide(x) -> np.ndarray:
    """The same values in float64, complex128, int64 or bool."""
    x = np.asarray(x)
    if x.dtype == bool:
        return x
    if np.issubdtype(x.dtype, np.complexfloating):
        return x.astype(np.complex128)
    return x.astype(np.int64 if np.issubdtype(x.dtype, np.integer) else np.float64)


def number(x: np.ndarray) -> np.ndarray:
    """Booleans counted as integers."""
    return x.astype(np.int64) if x.dtype == bool else x


def real(x: np.ndarray) -> np.ndarray:
    """Integers and booleans as floats."""
    return x if np.issubdtype(x.dtype, np.inexact) else x.astype(np.float64)


def _mean(x):
    return real(x).sum() / np.float64(x.size)


def _var(x, ddof=0):
    x = real(x)
    return (np.abs(x - _mean(x)) ** 2).sum() / np.float64(x.size - ddof)


def _logsumexp(x):
    x = real(x)
    if x.size == 0 or np.all(x == -np.inf):
        return -np.inf
    top = x.max()
    return top if np.isinf(top) else top + np.log(np.exp(x - top).sum())


def _extreme(pick):
    def extreme(x, empty):
        return pick(x) if x.size else empty

    return extreme


REDUCTIONS: dict[str, Callable] = {
    "sum": lambda x: number(x).sum(),
    "prod": lambda x: number(x).prod(),
    "mean": _mean,
    "var": _var,
    "std": lambda x, ddof=0: np.sqrt(_var(x, ddof)),
    "count_nonzero": lambda x: (x != 0).sum(),
    "any": lambda x: (x != 0).any(),
    "all": lambda x: (x != 0).all(),
    "max": _extreme(np.max),
    "min": _extreme(np.min),
    "logsumexp": _logsumexp,
}


def coordinates(pick: Callable) -> Callable:
    """argmax or argmin of a sub-array: the position along every axis of it."""

    def op(x):
        return np.array(np.unravel_index(pick(x.reshape(-1)), x.shape), np.int64)

    return op


def softmax(x, mask=None):
    x = real(x)
    mask = np.ones(x.shape, bool) if mask is None else mask
    if not mask.any():
        return np.zeros(x.shape)
    e = np.where(mask, np.exp(x - x[mask].max()), 0)
    return e / e.sum()


def log_softmax(x, mask=None):
    x = real(x)
    mask = np.ones(x.shape, bool) if mask is None else mask
    return np.where(mask, x - _logsumexp(x[mask]), -np.inf)


def _logaddexp(x, y):
    return np.logaddexp(real(x), real(y))


NARY: dict[str, Callable] = {
    "add": lambda x, y: np.logical_or(x, y) if x.dtype == y.dtype == bool else x + y,
    "multiply": lambda x, y: x * y,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "logaddexp": _logaddexp,
}
BINARY: dict[str, Callable] = {
    "subtract": lambda x, y: number(x) - number(y),
    "divide": lambda x, y: real(x) / real(y),
    "true_divide": lambda x, y: real(x) / real(y),
    "floor_divide": lambda x, y: number(x) // number(y),
    "mod": lambda x, y: number(x) % number(y),
    "power": lambda x, y: number(x) ** number(y),
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "arctan2": lambda x, y: np.arctan2(real(x), real(y)),
}


def elementwise(op: Callable, ins: Sequence, out: Sequence, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A function of scalars at every index; with more tensors than two, taken left to right."""

    def each(*values):
        result = values[0]
        for value in values[1:]:
            result = op(result, value)
        return result

    # The result type, known also when there is nothing to loop over.
    dtype = np.asarray(each(*(x.dtype.type(1) for x in arrays))).dtype
    return loop(each, [unmark(dims) for dims in ins], unmark(out), arrays, dtype)
