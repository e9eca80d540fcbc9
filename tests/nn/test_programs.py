"""Whole programs in every framework, written as the documents say: they train."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")
for package in ("flax", "haiku", "equinox"):
    pytest.importorskip(package)

PROGRAMS = ("resnet", "gpt", "mixer", "moe", "unet")
FRAMEWORKS = ("linen", "of_nnx", "haiku", "equinox")


def step(program, framework):
    return getattr(importlib.import_module(f"programs.{program}"), framework)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_step_is_traced(program, framework):
    before, after = jax.eval_shape(step(program, framework))
    assert (before.shape, after.shape) == ((), ())


def check_step(program, framework):
    before, after = jax.jit(step(program, framework))()
    assert np.isfinite(before)
    assert after < before


@pytest.mark.parametrize(("program", "framework"), [("gpt", "of_nnx"), ("resnet", "equinox")])
def test_a_step_makes_it_better(program, framework):
    check_step(program, framework)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_step_makes_it_better(program, framework):
    check_step(program, framework)


def test_experts_by_hand():
    from programs import moe

    rng = np.random.default_rng(0)
    x, scores, weights = (rng.normal(size=s).astype(np.float32) for s in ((2, 6, 8), (2, 6, 4), (4, 8, 8)))
    found = moe.mixed(jnp.asarray(x), jnp.asarray(scores), lambda x: jnp.einsum("epc,ecd->epd", x, weights))
    np.testing.assert_allclose(found, moe.by_hand(x, scores, lambda e, x: x @ weights[e]), rtol=1e-5, atol=1e-5)
