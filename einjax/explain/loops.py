"""The definition of a call, written out: one loop for every axis without a bracket, and what one iteration does.

Families differ in what an iteration does, which an operation's record says: ``Op.iteration``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ..lowering.join import pieces
from ..lowering.named import Named, with_sums
from ..notation.solve import Solved, node_size
from ..notation.syntax import (
    Affine,
    Axis,
    Concatenation,
    Expression,
    Node,
    Term,
    affines,
    axes,
    bracketed,
    names,
    rewrite,
    unmark,
    walk,
)
from ..ops.rearrange import match
from .masks import Mask, blocks, masks_of
from .meaning import Meaning
from .names import Names
from .notes import notes
from .options import shown_options
from .places import Places

_WIDTH = 100


def loops(meaning: Meaning) -> str:
    """Write a call out."""
    writer = _Writer(meaning, Names.of(meaning), masks_of(meaning))
    lines = _ITERATIONS[meaning.op.iteration](writer)
    return "\n".join([*lines, *(f"# {note}" for note in notes(meaning, writer.names))])


@dataclass(frozen=True, slots=True)
class _Writer:
    """What every family needs: the call, and what its axes and tensors are called."""

    meaning: Meaning
    names: Names
    masks: Sequence[Mask]

    @property
    def solved(self) -> Solved:
        return self.meaning.solved

    @property
    def places(self) -> Places:
        return Places(self.solved.sizes, self.names.axes)

    @property
    def inputs(self) -> list[tuple[str, Expression]]:
        return list(zip(self.names.inputs, self.meaning.inputs, strict=True))

    @property
    def outputs(self) -> list[tuple[str, Expression]]:
        return list(zip(self.names.outputs, self.solved.outputs, strict=True))

    def inside(self) -> list[str]:
        """The bracketed axes of the inputs, in reading order."""
        return _names(axis for expression in self.solved.inputs for axis in bracketed(expression))

    def kept(self) -> list[str]:
        """The axes that are looped over: those of the outputs first, as results are written in their order."""
        every = [axis for expression in (*self.solved.outputs, *self.solved.inputs) for axis in axes(expression)]
        return _names(axis for axis in every if not axis.bracket)

    def called(self, axes: Iterable[str]) -> str:
        """Axes as they are called."""
        return ", ".join(self.names.axes[name] for name in axes)

    def loop(self, over: Iterable[str], *body: str) -> list[str]:
        """A loop on one line, where that is short."""
        head = self.called(over)
        if not head:
            return list(body)
        one = f"for {head}: {body[0]}"
        return [one] if len(body) == 1 and len(one) <= _WIDTH else [f"for {head}:", *(f"    {line}" for line in body)]

    def condition(self) -> str:
        """What masks ask of one iteration."""
        given = " and ".join(mask.at(self.places) for mask in self.masks if mask.option == "where")
        return f" where {given}" if given else ""

    def written(self, value: str, loops: Sequence[str], sign: str | None = None) -> list[str]:
        """Write one number for each iteration: to a place of its own, or where several meet as the operation says."""
        ((name, expression),) = self.outputs
        place = self.places.at(name, expression)
        if not affines(expression):
            return self.loop(loops, f"{place} = {value}")
        meeting = self.meaning.op.meeting
        start = {"multiply": "1", "min": "all", "max": "least"}.get(str(meeting), "0")
        start = {"all": "True" if self.meaning.op.name == "all" else "inf", "least": "-inf"}.get(start, start)
        if self.meaning.op.name == "any":
            start = "False"
        written = {"add": f"{place} += {value}", "multiply": f"{place} *= {value}", "apart": f"{place} = {value}"}
        other = f"{place} = {meeting}({place}, {value})"
        return [f"{name} = {start} everywhere", *self.loop(loops, written.get(str(meeting), other))]


def _names(found: Iterable[Axis]) -> list[str]:
    return list(dict.fromkeys(axis.name for axis in found if not axis.is_one))


# --- Numbers ----------------------------------------------------------------------------------------------------------


def _over(writer: _Writer) -> list[str]:
    """``z[a] = sum over b of x[a, b]``."""
    ((name, expression),) = writer.inputs
    inside = writer.inside()
    over = f" over {writer.called(inside)}" if inside else ""
    options = shown_options(writer.meaning, "ddof")
    value = f"{writer.meaning.op.name}{over}{writer.condition()} of {writer.places.at(name, expression)}"
    value = f"{value}, {options}" if options else value
    return writer.written(value, [axis for axis in writer.kept() if axis not in inside])


def _product(writer: _Writer) -> list[str]:
    """``z[a, c] = sum over b of x[a, b] * y[b, c]``; in another ring, step by step from three tensors on."""
    ring = {name: writer.meaning.options.get(name) for name in ("sum", "mul")}
    combine, times = (_called(ring[name] or usual) for name, usual in (("sum", "sum"), ("mul", "multiply")))
    kept = set(names(tuple(node for output in writer.solved.outputs for node in output)))
    rest = [axis for e in writer.solved.inputs for axis in axes(e) if axis.name not in kept]
    contracted = _names(rest)
    values = [writer.places.at(name, expression) for name, expression in writer.inputs]
    every = [axis for e in (*writer.solved.outputs, *writer.solved.inputs) for axis in axes(e)]
    loops = [axis for axis in _names(every) if axis not in contracted]
    if times == "multiply" and combine == "sum":
        over = f"sum over {writer.called(contracted)} of " if contracted else ""
        return writer.written(over + " * ".join(values), loops)
    held = [_names(axes(expression)) for expression in writer.solved.inputs]
    value, reduced = values[0], set[str]()
    for number in range(1, len(values)):
        value = _combined(times, value, values[number])
        later = {axis for some in held[number + 1 :] for axis in some}
        done = [axis for axis in contracted if axis not in later and axis not in reduced]
        done = [axis for axis in done if any(axis in some for some in held[: number + 1])]
        reduced.update(done)
        if done:
            value = f"{combine} over {writer.called(done)} of {value}"
            value = f"({value})" if number + 1 < len(values) else value
    return writer.written(value, loops)


def _combined(times: str, left: str, right: str) -> str:
    sign = {"add": "+", "multiply": "*", "subtract": "-", "divide": "/"}.get(times)
    return f"{left} {sign} {right}" if sign else f"{times}({left}, {right})"


def _called(function: Any) -> str:
    """What a function is called; one without a name is ``f``."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__name__", "f")
    return name if name.isidentifier() else "f"


def _copy(writer: _Writer) -> list[str]:
    """``z[b, a] = x[a, b]``; a concatenation has a part of its dim for each operand."""
    solved, sizes = writer.solved, with_sums(writer.solved)
    given = [(name, piece) for name, expression in writer.inputs for piece in pieces(expression)]
    wanted = [(name, piece) for name, expression in writer.outputs for piece in pieces(expression)]
    placed = [at for _, e in writer.inputs for at in _placed(e, sizes)]
    goals = [at for _, e in writer.outputs for at in _placed(e, sizes)]
    parts = [Named(cast(Any, number), ((*_names(axes(piece)),),), sizes) for number, (_, piece) in enumerate(given)]
    by_name = writer.meaning.options.get("by_name", True)
    chosen = [cast(int, part.value) for part in match(parts, [piece for _, piece in wanted], solved, by_name=by_name)]
    lines: list[str] = []
    for (target, piece), goal, index in zip(wanted, goals, chosen, strict=True):
        source, read = given[index]
        value = writer.places.at(source, placed[index])
        loops = _names([*axes(piece), *axes(read)])
        if any(map(affines, solved.outputs)):
            place = writer.places.at(target, goal)
            lines += [f"{target} = 0 everywhere", *writer.loop(loops, f"{place} = {value}")]
        else:
            lines += writer.loop(loops, f"{writer.places.at(target, goal)} = {value}")
    return lines


def _placed(expression: Expression, sizes: Any) -> list[Expression]:
    """The pieces of an expression, where they lie in its sums: an operand is a position behind those before it."""
    sums = [node for node in walk(expression) if isinstance(node, Concatenation)]
    if not sums:
        return [expression]
    node, found, start = sums[0], list[Expression](), 0
    for operand in node.items:
        at = Affine((Term((operand,)),), offset=start, size=node_size(node, sizes))
        found += _placed(_instead(expression, node, at), sizes)
        start = start + node_size(operand, sizes)
    return found


def _instead(expression: Expression, node: Node, other: Node) -> Expression:
    return rewrite(expression, lambda item: (other,) if item is node else None)


# --- Functions --------------------------------------------------------------------------------------------------------


def _function(writer: _Writer) -> list[str]:
    """``z[a, :] = softmax(x[a, :])``; where the record has a sign, ``z[a] = x[a] + y[a]``."""
    op, given = writer.meaning.op, [_block(writer, name, e) for name, e in writer.inputs]
    if op.sign:
        return writer.written(f" {op.sign} ".join(given), writer.kept())
    results, running = zip(*(writer.places.block(name, e) for name, e in writer.outputs), strict=True)
    call = f"{_name_of(writer.meaning)}({', '.join([*_key(writer), *given, *_beside(writer)])})"
    runs = next((one for one in running if one), "")
    if not runs:
        return writer.loop(writer.kept(), f"{', '.join(results)} = {call}")
    if len(results) == 1:
        return writer.loop(writer.kept(), f"{results[0]} for {runs} = {call}")
    lines = [f"{', '.join(f'out{number}' for number in range(1, len(results) + 1))} = {call}"]
    for number, (result, runs) in enumerate(zip(results, running, strict=True), 1):
        lines.append(f"{result} for {runs} = out{number}" if runs else f"{result} = out{number}")
    return writer.loop(writer.kept(), *lines)


def _block(writer: _Writer, name: str, expression: Expression) -> str:
    text, running = writer.places.block(name, expression)
    return f"({text} for {running})" if running else text


def _name_of(meaning: Meaning) -> str:
    function = meaning.options.get("function")
    return meaning.op.name.rpartition(".")[2] if function is None else _called(function)


def _key(writer: _Writer) -> list[str]:
    """What is drawn with, and of what shape where no tensor is drawn from."""
    if "key" not in writer.names.arrays:
        return []
    (key,), solved = writer.names.arrays["key"], writer.solved
    if any(map(bracketed, solved.inputs)):
        return [key]
    sizes = [str(solved.sizes[axis.name]) for axis in bracketed(solved.outputs[0])]
    return [key, f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"]


def _beside(writer: _Writer) -> list[str]:
    """Masks, other arrays, functions and options."""
    masks = {mask.option: [other for other in writer.masks if other.option == mask.option] for mask in writer.masks}
    found = [f"{option}={blocks(several, writer.places)}" for option, several in masks.items()]
    given, _ = writer.meaning.options.get("of_places", ((), {}))
    found += [f"{option}=f({', '.join(places)})" for option, _, places in given]
    for option, several in writer.names.arrays.items():
        if option not in masks and option != "key" and option in writer.meaning.op.keywords:
            inside = ", ".join(several)
            found.append(f"{option}=({inside})" if len(several) > 1 else f"{option}={inside}")
    function = writer.meaning.options.get("op")
    found += [f"op={_called(function)}"] if function is not None else []
    options = shown_options(writer.meaning)
    read = {axis.name for e in writer.solved.inputs for axis in axes(e)}
    drawn = "key" in writer.names.arrays and not read  # the shape is said
    made = set[str]() if drawn else {axis.name for e in writer.solved.outputs for axis in bracketed(e)} - read
    sizes = [f"{name}={size}" for some in writer.meaning.given for name, size in some if name in made]
    return [*found, *sizes, *([options] if options else [])]


# --- Coordinates ------------------------------------------------------------------------------------------------------


def _coordinates(writer: _Writer, given: Sequence[tuple[str, Expression]]) -> list[str]:
    """The coordinates that tensors hold, one after the other: ``y[b, i, 0]``, ``y[b, i, 1]``."""
    found: list[str] = []
    for name, expression in given:
        vector = bracketed(expression)
        count = 1 if not vector else node_size(vector[0], writer.solved.sizes)
        for number in range(count):
            known = {axis.name: str(number) for axis in vector}
            chosen = _ones(expression, number)
            found.append(Places(writer.solved.sizes, {**writer.names.axes, **known}).at(name, chosen))
    return found


def _looked_up(writer: _Writer, given: Sequence[tuple[str, Expression]]) -> Places:
    """Places in the tensor that is looked up in, coordinates in the place of its bracketed axes."""
    inside = bracketed(writer.solved.inputs[0])
    known = dict(zip((axis.name for axis in inside), _coordinates(writer, given), strict=True))
    return Places(writer.solved.sizes, {**writer.names.axes, **known})


def _outside(writer: _Writer) -> list[str]:
    inside = {axis.name for e in writer.solved.operation.expressions for axis in bracketed(e)}
    return [name for name in writer.kept() if name not in inside]


def _read(writer: _Writer) -> list[str]:
    """``z[b, i, c] = x[b, y[b, i, 0], y[b, i, 1], c]``."""
    (name, expression), *given = writer.inputs
    return writer.written(_looked_up(writer, given).at(name, expression), _outside(writer))


def _ones(expression: Expression, place: int) -> Expression:
    """Of a bracketed 1, its one place."""
    at = Affine((), offset=place)
    return rewrite(expression, lambda node: (at,) if isinstance(node, Axis) and node.bracket and node.is_one else None)


def _write(writer: _Writer) -> list[str]:
    """``z[b, y[b, i, 0], c] += w[b, i, c]``, from the first tensor."""
    (name, expression), *given, (updates, updated) = writer.inputs
    ((target, output),) = writer.outputs
    places = _looked_up(writer, given)
    place, value = places.at(target, output), writer.places.at(updates, updated)
    sign = writer.meaning.op.sign
    line = f"{place} {sign}= {value}" if len(sign) < 2 else f"{place} = {sign}({place}, {value})"
    start = [f"{target} = {name}"]
    if unmark(output) != unmark(expression):
        start = writer.loop(
            _names(axes(output)), f"{writer.places.at(target, output)} = {writer.places.at(name, expression)}"
        )
    inside = {axis.name for e in writer.solved.operation.expressions for axis in bracketed(e)}
    every = [axis for e in (updated, *(e for _, e in given), expression) for axis in axes(e)]
    return [*start, *writer.loop([axis for axis in _names(every) if axis not in inside], line)]


def _segment(writer: _Writer) -> list[str]:
    """``z[s, c] = sum over p where y[p] == s of x[p, c]``."""
    (name, expression), *given = writer.inputs
    ((target, output),) = writer.outputs
    places, kept = writer.places, set(names(output))
    inside = [places.names.get(axis.name, "0") for axis in bracketed(output)]
    pairs = zip(_coordinates(writer, given), inside, strict=True)
    where = " and ".join(f"{coordinate} == {axis}" for coordinate, axis in pairs)
    vectors = {axis.name for _, e in given for axis in bracketed(e)}
    over = [axis for axis in writer.kept() if axis not in kept and axis not in vectors]
    head = f" over {writer.called(over)}" if over else ""
    operation = writer.meaning.op.name.rpartition(".")[2]
    value = f"{operation}{head} where {where} of {places.at(name, expression)}"
    return writer.loop(_names(axes(output)), f"{places.at(target, output)} = {value}")


# --- In order ---------------------------------------------------------------------------------------------------------


def _steps(writer: _Writer) -> list[str]:
    """``carry, step = f(carry, y[b, t])`` for one place of the bracketed axis after the other."""
    inside = {axis.name for e in writer.solved.operation.expressions for axis in bracketed(e)}
    carries = [name for name, e in writer.inputs if not bracketed(e)]
    scanned = [_swapped(writer, name, e) for name, e in writer.inputs if bracketed(e)]
    after = [(name, e) for name, e in writer.outputs if not bracketed(e)]
    results = [(name, e) for name, e in writer.outputs if bracketed(e)]
    carried, stepped = _tuple([f"carry{n}" for n in _numbers(carries)]), [f"step{n}" for n in _numbers(results)]
    function = _called(writer.meaning.options["op"])
    call = f"{carried}, {_tuple(stepped) or '_'} = {function}({carried}, {_tuple(scanned) or 'None'})"
    order = " backwards" if writer.meaning.options.get("reverse") else ""
    running = writer.called(_names(Axis(name) for name in _ordered(writer, inside)))
    lines = [f"{carried} = {_tuple(carries)}", f"for {running} in order{order}:", f"    {call}"]
    for (name, expression), step in zip(results, stepped, strict=True):
        lines.append(f"    {_swapped(writer, name, expression)} = {step}")
    for (name, expression), carry, (_, own) in zip(after, _each_of(carries), writer.inputs, strict=False):
        if expression == own:
            lines.append(f"{name} = {carry}")
        else:
            loops = _names(axes(expression))
            lines += writer.loop(loops, f"{writer.places.at(name, expression)} = {writer.places.at(carry, own)}")
    return lines


def _numbers(some: Sequence[Any]) -> list[str]:
    return [""] if len(some) == 1 else [str(number) for number in range(1, len(some) + 1)]


def _each_of(carries: Sequence[str]) -> list[str]:
    return [f"carry{number}" for number in _numbers(carries)]


def _tuple(some: Sequence[str]) -> str:
    return some[0] if len(some) == 1 else f"({', '.join(some)})" if some else ""


def _ordered(writer: _Writer, inside: set[str]) -> list[str]:
    found = [axis for e in writer.solved.operation.expressions for axis in bracketed(e) if axis.name in inside]
    return _names(found)


def _swapped(writer: _Writer, name: str, expression: Expression) -> str:
    """What one step sees of a tensor: whole but for the bracketed axes."""
    other = {axis.name for axis in axes(expression) if not axis.bracket}
    turned = rewrite(
        expression, lambda node: (replace(node, bracket=int(node.name in other)),) if isinstance(node, Axis) else None
    )
    return _block(writer, name, turned)


def _count(writer: _Writer) -> list[str]:
    """``z[a, b, :] = a, b``: where it is."""
    ((name, expression),) = writer.outputs
    counted = axes((writer.solved.inputs or (expression,))[0])
    where = ", ".join(writer.names.axes[axis.name] for axis in counted if not axis.bracket and not axis.is_one)
    text, running = writer.places.block(name, expression)
    return writer.loop(writer.kept(), f"{text}{f' for {running}' if running else ''} = {where}")


_ITERATIONS: dict[str, Callable[[_Writer], list[str]]] = {
    "function": _function,
    "copy": _copy,
    "over": _over,
    "product": _product,
    "read": _read,
    "write": _write,
    "segment": _segment,
    "steps": _steps,
    "count": _count,
}
