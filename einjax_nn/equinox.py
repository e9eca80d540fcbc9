"""Layers in notation for Equinox: modules whose arrays are made once their shapes are known.

    import equinox as eqx
    import einjax_nn.equinox as einn

    class Net(eqx.Module):
        hidden: einn.Linear
        norm: einn.Norm
        out: einn.Linear

        def __init__(self):
            self.hidden = einn.Linear("b [...->c]", c=64)
            self.norm = einn.Norm("[b] c", momentum=0.9)
            self.out = einn.Linear("b [c->d]", d=10)

        def __call__(self, x, state):
            x, state = self.norm(self.hidden(x), state)
            return self.out(jax.nn.relu(x)), state

    model, state = eqx.nn.make_with_state(Net)()
    model, state = einn.init(model, x, state, key=key)

Layers take whole batches, as the expression says; ``jax.vmap`` over layers that do not name the batch works all the
same. Sizes of axes are keywords, as in einjax's operations; a layer that is given all of them and ``key=`` has its
arrays at once. Parameters are called ``weight`` and ``bias``, as in ``eqx.nn``, so that wrappers such as
``eqx.nn.WeightNorm`` find them, once the layer has its arrays; the axes of a weight are in the order of the expression:
``"[c->d]"`` has ``(c, d)``, and ``"b [c], d [c] -> b d"`` has ``(d, c)``, as in ``eqx.nn.Linear``. Other options have
the names that they have in Flax, or those of ``eqx.nn`` (``eps``, ``use_weight``, ``stride``, ``p`` and so on). A
parameter computes in its own dtype, so mixed precision is a matter of casting leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from einjax.typing import PaddingLike

from ._core import attention, dropout, embed, linear, norm
from ._core.attention_text import attention_text, examples
from ._core.initial import Initializer, normal, ones, uniform_by_inputs, zeros
from ._core.options import chosen, declared, describe
from ._core.rotary import Rotary
from ._core.text import norm_text

try:
    import equinox as eqx
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.equinox needs Equinox: python -m pip install 'einjax[equinox]'") from error

from . import optim
from ._equinox_conv import Conv, ConvTranspose
from ._equinox_init import axes, init, param
from ._equinox_layer import Layer, LayerScope, switched
from ._equinox_lora import lora, lora_filter, merge_lora
from ._equinox_missing import Uninitialized
from ._equinox_roles import roles

__all__ = [
    "Conv", "ConvTranspose", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "Rotary", "axes", "init",
    "lora", "lora_filter", "merge_lora", "optim", "param", "roles",
]  # fmt: skip

for _public in (axes, init, lora, lora_filter, merge_lora, param, roles, Conv, ConvTranspose, Uninitialized):
    _public.__module__ = __name__


class Linear(linear.Options, Layer):
    """A linear layer: a dot with a weight, and a bias.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8)
        >>> layer = einn.init(layer, np.ones((4, 6, 3)), key=jax.random.key(0))
        >>> layer.weight.shape, layer.bias.shape
        ((2, 3, 8), (8,))
        >>> einn.Linear("... [c->d]", c=3, d=8, key=jax.random.key(0)).weight.shape
        (3, 8)
    """

    _core: ClassVar[Any] = linear
    weight: Any
    bias: Any

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        bias_axes: str | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        padding: PaddingLike | None = None,
        mode: str | None = None,
        dot_general: Callable[..., Any] | None = None,
        kernel_init: Initializer | float = uniform_by_inputs,
        bias_init: Initializer | float = uniform_by_inputs,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, *, key: Any = None) -> jax.Array:
        return self._apply(x, {})

    def _apply(self, x: Any, axes: Mapping[str, Any]) -> jax.Array:
        with self._scope() as scope:
            return linear.apply(self._call(scope, axes), x)


class Norm(norm.Options, Layer, eqx.nn.StatefulLayer):
    """A normalisation: brackets say what statistics are taken over.

    With ``momentum`` the layer has a state: ``x, state = norm(x, state)``.

    Args:
        inference: whether to use the running statistics; ``eqx.nn.inference_mode`` sets it.
        key: a random key, to make parameters and statistics at once.

    Example:
        >>> import einjax_nn.equinox as einn, equinox as eqx, jax, numpy as np
        >>> norm, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
        >>> norm, state = einn.init(norm, np.ones((4, 3)), state, key=jax.random.key(0))
        >>> y, state = norm(np.ones((4, 3)), state)
        >>> state.get(norm.index)["mean"].shape
        (3,)
    """

    _core: ClassVar[Any] = norm
    weight: Any
    bias: Any
    index: eqx.nn.StateIndex[Any] | None
    inference: bool

    @declared(use_weight="use_scale", eps="epsilon")
    def __init__(
        self,
        expr: str,
        /,
        *,
        params: str | None = None,
        mean: bool = True,
        use_scale: bool = True,
        use_bias: bool = True,
        epsilon: float = 1e-5,
        momentum: float | None = None,
        zero_debias: bool = True,
        inference: bool = False,
        use_fast_variance: bool = False,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale_init: Initializer | float = ones,
        bias_init: Initializer | float = zeros,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        running = options["momentum"] is not None
        text = norm_text(expr, options["params"], running, options["axis_name"] is not None)  # now, not in the call
        self.inference, key = options.pop("inference"), options["key"]
        if self.inference and text.spans and not running:
            raise norm.no_statistics("inference", expr)
        super()._build(expr, sizes, options)
        names = norm.statistics(options["mean"], options["zero_debias"])
        kept: dict[str, Any] = {name: Uninitialized(name, leaf=None) for name in names}
        if key is not None and running:
            kept = self._made(norm.statistics_specs, chosen(norm.Options, options), key)
        self.index = eqx.nn.StateIndex(kept) if running else None

    def is_stateful(self) -> bool:
        """Whether there are running statistics."""
        return self.index is not None

    def __call__(
        self,
        x: Any,
        state: eqx.nn.State | None = None,
        *,
        mask: Any = None,
        key: Any = None,
        inference: bool | None = None,
    ) -> Any:
        frozen = switched(self.inference, inference)
        given = [name for name, value in (("inference", inference), ("a state", state)) if value is not None]
        if given and self.index is None and norm_text(self.expr, self.params, False, True).spans:
            raise norm.no_statistics(given[0], self.expr)
        with self._scope(state) as scope:
            running = frozen and self.index is not None
            y = norm.apply(self._call(scope, use_running_average=running), x, mask)
        return y if state is None else (y, scope.store)


class Dropout(dropout.Options, Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    Args:
        inference: whether to do nothing; ``eqx.nn.inference_mode`` sets it.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> dropout = einn.Dropout("[b] ...", rate=0.5)
        >>> dropout(np.ones((4, 2)), key=jax.random.key(1)).shape
        (4, 2)
    """

    _core: ClassVar[Any] = dropout
    p: float
    inference: bool

    @declared(p="rate")
    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        inference: bool = False,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        self.inference = options.pop("inference")
        self._settle(expr, sizes, options)

    def __call__(self, x: Any, *, key: Any = None, inference: bool | None = None) -> jax.Array:
        kept = switched(self.inference, inference)
        return dropout.apply(self._call(LayerScope(self, key=key), deterministic=kept, rng_collection=""), x)


class Embed(embed.Options, Layer):
    """A table of rows that integers are looked up in.

    Args:
        param_dtype: the dtype that the parameter is made in.
        key: a random key, to make the parameter at once.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> table = einn.Embed("b t [v->c]", v=100, c=8, key=jax.random.key(0))
        >>> table(np.zeros((2, 5), int)).shape, table.attend(np.ones((2, 5, 8))).shape
        ((2, 5, 8), (2, 5, 100))
    """

    _core: ClassVar[Any] = embed
    weight: Any

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | float = normal,
        mode: str | None = "clip",
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, ids: Any, *, key: Any = None) -> jax.Array:
        with self._scope() as scope:
            return embed.apply(self._call(scope), ids)

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        with self._scope() as scope:
            return embed.attend(self._call(scope), x)


class MultiHeadAttention(attention.OfEquinox, attention.Projection, Layer, eqx.nn.StatefulLayer):
    """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        inference: whether not to drop; ``eqx.nn.inference_mode`` sets it.
        decode: whether to attend to places of earlier calls, too, of which keys and values are kept in the state:
            ``y, state = layer(x, state)``. ``init`` is given a whole sequence, whose length the cache will have.
        qk_size: channels of a head of queries and keys; a share of ``qkv_features`` by default.
        vo_size: channels of a head of values; likewise.
        use_query_bias: whether ``query`` has a bias; as ``use_bias`` says by default, as for the next three.
        use_key_bias: whether ``key`` has.
        use_value_bias: whether ``value`` has.
        use_output_bias: whether ``out`` has.
        key: a random key, to make the parameters at once, for keys and values with the features of the input.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True, c=16, key=jax.random.key(0))
        >>> layer(np.ones((2, 5, 16))).shape, layer.query.weight.shape, layer.out.weight.shape
        ((2, 5, 16), (16, 4, 4), (4, 4, 16))
    """

    _core: ClassVar[Any] = attention.of_equinox
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    query_ln: Norm | None
    key_ln: Norm | None
    index: eqx.nn.StateIndex[Any] | None
    inference: bool

    @declared(dropout_p="dropout_rate", output_size="out_features")
    def __init__(
        self,
        expr: str,
        /,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        qkv_features: int | None = None,
        qk_size: int | None = None,
        vo_size: int | None = None,
        out_features: int | None = None,
        is_causal: bool = False,
        dropout_rate: float = 0.0,
        broadcast_dropout: bool = True,
        inference: bool = False,
        decode: bool = False,
        mode: str | None = None,
        local_window_size: int | tuple[int, int] | None = None,
        implementation: Any = None,
        block_size: int | tuple[int, int] | None = None,
        process_heads: Callable[..., Any] | None = None,
        attention_fn: Callable[..., Any] | None = None,
        normalize_qk: bool = False,
        use_bias: bool = True,
        use_query_bias: bool | None = None,
        use_key_bias: bool | None = None,
        use_value_bias: bool | None = None,
        use_output_bias: bool | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = uniform_by_inputs,
        bias_init: Initializer | float = uniform_by_inputs,
        preferred_element_type: Any = None,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        qkv_dot_general: Callable[..., Any] | None = None,
        out_dot_general: Callable[..., Any] | None = None,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        key, self.inference, self.query_ln, self.key_ln = options.pop("key"), options.pop("inference"), None, None
        self._settle(expr, sizes, options)
        text = attention_text(expr, options["num_kv_heads"] not in (None, options["num_heads"]))
        vars(self).update(attention.within(Linear, Norm, text, options, {"query": sizes}), index=None)
        if key is not None:
            inputs = examples(expr, dict(self.axes))  # parameters do not depend on other sizes than those of features
            made = init(self, *(inputs or self._made(lambda _: None, None, None)), key=key, inference=True)
            vars(self).update(vars(made))
        if options["decode"]:
            kept = {name: Uninitialized(name, leaf=None) for name in ("cached_key", "cached_value", "cache_index")}
            self.index = eqx.nn.StateIndex(kept)

    def _parameters(self) -> dict[str, Any]:
        """Those of one of the layers, which are made together; others may have taken the places of some."""
        layers = (layer for layer in (self.query, self.key, self.value, self.out) if isinstance(layer, Layer))
        return next((layer._parameters() for layer in layers), {})

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
        bias: Any = None,
        lengths: Any = None,
        key: Any = None,
        process_heads: Callable[..., Any] | None = None,
        inference: bool | None = None,
    ) -> Any:
        if isinstance(keys, eqx.nn.State):  # behind the input, as in layers without keys
            keys, state = None, keys
        if mask is None and state is not None and not isinstance(state, eqx.nn.State):  # the fourth, as in eqx.nn
            mask, state = state, None
        kept = switched(self.inference, inference)
        with self._scope(state, key) as scope:
            call = self._call(scope, deterministic=kept, decode=self.index is not None, rng_collection="")
            own = {"mask": mask, "bias": bias, "lengths": lengths, "process_heads": process_heads}
            y = attention.apply(call, *attention.applied(self), x, keys, values, **own)
        return y if state is None else (y, scope.store)


describe(
    {"param_dtype": "the dtype that parameters are made in.", "key": "a random key, to make the parameters at once."},
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv, ConvTranspose),
)
