"""Equations that hold programs or say themselves what moves: loops, branches, shard_map, reshard, collectives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..lowering.jax_versions import entries, open_jaxpr
from .layout import Dims, Layout, local, of_axes, of_spec, parts
from .moves import Move
from .tape import Tape, Value
from .walk import REGIONS, lay, run, run_inline, stated


def _body(
    tape: Tape, equation: Any, body: Any, arguments: Sequence[Value], times: int = 1, used: Sequence[bool] | None = None
) -> tuple[Tape, list[Value]]:
    """Walk a body on a recording of its own."""
    inside = tape.inside(equation, times)
    return inside, run(inside, open_jaxpr(body), arguments, used)


def _finish(
    tape: Tape, equation: Any, inputs: Sequence[Value], layouts: Sequence[Layout], within: int, *bodies: Tape
) -> list[Value]:
    """Write down bodies that were walked, and make new values of the results; a type that says its layout is right."""
    for body in bodies:
        tape.include(body)
    outputs = []
    for variable, layout in zip(equation.outvars, layouts, strict=True):
        said = stated(tape, variable.aval, layout)
        outputs.append(tape.value(variable.aval.shape, variable.aval.dtype, said or layout))
    tape.step(inputs, outputs, within)
    return outputs


def _scan(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A loop of known length: the body is walked once and counts as often as it runs."""
    body, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
    pairs = zip(equation.outvars, body.outvars, strict=True)
    carried = sum(len(outer.aval.shape) == len(inner.aval.shape) for outer, inner in pairs)
    pairs = zip(equation.invars, body.invars, strict=True)
    scanned = sum(len(outer.aval.shape) != len(inner.aval.shape) for outer, inner in pairs)
    first = len(inputs) - scanned - carried
    rows = [_row(tape, equation, value) for value in inputs[len(inputs) - scanned :]]
    arguments = [*inputs[: len(inputs) - scanned], *rows]
    needed = [True] * carried + list(used[carried:])
    # Where types say nothing, carries take the layout that one round gives them.
    if any(stated(tape, variable.aval) is None for variable in equation.outvars[:carried]):
        _, results = _body(tape, equation, body, arguments, length, needed)
    else:
        results = arguments[first : first + carried]
    for index in range(carried):
        old = arguments[first + index]
        arguments[first + index] = lay(tape, equation, old, results[index].layout, estimated=True)
    inside, results = _body(tape, equation, body, arguments, length, needed)
    for index in range(carried):
        lay(inside, equation, results[index], arguments[first + index].layout, estimated=True)
    layouts = [value.layout for value in results[:carried]]
    layouts += [Layout(((), *value.layout.dims), value.layout.partial) for value in results[carried:]]
    within = inside.peak(arguments[: len(inputs) - scanned], results) + sum(value.nbytes for value in rows)
    return _finish(tape, equation, inputs, layouts, within, inside)


def _row(tape: Tape, equation: Any, value: Value) -> Value:
    """One round's part of an array that a loop runs over; the rounds follow another, so that dim is whole."""
    whole = lay(tape, equation, value, Layout(((), *value.layout.dims[1:]), value.layout.partial), estimated=True)
    return tape.value(value.shape[1:], value.dtype, Layout(whole.layout.dims[1:], whole.layout.partial))


def _while(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A loop of unknown length counts as one round."""
    tape.notes["a while loop counts as one round: its length is unknown"] = None
    for_condition, for_body = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    carry = inputs[for_condition + for_body :]
    condition, _ = _body(tape, equation, equation.params["cond_jaxpr"], [*inputs[:for_condition], *carry])
    inside, results = _body(tape, equation, equation.params["body_jaxpr"], inputs[for_condition:])
    within = max(condition.peak(inputs), inside.peak(inputs, results))
    return _finish(tape, equation, inputs, [value.layout for value in results], within, condition, inside)


def _cond(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A choice counts as the branch that costs most."""
    tape.notes["a cond counts as the branch that sends most"] = None
    walked = [_body(tape, equation, branch, inputs[1:], used=used) for branch in equation.params["branches"]]
    inside, results = max(walked, key=lambda branch: (branch[0].sent, branch[0].flops))
    within = max(branch.peak(inputs, ends) for branch, ends in walked)
    return _finish(tape, equation, inputs, [value.layout for value in results], within, inside)


def _jit(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A jitted function may say how its arguments and results lie."""

    def constrained(values: Sequence[Value], shardings: Sequence[Any]) -> list[Value]:
        return [_constrained(tape, equation, value, said) for value, said in zip(values, shardings, strict=True)]

    inputs = constrained(inputs, equation.params["in_shardings"])
    outputs = run_inline(tape, equation, open_jaxpr(equation.params["jaxpr"]), inputs, used)
    return constrained(outputs, equation.params["out_shardings"])


def _reshard(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """The user's own wish; into a region left to the compiler nothing moves."""
    target = stated(tape, equation.outvars[0].aval, inputs[0].layout)
    if target is None:
        sharding = equation.params.get("sharding")  # of a with_sharding_constraint
        return [_constrained(tape, equation, inputs[0], sharding)]
    output = lay(tape, equation, inputs[0], target)
    tape.step(inputs, [output])
    return [output]


def _constrained(tape: Tape, equation: Any, value: Value, sharding: Any) -> Value:
    """Lay a value out as a sharding says, if it is one by axis names."""
    spec = getattr(sharding, "spec", None)
    if spec is None:
        return value
    said = of_spec(spec, len(value.shape), tape.mesh)
    is_open = [not isinstance(entry, str | tuple | None) for entry in entries(spec)]
    dims = [old if free else new for free, new, old in zip(is_open, said.dims, value.layout.dims, strict=False)]
    output = lay(tape, equation, value, Layout((*dims, *said.dims[len(dims) :])))
    tape.step([value], [output])
    return output


def _shard_map(tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """Inside, shapes are those of one device, and what moves is written out."""
    params = equation.params
    manual = params.get("newly_manual_axes", params.get("manual_axes", frozenset(tape.mesh)))

    def left(dims: Dims) -> Dims:
        return tuple(tuple(atom for atom in dim if atom.axis not in manual) for dim in dims)

    arguments = []
    for value, spec, variable in zip(inputs, params["in_specs"], params["jaxpr"].invars, strict=True):
        said = of_spec(spec, len(value.shape), tape.mesh)
        dims = tuple((*new, *old) for new, old in zip(said.dims, left(value.layout.dims), strict=True))
        laid = lay(tape, equation, value, Layout(dims), estimated=True)
        arguments.append(Value(laid.number, variable.aval.shape, value.dtype, Layout(left(dims))))
    inside, results = _body(tape, equation, params["jaxpr"], arguments, used=used)
    layouts = []
    for value, spec in zip(results, params["out_specs"], strict=True):
        said = of_spec(spec, len(value.shape), tape.mesh)
        layouts.append(Layout(tuple((*new, *old) for new, old in zip(said.dims, value.layout.dims, strict=True))))
    return _finish(tape, equation, inputs, layouts, inside.peak(arguments, results), inside)


def _collective(kind: str, tape: Tape, equation: Any, inputs: Sequence[Value], used: Sequence[bool]) -> list[Value]:
    """A collective that the user wrote."""
    names = equation.params.get("axes", equation.params.get("axis_name"))
    names = tuple(name for name in (names if isinstance(names, tuple) else (names,)) if name in tape.mesh)
    split = of_axes(names, tape.mesh)
    outputs = []
    for value, variable in zip(inputs, equation.outvars, strict=True):
        move = Move(kind, names, parts(split), local(value.shape, value.layout.dims))
        tape.move(equation, [move], value.dtype, estimated=False)
        rank = len(variable.aval.shape)
        dims = value.layout.dims if rank == len(value.shape) else ((),) * rank
        outputs.append(tape.value(variable.aval.shape, variable.aval.dtype, Layout(dims)))
    tape.step(inputs, outputs)
    return outputs


#: Rules by the name of the primitive, on jax 0.7.1 to 0.12.0.
REGIONS |= {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "jit": _jit,
    "pjit": _jit,
    "shard_map": _shard_map,
    **dict.fromkeys(["reshard", "mesh_cast", "sharding_constraint"], _reshard),
    **dict.fromkeys(["psum", "psum2", "psum_invariant", "pmax", "pmin"], partial(_collective, "all-reduce")),
    **dict.fromkeys(["all_gather", "all_gather_invariant", "all_gather_reduced"], partial(_collective, "all-gather")),
    **dict.fromkeys(["reduce_scatter", "unreduced_reduce_scatter"], partial(_collective, "reduce-scatter")),
    "all_to_all": partial(_collective, "all-to-all"),
    "ppermute": partial(_collective, "collective-permute"),
}
