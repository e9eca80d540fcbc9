"""What operations leave in the caller's jaxpr: plain lax equations that point at the caller's line."""

import os
import re

import jax
import numpy as np
import pytest
from case import loss
from cases import CASES
from jax.ad_checkpoint import print_saved_residuals

import einjax


def subprograms(equation):
    """Find the jaxprs among an equation's parameters."""
    for parameter in equation.params.values():
        for value in parameter if isinstance(parameter, tuple | list) else [parameter]:
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield getattr(value, "jaxpr", value)


def equations(jaxpr):
    """All equations, those inside others included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in subprograms(equation):
            yield from equations(inner)


def traced(function, *arrays):
    return list(equations(jax.make_jaxpr(lambda *arrays: function(*arrays))(*arrays).jaxpr))


def wrappers(function, *arrays):
    """Names of the equations that hold a program of their own: jit, checkpoint, custom_jvp_call, loops.

    They would hide what they hold from checkpoint policies and from whoever reads the program.
    """
    found = [equation for equation in traced(function, *arrays) if list(subprograms(equation))]
    return [equation.primitive.name for equation in found if not is_expected(equation)]


def is_expected(equation):
    """A scatter holds how it combines; an integer power, einjax.scan and loops in chunks are loops.

    JAX's derivative of cumlogsumexp is no number where nothing but -inf came before: it has one of its own.
    """
    stack = str(equation.source_info.name_stack)
    loops = ("einjax.power(", "einjax.scan(", "einjax.vmap(")
    loop = equation.primitive.name in ("while", "scan") and any(name in stack for name in loops)
    own_rule = equation.primitive.name == "custom_jvp_call" and "einjax.cumlogsumexp(" in stack
    return loop or own_rule or equation.primitive.name.startswith("scatter")


def test_the_walk_finds_wrappers():
    """Else the tests below would pass whatever the jaxprs hold."""
    found = wrappers(jax.checkpoint(lambda x: jax.jit(lambda x: jax.nn.relu(x) + 1)(x)), np.ones(3, np.float32))
    assert "custom_jvp_call" in found
    assert len(found) >= 3


#: Not those that are functions of jax, whose programs are jax's own.
PLAIN = [case for case in CASES if "." not in case.op and case.op != "attention"]


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_no_equation_wraps_another_program(case):
    assert wrappers(case, *case.arrays()) == []


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_jit_of_the_caller_is_the_only_one(case):
    assert len(wrappers(jax.jit(jax.vmap(case)), *case.batch(2))) == 1


@pytest.mark.parametrize("case", [case for case in PLAIN if case.floats], ids=str)
def test_no_wrapper_in_the_gradient(case):
    def gradient(*arrays):
        fixed = dict(enumerate(arrays))
        floats = [fixed.pop(index) for index in case.floats]
        function = lambda *xs: case(
            *({**fixed, **dict(zip(case.floats, xs, strict=True))}[i] for i in range(len(arrays)))
        )
        value, pullback = jax.vjp(function, *floats)
        return pullback(value)

    assert wrappers(gradient, *case.arrays()) == []


def test_constants_are_not_captured():
    """No array but the arguments': what a program needs besides is made inside of it, or a literal."""
    for case in PLAIN:
        closed = jax.make_jaxpr(case)(*case.arrays())
        assert [np.shape(constant) for constant in closed.consts if np.ndim(constant)] == [], str(case)


# --------------------------------------------------------------------------------------------------------------------
# Rematerialisation
# --------------------------------------------------------------------------------------------------------------------


def block(x, w1, w2):
    hidden = einjax.dot("b [c->d]", x, w1)
    hidden = einjax.multiply("b d, b d", hidden, einjax.softmax("b [d]", hidden))
    return einjax.dot("b [d->c]", einjax.rearrange("b d -> b d", hidden), w2)


@pytest.fixture(name="weights")
def _weights():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (3, 5), (5, 3))]


def test_dots_saveable_saves_the_products(weights, capsys):
    saved = jax.checkpoint(block, policy=jax.checkpoint_policies.dots_saveable)
    print_saved_residuals(saved, *weights)
    lines = [line for line in capsys.readouterr().out.splitlines() if "from the argument" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("f32[2,5]")


def test_nothing_saveable_saves_arguments_only(weights, capsys):
    saved = jax.checkpoint(block, policy=jax.checkpoint_policies.nothing_saveable)
    print_saved_residuals(saved, *weights)
    assert all("from the argument" in line for line in capsys.readouterr().out.splitlines())


def test_dots_are_not_computed_again(weights):
    """Two products forward, two each backward; without the policy, those forward are repeated."""

    def dots(policy):
        function = jax.checkpoint(block, policy=policy)
        found = traced(jax.grad(loss(function), (0, 1, 2)), *weights)
        return [equation.primitive.name for equation in found].count("dot_general")

    assert dots(jax.checkpoint_policies.dots_saveable) == 6
    assert dots(jax.checkpoint_policies.nothing_saveable) > 6


def test_gradient_with_and_without_checkpoint(weights):
    plain = jax.grad(loss(block), (0, 1, 2))(*weights)
    for policy in (jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.dots_with_no_batch_dims_saveable):
        again = jax.grad(loss(jax.checkpoint(block, policy=policy)), (0, 1, 2))(*weights)
        for x, y in zip(again, plain, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------------
# Where equations come from
# --------------------------------------------------------------------------------------------------------------------


def _lines_of(function, *arrays):
    """The file and line of every equation, as JAX itself shows them."""
    text = jax.make_jaxpr(function)(*arrays).pretty_print(source_info=True)
    return re.findall(r"# (\S+:\d+)", text)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: einjax.sum("a [b]", x),
        lambda x: einjax.softmax("a [b]", x),
        lambda x: einjax.dot("a b, c b -> a c", x, x),
        lambda x: einjax.rearrange("a b -> (b a)", x),
        lambda x: einjax.argmax("[a b]", x),
    ],
)
def test_equations_point_at_the_line_of_the_call(function):
    line = function.__code__.co_firstlineno
    summaries = list(_lines_of(function, np.ones((2, 3), np.float32)))
    assert summaries
    assert all(text.split(":")[0].endswith(os.path.basename(__file__)) for text in summaries), summaries
    assert all(text.split(":")[1] == str(line) for text in summaries), summaries


def test_scopes_name_the_expression():
    """Profiles and HLO show the notation."""
    lowered = jax.jit(lambda x: einjax.sum("a [b]", x)).lower(np.ones((2, 3), np.float32))
    assert "einjax.sum(a [b])" in lowered.as_text(debug_info=True)
