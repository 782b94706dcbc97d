"""Plain networks ``[N, *] -> [N, *]``; they know nothing of distributions. Any ``torch.nn.Module`` will do in their place."""

from vaekit.nn.columns import ColumnsInput, LogCounts, PassLast
from vaekit.nn.conv import conv_decoder, conv_encoder
from vaekit.nn.init import glorot_, lecun_
from vaekit.nn.masked import CausalTransformer
from vaekit.nn.mlp import Flatten, Layer, mlp
from vaekit.nn.resnet import ResidualBlock, resnet_decoder, resnet_encoder
from vaekit.nn.vq import vq_decoder, vq_encoder

__all__ = [
    "CausalTransformer",
    "ColumnsInput",
    "Flatten",
    "Layer",
    "LogCounts",
    "PassLast",
    "ResidualBlock",
    "conv_decoder",
    "conv_encoder",
    "glorot_",
    "lecun_",
    "mlp",
    "resnet_decoder",
    "resnet_encoder",
    "vq_decoder",
    "vq_encoder",
]
