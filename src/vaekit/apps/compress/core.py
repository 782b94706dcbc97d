"""Arrays to bytes and back. See `vaekit.apps.compress`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit import __version__
from vaekit.apps.compress.coding import Coder, random_words
from vaekit.apps.compress.container import KINDS, pack, unpack
from vaekit.apps.compress.stack import Stack, Words, constriction_version
from vaekit.apps.compress.symbols import Numbering
from vaekit.errors import InputError
from vaekit.evaluate.passes import device_of, dtype_of
from vaekit.models.core import LatentModel
from vaekit.tensors import evaluating

__all__ = ["compress", "decompress"]

Array = npt.NDArray[Any]
Watch = Callable[[int, int], None]
SIZE = 64
CHUNK = 1024
RESERVE = 96
"""Bits that stay in the stack: with fewer than 64, its state, draws would no longer be random."""


def compress(model: LatentModel, x: Array, *, size: int = SIZE, verify: bool = True, watch: Watch | None = None) -> bytes:
    """The array as bytes, from which `decompress` with the same model makes it again: values, dtype and shape.

    A sound model takes about -ELBO nats an example, log2(e) bits each, and about 500 bytes for the whole.

    Args:
        model: a model with discrete p(x | z), on the processor.
        x: rows ``[N, *]``, N >= 0, as the model's examples or without their axes of length 1: bool, integers or floats. uint8 holds
            images in bytes, x / 255, as everywhere in the package, or else the model's values themselves.
        size: S, rows that the networks see at a time; more is faster, up to a point.
        verify: decode what was made before it is returned, in about the same time again.
        watch: told (done, total) examples as they are coded.

    Raises:
        InputError: a value that is none of the model's levels, rows of another shape, continuous data, a distribution that cannot be coded,
            a model on a GPU, or one that draws random numbers itself; constriction is not installed.

    >>> import torch
    >>> from vaekit import VAE, Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> x = np.eye(6, dtype=bool)
    >>> data = compress(model, x)
    >>> bool((decompress(model, data) == x).all())
    True
    """
    if size < 1:
        raise InputError(f"size={size}: the networks need at least 1 row at a time")
    threads = torch.get_num_threads()
    with _exact(model, threads):
        coder = Coder(model, size, dtype_of(model) or torch.float32)
        unit, levels = _levels(x, coder)
        words, seed, groups = _coded(coder, levels, watch)
        header = {
            "vaekit": __version__,
            "torch": torch.__version__,
            "constriction": constriction_version(),
            "model": _fingerprint(model),
            "probe": coder.probe(),
            "data": hashlib.sha256(np.ascontiguousarray(x).data).hexdigest(),
            "dtype": x.dtype.str,
            "shape": list(x.shape),
            "unit": unit,
            "size": size,
            "threads": threads,
            "seed": seed,
            "groups": groups,
        }
    data = pack(header, words)
    if verify:
        try:
            decompress(model, data)
        except InputError as error:
            raise InputError(
                "the array cannot be compressed, because this model does not give the same numbers twice: take what is random out of it"
            ) from error
    return data


def decompress(model: LatentModel, data: bytes, *, name: str = "the file", watch: Watch | None = None) -> Array:
    """The array that `compress` was given.

    Args:
        model: the model that it was compressed with.
        data: what `compress` returned.
        name: of the data, for messages.
        watch: told (done, total) examples as they are decoded.

    Raises:
        InputError: damaged or foreign data, another model, or arithmetic that differs from that of the machine that compressed: another
            processor or version of torch.
    """
    header, words = unpack(data, name)
    if header["model"] != _fingerprint(model):
        raise InputError(f"{name} was compressed with another model, of other weights: give the run that compressed it")
    with _exact(model, header["threads"]):
        coder = Coder(model, header["size"], dtype_of(model) or torch.float32)
        if math.prod(header["shape"][1:]) != math.prod(coder.event_shape):
            raise InputError(
                f"{name} holds examples of {header['shape'][1:]} and the model's are {list(coder.event_shape)}: it is no such file"
            )
        if header["probe"] != coder.probe():
            raise InputError(
                f"{name} was compressed where this model's probabilities come out otherwise, with torch {header['torch']} and vaekit "
                f"{header['vaekit']} (here {torch.__version__} and {__version__}): decompress on such a machine, with those versions"
            )
        levels = _decoded(coder, words, header, name, watch)
        x = _array(coder.numbering, levels, header)
    if hashlib.sha256(x.data).hexdigest() != header["data"]:
        raise InputError(
            f"{name} did not decode to what was compressed, because this machine's arithmetic differs: decompress on the machine that "
            "compressed it, with the same versions"
        )
    return x


def _coded(coder: Coder, levels: npt.NDArray[np.int64], watch: Watch | None) -> tuple[Words, int, list[int]]:
    """The stack's words with all examples on it, with how many words it began, and the groups in their order."""
    total = len(levels)
    if total == 0:
        return np.zeros(0, dtype=np.uint32), 0, []
    seed = coder.needed(_padded(levels[:1], coder.size))
    stack = Stack(random_words(seed))
    groups: list[int] = []
    done, need = 0, 0
    while done < total:
        rows = min(max(1, (stack.bits - RESERVE) // need), coder.size, total - done) if need else 1
        taken = coder.push(stack, _padded(levels[done : done + rows], coder.size), rows, len(groups))
        need = max(need, taken * 5 // (4 * rows), 1)  # a margin, for examples whose latents take more
        groups.append(rows)
        done += rows
        if watch is not None:
            watch(done, total)
    return stack.words, seed, groups


def _decoded(coder: Coder, words: Words, header: Mapping[str, Any], name: str, watch: Watch | None) -> npt.NDArray[np.int64]:
    total = sum(header["groups"])
    levels = np.zeros((total, math.prod(coder.event_shape)), dtype=np.int64)
    stack = Stack(words)
    end = total
    for number, rows in reversed(list(enumerate(header["groups"]))):
        levels[end - rows : end] = coder.pop(stack, rows, number)[:rows].numpy()
        end -= rows
        if watch is not None:
            watch(total - end, total)
    if total and not np.array_equal(stack.words, random_words(header["seed"])):
        raise InputError(
            f"{name} did not decode to the bits that it began with, because this machine's arithmetic differs: decompress on the machine "
            "that compressed it, with the same versions"
        )
    return levels


def _levels(x: Array, coder: Coder) -> tuple[int, npt.NDArray[np.int64]]:
    """What an entry of x is divided by to be the model's, and the levels of all rows, ``[N, F]``."""
    if not isinstance(x, np.ndarray):
        raise InputError(f"a {type(x).__name__} cannot be compressed: give a numpy array [N, ...]")
    if x.dtype.kind not in KINDS or x.dtype.itemsize > 8:
        raise InputError(f"an array of {x.dtype} cannot be compressed: give bool, integers or floats")
    own = tuple(coder.event_shape)
    if x.ndim < 1 or [n for n in x.shape[1:] if n != 1] != [n for n in own if n != 1]:
        raise InputError(f"the array is {list(x.shape)} and the model's examples are {list(own)}: give [N, {', '.join(map(str, own))}]")
    units = [255, 1] if x.dtype == np.uint8 else [1]
    wrong = 0
    for unit in units:
        levels, wrong = _tried(x, unit, coder)
        if wrong < 0:
            return unit, levels
    row = x[wrong].reshape(-1)
    back = _tried(x[wrong : wrong + 1], units[-1], coder)[0]
    lost = _array(coder.numbering, back, {"unit": units[-1], "dtype": x.dtype.str, "shape": [1, *x.shape[1:]]}).reshape(-1)
    at = int(np.argmax(_bytes_differ(row, lost)))
    raise InputError(
        f"row {wrong} holds {row[at]!s}, which is none of the values that the model gives a probability to, such as {lost[at]!s}: compress "
        "data of the kind that it was trained on"
    )


def _tried(x: Array, unit: int, coder: Coder) -> tuple[npt.NDArray[np.int64], int]:
    """Levels of all rows, and the first row that they do not give back byte for byte; -1 for none."""
    levels = np.zeros((len(x), math.prod(coder.event_shape)), dtype=np.int64)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        values = torch.from_numpy(part.astype(np.float64) / unit).reshape(-1, *coder.event_shape)
        found = coder.numbering.levels(values).numpy()
        levels[start : start + len(part)] = found
        back = _array(coder.numbering, found, {"unit": unit, "dtype": x.dtype.str, "shape": part.shape})
        wrong = _bytes_differ(part, back).reshape(len(part), -1).any(1)
        if wrong.any():
            return levels, start + int(np.argmax(wrong))
    return levels, -1


def _bytes_differ(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where two arrays differ in their bytes: NaN equals itself, and -0 is not 0."""
    view = f"V{a.dtype.itemsize}"
    found: npt.NDArray[np.bool_] = np.ascontiguousarray(a).view(view) != np.ascontiguousarray(b).view(view)
    return found


def _array(numbering: Numbering, levels: npt.NDArray[np.int64], header: Mapping[str, Any]) -> Array:
    """Levels as the array that they came from."""
    x = np.empty(header["shape"], dtype=np.dtype(header["dtype"]))
    for start in range(0, len(x), CHUNK):
        values = numbering.values(torch.from_numpy(levels[start : start + CHUNK])).numpy() * header["unit"]
        part = x[start : start + CHUNK]
        part[...] = (values.round() if x.dtype.kind in "biu" else values).reshape(part.shape)
    return x


def _padded(levels: npt.NDArray[np.int64], size: int) -> Tensor:
    """Rows and zeros, S together, in memory of their own: a slice may lie where vector instructions treat it otherwise."""
    rows = torch.zeros(size, levels.shape[1], dtype=torch.int64)
    rows[: len(levels)] = torch.from_numpy(levels)
    return rows


def _fingerprint(model: LatentModel) -> str:
    """SHA-256 of all weights with their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextmanager
def _exact(model: LatentModel, threads: int) -> Iterator[None]:
    """Arithmetic that comes out the same each time: evaluation mode, so many threads, float32 products as such; all is put back."""
    if device_of(model).type != "cpu":
        raise InputError(f"the model is on {device_of(model)}, and coding runs on the processor, whose sums keep their order: model.cpu()")
    parts: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    precisions, before = [part.fp32_precision for part in parts], torch.get_num_threads()
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        torch.set_num_threads(threads)
        with evaluating(model), torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision
        torch.set_num_threads(before)
