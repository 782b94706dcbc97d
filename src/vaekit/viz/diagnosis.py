"""Pictures of a diagnosis: where the rate goes, whether the likelihood's intervals hold, and rate against distortion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import InputError
from vaekit.viz.arrays import numbers
from vaekit.viz.figure import BLUE, GREEN, GREY, INK, ORANGE, blank, put_legend, put_note, put_title, shorten, styled

__all__ = ["information", "intervals", "rate_distortion"]


def information(mutual_information: float, gap: float, *, ceiling: float, title: str | None = None) -> Figure:
    """The rate as a bar of two parts, I(x; z) and KL(q(z) || p(z)), and log N, which the first cannot pass.

    Args:
        mutual_information: nats.
        gap: nats.
        ceiling: log N.
        title: by default, the sum.

    Raises:
        InputError: a figure is not finite.

    >>> figure = information(3.0, 1.5, ceiling=6.9)
    >>> [round(float(bar.get_width()), 1) for bar in figure.axes[0].patches]
    [3.0, 1.5]
    """
    parts = numbers([mutual_information, gap, ceiling], "information", ndim=1, shape="[3]")
    if not np.isfinite(parts).all():
        raise InputError(f"information: I(x; z) {mutual_information}, KL(q(z) || p(z)) {gap}, log N {ceiling}: all must be finite nats")
    with styled():
        figure = blank(640, 190, constrained=True)
        axes = figure.add_subplot()
        # A negative part is an estimate of 0 within its error: it is drawn to the left of 0, and the other from 0 on.
        first = axes.barh([0], [parts[0]], color=BLUE, height=0.5)
        second = axes.barh([0], [parts[1]], left=[max(parts[0], 0.0) if parts[1] > 0 else 0.0], color=ORANGE, height=0.5)
        line = axes.axvline(ceiling, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_yticks([])
        axes.set_ylim(-0.5, 0.5)
        axes.set_xlim(min(0.0, 1.1 * float(parts.min())), 1.05 * max(float(parts[:2].clip(0).sum()), float(ceiling)))
        axes.set_xlabel("nats")
        names = [f"I(x; z)  {parts[0]:.2f}", f"KL(q(z) ‖ p(z))  {parts[1]:.2f}", f"log N  {parts[2]:.2f}"]
        names = [name.replace("-", "−") for name in names]
        put_legend(axes, [first[0], second[0], line], names, beside=False)
        put_title(figure, f"Where the rate of {parts[0] + parts[1]:.2f} nats goes" if title is None else title)
    return figure


def intervals(
    places: Tensor | Sequence[float], *, nominal: Sequence[float] = (), coverage: Sequence[float] = (), title: str | None = None
) -> Figure:
    """How the data spread over u = F(x | z), flat where p(x | z) fits; beside it the coverage of central intervals.

    A hump in the middle: p(x | z) is too wide. A trough: too narrow. A slope: off to one side.

    Args:
        places: shares of the data in equal bins of u, ``[bins]``, which add up to 1.
        nominal: masses of intervals, from 0 to 1.
        coverage: the share of the data in each of them.
        title: by default, what is drawn.

    Raises:
        InputError: shares that are not finite, or as many masses as shares of them there are not.

    >>> figure = intervals([0.1, 0.4, 0.4, 0.1], nominal=[0.5], coverage=[0.8])
    >>> [round(float(bar.get_height()), 2) for bar in figure.axes[0].patches[:2]]
    [0.4, 1.6]
    """
    share = numbers(places, "intervals: places", ndim=1, shape="[bins]")
    if not np.isfinite(share).all():
        raise InputError("intervals: places must be finite shares; pass those of a Calibration")
    if len(nominal) != len(coverage):
        raise InputError(f"intervals: {len(nominal)} masses and {len(coverage)} coverages; give one coverage for each mass")
    with styled():
        figure = blank(760 if len(nominal) else 480, 300, constrained=True)
        axes = figure.subplots(1, 2 if len(nominal) else 1, squeeze=False)[0]
        bins = len(share)
        axes[0].bar((np.arange(bins) + 0.5) / bins, share * bins, width=0.9 / bins, color=BLUE)
        axes[0].axhline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes[0].set_xlabel("u = F(x | z)")
        axes[0].set_ylabel("density of the data")
        axes[0].set_xlim(0, 1)
        axes[0].set_title("dashed: where p(x | z) fits", loc="left")
        if len(nominal):
            axes[1].plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes[1].plot(nominal, coverage, color=ORANGE, marker="o", linewidth=1.4, markersize=6, clip_on=False, zorder=3)
            said = "\n".join(f"{100 * mass:.3g}% → {100 * inside:.1f}%" for mass, inside in zip(nominal, coverage, strict=True))
            axes[1].text(0.97, 0.05, said, transform=axes[1].transAxes, ha="right", va="bottom")
            axes[1].set_xlim(0, 1)
            axes[1].set_ylim(0, 1.02)
            axes[1].set_xlabel("mass of the central interval of p(x | z)")
            axes[1].set_ylabel("share of the data in it")
            axes[1].set_title("above the line: too wide; below: too narrow", loc="left")
            axes[1].grid()
        put_title(figure, "Does p(x | z) spread as far as the data?" if title is None else title)
    return figure


def rate_distortion(
    rate: Tensor | Sequence[float],
    distortion: Tensor | Sequence[float],
    *,
    names: Sequence[str] = (),
    information: Tensor | Sequence[float] | None = None,
    ceiling: float | None = None,
    title: str | None = None,
    note: str = "",
) -> Figure:
    """Distortion against rate, a point a model, joined in the order of the rate; below, if given, the mutual information in each rate.

    Along a line of slope -1 the ELBO, minus rate minus distortion, is the same: the dashed one touches the best model. Alemi et al.,
    "Fixing a Broken ELBO", ICML 2018.

    Args:
        rate: nats, ``[M]``.
        distortion: -E log p(x | z), nats, ``[M]``.
        names: of the models, such as "β = 4".
        information: I(x; z) of each model, nats, ``[M]``: a second panel shows it beside the rate.
        ceiling: log N, a line in that panel.
        title: by default, what is drawn.
        note: at the foot.

    Raises:
        InputError: unequal lengths; a figure that is not finite.

    >>> figure = rate_distortion([20.0, 5.0], [80.0, 120.0], names=["β = 1", "β = 4"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['β = 4', 'β = 1']
    """
    r, d = (
        numbers(rate, "rate_distortion: rate", ndim=1, shape="[M]"),
        numbers(distortion, "rate_distortion: distortion", ndim=1, shape="[M]"),
    )
    mutual = None if information is None else numbers(information, "rate_distortion: information", ndim=1, shape="[M]")
    lengths = {len(r), len(d), *([len(names)] if names else []), *([] if mutual is None else [len(mutual)])}
    if len(lengths) > 1:
        raise InputError(f"rate_distortion: {len(r)} rates, {len(d)} distortions, {len(names)} names: give one of each for a model")
    if not all(np.isfinite(v).all() for v in (r, d, *([] if mutual is None else [mutual]))):
        raise InputError("rate_distortion: rates, distortions and mutual informations must be finite nats; leave broken models out")
    order = np.argsort(r, kind="stable")
    best = int((r + d).argmin())
    with styled():
        figure = blank(960 if mutual is not None else 560, 380, constrained=True)
        axes = figure.subplots(1, 1 if mutual is None else 2, squeeze=False)[0]
        axes[0].plot(r[order], d[order], color=BLUE, marker="o", markersize=5, linewidth=1.4)
        span = np.array([r.min(), r.max()])
        axes[0].plot(span, (r + d)[best] - span, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        low, high = d.min(), d.max()
        pad = 0.06 * max(float(high - low), 1e-6 * max(abs(float(high)), 1.0))
        axes[0].set_ylim(low - pad, high + 2 * pad)
        _name(axes[0], r[order], d[order], [names[i] for i in order] if names else [])
        axes[0].set_xlabel("rate (nats)")
        axes[0].set_ylabel("distortion −E log p(x | z) (nats)")
        axes[0].margins(x=0.13)
        axes[0].set_title(f"dashed: ELBO = {-(r + d)[best]:.1f}, the best one".replace("-", "−"), loc="left")
        axes[0].grid()
        if mutual is not None:
            axes[1].plot([0, r.max()], [0, r.max()], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes[1].plot(r[order], mutual[order], color=GREEN, marker="o", markersize=5, linewidth=1.4)
            if ceiling is not None:
                axes[1].axhline(ceiling, color=GREY, linewidth=0.9, linestyle=":")
                axes[1].annotate(
                    f"log N = {ceiling:.2f}", (r.max(), ceiling), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=8
                )
            axes[1].set_xlabel("rate (nats)")
            axes[1].set_ylabel("I(x; z) (nats)")
            axes[1].set_title("below the line by KL(q(z) ‖ p(z))", loc="left")
            axes[1].grid()
        put_title(figure, f"Rate and distortion of {len(r)} models" if title is None else title)
        if note:
            put_note(figure, note)
    return figure


def _name(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        axes.annotate(shorten(name, 16), (x[i], y[i]), xytext=(5, 4), textcoords="offset points", fontsize=8, parse_math=False)
