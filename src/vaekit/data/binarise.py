"""Binary images from grey ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaekit import noise
from vaekit.data.core import CHUNK, DataSet, Split, to_float
from vaekit.errors import InputError

__all__ = ["bernoulli", "binarise"]


def bernoulli(x: Tensor) -> Tensor:
    """A `Prepare`: each pixel is 1 with probability ``to_float(x)``, else 0, drawn anew at every call from the global generator.

    >>> bernoulli(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    p = to_float(x)
    with noise.along(0):
        return noise.uniform(p.shape, p, p.dim() - 1).lt_(p)  # torch.bernoulli(p), in a quarter of the time on a CPU


def binarise(data: DataSet, *, seed: int = 0) -> DataSet:
    """Dynamic binarisation of ``data``, images in [0, 1]: x_d ~ Bernoulli(grey_d) (Salakhutdinov & Murray, 2008; Burda et al., 2016).

    The training split is drawn anew at every read, from torch's global generator. The test and validation splits are drawn once,
    so that evaluation is repeatable: pixel d is 1 where u_d < grey_d, with u from ``numpy.random.RandomState(seed)`` for the test
    split and ``RandomState(seed + 1)`` for the validation split (numpy's frozen generator: the same bits in every version). Once drawn
    they are in memory, a byte a pixel, where the training split may stay in a file.

    Raises InputError when values lie outside [0, 1] or the splits are already prepared otherwise.

    >>> grey = Split(torch.tensor([[0, 128, 255]] * 4, dtype=torch.uint8))
    >>> binary = binarise(DataSet("grey", train=grey, test=grey))
    >>> binary.test.batch(torch.arange(4)).x[:, 1]  # the middle pixel is 1 half of the time
    tensor([0., 1., 1., 0.])
    """
    for split in (data.train, data.test, data.valid):
        if split is not None:
            _check_grey(data.name, split)
    return DataSet(
        data.name,
        train=Split(data.train.x, label=data.train.label, prepare=bernoulli),
        test=_drawn_once(data.test, seed),
        valid=None if data.valid is None else _drawn_once(data.valid, seed + 1),
        label_names=data.label_names,
        factors=data.factors,
    )


def _check_grey(name: str, split: Split) -> None:
    if split.prepare is not to_float:
        raise InputError(f'"{name}" is already prepared by {split.prepare!r}; binarise the grey images')
    if split.mask is not None:
        raise InputError(f'"{name}" has missing pixels; a pixel without a value cannot be drawn, so binarise complete images')
    if split.x.dtype == torch.uint8:
        return
    ends = [torch.stack(split.pick(index).x.aminmax()) for index in split.glance()]
    low, high = (float(edge) for edge in to_float(torch.stack(torch.cat(ends).aminmax())))
    if low < 0 or high > 1:
        raise InputError(f'"{name}" has pixels from {low:g} to {high:g}; a probability lies in [0, 1], so scale the images first')


def _drawn_once(split: Split, seed: int) -> Split:
    draw = np.random.RandomState(seed)
    found = torch.empty((len(split), *split.shape), dtype=torch.bool)
    for index in torch.arange(len(split)).split(max(1, CHUNK // split.shape.numel())):
        # float64 on the CPU: u < x / 255 must come out the same wherever it is computed
        p = split.pick(index).x.cpu().double() / (255 if split.x.dtype == torch.uint8 else 1)
        found[index[0] : index[-1] + 1] = torch.from_numpy(draw.random_sample(tuple(p.shape))) < p
    return Split(found.to(split.x.device), label=split.label)
