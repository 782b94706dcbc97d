"""A browser for the tests of pages, where there is one: Playwright drives the Chromium that is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Opened", "browser", "opened"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The browser that VAEKIT_BROWSER names, or one on the PATH."""
    return os.environ.get("VAEKIT_BROWSER") or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped, with the reason, where there is none."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed: pip install -e '.[dev]'")
    from playwright.sync_api import sync_playwright

    path = executable()
    with sync_playwright() as made:
        if path is None and not Path(made.chromium.executable_path).exists():
            pytest.skip("no Chromium: install one, name it by VAEKIT_BROWSER, or run playwright install chromium")
        # a container's root has no sandbox of its own; what is opened are pages that the tests have made
        arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        launched = made.chromium.launch(executable_path=path, args=arguments)
        try:
            yield launched
        finally:
            launched.close()


@dataclass
class Opened:
    """A page, and what went wrong on it: console messages, errors, requests other than for the file itself."""

    page: Any
    faults: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Any, path: Path, *, until: str = "html[data-state=all]", beside: Path | None = None, **options: Any
) -> Iterator[Opened]:
    """A file, opened from the disk until ``until`` is there. It may ask for no file but itself, or for those in the folder ``beside``."""

    def asked(url: str) -> None:
        if url != path.as_uri() and (beside is None or not url.startswith(f"{beside.as_uri()}/")):
            found.faults.append(f"request: {url}")

    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    try:
        page = context.new_page()
        found = Opened(page)
        page.on("console", lambda message: found.faults.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: found.faults.append(f"error: {error}"))
        page.on("requestfailed", lambda request: found.faults.append(f"failed: {request.url}"))
        page.on("request", lambda request: asked(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(until, state="attached", timeout=30_000)
        yield found
    finally:
        context.close()
