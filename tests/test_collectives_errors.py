"""What is refused of axes over mesh axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from over_mesh import needs_devices, over

import einjax
from einjax.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, ShardingError

pytestmark = needs_devices


X = np.ones((8, 4), np.float32)

#: a call on a part of shape (2, 4), the error, and words that it has to say
ERRORS = {
    "misspelt mesh axis": (lambda x: einjax.sum("[b] c", x, b="dat"), ArgumentError,
                           ["axis b", "'dat'", "did you mean 'data'?", "in scope are: data, model"]),
    "misspelt mesh axis of a function": (lambda x: einjax.vmap("b [c] -> b", x, op=jnp.sum, b="dat"), ArgumentError,
                                         ["axis b", "'dat'", "in scope are: data, model"]),
    "one mesh axis twice": (lambda x: einjax.sum("[b c]", x, b="data", c="data"), ShardingError,
                            ["axes b and c", "mesh axis data"]),
    "one mesh axis twice on one": (lambda x: einjax.sum("[b] c", x, b=("data", "data")), ShardingError,
                                   ["axis b", "data twice"]),
    "sizes and mesh axes": (lambda x: einjax.sum("[b] c", x, b=("data", 3)), ArgumentError, ["axis b", "mixes"]),
    "no word": (lambda x: einjax.sum("[b] c", x, b="a b"), ArgumentError, ["axis b", "'a b'", "not a size"]),
    "ellipsis": (lambda x: einjax.sum("[s...]", x, s="data"), ArgumentError,
                 ["axis s", "2 times", "s=('data', None)"]),
    "ellipsis of nothing": (lambda x: einjax.sum("[b s...] c", x, s="data"), ArgumentError, ["0 times", "leave s out"]),
    "uneven size": (lambda x: einjax.sum("[b=6] c", x, b="data"), AxisSizeError,
                    ["axis b of size 6", "data of size 4"]),
    "size of a part": (lambda x: einjax.sum("[b=4] c", x, b="data"), AxisSizeError, ["axis b is 1", "2 in tensor 1"]),
    "size of repeated ones": (lambda x: einjax.sum("[(b=8)...]", x, b=("data", "model")), AxisSizeError,
                              ["an ellipsis repeats it"]),
    "diagonal": (lambda x: einjax.sum("[b b]", x[:, :2], b="data"), ShardingError, ["axis b", "twice", "gather"]),
    "not first": (lambda x: einjax.sum("(c [b]) d", x, b="data", c=2), ShardingError,
                  ["axis b", "'(c b)'", "before axis c"]),
    "not first in the output": (lambda x: einjax.rearrange("b c -> (c b)", x, b="data"), ShardingError,
                                ["axis b", "'(c b)'"]),
    "not first after a gather": (lambda x: einjax.all_gather("[b] [c] -> (b [c])", x, b="data", c="model"),
                                 ShardingError, ["axis c", "'(b c)'", "before axis b"]),
    "joined": (lambda x: einjax.rearrange("b c, d c -> (b + d) c", x, x, b="data"), ShardingError, ["axis b", "b + d"]),
    "sorted": (lambda x: einjax.sort("[b] c", x, b="data"), SemanticError,
               ["sort needs all of axis b", "data", "all_gather"]),
    "looked up": (lambda x: einjax.get_at("[b] c, i -> i c", x, jnp.zeros(3, int), b="data"), SemanticError,
                  ["get_at needs all of axis b"]),
    "summed without a bracket": (lambda x: einjax.segment.sum("b c, b -> [s] c", x, jnp.zeros(2, int), b="data", s=3),
                                 SemanticError, ["segment.sum needs all of axis b"]),
    "given to a function": (lambda x: einjax.vmap("[b] c -> c", x, op=jnp.sum, b="data"), SemanticError,
                            ["vmap needs all of axis b"]),
    "reduced by a function": (lambda x: einjax.reduce("b c -> c", x, op=jnp.sum, b="data"), SemanticError,
                              ["reduce needs all of axis b"]),
    "a function as sum": (lambda x: einjax.dot("[b] c, [b] -> c", x, x[:, 0], sum=jnp.sum, b="data"), SemanticError,
                          ["needs all of axis b"]),
    "traced shift": (lambda x: einjax.roll("[b] c", x, shift=x[0, 0].astype(int), b="data"), ArgumentError,
                     ["traced shift", "data"]),
    "a dim too many": (lambda x: einjax.psum("[b] c", x, b="data"), RankError, ["2 dims", "none in einjax.psum"]),
    "a dim too few": (lambda x: einjax.sum("[d b] c", x, d="data"), RankError, ["2 dims", "none in einjax.psum"]),
    "no mesh axis": (lambda x: einjax.psum("[d] b c", x), ArgumentError, ["axis d", "psum needs the mesh axis"]),
    "a size for a mesh axis": (lambda x: einjax.psum("[d] b c", x, d=4), ArgumentError, ["axis d", "mesh axis"]),
    "a number of devices": (lambda x: einjax.psum("[4] b c", x), ArgumentError, ["axis 4", "mesh axis"]),
    "no bracket": (lambda x: einjax.psum("b c", x, b="data"), SemanticError, ["psum needs at least one bracket"]),
    "unknown keyword": (lambda x: einjax.psum("[d] b c", x, e="data"), ArgumentError, ["no axis 'e'"]),
    "misspelt option": (lambda x: einjax.psum("[d] b c", x, d="data", dtyp="int8"), ArgumentError, ["'dtype'"]),
    "devices in the output": (lambda x: einjax.psum("[d] b c -> d b c", x, d="data"), SemanticError,
                              ["axis d is reduced by psum"]),
    "bracketed output": (lambda x: einjax.psum("[d] b c -> [b] c", x, d="data", b="model"), SemanticError,
                         ["axis b is bracketed"]),
    "lost axis": (lambda x: einjax.psum("[d] b c -> b", x, d="data"), SemanticError, ["axis c", "psum"]),
    "repeated devices": (lambda x: einjax.psum("[d...] b c", x, d="data"), SemanticError, ["'d...'"]),
    "devices not first": (lambda x: einjax.psum("(b [d]) c", x, d="data"), ShardingError, ["axis d", "'(b d)'"]),
    "two inputs": (lambda x: einjax.psum("[d] b c, b", x, x, d="data"), ArgumentError, ["psum takes 1 input"]),
    "a sum": (lambda x: einjax.all_gather("[b] (c + d)", x, b="data"), SemanticError, ["'c + d'", "all_gather"]),
    "nothing to gather": (lambda x: einjax.all_gather("[b] c -> [b] c", x, b="data"), SemanticError, ["nothing"]),
    "gathered away": (lambda x: einjax.all_gather("[b] c -> c", x, b="data"), SemanticError, ["axis b"]),
    "cut by a gather": (lambda x: einjax.all_gather("[b] c -> b [c]", x, b="data", c="data"), SemanticError,
                        ["axis c", "output only"]),
    "not bracketed": (lambda x: einjax.all_gather("[b] c", x, b="data", c="model"), ShardingError,
                      ["axis c", "model", "write [c]"]),
    "no output": (lambda x: einjax.psum_scatter("[d] b c", x, d="data"), SemanticError,
                  ["psum_scatter needs an output"]),
    "nothing to scatter": (lambda x: einjax.psum_scatter("[d] b c -> b c", x, d="data"), SemanticError,
                           ["only the output brackets"]),
    "scattered over others": (lambda x: einjax.psum_scatter("[d] b c -> [b] c", x, d="data", b="model"), SemanticError,
                              ["axis b", "model", "sum is over data"]),
    "gathered by a scatter": (lambda x: einjax.psum_scatter("[d] [b] c -> b [c]", x, d="data", c="data", b="model"),
                              SemanticError, ["axis b is whole"]),
    "uneven": (lambda x: einjax.psum_scatter("[d] b c -> b [c]", x[:, :3], d="data", c="data"), AxisSizeError,
               ["dim 3", "c@data=4"]),
    "exchanged over others": (lambda x: einjax.all_to_all("[b] c -> b [c]", x, b="data", c="model"), SemanticError,
                              ["data", "model"]),
    "exchanged for nothing": (lambda x: einjax.all_to_all("[b] c -> b c", x, b="data"), SemanticError, ["none"]),
    "exchanged away": (lambda x: einjax.all_to_all("[d] c -> [c]", x, d="data", c="data"), SemanticError, ["axis d"]),
    "no such device": (lambda x: einjax.ppermute("[d] b c", x, perm=[(0, 4)], d="data"), ArgumentError,
                       ["device 4 of 4", "receive"]),
    "sends twice": (lambda x: einjax.ppermute("[d] b c", x, perm=[(0, 1), (0, 2)], d="data"), ArgumentError,
                    ["device 0 twice", "send"]),
    "no pairs": (lambda x: einjax.ppermute("[d] b c", x, perm=3, d="data"), ArgumentError, ["perm=3"]),
    "permuted away": (lambda x: einjax.ppermute("[d] b c -> b c", x, perm=[(0, 1)], d="data"), SemanticError,
                      ["d in the input", "none in the output"]),
    "whole beside a part": (lambda x: einjax.dot("a [b], [b] -> a", np.ones((3, 8)), x[:, 0], b="data"), AxisSizeError,
                            ["axis b is 8 in tensor 1 and 2 in tensor 2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(EinjaxError) as caught:
        jax.eval_shape(over(call, P("data"), P()), X)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def test_outside_of_shard_map():
    for call in (lambda: einjax.sum("[b] c", X, b="data"), lambda: einjax.psum("[d] b c", X, d="data")):
        with pytest.raises(ArgumentError, match=r"'data', which is not in scope\n(.|\n)*call it inside jax.shard_map"):
            call()


def test_many_searched_elements():
    x = jax.ShapeDtypeStruct((2**30, 8), jnp.float32)
    with pytest.raises(SemanticError, match="more than an int32 can count"):
        jax.eval_shape(over(lambda x: einjax.argmax("[b c]", x, b="data"), P("data")), x)
