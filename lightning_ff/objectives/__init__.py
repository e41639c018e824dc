"""Objectives of a block: goodness of its activation, a local loss on the goodness, and additive terms."""

from lightning_ff.objectives.class_goodness import (
    AuxiliaryGoodness,
    OutputGoodness,
    gram_goodness,
    projected_goodness,
)
from lightning_ff.objectives.class_losses import CrossEntropy, LogSumExpMargin, log_sum_exp_loss
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
    LocalLoss,
    PairLoss,
    SymBa,
    ThresholdLoss,
    symba_loss,
    threshold_loss,
)
from lightning_ff.objectives.terms import ActivationPenalty, PeerNormalization, Term, peer_normalization

__all__ = [
    "ActivationPenalty",
    "AuxiliaryGoodness",
    "CrossEntropy",
    "Goodness",
    "LinearGoodness",
    "LocalLoss",
    "LogSumExpMargin",
    "MeanSquare",
    "Mode",
    "NormGoodness",
    "OutputGoodness",
    "PairLoss",
    "PeerNormalization",
    "SumSquare",
    "SymBa",
    "Term",
    "ThresholdLoss",
    "gram_goodness",
    "log_sum_exp_loss",
    "mean_square",
    "norm_goodness",
    "peer_normalization",
    "projected_goodness",
    "sum_square",
    "symba_loss",
    "threshold_loss",
]
