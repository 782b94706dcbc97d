"""The published image sets: their sizes, labels and pixel sums, their splits, and every container they can come in.

The sets in ``$VAEKIT_DATA`` are tested when they are there; the digits and the faults of files are tested always.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from vaekit import data
from vaekit.data import DataSet, Split, fetch
from vaekit.errors import InputError

HERE = os.environ.get("VAEKIT_DATA", "")


def needs(*files: str) -> pytest.MarkDecorator:
    missing = [file for file in files if not (HERE and (Path(HERE) / file).exists())]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} in $VAEKIT_DATA")


needs_cifar = needs(*(f"cifar10/{batch}.bin.xz" for batch in data.images.BATCHES))
needs_frey = needs("freyfaces/freyfaces.npz")
needs_omniglot = needs("omniglot/omniglot_28.npz")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of these tests alone, and a network that is not there."""
    monkeypatch.setenv("VAEKIT_CACHE", str(cache))
    monkeypatch.setenv("VAEKIT_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data to fill."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("VAEKIT_DATA", str(folder))
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    return folder


def put(folder: Path, file: str, content: bytes) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def total(split: Split | None) -> int:
    assert split is not None
    return int(split.x.sum(dtype=torch.int64))


def counts(split: Split) -> list[int]:
    assert split.label is not None and split.label.dtype == torch.int64
    return split.label.bincount().tolist()


def rows(*splits: Split | None) -> list[bytes]:
    """The stored rows, sorted: equal lists mean that splits cover the same rows."""
    return sorted(row.tobytes() for split in splits if split is not None for row in split.x.numpy())


def same(a: Split | None, b: Split | None) -> bool:
    if a is None or b is None or a.label is None or b.label is None:
        return a is b or (a is not None and b is not None and a.label is b.label is None and torch.equal(a.x, b.x))
    return torch.equal(a.x, b.x) and torch.equal(a.label, b.label)


def test_the_catalogue_lists_every_reader_with_a_line_about_it() -> None:
    names = "digits mnist_grey mnist_dynamic mnist_static mnist_rounded fashion_mnist cifar10 frey_faces omniglot omniglot_drawers"
    assert list(data.catalogue()) == [*names.split(), "dsprites", "sprites"]
    for name, reader in data.catalogue().items():
        first = (reader.__doc__ or "").splitlines()[0]
        assert getattr(data, name) is reader
        assert 60 < len(first) < 140 and "[" in first and "training" in first


# digits


def test_digits_are_scikit_learns_split_by_numpys_permutation() -> None:
    digits = data.digits()
    x, label = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(1797)
    assert digits.valid is not None
    for split, chosen in ((digits.test, order[:300]), (digits.valid, order[300:500]), (digits.train, order[500:])):
        batch = split.batch(torch.arange(len(split)))
        assert torch.equal(batch.x, torch.from_numpy(x[chosen] / 16).float().view(-1, 1, 8, 8))
        assert split.label is not None and split.label.tolist() == label[chosen].tolist()
    assert x.sum() == 561718
    assert digits.label_names == tuple("0123456789")


def test_digits_depend_on_the_seed_alone() -> None:
    assert same(data.digits(3).train, data.digits(3).train)
    assert not same(data.digits(3).train, data.digits(4).train)
    one, other = data.digits(3), data.digits(4)
    assert rows(one.train, one.valid, one.test) == rows(other.train, other.valid, other.test)


# the faults of files, at the level where a person meets them


def test_a_missing_file_is_one_line(mine: Path) -> None:
    with pytest.raises(InputError) as error:
        data.fashion_mnist()
    file = "fashion-mnist/train-images-idx3-ubyte.gz"
    assert str(error.value) == (
        f"cannot download {file} (http://127.0.0.1:9/{file}: no connection); put a copy at {mine / file}, "
        f"or set VAEKIT_DATA to a folder or VAEKIT_MIRROR to a server that has {file}"
    )


NINE = bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(9 * 784)  # an IDX file of nine images


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("mnist/train-images-idx3-ubyte.gz", gzip.compress(bytes(9000))[:-9], "is truncated"),
        ("mnist/train-images-idx3-ubyte.gz", b"", "is empty"),
        ("mnist/train-images-idx3-ubyte.gz", gzip.compress(b"<html></html>"), "starts with 3c 68 74 6d, expected 00 00 08"),
        ("mnist/train-images-idx3-ubyte.gz", gzip.compress(NINE), "[9, 28, 28], expected [60000, 28, 28]"),
        ("binarized-mnist/binarized_mnist.npz", b"PK", "is damaged or of another format"),
        ("binarized-mnist/binarized_mnist_train.amat", b"0 1\n", "4 bytes, which is no whole number of rows of 784"),
        ("binarized-mnist/binarized_mnist_train.amat", b"0 " * 784, "uint8 [1, 784], expected uint8 [50000, 784]"),
        ("freyfaces/frey_rawface.mat", b"MATLAB", "is damaged or of another format"),
        ("omniglot/omniglot_28.npz", b"", "is damaged or of another format"),
        ("omniglot/images_background.zip", b"", "cannot download omniglot/images_evaluation.zip"),
        ("cifar10/cifar-10-binary.tar.gz", b"", "is damaged or of another format"),
        ("cifar10/test_batch.bin.xz", b"", "cannot download cifar10/cifar-10-binary.tar.gz"),
    ],
    ids=lambda value: "bytes" if isinstance(value, bytes) else None,  # gzip writes the time: two processes would name the test apart
)
def test_a_bad_file_is_one_line(mine: Path, file: str, content: bytes, words: str) -> None:
    path = put(mine, file, content)
    readers = {"mnist": "mnist_rounded", "binarized-mnist": "mnist_static", "freyfaces": "frey_faces"}
    with pytest.raises(InputError) as error:
        data.catalogue()[readers.get(path.parent.name, path.parent.name)]()
    assert words in str(error.value) and "\n" not in str(error.value)


@needs_frey
def test_other_data_under_the_name_of_a_published_set_are_refused(mine: Path) -> None:
    images = np.load(Path(HERE) / "freyfaces" / "freyfaces.npz")["images"].copy()
    images[1000, 14, 10] ^= 1  # one bit
    (mine / "freyfaces").mkdir()
    np.savez(mine / "freyfaces" / "freyfaces.npz", images=images)
    with pytest.raises(InputError, match="does not hold the published data: decoded, it has sha256:"):
        data.frey_faces()


# CIFAR-10


@pytest.fixture(scope="module")
def cifar(cache: Path) -> Iterator[DataSet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAEKIT_CACHE", str(cache))
        yield data.cifar10()


@needs_cifar
def test_cifar10(cifar: DataSet) -> None:
    assert cifar.train.x.shape == (50000, 3, 32, 32) and cifar.test.x.shape == (10000, 3, 32, 32)
    sums = cifar.train.x.sum((0, 2, 3), dtype=torch.int64)
    assert (int(sums.sum()), total(cifar.test)) == (18540682003, 3733375634)
    assert [round(float(mean), 4) for mean in sums / (255 * 50000 * 1024)] == [0.4914, 0.4822, 0.4465]  # red, green, blue
    assert counts(cifar.train) == [5000] * 10 and counts(cifar.test) == [1000] * 10
    assert cifar.train.label is not None and cifar.label_names is not None
    assert [cifar.label_names[i] for i in cifar.train.label[:3]] == ["frog", "truck", "truck"]
    x = cifar.test.batch(torch.tensor([7])).x
    assert x.shape == (1, 3, 32, 32) and 0 <= x.min() < x.max() <= 1


@needs_cifar
def test_cifar10_is_kept_unpacked_and_read_from_any_container(
    cifar: DataSet, cache: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = (cache / "cifar10" / "records.uint8").read_bytes()
    assert len(records) == 60000 * 3073
    with tarfile.open(put(mine, "cifar10/cifar-10-binary.tar.gz", b""), "w") as archive:
        for i, batch in enumerate(data.images.BATCHES):
            part = records[i * 10000 * 3073 : (i + 1) * 10000 * 3073]
            put(mine, f"cifar10/{batch}.bin", part)
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{batch}.bin")
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    from_bin = data.cifar10(valid=5000)
    for batch in data.images.BATCHES:
        (mine / "cifar10" / f"{batch}.bin").unlink()
    from_tar = data.cifar10()
    monkeypatch.delenv("VAEKIT_DATA")
    monkeypatch.setenv("VAEKIT_CACHE", str(cache))
    from_cache = data.cifar10()
    for read in (from_tar, from_cache):
        assert same(read.train, cifar.train) and same(read.test, cifar.test)
    assert from_bin.valid is not None
    assert same(from_bin.valid, cifar.train.take(torch.arange(45000, 50000))) and same(from_bin.train, cifar.train.head(45000))


# Frey faces


@needs_frey
def test_frey_faces(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_DATA", HERE)
    frey = data.frey_faces()
    images = np.load(Path(HERE) / "freyfaces" / "freyfaces.npz")["images"]
    assert frey.valid is not None
    assert [len(split) for split in (frey.train, frey.valid, frey.test)] == [1565, 200, 200]
    assert frey.shape == (1, 28, 20)
    order = np.random.RandomState(0).permutation(1965)
    assert np.array_equal(frey.test.x[:, 0].numpy(), images[order[:200]])
    assert rows(frey.train, frey.valid, frey.test) == sorted(image.tobytes() for image in images)
    assert total(frey.train) + total(frey.valid) + total(frey.test) == 169968741
    assert same(data.frey_faces(seed=0).train, frey.train) and not same(data.frey_faces(seed=1).train, frey.train)
    # the published container: one column of 560 for each frame
    (mine / "freyfaces").mkdir()
    savemat(mine / "freyfaces" / "frey_rawface.mat", {"ff": images.reshape(1965, 560).T})
    monkeypatch.setenv("VAEKIT_DATA", str(mine))
    assert same(data.frey_faces().train, frey.train)


# OMNIGLOT


@needs_omniglot
def test_omniglot_by_alphabet_and_by_drawer() -> None:
    with np.load(Path(HERE) / "omniglot" / "omniglot_28.npz") as file:
        images, character, drawer, background = (file[key] for key in ("images", "character", "drawer", "background"))
    for read, training in ((data.omniglot(), background), (data.omniglot_drawers(), drawer <= 15)):
        assert read.valid is None and read.shape == (1, 28, 28)
        for split, chosen in ((read.train, training), (read.test, ~training)):
            assert np.array_equal(split.x[:, 0].numpy(), images[chosen])
            assert split.label is not None and np.array_equal(split.label.numpy(), character[chosen] - 1)
    alphabets, drawers = data.omniglot(), data.omniglot_drawers()
    assert [len(split) for split in (alphabets.train, alphabets.test)] == [19280, 13180]
    assert [len(split) for split in (drawers.train, drawers.test)] == [24345, 8115]
    assert total(alphabets.train) + total(alphabets.test) == 522937151
    assert float(alphabets.test.batch(torch.arange(100)).x.max()) == 1


@needs_omniglot
def test_omniglot_holds_out_random_drawings() -> None:
    whole, held, again, other = data.omniglot(), data.omniglot(1280), data.omniglot(1280), data.omniglot(1280, seed=1)
    assert held.valid is not None and held.valid.label is not None
    assert (len(held.train), len(held.valid)) == (18000, 1280)
    assert rows(held.train, held.valid) == rows(whole.train)
    assert len(held.valid.label.unique()) > 500  # of all alphabets, not the last one
    assert same(held.valid, again.valid) and not same(held.valid, other.valid)
    assert same(held.test, whole.test)
    with pytest.raises(InputError, match="valid=19280 cannot be held out of 19280 training drawings"):
        data.omniglot(19280)


@needs_omniglot
def test_omniglot_from_the_two_archives(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid out as the published ones, but with the drawings at 28 x 28 already, where the area average changes nothing."""
    monkeypatch.setenv("VAEKIT_DATA", HERE)
    expected = data.omniglot()
    monkeypatch.setenv("VAEKIT_DATA", str(mine))
    (mine / "omniglot").mkdir()
    for part, split, first in (("evaluation", expected.test, 965), ("background", expected.train, 1)):
        with zipfile.ZipFile(mine / "omniglot" / f"images_{part}.zip", "w") as archive:
            for i in reversed(range(len(split))):
                png = io.BytesIO()
                Image.fromarray(255 - split.x[i, 0].numpy()).save(png, "PNG", compress_level=0)
                archive.writestr(f"images_{part}/Alphabet/character01/{first + i // 20:04}_{1 + i % 20:02}.png", png.getvalue())
    read = data.omniglot()
    assert same(read.train, expected.train) and same(read.test, expected.test)
    for file in (mine / "omniglot").iterdir():
        file.unlink()
    assert same(data.omniglot().test, expected.test)  # kept, averaged, in the cache
