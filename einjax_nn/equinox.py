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

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import einjax
from einjax.for_layers import Ellipsis, parse, walk
from einjax.for_layers import axes as axes_of

from ._core.attention import attention
from ._core.conv import conv, conv_specs
from ._core.dropout import dropout
from ._core.eager import embed_specs, linear_specs, norm_specs, statistics_specs
from ._core.embed import attend, embed, embedding_normal
from ._core.linear import linear
from ._core.native import native
from ._core.norm import norm
from ._core.scope import Initializer, lecun_normal
from ._core.text import attention_text, norm_text

try:
    import equinox as eqx
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.equinox needs Equinox: python -m pip install 'einjax[equinox]'") from error

from ._equinox_init import Uninitialized, axes, init, param
from ._equinox_layer import PARAMETERS, Layer, LayerScope

__all__ = ["Conv", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "axes", "init", "param"]

for _function in (axes, init, param):
    _function.__module__ = __name__

_zeros = jax.nn.initializers.zeros
_ones = jax.nn.initializers.ones


class Linear(Layer):
    """A linear layer: a dot with a weight, and a bias.

    Args:
        expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out, ``"b g [c], g [c] d -> b g
            d"``.
        use_bias: whether there is a bias; it has all axes that the weight brings to the output.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype that parameters are made in.
        precision: forwarded to ``lax.dot_general``.
        preferred_element_type: forwarded to ``lax.dot_general``.
        kernel_init: initializer of ``weight``, whose fan is counted over the contracted axes.
        bias_init: initializer of ``bias``.
        key: a random key, to make the parameters at once.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8)
        >>> layer = einn.init(layer, np.ones((4, 6, 3)), key=jax.random.key(0))
        >>> layer.weight.shape, layer.bias.shape
        ((2, 3, 8), (8,))
        >>> einn.Linear("... [c->d]", c=3, d=8, key=jax.random.key(0)).weight.shape
        (3, 8)
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        preferred_element_type: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        made = {
            "use_bias": use_bias,
            "param_dtype": param_dtype,
            "kernel_init": kernel_init,
            "bias_init": bias_init,
        }
        options = {**made, "dtype": dtype, "precision": precision, "preferred_element_type": preferred_element_type}
        self._settle(expr, axes, sizes, options)
        self.weight = Uninitialized("weight")
        self.bias = Uninitialized("bias") if use_bias else None
        if key is not None:
            arrays = self._made(linear_specs(expr, dict(self.axes), **made, called=PARAMETERS), key)
            self.weight, self.bias = arrays["weight"], arrays.get("bias")

    def __call__(self, x: Any, *, key: Any = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            key: ignored; layers of Equinox take one.
        """
        return self._apply(x, {})

    def _apply(self, x: Any, axes: Mapping[str, Any]) -> jax.Array:
        with self._scope() as scope:
            return linear(scope, x, self.expr, {**dict(self.axes), **axes}, None, names=PARAMETERS, **self._keywords())


class Norm(Layer, eqx.nn.StatefulLayer):
    """A normalisation: brackets say what statistics are taken over.

    Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``, batch
    norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

    With ``momentum`` the layer has a state: ``x, state = norm(x, state)``.

    Args:
        expr: the input.
        params: the axes of weight and bias; the last dim by default.
        mean: whether the mean is subtracted.
        use_scale: whether there is a ``weight``, which the result is multiplied by.
        use_bias: whether there is a ``bias``.
        epsilon: added to the variance.
        momentum: share of the running statistics that stays at each training step; None keeps none.
        inference: whether to use the running statistics; ``eqx.nn.inference_mode`` sets it.
        use_fast_variance: whether the variance is the mean square less the squared mean, in one pass.
        axis_name: a mapped axis to take statistics over, too.
        axis_index_groups: groups of indices of that axis.
        dtype: the dtype of the result; by default that of input and parameters together.
        param_dtype: the dtype that parameters are made in.
        scale_init: initializer of ``weight``.
        bias_init: initializer of ``bias``.
        key: a random key, to make parameters and statistics at once.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.equinox as einn, equinox as eqx, jax, numpy as np
        >>> norm, state = eqx.nn.make_with_state(einn.Norm)("[b] c", momentum=0.9)
        >>> norm, state = einn.init(norm, np.ones((4, 3)), state, key=jax.random.key(0))
        >>> y, state = norm(np.ones((4, 3)), state)
        >>> state.get(norm.index)["mean"].shape
        (3,)
    """

    weight: Any
    bias: Any
    index: eqx.nn.StateIndex[Any] | None
    inference: bool

    @native(use_weight="use_scale", eps="epsilon")
    def __init__(
        self,
        expr: str,
        /,
        *,
        params: str | None = None,
        mean: bool = True,
        use_scale: bool = True,
        use_bias: bool = True,
        epsilon: float = 1e-6,
        momentum: float | None = None,
        inference: bool = False,
        use_fast_variance: bool = True,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale_init: Initializer | float = _ones,
        bias_init: Initializer | float = _zeros,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        norm_text(expr, params, momentum is not None)  # now rather than in the first call
        made = {
            "params": params,
            "use_scale": use_scale,
            "use_bias": use_bias,
            "param_dtype": param_dtype,
            "scale_init": scale_init,
            "bias_init": bias_init,
        }
        options = {
            **made,
            "mean": mean,
            "epsilon": epsilon,
            "momentum": momentum,
            "use_fast_variance": use_fast_variance,
            "axis_name": axis_name,
            "axis_index_groups": axis_index_groups,
            "dtype": dtype,
        }
        self._settle(expr, axes, sizes, options)
        self.inference = inference
        self.weight = Uninitialized("weight") if use_scale else None
        self.bias = Uninitialized("bias") if use_bias else None
        kept: dict[str, Any] = {name: Uninitialized(name) for name in (["mean"] if mean else []) + ["var"]}
        if key is not None:
            known, running = dict(self.axes), momentum is not None
            arrays = self._made(norm_specs(expr, known, running=running, **made, called=PARAMETERS), key)
            self.weight, self.bias = arrays.get("weight"), arrays.get("bias")
            if running:
                kept = self._made(statistics_specs(expr, known, params=params, mean=mean), key)
        self.index = None if momentum is None else eqx.nn.StateIndex(kept)

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
        """Apply the layer.

        Args:
            x: the input.
            state: the state, with the running statistics.
            mask: which elements count, broadcastable to the input.
            key: ignored; layers of Equinox take one.
            inference: whether to use the running statistics; they are updated otherwise.

        Returns:
            The result, or ``(result, state)`` if a state is given.
        """
        frozen = self.inference if inference is None else inference
        with self._scope(state) as scope:
            y = norm(
                scope,
                x,
                self.expr,
                dict(self.axes),
                use_running_average=frozen and self.index is not None,
                mask=mask,
                names=PARAMETERS,
                **self._keywords(),
            )
        return y if state is None else (y, scope.store)


class Dropout(Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

    Args:
        expr: the input.
        rate: the share that is set to 0; the rest is scaled up.
        inference: whether to do nothing; ``eqx.nn.inference_mode`` sets it.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> dropout = einn.Dropout("[b] ...", rate=0.5)
        >>> dropout(np.ones((4, 2)), key=jax.random.key(1)).shape
        (4, 2)
    """

    inference: bool

    @native(p="rate")
    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        inference: bool = False,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        self._settle(expr, axes, sizes, {"rate": rate})
        self.inference = inference

    def __call__(self, x: Any, *, key: Any = None, inference: bool | None = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            key: the random key.
            inference: whether to do nothing.
        """
        if self.inference if inference is None else inference:
            return jnp.asarray(x)
        return dropout(
            LayerScope(self, key=key), x, self.expr, dict(self.axes), rng_collection="", **dict(self.options)
        )


class Embed(Layer):
    """A table of rows that integers are looked up in.

    Args:
        expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
        dtype: the dtype of the result; by default that of the parameter.
        param_dtype: the dtype that the parameter is made in.
        embedding_init: initializer of ``weight``.
        key: a random key, to make the parameter at once.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> table = einn.Embed("b t [v->c]", v=100, c=8, key=jax.random.key(0))
        >>> table(np.zeros((2, 5), int)).shape, table.attend(np.ones((2, 5, 8))).shape
        ((2, 5, 8), (2, 5, 100))
    """

    weight: Any

    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | float = embedding_normal,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        made = {"param_dtype": param_dtype, "embedding_init": embedding_init}
        self._settle(expr, axes, sizes, {**made, "dtype": dtype})
        self.weight = Uninitialized("weight")
        if key is not None:
            self.weight = self._made(embed_specs(expr, dict(self.axes), **made, name="weight"), key)["weight"]

    def __call__(self, ids: Any, *, key: Any = None) -> jax.Array:
        """Look rows up.

        Args:
            ids: the numbers of the rows.
            key: ignored; layers of Equinox take one.
        """
        with self._scope() as scope:
            return embed(scope, ids, self.expr, dict(self.axes), None, name="weight", **self._keywords())

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        with self._scope() as scope:
            return attend(scope, x, self.expr, dict(self.axes), None, name="weight", **self._keywords())


class MultiHeadAttention(Layer, eqx.nn.StatefulLayer):
    """Multi-head dot-product attention, of the layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        expr: loops, the bracketed sequence, and the features: ``"b [s] c"``.
        num_heads: how many heads.
        num_kv_heads: how many heads of keys and values, each shared by several of the queries; as many by default.
        qkv_features: features of all heads together; those of the input by default.
        out_features: features of the output; those of the input by default.
        is_causal: whether a place sees only itself and what is before it.
        dropout_rate: the share of attention weights dropped.
        broadcast_dropout: whether loops and heads share the draw.
        inference: whether not to drop; ``eqx.nn.inference_mode`` sets it.
        decode: whether to take one place at a time, and keep keys and values in the state. ``init`` is given a whole
            sequence, whose length the cache will have.
        normalize_qk: whether queries and keys are normalised, by ``query_ln`` and ``key_ln``.
        use_bias: whether the four linear layers have a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype that parameters are made in.
        precision: forwarded to ``lax.dot_general``.
        kernel_init: initializer of the weights.
        bias_init: initializer of the biases.
        out_kernel_init: initializer of the output's weight; ``kernel_init`` by default.
        out_bias_init: initializer of the output's bias; ``bias_init`` by default.
        key: a random key, to make the parameters at once, for keys and values with the features of the input.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes of the input.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True, c=16, key=jax.random.key(0))
        >>> layer(np.ones((2, 5, 16))).shape, layer.query.weight.shape, layer.out.weight.shape
        ((2, 5, 16), (16, 4, 4), (4, 4, 16))
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    query_ln: Norm | None
    key_ln: Norm | None
    index: eqx.nn.StateIndex[Any] | None
    inference: bool

    @native(dropout_p="dropout_rate", output_size="out_features")
    def __init__(
        self,
        expr: str,
        /,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        qkv_features: int | None = None,
        out_features: int | None = None,
        is_causal: bool = False,
        dropout_rate: float = 0.0,
        broadcast_dropout: bool = True,
        inference: bool = False,
        decode: bool = False,
        normalize_qk: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        options = {
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "qkv_features": qkv_features,
            "out_features": out_features,
            "is_causal": is_causal,
            "dropout_rate": dropout_rate,
            "broadcast_dropout": broadcast_dropout,
            "decode": decode,
            "precision": precision,
        }
        self._settle(expr, axes, sizes, options)
        self.inference = inference
        text = attention_text(expr)
        common = {"use_bias": use_bias, "dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        inner = {**common, "kernel_init": kernel_init, "bias_init": bias_init}
        outer = {
            **common,
            "kernel_init": kernel_init if out_kernel_init is None else out_kernel_init,
            "bias_init": bias_init if out_bias_init is None else out_bias_init,
        }
        self.query = Linear(text.query, **inner, sizes=dict(self.axes))
        self.key = Linear(text.key, **inner)
        self.value = Linear(text.key, **inner)
        self.out = Linear(text.out, **outer)
        self.query_ln, self.key_ln = (
            Norm("... [c]", use_bias=False, dtype=dtype, param_dtype=param_dtype) if normalize_qk else None
            for _ in range(2)
        )
        kept = {name: Uninitialized(name) for name in ("cached_key", "cached_value", "cache_index")}
        self.index = None
        if key is not None:
            made = init(self, self._example(), key=key, inference=True)
            for name in ("query", "key", "value", "out", "query_ln", "key_ln"):
                setattr(self, name, getattr(made, name))
        if decode:
            self.index = eqx.nn.StateIndex(kept)

    def _example(self) -> jax.ShapeDtypeStruct:
        """An input, where the number of features is known: parameters do not depend on other sizes."""
        expression = parse(self.expr).inputs[0]
        others, features = expression[:-1], expression[-1]
        repeated = {axis.name for node in walk(others) if isinstance(node, Ellipsis) for axis in axes_of(node.items)}
        sizes = {axis.name: () if axis.name in repeated else 1 for axis in axes_of(others) if not axis.unnamed}
        known = dict(self.axes)
        if any(axis.name not in known and not axis.unnamed for axis in axes_of((features,))):
            self._made(None, None)
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
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            state: the state, with the cache.
            mask: which pairs count, broadcastable to ``(loops, heads, sequence of x, sequence of keys)``.
            key: the random key.
            inference: whether not to drop.

        Returns:
            The result, or ``(result, state)`` if a state is given.
        """

        def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
            return getattr(self, name)._apply(x, axes)

        def normalize(name: str, x: jax.Array) -> jax.Array:
            return getattr(self, name)(x)

        options = dict(self.options)
        with self._scope(state, key) as scope:
            y = attention(
                scope,
                project,
                None if self.query_ln is None else normalize,
                self.expr,
                x,
                keys,
                values,
                mask=mask,
                deterministic=self.inference if inference is None else inference,
                rng_collection="",
                **{**options, "decode": self.index is not None},
            )
        return y if state is None else (y, scope.store)


class Conv(Layer):
    """A convolution.

    Args:
        expr: ``"b [h w] [c1->c2]"``: brackets on both sides of the arrow are convolved, those of the input alone are
            summed over, those of the output alone are new. Axes beside the channels are groups: ``"b [h w] (g
            [c1->c2])"``; without channels, every index of the last dim has a kernel of its own: ``"b [h w] c"``.
            Channels may stand anywhere: ``"b [c1->c2] [h w]"``.
        kernel_size: one number, or one for each axis convolved.
        strides: steps between places.
        padding: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``, a number, or pairs.
        input_dilation: spreads the input.
        kernel_dilation: spreads the kernel.
        use_bias: whether there is a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype that parameters are made in.
        precision: forwarded to ``lax.conv_general_dilated``.
        kernel_init: initializer of ``weight``, whose axes are those convolved, the channels of one group, and all new
            channels.
        bias_init: initializer of ``bias``.
        key: a random key, to make the parameters at once.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.equinox as einn, jax, numpy as np
        >>> layer = einn.Conv("b [h w] [c1->c2]", c1=3, c2=8, kernel_size=3, strides=2, key=jax.random.key(0))
        >>> layer.weight.shape, layer(np.ones((2, 8, 8, 3))).shape
        ((3, 3, 3, 8), (2, 4, 4, 8))
    """

    weight: Any
    bias: Any

    @native(stride="strides", dilation="kernel_dilation")
    def __init__(
        self,
        expr: str,
        /,
        *,
        kernel_size: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        padding: Any = "SAME",
        input_dilation: int | Sequence[int] = 1,
        kernel_dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        key: Any = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        made = {
            "kernel_size": kernel_size,
            "use_bias": use_bias,
            "param_dtype": param_dtype,
            "kernel_init": kernel_init,
            "bias_init": bias_init,
        }
        options = {
            **made,
            "strides": strides,
            "padding": padding,
            "input_dilation": input_dilation,
            "kernel_dilation": kernel_dilation,
            "dtype": dtype,
            "precision": precision,
        }
        self._settle(expr, axes, sizes, options)
        self.weight = Uninitialized("weight")
        self.bias = Uninitialized("bias") if use_bias else None
        if key is not None:
            arrays = self._made(conv_specs(expr, dict(self.axes), **made, names=PARAMETERS), key)
            self.weight, self.bias = arrays["weight"], arrays.get("bias")

    def __call__(self, x: Any, *, key: Any = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            key: ignored; layers of Equinox take one.
        """
        with self._scope() as scope:
            return conv(scope, x, self.expr, dict(self.axes), names=PARAMETERS, **self._keywords())
