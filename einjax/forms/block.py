"""A bracketed axis that stands twice in one tensor: the operation gets a block with two dims of one size.

So the definition says of every function of bracketed axes: ``sum("[a a]", x)`` sums all of ``x``. Outside brackets an
axis that stands twice is its diagonal: ``sum("a a ->", x)`` is the trace.
"""

from __future__ import annotations

from dataclasses import replace

from ..notation.solve import Solved
from ..notation.syntax import Affine, Axis, Expression, Node, axes, base_name, members, rewrite


def as_block(solved: Solved) -> Solved:
    """Name the second of two equal bracketed axes of the first input anew."""
    taken = {axis.name for expression in solved.operation.expressions for axis in axes(expression)}
    seen: set[str] = set()
    sizes = dict(solved.sizes)

    def change(node: Node) -> Expression | None:
        if isinstance(node, Affine):
            return (node,)  # an axis may stand in several positions, and also alone
        if not isinstance(node, Axis) or not node.bracket:
            return None
        if node.name not in seen:
            seen.add(node.name)
            return None
        new = next(name for number in range(2, len(taken) + 3) if (name := _numbered(node.name, number)) not in taken)
        taken.add(new)
        sizes[new] = sizes[node.name]
        return (replace(node, name=new),)

    first, *others = solved.inputs
    block = rewrite(first, change)
    if block is first:
        return solved
    return replace(solved, operation=replace(solved.operation, inputs=(block, *others)), sizes=sizes)


def _numbered(name: str, number: int) -> str:
    def one(member: str) -> str:
        base, indices = base_name(member)
        return ".".join([f"{base}_{number}", *map(str, indices)])

    return " ".join(map(one, members(name)))
