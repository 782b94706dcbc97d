"""Where the files of a data set lie: a folder of yours, the cache, or the network.

1. ``$VAEKIT_DATA/<source>/<file>``, when the variable is set: files put there by hand, never written to.
2. the cache, ``$VAEKIT_CACHE/<source>/<file>`` (by default the operating system's cache folder for vaekit);
3. the published addresses, or ``$VAEKIT_MIRROR/<source>/<file>`` when that is set (any web server over a folder laid out alike).

A download goes to a temporary file in the cache, is checked, and only then takes its name: one that is killed leaves nothing that a
later run would take for the file. Whatever container the data came in, the decoded arrays are checked against the checksums in
`vaekit.data.sources` each time they are read, which takes a tenth of a second for CIFAR-10, the largest set.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vaekit.data.formats import digest
from vaekit.errors import InputError

if TYPE_CHECKING:
    import requests

__all__ = ["Source", "cache_folder", "data_folder", "find", "locate", "remembered"]

PAUSES = (0.0, 1.0, 3.0)  # seconds before each round of attempts
TIMEOUT = (10, 60)  # seconds to connect, and between two packets


@dataclass(frozen=True)
class Source:
    """Where one data set comes from.

    Attributes:
        name: its folder under ``$VAEKIT_DATA``, the cache and ``$VAEKIT_MIRROR``.
        urls: base addresses, the first tried first.
        files: file name at those addresses -> its checksum, "sha256:..." or "md5:..."; None where none is known.
        content: what the decoded data hash to, whatever file they came in.
    """

    name: str
    urls: tuple[str, ...]
    files: Mapping[str, str | None]
    content: Mapping[str, str]


def data_folder() -> Path | None:
    """``$VAEKIT_DATA``, or None when it is not set.

    Raises:
        InputError: it is set to what is no folder.
    """
    value = os.environ.get("VAEKIT_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f'VAEKIT_DATA is "{value}", which is not a folder; correct it, or unset it to download what is needed')
    return folder


def cache_folder() -> Path:
    """``$VAEKIT_CACHE``, or the operating system's cache folder for vaekit."""
    value = os.environ.get("VAEKIT_CACHE")
    if value:
        return Path(value).expanduser()
    import pooch

    return Path(pooch.os_cache("vaekit"))


def find(source: Source, *names: str) -> Path | None:
    """The first of ``names`` that lies in ``$VAEKIT_DATA`` or, failing that, in the cache, among the files of ``source``; None when none
    does."""
    folders = (data_folder(), cache_folder())
    paths = (folder / source.name / name for folder in folders if folder is not None for name in names)
    return next((path for path in paths if os.path.exists(path)), None)


def locate(source: Source, file: str) -> Path:
    """The path of ``file`` of ``source``: in ``$VAEKIT_DATA``, else in the cache, where it is downloaded to when it is not there or is
    damaged.

    Raises InputError when it cannot be had; the message says where to put a copy by hand.
    """
    folder = data_folder()
    by_hand = (folder or cache_folder()) / source.name / file
    return by_hand if folder is not None and os.path.exists(by_hand) else _download(source, file, by_hand=by_hand)


def _download(source: Source, file: str, *, by_hand: Path) -> Path:
    import pooch
    import requests

    # identity: some servers mark a .gz as an encoding, and requests would then store it unpacked
    bar = sys.stderr is not None and sys.stderr.isatty()
    get = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    mirror = os.environ.get("VAEKIT_MIRROR")
    urls = [f"{mirror.rstrip('/')}/{source.name}/"] if mirror else list(source.urls)
    folder = cache_folder() / source.name
    faults: dict[str, str] = {}
    for pause in PAUSES:
        time.sleep(pause if urls else 0)
        for url in tuple(urls):
            try:
                return Path(pooch.create(path=folder, base_url=url, registry={file: source.files[file]}).fetch(file, downloader=get))
            except requests.RequestException as error:
                faults[url] = _reason(error)
                if error.response is not None and 400 <= error.response.status_code < 500:
                    urls.remove(url)  # it will not be there a second later either
            except ValueError as error:  # pooch: the checksum, expected and got
                faults[url] = str(error).partition(". Deleted")[0]
            except OSError as error:
                reason = "Permission denied" if isinstance(error, PermissionError) else error.strerror or error
                hint = "set VAEKIT_CACHE to a folder with room and permission to write"
                raise InputError(f"cannot write {folder / file}: {reason}; {hint}") from error
    listed = "; ".join(f"{url}{file}: {fault}" for url, fault in faults.items())
    raise InputError(
        f"cannot download {source.name}/{file} ({listed}); "
        f"put a copy at {by_hand}, or set VAEKIT_DATA to a folder or VAEKIT_MIRROR to a server that has {source.name}/{file}"
    )


def _reason(error: requests.RequestException) -> str:
    import requests

    phrases: tuple[tuple[type[Exception], str], ...] = (
        (requests.HTTPError, f"HTTP status {error.response.status_code if error.response is not None else 'unknown'}"),
        (requests.Timeout, "no answer in time"),
        (requests.exceptions.ChunkedEncodingError, "the transfer broke off"),
        (requests.exceptions.SSLError, "its certificate is not accepted"),
        (requests.ConnectionError, "no connection"),
    )
    return next((phrase for kind, phrase in phrases if isinstance(error, kind)), " ".join(str(error).split()))


def remembered(source: Source, key: str, shape: tuple[int, ...], make: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Bytes of ``shape`` that are slow to decode: read from the cache as they are, or made by ``make()`` and kept there, under the name
    ``key`` of ``source``.

    A kept file that is damaged is made again. A cache that is full or read-only costs the next reader time and is no error.
    """
    path = cache_folder() / source.name / f"{key}.uint8"
    with suppress(OSError):
        kept = np.fromfile(path, dtype=np.uint8)
        if kept.size == math.prod(shape) and digest(kept, like=source.content[key]) == source.content[key]:
            return kept.reshape(shape)
    made = make()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.tofile(part)
        os.replace(part, path)  # at once whole: a reader never sees half of it
    except OSError:
        with suppress(OSError):
            part.unlink()
    return made
