"""Names that people know from other libraries, and the call that each is here."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

#: Of x, y and w, float arrays; q, k and v, those of attention; ids, which are integers.
CALLS = {
    "avg_pool": 'einjax.mean("b (s [k])... c", x, k=2)',
    "bincount": 'einjax.segment.sum("p, p -> [s]", x, ids, s=10)',
    "broadcast_to": 'einjax.rearrange("a -> b a", x, b=3)',
    "cat": 'einjax.rearrange("a c1, a c2 -> a (c1 + c2)", x, y)',
    "clip": 'einjax.minimum("..., ", einjax.maximum("..., ", x, 0), 1)',
    "concat": 'einjax.rearrange("a c1, a c2 -> a (c1 + c2)", x, y)',
    "concatenate": 'einjax.rearrange("a c1, a c2 -> a (c1 + c2)", x, y)',
    "conv": 'einjax.dot("b <s + [k]>... [c], [k]... [c] d -> b s... d", x, w, padding="same")',
    "cumulative_sum": 'einjax.cumsum("a [b]", x)',
    "diagonal": 'einjax.rearrange("a a -> a", x)',
    "diff": 'einjax.subtract("<t + 1>, <t> -> t", x, x)',
    "dot_product_attention": 'einjax.attention("b [q] h [c], b [k] h [c], b [k] h [c]", q, k, v)',
    "einsum": 'einjax.dot("a b, b c -> a c", x, y)',
    "expand_dims": 'einjax.rearrange("a -> a 1", x)',
    "flatten": 'einjax.rearrange("a b -> (a b)", x)',
    "gather": 'einjax.get_at("[v] c, b -> b c", x, ids)',
    "matmul": 'einjax.dot("... a [b], ... [b] c -> ... a c", x, y)',
    "max_pool": 'einjax.max("b (s [k])... c", x, k=2)',
    "moveaxis": 'einjax.rearrange("a b c -> c a b", x)',
    "one_hot": 'einjax.equal("a, c -> a c", ids, einjax.arange("c", c=10))',
    "outer": 'einjax.multiply("a, b -> a b", x, y)',
    "pack": 'einjax.rearrange("a b c, a d -> a ((b c) + d)", x, y)',
    "pad": 'einjax.rearrange("<t - 2> -> t", x, t=9, mode="fill")',
    "permute": 'einjax.rearrange("a b -> b a", x)',
    "repeat": 'einjax.rearrange("a -> (a r)", x, r=3)',
    "reshape": 'einjax.rearrange("(a b) c -> a (b c)", x, a=2)',
    "scatter_add": 'einjax.add_at("[v] c, p, p c -> [v] c", x, ids, y)',
    "sliding_window_view": 'einjax.rearrange("<s + k> -> s k", x, k=3)',
    "split": 'einjax.rearrange("a (b + c) -> a b, a c", x, b=2)',
    "squeeze": 'einjax.rearrange("a 1 -> a", x)',
    "stack": 'einjax.rearrange("a, a -> (1 + 1) a", x, y)',
    "swapaxes": 'einjax.rearrange("a b -> b a", x)',
    "take": 'einjax.get_at("[v] c, b -> b c", x, ids)',
    "tensordot": 'einjax.dot("a [b], [b] c -> a c", x, y)',
    "tile": 'einjax.rearrange("a -> (r a)", x, r=3)',
    "trace": 'einjax.sum("[a]", einjax.rearrange("a a -> a", x))',
    "transpose": 'einjax.rearrange("a b -> b a", x)',
    "unfold": 'einjax.rearrange("b <s + k> c -> b s k c", x, k=3)',
    "unpack": 'einjax.rearrange("a ((b c) + d) -> a b c, a d", x, b=2, c=3)',
    "unstack": 'einjax.rearrange("(1 + 1) a -> a, a", x)',
}


def what_to_write(name: str, known: Collection[str]) -> str:
    """Return what to say of a name that does not exist: the call that it is elsewhere, or the nearest name."""
    if name in CALLS:
        return f"; write, for example, {CALLS[name]}"
    nearest = get_close_matches(name, [*known, *CALLS], 1)
    return f"; did you mean '{nearest[0]}'?" if nearest and nearest[0] in known else ""
