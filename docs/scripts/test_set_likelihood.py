"""The log-likelihood of a test set with its two errors, and a check of it."""

import math

import torch
from sklearn.datasets import load_digits
from torch import nn

from vaekit import IWAE, VAE, Conditional, Training, data, fit, heads, priors
from vaekit.evaluate import doubts, log_likelihood
from vaekit.nn import mlp

torch.manual_seed(0)  # of the weights that the networks start with

# 1,797 digits of 64 pixels, ink or none; put your own array [N, D] here.
digits = data.arrays((load_digits().data > 7).astype("float32"), test=300)
q, px = heads.Gaussian(4), heads.Bernoulli(64)
model = VAE(
    prior=priors.StandardNormal(4),
    posterior=Conditional(mlp(64, [64], q.features), q),
    likelihood=Conditional(mlp(4, [64], px.features), px),
)
training = Training(epochs=20, batch_size=100)
fit(model, digits, objective=IWAE(5), training=training, progress=False)

found = log_likelihood(model, digits.test, samples=500)  # found.log_px: of each row
print(f"log p(x) of {len(found)} test rows: {found.mean:.2f} +- {found.se:.2f} nats a row")
print(f"  +- {found.se:.2f}: {len(found)} other rows would have another mean")
print(f"  +- {found.mc_error:.3f}: so would other random numbers")
print(f"  by tossing a coin for each pixel: {64 * math.log(0.5):.2f}")
for doubt in doubts(found):
    print(f"  {doubt}")

# The check: z ~ N(0, 1) and x | z ~ N(z, 1) make x ~ N(0, 2), so that log p(x) is
# known. The encoder N(x, 1) is wrong on purpose: right would be N(x / 2, 1 / 2).
unit = Conditional(nn.Identity(), heads.GaussianFixed(1, 1.0))
known = VAE(prior=priors.StandardNormal(1), posterior=unit, likelihood=unit)
x = math.sqrt(2) * torch.randn(300, 1)
estimate = log_likelihood(known, data.Split(x), samples=1000)
exact = torch.distributions.Normal(0, math.sqrt(2)).log_prob(x).mean()
print(f"check: {estimate.mean:.4f} +- {estimate.mc_error:.4f} nats, exactly {exact:.4f}")
