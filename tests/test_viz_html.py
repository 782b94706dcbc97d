"""The page: parsed by an HTML parser, it holds what was given, escaped, and asks nobody for anything."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vaekit
from vaekit.errors import InputError
from vaekit.evaluate import Finding
from vaekit.text import visible
from vaekit.viz import Findings, Number, Picture, Section, Table, kl_bars, page, png, sheet

EVIL = '</title></style></bdi><script>alert("1")</script><img src=x onerror=y> & \'q\' "\n\u202egnp.exe\u200f\x1b[0m'
SHOWN = EVIL.replace("\n", "\\n").replace("\u202e", "\\u202e").replace("\u200f", "\\u200f").replace("\x1b", "\\x1b")
VOID = {"meta", "link", "img"}


@dataclass
class Node:
    tag: str
    attrs: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag: str) -> list[Node]:
        found = [self] if self.tag == tag else []
        return found + [n for c in self.children if isinstance(c, Node) for n in c.all(tag)]

    def one(self, tag: str) -> Node:
        (node,) = self.all(tag)
        return node


class Tree(HTMLParser):
    """A strict little parser: every tag is closed in order, or the test fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]
        self.declared: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [self.root], "tags left open"

    def handle_decl(self, decl: str) -> None:
        self.declared.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(*items: Any, title: str = "T", text: str = "", command: str = "") -> Node:
    return Tree(page(title, sections=[Section("S", text, items)], command=command)).root


def nodes(node: Node) -> list[Node]:
    return [node, *(n for c in node.children if isinstance(c, Node) for n in nodes(c))]


def full() -> str:
    """A page with everything on it, and everything on it hostile."""
    items = (
        EVIL,
        Table([EVIL, "n"], [[EVIL, 1], ["", Number(1.0, 0.1, EVIL)]], caption=EVIL),
        Picture(sheet(np.zeros((1, 1, 2, 2))), EVIL, EVIL),
        Findings([Finding("warning", EVIL)]),
    )
    return page(EVIL, sections=[Section(EVIL, EVIL, items)] * 3, command=EVIL)


def test_nothing_from_outside_becomes_markup() -> None:
    root = Tree(full()).root
    tags = {n.tag for n in nodes(root)} - {""}
    allowed = (
        "html head meta link title style body header h1 nav ul li a main section h2 p div table caption thead tbody tr th td figure img"
    )
    assert tags <= {*allowed.split(), "figcaption", "strong", "bdi", "footer", "code"}
    names = {name for n in nodes(root) for name in n.attrs}
    assert not any(name.startswith("on") for name in names) and "style" not in names
    for node in (root.one("title"), root.one("h1"), root.all("h2")[0], root.all("p")[0], root.all("caption")[0], root.all("figcaption")[0]):
        assert node.text == SHOWN
    assert root.all("th")[0].text == root.all("th")[2].text == root.one("code").text == SHOWN
    assert root.all("img")[0].attrs["alt"] == SHOWN
    assert root.all("li")[3].text.endswith(SHOWN)


def test_hidden_characters_are_nowhere_in_the_file() -> None:
    assert not set(full()) & set("\u202e\u200f\x1b")


def test_every_outside_text_is_isolated_for_direction() -> None:
    root = Tree(full()).root
    isolated = {id(n) for b in root.all("bdi") for n in nodes(b)}
    for node in nodes(root.one("body")):
        for child in node.children:
            if isinstance(child, str) and "gnp.exe" in child:
                assert id(node) in isolated


def test_the_page_asks_nobody_for_anything() -> None:
    text = full()
    root = Tree(text).root
    policy = next(m.attrs["content"] for m in root.all("meta") if m.attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'") and "script" not in policy
    head = root.one("head")
    before = [c for c in head.children if isinstance(c, Node)]
    assert [n.tag for n in before[:2]] == ["meta", "meta"] and before[0].attrs == {"charset": "utf-8"}, "the policy comes before all else"
    for node in nodes(root):
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = node.attrs.get(name)
            assert value is None or value.startswith(("data:", "#"))
    plain = page("T", sections=[Section("S", items=[Picture(kl_bars([1.0], threshold=0.1), "c", "a")])], command="vaekit report")
    assert not re.search(r"https?:|//|@import|url\(|<script|javascript:", re.sub(r"base64,[^\"]*", "", plain), re.IGNORECASE)
    assert "<" not in root.one("style").text


def test_light_and_dark_and_phone() -> None:
    root = parsed()
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [m.attrs for m in root.all("meta")]
    style = root.one("style").text
    light, dark = (set(re.findall(r"--[\w-]+(?=:)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL))
    assert "prefers-color-scheme: dark" in style and light == dark, "each colour has both"
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert used <= light | {"--mark"}


def contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        s = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in s]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_light_and_in_dark() -> None:
    for block in re.findall(r":root \{(.*?)\}", parsed().one("style").text, re.DOTALL):
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name in ("ink", "soft", "accent", "error", "warning", "info", "ok"):
            for ground in ("paper", "card"):
                assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)


def test_headings_nest_and_links_lead_to_sections() -> None:
    root = Tree(page("T", sections=[Section("A", "x"), Section("B"), Section("C")])).root
    assert root.one("h1").text == "T" and [h.text for h in root.all("h2")] == ["A", "B", "C"]
    links = root.one("nav").all("a")
    places = {s.attrs["id"]: s for s in root.all("section")}
    assert [places[str(a.attrs["href"])[1:]].one("h2").text for a in links] == [a.text for a in links] == ["A", "B", "C"]
    assert [p.text for p in root.all("p")] == ["x"]
    assert not Tree(page("T", sections=[Section("A"), Section("B")])).root.all("nav")


def test_a_table_holds_its_cells_and_aligns_numbers() -> None:
    rows = [["latent", 20, Number(-105.614, 0.0312, "nats"), True], ["beta", -2, None, False], ["path", None, Number(3.0), None]]
    table = parsed(Table(["setting", "value", "result", "on"], rows, caption="what")).one("table")
    assert [[c.text for c in r.children if isinstance(c, Node)] for r in table.all("tr")] == [
        ["setting", "value", "result", "on"],
        ["latent", "20", "−105.614 ± 0.031 nats", "yes"],
        ["beta", "−2", "–", "no"],
        ["path", "–", "3", "–"],
    ]
    assert [[c.attrs.get("class") for c in r.children if isinstance(c, Node)] for r in table.all("tr")] == [[None, "n", "n", None]] * 4
    assert [th.attrs.get("scope") for th in table.all("th")] == ["col"] * 4 + ["row"] * 3
    assert table.one("caption").text == "what"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(-105.6149, 0.0312, "nats"), "−105.615 ± 0.031 nats"),
        (Number(105.6, 0.3), "105.60 ± 0.30"),
        (Number(1234.5678, 12.3), "1235 ± 12"),
        (Number(1234.5678, 123.0), "1235 ± 123"),
        (Number(0.5, 0.0999), "0.50 ± 0.10"),
        (Number(-1.0, 0.00096, "bits/dim"), "−1.00000 ± 0.00096 bits/dim"),
        (Number(1.0, 2e-8), "1.00000000e+00 ± 2.0e−08"),
        (Number(1.5, 0.0), "1.5 ± 0"),
        (Number(1 / 3), "0.333333"),
        (Number(1e-9), "1e−09"),
        (Number(-0.0625, unit="nats"), "−0.0625 nats"),
        (Number(math.nan, 1.0, "nats"), "nan ± 1 nats"),
        (Number(-math.inf), "−inf"),
        (Number(2.0, math.nan), "2 ± nan"),
    ],
)
def test_numbers_are_rounded_by_their_error(number: Number, text: str) -> None:
    assert number.text == text


@given(st.floats(-1e5, 1e5, allow_subnormal=False), st.floats(1e-5, 1e5))  # a program of torch may have turned them off
def test_rounding_moves_a_number_by_little_of_its_error(value: float, error: float) -> None:
    shown, spread = (float(part) for part in Number(value, error).text.replace("−", "-").split(" ± "))
    assert abs(shown - value) <= max(0.06 * error if error < 10 else 0.5, 1e-10)
    assert spread == pytest.approx(error, rel=0.051)


def test_a_picture_carries_its_png_its_size_and_its_words() -> None:
    figure = kl_bars([2.0, 1.0], threshold=0.1)
    for image in (figure, png(figure)):
        root = parsed(Picture(image, "Caption", "Two bars"))
        img = root.one("img")
        kind, _, data = str(img.attrs["src"]).partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data, validate=True) == png(figure)
        with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
            assert (str(decoded.width), str(decoded.height)) == (img.attrs["width"], img.attrs["height"])
        assert img.attrs["alt"] == "Two bars" and root.one("figcaption").text == "Caption"


def test_findings_are_sentences_worst_first_and_not_by_colour_alone() -> None:
    given_ = [Finding("ok", "d"), Finding("info", "c"), Finding("error", "a"), Finding("warning", "b1"), Finding("warning", "b2")]
    lines = parsed(Findings(given_)).all("li")
    assert [n.text.split(": ")[1].strip() for n in lines] == ["a", "b1", "b2", "c", "d"]
    assert [n.text.split(":")[0][2:] for n in lines] == ["Problem", "Warning", "Warning", "Note", "Good"]
    assert [n.attrs["class"] for n in lines] == ["error", "warning", "warning", "info", "ok"]
    assert parsed(Findings([])).one("p").text == "No findings."


def test_whatever_has_a_severity_and_a_sentence_is_a_finding() -> None:
    class Advice(NamedTuple):
        severity: str
        sentence: str

    assert parsed(Findings([Advice("warning", "x")])).one("li").attrs["class"] == "warning"


def test_items_keep_their_order() -> None:
    picture = Picture(png(kl_bars([1.0], threshold=0.1)), "", "a bar")
    section = parsed("one", Table(["a"], [[1]]), "two", picture, Findings([Finding("ok", "x")]), text="zero").one("section")
    order = [n.tag + (n.text if n.tag == "p" else "") for n in section.children if isinstance(n, Node)]
    assert order == ["h2", "pzero", "pone", "div", "ptwo", "figure", "ul"]


def test_the_footer_says_version_and_command() -> None:
    footer = parsed(command="vaekit report 'runs/a b'").one("footer")
    assert footer.text == f"Made by vaekit {vaekit.__version__} withvaekit report 'runs/a b'"
    assert parsed().one("footer").text == f"Made by vaekit {vaekit.__version__}"


def test_the_page_is_utf_8_and_the_same_each_time() -> None:
    text = full()
    assert text == full()
    assert Tree(text.encode("utf-8").decode("utf-8")).declared == ["doctype html"]
    assert page("\ud800", sections=[]).encode("utf-8"), "a lone surrogate cannot break the file"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_any_text_comes_back_from_the_page(text: str) -> None:
    root = parsed(Table([text], [[text]]), title=text)
    assert root.one("h1").text == root.one("title").text == root.all("th")[1].text == visible(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Table(["a", "b"], [["x", 1], ["y"]]), "every row needs 2 cells, as the headers; row 1 has 1; fill it with None"),
        (lambda: Picture(b"GIF89a", "c", "a"), "must be a PNG file; they begin with b'GIF89a'"),
        (lambda: Picture(b"\x89PNG\r\n\x1a\n", "c", "a"), "must be a PNG file"),
        (lambda: Picture(png(kl_bars([1.0], threshold=0.1)), "the caption", "  "), '"the caption" has no alt text'),
        (lambda: Findings([Finding("warn", "x")]), 'no severity "warn"; did you mean "warning"?'),  # type: ignore[arg-type]
        (lambda: parsed(kl_bars([1.0], threshold=0.1)), "one is a Figure; wrap it"),
    ],
)
def test_mistakes_get_one_line(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
