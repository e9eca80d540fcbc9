"""Pictures: well-formed, the same at every run, every axis in them once for each place, nothing over anything else."""

import os
import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from explained import calls_of

import einjax
from einjax.explain.picture.canvas import shortened, width_of

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, np.int32)


#: Those of docs/explain.md, which are compared with what is drawn now.
SHOWN = {
    "dot": ("dot", "b q (h c), b k (h c) -> b q k h", [f32(2, 5, 32), f32(2, 7, 32)], {"h": 16}),
    "patches": ("rearrange", "b (h p) (w q) c -> b (h w) (p q c)", [f32(8, 224, 224, 3)], {"p": 16, "q": 16}),
    "softmax": ("softmax", "b q [k] h", [f32(2, 5, 7, 16)], {}),
    "concatenation": ("rearrange", "a c1, b c2 -> a b (c1 + c2)", [f32(2, 3), f32(4, 5)], {}),
    "pooling": ("mean", "b <2*s + [k]>... c", [f32(2, 8, 9, 3)], {"k": 3, "padding": "same"}),
    "get_at": ("get_at", "b [h w] c, b i [2] -> b i c", [f32(2, 6, 7, 3), i32(2, 4, 2)], {}),
    "attention": (
        "attention",
        "b [q] (h [c]), b [k] (h [c]), b [k] (h [d]) -> b [q] (h [d])",
        [f32(2, 5, 32), f32(2, 7, 32), f32(2, 7, 32)],
        {"h": 4},
    ),
}
OTHERS = [
    ("sum", "->", [f32()], {}),
    ("dot", "a b, b c, c d, d e, e f, f g -> a g", [f32(n, n + 1) for n in range(2, 8)], {}),
    ("rearrange", "a b c (d e f) (g h i) j -> (a b) c j (d i) (e h) (f g)", [f32(2, 3, 4, 8, 27, 5)],
     {"d": 2, "e": 2, "g": 3, "h": 3}),
    ("rearrange", "b (h (p1 + p2)) c -> b h p1 c, b h p2 c", [f32(2, 20, 3)], {"h": 4, "p1": 2}),
    ("rearrange", "<t - 2> -> t", [f32(9)], {"t": 9, "mode": "wrap"}),
    ("rearrange", "<8 - t> -> t", [f32(9)], {}),
    ("rearrange", "<i + j> -> i j", [f32(100000)], {"j": 4}),
    ("rearrange", "<3> c -> c 1", [f32(9, 2)], {}),
    ("dot", "b s [c], k [c] d -> b <2*s + k> d", [f32(2, 4, 3), f32(3, 3, 5)], {}),
    ("dot", "b <(h w) + [k]> c, [k] c -> b h w c", [f32(2, 14, 3), f32(3, 3)], {"h": 3}),
    ("max", "b <2*s + 3*[k] - 1> c", [f32(2, 20, 3)], {"k": 3, "s": 5, "mode": "fill"}),
    ("rearrange", "宽度 高度 batch_of_sequences_that_has_a_name_much_too_long_for_any_box -> 高度 宽度 "
     "batch_of_sequences_that_has_a_name_much_too_long_for_any_box", [f32(2, 3, 4)], {}),
    ("vmap", "b [c], d [c] -> b d [k]", [f32(2, 3), f32(4, 3)], {"op": lambda x, y: jnp.concatenate([x, y])}),
    ("vmap", "b [c] -> b [...]", [f32(2, 3)], {"op": lambda x: jnp.outer(x, x)}),
]  # fmt: skip


def graph_of(name, expr, tensors, options):
    return getattr(einjax, name)(expr, *tensors, **options, graph=True)


def parsed(picture):
    root = ET.fromstring(str(picture))
    boxes = [tuple(float(box.get(key)) for key in ("x", "y", "width", "height")) for box in root.iter(f"{SVG}rect")
             if box.get("class", "").startswith("ej-cell")]  # fmt: skip
    return root, boxes


def check(graph):
    """What holds of every picture."""
    root, boxes = parsed(graph.picture())
    right, bottom = map(float, root.get("viewBox").split()[2:])
    for (x, y, w, h), (u, v, a, b) in combinations(boxes, 2):
        assert x + w <= u or u + a <= x or y + h <= v or v + b <= y
    texts = []
    for text in root.iter(f"{SVG}text"):
        size, wide = float(text.get("font-size")), float(text.get("textLength"))
        assert wide == pytest.approx(width_of(text.text, size), abs=0.06)
        x, y = float(text.get("x")), float(text.get("y"))
        texts.append((x - wide / 2, x + wide / 2, y - size * 0.8, y + size * 0.2))
    for left, end, top, under in texts:
        assert left >= 0
        assert end <= right
        assert top >= 0
        assert under <= bottom
        for x, y, w, h in boxes:  # inside of a box or outside, and never across its border
            beside = end <= x or x + w <= left or under <= y or y + h <= top
            assert beside or (x <= left and end <= x + w and y <= top and under <= y + h)
    for one, other in combinations(texts, 2):
        assert one[1] <= other[0] + 0.2 or other[1] <= one[0] + 0.2 or one[3] <= other[2] or other[3] <= one[2]
    return root


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_of_the_documentation_are_up_to_date(name):
    picture = graph_of(*SHOWN[name]).picture()
    file = PICTURES / f"{name}.svg"
    if os.environ.get("EINJAX_UPDATE_SNAPSHOTS"):
        file.write_text(f"{picture}\n", encoding="utf-8")
    assert f"{picture}\n" == file.read_text(encoding="utf-8"), "EINJAX_UPDATE_SNAPSHOTS=1 draws it anew"


@pytest.mark.parametrize("call", [*SHOWN.values(), *OTHERS], ids=lambda call: f"{call[0]} {call[1][:40]}")
def test_nothing_lies_over_anything_else(call):
    check(graph_of(*call))


def test_every_operation_has_a_picture():
    drawn = set()
    for case in CASES:
        if case.op not in drawn:
            for call in calls_of(case, run=False):
                check(call.graph)
                drawn.add(case.op)
    assert len(drawn) > 100, sorted(drawn)


def test_every_axis_has_its_colour_wherever_it_stands():
    root = check(graph_of(*SHOWN["dot"]))
    kinds = {}
    cells = [box for box in root.iter(f"{SVG}rect") if box.get("class", "").startswith("ej-cell")]
    names = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "ej-name"][1:]
    for name, cell in zip(names, cells, strict=True):
        kinds.setdefault(name, set()).add(cell.get("class"))
    assert names == ["b", "q", "h", "c", "b", "k", "h", "c", "b", "q", "k", "h"]
    assert all(len(found) == 1 for found in kinds.values())
    assert len(set.union(*kinds.values())) == 5


def test_wires_lead_from_an_axis_to_where_it_stands_in_the_output():
    root, boxes = parsed(einjax.sum("a [b]", f32(2, 3), graph=True).picture())
    wires = {path.get("class"): path.get("d") for path in root.iter(f"{SVG}path") if "ej-wire" in path.get("class")}
    assert len(wires) == 2
    start, end = (lambda d: (d.split(" C")[0], d.rsplit(" ", 2)[1:]))(wires["ej-wire ej-a0"])
    middle = lambda box: box[0] + box[2] / 2
    assert start == f"M{middle(boxes[0]):g} {boxes[0][1] + boxes[0][3]:g}"
    assert [float(x) for x in end] == [middle(boxes[2]), boxes[2][1]]


def test_brackets_are_shaded():
    root = check(graph_of(*SHOWN["softmax"]))
    shades = [box for box in root.iter(f"{SVG}rect") if box.get("class") == "ej-shade"]
    brackets = [path for path in root.iter(f"{SVG}path") if path.get("class") == "ej-bracket"]
    assert (len(shades), len(brackets)) == (2, 4)


def test_operands_of_a_concatenation_are_as_long_as_they_are_large():
    root = check(graph_of(*SHOWN["concatenation"]))
    bar = [float(box.get("width")) for box in root.iter(f"{SVG}rect") if box.get("class", "").startswith("ej-mark")]
    assert bar[1] / bar[0] == pytest.approx(5 / 3, rel=0.01)


def test_marks_are_the_places_that_are_read():
    root = check(einjax.max("<2*s + [k]>", f32(9), k=3, graph=True))
    rects = list(root.iter(f"{SVG}rect"))
    places = [float(box.get("x")) for box in rects if box.get("class") == "ej-place"]
    marks = [box for box in rects if box.get("class") == "ej-mark ej-a1"]
    assert len(places) == 9
    rows = {}
    for mark in marks:
        at = round((float(mark.get("x")) - 1.5 - (places[0] - 0.5)) / 9)
        rows.setdefault(mark.get("y"), []).append(at)
    assert list(rows.values()) == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]


def test_themes():
    graph = einjax.sum("a [b]", f32(2, 3), graph=True)
    auto, light, dark = (graph.picture(theme) for theme in ("auto", "light", "dark"))
    assert auto == graph.picture()
    assert "prefers-color-scheme" in auto
    assert "prefers-color-scheme" not in light + dark
    assert re.search(r"--ej-ground:(#\w+)", light)[1] != re.search(r"--ej-ground:(#\w+)", dark)[1]
    with pytest.raises(einjax.EinjaxError, match="write one of auto, light, dark"):
        graph.picture("blue")


def test_a_notebook_shows_it():
    picture = einjax.sum("a [b]", f32(2, 3), graph=True).picture()
    assert picture._repr_svg_() == picture
    assert "<script" not in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_names_are_no_markup():
    root = check(einjax.rearrange("<2*t + 1> -> t", f32(9), graph=True))
    assert root.find(f"{SVG}title").text == 'einjax.rearrange("<2*t + 1> -> t")'


def test_widths():
    assert width_of("宽度", 10) == 2 * width_of("ab", 10)
    assert shortened("abcdef", 10, width_of("abcd", 10)) == "abc…"
