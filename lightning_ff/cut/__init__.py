"""Learners on a network that is cut into blocks: the model and its weights, the base class, and checks."""

from lightning_ff.cut.backbone import backbone
from lightning_ff.cut.cautions import check_extra, check_output, check_segments, warn_of_one_block
from lightning_ff.cut.cut_network import CutNetworkLearner, cut_network, loss_for, without_inner_goodness

__all__ = [
    "CutNetworkLearner",
    "backbone",
    "check_extra",
    "check_output",
    "check_segments",
    "cut_network",
    "loss_for",
    "warn_of_one_block",
    "without_inner_goodness",
]
