"""The model card of a run, as the Hugging Face hub shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaekit import __version__
from vaekit.data.tables import Known
from vaekit.launch import command_line
from vaekit.recipes.core import find, outside, summary
from vaekit.recipes.flags import takes_known
from vaekit.runs import Config, Run, read_known

__all__ = ["card", "portable"]

ROWS = {
    "nll": "negative log-likelihood, at most",
    "elbo": "evidence lower bound",
    "log_px": "reconstruction, E_q[log p(x\\|z)]",
}


def portable(config: Config) -> Config:
    """What a run is, without the folders of the machine that it was trained on: of a recipe's file and of one's own data."""
    file, arguments = outside(config.recipe), dict(config.arguments)
    recipe = config.recipe if file is None else ":".join(filter(None, (file[0].name, file[1])))
    if file is None and takes_known(find(recipe)) and "path" in arguments:
        arguments["path"] = Path(arguments["path"]).resolve().name
    found = replace(config, recipe=recipe, arguments=arguments)
    return replace(found, command=command_line(recipe, arguments, found, None))


def card(run: Run, results: Mapping[str, Mapping[str, Any]], *, license: str, where: str) -> str:
    """README.md: what the model is, the command that made it, its figures with their errors, and how to load it.

    Args:
        run: the run.
        results: what ``evaluation.json`` holds, by split; empty where nobody has evaluated it.
        license: of the model.
        where: what it is loaded by.
    """
    config, known = portable(run.config), read_known(run) if run.schema.is_file() else None
    own = outside(config.recipe) is None
    what = summary(find(config.recipe)) if own else f"A recipe of its own: `{config.recipe}`, see `recipe.py`."
    lines = [
        "---",
        "library_name: vaekit",
        f"license: {license}",
        "tags:",
        "- vaekit",
        "- variational-autoencoder",
        "---",
        "",
        f"# {run.name}",
        "",
        what,
        "",
        "A latent variable model made by vaekit with",
        "",
        "```console",
        f"$ {config.command}",
        "```",
        "",
        *_figures(results),
        "",
        "## Use",
        "",
        "```python",
        *(["import torch", ""] if known is not None and known.contexts() is not None else []),
        "from vaekit import hub",
        "",
        f"run, recipe = hub.load({json.dumps(where)}{'' if own else ', trust=True'})",
        *_sampling(known),
        "```",
        "",
        *([] if own else ["`trust=True` executes `recipe.py`: read it first.", ""]),
        *([] if known is None else [*_told(known), ""]),
        "## Made with",
        "",
        ", ".join(f"{name} {version}" for name, version in ({"vaekit": __version__} | dict(config.versions or {})).items())
        + f"; seed {config.seed}, precision {config.precision}.",
        "",
    ]
    return "\n".join(lines)


def _sampling(known: Known | None) -> list[str]:
    """Lines that draw samples; a model with a context is given some of those that its samples have."""
    if known is None or known.contexts() is None:
        return ["x = recipe.model.sample(16)"]
    return [
        "c = recipe.contexts[torch.randint(len(recipe.contexts), (16,))]  # as it was met in training",
        "x = recipe.model.sample(16, context=c.to(next(recipe.model.parameters()).device))",
    ]


def _told(known: Known) -> list[str]:
    """What the folder tells of the training data."""
    lines = ["## Training data", "", "`schema.json` holds what was found in the training data: names, ranges and categories of columns."]
    if known.given:
        columns = () if known.schema.context is None else known.schema.context.columns
        names = ", ".join(f"`{column.name}`" for column in columns)
        totals = ", and their totals" if known.sizes else ""
        lines += [f"**It holds {len(known.given)} training rows of the columns that the model is conditioned on: {names}{totals}.**"]
    return lines


def _figures(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not results:
        return ["Not evaluated yet: `vaekit evaluate` puts figures here."]
    lines = ["## Figures", ""]
    for split, values in results.items():
        lines += [
            f"{values['examples']} {split} examples, {values['samples']} importance samples each; nats per example, "
            "with the standard error over examples.",
            "",
            "| Quantity | Value | Error |",
            "|---|---|---|",
            *[f"| {label} | {_number(values[name])} | {_number(values[f'{name}_se'])} |" for name, label in ROWS.items()],
            f"| bits per dimension | {_number(values['bits_per_dim'], 4)} | |",
            "",
        ]
    return lines[:-1]


def _number(value: float | None, digits: int = 2) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
