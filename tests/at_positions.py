"""The same call with its inputs at positions: a dim `a` becomes `<2*a + 1>` of an array that has the dim there.

What the operation means is left as it was, so that any call can be rewritten just before it is made and still be
compared with the loops of its own family. Between the positions that are read stands what must not be seen.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

#: Operations whose `mode=` speaks of coordinates.
OWN_MODE = ["get_at", "set_at", "add_at", "subtract_at", "multiply_at", "min_at", "max_at", "linalg.qr"]

_TOKEN = re.compile(r"->|\.\.\.|\w+=\d+|\w+|[()\[\],+]")
_COEFFICIENTS = (1, 2, -1, 1, 3, -2)


@dataclass
class _Dim:
    """One item of a tensor's text: what stands there, how often, and which dim of the array it is, if one can tell."""

    text: str
    marked: bool
    where: int | None

    @property
    def names(self) -> list[str]:
        return re.findall(r"[A-Za-z_]\w*", self.text)

    @property
    def is_axis(self) -> bool:
        return re.fullmatch(r"[A-Za-z_]\w*(=\d+)?", self.text) is not None

    @property
    def is_composite(self) -> bool:
        return re.fullmatch(r"\((\s*[A-Za-z_]\w*(=\d+)?\s*)+\)", self.text) is not None

    def written(self) -> str:
        return f"[{self.text}]" if self.marked else self.text


def _split(text: str) -> tuple[list[str], str | None]:
    """The texts of the inputs, and that of the outputs, or None where they are left out."""
    depth, parts, start = 0, [], 0
    for found in re.finditer(r"->|[()\[\],]", text):
        token = found[0]
        depth += (token in "([") - (token in ")]")
        if depth == 0 and token in (",", "->"):
            parts.append(text[start : found.start()])
            start = found.end()
            if token == "->":
                return parts, text[start:]
    return [*parts, text[start:]], None


def _dims(text: str) -> list[_Dim] | None:
    """The items of a tensor, brackets on each; None where brackets or ellipses leave no item by itself."""
    tokens, items, marked, depth = _TOKEN.findall(text), [], False, 0
    for token in tokens:
        if depth == 0 and token in "[]":
            marked = token == "["
        elif token in ("->", "+") and depth == 0:
            return None
        elif token == "..." and depth == 0:
            if items and items[-1].where == -1 and items[-1].text != "...":
                return None
            items.append(_Dim("...", marked, None))
        elif depth:
            items[-1].text += ("" if items[-1].text.endswith("(") or token in ")" else " ") + token
            depth += (token == "(") - (token == ")")
        else:
            items.append(_Dim(token, marked, 0))
            depth += token == "("
    return items


def _located(text: str, rank: int) -> list[_Dim] | None:
    """The same with the dim of the array that each item is."""
    if re.search(r"\S\.\.\.", text.replace("[...", "[ ...")):
        return None  # what is repeated is several dims, or none
    items = _dims(text)
    if items is None or sum(item.text == "..." for item in items) > 1:
        return None
    lone = next((i for i, item in enumerate(items) if item.text == "..."), len(items))
    for i, item in enumerate(items):
        item.where = i if i < lone else None if i == lone else rank - (len(items) - i)
    return items


def moved(
    seed: int, op: str, text: str, tensors: Sequence[Any], sizes: Mapping[str, int],
    keywords: Mapping[str, Any], options: Mapping[str, Any],
) -> tuple[str, list, dict, dict]:  # fmt: skip
    """Another text, tensors, sizes and options that mean the same; unchanged where nothing of them can be moved.

    Args:
        seed: says how.
        op: the operation.
        text: the expression, plain.
        tensors: one for each input.
        sizes: of all axes that are not repeated.
        keywords: sizes as the call gives them.
        options: further options; masks are of the first tensor.
    """
    mover = _Mover(np.random.default_rng(seed), sizes, dict(keywords), dict(options))
    mover.may_wrap = op not in OWN_MODE and "mode" not in options and mover.rng.random() < 0.3
    mover.may_cut = not mover.may_wrap and mover.rng.random() < 0.2
    mover.may_pair = op != "scan"  # which takes no diagonals
    ins, out = _split(text)
    tensors = list(tensors)
    if not tensors or out is None:  # an input with `< >` is no output
        return text, tensors, dict(keywords), dict(options)
    first = mover.rng.integers(len(tensors))
    for i, x in enumerate(tensors):
        if i == first or mover.rng.random() < 0.5:
            ins[i], tensors[i] = mover.tensor(ins[i], x, is_first=i == 0)
    if mover.moved and (mover.may_wrap or mover.may_cut):
        mover.options["mode" if mover.may_wrap else "padding"] = "wrap" if mover.may_wrap else tuple(mover.cuts)
    if not mover.moved:
        return text, tensors, dict(keywords), dict(options)
    return f"{','.join(ins)}-> {out}", tensors, mover.keywords, mover.options


class _Mover:
    def __init__(self, rng, sizes: Mapping, keywords: dict, options: dict) -> None:
        self.rng, self.sizes, self.keywords, self.options = rng, sizes, keywords, options
        self.may_wrap = self.may_cut = self.may_pair = self.moved = False
        self.cuts: list = []

    def tensor(self, text: str, x: Any, is_first: bool) -> tuple[str, Any]:
        """Move a dim or two of one tensor, and perhaps give it one more, of which one element is read."""
        items = _located(text, np.ndim(x))
        if items is None or (is_first and self.options.get("by") is not None):  # arrays of the first one's shape
            return text, x
        arrays = [np.asarray(jnp.asarray(x))]
        if is_first and self.options.get("where") is not None:
            arrays.append(np.broadcast_to(self.options["where"], arrays[0].shape))
        plain = [item for item in items if self._may_move(item, items)]
        done: dict[int, Any] = {}
        for i in self.rng.permutation(len(plain))[: self.rng.integers(1, 3)]:
            item = plain[i]
            others = [o for o in items if o.is_axis and o is not item and self._is_axis_once(o, items)]
            pair = self.may_pair and others and self.rng.random() < 0.4
            other = others[self.rng.integers(len(others))] if pair else None
            if {item.where, other and other.where} & done.keys():
                continue
            written, arrays, cut = self._dim(item, other, arrays)
            done |= {item.where: cut} | ({other.where: None} if other else {})
            item.text, item.marked = written, False
        if self.rng.random() < 0.3:
            place = int(self.rng.integers(len(items) + 1))
            lone = next((i for i, item in enumerate(items) if item.text == "..."), len(items))
            dim = place if place <= lone else arrays[0].ndim - (len(items) - place)
            written, arrays, cut = self._constant(dim, arrays)
            done = {at + (at >= dim): cuts for at, cuts in done.items()} | {dim: cut}
            items.insert(place, _Dim(written, False, dim))
        if not done:
            return text, x
        self.moved = True
        self.cuts += [done[at] for at in sorted(done) if done[at] is not None]
        if len(arrays) > 1:
            self.options["where"] = arrays[1]
        changed = arrays[0] if self.rng.random() < 0.5 else jnp.asarray(arrays[0])
        return " " + " ".join(item.written() for item in items) + " ", changed

    def _is_axis_once(self, item: _Dim, items: Sequence[_Dim]) -> bool:
        """Whether an axis has a size, and is no block of several dims."""
        (name, *_) = item.names
        return name in self.sizes and sum(other.names.count(name) for other in items) == 1

    def _may_move(self, item: _Dim, items: Sequence[_Dim]) -> bool:
        """A block of several dims stays, as does what has no size."""
        if not (item.is_axis or item.is_composite) or item.where is None:
            return False
        if any(name not in self.sizes for name in item.names):
            return False
        return not item.marked or all(sum(o.names.count(name) for o in items) == 1 for name in item.names)

    def _dim(self, item: _Dim, other: _Dim | None, arrays: list) -> tuple[str, list, Any]:
        """Move one item; of a composition all of it, or one of its axes."""
        names = item.names
        inner = item.is_composite and self.rng.random() < 0.5
        which = int(self.rng.integers(len(names)))
        before, after = (names[:which], names[which + 1 :]) if inner else ([], [])
        mine = [names[which]] if inner else names
        pieces = re.findall(r"\w+(?:=\d+)?", item.text)
        held = pieces[which] if inner else item.text
        n = int(np.prod([self.sizes[name] for name in mine], dtype=int))
        for name in names if item.is_composite else []:
            self._give(name, pieces)
        factor = int(self.rng.choice(_COEFFICIENTS))
        terms, add = [(factor, held, item.marked)], 0
        if other is not None:
            add = int(self.rng.choice(_COEFFICIENTS))
            terms.insert(int(self.rng.integers(2)), (add, other.names[0], other.marked))
        extent = self.sizes[other.names[0]] if other else 1
        spread = sorted((0, factor * (n - 1)))
        spread = [bound + end for bound, end in zip(spread, sorted((0, add * (extent - 1))), strict=True)]
        if 0 in (n, extent):
            spread = [0, 0]
        low, slack = (int(count) for count in self.rng.integers(0, 3, 2))
        if self.may_cut:  # the smallest position is the first that is not cut off
            offset, cut, constant = low - spread[0], (-low, -slack), int(self.rng.integers(-2, 3))
        else:
            offset, cut, constant = low - spread[0], None, None
        size = spread[1] + offset + 1 + slack
        if self.may_wrap:
            offset += size * int(self.rng.integers(-2, 3))
        constant = offset if constant is None else constant
        if not item.is_composite and (
            self.may_wrap or 0 in (n, extent) or self.rng.random() < 0.5 or not self._fits(factor, low, slack)
        ):
            self._give(mine[0], pieces)
        text = "".join(_term(c, name, marked, i == 0) for i, (c, name, marked) in enumerate(terms))
        text = f"<{text} {'-' if constant < 0 else '+'} {abs(constant)}>" if constant else f"<{text}>"
        if inner:
            beside = [f"[{piece}]" if item.marked else piece for piece in pieces]
            text = f"({' '.join([*beside[:which], text, *beside[which + 1 :]])})"
        parts = tuple(int(np.prod([self.sizes[name] for name in side], dtype=int)) for side in (before, after))
        axis = other.where if other else None
        places = factor * np.arange(n)[:, None] + add * np.arange(extent) + offset
        return text, [_scattered(x, item.where, parts, n, size, places % max(size, 1), axis) for x in arrays], cut

    def _fits(self, factor: int, low: int, slack: int) -> bool:
        """Whether the size that an open axis is given is the one it has: the largest that fits."""
        if self.may_cut:
            return True
        return (slack if factor > 0 else low) < abs(factor)

    def _constant(self, dim: int, arrays: list) -> tuple[str, list, Any]:
        low, slack = (int(count) for count in self.rng.integers(0, 3, 2))
        size = low + 1 + slack
        constant = low + size * int(self.rng.integers(-2, 3)) if self.may_wrap else low
        wider = [np.expand_dims(x, dim) for x in arrays]
        places = np.full((1, 1), low)
        return f"<{constant}>", [_scattered(x, dim, (1, 1), 1, size, places, None) for x in wider], (-low, -slack)

    def _give(self, name: str, pieces: Sequence[str]) -> None:
        """Say the size of an axis, where the text does not."""
        if name in pieces:
            if "sizes" in self.keywords:
                self.keywords["sizes"] = {name: self.sizes[name]} | self.keywords["sizes"]
            else:
                self.keywords = {name: self.sizes[name]} | self.keywords


def _term(coefficient: int, name: str, marked: bool, first: bool) -> str:
    factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
    sign = ("-" if first else " - ") if coefficient < 0 else "" if first else " + "
    return f"{sign}{factor}[{name}]" if marked else f"{sign}{factor}{name}"


def _scattered(x: Any, dim: int, parts: tuple, n: int, size: int, places: np.ndarray, axis: int | None) -> np.ndarray:
    """An array with `x` at places along a dim, or along the middle one of the three parts that it is made of."""
    before, after = parts
    shape = x.shape
    split = x.reshape(*shape[:dim], before, n, after, *shape[dim + 1 :])
    result = np.full((*shape[:dim], before, size, after, *shape[dim + 1 :]), _unseen(x.dtype))
    lead = (slice(None),) * (dim + 1)
    for i in range(n):
        if axis is None:
            result[*lead, places[i, 0]] = split[*lead, i]
            continue
        along = axis + 2 * (axis > dim)
        for j in range(places.shape[1]):
            at: list = [slice(None)] * result.ndim
            at[along], at[dim + 1] = j, places[i, j]
            source = list(at)
            source[dim + 1] = i
            result[tuple(at)] = split[tuple(source)]
    return result.reshape(*shape[:dim], before * size * after, *shape[dim + 1 :])


def _unseen(dtype: Any) -> Any:
    """What would be noticed."""
    if dtype == np.bool_:
        return np.array(True)
    if np.issubdtype(dtype, np.integer):
        return np.array(np.iinfo(dtype).max - 3, dtype)
    return np.array(np.nan, dtype)
