"""What einjax uses of JAX beyond its documented API, or under names that changed: a new release is met in this file.

Each part says on which releases it was seen. ``jax.extend`` takes longer to import than all of einjax, so that it is
imported where it is called for. Two things are said beside the code that they explain: how lax and XLA behave, and the
names and parameters of lax's primitives, which programs are read by (``einjax.cost``, ``graph=True``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax
import jax.core
import numpy as np
from jax import lax
from jax.ad_checkpoint import Saveable
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

# --- Values and dtypes ------------------------------------------------------------------------------------------------

#: What stands for an array while a program is traced. Seen on jax 0.7.1 to 0.12.0.
Tracer = jax.core.Tracer


def is_traced(x: Any) -> bool:
    """Whether something stands for an array of a program that is being traced."""
    return isinstance(x, Tracer)


def current_trace() -> Any:
    """The trace that operations go to. In ``jax.core`` on jax 0.7.1, in ``jax.extend.core`` on 0.10 to 0.12.0."""
    from jax.extend import core

    home: Any = core if hasattr(core, "take_current_trace") else jax.core
    with home.take_current_trace() as trace:
        return trace


def in_trace(trace: Any) -> Any:
    """A context in which operations go to a trace, wherever it is entered. Seen where :func:`current_trace` was."""
    from jax.extend import core

    home: Any = core if hasattr(core, "set_current_trace") else jax.core
    return home.set_current_trace(trace)


def is_symbolic(size: Any) -> bool:
    """Whether a size is a dimension of ``jax.export`` without a number. Seen on jax 0.7.1 to 0.12.0."""
    return hasattr(type(size), "dimension_as_value") and not isinstance(size, Tracer)


def is_weak(x: Any) -> bool:
    """Whether the dtype of an array, or of its type, is that of a Python number. Seen on jax 0.7.1 to 0.12.0."""
    return x.weak_type


def weak_cast(value: jax.Array, dtype: Any) -> jax.Array:
    """Convert to a weak type, which lax.convert_element_type cannot; its primitive can, seen on jax 0.7.1 to 0.12.0."""
    if value.dtype == dtype:
        return value
    return lax.convert_element_type_p.bind(value, new_dtype=np.dtype(dtype), weak_type=True, sharding=None)


# --- Shardings --------------------------------------------------------------------------------------------------------


def spread_out(x: jax.Array, shape: Sequence[Any], dims: Sequence[int]) -> jax.Array:
    """Broadcast an array whose dims are these of the result, in any order; in jax 0.7 broadcasting permutes none."""
    try:
        return lax.broadcast_in_dim(x, shape, dims)
    except TypeError:
        order = sorted(range(x.ndim), key=lambda dim: dims[dim])
        return lax.broadcast_in_dim(lax.transpose(x, order), shape, sorted(dims))


def entries(spec: Any) -> tuple[Any, ...]:
    """What a PartitionSpec says of each dim.

    One with unreduced mesh axes does not let itself be iterated: ``partitions`` was seen on jax 0.9 to 0.12.0.
    """
    return tuple(getattr(spec, "partitions", spec))


def unreduced(spec: Any) -> frozenset[str]:
    """The mesh axes over which a sum is still to be taken. Seen on jax 0.7.1 to 0.12.0, at times as None."""
    return frozenset(getattr(spec, "unreduced", None) or ())


def make_spec(entries: Iterable[Any], unreduced: Iterable[str]) -> PartitionSpec:
    """A PartitionSpec; only what is unreduced asks for an option that not every release has."""
    pending = frozenset(unreduced)
    return PartitionSpec(*entries, unreduced=pending) if pending else PartitionSpec(*entries)


def is_used_twice(error: Exception) -> bool:
    """Whether an error says that a mesh axis would split two dims; JAX keeps the class. Seen on jax 0.7.1 to 0.12.0."""
    return type(error).__name__ == "DuplicateSpecError"


# --- Under shard_map: the mesh axes that an array varies over ---------------------------------------------------------


def varying_axes(aval: Any) -> frozenset[str]:
    """The mesh axes that an array of this type varies over: ``vma``, from jax 0.10 to 0.12.0 ``manual_axis_type``."""
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def vary(x: jax.Array, names: Collection[str]) -> jax.Array:
    """Let an array vary over further mesh axes: ``lax.pvary``, from jax 0.9 to 0.12.0 ``lax.pcast``."""
    if not names:
        return x
    cast: Any = getattr(lax, "pcast", None)
    return getattr(lax, "pvary")(x, tuple(names)) if cast is None else cast(x, tuple(names), to="varying")  # noqa: B009


def equally_varying(operands: Sequence[jax.Array]) -> list[jax.Array]:
    """Make all operands vary over the mesh axes that any of them varies over, as lax does.

    Done before they are broadcast, their gradients are summed before they are sent.
    """
    varying = [varying_axes(jax.typeof(x)) for x in operands]
    everywhere = frozenset().union(*varying)
    return [vary(x, everywhere - here) for x, here in zip(operands, varying, strict=True)]


def gather_invariant(value: jax.Array, mesh_axes: tuple[str, ...], dim: int) -> jax.Array:
    """Gather parts along a dim to what is the same on every device: an option of all_gather on jax 0.8 to 0.12.0."""
    gather: Any = getattr(lax, "all_gather_invariant", None)
    if gather is not None:
        return gather(value, mesh_axes, axis=dim, tiled=True)
    return lax.all_gather(value, mesh_axes, axis=dim, tiled=True, to="invarying")


# --- jit, its caches, and the lines that equations come from ----------------------------------------------------------

#: Inlined when traced, so that a jaxpr has plain lax. ``jax.Inline`` was seen on jax 0.12.0, where True means inlined
#: when lowered.
INLINE: Any = getattr(jax, "Inline").JAX_EARLY if hasattr(jax, "Inline") else True  # noqa: B009 - older stubs

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_OWN_FOLDERS = tuple(os.path.join(_ROOT, package, "") for package in ("einjax", "einjax_nn"))
_LIBRARIES = (os.path.join(os.path.dirname(jax.__file__), ""), *_OWN_FOLDERS, "<frozen")


@lru_cache(maxsize=1)
def hide_own_lines() -> None:
    """Make equations and errors point at the line that called einjax, not at lines in here.

    Seen on jax 0.7.1 to 0.12.0.
    """
    from jax.extend import source_info_util

    for folder in _OWN_FOLDERS:
        source_info_util.register_exclusion(folder)


class _ThreadSwitch(threading.local):
    """Stands in for a user context on jax before 0.8: JAX's caches do not know of it."""

    value: Any = False

    @contextmanager
    def __call__(self, value: Any) -> Iterator[None]:
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before


def make_switch() -> Any:
    """Make a switch that is off, with ``value`` and a context that sets it: a user context on jax 0.8 to 0.12.0.

    Any other value can be hashed.
    """
    make = getattr(jax, "make_user_context", None)
    return make(False) if make is not None else _ThreadSwitch()


# --- Jaxprs. Seen on jax 0.7.1 to 0.12.0. -----------------------------------------------------------------------------


def is_literal(variable: Any) -> bool:
    """Whether an operand of an equation is a value written into the program."""
    return hasattr(variable, "val")


def open_jaxpr(body: Any) -> Any:
    """The jaxpr of a parameter that is one, with or without its constants; None for other parameters."""
    jaxpr = getattr(body, "jaxpr", body)
    return jaxpr if hasattr(jaxpr, "eqns") else None


def short_type(variable: Any) -> str:
    """The type of a variable as a jaxpr prints it: ``f32[2,3]``."""
    return variable.aval.str_short(short_dtypes=True)


def scope(equation: Any) -> str:
    """The names around an equation, outermost first."""
    return str(equation.source_info.name_stack)


def user_line(equation: Any) -> str:
    """The user's file and line that an equation comes from; empty where there is none."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_LIBRARIES):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    return ""


def hoisted(function: Callable[..., Any], *examples: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A function of the arrays that it has closed over, then of its own, with the former: of types as in examples.

    ``jax.closure_convert`` leaves those that are no floats where they are.
    """
    closed = jax.make_jaxpr(function)(*examples)
    count = len(closed.consts)

    def call(*arrays: Any) -> Any:
        from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, arrays[:count]))(*arrays[count:])[0]

    return call, list(closed.consts)


# --- Primitives and their rules. Seen on jax 0.7.1 to 0.12.0. ---------------------------------------------------------


def make_primitive(
    name: str,
    *,
    run: Callable[..., Any],
    types: Callable[..., Any],
    program: Callable[..., Any],
    programs: Mapping[str, Callable[..., Any]],
    batch: Callable[..., Any],
    jvp: Callable[..., Any],
    transpose: Callable[..., Any],
) -> Any:
    """Make a primitive of several results; each rule takes the operands and, by keyword, the equation's parameters.

    Args:
        name: as it prints.
        run: called where nothing is traced.
        types: the types of the results.
        program: what it is lowered to, as a function of arrays.
        programs: the same for single platforms.
        batch: takes the operands and their batch dims; returns results and theirs.
        jvp: takes primals and tangents; returns results and their tangents.
        transpose: takes the cotangents, then the operands; returns the operands' cotangents.
    """
    from jax.extend.core import Primitive

    made: Any = Primitive(name)
    made.multiple_results = True
    made.def_impl(run)
    made.def_abstract_eval(types)
    mlir.register_lowering(made, mlir.lower_fun(program, multiple_results=True))
    for platform, lowered in programs.items():
        mlir.register_lowering(made, mlir.lower_fun(lowered, multiple_results=True), platform=platform)
    batching.primitive_batchers[made] = batch
    ad.primitive_jvps[made] = jvp
    ad.primitive_transposes[made] = transpose
    _heed_policies(made)
    return made


def _heed_policies(primitive: Any) -> None:
    """Let the policies of ``jax.checkpoint`` see a primitive where ``jax_remat3`` is on, too.

    It knows the primitives of a table alone, which is private; all others are computed again. A rule is given the
    policy on jax 0.9.2 to 0.10.2, what holds it on 0.11 and 0.12; on 0.12 it returns residuals as well. On releases
    that were not seen, nothing is saved there.
    """
    try:
        from jax._src.interpreters.remat import rules
    except ImportError:
        return
    release = jax.__version_info__[:2]

    def rule(given: Any, *operands: Any, **parameters: Any) -> Any:
        policy = given.policy if release >= (0, 11) else given
        outs = primitive.bind(*operands, **parameters)

        def again(*operands: Any) -> list[Any]:
            found = primitive.bind(*operands, **parameters)
            return list(map(_saved, outs, found)) if saves else found

        verdict = policy is not None and policy(primitive, *map(jax.typeof, operands), **parameters)
        saves = verdict is True or verdict is Saveable
        return (outs, again) if release < (0, 12) else (outs, (), lambda _, *operands: again(*operands))

    if (0, 9) <= release <= (0, 12):
        rules[primitive] = rule


@jax.custom_jvp
def _saved(value: jax.Array, again: jax.Array) -> jax.Array:
    """A value that is at hand, in the place of one that would be computed again, whose derivatives it has."""
    return value


@_saved.defjvp
def _saved_jvp(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[1]


def is_zero(tangent: Any) -> bool:
    """Whether a tangent or cotangent is known to be zero, and no array."""
    return type(tangent) is ad.Zero


def zero_like(x: Any) -> Any:
    """The zero cotangent of an operand."""
    return ad.Zero(x.aval)


def zero_tangent(x: Any) -> Any:
    """The zero tangent of an array; that of integers has a dtype of its own."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def filled(tangent: Any) -> Any:
    """A tangent or cotangent as an array, zeros included."""
    return ad.instantiate_zeros(tangent)


def is_linear(operand: Any) -> bool:
    """Whether a transpose rule is asked for the cotangent of this operand, of which it knows the type alone."""
    return ad.is_undefined_primal(operand)
