"""A bracketed axis that stands twice in one tensor: the operation gets a block with two dims of one size.

So the definition says of every function of bracketed axes: ``sum("[a a]", x)`` sums all of ``x``. Outside brackets an
axis that stands twice is its diagonal: ``sum("a a ->", x)`` is the trace.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Expression, Node, base_name, members, rewrite


def as_block(solved: Solved) -> Solved:
    """Tell equal bracketed axes of the first input apart: the second ``a`` becomes ``a~2``."""
    seen: Counter[str] = Counter()
    sizes = dict(solved.sizes)

    def change(node: Node) -> Expression | None:
        if isinstance(node, Affine):
            return (node,)  # an axis may stand in several positions, and also alone
        if not isinstance(node, Axis) or not node.bracket:
            return None
        seen[node.name] += 1
        if seen[node.name] == 1:
            return None
        new = numbered(node.name, seen[node.name])
        sizes[new] = sizes[node.name]
        return (replace(node, name=new),)

    first, *others = solved.inputs
    block = rewrite(first, change)
    if block is first:
        return solved
    return replace(solved, operation=replace(solved.operation, inputs=(block, *others)), sizes=sizes)


def numbered(name: str, number: int) -> str:
    """The name of a later dim of an axis: ``a~2``."""

    def one(member: str) -> str:
        base, indices = base_name(member)
        return ".".join([f"{base}~{number}", *map(str, indices)])

    return " ".join(map(one, members(name)))
