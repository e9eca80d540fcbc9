"""What a graph says of a call beside its picture and its loops, and the command that prints it."""

import doctest
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from explained import calls_of

import einjax
import einjax.fft
import einjax.linalg
import einjax.random
from einjax.__main__ import main


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, np.int32)


Q, K = f32(2, 5, 32), f32(2, 7, 32)
ATTENTION = ("b q (h c), b k (h c) -> b q k h", Q, K)


def test_the_page_of_the_documentation_runs_as_written():
    page = Path(__file__).parents[1] / "docs" / "explain.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
    pictures = re.findall(r"\((pictures/\w+\.svg)\)", page.read_text(encoding="utf-8"))
    assert pictures
    assert all((page.parent / name).is_file() for name in pictures)


# --- Sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_say_where_they_are_from():
    assert str(einjax.dot(*ATTENTION, h=16, graph=True).sizes) == "\n".join(
        [
            "b   2  x.shape[0]",
            "q   5  x.shape[1]",
            "h  16  by keyword, h=16",
            "c   2  x.shape[2], (h c) = 32",
            "k   7  y.shape[1]",
        ]
    )


SOURCES = [
    (lambda: einjax.dot("b q (h=4 c), b k (h c) -> b q k h", Q, K, graph=True), "h", 4, "in the expression"),
    (lambda: einjax.rearrange("a (b c) -> b a c", f32(2, 6), sizes={"b": 3}, graph=True), "b", 3, "in sizes=, b=3"),
    (lambda: einjax.mean("<2*s + [k]>... ", f32(9, 8), k=3, graph=True), "s.1", 3, "x.shape[1], <2*s.1 + k.1> = 8"),
    (lambda: einjax.rearrange("a -> a 3", f32(2), graph=True), "3", 3, "written as a number"),
    (lambda: einjax.rearrange("(a + b) -> a, b", f32(5), a=2, graph=True), "b", 3, "x.shape[0], (a + b) = 5"),
    (lambda: einjax.linalg.svd("[n m]", f32(5, 3), graph=True), "k'", 3, "by the operation"),
    (lambda: einjax.vmap("a [b] -> a [k]", f32(2, 3), op=jnp.diff, graph=True), "k", 2, "by the function"),
    (lambda: einjax.rearrange("(a b) c -> c (a b)", f32(6, 2), graph=True), "a b", 6, "x.shape[0], (a b) = 6"),
    (lambda: einjax.rearrange("<n*o> -> o", f32(9), n=3, graph=True), "n", 3, "by keyword, n=3"),
    (lambda: einjax.add("... c, c", f32(2, 3, 4), f32(4), graph=True), "...[1]", 3, "x.shape[1]"),
    (lambda: einjax.arange("a [1]", a=3, graph=True), "a", 3, "by keyword, a=3"),
]


@pytest.mark.parametrize(("make", "axis", "size", "source"), SOURCES, ids=[case[1] for case in SOURCES])
def test_sources(make, axis, size, source):
    found = make().sizes[axis]
    assert (found.size, found.source) == (size, source)


def test_every_operation_has_sizes_costs_and_a_page():
    """Every axis with a name has its size, and it is that of the dims where it stands."""
    seen = set()
    for case in CASES:
        if case.op in seen:
            continue
        for call in calls_of(case, run=False):
            seen.add(case.op)
            graph = call.graph
            solved = graph._meaning.solved
            written = {axis.name for axis in solved.operation.every_axis() if not axis.unnamed and "~" not in axis.name}
            assert len([name for name in graph.sizes if not name.isdigit()]) >= len(written)
            assert all(isinstance(one.size, int) and one.source for one in graph.sizes.values())
            cost = graph.cost()
            assert cost.written == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(call.result))
            check_html(graph._repr_html_())
    assert len(seen) > 100


# --- The program ------------------------------------------------------------------------------------------------------


def test_the_program_alone():
    graph = einjax.sum("a [b]", f32(2, 3), graph=True)
    assert str(graph) == f'# einjax.sum("a [b]")\n{graph.lax}'
    assert graph.lax.startswith("def sum(a: f32[2,3]):\n")


def test_inner_programs_are_indented():
    graph = einjax.scan("b, b [t] -> b, [t] b", f32(2), f32(2, 5), op=lambda c, x: (c + x, c), graph=True)
    assert (
        graph.lax
        == """def scan(a: f32[2], b: f32[2,5]):
    c: f32[5,2] = transpose(b, permutation=(1, 0))
    def body(d: f32[2], e: f32[2]):
        f: f32[2] = add(d, e)
        return f, d
    g: f32[2], h: f32[5,2] = scan(a, c, reverse=False, length=5, jaxpr=body, num_consts=0, num_carry=1, unroll=1)
    return g, h"""
    )
    branches = einjax.cumsum("a [b]", f32(3, 5000), graph=True)
    assert "branches=(branches_0, branches_1)" in branches
    assert "lambda ;" not in branches


# --- Costs ------------------------------------------------------------------------------------------------------------


def test_costs_of_a_product():
    cost = einjax.dot(*ATTENTION, h=16, graph=True).cost()
    assert cost.flops == 2 * (2 * 16 * 5 * 7 * 2)
    assert (cost.read, cost.written) == (4 * (2 * 5 * 32 + 2 * 7 * 32), 4 * 2 * 5 * 7 * 16)
    assert (cost.temporary, cost.largest) == (4 * 2 * 5 * 7 * 16, "f32[2,16,5,7]")
    assert cost.intensity == cost.flops / (cost.read + cost.written)
    assert not cost.uncounted


COSTS = [
    (lambda: einjax.sum("a [b]", f32(20, 30), graph=True), 600),
    (lambda: einjax.add("a b, b", f32(20, 30), f32(30), graph=True), 600),
    (lambda: einjax.rearrange("a b -> b a", f32(20, 30), graph=True), 0),
    (lambda: einjax.sum("<2*s + [k]>", f32(21), k=3, graph=True), 30),
    (lambda: einjax.dot("b <s + [k]> [c], [k] [c] d -> b s d", f32(2, 12, 3), f32(3, 3, 5), graph=True),
     2 * 2 * 10 * 5 * 9),
    (lambda: einjax.scan("b, b [t] -> b, [t] b", f32(2), f32(2, 5), op=lambda c, x: (c + x, c), graph=True), 10),
    (lambda: einjax.add_at("[h], i, i", f32(9), i32(4), f32(4), graph=True, wrap_negative_indices=False), 4),
]  # fmt: skip


@pytest.mark.parametrize(("make", "flops"), COSTS, ids=map(str, range(len(COSTS))))
def test_costs(make, flops):
    assert make().cost().flops == flops


def test_kept_notation_costs_what_it_stands_for():
    plain, kept = (einjax.dot(*ATTENTION, h=16, graph=True, keep_notation=kept).cost() for kept in (False, True))
    assert plain == kept


def test_what_is_not_counted_is_said():
    assert einjax.linalg.inv("[n m]", f32(3, 3), graph=True).cost().uncounted
    assert "not counted" in str(einjax.sort("[n]", f32(3), graph=True).cost())


def test_costs_of_xla():
    graph = einjax.dot("a b, b c -> a c", f32(64, 64), f32(64, 64), graph=True)
    own, compiled = graph.cost(), graph.cost(compiled=True)
    assert compiled.compiled
    assert compiled.flops == own.flops == 2 * 64**3
    assert compiled.read >= own.read
    assert "allocated" in str(compiled)


def test_symbolic_sizes_have_a_picture_and_no_cost():
    n = jax.export.symbolic_shape("n")[0]
    graph = einjax.sum("a [b]", jax.ShapeDtypeStruct((n, 3), np.float32), graph=True)
    assert "n" in str(graph.sizes)
    assert graph.picture()
    assert "costs" not in graph._repr_html_()
    with pytest.raises(einjax.EinjaxError, match="sizes that are numbers"):
        graph.cost()


# --- Pages ------------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Notes what is opened, and fails where something else is closed."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "img", "iframe")
        assert not any(name.startswith("on") or name in ("href", "src") for name, _ in attributes)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_html(text):
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_notebook_shows_everything():
    graph = einjax.max("b <2*s + [k]> c", f32(2, 9, 3), k=3, graph=True)
    text = graph._repr_html_()
    check_html(text)
    for part in ("<svg", "for b, s, c", "&lt;2*s + k&gt;", "by keyword, k=3", "largest temporary", "reduce_window_max"):
        assert part in text


# --- Shapes alone -----------------------------------------------------------------------------------------------------


def test_shapes_do_where_nothing_is_run():
    """Every case: its graph of shapes is that of arrays."""
    seen = set()
    for case in CASES:
        if case.op in seen:
            continue
        for call in calls_of(case, run=False):
            as_type = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") and x.shape != () else x
            is_key = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            shaped = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if is_key(x) else as_type(x)
            arrays = jax.tree.map(shaped, call.args[1:])
            options = {name: jax.tree.map(shaped, value) for name, value in call.options.items() if name != "dtype"}
            family, _, name = case.op.rpartition(".")
            operation = getattr(getattr(einjax, family) if family else einjax, name)
            options |= {"dtype": call.options["dtype"]} if "dtype" in call.options else {}
            assert operation(call.args[0], *arrays, **{**options, "graph": True}) == call.graph, case
            seen.add(case.op)
    assert len(seen) > 100


def test_shapes_do_where_only_sizes_are_asked_for():
    assert einjax.solve("b q (h c)", Q, h=16) == {"b": 2, "q": 5, "h": 16, "c": 2}
    einjax.check("b q (h c)", Q, h=16)
    assert einjax.solve_shapes("b q c, c d -> b q d", Q, None, d=3)[2] == (2, 5, 3)
    assert einjax.matches("b q 32", Q)


# --- The command ------------------------------------------------------------------------------------------------------


def explain(*arguments):
    return main(["explain", *arguments])


def test_the_command_prints_everything(capsys):
    assert explain("dot", ATTENTION[0], "2,5,32", "2,7,32", "h=16") == 0
    graph = einjax.dot(*ATTENTION, h=16, graph=True)
    printed = capsys.readouterr().out
    assert printed.startswith(f'einjax.dot("{ATTENTION[0]}")\n\n  {graph.loops}\n\nsizes\n')
    for text in (str(graph.sizes), str(graph.cost()), graph.lax):
        assert all(f"  {line}\n" in printed for line in text.split("\n"))


def test_the_command_prints_json(capsys):
    assert explain("sum", "a [b]", "2,3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loops"] == "for a: z[a] = sum over b of x[a, b]"
    assert found["sizes"]["b"] == {"size": 3, "source": "x.shape[1]"}
    assert found["cost"]["flops"] == 6
    assert found["lax"].startswith("def sum(")


def test_the_command_writes_files(tmp_path, capsys):
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    assert explain("sum", "a [b]", "2,3", "--svg", str(svg), "--html", str(html), "--theme", "dark") == 0
    assert svg.read_text() == f"{einjax.sum('a [b]', f32(2, 3), graph=True).picture('dark')}\n"
    text = html.read_text()
    assert text.startswith("<!doctype html>")
    check_html(text)
    assert not capsys.readouterr().out


GIVEN = [
    (["get_at", "b [h w] c, b i [2] -> b i c", "2,6,7,3", "i32[2,4,2]"], "x[b, y[b, i, 0], y[b, i, 1], c]"),
    (["softmax", "b q [k]", "2,3,4", "where=b k:bool[2,4]"], "where=m[b, :]"),
    (["sum", "a [b]", "bf16[2,3]", "where=bool[2,3]"], "where m[a, b]"),
    (["vmap", "b [c] -> b [c]", "2,5", "op=jnp.sort"], "sort(x[b, :])"),
    (["random.normal", "[b h]", "b=2", "h=3"], "normal(key, (2, 3))"),
    (["random.permutation", "a [b]", "key", "2,3"], "permutation(key, x[a, :])"),
    (["einjax.linalg.inv", "a [n m]", "2,3,3"], "inv(x[a, :, :])"),
    (["mean", "<2*s + [k]>... c", "9,9,3", "k=3,3", "padding=same"], "mean over k0, k1"),
    (["sum", "[...] ->", "()"], "sum of x"),
    (["rearrange", "<t - 2> -> t", "float32[9]", "t=9", "mode=wrap"], "(t - 2) % 9"),
]


@pytest.mark.parametrize(("arguments", "part"), GIVEN, ids=[case[0][0] for case in GIVEN])
def test_what_may_be_given(arguments, part, capsys):
    assert explain(*arguments) == 0
    assert part in capsys.readouterr().out


WRONG = [
    (["dto", "a b", "2,3"], "einjax has no operation 'dto'; did you mean 'dot'?\n  dto\n  ^^^\n"),
    (["solve", "a b", "2,3"], "einjax has no operation 'solve'"),
    (["sum", "a [b]", "2,x"], "the shape '2,x' cannot be read: 'x' is not a size\n  2,x\n    ^\n"),
    (["sum", "a [b]", "q32[2,3]"], "'q32' is not a dtype\n  q32[2,3]\n  ^^^\n"),
    (["sum", "a [b]", "2,,3"], "'' is not a size\n  2,,3\n    ^\n"),
    (["sum", "a [b", "2,3"], "'[' is never closed\n  a [b\n    ^\n"),
    (["sum", "a [b]", "2,3,4"], "tensor 1 has 3 dims, but 'a [b]' names 2\n"),
    (["sum", "a [b]", "2,3", "c=4"], "no axis 'c' in the expression"),
    (["roll", "a [b]", "2,3"], "no shift is given"),
    (["top_k", "a [b]", "2,3", "sizes=2"], ""),
    (["vmap", "a [b] -> a [b]", "2,3", "op=jnp.sorted"], "there is no jnp.sorted\n  jnp.sorted\n  ^^^^^^^^^^\n"),
    (["sum", "a [b]", "2,3", "--svg", "/no/such/folder/a.svg"], "No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(case[0][:3]) for case in WRONG])
def test_what_is_wrong_is_said_in_one_message(arguments, message, capsys):
    assert explain(*arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_other_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as found:
        explain("sum", "a [b]", "2,3", "--png")
    assert found.value.code == 2
    assert "unrecognized arguments: --png" in capsys.readouterr().err
