"""Train a model of the images in a folder, and look at what it learned."""

from pathlib import Path

import numpy as np
from PIL import Image

from vaekit import commands

folder = Path("my-images")  # put the path of your own folder here: .png or .jpg files, all of one size

if not folder.exists():  # 400 images to try it with: a bright spot somewhere on a dark square of 12 x 12 pixels
    folder.mkdir()
    random = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    for n in range(400):
        y, x = random.uniform(3, 8, size=2)
        spot = 220 * np.exp(-((row - y) ** 2 + (column - x) ** 2) / 6) + random.normal(10, 3, size=(12, 12))
        Image.fromarray(spot.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")

# Eight in ten images are trained on, one in ten decides when to stop, and one in ten is kept for the test.
settings = {"path": str(folder), "latent": 4, "lr": 3e-3, "epochs": 25, "batch_size": 32}
run = commands.train("own:images", settings, say=print)
result = commands.evaluate(run, samples=100)  # of the test images, which training has not seen
_, samples = commands.sample(run)
report = commands.report(run)

print(f"{result.examples} test images: -log p(x) is at most {result.nll:.1f} +- {result.nll_se:.1f} nats an image")
print(f"that is {result.bits_per_dim:.2f} bits a pixel and colour, where a file of bytes takes 8")
print(f"new images: {samples}")
print(f"open in a browser: {report}")
