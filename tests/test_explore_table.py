"""The explorer's page of a table in a real Chromium: a form whose answers are those of ``vaekit impute``, decoded rows, hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from browser import opened
from test_explore_browser import AXE
from vaekit import commands
from vaekit.apps.impute import impute as impute_batch
from vaekit.data.tables import Schema, frame_of, rows_of
from vaekit.dist import centre
from vaekit.explore import explore
from vaekit.filling import impute
from vaekit.models.picks import given
from vaekit.scoring import whole
from vaekit.types import Batch

pytest.importorskip("onnxruntime")
pd = pytest.importorskip("pandas")

HOSTILE = "<img src=x onerror=alert(1)>\n\u202eage"
SHOWN = "<img src=x onerror=alert(1)>\\n\\u202eage"
SCRIPT = "</script><script>alert(2)</script>"
ANSWER = """async (u) => { await explorer.fill(u); const { weights, rows, logP, ess, u: fixed } = explorer.fixed.last;
  return { fixed, logP, ess, said: explorer.about.columns.map((_, d) => explorer.said(d, rows, weights)),
    results: [...document.querySelectorAll('.field .result')].map((one) => one.textContent) }; }"""


def frame(n: int = 400) -> Any:
    g = np.random.default_rng(0)
    z = g.normal(size=n)
    near = np.clip(np.rint(1 + z + 0.3 * g.normal(size=n)), 0, 2).astype(int)
    columns = {
        HOSTILE: np.rint(45 + 12 * z + 3 * g.normal(size=n)),
        "income": np.exp(10 + 0.4 * z + 0.2 * g.normal(size=n)),
        "city": np.array(["Oslo", SCRIPT, "Rome"])[g.integers(0, 3, n)],
        "smoker": np.where(g.random(n) < 1 / (1 + np.exp(-2 * z)), "yes", "no"),
        "grade": np.array(["low", "middle", "high"])[near],
        "share": 1 / (1 + np.exp(-z - 0.5 * g.normal(size=n))),
        "day": (pd.Timestamp("2020-01-01") + pd.to_timedelta(np.rint(200 + 80 * z), "D")).strftime("%Y-%m-%d"),
    }
    made = pd.DataFrame(columns)
    holes = g.random(made.shape) < 0.08
    return made.astype(object).mask(holes)


@pytest.fixture(scope="module")
def table(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a few steps, and its page."""
    folder = tmp_path_factory.mktemp("table")
    path = folder / "people.csv"
    frame().to_csv(path, index=False)
    options = {"path": str(path), "epochs": 15, "hidden": 16, "latent": 3, "kind": ("grade=low<middle<high",)}
    run = commands.train("own:table", options, out=folder / "run", compile=False)
    return run.path, explore(run, samples=2, out=folder / "page.html")


def test_the_rest_given_some_is_what_impute_says(table: tuple[Path, Path], chromium: Any, tmp_path: Path) -> None:
    """The page's noise is that of impute's seed 0, so that means are the same numbers; its intervals are exact for the weighted mixture,
    those of impute by 8 draws from each p(x | z_k)."""
    run, recipe = commands.load(table[0], device="cpu")
    schema = recipe.known.schema  # type: ignore[union-attr]
    assert isinstance(schema, Schema)
    rows = frame().dropna().head(4)
    for row, kept in enumerate(([0, 2], [1, 4], [3, 6], [5])):
        rows.iloc[row, [d for d in range(7) if d not in kept]] = None
    rows.to_csv(tmp_path / "some.csv", index=False)
    impute(run, tmp_path / "some.csv", tmp_path / "filled.csv", seed=0, device="cpu")
    filled = pd.read_csv(tmp_path / "filled.csv")
    batch = whole(recipe.model, rows_of(frame_of(tmp_path / "some.csv"), schema)[0])
    expected = impute_batch(recipe.model, batch, samples=512, coverage=0.9, seed=0)
    assert batch.mask is not None and expected.lower is not None and expected.upper is not None
    u = batch.x.double().masked_fill(~batch.mask, torch.nan).numpy()
    with opened(chromium, table[1]) as found:
        answers = [found.page.evaluate(ANSWER, [None if np.isnan(one) else float(one) for one in row]) for row in u]
        assert found.faults == []
    names = list(rows.columns)
    for n, answer in enumerate(answers):
        assert abs(answer["ess"] / float(expected.ess[n]) - 1) < 1e-2
        for d, said in enumerate(answer["said"]):
            shown = answer["results"][d]
            if batch.mask[n, d]:
                assert shown == "fixed" and answer["fixed"][d] == pytest.approx(float(u[n, d]))
                continue
            value = filled[names[d]][n]
            if "p" in said:  # and classes the one of the largest probability
                assert said["mean"] == round(float(expected.mean[n, d])) and shown.startswith(f"{value}: ")
                assert sum(said["p"]) == pytest.approx(1, abs=1e-5)
            else:
                assert said["mean"] == pytest.approx(float(expected.mean[n, d]), abs=2e-3)
                low, high = float(expected.lower[n, d]), float(expected.upper[n, d])
                near = 0.12 * (high - low) + 1e-3  # of sampled ends
                assert abs(said["low"] - low) <= near and abs(said["high"] - high) <= near, (names[d], said, low, high)
                if names[d] == "day":
                    assert shown.startswith(str(value)[:10])
                elif names[d] == "income":
                    assert float(shown.split(",")[0]) == pytest.approx(float(value), rel=5e-3, abs=1)


def test_probabilities_are_weighted_sums(table: tuple[Path, Path], chromium: Any) -> None:
    """Of every class column, against p(c | z_k) by torch with other noise: within 4 errors of the importance sampling."""
    _, recipe = commands.load(table[0], device="cpu")
    schema = recipe.known.schema  # type: ignore[union-attr]
    names = [column.name for column in schema.modelled]  # type: ignore[union-attr]
    x = torch.zeros(1, 7)
    mask = torch.zeros(1, 7, dtype=torch.bool)
    x[0, 0], mask[0, 0] = 1.5, True
    batch = Batch(x, mask=mask)
    torch.manual_seed(3)
    with torch.no_grad():
        t = recipe.model.infer(batch, 20_000)
        w = t.log_w.softmax(0)
        parts = {d: (part, n) for part, group in zip(t.px.parts, t.px.columns, strict=True) for n, d in enumerate(group.tolist())}
    with opened(chromium, table[1]) as found:
        answer = found.page.evaluate(ANSWER, [1.5] + [None] * 6)
    for name in ("city", "grade", "smoker"):
        d = names.index(name)
        part, n = parts[d]
        p = torch.stack([1 - part.mean[..., n], part.mean[..., n]], -1) if name == "smoker" else part.probs[..., n]
        exact = (w.unsqueeze(-1) * p).sum((0, 1))
        error = ((p - exact).square() * w.unsqueeze(-1)).sum((0, 1)).sqrt() / answer["ess"] ** 0.5
        gap = (torch.tensor(answer["said"][d]["p"]) - exact).abs()
        assert bool((gap < 4 * error + 1e-4).all()), (name, gap, error)
    log_p = float(t.log_w.detach().logsumexp(0) - np.log(20_000))
    assert abs(answer["logP"] - log_p) < 0.3


def test_decoded_rows_and_colours(table: tuple[Path, Path], chromium: Any) -> None:
    _, recipe = commands.load(table[0], device="cpu")
    schema = recipe.known.schema  # type: ignore[union-attr]
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = centre(recipe.model.trace(given(z[None])).px)[0]
    with opened(chromium, table[1]) as found:
        page = found.page
        decoded = page.evaluate("async (z) => Array.from(await explorer.decode(z))", z.flatten().tolist())
        assert torch.allclose(torch.tensor(decoded).view(20, 7), expected, atol=1e-4)
        page.evaluate("(z) => explorer.setHere(z, 'example')", z[0].tolist())
        page.wait_for_timeout(300)
        lines = [line.split("\t") for line in page.inner_text("#decoded-rows tbody").splitlines()]
        written = schema.decode(expected[:1])  # type: ignore[union-attr]
        assert lines[0][0] == SHOWN and [line[1] for line in lines[2:4]] == [written["city"][0], written["smoker"][0]]
        assert lines[6][1] == str(written["day"][0])[:10] and float(lines[1][1]) == pytest.approx(float(written["income"][0]), abs=1)
        for value, mark in (("x0", ".scale"), ("x2", "fieldset"), ("x4", "fieldset"), ("x6", ".scale")):
            page.select_option("#colour", value)
            page.wait_for_selector(f"#legend {mark}")
        page.select_option("#colour", "x2")
        rows = np.array(page.evaluate("[...explorer.columns.rows].map((one) => isNaN(one) ? -1 : one)")).reshape(-1, 7)
        names = page.locator("#legend bdi").all_text_contents()
        assert names == [*schema.modelled[2].categories, "missing"]  # type: ignore[union-attr]
        page.locator("#legend input").nth(3).uncheck()
        page.wait_for_selector("text=3 of 4 labels")
        assert page.evaluate("explorer.map.visible.reduce((a, b) => a + b, 0)") == int((rows[:, 2] >= 0).sum())
        assert page.locator("#best tbody tr").count() == 12 and page.locator("#samples tbody tr").count() == 24
        assert page.locator("img").count() == 0 and page.locator("script:not([type])").count() == 0
        assert found.faults == []


def test_the_form_by_keyboard(table: tuple[Path, Path], chromium: Any) -> None:
    with opened(chromium, table[1]) as found:
        page = found.page
        page.focus("#row-example")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # all unknown
        page.wait_for_selector("#row-status:has-text('0 of 7 columns fixed')")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "column-0"  # "go there" has nowhere to go yet
        page.keyboard.type("60")
        page.wait_for_selector("#row-status:has-text('1 of 7 columns fixed')")
        older = page.text_content("#fields .field:nth-child(2) .result")
        page.keyboard.press("Tab")
        page.keyboard.press("Home")  # the slider's least
        page.wait_for_timeout(300)
        assert float(page.input_value("#column-0").replace("−", "-")) < 45
        assert page.text_content("#fields .field:nth-child(2) .result") != older
        page.fill("#column-5", "2.5")
        page.wait_for_selector("#fields .field:nth-child(6):has-text('no value of this column')")
        assert page.get_attribute("#column-5", "aria-invalid") == "true"
        page.fill("#column-6", "2020-05-05")
        page.select_option("#column-2", label=SCRIPT)
        page.wait_for_selector("#row-status:has-text('3 of 7 columns fixed')")
        assert page.evaluate("explorer.fixed.last.u.map((one) => one !== null)") == [n in (0, 2, 6) for n in range(7)]
        page.get_by_role("button", name=f"{SHOWN}: unknown").click()
        page.wait_for_selector("#row-status:has-text('2 of 7 columns fixed')")
        page.click("#row-go")
        page.wait_for_selector("#status:has-text('at your row')")
        assert found.faults == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_can_be_read_by_everybody(table: tuple[Path, Path], chromium: Any, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make explorer")
    with opened(chromium, table[1], viewport={"width": width, "height": 844}, color_scheme=scheme) as found:
        page = found.page
        page.click("#row-example")
        page.focus("#map")
        for key in ("l", "Enter", "ArrowRight", "ArrowRight", "Enter", "ArrowUp", "ArrowUp", "Enter", "l", "Enter", "ArrowLeft", "Enter"):
            page.keyboard.press(key)
        page.wait_for_timeout(600)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
        report = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        grave = [v for v in report["violations"] if v["impact"] in ("serious", "critical")]
        assert grave == [], json.dumps([[v["id"], v["help"], [n["html"] for n in v["nodes"][:3]]] for v in grave], indent=1)
