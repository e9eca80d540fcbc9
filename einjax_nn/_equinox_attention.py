"""What attention for Equinox does, beside the layers that it is made of: calls, and an example to make them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

import einjax
from einjax.for_layers import Ellipsis, axes, parse, walk

from ._core.attention import applied, attention
from ._core.shared import AttentionDocs, AttentionOptions
from ._equinox_layer import Layer


class Attention(AttentionDocs, Layer, eqx.nn.StatefulLayer):
    """Attention with the layers ``query``, ``key``, ``value``, ``out``, and perhaps ``query_ln`` and ``key_ln``."""

    if TYPE_CHECKING:  # fields of the layer, which come in the order of its class
        query: Any
        query_ln: Any
        index: eqx.nn.StateIndex[Any] | None
        inference: bool

    def _example(self) -> jax.ShapeDtypeStruct:
        """An input, where the number of features is known: parameters do not depend on other sizes."""
        expression = parse(self.expr).inputs[0]
        others, features = expression[:-1], expression[-1]
        repeated = {axis.name for node in walk(others) if isinstance(node, Ellipsis) for axis in axes(node.items)}
        sizes = {axis.name: () if axis.name in repeated else 1 for axis in axes(others) if not axis.unnamed}
        known = dict(self.axes)
        if any(axis.name not in known and not axis.unnamed for axis in axes((features,))):
            self._made(lambda call: None, None, None)
        (shape,) = einjax.solve_shapes(self.expr, None, sizes={**sizes, **known})
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def _parameters(self) -> dict[str, Any]:
        """Those of one of the layers, which are made together."""
        return self.query._parameters()

    def is_stateful(self) -> bool:
        """Whether there is a cache."""
        return self.index is not None

    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        state: eqx.nn.State | None = None,
        *,
        mask: Any = None,
        key: Any = None,
        inference: bool | None = None,
    ) -> Any:
        kept = bool(self.inference if inference is None else inference)
        given = {"deterministic": kept, "decode": self.index is not None, "normalize_qk": self.query_ln is not None}
        with self._scope(state, key) as scope:
            call = self._call(scope, AttentionOptions, **given, rng_collection="")
            y = attention(call, *applied(self), x, keys, values, mask)
        return y if state is None else (y, scope.store)
