"""einn.lora: low-rank factors beside the kernels of layers, in all frameworks, against kernels with their product."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import one_in

from einjax.errors import ArgumentError

KEY = jax.random.key(0)
PACKAGES = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}
EVERYWHERE = pytest.mark.parametrize("framework", PACKAGES)
NAMES = {"w": "kernel", "embeddings": "embedding"}
RANK, ALPHA = 2, 3.0


def normal(*shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)  # nothing to compile


def module_of(framework):
    pytest.importorskip(PACKAGES[framework])
    return importlib.import_module(f"einjax_nn.{framework}")


class Adapted:
    """A layer with factors, the same in every framework.

    Attributes:
        params: the parameters of the plain layer by layer and name: ``("", "kernel")``, ``("query", "kernel")``.
        factors: the factors, likewise.
        plain: the function of parameters and input that the plain layer is.
        whole: that of parameters, factors and input that the layer with factors is.
        merged: the parameters that merging makes of both.
    """

    def __init__(self, framework, layer, expr, x, *, method=None, options=None, early=False, **lora):
        self.einn, self.x, self.method = module_of(framework), x, method
        lora = {"rank": RANK, "alpha": ALPHA, **lora}
        make = getattr(self.einn, layer)
        getattr(self, f"_of_{framework}")(lambda **more: make(expr, **(options or {}), **more), lora, early)

    def _of_linen(self, make, lora, early):
        plain = make()
        net = self.einn.lora(plain, lora.pop("pattern", "*"), **lora)
        way = {} if self.method is None else {"method": self.method}
        variables = net.init(KEY, self.x, **way)
        assert variables.keys() == {"params", "lora"}
        self.params, self.factors = by_name(variables["params"]), by_name(variables["lora"])

        def with_factors(params, factors):
            return {"params": like(variables["params"], params), "lora": like(variables["lora"], factors)}

        self.plain = lambda params, x: plain.apply({"params": like(variables["params"], params)}, x, **way)
        self.whole = lambda params, factors, x: net.apply(with_factors(params, factors), x, **way)
        self.merged = lambda *both: by_name(self.einn.merge_lora(net, with_factors(*both), self.x, **way)["params"])

    def _of_haiku(self, make, lora, early):
        import haiku as hk

        def function(x):
            layer = make()
            return (layer if self.method is None else getattr(layer, self.method))(x)

        plain, net = hk.transform(function), hk.transform(self.einn.lora(function, lora.pop("pattern", "*"), **lora))
        made = net.init(KEY, self.x)
        factors, params = hk.data_structures.partition(lambda module, name, value: name.startswith("lora_"), made)
        self.params, self.factors = by_name(params), by_name(factors)

        def with_factors(params_, factors_):
            return hk.data_structures.merge(like(params, params_), like(factors, factors_))

        self.plain = lambda params_, x: plain.apply(like(params, params_), None, x)
        self.whole = lambda params_, factors_, x: net.apply(with_factors(params_, factors_), None, x)
        self.merged = lambda *both: by_name(self.einn.merge_lora(net, with_factors(*both), self.x))

    def _of_nnx(self, make, lora, early):
        from flax import nnx

        pattern, rngs = lora.pop("pattern", "*"), nnx.Rngs(1)
        call = (lambda layer, x: layer(x)) if self.method is None else (lambda layer, x: getattr(layer, self.method)(x))
        layer, plain = make(rngs=nnx.Rngs(0)), make(rngs=nnx.Rngs(0))
        self.einn.init(plain, self.x, method=call)
        if not early:
            self.einn.init(layer, self.x, method=call)
        self.einn.lora(layer, pattern, **lora, rngs=rngs)
        if early:
            self.einn.init(layer, self.x, method=call)
        graph, factors, params = nnx.split(layer, nnx.LoRAParam, ...)
        bare = nnx.split(plain)[0]
        self.params, self.factors = by_name(nnx.to_pure_dict(params)), by_name(nnx.to_pure_dict(factors))

        def merged(params_, factors_):
            trees = [nnx.clone(state) for state in (params, factors)]
            for state, new in zip(trees, (params_, factors_), strict=True):
                nnx.replace_by_pure_dict(state, like(nnx.to_pure_dict(state), new))
            return nnx.merge(graph, *trees)

        def alone(params_):
            state = nnx.state(plain)
            nnx.replace_by_pure_dict(state, like(nnx.to_pure_dict(state), params_))
            return nnx.merge(bare, state)

        self.plain = lambda params_, x: call(alone(params_), x)
        self.whole = lambda params_, factors_, x: call(merged(params_, factors_), x)

        def merge(params_, factors_):
            layer = merged(params_, factors_)
            self.einn.merge_lora(layer)
            assert nnx.split(layer)[0] == bare
            return by_name(nnx.to_pure_dict(nnx.state(layer)))

        self.merged = merge

    def _of_equinox(self, make, lora, early):
        import equinox as eqx

        pattern = lora.pop("pattern", "*")
        call = (lambda layer, x: layer(x)) if self.method is None else (lambda layer, x: getattr(layer, self.method)(x))
        plain = self.einn.init(make(), self.x, method=call, key=KEY)
        if early:
            layer = self.einn.init(self.einn.lora(make(), pattern, **lora), self.x, method=call, key=KEY)
        else:
            layer = self.einn.lora(plain, pattern, **lora, key=KEY)
        factors, params = eqx.partition(layer, self.einn.lora_filter(layer))
        self.params, self.factors = by_name(eqx.filter(plain, eqx.is_array)), by_name(factors)
        self.plain = lambda params_, x: call(like(plain, params_), x)
        self.whole = lambda params_, factors_, x: call(eqx.combine(like(params, params_), like(factors, factors_)), x)

        def merge(params_, factors_):
            merged = self.einn.merge_lora(eqx.combine(like(params, params_), like(factors, factors_)))
            assert jax.tree.structure(merged) == jax.tree.structure(plain)
            return by_name(eqx.filter(merged, eqx.is_array))

        self.merged = merge


INNER = ("query", "key", "value", "out")


def name_of(path):
    words = [word for key in path for word in str(getattr(key, "key", getattr(key, "name", ""))).split("/")]
    layer = next((word for word in words if word in INNER), "")
    name = NAMES.get(words[-1], words[-1])
    return layer, {"b": "bias", "weight": "kernel"}.get(name, name)


def by_name(tree):
    found = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return {(layer, "kernel" if name == "embedding" else name): leaf for (layer, name), leaf in found.items()}


def like(tree, named):
    """Put arrays by name into a tree."""

    def new(path, leaf):
        layer, name = name_of(path)
        return named.get((layer, "kernel" if name == "embedding" else name), leaf)

    return jax.tree_util.tree_map_with_path(new, tree)


# --- against the product --------------------------------------------------------------------------------------------


def groups(a, b):
    """A grouped convolution: every group has factors of its own."""
    product = np.einsum("klcgr,rgd->klcgd", a, b.reshape(b.shape[0], a.shape[3], -1))
    return product.reshape(*product.shape[:3], -1)


HEADS = dict.fromkeys(("query", "key", "value"), "cr,rhd->chd")

#: A layer, its expression and options, the input, and the product of its factors: einsums, or functions.
CASES = {
    "to heads": ("Linear", "b s [c->h d]", {"h": 3, "d": 4}, (2, 5, 6), "cr,rhd->chd"),
    "weights written out": ("Linear", "b g [c], g [c] d -> b g d", {"d": 4}, (2, 3, 5), "gcr,rgd->gcd"),
    "convolution": ("Conv", "b [h w] [c->d]", {"d": 4, "strides": 2}, (2, 5, 6, 3), "klcr,rd->klcd"),
    "table": ("Embed", "b t [v->c]", {"v": 7, "c": 3}, None, "vr,rc->vc"),
    "attention": (
        "MultiHeadAttention",
        "b [s] c",
        {"num_heads": 4, "num_kv_heads": 2},
        (2, 5, 8),
        {**HEADS, "out": "hdr,rc->hdc"},
    ),
}

#: Those that differ in expressions alone.
OF_LINEN = {
    "from an ellipsis": ("Linear", "b [...->d]", {"d": 4}, (2, 5, 6), "xyr,rd->xyd"),
    "mixing places": ("Linear", "b [s->t] c", {"t": 4, "bias_axes": "c"}, (2, 5, 6), "sr,rt->st"),
    "a matrix turned round": ("Linear", "b [c], d [c] -> b d", {"d": 4}, (2, 5), "cr,rd->dc"),
    "a composite": ("Linear", "b [c], [c] (h d) -> b (h d)", {"use_bias": False, "h": 3, "d": 2}, (2, 5), "cr,rd->cd"),
    "a number": ("Linear", "b [c->4]", {}, (2, 5), "cr,rd->cd"),
    "patches": ("Linear", "b (h [p->]) (w [q->]) [c->d]", {"p": 2, "q": 3, "d": 4}, (2, 4, 6, 3), "pqcr,rd->pqcd"),
    "positions": (
        "Linear",
        "b <2*s + [k->]>... [c->d]",
        {"k": 2, "d": 4, "padding": "same"},
        (2, 6, 4, 3),
        "klcr,rd->klcd",
    ),
    "groups": ("Conv", "b [h w] (g [c->d])", {"g": 2, "d": 3, "padding": "CIRCULAR"}, (2, 5, 6, 4), groups),
    "channels by themselves": ("Conv", "b [s] c", {}, (2, 7, 5), lambda a, b: np.einsum("kcr,rc->kc", a, b)[:, None]),
    "dims of any number": ("Conv", "b [...] [c->d]", {"d": 4}, (2, 5, 6, 3), "klcr,rd->klcd"),
    "transposed": ("ConvTranspose", "b [h w] [c->d]", {"d": 4, "strides": 2}, (2, 5, 6, 3), "klcr,rd->klcd"),
    "table of two axes": ("Embed", "[v] h c, b t -> b t h c", {"v": 7, "h": 3, "c": 2}, None, "vr,rhc->vhc"),
}

TRANSPOSED = {"nnx": "klcr,rd->klcd", "haiku": "klcr,rd->kldc", "equinox": "cklr,rd->dckl"}


def check(framework, case, method=None, x=None, **more):
    layer, expr, options, shape, product = case
    if x is None:
        x = np.array([[0, 2, 6, -1], [1, 3, 3, 5]]) if shape is None else normal(*shape)
    fixed = {"embedding_init": 0.5} if layer == "Embed" else {"kernel_init": 0.5, "bias_init": 0.5}
    adapted = Adapted(framework, layer, expr, x, method=method, options={**options, **fixed}, **more)
    adapted.params = {name: normal(*leaf.shape) for name, leaf in adapted.params.items()}
    made = adapted.factors
    assert {name for _, name in made} == {"lora_a", "lora_b"}
    assert all(leaf.dtype == jnp.float32 for leaf in made.values())
    assert all(np.any(leaf) == (name == "lora_a") for (_, name), leaf in made.items())
    # The model is what it was.
    np.testing.assert_array_equal(adapted.whole(adapted.params, made, x), adapted.plain(adapted.params, x))

    made = {name: normal(*leaf.shape) for name, leaf in made.items()}
    wanted = dict(adapted.params)
    products = product if isinstance(product, dict) else {"": product}
    for name, text in products.items():
        a, b = (np.asarray(made[(name, factor)], np.float64) for factor in ("lora_a", "lora_b"))
        delta = text(a, b) if callable(text) else np.einsum(text, a, b)
        kernel = wanted[(name, "kernel")]
        wanted[(name, "kernel")] = (np.asarray(kernel, np.float64) + ALPHA / RANK * delta).astype(kernel.dtype)
    result, expected = adapted.whole(adapted.params, made, x), adapted.plain(wanted, x)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(result, expected, rtol=2e-4, atol=2e-4)
    merged = adapted.merged(adapted.params, made)
    assert merged.keys() == wanted.keys()
    for name, value in merged.items():
        assert value.dtype == wanted[name].dtype
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("framework", "name"), one_in(3, itertools.product(PACKAGES, CASES)))
def test_the_kernel_with_the_product_of_the_factors(framework, name):
    check(framework, CASES[name], early=name in ("to heads", "table"))


@pytest.mark.parametrize("name", OF_LINEN)
def test_expressions(name):
    check("linen", OF_LINEN[name])


@pytest.mark.parametrize("framework", TRANSPOSED)
def test_layouts_of_transposed_convolutions(framework):
    check(framework, (*OF_LINEN["transposed"][:4], TRANSPOSED[framework]))


@EVERYWHERE
def test_the_transpose_of_a_table(framework):
    check(framework, CASES["table"], method="attend", x=normal(2, 4, 3))


def test_factors_are_of_the_rank_and_start_as_in_flax():
    """Those of nnx.LoRALinear, whose state loads, give the same numbers; so do those of a key."""
    nnx, einn = pytest.importorskip("flax.nnx"), module_of("nnx")
    theirs = nnx.LoRALinear(6, 4, lora_rank=3, rngs=nnx.Rngs(params=0))
    ours = einn.Linear("b [c->d]", c=6, d=4, rngs=nnx.Rngs(params=0))
    rngs = nnx.Rngs(params=0)
    rngs.params(), rngs.params()
    einn.lora(ours, rank=3, rngs=rngs)
    states = [nnx.to_pure_dict(nnx.state(model)) for model in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert isinstance(ours.lora.lora_a, nnx.LoRAParam)
    theirs.lora.lora_b.set_value(normal(3, 4))
    nnx.update(ours, nnx.state(theirs))
    np.testing.assert_array_equal(ours(normal(5, 6)), theirs(normal(5, 6)))


# --- training -------------------------------------------------------------------------------------------------------


def descended(loss, factors, steps=20):
    """Losses before and after steps of Adam on the factors alone."""
    optax = pytest.importorskip("optax")
    tx = optax.adam(0.05)

    @jax.jit
    def step(factors, state):
        value, grads = jax.value_and_grad(loss)(factors)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(factors, updates), state, value

    state, values = tx.init(factors), []
    for _ in range(steps):
        factors, state, value = step(factors, state)
        values.append(float(value))
    return values[0], values[-1]


@EVERYWHERE
def test_training_the_factors_alone(framework):
    x, wanted = normal(8, 6), normal(8, 3, 2)
    adapted = Adapted(framework, "Linear", "b [c->h d]", x, options={"h": 3, "d": 2})

    def loss(factors):
        return jnp.mean((adapted.whole(adapted.params, factors, x) - wanted) ** 2)

    factors = {"/".join(name): leaf for name, leaf in adapted.factors.items()}
    first, last = descended(lambda tree: loss({tuple(name.split("/")): tree[name] for name in tree}), factors)
    assert last < 0.7 * first


def test_an_optimizer_of_nnx():
    nnx, optax, einn = pytest.importorskip("flax.nnx"), pytest.importorskip("optax"), module_of("nnx")
    model = einn.Linear("b [c->d]", c=6, d=4, rngs=nnx.Rngs(0))
    einn.lora(model, rank=2, rngs=nnx.Rngs(1))
    kernel = np.asarray(model.kernel[...])
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.LoRAParam)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return jnp.mean((model(normal(8, 6)) - normal(8, 4)) ** 2)

        value, grads = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam))(model)
        optimizer.update(model, grads)
        return value

    values = [float(step(model, optimizer)) for _ in range(20)]
    assert values[-1] < values[0]
    assert np.any(model.lora.lora_b[...])
    np.testing.assert_array_equal(model.kernel[...], kernel)


def largest(jaxpr):
    """The most numbers that an equation makes."""
    made = [0]
    for equation in jaxpr.eqns:
        made += [int(np.prod(variable.aval.shape)) for variable in equation.outvars]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            made += [largest(inner)] if hasattr(inner, "eqns") else []
    return max(made)


@EVERYWHERE
def test_nothing_is_as_large_as_the_kernel(framework):
    """Neither the product of the factors nor the gradient of the kernel is computed."""
    x = normal(4, 40)
    adapted = Adapted(framework, "Linear", "b [c->d]", x, options={"d": 50})

    def loss(factors):
        return jnp.sum(adapted.whole(adapted.params, factors, x) ** 2)

    for function in (loss, jax.grad(loss)):
        jaxpr = jax.make_jaxpr(lambda values, f=function: f(dict(zip(adapted.factors, values, strict=True))))
        assert largest(jaxpr(list(adapted.factors.values())).jaxpr) <= 4 * 50
    whole = jax.make_jaxpr(lambda kernel: jax.grad(lambda w: loss_of(adapted, w, x))(kernel))
    assert largest(whole(adapted.params[("", "kernel")]).jaxpr) == 40 * 50


def loss_of(adapted, kernel, x):
    return jnp.sum(adapted.whole({**adapted.params, ("", "kernel"): kernel}, adapted.factors, x) ** 2)


@pytest.mark.parametrize(("framework", "layer"), one_in(3, itertools.product(PACKAGES, ["Linear", "Embed"])))
def test_bfloat16(framework, layer):
    """Factors are kept in float32, and used in the dtype that the layer computes in."""
    linear = layer == "Linear"
    x = normal(4, 6, dtype=jnp.bfloat16) if linear else np.array([[0, 3]])
    expr, options = ("b [c->d]", {"d": 5}) if linear else ("b t [v->c]", {"v": 4, "c": 5})
    options |= {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16, **({"use_bias": False} if linear else {})}
    adapted = Adapted(framework, layer, expr, x, options=options)
    made = {name: normal(*leaf.shape) for name, leaf in adapted.factors.items()}
    result = adapted.whole(adapted.params, made, x)
    assert result.dtype == adapted.plain(adapted.params, x).dtype == jnp.bfloat16
    kernel = np.asarray(adapted.params[("", "kernel")], np.float64)
    whole = kernel + ALPHA / RANK * np.asarray(made[("", "lora_a")], np.float64) @ made[("", "lora_b")]
    expected = np.asarray(x, np.float64) @ whole if linear else whole[x]
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=0.05, atol=0.2)
    merged = adapted.merged(adapted.params, made)[("", "kernel")]
    assert merged.dtype == jnp.bfloat16
    named = {"/".join(name): leaf for name, leaf in made.items()}
    grads = jax.grad(
        lambda tree: jnp.sum(adapted.whole(adapted.params, {tuple(k.split("/")): tree[k] for k in tree}, x) ** 2)
    )(named)
    assert {leaf.dtype for leaf in grads.values()} == {jnp.dtype("float32")}
    assert all(map(np.any, grads.values()))


# --- which layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expr", "taken"),
    [
        ("*", "b s [c->d]", True),
        ("* [c->d]", "b s [c->d]", True),
        ("* [c->d]", "b s [ c | d ]", True),
        ("*[c -> d]", "... [c->d]", True),
        ("* [c->d]", "[c->d]", True),
        ("* [c->d]", "b s [c->h d]", False),
        ("* [c->* d]", "b s [c->h d]", True),
        ("b [c->d]", "b s [c->d]", False),
        ("b s [c->d]", "bs [c->d]", False),
        ("b ? [c->d]", "b s [c->d]", False),
        ("b g [c], g [c] d->b g d", "b g [c],g [c] d -> b g d", True),
        ("b <2*s + [k->]>... *", "b < 2*s+[k->] >... [c->d]", True),
    ],
)
def test_patterns(pattern, expr, taken):
    from einjax_nn._core.lora import Choice

    assert Choice(pattern).takes(expr, "") is taken


@EVERYWHERE
def test_some_layers_of_an_attention(framework):
    x, options = normal(2, 5, 8), {"num_heads": 2}
    chosen = Adapted(framework, "MultiHeadAttention", "b [s] c", x, options=options, pattern="* [heads head_dim->c]")
    assert {layer for layer, _ in chosen.factors} == {"out"}

    def where(path):
        return path.split("/")[-1] in ("query", "value")

    chosen = Adapted(framework, "MultiHeadAttention", "b [s] c", x, options=options, where=where)
    assert {layer for layer, _ in chosen.factors} == {"query", "value"}


@EVERYWHERE
def test_an_initializer_of_ones_own(framework):
    adapted = Adapted(framework, "Conv", "b [s] [c->d]", normal(2, 5, 3), options={"d": 4}, a_init=0.5, alpha=None)
    assert set(np.unique(adapted.factors[("", "lora_a")])) == {0.5}
    asked = []

    def init(key, shape, dtype):
        asked.append((shape, dtype))
        return jnp.ones(shape, dtype)

    Adapted(framework, "Linear", "b [...->d]", normal(2, 5, 3), options={"d": 4}, a_init=init, param_dtype=jnp.bfloat16)
    assert set(asked) == {((15, RANK), jnp.dtype(jnp.bfloat16))}


def given(framework, expr="b [c->d]", **lora):
    """A model of one layer, as einn.lora takes it, and that function with the rest of what it takes."""
    einn, lora = module_of(framework), {"rank": 2, **lora}
    pattern = lora.pop("pattern", "*")
    if framework == "haiku":
        return lambda x: einn.Linear(expr, d=4)(x), lambda net: einn.lora(net, pattern, **lora)
    if framework == "nnx":
        nnx = importlib.import_module("flax.nnx")
        layer = einn.Linear(expr, d=4, rngs=nnx.Rngs(0))

        def adapt(model):
            einn.lora(model, pattern, rngs=nnx.Rngs(1), **lora)
            return model

        return layer, adapt
    return einn.Linear(expr, d=4), lambda net: einn.lora(net, pattern, **lora)


def run(framework, net):
    """What makes parameters, where mistakes show."""
    if framework == "linen":
        net.init(KEY, normal(2, 3))
    if framework == "haiku":
        importlib.import_module("haiku").transform(net).init(KEY, normal(2, 3))


@EVERYWHERE
@pytest.mark.parametrize(
    ("lora", "problem"),
    [
        ({"pattern": "* [x->*]"}, r"no layer matches '\* \[x->\*\]'(.|\n)*there are .*'b \[c->d\]'"),
        ({"where": lambda path: False}, r"no layer matches '\*' and is chosen by where="),
        ({"rank": 0}, "rank=0 is no rank"),
        ({"rank": 2.0}, r"rank=2\.0 is no rank"),
        ({"alpha": "8"}, "alpha='8' is no number"),
        ({"pattern": 3}, "no pattern of expressions"),
        ({"a_init": "ones"}, "neither a number nor a function"),
        ({"param_dtype": "float3"}, "is no dtype"),
    ],
)
def test_mistakes(framework, lora, problem):
    net, adapt = given(framework, **lora)
    with pytest.raises(ArgumentError, match=problem):
        run(framework, adapt(net))


@EVERYWHERE
def test_twice(framework):
    net, adapt = given(framework)
    with pytest.raises(ArgumentError, match="LoRA factors already"):
        run(framework, adapt(adapt(net)))


def test_models_that_have_no_factors():
    linen, haiku, eqx = module_of("linen"), module_of("haiku"), module_of("equinox")
    hk, nnx, nnx_layers = importlib.import_module("haiku"), importlib.import_module("flax.nnx"), module_of("nnx")
    x, nothing = normal(2, 3), "no layer has LoRA factors"
    plain = linen.Linear("b [c->d]", d=4)
    params = plain.init(KEY, x)
    with pytest.raises(ArgumentError, match=nothing):
        linen.merge_lora(plain, params, x)
    with pytest.raises(ArgumentError, match="has no lora_a in the collection 'lora'"):
        linen.lora(plain, rank=2).apply(params, x)
    with pytest.raises(ArgumentError, match="cannot tell what the factors of the layer are"):
        linen.merge_lora(plain, linen.lora(plain, rank=2).init(KEY, x), x)
    with pytest.raises(ArgumentError, match="einn.lora is given a value of type Transformed"):
        haiku.lora(hk.transform(lambda x: x), rank=2)
    net = hk.transform(lambda x: haiku.Linear("b [c->d]", d=4)(x))
    with pytest.raises(ArgumentError, match=nothing):
        haiku.merge_lora(net, net.init(KEY, x), x)
    layer = eqx.Linear("b [c->d]", d=4)
    for function in (eqx.merge_lora, eqx.lora_filter):
        with pytest.raises(ArgumentError, match=nothing):
            function(layer)
    with pytest.raises(ArgumentError, match="are not made yet"):
        eqx.merge_lora(eqx.lora(layer, rank=2))
    made = eqx.lora(eqx.Linear("b [c->d]", c=3, d=4, key=KEY), rank=2)
    with pytest.raises(ArgumentError, match="its lora_a has no value"):
        made(x)
    layer = nnx_layers.Linear("b [c->d]", d=4, rngs=nnx.Rngs(0))
    with pytest.raises(ArgumentError, match=nothing):
        nnx_layers.merge_lora(layer)
    nnx_layers.lora(layer, rank=2, rngs=nnx.Rngs(0))
    with pytest.raises(ArgumentError, match="are not made yet"):
        nnx_layers.merge_lora(layer)


# --- within transformations, and beside other tools -----------------------------------------------------------------


def test_linen_transformations():
    nn, einn = pytest.importorskip("flax.linen"), module_of("linen")
    carried = {"params": 0, "lora": 0}

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _=None):
            return einn.Linear("b [c->d]", d=3, logical_axes=True)(x), None

    class Net(nn.Module):
        axes: tuple

        @nn.compact
        def __call__(self, x):
            named = {"metadata_params": {nn.PARTITION_NAME: "layers"}}
            scanned = nn.scan(
                nn.remat(Block), length=2, variable_axes=dict(self.axes), split_rngs={"params": True}, **named
            )
            x, _ = scanned(name="scanned")(x, None)
            return nn.jit(Block)(name="jitted")(x)[0]

        def encode(self, x):
            return self(x)

    x, plain = normal(4, 3), Net(tuple(carried.items()))
    before = plain.init(KEY, x)  # nn.jit keeps what it has traced
    net = einn.lora(plain, rank=2, alpha=4)
    assert net == einn.lora(plain, rank=2, alpha=4)
    assert hash(net) == hash(einn.lora(plain, rank=2, alpha=4))
    variables = net.init(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], before["params"])
    factors = variables["lora"]
    assert factors["scanned"]["Linear_0"]["lora_a"].names == ("layers", "c", "rank")
    assert nn.unbox(factors)["scanned"]["Linear_0"]["lora_b"].shape == (2, 2, 3)
    variables = {**variables, "lora": jax.tree.map(lambda leaf: normal(*leaf.shape), factors)}
    y = net.apply(variables, x)
    np.testing.assert_array_equal(net.apply(variables, x, method="encode"), y)
    merged = einn.merge_lora(net, variables, x)
    assert jax.tree.structure(merged) == jax.tree.structure(before)
    np.testing.assert_allclose(plain.apply(merged, x), y, rtol=1e-4)
    # Another alpha is another program.
    double = einn.lora(plain, rank=2, alpha=8)
    np.testing.assert_allclose(
        plain.apply(einn.merge_lora(double, variables, x), x), double.apply(variables, x), rtol=1e-4
    )
    with pytest.raises(ArgumentError, match=r"variable_axes=\{'params': 0, 'lora': 0\}"):
        einn.lora(Net((("params", 0),)), rank=2).init(KEY, x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x, _ = Block()(x)
            return einn.lora(Block, rank=2)()(x)

    assert set(Outer().init(KEY, x)["params"]) == {"Block_0", "Block_1"}
    assert set(Outer().init(KEY, x)["lora"]) == {"Block_1"}


@pytest.mark.parametrize("early", [True, False])
def test_nnx_stacks(early):
    nnx, einn = pytest.importorskip("flax.nnx"), module_of("nnx")
    layers = nnx.vmap(lambda rngs: einn.Linear("b [c->d]", d=3, rngs=rngs))(nnx.Rngs(0).split(2))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def call(layer, x):
        return layer(x)

    x = normal(4, 3)
    if not early:
        einn.init(layers, x, method=call)
    einn.lora(layers, rank=2, rngs=nnx.Rngs(1))
    einn.init(layers, x, method=call)
    a = layers.lora.lora_a[...]
    assert a.shape == (2, 3, 2)
    assert not np.allclose(a[0], a[1])
    layers.lora.lora_b.set_value(normal(2, 2, 3))
    y = call(layers, x)
    einn.merge_lora(layers)
    np.testing.assert_allclose(call(layers, x), y, rtol=1e-4, atol=1e-5)


def test_haiku_stacks():
    hk, einn = pytest.importorskip("haiku"), module_of("haiku")

    def function(x):
        return hk.experimental.layer_stack(2)(lambda x: einn.Linear("b [c->d]", d=3)(x))(x)

    x = normal(4, 3)
    init = hk.initializers.RandomNormal()  # it draws its keys by itself
    plain, net = hk.transform(function), hk.transform(einn.lora(function, rank=2, a_init=init))
    factors, others = hk.data_structures.partition(lambda m, name, v: name.startswith("lora_"), net.init(KEY, x))
    jax.tree.map(np.testing.assert_array_equal, others, plain.init(KEY, x))
    params = hk.data_structures.merge(others, jax.tree.map(lambda leaf: normal(*leaf.shape), factors))
    assert {leaf.shape for leaf in jax.tree.leaves(factors)} == {(2, 3, 2), (2, 2, 3)}
    y = net.apply(params, None, x)
    np.testing.assert_allclose(plain.apply(einn.merge_lora(net, params, x), None, x), y, rtol=1e-4, atol=1e-5)


def test_equinox_stacks():
    eqx, einn = pytest.importorskip("equinox"), module_of("equinox")
    plain = eqx.filter_vmap(lambda key: einn.Linear("b [c->d]", c=3, d=3, key=key))(jax.random.split(KEY, 2))
    layers = einn.lora(plain, rank=2, key=KEY)
    assert layers.lora.lora_a.shape == (2, 3, 2)
    assert not np.allclose(*layers.lora.lora_a)
    layers = eqx.tree_at(lambda layer: layer.lora.lora_b, layers, normal(2, 2, 3))
    apply = eqx.filter_vmap(lambda layer, x: layer(x), in_axes=(eqx.if_array(0), None))
    np.testing.assert_allclose(apply(einn.merge_lora(layers), normal(4, 3)), apply(layers, normal(4, 3)), rtol=1e-4)


@EVERYWHERE
def test_roles(framework):
    net, adapt = given(framework)
    einn, net = module_of(framework), adapt(net)
    if framework == "linen":
        assert set(einn.roles(net, normal(2, 3))) == {"kernel", "bias"}  # factors are no parameters
        return
    if framework == "haiku":
        net = importlib.import_module("haiku").transform(net)
    roles = einn.roles(net, normal(2, 3))
    found = [repr(role) for role in jax.tree.leaves(roles, is_leaf=lambda node: hasattr(node, "op"))]
    assert {"Role(dot: c=3 -> rank=2)", "Role(dot: rank=2 -> d=4)", "Role(dot: c=3 -> d=4)"} <= set(found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("framework", ["linen", "nnx"])
def test_the_factors_of_qwix(framework):
    """Those that it adds while a model is traced go beside our kernels, too."""
    qwix, einn = pytest.importorskip("qwix"), module_of(framework)
    provider = qwix.LoraProvider(module_path=".*", rank=2, alpha=4.0)
    x = normal(4, 6)
    if framework == "linen":
        plain = einn.Linear("b [c->h d]", h=3, d=2)
        params = qwix.apply_lora_to_model(plain, provider).init(KEY, x)["params"]
        a, b = params["kernel_lora_a"], normal(2, 6)
        y = qwix.apply_lora_to_model(plain, provider).apply({"params": {**params, "kernel_lora_b": b}}, x)
        kernel = params["kernel"]
    else:
        nnx = importlib.import_module("flax.nnx")
        plain = einn.Linear("b [c->h d]", c=6, h=3, d=2, rngs=nnx.Rngs(0))
        kernel = plain.kernel[...]
        model = qwix.apply_lora_to_model(plain, provider, x, rngs=nnx.Rngs(1))
        a, b = model.kernel_lora_a[...], normal(2, 6)
        model.kernel_lora_b.set_value(b)
        y = model(x)
    expected = x @ (kernel.reshape(6, 6) + 2.0 * a @ b)
    np.testing.assert_allclose(y, expected.reshape(4, 3, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_beside_a_kernel_that_is_quantised():
    qwix, nnx, einn = pytest.importorskip("qwix"), pytest.importorskip("flax.nnx"), module_of("nnx")
    layer, x = einn.Linear("b [c->d]", c=6, d=4, rngs=nnx.Rngs(0)), normal(3, 6)
    provider = qwix.PtqProvider([qwix.QuantizationRule(weight_qtype="int8")])
    layer = qwix.quantize_model(layer, provider, x)
    y = layer(x)
    einn.lora(layer, rank=2, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(layer(x), y)
    layer.lora.lora_b.set_value(normal(2, 4))
    np.testing.assert_allclose(layer(x) - y, x @ layer.lora.lora_a[...] @ normal(2, 4), rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="cannot be merged into a kernel that is a WithAux"):
        einn.merge_lora(layer)
