"""What torch.compile may change: time, and rounding. Functions compiled here are small; each costs a second or two."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code

from vaekit import VAE, Conditional, Ladder, Rung, heads, priors
from vaekit.compiling import MANY, Compiled, _options
from vaekit.data.core import Split
from vaekit.dist import Bernoulli, bernoulli
from vaekit.errors import InputError
from vaekit.evaluate import evaluate, log_likelihood, stream
from vaekit.models import LatentModel


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled is left over, and a compiled decoder that another test broke is whole."""
    monkeypatch.setattr(stream, "_decode_compiled", Compiled(stream._decode))
    yield
    torch._dynamo.reset()


def pixels(d: int = 96) -> VAE:
    torch.manual_seed(0)
    return VAE(
        priors.StandardNormal(3),
        Conditional(nn.Linear(d, 6), heads.Gaussian(3)),
        Conditional(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, d)), heads.Bernoulli(d)),
    )


def decoded_rows(model: VAE) -> list[int]:
    """The rows of every call of the decoder that Python sees: those that were not compiled, and those traced."""
    seen: list[int] = []
    forward = model.likelihood.forward
    model.likelihood.forward = lambda z: (torch.compiler.is_compiling() or seen.append(z.shape[0] * z.shape[1]), forward(z))[1]  # type: ignore[method-assign, func-returns-value]
    return seen


def test_a_compiled_decoder_gives_the_same_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 100, 100 and 30 rows; 130 samples are 2 full tiles, in equal parts, and one of another size."""
    monkeypatch.setattr(bernoulli, "BLOCK", 1000)
    monkeypatch.setattr(stream, "CHUNK", 96 * 100 * 25)
    monkeypatch.setattr(stream, "ROWS", 5000)
    model, split = pixels(), Split(torch.rand(230, 96))
    plain = log_likelihood(model, split, samples=130, compile=False)
    seen = decoded_rows(model)
    fast = log_likelihood(model, split, samples=130, compile=True)
    assert not stream._decode_compiled.failed
    assert sum(seen) == 230 + 2 * 100 * (130 % 50 % 25) + 30 * 130  # the block's centre; the odd part of a tile; the odd block
    for name, rtol in (("log_px", 1e-6), ("mc_se", 1e-4), ("ess", 1e-4), ("k_hat", 1e-2)):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=rtol, atol=0)
    assert torch.equal(fast.log_px, log_likelihood(model, split, samples=130, compile=True).log_px)
    assert torch.equal(fast.log_px[200:], plain.log_px[200:])  # which ran as it was


def test_compiled_where_the_work_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model, split, calls = pixels(), Split(torch.rand(100, 96)), []
    monkeypatch.setattr(stream, "_decode_compiled", lambda *args: (calls.append(1), stream._decode(*args))[1])
    monkeypatch.setattr(stream, "WORTH", 96 * 100 * 20)
    for samples, some in ((19, False), (20, True)):
        for estimate in (log_likelihood, evaluate):
            calls.clear()
            estimate(model, split, samples=samples)
            assert bool(calls) == some, (samples, estimate)
    assert not stream.worth_compiling(model, split, 19) and stream.worth_compiling(model, split, 20)


def test_nan_from_the_compiled_decoder_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite logit leaves 0 * inf in the compiled formula, where the plain one may know better."""
    model, split = pixels(), Split(torch.rand(100, 96))
    plain = log_likelihood(model, split, samples=50, compile=False)
    monkeypatch.setattr(stream, "_decode_compiled", lambda *args: stream._decode(*args) * torch.tensor([1.0, math.nan] * 50))
    assert torch.equal(plain.log_px, log_likelihood(model, split, samples=50, compile=True).log_px)


def test_models_that_are_not_flat_run_as_they_are() -> None:
    torch.manual_seed(0)
    model: LatentModel = Ladder(
        [nn.Linear(5, 4), nn.Linear(4, 4)],
        [
            Rung(priors.StandardNormal(2), Conditional(nn.Linear(4, 4), heads.Gaussian(2))),
            Rung(Conditional(nn.Linear(2, 4), heads.Gaussian(2)), Conditional(nn.Linear(6, 4), heads.Gaussian(2))),
        ],
        Conditional(nn.Linear(2, 5), heads.Bernoulli(5)),
    )
    split = Split(torch.rand(100, 5).round())
    assert torch.equal(*(log_likelihood(model, split, samples=20, compile=c).log_px for c in (True, False)))
    with pytest.raises(InputError, match=r'method="ais", compile=True\): chains are not compiled'):
        log_likelihood(pixels(), Split(torch.rand(5, 96)), method="ais", compile=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_formula_of_a_bernoulli(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against binary_cross_entropy_with_logits in float64, with logits in the hundreds and broadcast data."""
    monkeypatch.setattr(bernoulli, "BLOCK", 100)
    logits = torch.randn(4, 3, 2, 49, dtype=dtype) * torch.tensor([1.0, 10.0, 300.0]).view(3, 1, 1)
    x = torch.rand(3, 2, 49, dtype=dtype)
    log_prob = Compiled(lambda logits, x: Bernoulli(logits, 2).log_prob(x))
    with torch.no_grad():
        found = log_prob(logits, x)
    wide, target = logits.double(), x.double().expand_as(logits)
    exact = -nn.functional.binary_cross_entropy_with_logits(wide, target, reduction="none").sum((-1, -2))
    assert found.dtype == dtype and not log_prob.failed
    torch.testing.assert_close(found.double(), exact, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-4 * (dtype == torch.float32))


# --- Compiled -----------------------------------------------------------------------------------------------------------------------------


def test_noise_is_that_of_the_function() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + torch.randn(7, 5).exp() * torch.rand(5)

    x, fast = torch.zeros(7, 5), Compiled(noisy)
    fast(x)
    torch.manual_seed(1)
    want = noisy(x), noisy(x), torch.rand(2)
    torch.manual_seed(1)
    torch.testing.assert_close((fast(x), fast(x), torch.rand(2)), want)
    assert not fast.failed


def test_the_bias_is_added_afterwards() -> None:
    linear, x = nn.Linear(30, 40), torch.randn(50, 30)

    def layer(x: Tensor) -> Tensor:
        return linear(x).relu()

    with torch.no_grad():
        fast = torch.compile(layer, dynamic=False, options=_options())
        found, (code,) = run_and_get_code(fast, x)
        torch.testing.assert_close(found, layer(x))
        _, (plain,) = run_and_get_code(torch.compile(lambda x: layer(x), dynamic=False), x)
    assert "extern_kernels.mm(" in code and "addmm" not in code
    assert "addmm" in plain  # or there is nothing to mend any more


def test_the_gradient_of_a_bias_is_a_product() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(30, 40), torch.randn(MANY, 30)

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(linear(x).tanh().square().sum(), tuple(linear.parameters()))

    fast = Compiled(gradients, differentiates=True)
    found, (code,) = run_and_get_code(fast, x)
    assert not fast.failed and code.count("extern_kernels.mm(") == 3
    for a, b in zip(found, gradients(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    few = Compiled(gradients, differentiates=True)
    _, (code,) = run_and_get_code(few, x[1:])
    assert code.count("extern_kernels.mm(") == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_hyperbolic_tangent(dtype: torch.dtype) -> None:
    """Against float64 without a program, over all sizes, infinities among them."""
    x = torch.cat([torch.logspace(-30, 3, 500, dtype=torch.float64), torch.tensor([0.0, math.inf])])
    x = torch.cat([x, -x])
    found = Compiled(torch.tanh)(x.to(dtype))
    torch.testing.assert_close(found.double(), x.tanh(), rtol=0, atol=2e-7 if dtype == torch.float32 else 1e-15)


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once() -> None:
    def branch(x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x - 1

    fast = Compiled(branch)
    with pytest.warns(UserWarning, match=r"^branch was not compiled and runs as it is, slower: "):
        assert fast(torch.ones(2)).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fast(-torch.ones(2)).tolist() == [-2, -2]
    assert fast.failed and fast.function is branch


def test_without_a_compiler() -> None:
    """In a process of its own, for torch remembers what it found out about compilers."""
    code = (
        "import time, warnings, torch; from vaekit.compiling import Compiled; warnings.simplefilter('ignore');"
        "factor, said = time.time(), []; fast = Compiled(lambda x: (x * factor).sin(), note=said.append); x = torch.ones(9);"
        "torch.testing.assert_close(fast(x), (x * factor).sin()); print(fast.failed, *said)"
    )
    environment = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("True <lambda> was not compiled and runs as it is, slower: ")


def test_more_shapes_than_torch_keeps_programs_for() -> None:
    said: list[str] = []
    fast = Compiled(lambda x: (x * 2).sum(), note=said.append)
    assert [float(fast(torch.ones(n))) for n in range(2, 14)] == [2.0 * n for n in range(2, 14)]
    assert said == [] and not fast.failed


def test_an_error_is_the_functions_own() -> None:
    def wrong(x: Tensor) -> Tensor:
        raise InputError("no")

    with pytest.raises(InputError, match="^no$"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Compiled(wrong)(torch.ones(2))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_differentiated_likelihood_is_taken_by_products(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient of log p(x | z) in a program, of K samples of each example, against float64 without one."""
    torch.manual_seed(0)
    logits, x, weight = scale * torch.randn(3, 5, 2, 48), torch.rand(5, 2, 48), torch.randn(3, 5)
    used: list[int] = []
    products = bernoulli._log_prob_by_products
    monkeypatch.setattr(bernoulli, "_log_prob_by_products", lambda *args: (used.append(1), products(*args))[1])  # type: ignore[func-returns-value]

    def of(logits: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.detach().requires_grad_()
        log_p = Bernoulli(logits, 2).log_prob(x)
        (grad,) = torch.autograd.grad((weight * log_p).sum(), logits)
        return log_p.detach(), grad

    log_p, grad = Compiled(of, differentiates=True)(logits, x, weight)
    assert used, "the single logarithms were kept"
    exact, exact_grad = of(logits.double(), x.double(), weight.double())
    torch.testing.assert_close(log_p.double(), exact, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-5, atol=1e-6)
