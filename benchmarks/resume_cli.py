"""The command line killed again and again: ``vaekit train digits`` with SIGKILLs at random moments, from the first import to the end,
each followed by the same command with ``--resume``, must end with the file of weights of a run that was left alone.

Run: python -m benchmarks.resume_cli
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import write

KILLS, EPOCHS, SEED = 20, 250, 0
CODE = "import sys; from vaekit.cli import main; sys.exit(main())"


def start(run: Path) -> subprocess.Popen[bytes]:
    words = ["train", "digits", "--epochs", str(EPOCHS), "--hidden", "64", "--device", "cpu", "--out", str(run)]
    resume = ["--resume"] if (run / "run.json").exists() else []
    return subprocess.Popen([sys.executable, "-c", CODE, *words, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs_done(run: Path) -> int:
    return max(0, (run / "metrics.csv").read_text().count("\n") - 1) if (run / "metrics.csv").exists() else 0


def main() -> int:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        begun = time.monotonic()
        if start(whole).wait() != 0:
            raise RuntimeError("the run that is left alone failed")
        seconds = time.monotonic() - begun
        at: list[int] = []
        while len(at) < KILLS:
            process = start(broken)
            time.sleep(rng.uniform(0, 0.3 * seconds))  # starting takes a good part of it: some kills fall there
            process.kill()
            if process.wait() == 0:
                raise RuntimeError(f"the run ended before kill {len(at) + 1}: ask for more epochs")
            at.append(epochs_done(broken))
            print(f"kill {len(at)}: after {at[-1]} of {EPOCHS} epochs", flush=True)
        if start(broken).wait() != 0:
            raise RuntimeError("the run could not be resumed")
        same = (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    write(
        "resume/command-line",
        command="python -m benchmarks.resume_cli",
        seed=SEED,
        settings={"recipe": "digits", "epochs": EPOCHS, "kills": KILLS, "epochs_done_at_kills": at},
        figures={"differing_bytes_or_more": {"value": 0 if same else 1, "error": None, "unit": "0 means identical files"}},
        published={
            "differing_bytes_or_more": {"value": 0, "tolerance": 0, "direction": "at_most", "source": "the project's own requirement"}
        },
    )
    print("identical" if same else "DIFFERENT")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
