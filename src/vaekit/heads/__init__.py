"""From a network's numbers to a distribution. See `vaekit.heads.core`.

==============================  ======================================================  =======================
Head                            x                                                       numbers per example
==============================  ======================================================  =======================
`Bernoulli`                     binary; grey in [0, 1] by its expected log-mass         D
`ContinuousBernoulli`           grey in [0, 1]                                          D
`Gaussian`                      real; mean and variance per entry                       2 D
`GaussianFixed`                 real; one variance, given                               D
`GaussianShared`                real; one variance, learned                             D
`GaussianEach`                  real; one variance per entry, learned                   D
`GaussianOptimal`               real; one variance, the best for each batch             D
`GaussianContaminated`          [0, 1]; mean from the network, the rest per entry       D
`FullGaussian`                  real vector, full covariance                            2 D + D (D - 1) / 2
`MixtureGaussian`               real vector, C components                               C (1 + 2 D)
`Planar`                        real vector, T planar flows                             2 D + T (2 D + 1)
`Radial`                        real vector, T radial flows                             2 D + T (D + 2)
`Householder`                   real vector, T reflections                              2 D + T D
`OrthogonalSylvester`           real vector, T flows in M directions each               2 D + T M (D + M + 2)
`HouseholderSylvester`          real vector, T flows, H reflections each                2 D + T D (H + D + 2)
`TriangularSylvester`           real vector, T flows                                    2 D + T D (D + 2)
`IAF`                           real vector, C numbers that every step sees             2 D + C
`Point`                         a point, no density: the encoder of an autoencoder      D
`Quantised`                     code vectors of a quantiser: a VQ-VAE's encoder         D
`Categorical`                   class numbers                                           C D
`OneHot`                        latents: N classes as one-hot vectors                   C N
`DiscretisedLogistic`           grey levels                                             2 D
`DiscretisedLogisticMixture`    pixels of C channels, M components                      M (1 + 2 C + C (C - 1) / 2) H W
`SharedLevels`                  grey levels, M distributions of levels shared by all    M D
`StudentT`                      real with outliers; degrees of freedom learned          2 D
`LogNormal`                     positive                                                2 D
`Poisson`                       counts (`sized`: with a size of each example)           D (+ 1)
`NegativeBinomial`              counts, overdispersed; dispersion learned               D (+ 1)
`ZeroInflatedPoisson`           counts with more zeros                                  2 D (+ 1)
`ZeroInflatedNegativeBinomial`  likewise, overdispersed                                 2 D (+ 1)
`Classes`                       classes, C_d of entry d                                 sum of C_d
`Ordinal`                       ordered classes; thresholds learned                     D
`Columns`                       the row of a table: each column its own kind            the sum of its columns'
==============================  ======================================================  =======================
"""

from vaekit.heads.binary import Bernoulli, ContinuousBernoulli
from vaekit.heads.classes import Classes, Ordinal
from vaekit.heads.columns import Column, Columns
from vaekit.heads.contaminated import GaussianContaminated
from vaekit.heads.core import Head
from vaekit.heads.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, ZeroInflatedPoisson
from vaekit.heads.discrete import Categorical, DiscretisedLogistic, DiscretisedLogisticMixture, OneHot, SharedLevels
from vaekit.heads.flow import (
    IAF,
    FlowHead,
    Householder,
    HouseholderSylvester,
    OrthogonalSylvester,
    Planar,
    Radial,
    TriangularSylvester,
)
from vaekit.heads.gaussian import Gaussian, GaussianEach, GaussianFixed, GaussianOptimal, GaussianShared
from vaekit.heads.missing import MaskModel, MaskNetwork, SelfMasking
from vaekit.heads.point import Point
from vaekit.heads.positive import LogNormal, StudentT
from vaekit.heads.quantised import Quantised
from vaekit.heads.vector import FullGaussian, MixtureGaussian

__all__ = [
    "Head",
    "Gaussian",
    "GaussianShared",
    "GaussianEach",
    "GaussianFixed",
    "GaussianOptimal",
    "GaussianContaminated",
    "FullGaussian",
    "MixtureGaussian",
    "StudentT",
    "LogNormal",
    "Bernoulli",
    "ContinuousBernoulli",
    "Categorical",
    "Classes",
    "Ordinal",
    "OneHot",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "SharedLevels",
    "Poisson",
    "NegativeBinomial",
    "ZeroInflatedPoisson",
    "ZeroInflatedNegativeBinomial",
    "Columns",
    "Column",
    "MaskModel",
    "SelfMasking",
    "MaskNetwork",
    "FlowHead",
    "Planar",
    "Radial",
    "Householder",
    "TriangularSylvester",
    "OrthogonalSylvester",
    "HouseholderSylvester",
    "IAF",
    "Quantised",
    "Point",
]
