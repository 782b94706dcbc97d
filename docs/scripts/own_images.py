"""Train a model of the images in a folder, and look at what it learned."""

from pathlib import Path

import numpy as np
from PIL import Image

from vaekit import commands

folder = Path("my-images")  # your own folder here: .png or .jpg, all of one size

if not folder.exists():  # 400 images to try it with: a bright spot on a dark ground
    folder.mkdir()
    random = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    for n in range(400):
        y, x = random.uniform(3, 8, size=2)
        spot = 220 * np.exp(-((row - y) ** 2 + (column - x) ** 2) / 6)
        grey = (spot + random.normal(10, 3, size=(12, 12))).clip(0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{n}.png")

# Eight in ten images are trained on, one in ten decides when to stop, and one in
# ten is for the test. Leave out all but the path for settings that train longer.
settings = {"path": str(folder), "latent": 4, "lr": 3e-3, "epochs": 25, "batch_size": 32}
run = commands.train("own:images", settings, say=print)
result = commands.evaluate(run, samples=100)  # of the test images
_, samples = commands.sample(run)
report = commands.report(run)

nll = f"{result.nll:.1f} +- {result.nll_se:.1f}"
print(f"{result.examples} test images: -log p(x) is at most {nll} nats an image")
print(f"that is {result.bits_per_dim:.2f} bits for a number that takes 8 as a byte")
print(f"new images: {samples}")
print(f"open in a browser: {report}")
