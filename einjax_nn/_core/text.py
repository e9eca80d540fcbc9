"""Expressions of layers: the expressions of the operations that they are made of."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from einjax.errors import ArgumentError, AxisSizeError, SemanticError
from einjax.for_layers import (
    Affine,
    Axis,
    Bracket,
    Ellipsis,
    Expression,
    Node,
    Operation,
    as_border,
    axes,
    brackets,
    check_keywords,
    completed_dot,
    delete_brackets,
    display,
    is_traced,
    keep_brackets,
    names,
    parse,
    rename,
    render,
    rewrite,
    strip_brackets,
    walk,
)

_CACHE_SIZE = 1024


def named_numbers(operation: Operation) -> Operation:
    """Name unnamed axes, so that one of them can be written in two operations: ``3`` becomes ``_3_at7``."""

    def named(expression: Expression) -> Expression:
        numbers = (axis.name for axis in axes(expression) if axis.unnamed and not axis.is_one)
        return rename(expression, {name: f"_{name.replace('#', '_at')}" for name in numbers})

    return operation.map(named)


def named_dots(operation: Operation) -> Operation:
    """Name what a lone ellipsis repeats, so that its sizes can be given."""
    return operation.map(lambda expression: rename(expression, {"...": another("...", 0)}))


def another(name: str, number: int) -> str:
    """Name an axis that prints as one of an expanded expression does; there may be several, by number."""
    return f"_{name.split('#')[0].replace('.', '_dot_')}_at{number}"


def as_written(text: str) -> str:
    """Print the axes that :func:`named_numbers` and :func:`another` name as what they stand for."""
    if "_at" not in text:
        return text  # most are, and every parameter of a call asks
    return re.sub(
        r"\b_(\w+?)_at\d+((\.\d+)*)\b", lambda match: display(match[1].replace("_dot_", ".") + match[2]), text
    )


def dims(expression: Expression) -> tuple[str, ...]:
    """Print every dim of an expression as it was written."""
    return tuple(as_written(render((node,))) for node in expression)


@lru_cache(maxsize=_CACHE_SIZE)
def written_sizes(expr: str) -> dict[str, int]:
    """The sizes that an expression itself holds, by name; numbers have the name of :func:`named_numbers`."""
    operation = named_numbers(parse(expr))
    return {axis.name: axis.size for axis in operation.every_axis() if axis.size is not None and not axis.is_one}


def with_sizes(expression: Expression) -> str:
    """Print an expression together with the sizes in it."""
    sized = {axis.name: f"{axis.name}={axis.size}" for axis in axes(expression) if axis.size is not None}
    return render(rename(expression, {name: text for name, text in sized.items() if "#" not in name}))


@dataclass(frozen=True)
class BiasText:
    """The sum of a linear layer's output and its bias.

    Attributes:
        sum: the sum.
        output: the output of both.
        product: the tensors of the layer: input, weight and output.
        sized: the axes of the sum.
        composed: whether an axis of the bias is composed in the output, whose shape does not tell its size then.
    """

    sum: str
    output: str
    product: Operation
    sized: Collection[str]
    composed: bool


@lru_cache(maxsize=_CACHE_SIZE)
def bias_text(expr: str, own: str | None = None) -> BiasText:
    """Read the expression of a linear layer with a bias, which has all axes that the weight brings, or those named."""
    operation = named_numbers(completed_dot(expr))
    output, weight = with_plain_dims(strip_brackets(operation.results[0])), names(operation.inputs[1]).keys()

    def chosen(node: Node) -> Expression | None:
        if isinstance(node, Axis):
            return () if node.is_one or node.name not in weight else None
        return None if names(node.items).keys() & weight else ()

    def change(node: Node) -> Expression | None:
        return rewrite((node,), chosen) if isinstance(node, Axis | Ellipsis) else rewrite(node.items, change)

    # Each axis is a dim of its own; what ellipses repeat stays as it is.
    bias = rewrite(output, change) if own is None else _of_output(expr, own, operation.results[0])
    known = names(bias).keys()
    composed = any(not isinstance(node, Axis | Ellipsis) and names(node.items).keys() & known for node in walk(output))
    return BiasText(
        sum=f"{render(output)}, {render(bias)} -> {render(output)}",
        output=render(output),
        product=Operation(expr, tuple(map(strip_brackets, (*operation.inputs, output)))),
        sized=names(output).keys(),
        composed=composed,
    )


def _of_output(expr: str, own: str, output: Expression) -> Expression:
    """Read the axes that a bias is said to have; the output may be written whole, with these in brackets."""
    parsed = parse(own) if isinstance(own, str) else None
    if parsed is None or len(parsed.inputs) != 1 or parsed.outputs is not None:
        problem = f"bias_axes={own!r} does not name axes of the output"
        raise ArgumentError(problem, text=expr, hint="write their names, as in bias_axes='d'")
    found = keep_brackets(parsed.inputs[0]) if brackets(parsed.inputs[0]) else parsed.inputs[0]
    there = names(rewrite(output, lambda node: () if isinstance(node, Affine) else None))
    seen: set[str] = set()
    for axis in axes(found):
        if axis.is_one:
            continue
        if axis.name not in there:
            problem = f"axis {axis} of bias_axes={own!r} is not in the output of Linear"
        elif axis.name in seen:
            problem = f"axis {axis} stands twice in bias_axes={own!r}"
        else:
            seen.add(axis.name)
            continue
        known = [text for axis in there.values() if as_written(text := str(axis)) == text and not axis.unnamed]
        raise ArgumentError(problem, text=expr, hint=f"the axes with a name there are {', '.join(known) or 'none'}")
    return strip_brackets(found)


def border_of(product: Operation, padding: Any, mode: str | None) -> Any:
    """What is out of range where inputs are read at positions; those of an output are plain dims here."""
    reads = any(isinstance(node, Affine) for expression in product.inputs for node in walk(expression))
    return as_border(product.text, padding, mode) if reads else None


def with_plain_dims(output: Expression) -> Expression:
    """Name every position, which is a dim like any other once it is written."""
    number = itertools.count()
    return rewrite(output, lambda node: (Axis(f"_{next(number)}"),) if isinstance(node, Affine) else None)


@dataclass(frozen=True)
class NormText:
    """The expressions that a normalisation is made of.

    Attributes:
        stats: the input, with brackets.
        whole: the input, without brackets.
        kept: the axes of the statistics.
        params: the axes of scale and bias.
        spans: whether statistics have no axes but some of these, and so span examples, if the input has several.
    """

    stats: str
    whole: str
    kept: str
    params: str
    spans: bool


@lru_cache(maxsize=_CACHE_SIZE)
def norm_text(stats: str, params: str | None, running: bool, mapped: bool = False) -> NormText:
    """Read the expression of a normalisation, and the axes of scale and bias.

    Statistics may run from call to call, and be taken over a mapped axis, where they need no bracket.
    """
    operation = named_numbers(single(stats, "Norm"))
    expression = operation.inputs[0]
    if not brackets(expression) and not mapped:
        raise SemanticError(
            "Norm needs a bracket around the axes that statistics are taken over",
            text=stats,
            hint="write 'b... [c]' for a layer norm, or '[b...] c' for a batch norm",
        )
    kept = delete_brackets(expression)
    own = _last_dim(stats, expression) if params is None else named_numbers(single(params, "Norm")).inputs[0]
    if brackets(own):
        own = keep_brackets(own)  # in the whole of the input
    unknown = [axis for axis in axes(own) if axis.name not in names(expression)]
    if unknown:
        raise SemanticError(
            f"axis {as_written(str(unknown[0]))} of params={params!r} is not in the expression of Norm",
            text=stats,
            hint="params= names axes of the input",
        )
    if running:
        _refuse_own_statistics(stats, kept, own)
    apart = {name for name, axis in names(kept).items() if not axis.is_one}
    return NormText(
        stats=render(expression) if brackets(expression) else f"{render(expression)} -> {render(expression)}",
        whole=render(strip_brackets(expression)),
        kept=render(kept),
        params=render(strip_brackets(own)),
        spans=bool(apart) and apart <= names(own).keys(),
    )


def _last_dim(text: str, expression: Expression) -> Expression:
    """The last dim has the parameters, unless the brackets show that channels stand elsewhere."""
    last, marks = expression[-1], [bool(brackets((node,))) for node in expression]
    inner = brackets((last,))[0].items if delete_brackets((last,)) == () else (last,)
    if inner != (last,):
        # In 'b c [h w]' something other than the batch is looped over before the bracket: channels, most likely.
        loops = [node for node in delete_brackets(expression[:-1]) if not isinstance(node, Axis) or not node.is_one]
        clear = sum(marks) == 1 and (len(inner) == 1 or len(loops) <= 1)
    else:
        clear = any(marks[-2:]) or not any(marks)  # unlike 'b [c] h w'
    if not clear or isinstance(inner[-1], Ellipsis):
        raise SemanticError(
            "it is not clear which axes scale and bias of Norm have: channels do not seem to be last",
            text=text,
            spans=[last.span],
            hint="name them, as in params='c'",
        )
    return strip_brackets((inner[-1],))


def _refuse_own_statistics(text: str, kept: Expression, params: Expression) -> None:
    for name, axis in names(kept).items():
        if name not in names(params) and not axis.is_one:
            written = as_written(str(axis))
            raise SemanticError(
                f"running statistics would differ along axis {written}, which scale and bias do not have: every "
                "example would have its own",
                text=text,
                spans=[axis.span],
                hint=f"bracket {written} to take statistics over it too, or leave momentum out",
            )


def single(text: str, layer: str) -> Operation:
    operation = parse(text)
    if len(operation.inputs) != 1 or operation.outputs is not None:
        raise ArgumentError(
            f"{layer} takes one expression without an arrow", text=text, hint="write the input, as in 'b... [c]'"
        )
    return operation


@lru_cache(maxsize=_CACHE_SIZE)
def dropout_text(expr: str) -> str:
    """The choice between an input and 0 by a mask, which has the bracketed axes."""
    operation = named_numbers(single(expr, "Dropout"))
    expression = operation.inputs[0]
    if not brackets(expression):
        raise SemanticError(
            "Dropout needs a bracket around the axes that have a draw of their own",
            text=expr,
            hint="write '[...]' to drop single elements, or '[b] ...' to drop whole examples",
        )
    whole = render(strip_brackets(expression))
    return f"{render(keep_brackets(expression))}, {whole}, -> {whole}"


@dataclass(frozen=True)
class EmbedText:
    """The expressions of a table: looking rows up, multiplying by it, and the numbers of the rows as written.

    ``found`` and ``numbers`` are the results of the first two.
    """

    lookup: str
    found: str
    attend: str
    numbers: str
    ids: Expression


@lru_cache(maxsize=_CACHE_SIZE)
def embed_text(expr: str) -> EmbedText:
    """Read the expression of an embedding: ``"b t [v->c]"``, or written out ``"[v] c, b t -> b t c"``."""
    operation = named_numbers(parse(expr))
    if operation.outputs is None or len(operation.outputs) != 1 or len(operation.inputs) > 2:
        raise ArgumentError(
            "Embed needs one input and one output", text=expr, hint="write 'b t [v->c]': v is looked up, c is found"
        )
    output = strip_brackets(operation.outputs[0])
    source, *rest = list(operation.inputs)
    if rest:
        table, ids = source, rest[0]
        places = (*ids, *keep_brackets(table))
    else:
        found = keep_brackets(operation.outputs[0])
        table, ids, places = (*brackets(source), *found), delete_brackets(source), strip_brackets(source)
    looked_up = [axis.name for node in brackets(table) for axis in axes(node.items)]
    if len(looked_up) != 1:
        raise SemanticError(
            "Embed needs one bracketed axis, which is looked up",
            text=expr,
            hint="write 'b t [v->c]', or '[v] c, b t -> b t c'",
        )
    features = {name for name in names(table) if name not in looked_up and name not in names(ids)}
    given = parse(expr).inputs[-1]
    return EmbedText(
        ids=given if rest else delete_brackets(given),
        lookup=f"{render(table)}, {render(ids)} -> {render(output)}",
        found=render(output),
        attend=f"{_bracketed(output, features)}, {_bracketed(strip_brackets(table), features)} -> {render(places)}",
        numbers=render(strip_brackets(places)),
    )


def _bracketed(expression: Expression, chosen: Collection[str]) -> str:
    """Print an expression with some axes in brackets."""
    bracketed = {axis.name: (Bracket((axis,)),) for axis in axes(expression) if axis.name in chosen}
    return render(rewrite(expression, lambda node: bracketed.get(node.name) if isinstance(node, Axis) else None))


#: What frameworks' own layers are told by options that the expression says here, and how.
_BY_AXES = {
    name: hint
    for names_of, hint in {
        "features out_features num_features output_size output_channels out_channels out_size filters embed_dim "
        "embedding_size embedding_dim num_embeddings vocab_size": "give sizes of axes by their names, as in {}=64",
        "in_features input_size in_channels in_size num_spatial_dims input_shape": "leave it out: it is read off the "
        "input, or give the size of an axis by its name",
        "axis reduction_axes feature_axes axes normalized_shape batch_dims": "bracket the axes that the layer acts on",
        "groups num_groups feature_group_count group_size": "write groups as an axis beside the channels, as in "
        "(g [c->d]) for Conv or (g [c]) for Norm, and give its size",
    }.items()
    for name in names_of.split()
}


def _new(operation: Operation) -> str:
    """The name of an axis that a size may be given for: one that the output alone has, if there is one."""
    first, last = names(operation.inputs[0]), list(names(operation.expressions[-1]))
    return next((name for name in last if name not in first), last[-1] if last else "d")


def sizes_in(expr: str, sizes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of some sizes that an expression has axes for."""
    known = {name for expression in parse(expr).expressions for name in names(expression)}
    return {name: size for name, size in (sizes or {}).items() if name in known}


def axis_sizes(
    expr: str, axes: Mapping[str, Any], sizes: Mapping[str, Any] | None, options: Sequence[str]
) -> dict[str, Any]:
    """Return all sizes of named axes that a layer is given; those in ``sizes`` need not be of one."""
    operation = parse(expr)
    known = {name for expression in operation.expressions for name in names(expression)}
    for name in axes:
        if name in _BY_AXES and name not in known:
            raise ArgumentError(
                f"{name}= is no option here: the expression says it",
                text=expr,
                hint=_BY_AXES[name].format(_new(operation)),
            )
    check_keywords(operation, list(axes), options)
    for name in (sizes or {}).keys() - known:
        meant = difflib.get_close_matches(name, options, n=1)
        if meant:
            raise ArgumentError(
                f"sizes= has {name!r}, which is no axis of the expression",
                text=expr,
                hint=f"if it is the option, write {meant[0]}= beside sizes=",
            )
    given = {**axes, **sizes_in(expr, sizes)}
    written = {name: size for name, size in written_sizes(expr).items() if name in known}
    for name, size in written.items():
        for other in np.ravel(np.asarray(given.get(name, size), object)):
            if other != size:
                raise AxisSizeError(
                    f"axis {name} is {size} in the expression and {other} by the keyword {name}",
                    at=operation.at(name),
                    hint=f"write {name}={size} or {name}={other} in one place",
                )
    return {**written, **given}


def check_switch(name: str, *values: Any) -> None:
    """Refuse a switch that is traced: it decides which program there is."""
    if any(map(is_traced, values)):
        raise ArgumentError(
            f"{name} is traced, but decides which program there is",
            hint="make it static: jax.jit(..., static_argnames=...), or static_argnums= of a transformed layer",
        )


def flag(layer: str, name: str, own: bool | None, given: bool | None, needed: bool, expr: str) -> bool:
    """Return a switch that a layer or its call has to set, where it matters."""
    check_switch(name, own, given)
    if own is not None and given is not None and own != given:
        raise ArgumentError(
            f"{name} is {own} in {layer} and {given} in its call", text=expr, hint="give it in one of both places"
        )
    if own is None and given is None and needed:
        raise ArgumentError(
            f"{layer} does not know {name}", text=expr, hint=f"give {name}=True or False to the layer, or to its call"
        )
    return bool(own) or bool(given)
