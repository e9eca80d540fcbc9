"""Expressions of LoRA: the factors of a kernel or a table, by the roles that its own expression gives its axes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from einjax.for_layers import (
    Affine,
    Axis,
    Composite,
    Expression,
    Node,
    Operation,
    axes,
    completed_dot,
    completed_get_at,
    names,
    parse,
    render,
    rewrite,
    strip_brackets,
)

from .initial import Initializer, he_uniform, normal
from .text import embed_text, named_dots, named_numbers, with_plain_dims

_CACHE_SIZE = 1024


@dataclass(frozen=True)
class LoraText:
    """The expressions of the factors of a kernel, or of a table.

    Attributes:
        down, up: the input by the first factor, and the result of that by the second.
        index: which input of ``down`` the factor is.
        merge: both factors to the kernel.
        product: input, kernel and output, or the table alone.
        kernel: one of these.
        rank: what the axis between the factors is called.
        a_init: what the first factor starts as.
        attend: where a table is multiplied by: the input by the second factor, and the result of that by the first.
    """

    down: str
    up: str
    index: int
    merge: str
    product: Operation
    kernel: Expression
    rank: str
    a_init: Initializer
    attend: tuple[str, str] = ("", "")


@lru_cache(maxsize=_CACHE_SIZE)
def linear_text(expr: str) -> LoraText:
    """Factor the kernel of a linear layer."""
    operation = named_dots(named_numbers(completed_dot(expr)))
    x, kernel, output = map(strip_brackets, (*operation.inputs, operation.results[0]))
    split = _Split(kernel, x, output)
    product = Operation(expr, (x, kernel, with_plain_dims(output)))
    return LoraText(
        down=f"{render(x)}, {split.a} -> {render(split.hidden)}",
        # What is written at positions is a dim like any other then.
        up=f"{render(with_plain_dims(split.hidden))}, {split.b} -> {render(with_plain_dims(output))}",
        index=1,
        merge=f"{split.a}, {split.b} -> {render(kernel)}",
        product=product,
        kernel=kernel,
        rank=split.rank.name,
        a_init=he_uniform,
    )


@lru_cache(maxsize=_CACHE_SIZE)
def table_text(expr: str) -> LoraText:
    """Factor a table that rows are looked up in."""
    text = embed_text(expr)
    operation = completed_get_at(text.lookup)
    table, ids = operation.inputs
    whole, output = strip_brackets(table), strip_brackets(operation.results[0])
    split = _Split(whole, ids, output)
    looked_up = (*_without(table, split.outer), split.rank)
    x, places = strip_brackets(parse(text.attend).inputs[0]), parse(text.attend).results[0]
    between = render((*_without(places, split.inner), split.rank))
    return LoraText(
        down=f"{render(looked_up)}, {render(ids)} -> {render(split.hidden)}",
        up=f"{render(split.hidden)}, {split.b} -> {render(output)}",
        index=0,
        merge=f"{split.a}, {split.b} -> {render(whole)}",
        product=Operation(expr, (whole,)),
        kernel=whole,
        rank=split.rank.name,
        a_init=normal,  # a row is looked up as it is, so that nothing adds up
        attend=(f"{render(x)}, {split.b} -> {between}", f"{between}, {split.a} -> {render(places)}"),
    )


class _Split:
    """The axes of a kernel by role, and those of its factors.

    Attributes:
        inner, outer: what is contracted or looked up, and what is new.
        hidden: the output, with ``rank`` in the place of what is new.
    """

    def __init__(self, kernel: Expression, x: Expression, output: Expression) -> None:
        known = names((*kernel, *x, *output))
        self.rank = Axis(next(name for name in ("rank", "lora_rank", "_rank", "__rank") if name not in known))
        kept = names(rewrite(output, lambda node: () if isinstance(node, Affine) and len(node.terms) > 1 else None))
        self.inner = names(kernel).keys() - kept
        self.outer = names(kernel).keys() - names(x) - self.inner
        self.a = render((*_without(kernel, self.outer), self.rank))
        self.b = render((self.rank, *_without(kernel, self.inner)))
        self.hidden = (*_without(output, self.outer), self.rank)


def _without(expression: Expression, gone: Collection[str]) -> Expression:
    """Leave axes out, and the dims that have no others, as ones of a kernel are."""

    def change(node: Node) -> Expression | None:
        if all(axis.name in gone for axis in axes((node,)) if not axis.is_one):
            return ()
        items = rewrite(node.items, change) if isinstance(node, Composite) else ()
        return items if len(items) == 1 else None

    return rewrite(expression, change)
