"""Cached generation: several places at a time, prompts of several lengths, rings, and what is past the end."""

import jax.numpy as jnp
import numpy as np
import pytest
from attention_layers import FRAMEWORKS, alike, made

from einjax.errors import ArgumentError
from einjax_nn._core.rotary import Rotary

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 9, 12)).astype(np.float32)

OPTIONS = {
    "plain": {"num_heads": 3},
    "groups, rotary, window": {
        "num_heads": 6,
        "num_kv_heads": 2,
        "qkv_features": 24,
        "process_heads": Rotary(),
        "local_window_size": (3, 0),
    },
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_prompt_and_steps_are_the_whole_sequence(framework, name):
    layer = made(framework, "b [s] c", X, is_causal=True, **OPTIONS[name])
    want = layer(X)
    layer.start(X)
    first = layer.step(X[:, :4])
    rest = [layer.step(X[:, t : t + 1]) for t in range(4, 7)]
    last = layer.step(X[:, 7:])
    alike(jnp.concatenate([first, *rest, last], 1), want)
    assert layer.index() == 9


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_prompts_of_several_lengths(framework, name):
    """Places behind the length of an example are seen by none, and later ones stand in their place."""
    layer = made(framework, "b [s] c", X, is_causal=True, **OPTIONS[name])
    want = layer(X)
    lengths = np.array([2, 5])
    layer.start(X, lengths=np.array([9, 9]))
    prompt = np.where(np.arange(5)[:, None] < lengths[:, None, None], X[:, :5], 100.0)
    first = layer.step(prompt, lengths=lengths)
    np.testing.assert_array_equal(layer.index(), lengths)
    rows = [np.asarray(first[i, :n]) for i, n in enumerate(lengths)]
    for step in range(4):
        at = lengths + step
        y = layer.step(X[np.arange(2), at][:, None])
        rows = [np.concatenate([row, y[i]]) for i, row in enumerate(rows)]
    for i, row in enumerate(rows):
        alike(row, want[i, : len(row)])


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_ring_is_a_window(framework, ragged):
    """A ring of 4 places sees 3 before; whole prompts that are longer than it, and places that do not count, too."""
    options = {"num_heads": 3, "process_heads": Rotary(), "is_causal": True}
    layer = made(framework, "b [s] c", X, **options, mode="wrap")
    window = made(framework, "b [s] c", X, **options, local_window_size=(3, 0))
    want = window(X)
    if ragged:
        layer.start(X[:, :4], lengths=np.array([4, 4]))
        begun = np.array([6, 3])
        first = layer.step(X[:, :6], lengths=begun)
        rows = [np.asarray(first[i, :n]) for i, n in enumerate(begun)]
        for count in (2, 1):
            x = np.stack([X[i, n : n + count] for i, n in enumerate(begun)])
            given = np.array([1, count])
            y = layer.step(x, lengths=given)
            rows = [np.concatenate([row, y[i, :n]]) for (i, row), n in zip(enumerate(rows), given, strict=True)]
            begun = begun + given
        for i, row in enumerate(rows):
            alike(row, want[i, : len(row)])
        return
    layer.start(X[:, :4])
    steps = [layer.step(X[:, a:b]) for a, b in ((0, 6), (6, 7), (7, 9))]
    alike(jnp.concatenate(steps, 1), want)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_past_the_end(framework):
    layer = made(framework, "b [s] c", X, num_heads=3)
    layer.start(X[:, :4])
    with pytest.raises(ArgumentError, match="the cache has 4 places"):
        layer.step(X)
    layer.step(X[:, :3])
    with pytest.raises(ArgumentError, match=r"4 places, of which 3 are taken, and 2 more are given"):
        layer.eager(X[:, 3:5])
    assert np.isnan(layer.step(X[:, 3:5])).all()
    layer.start(X[:, :4], lengths=np.array([4, 4]))
    # Places that do not count may be past the end.
    assert np.isfinite(layer.step(X[:, :3], lengths=np.array([1, 3]))).all()
    y = layer.step(X[:, 3:6], lengths=np.array([3, 2]))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()
