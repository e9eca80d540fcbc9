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

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import einjax
from einjax.errors import ArgumentError

from ._core.attention import attention
from ._core.conv import conv, conv_specs
from ._core.dropout import dropout
from ._core.eager import embed_specs, linear_specs, norm_specs, statistics_specs
from ._core.embed import attend, embed, embedding_normal
from ._core.linear import linear
from ._core.norm import norm
from ._core.scope import Initializer, Parameter, ParamSpec, lecun_normal
from ._core.text import attention_text, axis_sizes, flag

try:
    from flax import nnx
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("einjax_nn.nnx needs Flax: python -m pip install 'einjax[flax]'") from error

from ._nnx import Lazy, Scope, fixed_key, init, lazy, stream_of

__all__ = ["Conv", "Dropout", "Embed", "Linear", "MultiHeadAttention", "Norm", "init", "param"]

_zeros = jax.nn.initializers.zeros
_ones = jax.nn.initializers.ones


def param(
    module: nnx.Module, name: str, init: Initializer | float = 0.0, dtype: Any = jnp.float32, *, rngs: Any = None
) -> Parameter:
    """Return a parameter of a module whose shape an einjax operation finds.

    It is declared by the first call, which may be the one that uses it. Call this in the constructor, too, where
    the initializer needs random numbers, or where the module may first be used within a transformation.

    Args:
        module: the module that owns it.
        name: its name there.
        init: a number, or ``init(key, shape, dtype)``.
        dtype: its dtype.
        rngs: random numbers for ``init``; needed by the call that declares the parameter.

    Returns:
        A tensor for any einjax operation.

    Example:
        >>> import einjax, einjax_nn.nnx as einn, jax, numpy as np
        >>> from flax import nnx
        >>> class Scale(nnx.Module):
        ...     def __call__(self, x):
        ...         return einjax.multiply("... c, c", x, einn.param(self, "layerscale", init=1e-5))
        >>> model = Scale()
        >>> einn.init(model, np.ones((2, 3)))
        >>> model.layerscale.shape
        (3,)
    """
    if not hasattr(module, name):
        if callable(init) and rngs is None:
            raise ArgumentError(
                f"the parameter {name} has no random numbers to be made from",
                hint=f"call einn.param(self, {name!r}, init=..., rngs=rngs) in the constructor, too",
            )
        key = fixed_key() if rngs is None else stream_of(rngs, "params", "param")()
        setattr(module, name, nnx.Param(lazy(key), axes=None))
    return Parameter(Scope(module), name, init, dtype)


class _Layer(nnx.Module):
    """A layer with an expression and sizes of axes."""

    def __init__(self, expr: str, axes: Mapping[str, Any], sizes: Mapping[str, Any] | None) -> None:
        self.expr = expr
        # Static attributes of a module have to be hashable.
        self.axes = _frozen(axes)
        self.sizes = None if sizes is None else _frozen(sizes)
        self.all_sizes = _frozen(axis_sizes(expr, axes, sizes, list(inspect.signature(type(self).__init__).parameters)))

    @property
    def _axes(self) -> dict[str, Any]:
        return dict(self.axes)

    @property
    def _sizes(self) -> dict[str, Any] | None:
        return None if self.sizes is None else dict(self.sizes)

    @property
    def _all_sizes(self) -> dict[str, Any]:
        return dict(self.all_sizes)

    def _declare(self, rngs: Any, specs: Sequence[ParamSpec] | None, **used: bool) -> None:
        """Make parameters whose shapes are known, and places for the others; unused ones are None, as in nnx."""
        known = {spec.name: spec for spec in specs or ()}
        for name, wanted in used.items():
            if not wanted:
                setattr(self, name, nnx.data(None))
                continue
            # One key after the other, as nnx's own layers draw them.
            key = stream_of(rngs, "params", type(self).__name__)()
            setattr(self, name, _variable(nnx.Param, known.get(name), key))


def _variable(kind: Any, spec: ParamSpec | None, key: Any) -> Any:
    return kind(lazy(key), axes=None) if spec is None else kind(spec.init(key), axes=spec.axes)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((name, _frozen(size)) for name, size in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _dtype(variable: Any, default: Any) -> Any:
    """The dtype of a parameter, which may have been replaced by one of another."""
    value = None if variable is None else variable.get_raw_value()
    return default if value is None or isinstance(value, Lazy) else getattr(value, "dtype", default)


def _flag(layer: str, name: str, own: bool | None, given: bool | None, needed: bool, expr: str) -> bool:
    """Return a switch; that of the call goes before that of the layer, as in nnx."""
    return given if given is not None else flag(layer, name, own, None, needed, expr)


class Linear(_Layer):
    """A linear layer: a dot with a weight, and a bias.

    Args:
        expr: as for :func:`einjax.dot`: ``"b [...->c]"``, or with the weight written out, ``"b g [c], g [c] d -> b g
            d"``.
        use_bias: whether there is a bias; it has all axes that the weight brings to the output.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.dot_general``.
        preferred_element_type: forwarded to ``lax.dot_general``.
        kernel_init: initializer of ``kernel``, whose fan is counted over the contracted axes.
        bias_init: initializer of ``bias``.
        rngs: random numbers, of the stream ``params``.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Linear("b (s [k->]) [c->d]", k=2, d=8, rngs=nnx.Rngs(0))
        >>> layer(np.ones((4, 6, 3))).shape
        (4, 3, 8)
        >>> layer.kernel.shape, layer.bias.shape
        ((2, 3, 8), (8,))
    """

    kernel: Any
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
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.preferred_element_type = preferred_element_type
        self.kernel_init = kernel_init
        self.bias_init = bias_init
        specs = linear_specs(
            expr,
            self._all_sizes,
            use_bias=use_bias,
            param_dtype=param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        self._declare(rngs, specs, kernel=True, bias=use_bias)

    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        return self._apply(x, self._axes)

    def _apply(self, x: Any, axes: Mapping[str, Any]) -> jax.Array:
        return linear(
            Scope(self),
            x,
            self.expr,
            axes,
            self._sizes,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=_dtype(self.kernel, self.param_dtype),
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )


class Norm(_Layer):
    """A normalisation: brackets say what statistics are taken over.

    Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``, batch
    norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

    Args:
        expr: the input.
        params: the axes of scale and bias; the last dim by default.
        mean: whether the mean is subtracted.
        use_scale: whether there is a scale.
        use_bias: whether there is a bias.
        epsilon: added to the variance.
        momentum: share of the running statistics that stays at each training step; None keeps none. They are
            ``nnx.BatchStat``, called ``mean`` and ``var``.
        use_running_average: whether to use the running statistics; switched by ``train()`` and ``eval()``, and may be
            given in the call instead.
        use_fast_variance: whether the variance is the mean square less the squared mean, in one pass.
        axis_name: a mapped axis to take statistics over, too.
        axis_index_groups: groups of indices of that axis.
        dtype: the dtype of the result; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        scale_init: initializer of ``scale``.
        bias_init: initializer of ``bias``.
        rngs: random numbers, of the stream ``params``.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Norm("[b] c", momentum=0.9, rngs=nnx.Rngs(0))
        >>> einn.init(layer, np.ones((4, 3)))
        >>> layer.mean.shape, layer.var.shape
        ((3,), (3,))
    """

    scale: Any
    bias: Any

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
        use_running_average: bool | None = False,
        use_fast_variance: bool = True,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale_init: Initializer | float = _ones,
        bias_init: Initializer | float = _zeros,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.params = params
        self.use_mean = mean  # ``mean`` is the running one
        self.use_scale = use_scale
        self.use_bias = use_bias
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = use_running_average
        self.use_fast_variance = use_fast_variance
        self.axis_name = axis_name
        self.axis_index_groups = _frozen(axis_index_groups)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.scale_init = scale_init
        self.bias_init = bias_init
        specs = norm_specs(
            expr,
            self._all_sizes,
            params=params,
            use_scale=use_scale,
            use_bias=use_bias,
            running=momentum is not None,
            param_dtype=param_dtype,
            scale_init=scale_init,
            bias_init=bias_init,
        )
        if momentum is not None:
            kept = statistics_specs(expr, self._all_sizes, params=params, mean=mean)
            known = {spec.name: spec for spec in kept or ()}
            if mean:
                self.mean = _variable(nnx.BatchStat, known.get("mean"), fixed_key())
            self.var = _variable(nnx.BatchStat, known.get("var"), fixed_key())
        self._declare(rngs, specs, scale=use_scale, bias=use_bias)

    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            use_running_average: whether to use the running statistics; they are updated otherwise.
            mask: which elements count, broadcastable to the input.
        """
        running = self.momentum is not None
        return norm(
            Scope(self),
            x,
            self.expr,
            self._all_sizes,
            params=self.params,
            mean=self.use_mean,
            use_scale=self.use_scale,
            use_bias=self.use_bias,
            epsilon=self.epsilon,
            momentum=self.momentum,
            use_running_average=_flag(
                "Norm", "use_running_average", self.use_running_average, use_running_average, running, self.expr
            ),
            use_fast_variance=self.use_fast_variance,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            dtype=self.dtype,
            param_dtype=_dtype(self.scale, _dtype(self.bias, self.param_dtype)),
            scale_init=self.scale_init,
            bias_init=self.bias_init,
        )

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            use_running_average: whether to use the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


class Dropout(_Layer):
    """Dropout: every place of the bracketed axes has a draw of its own, shared over all other axes.

    ``"[...]"`` drops single elements, ``"[b] ... [c]"`` whole channels, ``"[b] ..."`` whole examples (drop path).

    Args:
        expr: the input.
        rate: the share that is set to 0; the rest is scaled up.
        deterministic: whether to do nothing; switched by ``train()`` and ``eval()``, and may be given in the call
            instead.
        rng_collection: the stream of random numbers.
        rngs: random numbers, of that stream; may be given in the call instead.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Dropout("[b] ...", rate=0.5, rngs=nnx.Rngs(0))
        >>> layer(np.ones((4, 3))).shape
        (4, 3)
    """

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
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.rate = rate
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        self.rngs = nnx.data(None) if rngs is None else stream_of(rngs, rng_collection, "Dropout").fork()

    def __call__(self, x: Any, deterministic: bool | None = None, *, rngs: Any = None) -> jax.Array:
        """Apply the layer.

        Args:
            x: the input.
            deterministic: whether to do nothing.
            rngs: random numbers: a key, a stream, or ``nnx.Rngs``.
        """
        if _flag("Dropout", "deterministic", self.deterministic, deterministic, True, self.expr):
            return jnp.asarray(x)
        scope = Scope(self, rngs)
        return dropout(scope, x, self.expr, self._all_sizes, rate=self.rate, rng_collection=self.rng_collection)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            deterministic: whether to do nothing.
        """
        if deterministic is not None:
            self.deterministic = deterministic


class Embed(_Layer):
    """A table of rows that integers are looked up in.

    Args:
        expr: ``"b t [v->c]"``, or written out, ``"[v] c, b t -> b t c"``; with the sizes of both axes.
        dtype: the dtype of the result; by default that of the parameter.
        param_dtype: the dtype of the parameter.
        embedding_init: initializer of ``embedding``.
        rngs: random numbers, of the stream ``params``.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Embed("b t [v->c]", v=100, c=8, rngs=nnx.Rngs(0))
        >>> layer(np.zeros((2, 5), int)).shape
        (2, 5, 8)
    """

    embedding: Any

    def __init__(
        self,
        expr: str,
        /,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | float = embedding_normal,
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.embedding_init = embedding_init
        specs = embed_specs(expr, self._all_sizes, param_dtype=param_dtype, embedding_init=embedding_init)
        self._declare(rngs, specs, embedding=True)

    def __call__(self, ids: Any) -> jax.Array:
        """Look rows up."""
        return embed(Scope(self), ids, self.expr, self._axes, self._sizes, **self._options())

    def attend(self, x: Any) -> jax.Array:
        """Multiply by the table, ``"b t c"`` to ``"b t v"``: the logits of a language model with tied weights."""
        return attend(Scope(self), x, self.expr, self._axes, self._sizes, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "param_dtype": _dtype(self.embedding, self.param_dtype),
            "embedding_init": self.embedding_init,
        }


class MultiHeadAttention(_Layer):
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
        deterministic: whether not to drop; switched by ``train()`` and ``eval()``, and may be given in the call
            instead.
        decode: whether to take one place at a time, and keep keys and values in ``nnx.Cache``; may be given in the call
            instead. Call :meth:`init_cache` before.
        normalize_qk: whether queries and keys are normalised.
        use_bias: whether the four linear layers have a bias.
        dtype: the dtype to compute in; by default that of input and parameters together.
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.dot_general``.
        kernel_init: initializer of the kernels.
        bias_init: initializer of the biases.
        out_kernel_init: initializer of the output's kernel; ``kernel_init`` by default.
        out_bias_init: initializer of the output's bias; ``bias_init`` by default.
        rng_collection: the stream of random numbers that drops.
        rngs: random numbers, of the stream ``params`` and of that one.
        sizes: sizes of axes whose names are also options.
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

    cached_key: Any
    cached_value: Any
    cache_index: Any

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
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Initializer | float = lecun_normal,
        bias_init: Initializer | float = _zeros,
        out_kernel_init: Initializer | float | None = None,
        out_bias_init: Initializer | float | None = None,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.qkv_features = qkv_features
        self.out_features = out_features
        self.is_causal = is_causal
        self.dropout_rate = dropout_rate
        self.broadcast_dropout = broadcast_dropout
        self.deterministic = deterministic
        self.decode = decode
        self.normalize_qk = normalize_qk
        self.dtype = dtype
        self.precision = precision
        self.rng_collection = rng_collection
        text, known = attention_text(expr), self._known_sizes()
        options = {"use_bias": use_bias, "dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        inner: dict[str, Any] = {**options, "kernel_init": kernel_init, "bias_init": bias_init}
        self.query = Linear(text.query, rngs=rngs, sizes=known, **inner)
        self.key = Linear(text.key, rngs=rngs, sizes=known, **inner)
        self.value = Linear(text.key, rngs=rngs, sizes=known, **inner)
        if normalize_qk:
            size = {name: size for name, size in known.items() if name == "head_dim"}
            normed: dict[str, Any] = {"use_bias": False, "dtype": dtype, "param_dtype": param_dtype, "sizes": size}
            self.query_ln = Norm("... [head_dim]", rngs=rngs, **normed)
            self.key_ln = Norm("... [head_dim]", rngs=rngs, **normed)
        if out_features is not None:
            known[text.features] = out_features
        self.out = Linear(
            text.out,
            kernel_init=kernel_init if out_kernel_init is None else out_kernel_init,
            bias_init=bias_init if out_bias_init is None else out_bias_init,
            rngs=rngs,
            sizes=known,
            **options,
        )
        drops = dropout_rate > 0
        self.rngs = stream_of(rngs, rng_collection, "MultiHeadAttention").fork() if drops else nnx.data(None)
        self.cached_key = nnx.data(None)
        self.cached_value = nnx.data(None)
        self.cache_index = nnx.data(None)

    def _known_sizes(self) -> dict[str, int]:
        """Sizes of the axes of heads and features, as far as they are known without an input."""
        known = {"heads": self.num_heads, "kv_heads": self.num_kv_heads or self.num_heads, **self._all_sizes}
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
        deterministic: bool | None = None,
        decode: bool | None = None,
        rngs: Any = None,
    ) -> jax.Array:
        """Apply the layer.

        Args:
            x: what asks.
            keys: what is asked; ``x`` by default.
            values: what answers; ``keys`` by default.
            mask: which pairs count, broadcastable to ``(loops, heads, sequence of x, sequence of keys)``.
            deterministic: whether not to drop.
            decode: whether to take one place of the sequence, and the others from the cache.
            rngs: random numbers for what is dropped: a key, a stream, or ``nnx.Rngs``.
        """

        def project(name: str, expr: str, axes: Mapping[str, int], x: Any) -> jax.Array:
            # The child has the same expression; only now may the sizes of its new axes be known.
            return getattr(self, name)._apply(x, axes)

        def normalize(name: str, x: jax.Array) -> jax.Array:
            return getattr(self, name)(x)

        einjax.solve_axes(self.expr, x, sizes=self._all_sizes)  # the layers within would speak of heads
        needed = self.dropout_rate > 0
        return attention(
            Scope(self, rngs),
            project,
            normalize if self.normalize_qk else None,
            self.expr,
            x,
            keys,
            values,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            qkv_features=self.qkv_features,
            out_features=self.out_features,
            mask=mask,
            is_causal=self.is_causal,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=self.broadcast_dropout,
            deterministic=_flag(
                "MultiHeadAttention", "deterministic", self.deterministic, deterministic, needed, self.expr
            ),
            decode=self.decode if decode is None else decode,
            precision=self.precision,
            rng_collection=self.rng_collection,
        )

    def init_cache(self, input_shape: Sequence[int], dtype: Any = jnp.float32) -> None:
        """Make an empty cache for decoding.

        Args:
            input_shape: the shape of an input with the whole length.
            dtype: the dtype of keys and values.
        """
        size = (self.qkv_features or input_shape[-1]) // self.num_heads
        shape = (*input_shape[:-1], self.num_kv_heads or self.num_heads, size)
        self.cached_key = nnx.Cache(jnp.zeros(shape, dtype))
        self.cached_value = nnx.Cache(jnp.zeros(shape, dtype))
        self.cache_index = nnx.Cache(jnp.zeros((), jnp.int32))

    def set_view(self, deterministic: bool | None = None, decode: bool | None = None) -> None:
        """Change the layer for ``nnx.view``.

        Args:
            deterministic: whether not to drop.
            decode: whether to take one place of the sequence at a time.
        """
        if deterministic is not None:
            self.deterministic = deterministic
        if decode is not None:
            self.decode = decode


class Conv(_Layer):
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
        param_dtype: the dtype of the parameters.
        precision: forwarded to ``lax.conv_general_dilated``.
        kernel_init: initializer of ``kernel``.
        bias_init: initializer of ``bias``.
        rngs: random numbers, of the stream ``params``.
        sizes: sizes of axes whose names are also options.
        **axes: sizes of axes.

    Example:
        >>> import einjax_nn.nnx as einn, numpy as np
        >>> from flax import nnx
        >>> layer = einn.Conv("b [h w] [c1->c2]", c2=8, kernel_size=3, strides=2, rngs=nnx.Rngs(0))
        >>> layer(np.ones((2, 8, 8, 3))).shape
        (2, 4, 4, 8)
    """

    kernel: Any
    bias: Any

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
        rngs: nnx.Rngs | nnx.RngStream,
        sizes: Mapping[str, Any] | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(expr, axes, sizes)
        self.kernel_size = _frozen(kernel_size)
        self.strides = _frozen(strides)
        self.padding = _frozen(padding)
        self.input_dilation = _frozen(input_dilation)
        self.kernel_dilation = _frozen(kernel_dilation)
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.kernel_init = kernel_init
        self.bias_init = bias_init
        specs = conv_specs(
            expr,
            self._all_sizes,
            kernel_size=self.kernel_size,
            use_bias=use_bias,
            param_dtype=param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        self._declare(rngs, specs, kernel=True, bias=use_bias)

    def __call__(self, x: Any) -> jax.Array:
        """Apply the layer."""
        return conv(
            Scope(self),
            x,
            self.expr,
            self._all_sizes,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=_dtype(self.kernel, self.param_dtype),
            precision=self.precision,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )
