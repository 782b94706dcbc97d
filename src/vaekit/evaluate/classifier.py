r"""A judge of generated images that has never seen the generator: a small convolutional classifier of known accuracy and calibration.

.. math:: p(y | x) = \mathrm{softmax}(l(x) / T)_y, \qquad T = \arg\min_T - \sum_{\text{held out}} \log p(y | x)

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: a trained network is too sure of itself, and one
number T, fitted on images that it was not trained on, mends most of that without changing any decision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError

__all__ = ["Classifier", "calibration_error", "classifier", "fit_temperature"]

HELD_OUT = 5000
"""Training images, at most, that are kept for the temperature; never more than a tenth of them."""
BINS = 15
"""Bins of confidence in the expected calibration error (Guo et al., 2017)."""
CHUNK = 1000


class Classifier(nn.Module):
    """p(y | x) for images ``[B, C, H, W]``, in the units of the data set that it was trained on.

    Attributes:
        net: ``[B, C, H, W] -> [B, classes]``, the logits before the temperature.
        temperature: T.
        confidence: ``max_y p(y | x)`` of each test image, rising, ``[N]``: what `threshold` is read from.
        accuracy: share of the test images that are classified rightly; ``accuracy_se`` its standard error.
        calibration: expected calibration error on the test images; ``uncalibrated`` the same with T = 1.
    """

    temperature: Tensor
    confidence: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("confidence", torch.empty(0))
        self.accuracy = self.accuracy_se = self.calibration = self.uncalibrated = math.nan

    def forward(self, x: Tensor) -> Tensor:
        """Logits over T, ``[B, classes]``."""
        return self.net(x) / self.temperature

    def probabilities(self, x: Tensor) -> Tensor:
        """p(y | x), ``[B, classes]``, without gradients and in evaluation mode as `classifier` returns it."""
        with torch.no_grad():
            return torch.cat([self(part).softmax(-1) for part in x.split(CHUNK)])

    def threshold(self, level: float) -> float:
        """The confidence that a share ``level`` of the real test images reaches.

        Raises:
            InputError: ``level`` is not in (0, 1), or the classifier has seen no test images.
        """
        if not 0 < level < 1:
            raise InputError(f"level={level}: the share of real images that pass lies between 0 and 1, as 0.95")
        if not len(self.confidence):
            raise InputError("this classifier has seen no test images to take a threshold from: make it with evaluate.classifier(data)")
        return float(self.confidence[math.floor((1 - level) * len(self.confidence))])


def classifier(data: DataSet, *, epochs: int = 3, seed: int = 0, batch_size: int = 128, lr: float = 2e-3) -> Classifier:
    """Train a classifier on the labelled training split, calibrate it on training images held out, measure it on the test split.

    Two convolutions and two linear layers; a minute for MNIST on one thread of a processor, over 98.5% right. The same seed gives the
    same classifier on the same machine; the caller's random numbers are left as they were.

    Args:
        data: images of at least 4 x 4 pixels, with labels in both splits.
        epochs: passes over the training split; Adam, its learning rate falling linearly to 0.
        seed: of the weights, of what is held out and of the order.
        batch_size: examples a step.
        lr: the learning rate to begin with.

    Raises:
        InputError: no labels, no images, fewer than 20 of them, no epoch.

    >>> from vaekit.data import digits
    >>> judge = classifier(digits(), epochs=10, batch_size=32)
    >>> judge.accuracy > 0.9, judge.probabilities(digits().test.batch(torch.arange(5)).x).shape
    (True, torch.Size([5, 10]))
    """
    train, test = data.train, data.test
    if train.label is None or test.label is None:
        raise InputError(f'"{data.name}" has no labels, and a classifier learns from labels: take a data set that has them')
    if len(data.shape) != 3 or min(data.shape[1:]) < 4:
        raise InputError(f'"{data.name}" has rows of shape {list(data.shape)}: the classifier takes images [C, H, W] of at least 4 x 4')
    if len(train) < 20 or epochs < 1:
        raise InputError(f"{len(train)} training images and {epochs} epochs: at least 20 images and 1 epoch are needed")
    classes = int(max(train.label.max(), test.label.max())) + 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the generators of every GPU too
        order = torch.randperm(len(train))
        held = order[: min(HELD_OUT, len(train) // 10)]
        judge = Classifier(network(tuple(data.shape), classes))
        _train(judge.net, train, order[len(held) :], epochs=epochs, batch_size=batch_size, lr=lr)
        judge.eval().requires_grad_(False)
        judge.temperature.fill_(fit_temperature(_logits(judge.net, train.take(held)), train.label[held]))
        _measure(judge, _logits(judge.net, test), test.label)
    return judge


def network(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """3 x 3 convolutions of 16 and 32 channels, each halved by maxima, and a hidden layer of 128."""
    c, h, w = shape
    return nn.Sequential(
        *(nn.Conv2d(c, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(32 * (h // 4) * (w // 4), 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, classes)),
    )


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """T that maximises the likelihood of labels ``label`` ``[N]`` under softmax(logits / T), ``[N, classes]``.

    The log-likelihood is concave in 1 / T; its derivative's zero is found by bisection between T = 0.001 and T = 1000.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> fit_temperature(logits, torch.tensor([0, 0, 0, 1]))  # three of four right: 2 / log 3
    1.8205
    """
    logits = logits.double()
    right = logits.gather(1, label[:, None]).squeeze(1)
    low, high = math.log(1e-3), math.log(1e3)  # of 1 / T
    for _ in range(60):
        middle = 0.5 * (low + high)
        slope = (right - ((logits * math.exp(middle)).softmax(1) * logits).sum(1)).mean()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp(-0.5 * (low + high))


def calibration_error(p: Tensor, label: Tensor) -> float:
    """Expected calibration error of p ``[N, classes]`` against labels ``label`` ``[N]``: the mean over 15 bins of confidence of |share that
    is right - confidence|.

    >>> (
    ...     calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 0, 1])),
    ...     calibration_error(torch.eye(2), torch.tensor([1, 1])),
    ... )
    (0.0, 0.5)
    """
    confidence, guess = p.double().max(1)
    place = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    gap = (guess == label).double() - confidence
    return float(torch.zeros(BINS, dtype=torch.float64).index_add(0, place, gap).abs().sum() / len(label))


def _train(net: nn.Module, split: Split, rows: Tensor, *, epochs: int, batch_size: int, lr: float) -> None:
    label = split.label
    if label is None:
        raise InputError("a classifier learns from labels")
    optimiser = torch.optim.Adam(net.parameters(), lr)
    steps, step = epochs * -(-len(rows) // batch_size), 0
    net.train()
    with torch.enable_grad():
        for _ in range(epochs):
            for index in rows[torch.randperm(len(rows))].split(batch_size):
                optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
                loss = F.cross_entropy(net(split.batch(index).x), label[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1


def _logits(net: nn.Module, split: Split) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(split.batch(index).x) for index in torch.arange(len(split)).split(CHUNK)])


def _measure(judge: Classifier, logits: Tensor, label: Tensor) -> None:
    p = (logits / judge.temperature).softmax(-1)
    judge.confidence = p.amax(1).sort().values
    judge.accuracy = float((p.argmax(1) == label).double().mean())
    judge.accuracy_se = math.sqrt(judge.accuracy * (1 - judge.accuracy) / len(label))
    judge.calibration = calibration_error(p, label)
    judge.uncalibrated = calibration_error(logits.softmax(-1), label)
