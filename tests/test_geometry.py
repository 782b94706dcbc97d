"""Continuity and completeness on decoders whose answers are known, and the classifier that judges samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MultivariateNormal

from vaekit import heads, priors
from vaekit.conditional import Conditional
from vaekit.data.core import DataSet, Split
from vaekit.errors import InputError
from vaekit.evaluate import Classifier, classifier, completeness, continuity, gaussian_fit
from vaekit.evaluate.classifier import calibration_error, fit_temperature
from vaekit.models import VAE, Ladder, Rung

I2 = torch.eye(2, dtype=torch.float64)


class Decoder(nn.Module):
    """x = f(z), as the mean of a Gaussian."""

    def __init__(self, f) -> None:
        super().__init__()
        self.f = f

    def forward(self, z: Tensor) -> Tensor:
        return self.f(z)


def model(f, size: int, latent: int = 2) -> VAE:
    encoder = Conditional(nn.Linear(size, latent), heads.Point(latent))
    return VAE(priors.StandardNormal(latent), encoder, Conditional(Decoder(f), heads.GaussianFixed(size, 1.0))).double()


# --- continuity ------------------------------------------------------------------------------------------------------------------------

W = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(("direction", "stretch"), [((2.0, 0.0), 3.0), ((0.0, 5.0), 1.0), ((1.0, 1.0), math.sqrt(5.0))])
def test_a_linear_decoder_has_one_step_everywhere(direction: tuple[float, float], stretch: float) -> None:
    """|W d| / |d| whatever the length, the number of steps and the offset; its peak is 1."""
    a = torch.tensor([0.3, -1.0], dtype=torch.float64)
    codes = torch.stack([a, a + torch.tensor(direction, dtype=torch.float64)])
    for steps in (1, 7, 200):
        found = continuity(model(lambda z: z @ W.mT + 4, 3), segments=5, steps=steps, ends=codes)
        for value in (found.mean, found.largest, found.top, *found.quantiles):
            assert value == pytest.approx(stretch, rel=1e-9)
        assert found.peak == pytest.approx(1, rel=1e-9) and found.largest_se == pytest.approx(0, abs=1e-9)
        assert found.length == pytest.approx(math.hypot(*direction))


def test_random_segments_of_a_linear_decoder_lie_between_its_singular_values() -> None:
    """Directions of segments between draws of N(0, I) are uniform on the circle: E sqrt(9 cos^2 + sin^2) by quadrature; 4,000 segments."""
    found = continuity(model(lambda z: z @ W.mT, 3), segments=4000, steps=3)
    angle = torch.linspace(0, 2 * math.pi, 10_001, dtype=torch.float64)[:-1]
    exact = float((9 * angle.cos().square() + angle.sin().square()).sqrt().mean())
    assert abs(found.mean - exact) < 4.5 * found.mean_se and found.mean_se < 0.02
    assert 2.99 < found.top < 3 + 1e-9
    assert abs(found.length - math.sqrt(math.pi)) < 0.06  # |a - b| = sqrt(2) times a Rayleigh variable of mean sqrt(pi / 2)


def test_a_jump_shows_in_proportion_to_the_steps() -> None:
    """x = 2 [z > 0], from -1 to 1 (length 2): one step of size 2 over 2 / n, the others 0: largest n, mean 1, peak n."""
    codes = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for steps in (5, 51, 501):
        found = continuity(model(lambda z: 2.0 * (z > 0), 1, latent=1), segments=6, steps=steps, ends=codes)
        assert (found.largest, found.mean, found.peak) == pytest.approx((steps, 1.0, steps))
        assert found.quantiles[0] == 0


def test_a_curve_has_its_largest_slope() -> None:
    """x = z^3 on [0, 2]: steps ((t + h)^3 - t^3) / h, largest 12 - 6 h + h^2, mean 8 / 2."""
    codes = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    found = continuity(model(lambda z: z**3, 1, latent=1), segments=4, steps=100, ends=codes)
    h = 0.02
    assert (
        found.largest == pytest.approx(12 - 6 * h + h**2)
        and found.mean == pytest.approx(4)
        and found.peak == pytest.approx(found.largest / 4)
    )
    t = h * torch.arange(100, dtype=torch.float64)
    steps = 3 * t**2 + 3 * t * h + h**2
    assert found.quantiles == pytest.approx(torch.quantile(steps, torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)).tolist())


def test_ends_come_from_where_they_are_told() -> None:
    same = model(lambda z: z, 2)
    far = MultivariateNormal(torch.full((2,), 50.0).double(), 100 * I2)
    assert continuity(same, segments=2000, ends=far, steps=1).length == pytest.approx(10 * math.sqrt(math.pi), rel=0.05)
    codes = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    assert continuity(same, segments=2000, ends=codes, steps=1).length == pytest.approx(3 * math.sqrt(math.pi), rel=0.05)
    square, state = model(lambda z: z**2, 2), torch.get_rng_state()
    one, two, other = (continuity(square, seed=seed) for seed in (1, 1, 2))
    assert one == two != other and torch.equal(torch.get_rng_state(), state)


def test_what_continuity_cannot_measure() -> None:
    same = model(lambda z: z, 2)
    with pytest.raises(InputError, match=r"continuity\(segments=1, steps=100\)"):
        continuity(same, segments=1)
    with pytest.raises(InputError, match=r"5 of 5 segments have no length"):
        continuity(same, segments=5, ends=torch.zeros(9, 2))
    with pytest.raises(InputError, match=r"codes of shape \[9, 3\]: this model's are \[N, 2\]"):
        continuity(same, ends=torch.zeros(9, 3))
    with pytest.raises(InputError, match="MultivariateNormal over .3. is no distribution over this model's z .2."):
        continuity(same, ends=MultivariateNormal(torch.zeros(3), torch.eye(3)))
    with pytest.raises(InputError, match="it ignores z"):
        continuity(model(lambda z: 0 * z, 2))
    rungs = [Rung(priors.StandardNormal(2), Conditional(nn.Linear(5, 4), heads.Gaussian(2)))]
    rungs.append(Rung(Conditional(nn.Linear(2, 4), heads.Gaussian(2)), Conditional(nn.Linear(7, 4), heads.Gaussian(2))))
    ladder = Ladder([nn.Identity(), nn.Identity()], rungs, Conditional(nn.Linear(2, 5), heads.GaussianFixed(5, 1.0)))
    with pytest.raises(InputError, match="the model has 2 levels of latents"):
        continuity(ladder)


# --- completeness ----------------------------------------------------------------------------------------------------------------------


def judge(net: nn.Module, confidence: Tensor) -> Classifier:
    made = Classifier(net).eval()
    made.confidence = confidence.sort().values
    return made


def halves() -> Classifier:
    """Sure (0.9) of class 0 where x_1 > 1, of class 1 where x_1 < -1, else undecided; 95 of 100 real images reach 0.8."""
    sure = math.log(9.0)
    net = Decoder(lambda x: torch.stack([sure * (x[:, 0] > 1), sure * (x[:, 0] < -1)], -1))
    return judge(net, torch.cat([torch.full((5,), 0.5), torch.full((95,), 0.8)]))


def test_completeness_is_the_mass_of_what_is_accepted() -> None:
    """P(|z_1| > 1) = 0.3173 under N(0, I), P(|3 z_1| > 1) = 0.7389 under N(0, 9 I); 10,000 samples."""
    same = model(lambda z: z, 2)
    found = completeness(same, halves())
    assert abs(found.share - 0.31731) < 4.5 * found.share_se and found.threshold == pytest.approx(0.8) and found.level == 0.95
    assert found.share_se == pytest.approx(math.sqrt(found.share * (1 - found.share) / 10_000))
    assert found.classes == pytest.approx((0.5, 0.5), abs=0.05) and found.variety == pytest.approx(2, abs=0.01)
    wide = completeness(same, halves(), latents=MultivariateNormal(torch.zeros(2).double(), 9 * I2))
    assert abs(wide.share - 0.73888) < 4.5 * wide.share_se
    codes = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 1.0]]).double()
    quarter = completeness(same, halves(), latents=codes)
    assert abs(quarter.share - 0.25) < 4.5 * quarter.share_se and quarter.classes == (1.0, 0.0) and quarter.variety == 1
    assert completeness(same, halves(), level=0.96).share == 1  # a threshold of 0.5 accepts all
    assert found == completeness(same, halves()) != completeness(same, halves(), seed=1)


def test_the_threshold_is_what_the_stated_share_of_real_images_reaches() -> None:
    made = judge(nn.Identity(), torch.linspace(0, 1, 1001)[torch.randperm(1001)])
    for level in (0.5, 0.9, 0.95, 0.99):
        assert float((made.confidence >= made.threshold(level)).double().mean()) == pytest.approx(level, abs=0.0011)
    with pytest.raises(InputError, match=r"level=1: the share of real images"):
        made.threshold(1)
    with pytest.raises(InputError, match="has seen no test images"):
        Classifier(nn.Identity()).threshold(0.9)
    with pytest.raises(InputError, match=r"completeness\(samples=0\)"):
        completeness(model(lambda z: z, 2), halves(), samples=0)


def test_gaussian_fit_has_the_moments_of_the_codes() -> None:
    z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.1]])
    p = gaussian_fit(z)
    torch.testing.assert_close(p.mean, z.mean(0))
    centred = z - z.mean(0)
    torch.testing.assert_close(p.covariance_matrix, centred.mT @ centred / 499)
    for bad, message in ((torch.zeros(3, 3), "more rows than columns"), (torch.ones(9, 2), "has not full rank")):
        with pytest.raises(InputError, match=message):
            gaussian_fit(bad)


# --- the classifier --------------------------------------------------------------------------------------------------------------------


def test_temperature_undoes_a_scale() -> None:
    """Labels drawn from softmax(l): from 3 l the temperature is 3 times that from l, exactly, and 1 from l by its error (20,000 labels)."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 5).double()
    label = Categorical(logits=logits).sample()
    one = fit_temperature(logits, label)
    assert fit_temperature(3 * logits, label) == pytest.approx(3 * one, rel=1e-9)
    p = logits.softmax(1)
    information = ((p * logits.square()).sum(1) - (p * logits).sum(1).square()).sum()  # Fisher information of 1 / T at T = 1
    assert abs(1 / one - 1) < 4.5 / math.sqrt(float(information))


def test_calibration_error_of_made_up_bins() -> None:
    """60 guesses at 0.9 of which 48 right, 40 at 0.5 (+ a little) of which 10 right: 0.6 * 0.1 + 0.4 * 0.25, signs apart."""
    p = torch.cat([torch.tensor([[0.9, 0.1]]).expand(60, 2), torch.tensor([[0.5 + 1e-9, 0.5 - 1e-9]]).double().expand(40, 2)])
    label = torch.tensor([0] * 48 + [1] * 12 + [0] * 10 + [1] * 30)
    assert calibration_error(p, label) == pytest.approx(0.6 * 0.1 + 0.4 * 0.25, abs=1e-6)
    torch.manual_seed(0)
    sure = (2 * torch.randn(50_000, 4)).softmax(1)
    assert (
        calibration_error(sure, Categorical(sure).sample())
        < 0.01
        < 0.1
        < calibration_error(sure.square() / sure.square().sum(1, True), Categorical(sure).sample())
    )


def squares(n: int, seed: int) -> Split:
    """8 x 8 noise with a bright square in one of four corners; a tenth of the labels are wrong."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (n,), generator=g)
    x = torch.rand(n, 1, 8, 8, generator=g) * 0.5
    for corner in range(4):
        top, left = 4 * (corner // 2), 4 * (corner % 2)
        x[label == corner, :, top : top + 4, left : left + 4] += 0.5
    wrong = torch.rand(n, generator=g) < 0.1
    return Split(x, label=torch.where(wrong, (label + 1) % 4, label))


def test_the_classifier_learns_and_knows_how_sure_it_may_be() -> None:
    data = DataSet("squares", train=squares(2000, 0), test=squares(1000, 1))
    state = torch.get_rng_state()
    one, two = (classifier(data, epochs=4, batch_size=64) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.accuracy == two.accuracy and not one.training and not any(p.requires_grad for p in one.parameters())
    assert abs(one.accuracy - 0.9) < 4.5 * one.accuracy_se and one.calibration < 0.05
    p = one.probabilities(data.test.batch(torch.arange(1000)).x)
    assert p.shape == (1000, 4) and torch.allclose(p.sum(1), torch.ones(1000))
    assert float((p.argmax(1) == data.test.label).double().mean()) == pytest.approx(one.accuracy)
    torch.testing.assert_close(p.amax(1).sort().values, one.confidence)
    assert one.threshold(0.9) <= one.threshold(0.5)


@pytest.mark.parametrize(
    ("data", "epochs", "message"),
    [
        (DataSet("bare", Split(torch.zeros(30, 1, 8, 8)), Split(torch.zeros(9, 1, 8, 8))), 1, '"bare" has no labels'),
        (
            DataSet("rows", Split(torch.zeros(30, 8), torch.zeros(30).long()), Split(torch.zeros(9, 8), torch.zeros(9).long())),
            1,
            r"rows of shape \[8\]",
        ),
        (DataSet("squares", squares(30, 0), squares(9, 1)), 0, "30 training images and 0 epochs"),
    ],
    ids=["labels", "images", "epochs"],
)
def test_what_no_classifier_can_be_made_of(data: DataSet, epochs: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classifier(data, epochs=epochs)
