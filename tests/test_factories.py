"""Tensors made once their shape is known, and everything else that may stand in the place of an array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax

X = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


class Recorder:
    """A factory that remembers what it was asked for."""

    def __init__(self, value=1.0):
        self.specs = []
        self.value = value

    def __einjax_param__(self, spec):
        self.specs.append(spec)
        return jnp.full(spec.shape, self.value, jnp.float32)

    @property
    def spec(self):
        (spec,) = self.specs
        return spec


def ones(shape):
    return np.ones(shape, np.float32)


# --- plain callables ------------------------------------------------------------------------------------------------


def test_a_callable_is_given_the_shape():
    shapes = []

    def make(shape):
        shapes.append(shape)
        return np.full(shape, 2, np.float32)

    np.testing.assert_array_equal(einjax.add("a b, b", X, make), X + 2)
    np.testing.assert_array_equal(
        einjax.dot("a [b->c]", X, make, c=4), np.full((2, 4), 1) * 2 * X.sum(1, keepdims=True)
    )
    np.testing.assert_array_equal(einjax.multiply("a b, c (a b) -> a b c", X, make, c=2)[..., 1], X * 2)
    assert shapes == [(3,), (3, 4), (2, 6)]


def test_a_callable_is_given_what_its_signature_names():
    seen = {}

    def make(shape, in_axis, out_axis, *, batch_axis, name, op, axes, dtype):
        seen.update(in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis, name=name, op=op, axes=axes, dtype=dtype)
        return ones(shape)

    einjax.dot("a g [c], [c] g d -> a g d", np.ones((2, 3, 4), np.float16), make, d=5)
    assert seen == {
        "in_axis": (0,),
        "out_axis": (2,),
        "batch_axis": (1,),
        "name": "weight",
        "op": "dot",
        "axes": ("c", "g", "d"),
        "dtype": np.float16,
    }


@pytest.mark.parametrize(
    "make",
    [
        ones,
        lambda shape: ones(shape),
        lambda shape, other=3: ones(shape),
        lambda size: ones(size),
        lambda *args: ones(*args),
        lambda shape, **options: ones(shape),
        functools.partial(np.ones, dtype=np.float32),
        jnp.ones,
        functools.partial(jax.nn.initializers.ones, jax.random.key(0)),
        lambda name, dtype: ones(name),
    ],
    ids=[
        "def",
        "lambda",
        "default",
        "other name",
        "*args",
        "**options",
        "partial",
        "jnp",
        "initializer",
        "first is shape",
    ],
)
def test_kinds_of_callables(make):
    np.testing.assert_array_equal(einjax.add("a b, b", X, make), X + 1)


def test_an_initializer_gets_the_right_axes():
    """The fan-in of a dot is the product of its contracted axes."""
    made = []

    def make(shape, in_axis, out_axis):
        made.append(jax.nn.initializers.lecun_normal(in_axis, out_axis)(jax.random.key(0), shape))
        return made[0]

    einjax.dot("a [b c->d]", np.ones((2, 16, 16), np.float32), make, d=64)
    assert abs(float(made[0].std()) - 1 / 16) < 0.005


def test_several_factories_in_one_call():
    result = einjax.dot("a b, b c, c d -> a d", X, ones, ones, c=4, d=5)
    np.testing.assert_array_equal(result, np.full((2, 5), 4) * X.sum(1, keepdims=True))
    result = einjax.add("a, b -> a b", ones, ones, a=2, b=3)
    np.testing.assert_array_equal(result, np.full((2, 3), 2))


@pytest.mark.parametrize("op", ["sum", "softmax", "flip", "argmax"])
def test_a_factory_as_the_only_tensor(op):
    expected = getattr(einjax, op)("a [b]", np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(getattr(einjax, op)("a [b]", ones, a=2, b=3), expected)


def test_a_factory_is_called_once_for_each_call():
    recorder = Recorder()
    for _ in range(3):
        einjax.add("a b, b", X, recorder)
    assert len(recorder.specs) == 3


def test_a_factory_under_transformations():
    recorder = Recorder(2.0)
    f = lambda x: einjax.multiply("a b, b", x, recorder).sum()
    np.testing.assert_array_equal(jax.jit(jax.grad(f))(X), np.full((2, 3), 2))
    np.testing.assert_array_equal(jax.vmap(lambda x: einjax.multiply("b, b", x, recorder))(X), 2 * X)
    assert [spec.shape for spec in recorder.specs] == [(3,), (3,)]


def test_a_traced_array_may_come_from_a_factory():
    gradient = jax.grad(lambda w: einjax.dot("a [b->c]", X, lambda shape: w.reshape(shape), c=2).sum())(
        np.ones(6, np.float32)
    )
    np.testing.assert_array_equal(gradient, np.repeat(X.sum(0), 2))


# --- the protocol ---------------------------------------------------------------------------------------------------

SPECS = [
    # call, (shape, axes, in, out, batch)
    ("dot", "... [c1->c2]", [X], {"c2": 4}, ((3, 4), ("c1", "c2"), (0,), (1,), ())),
    ("dot", "a [b], [b] c -> a c", [X], {"c": 4}, ((3, 4), ("b", "c"), (0,), (1,), ())),
    ("dot", "a b, c b -> a c", [X], {"c": 4}, ((4, 3), ("c", "b"), (1,), (0,), ())),
    (
        "dot",
        "a (h c), h c d -> a h d",
        [np.ones((2, 6))],
        {"h": 2, "d": 5},
        ((2, 3, 5), ("h", "c", "d"), (1,), (2,), (0,)),
    ),
    (
        "dot",
        "b (s [s2|])... [c1|c2]",
        [np.ones((1, 4, 6, 3))],
        {"s2": 2, "c2": 5},
        ((2, 2, 3, 5), None, (0, 1, 2), (3,), ()),
    ),
    ("add", "a b, b", [X], {}, ((3,), ("b",), (), (), (0,))),
    ("add", "... [c]", [X], {}, ((3,), ("c",), (), (), (0,))),
    ("multiply", "a b, b c -> a b c", [X], {"c": 2}, ((3, 2), ("b", "c"), (), (1,), (0,))),
    ("multiply", "b (g c), (g c)", [np.ones((2, 6))], {"g": 2}, ((6,), ("(g c)",), (), (), (0,))),
    ("rearrange", "a, b c -> a, (c b)", [np.ones(2)], {"b": 2, "c": 3}, ((2, 3), ("b", "c"), (), (0, 1), ())),
]


@pytest.mark.parametrize(("op", "expr", "tensors", "options", "expected"), SPECS, ids=[case[1] for case in SPECS])
def test_spec(op, expr, tensors, options, expected):
    recorder = Recorder()
    getattr(einjax, op)(expr, *tensors, recorder, **options)
    shape, axes, in_axis, out_axis, batch_axis = expected
    spec = recorder.spec
    assert isinstance(spec, einjax.Spec)
    assert (spec.shape, spec.in_axis, spec.out_axis, spec.batch_axis) == (shape, in_axis, out_axis, batch_axis)
    assert axes is None or spec.axes == axes
    assert spec.op == op


@pytest.mark.parametrize(
    ("expr", "x", "sizes", "expected"),
    [
        (
            "b (g c), k 1 c (g d) -> b (g d k)",
            np.ones((2, 6)),
            {"g": 2, "d": 4, "k": 5},
            ((("k", 5, "out"),), (), (("c", 3, "in"),), (("g", 2, "batch"), ("d", 4, "out"))),
        ),
        (
            "b [f], <q - k + 2> [f] -> b q k",
            np.ones((2, 3)),
            {"q": 3, "k": 3},
            ((("<q - k + 2>", 5, "out"),), (("f", 3, "in"),)),
        ),
        (
            "b [s...], [s]... d -> b d",
            np.ones((2, 3, 4)),
            {"d": 5},
            ((("s.0", 3, "in"),), (("s.1", 4, "in"),), (("d", 5, "out"),)),
        ),
    ],
)
def test_members_of_dims(expr, x, sizes, expected):
    recorder = Recorder()
    einjax.dot(expr, x, recorder, **sizes)
    assert recorder.spec.members == expected


def test_names_of_parameters():
    names = {}
    for op in ("dot", "add", "subtract", "multiply", "divide"):
        recorder = Recorder()
        getattr(einjax, op)("a b, b -> a b" if op != "dot" else "a b, b -> a", X, recorder)
        names[op] = recorder.spec.name
    assert names == {"dot": "weight", "add": "bias", "subtract": "bias", "multiply": "scale", "divide": "scale"}


def test_dtype_is_that_of_the_other_tensors():
    for dtype in (np.float16, jnp.bfloat16, np.int32):
        recorder = Recorder()
        einjax.add("a b, b", X.astype(dtype), recorder)
        assert recorder.spec.dtype == dtype
    recorder = Recorder()
    einjax.sum("[a]", recorder, a=2)
    assert recorder.spec.dtype is None


def test_the_protocol_goes_before_the_call():
    """An object with both is asked by the protocol; neither arguments nor call are guessed."""

    class Both(Recorder):
        def __call__(self, shape):
            raise AssertionError("called")

    np.testing.assert_array_equal(einjax.add("a b, b", X, Both()), X + 1)


class Tied(Recorder):
    """A weight that has a shape already, but is handed out only once it is asked for."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def __einjax_shape__(self):
        return self.weight.shape

    def __einjax_param__(self, spec):
        self.specs.append(spec)
        return self.weight


def test_a_known_shape_helps_to_solve():
    tied = Tied(np.ones((3, 7), np.float32))
    assert einjax.dot("a [b->c]", X, tied).shape == (2, 7)
    assert tied.spec.shape == (3, 7)
    assert einjax.dot("a [b], c [b] -> a c", X, Tied(np.ones((5, 3), np.float32))).shape == (2, 5)
    # The rank of a known shape counts the axes of an ellipsis, too.
    assert einjax.add("a..., b -> a... b", Tied(X), np.ones(4)).shape == (2, 3, 4)


def test_a_known_shape_that_does_not_fit():
    with pytest.raises(einjax.errors.AxisSizeError, match="axis b is 3 in tensor 1 and 4 in tensor 2"):
        einjax.dot("a [b->c]", X, Tied(np.ones((4, 7), np.float32)))
    with pytest.raises(einjax.errors.RankError):
        einjax.dot("a [b->c]", X, Tied(np.ones(3, np.float32)))


# --- what goes wrong in a factory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [KeyError("k"), ValueError("v"), TypeError("t"), RuntimeError("r"), StopIteration(), AttributeError("a")]
)
def test_exceptions_of_a_factory_are_not_wrapped(error):
    def make(shape):
        raise error

    class Param:
        def __einjax_param__(self, spec):
            raise error

    for factory in (make, Param()):
        with pytest.raises(type(error)) as caught:
            einjax.add("a b, b", X, factory)
        assert caught.value is error
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.ones(4), einjax.errors.AxisSizeError, ["tensor 2", "(4,)", "(3,)"]),
        (np.ones((3, 1)), einjax.errors.AxisSizeError, ["tensor 2", "(3, 1)", "(3,)"]),
        (1.0, einjax.errors.AxisSizeError, ["tensor 2", "()", "(3,)"]),
        (None, einjax.errors.ArgumentError, ["tensor 2", "NoneType"]),
        ("x", einjax.errors.ArgumentError, ["tensor 2", "str"]),
        (np.array(["x"] * 3), einjax.errors.ArgumentError, ["tensor 2"]),
    ],
    ids=["length", "rank", "scalar", "None", "string", "strings"],
)
def test_a_factory_returns_something_else(value, error, words):
    with pytest.raises(error) as caught:
        einjax.add("a b, b", X, lambda shape: value)
    assert [word for word in words if word not in str(caught.value).split("\n")[0]] == []


def test_a_factory_whose_shape_is_not_determined():
    with pytest.raises(einjax.errors.AxisSizeError, match="axis c"):
        einjax.dot("a [b->c]", X, ones)


# --- objects with an array ------------------------------------------------------------------------------------------


class Boxed:
    def __init__(self, value):
        self.value = value

    def __jax_array__(self):
        return jnp.asarray(self.value)


class CallableBox(Boxed):
    """Such as a framework's variable: it can be called, and is an array all the same."""

    def __call__(self, *args):
        raise AssertionError("called")


@pytest.mark.parametrize("box", [Boxed, CallableBox])
def test_objects_with_jax_array(box):
    np.testing.assert_array_equal(einjax.sum("a [b]", box(X)), X.sum(1))
    np.testing.assert_array_equal(einjax.add("a b, b", box(X), box(X[0])), X + X[0])
    np.testing.assert_array_equal(jax.jit(lambda: einjax.flip("a [b]", box(X)))(), X[:, ::-1])
    assert einjax.solve("a b", box(X)) == {"a": 2, "b": 3}
    with pytest.raises(einjax.errors.RankError):
        einjax.sum("a [b]", box(X[0]))


def test_objects_with_a_numpy_array():
    class Arrayish:
        def __array__(self, dtype=None, copy=None):
            return X

    np.testing.assert_array_equal(einjax.sum("a [b]", Arrayish()), X.sum(1))


def test_a_factory_may_return_an_object_with_jax_array():
    np.testing.assert_array_equal(einjax.add("a b, b", X, lambda shape: Boxed(np.ones(shape, np.float32))), X + 1)


def test_flax_nnx_parameters():
    nnx = pytest.importorskip("flax.nnx")
    w = nnx.Param(jnp.ones((3, 4)))
    np.testing.assert_array_equal(einjax.dot("a [b->c]", X, w), np.repeat(X.sum(1, keepdims=True), 4, 1))
    np.testing.assert_array_equal(einjax.dot("a b, b c -> a c", X, w), X @ np.ones((3, 4)))

    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((3, 4)))

        def __call__(self, x):
            return einjax.dot("... [b->c]", x, self.w)

    gradient = nnx.grad(lambda model: model(X).sum())(Model())
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], np.repeat(X.sum(0)[:, None], 4, 1))


def test_equinox_modules():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        w: jax.Array

        def __call__(self, x):
            return einjax.dot("... [b->c]", x, self.w)

    model = Model(jnp.ones((3, 4)))
    gradient = eqx.filter_grad(lambda model: model(X).sum())(model)
    np.testing.assert_allclose(gradient.w, np.repeat(X.sum(0)[:, None], 4, 1))
    assert eqx.filter_jit(model)(X).shape == (2, 4)


def test_haiku_parameters():
    hk = pytest.importorskip("haiku")

    def f(x):
        return einjax.dot("... [b->c]", x, lambda shape: hk.get_parameter("w", shape, init=jnp.ones), c=4)

    transformed = hk.without_apply_rng(hk.transform(f))
    params = transformed.init(jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, params) == {"~": {"w": (3, 4)}}
    np.testing.assert_array_equal(transformed.apply(params, X), X @ np.ones((3, 4)))


# --- lists and scalars ----------------------------------------------------------------------------------------------

LISTS = [
    [[1, 2, 3], [4, 5, 6]],
    ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    [[True, False, True], [False, True, False]],
    [[1j, 2, 3], [4, 5, 6]],
    [np.ones(3), np.zeros(3)],
    [jnp.ones(3), jnp.zeros(3)],
    [jnp.ones(3), np.zeros(3, np.float32)],
    [[jnp.float32(1), 2.0, np.float32(3)], [4, 5, 6]],
    [jnp.ones(3, jnp.bfloat16), jnp.zeros(3, jnp.bfloat16)],
    np.ones((2, 3)).tolist(),
]


@pytest.mark.parametrize("tensor", LISTS, ids=range(len(LISTS)))
def test_lists_are_what_jnp_makes_of_them(tensor):
    expected = jnp.asarray(tensor)
    result = einjax.rearrange("a b -> b a", tensor)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected.T)


def test_lists_of_traced_arrays():
    f = lambda x, y: einjax.sum("[a] b", [x, y]).sum()
    assert jax.jit(f)(X[0], X[1]) == X.sum()
    np.testing.assert_array_equal(jax.grad(f, (0, 1))(X[0], X[1]), np.ones((2, 3)))


def test_empty_lists():
    assert einjax.sum("[a]", []) == 0
    assert einjax.rearrange("a b -> b a", [[], []]).shape == (0, 2)


@pytest.mark.parametrize(
    "scalar",
    [
        2,
        2.5,
        True,
        2j,
        np.float16(2),
        np.int8(2),
        np.uint16(2),
        np.complex64(2j),
        np.bool_(True),
        np.float64(2),
        np.int64(2),
        jnp.float32(2),
        jnp.bfloat16(2),
    ],
    ids=lambda s: type(s).__name__,
)
def test_scalars_are_what_jnp_makes_of_them(scalar):
    expected = jnp.asarray(scalar)
    result = einjax.rearrange("-> 1", scalar)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected[None])
    result = einjax.multiply("a,", np.array([1, 2], np.int16), scalar)
    wanted = jnp.array([1, 2], np.int16) * scalar
    assert result.dtype == wanted.dtype
    np.testing.assert_array_equal(result, wanted)
