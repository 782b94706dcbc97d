"""The gallery's pages are what the templates and the records say; nobody types into them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gallery import __main__ as gallery

PAGES = Path(__file__).resolve().parents[1] / "docs" / "gallery"


@pytest.mark.parametrize(
    ("value", "error", "form", "text"),
    [
        (105.5123, 0.1134, None, "105.51 ± 0.11"),
        (105.5123, 0.1134, "value", "105.51"),
        (-105.5123, 12.4, None, "-106 ± 12"),
        (105.5123, None, None, "105.5"),
        (0.0123456, None, None, "0.01235"),
        (1e-9, None, None, "1e-09"),
        (105.5123, 0.1134, ".1f", "105.5"),
        (512, None, ".0f", "512"),
    ],
)
def test_a_figure_as_text(value: float, error: float | None, form: str | None, text: str) -> None:
    assert gallery.number({"value": value, "error": error, "unit": "nats"}, form) == text


def test_the_pages_are_rendered_from_the_templates_and_the_records() -> None:
    made = gallery.pages()
    assert {path.name for path in PAGES.glob("*.md")} == {name for name in made if "/" not in name}
    for name, text in made.items():
        assert (PAGES / name).read_text(encoding="utf-8") == text, f"docs/gallery/{name}: run python -m benchmarks.gallery"


def test_the_pictures_that_the_pages_show_are_there_and_no_others() -> None:
    shown = {name for text in gallery.pages().values() for name in re.findall(r"!\[[^]]*\]\((?:gallery/)?([^)]+)\)", text)}
    assert shown == {path.name for path in PAGES.glob("*.png")}


def test_a_place_without_a_figure_is_told() -> None:
    with pytest.raises(SystemExit, match="there is no such figure"):
        gallery.render("{{gallery/none#bound}}", {})
