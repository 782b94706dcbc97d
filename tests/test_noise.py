"""Who draws the noise: a source in the place of torch's generators gets every request, with the same numbers, and sees the batch axis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Size, Tensor, nn

from tables import DISCRETE, POSTERIORS, PRIORS
from vaekit import noise
from vaekit.data import binarise
from vaekit.data.core import DataSet, Split
from vaekit.dist import draw

B, K = 7, 3
ELSEWHERE = {"maf", "iaf", "vamp_maf", "mixture_gaussian", "gaussian_mixture", "vamp_gaussian", "vamp_full_gaussian"}
"""What draws by itself: zuko's flows by torch.distributions.Normal, mixtures by torch.multinomial."""


class Own:
    """A generator of its own, with a note of each request."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.asked: list[tuple[str, tuple[int, ...], int]] = []

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        self.asked.append((kind, shape, event_dim))
        one = {"normal": torch.randn, "uniform": torch.rand}[kind]
        return one(shape, generator=self.generator, dtype=like.dtype)


def batch_sizes(own: Own) -> Iterator[int]:
    for _, shape, event_dim in own.asked:
        yield shape[len(shape) - event_dim - 1]


@pytest.mark.parametrize("name", sorted(POSTERIORS.keys() - ELSEWHERE | DISCRETE.keys()))
def test_a_source_draws_the_noise_of_a_posterior(name: str) -> None:
    torch.manual_seed(0)
    q: nn.Module = POSTERIORS[name](6, 2) if name in POSTERIORS else DISCRETE[name].posterior(6)
    x = torch.rand(B, 6)
    torch.manual_seed(1)
    want = draw(q(x), Size([K]), name in POSTERIORS)[0]
    state = torch.get_rng_state()
    own = Own()
    with noise.drawn_by(own):
        got = draw(q(x), Size([K]), name in POSTERIORS)[0]
    assert torch.equal(got, want)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used too"
    assert set(batch_sizes(own)) == {B} and len(own.asked) == 1


@pytest.mark.parametrize("name", sorted(PRIORS.keys() - ELSEWHERE))
def test_a_source_draws_the_noise_of_a_prior(name: str) -> None:
    torch.manual_seed(0)
    p = PRIORS[name](2)()
    state = torch.get_rng_state()
    own = Own()
    with noise.drawn_by(own):
        draw(p, Size([K, B]), False)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(batch_sizes(own)) == {B} and len(own.asked) == 1


def test_a_source_binarises_and_is_gone_afterwards() -> None:
    grey = Split(torch.randint(0, 256, (9, 1, 2, 2), dtype=torch.uint8))
    data = binarise(DataSet("grey", train=grey, test=grey))
    own = Own()
    with noise.drawn_by(own):
        data.train.batch(torch.arange(B))
    assert own.asked == [("uniform", (B, 1, 2, 2), 3)]
    with pytest.raises(ZeroDivisionError), noise.drawn_by(own):
        raise ZeroDivisionError
    noise.normal((2,), torch.zeros(2))
    assert len(own.asked) == 1
