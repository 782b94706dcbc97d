"""Finding and downloading files: a local web server that behaves, and one that misbehaves in every way we know."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pooch
import pytest

from vaekit.data import fetch
from vaekit.data.fetch import Source, find, locate
from vaekit.errors import InputError

CONTENT = bytes(range(256)) * 2000  # 512 kB
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """/good/, /wrong/, /cut/ (shorter than announced), /flaky/ (cut once, then good), /slow/ (stops midway), anything else: 404."""

    def do_GET(self) -> None:
        server: Any = self.server
        kind = self.path.split("/")[1]
        server.requests.append((self.path, self.headers["Accept-Encoding"]))
        cut = kind in ("cut", "slow") or (kind == "flaky" and len(server.requests) == 1)
        if kind not in ("good", "wrong", "cut", "flaky", "slow"):
            self.send_error(503 if kind == "busy" else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = CONTENT[::-1] if kind == "wrong" else CONTENT
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if kind == "slow":
            self.wfile.flush()
            server.stopped.wait(30)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.requests: list[tuple[str, str]] = []
        self.stopped = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def source(self, *kinds: str) -> Source:
        return Source("toy", urls=tuple(f"{self.address}/{kind}/" for kind in kinds), files={"a.bin": SHA256}, content={})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.stopped.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no folder of data, no mirror, no proxy and no waiting."""
    for name in ("VAEKIT_DATA", "VAEKIT_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines that pooch's logger, which writes to the standard error stream, is given."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    pooch.get_logger().addHandler(handler)
    yield lines
    pooch.get_logger().removeHandler(handler)


def message(source: Source, file: str = "a.bin") -> str:
    with pytest.raises(InputError) as error:
        locate(source, file)
    assert "\n" not in str(error.value)
    return str(error.value)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_is_kept_in_the_cache_and_not_fetched_again(
    server: Server, cache: Path, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = locate(server.source("good"), "a.bin")
    assert path == cache / "toy" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert len(log) == 1 and "a.bin" in log[0] and server.address in log[0]
    assert capsys.readouterr().err == ""  # no progress bar where nobody watches
    assert locate(server.source("good"), "a.bin") == path
    assert server.requests == [("/good/a.bin", "identity")]
    assert files(cache) == ["toy/a.bin"]
    assert len(log) == 1


def test_a_terminal_gets_a_progress_bar(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    locate(server.source("good"), "a.bin")
    assert "100%" in capsys.readouterr().err


def test_a_file_of_ones_own_comes_first_and_is_left_alone(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locate(server.source("good"), "a.bin")
    mine = tmp_path / "mine" / "toy" / "a.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "mine"))
    source = server.source("good")
    assert locate(source, "a.bin") == mine
    assert find(source, "b.bin", "a.bin") == mine
    mine.unlink()
    assert locate(source, "a.bin") == find(source, "b.bin", "a.bin") == cache / "toy" / "a.bin"
    assert find(source, "b.bin") is None
    assert len(server.requests) == 1


def test_the_default_cache_is_the_operating_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAEKIT_CACHE")
    assert fetch.cache_folder() == Path(pooch.os_cache("vaekit"))
    monkeypatch.setenv("VAEKIT_CACHE", "~/elsewhere")
    assert fetch.cache_folder() == Path.home() / "elsewhere"


def test_a_wrong_data_folder_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> None:
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "typo"))
    assert f'VAEKIT_DATA is "{tmp_path / "typo"}", which is not a folder' in message(server.source("good"))


def test_the_next_address_is_tried(server: Server) -> None:
    assert locate(server.source("gone", "wrong", "good"), "a.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/gone/a.bin", "/wrong/a.bin", "/good/a.bin"]


def test_a_mirror_takes_the_place_of_the_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_MIRROR", f"{server.address}/good/")
    assert locate(server.source("gone"), "a.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/good/toy/a.bin"]


def test_a_transfer_that_breaks_off_is_tried_again(server: Server, cache: Path) -> None:
    assert locate(server.source("flaky"), "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert files(cache) == ["toy/a.bin"]


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, cache: Path) -> None:
    locate(server.source("good"), "a.bin").write_bytes(CONTENT[:-1])
    assert locate(server.source("good"), "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("kind", "words", "attempts"),
    [("gone", "HTTP status 404", 1), ("busy", "HTTP status 503", 3), ("cut", "the transfer broke off", 3)],
)
def test_a_failed_download_says_why_and_leaves_nothing(server: Server, cache: Path, kind: str, words: str, attempts: int) -> None:
    text = message(server.source(kind))
    assert f"cannot download toy/a.bin ({server.address}/{kind}/a.bin: {words}); put a copy at {cache / 'toy' / 'a.bin'}" in text
    assert len(server.requests) == attempts
    assert files(cache) == []


def test_a_wrong_checksum_names_the_file_what_was_expected_and_what_came(server: Server, cache: Path) -> None:
    text = message(server.source("wrong"))
    for words in ("a.bin", SHA256.removeprefix("sha256:"), hashlib.sha256(CONTENT[::-1]).hexdigest(), str(cache / "toy" / "a.bin")):
        assert words in text
    assert files(cache) == []


def test_a_short_file_without_a_checksum_is_not_kept(server: Server, cache: Path) -> None:
    assert "the transfer broke off" in message(replace(server.source("cut"), files={"a.bin": None}))
    assert files(cache) == []


def test_no_network_names_the_address_and_the_place_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path))
    with Server(Handler) as closed:
        source = closed.source("good")
    text = message(source)
    assert f"{source.urls[0]}a.bin: no connection" in text
    assert f"put a copy at {tmp_path / 'toy' / 'a.bin'}, or set VAEKIT_DATA to a folder or VAEKIT_MIRROR to a server" in text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system"),
        (PermissionError("Pooch could not create the folder"), "Permission denied"),
    ],
)
def test_a_cache_that_cannot_be_written(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, reason: str) -> None:
    def refuse(*_: object) -> None:
        raise fault

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    text = message(server.source("good"))
    assert f"cannot write {cache / 'toy' / 'a.bin'}: {reason}; set VAEKIT_CACHE to a folder with room" in text
    assert files(cache) == []


def test_a_cache_below_a_file(server: Server, cache: Path) -> None:
    cache.write_bytes(b"")
    assert "Not a directory; set VAEKIT_CACHE" in message(server.source("good"))


def test_a_killed_download_leaves_nothing_that_is_taken_for_the_file(server: Server, cache: Path) -> None:
    code = (
        "import sys; from vaekit.data.fetch import *; "
        "locate(Source('toy', urls=(sys.argv[1],), files={'a.bin': sys.argv[2] or None}, content={}), 'a.bin')"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for checksum in (SHA256, ""):
        run = subprocess.Popen([sys.executable, "-c", code, f"{server.address}/slow/", checksum], env=env, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size for path in (cache / "toy").glob("*")):
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            run.send_signal(signal.SIGKILL)
            run.wait()
        assert not (cache / "toy" / "a.bin").exists()
        assert any((cache / "toy").iterdir())  # half of it lies there under another name
        source = replace(server.source("good"), files={"a.bin": checksum or None})
        assert locate(source, "a.bin").read_bytes() == CONTENT
        (cache / "toy" / "a.bin").unlink()
        for left in (cache / "toy").iterdir():
            left.unlink()


def test_a_folder_behind_a_web_server_is_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared" / "toy").mkdir(parents=True)
    (tmp_path / "shared" / "toy" / "a.bin").write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with Server(functools.partial(Quiet, directory=str(tmp_path / "shared"))) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("VAEKIT_MIRROR", running.address)
        assert locate(Source("toy", urls=(), files={"a.bin": SHA256}, content={}), "a.bin").read_bytes() == CONTENT
        running.shutdown()
