"""Objectives of a block: goodness of its activation, a local loss on the goodness, and additive terms."""

from lightning_ff.objectives.channel_goodness import ChannelGoodness, CosineGoodness, channel_goodness
from lightning_ff.objectives.class_goodness import AuxiliaryGoodness, OutputGoodness, gram_goodness, projected_goodness
from lightning_ff.objectives.class_losses import CrossEntropy, LogSumExpMargin, log_sum_exp_loss
from lightning_ff.objectives.competition import OwnAgainstOthers, WeightedLosses
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
from lightning_ff.objectives.heads import ConvHead, PooledLinear, position_mean
from lightning_ff.objectives.losses import LocalLoss, PairLoss, SymBa, ThresholdLoss, symba_loss, threshold_loss
from lightning_ff.objectives.projection_losses import Sparsemax, SquaredError, sparsemax
from lightning_ff.objectives.reconstruction import Reconstruction
from lightning_ff.objectives.similarity import SimilarityMatching, similarity
from lightning_ff.objectives.solved_goodness import SolvedGoodness
from lightning_ff.objectives.terms import (
    ActivationPenalty,
    PeerNormalization,
    Term,
    TransportCost,
    peer_normalization,
    transport_cost,
)

__all__ = [
    "ActivationPenalty",
    "AuxiliaryGoodness",
    "ChannelGoodness",
    "ConvHead",
    "CosineGoodness",
    "CrossEntropy",
    "Goodness",
    "LinearGoodness",
    "LocalLoss",
    "LogSumExpMargin",
    "MeanSquare",
    "Mode",
    "NormGoodness",
    "OutputGoodness",
    "OwnAgainstOthers",
    "PairLoss",
    "PeerNormalization",
    "PooledLinear",
    "Reconstruction",
    "SimilarityMatching",
    "SolvedGoodness",
    "Sparsemax",
    "SquaredError",
    "SumSquare",
    "SymBa",
    "Term",
    "ThresholdLoss",
    "TransportCost",
    "WeightedLosses",
    "channel_goodness",
    "gram_goodness",
    "log_sum_exp_loss",
    "mean_square",
    "norm_goodness",
    "peer_normalization",
    "position_mean",
    "projected_goodness",
    "similarity",
    "sparsemax",
    "sum_square",
    "symba_loss",
    "threshold_loss",
    "transport_cost",
]
