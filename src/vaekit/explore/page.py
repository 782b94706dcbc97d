"""The page as a file: assets, a policy that forbids every request, and the contents as data that nothing executes."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from vaekit import __version__
from vaekit.errors import InputError
from vaekit.explore.contents import POINTS, Contents, collect
from vaekit.explore.pack import Block
from vaekit.files import write_bytes
from vaekit.launch import load
from vaekit.runs import PathLike, Run
from vaekit.text import visible

__all__ = ["explore", "html"]

ASSETS = ("explorer.js", "explorer.css", "body.html", "runtime.wasm.gz")


def explore(
    run: PathLike | Run,
    *,
    out: PathLike | None = None,
    split: str = "train",
    points: int = POINTS,
    samples: int = 8,
    seed: int = 0,
    umap: bool = False,
    trust: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a run's page, by default ``explorer.html`` in the run, and return its path. The other arguments are those of `collect`.

    Raises:
        InputError: as `vaekit.launch.load` and `collect`; an ``out`` that is no .html file; the page's assets were not built.
    """
    if out is not None and Path(out).suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: the page is a .html file")
    assets()  # said before the work, not after it
    run, recipe = load(run, trust=trust, device="cpu")
    found = collect(recipe, split=split, points=points, samples=samples, seed=seed, umap=umap, watch=watch)
    page = html(found, title=f"{run.config.recipe} · {run.name}", facts={"run": run.name, "recipe": run.config.recipe})
    path = run.path / "explorer.html" if out is None else Path(out)
    write_bytes(path, page.encode())
    return path


def html(contents: Contents, *, title: str, facts: Mapping[str, str] | None = None) -> str:
    """The whole page of ``contents``, with ``facts`` about the run by their names, to be written as UTF-8.

    Every word that came from outside stands in it as JSON, its invisible and reordering characters written out; the page shows it by
    ``textContent`` alone. Scripts and styles other than the page's own, and requests of any kind, are forbidden by its policy.

    Raises:
        InputError: the page's assets were not built.
    """
    files = assets()
    script, style, body = (files[name].decode("utf-8") for name in ASSETS[:3])
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}' 'wasm-unsafe-eval'; style-src '{_hash(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = contents.blocks | {"runtime": Block("bytes", [], files["runtime.wasm.gz"])}
    about = {
        **contents.about,
        "title": title,
        "facts": dict(facts or {}),
        "version": __version__,
        "blocks": {name: block.header() for name, block in blocks.items()},
    }
    # the arrays of the map stand before the runtime and the networks, so that it can be drawn while those are still being read
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(visible(title))} · vaekit</title>",
        f"<style>{style}</style>",
        "</head>",
        f"<body>\n{body}",
        f'<script type="application/json" id="about">{_json(about)}</script>',
        *(f'<script type="text/plain" id="block-{name}">{_base64(block.data)}</script>' for name, block in blocks.items()),
        f'<script type="module">{script}</script>',
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def assets() -> dict[str, bytes]:
    """The files that ``make explorer`` builds.

    Raises:
        InputError: they were not built.
    """
    folder = importlib.resources.files("vaekit.explore").joinpath("assets")
    if not all(folder.joinpath(name).is_file() for name in ASSETS):
        raise InputError("the explorer's page is not built: in a checkout run make explorer (it needs Node 20); an installed vaekit has it")
    return {name: folder.joinpath(name).read_bytes() for name in ASSETS}


def _json(value: Any) -> str:
    """For a script element: ASCII, and no ``<`` that could end it."""
    return json.dumps(_visible(value), ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {key: _visible(one) for key, one in value.items()}
    return [_visible(one) for one in value] if isinstance(value, list | tuple) else value


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
