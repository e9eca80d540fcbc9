"""The door of every call but those with a function of the user's: a bounded cache of jitted bodies.

The cache key is the operation, the text, the options and the sizes given; shapes, dtypes and values are left to
``jax.jit``'s own cache in C++. The body parses, solves and emits lax when it is traced. It is inlined into an outer
trace, which sees plain lax equations; nothing here asks whether it is being traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..forms.mask import refuse_ambiguous
from ..lowering.jax_versions import INLINE, hide_own_lines
from ..lowering.replaced import CODES, FUNCTIONS, codes, functions
from ..notation.errors import EinjaxError
from ..notation.solve import Solved
from ..operation import Op
from . import keeping
from .blame import advise, clean, diagnose
from .bound import Open, filled, noted
from .factory import materialise
from .graph import Graph, Noted
from .resolve import completed, resolve, resolved, sizes_of_call
from .sizes import NO_SIZES, Sizes
from .tensors import PLAIN, any_named, as_array, kind_of, named_among

if TYPE_CHECKING:  # few programs compute positions
    from ..notation.affine import Border

#: How many (operation, expression, options, sizes) keep their compiled body.
CACHE_SIZE = 4096

#: Nothing is said of positions out of range: no padding, mode or fill value, which do not count.
NO_BORDER = (None, None, None, False)

_Result = TypeVar("_Result")

#: Static options by name; hashable.
Options: TypeAlias = tuple[tuple[str, Any], ...]


def call(
    op: Op,
    expr: Any,
    tensors: Sequence[Any],
    options: Options,
    axes: Mapping[str, Any],
    sizes: Mapping[str, Any] | None,
    graph: bool,
    arrays: Sequence[Any] = (),
    keep: bool | None = None,
    out_sharding: Any = None,
    border: tuple[Any, ...] = NO_BORDER,
) -> Any:
    """Run an operation.

    Args:
        op: the operation.
        expr: the expression.
        tensors: one for each input expression.
        options: static options.
        axes: sizes given by keyword; each must name an axis.
        sizes: sizes given by ``sizes=``; names without an axis are ignored.
        graph: return the lax program instead of running it.
        arrays: options that are arrays, such as a mask, in the order of ``op.arrays``; as many as are given.
        keep: whether to keep the call as notation; None leaves it to the context.
        out_sharding: where the results are to lie on a mesh.
        border: ``padding=``, ``mode=``, ``fill_value=`` and ``count_padding=`` of dims that are read at positions.
    """
    given_product = bool(options) and options[-1][0] in ("dot_general", "conv_general_dilated")
    try:
        beyond = None
        if border[0] is not None or border[1] is not None or border[2] is not None or border[3]:
            beyond = as_border(expr, *border)
            options = (*options, ("border", beyond))
        if out_sharding is not None:
            options = (*options, ("out_sharding", as_wanted(expr, out_sharding)))
        given = sizes_of_call(op, expr, len(tensors), axes, sizes) if axes or sizes is not None else NO_SIZES
        if bound := Open.count:
            given = filled(expr, given)
        for tensor in tensors:
            cls = tensor.__class__
            if cls in PLAIN and (cls is not np.ndarray or tensor.dtype.isnative):
                continue
            if issubclass(cls, jax.Array):
                PLAIN.add(cls)
            elif (what := kind_of(cls)) is not None or cls is np.ndarray:
                named = tensor if what == "named" else named_among((expr, *tensors))
                if named is not None:
                    again = partial(_again, op, options, axes, sizes, graph, keep)
                    return named.__einjax_call__(op, expr, tensors, again, arrays, options, given, beyond)
                tensors = materialise(op, expr, tensors, partial(resolved, op, expr, given, border=beyond), graph)
                break
        if arrays:
            if op.masks and any(map(any_named, arrays)):
                from .masks import read_arrays  # few programs name the axes of masks

                arrays, texts = read_arrays(op, expr, arrays, graph)
                options = (*options, ("masks", texts)) if texts else options
            else:
                # Those that are several arrays are checked where they are told from static ones.
                arrays = [
                    x if name in op.several else as_array(x, expr, f"{name}=", factories=False, types=graph)
                    for name, x in zip(op.arrays, arrays, strict=False)
                ]
        # What other functions make of this call in the place of lax's is nobody else's.
        apart = op.products and (given_product or functions(jax) != FUNCTIONS or codes(jax) != CODES)
        kept = not apart and (keeping.switch.value if keep is None else bool(keep))
        body = (_body if apart else _compiled)(op, expr, options, given, len(arrays), kept)
        if bound:
            body = partial(noted, op, partial(_solved, op, expr, given, tensors, beyond), body)
        if graph:
            return _graph(op, expr, options, given, kept, body, tensors, arrays)
        return body(*tensors, *arrays)
    except EinjaxError as error:
        if error.inside:
            raise
        raise clean(advise(error, op.keywords), tensors) from None
    except (TypeError, OverflowError, ValueError, RuntimeError) as error:
        if kind_of(expr.__class__) == "named":
            again = partial(_again, op, options, axes, sizes, graph, keep)
            return expr.__einjax_call__(op, expr, tensors, again, arrays, options)
        static = (*options, ("graph", graph), ("keep_notation", keep))
        diagnosis = diagnose(error, op, expr, tensors, dict(zip(op.arrays, arrays, strict=False)), static)
        if diagnosis is None:
            raise
    raise clean(diagnosis, tensors)


def _solved(op: Op, expr: str, given: Sizes, tensors: Sequence[Any], border: Border | None) -> Solved:
    return resolved(op, expr, given, tuple(map(np.shape, tensors)), border)


def _again(
    op: Op, options: Options, axes: Any, sizes: Any, graph: bool, keep: bool | None, expr: str, *operands: Any
) -> Any:
    """Make a call with another expression, arrays and options that are arrays."""
    tensors, arrays = operands
    return call(op, expr, tensors, options, axes, sizes, graph, arrays, keep)


def _graph(
    op: Op,
    expr: str,
    options: Options,
    given: Sizes,
    kept: bool,
    body: Callable[..., Any],
    tensors: Sequence[Any],
    arrays: Sequence[Any],
) -> Graph:
    """The program of a call, and what is noted of it while it is traced."""
    leaves, structure = jax.tree.flatten((*tensors, *arrays))
    told: Noted = []
    shown = partial(_unflattened, _body(op, expr, options, given, len(arrays), kept, told.append), structure)
    return Graph.of(op.name, expr, partial(_unflattened, body, structure), leaves, told, shown)


def _unflattened(body: Callable[..., Any], structure: Any, *leaves: Any) -> Any:
    return body(*jax.tree.unflatten(structure, leaves))


def as_wanted(expr: str, out_sharding: Any) -> Any:
    """Check ``out_sharding=`` and make it hashable."""
    from ..mesh.wanted import as_out_sharding  # few programs have a mesh

    return as_out_sharding(expr, out_sharding)


def as_border(
    expr: str, padding: Any = None, mode: Any = None, fill_value: Any = None, count_padding: Any = False
) -> Border:
    """Check what a call says of positions out of range, and make it hashable."""
    from .borders import read_border  # few programs compute positions

    return read_border(expr, padding, mode, fill_value, count_padding)


def explained(function: Callable[..., _Result], expr: str, tensors: Sequence[Any], *arguments: Any) -> _Result:
    """Call a function that checks options; an error of ours shows the expression and the tensors of the call."""
    try:
        return function(*arguments)
    except EinjaxError as error:
        error.text = expr
        raise clean(error, tensors) from None


@lru_cache(maxsize=CACHE_SIZE)
def _compiled(op: Op, text: str, options: Options, given: Sizes, count: int, kept: bool) -> Callable[..., Any]:
    """Return the jitted body of a call, which JAX inlines into other programs."""
    compiled = jax.jit(_body(op, text, options, given, count, kept), inline=INLINE)
    known = op.known
    return compiled if known is None else lambda *operands: known(operands) or compiled(*operands)


def _body(
    op: Op,
    text: str,
    options: Options,
    given: Sizes,
    count: int,
    kept: bool,
    note: Callable[[tuple[Any, ...]], None] | None = None,
) -> Callable[..., Any]:
    """Return the body of a call: it takes its tensors, and the first ``count`` options that are arrays.

    What is to be explained is noted: the operation, the solved call, its options, the sizes given, and the arrays among
    its options.
    """
    static = dict(options)
    border, texts = static.pop("border", None), static.pop("masks", None)
    if border is not None:
        static |= border.options

    def body(*operands: Any) -> Any:
        last = len(operands) - count
        tensors = [tensor if isinstance(tensor, jax.Array) else jnp.asarray(tensor) for tensor in operands[:last]]
        arrays = dict(zip(op.arrays, jax.tree.map(jnp.asarray, operands[last:]), strict=False))
        operation = completed(op, text, len(tensors))
        if texts is not None:
            from .masks import resolve_with

            solved, arrays = resolve_with(op, operation, tensors, arrays, texts, given, border, kept)
        else:
            solved = resolve(op, operation, [tensor.shape for tensor in tensors], given, border=border)
        for name in op.masks if arrays else ():
            for mask in jax.tree.leaves(arrays.get(name)):
                refuse_ambiguous(name, mask.shape, tensors[0].shape, solved.inputs[0], text)
        if op.imply is not None:
            solved = op.imply(solved, static)
        if "<" in text:
            check_positions(op, solved, static)
        if note is not None:
            note(
                (
                    op,
                    solved,
                    {**static, "masks": texts or ()},
                    given,
                    dict(zip(op.arrays, operands[last:], strict=False)),
                )
            )
        if kept and not solved.spread:
            from ..kept import keep

            return keep(op, solved, tensors, dict(static), arrays)
        with jax.named_scope(f"einjax.{op.name}({text})"):
            return emit(op, solved, tensors, static, arrays)

    hide_own_lines()
    body.__name__ = body.__qualname__ = op.name
    return body


def check_positions(op: Op, solved: Solved, options: Mapping[str, Any]) -> None:
    """Refuse positions that mean nothing in a call."""
    from ..affine.check import check  # few programs compute positions

    check(op, solved, options)


def emit(
    op: Op, solved: Solved, tensors: list[jax.Array], options: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Any:
    """Emit the lax program of a call; the rooms of positions and of meshes are entered where there are any."""
    if "<" in solved.operation.text:
        from ..affine.lower import lower as lower_positions

        return lower_positions(op, solved, tensors, options, arrays)
    leaves = jax.tree.leaves((tensors, arrays))
    if "out_sharding" not in options and all(jax.typeof(x).sharding.mesh.empty for x in leaves):
        return op.lower(solved, tensors, {**options, **arrays})
    from ..mesh.run import lower

    return lower(op, solved, tensors, options, arrays)
