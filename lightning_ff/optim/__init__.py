"""One optimizer and one learning-rate scheduler per block."""

from lightning_ff.optim.block_optimizers import BlockOptimizers
from lightning_ff.optim.schedulers import BlockSchedulers, CosineToEnd

__all__ = ["BlockOptimizers", "BlockSchedulers", "CosineToEnd"]
