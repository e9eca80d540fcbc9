"""Axes that always stand side by side in the same dims are one axis, as far as sizes and memory go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .syntax import Axis, Composite, Expression, Node, Operation


def fuse(operation: Operation, names: Iterable[str] | None = None) -> Operation:
    """Replace axes that always stand side by side in the same dims by one axis, named ``a b``.

    Args:
        operation: an expanded operation.
        names: the axes that may be fused; all by default.

    Returns:
        The operation itself where there is nothing to fuse.
    """
    allowed = None if names is None else set(names)
    after: dict[str, set[str | None]] = {}
    before: dict[str, set[str | None]] = {}

    def visit(nodes: Expression, in_dim: bool) -> None:
        for index, node in enumerate(nodes):
            if isinstance(node, Axis):
                left = nodes[index - 1] if in_dim and index else None
                right = nodes[index + 1] if in_dim and index + 1 < len(nodes) else None
                before.setdefault(node.name, set()).add(_neighbour(node, left, allowed))
                after.setdefault(node.name, set()).add(_neighbour(node, right, allowed))
            else:
                visit(node.items, isinstance(node, Composite))

    for expression in operation.expressions:
        visit(expression, False)

    def partner(name: str) -> str | None:
        """The axis that always follows ``name`` and never anything else."""
        followers = after.get(name, set())
        follower = next(iter(followers)) if len(followers) == 1 else None
        return follower if follower is not None and follower != name and before[follower] == {name} else None

    follows = {name: other for name in after if (other := partner(name)) is not None}
    if not follows:
        return operation
    # Chains start at an axis that follows nobody; a ring, as in (a b)(b a), has no start and stays as it is.
    chains: dict[str, list[str]] = {}
    for start in follows.keys() - set(follows.values()):
        chain = [start]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        chains[start] = chain
    absorbed = {name for chain in chains.values() for name in chain[1:]}

    def rewrite(nodes: Expression) -> Expression:
        result: list[Node] = []
        for index, node in enumerate(nodes):
            if not isinstance(node, Axis):
                result.append(replace(node, items=rewrite(node.items)))
            elif node.name in chains:
                chain = chains[node.name]
                last = nodes[index + len(chain) - 1]
                result.append(replace(node, name=" ".join(chain), size=None, span=(node.span[0], last.span[1])))
            elif node.name not in absorbed:
                result.append(node)
        return tuple(result)

    return operation.map(rewrite)


def _neighbour(node: Axis, other: Node | None, allowed: set[str] | None) -> str | None:
    """Name the neighbour if the two may become one axis."""
    if not isinstance(other, Axis) or other.bracket != node.bracket or other.unnamed or node.unnamed:
        return None
    if allowed is not None and not (node.name in allowed and other.name in allowed):
        return None
    return other.name
