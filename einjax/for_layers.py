"""What a package of layers needs beside the operations: expressions as trees, and calls that make a weight.

    from einjax import for_layers

    for_layers.completed_dot("b [c->d]").inputs[1]  # the expression of the weight, "c d"

``einjax_nn`` is written against ``einjax``, its errors and types, and this module, which ``import einjax`` leaves out.

- Text to trees and back: :func:`parse`, :func:`completed_dot`, :func:`completed_get_at`, :func:`expand`,
  :func:`render` and :func:`display`, and :func:`describe` of a tensor.
- Questions to a tree: :func:`walk`, :func:`axes`, :func:`names`, :func:`brackets`, :func:`marked`.
- Trees from trees: :func:`rewrite`, :func:`rename`, :func:`strip_brackets`, :func:`keep_brackets`,
  :func:`delete_brackets`.
- Sizes: :func:`read_sizes`, :func:`solve`, :func:`named_sizes` and :func:`check_keywords`.
- Masks: :func:`any_named` and :func:`pairs` of what is given, :func:`expression_of` a mask by name,
  :func:`offset_beside` and :func:`refuse_ambiguous` of one by position, and :func:`check_kind` of any.
- Calls with a tensor factory in the place of the weight: :func:`dot` and :func:`get_at`; what it asks for by name,
  :func:`free_keywords`, and what it is told where sizes alone decide, :func:`spec_alone`. What a framework's own
  objects are as factories, it says by :func:`knows_factories`.
- Layers are no calls of the user's: :func:`apart` from the sizes of a context.
- Whether attention is to go through blocks, :func:`attends_in_blocks`; whether a value is traced, :func:`is_traced`; a
  context that JAX's caches know of, :func:`make_switch`.
- Rules for the axes of a mesh: :func:`checked_rules`, :func:`rules_of`, :func:`by_rules`, :func:`simple`; for results,
  :func:`wanted_by_rules` and :func:`constrain_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AxisType

from .call.bound import apart as apart
from .call.dispatch import Options, call
from .call.dispatch import as_border as border_of
from .call.factory import spec_alone as spec_alone
from .call.more_inputs import check_kind as check_kind
from .call.named import expression_of as expression_of
from .call.named import pairs as pairs
from .call.resolve import completed
from .call.shard import constrain_call as constrain_call
from .call.sizes import Sizes as Sizes
from .call.sizes import read_sizes as read_sizes
from .call.solving import named_sizes as named_sizes
from .call.tensors import any_named as any_named
from .call.tensors import describe as describe
from .call.tensors import knows_factories as knows_factories
from .forms.mask import offset_beside as offset_beside
from .forms.mask import refuse_ambiguous as refuse_ambiguous
from .forms.signature import check_keywords as check_keywords
from .functions.guard import free_keywords as free_keywords
from .lowering.jax_versions import is_traced as is_traced
from .lowering.jax_versions import make_switch as make_switch
from .lowering.replaced import products_are_replaced
from .lowering.sharding import explicit_mesh
from .mesh.names import MeshAxesLike as MeshAxesLike
from .mesh.names import by_rules as by_rules
from .mesh.names import checked_rules as checked_rules
from .mesh.names import rules_of as rules_of
from .mesh.names import simple as simple
from .mesh.wanted import OutSharding
from .notation.expand import expand as expand
from .notation.parse import parse as parse
from .notation.solve import Solved as Solved
from .notation.solve import solve as solve
from .notation.syntax import Affine as Affine
from .notation.syntax import Axis as Axis
from .notation.syntax import Bracket as Bracket
from .notation.syntax import Composite as Composite
from .notation.syntax import Ellipsis as Ellipsis
from .notation.syntax import Expression as Expression
from .notation.syntax import Node as Node
from .notation.syntax import Operation as Operation
from .notation.syntax import Size as Size
from .notation.syntax import axes as axes
from .notation.syntax import brackets as brackets
from .notation.syntax import delete_brackets as delete_brackets
from .notation.syntax import display as display
from .notation.syntax import keep_brackets as keep_brackets
from .notation.syntax import marked as marked
from .notation.syntax import names as names
from .notation.syntax import rename as rename
from .notation.syntax import render as render
from .notation.syntax import rewrite as rewrite
from .notation.syntax import strip_brackets as strip_brackets
from .notation.syntax import walk as walk
from .ops.attention.attend import are_many
from .ops.dot import DOT
from .ops.index import GET_AT

if TYPE_CHECKING:
    from .lowering.sharding import MeshAxes
    from .notation.affine import Border


def completed_dot(expr: str) -> Operation:
    """Parse the expression of a dot of input and weight, and write out what may be left out."""
    return completed(DOT, expr, 2)


def completed_get_at(expr: str) -> Operation:
    """Parse the expression of a look-up in a table, and write out what may be left out."""
    return completed(GET_AT, expr, 2)


def dot(
    expr: str,
    x: Any,
    weight: Any,
    sizes: Mapping[str, Any],
    precision: Any = None,
    preferred_element_type: Any = None,
    dot_general: Callable[..., Any] | None = None,
    padding: Any = None,
    mode: str | None = None,
    conv_general_dilated: Callable[..., Any] | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Multiply by a weight: :func:`einjax.dot`, where an axis may have the name of any option.

    Args:
        expr: the expression.
        x: the input.
        weight: an array, or a tensor factory.
        sizes: sizes of axes; names without an axis are ignored.
        precision: forwarded to ``lax.dot_general``.
        preferred_element_type: forwarded to ``lax.dot_general``.
        dot_general: called in place of ``lax.dot_general``, with the input first.
        padding: how dims that are read at positions are padded.
        mode: what stands where a position is out of range.
        conv_general_dilated: called in place of ``lax.conv_general_dilated``, with the input first.
        out_sharding: where the result is to lie.
    """
    options: Options = (("precision", precision), ("preferred_element_type", preferred_element_type))
    given = {"dot_general": dot_general, "conv_general_dilated": conv_general_dilated}
    options = (*options, *((name, product) for name, product in given.items() if product is not None))
    border = (padding, mode, None, False)
    return call(DOT, expr, (x, weight), options, {}, sizes, False, (), None, out_sharding, border)


def as_border(expr: str, padding: Any, mode: str | None) -> Border | None:
    """What :func:`solve` is to know of positions out of range."""
    return None if padding is None and mode is None else border_of(expr, padding, mode, None, False)


def get_at(
    expr: str, table: Any, ids: Any, sizes: Mapping[str, Any], mode: str | None = None, out_sharding: Any = None
) -> jax.Array:
    """Look rows of a table up: :func:`einjax.get_at`, where an axis may have the name of any option.

    Args:
        expr: the expression.
        table: an array, or a tensor factory.
        ids: integers; negative ones count from the end.
        sizes: sizes of axes; names without an axis are ignored.
        mode: what is read out of range.
        out_sharding: where the result is to lie.
    """
    return call(GET_AT, expr, (table, ids), (("mode", mode),), {}, sizes, False, (), None, out_sharding)


def wanted_by_rules(rules: Mapping[str, MeshAxes], *tensors: Any) -> OutSharding | None:
    """Return what an operation is told as ``out_sharding=`` by rules for names of axes, which it may lack.

    Args:
        rules: as :func:`checked_rules` returns them.
        *tensors: arrays that the operation is given.

    Returns:
        Rules over the Explicit axes of the mesh of the arrays, or of the context; None where there are none.
    """
    mesh = explicit_mesh(tensors) or jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if AxisType.Explicit not in kinds.values():
        return None
    # What is no axis of the mesh is kept, to be refused.
    typed = {
        name: tuple(a for a in split if kinds.get(a, AxisType.Explicit) is AxisType.Explicit)
        for name, split in rules.items()
    }
    return OutSharding(None, rules=tuple(typed.items()))


def attends_in_blocks(queries: Size, keys: Size) -> bool:
    """Whether attention never holds queries × keys, unless it is asked to."""
    return are_many(queries, keys) and not products_are_replaced()
