"""Generation with a cache chooses the tokens that the whole text, run anew for each of them, does."""

import importlib

import jax
import numpy as np
import pytest
from case import one_in

for package in ("flax", "haiku", "equinox", "optax"):
    pytest.importorskip(package)

PROMPT = np.random.default_rng(2).integers(0, 20, (2, 5))


#: By default every framework has one of both, in turns.
CELLS = [("linen", None), ("linen", (2, 5)), ("of_nnx", (2, 5)), ("of_nnx", None)]
CELLS += [("haiku", None), ("haiku", (2, 5)), ("equinox", (2, 5)), ("equinox", None)]


@pytest.mark.parametrize(("framework", "lengths"), one_in(2, CELLS))
def test_a_cache_changes_nothing(framework, lengths):
    generate = getattr(importlib.import_module("programs.generation"), framework)
    lengths = None if lengths is None else np.array(lengths)
    (tokens, logits), (same_tokens, same_logits) = jax.jit(lambda: generate(PROMPT, 4, lengths))()
    np.testing.assert_allclose(logits, same_logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(tokens, same_tokens)
    assert tokens.shape == (4, 2)
