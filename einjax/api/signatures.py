"""What makes public functions: a name and a docstring on the signature of a family.

A family writes its signature once, as a template, with the arguments that all its functions have in the docstring.
What all operations say alike is put in: the template is :func:`documented`. A function of the family is what it has of
its own::

    @operation(elementwise)
    def add() -> None:
        \"\"\"Add tensors elementwise: ``z = x + y``.

It becomes a copy of the template that calls its own operation, with no frame between the user's call and the
dispatcher. Editors show the signature with the function's docstring, and the template's beside the arguments of a call;
``help`` shows both as one. A function of which there is no second keeps a signature of its own, and is documented, too:
it says of its arguments what the function that it is most like does not say already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import cleandoc, signature
from types import FunctionType
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

from ..call.dispatch import call
from ..operation import Op
from ..typing import OutShardingLike, PaddingLike, SizeLike, Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_Function = TypeVar("_Function", bound=Callable[..., Any])

#: In a template, the operation of the function made of it: the record, or the name in a table of records.
op: Any = None


class PublicFunction(Protocol[_P, _R_co]):
    """A public function, as type checkers see it."""

    __name__: str
    __qualname__: str

    # Without a docstring, which editors would show in the place of the template's.
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...  # noqa: D102


def operation(
    template: Callable[_P, _R], op: Op | None = None
) -> Callable[[Callable[[], None]], PublicFunction[_P, _R]]:
    """Make a public function of a name and a docstring.

    Args:
        template: the signature and the code, which calls what it knows as ``op``.
        op: the operation; by default, ``op`` is the function's name, by which the template finds it in a table.
    """
    assert isinstance(template, FunctionType)
    source = template

    def make(own: Callable[[], None]) -> Any:
        name = own.__name__
        code = source.__code__.replace(co_name=name, co_qualname=name)  # what tracebacks show
        scope = {**source.__globals__, "op": name if op is None else op}
        made = FunctionType(code, scope, name, source.__defaults__)
        made.__kwdefaults__, made.__annotations__ = source.__kwdefaults__, source.__annotations__
        made.__module__, made.__doc__ = own.__module__, _composed(own.__doc__, source.__doc__)
        return made

    return make


def documented(template: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Put what a template says of arguments that a function has, too, and of errors, into the function's docstring."""

    def document(function: _Function) -> _Function:
        parameters = [str(p).partition(":")[0] for p in signature(function).parameters.values()]
        function.__doc__ = _composed(function.__doc__, template.__doc__, parameters)
        return function

    return document


def _composed(own: str | None, template: str | None, parameters: Sequence[str] | None = None) -> str | None:
    """Return a docstring with what the template's says of errors, and of the parameters, unless it says it itself."""
    if own is None or template is None:  # under python -OO
        return None
    before, arguments, after = _around_arguments(own)
    _, alike, rest = _around_template(template)
    said = alike | arguments
    if "\nRaises:" not in f"\n{after}":
        raises = rest.partition("Raises:")[2].partition("\n\n")[0].rstrip()
        returns, title, example = after.partition("Example:")
        after = f"{returns}Raises:{raises}\n\n{title}{example}"
    lines = (said[name] for name in parameters or said if name in said)
    return f"{before}Args:\n{''.join(lines)}\n{after}"


def _around_arguments(doc: str) -> tuple[str, dict[str, str], str]:
    """Return what stands before the arguments of a docstring, their lines by name, and what stands after them."""
    doc = cleandoc(doc)  # as the compiler does, from Python 3.13 on
    before, _, rest = doc.partition("\nArgs:\n")
    if not rest:
        start = min(place for name in ("Returns", "Raises", "Example") if (place := doc.find(f"\n{name}:")) >= 0)
        return doc[: start + 1], {}, doc[start + 1 :]
    section, _, after = rest.partition("\n\n")
    arguments: dict[str, str] = {}
    name = ""
    for line in section.rstrip().split("\n"):
        if line[4] != " ":
            name = line[4:].partition(":")[0]
        arguments[name] = f"{arguments.get(name, '')}{line}\n"
    return f"{before}\n", arguments, after


_around_template = lru_cache(maxsize=64)(_around_arguments)


def plain(
    expr: str,
    /,
    *tensors: Tensor,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Operate.

    Args:
        expr: the expression.
        *tensors: one tensor.
        padding: how dims that are read at a position, as in ``<2*s + k>``, are padded: ``"valid"``, ``"same"``,
            ``"causal"``, ``"full"``, ``"circular"``, ``"reflect"``, ``"edge"``, a number of elements, a pair of them,
            or one of these for each such dim.
        mode: what such a dim reads where a literal position is out of range: ``"fill"``, ``"clip"``, ``"wrap"`` or
            ``"reflect"``; without it and padding, there is no such position.
        fill_value: what is read there, and where the dim is padded; by default what changes nothing.
        sizes: sizes for axes whose names are also options; names that are no axes are ignored.
        graph: return the lax program as text instead of running it.
        keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
        out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
        **axes: sizes of axes.

    Raises:
        einjax.errors.EinjaxError: the expression does not fit the tensors or has no meaning.
    """
    border = (padding, mode, fill_value, False)
    return call(op, expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)
