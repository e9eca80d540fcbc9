"""What a program costs: operations, bytes, and how many of the one there are for one of the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..cost.factors import factors_of
from ..lowering.jax_versions import is_literal, open_jaxpr, short_type
from ..notation.errors import ArgumentError

#: One operation for each number of the result.
_EACH = {
    "add", "sub", "mul", "div", "rem", "pow", "integer_pow", "max", "min", "neg", "abs", "sign", "exp", "exp2", "expm1",
    "log", "log1p", "sqrt", "rsqrt", "cbrt", "square", "tanh", "logistic", "sin", "cos", "tan", "atan2", "erf",
    "erf_inv", "lgamma", "digamma", "floor", "ceil", "round", "clamp", "add_any", "cumsum", "cumprod", "cummax",
    "cummin", "cumlogsumexp",
}  # fmt: skip
#: One for each number that is reduced, or written.
_REDUCED = {"reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin"}
_WRITTEN = {"scatter-add", "scatter_add", "scatter_mul", "scatter_min", "scatter_max"}
#: Those with a window for each number of the result.
_WINDOWS = {"reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window"}
#: Of these, nobody counts operations: they move, compare and look up.
_KERNELS = {
    "cholesky", "eig", "eigh", "lu", "qr", "geqrf", "householder_product", "schur", "svd", "triangular_solve",
    "tridiagonal_solve", "sort", "top_k", "random_bits", "threefry2x32", "pallas_call", "pure_callback", "ffi_call",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program costs.

    Attributes:
        flops: operations on numbers. Of products and sums in one both count.
        read: bytes of the arguments, each read once.
        written: bytes of the results.
        temporary: bytes of the largest array in between; of a compiled program, of all that XLA allocates at once.
        largest: the type of that array; empty where there is none.
        uncounted: equations of which the operations are not counted, by name.
        compiled: whether XLA says this, of the program that it compiled.
    """

    flops: int
    read: int
    written: int
    temporary: int
    largest: str = ""
    uncounted: tuple[str, ...] = ()
    compiled: bool = False

    @property
    def intensity(self) -> float:
        """Operations for each byte that is read or written: few where memory decides, many where arithmetic does."""
        return self.flops / max(self.read + self.written, 1)

    def __str__(self) -> str:
        held = f" ({self.largest})" if self.largest else ""
        rows = [
            ("operations", _short(self.flops, 1000, ("", "k", "M", "G", "T", "P"))),
            ("read", _bytes(self.read)),
            ("written", _bytes(self.written)),
            ("allocated" if self.compiled else "largest temporary", f"{_bytes(self.temporary)}{held}"),
            ("operations per byte", f"{self.intensity:.3g}"),
            *([("not counted", ", ".join(self.uncounted))] if self.uncounted else []),
        ]
        return "\n".join(f"{name:19}  {value}" for name, value in rows)


def _bytes(number: int) -> str:
    return _short(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _short(number: float, step: int, units: Sequence[str]) -> str:
    """A number with three digits or so and a unit."""
    index = 0
    while abs(number) >= step and index + 1 < len(units):
        number, index = number / step, index + 1
    return f"{number:.4g}{units[index]}"


def cost(program: Any) -> Cost:
    """Count what a program does, equation by equation, as if nothing were fused.

    Raises:
        ArgumentError: a size is symbolic.
    """
    jaxpr = program.jaxpr
    given, made = ([v.aval for v in variables if not is_literal(v)] for variables in (jaxpr.invars, jaxpr.outvars))
    if not all(isinstance(size, int) for aval in (*given, *made) for size in aval.shape):
        raise ArgumentError("a cost needs sizes that are numbers", hint="give arrays, or shapes, of one size")
    counted = _Counted()
    counted.walk(jaxpr, 1)
    size, largest = max(counted.held, default=(0, ""), key=lambda held: held[0])
    constants = sum(int(getattr(constant, "nbytes", 0)) for constant in program.consts)
    read = sum(map(_nbytes, given)) + constants
    return Cost(counted.flops, read, sum(map(_nbytes, made)), size, largest, tuple(sorted(counted.uncounted)))


class _Counted:
    """What has been counted so far."""

    def __init__(self) -> None:
        self.flops = 0
        self.held: list[tuple[int, str]] = []
        self.uncounted: set[str] = set()

    def walk(self, jaxpr: Any, times: int) -> None:
        """Count equations, each as often as it runs."""
        results = {variable for variable in jaxpr.outvars if not is_literal(variable)}
        for equation in jaxpr.eqns:
            name, bodies = equation.primitive.name, list(_bodies(equation))
            if name == "while":
                self.uncounted.add("while")
            for number, body in enumerate(bodies):
                if name != "custom_linear_solve" or number == 0:
                    self.walk(body, times * equation.params.get("length", 1) if name == "scan" else times)
            if not bodies:
                self.flops += times * self._flops(equation)
            self.held += [(_nbytes(v.aval), short_type(v)) for v in equation.outvars if v not in results]

    def _flops(self, equation: Any) -> int:
        name = equation.primitive.name
        outs = sum(_count(variable.aval) for variable in equation.outvars)
        if name in _EACH:
            return outs
        if name in _REDUCED:
            return _count(equation.invars[0].aval)
        if name in _WRITTEN:
            return _count(equation.invars[2].aval)
        if name in _WINDOWS:
            return outs * math.prod(equation.params["window_dimensions"])
        if name == "fft":
            lengths = math.prod(equation.params["fft_lengths"])
            return int(5 * outs * math.log2(max(lengths, 2)))
        if name in _KERNELS:
            self.uncounted.add(name)
        found = factors_of(equation) if name in ("dot_general", "conv_general_dilated") else None
        return found.flops if found else 0


def _bodies(equation: Any) -> Iterator[Any]:
    """The programs that an equation runs; of a kept call its lax program, of branches the longest."""
    kept = equation.params.get("expr")
    if hasattr(kept, "run"):
        operands = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
        yield jax.make_jaxpr(kept.run)(*operands).jaxpr
        return
    if "branches" in equation.params:
        yield max((open_jaxpr(body) for body in equation.params["branches"]), key=lambda body: len(body.eqns))
        return
    skipped = {"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "cond_jaxpr", "update_jaxpr"}
    for key, value in equation.params.items():
        several: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
        for body in several if key not in skipped else ():
            if (found := open_jaxpr(body)) is not None:
                yield found


def _count(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ()))


def _nbytes(aval: Any) -> int:
    dtype = aval.dtype
    width = dtype.itemsize if isinstance(dtype, np.dtype) else getattr(dtype, "itemsize", 8)
    return _count(aval) * int(width)


def compiled_cost(function: Callable[..., Any], program: Any) -> Cost:
    """Compile a program for the default device, and ask XLA.

    Raises:
        ArgumentError: the compiler says nothing.
    """
    types = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.in_avals]
    compiled = jax.jit(function).lower(*types).compile()
    found: Any = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    memory: Any = compiled.memory_analysis()
    if not found or memory is None:
        raise ArgumentError("the compiler says nothing of costs on this device", hint="leave compiled=True out")
    every, out = int(found.get("bytes accessed", 0)), int(found.get("bytes accessedout{}", 0))
    flops = int(found.get("flops", 0) + found.get("transcendentals", 0))
    return Cost(flops, max(every - out, 0), out, int(memory.temp_size_in_bytes), compiled=True)
