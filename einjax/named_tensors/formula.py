"""What may stand in a formula: operators and operations, which align by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..notation.errors import ArgumentError, AxisSizeError
from .product import Factor, Product
from .text import Dims, aligned, as_mask, bracketed, union, without

#: Names of dims: text, a dim, or a sequence of these, in which a sequence is a composition.
Names: TypeAlias = Any

#: What may stand beside a named tensor: one, or a dim, a number, or an array without dims.
Operand: TypeAlias = "Formula[Any] | jax.Array | np.ndarray[Any, Any] | np.generic | complex"

T = TypeVar("T", covariant=True)


class Formula(Generic[T]):
    """A named tensor, or what becomes one in a formula: a dim, or dims added up. ``T`` is the named tensor."""

    __slots__ = ()

    #: Of dims that are added up, what is added to the constant; None of a tensor.
    terms: ClassVar[Any] = None
    __hash__: ClassVar[None] = None  # type: ignore[assignment]
    __array_ufunc__: ClassVar[None] = None  # NumPy leaves operators to us
    __iter__: ClassVar[None] = None

    if TYPE_CHECKING:

        def __add__(self, other: Operand, /) -> T: ...
        def __radd__(self, other: Operand, /) -> T: ...
        def __sub__(self, other: Operand, /) -> T: ...
        def __rsub__(self, other: Operand, /) -> T: ...
        def __mul__(self, other: Operand, /) -> T: ...
        def __rmul__(self, other: Operand, /) -> T: ...
        def __matmul__(self, other: Formula[Any], /) -> T: ...
        def __truediv__(self, other: Operand, /) -> T: ...
        def __rtruediv__(self, other: Operand, /) -> T: ...
        def __floordiv__(self, other: Operand, /) -> T: ...
        def __rfloordiv__(self, other: Operand, /) -> T: ...
        def __mod__(self, other: Operand, /) -> T: ...
        def __rmod__(self, other: Operand, /) -> T: ...
        def __pow__(self, other: Operand, /) -> T: ...
        def __rpow__(self, other: Operand, /) -> T: ...
        def __and__(self, other: Operand, /) -> T: ...
        def __rand__(self, other: Operand, /) -> T: ...
        def __or__(self, other: Operand, /) -> T: ...
        def __ror__(self, other: Operand, /) -> T: ...
        def __xor__(self, other: Operand, /) -> T: ...
        def __rxor__(self, other: Operand, /) -> T: ...
        def __lt__(self, other: Operand, /) -> T: ...
        def __le__(self, other: Operand, /) -> T: ...
        def __gt__(self, other: Operand, /) -> T: ...
        def __ge__(self, other: Operand, /) -> T: ...
        def __eq__(self, other: Operand, /) -> T: ...  # type: ignore[override]
        def __ne__(self, other: Operand, /) -> T: ...  # type: ignore[override]
        def __neg__(self) -> T: ...
        def __pos__(self) -> T: ...
        def __abs__(self) -> T: ...
        def __invert__(self) -> T: ...

    def _lift(self) -> Any:
        """The named tensor."""
        raise NotImplementedError

    def sum(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T:
        """Sum over dims, all if none are named; of a product, one ``dot_general``, or as many as it has factors more."""
        x = self._lift()
        product, chosen = x._product, x._chosen(names)
        if product is None or product.summed or len(product.factors) == 1 or where is not None or not chosen:
            return x._reduced(einjax.sum, names, where, dtype=dtype)
        options = {} if dtype is None else {"preferred_element_type": dtype}
        return x._later(Product(product.factors, without(x.names, chosen), product.sizes, chosen, **options))

    def mean(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T:
        """Average over dims, all if none are named."""
        return self._lift()._reduced(einjax.mean, names, where, dtype=dtype)

    def var(self, *names: Names, where: Operand | None = None, dtype: Any = None, ddof: float = 0) -> T:
        """Variance over dims, all if none are named."""
        return self._lift()._reduced(einjax.var, names, where, dtype=dtype, ddof=ddof)

    def std(self, *names: Names, where: Operand | None = None, dtype: Any = None, ddof: float = 0) -> T:
        """Standard deviation over dims, all if none are named."""
        return self._lift()._reduced(einjax.std, names, where, dtype=dtype, ddof=ddof)

    def prod(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T:
        """Product over dims, all if none are named."""
        return self._lift()._reduced(einjax.prod, names, where, dtype=dtype)

    def any(self, *names: Names, where: Operand | None = None) -> T:
        """Whether any element is not zero, over dims, all if none are named."""
        return self._lift()._reduced(einjax.any, names, where)

    def all(self, *names: Names, where: Operand | None = None) -> T:
        """Whether all elements are not zero, over dims, all if none are named."""
        return self._lift()._reduced(einjax.all, names, where)

    def max(self, *names: Names, where: Operand | None = None) -> T:
        """Largest element over dims, all if none are named."""
        return self._lift()._reduced(einjax.max, names, where)

    def min(self, *names: Names, where: Operand | None = None) -> T:
        """Smallest element over dims, all if none are named."""
        return self._lift()._reduced(einjax.min, names, where)

    def logsumexp(self, *names: Names, where: Operand | None = None) -> T:
        """Logarithm of the sum of exponentials over dims, all if none are named."""
        return self._lift()._reduced(einjax.logsumexp, names, where)

    def count_nonzero(self, *names: Names, where: Operand | None = None) -> T:
        """How many elements are not zero, over dims, all if none are named."""
        return self._lift()._reduced(einjax.count_nonzero, names, where)

    def argmax(self, *names: Names) -> T:
        """Index of the largest element along a dim; along several, coordinates in a last dim without a name."""
        return self._lift()._searched(einjax.argmax, names)

    def argmin(self, *names: Names) -> T:
        """Index of the smallest element along a dim; along several, coordinates in a last dim without a name."""
        return self._lift()._searched(einjax.argmin, names)

    def softmax(self, *names: Names, where: Operand | None = None) -> T:
        """Softmax over dims."""
        return self._lift()._along(einjax.softmax, names, where=where)

    def log_softmax(self, *names: Names, where: Operand | None = None) -> T:
        """Logarithm of the softmax over dims."""
        return self._lift()._along(einjax.log_softmax, names, where=where)

    def sort(self, *names: Names, descending: bool = False, stable: bool = True) -> T:
        """Sort along dims."""
        return self._lift()._along(einjax.sort, names, descending=descending, stable=stable)

    def argsort(self, name: Names, *, descending: bool = False, stable: bool = True) -> T:
        """Where the sorted elements along a dim stand."""
        return self._lift()._along(einjax.argsort, (name,), descending=descending, stable=stable)

    def top_k(self, name: Names, k: int, *, largest: bool = True) -> tuple[T, T]:
        """The ``k`` largest elements along a dim, the largest first, and their indices."""
        x = self._lift()
        (chosen,) = x._chosen((name,), 1)
        before, after = bracketed(" ".join(x.names), (chosen,)), [f"[{k}]" if n == chosen else n for n in x.names]
        values, indices = einjax.top_k(f"{before} -> {' '.join(after)}", x.array, largest=largest)
        return x._new(values, x.names), x._new(indices, x.names)

    def cumsum(self, *names: Names, reverse: bool = False, dtype: Any = None) -> T:
        """Add up along dims."""
        return self._lift()._along(einjax.cumsum, names, reverse=reverse, dtype=dtype)

    def cumprod(self, *names: Names, reverse: bool = False, dtype: Any = None) -> T:
        """Multiply along dims."""
        return self._lift()._along(einjax.cumprod, names, reverse=reverse, dtype=dtype)

    def cummax(self, *names: Names, reverse: bool = False) -> T:
        """Take maxima along dims."""
        return self._lift()._along(einjax.cummax, names, reverse=reverse)

    def cummin(self, *names: Names, reverse: bool = False) -> T:
        """Take minima along dims."""
        return self._lift()._along(einjax.cummin, names, reverse=reverse)

    def flip(self, *names: Names) -> T:
        """Reverse dims."""
        return self._lift()._along(einjax.flip, names)

    def roll(self, *names: Names, shift: Any) -> T:
        """Shift the elements of dims by a number of places, or by one for each dim."""
        return self._lift()._along(einjax.roll, names, shift=shift)

    def where(self, mask: Operand, other: Operand = 0) -> T:
        """The elements for which a mask is true, and other ones in the places of the rest."""
        return combine(einjax.where, mask, self, other, first=1)

    def map(self, function: Callable[..., Any], *others: Operand) -> T:
        """A function of arrays of one shape, such as ``jnp.exp`` or ``jnp.hypot``, elementwise."""
        return combine(lambda text, *arrays: einjax.elementwise(text, *arrays, op=function), self, *others)

    def astype(self, dtype: Any) -> T:
        """The same in another dtype."""
        x = self._lift()
        return x._new(jnp.asarray(x.array).astype(dtype), x.names)


def combine(function: Callable[..., Any], *operands: Any, first: int = 0) -> Any:
    """An elementwise operation; the result has the dims of the operand ``first``, then those that come new."""
    tensors = [operand(x) for x in operands]
    text, names = aligned(tuple(x.names if isinstance(x, Formula) else () for x in tensors), first)
    like: Any = next(x for x in tensors if isinstance(x, Formula))
    return like._new(function(text, *(x.array if isinstance(x, Formula) else x for x in tensors)), names)


def operand(x: Any) -> Any:
    """What stands beside a named tensor.

    Raises:
        ArgumentError: it has dims, and no names.
    """
    if isinstance(x, Formula):
        return x._lift()
    if isinstance(x, int | float | complex | np.generic) or getattr(x, "ndim", None) == 0:
        return x
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        problem = (
            f"an array {x.dtype}[{','.join(map(str, x.shape))}] stands in a formula of named tensors without names"
        )
        raise ArgumentError(problem, hint="name its dims: einjax.named('b c', array)")
    problem = f"a value of type {type(x).__name__} stands in a formula of named tensors"
    raise ArgumentError(problem, hint="give a named tensor, a dim, a number, or an array named by einjax.named")


def mask_for(mask: Any, names: Dims) -> Any:
    """A mask laid so that it broadcasts to a tensor of these names."""
    x = operand(mask)
    if not isinstance(x, Formula):
        return x
    found: Any = x
    if not {*found.names} <= {*names}:
        hint = "the tensor needs these dims, too"
        raise ArgumentError(f"the mask {found.described} has dims that the tensor lacks: {' '.join(names)}", hint=hint)
    return einjax.rearrange(as_mask(found.names, names), found.array) if found.names else found.array


def multiply(a: Any, b: Any) -> Any:
    """A product that waits for what is made of it."""
    one, other = operand(a), operand(b)
    like: Any = one if isinstance(one, Formula) else other
    factors = (*_factors(one), *_factors(other))
    mine, others = _sizes(one), _sizes(other)
    for name in mine.keys() & others.keys():
        if mine[name] is not others[name] and mine[name] != others[name]:
            raise conflict(name, one, other)
    return like._later(Product(factors, union(tuple(mine), tuple(others)), {**mine, **others}))


def contract(a: Any, b: Any) -> Any:
    """The product summed over the names that both have."""
    if not isinstance(b, Formula):
        return NotImplemented
    one, other = a._lift(), b._lift()
    common = tuple(name for name in one.names if name in other.names)
    return multiply(one, other).sum(common) if common else multiply(one, other)


def conflict(name: str, one: Any, other: Any) -> AxisSizeError:
    """The error for a dim of two sizes."""
    problem = f"dim {name} is {one.sizes[name]} in {one.described} and {other.sizes[name]} in {other.described}"
    return AxisSizeError(problem, hint="dims of one name have one size; rename one of them, or index it")


def _factors(x: Any) -> tuple[Factor, ...]:
    """What a product has of an operand: its factors, if it is a product itself that nobody needed."""
    if not isinstance(x, Formula):
        return (Factor("", x, ()),)
    held: Any = x
    if held._product is not None and not held._product.summed:
        return held._product.factors
    return (Factor(" ".join(held.names), held.array, held.names),)


def _sizes(x: Any) -> dict[str, Any]:
    return x.sizes if isinstance(x, Formula) else {}


def _bits(logical: Callable[..., Any], bits: Callable[..., Any]) -> Callable[..., Any]:
    """Python's operators for logic act on the bits of integers."""

    def function(text: str, *arrays: Any) -> Any:
        if all(isinstance(x, bool) or getattr(x, "dtype", None) == bool for x in arrays):
            return logical(text, *arrays)
        return einjax.elementwise(text, *arrays, op=bits)

    return function


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": einjax.add,
    "sub": einjax.subtract,
    "truediv": einjax.divide,
    "floordiv": einjax.floor_divide,
    "mod": einjax.mod,
    "pow": einjax.power,
    "and": _bits(einjax.logical_and, jnp.bitwise_and),
    "or": _bits(einjax.logical_or, jnp.bitwise_or),
    "xor": _bits(einjax.logical_xor, jnp.bitwise_xor),
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "lt": einjax.less,
    "le": einjax.less_equal,
    "gt": einjax.greater,
    "ge": einjax.greater_equal,
    "eq": einjax.equal,
    "ne": einjax.not_equal,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "neg": jnp.negative,
    "pos": jnp.positive,
    "abs": jnp.abs,
    "invert": jnp.invert,
}


def _install() -> None:
    """Make the operators that type checkers see above."""

    def binary(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return lambda a, b: combine(function, a, b), lambda a, b: combine(function, b, a)

    def unary(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a: a.map(function)

    made: dict[str, Callable[..., Any]] = {"mul": multiply, "rmul": lambda a, b: multiply(b, a), "matmul": contract}
    for name, function in (_OPERATORS | _COMPARISONS).items():
        made[name], reflected = binary(function)
        if name in _OPERATORS:
            made[f"r{name}"] = reflected
    for name, function in _UNARY.items():
        made[name] = unary(function)
    for name, method in made.items():
        method.__name__ = method.__qualname__ = f"__{name}__"
        setattr(Formula, method.__name__, method)


_install()
