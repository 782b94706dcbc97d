"""Digits, CIFAR-10, Frey faces and OMNIGLOT: images [C, H, W] in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vaekit.data.arrays import arrays, last_rows, permutation
from vaekit.data.core import DataSet, Split
from vaekit.data.fetch import find, locate, remembered
from vaekit.data.formats import Bytes, checked, read_mat, read_npz, read_omniglot, read_records, read_tar
from vaekit.data.sources import CIFAR10, FREY_FACES, OMNIGLOT
from vaekit.errors import InputError

__all__ = ["digits", "cifar10", "frey_faces", "omniglot", "omniglot_drawers"]

OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def digits(seed: int = 0) -> DataSet:
    """Handwritten digits, 8 x 8: x = value / 16 of 0..16, [1, 8, 8]; 1297 training, 200 validation, 300 test images, with labels.

    There is no published split: this is ``numpy.random.RandomState(seed).permutation(1797)``, whose first 300 rows are the test
    split and the next 200 the validation split. It comes with scikit-learn and needs no download. Source: the test part of
    Alpaydin & Kaynak, "Optical recognition of handwritten digits" (UCI, 1998).

    >>> data = digits()
    >>> data.train
    Split(1297 rows of [1, 8, 8], float32, labelled)
    >>> data.train.batch(torch.arange(100)).x.aminmax()
    torch.return_types.aminmax(
    min=tensor(0.),
    max=tensor(1.))
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).to(torch.float32).unsqueeze(1) / 16
    data = arrays(x, label=bunch.target, valid=200, test=300, seed=seed, name="digits")
    return DataSet(data.name, train=data.train, test=data.test, valid=data.valid, label_names=tuple("0123456789"))


def cifar10(valid: int = 0) -> DataSet:
    """CIFAR-10: x = byte / 255, colour images [3, 32, 32]; the official 50000 training and 10000 test images, with labels.

    ``valid`` of the training images, the last ones, are held out for validation. Reads the batches of the binary version
    (data_batch_1.bin and so on, or .bin.xz), else the official cifar-10-binary.tar.gz, which is downloaded. What had to be unpacked
    is kept in the cache (184 MB). Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
    """
    records = torch.from_numpy(_cifar10())
    x, label = records[:, 1:].view(-1, 3, 32, 32), records[:, 0].long()
    train, held_out = last_rows(Split(x[:50000], label=label[:50000]), valid)
    return DataSet("cifar10", train=train, test=Split(x[50000:], label=label[50000:]), valid=held_out, label_names=OBJECTS)


def _cifar10() -> Bytes:
    """[60000, 3073]: the label, then the red, green and blue planes; training batches first."""
    shape, expected = (60000, 3073), CIFAR10.content["records"]

    def unpacked() -> Bytes:
        if len(packed) == len(BATCHES):
            return checked(read_records(packed, shape[1]), shape, expected, packed[0].parent)
        archive = locate(CIFAR10, "cifar-10-binary.tar.gz")
        members = [f"cifar-10-batches-bin/{batch}.bin" for batch in BATCHES]
        return checked(read_tar(archive, members, shape[1]), shape, expected, archive)

    plain = _batches("{}.bin", "cifar-10-batches-bin/{}.bin")
    packed = _batches("{}.bin.xz")
    if len(plain) == len(BATCHES):
        return checked(read_records(plain, shape[1]), shape, expected, plain[0].parent)
    return remembered(CIFAR10, "records", shape, unpacked)


def _batches(*patterns: str) -> list[Path]:
    """The batch files that are here under one of these names."""
    found = (find(CIFAR10, *(pattern.format(batch) for pattern in patterns)) for batch in BATCHES)
    return [path for path in found if path is not None]


def frey_faces(seed: int = 0) -> DataSet:
    """Frey faces: x = byte / 255, grey images [1, 28, 20]; 1565 training, 200 validation, 200 test frames of one video, no labels.

    There is no published split: this is ``numpy.random.RandomState(seed).permutation(1965)``, whose first 200 rows are the test
    split and the next 200 the validation split. Neighbouring frames look alike, so test frames have near copies among the training
    frames. Source: Brendan Frey's face, from Sam Roweis' page.
    """
    path = find(FREY_FACES, "freyfaces.npz")
    if path is not None:
        images = read_npz(path, "images", (1965, 28, 20))
    else:
        path = locate(FREY_FACES, "frey_rawface.mat")
        images = read_mat(path, "ff").T.reshape(-1, 28, 20)  # one column a frame, rows of 20 pixels
    images = checked(images, (1965, 28, 20), FREY_FACES.content["images"], path)
    return arrays(images[:, None], valid=200, test=200, seed=seed, name="frey_faces")


def omniglot(valid: int = 0, *, seed: int = 0) -> DataSet:
    """OMNIGLOT, new alphabets: ink [1, 28, 28] in [0, 1]; 19280 training drawings (30 alphabets), 13180 test drawings (20 others).

    The published background and evaluation sets: no character of the test split (labels 964..1622) occurs in the training split
    (labels 0..963). ``valid`` of the training drawings are held out, the first of ``numpy.random.RandomState(seed).permutation``.
    Drawings are the original 105 x 105 ones, area-averaged to 28 x 28. They are not the pixels of Burda et al. (2016), whose file
    mixes alphabets and has 24345 training and 8070 test drawings: log-likelihoods cannot be compared digit for digit; see
    `omniglot_drawers` for a split of that kind. Source: Lake, Salakhutdinov & Tenenbaum (2015).

    Raises:
        InputError: ``valid`` is negative or leaves no drawing; a file that cannot be had.
    """
    return _omniglot("omniglot", torch.arange(32460) < 964 * 20, valid, seed)


def omniglot_drawers(valid: int = 0, *, seed: int = 0) -> DataSet:
    """OMNIGLOT, new drawers: ink [1, 28, 28] in [0, 1]; 24345 training drawings (drawers 1..15 of 20), 8115 test drawings (16..20).

    Every character (labels 0..1622) is in both splits, drawn by different people: the kind and nearly the size of the split of
    Burda et al. (2016), who have 24345 and 8070 drawings. The pixels are not theirs (see `omniglot`), so log-likelihoods cannot be
    compared digit for digit. ``valid`` and ``seed`` as there.

    Raises:
        InputError: ``valid`` is negative or leaves no drawing; a file that cannot be had.
    """
    return _omniglot("omniglot_drawers", torch.arange(32460) % 20 < 15, valid, seed)


def _omniglot(name: str, training: Tensor, valid: int, seed: int) -> DataSet:
    shape = (32460, 28, 28)  # 1623 characters x 20 drawers, in that order
    digest = OMNIGLOT.content["images"]

    def unpacked() -> Bytes:
        files = [locate(OMNIGLOT, f"images_{part}.zip") for part in ("background", "evaluation")]
        return checked(read_omniglot(files, 28), shape, digest, files[0].parent)

    path = find(OMNIGLOT, "omniglot_28.npz")
    images = checked(read_npz(path, "images", shape), shape, digest, path) if path else remembered(OMNIGLOT, "images", shape, unpacked)
    rows = Split(torch.from_numpy(images).unsqueeze(1), label=torch.arange(len(images)) // 20)
    train, test = rows.take(training.nonzero().squeeze(1)), rows.take((~training).nonzero().squeeze(1))
    if valid == 0:
        return DataSet(name, train=train, test=test)
    n = len(train)
    if not 0 <= valid < n:
        raise InputError(f"valid={valid} cannot be held out of {n} training drawings; give a count from 0 to {n - 1}")
    held_out, kept = permutation(n, seed).split([valid, n - valid])
    return DataSet(name, train=train.take(kept), test=test, valid=train.take(held_out))
