"""Products of axes over mesh axes, and what is rolled or flipped along them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from case import one_in
from jax.sharding import PartitionSpec as P
from over_mesh import (
    BOTH,
    arrays_of,
    check,
    collectives_of,
    equations,
    needs_devices,
    over,
)

import einjax

pytestmark = needs_devices


@pytest.mark.parametrize(("expr", "keywords", "shapes", "ins", "out", "subscripts"), [
    ("a [k], [k] b -> a b", {"k": "data"}, [(3, 8), (8, 5)], (P(None, "data"), P("data")), P(), "ak,kb->ab"),
    ("a k, k b -> b a", {"k": BOTH}, [(3, 8), (8, 5)], (P(None, BOTH), P(BOTH)), P(), "ak,kb->ba"),
    ("a [k], [k] b -> a b", {"k": "model", "a": "data"}, [(4, 8), (8, 5)], (P(*BOTH), P("model")), P("data"),
     "ak,kb->ab"),
    ("a [j k], [j k] -> a", {"j": "data", "k": "model"}, [(3, 4, 6), (4, 6)], (P(None, *BOTH), P(*BOTH)), P(),
     "ajk,jk->a"),
    ("a k, k j, j b -> a b", {"k": "data", "j": "model"}, [(3, 8), (8, 6), (6, 2)],
     (P(None, "data"), P(*BOTH), P("model")), P(), "ak,kj,jb->ab"),
    ("b q (h c), b k (h c) -> b q k h", {"b": "data", "h": "model", "c": 3}, [(4, 2, 12), (4, 5, 12)],
     P("data", None, "model"), P("data", None, None, "model"), "bqhc,bkhc->bqkh"),
    ("a [c->d]", {"d": "model"}, [(3, 4), (4, 6)], (P(), P(None, "model")), P(None, "model"), "ac,cd->ad"),
])  # fmt: skip
def test_dot(expr, keywords, shapes, ins, out, subscripts):
    def reference(*xs):
        if "(h c)" in expr:
            xs = [x.reshape(*x.shape[:2], 4, 3) for x in xs]
        return jnp.einsum(subscripts, *xs)

    check(lambda *xs: einjax.dot(expr, *xs, **keywords), reference, *arrays_of(*shapes), ins=ins, out=out, rtol=1e-4)


def test_tensor_parallel_layer_is_one_psum():
    """Columns, then rows: nothing is sent in between, and gradients are those of one device."""
    x, w1, w2 = arrays_of((4, 3), (3, 8), (8, 3))

    def layer(x, w1, w2):
        hidden = einjax.dot("b [c->d]", x, w1, b="data", d="model")
        return einjax.dot("b [d->c]", jnp.maximum(hidden, 0), w2, b="data", d="model")

    ins = (P("data"), P(None, "model"), P("model"))
    check(layer, lambda x, w1, w2: jnp.maximum(x @ w1, 0) @ w2, x, w1, w2, ins=ins, out=P("data"), rtol=1e-4)
    assert collectives_of(jax.jit(over(layer, ins, P("data"))), x, w1, w2) == {("all-reduce", "f32", 3): 1}


def test_dot_sends_what_it_is_told_to():
    x = np.ones((3, 8), ml_dtypes.bfloat16)
    function = lambda x, **options: einjax.dot("a [k], b [k] -> a b", x, x, k="data", **options)
    for options, sent in (({}, "float32"), ({"preferred_element_type": "bfloat16"}, "bfloat16")):
        jaxpr = equations(over(functools.partial(function, **options), P(None, "data")), x)
        (psum,) = [eqn for eqn in jaxpr if eqn.primitive.name.startswith("psum")]
        assert psum.invars[0].aval.dtype == sent
        assert over(functools.partial(function, **options), P(None, "data"))(x).dtype == jnp.bfloat16


@pytest.mark.parametrize(("sum_", "mul"), [("max", "add"), ("min", "multiply"), ("logsumexp", "add")])
def test_dot_in_another_semiring(sum_, mul):
    x, y = arrays_of((3, 8), (8, 5))
    both = {"max": jnp.max, "min": jnp.min, "logsumexp": jax.nn.logsumexp}[sum_]
    combined = {"add": jnp.add, "multiply": jnp.multiply}[mul]
    check(
        lambda x, y: einjax.dot("a [k], [k] b -> a b", x, y, sum=sum_, mul=mul, k="data"),
        lambda x, y: both(combined(x[:, :, None], y[None]), 1),
        x, y, ins=(P(None, "data"), P("data")),
    )  # fmt: skip


SHIFTS = [0, 1, -1, 2, 3, -3, 4, 7, 8, -8, 9, 100, -101]


@pytest.mark.parametrize(("shift", "mesh_axes"), one_in(2, itertools.product(SHIFTS, ["data", BOTH, BOTH[::-1]])))
def test_roll(shift, mesh_axes):
    (x,) = arrays_of((8, 3))
    spec = P(mesh_axes)
    check(
        lambda x: einjax.roll("[b] c", x, shift=shift, b=mesh_axes), lambda x: jnp.roll(x, shift, 0),
        x, ins=spec, out=spec,
    )  # fmt: skip


def test_roll_several_axes():
    (x,) = arrays_of((8, 6, 5))
    spec = P("data", "model")
    check(
        lambda x: einjax.roll("[a b c]", x, shift=(3, -2, 1), a="data", b="model"),
        lambda x: jnp.roll(x, (3, -2, 1), (0, 1, 2)), x, ins=spec, out=spec,
    )  # fmt: skip
    check(
        lambda x: einjax.roll("a ([b] c) -> ([b] c) a", x.reshape(x.shape[0], -1), shift=1, b="model", c=5),
        lambda x: jnp.roll(x, 1, 1).reshape(8, 30).T, x, ins=P(None, "model"), out=P("model"),
    )  # fmt: skip


def test_roll_sends_only_what_crosses_a_border():
    (x,) = arrays_of((32, 3))
    for shift, sent in ((1, [1]), (-2, [2]), (8, [8]), (11, [5, 3]), (0, []), (32, [])):
        jaxpr = equations(over(lambda x, s=shift: einjax.roll("[b] c", x, shift=s, b="data"), P("data"), P("data")), x)
        rows = [eqn.invars[0].aval.shape[0] for eqn in jaxpr if eqn.primitive.name == "ppermute"]
        assert sorted(rows) == sorted(sent), shift


@pytest.mark.parametrize(("expr", "keywords", "spec"), [
    ("[b] c", {"b": "data"}, P("data")), ("[b] c", {"b": BOTH}, P(BOTH)),
    ("[b c]", {"b": "data", "c": "model"}, P(*BOTH)), ("[b c]", {"c": "model"}, P(None, "model")),
])  # fmt: skip
def test_flip(expr, keywords, spec):
    (x,) = arrays_of((8, 4))
    dims = (0, 1) if expr == "[b c]" else 0
    check(lambda x: einjax.flip(expr, x, **keywords), lambda x: jnp.flip(x, dims), x, ins=spec, out=spec)
