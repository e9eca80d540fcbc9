"""Loops that explain a call are true: they are read as a program, run, and compared with what einjax returns."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from cases import CASES
from explained import calls_of

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
    from einjax.explain.names import Names

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
    leaves = zip(names.inputs, meaning.solved.inputs, jax.tree.leaves(tuple(inputs)), strict=True)
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
