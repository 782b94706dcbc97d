"""The explorer's distribution functions and quantiles (explorer/src/densities.js), run by Node without a browser, against scipy."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

SOURCE = Path(__file__).resolve().parents[1] / "explorer" / "src" / "densities.js"
LEVELS = (0.001, 0.05, 0.3, 0.5, 0.95, 0.999)


def run(code: str) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node")
    script = f"import {{ quantile, said }} from {json.dumps(SOURCE.as_uri())}; console.log(JSON.stringify({code}));"
    made = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(made.stdout)


def poisson(rate: float) -> Any:
    return stats.poisson(rate)


def binomial(mean: float, r: float) -> Any:
    return stats.nbinom(r, r / (r + mean))


class Bernoulli:
    """A density e^(logit x) on [0, 1]."""

    def __init__(self, logit: float) -> None:
        self.logit = logit

    def ppf(self, level: float) -> float:
        return float(np.log1p(level * np.expm1(self.logit)) / self.logit)


CASES: dict[str, tuple[str, list[float], Any]] = {
    "gaussian": ("gaussian", [-3.0, 0.5, 0], stats.norm(-3, 0.5)),
    "student": ("student", [2.0, 0.1, 1.7], stats.t(1.7, 2, 0.1)),
    "student, many degrees": ("student", [0.0, 3.0, 80.0], stats.t(80, 0, 3)),
    "bernoulli": ("continuous_bernoulli", [6.0, 0, 0], Bernoulli(6.0)),
    "bernoulli, falling": ("continuous_bernoulli", [-30.0, 0, 0], Bernoulli(-30.0)),
    "bernoulli, flat": ("continuous_bernoulli", [1e-6, 0, 0], stats.uniform(0, 1)),
    "poisson": ("poisson", [3.3, 1e30, 0], poisson(3.3)),
    "poisson, large": ("poisson", [50_000.0, 1e30, 0], poisson(50_000)),
    "poisson, next to nothing": ("poisson", [1e-9, 1e30, 0], poisson(1e-9)),
    "negative binomial": ("negative_binomial", [12.0, 0.4, 0], binomial(12.0, 0.4)),
    "negative binomial, large": ("negative_binomial", [3000.0, 25.0, 0], binomial(3000.0, 25.0)),
}


@cache
def every_quantile() -> Any:
    cases = json.dumps([[name, kind, [1.0, *parameters]] for name, (kind, parameters, _) in CASES.items()])
    found = f"{cases}.map(([name, kind, part]) => [name, {list(LEVELS)}.map((level) => quantile({{ kind }}, [part], level))])"
    return run(f"Object.fromEntries({found})")


@pytest.mark.parametrize("name", CASES)
def test_quantiles(name: str) -> None:
    d = CASES[name][2]
    assert np.allclose(every_quantile()[name], [d.ppf(level) for level in LEVELS], rtol=3e-5, atol=3e-5)


def test_more_zeros() -> None:
    """F = pi + (1 - pi) F_base."""
    found = run(f"{list(LEVELS)}.map((level) => quantile({{ kind: 'zero_inflated_poisson' }}, [[1, 4, 1e30, 0.4]], level))")
    assert found == [0 if level <= 0.4 else int(poisson(4).ppf((level - 0.4) / 0.6)) for level in LEVELS]


def test_a_grid() -> None:
    """Levels k / 4, P(u <= k / 4) the logistic function at the border above."""
    found = run(f"{list(LEVELS)}.map((level) => quantile({{ kind: 'discretised_logistic', size: 5 }}, [[1, 0.6, 0.1, 0]], level))")
    borders = stats.logistic(0.6, 0.1).cdf((np.arange(4) + 0.5) / 4)
    assert found == [float((borders < level).sum()) / 4 for level in LEVELS]


def test_a_mixture_of_rows() -> None:
    """Two columns, a number and levels in an order, three weighted rows: means and probabilities are weighted sums, the interval's ends lie
    where the mixture's distribution function says."""
    columns = [{"kind": "gaussian", "size": 0}, {"kind": "ordinal", "size": 3, "ordered": True}]
    numbers = [(-1.0, 0.2), (0.5, 1.0), (4.0, 0.1)]
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.0, 0.02, 0.98]])
    weights = np.array([0.5, 0.3, 0.2])
    # centre of both, then three parameters of both, then probabilities
    rows = [[m, 0.0, m, 0.0, s, 0.0, 0.0, 0.0, *q] for (m, s), q in zip(numbers, p.tolist(), strict=True)]
    code = f"[0, 1].map((d) => said({json.dumps(columns)}, d, {json.dumps(np.ravel(rows).tolist())}, {weights.tolist()}))"
    number, level = run(code)
    assert np.isclose(number["mean"], weights @ [m for m, _ in numbers])

    def below(x: float) -> float:
        return float(sum(w * stats.norm(m, s).cdf(x) for w, (m, s) in zip(weights, numbers, strict=True)))

    assert abs(below(number["low"]) - 0.05) < 1e-4 and abs(below(number["high"]) - 0.95) < 1e-4
    assert np.allclose(level["p"], weights @ p) and level["mean"] == 0 and (level["low"], level["high"]) == (0, 2)
