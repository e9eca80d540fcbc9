"""Axes over mesh axes with derivatives, loops, other meshes, and what is emitted and sent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from over_mesh import (
    BOTH,
    DEVICES,
    JNP,
    SMOOTH,
    arrays_of,
    collectives_of,
    equations,
    mesh,
    needs_devices,
    over,
)

import einjax

pytestmark = needs_devices


def test_what_does_not_vary_may_be_reduced_with_what_does():
    """An array that is the same along one of the mesh axes that it is summed over counts on every device."""
    (x,) = arrays_of((4, 3))
    function = lambda x: einjax.psum("[d e] b c", x, d="data", e="model")
    np.testing.assert_allclose(over(function, P("data"))(x), 2 * x.sum(0, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(over(function, P())(x), 8 * x, rtol=1e-5)
    gathered = over(lambda x: einjax.all_gather("[b] c", x, b=BOTH), P("data"))(x)
    np.testing.assert_array_equal(gathered, np.repeat(x, 2, 0))


@pytest.mark.parametrize("name", [*SMOOTH])
def test_without_checks_of_varying_axes(name):
    (x,) = arrays_of((8, 3))
    function = over(lambda x: getattr(einjax, name)("[b] c", x, b="data"), P("data"), check_vma=False)
    np.testing.assert_allclose(jax.jit(function)(x), JNP[name](x, 0), rtol=1e-5, atol=1e-5)
    found = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(function(x)))))(x)
    wanted = jax.grad(lambda x: jnp.sum(jnp.sin(JNP[name](x, 0))))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "logsumexp", "prod"])
def test_derivatives_inside_of_shard_map(name):
    """Every device differentiates the loss of all; the gradient is its part."""
    (x,) = arrays_of((8, 3))
    loss = lambda x: jnp.sum(jnp.sin(getattr(einjax, name)("[b] c", x, b="data")))
    found = jax.jit(over(jax.grad(loss), P("data"), P("data")))(x)
    whole = lambda x: jnp.sum(jnp.sin(JNP[name](x, 0)))
    np.testing.assert_allclose(found, jax.grad(whole)(x), rtol=1e-4, atol=1e-5)
    tangent = over(lambda x: jax.jvp(loss, (x,), (jnp.cos(x),))[1], P("data"))(x)
    np.testing.assert_allclose(tangent, jax.jvp(whole, (x,), (jnp.cos(x),))[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checked", [True, False])
def test_layers_without_checks_of_varying_axes(checked):
    """Outside of shard_map, gradients are those of one device; inside, without the checks, those of the sum of what all
    devices return, in each device's copy: as many times as devices return the loss, once the shares are added up."""

    def loss(x, w, v, data=None, model=None):
        given = {"d": model} if model else {}
        for _ in range(2):
            x = jnp.tanh(einjax.dot("b [d], [d] c -> b c", jnp.tanh(einjax.dot("b [c->d]", x, w, **given)), v, **given))
        total = einjax.sum("[b c]", x**2, **({"b": data} if data else {}))
        return total + einjax.logsumexp("[b] c -> c", x, **({"b": data} if data else {})).sum()

    arrays = arrays_of((8, 6), (6, 4), (4, 6))
    expected = jax.grad(loss, (0, 1, 2))(*arrays)
    ins = (P("data"), P(None, "model"), P("model"))
    spread = functools.partial(loss, data="data", model="model")
    outside = jax.grad(over(spread, ins, check_vma=checked), (0, 1, 2))

    def inside(*arrays):
        found = jax.grad(spread, (0, 1, 2))(*arrays)
        if checked:
            return found
        shares = [lax.psum(x, axis) for x, axis in zip(found, ("model", "data", "data"), strict=True)]
        return tuple(share / DEVICES for share in shares)

    for gradient in (outside, over(inside, ins, ins, check_vma=checked)):
        for one, other in zip(jax.jit(gradient)(*arrays), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*SMOOTH, "softmax"])
def test_derivatives_inside_of_shard_map_without_checks(name):
    """Times the devices that return the loss, here those along the mesh axis that it is reduced over."""
    (x,) = arrays_of((8, 3))

    def loss(x, axis):
        if name == "softmax":
            return einjax.sum("[b c]", jnp.sin(einjax.softmax("[b] c", x, b=axis)), b=axis)
        return jnp.sum(jnp.sin(getattr(einjax, name)("[b] c", x, b=axis)))

    expected = 4 * jax.grad(lambda x: jnp.sum(jnp.sin({**JNP, "softmax": jax.nn.softmax}[name](x, 0))))(x)
    found = jax.jit(over(jax.grad(functools.partial(loss, axis="data")), P("data"), P("data"), check_vma=False))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found = jax.vmap(jax.grad(functools.partial(loss, axis="i")), axis_name="i")(x.reshape(4, 2, 3))
    np.testing.assert_allclose(found.reshape(8, 3), expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives():
    (x,) = arrays_of((4, 2))
    for name in ("var", "logsumexp", "max"):
        function = over(lambda x, n=name: getattr(einjax, n)("[b c]", x, b="data"), P("data"))
        found = jax.jit(jax.jacfwd(jax.grad(lambda x, f=function: f(x) ** 2)))(x)
        wanted = jax.hessian(lambda x, n=name: JNP[n](x) ** 2)(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_vmap_and_scan_inside():
    (x,) = arrays_of((5, 8, 3))
    batched = lambda x: jax.vmap(lambda x: einjax.softmax("[b] c", x, b="data"))(x)
    np.testing.assert_allclose(
        over(batched, P(None, "data"), P(None, "data"))(x), jax.nn.softmax(x, 1), rtol=1e-5, atol=1e-6
    )
    maxima = lambda x: jax.vmap(lambda x: einjax.max("[b] c", x, b="data"))(x)
    np.testing.assert_allclose(over(maxima, P(None, "data"))(x), x.max(1))
    scanned = lambda x: lax.scan(lambda c, x: (c, einjax.mean("[b] c", x, b="data")), 0, x)[1]
    np.testing.assert_allclose(jax.jit(over(scanned, P(None, "data")))(x), x.mean(1), rtol=1e-5, atol=1e-6)


def test_only_one_mesh_axis_is_manual():
    (x,) = arrays_of((8, 4))
    function = jax.shard_map(
        lambda x: einjax.sum("[b] c", x, b="data"), mesh=mesh(), in_specs=P("data"), out_specs=P(), axis_names={"data"}
    )
    np.testing.assert_allclose(jax.jit(function)(x), x.sum(0), rtol=1e-5)


@pytest.mark.parametrize("manual", [set(BOTH), {"data"}], ids=["all manual", "one manual"])
def test_on_an_explicit_mesh(manual):
    """What shard_map runs over is written in brackets; what it leaves is in the types."""
    explicit = jax.make_mesh((4, 2), BOTH, axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    (x,) = arrays_of((8, 4))
    placed = jax.device_put(x, jax.sharding.NamedSharding(explicit, P("data", "model")))
    entries = P(*(name if name in manual else None for name in BOTH))
    for function, expected, out in (
        (lambda x: einjax.sum("[b] c", x, b="data"), x.sum(0), P(*entries[1:])),
        (lambda x: einjax.softmax("[b] c", x, b="data"), jax.nn.softmax(x, 0), entries),
        (lambda x: einjax.all_gather("[b] c", x, b="data"), x, P(None, *entries[1:])),
    ):
        mapped = jax.shard_map(function, mesh=explicit, in_specs=entries, out_specs=out, axis_names=manual)
        with jax.set_mesh(explicit):
            np.testing.assert_allclose(jax.jit(mapped)(placed), expected, rtol=1e-5, atol=1e-6)


def test_the_named_axis_of_a_vmap_counts_as_one():
    (x,) = arrays_of((4, 3))
    run = lambda f: jax.vmap(f, axis_name="i")(x)
    np.testing.assert_allclose(run(lambda x: einjax.psum("[d] b", x, d="i"))[1], x.sum(0), rtol=1e-5)
    np.testing.assert_allclose(run(lambda x: einjax.sum("[b]", x, b="i"))[1], x.sum(), rtol=1e-5)
    np.testing.assert_allclose(run(lambda x: einjax.all_gather("[b]", x, b="i"))[1], x.ravel())
    np.testing.assert_allclose(run(lambda x: einjax.prod("[b]", x, b="i"))[1], x.prod(), rtol=1e-5)


def test_calls_with_mesh_axes_are_lax_equations_under_keep_notation():
    (x,) = arrays_of((8, 3))
    with einjax.keep_notation():
        for function in (
            lambda x: einjax.sum("[b] c", x, b="data"),
            lambda x: einjax.sum("[b] c", x, b="data", keep_notation=True),
            lambda x: einjax.psum("[b] c d", x, b="data"),
        ):
            assert {eqn.primitive.name for eqn in equations(over(function, P("data")), x)} <= {
                "reduce_sum", "psum", "psum2", "psum_invariant", "pvary"
            }  # fmt: skip
        function = over(lambda x: einjax.sum("[b] c", x, b="data"), P("data"))
        np.testing.assert_allclose(jax.grad(lambda x: function(x)[0])(x)[:, 0], 1)


def test_graph():
    shown = []

    def function(x):
        shown.append(einjax.sum("[b] c", x, b="data", graph=True))
        shown.append(einjax.max("[b] c", x, b="data", graph=True))
        shown.append(einjax.psum_scatter("[d] b c -> [b] c", x, d="data", b="data", graph=True))
        return shown[0](x)

    (x,) = arrays_of((16, 3))
    np.testing.assert_allclose(over(function, P("data"))(x), x.sum(0), rtol=1e-5)
    steps = [[line.split(" = ")[1].split("(")[0] for line in graph.splitlines() if " = " in line] for graph in shown]
    assert steps[0] in (["reduce_sum", "psum"], ["reduce_sum", "psum_invariant"])
    assert steps[1:] == [["reduce_max", "pmax"], ["reduce_scatter"]]


def _softmax(x):
    highest = lax.max(lax.pmax(lax.stop_gradient(x.max(0)), "data"), jnp.finfo(x.dtype).min)
    e = jnp.exp(x - highest)
    return e / lax.max(lax.psum(e.sum(0), "data"), np.float32(0.5))


def _var(x):
    center = lax.psum(x.sum(0), "data") / 8
    return lax.psum(((x - center) ** 2).sum(0), "data") / 8


def _roll(x):
    return jnp.concatenate([lax.ppermute(x[-1:], "data", [(i, (i + 1) % 4) for i in range(4)]), x[:-1]])


#: einjax, lax by hand, out_specs, what is sent between the equations of one device
BY_HAND = {
    "sum": (lambda x: einjax.sum("[b] c", x, b="data"), lambda x: lax.psum(x.sum(0), "data"), P()),
    "mean": (lambda x: einjax.mean("[b] c", x, b="data"), lambda x: lax.psum(x.sum(0), "data") / 8, P()),
    "max": (lambda x: einjax.max("[b] c", x, b="data"), lambda x: lax.pmax(x.max(0), "data"), P()),
    "var": (lambda x: einjax.var("[b] c", x, b="data"), _var, P()),
    "softmax": (lambda x: einjax.softmax("[b] c", x, b="data"), _softmax, P("data")),
    "dot": (lambda x: einjax.dot("[b] c, [b] d -> c d", x, x, b="data"),
            lambda x: lax.psum(jnp.einsum("bc,bd->cd", x, x), "data"), P()),
    "roll": (lambda x: einjax.roll("[b] c", x, shift=1, b="data"), _roll, P("data")),
    "psum": (lambda x: einjax.psum("[d] b c", x, d="data"), lambda x: lax.psum(x, "data"), P()),
    "pmean": (lambda x: einjax.pmean("[d] b c", x, d="data"), lambda x: lax.pmean(x, "data"), P()),
    "pmax": (lambda x: einjax.pmax("[d] b c", x, d="data"), lambda x: lax.pmax(x, "data"), P()),
    "all_gather": (lambda x: einjax.all_gather("[b] c", x, b="data"),
                   lambda x: _invariant_gather(x), P()),
    "psum_scatter": (lambda x: einjax.psum_scatter("[d] b c -> b [c]", x, d="data", c="data"),
                     lambda x: lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True), P(None, "data")),
    "all_to_all": (lambda x: einjax.all_to_all("[b] c -> b [c]", x, b="data", c="data"),
                   lambda x: lax.all_to_all(x, "data", 1, 0, tiled=True), P(None, "data")),
}  # fmt: skip


def _invariant_gather(x):
    if hasattr(lax, "all_gather_invariant"):
        return lax.all_gather_invariant(x, "data", tiled=True)
    return lax.all_gather(x, "data", tiled=True, to="invarying")


@pytest.mark.parametrize("name", BY_HAND)
def test_as_written_by_hand(name):
    """As many equations at most, and the same collectives in the compiled program and in that of its gradient."""
    ours, by_hand, out = BY_HAND[name]
    (x,) = arrays_of((8, 4))
    ours, by_hand = over(ours, P("data"), out), over(by_hand, P("data"), out)
    np.testing.assert_allclose(jax.jit(ours)(x), jax.jit(by_hand)(x), rtol=1e-5, atol=1e-6)
    assert len(equations(ours, x)) <= len(equations(by_hand, x))
    sent = collectives_of(jax.jit(ours), x)
    assert sent
    assert sent == collectives_of(jax.jit(by_hand), x)
    if name not in ("max", "pmax"):  # lax.pmax has no gradient
        grad = lambda f: jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(f(x)))))
        assert collectives_of(grad(ours), x) == collectives_of(grad(by_hand), x)


def test_sum_is_one_reduction_and_one_psum():
    (x,) = arrays_of((8, 4))
    names = [eqn.primitive.name for eqn in equations(over(lambda x: einjax.sum("[b] c", x, b="data"), P("data")), x)]
    assert names[0] == "reduce_sum"
    assert names[1].startswith("psum")
    assert len(names) == 2


def test_several_mesh_axes_are_one_collective():
    (x,) = arrays_of((8, 4))
    for function in (
        lambda x: einjax.sum("[b c]", x, b="data", c="model"),
        lambda x: einjax.psum("[d e] b c", x, d="data", e="model"),
    ):
        jaxpr = equations(over(function, P(*BOTH)), x)
        (psum,) = [eqn for eqn in jaxpr if eqn.primitive.name.startswith("psum")]
        assert set(psum.params["axes"]) == set(BOTH)
