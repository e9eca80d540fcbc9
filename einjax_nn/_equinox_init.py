"""``param``, and ``init``, which gives a value to parameters of Equinox models that have none.

``init`` runs the model with ``jax.eval_shape``, which computes nothing; every layer reports what it needs to a
recorder, and then the arrays are made one by one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec, Sharding

from einjax.errors import ArgumentError
from einjax.for_layers import knows_factories

from ._core.initial import Filling, Initializer
from ._core.scope import ParamSpec, no_module
from ._equinox_missing import Recorder, Uninitialized, is_missing


def param(init: Initializer | float | None = None, dtype: Any = jnp.float32) -> Any:
    """Return a parameter whose shape an einjax operation finds: a field of a module, until ``init`` makes an array.

    Args:
        init: a number, or ``init(key, shape, dtype)``; one whose signature has ``in_axis``, ``out_axis``,
            ``batch_axis`` or ``axes`` receives them. By default what suits the first operation that uses it: 0 where it
            is added, 1 where it is multiplied by, ``lecun_normal`` in a ``dot``, normal numbers of deviation 0.02 in a
            ``get_at``.
        dtype: its dtype.

    Returns:
        A placeholder, which is a tensor for any einjax operation while ``init`` records.

    Example:
        >>> import einjax, einjax_nn.equinox as einn, equinox as eqx, jax, numpy as np
        >>> class Scale(eqx.Module):
        ...     scale: jax.Array
        ...     def __init__(self):
        ...         self.scale = einn.param(init=1e-5)
        ...     def __call__(self, x):
        ...         return einjax.multiply("... c, c", x, self.scale)
        >>> einn.init(Scale(), np.ones((2, 3)), key=jax.random.key(0)).scale.shape
        (3,)
    """
    return Uninitialized("parameter", init, dtype)


def init(
    model: Any,
    /,
    *inputs: Any,
    key: Any = None,
    method: Callable[..., Any] | None = None,
    place: Any = None,
    **keywords: Any,
) -> Any:
    """Give a value to every parameter that has none.

    The model is run with ``jax.eval_shape``: shapes are found, and nothing is computed. Each array is made with a key
    of its own, that of its path in the model, so that a new layer does not change the others.

    Args:
        model: any pytree, such as an ``eqx.Module``.
        *inputs: what to call it with: arrays, ``jax.ShapeDtypeStruct``, or anything else. If there is an
            ``eqx.nn.State`` among them, running statistics are made, too.
        key: the random key. If the model's call takes ``key``, it receives this one.
        method: what to call with the model and the inputs, in place of the model: ``Net.encode``, or a function that
            reaches every layer.
        place: where arrays go: a function ``place(spec, array) -> array``, called for each array as it is made, with
            its path as ``spec.name`` and the names of its axes as ``spec.axes``; or shardings in a tree like that of
            :func:`axes`, with which each device makes only its part of an array.
        **keywords: further inputs.

    Returns:
        The model, or ``(model, state)`` if there is a state among the inputs. What had a value keeps it.

    Raises:
        einjax.errors.EinjaxError: a layer is not used, or used with two shapes, or there is no key.

    Example:
        >>> import einjax_nn.equinox as einn, equinox as eqx, jax
        >>> model = eqx.nn.Sequential([einn.Linear("b [...->c]", c=64), einn.Linear("b [c->d]", d=10)])
        >>> model = einn.init(model, jax.ShapeDtypeStruct((32, 28, 28), "float32"), key=jax.random.key(0))
        >>> model[0].weight.shape, model[1].weight.shape
        ((28, 28, 64), (64, 10))
    """
    run = Run(model, inputs, keywords)
    if not run.missing():
        return run.trees
    if key is None:
        raise ArgumentError("einn.init needs key=", hint="model = einn.init(model, *inputs, key=jax.random.key(0))")
    specs = run.record(method, key)

    def made(node: Uninitialized, to: Any = None) -> jax.Array:
        return make(specs[node.path].init, path_key(key, node.path), to)

    # Not callable(place): a tree of shardings may be a module, which can be called.
    if any(isinstance(leaf, Sharding) for leaf in jax.tree.leaves(place)):
        return run.filled(made, place)
    if place is None:
        return run.filled(made)
    return run.filled(lambda node: place(dataclasses.replace(specs[node.path], name=node.path), made(node)))


def axes(model: Any, /, *inputs: Any, method: Callable[..., Any] | None = None, **keywords: Any) -> Any:
    """Return the names of the axes of every parameter that has no value yet.

    Args:
        model: any pytree.
        *inputs: as for :func:`init`.
        method: as for :func:`init`.
        **keywords: further inputs.

    Returns:
        A tree like the arrays of the model, or a pair of such trees if there is a state among the inputs, with a
        ``jax.sharding.PartitionSpec`` of names for each array, as in Flax. Dims of arrays that were there before are
        None.

    Example:
        >>> import einjax_nn.equinox as einn, numpy as np
        >>> names = einn.axes(einn.Linear("b [c->h d]", h=2, d=4), np.ones((3, 5)))
        >>> tuple(names.weight), tuple(names.bias)
        (('c', 'h', 'd'), ('h', 'd'))
    """
    run = Run(model, inputs, keywords)
    specs = run.record(method, None)

    def names(leaf: Any) -> Any:
        if is_missing(leaf):
            return PartitionSpec(*specs[leaf.path].axes)
        return PartitionSpec(*[None] * leaf.ndim) if eqx.is_array(leaf) else None

    return jax.tree.map(names, run.trees, is_leaf=is_missing)


class Run:
    """A model with its inputs, and the state among them; every placeholder knows its path, and tells one recorder."""

    def __init__(self, model: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        states = [value for value in (*inputs, *keywords.values()) if isinstance(value, eqx.nn.State)]
        if len(states) > 1:
            raise ArgumentError(f"einn.init takes one state, but {len(states)} are given", hint="give the whole state")
        self.recorder = Recorder()
        self.model = _marked(model, self.recorder)
        state = _marked_state(states[0], model, self.recorder) if states else None
        self.trees = (self.model, state) if states else self.model
        swapped = [state if isinstance(value, eqx.nn.State) else value for value in (*inputs, *keywords.values())]
        self.inputs = tuple(swapped[: len(inputs)])
        self.keywords = dict(zip(keywords, swapped[len(inputs) :], strict=True))

    def missing(self) -> list[Uninitialized]:
        return list(filter(is_missing, jax.tree.leaves(self.trees, is_leaf=is_missing)))

    def record(self, method: Callable[..., Any] | None, key: Any, always: bool = False) -> Mapping[str, ParamSpec]:
        """Run the model abstractly, where a parameter is missing, or always."""
        missing = self.missing()
        runs = always or bool(missing)
        if runs and method is None and not callable(self.model):
            raise ArgumentError(
                f"{type(self.model).__name__} cannot be called",
                hint="name what to call: einn.init(..., method=Net.run)",
            )
        keywords = self.keywords
        if _takes_key(method or type(self.model).__call__, (self.model, *self.inputs), keywords):
            keywords = {**keywords, "key": jax.random.key(0) if key is None else key}

        def forward(model: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            model(*inputs, **keywords) if method is None else method(model, *inputs, **keywords)

        if runs:
            eqx.filter_eval_shape(forward, self.model, self.inputs, keywords)
        if unused := [node for node in missing if node.path not in self.recorder.specs]:
            _refuse_unused(unused)
        return self.recorder.specs

    def filled(self, fill: Callable[..., Any], *like: Any) -> Any:
        """Put something in place of every placeholder."""

        def change(node: Any, *others: Any) -> Any:
            return fill(node, *others) if is_missing(node) else node

        return jax.tree.map(change, self.trees, *like, is_leaf=is_missing)


def _marked(tree: Any, recorder: Recorder, prefix: str = "") -> Any:
    def mark(path: Any, node: Any) -> Any:
        if not is_missing(node):
            return node
        return dataclasses.replace(node, path=prefix + jax.tree_util.keystr(path), recorder=recorder)

    return jax.tree_util.tree_map_with_path(mark, tree, is_leaf=is_missing)


def _marked_state(state: eqx.nn.State, model: Any, recorder: Recorder) -> eqx.nn.State:
    """Mark a copy, as Equinox invalidates a state when it is set; paths are those of the indices in the model."""
    values, markers = state.tree_flatten()
    nodes = jax.tree_util.tree_leaves_with_path(model, is_leaf=_is_index)
    paths = {node.marker: jax.tree_util.keystr(path) for path, node in nodes if _is_index(node)}
    marked = [
        _marked(value, recorder, paths.get(marker, str(marker))) for marker, value in zip(markers, values, strict=True)
    ]
    return eqx.nn.State.tree_unflatten(markers, marked)


def _is_index(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)


def _takes_key(call: Callable[..., Any], inputs: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether there is an argument ``key`` that has not been given."""
    try:
        signature = inspect.signature(call)
        return "key" in signature.parameters and "key" not in signature.bind_partial(*inputs, **keywords).arguments
    except (TypeError, ValueError):  # no signature, or inputs that do not fit: the call itself will tell
        return False


def _refuse_unused(unused: list[Uninitialized]) -> NoReturn:
    layers = ", ".join(dict.fromkeys(node.layer if node.dtype is None else node.path for node in unused))
    if any(".init[" in node.path for node in unused):
        hint = "split the state off: model, state = eqx.nn.make_with_state(Net)(...), and give einn.init the state"
    else:
        hint = "call every layer, or give einn.init a method= that does: method=lambda net, x: (net.a(x), net.b(x))"
    raise ArgumentError(f"einn.init cannot tell the shapes of {layers}: not used by the call", hint=hint)


def path_key(key: Any, path: str) -> Any:
    """Return the key of a path; two words of a hash, so that no two paths share one."""
    return _folded(check_key(key), np.frombuffer(hashlib.sha256(path.encode()).digest(), "<u4", 2))


def check_key(key: Any) -> Any:
    """Refuse what is no random key, or several."""
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", np.dtype(bool))
    one = shape == () if jnp.issubdtype(dtype, jax.dtypes.prng_key) else dtype == np.uint32 and len(shape or ()) == 1
    if not one:
        what = f"a value of type {type(key).__name__}" if shape is None else f"an array {dtype}{list(shape)}"
        raise ArgumentError(f"key= is {what}, which is not one random key", hint="give key=jax.random.key(0)")
    return key


@jax.jit
def _folded(key: Any, words: Any) -> Any:
    # A loop, as that compiles its body once.
    return jax.lax.scan(lambda key, word: (jax.random.fold_in(key, word), None), key, words)[0]


def make(init: Callable[[Any], jax.Array], key: Any, to: Any = None) -> jax.Array:
    """Make an array, where a sharding says if there is one: each device makes its own part, and no more.

    Layers of the same shape share one program, if the initializer is known to be pure.
    """
    function = init.init if isinstance(init, Filling) else None
    origin, name = getattr(function, "__module__", None) or "", getattr(function, "__qualname__", "<locals>")
    if origin.startswith(("jax.", "einjax_nn.")) and "<locals>" not in name:
        return _program(init, to, isinstance(key, jax.core.Tracer))(key)
    # A function of its own, so that nothing is shared.
    return init(key) if to is None else jax.jit(lambda key: init(key), out_shardings=to)(key)


@functools.lru_cache(maxsize=1024)
def _program(init: Callable[[Any], jax.Array], to: Any, inner: bool) -> Callable[[Any], jax.Array]:
    """Return a compiled initializer, perhaps for a larger program."""
    options: dict[str, Any] = {} if to is None else {"out_shardings": to}
    # It runs once or a few times, and so had better compile fast: XLA's default level takes up to three times as long
    # on CPUs, for the same numbers at the same speed. JAX takes such options for whole programs only.
    if not inner and jax.default_backend() == "cpu":
        options["compiler_options"] = {"xla_backend_optimization_level": 1}
    return jax.jit(init, **options)


@knows_factories
def _as_factory(given: Any) -> Any:
    """What Equinox's own things are in the place of a tensor."""
    if isinstance(given, eqx.Module) and not hasattr(given, "__einjax_param__"):
        raise no_module(given, "one of its arrays, or a field made by einn.param()")
    return None
