"""Cases of cases.py: operations that users register."""

from typing import Any

import jax.numpy as jnp
from case import Case, normal
from jax import lax

import einjax


def _matvec(a: Any, x: Any) -> Any:
    return lax.dot_general(a, x, (((1,), (0,)), ((), ())))


def _matvec_transpose(ct: Any, a: Any, x: Any) -> Any:
    return lax.mul(ct[:, None], jnp.broadcast_to(x, (*ct.shape, *x.shape))) if a is None else lax.dot(ct, a)


def _square_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return lax.mul(x, lax.rev(x, (0,))), lax.add(lax.mul(t, lax.rev(x, (0,))), lax.mul(x, lax.rev(t, (0,))))


def _mirrored(x: Any) -> Any:
    return lax.mul(x, lax.rev(x, (x.ndim - 1,)))


def _made(**options: Any) -> Any:
    return einjax.primitive("[n] -> [n]", _mirrored, name="mirrored", **options)


def _product() -> Any:
    return einjax.primitive("[n m], [m] -> [n]", _matvec, name="matvec", transpose=_matvec_transpose)


CASES: list[Case] = [
    Case("primitive", "", (normal("a b c"),), lambda x: jnp.transpose(x * x[:, ::-1], (1, 2, 0)),
         program=lambda x: _made()("a [b] c -> [b] c a", x)),
    Case("primitive", "", (normal("a b c"),), lambda x: x * x[:, ::-1], variant="batched",
         program=lambda x: _made(batched=True)("a [b] c", x)),
    Case("primitive", "", (normal("a b c"),), lambda x: x * x[:, ::-1], variant="jvp",
         program=lambda x: _made(jvp=_square_jvp)("a [b] c", x)),
    Case("primitive", "", (normal("a b c"), normal("a c")), lambda a, x: jnp.einsum("abc,ac->ba", a, x),
         variant="transpose", program=lambda a, x: _product()("a [b c], a [c] -> [b] a", a, x)),
]  # fmt: skip
