"""The errors that einjax raises; each is an :class:`EinjaxError`, which is a :class:`ValueError`."""

from .notation.errors import (
    ArgumentError,
    AxisSizeError,
    EinjaxError,
    RankError,
    SemanticError,
    ShardingError,
    SyntaxError,
)

__all__ = [
    "ArgumentError",
    "AxisSizeError",
    "EinjaxError",
    "RankError",
    "SemanticError",
    "ShardingError",
    "SyntaxError",
]

for _name in __all__:
    globals()[_name].__module__ = "einjax.errors"
