"""Pictures of the latent space: where the codes lie, and how many nats each dimension carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaekit.errors import InputError
from vaekit.text import visible
from vaekit.viz.arrays import numbers, shape_text, values
from vaekit.viz.figure import BLUE, CATEGORIES, INK, ORANGE, blank, put_legend, put_note, put_title, shorten, styled

__all__ = ["kl_bars", "scatter"]

_MOST_POINTS = 10_000
_MOST_LABELS = 20
_OTHER = "#c4c9ce"


class _Groups(NamedTuple):
    """Labels as groups to draw: ``member[i]`` indexes ``names``; or ``scale`` where there are too many numbers for a legend."""

    member: NDArray[np.int64]
    names: list[str]
    scale: NDArray[np.float64] | None


def scatter(
    z: Tensor | ArrayLike, *, label: Tensor | ArrayLike | None = None, label_names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Latent codes, coloured by label: a histogram for D = 1, the plane for D = 2, the first two principal components for D > 2.

    Above 10,000 points a fixed random 10,000 are drawn (the components and the histogram use all); rows that are not finite are left out;
    a note says both. Up to 20 labels have a legend; more are a colour scale if they are numbers without names, else the 19 most frequent
    have a colour and the rest are grey.

    Args:
        z: ``[N, D]``.
        label: ``[N]``, numbers or strings.
        label_names: the name of label 0, 1, ...; label must then hold integers from 0.
        title: by default, what is drawn.

    Raises:
        InputError: z is not ``[N, D]``, empty, or nowhere finite; label is not ``[N]`` or has no name.

    >>> import torch
    >>> figure = scatter(torch.randn(100, 5, generator=torch.Generator().manual_seed(0)), label=torch.arange(100) % 3)
    >>> figure.axes[0].get_xlabel()
    'principal component 1 (24.4% of the variance)'
    """
    codes = numbers(z, "scatter: z", ndim=2, shape="[N, D]")
    n, d = codes.shape
    finite = np.isfinite(codes).all(1)
    if not finite.any():
        raise InputError(f"scatter: z must hold finite codes; none of its {n} rows is; look for the step that made them NaN")
    notes = [] if finite.all() else [f"{n - int(finite.sum()):,} of {n:,} codes not finite, left out"]
    groups = _groups(label, label_names, n)
    codes = codes[finite]
    groups = groups._replace(member=groups.member[finite], scale=None if groups.scale is None else groups.scale[finite])
    if title is None:
        what = f"{n:,} latent codes" if d < 3 else f"{n:,} latent codes of {d} dimensions, first two principal components"
        title = what if label is None else f"{what}, by label"
    with styled():
        figure = blank(760, 560 if d > 1 else 420, constrained=True)
        axes = figure.add_subplot()
        if d == 1:
            _histogram(axes, codes[:, 0], groups)
        else:
            names = ["$z_1$", "$z_2$"]
            if d > 2:
                codes, share = _principal(codes)
                names = [f"principal component {i + 1} ({share[i]:.1%} of the variance)" for i in range(2)]
            if len(codes) > _MOST_POINTS:
                notes.append(f"{_MOST_POINTS:,} of {len(codes):,} points drawn, at random")
            _points(axes, codes, groups)
            axes.set_xlabel(names[0])
            axes.set_ylabel(names[1])
        put_title(figure, title)
        if notes:
            put_note(figure, "; ".join(notes))
    return figure


def kl_bars(kl: Tensor | ArrayLike, *, threshold: float, title: str | None = None) -> Figure:
    """KL(q || p) of each latent dimension, largest first; those at or below ``threshold`` are marked.

    Args:
        kl: ``[D]`` in nats, the mean over data of each dimension's KL. Entries that are not finite come last and are named in a note.
        threshold: nats above which a dimension counts as used.
        title: by default, how many dimensions are used and how many nats all carry together.

    Raises:
        InputError: kl is not ``[D]``, is empty, or nowhere finite; the threshold is not finite.

    >>> figure = kl_bars([0.001, 2.0, 0.5], threshold=0.01)
    >>> [float(bar.get_height()) for bar in figure.axes[0].patches[:3]]
    [2.0, 0.5, 0.001]
    """
    rate = numbers(kl, "kl_bars: kl", ndim=1, shape="[D]")
    if not np.isfinite(threshold):
        raise InputError(f"kl_bars: threshold must be a finite number of nats; it is {threshold}; 0.01 is usual")
    bad = np.flatnonzero(~np.isfinite(rate))
    if len(bad) == len(rate):
        raise InputError(f"kl_bars: kl must hold finite nats; none of its {len(rate)} entries is; look for the step that made them NaN")
    order = np.argsort(-np.where(np.isfinite(rate), rate, -np.inf), kind="stable")
    order = order[: len(rate) - len(bad)]
    height = rate[order]
    used = int((height > threshold).sum())
    d = len(order)
    if title is None:
        title = f"{used} of {len(rate)} latent dimensions cost more than {threshold:g} nats; {height.sum():.2f} nats in all"
    with styled():
        figure = blank(760, 380, constrained=True)
        axes = figure.add_subplot()
        at = np.arange(d)
        axes.bar(at[:used], height[:used], width=0.84 if d <= 100 else 1.0, color=BLUE)
        axes.bar(at[used:], height[used:], width=0.84 if d <= 100 else 1.0, color=ORANGE)
        line = axes.axhline(threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        handles: list[Artist] = [line]
        names = [f"threshold, {threshold:g} nats"]
        if used < d:  # a bar of height 0 is not seen; the shade behind it is
            axes.axvspan(used - 0.5, d - 0.5, color=ORANGE, alpha=0.1, linewidth=0)
            handles.insert(0, Patch(color=ORANGE))
            names.insert(0, f"{d - used} at most that")
        if used:
            handles.insert(0, Patch(color=BLUE))
            names.insert(0, f"{used} above {threshold:g} nats")
        put_legend(axes, handles, names, beside=False)
        middle, half = (d - 1) / 2, max(d, 10) / 2 + 0.3  # a few bars stand in the middle and are no wider than ten would be
        axes.set_xlim(middle - half, middle + half)
        axes.set_ylabel("KL per dimension (nats)")
        if d <= 40:
            axes.set_xticks(at, [str(i) for i in order], fontsize=8 if d <= 25 else 6.5)
            axes.tick_params(axis="x", length=0)
            axes.set_xlabel("latent dimension, largest KL first")
        else:
            axes.set_xlabel("rank of the latent dimension by KL")
        axes.grid(axis="y")
        put_title(figure, title)
        if len(bad):
            which = ", ".join(map(str, bad[:12])) + (", ..." if len(bad) > 12 else "")
            put_note(figure, f"not finite, left out: dimension{'s' if len(bad) != 1 else ''} {which}")
    return figure


def _principal(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components ``[N, 2]`` of all rows, and the share of variance of each.

    By the D x D covariance: one pass over N, and its eigenvectors are the right singular vectors of the centred z. The sign of a component
    is free; the largest loading is made positive, so that a figure does not flip between runs.
    """
    centred = z - z.mean(0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(z))
    variance, axes = variance[::-1].clip(0), axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    return centred @ axes, variance[:2] / max(float(variance.sum()), np.finfo(float).tiny)


def _groups(label: Tensor | ArrayLike | None, label_names: Sequence[str] | None, n: int) -> _Groups:
    if label is None:
        return _Groups(np.zeros(n, np.int64), [""], None)
    array = values(label, "scatter: label")
    if array.shape != (n,):
        raise InputError(f"scatter: label must have one entry per code, [{n}]; it has shape {shape_text(array.shape)}; pass the same rows")
    if array.dtype.kind not in "fiubU":
        raise InputError(f"scatter: label must hold numbers or strings, not both; its dtype is {array.dtype}; convert it first")
    found, member = np.unique(array, return_inverse=True)
    if label_names is not None:
        if found.dtype.kind not in "iub" or found.min() < 0 or found.max() >= len(label_names):
            asked = f"they run from {visible(str(found.min()))} to {visible(str(found.max()))}"
            raise InputError(f"scatter: labels must be integers that index the {len(label_names)} label_names; {asked}; name each of them")
        names = [str(label_names[int(v)]) for v in found]
    else:
        names = [f"{v:g}" if found.dtype.kind == "f" else str(v) for v in found]
    if len(found) > _MOST_LABELS:
        if label_names is None and found.dtype.kind in "fiu":
            return _Groups(np.zeros(n, np.int64), [""], array.astype(np.float64))
        frequent = np.sort(np.argsort(-np.bincount(member), kind="stable")[: _MOST_LABELS - 1])
        place = np.full(len(found), _MOST_LABELS - 1)
        place[frequent] = np.arange(_MOST_LABELS - 1)
        names = [names[i] for i in frequent] + [f"{len(found) - _MOST_LABELS + 1} others"]
        member = place[member]
    return _Groups(member.astype(np.int64), names, None)


def _colour(group: int, groups: _Groups) -> str:
    """Ten colours; the second ten labels take them again with another marker or line."""
    if len(groups.names) == 1:
        return BLUE
    if groups.names[-1].endswith(" others") and group == _MOST_LABELS - 1:
        return _OTHER
    return CATEGORIES[group % len(CATEGORIES)]


def _points(axes: Axes, codes: NDArray[np.float64], groups: _Groups) -> None:
    order = np.random.default_rng(0).permutation(len(codes))[:_MOST_POINTS]  # at random, so that no label covers the others
    x, y = codes[order, 0], codes[order, 1]
    size = float(np.clip(24_000 / len(order), 3.5, 28))
    if groups.scale is not None:
        drawn = axes.scatter(x, y, c=groups.scale[order], s=size, cmap="cividis", linewidths=0, alpha=0.8, rasterized=True)
        axes.figure.colorbar(drawn, ax=axes, label="label", aspect=35)
    else:
        member = groups.member[order]
        colours = np.array([_colour(g, groups) for g in range(len(groups.names))])
        for marker, chosen in (("o", member < len(CATEGORIES)), ("^", member >= len(CATEGORIES))):
            if chosen.any():
                c = colours[member[chosen]]
                axes.scatter(x[chosen], y[chosen], c=c, s=size, marker=marker, linewidths=0, alpha=0.75, rasterized=True)
        _legend(axes, groups, lines=False)
        _name_centres(axes, x, y, member, groups)
    spread = np.ptp(x), np.ptp(y)
    if max(spread) < 5 * min(spread):
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid()


def _histogram(axes: Axes, z: NDArray[np.float64], groups: _Groups) -> None:
    bins = np.linspace(z.min(), z.max(), int(np.clip(np.sqrt(len(z)), 10, 60)) + 1) if np.ptp(z) > 0 else np.array([z[0] - 0.5, z[0] + 0.5])
    for g in range(len(groups.names)):
        style = "-" if g < len(CATEGORIES) else "--"
        axes.stairs(np.histogram(z[groups.member == g], bins)[0], bins, color=_colour(g, groups), linewidth=1.4, linestyle=style)
        if len(groups.names) <= 4:
            axes.stairs(np.histogram(z[groups.member == g], bins)[0], bins, color=_colour(g, groups), alpha=0.15, fill=True)
    _legend(axes, groups, lines=True)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel(f"codes per bin of {bins[1] - bins[0]:.2g}")
    axes.grid(axis="y")


def _legend(axes: Axes, groups: _Groups, *, lines: bool) -> None:
    if len(groups.names) == 1 and not groups.names[0]:
        return
    handles: list[Artist] = []
    for g in range(len(groups.names)):
        second = g >= len(CATEGORIES)
        style = {"linestyle": "--" if second else "-"} if lines else {"linestyle": "", "marker": "^" if second else "o", "markersize": 6}
        handles.append(Line2D([], [], color=_colour(g, groups), **style))
    put_legend(axes, handles, [shorten(name, 24) for name in groups.names], beside=True)


def _name_centres(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], member: NDArray[np.int64], groups: _Groups) -> None:
    """Each label's name at its median, where all of them have room: colours alone are hard to look up."""
    found = np.unique(member)
    centres = np.array([[np.median(x[member == g]), np.median(y[member == g])] for g in found])
    span = max(np.ptp(x), np.ptp(y))
    gaps = np.abs(centres[:, None] - centres[None])[np.triu_indices(len(found), 1)] / max(span, np.finfo(float).tiny)
    names = [shorten(groups.names[g], 24) for g in found]
    letters = 0.014 * max(map(len, names))
    if len(names) < 2 or ((gaps[:, 0] < letters + 0.01) & (gaps[:, 1] < 0.035)).any():
        return
    for (across, up), name in zip(centres, names, strict=True):
        text = axes.text(across, up, name, ha="center", va="center", fontsize=9, fontweight="bold", parse_math=False, clip_on=True)
        text.set_path_effects([Stroke(linewidth=2.5, foreground="white"), Normal()])
