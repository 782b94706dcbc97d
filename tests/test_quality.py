"""Scores of samples against loops written from the papers, closed forms and constructed sets; and the features they are taken in."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oracles import z_score
from vaekit import VAE, Conditional, Training, fit, heads, priors
from vaekit.data import arrays, digits
from vaekit.data.binarise import bernoulli
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.evaluate import (
    classifier,
    classifier_features,
    distances,
    frechet_distance,
    gaussian_frechet,
    kernel_distance,
    neighbour_scores,
    neighbours,
    sample_quality,
)
from vaekit.evaluate.features import describe, extract
from vaekit.recipes.digits import digits as recipe
from vaekit.train.files import read, write

SCORES = ("precision", "recall", "density", "coverage")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- nearest neighbours ----------------------------------------------------------------------------------------------------------------


def radius(points: list[list[float]], i: int, k: int) -> float:
    return sorted(math.dist(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]


def by_loops(x: list[list[float]], y: list[list[float]], k: int) -> list[float]:
    """Eq. 1 and 2 of Kynkaanniemi et al. and the definitions of Naeem et al., pair by pair."""
    rx, ry = [radius(x, i, k) for i in range(len(x))], [radius(y, j, k) for j in range(len(y))]
    precision = sum(any(math.dist(b, a) <= r for a, r in zip(x, rx, strict=True)) for b in y) / len(y)
    recall = sum(any(math.dist(a, b) <= r for b, r in zip(y, ry, strict=True)) for a in x) / len(x)
    density = sum(math.dist(b, a) <= r for b in y for a, r in zip(x, rx, strict=True)) / (k * len(y))
    coverage = sum(any(math.dist(a, b) <= r for b in y) for a, r in zip(x, rx, strict=True)) / len(x)
    return [precision, recall, density, coverage]


@pytest.mark.parametrize(("n", "m", "k"), [(40, 25, 1), (25, 40, 3), (30, 30, 5)])
def test_neighbour_scores_against_loops(n: int, m: int, k: int) -> None:
    x, y = normal(n, n, 3), 0.8 * normal(m + 1, m, 3) + 0.5
    found = neighbour_scores(x, y, k=k)
    assert [getattr(found, name) for name in SCORES] == pytest.approx(by_loops(x.tolist(), y.tolist(), k), abs=1e-12)
    assert len({round(getattr(found, name), 6) for name in SCORES}) > 2  # they are not all the same number


def test_sets_whose_scores_are_known() -> None:
    """Itself (duplicates too): 1, and density the mean number of balls around a point over k. Far apart: 0. One of two modes: 1 and 1/2."""
    x = normal(0, 200, 2)
    same = neighbour_scores(x, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(6 / 5)  # a ball holds its 5 nearest and its own centre
    twice = neighbour_scores(x.repeat(3, 1), x, k=2)  # every radius of the real ones is 0, and 0 <= 0
    assert (twice.precision, twice.recall, twice.coverage, twice.density) == (1, 1, 1, 1.5)
    apart = neighbour_scores(x, x + 100)
    assert [getattr(apart, name) for name in SCORES] == [0, 0, 0, 0]
    modes = torch.cat([x, x + 100])
    half = neighbour_scores(modes, x)
    assert (half.precision, half.recall, half.coverage) == (1, 0.5, 0.5)
    both = neighbour_scores(x, modes)  # and the other way round
    assert (both.precision, both.recall, both.coverage) == (0.5, 1, 1)


def test_density_and_coverage_of_equal_distributions() -> None:
    """Naeem et al., Lemmas 1 and 2: E density = 1, E coverage = 1 - prod (N - i) / (N + M - i); 400 seeds, N = 60, M = 40."""
    found = [neighbour_scores(normal(2 * s, 60, 3), normal(2 * s + 1, 40, 3), k=3) for s in range(400)]
    density, coverage = (torch.tensor([getattr(f, name) for f in found], dtype=torch.float64) for name in ("density", "coverage"))
    expected = 1 - (59 * 58 * 57) / (99 * 98 * 97)
    assert found[0].coverage_expected == pytest.approx(expected, rel=1e-12)
    assert abs(z_score(density, 1)) < 4 and abs(z_score(coverage, expected)) < 4
    assert density.std() / 20 < 0.01 and coverage.std() / 20 < 0.005  # the errors that these z-scores are in


def test_errors_of_neighbour_scores_are_those_of_leaving_tenths_out() -> None:
    """Without a tenth of both, the loops again, ten times; scores of a set are what they are whatever the tenths."""
    x, y = normal(0, 31, 3), 0.8 * normal(1, 43, 3) + 0.5
    found = neighbour_scores(x, y, k=3, seed=4)
    g = torch.Generator().manual_seed(4)
    orders = [torch.randperm(n, generator=g) for n in (31, 43)]
    left = []
    for tenths in zip(*(order.tensor_split(10) for order in orders), strict=True):
        a, b = (t[[i for i in order.tolist() if i not in gone]].tolist() for t, order, gone in zip((x, y), orders, tenths, strict=True))
        left.append(by_loops(a, b, 3))
    values = torch.tensor(left, dtype=torch.float64)
    want = (9 / 10 * (values - values.mean(0)).square().sum(0)).sqrt()
    stated = [getattr(found, f"{name}_se") for name in SCORES]
    assert stated == pytest.approx(want.tolist(), rel=1e-10) and min(stated) > 0
    other = neighbour_scores(x, y, k=3, seed=5)
    assert [getattr(other, name) for name in SCORES] == [getattr(found, name) for name in SCORES]
    assert other.recall_se != found.recall_se


def test_errors_of_neighbour_scores_are_their_scatter() -> None:
    """60 seeds: the root mean square of the standard errors between 0.9 and 1.8 times the standard deviation, never too small."""
    found = [neighbour_scores(normal(2 * s, 300, 4), normal(2 * s + 1, 300, 4) + 0.6, k=3) for s in range(60)]
    for name in SCORES:
        scatter = torch.tensor([getattr(f, name) for f in found]).std()
        stated = torch.tensor([getattr(f, f"{name}_se") for f in found]).square().mean().sqrt()
        assert 0.9 < stated / scatter < 1.8, (name, float(stated), float(scatter))
    for rows, k in ((9, 3), (12, 10)):  # fewer than ten tenths; without a tenth no tenth neighbour
        few = neighbour_scores(normal(0, rows, 4), normal(1, 50, 4), k=k)
        assert math.isnan(few.recall_se) and math.isfinite(few.recall)


@pytest.mark.parametrize("pairs", [1, 700, 12_345, 10**9])
def test_no_bit_depends_on_the_chunks(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(0, 150, 7).float(), normal(1, 130, 7).float() + 0.3
    expected = neighbour_scores(x, y, k=3)
    sizes: list[int] = []
    cdist = torch.cdist

    def seen(a: Tensor, b: Tensor, **options: str) -> Tensor:
        sizes.append(len(a) * len(b))
        return cdist(a, b, **options)

    monkeypatch.setattr(neighbours, "PAIRS", pairs)
    monkeypatch.setattr(torch, "cdist", seen)
    assert asdict(neighbour_scores(x, y, k=3)) == asdict(expected)
    assert max(sizes) <= max(pairs, 150) and 150 * 150 in sizes if pairs == 10**9 else max(sizes) <= max(pairs, 150)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of one program is read from /proc")
def test_memory_is_bounded() -> None:
    """6000 rows each: a whole matrix of distances would take 288 MB, and the scores take less than 200 MB more than nothing does."""
    code = (
        "import torch; from vaekit.evaluate import distances as d, neighbours as n;"
        "rss = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); x, y = torch.randn(2, 6000, 2); before = rss();"
        "n.neighbour_scores(x, y); d.kernel_distance(x, y); d.frechet_distance(x, y); print((rss() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert 20 < int(done.stdout) < 200


# --- the kernel distance ---------------------------------------------------------------------------------------------------------------


def kernel(a: list[float], b: list[float]) -> float:
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def kid(x: list[list[float]], y: list[list[float]]) -> float:
    """Eq. 4 of Binkowski et al., pair by pair."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("tile", [4, 7, 1024])
def test_kernel_distance_and_its_error_against_loops(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the two-sample jackknife: each row left out, and the distance computed anew."""
    monkeypatch.setattr(distances, "TILE", tile)
    a, b = 2 * normal(0, 13, 3), normal(1, 17, 3) + 0.5
    x, y = a.tolist(), b.tolist()
    found = kernel_distance(a, b)
    assert found.distance == pytest.approx(kid(x, y), rel=1e-10)
    variance = 0.0
    for left in ([kid(x[:i] + x[i + 1 :], y) for i in range(13)], [kid(x, y[:j] + y[j + 1 :]) for j in range(17)]):
        n = len(left)
        variance += (n - 1) / n * sum((value - sum(left) / n) ** 2 for value in left)
    assert found.distance_se == pytest.approx(math.sqrt(variance), rel=1e-8)


def test_kernel_distance_of_point_masses() -> None:
    """At a and b: k(a, a) + k(b, b) - 2 k(a, b), without an error; of a set with itself the loops', the diagonal left out."""
    a, b = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0.0, 3.0, 1.0])
    found = kernel_distance(a.expand(4, 3), b.expand(6, 3))
    assert found.distance == pytest.approx((6 / 3 + 1) ** 3 + (10 / 3 + 1) ** 3 - 2 * (-1 / 3 + 1) ** 3, rel=1e-12)
    assert found.distance_se == pytest.approx(0, abs=1e-9)
    x = normal(0, 12, 3)
    assert kernel_distance(x, x).distance == pytest.approx(kid(x.tolist(), x.tolist()), rel=1e-12)


def test_kernel_distance_is_unbiased_and_knows_its_error() -> None:
    """300 seeds of 40 and 50 rows. Equal distributions: mean 0, error up to sqrt 2 too large. A shift by s in each of F = 4 dimensions of
    N(0, I): E (a.b / F + 1)^3 = (t + 1)^3 + 3 (t + 1) v + third moment, for a.b / F of mean t and variance v."""

    def expected(s: float) -> float:
        # x.x': t = 0, v = 1 / F; x.y: t = 0, v = (1 + s^2) / F; y.y': t = s^2, v = (1 + 2 s^2) / F, third moment 6 s^2 / F^2
        f = 4
        skew = 6 * s**2 / f**2
        xx, xy = 1 + 3 / f, 1 + 3 * (1 + s**2) / f
        yy = (s**2 + 1) ** 3 + 3 * (s**2 + 1) * (1 + 2 * s**2) / f + skew
        return xx + yy - 2 * xy

    for s, low, high in ((0.0, 1.0, 1.6), (0.7, 0.85, 1.2)):
        found = [kernel_distance(normal(2 * i, 40, 4), normal(2 * i + 1, 50, 4) + s) for i in range(300)]
        values = torch.tensor([f.distance for f in found], dtype=torch.float64)
        assert abs(z_score(values, expected(s))) < 4
        stated = torch.tensor([f.distance_se for f in found]).square().mean().sqrt()
        assert low < stated / values.std() < high
    assert expected(0.0) == 0 and expected(0.7) > 10 * values.std() / math.sqrt(300)


# --- the Frechet distance --------------------------------------------------------------------------------------------------------------


def covariance(seed: int, f: int, rank: int) -> Tensor:
    a = normal(seed, f, rank)
    return a @ a.mT


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    zero, eye = torch.zeros(3).double(), torch.eye(3).double()
    assert gaussian_frechet(zero, eye, torch.tensor([1.0, 2.0, -2.0]), eye) == pytest.approx(9, rel=1e-12)
    # commuting: sum of (s_i - t_i)^2, one of them flat, in a turned basis
    turn = torch.linalg.qr(normal(0, 3, 3)).Q
    s, t = torch.tensor([3.0, 1.0, 0.0]).double(), torch.tensor([1.0, 5.0, 2.0]).double()
    found = gaussian_frechet(zero, turn * s.square() @ turn.mT, zero, turn * t.square() @ turn.mT)
    assert found == pytest.approx(4 + 16 + 4, rel=1e-9)
    # two dimensions, not commuting: tr (A B)^1/2 = sqrt(tr A B + 2 sqrt det A B)
    a, b = covariance(1, 2, 2), covariance(2, 2, 2)
    assert (a @ b - b @ a).abs().max() > 0.1
    cross = math.sqrt((a @ b).trace() + 2 * math.sqrt(torch.linalg.det(a @ b)))
    assert gaussian_frechet(zero[:2], a, zero[:2], b) == pytest.approx(float(a.trace() + b.trace()) - 2 * cross, rel=1e-10)


@pytest.mark.parametrize(("f", "rank_a", "rank_b"), [(6, 6, 6), (6, 6, 3), (8, 3, 4)])
def test_frechet_distance_against_scipy(f: int, rank_a: int, rank_b: int) -> None:
    """The square root of the product itself, as the first programs did it; flat covariances lose half its digits there."""
    linalg = pytest.importorskip("scipy.linalg")
    a, b, m = covariance(3, f, rank_a), covariance(4, f, rank_b), normal(5, f)
    tiny = 0 if rank_a == rank_b == f else 1e-12
    root = linalg.sqrtm((a + tiny * torch.eye(f)).numpy() @ (b + tiny * torch.eye(f)).numpy())
    want = float(m.square().sum() + a.trace() + b.trace()) - 2 * root.trace().real
    assert gaussian_frechet(m, a, torch.zeros(f), b) == pytest.approx(want, rel=1e-10 if not tiny else 1e-4)


def test_frechet_distance_of_samples_is_that_of_their_moments() -> None:
    x, y = normal(0, 50, 4) @ normal(1, 4, 4), normal(2, 60, 4) + 1
    found = frechet_distance(x, y)
    assert found.distance == pytest.approx(gaussian_frechet(x.mean(0), x.mT.cov(), y.mean(0), y.mT.cov()), rel=1e-10)
    shift = torch.tensor([1.0, 0.0, 2.0, -2.0])
    moved = frechet_distance(x, x + shift)
    assert moved.distance == pytest.approx(9, rel=1e-9) and moved.limit == pytest.approx(9, abs=6 * moved.distance_se)
    assert frechet_distance(x, x).distance == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x[:, :1], y[:, :1]).distance == pytest.approx(
        float((x[:, 0].mean() - y[:, 0].mean()) ** 2 + (x[:, 0].std() - y[:, 0].std()) ** 2), rel=1e-9
    )


def test_fewer_rows_than_features() -> None:
    """Ranks N - 1 and M - 1; the distance is that of the flat Gaussians, and no limit is taken. All rows equal: rank 0."""
    x, y = normal(0, 6, 20), normal(1, 9, 20)
    found = frechet_distance(x, y)
    assert found.rank == (5, 8) and math.isnan(found.limit)
    # by another road: tr (S_x S_y)^1/2 is the nuclear norm of X_c Y_c^T / sqrt((N - 1) (M - 1))
    a, b = (t - t.mean(0) for t in (x, y))
    cross = torch.linalg.svdvals(a @ b.mT).sum() / math.sqrt(5 * 8)
    want = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() / 5 + b.square().sum() / 8 - 2 * cross
    assert found.distance == pytest.approx(float(want), rel=1e-10)
    flat = frechet_distance(torch.ones(5, 2), torch.tensor([[1.0, 3.0]]).expand(4, 2))
    assert flat.rank == (0, 0) and flat.distance == pytest.approx(4)


@pytest.mark.parametrize(("n", "f", "shift", "top"), [(100, 4, 0.3, 1.6), (240, 40, 0.15, 1.0)])
def test_limit_and_error_of_the_frechet_distance(n: int, f: int, shift: float, top: float) -> None:
    """120 seeds: the distance is far too large on average, its limit is right by z-score; the stated error is within a fifth of the scatter
    of the limit where distributions differ, and between the scatter and 1.7 times of it for the distance of equal ones."""
    scale = torch.linspace(1, top, f, dtype=torch.float64)
    exact = f * shift**2 + float((scale - 1).square().sum())
    found = [frechet_distance(normal(2 * s, n, f), normal(2 * s + 1, n, f) * scale + shift) for s in range(120)]
    value, limit, se = (torch.tensor([getattr(g, a) for g in found], dtype=torch.float64) for a in ("distance", "limit", "distance_se"))
    assert z_score(value, exact) > 5 and abs(z_score(limit, exact)) < 4
    assert 0.75 < se.square().mean().sqrt() / limit.std() < 1.25
    equal = [frechet_distance(normal(2 * s, n, f), normal(2 * s + 1, n, f)) for s in range(120)]
    values = torch.tensor([g.distance for g in equal])
    assert 1 < torch.tensor([g.distance_se for g in equal]).square().mean().sqrt() / values.std() < 1.7
    assert abs(z_score(torch.tensor([g.limit for g in equal]), 0)) < 4


def test_error_of_the_frechet_distance_is_that_of_leaving_rows_out() -> None:
    """Skewed features, so that mean and covariance vary together: the jackknife over all rows agrees within 1%."""
    x, y = normal(0, 200, 3).exp(), (0.5 * (normal(1, 300, 3) @ normal(2, 3, 3) + 1.5)).exp()
    variance = 0.0
    for n, without in ((200, lambda keep: (x[keep], y)), (300, lambda keep: (x, y[keep]))):
        left = torch.tensor([frechet_distance(*without(torch.arange(n) != i)).distance for i in range(n)], dtype=torch.float64)
        variance += (n - 1) / n * float((left - left.mean()).square().sum())
    assert frechet_distance(x, y).distance_se == pytest.approx(math.sqrt(variance), rel=0.01)


# --- what is no feature ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [neighbour_scores, kernel_distance, frechet_distance])
def test_bad_features_are_refused(score: Callable[[Tensor, Tensor], object]) -> None:
    x = normal(0, 20, 3)
    for bad, message in (
        (x[:, :2], "3 features and generated ones 2"),
        (x[:, 0], r"generated examples have shape \[20\]"),
        (x[:0], r"shape \[0, 3\]"),
        (torch.where(x > 1, torch.nan, x), "generated examples are not finite"),
        (x[:1], "1 generated examples|at least"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            score(x, bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, r"features of x \[4, 1, 8, 8\] came back as \[4, 1, 8, 8\]: they must be a tensor \[4, F\]"),
        (lambda x: x.flatten(1)[:2], r"came back as \[2, 64\]"),
        (lambda x: x.flatten(1).numpy(), "came back as a ndarray"),
        (lambda x: x.flatten(1)[:, :0], r"came back as \[4, 0\]"),
        (lambda x: x.flatten(1).log(), "not finite"),
        (lambda x: x.flatten(1)[:, : 60 + len(x)], "some examples have 64 features and others 63"),
    ],
    ids=["not flat", "rows", "numpy", "none", "infinite", "width"],
)
def test_functions_that_return_no_features(function: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        extract(function, [torch.zeros(n, 1, 8, 8) for n in (4, 3)])
    assert "\n" not in str(caught.value)


def test_a_module_is_in_evaluation_mode_meanwhile() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    net[0].eval()
    assert torch.equal(extract(net, [torch.ones(2, 3)]), torch.ones(2, 3, dtype=torch.float64))
    assert net.training and not net[0].training and net[1].training
    assert describe(net) == "Sequential"


# --- features of a classifier ----------------------------------------------------------------------------------------------------------


def stripes(n: int, seed: int) -> Split:
    """8 x 8 noise, brighter in the left or in the right half."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (n,), generator=g)
    x = torch.rand(n, 1, 8, 8, generator=g) * 0.6
    x[label == 0, :, :, :4] += 0.4
    x[label == 1, :, :, 4:] += 0.4
    return Split(x, label=label)


STRIPES = DataSet("stripes", train=stripes(300, 0), test=stripes(100, 1))


def test_features_are_stored_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    made = classifier_features(STRIPES, epochs=3)
    assert made.path.parent == tmp_path / "cache" / "features" and made.path.name.startswith("stripes-")
    monkeypatch.setattr("vaekit.evaluate.features.classifier", lambda *_, **__: pytest.fail("trained again"))
    found = classifier_features(STRIPES, epochs=3)
    x = STRIPES.test.batch(torch.arange(20)).x
    assert found.record == made.record and torch.equal(found(x), made(x)) and found(x).shape == (20, 128)
    assert made.record.data == "stripes" and made.record.accuracy > 0.95 and len(made.record.weights) == 64
    for part in ("stripes", f"{100 * made.record.accuracy:.1f} +- ", f"sha256:{made.record.weights[:12]}"):
        assert part in str(found)
    monkeypatch.undo()
    # what the stored layer is: the one before the last of that very classifier
    judge = classifier(STRIPES, epochs=3)
    torch.testing.assert_close(judge.net[-1](found(x)), judge.net(x))
    assert judge.accuracy == made.record.accuracy


def test_other_data_or_settings_are_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them in a file of its own by default; the file that a person names is not taken for another."""
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path))
    path = tmp_path / "mine.safetensors"
    classifier_features(STRIPES, path=path, epochs=1)
    flipped = DataSet("stripes", train=Split(STRIPES.train.x, label=1 - STRIPES.train.label), test=STRIPES.test)
    altered = STRIPES.train.x.clone()
    altered[7, 0, 3, 3] += 1e-3
    for data, options in (
        (flipped, {}),
        (DataSet("stripes", train=Split(altered, label=STRIPES.train.label), test=STRIPES.test), {}),
        (DataSet("stripes", train=Split(STRIPES.train.x, label=STRIPES.train.label, prepare=bernoulli), test=STRIPES.test), {}),
        (DataSet("other", train=STRIPES.train, test=STRIPES.test), {}),
        (STRIPES, {"seed": 1}),
        (STRIPES, {"epochs": 2}),
    ):
        with pytest.raises(InputError, match='holds features of "stripes".*give another path, or delete it') as caught:
            classifier_features(data, path=path, **{"epochs": 1, **options})
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "features").exists()
    classifier_features(flipped, epochs=1)
    classifier_features(STRIPES, epochs=1)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    classifier_features(STRIPES, path=path, epochs=1)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    tensors, value = read(path)
    swapped = tmp_path / "swapped.safetensors"
    write(swapped, {name: t + 1 for name, t in tensors.items()}, value)
    for content, message in (
        (whole[: len(whole) // 2], "cannot be read.*delete it to train the features anew"),
        (bytes(flipped), "not as it was written.*delete it to train the features anew"),
        (b"", "cannot be read"),
        (swapped.read_bytes(), "other weights than it says"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            classifier_features(STRIPES, path=path, epochs=1)
        assert "\n" not in str(caught.value) and path.read_bytes() == content
    write(path, tensors, {"format": 99})
    with pytest.raises(InputError, match="no features that this version of vaekit reads"):
        classifier_features(STRIPES, path=path, epochs=1)


def test_nowhere_to_store_them_is_told_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("vaekit.evaluate.features.classifier", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"cannot be stored in .*x.safetensors \(.*\): set VAEKIT_CACHE") as caught:
        classifier_features(STRIPES, path=tmp_path / "file" / "x.safetensors")
    assert "\n" not in str(caught.value)


def test_the_classifier_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed seeds every GPU's generator, whose state a CPU-only fork does not put back; nobody may call that here."""
    for place in ("torch.manual_seed", "torch.cuda.manual_seed_all", "torch.cuda.manual_seed"):
        monkeypatch.setattr(place, lambda _: pytest.fail("a GPU's generator was seeded"))
    before = torch.get_rng_state()
    classifier(STRIPES, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_classifier_leaves_cuda_generators_alone() -> None:
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    classifier(STRIPES, epochs=1)
    assert torch.equal(torch.cuda.get_rng_state(), before)


# --- a model's samples -----------------------------------------------------------------------------------------------------------------


def gaussian(scale: float) -> VAE:
    """x ~ N(0, I + scale^2 I) in two dimensions."""
    copy = Conditional(nn.Identity(), heads.GaussianFixed(2, scale))
    return VAE(priors.StandardNormal(2), copy, copy)


def plane(n: int = 900, valid: int = 0) -> DataSet:
    return arrays(normal(0, n, 2).float().numpy(), test=n // 2, valid=valid, name="plane")


def identity(x: Tensor) -> Tensor:
    return x


def test_sample_quality_puts_the_scores_together() -> None:
    """Features of samples by hand give the same numbers; the seed decides them, and the caller's random numbers are left alone."""
    model, data = gaussian(0.5).train(), plane()
    state = torch.get_rng_state()
    found = sample_quality(model, data, features=identity, samples=300, k=3, seed=5)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert found == sample_quality(model, data, features=identity, samples=300, k=3, seed=5)
    assert found.kernel != sample_quality(model, data, features=identity, samples=300, k=3, seed=6).kernel
    assert (found.samples, found.real, found.dimensions, found.k, found.mean) == (300, 300, 2, 3, True)
    assert found.features == "identity" and found.notes == ()
    torch.manual_seed(5)
    y = model.sample(300)
    torch.manual_seed(5)
    x = data.test.x[torch.randperm(450)[:300]]
    near = neighbour_scores(x, y, k=3, seed=5)
    assert all(getattr(found, name) == value for name, value in asdict(near).items())
    assert (found.kernel, found.kernel_se) == (kernel_distance(x, y).distance, kernel_distance(x, y).distance_se)
    assert (found.frechet, found.frechet_limit) == (frechet_distance(x, y, seed=5).distance, frechet_distance(x, y, seed=5).limit)
    assert found.as_dict()["recall"] == found.recall and found.as_dict()["rank"] == (2, 2)


def test_draws_and_centres_are_told_apart() -> None:
    """x ~ N(0, I): centres of p(x | z) are as the data, draws with a noise of 2 are not; and the other way round for wide data."""
    wide = arrays(math.sqrt(5) * normal(0, 900, 2).float().numpy(), test=450, name="wide")
    for data, good in ((plane(), True), (wide, False)):
        score = {mean: sample_quality(gaussian(2.0), data, features=identity, samples=450, mean=mean) for mean in (True, False)}
        assert abs(score[good].frechet_limit) < 4 * score[good].frechet_se < score[not good].frechet_limit
        assert abs(score[good].kernel) < 4 * score[good].kernel_se < abs(score[not good].kernel)


def test_what_to_mind_is_said() -> None:
    def wide(x: Tensor) -> Tensor:
        return torch.cat([x**power for power in range(1, 31)], 1)

    few = sample_quality(gaussian(0.1), plane(), features=wide, samples=40)
    assert len(few.notes) == 1 and "40 examples leave covariances of 60 features without full rank" in few.notes[0]
    assert few.rank[0] < 60 and few.as_dict()["frechet_limit"] is None
    halves = sample_quality(gaussian(0.1), plane(), features=wide, samples=100)
    assert len(halves.notes) == 1 and "halves of 100 examples are too few for 60 features" in halves.notes[0]
    uneven = sample_quality(gaussian(0.1), plane(), features=identity, samples=600)
    assert uneven.real == 450 and "450 real examples and 600 samples" in uneven.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": None}, r'"plane" lacks labels.*pass features=, any function of x \[B, 2\] that returns \[B, F\]'),
        ({"samples": 5}, "samples=5 and 450 real examples: at least 6"),
        ({"split": "valid"}, "no validation split"),
        ({"k": 0}, "k=0"),
        ({"data": arrays(normal(0, 90, 3).float().numpy(), test=45, name="space")}, r"samples have shape \[2\] and the data \[3\]"),
        (
            {"data": arrays(normal(0, 90, 2).float().numpy(), label=torch.arange(90).numpy() % 2, test=45), "features": None},
            "are no images",
        ),
        ({"model": gaussian(1.0).to(torch.float64)}, None),
    ],
    ids=["labels", "few", "split", "k", "shape", "rows", "float64"],
)
def test_what_cannot_be_compared(change: dict, message: str | None) -> None:
    arguments = {"model": gaussian(0.1), "data": plane(), "features": identity, "samples": 100} | change
    if message is None:
        assert sample_quality(**arguments).precision > 0.5
        return
    with pytest.raises(InputError, match=message) as caught:
        sample_quality(**arguments)
    assert "\n" not in str(caught.value)


def test_missing_entries_and_samples_that_are_not_finite_are_refused() -> None:
    data = plane(90)
    masked = DataSet("masked", train=data.train, test=Split(data.test.x, mask=torch.ones(45, 2, dtype=torch.bool)))
    with pytest.raises(InputError, match='"masked" has missing entries'):
        sample_quality(gaussian(0.1), masked, features=identity, samples=40)
    infinite = VAE(priors.StandardNormal(2), gaussian(1.0).posterior, Conditional(nn.Linear(2, 2), heads.GaussianFixed(2, 1.0)))
    nn.init.constant_(infinite.likelihood.net.bias, math.inf)
    with pytest.raises(InputError, match="samples are not finite"):
        sample_quality(infinite, data, features=identity, samples=40)


class Fixed(nn.Module):
    """A decoder that returns rows it was given, whatever z is: a model whose samples are those rows."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, z: Tensor) -> Tensor:
        at = torch.arange(z.shape[-2]) % len(self.rows)
        return self.rows[at].flatten(1).expand(*z.shape[:-1], -1)


def only(rows: Tensor) -> VAE:
    head = heads.GaussianFixed(tuple(rows.shape[1:]), 1.0)
    return VAE(priors.StandardNormal(1), Conditional(nn.Linear(1, 1), heads.Point(1)), Conditional(Fixed(rows), head))


def test_real_images_in_the_right_order(tmp_path: Path) -> None:
    """Digits: held-out images are better than a VAE of 20 epochs, and that better than noise, in all six scores; by more than twice the
    error of the difference but for precision and density, which smooth images do not lack. Held-out images score as the data's own."""
    data = digits()
    features = classifier_features(data, path=tmp_path / "digits.safetensors", epochs=15)
    assert features.record.accuracy > 0.9
    torch.manual_seed(0)
    made = recipe(hidden=128)
    training = Training(epochs=20, batch_size=64, optimiser=made.training.optimiser)
    fit(made.model, data, objective=made.objective, training=training, progress=False)
    held, noise = data.split("valid").batch(torch.arange(200)).x, torch.rand(200, 1, 8, 8)
    real, vae, bad = (sample_quality(model, data, features=features, samples=200) for model in (only(held), made.model, only(noise)))
    assert {found.features for found in (real, vae, bad)} == {str(features)} and real.real == 200
    for name in ("precision", "recall", "density", "coverage", "kernel", "frechet"):
        sign = -1 if name in ("kernel", "frechet") else 1
        scores = [(sign * getattr(found, name), getattr(found, f"{name}_se")) for found in (real, vae, bad)]
        for (better, se), (worse, se_worse) in itertools.pairwise(scores):
            assert better - worse > (0 if name in ("precision", "density") else 2 * math.hypot(se, se_worse)), (name, scores)
    assert abs(real.kernel) < 4 * real.kernel_se and abs(real.density - 1) < 4 * real.density_se
    assert abs(real.coverage - real.coverage_expected) < 4 * real.coverage_se
