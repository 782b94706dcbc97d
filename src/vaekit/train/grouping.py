"""Which cells of a sweep one program can train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vaekit.objectives.core import Objective
from vaekit.objectives.rates import Penalty
from vaekit.train.adam import InGraphAdam
from vaekit.train.alike import Comparison, Place, difference
from vaekit.train.engine import hooked
from vaekit.train.program import NotTogetherError
from vaekit.train.stack import Cell
from vaekit.train.step import Step

__all__ = ["alone_because", "differing_weights", "partners"]


def alone_because(cell: Cell) -> str | None:
    """Why a cell is not trained with others, in a clause; None where nothing speaks against it."""
    training, objective = cell.training, cell.objective
    if training.patience is not None:
        return "with patience each model stops when it will"
    if training.precision == "64-true":
        return "it trains in float64"
    if not all(vars(type(m)).get("compiles", False) for m in objective.modules() if isinstance(m, Objective | Penalty)):
        return f"{type(objective).__name__} does not promise to do the same at every step"
    optimiser = training.build([p for p in cell.model.parameters() if p.requires_grad])
    if not InGraphAdam.suits(optimiser):
        return f"its optimiser, {type(optimiser).__name__} as it is set, is neither plain Adam nor AdamW"
    if any(hooked(m) for m in [*cell.model.modules(), *objective.modules()]):
        return "it has hooks"
    return None


def partners(one: Cell, other: Cell) -> list[Place] | None:
    """Whether one program can train both ``one`` and ``other``: the weights of the objective that may then differ, or None where
    something else does."""
    comparison = Comparison(weights=True)
    if comparison.run(Step(one.model, one.objective), Step(other.model, other.objective)) is not None:
        return None
    settings = [replace(cell.training, seed=0, optimiser=one.training.optimiser) for cell in (one, other)]
    if difference(*settings) is not None:
        return None
    optimisers = [cell.training.build(cell.model.parameters()) for cell in (one, other)]
    plain = [{name: value for name, value in o.param_groups[0].items() if name not in ("params", "lr")} for o in optimisers]
    return comparison.constants if type(optimisers[0]) is type(optimisers[1]) and plain[0] == plain[1] else None


def differing_weights(cells: Sequence[Cell]) -> list[Place]:
    """The places of the objective's weights that are not the same in all cells.

    Raises:
        NotTogetherError: the cells are not alike, or something speaks against one of them.
    """
    differing: dict[Place, None] = {}
    for cell in cells:
        why = alone_because(cell)
        places = partners(cells[0], cell)
        if why is not None or places is None:
            raise NotTogetherError(why or "they are not alike")
        weights = [
            {place: getattr(Step(c.model, c.objective).get_submodule(place[0]), place[1]) for place in places} for c in (cells[0], cell)
        ]
        differing |= {place: None for place in places if weights[0][place] != weights[1][place]}
    return list(differing)
