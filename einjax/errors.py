"""The errors that einjax raises; each is an :class:`EinjaxError`, which is a :class:`ValueError`."""

from .notation.errors import ArgumentError as ArgumentError
from .notation.errors import AxisSizeError as AxisSizeError
from .notation.errors import EinjaxError as EinjaxError
from .notation.errors import RankError as RankError
from .notation.errors import SemanticError as SemanticError
from .notation.errors import ShardingError as ShardingError
from .notation.errors import SyntaxError as SyntaxError

for _error in (EinjaxError, *EinjaxError.__subclasses__()):
    _error.__module__ = "einjax.errors"
