"""Files: text, Parquet, archives and folders of images, read and divided as they should be; and inspect() from file to data set."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaekit.data import arrays, tables
from vaekit.data.tables import Pixels, Schema
from vaekit.data.tables.read import read_noted
from vaekit.errors import InputError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def write(folder: Path, content: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


# ---- text files


def test_what_the_fields_of_a_column_are_it_becomes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "whole,gap,broken,truth,maybe,day,time,text,code\n"
        '1,3,.5,true,,2020-01-31,2020-01-31T10:00:00,"a, b",007\n'
        "-2,,1e3,False,TRUE,2020-02-29,2020-02-29 11:30:00.25, Köln ,100\n"
        "+3,NA,4.,true,False,NA,2021-01-01,a,042\n",
    )
    frame = tables.read_table(path)
    assert frame["whole"].tolist() == [1, -2, 3] and frame["whole"].dtype == "int64"
    assert str(frame["gap"].dtype) == "Int64" and frame["gap"].tolist() == [3, pd.NA, pd.NA]
    assert frame["broken"].tolist() == [0.5, 1000.0, 4.0]
    assert frame["truth"].tolist() == [True, False, True] and frame["truth"].dtype == "bool"
    assert str(frame["maybe"].dtype) == "boolean" and frame["maybe"].tolist() == [pd.NA, True, False]
    assert frame["day"].tolist() == [pd.Timestamp("2020-01-31"), pd.Timestamp("2020-02-29"), pd.NaT]
    assert frame["time"].tolist() == [pd.Timestamp("2020-01-31 10:00"), pd.Timestamp("2020-02-29 11:30:00.25"), pd.Timestamp("2021-01-01")]
    assert frame["text"].tolist() == ["a, b", "Köln", "a"] and frame["code"].tolist() == ["007", "100", "042"]


@pytest.mark.parametrize(("separator", "name"), [(",", "t.csv"), (";", "t.csv"), ("|", "t.txt"), ("\t", "t.csv"), ("\t", "t.tsv")])
def test_separators_are_found(tmp_path: Path, separator: str, name: str) -> None:
    text = "\n".join(separator.join(row) for row in (["a", '"b,;|c"', "d"], ["1", "x", "2.5"], ["3", "y", "4.5"]))
    frame = tables.read_table(write(tmp_path, text, name))
    assert frame.columns.tolist() == ["a", "b,;|c", "d"] and frame["d"].tolist() == [2.5, 4.5]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('a,b\n"1,234",1\n"12,345,678",2\n7,3\n', [1234, 12345678, 7]),
        ('a,b\n"1,234.5",1\n"12,345,678.25",2\n7,3\n', [1234.5, 12345678.25, 7.0]),
        ('a,b\n"1,5",1\n"-2,75",2\n7,3\n', [1.5, -2.75, 7.0]),
        ("a;b\n1,5;1\n1.234,75;2\n7;3\n", [1.5, 1234.75, 7.0]),
        ("a;b\n1,234;1\n2,345;2\n7,100;3\n", [1.234, 2.345, 7.1]),
        ("a;b\n9.007.199.254.740.993;1,5\n1.234;2\n7;3\n", [9007199254740993, 1234, 7]),
        ("a;b\n1.234;1,5\n2.5;2\n0.125;3\n", [1.234, 2.5, 0.125]),  # 2.5 is no number with points between thousands
        ("a;b\n1.234;15\n2.345;2\n7.100;3\n", [1.234, 2.345, 7.1]),  # no decimal commas
        ("a;b\nNA;1,5\n;2\n7;3\n.;4\n", [pd.NA, pd.NA, 7, pd.NA]),
    ],
)
def test_commas_in_numbers(tmp_path: Path, text: str, values: list[float]) -> None:
    assert tables.read_table(write(tmp_path, text))["a"].tolist() == values


@pytest.mark.parametrize("hole", [False, True])
def test_whole_numbers_with_commas_do_not_pass_through_floats(tmp_path: Path, hole: bool) -> None:
    values = [9_007_199_254_740_993, -9_223_372_036_854_775_808, 7]
    path = write(tmp_path, 'a,b\n"+9,007,199,254,740,993",1\n"-9,223,372,036,854,775,808",2\n7,3\n' + (",4\n" if hole else ""))
    found = tables.read_table(path)["a"]
    assert found.dtype == ("Int64" if hole else "int64") and found.dropna().tolist() == values and len(found) == 3 + hole
    frame, notes = read_noted(write(tmp_path, 'a,b\n"9,223,372,036,854,775,807,000",1\n7,3\n' + (",4\n" if hole else "")))
    assert frame["a"].dtype == "float64" and frame["a"][0] == 9.223372036854775807e21 and "beyond 64 bits" in notes[-1]


@pytest.mark.parametrize("zone", ["", "Z"])
def test_dates_beyond_those_of_nanoseconds(tmp_path: Path, zone: str) -> None:
    clock = f"T10:00:00{zone}" if zone else ""
    days = ["1500-01-02", "9999-12-31", "2020-01-01"]
    found = tables.read_table(write(tmp_path, "a,b\n" + "".join(f"{day}{clock},1\n" for day in days) + ",2\n"))["a"]
    assert found.dt.strftime("%Y-%m-%d").tolist()[:3] == days and found.isna().tolist() == [False, False, False, True]
    assert (str(found.dtype).endswith("UTC]"), found.dt.hour.tolist()[0]) == (bool(zone), 10 if zone else 0)
    schema = Schema.infer(pd.DataFrame({"a": found, "b": range(0, 8, 2)}))
    assert schema.decode(schema.encode(pd.DataFrame({"a": found, "b": range(0, 8, 2)}))[0])["a"].dtype == found.dtype
    with pytest.raises(InputError, match='"2020-02-31" in line 3, which is no date'):
        tables.read_table(write(tmp_path, "a,b\n9999-12-31,1\n2020-02-31,2\n"))
    with pytest.raises(InputError, match="after 2262, and times finer than microseconds"):
        tables.read_table(write(tmp_path, "a,b\n9999-12-31,1\n2020-01-31 10:00:00.123456789,2\n"))


def test_points_that_may_stand_between_thousands_are_refused_beside_decimal_commas(tmp_path: Path) -> None:
    for rows in ("1.234;1,5\n7;2\n", "NA;3\n-23.456;1,5\n", "7;2,25\n.;2\n999.999;1\n"):
        with pytest.raises(InputError, match=r'column "a" .* holds "-?[1-9.]+" beside columns with decimal commas') as caught:
            tables.read_table(write(tmp_path, "a;b\n" + rows))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "line"),
    [("a,b\n", 12), ("\n\na,b\n", 14), ("a,b\n\n\n1,x\n\n", 16), ('a,b\n1,"x\ny\n\nz"\n', 16), ("\r\na,b\r\n\r\n", 14), ('"a",b\n', 12)],
)
def test_mistakes_are_in_the_lines_that_are_named(tmp_path: Path, before: str, line: int) -> None:
    text = before + "".join(f"{i},x\n" for i in range(10)) + "oops,y\n"
    assert text.split("\n")[line - 1] == "oops,y"
    with pytest.raises(InputError, match=f'"oops" in line {line}:'):
        tables.read_table(write(tmp_path, text))
    with pytest.raises(InputError, match=f'"2020-02-31" in line {line}, which is no date'):
        tables.read_table(write(tmp_path, before.replace("1,", "2020-01-01,") + "2020-01-01,x\n" * 10 + "2020-02-31,x\n"))
    with pytest.raises(InputError, match=f"the quote in line {line} is not closed"):
        tables.read_table(write(tmp_path, before + "1,x\n" * 10 + '1,"x\n2,x\n'))


def test_lines_of_a_file_of_one_column_count_the_empty_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"oops" in line 16:'):
        tables.read_table(write(tmp_path, "\n\na\n" + "1\n\n" + "1\n" * 10 + "oops\n"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    for encoding in (None, "utf-8", "utf-8-sig"):
        assert tables.read_table(tmp_path / "t.csv", encoding=encoding).columns.tolist() == ["a", "b"]


@pytest.mark.parametrize("separator", ["::", "", '"', "\n"])
def test_a_separator_is_one_character(tmp_path: Path, separator: str) -> None:
    with pytest.raises(InputError, match="separated by .*: give a separator of one character"):
        tables.read_table(write(tmp_path, "a::b\n1::2\n"), separator=separator)


def test_missing_fields_may_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,NA\n-99,DE\n3,NA\n")
    frame = tables.read_table(path, missing=["-99"])
    assert frame["a"].tolist() == [1, pd.NA, 3] and frame["b"].tolist() == ["NA", "DE", "NA"]


def test_encodings_and_separators_may_be_said_and_files_packed(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "t.csv"
    path.write_bytes("a;b,c\nдом;1\n".encode("koi8-r"))
    assert tables.read_table(path, encoding="koi8-r", separator=";")["a"].tolist() == ["дом"]
    with pytest.raises(InputError, match="t.csv is not ascii: line 2, byte 1"):
        tables.read_table(path, encoding="ascii")
    with pytest.raises(InputError, match='"klingon" is no encoding'):
        tables.read_table(path, encoding="klingon")
    (tmp_path / "u.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert tables.read_table(tmp_path / "u.csv.gz").to_numpy().tolist() == [[1, 2]]


def test_a_csv_of_pandas_comes_back(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": r.normal(size=300), "b": r.integers(-9, 9, 300), "c": pd.Series(r.choice(["x", 'y "z"', "u,\nv"], 300), dtype=object)}
    )
    frame["d"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(r.integers(0, 9999, 300), "h")
    frame.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(tables.read_table(tmp_path / "t.csv"), frame, check_dtype=False)


def test_parquet_keeps_dtypes(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": r.normal(size=200),
            "b": pd.Categorical(r.choice(list("xyz"), 200), ordered=True),
            "c": pd.array(r.integers(-50, 50, 200), dtype="Int32"),
        }
    )
    frame["d"] = pd.date_range("2020-01-01", periods=200, tz="Asia/Tokyo")
    frame.loc[3, "c"] = pd.NA
    frame.to_parquet(tmp_path / "t.parquet")
    found = tables.inspect(tmp_path / "t.parquet")
    assert isinstance(found.schema, Schema)
    pd.testing.assert_frame_equal(found.schema.decode(found.schema.encode(frame)[0]), frame, rtol=1e-5)


def test_inspecting_a_table_divides_it_as_arrays_are_divided(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    frame = pd.DataFrame({"a": r.normal(size=80), "b": r.choice(list("xyz"), 80)})
    frame.loc[7, "a"] = None
    frame.to_csv(tmp_path / "people.csv", index=False)
    found = tables.inspect(tmp_path / "people.csv", overrides={"b": ["z", "x", "y"]}, valid=0.25, test=8, seed=4)
    assert isinstance(found.schema, Schema) and found.data.name == "people"
    x, mask = found.schema.encode(frame)
    expected = arrays(x, mask=mask, valid=0.25, test=8, seed=4)
    for name in ("train", "valid", "test"):
        one, other = found.data.split(name), expected.split(name)
        assert torch.equal(one.x.nan_to_num(9), other.x.nan_to_num(9)) and torch.equal(one.mask, other.mask)
    assert found.describe().startswith("people: 52 training, 20 validation, 8 test rows\ncolumn")
    assert tables.inspect(frame, valid=0).data.valid is None


# ---- arrays


def test_arrays_in_files(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    x, y = r.normal(size=(40, 3)), r.integers(0, 2, 40)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", X=x, y=y)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    np.savez(tmp_path / "more.npz", X=x, note=np.array("hello"))
    plain, labelled = tables.inspect(tmp_path / "x.npy"), tables.inspect(tmp_path / "x.npz")
    assert torch.equal(plain.data.train.x, labelled.data.train.x) and plain.data.train.label is None
    assert torch.equal(labelled.data.train.label, arrays(x, label=y).train.label)
    assert tables.inspect(tmp_path / "more.npz").notes == ("note in more.npz left out",)
    with pytest.raises(InputError, match=r"holds a \[40, 3\], b \[40, 3\]"):
        tables.inspect(tmp_path / "two.npz")


def test_the_adbench_tables_are_read(data_dir: Path) -> None:
    for path in sorted((data_dir / "adbench").glob("*.npz")):
        found = tables.inspect(path)
        assert found.data.train.label is not None and isinstance(found.schema, Schema), path
        x = np.load(path)["X"]
        back = found.schema.decode_array(found.schema.encode(x)[0])
        assert np.allclose(back, x, rtol=1e-4, atol=1e-5 * x.std(axis=0).max()), path


@pytest.mark.parametrize(
    ("x", "shape", "likelihood"),
    [
        (np.random.default_rng(0).integers(0, 256, (20, 6, 5), dtype=np.uint8), (1, 6, 5), "DiscretisedLogistic"),
        (np.random.default_rng(0).integers(0, 256, (20, 3, 6, 5), dtype=np.uint8), (3, 6, 5), "DiscretisedLogistic"),
        (np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8), (3, 6, 5), "DiscretisedLogistic"),
        (np.random.default_rng(0).integers(0, 2, (20, 6, 5), dtype=np.uint8) * 255, (1, 6, 5), "Bernoulli"),
        (np.random.default_rng(0).random((20, 6, 5)) < 0.5, (1, 6, 5), "Bernoulli"),
        (np.random.default_rng(0).random((20, 1, 6, 5)), (1, 6, 5), "ContinuousBernoulli"),
        (np.random.default_rng(0).integers(0, 2, (20, 1, 6, 5)).astype(float), (1, 6, 5), "Bernoulli"),
    ],
)
def test_images_in_arrays(x: Any, shape: tuple[int, ...], likelihood: str) -> None:
    found = tables.inspect(x)
    assert isinstance(found.schema, Pixels) and (found.schema.shape, found.schema.likelihood) == (shape, likelihood)
    assert found.data.shape == shape
    assert found.schema.check(x.reshape(20, *shape) if x.shape[-1] != 3 else x.transpose(0, 3, 1, 2)) == ()
    assert tables.described(found.schema.to_json()) == found.schema


def test_new_images_are_checked() -> None:
    r = np.random.default_rng(0)
    grey = Pixels.infer(r.integers(0, 256, (20, 1, 6, 5), dtype=np.uint8))
    black = Pixels.infer(r.integers(0, 2, (20, 1, 6, 5), dtype=np.uint8) * 255)
    for pixels, x, message in (
        (grey, np.zeros((2, 1, 5, 6), dtype=np.uint8), r"images of \[1, 5, 6\] .* trained on \[1, 6, 5\]"),
        (grey, np.zeros((2, 3, 6, 5), dtype=np.uint8), r"images of \[3, 6, 5\]"),
        (grey, np.zeros((2, 1, 6, 5)), "images are float64, and the model was trained on uint8"),
        (black, np.full((2, 1, 6, 5), 7, dtype=np.uint8), "image 0 .* more than two values"),
    ):
        with pytest.raises(InputError, match=message):
            pixels.check(x)


# ---- folders and archives of images


def picture(seed: int, mode: str = "L", size: tuple[int, int] = (5, 6)) -> tuple[Any, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    out = io.BytesIO()
    image.save(out, "png")
    return np.asarray(image), out.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_of_folders_and_archives(tmp_path: Path, packed: bool, mode: str) -> None:
    made = {f"{'cat' if i % 3 else 'dog'}/{i:02d}.png": picture(i, mode) for i in range(30)}
    files = {name: data for name, (_, data) in made.items()} | {
        "notes.txt": b"hello",
        "cat/.hidden.png": b"no",
        "__MACOSX/cat/a.png": b"no",
    }
    path = tmp_path / "animals"
    if packed:
        path = tmp_path / "animals.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    found = tables.inspect(path, valid=4, test=5)
    x = np.stack([pixels for _, (pixels, _) in sorted(made.items())])
    x = x[:, None] if mode == "L" else x.transpose(0, 3, 1, 2)
    y = np.array([name.startswith("dog") for name in sorted(made)], dtype=np.int64)
    expected = arrays(x, label=y, valid=4, test=5)
    assert torch.equal(found.data.train.x, expected.train.x) and torch.equal(found.data.train.label, expected.train.label)
    assert (found.data.label_names, found.data.name, found.notes) == (("cat", "dog"), "animals", ())
    assert "30 images of 5 x 6, " + ("grey" if mode == "L" else "3 channels") in found.describe()


def test_transparency_is_left_out_and_said(tmp_path: Path) -> None:
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 4), dtype=np.uint8)
        pixels[..., 3] = 255 if i < 15 else 100
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = tables.inspect(tmp_path)
    assert (
        found.data.shape == (3, 4, 4)
        and found.notes == ("5 images are transparent in places, which is left out",)
        and found.data.train.label is None
    )


def test_a_hundred_thousand_rows_are_inspected_by_columns_not_by_cells(tmp_path: Path) -> None:
    """Against reading the same file with pandas, side by side: not more than 15 times as long."""
    import time

    r = np.random.default_rng(0)
    frame = pd.DataFrame({f"n{i}": r.normal(size=30_000) for i in range(6)} | {f"c{i}": r.poisson(4, 30_000) for i in range(2)})
    frame = frame.assign(t=r.choice(list("abc"), 30_000), u=r.choice(["no", "yes"], 30_000))
    frame.to_csv(tmp_path / "t.csv", index=False)

    def seconds(action: Any) -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    ours, theirs = [], []
    for _ in range(3):
        ours.append(seconds(lambda: tables.inspect(tmp_path / "t.csv")))
        theirs.append(seconds(lambda: pd.read_csv(tmp_path / "t.csv")))
    assert min(ours) < 15 * min(theirs), (ours, theirs)
