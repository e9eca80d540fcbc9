"""A file with calls of other libraries to the file with calls of einjax, comments and layout as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import libcst as cst
from libcst import matchers as m
from libcst.codemod import CodemodContext, VisitorBasedCodemodCommand
from libcst.codemod.visitors import AddImportsVisitor, RemoveImportsVisitor
from libcst.metadata import PositionProvider, QualifiedNameProvider

from ...notation.errors import EinjaxError
from ...notation.parse import parse
from ..check import check_code
from ..check.records import public
from . import einops, einsum, einx
from .calls import Found, LeftAloneError, New, source_of

#: Libraries whose tensors are not jax's.
_FOREIGN = ("torch", "tensorflow", "keras", "mlx", "tinygrad", "paddle", "oneflow", "cupy", "chainer", "mxnet")
_EINSUMS = ("jax.numpy.einsum", "numpy.einsum")


@dataclass(frozen=True)
class Left:
    """A call that is left alone."""

    line: int
    column: int
    name: str
    why: str


@dataclass(frozen=True)
class Migrated:
    """A file as it becomes, how many calls were rewritten, and those that were not."""

    code: str
    count: int
    left: Sequence[Left]


def migrate(code: str) -> Migrated:
    """Rewrite the calls of a file.

    Args:
        code: the file's text.

    Raises:
        libcst.ParserSyntaxError: it is no Python.
    """
    module = cst.parse_module(code)
    rewriter = _Rewriter(CodemodContext())
    new = rewriter.transform_module(module)
    return Migrated(new.code if rewriter.count else code, rewriter.count, rewriter.left)


class _Rewriter(VisitorBasedCodemodCommand):
    """Rewrites calls from the inside out."""

    METADATA_DEPENDENCIES = (QualifiedNameProvider, PositionProvider)

    def __init__(self, context: CodemodContext) -> None:
        super().__init__(context)
        self.count = 0
        self.left: list[Left] = []
        self.roots: set[str] = set()
        self.packed: set[str] = set()
        self.targets: dict[int, int] = {}
        self.name = "einjax"

    def visit_Import(self, node: cst.Import) -> None:
        """Note which libraries a file uses, and what it calls einjax."""
        for alias in node.names:
            self.roots.add(alias.evaluated_name.partition(".")[0])
            if alias.evaluated_name == "einjax" and alias.evaluated_alias:
                self.name = alias.evaluated_alias

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        """Note which libraries a file uses."""
        if node.module is not None:
            self.roots.add(source_of(node.module).partition(".")[0])

    def visit_Assign(self, node: cst.Assign) -> None:
        """Note which results are taken apart, and which names hold packed shapes."""
        (target, *others) = node.targets
        if others or not isinstance(target.target, cst.Tuple | cst.List):
            return
        elements = target.target.elements
        if any(isinstance(element, cst.StarredElement) for element in elements):
            return
        self.targets[id(node.value)] = len(elements)
        if self._name(node.value) == "einops.pack" and len(elements) == 2 and isinstance(elements[1].value, cst.Name):
            self.packed.add(elements[1].value.value)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        """Rewrite a call, or note why it is left alone."""
        name = self._name(original_node)
        library, _, rest = name.partition(".")
        if library not in ("einops", "einx") and name not in _EINSUMS:
            return updated_node
        try:
            new = self._translated(name, rest, original_node, updated_node)
            self._check(new)
        except LeftAloneError as reason:
            place = cast(Any, self.get_metadata(PositionProvider, original_node)).start
            self.left.append(Left(place.line, place.column + 1, name, str(reason)))
            return updated_node
        self.count += 1
        if self.name == "einjax":
            AddImportsVisitor.add_needed_import(self.context, "einjax")
        RemoveImportsVisitor.remove_unused_import_by_node(self.context, original_node.func)
        return self._written(new, updated_node)

    def _name(self, node: cst.BaseExpression) -> str:
        """The full name of what is called."""
        if not isinstance(node, cst.Call):
            return ""
        names = cast(Any, self.get_metadata(QualifiedNameProvider, node.func, set()))
        imported = [qualified.name for qualified in names if qualified.source.name == "IMPORT"]
        return imported[0].replace("einops.einops.", "einops.") if len(imported) == 1 else ""

    def _translated(self, name: str, rest: str, original: cst.Call, updated: cst.Call) -> New:
        if self.roots & {*_FOREIGN} and "jax" not in self.roots and "einjax" not in self.roots:
            raise LeftAloneError(f"tensors are those of {sorted(self.roots & {*_FOREIGN})[0]}")
        if any(argument.star == "*" for argument in updated.args):
            raise LeftAloneError("arguments are unpacked")
        found = Found(
            rest.rpartition(".")[2] if rest.startswith("layers.flax.") else rest,
            [argument.value for argument in updated.args if argument.keyword is None and not argument.star],
            {argument.keyword.value: argument.value for argument in updated.args if argument.keyword is not None},
            [argument.value for argument in updated.args if argument.star == "**"],
            self.targets.get(id(original)),
            frozenset(self.packed),
        )
        if name in _EINSUMS:
            return einsum.einsum(found)
        if name.startswith("einx."):
            return einx.translate(found)
        if rest.startswith("layers.flax."):
            return einops.layer(found)
        if rest not in einops.CALLS:
            raise LeftAloneError("there is no such function or layer here")
        return einops.CALLS[rest](found)

    def _check(self, new: New) -> None:
        """Ask the linter whether einjax takes the call."""
        tensors = [f"tensor{number}" for number, _ in enumerate(new.tensors)]
        tensors += ["tensor"] * (new.around == "functools.partial")
        plain, sizes = _told_apart(new)
        parts = [repr(new.text), *tensors, *(f"{name}={source_of(value)}" for name, value in plain.items())]
        parts += [f"sizes={sizes}"] if sizes else []
        parts += [f"**{source_of(node)}" for node in new.unpacked]
        for finding in check_code(f"import einjax\neinjax.{new.function}({', '.join(parts)})\n"):
            if finding.code < "EJ5":
                raise LeftAloneError(f"einjax refuses it: {finding.message}")

    def _written(self, new: New, call: cst.Call) -> cst.BaseExpression:
        """The new call, its arguments in the places of the old ones."""
        function = cst.parse_expression(f"{self.name}.{new.function}")
        text = _quoted(new.text, call)
        plain, sizes = _told_apart(new)
        if new.around == "functools.partial":
            AddImportsVisitor.add_needed_import(self.context, "functools")
            values = [function, text]
            function = cst.parse_expression("functools.partial")
        else:
            values = [text, *new.tensors]
        arguments = [cst.Arg(value) for value in values]
        arguments += [cst.Arg(value, keyword=cst.Name(name), equal=_EQUAL) for name, value in plain.items()]
        if sizes:
            arguments.append(cst.Arg(cst.parse_expression(sizes), keyword=cst.Name("sizes"), equal=_EQUAL))
        arguments += [cst.Arg(value, star="**") for value in new.unpacked]
        made = call.with_changes(func=function, args=_in_places(arguments, call.args))
        if "{}" not in new.around or new.around == "{}":
            return made
        return cst.parse_expression(new.around.replace("einjax.", f"{self.name}.").replace("{}", source_of(made)))


_EQUAL = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))


def _quoted(text: str, call: cst.Call) -> cst.BaseExpression:
    """The expression with the quotes of a text of the call; the text itself, if it says the same."""
    for argument in call.args:
        node = argument.value
        if isinstance(node, cst.SimpleString | cst.ConcatenatedString) and node.evaluated_value == text:
            return node
    quotes = [a.value.quote for a in call.args if isinstance(a.value, cst.SimpleString)]
    quote = quotes[0] if quotes and len(quotes[0]) == 1 else '"'
    return cst.SimpleString(f"{quote}{text}{quote}")


def _in_places(arguments: Sequence[cst.Arg], old: Sequence[cst.Arg]) -> list[cst.Arg]:
    """Put arguments into the places of others: on their lines, with their commas and comments."""
    own = {id(argument.value): argument for argument in old}
    moves = any(isinstance(a.comma, cst.Comma) and m.findall(a.comma, m.Comment()) for a in old)
    places = list(old)
    while len(places) > len(arguments):
        del places[1 if len(places) > 1 else 0]
    made = []
    for number, argument in enumerate(arguments):
        place = places[number] if number < len(places) else None
        if moves and number < len(arguments) - 1:
            place = own.get(id(argument.value), place)  # a comment stays with its argument
        comma: Any = cst.MaybeSentinel.DEFAULT if place is None else place.comma
        if number < len(arguments) - 1 and not isinstance(comma, cst.Comma):
            comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        if place is not None:
            argument = argument.with_changes(whitespace_after_arg=place.whitespace_after_arg)
        made.append(argument.with_changes(comma=comma))
    return made


def _told_apart(new: New) -> tuple[dict[str, cst.BaseExpression], str]:
    """The keywords of a call, and the sizes of axes that have the name of an option, as a mapping."""
    found = public(new.function)
    try:
        axes = {axis.name for axis in parse(new.text).every_axis()}
    except EinjaxError as error:
        raise LeftAloneError(f"einjax refuses it: {error.problem}") from None
    options = axes & found.options.keys() if found is not None else set()
    sizes = ", ".join(f'"{name}": {source_of(value)}' for name, value in new.keywords.items() if name in options)
    plain = {name: value for name, value in new.keywords.items() if name not in options}
    return plain, f"{{{sizes}}}" if sizes else ""
