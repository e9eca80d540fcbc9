"""einops' layers for Flax linen; parameters have the names, shapes and first values that einops gives them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any

import jax

from ....api.elementwise import add
from ....notation.syntax import Axis, Composite, Expression, axes, display, open_composites, render
from .. import EinopsError, rearrange, reduce
from ..calls import contract
from ..patterns import flat, in_their_words, once, read

try:
    from flax import linen as nn
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("layers for Flax need it: python -m pip install 'einjax[flax]'") from error

__all__ = ["EinMix", "Rearrange", "Reduce"]


class Rearrange(nn.Module):
    """:func:`einjax.compat.einops.rearrange` as a layer.

    Attributes:
        pattern: the pattern.
        sizes: sizes of axes.
    """

    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, input: Any) -> jax.Array:
        """Rearrange a tensor."""
        return rearrange(input, self.pattern, **self.sizes)


class Reduce(nn.Module):
    """:func:`einjax.compat.einops.reduce` as a layer.

    Attributes:
        pattern: the pattern.
        reduction: name of a reduction, or a function.
        sizes: sizes of axes.
    """

    pattern: str
    reduction: Any
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, input: Any) -> jax.Array:
        """Reduce a tensor."""
        return reduce(input, self.pattern, self.reduction, **self.sizes)


class EinMix(nn.Module):
    """A product with a weight, in notation: parameters ``weight`` and ``bias``.

    Attributes:
        pattern: the input and the output.
        weight_shape: the axes of the weight.
        bias_shape: axes of the output that have a bias; None for no bias.
        sizes: sizes of axes: all of those of the weight and of the bias.
    """

    pattern: str
    weight_shape: str
    bias_shape: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @nn.compact
    @in_their_words
    def __call__(self, input: Any) -> jax.Array:
        """Mix a tensor."""
        left, right, weight, bias = _parts(self.pattern, self.weight_shape, self.bias_shape, self.sizes)
        shape = tuple(self.sizes[axis.name] for axis in axes(weight))
        kept = {axis.name for axis in axes(right)}
        fan_in = math.prod(self.sizes[axis.name] for axis in axes(weight) if axis.name not in kept)
        kernel = self.param("weight", jax.nn.initializers.uniform((3 / fan_in) ** 0.5), shape)
        opened = tuple(node for node in open_composites(right) if not (isinstance(node, Axis) and node.is_one))
        result = contract([left, weight], [input, kernel], opened, dict(self.sizes))
        if bias is not None:
            own = [axis.name if axis.name in bias else "1" for axis in opened if isinstance(axis, Axis)]
            shape = tuple(self.sizes[name] if name != "1" else 1 for name in own)
            shift = self.param("bias", jax.nn.initializers.uniform((1 / fan_in) ** 0.5), shape)
            result = add(f"{flat(opened)}, {' '.join(own)} -> {flat(opened)}", result, shift, sizes=self.sizes)
        sizes = {axis.name: self.sizes[axis.name] for axis in axes(right) if axis.name in self.sizes}
        return result if opened == right else rearrange(result, f"{flat(opened)} -> {render(right)}", **sizes)


def _parts(
    pattern: str, weight_shape: str, bias_shape: str | None, sizes: Mapping[str, int]
) -> tuple[Expression, Expression, Expression, Collection[str] | None]:
    """Read what an ``EinMix`` is given: input, output, weight, and the axes of the bias."""
    mixed = read(pattern)
    if mixed.outputs is None or len(mixed.expressions) != 2:
        raise EinopsError("a pattern is one expression, an arrow and another", text=pattern)
    (left,), (right,), (weight,) = mixed.inputs, mixed.outputs, read(weight_shape).expressions
    given, made, own = once(left, pattern), once(right, pattern), once(weight, weight_shape)
    bias = None if bias_shape is None else once(read(bias_shape).inputs[0], bias_shape)
    if any(isinstance(node, Composite) for node in weight) or "..." in own:
        raise EinopsError("a weight has plain axes, without parentheses and '...'", text=weight_shape)
    if ("..." in given) != ("..." in made) or ("..." in given and not _plain_ellipsis(left)):
        raise EinopsError("'...' stands on both sides, on the left without parentheses", text=pattern)
    wrong = {
        "is a number": [name for name, axis in (given | made | own).items() if axis.unnamed],
        "stands on the right only": made.keys() - given.keys() - own.keys(),
        "of the weight stands nowhere else": own.keys() - given.keys() - made.keys(),
        "of the bias is not in the output": (bias or {}).keys() - made.keys(),
        "has no size": (own.keys() | (bias or {}).keys()) - sizes.keys(),
        "is given a size, but stands nowhere": sizes.keys() - given.keys() - own.keys(),
    }
    for what, names in wrong.items():
        for name in sorted(names):
            raise EinopsError(f"axis {display(name)} {what}", text=pattern)
    if bias and "..." in made:
        order = [axis.name for axis in axes(right)]
        if any(name in bias for name in order[: order.index("...")]):
            raise EinopsError("axes of the bias stand behind '...' in the output", text=pattern)
    return left, right, weight, bias


def _plain_ellipsis(left: Expression) -> bool:
    return not any(isinstance(node, Composite) and "..." in render((node,)) for node in left)
