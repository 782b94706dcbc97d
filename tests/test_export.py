"""Exported files against the model, vaekit's own estimate and closed forms; what cannot be exported is refused and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracles import PPCA, LinearLadder
from tables import DISCRETE, LIKELIHOODS, POSTERIORS
from vaekit import heads, noise, priors
from vaekit.apps.export import PARTS, Part, export
from vaekit.apps.export.operations import cross_entropy_of_logits, log_gamma, solve_triangular
from vaekit.bounds import iwae
from vaekit.conditional import Conditional
from vaekit.dist import centre
from vaekit.errors import InputError
from vaekit.heads.missing import SelfMasking
from vaekit.models import VAE, Ladder, NotAtRandom, Rung, with_mask, with_mask_and_context
from vaekit.models.core import LatentModel
from vaekit.nn import Layer, conv_decoder, conv_encoder, mlp, resnet_decoder, resnet_encoder
from vaekit.quantise import FSQ, UniformCodes
from vaekit.types import Batch

K = 5
IMAGE = (1, 8, 8)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def gaussian(inputs: int, size: int) -> Conditional:
    return Conditional(nn.Linear(inputs, 2 * size), heads.Gaussian(size))


def plain(posterior: nn.Module | None = None, prior: nn.Module | None = None, latent: int = 2) -> VAE:
    decoder = Conditional(nn.Linear(latent, 6), heads.Bernoulli(6))
    return VAE(prior or priors.StandardNormal(latent), posterior or gaussian(6, latent), decoder)


def dense() -> VAE:
    """Dropout and running statistics, which evaluation leaves out and fixes."""
    layers = [Layer(9, nn.SiLU, norm=nn.BatchNorm1d, dropout=0.3)]
    q, px = heads.Gaussian(3), heads.DiscretisedLogistic(IMAGE, bins=17)
    posterior = Conditional(mlp(IMAGE, layers, q.features), q, event_dim=3)
    return VAE(priors.StandardNormal(3), posterior, Conditional(mlp(3, layers, px.features), px))


def conv() -> VAE:
    q, px = heads.Gaussian(3), heads.Bernoulli(IMAGE)
    encoder = conv_encoder(IMAGE, channels=(3, 4), features=q.features)
    decoder = conv_decoder(3, IMAGE, channels=(4, 3))
    return VAE(priors.GaussianMixture(3, 2), Conditional(encoder, q, event_dim=3), Conditional(decoder, px))


def resnet() -> VAE:
    q, px = heads.Gaussian(2), heads.GaussianShared(IMAGE)
    encoder = nn.Sequential(resnet_encoder(IMAGE, widths=(3, 4), blocks=(1, 1)), nn.Linear(4, q.features))
    decoder = resnet_decoder(2, IMAGE, widths=(4, 3), blocks=(1, 1))
    return VAE(priors.StandardNormal(2), Conditional(encoder, q, event_dim=3), Conditional(decoder, px))


def ladder() -> Ladder:
    rungs = [Rung(priors.StandardNormal(2), gaussian(5, 2)), Rung(gaussian(2, 3), gaussian(2 + 5, 3))]
    return Ladder([nn.Linear(6, 5), nn.Linear(5, 5)], rungs, Conditional(nn.Linear(3, 6), heads.Bernoulli(6)))


def binary() -> VAE:
    return plain(DISCRETE["bernoulli"].posterior(6), priors.Bernoulli(3), 3)


def classes() -> VAE:
    decoder = Conditional(nn.Sequential(nn.Flatten(), nn.Linear(6, 6)), heads.Bernoulli(6), event_dim=2)
    return VAE(priors.OneHot((2, 3)), DISCRETE["one_hot"].posterior(6), decoder)


def masked() -> VAE:
    likelihood = Conditional(nn.Linear(2 + 2, 6), heads.Bernoulli(6))
    return VAE(priors.StandardNormal(2), gaussian(6 + 6 + 2, 2), likelihood, view=with_mask_and_context, context=2)


def images(n: int) -> Batch:
    return Batch(torch.randint(0, 17, (n, *IMAGE)) / 16)


def vectors(n: int) -> Batch:
    return Batch(torch.bernoulli(torch.full((n, 6), 0.5)))


def incomplete(n: int) -> Batch:
    mask = torch.rand(n, 6) < 0.6
    return Batch(vectors(n).x.masked_fill(~mask, math.nan), torch.eye(2)[torch.randint(2, (n,))], mask)


MODELS: dict[str, tuple[Callable[[], LatentModel], Callable[[int], Batch]]] = {
    "mlp": (dense, images),
    "conv": (conv, images),
    "resnet": (resnet, images),
    "ladder": (ladder, vectors),
    "binary latents": (binary, vectors),
    "one-hot latents": (classes, vectors),
    "mask and context": (masked, incomplete),
}


class Fixed:
    """Noise as the exported score takes it: level by level from eps and u."""

    def __init__(self, **given: Tensor) -> None:
        self.left = {"normal": given.get("eps"), "uniform": given.get("u")}

    def __call__(self, kind: str, shape: tuple[int, ...], event_dim: int, like: Tensor) -> Tensor:
        left = self.left[kind]
        assert left is not None
        n = math.prod(shape[2:])
        self.left[kind] = left[..., n:]
        return left[..., :n].reshape(shape)


def session(folder: Path, part: str) -> Callable[..., dict[str, Tensor]]:
    """An exported file, by nothing but onnxruntime (or torch) and vaekit.json."""
    stated = json.loads((folder / "vaekit.json").read_text())["parts"][part]
    file = folder / stated["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == stated["sha256"]
    names, outputs = [one["name"] for one in stated["inputs"]], [one["name"] for one in stated["outputs"]]
    if file.suffix == ".pt2":
        module = torch.export.load(file).module()
        return lambda **feeds: dict(zip(outputs, module(*[feeds[name] for name in names]), strict=True))
    run = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [i.name for i in run.get_inputs()] == names and [o.name for o in run.get_outputs()] == outputs
    assert [i.shape for i in run.get_inputs()] == [one["shape"] for one in stated["inputs"]]

    def call(**feeds: Tensor) -> dict[str, Tensor]:
        found = run.run(None, {name: feeds[name].numpy() for name in names})
        return dict(zip(outputs, map(torch.from_numpy, found), strict=True))

    return call


def noises(folder: Path, n: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random eps and u of the shapes that vaekit.json states, for n examples."""
    inputs = json.loads((folder / "vaekit.json").read_text())["parts"]["score"]["inputs"]
    made = {}
    for one in inputs:
        if one["name"] in ("eps", "u"):
            shape = [n if size == "batch" else size for size in one["shape"]]
            made[one["name"]] = (torch.randn if one["name"] == "eps" else torch.rand)(shape, dtype=dtype)
    return made


def feeds(batch: Batch) -> dict[str, Tensor]:
    return {name: t for name, t in {"x": batch.x, "c": batch.c, "mask": batch.mask}.items() if t is not None}


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert float(((found - expected).abs() / expected.abs().clamp(min=1)).max()) <= tolerance


def agrees(model: LatentModel, make: Callable[[int], Batch], folder: Path, format: Any, parts: Sequence[Part] = PARTS) -> None:
    """The files equal the model's own embed, sample path and importance-weighted estimate, for other rows of another number."""
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnx is not installed")
    export(model, make(4), folder, format=format, samples=K, parts=parts)
    model.eval()
    files = {part: session(folder, part) for part in parts}
    for n in (7, 1):
        batch = make(n)
        if "encoder" in parts:
            near(next(iter(files["encoder"](**feeds(batch)).values())), model.embed(batch))
        if "decoder" in parts:
            t = model.infer(batch, 1)
            z = torch.cat([level[0].flatten(1) for level in t.z], -1)
            c = {} if batch.c is None else {"c": batch.c}
            near(next(iter(files["decoder"](z=z, **c).values())), centre(t.px)[0])
        if "score" in parts:
            eps = noises(folder, n)
            with noise.drawn_by(Fixed(**eps)):
                expected = iwae(model.infer(batch, K).log_w)
            near(files["score"](**feeds(batch), **eps)["log_px"], expected)


ONNX: dict[str, tuple[Part, ...]] = {
    "conv": ("decoder",),
    "resnet": ("encoder",),  # whose average is called "mean" by torch, as our output is
    "ladder": ("score",),
    "one-hot latents": ("score",),
}
"""What each adds to the others: a file takes a second or two to make."""
TORCH: dict[str, tuple[Part, ...]] = {
    "mlp": ("score",),
    "ladder": ("encoder", "decoder"),
    "binary latents": ("score",),
    "mask and context": ("decoder", "score"),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_equals_the_model(name: str, tmp_path: Path) -> None:
    make, data = MODELS[name]
    agrees(make(), data, tmp_path / "out", "onnx", ONNX[name])


@pytest.mark.parametrize("name", TORCH)
def test_torch_equals_the_model(name: str, tmp_path: Path) -> None:
    make, data = MODELS[name]
    agrees(make(), data, tmp_path / "out", "torch", TORCH[name])


def table(*columns: heads.Column) -> VAE:
    """A model of a table as the recipe for one's own makes it."""
    px = heads.Columns(columns)
    see = px.input_layer()
    encoder = nn.Sequential(see, nn.Linear(see.features, 4))
    decoder = Conditional(nn.Linear(2, px.features), px)
    return VAE(priors.StandardNormal(2), Conditional(encoder, heads.Gaussian(2)), decoder, view=with_mask)


NUMBER, CLASS = heads.Column("gaussian"), heads.Column("categorical", size=3)
TABLES = {
    "numbers alone": (NUMBER, heads.Column("student")),
    "classes alone": (CLASS, heads.Column("bernoulli")),
}


def table_rows(columns: Sequence[heads.Column], n: int) -> Batch:
    """Rows with values missing; of numbers some below 0."""
    x = torch.stack([torch.randn(n) if c == NUMBER else torch.randint(0, max(2, c.size), (n,)).float() for c in columns], 1)
    return Batch(x, mask=torch.rand(x.shape) < 0.7)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_as_a_file_of_torch(name: str, tmp_path: Path) -> None:
    columns = TABLES[name]  # and the encoder's file holds the decoder's tensors too
    agrees(table(*columns), lambda n: table_rows(columns, n), tmp_path / "out", "torch", ["encoder"])


def test_what_torch_cannot_save_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise RuntimeError("numel: integer\noverflow")

    monkeypatch.setattr(torch.export, "save", save)
    with pytest.raises(InputError, match=r"the encoder cannot be exported: torch cannot save it \(RuntimeError: numel: integer\)"):
        export(plain(), vectors(4), tmp_path / "out", format="torch", parts=["encoder"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format", "parts"), [("torch", PARTS), ("onnx", ("encoder",))])
def test_values_that_nobody_saw_are_no_codes(format: Any, parts: tuple[Part, ...], tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnx is not installed")
    columns = (NUMBER, CLASS, heads.Column("gaussian", scale=2.0))
    masks = SelfMasking(3, [0, 2])
    masks.scaled.copy_(torch.tensor([[-1.5, 0.8], [0.3, 1.0]]) / 10)
    model = NotAtRandom(table(*columns), masks).eval()
    folder = tmp_path / "out"
    export(model, table_rows(columns, 4), folder, format=format, samples=K, parts=parts)
    assert json.loads((folder / "vaekit.json").read_text())["levels"] == [
        {"event": [2], "posterior": "DiagGaussian", "prior": "DiagGaussian"}
    ]
    for n in (7, 1):
        batch = table_rows(columns, n)
        near(session(folder, "encoder")(**feeds(batch))["mean"], model.embed(batch))
        if parts == PARTS:
            near(session(folder, "decoder")(z=model.embed(batch))["centre"], model.reconstruct(batch))
            eps = noises(folder, n)
            assert {name: list(t.shape) for name, t in eps.items()} == {"eps": [K, n, 4]}  # of z, and of the numbers that may be unseen
            with noise.drawn_by(Fixed(**eps)):
                expected = iwae(model.infer(batch, K).log_w)
            near(session(folder, "score")(**feeds(batch), **eps)["log_px"], expected)


def test_parameters_are_those_of_q_and_p(tmp_path: Path) -> None:
    model, batch = ladder(), vectors(6)
    export(model, vectors(4), tmp_path / "out", parts=["encoder"], format="torch")
    found = session(tmp_path / "out", "encoder")(x=batch.x)
    with torch.no_grad():
        d = model.bottom_up[0](batch.x)
        top = model.rungs[0].posterior(model.bottom_up[1](d))
        below = model.rungs[1].posterior(torch.cat([top.mean, d], -1))
    near(found["mean"], torch.cat([top.mean, below.mean], -1))
    near(found["std"], torch.cat([top.scale, below.scale], -1))


def exact(model: LatentModel, x: Tensor, log_px: Tensor, folder: Path, format: Any, tolerance: float) -> None:
    """With the exact posterior every weight is p(x), whatever the noise."""
    export(model, Batch(x[:4]), folder, format=format, samples=K, parts=["score"])
    found = session(folder, "score")(x=x, **noises(folder, len(x), x.dtype))["log_px"]
    near(found, log_px, tolerance)


def test_the_score_with_the_exact_posterior_is_the_evidence(tmp_path: Path) -> None:
    flat, deep = PPCA(), LinearLadder()
    exact(flat.exact(), flat.x, flat.evidence(flat.x).detach(), tmp_path / "flat", "torch", 1e-12)
    exact(deep.exact(), deep.x, deep.evidence(deep.x).detach(), tmp_path / "deep", "torch", 1e-12)


def test_the_exact_score_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnx is not installed")
    flat = PPCA()
    exact(
        flat.exact(), flat.x, flat.evidence(flat.x).detach(), tmp_path / "flat", "onnx", 1e-7
    )  # torch writes numbers of Python in float32


def test_operations_that_onnx_lacks(tmp_path: Path) -> None:
    """lgamma of a count, and the triangular system of a full covariance."""
    likelihood, prior = LIKELIHOODS["negative_binomial"], priors.FullNormal(2)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5)
    model = VAE(prior, gaussian(2, 2), likelihood.conditional(2))
    agrees(model, lambda n: Batch(likelihood.data(n)), tmp_path / "out", "onnx", ["score"])


def test_cross_entropy_of_logits() -> None:
    """torch's own, in both precisions, where a sigmoid would have rounded to 0 or 1."""
    logits = torch.linspace(-300, 300, 2001, dtype=torch.float64)
    for x in (0.0, 0.3, 1.0):
        for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            a, b = logits.to(dtype), torch.full_like(logits, x, dtype=dtype)
            expected = nn.functional.binary_cross_entropy_with_logits(a, b, reduction="none")
            assert torch.allclose(cross_entropy_of_logits(a, b, reduction=0), expected, rtol=close, atol=close)
    with pytest.raises(NotImplementedError, match="weights or a reduction"):
        cross_entropy_of_logits(logits, logits)


def test_a_score_of_certain_pixels_is_finite(tmp_path: Path) -> None:
    """Logits far beyond 17, where 1 - sigmoid is 0 in float32: what a model of MNIST's black border learns."""
    model = plain()
    with torch.no_grad():
        model.likelihood.net.bias.copy_(torch.tensor([-150.0, -40.0, -18.0, 18.0, 40.0, 150.0]))
    made = export(model, Batch(torch.rand(5, 6)), tmp_path / "out", parts=["score"], samples=K)
    assert made.files[0].relative < 1e-6


def test_log_gamma() -> None:
    x = torch.cat([torch.linspace(0.01, 40, 4001, dtype=torch.float64), torch.logspace(1, 8, 50, dtype=torch.float64)])
    assert float(((log_gamma(x) - x.lgamma()) / x.lgamma().abs().clamp(min=1)).abs().max()) < 1e-14


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
def test_triangular_systems(upper: bool, left: bool, unitriangular: bool) -> None:
    a = torch.randn(3, 4, 4, dtype=torch.float64) + 3 * torch.eye(4, dtype=torch.float64)
    b = torch.randn((3, 4, 2) if left else (3, 2, 4), dtype=torch.float64)
    options = {"upper": upper, "left": left, "unitriangular": unitriangular}
    expected = torch.linalg.solve_triangular(a.triu() if upper else a.tril(), b, **options)
    torch.testing.assert_close(solve_triangular(a, b, **options), expected)


def test_no_rows_of_data_go_into_a_file(tmp_path: Path) -> None:
    probe = Batch(torch.rand(4, 6))
    export(plain(), probe, tmp_path / "out", format="torch", parts=["encoder"])
    with zipfile.ZipFile(tmp_path / "out" / "encoder.pt2") as archive:
        held = b"".join(archive.read(name) for name in archive.namelist())
    assert probe.x[0].numpy().tobytes() not in held


def test_the_file_is_the_same_function_each_time(tmp_path: Path) -> None:
    export(plain(), vectors(4), tmp_path / "out", format="torch", parts=["score"], samples=K)
    score, eps = session(tmp_path / "out", "score"), noises(tmp_path / "out", 5)
    x = vectors(5).x
    assert torch.equal(score(x=x, **eps)["log_px"], score(x=x, **eps)["log_px"])
    assert not torch.equal(score(x=x, **eps)["log_px"], score(x=x, **noises(tmp_path / "out", 5))["log_px"])


def test_the_model_and_its_random_numbers_are_left_as_they_were(tmp_path: Path) -> None:
    model = dense().train()
    state, weights = torch.get_rng_state(), {name: t.clone() for name, t in model.state_dict().items()}
    export(model, images_fixed(), tmp_path / "out", format="torch", samples=K, parts=["score"])
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())


def images_fixed() -> Batch:
    return Batch(torch.linspace(0, 1, 4 * 64).reshape(4, *IMAGE).mul(16).round() / 16)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Peeking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.sum())


class Counting(nn.Module):
    """Another result for another number of examples, which a graph cannot show."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (0.1 if x.shape[0] == 1 else 0.0)


REFUSED: dict[str, tuple[Callable[[], LatentModel], str]] = {
    "noise in a network": (lambda: plain(Conditional(nn.Sequential(nn.Linear(6, 4), Noisy()), heads.Gaussian(2))), "the encoder .*net.1"),
    "a look at values": (lambda: plain(Conditional(nn.Sequential(nn.Linear(6, 4), Peeking()), heads.Gaussian(2))), "the encoder .*torch"),
    "a point for q": (lambda: plain(Conditional(nn.Linear(6, 2), heads.Point(2))), "the score .*point"),
    "codes": (
        lambda: VAE(
            UniformCodes(FSQ((3, 3)), (3,)),
            Conditional(nn.Linear(6, 6), heads.Quantised(FSQ((3, 3)), (3,))),
            Conditional(nn.Sequential(nn.Flatten(), nn.Linear(6, 6)), heads.Bernoulli(6), event_dim=2),
        ),
        "the score .*certain of one code",
    ),
    "a mixture's choice": (lambda: plain(POSTERIORS["mixture_gaussian"](6, 2)), "the score .*Mixture draws random numbers of its own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as info:
        export(make(), vectors(4), tmp_path / "out", format="torch", samples=K, parts=[part for part in PARTS if f"the {part} " in words])
    assert "\n" not in str(info.value) and not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_file_that_differs_is_refused(tmp_path: Path) -> None:
    model = plain(Conditional(nn.Sequential(Counting(), nn.Linear(6, 4)), heads.Gaussian(2)))
    with pytest.raises(InputError, match=r"the encoder cannot be exported: .*(differs|torch)"):
        export(model, vectors(4), tmp_path / "out", format="torch", parts=["encoder"])
    with pytest.raises(InputError, match=r"log_px for 1 examples differs .* where -1 is accepted"):
        export(plain(), vectors(4), tmp_path / "out", format="torch", samples=K, parts=["score"], tolerance=-1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": ["encodr"]}, 'no part "encodr": did you mean "encoder"'),
        ({"parts": []}, "no part was asked for"),
        ({"format": "onxx"}, 'format "onxx": did you mean "onnx"'),
        ({"samples": 0}, "samples=0"),
    ],
)
def test_wrong_requests(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        export(plain(), vectors(4), tmp_path / "out", **({"format": "torch"} | options))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="already holds something"):
        export(plain(), vectors(4), tmp_path, format="torch")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekit.apps.export import writing

    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx, onnxscript, onnxruntime: pip install 'vaekit\[onnx\]'"):
        export(plain(), vectors(4), tmp_path / "out")
