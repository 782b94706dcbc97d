"""Bits-back coding: round trips to the last bit, lengths that are known exactly, and everything refused that would not come back."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from tables import LIKELIHOODS, POSTERIORS, PRIORS
from vaekit import dist, heads, priors
from vaekit.apps.compress import code, compress, decompress
from vaekit.apps.compress.coding import Coder, random_words
from vaekit.apps.compress.container import MAGIC, pack, unpack
from vaekit.apps.compress.stack import Stack
from vaekit.cli import main
from vaekit.conditional import Conditional
from vaekit.errors import InputError
from vaekit.models import VAE, Ladder, Rung
from vaekit.models.core import LatentModel, Trace
from vaekit.models.picks import Level, Pick
from vaekit.quantise import FSQ, UniformCodes
from vaekit.types import Batch

pytest.importorskip("constriction")

DISCRETE = ("bernoulli", "categorical", "discretised_logistic", "discretised_mixture_grey", "discretised_mixture_colour", "shared_levels")
CODED_Q = ("gaussian", "full_gaussian", "mixture_gaussian")
CODED_P = ("standard_normal", "diag_normal", "full_normal", "gaussian_mixture", "vamp_gaussian")
BITS = 1 / math.log(2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def binary(posterior: nn.Module, prior: nn.Module, latent: int = 2, gain: float = 2.0) -> VAE:
    head = heads.Bernoulli(6)
    net = nn.Linear(latent, 6)
    nn.init.normal_(net.weight, std=gain)
    return VAE(prior, posterior, Conditional(net, head))


def gaussian(inputs: int, size: int) -> Conditional:
    return Conditional(nn.Linear(inputs, 2 * size), heads.Gaussian(size))


def ladder(levels: int = 2) -> Ladder:
    """Random weights: levels depend on each other, and q lies where p has some mass."""
    rungs = [Rung(priors.StandardNormal(2), gaussian(5, 2))]
    rungs += [Rung(gaussian(2, 2), gaussian(2 + 5, 2)) for _ in range(levels - 1)]
    model = Ladder([nn.Linear(6 if i == 0 else 5, 5) for i in range(levels)], rungs, Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for rung in rungs:
        rung.posterior.net.bias.data[2:] -= 2.0  # narrower than p, as posteriors are
    return model


def bits(n: int, width: int = 6) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((n, width)) < 0.4


def net_length(data: bytes) -> int:
    """Bits that the examples take: what the stack holds beyond the words with which it began."""
    header, words = unpack(data, "x")
    return Stack(words).bits - Stack(random_words(header["seed"])).bits


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def shown(model: LatentModel, x: np.ndarray[Any, Any], **options: Any) -> bytes:
    data = compress(model, x, verify=False, **options)
    assert same(decompress(model, data), x)
    return data


# Masses


def path_mass(d: Distribution, x: Tensor) -> Tensor:
    """log P(x) of one value ``[1, *event]`` for d of batch shape [1, 1], from the digits' masses alone."""
    found = code(d)
    levels = found.numbering.levels(x)
    total = torch.zeros((), dtype=torch.float64)
    for columns, alphabet_of in found.steps:
        alphabet = alphabet_of(levels)
        digits = alphabet.split(levels[:, columns])
        assert torch.equal(alphabet.join(digits), levels[:, columns])
        for i, digit in enumerate(digits):
            p = alphabet.masses(digits[:i])
            total += (p / p.sum(-1, keepdim=True)).gather(-1, digit.unsqueeze(-1)).log().sum()
    return total


@pytest.mark.parametrize("name", DISCRETE)
def test_masses_are_the_likelihoods_own(name: str) -> None:
    row = LIKELIHOODS[name]
    head = row.make()
    d = head.double()(torch.randn(1, 1, head.features, dtype=torch.float64))
    for x in row.data(20).double():
        assert float(path_mass(d, x[None]) - d.log_prob(x)) == pytest.approx(0, abs=1e-6)


def test_masses_of_256_levels_are_those_of_the_tails_too() -> None:
    d = dist.DiscretisedLogistic(torch.tensor([[[0.3, -0.2]]]).double(), torch.tensor([[[-5.0, -3.0]]]).double())
    for k in (0, 1, 15, 16, 76, 77, 254, 255):
        x = torch.full((1, 2), k / 255, dtype=torch.float64)
        if float(d.log_prob(x)) > -30:
            assert float(path_mass(d, x) - d.log_prob(x)) == pytest.approx(0, abs=1e-5)
    assert float(path_mass(d, torch.ones(1, 2).double())) < -30  # beyond a double's reach, and still possible


@pytest.mark.parametrize("name", CODED_Q)
def test_latents_that_are_popped_are_draws_of_the_posterior(name: str) -> None:
    n = 3000
    q = POSTERIORS[name](6, 2)(3 * torch.randn(1, 6)).expand([1, n])
    cells = code(dist.DiagGaussian(torch.full((1, n, 2), 0.3), torch.full((1, n, 2), 2.0))).numbering
    z = cells.values(Stack(random_words(20_000)).pop(code(q, cells), n))
    sample = q.sample((40,)).reshape(-1, 2).double()
    for f in (lambda t: t, lambda t: t.square(), lambda t: t.prod(-1)):
        ours, theirs = f(z), f(sample)
        error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
        assert float(((ours.mean(0) - theirs.mean(0)) / error).abs().max()) < 4


def test_a_pop_is_undone_by_a_push() -> None:
    for name in CODED_Q:
        q = POSTERIORS[name](6, 2)(torch.randn(7, 6)).expand([1, 7])
        found = code(q)
        stack = Stack(random_words(100))
        levels = stack.pop(found, 5)
        assert stack.bits < 3200 - 5 * 2 * 8
        stack.push(found, levels, 5)
        assert np.array_equal(stack.words, random_words(100))


# Lengths


class Exact(nn.Module):
    """q(z | x) = p(z) p(x | z) / p(x), by listing the classes."""

    def __init__(self, prior: nn.Module, likelihood: nn.Module, classes: int) -> None:
        super().__init__()
        self.parts, self.classes = (prior, likelihood), classes

    def forward(self, x: Tensor) -> Distribution:
        prior, likelihood = self.parts
        z = torch.eye(self.classes, dtype=x.dtype).reshape(self.classes, 1, 1, 1, self.classes)
        log_joint = torch.stack([prior().log_prob(one[0]) + likelihood(one).log_prob(x)[0] for one in z], -1)
        return dist.OneHot(log_joint.unsqueeze(-2), 2)


class Flat(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.flatten(1)


def enumerable(classes: int = 5) -> VAE:
    prior = priors.OneHot((1, classes))
    nn.init.normal_(prior.logits)
    net = nn.Linear(classes, 6)
    nn.init.normal_(net.weight, std=2.0)
    likelihood = Conditional(nn.Sequential(Flat(), net), heads.Bernoulli(6), event_dim=2)
    return VAE(prior, Exact(prior, likelihood, classes), likelihood).double()


def test_with_the_exact_posterior_the_length_is_that_of_the_evidence() -> None:
    """log w is then log p(x) for every z, so nothing is left to chance: every bit lent for z must have come back."""
    model = enumerable()
    x = bits(3000)
    with torch.no_grad():
        log_p = model.infer(Batch(torch.from_numpy(x).double())).log_w
    expected = -float(log_p.sum()) * BITS
    assert net_length(shown(model, x)) == pytest.approx(expected, rel=1e-5, abs=2)
    all_x = np.array(list(itertools.product([False, True], repeat=6)))
    with torch.no_grad():
        total = model.infer(Batch(torch.from_numpy(all_x).double())).log_w.exp().sum()
    assert float(total) == pytest.approx(1)  # and the evidence is right


class Spy(LatentModel):
    """The same model, which keeps what was picked."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model
        self.log_w: list[Tensor] = []

    def unroll(self, pick: Pick, batch: Batch | None = None, context: Tensor | None = None) -> tuple[tuple[Level, ...], Distribution]:
        levels, px = self.model.unroll(pick, batch, context)
        if batch is not None:
            self.log_w.append(Trace(batch, levels, px).log_w[0])
        return levels, px


@pytest.mark.parametrize("make", [lambda: binary(gaussian(6, 2), priors.StandardNormal(2)), ladder, lambda: ladder(3)])
def test_the_length_is_log_w_of_the_latents_that_were_popped(make: Callable[[], LatentModel]) -> None:
    spy = Spy(make())
    data = compress(spy, bits(1000), verify=False)
    header, _ = unpack(data, "x")
    total = 0.0
    for rows, log_w in zip(header["groups"], spy.log_w[-1 - len(header["groups"]) : -1], strict=True):  # the last one is the probe's
        total -= float(log_w[:rows].double().sum()) * BITS
    assert net_length(data) == pytest.approx(total, rel=1e-3)


def expected_length(model: LatentModel, x: np.ndarray[Any, Any], k: int = 200) -> tuple[float, float]:
    """Sum of -ELBO in bits and the standard deviation of a code's length about it, by k samples each."""
    with torch.no_grad():
        log_w = model.infer(Batch(torch.from_numpy(x).float()), k).log_w.double() * -BITS
    return float(log_w.mean(0).sum()), math.sqrt(float(log_w.var(0).sum()) * (1 + 1 / k))


@pytest.mark.parametrize("make", [lambda: binary(gaussian(6, 2), priors.StandardNormal(2)), ladder, lambda: ladder(3)])
def test_the_length_is_minus_the_elbo(make: Callable[[], LatentModel]) -> None:
    model, x = make(), bits(2000)
    mean, sd = expected_length(model, x)
    length = net_length(shown(model, x))
    assert abs(length - mean) < 4 * sd + 0.001 * mean
    file = 8 * len(compress(model, x, verify=False))
    assert file - length < 6000


def test_latents_are_never_drawn_from_an_empty_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer bits than its state holds, draws would all be alike; and full groups come soon, for the networks' sake."""
    left: list[int] = []
    pop = Stack.pop

    def watched(stack: Stack, *arguments: Any) -> Tensor:
        found = pop(stack, *arguments)
        left.append(stack.bits)
        return found

    monkeypatch.setattr(Stack, "pop", watched)
    data = compress(ladder(), bits(2000), verify=False)
    assert min(left) >= 64
    assert max(unpack(data, "x")[0]["groups"]) == 64


# Round trips


@pytest.mark.parametrize("name", DISCRETE)
def test_every_discrete_likelihood_comes_back(name: str) -> None:
    row = LIKELIHOODS[name]
    px, x = row.conditional(2), row.data(1000)
    q = heads.Gaussian(2)
    model = VAE(
        priors.StandardNormal(2), Conditional(nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4)), q, event_dim=x.dim() - 1), px
    )
    shown(model, x.numpy(), size=37)


@pytest.mark.parametrize("q", CODED_Q)
@pytest.mark.parametrize("p", CODED_P)
def test_every_pair_of_prior_and_posterior_comes_back(p: str, q: str) -> None:
    model = binary(POSTERIORS[q](6, 2), PRIORS[p](2))
    x = bits(150)
    mean, sd = expected_length(model, x)
    assert abs(net_length(shown(model, x)) - mean) < 4 * sd + 0.002 * mean


def test_discrete_latents_come_back() -> None:
    model = binary(Conditional(nn.Linear(6, 8), heads.Bernoulli(8)), priors.Bernoulli(8), latent=8)
    mean, sd = expected_length(model, bits(1000))
    assert abs(net_length(shown(model, bits(1000))) - mean) < 4 * sd + 8


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 63])
def test_any_number_of_examples(n: int) -> None:
    model = ladder()
    shown(model, bits(n), size=8)
    shown(model, bits(n), size=1)


def test_dtypes_and_shapes_come_back() -> None:
    model = VAE(
        priors.StandardNormal(2),
        Conditional(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), heads.Gaussian(2), event_dim=3),
        Conditional(nn.Linear(2, 24), heads.DiscretisedLogistic((1, 3, 4))),
    )
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 3, 4), dtype=np.uint8)
    shown(model, x)
    shown(model, x[:, 0])
    shown(model, x[::2, :, ::-1])
    for dtype in (np.float32, np.float64, ">f8"):
        shown(model, (x.astype(np.float64) / 255).astype(dtype))
    flat = binary(gaussian(6, 2), priors.StandardNormal(2))
    for dtype in (bool, np.uint8, np.int64, np.float16, ">i4"):
        shown(flat, bits(20).astype(dtype))
    shown(flat, bits(20).astype(np.uint8) * 255)
    shown(flat.double(), bits(20))


def test_what_is_coded_does_not_depend_on_the_surroundings() -> None:
    model, x = ladder().train(), bits(50)
    state = torch.get_rng_state()
    first = compress(model, x)
    assert model.training and torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    torch.set_float32_matmul_precision("medium")
    try:
        assert compress(model, x) == first
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


# Refusals


def test_fifty_damaged_files() -> None:
    model = ladder()
    data = compress(model, bits(40))
    rng = np.random.default_rng(0)
    damaged = [b"", data[:4], data[:-1], data + b"\0", data[1:], MAGIC, MAGIC + bytes(36), data[: len(data) // 2], b"PK" + data, data[::-1]]
    for i in rng.choice(len(data), 40, replace=False):
        damaged.append(data[:i] + bytes([data[i] ^ (1 << int(rng.integers(8)))]) + data[i + 1 :])
    assert len(damaged) == 50
    for one in damaged:
        with pytest.raises(InputError, match=r"y\.vkc (is damaged|is not a file)") as error:
            decompress(model, one, name="y.vkc")
        assert "\n" not in str(error.value)


def resealed(data: bytes, change: Callable[[dict[str, Any], Any], None]) -> bytes:
    header, words = unpack(data, "x")
    change(header, words)
    return pack(header, words)


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"shape": [-1, 6]},
        {"shape": []},
        {"groups": [999]},
        {"dtype": "O"},
        {"threads": 0},
        {"size": "a"},
        {"unit": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_a_header_that_somebody_wrote(change: dict[str, Any]) -> None:
    """Its checksum holds, for anybody can compute it."""
    model = ladder()
    header, words = unpack(compress(model, bits(6), verify=False), "y.vkc")
    for bad in (header | change, {k: v for k, v in header.items() if k not in change}):
        with pytest.raises(InputError, match=r"y\.vkc cannot be read"):
            decompress(model, pack({k: v for k, v in bad.items() if k != "format"}, words), name="y.vkc")


def test_a_model_of_nan_and_an_array_that_is_none() -> None:
    model = ladder()
    with pytest.raises(InputError, match="a list cannot be compressed"):
        compress(model, [[1]])  # type: ignore[arg-type]
    with torch.no_grad():
        next(model.likelihood.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="not all finite"):
        compress(model, bits(6))


def test_another_model_and_other_arithmetic() -> None:
    model = ladder()
    data = compress(model, bits(40))
    other = ladder()
    with pytest.raises(InputError, match="another model"):
        decompress(other, data)
    for change, match in (
        (lambda h, w: h.update(probe="0"), "come out otherwise"),
        (lambda h, w: h.update(format=2), "format 2"),
        (lambda h, w: h.update(data="0"), "did not decode to what was compressed"),
        (lambda h, w: h.update(seed=h["seed"] + 1), "did not decode to the bits"),
        (lambda h, w: w.__setitem__(slice(0, 1), 7), "did not decode"),
    ):
        with pytest.raises(InputError, match=match):
            decompress(model, resealed(data, change))


def test_the_probe_sees_the_last_bit_of_every_part() -> None:
    """What differs by rounding on another machine, imitated: one weight moved to the next float32."""
    model = ladder().eval()
    with torch.no_grad():
        first = Coder(model, 4, torch.float32).probe()
        assert Coder(model, 4, torch.float32).probe() == first
        for name, parameter in model.named_parameters():
            kept = parameter.clone()
            parameter.copy_(torch.nextafter(parameter, torch.tensor(math.inf)))
            assert Coder(model, 4, torch.float32).probe() != first, name
            parameter.copy_(kept)


VALUES: dict[str, tuple[np.ndarray[Any, Any], str]] = {
    "grey": (np.full((3, 6), 0.5), "row 0 holds 0.5, which is none of the values"),
    "nan": (np.array([[0.0] * 6, [math.nan] + [0.0] * 5]), "row 1 holds nan"),
    "infinite": (np.full((2, 6), math.inf), "holds inf"),
    "minus zero": (np.full((2, 6), -0.0), "holds -0.0"),
    "two": (np.full((2, 6), 2, dtype=np.uint8), "holds 2"),
    "negative": (np.full((2, 6), -1), "holds -1"),
    "complex": (np.zeros((2, 6), dtype=complex), "complex128 cannot be compressed"),
    "text": (np.zeros((2, 6), dtype="U1"), "<U1 cannot be compressed"),
    "objects": (np.zeros((2, 6), dtype=object), "object cannot be compressed"),
    "width": (np.zeros((2, 5)), "the array is [2, 5] and the model's examples are [6]"),
    "no rows": (np.zeros(()), "the array is []"),
    "turned": (np.zeros((6, 2)), "the array is [6, 2]"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_outside_of_the_alphabet(name: str) -> None:
    x, message = VALUES[name]
    with pytest.raises(InputError) as error:
        compress(binary(gaussian(6, 2), priors.StandardNormal(2)), x)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_level_between_two_is_refused() -> None:
    model = VAE(priors.StandardNormal(2), gaussian(6, 2), Conditional(nn.Linear(2, 12), heads.DiscretisedLogistic(6)))
    x = np.full((4000, 6), 100 / 255, dtype=np.float32)
    x[3333, 2] = np.nextafter(x[3333, 2], 1)
    with pytest.raises(InputError, match="row 3333 holds 0.392"):
        compress(model, x)


def quantised() -> VAE:
    quantiser = FSQ((3, 3))
    head = heads.Quantised(quantiser, ())
    return VAE(UniformCodes(quantiser, ()), Conditional(nn.Linear(6, 2), head), Conditional(nn.Linear(2, 6), heads.Bernoulli(6)))


MODELS: dict[str, tuple[Callable[[], LatentModel], str]] = {
    "continuous data": (
        lambda: VAE(priors.StandardNormal(2), gaussian(6, 2), Conditional(nn.Linear(2, 12), heads.Gaussian(6))),
        "continuous data cannot be coded without loss: round them to levels",
    ),
    "flow posterior": (lambda: binary(POSTERIORS["planar"](6, 2), priors.StandardNormal(2)), "Flow cannot be coded"),
    "flow prior": (lambda: binary(gaussian(6, 2), PRIORS["maf"](2)), "cannot be coded"),
    "codes": (quantised, "cannot be coded"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_code(name: str) -> None:
    make, message = MODELS[name]
    with pytest.raises(InputError, match=message) as error:
        compress(make(), bits(4))
    assert "\n" not in str(error.value)


class Noisy(nn.Module):
    """A decoder that is never the same."""

    def forward(self, z: Tensor) -> Tensor:
        return z + 0.1 * torch.rand(())


def test_what_would_not_come_back_is_not_returned() -> None:
    likelihood = Conditional(nn.Sequential(Noisy(), nn.Linear(2, 6)), heads.Bernoulli(6))
    model = VAE(priors.StandardNormal(2), gaussian(6, 2), likelihood)
    with pytest.raises(InputError, match="does not give the same numbers twice"):
        compress(model, bits(40))
    with pytest.raises(InputError):
        decompress(model, compress(model, bits(40), verify=False))


# The command line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    (folder / "mine.py").write_text(
        "import torch\n"
        "from vaekit import VAE, Conditional, data, heads, priors\n"
        "from vaekit.recipes.core import Recipe\n"
        "from vaekit.train import Training\n"
        "def run(width: int = 6) -> Recipe:\n"
        "    q = Conditional(torch.nn.Linear(width, 4), heads.Gaussian(2))\n"
        "    model = VAE(priors.StandardNormal(2), q, Conditional(torch.nn.Linear(2, width), heads.Bernoulli(width)))\n"
        "    def rows() -> data.DataSet:\n"
        "        x = torch.rand(90, width, generator=torch.Generator().manual_seed(0)) < 0.4\n"
        "        return data.arrays(x, test=30, valid=0)\n"
        "    return Recipe(model, rows, training=Training(epochs=1))\n"
    )
    assert main(["train", f"{folder}/mine.py", "--out", f"{folder}/run", "--device", "cpu"]) == 0
    return folder


def test_from_file_to_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = bits(33)
    np.save(run / "x.npy", x)
    np.savez(run / "x.npz", x=x, other=x)
    (run / "x.idx").write_bytes(b"\0\0\x08\x02" + np.array([33, 6], dtype=">u4").tobytes() + x.astype(np.uint8).tobytes())
    for name in ("x.npy", "x.npz", "x.idx"):
        assert main(["compress", f"{run}/run", f"{run}/{name}", f"{run}/y.vkc", "--trust"]) == 0
        assert "33 examples" in capsys.readouterr().out
        assert main(["decompress", f"{run}/run", f"{run}/y.vkc", f"{run}/z.npy", "--trust"]) == 0
        assert same(np.load(run / "z.npy"), x.astype(np.uint8) if name == "x.idx" else x)
    assert main(["compress", f"{run}/run", f"{run}/y.vkc", "--split", "test", "--trust"]) == 0
    assert "30 examples" in capsys.readouterr().out
    assert main(["decompress", f"{run}/run", f"{run}/y.vkc", f"{run}/z.npz", "--trust"]) == 0
    assert np.load(run / "z.npz")["x"].shape == (30, 6)


def test_nothing_is_written_where_something_is_wrong(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(run / "good.npy", bits(5))
    np.save(run / "bad.npy", np.full((5, 6), 0.5))
    (run / "text.npy").write_text("no array")
    assert main(["compress", f"{run}/run", f"{run}/good.npy", f"{run}/good.vkc", "--trust"]) == 0
    data = (run / "good.vkc").read_bytes()
    (run / "cut.vkc").write_bytes(data[:-9])
    assert main(["train", f"{run}/mine.py", "--out", f"{run}/other", "--device", "cpu", "--seed", "9"]) == 0
    capsys.readouterr()
    before = sorted(run.iterdir())
    for words, message in (
        (["compress", "run", "bad.npy", "new"], "holds 0.5"),
        (["compress", "run", "text.npy", "new"], "no .npy, .npz or IDX"),
        (["compress", "run", "none.npy", "new"], "no file"),
        (["compress", "run", "new"], "say what to compress"),
        (["compress", "run", "good.npy", "new", "--split", "test"], "two things"),
        (["compress", "run", "good.npy", "none/new"], "cannot write"),
        (["decompress", "run", "cut.vkc", "new.npy"], "damaged or cut off"),
        (["decompress", "run", "good.npy", "new.npy"], "is not a file that vaekit compress wrote"),
        (["decompress", "other", "good.vkc", "new.npy"], "another model"),
        (["decompress", "run", "good.vkc", "new.txt"], "written as .npy or .npz"),
    ):
        paths = [f"{run}/{word}" if not word.startswith("--") and word != "test" else word for word in words[1:]]
        assert main([words[0], *paths, "--trust"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
        assert sorted(run.iterdir()) == before
    assert hashlib.sha256((run / "good.vkc").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_a_model_with_a_context_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    r = np.random.default_rng(0)
    x, run = r.integers(0, 2, (40, 4, 4), dtype=np.uint8), tmp_path / "run"
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2)
    np.save(tmp_path / "x.npy", x)
    flags = ["--condition", "label", "--epochs", "1", "--hidden", "8", "--latent", "2", "--out", str(run)]
    assert main(["train", str(tmp_path / "d.npz"), *flags]) == 0
    (tmp_path / "x.vkc").write_bytes(MAGIC)
    for words in (["compress", "x.npy", "new"], ["compress", "new", "--split", "test"], ["decompress", "x.vkc", "new.npy"]):
        capsys.readouterr()
        command, *rest = words
        assert main([command, str(run), *(str(tmp_path / word) if word.startswith(("x.", "new")) else word for word in rest)]) == 2
        said = capsys.readouterr().err
        assert "its p(x | z, c) has a context" in said and said.count("\n") == 1 and "context=" not in said
    assert not list(tmp_path.glob("new*"))
