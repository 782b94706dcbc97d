"""Sphinx: Markdown pages (MyST), the API from docstrings, the Furo theme."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import vaekit

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "vaekit"
author = "The vaekit authors"
copyright = "2026, the vaekit authors"
version = release = vaekit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "fields", "reference", "words"]
nitpicky = True  # what a page refers to by {py:obj} is there
nitpick_ignore_regex = [("py:class", ".*")]  # these come from annotations and base classes, torch's and private ones among them
default_role = "code"  # `single` backticks mean code in docstrings too
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"vaekit {release}"

# The pages open from a disk without a network: MathJax is one file among theirs, with its glyphs inside it (a browser may refuse a page
# from a disk its fonts), with every extension (which it would else look for), and without the menu, whose entries load more files.
html_static_path = [str(files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg-full.js")]
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}
html_show_search_summary = False  # its script would read the pages that it found, which a browser does not do from a disk

myst_enable_extensions = ["amsmath", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # torch explains its own forward()
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False  # the sections are Google's
napoleon_use_ivar = True  # the fields of a tuple are already documented as its attributes

# Docstrings are plain text with equations: in "z [K, B, *] ~ q(z|x)" the star, the bar and a name that ends in an underscore are
# themselves and not markup. Left alone: literals, roles, *emphasis*, doctests, tables, directives and `::` blocks.
_CODE = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|(?<!`)`[^`]+`_?|(?<![\w*\[,(])\*[A-Za-z][^*\n]*?[\w.]\*(?![\w*]))")
_MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)|(?<=: [A-Z])\.$")  # "examples: N." is no item N of a list


def _plain(line: str) -> str:
    parts = _CODE.split(line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            glue = "\\ " if i and part[:1].isalnum() else ""  # the s of ``DataSet``s
            parts[i] = glue + _MARKUP.sub(r"\\\g<0>", part)
    return "".join(parts)


def _docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape in place. Runs before napoleon, which must see its own sections but writes markup of its own."""
    block = None  # the indentation that a directive or literal block hangs from
    verbatim = False  # a doctest or a table, which ends at a blank line
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and (indent > block or not line.strip()):
            continue
        block = indent if line.lstrip().startswith(".. ") or line.rstrip().endswith("::") else None
        verbatim = bool(line.strip()) and (verbatim or line.lstrip().startswith((">>>", "===")))
        if block is None and not verbatim:
            lines[i] = _plain(line)
    if what in ("attribute", "property") and lines:
        lines[0] = f": {lines[0]}"  # napoleon takes the words before the first colon of these for a type


def _skip(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """The fields of a named tuple: its docstring says what they are, and theirs says "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


# A mark that says which record a figure comes from. At the beginning of a line it would end the paragraph, as an HTML block.
_MARK = re.compile(r"<!--\s*/?figure\b[^>]*-->")


def _unmarked(app: object, docname: str, source: list[str]) -> None:
    source[0] = _MARK.sub("", source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _unmarked)
    app.connect("autodoc-process-docstring", _docstring, priority=100)
    app.connect("autodoc-skip-member", _skip)
