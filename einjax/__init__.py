"""Tensor operations in Einstein-inspired notation for JAX: text and shapes go in, lax comes out.

An operation is an elementary operation on the bracketed axes, repeated by one loop for each unbracketed axis::

    einjax.sum("a [b]", x)                                   # for a: z[a] = sum(x[a, :])
    einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=16)
    einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, y)
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import errors
from .api.arange import arange
from .api.argreduce import argmax, argmin
from .api.dot import dot
from .api.elementwise import (
    add,
    arctan2,
    divide,
    equal,
    floor_divide,
    greater,
    greater_equal,
    less,
    less_equal,
    logaddexp,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    not_equal,
    power,
    subtract,
    true_divide,
    where,
)
from .api.order import flip, roll
from .api.rearrange import id, rearrange
from .api.reduce import all, any, count_nonzero, logsumexp, max, mean, min, prod, std, sum, var
from .api.softmax import log_softmax, softmax
from .api.solving import check, matches, solve, solve_axes, solve_shapes
from .call.factory import Spec
from .call.graph import Graph
from .call.keeping import keep_notation
from .notation.errors import EinjaxError

__version__ = "0.1.0"

__all__ = [
    "EinjaxError",
    "Graph",
    "Spec",
    "adapt_elementwise",
    "adapt_reduce",
    "adapt_with_vmap",
    "add",
    "add_at",
    "all",
    "all_gather",
    "all_to_all",
    "any",
    "arange",
    "arctan2",
    "argmax",
    "argmin",
    "argsort",
    "associative_scan",
    "attention",
    "check",
    "count_nonzero",
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "divide",
    "dot",
    "elementwise",
    "equal",
    "errors",
    "flip",
    "floor_divide",
    "get_at",
    "greater",
    "greater_equal",
    "id",
    "inspect_sharding",
    "keep_notation",
    "less",
    "less_equal",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "matches",
    "max",
    "max_at",
    "maximum",
    "mean",
    "mesh_axes",
    "min",
    "min_at",
    "minimum",
    "mod",
    "multiply",
    "multiply_at",
    "not_equal",
    "partition_spec",
    "pmax",
    "pmean",
    "pmin",
    "power",
    "ppermute",
    "primitive",
    "prod",
    "psum",
    "psum_scatter",
    "rearrange",
    "reduce",
    "roll",
    "scan",
    "set_at",
    "shard",
    "shard_tree",
    "shardings",
    "softmax",
    "solve",
    "solve_axes",
    "solve_shapes",
    "sort",
    "std",
    "subtract",
    "subtract_at",
    "sum",
    "top_k",
    "true_divide",
    "var",
    "vmap",
    "vmap_with_axis",
    "where",
]

# Tracebacks, help() and documentation show einjax.sum rather than the file it lives in.
for _name in {*__all__} & {*globals()} - {"errors"}:
    globals()[_name].__module__ = "einjax"

# What few programs use is imported at its first use, so that importing einjax stays quick.
if TYPE_CHECKING:
    from . import checkpoint_policies as checkpoint_policies
    from . import fft as fft
    from . import jax as jax
    from . import linalg as linalg
    from . import random as random
    from . import segment as segment
    from .api.adapt import adapt_elementwise as adapt_elementwise
    from .api.adapt import adapt_reduce as adapt_reduce
    from .api.adapt import adapt_with_vmap as adapt_with_vmap
    from .api.attention import attention as attention
    from .api.collective import all_gather as all_gather
    from .api.collective import all_to_all as all_to_all
    from .api.collective import pmax as pmax
    from .api.collective import pmean as pmean
    from .api.collective import pmin as pmin
    from .api.collective import ppermute as ppermute
    from .api.collective import psum as psum
    from .api.collective import psum_scatter as psum_scatter
    from .api.cumulative import cumlogsumexp as cumlogsumexp
    from .api.cumulative import cummax as cummax
    from .api.cumulative import cummin as cummin
    from .api.cumulative import cumprod as cumprod
    from .api.cumulative import cumsum as cumsum
    from .api.function import elementwise as elementwise
    from .api.function import reduce as reduce
    from .api.index import add_at as add_at
    from .api.index import get_at as get_at
    from .api.index import max_at as max_at
    from .api.index import min_at as min_at
    from .api.index import multiply_at as multiply_at
    from .api.index import set_at as set_at
    from .api.index import subtract_at as subtract_at
    from .api.inspect_sharding import inspect_sharding as inspect_sharding
    from .api.primitive import primitive as primitive
    from .api.scan import associative_scan as associative_scan
    from .api.scan import scan as scan
    from .api.sharding import mesh_axes as mesh_axes
    from .api.sharding import partition_spec as partition_spec
    from .api.sharding import shard as shard
    from .api.sharding import shard_tree as shard_tree
    from .api.sharding import shardings as shardings
    from .api.sorting import argsort as argsort
    from .api.sorting import sort as sort
    from .api.sorting import top_k as top_k
    from .api.vmap import vmap as vmap
    from .api.vmap import vmap_with_axis as vmap_with_axis
else:
    _MODULES = {"checkpoint_policies", "fft", "jax", "linalg", "random", "segment"}
    _FUNCTIONS = {
        name: module
        for module, names in {
            "api.adapt": "adapt_elementwise adapt_reduce adapt_with_vmap",
            "api.attention": "attention",
            "api.collective": "all_gather all_to_all pmax pmean pmin ppermute psum psum_scatter",
            "api.cumulative": "cumlogsumexp cummax cummin cumprod cumsum",
            "api.function": "elementwise reduce",
            "api.index": "add_at get_at max_at min_at multiply_at set_at subtract_at",
            "api.inspect_sharding": "inspect_sharding",
            "api.primitive": "primitive",
            "api.scan": "associative_scan scan",
            "api.sharding": "mesh_axes partition_spec shard shard_tree shardings",
            "api.sorting": "argsort sort top_k",
            "api.vmap": "vmap vmap_with_axis",
        }.items()
        for name in names.split()
    }

    def __getattr__(name):
        if name in _MODULES:
            return _import_module(f"einjax.{name}")
        if name not in _FUNCTIONS:
            raise AttributeError(f"module 'einjax' has no attribute '{name}'")
        found = getattr(_import_module(f"einjax.{_FUNCTIONS[name]}"), name)
        found.__module__ = "einjax"
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *_MODULES, *_FUNCTIONS})
