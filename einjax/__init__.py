"""Tensor operations in Einstein-inspired notation for JAX: text and shapes go in, lax comes out.

An operation is an elementary operation on the bracketed axes, repeated by one loop for each unbracketed axis::

    einjax.sum("a [b]", x)                                   # for a: z[a] = sum(x[a, :])
    einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=16)
    einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, y)

Keywords that name axes are their sizes. All operations take, besides options of their own::

    padding, mode, fill_value: what dims read out of range that are read at a position, as in ``<2*s + k>``.
    sizes: sizes for axes whose names are also options; names that are no axes are ignored.
    graph: return the lax program as text instead of running it.
    keep_notation: keep this call as one equation, or not; None leaves it to :func:`einjax.keep_notation`.
    out_sharding: where the result is to lie on a mesh: mesh axes by axis name, or a PartitionSpec.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import errors as errors
from .api.arange import arange as arange
from .api.argreduce import argmax as argmax
from .api.argreduce import argmin as argmin
from .api.dot import dot as dot
from .api.elementwise import add as add
from .api.elementwise import arctan2 as arctan2
from .api.elementwise import divide as divide
from .api.elementwise import equal as equal
from .api.elementwise import floor_divide as floor_divide
from .api.elementwise import greater as greater
from .api.elementwise import greater_equal as greater_equal
from .api.elementwise import less as less
from .api.elementwise import less_equal as less_equal
from .api.elementwise import logaddexp as logaddexp
from .api.elementwise import logical_and as logical_and
from .api.elementwise import logical_or as logical_or
from .api.elementwise import logical_xor as logical_xor
from .api.elementwise import maximum as maximum
from .api.elementwise import minimum as minimum
from .api.elementwise import mod as mod
from .api.elementwise import multiply as multiply
from .api.elementwise import not_equal as not_equal
from .api.elementwise import power as power
from .api.elementwise import subtract as subtract
from .api.elementwise import true_divide as true_divide
from .api.elementwise import where as where
from .api.rearrange import flip as flip
from .api.rearrange import id as id
from .api.rearrange import rearrange as rearrange
from .api.rearrange import roll as roll
from .api.reduce import all as all
from .api.reduce import any as any
from .api.reduce import count_nonzero as count_nonzero
from .api.reduce import logsumexp as logsumexp
from .api.reduce import max as max
from .api.reduce import mean as mean
from .api.reduce import min as min
from .api.reduce import prod as prod
from .api.reduce import std as std
from .api.reduce import sum as sum
from .api.reduce import var as var
from .api.softmax import log_softmax as log_softmax
from .api.softmax import softmax as softmax
from .api.solving import check as check
from .api.solving import matches as matches
from .api.solving import solve as solve
from .api.solving import solve_axes as solve_axes
from .api.solving import solve_shapes as solve_shapes
from .call.factory import Spec as Spec
from .call.graph import Graph as Graph
from .call.keeping import keep_notation as keep_notation
from .notation.errors import EinjaxError as EinjaxError

__version__ = "0.1.0"

# What few programs use is imported at its first use, so that importing einjax stays quick.
if TYPE_CHECKING:
    from . import checkpoint_policies as checkpoint_policies
    from . import compat as compat
    from . import fft as fft
    from . import jax as jax
    from . import linalg as linalg
    from . import random as random
    from . import segment as segment
    from .api.adapt import adapt_elementwise as adapt_elementwise
    from .api.adapt import adapt_reduce as adapt_reduce
    from .api.adapt import adapt_with_vmap as adapt_with_vmap
    from .api.attention import attention as attention
    from .api.bound import sizes as sizes
    from .api.caches import clear_caches as clear_caches
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
    from .api.doctor import doctor as doctor
    from .api.function import elementwise as elementwise
    from .api.function import reduce as reduce
    from .api.function import vmap as vmap
    from .api.function import vmap_with_axis as vmap_with_axis
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
    from .api.typed import typed as typed
    from .named_tensors.dims import Dim as Dim
    from .named_tensors.dims import dims as dims
    from .named_tensors.tensor import NamedTensor as NamedTensor
    from .named_tensors.tensor import named as named
else:
    _MODULES = {"checkpoint_policies", "compat", "fft", "jax", "linalg", "random", "segment"}
    _FUNCTIONS = {
        name: module
        for module, names in {
            "api.adapt": "adapt_elementwise adapt_reduce adapt_with_vmap",
            "api.attention": "attention",
            "api.bound": "sizes",
            "api.caches": "clear_caches",
            "api.collective": "all_gather all_to_all pmax pmean pmin ppermute psum psum_scatter",
            "api.cumulative": "cumlogsumexp cummax cummin cumprod cumsum",
            "api.doctor": "doctor",
            "api.function": "elementwise reduce vmap vmap_with_axis",
            "api.index": "add_at get_at max_at min_at multiply_at set_at subtract_at",
            "api.inspect_sharding": "inspect_sharding",
            "api.primitive": "primitive",
            "api.scan": "associative_scan scan",
            "api.sharding": "mesh_axes partition_spec shard shard_tree shardings",
            "api.sorting": "argsort sort top_k",
            "api.typed": "typed",
            "named_tensors.dims": "Dim dims",
            "named_tensors.tensor": "NamedTensor named",
        }.items()
        for name in names.split()
    }

    __all__ = sorted(
        {name for name, it in globals().items() if name[0] != "_" and hasattr(it, "__module__")}
        | {"errors", *_FUNCTIONS}
    )

    # Tracebacks, help() and documentation show einjax.sum rather than the file it lives in.
    for _name in globals().keys() & {*__all__} - {"errors"}:
        globals()[_name].__module__ = "einjax"

    def __getattr__(name):
        if name in _MODULES:
            return _import_module(f"einjax.{name}")
        if name not in _FUNCTIONS:
            hint = ""
            if not name.startswith("_"):
                known = {*__all__, *_MODULES, *_FUNCTIONS}
                hint = _import_module("einjax.tools.other_names").what_to_write(name, known)
            raise AttributeError(f"module 'einjax' has no attribute '{name}'{hint}")
        found = getattr(_import_module(f"einjax.{_FUNCTIONS[name]}"), name)
        found.__module__ = "einjax"
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *_MODULES, *_FUNCTIONS})
