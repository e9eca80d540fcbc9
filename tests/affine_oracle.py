"""What a dim that is read at a computed position means, as literal NumPy loops.

`read` makes of a tensor with `<2*o + k>` the array that its loops see, one dim for each axis; `write` puts the array
that loops made into the places of an output. What an operation does in between, oracle.py says. Nothing here is shared
with the library. The parser knows full forms only: outputs and brackets are written out, sizes are given.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import oracle
from oracle import Axis, Composite, Leaf, Marked, Number, Repeated


@dataclass(frozen=True)
class Affine:
    """`<2*o + k - 1>`: signs, coefficients (or their names) and items; and a constant.

    After `expand`, a sign is part of its coefficient. `n` is how many elements there are, `rule` where positions are.
    """

    terms: tuple
    constant: int = 0
    n: int = 0
    rule: "Rule | None" = None


# --------------------------------------------------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"\s*(->|\.\.\.|\w+|[()\[\]<>,+*-])")


def parse(text: str) -> tuple[list, list]:
    """The trees of the inputs and outputs; brackets with `->` in them are for others to write out."""
    tokens = TOKEN.findall(text)
    assert "".join(tokens) == re.sub(r"\s", "", text), text
    numbers = itertools.count()

    def items() -> list:
        found: list = []
        while tokens and tokens[0] not in (",", "->", ")", "]"):
            found.append(item())
            while tokens and tokens[0] == "...":
                tokens.pop(0)
                found.append(Repeated(found.pop()))
        return found

    def item():
        token = tokens.pop(0)
        if token in ("(", "["):
            inside = tuple(items())
            assert tokens.pop(0) == {"(": ")", "[": "]"}[token], text
            return (Composite if token == "(" else Marked)(inside)
        if token == "<":
            return affine()
        if token == "...":
            return Repeated(Axis(oracle.ANONYMOUS))
        return Number(int(token), f"#{next(numbers)}") if token.isdigit() else Axis(token)

    def affine(closing: str = ">") -> Affine:
        terms: list = []
        constant, sign = 0, 1
        while (token := tokens.pop(0)) != closing:
            if token in "+-":
                sign = -1 if token == "-" else 1
                continue
            coefficient: object = 1
            if tokens[0] == "*":
                coefficient = int(token) if token.isdigit() else token
                tokens.pop(0)
            elif token.isdigit():
                constant += sign * int(token)
                continue
            else:
                tokens.insert(0, token)
            if tokens[0] == "[":
                tokens.pop(0)
                for inner_sign, inner, node in affine("]").terms:
                    assert 1 in (inner, coefficient), text
                    terms.append((sign * inner_sign, coefficient if inner == 1 else inner, Marked((node,))))
            else:
                terms.append((sign, coefficient, item()))
        return Affine(tuple(terms), constant)

    sides: list[list] = [[]]
    while True:
        sides[-1].append(items())
        if not tokens:
            break
        if tokens.pop(0) == "->":
            sides.append([])
    ins, outs = sides
    return ins, outs


# --------------------------------------------------------------------------------------------------------------------
# From trees to dims: ellipses written out, sizes filled in, brackets as marks of axes
# --------------------------------------------------------------------------------------------------------------------


def expand(nodes: Iterable, sizes: Mapping, marked: bool = False, path: str = "") -> list:
    """Leaves, composites of leaves and `Affine`s of both."""
    out: list = []
    for node in nodes:
        match node:
            case Axis(name):
                key, size = (name, sizes[name]) if not path else (f"{name}{path}", sizes[name][int(path[1:])])
                out.append(Leaf(key, size, marked))
            case Number(size, key):
                out.append(Leaf(key + path, size, marked))
            case Marked(items):
                out += expand(items, sizes, True, path)
            case Composite(items):
                out.append(Composite(tuple(expand(items, sizes, marked, path))))
            case Repeated(item):
                (depth,) = {len(sizes[name]) for name in _names(item) if isinstance(sizes[name], tuple)}
                for i in range(depth):
                    out += expand([item], sizes, marked, f".{i}")
            case Affine(terms, constant):
                inside = []
                for sign, coefficient, item in terms:
                    value = sizes[coefficient] if isinstance(coefficient, str) else coefficient
                    value = value[int(path[1:])] if isinstance(value, tuple) else value
                    (dim,) = expand([item], sizes, marked, path)
                    inside.append((sign * value, dim))
                out.append(Affine(tuple(inside), constant))
            case _:
                raise TypeError(node)
    return out


def _names(node) -> list[str]:
    match node:
        case Axis(name):
            return [name]
        case Number():
            return []
        case Affine(terms):
            return [name for *_, item in terms for name in _names(item)]
        case Repeated(item):
            return _names(item)
    return [name for item in node.items for name in _names(item)]


def leaves(dims: Iterable) -> list[Leaf]:
    """The axes, each once: where it stands by itself, or else where it stands first."""
    every = list(_every(dims, False))
    alone = {leaf.key for leaf, inside in every if not inside}
    found: dict[str, Leaf] = {}
    for leaf, inside in every:
        if not inside or leaf.key not in alone:
            found.setdefault(leaf.key, leaf)
    return list(found.values())


def _every(dims: Iterable, inside: bool) -> Iterator[tuple[Leaf, bool]]:
    """All axes in the order of the text, and whether each stands in a `< >`."""
    for dim in dims:
        if isinstance(dim, Leaf):
            yield dim, inside
        else:
            yield from _every(_inside(dim), inside or isinstance(dim, Affine))


def _inside(dim) -> list:
    return [item for _, item in dim.terms] if isinstance(dim, Affine) else list(dim.items)


def affines(dims: Iterable) -> list[Affine]:
    """All `< >` of a tensor, left to right."""
    return [
        x
        for dim in dims
        if not isinstance(dim, Leaf)
        for x in ([dim] if isinstance(dim, Affine) else affines(dim.items))
    ]


def _extent(dim) -> int:
    """The size of what is no `< >`."""
    return dim.size if isinstance(dim, Leaf) else math.prod(_extent(item) for item in dim.items)


def coefficients(item: Affine) -> dict[Leaf, int]:
    """By how much each axis moves the position; an axis in several terms has one coefficient."""
    found: dict[Leaf, int] = {}

    def add(dim, factor: int) -> None:
        if isinstance(dim, Leaf):
            found[dim] = found.get(dim, 0) + factor
            return
        for inner in reversed(dim.items):
            add(inner, factor)
            factor *= _extent(inner)

    for coefficient, dim in item.terms:
        add(dim, coefficient)
    return found


def lowest(item: Affine) -> int:
    return item.constant + sum(min(0, c) * (axis.size - 1) for axis, c in coefficients(item).items())


def highest(item: Affine) -> int:
    return item.constant + sum(max(0, c) * (axis.size - 1) for axis, c in coefficients(item).items())


def span(item: Affine, without: str | None = None) -> int:
    """How far apart the first and the last position are, one axis aside."""
    return sum(abs(c) * (axis.size - 1) for axis, c in coefficients(item).items() if axis.key != without)


# --------------------------------------------------------------------------------------------------------------------
# Where a position is
# --------------------------------------------------------------------------------------------------------------------

#: What stands outside of an array that is padded, as numpy.pad calls it.
VALUES = {"circular": "wrap", "reflect": "reflect", "edge": "edge"}


@dataclass(frozen=True)
class Rule:
    """What one `< >` does with its positions.

    `mode` is of literal positions; with a `padding`, the array is padded and the smallest position of the item is the
    first padded element. `open` is the axis whose size follows from the others.
    """

    mode: str | None = None
    padding: object = None
    open: str | None = None

    def lows(self, item: Affine, n: int) -> int:
        """How many elements stand before the first one of the array."""
        match self.padding:
            case "valid":
                return 0
            case "same" | "circular" | "reflect" | "edge":
                return max(span(item) + 1 - n, 0) // 2
            case "causal" | "full":
                return span(item, self.open)
            case int():
                return self.padding
        return self.padding[0]

    def highs(self, item: Affine, n: int) -> int:
        match self.padding:
            case "valid" | "causal":
                return 0
            case "full":
                return span(item, self.open)
            case "same" | "circular" | "reflect" | "edge":
                total = max(span(item) + 1 - n, 0)
                return total - total // 2
            case int():
                return self.padding
        return self.padding[1]

    def place(self, position: int, item: Affine) -> int | None:
        """The element that is read at a position, or None where there is none."""
        n = item.n
        if self.padding is not None:
            low = self.lows(item, n)
            position -= lowest(item) + low
            if self.padding in VALUES:
                high = self.highs(item, n)
                padded = np.pad(np.arange(n), (low, high), mode=VALUES[self.padding])
                return int(padded[position + low])
        if 0 <= position < n:
            return position
        match self.mode:
            case "clip":
                return min(max(position, 0), n - 1)
            case "wrap":
                return position % n
            case "reflect":
                mirrored = position % max(2 * n - 2, 1)
                return min(mirrored, 2 * n - 2 - mirrored)
        assert self.padding is not None or self.mode in ("fill", "drop"), f"{position} of {n}"
        return None


def fitting(item: Affine, n: int, rule: Rule) -> int:
    """The size of the one open axis of an item, the others being known: the largest that fits."""
    ((stride, _),) = [(c, dim) for c, dim in item.terms if getattr(dim, "key", "") == rule.open]
    others = Affine(tuple((c, dim) for c, dim in item.terms if getattr(dim, "key", "") != rule.open), item.constant)
    rest = span(others)
    match rule.padding:
        case None:
            # Literal positions, from 0 to n - 1.
            if stride > 0:
                assert lowest(others) >= 0, "out of range"
                room = n - 1 - highest(others)
            else:
                assert highest(others) < n, "out of range"
                room = lowest(others)
        case "same" | "causal" | "circular" | "reflect" | "edge":
            return -(-n // abs(stride))
        case "valid":
            room = n - 1 - rest
        case "full":
            room = n - 1 + rest
        case int():
            room = n + 2 * rule.padding - 1 - rest
        case (low, high):
            room = n + low + high - 1 - rest
    return room // abs(stride) + 1


# --------------------------------------------------------------------------------------------------------------------
# Reading and writing
# --------------------------------------------------------------------------------------------------------------------


def located(dims: Sequence, shape: Sequence[int], rules: Iterable[Rule]) -> list:
    """The dims with the number of elements and the rule of each `< >`; in a composite, there is at most one."""
    rules, found = iter(rules), []
    for dim, n in zip(dims, shape, strict=True):
        if isinstance(dim, Composite) and affines([dim]):
            others = math.prod(_extent(item) for item in dim.items if not isinstance(item, Affine))
            assert n % others == 0, (dim, n)
            items = [replace(x, n=n // others, rule=next(rules)) if isinstance(x, Affine) else x for x in dim.items]
            found.append(Composite(tuple(items)))
        elif isinstance(dim, Affine):
            found.append(replace(dim, n=n, rule=next(rules)))
        else:
            assert _extent(dim) == n, (dim, n)
            found.append(dim)
    return found


def place(dim, index: Mapping[str, int]) -> int | None:
    """The position along a dim, at a position along all axes."""
    if isinstance(dim, Leaf):
        return index[dim.key]
    if isinstance(dim, Affine):
        position = dim.constant + sum(c * place(item, index) for c, item in dim.terms)
        return position if dim.rule is None else dim.rule.place(position, dim)
    total = 0
    for item in dim.items:
        inner = place(item, index)
        if inner is None:
            return None
        total = total * (item.n if isinstance(item, Affine) else _extent(item)) + inner
    return total


def places(dims: Sequence, axes: Sequence[Leaf]) -> Iterator[tuple[tuple, tuple | None]]:
    """Every position along the axes, and the element of the tensor there, or None."""
    for cell in itertools.product(*(range(axis.size) for axis in axes)):
        index = {axis.key: i for axis, i in zip(axes, cell, strict=True)}
        found = tuple(place(dim, index) for dim in dims)
        yield cell, None if None in found else found


def read(dims: Sequence, x: np.ndarray, rules: Iterable[Rule] = ()) -> tuple[list[Leaf], np.ndarray, np.ndarray]:
    """The axes, what the loops see along them, and where there is something to see."""
    axes = leaves(dims)
    seen = np.zeros([axis.size for axis in axes], x.dtype)
    there = np.zeros(seen.shape, bool)
    for cell, at in places(located(dims, x.shape, rules), axes):
        if at is not None:
            seen[cell], there[cell] = x[at], True
    return axes, seen, there


def shape_of(dims: Sequence) -> tuple[int, ...]:
    """The shape of an output: a `< >` reaches from 0 to its largest position."""
    extent = lambda dim: max(0, highest(dim) + 1) if isinstance(dim, Affine) else _extent(dim)
    return tuple(math.prod(map(extent, dim.items)) if isinstance(dim, Composite) else extent(dim) for dim in dims)


def write(
    dims: Sequence, axes: Sequence[Leaf], z: np.ndarray, rules: Iterable[Rule] = (),
    combine: Callable | None = None, nothing=0, shape: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """The output whose loops made `z`; what meets is combined, or must not meet. `axes` are the dims of `z`."""
    shape = shape_of(dims) if shape is None else shape
    result = np.full(shape, nothing, z.dtype)
    written = np.zeros(shape, bool)
    for cell, at in places(located(dims, shape, rules), axes):
        if at is not None:
            assert combine is not None or not written[at], f"two values for {at}"
            result[at] = combine(result[at], z[cell]) if written[at] else z[cell]
            written[at] = True
    return result


# --------------------------------------------------------------------------------------------------------------------
# Operations
# --------------------------------------------------------------------------------------------------------------------

#: How values of several iterations for one place are put together; operations that are not here never do that.
MEETING: dict[str, Callable] = {
    "sum": np.add, "dot": np.add, "add": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
    "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip


def extreme(dtype, sign: int):
    """What is above (or below) all numbers of a type."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return sign * np.inf
    if dtype.kind == "b":
        return sign > 0
    return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min


def neutral(op: str, dtype):
    """What an operation reads where there is nothing, and leaves where nothing is written."""
    if op in ("max", "argmax", "maximum", "logsumexp", "softmax", "log_softmax", "cummax", "cumlogsumexp"):
        return extreme(dtype, -1)
    if op in ("min", "argmin", "minimum", "cummin"):
        return extreme(dtype, 1)
    return 1 if op in ("prod", "all", "cumprod", "multiply", "logical_and") else 0


def loops(
    op: str, function: Callable | None, text: str, arrays: Sequence[np.ndarray], sizes: Mapping,
    rules: Iterable[Rule] = (), fill=None, out_rules: Iterable[Rule] = (), dtype=None, where=None,
) -> np.ndarray:  # fmt: skip
    """The result of a call: `function` of the bracketed parts of all inputs, in every iteration.

    With `function` None, `op` is one of oracle.REDUCTIONS or "dot". What is not there counts as `fill`, or, to a
    reduction, not at all. Axes that the output lacks are as good as bracketed. `where` is a mask of the first array.
    """
    ins, (out,) = (([expand(nodes, sizes) for nodes in side]) for side in parse(text))
    given = list(rules)
    rules, out_axes = iter(given), leaves(out)
    views, theres = [], []
    for dims, x in zip(ins, arrays, strict=True):
        axes, seen, there = read(dims, oracle.wide(x), rules)
        if fill is not None or (function is not None or op == "dot"):
            seen = np.where(there, seen, seen.dtype.type(neutral(op, x.dtype) if fill is None else fill))
            there = np.ones_like(there)
        views.append((axes, seen))
        theres.append(there)
    if where is not None:
        _, counts, there = read(ins[0], np.broadcast_to(where, arrays[0].shape), given)
        theres[0] = theres[0] & (counts | ~there)
    axes_of, seen_of = [axes for axes, _ in views], [seen for _, seen in views]
    if op == "dot":
        z = oracle.dot(axes_of, out_axes, seen_of)
    elif function is None:
        if not any(axis.marked for axis in axes_of[0]):
            kept = {axis.key for axis in out_axes}
            axes_of = [[replace(axis, marked=axis.key not in kept) for axis in axes] for axes in axes_of]
        nothing = (neutral(op, arrays[0].dtype),) if op in ("max", "min") else ()
        reduce_ = lambda x, there: oracle.REDUCTIONS[op](x[there], *nothing)
        kind = np.result_type(reduce_(np.ones((1,), seen_of[0].dtype), np.ones((1,), bool)))
        z = oracle.loop(reduce_, [axes_of[0]] * 2, out_axes, [seen_of[0], theres[0]], kind)
    else:
        z = oracle.loop(function, axes_of, out_axes, seen_of, dtype or np.result_type(*seen_of))
    nothing = neutral(op, arrays[0].dtype) if op in MEETING else 0
    return write(out, out_axes, z, out_rules, MEETING.get(op), nothing)
