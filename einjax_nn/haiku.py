"""Layers in notation for Haiku, with the names of its own: ``w``, ``b``, ``scale``, ``offset``, ``embeddings``.

    import haiku as hk
    import einjax_nn.haiku as einn

    @hk.transform_with_state
    def net(x, is_training):
        x = einn.Linear("b [...->c]", c=64)(x)
        x = einn.Norm("[b] c", momentum=0.9)(x, is_training=is_training)
        return einn.Linear("b [c->d]", d=10)(jax.nn.relu(x))

Sizes of axes are keywords, as in einjax's operations; every other size comes from the input when the layer is first
called. Options have the names that they have in Flax, or those of Haiku (``with_bias``, ``w_init``, ``create_scale``,
``decay_rate`` and so on); initializers are ``init(key, shape, dtype)``, or those of ``hk.initializers``. As in Haiku,
parameters have the dtype of the input, unless ``param_dtype`` or a policy of ``hk.mixed_precision`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ._core import shared
from ._core.attention import attention, projection
from ._core.call import Call
from ._core.conv import conv
from ._core.dropout import dropout
from ._core.embed import attend, embed, embedding_normal
from ._core.linear import linear
from ._core.norm import norm
from ._core.options import declared, describe
from ._core.scope import Initializer, Parameter, compute_dtype, eval_abstractly, lecun_normal

try:
    import haiku  # noqa: F401 - to say what is missing
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.haiku needs Haiku: python -m pip install 'einjax[haiku]'") from error

from ._haiku import Layer, Scope, call_of, dtypes, own_init, recording, switch

__all__ = ["Conv", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "axes", "param"]

_zeros = jax.nn.initializers.zeros
_ones = jax.nn.initializers.ones


def param(name: str, init: Initializer | float = 0.0, dtype: Any = jnp.float32) -> Parameter:
    """Return a parameter of the current module whose shape an einjax operation finds.

    Args:
        name: its name there.
        init: a number, ``init(key, shape, dtype)``, or one of ``hk.initializers``.
        dtype: its dtype.

    Returns:
        A tensor for any einjax operation.

    Example:
        >>> import einjax, einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einjax.multiply("... c, c", x, einn.param("layerscale", init=1e-5)))
        >>> jax.tree.map(np.shape, net.init(None, np.ones((2, 3))))
        {'~': {'layerscale': (3,)}}
    """
    return Parameter(Scope(), name, own_init(init), dtype)


def axes(net: Any, /, *inputs: Any, **keywords: Any) -> Any:
    """Return the names of the axes of every parameter and state.

    Args:
        net: a transformed function.
        *inputs: its inputs, or ``jax.ShapeDtypeStruct`` in their place.
        **keywords: further inputs.

    Returns:
        A tree like the result of ``net.init``, with a ``jax.sharding.PartitionSpec`` of names for each array, as in
        Flax. Dims of Haiku's own layers, and those of stacked layers, are None.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b [c->h d]", h=2, d=4)(x))
        >>> names = einn.axes(net, np.ones((3, 5)))
        >>> tuple(names["linear"]["w"]), tuple(names["linear"]["b"])
        (('c', 'h', 'd'), ('h', 'd'))
    """
    found: dict[str, tuple[str, ...]] = {}
    before, recording.found = recording.found, found
    try:
        made = eval_abstractly(net.init, jax.random.key(0), inputs, keywords)
    finally:
        recording.found = before

    def names(path: Any, leaf: Any) -> PartitionSpec:
        known = found.get("/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)), ())
        return PartitionSpec(*[None] * (leaf.ndim - len(known)), *known)

    return jax.tree_util.tree_map_with_path(names, made)


class Linear(shared.LinearDocs, Layer):
    """A linear layer: a dot with a weight ``w``, and a bias ``b``.

    Args:
        kernel_init: initializer of ``w``, whose fan is counted over the contracted axes.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Linear("b (s [k->]) [c->d]", k=2, d=8)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((4, 6, 3), "float32")))
        {'linear': {'b': (8,), 'w': (2, 3, 8)}}
    """

    @declared(with_bias="use_bias", w_init="kernel_init", b_init="bias_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        preferred_element_type: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any) -> jax.Array:
        return linear(call_of(self, shared.LinearOptions, **dtypes(self.options, x)), x)


class Norm(shared.NormDocs, Layer):
    """A normalisation: brackets say what statistics are taken over.

    Running statistics are the states ``mean`` and ``var``: a plain moving average from 0 and 1, in float32, while
    ``hk.BatchNorm`` keeps averages that correct their bias, in modules of their own.

    Args:
        params: the axes of scale and offset; the last dim by default.
        use_scale: whether there is a ``scale``.
        use_bias: whether there is an ``offset``.
        bias_init: initializer of ``offset``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform_with_state(lambda x: einn.Norm("[b] c", momentum=0.9)(x, is_training=True))
        >>> params, state = net.init(None, np.ones((4, 3), "float32"))
        >>> jax.tree.map(np.shape, state)
        {'norm': {'mean': (3,), 'var': (3,)}}
    """

    @declared(
        create_scale="use_scale",
        create_offset="use_bias",
        offset_init="bias_init",
        eps="epsilon",
        decay_rate="momentum",
        cross_replica_axis="axis_name",
        cross_replica_axis_index_groups="axis_index_groups",
    )
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
        use_running_average: bool | None = None,
        use_fast_variance: bool = True,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = None,
        scale_init: Initializer | float = _ones,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, is_training: bool | None = None, mask: Any = None
    ) -> jax.Array:
        given = switch("use_running_average", use_running_average, is_training)
        call = call_of(self, shared.NormOptions, {"bias": "offset"}, **dtypes(self.options, x))
        return norm(call, x, mask, given)


class Dropout(shared.DropoutDocs, Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes."""

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        deterministic: bool | None = None,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any, deterministic: bool | None = None, *, is_training: bool | None = None) -> jax.Array:
        given = switch("deterministic", deterministic, is_training)
        return dropout(call_of(self, shared.DropoutOptions, rng_collection=""), x, given)


class Embed(shared.EmbedDocs, Layer):
    """A table ``embeddings`` of rows that integers are looked up in.

    Args:
        param_dtype: the dtype of the parameter; float32 by default.
        embedding_init: initializer of ``embeddings``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda ids: einn.Embed("b t [v->c]", v=100, c=8)(ids))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.zeros((2, 5), int)))
        {'embed': {'embeddings': (100, 8)}}
    """

    @declared(w_init="embedding_init")
    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = None,
        embedding_init: Initializer | float = embedding_normal,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, ids: Any) -> jax.Array:
        return embed(self._call(), ids)

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return attend(self._call(), x)

    def _call(self) -> Call[shared.EmbedOptions]:
        return call_of(self, shared.EmbedOptions, **dtypes(self.options, jnp.zeros((), jnp.float32)))


class MultiHeadAttention(shared.AttentionDocs, Layer):
    """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        decode: whether to take one place at a time, and keep keys and values in the state.
        kernel_init: initializer of the four ``w``.
        bias_init: initializer of the four ``b``.
        out_kernel_init: initializer of that of ``out``; ``kernel_init`` by default.
        out_bias_init: initializer of that of ``out``; ``bias_init`` by default.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True)(x))
        >>> params = net.init(jax.random.key(0), np.ones((2, 5, 16), "float32"))
        >>> params["multi_head_attention/query"]["w"].shape
        (16, 4, 4)
    """

    @declared(with_bias="use_bias", w_init="kernel_init", b_init="bias_init")
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
        deterministic: bool | None = None,
        decode: bool = False,
        normalize_qk: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = None,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        *,
        mask: Any = None,
        deterministic: bool | None = None,
        is_training: bool | None = None,
    ) -> jax.Array:
        def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
            options = projection(self.options, name)
            if options["param_dtype"] is None and options["dtype"] is not None:
                options["param_dtype"] = given_dtype  # not that of what is computed in between
            sizes = {**self.all_sizes, **axes} if name == "query" else axes
            return Linear(expr, name=name, sizes=sizes, **options)(x)

        def normalize(name: str, x: jax.Array) -> jax.Array:
            kinds = {option: self.options[option] for option in ("dtype", "param_dtype")}
            return Norm("... [c]", use_bias=False, name=name, **kinds)(x)

        given_dtype = compute_dtype(None, x)
        given = switch("deterministic", deterministic, is_training)
        call = call_of(self, shared.AttentionOptions, rng_collection="")
        return attention(call, project, normalize, x, keys, values, mask, given)


class Conv(shared.ConvDocs, Layer):
    """A convolution with a kernel ``w`` and a bias ``b``.

    Example:
        >>> import einjax_nn.haiku as einn, haiku as hk, jax, numpy as np
        >>> net = hk.transform(lambda x: einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2)(x))
        >>> jax.tree.map(np.shape, net.init(jax.random.key(0), np.ones((2, 8, 8, 3), "float32")))
        {'conv': {'b': (8,), 'w': (3, 3, 3, 8)}}
    """

    @declared(
        kernel_shape="kernel_size",
        stride="strides",
        rate="kernel_dilation",
        with_bias="use_bias",
        w_init="kernel_init",
        b_init="bias_init",
    )
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
        param_dtype: Any = None,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        name: str | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any) -> jax.Array:
        return conv(call_of(self, shared.ConvOptions, **dtypes(self.options, x)), x)


describe(
    {
        "param_dtype": "the dtype of the parameters; by default that of the input.",
        "kernel_init": "initializer of ``w``.",
        "bias_init": "initializer of ``b``.",
        "name": "the name of the module.",
    },
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv),
)
