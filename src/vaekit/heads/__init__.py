"""From a network's numbers to a distribution. See `vaekit.heads.core`.

============================  ======================================================  =======================
Head                          x                                                       numbers per example
============================  ======================================================  =======================
`Bernoulli`                   binary; grey in [0, 1] by its expected log-mass         D
`ContinuousBernoulli`         grey in [0, 1]                                          D
`Gaussian`                    real; mean and variance per entry                       2 D
`GaussianFixed`               real; one variance, given                               D
`GaussianShared`              real; one variance, learned                             D
`GaussianOptimal`             real; one variance, the best for each batch             D
`FullGaussian`                real vector, full covariance                            2 D + D (D - 1) / 2
`MixtureGaussian`             real vector, C components                               C (1 + 2 D)
`Categorical`                 class numbers                                           C D
`DiscretisedLogistic`         grey levels                                             2 D
`DiscretisedLogisticMixture`  pixels of C channels, M components                      M (1 + 2 C + C (C - 1) / 2) H W
============================  ======================================================  =======================
"""

from vaekit.heads.binary import Bernoulli, ContinuousBernoulli
from vaekit.heads.core import Head
from vaekit.heads.discrete import Categorical, DiscretisedLogistic, DiscretisedLogisticMixture
from vaekit.heads.gaussian import Gaussian, GaussianFixed, GaussianOptimal, GaussianShared
from vaekit.heads.vector import FullGaussian, MixtureGaussian

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "FullGaussian",
    "Gaussian",
    "GaussianFixed",
    "GaussianOptimal",
    "GaussianShared",
    "Head",
    "MixtureGaussian",
]
