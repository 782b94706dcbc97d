"""What a notebook shows of a model, a run and an estimate."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from vaekit import VAE, Conditional, heads, priors
from vaekit.commands import evaluate as evaluate_run
from vaekit.commands import train
from vaekit.data.core import Split
from vaekit.evaluate import evaluate, log_likelihood
from vaekit.models import with_context
from vaekit.runs import open_run


class Cells(HTMLParser):
    """Text of every cell, and the tags that were opened and not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells[-1] += data


def shown(thing: object) -> list[str]:
    read = Cells(thing._repr_html_())  # type: ignore[attr-defined]
    assert not read.open
    return read.cells


def vae(context: int = 0) -> VAE:
    torch.manual_seed(0)
    q, p = torch.nn.Linear(6 + context, 4), torch.nn.Linear(2 + context, 6)
    parts = priors.StandardNormal(2), Conditional(q, heads.Gaussian(2)), Conditional(p, heads.Bernoulli((1, 2, 3)))
    return VAE(*parts, view=with_context, context=context) if context else VAE(*parts)


def test_a_model_shows_its_parts_shapes_and_parameters() -> None:
    model = vae()
    before = torch.get_rng_state()
    cells = shown(model)
    assert torch.equal(before, torch.get_rng_state()) and model.training
    assert cells[0] == f"VAE, {6 * 4 + 4 + 2 * 6 + 6} parameters: z [2], x [1, 2, 3]"
    assert cells[cells.index("posterior") :][:3] == ["posterior", "Conditional → Linear → Gaussian", "28"]
    assert shown(vae(context=3))[0] == f"VAE, {9 * 4 + 4 + 5 * 6 + 6} parameters"  # p(x | z, c) alone has no shape to show


def test_estimates_show_their_numbers_with_their_errors() -> None:
    model, rows = vae(), Split((torch.rand(9, 1, 2, 3) < 0.5).float())
    found = evaluate(model, rows, samples=3)
    cells = shown(found)
    value, error = cells[cells.index("evidence lower bound") + 1].removesuffix(" nats").replace("−", "-").split(" ± ")
    assert float(value) == pytest.approx(found.elbo, abs=found.elbo_se / 10) and float(error) == pytest.approx(found.elbo_se, rel=0.1)
    likelihood = log_likelihood(model, rows, samples=5)
    cells = shown(likelihood)
    value = cells[cells.index("log p(x)") + 1].partition(" ")[0].replace("−", "-")
    assert float(value) == pytest.approx(likelihood.mean, abs=likelihood.se / 10) and "9 examples" in cells[0]


def test_a_run_shows_what_it_is_and_its_name_as_text(tmp_path: Path) -> None:
    run = train("digits", {"epochs": 1, "hidden": 4}, out=tmp_path / "a<img src=x onerror=alert(1)>\u202e")
    cells = shown(run)
    assert "a<img src=x onerror=alert(1)>\\u202e: finished, 1 of 1 epochs" in cells[0]  # text, and what reorders it written out
    assert cells[cells.index("hidden") + 1] == "4" and not any("log-likelihood" in cell for cell in cells)
    evaluate_run(run, samples=2)
    assert re.fullmatch(r"[0-9.]+ ± [0-9.]+ nats", shown(open_run(run.path))[-3])
    assert shown(replace(run, config=replace(run.config, end=None, state="training")))[0].endswith(": training")
