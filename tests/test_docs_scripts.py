"""The scripts that the pages show whole: each runs in an empty folder, as its reader runs it, and what it prints is checked."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

import test_heads
from tables import Likelihood, trapezoid
from vaekit import commands

SCRIPTS = Path(__file__).resolve().parents[1] / "docs" / "scripts"

Ran = tuple[dict[str, Any], str]
"""The script's names, and what it printed."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """A script, once for all tests, in a folder of its own."""
    done: dict[str, Ran] = {}

    def ran(name: str) -> Ran:
        if name not in done:
            done[name] = script(name, tmp_path_factory.mktemp(name))
        return done[name]

    return ran


def script(name: str, folder: Path) -> Ran:
    """As ``python name.py`` in the folder; as a module, so that torch.compile finds the names that its classes use."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    printed = StringIO()
    with chdir(folder), torch.random.fork_rng(), redirect_stdout(printed):
        spec.loader.exec_module(module)
    return vars(module) | {"folder of the test": folder}, printed.getvalue()


def numbers(text: str, pattern: str) -> tuple[float, ...]:
    found = re.search(pattern.replace("#", r"(-?\d+\.\d+)"), text)
    assert found, f"{pattern} is not in\n{text}"
    return tuple(map(float, found.groups()))


def test_every_script_is_short_and_shown_whole_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in SCRIPTS.parent.glob("*.md"))
    scripts = sorted(SCRIPTS.glob("*.py"))
    assert len(scripts) == 3
    for path in scripts:
        assert f"{{literalinclude}} scripts/{path.name}\n" in pages
        assert sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines()) <= 42


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.parametrize("name", ["own_images", "test_set_likelihood", "custom_likelihood"])
def test_a_page_shows_what_its_script_prints(name: str, run: Callable[[str], Ran]) -> None:
    """Word for word, with numbers to a tenth of them; "..." stands for what is left out."""
    (page,) = (text for path in SCRIPTS.parent.glob("*.md") if f"scripts/{name}.py\n" in (text := path.read_text(encoding="utf-8")))
    block = re.search(rf"scripts/{name}\.py\n.*?```text\n(.*?)```", page, re.DOTALL)
    assert block
    printed = " ".join(run(name)[1].split())
    for shown in block[1].split("...\n"):
        shown = " ".join(shown.split())
        found = re.search(NUMBER.pattern.join(map(re.escape, NUMBER.split(shown))), printed)
        assert found, f"{shown}\nis not in\n{printed}"
        for a, b in zip(map(float, NUMBER.findall(shown)), map(float, NUMBER.findall(found[0])), strict=True):
            assert abs(a - b) <= max(0.3 if a % 1 else 5, 0.1 * abs(a)), (shown, found[0])


def test_own_images(run: Callable[[str], Ran]) -> None:
    names, printed = run("own_images")
    folder = names["folder of the test"]
    assert "400 images of 12 x 12, grey" in printed and "320 training, 40 validation, 40 test rows" in printed
    nll, se = numbers(printed, r"40 test images: -log p\(x\) is at most # \+- # nats")
    (bits,) = numbers(printed, r"that is # bits for a number")
    assert bits == pytest.approx(nll / 144 / math.log(2), abs=0.01) and 0 < se < 20

    files = sorted((folder / "my-images").glob("*.png"))
    x = np.stack([np.asarray(Image.open(path)) for path in files])
    assert x.shape == (400, 12, 12)
    # below it: the noise alone of which the images are made; above it: pixels that know nothing of each other
    noise = math.log2(3 * math.sqrt(2 * math.pi * math.e))
    apart = np.mean([scipy.stats.norm(pixel.mean(), pixel.std()).entropy() for pixel in x.reshape(400, -1).T.astype(float)]) / math.log(2)
    assert noise < bits < apart - 0.5, (noise, bits, apart)
    for what in ("new images", "open in a browser"):
        path = re.search(f"{what}: (.*)", printed)
        assert path and (folder / path[1]).is_file()


def test_a_folder_that_is_there_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-images").mkdir()
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(tmp_path / "my-images" / "mine.jpg")

    class Reached(Exception):
        pass

    def train(recipe: str, arguments: dict[str, Any], **_: Any) -> None:
        raise Reached(arguments["path"])

    monkeypatch.setattr(commands, "train", train)
    with pytest.raises(Reached, match="^my-images$"):
        script("own_images", tmp_path)
    assert [path.name for path in (tmp_path / "my-images").iterdir()] == ["mine.jpg"]


def test_test_set_likelihood(run: Callable[[str], Ran]) -> None:
    names, printed = run("test_set_likelihood")
    mean, se = numbers(printed, r"log p\(x\) of 300 test rows: # \+- # nats a row")
    (coin,) = numbers(printed, r"by tossing a coin for each pixel: #")
    found = names["found"]
    assert (mean, se) == pytest.approx((found.log_px.mean().item(), found.log_px.std().item() / math.sqrt(300)), abs=0.006)
    assert coin == pytest.approx(-44.36, abs=0.005) and coin + 15 < mean < -15  # far better than none, and no more than digits allow
    estimate, error, exact = numbers(printed, r"check: # \+- # nats, exactly #")
    x = names["x"].double().numpy()
    assert exact == pytest.approx(scipy.stats.norm(0, math.sqrt(2)).logpdf(x).mean(), abs=1e-4)
    assert 0 < error < 0.005 and abs(estimate - exact) < 3 * error


def test_custom_likelihood(run: Callable[[str], Ran]) -> None:
    _, printed = run("custom_likelihood")
    ours, se = numbers(printed, r"VonMises: log p\(x\) of a test row is at least # \+- # nats")
    theirs, their_se = numbers(printed, r"Gaussian: log p\(x\) of a test row is at least # \+- # nats")
    # exactly, on a line that is no circle: h(bed) + h(up | bed), in radians; nothing learned can be above it but by chance
    best = -2 * (0.5 + 0.5 * math.log(2 * math.pi)) - math.log(1.5 * 0.5) - 2 * math.log(math.pi / 12)
    assert best - 0.7 < ours < best + 3 * se
    assert ours > theirs + 3 * math.hypot(se, their_se)
    assert theirs > -2 * math.log(2 * math.pi) - 3 * their_se  # and it has learned something: above any time alike


def test_the_density_is_that_of_scipy(run: Callable[[str], Ran]) -> None:
    names, _ = run("custom_likelihood")
    head = names["VonMises"]((1, 2))
    h = torch.tensor([0.3, -0.9, 0.8, -0.2, 0.5, 1.7], dtype=torch.float64)  # two cosines, two sines, two log kappa
    x = torch.tensor([[3.0, -3.0]], dtype=torch.float64)
    mu, kappa = [math.atan2(0.8, 0.3), math.atan2(-0.2, -0.9)], [math.exp(0.5), math.exp(1.7)]
    exact = sum(scipy.stats.vonmises(kappa[d], mu[d]).logpdf(float(x[0, d])) for d in (0, 1))
    torch.testing.assert_close(head(h).log_prob(x), torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-12)
    around = head(h).log_prob(x + 2 * math.pi)
    torch.testing.assert_close(around, head(h).log_prob(x), rtol=0, atol=1e-12)


def rows(run: Callable[[str], Ran]) -> dict[str, Likelihood]:
    VonMises = run("custom_likelihood")[0]["VonMises"]
    # the row
    around = trapezoid(-math.pi, math.pi * (1 - 2 / 100), 100)  # the circle
    return {"von_mises": Likelihood(lambda: VonMises((1, 2)), around, has_mean=False)}
    # ends here


ORACLES = [name for name, value in vars(test_heads).items() if name.startswith("test_") and "row" in signature(value).parameters]


@pytest.mark.parametrize("oracle", ORACLES)
def test_the_row_passes_the_tests_of_every_likelihood(oracle: str, run: Callable[[str], Ran]) -> None:
    function = getattr(test_heads, oracle)
    more = {"dtype": torch.bfloat16} if "dtype" in signature(function).parameters else {}
    function(rows(run)["von_mises"], **more)


def test_all_tests_of_a_likelihood_are_among_them() -> None:
    assert "test_total_mass_is_one" in ORACLES and "test_gradients_by_finite_differences" in ORACLES and len(ORACLES) >= 9
