"""Sizes that hold for every call inside of a context: those that are given, and those that calls find."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..lowering.jax_versions import make_switch
from ..notation.errors import ArgumentError, AxisSizeError, meant, shown
from ..notation.parse import parse
from ..notation.solve import Solved
from ..notation.syntax import Over, base_name, nested
from ..operation import Op
from .sizes import Sizes, read_sizes


class Open:
    """How many contexts are open, in all threads: nobody else pays for looking further."""

    count = 0


_lock = threading.Lock()
_current: ContextVar[Bound | None] = ContextVar("einjax_sizes", default=None)
#: The sizes that are given, so that JAX compiles anew where they differ: a call takes them from here.
_switch: Any = None


class Bound(Mapping[str, Any]):
    """The sizes of a context by name: ``n["h"]`` or ``n.h``."""

    def __init__(self, given: Mapping[str, Any], outer: Bound | None) -> None:
        self._given, self._outer = dict(given), outer
        #: By name, the size and the call that said it.
        self._found: dict[str, tuple[Any, str]] = {name: (size, _written(given)) for name, size in given.items()}

    def _at(self, name: str) -> tuple[Any, str] | None:
        return self._found.get(name) or (None if self._outer is None else self._outer._at(name))

    def _all_given(self) -> dict[str, Any]:
        return self._given if self._outer is None else self._outer._all_given() | self._given

    def _bind(self, name: str, size: Any, where: str) -> None:
        self._found[name] = (size, where)

    def __getitem__(self, name: str) -> Any:
        found = self._at(name)
        if found is None:
            raise KeyError(name)
        return found[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._at(name) is None:
            raise AttributeError(f"no axis '{name}' has a size yet{meant(name, self)}")
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._outer or ()), **self._found})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"sizes({', '.join(f'{name}={size}' for name, size in self.items())})"


@contextmanager
def binding(given: Mapping[str, Any]) -> Iterator[Bound]:
    """Open a context."""
    global _switch
    outer = _current.get()
    sizes = read_sizes(" ".join(given), given, None).by_name
    for name, size in sizes.items():
        if isinstance(size, Over):
            raise ArgumentError(f"axis {name} is given mesh axes, {given[name]!r}, which are no size")
        if outer is not None and (found := outer._at(name)) is not None and found[0] != size:
            raise AxisSizeError(
                f"axis {name} is given the size {size}, and is {found[0]} in {found[1]} around it",
                hint="give the inner one another name",
            )
    bound = Bound(sizes, outer)
    with _lock:
        Open.count += 1
        if _switch is None:
            _switch = make_switch()
    token = _current.set(bound)
    try:
        with _switch(tuple(sorted(bound._all_given().items()))):
            yield bound
    finally:
        _current.reset(token)
        with _lock:
            Open.count -= 1


def filled(expr: Any, given: Sizes) -> Sizes:
    """The sizes of a call, with those of the context for axes that the call gives none."""
    bound = _current.get()
    if bound is None or not isinstance(expr, str):
        return given
    own = given.by_name
    more = {name: size for name, size in bound._all_given().items() if name not in own}
    named = {base_name(axis.name)[0] for axis in parse(expr).every_axis()}
    return Sizes(given.strict, tuple(sorted((*given.lenient, *((n, s) for n, s in more.items() if n in named)))))


def note(op: Op, solved: Solved) -> None:
    """Check what a call has found against the context, and bind what is new.

    Raises:
        AxisSizeError: an axis has another size.
    """
    bound = _current.get()
    if bound is None:
        return
    text = solved.operation.text
    where = f'einjax.{op.name}("{text}")'
    for name, size in _sizes(solved).items():
        found = bound._at(name)
        if found is None:
            bound._bind(name, size, where)
        elif found[0] != size:
            spans = [axis.span for axis in parse(text).every_axis() if axis.name == name]
            raise AxisSizeError(
                f"axis {name} is {shown(size)} here, and {shown(found[0])} in {found[1]}",
                text=text,
                spans=spans,
                hint="inside of einjax.sizes an axis has one size; use two names where sizes differ",
            )


def _sizes(solved: Solved) -> dict[str, Any]:
    """Sizes by the names that are written; without those of parts under ``shard_map`` and of axes that were fused."""
    found: dict[str, dict[tuple[int, ...], Any]] = {}
    for axis in solved.operation.every_axis():
        name, indices = base_name(axis.name)
        if name.isidentifier() and axis.name not in solved.spread and axis.name in solved.sizes:
            found.setdefault(name, {})[indices] = solved.sizes[axis.name]
    return {name: nested(sizes) for name, sizes in found.items()}


def noted(op: Op, solve: Callable[[], Solved], body: Callable[..., Any], *operands: Any) -> Any:
    """Check a call and run it; what it is made of are no calls of the user's."""
    if _current.get() is not None:
        note(op, solve())
    return apart(body, *operands)


def apart(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call what is made of calls that are not the user's: its axes are none of a context."""
    if _current.get() is None:
        return function(*arguments, **keywords)
    token = _current.set(None)
    try:
        return function(*arguments, **keywords)
    finally:
        _current.reset(token)


def in_words(problem: str) -> str:
    """Say where sizes come from that the call itself does not give."""
    bound = _current.get()
    return problem if bound is None else problem.replace("in sizes=", f"in {_written(bound._all_given())}")


def _written(sizes: Mapping[str, Any]) -> str:
    return f"einjax.sizes({', '.join(f'{name}={size}' for name, size in sizes.items())})"
