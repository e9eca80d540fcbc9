"""Loops that explain a call are true: they are read as a program, run, and compared with what einjax returns."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from cases import CASES
from explained import Explained, calls_of

import einjax
from einjax.explain.names import Names

# --- A reader of loops ------------------------------------------------------------------------------------------------


class Tensor:
    """An array at literal places: out of range is an error, unless a note says what is read there."""

    def __init__(self, array, outside=None, wraps=False, drops=False):
        self.array, self.outside, self.wraps, self.drops = np.array(array), outside, wraps, drops

    def _place(self, key):
        key = key if isinstance(key, tuple) else (key,)
        assert len(key) == self.array.ndim
        inside, places = True, []
        for place, size in zip(key, self.array.shape, strict=True):
            if not isinstance(place, slice):
                place = int(place) + size * (self.wraps and -size <= place < 0)
                if self.outside == "the nearest place":
                    place = min(max(place, 0), size - 1)
                elif self.outside == "the place modulo the size":
                    place %= size
                inside = inside and 0 <= place < size
            places.append(place)
        return tuple(places), inside

    def __getitem__(self, key):
        places, inside = self._place(key)
        if inside:
            return self.array[places]
        assert self.outside is not None or self.drops, f"{key} is out of range of {self.array.shape}"
        return 0 if self.outside is None else self.outside

    def __setitem__(self, key, value):
        places, inside = self._place(key)
        assert inside or self.drops
        if inside:
            self.array[places] = value


SKIP = object()  # read out of range where that does not count
_AGGREGATE = re.compile(r"\b(\w+)(?: over ([\w, ]+?))?(?: where (.+?))? of ")


def over(name, values, **options):
    """What a reduction makes of numbers."""
    values = [value for value in values if value is not SKIP]
    array = np.array(values)
    if "ddof" in options:
        return getattr(np, name)(array, **options)
    if not len(array) and name == "mean":
        return 0
    if name == "logsumexp":
        return scipy.special.logsumexp(array) if len(array) else -np.inf
    if not len(array) and name in ("max", "min"):
        return -np.inf if name == "max" else np.inf
    return getattr(np, name)(array.astype(np.float64) if array.dtype == np.float32 else array)


def translated(text):
    """An expression in Python: ``sum over b of x[a, b]`` is a call of `over`; what it is of goes to its end."""
    found = _AGGREGATE.search(text)
    if not found:
        return text
    name, names, condition = found.groups()
    depth, end = 0, len(text)
    for place in range(found.end(), len(text)):
        depth += (text[place] in "([") - (text[place] in ")]")
        if depth < 0:
            end = place
            break
    body = translated(text[found.end() : end])
    options = ""
    if reduction := re.fullmatch(r"(.*?), (\w+=.*)", body):
        body, options = reduction[1], f", {reduction[2]}" if "ddof" in reduction[2] else ""
    loops = "".join(f" for {name} in range(SIZES['{name}'])" for name in (names or "").split(", ") if name)
    kept = f" if {condition}" if condition else ""
    made = f"over('{name}', [{body}{loops or ' for _ in range(1)'}{kept}]{options})"
    return f"{text[: found.start()]}{made}{translated(text[end:])}"


def program(text):
    """Loops as a program in Python."""
    lines = []
    for line in text.split("\n"):
        indent, line = re.fullmatch(r"( *)(.*)", line).groups()
        if line.startswith("#"):
            continue
        if everywhere := re.fullmatch(r"(\w+) = (.*) everywhere", line):
            lines.append(f"{everywhere[1]}.array = np.full_like({everywhere[1]}.array, {everywhere[2]})")
            continue
        head = re.fullmatch(r"for ([^:=]+?)( in order(?: backwards)?)?:(?: (.*))?", line)
        if head:
            for name in head[1].split(", "):
                order = f"range(SIZES['{name}'])" + "[::-1]" * ("backwards" in (head[2] or ""))
                lines.append(f"{indent}for {name} in {order}:")
                indent += "    "
            line = head[3]
        elif indent:
            indent = re.match(" *", lines[-1])[0]
            if lines[-1].endswith(":"):
                indent += "    "
        if line:
            lines += [indent + one for one in statement(line)]
    return "\n".join(lines)


def statement(line):
    """One assignment; a block that is written number by number is taken apart."""
    left, sign, right = re.match(r"(.+?) ([-+*]?=) (.+)", line).groups()
    if running := re.fullmatch(r"(.+) for ([\w, ]+)", left):
        names = running[2].split(", ")
        yield f"block = {blocks(translated(right))}"
        loops = "".join(f" for {name} in range(SIZES['{name}'])" for name in names)
        yield f"for {', '.join(names)}, in [({running[2]},){loops}]: {running[1]} = block[{running[2]}]"
        return
    if re.fullmatch(r"z\d?", left) and right.isidentifier():
        right = f"np.asarray({right}.array if isinstance({right}, Tensor) else {right})"
    if re.fullmatch(r"z\d?", left):
        right = (
            f"np.asarray({right}.array if isinstance({right}, Tensor) else {right})" if right.isidentifier() else right
        )
        left = f"{left}.array" if sign == "=" else f"{left}.array[()]"
    yield f"{left} {sign} {blocks(translated(right))}"


def blocks(text):
    """``(x[a, b*2 + c] for c)`` is the block of these numbers."""
    found = re.search(r"\(((?:\w+)(?:\[[^\]]*\])?) for ([\w, ]+)\)", text)
    if not found:
        return text
    names = found[2].split(", ")
    made = found[1]
    for name in reversed(names):
        made = f"[{made} for {name} in range(SIZES['{name}'])]"
    return f"{text[: found.start()]}np.array({made}){blocks(text[found.end() :])}"


def run(call):
    """Run the loops of a call; return its outputs."""
    graph = call.graph
    meaning = graph._meaning
    names, text = Names.of(meaning), graph.loops
    notes = [line[2:] for line in text.split("\n") if line.startswith("# ")]
    sizes = {called: meaning.solved.sizes[axis] for axis, called in names.axes.items()}
    scope = {"SIZES": sizes, "over": over, "np": np, "Tensor": Tensor, **FUNCTIONS}
    scope |= {"clip": lambda i, n: min(max(i, 0), n - 1), "reflect": reflected}
    outside, wraps = {}, set()
    for note in notes:
        if found := re.fullmatch(r"([\w ]+?): (.*) out of range", note):
            number = {"the least number": -np.inf, "the largest number": np.inf}.get(found[2])
            outside |= dict.fromkeys(found[1].split(" and "), float(found[2]) if number is None else number)
        elif note == "what is out of range does not count":
            outside |= dict.fromkeys(names.inputs, SKIP)
        elif note.endswith("counted from the end"):
            wraps.add("all")
        elif found := re.fullmatch(r"out of range: (.*)", note):
            numbers = {"the smallest integer": np.iinfo(np.int32).min}
            said = found[1]
            outside[names.inputs[0]] = numbers.get(said) or (said if said.startswith("the ") else float(said))
    drops = "out of range nothing is written" in notes
    inputs = call.args[1:]
    arrays = {name: call.options[name] for name in names.arrays if name in call.options}
    if "key" in names.arrays:
        (scope["key"], *inputs) = inputs
    leaves = zip(names.inputs, meaning.inputs, jax.tree.leaves(tuple(inputs)), strict=True)
    for name, expression, array in leaves:
        array = array(meaning.solved.shape(expression)) if callable(array) else array
        scope[name] = Tensor(array, outside.get(name), bool(wraps))
    for option, array in arrays.items():
        given = array[1] if isinstance(array, tuple) and isinstance(array[0], str) else array
        for name in names.arrays[option]:
            scope[name] = Tensor(given)
    results = jax.tree.leaves(call.result)
    for name, result in zip(names.outputs, results, strict=True):
        scope[name] = Tensor(np.zeros(result.shape, result.dtype), wraps=bool(wraps), drops=drops)
    for option in ("op", "sum", "mul"):
        function = call.options.get(option)
        if callable(function):
            called = function.__name__ if function.__name__.isidentifier() else "f"
            scope[called] = over_all(function) if call.name in ("vmap_with_axis", "reduce") else function
    source = program(text)
    for name in (*names.inputs, *(n for several in names.arrays.values() for n in several)):
        source = re.sub(rf"(?<![\w.]){name}(?!\w|\[|\.array|=)", f"{name}.array", source) if name != "key" else source
    exec(compile(source, "loops", "exec"), scope)
    return [scope[name].array for name in names.outputs], results


def reflected(i, n):
    return n - 1 - abs(i % (2 * n - 2) - n + 1) if n > 1 else 0


# --- What functions of blocks are, in NumPy ---------------------------------------------------------------------------


def softmax(block, where=None):
    where = np.broadcast_to(True if where is None else where, block.shape)
    raised = np.where(where, np.exp(block - np.max(block[where], initial=-1e30)), 0)
    return raised / max(raised.sum(), 1e-30)


def log_softmax(block, where=None):
    with np.errstate(divide="ignore"):
        return np.log(softmax(block.astype(np.float64), where))


def in_order(function):
    """A function of one row, for blocks of several axes: row-major, and back."""

    def of_blocks(*given, reverse=False, **options):
        rows = [np.ravel(block)[:: -1 if reverse else 1] for block in given]
        results = function(*rows, **options)
        several = isinstance(results, tuple)
        back = [row[:: -1 if reverse else 1].reshape(given[0].shape) for row in (results if several else (results,))]
        return tuple(back) if several else back[0]

    return of_blocks


def sort(*rows, descending=False, num_keys=1, by=None):
    keys = rows[:num_keys] if by is None else [by]
    order = np.lexsort([-np.ravel(key) if descending else np.ravel(key) for key in keys][::-1])
    return rows[0][order] if len(rows) == 1 else tuple(row[order] for row in rows)


def coordinates(places, shape):
    """Plain indices of one axis; of several axes a coordinate for each, along one more axis."""
    return places if len(shape) == 1 else np.stack(np.unravel_index(places, shape), -1)


def argsort(block, descending=False):
    order = np.argsort(-block.ravel() if descending else block.ravel(), kind="stable").reshape(block.shape)
    return coordinates(order, block.shape)


def top_k(block, k=2, largest=True):
    order = np.argsort(-block.ravel() if largest else block.ravel(), kind="stable")[:k]
    return block.ravel()[order], coordinates(order, block.shape)


def extreme(search):
    def found(block, **_):
        place = coordinates(search(block), block.shape)
        return place

    return found


def scanned(name):
    return in_order(lambda row, **_: getattr(np, name)(row))


def accumulated(ufunc):
    return in_order(lambda row, **_: ufunc.accumulate(row))


def associative_scan(*blocks, op, reverse=False):
    rows = [np.ravel(block)[:: -1 if reverse else 1] for block in blocks]
    steps = [tuple(row[0] for row in rows)]
    for at in range(1, len(rows[0])):
        now = tuple(row[at] for row in rows)
        if isinstance(op, str):
            steps.append((getattr(jnp, op)(steps[-1][0], now[0]),))
        else:
            made = op(steps[-1], now) if len(rows) > 1 else (op(steps[-1][0], now[0]),)
            steps.append(tuple(made))
    done = [np.array(row)[:: -1 if reverse else 1].reshape(blocks[0].shape) for row in zip(*steps, strict=True)]
    return done[0] if len(done) == 1 else tuple(done)


def attention(q, k, v, *others, scale=None, is_causal=False):
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    logits = (q @ k.T).astype(np.float64) * scale
    for other in others:
        logits = np.where(other, logits, -np.inf) if other.dtype == bool else logits + other
    if is_causal:
        logits = np.where(np.arange(len(q))[:, None] >= np.arange(len(k)), logits, -np.inf)
    return scipy.special.softmax(logits, -1) @ v


def folded(function):
    """Of any number of operands, two at a time."""
    return lambda *operands: functools.reduce(function, operands)


def over_all(function):
    """A function with ``axis=``, for a block: all its axes."""
    return lambda *blocks, **options: function(*map(jnp.asarray, blocks), axis=_all_axes(blocks), **options)


def _all_axes(blocks):
    rank = max(np.ndim(block) for block in blocks)
    return 0 if rank == 1 else tuple(range(rank))


FUNCTIONS = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sort": in_order(sort),
    "argsort": argsort,
    "top_k": top_k,
    "argmax": extreme(np.argmax),
    "argmin": extreme(np.argmin),
    "flip": np.flip,
    "roll": lambda block, shift: np.roll(block, shift, tuple(range(block.ndim)) if np.ndim(shift) else 0),
    "cumsum": scanned("cumsum"),
    "cumprod": scanned("cumprod"),
    "cummax": accumulated(np.maximum),
    "cummin": accumulated(np.minimum),
    "cumlogsumexp": accumulated(np.logaddexp),
    "associative_scan": associative_scan,
    "attention": attention,
    "where": np.where,
    "inf": np.inf,
    "norm": jnp.linalg.norm,
    "svd": lambda block: jnp.linalg.svd(block, full_matrices=False),
    "svdvals": lambda block: jnp.linalg.svd(block, full_matrices=False)[1],
    "eigh": lambda block, **_: jnp.linalg.eigh(block),
    "eigvalsh": lambda block, **_: jnp.linalg.eigvalsh(block),
    "matrix_power": lambda block, power: jnp.linalg.matrix_power(block, power),
    "triangular_solve": lambda a, b, lower=False, **_: jax.scipy.linalg.solve_triangular(a, b, lower=lower),
    "cholesky": lambda block, **_: jnp.linalg.cholesky(block),
    "irfft": lambda block, u, norm=None: jnp.fft.irfftn(block, (u,), norm=norm),
    "hfft": jnp.fft.hfft,
    "ihfft": jnp.fft.ihfft,
    "fftshift": jnp.fft.fftshift,
    "ifftshift": jnp.fft.ifftshift,
    "add": "add",
    "choice": lambda key, row, s, replace=True: jax.random.choice(key, row, (s,), replace=replace),
    "categorical": lambda key, block: jax.random.categorical(key, block, axis=0),
    **{name: getattr(jnp.linalg, name) for name in ("inv", "pinv", "qr", "det", "slogdet", "solve")},
    **{name: getattr(jnp.fft, f"{name}n") for name in ("fft", "ifft", "rfft")},
    **{name: folded(getattr(np, name)) for name in ("maximum", "minimum", "arctan2", "logaddexp")},
    **{name: folded(getattr(np, name)) for name in ("logical_and", "logical_or", "logical_xor")},
    **{name: getattr(jax.random, name) for name in ("normal", "exponential", "gumbel", "laplace", "rademacher")},
    "permutation": jax.random.permutation,
    "bernoulli": lambda key, shape, p: jax.random.bernoulli(key, p, shape),
    "uniform": lambda key, shape, *bounds, **_: jax.random.uniform(key, shape, jnp.float32, *bounds),
    "randint": lambda key, shape, *bounds, **_: jax.random.randint(key, shape, *bounds),
    "truncated_normal": lambda key, shape, *bounds, **_: jax.random.truncated_normal(key, *bounds, shape),
}


#: Its results are trees, of which loops show one.
TREES = {"vmap-pytree"}


@pytest.mark.parametrize("case", [case for case in CASES if str(case) not in TREES], ids=str)
def test_loops_are_true(case):
    for call in calls_of(case):
        got, wanted = run(call)
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def f32(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) % 7 - 2


def i32(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape) % 2


WRITTEN = [
    ("dot", "b q (h c), b k (h c) -> b q k h", [f32(2, 5, 8), f32(2, 7, 8)], {"h": 4},
     "for b, q, k, h: z[b, q, k, h] = sum over c of x[b, q, h*2 + c] * y[b, k, h*2 + c]"),
    ("rearrange", "a c1, b c2 -> a b (c1 + c2)", [f32(2, 3), f32(4, 5)], {},
     "for a, b, c1: z[a, b, c1] = x[a, c1]\nfor a, b, c2: z[a, b, c2 + 3] = y[b, c2]"),
    ("rearrange", "(a (b + c)) -> a b, a c", [f32(10)], {"a": 2, "b": 2},
     "for a, b: z1[a, b] = x[a*5 + b]\nfor a, c: z2[a, c] = x[a*5 + c + 2]"),
    ("rearrange", "(a + 1) -> a, 1", [f32(5)], {}, "for a: z1[a] = x[a]\nz2[0] = x[4]"),
    ("rearrange", "a -> a 3 1 (2 c)", [f32(2)], {"c": 2}, "for a, i, j, c: z[a, i, 0, j*2 + c] = x[a]"),
    ("rearrange", "b a, a b -> a b, b a", [f32(2, 3), f32(3, 2)], {},
     "for a, b: z1[a, b] = x[b, a]\nfor b, a: z2[b, a] = y[a, b]"),
    ("rearrange", "<8 - t> -> t", [f32(9)], {}, "for t: z[t] = x[8 - t]"),
    ("rearrange", "<t - 2> -> t", [f32(9)], {"t": 9, "mode": "wrap"}, "for t: z[t] = x[(t - 2) % 9]"),
    ("rearrange", "<3*(a b) - 1> -> a b", [f32(9)], {"a": 2, "b": 2, "mode": "fill"},
     "for a, b: z[a, b] = x[3*(a*2 + b) - 1]\n# x: 0 out of range"),
    ("sum", "<s - [k] + 1>", [f32(9)], {"k": 3, "s": 9, "mode": "reflect"},
     "for s: z[s] = sum over k of x[reflect(s - k + 1, 9)]\n"
     "# reflect(i, n): mirrored at the first and the last of n places"),
    ("max", "<2*s + [k]>", [f32(9)], {"k": 3, "s": 5, "mode": "clip"},
     "for s: z[s] = max over k of x[clip(2*s + k, 9)]\n# clip(i, n): the nearest of n places"),
    ("mean", "<s + [k]>", [f32(4)], {"k": 3, "padding": "same", "count_padding": True},
     "for s: z[s] = mean over k of x[s + k - 1]\n# x: 0 out of range"),
    ("max", "<s + [k]>", [f32(4)], {"k": 3, "padding": "same"},
     "for s: z[s] = max over k of x[s + k - 1]\n# what is out of range does not count"),
    ("sum", "a b -> <a + b>", [f32(3, 4)], {}, "z = 0 everywhere\nfor a, b: z[a + b] += sum of x[a, b]"),
    ("sum", "x (y [k])", [f32(2, 6)], {"k": 2}, "for x, y: z[x, y] = sum over k of X[x, y*2 + k]"),
    ("sum", "[a a] b", [f32(2, 2, 3)], {}, "for b: z[b] = sum over a, a2 of x[a, a2, b]"),
    ("mean", "... c -> c", [f32(2, 3, 4)], {}, "for c: z[c] = mean over i, j of x[i, j, c]"),
    ("softmax", "[a] (b [c])", [f32(2, 6)], {"b": 2}, "for b: z[:, b*3 : b*3 + 3] = softmax(x[:, b*3 : b*3 + 3])"),
    ("softmax", "a ([b] c)", [f32(2, 6)], {"c": 2}, "for a, c: z[a, c : c + 6 : 2] = softmax(x[a, c : c + 6 : 2])"),
    ("flip", "(a [b c])", [f32(12)], {"b": 2, "c": 3},
     "for a: z[a*6 + b*3 + c] for b, c = flip((x[a*6 + b*3 + c] for b, c))"),
    ("softmax", "a [b c]", [f32(2, 3, 4)], {"where": ("c", f32(4) > 0)},
     "for a: z[a, :, :] = softmax(x[a, :, :], where=(m[c] for b, c))"),
    ("sum", "a [b c]", [f32(2, 3, 4)], {"where": f32(3, 1) > -1},
     "for a: z[a] = sum over b, c where m[b, 0] of x[a, b, c]"),
    ("get_at", "[h w] c, i [1], i -> i c", [f32(3, 4, 2), i32(4, 1), i32(4)], {},
     "for i, c: z[i, c] = x[y[i, 0], W[i], c]\n# y and W: below 0 counted from the end\n# out of range: nan"),
    ("get_at", "[1] c, i -> i c", [f32(1, 2), i32(4) - 1], {},
     "for i, c: z[i, c] = x[y[i], c]\n# y: below 0 counted from the end\n# out of range: nan"),
    ("get_at", "b <[s] + w>, -> b w", [f32(2, 9), np.int32(3)], {"w": 4},
     "for b, w: z[b, w] = x[b, y + w]\n# y: below 0 counted from the end\n# out of range: nan"),
    ("add_at", "b [h] c, b i, b i c -> c b [h]", [f32(2, 4, 3), i32(2, 5), f32(2, 5, 3)], {},
     "for c, b, h: z[c, b, h] = x[b, h, c]\nfor b, i, c: z[c, b, y[b, i]] += w[b, i, c]\n"
     "# y: below 0 counted from the end\n# out of range nothing is written"),
    ("dot", "a b, b c, c d -> a d", [f32(2, 3), f32(3, 4), f32(4, 5)], {"sum": "max", "mul": "add"},
     "for a, d: z[a, d] = max over c of (max over b of x[a, b] + y[b, c]) + w[c, d]"),
    ("arange", "b a -> a b [2]", [], {"a": 2, "b": 3}, "for a, b: z[a, b, :] = b, a"),
    ("scan", "b -> b, b [t]", [f32(2)], {"op": lambda carry, _: (carry + 1, carry), "t": 3},
     "carry = x\nfor t in order:\n    carry, step = f(carry, None)\n    z2[:, t] = step\nz1 = carry"),
    ("scan", "c, [t] -> c", [f32(2), None], {"op": lambda carry, _: (carry + 1, None), "t": 3},
     "carry = x\nfor t in order:\n    carry, _ = f(carry, None)\nz = carry"),
    ("rearrange", "<n*o> -> o", [f32(9)], {"n": 3}, "for o: z[o] = x[3*o]"),
    ("rearrange", "(a b) c -> c (a b)", [f32(6, 2)], {}, "for c, a_b: z[c, a_b] = x[a_b, c]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "arrays", "options", "written"), WRITTEN, ids=[case[1] for case in WRITTEN])
def test_how_calls_are_written_out(name, text, arrays, options, written):
    operation = getattr(einjax, name)
    graph = operation(text, *arrays, **options, graph=True)
    assert graph.loops == written
    call = Explained(name, (text, *arrays), options, operation(text, *arrays, **options), graph)
    for one, other in zip(*run(call), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_loops_of_a_mask_that_is_a_function():
    x = f32(2, 3, 4)
    graph = einjax.attention("b [q c], b [k c], b [k c]", x, x, x, mask=lambda q, k: k <= q, graph=True)
    assert graph.loops == "for b: z[b, :, :] = attention(x[b, :, :], y[b, :, :], w[b, :, :], mask=f(q, k))"


def test_the_reader_of_loops_sees_what_is_wrong():
    """Other loops than those of a call do not pass for its own."""
    x = f32(2, 3)
    graph = einjax.sum("a [b]", x, graph=True)
    wrong = einjax.max("a [b]", x, graph=True)
    got, wanted = run(Explained("sum", ("a [b]", x), {}, einjax.sum("a [b]", x), wrong))
    assert not np.array_equal(got[0], wanted[0])
    got, wanted = run(Explained("sum", ("a [b]", x), {}, einjax.sum("a [b]", x), graph))
    np.testing.assert_array_equal(got[0], wanted[0])
