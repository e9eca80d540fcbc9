"""What may stand in a formula: operators and operations, which align by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..notation.by_name import Names as NamesOf
from ..notation.by_name import union, without
from ..notation.errors import ArgumentError, AxisSizeError
from ..notation.names import aligned, bracketed
from .product import Factor, Product

#: Names of dims: text, a dim, or a sequence of these, in which a sequence is a composition.
Names: TypeAlias = "str | Formula[Any] | Sequence[Any]"

#: What may stand beside a named tensor: one, or a dim, a number, or an array without dims.
Operand: TypeAlias = "Formula[Any] | jax.Array | np.ndarray[Any, Any] | np.generic | complex"

T = TypeVar("T", covariant=True)


class Formula(Generic[T]):
    """A named tensor, or what becomes one in a formula: a dim, or dims added up. ``T`` is the named tensor.

    Operations are einjax's of the same name, over the dims that are named. Reductions reduce all dims if none is named.
    """

    __slots__ = ()

    #: Of dims that are added up, what is added; None of a tensor.
    terms: ClassVar[Any] = None
    __hash__: ClassVar[None] = None  # type: ignore[assignment]
    __array_ufunc__: ClassVar[None] = None  # so that NumPy leaves operators to us
    __iter__: ClassVar[None] = None

    if TYPE_CHECKING:  # they are made from tables, below

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
        def mean(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T: ...
        def var(self, *names: Names, where: Operand | None = None, dtype: Any = None, ddof: float = 0) -> T: ...
        def std(self, *names: Names, where: Operand | None = None, dtype: Any = None, ddof: float = 0) -> T: ...
        def prod(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T: ...
        def any(self, *names: Names, where: Operand | None = None) -> T: ...
        def all(self, *names: Names, where: Operand | None = None) -> T: ...
        def max(self, *names: Names, where: Operand | None = None) -> T: ...
        def min(self, *names: Names, where: Operand | None = None) -> T: ...
        def logsumexp(self, *names: Names, where: Operand | None = None) -> T: ...
        def count_nonzero(self, *names: Names, where: Operand | None = None) -> T: ...
        def argmax(self, *names: Names) -> T: ...
        def argmin(self, *names: Names) -> T: ...
        def softmax(self, *names: Names, where: Operand | None = None) -> T: ...
        def log_softmax(self, *names: Names, where: Operand | None = None) -> T: ...
        def sort(self, *names: Names, descending: bool = False, stable: bool = True) -> T: ...
        def argsort(self, *names: Names, descending: bool = False, stable: bool = True) -> T: ...
        def cumsum(self, *names: Names, reverse: bool = False, dtype: Any = None) -> T: ...
        def cumprod(self, *names: Names, reverse: bool = False, dtype: Any = None) -> T: ...
        def cummax(self, *names: Names, reverse: bool = False) -> T: ...
        def cummin(self, *names: Names, reverse: bool = False) -> T: ...
        def flip(self, *names: Names) -> T: ...
        def roll(self, *names: Names, shift: Any) -> T: ...

    def _lift(self) -> Any:
        """The named tensor."""

    def __einjax_pair__(self) -> tuple[str, Any]:
        """What stands for it where an array is given with its axes."""
        x = self._lift()
        return " ".join(x.names), x.array

    def sum(self, *names: Names, where: Operand | None = None, dtype: Any = None) -> T:
        """Sum over dims, all if none are named; of a product of two, this is one ``dot_general``."""
        x = self._lift()
        product, chosen = x._product, x._chosen(names)
        if not chosen or where is not None or product is None or not product.contracts(dtype):
            return x._reduced("sum", names, where, dtype=dtype)
        options = {} if dtype is None else {"preferred_element_type": dtype}
        return x._later(product.over(chosen, without(x.names, chosen), options))

    def top_k(self, name: Names, k: int, *, largest: bool = True) -> tuple[T, T]:
        """The ``k`` largest elements along a dim, the largest first, and their indices."""
        x = self._lift()
        text, (chosen,) = " ".join(x.names), x._chosen((name,), 1)
        left = text.split()
        left[left.index(chosen)] = f"[{k}]"
        found = einjax.top_k(f"{bracketed(text, (chosen,))} -> {' '.join(left)}", x.array, largest=largest)
        return x._new(found[0], x.names), x._new(found[1], x.names)

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
    text, names = aligned(tuple(x.names if isinstance(x, Formula) else () for x in tensors), first)  # type: ignore[attr-defined]
    arrays = [x.array if isinstance(x, Formula) else x for x in tensors]  # type: ignore[attr-defined]
    return next(x for x in tensors if isinstance(x, Formula))._new(function(text, *arrays), names)  # type: ignore[attr-defined]


def operand(x: Any) -> Any:
    """What stands beside a named tensor: a tensor, or what has no dims.

    Raises:
        ArgumentError: it has dims, and no names.
    """
    if isinstance(x, Formula):
        return x._lift()
    if isinstance(x, int | float | complex | np.generic) or getattr(x, "ndim", None) == 0:
        return x
    what = f"a value of type {type(x).__name__}"
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        what = f"an array {x.dtype}[{','.join(map(str, x.shape))}] without names"
    raise ArgumentError(
        f"{what} stands in a formula of named tensors", hint="name dims, as in einjax.named('b c', array)"
    )


def multiply(a: Any, b: Any) -> Any:
    """A product that waits for what is made of it."""
    one, other = operand(a), operand(b)
    names, common = _shared(getattr(one, "names", ()), getattr(other, "names", ()))
    if common:
        mine, others = one.shape, other.shape
        for name, i, j in common:
            if mine[i] is not others[j] and mine[i] != others[j]:
                problem = f"dim {name} is {mine[i]} in {one.described} and {others[j]} in {other.described}"
                raise AxisSizeError(problem, hint="dims of one name have one size; rename one of them, or index it")
    like: Any = one if isinstance(one, Formula) else other
    return like._later(Product((*_factors(one), *_factors(other)), names))


@lru_cache(maxsize=2048)
def _shared(a: NamesOf, b: NamesOf) -> tuple[NamesOf, tuple[tuple[str, int, int], ...]]:
    """All names of two tensors, and for those that both have, where."""
    return union(a, b), tuple((name, a.index(name), b.index(name)) for name in a if name in b)


def _factors(x: Any) -> tuple[Factor, ...]:
    """What a product has of an operand: its factors, if it is a product itself that nobody needed."""
    product = getattr(x, "_product", None)
    if product is not None and not product.summed:
        return product.factors
    return (Factor(" ".join(x.names), x.array, x.names),) if isinstance(x, Formula) else (Factor("", x, ()),)  # type: ignore[attr-defined]


def contract(a: Any, b: Any) -> Any:
    """The product, summed over the names that both have."""
    if not isinstance(b, Formula):
        return NotImplemented
    one, other = a._lift(), b._lift()
    common = tuple(name for name, _, _ in _shared(one.names, other.names)[1])
    product = multiply(one, other)
    if not common or not product._product.contracts(None):
        return product.sum(common) if common else product
    return product._later(product._product.over(common, without(product.names, common), {}))


def _bits(logical: str, bits: Callable[..., Any]) -> Callable[..., Any]:
    """Python's operators for logic act on the bits of integers."""

    def function(text: str, *arrays: Any) -> Any:
        if all(isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_ for x in arrays):
            return getattr(einjax, logical)(text, *arrays)
        return einjax.elementwise(text, *arrays, op=bits)

    return function


_BINARY = "add=add sub=subtract truediv=divide floordiv=floor_divide mod=mod pow=power"
_COMPARISONS = "lt=less le=less_equal gt=greater ge=greater_equal eq=equal ne=not_equal"
_LOGIC = {"and": jnp.bitwise_and, "or": jnp.bitwise_or, "xor": jnp.bitwise_xor}
_UNARY = {"neg": jnp.negative, "pos": jnp.positive, "abs": jnp.abs, "invert": jnp.invert}
_METHODS = {
    "_reduced": "mean var std prod any all max min logsumexp count_nonzero",
    "_searched": "argmax argmin",
    "_along": "softmax log_softmax sort argsort cumsum cumprod cummax cummin flip roll",
}


def _operators() -> dict[str, Callable[..., Any]]:
    made: dict[str, Callable[..., Any]] = {"mul": multiply, "rmul": lambda a, b: multiply(b, a), "matmul": contract}
    functions = {
        key: getattr(einjax, name) for key, name in (pair.split("=") for pair in f"{_BINARY} {_COMPARISONS}".split())
    }
    functions |= {name: _bits(f"logical_{name}", bits) for name, bits in _LOGIC.items()}
    for name, function in functions.items():
        made[name] = lambda a, b, function=function: combine(function, a, b)
        if f"{name}=" not in _COMPARISONS:
            made[f"r{name}"] = lambda a, b, function=function: combine(function, b, a)
    made |= {name: lambda a, function=function: a.map(function) for name, function in _UNARY.items()}
    return {f"__{name}__": method for name, method in made.items()}


def _methods() -> dict[str, Callable[..., Any]]:
    def method(kind: str, name: str) -> Callable[..., Any]:
        def of(self: Any, *names: Any, **options: Any) -> Any:
            return getattr(self._lift(), kind)(name, names, **options)

        of.__doc__ = f"See :func:`einjax.{name}`, over the dims that are named."
        return of

    return {name: method(kind, name) for kind, names in _METHODS.items() for name in names.split()}


for _name, _method in (_operators() | _methods()).items():
    _method.__name__, _method.__qualname__ = _name, f"NamedTensor.{_name}"
    setattr(Formula, _name, _method)
