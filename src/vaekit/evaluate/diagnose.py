"""What is wrong with a trained model, from one pass over a data set: figures, and a sentence on each thing that stands out.

Every example is encoded once. The pass draws K latents for each and takes a last one at the centre of q(z | x), all in one walk down the
levels; everything in a `Diagnosis` is read off that walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch

from vaekit.data.core import Split
from vaekit.errors import InputError
from vaekit.evaluate.advice import Finding, advise
from vaekit.evaluate.aggregate import Aggregate
from vaekit.evaluate.calibration import Calibration
from vaekit.evaluate.codes import Usage
from vaekit.evaluate.faults import Broken, broken_weights
from vaekit.evaluate.latent import Latents
from vaekit.evaluate.likelihood import Evaluation
from vaekit.evaluate.residuals import Residuals
from vaekit.evaluate.walk import walk
from vaekit.files import plain
from vaekit.models.core import LatentModel

__all__ = ["Diagnosis", "Entry", "diagnose"]


class Entry(NamedTuple):
    """A line of a table: what, how much (or in words), its standard error over examples, and its unit.

    Attributes:
        name: what.
        value: how much, or in words.
        error: standard error over examples; None where there is none.
        unit: of both; empty where there is none.
    """

    name: str
    value: float | str
    error: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. All but ``findings`` is None where the model gives a number that is not finite: they say which.

    Attributes:
        findings: a sentence on each thing that stands out, the gravest first; none where nothing looks wrong.
        test: ELBO, log p(x | z) (minus the distortion) and a rate a level, active units; its likelihood is that of few samples.
        train: the same of as many training examples, if there were any to compare with.
        latents: centres, KL per dimension (None where q or p is no diagonal Gaussian), which dimensions are active.
        aggregate: mutual information, KL(q(z) || p(z)) and overlap of the posteriors *of the top level*: log q(z | x_j) of the levels
            below would take a pass through the model for each pair of examples. Of about 1000 examples where q is neither a diagonal
            Gaussian nor a code; None where it has no density of other points than its own samples.
        residuals: standardised residuals of a Gaussian likelihood, None for another one.
        calibration: interval coverage of the likelihood, None where it has no distribution function.
        codes: of each quantised level.
        left_out: why what is None is None.
    """

    findings: list[Finding]
    test: Evaluation | None = None
    train: Evaluation | None = None
    latents: Latents | None = None
    aggregate: Aggregate | None = None
    residuals: Residuals | None = None
    calibration: Calibration | None = None
    codes: tuple[Usage, ...] = ()
    left_out: tuple[str, ...] = ()

    def entries(self) -> list[Entry]:
        """Its figures, a line each."""
        test, train, a = self.test, self.train, self.aggregate
        if test is None:
            return []
        rows = [Entry("evidence lower bound", test.elbo, test.elbo_se, "nats")]
        if train is not None:
            rows.append(Entry(f"the same of {train.examples} training examples", train.elbo, train.elbo_se, "nats"))
        rows.append(Entry("distortion -E log p(x | z)", -test.log_px, test.log_px_se, "nats"))
        for n, (rate, se) in enumerate(zip(test.rates, test.rates_se, strict=True)):
            rows.append(Entry("rate E KL(q(z | x) || p(z))" + (f", level {n}" if len(test.rates) > 1 else ""), rate, se, "nats"))
        rows.append(Entry("active latent dimensions", f"{test.active_units} of {test.latent_dim}"))
        if a is not None:
            top = " of level 0" if len(test.rates) > 1 else ""
            rows += [
                Entry(
                    f"mutual information I(x; z){top}, at most log N = {a.ceiling:.2f}",
                    a.mutual_information,
                    a.mutual_information_se,
                    "nats",
                ),
                Entry(f"the same from minibatches of {a.minibatch}, stratified", a.stratified, None, "nats"),
                Entry(f"the same from minibatches of {a.minibatch}, weighted (too high)", a.weighted, None, "nats"),
                Entry(f"aggregate posterior KL(q(z) || p(z)){top}", a.gap, a.gap_se, "nats"),
            ]
            if a.overlap is not None and a.nearest is not None:
                rows.append(Entry("overlap of two posteriors, 0 to 1", a.overlap))
                rows.append(Entry("overlap with the nearest one", a.nearest))
        if self.residuals is not None:
            rows.append(Entry("standardised residuals, 1 where sigma fits", self.residuals.standardised))
        if self.calibration is not None:
            c = self.calibration
            for mass, inside, se in zip(c.nominal, c.coverage, c.coverage_se, strict=True):
                rows.append(Entry(f"data in the central {100 * mass:.0f}% of p(x | z)", 100 * inside, 100 * se, "%"))
        for use in self.codes:
            at = f" of level {use.level}" if len(self.codes) > 1 else ""
            rows.append(Entry(f"codes used{at}", f"{use.used} of {use.size}, {use.dead} dead"))
            rows.append(Entry(f"perplexity of the codes{at}", use.perplexity))
        return rows

    def as_dict(self) -> dict[str, object]:
        """For JSON: plain numbers, None for one that is not finite; per dimension the KL and the variance of the posterior mean."""
        parts = {name: getattr(self, name) for name in ("aggregate", "calibration")}
        found = {name: None if part is None else plain(asdict(part)) for name, part in parts.items()}
        found |= {name: None if part is None else part.as_dict() for name, part in (("test", self.test), ("train", self.train))}
        found["residuals"] = None if self.residuals is None else plain(self.residuals._asdict())
        found["codes"] = [plain(asdict(one)) for one in self.codes]
        if self.latents is not None:
            kl = self.latents.kl
            found["kl"] = None if kl is None else plain(kl.tolist())
            found |= {"variance": plain(self.latents.variance.tolist()), "sizes": list(self.latents.sizes)}
        return {"findings": [f._asdict() for f in self.findings]} | found | {"left_out": list(self.left_out)}


def diagnose(
    model: LatentModel,
    split: Split,
    *,
    train: Split | None = None,
    samples: int = 5,
    seed: int = 0,
    batch_size: int = 100,
    watch: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """`Diagnosis` of a model on (held-out) data. The caller's random numbers and the model's mode are left as they were.

    Args:
        model: any model whose posteriors have a density.
        split: the data. The mixture of its N posteriors takes N^2 densities: a few seconds for 10,000 examples.
        train: training data, to tell overfitting; as many rows as ``split`` has are taken, at random.
        samples: z drawn from each posterior.
        seed: of the samples.
        batch_size: examples at a time.
        watch: called with (examples done, examples in all).

    Raises:
        InputError: ``samples`` or ``batch_size`` below 1; a posterior without a density.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.GaussianFixed(6, 5.0)),
    ... )
    >>> found = diagnose(model, Split(torch.randn(200, 6)))
    >>> found.findings[0].sentence[:51], found.calibration.coverage[0]
    ("The decoder's standard deviation is too wide: 5 on ", 0.99)
    """
    if samples < 1:
        raise InputError(f"--samples {samples}: a diagnosis needs at least 1 sample of z per example")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: at least 1 example at a time")
    weights = broken_weights(model)
    try:
        found = walk(model, split, samples=samples, seed=seed, batch_size=batch_size, watch=watch)
        other = None
        if train is not None:
            rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: len(split)]
            other = walk(model, train.take(rows), samples=samples, seed=seed, batch_size=batch_size).evaluation()
    except Broken as broken:
        return Diagnosis([*weights, Finding("error", str(broken))])
    test, latents, residuals, codes = found.evaluation(), found.latents(), found.residuals(), found.usage()
    whole, why = found.aggregate()
    calibration = found.intervals.result()
    left_out = [why] if why else []
    if calibration is None:
        left_out.append(f"no interval coverage: {found.likelihood} has no distribution function that is known, or no intervals")
    findings = advise(
        test,
        train=other,
        latents=latents,
        residuals=residuals,
        measure=found.measure,
        aggregate=whole,
        calibration=calibration,
        codes=codes,
    )
    return Diagnosis([*weights, *findings], test, other, latents, whole, residuals, calibration, codes, tuple(left_out))
