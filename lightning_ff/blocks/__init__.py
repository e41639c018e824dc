"""Blocks: the units of local learning, and networks to cut into blocks."""

from lightning_ff.blocks.convnet import ConvNet
from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.blocks.mlp import MLP, FullGradientReLU, mlp
from lightning_ff.blocks.noise import GaussianNoise
from lightning_ff.blocks.normalization import GroupNormalize, Normalize
from lightning_ff.blocks.partition import Partition, partition
from lightning_ff.blocks.residual_mlp import ResidualMLP

__all__ = [
    "MLP",
    "ConvNet",
    "FullGradientReLU",
    "GaussianNoise",
    "GroupNormalize",
    "LocalBlock",
    "Normalize",
    "Partition",
    "ResidualMLP",
    "mlp",
    "partition",
]
