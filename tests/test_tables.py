"""Columns there and back (hypothesis), the volume terms by quadrature, each rule on columns made by its own distribution, and checking."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaekit.data import tables
from vaekit.data.tables import Schema
from vaekit.data.tables.rules import count_likelihood, figures_of, heavy
from vaekit.errors import InputError

pd = pytest.importorskip("pandas")

FAST = settings(max_examples=25, deadline=None)
EPS32 = 2.0**-23


def column(values: Any, kind: Any = None) -> tables.Column:
    """The one column of a frame of these values, beside one that varies."""
    other = np.random.default_rng(0).normal(size=len(values))
    return Schema.infer(pd.DataFrame({"other": other, "x": values}), overrides=None if kind is None else {"x": kind}).columns[1]


def same(series: Any, back: Any) -> None:
    pd.testing.assert_series_equal(series, back, check_names=False)


def holes(values: list[Any], draw: Any) -> list[Any]:
    """Some of the values replaced by None."""
    return [None if missing else value for value, missing in zip(values, draw, strict=True)]


# ---- there and back, by kind


@FAST
@given(
    st.lists(st.floats(-1e30, 1e30, allow_subnormal=False) | st.none(), min_size=3, max_size=30),
    st.sampled_from(["continuous", "heavy-tailed"]),
)
def test_numbers_come_back_to_float32s_precision_of_their_distance_from_the_middle(values: list[float | None], kind: str) -> None:
    present = [v for v in values if v is not None]
    if len(set(present)) < 2:
        return
    series = pd.Series(values, dtype="float64")
    try:
        found = column(series, kind)
    except InputError as error:
        assert "beyond float32" in str(error)
        return
    u = found.encode(series)
    assert u.dtype == np.float32 and np.array_equal(np.isnan(u), series.isna().to_numpy())
    back = found.decode(u)
    assert back.dtype == series.dtype and np.array_equal(back.isna(), series.isna())
    error = np.abs(back - series).dropna().to_numpy()
    x = series.dropna().to_numpy()
    assert (error <= EPS32 * np.abs(x - found.loc) + 1e-15 * (np.abs(x) + abs(found.loc)) + found.scale * 2.0**-149 + 1e-30).all()


@FAST
@given(st.lists(st.floats(1e-20, 1e20), min_size=3, max_size=30, unique=True))
def test_positive_numbers_come_back_in_ratio(values: list[float]) -> None:
    series = pd.Series(values)
    found = column(series, "positive")
    back = found.decode(found.encode(series))
    assert found.log and np.abs(np.log(back / series)).max() <= 1e-5


@FAST
@given(
    st.lists(st.integers(-(2**21), 2**21), min_size=3, max_size=30, unique=True),
    st.integers(-(2**62), 2**62),
    st.sampled_from(["int64", "Int64", "uint64", "int32", "float64"]),
    st.data(),
)
def test_whole_numbers_come_back_as_they_were_however_far_from_0(values: list[int], base: int, dtype: str, data: Any) -> None:
    if dtype in ("int32", "float64"):
        base %= 2**20
    base = base % 2**62 + 2**22 if dtype == "uint64" else base
    moved = [value + base for value in values]
    if dtype == "Int64":
        moved = holes(
            moved,
            data.draw(st.lists(st.booleans(), min_size=len(moved), max_size=len(moved)).filter(lambda gone: sum(gone) < len(gone) - 2)),
        )
    series = pd.Series(pd.array(moved, dtype=dtype)) if dtype == "Int64" else pd.Series(moved, dtype=dtype)
    found = column(series, "continuous")
    back = found.decode(found.encode(series))
    same(series, back)  # of float64 too: they were all whole


@FAST
@given(
    st.lists(st.integers(1, 2**20), min_size=3, max_size=30, unique=True),
    st.integers(0, 6),
    st.sampled_from(["float64", "float32"]),
    st.sampled_from(["continuous", "heavy-tailed", "positive"]),
)
def test_numbers_of_few_decimals_come_back_as_the_numbers_that_their_text_says(
    values: list[int], places: int, dtype: str, kind: str
) -> None:
    """The oracle is the reading of text; what is sampled has as many decimals, and a positive number stays one."""
    series = pd.Series([float(f"{value}e-{places}") for value in values]).astype(dtype)
    found = column(series, kind)
    assert found.decimals is not None and found.decimals <= places
    if kind != "positive" or max(values) < 2**14 * min(values):  # a logarithm in float32 keeps some six digits
        same(series, found.decode(found.encode(series)))
    drawn = found.decode(np.linspace(-9, 9, 50))
    least = np.float32(10.0**-found.decimals) if dtype == "float32" else 10.0**-found.decimals
    assert kind != "positive" or drawn.min() >= least
    text = [f"{value:.{found.decimals}f}" for value in drawn]
    assert np.array_equal(pd.Series(text).astype("float64").astype(dtype), drawn)


def test_numbers_of_many_decimals_are_not_rounded() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("float64", "float32"):
        assert column(pd.Series(rng.normal(size=30).astype(dtype)), "continuous").decimals is None
    shares = column(pd.Series(rng.uniform(size=200).round(2)), "unit")
    assert shares.decimals == 2 and set(shares.decode([0.123, 1.0, 0.0])) == {0.12, 1.0, 0.0}


@FAST
@given(
    st.lists(st.integers(0, 2**24), min_size=3, max_size=30, unique=True),
    st.sampled_from(["int64", "uint32", "float64", "Int64", "object"]),
)
def test_counts_come_back_and_are_what_they_are(values: list[int], dtype: str) -> None:
    series = pd.Series(values, dtype=dtype)
    found = column(series, "count")
    assert np.array_equal(found.encode(series), np.array(values, dtype=np.float32))
    same(series, found.decode(found.encode(series)))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)


@FAST
@given(st.lists(TEXTS, min_size=2, max_size=6, unique=True), st.sampled_from(["object", "string", "category", "ordered"]), st.data())
def test_categories_come_back_with_their_dtype(levels: list[str], dtype: str, data: Any) -> None:
    values = data.draw(st.lists(st.sampled_from(levels) | st.none(), min_size=12, max_size=30))
    if len(set(values) - {None}) < 2:
        return
    if dtype in ("category", "ordered"):
        series = pd.Series(pd.Categorical(values, categories=levels, ordered=dtype == "ordered"))
    else:
        series = pd.Series(pd.array(values, dtype="string")) if dtype == "string" else pd.Series(values, dtype=object)
    found = column(series)
    expected = {"ordered": "ordinal"}.get(dtype, "categorical")
    assert found.kind == ("binary" if found.size == 2 else expected)
    u = found.encode(series)
    assert set(u[~np.isnan(u)]) <= set(range(found.size))
    same(series, found.decode(u))
    if dtype == "ordered":
        assert found.categories == tuple(levels)


@FAST
@given(
    st.lists(st.booleans() | st.none(), min_size=6, max_size=20).filter(lambda v: {True, False} <= set(v)),
    st.sampled_from(["bool", "boolean", "object"]),
)
def test_truths_come_back(values: list[bool | None], dtype: str) -> None:
    if dtype == "bool":
        values = [bool(value) for value in values]
    series = pd.Series(pd.array(values, dtype=dtype)) if dtype == "boolean" else pd.Series(values, dtype=dtype)
    if series.nunique() < 2:
        return
    found = column(series)
    assert (found.kind, found.likelihood, found.categories) == ("binary", "Bernoulli", (False, True))
    same(series, found.decode(found.encode(series)))


DAY = st.integers(-10_000, 30_000)


@FAST
@given(
    st.lists(DAY, min_size=3, max_size=20, unique=True),
    st.sampled_from(["D", "h", "m", "s"]),
    st.sampled_from([None, "UTC", "Europe/Berlin", "America/St_Johns"]),
    st.sampled_from(["s", "us", "ns"]),
)
def test_dates_come_back_exactly_to_their_resolution(counts: list[int], step: str, zone: str | None, unit: str) -> None:
    stamps = (np.datetime64("2020-03-01") + np.array(counts).astype(f"timedelta64[{step}]")).astype(f"datetime64[{unit}]")
    series = pd.Series(stamps)
    series = series if zone is None else series.dt.tz_localize("UTC").dt.tz_convert(zone)
    series = series.mask(np.arange(len(series)) == 1)
    found = column(series)
    assert found.kind == "date"
    same(series, found.decode(found.encode(series)))


def test_values_beyond_float32_of_the_rest_are_refused_when_the_schema_is_made() -> None:
    with pytest.raises(InputError, match=r'column "x" holds -3585512791.0 in row 3, .*beyond float32'):
        column([0.0, 0.0, 0.0, -3585512791.0, -1.4214245325129966e-29], "heavy-tailed")


@pytest.mark.parametrize(("dtype", "middle", "reach"), [("int64", 0, 2**62), ("uint64", 2**63, 2**62), ("int64", 2**61, 2**62 + 2**60)])
def test_whole_numbers_of_all_64_bits_come_back_to_float32s_precision_of_their_range(dtype: str, middle: int, reach: int) -> None:
    values = [middle + sign * reach * i // 20 for i in range(1, 21) for sign in (-1, 1)]
    series = pd.Series(np.array(values, dtype=dtype))
    found = column(series, "continuous")
    back = found.decode(found.encode(series))
    assert back.dtype == dtype and max(abs(int(a) - b) for a, b in zip(back, values, strict=True)) < reach * 2**-21
    ends = [int(value) for u in (5.0, np.inf) for value in found.plain_values([-u, u])]
    assert ends == 2 * [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]


def test_a_constant_text_with_holes_is_what_it_was() -> None:
    frame = pd.DataFrame({"a": range(0, 90, 3), "b": pd.Series(["x", None, "x"] * 10, dtype="string")})
    for dtype in ("string", "object"):
        given = frame.assign(b=frame["b"].astype(dtype))
        schema = Schema.infer(given)
        assert schema.columns[1].kind == "constant" and schema.check(given) == ()
        with pytest.raises(InputError, match="holds 'y' in row 2: it was 'x' in every row"):
            schema.check(given.assign(b=given["b"].where(given.index != 2, "y")))


def test_what_float32_cannot_tell_apart_is_said() -> None:
    times = pd.Series(pd.to_datetime("2000-01-01") + pd.to_timedelta(np.random.default_rng(0).integers(0, 10**9, 1000), "s"))
    found = column(times)
    assert "float32 gives it back to" in found.because and "seconds" in found.because
    assert (found.decode(found.encode(times)) - times).abs().max() <= pd.Timedelta("32s")
    assert "float32" not in column(times.dt.floor("D")).because
    ids = pd.Series(np.random.default_rng(0).integers(0, 2**40, 1000))
    assert "float32 gives it back to" in column(ids, "continuous").because


def test_python_dates_and_objects_come_back() -> None:
    days = pd.Series([datetime.date(2020, 1, 1), None, datetime.date(1812, 6, 24), datetime.date(2020, 1, 1)], dtype=object)
    whole = pd.Series([3, None, -5, 10**6], dtype=object)
    for series in (days, whole):
        found = column(series)
        back = found.decode(found.encode(series))
        assert back.tolist() == series.tolist() and type(back[0]) is type(series[0])


def test_proportions_and_sampled_numbers_come_back_to_what_a_column_holds() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"unit": rng.beta(2, 2, 500), "count": rng.poisson(3, 500), "o": pd.Categorical(rng.choice(list("abc"), 500), ordered=True)}
    )
    schema = Schema.infer(frame)
    assert [c.kind for c in schema.columns] == ["unit", "count", "ordinal"]
    back = schema.decode(np.array([[1.2, -3.0, 7.0], [-0.1, 2.6, -1.0]]))
    assert back["unit"].tolist() == [1.0, 0.0] and back["count"].tolist() == [0, 3] and back["o"].tolist() == ["c", "a"]
    assert back.dtypes.equals(frame.dtypes)


def test_missing_values_of_dtypes_without_a_mark_become_nullable() -> None:
    frame = pd.DataFrame({"n": np.arange(100) % 7 * 3 - 4, "b": np.arange(100) % 3 == 0, "u": (np.arange(100) % 60).astype("uint8")})
    x, _ = Schema.infer(frame).encode(frame)
    x[0] = float("nan")
    back = Schema.infer(frame).decode(x)
    assert [str(dtype) for dtype in back.dtypes] == ["Int64", "boolean", "UInt8"] and back.iloc[0].isna().all()
    assert back.iloc[1:].astype(frame.dtypes.to_dict()).equals(frame.iloc[1:])


CONSTANT = {
    "int64": 7,
    "float64": 0.1,
    "bool": True,
    "object": "x",
    "string": "x",
    "Int64": 2**62 + 1,
    "uint8": 200,
    "boolean": False,
    "datetime64[ns]": pd.Timestamp("2020-05-01 10:00:00.000000001"),
    "datetime64[s]": pd.Timestamp("2020-05-01"),
    "datetime64[ns, Asia/Tokyo]": pd.Timestamp("2020-05-01", tz="Asia/Tokyo"),
    "category": "x",
    "date objects": datetime.date(2020, 5, 1),
}


@pytest.mark.parametrize("dtype", CONSTANT)
@pytest.mark.parametrize("empty", [False, True])
def test_constant_and_empty_columns_are_put_back_with_their_dtype(dtype: str, empty: bool) -> None:
    if empty and dtype in ("int64", "bool", "uint8"):
        return
    series = pd.Series([None if empty else CONSTANT[dtype]] * 5, dtype="object" if "date objects" in dtype else dtype)
    found = Schema.infer(pd.DataFrame({"x": series, "other": np.arange(5.0) ** 2}))
    stored = Schema.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert found.columns[0].kind == "constant" and stored == found
    same(series, found.decode(found.encode(pd.DataFrame({"x": series, "other": np.arange(5.0) ** 2}))[0])["x"])


# ---- the volume of u(x)


@pytest.mark.parametrize("kind", ["continuous", "heavy-tailed", "positive", "date"])
def test_densities_of_the_data_have_mass_1_by_their_volume_term(kind: str) -> None:
    """p(u) standard normal: exp(log p(u(x)) + log |du/dx|) integrates to 1 over x, by the trapezoid rule."""
    rng = np.random.default_rng(1)
    x = np.exp(rng.normal(1.0, 0.4, 400)) * 30
    series = pd.Series(np.datetime64("2021-01-01") + x.astype(int).astype("timedelta64[D]")) if kind == "date" else pd.Series(x)
    found = column(series, kind)
    grid = (
        np.linspace(1e-3, 1500, 400_001)
        if kind == "positive"
        else np.linspace(found.loc - 9 * found.scale, found.loc + 9 * found.scale, 100_001)
    )
    u = ((np.log(grid) if found.log else grid) - found.loc) / found.scale
    if kind != "date":
        assert np.allclose(found.encode(grid), u, atol=1e-6)
    density = np.exp(-0.5 * u**2 - 0.5 * np.log(2 * np.pi) + found.log_volume(u))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)


def test_codes_counts_and_proportions_have_no_volume_term() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"c": rng.poisson(3, 99), "k": rng.choice(list("abc"), 99), "b": rng.random(99) < 0.5, "u": rng.random(99)})
    schema = Schema.infer(frame)
    x, _ = schema.encode(frame)
    assert not schema.log_volume(x).any()


# ---- the rules, on columns made by each distribution

N = 2000
MADE = {
    "normal": (lambda r: r.normal(50, 3, N), "continuous", "Gaussian"),
    "uniform": (lambda r: r.uniform(-3, 9, N), "continuous", "Gaussian"),
    "bimodal": (lambda r: np.where(r.random(N) < 0.5, -4, 4) + r.normal(0, 1, N), "continuous", "Gaussian"),
    "student t, 3": (lambda r: 7 + 2 * r.standard_t(3, N), "heavy-tailed", "StudentT"),
    "cauchy": (lambda r: r.standard_cauchy(N), "heavy-tailed", "StudentT"),
    "laplace": (lambda r: r.laplace(0, 1, N), "heavy-tailed", "StudentT"),
    "normal, 1% off": (lambda r: r.normal(0, 1, N) + 15 * (np.arange(N) % 100 == 0), "heavy-tailed", "StudentT"),
    "log-normal": (lambda r: r.lognormal(3, 0.8, N), "positive", "LogNormal"),
    "gamma, 1": (lambda r: r.exponential(5, N), "positive", "LogNormal"),
    "incomes": (lambda r: np.rint(r.lognormal(10, 0.7, N)).astype(int), "positive", "LogNormal"),
    "poisson, 0.3": (lambda r: r.poisson(0.3, N), "count", "Poisson"),
    "poisson, 3": (lambda r: r.poisson(3, N), "count", "Poisson"),
    "poisson, 80": (lambda r: r.poisson(80, N).astype(float), "count", "Poisson"),
    "negative binomial": (lambda r: r.negative_binomial(2, 0.2, N), "count", "NegativeBinomial"),
    "zero-inflated poisson": (lambda r: r.poisson(6, N) * (r.random(N) < 0.6), "count", "ZeroInflatedPoisson"),
    "zero-inflated nb": (lambda r: r.negative_binomial(3, 0.2, N) * (r.random(N) < 0.5), "count", "ZeroInflatedNegativeBinomial"),
    "0 and 1": (lambda r: (r.random(N) < 0.1).astype(float), "binary", "Bernoulli"),
    "1 and 2": (lambda r: 1 + (r.random(N) < 0.1).astype(int), "binary", "Bernoulli"),
    "marks 1 to 5": (lambda r: r.choice([1, 2, 3, 4, 5], N), "ordinal", "Ordinal"),
    "half marks": (lambda r: r.choice([0.5, 1.0, 1.5, 2.0], N), "ordinal", "Ordinal"),
    "-2 to 2": (lambda r: r.integers(-2, 3, N), "ordinal", "Ordinal"),
    "years": (lambda r: r.integers(1950, 2021, N), "continuous", "Gaussian"),
    "degrees below 0": (lambda r: np.rint(r.normal(0, 10, N)).astype(int), "continuous", "Gaussian"),
    "proportions": (lambda r: r.beta(2, 3, N), "unit", "ContinuousBernoulli"),
    "proportions near 0 or 1": (lambda r: r.beta(0.3, 0.5, N), "unit", "ContinuousBernoulli"),
    "close together in [0, 1]": (lambda r: np.append(r.normal(0.5, 0.03, N - 2), [0.01, 0.99]), "heavy-tailed", "StudentT"),
    "a part of [0, 1]": (lambda r: r.uniform(0.2, 0.7, N), "continuous", "Gaussian"),
    "texts": (lambda r: r.choice(list("abcd"), N).astype(object), "categorical", "Categorical"),
    "two texts": (lambda r: r.choice(["no", "yes"], N).astype(object), "binary", "Bernoulli"),
}


@pytest.mark.parametrize("what", MADE)
@pytest.mark.parametrize("seed", range(5))
def test_a_column_is_of_the_kind_that_made_it(what: str, seed: int) -> None:
    make, kind, likelihood = MADE[what]
    found = column(make(np.random.default_rng(seed)))
    assert (found.kind, found.likelihood) == (kind, likelihood), found.because
    assert found.because


def test_gaussian_and_poisson_columns_are_seldom_taken_for_something_else() -> None:
    """The thresholds are 5 standard errors: of 400 columns of 100 rows, none."""
    rng = np.random.default_rng(3)
    numbers = Schema.infer(rng.normal(0, 1, (100, 400)))
    assert {c.kind for c in numbers.columns} == {"continuous"}
    counts = Schema.infer(rng.poisson(4, (100, 400)))
    assert {c.likelihood for c in counts.columns} == {"Poisson"}


def test_the_figures_of_counts_by_their_formulas() -> None:
    x = np.repeat([0.0, 1, 2, 6], [70, 10, 10, 10])
    f = figures_of(x)
    mean, variance = 0.9, 4.1 - 0.81
    assert (f.mean, f.variance, f.zeros) == (pytest.approx(mean), pytest.approx(variance), 70)
    r = mean**2 / (variance - mean)
    likelihood, why = count_likelihood(f)
    assert f"{variance / mean:.2g} times" in why and likelihood == "NegativeBinomial" and (r / (r + mean)) ** r > 0.6
    # above 0: mean 2.4, variance 2.2, where a Poisson without its zeros has 1.7
    z = np.repeat([0.0, 1, 2, 3, 4, 5, 6], [14000, 2400, 1200, 900, 800, 500, 200])
    assert count_likelihood(figures_of(z))[0] == "ZeroInflatedNegativeBinomial"
    from scipy import stats

    y = np.random.default_rng(0).gamma(1.5, 2.0, 300)
    g = figures_of(y)
    assert g.skewness == pytest.approx(stats.skew(y)) and g.kurtosis == pytest.approx(stats.kurtosis(y))
    assert g.log_skewness == pytest.approx(stats.skew(np.log(y)))
    for kurtosis, outliers, is_heavy in ((2.0, 0, True), (1.5, 0, False), (0.0, 3, True), (0.0, 2, False)):  # 1 + 5 sqrt(24 / 2000) = 1.55
        assert (heavy(replace(g, n=2000, kurtosis=kurtosis, outliers=outliers)) is not None) == is_heavy
    assert figures_of(y * 1e200).skewness == pytest.approx(g.skewness)


# ---- a whole table


def table(n: int = 400) -> Any:
    r = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "height": r.normal(170, 10, n),
            "income": r.lognormal(10, 1, n),
            "visits": r.poisson(2, n),
            "smoker": r.random(n) < 0.3,
            "town": pd.Series(r.choice(["Ulm", "Köln", "Rom"], n), dtype=object),
            "pain": pd.Categorical(r.choice(["none", "some", "much"], n), categories=["none", "some", "much"], ordered=True),
            "born": pd.Timestamp("1950-01-01") + pd.to_timedelta(r.integers(0, 20000, n), "D"),
            "site": "A",
            "empty": None,
        }
    )
    for name, share in {"height": 0.2, "income": 0.2, "town": 0.2, "born": 0.2}.items():
        frame.loc[r.random(n) < share, name] = None
    return frame


def test_a_mixed_table_there_and_back_with_its_dtypes_and_its_holes() -> None:
    frame = table()
    schema = Schema.infer(frame)
    kinds = "continuous positive count binary categorical ordinal date constant constant"
    assert [c.kind for c in schema.columns] == kinds.split()
    x, mask = schema.encode(frame)
    assert x.shape == (400, 7) and np.array_equal(mask.numpy(), frame.iloc[:, :7].notna().to_numpy()) and np.array_equal(~mask, x.isnan())
    pd.testing.assert_frame_equal(frame, schema.decode(x), rtol=1e-5)
    assert [c.missing for c in schema.columns][:2] == frame.isna().mean().tolist()[:2]


def test_a_schema_is_json_and_back() -> None:
    schema = Schema.infer(table(), overrides={"visits": "NegativeBinomial"})
    stored = json.loads(json.dumps(schema.to_json(), allow_nan=False))
    assert Schema.from_json(stored) == schema and tables.described(stored) == schema
    for change in (
        {"format": 3},
        {"what": "songs"},
        {"columns": [{"kind": "lilac", "name": "x", "dtype": "object"}]},
        {"columns": [{"kind": "count"}]},
    ):
        with pytest.raises(InputError):
            tables.described(stored | change)


def test_levels_that_numpy_holds_are_stored_as_json() -> None:
    frame = pd.DataFrame({"a": [0, 1, 2] * 20, "b": ["x", "y", "z"] * 20})
    for levels in (np.array([2, 0, 1]), [np.int64(2), np.int8(0), 1], pd.Series([2, 0, 1])):
        schema = Schema.infer(frame, overrides={"a": levels, "b": np.array(["z", "x", "y"])})
        assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
        assert schema.columns[0].categories == (2, 0, 1) and schema.columns[1].categories == ("z", "x", "y")


@pytest.mark.parametrize(
    ("place", "changed", "message"),
    [
        (0, {"loc": "x"}, "loc of column \"height\" is 'x'"),
        (0, {"scale": 0}, "scale of column \"height\" is '0'"),
        (0, {"scale": -1.0}, "scale of column"),
        (0, {"loc": float("nan")}, "loc of column"),
        (0, {"scale": None}, "scale of column"),
        (0, {"missing": True}, "missing of column"),
        (0, {"dtype": 3}, "dtype of column"),
        (0, {"name": [1]}, "name of column"),
        (0, {"decimals": "no"}, "decimals of column"),
        (0, {"decimals": 9}, "decimals of column"),
        (0, {"decimals": True}, "decimals of column"),
        (3, {"categories": []}, "categories of column"),
        (4, {"categories": "abc"}, "categories of column"),
        (4, {"categories": [[1], [2]]}, "categories of column"),
        (6, {"resolution": "fortnight"}, "resolution of column"),
        (7, {"value": [1]}, "value of column"),
        (0, {"besides": 1}, "is damaged .TypeError"),
    ],
)
def test_a_stored_schema_with_something_wrong_in_it_is_refused_in_a_line(place: int, changed: dict[str, Any], message: str) -> None:
    stored = json.loads(json.dumps(Schema.infer(table()).to_json()))
    stored["columns"][place].update(changed)
    with pytest.raises(InputError, match=message) as caught:
        Schema.from_json(stored)
    assert "\n" not in str(caught.value) and "restore it, or train again" in str(caught.value)
    for columns in ("x", 3, [3], ["ab"], None):
        with pytest.raises(InputError, match="is damaged"):
            Schema.from_json({**stored, "columns": columns})


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "25s", ">s"])
def test_dates_of_every_unit_of_numpy_come_back(unit: str) -> None:
    dates = np.arange(0, 90, 3).astype("datetime64[s]" if unit == ">s" else f"datetime64[{unit}]")
    given = dates.astype(">M8[s]") if unit == ">s" else dates
    found, fixed = Schema.infer(np.stack([given, given[:1].repeat(30)], axis=1)).columns
    assert (found.kind, fixed.kind) == ("date", "constant")
    back = found.decode(found.encode(given)).to_numpy()
    assert (back.astype(dates.dtype) == dates).all() and (found.encode(dates) == found.encode(given)).all()
    assert (fixed.decode(np.zeros(2)).to_numpy().astype(dates.dtype) == dates[0]).all()
    with pytest.raises(InputError, match=r"datetime64\[ps\].*astype\('datetime64\[ns\]'\)"):
        Schema.infer(np.arange(20).reshape(10, 2).astype("datetime64[ps]"))


def test_describe_names_every_column_and_why() -> None:
    text = Schema.infer(table()).describe().splitlines()
    assert len(text) == 10 and text[0].split() == ["column", "kind", "likelihood", "missing", "because"]
    assert "heavy" not in text[1] and text[1].startswith("height  continuous") and "skewness" in text[1] and "%" in text[1]


def test_order_does_not_matter_and_columns_besides_are_named() -> None:
    frame = table()
    schema = Schema.infer(frame)
    x, _ = schema.encode(frame)
    moved = frame[list(reversed(frame.columns))].assign(shoe=41)
    assert schema.check(moved) == ('column "shoe" is not in the schema, and left out',) and schema.check(frame) == ()
    assert np.array_equal(schema.encode(moved)[0], x, equal_nan=True)


WRONG: dict[str, tuple[Any, str]] = {
    "a column that is gone": (lambda f: f.drop(columns="visits"), 'column "visits" is missing from the table'),
    "a new category": (lambda f: f.assign(town=["Bonn", *f.town[1:]]), "column \"town\" holds 'Bonn' in row 0: .* new one"),
    "a new level": (lambda f: f.assign(pain=["none"] * 399 + ["awful"]), "column \"pain\" holds 'awful' in row 399"),
    "a negative count": (lambda f: f.assign(visits=[1, -2, *f.visits[2:]]), 'column "visits" holds -2 in row 1: it is a count'),
    "a broken count": (lambda f: f.assign(visits=[1, 2.5, *f.visits[2:]]), 'column "visits" holds 2.5 in row 1: it is a count'),
    "a huge count": (lambda f: f.assign(visits=[2**24 + 1, *f.visits[1:]]), 'column "visits" holds 16777217 in row 0'),
    "0 on a logarithmic scale": (
        lambda f: f.assign(income=[0.0] * 2 + list(f.income[2:])),
        r'column "income" holds 0.0 in row 0 \(and 1 more\)',
    ),
    "text for numbers": (lambda f: f.assign(height="tall"), "column \"height\" holds 'tall' in row 0 .*: it held numbers"),
    "numbers for text": (lambda f: f.assign(town=range(400)), 'column "town" holds 0 in row 0'),
    "numbers for dates": (lambda f: f.assign(born=1950.0), 'column "born" holds 1950.0 in row 0 .*: it held dates'),
    "a date with a time": (
        lambda f: f.assign(born=[pd.Timestamp("1950-01-01 12:30"), *f.born[1:]]),
        'column "born" .* row 0: .* whole days',
    ),
    "dates with a zone": (lambda f: f.assign(born=f.born.dt.tz_localize("UTC")), 'column "born" holds .* convert it'),
    "a constant that changes": (lambda f: f.assign(site=["A"] * 399 + ["B"]), "column \"site\" holds 'B' in row 399: it was 'A'"),
    "a value in an empty column": (lambda f: f.assign(empty=[None] * 9 + [3.0] * 391), 'column "empty" holds 3.0 in row 9'),
    "an infinite value": (lambda f: f.assign(height=[1, np.inf, *f.height[2:]]), 'column "height" is infinite in row 1'),
    "a value beyond float32": (
        lambda f: f.assign(height=[1e300, *f.height[1:]]),
        r'column "height" holds 1e\+300 in row 0, .* beyond float32',
    ),
    "no rows": (lambda f: f.iloc[:0], "0 rows"),
    "an array": (lambda f: np.zeros((3, 9)), 'column "height" .*is missing'),
}


@pytest.mark.parametrize("what", WRONG)
def test_new_data_that_do_not_fit_are_refused_in_a_line(what: str) -> None:
    frame = table()
    schema = Schema.infer(frame)
    change, message = WRONG[what]
    for use in (schema.check, schema.encode):
        with pytest.raises(InputError, match=message) as caught:
            use(change(frame))
        assert "\n" not in str(caught.value)


def test_dates_of_another_unit_fit() -> None:
    frame = table()
    schema = Schema.infer(frame)
    other = frame.assign(born=frame.born.astype("datetime64[s]"))
    assert np.array_equal(schema.encode(other)[0], schema.encode(frame)[0], equal_nan=True)


# ---- what the user says


def test_the_users_word_on_kinds() -> None:
    r = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": r.poisson(4, 200),
            "b": r.poisson(4, 200),
            "c": r.poisson(4, 200),
            "d": r.lognormal(0, 1, 200),
            "s": r.choice(["S", "M", "L"], 200),
        }
    )
    said = {"a": "continuous", "b": "ZeroInflatedNegativeBinomial", "c": "categorical", "d": "gaussian", "s": ["S", "M", "L"]}
    schema = Schema.infer(frame, overrides=said)
    assert [c.kind for c in schema.columns] == ["continuous", "count", "categorical", "continuous", "ordinal"]
    assert schema.columns[1].likelihood == "ZeroInflatedNegativeBinomial" and schema.columns[4].categories == ("S", "M", "L")
    pd.testing.assert_frame_equal(schema.decode(schema.encode(frame)[0]), frame, rtol=1e-5)
    assert [c.name for c in Schema.infer(frame, drop=["a", "s"]).columns] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"x": "coutn"}, 'did you mean "count"'),
        ({"y": "count"}, 'no column "y"; did you mean|no column "y"; choose'),
        ({"x": "count"}, r'column "x" holds 0\.12\d+ in row 0 \(and 199 more\): it is a count'),
        ({"x": "positive"}, "greater than 0"),
        ({"x": "unit"}, "from 0 to 1"),
        ({"x": "binary"}, "200 different values"),
        ({"x": "date"}, "needs dates, and holds numbers"),
        ({"t": "continuous"}, "needs numbers, and holds texts"),
        ({"t": ["a", "b"]}, "holds 'c'"),
        ({"t": ["a", "a", "b", "c"]}, "each once"),
        ({"x": [1.0, np.nan]}, "is given the level nan: give levels that are"),
        ({"t": ["a", "b", "c", "d", None]}, "is given the level None: give levels that are"),
        ({"t": ["a", ["b"]]}, r"is given the level \['b'\]: give levels"),
        ({"x": pd.date_range("2020-01-01", periods=3)}, "is given the level Timestamp"),
        ({"x": "constant"}, "no kind of column"),
    ],
)
def test_kinds_that_a_column_is_not_of(said: Any, message: str) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200), "t": pd.Series(list("abcd") * 50, dtype=object)})
    with pytest.raises(InputError, match=message) as caught:
        Schema.infer(frame, overrides=said)
    assert "\n" not in str(caught.value)


# ---- arrays, which need no pandas


def test_arrays_there_and_back() -> None:
    r = np.random.default_rng(0)
    x = np.stack([r.normal(5, 2, 300), r.poisson(3, 300), r.lognormal(0, 1, 300), np.full(300, 7.0)], axis=1)
    x[r.random(x.shape) < 0.1] = np.nan
    x[:, 3] = 7.0
    schema = Schema.infer(x)
    assert [(c.name, c.kind) for c in schema.columns] == [("x0", "continuous"), ("x1", "count"), ("x2", "positive"), ("x3", "constant")]
    numbers, mask = schema.encode(x)
    assert numbers.shape == (300, 3) and np.array_equal(mask, ~np.isnan(x[:, :3]))
    assert np.allclose(schema.decode_array(numbers), x, rtol=1e-5, equal_nan=True)
    with pytest.raises(InputError, match=r"give \[N, 3\]"):
        schema.decode_array(np.zeros((2, 4)))
    with pytest.raises(InputError, match="holds no numbers"):
        Schema.infer(table()).decode_array(np.zeros((2, 7)))
