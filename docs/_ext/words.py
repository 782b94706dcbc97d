"""Search by words as they are written, plurals apart: the usual stemming would find "importance" on every page that imports something."""

from __future__ import annotations

import re
from typing import Any

import sphinx.search
from sphinx.search.en import SearchEnglish

__all__ = ["Words", "setup"]

ENDINGS = ((r"ies$", "y"), (r"(ss|sh|ch|x)es$", r"\1"), (r"([^siu])s$", r"\1"))
_SAME = "".join(f".replace(/{pattern}/, '{left.replace(chr(92), '$')}')" for pattern, left in ENDINGS)


class Words(SearchEnglish):
    """English without its stemmer. The page's script and the index do the same to a word of four letters or more."""

    js_stemmer_rawcode = ""
    js_stemmer_code = f"window.Stemmer = function () {{ this.stemWord = (word) => word.length < 4 ? word : word{_SAME}; }};"

    def stem(self, word: str) -> str:
        word = word.lower()
        for pattern, left in ENDINGS if len(word) > 3 else ():
            word = re.sub(pattern, left, word)
        return word


def setup(app: Any) -> dict[str, bool]:
    sphinx.search.languages["en"] = Words
    return {"parallel_read_safe": True, "parallel_write_safe": True}
