"""Training: `fit` a model to data, with checkpoints that resume exactly. See `vaekit.train.loop`."""

from vaekit.train.adagrad import WarmAdagrad
from vaekit.train.checkpoint import Checkpoints, load_weights, save_weights
from vaekit.train.logs import CSV, Logger, TensorBoard, TextLog, read_csv
from vaekit.train.loop import Fitted, fit
from vaekit.train.process import Interrupted
from vaekit.train.settings import PRECISIONS, Training
from vaekit.train.step import Step

__all__ = [
    "CSV",
    "PRECISIONS",
    "Checkpoints",
    "Fitted",
    "Interrupted",
    "Logger",
    "Step",
    "TensorBoard",
    "TextLog",
    "Training",
    "WarmAdagrad",
    "fit",
    "load_weights",
    "read_csv",
    "save_weights",
]
