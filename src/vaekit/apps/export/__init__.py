r"""A model's encoder, decoder and score as ONNX files or torch.export programs, checked against the model before anyone sees them.

.. math:: \text{score}(x, \varepsilon) = \log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k | x)}, \qquad z_k \sim q \text{ by } \varepsilon_k

=============  ==========================================  ==========================================================================
Part           Takes                                       Gives
=============  ==========================================  ==========================================================================
``encoder``    x ``[B, *]``                                the centre of q(z | x) ``[B, D]``, levels joined from the top down as
                                                           `LatentModel.embed` does, and its parameters where `described` knows them
``decoder``    z ``[B, D]``, joined in the same way        the centre of p(x | z) ``[B, *]`` and its parameters
``score``      x ``[B, *]``, noise ``[K, B, N]``           the importance-weighted estimate of log p(x), nats ``[B]``
=============  ==========================================  ==========================================================================

A model with a context takes c ``[B, C]`` too, one with missing entries a mask ``[B, *]``. B is free, K is fixed in the file. Noise is an
input, so that a score is a function: ``eps`` are N(0, 1) numbers and ``u`` uniform ones in [0, 1), whichever q(z | x) is drawn with.
The estimate is what vaekit's own is for that noise; its expectation rises with K to log p(x).

Of a model of the mask (`vaekit.models.NotAtRandom`) the score is of x and the mask; values that nobody saw are no codes: encoder and
decoder leave them out, and their noise is among that of the score.

ONNX needs the extra: ``pip install 'vaekit[onnx]'``. The ``.pt2`` files of ``format="torch"`` are torch's own archives and need torch
alone; torch reads a part of them by unpickling, so open only those of people you trust.
"""

from vaekit.apps.export.core import TOLERANCE, Exported, Format, Written, export
from vaekit.apps.export.layout import described
from vaekit.apps.export.parts import PARTS, Part

__all__ = ["PARTS", "TOLERANCE", "Exported", "Format", "Part", "Written", "described", "export"]
