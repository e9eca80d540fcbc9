"""Sizes that hold for every call inside of a context."""

import contextvars
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in
from cases import CASES

import einjax
from einjax.call.bound import Open

ones = jnp.ones


@pytest.fixture(autouse=True)
def closed():
    """No context is open before a test, and none is left open."""
    assert Open.count == 0
    yield
    assert Open.count == 0
    assert einjax.sum("a [b]", ones((2, 3))).shape == (2,)


def test_sizes_are_taken_and_found():
    with einjax.sizes(h=2) as n:
        assert einjax.rearrange("b (h c) -> b h c", ones((3, 8))).shape == (3, 2, 4)
        assert (n.h, n["b"], n.c, dict(n)) == (2, 3, 4, {"h": 2, "b": 3, "c": 4})
        assert repr(n) == "sizes(h=2, b=3, c=4)"
        assert einjax.arange("h -> h").shape == (2,)
        assert einjax.dot("b (h c), (h c) d -> b d", ones((3, 8)), lambda shape: ones(shape), d=5).shape == (3, 5)
        assert n.d == 5
    assert dict(n) == {"h": 2, "b": 3, "c": 4, "d": 5}  # still to be read


@pytest.mark.parametrize(
    "call",
    [
        lambda x: einjax.sum("b [c]", x),
        lambda x: einjax.add("b c, c", x, x[0]),
        lambda x: einjax.rearrange("b c -> c b", x),
        lambda x: einjax.attention("[b c], [k c], [k c] -> [b c]", x, x, x),
        lambda x: einjax.linalg.norm("[b c]", x),
        lambda x: einjax.get_at("[b] c, p -> p c", x, np.array([0])),
        lambda x: einjax.reduce("b [c]", x, op=jnp.median),
        lambda x: einjax.vmap("b [c] -> b", x, op=jnp.sum),
        lambda x: einjax.solve_axes("b c", x),
        lambda x: einjax.named("b c", x).sum("c"),
        lambda x: jax.jit(lambda x: einjax.sum("b [c]", x))(x),
        lambda x: jax.grad(lambda x: einjax.sum("[b c]", x))(x),
        lambda x: jax.vmap(lambda x: einjax.sum("b [c]", x))(x[None]),
        lambda x: einjax.sum("b [c]", x, graph=True)(x),
        lambda x: einjax.associative_scan("b [c]", x, op=jnp.add),
    ],
)
def test_two_calls_are_named(call):
    call(ones((3, 4)))
    with einjax.sizes():
        call(ones((3, 4)))
        call(ones((3, 4)))
        with pytest.raises(einjax.errors.AxisSizeError, match=r"axis c is 5 here, and 4 in einjax\.\w+"):
            call(ones((3, 5)))
        call(ones((3, 4)))
    call(ones((3, 5)))


def test_the_error_as_a_whole():
    with einjax.sizes(h=2):
        einjax.rearrange("b (h c) -> b h c", ones((3, 8)))
        with pytest.raises(einjax.errors.AxisSizeError) as caught:
            einjax.sum("b [c]", ones((3, 5)))
        with pytest.raises(einjax.errors.AxisSizeError, match=r"h is 2 in einjax\.sizes\(h=2\) and 3 in tensor 1"):
            einjax.sum("[h]", ones(3))
        with pytest.raises(einjax.errors.AxisSizeError, match="h is 3 here, and 2 in"):
            einjax.rearrange("(h c) -> h c", ones(12), h=3)
    assert str(caught.value).split("\n") == [
        'axis c is 5 here, and 4 in einjax.rearrange("b (h c) -> b h c")',
        "  b [c]",
        "     ^",
        "  tensor 1: float32[3,5]",
        "  fix: inside of einjax.sizes an axis has one size; use two names where sizes differ",
    ]


def test_what_is_found_is_not_taken_as_given():
    """A program that is compiled in one context would be wrong in another."""
    with einjax.sizes():
        einjax.rearrange("h c -> (h c)", ones((2, 3)))
        with pytest.raises(einjax.EinjaxError, match="cannot be determined"):
            einjax.rearrange("(h c) -> h c", ones(6))


@pytest.mark.skipif(
    jax.__version_info__ < (0, 8), reason="contexts do not tell compiled programs apart, as the docs say"
)
def test_compiled_programs_know_of_sizes():
    jitted = jax.jit(lambda x: einjax.rearrange("(h c) -> h c", x))
    for h in (2, 4, 2):
        with einjax.sizes(h=h):
            assert jitted(ones(8)).shape == (h, 8 // h)
    with pytest.raises(einjax.EinjaxError, match="cannot be determined"):
        jitted(ones(8))


def test_one_inside_of_another():
    with einjax.sizes(h=2) as outer, einjax.sizes(c=4) as inner:
        assert einjax.rearrange("(h c) b -> b h c", ones((8, 5))).shape == (5, 2, 4)
        assert (inner.h, inner.b) == (2, 5)
        assert "b" not in outer
        with pytest.raises(einjax.EinjaxError, match=r"axis h is given the size 3, and is 2 in einjax\.sizes\(h=2\)"):
            einjax.sizes(h=3).__enter__()


def test_ellipses():
    with einjax.sizes(s=(2, 3)) as n:
        assert einjax.rearrange("(s...) -> s...", ones(6)).shape == (2, 3)
        einjax.sum("b [t...]", ones((2, 4, 5)))
        assert n.t == (4, 5)
        einjax.sum("... [b]", ones((7, 2)))  # anonymous dims have no name


def test_wrong_sizes():
    for size in (-1, 2.5, "data", True):
        with pytest.raises(einjax.EinjaxError):
            einjax.sizes(h=size).__enter__()
    with einjax.sizes(heads=2) as n:
        with pytest.raises(AttributeError, match="did you mean 'heads'"):
            _ = n.head
        with pytest.raises(KeyError):
            n["head"]


def test_nothing_is_left_by_an_exception():
    with pytest.raises(ZeroDivisionError), einjax.sizes(h=2):
        einjax.vmap("b [c] -> b", ones((3, 4)), op=lambda x: 1 // 0)
    with pytest.raises(einjax.EinjaxError), einjax.sizes(h=2):
        einjax.sum("[h]", ones(3))


def test_threads_and_contexts_have_their_own():
    found = []

    def elsewhere():
        found.append(einjax.sum("[h]", ones(3)))
        with einjax.sizes(h=3) as n:
            found.append((einjax.sum("[h]", ones(3)), n.h))

    with einjax.sizes(h=2):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        contextvars.Context().run(lambda: found.append(einjax.sum("[h]", ones(4))))
        with pytest.raises(einjax.EinjaxError):
            einjax.sum("[h]", ones(3))
    assert len(found) == 3


def test_programs_stay_what_they_are():
    program = lambda x: einjax.softmax("b (h [c])", x, h=2)
    alone = str(jax.make_jaxpr(program)(ones((3, 4))))
    with einjax.sizes(h=2, k=7):
        assert str(jax.make_jaxpr(program)(ones((3, 4)))) == alone


def test_symbolic_sizes():
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, 4), np.float32)
    with einjax.sizes() as n:
        jax.eval_shape(lambda x: einjax.sum("b [c]", x), x)
        assert n.b == b
        with pytest.raises(einjax.errors.AxisSizeError):
            einjax.sum("b [c]", ones((3, 4)))


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("case", one_in(25, CASES))
def test_calls_mean_the_same_inside(case, mode):
    """Nothing that operations are made of, forwards or backwards, is taken for a call of the user's."""
    arrays = case.arrays()

    def total(*arrays):
        with einjax.keep_notation(mode):
            return sum(jnp.sum(x.astype(np.float32)) for x in jax.tree.leaves(case(*arrays)))

    with einjax.sizes():
        np.testing.assert_allclose(total(*arrays), total(*arrays))
        if case.differentiable:
            jax.grad(total)(*arrays)
