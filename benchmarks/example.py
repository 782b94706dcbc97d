"""``mnist:example`` as a person runs it: train and evaluate through the command line, one run per seed.

The published figure is the test loss of pytorch/examples after epoch 10: -ELBO with the closed-form KL and one sample of z per image.
Ours is the same quantity, by `evaluate`: the mean of log w over the samples of z, whose expectation is the same.

Run: python -m benchmarks.example
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import write

SEEDS, SAMPLES = [0, 1, 2, 3, 4], 50


def vaekit(*words: str) -> str:
    code = "import sys; from vaekit.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout


def main() -> None:
    found, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            run = Path(folder) / str(seed)
            vaekit("train", "mnist:example", "--seed", str(seed), "--out", str(run))
            found.append(json.loads(vaekit("evaluate", str(run), "--samples", str(SAMPLES), "--json")))
            seconds.append(float((run / "metrics.csv").read_text().splitlines()[-1].rpartition(",")[2]))
            print(f"seed {seed}: -ELBO {-found[-1]['elbo']:.2f}, NLL({SAMPLES}) {found[-1]['nll']:.2f}, {seconds[-1]:.0f} s", flush=True)
    elbos, nlls = [-e["elbo"] for e in found], [e["nll"] for e in found]
    spread = statistics.stdev(elbos)
    write(
        "mnist/example",
        command="python -m benchmarks.example",
        seed=SEEDS,
        settings={"recipe": "mnist:example", "epochs": 10, "samples": SAMPLES, "examples": found[0]["examples"]},
        figures={
            "test_negative_elbo": {"value": statistics.mean(elbos), "error": spread / len(SEEDS) ** 0.5, "unit": "nats"},
            "test_negative_elbo_spread": {"value": spread, "error": None, "unit": "nats"},
            "standard_error_over_examples": {"value": found[0]["elbo_se"], "error": None, "unit": "nats"},
            f"test_nll_{SAMPLES}": {"value": statistics.mean(nlls), "error": statistics.stdev(nlls) / len(SEEDS) ** 0.5, "unit": "nats"},
            "training_seconds": {"value": statistics.median(seconds), "error": None, "unit": "s"},
        },
        published={
            "test_negative_elbo": {
                "value": 105.6,
                "tolerance": 0.3,
                "direction": "within",
                "source": "pytorch/examples vae/main.py, test loss after epoch 10 (105.56 to 105.61 over three runs)",
            }
        },
    )


if __name__ == "__main__":
    main()
