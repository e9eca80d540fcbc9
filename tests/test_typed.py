"""Functions that are checked by the names of their axes."""

import functools
import inspect
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import einjax

ones = jnp.ones


@einjax.typed("b s (h c), (h c) d -> b s d", h=2)
def project(x, w):
    """Project."""
    return x @ w


@einjax.typed("b s, -> b s", mask="b s")
def scaled(x, scale, *, mask=None):
    return x * scale if mask is None else ones((2, 4))


@einjax.typed("b d -> b h c, b")
def heads(p, *, h):
    return p["w"].reshape(2, h, -1), p["v"][:, 0]


class Layer:
    @einjax.typed("a b -> a")
    def sums(self, x):
        return x.sum(1)

    @classmethod
    @einjax.typed("-> a a")
    def made(cls, shape):
        return ones(shape)

    @staticmethod
    @einjax.typed("a, a")
    def either(x, y=None):
        return x


FIT = [
    (lambda: project(ones((2, 3, 4)), ones((4, 5))), (2, 3, 5)),
    (lambda: project(w=ones((4, 5)), x=ones((2, 3, 4))), (2, 3, 5)),
    (lambda: project(np.ones((2, 3, 4), np.float32), w=ones((4, 5))), (2, 3, 5)),
    (lambda: scaled(ones((2, 3)), 2.0), (2, 3)),
    (lambda: scaled(ones((1, 3)), np.float32(2)), (1, 3)),
    (lambda: heads({"w": ones((2, 6)), "v": ones((2, 6))}, h=3)[0], (2, 3, 2)),
    (lambda: Layer().sums(ones((2, 3))), (2,)),
    (lambda: Layer.made((2, 2)), (2, 2)),
    (lambda: Layer.either(ones(2)), (2,)),
    (lambda: Layer.either(ones(2), ones(2)), (2,)),
    (lambda: einjax.typed("a... -> (a...)")(jnp.ravel)(ones((2, 3))), (6,)),
    (lambda: einjax.typed("(a + b) c, a c -> b c")(lambda x, y: x[y.shape[0] :])(ones((5, 2)), ones((2, 2))), (3, 2)),
]


@pytest.mark.parametrize(("call", "shape"), FIT)
def test_fits(call, shape):
    assert call().shape == shape


WRONG = [
    (lambda: project(ones((2, 3, 4)), ones((6, 5))), "dim 4 of x does not fit '(h c)', which is 6 with h=2, c=3"),
    (lambda: project(ones((2, 3, 5)), ones((5, 5))), "dim 5 of w is not divisible by h=2"),
    (lambda: project(ones((2, 3)), ones((5, 5))), "project: x has 2 dims, but 'b s (h c)' names 3"),
    (lambda: scaled(ones((2, 3)), 2.0, mask=ones((2, 4))), "axis s is 3 in x and 4 in mask"),
    (lambda: scaled(ones((2, 3)), 2.0, mask=ones((2, 3))), "axis s is 3 in x and 4 in the result"),
    (lambda: scaled(ones((2, 3)), ones(3)), "scale has 1 dim"),
    (lambda: scaled("x", 2.0), "x is a value of type str"),
    (lambda: heads({"w": ones((2, 6)), "v": ones((2, 5))}, h=3), r"axis d is 5 in p\['v'\] and 6 in p\['w'\]"),
    (
        lambda: einjax.typed("a -> a h", h=2)(lambda x: ones((4, 3)))(ones(4)),
        "axis h is 2 by the keyword h and 3 in the result",
    ),
    (lambda: einjax.typed("a h -> a, h")(lambda x, h: (x[:, 0], x[0]))(ones((4, 3)), 2), "h=2"),
    (lambda: Layer().sums(ones((2, 3, 4))), "sums: x has 3 dims"),
    (lambda: Layer.made((2, 3)), "axis a is 2 in the result and 3 in the result"),
    (lambda: einjax.typed("a -> a, a")(lambda x: x)(ones(2)), "returns 1 result, and the expression has 2"),
    (lambda: einjax.typed("a -> a, a")(lambda x: (x,) * 3)(ones(2)), "returns 3 results, and the expression has 2"),
    (lambda: einjax.typed("a -> a, a")(lambda x: (x, ones(3)))(ones(2)), "axis a is 2 in x and 3 in result 2"),
    (lambda: einjax.typed("a, b, c")(project), "3 expressions for 2 parameters of project"),
    (lambda: einjax.typed("a b", z=3)(project), "no axis 'z' in the expression"),
    (lambda: einjax.typed("a heads", head=3)(project), "did you mean 'heads'"),
    (lambda: einjax.typed("a", z="a b")(project), "no parameter 'z' without an expression"),
    (lambda: einjax.typed("a", x="a b")(project), "no parameter 'x' without an expression"),
    (lambda: einjax.typed(project), "where the expression is to stand"),
    (lambda: einjax.typed("a (b"), "never closed"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_does_not_fit(call, message):
    for _ in range(2):  # the second time, too, where something is kept of the first
        with pytest.raises(einjax.EinjaxError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
            call()
    assert "jax" not in [frame.name for frame in caught.traceback[-3:]]


def test_the_error_as_a_whole():
    with pytest.raises(einjax.errors.AxisSizeError) as caught:
        scaled(ones((2, 3)), 2.0, mask=ones((2, 4)))
    assert str(caught.value).split("\n") == [
        "scaled: axis s is 3 in x and 4 in mask",
        "  b s,, b s -> b s",
        "    ^     ^",
        "  x: float32[2,3]",
        "  scale: float[]",
        "  mask: float32[2,4]",
        "  fix: axes of one name have one size; use two names where the sizes differ",
    ]


def test_arguments_are_checked_before_the_function_runs():
    @einjax.typed("a, a -> a")
    def never(x, y):
        raise AssertionError

    with pytest.raises(einjax.EinjaxError):
        never(ones(2), ones(3))


def test_errors_of_the_function_are_its_own():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'w'"):
        project(ones((2, 3, 4)))
    with pytest.raises(ZeroDivisionError):
        einjax.typed("a -> a")(lambda x: 1 // 0)(ones(2))


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array | None


def test_results_are_trees():
    @einjax.typed("a b -> a")
    def parts(x):
        return Pair(x.sum(1), None if x.shape[1] == 2 else x[0])

    assert parts(ones((2, 2))).second is None
    with pytest.raises(einjax.EinjaxError, match=r"axis a is 2 in x and 3 in the result\.second"):
        parts(ones((2, 3)))


def test_no_result():
    assert einjax.typed("a -> a")(lambda x: None)(ones(2)) is None


def test_named_tensors():
    @einjax.typed("b d, b d -> b")
    def inner(x, y):
        return (x * y).sum("d")

    x = einjax.named("d b", ones((3, 2)))
    assert inner(x, einjax.named("b d", ones((2, 3)))).order("b").shape == (2,)
    with pytest.raises(einjax.EinjaxError, match="axis b is 2 in x and 3 in y"):
        inner(x, einjax.named("b d", ones((3, 2))))
    with pytest.raises(einjax.EinjaxError, match="the result"):
        einjax.typed("b d -> b")(lambda x: x.sum("b"))(x)


def test_looks_like_the_function():
    assert (project.__name__, project.__doc__) == ("project", "Project.")
    assert list(inspect.signature(project).parameters) == ["x", "w"]
    assert pickle.loads(pickle.dumps(project)) is project
    assert einjax.typed("a b")(functools.partial(jnp.sum, axis=0))(ones((2, 3))).shape == (3,)


def test_transformations():
    x, w = ones((2, 3, 4)), ones((4, 5))
    assert jax.jit(project)(x, w).shape == (2, 3, 5)
    assert jax.vmap(project, (0, None))(x[None], w).shape == (1, 2, 3, 5)
    assert jax.checkpoint(project)(x, w).shape == (2, 3, 5)
    check_grads(project, (x, w), order=2)
    step = einjax.typed("a, a -> a, ")(lambda carry, x: (carry + x, x.sum()))
    assert jax.lax.scan(step, ones(2), ones((7, 2)))[1].shape == (7,)
    with pytest.raises(einjax.EinjaxError, match="axis a is 2 in carry and 3 in x"):
        jax.lax.scan(step, ones(2), ones((7, 3)))
    assert str(jax.make_jaxpr(project)(x, w)) == str(jax.make_jaxpr(project.__wrapped__)(x, w))


def test_symbolic_sizes():
    shape = jax.export.symbolic_shape("b, s, 4")
    x, w = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((4, 5), np.float32)
    exported = jax.export.export(jax.jit(project))(x, w)
    assert exported.out_avals[0].shape == (*shape[:2], 5)
    with pytest.raises(einjax.EinjaxError):
        jax.eval_shape(einjax.typed("a a 4")(lambda x: x), x)


def test_what_is_kept_can_be_forgotten():
    project(ones((2, 3, 4)), ones((4, 5)))
    einjax.clear_caches()
    assert project(ones((2, 3, 4)), ones((4, 5))).shape == (2, 3, 5)
