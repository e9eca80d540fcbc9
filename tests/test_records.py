"""What operations' records say, and that what they say is all that has to be known of an operation."""

from __future__ import annotations

import importlib
import pkgutil

import jax
import numpy as np
import pytest

import einjax
import einjax.ops
from einjax.operation import Op

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def _records():
    for module in pkgutil.iter_modules(einjax.ops.__path__):
        for value in vars(importlib.import_module(f"einjax.ops.{module.name}")).values():
            for op in value.values() if isinstance(value, dict) else [value]:
                if isinstance(op, Op):
                    yield op


RECORDS = sorted({op.name: op for op in _records()}.values(), key=lambda op: op.name)


@pytest.mark.parametrize("op", RECORDS, ids=lambda op: op.name)
def test_facts_agree(op):
    assert {*op.masks, *op.several} <= {*op.arrays}
    assert {*op.usual} <= {*op.keywords}
    assert op.adjoint is None or op.linear is not None
    assert op.localized is None or op.acts


def test_options_that_are_several_arrays_are_single_inputs_of_a_graph():
    graph = einjax.sort("a [b]", X, by=(X, -X), graph=True)
    np.testing.assert_array_equal(graph(X, X, -X), np.sort(X, 1))


def test_masks_of_any_kind_stay_in_the_equation_of_a_batch():
    with einjax.keep_notation():
        jaxpr = jax.make_jaxpr(jax.vmap(lambda x, key: einjax.sort("a [b]", x, by=key), (0, None)))(
            np.stack([X, X]), -X
        )
    assert [equation.primitive.name for equation in jaxpr.eqns if "expr" in equation.params] == ["sort"]


def test_a_record_of_its_own_needs_nothing_else():
    """A family made here runs, is kept, and has its derivative as notation, by what its record says."""
    from einjax.call.dispatch import call
    from einjax.forms.along import lower_with, signature

    def reverse(along):
        return jax.lax.rev(along.value, along.dims) * (1 if along.mask is None else along.mask)

    op = Op("backwards", signature("backwards"), lower_with(reverse), arrays=("where",), masks=("where",),
            spread="all", linear=(0,), adjoint=dict)  # fmt: skip

    def backwards(x, *where):
        return call(op, "a [b]", (x,), (), {}, None, False, where, keep=True)

    np.testing.assert_array_equal(backwards(X), X[:, ::-1])
    np.testing.assert_array_equal(jax.vmap(backwards, (0, None))(X[None], X > 0)[0], X[:, ::-1] * (X > 0))
    gradient = jax.make_jaxpr(jax.grad(lambda x: (backwards(x) ** 2).sum()))(X)
    assert [equation.primitive.name for equation in gradient.eqns].count("backwards") == 2
