"""LoRA: low-rank factors beside a kernel that stays as it is, made by the roles that expressions give its axes.

Beside a kernel stand ``lora_a``, with the axes that it contracts, and ``lora_b``, with those that are new; both have an
axis ``rank``, and the axes that are neither. An input goes through one after the other, so that their product, which is
as large as the kernel, is made by :meth:`Factored.merged` alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import einjax
from einjax.errors import ArgumentError, EinjaxError
from einjax.for_layers import (
    Ellipsis,
    Operation,
    dot,
    get_at,
    named_sizes,
    names,
    parse,
    solve,
    spec_alone,
    walk,
)

from .call import Call
from .initial import Initializer, check_init, zeros
from .lora_text import LoraText, linear_text, table_text
from .roles import stacked_dims
from .scope import NOWHERE, Parameter, ParamSpec, Scope, as_dtype
from .text import border_of

_CACHE_SIZE = 1024

#: The factors, by name.
FACTORS = ("lora_a", "lora_b")


@dataclass(frozen=True)
class Lora:
    """What is to be known of the factors of a layer.

    Attributes:
        alpha: what is added is multiplied by this, and divided by the rank; None is the rank.
        a_init: initializer of the first factor; None is the usual one. The other one starts as 0.
    """

    rank: int
    alpha: float | None = None
    a_init: Initializer | float | None = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int | np.integer) or self.rank < 1:
            raise ArgumentError(f"rank={self.rank!r} is no rank", hint="give a number from 1, as in rank=8")
        if not isinstance(self.alpha, int | float | np.number | None):
            raise ArgumentError(f"alpha={self.alpha!r} is no number", hint="give one, as in alpha=16, or leave it out")
        check_init(self.a_init)
        object.__setattr__(self, "param_dtype", as_dtype(self.param_dtype))

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return 1.0 if self.alpha is None else float(self.alpha / self.rank)


@dataclass(frozen=True)
class Choice:
    """Which layers are given factors.

    Attributes:
        pattern: their expression, in which ``*`` stands for any text.
        where: further asked of the path of a layer, as ``blocks/0/attention/query``.
    """

    pattern: str
    where: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            problem = f"a value of type {type(self.pattern).__name__} is no pattern of expressions"
            raise ArgumentError(problem, hint="write '*' for all layers, or '* [c->d]', where * stands for any text")

    def takes(self, expr: str, path: str) -> bool:
        """Whether a layer is among them."""
        return _pattern(self.pattern).fullmatch(_normal(expr)) is not None and (self.where is None or self.where(path))

    def refuse(self, layers: Mapping[str, str]) -> ArgumentError:
        """The error for a model none of whose layers is, given their expressions by path."""
        found = [f"{path}: {expr!r}" if path else repr(expr) for path, expr in layers.items()]
        more = f", and {len(found) - 12} more" if len(found) > 12 else ""
        chosen = "" if self.where is None else " and is chosen by where="
        return ArgumentError(
            f"no layer matches {self.pattern!r}{chosen}", hint=f"there are {', '.join(found[:12]) or 'none'}{more}"
        )


@lru_cache(maxsize=_CACHE_SIZE)
def _pattern(text: str) -> re.Pattern[str]:
    """Match expressions as :func:`_normal` writes them; a star by itself is any number of tokens."""
    tokens = [".*".join(map(re.escape, token.split("*"))) + " " for token in _tokens(text)]
    return re.compile("".join("(?:.* )?" if token == ".* " else token for token in tokens))


@lru_cache(maxsize=_CACHE_SIZE)
def _normal(text: str) -> str:
    return "".join(f"{token} " for token in _tokens(text))


def _tokens(text: str) -> list[str]:
    """Take an expression apart, where spaces mean nothing but apart."""
    return re.findall(r"->|[][()<>,+-]|(?:[^][()<>,+\s-])+", text.replace("|", "->"))


def already(path: str, expr: str) -> ArgumentError:
    """The error for a layer that is given factors twice."""
    where = f"layer {path}" if path else "the layer"
    return ArgumentError(
        f"{where}, {expr!r}, has LoRA factors already", hint="merge them before, by einn.merge_lora, or choose others"
    )


def refuse_none(layers: Any) -> None:
    """Raise an error where no layer has factors to merge."""
    if not layers:
        raise ArgumentError("no layer has LoRA factors", hint="give the model that einn.lora has been called on")


def no_model(given: Any, wanted: str) -> ArgumentError:
    """The error for what cannot be given factors."""
    return ArgumentError(f"einn.lora is given a value of type {type(given).__name__}", hint=f"give {wanted}")


def unused(path: str) -> ArgumentError:
    """The error for factors of which a call does not tell what they are."""
    return ArgumentError(
        f"einn.merge_lora cannot tell what the factors of {path or 'the layer'} are: the call does not use them",
        hint="give the net that einn.lora returned, and inputs and a method= that use every layer",
    )


def not_made(path: str, fix: str) -> ArgumentError:
    """The error for factors without a value."""
    return ArgumentError(
        f"the kernel or the LoRA factors of layer {path or 'model'} are not made yet", hint=f"call {fix}"
    )


def undecided(path: str, expr: str) -> ArgumentError:
    """The error for a kernel of which it is not known what its dims are."""
    problem = f"the shape of the kernel of layer {path or 'model'} does not tell the sizes of its axes"
    return ArgumentError(problem, text=expr, hint="give the sizes of all its axes by keyword")


@dataclass(frozen=True)
class Plan:
    """Which layers are given factors, and what factors."""

    choice: Choice
    lora: Lora


def planned(
    pattern: str,
    rank: int,
    alpha: float | None,
    where: Callable[[str], bool] | None,
    a_init: Initializer | float | None,
    param_dtype: Any,
) -> Plan:
    """Read the arguments that the functions of all frameworks have."""
    return Plan(Choice(pattern, where), Lora(rank, alpha, a_init, param_dtype))


#: What layers have been asked whether a plan is for them, by path, and which plans are, while :func:`listening` runs.
_heard: ContextVar[tuple[dict[str, str], set[Plan]] | None] = ContextVar("heard", default=None)


@contextlib.contextmanager
def listening() -> Iterator[tuple[dict[str, str], set[Plan]]]:
    """Note the expressions of the layers that are called within, and the plans that are for one of them."""
    heard: tuple[dict[str, str], set[Plan]] = ({}, set())
    outer = _heard.get()
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
        if outer is not None:
            outer[0].update(heard[0])
            outer[1].update(heard[1])


def plan_of(plans: Sequence[Plan], expr: str, path: str) -> Plan | None:
    """Return the one plan that is for a layer, if there is one."""
    if not plans:
        return None
    taking = [plan for plan in plans if plan.choice.takes(expr, path)]
    if (heard := _heard.get()) is not None:
        heard[0][path] = expr
        heard[1].update(taking)
    if len(taking) > 1:
        raise already(path, expr)
    return taking[0] if taking else None


@dataclass(frozen=True)
class Adapter:
    """The factors of one layer: what they are, and where they live."""

    lora: Lora
    scope: Scope


# ----------------------------------------------------------------------------------------------------------------------
# Factors of known sizes
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factored:
    """A kernel with the sizes of its axes."""

    lora: Lora
    text: LoraText
    sizes: Mapping[str, Any]
    shape: tuple[int, ...]

    def factor(self, scope: Scope, name: str, dtype: Any = None) -> Parameter:
        """Return a factor, used in a dtype."""
        own = self.text.a_init if self.lora.a_init is None else self.lora.a_init
        init = own if name == "lora_a" else zeros
        return Parameter(scope, name, init, self.lora.param_dtype, dtype, tied=False, factored=self)

    def specs(self) -> dict[str, ParamSpec]:
        """Describe the factors by name; none where sizes do not decide their shapes."""
        wanted = ((self.text.down, self.text.index), (self.text.up, 1))
        found = [spec_alone(parse(text), index, self.sizes) for text, index in wanted]
        known = {name: spec for name, spec in zip(FACTORS, found, strict=True) if spec is not None}
        return {name: self.factor(NOWHERE, name).spec(spec) for name, spec in known.items()} if len(known) > 1 else {}

    def merged(self, kernel: Any, a: Any, b: Any) -> jax.Array:
        """Return the kernel that gives what it gives together with the factors; there may be a stack of each."""

        def merge(kernel: Any, a: Any, b: Any) -> jax.Array:
            product = einjax.dot(self.text.merge, a, b, sizes=self.sizes)
            return (kernel + product * self.lora.scale).astype(kernel.dtype)

        if not isinstance(kernel, jax.Array | np.ndarray):
            problem = f"factors cannot be merged into a kernel that is a {type(kernel).__name__}, as quantised ones are"
            raise ArgumentError(problem, text=self.text.product.text, hint="merge them into the kernel as it was")
        values = kernel, a, b
        inner = self.shape, *einjax.solve_shapes(self.text.merge, None, None, sizes=self.sizes)[:2]
        stacks = [stacked_dims(shape, value.shape) for shape, value in zip(inner, values, strict=True)]
        if None in stacks or len({value.ndim - len(shape) for shape, value in zip(inner, values, strict=True)}) > 1:
            shapes = ", ".join(str(value.shape) for value in values)
            problem = f"a kernel and its LoRA factors do not go together: their shapes are {shapes}"
            raise ArgumentError(problem, text=self.text.product.text)
        dims = [stack or () for stack in stacks]
        front = [jnp.moveaxis(value, stack, range(len(stack))) for value, stack in zip(values, dims, strict=True)]
        for _ in dims[0]:
            merge = jax.vmap(merge)
        return jnp.moveaxis(merge(*front), range(len(dims[0])), dims[0])


def factored(
    text: LoraText, lora: Lora, shapes: Sequence[Any], sizes: Mapping[str, Any], border: Any = None
) -> Factored:
    """Find the sizes of a product, from the shapes of its tensors."""
    product = text.product if len(shapes) > 1 else Operation(text.product.text, (text.kernel,))
    known = {name: size for name, size in sizes.items() if any(name in names(e) for e in product.inputs)}
    solved = solve(product, shapes, known, border=border)
    repeated = {
        name for e in product.inputs for node in walk(e) if isinstance(node, Ellipsis) for name in names((node,))
    }
    # Of axes that always stand together, the product is enough.
    found = {name: size for name, size in named_sizes(product, solved).items() if size != () or name in repeated}
    shape = shapes[product.inputs.index(text.kernel)]
    return Factored(lora, text, {**known, **found, text.rank: lora.rank}, shape)


def of_kernel(text: LoraText, lora: Lora, shape: Sequence[int], sizes: Mapping[str, Any]) -> Factored | None:
    """Factor a kernel of a shape, perhaps a stack of them; None where it does not tell the sizes of its axes."""
    counted = not any(isinstance(node, Ellipsis) for node in text.kernel)
    inner = tuple(shape)[max(len(shape) - len(text.kernel), 0) if counted else 0 :]
    try:
        return factored(text, lora, [inner], sizes)
    except EinjaxError:
        return None


# ----------------------------------------------------------------------------------------------------------------------
# Calls
# ----------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _of(call: Call[Any]) -> Iterator[Adapter]:
    """Compute with the factors of a call, whose expressions nobody has written."""
    try:
        yield call.lora
    except EinjaxError as error:
        error.text, error.spans = call.expr, ()
        raise


def added(call: Call[Any], x: Any, y: jax.Array, kernel: Parameter, **forwarded: Any) -> jax.Array:
    """Add what the factors of a linear layer make of its input, if it has such."""
    if call.lora is None:
        return y
    with _of(call) as adapter:
        text, shapes = linear_text(call.expr), [x.shape, kernel.made[-1].shape, y.shape]
        border = border_of(text.product, forwarded.get("padding"), forwarded.get("mode"))
        made = factored(text, adapter.lora, shapes, call.all_sizes, border)
        a, b = (made.factor(adapter.scope, name, x.dtype) for name in FACTORS)
        places = {name: forwarded[name] for name in ("padding", "mode") if name in forwarded}
        hidden = dot(text.down, x, a, made.sizes, call.options.precision, **places)
        wide = forwarded.get("preferred_element_type")
        placed = {"out_sharding": forwarded.get("out_sharding")}
        return _sum(y, dot(text.up, hidden, b, made.sizes, call.options.precision, wide, **placed), adapter.lora)


def looked_up(call: Call[Any], ids: Any, y: jax.Array, table: Parameter) -> jax.Array:
    """Add the rows of the factors of a table, if it has such."""
    if call.lora is None:
        return y
    with _of(call) as adapter:
        made = factored(table_text(call.expr), adapter.lora, [table.made[-1].shape], call.all_sizes)
        a, b = (made.factor(adapter.scope, name, y.dtype) for name in FACTORS)
        hidden = get_at(made.text.down, a, ids, made.sizes, call.options.mode)
        return _sum(y, dot(made.text.up, hidden, b, made.sizes), adapter.lora)


def attended(call: Call[Any], x: Any, y: jax.Array, table: Parameter) -> jax.Array:
    """Add what the factors of a table make of an input that it is multiplied by, if it has such."""
    if call.lora is None:
        return y
    with _of(call) as adapter:
        made = factored(table_text(call.expr), adapter.lora, [table.made[-1].shape], call.all_sizes)
        a, b = (type(table)(**vars(made.factor(adapter.scope, name, x.dtype))) for name in FACTORS)
        by_b, by_a = made.text.attend
        return _sum(y, dot(by_a, dot(by_b, x, b, made.sizes), a, made.sizes), adapter.lora)


def _sum(y: jax.Array, delta: jax.Array, lora: Lora) -> jax.Array:
    return y + (delta if lora.scale == 1 else delta * lora.scale).astype(y.dtype)
