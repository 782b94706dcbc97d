"""Figures and the report page: what a trained model shows.

Every function takes plain tensors or arrays and returns a ``matplotlib.figure.Figure`` of its own: nothing is registered with pyplot, no
backend is chosen, and a figure is freed when its last reference goes. ``png`` turns one into bytes, ``page`` puts several into one
HTML file.

=========  ==========================================================================
images     ``sheet``, ``pairs``, ``strips``, ``traversals``, ``manifold``; ``save_png`` without a figure
latent     ``scatter`` of latent codes, ``kl_bars`` per latent dimension
curves     ``curves`` of the logged terms
diagnosis  ``information``, ``intervals`` of a diagnosis, ``rate_distortion`` of several models
together   ``beside``: the curves of several runs on one plot
sweep      ``settings`` of a sweep, means over seeds with their errors
html       ``page`` of ``Section``, ``Table``, ``Picture``, ``Findings``
=========  ==========================================================================
"""

from __future__ import annotations

from vaekit.viz.curves import curves
from vaekit.viz.diagnosis import information, intervals, rate_distortion
from vaekit.viz.figure import png
from vaekit.viz.html import Findings, Number, Picture, Section, Table, page
from vaekit.viz.images import gap_for, manifold, pairs, save_png, sheet, strips, traversals
from vaekit.viz.latent import kl_bars, scatter
from vaekit.viz.sweep import settings
from vaekit.viz.together import beside

__all__ = [
    "Findings",
    "Number",
    "Picture",
    "Section",
    "Table",
    "beside",
    "curves",
    "gap_for",
    "information",
    "intervals",
    "kl_bars",
    "manifold",
    "page",
    "pairs",
    "png",
    "rate_distortion",
    "save_png",
    "scatter",
    "settings",
    "sheet",
    "strips",
    "traversals",
]
