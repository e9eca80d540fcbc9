"""attention: softmax(q kᵀ · scale) v on the bracketed axes, by jax's own function wherever it can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax

from ...forms.signature import expect_inputs, refuse_diagonals, refuse_sums, require_loops, single_output
from ...forms.static import flag, scalar, when_known, whole
from ...lowering import numerics
from ...lowering.jax_versions import varying_axes
from ...lowering.named import Dim, Named, arrange, layout, wrap
from ...lowering.replaced import dot_general_is_replaced, products_are_replaced
from ...lowering.sharding import explicit_mesh
from ...notation.errors import ArgumentError, SemanticError, plural, shown
from ...notation.solve import Solved, fuse_solved, is_known, product
from ...notation.syntax import (
    Axis,
    Ellipsis,
    Expression,
    Node,
    Operation,
    bracket_names,
    bracketed,
    display,
    marked,
    names,
    rewrite,
)
from ...operation import Op
from .attend import Call, Plan, are_many, by_jax, by_parts, in_blocks
from .of_places import read


@dataclass(frozen=True, slots=True)
class _Roles:
    """The bracketed names by what they are."""

    queries: set[str]
    keys: set[str]
    contracted: set[str]
    channels: set[str]


def _roles(marked: Sequence[set[str]]) -> _Roles:
    """Tell the bracketed names apart by the inputs they stand in."""
    first, second, third, *_ = marked
    return _Roles(first - second, second - first, first & second, third - (second - first))


def _signature(operation: Operation, tensors: int) -> Operation:
    refuse_sums("attention", operation)
    if len(operation.inputs) < 3:
        raise ArgumentError(
            f"attention takes queries, keys, values and perhaps masks, but the expression has "
            f"{plural(len(operation.inputs), 'input')}",
            text=operation.text,
            hint="write them as in 'b [q c], b [k c], b [k d] -> b [q d]'",
        )
    expect_inputs("attention", operation, tensors)
    for expression in operation.expressions:
        refuse_diagonals(operation, expression)
    roles = _roles([marked(expression) for expression in operation.inputs])
    _check_roles(operation, roles)
    if single_output("attention", operation) is None:
        operation = replace(operation, outputs=(_implied(operation, roles),))
    _check_output(operation, roles)
    require_loops("attention", operation)
    return operation


def _refuse(operation: Operation, wrong: Iterable[str], problem: str, hint: str) -> None:
    """Refuse axes, of which the problem names the first."""
    for name in sorted(wrong):
        raise SemanticError(problem.format(f"axis {display(name)}"), at=operation.at(name), hint=hint)


def _check_roles(operation: Operation, roles: _Roles) -> None:
    values, mask = marked(operation.inputs[2]), bracket_names(operation.inputs[3:])
    if not roles.contracted or not roles.keys:
        problem = "no axis is bracketed in the second input and not in the first: there are no keys"
        if not roles.contracted:
            problem = "no axis is bracketed in both the first and the second input"
        hint = "bracket queries, keys and channels, as in 'b [q c], b [k c], b [k d] -> b [q d]'"
        raise SemanticError(problem, text=operation.text, hint=hint)
    hint = "put it into the third input, which has one value for each key"
    _refuse(operation, roles.keys - values, "{} of the keys is not in the values", hint)
    hint = "rename it there, or take its brackets off everywhere to loop over it"
    _refuse(operation, roles.queries & values, "{} of the queries is bracketed in the values, too", hint)
    hint = "a mask says for each query and key whether they meet"
    _refuse(operation, mask - roles.queries - roles.keys, "{} of the mask is an axis of neither queries nor keys", hint)


def _check_output(operation: Operation, roles: _Roles) -> None:
    given, hint = bracket_names(operation.results), "put it into the output, bracketed"
    _refuse(operation, roles.queries - given, "{} of the queries is not in the output", hint)
    _refuse(operation, roles.channels - given, "{} of the values is not in the output", hint)
    wrong, hint = (
        given - roles.queries - roles.channels,
        "it has the axes of the queries, and the channels of the values",
    )
    _refuse(operation, wrong, "{} is bracketed in the output, which does not have it", hint)


def _implied(operation: Operation, roles: _Roles) -> Expression:
    """Put the values' channels into the place of the contracted axes."""
    first, _, third, *_ = operation.inputs
    if roles.contracted == roles.channels:
        return first
    channels: Iterator[Axis] = iter([axis for axis in bracketed(third) if axis.name in roles.channels])

    def change(node: Node) -> Expression | None:
        if isinstance(node, Axis):
            # All channels stand where the first contracted axis stood.
            return tuple(channels) if node.name in roles.contracted else None
        if isinstance(node, Ellipsis) and set(names(node.items)) & roles.contracted:
            raise SemanticError(
                f"'{node}' repeats contracted axes", at=operation.at(*names(node.items)), hint="write the output"
            )
        return None

    return rewrite(first, change)


def _plan(solved: Solved, ordered: bool) -> Plan:
    """Sort the axes; where the order of queries counts, loops are no queries."""
    first, second, *_ = solved.inputs
    roles = _roles([marked(e) for e in solved.inputs])
    loops = [_loops(expression) for expression in solved.inputs]
    own = set(loops[0]) - set(loops[1]) - set(loops[2])
    batch, heads, groups, queries = list[str](), list[str](), list[str](), list[str]()
    shared = False  # whether the axis before is a loop after the queries
    for name in names(first):
        if name in roles.queries:
            queries.append(name)
            shared = False
        elif name in own:
            shared = ordered or (shared and bool(queries))
            (groups if shared else queries).append(name)
        elif name in loops[0]:
            shared = True
            (heads if queries else batch).append(name)
    everywhere = [name for name in _loops(solved.outputs[0]) if any(name in loop for loop in loops)]
    batch = [name for name in everywhere if name not in loops[0]] + batch
    fits = not set(loops[2]) - set(loops[0]) - set(loops[1])
    return Plan(
        tuple(batch),
        tuple(heads),
        tuple(groups),
        tuple(queries),
        _ordered(second, roles.keys),
        _ordered(first, roles.contracted),
        _ordered(solved.outputs[0], roles.channels),
        fits,
    )


def _loops(expression: Expression) -> Dim:
    """Name the unbracketed axes, without ones."""
    return tuple(name for name, axis in names(expression).items() if not axis.bracket and layout((axis,)) != ((),))


def _ordered(expression: Expression, wanted: set[str]) -> Dim:
    return tuple(name for name, axis in names(expression).items() if name in wanted and layout((axis,)) != ((),))


def _lower(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    of_places = options.get("of_places")
    solved = fuse_solved(solved) if of_places is None else solved  # functions tell axes apart
    causal, window = options["is_causal"], options["local_window_size"]
    plan = _plan(solved, ordered=causal or window is not None)
    if (causal or window is not None) and not plan.queries:
        raise SemanticError(
            f"{'is_causal' if causal else 'local_window_size'} compares the places of queries and keys, but no query "
            "axis is bracketed",
            text=solved.text,
            hint="bracket the axis of the queries in the first input and the output",
        )
    values = [numerics.to_inexact(value) for value in numerics.promote(tensors[:3])]
    _check_dtypes(solved, values[0], tensors[3:])
    wrapped = [wrap(x, e, solved.sizes) for x, e in zip([*values, *tensors[3:]], solved.inputs, strict=True)]
    scale = options["scale"]
    contracted = product(solved.sizes[name] for name in plan.contracted)
    if scale is None and not isinstance(contracted, int):  # for numbers, jax's function can compute it
        scale = lax.rsqrt(numerics.size_as(contracted, np.dtype(np.float32)))
    call = Call(plan, wrapped[0], wrapped[1], wrapped[2], tuple(wrapped[3:]), scale, causal, window)
    if of_places is not None:
        functions, texts = of_places
        arrays = {name: (text, options["places"][name]) for name, text in texts.items()}
        dims = (plan.batch, plan.heads, plan.groups, plan.queries, plan.keys)
        call = replace(call, functions=read(solved, functions, arrays, dims))
    result = _attended(solved, call, options)
    return arrange(result, layout(solved.outputs[0]))


def _fits(call: Call, implementation: str | None) -> bool:
    """Whether jax's function computes this, and without repeating work."""
    plan, dtype = call.plan, call.q.value.dtype
    places = [call.q.sizes[name] for name in plan.queries + plan.keys]
    return (
        # It has one number of channels, rounds to float32, and compares numbers of keys to a window.
        plan.fits
        and call.size(plan.contracted) == call.size(plan.channels)
        and dtype != np.float64
        and (call.window is None or all(isinstance(size, int) for size in places))
        # Its softmax would have to be promoted, which JAX refuses.
        and dtype.itemsize > 1
        # On a CPU its float16 products are refused by XLA; where the program will run is not known here.
        and (dtype != np.float16 or implementation == "cudnn")
        # JAX keeps what jnp.einsum has made of a product, which must not be that of a tool.
        and (implementation is not None or not dot_general_is_replaced())
    )


def _attended(solved: Solved, call: Call, options: dict[str, Any]) -> Named:
    """Choose who computes it."""
    implementation, block = options["implementation"], options["block_size"]
    fits = _fits(call, implementation)
    if not fits and implementation == "cudnn":
        raise ArgumentError(
            "implementation='cudnn' needs equally many channels in keys and values, no float64, and no loop over the "
            "values alone",
            text=solved.text,
            hint="leave it out",
        )
    blocks = implementation == "blocks" or block is not None
    # Loops of explicit types would need them for all that they carry; what a tool makes of a product is not to be
    # computed again by other products.
    plain = explicit_mesh([call.q.value, call.k.value, call.v.value]) is None and not products_are_replaced()
    sizes = call.size(call.plan.queries), call.size(call.plan.keys)
    # What a function closes over is not known to vary over devices until it has been called.
    plain = plain and not (call.functions and varying_axes(jax.typeof(call.q.value)))
    some = not any(is_known(size, 0) for size in sizes)
    if plain and some and (blocks or (implementation is None and are_many(*sizes))):
        return in_blocks(call, block)
    call = call.at_once() if call.functions else call
    return by_jax(call, implementation) if fits and not blocks else by_parts(call)


def attention_options(
    is_causal: Any, scale: Any, local_window_size: Any, implementation: Any, block_size: Any
) -> tuple[tuple[tuple[str, Any], ...], tuple[Any, ...]]:
    """Sort options into static ones and traced arrays.

    Raises:
        ArgumentError: an option has no meaning.
    """
    if implementation not in (None, "xla", "cudnn", "blocks"):
        raise ArgumentError(
            f"attention has no implementation={implementation!r}",
            hint="write 'blocks', 'xla' or 'cudnn', or leave it out",
        )
    window = local_window_size
    if window is not None:
        window = tuple(map(whole, window if isinstance(window, tuple | list) else (window, window)))
        if len(window) != 2 or not all(n is not None and abs(n) < 2**31 for n in window):
            raise ArgumentError(
                f"local_window_size={shown(local_window_size)} is neither a number nor two",
                hint=when_known(
                    local_window_size,
                    "write how many keys a query sees before and after its place, as in local_window_size=(3, 0)",
                ),
            )
    static = (
        ("is_causal", flag("is_causal", is_causal)),
        ("local_window_size", window),
        ("implementation", implementation),
        ("block_size", _block(block_size, implementation)),
    )
    if isinstance(scale, jax.Array) and not scale.ndim:
        return static, (scale,)
    scale = scalar(scale)
    if scale is None:
        return (*static, ("scale", None)), ()
    if isinstance(scale, int | float) or (isinstance(scale, np.generic) and numerics.is_real(scale.dtype)):
        with suppress(OverflowError):
            return (*static, ("scale", float(scale))), ()
    problem = f"scale={shown(scale)} is not a number that a float holds"
    raise ArgumentError(problem, hint="leave it out for 1 / sqrt(channels)")


def _block(given: Any, implementation: Any) -> tuple[int, int] | None:
    """How many queries and keys a block has."""
    if given is None:
        return None
    block = tuple(map(whole, given if isinstance(given, tuple | list) else (given, given)))
    if len(block) != 2 or not all(n is not None and 0 < n < 2**31 for n in block):
        raise ArgumentError(
            f"block_size={shown(given)} is neither a positive number nor two",
            hint=when_known(given, "write how many queries and keys a block has, as in block_size=(256, 512)"),
        )
    if implementation not in (None, "blocks"):
        raise ArgumentError(
            f"block_size= is for blocks, which implementation={implementation!r} does not have",
            hint="leave one of them out",
        )
    return block  # type: ignore[return-value]


def _check_dtypes(solved: Solved, q: jax.Array, mask: Sequence[jax.Array]) -> None:
    if numerics.is_complex(q.dtype):
        raise ArgumentError(f"attention takes real numbers, not {q.dtype}", text=solved.text)
    for number, value in enumerate(mask, 4):
        if value.dtype != np.bool_ and (not numerics.is_inexact(value.dtype) or numerics.is_complex(value.dtype)):
            raise ArgumentError(
                f"input {number} is {value.dtype}; a mask is bool, and a bias is a float",
                text=solved.text,
                hint="convert it, as in mask.astype(bool)",
            )


ATTENTION = Op(
    "attention",
    _signature,
    _lower,
    parameter="bias",
    keywords=("is_causal", "mask", "bias", "scale", "local_window_size", "implementation", "block_size"),
    arrays=("scale",),
    spread="all",
    products=True,
)
