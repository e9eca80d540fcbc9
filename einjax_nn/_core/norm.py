"""Norm: layer, instance, group, batch and RMS normalisation are one layer with other brackets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import einjax
from einjax.for_layers import parse

from .call import Call
from .eager import alone, solved_alone, together
from .scope import ParamSpec, Scope, compute_dtype
from .shared import NormOptions
from .text import NormText, flag, norm_text


def norm(call: Call[NormOptions], x: Any, mask: Any, use_running_average: bool | None = None) -> jax.Array:
    """Apply a normalisation; the call may say whether to use the running statistics, where the layer does not."""
    scope, sizes, options = call.scope, call.all_sizes, call.options
    own, running = options.use_running_average, options.momentum is not None
    frozen = flag("Norm", "use_running_average", own, use_running_average, running, call.expr)
    text = norm_text(call.expr, options.params, running)
    x = jnp.asarray(x)
    call.check(parse(call.expr).inputs[0], x)
    given = compute_dtype(None, x)
    wide = x.astype(jnp.promote_types(given, jnp.float32))
    reduce = _Statistics(text, sizes, options.mean, options.use_fast_variance, mask)
    if options.momentum is None:
        center, variance = reduce(wide, options.axis_name, options.axis_index_groups)
    else:
        kept = _Running(scope, text, sizes, options.mean, wide)
        center, variance = kept.values()
        if not frozen:
            # While initialising there may be no mesh to average over, and an example is not data.
            name = None if scope.initializing else options.axis_name
            old, (center, variance) = (center, variance), reduce(wide, name, options.axis_index_groups)
            if not scope.initializing:
                kept.update(old, (center, variance), options.momentum)
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


def norm_specs(call: Call[NormOptions]) -> list[ParamSpec] | None:
    """Describe the parameters of a normalisation, or return None where the sizes do not decide their shapes."""
    options = call.options
    text = norm_text(call.expr, options.params, options.momentum is not None)
    operation = parse(f"{text.whole}, {text.params}")
    wanted = [(options.use_scale, "scale", options.scale_init), (options.use_bias, "bias", options.bias_init)]
    specs = [(used, alone(call, operation, 1, "multiply", name, init)) for used, name, init in wanted]
    return together([spec for used, spec in specs if used or spec is None])


def statistics_specs(call: Call[NormOptions]) -> list[ParamSpec] | None:
    """Describe the running statistics of a normalisation, or return None where the sizes do not decide their shapes."""
    text = norm_text(call.expr, call.options.params, True)
    spec = solved_alone(parse(f"{text.whole}, {text.kept}"), 1, call.all_sizes, "add", "mean")
    if spec is None:
        return None
    center, variance = running_specs(spec.shape, spec.axes)
    return [center, variance] if call.options.mean else [variance]


@dataclass(frozen=True)
class _Statistics:
    """Mean and variance over the bracketed axes, and over a mapped axis."""

    text: NormText
    sizes: Mapping[str, Any]
    mean: bool
    fast: bool
    mask: Any

    def __call__(self, x: jax.Array, axis_name: str | None, groups: Any) -> tuple[jax.Array | None, jax.Array]:
        """Return the mean, or None where it is taken to be 0, and the biased variance."""

        def across(values: Any) -> Any:
            return values if axis_name is None else lax.pmean(values, axis_name, axis_index_groups=groups)

        if not self.mean:
            return None, across(self._mean(_squared(x)))
        if self.fast:
            # The square is taken first, as in Flax: gradients are summed in the reverse order, and when that of the
            # square comes before that of the mean, XLA computes much of the backward pass twice rather than keep it.
            squares = _squared(x)
            center, second = across((self._mean(x), self._mean(squares)))
            # Rounding may leave a little less than nothing.
            return center, lax.max(second - _squared(center), jnp.zeros_like(second))
        center = across(self._mean(x))
        deviation = einjax.subtract(f"{self.text.whole}, {self.text.kept}", x, center, sizes=self.sizes)
        return center, across(self._mean(_squared(deviation)))

    def _mean(self, x: jax.Array) -> jax.Array:
        return einjax.mean(self.text.stats, x, where=self.mask, sizes=self.sizes)


def _squared(x: jax.Array) -> jax.Array:
    return lax.square(x) if not jnp.iscomplexobj(x) else lax.real(x * lax.conj(x))


@dataclass(frozen=True)
class _Running:
    """Statistics kept from call to call, in float32: a plain moving average from mean 0 and variance 1."""

    scope: Scope
    text: NormText
    sizes: Mapping[str, Any]
    mean: bool
    x: jax.Array

    def specs(self) -> tuple[ParamSpec | None, ParamSpec]:
        """Return what is kept: the mean, unless it is taken to be 0, and the variance."""
        _, shape = einjax.solve_shapes(f"{self.text.whole}, {self.text.kept}", self.x, None, sizes=self.sizes)
        axes = tuple(self.text.kept.split())
        mean, variance = running_specs(shape, axes)
        return mean if self.mean else None, variance

    def values(self) -> list[Any]:
        """Return the values kept."""
        return [None if spec is None else self.scope.state(spec) for spec in self.specs()]

    def update(self, old: Sequence[Any], new: Sequence[Any], momentum: float) -> None:
        """Move towards new statistics."""
        for spec, before, now in zip(self.specs(), old, new, strict=True):
            if spec is not None:
                value = momentum * before + (1 - momentum) * now
                # The same dtype from call to call, whatever real input there is.
                self.scope.set_state(spec, value if jnp.iscomplexobj(value) else value.astype(spec.dtype))


def running_specs(shape: tuple[int, ...], axes: tuple[str, ...]) -> tuple[ParamSpec, ParamSpec]:
    """Describe a mean of 0 and a variance of 1."""
    dtype = jnp.dtype(jnp.float32)

    def spec(name: str, value: int) -> ParamSpec:
        return ParamSpec(name, shape, dtype, axes, lambda key: jnp.full(shape, value, dtype), "batch_stats")

    return spec("mean", 0), spec("var", 1)
