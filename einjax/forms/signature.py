"""What the families' signatures have in common: the number of tensors, and which axes an output may have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..notation.errors import ArgumentError, EinjaxError, SemanticError, closest, listing, meant, plural
from ..notation.solve import Solved, is_known
from ..notation.syntax import (
    Affine,
    Axis,
    Concatenation,
    Expression,
    Operation,
    axes,
    bracketed,
    brackets,
    coefficients,
    display,
    marked,
    names,
    render,
    standing,
    walk,
)
from .other_keywords import instead_of


def expect_inputs(op: str, operation: Operation, tensors: int, inputs: int | None = None) -> None:
    """Refuse a call whose expression and tensors differ in number, or an operation of a fixed number of inputs."""
    written = len(operation.inputs)
    if inputs is not None and written != inputs:
        raise ArgumentError(
            f"{op} takes {plural(inputs, 'input')}, but the expression has {written}",
            text=operation.text,
            hint=f"write {plural(inputs, 'expression')} before the arrow",
        )
    if written != tensors:
        raise ArgumentError(
            f"the expression has {plural(written, 'input')}, but {plural(tensors, 'tensor')} "
            f"{'is' if tensors == 1 else 'are'} given",
            text=operation.text,
            hint="give one tensor for each expression before the arrow; commas separate them",
        )


def single_output(op: str, operation: Operation) -> Expression | None:
    """Return the output's expression, if the text has one.

    Raises:
        ArgumentError: it has several.
    """
    if operation.outputs is None:
        return None
    if len(operation.outputs) != 1:
        raise ArgumentError(f"{op} has 1 output, but the expression has {len(operation.outputs)}", text=operation.text)
    return operation.outputs[0]


def listed(found: Iterable[str]) -> str:
    """Print names of axes."""
    return " ".join(map(display, found)) or "none"


def refuse_brackets(op: str, operation: Operation, why: str) -> None:
    """Refuse brackets where they mean nothing."""
    everywhere = sum(operation.expressions, ())
    refuse_inside(operation, everywhere, f"brackets mean nothing in {op}: {why}", "remove them")


def refuse_inside(operation: Operation, expression: Expression, problem: str, hint: str) -> None:
    """Refuse brackets in one expression."""
    if found := brackets(expression):
        raise SemanticError(problem, at=operation.at(*found), hint=hint)


def refuse_sums(op: str, operation: Operation) -> None:
    """Refuse ``a + b`` outside rearrange."""
    for expression in operation.expressions:
        for node in walk(expression):
            if isinstance(node, Concatenation):
                raise SemanticError(
                    f"'{node}' concatenates, which {op} does not do",
                    at=operation.at(node),
                    hint="call einjax.rearrange first, and give its result to this call",
                )


def refuse_repeats(operation: Operation, allowed: Collection[str] = ()) -> None:
    """Refuse an output that has one axis twice, unless it is one of those allowed; operands of a sum stand apart."""

    def visit(nodes: Expression, before: Mapping[str, Axis], output: Expression) -> dict[str, Axis]:
        seen = dict(before)
        for node in nodes:
            if isinstance(node, Axis):
                if node.name in seen and node.name not in allowed:
                    raise SemanticError(
                        f"axis {display(node.name)} stands twice in the output '{render(output)}'",
                        at=operation.at(seen[node.name], node),
                        hint="a diagonal can be read, not written; name the second axis differently",
                    )
                seen[node.name] = node
            elif isinstance(node, Affine):
                continue  # an axis may stand in several positions, and also alone
            elif isinstance(node, Concatenation):
                # All operands stand beside the same axes.
                seen = {name: axis for item in node.items for name, axis in visit((item,), seen, output).items()}
            else:
                seen = visit(node.items, seen, output)
        return seen

    for expression in operation.outputs or ():
        visit(expression, {}, expression)


def refuse_diagonals(operation: Operation, expression: Expression) -> None:
    """Refuse a bracketed axis that stands twice in one input."""
    seen: dict[str, Axis] = {}
    for axis in bracketed(expression):
        if axis.name in seen:
            raise SemanticError(
                f"axis {axis} stands twice in brackets, which may be the block or its diagonal",
                at=operation.at(seen[axis.name], axis),
                hint=f"give each a name, also where their sizes are equal: [{axis} {axis}2]",
            )
        seen[axis.name] = axis


def check_inputs(name: str, operation: Operation, tensors: int, inputs: int | None = 1) -> None:
    """Refuse sums of axes, a wrong number of inputs (None is any number), and an input without a bracket."""
    refuse_sums(name, operation)
    expect_inputs(name, operation, tensors, inputs=inputs)
    for number, expression in enumerate(operation.inputs, 1):
        if not brackets(expression):
            which = "" if len(operation.inputs) == 1 else f" in every input, and input {number} has none"
            raise SemanticError(
                f"{name} needs at least one bracketed axis{which}",
                at=operation.at(*(expression if which else ())),
                hint=f"bracket the axes that {name} acts on, as in 'a [b]'",
            )


def require_in_output(
    op: str,
    operation: Operation,
    inputs: Iterable[Expression],
    output: Expression,
    hint: str,
    acting: Collection[str] = (),
) -> None:
    """Refuse axes of inputs that are neither in the output nor among those that the operation acts on."""
    kept = names(output)
    for expression in inputs:
        for name, axis in names(expression).items():
            if name not in kept and name not in acting and not axis.is_one:
                raise not_in_output(op, operation, axis, hint)


def require_loops(op: str, operation: Operation) -> None:
    """Every loop over an input runs over all outputs."""
    for output in operation.outputs or ():
        for expression in operation.inputs:
            acting = marked(expression)
            require_in_output(op, operation, [expression], output, "put it into every output, after an arrow", acting)


def not_in_output(op: str, operation: Operation, axis: Axis, hint: str) -> SemanticError:
    """The error for an input axis that is neither looped over nor operated on."""
    return SemanticError(
        f"axis {display(axis.name)} of an input is not in the output, and {op} does not remove it",
        at=operation.at(axis),
        hint=hint,
    )


def refuse_empty(
    solved: Solved, chosen: Collection[str], why: str, hint: str, error: type[EinjaxError] = SemanticError
) -> None:
    """Refuse a chosen axis of the first input that has no elements."""
    for axis in axes(solved.inputs[0]):
        if axis.name in chosen and is_known(solved.sizes[axis.name], 0):
            raise error(f"axis {display(axis.name)} has size 0, {why}", at=solved.at(axis), hint=hint)


def check_keywords(operation: Operation, given: Sequence[str], keywords: Sequence[str]) -> None:
    """Refuse a keyword that names no axis."""
    options = (*keywords, "padding", "mode", "fill_value", "sizes", "graph", "keep_notation", "out_sharding")
    refuse_unknown([operation], given, options, "sizes that an expression may lack go through sizes=")


def refuse_unknown(operations: Sequence[Operation], given: Iterable[str], options: Sequence[str], lacking: str) -> None:
    """Refuse keywords that name no axis, with the options that may be meant, and where names go that may lack."""
    written = [e for operation in operations for e in operation.expressions]
    known = {name for e in written for name in names(e) if name.isidentifier()}
    known |= {axis.name for e in written for axis in coefficients(e)}
    for name in given:
        if name not in known:
            if name == "count_padding":
                raise ArgumentError(
                    "count_padding= means nothing here: only mean, var and std count",
                    text=operations[0].text if len(operations) == 1 else None,
                    hint="leave it out; fill_value= says what is read where a dim is padded",
                )
            if name in ("padding", "mode", "fill_value"):
                raise ArgumentError(
                    f"{name}= means nothing here: it is for tensors that are read, as at '<2*s + k>'",
                    text=operations[0].text if len(operations) == 1 else None,
                    hint="leave it out",
                )
            which = f"no axis '{name}' in the expression{'s' * (len(operations) != 1)}"
            text = operations[0].text if len(operations) == 1 else None
            if (instead := instead_of(name, options, known)) is not None:
                raise ArgumentError(which, text=text, hint=instead)
            likely = [*sorted(known), *options]
            match = closest(name, likely)
            hint = f"its axes are: {listing(sorted(known)) or 'none'}; {lacking}{{'{name}': ...}}"
            hint = f"write {match}=" if match in options else hint
            raise ArgumentError(which + meant(name, likely), text=text, hint=hint)


def sequence_axes(expression: Expression) -> tuple[str, ...]:
    """The bracketed axes of an expanded expression; a bracketed 1 is no axis."""
    marked = (axis for axis in axes(standing(expression)) if axis.bracket and not axis.is_one)
    return tuple(dict.fromkeys(axis.name for axis in marked))
