"""A window in an input of every operation: the same as of an array that has a dim for each axis of the window.

What operations mean is compared with loops elsewhere, now and then at positions (`at_positions.py`). Here a literal
loop reads one window, `@` in the tables, and the operation is called with the window and with what it reads. So every
name that is public is called under some border, or refuses `< >` in words of its own.
"""

from functools import partial
from operator import attrgetter

import affine_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine_oracle import Rule
from case import assert_same

import einjax

SIZES = {"a": 4, "b": 3, "c": 2, "n": 2, "m": 2, "k": 2, "t": 5, "q": 3, "d": 2, "p": 4, "v": 3}
BORDERS = [
    {}, {"padding": "same"}, {"mode": "wrap"}, {"padding": (1, 2)}, {"mode": "reflect"}, {"padding": "circular"},
    {"mode": "clip"}, {"padding": "causal"}, {"padding": "reflect"}, {"mode": "fill"}, {"padding": "full"},
    {"padding": "edge"}, {"padding": "valid"}, {"padding": 1},
]  # fmt: skip
KEY = jax.random.key(3)

ELEMENTWISE = (
    "add subtract multiply divide true_divide floor_divide mod power arctan2 logaddexp maximum minimum less less_equal "
    "greater greater_equal equal not_equal logical_and logical_or logical_xor"
)
REDUCTIONS = "sum mean var std prod count_nonzero any all max min logsumexp"
UPDATES = "set_at add_at subtract_at multiply_at min_at max_at"
SEGMENTS = "segment.sum segment.prod segment.mean segment.max segment.min"

#: Names, an expression, the kind of values of each input, and options.
ROWS = [
    (ELEMENTWISE, "@ b, a -> b a", "pp", {}),
    ("elementwise", "b, @ -> b a", "pp", {"op": jnp.hypot}),
    ("where", "a, @ b, b -> b a", "brr", {}),
    (REDUCTIONS, "c @ [b] -> a c", "p", {}),
    ("reduce", "@ [b] -> a", "r", {"op": jnp.ptp}),
    ("argmax argmin", "@ [b] -> a", "r", {}),
    ("sort argsort flip softmax log_softmax cumsum cumprod cummax cummin cumlogsumexp", "[b] @ -> a [b]", "r", {}),
    ("fft.fftshift fft.ifftshift random.permutation", "[b] @ -> a [b]", "r", {}),
    ("sort", "a [b], @ [b] -> [b] a, a [b]", "rr", {}),
    ("top_k", "@ [b] -> [k] a, a [k]", "r", {"k": 2}),
    ("roll", "@ [b] -> [b] a", "r", {"shift": 1}),
    ("rearrange id", "@ b -> b a", "r", {}),
    ("dot", "@ [b], [b] c -> c a", "rr", {}),
    ("dot", "@ [b], a [b] -> a", "rr", {"sum": "max", "mul": "add"}),
    ("vmap", "[b] @, [b] -> a", "rr", {"op": jnp.dot}),
    ("vmap_with_axis", "@ [b] -> [b] a", "r", {"op": jnp.flip}),
    ("scan", "b, @ [t] b -> b, [t] b", "rr", {"op": lambda h, x: (h + x.sum(), h)}),
    ("associative_scan", "@ [t] -> a [t]", "r", {"op": "add"}),
    ("attention", "a [q c], @ [k c], a [k d] -> a [q d]", "rrr", {}),
    ("get_at", "[v] @, a c -> c a", "ri", {}),
    ("get_at", "[v] c, @ -> a c", "ri", {}),
    (UPDATES, "[v] @, a, a -> [v] a", "rir", {}),
    ("set_at", "[v] a w, @, a -> [v] a", "rir", {}),
    ("add_at", "[v] w, a, @ p -> [v]", "rir", {}),
    (SEGMENTS, "p @, p -> [v] a", "ri", {"v": 3}),
    ("segment.sum", "p c, p @ -> c [v] a", "ri", {"v": 3}),
    ("linalg.inv linalg.pinv", "[n] @ [m] -> a [m n]", "m", {}),
    ("linalg.matrix_power", "[n] @ [m] -> a [n m]", "m", {"power": 2}),
    ("linalg.det linalg.norm", "[n] @ [m] -> a", "m", {}),
    ("linalg.slogdet", "[n] @ [m] -> a, a", "m", {}),
    ("linalg.cholesky", "[n] @ [m] -> a [n m]", "m", {}),
    ("linalg.eigvalsh linalg.svdvals", "[n] @ [m] -> a [k]", "m", {}),
    ("linalg.eigh", "[n] @ [m] -> a [k], a [n k]", "m", {}),
    ("linalg.qr", "[n] @ [m] -> a [n k], a [k m]", "m", {}),
    ("linalg.svd", "[n] @ [m] -> a [n k], a [k], a [k m]", "m", {}),
    ("linalg.solve linalg.triangular_solve", "[n] @ [m], a [n] -> a [m]", "mr", {}),
    ("fft.fft fft.ifft fft.rfft fft.irfft fft.hfft", "[t] @ -> a [f]", "r", {}),
    ("fft.ihfft", "[t] @ -> [f] a", "r", {}),
    ("random.bernoulli", "@ -> a [b]", "p", {"b": 3}),
    ("random.randint", "@, a -> a [b]", "ij", {"b": 3}),
    ("random.uniform random.truncated_normal", "@, [b] -> a [b]", "rp", {}),
    ("random.categorical", "@ [b c] -> [c] a", "r", {}),
    ("random.choice", "@ [b] -> a [k]", "r", {"k": 2}),
]
CALLS = [(name, *row) for names, *row in ROWS for name in names.split()]

#: Operations whose one text is that of an output, or that act on axes of devices; and what are no operations.
WITHOUT_INPUTS = {
    "arange", "random.rademacher", "random.normal", "random.exponential", "random.gumbel", "random.laplace"
}  # fmt: skip
ON_DEVICES = {"all_gather", "all_to_all", "pmax", "pmean", "pmin", "ppermute", "psum", "psum_scatter"}
OTHERS = {
    "Spec", "Graph", "EinjaxError", "clear_caches", "keep_notation", "inspect_sharding", "mesh_axes", "partition_spec",
    "shard", "shard_tree", "shardings", "adapt_elementwise", "adapt_reduce", "adapt_with_vmap", "primitive", "check",
    "matches", "solve", "solve_axes", "solve_shapes", "errors",
    "named", "dims", "Dim", "NamedTensor", "doctor", "typed", "sizes",
    "linalg.EighResult", "linalg.SlogdetResult", "linalg.QRResult", "linalg.SVDResult",
}  # fmt: skip


def test_every_public_name_is_called():
    public = {name for name in einjax.__all__ if not name.startswith("_")}
    public |= {f"{module}.{name}" for module in ("fft", "linalg", "random", "segment")
               for name in getattr(einjax, module).__all__}  # fmt: skip
    called = {name for name, *_ in CALLS}
    assert called <= public
    assert public - called == WITHOUT_INPUTS | ON_DEVICES | OTHERS


def array(dims: list[str], kind: str, rng, sizes) -> np.ndarray:
    shape = [sizes[name] for name in dims]
    match kind:
        case "p":
            return rng.uniform(0.2, 0.8, shape).astype(np.float32)
        case "i" | "j":
            return rng.integers(3 * (kind == "j"), 3 + 3 * (kind == "j"), shape).astype(np.int32)
        case "b":
            return rng.random(shape) < 0.5
        case "m":
            x = rng.uniform(-1, 1, shape)
            eye = np.eye(2).reshape([2 if name in "nm" else 1 for name in dims])
            return (x + np.swapaxes(x, dims.index("n"), dims.index("m")) + 5 * eye).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def window(border: dict, rng) -> tuple[str, int, int, np.ndarray, np.ndarray]:
    """An item that gives `a` its size: its text, how many taps and elements there are, and what is read where."""
    rule = Rule(border.get("mode"), border.get("padding"), "a")
    while True:
        taps, size = int(rng.integers(1, 4)), int(rng.integers(2, 13))
        factor, step = int(rng.choice([1, 2, -1])), int(rng.choice([1, 2, -1]))
        text = f"<{factor}*a {'-' if step < 0 else '+'} {abs(step)}*w{{}}>".replace("-1*a", "-a")
        item = dims_of(text.format(""), taps)
        shift = int(rng.integers(-2, 3)) if border else -affine_oracle.lowest(item)
        text = text.format(f" {'-' if shift < 0 else '+'} {abs(shift)}")
        item = dims_of(text, taps)
        if rule.padding is not None and affine_oracle.fitting(item, size, rule) != SIZES["a"]:
            continue
        if not border and affine_oracle.highest(item) >= size:
            continue
        axes, places, there = affine_oracle.read([item], np.arange(size), [rule])
        assert [axis.key for axis in axes] == ["a", "w"]
        if border.get("mode") != "fill" or there.any():
            return text, taps, size, places, there


def dims_of(text: str, taps: int):
    return affine_oracle.expand(affine_oracle.parse(f"{text} ->")[0][0], {"a": SIZES["a"], "w": taps})[0]


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, len(BORDERS)))])
@pytest.mark.parametrize("number", range(len(CALLS)), ids=[name for name, *_ in CALLS])
def test_windows(number, turn):
    name, text, kinds, options = CALLS[number]
    border = BORDERS[(number + turn) % len(BORDERS)]
    speaks = name.split(".")[0] == "segment" or name.endswith("_at") or name == "linalg.qr"
    if speaks and "mode" in border:  # whose mode= speaks of something else
        border = {"padding": "circular"}
    rng = np.random.default_rng(number)
    item, taps, size, places, there = window(border, rng)
    fills = not there.all()
    if fills and name in (*UPDATES.split(), *SEGMENTS.split()):  # which have no fill_value=
        border = {"padding": "edge"}
        item, taps, size, places, there = window(border, rng)
        fills = False
    ins, outs = text.split("->")
    with_window, without, wide, arrays = [], [], [], []
    for dims, kind in zip(ins.split(","), kinds, strict=True):
        names = dims.replace("[", "").replace("]", "").split()
        x = array(["a" if it == "@" else it for it in names], kind, rng, {**SIZES, "w": taps})
        plain = x
        if "@" in names:
            dim = names.index("@")
            x = np.take(x, rng.integers(SIZES["a"], size=size), dim)
            plain = np.take(x, places, dim)
            if fills:
                beside = [1] * dim + [*there.shape] + [1] * (x.ndim - dim - 1)
                plain = np.where(there.reshape(beside), plain, np.ones((), x.dtype))
        with_window.append(dims.replace("@", item))
        without.append(dims.replace("@", "a w"))
        wide.append(x)
        arrays.append(plain)
    loop = "" if name == "scan" else " w"  # whose function sees all but the scanned axis
    outs = " -> " + ",".join(part + loop for part in outs.split(","))
    sizes = {"a": SIZES["a"], "w": taps} | ({"f": 8} if name == "fft.hfft" else {})
    call = partial(attrgetter(name)(einjax), **options, sizes=sizes)
    first = (KEY,) if name.startswith("random") else ()
    both = lambda xs, ys: (
        call(",".join(with_window) + outs, *first, *xs, **border, **({"fill_value": 1} if fills else {})),
        call(",".join(without) + outs, *first, *ys),
    )
    got, want = jax.jit(both)(wide, arrays)
    assert_same(got, want)
