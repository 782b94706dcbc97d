r"""Lossless compression of discrete data by a trained model: bits-back coding. Needs the extra: ``pip install 'vaekit[compress]'``.

.. math:: \text{length}(x) = - \log p(x|z) - \log p(z) + \underbrace{\log q(z|x)}_{\text{bits got back}}, \qquad
          E_{q(z|x)}[\text{length}(x)] = -\mathrm{ELBO}(x)

To code x: *pop* z with q(z | x) from the stack of bits that is already there, *push* x with p(x | z), push z with p(z). To decode: pop z
with p(z), pop x with p(x | z), push z with q(z | x), which puts back the very bits that z had been made of. It is the model's own
loop, with the stack as the pick (`coding.Coder`).

Continuous latents are rounded to the medians of ``2^16`` cells of equal mass under p(z_l | z_<l) (`symbols.Cells`).

*Ladders* are coded level by level from the top down. Bit-Swap's order (Kingma et al., 2019), which pushes x before the next level is
popped and so needs fewer bits to begin with, is for inference from the bottom up, q(z_1 | x) q(z_2 | z_1) ...: our q(z_l | z_<l, x) sees
x at every level and p(x | z) the last latents, so all levels have to be popped before x can be pushed. The bits to begin with are
paid once a file here, whatever its number of examples, not once a chain: there is one stack.

*Batches.* Networks see S rows at a time, always, padded with zeros, in float32 or float64 as the model is, with the same number of
threads and without reduced precision. Groups of up to S examples share the stack: all z popped, all x pushed, all z pushed. The first
group is one example, on some random words that are part of the file; further groups are as large as the stack has bits for, so that
what the first latents cost is paid for one example and not for S.

The bits that latents are made from are what former examples have left on the stack, and where a model does not fit the data they are
not random (Townsend et al. call them dirty), so that the latents would be no fair draws from q, and longer on average. They are scrambled
before each group (`stack.Stack.scramble`), after which the expected length is -ELBO for any data.

*Exactness.* What is decoded equals what was coded, to the last bit, or is refused: the header has checksums of the weights, of the
probabilities that the model gives to a probe, and of the data. Networks are floating-point arithmetic, and another processor, or another
version of torch, may round otherwise: then the probe tells before anything is decoded. `compress` decodes what it made before it returns.

Townsend, Bird and Barber, "Practical Lossless Compression with Latent Variables using Bits Back Coding", ICLR 2019; Kingma, Abbeel and Ho,
"Bit-Swap", ICML 2019; Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems (ANS)", 2022 (constriction).
"""

from vaekit.apps.compress.codes import Alphabet, Code, Cumulative, Table, code
from vaekit.apps.compress.core import compress, decompress
from vaekit.apps.compress.symbols import Numbering

__all__ = ["Alphabet", "Code", "Cumulative", "Numbering", "Table", "code", "compress", "decompress"]
