r"""Which factor was held fixed? The FactorVAE and the beta-VAE score.

Both draw examples that share the value of one factor, f, and ask the codes which it was. Examples are drawn from those given, with
replacement: first one of them, then others among those that have its value of f. So a sample of a data set will do, if it holds a few dozen
examples of each value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vaekit.errors import InputError
from vaekit.evaluate.disentangle.information import check_codes

__all__ = ["beta_vae_score", "factor_vae_score"]

CHUNK = 4_000_000
"""Numbers held at a time."""
DECAY = 1e-4
"""Weight of |w|^2 / 2 in the linear classifier, without which separable classes have no solution; its inputs have variance 1."""


class _Draws:
    """Rows of given factors with one factor fixed."""

    def __init__(self, factors: Tensor, seed: int) -> None:
        self.factors = factors
        self.order = factors.argsort(dim=0, stable=True)  # [N, F]: the rows, value by value
        self.size = torch.stack([torch.bincount(column, minlength=int(factors.max()) + 1) for column in factors.unbind(1)])
        self.start = self.size.cumsum(1) - self.size
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self, draws: int, rows: int) -> tuple[Tensor, Tensor]:
        """The fixed factor of each draw, ``[draws]``, and rows that share one value of it, ``[draws, rows]``."""
        fixed = self._integers(self.factors.shape[1], (draws,))
        value = self.factors[self._integers(len(self.factors), (draws,)), fixed]
        return fixed, self._rows(fixed[:, None], value[:, None], (draws, rows))

    def pairs(self, draws: int, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
        """The fixed factor of each draw, ``[draws]``, and the two rows of each pair, ``[draws, pairs]``; a pair has a value of its own."""
        fixed = self._integers(self.factors.shape[1], (draws,))
        first = self._integers(len(self.factors), (draws, pairs))
        return fixed, first, self._rows(fixed[:, None], self.factors[first, fixed[:, None]], (draws, pairs))

    def _integers(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(n, shape, generator=self.generator).to(self.factors.device)

    def _rows(self, fixed: Tensor, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        u = torch.rand(shape, generator=self.generator, dtype=torch.float64).to(self.factors.device)
        return self.order[self.start[fixed, value] + (u * self.size[fixed, value]).long(), fixed]


def factor_vae_score(
    z: Tensor, factors: Tensor, *, batch: int = 64, votes: int = 2000, least: float = 0.0, seed: int = 0
) -> tuple[float, float]:
    r"""Accuracy, and its standard error, of naming the fixed factor by the code that varies least.

    .. math:: \text{vote: } \left( f, \; \arg\min_d \frac{\mathrm{Var}_{\text{rows with one value of } f} z_d}{\mathrm{Var} z_d} \right)

    Each code stands for the factor that most of ``votes`` votes with it name; the accuracy is that of as many other votes. Chance is 1/F.
    The error is that of the votes, for these codes.

    Kim and Mnih, "Disentangling by Factorising", ICML 2018.

    Args:
        z: codes, ``[N, D]``.
        factors: integers from 0, ``[N, F]``.
        batch: rows a vote.
        votes: votes to learn from, and votes to be measured by.
        least: codes with no more than this variance take no part; where none is left the score is chance.
        seed: of the draws.

    Raises:
        InputError: fewer than 2 rows a vote, or no votes.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    >>> factor_vae_score(factors.flip(1).float(), factors), factor_vae_score(torch.zeros(20, 3), factors)[0]
    ((1.0, 0.0), 0.5)
    """
    check_codes(z, factors)
    if batch < 2 or votes < 1:
        raise InputError(f"factor_vae_score(batch={batch}, votes={votes}): a variance takes 2 rows, and a score a vote")
    variance = z.double().var(0)
    active = z.double()[:, variance > least]
    if not active.shape[1]:
        return 1 / factors.shape[1], 0.0
    draws = _Draws(factors, seed)
    active = active / active.std(0)

    def table() -> Tensor:
        found = torch.zeros(active.shape[1], factors.shape[1], dtype=torch.float64, device=z.device)
        for part in torch.arange(votes).split(max(1, CHUNK // (batch * active.shape[1]))):
            fixed, rows = draws.batches(len(part), batch)
            quiet = active[rows].var(1).argmin(1)
            found.index_put_((quiet, fixed), torch.ones((), dtype=torch.float64, device=z.device), accumulate=True)
        return found

    stands_for = table().argmax(1)
    right = float(table().gather(1, stands_for[:, None]).sum() / votes)
    return right, math.sqrt(right * (1 - right) / votes)


def beta_vae_score(z: Tensor, factors: Tensor, *, batch: int = 64, votes: int = 2000, seed: int = 0) -> tuple[float, float]:
    r"""Accuracy, and its standard error, of a linear classifier that names the fixed factor from mean |z_1 - z_2| over ``batch`` pairs.

    The two of a pair share the value of factor f; each pair its own. The classifier, a multinomial logistic regression on the standardised
    mean differences, learns from ``votes`` draws and is measured by as many others. Chance is 1/F. It forgives what the other scores do
    not: two codes of two factors that are turned by 20 degrees are told apart as well as before.

    Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework", ICLR 2017.

    Args:
        z: codes, ``[N, D]``.
        factors: integers from 0, ``[N, F]``.
        batch: pairs a draw.
        votes: draws to learn from, and draws to be measured by.
        seed: of the draws.

    Raises:
        InputError: codes and factors that do not fit each other; ``batch`` below 1 or ``votes`` below 2.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    >>> beta_vae_score(factors.flip(1).float(), factors, votes=200)
    (1.0, 0.0)
    """
    check_codes(z, factors)
    if batch < 1 or votes < 2:
        raise InputError(f"beta_vae_score(batch={batch}, votes={votes}): give at least 1 pair a draw and 2 draws")
    draws = _Draws(factors, seed)
    codes = z.double()

    def features() -> tuple[Tensor, Tensor]:
        found, named = [], []
        for part in torch.arange(votes).split(max(1, CHUNK // (2 * batch * codes.shape[1]))):
            fixed, first, second = draws.pairs(len(part), batch)
            found.append((codes[first] - codes[second]).abs().mean(1))
            named.append(fixed)
        return torch.cat(found), torch.cat(named)

    x, y = features()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-12)
    weights = _logistic((x - mean) / std, y, factors.shape[1])
    x, y = features()
    logits = torch.cat([(x - mean) / std, x.new_ones(len(x), 1)], 1) @ weights
    right = float((logits.argmax(1) == y).double().mean())
    return right, math.sqrt(right * (1 - right) / votes)


def _logistic(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """Weights ``[D + 1, classes]`` of the logistic regression, the intercept last; convex, by L-BFGS."""
    inputs = torch.cat([x, x.new_ones(len(x), 1)], 1)
    with torch.enable_grad():
        weights = torch.zeros(inputs.shape[1], classes, dtype=x.dtype, device=x.device, requires_grad=True)
        solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            loss = cross_entropy(inputs @ weights, y) + 0.5 * DECAY * weights[:-1].square().sum()
            loss.backward()
            return loss

        solver.step(closure)
    return weights.detach()
