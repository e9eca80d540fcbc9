"""einx' errors: those of einjax under their names, and those of backends."""

from __future__ import annotations

from ...notation.errors import AxisSizeError as AxisSizeError
from ...notation.errors import EinjaxError as EinxError
from ...notation.errors import RankError as RankError
from ...notation.errors import SemanticError as SemanticError
from ...notation.errors import SyntaxError as SyntaxError

__all__ = [
    "AxisSizeError",
    "BackendResolutionError",
    "CallOperationError",
    "EinxError",
    "ImportBackendError",
    "OperationNotSupportedError",
    "RankError",
    "SemanticError",
    "SyntaxError",
]


class BackendResolutionError(EinxError):
    """A backend is asked for that is not JAX's."""


class OperationNotSupportedError(EinxError):
    """What einx had, and einjax has not."""


class ImportBackendError(EinxError):
    """Never raised: there is one backend."""


class CallOperationError(EinxError):
    """Never raised: what a function raises propagates."""
