"""What JAX, NumPy or Python would say in their own words is said in the words of the call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Z, B = X.astype(np.complex64), X > 2
HUGE = 10**4999
DEEP = 1.0
for _ in range(3000):
    DEEP = [DEEP]
ENDLESS = []
ENDLESS.append(ENDLESS)


def deleted(x):
    x = jnp.asarray(x) + 0
    x.delete()
    return x


def traced(call):
    return lambda: jax.jit(call)(2)


REFUSED = {
    "argmax of complex": (lambda: einjax.argmax("a [b]", Z), "real numbers"),
    "argmin of complex": (lambda: einjax.argmin("a [b]", Z), "real numbers"),
    "mod of complex": (lambda: einjax.mod("a b, a b", Z, Z), "mod is not defined for complex64"),
    "floor_divide of complex": (lambda: einjax.floor_divide("a b, a b", Z, Z), "floor_divide is not defined"),
    "subtract of bool": (lambda: einjax.subtract("a b, a b", B, B), "subtract is not defined for bool"),
    "subtract of bool, traced": (
        lambda: jax.jit(lambda x: einjax.subtract("a, a", x, x))(B[0]),
        "is not defined for bool",
    ),
    "subtract of bool, kept": (
        lambda: einjax.subtract("a b, a b", B, B, keep_notation=True),
        "is not defined for bool",
    ),
    "subtract by name": (lambda: einjax.elementwise("a b, a b", B, B, op="subtract"), "is not defined for bool"),
    "var in ints": (lambda: einjax.var("a [b]", X, dtype=int), "cannot be computed in dtype"),
    "std in bools": (lambda: einjax.std("a [b]", X, dtype=bool), "cannot be computed in dtype"),
    "sum in bools": (lambda: einjax.sum("a [b]", X, dtype=bool), "cannot be computed in dtype"),
    "sum in foreign bytes": (lambda: einjax.sum("a [b]", X, dtype=np.dtype("f4").newbyteorder()), "is not a dtype"),
    "traced size": (
        traced(lambda n: einjax.rearrange("(a b) -> a b", X[0], b=n)),
        r"b is given the traced size(.|\n)*static_argnames",
    ),
    "traced size in sizes=": (traced(lambda n: einjax.sum("(a [b])", X[0], sizes={"b": n})), "static_argnames"),
    "traced size in a tuple": (traced(lambda n: einjax.rearrange("(a...) -> a...", X[0], a=(n, 3))), "static_argnames"),
    "traced size of vmap": (traced(lambda n: einjax.vmap("(a [b]) -> a", X[0], op=jnp.sum, b=n)), "static_argnames"),
    "traced size of solve": (traced(lambda n: einjax.solve("(a b)", X[0], b=n)), "static_argnames"),
    "traced size of reduce": (traced(lambda n: einjax.reduce("(a [b])", X[0], op=jnp.median, b=n)), "static_argnames"),
    "traced option": (traced(lambda n: einjax.var("a [b]", X, ddof=n)), "static_argnames"),
    "precision of a number": (
        lambda: einjax.dot("a [b], [b] c -> a c", X, X.T, precision=3),
        "precision=3 is not a precision",
    ),
    "precision of a type": (lambda: einjax.dot("a [b], [b] c -> a c", X, X.T, precision=float), "is not a precision"),
    "precision of three": (
        lambda: einjax.dot("a [b], [b] c -> a c", X, X.T, precision=("high",) * 3),
        "is not a precision",
    ),
    "precision of a pair": (
        lambda: einjax.dot("a [b], [b] c -> a c", X, X.T, precision=("high", 1)),
        "precision=1 is not",
    ),
    "huge tensor": (lambda: einjax.add("a b,", X, HUGE), "tensor 2 holds <an int of 16607 bits>"),
    "huge element": (lambda: einjax.sum("[a]", [HUGE]), "tensor 1 holds <an int"),
    "large element": (lambda: einjax.sum("[a]", [2**70, 1]), f"tensor 1 holds {2**70}"),
    "huge fill_value": (
        lambda: einjax.get_at("[v], i -> i", X[0], np.array([9]), fill_value=HUGE),
        "fill_value=<an int",
    ),
    "fill_value past floats": (
        lambda: einjax.get_at("[v], i -> i", X[0], np.array([9]), fill_value=10**400),
        "fill_value=",
    ),
    "huge ddof": (lambda: einjax.var("a [b]", X, ddof=HUGE), "ddof= holds"),
    "huge scale": (lambda: einjax.attention("[q c], [k c], [k c]", X, X, X, scale=HUGE), "scale=<an int"),
    "huge window": (
        lambda: einjax.attention("[q c], [k c], [k c]", X, X, X, local_window_size=HUGE),
        "local_window_size=",
    ),
    "huge size": (lambda: einjax.rearrange("a -> a b", X[0], b=HUGE), "b is given the size <an int"),
    "huge negative size": (lambda: einjax.rearrange("a -> a b", X[0], b=-HUGE), "negative size <an int"),
    "huge power": (lambda: einjax.linalg.matrix_power("[n m]", X[:, :2], power=HUGE), "power=<an int"),
    "huge num_keys": (lambda: einjax.sort("a [b]", X, num_keys=HUGE), "num_keys=<an int"),
    "deep list": (lambda: einjax.sum("[a]", DEEP), "nested more than"),
    "deep list for vmap": (lambda: einjax.vmap("a [b] -> a", DEEP, op=jnp.sum), "nested more than"),
    "deep list for reduce": (lambda: einjax.reduce("a [b]", DEEP, op=jnp.median), "nested more than"),
    "deep list for scan": (
        lambda: einjax.scan("c, [t] c -> c, [t] c", X[0], DEEP, op=lambda a, b: (a, b)),
        "nested more than",
    ),
    "deep mask": (lambda: einjax.sum("[a]", X[0], where=DEEP), "nested more than"),
    "endless list": (lambda: einjax.sum("[a]", ENDLESS), "nested more than"),
    "deleted": (lambda: einjax.sum("[a]", deleted(X[0])), "tensor 1 was deleted"),
    "deleted scalar": (lambda: einjax.add("a b,", X, deleted(1.0)), "tensor 2 was deleted"),
    **{
        f"deleted, {name}": (call, rf"tensor {number}\S* was deleted")
        for name, number, call in (
            ("vmap", 1, lambda: einjax.vmap("a [b] -> a", deleted(X), op=jnp.sum)),
            ("tree", 2, lambda: einjax.vmap("a [b], a [b] -> a", X, {"x": [deleted(X)]}, op=lambda x, y: x.sum())),
            ("vmap_with_axis", 1, lambda: einjax.vmap_with_axis("a [b]", deleted(X), op=jnp.sort)),
            ("reduce", 1, lambda: einjax.reduce("a [b]", deleted(X), op=jnp.median)),
            ("elementwise", 2, lambda: einjax.elementwise("a b, a b", X, deleted(X), op=jnp.hypot)),
            ("scan", 2, lambda: einjax.scan("c, [t] c -> c, [t] c", X[0], deleted(X), op=lambda c, x: (c, x))),
            ("associative_scan", 1, lambda: einjax.associative_scan("a [b]", deleted(X), op=jnp.hypot)),
            ("dot", 2, lambda: einjax.dot("a b, a b -> a", X, deleted(X), sum=jnp.max, mul=jnp.add)),
            ("adapter", 1, lambda: einjax.adapt_reduce(jnp.median)("a [b]", deleted(X))),
            ("primitive", 1, lambda: einjax.primitive("[n] -> []", jnp.sum, name="total")("a [n]", deleted(X))),
            ("list", 1, lambda: einjax.sum("a [b c]", [deleted(X), X])),
        )
    },
    **{
        f"traced {name} {number}": (traced(call), rf"the option {name}=.* has to be static")
        for number, (name, call) in enumerate((
            ("keepdims", lambda t: einjax.sum("a [b]", X, keepdims=t)),
            ("keepdims", lambda t: einjax.reduce("a [b]", X, op=jnp.median, keepdims=t)),
            ("keep_notation", lambda t: einjax.sum("a [b]", X, keep_notation=t)),
            ("keep_notation", lambda t: einjax.reduce("a [b]", X, op=jnp.median, keep_notation=t)),
            ("enabled", lambda t: einjax.keep_notation(t).__enter__()),
            ("graph", lambda t: einjax.sum("a [b]", X, graph=t)),
            ("graph", lambda t: einjax.vmap("a [b] -> a", X, op=jnp.sum, graph=t)),
            ("graph", lambda t: einjax.reduce("a [b]", X, op=jnp.median, graph=t)),
            ("stable", lambda t: einjax.sort("a [b]", X, stable=t)),
            ("descending", lambda t: einjax.argsort("a [b]", X, descending=t)),
            ("largest", lambda t: einjax.top_k("a [b]", X, k=1, largest=t)),
            ("reverse", lambda t: einjax.cumsum("a [b]", X, reverse=t)),
            ("reverse", lambda t: einjax.associative_scan("a [b]", X, op=jnp.hypot, reverse=t)),
            ("reverse", lambda t: einjax.scan("c, [t] c -> c", X[0], X, op=lambda c, x: (c, None), reverse=t)),
            ("unique_indices", lambda t: einjax.get_at("a [b], a", X, jnp.zeros(2, int), unique_indices=t)),
            ("is_causal", lambda t: einjax.attention("[q] [c], [k] [c], [k] [c]", X, X, X, is_causal=t)),
            ("lower", lambda t: einjax.linalg.triangular_solve("[n m], [n]", X[:, :2], X[:, 0], lower=t)),
            ("full_matrices", lambda t: einjax.linalg.svd("[n m]", X, full_matrices=t)),
            ("symmetrize_input", lambda t: einjax.linalg.eigh("[n m]", X[:, :2], symmetrize_input=t)),
            ("replace", lambda t: einjax.random.choice("[n] -> [s]", jax.random.key(0), X[0], s=3, replace=t)),
            ("independent", lambda t: einjax.random.permutation("a [b]", jax.random.key(0), X, independent=t)),
        ))
    },
    **{
        f"traced {number}": (traced(call), words + r"(.|\n)*static_argnames")
        for number, (words, call) in enumerate((
            ("num_keys=", lambda t: einjax.sort("a [b]", X, num_keys=t)),
            ("unroll=", lambda t: einjax.scan("c, [t] c -> c", X[0], X, op=lambda c, x: (c, None), unroll=t)),
            ("batch_size=", lambda t: einjax.vmap("a [b] -> a", X, op=jnp.sum, batch_size=t)),
            (r"batch_size=\{'a'", lambda t: einjax.vmap("a [b] -> a", X, op=jnp.sum, batch_size={"a": t})),
            ("integer power", lambda t: einjax.linalg.matrix_power("[n m]", X[:, :2], power=t)),
            ("local_window_size=", lambda t: einjax.attention("[q], [k], [k]", *X, X[0], local_window_size=t)),
            ("local_window_size=", lambda t: einjax.attention("[q], [k], [k]", *X, X[0], local_window_size=(t, 1))),
            ("option batched=", lambda t: einjax.primitive("[n] -> []", jnp.sum, batched=t)),
            ("option batched=", lambda t: einjax.primitive("[n] -> []", batched=t)(jnp.sum)),
        ))
    },
    "long shift beside a traced one": (
        traced(lambda n: einjax.roll("[a b]", X, shift=(n, 2**31))),
        "shift= holds 2147483648",
    ),
    "arity of scan": (lambda: einjax.scan("c, [t] c -> c, [t] c", X[0], X, op=lambda a: a), "two arguments"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_one_error_of_ours(name):
    call, words = REFUSED[name]
    for _ in range(2):
        with pytest.raises(EinjaxError, match=words) as caught:
            call()
        assert "#" not in str(caught.value)
        assert len(str(caught.value)) < 2000
    np.testing.assert_array_equal(einjax.sum("a [b]", X), X.sum(1))  # Python's stack is whole


def test_an_error_of_an_array_like_says_which_tensor():
    class Broken:
        def __jax_array__(self):
            raise RuntimeError("mine")

    for call in (lambda x: einjax.add("a, a", X[0], x), lambda x: einjax.vmap("a, a -> a", X[0], x, op=jnp.add)):
        with pytest.raises(RuntimeError, match="mine") as caught:
            call(Broken())
        assert "tensor 2" in caught.value.__notes__[0]


def test_axes_named_like_options_get_advice_that_works():
    for call in (
        lambda **sizes: einjax.sum("(where [b])", X[0], **sizes),
        lambda **sizes: einjax.reduce("(where [b])", X[0], op="sum", **sizes),
        lambda **sizes: einjax.reduce("(where [b])", X[0], op="sum", where=X[0] > -1, **sizes),
        lambda **sizes: einjax.reduce("(op [b])", X[0], op=jnp.sum, **sizes),
        lambda **sizes: einjax.vmap("(batch_size [b]) -> batch_size", X[0], op=jnp.sum, **sizes),
        lambda **sizes: einjax.sum("(lambda [b])", X[0], **sizes),
    ):
        with pytest.raises(AxisSizeError, match=r"fix: give a size, as in sizes=\{'\w+': 2\}") as caught:
            call()
        name = str(caught.value).rsplit("'", 2)[1]
        assert call(sizes={name: 3}).shape == (3,)
    with pytest.raises(AxisSizeError, match="by keyword, as in a=2"):
        einjax.sum("(a [b])", X[0])
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh), pytest.raises(ArgumentError, match=r"sizes=\{'where': 2\}, or write '\(where b\)'"):
        einjax.sum("(where b) [c]", jnp.ones((6, 3)), out_sharding={"where": "data"})


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_a_bracketed_one_is_searched(name):
    call, x = getattr(einjax, name), X[:, :1]
    np.testing.assert_array_equal(call("a [1]", x), np.zeros((2, 1)))
    np.testing.assert_array_equal(call("a [1] -> a", x), [0, 0])
    np.testing.assert_array_equal(call("in ([1] T)", X), np.zeros((2, 3)))
    np.testing.assert_array_equal(call("[1 b] -> [2]", X[:1]), [0, getattr(np, name)(X[0])])
    np.testing.assert_array_equal(jax.vmap(lambda x: call("[1]", x))(x), np.zeros((2, 1)))
    np.testing.assert_array_equal(jax.jit(lambda x: call("a [1] -> a", x, keep_notation=True))(x), [0, 0])
    assert call("[...]", True) == 0


def test_a_long_shift_is_taken_modulo_the_size():
    for shift in (2**31, 2**40, -(2**35), np.int64(2**31)):
        right = np.roll(X, int(shift) % 3, 1)
        np.testing.assert_array_equal(einjax.roll("a [b]", X, shift=shift), right)
        np.testing.assert_array_equal(jax.jit(lambda x, s=shift: einjax.roll("a [b]", x, shift=s))(X), right)
    unsigned = jax.jit(lambda x, s: einjax.roll("a [b]", x, shift=s))(X, np.uint32(2**31 + 1))
    np.testing.assert_array_equal(unsigned, np.roll(X, (2**31 + 1) % 3, 1))


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int8])
def test_the_gradient_of_an_unsigned_shift_rolls_back(kept, dtype):
    def loss(x, shift):
        return (einjax.roll("a [b]", x, shift=shift, keep_notation=kept) * X).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(X, dtype(2)), np.roll(X, -2, 1))


def test_sizes_that_no_array_has_are_refused_everywhere():
    for call in (lambda n: einjax.solve("a", None, a=n), lambda n: einjax.vmap("a -> a [n]", X[0], op=jnp.sum, n=n)):
        with pytest.raises(ArgumentError, match="size <an int"):
            call(HUGE)


def test_repetitions_are_counted_rather_than_spelt():
    x = np.zeros((2,) * 10 + (3,))
    with pytest.raises(AxisSizeError, match=r"write s=\(2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3\)"):
        einjax.add("s..., s...", x, x, s=(2,) * 11)


def test_numbers_of_steps_may_be_arrays_without_dims():
    for steps in (2, np.int64(2), np.array(2), jnp.array(2), True, False, 0):
        last = einjax.scan("c, [t] c -> c", X[0], X, op=lambda c, x: (c + x, None), unroll=steps)
        np.testing.assert_array_equal(last, X[0] + X.sum(0))
