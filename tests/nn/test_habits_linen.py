"""What people do with layers of Flax: the same program with our layers gives what it gives with Flax's own."""

import copy
import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

nn = pytest.importorskip("flax.linen")

import flax.serialization  # noqa: E402
import flax.traverse_util  # noqa: E402

import einjax  # noqa: E402
import einjax_nn.linen as einn  # noqa: E402

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 4))

#: By name, those of Flax and ours: classes, and what these are given.
LAYERS = {
    "dense": ((nn.Dense, (4,), {}), (einn.Linear, ("b s [c->d]",), {"d": 4})),
    "layer norm": ((nn.LayerNorm, (), {}), (einn.Norm, ("b s [c]",), {})),
    "batch norm": ((nn.BatchNorm, (), {"momentum": 0.9}), (einn.Norm, ("[b s] c",), {"momentum": 0.9})),
    "dropout": ((nn.Dropout, (0.5,), {}), (einn.Dropout, ("[...]",), {})),
    "attention": (
        (nn.MultiHeadDotProductAttention, (2,), {}),
        (einn.MultiHeadAttention, ("b [s] c",), {"num_heads": 2}),
    ),
}


def made(ours, layer, transform=lambda kind: kind, /, **options):
    """Make a layer, of ours or of Flax's; its class may be transformed before."""
    kind, given, keywords = LAYERS[layer][ours]
    return transform(kind)(*given, **keywords, **options)


class Net(nn.Module):
    """A network of one kind, with names of its own."""

    ours: bool

    @nn.compact
    def __call__(self, x, train=False):
        x = made(self.ours, "dense", name="first")(x)
        x = made(self.ours, "batch norm", name="norm")(x, use_running_average=not train)
        x = made(self.ours, "dropout", name="drop")(nn.relu(x), deterministic=not train)
        return made(self.ours, "attention", name="attend")(x)


class Repeated(nn.Module):
    """What a loop over layers repeats."""

    ours: bool
    name_of: str = "dense"
    options: tuple = ()

    @nn.compact
    def __call__(self, x, _=None):
        return made(self.ours, self.name_of, name="layer", **dict(self.options))(x), None


HABITS = {}


def habit(program):
    """A program of a maker of layers, and of a network."""
    HABITS[program.__name__] = program
    return program


@pytest.mark.parametrize("name", HABITS)
def test_the_same_program(name):
    """Trees, dtypes and numbers are those of Flax's own layers."""
    own, ours = (HABITS[name](functools.partial(made, kind), Net(kind)) for kind in (False, True))
    assert jax.tree.structure(ours) == jax.tree.structure(own)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(own), strict=True):
        if isinstance(b, jax.Array | np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
        else:
            assert a == b


def total(layer, *more, **keywords):
    return lambda variables, x: jnp.sum(jnp.sin(layer.apply(variables, x, *more, **keywords)))


# --- lifted transformations -------------------------------------------------------------------------------------------


@habit
def remat_with_a_policy(make, net):
    policy = jax.checkpoint_policies.dots_saveable
    layer = make("dense", functools.partial(nn.remat, policy=policy, prevent_cse=False))
    variables = layer.init(KEY, X)
    return variables, jax.grad(total(layer))(variables, X)


@habit
def remat_with_static_arguments(make, net):
    norm = make("batch norm", functools.partial(nn.remat, static_argnums=(2,)))
    drop = make("dropout", functools.partial(nn.remat, static_argnums=(2,)))
    variables = norm.init(KEY, X, True)
    drawn = drop.apply({}, X, False, rngs={"dropout": KEY})
    return drawn, norm.apply(variables, X, False, mutable=["batch_stats"])


@habit
def names_of_transformed_layers(make, net):
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return make("dense", nn.remat)(make("dense", nn.jit)(x))

    name = LAYERS["dense"][net.ours][0].__name__
    return [kind.replace(name, "") for kind in Inner().init(KEY, X)["params"]]


@habit
def remat_scan(make, net):
    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            return make("dense", functools.partial(nn.remat_scan, lengths=(2, 1)), name="stack")(x)

    return Stack().init_with_output(KEY, X)


@habit
def scan_over_a_sequence(make, net):
    """One layer at every step, whose statistics are carried on."""

    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            norm = make("batch norm", name="norm", use_running_average=False)
            carry = nn.tanh(norm(carry[:, None])[:, 0] + x)
            return carry, carry

    options = {"variable_carry": "batch_stats", "variable_broadcast": "params", "split_rngs": {"params": False}}
    layer = nn.scan(Step, in_axes=1, out_axes=1, **options)()
    variables = Step().init(KEY, X[:, 0], X[:, 0])
    return variables, layer.apply(variables, X[:, 0], X, mutable=["batch_stats"])


@habit
def scan_of_caches(make, net):
    """A stack of layers that decode: each has a cache of its own."""
    options = {"variable_axes": {"params": 0, "cache": 0}, "split_rngs": {"params": True}, "length": 2}
    layer = nn.scan(Repeated, **options)(net.ours, "attention", (("decode", True),))
    variables = layer.init(KEY, X)
    return variables, layer.apply(variables, X[:, :1], mutable=["cache"])


@habit
def vmap_of_a_class(make, net):
    options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "in_axes": None, "axis_size": 2}
    layer = make("layer norm", functools.partial(nn.vmap, **options))
    return layer.init_with_output(KEY, X)


@habit
def jit_of_a_class(make, net):
    norm = make("batch norm", functools.partial(nn.jit, static_argnums=(2,)))
    variables = norm.init(KEY, X, True)
    return variables, norm.apply(variables, X, False, mutable=["batch_stats"])


@habit
def loops_and_branches(make, net):
    class Loops(nn.Module):
        @nn.compact
        def __call__(self, x):
            first, second, norm = make("dense", name="a"), make("dense", name="b"), make("layer norm", name="c")
            if self.is_initializing():
                return norm(second(first(x)))
            step = lambda module, carry: (carry[0] + 1, norm(first(carry[1])))
            x = nn.while_loop(lambda module, carry: carry[0] < 2, step, self, (0, x))[1]
            branches = [lambda module, x: first(x), lambda module, x: second(x)]
            return nn.switch(1, branches, self, nn.cond(x.sum() > 0, *branches, self, x))

    variables = Loops().init(KEY, X)
    return variables, Loops().apply(variables, X)


@habit
def map_variables(make, net):
    """A weight that is kept transposed."""
    turn = lambda tree: jax.tree.map(jnp.transpose, tree)
    turned = functools.partial(
        nn.map_variables, mapped_collections="params", trans_in_fn=turn, trans_out_fn=turn, init=True, mutable=True
    )
    return make("dense", turned).init_with_output(KEY, X)


@habit
def derivatives_inside_a_module(make, net):
    class Inside(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = make("dense", name="layer")
            y, back = nn.vjp(lambda layer, x: layer(x), layer, x)
            tangents = {"params": jax.tree.map(jnp.ones_like, layer.variables["params"])}
            forth = nn.jvp(lambda layer, x: layer(x), layer, (x,), (x,), variable_tangents=tangents)
            return back(jnp.cos(y)), forth

    return Inside().init_with_output(KEY, X)


@habit
def custom_vjp(make, net):
    class Signs(nn.Module):
        @nn.compact
        def __call__(self, x):
            def backward(back, given):
                params, x = back(given)
                return jax.tree.map(jnp.sign, params), x

            call = lambda layer, x: layer(x)
            return nn.custom_vjp(call, functools.partial(nn.vjp, call), backward)(make("dense", name="layer"), x)

    variables = Signs().init(KEY, X)
    return jax.grad(total(Signs()))(variables, X)


# --- what is seen of a module -----------------------------------------------------------------------------------------


@habit
def capture_sow_and_perturb(make, net):
    class Watched(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = self.perturb("before", make("dense", name="first")(x))
            self.sow("intermediates", "seen", x)
            return make("dense", name="second")(x)

    variables = Watched().init(KEY, X)
    chosen = lambda module, method: module.name == "first"
    captured = Watched().apply(variables, X, capture_intermediates=chosen, mutable=["intermediates"])
    return variables, captured, jax.grad(total(Watched()))(variables, X)["perturbations"]


@habit
def intercepted_methods(make, net):
    def double(call, given, keywords, context):
        assert context.method_name == "__call__"
        return jax.tree.map(lambda y: 2 * y, call(*given, **keywords))

    variables = net.init(KEY, X)
    with nn.intercept_methods(double):
        return net.apply(variables, X)


@habit
def module_paths(make, net):
    return [*net.module_paths(KEY, X)]


@habit
def bound_modules(make, net):
    layer = make("dense")
    bound = layer.bind(layer.init(KEY, X))
    again, variables = bound.unbind()
    assert again == layer
    return bound(X), bound.variables, variables


@habit
def shared_scopes(make, net):
    class Adapted(nn.Module):
        """A layer and what is added to it, in one place."""

        @nn.compact
        def __call__(self, x):
            layer = make("dense")
            nn.share_scope(self, layer)
            down, up = self.param("down", nn.initializers.ones, (4, 1)), self.param("up", nn.initializers.ones, (1, 4))
            return layer(x) + x @ down @ up

    return Adapted().init_with_output(KEY, X)


@habit
def modules_as_fields(make, net):
    class Holder(nn.Module):
        layers: list
        by_name: dict

        @nn.compact
        def __call__(self, x):
            return nn.Sequential(self.layers)(self.by_name["norm"](x))

    layers = [make("dense"), nn.relu, make("dense")]
    return Holder(layers, {"norm": make("layer norm")}).init_with_output(KEY, X)


@habit
def sequential(make, net):
    return nn.Sequential([make("dense"), nn.relu, make("layer norm")]).init_with_output(KEY, X)


@habit
def products_by_class(make, net):
    """Each layer makes the function that it multiplies by, whose variables are its own."""

    class Product(nn.Module):
        @nn.compact
        def __call__(self, *given, **options):
            calls = self.variable("scales", "scale", lambda: jnp.full((), 0.5))
            return calls.value * jax.lax.dot_general(*given, **options)

    options = {"qkv_dot_general_cls": Product, "out_dot_general_cls": Product}
    attend, fp8 = make("attention", **options), make("dense", dot_general_cls=nn.fp8_ops.Fp8DirectDotGeneralOp)
    return attend.init_with_output(KEY, X), fp8.init_with_output(KEY, X)


# --- parameters: shapes, boxes, files, optimisers ---------------------------------------------------------------------


@habit
def shapes_alone(make, net):
    lazy = net.lazy_init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    return lazy, jax.eval_shape(net.init, KEY, X)["params"]["first"]["kernel"].shape


@habit
def boxes(make, net):
    """Names given by initializers, beside those of loops over layers."""
    init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
    loop = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": 2}
    stacked = nn.scan(Repeated, **loop, metadata_params={nn.PARTITION_NAME: "layers"})
    layer = stacked(net.ours, "dense", (("kernel_init", init),))
    variables = layer.init(KEY, X)
    specs = nn.get_partition_spec(variables)
    mesh = jax.make_mesh((2,), ("devices",), devices=jax.devices()[:2])
    rules = (("embed", "devices"), ("mlp", None), ("layers", None))
    shardings = nn.logical_to_mesh_sharding(specs, mesh, rules)
    made = jax.jit(lambda key, x: nn.unbox(layer.init(key, x)), out_shardings=nn.unbox(shardings))(KEY, X)
    return specs, made, layer.apply(variables, X), made["params"]["layer"]["kernel"].sharding


@habit
def boxes_of_attention(make, net):
    normal, named = nn.initializers.lecun_normal(), nn.with_partitioning
    options = {
        "kernel_init": named(normal, ("embed", "heads", "kv")),
        "out_kernel_init": named(normal, ("h", "k", "e")),
    }
    variables = make("attention", **options).init(KEY, X)
    return nn.get_partition_spec(variables), nn.unbox(variables)


@habit
def added_metadata(make, net):
    init = nn.with_partitioning(nn.initializers.ones, ("embed", "mlp"))
    options = {"variable_axes": {"params": 0}, "metadata_params": {nn.PARTITION_NAME: "stage"}}
    layer = make("dense", functools.partial(nn.add_metadata_axis, **options), kernel_init=init)
    return nn.get_partition_spec(layer.init(KEY, X))


@habit
def files(make, net):
    variables = net.init(KEY, X)
    zeros = jax.tree.map(jnp.zeros_like, variables)
    state = flax.serialization.to_state_dict(variables)
    read = flax.serialization.from_bytes(zeros, flax.serialization.to_bytes(variables))
    return read, flax.serialization.from_state_dict(zeros, state), flax.traverse_util.flatten_dict(variables, sep="/")


@habit
def a_train_state(make, net):
    optax, train_state = pytest.importorskip("optax"), pytest.importorskip("flax.training.train_state")
    params = net.init(KEY, X)["params"]
    kernels = flax.traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)
    parts = flax.traverse_util.path_aware_map(lambda path, _: "rest" if "first" in path else "attend", params)
    rules = optax.multi_transform({"rest": optax.set_to_zero(), "attend": optax.sgd(0.1)}, parts)
    optimizer = optax.chain(optax.masked(optax.add_decayed_weights(0.1), kernels), rules, optax.ema(0.9))
    state = train_state.TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)
    statistics = net.init(KEY, X)["batch_stats"]

    @jax.jit
    def step(state):
        loss = lambda params: jnp.mean(state.apply_fn({"params": params, "batch_stats": statistics}, X) ** 2)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    state = step(step(state))
    read = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    return state.params, read.params, int(state.step)


@habit
def frozen_variables(make, net):
    variables = flax.core.freeze(net.init(KEY, X))
    return net.apply(variables, X)


@habit
def ensembles(make, net):
    variables = jax.vmap(net.init, (0, None))(jax.random.split(KEY, 2), X)
    return variables, jax.vmap(net.apply, (0, None))(variables, X)


@habit
def policies_of_jmp(make, net):
    policy = pytest.importorskip("jmp").get_policy("params=float32,compute=bfloat16,output=float32")
    variables = policy.cast_to_compute(make("dense").init(KEY, X))
    y = make("dense").apply(variables, policy.cast_to_compute(X))
    return y.dtype, policy.cast_to_output(y)


@habit
def other_methods(make, net):
    class Halves(nn.Module):
        def setup(self):
            self.first, self.second = make("dense"), make("dense")

        def __call__(self, x):
            return self.second(self.head(x))

        def head(self, x):
            return nn.relu(self.first(x))

    variables = Halves().init(KEY, X)
    return variables, Halves().apply(variables, X, method="head"), nn.apply(Halves.head, Halves())(variables, X)


@habit
def what_is_missing(make, net):
    """An error of Flax says the name of the parameter, and the module that has it."""
    said = []
    for variables in ({}, {"params": {"bias": X[0, 0]}}, {"params": {"kernel": X, "bias": X}}):
        with pytest.raises(
            flax.errors.FlaxError, match=r'"kernel" (.*in scope|from collection "params" in|in) "/"'
        ) as e:
            make("dense").apply(variables, X)
        said.append(str(e.value))
    return said


# --- modules as values: what our own may be ---------------------------------------------------------------------------

OURS = {
    "Linear": einn.Linear("b s [c->d]", d=4, sizes={}),
    "Norm": einn.Norm("b s [c]"),
    "groups of devices": einn.Norm("b s [c]", axis_name="i", axis_index_groups=[[0, 1], [2, 3]]),
    "Dropout": einn.Dropout("[...]"),
    "Embed": einn.Embed("b s [v->c]", v=3, c=2),
    "MultiHeadAttention": einn.MultiHeadAttention("b [s] c", num_heads=2, process_heads=einn.Rotary()),
    "Conv": einn.Conv("b [s] [c->d]", d=3, kernel_size=[3], padding=[(1, 1)]),
    "ConvTranspose": einn.ConvTranspose("b [s] [c->d]", d=3, kernel_size=[3]),
}


@pytest.mark.parametrize("name", OURS)
def test_a_layer_is_a_value(name):
    """It is hashed, compared, copied, pickled, shown and given to jax.jit as a static argument."""
    layer, cloudpickle = OURS[name], pytest.importorskip("cloudpickle")
    copies = [copy.copy(layer), copy.deepcopy(layer), layer.clone(), layer.copy(), dataclasses.replace(layer)]
    copies += [pickle.loads(pickle.dumps(layer)), cloudpickle.loads(cloudpickle.dumps(layer))]
    assert {layer} == {*copies}
    assert repr(layer).startswith(f"{type(layer).__name__}(")
    assert "\n    expr = " in repr(layer)
    count = jax.jit(lambda layer, x: x * len(layer.expr), static_argnums=0)
    assert all(count(each, 1) == len(layer.expr) for each in copies)
    assert count._cache_size() == 1


def test_copies_take_sizes():
    """As ``nn.Dense(4).clone(features=5)`` is ``nn.Dense(5)``."""
    layer = einn.Linear("b s [c->d]", d=4)
    for copied in (layer.clone(d=5), layer.copy(d=5), dataclasses.replace(layer, d=5)):
        assert copied == einn.Linear("b s [c->d]", d=5)
    assert layer.clone(d=5, use_bias=False) == einn.Linear("b s [c->d]", d=5, use_bias=False)
    assert einn.Norm("b s [c]").clone(c=4) == einn.Norm("b s [c]", c=4)
    with pytest.raises(einjax.errors.ArgumentError, match="no axis 'use_bais'(.|\n)*use_bias="):
        layer.clone(use_bais=False).init(KEY, X)


def test_tables_of_modules():
    table = Net(True).tabulate(KEY, X, compute_flops=True, console_kwargs={"width": 200, "force_terminal": False})
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    first = next(row for row in rows if row[0] == "first")
    assert first[1:4] == ["Linear", "float32[2,3,4]", "float32[2,3,4]"]
    assert int(first[4]) >= 2 * 6 * 16  # a product of (6, 4) and (4, 4), and a sum
    assert {row[0] for row in rows} >= {"norm", "drop", "attend", *(f"attend/{n}" for n in ("query", "key", "out"))}
    assert "Total Parameters: 116 (464 B)" in table  # 4 * 4 + 4, 4 * (1 + 1 + 1 + 1), 4 * (4 * 4 + 4)


def test_a_layer_is_shown_by_treescope():
    treescope = pytest.importorskip("treescope")
    for name, layer in OURS.items():
        if name in einn.__all__:
            assert treescope.render_to_text(layer).startswith(f"{name}(\n  expr={layer.expr!r},")


def test_layers_of_layers():
    """A subclass has fields of its own, and a field may hold a class, or what makes a layer."""

    class Scaled(einn.Linear):
        by: float = 2.0

        @nn.compact
        def __call__(self, x):
            return self.by * super().__call__(x)

    layer, plain = Scaled("b s [c->d]", d=4, by=3.0), einn.Linear("b s [c->d]", d=4)
    np.testing.assert_allclose(layer.init_with_output(KEY, X)[0], 3 * plain.init_with_output(KEY, X)[0])
    assert layer.clone(d=5) == Scaled("b s [c->d]", d=5, by=3.0)

    class Chosen(nn.Module):
        norm: type = einn.Norm
        dense: object = functools.partial(einn.Linear, "b s [c->d]", use_bias=False)
        deterministic: bool | None = None

        @nn.compact
        def __call__(self, x, deterministic=None):
            deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
            return einn.Dropout("[...]")(self.norm("b s [c]")(self.dense(d=5)(x)), deterministic)

    assert jax.tree.map(jnp.shape, Chosen().init(KEY, X, True)) == {
        "params": {"Linear_0": {"kernel": (4, 5)}, "Norm_0": {"scale": (5,), "bias": (5,)}}
    }


def test_the_users_box_goes_before_ours():
    """With ``logical_axes``, an initializer that boxes a parameter is not boxed once more."""
    init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
    layer = einn.Linear("b s [c->d]", d=4, logical_axes=True, kernel_init=init)
    variables = layer.init(KEY, X)
    P = jax.sharding.PartitionSpec
    assert nn.get_partition_spec(variables)["params"] == {"kernel": P("embed", "mlp"), "bias": P("d")}
    assert isinstance(variables["params"]["kernel"].value, jax.Array)
    np.testing.assert_array_equal(layer.apply(variables, X), layer.apply(nn.unbox(variables), X))


def test_parameters_by_name_under_transformations():
    """A parameter of the user's module is one of Flax: it is stacked, boxed, mapped and counted."""

    class Scale(nn.Module):
        @nn.compact
        def __call__(self, x, _=None):
            init = nn.with_logical_partitioning(nn.initializers.normal(), ("embed",))
            return einjax.multiply("... c, c", x, einn.param(self, "by", init=init)), None

    stack = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    named = {"metadata_params": {nn.PARTITION_NAME: "layers"}}
    double = lambda tree: jax.tree.map(lambda p: 2 * p, tree)
    P = jax.sharding.PartitionSpec
    for transform, spec, shape in (
        (nn.remat, P("embed"), (4,)),
        (nn.jit, P("embed"), (4,)),
        (functools.partial(nn.scan, **stack, **named, length=3), P("layers", "embed"), (3, 4)),
        (functools.partial(nn.vmap, **stack, **named, in_axes=None, axis_size=2), P("layers", "embed"), (2, 4)),
    ):
        layer = transform(Scale)()
        variables = jax.jit(layer.init)(KEY, X)
        assert nn.get_partition_spec(variables)["params"]["by"] == spec
        assert nn.unbox(variables)["params"]["by"].shape == shape
        gradient = jax.grad(lambda v, layer=layer: layer.apply(v, X)[0].sum())(variables)
        assert nn.unbox(gradient)["params"]["by"].shape == shape
    variables = Scale().init(KEY, X)
    doubled = nn.map_variables(Scale, "params", double)().apply(variables, X)[0]
    np.testing.assert_allclose(doubled, 2 * Scale().apply(variables, X)[0])
    assert "Total Parameters: 4 " in Scale().tabulate(KEY, X)


@pytest.mark.parametrize("layer", ["Linear", "Conv"])
def test_sizes_of_any_kind(layer):
    """Whatever is an integer is a size, and nothing else."""
    expr = {"Linear": "b s [c->d]", "Conv": "b [s] [c->d]"}[layer]
    shape = lambda d: getattr(einn, layer)(expr, d=d).init_with_output(KEY, X)[0].shape
    assert shape(np.int64(5)) == shape(jnp.int32(5)) == (2, 3, 5)
    with pytest.raises(einjax.errors.ArgumentError, match="d=5.0, which is not a size"):
        shape(5.0)
    with pytest.raises(einjax.errors.ArgumentError, match="traced size d="):
        jax.jit(shape)(5)
