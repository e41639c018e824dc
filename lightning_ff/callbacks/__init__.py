"""Callbacks that change, watch or report a learner's training."""

from lightning_ff.callbacks.summary import BlockSummary

__all__ = ["BlockSummary"]
