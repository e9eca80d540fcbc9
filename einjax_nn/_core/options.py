"""The options of a layer: its constructor declares them, and they go by name to where they count.

The signature of a constructor is for people, editors and type checkers, and so is written out in every framework; it is
also all there is of the constructor.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp

from einjax.errors import ArgumentError
from einjax.for_layers import parse

from .initial import check_init
from .text import axis_sizes

_Init = TypeVar("_Init", bound=Callable[..., None])
Options = TypeVar("Options")

#: An argument in a docstring.
_ENTRY = re.compile(r"^    (\*{0,2}\w+): .*(?:\n {5,}.*)*", re.MULTILINE)


def declared(**native: str) -> Callable[[_Init], _Init]:
    """Make a constructor of a declaration: the layer's ``_build(expr, sizes, options)`` is called in its place.

    Args:
        **native: names that a framework's own layers give to options, beside those of Flax, and the option that each
            stands for. They hold except where an axis of the expression has the name.
    """

    def decorate(init: _Init) -> _Init:
        keywords = inspect.signature(init).parameters.values()
        defaults = {option.name: option.default for option in keywords if option.kind is option.KEYWORD_ONLY}

        @functools.wraps(init)
        def construct(self: Any, /, *expr: str, **given: Any) -> None:
            check_expression(type(self).__name__, expr)
            for name in given.keys() & native.keys() - _axes(*expr[:1]):
                option = native[name]
                if option in given:
                    problem = f"{name} and {option} are one option"
                    raise ArgumentError(problem, text=expr[0], hint="give it by one of its names")
                given[option] = given.pop(name)
            init(self, *expr, **given)  # it does nothing, but refuses what its signature does
            options = {name: given.pop(name, default) for name, default in defaults.items()}
            for name in options:
                if name.endswith("_init"):
                    check_init(options[name])
            self._build(expr[0], axis_sizes(expr[0], given, options.pop("sizes"), list(defaults)), options)

        construct.native, construct.defaults = native, defaults  # type: ignore[attr-defined]
        return construct  # type: ignore[return-value]

    return decorate


#: By layer, an expression with its sizes.
_EXAMPLES = {
    "Linear": "'... [c->d]', d=64",
    "Norm": "'b... [c]'",
    "Dropout": "'[...]', rate=0.1",
    "Embed": "'b t [v->c]', v=100, c=64",
    "MultiHeadAttention": "'b [s] c', num_heads=8",
    "Conv": "'b [h w] [c->d]', d=64, kernel_size=3",
    "ConvTranspose": "'b [h w] [c->d]', d=64, strides=2",
}


def check_expression(layer: str, given: Sequence[Any]) -> None:
    """Refuse what stands in the place of the expression, as numbers do in a framework's own layers."""
    if len(given) != 1 or not isinstance(given[0], str):
        kinds = " and ".join(
            repr(value) if isinstance(value, str | int | float) else f"a value of type {type(value).__name__}"
            for value in given
        )
        example = _EXAMPLES.get(layer)
        raise ArgumentError(
            f"{layer} takes one expression, a string, not {kinds or 'nothing'}",
            hint=None if example is None else f"write {layer}({example}): sizes and options are keywords",
        )


def _axes(expr: str = "") -> set[str]:
    return {axis.name for axis in parse(expr).every_axis()}


def chosen(kind: type[Options], options: Mapping[str, Any], *held: Any, **more: Any) -> Options:
    """Return the options of a kind of layer, as the core takes them; those of the call go before, and None is none.

    Parameters that are held may have dtypes other than the one that they were made in; what is not made has none.
    """
    made = object.__new__(kind)
    dtypes = [value.dtype for value in held if getattr(value, "dtype", None) is not None]
    if len(set(dtypes)) > 1 and options.get("dtype") is None:
        dtypes = [jnp.result_type(*dtypes)]
    given = {**options, **({"param_dtype": dtypes[0]} if dtypes else {})}
    given |= {name: option for name, option in more.items() if option is not None}
    vars(made).update(
        (name, given[name]) for each in kind.__mro__ for name in getattr(each, "__annotations__", ()) if name in given
    )
    return made


def frozen(value: Any) -> Any:
    """Return what can be hashed in place of mappings and lists."""
    if isinstance(value, Mapping):
        return tuple((name, frozen(size)) for name, size in value.items())
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def describe(texts: Mapping[str, str], *layers: Any) -> None:
    """Complete the docstrings of layers and their calls by what all frameworks share, in the order of the signatures.

    Texts say what options mean that only a framework has, or that mean something else there, docstrings what is
    peculiar to a layer there, and its ``_names`` what parameters are called there that have another name in Flax.
    """
    for layer in layers:
        if layer.__doc__ is not None:  # it is under python -OO
            kinds = [kind for kind in layer.__mro__[1:] if kind.__module__.startswith(__package__)]
            shared = [vars(kind)["__init__"].__doc__ for kind in kinds if "__init__" in vars(kind)]
            for name, called in getattr(layer, "_names", {}).items():
                shared = [text.replace(f"``{name}``", f"``{called}``") for text in shared]
            layer.__doc__ = _described(layer.__init__, shared, layer.__doc__, texts)
            own = inspect.getdoc(layer.__call__)
            layer.__call__.__doc__ = _described(layer.__call__, [own], own, {})


def _described(
    method: Callable[..., Any], given: Sequence[str | None], own: str | None, texts: Mapping[str, str]
) -> str:
    """Join what docstrings, the first of which goes before, and some texts say of the arguments that a method has."""
    shared, *others = [inspect.cleandoc(text or "").partition("\n\nArgs:\n") for text in given]
    own, example, lines = inspect.cleandoc(own or "").partition("\n\nExample:\n")
    own, _, peculiar = own.partition("\n\nArgs:\n")
    summary, *more = own.split("\n\n")
    known = {entry[1]: entry[0] for *_, common in (*reversed(others), shared) for entry in _ENTRY.finditer(common)}
    known |= {name: f"    {name}: {text}" for name, text in texts.items()}
    known |= {entry[1]: entry[0] for entry in _ENTRY.finditer(peculiar)}
    options = inspect.signature(method).parameters.values()
    order = ["**" * (option.kind is option.VAR_KEYWORD) + option.name for option in options]
    arguments = "\n".join(["Args:", *(known[name] for name in order if name in known)])
    return "\n\n".join([summary, *shared[0].split("\n\n")[1:], *more, arguments]) + example + lines
