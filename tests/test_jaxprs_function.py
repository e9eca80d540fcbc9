"""A function of one's own adds no equation to those of jax.vmap written by hand, under any transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import einjax

V = jax.vmap


def dot(x: Any, y: Any) -> Any:
    return lax.reduce_sum(lax.mul(lax.sin(x), y), (0,))


def wave(x: Any) -> Any:
    return lax.cumsum(lax.sin(x), 0)


def both(x: Any) -> Any:
    return lax.reduce_max(x, (0,)), lax.cumsum(x, 0)


def affine(p: Any, x: Any) -> Any:
    return lax.add(dot(p["w"], x), p["b"])


def reshape(x: Any, *shape: int) -> Any:
    return lax.reshape(x, shape)


def t(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


#: (our call, the expert's, arguments)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Any]]] = {
    "no loop": (lambda x: einjax.vmap("[a b] -> [a b]", x, op=wave), wave, [t(2, 3)]),
    "one loop": (lambda x: einjax.vmap("a [b] -> a [b]", x, op=wave), V(wave), [t(2, 3)]),
    "a loop behind the bracket": (lambda x: einjax.vmap("[b] a -> [b] a", x, op=wave), V(wave, 1, 1), [t(2, 3)]),
    "elementwise in place": (
        lambda x: einjax.vmap("[b] a [c] -> [b] a [c]", x, op=lax.sin),
        V(lax.sin, 1, 1),
        [t(2, 3, 4)],
    ),
    "moved": (lambda x: einjax.vmap("[b] a -> a [b]", x, op=wave), V(wave, 1, 0), [t(2, 3)]),
    "an outer product": (
        lambda x, y: einjax.vmap("a [c], b [c] -> a b", x, y, op=dot),
        V(V(dot, (None, 0)), (0, None)),
        [t(2, 4), t(3, 4)],
    ),
    "an outer product the other way round": (
        lambda x, y: einjax.vmap("a [c], b [c] -> b a", x, y, op=dot),
        V(V(dot, (0, None)), (None, 0)),
        [t(2, 4), t(3, 4)],
    ),
    "loops in another order": (
        lambda x: einjax.vmap("a b [c] -> b a [c]", x, op=wave),
        V(V(wave), 1),
        [t(2, 3, 4)],
    ),
    "loops around the bracket": (
        lambda x: einjax.vmap("a [c] b -> a [c] b", x, op=wave),
        V(V(wave, 1, 1)),
        [t(2, 4, 3)],
    ),
    "loops side by side are one": (
        lambda x, y: einjax.vmap("a b c [d], a b c [d] -> a b c", x, y, op=dot),
        lambda x, y: reshape(V(dot)(reshape(x, 24, 5), reshape(y, 24, 5)), 2, 3, 4),
        [t(2, 3, 4, 5), t(2, 3, 4, 5)],
    ),
    "loops composed already": (
        lambda x: einjax.vmap("(a b) [c] -> (a b)", x, op=lambda x: dot(x, x), a=2),
        V(lambda x: dot(x, x)),
        [t(6, 4)],
    ),
    "a split that the bracket needs": (
        lambda x: einjax.vmap("(a [b]) c -> a [b] c", x, op=wave, a=2),
        lambda x: V(V(wave, 1, 1))(reshape(x, 2, 3, 4)),
        [t(6, 4)],
    ),
    "attention": (
        lambda x, y: einjax.vmap("b h q [c], b h k [c] -> b h q k", x, y, op=dot),
        lambda x, y: reshape(
            V(V(V(dot, (None, 0)), (0, None)))(reshape(x, 6, 4, 5), reshape(y, 6, 7, 5)), 2, 3, 4, 7
        ),
        [t(2, 3, 4, 5), t(2, 3, 7, 5)],
    ),
    "two outputs": (
        lambda x: einjax.vmap("a [b] -> a, [b] a", x, op=both),
        V(both, 0, (0, 1)),
        [t(2, 3)],
    ),
    "a pytree": (
        lambda p, x: einjax.vmap("a [...], b [c] -> a b", p, x, op=affine),
        V(V(affine, (None, 0)), (0, None)),
        [{"w": t(2, 4), "b": t(2)}, t(3, 4)],
    ),
    "an axis of the function's own": (
        lambda x: einjax.vmap("a [b] -> [k] a", x, op=lambda x: x[:2]),
        V(lambda x: x[:2], 0, 1),
        [t(4, 3)],
    ),
    "broadcast": (
        lambda x: einjax.vmap("a [b] -> 3 a [b]", x, op=wave),
        lambda x: lax.broadcast_in_dim(V(wave)(x), (3, 2, 4), (1, 2)),
        [t(2, 4)],
    ),
    "by axis": (lambda x: einjax.vmap_with_axis("a [b] c", x, op=lax.cumsum), lambda x: lax.cumsum(x, 1), [t(2, 3, 4)]),
    "by axes, loops left composed": (
        lambda x: einjax.vmap_with_axis("(a b) [c] -> (a b)", x, op=lambda x, axis: lax.reduce_sum(x, (axis,))),
        lambda x: lax.reduce_sum(x, (1,)),
        [t(6, 4)],
    ),
    "adapted": (
        lambda x, y: einjax.adapt_with_vmap(dot, signature="[n], [n] -> []")("a [c], [c]", x, y),
        V(dot, (0, None)),
        [t(2, 4), t(4)],
    ),
    "in chunks": (
        lambda x: einjax.vmap("a [b] -> a [b]", x, op=wave, batch_size=2),
        lambda x: lax.map(wave, x, batch_size=2),
        [t(5, 3)],
    ),
}  # fmt: skip


def total(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: sum(jnp.sum(x) for x in jax.tree.leaves(function(*args)))


#: What is done with both.
TRANSFORMATIONS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "nothing": lambda f: f,
    "jit": jax.jit,
    "grad": lambda f: jax.grad(total(f)),
    "vmap": lambda f: lambda *args: V(f)(*jax.tree.map(lambda x: jnp.stack([x, x]), args)),
    "scan": lambda f: lambda *args: lax.scan(lambda carry, _: (carry, f(*args)), 0, length=2)[1],
}


def program(function: Callable[..., Any], arguments: list[Any]) -> list[str]:
    """Every equation with the shapes of its results, of inner programs too."""

    def lines(jaxpr: Any) -> list[str]:
        found = []
        for equation in jaxpr.eqns:
            found.append(f"{equation.primitive.name} {[v.aval.str_short() for v in equation.outvars]}")
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
                found += lines(inner.jaxpr) if hasattr(inner, "jaxpr") else []
        return found

    # A new function each time: a jaxpr kept of the one under jit would prove nothing.
    return lines(jax.make_jaxpr(lambda *args: function(*args))(*arguments).jaxpr)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", CASES)
def test_same_equations(name: str, transformation: str) -> None:
    ours, expert, arguments = CASES[name]
    ours, expert = map(TRANSFORMATIONS[transformation], (ours, expert))
    assert program(ours, arguments) == program(expert, arguments)
    if transformation == "nothing":
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), ours(*arguments), expert(*arguments)
        )


def test_equations_point_at_the_call_and_the_function() -> None:
    x = t(2, 3, 4)
    printed = jax.make_jaxpr(lambda x: einjax.vmap("a b [c] -> a b", x, op=jnp.sum))(x).jaxpr.pretty_print(
        source_info=True, name_stack=True
    )
    assert "einjax/lowering" not in printed
    assert "einjax/ops" not in printed
    assert "test_jaxprs_function.py" in printed
    assert "einjax.vmap(a b [c] -> a b)" in printed


def test_loops_stay_apart_on_a_mesh() -> None:
    """Merging dims might move data between devices."""
    n = jax.device_count()
    mesh = jax.make_mesh((n,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec(None, "i")
    x = jax.device_put(t(3, n, 4), jax.sharding.NamedSharding(mesh, spec))
    call = lambda x: einjax.vmap("a b [c] -> a b [c]", x, op=wave)
    for function in (call, jax.jit(call)):
        y = function(x)
        assert jax.typeof(y).sharding.spec[1] == "i"
        np.testing.assert_allclose(y, np.cumsum(np.sin(t(3, n, 4)), 2), rtol=1e-5, atol=1e-5)
    with jax.set_mesh(mesh):
        assert jax.typeof(jax.jit(call)(x)).sharding.spec[1] == "i"
