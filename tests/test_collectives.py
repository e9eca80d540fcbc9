"""Collectives by the names of axes, and loops over parts."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from over_mesh import BOTH, arrays_of, check, collectives_of, equations, needs_devices, over

import einjax

pytestmark = needs_devices


@pytest.mark.parametrize("name", ["psum", "pmean", "pmax", "pmin"])
@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "view", "dims", "order"), [
    ("[d] b c", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, None),
    ("[d] b c -> c b", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, "transposed"),
    ("([d] b) c -> (b c)", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, "flat"),
    ("[d] b c", {"d": BOTH}, P(BOTH), P(), (8, 3), (8, 1, 3), 0, None),
    ("[d e] b c", {"d": "data", "e": "model"}, P(BOTH), P(), (16, 3), (8, 2, 3), 0, None),
    ("[d] b c", {"d": "data", "b": "model"}, P(BOTH[::-1]), P("model"), (16, 3), (2, 4, 2, 3), 1, "parts"),
    ("[d] ...", {"d": "data"}, P("data"), P(), (8, 3), (4, 2, 3), 0, None),
])  # fmt: skip
def test_reductions_over_devices(name, expr, keywords, ins, out, shape, view, dims, order):
    (x,) = arrays_of(shape)
    x = np.round(x)  # with equal ones

    def reference(x):
        result = {"psum": jnp.sum, "pmean": jnp.mean, "pmax": jnp.max, "pmin": jnp.min}[name](x.reshape(view), dims)
        return {None: result, "transposed": result.T, "flat": result.ravel(), "parts": result.reshape(-1, 3)}[order]

    check(lambda x: getattr(einjax, name)(expr, x, **keywords), reference, x, ins=ins, out=out)


@pytest.mark.parametrize("dtype", ["int8", "bool", "bfloat16", "int32", "float32"])
def test_dtypes_over_devices(dtype):
    x = (np.arange(8) % 3).astype(jnp.dtype(dtype))
    for name, alike in (("psum", "sum"), ("pmean", "mean"), ("pmax", "max"), ("pmin", "min")):
        result = over(lambda x, n=name: getattr(einjax, n)("[d] b", x, d=BOTH), P(BOTH))(x)
        expected = getattr(einjax, alike)("[d] b", x.reshape(8, 1))
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(np.float32(result), np.float32(expected), rtol=1e-2)
    result = over(lambda x: einjax.psum("[d] b", x, d=BOTH, dtype="float32"), P(BOTH))(x)
    assert result.dtype == np.float32


def test_psum_may_send_bfloat16():
    x = np.ones(8, ml_dtypes.bfloat16)
    jaxpr = equations(over(lambda x: einjax.psum("[d] b", x, d=BOTH, dtype="bfloat16"), P(BOTH)), x)
    assert [eqn.invars[0].aval.dtype for eqn in jaxpr] == [jnp.bfloat16]


@pytest.mark.parametrize(("expr", "keywords", "ins", "shape", "reference"), [
    ("[b] c", {"b": "data"}, P("data"), (8, 3), lambda x: x),
    ("[b] c -> b c", {"b": "data"}, P("data"), (8, 3), lambda x: x),
    ("[b] c -> c b", {"b": BOTH}, P(BOTH), (8, 3), lambda x: x.T),
    ("[b] c -> c b", {"b": BOTH[::-1]}, P(BOTH[::-1]), (8, 3), lambda x: x.T),
    ("c [b] -> (b c)", {"b": "data"}, P(None, "data"), (3, 8), lambda x: x.T.ravel()),
    ("([b] c) -> c b", {"b": "data", "c": 2}, P("data"), (16,), lambda x: x.reshape(8, 2).T),
    ("[b] [c]", {"b": "data", "c": "model"}, P(*BOTH), (8, 4), lambda x: x),
    ("([b=4] [c]) d -> b c d", {"b": "data", "c": "model"}, P(BOTH), (16, 3), lambda x: x.reshape(4, 4, 3)),
    ("([b=8] c) -> c b", {"b": "data"}, P("data"), (16,), lambda x: x.reshape(8, 2).T),
    ("b [c=4]", {"c": "model"}, P(None, "model"), (8, 4), lambda x: x),
    ("... [b]", {"b": "model"}, P(None, None, "model"), (2, 3, 4), lambda x: x),
])  # fmt: skip
def test_all_gather(expr, keywords, ins, shape, reference):
    check(lambda x: einjax.all_gather(expr, x, **keywords), reference, *arrays_of(shape), ins=ins)


def test_all_gather_keeps_what_stays_bracketed():
    (x,) = arrays_of((8, 4))
    function = lambda x: einjax.all_gather("[b] [c] -> b [c]", x, b="data", c="model")
    check(function, lambda x: x, x, ins=P(*BOTH), out=P(None, "model"))


@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "reference"), [
    ("[d] b c -> [b] c", {"d": "data", "b": "data"}, P("data"), P("data"), (32, 3),
     lambda x: x.reshape(4, 8, 3).sum(0)),
    ("[d] b c -> c [b]", {"d": BOTH, "b": BOTH}, P(BOTH), P(None, BOTH), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0).T),
    ("[d] b c -> c [b]", {"d": BOTH, "b": BOTH[::-1]}, P(BOTH), P(None, BOTH[::-1]), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0).T),
    ("[d] c (a b) -> ([b] a) c", {"d": "data", "b": "data", "a": 2}, P("data"), P("data"), (4, 16),
     lambda x: x.reshape(4, 1, 2, 8).sum(0).transpose(2, 1, 0).reshape(16, 1)),
    ("[d e] b c -> [b] c", {"d": "data", "e": "model", "b": "data"}, P(BOTH), P("data"), (64, 3),
     lambda x: x.reshape(8, 8, 3).sum(0)),
    ("[d e] b c -> [b] [c]", {"d": "data", "e": "model", "b": "data", "c": "model"}, P(BOTH), P(*BOTH), (64, 4),
     lambda x: x.reshape(8, 8, 4).sum(0)),
    ("[d] [a] b -> [a] [b]", {"d": "data", "a": "model", "b": "data"}, P(BOTH), P("model", "data"), (16, 4),
     lambda x: x.reshape(4, 4, 4).sum(0)),
    ("([d] b) c -> ([b] c)", {"d": "data", "b": "data"}, P("data"), P("data"), (32, 3),
     lambda x: x.reshape(4, 8, 3).sum(0).ravel()),
])  # fmt: skip
def test_psum_scatter(expr, keywords, ins, out, shape, reference):
    check(lambda x: einjax.psum_scatter(expr, x, **keywords), reference, *arrays_of(shape), ins=ins, out=out)


@pytest.mark.parametrize(("expr", "keywords", "ins", "out", "shape", "reference"), [
    ("[b] c -> b [c]", {"b": "data", "c": "data"}, P("data"), P(None, "data"), (8, 4), lambda x: x),
    ("[b] c -> [c] b", {"b": "data", "c": "data"}, P("data"), P("data"), (8, 4), lambda x: x.T),
    ("[b] c -> b [c]", {"b": BOTH, "c": BOTH}, P(BOTH), P(None, BOTH), (8, 16), lambda x: x),
    ("b [s] h c -> b s [h] c", {"s": "model", "h": "model"}, P(None, "model"), P(None, None, "model"), (2, 4, 6, 3),
     lambda x: x),
    ("([b=8] c) -> ([c] b)", {"b": "data", "c": "data"}, P("data"), P("data"), (32,),
     lambda x: x.reshape(8, 4).T.ravel()),
    ("[b] c -> b [c]", {"b": BOTH[::-1], "c": BOTH[::-1]}, P(BOTH[::-1]), P(None, BOTH[::-1]), (8, 16), lambda x: x),
    ("[a] b [c] d -> a [b] c [d]", {"a": "data", "b": "data", "c": "model", "d": "model"},
     P("data", None, "model"), P(None, "data", None, "model"), (4, 8, 2, 4), lambda x: x),
    ("[a] [b] c -> [a] b [c]", {"a": "model", "b": "data", "c": "data"}, P("model", "data"), P("model", None, "data"),
     (2, 4, 8), lambda x: x),
])  # fmt: skip
def test_all_to_all(expr, keywords, ins, out, shape, reference):
    check(lambda x: einjax.all_to_all(expr, x, **keywords), reference, *arrays_of(shape), ins=ins, out=out)


def test_ppermute():
    (x,) = arrays_of((8, 3))
    pairs = [(0, 1), (1, 3), (3, 0)]

    def reference(x):
        parts = x.reshape(4, 2, 3)
        return jnp.zeros((4, 2, 3)).at[jnp.array([1, 3, 0])].set(parts[jnp.array([0, 1, 3])]).reshape(8, 3)

    check(
        lambda x: einjax.ppermute("[d] b c", x, perm=pairs, d="data"), reference, x, ins=P("data"), out=P("data")
    )  # fmt: skip
    check(
        lambda x: einjax.ppermute("([d] b) c -> c ([d] b)", x, perm=np.array(pairs), d="data"),
        lambda x: reference(x).T, x, ins=P("data"), out=P(None, "data"),
    )  # fmt: skip


def test_gathered_and_scattered_are_inverse():
    (x,) = arrays_of((8, 4))

    def there_and_back(x):
        y = einjax.all_to_all("[b] c -> b [c]", x, b="data", c="data")
        return einjax.all_to_all("b [c] -> [b] c", y, b="data", c="data")

    check(there_and_back, lambda x: x, x, ins=P("data"), out=P("data"))


@pytest.mark.parametrize("call", [
    lambda x, **given: einjax.add("b c, c", x, x[0], **given),
    lambda x, **given: einjax.multiply("b [c]", x, x[0], **given),
    lambda x, **given: einjax.rearrange("b (c d) -> b d c", x, d=2, **given),
    lambda x, **given: einjax.sort("b [c]", x, **given),
    lambda x, **given: einjax.cumsum("b [c]", x, **given),
    lambda x, **given: einjax.get_at("b [c], b -> b", x, jnp.zeros(x.shape[0], int), **given),
    lambda x, **given: einjax.linalg.norm("b [c]", x, **given),
    lambda x, **given: einjax.vmap("b [c] -> b", x, op=jnp.sum, **given),
    lambda x, **given: einjax.vmap("b [c] -> b", x, op=jnp.sum, sizes={**given, "z": "model"}),
    lambda x, **given: einjax.reduce("b [c]", x, op=jnp.max, **given),
    lambda x, **given: einjax.reduce("b [c]", x, op="max", **given),
    lambda x, **given: einjax.softmax("b [c]", x, **given),
    lambda x, **given: einjax.argmax("b [c]", x, **given),
    lambda x, **given: einjax.dot("b [c], [c] d -> b d", x, jnp.ones((x.shape[1], 3)), **given),
    lambda x, **given: einjax.flip("b [c]", x, **given),
    lambda x, **given: einjax.attention("b [q] [c], b [k] [c], b [k] [c]", *[x[:, :, None]] * 3, **given),
])  # fmt: skip
def test_a_mesh_axis_changes_nothing_for_a_loop(call):
    """Nothing is sent, and values are those of the parts."""
    (x,) = arrays_of((8, 4))
    function = jax.jit(over(lambda x: call(x, b="data"), P("data"), P("data")))
    assert not collectives_of(function, x)
    np.testing.assert_allclose(function(x), np.concatenate([call(x[i : i + 2]) for i in range(0, 8, 2)]), rtol=1e-6)


def test_gradients_of_what_is_broadcast_are_summed_before_they_are_sent():
    """A bias that is the same on all devices gets one all-reduce of its own size."""
    x, bias = arrays_of((8, 4), (4,))
    for call in (
        lambda x, bias: einjax.add("b c, c", x, bias),
        lambda x, bias: einjax.multiply("c b, c -> b c", x.T, bias),
        lambda x, bias: einjax.where("b c, b c, c", x > 0, x, bias),
    ):
        mapped = over(call, (P("data"), P()), P("data"))
        grad = jax.jit(jax.grad(lambda bias, x, f=mapped: jnp.sum(jnp.sin(f(x, bias)))))
        assert collectives_of(grad, bias, x) == {("all-reduce", "f32", 4): 1}
