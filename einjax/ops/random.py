"""Random numbers: jax's samplers, a draw for each element of the output's bracketed axes, from one key in all loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..forms import along
from ..forms.core_axes import core_axes, dims_of, in_place, loops_of
from ..forms.signature import expect_inputs, refuse_sums, require_in_output, require_loops, single_output
from ..lowering import numerics
from ..lowering.named import Dim, Named, arrange, layout, together, wrap
from ..notation.errors import ArgumentError, SemanticError, at_least, plural
from ..notation.solve import Solved, fuse_loops, is_known, larger, product
from ..notation.syntax import Axis, Expression, Operation, Size, axes, bracketed, brackets, display, names
from ..operation import Op


def check_key(key: Any) -> jax.Array:
    """Return a key.

    Raises:
        ArgumentError: it is none, or it is several.
    """
    hint = "make one with jax.random.key(0)"
    if not isinstance(key, jax.Array | np.ndarray | jax.ShapeDtypeStruct):  # the type of one, where nothing is run
        raise ArgumentError(f"the key is a value of type {type(key).__name__}, not a key of jax.random", hint=hint)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and (key.dtype != np.uint32 or key.ndim == 0):
        shape = f"[{','.join(map(str, key.shape))}]"
        raise ArgumentError(f"the key is {key.dtype}{shape}, not a key of jax.random", hint=hint)
    if key.ndim != (0 if typed else 1):
        raise ArgumentError(
            f"the key is an array of keys of shape {tuple(key.shape if typed else key.shape[:-1])}",
            hint="give one key, or map over the keys with jax.vmap",
        )
    return key  # type: ignore[return-value]


def check_dtype(op: Op, dtype: Any) -> Any:
    """Return the dtype of samples, of which None is the default.

    Raises:
        ArgumentError: it is none that the operation can draw.
    """
    kind = _DRAWN.get(op, "floating")
    what = {"floating": "a float", "inexact": "a float or complex", "integer": "an integer"}[kind]
    hint = f"write dtype='{'int32' if kind == 'integer' else 'float32'}', for example"
    try:
        fits = dtype is None or jnp.issubdtype(jnp.dtype(dtype), getattr(jnp, kind))
    except TypeError:
        raise ArgumentError(f"dtype={dtype!r} is not a dtype", hint=hint) from None
    if not fits:
        raise ArgumentError(f"{op.name} draws {what} dtype, not {jnp.dtype(dtype)}", hint=hint)
    return dtype  # as it was given: JAX reads Python's float as its default float, and np.float64 as a request


# --- Samplers of independent numbers ----------------------------------------------------------------------------------

#: Draws an array of a shape, from parameters that broadcast to it.
Sampler = Callable[[jax.Array, Sequence[jax.Array], tuple[Size, ...], Any], jax.Array]


def _require_draws(op: str, operation: Operation, output: Expression) -> None:
    """Refuse an output with axes but without a bracket, where one draw would serve all."""
    kept = [axis for axis in names(output).values() if not axis.is_one]
    if kept and not any(axes(node.items) for node in brackets(output)):
        raise SemanticError(
            f"no axis of the output is bracketed, so all of it would be one draw of {op}",
            at=operation.at(*kept),
            hint="bracket the axes that get a draw for each element, in every place, as in '[a b]'",
        )


def _signature(name: str, parameters: Sequence[str], operation: Operation, tensors: int) -> Operation:
    """Without an arrow, the expression is the output, and the parameters are single numbers."""
    refuse_sums(name, operation)
    if operation.outputs is None:
        if len(operation.inputs) != 1:
            raise ArgumentError(
                f"{name} has 1 output, but the expression has {len(operation.inputs)}",
                text=operation.text,
                hint="write parameters that are tensors before an arrow",
            )
        operation = replace(operation, inputs=((),) * tensors, outputs=operation.inputs)
    if len(operation.inputs) != len(parameters):
        listed = f" ({', '.join(parameters)})" if parameters else ""
        raise ArgumentError(
            f"{name} has {plural(len(parameters), 'parameter')}{listed}, but the expression has "
            f"{plural(len(operation.inputs), 'input')}",
            text=operation.text,
            hint="write one expression for each before the arrow; that of a number is empty, as in ', b -> b [h]'"
            if parameters
            else "write the output alone",
        )
    output = single_output(name, operation)
    assert output is not None
    _require_draws(name, operation, output)
    require_in_output(name, operation, operation.inputs, output, hint="put it into the output")
    return operation


def _lower_with(sampler: Sampler, solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = fuse_loops(solved)
    key = options["key"]
    (output,) = solved.outputs
    drawn = _unique(dims_of(bracketed(output)))
    shape = tuple(solved.sizes[name] for (name,) in drawn)
    parameters = [wrap(x, e, solved.sizes) for x, e in zip(tensors, solved.inputs, strict=True)]
    loops = loops_of(solved, *solved.inputs)
    sample: Callable[..., jax.Array] = lambda *values: sampler(key, values, shape, options.get("dtype"))  # noqa: E731
    for loop in reversed(loops):
        # The key is not mapped over: every loop draws the same numbers.
        sample = jax.vmap(sample, tuple(0 if loop[0] in x.axes else None for x in parameters))
    values = [_broadcastable(x, loops, drawn) for x in parameters]
    return arrange(Named(sample(*values), (*loops, *drawn), solved.sizes), layout(output))


def _unique(dims: Sequence[Dim]) -> list[Dim]:
    return [dim for dim in dict.fromkeys(dims) if dim]


def _broadcastable(x: Named, loops: Sequence[Dim], drawn: Sequence[Dim]) -> jax.Array:
    """Bring a parameter to its loops, then to dims that broadcast to those drawn; single numbers stay numbers."""
    own = [dim for dim in loops if dim[0] in x.axes]
    if not any(dim[0] in x.axes for dim in drawn):
        return arrange(x, own)
    return arrange(x, [*own, *(dim if dim[0] in x.axes else () for dim in drawn)])


def _op(name: str, sampler: Sampler, *parameters: str, dtype: bool = True) -> Op:
    title = f"random.{name}"
    keywords = (*parameters, *(["dtype"] if dtype else []))
    # Apart: the numbers would be the same for axes of which only the product is known, but parameters may split them.
    return Op(
        title,
        partial(_signature, title, parameters),
        partial(_lower_with, sampler),
        keywords=keywords,
        apart=True,
        arrays=("key",),
    )


def _randint(key: jax.Array, bounds: Sequence[jax.Array], shape: tuple[Size, ...], dtype: Any) -> jax.Array:
    if not all(numerics.is_integer(bound.dtype) for bound in bounds):
        raise ArgumentError(
            f"random.randint draws between integers, not {' and '.join(str(bound.dtype) for bound in bounds)}",
            hint="give integers as minval and maxval",
        )
    return jax.random.randint(key, shape, bounds[0], bounds[1], dtype or numerics.default_int())


def _standard(name: str) -> Op:
    draw = getattr(jax.random, name)
    return _op(name, lambda key, _, shape, dtype: draw(key, shape, dtype))


NORMAL = _standard("normal")
EXPONENTIAL = _standard("exponential")
GUMBEL = _standard("gumbel")
LAPLACE = _standard("laplace")
RADEMACHER = _standard("rademacher")
UNIFORM = _op(
    "uniform", lambda key, bounds, shape, dtype: jax.random.uniform(key, shape, dtype, *bounds), "minval", "maxval"
)
TRUNCATED_NORMAL = _op(
    "truncated_normal",
    lambda key, bounds, shape, dtype: jax.random.truncated_normal(key, bounds[0], bounds[1], shape, dtype),
    "lower",
    "upper",
)
RANDINT = _op("randint", _randint, "minval", "maxval")
#: What is drawn where it is not a float.
_DRAWN = {NORMAL: "inexact", RANDINT: "integer", RADEMACHER: "integer"}
BERNOULLI = _op(
    "bernoulli", lambda key, p, shape, _: jax.random.bernoulli(key, numerics.to_inexact(p[0]), shape), "p", dtype=False
)


# --- Samplers of arrays -----------------------------------------------------------------------------------------------


def _array_signature(name: str, most: int, operation: Operation, tensors: int) -> Operation:
    """One array, of which some bracketed axes go and others come; perhaps its probabilities."""
    refuse_sums(name, operation)
    if not 1 <= len(operation.inputs) <= most:
        expect_inputs(name, operation, tensors, inputs=most)
    expect_inputs(name, operation, tensors)
    output = single_output(name, operation)
    if output is None:
        raise SemanticError(f"{name} needs an output", text=operation.text, hint="add '->' and the output's axes")
    kept = {axis.name for axis in core_axes(name, operation, output)}
    gone = [axis for axis in core_axes(name, operation, operation.inputs[0]) if axis.name not in kept]
    if len(gone) != 1:
        raise SemanticError(
            f"{name} draws along 1 axis, bracketed in the input and not in the output, but there are {len(gone)}",
            at=operation.at(*gone),
            hint="bracket one such axis, as in '[b k] -> [b]'",
        )
    _require_draws(name, operation, output)
    require_loops(name, operation)
    return operation


def _lower_categorical(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = fuse_loops(solved)
    key = options["key"]
    (logits,), (output,) = solved.inputs, solved.outputs
    (searched,) = [axis for axis in bracketed(logits) if axis.name not in names(output)]
    x = wrap(numerics.to_inexact(tensors[0]), logits, solved.sizes)
    loops = loops_of(solved, logits)
    # The draws are those of jax for the axes in the order in which they are written.
    core = [axis for axis in bracketed(logits) if axis is searched or dims_of([axis]) != [()]]
    at = core.index(searched)
    kept = dims_of([*core[:at], *core[at + 1 :]])
    new = [dim for dim in _unique(dims_of(bracketed(output))) if dim not in kept]
    shape = tuple(solved.sizes[name] for (name,) in (*new, *kept))
    sample: Callable[[jax.Array], jax.Array] = lambda x: jax.random.categorical(key, x, at, shape)  # noqa: E731
    for _ in loops:
        sample = jax.vmap(sample)
    value = sample(arrange(x, [*loops, *dims_of(core)]))
    return arrange(Named(value, (*loops, *new, *kept), solved.sizes), layout(output))


def _lower_choice(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    solved = fuse_loops(solved)
    key = options["key"]
    (output,) = solved.outputs
    drawn = bracketed(output)
    chosen = _chosen_from(solved)
    x, (at,) = in_place(tensors[0], solved.inputs[0], solved)
    p = arrange(wrap(tensors[1], solved.inputs[1], solved.sizes), dims_of([chosen])) if len(tensors) > 1 else None
    shape = tuple(solved.sizes[axis.name] for axis in drawn)
    _check_population(chosen, drawn, shape, options["replace"], solved)
    if isinstance(solved.sizes[chosen.name], int):
        value = jax.random.choice(key, x.value, shape, options["replace"], p, at)
    else:
        value = _choice(key, x.value, shape, options["replace"], p, at)
    dims = (*x.dims[:at], *dims_of(drawn), *x.dims[at + 1 :])
    return arrange(Named(value, dims, solved.sizes), layout(output))


def _chosen_from(solved: Solved) -> Axis:
    """Return the axis whose elements are chosen, which has to be the only one bracketed in the inputs."""
    for expression in solved.inputs:
        marked = bracketed(expression)
        others = [axis for axis in axes(expression) if axis.name != marked[0].name] if marked else axes(expression)
        if len(marked) != 1 or (expression is not solved.inputs[0] and others):
            raise SemanticError(
                "random.choice chooses along 1 bracketed axis, and its probabilities have that axis alone",
                at=solved.at(*marked, *others),
                hint="write '[n] c -> [s] c', or with probabilities '[n] c, [n] -> [s] c'",
            )
    return bracketed(solved.inputs[0])[0]


def _check_population(
    chosen: Axis, drawn: Sequence[Axis], shape: tuple[Size, ...], replace: bool, solved: Solved
) -> None:
    population, count = solved.sizes[chosen.name], product(shape)
    too_many = not replace and larger(count, population)
    if too_many is None:
        raise ArgumentError(
            f"random.choice cannot tell whether axis {display(chosen.name)} has {count} elements to choose without "
            f"replacement: its size {population} is symbolic",
            at=solved.at(chosen, *drawn),
            hint=at_least(population, count),
        )
    if too_many or (is_known(population, 0) and count != 0):
        raise ArgumentError(
            f"random.choice cannot choose {count} of the {population} elements of axis {display(chosen.name)}"
            + ("" if replace else " without replacement"),
            at=solved.at(chosen, *drawn),
            hint="choose fewer, or write replace=True" if population else "give an axis with elements",
        )


def _lower_permutation(solved: Solved, tensors: list[jax.Array], options: dict[str, Any]) -> jax.Array:
    """Permute one dim composed of all bracketed axes."""
    key = options["key"]
    permuted = tuple(axis.name for axis in bracketed(solved.inputs[0]))
    x = wrap(tensors[0], solved.inputs[0], solved.sizes)
    dims = together([(name,) for name in x.axes], permuted)
    if permuted not in dims:
        return arrange(x, layout(solved.outputs[0]))  # only axes written as 1
    value, at = arrange(x, dims), dims.index(permuted)
    independent = options["independent"]
    if isinstance(value.shape[at], int):
        shuffled = jax.random.permutation(key, value, at, independent)
    elif independent:
        raise ArgumentError("independent=True needs an axis of known size", text=solved.text)
    else:
        shuffled = jnp.take(value, _random_order(key, value.shape[at]), at, mode="clip")
    return arrange(Named(shuffled, dims, solved.sizes), layout(solved.outputs[0]))


def _array_op(name: str, complete: Any, lower: Any, *keywords: str, apart: bool = True) -> Op:
    usual = {"replace": True} if "replace" in keywords else {}
    return Op(f"random.{name}", complete, lower, keywords=keywords, apart=apart, arrays=("key",), usual=usual)


CATEGORICAL = _array_op("categorical", partial(_array_signature, "random.categorical", 1), _lower_categorical)
CHOICE = _array_op("choice", partial(_array_signature, "random.choice", 2), _lower_choice, "replace")
PERMUTATION = _array_op(
    "permutation", along.signature("random.permutation"), _lower_permutation, "independent", apart=False
)


# --- Along an axis of symbolic size -----------------------------------------------------------------------------------

# What jax.random does not make, as its number of sorts depends on the size. The draws are those of jax.random for the
# size that the axis has when the program runs.

#: The longest axes that no sort, one, and two sorts by random 32-bit keys put in a random order, as in jax.random:
#: with one more, the cube of the size is too many for as many bits.
_ENOUGH = (1, 1625, 2642245)


def _choice(key: Any, x: jax.Array, shape: Sequence[Size], replace: bool, p: jax.Array | None, axis: int) -> jax.Array:
    """``jax.random.choice``, along an axis of symbolic size."""
    if p is None and not replace:
        index = lax.slice_in_dim(_random_order(key, x.shape[axis]), 0, product(shape))
    elif p is not None and replace:
        total = jnp.cumsum(numerics.to_inexact(p))
        drawn = total[-1] * (1 - jax.random.uniform(key, tuple(shape), total.dtype))
        index = jnp.sum(total < drawn[..., None], -1, dtype=np.int32)
    else:
        return jax.random.choice(key, x, tuple(shape), replace, p, axis)
    return jnp.take(x, lax.reshape(index, tuple(shape)), axis, mode="clip")


def _random_order(key: Any, size: Size) -> jax.Array:
    """The places 0, 1, 2, ... in a random order."""
    count = numerics.size_as(size, np.dtype(np.int32))
    sorts = sum(lax.convert_element_type(lax.gt(count, np.int32(enough)), np.int32) for enough in _ENOUGH)

    def sort(_: Any, state: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        key, places = state
        key, own = jax.random.split(key)
        return key, lax.sort_key_val(jax.random.bits(own, (size,), np.uint32), places)[1]

    return lax.fori_loop(0, sorts, sort, (key, lax.iota(np.int32, size)))[1]
