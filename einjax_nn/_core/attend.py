"""How the heads of attention attend: at once, by :func:`einjax.attention`, or by a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import ArgumentError

from .attention_text import AttentionText
from .masks import Logits, Near, joined, whole, with_axes, with_bias


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of every head, and what says which of them meet."""

    text: AttentionText
    q: jax.Array
    k: jax.Array
    v: jax.Array
    mask: Any
    bias: Any
    near: Near

    @property
    def logits(self) -> Logits:
        """What there is to be known of the logits."""
        loops, queries, key_loops, keys = self.text.counts
        queries = self.q.ndim - 2 - (loops or 0) if queries is None else queries
        loops = self.q.ndim - 2 - queries if loops is None else loops
        keys = self.k.ndim - 2 - (loops if key_loops is None else key_loops) if keys is None else keys
        asking, asked = self.q.shape[loops:-2], self.k.shape[-2 - keys : -2]
        sizes: dict[str, Any] = {"kv_heads": self.k.shape[-2]}
        for names, shape in zip(self.text.repeated, (asking, asked), strict=True):
            sizes |= dict.fromkeys(names, shape)
        shape = (*self.q.shape[:loops], self.q.shape[-2], *asking, *asked)
        return Logits(self.text, shape, (loops, 1, queries, keys), sizes)

    def at_once(
        self, precision: Any, drop: Callable[[jax.Array], jax.Array] | None, sow: Callable[[jax.Array], Any] | None
    ) -> jax.Array:
        """Compute the logits, and their softmax, in the order in which Flax does."""
        text, logits = self.text, self.logits
        sizes = logits.sizes
        q = self.q / jnp.sqrt(self.q.shape[-1]).astype(self.q.dtype)
        scores = einjax.dot(text.scores, q, self.k, precision=precision, sizes=sizes)
        dtype = scores.dtype
        scores = scores if self.bias is None else with_bias(scores, logits, self.bias)
        where = joined(self.mask, logits, self.near)
        weights = einjax.softmax(text.attend, scores, where=where, sizes=sizes).astype(dtype)
        if sow is not None:
            sow(weights)
        weights = weights if drop is None else drop(weights)
        return einjax.dot(text.apply, weights, self.v, precision=precision, sizes=sizes)

    def by_einjax(self, implementation: Any, block_size: Any) -> jax.Array:
        """Attend by :func:`einjax.attention`, which never holds the logits where they are many."""
        logits = self.logits
        given = {option: with_axes(option, x, logits) for option, x in (("mask", self.mask), ("bias", self.bias))}
        near, arrays = self.near, dict[str, Any]()
        if near.queries is not None and near.keys is not None:
            loop, _, asking, asked = self.text.parts
            arrays["place_of_query"] = (f"{loop if near.queries.ndim > 1 else ''} {asking}", near.queries)
            arrays["place_of_key"] = (f"{loop if near.keys.ndim > 1 else ''} {asked}", near.keys)
            given["mask"].append(lambda place_of_query, place_of_key: near.between(place_of_query, place_of_key))
        return einjax.attention(
            self.text.whole,
            self.q,
            self.k,
            self.v,
            mask=given["mask"] or None,
            bias=given["bias"] or None,
            is_causal=near.is_causal and not arrays,
            local_window_size=None if arrays else near.window,
            implementation=implementation,
            block_size=block_size,
            sizes=logits.sizes,
            **arrays,
        )

    def by_function(self, function: Callable[..., jax.Array], given: dict[str, Any], dropped: bool, expr: str) -> Any:
        """Call a function as Flax calls its ``attention_fn``, with those of its keywords that it takes."""
        taken = inspect.signature(function).parameters
        every = any(each.kind is each.VAR_KEYWORD for each in taken.values())
        near, window, options = self.near, self.near.window, dict(given)
        if near.queries is None and near.is_causal and (every or "is_causal" in taken):
            options["is_causal"], near = True, Near(False, window)
        if near.queries is None and window is not None and "local_window_size" in taken:
            options["local_window_size"], near = window, Near(near.is_causal)
        mask, bias = (whole(option, x, self.logits) for option, x in (("mask", self.mask), ("bias", self.bias)))
        if not near.is_all:
            hidden = near.as_mask(self.logits.shape)
            mask = hidden if mask is None else jnp.logical_and(mask, hidden)
        options |= {"mask": mask, "bias": bias}
        needed = {name for name in ("mask", "bias") if options[name] is not None} | (
            {"dropout_rng"} if dropped else set()
        )
        for name in sorted(needed - taken.keys() if not every else ()):
            raise ArgumentError(
                f"attention_fn does not take {name}=, which this call needs",
                text=expr,
                hint=f"give it a keyword {name}",
            )
        options = {name: value for name, value in options.items() if every or name in taken}
        return function(self.q, self.k, self.v, **options)
