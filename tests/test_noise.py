"""Who draws the noise: a source in the place of torch's generators gets every request, with the same numbers, and sees the batch axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Size, Tensor, nn

from tables import DISCRETE, POSTERIORS, PRIORS
from vaekit import VAE, Batch, Conditional, heads, noise, priors
from vaekit.data import binarise
from vaekit.data.core import DataSet, Split
from vaekit.dist import draw
from vaekit.models import LatentModel
from vaekit.train.ranks import SharedNoise

B, K = 7, 3
ELSEWHERE = {"maf", "iaf", "vamp_maf", "mixture_gaussian", "gaussian_mixture", "vamp_gaussian", "vamp_full_gaussian"}
"""What draws by itself: zuko's flows by torch.distributions.Normal, mixtures by torch.multinomial."""


class Own:
    """A generator of its own, with a note of each request and of the axis of the examples."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)
        self.asked: list[tuple[str, tuple[int, ...], int | None]] = []

    def __call__(self, kind: noise.Kind, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        self.asked.append((kind, shape, noise.axis_of(shape, event_dim)))
        one = {"normal": torch.randn, "uniform": torch.rand}[kind]
        return one(shape, generator=self.generator, dtype=like.dtype)


def batch_sizes(own: Own) -> Iterator[int]:
    for _, shape, axis in own.asked:
        assert axis == 1
        yield shape[axis]


@pytest.mark.parametrize("name", sorted(POSTERIORS.keys() - ELSEWHERE | DISCRETE.keys()))
def test_a_source_draws_the_noise_of_a_posterior(name: str) -> None:
    torch.manual_seed(0)
    q: nn.Module = POSTERIORS[name](6, 2) if name in POSTERIORS else DISCRETE[name].posterior(6)
    x = torch.rand(B, 6)
    torch.manual_seed(1)
    want = draw(q(x), Size([K]), name in POSTERIORS)[0]
    state = torch.get_rng_state()
    own = Own()
    with noise.drawn_by(own), noise.along(1):
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
    with noise.drawn_by(own), noise.along(1):
        draw(p, Size([K, B]), False)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(batch_sizes(own)) == {B} and len(own.asked) == 1


def test_a_source_binarises_and_is_gone_afterwards() -> None:
    grey = Split(torch.randint(0, 256, (9, 1, 2, 2), dtype=torch.uint8))
    data = binarise(DataSet("grey", train=grey, test=grey))
    own = Own()
    with noise.drawn_by(own):
        data.train.batch(torch.arange(B))
    assert own.asked == [("uniform", (B, 1, 2, 2), 0)]
    with pytest.raises(ZeroDivisionError), noise.drawn_by(own):
        raise ZeroDivisionError
    noise.normal((2,), torch.zeros(2))
    assert len(own.asked) == 1


N = 4


def model() -> LatentModel:
    """All sizes coincide: latents of N dimensions, N components, N pixels."""
    torch.manual_seed(0)
    posterior = Conditional(nn.Linear(N, 2 * N), heads.Gaussian(N))
    return VAE(priors.GaussianMixture(N, N), posterior, Conditional(nn.Linear(N, N), heads.Bernoulli(N)))


PASSES: dict[str, Callable[[LatentModel, Batch], object]] = {
    "infer": lambda model, batch: model.infer(batch, N),
    "infer, detached": lambda model, batch: model.infer(batch, N, reparam=False),
    "dream": lambda model, batch: model.dream(N),
}


@pytest.mark.parametrize("name", PASSES)
def test_the_examples_axis_is_said_and_not_guessed(name: str) -> None:
    own = Own()
    with noise.drawn_by(own):
        PASSES[name](model(), Batch(torch.rand(N, N).round()))
        elsewhere = len(own.asked)
        noise.normal((N, N), torch.zeros(1))  # a latent of all examples, K samples of it, is nobody's rows
        noise.normal((N, N, N), torch.zeros(1), 1)
    shapes = {shape for _, shape, _ in own.asked}
    assert {axis for _, _, axis in own.asked[:elsewhere]} == {1} and elsewhere
    assert [axis for _, _, axis in own.asked[elsewhere:]] == [None, None]
    assert (1, N, N, N) in shapes or name != "dream", "the components of a mixture"


def test_a_part_of_the_rows_is_cut_from_their_axis_whatever_the_other_sizes() -> None:
    """Four rows over two processes: each has two, of two samples, two components and two dimensions."""
    whole, halves = SharedNoise(torch.device("cpu")), [SharedNoise(torch.device("cpu")) for _ in range(2)]
    whole.rows = (4, 0, 4)
    for number, half in enumerate(halves):
        half.rows = (4, 2 * number, 2 * number + 2)
    like = torch.zeros(())
    asked: list[tuple[int, tuple[int, ...], tuple[int, ...], int]] = [
        (1, (2, 4, 2), (2, 2, 2), 1),
        (1, (2, 4, 2, 2), (2, 2, 2, 2), 1),
        (1, (2, 4, 2, 2), (2, 2, 2, 2), 2),
        (1, (2, 4), (2, 2), 0),
        (0, (4, 2, 2), (2, 2, 2), 2),
    ]
    for source in (whole, *halves):
        source.generator.manual_seed(3)
    for axis, full, part, event_dim in asked:
        with noise.along(axis):
            want = whole("normal", full, event_dim, like)
            got = [half("normal", part, event_dim, like) for half in halves]
        assert torch.equal(torch.cat(got, axis), want)
    states = [source.generator.get_state() for source in (whole, *halves)]
    assert all(torch.equal(state, states[0]) for state in states)
    torch.manual_seed(0)
    with noise.along(1):  # [K, D]: no axis of examples before the event
        alone = halves[0]("normal", (2, 2), 1, like)
    unsaid = halves[0]("normal", (2, 2, 2), 1, like)
    torch.manual_seed(0)
    assert torch.equal(alone, torch.randn(2, 2)) and torch.equal(unsaid, torch.randn(2, 2, 2))
    assert torch.equal(halves[0].generator.get_state(), states[0])
