"""Many runs of one recipe: every combination of the values that its flags are given, each with every seed.

::

    sweeps/<recipe>-<n>/
        sweep.json           what was asked; format 1
        beta-4_seed-0/ ...   a run folder each, as ``vaekit train`` makes them
        log.txt              which cells were trained together, which alone and why
        table.csv, table.txt means over seeds with their standard errors
        sweep.png            the same as a figure

Cells that one program can train (`vaekit.train.grouping`) are trained by one, the others one after another. Each is the run that
``vaekit train`` with its flags would have made, to float error.
"""

from __future__ import annotations

from vaekit.sweeps.plan import Plan, open_sweep
from vaekit.sweeps.results import Row, Sweep, as_text, rows
from vaekit.sweeps.start import sweep

__all__ = ["Plan", "Row", "Sweep", "as_text", "open_sweep", "rows", "sweep"]
