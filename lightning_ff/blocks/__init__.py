"""Blocks: the units that learn on their own, and ready-made stacks of them."""

from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.blocks.mlp import FullGradientReLU, mlp
from lightning_ff.blocks.normalization import Normalize

__all__ = ["FullGradientReLU", "LocalBlock", "Normalize", "mlp"]
