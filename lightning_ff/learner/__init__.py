"""LocalLearner and its parts."""

from lightning_ff.learner.learner import LocalLearner
from lightning_ff.learner.resume import CorruptCheckpoint
from lightning_ff.learner.summary import BlockSummary

__all__ = ["BlockSummary", "CorruptCheckpoint", "LocalLearner"]
