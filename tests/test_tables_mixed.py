"""A table of every kind of column, a fifth missing: its types come back, and its likelihood is that of the process that made it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from vaekit import commands
from vaekit.data import tables

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
mixed = pytest.importorskip("benchmarks.mixed_table")

NAMES = ("temperature", "income", "visits", "children", "member", "city", "size", "joined")


# ---- the oracle


def test_the_density_of_the_process_is_scipys() -> None:
    """At given z, each column beside an implementation of somebody else's."""
    frame = mixed.rows(20, 0, missing=0.0)
    z = np.random.default_rng(0).normal(size=(6, 2))
    m = mixed.means(z)
    visits, children = (frame[name].to_numpy(dtype=float)[:, None] for name in ("visits", "children"))
    day = (frame["joined"] - pd.Timestamp("2020-01-01")).dt.days.to_numpy()[:, None]
    p = np.exp(m.city - np.logaddexp.reduce(m.city, axis=-1, keepdims=True))
    cdf = np.concatenate([np.zeros((1, 6)), stats.logistic.cdf(mixed.CUTS[:, None] - m.size), np.ones((1, 6))])
    level = frame["size"].cat.codes.to_numpy()
    expected = [
        stats.norm.logpdf(frame["temperature"].to_numpy()[:, None], m.temperature, 2.0),
        stats.lognorm.logpdf(frame["income"].to_numpy()[:, None], 0.3, scale=np.exp(m.income)),
        stats.nbinom.logpmf(visits, 3.0, 3.0 / (3.0 + m.visits)),
        stats.poisson.logpmf(children, m.children),
        np.log(np.abs(1 - frame["member"].to_numpy(dtype=float)[:, None] - stats.logistic.cdf(m.member))),
        np.log(p.T[frame["city"].cat.codes.to_numpy()]),
        np.log(cdf[level + 1] - cdf[level]),
    ]
    found = mixed.log_terms(frame, z)
    with np.errstate(divide="ignore"):
        expected.append(np.log(stats.norm.cdf(day + 0.5, m.joined, 90.0) - stats.norm.cdf(day - 0.5, m.joined, 90.0)))
    likely = np.stack(expected) > -20  # a difference of two numbers near 1 has no digits left further out
    np.testing.assert_allclose(found[likely], np.stack(expected)[likely], rtol=1e-6, atol=1e-6)
    assert likely.mean() > 0.5


def test_the_rows_of_the_process_are_of_its_density() -> None:
    """32 cells of three columns together by their frequencies, and the numbers by their distribution functions."""
    frame = mixed.rows(20_000, 1, missing=0.0)
    kinds = {"member": [False, True], "city": mixed.CITIES, "size": mixed.SIZES}
    cells = pd.DataFrame(list(itertools.product(*kinds.values())), columns=list(kinds))
    cells = cells.astype({name: frame[name].dtype for name in kinds}).reindex(columns=NAMES)
    cells = cells.astype({name: frame[name].dtype for name in NAMES})
    p = np.exp(mixed.exact(cells)[0])
    assert abs(p.sum() - 1) < 1e-9
    seen = frame.groupby(list(kinds), observed=False).size().reindex(pd.MultiIndex.from_frame(cells[list(kinds)])).to_numpy()
    assert stats.chisquare(seen, 20_000 * p).pvalue > 1e-3
    for name, grid, weight in (
        ("temperature", np.linspace(-25, 55, 801), 0.1),
        ("income", np.exp(np.linspace(2, 17, 801)), np.exp(np.linspace(2, 17, 801)) * 15 / 800),
        ("joined", np.datetime64("2020-01-01") + np.arange(-1400, 1400).astype("timedelta64[D]"), 1.0),
        ("visits", np.arange(200), 1.0),
    ):
        grid_frame = pd.DataFrame({name: grid}).reindex(columns=NAMES).astype({one: frame[one].dtype for one in NAMES})
        total = np.cumsum(np.exp(mixed.exact(grid_frame)[0]) * weight)
        assert abs(total[-1] - 1) < 1e-5, name
        half = 0.5 if name in ("temperature", "income") else 0.0  # of a step: cells around the points of the grid
        seen = np.searchsorted(np.sort(frame[name].to_numpy()), grid + half * np.gradient(grid) if half else grid, side="right") / 20_000
        assert np.abs(seen - total).max() < 1.95 / 20_000**0.5, name  # Kolmogorov: beyond it 1 in 1000


def test_the_quadrature_has_converged() -> None:
    frame = mixed.rows(100, 2)
    coarse, fine = mixed.exact(frame)[0], mixed.exact(frame, step=0.1, reach=8.0)[0]
    assert np.abs(coarse - fine).max() < 1e-4
    empty = frame.mask(np.ones(frame.shape, dtype=bool))
    assert np.abs(mixed.exact(empty)[0]).max() < 1e-9


# ---- types


@pytest.fixture(scope="module", params=["csv", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed.save(mixed.rows(1500, 3), tmp_path_factory.mktemp("mixed") / f"table.{request.param}")


def flags(path: Path) -> tuple[str, ...]:
    return mixed.KINDS if path.suffix == ".csv" else ()


def test_every_column_is_of_its_kind_and_comes_back(file: Path) -> None:
    """Of a fifth of the cells that is missing, and of the rest to float32."""
    frame = tables.read_table(file)
    found = tables.inspect(file, overrides={"size": mixed.SIZES} if file.suffix == ".csv" else None)
    schema = found.schema
    assert isinstance(schema, tables.Schema)
    kinds = ("continuous", "positive", "count", "count", "binary", "categorical", "ordinal", "date")
    assert tuple(column.kind for column in schema.columns) == kinds
    assert schema.columns[-1].resolution == "D"  # type: ignore[attr-defined]
    x, mask = schema.encode(frame)
    assert torch.equal(mask, torch.from_numpy(~frame.isna().to_numpy())) and 0.18 < 1 - mask.float().mean() < 0.22
    back = schema.decode(x)
    for name in NAMES:
        pd.testing.assert_series_equal(back[name], frame[name], rtol=1e-5)
    if file.suffix == ".parquet":
        assert back["size"].dtype == pd.CategoricalDtype(list(mixed.SIZES), ordered=True) and back["visits"].dtype == "Int64"
        assert back["member"].dtype == "boolean" and back["joined"].dtype == "datetime64[ns]"


def test_both_files_are_the_same_numbers(tmp_path: Path) -> None:
    encoded = []
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        data = tables.inspect(mixed.save(mixed.rows(300, 4), path), overrides={"size": mixed.SIZES} if path.suffix == ".csv" else None).data
        encoded.append(data.train.x)
    torch.testing.assert_close(*encoded, equal_nan=True, rtol=1e-6, atol=1e-6)


def test_sampled_rows_are_of_the_same_types(file: Path) -> None:
    """Read from the file that they were written to, as complete rows of what the model was trained on are read from such a file."""
    given = tables.read_table(mixed.save(tables.read_table(file).dropna(), file.parent / f"complete{file.suffix}"))
    run = commands.train("own:table", {"path": str(file), "kind": flags(file), "epochs": 1}, out=file.parent / "short", compile=False)
    _, path = commands.sample(run, n=400, out=file.parent / f"made{file.suffix}")
    made = tables.read_table(path)
    assert list(made.columns) == list(given.columns) and not made.isna().any().any() and len(made) == 400
    assert made.dtypes.to_dict() == given.dtypes.to_dict()
    assert made["visits"].min() >= 0 and (made["income"] > 0).all()
    assert set(made["city"]) <= set(mixed.CITIES) and set(made["size"]) <= set(mixed.SIZES)
    stamps = pd.to_datetime(made["joined"])
    assert (stamps == stamps.dt.normalize()).all() and stamps.between("2012-01-01", "2028-01-01").all()
    _, recipe = commands.load(run)
    assert recipe.known is not None and recipe.known.schema.check(made) == ()  # type: ignore[arg-type]


# ---- likelihood


def test_held_out_nats_are_those_of_the_process(tmp_path: Path) -> None:
    """Within 5% of its entropy, never better but by chance, and with most of what the columns tell of each other, of which a model
    of independent columns finds nothing."""
    frame = mixed.rows(800, 6)
    path, new = mixed.save(mixed.rows(2500, 5), tmp_path / "table.csv"), mixed.save(frame, tmp_path / "new.csv")
    run = commands.train("own:table", {"path": str(path), "kind": mixed.KINDS, "epochs": 50}, out=tmp_path / "run", compile=False)
    found = mixed.compared(frame, mixed.scores(run, new, samples=300))
    assert -3 * found.gap_se < found.gap < 0.05 * found.entropy
    assert found.dependence > 85
