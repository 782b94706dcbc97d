"""Priors p(z): modules that return a distribution of batch shape () when called without arguments.

Any zuko flow without context is one too: ``zuko.flows.MAF(D)``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaekit import dist
from vaekit.dist import DiagGaussian, Mixture
from vaekit.errors import InputError

__all__ = ["StandardNormal", "DiagNormal", "FullNormal", "GaussianMixture", "VampPrior", "Bernoulli", "OneHot"]


class StandardNormal(nn.Module):
    """N(0, I) on ``event_shape``, an int for a vector.

    >>> StandardNormal(2)().log_prob(torch.zeros(2))
    tensor(-1.8379)
    """

    zero: Tensor

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(event_shape), persistent=False)

    def forward(self) -> Distribution:
        return DiagGaussian(self.zero, self.zero, self.zero.dim())


class DiagNormal(nn.Module):
    """N(mu, diag(sigma^2)) on ``event_shape`` with learned ``loc`` and ``log_scale``, from N(0, I) on.

    Beside a decoder that starts with a linear layer it adds nothing that the decoder could not learn; it does where latents are
    shared, fixed or regularised.

    >>> DiagNormal(2)().log_prob(torch.zeros(2))
    tensor(-1.8379, grad_fn=<SumBackward1>)
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(event_shape))
        self.log_scale = nn.Parameter(torch.zeros(event_shape))

    def forward(self) -> Distribution:
        return DiagGaussian(self.loc, self.log_scale, self.loc.dim())


class FullNormal(nn.Module):
    """N(mu, L L^T) on D dimensions with learned ``loc``, ``log_scale`` (of L's diagonal) and ``lower`` (L below it), from N(0, I) on.

    >>> FullNormal(2)().log_prob(torch.zeros(2))
    tensor(-1.8379, grad_fn=<SubBackward0>)
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(dimensions))
        self.log_scale = nn.Parameter(torch.zeros(dimensions))
        self.lower = nn.Parameter(torch.zeros(dimensions, dimensions))

    def forward(self) -> Distribution:
        scale_tril = self.lower.tril(-1) + torch.diag_embed(self.log_scale.exp())
        return MultivariateNormal(self.loc, scale_tril=scale_tril, validate_args=False)


class GaussianMixture(nn.Module):
    r"""p(z) = sum_c w_c N(mu_c, diag(sigma_c^2)) on D dimensions with all of it learned: ``logits``, ``loc``, ``log_scale``.

    At the start the weights are equal, mu_c ~ N(0, I / 2) and sigma_c^2 = 1 / 2: apart enough to part further, and together
    about N(0, I), where the posteriors of a new model are. The draws follow torch's generator, as those of any layer.

    Args:
        dimensions: D.
        components: C.

    Raises:
        InputError: no component.

    >>> _ = torch.manual_seed(0)
    >>> GaussianMixture(2, 5)().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__()
        if components < 1:
            raise InputError(f"GaussianMixture(components={components}): at least 1 is needed")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, dimensions) * math.sqrt(0.5))
        self.log_scale = nn.Parameter(torch.full((components, dimensions), 0.5 * math.log(0.5)))

    def forward(self) -> Distribution:
        return Mixture(self.logits, DiagGaussian(self.loc, self.log_scale))


class Bernoulli(nn.Module):
    """Independent Bernoulli variables on ``event_shape``, an int for a vector, with learned ``logits``, from probability 1/2 on.

    >>> Bernoulli(2)().log_prob(torch.ones(2))
    tensor(-1.3863, grad_fn=<NegBackward0>)
    """

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def forward(self) -> Distribution:
        return dist.Bernoulli(self.logits, self.logits.dim())


class OneHot(nn.Module):
    """N independent one-hot vectors of C classes with learned ``logits`` ``[N, C]``, from equal probabilities on.

    Args:
        event_shape: (N, C).

    Raises:
        InputError: not two numbers; fewer than 2 classes.

    >>> OneHot((2, 3))().mean[0]
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<SelectBackward0>)
    """

    def __init__(self, event_shape: tuple[int, int]) -> None:
        super().__init__()
        if isinstance(event_shape, int) or len(event_shape) != 2 or event_shape[1] < 2:
            raise InputError(f"OneHot({event_shape}): give (variables, classes) with at least 2 classes")
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def forward(self) -> Distribution:
        return dist.OneHot(self.logits, 2)


class VampPrior(nn.Module):
    r"""The posteriors of C learned inputs, mixed: the prior that follows the aggregate posterior.

    .. math:: p(z) = \sum_c w_c \, q(z | u_c), \qquad w_c = 1 / C

    The pseudo-inputs u_c are parameters in the space of the data, held within [low, high]. The paper clips them (a hard tanh), which ends
    the training of an entry that has once left the interval; a sigmoid could not reach 0 and 1, where most of the entries of
    many images lie. Here the value is clipped, and the gradient of an entry outside is kept where a descent step leads back.

    The posterior is used, not owned: the model that has it as its posterior moves, trains and saves it. Normalisation over a batch
    or dropout inside it see the pseudo-inputs as one more batch.

    Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018.

    Args:
        posterior: ``x [B, *] -> q(z | x)``, the model's own.
        pseudo_inputs: the C inputs to start from, ``[C, *]``: examples of the data, or noise around their mean.
        low: smallest value of an entry; ``-math.inf`` for none.
        high: largest value of an entry; ``math.inf`` for none.
        learn_weights: learn w = softmax(logits) too.

    Raises:
        InputError: no pseudo-input, or one outside [low, high].

    >>> from vaekit import Conditional, VAE, heads
    >>> _ = torch.manual_seed(0)
    >>> posterior = Conditional(nn.Linear(6, 4), heads.Gaussian(2))
    >>> prior = VampPrior(posterior, torch.rand(10, 6))
    >>> prior().log_prob(torch.zeros(3, 2)).shape, [name for name, _ in prior.named_parameters()]
    (torch.Size([3]), ['inputs'])
    """

    logits: Tensor

    def __init__(
        self, posterior: nn.Module, pseudo_inputs: Tensor, *, low: float = 0.0, high: float = 1.0, learn_weights: bool = False
    ) -> None:
        super().__init__()
        if pseudo_inputs.dim() < 2 or pseudo_inputs.shape[0] < 1:
            raise InputError(f"VampPrior: pseudo-inputs of shape {list(pseudo_inputs.shape)}: give [C, *x] with C >= 1 inputs of the model")
        least, most = float(pseudo_inputs.min()), float(pseudo_inputs.max())
        if not low <= least <= most <= high:
            raise InputError(f"VampPrior: pseudo-inputs from {least:g} to {most:g} are not within [{low:g}, {high:g}]; set low and high")
        # In a tuple, so that torch does not register it: its weights would be saved twice, and under the prior's name.
        self._posterior = (posterior,)
        self.low = low
        self.high = high
        self.inputs = nn.Parameter(pseudo_inputs.detach().clone())
        logits = torch.zeros(len(pseudo_inputs))
        if learn_weights:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    @property
    def posterior(self) -> nn.Module:
        """The posterior that is used; `vaekit.fit` refuses one that is not the model's own, which would be neither trained nor saved."""
        return self._posterior[0]

    def forward(self) -> Distribution:
        return Mixture(self.logits, self.posterior(_Within.apply(self.inputs, self.low, self.high)))

    def extra_repr(self) -> str:
        return f"pseudo-inputs={list(self.inputs.shape)}, low={self.low:g}, high={self.high:g}"


class _Within(torch.autograd.Function):
    """clamp(x, low, high), whose gradient outside is kept where descending it leads back inside, and 0 where it leads away."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        away = ((x < ctx.low) & (grad > 0)) | ((x > ctx.high) & (grad < 0))
        return torch.where(away, torch.zeros_like(grad), grad), None, None
