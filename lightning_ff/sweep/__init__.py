"""The one training loop, in plain torch: what learns from a batch, in which order, and from what."""

from lightning_ff.sweep.finite import NonFiniteLoss
from lightning_ff.sweep.schedule import Schedule, Windows
from lightning_ff.sweep.segments import Objective, Segment, make_segments
from lightning_ff.sweep.store import KeptOutputs
from lightning_ff.sweep.sweep import Start, Sweep, SweepResult

__all__ = [
    "KeptOutputs",
    "NonFiniteLoss",
    "Objective",
    "Schedule",
    "Segment",
    "Start",
    "Sweep",
    "SweepResult",
    "Windows",
    "make_segments",
]
