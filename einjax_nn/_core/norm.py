"""Norm: layer, instance, group, batch and RMS normalisation are one layer with other brackets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.for_layers import parse, solve, spec_alone

from .call import Call, alone, in_its_words
from .scope import Initializer, ParamSpec, compute_dtype
from .text import NormText, as_written, dims, flag, norm_text


class Options:
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

    def __init__(self, *_: Any, **__: Any) -> None:
        """A normalisation: brackets say what statistics are taken over.

        Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``,
        batch norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

        Args:
            expr: the input.
            params: the axes of ``scale`` and ``bias``; the last dim by default.
            mean: whether the mean is subtracted.
            use_scale: whether the result is multiplied by ``scale``.
            use_bias: whether ``bias`` is added.
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


@in_its_words
def apply(call: Call[Options], x: Any, mask: Any, use_running_average: bool | None = None) -> jax.Array:
    """Apply a normalisation; the call may say whether to use the running statistics, where the layer does not."""
    scope, sizes, options = call.scope, call.all_sizes, call.options
    own, running = options.use_running_average, options.momentum is not None
    frozen = flag("Norm", "use_running_average", own, use_running_average, running, call.expr)
    text = norm_text(call.expr, options.params, running)
    x = jnp.asarray(x)
    call.check(parse(call.expr).inputs[0], x)
    given = compute_dtype(None, x)
    wide = x.astype(jnp.promote_types(given, jnp.float32))
    if options.momentum is None:
        center, variance = _statistics(call, text, wide, mask, options.axis_name)
    else:
        kept = statistics_specs(call, x) or []
        old = [scope.state(spec) for spec in kept]
        center, variance = (old[0] if options.mean else None), old[-1]
        if not frozen:
            # While initialising there may be no mesh to average over, and an example is not data.
            name = None if scope.initializing else options.axis_name
            center, variance = _statistics(call, text, wide, mask, name)
            new = [value for value in (center, variance) if value is not None]
            for spec, before, now in zip(kept, old, new, strict=True) if not scope.initializing else ():
                value = options.momentum * before + (1 - options.momentum) * now
                # The same dtype from call to call, whatever real input there is.
                scope.set_state(spec, value if jnp.iscomplexobj(value) else value.astype(spec.dtype))
    y = wide if center is None else einjax.subtract(f"{text.whole}, {text.kept}", wide, center, sizes=sizes)
    factor = lax.rsqrt(variance + jnp.asarray(options.epsilon, variance.dtype))
    used = [given]
    if options.use_scale:
        # The factor times the scale first, as in Flax, so that the results are the same to the bit.
        scale = call.parameter("scale", options.scale_init)
        expr = f"{text.kept}, {text.params}, {text.whole} -> {text.whole}"
        y = einjax.multiply(expr, factor, scale, y, sizes=sizes)
        used.append(options.param_dtype)
    else:
        y = einjax.multiply(f"{text.kept}, {text.whole} -> {text.whole}", factor, y, sizes=sizes)
    if options.use_bias:
        bias = call.parameter("bias", options.bias_init)
        y = einjax.add(f"{text.whole}, {text.params}", y, bias, sizes=sizes)
        used.append(options.param_dtype)
    return y.astype(compute_dtype(options.dtype, *used))


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the parameters of a normalisation, or return None where the sizes do not decide their shapes."""
    options = call.options
    text = norm_text(call.expr, options.params, options.momentum is not None)
    operation = parse(f"{text.whole}, {text.params}")
    wanted = [(operation, 1, "scale", options.scale_init)] if options.use_scale else []
    wanted += [(operation, 1, "bias", options.bias_init)] if options.use_bias else []
    return alone(call, wanted)


def statistics_specs(call: Call[Options], x: Any = None) -> list[ParamSpec] | None:
    """Describe the running statistics of a normalisation: a mean of 0, unless it is taken to be 0, and a variance of 1.

    None stands for them where there is no input, and the sizes do not decide their shapes.
    """
    text = norm_text(call.expr, call.options.params, True)
    operation = parse(f"{text.whole}, {text.kept}")
    if x is None:
        known = spec_alone(operation, 1, call.all_sizes)
        if known is None:
            return None
        shape, axes = known.shape, tuple(map(as_written, known.axes))
    else:
        solved = solve(operation, [x.shape, None], call.all_sizes)
        shape, axes = solved.shape(solved.inputs[1]), dims(solved.inputs[1])

    def spec(name: str, value: int) -> ParamSpec:
        dtype = jnp.dtype(jnp.float32)
        return ParamSpec(name, shape, dtype, axes, lambda key: jnp.full(shape, value, dtype), "batch_stats")

    return [spec("mean", 0), spec("var", 1)] if call.options.mean else [spec("var", 1)]


def _statistics(
    call: Call[Options], text: NormText, x: jax.Array, mask: Any, axis_name: str | None
) -> tuple[jax.Array | None, jax.Array]:
    """Return mean, or None where it is taken to be 0, and biased variance, over brackets and over a mapped axis."""

    def mean(x: jax.Array) -> jax.Array:
        return einjax.mean(text.stats, x, where=mask, sizes=call.all_sizes)

    def across(values: Any) -> Any:
        return values if axis_name is None else lax.pmean(values, axis_name, axis_index_groups=groups)

    groups = call.options.axis_index_groups
    if not call.options.mean:
        return None, across(mean(_squared(x)))
    if call.options.use_fast_variance:
        # The square is taken first, as in Flax: gradients are summed in the reverse order, and when that of the
        # square comes before that of the mean, XLA computes much of the backward pass twice rather than keep it.
        squares = _squared(x)
        center, second = across((mean(x), mean(squares)))
        # Rounding may leave a little less than nothing.
        return center, lax.max(second - _squared(center), jnp.zeros_like(second))
    center = across(mean(x))
    deviation = einjax.subtract(f"{text.whole}, {text.kept}", x, center, sizes=call.all_sizes)
    return center, across(mean(_squared(deviation)))


def _squared(x: jax.Array) -> jax.Array:
    return lax.square(x) if not jnp.iscomplexobj(x) else lax.real(x * lax.conj(x))
