"""Callbacks that change, monitor or report a learner's training."""

from lightning_ff.callbacks.ensembles import EnsembleMonitor
from lightning_ff.callbacks.goodness import GoodnessMonitor
from lightning_ff.callbacks.ilt import ILT
from lightning_ff.callbacks.mine import MineNegatives
from lightning_ff.callbacks.mix import MixNegatives
from lightning_ff.callbacks.pictures import NegativePictures
from lightning_ff.callbacks.predictions import PredictionWriter
from lightning_ff.callbacks.probes import ProbeMonitor
from lightning_ff.callbacks.refresh import RefreshNegatives
from lightning_ff.callbacks.report import RunReport
from lightning_ff.callbacks.schedule import GreedySchedule, WindowSchedule
from lightning_ff.callbacks.sparsity import SparsityMonitor
from lightning_ff.callbacks.switch import SwitchNegatives
from lightning_ff.learner.summary import BlockSummary

__all__ = [
    "ILT",
    "BlockSummary",
    "EnsembleMonitor",
    "GoodnessMonitor",
    "GreedySchedule",
    "MineNegatives",
    "MixNegatives",
    "NegativePictures",
    "PredictionWriter",
    "ProbeMonitor",
    "RefreshNegatives",
    "RunReport",
    "SparsityMonitor",
    "SwitchNegatives",
    "WindowSchedule",
]
