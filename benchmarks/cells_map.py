"""The map of the cells of `benchmarks.counts`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cells import MARKERS
from vaekit import viz

Array = npt.NDArray[Any]


def picture(z: Array, group: Array, logs: Any, genes: list[str]) -> viz.figure.Figure:
    """t-SNE of the means of q(z | x), coloured by group and by the levels of marker genes."""
    from sklearn.manifold import TSNE

    plane = TSNE(2, random_state=0, init="pca").fit_transform(z)
    names, colours = list(MARKERS), viz.figure.CATEGORIES
    rest = plane[group < 0]
    with viz.figure.styled():
        figure = viz.figure.blank(1100, 580, constrained=True)
        panels = figure.subplot_mosaic([["map", "map", "a", "b", "c"], ["map", "map", "d", "e", "f"]])
        axes = panels["map"]
        axes.scatter(rest[:, 0], rest[:, 1], s=5, color="#c4c9ce", linewidths=0, label=f"no marker seen ({len(rest)})", rasterized=True)
        for number, name in enumerate(names):
            own_cells = plane[group == number]
            axes.scatter(
                own_cells[:, 0],
                own_cells[:, 1],
                s=6,
                color=colours[number],
                linewidths=0,
                label=f"{name} ({len(own_cells)})",
                rasterized=True,
            )
        axes.set_title("group of the strongest markers")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, markerscale=2.5, handletextpad=0.2)
        for letter, gene in zip("abcdef", ("CD3D", "MS4A1", "LYZ", "CD14", "NKG7", "PPBP"), strict=True):
            level = logs[:, [genes.index(gene)]].toarray().ravel()
            none = level == 0
            panels[letter].scatter(plane[none, 0], plane[none, 1], s=3.5, color="#dfe3e6", linewidths=0, rasterized=True)
            order = np.argsort(level, kind="stable")[none.sum() :]  # the strongest on top
            drawn = panels[letter].scatter(
                plane[order, 0], plane[order, 1], s=3.5, c=level[order], cmap="BuPu", vmin=0, linewidths=0, rasterized=True
            )
            panels[letter].set_title(gene)
            figure.colorbar(drawn, ax=panels[letter], aspect=25, pad=0.02, shrink=0.8)
        middle, half = (plane.max(0) + plane.min(0)) / 2, 0.52 * np.ptp(plane, axis=0).max()
        for axes in panels.values():
            axes.set(xticks=[], yticks=[], xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
            axes.set_aspect("equal", anchor="N")
            axes.spines[:].set_visible(False)
        viz.figure.put_title(figure, f"Means of q(z | x) of {len(z):,} cells in the plane (t-SNE of {z.shape[1]} latent dimensions)")
        viz.figure.put_note(figure, "Small panels: log(1 + 10,000 k / T) of one gene, k its count and T the cell's total; grey: none.")
    return figure
