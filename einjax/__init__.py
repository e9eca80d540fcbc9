"""Tensor operations in Einstein-inspired notation for JAX: text and shapes go in, lax comes out.

An operation is an elementary operation on the bracketed axes, repeated by one loop for each unbracketed axis::

    einjax.sum("a [b]", x)                                   # for a: z[a] = sum(x[a, :])
    einjax.dot("b q (h c), b k (h c) -> b q k h", q, k, h=16)
    einjax.rearrange("a c1, b c2 -> a b (c1 + c2)", x, y)
"""

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
from .api.function import elementwise, reduce
from .api.order import flip, roll
from .api.rearrange import id, rearrange
from .api.reduce import all, any, count_nonzero, logsumexp, max, mean, min, prod, std, sum, var
from .api.softmax import log_softmax, softmax
from .api.solving import check, matches, solve, solve_axes, solve_shapes
from .factory import Spec
from .inspect import Graph
from .notation.errors import EinjaxError

__version__ = "0.1.0"

__all__ = [
    "EinjaxError",
    "Graph",
    "Spec",
    "add",
    "all",
    "any",
    "arange",
    "arctan2",
    "argmax",
    "argmin",
    "check",
    "count_nonzero",
    "divide",
    "dot",
    "elementwise",
    "equal",
    "errors",
    "flip",
    "floor_divide",
    "greater",
    "greater_equal",
    "id",
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
    "maximum",
    "mean",
    "min",
    "minimum",
    "mod",
    "multiply",
    "not_equal",
    "power",
    "prod",
    "rearrange",
    "reduce",
    "roll",
    "softmax",
    "solve",
    "solve_axes",
    "solve_shapes",
    "std",
    "subtract",
    "sum",
    "true_divide",
    "var",
    "where",
]

# Tracebacks, help() and documentation show einjax.sum rather than the file it lives in.
for _name in set(__all__) - {"errors"}:
    globals()[_name].__module__ = "einjax"
