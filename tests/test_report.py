"""Reports of small untrained models: what is compared, what it is called, and data of unusual shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vaekit import VAE, Conditional, heads, priors, report, viz
from vaekit.data.core import DataSet, Split
from vaekit.models import LatentModel
from vaekit.recipes.core import Recipe
from vaekit.report import write_report
from vaekit.runs import Config, Run


def flat(shape: tuple[int, ...], head: nn.Module, latent: int = 3) -> LatentModel:
    torch.manual_seed(0)
    q = heads.Gaussian(latent)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), q.features))
    return VAE(
        priors.StandardNormal(latent),
        Conditional(encoder, q, event_dim=len(shape)),
        Conditional(nn.Linear(latent, head.features), head),
    )


def written(folder: Path, model: LatentModel, data: DataSet) -> str:
    run = Run(folder, Config("toy", {}, seed=0, precision="32-true"))
    return write_report(run, Recipe(model, lambda: data), {}).read_text()


def test_rows_are_taken_from_everywhere_and_keep_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sorted by class, more rows than are drawn: every class is in the picture, and z still belongs to its label."""
    x = torch.arange(40.0)[:, None].expand(40, 2) / 40
    sorted_split = Split(x, label=torch.arange(40) // 4)
    monkeypatch.setattr(report, "POINTS", 30)
    monkeypatch.setattr(report, "EXAMPLES", 20)
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    scatter = viz.scatter
    monkeypatch.setattr(viz, "scatter", lambda z, *, label, **more: (drawn.append((z, label)), scatter(z, label=label, **more))[1])
    model = flat((2,), heads.Gaussian(2))
    text = written(tmp_path, model, DataSet("sorted", train=sorted_split, test=sorted_split))
    ((z, label),) = drawn
    assert len(z) == 30 and set(label.tolist()) == set(range(10))
    slope = model.posterior.net[1].weight[:3].sum(1).detach()  # z = slope * x + b: x, and so the label, can be read off z
    back = ((z - model.posterior.net[1].bias[:3].detach()) / slope)[:, 0]
    assert ((back * 40).round().long() // 4).tolist() == label.tolist()
    assert "evidence lower bound on 20 training examples, samples for each: 1" in text
    assert "The likelihood is a density" in text


@pytest.mark.parametrize(
    ("shape", "head", "note"),
    [
        ((6,), heads.Gaussian(6), "The likelihood is a density"),
        ((2, 4, 4), heads.DiscretisedLogistic((2, 4, 4)), "Numbers"),
        ((1, 4, 4), heads.Bernoulli((1, 4, 4)), "x has grey values"),
        ((3, 4, 4), heads.ContinuousBernoulli((3, 4, 4)), "The likelihood is a density"),
    ],
)
@pytest.mark.parametrize(("rows", "double"), [(1, False), (12, True)])
def test_any_shape_and_number_of_rows(tmp_path: Path, shape: tuple[int, ...], head: nn.Module, note: str, rows: int, double: bool) -> None:
    split = Split(torch.rand(rows, *shape))
    model = flat(shape, head, latent=2)
    text = written(tmp_path, model.double() if double else model, DataSet("toy", train=split, test=split))
    assert note in text and (rows == 12 or "collapsed" not in text)
    assert (tmp_path / "figures" / "manifold.png").is_file() == (shape[0] in (1, 3) and len(shape) == 3)


def test_discrete_latents_have_no_interpolations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    q, px = heads.Bernoulli(3), heads.Bernoulli((1, 4, 4))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, q.features))
    model = VAE(priors.Bernoulli(3), Conditional(encoder, q, event_dim=3), Conditional(nn.Linear(3, px.features), px))
    split = Split(torch.rand(12, 1, 4, 4).round())
    written(tmp_path, model, DataSet("toy", train=split, test=split))
    assert {"samples", "reconstructions"} <= {p.stem for p in (tmp_path / "figures").iterdir()}
    assert not (tmp_path / "figures" / "interpolations.png").exists()
