"""arrays(): permutation and counts against numpy, missing values, and everything that is refused; binarise() by its distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vaekit.data import DataSet, Split, arrays, bernoulli, binarise, permutation
from vaekit.errors import InputError

X = np.arange(60, dtype=np.float32).reshape(20, 3)


def rows(split: Split | None) -> list[int]:
    """The row numbers of X that a split holds."""
    assert split is not None
    return (split.x[:, 0] / 3).long().tolist()


def test_the_split_is_numpys_frozen_permutation() -> None:
    order = np.random.RandomState(7).permutation(20).tolist()
    data = arrays(X, valid=3, test=5, seed=7)
    assert (rows(data.test), rows(data.valid), rows(data.train)) == (order[:5], order[5:8], order[8:])
    assert permutation(20, 7).tolist() == order
    assert permutation(6, 0).tolist() == [5, 2, 1, 3, 0, 4]  # written down: a change of the stream would change every published split


@pytest.mark.parametrize(
    ("valid", "test", "sizes"), [(0.1, 0.1, (16, 2, 2)), (0.25, 0.34, (8, 5, 7)), (4, 0.5, (6, 4, 10)), (1, 18, (1, 1, 18))]
)
def test_splits_are_disjoint_cover_all_rows_and_have_the_sizes_asked_for(valid: float, test: float, sizes: tuple[int, ...]) -> None:
    data = arrays(X, label=np.arange(20), valid=valid, test=test, seed=1)
    splits = [data.train, data.valid, data.test]
    assert tuple(len(split) for split in splits if split is not None) == sizes
    assert sorted(i for split in splits for i in rows(split)) == list(range(20))
    for split in splits:
        assert split is not None and split.label is not None and split.label.tolist() == rows(split)


def test_seeds() -> None:
    assert rows(arrays(X, seed=3).train) == rows(arrays(X, seed=3).train)
    assert rows(arrays(X, seed=3).train) != rows(arrays(X, seed=4).train)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    arrays(X)
    assert torch.equal(before, torch.get_rng_state())


def test_given_splits_are_kept_in_order_and_nothing_is_drawn() -> None:
    data = arrays(X[:10], test=X[10:15], valid=torch.from_numpy(X[15:]))
    assert (rows(data.train), rows(data.test), rows(data.valid)) == (list(range(10)), list(range(10, 15)), list(range(15, 20)))
    half = arrays(X[:10], test=X[10:], valid=2, seed=5)
    order = np.random.RandomState(5).permutation(10).tolist()
    assert (rows(half.valid), rows(half.train), rows(half.test)) == (order[:2], order[2:], list(range(10, 20)))


def test_no_validation_split() -> None:
    assert arrays(X, valid=0).valid is None
    assert arrays(X, valid=0.0).valid is None


def test_the_shape_and_values_stay_as_given() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5), dtype=np.uint8)
    data = arrays(images, valid=0, test=1)
    assert data.shape == torch.Size([4, 5])  # no channel axis is invented
    assert data.train.x.dtype == torch.uint8
    assert torch.equal(data.train.batch(torch.arange(9)).x, torch.from_numpy(images)[permutation(10, 0)[1:]].float() / 255)
    counts = arrays(images.astype(np.uint16), valid=0, test=1)
    assert torch.equal(counts.train.batch(torch.arange(9)).x, torch.from_numpy(images)[permutation(10, 0)[1:]].float())


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", "f2", ">i2", "u4", "?", "longdouble"])
def test_every_numeric_dtype_and_byte_order_is_read(dtype: str) -> None:
    x = (np.arange(8).reshape(4, 2) % 2).astype(dtype)
    train = arrays(x[::-1], test=np.ones((1, 2)), valid=0).train  # negative strides too
    assert torch.equal(train.batch(torch.arange(4)).x, torch.tensor([[0.0, 1.0]] * 4))
    assert train.x.dtype != torch.float64


def test_the_caller_keeps_the_memory() -> None:
    for x in (X.copy(), torch.from_numpy(X.copy())):
        data = arrays(x, test=x, valid=0)
        x[:] = -1
        assert rows(data.train) == rows(data.test) == list(range(20))


def test_nan_is_missing_and_stays_missing() -> None:
    x = X.copy()
    x[3, 1] = x[8, 2] = np.nan
    data = arrays(x, test=5, valid=0)
    for split in (data.train, data.test):
        assert split.mask is not None and torch.equal(split.mask, ~split.x.isnan())
        assert torch.equal(split.batch(torch.arange(len(split))).mask, split.mask)  # type: ignore[arg-type]
    assert sum(int(split.x.isnan().sum()) for split in (data.train, data.test)) == 2
    assert arrays(X).train.mask is None
    assert arrays(X, test=x, valid=0).test.mask is not None


def test_masks_add_up() -> None:
    x = X.copy()
    x[0, 0] = np.nan
    mask = np.ones(X.shape, dtype=bool)
    mask[1, 1] = False
    hidden = np.zeros(X.shape, dtype=bool)
    hidden[2, 2] = True
    train = arrays(np.ma.MaskedArray(x, hidden), mask=mask, test=X, valid=0).train
    assert train.mask is not None and (~train.mask).nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert arrays(X, mask=np.ones(X.shape, dtype=bool)).train.mask is not None  # asked for, so kept


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": np.array([["a"], ["b"]])}, "<U1 values"),
        ({"x": np.array([[None], [1]])}, "object values"),
        ({"x": np.zeros((9, 2), dtype=complex)}, "complex128"),
        ({"x": np.zeros((0, 2))}, "[0, 2] is empty"),
        ({"x": np.arange(9.0)}, "no event axis"),
        ({"x": np.full((9, 1), np.inf)}, "9 values are not finite"),
        ({"test": 0}, "test=0 leaves no test rows; hold out at least one of the 20 rows"),
        ({"test": 0.01}, "test=0.01 of 20 rows is less than one row"),
        ({"test": 1.0}, "test=1.0 is no amount of rows"),
        ({"test": -1}, "test=-1 is no amount"),
        ({"valid": -0.1}, "valid=-0.1 is no amount"),
        ({"valid": True}, "valid=True is no amount"),
        ({"valid": None}, "valid=None is no amount"),
        ({"valid": "half"}, "valid='half' is no amount"),
        ({"test": float("nan")}, "test=nan is no amount"),
        ({"test": 10, "valid": 10}, "test=10 and valid=10 rows leave none of 20 for training"),
        ({"test": X[:, :2]}, "test rows have shape [2], train rows [3]"),
        ({"test": X[:0]}, "[0, 3] is empty"),
        ({"label": np.arange(19)}, "int64 [19]; 20 rows need int64 [20]"),
        ({"label": np.arange(20) / 2}, "one integer class a row"),
        ({"label": np.array(["cat"] * 20)}, "label holds <U3 values"),
        ({"mask": np.ones((20, 2), dtype=bool)}, "bool [20, 2]; it must be bool [20, 3]"),
        ({"mask": np.ones((20, 3))}, "the mask is float32 [20, 3]"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_arrays_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        arrays(**{"x": X, **options})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# Binarisation. Oracle: pixels of byte v are 1 in Binomial(n, v / 255) of n cases.


def grey(n: int = 300, shape: tuple[int, ...] = (1, 16, 16)) -> Split:
    return Split(torch.arange(256, dtype=torch.uint8).view(shape).expand(n, *shape).contiguous(), label=torch.arange(n))


def chi_square(x: torch.Tensor) -> float:
    """How far the ones of each byte value are from their binomial mean, over 254 values, in standard deviations of the chi-square."""
    n = len(x)
    ones = x.flatten(1).double().sum(0)[1:255]
    p = torch.arange(1, 255).double() / 255
    z = (ones - n * p) / (n * p * (1 - p)).sqrt()
    return float((z.square().sum() - 254) / (2 * 254) ** 0.5)


def test_training_pixels_are_bernoulli_and_drawn_anew_at_every_read() -> None:
    data = binarise(DataSet("grey", train=grey(), test=grey()))
    torch.manual_seed(0)
    index = torch.arange(300)
    first, second = data.train.batch(index).x, data.train.batch(index).x
    for x in (first, second):
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert x.dtype == torch.float32
        assert x.flatten(1)[:, 0].sum() == 0
        assert x.flatten(1)[:, 255].sum() == 300
        assert abs(chi_square(x)) < 4
    # two draws agree at p^2 + (1 - p)^2 of the places
    p = torch.arange(256).double() / 255
    agree, variance = p.square() + (1 - p).square(), 2 * p * (1 - p) * (1 - 2 * p * (1 - p))
    z = ((first == second).double().sum() - 300 * agree.sum()) / (300 * variance.sum()).sqrt()
    assert abs(float(z)) < 4
    torch.manual_seed(0)
    assert torch.equal(data.train.batch(index).x, first)  # the global generator, and nothing else


def test_evaluation_pixels_are_bernoulli_and_drawn_once() -> None:
    data = binarise(DataSet("grey", train=grey(), test=grey(), valid=grey(), label_names=tuple(map(str, range(300)))), seed=5)
    assert data.valid is not None and data.label_names is not None
    index = torch.arange(300)
    for split, seed in ((data.test, 5), (data.valid, 6)):
        x = split.batch(index).x
        assert abs(chi_square(x)) < 4
        state = torch.get_rng_state()
        assert torch.equal(split.batch(index).x, x)
        assert torch.equal(torch.get_rng_state(), state)
        u = np.random.RandomState(seed).random_sample((300, 1, 16, 16))  # as the docstring says
        assert np.array_equal(x.numpy(), u < grey().x.numpy() / 255)
        assert split.label is not None and torch.equal(split.label, index)
    assert not torch.equal(data.test.x, data.valid.x)


def test_float_images_are_probabilities_as_they_are() -> None:
    x = torch.full((2000, 1), 0.25)
    data = binarise(DataSet("quarter", train=Split(x), test=Split(x)))
    sd = (2000 * 0.25 * 0.75) ** 0.5
    torch.manual_seed(1)
    for split in (data.train, data.test):
        assert abs(float(split.batch(torch.arange(2000)).x.sum()) - 500) < 4 * sd


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split(torch.tensor([[0.0, 1.5]])), "pixels from 0 to 1.5; a probability lies in [0, 1]"),
        (Split(torch.tensor([[-0.5, 1.0]])), "pixels from -0.5 to 1"),
        (Split(torch.zeros(1, 2), prepare=bernoulli), "already prepared"),
        (Split(torch.zeros(1, 2), mask=torch.tensor([[True, False]])), "missing pixels"),
    ],
)
def test_binarise_refuses(split: Split, words: str) -> None:
    good = Split(torch.zeros(1, 2))
    for data in (DataSet("bad", train=split, test=good), DataSet("bad", train=good, test=split)):
        with pytest.raises(InputError) as error:
            binarise(data)
        assert words in str(error.value)
