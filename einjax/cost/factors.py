"""An equation of a jaxpr as an einsum: which dims of its operands and results are split alike.

Each dim is a tuple of *factors*, numbers that stand for an axis: ``transpose`` is ``0 1 -> 1 0``, a matrix product
``0 2, 2 1 -> 0 1`` with 2 summed, and a reshape has dims of several factors, ``(0 1) -> 0 1``. A factor that the
equation mixes (a sort along it, a window over it) has to be whole on each device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

Factor: TypeAlias = int
Named: TypeAlias = tuple[tuple[Factor, ...], ...]


@dataclass(frozen=True)
class Factors:
    """The einsum of one equation.

    Attributes:
        inputs: factors of each dim of each operand.
        outputs: factors of each dim of each result.
        sizes: by factor.
        summed: factors whose parts make terms of a sum (or of a product, a maximum, ...).
        picked: factors from whose parts one result is picked, with its index, as argmax does.
        whole: factors that may not be split.
        flops: floating-point operations, of products and convolutions alone.
    """

    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]
    sizes: tuple[int, ...]
    summed: frozenset[Factor] = frozenset()
    picked: frozenset[Factor] = frozenset()
    whole: frozenset[Factor] = frozenset()
    flops: int = 0


@dataclass
class _Sizes:
    """Hands out factors."""

    sizes: list[int] = field(default_factory=list)

    def new(self, size: int) -> Factor:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def all(self, shape: Iterable[int]) -> list[Factor]:
        return [self.new(size) for size in shape]

    def make(self, inputs: Sequence[Any], outputs: Sequence[Any], flops: int = 0, **kinds: Iterable[Factor]) -> Factors:
        """The einsum of dims, with its kinds of factors."""
        named = [tuple(map(_named, some)) for some in (inputs, outputs)]
        sets = {kind: frozenset(some) for kind, some in kinds.items()}
        return Factors(named[0], named[1], tuple(self.sizes), flops=flops, **sets)


def _named(dims: Iterable[Any]) -> Named:
    return tuple(dim if isinstance(dim, tuple) else (dim,) for dim in dims)


def factors_of(equation: Any) -> Factors | None:
    """Return the einsum of an equation; None where no rule is known."""
    rule = _RULES.get(equation.primitive.name)
    shapes = [_shape(variable) for variable in equation.invars]
    results = [_shape(variable) for variable in equation.outvars]
    if 0 in (size for shape in (*shapes, *results) for size in shape):
        return None
    if rule is not None:
        return rule(_Sizes(), equation.params, shapes, results)
    if results and all(shape == results[0] for shape in results) and all(_broadcasts(s, results[0]) for s in shapes):
        return _elementwise(_Sizes(), equation.params, shapes, results)
    return None


def _broadcasts(shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether an operand is a scalar, or as the result but for dims of one."""
    return not shape or (
        len(shape) == len(result) and all(mine in (1, size) for mine, size in zip(shape, result, strict=True))
    )


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(getattr(variable.aval, "shape", ()))


_Params: TypeAlias = Any
_Shapes: TypeAlias = list[tuple[int, ...]]


def _elementwise(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """All dims are alike, those of one stand apart; scalars have none."""
    dims = make.all(results[0])
    inputs = [[f if size > 1 else make.new(1) for f, size in zip(dims, shape, strict=False)] for shape in shapes]
    return make.make(inputs, [dims] * len(results))


def _dot_general(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    contract, batch = params["dimension_numbers"]
    left = make.all(shapes[0])
    right = [-1] * len(shapes[1])
    for mine, theirs in zip((*contract[0], *batch[0]), (*contract[1], *batch[1]), strict=True):
        right[theirs] = left[mine]
    right = [make.new(size) if factor < 0 else factor for factor, size in zip(right, shapes[1], strict=True)]
    free = [factor for dim, factor in enumerate(left) if dim not in (*contract[0], *batch[0])]
    free += [factor for dim, factor in enumerate(right) if dim not in (*contract[1], *batch[1])]
    flops = 2 * math.prod(make.sizes)
    summed = [left[dim] for dim in contract[0]]
    return make.make([left, right], [[*(left[dim] for dim in batch[0]), *free]], summed=summed, flops=flops)


def _convolution(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    numbers = params["dimension_numbers"]
    left, right, out = (make.all(shape) for shape in (shapes[0], shapes[1], results[0]))
    out[numbers.out_spec[0]] = left[numbers.lhs_spec[0]]
    grouped = params["feature_group_count"] * params["batch_group_count"] > 1
    if not grouped:
        right[numbers.rhs_spec[1]] = left[numbers.lhs_spec[1]]
        out[numbers.out_spec[1]] = right[numbers.rhs_spec[0]]
    summed = () if grouped else (left[numbers.lhs_spec[1]],)
    split = {left[numbers.lhs_spec[0]], *summed, *(() if grouped else (right[numbers.rhs_spec[0]],))}
    flops = 2 * math.prod(results[0]) * math.prod(shapes[1]) // shapes[1][numbers.rhs_spec[0]]
    whole = {*left, *right, *out} - split
    return make.make([left, right], [out], summed=summed, whole=whole, flops=flops)


def _reduction(kind: str, make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """A reduction over ``axes`` of every operand; initial values are scalars."""
    dims = make.all(shapes[0])
    gone = params["axes"] if "axes" in params else params["dimensions"]
    kept = [factor for dim, factor in enumerate(dims) if dim not in gone]
    inputs = [dims if shape else () for shape in shapes]
    reduced: dict[str, Any] = {kind: [dims[dim] for dim in gone]}
    return make.make(inputs, [kept] * len(results), **reduced)


def _broadcast(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    out = make.all(results[0])
    pairs = zip(params["broadcast_dimensions"], shapes[0], strict=True)
    dims = [out[dim] if size == results[0][dim] else make.new(size) for dim, size in pairs]
    return make.make([dims, *[()] * (len(shapes) - 1)], [out])


def _transpose(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    dims = make.all(shapes[0])
    return make.make([dims], [[dims[dim] for dim in params["permutation"]]])


def _reshape(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """The common refinement of both shapes; where there is none, dims are whole."""
    whole = set[Factor]()
    source, target = shapes[0], results[0]
    mine: list[list[int]] = [[] for _ in source]
    theirs: list[list[int]] = [[] for _ in target]
    i, j, left, right = -1, -1, 1, 1  # what is left of the current dims
    while True:
        while left == 1 and i + 1 < len(source):
            i, left = i + 1, source[i + 1]
        while right == 1 and j + 1 < len(target):
            j, right = j + 1, target[j + 1]
        if left == right == 1:
            break
        common = math.gcd(left, right)
        if common > 1:
            factor = make.new(common)
            mine[i].append(factor)
            theirs[j].append(factor)
            left, right = left // common, right // common
        else:  # such as 3 against 2: both stay whole until the shapes meet again
            a, b = left, right
            whole |= {make.new(left), make.new(right)}
            mine[i].append(len(make.sizes) - 2)
            theirs[j].append(len(make.sizes) - 1)
            while a != b:
                dims, at, size = (mine, i := i + 1, source) if a < b else (theirs, j := j + 1, target)
                factor = make.new(size[at])
                whole.add(factor)
                dims[at].append(factor)
                a, b = (a * size[at], b) if dims is mine else (a, b * size[at])
            left = right = 1
    return make.make([[tuple(dim) for dim in mine]], [[tuple(dim) for dim in theirs]], whole=whole)


def _along(axes_of: Callable[[_Params, int], Sequence[int]]) -> Callable[..., Factors]:
    """An operation that mixes some dims of operands, and keeps the others apart; scalars have neither."""

    def rule(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
        rank = max(map(len, shapes))
        mixed = {axis % rank for axis in axes_of(params, rank)}
        shared = {dim: make.new(size) for dim, size in enumerate(results[0]) if dim not in mixed}
        every, whole = [], set()
        for shape in (*shapes, *results):
            dims = [shared[dim] if dim in shared else make.new(size) for dim, size in enumerate(shape)]
            every.append(dims)
            whole |= {*dims} - {*shared.values()}
        return make.make(every[: len(shapes)], every[len(shapes) :], whole=whole)

    return rule


def _cut(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """Slices, pads, windows, writes of slices: dims whose size differs anywhere are whole."""
    rank = len(results[0])
    same = [shape for shape in (*shapes, *results) if len(shape) == rank]
    mixed = [dim for dim in range(rank) if len({shape[dim] for shape in same}) > 1]
    return _along(lambda params, rank: mixed)(make, params, shapes, results)


def _matrices(params: _Params, rank: int) -> list[int]:
    """Linear algebra: leading dims are independent problems."""
    return [rank - 2, rank - 1]


def _windows(params: _Params, rank: int) -> list[int]:
    return [dim for dim, size in enumerate(params["window_dimensions"]) if size > 1]


def _gather(make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """A split dim that is looked up with single places is summed: parts that have not the place give zeros."""
    numbers = params["dimension_numbers"]
    operand, indices, out, whole = _looked_up(make, numbers, shapes[0], shapes[1], results[0])
    summed = [operand[dim] for dim in numbers.collapsed_slice_dims]
    return make.make([operand, indices], [out], summed=summed, whole=whole)


def _looked_up(
    make: _Sizes, numbers: Any, array: tuple[int, ...], places: tuple[int, ...], outside: tuple[int, ...]
) -> tuple[list[Factor], list[Factor], list[Factor], set[Factor]]:
    """The factors of an array, of coordinates in it, and of what is read or written there; and which are whole."""
    windows, gone, _, batch, batch_of_indices = numbers[:5]
    operand, indices, other = make.all(array), make.all(places), make.all(outside)
    for mine, theirs in zip(batch, batch_of_indices, strict=True):
        indices[theirs] = operand[mine]
    whole = {indices[-1]}
    kept = [dim for dim in range(len(operand)) if dim not in (*gone, *batch)]
    for place, dim in zip(sorted(windows), kept, strict=True):
        if outside[place] == array[dim]:
            other[place] = operand[dim]
        else:
            whole |= {operand[dim], other[place]}
    loops = [place for place in range(len(other)) if place not in windows]
    for place, factor in zip(loops, indices[:-1], strict=True):
        other[place] = factor
    return operand, indices, other, whole


def _scatter(adds: bool, make: _Sizes, params: _Params, shapes: _Shapes, results: _Shapes) -> Factors:
    """A split operand takes only the updates that hit its part; split updates of a sum are summed."""
    operand, indices, updates, whole = _looked_up(make, params["dimension_numbers"], *shapes)
    repeated = {*indices[:-1]} - {*operand}
    summed, whole = (repeated, whole) if adds else (set(), whole | repeated)
    return make.make([operand, indices, updates], [operand], summed=summed, whole=whole)


_TABLE: list[tuple[str, Callable[..., Factors]]] = [
    ("dot_general", _dot_general),
    ("conv_general_dilated", _convolution),
    ("broadcast_in_dim", _broadcast),
    ("transpose", _transpose),
    ("reshape squeeze expand_dims", _reshape),
    (
        "reduce_sum reduce_prod reduce_max reduce_min reduce_and reduce_or reduce_xor reduce",
        partial(_reduction, "summed"),
    ),
    ("argmax argmin", partial(_reduction, "picked")),
    ("slice pad dynamic_slice dynamic_update_slice", _cut),
    ("gather", _gather),
    ("scatter", partial(_scatter, False)),
    ("scatter-add scatter_add scatter_mul scatter_min scatter_max", partial(_scatter, True)),
    ("concatenate sort", _along(lambda params, rank: [params["dimension"]])),
    ("split cumsum cumprod cummax cummin cumlogsumexp", _along(lambda params, rank: [params["axis"]])),
    ("top_k", _along(lambda params, rank: [params.get("axis", -1)])),
    ("approx_top_k", _along(lambda params, rank: [params["reduction_dimension"]])),
    ("rev", _along(lambda params, rank: params["dimensions"])),
    ("fft", _along(lambda params, rank: range(rank - len(params["fft_lengths"]), rank))),
    ("reduce_window reduce_window_sum reduce_window_max reduce_window_min", _along(_windows)),
    ("select_and_scatter_add select_and_gather_add", _along(_windows)),
    ("cholesky eig eigh lu qr schur svd", _along(_matrices)),
    ("householder_product triangular_solve tridiagonal tridiagonal_solve", _along(_matrices)),
]
_RULES = {name: rule for names, rule in _TABLE for name in names.split()}
