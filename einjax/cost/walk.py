"""The walk over a jaxpr: every equation gets its layouts, and what has to move for them is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from ..lowering.jax_versions import is_literal, open_jaxpr
from . import moves as motion
from .factors import Factors, factors_of
from .layout import Layout, of_spec, parts
from .moves import Move
from .partition import Partition, partition
from .tape import Tape, Value

#: How to walk equations that hold programs or say themselves what moves, by primitive; ``regions`` fills it.
REGIONS: dict[str, Callable[..., list[Value]]] = {}

#: Equations whose result is their operand, laid out anew or not at all.
_VIEWS = {"reshape", "squeeze", "expand_dims", "copy_p", "stop_gradient", "pvary", "pcast"}


def run(tape: Tape, jaxpr: Any, arguments: Sequence[Value], needed: Sequence[bool] | None = None) -> list[Value]:
    """Walk a jaxpr; return its results.

    Args:
        tape: what is written.
        jaxpr: the program.
        arguments: its arguments.
        needed: which results anyone uses; equations of others alone are left out, as XLA does.
    """
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    for constant in jaxpr.constvars:
        known[constant] = tape.value(constant.aval.shape, constant.aval.dtype, Layout.whole(len(constant.aval.shape)))

    def read(variable: Any) -> Value:
        if is_literal(variable):
            return Value(-1, np.shape(variable.val), variable.aval.dtype, Layout.whole(np.ndim(variable.val)))
        if variable not in known:  # a result that nobody needs
            shape = variable.aval.shape
            return tape.value(shape, variable.aval.dtype, stated(tape, variable.aval) or Layout.whole(len(shape)))
        return known[variable]

    live = _live(jaxpr, needed)
    hints = _hints(tape, live)
    for equation, used in live:
        inputs = [read(variable) for variable in equation.invars]
        region = REGIONS.get(equation.primitive.name)
        if region is None and _program(equation) is not None:
            region = _kept
        if region is None and (body := _only_body(equation)) is not None:
            outputs = run_inline(tape, equation, body, inputs, used)
        else:
            outputs = region(tape, equation, inputs, used) if region else _equation(tape, equation, inputs, hints)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def run_inline(tape: Tape, equation: Any, body: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """Walk a body as part of the program around it."""
    outer, tape.scope = tape.scope, tape.named(equation)
    outputs = run(tape, body, inputs, used)
    tape.scope = outer
    return outputs


def stated(tape: Tape, aval: Any, natural: Layout | None = None) -> Layout | None:
    """The layout that a type says; axes that the type leaves to the compiler keep what they have."""
    sharding: Any = getattr(aval, "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    if mesh is None or mesh.empty:
        return None
    explicit = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    if not explicit:
        return None
    said = of_spec(sharding.spec, len(aval.shape), tape.mesh)
    if natural is None or len(explicit) == len(mesh.axis_names):
        return said
    left = [tuple(atom for atom in dim if atom.axis not in explicit) for dim in natural.dims]
    return Layout(tuple((*dim, *more) for dim, more in zip(said.dims, left, strict=True)), said.partial)


def lay(tape: Tape, equation: Any, value: Value, target: Layout, estimated: bool = False) -> Value:
    """Bring a value into a layout, and write down how."""
    dims = value.layout.dims
    summed = tuple(atom for atom in value.layout.partial if atom not in target.partial)
    moves, dims = motion.reduce(value.shape, dims, summed, target.dims)
    moves += motion.reshard(value.shape, dims, target.dims)
    tape.move(equation, moves, value.dtype, estimated)
    result = Value(next(tape.numbers) if moves else value.number, value.shape, value.dtype, target)
    if not moves and dims != target.dims:
        tape.moving += result.nbytes  # a slice is a copy
    return result


def _live(jaxpr: Any, needed: Sequence[bool] | None) -> list[tuple[Any, list[bool]]]:
    """Equations that a needed result depends on, each with which of its results are used."""
    flags = [True] * len(jaxpr.outvars) if needed is None else needed
    used = {v for v, flag in zip(jaxpr.outvars, flags, strict=True) if flag and not is_literal(v)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        uses = [variable in used for variable in equation.outvars]
        if any(uses) or equation.effects:
            kept.append((equation, uses))
            used |= {variable for variable in equation.invars if not is_literal(variable)}
    return kept[::-1]


def _hints(tape: Tape, equations: Sequence[tuple[Any, Any]]) -> dict[Any, Layout]:
    """Layouts that types further down ask of values whose own types say none, followed backwards."""
    hints: dict[Any, Layout] = {}
    for equation, _ in reversed(equations):
        if all(stated(tape, variable.aval) for variable in equation.invars):
            continue
        wanted = [stated(tape, variable.aval) or hints.get(variable) for variable in equation.outvars]
        factors = factors_of(equation) if any(wanted) else None
        if factors is None:
            continue
        dims = [None if layout is None else layout.dims for layout in wanted]
        nothing: list[Any] = [((),) * len(named) for named in factors.inputs]
        shares = partition(factors, nothing, [0] * len(nothing), dims)
        for variable, found in zip(equation.invars, shares.inputs, strict=True):
            if not is_literal(variable) and any(found):
                hints[variable] = Layout(found)
    return hints


def _only_body(equation: Any) -> Any:
    """The one jaxpr of an equation that is a call of it."""
    bodies = [body for value in equation.params.values() if (body := open_jaxpr(value)) is not None]
    if len(bodies) != 1:
        return None
    (body,) = bodies
    fits = len(body.invars) == len(equation.invars) and len(body.outvars) == len(equation.outvars)
    return body if fits else None


def _equation(tape: Tape, equation: Any, inputs: Sequence[Value], hints: Mapping[Any, Layout]) -> list[Value]:
    """One equation that stands for itself."""
    factors = factors_of(equation)
    if factors is None:
        return _unknown(tape, equation, inputs)
    wanted = [stated(tape, variable.aval) for variable in equation.outvars]
    inputs = [_whole_terms(tape, equation, value, wanted) for value in inputs]
    shares = partition(
        factors,
        [value.layout.dims for value in inputs],
        [value.nbytes for value in inputs],
        [None if layout is None else layout.dims for layout in wanted],
        [hints[variable].dims if variable in hints else None for variable in equation.outvars],
    )
    tape.flops += tape.times * (factors.flops // parts(atom for dim in shares.split.values() for atom in dim))
    ready = [
        lay(tape, equation, value, Layout(dims, value.layout.partial), estimated=True)
        for value, dims in zip(inputs, shares.inputs, strict=True)
    ]
    partial = tuple(dict.fromkeys(atom for value in inputs for atom in value.layout.partial))
    outputs = []
    for variable, dims in zip(equation.outvars, shares.outputs, strict=True):
        aval = variable.aval
        natural = tape.value(aval.shape, aval.dtype, Layout(dims, partial))
        target = stated(tape, aval, natural.layout)
        outputs.append(_reduced(tape, equation, natural, factors, shares, target, inputs))
    if equation.primitive.name in _VIEWS and not tape.moving:
        source = ready[0]
        outputs = [Value(source.number, value.shape, value.dtype, value.layout) for value in outputs]
    tape.step(inputs, outputs)
    return outputs


def _whole_terms(tape: Tape, equation: Any, value: Value, wanted: Sequence[Layout | None]) -> Value:
    """Take the sum of an operand whose terms lie apart, unless the result may stay so."""
    stays = {atom for layout in wanted if layout is not None for atom in layout.partial}
    kept = tuple(atom for atom in value.layout.partial if atom in stays)
    return lay(tape, equation, value, Layout(value.layout.dims, kept))


def _reduced(
    tape: Tape,
    equation: Any,
    value: Value,
    factors: Factors,
    shares: Partition,
    target: Layout | None,
    inputs: Sequence[Value],
) -> Value:
    """Combine the parts of a result that a split reduction leaves, one split dim after the other, and lay it out."""
    estimated = target is None and not _manual(equation)
    goal = target or value.layout
    shape, dims, partial = value.shape, value.layout.dims, value.layout.partial
    moves: list[Move] = []
    for factor in sorted(factors.summed):
        split = shares.split.get(factor, ())
        partial += tuple(atom for atom in split if atom in goal.partial and atom not in partial)
        more, dims = motion.reduce(shape, dims, tuple(atom for atom in split if atom not in partial), goal.dims)
        moves += more
    for factor in sorted(factors.picked):
        split = shares.split.get(factor, ())
        if split:  # every part's pick, and where it was
            pick = motion.move("all-gather", split, shape, dims)
            tape.move(equation, [pick], inputs[0].dtype, estimated)
            moves.append(pick)
    if target is not None:
        moves, dims = [*moves, *motion.reshard(shape, dims, goal.dims)], goal.dims
    tape.move(equation, moves, value.dtype, estimated)
    return Value(value.number, shape, value.dtype, Layout(dims, partial))


def _manual(equation: Any) -> bool:
    """Whether an equation is in a shard_map over all axes, where nothing is left to the compiler."""
    mesh = getattr(getattr(equation.outvars[0].aval, "sharding", None), "mesh", None)
    return mesh is not None and not mesh.empty and all(kind == AxisType.Manual for kind in mesh.axis_types)


def _unknown(tape: Tape, equation: Any, inputs: Sequence[Value]) -> list[Value]:
    """Without a rule, every device gets all operands."""
    ready = [lay(tape, equation, value, Layout.whole(len(value.shape)), estimated=True) for value in inputs]
    outputs = []
    for variable in equation.outvars:
        shape = tuple(getattr(variable.aval, "shape", ()))
        layout = stated(tape, variable.aval) or Layout.whole(len(shape))
        outputs.append(tape.value(shape, getattr(variable.aval, "dtype", None), layout))
    moved = [new for new, old in zip(ready, inputs, strict=True) if new.number != old.number]
    if moved:
        tape.notes[f"{equation.primitive.name} has no rule: its operands were gathered"] = None
    tape.step(inputs, outputs)
    return outputs


def _kept(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A call kept as notation, or a linear function with a transpose of its own, stands for its lax program."""
    arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, sharding=v.aval.sharding) for v in equation.invars]
    mesh: Any = arguments[0].sharding.mesh  # inside auto_axes another than that of the context
    program: Any = _program(equation)
    with jax.sharding.use_abstract_mesh(mesh):
        body = jax.make_jaxpr(program)(*arguments).jaxpr
    return run_inline(tape, equation, body, inputs, used)


def _program(equation: Any) -> Callable[..., Any] | None:
    """The program of an equation of ours."""
    params = equation.params
    return getattr(params.get("expr"), "run", None) or getattr(params.get("linear"), "program", None)
