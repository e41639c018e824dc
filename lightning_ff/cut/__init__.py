"""Learners on a network that is cut into blocks: the model and its weights, the base class, and checks."""

from lightning_ff.cut.backbone import backbone
from lightning_ff.cut.cautions import check_extra, check_output, check_own, check_segments, check_terms
from lightning_ff.cut.cut_network import CutNetworkLearner, cut_network, loss_for, without_inner_goodness
from lightning_ff.cut.measured import Head, measured_blocks

__all__ = [
    "CutNetworkLearner",
    "Head",
    "backbone",
    "check_extra",
    "check_output",
    "check_own",
    "check_segments",
    "check_terms",
    "cut_network",
    "loss_for",
    "measured_blocks",
    "without_inner_goodness",
]
