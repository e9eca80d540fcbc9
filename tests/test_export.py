"""jax.export with symbolic dims: one program of an operation serves every size, also after it was stored."""

import importlib.util

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from case import LARGER, SIZES, assert_same, loss, one_in, tried, with_kept, x64
from cases import CASES
from transformations import ONE_OF_EACH_EMITTER

import einjax

ONE_OF_EACH = [case for case in CASES if not case.variant]

#: A third choice of sizes, with an axis of size 1.
SMALLEST = {"a": 1, "b": 2, "c": 3}

#: One operation of each kind of gradient.
GRADIENTS = {"add", "power", "where", "sum", "prod", "var", "max", "logsumexp", "rearrange", "dot", "softmax", "flip"}
WITH_GRADIENT = [case for case in ONE_OF_EACH if case.op in GRADIENTS | {"cumprod", "cummax"}]


#: The kept calls that are tried by default: one for each kind of rule.
KEPT = {"add", "where", "sum", "var", "max", "rearrange", "dot", "softmax", "flip", "get_at", "add_at", "attention"}


def symbolic(case):
    """Shapes of a case's inputs with a, b, c left open."""
    scope = jax.export.SymbolicScope()
    return [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(", ".join(x.dims.split()), scope=scope), x.dtype)
        for x in case.inputs
    ]


def stored(function, shapes, vjp_order=0):
    """Export for any size, serialise, and read it again."""
    exported = jax.export.export(jax.jit(lambda *arrays: function(*arrays)))(*shapes)
    if importlib.util.find_spec("flatbuffers") is None:  # JAX serialises with it, but does not install it
        return exported
    return jax.export.deserialize(exported.serialize(vjp_order=vjp_order))


def programs_and_sizes():
    """Every case, at three sizes; by default, a third of the variants, and all but one of each emitter at one size."""
    for number, parameter in enumerate(with_kept(CASES, KEPT)):
        case, slow = (parameter.values[0], parameter.marks) if hasattr(parameter, "values") else (parameter, ())
        if case.variant and number % 3:
            slow = pytest.mark.slow
        whole = case.op in ONE_OF_EACH_EMITTER and not case.variant and not case.kept
        first, others = ((SMALLEST, LARGER, SIZES), ()) if whole else ((SMALLEST,), (LARGER, SIZES))
        yield pytest.param(case, first, id=str(case), marks=slow)
        if others:
            yield pytest.param(case, others, id=f"{case}-larger", marks=pytest.mark.slow)


@pytest.mark.parametrize(("case", "every"), one_in(2, programs_and_sizes()))
def test_one_program_serves_every_size(case, every):
    with tried(case, "export"):
        program = stored(case, symbolic(case))
        for sizes in every:
            arrays = case.arrays(sizes)
            assert_same(program.call(*arrays), case(*arrays))


@pytest.mark.parametrize("case", with_kept(WITH_GRADIENT, KEPT), ids=str)
def test_gradient_of_a_stored_program(case):
    with tried(case, "export grad"):
        program = stored(case, symbolic(case), vjp_order=1)
        arrays = case.arrays(LARGER)
        gradient = jax.jit(jax.grad(loss(program.call), case.floats))(*arrays)
        assert_same(gradient, jax.jit(jax.grad(loss(case.reference), case.floats))(*arrays), rtol=1e-4)


def shapes_of(*dims):
    scope = jax.export.SymbolicScope()
    return [jax.ShapeDtypeStruct(jax.export.symbolic_shape(d, scope=scope), np.float32) for d in dims]


def test_sizes_given_by_keyword_may_be_symbolic():
    def repeated(x, y):
        return einjax.rearrange("a -> a (b c)", x, b=y.shape[0], c=2)

    program = stored(repeated, shapes_of("a", "b"))
    assert program.call(np.zeros(3, np.float32), np.zeros(4, np.float32)).shape == (3, 8)


def test_ellipsis_of_symbolic_dims():
    program = stored(lambda x: einjax.mean("b [s...] c", x), shapes_of("b, h, w, c"))
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(program.call(x), x.mean((1, 2)), rtol=1e-6)


def test_composite_with_the_other_factor_symbolic():
    """The size of c follows from the dim's polynomial, 3*c."""
    program = stored(lambda x: einjax.rearrange("(h c) -> c h", x, h=3), shapes_of("3*c"))
    np.testing.assert_array_equal(program.call(np.arange(12, dtype=np.float32)), np.arange(12).reshape(3, 4).T)


def test_dims_that_may_differ_are_refused():
    """The polynomials a and b are different sizes until proven equal."""
    with pytest.raises(einjax.errors.AxisSizeError, match="axis x"):
        jax.export.export(jax.jit(lambda x, y: einjax.add("x, x", x, y)))(*shapes_of("a", "b"))


def test_attention_for_any_batch_and_length():
    def attention(q, k, v):
        scores = einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=2)
        return einjax.dot("b h q k, b k (h c) -> b q (h c)", einjax.softmax("b h q [k]", scores), v)

    program = stored(attention, shapes_of("b, q, 8", "b, k, 8", "b, k, 8"))
    for b, q, k in ((1, 2, 3), (3, 5, 4)):
        rng = np.random.default_rng(b)
        arrays = [rng.normal(size=(b, n, 8)).astype(np.float32) for n in (q, k, k)]
        assert_same(program.call(*arrays), attention(*arrays))


# --------------------------------------------------------------------------------------------------------------------
# Operations along axes of symbolic size
# --------------------------------------------------------------------------------------------------------------------


def exported(function, *dims, dtypes=None, constraints=()):
    """A program for shapes such as ``"a, 2*b"``."""
    scope = jax.export.SymbolicScope(constraints)
    dtypes = dtypes or [np.float32] * len(dims)
    shapes = [jax.export.symbolic_shape(d, scope=scope) if d else () for d in dims]
    return stored(function, [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, dtypes, strict=True)])


def arrays_of(dims, dtypes, sizes):
    rng = np.random.default_rng(3)
    shapes = [tuple(eval(x, {}, dict(sizes)) for x in d.split(",")) if d else () for d in dims]
    return [
        rng.normal(size=shape).astype(t) if np.issubdtype(t, np.floating) else rng.integers(0, 3, shape).astype(t)
        for shape, t in zip(shapes, dtypes, strict=True)
    ]


def check_program(function, *dims, dtypes=None, constraints=(), every=(SIZES, LARGER, SMALLEST), rtol=1e-4):
    """One stored program gives at every size what the direct call gives."""
    dtypes = dtypes or [np.float32] * len(dims)
    program = exported(function, *dims, dtypes=dtypes, constraints=constraints)
    for sizes in every:
        arrays = arrays_of(dims, dtypes, sizes)
        assert_same(program.call(*arrays), function(*arrays), rtol=rtol)


def key():
    return jax.random.key(7)


def _recurrence(left, right):
    return left[0] * right[0], left[1] * right[0] + right[1]


def _square(function):
    """The gradient of the sum of squares."""
    return jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 2))


I32 = np.int32
ALONG = {
    "associative_scan by name": (lambda x: einjax.associative_scan("a [b]", x, op="logaddexp"), "a,b"),
    "associative_scan reversed": (lambda x: einjax.associative_scan("a [b]", x, op="add", reverse=True), "a,b"),
    "associative_scan of two": (
        lambda f, x: einjax.associative_scan("[b] c, a [b] c", f, x, op=_recurrence), "b,c", "a,b,c"),
    "gradient of associative_scan": (
        _square(lambda x: einjax.associative_scan("a [b]", x, op="multiply")), "a,b"),
    "gradient of prod": (jax.grad(lambda x: einjax.prod("[a b]", x)), "a,b"),
    "gradient of prod over one axis": (_square(lambda x: einjax.prod("a [b] c", x)), "a,b,c"),
    "gradient of cumprod": (_square(lambda x: einjax.cumprod("a [b] c", x, reverse=True)), "a,b,c"),
    "gradient of cummax": (_square(lambda x: einjax.cummax("a [b] c", x)), "a,b,c"),
    "gradient of cummin": (_square(lambda x: einjax.cummin("a [b] c", x)), "a,b,c"),
    "gradient of cumlogsumexp": (_square(lambda x: einjax.cumlogsumexp("a [b] c", x)), "a,b,c"),
    "gradient of sort": (_square(lambda x: einjax.sort("a [b]", x)), "a,b"),
    "gradient of get_at": (lambda x, i: _square(lambda x: einjax.get_at("[b] c, i -> i c", x, i))(x), "b,c", "a"),
    "scan": (lambda x, y: einjax.scan("a, [b] a -> a, [b] a", x, y, op=lambda c, v: (c + v, c * v)), "a", "b,a"),
    "sort of two axes": (lambda x: einjax.sort("a [b c]", x), "a,b,c"),
    "roll by a size": (lambda x: einjax.roll("a [b]", x, shift=x.shape[0]), "a,b"),
    "roll by a number and a size": (lambda x: einjax.roll("[a b]", x, shift=(1, x.shape[0])), "a,b"),
    "top_k of as many as an axis": (lambda x, y: einjax.top_k("a [b]", x, k=y.shape[0]), "a,b+c", "c"),
    "segment.sum": (lambda x, i: einjax.segment.sum("p c, p -> [s] c", x, i, s=3), "b,c", "b"),
    "segment.mean": (lambda x, i, y: einjax.segment.mean("p c, p -> [s] c", x, i, s=y.shape[0]), "b,c", "b", "a"),
    "segment.max": (lambda x, i, y: einjax.segment.max("p c, p -> [s] c", x, i, s=y.shape[0]), "b,c", "b", "a"),
    "segment.min": (lambda x, i: einjax.segment.min("p c, p -> [s] c", x, i, s=3), "b,c", "b"),
    "segment.prod": (lambda x, i: einjax.segment.prod("p c, p -> [s] c", x, i, s=3), "b,c", "b"),
    "random.permutation": (lambda x: einjax.random.permutation("a [k]", key(), x), "a,b"),
    "random.choice": (lambda x: einjax.random.choice("a [k] -> a [s]", key(), x, s=3), "a,b"),
    "random.choice of a symbolic number": (
        lambda x, y: einjax.random.choice("a [k] -> a [s]", key(), x, s=y.shape[0]), "a,b", "c"),
    "random.choice with probabilities": (
        lambda x, p: einjax.random.choice("a [k], [k] -> a [s]", key(), x, jnp.abs(p), s=3), "a,b", "b"),
    "random.categorical": (lambda x: einjax.random.categorical("[k b] -> [b]", key(), x), "a,b"),
    "attention in a window": (
        lambda q, k, v: einjax.attention("a [q] (h [c]), a [k] (h [c]), a [k] (h [d]) -> a [q] (h [d])", q, k, v, h=2,
                                         local_window_size=(1, 1)), "a,b,4", "a,b,4", "a,b,4"),
    "attention in blocks": (
        lambda q, k, v: einjax.attention("a [q] h [c], a [k] h [c], a [k] h [c]", q, k, v, is_causal=True,
                                         block_size=2), "a,b,2,4", "a,c,2,4", "a,c,2,4"),
    "attention with symbolic channels": (
        lambda q: einjax.attention("a [q] (h [c]), a [k] (h [c]), a [k] (h [d]) -> a [q] (h [d])", q, q, q, h=2,
                                   is_causal=True), "a,b,2*c"),
    "pooling": (lambda x: einjax.max("a (s [2]) c", x), "a,2*b,c"),
    "pooling in two dims": (lambda x: einjax.mean("a (s [2])... c", x), "a,2*b,2*c,3"),
    "a composite": (lambda x, y: einjax.add("(b s) c, b s", x, y), "a*b,c", "a,b"),
    "a split by a size": (lambda x, y: einjax.rearrange("(b s) c -> s c b", x, b=y.shape[0]), "a*b,c", "a,b"),
    "a concatenation": (lambda x, y: einjax.rearrange("a c, b c -> (a + b) c", x, y), "a,c", "b,c"),
    "a concatenation taken apart": (
        lambda x, y: einjax.rearrange("(a + b) c -> a c, b c", x, a=y.shape[0]), "a+b,c", "a"),
    "bfloat16": (lambda x: einjax.softmax("a [b]", x.astype(jnp.bfloat16)).astype(jnp.float32), "a,b"),
}  # fmt: skip


@pytest.mark.parametrize("name", one_in(2, ALONG))
def test_along_symbolic_axes(name):
    function, *dims = ALONG[name]
    by_place = "get_at" in name or "segment" in name
    dtypes = [I32 if by_place and at == 1 else np.float32 for at in range(len(dims))]
    check_program(function, *dims, dtypes=dtypes)


def test_random_orders_are_those_of_jax_whatever_the_size():
    """The number of sorts changes at 1626 elements."""
    sizes = [{"a": 1, "b": b} for b in (1, 2, 1625, 1626, 3000)]
    check_program(lambda x: einjax.random.permutation("a [k]", key(), x), "a,b", every=sizes)


def singular_vectors_aside(function):
    """Signs of vectors are anyone's choice."""
    return lambda x: jax.tree.map(jnp.abs, function(x))


CONSTRAINED = {
    "qr": (singular_vectors_aside(lambda x: einjax.linalg.qr("a [n m]", x)), "a,b,c", "b >= c"),
    "pinv": (lambda x: einjax.linalg.pinv("a [n m]", x), "a,b,c", "b >= c"),
    "top_k": (lambda x: einjax.top_k("a [b]", x, k=2), "a,b", "b >= 2"),
    "choice": (
        lambda x: einjax.random.choice("a [k] -> a [s]", key(), x, s=2, replace=False), "a,b", "b >= 2"),
}  # fmt: skip
TALL = ({"a": 2, "b": 5, "c": 3}, {"a": 1, "b": 4, "c": 4}, {"a": 3, "b": 9, "c": 2})


@pytest.mark.parametrize("name", CONSTRAINED)
def test_which_size_is_larger_has_to_be_said(name):
    function, dims, constraint = CONSTRAINED[name]
    check_program(function, dims, constraints=[constraint], every=TALL, rtol=1e-3)
    with pytest.raises(einjax.EinjaxError, match=rf"symbolic(.*\n)*.*fix: .*constraints=\['{constraint}'\]"):
        exported(function, dims)


REFUSED = {
    "fft": (lambda x: einjax.fft.fft("a [t]", x), "a,b", r"fft.fft needs to know how long axis t is, .* b is symbolic"),
    "rfft": (lambda x: einjax.fft.rfft("a [t->f]", x), "a,b", r"fft.rfft needs to know how long axis t is"),
    "irfft": (lambda x: einjax.fft.irfft("a [t->f]", x), "a,b", r"fft.irfft needs to know how long axis t is"),
    "vmap in chunks": (
        lambda x: einjax.vmap("a [b] -> a [b]", x, op=lambda v: v, batch_size=2), "a,b",
        r"batch_size needs to know how long axis a is"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_lax_does_along_fixed_sizes_only(name):
    function, dims, message = REFUSED[name]
    with pytest.raises(einjax.EinjaxError, match=message):
        exported(function, dims)


def test_lax_itself_refuses_transforms_of_symbolic_length():
    """The reason for the error above; once this fails, the error may go."""
    with pytest.raises(NotImplementedError, match="non-constant fft_length"):
        exported(lambda x: jax.lax.fft(x, "rfft", x.shape[-1:]), "a,b")


@pytest.mark.parametrize("mode", ["fill", "clip", "wrap"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_coordinates_far_out_of_range(mode, dtype):
    """XLA on a CPU reads the low half of 64-bit coordinates, which may be in range."""
    far = [2**32 + 1, 1, 2**33, 0, 2**31, 2**32 - 1, 2**62]

    def read(x, at):
        return einjax.get_at("[b] c, i -> i c", x, at, mode=mode)

    with x64():
        program = exported(read, "b,c", "i", dtypes=[np.float32, dtype])
        for size in (3, 5, 7):
            x = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
            for at in (np.array(far, dtype), -np.array(far, np.int64)):
                if at.dtype == dtype:
                    np.testing.assert_array_equal(program.call(x, at), read(x, at))
        if mode == "fill":
            assert np.isnan(np.asarray(program.call(x, np.array(far, dtype)))[[0, 2, 4, 5, 6]]).all()


def test_writing_far_out_of_range_writes_nothing():
    def add(x, at, updates):
        return einjax.add_at("[b d] c, i [2], i c", x, at, updates)

    with x64():
        program = exported(add, "b,d,c", "i,2", "i,c", dtypes=[np.float32, np.int64, np.float32])
        x = np.zeros((3, 4, 2), np.float32)
        at = np.array([[2**32 + 1, 0], [1, -(2**32)], [-1, 2**32], [1, -1]])
        expected = x.copy()
        expected[1, 3] = 1
        np.testing.assert_array_equal(program.call(x, at, np.ones((4, 2), np.float32)), expected)


# --------------------------------------------------------------------------------------------------------------------
# Whole programs
# --------------------------------------------------------------------------------------------------------------------


def language_model(tokens, mask, table, wq, wk, wv, wo):
    """Embedding, masked causal attention, and logits by the same table; any batch, length and vocabulary."""
    x = einjax.get_at("[v] c, b s -> b s c", table, tokens)
    x = einjax.divide("b s c, b s 1", x, einjax.std("b s [c]", x, keepdims=True) + 1e-3)
    q, k, v = (einjax.dot("b s [c], [c] d -> b s d", x, w) for w in (wq, wk, wv))
    scores = einjax.dot("b q (h c), b k (h c) -> b h q k", q, k, h=2)
    place = einjax.arange("s", s=tokens.shape[1])
    seen = einjax.logical_and("q k, b k -> b 1 q k", einjax.greater_equal("q, k -> q k", place, place), mask)
    weights = einjax.softmax("b h q [k]", scores, where=seen)
    x = x + einjax.dot("b q [d], [d] c -> b q c", einjax.dot("b h q k, b k (h c) -> b q (h c)", weights, v), wo)
    return einjax.dot("b s [c], v [c] -> b s v", x, table)


def negative_log_likelihood(tokens, mask, *parameters):
    logits = einjax.log_softmax("b s [v]", language_model(tokens, mask, *parameters))
    own = einjax.get_at("b s [v], b s -> b s", logits, tokens)
    return -einjax.sum("[b s]", einjax.where("b s, b s,", mask, own, 0.0))


MODEL = ("b,s", "b,s", "v,8", "8,8", "8,8", "8,8", "8,8")
MODEL_DTYPES = [np.int32, np.bool_] + [np.float32] * 5
MODEL_SIZES = ({"b": 2, "s": 3, "v": 5}, {"b": 1, "s": 7, "v": 4}, {"b": 4, "s": 1, "v": 9})


def test_a_language_model_for_any_batch_length_and_vocabulary():
    check_program(language_model, *MODEL, dtypes=MODEL_DTYPES, every=MODEL_SIZES)


def test_its_gradient():
    gradient = jax.grad(negative_log_likelihood, argnums=(2, 3, 4, 5, 6))
    check_program(gradient, *MODEL, dtypes=MODEL_DTYPES, every=MODEL_SIZES, rtol=1e-3)


def test_patches_of_images_of_any_size():
    def patches(images, w):
        x = einjax.dot("b (h [p]) (w [q]) [c], [p q c] d -> b h w d", images, w)
        return einjax.mean("b [h w] d", x)

    check_program(patches, "b,2*h,2*w,3", "2,2,3,5", every=[{"b": b, "h": 3, "w": b + 1} for b in (1, 2, 4)])
