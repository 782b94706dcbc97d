"""A last-in-first-out stack of bits, coded by asymmetric numeral systems (Duda, 2009) on the library `constriction`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.apps.compress.codes import Code
from vaekit.errors import InputError

__all__ = ["Stack", "Words", "constriction_version"]

Words = npt.NDArray[np.uint32]
"""32-bit words, ``[N]``."""


class Stack:
    """Levels in, levels out, in the opposite order: a push of levels undoes their pop by the same code, to the last bit.

    Args:
        words: what it holds at the start, uint32, the last one not 0.

    Raises:
        InputError: constriction is not installed.
    """

    def __init__(self, words: Words) -> None:
        library = _constriction()
        self._family = library.stream.model.Categorical(perfect=False)
        self._raw = library.stream.model.Uniform(2**16)
        self._coder = library.stream.stack.AnsCoder(*[np.ascontiguousarray(words, dtype=np.uint32)] * bool(len(words)))

    @property
    def bits(self) -> int:
        """How many it holds."""
        return int(self._coder.num_valid_bits())

    @property
    def words(self) -> Words:
        """A copy of all it holds, the top last."""
        found: Words = self._coder.get_compressed()
        return found

    def scramble(self, n: int, seed: int) -> None:
        """Change the top n times 16 bits, or as many as there are, by exclusive or with random ones; twice is as it was.

        What was pushed lies there nearly as it is, and draws made from it would depend on it.
        """
        n = min(n, 2 * (int(self._coder.num_words()) - 3))
        if n > 0:
            pad = np.random.RandomState(seed).randint(0, 2**16, n).astype(np.int32)
            self._coder.encode_reverse(np.asarray(self._coder.decode(self._raw, n), dtype=np.int32) ^ pad, self._raw)

    def pop(self, code: Code, rows: int) -> Tensor:
        """Levels int64 ``[S, F]``, the first ``rows`` of them drawn with the code's masses, the others 0."""
        levels = torch.zeros(code.size, dtype=torch.int64)
        for columns, alphabet_of in code.steps:
            alphabet = alphabet_of(levels)
            digits: list[Tensor] = []
            for _ in range(alphabet.digits):
                masses = alphabet.masses(digits)
                s, f, _ = masses.shape
                drawn = self._coder.decode(self._family, _table(masses, rows)) if rows * f else np.zeros(0, dtype=np.int32)
                digit = torch.zeros(s, f, dtype=torch.int64)
                digit[:rows] = torch.from_numpy(np.asarray(drawn, dtype=np.int64)).reshape(rows, f)
                digits.append(digit)
            levels[:, columns] = alphabet.join(digits)
        return levels

    def push(self, code: Code, levels: Tensor, rows: int) -> None:
        """Put the first ``rows`` of levels ``[S, F]`` on top."""
        for columns, alphabet_of in reversed(code.steps):
            alphabet = alphabet_of(levels)
            digits = alphabet.split(levels[:, columns])
            for i in reversed(range(alphabet.digits)):
                symbols = digits[i][:rows].reshape(-1).to(torch.int32).numpy()
                if symbols.size:
                    self._coder.encode_reverse(symbols, self._family, _table(alphabet.masses(digits[:i]), rows))


def constriction_version() -> str:
    """The installed version; InputError where there is none."""
    from importlib.metadata import version

    _constriction()
    return version("constriction")


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise InputError("compression needs constriction, which is not installed: pip install 'vaekit[compress]'") from error
    return constriction


def _table(masses: Tensor, rows: int) -> npt.NDArray[np.float64]:
    """``[S, F, values]`` as the rows that constriction takes."""
    table: npt.NDArray[np.float64] = masses.detach()[:rows].reshape(-1, masses.shape[-1]).contiguous().numpy()
    if not np.isfinite(table).all():
        raise InputError(
            "the model's probabilities are not all finite, so that it cannot code: its weights or the data hold NaN or infinities"
        )
    return table
