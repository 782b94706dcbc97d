r"""One step of M models of the same structure, as one function of their stacked tensors.

.. math:: \theta_m \leftarrow \mathrm{Adam}\left( \theta_m, \nabla_{\theta_m} \frac1B \sum_b s(x_{mb}, \epsilon_m; \theta_m) \right),
          \qquad m = 1 \ldots M

Parameters, buffers, averages, batches and noise carry the models along their first axis. Nothing random happens inside: the noise is an
argument, drawn beforehand for each model from its own generator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.flop_counter import FlopCounterMode

from vaekit import noise
from vaekit.compiling import Compiled, NotCompiledError, together
from vaekit.data.core import Split
from vaekit.objectives.schedules import Schedule
from vaekit.train.adam import InGraphAdam, Moments
from vaekit.train.alike import Place
from vaekit.train.checks import constant_from
from vaekit.train.engine import familiar, known
from vaekit.train.keep import plain_values
from vaekit.train.meter import summed, values_of
from vaekit.train.settings import Training
from vaekit.train.step import Step
from vaekit.types import Batch

__all__ = ["NotTogetherError", "Program", "Request", "autocast", "recorded"]


class NotTogetherError(Exception):
    """These models cannot be trained as one; the message says why, in a clause."""


class Request(NamedTuple):
    """Noise that a step asks for.

    Attributes:
        kind: normal or uniform.
        shape: as asked for.
        dtype: as asked for.
    """

    kind: noise.Kind
    shape: tuple[int, ...]
    dtype: torch.dtype

    def draw(self, generator: torch.Generator) -> Tensor:
        """What, of this shape, `vaekit.noise` would have drawn from torch's generator in that state."""
        one = {"normal": torch.randn, "uniform": torch.rand}[self.kind]
        return one(self.shape, generator=generator, dtype=self.dtype, device=generator.device)


class Recording:
    """A source of noise that writes down what it is asked for."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.requests: list[Request] = []

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        self.requests.append(Request(kind, shape, like.dtype))
        return self.requests[-1].draw(self.generator)


class Replay:
    """A source that hands out noise which was drawn before, in its order."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        self.drawn, self.next = drawn, 0

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        given = self.drawn[self.next]
        self.next += 1
        if tuple(given.shape) != shape:
            raise RuntimeError(f"a step asked for noise {list(shape)} where another one asked for {list(given.shape)}")
        return given


@dataclass(frozen=True)
class Recorded:
    """One model's step, alone: its noise, of which the first ``prepared`` are the batch's, the names of what it logs, its surrogate, the
    parameters that it has a gradient for, the arithmetic of its forward pass, and the bytes that this keeps for the backward pass."""

    requests: list[Request]
    prepared: int
    names: tuple[str, ...]
    surrogate: float
    used: list[bool]
    flops: int
    kept: int


def recorded(module: Step, split: Split, training: Training, index: Tensor, step: int) -> Recorded:
    """Run a step of one model, ``module`` with the settings ``training``, on the rows ``index`` ``[B]`` without changing anything.

    Raises:
        NotTogetherError: it draws noise that no source can give.
    """
    device = split.x.device
    source = Recording(torch.Generator(device).manual_seed(training.seed))
    parameters = [p for p in module.parameters() if p.requires_grad]
    before, buffers = _generators(device), {name: b.clone() for name, b in module.named_buffers()}
    kept, plain = dict(buffers), plain_values(module)
    known = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *buffers.values()]}
    saved: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return t

    counting = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with noise.drawn_by(source), autocast(training, device), FlopCounterMode(display=False) as flops, counting:
        batch = split.batch(index)
        prepared = len(source.requests)
        loss = functional_call(module, buffers, (batch, step))
    if not all(torch.equal(a, b) for a, b in zip(before, _generators(device), strict=True)):
        raise NotTogetherError("its noise is drawn by other means than vaekit.noise (dropout, a zuko flow, a choice among codes)")
    if any(buffers.get(name) is not b for name, b in kept.items()) or plain_values(module) != plain:
        raise NotTogetherError("it keeps what changes in plain attributes, or puts new tensors in the place of its buffers")
    grads = torch.autograd.grad(loss.surrogate.mean(), parameters, allow_unused=True)
    names, _, _ = summed(values_of(loss, loss.surrogate.new_zeros(())))
    used = [g is not None for g in grads]
    surrogate, work = float(loss.surrogate.detach().mean()), flops.get_total_flops()
    return Recorded(source.requests, prepared, names, surrogate, used, work, sum(saved.values()))


def autocast(training: Training, device: torch.device) -> Any:
    """The precision of a forward pass, as ``training`` says."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16-mixed")


def _generators(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


class Given(Schedule):
    """A weight that is one of its module's buffers, so that each of several models has its own."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, step: int) -> Any:
        return self.module.get_buffer(self.name)

    @property
    def settled(self) -> int:
        return 0


class Program:
    """The step of ``size`` models like ``module``.

    Args:
        module: one of them.
        constants: places of the objective's weights that are not the same for all: they become buffers.
        split: the training rows, on the device.
        training: theirs, but for seed and learning rate.
        size: M.
        prepared: how many of a step's requests for noise are those of the batch.
        compiled: whether to compile it.
        note: told where that failed.
    """

    def __init__(
        self,
        module: Step,
        constants: Sequence[Place],
        split: Split,
        training: Training,
        *,
        size: int,
        prepared: int,
        compiled: bool,
        note: Callable[[str], None],
    ) -> None:
        self.split, self.training, self.size, self.prepared = split, training, size, prepared
        self.module = copy.deepcopy(module).train()
        self.constants = list(constants)
        for path, name in self.constants:
            owner = self.module.get_submodule(path)
            owner.register_buffer(f"given_{name}", torch.zeros((), device=split.x.device))
            setattr(owner, name, Given(owner, f"given_{name}"))
        self.trained = [name for name, p in self.module.named_parameters() if p.requires_grad]
        self.held = [name for name, p in self.module.named_parameters() if not p.requires_grad]
        self.held += [name for name, _ in self.module.named_buffers()]
        self.constant_from = constant_from(module.objective)
        fixed = known(self.module, split.prepare)
        self.whole = Compiled(self.run, differentiates=True, fixed=fixed, substitute=False, note=note) if compiled else None

    def __call__(self, adam: InGraphAdam, held: list[Tensor], moments: Moments, index: Tensor, drawn: list[Tensor], step: int) -> Tensor:
        """One step: changes parameters, averages and buffers in place; the sums ``[M, n]``, float64, of what is logged.

        Args:
            adam: with the stacked parameters ``[M, ...]``.
            held: frozen parameters, buffers and constants, stacked, in the order of ``self.held``.
            moments: the averages, stacked, and the scalars ``[3, M]``.
            index: rows of each model's batch, ``[M, B]``.
            drawn: noise, ``[M, ...]`` each.
            step: its number.
        """
        # a single run takes its first step as it comes, for there are no averages yet: in bfloat16 Adam would make rounding there visible
        steady = self.constant_from is not None and step >= max(self.constant_from, 1)
        if self.whole is not None and not self.whole.failed and steady and index.shape[1] == self.training.batch_size:
            try:
                return self.whole(adam, list(adam.parameters), held, moments, index, drawn, self.constant_from or 0)
            except NotCompiledError:
                pass
        return self.run(adam, list(adam.parameters), held, moments, index, drawn, step)

    def run(
        self,
        adam: InGraphAdam,
        parameters: list[Tensor],
        held: list[Tensor],
        moments: Moments,
        index: Tensor,
        drawn: list[Tensor],
        step: int,
    ) -> Tensor:
        """The step as operations; the sums ``[M, n]`` of what is logged.

        Args:
            adam: the update.
            parameters: of all models, ``[M, *]`` each, changed in place.
            held: what is not trained, ``[M, *]`` each.
            moments: Adam's averages, changed in place.
            index: rows of each model, ``[M, B]``.
            drawn: noise of the step, ``[M, *]`` each.
            step: its number.
        """
        surrogate, total = self.forward(parameters, held, index, drawn, step)
        grads = torch.autograd.grad(surrogate.mean(1).sum(), parameters, allow_unused=True)
        # over the trailing axes as they are: flattened they would be walked in an order that the gradients are not stored in
        squares = [g.square().sum(tuple(range(1, g.dim()))) if g.dim() > 1 else g.square() for g in grads if g is not None]
        norm = torch.stack(squares).sum(0).sqrt()
        if self.training.clip is not None:
            scale = (self.training.clip / (norm + 1e-6)).clamp(max=1.0)
            grads = tuple(None if g is None else g * scale.view(-1, *[1] * (g.dim() - 1)) for g in grads)
        adam.apply(grads, moments)
        size = index.shape[1]
        return torch.cat([total[:, :1], (norm.detach().double() * size).unsqueeze(1), total[:, 1:]], 1)  # the order of `values_of`

    def _batch(self, index: Tensor, drawn: list[Tensor]) -> Batch:
        """The rows ``[M, B]`` as model input ``[M, B, *]``."""
        if familiar(self.split.prepare):  # each row by itself: all at once
            with noise.drawn_by(Replay([t.flatten(0, 1) for t in drawn])):
                batch = self.split.batch(index.flatten())
            x, *others = batch
            return Batch(x.unflatten(0, index.shape), *(None if t is None else t.unflatten(0, index.shape) for t in others))
        batches = []
        for number, rows in enumerate(index):  # it may look at the others of its batch
            with noise.drawn_by(Replay([t[number] for t in drawn])):
                batches.append(self.split.batch(rows))

        def stack(number: int) -> Tensor | None:
            parts = [t for b in batches if isinstance(t := b[number], Tensor)]
            return torch.stack(parts) if parts else None

        return Batch(torch.stack([b.x for b in batches]), stack(1), stack(2), stack(3))

    def forward(self, parameters: list[Tensor], held: list[Tensor], index: Tensor, drawn: list[Tensor], step: int) -> tuple[Tensor, Tensor]:
        """Surrogates ``[M, B]``, and the sums ``[M, n]`` of what is logged but for the gradient's norm. ``parameters``, ``held``,
        ``index`` and ``drawn`` as in `run`."""

        ahead = self.prepared
        batch = self._batch(index, drawn[:ahead])
        there = [number for number, t in enumerate(batch) if t is not None]
        rows = [t for t in batch if t is not None]

        def one(parameters: list[Tensor], held: list[Tensor], rows: list[Tensor], drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
            tensors = dict(zip([*self.trained, *self.held], [*parameters, *held], strict=True))
            found = dict(zip(there, rows, strict=True))
            with noise.drawn_by(Replay(drawn)):
                loss = functional_call(
                    self.module, tensors, (Batch(found[0], *(found.get(number) for number in range(1, len(batch)))), step)
                )
            return loss.surrogate, summed(values_of(loss))[1]

        with autocast(self.training, index.device):
            if self.size > 1:
                with together():
                    found: tuple[Tensor, Tensor] = vmap(one)(parameters, held, rows, drawn[ahead:])
                return found
            # without a batched product in place of a plain one
            a, b, c, d = ([t.squeeze(0) for t in ts] for ts in (parameters, held, rows, drawn[ahead:]))
            alone = one(a, b, c, d)
            return alone[0].unsqueeze(0), alone[1].unsqueeze(0)
