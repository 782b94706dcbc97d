"""MNIST four times over, and Fashion-MNIST: images [1, 28, 28] in [0, 1].

"MNIST" means four data sets, whose log-likelihoods differ by nats (dynamic and static binarisation by about 2) or are not comparable
at all (a density of grey values): each has its own function, so that a number always says which one it is of.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vaekit.data.arrays import last_rows
from vaekit.data.binarise import binarise
from vaekit.data.core import DataSet, Split
from vaekit.data.fetch import Source, find, locate
from vaekit.data.formats import checked, read_amat, read_idx, read_npz
from vaekit.data.sources import FASHION_MNIST, MNIST, STATIC_MNIST

__all__ = ["mnist_grey", "mnist_dynamic", "mnist_static", "mnist_rounded", "fashion_mnist"]

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def mnist_grey(valid: int = 0) -> DataSet:
    """MNIST in grey: x = byte / 255, [1, 28, 28]; the official 60000 training and 10000 test images, with labels.

    ``valid`` of the training images, the last ones, are held out for validation. Source: LeCun, Cortes & Burges, "The MNIST
    database of handwritten digits" (LeCun et al., 1998).
    """
    return _official(MNIST, "mnist_grey", valid, DIGITS)


def mnist_dynamic(valid: int = 0) -> DataSet:
    """MNIST binarised dynamically: training images drawn anew, x ~ Bernoulli(byte / 255), at every read; [1, 28, 28], 0 or 1.

    The official 60000 training images (the last ``valid`` of them held out for validation) and 10000 test images, with labels.
    Training images are drawn from torch's global generator. Test images are drawn once, pixel = [u < byte / 255] with u from
    ``numpy.random.RandomState(0)``, validation images likewise with ``RandomState(1)``, so that evaluation is repeatable
    (see `vaekit.data.binarise`). The setting of Burda et al. (2016), up to the draw of the test images.
    """
    return replace(binarise(mnist_grey(valid), seed=0), name="mnist_dynamic")


def mnist_static() -> DataSet:
    """MNIST binarised once by Larochelle & Murray (2011): 50000 training, 10000 validation, 10000 test images [1, 28, 28], 0 or 1.

    The published draw; no labels. Rows are in Larochelle's order, in which the test images are sorted by class: draw a subset at
    random, never the first n. Source: Salakhutdinov & Murray (2008); Larochelle & Murray, "The neural autoregressive distribution
    estimator" (2011).
    """
    train, valid, test = (Split(_static(split, n)) for split, n in (("train", 50000), ("valid", 10000), ("test", 10000)))
    return DataSet("mnist_static", train=train, test=test, valid=valid)


def mnist_rounded(valid: int = 0) -> DataSet:
    """MNIST rounded: x = 1 where byte / 255 > 0.5 (byte >= 128), else 0; [1, 28, 28]; 60000 training, 10000 test images, with labels.

    ``valid`` of the training images, the last ones, are held out for validation. No draw is involved: the same bits at every read.
    """
    grey = mnist_grey(valid)
    train, test = _rounded(grey.train), _rounded(grey.test)
    return DataSet("mnist_rounded", train=train, test=test, valid=grey.valid and _rounded(grey.valid), label_names=DIGITS)


def fashion_mnist(valid: int = 0) -> DataSet:
    """Fashion-MNIST in grey: x = byte / 255, [1, 28, 28]; the official 60000 training and 10000 test images of clothes, with labels.

    ``valid`` of the training images, the last ones, are held out for validation. Source: Xiao, Rasul & Vollgraf, "Fashion-MNIST: a
    novel image dataset for benchmarking machine learning algorithms" (2017).
    """
    return _official(FASHION_MNIST, "fashion_mnist", valid, CLOTHES)


def _official(source: Source, name: str, valid: int, label_names: tuple[str, ...]) -> DataSet:
    train, held_out = last_rows(_idx(source, "train", 60000), valid)
    return DataSet(name, train=train, test=_idx(source, "t10k", 10000), valid=held_out, label_names=label_names)


def _idx(source: Source, prefix: str, n: int) -> Split:
    def read(kind: str, shape: tuple[int, ...]) -> Tensor:
        file = f"{prefix}-{kind}-idx{len(shape)}-ubyte.gz"
        return torch.from_numpy(read_idx(locate(source, file), shape, source.content[file]).copy())

    return Split(read("images", (n, 28, 28)).unsqueeze(1), label=read("labels", (n,)).long())


def _static(split: str, n: int) -> Tensor:
    path = find(STATIC_MNIST, "binarized_mnist.npz")
    if path is not None:
        bits = np.unpackbits(read_npz(path, split, (n, 98)), axis=1)
    else:
        path = locate(STATIC_MNIST, f"binarized_mnist_{split}.amat")
        bits = read_amat(path, 784)
    bits = checked(bits, (n, 784), STATIC_MNIST.content[split], path)
    return torch.from_numpy(bits).view(-1, 1, 28, 28).bool()


def _rounded(split: Split) -> Split:
    return Split(split.pick(torch.arange(len(split))).x >= 128, label=split.label)
