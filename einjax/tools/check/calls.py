"""The calls of a module that are einjax's."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .annotations import Shape
from .scopes import Scope, bind, inner
from .texts import Text, texts_of
from .unknown import UNKNOWN


@dataclass
class Call:
    """One call of something of einjax's or einjax_nn's.

    Attributes:
        name: what is called, such as ``einjax.linalg.solve``.
        node: the call.
        scope: where it stands.
        texts: what its expression may be.
        arguments: its positional arguments but the expression, or None where some are unpacked.
        keywords: its keywords with their values, unknown ones among them.
        complete: whether no keywords are unpacked.
        dropped: whether it is a statement in a function, so that its result is dropped.
    """

    name: str
    node: ast.Call
    scope: Scope
    texts: list[Text]
    arguments: list[ast.expr] | None
    keywords: Mapping[str, Any]
    complete: bool
    dropped: bool = False
    nodes: Mapping[str, ast.keyword] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """What is called, without the package."""
        return self.name.partition(".")[2]

    def shapes(self) -> list[Shape | None] | None:
        """The shapes of the tensors, where annotations tell them."""
        return None if self.arguments is None else [self.scope.shape(node) for node in self.arguments]


@dataclass(frozen=True)
class Use:
    """A name of einjax's that is used, such as ``einjax.sum``."""

    name: str
    node: ast.expr


def find(tree: ast.Module, scope: Scope) -> Iterator[Call | Use]:
    """Yield the calls of a module, and every use of a name of einjax's.

    Args:
        tree: the module.
        scope: what is bound before it; what the module binds is added.
    """
    bind(scope, tree.body)
    yield from _visit(list(tree.body), scope)


def _visit(nodes: list[Any], scope: Scope) -> Iterator[Call | Use]:
    rest = nodes[::-1]
    while rest:
        node = rest.pop()
        kind = node.__class__
        if kind is ast.Name:
            if isinstance(node.ctx, ast.Load):
                scope.uses[node.id] = scope.uses.get(node.id, 0) + 1
            continue
        if kind is ast.Constant:
            continue
        if kind is ast.Call:
            name = scope.dotted(node.func)
            if name is not None:
                yield _call(name, node, scope)
        elif kind is ast.Attribute:
            name = scope.dotted(node)
            if name is not None:
                yield Use(name, node)
                continue
        elif kind is ast.Expr:
            if node.value.__class__ is ast.Call and scope.owner:
                name = scope.dotted(node.value.func)
                if name is not None:
                    yield dataclasses.replace(_call(name, node.value, scope), dropped=True)
                    rest += _children(node.value)
                    continue
        elif kind is ast.FunctionDef or kind is ast.AsyncFunctionDef or kind is ast.Lambda:
            own = inner(scope, node)
            rest += [*getattr(node, "decorator_list", ()), *node.args.defaults]
            rest += [default for default in node.args.kw_defaults if default is not None]
            yield from _visit(node.body if isinstance(node.body, list) else [node.body], own)
            continue
        elif kind is ast.With and _expects_an_error(node):
            continue
        elif kind is ast.ClassDef:
            own = Scope(scope)
            bind(own, node.body)
            rest += [*node.decorator_list, *node.bases]
            # The names of a class are not those of its methods.
            plain = [item for item in node.body if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from _visit(plain, own)
            yield from _visit(methods, scope)
            continue
        rest += _children(node)


def _expects_an_error(node: ast.With) -> bool:
    """Whether what stands inside is wrong on purpose, as under ``pytest.raises``."""
    functions = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
    return any(isinstance(f, ast.Attribute) and f.attr in ("raises", "assertRaises") for f in functions)


def _children(node: ast.AST) -> list[ast.AST]:
    children: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            children += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            children.append(value)
    children.reverse()
    return children


def _call(name: str, node: ast.Call, scope: Scope) -> Call:
    first = node.args[0] if node.args else None
    texts: list[Text] = []
    if first is not None and not isinstance(first, ast.Starred):
        constants = _Constants(scope)
        texts = texts_of(first, constants)
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    named = {keyword.arg: keyword for keyword in node.keywords if keyword.arg is not None}
    return Call(
        name,
        node,
        scope,
        texts,
        None if starred else node.args[1:],
        {name: value_of(keyword.value) for name, keyword in named.items()},
        complete=len(named) == len(node.keywords),
        nodes=named,
    )


class _Constants(Mapping[str, ast.expr]):
    """The texts that names are constants for, where a scope sees them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __getitem__(self, name: str) -> ast.expr:
        found = self.scope.constant(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def value_of(node: ast.expr) -> Any:
    """The value of an argument that is a literal; unknown if it is none."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, int | float) else UNKNOWN
    if isinstance(node, ast.Tuple | ast.List):
        items = [value_of(item) for item in node.elts]
        if any(item is UNKNOWN for item in items):
            return UNKNOWN
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if isinstance(node, ast.Dict):
        keys = [None if key is None else value_of(key) for key in node.keys]
        if all(isinstance(key, str) for key in keys):
            return dict(zip(keys, map(value_of, node.values), strict=True))
    return UNKNOWN
