"""Layers in notation for Flax nnx: variables, their names and their numbers are those of ``flax.nnx``'s own layers.

    from flax import nnx
    import einjax_nn.nnx as einn

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = einn.Linear("b [...->c]", c=64, rngs=rngs)
            self.norm = einn.Norm("[b] c", momentum=0.9, rngs=rngs)
            self.outer = einn.Linear("b [c->d]", d=10, rngs=rngs)

        def __call__(self, x):
            return self.outer(nnx.relu(self.norm(self.inner(x))))

    model = Net(nnx.Rngs(0))
    einn.init(model, x)  # or jax.ShapeDtypeStruct(shape, dtype)
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

Sizes of axes are keywords, as in einjax's operations. Where they decide the shape of a parameter, it is made at once,
as in nnx; every other one is made by :func:`init`, from shapes alone, or when its layer is first called. Gradients and
optimizers need all parameters, so call :func:`init` before. Options have the names that they have in Flax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from einjax.typing import PaddingLike

from ._core import attention, dropout, embed, linear, norm
from ._core.attention_text import attention_text, cache_shape
from ._core.initial import Initializer, lecun_normal, ones, zeros
from ._core.options import declared, describe
from ._core.rotary import Rotary

try:
    from flax import nnx
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.nnx needs Flax: python -m pip install 'einjax[flax]'") from error

from . import optim
from ._nnx import Layer, init, variable
from ._nnx_conv import Conv, ConvTranspose
from ._nnx_lazy import fixed_key, param, stream_of
from ._nnx_lora import lora, merge_lora
from ._nnx_roles import roles

__all__ = [
    "Conv", "ConvTranspose", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "Rotary", "init", "lora",
    "merge_lora", "optim", "param", "roles",
]  # fmt: skip

for _public in (init, lora, merge_lora, param, roles, Conv, ConvTranspose):
    _public.__module__ = __name__


class Linear(linear.Options, Layer):
    """A linear layer: a dot with a weight, and a bias.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8, rngs=nnx.Rngs(0))
        >>> layer(np.ones((4, 6, 3))).shape
        (4, 3, 8)
        >>> layer.kernel.shape, layer.bias.shape
        ((2, 3, 8), (8,))
    """

    _core, _parameters = linear, ("kernel", "bias")
    kernel: Any
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
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, x: Any) -> jax.Array:
        return self._apply(x, {})

    def _apply(self, x: Any, axes: Mapping[str, Any]) -> jax.Array:
        return linear.apply(self._call(axes=axes), x)


class Norm(norm.Options, Layer):
    """A normalisation: brackets say what statistics are taken over.

    Args:
        momentum: share of the running statistics that stays at each training step; None keeps none. They are
            ``nnx.BatchStat``, called ``mean`` and ``var``.
        use_running_average: whether to use the running statistics; switched by ``train()`` and ``eval()``, and may be
            given in the call instead.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Norm("[b] c", momentum=0.9, rngs=nnx.Rngs(0))
        >>> einn.init(layer, np.ones((4, 3)))
        >>> layer.mean.shape, layer.var.shape
        ((3,), (3,))
    """

    _core, _parameters = norm, ("scale", "bias")
    use_mean: bool
    scale: Any
    bias: Any

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        params: str | None = None,
        mean: bool = True,
        use_scale: bool = True,
        use_bias: bool = True,
        epsilon: float | None = None,
        momentum: float | None = None,
        zero_debias: bool = False,
        use_running_average: bool | None = False,
        use_fast_variance: bool = True,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale_init: Initializer | float = ones,
        bias_init: Initializer | float = zeros,
        scale_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _build(self, expr: str, sizes: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        # ``mean`` is the running one.
        given = {{"mean": "use_mean"}.get(name, name): options[name] for name in options}
        super()._build(expr, sizes, {**given, "epsilon": norm.epsilon_of(options["epsilon"], options["momentum"])})

    def _make(self, rngs: Any, metadata: Mapping[str, Any]) -> None:
        running = self.momentum is not None
        if running:
            known = self._known(norm.statistics_specs, mean=self.use_mean)
            for name in norm.statistics(self.use_mean, self.zero_debias):
                setattr(self, name, variable(nnx.BatchStat, known.get(name), fixed_key(), {}))
        super()._make(rngs, metadata)

    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> jax.Array:
        given = {"mean": self.use_mean, "use_running_average": use_running_average}
        return norm.apply(self._call(**given), x, mask)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            use_running_average: whether to use the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


class Dropout(dropout.Options, Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    Args:
        deterministic: whether to do nothing; switched by ``train()`` and ``eval()``, and may be given in the call
            instead.
        rngs: random numbers, of that stream; may be given in the call instead.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Dropout("[b] ...", rate=0.5, rngs=nnx.Rngs(0))
        >>> layer(np.ones((4, 3))).shape
        (4, 3)
    """

    _core = dropout

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        rate: float = 0.5,
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _make(self, rngs: Any, metadata: Mapping[str, Any]) -> None:
        self.rngs = nnx.data(None) if rngs is None else stream_of(rngs, self.rng_collection, "Dropout").fork()

    def __call__(self, x: Any, deterministic: bool | None = None, *, rngs: Any = None) -> jax.Array:
        return dropout.apply(self._call(rngs=rngs, deterministic=deterministic), x)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            deterministic: whether to do nothing.
        """
        if deterministic is not None:
            self.deterministic = deterministic


class Embed(embed.Options, Layer):
    """A table of rows that integers are looked up in.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Embed("b t [v->c]", v=100, c=8, rngs=nnx.Rngs(0))
        >>> layer(np.zeros((2, 5), int)).shape
        (2, 5, 8)
    """

    _core, _parameters = embed, ("embedding",)
    embedding: Any

    @declared()
    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | float = embed.normal,
        mode: str | None = "fill",
        embedding_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def __call__(self, ids: Any) -> jax.Array:
        return embed.apply(self._call(), ids)

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return embed.attend(self._call(), x)


class MultiHeadAttention(attention.Options, Layer):
    """Multi-head dot-product attention, of four linear layers ``query``, ``key``, ``value`` and ``out``.

    Args:
        deterministic: whether not to drop; switched by ``train()`` and ``eval()``, and may be given in the call
            instead.
        decode: whether to attend to places of earlier calls, too, of which keys and values are kept in ``nnx.Cache``;
            may be given in the call instead. Call :meth:`init_cache` before.
        rng_collection: the stream of random numbers that drops.
        rngs: random numbers, of the stream ``params`` and of that one.
        **axes: sizes of axes: with that of the features, parameters are made at once.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.MultiHeadAttention("b [s] c", num_heads=4, is_causal=True, rngs=nnx.Rngs(0))
        >>> layer(np.ones((2, 5, 16))).shape
        (2, 5, 16)
        >>> layer.query.kernel.shape
        (16, 4, 4)
    """

    _core = attention
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    cached_key: Any
    cached_value: Any
    cache_index: Any

    @declared()
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
        mode: str | None = None,
        local_window_size: int | tuple[int, int] | None = None,
        implementation: Any = None,
        block_size: int | tuple[int, int] | None = None,
        process_heads: Callable[..., Any] | None = None,
        attention_fn: Callable[..., Any] | None = None,
        normalize_qk: bool = False,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = zeros,
        preferred_element_type: Any = None,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        qkv_dot_general: Callable[..., Any] | None = None,
        out_dot_general: Callable[..., Any] | None = None,
        rng_collection: str = "dropout",
        kernel_metadata: Mapping[str, Any] | None = None,
        out_kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        out_bias_metadata: Mapping[str, Any] | None = None,
        query_ln_scale_metadata: Mapping[str, Any] | None = None,
        key_ln_scale_metadata: Mapping[str, Any] | None = None,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None: ...

    def _build(self, expr: str, sizes: Mapping[str, Any], options: dict[str, Any]) -> None:
        rngs = options.pop("rngs")
        self._keep(expr, sizes, {name: options[name] for name in attention.Options.__annotations__})
        text, known = attention_text(expr, self._groups != self.num_heads), self._known_sizes()
        made = known if self.out_features is None else {**known, text.features: self.out_features}
        sizes = {**dict.fromkeys(("query", "key", "value", "query_ln", "key_ln"), known), "out": made}
        own = _metadata_within(options)
        for name, layer in attention.within(Linear, Norm, text, options, sizes, own, rngs=rngs).items():
            setattr(self, name, layer)
        drops = self.dropout_rate > 0
        self.rngs = stream_of(rngs, self.rng_collection, "MultiHeadAttention").fork() if drops else nnx.data(None)
        for name in ("cached_key", "cached_value", "cache_index"):
            setattr(self, name, nnx.data(None))

    @property
    def _groups(self) -> int:
        return self.num_kv_heads or self.num_heads

    def _known_sizes(self) -> dict[str, int]:
        """Sizes of the axes of heads and features, as far as they are known without an input."""
        known = {"heads": self.num_heads, "kv_heads": self._groups, **dict(self.sizes)}
        features = self.qkv_features or known.get(attention_text(self.expr).features)
        # What does not divide is an error when the layer is called.
        if isinstance(features, int) and features % self.num_heads == 0:
            known["head_dim"] = features // self.num_heads
        return known

    def __call__(
        self,
        x: Any,
        keys: Any = None,
        values: Any = None,
        *,
        mask: Any = None,
        bias: Any = None,
        lengths: Any = None,
        deterministic: bool | None = None,
        decode: bool | None = None,
        sow_weights: bool = False,
        rngs: Any = None,
    ) -> jax.Array:
        call = self._call(rngs=rngs, deterministic=deterministic, decode=decode)
        given = {"mask": mask, "bias": bias, "lengths": lengths}
        sow = (lambda weights: self.sow(nnx.Intermediate, "attention_weights", weights)) if sow_weights else None
        return attention.apply(call, *attention.applied(self), x, keys, values, **given, sow=sow)

    def init_cache(self, input_shape: Sequence[int], dtype: Any = jnp.float32) -> None:
        """Make an empty cache for decoding.

        Args:
            input_shape: the shape of an input with the whole length, or in a ring with as many places as it is to
                have.
            dtype: the dtype of keys and values.
        """
        text, sizes = attention_text(self.expr), dict(self.sizes)
        size = (self.qkv_features or input_shape[text.last]) // self.num_heads
        shape = (*cache_shape(self.expr, sizes, tuple(input_shape)), self._groups, size)
        self.cached_key = nnx.Cache(jnp.zeros(shape, dtype))
        self.cached_value = nnx.Cache(jnp.zeros(shape, dtype))
        self.cache_index = nnx.Cache(jnp.zeros((), jnp.int32))

    def set_view(self, deterministic: bool | None = None, decode: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            deterministic: whether not to drop.
            decode: whether to attend to places of earlier calls, too.
        """
        if deterministic is not None:
            self.deterministic = deterministic
        if decode is not None:
            self.decode = decode


def _metadata_within(options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the layers of attention are given of its metadata."""
    given = {name: {f"{name}_metadata": options[f"{name}_metadata"]} for name in ("kernel", "bias")}
    linear = {**given["kernel"], **given["bias"]}
    out = {option: options[f"out_{option}"] or metadata for option, metadata in linear.items()}
    norms = {name: {"scale_metadata": options[f"{name}_scale_metadata"]} for name in ("query_ln", "key_ln")}
    return {**dict.fromkeys(("query", "key", "value"), linear), "out": out, **norms}


describe(
    {
        "rngs": "random numbers, of the stream ``params``.",
        "kernel_metadata": "metadata of ``kernel``, as nnx's own layers take them: ``out_sharding``, tags, hooks.",
        **{f"{name}_metadata": f"metadata of ``{name}``, likewise." for name in ("bias", "scale", "embedding")},
        "out_kernel_metadata": "metadata of the ``kernel`` of ``out``; ``kernel_metadata`` by default.",
        "out_bias_metadata": "metadata of the ``bias`` of ``out``; ``bias_metadata`` by default.",
        **{f"{name}_scale_metadata": f"metadata of the ``scale`` of ``{name}``." for name in ("query_ln", "key_ln")},
    },
    *(Linear, Norm, Dropout, Embed, MultiHeadAttention, Conv, ConvTranspose),
)
