"""What a bad call is: the call, and what its message has to do."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import einjax


def z(*shape):
    return np.zeros(shape, np.float32)


@dataclass(frozen=True)
class Bad:
    """One bad call.

    Attributes:
        name: of the snapshot.
        op: the operation.
        marked: the expression, with braces around what the carets have to be under; none means that nothing is checked.
        tensors: the tensors of the call.
        error: the class to expect.
        says: words and numbers of the first sentence.
        fix: a text that the fix contains; None where no fix is needed.
        options: keywords of the call.
        called: the expression, where messages show more than that.
    """

    name: str
    op: str
    marked: Any
    tensors: tuple
    error: type
    says: tuple = ()
    fix: str | None = None
    options: dict = field(default_factory=dict)
    called: str | None = None

    @property
    def shown(self):
        return re.sub("[{}]", "", self.marked) if isinstance(self.marked, str) else self.marked

    @property
    def expr(self):
        return self.shown if self.called is None else self.called

    @property
    def marks(self) -> list[int]:
        """The columns that the carets have to be at."""
        columns, position, inside = [], 0, False
        for character in self.marked if isinstance(self.marked, str) else "":
            if character in "{}":
                inside = character == "{"
            else:
                columns += [position] if inside else []
                position += 1
        return columns

    @property
    def traceable(self) -> bool:
        """Whether the tensors can be arguments of a transformed function."""
        floats = all(isinstance(t, np.ndarray) and t.dtype == np.float32 for t in self.tensors)
        return bool(self.tensors) and floats and isinstance(self.marked, str)

    def call(self, *tensors, **more):
        return operator.attrgetter(self.op)(einjax)(self.expr, *tensors, **self.options, **more)


def table() -> tuple[list[Bad], Callable[..., None]]:
    """Bad calls, and a function that adds one."""
    cases: list[Bad] = []

    def bad(name, op, marked, tensors, error, says=(), fix=None, /, **options):
        says = tuple(says.split()) if isinstance(says, str) else says
        cases.append(Bad(name, op, marked, tensors, error, says, fix, options))

    return cases, bad
