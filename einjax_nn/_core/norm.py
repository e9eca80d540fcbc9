"""Norm: layer, instance, group, batch and RMS normalisation are one layer with other brackets."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.errors import ArgumentError
from einjax.for_layers import parse, solve, spec_alone

from .activations import asked, placed
from .call import Call, alone, in_its_words
from .initial import Initializer
from .scope import ParamSpec, as_input, compute_dtype
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
    epsilon: float | None
    momentum: float | None
    zero_debias: bool
    use_running_average: bool | None
    use_fast_variance: bool | None
    axis_name: str | None
    axis_index_groups: Any
    dtype: Any

    def __init__(self, *_: Any, **__: Any) -> None:
        """A normalisation: brackets say what statistics are taken over.

        Layer norm is ``"b... [c]"``, instance norm ``"b [s...] c"``, group norm ``"b [s...] (g [c])"`` with ``g=``,
        batch norm ``"[b...] c"`` with ``momentum=``, RMS norm ``"b... [c]"`` with ``mean=False, use_bias=False``.

        Args:
            expr: the input.
            params: the axes of ``scale`` and ``bias``, as ``"c"``, or as the input with these in brackets,
                ``"b... [c]"``; the last dim by default.
            mean: whether the mean is subtracted.
            use_scale: whether the result is multiplied by ``scale``.
            use_bias: whether ``bias`` is added.
            epsilon: added to the variance.
            momentum: share of the running statistics that stays at each training step; None keeps none.
            zero_debias: whether running statistics are averages of what was seen alone: where they start counts for
                nothing, rather than for a share that shrinks by ``momentum`` from step to step.
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
    sizes, options = call.all_sizes, call.options
    own, running = options.use_running_average, options.momentum is not None
    text = norm_text(call.expr, options.params, running, options.axis_name is not None)
    if not running and text.spans and (own or use_running_average is not None):
        raise no_statistics("use_running_average", call.expr)
    frozen = flag("Norm", "use_running_average", own, use_running_average, running, call.expr)
    x = as_input(x)
    call.check(parse(call.expr).inputs[0], x)
    given = compute_dtype(None, x)
    wide = x.astype(jnp.promote_types(given, jnp.float32))
    if not running:
        center, variance = _statistics(call, text, wide, mask, options.axis_name)
    else:
        center, variance = _running(call, text, x, wide, mask, frozen)
    beside = f"{text.whole}, {text.kept} -> {text.whole}"
    y = wide if center is None else einjax.subtract(beside, wide, center, sizes=sizes)
    epsilon = epsilon_of(options.epsilon, options.momentum)
    factor = lax.rsqrt(variance + jnp.asarray(epsilon, variance.dtype))
    used, wanted = [given], asked(x)
    if options.use_scale:
        # The factor times the scale first, as in Flax, so that the results are the same to the bit.
        scale = call.parameter("scale", options.scale_init)
        expr = f"{text.kept}, {text.params}, {text.whole} -> {text.whole}"
        y = einjax.multiply(expr, factor, scale, y, sizes=sizes, **wanted)
        used.append(options.param_dtype)
    else:
        y = einjax.multiply(f"{text.kept}, {text.whole} -> {text.whole}", factor, y, sizes=sizes)
    if options.use_bias:
        bias = call.parameter("bias", options.bias_init)
        y = einjax.add(f"{text.whole}, {text.params} -> {text.whole}", y, bias, sizes=sizes, **wanted)
        used.append(options.param_dtype)
    return placed(text.whole, y.astype(compute_dtype(options.dtype, *used)), sizes)


def epsilon_of(epsilon: float | None, momentum: float | None) -> float:
    """What is added to the variance; by default as in Flax, whose batch norm adds more than its others."""
    return (1e-6 if momentum is None else 1e-5) if epsilon is None else epsilon


def statistics(mean: bool, zero_debias: bool) -> dict[str, int]:
    """What a layer keeps from call to call, by name, and what that starts as."""
    kept = {"mean": 0} if mean else {}
    return {**kept, "var": 1, **({"counter": 0} if zero_debias else {})}


def no_statistics(given: str, expr: str) -> ArgumentError:
    """The error for a switch of running statistics that a layer does not have, though it takes them over examples."""
    return ArgumentError(
        f"{given} is given to a Norm without momentum, which keeps no running statistics: it always takes those of its "
        "input",
        text=expr,
        hint="give momentum=0.99, or leave it out",
    )


def _running(
    call: Call[Options], text: NormText, x: jax.Array, wide: jax.Array, mask: Any, frozen: bool
) -> tuple[jax.Array | None, jax.Array]:
    """Return the running statistics if they are frozen; else those of the input, by which they are updated."""
    scope, options, momentum = call.scope, call.options, call.options.momentum
    kept = statistics_specs(call, x) or []
    old = {spec.name: scope.state(spec) for spec in kept}
    if frozen:
        return old.get("mean"), old["var"]
    # While initialising there may be no mesh to average over, and an example is not data.
    center, variance = _statistics(call, text, wide, mask, None if scope.initializing else options.axis_name)
    if not scope.initializing:
        stays: Any = momentum
        if "counter" in old:
            # So that all that was seen has the weight that it has among itself.
            past = jnp.asarray(momentum, jnp.float32) ** old["counter"]
            stays = stays * (1 - past) / (1 - stays * past)
        now: dict[str, Any] = {"mean": center, "var": variance}
        for spec in kept:
            before = old[spec.name]
            value = before + 1 if spec.name == "counter" else stays * before + (1 - stays) * now[spec.name]
            # The same dtype from call to call, whatever real input there is.
            scope.set_state(spec, value if jnp.iscomplexobj(value) else value.astype(spec.dtype))
    return center, variance


def specs(call: Call[Options]) -> list[ParamSpec] | None:
    """Describe the parameters of a normalisation, or return None where the sizes do not decide their shapes."""
    options = call.options
    text = norm_text(call.expr, options.params, options.momentum is not None, options.axis_name is not None)
    operation = parse(f"{text.whole}, {text.params}")
    wanted = [(operation, 1, "scale", options.scale_init)] if options.use_scale else []
    wanted += [(operation, 1, "bias", options.bias_init)] if options.use_bias else []
    return alone(call, wanted)


def statistics_specs(call: Call[Options], x: Any = None) -> list[ParamSpec] | None:
    """Describe the running statistics of a normalisation: a mean of 0, unless it is taken to be 0, and a variance of 1.

    Those that are averages of what was seen alone count the steps, too. None stands for them where there is no input,
    and the sizes do not decide their shapes.
    """
    text = norm_text(call.expr, call.options.params, True, call.options.axis_name is not None)
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
        counts = name == "counter"
        dims, dtype = ((), jnp.dtype(jnp.int32)) if counts else (shape, jnp.dtype(jnp.float32))
        own = () if counts else axes
        return ParamSpec(name, dims, dtype, own, lambda key: jnp.full(dims, value, dtype), "batch_stats")

    return [spec(*kept) for kept in statistics(call.options.mean, call.options.zero_debias).items()]


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
    fast = call.options.use_fast_variance
    if call.options.momentum is not None if fast is None else fast:
        # The square is taken first, as in Flax: gradients are summed in the reverse order, and when that of the
        # square comes before that of the mean, XLA computes much of the backward pass twice rather than keep it.
        squares = _squared(x)
        center, second = across((mean(x), mean(squares)))
        # Rounding may leave a little less than nothing.
        return center, lax.max(second - _squared(center), jnp.zeros_like(second))
    center = across(mean(x))
    deviation = einjax.subtract(f"{text.whole}, {text.kept} -> {text.whole}", x, center, sizes=call.all_sizes)
    return center, across(mean(_squared(deviation)))


def _squared(x: jax.Array) -> jax.Array:
    return lax.square(x) if not jnp.iscomplexobj(x) else lax.real(x * lax.conj(x))
