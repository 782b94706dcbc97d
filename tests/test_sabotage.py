"""The tests bite: each of these faults, put into a copy of the package on purpose, must fail the oracle tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAULTS = {
    "the sign of the KL": (
        "objectives/elbo.py",
        "bound = (log_px - rate.sum(-1))",
        "bound = (log_px + rate.sum(-1))",
        "test_elbo_is_unbiased",
    ),
    "the sign of the KL in the surrogate": (
        "objectives/elbo.py",
        "self.penalty(rate, step) - log_px",
        "-self.penalty(rate, step) - log_px",
        "test_elbo_gradients_are_unbiased",
    ),
    "a mean over pixels for a sum": (
        "dist/gaussian.py",
        "return sum_event(log_prob_parts(self, value), len(self.event_shape))",
        "return log_prob_parts(self, value).flatten(-len(self.event_shape)).mean(-1)",
        "test_exact_posterior_makes_log_w_the_evidence",
    ),
    "the softmax over examples for one over samples": (
        "bounds.py",
        "return logmeanexp(log_w, 0)",
        "return log_w.mean(0) + logmeanexp(log_w - log_w.mean(0), 1).mean()",
        "test_iwae_two_samples_against_quadrature",
    ),
    "a level's prior not conditioned on the one above": (
        "models/ladder.py",
        "rung.prior(above)",
        "rung.prior(torch.zeros_like(above))",
        "test_exact_posterior_makes_log_w_the_evidence",
    ),
    "the mask ignored": (
        "models/core.py",
        "log_prob_observed(self.px, batch.x, batch.mask)",
        "log_prob_observed(self.px, batch.input, None)",
        "test_masked_log_w_is_the_evidence_of_the_observed_entries",
    ),
}


def run(source: Path, test: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, vaekit, pytest; print(vaekit.__file__); sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "--rootdir", str(ROOT), "-k", test]
    path = os.pathsep.join([str(source), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests" / "test_oracles.py"), *options],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_each_fault_fails_its_test(fault: str | None, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    test = " or ".join({name for *_, name in FAULTS.values()})
    if fault is not None:
        file, right, wrong, test = FAULTS[fault]
        target = tmp_path / "src" / "vaekit" / file
        text = target.read_text()
        assert text.count(right) == 1, f"{file} no longer contains the line to break"
        target.write_text(text.replace(right, wrong))
    done = run(tmp_path / "src", test)
    assert str(tmp_path) in done.stdout, done.stderr  # the copy was tested, not the installed package
    if fault is None:
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode == 1, done.stdout
        assert re.search(rf"FAILED \S*{test}", done.stdout), done.stdout
