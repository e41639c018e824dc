"""Train networks block by block in PyTorch Lightning: Forward-Forward and its local-learning kin."""

from lightning_ff.augment import Compose, Cutout, RandomFlip, RandomShift
from lightning_ff.blocks import ConvNet, LocalBlock, Normalize, Partition, mlp, partition
from lightning_ff.callbacks import (
    BlockSummary,
    GoodnessMonitor,
    GreedySchedule,
    MineNegatives,
    MixNegatives,
    NegativePictures,
    PredictionWriter,
    RefreshNegatives,
    RunReport,
    SwitchNegatives,
    WindowSchedule,
)
from lightning_ff.checks import CorruptCheckpoint, NonFiniteLoss
from lightning_ff.hybrid import HybridImages
from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay, Unlabelled
from lightning_ff.learner import LocalLearner
from lightning_ff.loggers import log_figure
from lightning_ff.methods import Backprop, DeepSupervision, ForwardForward, ScalableForwardForward
from lightning_ff.negatives import AllWrongLabels, FixedPool, HardLabel, Mixture, NegativeSampler, WrongLabel
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import (
    AuxiliaryGoodness,
    CrossEntropy,
    Goodness,
    LinearGoodness,
    LocalLoss,
    LogSumExpMargin,
    MeanSquare,
    NormGoodness,
    OutputGoodness,
    PairLoss,
    PeerNormalization,
    SumSquare,
    SymBa,
    Term,
    ThresholdLoss,
)
from lightning_ff.optim import BlockOptimizers, CosineToEnd
from lightning_ff.readouts import (
    IntervalReadout,
    LastReadout,
    LinearReadout,
    MeanReadout,
    Readout,
    SoftmaxReadout,
    SumReadout,
)
from lightning_ff.sweep import Placement, Schedule

__version__ = "0.1.0"

__all__ = [
    "AllWrongLabels",
    "AppendOneHot",
    "AuxiliaryGoodness",
    "Backprop",
    "BlockOptimizers",
    "BlockSummary",
    "Compose",
    "ConvNet",
    "CorruptCheckpoint",
    "CosineToEnd",
    "CrossEntropy",
    "Cutout",
    "DeepSupervision",
    "FixedPool",
    "ForwardForward",
    "Goodness",
    "GoodnessMonitor",
    "GreedySchedule",
    "HardLabel",
    "HybridImages",
    "IntervalReadout",
    "LabelChannel",
    "LabelEncoding",
    "LastReadout",
    "LinearGoodness",
    "LinearReadout",
    "LocalBlock",
    "LocalLearner",
    "LocalLoss",
    "LocalNetwork",
    "LogSumExpMargin",
    "MeanReadout",
    "MeanSquare",
    "MineNegatives",
    "MixNegatives",
    "Mixture",
    "NegativePictures",
    "NegativeSampler",
    "NonFiniteLoss",
    "NormGoodness",
    "Normalize",
    "OutputGoodness",
    "PairLoss",
    "Partition",
    "PeerNormalization",
    "PixelOverlay",
    "Placement",
    "PredictionWriter",
    "RandomFlip",
    "RandomShift",
    "Readout",
    "RefreshNegatives",
    "RunReport",
    "ScalableForwardForward",
    "Schedule",
    "SoftmaxReadout",
    "SumReadout",
    "SumSquare",
    "SwitchNegatives",
    "SymBa",
    "Term",
    "ThresholdLoss",
    "Unlabelled",
    "WindowSchedule",
    "WrongLabel",
    "log_figure",
    "mlp",
    "partition",
]
