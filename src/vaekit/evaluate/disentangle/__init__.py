"""How far a model's codes stand for the factors that its data were made by, each for one.

`disentanglement` has all scores of a model. The scores themselves are functions of codes z ``[N, D]`` and factors ``[N, F]`` of integers,
of whatever origin. What a good score is, and of which representation, they do not agree on: look at several, and at their spread over seeds
(Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations", ICML 2019).
"""

from vaekit.evaluate.disentangle.correlation import gaussian_correlation, posterior_correlation
from vaekit.evaluate.disentangle.fixed import beta_vae_score, factor_vae_score
from vaekit.evaluate.disentangle.information import binned, entropy, mig, modularity, mutual_information
from vaekit.evaluate.disentangle.predict import DCI, completeness_of, dci, disentanglement_of, sap
from vaekit.evaluate.disentangle.score import Disentanglement, Score, disentanglement

__all__ = [
    "DCI",
    "Disentanglement",
    "Score",
    "beta_vae_score",
    "binned",
    "completeness_of",
    "dci",
    "disentanglement",
    "disentanglement_of",
    "entropy",
    "factor_vae_score",
    "gaussian_correlation",
    "mig",
    "modularity",
    "mutual_information",
    "posterior_correlation",
    "sap",
]
