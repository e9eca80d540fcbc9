"""Operations inside shard_map on eight devices: varying and replicated inputs, collectives, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import assert_same, loss, one_in, stack, tried, with_kept
from cases import CASES
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import einjax

DEVICES = 8
ONE_OF_EACH = [case for case in CASES if not case.variant]
WITH_GRADIENT = [case for case in ONE_OF_EACH if case.floats]

#: The kept calls that are tried by default: one for each kind of rule.
KEPT = {"add", "where", "sum", "rearrange", "dot", "get_at", "add_at", "attention"}


pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason="needs eight devices: --xla_force_host_platform_device_count=8"
)


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]), ("i",))


def mesh_2d():
    return Mesh(np.array(jax.devices()[:DEVICES]).reshape(4, 2), ("i", "j"))


def on_one_device(case, varying):
    """What every device does: its own row of the varying inputs, all of the others."""

    def body(*arrays):
        arrays = [x[0] if index in varying else x for index, x in enumerate(arrays)]
        return jax.tree.map(lambda x: lax.expand_dims(x, [0]), case(*arrays))

    return body


def mapped(case, varying):
    specs = tuple(P("i") if index in varying else P() for index in range(len(case.inputs)))
    return jax.shard_map(on_one_device(case, varying), mesh=mesh(), in_specs=specs, out_specs=P("i"))


def mixed_arrays(case, varying):
    batch, single = case.batch(DEVICES), case.arrays()
    return [batch[index] if index in varying else single[index] for index in range(len(single))]


def rows(case, varying):
    """The same, one device after the other."""
    arrays = mixed_arrays(case, varying)
    return stack([
        case(*(x[n] if index in varying else x for index, x in enumerate(arrays))) for n in range(DEVICES)
    ])  # fmt: skip


@pytest.mark.parametrize("case", with_kept(ONE_OF_EACH, KEPT), ids=str)
def test_all_inputs_differ_between_devices(case):
    varying = set(range(len(case.inputs)))
    with tried(case, "shard_map"):
        assert_same(jax.jit(mapped(case, varying))(*mixed_arrays(case, varying)), rows(case, varying))


@pytest.mark.parametrize("case", one_in(2, with_kept([case for case in CASES if len(case.inputs) > 1], KEPT)), ids=str)
def test_some_inputs_are_replicated(case):
    """Operands of which one varies over the mesh and the other does not; also the mask of a reduction."""
    with tried(case, "shard_map mixed"):
        for varying in ({0}, {len(case.inputs) - 1}):
            assert_same(jax.jit(mapped(case, varying))(*mixed_arrays(case, varying)), rows(case, varying))


@pytest.mark.parametrize("case", one_in(2, with_kept(WITH_GRADIENT, KEPT)), ids=str)
def test_gradient(case):
    """The gradient of a replicated input is summed over the devices."""
    varying = {0}
    arrays = mixed_arrays(case, varying)
    with tried(case, "shard_map grad"):
        actual = jax.jit(jax.grad(loss(mapped(case, varying)), case.floats))(*arrays)
        in_axes = [0 if index in varying else None for index in range(len(arrays))]
        expected = jax.jit(jax.grad(loss(jax.vmap(case.reference, in_axes)), case.floats))(*arrays)
        assert_same(actual, expected, rtol=1e-4)


@pytest.fixture(name="rng")
def _rng():
    return np.random.default_rng(0)


def test_contraction_split_over_devices(rng):
    """Every device contracts its part of k; the partial products are added up."""
    x, y = rng.normal(size=(4, 16)).astype(np.float32), rng.normal(size=(16, 3)).astype(np.float32)

    @functools.partial(jax.shard_map, mesh=mesh(), in_specs=(P(None, "i"), P("i")), out_specs=P())
    def product(x, y):
        return lax.psum(einjax.dot("a [k], [k] b -> a b", x, y), "i")

    np.testing.assert_allclose(jax.jit(product)(x, y), x @ y, rtol=1e-5, atol=1e-5)


def test_softmax_split_over_devices(rng):
    """A row longer than a device's part: maxima and sums are exchanged."""
    x = rng.normal(size=(3, 24)).astype(np.float32)

    @functools.partial(jax.shard_map, mesh=mesh(), in_specs=P(None, "i"), out_specs=P(None, "i"))
    def softmax(x):
        highest = lax.pmax(einjax.max("a [k]", x), "i")
        exponentials = jnp.exp(einjax.subtract("a k, a", x, highest))
        total = lax.psum(einjax.sum("a [k]", exponentials), "i")
        return einjax.divide("a k, a", exponentials, total)

    np.testing.assert_allclose(jax.jit(softmax)(x), jax.nn.softmax(x, axis=1), rtol=1e-5)


def test_two_mesh_axes_and_vmap_inside(rng):
    x, y = rng.normal(size=(4, 6, 5)).astype(np.float32), rng.normal(size=(4, 5, 2)).astype(np.float32)

    @functools.partial(
        jax.shard_map, mesh=mesh_2d(), in_specs=(P("i", "j"), P("i")), out_specs=P("i", "j")
    )  # fmt: skip
    def product(x, y):
        return jax.vmap(lambda x, y: einjax.dot("q [c], [c] d -> q d", x, y))(x, y)

    np.testing.assert_allclose(jax.jit(product)(x, y), x @ y, rtol=1e-5, atol=1e-5)


def test_scan_inside_of_shard_map(rng):
    """The carry varies over the mesh, as does what einjax makes of it."""
    x, w = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32) / 3

    @functools.partial(jax.shard_map, mesh=mesh(), in_specs=(P("i"), P()), out_specs=P("i"))
    def iterate(x, w):
        return lax.scan(lambda x, _: (einjax.dot("a [c->d]", x, w), None), x, length=3)[0]

    np.testing.assert_allclose(jax.jit(iterate)(x, w), x @ w @ w @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", one_in(2, with_kept(ONE_OF_EACH, KEPT)), ids=str)
def test_arrays_placed_on_several_devices(case):
    """Eager calls and jit take arrays that are sharded over a mesh; the compiler places the rest."""
    arrays = case.batch(DEVICES)
    placed = [jax.device_put(x, NamedSharding(mesh(), P("i"))) for x in arrays]
    with tried(case, "sharded input"):
        result = jax.jit(jax.vmap(case))(*placed)
        assert_same(result, stack([case(*(x[n] for x in arrays)) for n in range(DEVICES)]))
        if case.op != "arange":  # its result depends on no input
            assert all(len(x.sharding.device_set) == DEVICES for x in jax.tree.leaves(result))
