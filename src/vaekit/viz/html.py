"""One report as one HTML file: no scripts, no requests, pictures inside, light and dark.

A page is sections; a section holds paragraphs, tables, pictures and findings. All text is taken as coming from outside: it is escaped, its
invisible and reordering characters are written out, and ``<bdi>`` keeps right-to-left names from rearranging what stands beside them. The
Content-Security-Policy forbids everything but inline style and ``data:`` pictures.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from matplotlib.figure import Figure

from vaekit import __version__
from vaekit.errors import InputError, nearest
from vaekit.evaluate.advice import Finding
from vaekit.text import measured, visible
from vaekit.viz.figure import png

__all__ = ["Cell", "Findings", "Number", "Picture", "Section", "Table", "page"]


_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Worst first.
_WORD: Final[dict[str, str]] = {"error": "✖ Problem:", "warning": "▲ Warning:", "info": "● Note:", "ok": "✔ Good:"}


@dataclass(frozen=True)
class Number:
    """A measured value: ``value ± error unit``, rounded to two digits of the error; without an error, to six digits.

    >>> Number(-105.6149, 0.0312, "nats").text, Number(0.1 + 0.2).text
    ('−105.615 ± 0.031 nats', '0.3')
    """

    value: float
    error: float | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """As it is shown, with a true minus sign."""
        return measured(self.value, self.error, self.unit)


Cell: TypeAlias = str | int | float | bool | Number | None


@dataclass(frozen=True)
class Table:
    """Settings or numbers: ``headers``, ``rows`` and a ``caption``. The first column names each row; columns of numbers are aligned to the
    right.

    Raises:
        InputError: a row is not as long as the headers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.headers):
                raise InputError(
                    f"Table: every row needs {len(self.headers)} cells, as the headers; row {i} has {len(row)}; fill it with None"
                )


@dataclass(frozen=True)
class Picture:
    """A figure, or PNG bytes (``image``), with a caption and words for those who cannot see it.

    Raises:
        InputError: bytes that are not a PNG; no alt text.
    """

    image: Figure | bytes
    caption: str
    alt: str

    def __post_init__(self) -> None:
        if isinstance(self.image, bytes) and (self.image[:8] != _SIGNATURE or len(self.image) < 24):
            raise InputError(f"Picture: the bytes must be a PNG file; they begin with {self.image[:8]!r}; pass png(figure)")
        if not self.alt.strip():
            raise InputError(f'Picture: "{visible(self.caption)}" has no alt text; say in a sentence what the picture shows')


@dataclass(frozen=True)
class Findings:
    """Findings (``items``), shown worst first.

    Raises:
        InputError: another severity.
    """

    items: Sequence[Finding]

    def __post_init__(self) -> None:
        for finding in self.items:
            if finding.severity not in _WORD:
                raise InputError(f'Findings: there is no severity "{visible(finding.severity)}"; {nearest(finding.severity, _WORD)}')


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph (``text``, or none), and what follows; a string among the items is another paragraph."""

    title: str
    text: str = ""
    items: Sequence[Table | Picture | Findings | str] = ()


def page(title: str, *, sections: Sequence[Section], command: str = "") -> str:
    """The whole file, to be written as UTF-8.

    Args:
        title: the heading, and the name of the browser's tab.
        sections: in order; three or more get links at the top.
        command: what made the page; stands in the footer with the version.

    Raises:
        InputError: an item of a section that is none.

    >>> settings = Table(["name", "value"], [["latent", 20]])
    >>> text = page("Run 7", sections=[Section("Settings", items=[settings])], command="vaekit report runs/7")
    >>> "<h1><bdi>Run 7</bdi></h1>" in text, "<script" in text
    (True, False)
    """
    style = importlib.resources.files("vaekit.viz").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#s{i}">{_text(s.title)}</a></li>' for i, s in enumerate(sections, 1))
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',  # without it a server is asked for /favicon.ico
        f"<title>{_escaped(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
        f"<header>\n<h1>{_text(title)}</h1>",
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 2 else "",
        "</header>",
        "<main>",
        *(_section(section, f"s{i}") for i, section in enumerate(sections, 1)),
        "</main>",
        f"<footer>Made by vaekit {_text(__version__)}" + (f" with<code>{_text(command)}</code>" if command else "") + "</footer>",
        "</body>",
        "</html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _escaped(text: str) -> str:
    return html.escape(visible(text), quote=True)


def _text(text: str) -> str:
    return f"<bdi>{_escaped(text)}</bdi>"


def _section(section: Section, name: str) -> str:
    parts = [f'<section id="{name}" aria-labelledby="{name}-title">', f'<h2 id="{name}-title">{_text(section.title)}</h2>']
    for item in (section.text, *section.items):
        match item:
            case "":
                pass
            case str():
                parts.append(f"<p>{_text(item)}</p>")
            case Table():
                parts.append(_table(item))
            case Picture():
                parts.append(_picture(item))
            case Findings():
                parts.append(_findings(item))
            case _:
                raise InputError(f"Section: an item is a Table, a Picture, Findings or a string; one is a {type(item).__name__}; wrap it")
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    right = [_numeric([row[j] for row in table.rows]) for j in range(len(table.headers))]
    kind = [' class="n"' if r else "" for r in right]
    head = "".join(f'<th scope="col"{k}>{_text(h)}</th>' for h, k in zip(table.headers, kind, strict=True))
    body = []
    for row in table.rows:
        cells = [f"<td{k}>{_cell(c)}</td>" for c, k in zip(row, kind, strict=True)]
        if cells:
            cells[0] = f'<th scope="row"{kind[0]}>{_cell(row[0])}</th>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    label = _escaped(table.caption or "Table")
    rows = "\n".join(body)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>{caption}\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _numeric(cells: Sequence[Cell]) -> bool:
    given = [c for c in cells if c is not None]
    return bool(given) and all(isinstance(c, int | float | Number) and not isinstance(c, bool) for c in given)


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case int():
            return str(cell).replace("-", "−")
        case float():
            return _text(Number(cell).text)
        case Number():
            return _text(cell.text)
        case _:
            return _text(cell)


def _picture(picture: Picture) -> str:
    data = picture.image if isinstance(picture.image, bytes) else png(picture.image)
    width, height = struct.unpack(">II", data[16:24])  # IHDR comes first in every PNG
    source = base64.b64encode(data).decode("ascii")
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    alt = _escaped(picture.alt)
    images = isinstance(picture.image, Figure) and any(axes.images for axes in picture.image.axes)
    plate = "plate fit" if images else "plate"
    return (
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{alt}"><div class="{plate}">'
        f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" alt="{alt}"></div></div>{caption}</figure>'
    )


def _findings(findings: Findings) -> str:
    if not findings.items:
        return "<p>No findings.</p>"
    worst_first = sorted(findings.items, key=lambda f: list(_WORD).index(f.severity))
    lines = (f'<li class="{f.severity}"><strong>{_WORD[f.severity]}</strong> {_text(f.sentence)}</li>' for f in worst_first)
    return '<ul class="findings">\n' + "\n".join(lines) + "\n</ul>"
