"""The training loop. Everything that it needs to remember is a `Run`; everything else is recomputed, so that resuming is exact."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from vaekit.data.core import DataSet, Split
from vaekit.data.stream import Stream
from vaekit.errors import NonFiniteError
from vaekit.matmul import matching_matmul
from vaekit.models.core import LatentModel
from vaekit.objectives.core import Objective
from vaekit.objectives.elbo import ELBO
from vaekit.tensors import seed_noise
from vaekit.train.checkpoint import Checkpoints, load_state, save_weights
from vaekit.train.checks import (
    check_batches,
    check_bound,
    check_data,
    check_divisible,
    check_model,
    check_objective,
    check_warm_up,
    schedule_values,
    settled,
    try_objective,
)
from vaekit.train.collapse import warn_of_collapse
from vaekit.train.ema import EMA
from vaekit.train.engine import Engine, worth_compiling
from vaekit.train.fabric import check_processes, connect
from vaekit.train.feed import feeds_of, grouped
from vaekit.train.identity import settings
from vaekit.train.keep import Buffers, channels_last, come_back, forms
from vaekit.train.logs import CSV, Logger, TextLog, read_csv
from vaekit.train.meter import Meter, named
from vaekit.train.nonfinite import explain
from vaekit.train.process import Interrupted, interruptible, locked
from vaekit.train.progress import Clock, progress_for
from vaekit.train.ranks import Alone, Ranks, Several
from vaekit.train.run import Run, go_on
from vaekit.train.settings import Training
from vaekit.train.sharding import returned
from vaekit.train.step import Step
from vaekit.train.validation import validate

__all__ = ["Fitted", "fit"]

CHECK_EVERY = {"cpu": 1, "cuda": 64, "compiled": 256}
"""Steps between two looks at whether all is finite. On a GPU each look waits for it, and a compiled step, or several that start as one,
have changed the weights before anybody can look; so there the run goes on without looking, keeps a copy of its state, and if something was
not finite goes back to the copy and repeats those steps one look at a time, as they come."""

EPOCH_SECONDS = 5.0
"""An epoch that ends sooner than this after the last checkpoint writes none: of a small network that would take a good part of the epoch's
own time. What a kill may lose is trained again to the same bits."""


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
        model: the model that was given, in evaluation mode and its own dtype, with its final weights: those of the best validation
            epoch where there is patience, averaged where there is an EMA.
        history: one row per epoch: ``train/bound``, ``train/log_px``, ``train/rate_0``, ..., ``valid/bound``, ..., nats; and of
            continuous latents ``valid/active``, the dimensions whose posterior mean varies (over at most 1000 validation rows).
        step: optimiser steps done.
        best_step: the step of the best validation bound once the penalty's schedules have settled, None where there is none.
        seconds: wall time, over all parts of a resumed run.
    """

    model: LatentModel
    history: list[dict[str, float]]
    step: int
    best_step: int | None
    seconds: float


def fit(
    model: LatentModel,
    data: DataSet | Split | Stream,
    *,
    objective: Objective | None = None,
    training: Training | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    loggers: Sequence[Logger] = (),
    progress: bool = True,
) -> Fitted:
    """Train a model in place: minimise the batch mean of the objective's surrogate, report its bound.

    However it ends, the model is in evaluation mode and of the dtype in which it came: trained in "64-true" its checkpoints and
    ``model.safetensors`` are float64 and a float32 model comes back as float32.

    Args:
        model: any `LatentModel`; its weights as they are are the start.
        data: a data set (its validation split is evaluated after every epoch, in evaluation mode and with the same noise each time), or
            a split to train on, or a stream of batches (`vaekit.data.Stream`, which says what is exact then).
        objective: default ``ELBO()``.
        training: how; default ``Training()``.
        out: a folder for checkpoints, ``metrics.csv``, ``log.txt`` and at the end ``model.safetensors``; None keeps all in memory.
        resume: go on from the newest checkpoint in ``out``; the end is the same, bit for bit, as without the interruption. (With another
            number of epochs, or another ``compile`` or ``replay``, the run may be compiled where it was not, which changes it by
            rounding.)
        loggers: other places for each epoch's row, such as `TensorBoard`.
        progress: show a bar on stderr (plain lines where stderr is no terminal).

    Raises:
        InputError: data that the model cannot score, settings that contradict each other or the data, a folder with another run in it.
        NonFiniteError: a term or gradient became NaN or infinite; the message says where first. Weights and buffers are those before
            that step, unless it was the update itself that broke them.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.

    The caller's random generators are left as they were.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 12), heads.Gaussian(6)),
    ... )
    >>> fitted = fit(model, Split(torch.randn(64, 6)), training=Training(epochs=2, batch_size=16), progress=False)
    >>> fitted.step, list(fitted.history[-1])[:6]
    (8, ['epoch', 'step', 'train/surrogate', 'train/grad_norm', 'train/bound', 'train/log_px'])
    """
    objective = ELBO() if objective is None else objective
    training = (Training() if training is None else training).resolved()
    check_processes(training)
    device = training.torch_device()
    check_objective(objective)
    if training.devices > 1:
        check_divisible(model, objective)
    feeds = feeds_of(data, training, device)
    feed, present = feeds["training"], {name: part.shown for name, part in feeds.items()}
    steps = None if feed.batches is None else training.epochs * feed.batches
    check_model(model, training.precision)
    if feed.rows is not None:
        check_batches(model, feed.rows, training.batch_size)
    if steps is not None:
        check_warm_up(objective, steps)

    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(matching_matmul(device))
        seed_noise(training.seed, device)
        given = Step(model, objective).eval()
        module = deepcopy(given) if training.strategy == "fsdp" else given  # whose weights would no longer be the model's own
        check_data(module.model, present)
        loss = try_objective(module.model, module.objective, present["training"])
        if training.patience is not None:
            check_bound(objective, loss, present.get("validation"))
        identity = training.identity() | {"rows": feed.rows} | settings(module.model, "model") | settings(module.objective, "objective")
        identity |= {f"{name} data": part.identity() for name, part in feeds.items() if name != "test"}
        stack.callback(come_back, given, forms(given))

        if device.type == "cpu" and training.strategy != "fsdp":
            channels_last(module)
        fabric = connect(training, device)
        ranks: Ranks = Alone(device) if training.devices == 1 else Several(fabric, device, training.seed)
        stack.enter_context(ranks.entered())
        stack.enter_context(ranks.normalising(module))
        forward = fabric.setup_module(module)
        learned = stack.enter_context(ExitStack())
        learned.enter_context(returned(module, given))
        # only now that the module has moved: Adagrad makes its state at once
        bare = training.build([p for p in module.parameters() if p.requires_grad])
        optimiser = fabric.setup_optimizers(bare)

        folder = None if out is None else Path(out)
        store = None
        if folder is not None:
            store = Checkpoints(folder / "checkpoints", training.keep)
            loggers = [CSV(folder / "metrics.csv"), TextLog(folder / "log.txt"), *loggers]
            if ranks.first:
                stack.enter_context(locked(folder))
        if not ranks.first:
            loggers = []

        stop = stack.enter_context(interruptible())  # before there is anything to see of the run
        run = Run(module, bare, EMA(module, training.ema) if training.ema else None, device, identity, ranks)
        ranks.seed(training.seed)
        resumed = go_on(run, store, resume)
        for logger in loggers:
            stack.callback(logger.close)
            logger.begin(run.at.step)
        ranks.tell(run.at.step)  # only now are the rows of later steps gone
        history = [] if folder is None else read_csv(folder / "metrics.csv")
        valid = feeds.get("validation")
        for part in feeds.values():
            stack.callback(part.close)

        def note(text: str) -> None:
            for logger in loggers:
                logger.note(text)

        compiled = worth_compiling(training, given, device, steps)
        together = f", {ranks.size} processes ({training.strategy}) with a part of each batch" if ranks.size > 1 else ""
        note(f"{training.precision} on {device}{together}, {'each full batch compiled into one program' if compiled else 'not compiled'}")
        engine = Engine(run, forward, fabric, optimiser, feed, training, compiled=compiled, note=note)
        if engine.launches is not None:
            note(f"{training.replay} full batches at a time, as one launch")
        clock = Clock(60 * training.checkpoint_minutes)
        epoch_clock = Clock(min(clock.seconds, EPOCH_SECONDS))
        started = time.monotonic() - run.at.seconds

        def sound() -> None:
            broken = run.broken()
            if broken is not None:
                raise NonFiniteError(f"step {run.at.step - 1}: {broken}; {_kept(store)}")

        def save() -> Path | None:
            run.at.seconds = time.monotonic() - started
            sound()
            state = run.state()
            clock.reset()
            epoch_clock.reset()
            if store is None or not ranks.first:
                return None if store is None else store.at(run.at.step)
            return store.save(run.at.step, *state)

        if not resumed:
            save()
        interval, kept = CHECK_EVERY["compiled" if compiled or engine.launches else device.type], Buffers(module)
        every = interval
        bar = progress_for(epochs=training.epochs, steps=steps, start=run.at.step, show=progress and ranks.first)
        stack.callback(bar.close)
        bar_clock = Clock(bar.interval)

        def over() -> bool:
            return run.at.epoch >= training.epochs or (training.patience is not None and run.at.stale >= training.patience)

        def many() -> int:
            return engine.many(careful=every == 1)

        while not over():
            module.train()
            good = None  # one copy at a time
            good = run.snapshot() if every > 1 else None
            for group, last in grouped(feed.epoch(run.at.epoch, run.at.batch), many):
                noise = {}
                if good is None:
                    noise = ranks.noise()
                    kept.keep()
                after = run.at.step + len(group)
                run.scale_rates(training.schedule(after - 1))
                run.meter.accumulate(*engine.together(group, run.at.step, careful=every == 1))

                look = last or after // every > run.at.step // every
                asked, due = ranks.agree(stop.asked, store is not None and ranks.first and clock.due(), look=look)
                look = look or asked or due
                if look and not run.meter.finite():
                    if good is None:
                        ranks.restore(noise)
                        kept.put_back()
                        with ranks.share(group[0], run.at.step, everything=True):
                            what = explain(module, forward, feed.batch(group[0]), run.at.step)
                        kept.put_back()
                        where = f"step {run.at.step}, epoch {run.at.epoch + 1}"
                        raise NonFiniteError(f"{where}: {what}; the weights were not updated; {_kept(store)}")
                    run.restore(good, "the copy")
                    every = 1
                    break
                engine.update(run.at.step)
                run.at.step, run.at.batch = after, run.at.batch + len(group)
                if bar_clock.due():
                    bar.refresh(run.at.epoch + 1, run.at.step, run.meter.means())
                    bar_clock.reset()
                if asked and not last:
                    raise Interrupted(run.at.step, save())
                if due and not last:  # at an epoch's end the row comes first
                    save()
                if look and good is not None:
                    good = None
                    good = run.snapshot()
            else:
                run.at.epoch, run.at.batch, every = run.at.epoch + 1, 0, interval
                row = {"epoch": run.at.epoch, "step": run.at.step} | named("train", run.meter.means())
                row |= {"train/lr": float(bare.param_groups[0]["lr"])} | schedule_values(objective, run.at.step - 1)
                run.meter = Meter()
                if valid is not None:
                    row |= named("valid", validate(run, forward, valid, training))
                row["seconds"] = time.monotonic() - started
                history.append(row)
                for logger in loggers:
                    logger.log(row)
                bar.epoch(row)
                if ranks.first:
                    warn_of_collapse(history, settled(objective))
                asked, due = ranks.agree(stop.asked, ranks.first and epoch_clock.due(), look=True)
                better = training.patience is not None and run.at.best_step == run.at.step
                if asked:
                    raise Interrupted(run.at.step, save())
                if due or better or over():
                    save()
                else:
                    sound()

        if training.patience is not None and run.best:
            load_state(module, run.best, "the best epoch")
        elif run.ema is not None:
            run.ema.apply()
        learned.close()
        if folder is not None and ranks.first:
            save_weights(model, folder / "model.safetensors")
        ranks.tell(run.at.step)  # nobody leaves before it is written
        return Fitted(model, history, run.at.step, run.at.best_step, run.at.seconds)


def _kept(store: Checkpoints | None) -> str:
    paths = [] if store is None else store.paths()
    return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint, because the run has no folder"
