"""The training loop, in plain torch: which segments learn from a batch, in which order and from which input."""

from lightning_ff.sweep.finite import NonFiniteLoss
from lightning_ff.sweep.modes import Objective
from lightning_ff.sweep.schedule import Schedule, Windows
from lightning_ff.sweep.segments import Segment, make_segments
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
