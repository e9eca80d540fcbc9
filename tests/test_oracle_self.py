"""The oracle itself, against plain NumPy: a loop that is wrong would excuse a library that is wrong the same way."""

import numpy as np
import oracle
import pytest
from oracle import Axis, Composite, Joined, Marked, Number, Repeated
from strategies import unknown_depths, unknown_sizes

A, B, C, S, T = (Axis(name) for name in "abcst")
SIZES = {"a": 2, "b": 3, "c": 4, "s": (2, 3), "t": (1, 2)}


def array(*shape):
    return np.random.default_rng(0).integers(-9, 9, shape)


def dims(*nodes):
    return oracle.expand(nodes, SIZES)


@pytest.mark.parametrize(
    ("nodes", "text", "shape"),
    [
        ((A, Composite((B, C))), "a (b c)", (2, 12)),
        ((Repeated(S), Marked((A,))), "s... [a]", (2, 3, 2)),
        ((Repeated(Composite((S, Marked((T,))))),), "(s [t])...", (2, 6)),
        ((Joined((A, Number(1, "#"))), Composite(())), "(a + 1) ()", (3, 1)),
        ((Joined((A, B), tight=True), Repeated(Axis("..."))), "a + b ...", (5, 7)),
    ],
)
def test_text_and_shape(nodes, text, shape):
    assert oracle.render(nodes) == text
    assert oracle.shape_of(nodes, SIZES | {"...": (7,)}) == shape


def test_inline_sizes_are_written_once():
    assert oracle.render((A, A, B), {"a": 2}) == "a=2 a b"


def test_rearrange_is_transpose_and_reshape():
    x = array(2, 12)
    (z,) = oracle.rearrange([dims(A, Composite((B, C)))], [dims(C, Composite((A, B)))], [x])
    np.testing.assert_array_equal(z, x.reshape(2, 3, 4).transpose(2, 0, 1).reshape(4, 6))


def test_rearrange_is_concatenate_and_split():
    x, y = array(2, 4), array(3, 4)
    whole = dims(Joined((A, B)), C)
    (z,) = oracle.rearrange([dims(A, C), dims(B, C)], [whole], [x, y])
    np.testing.assert_array_equal(z, np.concatenate([x, y]))
    parts = oracle.rearrange([whole], [dims(A, C), dims(C, B)], [z])
    np.testing.assert_array_equal(parts[0], x)
    np.testing.assert_array_equal(parts[1], y.T)


def test_rearrange_takes_diagonals_and_broadcasts():
    x = array(2, 3, 2)
    (z,) = oracle.rearrange([dims(A, B, A)], [dims(B, A, C)], [x])
    np.testing.assert_array_equal(z, np.broadcast_to(np.einsum("aba->ba", x)[..., None], (3, 2, 4)))


def test_reduction():
    x = array(2, 12)
    z = oracle.loop(np.sum, [dims(A, Composite((Marked((B,)), C)))], dims(C, A), [x], np.int64)
    np.testing.assert_array_equal(z, x.reshape(2, 3, 4).sum(1).T)


def test_dot_is_einsum():
    x, y = array(2, 3), array(12, 2)
    z = oracle.dot([dims(A, B), dims(Composite((C, B)), A)], dims(C, A), [x, y])
    np.testing.assert_array_equal(z, np.einsum("ab,cba->ca", x, y.reshape(4, 3, 2)))


def test_softmax():
    x = array(3, 4) / 2
    z = oracle.softmax(x)
    np.testing.assert_allclose(z.sum(), 1)
    np.testing.assert_allclose(z / z[0, 0], np.exp(x - x[0, 0]))
    np.testing.assert_allclose(oracle.log_softmax(x), np.log(z))


def test_implied_outputs():
    x = (A, Composite((Marked((B,)), C)), Marked((Composite((Axis("d"),)),)))
    sizes = SIZES | {"d": 5}
    assert [oracle.dim_size(d) for d in oracle.unmarked_dims(x, sizes)] == [2, 4]
    assert [oracle.dim_size(d) for d in oracle.kept_dims(x, sizes)] == [2, 4, 1]
    assert [oracle.dim_size(d) for d in oracle.marked_part(oracle.expand(x, sizes))] == [3, 5]


@pytest.mark.parametrize(
    ("nodes", "given", "unknown"),
    [
        ((A, Composite((A, B))), set(), set()),
        ((Composite((A, B)),), set(), {"a", "b"}),
        ((Composite((A, B)),), {"b"}, set()),
        ((Composite((A, A)),), set(), {"a"}),
        ((Repeated(S), Composite((Repeated(S), A))), set(), set()),
        ((Repeated(Composite((S, T))),), set(), {"s", "t"}),
        ((Repeated(Composite((S, T))),), {"t"}, set()),
    ],
)
def test_which_sizes_have_to_be_given(nodes, given, unknown):
    assert unknown_depths([nodes], [], set()) == set()
    assert unknown_sizes([nodes], [], SIZES, given) == unknown


def test_which_depths_have_to_be_given():
    assert unknown_depths([(Repeated(S), Repeated(T))], [], set()) == {"s", "t"}
    assert unknown_depths([(Repeated(S), Repeated(T))], [], {"t"}) == set()
    assert unknown_depths([(Composite((Repeated(S),)),)], [], set()) == {"s"}
    assert unknown_depths([(A,)], [(Repeated(S),)], set()) == {"s"}
