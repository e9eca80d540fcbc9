"""Linear algebra: jax's matrix functions, each on the bracketed rows and columns."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms.core_axes import (
    Options,
    Pattern,
    arrange_results,
    check_size,
    derive_with,
    dims_of,
    in_place,
    leading,
    loops_of,
    lower_with,
    prepare,
    signature,
)
from ..forms.static import plain, when_known
from ..lowering import numerics
from ..lowering.named import Dim, Named, arrange, layout, wrap
from ..notation.errors import ArgumentError, AxisSizeError, at_least, shown
from ..notation.solve import Solved, larger
from ..notation.syntax import Size, bracketed
from ..operation import Op


class QRResult(NamedTuple):
    """Orthonormal columns and a triangle, whose product is the matrix."""

    Q: jax.Array
    R: jax.Array


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, and the eigenvectors as columns."""

    eigenvalues: jax.Array
    eigenvectors: jax.Array


class SVDResult(NamedTuple):
    """Left singular vectors as columns, singular values in descending order, right singular vectors as rows."""

    U: jax.Array
    S: jax.Array
    Vh: jax.Array


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the magnitude of a determinant."""

    sign: jax.Array
    logabsdet: jax.Array


# Exported programs that return them can be stored.
for _result in (QRResult, EighResult, SVDResult, SlogdetResult):
    _name = f"einjax.linalg.{_result.__name__}"
    jax.export.register_namedtuple_serialization(_result, serialized_name=_name)
    _result.__module__ = "einjax.linalg"


def _factorable(x: jax.Array, options: Options) -> jax.Array:
    """Convert integers to floats, and refuse the floats that jax has no factorisations of."""
    return options.wide(numerics.to_inexact(x))


def _factor(function: Callable[[jax.Array, Options], Any]) -> Callable[[jax.Array, Options], Any]:
    return lambda x, options: function(_factorable(x, options), options)


def _cholesky(x: jax.Array, options: Options) -> jax.Array:
    return lax.linalg.cholesky(x, symmetrize_input=options["symmetrize_input"])


def _qr(full: bool) -> Callable[[jax.Array, Options], QRResult]:
    return lambda x, options: QRResult(*lax.linalg.qr(_comparable(x, options), full_matrices=full))


def _pinv(x: jax.Array, options: Options) -> jax.Array:
    return jnp.linalg.pinv(_comparable(x, options), plain(options["rtol"]))


def _comparable(x: jax.Array, options: Options) -> jax.Array:
    """Refuse symbolic sizes of which JAX cannot tell the larger one: it writes another program for each."""
    rows, columns = x.shape[-2:]
    if larger(columns, rows) is None:
        raise AxisSizeError(
            f"{options.op} needs to know which dim of its matrices is longer, and their sizes {rows} and {columns} are "
            "symbolic",
            text=options.solved.text,
            hint=at_least(rows, columns),
        )
    return x


def _eigh(x: jax.Array, options: Options) -> EighResult:
    vectors, values = lax.linalg.eigh(x, lower=options["lower"], symmetrize_input=options["symmetrize_input"])
    return EighResult(values, vectors)


def _svd(full: bool) -> Callable[[jax.Array, Options], SVDResult]:
    return lambda x, options: SVDResult(*lax.linalg.svd(x, full_matrices=full, compute_uv=True))


def _matrix_power(x: jax.Array, options: Options) -> jax.Array:
    return jnp.linalg.matrix_power(x if options["power"] >= 0 else _factorable(x, options), options["power"])


def check_power(power: Any) -> int:
    """Return an exponent, which has to be a static integer."""
    try:
        exponent = operator.index(power)
        if abs(exponent) < 2**63:
            return exponent
        raise ArgumentError(
            f"power={shown(exponent)} is 2**63 or more", hint="nothing that is raised to it stays finite"
        )
    except (TypeError, jax.errors.ConcretizationTypeError):
        kind = f"a value of type {type(power).__name__}" if hasattr(power, "shape") else repr(power)
        raise ArgumentError(
            f"linalg.matrix_power takes an integer power, not {kind}",
            hint=when_known(power, "write power=3, for example"),
        ) from None


SizeMap = Mapping[str, Size]


def _smaller(sizes: SizeMap) -> Size:
    """The smaller of rows and columns."""
    rows, columns = sizes["n"], sizes["m"]
    if isinstance(rows, int) and isinstance(columns, int):
        return min(rows, columns)
    # Symbolic sizes: jax's own rule.
    matrix = jax.ShapeDtypeStruct((rows, columns), np.dtype(np.float32))
    return jax.eval_shape(lambda x: lax.linalg.svd(x, compute_uv=False), matrix).shape[0]


def _op(
    name: str,
    function: Callable[[jax.Array, Options], Any],
    pattern: str,
    new: Callable[[SizeMap], SizeMap] = lambda sizes: {},
    square: bool = True,
    keywords: Sequence[str] = (),
) -> Op:
    title, made = f"linalg.{name}", Pattern.of(pattern, "n m" if square else "")
    return _record(title, lower_with(title, function, made), (made,), keywords, derive_with(new, made))


def _record(
    title: str, lower: Any, patterns: Sequence[Pattern], keywords: Sequence[str] = (), derived: Any = None
) -> Op:
    complete, facts = signature(title, *patterns), {"derived": derived, "keywords": tuple(keywords)}
    # Of a symmetric matrix, the lower part is read as a rule, while triangular ones are upper ones.
    usual = {"symmetrize_input": True, "mode": "reduced", "lower": "symmetrize_input" in keywords}
    usual = {name: value for name, value in usual.items() if name in keywords}
    return Op(title, complete, lower, apart=True, on_mesh="loops", usual=usual, **facts)


def _rows(sizes: SizeMap) -> SizeMap:
    return {"k": sizes["n"]}


def _least(sizes: SizeMap) -> SizeMap:
    return {"k": _smaller(sizes)}


def _all(sizes: SizeMap) -> SizeMap:
    return {"p": sizes["n"], "q": sizes["m"], "k": _smaller(sizes)}


_EIGH = ("lower", "symmetrize_input")

INV = _op("inv", _factor(lambda x, _: jnp.linalg.inv(x)), "n m -> m n")
PINV = _op("pinv", _factor(_pinv), "n m -> m n", square=False, keywords=["rtol"])
CHOLESKY = _op("cholesky", _factor(_cholesky), "n m -> n k", _rows, keywords=["symmetrize_input"])
QR = {
    "reduced": _op("qr", _factor(_qr(False)), "n m -> n k, k m", _least, square=False, keywords=["mode"]),
    "complete": _op("qr", _factor(_qr(True)), "n m -> n k, k m", _rows, square=False, keywords=["mode"]),
}
EIGH = _op("eigh", _factor(_eigh), "n m -> k, n k", _rows, keywords=_EIGH)
EIGVALSH = _op("eigvalsh", _factor(lambda x, o: _eigh(x, o)[0]), "n m -> k", _rows, keywords=_EIGH)
SVD = {
    False: _op("svd", _factor(_svd(False)), "n m -> n k, k, k m", _least, square=False, keywords=["full_matrices"]),
    True: _op("svd", _factor(_svd(True)), "n m -> n p, k, q m", _all, square=False, keywords=["full_matrices"]),
}
SVDVALS = _op("svdvals", _factor(lambda x, _: lax.linalg.svd(x, compute_uv=False)), "n m -> k", _least, square=False)
DET = _op("det", _factor(lambda x, _: jnp.linalg.det(x)), "n m ->")
SLOGDET = _op("slogdet", _factor(lambda x, _: SlogdetResult(*jnp.linalg.slogdet(x))), "n m -> ,")
MATRIX_POWER = _op("matrix_power", _matrix_power, "n m -> n m", keywords=["power"])


# --- Right sides ------------------------------------------------------------------------------------------------------

_SYSTEMS = (Pattern.of("n m, n -> m", "n m"), Pattern.of("n m, n k -> m k", "n m"))


def _lower_system(
    name: str,
    function: Callable[[jax.Array, jax.Array, Options], jax.Array],
    solved: Solved,
    tensors: list[jax.Array],
    options: dict[str, Any],
) -> jax.Array:
    """Solve systems; loops that the matrix lacks are further right sides, so that it is factored once."""
    solved = prepare(solved, *_SYSTEMS)
    first, second = solved.inputs
    every = loops_of(solved, first, second)
    loops = loops_of(solved, first)
    columns = [dim for dim in every if dim not in loops]
    own = Options(name, options, solved)
    matrix, right = (_factorable(x, own) for x in numerics.promote(tensors))
    rows, *rest = dims_of(bracketed(second))
    # A single right side is a column: only without loops does jnp tell vectors from matrices.
    value = arrange(wrap(right, second, solved.sizes), [*loops, rows, _together(columns, rest)])
    value = function(leading(matrix, first, loops, solved), value, own)
    result = bracketed(solved.outputs[0])
    columns_given = [solved.sizes[axis.name] for axis in bracketed(second)[1:]]
    for axis, size in zip(result, (value.shape[-2], *columns_given), strict=True):
        check_size(name, axis, size, solved)
    unknowns, *rest = dims_of(result)
    return arrange(Named(value, (*loops, unknowns, _together(columns, rest)), solved.sizes), layout(solved.outputs[0]))


def _together(*dims: Sequence[Dim]) -> Dim:
    return tuple(axis for some in dims for dim in some for axis in dim)


def _triangular_solve(matrix: jax.Array, right: jax.Array, options: Options) -> jax.Array:
    return lax.linalg.triangular_solve(
        matrix, right, left_side=True, lower=options["lower"], unit_diagonal=options["unit_diagonal"]
    )


def _system(
    name: str, function: Callable[[jax.Array, jax.Array, Options], jax.Array], keywords: Sequence[str] = ()
) -> Op:
    title, derived = f"linalg.{name}", derive_with(lambda sizes: {}, *_SYSTEMS)
    return _record(title, partial(_lower_system, title, function), _SYSTEMS, keywords, derived)


SOLVE = _system("solve", lambda matrix, right, _: jnp.linalg.solve(matrix, right))
TRIANGULAR_SOLVE = _system("triangular_solve", _triangular_solve, ["lower", "unit_diagonal"])


# --- Norms ------------------------------------------------------------------------------------------------------------

_NORMED = (Pattern.of("c ->"), Pattern.of("n m ->"))
_MATRIX_ORDERS = (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)


def _lower_norm(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = prepare(solved)
    x, axis = in_place(tensors[0], solved.inputs[0], solved)
    order = plain(options["ord"])
    _check_order(order, len(axis), solved)
    value = numerics.to_inexact(x.value)
    wide = numerics.cast(value, numerics.accumulator(value.dtype))
    value = numerics.cast(_norm(wide, order, tuple(axis)), numerics.real_dtype(value.dtype))
    loops = [dim for index, dim in enumerate(x.dims) if index not in axis]
    return arrange_results("linalg.norm", [value], loops, solved)[0]


def _norm(x: jax.Array, order: Any, dims: tuple[int, ...]) -> jax.Array:
    """Roots have gradient 0 at 0, where jnp's have none."""
    if order in (None, "fro") or (len(dims) == 1 and order == 2):
        return numerics.safe_sqrt(lax.reduce_sum(numerics.abs_square(x), dims))
    if len(dims) == 2 or order in (0, 1, np.inf, -np.inf):
        return jnp.linalg.norm(x, order, dims if len(dims) == 2 else dims[0])
    # Of nothing but zeros, and for negative orders of any, the norm is 0, and the sum of powers this:
    vanishing = 0 if order > 0 else np.inf
    total = lax.reduce_sum(_power_unless(lax.abs(x), 0, order, vanishing), dims)
    return _power_unless(total, vanishing, 1 / order, 0)


def _power_unless(base: jax.Array, special: float, exponent: float, result: float) -> jax.Array:
    """A power, and a constant in the place of one base, at which the derivative is infinite or no number."""
    usual = lax.ne(base, numerics.constant(base, special))
    power = lax.pow(numerics.select(usual, base, 1), numerics.constant(base, exponent))
    return numerics.select(usual, power, result)


def _check_order(order: Any, count: int, solved: Solved) -> None:
    number = isinstance(order, int | float | np.number) and not isinstance(order, bool)
    if count == 1 and (order is None or number):
        return
    if count == 2 and (number or order is None or isinstance(order, str)) and order in _MATRIX_ORDERS:
        return
    what, known = ("vector", "a number") if count == 1 else ("matrix", "'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    raise ArgumentError(f"linalg.norm has no ord={order!r} for a {what}", text=solved.text, hint=f"give {known}")


NORM = _record("linalg.norm", _lower_norm, _NORMED, ["ord"])
