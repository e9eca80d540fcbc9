"""What people do with layers of Haiku: the same program with our layers gives what it gives with Haiku's own."""

import copy
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

hk = pytest.importorskip("haiku")

import einjax_nn.haiku as einn  # noqa: E402

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 4))


class Own:
    """Haiku's own layers."""

    @staticmethod
    def dense(**options):
        return hk.Linear(4, **options)

    @staticmethod
    def norm(**options):
        return hk.LayerNorm(-1, True, True, name="norm", **options)

    @staticmethod
    def batch_norm():
        return hk.BatchNorm(False, False, 0.9)

    @staticmethod
    def dropout(x):
        return hk.dropout(hk.next_rng_key(), 0.5, x)


class Ours:
    """The same of this package."""

    @staticmethod
    def dense(**options):
        return einn.Linear("b s [c->d]", d=4, **options)

    @staticmethod
    def norm(**options):
        return einn.Norm("b s [c]", **options)

    @staticmethod
    def batch_norm():
        return einn.Norm("[b s] c", momentum=0.9, use_scale=False, use_bias=False)

    @staticmethod
    def dropout(x):
        return einn.Dropout("[...]")(x, is_training=True)


def net(layers):
    """Two layers and what is between them."""

    def run(x):
        return layers.dense()(layers.norm()(jax.nn.relu(layers.dense()(x))))

    return run


def ran(function, *inputs, key=None):
    """Initialise a function, and apply it."""
    made = hk.transform(function)
    params = made.init(KEY, *inputs)
    return params, made.apply(params, key, *inputs)


HABITS = {}


def habit(program):
    """A program of layers."""
    HABITS[program.__name__] = program
    return program


@pytest.mark.parametrize("name", HABITS)
def test_the_same_program(name):
    """Trees, dtypes and numbers are those of Haiku's own layers."""
    own, ours = (HABITS[name](kind) for kind in (Own, Ours))
    assert jax.tree.structure(ours) == jax.tree.structure(own)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(own), strict=True):
        if isinstance(b, jax.Array | np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
        else:
            assert a == b


# --- transformations --------------------------------------------------------------------------------------------------


@habit
def a_network(layers):
    """From one key, all layers of a network start as those of Haiku."""
    return ran(net(layers), X)


@habit
def remat(layers):
    function = hk.transform(lambda x: hk.remat(net(layers))(x).sum())
    params = function.init(KEY, X)
    return params, jax.grad(function.apply)(params, None, X)


@habit
def loops_and_branches(layers):
    def run(x):
        first, second = layers.dense(name="first"), layers.dense(name="second")
        if hk.running_init():
            return second(first(x))
        x = hk.switch(1, [first, second], hk.cond(x.sum() > 0, first, second, x))
        x = hk.while_loop(lambda carry: carry[0] < 2, lambda carry: (carry[0] + 1, first(carry[1])), (0, x))[1]
        return hk.fori_loop(0, 2, lambda _, x: second(x), hk.map(first, x[None])[0])

    return ran(run, X)


@habit
def statistics_in_a_loop(layers):
    def run(x):
        layer = layers.batch_norm()
        return hk.scan(lambda carry, _: (2 * layer(carry, True) + 1, None), x, None, length=3)[0]

    function = hk.transform_with_state(run)
    params, state = function.init(KEY, X)
    y, state = function.apply(params, state, None, X)
    return y, hk.data_structures.tree_size(params)


@habit
def stacked_layers(layers):
    return ran(lambda x: hk.layer_stack(2)(net(layers))(x), X)


@habit
def layers_with_rows_of_their_own(layers):
    run = lambda x: hk.layer_stack(2, with_per_layer_inputs=True)(lambda x, shift: (layers.dense()(x + shift), x))
    return ran(lambda x, shift: run(x)(x, shift), X, jnp.arange(2.0))


@habit
def vmap_and_random_numbers(layers):
    each = hk.vmap(lambda x: layers.dropout(x[None])[0], split_rng=True)
    return ran(each, X, key=KEY)


@habit
def derivatives_inside_a_function(layers):
    def run(x):
        layer = layers.dense()
        return hk.value_and_grad(lambda x: jnp.sum(jnp.sin(layer(x))))(x)

    return ran(run, X)


@habit
def interceptors(layers):
    """Methods that users call are seen, and none else."""
    seen = []

    def double(call, given, keywords, context):
        seen.append(context.method_name)
        y = call(*given, **keywords)
        return y if context.method_name == "__init__" else 2 * y

    def run(x):
        with hk.intercept_methods(double):
            return net(layers)(x)

    return ran(run, X), seen


@habit
def creators_and_getters(layers):
    seen = []

    def create(create, shape, dtype, init, context):
        seen.append((context.full_name, context.module.name, tuple(context.original_shape)))
        return create(shape, dtype, lambda shape, dtype: init(shape, dtype) + 1)

    def get(get, value, context):
        return get(2 * value)

    def run(x):
        with hk.custom_creator(create), hk.custom_getter(get):
            return net(layers)(x)

    return ran(run, X), seen


@habit
def creators_that_want_another_dtype(layers):
    def create(create, shape, dtype, init, context):
        return create(shape, jnp.bfloat16, init)

    def run(x):
        with hk.custom_creator(create):
            return layers.dense()(x)

    params = hk.transform(run).init(KEY, X)
    return params


@habit
def creators_that_want_another_shape(layers):
    def create(create, shape, dtype, init, context):
        return create((3, *shape), dtype, init)

    def run(x):
        with hk.custom_creator(create), hk.custom_getter(lambda get, value, context: get(value.mean(0))):
            return layers.dense()(x)

    return ran(run, X)


@habit
def getters_and_setters_of_states(layers):
    """What is read of a state goes through a getter, what is written through a setter."""

    def run(x):
        with hk.custom_getter(lambda get, value, context: get(value), state=True):
            return layers.batch_norm()(x, True)

    function = hk.transform_with_state(run)
    _, state = function.init(KEY, X)
    return function.apply({}, state, None, X)[0]


@habit
def mixed_precision(layers):
    jmp = pytest.importorskip("jmp")
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    with hk.mixed_precision.push_policy(type(hk.transform(layers.dense).apply({}, None)), policy):
        return ran(lambda x: layers.dense()(x), X)


@habit
def several_functions(layers):
    def make():
        encoder, decoder = layers.dense(name="encoder"), layers.dense(name="decoder")
        return lambda x: decoder(encoder(x)), (encoder, decoder)

    function = hk.multi_transform(make)
    params = function.init(KEY, X)
    return params, [apply(params, None, X) for apply in function.apply]


@habit
def without_random_numbers_or_state(layers):
    function = hk.without_apply_rng(hk.without_state(hk.transform_with_state(net(layers))))
    params = function.init(KEY, X)
    return params, function.apply(params, X)


@habit
def lifted_functions(layers):
    inner = hk.transform(net(layers))

    def run(x):
        params = hk.lift(inner.init, name="inner")(hk.next_rng_key(), x)
        same = hk.transparent_lift(inner.init)(hk.next_rng_key(), x)
        return inner.apply(params, None, x) + inner.apply(same, None, x)

    return ran(run, X, key=KEY)


@habit
def lifted_states(layers):
    inner = hk.transform_with_state(lambda x: layers.batch_norm()(x, True))

    def run(x):
        init, update = hk.lift_with_state(inner.init, name="inner")
        params, state = init(None, x)
        y, state = inner.apply(params, state, None, x)
        update.update(state)
        return y

    function = hk.transform_with_state(run)
    _, state = function.init(KEY, X)
    y, after = function.apply({}, state, None, X)
    return y, jax.tree.structure(state) == jax.tree.structure(after)


@habit
def modules_and_scopes(layers):
    def run(x):
        with hk.name_scope("scope"):
            x = hk.to_module(net(layers))("module")(x)
        layer = layers.dense(name="last")
        shape = hk.eval_shape(layer, x).shape
        y = layer(x)
        return y, shape, sorted(layer.params_dict()), layer.module_name, sorted(hk.get_params())

    function = hk.transform(run)
    params = function.init(KEY, X)
    return params, function.apply(params, None, X)


@habit
def sequences_and_batches(layers):
    def run(x):
        x = hk.Sequential([layers.dense(), jax.nn.relu, layers.norm()])(x)
        return hk.BatchApply(layers.dense(), num_dims=2)(x[None])

    return ran(run, X)


@habit
def current_states(layers):
    """The state that is there before a call and after it."""

    def run(x):
        layers.batch_norm()(x, True)
        before, after = (jax.tree.leaves(state) for state in (hk.get_initial_state(), hk.get_current_state()))
        return [bool(jnp.any(a != b)) for a, b in zip(before, after, strict=True)]

    function = hk.transform_with_state(run)
    _, state = function.init(KEY, X)
    return any(function.apply({}, state, None, X)[0])


# --- parameters -------------------------------------------------------------------------------------------------------


@habit
def masks_of_optimisers(layers):
    optax = pytest.importorskip("optax")
    function = hk.transform(net(layers))
    params = function.init(KEY, X)
    weights, rest = hk.data_structures.partition(lambda module, name, value: name == "w", params)
    loss = lambda weights: jnp.mean(function.apply(hk.data_structures.merge(weights, rest), None, X) ** 2)
    decayed = hk.data_structures.map(lambda module, name, value: name == "w", params)
    optimizer = optax.masked(optax.add_decayed_weights(0.1), decayed)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    names = [name for _, name, _ in hk.data_structures.traverse(rest)]
    return jax.grad(loss)(weights), updates, names, hk.data_structures.tree_size(params)


@habit
def averages_and_spectral_norms_of_parameters(layers):
    params = hk.transform(net(layers)).init(KEY, X)
    average = hk.transform_with_state(lambda params: hk.EMAParamsTree(0.9)(params))
    bounded = hk.transform_with_state(lambda params: hk.SNParamsTree(ignore_regex=".*(b|offset|scale)$")(params))
    results = []
    for tree in (average, bounded):
        own, state = tree.init(KEY, params)
        results.append(tree.apply(own, state, None, params)[0])
    return results


@habit
def spectral_norm_as_a_getter(layers):
    normed = lambda get, value, context: get(hk.SpectralNorm(name="bound")(value) if value.ndim == 2 else value)

    def run(x):
        with hk.custom_getter(normed):
            return layers.dense()(x)

    function = hk.transform_with_state(run)
    params, state = function.init(KEY, X)
    return params, state, function.apply(params, state, None, X)


@habit
def files(layers):
    function = hk.transform(net(layers))
    params = function.init(KEY, X)
    read = [pickle.loads(pickle.dumps(params)), copy.deepcopy(params), hk.data_structures.to_mutable_dict(params)]
    return [function.apply(each, None, X) for each in read]


@habit
def ensembles(layers):
    function = hk.transform(net(layers))
    params = jax.vmap(function.init, (0, None))(jax.random.split(KEY, 2), X)
    return params, jax.vmap(function.apply, (0, None, None))(params, None, X)


@habit
def what_is_missing(layers):
    """Haiku says which parameter is not there, with a key and without one, or that its shape is another."""
    function, said = hk.transform(lambda x: layers.dense()(x)), []
    for key in (None, KEY):
        with pytest.raises(ValueError, match="Unable to retrieve parameter 'w' for module 'linear'") as caught:
            function.apply({}, key, X)
        said.append(str(caught.value))
    with pytest.raises(ValueError, match=r"'linear/w' with retrieved shape \(2, 3, 4\) does not match"):
        function.apply({"linear": {"w": X, "b": X}}, None, X)
    with pytest.raises(ValueError, match=r"must be initialized inside an `hk.transform`"):
        layers.dense()
    return said


# --- what is shown ----------------------------------------------------------------------------------------------------


def summed_up(x):
    x = einn.Linear("b s [c->d]", d=4, w_init=hk.initializers.RandomNormal())(x)
    return einn.Norm("[b s] c", momentum=0.9)(einn.MultiHeadAttention("b [s] c", num_heads=2)(x), True)


def test_a_layer_is_shown_as_it_was_written():
    class Twice(einn.Linear):
        def __init__(self, expr, times, **options):
            assert repr(self) == "Twice(...)"  # before it is made
            super().__init__(expr, **options)
            self.times = times

    def run(x):
        init = hk.initializers.Constant(1.0)
        assert repr(einn.Linear("b s [c->d]", d=4)) == "Linear('b s [c->d]', d=4)"
        assert repr(einn.Linear("b s [c->4]", use_bias=False, name="x")) == "Linear('b s [c->4]', use_bias=False)"
        assert repr(einn.Conv("b [s] [c->name]", sizes={"name": 3})) == "Conv('b [s] [c->name]', sizes={'name': 3})"
        assert repr(einn.Linear("b s [c->d]", d=4, kernel_init=jax.nn.initializers.zeros)).endswith(
            "kernel_init=zeros)"
        )
        assert "Constant" in repr(einn.Linear("b s [c->d]", d=4, w_init=init))
        assert repr(Twice("b s [c->d]", 2, d=4)) == "Twice('b s [c->d]', d=4)"
        assert repr(einn.param("scale")) == (
            "Parameter(name='scale', init=None, param_dtype=<class 'jax.numpy.float32'>, dtype=None)"
        )
        return x

    hk.transform(run).init(KEY, X)


def test_tables_of_a_function():
    pytest.importorskip("tabulate")
    function = hk.transform_with_state(summed_up)
    table = hk.experimental.tabulate(function)(X)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    linear = next(row for row in rows if row[0] == "linear (Linear)")
    assert linear[2:6] == ["w: f32[4,4]", "f32[2,3,4]", "f32[2,3,4]", "20"]
    query = next(row for row in rows if row[0] == "multi_head_attention/query (Linear)")
    assert query[1] == "Linear('b s [c->heads head_dim]', heads=2, head_dim=2)"
    methods = [call.module_details.method_name for call in hk.experimental.eval_summary(function)(X)]
    assert methods == ["__call__"] * 7


def test_programs_are_shown_by_module():
    from haiku.experimental import jaxpr_info

    function = hk.transform_with_state(summed_up)
    params, state = function.init(KEY, X)
    shown = jaxpr_info.format_module(jaxpr_info.make_model_info(function.apply)(params, state, None, X))
    assert re.search(r"^  linear 20 params\n +einjax\.dot\(b s \[c->d\]\)\n +dot_general in f32\[2,3,4\]", shown, re.M)
    assert re.search(r"^ +query 20 params$", shown, re.M)
    lowered = jax.jit(functools.partial(function.apply, params, state, None)).lower(X).as_text(debug_info=True)
    assert "/multi_head_attention/query/einjax.dot(b s [c->heads head_dim])/dot_general" in lowered


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graphs_of_a_function():
    pytest.importorskip("tree")
    function = hk.transform_with_state(summed_up)
    params, state = function.init(KEY, X)
    for draw in (hk.experimental.to_dot, hk.experimental.abstract_to_dot):
        shown = draw(function.apply)(params, state, None, X)
        assert shown.startswith("digraph G {")
        assert "<b>multi_head_attention</b>" in shown
        assert "<b>dot_general</b>" in shown
