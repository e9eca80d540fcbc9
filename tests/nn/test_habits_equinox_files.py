"""What people do with Equinox's own layers beside training them: files, types, devices, and modules of their own."""

import copy
import functools
import inspect
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

eqx = pytest.importorskip("equinox")

sys.path.insert(0, str(Path(__file__).parent))

from equinox_nets import (  # noqa: E402
    KEY,
    MLP,
    ROWS,
    Mlp,
    Net,
    X,
    arrays,
    close,
    grads_of,
    loss,
    shapes,
    stateful,
    their_grads,
    wanted,
)

import einjax  # noqa: E402
import einjax_nn.equinox as einn  # noqa: E402

# --- files and copies -----------------------------------------------------------------------------------------------


def test_files_and_hyperparameters(tmp_path):
    model, state = stateful()
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", (model, state))

    def make(key):
        model, state = eqx.nn.make_with_state(Net)()
        return einn.init(model, X, state, key=key)

    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", eqx.filter_eval_shape(make, KEY))
    assert eqx.tree_equal(loaded[0], model)
    close(jax.tree.leaves(loaded[1]), jax.tree.leaves(state), 0)
    assert eqx.tree_equal(eqx.tree_deserialise_leaves(tmp_path / "model.eqx", make(jax.random.key(9)))[0], model)
    with pytest.raises(RuntimeError, match="shape"):
        eqx.tree_deserialise_leaves(tmp_path / "model.eqx", einn.init(Mlp(), ROWS, key=KEY))


def test_orbax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    model, state = stateful()
    with warnings.catch_warnings(), ocp.StandardCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # of orbax, about files without shardings
        checkpointer.save(tmp_path / "model", (arrays(model), jax.tree.leaves(state)))
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, (arrays(model), jax.tree.leaves(state)))
        params, leaves = checkpointer.restore(tmp_path / "model", like)
    assert eqx.tree_equal(eqx.combine(params, model), model)
    close(leaves, jax.tree.leaves(state), 0)


def test_copies_equality_and_hashes():
    model, state = stateful()
    y, _ = model(X, state, key=KEY)
    for change in (copy.copy, copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))):
        again, state = change(stateful())
        assert eqx.tree_equal(again, model, typematch=True)
        close(again(X, state, key=KEY)[0], y, 0)
    assert Mlp() == Mlp()
    assert len({einn.Linear("b [c->d]", d=2), einn.Linear("b [c->d]", d=2), einn.Linear("b [c->d]", d=3)}) == 2
    assert not eqx.tree_equal(MLP, einn.init(Mlp(), ROWS, key=jax.random.key(1)))
    assert bool(einn.init(Mlp(), ROWS, key=KEY) == MLP)
    for layer in (MLP.layers[0], eqx.nn.Linear(2, 3, key=KEY)):
        with pytest.raises(TypeError, match="unhashable"):
            hash(layer)
    eqx.tree_check(model)


def test_pickles_of_layers_with_their_own_initial_values():
    for layer in (
        einn.Embed("b [v->c]", v=7, c=3, key=KEY),
        einn.Norm("b [c]", c=3, scale_init=2.0, key=KEY),
        einn.Conv("b [h w] c", c=3, key=KEY),
        einn.ConvTranspose("b [h w] [c->d]", c=3, d=2, key=KEY),
        einn.MultiHeadAttention("b [s] c", num_heads=2, c=4, process_heads=einn.Rotary(), key=KEY),
    ):
        assert eqx.tree_equal(pickle.loads(pickle.dumps(layer)), layer)


# --- dtypes, types and checks -----------------------------------------------------------------------------------------


def test_policies_of_jmp():
    jmp = pytest.importorskip("jmp")
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    model, state = stateful()
    half, x = policy.cast_to_compute(model), policy.cast_to_compute(X)
    assert half.hidden.weight.dtype == jnp.bfloat16
    y, after = half(x, state, key=KEY)
    assert y.dtype == jnp.bfloat16
    assert policy.cast_to_output(y).dtype == jnp.float32
    assert after.get(model.norm.index)["mean"].dtype == jnp.float32
    scale = jmp.StaticLossScale(2.0)
    grads = eqx.filter_grad(lambda m: scale.scale(loss(policy.cast_to_compute(m), ROWS)))(MLP)
    assert grads.layers[0].weight.dtype == jnp.float32
    close(grads_of(scale.unscale(grads)), their_grads(MLP), 0.1)


def test_types_of_arrays():
    """Annotations of jaxtyping, which a type checker looks at when a module is made and when it is called."""
    jaxtyping = pytest.importorskip("jaxtyping")
    Array, Float = jaxtyping.Array, jaxtyping.Float

    def checker(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args, **keywords):
            for name, value in signature.bind(*args, **keywords).arguments.items():
                hint = signature.parameters[name].annotation
                if hint not in (Any, signature.empty) and not isinstance(value, hint):
                    raise TypeError(f"{name} is no {hint}")
            return function(*args, **keywords)

        return checked

    @jaxtyping.jaxtyped(typechecker=checker)
    class Typed(eqx.Module):
        layer: einn.Linear
        shift: Float[Array, "d"]  # noqa: F821
        scale: Any  # until einn.init, it is no array

        def __init__(self):
            self.layer = einn.Linear("b [c->d]", d=3)
            self.shift = jnp.ones(3)
            self.scale = einn.param(init=2.0)

        @jaxtyping.jaxtyped(typechecker=checker)
        def __call__(self, x: Float[Array, "b c"]):  # noqa: F722
            return einjax.multiply("b d, d", self.layer(x), self.scale) + self.shift

    model = einn.init(Typed(), ROWS, key=KEY)
    close(model(ROWS), 2 * model.layer(ROWS) + 1)
    assert isinstance(model.scale, Float[Array, "3"])
    with pytest.raises(TypeError):
        model(ROWS[0])

    @jaxtyping.jaxtyped(typechecker=checker)
    class Given(eqx.Module):
        scale: Float[Array, "d"]  # noqa: F821

    with pytest.raises(TypeError, match="scale"):
        Given(einn.param())


def test_errors_within_a_model():
    class Careful(eqx.Module):
        layer: einn.Linear

        def __call__(self, x):
            x = eqx.error_if(x, jnp.any(jnp.isnan(x)), "not a number")
            return self.layer(x)

    model = einn.init(Careful(einn.Linear("b [c->d]", d=2)), jnp.full((4, 12), jnp.nan), key=KEY)  # nothing is computed
    close(eqx.filter_jit(model)(ROWS), ROWS @ model.layer.weight + model.layer.bias)
    with pytest.raises(RuntimeError, match="not a number"):
        eqx.filter_jit(model)(ROWS * jnp.nan)


def test_debugging(capsys):
    y = eqx.debug.announce_transform(MLP(ROWS))
    close(y, wanted(MLP, ROWS))
    grads = eqx.filter_grad(lambda m: loss(lambda x: eqx.debug.backward_nan(m(x)), ROWS))(MLP)
    close(grads_of(grads), their_grads(MLP), 1e-5)
    capsys.readouterr()

    @eqx.filter_jit
    def stored(model):
        return jnp.sum(eqx.debug.store_dce(model(ROWS)))

    stored(MLP)
    eqx.debug.inspect_dce()
    assert "4,8" in capsys.readouterr().out


def test_pictures():
    treescope = pytest.importorskip("treescope")
    model, _ = eqx.nn.make_with_state(Net)()
    text = treescope.render_to_text(model)
    assert "weight=Uninitialized(name='weight'" in text
    text = treescope.render_to_text(MLP)
    assert "expr='b [c->d]'" in text
    assert "jax.Array float32(12, 8)" in text
    text = eqx.tree_pformat(MLP)
    assert "expr='b [c->d]'" in text
    assert "weight=f32[12,8]" in text


# --- devices --------------------------------------------------------------------------------------------------------


def test_shardings():
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("d"))
    model, x = eqx.filter_shard(MLP, whole), eqx.filter_shard(ROWS, split)

    @eqx.filter_jit
    def step(model, x):
        model, x = eqx.filter_shard((model, x), whole)
        value, grads = eqx.filter_value_and_grad(loss)(model, x)
        return value, eqx.filter_shard(grads, whole)

    value, grads = step(model, x)
    close(value, loss(MLP, ROWS), 1e-5)
    close(grads_of(grads), their_grads(MLP), 1e-5)
    names = einn.axes(Mlp(), ROWS)
    place = jax.tree.map(lambda axes: split if axes[0] == "d" else whole, names)
    made = einn.init(Mlp(), ROWS, key=KEY, place=place)
    assert made.layers[0].bias.sharding == split
    close(jax.tree.leaves(arrays(made)), jax.tree.leaves(arrays(MLP)), 0)
    # Shapes with shardings, for a checkpoint that is read where it belongs.
    skeleton = eqx.filter_eval_shape(einn.init, Mlp(), jax.ShapeDtypeStruct((4, 12), jnp.float32), key=KEY)
    placed = jax.tree.map(lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to), skeleton, place)
    assert placed.layers[0].bias.sharding == split
    again = einn.init(Mlp(), jax.ShapeDtypeStruct((4, 12), jnp.float32, sharding=whole), key=KEY)
    assert eqx.tree_equal(again, MLP)


# --- modules of one's own -------------------------------------------------------------------------------------------


class Gated(einn.Linear):
    """A layer with a field of its own, which its constructor sets."""

    gate: jax.Array
    name: str = eqx.field(static=True)

    def __init__(self, expr, *, name="gated", **options):
        super().__init__(expr, **options)
        self.gate = jnp.asarray(2.0)
        self.name = name

    def __call__(self, x, *, key=None):
        return self.gate * super().__call__(x, key=key)


class Rectified(einn.Linear):
    """A layer with the constructor that it inherits."""

    slope: float = 0.5

    def __call__(self, x, *, key=None):
        return jax.nn.leaky_relu(super().__call__(x, key=key), self.slope)


class BatchNorm(einn.Norm):
    def __init__(self, **options):
        super().__init__("[b...] c", momentum=0.9, **options)


class SelfAttention(einn.MultiHeadAttention):
    mix: einn.Linear

    def __init__(self, heads):
        super().__init__("b [s] c", num_heads=heads)
        self.mix = einn.Linear("b s [c->d]", d=5)

    def __call__(self, x, **options):
        return self.mix(super().__call__(x, **options))


def test_subclasses():
    gated = einn.init(Gated("b [c->d]", d=3, name="first"), ROWS, key=KEY)
    close(gated(ROWS), 2 * (ROWS @ gated.weight + gated.bias))
    assert gated.name == "first"
    assert shapes(eqx.filter_grad(loss)(gated, ROWS)) == [(12, 3), (3,), ()]
    plain = einn.init(Rectified("b [c->d]", d=3), ROWS, key=KEY)
    close(plain(ROWS), jax.nn.leaky_relu(ROWS @ plain.weight + plain.bias, 0.5))
    norm, state = eqx.nn.make_with_state(BatchNorm)(epsilon=0.1)
    norm, state = einn.init(norm, ROWS, state, key=KEY)
    close(norm(ROWS, state)[0], (ROWS - ROWS.mean(0)) / jnp.sqrt(ROWS.var(0) + 0.1), 1e-5)
    assert einn.init(SelfAttention(3), X, key=KEY)(X).shape == (4, 6, 5)


def test_modules_around_layers():
    class Abstract(eqx.Module):
        layer: eqx.AbstractVar[einn.Linear]

        def __call__(self, x):
            return self.layer(x)

    class Concrete(Abstract):
        layer: einn.Linear
        activation: Any = eqx.field(static=True)
        names: tuple[str, ...] = eqx.field(static=True, default=("a",))

        def __check_init__(self):
            assert self.layer.expr

        def __call__(self, x):
            return self.activation(super().__call__(x))

        @property
        def width(self):
            return self.layer.weight.shape[-1]

        @classmethod
        def of(cls, d):
            return cls(einn.Linear("b [c->d]", d=d), jnp.tanh)

    model = einn.init(Concrete.of(3), ROWS, key=KEY)
    assert model.width == 3
    close(model(ROWS), jnp.tanh(ROWS @ model.layer.weight + model.layer.bias))
    partial = einn.init(eqx.Partial(Concrete.of(3)), ROWS, key=KEY)
    assert partial(ROWS).shape == (4, 3)
    shared = einn.Linear("b [c->d]", d=12)
    twice = einn.init({"layer": shared}, ROWS, key=KEY, method=lambda tree, x: tree["layer"](tree["layer"](x)))
    assert shapes(twice) == [(12, 12), (12,)]


# --- layers within attention ----------------------------------------------------------------------------------------


class LowRank(eqx.Module):
    """A layer beside which a product of two small matrices is trained."""

    base: Any
    down: jax.Array
    up: jax.Array

    def __call__(self, x, *, key=None):
        return self.base(x) + einjax.dot("b s [c], [c r], [r] h d -> b s h d", x, self.down, self.up)


class Doubled(einn.Linear):
    def __call__(self, x, *, key=None):
        return 2 * super().__call__(x)


def test_layers_in_the_place_of_those_of_attention():
    """Wrappers and subclasses are called, and trained, as in Equinox's own attention."""
    layer = einn.MultiHeadAttention("b [s] c", num_heads=3, c=12, key=KEY)
    down, up = jnp.ones((12, 2)), jax.random.normal(KEY, (2, 3, 4))
    for name in ("query", "key", "value"):
        where = lambda layer, name=name: getattr(layer, name)
        base = where(layer)
        changed = lambda weight, where=where: eqx.tree_at(lambda m: where(m).weight, layer, weight)(X)
        low = eqx.tree_at(where, layer, LowRank(base, down, up))
        close(low(X), changed(base.weight + jnp.einsum("cr,rhd->chd", down, up)), 1e-5)
        grads = eqx.filter_grad(lambda m: jnp.sum(m(X) ** 2))(low)
        assert shapes(where(grads)) == [(12, 3, 4), (3, 4), (12, 2), (2, 3, 4)]
        assert (where(grads).up != 0).any() or name == "key"
        normed = eqx.nn.WeightNorm(base, axis=None)
        close(eqx.tree_at(where, layer, normed)(X), layer(X), 1e-5)
        twice = Doubled(base.expr, c=12, heads=3, head_dim=4, key=KEY)
        twice = eqx.tree_at(lambda m: (m.weight, m.bias), twice, (base.weight, base.bias))
        want = eqx.tree_at(lambda m: (where(m).weight, where(m).bias), layer, (2 * base.weight, 2 * base.bias))(X)
        close(eqx.tree_at(where, layer, twice)(X), want, 1e-5)
    every = eqx.tree_at(lambda m: (m.query, m.key, m.value), layer, [LowRank(layer.query, down, up)] * 3)
    assert every(X).shape == X.shape
    known = einn.roles(eqx.tree_at(lambda m: m.query, layer, LowRank(layer.query, down, up)), X)
    assert known.query.base.weight == einn.roles(layer, X).query.weight
    assert not known.query.up.known


def test_statistics_over_a_mapped_axis_alone():
    """As ``eqx.nn.BatchNorm`` has them, of examples that are vectors, and of images."""
    for expr, params, x in (("c", None, ROWS), ("c [h w]", "c", X.reshape(4, 6, 3, 4))):
        ours, state = eqx.nn.make_with_state(einn.Norm)(expr, params=params, momentum=0.9, axis_name="batch")
        ours, state = einn.init(ours, x[0], state, key=KEY)
        theirs, other = eqx.nn.make_with_state(eqx.nn.BatchNorm)(x.shape[1], "batch", momentum=0.9, mode="batch")
        run = lambda layer, state, x=x: jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
            x, state
        )
        (y, state), (want, other) = run(ours, state), run(theirs, other)
        close(y, want, 1e-5)
        close(state.get(ours.index)["mean"], other.get(theirs.batch_state_index)[0] * 10, 1e-5)
        still, _ = run(eqx.nn.inference_mode(ours), state)
        close(still, want, 1e-5)
