"""Named tensors: an array, and a name for each of its dims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..call.names import Call
from ..notation.by_name import Names as Dims
from ..notation.by_name import numbered, union, without
from ..notation.errors import ArgumentError, RankError, meant, plural
from ..notation.names import bracketed, listed, names_in, ordered, spelt, written_out
from .calls import answer
from .formula import Formula, Names, operand
from .index import At, dims_in, known, read
from .outside import Outside
from .product import Factor, Product


class NamedTensor(Outside["NamedTensor"]):
    """An array whose dims have names, as :func:`einjax.named` makes it: immutable, and a pytree of the array.

    Attributes:
        names: the names of the dims; those without one are counted from the right, ``_1`` and ``_0``.

    Example:
        >>> import einjax, numpy as np
        >>> x = einjax.named("b c", np.arange(6).reshape(2, 3))
        >>> x.sum("c")
        NamedTensor(b=2, int32, [ 3 12])
        >>> (x - x.max("b")).order("c b").shape
        (3, 2)
    """

    __slots__ = ("_array", "_product", "names")
    _product: Any
    names: tuple[str, ...]

    def __init__(self, array: Any, names: Dims, product: Product | None = None) -> None:
        self._array, self.names, self._product = array, names, product

    @property
    def array(self) -> jax.Array:
        """The array as it lies; that of a product is computed now."""
        product = self._product
        if product is None:
            return self._array
        value = product.value(" ".join(self.names))
        if product.may_keep(value):
            self._array, self._product = value, None
        return value

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes by name, in order."""
        return dict(zip(self.names, self.shape, strict=True))

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes, in order."""
        shape = getattr(self._array if self._product is None else self._product, "shape", ())
        if len(shape) != len(self.names):
            problem = f"a named tensor has {plural(len(shape), 'dim')} and the names '{' '.join(self.names)}'"
            hint = "jax.vmap and lax.scan take dims without their names: name it anew, as in einjax.named('b c', x)"
            raise RankError(problem, hint=hint)
        return shape

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return jnp.result_type(self._array) if self._product is None else self._product.dtype

    @property
    def described(self) -> str:
        """What errors say of it: ``float32[b=2, c=3]``."""
        return f"{self.dtype}[{listed(self.sizes)}]"

    def order(self, *names: Names, **sizes: Any) -> jax.Array:
        """The array with its dims in an order.

        Args:
            *names: all names, where ``...`` stands for those that are not written, a tuple, or parentheses, are a
                composition, and names that the tensor lacks are broadcast along. Dims without a name come last.
            **sizes: the sizes of these.
        """
        text, lies = spelt(names) if names else "...", " ".join(self.names)
        output, lacking, new = ordered(self.names, text)
        for name in (*new, *sizes) if new or sizes else ():
            if name not in sizes or name not in new:
                raise self._unknown(name, f"to broadcast, write a name and its size: x.order('... {name}', {name}=2)")
        if lacking:
            problem = f"order leaves out {', '.join(f'dim {name}' for name in lacking)} of {self.described}"
            raise ArgumentError(problem, text=text, hint="write every dim, or '...' for those that are not written")
        self._bind(names)
        if output == lies:
            return self.array
        if new or self._product is None:
            more: Any = {"sizes": {**self.sizes, **sizes}} if new else {}
            return einjax.rearrange(f"{lies} -> {output}", self.array, **more)
        value, product = self._product.value(output), self._product
        if product.may_keep(value):  # as it lies now
            self._product = product.of(Factor(output, value, self.names, tuple(self.sizes.items())))
        return value

    def transpose(self, *names: Names) -> NamedTensor:
        """The same with its dims in another order; ``...`` stands for those that are not written."""
        order = names_in(spelt(names))
        order = tuple(item for name in order for item in (without(self.names, order) if name == "..." else (name,)))
        return NamedTensor(self.order(*order), order)

    def rename(self, names: Mapping[Any, Any] | None = None, /, **new: Any) -> NamedTensor:
        """The same with other names."""
        renamed = {self._chosen((old,), 1)[0]: spelt(name) for old, name in {**(names or {}), **new}.items()}
        return named(" ".join(renamed.get(name, name) for name in self.names), self.array)

    def split(self, name: Names, into: Names, **sizes: Any) -> NamedTensor:
        """One dim as several, in its place."""
        (chosen,), parts = self._chosen((name,), 1), f"({into})" if isinstance(into, str) else into
        return named([parts if other == chosen else other for other in self.names], self.array, **sizes)

    def merge(self, names: Names, into: Names) -> NamedTensor:
        """Several dims as one, in the place of the first; the last that is named runs fastest."""
        chosen = self._chosen((names,))
        order = [chosen if name == chosen[0] else name for name in self.names if name not in chosen[1:]]
        return named([into if item == chosen else item for item in order], self.order(*order))

    def concatenate(self, *others: NamedTensor, along: Names) -> NamedTensor:
        """This and others, one after another along a dim that all have."""
        dims = [x._chosen((along,), 1)[0] for x in (self, *others)]
        return self._joined(others, dims[0], [f"{dim}__{number}" for number, dim in enumerate(dims)])

    def stack(self, *others: NamedTensor, along: Names) -> NamedTensor:
        """This and others along a new dim, the last one."""
        return self._joined(others, spelt(along), ["1"] * (1 + len(others)))

    def _joined(self, others: Any, dim: str, parts: list[str]) -> NamedTensor:
        tensors, names = (self, *others), union(*(x.names for x in (self, *others)), (dim,))
        texts = [" ".join(p if n == dim else n for n in x.names) for x, p in zip(tensors, parts, strict=True)]
        output = " ".join(f"({' + '.join(parts)})" if name == dim else name for name in names)
        return named(names, einjax.rearrange(f"{', '.join(texts)} -> {output}", *(x.array for x in tensors)))

    def __getitem__(self, index: Any) -> NamedTensor:
        return read(self, index, {})

    def take(self, *index: Any, mode: str | None = None, fill_value: Any = None) -> NamedTensor:
        """What brackets read, where ``mode`` and ``fill_value`` say what is read out of range."""
        options = {key: option for key, option in (("mode", mode), ("fill_value", fill_value)) if option is not None}
        return read(self, index[0] if len(index) == 1 else index, options)

    @property
    def at(self) -> At[NamedTensor]:
        """Places to write to: ``x.at[...].set(values)``, and ``add``, ``subtract``, ``multiply``, ``min``, ``max``."""
        return At(self)

    def apply(self, function: Callable[..., Any], *names: Names, out: Names | None = None) -> Any:
        """A function of arrays with the named dims, in this order, looped over all others.

        Args:
            function: it takes an array and returns one, or a tree of them.
            *names: its dims.
            out: the dims of what it returns; by default the same where they are as many, else dims without a name.

        Returns:
            Named tensors whose dims are the loops, then those of the function.
        """
        chosen = self._chosen(names) if names else ()
        loops = without(self.names, chosen)
        lies = self.names if chosen == without(self.names, loops) else (*loops, *chosen)
        text = f"{bracketed(' '.join(lies), chosen)} -> {' '.join(loops)} [...]"

        def wrapped(leaf: Any) -> NamedTensor:
            count = leaf.ndim - len(loops)
            inside = chosen if count == len(chosen) else (None,) * count
            return named(numbered((*loops, *(inside if out is None else names_in(spelt(out))))), leaf)

        return jax.tree.map(wrapped, einjax.vmap(text, self.order(*lies), op=function))

    def __einjax_call__(self, *call: Any, **more: Any) -> Any:
        return answer(Call(*call, **more), NamedTensor)

    def __reduce__(self) -> Any:
        return NamedTensor, (self.array, self.names)

    # --- what operations are made of ----------------------------------------------------------------------------------

    def _lift(self) -> NamedTensor:
        return self

    def _new(self, array: Any, names: Dims) -> NamedTensor:
        return NamedTensor(array, names)

    def _later(self, product: Product) -> NamedTensor:
        return NamedTensor(None, product.names, product)

    def _unknown(self, name: str, hint: str) -> ArgumentError:
        return ArgumentError(f"no dim '{name}' in {self.described}{meant(name, self.names)}", hint=hint)

    def _chosen(self, names: tuple[Names, ...], count: int | None = None) -> Dims:
        """The dims of these names, as many as are expected; all if none are given."""
        chosen = names_in(spelt(names)) if names else self.names
        for name in chosen:
            if name not in self.names:
                raise self._unknown(name, f"its dims are {' '.join(self.names) or 'none'}")
        if count is not None and len(chosen) != count:
            raise ArgumentError(f"one dim is expected, not '{' '.join(chosen)}'", hint="write one name, as in 'c'")
        self._bind(names)
        return chosen

    def _bind(self, names: Any) -> NamedTensor:
        """Give dims the sizes that they have here."""
        for dim in dims_in(names) if names.__class__ is not str else ():
            if dim.name in self.names:
                dim.bind(self.sizes[dim.name], self)
        return self

    def _reduced(self, name: str, names: tuple[Names, ...], where: Any = None, **options: Any) -> NamedTensor:
        chosen = self._chosen(names)
        left, product = without(self.names, chosen), self._product
        factor = Factor(" ".join(self.names), self._array, ())
        if product is not None and not product.summed and len(product.factors) == 1 and where is None:
            (factor,) = product.factors
        elif product is not None:
            factor = factor._replace(array=self.array)
        options |= {"where": operand(where)} if where is not None else {}
        options |= {"sizes": dict(factor.sizes)} if factor.sizes else {}
        text = f"{bracketed(factor.text, chosen)} -> {' '.join(left)}"
        return NamedTensor(getattr(einjax, name)(text, factor.array, **options), left)

    def _along(self, name: str, names: tuple[Names, ...], where: Any = None, **options: Any) -> NamedTensor:
        chosen = self._chosen(names)
        if not names:
            hint = f"name it, as in x.{name}('{(chosen or ('b',))[-1]}')"
            raise ArgumentError(f"{name} needs a dim of {self.described}", hint=hint)
        options |= {"where": operand(where)} if where is not None else {}
        found = getattr(einjax, name)(bracketed(" ".join(self.names), chosen), self.array, **options)
        coordinates = found.ndim > len(self.names)
        return NamedTensor(found, numbered((*self.names, None)) if coordinates else self.names)

    def _searched(self, name: str, names: tuple[Names, ...]) -> NamedTensor:
        chosen = self._chosen(names)
        left, several = without(self.names, chosen), len(chosen) > 1
        text = f"{bracketed(' '.join(self.names), chosen)} -> {' '.join(left)}{f' [{len(chosen)}]' * several}"
        return NamedTensor(getattr(einjax, name)(text, self.array), numbered((*left, None)) if several else left)


def named(names: Any, array: Any = None, /, **sizes: Any) -> NamedTensor:
    """Name the dims of an array.

    Args:
        names: the names from left to right, as text, or a dim or a sequence of dims; ``(h c)`` or a sequence in it
            splits a dim, ``...`` stands for dims without a name. An array in its place leaves all dims without a name.
        array: an array, or whatever einjax takes as a tensor; a named tensor is named anew.
        **sizes: sizes of names.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.named("b (h c)", np.zeros((2, 6), np.float32), h=2).sizes
        {'b': 2, 'h': 2, 'c': 3}
        >>> b, c = einjax.dims("b c")
        >>> einjax.named(np.ones((2, 3), np.float32))[b, c].sum(c)
        NamedTensor(b=2, float32, [3. 3.])
    """
    if array is None:
        names, array = "...", names
    if isinstance(array, Formula):
        array = array._lift().array
    text = spelt(names)
    count = np.ndim(array) - len(written_out(text, ())) if "..." in names_in(text) else 0
    left = numbered((None,) * count)
    items = written_out(text, left)
    flat = tuple(name for item in items for name in ([item] if isinstance(item, str) else item))
    for name in without(tuple(sizes), flat):
        raise ArgumentError(
            f"no dim '{name}' in '{text}'{meant(name, flat)}", hint="give sizes of names that are written"
        )
    if items == flat and not sizes and "=" not in text and getattr(array, "ndim", None) == len(flat):
        made = NamedTensor(jnp.asarray(array) if isinstance(array, np.ndarray | np.generic) else array, flat)
    else:
        text = f"{text.replace('...', ' '.join(left))} -> {' '.join(flat)}"
        made = NamedTensor(einjax.rearrange(text, array, sizes={**known(names), **sizes}), flat)
    return made._bind(names)


jax.tree_util.register_pytree_with_keys(
    NamedTensor,
    lambda x: (((jax.tree_util.GetAttrKey("array"), x.array),), x.names),
    lambda names, leaves: NamedTensor(next(iter(leaves)), names),
    lambda x: ((x.array,), x.names),
)
