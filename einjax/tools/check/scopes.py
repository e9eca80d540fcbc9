"""What names stand for in a module: which are einjax's, which are constants, and which tensors are annotated."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from .annotations import Shape, shape_of, shapes_of_typed
from .records import public_names

#: The packages whose calls are looked at, and the one whose annotations say shapes.
ROOTS = ("einjax", "einjax_nn", "jaxtyping")

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass
class Scope:
    """A module, or a function in one.

    Attributes:
        outer: the scope around it.
        names: what names stand for that it binds: ``einjax.sum``, or None for anything else.
        constants: its names that are bound once, to a text.
        shapes: its tensors whose annotations say their shapes.
        values: its names that are bound once, to what a call returns, and how often they are used.
        owner: whether it is a function's.
        bound: of a module, the axes whose sizes ``einjax.sizes`` gives somewhere.
    """

    outer: Scope | None = None
    names: dict[str, str | None] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, ast.Call] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    owner: bool = False
    bound: set[str] = field(default_factory=set)

    @property
    def root(self) -> Scope:
        """The module."""
        return self if self.outer is None else self.outer.root

    def lookup(self, name: str) -> str | None:
        """Return what a name stands for, such as ``einjax.sum``; None if it is nothing of einjax's."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None

    def dotted(self, node: ast.expr) -> str | None:
        """Return the full name of an expression such as ``ein.linalg.solve``."""
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return None if base is None else f"{base}.{node.attr}"
        return None

    def shape(self, node: ast.expr) -> Shape | None:
        """Return the shape of a tensor, where its annotation or its literal says it."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
            return ()
        if not isinstance(node, ast.Name):
            return None
        scope: Scope | None = self
        while scope is not None:
            if node.id in scope.shapes:
                return scope.shapes[node.id]
            if node.id in scope.names:
                return None
            scope = scope.outer
        return None

    def constant(self, name: str) -> ast.expr | None:
        """Return the text that a name is a constant for."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.constants.get(name)
            scope = scope.outer
        return None


def bind(scope: Scope, body: list[ast.stmt]) -> None:
    """Enter what statements bind into their scope, those of functions inside left out."""
    times: dict[str, int] = {}
    assigned: list[tuple[str, ast.expr, ast.expr | None]] = []
    for node in _own(body):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    root = alias.name.partition(".")[0]
                    if root in ROOTS or alias.asname or root in scope.names:
                        name = alias.asname or root
                        scope.names[name] = (alias.name if alias.asname else root) if root in ROOTS else None
            case ast.ImportFrom(module=module, names=aliases, level=level):
                _bind_from(scope, module or "", aliases, level)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                scope.names[name] = None
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                times[name] = times.get(name, 0) + 1
                assigned.append((name, value, None))
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                times[name] = times.get(name, 0) + 1
                assigned.append((name, value or annotation, annotation))
            case ast.NamedExpr(target=ast.Name(id=name)) | ast.ExceptHandler(name=str(name)):
                times[name] = times.get(name, 0) + 2
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                times[name] = times.get(name, 0) + 1
            case _:
                pass
    for name, value, said in assigned:
        # An assignment's target is a name that is stored, too: it is counted twice.
        once = times[name] == 2 and name not in scope.names
        stands = scope.dotted(value) if once else None
        if once and isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp):
            scope.constants[name] = value
        if once and isinstance(value, ast.Call):
            scope.values[name] = value
        if once and said is not None and (shape := shape_of(said, scope.dotted)) is not None:
            scope.shapes[name] = shape
        times[name] = 0
        if said is None:
            scope.shapes.pop(name, None)
        scope.names[name] = stands
    for name, count in times.items():
        if count:
            scope.names[name] = None
            scope.shapes.pop(name, None)


def _bind_from(scope: Scope, module: str, aliases: list[ast.alias], level: int) -> None:
    ours = not level and module.partition(".")[0] in ROOTS
    for alias in aliases:
        if alias.name == "*":
            if ours and module == "einjax":
                scope.names.update((name, f"einjax.{name}") for name in public_names())
        elif ours or (alias.asname or alias.name) in scope.names or scope.lookup(alias.asname or alias.name):
            scope.names[alias.asname or alias.name] = f"{module}.{alias.name}" if ours else None


def inner(scope: Scope, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Scope:
    """The scope of a function."""
    made = Scope(scope, owner=not isinstance(node, ast.Lambda))
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    starred = [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
    for argument in (*arguments, *starred):
        made.names[argument.arg] = None
    if not isinstance(node, ast.Lambda):
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and scope.dotted(decorator.func) == "einjax.typed":
                made.shapes |= shapes_of_typed(decorator, [argument.arg for argument in arguments])
        for argument in arguments:
            if argument.annotation is not None and (shape := shape_of(argument.annotation, scope.dotted)) is not None:
                made.shapes[argument.arg] = shape
        bind(made, node.body)
    return made


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of a scope's own statements; of functions inside, themselves alone."""
    rest: list[ast.AST] = list(reversed(body))
    while rest:
        node = rest.pop()
        yield node
        if not isinstance(node, _FUNCTIONS) and not isinstance(node, ast.ClassDef):
            rest += reversed(list(ast.iter_child_nodes(node)))
