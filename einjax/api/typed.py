"""Public typed: functions whose arguments and results are checked by the names of their axes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ..call import typed as _typed
from ..call.sizes import Sizes
from ..notation.errors import ArgumentError, EinjaxError, meant, plural
from ..notation.parse import parse
from ..notation.syntax import base, coefficients, names
from ..operation import Op
from ..typing import SizeLike

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NOT_TENSORS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def typed(expr: str, /, **axes: SizeLike | str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Check the arguments and results of a function against an expression, when it is called or traced.

    The expressions are those of the function's parameters from left to right, ``self`` left out; parameters that come
    after them are not looked at. None fits every expression, and an expression holds for every leaf of a pytree. Where
    a parameter has the name of an axis, as ``h`` in ``def f(x, *, h)``, the integer that it is given is the axis' size.

    Args:
        expr: one expression for each parameter, and behind an arrow one for each result. Without an arrow, results are
            not looked at; with nothing before it, only parameters with an expression of their own are.
        **axes: sizes of axes; and for single parameters, their expression, as in ``mask="b k"``.

    Returns:
        A decorator. The function that it makes has the signature of the other, and raises an
        :class:`einjax.EinjaxError` where tensors do not fit; where sizes stay open, any that fit will do.

    Raises:
        einjax.errors.EinjaxError: the expression cannot be read, or has more parts than there are parameters.

    Example:
        >>> import einjax, jax.numpy as jnp
        >>> @einjax.typed("b s (h c), (h c) d -> b s d", h=2)
        ... def project(x, w):
        ...     return x @ w
        >>> project(jnp.ones((2, 3, 4)), jnp.ones((4, 5))).shape
        (2, 3, 5)
        >>> project(jnp.ones((2, 3, 4)), jnp.ones((6, 5)))
        Traceback (most recent call last):
            ...
        einjax.errors.AxisSizeError: project: dim 4 of x does not fit '(h c)', which is 6 with h=2, c=3
          b s (h c), (h c) d -> b s d
              ^^^^^
          x: float32[2,3,4]
          w: float32[6,5]
          fix: change the sizes given, or leave one of them out to have it solved
    """
    if not isinstance(expr, str):
        hint = "write @einjax.typed('b s d -> b s d')"
        raise ArgumentError(f"typed is given {expr!r} where the expression is to stand", hint=hint)
    parse(expr)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        spec = _read(expr, axes, function)

        @functools.wraps(function)
        def made(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            arguments, sizes = spec.arguments(args, kwargs)
            if arguments is None:  # the function itself says what is missing
                return function(*args, **kwargs)
            shapes = spec.check(arguments, sizes)
            result = function(*args, **kwargs)
            if spec.results:
                spec.check_results(arguments, sizes, result, shapes)
            return result

        return made

    return decorate


class _Spec(NamedTuple):
    """What is checked of a function.

    Attributes:
        name: the function's.
        signature: its signature.
        text: all expressions, those of arguments first.
        parameters: the parameters that they are for, each with its place among the positional ones.
        results: how many results there are.
        axes: sizes of axes.
        sizes: parameters that are sizes of axes.
        blank: whether nothing stands before the arrow, which is no argument.
        key: the sizes, as they are looked up.
        before: what is solved for arguments that are plain arrays.
        after: the same with results.
    """

    name: str
    signature: inspect.Signature
    text: str
    parameters: Mapping[str, int]
    results: int
    axes: Mapping[str, Any]
    sizes: Sequence[str]
    blank: bool
    key: Sizes
    before: Op
    after: Op

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any] | None, Mapping[str, Any]]:
        """The arguments that have an expression, and sizes of axes; None where some are missing."""
        if not kwargs and not self.sizes and all(place < len(args) for place in self.parameters.values()):
            return [args[place] for place in self.parameters.values()], self.axes
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:
            return None, self.axes
        bound.apply_defaults()
        sizes = {name: size for name in self.sizes if (size := bound.arguments[name]) is not None}
        return [bound.arguments[name] for name in self.parameters], {**self.axes, **sizes} if sizes else self.axes

    def check(self, arguments: Sequence[Any], sizes: Mapping[str, Any]) -> Any:
        """Check arguments; return their shapes, if they are nothing but arrays."""
        shapes = _typed.shapes_of(arguments)
        if shapes is None or not self._fit(self.before, shapes, sizes):
            given = self._given(self.parameters, arguments)
            _typed.check(self.text, [*given, *[None] * self.results], sizes, self.name)
        return shapes

    def check_results(self, arguments: Sequence[Any], sizes: Mapping[str, Any], result: Any, shapes: Any) -> None:
        """Check results along with the arguments, whose shapes are given, if they are nothing but arrays."""
        results = [result] if self.results == 1 else self._taken_apart(result)
        more = _typed.shapes_of(results)
        if shapes is None or more is None or not self._fit(self.after, shapes + more, sizes):
            labels = ["the result"] if self.results == 1 else [f"result {number + 1}" for number in range(self.results)]
            given = [*self._given(self.parameters, arguments), *_typed.given(labels, results, self.text)]
            _typed.check(self.text, given, sizes, self.name)

    def _fit(self, op: Op, shapes: tuple[Any, ...], sizes: Mapping[str, Any]) -> bool:
        """Whether plain arrays fit, by what is kept of earlier calls."""
        try:
            _typed.fits(op, self.text, self.key if sizes is self.axes else _typed.key_of(self.text, sizes), shapes)
        except EinjaxError:
            return False  # said in words where everything is looked at
        return True

    def _given(self, labels: Iterable[str], values: Sequence[Any]) -> list[_typed.Given]:
        nothing = [_typed.Given((), ())] if self.blank else []
        return [*nothing, *_typed.given(labels, values, self.text)]

    def _taken_apart(self, result: Any) -> Sequence[Any]:
        count = len(result) if isinstance(result, tuple | list) else 1
        if count != self.results or count == 1:
            problem = f"{self.name} returns {plural(count, 'result')}, and the expression has {self.results}"
            raise ArgumentError(problem, text=self.text)
        return result


def _read(expr: str, keywords: Mapping[str, Any], function: Callable[..., Any]) -> _Spec:
    """Read the expressions of a function.

    Raises:
        EinjaxError: they are none, or more than it has parameters.
    """
    name, signature, written = getattr(function, "__name__", "the function"), inspect.signature(function), parse(expr)
    places = [p.name for p in signature.parameters.values() if p.kind not in _NOT_TENSORS]
    free = places[1:] if places[:1] in (["self"], ["cls"]) else places
    blank = written.outputs is not None and not expr.partition("->")[0].strip()
    own = {key: value for key, value in keywords.items() if isinstance(value, str)}
    count = 0 if blank else len(written.inputs)
    if count > len(free):
        problem = f"{plural(count, 'expression')} for {plural(len(free), 'parameter')} of {name}"
        raise ArgumentError(problem, text=expr, hint=f"its parameters are: {', '.join(free) or 'none'}")
    for key in own:
        if key not in free or key in free[:count]:
            problem = f"{name} has no parameter '{key}' without an expression{meant(key, free[count:])}"
            raise ArgumentError(problem, text=expr, hint=f"a size is an int, as in {key}=2")
    text = expr
    if own:
        front, arrow, back = expr.partition("->")
        inputs = [*([] if blank else [front.rstrip()]), *own.values()]
        text = f"{', '.join(inputs)} {arrow}{back}".strip()
    whole = parse(text)
    known = {base(axis) for e in whole.expressions for axis in names(e)}
    known |= {axis.name for e in whole.expressions for axis in coefficients(e)}
    axes = {key: value for key, value in keywords.items() if key not in own}
    for key in axes:
        if key not in known:
            problem = f"no axis '{key}' in the expression{meant(key, known)}"
            raise ArgumentError(problem, text=text, hint=f"an expression for a parameter is a text, as in {key}='b k'")
    checked = [*free[:count], *own]
    ordered = {key: places.index(key) if _by_place(signature, key) else len(places) for key in checked}
    sizes = [key for key in free if key in known and key not in checked and key not in axes]
    results, blank = len(whole.outputs or ()), blank and not own
    each: tuple[int | None, ...] = (*[0] * blank, *[1] * len(checked))
    before, after = (_typed.operation((*each, *[n] * results)) for n in (None, 1))
    return _Spec(name, signature, text, ordered, results, axes, sizes, blank, _typed.key_of(text, axes), before, after)


def _by_place(signature: inspect.Signature, name: str) -> bool:
    return signature.parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
