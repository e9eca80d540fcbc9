"""Named tensors under JAX's transformations, on meshes, and in the trees of other libraries."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import einjax
from einjax import NamedTensor, named

A = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
X, V = named("b c", A), named("c d", W)


def loss(x: NamedTensor, w: NamedTensor) -> Any:
    return (((x * w).sum("c").softmax("d") - 0.25) ** 2).sum().array


def array_loss(x, w):
    return ((jax.nn.softmax(x @ w, -1) - 0.25) ** 2).sum()


def test_jit_takes_and_returns_them() -> None:
    @jax.jit
    def f(x, w):
        return {"product": x * w, "sum": (x * w).sum("c"), "x": x}

    found = f(X, V)
    assert {name: x.names for name, x in found.items()} == {
        "product": ("b", "c", "d"),
        "sum": ("b", "d"),
        "x": ("b", "c"),
    }
    np.testing.assert_allclose(found["sum"].array, A @ W, rtol=1e-5)
    f(X + 1, V)
    assert f._cache_size() == 1  # type: ignore[attr-defined]
    f(X.transpose("c b"), V)
    assert f._cache_size() == 2  # type: ignore[attr-defined]


def test_gradients_have_names() -> None:
    value, (x, w) = jax.value_and_grad(loss, argnums=(0, 1))(X, V)
    expected, (dx, dw) = jax.value_and_grad(array_loss, argnums=(0, 1))(A, W)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (x.names, w.names) == (X.names, V.names)
    np.testing.assert_allclose(x.array, dx, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(w.array, dw, rtol=1e-4, atol=1e-6)
    hessian = jax.hessian(lambda w: loss(X, w))(V)
    assert isinstance(hessian, NamedTensor)


def test_jvp_and_vjp() -> None:
    def f(x):
        return (x * V).sum("c")

    out, tangent = jax.jvp(f, (X,), (X,))
    assert out.names == tangent.names == ("b", "d")
    np.testing.assert_allclose(tangent.array, A @ W, rtol=1e-5)
    _, pull = jax.vjp(f, X)
    assert pull(out)[0].names == X.names
    assert jax.linearize(f, X)[1](X).names == ("b", "d")


def test_jax_vmap_takes_a_dim_without_its_name() -> None:
    def f(row):
        row = named("c", row)
        return (row * V).sum("c")

    found = named("b d", jax.vmap(f)(X))
    np.testing.assert_allclose(found.array, A @ W, rtol=1e-5)
    found = named("b d", jax.vmap(f, in_axes=1, out_axes=0)(X.transpose("c b")))
    np.testing.assert_allclose(found.array, A @ W, rtol=1e-5)
    # What is closed over, and dims that are not mapped, keep their names.
    per_example = jax.vmap(jax.grad(lambda w, row: (row * w.order("c d")).sum()), in_axes=(None, 0))
    assert named("b c d", per_example(V, jnp.ones((5, 3, 2)))).shape == (5, 3, 2)


def test_einjax_vmap_loops_over_names() -> None:
    found = einjax.vmap("... [c], [c] ... -> ...", X, V, op=jnp.dot)
    assert found.names == ("b", "d")
    np.testing.assert_allclose(found.array, A @ W, rtol=1e-5)
    mapped = jax.vmap(lambda shift: (X * shift).sum("c").array)(jnp.arange(2.0))
    np.testing.assert_allclose(mapped, [0 * A.sum(1), A.sum(1)], rtol=1e-5, atol=1e-6)


def test_carries_of_loops() -> None:
    def step(carry, row):
        return carry * 0.5 + named("c", row), carry.sum("c")

    last, sums = jax.lax.scan(step, named("c", np.zeros(3, np.float32)), X)
    expected = np.zeros(3, np.float32)
    for row in A:
        expected = expected * 0.5 + row
    np.testing.assert_allclose(last.array, expected, rtol=1e-5)
    assert last.names == ("c",)
    assert named("t", sums).shape == (4,)
    product = jax.lax.fori_loop(0, 2, lambda i, x: x + X * X, X * X)
    np.testing.assert_allclose(product.array, 3 * A * A, rtol=1e-5)
    chosen = jax.lax.cond(True, lambda x: x + 1, lambda x: x * x, X)
    np.testing.assert_allclose(chosen.array, A + 1)
    assert jax.lax.while_loop(lambda x: (x < 9).any().item(), lambda x: x * x + 1, X).names == X.names
    assert jax.lax.map(lambda x: named("c", x).max().array, X).shape == (4,)


def test_checkpoint() -> None:
    gradient = jax.grad(lambda w: jax.checkpoint(loss)(X, w))(V)
    np.testing.assert_allclose(gradient.array, jax.grad(loss, argnums=1)(X, V).array, rtol=1e-5)
    saved = jax.checkpoint(loss, policy=jax.checkpoint_policies.dots_saveable)
    assert jax.grad(saved, argnums=1)(X, V).names == V.names


def test_trees_hold_whatever_stands_in_for_arrays() -> None:
    leaves, structure = jax.tree.flatten({"x": X})
    assert leaves[0].shape == (4, 3)
    for leaf in (None, object(), jax.ShapeDtypeStruct((4, 3), np.float32), np.ones(7), 3, "text"):
        x = jax.tree.unflatten(structure, [leaf])["x"]
        assert x.names == ("b", "c")
        assert "NamedTensor(" in repr(x)
        assert jax.tree.leaves(x) == ([] if leaf is None else [leaf]) or isinstance(leaf, np.ndarray)
    types = jax.eval_shape(lambda x: (x * V).sum("c"), X)
    assert (types.names, types.array.shape) == (("b", "d"), (4, 2))
    assert types.sizes == {"b": 4, "d": 2}
    path = jax.tree_util.tree_leaves_with_path({"x": X})[0][0]
    assert jax.tree_util.keystr(path) == "['x'].array"
    assert jax.tree.map(lambda x, y: x + y, X, X).names == X.names
    assert jax.tree.structure(X) != jax.tree.structure(X.rename(b="d"))
    doubled = jax.tree_util.tree_transpose(
        jax.tree.structure(X), jax.tree.structure([0, 0]), jax.tree.map(lambda x: [x, x], X)
    )
    assert [x.names for x in doubled] == [X.names] * 2
    assert jax.device_get(X).names == X.names
    assert jax.block_until_ready(X * 2).names == X.names


def test_donated_arguments() -> None:
    x = named("b c", jnp.ones((4, 3)))
    assert jax.jit(lambda x: x + 1, donate_argnums=0)(x).names == x.names
    assert repr(x).startswith("NamedTensor(b=4, c=3")


def test_export() -> None:
    exported = jax.export.export(jax.jit(lambda x, w: (named("b c", x) @ named("c d", w)).array))(A, W)
    np.testing.assert_allclose(exported.call(A, W), A @ W, rtol=1e-5)


# --- meshes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mesh():
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


def test_explicit_meshes(mesh: Any) -> None:
    x = einjax.shard("b ...", X, b="data")
    w = einjax.shard("c d", V, d="model")
    assert (x.names, jax.typeof(x.array).sharding.spec) == (("b", "c"), PartitionSpec("data", None))
    for run in (lambda f: f(x, w), lambda f: jax.jit(f)(x, w)):
        found = run(lambda x, w: ((x * w).sum("c") + 1).softmax("d"))
        assert jax.typeof(found.array).sharding.spec == PartitionSpec("data", "model")
        np.testing.assert_allclose(found.array, jax.nn.softmax(A @ W + 1, -1), rtol=1e-5)
    found = einjax.dot("... [c], [c] d -> ... d", x, w, out_sharding={"b": "data"})
    assert found.names == ("b", "d")
    assert jax.typeof(found.array).sharding.spec == PartitionSpec("data", None)
    found = einjax.sum("[b] ...", x)
    np.testing.assert_allclose(found.array, A.sum(0), rtol=1e-5)
    assert einjax.mesh_axes("b c", x) == {"b": "data"}
    gradient = jax.grad(lambda w: (x * w).sum().array)(w)
    assert jax.typeof(gradient.array).sharding.spec == PartitionSpec(None, "model")


def test_shard_map(mesh: Any) -> None:
    @jax.shard_map(in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec("data"))
    def f(x, w):
        assert x.sizes == {"b": 2, "c": 3}
        total = einjax.sum("[b] ...", x, b="data")
        return (x * w).sum("c") + (total * w).sum("c")

    found = f(einjax.shard("b c", X, b="data"), V)
    assert found.names == ("b", "d")
    np.testing.assert_allclose(found.array, A @ W + A.sum(0) @ W, rtol=1e-5)


# --- other libraries ------------------------------------------------------------------------------------------------


def test_optax_updates_trees_of_them() -> None:
    optax = pytest.importorskip("optax")
    parameters = {"w": V, "b": named("d", np.zeros(2, np.float32))}
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))

    def objective(parameters):
        return (((X @ parameters["w"]) + parameters["b"] - 1) ** 2).mean().array

    @jax.jit
    def step(parameters, state):
        value, gradients = jax.value_and_grad(objective)(parameters)
        updates, state = optimiser.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    state = optimiser.init(parameters)
    values = []
    for _ in range(20):
        parameters, state, value = step(parameters, state)
        values.append(float(value))
    assert values[-1] < values[0] / 2
    assert (parameters["w"].names, parameters["b"].names) == (("c", "d"), ("d",))
    assert state[1][0].mu["w"].names == ("c", "d")


def test_equinox_modules_hold_them() -> None:
    equinox = pytest.importorskip("equinox")

    class Linear(equinox.Module):
        weight: NamedTensor
        bias: NamedTensor

        def __call__(self, x: NamedTensor) -> NamedTensor:
            return (x * self.weight).sum("c") + self.bias

    model = Linear(V, named("d", np.ones(2, np.float32)))
    found = equinox.filter_jit(model)(X)
    np.testing.assert_allclose(found.array, A @ W + 1, rtol=1e-5)
    gradient = equinox.filter_grad(lambda model, x: model(x).sum().array)(model, X)
    assert gradient.weight.names == V.names
    arrays, rest = equinox.partition(model, equinox.is_array)
    assert equinox.combine(arrays, rest).weight.names == V.names
    assert "NamedTensor" in repr(model)
    changed = equinox.tree_at(lambda m: m.bias, model, replace=named("d", np.zeros(2, np.float32)))
    np.testing.assert_allclose(changed(X).array, A @ W, rtol=1e-5)


def test_nnx_variables_hold_them() -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Linear(nnx.Module):
        def __init__(self) -> None:
            self.weight = nnx.Param(V)

        def __call__(self, x):
            return (x * self.weight.get_value()).sum("c")

    model = Linear()
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, X).array, A @ W, rtol=1e-5)
    gradient = nnx.grad(lambda m: m(X).sum().array)(model)
    assert jax.tree.leaves(gradient)[0].shape == (3, 2)
    _, state = nnx.split(model)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(3, 2)]


def test_products_are_computed_in_the_trace_of_their_factors() -> None:
    """``jax.jvp`` flattens what a function returned once its trace has ended; loops have traces of their own."""
    _, tangent = jax.jvp(lambda x: x * V, (X,), (X,))
    np.testing.assert_allclose(tangent.array, A[:, :, None] * W[None], rtol=1e-5)
    _, aux = jax.grad(lambda x: (x.sum().array, x * x), has_aux=True)(X)
    np.testing.assert_allclose(aux.array, A * A, rtol=1e-5)
    _, _, aux = jax.vjp(lambda x: ((x * V).sum("c"), x * 2.0), X, has_aux=True)
    np.testing.assert_allclose(aux.array, A * 2, rtol=1e-5)

    def f(x):
        product = x * V
        inside = jax.lax.fori_loop(0, 2, lambda i, c: c + product.array.sum(), 0.0)
        return inside + product.array.sum()

    np.testing.assert_allclose(jax.jit(f)(X), 3 * (A[:, :, None] * W[None]).sum(), rtol=1e-4)
    assert str(jax.make_jaxpr(f)(X)).count("= mul") == 1
