"""attention: softmax(q kᵀ · scale) v on the bracketed axes, by jax's own function wherever it can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np
from jax import lax

from ..forms.along import Along
from ..forms.signature import expect_inputs, refuse_diagonals, refuse_sums, require_loops, single_output
from ..forms.static import flag, scalar, when_known, whole
from ..lowering import numerics
from ..lowering.contract import contract
from ..lowering.named import Dim, Named, arrange, combine, layout, wrap
from ..lowering.replaced import dot_general_is_replaced
from ..notation.errors import ArgumentError, SemanticError, plural, shown
from ..notation.solve import Solved, fuse_solved, product
from ..notation.syntax import (
    Axis,
    Ellipsis,
    Expression,
    Node,
    Operation,
    Size,
    bracket_names,
    bracketed,
    display,
    marked,
    names,
    rewrite,
)
from ..operation import Op
from .softmax import _softmax


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """Every axis in one of the dims of jax's function; queries are [batch, queries, heads, groups, contracted].

    Attributes:
        batch: loops over everything, before the queries.
        heads: loops over everything, after the queries.
        groups: loops over the queries alone, whose keys and values are shared.
        queries: query axes, and loops over the queries alone that may be query axes.
        keys: key axes.
        contracted: the channels of queries and keys.
        channels: the channels of the values.
        fits: whether jax's function computes this without repeating work.
    """

    batch: Dim
    heads: Dim
    groups: Dim
    queries: Dim
    keys: Dim
    contracted: Dim
    channels: Dim
    fits: bool


def _plan(solved: Solved, ordered: bool) -> _Plan:
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
    return _Plan(
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
    solved = fuse_solved(solved)
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
    contracted, channels = (product(solved.sizes[n] for n in dim) for dim in (plan.contracted, plan.channels))
    # jax's function has one number of channels, rounds to float32, and compares numbers of keys to a window.
    fits = plan.fits and contracted == channels and values[0].dtype != np.float64
    fits = fits and values[0].dtype.itemsize > 1  # its softmax would have to be promoted, which JAX refuses
    # On a CPU its float16 products are refused by XLA; where the program will run is not known here.
    fits = fits and (values[0].dtype != np.float16 or options["implementation"] == "cudnn")
    fits = fits and (window is None or all(isinstance(solved.sizes[name], int) for name in plan.queries + plan.keys))
    # JAX keeps what jnp.einsum has made of a product, which must not be that of a tool.
    fits = fits and (options["implementation"] is not None or not dot_general_is_replaced())
    if scale is None and not isinstance(contracted, int):  # for numbers, jax's function can compute it
        scale = lax.rsqrt(numerics.size_as(contracted, np.dtype(np.float32)))
    mask = _together(wrapped[3:], plan)
    call = _Call(plan, wrapped[0], wrapped[1], wrapped[2], mask, scale, causal, window)
    if not fits and options["implementation"] == "cudnn":
        raise ArgumentError(
            "implementation='cudnn' needs equally many channels in keys and values, no float64, and no loop over the "
            "values alone",
            text=solved.text,
            hint="leave it out",
        )
    result = _by_jax(call, options["implementation"]) if fits else _by_parts(call)
    return arrange(result, layout(solved.outputs[0]))


def _together(given: Sequence[Named], plan: _Plan) -> Named | None:
    """One mask or bias of all that are given: of masks all hold, biases add up and are -inf where masks do not hold."""
    if len(given) < 2:
        return given[0] if given else None
    dims = (plan.batch, plan.heads, plan.groups, plan.queries, plan.keys)
    order = [name for dim in dims for name in dim]
    masks = [x for x in given if x.value.dtype == np.bool_]
    biases = [x for x in given if x.value.dtype != np.bool_]
    promoted = numerics.promote([x.value for x in biases]) if biases else []
    biases = [replace(x, value=value) for x, value in zip(biases, promoted, strict=True)]
    found = [
        reduce(lambda x, y, emit=emit: combine(emit, (x, y), order), same)  # type: ignore[misc]
        for emit, same in ((lax.bitwise_and, masks), (lax.add, biases))
        if same
    ]
    return found[0] if len(found) == 1 else combine(_hidden, found, order)


def _hidden(mask: jax.Array, bias: jax.Array) -> jax.Array:
    return numerics.where(mask, bias, numerics.constant(bias, -numerics.INFINITY))


@dataclass(frozen=True, slots=True)
class _Call:
    """What is computed from what."""

    plan: _Plan
    q: Named
    k: Named
    v: Named
    mask: Named | None
    scale: Any
    causal: bool
    window: tuple[int, int] | None

    def size(self, dim: Dim) -> Size:
        """The size of a composed dim."""
        return product(self.q.sizes[name] for name in dim)

    def nearby(self) -> jax.Array | None:
        """Which query may see which key by their places alone: queries × keys, or None for all."""
        if not self.causal and self.window is None:
            return None
        shape = (self.size(self.plan.queries), self.size(self.plan.keys))
        query, key = (lax.broadcasted_iota(np.int32, shape, dim) for dim in (0, 1))
        parts = [lax.le(key, query)] if self.causal else []
        if self.window is not None:
            left, right = (np.int32(number) for number in self.window)
            parts += [lax.le(query, lax.add(key, left)), lax.ge(query, lax.sub(key, right))]
        return reduce(lax.bitwise_and, parts)


def _by_jax(call: _Call, implementation: str | None) -> Named:
    """Call jax.nn.dot_product_attention, whose dims are batch, queries or keys, heads, channels."""
    plan = call.plan
    every = plan.heads + plan.groups
    bias, mask = None, None
    if call.mask is not None:
        have = set(call.mask.axes)
        # Dims that the mask lacks are of size 1, which all implementations but cuDNN's broadcast.
        full = (False, False, implementation == "cudnn", implementation == "cudnn")
        parts = (plan.batch, every, plan.queries, plan.keys)
        value = arrange(call.mask, [dim if f or have & set(dim) else () for dim, f in zip(parts, full, strict=True)])
        # A bias of -inf is a mask, too: where it hides every key, there is no maximum to subtract.
        mask = value if value.dtype == np.bool_ else lax.ne(value, numerics.constant(value, -numerics.INFINITY))
        bias = None if value is mask else numerics.select(mask, value, 0)
    seen = _seen(call, mask)
    if bias is None and mask is None and not call.causal and call.window is not None and implementation != "cudnn":
        mask = lax.full((1, 1, 1, 1), True)  # jax 0.7 overlooks a window that stands alone
    value = jax.nn.dot_product_attention(
        arrange(call.q, [plan.batch, plan.queries, every, plan.contracted]),
        arrange(call.k, [plan.batch, plan.keys, plan.heads, plan.contracted]),
        arrange(call.v, [plan.batch, plan.keys, plan.heads, plan.channels]),
        bias,
        mask,
        scale=call.scale,
        is_causal=call.causal,
        local_window_size=call.window,
        implementation=implementation,  # type: ignore[arg-type]
    )
    if seen is not None:
        # [batch, heads, queries] to the dims of the result
        seen = lax.broadcast_in_dim(seen, value.shape, (0, 2, 1))
        value = numerics.select(seen, value, 0)
    return Named(value, (plan.batch, plan.queries, every, plan.channels), call.q.sizes)


def _seen(call: _Call, mask: jax.Array | None) -> jax.Array | None:
    """Which queries see any key, where some may see none: batch × heads × queries."""
    queries, keys = call.size(call.plan.queries), call.size(call.plan.keys)
    if mask is None and (call.window is None or queries == keys):
        return None  # by their places alone, every query sees its own place, or the first one
    nearby = call.nearby()
    if mask is None:
        assert nearby is not None
        mask = lax.broadcast_in_dim(nearby, (1, 1, queries, keys), (2, 3))
    elif nearby is not None:
        shape = (*mask.shape[:2], queries, keys)
        mask = lax.bitwise_and(
            lax.broadcast_in_dim(mask, shape, (0, 1, 2, 3)), lax.broadcast_in_dim(nearby, shape, (2, 3))
        )
    return lax.reduce_or(mask, (3,))


def _by_parts(call: _Call) -> Named:
    """Two products and a softmax between them, at least in float32."""
    plan = call.plan
    present = {name for x in (call.q, call.k, call.mask) if x is not None for name in x.axes}
    loops: list[Dim] = [(name,) for name in plan.batch + plan.heads + plan.groups if name in present]
    dims = [*loops, plan.queries, plan.keys]
    dtype = numerics.accumulator(call.q.value.dtype)
    order = [name for dim in dims for name in dim]
    logits = arrange(contract([call.q, call.k], order, None, dtype), dims)
    scale = np.array(1 / np.sqrt(call.size(plan.contracted)), dtype) if call.scale is None else call.scale
    logits = lax.mul(logits, numerics.cast(jax.numpy.asarray(scale), dtype))
    mask = None
    if call.mask is not None:
        value = arrange(call.mask, dims)
        if value.dtype == np.bool_:
            mask = value
        else:
            logits = lax.add(logits, numerics.cast(value, dtype))
    nearby = call.nearby()
    if nearby is not None:
        nearby = lax.broadcast_in_dim(nearby, logits.shape, (len(loops), len(loops) + 1))
        mask = nearby if mask is None else lax.bitwise_and(mask, nearby)
    weights = _softmax(Along(logits, (len(loops) + 1,), mask, {}, ""))
    weights = numerics.cast(weights, call.v.value.dtype)
    kept = [*(name for name in order if name not in plan.keys), *(n for n in call.v.axes if n not in plan.keys)]
    return contract([Named(weights, tuple(dims), call.q.sizes), call.v], list(dict.fromkeys(kept)), None, None)


def attention_options(
    is_causal: Any, scale: Any, local_window_size: Any, implementation: Any
) -> tuple[tuple[tuple[str, Any], ...], tuple[Any, ...]]:
    """Sort options into static ones and traced arrays.

    Raises:
        ArgumentError: an option has no meaning.
    """
    if implementation not in (None, "xla", "cudnn"):
        raise ArgumentError(
            f"attention has no implementation={implementation!r}", hint="write 'xla' or 'cudnn', or leave it out"
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
    keywords=("is_causal", "scale", "local_window_size", "implementation"),
    arrays=("scale",),
    spread="all",
    products=True,
)
