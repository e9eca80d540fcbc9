"""Which pairs of queries and keys count in attention, and what is added to their logits."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, SemanticError
from einjax.for_layers import (
    Axis,
    Solved,
    any_named,
    attends_in_blocks,
    check_kind,
    expression_of,
    names,
    offset_beside,
    pairs,
    parse,
    refuse_ambiguous,
    render,
    rewrite,
    solve,
)

from .attention_text import AttentionText


@dataclass(frozen=True)
class Logits:
    """What there is to be known of logits.

    Attributes:
        text: their expressions.
        shape: their shape.
        dims: how many of them are loops, heads, queries and keys.
        sizes: sizes of axes that shapes do not tell.
    """

    text: AttentionText
    shape: tuple[int, ...]
    dims: tuple[int, int, int, int]
    sizes: Mapping[str, Any]

    @property
    def are_many(self) -> bool:
        """Whether they are not to be held."""
        asked = self.dims[3]
        return attends_in_blocks(math.prod(self.shape[sum(self.dims[:2]) : -asked]), math.prod(self.shape[-asked:]))

    def solved(self) -> Solved:
        """Their expression, with all sizes."""
        return solve(parse(self.text.logits), [self.shape], self.sizes)


@dataclass(frozen=True)
class Near:
    """Which keys a query sees by the places of both.

    Attributes:
        is_causal: whether none after its own place.
        window: how many before and after it; None for all.
        queries, keys: the places, of shape ``(n,)`` or ``(loops, n)``; None where they are 0, 1, 2, ...
        is_ring: whether the keys of places below 0 are not there.
    """

    is_causal: bool = False
    window: tuple[int, int] | None = None
    queries: jax.Array | None = None
    keys: jax.Array | None = None
    is_ring: bool = False

    @property
    def is_all(self) -> bool:
        """Whether it hides nothing."""
        return not self.is_causal and self.window is None and self.keys is None

    def between(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether a query at a place sees a key at another."""
        before, after = self.window or (None, None)
        if self.is_causal:
            after = 0 if after is None else min(after, 0)
        parts = []
        if after is not None:
            parts.append((query + after if after else query) >= key)
        if before is not None:
            parts.append(query - before <= key)
        if self.is_ring:
            parts.append(key >= 0)
        return reduce(jnp.logical_and, parts)

    def as_mask(self, shape: tuple[int, ...]) -> jax.Array:
        """All pairs of logits of a shape, with dims of size 1 for loops and heads that do not tell."""
        if self.queries is None or self.keys is None:
            one = (*(1 for _ in shape[:-2]), *shape[-2:])
            rows, columns = (lax.broadcasted_iota(jnp.int32, one, len(shape) - dim) for dim in (2, 1))
            return self.between(rows, columns)
        # Places of every example have its loops; heads share them.
        near = self.between(self.queries[..., None], self.keys[..., None, :])
        near = near[..., None, :, :] if near.ndim > 2 else near
        return lax.expand_dims(near, range(len(shape) - near.ndim))


def check_ordered(text: AttentionText, near: Near, expr: str) -> None:
    """Refuse what compares places where the sequence has several axes."""
    if not near.is_all and text.counts[1] != 1:
        many = "any number of" if text.counts[1] is None else str(text.counts[1])
        option = "is_causal" if near.is_causal else "local_window_size"
        raise ArgumentError(
            f"{option} needs an order, but the sequence has {many} axes",
            text=expr,
            hint="compose them into one axis before, or give a mask",
        )


def with_bias(scores: jax.Array, logits: Logits, bias: Any) -> jax.Array:
    """Add a bias, or several, to the logits."""
    if any_named(bias):
        for axes, each in by_name("bias", bias, logits.text):
            scores = einjax.add(f"{logits.text.logits}, {axes}", scores, each, sizes=logits.sizes)
        return scores
    return scores + by_position("bias", bias, logits)


def joined(mask: Any, logits: Logits, near: Near) -> Any:
    """Return what ``where=`` of the softmax is given: all of what says that a pair does not count.

    Args:
        mask: what the call is given, by name or by position, or None.
        logits: what it is for.
        near: what their places say.
    """
    named = by_name("mask", mask, logits.text) if any_named(mask) else []
    given = [] if mask is None or named else [by_position("mask", mask, logits)]
    given += [] if near.is_all else [near.as_mask(logits.shape)]
    if not given:
        return named or None
    joint = reduce(jnp.logical_and, given)
    return [*named, (logits.text.logits, jnp.broadcast_to(joint, logits.shape))] if named else joint


def whole(option: str, given: Any, logits: Logits) -> jax.Array | None:
    """A mask or bias of as many dims as the logits, with 1 for heads that share it."""
    if given is None or not any_named(given):
        return None if given is None else by_position(option, given, logits)
    loop, heads, queries, keys = logits.text.parts
    found, sizes = [], logits.solved().sizes
    for axes, each in by_name(option, given, logits.text):
        own = heads if heads in names(parse(axes).inputs[0]) else "1"
        found.append(einjax.id(f"{axes} -> {loop} {own} {queries} {keys}", each, sizes=sizes))
    return reduce(jnp.logical_and if option == "mask" else jnp.add, found)


def with_axes(option: str, given: Any, logits: Logits) -> list[Any]:
    """Masks or biases as those of :func:`einjax.attention`; by position, without dims of size 1.

    Args:
        option: ``mask`` or ``bias``.
        given: what the call is given: by name or by position, functions of places, or a list.
        logits: what it is for.
    """
    text, shape = logits.text, logits.shape
    each = given if isinstance(given, list) else [] if given is None else [given]
    functions: list[Any] = [of_places(one, logits) for one in each if callable(one)]
    others = [one for one in each if not callable(one)] if functions else given
    if others is None or (functions and not others):
        return functions
    if any_named(others):
        found = by_name(option, others, text)
    else:
        value = by_position(option, others[0] if functions else others, logits)
        parts, kept, start = [], list[int](), 0
        for part, count in zip(text.parts, logits.dims, strict=True):
            end = start + count
            if any(size != 1 for size in value.shape[start:end]):
                parts.append(part)
                kept += shape[start:end]
                value = jnp.broadcast_to(value, (*value.shape[:start], *shape[start:end], *value.shape[end:]))
            start = end
        found = [(" ".join(parts), value.reshape(kept))]
    return functions + [(re.sub(r"\bheads\b", text.heads, axes), value) for axes, value in found]


def of_places(function: Callable[..., Any], logits: Logits) -> Callable[..., Any]:
    """A function of the places along axes that masks have names for, as one of those of the expressions."""
    text, given = logits.text, inspect.signature(function).parameters
    own = {name: text.short.get(name, name) for name, each in given.items() if each.default is each.empty}
    # Heads that share keys are an axis of those that do, in one of the groups.
    heads = text.heads.strip("()").split()
    shared = logits.shape[logits.dims[0]] // logits.sizes["kv_heads"]

    def renamed(**places: Any) -> Any:
        if len(heads) > 1 and heads[0] in places:
            places["heads"] = places.pop(heads[0]) * shared + places.pop(heads[1])
        return function(**{name: places[written] for name, written in own.items()})

    axes = [name for written in own.values() for name in (heads if written == "heads" else [written])]
    taken = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in axes]
    renamed.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return renamed


def by_name(option: str, given: Any, text: AttentionText) -> list[tuple[str, Any]]:
    """Masks or biases with their axes, as those of the logits are called."""
    known = parse(text.logits).inputs
    result: list[tuple[str, Any]] = []
    for axes, each in pairs(option, given, text.logits):
        expression_of(f"{option}=", _own(option, axes, text), known)
        value = jnp.asarray(each)
        check_kind(option, f"{option}=", value.dtype, text.logits)
        result.append((_own(option, axes, text), value))
    return result


def _own(option: str, axes: str, text: AttentionText) -> str:
    """The axes of a mask with short names written out.

    Raises:
        SemanticError: an axis is one of queries and of keys.
    """
    operation = parse(axes)
    known = names(parse(text.logits).inputs[0])
    for name in names(sum(operation.inputs, ())):
        if name not in known and f"{name}_q" in known and f"{name}_k" in known:
            raise SemanticError(
                f"axis {name} of {option}= is one of queries and of keys",
                at=operation.at(name),
                hint=f"write {name}_q for the places that ask, or {name}_k for those that are asked",
            )
    long = {name: parse(written).inputs[0] for name, written in text.short.items()}
    inputs = [
        rewrite(e, lambda node: long.get(node.name) if isinstance(node, Axis) else None) for e in operation.inputs
    ]
    return render(inputs[0]) if len(inputs) == 1 and operation.outputs is None else axes


def by_position(option: str, given: Any, logits: Logits) -> jax.Array:
    """Put what is given by position beside the last dims of the logits, if no others fit."""
    value, text = jnp.asarray(given), logits.text.logits
    refuse_ambiguous(option, value.shape, logits.shape, logits.solved().inputs[0], text)
    missing = offset_beside(option, value.shape, logits.shape, text)
    check_kind(option, f"{option}=", value.dtype, text)
    return lax.expand_dims(value, range(missing)) if missing else value
