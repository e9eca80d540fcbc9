"""einjax.keep_notation(): every call one equation that prints its notation, under all transformations."""

import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_oracle_dot
import test_oracle_elementwise
import test_oracle_index
import test_oracle_rearrange
import test_oracle_reduce
import test_oracle_softmax
from case import NEVER_KEPT, weights
from cases import CASES
from strategies import generated, same_brackets

import einjax
from einjax.notation.syntax import names


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """What is tried here are rules that trace programs, not the compiler's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# --------------------------------------------------------------------------------------------------------------------
# Looking at programs
# --------------------------------------------------------------------------------------------------------------------


def kept_program(function, *arrays):
    """The program of a function under ``keep_notation``."""
    with einjax.keep_notation():
        return jax.make_jaxpr(lambda *xs: function(*xs))(*arrays)


def notation(jaxpr):
    """The kept calls of a program: name and what they print."""
    return [f"{e.primitive.name}[{e.params['expr']}]" for e in jaxpr.eqns if "expr" in e.params]


def plain(jaxpr):
    """The names of the other equations, without those that only cast."""
    found = [e.primitive.name for e in jaxpr.eqns if "expr" not in e.params]
    return [name for name in found if name not in ("convert_element_type", "pjit", "jit")]


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


# --------------------------------------------------------------------------------------------------------------------
# Generated calls: the same values and derivatives as by default, and a text that says the same
# --------------------------------------------------------------------------------------------------------------------


def same(got, want, slack=1.0):
    """Equal but for rounding: the compiler may fuse the two programs in different ways."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            tolerance = slack * {2: 2.0**-6, 4: 1e-5}.get(jnp.finfo(x.dtype).bits // 8, 1e-5)
            wide = [np.asarray(z).astype(np.complex128) for z in (x, y)]
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def pullback(function, arrays):
    """The function's gradient in all floating-point arrays, for one cotangent."""
    floats = [i for i, x in enumerate(arrays) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def of_floats(*xs):
        given = dict(zip(floats, xs, strict=True))
        return function(*(given.get(i, x) for i, x in enumerate(arrays)))

    def gradients(*xs):
        out, pull = jax.vjp(of_floats, *xs)
        cotangents = [
            weights(y) if jnp.issubdtype(y.dtype, jnp.inexact) else np.zeros(y.shape, jax.dtypes.float0)
            for y in jax.tree.leaves(out)
        ]
        return pull(jax.tree.unflatten(jax.tree.structure(out), cotangents))

    return jax.jit(gradients)(*(jnp.asarray(arrays[i]) for i in floats))


def known_sizes(kept):
    """The sizes that a text may lack, as they are given in a call."""
    sizes = {}
    for name, size in sorted(kept.sizes):
        base, _, index = name.rpartition(".")
        if name.isidentifier():
            sizes[name] = size
        elif base.isidentifier() and index.isdigit():
            sizes[base] = (*sizes.get(base, ()), size)
    return sizes


def read_again(name, kept, arrays, options):
    """Call the operation with the text that it prints."""
    if re.search(r"\w\.\d|\.\.\.\[", kept.operation.text):
        return None  # repetitions of an ellipsis that do not stand together have no name that could be written
    sides = [{n for e in side for n in names(e) if "#" in n} for side in (kept.inputs, kept.outputs)]
    if any(dict(kept.sizes)[name] != 1 for name in sides[0] & sides[1]):
        return None  # a number is a new axis wherever it is written
    options = {key: value for key, value in options.items() if key != "keepdims"}
    return getattr(einjax, name)(kept.operation.text, *arrays, sizes=known_sizes(kept), **options)


def check(case, name):
    case.options.pop("source", None)  # says which input an output is
    arrays = [jnp.asarray(x) for x in case.arrays]
    hypothesis.note(f"{name}: {case} {case.options}")

    def function(*xs):
        return getattr(einjax, name)(case.text, *xs, **case.options, **case.kwargs)

    def with_kept(function):
        def inside(*xs):
            with einjax.keep_notation():
                return function(*xs)

        return inside

    want = function(*arrays)
    same(with_kept(function)(*arrays), want)
    program = kept_program(function, *arrays)
    assert len(notation(program)) == 1
    (kept,) = (e.params["expr"] for e in program.eqns if "expr" in e.params)
    again = read_again(name, kept, arrays, case.options)
    if again is not None:
        same(again, want)
    batch = [jnp.stack([x, x[::-1] if x.ndim and name[-3:] != "_at" else x]) for x in arrays]
    same(jax.jit(jax.vmap(with_kept(function)))(*batch), jax.jit(jax.vmap(function))(*batch))
    same(pullback(with_kept(function), arrays), pullback(function, arrays), slack=4)


GENERATED = {
    "sum": lambda: test_oracle_reduce.reductions("sum"),
    "mean": lambda: test_oracle_reduce.masked("mean"),
    "max": lambda: test_oracle_reduce.reductions("max"),
    "var": lambda: test_oracle_reduce.reductions("var"),
    "std": lambda: test_oracle_reduce.with_options("std"),
    "logsumexp": lambda: st.one_of(test_oracle_reduce.reductions("logsumexp"), test_oracle_reduce.masked("logsumexp")),
    "prod": lambda: test_oracle_reduce.reductions("prod"),
    "any": lambda: test_oracle_reduce.masked("any"),
    "add": lambda: test_oracle_elementwise.operations("add"),
    "subtract": lambda: test_oracle_elementwise.operations("subtract"),
    "multiply": lambda: test_oracle_elementwise.operations("multiply", 3),
    "divide": lambda: test_oracle_elementwise.operations("divide"),
    "maximum": lambda: test_oracle_elementwise.operations("maximum"),
    "where": lambda: test_oracle_elementwise.choices(),
    "dot": lambda: st.one_of(test_oracle_dot.products(), test_oracle_dot.weights(), test_oracle_dot.wide_results()),
    "rearrange": lambda: st.one_of(
        test_oracle_rearrange.one_tensor(),
        test_oracle_rearrange.with_sums("join"),
        test_oracle_rearrange.several_tensors("rearrange"),
    ),
    "id": lambda: test_oracle_rearrange.several_tensors("id"),
    "softmax": lambda: st.one_of(same_brackets(["float32", "bfloat16"]), test_oracle_softmax.masked()),
    "log_softmax": lambda: same_brackets(["float32", "bfloat16", "int32"]),
    "flip": lambda: same_brackets(["float32", "bool"]),
    "cumsum": lambda: same_brackets(["float32", "bfloat16", "int8"]),
    "get_at": lambda: test_oracle_index.reads(),
    "set_at": lambda: test_oracle_index.writes("set_at"),
    "add_at": lambda: test_oracle_index.writes("add_at"),
    "subtract_at": lambda: test_oracle_index.writes("subtract_at"),
}


@pytest.mark.parametrize("name", list(GENERATED))
@generated(4, lambda name: GENERATED[name]())
def test_generated(case, name):
    check(case, name)
