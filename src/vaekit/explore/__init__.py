"""A trained run as one page that opens from a file: its latent space as a map, its encoder and decoder running in the browser.

The page is made of assets that are built once from ``explorer/`` (``make explorer``) and shipped with the package, and of what `collect`
finds in a run: codes of up to 60,000 rows, their nats, a few images, and the model's parts as ONNX files (`vaekit.apps.export`), which
onnxruntime's WebAssembly build runs inside the page. It asks nobody for anything: its Content-Security-Policy forbids every request.

Making one needs the extra: ``pip install 'vaekit[onnx]'``. Opening one needs a browser of 2023 or newer.
"""

from vaekit.explore.contents import POINTS, Block, Contents, collect
from vaekit.explore.page import explore, html

__all__ = ["POINTS", "Block", "Contents", "collect", "explore", "html"]
