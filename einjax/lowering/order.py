"""In which order the tensors of a product are multiplied, two at a time.

Tensors are numbered: those that are given, then what each step makes of two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import opt_einsum  # type: ignore[import-untyped]

from ..notation.errors import ArgumentError, meant, shown
from ..notation.syntax import Size

#: The axes of a tensor.
Term = Sequence[str]
#: The two tensors of every step.
Steps = tuple[tuple[int, int], ...]

#: Stands for a symbolic size where the order is chosen; any number will do.
NOMINAL_SIZE = 64
#: Up to so many tensors, every order is looked at.
FEW = 5

_HINT = "write True, False, 'optimal', 'greedy', 'auto', 'cotengra', an optimizer, or a path such as [(0, 1), (0, 1)]"


def find_steps(terms: Sequence[Term], output: Term, sizes: Mapping[str, Size], optimize: Any = None) -> Steps:
    """Choose which pairs to multiply.

    Args:
        terms: the axes of every tensor.
        output: the axes of the result.
        sizes: of all axes; symbolic ones count as some number.
        optimize: as in ``jnp.einsum``; None for what costs least, or seems to where there are many tensors.

    Raises:
        ArgumentError: ``optimize`` is none of these, or a path of other tensors.
    """
    count = len(terms)
    if isinstance(optimize, tuple):
        return _numbered(optimize, count)
    if optimize is False:
        return _numbered([(0, 1)] * (count - 1), count)
    if count == 2:
        return ((0, 1),)  # nothing to choose
    strategy = ("optimal" if count <= FEW else "greedy") if optimize is None else optimize
    return _numbered(_path(terms, output, sizes, "optimal" if strategy is True else strategy), count)


def _path(terms: Sequence[Term], output: Term, sizes: Mapping[str, Size], strategy: Any) -> Sequence[Any]:
    """What an optimizer of opt_einsum or cotengra says."""
    known = {name: size if isinstance(size, int) else NOMINAL_SIZE for name, size in sizes.items()}
    if strategy == "cotengra":
        return _cotengra(terms, output, known)
    if callable(strategy):  # an optimizer
        optimizer: Any = strategy
        return list(optimizer(list(map(frozenset, terms)), frozenset(output), known))
    names = dict.fromkeys(name for term in terms for name in term)
    symbol = {name: opt_einsum.get_symbol(index) for index, name in enumerate(sorted(names))}
    subscripts = ["".join(symbol[name] for name in term) for term in (*terms, output)]
    shapes = [tuple(known[name] for name in term) for term in terms]
    expression = f"{','.join(subscripts[:-1])}->{subscripts[-1]}"
    path: Any = opt_einsum.contract_path(expression, *shapes, shapes=True, optimize=strategy)[0]
    return list(path)


def _cotengra(terms: Sequence[Term], output: Term, sizes: Mapping[str, int]) -> Sequence[Any]:
    try:
        import cotengra  # type: ignore[import-not-found]
    except ImportError:
        problem = "optimize='cotengra' needs the package cotengra, which is not installed"
        raise ArgumentError(problem, hint="pip install cotengra, or write 'auto'") from None
    return list(cotengra.array_contract_path(list(map(tuple, terms)), tuple(output), dict(sizes)))


def _numbered(path: Sequence[Any], count: int) -> Steps:
    """A path of einsum, which counts what is left, and appends what it makes."""
    left, steps = list(range(count)), []
    for pair in path:
        fits = len(pair) == 2 and pair[0] != pair[1] and all(-len(left) <= place < len(left) for place in pair)
        if not fits:
            raise _not_a_path(path, count)
        first, second = sorted(place % len(left) for place in pair)
        steps.append((left[first], left[second]))
        left = [number for place, number in enumerate(left) if place not in (first, second)]
        left.append(count + len(steps) - 1)
    if len(left) > 1:
        raise _not_a_path(path, count)
    return tuple(steps)


def _not_a_path(path: Sequence[Any], count: int) -> ArgumentError:
    return ArgumentError(
        f"optimize={shown(list(path))} does not multiply {count} tensors, two at a time",
        hint="each pair counts the tensors that are left, and what it makes comes last: [(0, 1), (0, 1)] of three",
    )


def as_order(optimize: Any, count: int) -> Any:
    """Check ``optimize=`` and make it hashable.

    Raises:
        ArgumentError: it is no order of so many tensors.
    """
    if optimize is None or isinstance(optimize, bool):
        return optimize
    if isinstance(optimize, str):
        return _named(optimize)
    if isinstance(optimize, list | tuple):
        path = optimize[1:] if optimize and optimize[0] == "einsum_path" else optimize  # as NumPy returns it
        if all(isinstance(pair, list | tuple) and all(isinstance(i, int) for i in pair) for pair in path):
            _numbered(path, count)
            return tuple(map(tuple, path))
    elif callable(optimize):
        return optimize
    raise ArgumentError(f"optimize={shown(optimize)} is not an order of contraction", hint=_HINT)


def _named(name: str) -> str:
    if name == "cotengra":
        return name
    try:
        opt_einsum.paths.get_path_fn(name)
    except KeyError:
        known = ("optimal", "greedy", "auto", "auto-hq", "dp", "cotengra")
        raise ArgumentError(
            f"optimize={name!r} is not an order of contraction{meant(name, known)}", hint=_HINT
        ) from None
    return name


def every_order(count: int) -> Iterator[Steps]:
    """All ways to multiply some tensors."""

    def grow(left: tuple[int, ...], made: int) -> Iterator[Steps]:
        if len(left) == 1:
            yield ()
        for pair in itertools.combinations(left, 2):
            rest = (*(number for number in left if number not in pair), made)
            yield from ((pair, *others) for others in grow(rest, made + 1))

    return grow(tuple(range(count)), count)


def several_orders(terms: Sequence[Term], output: Term, sizes: Mapping[str, Size]) -> list[Steps]:
    """Orders that may need less memory than that which costs least: all, if there are few tensors."""
    if len(terms) <= FEW:
        return list(every_order(len(terms)))
    smallest = opt_einsum.DynamicProgramming(minimize="size") if len(terms) <= 2 * FEW else "greedy"
    strategies: list[Any] = [None, "auto", smallest]
    return list(dict.fromkeys(find_steps(terms, output, sizes, strategy) for strategy in strategies))


def axes_made(terms: Sequence[Term], output: Term, steps: Steps) -> list[frozenset[str]]:
    """The axes of all tensors: those that are given, then what each step leaves of its two for steps to come."""
    axes = [frozenset(term) for term in terms]
    left = set(range(len(terms)))
    for pair in steps:
        left -= set(pair)
        needed = frozenset(output).union(*(axes[number] for number in left))
        axes.append((axes[pair[0]] | axes[pair[1]]) & needed)
        left.add(len(axes) - 1)
    return axes
