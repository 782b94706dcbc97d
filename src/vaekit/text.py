"""Text that came from outside (names, labels, paths), made safe to look at; numbers with their errors; and a table for a notebook."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence

__all__ = ["measured", "notebook_table", "visible"]

# Controls (newline, escape), formats (right-to-left marks, zero-width joiners), lone surrogates, private use, line and paragraph
# separators: each can hide text, reorder it, or break the line it stands in.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""``text`` with every invisible or reordering character written as its escape.

    >>> visible("cat\n\u202etxt.exe")
    'cat\\n\\u202etxt.exe'
    """
    return "".join(ch.encode("unicode_escape").decode("ascii") if unicodedata.category(ch) in _HIDDEN else ch for ch in text)


def measured(value: float, error: float | None = None, unit: str = "") -> str:
    """``value ± error unit``, rounded to two digits of the error; without an error, to six digits. With a true minus sign.

    >>> measured(-105.6149, 0.0312, "nats"), measured(0.1 + 0.2)
    ('−105.615 ± 0.031 nats', '0.3')
    """
    if error is None or not (math.isfinite(value) and math.isfinite(error) and error > 0):
        shown = f"{value:.6g}" if error is None else f"{value:.6g} ± {error:.2g}"
    elif 1e-6 <= error < 1e6:
        decimals = max(0, 1 - math.floor(math.log10(float(f"{error:.1e}"))))
        shown = f"{value:.{decimals}f} ± {error:.{decimals}f}"
    else:
        digits = max(0, math.floor(math.log10(abs(value) / error)) + 1) if value else 0
        shown = f"{value:.{digits}e} ± {error:.1e}"
    return (shown.replace("-", "−") + " " + visible(unit)).rstrip()


def notebook_table(title: str, rows: Sequence[Sequence[object]], *, headers: Sequence[str] = ()) -> str:
    """What ``_repr_html_`` gives: a table with a caption, ``headers`` and ``rows``, the first cell of each its name. All text is escaped.

    >>> notebook_table("<b>", [["a", 1]])
    '<table><caption>&lt;b&gt;</caption><tbody><tr><th scope="row">a</th><td>1</td></tr></tbody></table>'
    """

    def text(value: object) -> str:
        return html.escape(visible(str(value)))

    head = "".join(f'<th scope="col">{text(name)}</th>' for name in headers)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if headers else ""
    return f"<table><caption>{text(title)}</caption>{top}<tbody>{body}</tbody></table>"
