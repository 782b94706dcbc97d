"""Heads for classes and for the grey levels of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit import dist
from vaekit.errors import InputError
from vaekit.heads.core import Head

__all__ = ["Categorical", "DiscretisedLogistic", "DiscretisedLogisticMixture", "OneHot", "SharedLevels"]


class Categorical(Head):
    """p(x | h) = prod_d Cat(x_d; logits h_:d): one of ``classes`` for each entry; x holds class numbers, integers or floats.

    h is ``[*batch, classes * size]``, a class's logits for all entries lying together.

    Args:
        event_shape: shape of one example, an int for a vector.
        classes: number of classes, at least 2.

    Raises:
        InputError: fewer than 2 classes.

    >>> import torch
    >>> Categorical(3, 4)(torch.zeros(5, 12)).log_prob(torch.tensor([0.0, 3.0, 1.0]))[0]
    tensor(-4.1589)
    """

    def __init__(self, event_shape: int | tuple[int, ...], classes: int) -> None:
        super().__init__(event_shape, parts=classes)
        self.classes = at_least("Categorical", "classes", classes, 2)

    def distribution(self, h: Tensor) -> Distribution:
        return dist.Categorical(h.unflatten(-1, (self.classes, *self.event_shape)), len(self.event_shape))


class DiscretisedLogistic(Head):
    r"""p(x | h): a logistic density collected on the levels k / (bins - 1) of each entry (`dist.DiscretisedLogistic`; Kingma et al., 2016).

    h = (a, b) with mu = (1 + a) / 2 and s = e^b / 2: location and log-scale for x scaled to [-1, 1], as in the literature, so that a
    network whose output is near 0 starts at the middle grey.

    Args:
        event_shape: shape of one example, an int for a vector.
        bins: number of levels, at least 2.

    Raises:
        InputError: fewer than 2 levels.

    >>> import torch
    >>> DiscretisedLogistic((1, 2, 2))(torch.zeros(5, 8)).mean[0, 0]
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """

    def __init__(self, event_shape: int | tuple[int, ...], *, bins: int = 256) -> None:
        super().__init__(event_shape, parts=2)
        self.bins = at_least("DiscretisedLogistic", "bins", bins, 2)

    def distribution(self, h: Tensor) -> Distribution:
        a, b = self.split(h, 2)
        return dist.DiscretisedLogistic(0.5 + 0.5 * a, b - math.log(2), len(self.event_shape), bins=self.bins)


class DiscretisedLogisticMixture(Head):
    r"""p(x | h): for each pixel a mixture of discretised logistics with channels that depend on each other, as in PixelCNN++.

    h is M logits, then M C locations, M C log-scales and M C (C - 1) / 2 coefficients for each pixel, M = ``components``, read as in
    `DiscretisedLogistic`; tanh of the coefficients is used. For a convolutional decoder that is an image of ``features / (H W)``
    channels: ``conv_decoder(latent, (head.features // (H * W), H, W))``. See `dist.DiscretisedLogisticMixture`; Salimans et al., 2017.

    Args:
        event_shape: (C, H, W).
        components: M.
        bins: number of levels, at least 2.

    Raises:
        InputError: the event is no image; no component; fewer than 2 levels.

    >>> import torch
    >>> head = DiscretisedLogisticMixture((3, 8, 8), components=5)
    >>> head.features, head(torch.zeros(2, head.features)).sample().shape
    (3200, torch.Size([2, 3, 8, 8]))
    """

    def __init__(self, event_shape: tuple[int, int, int], *, components: int = 10, bins: int = 256) -> None:
        if isinstance(event_shape, int) or len(event_shape) != 3:
            raise InputError(f"DiscretisedLogisticMixture({event_shape}): the event must be an image (channels, height, width)")
        c, h, w = event_shape
        self.parts = (1, c, c, c * (c - 1) // 2)
        super().__init__(event_shape, features=components * sum(self.parts) * h * w)
        self.components = at_least("DiscretisedLogisticMixture", "components", components, 1)
        self.bins = at_least("DiscretisedLogisticMixture", "bins", bins, 2)

    def distribution(self, h: Tensor) -> Distribution:
        _, height, width = self.event_shape
        per_pixel = h.unflatten(-1, (-1, height, width)).split([self.components * part for part in self.parts], -3)
        logits, a, b, c = (t.unflatten(-3, (self.components, part)) for t, part in zip(per_pixel, self.parts, strict=True))
        return dist.DiscretisedLogisticMixture(
            logits.squeeze(-3), 0.5 + 0.5 * a, b - math.log(2), coefficients=torch.tanh(c), bins=self.bins
        )


class OneHot(Head):
    """q(z | h) = prod_n Cat(z_n; logits h_n), z_n a one-hot vector of C classes: for discrete latents (`dist.OneHot`).

    h is ``[*batch, N * C]``, the logits of a variable lying together.

    Args:
        event_shape: (N, C): N variables of C classes.

    Raises:
        InputError: not two numbers; fewer than 2 classes.

    >>> import torch
    >>> OneHot((2, 3))(torch.zeros(5, 6)).mean[0, 0]
    tensor([0.3333, 0.3333, 0.3333])
    """

    def __init__(self, event_shape: tuple[int, int]) -> None:
        if isinstance(event_shape, int) or len(event_shape) != 2:
            raise InputError(f"OneHot({event_shape}): give (variables, classes)")
        super().__init__(event_shape)
        at_least("OneHot", "classes", event_shape[1], 2)

    def distribution(self, h: Tensor) -> Distribution:
        (logits,) = self.split(h, 1)
        return dist.OneHot(logits, 2)


class SharedLevels(Head):
    """p(x | h) = prod_d sum_m softmax(h_d)_m B_m(x_d): for each entry a mixture of M level distributions B, learned, that all share.

    h is ``[*batch, M * size]``, a component's logits for all entries lying together. B starts as M bumps along the levels, each as wide
    as they are apart, the first and the last narrow. For bytes it needs far fewer numbers than `Categorical`, and it has no scales, which
    in mixtures of `DiscretisedLogistic` fall to 0 where levels repeat. See `dist.SharedLevels`.

    Args:
        event_shape: shape of one example, an int for a vector.
        components: M.
        bins: number of levels, at least 2; x is k / (bins - 1).

    Raises:
        InputError: fewer than 2 components or levels.

    >>> import torch
    >>> SharedLevels((1, 2, 2), components=3, bins=5)(torch.zeros(4, 12)).mean[0, 0]
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]], grad_fn=<SelectBackward0>)
    """

    GAIN = 20.0
    """B = softmax(GAIN table): optimisers whose steps are as large for every parameter (Adam) are to move these faster than weights."""

    def __init__(self, event_shape: int | tuple[int, ...], *, components: int = 16, bins: int = 256) -> None:
        super().__init__(event_shape, parts=components)
        self.components = at_least("SharedLevels", "components", components, 2)
        self.bins = at_least("SharedLevels", "bins", bins, 2)
        apart = (bins - 1) / (components - 1)
        width = torch.full((components, 1), apart)
        width[0] = width[-1] = min(1.0, apart)
        centres = torch.linspace(0, bins - 1, components).unsqueeze(-1)
        self.table = nn.Parameter(-0.5 * ((torch.arange(bins) - centres) / width).square().clamp(max=16) / self.GAIN)

    def distribution(self, h: Tensor) -> Distribution:
        n = len(self.event_shape)
        logits = h.unflatten(-1, (self.components, *self.event_shape)).movedim(-1 - n, -1)
        return dist.SharedLevels(logits, self.GAIN * self.table.to(h.dtype), n)


def at_least(head: str, name: str, value: int, least: int) -> int:
    """``value``, where it is not too small."""
    if value < least:
        raise InputError(f"{head}({name}={value}): at least {least} needed")
    return value
