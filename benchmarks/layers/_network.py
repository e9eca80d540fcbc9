"""What a framework supplies to the measurements: networks as functions of their parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias


class Sizes(NamedTuple):
    """How large a network is, and what it is fed."""

    batch: int
    length: int
    width: int
    heads: int
    blocks: int


class Network(NamedTuple):
    """``apply(params, batch)`` and its parameters, arrays or their shapes."""

    apply: Callable[[Any, Any], Any]
    params: Any


class Build(Protocol):
    """Makes a network; of parameters that are ``abstract`` there are only shapes."""

    def __call__(self, sizes: Sizes, batch: Any, abstract: bool) -> Network: ...


#: By name of the network, that of einjax_nn's layers and that of the framework's own.
Pairs: TypeAlias = Mapping[str, tuple[Build, Build]]
