"""Train networks block by block in PyTorch Lightning: Forward-Forward and its local-learning kin."""

from lightning_ff import _moved
from lightning_ff.augment import Compose, Cutout, RandomFlip, RandomShift
from lightning_ff.blocks import MLP, ConvNet, LocalBlock, Normalize, Partition, mlp, partition
from lightning_ff.callbacks import (
    BlockSummary,
    EnsembleMonitor,
    GoodnessMonitor,
    GreedySchedule,
    MineNegatives,
    MixNegatives,
    NegativePictures,
    PredictionWriter,
    ProbeMonitor,
    RefreshNegatives,
    RunReport,
    SparsityMonitor,
    SwitchNegatives,
    WindowSchedule,
)
from lightning_ff.credit import ActivationRelaxation, Credit
from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay, Unlabelled
from lightning_ff.learner import CorruptCheckpoint, LocalLearner
from lightning_ff.loggers import log_figure
from lightning_ff.methods import Backprop, DeepSupervision, ForwardForward, ScalableForwardForward
from lightning_ff.negatives import (
    AllWrongLabels,
    FixedPool,
    HardLabel,
    HybridImages,
    Mixture,
    NegativeContext,
    NegativeSampler,
    WrongLabel,
)
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import (
    ActivationPenalty,
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
from lightning_ff.optim import BlockOptimizers, ByShape, CosineToEnd
from lightning_ff.readouts import (
    IntervalReadout,
    LastReadout,
    LinearReadout,
    MeanReadout,
    Readout,
    SoftmaxReadout,
    SumReadout,
)
from lightning_ff.stage import Stage
from lightning_ff.strategies import LocalDDPStrategy, LocalFSDP2Strategy, LocalPipelineStrategy
from lightning_ff.sweep import NonFiniteLoss, Schedule, Sweep, SweepResult
from lightning_ff.target import Labels, Pairs
from lightning_ff.trust import UntrustedCheckpoint

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "ActivationPenalty",
    "ActivationRelaxation",
    "AllWrongLabels",
    "AppendOneHot",
    "AuxiliaryGoodness",
    "Backprop",
    "BlockOptimizers",
    "BlockSummary",
    "ByShape",
    "Compose",
    "ConvNet",
    "CorruptCheckpoint",
    "CosineToEnd",
    "Credit",
    "CrossEntropy",
    "Cutout",
    "DeepSupervision",
    "EnsembleMonitor",
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
    "Labels",
    "LastReadout",
    "LinearGoodness",
    "LinearReadout",
    "LocalBlock",
    "LocalDDPStrategy",
    "LocalFSDP2Strategy",
    "LocalLearner",
    "LocalLoss",
    "LocalNetwork",
    "LocalPipelineStrategy",
    "LogSumExpMargin",
    "MeanReadout",
    "MeanSquare",
    "MineNegatives",
    "MixNegatives",
    "Mixture",
    "NegativeContext",
    "NegativePictures",
    "NegativeSampler",
    "NonFiniteLoss",
    "NormGoodness",
    "Normalize",
    "OutputGoodness",
    "PairLoss",
    "Pairs",
    "Partition",
    "PeerNormalization",
    "PixelOverlay",
    "PredictionWriter",
    "ProbeMonitor",
    "RandomFlip",
    "RandomShift",
    "Readout",
    "RefreshNegatives",
    "RunReport",
    "ScalableForwardForward",
    "Schedule",
    "SoftmaxReadout",
    "SparsityMonitor",
    "Stage",
    "SumReadout",
    "SumSquare",
    "Sweep",
    "SweepResult",
    "SwitchNegatives",
    "SymBa",
    "Term",
    "ThresholdLoss",
    "Unlabelled",
    "UntrustedCheckpoint",
    "WindowSchedule",
    "WrongLabel",
    "log_figure",
    "mlp",
    "partition",
]

_moved.install()
