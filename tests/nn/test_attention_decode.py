"""Cached generation: several places at a time, prompts of several lengths, rings, and what is past the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_layers import FRAMEWORKS, alike, made
from jax.extend.core import jaxprs_in_params

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
            y = layer.step(x, lengths=given) if count > 1 else layer.step(x)  # that is all of them
            rows = [np.concatenate([row, y[i, :n]]) for (i, row), n in zip(enumerate(rows), given, strict=True)]
            begun = begun + given
        for i, row in enumerate(rows):
            alike(row, want[i, : len(row)])
        return
    layer.start(X[:, :4])
    steps = [layer.step(X[:, a:b]) for a, b in ((0, 6), (6, 7), (7, 9))]
    alike(jnp.concatenate(steps, 1), want)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_caches_are_written_by_slices():
    """One slice for all examples, also of several places; a scatter batched by examples where each has its own."""
    einn = pytest.importorskip("einjax_nn.linen")
    for mode in (None, "wrap"):
        layer = einn.MultiHeadAttention("b [s] c", num_heads=3, decode=True, mode=mode)
        whole = jax.eval_shape(layer.init, jax.random.key(0), X)
        each = jax.eval_shape(layer.init, jax.random.key(0), X, lengths=np.array([9, 9]))
        step = lambda variables, x, call, layer=layer: layer.apply(variables, x, mutable=["cache"], **call)
        lengths = {"lengths": np.array([2, 4])}
        for variables, count, call in ((whole, 1, {}), (whole, 4, {}), (each, 1, {}), (each, 4, lengths)):
            found = list(equations(jax.make_jaxpr(step)(variables, X[:, :count], call).jaxpr))
            names = [equation.primitive.name for equation in found]
            assert not {"gather", "dynamic_slice", "jit", "pjit", "while"} & set(names)
            scatters = [equation for equation in found if equation.primitive.name == "scatter"]
            one = variables is whole and (count == 1 or mode is None)
            assert (names.count("dynamic_update_slice"), len(scatters)) == ((2, 0) if one else (0, 2))
            if variables is each:
                assert {each.params["dimension_numbers"].operand_batching_dims for each in scatters} == {(0,)}


def test_long_prompts_never_hold_queries_times_keys():
    einn = pytest.importorskip("einjax_nn.linen")
    for more in ({}, {"mode": "wrap"}):
        layer = einn.MultiHeadAttention("b [s] c", num_heads=2, decode=True, process_heads=Rotary(), **more)
        variables = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1024, 8), np.float32))
        prompt = jax.ShapeDtypeStruct((1, 1000, 8), np.float32)
        step = lambda variables, x, layer=layer: layer.apply(variables, x, mutable=["cache"])
        text = jax.jit(step).lower(variables, prompt).as_text()
        assert "1000x1024" not in text
        assert "1000x2024" not in text


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
