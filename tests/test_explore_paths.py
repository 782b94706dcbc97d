"""Shortest paths along the posterior's scale (explorer/src/geodesic.js), run by Node without a browser, against known answers."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).resolve().parents[1] / "explorer" / "src" / "geodesic.js"
GRID = """
const grid = (x0, x1, y0, y1, h, sigma) => {
  const z = [], std = [];
  for (let x = x0; x <= x1 + 1e-9; x += h) for (let y = y0; y <= y1 + 1e-9; y += h) { z.push(x, y); std.push(...sigma(x, y)); }
  return new Scale(Float32Array.from(z), Float32Array.from(std), 2);
};
"""


def found(code: str) -> dict[str, Any]:
    """What `geodesic` gives for ``[scale, a, b]`` of the code, its points as rows."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node")
    script = f"import {{ Scale, geodesic }} from {json.dumps(SOURCE.as_uri())};{GRID}const [scale, a, b] = {code};"
    script += "const f = geodesic(scale, a, b, 8); console.log(JSON.stringify({ ...f, points: [...f.points] }));"
    run = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True)
    result: dict[str, Any] = json.loads(run.stdout)
    result["points"] = np.array(result["points"]).reshape(9, 2)
    return result


def test_the_upper_half_plane() -> None:
    """sigma = y: the shortest way from (-1, 1) to (1, 1) is the arc of x^2 + y^2 = 2, of length arcosh 3, and the straight one has 2."""
    way = found("[grid(-1.5, 1.5, 0.5, 2, 0.05, (x, y) => [y, y]), [-1, 1], [1, 1]]")
    assert abs(way["length"] - math.acosh(3)) < 0.002 and abs(way["straight"] - 2) < 0.002
    assert np.abs(np.hypot(*way["points"].T) - math.sqrt(2)).max() < 0.01
    angle = np.arctan2(way["points"][:, 1], way["points"][:, 0])
    place = np.log(np.tan(angle / 2))  # in hyperbolic length along the arc, up to its origin
    assert np.abs(np.diff(place) / (place[-1] - place[0]) - 1 / 8).max() < 0.005  # even in that length


def test_two_regions_refract() -> None:
    """sigma from 1 on the left to 2 on the right, of x alone: sin(angle) / sigma is the same all along (Snell), which with its quadratures
    over x gives the rise p sigma / sqrt(1 - p^2 sigma^2) and the length 1 / (sigma sqrt(1 - p^2 sigma^2))."""
    way = found("[grid(-1.2, 1.2, -1.2, 1.2, 0.05, (x) => [1, 1].map(() => 2 ** ((1 + Math.tanh(x / 0.15)) / 2))), [-1, -1], [1, 1]]")
    x = (np.arange(20_000) + 0.5) / 10_000 - 1
    sigma = 2 ** ((1 + np.tanh(x / 0.15)) / 2)
    low, high = 0.0, 0.5
    for _ in range(60):  # p of the way that rises by 2
        p = (low + high) / 2
        low, high = (p, high) if (p * sigma / np.sqrt(1 - (p * sigma) ** 2)).mean() * 2 < 2 else (low, p)
    least = (1 / (sigma * np.sqrt(1 - (p * sigma) ** 2))).mean() * 2
    assert abs(way["length"] - least) < 0.002 and abs(way["straight"] - (1 / sigma).mean() * 2 * math.sqrt(2)) < 0.002
    assert way["straight"] - way["length"] > 0.05
    (in_x, in_y), (out_x, out_y) = np.diff(way["points"], axis=0)[[0, -1]]
    assert abs(in_y / math.hypot(in_x, in_y) - p) < 0.02 and abs(out_y / math.hypot(out_x, out_y) - 2 * p) < 0.02


def test_a_constant_scale_is_straight() -> None:
    way = found("[grid(-1.2, 1.2, -1.2, 1.2, 0.1, () => [0.5, 3]), [-1, -1], [1, 0.3]]")
    assert np.allclose(way["points"], np.linspace([-1, -1], [1, 0.3], 9), atol=1e-9)
    assert way["length"] == way["straight"] and abs(way["length"] - math.hypot(2 / 0.5, 1.3 / 3)) < 1e-6


def test_a_way_round_a_corner_is_found() -> None:
    """A corridor of large sigma along a half circle: from the straight line no small change leads there, over the examples it does."""
    sigma = "(x, y) => { const c = 0.1 + 2 * Math.exp(-(((Math.hypot(x, y) - 1) / 0.15) ** 2)) * (y > -0.2 ? 1 : 0); return [c, c]; }"
    way = found(f"[grid(-1.4, 1.4, -1.4, 1.4, 0.07, {sigma}), [-1, 0], [1, 0]]")
    assert way["straight"] > 10 and abs(way["length"] - math.pi / 2.1) < 0.15
    assert np.abs(np.hypot(*way["points"].T) - 1).max() < 0.05


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_examples_will_do(count: int) -> None:
    codes = "Float32Array.from({ length: 2 * n }, (_, i) => i % 3), Float32Array.from({ length: 2 * n }, (_, i) => 1 + i)".replace(
        "n }", f"{count} }}"
    )
    way = found(f"[new Scale({codes}, 2), [0, 0], [2, 1]]")
    assert 0 < way["length"] <= way["straight"] < math.inf and np.isfinite(way["points"]).all()
    same = found(f"[new Scale({codes}, 2), [1, 1], [1, 1]]")
    assert same["length"] == 0 and np.allclose(same["points"], 1)
