"""What a block is trained for: goodness of its activation, a local loss on it, and additive terms."""

from lightning_ff.objectives.goodness import (
    Goodness,
    LinearGoodness,
    MeanSquare,
    Mode,
    NormGoodness,
    SumSquare,
    mean_square,
    norm_goodness,
    sum_square,
)
from lightning_ff.objectives.losses import (
    CrossEntropy,
    LocalLoss,
    PairLoss,
    SymBa,
    ThresholdLoss,
    symba_loss,
    threshold_loss,
)
from lightning_ff.objectives.terms import PeerNormalization, Term, peer_normalization

__all__ = [
    "CrossEntropy",
    "Goodness",
    "LinearGoodness",
    "LocalLoss",
    "MeanSquare",
    "Mode",
    "NormGoodness",
    "PairLoss",
    "PeerNormalization",
    "SumSquare",
    "SymBa",
    "Term",
    "ThresholdLoss",
    "mean_square",
    "norm_goodness",
    "peer_normalization",
    "sum_square",
    "symba_loss",
    "threshold_loss",
]
