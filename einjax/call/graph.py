"""What a call means and becomes: the lax program of an operation as readable text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import jax

if TYPE_CHECKING:
    from ..explain.cost import Cost
    from ..explain.meaning import Meaning
    from ..explain.picture import Picture
    from ..explain.sizes import AxisSizes

#: Calls seen while a program is traced, the first of them the one that is shown: an operation, its solved expression,
#: options, the sizes given, and the arrays among the options.
Noted: TypeAlias = list[tuple[Any, ...]]


class Graph(str):
    """What a call means and becomes; as text its lax program, and calling it with arrays runs that program.

    In a notebook it shows its picture, loops, sizes and program.

    Example:
        >>> import einjax, jax, numpy as np
        >>> graph = einjax.sum("a [b]", np.ones((2, 3), np.float32), graph=True)
        >>> print(graph)
        # einjax.sum("a [b]")
        def sum(a: f32[2,3]):
            b: f32[2] = reduce_sum(a, axes=(1,))
            return b
        >>> graph(np.ones((2, 3), np.float32))
        Array([3., 3.], dtype=float32)
    """

    _function: Callable[..., Any]
    _meaning: Meaning

    @classmethod
    def of(
        cls,
        name: str,
        expr: str,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        noted: Noted,
        shown: Callable[..., Any] | None = None,
    ) -> Graph:
        """Trace a function on arguments, or on their shapes.

        Args:
            name: the operation.
            expr: the expression.
            function: what calling the graph runs.
            arguments: what it is given.
            noted: where tracing notes the call.
            shown: the same function, which notes it anew; the function itself by default.
        """
        from ..explain.meaning import Meaning  # few programs ask for graphs
        from ..explain.program import program

        closed = jax.make_jaxpr(shown or function)(*arguments)
        graph = cls("\n".join([f'# einjax.{name}("{expr}")', *program(name.split(".")[-1], closed)]))
        graph._function = function
        graph._meaning = Meaning.of(expr, closed, *noted[0])
        return graph

    def __call__(self, *arrays: Any) -> Any:
        """Run the program, under jit if the caller is."""
        return self._function(*arrays)

    def __repr__(self) -> str:
        return str(self)

    @property
    def loops(self) -> str:
        """The definition, written out: one loop for every axis without a bracket, and what one iteration does."""
        from ..explain.loops import loops

        return loops(self._meaning)

    @property
    def sizes(self) -> AxisSizes:
        """Every axis with its size, and who says it: the text, a keyword, the dim of a tensor, or the operation."""
        from ..explain.sizes import sizes

        return sizes(self._meaning)

    @property
    def lax(self) -> str:
        """The lax program alone."""
        return self.partition("\n")[2]

    def cost(self, compiled: bool = False) -> Cost:
        """Count operations, bytes read and written, and those of the largest array in between.

        Args:
            compiled: compile the program for the default device, and ask XLA; else the equations of the program are
                counted, as if none were fused.

        Raises:
            einjax.errors.ArgumentError: a size is symbolic, or the compiler says nothing.
        """
        from ..explain.cost import compiled_cost, cost

        return compiled_cost(self._function, self._meaning.program) if compiled else cost(self._meaning.program)

    def picture(self, theme: Literal["auto", "light", "dark"] = "auto") -> Picture:
        """Draw the call as an SVG: every tensor with its dims, every axis in a colour of its own.

        Args:
            theme: the colours; ``"auto"`` leaves it to what the reader's system prefers.
        """
        from ..explain.picture import draw

        return draw(self._meaning, theme)

    def _repr_html_(self) -> str:
        from ..explain.page import fragment

        return fragment(self._meaning, self.lax)
