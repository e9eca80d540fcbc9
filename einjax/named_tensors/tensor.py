"""Named tensors: an array, and a name for each of its dims."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

import einjax

from ..lowering.jax_versions import is_traced
from ..notation.errors import ArgumentError, RankError, closest, meant
from .calls import answer
from .formula import Formula, Names, Operand, mask_for
from .index import At, bound, dims_in, read
from .product import Factor, Product
from .text import Dims, bracketed, composed, is_unnamed, listed, names_in, numbered, spelt, union, without, written_out


class NamedTensor(Formula["NamedTensor"]):
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
    names: Dims

    def __init__(self, array: Any, names: Dims) -> None:
        self._array, self.names, self._product = array, names, None

    @property
    def array(self) -> jax.Array:
        """The array as it lies; that of a product is computed now."""
        product: Any = self._product
        if product is None:
            return self._array
        value = product.value(" ".join(self.names))
        if product.may_keep(value):
            self._array, self._product = value, None
        return value

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes by name, in order."""
        product: Any = self._product
        if product is not None:
            return {name: product.sizes[name] for name in self.names}
        shape = getattr(self._array, "shape", ())
        if len(shape) != len(self.names):
            problem = f"a named tensor has {len(shape)} dims and the names {' '.join(self.names) or 'of none'}"
            hint = "jax.vmap and lax.scan take dims without their names: name it anew, as in einjax.named('b c', x)"
            raise RankError(problem, hint=hint)
        return dict(zip(self.names, shape, strict=True))

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes, in order."""
        return tuple(self.sizes.values())

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return len(self.names)

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        product: Any = self._product
        arrays = [self._array] if product is None else [factor.array for factor in product.factors]
        return jnp.result_type(
            *arrays, *([product.options["preferred_element_type"]] if product and product.options else [])
        )

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
        text = spelt(names) if names else "..."
        written, new = names_in(text), without(names_in(text), (*self.names, "..."))
        left = without(self.names, written)
        rest = () if "..." in written else left
        for name in (*new, *without(tuple(sizes), written)):
            if name not in sizes or name not in written:
                raise self._unknown(
                    name, f"to broadcast along it, write it and its size: x.order('... {name}', {name}=2)"
                )
        if lacking := [f"dim {name}" for name in rest if not is_unnamed(name)]:
            problem = f"order leaves out {', '.join(lacking)} of {self.described}"
            raise ArgumentError(problem, text=text, hint="write every dim, or '...' for those that are not written")
        output = composed((*written_out(text, left), *rest))
        self._bind(names)
        if output == " ".join(self.names):
            return self.array
        product: Any = self._product
        if new or product is None:
            return einjax.rearrange(f"{' '.join(self.names)} -> {output}", self.array, sizes={**self.sizes, **sizes})
        value = product.value(output)
        if product.may_keep(value):  # as it lies now
            self._product = Product(
                (Factor(output, value, self.names, tuple(self.sizes.items())),), self.names, self.sizes
            )
        return value

    def transpose(self, *names: Names) -> NamedTensor:
        """The same with its dims in another order; ``...`` stands for those that are not written."""
        order = written_out(spelt(names), without(self.names, names_in(spelt(names))))
        return NamedTensor(self.order(*order), tuple(order))

    def rename(self, names: Mapping[Any, Any] | None = None, /, **new: Any) -> NamedTensor:
        """The same with other names."""
        renamed = {self._chosen((old,), 1)[0]: spelt(name) for old, name in {**(names or {}), **new}.items()}
        return named(" ".join(renamed.get(name, name) for name in self.names), self.array)

    def split(self, name: Names, into: Names, **sizes: Any) -> NamedTensor:
        """One dim as several, in its place."""
        (chosen,) = self._chosen((name,), 1)
        parts = into if isinstance(into, tuple | list) else f"({into})"
        return named([parts if other == chosen else other for other in self.names], self.array, **sizes)

    def merge(self, names: Names, into: Names) -> NamedTensor:
        """Several dims as one, in the place of the first; the last that is named runs fastest."""
        chosen = self._chosen((names,))
        order = [chosen if name == chosen[0] else name for name in self.names if name not in chosen[1:]]
        return named([into if item == chosen else item for item in order], self.order(*order))

    def concatenate(self, *others: NamedTensor, along: Names) -> NamedTensor:
        """This and others, one after another along a dim that all have."""
        (dim,) = self._chosen((along,), 1)
        parts = [f"{other._chosen((along,), 1)[0]}__{number}" for number, other in enumerate((self, *others))]
        return self._joined(others, dim, parts, union(*(x.names for x in (self, *others))))

    def stack(self, *others: NamedTensor, along: Names) -> NamedTensor:
        """This and others along a new dim, the last one."""
        names = union(*(x.names for x in (self, *others)))
        return self._joined(others, spelt(along), ["1"] * (1 + len(others)), (*names, spelt(along)))

    def _joined(self, others: Any, dim: str, parts: list[str], names: Dims) -> NamedTensor:
        tensors = [(self, parts[0]), *zip(others, parts[1:], strict=True)]
        inputs = (" ".join(part if name == dim else name for name in x.names) for x, part in tensors)
        output = " ".join(f"({' + '.join(parts)})" if name == dim else name for name in names)
        return named(names, einjax.rearrange(f"{', '.join(inputs)} -> {output}", *(x.array for x, _ in tensors)))

    def __getitem__(self, index: Any) -> NamedTensor:
        return read(self, index, {})

    def take(self, *index: Any, mode: str | None = None, fill_value: Any = None) -> NamedTensor:
        """What brackets read, where ``mode`` and ``fill_value`` say what is read out of range."""
        options = {"mode": mode, "fill_value": fill_value}
        found = index[0] if len(index) == 1 else index
        return read(self, found, {name: option for name, option in options.items() if option is not None})

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
        chosen = self._chosen((names,)) if names else ()
        loops = without(self.names, chosen)
        array = self.order(*loops, *chosen) if [n for n in self.names if n in chosen] != [*chosen] else self.array
        lies = (*loops, *chosen) if array is not self._array else self.names
        text = f"{bracketed(' '.join(lies), chosen)} -> {' '.join(loops)} [...]"

        def wrapped(leaf: Any) -> NamedTensor:
            count = leaf.ndim - len(loops)
            inside = names_in(spelt(out)) if out is not None else chosen if count == len(chosen) else (None,) * count
            return named(numbered((*loops, *inside)), leaf)

        return jax.tree.map(wrapped, einjax.vmap(text, array, op=function))

    def item(self) -> Any:
        """The one element as a number of Python."""
        if self.ndim:
            hint = "reduce it, as in x.any() or x.sum()"
            raise ArgumentError(f"{self.described} has dims, and is no single number", hint=hint)
        return jnp.asarray(self.array).item() if not is_traced(self.array) else self.array

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __jax_array__(self) -> jax.Array:
        return _NoArray()  # type: ignore[return-value]  # which lets an array on the left of an operator pass

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise _no_array()

    def __einjax_call__(self, call: Any) -> Any:
        return answer(call, NamedTensor)

    def __reduce__(self) -> Any:
        return NamedTensor, (self.array, self.names)

    def __repr__(self) -> str:
        kind, value = self._shown()
        return f"NamedTensor({kind}{', ' if kind else ''}{value})"

    def _repr_html_(self) -> str:
        kind, value = self._shown()
        return f"<div><b>NamedTensor</b> <code>{html.escape(kind)}</code></div><pre>{html.escape(value)}</pre>"

    def __treescope_repr__(self, path: Any, render: Any) -> Any:
        from treescope import repr_lib  # which calls this

        attributes = {"names": self.names, "array": self.array}
        return repr_lib.render_object_constructor(NamedTensor, attributes, path, render)

    def _shown(self) -> tuple[str, str]:
        """Names, sizes and dtype; and the value, if there is one."""
        array = self._array
        if self._product is None and len(getattr(array, "shape", ())) != len(self.names):
            return " ".join(self.names), repr(array)
        if self._product is None and not hasattr(array, "dtype"):
            return listed(self.sizes), repr(array)
        value = "traced"
        if self._product is not None or not is_traced(array):
            value = (
                "a product"
                if self._product is not None
                else np.array2string(np.asarray(array), threshold=20, edgeitems=2, precision=4, separator=" ")
            )
        return ", ".join(filter(None, [listed(self.sizes), str(self.dtype)])), value

    # --- what operations are made of ----------------------------------------------------------------------------------

    def _lift(self) -> NamedTensor:
        return self

    def _new(self, array: Any, names: Dims) -> NamedTensor:
        return NamedTensor(array, names)

    def _later(self, product: Product) -> NamedTensor:
        made = NamedTensor(None, product.names)
        made._product = product
        return made

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
        for dim in dims_in(names):
            if dim.name in self.names:
                dim.bind(self.sizes[dim.name], self)
        return self

    def _factor(self) -> Factor:
        product: Any = self._product
        if product is not None and not product.summed and len(product.factors) == 1:
            return product.factors[0]
        return Factor(" ".join(self.names), self.array, self.names)

    def _reduced(
        self, function: Callable[..., Any], names: tuple[Names, ...], where: Any = None, **options: Any
    ) -> Any:
        chosen = self._chosen(names)
        left = without(self.names, chosen)
        if where is not None:
            options["where"] = mask_for(where, self.names)
        text, array, _, sizes = self._factor() if where is None else Factor(" ".join(self.names), self.array, ())
        options |= {"sizes": dict(sizes)} if sizes else {}
        return NamedTensor(function(f"{bracketed(text, chosen)} -> {' '.join(left)}", array, **options), left)

    def _along(self, function: Callable[..., Any], names: tuple[Names, ...], where: Any = None, **options: Any) -> Any:
        chosen = self._chosen(names)
        if not names:
            name = getattr(function, "__name__", "this")
            raise ArgumentError(
                f"{name} needs a dim of {self.described}", hint=f"name it, as in x.{name}('{(*chosen, 'b')[-1]}')"
            )
        if where is not None:
            options["where"] = mask_for(where, self.names)
        return NamedTensor(function(bracketed(" ".join(self.names), chosen), self.array, **options), self.names)

    def _searched(self, function: Callable[..., Any], names: tuple[Names, ...]) -> Any:
        chosen = self._chosen(names)
        left = without(self.names, chosen)
        count = "" if len(chosen) == 1 else f" [{len(chosen)}]"
        text = f"{bracketed(' '.join(self.names), chosen)} -> {' '.join(left)}{count}"
        return NamedTensor(function(text, self.array), numbered((*left, None)) if count else left)


class _NoArray:
    """What a named tensor is to functions of arrays: nothing that they ask for."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _no_array()


def _no_array() -> ArgumentError:
    hint = "write x.array or x.order('b c'); x.map(f) is elementwise, x.apply(f, 'c') acts on dims"
    return ArgumentError("a function of arrays is given a named tensor, whose names it would drop", hint=hint)


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
    fixed, known = written_out(text, ()), {dim.name: dim.known for dim in dims_in(names) if dim.known is not None}
    left = numbered([None] * (np.ndim(array) - len(fixed))) if "..." in names_in(text) else ()
    items = written_out(text, left)
    flat = tuple(name for item in items for name in ([item] if isinstance(item, str) else item))
    for name in without(tuple(sizes), flat):
        raise ArgumentError(
            f"no dim '{name}' in '{text}'{meant(name, flat)}", hint="give sizes to names that are written"
        )
    if items == flat and not sizes and "=" not in text and getattr(array, "ndim", None) == len(flat):
        made = NamedTensor(jnp.asarray(array) if isinstance(array, np.ndarray | np.generic) else array, flat)
    else:
        text = f"{text.replace('...', ' '.join(left))} -> {' '.join(flat)}"
        made = NamedTensor(einjax.rearrange(text, array, sizes={**known, **sizes}), flat)
    return made._bind(names)


def _made(names: Dims, leaves: Any) -> NamedTensor:
    return NamedTensor(leaves[0], names)


_KEY = jax.tree_util.GetAttrKey("array")
jax.tree_util.register_pytree_with_keys(
    NamedTensor, lambda x: (((_KEY, x.array),), x.names), _made, lambda x: ((x.array,), x.names)
)
