"""Data: arrays of your own and the published image sets, as `DataSet`s of uint8, bool or float rows.

    from vaekit import data
    mnist = data.mnist_dynamic(valid=10_000)
    batch = mnist.train.batch(torch.randint(len(mnist.train), (128,)))

Rows are in memory, or with `on_disk` in a file, for sets that do not fit, or sparse; batches of a pipeline of your own are a `Stream`.

Where the files come from: see `vaekit.data.fetch`.
"""

from __future__ import annotations

from collections.abc import Callable

from vaekit.data.arrays import arrays, on_disk, permutation
from vaekit.data.binarise import bernoulli, binarise
from vaekit.data.core import DataSet, Factor, Prepare, Split, to_float
from vaekit.data.densities import energy, log_normaliser
from vaekit.data.disk import FileRows
from vaekit.data.images import cifar10, digits, frey_faces, omniglot, omniglot_drawers
from vaekit.data.mnist import fashion_mnist, mnist_dynamic, mnist_grey, mnist_rounded, mnist_static
from vaekit.data.sparse import SparseRows
from vaekit.data.sprites import dsprites, factor_values, sprites
from vaekit.data.stream import Stream

__all__ = [
    "DataSet",
    "Factor",
    "Split",
    "FileRows",
    "SparseRows",
    "Stream",
    "Prepare",
    "to_float",
    "arrays",
    "on_disk",
    "permutation",
    "bernoulli",
    "binarise",
    "catalogue",
    "energy",
    "log_normaliser",
    "digits",
    "mnist_grey",
    "mnist_dynamic",
    "mnist_static",
    "mnist_rounded",
    "fashion_mnist",
    "cifar10",
    "frey_faces",
    "omniglot",
    "omniglot_drawers",
    "dsprites",
    "factor_values",
    "sprites",
]


def catalogue() -> dict[str, Callable[..., DataSet]]:
    """Name -> the function that reads that data set. The first line of its docstring says what it is.

    >>> list(catalogue())[:3]
    ['digits', 'mnist_grey', 'mnist_dynamic']
    """
    mnist = (mnist_grey, mnist_dynamic, mnist_static, mnist_rounded, fashion_mnist)
    readers: tuple[Callable[..., DataSet], ...] = (digits, *mnist, cifar10, frey_faces, omniglot, omniglot_drawers, dsprites, sprites)
    return {reader.__name__: reader for reader in readers}
