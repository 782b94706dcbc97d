r"""A flat model as Pyro's pair of functions, for `pyro.infer.SVI` and for Pyro's MCMC. Needs the extra: ``pip install 'vaekit[pyro]'``.

.. math:: \text{model: } z_i \sim p(z), \; x_i \sim p(x | z_i), \qquad \text{guide: } z_i \sim q(z | x_i), \qquad i = 1 \ldots B

Both run in ``pyro.plate("examples", B)``, with the sites "z" and "x". Pyro's loss is a *sum* over the batch: minus the sum of log w, so
that its gradient is B times that of `vaekit.fit`, which takes the mean. Adam does not see the difference (but for its eps), SGD does.

Bingham et al., "Pyro: Deep Universal Probabilistic Programming", JMLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl

from vaekit.dist import closed_form_kl, describe, draw, log_prob_observed
from vaekit.dist.core import SampleShape
from vaekit.errors import InputError
from vaekit.models.core import LatentModel
from vaekit.models.vae import VAE
from vaekit.models.view import context_of, joined
from vaekit.types import Batch

try:
    import pyro
    from pyro.distributions import TorchDistribution
    from pyro.params import param_with_module_name
except ImportError as error:
    raise InputError("vaekit.apps.pyro needs Pyro, which is not installed: pip install 'vaekit[pyro]'") from error

__all__ = ["Adapted", "PyroGuide", "PyroModel", "PyroPair", "pyro_pair"]


class Adapted(TorchDistribution):
    """A distribution in Pyro's clothes. Its density is ``log_prob_observed``, its sample ``draw``, its KL ``closed_form_kl``.

    Args:
        d: any distribution, batch shape ``[*b]``.
        batch_shape: the shape in which to see ``[*b]``, of as many entries; default ``[*b]`` itself.
        extra: more batch dimensions in front, over which d is repeated: what ``expand`` makes.
        observed: mask of the observed entries, as `Batch.mask`.

    Raises:
        InputError: ``expand`` to a shape that does not end in the present one.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self, d: Distribution, *, batch_shape: Size | None = None, extra: Size | None = None, observed: Tensor | None = None
    ) -> None:
        self.d = d
        self.observed = observed
        self._inner = d.batch_shape if batch_shape is None else batch_shape
        self._drawn: tuple[Tensor, Tensor] | None = None
        self.has_rsample = d.has_rsample
        super().__init__((Size() if extra is None else extra) + self._inner, d.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.d.support

    @property
    def extra(self) -> Size:
        """The batch dimensions over which d is repeated."""
        return self.batch_shape[: len(self.batch_shape) - len(self._inner)]

    def expand(self, batch_shape: SampleShape, _instance: Distribution | None = None) -> Adapted:
        shape = Size(batch_shape)
        n = len(shape) - len(self._inner)
        if n < 0 or shape[n:] != self._inner:
            raise InputError(f"{describe(self.d)} of batch shape {list(self._inner)} cannot be expanded to {list(shape)} inside a plate")
        return Adapted(self.d, batch_shape=self._inner, extra=shape[:n], observed=self.observed)

    def rsample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self._draw(sample_shape, True)

    def sample(self, sample_shape: SampleShape = ()) -> Tensor:
        return self._draw(sample_shape, False)

    def _draw(self, sample_shape: SampleShape, reparam: bool) -> Tensor:
        shape = Size(sample_shape) + self.extra
        z, log_q = draw(self.d, shape, reparam)
        z = z.reshape(shape + self._inner + self.event_shape)
        self._drawn = (z, log_q.reshape(shape + self._inner))
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]  # of an own sample it is known: flows need no inverse, and some have none
        n = value.dim() - len(self.event_shape)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:n])
        lead = shape[: len(shape) - len(self._inner)]
        x = value.expand(shape + self.event_shape).reshape(lead + self.d.batch_shape + self.event_shape)
        return log_prob_observed(self.d, x, self.observed).reshape(shape)


@register_kl(Adapted, Adapted)
def _kl(q: Adapted, p: Adapted) -> Tensor:
    kl = closed_form_kl(q.d, p.d)
    if kl is None:
        raise NotImplementedError
    return kl.expand(q.batch_shape)


@dataclass(frozen=True)
class PyroModel:
    """``batch -> None``: z ~ p(z) and x ~ p(x | z), observed, for every example of the batch. ``vae`` is the model, ``name`` that of
    its module in Pyro's store."""

    vae: VAE
    name: str

    def __call__(self, batch: Batch) -> None:
        c = context_of(self.vae.context, batch, None)
        _register(self.name, self.vae)
        with pyro.plate("examples", batch.size, dim=-1):
            p = self.vae.prior(c) if self.vae.conditional_prior else self.vae.prior()
            z = pyro.sample("z", Adapted(p))
            n = z.dim() - len(p.event_shape)
            if z.shape[n:] != p.event_shape:
                raise InputError(
                    f"the guide's z has events {list(z.shape[n:])} and p(z) = {describe(p)} {list(p.event_shape)}: give both one"
                )
            z_k = z.reshape(-1, batch.size, *p.event_shape)  # [K, B, *]: a particle is a sample
            px = self.vae.likelihood(z_k if c is None else joined(z_k, c, 2))
            pyro.sample("x", Adapted(px, batch_shape=z.shape[:n], observed=batch.mask), obs=batch.x)


@dataclass(frozen=True)
class PyroGuide:
    """``batch -> None``: z ~ q(z | x) for every example of the batch. ``vae`` is the model, ``name`` that of its module in Pyro's
    store."""

    vae: VAE
    name: str

    def __call__(self, batch: Batch) -> None:
        _register(self.name, self.vae)
        with pyro.plate("examples", batch.size, dim=-1):
            pyro.sample("z", Adapted(self.vae.posterior(self.vae.view(batch))))


class PyroPair(NamedTuple):
    """What `pyro.infer.SVI` takes: a model and its guide."""

    model: PyroModel
    guide: PyroGuide


def pyro_pair(model: LatentModel, *, name: str = "vae") -> PyroPair:
    """The Pyro model and guide of a flat model; both are called with a `vaekit.Batch`.

    The parameters are registered as ``pyro.module(name, model)`` does, at the first call: SVI trains the very tensors of the model. The
    param store is global and Pyro's user's; nothing here clears it. A parameter that must stay fixed is one without ``requires_grad``.

    With `pyro.infer.Trace_ELBO` SVI maximises the ELBO with a sampled KL (`ELBO` with ``closed_form=False``), with
    `pyro.infer.TraceMeanField_ELBO` that with the closed form. ``num_particles`` is K. Latents without a reparameterised sample get Pyro's
    score-function gradients.

    `pyro.infer.NUTS(pair.model)` samples p(z | x) of a batch, all examples in one chain. Fix the weights before,
    ``model.eval().requires_grad_(False)``: nothing is registered then, and the pair can be sent to the processes of several chains.

    Args:
        model: a `VAE`, of any prior, posterior and likelihood.
        name: the parameters' prefix in the param store.

    Raises:
        InputError: a model with several levels. At a call: a batch with a context, or a name that the param store knows with other tensors.

    >>> from vaekit import Conditional, heads, priors
    >>> _ = torch.manual_seed(0)
    >>> vae = VAE(
    ...     priors.StandardNormal(2),
    ...     Conditional(torch.nn.Linear(6, 4), heads.Gaussian(2)),
    ...     Conditional(torch.nn.Linear(2, 6), heads.Bernoulli(6)),
    ... )
    >>> pair = pyro_pair(vae, name="pyro_pair example")
    >>> svi = pyro.infer.SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
    >>> losses = [svi.step(Batch(torch.ones(8, 6))) for _ in range(100)]
    >>> losses[0] > 30 > losses[-1]
    True
    """
    if not isinstance(model, LatentModel):
        raise InputError(f"pyro_pair takes a vaekit model, not a {type(model).__name__}: build a VAE(prior, posterior, likelihood)")
    if not isinstance(model, VAE):
        raise InputError(
            f"pyro_pair takes a flat model, and this is a {type(model).__name__}: Pyro runs the guide alone and before the model, but a "
            "ladder's q(z_l | z_<l, x) is part of the pass that builds p; train it with vaekit.fit, or use a VAE"
        )
    return PyroPair(PyroModel(model, name), PyroGuide(model, name))


def _register(name: str, model: VAE) -> None:
    """``pyro.module(name, model)``, which takes no notice when the store holds other tensors under this name, and trains those."""
    for key, parameter in model.named_parameters():
        known = param_with_module_name(name, key)
        if parameter.requires_grad and pyro.param(known, parameter) is not parameter:
            raise InputError(
                f'the param store holds another tensor than this model\'s as "{known}", and would train that one: give '
                "pyro_pair(model, name=...) a name of its own, or call pyro.clear_param_store() first"
            )
