"""Negative samplers (pair mode)."""

from lightning_ff.negatives.all_wrong_labels import AllWrongLabels
from lightning_ff.negatives.base import NegativeContext, NegativeSampler, load_state
from lightning_ff.negatives.fixed_pool import FixedPool
from lightning_ff.negatives.hard_label import HardLabel, hard_labels
from lightning_ff.negatives.hybrid import HybridImages, blurred_masks
from lightning_ff.negatives.mixture import Mixture, check_weights
from lightning_ff.negatives.pairs import check_sampler, default_sampler, pairs
from lightning_ff.negatives.wrong_label import WrongLabel, wrong_labels

__all__ = [
    "AllWrongLabels",
    "FixedPool",
    "HardLabel",
    "HybridImages",
    "Mixture",
    "NegativeContext",
    "NegativeSampler",
    "WrongLabel",
    "blurred_masks",
    "check_sampler",
    "check_weights",
    "default_sampler",
    "hard_labels",
    "load_state",
    "pairs",
    "wrong_labels",
]
