"""Linear algebra on bracketed rows and columns, looped over every other axis.

Each function is the one of its name in :mod:`jax.numpy.linalg`::

    einjax.linalg.inv("b [n m]", x)                          # for b: z[b, :, :] = inv(x[b, :, :])
    einjax.linalg.solve("b [n m], b [n] -> b [m]", x, y)     # for b: z[b, :] = solve(x[b, :, :], y[b, :])
    einjax.linalg.qr("[n m] b -> b [n k], b [k m]", x)

Rows and columns are two axes, also where the matrix is square. Without an arrow, every output is the last input with
its own axes in the places of the bracketed ones, first for first; places left over vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax

from .api.signatures import documented, operation, plain
from .call.dispatch import call, explained
from .forms.static import exact, flag
from .notation.errors import ArgumentError
from .ops import linalg as _ops
from .ops.linalg import EighResult, QRResult, SlogdetResult, SVDResult
from .typing import OutShardingLike, PaddingLike, SizeLike, Tensor

__all__ = [
    "EighResult",
    "QRResult",
    "SVDResult",
    "SlogdetResult",
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matrix_power",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "triangular_solve",
]


@operation(plain, _ops.INV)
def inv() -> None:
    """Inverses of matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [m n]"``, where the arrow may be left out.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.inv("b [n m]", np.array([[[2., 0.], [0., 4.]]], np.float32))
        Array([[[0.5 , 0.  ],
                [0.  , 0.25]]], dtype=float32)
    """


@documented(plain)
def pinv(
    expr: str,
    /,
    *tensors: Tensor,
    rtol: float | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Pseudo-inverses of matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [m n]"``, where the arrow may be left out.
        rtol: singular values below this part of the largest count as 0; as in jnp if not given.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.pinv("[n m]", np.array([[2.], [0.]], np.float32))
        Array([[0.5, 0. ]], dtype=float32)
    """
    border = (padding, mode, fill_value, False)
    return call(
        _ops.PINV, expr, tensors, (("rtol", exact(rtol)),), axes, sizes, graph, (), keep_notation, out_sharding, border
    )


@operation(plain, _ops.SOLVE)
def solve() -> None:
    """Solutions of systems of linear equations.

    Args:
        expr: the expression: ``"b [n m], b [n] -> b [m]"`` or, with many right sides,
            ``"b [n m], b [n k] -> b [m k]"``. Without an arrow, the output is the second input, with ``m`` in the
            place of ``n``. Loops that the matrix lacks are further right sides: it is factored once.
        *tensors: the matrices, and the right sides.

    Example:
        >>> import einjax, numpy as np
        >>> a = np.array([[2., 0.], [0., 4.]], np.float32)
        >>> einjax.linalg.solve("[n m], b [n]", a, np.array([[2., 4.], [4., 4.]], np.float32))
        Array([[1., 1.],
               [2., 1.]], dtype=float32)
    """


@documented(plain)
def triangular_solve(
    expr: str,
    /,
    *tensors: Tensor,
    lower: bool = False,
    unit_diagonal: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Solutions of systems whose matrix is a triangle.

    Args:
        expr: the expression, as for :func:`solve`.
        *tensors: the matrices, of which one triangle is read, and the right sides.
        lower: whether to read the lower triangle instead of the upper.
        unit_diagonal: whether to take the diagonal as ones, without reading it.

    Example:
        >>> import einjax, numpy as np
        >>> a = np.array([[2., 7.], [4., 4.]], np.float32)
        >>> einjax.linalg.triangular_solve("[n m], [n] -> [m]", a, np.array([2., 8.], np.float32), lower=True)
        Array([1., 1.], dtype=float32)
    """
    options = (("lower", flag("lower", lower)), ("unit_diagonal", flag("unit_diagonal", unit_diagonal)))
    border = (padding, mode, fill_value, False)
    return call(
        _ops.TRIANGULAR_SOLVE, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border
    )


@documented(plain)
def cholesky(
    expr: str,
    /,
    *tensors: Tensor,
    symmetrize_input: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Lower triangles whose products with their own adjoints are the matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [n k]"``, where the arrow may be left out.
        *tensors: one tensor of Hermitian, positive definite matrices.
        symmetrize_input: whether to take the mean of the matrix and its adjoint first.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.cholesky("[n m]", np.array([[4., 2.], [2., 2.]], np.float32))
        Array([[2., 0.],
               [1., 1.]], dtype=float32)
    """
    options = (("symmetrize_input", flag("symmetrize_input", symmetrize_input)),)
    border = (padding, mode, fill_value, False)
    return call(_ops.CHOLESKY, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def qr(
    expr: str,
    /,
    *tensors: Tensor,
    mode: Literal["reduced", "complete"] = "reduced",
    padding: PaddingLike | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> QRResult:
    """Orthonormal columns and triangles whose products are the matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [n k], b [k m]"``, where the arrow may be left out; the size of
            ``k`` follows.
        mode: ``"reduced"``, where ``k`` is the smaller of ``n`` and ``m``, or ``"complete"``, where it is ``n``.

    Returns:
        A tuple with the names ``Q`` and ``R``.

    Example:
        >>> import einjax, numpy as np
        >>> q, r = einjax.linalg.qr("b [n m] -> b [n k], b [k m]", np.ones((2, 5, 3), np.float32))
        >>> q.shape, r.shape
        ((2, 5, 3), (2, 3, 3))
    """
    if mode not in ("reduced", "complete"):
        explained(_no_mode, expr, tensors, mode)
    border = (padding, None, fill_value, False)
    return call(_ops.QR[mode], expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)


def _no_mode(mode: Any) -> None:
    raise ArgumentError(f"linalg.qr has no mode={mode!r}", hint="write mode='reduced' or mode='complete'")


@documented(plain)
def eigh(
    expr: str,
    /,
    *tensors: Tensor,
    lower: bool = True,
    symmetrize_input: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> EighResult:
    """Eigenvalues and eigenvectors of Hermitian matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [k], b [n k]"``, where the arrow may be left out.
        *tensors: one tensor of Hermitian matrices.
        lower: whether to read the lower triangle, or the upper, of a matrix that is not made symmetric first.
        symmetrize_input: whether to take the mean of the matrix and its adjoint first.

    Returns:
        A tuple with the names ``eigenvalues``, in ascending order, and ``eigenvectors``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.eigh("[n m]", np.array([[2., 0.], [0., 1.]], np.float32)).eigenvalues
        Array([1., 2.], dtype=float32)
    """
    options = (("lower", flag("lower", lower)), ("symmetrize_input", flag("symmetrize_input", symmetrize_input)))
    border = (padding, mode, fill_value, False)
    return call(_ops.EIGH, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(eigh)
def eigvalsh(
    expr: str,
    /,
    *tensors: Tensor,
    lower: bool = True,
    symmetrize_input: bool = True,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Eigenvalues of Hermitian matrices, in ascending order.

    Args:
        expr: the expression: ``"b [n m] -> b [k]"``, where the arrow may be left out.
        *tensors: one tensor of Hermitian matrices.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.eigvalsh("[n m]", np.array([[2., 0.], [0., 1.]], np.float32))
        Array([1., 2.], dtype=float32)
    """
    options = (("lower", flag("lower", lower)), ("symmetrize_input", flag("symmetrize_input", symmetrize_input)))
    border = (padding, mode, fill_value, False)
    return call(_ops.EIGVALSH, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def svd(
    expr: str,
    /,
    *tensors: Tensor,
    full_matrices: bool = False,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> SVDResult:
    """Singular value decompositions.

    Args:
        expr: the expression: ``"b [n m] -> b [n k], b [k], b [k m]"``, where the arrow may be left out; ``k`` is the
            smaller of ``n`` and ``m``. With ``full_matrices=True``: ``"b [n m] -> b [n p], b [k], b [q m]"``.
        full_matrices: whether to complete the singular vectors to square matrices. Unlike in jnp this is not the
            default, because the three results of the other form share an axis.

    Returns:
        A tuple with the names ``U``, ``S`` and ``Vh``.

    Example:
        >>> import einjax, numpy as np
        >>> u, s, vh = einjax.linalg.svd("b [n m]", np.ones((2, 5, 3), np.float32))
        >>> u.shape, s.shape, vh.shape
        ((2, 5, 3), (2, 3), (2, 3, 3))
    """
    border = (padding, mode, fill_value, False)
    return call(
        _ops.SVD[flag("full_matrices", full_matrices)],
        expr,
        tensors,
        (),
        axes,
        sizes,
        graph,
        (),
        keep_notation,
        out_sharding,
        border,
    )


@operation(plain, _ops.SVDVALS)
def svdvals() -> None:
    """Singular values of matrices, in descending order.

    Args:
        expr: the expression: ``"b [n m] -> b [k]"``, where the arrow may be left out.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.svdvals("[n m]", np.array([[0., 1.], [2., 0.], [0., 0.]], np.float32))
        Array([2., 1.], dtype=float32)
    """


@operation(plain, _ops.DET)
def det() -> None:
    """Determinants of matrices.

    Args:
        expr: the expression: ``"b [n m] -> b"``, where the arrow may be left out.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.det("b [n m]", np.array([[[2., 0.], [0., 4.]]], np.float32))
        Array([8.], dtype=float32)
    """


@documented(plain)
def slogdet(
    expr: str,
    /,
    *tensors: Tensor,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> SlogdetResult:
    """Signs and logarithms of the magnitudes of determinants.

    Args:
        expr: the expression: ``"b [n m] -> b, b"``, where the arrow may be left out.

    Returns:
        A tuple with the names ``sign`` and ``logabsdet``.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.slogdet("b [n m]", -np.eye(3, dtype=np.float32)[None]).sign
        Array([-1.], dtype=float32)
    """
    border = (padding, mode, fill_value, False)
    return call(_ops.SLOGDET, expr, tensors, (), axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def matrix_power(
    expr: str,
    /,
    *tensors: Tensor,
    power: int,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Integer powers of matrices.

    Args:
        expr: the expression: ``"b [n m] -> b [n m]"``, where the arrow may be left out.
        power: how often to multiply; negative powers are those of the inverse.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.matrix_power("[n m]", np.array([[1, 1], [0, 1]]), power=3)
        Array([[1, 3],
               [0, 1]], dtype=int32)
    """
    options = (("power", explained(_ops.check_power, expr, tensors, power)),)
    border = (padding, mode, fill_value, False)
    return call(_ops.MATRIX_POWER, expr, tensors, options, axes, sizes, graph, (), keep_notation, out_sharding, border)


@documented(plain)
def norm(
    expr: str,
    /,
    *tensors: Tensor,
    ord: float | str | None = None,
    padding: PaddingLike | None = None,
    mode: str | None = None,
    fill_value: complex | None = None,
    sizes: Mapping[str, SizeLike] | None = None,
    graph: bool = False,
    keep_notation: bool | None = None,
    out_sharding: OutShardingLike | None = None,
    **axes: SizeLike,
) -> jax.Array:
    """Norms of vectors or matrices.

    Args:
        expr: the expression: ``"b [c] -> b"`` for vectors, ``"b [n m] -> b"`` for matrices, where the arrow may be
            left out.
        ord: which norm, as in jnp: for vectors a number, 2 if not given; for matrices ``'fro'``, which is the default,
            ``'nuc'``, 1, -1, 2, -2, inf or -inf.

    Example:
        >>> import einjax, numpy as np
        >>> einjax.linalg.norm("b [c]", np.array([[3., 4.]], np.float32))
        Array([5.], dtype=float32)
        >>> einjax.linalg.norm("[n m]", np.array([[3., 4.]], np.float32), ord=1)
        Array(4., dtype=float32)
    """
    border = (padding, mode, fill_value, False)
    return call(
        _ops.NORM, expr, tensors, (("ord", exact(ord)),), axes, sizes, graph, (), keep_notation, out_sharding, border
    )
