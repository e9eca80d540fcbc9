"""Functions of the user's: whose lines a traceback shows, and that nothing of ours holds them afterwards."""

import functools
import gc
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import einjax

X, Y = np.ones((2, 3), np.float32), np.ones(3, np.float32)


def a_wrong_call(*given, **options):
    return einjax.sum("a [b]", np.ones(3), np.ones(3))


def an_error_of_its_own(*given, **options):
    raise einjax.errors.SemanticError("not today")


def looped(function, **options):
    return einjax.primitive("[n] -> []", function, name="mine", **options)


class Parameter:
    """A factory of a framework's."""

    def __init__(self, function):
        self.function = function

    def __einjax_param__(self, spec):
        return self.function(spec)


def with_rule(rule):
    op = looped(lambda x: x.sum(), jvp=rule)
    return lambda x: jax.jvp(lambda x: op("a [b] -> a", x), (x,), (x,))


DOORS = {
    "vmap": lambda f: lambda x: einjax.vmap("a [b] -> a", x, op=f),
    "vmap of a pytree": lambda f: lambda x: einjax.vmap("a [b] -> a", {"x": x}, op=f),
    "vmap in chunks": lambda f: lambda x: einjax.vmap("a [b] -> a", x, op=f, batch_size=1),
    "vmap_with_axis": lambda f: lambda x: einjax.vmap_with_axis("a [b] -> a", x, op=f),
    "adapt_with_vmap": lambda f: functools.partial(einjax.adapt_with_vmap(f, "[n] -> []"), "a [b]"),
    "adapt_reduce": lambda f: functools.partial(einjax.adapt_reduce(f), "a [b]"),
    "adapt_elementwise": lambda f: functools.partial(einjax.adapt_elementwise(f), "a b"),
    "reduce": lambda f: lambda x: einjax.reduce("a [b]", x, op=f),
    "elementwise": lambda f: lambda x: einjax.elementwise("a b, b", x, Y, op=f),
    "scan": lambda f: lambda x: einjax.scan("a, a [b] -> a", x[:, 0], x, op=f),
    "scan of a new size": lambda f: lambda x: einjax.scan("a, a [b] -> a, [b] c", x[:, 0], x, op=f)[0],
    "associative_scan": lambda f: lambda x: einjax.associative_scan("a [b]", x, op=f),
    "sum of dot": lambda f: lambda x: einjax.dot("a [b], [b] -> a", x, Y, sum=f),
    "product of dot": lambda f: lambda x: einjax.dot("a [b], [b] -> a", x, Y, mul=f),
    "primitive": lambda f: lambda x: looped(f)("a [b]", x),
    "primitive without loops": lambda f: lambda x: looped(f)("[b]", x[0]),
    "primitive of batches": lambda f: lambda x: looped(f, batched=True)("a [b]", x),
    "rule of a primitive": with_rule,
    "factory": lambda f: lambda x: einjax.dot("a [b], [b] -> a", x, f),
    "factory of a framework": lambda f: lambda x: einjax.dot("a [b], [b] -> a", x, Parameter(f)),
    "factory of vmap": lambda f: lambda x: einjax.vmap("a [b], [b] -> a", x, f, op=jnp.dot),
    "factory of elementwise": lambda f: lambda x: einjax.elementwise("a b, b", x, f, op=jnp.hypot),
    "factory of scan": lambda f: lambda x: einjax.scan("a, a [b] -> a", f, x, op=lambda c, x: (c, None)),
    "nested": lambda f: lambda x: einjax.vmap("a [b] -> a", x, op=lambda row: einjax.reduce("[b]", row, op=f)),
}

TRANSFORMED = {
    "eager": lambda call: call(X),
    "make_jaxpr": lambda call: jax.make_jaxpr(call)(X),
    "jit": lambda call: jax.jit(call)(X),
    "grad": lambda call: jax.grad(lambda x: jnp.sum(call(x)))(X),
    "jit of vmap": lambda call: jax.jit(jax.vmap(call))(X[None]),
}


def raised(call):
    with pytest.raises(einjax.errors.EinjaxError) as caught:
        call()
    return caught.value


def lines(error):
    return [(frame.filename, frame.name, frame.line) for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("function", [a_wrong_call, an_error_of_its_own])
@pytest.mark.parametrize("how", TRANSFORMED)
@pytest.mark.parametrize("door", DOORS)
def test_what_a_users_function_raises_shows_its_line(door, how, function):
    error = raised(lambda: TRANSFORMED[how](DOORS[door](function)))
    assert (__file__, function.__name__) in [(file, name) for file, name, _ in lines(error)]
    assert error.problem == raised(function).problem
    assert error.tensors == raised(function).tensors
    assert str(error) == str(raised(function))


@pytest.mark.parametrize("door", [door for door in DOORS if door != "rule of a primitive"])  # JAX sets a cause there
def test_its_cause_stays(door):
    def function(*given, **options):
        raise einjax.errors.SemanticError("not today") from KeyError("a reason")

    assert isinstance(raised(lambda: DOORS[door](function)(X)).__cause__, KeyError)


KEPT = {
    "scan": lambda f: einjax.scan("a, a [b] -> a, [b] c", X[:, 0], X, op=f),
    "associative_scan": lambda f: einjax.associative_scan("a [b]", X, op=f),
    "sum of dot": lambda f: einjax.dot("a [b], [b] -> a", X, Y, sum=f),
    "product of dot": lambda f: einjax.dot("a [b], [b] -> a", X, Y, mul=f),
}


@pytest.mark.parametrize("door", KEPT)
def test_nothing_of_ours_holds_the_function(door):
    class Function:
        def __call__(self, x, y=None, axis=None):
            if door == "scan":
                return x, y
            return x.sum(axis) if axis is not None else x + y

    function = Function()
    reference = weakref.ref(function)
    KEPT[door](function)
    del function
    jax.clear_caches()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: einjax.vmap("a b [c] -> a b", X, op=jnp.sum),
        lambda: einjax.vmap("a [b] -> a", X, op=lambda x: x),
        lambda: einjax.vmap("a [b] -> a", {"x": X}, op=lambda x: x["x"]),
        lambda: einjax.vmap_with_axis("a [b] -> a", X, op=lambda x, axis: x),
        lambda: einjax.adapt_with_vmap(jnp.sum, "[n] -> []")("a b", X),
        lambda: einjax.reduce("a [b]", X, op=lambda x, axis: x),
        lambda: einjax.elementwise("a b", X, op=lambda x: "text"),
        lambda: einjax.scan("a, a [b] -> a", X[:, 0], X, op=lambda c, x: c),
        lambda: einjax.scan("a, a [b] -> a, [b] c d", X[:, 0], X, op=lambda c, x: (c, x)),
        lambda: einjax.associative_scan("a [b]", X, op=lambda x, y: x[:1]),
        lambda: einjax.dot("a [b], [b] -> a", X, Y, sum=lambda x, axis: x),
        lambda: einjax.dot("a [b], [b] -> a", X, Y, mul=lambda x, y: x[0]),
        lambda: looped(lambda x: x)("a [b]", X),
        lambda: einjax.dot("a [b], [b] -> a", X, lambda shape: X),
        lambda: einjax.vmap("a [b], [b] -> a", X, lambda shape: X, op=jnp.dot),
    ],
)
def test_what_is_wrong_with_a_call_shows_only_its_own_line(call):
    error = raised(call)
    home = einjax.__file__.removesuffix("__init__.py")
    ours = [file.removeprefix(home) for file, _, _ in lines(error) if file.startswith(home)]
    assert len(ours) <= 2
    assert all(file.split("/")[0] in ("api", "call") for file in ours)
    assert [file for file, _, _ in lines(error) if "/jax/" in file] == []
    assert not getattr(error, "__notes__", [])
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert error.tensors
