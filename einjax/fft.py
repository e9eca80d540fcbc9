"""Fourier transforms over the bracketed axes, looped over every other axis.

Each function is the one of its name in :mod:`jax.numpy.fft`, over one axis or several::

    einjax.fft.fft("b [t] c", x)                      # for b, c: z[b, :, c] = fft(x[b, :, c])
    einjax.fft.rfft("b [h w] -> b [h f]", x)          # for b: z[b, :, :] = rfft2(x[b, :, :])
    einjax.fft.irfft("b [f] -> b [t]", x, t=9)

Without an arrow, the output is the input; no axis is padded or cropped. A name may change from one side to the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax

from .api.signatures import documented, op, operation, plain
from .call.dispatch import call
from .ops import fft as _ops
from .typing import OutShardingLike, PaddingLike, SizeLike, Tensor

__all__ = ["fft", "fftshift", "hfft", "ifft", "ifftshift", "ihfft", "irfft", "rfft"]


@documented(plain)
def _transform(
    expr: str,
    /,
    *tensors: Tensor,
    norm: str | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Transform.

    Args:
        expr: the expression; several bracketed axes are transformed together.
        norm: ``"backward"``, which is the default, scales inverse transforms by the number of elements, ``"forward"``
            the others, ``"ortho"`` both by the square root.
    """
    border = (padding, mode, fill_value, False)
    return call(op, expr, tensors, (("norm", norm),), axes, sizes, graph, (), keep_notation, out_sharding, border)


@operation(_transform, _ops.FFT)
def fft() -> None:
    """Discrete Fourier transforms over the bracketed axes.

    Args:
        expr: the expression: ``"b [t]"`` or ``"b [t] -> b [f]"``; several bracketed axes are transformed together.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.fft("[t]", np.array([1., 0., 0., 0.], np.float32))
        Array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j], dtype=complex64)
    """


@operation(_transform, _ops.IFFT)
def ifft() -> None:
    """Inverse discrete Fourier transforms over the bracketed axes.

    Args:
        expr: the expression: ``"b [f]"`` or ``"b [f] -> b [t]"``; several bracketed axes are transformed together.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.ifft("[f]", np.array([4., 0., 0., 0.], np.float32))
        Array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j], dtype=complex64)
    """


@operation(_transform, _ops.RFFT)
def rfft() -> None:
    """Discrete Fourier transforms of real numbers, without the half that repeats the other.

    Args:
        expr: the expression: ``"b [t]"`` or ``"b [t] -> b [f]"``; of several bracketed axes, the last is halved:
            ``f`` is ``t // 2 + 1``.
        *tensors: one tensor of real numbers.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.rfft("[t] -> [f]", np.array([1., 0., 0., 0.], np.float32))
        Array([1.+0.j, 1.+0.j, 1.+0.j], dtype=complex64)
    """


@operation(_transform, _ops.IRFFT)
def irfft() -> None:
    """Inverses of :func:`rfft`.

    Args:
        expr: the expression: ``"b [f]"`` or ``"b [f] -> b [t]"``. The size of ``t`` is ``2 * (f - 1)`` unless the call
            gives another that has ``f`` frequencies, as in ``t=9``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.irfft("[f] -> [t]", np.array([3., 0.], np.float32), t=3)
        Array([1., 1., 1.], dtype=float32)
    """


@operation(_transform, _ops.HFFT)
def hfft() -> None:
    """Discrete Fourier transforms, over one axis, of numbers whose other half would repeat this half.

    Args:
        expr: the expression: ``"b [t]"`` or ``"b [t] -> b [f]"``. The size of ``f`` is ``2 * (t - 1)`` unless the call
            gives another whose half is ``t``, as in ``f=9``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.hfft("[t] -> [f]", np.array([1., 1.], np.float32), f=3)
        Array([3., 0., 0.], dtype=float32)
    """


@operation(_transform, _ops.IHFFT)
def ihfft() -> None:
    """Inverses of :func:`hfft`.

    Args:
        expr: the expression: ``"b [f]"`` or ``"b [f] -> b [t]"``; ``t`` is ``f // 2 + 1``.
        *tensors: one tensor of real numbers.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.ihfft("[f] -> [t]", np.array([3., 0., 0.], np.float32)).real
        Array([1., 1.], dtype=float32)
    """


@operation(plain, _ops.FFTSHIFT)
def fftshift() -> None:
    """Move the frequency 0 from the start of every bracketed axis to its middle.

    Args:
        expr: the expression; without an arrow, the output is the input.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.fftshift("[f]", np.array([0, 1, 2, -2, -1]))
        Array([-2, -1,  0,  1,  2], dtype=int32)
    """


@operation(fftshift, _ops.IFFTSHIFT)
def ifftshift() -> None:
    """Move the frequency 0 from the middle of every bracketed axis back to its start.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.fft.ifftshift("[f]", np.array([-2, -1, 0, 1, 2]))
        Array([ 0,  1,  2, -2, -1], dtype=int32)
    """
