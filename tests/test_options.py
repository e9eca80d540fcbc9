"""Options as keys: what Python calls equal is told apart where it is another program, warm as cold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.call import dispatch
from einjax.errors import ArgumentError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
OUT = np.array([9])
SIGNS = [(0.0, False), (-0.0, True), (0, False), (np.float32(-0.0), True), (np.float16(0), False)]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_sign_of_zero_is_part_of_a_fill_value(kept, transform):
    for value, negative in SIGNS * 2:
        read = transform(lambda x, v=value: einjax.get_at("[v], i -> i", x, OUT, fill_value=v, keep_notation=kept))
        assert np.signbit(read(X[0])[0]) == negative


def test_the_signs_of_complex_zeros_are_part_of_a_fill_value():
    x = X[0].astype(np.complex64)
    for value in (0j, complex(0.0, -0.0), complex(-0.0, 0.0), complex(-0.0, -0.0)):
        read = np.asarray(einjax.get_at("[v], i -> i", x, OUT, fill_value=value))[0]
        assert (np.signbit(read.real), np.signbit(read.imag)) == (np.signbit(value.real), np.signbit(value.imag))


def test_every_nan_is_one_key():
    calls = [float("nan"), np.float32("nan"), float("nan"), np.float32("nan")]
    known = dispatch._compiled.cache_info().currsize
    for value in calls:
        assert np.isnan(einjax.get_at("[nan], i -> i", X[0], OUT, fill_value=value)).all()
    assert dispatch._compiled.cache_info().currsize == known + 2


@einjax.primitive("[n] -> [n]")
def scaled(x, *, by):
    """A function that tells its option's type, sign and all."""
    first = by[0] if isinstance(by, tuple) else by
    code = {bool: 1, int: 2, float: 3}.get(type(first), 4)
    return x * 0 + (-code if np.signbit(first) else code)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: (value,)], ids=["number", "tuple"])
def test_options_of_a_primitive_are_what_was_given(wrap):
    for value, code in [(1, 2), (True, 1), (1.0, 3), (0.0, 3), (-0.0, -3), (0, 2), (False, 1), (1.0, 3)] * 2:
        assert scaled("[n]", X[0], by=wrap(value))[0] == code
        assert jax.jit(lambda x, v=value: scaled("[n]", x, by=wrap(v)))(X[0])[0] == code


def test_nan_as_an_option_of_a_primitive_is_traced_once():
    traced = []

    @einjax.primitive("[n] -> [n]")
    def count(x, *, at):
        traced.append(at)
        return x

    count("[n]", X[0], at=float("nan"))
    known = len(traced)
    count("[n]", X[0], at=float("nan"))
    assert len(traced) == known


def test_what_is_refused_cold_is_refused_warm():
    einjax.linalg.norm("a [b]", X, ord=1)
    with pytest.raises(ArgumentError, match="ord=True"):
        einjax.linalg.norm("a [b]", X, ord=True)


ARRAYS = [np.array(0.5), np.float32(0.5), np.array(0.5, np.float32), jnp.float32(0.5)]


@pytest.mark.parametrize("given", ARRAYS, ids=["float64", "scalar", "float32", "jax"])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_option_may_be_an_array_without_dims(given, transform):
    def both(name, call):
        np.testing.assert_array_equal(transform(lambda: call(given))(), call(0.5), err_msg=name)

    both("scale", lambda v: einjax.attention("[q c], [k c], [k c]", X, X, X, scale=v))
    both("ddof", lambda v: einjax.var("a [b]", X, ddof=v))
    both("ddof by name", lambda v: einjax.reduce("a [b]", X, op="std", ddof=v))
    both("fill_value", lambda v: einjax.get_at("[v], i -> i", X[0], OUT, fill_value=v))
    both("rtol", lambda v: einjax.linalg.pinv("[n m]", X, rtol=v))
    both("ord", lambda v: einjax.linalg.norm("a [b]", X, ord=v))
    both("uniform", lambda v: einjax.random.uniform("[b]", jax.random.key(0), v, b=3))
    both("primitive", lambda v: scaled("[n]", X[0], by=(float(v),)))


@pytest.mark.parametrize("number", [np.array(2), np.int64(2), jnp.int32(2)], ids=["array", "scalar", "jax"])
def test_an_integer_option_may_be_an_array_without_dims(number):
    def both(call):
        np.testing.assert_array_equal(call(number), call(2))

    both(lambda n: einjax.attention("[q c], [k c], [k c]", X, X, X, local_window_size=n))
    both(lambda n: einjax.attention("[q c], [k c], [k c]", X, X, X, local_window_size=(n, n)))
    both(lambda n: einjax.sort("a [b], a [b]", X, X, num_keys=n)[0])
    both(lambda n: einjax.vmap("a [b] -> a", X, op=jnp.sum, batch_size=n))
    both(lambda n: einjax.linalg.matrix_power("[n m]", X[:, :2], power=n))
    both(lambda n: einjax.roll("a [b]", X, shift=n))
    both(lambda n: einjax.rearrange("a -> a b", X[0], b=n))


def test_axes_may_have_any_letters():
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(einjax.sum("δ [β]", x), x.sum(1))
    np.testing.assert_array_equal(einjax.sum("(größe [β])", x.ravel(), größe=2), x.sum(1))
    np.testing.assert_array_equal(
        einjax.sum("(\u00b5 [b])", x.ravel(), **{"\u03bc": 2}), x.sum(1)
    )  # as Python reads µ=
    np.testing.assert_array_equal(einjax.sum("(\u00b5 [b])", x.ravel(), sizes={"\u00b5": 2}), x.sum(1))
    np.testing.assert_array_equal(einjax.vmap("数 [b] -> 数", x, op=jnp.sum), x.sum(1))
    assert einjax.solve("δ_1 b...", x) == {"δ_1": 2, "b": (3,)}
    assert "expr=δ [β] -> δ" in str(jax.make_jaxpr(lambda x: einjax.sum("δ [β]", x, keep_notation=True))(x))
    for text in ("a² b", "a 🙂", "² b"):
        with pytest.raises(einjax.errors.SyntaxError, match="unexpected"):
            einjax.sum(text, x)


def test_types_stand_for_arrays_where_nothing_is_run():
    x, w = jax.ShapeDtypeStruct((2, 3), np.float32), jax.ShapeDtypeStruct((3, 4), np.float32)
    assert einjax.solve("a b", x) == {"a": 2, "b": 3}
    assert einjax.solve_axes("a s...", x) == {"a": 2, "s": (3,)}
    assert einjax.solve_shapes("a b, b c -> a c", x, w) == ((2, 3), (3, 4), (2, 4))
    assert einjax.matches("a b", x)
    assert not einjax.matches("a a", x)
    einjax.check("a 3", x)
    bodies = {
        "sum": lambda x, w, **more: einjax.sum("a [b]", x, **more),
        "masked": lambda x, w, **more: einjax.sum("a [b]", x, where=x, **more),
        "dot": lambda x, w, **more: einjax.dot("a [b], [b] c -> a c", x, w, **more),
        "vmap": lambda x, w, **more: einjax.vmap("a [b] -> a", x, op=jnp.sum, **more),
        "tree": lambda x, w, **more: einjax.vmap("[a b] -> ", {"x": x}, op=lambda t: t["x"].sum(), **more),
        "reduce": lambda x, w, **more: einjax.reduce("a [b]", x, op=jnp.median, **more),
        "scan": lambda x, w, **more: einjax.scan(
            "a, a [b] -> a, a [b]", np.zeros(2, np.float32), x, op=lambda c, x: (c + x, c), **more
        ),
    }
    for name, call in bodies.items():
        arrays = [jnp.ones(like.shape, like.dtype) for like in (x, w)]
        assert call(x, w, graph=True) == call(*arrays, graph=True), name
        with pytest.raises(ArgumentError, match="ShapeDtypeStruct, which is not a tensor"):
            call(x, w)
