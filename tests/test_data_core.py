"""Split and DataSet: what they hold, what a batch is, and what they refuse."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

from vaekit.data import DataSet, Split, to_float
from vaekit.errors import InputError

BYTES = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_bytes_become_exact_fractions_of_255() -> None:
    x = to_float(torch.arange(256, dtype=torch.uint8))
    assert x.dtype == torch.float32
    expected = torch.tensor([i / 255 for i in range(256)], dtype=torch.float64).to(torch.float32)  # correctly rounded
    assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float32, torch.float64, torch.int16, torch.int64])
def test_other_dtypes_keep_their_values(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 1]).to(dtype)
    kept = x.clone()
    assert torch.equal(to_float(x), torch.tensor([0.0, 1.0, 1.0]))
    assert torch.equal(x, kept)


def test_preparing_leaves_the_stored_rows_alone() -> None:
    split = Split(BYTES.clone())
    split.batch(torch.arange(6)).x.zero_()
    floats = Split(torch.ones(3, 2))
    floats.batch(torch.arange(3)).x.zero_()
    assert torch.equal(split.x, BYTES)
    assert torch.equal(floats.x, torch.ones(3, 2))


def test_a_batch_holds_the_rows_that_were_asked_for() -> None:
    mask = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    split = Split(BYTES, mask=mask)
    index = torch.tensor([4, 0, 4])
    batch = split.batch(index)
    assert torch.equal(batch.x, BYTES[[4, 0, 4]].float() / 255)
    assert batch.x.dtype == torch.float32
    assert batch.mask is not None and torch.equal(batch.mask, mask[[4, 0, 4]])
    assert batch.index is not None and torch.equal(batch.index, index)
    assert batch.c is None
    assert Split(BYTES).batch(index).mask is None


def test_the_prepare_function_sees_stored_rows() -> None:
    seen: list[Tensor] = []

    def prepare(x: Tensor) -> Tensor:
        seen.append(x)
        return x.float() + 1

    batch = Split(BYTES, prepare=prepare).batch(torch.tensor([1]))
    assert torch.equal(seen[0], BYTES[1:2])
    assert torch.equal(batch.x, BYTES[1:2].float() + 1)


def test_head_take_and_to_keep_everything_in_step() -> None:
    mask = BYTES > 3
    split = Split(BYTES, label=torch.arange(6) * 10, prepare=torch.Tensor.double, mask=mask)
    for part, index in ((split.head(2), [0, 1]), (split.take(torch.tensor([5, 3])), [5, 3]), (split.to("cpu"), list(range(6)))):
        assert torch.equal(part.x, BYTES[index])
        assert part.label is not None and part.label.tolist() == [10 * i for i in index]
        assert part.mask is not None and torch.equal(part.mask, mask[index])
        assert part.prepare is torch.Tensor.double
        assert len(part) == len(index)
        assert part.shape == torch.Size([1, 2, 2])


@pytest.mark.parametrize("n", [0, 7, -1])
def test_head_refuses_what_is_not_there(n: int) -> None:
    with pytest.raises(InputError) as error:
        Split(BYTES).head(n)
    assert f"the first {n} rows of 6" in one_line(error)


def test_a_split_survives_pickling_for_worker_processes() -> None:
    split = pickle.loads(pickle.dumps(Split(BYTES, label=torch.arange(6))))
    assert split.prepare is to_float
    assert torch.equal(split.x, BYTES)


NAN = torch.tensor([[0.0, 1.0], [2.0, float("nan")]])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"x": torch.zeros(0, 3)}, "[0, 3] is empty"),
        ({"x": torch.zeros(3, 0)}, "[3, 0] is empty"),
        ({"x": torch.zeros(3)}, "x[:, None]"),
        ({"x": torch.zeros(3, 1, dtype=torch.complex64)}, "torch.complex64"),
        ({"x": torch.zeros(3, 1), "label": torch.arange(4)}, "int64 [4]; 3 rows need int64 [3]"),
        ({"x": torch.zeros(3, 1), "label": torch.zeros(3)}, "float32 [3]"),
        ({"x": torch.zeros(3, 1), "mask": torch.ones(3, dtype=torch.bool)}, "bool [3]; it must be bool [3, 1]"),
        ({"x": torch.zeros(3, 1), "mask": torch.ones(3, 1)}, "float32 [3, 1]"),
        ({"x": NAN}, "1 values are not finite in float32, the first in row 1; correct them, or mark them missing with a mask"),
        ({"x": torch.tensor([[float("inf")]])}, "row 0"),
        ({"x": torch.tensor([[1e39]], dtype=torch.float64)}, "not finite in float32"),
        ({"x": NAN, "mask": torch.tensor([[True, False], [True, True]])}, "row 1"),
    ],
)
def test_a_split_refuses(fields: dict[str, Tensor], words: str) -> None:
    with pytest.raises(InputError) as error:
        Split(**fields)  # type: ignore[arg-type]
    assert words in one_line(error)


def test_a_value_that_is_missing_may_be_anything() -> None:
    split = Split(NAN, mask=~NAN.isnan())
    batch = split.batch(torch.tensor([1]))
    assert batch.x[0, 1].isnan()
    assert torch.equal(batch.input, torch.tensor([[2.0, 0.0]]))


def test_a_data_set_finds_its_splits() -> None:
    train, valid, test = Split(BYTES[:3]), Split(BYTES[3:4]), Split(BYTES[4:])
    data = DataSet("toy", train=train, test=test, valid=valid)
    assert [data.split(name) for name in ("train", "valid", "test")] == [train, valid, test]
    assert data.shape == torch.Size([1, 2, 2])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tset", '"toy" has no split "tset"; did you mean "test"?'),
        ("all", "choose from: test, train"),
        ("valid", "no validation split; hold one out when it is read (valid=...)"),
    ],
)
def test_a_data_set_names_the_nearest_split(name: str, words: str) -> None:
    data = DataSet("toy", train=Split(BYTES[:3]), test=Split(BYTES[3:]))
    with pytest.raises(InputError) as error:
        data.split(name)
    assert words in one_line(error)


def test_a_data_set_refuses_splits_that_differ_in_shape() -> None:
    with pytest.raises(InputError) as error:
        DataSet("toy", train=Split(BYTES), test=Split(BYTES), valid=Split(BYTES.flatten(1)))
    assert '"toy": valid rows have shape [4], train rows [1, 2, 2]' in one_line(error)


@pytest.mark.parametrize("label", [[0, 2], [-1, 0]])
def test_a_data_set_refuses_labels_without_a_name(label: list[int]) -> None:
    rows = Split(BYTES[:2], label=torch.tensor(label))
    with pytest.raises(InputError) as error:
        DataSet("toy", train=rows, test=rows, label_names=("cat", "dog"))
    assert f"labels run from {min(label)} to {max(label)}, but there are 2 label names" in one_line(error)
