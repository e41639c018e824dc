"""One optimizer and one learning-rate scheduler per block."""

from lightning_ff.optim.block_optimizers import BlockOptimizers
from lightning_ff.optim.by_shape import ByShape
from lightning_ff.optim.factory import default_rate, make_optimizers
from lightning_ff.optim.schedulers import BlockSchedulers, CosineToEnd, run_length

__all__ = [
    "BlockOptimizers",
    "BlockSchedulers",
    "ByShape",
    "CosineToEnd",
    "default_rate",
    "make_optimizers",
    "run_length",
]
