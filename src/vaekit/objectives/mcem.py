r"""Monte Carlo EM: the expectation by a Markov chain on p(z | x), without a recognition model.

.. math:: \nabla_\theta \log p(x) = E_{p(z|x)} \left[ \nabla_\theta \log p(x, z) \right], \qquad z \sim \text{HMC}(p(z | x))

One chain is kept for each row of the data. Its transitions take ten leapfrog steps, whose size is adapted to 90% acceptance; then the
weights are updated five times with the same z.

Wei and Tanner, "A Monte Carlo implementation of the EM algorithm", JASA 1990; Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR
2014, appendix E.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaekit.errors import InputError
from vaekit.infer.adapt import nudged
from vaekit.infer.core import Kernel, Layout, start
from vaekit.infer.hmc import HMC
from vaekit.infer.target import log_posterior, scored
from vaekit.models.core import LatentModel
from vaekit.models.picks import from_p
from vaekit.objectives.core import Loss, Objective
from vaekit.tensors import evaluating
from vaekit.types import Batch

__all__ = ["MCEM"]


class MCEM(Objective):
    r"""surrogate = -log p(x, z) at the row's chain z ~ p(z | x), which moves at every ``updates``-th step. There is no bound.

    Train it with ``Training(repeat=updates)``, so that the steps between two moves see the same rows. The model's posterior module is
    not used: its parameters get no gradient. ``logs`` are ``log_px``, ``log_pz``, ``accept`` (the statistic of the last move) and
    ``epsilon`` (the step size). All rows share one step size, as all share one acceptance to aim at; it goes on adapting for as long as
    the model goes on learning.

    In evaluation mode the chains are left as they are: rows get new ones, from the prior and with ``warmup`` transitions, so a value
    measured there is log p(x, z) at a short chain's z.

    Wei and Tanner, "A Monte Carlo implementation of the EM algorithm", JASA 1990; Kingma and Welling, "Auto-Encoding Variational Bayes",
    ICLR 2014, appendix E.

    Args:
        rows: rows of the training data; each has its chain in the buffer ``z``.
        event: shape of the latents, an int for a vector; a list of shapes for a ladder, from the top level down.
        kernel: `HMC` (default) or `NUTS`.
        updates: steps per transition.
        warmup: further transitions of a row that is seen for the first time and starts from the prior.
        epsilon: the first step size.
        target: acceptance to adapt the step size to, None for the kernel's own (0.9 for HMC).

    Raises:
        InputError: settings out of range; at the call, a batch without row numbers or with one beyond ``rows``, rows that changed
            between two moves (no ``repeat``), or latents that are discrete or bounded.

    >>> from vaekit import Conditional, VAE, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> model = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> loss = MCEM(rows=8, event=2)(model, Batch(torch.ones(8, 6), index=torch.arange(8)))
    >>> loss.surrogate.shape, loss.bound, sorted(loss.logs)
    (torch.Size([8]), None, ['accept', 'epsilon', 'log_px', 'log_pz'])
    """

    trains_q: ClassVar[bool] = False
    z: Tensor
    moved: Tensor
    epsilon: Tensor
    accept: Tensor

    def __init__(
        self,
        rows: int,
        event: int | tuple[int, ...] | list[tuple[int, ...]],
        *,
        kernel: Kernel | None = None,
        updates: int = 5,
        warmup: int = 10,
        epsilon: float = 0.1,
        target: float | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("rows", rows, 1), ("updates", updates, 1), ("warmup", warmup, 0)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"MCEM({name}={value}): a whole number, at least {least}, is needed")
        if not epsilon > 0:
            raise InputError(f"MCEM(epsilon={epsilon}): the step size is positive")
        if target is not None and not 0 < target < 1:
            raise InputError(f"MCEM(target={target}): the acceptance lies between 0 and 1")
        events = event if isinstance(event, list) else [(event,) if isinstance(event, int) else event]
        self.layout = Layout(tuple(tuple(e) for e in events))
        self.kernel = HMC() if kernel is None else kernel
        self.updates = updates
        self.warmup = warmup
        self.target = self.kernel.preferred if target is None else target
        self.register_buffer("z", torch.zeros(rows, sum(self.layout.sizes)))
        self.register_buffer("moved", torch.full((rows,), -1))  # the step of each row's last move
        self.register_buffer("epsilon", torch.tensor(epsilon))
        self.register_buffer("accept", torch.tensor(0.0))

    def forward(self, model: LatentModel, batch: Batch, step: int = 0) -> Loss:
        z, accept, epsilon = self._kept(model, batch, step) if self.training else self._fresh(model, batch)
        t = scored(model, batch, self.layout.split(z))
        log_px, log_pz = t.log_px[0], t.log_pz[0]
        logs = {"log_px": log_px.detach(), "log_pz": log_pz.detach()}
        logs |= {"accept": accept.clone().expand(batch.size), "epsilon": epsilon.clone().expand(batch.size)}
        return Loss(-log_px - log_pz, None, logs)

    def _kept(self, model: LatentModel, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The rows' chains ``[1, B, D]``, moved where it is their step; acceptance and step size."""
        rows = self._rows(batch)
        if step % self.updates == 0:
            new = self.moved[rows] < 0
            if bool(new.any()):
                z, _, epsilon = self._fresh(model, _part(batch, new))
                self.z[rows[new]] = z[0]
                self.epsilon.copy_(epsilon)
            z, accept, epsilon = self._moved(model, batch, self.z[rows].unsqueeze(0), 1)
            self.z[rows], self.moved[rows] = z[0], step
            self.accept.copy_(accept)
            self.epsilon.copy_(epsilon)
        elif bool((self.moved[rows] != step - step % self.updates).any()):
            raise InputError(
                f"MCEM(updates={self.updates}): step {step} has other rows than the last move of the chains, "
                f"so it has no z for them: train with Training(repeat={self.updates})"
            )
        return self.z[rows].unsqueeze(0), self.accept, self.epsilon

    def _rows(self, batch: Batch) -> Tensor:
        if batch.index is None:
            raise InputError("MCEM keeps a chain for each row of the data and this batch does not number them: give Batch(x, index=...)")
        last = int(batch.index.max())
        if last >= len(self.z):
            raise InputError(f"MCEM(rows={len(self.z)}) has no chain for row {last}: set rows to the number of training rows")
        return batch.index

    def _fresh(self, model: LatentModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """New chains ``[1, B, D]`` from the prior, after the warm-up; acceptance and step size."""
        with torch.no_grad(), evaluating(model):
            levels, _ = model.unroll(from_p(1, batch.size), None, batch.c)
        layout = Layout.of([level.z for level in levels])
        if layout != self.layout:
            raise InputError(f"MCEM: the model's latents have shapes {layout.events} and event says {self.layout.events}")
        return self._moved(model, batch, layout.join([level.z for level in levels]).to(self.z.dtype), self.warmup)

    def _moved(self, model: LatentModel, batch: Batch, z: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """The chains ``[1, B, D]`` after n transitions, the mean acceptance of the last, and the step size for the next."""
        density = log_posterior(model, batch)
        accept, epsilon, one = self.accept, self.epsilon, torch.ones_like(self.epsilon)

        def log_density(z: Tensor) -> Tensor:
            return density(self.layout.split(z))

        with torch.no_grad(), evaluating(model):  # a chain needs one density
            state = start(log_density, z)
            for _ in range(n):
                state, info = self.kernel.step(log_density, state, epsilon, one)
                accept = info.accept.mean()
                epsilon = nudged(epsilon, accept, self.target)
        return state.z, accept, epsilon


def _part(batch: Batch, chosen: Tensor) -> Batch:
    return Batch(*(None if t is None else t[chosen] for t in batch))  # type: ignore[arg-type]
