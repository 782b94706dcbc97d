"""What is looked at before the first step, so that a mistake costs a second and not a night.

Each of these would otherwise run: a likelihood gives some number for data outside its support, tensors of other shapes broadcast, and a
warm-up that is longer than the run leaves its weight below the one that was meant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaekit.data.core import DataSet, Split
from vaekit.dist import describe
from vaekit.errors import InputError
from vaekit.models.core import LatentModel, Trace
from vaekit.objectives.core import Loss, Objective
from vaekit.objectives.rates import Penalty
from vaekit.objectives.score import Baseline
from vaekit.priors import VampPrior
from vaekit.quantise import Codebook, CodePrior
from vaekit.train.normalise import DIVISIBLE
from vaekit.types import Batch

__all__ = [
    "check_batches",
    "check_bound",
    "check_data",
    "check_divisible",
    "check_model",
    "check_objective",
    "schedule_values",
    "check_warm_up",
    "settled",
    "splits_of",
    "try_objective",
]

CHUNK = 2**18  # values looked at at a time: 1 MiB, and a few times as much beside them
SAMPLES = 3  # of 2 rows: more than one of each, and not as many, or a mistake would broadcast


def splits_of(data: object) -> dict[str, Split]:
    """The splits that are there, by their names in messages.

    Raises:
        InputError: this is neither a data set nor a split.
    """
    if isinstance(data, Split):
        return {"training": data}
    if not isinstance(data, DataSet):
        raise InputError(
            f"data is a {type(data).__name__}: make a data set of it with vaekit.data.arrays(...), or a vaekit.data.Stream of a loader"
        )
    splits = {"training": data.train, "validation": data.valid, "test": data.test}
    return {name: split for name, split in splits.items() if split is not None}


def check_model(model: nn.Module, precision: str) -> None:
    """Something to train, in the precision that is asked for, finite, and all of it the model's own.

    Raises:
        InputError: otherwise.
    """
    named = dict(model.named_parameters())
    if not any(p.requires_grad for p in named.values()):
        raise InputError("the model has no parameter to train: all are frozen, or there are none")
    for name, p in named.items():
        if p.dtype != torch.float32 and precision != "64-true":
            raise InputError(
                f'{name} is {str(p.dtype)[6:]} and precision "{precision}" means float32: call model.float(), or take "64-true"'
            )
        if not bool(p.isfinite().all()):
            raise InputError(f"{name} holds NaN or infinite values before the first step: build the model anew, or load other weights")
    own = {id(p) for p in named.values()}
    for name, module in model.named_modules():
        if isinstance(module, VampPrior) and not {id(p) for p in module.posterior.parameters()} <= own:
            raise InputError(
                f"{name} is a VampPrior over a posterior that is no part of the model, so it would be neither trained nor saved: "
                "give it the very module that the model has as its posterior"
            )
        if isinstance(module, CodePrior) and id(module.quantiser) not in map(id, model.modules()):
            raise InputError(
                f"{name} is a {type(module).__name__} over a quantiser that is no part of the model, so it would read other codes: "
                "give it the very quantiser of the model's posterior"
            )


def check_batches(model: nn.Module, rows: int, batch_size: int) -> None:
    """No batch of a single row, of ``rows`` in all, where that has no variance to normalise by.

    Raises:
        InputError: otherwise.
    """
    if min(rows, (rows - 1) % batch_size + 1) == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise InputError(
            f"{rows} training rows in batches of {batch_size} leave one row alone in the last one, which batch normalisation cannot take: "
            "choose another batch_size"
        )


def check_data(model: LatentModel, splits: Mapping[str, Split]) -> None:
    """Every row of each of ``splits`` (of rows in a file, of their sample) can be scored by p(x | z): the shapes agree and the values lie
    in its support.

    Draws from the global random generator. The model must be in evaluation mode.

    Raises:
        InputError: otherwise, with the range of the data, what the likelihood scores, and what to do.
    """
    first = next(model.parameters())
    for name, split in splits.items():
        batch = _first(split, 2, first)
        trace = _inferred(model, batch, name)
        px = trace.px
        if px.event_shape != batch.x.shape[1:]:
            raise InputError(
                f"{name} rows have shape {list(batch.x.shape[1:])} and p(x | z), {describe(px)}, scores {list(px.event_shape)}: "
                "give the likelihood's head the shape of the data"
            )
        if not all(_scored(px, rows.to(first.device)) for rows in _chunks(split)):
            raise InputError(_outside(px, split, name))
        shape = list(trace.log_px.shape)  # a mask that the likelihood cannot apply is refused here
        if shape != [SAMPLES, batch.size]:
            raise InputError(
                f"log p(x | z) of {SAMPLES} samples for {batch.size} {name} rows is {shape} and not [K, B] = {[SAMPLES, batch.size]}: "
                "p(x | z) must keep both leading dimensions of z"
            )


def _chunks(split: Split) -> Iterator[Batch]:
    return (split.batch(index) for index in split.glance(CHUNK))


def _first(split: Split, n: int, like: Tensor) -> Batch:
    """n rows from the first on, the last again where there are fewer, on the device and in the dtype of ``like``."""
    batch = split.batch(torch.arange(n).clamp(max=len(split) - 1)).to(like.device)
    return batch._replace(x=batch.x.to(like.dtype), c=None if batch.c is None else batch.c.to(like.dtype))


def _inferred(model: LatentModel, batch: Batch, name: str) -> Trace:
    try:
        with torch.no_grad():
            return model.infer(batch, SAMPLES)
    except InputError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the model cannot take {name} rows of shape {list(batch.x.shape[1:])} ({reason}): "
            "build its first layer for that shape, or reshape the data"
        ) from error


def _scored(px: Distribution, rows: Batch) -> bool:
    """Whether all observed entries are finite and in the support."""
    x, mask = rows.x, rows.mask
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    if not bool((x.isfinite() | ~seen).all()):
        return False
    support = _support(px)
    if support is None:
        return True
    if isinstance(support, constraints.independent) and support.base_constraint.event_dim == 0:
        return bool((support.base_constraint.check(x.masked_fill(~seen, 0)) | ~seen).all())
    # a constraint on whole rows (a simplex) says nothing about a row that is partly missing
    fine = support.check(x)
    return bool(fine.all()) if mask is None else True


def _support(px: Distribution) -> constraints.Constraint | None:
    try:
        return px.support
    except NotImplementedError:  # a distribution that does not say
        return None


def _outside(px: Distribution, split: Split, name: str) -> str:
    """The message for data that cannot be scored."""
    low, high, broken = float("inf"), float("-inf"), 0
    for rows in _chunks(split):
        x = rows.x if rows.mask is None else rows.x[rows.mask]
        broken += int((~x.isfinite()).sum())
        x = x[x.isfinite()]
        low, high = (min(low, float(x.min())), max(high, float(x.max()))) if x.numel() else (low, high)
    if broken:
        return f"the {name} data hold {broken} values that are NaN or infinite: clean them, or mark them missing with a mask"
    scores, unit = _words(_support(px))
    if unit and low >= 0 and 1 < high <= 255:
        advice = "divide the data by 255, or pass them as uint8"
    elif unit and low >= 0 and high <= 1:
        advice = "binarise the data (vaekit.data.binarise), or choose a likelihood for values in [0, 1]"
    else:
        advice = "rescale the data, or choose a likelihood for such values"
    return f"the {name} data lie in [{low:g}, {high:g}] and p(x | z), {describe(px)}, scores {scores}: {advice}"


def _words(support: constraints.Constraint | None) -> tuple[str, bool]:
    """What a support holds, and whether that is some part of [0, 1]."""
    base = support.base_constraint if isinstance(support, constraints.independent) else support
    if base is constraints.boolean:
        return "0 and 1", True
    if isinstance(base, constraints.interval):
        low, high = float(torch.as_tensor(base.lower_bound).min()), float(torch.as_tensor(base.upper_bound).max())
        return f"values in [{low:g}, {high:g}]", (low, high) == (0, 1)
    names: dict[object, str] = {
        constraints.nonnegative_integer: "counts 0, 1, 2, ...",
        constraints.positive: "positive values",
        constraints.real: "finite values",
    }
    return names.get(base, str(base)), False


def check_objective(objective: object) -> None:
    """An objective, and not a part of one.

    Raises:
        InputError: otherwise.
    """
    kind = type(objective).__name__
    if isinstance(objective, Penalty):
        raise InputError(f"objective={kind}(...) is a penalty and no Objective: use objective=ELBO(penalty={kind}(...))")
    if not isinstance(objective, Objective):
        raise InputError(f"objective is a {kind} and no Objective: use ELBO(), IWAE(k=5) or another of vaekit.objectives")


def check_divisible(model: nn.Module, objective: Objective) -> None:
    """A batch may be divided over processes: by ``objective`` no example's loss depends on the others but through batch normalisation, and
    nothing else follows averages over a batch.

    Raises:
        InputError: otherwise.
    """
    for part in objective.modules():
        if isinstance(part, Objective | Penalty | Baseline) and not vars(type(part)).get("per_example", False):
            raise InputError(
                f"{type(part).__name__} does not promise that each example's loss is its own (per_example): several processes, each with a "
                "part of the batch, would train something else; use devices=1"
            )
    for name, part in model.named_modules():
        averages = isinstance(part, nn.modules.batchnorm._BatchNorm) or (
            isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats
        )
        if averages and type(part) not in DIVISIBLE:
            raise InputError(
                f"{name} is {type(part).__name__}, and each of several processes would normalise by the statistics of its own part of the "
                "batch: use torch's BatchNorm1d, 2d or 3d, LayerNorm or GroupNorm, or train with devices=1"
            )
        if isinstance(part, Codebook) and part.decay is not None and not part.frozen:
            raise InputError(
                f"{name} is a Codebook that follows averages of the codes in a batch, of which each of several processes has a part: "
                "train it by its gradient (decay=None), or with devices=1"
            )


def try_objective(model: LatentModel, objective: Objective, split: Split) -> Loss:
    """The objective for two rows, so that what it refuses is refused before anything is written. Draws from the global random generator.

    Raises:
        InputError: the model lacks what the objective asks for.
    """
    return objective(model, _first(split, 2, next(model.parameters())), 0)


def check_bound(objective: Objective, loss: Loss, valid: Split | None) -> None:
    """Early stopping has something to go by: validation data ``valid`` and, in the ``loss`` that the objective gave, a bound.

    Raises:
        InputError: no validation data, or an objective without a bound.
    """
    if valid is None:
        raise InputError("patience stops on the validation bound and the data have no validation split: hold one out, or set patience=None")
    if loss.bound is None:
        raise InputError(f"patience stops on the validation bound and {type(objective).__name__} has none: set patience=None")


def schedule_values(objective: Objective, step: int) -> dict[str, float]:
    """The weights of the rate and the temperatures of ``objective`` that change, as they were at a step."""
    moving = [s for m in _followers(objective) for s in m.schedules if s.settled != 0]
    return {f"train/schedule_{n}": schedule(step) for n, schedule in enumerate(moving)}


def settled(objective: Objective) -> int:
    """The first step at which all weights and temperatures have their final values; one that has none is not waited for."""
    return max((s.settled or 0 for follower in _followers(objective) for s in follower.schedules), default=0)


def constant_from(objective: Objective) -> int | None:
    """The first step from which no schedule changes; None where one goes on for ever."""
    ends = [s.settled for follower in _followers(objective) for s in follower.schedules]
    known = [end for end in ends if end is not None]
    return max(known, default=0) if len(known) == len(ends) else None


def check_warm_up(objective: Objective, steps: int) -> None:
    """Warn where a weight of the rate or a temperature of ``objective`` is still on its way when the run ends, after ``steps`` steps."""
    for follower in _followers(objective):
        for schedule in follower.schedules:
            if schedule.settled is not None and schedule.settled > steps:
                warnings.warn(
                    f"{type(follower).__name__}: its schedule settles at step {schedule.settled} and the run ends at step {steps}, "
                    f"where it is {schedule(steps - 1):.4g} and not yet {schedule(schedule.settled):.4g}: train longer or warm up faster",
                    stacklevel=3,
                )


def _followers(objective: Objective) -> list[Objective | Penalty]:
    """The parts of an objective, itself included, that may follow schedules."""
    return [module for module in objective.modules() if isinstance(module, Objective | Penalty)]
