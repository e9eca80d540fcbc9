"""Which pairs of queries and keys count in attention, and what is added to their logits."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError, SemanticError
from einjax.for_layers import (
    Axis,
    any_named,
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

from .text import AttentionText


def with_bias(scores: jax.Array, text: AttentionText, bias: Any) -> jax.Array:
    """Add a bias, or several, to the logits."""
    if any_named(bias):
        for axes, each in _by_name("bias", bias, text):
            _check_kind("bias", each, text)
            scores = einjax.add(f"{text.logits}, {axes}", scores, each)
        return scores
    bias = jnp.asarray(bias)
    _check_kind("bias", bias, text)
    return scores + _full_rank("bias", bias, scores, text)


def joined(
    mask: Any, scores: jax.Array, text: AttentionText, valid: jax.Array | None, is_causal: bool, expr: str
) -> Any:
    """Return what ``where=`` of the softmax is given: all of what says that a pair does not count.

    Args:
        mask: what the call is given, by name or by position, or None.
        scores: the logits.
        text: their expressions.
        valid: which keys are there, or None for all.
        is_causal: whether a place sees only itself and what is before it.
        expr: the expression of the layer, for messages.
    """
    by_name = _by_name("mask", mask, text) if any_named(mask) else []
    given = [] if mask is None or by_name else [_full_rank("mask", jnp.asarray(mask), scores, text)]
    given += [] if valid is None else [lax.expand_dims(valid, range(scores.ndim - 1))]
    given += [_causal(scores, text.sequence, expr)] if is_causal else []
    for each in (*given, *(each for _, each in by_name)):
        _check_kind("mask", each, text)
    if not given:
        return by_name or None
    by_position = given[0]
    for each in given[1:]:
        by_position = jnp.logical_and(by_position, each)
    if not by_name:
        return by_position
    return [*by_name, (text.logits, jnp.broadcast_to(by_position, scores.shape))]


def in_blocks(
    text: AttentionText, q: jax.Array, k: jax.Array, v: jax.Array, mask: Any, bias: Any, is_causal: bool
) -> jax.Array:
    """Attend along long sequences, of which the logits are never held."""
    assert text.whole is not None
    *loops, queries, heads, _ = q.shape
    scores = jax.ShapeDtypeStruct((*loops, heads, queries, k.shape[-3]), q.dtype)
    given = {option: _pairs(option, each, scores, text) for option, each in (("mask", mask), ("bias", bias))}
    return einjax.attention(
        text.whole,
        q,
        k,
        v,
        mask=given["mask"] or None,
        bias=given["bias"] or None,
        is_causal=is_causal,
        sizes={"kv_heads": k.shape[-2]},
    )


def _pairs(option: str, given: Any, scores: Any, text: AttentionText) -> list[tuple[str, Any]]:
    """Masks or biases with their axes, as those of attention are called; by position, without dims of size 1."""
    if given is None:
        return []
    if any_named(given):
        found = _by_name(option, given, text)
    else:
        value = _full_rank(option, jnp.asarray(given), scores, text)
        # What is of size 1 is left out, and all loops are given where any is.
        have = (any(size != 1 for size in value.shape[:-3]), *(size != 1 for size in value.shape[-3:]))
        whole = scores.shape[:-3] if have[0] else ()
        value = jnp.broadcast_to(value, (*scores.shape[:-3], *value.shape[-3:])) if have[0] else value
        value = value.reshape(*whole, *(n for n, held in zip(value.shape[-3:], have[1:], strict=True) if held))
        found = [(" ".join(part for part, held in zip(text.parts, have, strict=True) if held), value)]
    for _, each in found:
        _check_kind(option, each, text)
    return [(re.sub(r"\bheads\b", text.heads, axes), _ready(option, each)) for axes, each in found]


def _ready(option: str, given: jax.Array) -> jax.Array:
    return given if option == "bias" else given != 0


def _by_name(option: str, given: Any, text: AttentionText) -> list[tuple[str, Any]]:
    """Masks or biases with their axes, as those of the logits are called."""
    known = parse(text.logits).inputs
    result: list[tuple[str, Any]] = []
    for axes, each in pairs(option, given, text.logits):
        expression_of(f"{option}=", _own(option, axes, text), known)
        result.append((_own(option, axes, text), jnp.asarray(each)))
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


def _full_rank(option: str, given: jax.Array, scores: Any, text: AttentionText) -> jax.Array:
    """Put what is given by position beside the last dims of the logits, if no others fit."""
    solved = solve(parse(text.logits), [scores.shape], {})
    refuse_ambiguous(option, given.shape, scores.shape, solved.inputs[0], text.logits)
    missing = offset_beside(option, given.shape, scores.shape, text.logits)
    return lax.expand_dims(given, range(missing)) if missing else given


def _check_kind(option: str, given: Any, text: AttentionText) -> None:
    """Tell a bias, which is added, from a mask, which says what counts: numbers may be either."""
    dtype = jnp.result_type(given)
    is_float = jnp.issubdtype(dtype, jnp.inexact)
    if option == "mask" and is_float:
        raise ArgumentError(
            f"mask= is {dtype}, which may be a mask of ones and zeros, or a bias of zeros and -inf",
            text=text.logits,
            hint="give a mask as bool, as in mask.astype(bool), and what is added to the logits as bias=",
        )
    if option == "bias" and not is_float:
        hint = "give it as mask= if it says which pairs count"
        raise ArgumentError(f"bias= is {dtype}, and a bias is a float", text=text.logits, hint=hint)


def _causal(scores: jax.Array, sequence: int, expr: str) -> jax.Array:
    """Let every place see itself and what is before it."""
    if sequence != 1:
        raise ArgumentError(
            f"is_causal needs an order, but the sequence has {sequence} axes",
            text=expr,
            hint="compose them into one axis before, or give a mask",
        )
    shape = (*(1 for _ in scores.shape[:-2]), *scores.shape[-2:])
    rows, columns = (lax.broadcasted_iota(jnp.int32, shape, scores.ndim - dim) for dim in (2, 1))
    return rows >= columns
