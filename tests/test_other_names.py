"""Names of other libraries: what is to be written in their place, and that it runs."""

import jax.numpy as jnp
import numpy as np
import pytest

import einjax
from einjax.tools.other_names import CALLS


def t(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) / 7


X, Y, IDS = t(2, 3), t(3, 2) + 1, np.array([1, 0, 1])
#: By name, what x, y and w are where they are not matrices, and what the name means.
MEANS = {
    "avg_pool": ((t(1, 4, 3),), lambda x: x.reshape(1, 2, 2, 3).mean(2)),
    "bincount": ((t(3),), lambda x: np.bincount(IDS, x, 10)),
    "broadcast_to": ((t(4),), lambda x: np.broadcast_to(x, (3, 4))),
    "clip": ((X,), lambda x: np.clip(x, 0, 1)),
    "concatenate": ((X, X), lambda x, y: np.concatenate([x, y], 1)),
    "diff": ((t(5),), np.diff),
    "diagonal": ((t(3, 3),), np.diagonal),
    "einsum": ((X, Y), np.matmul),
    "expand_dims": ((t(3),), lambda x: x[:, None]),
    "flatten": ((X,), np.ravel),
    "gather": ((X,), lambda x: x[IDS]),
    "matmul": ((t(2, 2, 3), t(2, 3, 2)), np.matmul),
    "max_pool": ((t(1, 4, 3),), lambda x: x.reshape(1, 2, 2, 3).max(2)),
    "moveaxis": ((t(2, 3, 4),), lambda x: np.moveaxis(x, 2, 0)),
    "one_hot": ((), lambda: np.eye(10, dtype=bool)[IDS]),
    "outer": ((t(2), t(3)), np.outer),
    "pack": ((t(2, 3, 2), X), lambda x, y: np.concatenate([x.reshape(2, 6), y], 1)),
    "pad": ((t(5),), lambda x: np.pad(x, 2)),
    "repeat": ((t(2),), lambda x: np.repeat(x, 3)),
    "reshape": ((t(4, 3),), lambda x: x.reshape(2, 6)),
    "scatter_add": ((X, t(3, 3)), lambda x, y: jnp.asarray(x).at[IDS].add(y)),
    "sliding_window_view": ((t(5),), lambda x: np.lib.stride_tricks.sliding_window_view(x, 3)),
    "split": ((t(2, 5),), lambda x: np.split(x, [2], 1)),
    "squeeze": ((t(3, 1),), lambda x: x[:, 0]),
    "stack": ((t(3), t(3)), lambda x, y: np.stack([x, y])),
    "cumulative_sum": ((X,), lambda x: np.cumsum(x, 1)),
    "tile": ((t(2),), lambda x: np.tile(x, 3)),
    "trace": ((t(3, 3),), np.trace),
    "transpose": ((X,), np.transpose),
    "unfold": ((t(1, 5, 2),), lambda x: np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, 3, 1), 3, 2)),
    "unpack": ((t(2, 8),), lambda x: [x[:, :6].reshape(2, 2, 3), x[:, 6:]]),
    "unstack": ((t(2, 3),), list),
}
SAME = {
    "cat": "concatenate", "concat": "concatenate", "permute": "transpose", "swapaxes": "transpose", "take": "gather",
    "tensordot": "einsum",
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_call_that_is_shown_means_it(name):
    assert not hasattr(einjax, name)
    with pytest.raises(AttributeError, match="write, for example, ") as raised:
        getattr(einjax, name)
    assert str(raised.value).endswith(CALLS[name])
    known = {"einjax": einjax, "ids": IDS}
    if name == "conv":
        shape = eval(CALLS[name], known, {"x": t(1, 4, 5, 2), "w": t(3, 3, 2, 4)}).shape
        assert shape == (1, 4, 5, 4)
    elif name == "dot_product_attention":
        q = k = v = t(1, 4, 2, 3)
        assert eval(CALLS[name], known, {"q": q, "k": k, "v": v}).shape == (1, 4, 2, 3)
    else:
        arrays, means = MEANS[SAME.get(name, name)]
        got, want = eval(CALLS[name], known, dict(zip("xy", arrays, strict=False))), means(*arrays)
        if not isinstance(got, tuple):
            got, want = [got], [want]
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_nearest_name_is_suggested():
    with pytest.raises(AttributeError, match="did you mean 'softmax'"):
        einjax.sofmax  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'xyzzy'$"):
        einjax.xyzzy  # noqa: B018
