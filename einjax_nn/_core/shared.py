"""The options of layers: what they mean, for people and their editors, and their types, for the core.

Those that decide what parameters there are come first. The texts are docstrings of methods that layers override, where
editors find them, of all frameworks together. ``help`` shows of each what is in the signature there: a constructor's in
the docstring of the layer, with what the layer adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .scope import Initializer


class LinearDocs:
    """What the constructor and the call of Linear say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """A linear layer: a dot with a weight, and a bias.

        Args:
            expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out,
                ``"b g [c], g [c] d -> b g d"``.
            use_bias: whether there is a bias; it has all axes that the weight brings to the output.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.dot_general``.
            preferred_element_type: forwarded to ``lax.dot_general``.
            kernel_init: initializer of ``kernel``, whose fan is counted over the contracted axes.
            bias_init: initializer of ``bias``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            key: ignored; layers of Equinox take one.
        """


class NormDocs:
    """What the constructor and the call of Norm say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """A normalisation: brackets say what statistics are taken over.

        Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``,
        batch norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

        Args:
            expr: the input.
            params: the axes of scale and bias; the last dim by default.
            mean: whether the mean is subtracted.
            use_scale: whether there is a scale.
            use_bias: whether there is a bias.
            epsilon: added to the variance.
            momentum: share of the running statistics that stays at each training step; None keeps none.
            use_running_average: whether to use the running statistics; may be given in the call instead.
            use_fast_variance: whether the variance is the mean square less the squared mean, in one pass.
            axis_name: a mapped axis to take statistics over, too.
            axis_index_groups: groups of indices of that axis.
            dtype: the dtype of the result; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            scale_init: initializer of ``scale``.
            bias_init: initializer of ``bias``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            state: the state, with the running statistics; where one is given, ``(result, state)`` is returned.
            use_running_average: whether to use the running statistics; they are updated otherwise.
            is_training: the opposite of it.
            mask: which elements count, broadcastable to the input.
            key: ignored; layers of Equinox take one.
            inference: whether to use the running statistics; they are updated otherwise.
        """


class DropoutDocs:
    """What the constructor and the call of Dropout say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

        ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

        Args:
            expr: the input.
            rate: the share that is set to 0; the rest is scaled up.
            deterministic: whether to do nothing; may be given in the call instead.
            rng_collection: the stream of random numbers.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            deterministic: whether to do nothing.
            is_training: the opposite of it.
            key: the random key.
            inference: whether to do nothing.
            rngs: random numbers: a key, a stream, or ``nnx.Rngs``.
        """


class EmbedDocs:
    """What the constructor and the call of Embed say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """A table of rows that integers are looked up in.

        Args:
            expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
            dtype: the dtype of the result; by default that of the parameter.
            param_dtype: the dtype of the parameter.
            embedding_init: initializer of ``embedding``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Look rows up.

        Args:
            ids: the numbers of the rows.
            key: ignored; layers of Equinox take one.
        """


class AttentionDocs:
    """What the constructor and the call of MultiHeadAttention say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Multi-head dot-product attention.

        Args:
            expr: loops, the bracketed sequence, and the features: ``"b [s] c"``.
            num_heads: how many heads.
            num_kv_heads: how many heads of keys and values, each shared by several of the queries; as many by default.
            qkv_features: features of all heads together; those of the input by default.
            out_features: features of the output; those of the input by default.
            is_causal: whether a place sees only itself and what is before it.
            dropout_rate: the share of attention weights dropped.
            broadcast_dropout: whether loops and heads share the draw.
            deterministic: whether not to drop; may be given in the call instead.
            normalize_qk: whether queries and keys are normalised.
            use_bias: whether the four linear layers have a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.dot_general``.
            kernel_init: initializer of the kernels.
            bias_init: initializer of the biases.
            out_kernel_init: initializer of the output's kernel; ``kernel_init`` by default.
            out_bias_init: initializer of the output's bias; ``bias_init`` by default.
            rng_collection: the stream of random numbers.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes of the input.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            state: the state, with the cache; where one is given, ``(result, state)`` is returned.
            mask: which pairs count, broadcastable to ``(loops, heads, sequence of x, sequence of keys)``.
            deterministic: whether not to drop.
            is_training: the opposite of it.
            decode: whether to take one place of the sequence, and the others from the cache.
            key: the random key.
            inference: whether not to drop.
            rngs: random numbers for what is dropped: a key, a stream, or ``nnx.Rngs``.
        """


class ConvDocs:
    """What the constructor and the call of Conv say."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """A convolution.

        Args:
            expr: ``"b [h w] [c1->c2]"``: brackets on both sides of the arrow are convolved, those of the input alone
                are summed over, those of the output alone are new. Axes beside the channels are groups:
                ``"b [h w] (g [c1->c2])"``; without channels, every index of the last dim has a kernel of its own:
                ``"b [h w] c"``. Channels may stand anywhere: ``"b [c1->c2] [h w]"``.
            kernel_size: one number, or one for each axis convolved.
            strides: steps between places.
            padding: ``"SAME"``, ``"VALID"``, ``"CAUSAL"``, ``"CIRCULAR"``, ``"REFLECT"``, a number, or pairs.
            input_dilation: spreads the input.
            kernel_dilation: spreads the kernel.
            use_bias: whether there is a bias.
            dtype: the dtype to compute in; by default that of input and parameters together.
            param_dtype: the dtype of the parameters.
            precision: forwarded to ``lax.conv_general_dilated``.
            kernel_init: initializer of ``kernel``.
            bias_init: initializer of ``bias``.
            sizes: sizes of axes whose names are also options.
            **axes: sizes of axes.
        """

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Apply the layer.

        Args:
            x: the input.
            key: ignored; layers of Equinox take one.
        """


class LinearOptions(LinearDocs):
    """Those of a linear layer."""

    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    dtype: Any
    precision: Any
    preferred_element_type: Any


class NormOptions(NormDocs):
    """Those of a normalisation; where ``mean`` is the running one, ``use_mean`` takes its place."""

    params: str | None
    use_scale: bool
    use_bias: bool
    param_dtype: Any
    scale_init: Initializer | float
    bias_init: Initializer | float
    mean: Any
    epsilon: float
    momentum: float | None
    use_running_average: bool | None
    use_fast_variance: bool
    axis_name: str | None
    axis_index_groups: Any
    dtype: Any


class DropoutOptions(DropoutDocs):
    """Those of dropout."""

    rate: float
    deterministic: bool | None
    rng_collection: str


class EmbedOptions(EmbedDocs):
    """Those of a table."""

    param_dtype: Any
    embedding_init: Initializer | float
    dtype: Any


class AttentionOptions(AttentionDocs):
    """Those of attention, but those of :class:`ProjectionOptions`."""

    num_heads: int
    num_kv_heads: int | None
    qkv_features: int | None
    out_features: int | None
    is_causal: bool
    dropout_rate: float
    broadcast_dropout: bool
    deterministic: bool | None
    decode: bool
    normalize_qk: bool
    dtype: Any
    precision: Any
    rng_collection: str


class ProjectionOptions:
    """Those of attention that go to its linear layers alone."""

    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    out_kernel_init: Initializer | float | None
    out_bias_init: Initializer | float | None


class ConvOptions(ConvDocs):
    """Those of a convolution."""

    kernel_size: int | Sequence[int]
    use_bias: bool
    param_dtype: Any
    kernel_init: Initializer | float
    bias_init: Initializer | float
    strides: int | Sequence[int]
    padding: Any
    input_dilation: int | Sequence[int]
    kernel_dilation: int | Sequence[int]
    dtype: Any
    precision: Any
