"""What the distribution objects cost: an eager training step of ``mnist:example`` against the same step written by hand.

Both take the same weights, batches, Adam and noise; steps alternate in blocks (A B A B ...), and the figure is the median over blocks of
the ratio of their times. Run: python -m benchmarks.objects
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.record import write
from vaekit import Batch
from vaekit.recipes.mnist import example
from vaekit.train.step import Step

BLOCKS, STEPS, BATCH = 61, 100, 128


class ByHand(nn.Module):
    """784-400-20 as in pytorch/examples, in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1, self.encode2 = nn.Linear(784, 400), nn.Linear(400, 40)
        self.decode1, self.decode2 = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        mu, log_variance = self.encode2(torch.relu(self.encode1(x))).chunk(2, -1)
        z = mu + torch.exp(0.5 * log_variance) * torch.randn_like(mu)
        logits = self.decode2(torch.relu(self.decode1(z)))
        bce = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_variance - mu.square() - log_variance.exp())
        return (bce + kl) / len(x)


def main() -> None:
    torch.manual_seed(0)
    recipe = example()
    ours, hand = Step(recipe.model, recipe.objective), ByHand()
    sources = [p for p in recipe.model.parameters() if p.numel() > 1]
    with torch.no_grad():
        for target, source in zip(hand.parameters(), sources, strict=True):
            target.copy_(source)
    x = torch.rand(64, BATCH, 1, 28, 28)
    optimisers = {"ours": recipe.training.optimiser(ours.parameters()), "hand": recipe.training.optimiser(hand.parameters())}

    def step(which: str, i: int) -> float:
        batch = x[i % len(x)]
        loss = ours(Batch(batch), i).surrogate.mean() if which == "ours" else hand(batch)
        optimisers[which].zero_grad()
        loss.backward()
        optimisers[which].step()
        return float(loss.detach())

    torch.manual_seed(1)
    first = step("ours", 0)
    torch.manual_seed(1)
    assert abs(first - step("hand", 0)) < 1e-3 * abs(first), "the two steps must compute the same loss"
    times: dict[str, list[float]] = {"ours": [], "hand": []}
    for block in range(BLOCKS):
        for which in ("ours", "hand") if block % 2 else ("hand", "ours"):
            start = time.perf_counter()
            for i in range(STEPS):
                step(which, i)
            times[which].append((time.perf_counter() - start) / STEPS)
    ratios = [a / b for a, b in zip(times["ours"], times["hand"], strict=True)][1:]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ms = {which: 1e3 * statistics.median(values[1:]) for which, values in times.items()}
    write(
        "speed/distribution-objects",
        command="python -m benchmarks.objects",
        seed=0,
        settings={"blocks": BLOCKS - 1, "steps_per_block": STEPS, "batch": BATCH, "threads": torch.get_num_threads()},
        figures={
            "ratio": {"value": middle, "error": (high - low) / 2, "unit": "times the step by hand"},
            "vaekit_ms": {"value": ms["ours"], "error": None, "unit": "ms"},
            "by_hand_ms": {"value": ms["hand"], "error": None, "unit": "ms"},
        },
        published={"ratio": {"value": 1.1, "tolerance": 0.0, "direction": "at_most", "source": "the project's own limit: 10% of a step"}},
    )
    print(f"vaekit {ms['ours']:.3f} ms, by hand {ms['hand']:.3f} ms a step; ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
