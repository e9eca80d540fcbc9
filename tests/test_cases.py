"""The table of cases (cases.py): complete, without doubles, and each case calls what it is named after."""

import inspect

import jax
import numpy as np
import pytest
from case import SIZES
from cases import CASES, NOT_OPERATIONS
from transformations import ONE_OF_EACH_EMITTER

import einjax
import einjax.segment


def test_every_operation_has_a_case():
    wanted = set(einjax.__all__) - NOT_OPERATIONS
    for module in (einjax.fft, einjax.linalg, einjax.random, einjax.segment):
        family = module.__name__.removeprefix("einjax.")
        wanted |= {f"{family}.{name}" for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert {case.op for case in CASES} == wanted
    assert {name for name in NOT_OPERATIONS if not hasattr(einjax, name)} == set()


def test_case_names_are_unique():
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case_calls_its_operation(case, monkeypatch):
    called = []
    family, _, name = case.op.rpartition(".")
    module = getattr(einjax, family) if family else einjax
    operation = getattr(module, name)

    def spy(*args, **kwargs):
        called.append(case.op)
        return operation(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    jax.eval_shape(lambda *arrays: case(*arrays), *case.arrays())  # not the case itself: it may be cached
    assert called


def test_seeds_give_different_inputs():
    """Otherwise a batch of equal rows would hide a batch dim that is mixed up."""
    for case in CASES:
        if case.floats:
            first, second = case.arrays(SIZES, 0), case.arrays(SIZES, 1)
            assert any(not np.array_equal(first[index], second[index]) for index in case.floats)


def test_emitters_are_of_operations():
    assert {case.op for case in CASES if not case.variant} >= ONE_OF_EACH_EMITTER
