"""What samples are compared in: features of a small classifier trained on the labelled data, kept in a file, or any function of yours.

Scores of samples are scores of samples *in these features*. Two models can be compared only in the same ones, so the classifier is trained
once and stored with what it was trained on, its accuracy and a hash of its weights; whoever asks again is given those weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.data.core import DataSet, Split
from vaekit.data.fetch import cache_folder
from vaekit.data.stored import StoredRows
from vaekit.errors import InputError
from vaekit.evaluate.classifier import classifier, network
from vaekit.tensors import evaluating
from vaekit.train.checkpoint import load_state
from vaekit.train.files import DamagedError, read, write

__all__ = ["ClassifierFeatures", "Features", "classifier_features", "describe", "extract"]

Features = Callable[[Tensor], Tensor]
"""x ``[B, *]`` -> features ``[B, F]``."""

FORMAT = 1
STEPS = 1400
"""Steps of training at least: 3 passes over MNIST, which is enough for it, and as much for smaller sets."""
BATCH = 128
ROWS = 1000  # hashed at a time


@dataclass(frozen=True)
class Record:
    """What stored features are: of which data, how well their classifier does, and which weights.

    Attributes:
        data: the data set's name; ``digest`` a hash of its rows as the classifier sees them, of its labels and of how it was trained.
        epochs, seed: of the training.
        accuracy: share of the test images that the classifier gets right; ``accuracy_se`` its standard error.
        weights: SHA-256 of the weights, in hexadecimal.
    """

    data: str
    digest: str
    epochs: int
    seed: int
    accuracy: float
    accuracy_se: float
    weights: str


class ClassifierFeatures:
    """The layer before the last of a classifier, x ``[B, C, H, W]`` -> ``[B, 128]``, on the CPU. Made by `classifier_features`.

    Attributes:
        net: the layers up to that one.
        record: what they are.
        path: the file they are stored in.
    """

    def __init__(self, net: nn.Sequential, record: Record, path: Path) -> None:
        self.net = net
        self.record = record
        self.path = path

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(x.to("cpu", torch.float32))

    def __str__(self) -> str:
        r = self.record
        return (
            f"the layer before the last of a classifier of {r.data} ({100 * r.accuracy:.1f} +- {100 * r.accuracy_se:.1f}% right on its "
            f"test split), weights sha256:{r.weights[:12]}"
        )


def classifier_features(data: DataSet, *, path: Path | str | None = None, epochs: int | None = None, seed: int = 0) -> ClassifierFeatures:
    """Features of `classifier` trained on ``data``, from their file where it is there, else trained (a minute for MNIST) and stored in it.

    Args:
        data: labelled images of at least 4 x 4 pixels.
        path: the file; by default ``features/<data>-<digest>.safetensors`` in vaekit's cache folder, see `vaekit.data.fetch`.
        epochs: passes over the training split; by default 3, or as many as 1400 steps of 128 images are.
        seed: of the training.

    Raises:
        InputError: data without labels, or that are no images; a file that is damaged, cannot be written or was trained on other data or
            with other settings.

    >>> import tempfile
    >>> from vaekit.data import digits
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = classifier_features(digits(), path=f"{folder}/digits.safetensors", epochs=15)
    ...     found = classifier_features(digits(), path=f"{folder}/digits.safetensors", epochs=15)
    >>> found.record == made.record, made.record.accuracy > 0.9, found(torch.zeros(3, 1, 8, 8)).shape
    (True, True, torch.Size([3, 128]))
    """
    labels = [split.label for split in (data.train, data.test) if split.label is not None]
    if len(labels) < 2 or len(data.shape) != 3 or min(data.shape[1:]) < 4:
        reason = (
            "lacks labels" if len(labels) < 2 else f"has rows of shape {list(data.shape)}, which are no images [C, H, W] of 4 x 4 or more"
        )
        raise InputError(
            f'"{data.name}" {reason}, so that no classifier can be trained whose features to compare: pass features=, any function of '
            f"x [B, {', '.join(map(str, data.shape))}] that returns [B, F], as a layer of a network of yours or lambda x: x.flatten(1)"
        )
    epochs = max(3, -(-STEPS * BATCH // len(data.train))) if epochs is None else epochs
    digest = _digest(data, epochs, seed)
    file = cache_folder() / "features" / f"{data.name}-{digest[:12]}.safetensors" if path is None else Path(path)
    net = network(tuple(data.shape), 1 + int(max(label.max() for label in labels)))
    try:
        record, tensors = _read(file)
    except FileNotFoundError:
        with _writable(file):  # tried before the minute of training
            file.parent.mkdir(parents=True, exist_ok=True)
        judge = classifier(data, epochs=epochs, seed=seed, batch_size=BATCH)
        tensors = judge.net.state_dict()
        record = Record(data.name, digest, epochs, seed, judge.accuracy, judge.accuracy_se, _hash(tensors))
        with _writable(file):
            write(file, tensors, {"format": FORMAT, "features": vars(record)})
    if record.digest != digest:
        raise InputError(
            f'{file} holds features of "{record.data}" (epochs={record.epochs}, seed={record.seed}, data {record.digest[:12]}), not of '
            f'this "{data.name}" (epochs={epochs}, seed={seed}, data {digest[:12]}): give another path, or delete it to train them anew'
        )
    load_state(net, tensors, str(file))
    return ClassifierFeatures(nn.Sequential(*list(net)[:-1]).eval().requires_grad_(False), record, file)


def extract(features: Features, parts: Iterable[Tensor]) -> Tensor:
    """``features`` of all parts ``[B, *]``, one after the other, ``[N, F]`` float64 on the CPU; a module is in evaluation mode meanwhile.

    Raises:
        InputError: what comes back is no tensor ``[B, F]`` of one width and of finite numbers.

    >>> extract(lambda x: x.flatten(1), [torch.ones(2, 1, 2), torch.zeros(1, 1, 2)]).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """
    found: list[Tensor] = []
    with evaluating(features) if isinstance(features, nn.Module) else nullcontext(), torch.no_grad():
        for x in parts:
            f: Any = features(x)
            if not isinstance(f, Tensor) or f.dim() != 2 or len(f) != len(x) or f.shape[1] == 0:
                what = f"{list(f.shape)}" if isinstance(f, Tensor) else f"a {type(f).__name__}"
                raise InputError(
                    f"features of x {list(x.shape)} came back as {what}: they must be a tensor [{len(x)}, F], one row an example"
                )
            if found and f.shape[1] != found[0].shape[1]:
                raise InputError(f"some examples have {found[0].shape[1]} features and others {f.shape[1]}: give all the same number")
            if not bool(f.isfinite().all()):
                raise InputError(
                    f"features of x {list(x.shape)}, from {float(x.min()):g} to {float(x.max()):g}, are not finite: correct them"
                )
            found.append(f.to("cpu", torch.float64))
    return torch.cat(found)


def describe(features: Features) -> str:
    """What to call them: one line."""
    if isinstance(features, ClassifierFeatures):
        return str(features)
    return getattr(features, "__qualname__", type(features).__name__)


@contextmanager
def _writable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, InputError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else str(error).partition(":")[0]
        raise InputError(f"features cannot be stored in {file} ({reason}): set VAEKIT_CACHE to another folder, or give a path") from error


def _read(file: Path) -> tuple[Record, dict[str, Tensor]]:
    """What the stored features are, and the weights.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, or no file of features.
    """
    remedy = "delete it to train the features anew, or take it from a backup"
    try:
        tensors, value = read(file)
    except DamagedError as error:
        raise InputError(f"{error}: {remedy}") from error
    if value.get("format") != FORMAT or set(value.get("features", ())) != {field.name for field in fields(Record)}:
        raise InputError(f"{file} holds no features that this version of vaekit reads: give another path, or {remedy}")
    record = Record(**value["features"])
    if _hash(tensors) != record.weights:
        raise InputError(f"{file} holds other weights than it says: {remedy}")
    return record, tensors


def _digest(data: DataSet, epochs: int, seed: int) -> str:
    """Of the rows and labels that the classifier learns from and is measured on, what it is shown of them, and its settings."""
    h = hashlib.sha256(json.dumps([FORMAT, data.name, epochs, seed, BATCH]).encode())
    for split in (data.train, data.test):
        for t in (split.x, split.label, split.mask, _shown(split)):
            if t is not None:
                h.update(f"{t.dtype} {list(t.shape)}".encode())
                for part in torch.arange(len(t)).split(ROWS):
                    h.update(_bytes(t.read(part) if isinstance(t, StoredRows) else t[part]))
    return h.hexdigest()


def _shown(split: Split) -> Tensor:
    """The first rows as a network sees them: other preparations of the same rows (grey, binary) make other features."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return split.batch(torch.arange(min(100, len(split)))).x


def _hash(tensors: Mapping[str, Tensor]) -> str:
    h = hashlib.sha256()
    for name, t in sorted(tensors.items()):
        h.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        h.update(_bytes(t))
    return h.hexdigest()


def _bytes(t: Tensor) -> bytes:
    return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
