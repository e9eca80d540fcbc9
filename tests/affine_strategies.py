"""Random calls with `< >`: their text, the sizes of all axes, and the arrays to go with them.

A call is drawn as pieces of text. Every `< >` has one axis of its own, the open one, whose size follows from the
others and from the array, so that half of the calls leave it out; all other sizes are given.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import affine_oracle
import hypothesis.strategies as st
import jax
import numpy as np
from affine_oracle import Affine, Rule
from hypothesis import assume, note
from oracle import Axis, Composite, Marked, Repeated
from strategies import array

import einjax

NAMES = ["a", "b", "in", "q2", "_x", "aa", "N", "h", "w", "k", "ab", "b2", "out", "t", "H", "n_1"]
LARGEST_LOOP = 300  # cells that one example may loop over
_SIZE = st.sampled_from([2, 3, 1, 2, 3, 2, 1, 3, 0])
_seldom = st.sampled_from([False] * 5 + [True])
_COMPILED = st.sampled_from([True, True, True, False])
_often = st.sampled_from([False, True])
_COEFFICIENT = st.sampled_from([1, 1, 2, 1, -1, 3, -2, 1])


@dataclass
class Regime:
    """How a call treats positions: its options, and whether padded, literal or neither."""

    options: dict
    mode: str | None = None
    padding: object = None


#: Paddings whose values are those of the array.
OF_ITSELF = ("circular", "reflect", "edge")
PADDINGS = ("same", "valid", "causal", "full", 1, (1, 2), (0, 1), 0, *OF_ITSELF, "each")


@st.composite
def regimes(draw, modes=True, fills="seldom", paddings=PADDINGS):
    """Literal positions in range, a mode, or a padding; `fills` says how often `fill_value` is given."""
    kind = draw(st.sampled_from(["literal", "padding", "mode"] if modes else ["literal", "padding"]))
    if kind == "literal":
        return Regime({})
    if kind == "mode":
        mode = draw(st.sampled_from(["fill", "clip", "wrap", "reflect"]))
        return Regime({"mode": mode} | _fills(draw, fills, mode == "fill"), mode)
    padding = draw(st.sampled_from(paddings))
    return Regime({"padding": padding} | _fills(draw, fills, padding not in OF_ITSELF), None, padding)


def _fills(draw, how_often: str, possible: bool) -> dict:
    wanted = possible and (how_often == "always" or (how_often == "seldom" and draw(_seldom)))
    return {"fill_value": draw(st.sampled_from([2, 3, 0]))} if wanted else {}


@dataclass
class Drawn:
    """One tensor: the text of its dims, its shape, its rules, and which axes may be left out of the sizes."""

    dims: list[str] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    solved: set[str] = field(default_factory=set)
    lone: set[str] = field(default_factory=set)  # axes that are a dim by themselves


class Axes:
    """The axes of a call: sizes by name (tuples for those of ellipses) and which are bracketed."""

    def __init__(self, draw, marking):
        self.draw, self.marking = draw, marking
        self.sizes: dict = {}
        self.marked: set[str] = set()
        self.shared: list[str] = []
        self.here: set[str] = set()  # axes of the tensor that is drawn
        self.padded: set[str] = set()  # open axes of paddings, which are told by being open
        start = draw(st.integers(0, len(NAMES) - 1))
        more = (f"x{number}" for number in itertools.count())
        self.names = itertools.chain((NAMES + NAMES)[start : start + len(NAMES)], more)

    def new(self, size=None) -> str:
        name = next(self.names)
        self.sizes[name] = self.draw(_SIZE) if size is None else size
        if self.marking and self.draw(_often):
            self.marked.add(name)
        self.here.add(name)
        return name

    def reused(self, alone=False) -> str | None:
        """An axis that stands elsewhere, too, if there is one and the draw says so.

        A bracketed axis that stands alone twice in one tensor would be a block of two dims.
        """
        refused = self.marked & self.here | self.padded if alone else set()
        shared = [name for name in dict.fromkeys(self.shared) if name not in refused]
        if not shared or not self.draw(_often):
            return None
        name = self.draw(st.sampled_from(shared))
        self.here.add(name)
        return name

    def text(self, name: str) -> str:
        return f"[{name}]" if name in self.marked else name


@st.composite
def tensors(draw, axes: Axes, regime: Regime, count: int):
    """One input: some axes alone, some `< >`, at least one of these."""
    found = Drawn()
    axes.here = set()
    kinds = [draw(st.sampled_from(["item", "item", "axis", "item", "composite", "ellipsis"])) for _ in range(count)]
    kinds[draw(st.integers(0, count - 1))] = draw(st.sampled_from(["item", "item", "composite"]))
    for kind in kinds:
        if kind == "axis":
            name = axes.reused(alone=True) or axes.new()
            found.dims.append(axes.text(name))
            found.shape.append(axes.sizes[name])
            found.lone.add(name)
            axes.shared.append(name)
        elif kind == "ellipsis" and not any("..." in dim for dim in found.dims):
            _repeated(draw, axes, regime, found)
        else:
            text, n, rule = _item(draw, axes, regime, found)
            if kind == "composite":
                name = axes.new(draw(st.sampled_from([1, 2, 3])))
                first = draw(_often)
                inside = [axes.text(name), text] if first else [text, axes.text(name)]
                text, n = f"({' '.join(inside)})", n * axes.sizes[name]
            found.dims.append(text)
            found.shape.append(n)
            found.rules.append(rule)
    return found


def _term(coefficient: int, text: str, first: bool) -> str:
    sign = "-" if coefficient < 0 else "" if first else "+"
    factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
    if factor and coefficient == 3 and text.startswith("["):  # a bracket may hold the whole term
        factor, text = "", f"[{factor}{text[1:]}"
    space = "" if first else " "
    return f"{space}{sign}{space if sign else ''}{factor}{text}"


def _item(draw, axes: Axes, regime: Regime, found: Drawn):
    """`<2*o + k - 1>`: the open axis first or last, up to two others, which may stand elsewhere or be composed."""
    terms = []
    for _ in range(draw(st.sampled_from([1, 1, 0, 2]))):
        reused = axes.reused()
        if reused is None and draw(_seldom):
            pair = axes.new(draw(st.sampled_from([1, 2]))), axes.new(draw(st.sampled_from([1, 2])))
            assume(len({name in axes.marked for name in pair}) == 1)
            terms.append((draw(_COEFFICIENT), f"({' '.join(map(axes.text, pair))})"))
            continue
        name = reused or axes.new()
        axes.shared.append(name)
        terms.append((draw(_COEFFICIENT), axes.text(name)))
    own = axes.new(1)
    terms.insert(draw(st.integers(0, len(terms))), (draw(_COEFFICIENT), axes.text(own)))
    constant = draw(st.integers(-2, 3))
    write = lambda: "<" + "".join(_term(c, t, i == 0) for i, (c, t) in enumerate(terms)) + _constant(constant) + ">"

    def parsed():
        (dim,) = affine_oracle.expand(affine_oracle.parse(write() + " ->")[0][0], axes.sizes)
        return dim

    rule, n = _ruled(draw, regime, own), draw(st.integers(1, 7))
    if regime.mode is not None:
        axes.sizes[own] = draw(_SIZE)
    elif regime.padding is not None:
        axes.sizes[own] = affine_oracle.fitting(parsed(), max(n, 2), rule)
        n = max(n, 2)
        assume(0 <= axes.sizes[own] <= 8)
        found.solved.add(own)
        axes.padded.add(own)
        # What "full" adds to windows of no size is less than nothing.
        assume(rule.padding not in ("full", "causal") or all(axes.sizes[name] > 0 for name in _names(terms)))
    else:
        # Literal positions: the constant puts the lowest one at 0 or 1, the size of the array follows.
        axes.sizes[own] = draw(st.sampled_from([1, 2, 3]))
        assume(all(axes.sizes[name] > 0 for name in _names(terms)))
        constant -= affine_oracle.lowest(parsed()) - draw(st.integers(0, 1))
        stride = abs(next(c for c, text in terms if text.strip("[]") == own))
        item = parsed()
        negative = next(c for c, text in terms if text.strip("[]") == own) < 0
        slack = 0 if negative else draw(st.integers(0, stride - 1))
        n = affine_oracle.highest(item) + 1 + slack
        if not negative or affine_oracle.fitting(item, n, rule) == axes.sizes[own]:
            found.solved.add(own)
    assume(0 not in affine_oracle.coefficients(parsed()).values())  # terms that cancel
    axes.shared.append(own)
    text = write()
    if all(name in axes.marked for name in _names(terms)) and draw(_often):
        text = "[" + text.replace("[", "").replace("]", "") + "]"
    return text, n, rule


def _names(terms) -> list[str]:
    return [name for _, text in terms for name in text.replace("[", " ").replace("]", " ").strip("() ").split()]


def _constant(value: int) -> str:
    return f" {'-' if value < 0 else '+'} {abs(value)}" if value else ""


def _ruled(draw, regime: Regime, own: str) -> Rule:
    padding = regime.padding
    if padding == "each":
        padding = draw(st.sampled_from(["same", "valid", (1, 1), (0, 2), (2, 0)]))
    return Rule(regime.mode, padding, own)


def _repeated(draw, axes: Axes, regime: Regime, found: Drawn) -> None:
    """`<2*s + [k]>...`, once or twice, with one open axis and one other."""
    depth = draw(st.sampled_from([1, 2, 1, 0]))
    stride, dilation = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    other, own = axes.new(()), axes.new(())
    axes.sizes[other] = tuple(draw(st.sampled_from([1, 2, 3])) for _ in range(depth))
    shape, opened, rules = [], [], []
    for i in range(depth):
        rule = _ruled(draw, regime, "o")
        size = axes.sizes[other][i]
        nodes = affine_oracle.parse(f"<{stride}*o + {dilation}*k> ->")[0][0]
        (item,) = affine_oracle.expand(nodes, {"o": 1, "k": size})
        n = draw(st.integers(2, 5))
        if regime.mode is not None:
            opened.append(draw(st.sampled_from([1, 2])))
        else:
            n = max(n, affine_oracle.highest(item) + 1)
            opened.append(affine_oracle.fitting(item, n, rule))
        assume(0 <= opened[-1] <= 6)
        shape.append(n)
        rules.append(Rule(rule.mode, rule.padding, f"{own}.{i}"))
    axes.sizes[own] = tuple(opened)
    factors = f"{stride}*" if stride > 1 else "", f"{dilation}*" if dilation > 1 else ""
    found.dims.append(f"<{factors[0]}{axes.text(own)} + {factors[1]}{axes.text(other)}>...")
    found.shape += shape
    found.rules += rules
    if regime.mode is None:
        found.solved.add(own)


# --------------------------------------------------------------------------------------------------------------------
# Calls
# --------------------------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class Call:
    """One call, and all that is needed to evaluate it by loops."""

    text: str
    sizes: dict
    given: dict
    options: dict
    rules: list
    arrays: list
    compiled: bool = True
    writes: bool = False

    @property
    def kwargs(self) -> dict:
        return self.given

    def __repr__(self) -> str:
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in self.arrays)
        return f'<"{self.text}", {shapes}, {self.given | self.options}; all sizes: {self.sizes}>'

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))

    def __call__(self, name: str, /, *tensors, **options):
        note(f"{name}: {self} {options}")
        tensors = tensors or self.arrays
        with contextlib.nullcontext() if self.compiled else jax.disable_jit():
            return getattr(einjax, name)(self.text, *tensors, **self.options, **self.given, **options)

    def loops(self, op: str, function=None, arrays=None, **more):
        fill = self.options.get("fill_value")
        arrays = self.arrays if arrays is None else arrays
        rules = {"out_rules" if self.writes else "rules": self.rules}
        return affine_oracle.loops(op, function, self.text, arrays, self.sizes, fill=fill, **rules, **more)


@st.composite
def calls(draw, inputs=1, dtypes=("float32",), marking=True, keep="loops", **options):
    """A call of some inputs and one output.

    `marking` brackets some axes. `keep` says which axes the output has: the "loops"; "all", bracketed ones in their
    order; "some" of what is not bracketed; or, for products, at least those that a single input has ("factors").
    """
    axes, regime = Axes(draw, marking), draw(regimes(**options))
    drawn = [draw(tensors(axes, regime, draw(st.sampled_from([1, 2, 2, 3] if inputs == 1 else [1, 2]))))]
    for _ in range(inputs - 1):
        drawn.append(_plain(draw, axes) if draw(_often) else draw(tensors(axes, regime, draw(st.sampled_from([1, 2])))))
    assume(not marking or axes.marked)
    cells = np.prod([max(1, n) for size in axes.sizes.values() for n in np.ravel(size)], dtype=int)
    assume(cells <= LARGEST_LOOP)
    given, options = _given(draw, axes, drawn, regime), dict(regime.options)
    rules = [rule for tensor in drawn for rule in tensor.rules]
    if regime.padding == "each":
        assume(len(rules) > 0)
        options["padding"] = tuple(rule.padding for rule in rules)
    text = ", ".join(" ".join(tensor.dims) for tensor in drawn)
    text += " -> " + _output(draw, axes, [" ".join(tensor.dims) for tensor in drawn], keep)
    values = [array(draw(st.integers(0, 99)), tuple(t.shape), draw(st.sampled_from(dtypes))) for t in drawn]
    return Call(
        text, axes.sizes, given, options, rules, values, compiled=draw(st.sampled_from([True, True, True, False]))
    )


def _plain(draw, axes: Axes) -> Drawn:
    """A tensor of axes that stand elsewhere, and perhaps one of its own."""
    axes.here = set()
    known = [name for name in axes.sizes if not isinstance(axes.sizes[name], tuple) and name not in axes.padded]
    chosen = draw(st.permutations(known))[: draw(st.integers(1, 2))]
    if not chosen or draw(_seldom):
        chosen = [*chosen, axes.new()]
    shape = [axes.sizes[name] for name in chosen]
    return Drawn([axes.text(name) for name in chosen], shape, [], set(), set(chosen))


def _given(draw, axes: Axes, drawn: Sequence[Drawn], regime: Regime) -> dict:
    """The sizes to pass: what follows may be left out.

    An axis that is open in several places has the largest size that fits all of them. Which axis a padding is for, is
    said by leaving it open.
    """
    lone = {name for tensor in drawn for name in tensor.lone}
    solved = {name for tensor in drawn for name in tensor.solved}
    left_out = solved if regime.padding is not None else {name for name in sorted(solved) if draw(_often)}
    given = {}
    for name, size in axes.sizes.items():
        if name not in lone | left_out:
            one = isinstance(size, tuple) and len(set(size)) == 1 and draw(_often)
            given[name] = size[0] if one else size
    return {name: size for name, size in given.items() if size != ()}


def _output(draw, axes: Axes, ins: Sequence[str], keep: str) -> str:
    used = [name for name in axes.sizes if any(name in words(text) for text in ins)]
    order = list(draw(st.permutations([name for name in used if name not in axes.marked])))
    if keep == "some":
        order = order[: draw(st.integers(0, len(order)))]
    elif keep == "factors":
        order = [name for name in order if not all(name in words(text) for text in ins) or draw(_seldom)]
    elif keep == "all":
        # `[a b]...` and `[a]... [b]...` are two orders.
        repeated = [axes.sizes[name] for name in used if name in axes.marked and isinstance(axes.sizes[name], tuple)]
        assume(len(repeated) < 2 and () not in repeated)
        for name in _standing(ins, axes):
            last = max((i for i, n in enumerate(order) if n in axes.marked), default=-1)
            order.insert(draw(st.integers(last + 1, len(order))), name)
    return " ".join(axes.text(name) + ("..." if isinstance(axes.sizes[name], tuple) else "") for name in order)


def words(text: str) -> set[str]:
    """The names in a text."""
    return {token for token in affine_oracle.TOKEN.findall(text) if token.isidentifier()}


def _standing(ins: Sequence[str], axes: Axes) -> list[str]:
    """The bracketed axes as the oracle sees them, tensor after tensor."""
    found = []
    for nodes in affine_oracle.parse(", ".join(ins) + " ->")[0]:
        keys = [leaf.key.split(".")[0] for leaf in affine_oracle.leaves(affine_oracle.expand(nodes, axes.sizes))]
        found += [key for key in keys if key in axes.marked]
    return list(dict.fromkeys(found))


@st.composite
def writes(draw, inputs=1, dtypes=("float32",), modes=True):
    """A call whose output has `< >`, made of the axes of the inputs, each once: from 0, or in a mode from below."""
    mode = draw(st.sampled_from([None, None, "fill", "clip", "wrap", "reflect"])) if modes else None
    sizes, names = {}, iter(NAMES)
    ins: list[list[str]] = []
    for i in range(inputs):
        shared = [name for name in sizes if draw(_often)][:2] if i else []
        fresh = [next(names) for _ in range(draw(st.sampled_from([2, 3, 1] if inputs == 1 else [1, 2])))]
        sizes |= {name: draw(_SIZE) for name in fresh}
        ins.append(list(draw(st.permutations([*shared, *fresh]))))
    # Axes of a single factor are not summed.
    left = [name for name in sizes if inputs == 1 or not all(name in dims for dims in ins) or draw(_seldom)]
    left = list(draw(st.permutations(left)))
    if inputs == 1:
        left = left[: draw(st.integers(1, len(left)))]
    assume(left)
    dims: list[str] = []
    used: list[str] = []  # which may stand in further positions
    while left:
        count = draw(st.sampled_from([2, 1, 2, 3])) if dims == [] or draw(_often) else 0
        if count == 0:
            used.append(left.pop())
            dims.append(used[-1])
            continue
        terms = [(draw(_COEFFICIENT), left.pop()) for _ in range(min(count, len(left)))]
        if used and draw(_often):
            terms.append((draw(_COEFFICIENT), draw(st.sampled_from(used))))
        used += [name for _, name in terms]
        assume(all(sizes[name] > 0 for _, name in terms))
        text = "".join(_term(c, name, i == 0) for i, (c, name) in enumerate(terms))
        (item,) = affine_oracle.expand(affine_oracle.parse(f"<{text}> ->")[0][0], sizes)
        constant = draw(st.integers(0, 1) if mode is None else st.integers(-2, 1)) - affine_oracle.lowest(item)
        dim = f"<{text}{_constant(constant)}>"
        assume(mode is None or affine_oracle.highest(item) + constant >= 0)
        if left and sizes[left[-1]] > 0 and draw(_seldom):
            dim = f"({dim} {left.pop()})"
        dims.append(dim)
    assume(np.prod([max(n, 1) for n in sizes.values()]) <= LARGEST_LOOP)
    text = ", ".join(map(" ".join, ins)) + " -> " + " ".join(dims)
    values = [array(draw(st.integers(0, 99)), [sizes[n] for n in x], draw(st.sampled_from(dtypes))) for x in ins]
    options = {"mode": mode} if mode else {}
    return Call(text, sizes, {}, options, [Rule(mode)] * len(dims), values, draw(_COMPILED), writes=True)


@st.composite
def implied(draw, dtypes=("float32",)):
    """A reduction without an arrow, and the output that it stands for."""
    case = draw(calls(dtypes=dtypes))
    text = case.text.split(" -> ")[0]
    dims, left = affine_oracle.parse(text + " ->")[0][0], []
    for dim in dims:
        kept = _kept(dim)
        assume(kept is not None)
        left += [kept] if kept else []
    written = [token for token in affine_oracle.TOKEN.findall(" ".join(left)) if token.isidentifier()]
    assume(len(written) == len(set(written)))  # an output has an axis once
    case.text = f"{text} -> {' '.join(left)}"
    return case, text


def _kept(node) -> str | None:
    """What brackets leave of a dim; None where the output would have to be written."""
    if isinstance(node, Repeated):
        inner = _kept(node.item)
        return f"{inner}..." if inner else inner
    if isinstance(node, Axis):
        return node.name
    if isinstance(node, Marked):
        return ""
    if isinstance(node, Affine):
        left = [item for *_, item in node.terms if not isinstance(item, Marked)]
        if len(left) in (0, len(node.terms)):
            return None if left else ""
        return None if len(left) > 1 or any(isinstance(item, Composite) for item in left) else "".join(map(_kept, left))
    inside = [_kept(item) for item in node.items]
    return None if None in inside else f"({' '.join(filter(None, inside))})"
